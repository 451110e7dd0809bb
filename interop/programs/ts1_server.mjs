// The everything server in the first line of the TypeScript SDK; see ts_server.mjs.
//
//     node ts1_server.mjs [sse|streamable PORT]

import { completable } from "@modelcontextprotocol/sdk/server/completable.js";
import { McpServer, ResourceTemplate } from "@modelcontextprotocol/sdk/server/mcp.js";
import { SSEServerTransport } from "@modelcontextprotocol/sdk/server/sse.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { SubscribeRequestSchema, UnsubscribeRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

import { listen, missing, sessionOptions, wanted } from "./ts_remote.mjs";
import { CAPABILITIES, register } from "./ts_server.mjs";

const SCHEMAS = {
  "resources/subscribe": SubscribeRequestSchema,
  "resources/unsubscribe": UnsubscribeRequestSchema,
};

const { transport, port } = wanted();

function everything() {
  const app = new McpServer(
    { name: "ts1-everything", version: "1.32" },
    { instructions: "Use the tools.", capabilities: CAPABILITIES },
  );
  register(app, {
    z,
    cuts: transport === "streamable",
    // This line looks for the completion on the optional, the second one inside it.
    optional: (complete) => completable(z.string().optional(), complete),
    ResourceTemplate,
    shape: (fields) => fields,
    asks: (app, extra) => ({
      token: extra._meta?.progressToken,
      meta: extra._meta,
      signal: extra.signal,
      notify: extra.sendNotification,
      // Over Streamable HTTP a request to the client travels on the stream of its own request.
      sample: (params) => app.server.createMessage(params, { relatedRequestId: extra.requestId }),
      elicit: (params) => app.server.elicitInput(params, { relatedRequestId: extra.requestId }),
      roots: () => app.server.listRoots(),
      ping: () => app.server.ping(),
      log: (level, data, logger) => app.server.sendLoggingMessage({ level, data, logger }, extra.sessionId),
      closeStream: extra.closeSSEStream,
    }),
    handle: (server, method, handler) => server.setRequestHandler(SCHEMAS[method], handler),
  });
  return app;
}

if (transport === undefined) {
  await everything().connect(new StdioServerTransport());
} else if (transport === "sse") {
  const sessions = new Map();
  listen(port, async (request, response, url) => {
    if (request.method === "GET" && url.pathname === "/sse") {
      const link = new SSEServerTransport("/messages", response);
      sessions.set(link.sessionId, link);
      await everything().connect(link);
      return;
    }
    const link = sessions.get(url.searchParams.get("sessionId"));
    if (link === undefined) missing(response);
    else await link.handlePostMessage(request, response);
  });
} else {
  const sessions = new Map();
  listen(port, async (request, response, url) => {
    const id = request.headers["mcp-session-id"];
    let link = sessions.get(id);
    if (url.pathname !== "/mcp" || (id !== undefined && link === undefined)) {
      missing(response);
      return;
    }
    if (link === undefined) {
      link = new StreamableHTTPServerTransport(sessionOptions(sessions, () => link));
      await everything().connect(link);
    }
    await link.handleRequest(request, response);
  });
}
