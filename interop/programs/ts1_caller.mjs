// Calls a tool again and again with the first line of the TypeScript SDK; see tests/interop/test_deployment.py.
//
//     node ts1_caller.mjs URL TOKEN
//
// Prints a line after the first call. Ends when stdin does, and prints how many calls there were and which failed.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, token] = process.argv.slice(2);
let isOver = false;
process.stdin.on("end", () => (isOver = true)).resume();

const client = new Client({ name: "ts1-caller", version: "1" });
const requestInit = { headers: { Authorization: `Bearer ${token}` } };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
const failures = [];
let calls = 0;
while (!isOver) {
  calls += 1;
  try {
    const result = await client.callTool({ name: "add_note", arguments: { text: String(calls) } });
    if (result.isError) failures.push(result.content[0].text);
  } catch (error) {
    failures.push(String(error));
  }
  if (calls === 1) console.log("calling");
}
await client.close();
console.log(JSON.stringify({ calls, failures }));
