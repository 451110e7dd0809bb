// The client of the TypeScript SDK 2.x. Arguments: stdio CALLS WINDOW SERVER…
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { main } from './common.mjs';

await main(async server => {
    const client = new Client({ name: 'bench', version: '1' });
    await client.connect(new StdioClientTransport(server));
    return client;
});
