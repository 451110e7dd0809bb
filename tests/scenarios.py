"""One rich server, and what every client must see of it in every revision, over every link.

    python -m tests.scenarios [REVISION]     serves over stdio, pinned if a revision is given

A scenario is an async function of a connected client, the revision that was agreed on, and what
the client's callbacks and handlers saw. Where a revision lacks something, the scenario expects the
substitute of `dragoman.revisions.degrade`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from dragoman import (
    Audio,
    AudioContent,
    Client,
    Context,
    CreateMessageParams,
    CreateMessageResult,
    DeadlineExceeded,
    ElicitParams,
    ElicitResult,
    EmbeddedResource,
    Icon,
    Image,
    ImageContent,
    RemoteFailure,
    ResourceContents,
    ResourceLink,
    Server,
    TextContent,
    Tool,
    ToolAnnotations,
    ToolError,
)
from dragoman.errors import CannotLower, NotNegotiated

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
BATCHES, AUDIO, STRUCTURE, URLS = REVISIONS

PNG = b"\x89PNG\r\n\x1a\n\x00\xff"
WAV = b"RIFF\x00\x00\x00\x00WAVE"
ICONS = [Icon(src="https://a.example/i.png", mime_type="image/png", sizes=["48x48"])]


def since(agreed: str, first: str) -> bool:
    """Whether the revision agreed on has what `first` brought."""
    return REVISIONS.index(agreed) >= REVISIONS.index(first)


# --- the server -------------------------------------------------------------------------------------


@dataclass
class Forecast:
    """The weather."""

    city: str
    degrees: float


@dataclass
class Person:
    """Somebody."""

    name: Annotated[str, Meta(min_length=2)]
    colour: Literal["red", "green"] = "red"


def make_server(revision: str | None = None) -> Server:
    """A server with something of everything; pages are small, so that there are several."""
    server = Server(
        "rich",
        version="1.2",
        title="Rich",
        description="Something of everything",
        website_url="https://a.example",
        icons=ICONS,
        instructions="Use all of it.",
        page_size=4,
        revision=revision,
    )
    _add_tools(server)
    _add_asking_tools(server)

    @server.resource("note:text", title="Text", mime_type="text/markdown", size=5, icons=ICONS)
    def text() -> str:
        return "hello"

    @server.resource(
        "note:bytes", annotations={"priority": 0.5, "last_modified": "2025-01-01T00:00:00Z"}
    )
    def data() -> bytes:
        return PNG

    @server.resource("note:item/{key}", title="Items", mime_type="text/plain")
    def item(key: str) -> str:
        return f"item {key}"

    @server.prompt(title="Review", icons=ICONS)
    def review(code: str, tone: Literal["kind", "harsh"] = "kind") -> list[Any]:
        """Ask for a review."""
        return [
            f"Be {tone}: {code}",
            {"role": "assistant", "content": Image(PNG)},
            Audio(WAV),
            ResourceLink(uri="note:text", name="text"),
            ResourceContents(uri="note:bytes", text="x", mime_type="text/plain"),
        ]

    @server.completion("note:item/{key}")
    def keys(value: str, context: dict[str, str]) -> list[str]:
        return [f"{value}-{context.get('other', '?')}-{n}" for n in range(120)]

    return server


def _add_tools(server: Server) -> None:
    @server.tool(
        title="Addition",
        annotations=ToolAnnotations(read_only_hint=True),
        icons=ICONS,
        meta={"a.example/k": 1},
    )
    async def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    @server.tool
    def forecast(city: str) -> Forecast:
        return Forecast(city, 21.5)

    @server.tool
    def media() -> Any:
        link = ResourceLink(uri="note:text", name="text", title="Text", description="A note")
        part = ResourceContents(uri="note:bytes", text="inside", mime_type="text/plain")
        return ["text", Image(PNG), Audio(WAV), link, part]

    @server.tool
    def fail(hidden: bool = False) -> None:
        if hidden:
            raise RuntimeError("secret")
        raise ToolError("deliberate")

    @server.tool
    async def work(steps: int, ctx: Context) -> str:
        for step in range(1, steps + 1):
            await ctx.report_progress(step, steps, f"step {step}")
        return "worked"

    @server.tool
    async def talk(ctx: Context) -> str:
        await ctx.debug("quiet")
        await ctx.error({"code": 7}, logger="rich.tools")
        return "talked"

    hung = 0

    @server.tool
    async def hang() -> None:
        nonlocal hung
        hung += 1
        try:
            await asyncio.Event().wait()
        finally:
            hung -= 1

    @server.tool
    def hanging() -> int:
        return hung

    @server.tool
    def grow() -> str:
        server.add_tool(lambda: "grown", name="grown", replace=True)
        server.notify_resource_updated("note:text")
        return "done"


def _add_asking_tools(server: Server) -> None:
    async def tried(asking: Awaitable[Any]) -> dict[str, Any]:
        try:
            answer = await asking
        except (NotNegotiated, CannotLower, RemoteFailure) as error:
            return {"error": type(error).__name__}
        if isinstance(answer, CreateMessageResult):
            content = answer.content if isinstance(answer.content, list) else [answer.content]
            return {"model": answer.model, "text": answer.text, "blocks": len(content)}
        return {"action": answer.action, "content": answer.content}

    @server.tool
    async def ask_model(question: str, ctx: Context) -> dict[str, Any]:
        return await tried(ctx.sample(question, system_prompt="be brief", model_preferences="tiny"))

    @server.tool
    async def ask_model_with_tools(ctx: Context) -> dict[str, Any]:
        tool = Tool(name="add", input_schema={"type": "object"})
        return await tried(ctx.sample("q", tools=[tool], tool_choice="auto"))

    @server.tool
    async def ask_user(ctx: Context) -> dict[str, Any]:
        return await tried(ctx.elicit("who?", Person))

    @server.tool
    async def send_user(ctx: Context) -> dict[str, Any]:
        sent = await tried(ctx.elicit_url("go", "https://a.example/x", elicitation_id="one"))
        server.elicitation_complete("one")
        return sent

    @server.tool
    async def roots(ctx: Context) -> list[str]:
        return [root.uri for root in await ctx.list_roots()]

    @server.tool
    async def self_read(ctx: Context) -> str:
        return (await ctx.read_resource("note:item/9")).text


# --- the client -------------------------------------------------------------------------------------


class Seen:
    """What the client's callbacks and handlers saw, and the options that make it see."""

    def __init__(self) -> None:
        self.logs: list[tuple[str, Any, str | None]] = []
        self.changes: list[str] = []
        self.updates: list[str] = []
        self.completed: list[str] = []
        self.questions: list[CreateMessageParams] = []
        self.forms: list[ElicitParams] = []
        self._told = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until that holds: news may come on another stream than answers, so later."""
        while not holds():
            self._told.clear()
            await self._told.wait()

    def _keep(self, kept: list[Any], value: Any) -> None:
        kept.append(value)
        self._told.set()

    def options(self) -> dict[str, Any]:
        """For `Client`."""
        return {
            "roots": ["file:///srv/one"],
            "sampling_handler": self._sample,
            "sampling_tools": True,
            "elicitation_handler": self._elicit,
            "elicitation_url": True,
            "on_log": lambda message: self._keep(
                self.logs, (message.level, message.data, message.logger)
            ),
            "on_tools_changed": lambda: self._keep(self.changes, "tools"),
            "on_resource_updated": lambda uri: self._keep(self.updates, uri),
            "on_elicitation_complete": lambda ident: self._keep(self.completed, ident),
        }

    def _sample(self, params: CreateMessageParams) -> CreateMessageResult:
        self.questions.append(params)
        blocks: list[Any] = [TextContent(text="one"), TextContent(text="two")]
        return CreateMessageResult(role="assistant", content=blocks, model="tiny-1")

    def _elicit(self, params: ElicitParams) -> Any:
        self.forms.append(params)
        if params.mode == "url":
            return ElicitResult(action="accept")
        return {"name": "Ada", "colour": "green"}


# --- the scenarios ------------------------------------------------------------------------------------

Scenario = Callable[[Client, str, Seen], Awaitable[None]]


async def who_is_there(client: Client, agreed: str, seen: Seen) -> None:
    assert client.protocol_version == agreed
    info = client.server_info
    assert (info.name, info.version) == ("rich", "1.2")
    assert (info.title == "Rich") is since(agreed, STRUCTURE)
    assert (info.icons == ICONS) is since(agreed, URLS)
    assert (info.website_url == "https://a.example") is since(agreed, URLS)
    assert client.instructions == "Use all of it."
    capabilities = client.server_capabilities
    assert capabilities.tools is not None
    assert capabilities.resources is not None
    assert capabilities.resources.subscribe
    assert (capabilities.completions is not None) is since(agreed, AUDIO)
    await client.ping()


async def lists(client: Client, agreed: str, seen: Seen) -> None:
    tools = {tool.name: tool for tool in await client.list_tools()}
    assert {"add", "forecast", "media", "roots", "self_read"} <= set(tools)
    add = tools["add"]
    assert add.description == "Add two integers."
    assert set(add.input_schema["required"]) == {"a", "b"}
    has_title, has_hints = since(agreed, STRUCTURE), since(agreed, AUDIO)
    assert add.title == ("Addition" if has_title else None)
    assert add.display_name == ("Addition" if has_hints else "add")
    assert (add.annotations is not None) is has_hints
    if add.annotations is not None:
        assert add.annotations.read_only_hint
    assert (add.output_schema is not None) is has_title
    assert (add.icons == ICONS) is since(agreed, URLS)
    assert add.meta == ({"a.example/k": 1} if has_title else None)
    first, second = await client.list_resources()
    assert (first.uri, first.mime_type, first.size) == ("note:text", "text/markdown", 5)
    assert first.title == ("Text" if has_title else None)
    assert second.annotations is not None
    assert second.annotations.priority == 0.5
    assert (second.annotations.last_modified is not None) is since(agreed, STRUCTURE)
    (template,) = await client.list_resource_templates()
    assert template.uri_template == "note:item/{key}"
    (prompt,) = await client.list_prompts()
    assert [argument.name for argument in prompt.arguments or ()] == ["code", "tone"]
    assert (prompt.icons is not None) is since(agreed, URLS)


async def calls(client: Client, agreed: str, seen: Seen) -> None:
    result = await client.call_tool("add", {"a": 2, "b": 3})
    assert (result.text, result.data) == ("5", 5 if since(agreed, STRUCTURE) else None)
    weather = await client.call_tool("forecast", {"city": "Oslo"})
    assert weather.text == '{"city":"Oslo","degrees":21.5}'
    structured = {"city": "Oslo", "degrees": 21.5} if since(agreed, STRUCTURE) else None
    assert weather.data == structured


async def content(client: Client, agreed: str, seen: Seen) -> None:
    text, image, sound, link, part = (await client.call_tool("media")).content
    assert text == TextContent(text="text")
    assert image == ImageContent.of(PNG, "image/png")
    _is_sound(sound, agreed)
    _is_link(link, agreed)
    assert isinstance(part, EmbeddedResource)
    assert (part.resource.uri, part.resource.text) == ("note:bytes", "inside")


def _is_sound(block: Any, agreed: str) -> None:
    if since(agreed, AUDIO):
        assert block == AudioContent.of(WAV, "audio/wav")
    else:
        assert isinstance(block, EmbeddedResource)
        assert (block.resource.data, block.resource.mime_type) == (WAV, "audio/wav")


def _is_link(block: Any, agreed: str) -> None:
    if since(agreed, STRUCTURE):
        assert isinstance(block, ResourceLink)
        assert block.uri == "note:text"
    else:
        assert isinstance(block, TextContent)
        assert "note:text" in block.text


async def failures(client: Client, agreed: str, seen: Seen) -> None:
    result = await client.call_tool("fail", raise_on_error=False)
    assert (result.is_error, result.text) == (True, "deliberate")
    hidden = await client.call_tool("fail", {"hidden": True}, raise_on_error=False)
    assert hidden.is_error
    assert "secret" not in hidden.text
    codes = {}
    requests: dict[str, Callable[[], Awaitable[Any]]] = {
        "tool": lambda: client.call_tool("ad"),
        "prompt": lambda: client.get_prompt("none"),
        "resource": lambda: client.read_resource("note:none"),
        "cursor": lambda: client.list_tools_page("none"),
        "argument": lambda: client.get_prompt("review", {"tone": "kind"}),
    }
    for name, request in requests.items():
        try:
            await request()
        except RemoteFailure as failure:
            codes[name] = failure.code
    assert codes == {
        "tool": -32602,
        "prompt": -32602,
        "resource": -32002,
        "cursor": -32602,
        "argument": -32602,
    }
    try:
        wrong = await client.call_tool("add", {"a": "x", "c": 1}, raise_on_error=False)
    except RemoteFailure as failure:
        assert not since(agreed, URLS)
        said = failure.message
    else:
        assert since(agreed, URLS)
        said = wrong.text
    for path in ("a: expected", "b: expected", "c: expected"):
        assert path in said


async def reads(client: Client, agreed: str, seen: Seen) -> None:
    assert (await client.read_resource("note:text")).text == "hello"
    (part,) = (await client.read_resource("note:bytes")).contents
    assert part.data == PNG
    assert (await client.read_resource("note:item/7")).text == "item 7"
    assert (await client.call_tool("self_read")).text == "item 9"


async def prompts(client: Client, agreed: str, seen: Seen) -> None:
    filled = await client.get_prompt("review", {"code": "x = 1", "tone": "harsh"})
    text, image, sound, link, part = filled.messages
    assert (text.role, text.content) == ("user", TextContent(text="Be harsh: x = 1"))
    assert (image.role, image.content) == ("assistant", ImageContent.of(PNG, "image/png"))
    _is_sound(sound.content, agreed)
    _is_link(link.content, agreed)
    assert isinstance(part.content, EmbeddedResource)


async def completion(client: Client, agreed: str, seen: Seen) -> None:
    assert (await client.complete("review", "tone", "h")).values == ["harsh"]
    found = await client.complete("note:item/{key}", "key", "k", context={"other": "o"})
    assert (len(found.values), found.total, found.has_more) == (100, 120, True)
    assert found.values[0] == ("k-o-0" if since(agreed, STRUCTURE) else "k-?-0")


async def progress(client: Client, agreed: str, seen: Seen) -> None:
    order: list[Any] = []
    result = await client.call_tool(
        "work",
        {"steps": 3},
        on_progress=lambda update: order.append((update.progress, update.total, update.message)),
    )
    order.append(result.text)
    message = "step {}" if since(agreed, AUDIO) else None
    steps = [(n, 3, message and message.format(n)) for n in (1, 2, 3)]
    assert order == [*steps, "worked"]


async def logs(client: Client, agreed: str, seen: Seen) -> None:
    await client.set_logging_level("debug")
    await client.call_tool("talk")
    await client.set_logging_level("error")
    await client.call_tool("talk")
    loud = ("error", {"code": 7}, "rich.tools")
    assert seen.logs == [("debug", "quiet", "rich"), loud, loud]


async def changes(client: Client, agreed: str, seen: Seen) -> None:
    await client.subscribe_resource("note:text")
    await client.call_tool("grow")
    await seen.until(lambda: bool(seen.changes and seen.updates))
    assert (seen.changes, seen.updates) == (["tools"], ["note:text"])
    assert (await client.call_tool("grown")).text == "grown"
    await client.unsubscribe_resource("note:text")
    await client.call_tool("grow")
    # What came of the second growth, came before what comes of the third.
    await client.call_tool("grow")
    await seen.until(lambda: len(seen.changes) == 3)
    assert (seen.changes, seen.updates) == (["tools"] * 3, ["note:text"])


async def sampling(client: Client, agreed: str, seen: Seen) -> None:
    answer = (await client.call_tool("ask_model", {"question": "how?"})).text
    if since(agreed, URLS):
        assert answer == '{"model":"tiny-1","text":"onetwo","blocks":2}'
    else:
        assert answer == '{"model":"tiny-1","text":"one\\ntwo","blocks":1}'
    (params,) = seen.questions
    assert params.system_prompt == "be brief"
    assert params.messages[0].content == TextContent(text="how?")
    with_tools = (await client.call_tool("ask_model_with_tools")).text
    assert ("error" in with_tools) is not since(agreed, URLS)
    if not since(agreed, URLS):
        assert with_tools == '{"error":"CannotLower"}'


async def elicitation(client: Client, agreed: str, seen: Seen) -> None:
    form = (await client.call_tool("ask_user")).text
    if since(agreed, STRUCTURE):
        assert form == '{"action":"accept","content":{"name":"Ada","colour":"green"}}'
        assert seen.forms[0].message == "who?"
    else:
        assert form == '{"error":"CannotLower"}'
    sent = (await client.call_tool("send_user")).text
    if since(agreed, URLS):
        await seen.until(lambda: bool(seen.completed))
        assert sent == '{"action":"accept","content":null}'
        assert seen.forms[-1].url == "https://a.example/x"
        assert seen.completed == ["one"]
    else:
        assert sent == '{"error":"CannotLower"}'
        await client.ping()
        assert seen.completed == []


async def folders(client: Client, agreed: str, seen: Seen) -> None:
    assert (await client.call_tool("roots")).text == '["file:///srv/one"]'
    client.set_roots(["file:///srv/two"])
    assert (await client.call_tool("roots")).text == '["file:///srv/two"]'


async def cancellation(client: Client, agreed: str, seen: Seen) -> None:
    call = asyncio.ensure_future(client.call_tool("hang"))
    while (await client.call_tool("hanging")).text != "1":
        pass
    call.cancel()
    assert isinstance((await asyncio.gather(call, return_exceptions=True))[0], BaseException)
    assert (await client.call_tool("hanging")).text == "0"
    try:
        await client.call_tool("hang", timeout_s=0.05)
    except DeadlineExceeded:
        pass
    else:
        raise AssertionError("a call without an answer ended")
    assert (await client.call_tool("hanging")).text == "0"


async def many(client: Client, agreed: str, seen: Seen) -> None:
    results = await asyncio.gather(*(client.call_tool("add", {"a": n, "b": 1}) for n in range(100)))
    assert [result.text for result in results] == [str(n + 1) for n in range(100)]


SCENARIOS: tuple[Scenario, ...] = (
    who_is_there,
    lists,
    calls,
    content,
    failures,
    reads,
    prompts,
    completion,
    progress,
    logs,
    changes,
    sampling,
    elicitation,
    folders,
    cancellation,
    many,
)


if __name__ == "__main__":
    make_server(sys.argv[1] if len(sys.argv) > 1 else None).run()
