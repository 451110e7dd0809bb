"""The everything server in dragoman; see interop/README.md.

    python dragoman_server.py [sse|streamable PORT]

Either word starts the same server: it has both transports.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass

from dragoman import (
    AudioContent,
    Context,
    EmbeddedResource,
    Icon,
    Image,
    ResourceContents,
    ResourceLink,
    Server,
    TextContent,
    Tool,
    ToolAnnotations,
    ToolError,
)
from dragoman.model.base import EmptyResult, NoParams
from dragoman.model.content import ToolUseContent
from dragoman.model.logging import LoggingLevel
from dragoman.model.sampling import ModelHint, ModelPreferences

LEVELS: tuple[LoggingLevel, ...] = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)
WAV = "UklGRgAAAABXQVZF"
ITEMS = ("1", "12", "2")
TONES = ("harsh", "kind", "kindly")

# Pages of five make every client follow cursors.
server = Server("dragoman-everything", version="1", instructions="Use the tools.", page_size=5)
hanging = cancelled = 0


@dataclass
class Person:
    """What the elicit tool asks for."""

    name: str
    age: int


@dataclass
class Weather:
    """What the weather tool returns."""

    city: str
    degrees: float


@server.tool(description="Add two integers.")
def add(a: int, b: int) -> int:
    return a + b


@server.tool(description="Return the text unchanged.")
def echo(text: str) -> str:
    return text


@server.tool(description="Report progress for each step.")
async def slow(steps: int, ctx: Context) -> str:
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps, f"step {step}")
        # A client of the TypeScript SDK drops progress that it reads together with the answer.
        await asyncio.sleep(0.06)
    return f"done {steps}"


@server.tool(description="Always fail.")
def fail() -> str:
    raise ToolError("deliberate failure")


@server.tool(description="Return a picture.")
def image() -> Image:
    return Image(PNG)


@server.tool(
    title="The weather",
    description="Return a record.",
    annotations=ToolAnnotations(read_only_hint=True),
    icons=[Icon(src="https://example.test/sun.png", mime_type="image/png")],
)
def weather(city: str) -> Weather:
    return Weather(city, 21.5)


@server.tool(description="Return every kind of content.")
def media() -> list[TextContent | AudioContent | EmbeddedResource | ResourceLink]:
    embedded = ResourceContents(
        uri="interop://greeting", text="hello from the peer", mime_type="text/plain"
    )
    return [
        TextContent(text="media"),
        AudioContent(data=WAV, mime_type="audio/wav"),
        EmbeddedResource(resource=embedded),
        ResourceLink(uri="interop://blob", name="blob"),
    ]


@server.tool(description="Return the request's _meta.")
def show_meta(ctx: Context) -> str:
    meta = {name: value for name, value in ctx.meta.items() if name != "progressToken"}
    return json.dumps(meta)


@server.tool(description="Ask the client's model.")
async def ask_model(prompt: str, ctx: Context) -> str:
    answer = await ctx.sample(
        prompt,
        max_tokens=50,
        system_prompt="be brief",
        temperature=0.5,
        stop_sequences=["STOP"],
        model_preferences=ModelPreferences(hints=[ModelHint(name="small")], speed_priority=0.9),
    )
    return f"{answer.role}|{answer.model}|{answer.text}"


@server.tool(description="List the client's roots.")
async def list_my_roots(ctx: Context) -> str:
    return json.dumps([[root.uri, root.name] for root in await ctx.list_roots()])


@server.tool(description="Log once at each level.")
async def log_all_levels(ctx: Context) -> str:
    for level in LEVELS:
        await ctx.log(level, f"message at {level}", logger="interop")
    return "logged"


@server.tool(description="Ping the client.")
async def ping_client(ctx: Context) -> str:
    await ctx.asking.ask("ping", NoParams(), EmptyResult)
    return "pong"


@server.tool(description="Wait until the request is cancelled.")
async def hang() -> str:
    global hanging, cancelled
    hanging += 1
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled += 1
        raise
    finally:
        hanging -= 1
    return "never"


@server.tool(description="Say how many calls hang and how many were cancelled.")
def hang_state() -> str:
    return json.dumps({"hanging": hanging, "cancelled": cancelled})


@server.tool(description="Add a tool, a resource and a prompt and announce them.")
def grow() -> str:
    def extra() -> str:
        return "extra"

    server.add_tool(extra, description="Came later.")
    server.add_resource(extra, "interop://extra")
    server.add_prompt(extra, description="Came later.")

    return "grown"


@server.tool(description="Announce that a resource changed, to those who subscribed.")
def touch(uri: str) -> str:
    # The server knows who subscribed; nobody else is told.
    server.notify_resource_updated(uri)
    return "announced"


@server.tool(description="Ask the client's user.")
async def elicit(question: str, ctx: Context) -> str:
    answer = await ctx.elicit(question, Person)
    data = None if answer.data is None else {"name": answer.data.name, "age": answer.data.age}
    return json.dumps([answer.action, data])


@server.tool(description="Send the client's user to a page.")
async def elicit_url(url: str, ctx: Context) -> str:
    answer = await ctx.elicit_url("please sign in", url, elicitation_id="visit-1")
    await ctx.elicitation_complete("visit-1")
    return answer.action


@server.tool(description="Ask the client's model to use a tool.")
async def ask_with_tools(ctx: Context) -> str:
    answer = await ctx.sample(
        "look it up",
        max_tokens=50,
        tools=[Tool(name="lookup", input_schema={"type": "object"})],
        tool_choice="required",
    )
    (block,) = answer.content if isinstance(answer.content, list) else [answer.content]
    assert isinstance(block, ToolUseContent)
    return json.dumps([answer.stop_reason, "tool_use", block.name, block.input])


@server.resource(
    "interop://greeting", name="greeting", description="A text", mime_type="text/plain"
)
def greeting() -> str:
    return "hello from the peer"


@server.resource("interop://blob", name="blob", mime_type="application/octet-stream")
def blob() -> bytes:
    return bytes(range(256))


@server.resource("interop://item/{id}", name="item", description="One item", mime_type="text/plain")
def item(id: str) -> str:
    return f"item {id}"


@server.prompt(description="Ask for a review.")
def review(code: str, tone: str = "kind") -> str:
    return f"Review this, be {tone}: {code}"


@server.completion("review")
async def complete_tone(argument: str, value: str, context: dict[str, str]) -> list[str]:
    return [tone for tone in TONES if argument == "tone" and tone.startswith(value)]


@server.completion("interop://item/{id}")
async def complete_id(argument: str, value: str, context: dict[str, str]) -> list[str]:
    return [item for item in ITEMS if item.startswith(value)]


def serve_http(port: int) -> None:
    @server.tool(description="Close the stream of this request, then answer.")
    async def cut(ctx: Context) -> str:
        await ctx.close_stream(retry_s=0.02)
        # An answer that is there already would still go out on the stream.
        await asyncio.sleep(0.05)
        return "resumed"

    server.run("http", host="127.0.0.1", port=port)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        server.run()
    else:
        serve_http(int(sys.argv[2]))
