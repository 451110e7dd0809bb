// The everything client in the first line of the TypeScript SDK; see ts_client.mjs.
//
//     node ts1_client.mjs COMMAND ARGUMENT... | sse URL | streamable URL

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import * as types from "@modelcontextprotocol/sdk/types.js";

import { CAPABILITIES, options, run } from "./ts_client.mjs";

const SCHEMAS = {
  "sampling/createMessage": types.CreateMessageRequestSchema,
  "elicitation/create": types.ElicitRequestSchema,
  "roots/list": types.ListRootsRequestSchema,
  "notifications/message": types.LoggingMessageNotificationSchema,
  "notifications/tools/list_changed": types.ToolListChangedNotificationSchema,
  "notifications/resources/list_changed": types.ResourceListChangedNotificationSchema,
  "notifications/prompts/list_changed": types.PromptListChangedNotificationSchema,
  "notifications/elicitation/complete": types.ElicitationCompleteNotificationSchema,
  "notifications/resources/updated": types.ResourceUpdatedNotificationSchema,
};

const { command } = options(process.argv.slice(2));
const client = new Client({ name: "ts1-client", version: "1.32" }, { capabilities: CAPABILITIES });
const transport = linkTo(command);
// The SDK tells the negotiated revision to the transport alone.
let version;
const tell = transport.setProtocolVersion?.bind(transport);
transport.setProtocolVersion = (agreed) => {
  version = agreed;
  tell?.(agreed);
};

await run({
  sdk: "typescript 1.32",
  client,
  connect: () => client.connect(transport),
  version: () => version,
  transport: () => transport,
  on: (method, handler) => client.setRequestHandler(SCHEMAS[method], handler),
  note: (method, handler) => client.setNotificationHandler(SCHEMAS[method], handler),
  call: (params, more) => client.callTool(params, types.CallToolResultSchema, more),
});

function linkTo([first, ...rest]) {
  if (first === "sse") return new SSEClientTransport(new URL(rest[0]));
  if (first === "streamable") return new StreamableHTTPClientTransport(new URL(rest[0]));
  return new StdioClientTransport({ command: first, args: rest });
}
