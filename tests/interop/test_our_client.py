"""The dragoman client against servers of other implementations, each in its own process."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dragoman import Client, DeadlineExceeded, RemoteFailure, ToolError
from dragoman.client.supervisor import ConnectionEvent
from dragoman.errors import ChildExited
from dragoman.model.completion import PromptReference, ResourceTemplateReference
from dragoman.model.content import (
    AudioContent,
    EmbeddedResource,
    ResourceLink,
    TextContent,
    ToolUseContent,
)
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.logging import LogMessageParams
from dragoman.model.progress import ProgressParams
from dragoman.model.roots import Root
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult
from dragoman.protocol.events import Fault, FaultKind
from dragoman.transport.http.client import HttpOptions
from tests.interop.documents import (
    ECHOED,
    OPTIONAL_TOOLS,
    PNG_SIGNATURE,
    REVISIONS,
    TOOLS,
    WAV,
    grouped,
)
from tests.interop.servers import NO_SSE, NO_STREAMABLE, SERVERS, Server
from tests.interop.serving import address, children
from tests.interop.wire import complaints
from tests.revisions.official import needs_spec

pytestmark = pytest.mark.interop

# 1 MB as UTF-8: past every pipe buffer and every buffer of a reader.
LARGE = "é" * 500_000

# One step of a visit; a local server answers in milliseconds, a hang must not hide the other steps.
STEP_TIMEOUT_S = 10.0


# The visits: each server as it negotiates by itself, over every transport that it has, and those that
# take every revision, pinned to each.
VISITS: dict[str, tuple[str, str | None, str]] = {
    **{name: (name, None, "stdio") for name in SERVERS},
    **{
        f"{name}-at-{revision}": (name, revision, "stdio")
        for name in ("mcp-2.3", "ts-1", "ts-2", "dragoman")
        for revision in REVISIONS[:-1]
    },
    **{
        f"{name}-over-streamable": (name, None, "streamable")
        for name in SERVERS
        if name not in NO_STREAMABLE
    },
    **{f"{name}-over-sse": (name, None, "sse") for name in SERVERS if name not in NO_SSE},
    **{
        f"{name}-over-streamable-at-{revision}": (name, revision, "streamable")
        for name in ("mcp-2.3", "ts-1", "ts-2", "dragoman")
        for revision in REVISIONS[1:-1]
    },
    # The same over the other HTTP library, with a peer of each kind.
    **{
        f"{name}-over-{transport}-by-httpx2": (name, None, transport)
        for name, transport in (
            ("mcp-1.6", "sse"),
            ("mcp-1.29", "streamable"),
            ("ts-2", "streamable"),
            ("dragoman", "sse"),
            ("dragoman", "streamable"),
        )
    },
}


@dataclass
class Visit:
    """What one client saw of one server: the value or the exception of every step."""

    server: Server
    revision: str
    transport: str
    found: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, BaseException] = field(default_factory=dict)
    logs: list[tuple[str, str | None, Any]] = field(default_factory=list)
    progress: list[tuple[float, float | None, str | None]] = field(default_factory=list)
    sampled: list[CreateMessageParams] = field(default_factory=list)
    elicited: list[ElicitParams] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    wrong: list[Fault] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    wire: list[tuple[bool, str]] = field(default_factory=list)

    def __getitem__(self, step: str) -> Any:
        """The value of a step; raises what the step raised."""
        if step in self.faults:
            raise self.faults[step]
        return self.found[step]

    def has(self, revision: str) -> bool:
        """Whether the agreed revision is `revision` or newer."""
        return REVISIONS.index(self.revision) >= REVISIONS.index(revision)

    async def step(self, name: str, awaitable: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                self.found[name] = await awaitable
        except Exception as fault:
            self.faults[name] = fault

    # --- what the client is asked and told ----------------------------------------------------

    async def on_sampling(self, params: CreateMessageParams) -> CreateMessageResult:
        self.sampled.append(params)
        if params.tools:
            use = ToolUseContent(id="use-1", name=params.tools[0].name, input={"q": "x"})
            return CreateMessageResult(
                role="assistant", content=[use], model="our-model", stop_reason="toolUse"
            )
        content = params.messages[0].content
        block = content[0] if isinstance(content, list) else content
        assert isinstance(block, TextContent)
        answer = TextContent(text=f"answer to {block.text}")
        return CreateMessageResult(role="assistant", content=answer, model="our-model")

    async def on_elicit(self, params: ElicitParams) -> ElicitResult:
        self.elicited.append(params)
        if params.mode == "url":
            return ElicitResult(action="accept")
        return ElicitResult(action="accept", content={"name": "Ada", "age": 36})

    def on_log(self, params: LogMessageParams) -> None:
        self.logs.append((params.level, params.logger, params.data))

    def on_progress(self, update: ProgressParams) -> None:
        self.progress.append((update.progress, update.total, update.message))

    def on_wire(self, direction: str, frame: bytes) -> None:
        self.wire.append((direction == "sent", frame.decode("utf-8")))

    def on_fault(self, fault: Fault) -> None:
        self.wrong.append(fault)


async def settle(client: Client, condition: Callable[[], object]) -> None:
    """Let notifications arrive that are still on their way; each ping is a full round trip."""
    for _ in range(100):
        if condition():
            return
        await client.ping()


async def cancel(client: Client) -> tuple[dict[str, int], bool]:
    """Cancel a call that hangs: what the server says of it, and whether our task was cancelled."""

    async def state() -> dict[str, int]:
        said = json.loads((await client.call_tool("hang_state")).text)
        assert isinstance(said, dict)
        return said

    call = asyncio.create_task(client.call_tool("hang"))
    while (await state())["hanging"] != 1:
        pass
    call.cancel()
    await asyncio.wait([call])
    while (now := await state())["cancelled"] != 1:
        pass
    return now, call.cancelled()


async def deadline(client: Client) -> dict[str, int]:
    """Let a call run out of time; what the server says once it has heard of that."""
    with pytest.raises(DeadlineExceeded):
        await client.call_tool("hang", timeout_s=0.2)
    while (now := json.loads((await client.call_tool("hang_state")).text))["cancelled"] != 2:
        pass
    assert isinstance(now, dict)
    return now


async def many(client: Client) -> list[str]:
    """Calls that are under way at the same time, answered to whoever asked."""
    calls = [client.call_tool("add", {"a": number, "b": number}) for number in range(64)]
    return [result.text for result in await asyncio.gather(*calls)]


async def grow(client: Client, visit: Visit) -> set[str]:
    """The entries that came: tools and prompts by name, resources by URI."""
    before = await everything(client)
    await client.call_tool("grow")
    await settle(client, lambda: len(set(visit.changed)) == 3)
    return await everything(client) - before


async def everything(client: Client) -> set[str]:
    tools = {f"tool {entry.name}" for entry in await client.list_tools()}
    resources = {f"resource {entry.uri}" for entry in await client.list_resources()}
    return tools | resources | {f"prompt {entry.name}" for entry in await client.list_prompts()}


async def page(client: Client, visit: Visit) -> str:
    said = await client.call_tool("elicit_url", {"url": "https://example.test/sign-in"})
    await settle(client, lambda: visit.completed)
    return said.text


async def touch(client: Client, visit: Visit) -> tuple[str, str]:
    await client.subscribe_resource("interop://greeting")
    first = await client.call_tool("touch", {"uri": "interop://greeting"})
    await settle(client, lambda: visit.updated)
    await client.unsubscribe_resource("interop://greeting")
    second = await client.call_tool("touch", {"uri": "interop://greeting"})
    return first.text, second.text


async def log(client: Client, visit: Visit) -> str:
    await client.set_logging_level("warning")
    said = await client.call_tool("log_all_levels")
    await settle(client, lambda: len(visit.logs) >= 5)
    return said.text


async def pages(client: Client) -> list[list[str]]:
    """The tools as the server cut them into pages."""
    found, cursor = [], None
    while True:
        page = await client.list_tools_page(cursor)
        found.append([tool.name for tool in page.tools])
        cursor = page.next_cursor
        if cursor is None:
            return found


async def visit_server(name: str) -> Visit:
    server_name, pinned, transport = VISITS[name]
    server = SERVERS[server_name]
    visit = Visit(server, pinned or server.newest, transport)
    http = None
    if transport != "stdio":
        http = HttpOptions(backend="httpx2" if name.endswith("-by-httpx2") else None)
    with address(f"for-our-client-{name}", server.peer, server.program, transport) as target:
        await use_everything(visit, pinned, target if http is None else target[1], http)
    visit.children = children()
    return visit


async def use_everything(
    visit: Visit, pinned: str | None, target: str | list[str], http: HttpOptions | None
) -> None:
    server = visit.server
    async with Client(
        target,
        http=http,
        name="dragoman-client",
        version="1",
        revision=pinned,
        timeout_s=STEP_TIMEOUT_S,
        on_log=visit.on_log,
        on_tools_changed=lambda: visit.changed.append("tools"),
        on_resources_changed=lambda: visit.changed.append("resources"),
        on_prompts_changed=lambda: visit.changed.append("prompts"),
        on_resource_updated=visit.updated.append,
        on_elicitation_complete=visit.completed.append,
        on_fault=visit.on_fault,
        on_wire=visit.on_wire,
        sampling_handler=visit.on_sampling,
        sampling_tools=True,
        elicitation_handler=visit.on_elicit,
        elicitation_url=True,
        roots=[Root(uri="file:///srv/project", name="project")],
    ) as client:
        call = client.call_tool
        visit.found["protocol_version"] = client.protocol_version
        visit.found["server_info"] = client.server_info
        visit.found["instructions"] = client.instructions
        visit.found["capabilities"] = client.server_capabilities
        await visit.step("tools", client.list_tools())
        await visit.step("pages", pages(client))
        await visit.step("add", call("add", {"a": 2, "b": 3}))
        await visit.step("echo", call("echo", {"text": ECHOED}))
        await visit.step("slow", call("slow", {"steps": 3}, on_progress=visit.on_progress))
        await visit.step("fail", call("fail"))
        await visit.step("fail quietly", call("fail", raise_on_error=False))
        await visit.step("image", call("image"))
        await visit.step("weather", call("weather", {"city": "Oslo"}))
        await visit.step("media", call("media"))
        await visit.step("meta", call("show_meta", meta={"interop/note": "kept"}))
        await visit.step("ask_model", call("ask_model", {"prompt": "why?"}))
        await visit.step("roots", call("list_my_roots"))
        client.notify_roots_changed()
        await visit.step("roots again", call("list_my_roots"))
        await visit.step("log", log(client, visit))
        await visit.step("ping", client.ping())
        await visit.step("ping_client", call("ping_client"))
        await visit.step("many", many(client))
        await visit.step("large", call("echo", {"text": LARGE}))
        await visit.step("resources", client.list_resources())
        await visit.step("templates", client.list_resource_templates())
        await visit.step("greeting", client.read_resource("interop://greeting"))
        await visit.step("blob", client.read_resource("interop://blob"))
        await visit.step("item", client.read_resource("interop://item/12"))
        await visit.step("touch", touch(client, visit))
        await visit.step("prompts", client.list_prompts())
        await visit.step("review", client.get_prompt("review", {"code": "x = 1", "tone": "harsh"}))
        reference = PromptReference(name="review")
        await visit.step("complete", client.complete(reference, "tone", "kind"))
        template = ResourceTemplateReference(uri="interop://item/{id}")
        await visit.step("complete template", client.complete(template, "id", "1"))
        await visit.step("no tool", call("no_such_tool"))
        await visit.step("no prompt", client.get_prompt("no_such_prompt", {}))
        await visit.step("no resource", client.read_resource("interop://nothing"))
        await visit.step("bad arguments", call("add", {"a": "x"}))
        if "elicit" in {tool.name for tool in visit.found.get("tools", ())}:
            await visit.step("elicit", call("elicit", {"question": "who are you?"}))
        if visit.has("2025-11-25"):
            await visit.step("ask_with_tools", call("ask_with_tools"))
            await visit.step("page", page(client, visit))
        await visit.step("grow", grow(client, visit))
        if server.cancels:
            await visit.step("cancel", cancel(client))
            await visit.step("deadline", deadline(client))
            await visit.step("alive", call("add", {"a": 20, "b": 22}))
        if "cut" in {tool.name for tool in visit.found.get("tools", ())}:
            await visit.step("cut", call("cut"))


@functools.cache
def visit_of(name: str) -> Visit:
    return asyncio.run(visit_server(name))


@pytest.fixture(params=grouped(VISITS))
def visit(request: pytest.FixtureRequest) -> Visit:
    return visit_of(request.param)


def test_the_revision_is_agreed(visit: Visit) -> None:
    assert visit["protocol_version"] == visit.revision


def test_the_server_introduces_itself(visit: Visit) -> None:
    assert visit["server_info"].name == visit.server.name
    assert visit["instructions"] == "Use the tools."


def test_capabilities_are_known(visit: Visit) -> None:
    declared = visit["capabilities"]
    assert declared.tools.list_changed is True
    assert declared.resources.subscribe is True
    assert declared.resources.list_changed is True
    assert declared.prompts.list_changed is True
    assert declared.logging is not None


def test_every_tool_is_listed(visit: Visit) -> None:
    names = [tool.name for tool in visit["tools"]]
    assert sorted(names) == sorted(set(names))
    assert set(names) - OPTIONAL_TOOLS == TOOLS
    add = next(tool for tool in visit["tools"] if tool.name == "add")
    assert add.description == "Add two integers."
    assert sorted(add.input_schema["required"]) == ["a", "b"]


def test_many_calls_at_once_get_their_own_answers(visit: Visit) -> None:
    assert visit["many"] == [str(2 * number) for number in range(64)]


def test_a_large_text_comes_back_whole(visit: Visit) -> None:
    assert visit["large"].text == LARGE


def test_a_call_that_runs_out_of_time_is_cancelled_over_there(visit: Visit) -> None:
    if not visit.server.cancels:
        pytest.skip("this server crashes after a request is cancelled")
    assert visit["deadline"] == {"hanging": 0, "cancelled": 2}


def test_no_process_is_left(visit: Visit) -> None:
    assert visit.children == []


@pytest.mark.parametrize("name", ["mcp-1.6", "mcp-1.9"])
def test_a_server_that_crashes_after_a_cancel_is_started_again_and_says_why(name: str) -> None:
    async def use() -> None:
        events: list[ConnectionEvent] = []
        server = SERVERS[name]
        async with Client(server.command(), on_connection=events.append) as client:
            call = asyncio.create_task(client.call_tool("hang"))
            while json.loads((await client.call_tool("hang_state")).text)["hanging"] != 1:
                pass
            call.cancel()
            await asyncio.wait([call])
            # They crash at the next message; pings that meet that are sent again.
            while not any(event.kind == "restored" for event in events):
                await client.ping()
            lost = events[0].error
            assert isinstance(lost, ChildExited)
            # Their last words.
            assert "BrokenResourceError" in lost.stderr_tail
            assert lost.exit_code == 1
            assert events[-1].is_new_session
            assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "5"

    async def in_time() -> None:
        async with asyncio.timeout(30):
            await use()

    asyncio.run(in_time())
    assert children() == []


def test_titles_hints_and_icons_are_kept(visit: Visit) -> None:
    tool = next(tool for tool in visit["tools"] if tool.name == "weather")
    if visit.has("2025-03-26"):
        assert tool.annotations.read_only_hint is True
    if visit.has("2025-06-18"):
        assert tool.title == "The weather"
    if visit.has("2025-11-25") and visit.server.peer != "ts-1":
        assert [icon.src for icon in tool.icons] == ["https://example.test/sun.png"]


def test_pages_are_followed(visit: Visit) -> None:
    sizes = [len(page) for page in visit["pages"]]
    assert [name for page in visit["pages"] for name in page] == [t.name for t in visit["tools"]]
    assert max(sizes) == (5 if visit.server.pages else len(visit["tools"]))


def test_tools_are_called(visit: Visit) -> None:
    assert visit["add"].text == "5"
    assert visit["add"].is_error is False


def test_text_of_any_script_comes_back(visit: Visit) -> None:
    assert visit["echo"].text == ECHOED


def test_progress_arrives_in_order(visit: Visit) -> None:
    assert visit["slow"].text == "done 3"
    assert [(progress, total) for progress, total, _ in visit.progress] == [(1, 3), (2, 3), (3, 3)]
    if visit.server.messages and visit.has("2025-03-26"):
        assert [note[2] for note in visit.progress] == ["step 1", "step 2", "step 3"]


def test_a_failed_tool_raises(visit: Visit) -> None:
    with pytest.raises(ToolError, match="deliberate failure"):
        visit["fail"]


def test_a_failed_tool_can_be_read_as_a_result(visit: Visit) -> None:
    assert visit["fail quietly"].is_error is True
    assert "deliberate failure" in visit["fail quietly"].text


def test_a_picture_arrives_whole(visit: Visit) -> None:
    (block,) = visit["image"].content
    assert block.mime_type == "image/png"
    assert base64.b64decode(block.data, validate=True).startswith(PNG_SIGNATURE)


def test_records_are_data(visit: Visit) -> None:
    record = {"city": "Oslo", "degrees": 21.5}
    assert json.loads(visit["weather"].text) == record
    if visit.has("2025-06-18"):
        assert visit["weather"].data == record


def test_every_kind_of_content_arrives(visit: Visit) -> None:
    blocks = visit["media"].content
    kinds = [TextContent, AudioContent, EmbeddedResource, ResourceLink]
    if visit.server.peer == "dragoman":
        # What the revision cannot hold is substituted.
        sound = AudioContent if visit.has("2025-03-26") else EmbeddedResource
        link = ResourceLink if visit.has("2025-06-18") else TextContent
        kinds = [TextContent, sound, EmbeddedResource, link]
    leaves_out = visit.server.leaves_out
    assert [type(block) for block in blocks] == [kind for kind in kinds if kind not in leaves_out]
    found = {type(block): block for block in blocks}
    assert found[EmbeddedResource].resource.text == "hello from the peer"
    if AudioContent in found:
        assert (found[AudioContent].data, found[AudioContent].mime_type) == (WAV, "audio/wav")
    if ResourceLink in found:
        assert found[ResourceLink].uri == "interop://blob"


def test_meta_reaches_the_server(visit: Visit) -> None:
    assert json.loads(visit["meta"].text) == {"interop/note": "kept"}


def test_the_server_may_ask_our_model(visit: Visit) -> None:
    assert visit["ask_model"].text == "assistant|our-model|answer to why?"
    asked = visit.sampled[0]
    assert (asked.max_tokens, asked.system_prompt, asked.temperature) == (50, "be brief", 0.5)
    assert asked.stop_sequences == ["STOP"]
    assert asked.model_preferences is not None
    assert [hint.name for hint in asked.model_preferences.hints or ()] == ["small"]
    assert asked.model_preferences.speed_priority == 0.9


def test_the_server_may_give_our_model_tools(visit: Visit) -> None:
    if not visit.has("2025-11-25"):
        assert len(visit.sampled) == 1
        return
    used = json.loads(visit["ask_with_tools"].text)
    assert used == ["toolUse", "tool_use", "lookup", {"q": "x"}]
    asked = visit.sampled[1]
    assert [tool.name for tool in asked.tools or ()] == ["lookup"]
    assert asked.tool_choice is not None
    assert asked.tool_choice.mode == "required"


def test_the_server_sees_our_roots(visit: Visit) -> None:
    assert json.loads(visit["roots"].text) == [["file:///srv/project", "project"]]
    assert json.loads(visit["roots again"].text) == [["file:///srv/project", "project"]]


def test_log_messages_arrive_from_the_level_asked_for(visit: Visit) -> None:
    assert visit["log"] == "logged"
    levels = ["warning", "error", "critical", "alert", "emergency"]
    found = [
        # FastMCP servers wrap the text in a record of their own.
        (level, logger, data["msg"] if isinstance(data, dict) else data)
        for level, logger, data in visit.logs
    ]
    assert found == [(level, "interop", f"message at {level}") for level in levels]


def test_both_sides_ping(visit: Visit) -> None:
    assert visit["ping"] is None
    assert visit["ping_client"].text == "pong"


def test_resources_and_templates_are_listed(visit: Visit) -> None:
    found = {entry.uri: entry for entry in visit["resources"]}
    assert set(found) == {"interop://greeting", "interop://blob"}
    assert found["interop://greeting"].name == "greeting"
    assert found["interop://greeting"].mime_type == "text/plain"
    (template,) = visit["templates"]
    assert (template.uri_template, template.name) == ("interop://item/{id}", "item")


def test_resources_are_read(visit: Visit) -> None:
    assert visit["greeting"].text == "hello from the peer"
    (blob,) = visit["blob"].contents
    assert blob.data == bytes(range(256))
    assert blob.mime_type == "application/octet-stream"
    assert visit["item"].text == "item 12"


def test_subscribers_hear_of_changes_and_others_do_not(visit: Visit) -> None:
    second = "announced" if visit.server.peer == "dragoman" else "nobody subscribed"
    assert visit["touch"] == ("announced", second)
    assert visit.updated == ["interop://greeting"]


def test_prompts_are_listed_and_filled(visit: Visit) -> None:
    (entry,) = visit["prompts"]
    assert (entry.name, entry.description) == ("review", "Ask for a review.")
    required = {argument.name: bool(argument.required) for argument in entry.arguments}
    assert required == {"code": True, "tone": False}
    (message,) = visit["review"].messages
    assert message.role == "user"
    assert message.content.text == "Review this, be harsh: x = 1"


def test_arguments_are_completed(visit: Visit) -> None:
    assert visit["complete"].values == ["kind", "kindly"]
    assert visit["complete template"].values == ["1", "12"]


@pytest.mark.parametrize("what", ["prompt", "resource"])
def test_what_does_not_exist_is_a_remote_failure(visit: Visit, what: str) -> None:
    with pytest.raises(RemoteFailure) as caught:
        visit[f"no {what}"]
    assert caught.value.code == visit.server.codes[what]


def test_an_unknown_tool_is_an_error(visit: Visit) -> None:
    code = visit.server.codes.get("tool")
    with pytest.raises(ToolError if code is None else RemoteFailure) as caught:
        visit["no tool"]
    assert "no_such_tool" in str(caught.value)
    if isinstance(caught.value, RemoteFailure):
        assert caught.value.code == code


def test_wrong_arguments_are_an_error(visit: Visit) -> None:
    with pytest.raises((ToolError, RemoteFailure)):
        visit["bad arguments"]


def test_the_server_may_ask_our_user(visit: Visit) -> None:
    if not visit.has("2025-06-18"):
        assert visit.elicited == []
        return
    assert json.loads(visit["elicit"].text) == ["accept", {"name": "Ada", "age": 36}]
    asked = visit.elicited[0]
    assert asked.message == "who are you?"
    assert asked.requested_schema is not None
    assert set(asked.requested_schema["properties"]) == {"name", "age"}


def test_the_server_may_send_our_user_to_a_page(visit: Visit) -> None:
    if not visit.has("2025-11-25"):
        assert len(visit.elicited) <= 1
        return
    assert visit["page"] == "accept"
    asked = visit.elicited[1]
    assert (asked.mode, asked.message) == ("url", "please sign in")
    assert (asked.url, asked.elicitation_id) == ("https://example.test/sign-in", "visit-1")
    assert visit.completed == ["visit-1"]


def test_an_answer_that_comes_after_its_stream_closed_is_fetched(visit: Visit) -> None:
    if "cut" not in {tool.name for tool in visit["tools"]}:
        pytest.skip("this server closes no streams")
    assert visit["cut"].text == "resumed"


def test_what_is_new_is_announced(visit: Visit) -> None:
    assert visit["grow"] == {"tool extra", "resource interop://extra", "prompt extra"}
    assert set(visit.changed) == {"tools", "resources", "prompts"}


def test_a_cancelled_call_is_cancelled_over_there(visit: Visit) -> None:
    if not visit.server.cancels:
        pytest.skip("this server crashes after a request is cancelled")
    state, ours = visit["cancel"]
    assert state == {"hanging": 0, "cancelled": 1}
    assert ours is True
    assert visit["alive"].text == "42"


def test_a_server_that_breaks_a_rule_is_noticed(visit: Visit) -> None:
    found = [(fault.kind, fault.detail) for fault in visit.wrong]
    elicits_anyway = visit.server.peer == "mcp-2.3" and not visit.has("2025-06-18")
    if elicits_anyway:
        # It asks for what the agreed revision does not know; we refuse and say so.
        unknown = (FaultKind.UNKNOWN_METHOD, "unknown method 'elicitation/create'")
        assert found == [unknown]
    else:
        assert found == []


@needs_spec
def test_our_client_writes_nothing_the_agreed_revision_does_not_know(visit: Visit) -> None:
    opening, *rest = visit.wire
    found, checked = complaints(rest, visit.revision)
    assert found == []
    assert checked > 40
    # The opening is written before a revision is agreed on: in the one it offers.
    offered = json.loads(opening[1])["params"]["protocolVersion"]
    assert complaints([opening], offered) == ([], 1)


@needs_spec
def test_our_server_says_nothing_to_our_client_that_the_revision_does_not_know(
    visit: Visit,
) -> None:
    if visit.server.peer != "dragoman":
        pytest.skip("this server is not ours")
    theirs = [(not is_ours, text) for is_ours, text in visit.wire]
    found, checked = complaints(theirs, visit.revision)
    assert found == []
    assert checked > 60


@needs_spec
def test_the_check_of_the_wire_sees_what_another_server_leaks() -> None:
    visit = visit_of("ts-1-at-2024-11-05")
    theirs = [(not is_ours, text) for is_ours, text in visit.wire]
    found, _ = complaints(theirs, visit.revision)
    assert any("outputSchema" in one for one in found)
