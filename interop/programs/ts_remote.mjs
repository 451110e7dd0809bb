// What both lines of the TypeScript SDK need to be HTTP servers; see interop/README.md.
//
// A server program takes no argument to serve stdio, or `sse PORT` or `streamable PORT`: at
// http://127.0.0.1:PORT/sse or http://127.0.0.1:PORT/mcp.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

const HOST = "127.0.0.1";

/** How long a client waits before it resumes a stream that a server closed, in milliseconds. */
const RETRY_MS = 20;

/** The transport and the port of the command line; the transport is undefined for stdio. */
export function wanted() {
  const [transport, port] = process.argv.slice(2);
  return { transport, port: Number(port) };
}

/** Every event that was sent, in memory, for as long as the process lives. */
class Events {
  sent = [];

  async storeEvent(stream, message) {
    this.sent.push([stream, message]);
    return String(this.sent.length);
  }

  async getStreamIdForEventId(id) {
    return this.sent[Number(id) - 1]?.[0];
  }

  async replayEventsAfter(id, { send }) {
    const [stream] = this.sent[Number(id) - 1];
    for (let number = Number(id) + 1; number <= this.sent.length; number++) {
      const [found, message] = this.sent[number - 1];
      // An empty message marks the beginning of a stream.
      if (found === stream && Object.keys(message).length > 0) await send(String(number), message);
    }
    return stream;
  }
}

/** What a transport of Streamable HTTP is made with; `sessions` remembers it by its id. */
export function sessionOptions(sessions, transport) {
  return {
    sessionIdGenerator: randomUUID,
    eventStore: new Events(),
    retryInterval: RETRY_MS,
    onsessioninitialized: (id) => sessions.set(id, transport()),
    onsessionclosed: (id) => sessions.delete(id),
  };
}

/** Serve each request with `answer(request, response, url)`; what goes wrong is a 500. */
export function listen(port, answer) {
  createServer(async (request, response) => {
    try {
      await answer(request, response, new URL(request.url, `http://${HOST}:${port}`));
    } catch (fault) {
      console.error(fault);
      if (!response.headersSent) response.writeHead(500);
      response.end();
    }
  }).listen(port, HOST);
}

/** Answer for a session or a path that is not there. */
export function missing(response) {
  response.writeHead(404, { "content-type": "application/json" });
  const error = { code: -32001, message: "Session not found" };
  response.end(JSON.stringify({ jsonrpc: "2.0", id: null, error }));
}
