"""The gate: what was not decided does not leave, whoever holds the client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dragoman import Client, LinkError, Server, ToolError
from dragoman.client.targets import connector_for
from dragoman.errors import ChildExited
from dragoman.host.gate import (
    AnswerTicket,
    Gate,
    Passage,
    StartRefused,
    Ticket,
    leaves_of,
)
from dragoman.host.kinds import Code, Denied
from dragoman.model.content import TextContent
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult
from dragoman.server.context import Context
from tests.support import run


def _server() -> tuple[Server, list[Any]]:
    server = Server("s")
    calls: list[Any] = []

    @server.tool
    def add(a: int, b: int) -> int:
        calls.append((a, b))
        return a + b

    @server.tool
    async def think(ctx: Context) -> str:
        result = await ctx.sample("what?")
        return result.text

    @server.resource("note://{name}")
    def note(name: str) -> str:
        calls.append(name)
        return name

    return server, calls


class _Watched:
    """A gate that lets the start through, and what it saw."""

    def __init__(self, **options: Any) -> None:
        self.violations: list[str] = []
        self.passages: list[Passage] = []
        self.lists: list[tuple[str, str | None, Any]] = []
        self.gate = Gate(
            "s",
            permit=self._permit,
            on_violation=self.violations.append,
            on_passage=self.passages.append,
            on_list=lambda method, cursor, raw: self.lists.append(
                (method, cursor, json.loads(raw))
            ),
            **options,
        )

    async def _permit(self) -> int:
        return 7

    def client(self, server: Server, **options: Any) -> Client:
        return Client(
            self.gate.guard(connector_for(server)), check_output=False, reconnect=False, **options
        )


def test_a_call_without_a_ticket_reaches_no_server() -> None:
    async def main() -> None:
        server, calls = _server()
        watched = _Watched()
        async with watched.client(server) as client:
            with pytest.raises(LinkError):
                await client.call_tool("add", {"a": 1, "b": 2})
            assert calls == []
            assert len(watched.violations) == 1
            # The link goes on.
            await client.ping()

    run(main())


def test_a_call_with_a_ticket_for_exactly_its_bytes_passes() -> None:
    async def main() -> None:
        server, calls = _server()
        watched = _Watched()
        async with watched.client(server) as client:
            ticket = Ticket(method="tools/call", name="add", body=b'{"a":1,"b":2}', decision=9)
            with watched.gate.admit(ticket) as opened:
                result = await client.call_tool("add", {"a": 1, "b": 2}, on_progress=print)
            assert result.text == "3"
            assert opened.passages == 1
            assert Passage(method="tools/call", decision=9) in watched.passages
            # It ends with its block.
            with pytest.raises(LinkError):
                await client.call_tool("add", {"a": 1, "b": 2})
        assert calls == [(1, 2)]

    run(main())


@pytest.mark.parametrize(
    ("name", "arguments", "meta"),
    [
        ("add", {"a": 1, "b": 3}, None),
        ("add", {"b": 2, "a": 1}, None),
        ("add", None, None),
        ("think", {"a": 1, "b": 2}, None),
        ("add", {"a": 1, "b": 2}, {"x": "smuggled"}),
    ],
)
def test_a_ticket_covers_nothing_but_its_bytes(
    name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None
) -> None:
    async def main() -> None:
        server, calls = _server()
        watched = _Watched()
        async with watched.client(server) as client:
            ticket = Ticket(method="tools/call", name="add", body=b'{"a":1,"b":2}')
            with watched.gate.admit(ticket), pytest.raises(LinkError):
                await client.call_tool(name, arguments, meta=meta)
        assert calls == []

    run(main())


def test_other_methods_need_tickets_too_and_lists_do_not() -> None:
    async def main() -> None:
        server, calls = _server()
        watched = _Watched()
        async with watched.client(server) as client:
            await client.list_tools()
            await client.list_resource_templates()
            with pytest.raises(LinkError):
                await client.read_resource("note://a")
            with watched.gate.admit(Ticket(method="resources/read", name="note://a")):
                await client.read_resource("note://a")
        assert calls == ["a"]
        assert [name for name, _, _ in watched.lists] == [
            "initialize",
            "tools/list",
            "resources/templates/list",
        ]
        tools = watched.lists[1][2]["tools"]
        assert [tool["name"] for tool in tools] == ["add", "think"]
        assert {one.decision for one in watched.passages if one.method == "tools/list"} == {7}

    run(main())


def test_an_answer_that_was_not_released_goes_out_as_an_error() -> None:
    async def main() -> None:
        server, _ = _server()
        watched = _Watched()

        def sample(params: CreateMessageParams) -> CreateMessageResult:
            return CreateMessageResult(
                role="assistant", content=TextContent(text="the secret"), model="m"
            )

        async with watched.client(server, sampling_handler=sample) as client:
            call = Ticket(method="tools/call", name="think", body=b"{}")
            with watched.gate.admit(call), pytest.raises(ToolError) as failed:
                await client.call_tool("think", {})
            assert "secret" not in str(failed.value)
            assert any("not released" in one for one in watched.violations)
            leaves = leaves_of(
                {
                    "role": "assistant",
                    "content": {"type": "text", "text": "the secret"},
                    "model": "m",
                }
            )
            answer = AnswerTicket(method="sampling/createMessage", leaves=leaves, decision=3)
            with watched.gate.admit(call):
                watched.gate.lend_answer(answer)
                result = await client.call_tool("think", {})
            assert result.text == "the secret"
            # Once: the next one needs another.
            with watched.gate.admit(call), pytest.raises(ToolError):
                await client.call_tool("think", {})

    run(main())


def test_nothing_is_started_when_the_start_is_refused() -> None:
    async def main() -> None:
        started = []

        class Recording:
            description = "a server"

            async def connect(self) -> Any:
                started.append(1)
                raise AssertionError("it was started")

        async def permit() -> int:
            raise Denied(Code.IDENTITY_CHANGED, "server.start(s)", "another command")

        gate = Gate("s", permit=permit)
        client = Client(gate.guard(Recording()))
        with pytest.raises(StartRefused) as refused:
            await client.connect()
        assert refused.value.denied.code is Code.IDENTITY_CHANGED
        assert started == []

    run(main())


def test_a_shut_gate_lets_nothing_through() -> None:
    async def main() -> None:
        server, _ = _server()
        watched = _Watched()
        async with watched.client(server) as client:
            watched.gate.shut()
            with pytest.raises(LinkError):
                await client.list_tools()

    run(main())


def test_the_leaves_of_an_answer_tell_numbers_from_truth_values() -> None:
    assert leaves_of({"a": [1, True, "x", None]}) == {"a", ("int", 1), ("bool", True), "x"}
    assert not leaves_of([True]) <= leaves_of([1])
    assert not leaves_of([1.0]) <= leaves_of([1])


def test_a_request_that_the_server_hides_behind_escapes_is_seen_all_the_same() -> None:
    """The key `method` may be written with escapes; the answer must still need a ticket."""

    async def main() -> None:
        from dragoman.transport.memory import memory_pair

        near, far = memory_pair()
        got: list[bytes] = []

        class Far:
            def frames_received(self, frames: Any, seen: Any) -> None:
                got.extend(frames)

            def link_closed(self, error: Any) -> None: ...

        class Near(Far):
            def frames_received(self, frames: Any, seen: Any) -> None: ...

        class Connects:
            description = "a pair"

            async def connect(self) -> Any:
                return near

        watched = _Watched()
        link = await watched.gate.guard(Connects()).connect()
        link.start(Near())  # type: ignore[arg-type]
        far.start(Far())  # type: ignore[arg-type]
        far.send(b'{"jsonrpc":"2.0","id":1,"\\u006dethod":"roots/list"}')
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        link.send(
            b'{"jsonrpc":"2.0","id":1,"result":{"roots":[{"uri":"file:///etc"}]}}', None, True
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(got) == 1
        assert b"error" in got[0]
        assert b"etc" not in got[0]
        await link.aclose()
        await far.aclose()

    run(main())


def test_a_ticket_for_a_tool_holds_on_the_link_it_was_made_for() -> None:
    async def main() -> None:
        server, calls = _server()
        watched = _Watched()
        ticket = Ticket(method="tools/call", name="add", body=b'{"a":1,"b":2}')
        async with watched.client(server):
            with watched.gate.admit(ticket):
                async with watched.client(server) as client:
                    with pytest.raises(LinkError):
                        await client.call_tool("add", {"a": 1, "b": 2})
                    with watched.gate.admit(ticket):
                        await client.call_tool("add", {"a": 1, "b": 2})
        assert calls == [(1, 2)]

    run(main())


def test_a_ticket_for_a_call_lets_it_through_once() -> None:
    async def main() -> None:
        server, calls = _server()
        watched = _Watched()
        async with watched.client(server) as client:
            ticket = Ticket(method="tools/call", name="add", body=b'{"a":1,"b":2}', decision=9)
            with watched.gate.admit(ticket):
                await client.call_tool("add", {"a": 1, "b": 2})
                with pytest.raises(LinkError):
                    await client.call_tool("add", {"a": 1, "b": 2})
        assert calls == [(1, 2)]

    run(main())


def test_each_of_two_identical_calls_takes_a_ticket_of_its_own() -> None:
    async def main() -> None:
        server, calls = _server()
        watched = _Watched()
        body = b'{"a":1,"b":2}'
        tickets = [
            Ticket(method="tools/call", name="add", body=body, decision=number)
            for number in (9, 10)
        ]
        async with watched.client(server) as client:
            with watched.gate.admit(tickets[0]), watched.gate.admit(tickets[1]):
                await asyncio.gather(*(client.call_tool("add", {"a": 1, "b": 2}) for _ in "ab"))
        assert calls == [(1, 2), (1, 2)]
        passed = [one.decision for one in watched.passages if one.method == "tools/call"]
        assert sorted(passed) == [9, 10]

    run(main())


CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{}}}'


@pytest.mark.parametrize("sent", [False, None, True])
def test_only_what_was_certainly_not_sent_gives_its_ticket_back(sent: bool | None) -> None:
    async def main() -> None:
        tries: list[bytes] = []

        class Failing:
            description = "a server"

            async def connect(self) -> Any:
                return self

            def send(self, frame: bytes, about: Any = None, is_answer: bool = False) -> None:
                tries.append(frame)
                if len(tries) == 1:
                    raise LinkError("it is gone", sent=sent)

        watched = _Watched()
        link = await watched.gate.guard(Failing()).connect()
        with watched.gate.admit(Ticket(method="tools/call", name="add", body=b"{}", decision=9)):
            with pytest.raises(LinkError):
                link.send(CALL)
            link.send(CALL)
            link.send(CALL)
        assert len(tries) == (2 if sent is False else 1)

    run(main())


def test_what_is_told_of_a_connection_holds_no_secret() -> None:
    async def main() -> None:
        class Failing:
            description = "serve --token hunter22"

            async def connect(self) -> Any:
                raise ChildExited(
                    command=["serve", "--token", "hunter22"],
                    exit_code=1,
                    stderr_tail="bad hunter22",
                )

        watched = _Watched(redact=lambda text: text.replace("hunter22", "[secret]"))
        guarded = watched.gate.guard(Failing())
        assert guarded.description == "serve --token [secret]"
        with pytest.raises(ChildExited) as exited:
            await guarded.connect()
        assert "hunter22" not in f"{exited.value}{vars(exited.value)}{exited.value.__cause__}"
        assert exited.value.command == ("serve", "--token", "[secret]")
        assert (exited.value.exit_code, exited.value.stderr_tail) == (1, "bad [secret]")

    run(main())
