"""The everything client in FastMCP 4; see interop/README.md.

    python fastmcp_client.py [--mode auto|legacy] COMMAND ARGUMENT... | sse URL | streamable URL

Starts the server or goes to it, uses every shared feature and prints one JSON document of what it saw. The modes are
those of mcp2_client.py.
"""

import asyncio
import json
import sys
from importlib.metadata import version

import mcp_types as types
from fastmcp import Client
from fastmcp.client.messages import MessageHandler
from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport
from mcp2_client import (
    SAMPLING,
    cancel,
    failure,
    on_log,
    on_progress,
    plain,
    seen,
    text_of,
    tool_result,
    use_of,
)

seen["sdk"] = f"fastmcp {version('fastmcp')}"


async def on_sampling(messages, params, context):
    seen["samplingRequests"].append(plain(params))
    if params.tools:
        return use_of(params)
    return types.CreateMessageResult(
        role="assistant",
        content=types.TextContent(type="text", text=f"answer to {messages[0].content.text}"),
        model="peer-model",
        stop_reason="endTurn",
    )


async def on_elicit(message, response_type, params, context):
    seen["elicitRequests"].append(plain(params))
    if params.mode == "url":
        return types.ElicitResult(action="accept")
    return {"name": "Ada", "age": 36}


async def on_roots(context):
    seen["rootsServed"] += 1
    return [types.Root(uri="file:///srv/project", name="project")]


class Notes(MessageHandler):
    """Keeps what the client has no callback for."""

    async def on_tool_list_changed(self, message):
        seen["toolsChanged"] += 1

    async def on_resource_list_changed(self, message):
        seen["resourcesChanged"] += 1

    async def on_prompt_list_changed(self, message):
        seen["promptsChanged"] += 1

    async def on_notification(self, message):
        if isinstance(message, types.ElicitCompleteNotification):
            seen["elicitationsCompleted"].append(message.params.elicitation_id)

    async def on_resource_updated(self, message):
        seen["resourcesUpdated"].append(str(message.params.uri))


class Raw:
    """The calls of `mcp2_client.cancel`, with the results as they came."""

    def __init__(self, client):
        self.client = client

    async def call_tool(self, name, arguments=None):
        return await self.client.call_tool_mcp(name, arguments or {})


async def settle(client, condition):
    for _ in range(50):
        if condition():
            return
        await client.ping()
        await asyncio.sleep(0.01)


def opened(command):
    """The link to the server."""
    if command[0] == "sse":
        return SSETransport(command[1])
    if command[0] == "streamable":
        return StreamableHttpTransport(command[1])
    return StdioTransport(command[0], command[1:], keep_alive=False)


async def main(command):
    mode = "auto"
    if command[0] == "--mode":
        mode, command = command[1], command[2:]
    client = Client(
        opened(command),
        mode=mode,
        sampling_handler=on_sampling,
        sampling_capabilities=SAMPLING,
        elicitation_handler=on_elicit,
        roots=on_roots,
        log_handler=on_log,
        message_handler=Notes(),
        timeout=30,
        cache=False,
    )
    async with client:
        seen["protocolVersion"] = client.protocol_version
        seen["serverInfo"] = plain(client.server_info)
        seen["capabilities"] = plain(client.server_capabilities)
        seen["instructions"] = client.instructions
        seen["tools"] = {tool.name: plain(tool) for tool in await client.list_tools()}
        raw = Raw(client)

        async def call(name, **arguments):
            return tool_result(await raw.call_tool(name, arguments))

        async def get_prompt(name, arguments=None):
            return await client.get_prompt_mcp(name, arguments)

        seen["add"] = await call("add", a=2, b=3)
        seen["echo"] = await call("echo", text="grüße \U0001f600 \u2028 end")
        seen["slow"] = tool_result(
            await client.call_tool_mcp("slow", {"steps": 3}, progress_handler=on_progress)
        )
        seen["fail"] = await call("fail")
        seen["image"] = await call("image")
        seen["weather"] = await call("weather", city="Oslo")
        seen["many"] = []

        async def add(number):
            seen["many"].append([number, text_of(await call("add", a=number, b=number))])

        await asyncio.gather(*map(add, range(32)))
        # Over HTTP the client takes no event of more than 1 MiB, and has no setting for it.
        large = "é" * (80_000 if command[0] in ("sse", "streamable") else 500_000)
        seen["large"] = text_of(await call("echo", text=large)) == large
        seen["media"] = await call("media")
        seen["show_meta"] = tool_result(
            await client.call_tool_mcp("show_meta", {}, meta={"interop/note": "kept"})
        )
        seen["ask_model"] = await call("ask_model", prompt="why?")
        seen["list_my_roots"] = await call("list_my_roots")
        await client.send_roots_list_changed()
        await client.set_logging_level("warning")
        seen["log_all_levels"] = await call("log_all_levels")
        seen["ping_client"] = await call("ping_client")
        if "elicit" in seen["tools"]:
            seen["elicit"] = await call("elicit", question="who are you?")
            seen["elicit_url"] = await call("elicit_url", url="https://example.test/sign-in")
            seen["ask_with_tools"] = await call("ask_with_tools")

        resources = await client.list_resources()
        seen["resources"] = {str(entry.uri): plain(entry) for entry in resources}
        templates = await client.list_resource_templates()
        seen["templates"] = {entry.uri_template: plain(entry) for entry in templates}
        for key, uri in {
            "greeting": "interop://greeting",
            "blob": "interop://blob",
            "item": "interop://item/12",
        }.items():
            seen[key] = [plain(part) for part in await client.read_resource(uri)]
        await client.session.subscribe_resource("interop://greeting")
        seen["touch"] = await call("touch", uri="interop://greeting")
        await settle(client, lambda: seen["resourcesUpdated"])
        await client.session.unsubscribe_resource("interop://greeting")
        seen["touchAgain"] = await call("touch", uri="interop://greeting")

        seen["prompts"] = {prompt.name: plain(prompt) for prompt in await client.list_prompts()}
        seen["review"] = plain(await get_prompt("review", {"code": "x = 1", "tone": "harsh"}))
        seen["complete"] = plain(
            await client.complete(
                types.PromptReference(type="ref/prompt", name="review"),
                {"name": "tone", "value": "kind"},
            )
        )
        seen["completeTemplate"] = plain(
            await client.complete(
                types.ResourceTemplateReference(type="ref/resource", uri="interop://item/{id}"),
                {"name": "id", "value": "1"},
            )
        )

        seen["ping"] = {} if await client.ping() else None
        seen["errors"] = {
            "unknownTool": await failure(raw.call_tool("no_such_tool")),
            "badArguments": await failure(raw.call_tool("add", {"a": "x"})),
            "unknownPrompt": await failure(get_prompt("no_such_prompt")),
            "missingArgument": await failure(get_prompt("review", {})),
            "unknownResource": await failure(client.read_resource_mcp("interop://nothing")),
        }
        seen["grow"] = await call("grow")
        await settle(client, lambda: seen["promptsChanged"])
        seen["toolsAfterGrow"] = sorted(tool.name for tool in await client.list_tools())
        grown = await client.list_resources()
        seen["resourcesAfterGrow"] = sorted(str(entry.uri) for entry in grown)
        seen["promptsAfterGrow"] = sorted(prompt.name for prompt in await client.list_prompts())
        if "cut" in seen["tools"]:
            seen["cut"] = await call("cut")
        seen["cancel"] = await cancel(raw)
        await settle(client, lambda: len(seen["logs"]) >= 5 and len(seen["progress"]) >= 3)
    json.dump(seen, sys.stdout, ensure_ascii=True, indent=1)
    print()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
