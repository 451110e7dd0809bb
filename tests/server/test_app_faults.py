"""Bad input from a client, each answered as it should be, and nothing lost by it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dragoman import CallToolResult, Context, LinkError, Refused, Server, TextContent, ToolError
from dragoman.testing import ScriptedPeer
from dragoman.transport.memory import memory_pair
from tests.scripted import ask, scripted_client
from tests.support import HANDSHAKE, joined, run

NEWEST = HANDSHAKE[-1]


def everything() -> Server:
    server = Server("s", declares=["completions"])

    @server.tool
    async def wait(ctx: Context) -> str:
        await ctx.info("waiting")
        await GATES[server].wait()
        return "done"

    server.add_prompt(lambda word: word, name="p")
    server.add_resource("x", "note:1")
    GATES[server] = asyncio.Event()
    return server


GATES: dict[Server, asyncio.Event] = {}


@asynccontextmanager
async def serving(revision: str = NEWEST) -> AsyncIterator[ScriptedPeer]:
    """A script that is connected; at the end the server still has to answer."""
    server = everything()
    async with scripted_client(server, revision=revision) as peer:
        yield peer
        assert (await ask(peer, "ping", ident="last"))["result"] == {}
    del GATES[server]


METHODS = (
    "tools/call",
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "ping",
)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_of_the_wrong_type_are_invalid(method: str) -> None:
    async def main() -> None:
        async with serving() as peer:
            for number, params in enumerate(([1], "text", 3, True, {"_meta": 3})):
                message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
                peer.send(message)
                answer = await peer.receive()
                assert answer["id"] == number
                assert answer["error"]["code"] in (-32602, -32600), answer

    run(main())


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": 3},
        {"name": None},
        {"name": "wait", "arguments": []},
        {"name": "wait", "arguments": "{}x"},
        {"name": "wait", "arguments": {"surplus": 1}},
        {"name": "wait", "_meta": {"progressToken": 1.5}},
    ],
)
def test_a_malformed_call_is_answered_and_never_run(params: Any) -> None:
    async def main() -> None:
        async with serving() as peer:
            answer = await ask(peer, "tools/call", params)
            refused = "error" in answer or answer["result"]["isError"]
            assert refused, answer

    run(main())


def test_an_id_in_use_is_refused_and_the_first_request_goes_on() -> None:
    async def main() -> None:
        server = everything()
        async with scripted_client(server) as peer:
            params = {"name": "wait", "arguments": {}}
            peer.request(7, "tools/call", params)
            assert (await peer.receive())["method"] == "notifications/message"
            for method in ("tools/call", "ping"):
                peer.request(7, method, params if method == "tools/call" else None)
                refused = await peer.receive()
                assert (refused["id"], refused["error"]["code"]) == (7, -32600)
            GATES[server].set()
            answer = await peer.receive()
            assert (answer["id"], answer["result"]["content"][0]["text"]) == (7, "done")
            assert (await ask(peer, "ping", ident=7))["result"] == {}

    run(main())


def test_strange_messages_are_answered_where_they_can_be_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving() as peer:
            for message, code in (
                (b"not json", -32700),
                (b'{"jsonrpc":"2.0","id":1,"method":"ping","id":2}', None),
                (b'{"id":1,"method":"ping"}', -32600),
                (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
                (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
                (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
                (b'{"jsonrpc":"2.0","id":3,"method":"no/such"}', -32601),
                (b'{"jsonrpc":"2.0","id":3,"method":"notifications/initialized"}', -32601),
                (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
                (b"[]", None),
                (b'"text"', -32600),
                (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":NaN}', -32700),
                (b"[" * 10_000, None),
            ):
                peer.send(message)
                answer = await peer.receive()
                assert "error" in answer, message
                if code is not None:
                    assert answer["error"]["code"] == code, message
            for told in (
                {"method": "notifications/no/such"},
                {"method": "tools/call", "params": {"name": "wait"}},
                {"method": "notifications/cancelled", "params": {"requestId": 99}},
                {"method": "notifications/cancelled", "params": {}},
                {"method": "notifications/progress", "params": {"progressToken": 9, "progress": 1}},
                {"id": 99, "result": {}},
                {"id": 99, "error": {"code": 1, "message": "stray"}},
            ):
                peer.send({"jsonrpc": "2.0", **told})

    with caplog.at_level(logging.WARNING, "dragoman"):
        run(main())
    assert "the client broke the protocol" in caplog.text


def test_a_batch_is_answered_as_one_where_batches_exist() -> None:
    async def main() -> None:
        async with serving(HANDSHAKE[1]) as peer:
            peer.send(
                [
                    {"jsonrpc": "2.0", "id": 1, "method": "ping"},
                    {"jsonrpc": "2.0", "method": "notifications/no/such"},
                    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
                    {"jsonrpc": "2.0", "id": 3, "method": "no/such"},
                ]
            )
            answers = {one["id"]: one for one in await peer.receive()}
            assert set(answers) == {1, 2, 3}
            assert answers[2]["result"]["tools"][0]["name"] == "wait"
            assert answers[3]["error"]["code"] == -32601

    run(main())


def test_nothing_is_answered_before_the_hello_but_a_ping() -> None:
    async def main() -> None:
        near, far = memory_pair()
        server = everything()
        task = asyncio.ensure_future(server.serve_link(far))
        peer = ScriptedPeer(near)
        assert (await ask(peer, "ping", ident=1))["result"] == {}
        for number, method in enumerate(("tools/list", "tools/call", "logging/setLevel"), start=2):
            assert (await ask(peer, method, ident=number))["error"]["code"] == -32600
        await peer.hello()
        assert "error" in await ask(
            peer,
            "initialize",
            {
                "protocolVersion": NEWEST,
                "capabilities": {},
                "clientInfo": {"name": "c", "version": "1"},
            },
            ident="again",
        )
        assert "tools" in (await ask(peer, "tools/list", ident=9))["result"]
        await peer.aclose()
        await task

    run(main())


def test_a_client_that_leaves_takes_its_requests_with_it() -> None:
    async def main() -> None:
        server = Server("s")
        started, stopped = asyncio.Event(), asyncio.Event()

        @server.tool
        async def hang() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        async with joined(server) as (client, _):
            call = asyncio.ensure_future(client.call_tool("hang"))
            await started.wait()
        assert stopped.is_set()
        with pytest.raises(LinkError):
            await call

    run(main())


def test_a_handler_that_tells_faster_than_its_client_reads_has_to_wait() -> None:
    async def main() -> None:
        server = Server("s")
        said = 0

        @server.tool
        async def flood(ctx: Context) -> str:
            nonlocal said
            for _ in range(300):
                await ctx.info("x" * 50_000)
                said += 1
            return "done"

        async with scripted_client(server) as peer:
            peer.link.pause_reading()
            peer.request(1, "tools/call", {"name": "flood", "arguments": {}})
            before = -1
            while said != before:
                before = said
                for _ in range(20):
                    await asyncio.sleep(0)
            assert 0 < said < 300
            peer.link.resume_reading()
            while (message := await peer.receive()).get("id") != 1:
                pass
            assert message["result"]["content"][0]["text"] == "done"
        assert said == 300

    run(main())


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolError("why"), "why"),
        (Refused("the rule", "the subject"), "the subject was refused: the rule"),
        (
            ToolError(
                "hidden", result=CallToolResult(content=[TextContent(text="shown")], is_error=True)
            ),
            "shown",
        ),
    ],
)
def test_what_a_model_may_read_reaches_it(error: Exception, text: str) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def fail() -> None:
            raise error

        async with joined(server) as (client, _):
            result = await client.call_tool("fail", raise_on_error=False)
        assert (result.is_error, result.text) == (True, text)

    run(main())


def test_a_callback_for_roots_may_wait_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        heard: list[str] = []

        async def later() -> None:
            await asyncio.sleep(0)
            heard.append("later")
            raise RuntimeError("broken later")

        def broken() -> None:
            heard.append("broken")
            raise RuntimeError("broken at once")

        for callback in (later, broken):
            async with joined(Server("s", on_roots_changed=callback), roots=[]) as (client, _):
                client.notify_roots_changed()
                await client.ping()
                await client.ping()
        assert heard == ["later", "broken"]

    run(main())
    assert "broken later" in caplog.text
    assert "broken at once" in caplog.text


def test_the_log_says_where_text_was_read_as_json_and_never_what_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def add(card: dict[str, int], rest: list[dict[str, int]]) -> int:
            return sum(card.values()) + sum(sum(one.values()) for one in rest)

        @server.tool(input_schema={"type": "object", "properties": {"card": {"type": "object"}}})
        def raw(arguments: dict[str, Any]) -> int:
            return int(arguments["card"]["pin"])

        async with joined(server) as (client, _):
            pin = '{"pin": 4711}'
            assert (
                await client.call_tool("add", {"card": pin, "rest": [pin] * 20})
            ).text == "98931"
            assert (await client.call_tool("raw", {"card": pin})).text == "4711"

    with caplog.at_level(logging.DEBUG, "dragoman.server"):
        run(main())
    told = [one for one in caplog.records if one.levelno > logging.DEBUG]
    assert len(told) == 2
    assert all("card" in one.getMessage() and "pin" not in one.getMessage() for one in told)
    assert "rest[6], 13 more" in told[0].getMessage()
    assert any("4711" in one.getMessage() for one in caplog.records)


def test_changes_that_come_while_a_callback_waits_are_told_once_after_it() -> None:
    async def main() -> None:
        under_way = most = calls = 0
        may_end = asyncio.Event()

        async def changed() -> None:
            nonlocal under_way, most, calls
            calls += 1
            under_way += 1
            most = max(most, under_way)
            await may_end.wait()
            under_way -= 1

        async with joined(Server("s", on_roots_changed=changed), roots=[]) as (client, _):
            await client.ping()
            before = len(asyncio.all_tasks())
            for _ in range(500):
                client.notify_roots_changed()
            await client.ping()
            assert (calls, most) == (1, 1)
            assert len(asyncio.all_tasks()) <= before + 2
            may_end.set()
            await client.ping()
            assert (calls, most, under_way) == (2, 1, 0)
            client.notify_roots_changed()
            await client.ping()
            assert (calls, most) == (3, 1)

    run(main())


def test_a_callback_that_fails_is_called_again_for_what_came_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        heard: list[int] = []
        may_end = asyncio.Event()

        def changed() -> Any:
            heard.append(len(heard))
            if len(heard) == 2:
                raise RuntimeError("broken at once")
            return later()

        async def later() -> None:
            await may_end.wait()
            raise RuntimeError("broken later")

        async with joined(Server("s", on_roots_changed=changed), roots=[]) as (client, _):
            for _ in range(3):
                client.notify_roots_changed()
            await client.ping()
            assert heard == [0]
            may_end.set()
            await client.ping()
            client.notify_roots_changed()
            await client.ping()
            assert heard == [0, 1, 2]

    run(main())
    assert caplog.text.count("RuntimeError: broken at once") == 1
    assert caplog.text.count("RuntimeError: broken later") == 2


@pytest.mark.parametrize("revision", [HANDSHAKE[0], NEWEST])
def test_a_result_that_cannot_be_written_is_told_by_the_id_that_our_log_carries(
    revision: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[Any]:
        server = Server("s")
        server.add_tool(lambda: "half \ud800", name="half")
        server.add_prompt(lambda: "half \ud800", name="half")
        server.add_resource(lambda: "half \ud800", "note:half", name="half")
        answers = []
        async with scripted_client(server, revision=revision) as peer:
            for method, params in (
                ("tools/call", {"name": "half", "arguments": {}}),
                ("prompts/get", {"name": "half"}),
                ("resources/read", {"uri": "note:half"}),
            ):
                caplog.clear()
                answer = await ask(peer, method, params)
                assert answer["error"]["code"] == -32603
                text = answer["error"]["message"]
                (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
                ident = text.split("error id ")[1].rstrip(")")
                assert text == f"{method} failed (error id {ident})"
                assert ident in record.getMessage()
                assert record.exc_info is not None
                answers.append(answer)
        return answers

    assert len(run(main())) == 3
