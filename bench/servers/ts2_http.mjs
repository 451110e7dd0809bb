// The HTTP benchmark's server on the TypeScript SDK 2.x and node:http. Arguments: json|sse (and one unused).
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { NodeStreamableHTTPServerTransport, localhostHostValidation } from '@modelcontextprotocol/node';
import { McpServer } from '@modelcontextprotocol/server';
import { z } from 'zod';

const asJson = process.argv[2] === 'json';
const numbers = z.object({ a: z.number().int(), b: z.number().int() });
const outputSchema = z.object({ result: z.number().int() });
const sum = ({ a, b }) => ({
    content: [{ type: 'text', text: String(a + b) }],
    structuredContent: { result: a + b }
});

function make() {
    const server = new McpServer({ name: 'bench', version: '1' });
    server.registerTool(
        'add',
        { description: 'Add two numbers.', inputSchema: numbers, outputSchema },
        async args => sum(args)
    );
    server.registerTool(
        'report',
        { description: 'Add two numbers, and say so.', inputSchema: numbers, outputSchema },
        async (args, context) => {
            const progressToken = context.mcpReq._meta?.progressToken;
            if (progressToken !== undefined) {
                const params = { progressToken, progress: args.a, total: args.a + args.b };
                await context.mcpReq.notify({ method: 'notifications/progress', params });
            }
            return sum(args);
        }
    );
    return server;
}

const transports = new Map();
const isLocal = localhostHostValidation();

async function handle(request, response) {
    if (!isLocal(request, response)) return;
    const id = request.headers['mcp-session-id'];
    let transport = id && transports.get(id);
    if (!transport) {
        if (id) {
            response.writeHead(404).end();
            return;
        }
        transport = new NodeStreamableHTTPServerTransport({
            sessionIdGenerator: () => randomUUID(),
            enableJsonResponse: asJson,
            onsessioninitialized: fresh => void transports.set(fresh, transport)
        });
        transport.onclose = () => transports.delete(transport.sessionId);
        await make().connect(transport);
    }
    await transport.handleRequest(request, response);
}

const http = createServer((request, response) => {
    handle(request, response).catch(fault => {
        console.error(fault);
        response.destroy();
    });
});
http.listen(0, '127.0.0.1', 128, () => console.log(http.address().port));
