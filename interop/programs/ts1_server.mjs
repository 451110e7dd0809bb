// The everything server in the first line of the TypeScript SDK; see ts_server.mjs.

import { completable } from "@modelcontextprotocol/sdk/server/completable.js";
import { McpServer, ResourceTemplate } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { SubscribeRequestSchema, UnsubscribeRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

import { CAPABILITIES, register } from "./ts_server.mjs";

const SCHEMAS = {
  "resources/subscribe": SubscribeRequestSchema,
  "resources/unsubscribe": UnsubscribeRequestSchema,
};

const app = new McpServer(
  { name: "ts1-everything", version: "1.32" },
  { instructions: "Use the tools.", capabilities: CAPABILITIES },
);
register(app, {
  z,
  // This line looks for the completion on the optional, the second one inside it.
  optional: (complete) => completable(z.string().optional(), complete),
  ResourceTemplate,
  shape: (fields) => fields,
  asks: (app, extra) => ({
    token: extra._meta?.progressToken,
    meta: extra._meta,
    signal: extra.signal,
    notify: extra.sendNotification,
    sample: (params) => app.server.createMessage(params),
    elicit: (params) => app.server.elicitInput(params),
    roots: () => app.server.listRoots(),
    ping: () => app.server.ping(),
    log: (level, data, logger) => app.server.sendLoggingMessage({ level, data, logger }),
  }),
  handle: (server, method, handler) => server.setRequestHandler(SCHEMAS[method], handler),
});
await app.connect(new StdioServerTransport());
