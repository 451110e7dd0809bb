"""The everything server in the first line of the Python SDK (mcp 1.x); see interop/README.md.

One file serves 1.6 to 1.29: what a version lacks (elicitation, output schemas) is left out.

    python mcp1_server.py [sse|streamable PORT]
"""

import inspect
import json

import anyio
import mcp.types as types
from mcp.server.fastmcp import Context, FastMCP, Image
from mcp.server.fastmcp.prompts import Prompt
from mcp.server.fastmcp.resources import TextResource
from mcp.server.lowlevel import NotificationOptions
from mcp.server.stdio import stdio_server
from pydantic import BaseModel
from remote import HOST, RETRY_MS, event_store, wanted

LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)
WAV = "UklGRgAAAABXQVZF"
ITEMS = ["1", "12", "2"]
TONES = ["harsh", "kind", "kindly"]

app = FastMCP("mcp1-everything", instructions="Use the tools.", log_level="WARNING")
low = app._mcp_server
state = {"level": "debug", "hanging": 0, "cancelled": 0}
subscribed: set[str] = set()


def about(ctx, method):
    """What puts a message on the stream of the request it belongs to, where the version can."""
    if "related_request_id" in inspect.signature(method).parameters:
        return {"related_request_id": ctx.request_id}
    return {}


class Person(BaseModel):
    """What the elicit tool asks for."""

    name: str
    age: int


class Weather(BaseModel):
    """What the weather tool returns."""

    city: str
    degrees: float


@app.tool(description="Add two integers.")
def add(a: int, b: int) -> int:
    return a + b


@app.tool(description="Return the text unchanged.")
def echo(text: str) -> str:
    return text


@app.tool(description="Report progress for each step.")
async def slow(steps: int, ctx: Context) -> str:
    meta = ctx.request_context.meta
    token = meta.progressToken if meta else None
    for step in range(1, steps + 1):
        if token is not None:
            # Sent on the session: 1.6 has no message in its helper, and none in its revision.
            send = ctx.session.send_progress_notification
            await send(token, step, steps, **about(ctx, send))
    return f"done {steps}"


@app.tool(description="Always fail.")
def fail() -> str:
    raise ValueError("deliberate failure")


@app.tool(description="Return a picture.")
def image() -> Image:
    return Image(data=PNG, format="png")


# Titles came with 2025-06-18, hints about behaviour with 2025-03-26, icons with 2025-11-25.
SHOWN = {}
if hasattr(types, "ToolAnnotations"):
    SHOWN["annotations"] = types.ToolAnnotations(readOnlyHint=True)
if hasattr(types, "ResourceLink"):
    SHOWN["title"] = "The weather"
if types.LATEST_PROTOCOL_VERSION == "2025-11-25":
    SHOWN["icons"] = [types.Icon(src="https://example.test/sun.png", mimeType="image/png")]


@app.tool(description="Return a record.", **SHOWN)
def weather(city: str) -> Weather:
    return Weather(city=city, degrees=21.5)


@app.tool(description="Return every kind of content that the SDK knows.")
def media():
    embedded = types.TextResourceContents(
        uri="interop://greeting", mimeType="text/plain", text="hello from the peer"
    )
    blocks = [types.TextContent(type="text", text="media")]
    if hasattr(types, "AudioContent"):
        blocks.append(types.AudioContent(type="audio", data=WAV, mimeType="audio/wav"))
    blocks.append(types.EmbeddedResource(type="resource", resource=embedded))
    if hasattr(types, "ResourceLink"):
        blocks.append(types.ResourceLink(type="resource_link", uri="interop://blob", name="blob"))
    return blocks


@app.tool(description="Return the request's _meta.")
def show_meta(ctx: Context) -> str:
    meta = ctx.request_context.meta
    return json.dumps({} if meta is None else meta.model_extra)


@app.tool(description="Ask the client's model.")
async def ask_model(prompt: str, ctx: Context) -> str:
    question = types.SamplingMessage(
        role="user", content=types.TextContent(type="text", text=prompt)
    )
    answer = await ctx.session.create_message(
        [question],
        max_tokens=50,
        system_prompt="be brief",
        temperature=0.5,
        stop_sequences=["STOP"],
        model_preferences=types.ModelPreferences(
            hints=[types.ModelHint(name="small")], speedPriority=0.9
        ),
        **about(ctx, ctx.session.create_message),
    )
    return f"{answer.role}|{answer.model}|{answer.content.text}"


@app.tool(description="List the client's roots.")
async def list_my_roots(ctx: Context) -> str:
    found = await ctx.session.list_roots()
    return json.dumps([[str(root.uri), root.name] for root in found.roots])


@app.tool(description="Log once at each level.")
async def log_all_levels(ctx: Context) -> str:
    for level in LEVELS[LEVELS.index(state["level"]) :]:
        send = ctx.session.send_log_message
        await send(level, f"message at {level}", logger="interop", **about(ctx, send))
    return "logged"


@app.tool(description="Ping the client.")
async def ping_client(ctx: Context) -> str:
    await ctx.session.send_ping()
    return "pong"


@app.tool(description="Wait until the request is cancelled.")
async def hang() -> str:
    state["hanging"] += 1
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        state["cancelled"] += 1
        raise
    finally:
        state["hanging"] -= 1
    return "never"


@app.tool(description="Say how many calls hang and how many were cancelled.")
def hang_state() -> str:
    return json.dumps({"hanging": state["hanging"], "cancelled": state["cancelled"]})


@app.tool(description="Add a tool, a resource and a prompt and announce them.")
async def grow(ctx: Context) -> str:
    def extra() -> str:
        return "extra"

    app.add_tool(extra, name="extra", description="Came later.")
    app.add_resource(TextResource(uri="interop://extra", name="extra", text="extra"))
    app.add_prompt(Prompt.from_function(extra, name="extra", description="Came later."))
    await ctx.session.send_tool_list_changed()
    await ctx.session.send_resource_list_changed()
    await ctx.session.send_prompt_list_changed()
    return "grown"


@app.tool(description="Announce that a resource changed, to those who subscribed.")
async def touch(uri: str, ctx: Context) -> str:
    if uri not in subscribed:
        return "nobody subscribed"
    await ctx.session.send_resource_updated(types.AnyUrl(uri))
    return "announced"


if hasattr(Context, "elicit"):

    @app.tool(description="Ask the client's user.")
    async def elicit(question: str, ctx: Context) -> str:
        answer = await ctx.elicit(question, Person)
        data = getattr(answer, "data", None)
        return json.dumps([answer.action, data.model_dump() if data is not None else None])


if hasattr(Context, "elicit_url"):

    @app.tool(description="Send the client's user to a page.")
    async def elicit_url(url: str, ctx: Context) -> str:
        answer = await ctx.elicit_url("please sign in", url, "visit-1")
        await ctx.session.send_elicit_complete(
            "visit-1", **about(ctx, ctx.session.send_elicit_complete)
        )
        return answer.action

    @app.tool(description="Ask the client's model to use a tool.")
    async def ask_with_tools(ctx: Context) -> str:
        question = types.SamplingMessage(
            role="user", content=types.TextContent(type="text", text="look it up")
        )
        answer = await ctx.session.create_message(
            [question],
            max_tokens=50,
            tools=[types.Tool(name="lookup", inputSchema={"type": "object"})],
            tool_choice=types.ToolChoice(mode="required"),
            **about(ctx, ctx.session.create_message),
        )
        (block,) = answer.content_as_list
        return json.dumps([answer.stopReason, block.type, block.name, block.input])


@app.resource("interop://greeting", name="greeting", description="A text", mime_type="text/plain")
def greeting() -> str:
    return "hello from the peer"


@app.resource("interop://blob", name="blob", mime_type="application/octet-stream")
def blob() -> bytes:
    return bytes(range(256))


@app.resource("interop://item/{id}", name="item", description="One item", mime_type="text/plain")
def item(id: str) -> str:
    return f"item {id}"


@app.prompt(description="Ask for a review.")
def review(code: str, tone: str = "kind") -> str:
    return f"Review this, be {tone}: {code}"


@low.completion()
async def complete(ref, argument, *context):
    if isinstance(ref, types.PromptReference):
        known = TONES if (ref.name, argument.name) == ("review", "tone") else []
    else:
        known = ITEMS if (ref.uri, argument.name) == ("interop://item/{id}", "id") else []
    values = [value for value in known if value.startswith(argument.value)]
    return types.Completion(values=values, total=len(values), hasMore=False)


@low.set_logging_level()
async def set_level(level: str) -> None:
    state["level"] = level


@low.subscribe_resource()
async def subscribe(uri) -> None:
    subscribed.add(str(uri))


@low.unsubscribe_resource()
async def unsubscribe(uri) -> None:
    subscribed.discard(str(uri))


if hasattr(Context, "close_sse_stream") and wanted() and wanted()[0] == "streamable":

    @app.tool(description="Close the stream of this request, then answer.")
    async def cut(ctx: Context) -> str:
        await ctx.close_sse_stream()
        return "resumed"


def main() -> None:
    options = low.create_initialization_options(NotificationOptions(True, True, True))
    # The SDK serves subscriptions but always declares that it does not.
    options.capabilities.resources.subscribe = True
    if (
        types.LATEST_PROTOCOL_VERSION != "2024-11-05"
        and "completions" not in type(options.capabilities).model_fields
    ):
        # 1.9 completes but cannot say so; the capability came with its revision.
        declared = options.capabilities.model_dump(exclude_none=True)
        options.capabilities = types.ServerCapabilities(**declared, completions={})
    if wanted() is None:
        anyio.run(over_stdio, options)
        return
    transport, app.settings.port = wanted()
    app.settings.host = HOST
    # Both transports ask the server for the options of each session.
    low.create_initialization_options = lambda *_, **__: options
    if transport == "sse":
        app.run("sse")
    else:
        app._event_store, app._retry_interval = event_store(), RETRY_MS
        app.run("streamable-http")


async def over_stdio(options) -> None:
    async with stdio_server() as (reader, writer):
        await low.run(reader, writer, options)


if __name__ == "__main__":
    main()
