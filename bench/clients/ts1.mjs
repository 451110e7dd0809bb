// The client of the TypeScript SDK 1.x. Arguments: stdio CALLS WINDOW SERVER…
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { main } from './common.mjs';

await main(async server => {
    const client = new Client({ name: 'bench', version: '1' });
    await client.connect(new StdioClientTransport(server));
    return client;
});
