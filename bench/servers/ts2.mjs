// The benchmark's server on the TypeScript SDK 2.x. Argument: quickstart, calls, models or list.
import { McpServer, ResourceTemplate } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';
import { offer } from './offer.mjs';

const shape = fields => z.object(fields);
serveStdio(() => {
    const server = new McpServer({ name: 'bench', version: '1' });
    offer(server, process.argv[2], { z, shape, ResourceTemplate });
    return server;
});
