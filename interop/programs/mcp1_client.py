"""The everything client in the first line of the Python SDK (mcp 1.x); see interop/README.md.

    python mcp1_client.py [--skip-cancel] COMMAND ARGUMENT... | sse URL | streamable URL

Starts the server or goes to it, uses every shared feature and prints one JSON document of what it saw.
``--skip-cancel`` is for servers of mcp 1.6 and 1.9, which crash after a request is cancelled.
"""

import inspect
import json
import sys
from importlib.metadata import version

import anyio
import mcp.types as types
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import McpError
from pydantic import AnyUrl

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


def plain(value):
    return value.model_dump(by_alias=True, mode="json", exclude_none=True)


async def on_sampling(context, params):
    seen["samplingRequests"].append(plain(params))
    if getattr(params, "tools", None):
        use = types.ToolUseContent(
            type="tool_use", id="use-1", name=params.tools[0].name, input={"q": "x"}
        )
        return types.CreateMessageResultWithTools(
            role="assistant", content=[use], model="peer-model", stopReason="toolUse"
        )
    return types.CreateMessageResult(
        role="assistant",
        content=types.TextContent(type="text", text=f"answer to {params.messages[0].content.text}"),
        model="peer-model",
        stopReason="endTurn",
    )


async def on_elicit(context, params):
    seen["elicitRequests"].append(plain(params))
    if getattr(params, "mode", "form") == "url":
        return types.ElicitResult(action="accept")
    return types.ElicitResult(action="accept", content={"name": "Ada", "age": 36})


async def on_roots(context):
    seen["rootsServed"] += 1
    return types.ListRootsResult(roots=[types.Root(uri="file:///srv/project", name="project")])


async def on_log(params):
    seen["logs"].append([params.level, params.logger, params.data])


async def on_message(message):
    note = getattr(message, "root", None)
    if isinstance(note, types.ProgressNotification) and "progress_callback" not in CALL:
        params = note.params
        seen["progress"].append([params.progress, params.total, getattr(params, "message", None)])
    elif isinstance(note, types.ToolListChangedNotification):
        seen["toolsChanged"] += 1
    elif isinstance(note, types.ResourceListChangedNotification):
        seen["resourcesChanged"] += 1
    elif isinstance(note, types.PromptListChangedNotification):
        seen["promptsChanged"] += 1
    elif type(note).__name__ == "ElicitCompleteNotification":
        seen["elicitationsCompleted"].append(note.params.elicitationId)
    elif isinstance(note, types.ResourceUpdatedNotification):
        seen["resourcesUpdated"].append(str(note.params.uri))
    elif isinstance(message, Exception):
        seen.setdefault("faults", []).append(str(message)[:300])


CALL = inspect.signature(ClientSession.call_tool).parameters


def tool_result(result):
    shown = {"isError": result.isError, "content": [plain(block) for block in result.content]}
    if getattr(result, "structuredContent", None) is not None:
        shown["structuredContent"] = result.structuredContent
    return shown


def text_of(shown):
    """The text of a tool result."""
    return shown["content"][0]["text"]


async def failure(awaitable):
    """What a request ends with: its error, or the result as a tool result."""
    try:
        result = await awaitable
    except McpError as fault:
        return {"code": fault.error.code, "message": fault.error.message}
    return tool_result(result) if isinstance(result, types.CallToolResult) else plain(result)


async def slow(session):
    arguments = {"steps": 3}
    if "progress_callback" in CALL:

        async def on_progress(progress, total, message):
            seen["progress"].append([progress, total, message])

        return await session.call_tool("slow", arguments, progress_callback=on_progress)
    meta = types.RequestParams.Meta(progressToken="slow-token")
    params = types.CallToolRequestParams(name="slow", arguments=arguments, _meta=meta)
    request = types.CallToolRequest(method="tools/call", params=params)
    return await session.send_request(types.ClientRequest(request), types.CallToolResult)


async def show_meta(session):
    """Call with a member of our own in `_meta`; the older versions have no parameter for it."""
    meta = types.RequestParams.Meta(**{"interop/note": "kept"})
    params = types.CallToolRequestParams(name="show_meta", arguments={}, _meta=meta)
    request = types.CallToolRequest(method="tools/call", params=params)
    return await session.send_request(types.ClientRequest(request), types.CallToolResult)


async def cancel(session):
    """Start a call that hangs, cancel it by its id, and ask the server what it noticed."""
    outcome = {}
    request_id = []

    async def hang():
        request_id.append(session._request_id)
        outcome["result"] = await failure(session.call_tool("hang"))

    async def state():
        result = await session.call_tool("hang_state")
        return json.loads(result.content[0].text)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang)
        while (await state())["hanging"] != 1:
            await anyio.sleep(0.01)
        # No version of this line cancels by itself, so the notification is written by hand.
        params = types.CancelledNotificationParams(requestId=request_id[0], reason="not needed")
        note = types.CancelledNotification(method="notifications/cancelled", params=params)
        await session.send_notification(types.ClientNotification(note))
        while (now := await state())["cancelled"] != 1:
            await anyio.sleep(0.01)
        outcome["state"] = now
        # The specification lets the server stay silent about a cancelled request.
        tasks.cancel_scope.cancel()
    return outcome


class PageParams(types.RequestParams):
    """The parameters of a list request: 1.6 puts the cursor outside of them, where it has no effect."""

    cursor: str


class Page(types.BaseModel):
    """A list request with a cursor, for the versions whose methods take none."""

    method: str
    params: PageParams


RESULTS = {
    "tools": types.ListToolsResult,
    "resources": types.ListResourcesResult,
    "prompts": types.ListPromptsResult,
}


async def every_page(session, kind):
    method = getattr(session, f"list_{kind}")
    takes_cursor = "cursor" in inspect.signature(method).parameters
    entries, cursor = [], None
    while True:
        if cursor is None:
            page = await method()
        elif takes_cursor:
            page = await method(cursor=cursor)
        else:
            request = Page(method=f"{kind}/list", params=PageParams(cursor=cursor))
            page = await session.send_request(request, RESULTS[kind])
        entries.extend(getattr(page, kind))
        cursor = page.nextCursor
        if cursor is None:
            return entries


async def settle(session, condition):
    """Wait for notifications that may still be on their way; each ping is a full round trip."""
    for _ in range(50):
        if condition():
            return
        await session.send_ping()
        await anyio.sleep(0.01)


def opened(command):
    """The link to the server: its streams, and over Streamable HTTP what knows the session's id."""
    if command[0] == "sse":
        return sse_client(command[1])
    if command[0] == "streamable":
        # 1.6 has no such module.
        from mcp.client import streamable_http

        connect = getattr(streamable_http, "streamable_http_client", None)
        return (connect or streamable_http.streamablehttp_client)(command[1])
    return stdio_client(StdioServerParameters(command=command[0], args=command[1:]))


async def main(command):
    skip_cancel = command[0] == "--skip-cancel"
    command = command[skip_cancel:]
    options = {
        "sampling_callback": on_sampling,
        "list_roots_callback": on_roots,
        "logging_callback": on_log,
        "message_handler": on_message,
    }
    if "elicitation_callback" in inspect.signature(ClientSession).parameters:
        options["elicitation_callback"] = on_elicit
    if "sampling_capabilities" in inspect.signature(ClientSession).parameters:
        tools = types.SamplingToolsCapability()
        options["sampling_capabilities"] = types.SamplingCapability(tools=tools)
    async with (
        opened(command) as (reader, writer, *more),
        ClientSession(reader, writer, **options) as session,
    ):
        server = await session.initialize()
        seen["protocolVersion"] = str(server.protocolVersion)
        seen["serverInfo"] = plain(server.serverInfo)
        seen["capabilities"] = plain(server.capabilities)
        seen["instructions"] = server.instructions
        if more:
            (get_session_id,) = more
            seen["sessionId"] = get_session_id()
        tools = await every_page(session, "tools")
        seen["tools"] = {tool.name: plain(tool) for tool in tools}

        async def call(name, **arguments):
            return tool_result(await session.call_tool(name, arguments))

        seen["add"] = await call("add", a=2, b=3)
        seen["echo"] = await call("echo", text="grüße \U0001f600 \u2028 end")
        seen["slow"] = tool_result(await slow(session))
        seen["fail"] = await call("fail")
        seen["image"] = await call("image")
        seen["weather"] = await call("weather", city="Oslo")
        seen["media"] = await call("media")
        seen["show_meta"] = tool_result(await show_meta(session))
        seen["many"] = []

        async def add(number):
            seen["many"].append([number, text_of(await call("add", a=number, b=number))])

        async with anyio.create_task_group() as tasks:
            for number in range(32):
                tasks.start_soon(add, number)
        large = "é" * 500_000
        seen["large"] = text_of(await call("echo", text=large)) == large
        seen["ask_model"] = await call("ask_model", prompt="why?")
        seen["list_my_roots"] = await call("list_my_roots")
        await session.send_roots_list_changed()
        await session.set_logging_level("warning")
        seen["log_all_levels"] = await call("log_all_levels")
        seen["ping_client"] = await call("ping_client")
        if "elicit" in seen["tools"] and "elicitation_callback" in options:
            seen["elicit"] = await call("elicit", question="who are you?")
        if "elicit_url" in seen["tools"] and "sampling_capabilities" in options:
            seen["elicit_url"] = await call("elicit_url", url="https://example.test/sign-in")
            seen["ask_with_tools"] = await call("ask_with_tools")

        resources = await every_page(session, "resources")
        seen["resources"] = {str(entry.uri): plain(entry) for entry in resources}
        templates = (await session.list_resource_templates()).resourceTemplates
        seen["templates"] = {entry.uriTemplate: plain(entry) for entry in templates}
        for key, uri in {
            "greeting": "interop://greeting",
            "blob": "interop://blob",
            "item": "interop://item/12",
        }.items():
            seen[key] = [
                plain(part) for part in (await session.read_resource(AnyUrl(uri))).contents
            ]
        await session.subscribe_resource(AnyUrl("interop://greeting"))
        seen["touch"] = await call("touch", uri="interop://greeting")
        await settle(session, lambda: seen["resourcesUpdated"])
        await session.unsubscribe_resource(AnyUrl("interop://greeting"))
        seen["touchAgain"] = await call("touch", uri="interop://greeting")

        prompts = await every_page(session, "prompts")
        seen["prompts"] = {prompt.name: plain(prompt) for prompt in prompts}
        seen["review"] = plain(
            await session.get_prompt("review", {"code": "x = 1", "tone": "harsh"})
        )
        seen["complete"] = plain(
            await session.complete(
                types.PromptReference(type="ref/prompt", name="review"),
                {"name": "tone", "value": "kind"},
            )
        )["completion"]
        reference = getattr(types, "ResourceTemplateReference", None) or types.ResourceReference
        seen["completeTemplate"] = plain(
            await session.complete(
                reference(type="ref/resource", uri="interop://item/{id}"),
                {"name": "id", "value": "1"},
            )
        )["completion"]

        seen["ping"] = plain(await session.send_ping())
        seen["errors"] = {
            "unknownTool": await failure(session.call_tool("no_such_tool")),
            "badArguments": await failure(session.call_tool("add", {"a": "x"})),
            "unknownPrompt": await failure(session.get_prompt("no_such_prompt")),
            "missingArgument": await failure(session.get_prompt("review", {})),
            "unknownResource": await failure(session.read_resource(AnyUrl("interop://nothing"))),
        }
        seen["grow"] = await call("grow")
        await settle(session, lambda: seen["promptsChanged"])
        grown = await every_page(session, "tools")
        seen["toolsAfterGrow"] = sorted(tool.name for tool in grown)
        grown = await every_page(session, "resources")
        seen["resourcesAfterGrow"] = sorted(str(entry.uri) for entry in grown)
        grown = await every_page(session, "prompts")
        seen["promptsAfterGrow"] = sorted(prompt.name for prompt in grown)
        if "cut" in seen["tools"]:
            seen["cut"] = await call("cut")
        if not skip_cancel:
            seen["cancel"] = await cancel(session)
        await settle(session, lambda: len(seen["logs"]) >= 5 and len(seen["progress"]) >= 3)
    json.dump(seen, sys.stdout, ensure_ascii=True, indent=1)
    print()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1:])
