"""The everything client in the second line of the Python SDK (mcp 2.x); see interop/README.md.

    python mcp2_client.py [--mode auto|legacy] COMMAND ARGUMENT... | sse URL | streamable URL

Starts the server or goes to it, uses every shared feature and prints one JSON document of what it saw. ``auto`` is the
default of the SDK: it asks ``server/discover`` first and shakes hands when that fails; ``legacy`` shakes
hands at once.
"""

import json
import sys
import warnings
from importlib.metadata import version

import anyio
import mcp.types as types
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

# What the newest revision dropped is what the handshake revisions are tested for.
warnings.simplefilter("ignore", MCPDeprecationWarning)

seen: dict = {
    "sdk": f"mcp {version('mcp')}",
    "logs": [],
    "samplingRequests": [],
    "elicitRequests": [],
    "rootsServed": 0,
    "toolsChanged": 0,
    "resourcesChanged": 0,
    "promptsChanged": 0,
    "elicitationsCompleted": [],
    "resourcesUpdated": [],
    "progress": [],
}


SAMPLING = types.SamplingCapability(tools=types.SamplingToolsCapability())


def plain(value):
    return value.model_dump(by_alias=True, mode="json", exclude_none=True)


def use_of(params):
    """The answer of a model that uses the first tool it is given."""
    use = types.ToolUseContent(
        type="tool_use", id="use-1", name=params.tools[0].name, input={"q": "x"}
    )
    return types.CreateMessageResultWithTools(
        role="assistant", content=[use], model="peer-model", stop_reason="toolUse"
    )


async def on_sampling(context, params):
    seen["samplingRequests"].append(plain(params))
    if params.tools:
        return use_of(params)
    return types.CreateMessageResult(
        role="assistant",
        content=types.TextContent(type="text", text=f"answer to {params.messages[0].content.text}"),
        model="peer-model",
        stop_reason="endTurn",
    )


async def on_elicit(context, params):
    seen["elicitRequests"].append(plain(params))
    if params.mode == "url":
        return types.ElicitResult(action="accept")
    return types.ElicitResult(action="accept", content={"name": "Ada", "age": 36})


async def on_roots(context):
    seen["rootsServed"] += 1
    return types.ListRootsResult(roots=[types.Root(uri="file:///srv/project", name="project")])


async def on_log(params):
    seen["logs"].append([params.level, params.logger, params.data])


async def on_message(message):
    note = getattr(message, "root", message)
    if isinstance(note, types.ToolListChangedNotification):
        seen["toolsChanged"] += 1
    elif isinstance(note, types.ResourceListChangedNotification):
        seen["resourcesChanged"] += 1
    elif isinstance(note, types.PromptListChangedNotification):
        seen["promptsChanged"] += 1
    elif isinstance(note, types.ElicitCompleteNotification):
        seen["elicitationsCompleted"].append(note.params.elicitation_id)
    elif isinstance(note, types.ResourceUpdatedNotification):
        seen["resourcesUpdated"].append(str(note.params.uri))
    elif isinstance(message, Exception):
        seen.setdefault("faults", []).append(str(message)[:300])


async def on_progress(progress, total, message):
    seen["progress"].append([progress, total, message])


def tool_result(result):
    shown = {"isError": result.is_error, "content": [plain(block) for block in result.content]}
    if result.structured_content is not None:
        shown["structuredContent"] = result.structured_content
    return shown


def text_of(shown):
    """The text of a tool result."""
    return shown["content"][0]["text"]


async def failure(awaitable):
    """What a request ends with: its error, or the result as a tool result."""
    try:
        result = await awaitable
    except MCPError as fault:
        return {"code": fault.error.code, "message": fault.error.message}
    return tool_result(result) if isinstance(result, types.CallToolResult) else plain(result)


async def cancel(client):
    """Abandon a call that hangs and ask the server what it noticed."""
    outcome = {}

    async def state():
        result = await client.call_tool("hang_state")
        return json.loads(result.content[0].text)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "hang")
        while (await state())["hanging"] != 1:
            await anyio.sleep(0.01)
        # This line sends notifications/cancelled for a call whose task is cancelled.
        tasks.cancel_scope.cancel()
    while (now := await state())["cancelled"] != 1:
        await anyio.sleep(0.01)
    outcome["state"] = now
    return outcome


async def every_page(method, attribute):
    entries, cursor = [], None
    while True:
        page = await method(cursor=cursor, cache_mode="bypass")
        entries.extend(getattr(page, attribute))
        cursor = page.next_cursor
        if not cursor:
            return entries


async def settle(client, condition):
    """Wait for notifications that may still be on their way; each ping is a full round trip."""
    for _ in range(50):
        if condition():
            return
        await client.send_ping()
        await anyio.sleep(0.01)


def opened(command):
    """The link to the server."""
    if command[0] == "sse":
        return sse_client(command[1])
    if command[0] == "streamable":
        # The large text is over the default limit of an event.
        return streamable_http_client(command[1], max_sse_event_size=None)
    return StdioServerParameters(command=command[0], args=command[1:])


async def main(command):
    mode = "auto"
    if command[0] == "--mode":
        mode, command = command[1], command[2:]
    async with Client(
        opened(command),
        mode=mode,
        sampling_callback=on_sampling,
        sampling_capabilities=SAMPLING,
        list_roots_callback=on_roots,
        logging_callback=on_log,
        elicitation_callback=on_elicit,
        message_handler=on_message,
        read_timeout_seconds=30,
    ) as client:
        seen["protocolVersion"] = client.protocol_version
        seen["serverInfo"] = plain(client.server_info)
        seen["capabilities"] = plain(client.server_capabilities)
        seen["instructions"] = client.instructions
        tools = await every_page(client.list_tools, "tools")
        seen["tools"] = {tool.name: plain(tool) for tool in tools}

        async def call(name, **arguments):
            return tool_result(await client.call_tool(name, arguments))

        seen["add"] = await call("add", a=2, b=3)
        seen["echo"] = await call("echo", text="grüße \U0001f600 \u2028 end")
        seen["slow"] = tool_result(
            await client.call_tool("slow", {"steps": 3}, progress_callback=on_progress)
        )
        seen["fail"] = await call("fail")
        seen["image"] = await call("image")
        seen["weather"] = await call("weather", city="Oslo")
        seen["many"] = []

        async def add(number):
            seen["many"].append([number, text_of(await call("add", a=number, b=number))])

        async with anyio.create_task_group() as tasks:
            for number in range(32):
                tasks.start_soon(add, number)
        # Over SSE the client takes no event of more than 1 MiB, and has no setting for it.
        large = "é" * (80_000 if command[0] == "sse" else 500_000)
        seen["large"] = text_of(await call("echo", text=large)) == large
        seen["media"] = await call("media")
        seen["show_meta"] = tool_result(
            await client.call_tool("show_meta", {}, meta={"interop/note": "kept"})
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

        resources = await every_page(client.list_resources, "resources")
        seen["resources"] = {str(entry.uri): plain(entry) for entry in resources}
        templates = await every_page(client.list_resource_templates, "resource_templates")
        seen["templates"] = {entry.uri_template: plain(entry) for entry in templates}
        for key, uri in {
            "greeting": "interop://greeting",
            "blob": "interop://blob",
            "item": "interop://item/12",
        }.items():
            seen[key] = [plain(part) for part in (await client.read_resource(uri)).contents]
        await client.subscribe_resource("interop://greeting")
        seen["touch"] = await call("touch", uri="interop://greeting")
        await settle(client, lambda: seen["resourcesUpdated"])
        await client.unsubscribe_resource("interop://greeting")
        seen["touchAgain"] = await call("touch", uri="interop://greeting")

        prompts = await every_page(client.list_prompts, "prompts")
        seen["prompts"] = {prompt.name: plain(prompt) for prompt in prompts}
        seen["review"] = plain(
            await client.get_prompt("review", {"code": "x = 1", "tone": "harsh"})
        )
        seen["complete"] = plain(
            await client.complete(
                types.PromptReference(type="ref/prompt", name="review"),
                {"name": "tone", "value": "kind"},
            )
        )["completion"]
        seen["completeTemplate"] = plain(
            await client.complete(
                types.ResourceTemplateReference(type="ref/resource", uri="interop://item/{id}"),
                {"name": "id", "value": "1"},
            )
        )["completion"]

        seen["ping"] = plain(await client.send_ping())
        seen["errors"] = {
            "unknownTool": await failure(client.call_tool("no_such_tool")),
            "badArguments": await failure(client.call_tool("add", {"a": "x"})),
            "unknownPrompt": await failure(client.get_prompt("no_such_prompt")),
            "missingArgument": await failure(client.get_prompt("review", {})),
            "unknownResource": await failure(client.read_resource("interop://nothing")),
        }
        seen["grow"] = await call("grow")
        await settle(client, lambda: seen["promptsChanged"])
        grown = await every_page(client.list_tools, "tools")
        seen["toolsAfterGrow"] = sorted(tool.name for tool in grown)
        grown = await every_page(client.list_resources, "resources")
        seen["resourcesAfterGrow"] = sorted(str(entry.uri) for entry in grown)
        grown = await every_page(client.list_prompts, "prompts")
        seen["promptsAfterGrow"] = sorted(prompt.name for prompt in grown)
        if "cut" in seen["tools"]:
            seen["cut"] = await call("cut")
        seen["cancel"] = await cancel(client)
        await settle(client, lambda: len(seen["logs"]) >= 5 and len(seen["progress"]) >= 3)
    json.dump(seen, sys.stdout, ensure_ascii=True, indent=1)
    print()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
