// The everything server in the second line of the TypeScript SDK; see ts_server.mjs.
//
//     node ts2_server.mjs [streamable PORT]
//
// This line has no server of HTTP+SSE.

import { Readable } from "node:stream";

import {
  McpServer,
  ResourceTemplate,
  WebStandardStreamableHTTPServerTransport,
  completable,
} from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";

import { listen, missing, sessionOptions, wanted } from "./ts_remote.mjs";
import { CAPABILITIES, register } from "./ts_server.mjs";

const { transport, port } = wanted();

function everything() {
  const app = new McpServer(
    { name: "ts2-everything", version: "2.4" },
    { instructions: "Use the tools.", capabilities: CAPABILITIES },
  );
  register(app, {
    z,
    cuts: transport === "streamable",
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
      closeStream: context.http?.closeSSE,
    }),
    handle: (server, method, handler) => server.setRequestHandler(method, handler),
  });
  return app;
}

/** The SDK speaks the request and response of the web; Node has its own. */
async function answer(link, request, response, url) {
  const body = Readable.toWeb(request);
  const options = { method: request.method, headers: request.headers, duplex: "half" };
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const asked = new Request(url, {
    ...options,
    signal: gone.signal,
    body: request.method === "POST" ? body : undefined,
  });
  const found = await link.handleRequest(asked);
  response.writeHead(found.status, Object.fromEntries(found.headers));
  response.flushHeaders();
  if (found.body === null) response.end();
  else Readable.fromWeb(found.body).on("error", () => response.destroy()).pipe(response);
}

if (transport === undefined) {
  serveStdio(everything);
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
      link = new WebStandardStreamableHTTPServerTransport(sessionOptions(sessions, () => link));
      await everything().connect(link);
    }
    await answer(link, request, response, url);
  });
}
