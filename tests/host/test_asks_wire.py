"""What servers ask, through a real client and the gate: what reaches the server, and what does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dragoman import Client, Server
from dragoman.client.targets import connector_for
from dragoman.errors import AskRefused
from dragoman.host.connections import Connection
from dragoman.host.gate import Gate, Passage, Ticket
from dragoman.host.inbound import Inbound
from dragoman.host.kinds import Action
from dragoman.model.content import SamplingBlock, TextContent
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult
from dragoman.server.context import Context
from tests.host.desk import Desk, Person, desk, payload_of
from tests.support import HANDSHAKE, Wire, run

DECLARED = ("sampling", "elicitation", "roots")


class Model:
    """One model that says what it is told to."""

    def __init__(self, *blocks: SamplingBlock) -> None:
        self.blocks = blocks or (TextContent(text="blue 4711"),)

    def names(self) -> list[str]:
        return ["local:small"]

    async def answer(self, model: str, params: CreateMessageParams) -> CreateMessageResult:
        content = self.blocks[0] if len(self.blocks) == 1 else list(self.blocks)
        return CreateMessageResult(role="assistant", content=content, model="small")


def server() -> Server:
    made = Server("maps")

    @made.tool
    async def think(ctx: Context) -> str:
        try:
            return (await ctx.sample("Which colour?", max_tokens=50)).text
        except AskRefused as refused:
            return f"refused: {refused}"

    @made.tool
    async def ask(ctx: Context) -> str:
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        form = await ctx.elicit("Who?", schema)
        return f"{form.action} {form.data}"

    @made.tool
    async def look(ctx: Context) -> str:
        return " ".join(root.uri for root in await ctx.list_roots())

    return made


class Joined:
    """A client behind a gate, as the host's connection has it, and what went to the server."""

    def __init__(self, at: Desk, wire: Wire) -> None:
        self.at = at
        self.wire = wire
        self.passages: list[Passage] = []
        self.violations: list[str] = []
        self.client: Client

    async def call(self, tool: str) -> str:
        """Call a tool, with a ticket for the call itself."""
        with self.gate.admit(Ticket(method="tools/call", name=tool, body=b"{}", decision=1)):
            return (await self.client.call_tool(tool, {})).text

    async def _permit(self) -> int:
        return 1

    @property
    def gate(self) -> Gate:
        if not hasattr(self, "_gate"):
            self._gate = Gate(
                "maps",
                permit=self._permit,
                on_passage=self.passages.append,
                on_violation=self.violations.append,
            )
        return self._gate


@asynccontextmanager
async def joined(
    at: Desk, *, model: Model | None = None, roots: Any = (), revision: str | None = None
) -> AsyncIterator[Joined]:
    """The server, joined to a client whose handlers are the host's."""
    inbound = Inbound(at.mediator, model or Model(), on_roots_changed=lambda server: None)
    it = Joined(at, Wire())
    asker = at.asker()
    connection = SimpleNamespace(
        server="maps",
        intent=asker.intent,
        identity=SimpleNamespace(lines=(("command", "maps"),)),
        entry=SimpleNamespace(roots=roots),
        under_way={"t1": "tool.call(maps/think)"},
        gate=it.gate,
    )
    options = inbound.client_options(cast(Connection, connection))
    it.client = Client(
        it.gate.guard(connector_for(server())), on_wire=it.wire, revision=revision, **options
    )
    async with it.client:
        yield it


def answers(it: Joined) -> list[Any]:
    """What went to the server in answer to its questions."""
    return [frame for way, frame in it.wire.frames if way == "sent" and "method" not in frame]


def declared(it: Joined) -> set[str]:
    """What the server was told that it may ask for."""
    (hello,) = it.wire.sent("initialize")
    return set(hello["params"]["capabilities"]) & set(DECLARED)


@pytest.mark.parametrize("revision", HANDSHAKE)
def test_what_was_released_reaches_the_server_and_the_gate_names_its_decision(
    revision: str,
) -> None:
    async def scenario(at: Desk) -> None:
        async with joined(at, revision=revision) as it:
            assert await it.call("think") == "blue 4711"
            (passage,) = [one for one in it.passages if one.is_answer]
            allowed = {r["seq"]: r["action"] for r in at.records() if r["effect"] == "allow"}
            assert allowed[passage.decision] == Action.SAMPLING_RELEASE
            assert it.violations == []

    with desk(Person(True)) as at:
        run(scenario(at))


@pytest.mark.parametrize("revision", HANDSHAKE)
@pytest.mark.parametrize("gate", [Action.SAMPLING_REQUEST, Action.SAMPLING_RELEASE])
def test_what_was_refused_is_an_error_that_says_so_and_no_more(revision: str, gate: Action) -> None:
    async def scenario(at: Desk) -> None:
        async with joined(at, revision=revision) as it:
            assert (await it.call("think")).startswith("refused")
            (answer,) = answers(it)
            assert answer["error"]["code"] == -1
            assert answer["error"]["message"] == "User rejected sampling request: declined"
            assert "4711" not in str(it.wire.sent("tools/call")) + str(answers(it))

    with desk(Person(lambda request: request.action is not gate)) as at:
        run(scenario(at))


@pytest.mark.parametrize("revision", HANDSHAKE)
def test_an_answer_in_several_pieces_of_text_reaches_every_server(revision: str) -> None:
    async def scenario(at: Desk) -> None:
        model = Model(TextContent(text="one "), TextContent(text="two"))
        async with joined(at, model=model, revision=revision) as it:
            assert await it.call("think") == "one two"
            assert it.violations == []

    with desk(Person(True)) as at:
        run(scenario(at))


@pytest.mark.parametrize("revision", ["2025-06-18", "2025-11-25"])
@pytest.mark.parametrize(
    ("said", "text"),
    [
        (lambda r: r.allow(payload=b'{"name":"Ann"}'), "accept {'name': 'Ann'}"),
        (False, "decline None"),
        (lambda r: r.cancel(), "cancel None"),
    ],
)
def test_a_form_is_answered_as_the_person_chose(revision: str, said: Any, text: str) -> None:
    async def scenario(at: Desk) -> None:
        async with joined(at, revision=revision) as it:
            assert await it.call("ask") == text
            (passage,) = [one for one in it.passages if one.is_answer]
            assert passage.decision in {record["seq"] for record in at.records()}
            assert it.violations == []

    with desk(Person(said)) as at:
        run(scenario(at))


@pytest.mark.parametrize("revision", HANDSHAKE)
def test_a_server_hears_of_the_folders_that_were_agreed_to(revision: str, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()

    async def scenario(at: Desk) -> None:
        roots = (SimpleNamespace(uri=a.as_uri()), SimpleNamespace(uri=b.as_uri()))
        async with joined(at, revision=revision, roots=roots) as it:
            assert await it.call("look") == a.as_uri()
            assert it.violations == []

    with desk(Person(lambda request: payload_of(request)["uri"].endswith("/a"))) as at:
        run(scenario(at))


@pytest.mark.parametrize(
    ("person", "rules", "offered"),
    [
        (Person(True), (), set(DECLARED)),
        (None, (), set()),
        (Person(True), ("deny sampling(maps)", "deny roots(maps/*)"), {"elicitation"}),
        (Person(True), ("deny elicit.form(*)", "deny elicit.url(*)"), {"sampling", "roots"}),
    ],
)
def test_a_server_is_told_only_of_what_it_could_be_granted(
    person: Person | None, rules: tuple[str, ...], offered: set[str]
) -> None:
    async def scenario(at: Desk) -> None:
        async with joined(at) as it:
            assert declared(it) == offered

    with desk(person, *rules) as at:
        run(scenario(at))
