"""The everything server in FastMCP 4; see interop/README.md.

python fastmcp_server.py [sse|streamable PORT]
"""

import json
import logging

import anyio
import mcp_types as types
import uvicorn
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.utilities.types import Image
from pydantic import BaseModel
from remote import HOST, RETRY_MS, event_store, wanted

logging.disable(logging.WARNING)

LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)
WAV = "UklGRgAAAABXQVZF"
ITEMS = ["1", "12", "2"]
TONES = ["harsh", "kind", "kindly"]

# Pages of five: the only peer that makes a client follow cursors.
app = FastMCP("fastmcp-everything", instructions="Use the tools.", list_page_size=5)
state = {"hanging": 0, "cancelled": 0}
subscribed: set[str] = set()


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
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
    return f"done {steps}"


@app.tool(description="Always fail.")
def fail() -> str:
    raise ToolError("deliberate failure")


@app.tool(description="Return a picture.")
def image() -> Image:
    return Image(data=PNG, format="png")


@app.tool(
    title="The weather",
    description="Return a record.",
    annotations=types.ToolAnnotations(read_only_hint=True),
    icons=[types.Icon(src="https://example.test/sun.png", mime_type="image/png")],
)
def weather(city: str) -> Weather:
    return Weather(city=city, degrees=21.5)


@app.tool(description="Return every kind of content that the SDK knows.")
def media():
    embedded = types.TextResourceContents(
        uri="interop://greeting", mime_type="text/plain", text="hello from the peer"
    )
    return [
        types.TextContent(type="text", text="media"),
        types.AudioContent(type="audio", data=WAV, mime_type="audio/wav"),
        types.EmbeddedResource(type="resource", resource=embedded),
        types.ResourceLink(type="resource_link", uri="interop://blob", name="blob"),
    ]


@app.tool(description="Return the request's _meta.")
def show_meta(ctx: Context) -> str:
    meta = dict(ctx.request_context.meta or {})
    meta.pop("progressToken", None)
    return json.dumps(meta)


@app.tool(description="Ask the client's model.")
async def ask_model(prompt: str, ctx: Context) -> str:
    # FastMCP 4 dropped its own helper; the session of the SDK below still asks.
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
            hints=[types.ModelHint(name="small")], speed_priority=0.9
        ),
    )
    return f"{answer.role}|{answer.model}|{answer.content.text}"


@app.tool(description="List the client's roots.")
async def list_my_roots(ctx: Context) -> str:
    found = await ctx.session.list_roots()
    return json.dumps([[str(root.uri), root.name] for root in found.roots])


@app.tool(description="Log once at each level.")
async def log_all_levels(ctx: Context) -> str:
    for level in LEVELS:
        await ctx.log(f"message at {level}", level=level, logger_name="interop")
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
        """Came later."""
        return "extra"

    app.add_tool(extra)
    app.resource("interop://extra", name="extra")(extra)
    app.prompt(name="extra")(extra)
    await ctx.session.send_tool_list_changed()
    await ctx.session.send_resource_list_changed()
    await ctx.session.send_prompt_list_changed()
    return "grown"


@app.tool(description="Announce that a resource changed, to those who subscribed.")
async def touch(uri: str, ctx: Context) -> str:
    if uri not in subscribed:
        return "nobody subscribed"
    await ctx.session.send_resource_updated(uri)
    return "announced"


@app.tool(description="Ask the client's user.")
async def elicit(question: str, ctx: Context) -> str:
    answer = await ctx.elicit(question, Person)
    data = getattr(answer, "data", None)
    return json.dumps([answer.action, data.model_dump() if data is not None else None])


@app.tool(description="Send the client's user to a page.")
async def elicit_url(url: str, ctx: Context) -> str:
    answer = await ctx.session.elicit_url("please sign in", url, "visit-1")
    await ctx.session.send_elicit_complete("visit-1")
    return answer.action


@app.tool(description="Ask the client's model to use a tool.")
async def ask_with_tools(ctx: Context) -> str:
    question = types.SamplingMessage(
        role="user", content=types.TextContent(type="text", text="look it up")
    )
    answer = await ctx.session.create_message(
        [question],
        max_tokens=50,
        tools=[types.Tool(name="lookup", input_schema={"type": "object"})],
        tool_choice=types.ToolChoice(mode="required"),
    )
    (block,) = answer.content_as_list
    return json.dumps([answer.stop_reason, block.type, block.name, block.input])


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


@app.completion
async def complete(ref, argument, context):
    if isinstance(ref, types.PromptReference):
        known = TONES if (ref.name, argument.name) == ("review", "tone") else []
    else:
        known = ITEMS if (ref.uri, argument.name) == ("interop://item/{id}", "id") else []
    values = [value for value in known if value.startswith(argument.value)]
    return types.Completion(values=values, total=len(values), has_more=False)


async def subscribe(ctx, params):
    subscribed.add(str(params.uri))
    return types.EmptyResult()


async def unsubscribe(ctx, params):
    subscribed.discard(str(params.uri))
    return types.EmptyResult()


# FastMCP serves no subscriptions itself; the server below it does.
low = app._mcp_server
low.add_request_handler("resources/subscribe", types.SubscribeRequestParams, subscribe)
low.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, unsubscribe)

if wanted() and wanted()[0] == "streamable":

    @app.tool(description="Close the stream of this request, then answer.")
    async def cut(ctx: Context) -> str:
        await ctx.close_sse_stream()
        return "resumed"


if __name__ == "__main__":
    if wanted() is None:
        app.run(transport="stdio", show_banner=False)
    elif wanted()[0] == "sse":
        app.run(transport="sse", host=HOST, port=wanted()[1], path="/sse", show_banner=False)
    else:
        web = app.http_app("/mcp", event_store=event_store(), retry_interval=RETRY_MS)
        uvicorn.run(web, host=HOST, port=wanted()[1], log_level="warning")
