// The benchmark's server on the TypeScript SDK 1.x. Argument: quickstart, calls, models or list.
import { McpServer, ResourceTemplate } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { z } from 'zod';
import { offer } from './offer.mjs';

const shape = fields => fields;
const server = new McpServer({ name: 'bench', version: '1' });
offer(server, process.argv[2], { z, shape, ResourceTemplate });
await server.connect(new StdioServerTransport());
