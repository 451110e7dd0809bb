// The everything client in the first line of the TypeScript SDK; see ts_client.mjs.
//
//     node ts1_client.mjs COMMAND ARGUMENT...

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
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
const transport = new StdioClientTransport({ command: command[0], args: command.slice(1) });
// The SDK tells the negotiated revision to the transport alone.
let version;
transport.setProtocolVersion = (agreed) => {
  version = agreed;
};

await run({
  sdk: "typescript 1.32",
  client,
  connect: () => client.connect(transport),
  version: () => version,
  on: (method, handler) => client.setRequestHandler(SCHEMAS[method], handler),
  note: (method, handler) => client.setNotificationHandler(SCHEMAS[method], handler),
  call: (params, more) => client.callTool(params, types.CallToolResultSchema, more),
});
