// The everything client in the second line of the TypeScript SDK; see ts_client.mjs.
//
//     node ts2_client.mjs [--mode auto|legacy] [--revision DATE] COMMAND ARGUMENT... | sse URL | streamable URL
//
// `legacy`, the default of the SDK, shakes hands at once; `auto` asks `server/discover` first, of a
// second process. `--revision` offers that revision and no other.

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { CAPABILITIES, options, run } from "./ts_client.mjs";

const { command, mode, revision } = options(process.argv.slice(2));
const client = new Client(
  { name: "ts2-client", version: "2.4" },
  {
    capabilities: CAPABILITIES,
    versionNegotiation: { mode },
    ...(revision && { supportedProtocolVersions: [revision] }),
  },
);

const transport = linkTo(command);

await run({
  sdk: "typescript 2.4",
  client,
  connect: () => client.connect(transport),
  version: () => client.getNegotiatedProtocolVersion(),
  transport: () => transport,
  on: (method, handler) => client.setRequestHandler(method, handler),
  note: (method, handler) => client.setNotificationHandler(method, handler),
  call: (params, more) => client.callTool(params, more),
});

function linkTo([first, ...rest]) {
  if (first === "sse") return new SSEClientTransport(new URL(rest[0]));
  if (first === "streamable") return new StreamableHTTPClientTransport(new URL(rest[0]));
  return new StdioClientTransport({ command: first, args: rest });
}
