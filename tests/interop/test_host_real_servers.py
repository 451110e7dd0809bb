"""One host, the reference servers all at once, and beside them servers that break in every way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dragoman.errors import DeadlineExceeded, LinkError, ToolError
from dragoman.host import ApprovalRequest, Code, Denied, Host, Scope, ServerState
from dragoman.host.audit import read, verify
from dragoman.host.events import CallProgress, LogReceived
from dragoman.host.kinds import Decision, Effect
from dragoman.host.models.scripted import ScriptedModel
from dragoman.model.content import TextContent
from dragoman.model.prompts import PromptMessage
from interop import peers

pytestmark = pytest.mark.interop

T = TypeVar("T")

# 50 s: eight interpreters start at once, on a machine that may be busy; pytest ends a test at 60.
PATIENCE_S = 50.0

SCOPE = "@modelcontextprotocol"
HEALTHY = ("everything", "files", "memory", "git", "time", "breaks")

# Ends at once; never says a word; works, but for two tools.
CRASHES = "import sys; print('no disk', file=sys.stderr); sys.exit(3)"
SILENT = "import sys; sys.stdin.read()"
BREAKS = """
import asyncio, os
from dragoman import Server

server = Server("breaks")

@server.tool
def die() -> str:
    "End in the middle of a call."
    os._exit(4)

@server.tool
async def hang() -> str:
    "Never answer."
    await asyncio.Event().wait()
    return ""

@server.tool
def ping() -> str:
    "Answer."
    return "pong"

server.run()
"""

FORM = {
    "name": "Ada",
    "check": True,
    "firstLine": "It was night.",
    "integer": 42,
    "number": 1.5,
}


class World:
    """A project with all the servers, somebody who answers, and a host that stays open.

    `answers` says what is answered to a question, by its action; everything else is a yes. What is
    asked is in `asked`. Every child has `mark` in its environment.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.graph = folder / "graph.jsonl"
        self.repository = folder / "repository"
        self.mark = f"dragoman-{uuid.uuid4().hex}"
        self.asked: list[ApprovalRequest] = []
        self.answers: dict[str, Callable[[ApprovalRequest], Decision]] = {}
        self.config = folder / "mcp.json"
        self.config.write_text(json.dumps({"mcpServers": self._servers()}))
        self.repository.mkdir()
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        for line in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "the first"]):
            subprocess.run(["git", *line], cwd=self.repository, check=True, capture_output=True)
        self._runner = asyncio.Runner()
        self.host = self.make()

    def _servers(self) -> dict[str, Any]:
        commands = {
            "everything": peers.binary("server-everything", f"{SCOPE}/server-everything", "stdio"),
            # What it is told on the command line gives way to its roots.
            "files": peers.binary(
                "server-filesystem", f"{SCOPE}/server-filesystem", str(self.folder)
            ),
            "memory": peers.binary("server-memory", f"{SCOPE}/server-memory"),
            "git": peers.module(
                "server-git", "mcp_server_git", "--repository", str(self.repository)
            ),
            "time": peers.module("server-time", "mcp_server_time", "--local-timezone", "UTC"),
            "breaks": [sys.executable, "-c", BREAKS],
            "crashes": [sys.executable, "-c", CRASHES],
            "silent": [sys.executable, "-c", SILENT],
        }
        env = {"MARK": self.mark}
        more: dict[str, dict[str, Any]] = {
            "memory": {"env": {**env, "MEMORY_FILE_PATH": str(self.graph)}},
            # Longer than all tests together: it is waited for, and holds up nobody.
            "silent": {"startTimeout": 600},
        }
        return {
            name: {"command": argv[0], "args": argv[1:], "env": env, **more.get(name, {})}
            for name, argv in commands.items()
        }

    async def decide(self, request: ApprovalRequest) -> Decision:
        """Answer, as the approver."""
        self.asked.append(request)
        if request.action in self.answers:
            return self.answers[request.action](request)
        is_kept = request.action in ("server.start", "tool.expose")
        return request.allow(Scope.ALWAYS if is_kept else None)

    def make(self) -> Host:
        """A host of all these servers, not opened."""
        model = ScriptedModel(["Rain, said the model."] * 8)
        return Host.load(self.config, approver=self, state=self.state, environ={}, models=[model])

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop of the host, within bounds."""

        async def bounded() -> T:
            async with asyncio.timeout(PATIENCE_S):
                return await coroutine

        return self._runner.run(bounded())

    def open(self, host: Host) -> None:
        """Open a host, until every healthy server is there and the crashing one has crashed."""

        async def main() -> None:
            await host.open()
            await until(
                host,
                lambda: (
                    all(host.server(name).state is ServerState.CONNECTED for name in HEALTHY)
                    and "status 3" in host.server("crashes").detail
                ),
            )

        self.run(main())

    def close(self) -> None:
        """Close the host and the loop."""
        self.run(self.host.aclose())
        self._runner.close()

    def text(self, server: str, tool: str, /, **arguments: Any) -> str:
        """The text of what a tool answers."""
        return self.run(self.host.call_tool(server, tool, arguments)).text

    def questions(self, action: str, server: str) -> list[ApprovalRequest]:
        """What was asked about."""
        return [one for one in self.asked if (one.action, one.server) == (action, server)]

    def records(self, **wanted: Any) -> list[dict[str, Any]]:
        """The audit's records with these members."""
        found = read(self.state / "audit" / "audit.jsonl")
        return [one for one in found if all(one.get(k) == v for k, v in wanted.items())]

    def processes(self) -> list[str]:
        """Every process with the mark, children of children too: "pid command"."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(f"{folder.name} {command.decode(errors='replace')}")
            except OSError:
                # It ended meanwhile, or is somebody else's.
                continue
        return found


async def until(host: Host, holds: Callable[[], bool]) -> None:
    """Wait for something to hold; looked at with each event of the host."""
    changed = asyncio.Event()
    end = host.on_event(lambda event: changed.set())
    while not holds():
        changed.clear()
        await changed.wait()
    end()


@pytest.fixture(scope="module", params=["(host)"])
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all tests of this file: eight servers take seconds to start."""
    world = World(tmp_path_factory.mktemp("host"))
    world.open(world.host)
    yield world
    world.close()


@pytest.fixture
def world(opened: World) -> World:
    """The same, with nothing asked yet and everything answered with yes."""
    opened.asked.clear()
    opened.answers.clear()
    return opened


def test_a_server_that_crashes_and_one_that_is_silent_are_seen_and_block_nobody(
    world: World,
) -> None:
    tools = world.run(world.host.list_tools(wait_s=0))
    assert {tool.server for tool in tools} == set(HEALTHY)
    crashed, silent = world.host.server("crashes"), world.host.server("silent")
    assert crashed.state in (ServerState.CONNECTING, ServerState.FAILED)
    assert "status 3" in crashed.detail
    assert "no disk" in crashed.stderr
    assert silent.state is ServerState.CONNECTING


def test_a_call_to_a_server_that_is_not_there_yet_waits_alone(world: World) -> None:
    host = world.host

    async def main() -> None:
        waiting = [
            asyncio.ensure_future(host.call_tool(name, "x")) for name in ("crashes", "silent")
        ]
        for server, tool, arguments in (
            ("breaks", "ping", {}),
            ("time", "get_current_time", {"timezone": "UTC"}),
            ("git", "git_branch", {"repo_path": str(world.repository), "branch_type": "local"}),
        ):
            assert (await host.call_tool(server, tool, arguments)).text
        assert not waiting[1].done()
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)

    world.run(main())
    assert {one.server for one in world.asked} == {"breaks", "time", "git"}


def test_every_reference_server_answers_at_once_with_its_approval_on_record(world: World) -> None:
    ada = {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}
    calls: dict[str, tuple[str, dict[str, Any], str]] = {
        "everything": ("get-sum", {"a": 2, "b": 3}, "The sum of 2 and 3 is 5."),
        "files": ("get_file_info", {"path": str(world.repository)}, "isDirectory: true"),
        "memory": ("create_entities", {"entities": [ada]}, "wrote programs"),
        "git": ("git_log", {"repo_path": str(world.repository)}, "the first"),
        "time": ("get_current_time", {"timezone": "UTC"}, '"timezone": "UTC"'),
        "breaks": ("ping", {}, "pong"),
    }

    async def main() -> dict[str, str]:
        results = await asyncio.gather(
            *(
                world.host.call_tool(server, tool, arguments, trace=f"call-{server}")
                for server, (tool, arguments, _) in calls.items()
            )
        )
        return {result.server: result.text for result in results}

    texts = world.run(main())
    for server, (tool, arguments, text) in calls.items():
        assert text in texts[server]
        (asked,) = world.questions("tool.call", server)
        assert json.loads(asked.view.payload) == arguments
        decision, outcome = world.records(trace=f"call-{server}")
        assert (decision["kind"], decision["object"]) == ("decision", tool)
        assert (decision["effect"], decision["approval"]) == ("allow", asked.id)
        assert (outcome["kind"], outcome["status"], outcome["id"]) == (
            "outcome",
            "ok",
            decision["id"],
        )
    assert json.loads(world.graph.read_text().splitlines()[0])["name"] == "Ada"


def test_what_the_person_refuses_does_not_reach_a_real_server(world: World) -> None:
    world.answers["tool.call"] = lambda request: request.deny(note="not that one")
    eve = {"name": "Eve", "entityType": "person", "observations": []}
    with pytest.raises(Denied) as denied:
        world.text("memory", "create_entities", entities=[eve])
    assert denied.value.code is Code.PERSON_DENIED
    world.answers.clear()
    assert "Eve" not in world.text("memory", "read_graph")


def test_an_edit_of_the_person_is_what_a_real_server_does(world: World) -> None:
    world.answers["tool.call"] = lambda request: request.allow(payload=b'{"a":20,"b":30}')
    assert world.text("everything", "get-sum", a=2, b=3) == "The sum of 20 and 30 is 50."


def test_sampling_passes_both_gates(world: World) -> None:
    text = world.text("everything", "trigger-sampling-request", prompt="Oslo?", maxTokens=20)
    assert "Rain, said the model." in text
    (request,) = world.questions("sampling.request", "everything")
    assert b"Oslo?" in request.view.payload
    assert ("during", "the call of its tool 'trigger-sampling-request'") in request.view.facts
    (release,) = world.questions("sampling.release", "everything")
    assert b"Rain, said the model." in release.view.payload
    assert world.records(action="sampling.release", effect="allow", kind="decision")


def test_a_model_that_the_person_withholds_stays_silent(world: World) -> None:
    world.answers["sampling.request"] = lambda request: request.deny()
    with pytest.raises(ToolError):
        world.text("everything", "trigger-sampling-request", prompt="Bergen?", maxTokens=20)
    assert not world.questions("sampling.release", "everything")


def test_a_form_is_filled_in_by_the_person(world: World) -> None:
    def fill(request: ApprovalRequest) -> Decision:
        return request.allow(payload=json.dumps(json.loads(request.view.payload) | FORM).encode())

    world.answers["elicit.form"] = fill
    text = world.text("everything", "trigger-elicitation-request")
    assert "User provided the requested information" in text
    assert "It was night." in text
    (asked,) = world.questions("elicit.form", "everything")
    assert json.loads(asked.view.payload)["number"] == 3.14
    assert asked.view.headline.count("everything") == 1


@pytest.mark.parametrize(
    ("effect", "word"), [(Effect.DENY, "decline"), (Effect.CANCEL, "cancel")], ids=str
)
def test_a_form_that_is_not_filled_in_is_answered_so(
    world: World, effect: Effect, word: str
) -> None:
    world.answers["elicit.form"] = lambda request: Decision(
        effect=effect, view_digest=request.view_digest
    )
    text = world.text("everything", "trigger-elicitation-request")
    assert f'"action": "{word}"' in text


def test_a_folder_is_opened_to_one_server_and_told_to_no_other(world: World) -> None:
    inside, outside = world.folder / "inside", world.folder / "outside"
    inside.mkdir()
    outside.mkdir()
    host = world.host

    async def main() -> str:
        host.add_root("files", inside)
        # The server asks for its roots after it was told, in its own time.
        allowed = ""
        while str(inside) not in allowed:
            allowed = (await host.call_tool("files", "list_allowed_directories")).text
        await host.call_tool("files", "write_file", {"path": f"{inside}/a.txt", "content": "hi"})
        for path in (outside / "b.txt", inside / ".." / "outside" / "c.txt"):
            with pytest.raises(ToolError, match="Access denied"):
                await host.call_tool("files", "write_file", {"path": str(path), "content": "hi"})
        return allowed

    assert world.run(main()).splitlines()[1:] == [str(inside)]
    assert (inside / "a.txt").read_text() == "hi"
    assert list(outside.iterdir()) == []
    (asked,) = world.questions("roots.expose", "files")
    assert asked.intent.object == inside.as_uri()
    assert host.roots("files") == [inside.as_uri()]
    assert host.roots("everything") == []
    assert inside.name not in world.text("everything", "get-roots-list")


def test_a_root_that_is_added_later_is_announced(world: World) -> None:
    shown = world.folder / "shown"
    shown.mkdir()
    host = world.host

    async def main() -> None:
        host.add_root("everything", shown)
        text = ""
        while shown.as_uri() not in text:
            text = (await host.call_tool("everything", "get-roots-list")).text
        host.remove_root("everything", shown)
        while shown.as_uri() in text:
            text = (await host.call_tool("everything", "get-roots-list")).text

    world.run(main())
    assert len(world.questions("roots.expose", "everything")) == 1


def test_resources_prompts_and_completions_of_a_real_server(world: World) -> None:
    host = world.host

    async def main() -> None:
        templates = [(s, t.uri_template) for s, t in await host.list_resource_templates(wait_s=0)]
        assert ("everything", "demo://resource/dynamic/text/{resourceId}") in templates
        assert len(await host.list_resources("everything")) >= 7
        text = await host.read_resource("everything", "demo://resource/dynamic/text/1")
        assert "Resource 1" in (text.contents[0].text or "")
        names = {name for server, one in await host.list_prompts(wait_s=0) for name in [one.name]}
        assert "args-prompt" in names
        prompt = await host.get_prompt("everything", "args-prompt", {"city": "Oslo"})
        assert prompt.messages == [
            PromptMessage(role="user", content=TextContent(text="What's weather in Oslo?"))
        ]
        found = await host.complete("everything", "completable-prompt", "department", "E")
        assert found.values == ["Engineering"]
        assert await host.list_resources("git") == []

    world.run(main())
    actions = [one.action for one in world.asked]
    assert actions == ["resource.read", "prompt.get", "complete"]


def test_progress_and_logs_of_a_real_server_are_heard(world: World) -> None:
    host = world.host
    heard: list[Any] = []
    end = host.on_event(heard.append)

    async def main() -> None:
        arguments = {"duration": 0.3, "steps": 3}
        await host.call_tool("everything", "trigger-long-running-operation", arguments)
        await host.call_tool("everything", "toggle-simulated-logging")
        await until(host, lambda: any(isinstance(one, LogReceived) for one in heard))
        await host.call_tool("everything", "toggle-simulated-logging")

    world.run(main())
    end()
    steps = [one.progress.progress for one in heard if isinstance(one, CallProgress)]
    assert steps == [1, 2, 3]


def test_a_call_that_hangs_holds_up_nobody_else(world: World) -> None:
    host = world.host

    async def main() -> None:
        hanging = asyncio.ensure_future(host.call_tool("breaks", "hang", trace="hanging"))
        for _ in range(5):
            await asyncio.gather(
                host.call_tool("breaks", "ping"),
                host.call_tool("everything", "echo", {"message": "on"}),
                host.call_tool("time", "get_current_time", {"timezone": "UTC"}),
            )
        assert not hanging.done()
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        with pytest.raises(DeadlineExceeded):
            await host.call_tool("breaks", "hang", timeout_s=0.05, trace="late")

    world.run(main())
    endings = [
        (one["trace"], one["status"])
        for one in world.records(kind="outcome")
        if one.get("trace") in ("hanging", "late")
    ]
    assert endings == [("hanging", "cancelled"), ("late", "unknown")]


def test_a_server_that_dies_in_a_call_is_seen_and_comes_back_as_it_was(world: World) -> None:
    host = world.host
    states: list[ServerState] = []

    async def main() -> None:
        end = host.on_event(lambda event: states.append(host.server("breaks").state))
        with pytest.raises(LinkError):
            await host.call_tool("breaks", "die", trace="deadly")
        # The others are asked while it is away, and it answers again by itself.
        await host.call_tool("git", "git_status", {"repo_path": str(world.repository)})
        assert (await host.call_tool("breaks", "ping")).text == "pong"
        end()

    world.run(main())
    assert ServerState.RECONNECTING in states
    # Whether it had done it, nobody knows; it is not called again.
    (outcome,) = world.records(kind="outcome", trace="deadly")
    assert outcome["status"] == "unknown"
    assert len(world.records(kind="decision", object="die")) == 1
    assert host.diff("breaks") == ""
    assert not world.questions("server.start", "breaks")
    assert not world.questions("tool.expose", "breaks")


def test_nothing_has_drifted_when_every_server_is_reached_anew(world: World) -> None:
    host = world.host
    before = [(t.server, t.tool) for t in world.run(host.list_tools(wait_s=0, all=True))]

    async def main() -> None:
        for name in HEALTHY:
            await host.reconnect(name)
        await until(
            host, lambda: all(host.server(one).state is ServerState.CONNECTED for one in HEALTHY)
        )

    world.run(main())
    after = [(t.server, t.tool) for t in world.run(host.list_tools(wait_s=0, all=True))]
    assert sorted(after, key=str) == sorted(before, key=str)
    for name in HEALTHY:
        assert host.diff(name) == ""
        assert host.server(name).held_back == ()
    # A root that was opened once is asked about once more; nothing else is.
    assert {one.action for one in world.asked} <= {"roots.expose"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_second_host_asks_nothing_again_and_leaves_nothing_behind(world: World) -> None:
    second = world.make()
    before = set(world.processes())
    assert len(before) >= len(HEALTHY)
    world.open(second)
    assert len(world.processes()) >= 2 * len(HEALTHY)
    assert world.asked == []
    assert all(second.diff(name) == "" for name in HEALTHY)

    async def main() -> None:
        for _ in range(20):
            await asyncio.gather(*(one.call_tool("breaks", "ping") for one in (world.host, second)))
        await second.aclose()

    world.run(main())
    # The first host's own stay; the crashing one may be between two attempts.
    left = {one for one in world.processes() if CRASHES not in one} - before
    assert left == set()
    # Two hosts have written to it, at the same time.
    report = verify(world.state / "audit" / "audit.jsonl")
    assert report.is_intact, report


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_at_the_end_no_child_is_left_and_the_log_is_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.open(world.host)
    assert world.text("time", "get_current_time", timezone="UTC")
    assert len(world.processes()) > len(HEALTHY)
    world.close()
    assert world.processes() == []
    report = verify(world.state / "audit" / "audit.jsonl")
    assert report.is_intact, report
    assert report.anchored_seq == report.last_seq > 0
    # Each thing that was decided has an end on record, or was refused.
    decided = {one["id"] for one in world.records(kind="decision", effect="allow")}
    assert decided == {one["id"] for one in world.records(kind="outcome")}
