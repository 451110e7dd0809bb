// The client of the TypeScript SDK 2.x. Arguments: stdio CALLS WINDOW SERVER…, or http CALLS WINDOW URL
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { main } from './common.mjs';

await main(async server => {
    const client = new Client({ name: 'bench', version: '1' });
    const transport = server.url
        ? new StreamableHTTPClientTransport(new URL(server.url))
        : new StdioClientTransport(server);
    await client.connect(transport);
    return client;
});
