// The everything server in the second line of the TypeScript SDK; see ts_server.mjs.

import { McpServer, ResourceTemplate, completable } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";

import { CAPABILITIES, register } from "./ts_server.mjs";

serveStdio(() => {
  const app = new McpServer(
    { name: "ts2-everything", version: "2.4" },
    { instructions: "Use the tools.", capabilities: CAPABILITIES },
  );
  register(app, {
    z,
    optional: (complete) => completable(z.string(), complete).optional(),
    ResourceTemplate,
    shape: (fields) => z.object(fields),
    asks: (app, context) => ({
      token: context.mcpReq._meta?.progressToken,
      meta: context.mcpReq._meta,
      signal: context.mcpReq.signal,
      notify: context.mcpReq.notify,
      sample: (params) => context.mcpReq.requestSampling(params),
      elicit: (params) => context.mcpReq.elicitInput(params),
      roots: () => context.mcpReq.send({ method: "roots/list" }),
      ping: () => context.mcpReq.send({ method: "ping" }),
      log: (level, data, logger) => context.mcpReq.log(level, data, logger),
    }),
    handle: (server, method, handler) => server.setRequestHandler(method, handler),
  });
  return app;
});
