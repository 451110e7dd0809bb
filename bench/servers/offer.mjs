// What the server of either line of the TypeScript SDK offers; their registration calls are the same.
export function offer(server, mode, { z, shape, ResourceTemplate }) {
    const text = value => ({ content: [{ type: 'text', text: value }] });

    if (mode === 'quickstart' || mode === 'calls') {
        server.registerTool(
            'add',
            {
                description: 'Add two numbers.',
                inputSchema: shape({ a: z.number().int(), b: z.number().int() }),
                outputSchema: shape({ result: z.number().int() })
            },
            async ({ a, b }) => ({ ...text(String(a + b)), structuredContent: { result: a + b } })
        );
    }
    if (mode === 'quickstart') {
        server.registerResource(
            'greeting',
            new ResourceTemplate('greeting://{name}', { list: undefined }),
            { description: 'A greeting.' },
            async (uri, { name }) => ({ contents: [{ uri: uri.href, text: `Hello, ${name}!` }] })
        );
        server.registerPrompt(
            'greet',
            { description: 'Ask for a greeting.', argsSchema: shape({ name: z.string() }) },
            ({ name }) => ({
                messages: [
                    { role: 'user', content: { type: 'text', text: `Write a greeting for ${name}.` } }
                ]
            })
        );
    }
    if (mode === 'calls') {
        let waiting = [];
        server.registerTool(
            'echo',
            { description: 'The text as it came.', inputSchema: shape({ text: z.string() }) },
            async args => text(args.text)
        );
        server.registerTool(
            'hold',
            { description: 'Wait until released.', inputSchema: shape({}) },
            async () => {
                await new Promise(resolve => waiting.push(resolve));
                return text('held');
            }
        );
        server.registerTool(
            'release',
            { description: 'End every wait.', inputSchema: shape({}) },
            async () => {
                for (const resolve of waiting) resolve();
                waiting = [];
                return text('released');
            }
        );
    }
    if (mode === 'models') {
        const item = z.object({
            sku: z.string(),
            quantity: z.number().int().min(1),
            price: z.number()
        });
        const order = z.object({
            customer: z.string(),
            items: z.array(item),
            express: z.boolean().default(false)
        });
        server.registerTool(
            'order',
            {
                description: 'Price an order.',
                inputSchema: shape({ order }),
                outputSchema: shape({
                    customer: z.string(),
                    lines: z.number().int(),
                    total: z.number()
                })
            },
            async ({ order }) => {
                const total = order.items.reduce((sum, one) => sum + one.quantity * one.price, 0);
                const receipt = { customer: order.customer, lines: order.items.length, total };
                return { ...text(JSON.stringify(receipt)), structuredContent: receipt };
            }
        );
    }
    if (mode === 'list') {
        for (let n = 0; n < 100; n++) {
            server.registerTool(
                `tool_${n}`,
                {
                    description: 'A tool with three arguments, one of a hundred.',
                    inputSchema: shape({
                        city: z.string().describe('Name of the city.'),
                        days: z.number().int().default(3).describe('How many days.'),
                        units: z.string().default('m').describe('metric or imperial.')
                    }),
                    outputSchema: shape({ result: z.number().int() })
                },
                async () => ({ ...text(String(n)), structuredContent: { result: n } })
            );
        }
    }
}
