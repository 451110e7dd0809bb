// What the TypeScript client programs share: the timed loop and the line they print.
const ONE_BY_ONE_CALLS = 200;

async function spread(call, calls, window) {
    let next = 0;
    const work = async () => {
        while (next < calls) {
            const a = next++;
            const given = await call(a);
            if (given !== a + 1) throw new Error(`add(${a}, 1) gave ${given}`);
        }
    };
    await Promise.all(Array.from({ length: window }, work));
}

export async function drive(call, calls, window) {
    // As many calls as will be measured: the compiler settles in them.
    await spread(call, calls, window);
    const used = process.cpuUsage();
    const start = process.hrtime.bigint();
    await spread(call, calls, window);
    const wall = Number(process.hrtime.bigint() - start) / 1e9;
    const { user, system } = process.cpuUsage(used);
    const each = [];
    for (let a = 0; a < ONE_BY_ONE_CALLS; a++) {
        const begun = process.hrtime.bigint();
        await call(a);
        each.push(Number(process.hrtime.bigint() - begun) / 1e9);
    }
    each.sort((x, y) => x - y);
    const p50 = each[each.length >> 1];
    return { calls, wall_s: wall, cpu_s: (user + system) / 1e6, p50_s: p50 };
}

export async function main(connect) {
    const [how, calls, window, command, ...args] = process.argv.slice(2);
    if (how !== 'stdio' && how !== 'http') throw new Error(`unknown target ${how}`);
    const client = await connect(how === 'http' ? { url: command } : { command, args });
    const call = async a => {
        const result = await client.callTool({ name: 'add', arguments: { a, b: 1 } });
        return result.structuredContent.result;
    };
    console.log(JSON.stringify(await drive(call, Number(calls), Number(window))));
    await client.close();
}
