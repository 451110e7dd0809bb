"""Calling: what a caller gets, and every way a call can end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dragoman import (
    Client,
    Context,
    DeadlineExceeded,
    EmbeddedResource,
    Limits,
    LinkError,
    NotNegotiated,
    PeerError,
    RemoteFailure,
    ResourceLink,
    Server,
    TextContent,
    ToolError,
)
from dragoman.errors import LinkClosed, WrongState
from dragoman.model.base import Implementation
from dragoman.model.content import ResourceContents
from tests.requirements.duties import duty
from tests.scripted import ScriptedConnector, scripted_server
from tests.support import joined, run

EVERYTHING: dict[str, Any] = {
    "tools": {},
    "resources": {"subscribe": True},
    "prompts": {},
    "logging": {},
    "completions": {},
}


def small() -> Server:
    server = Server("small", version="3", title="Small", instructions="Use it well.")

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    def fail() -> None:
        raise ToolError("broken on purpose")

    @server.tool
    async def hang(ctx: Context) -> None:
        await ctx.report_progress(1)
        await asyncio.Event().wait()

    return server


# --- what a caller gets -----------------------------------------------------------------------------


@duty("instructions.passed", "icons.carried")
def test_a_client_knows_its_server() -> None:
    async def main() -> None:
        client = Client(small())
        states = [client.is_connected]
        async with client:
            states.append(client.is_connected)
            assert client.server_info == Implementation(name="small", version="3", title="Small")
            assert client.instructions == "Use it well."
            assert client.server_capabilities.tools is not None
            assert client.server_capabilities.prompts is None
        states.append(client.is_connected)
        assert states == [False, True, False]

    run(main())


def test_a_result_has_its_data_its_text_and_its_blocks() -> None:
    async def main() -> None:
        async with joined(small()) as (client, _):
            result = await client.call_tool("add", {"a": 1, "b": 2})
        assert (result.data, result.text, result.is_error) == (3, "3", False)
        assert result.structured_content == {"result": 3}
        assert result.content == [TextContent(text="3")]
        assert (result.meta, repr(result)) == ({}, "<ToolResult 3>")

    run(main())


@duty("tools.embedded", "tools.links")
def test_blocks_of_every_kind_are_read() -> None:
    async def main() -> None:
        content = [
            {"type": "text", "text": "one"},
            {"type": "resource", "resource": {"uri": "a:b", "text": "two"}},
            {"type": "resource", "resource": {"uri": "a:c", "blob": "AP8="}},
            {"type": "resource_link", "uri": "note:1", "name": "n", "size": 3},
        ]
        async with scripted_server(EVERYTHING) as (client, peer):
            call = asyncio.ensure_future(client.call_tool("t"))
            peer.answer(await peer.expect("tools/call"), {"content": content})
            result = await call
            assert result.text == "one\ntwo"
            _, text, data, link = result.content
            assert isinstance(text, EmbeddedResource)
            assert isinstance(data, EmbeddedResource)
            assert data.resource.data == b"\x00\xff"
            assert link == ResourceLink(uri="note:1", name="n", size=3)
            # A link can be followed at once.
            read = asyncio.ensure_future(client.read_resource(link.uri))
            asked = await peer.expect("resources/read")
            assert asked["params"] == {"uri": "note:1"}
            peer.answer(asked, {"contents": [{"uri": "note:1", "text": "x"}]})
            assert (await read).contents == [ResourceContents(uri="note:1", text="x")]

    run(main())


@duty("tools.errors.readable", "tools.errors.is-error-default")
def test_a_failed_tool_raises_with_its_text_unless_asked_not_to() -> None:
    async def main() -> None:
        async with joined(small()) as (client, _):
            with pytest.raises(ToolError, match="broken on purpose") as failed:
                await client.call_tool("fail")
            assert failed.value.tool == "fail"
            assert failed.value.result.is_error
            assert failed.value.result.content == [TextContent(text="broken on purpose")]
            result = await client.call_tool("fail", raise_on_error=False)
            assert (result.is_error, result.text) == (True, "broken on purpose")
        async with scripted_server(EVERYTHING) as (client, peer):
            call = asyncio.ensure_future(client.call_tool("t"))
            peer.answer(await peer.expect("tools/call"), {"content": [], "isError": True})
            with pytest.raises(ToolError, match="no reason"):
                await call

    run(main())


@pytest.mark.parametrize("value", [math.nan, -math.inf, object(), {1: 2, (3,): 4}])
def test_arguments_that_are_no_json_are_refused_before_anything_is_sent(value: Any) -> None:
    async def main() -> None:
        async with joined(small()) as (client, wire):
            with pytest.raises((ValueError, TypeError)):
                await client.call_tool("add", {"a": value, "b": None})
            assert not wire.sent("tools/call")
            with pytest.raises(TypeError):
                await client.get_prompt("p", {"n": 3})  # type: ignore[dict-item]

    run(main())


@duty("completion.partial")
@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ({"values": []}, ([], None, None)),
        ({"values": ["a"], "total": 5}, (["a"], 5, None)),
        ({"values": ["a"], "hasMore": True}, (["a"], None, True)),
        ({"values": [str(n) for n in range(300)]}, ([str(n) for n in range(300)], None, None)),
    ],
)
def test_partial_completions_are_taken_as_they_come(answer: Any, seen: Any) -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            asking = asyncio.ensure_future(client.complete("p", "a", "x"))
            peer.answer(await peer.expect("completion/complete"), {"completion": answer})
            found = await asking
        assert (found.values, found.total, found.has_more) == seen

    run(main())


@duty("completion.partial", "tools.results-validated")
@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("complete", {}),
        ("complete", {"completion": {}}),
        ("complete", {"completion": {"values": [1]}}),
        ("call", {}),
        ("call", {"content": "text"}),
        ("call", {"content": [{"type": "hologram"}]}),
        ("call", {"content": [{"type": "image", "data": 3}]}),
        ("call", {"content": [], "isError": "yes"}),
        ("read", {"contents": [{"uri": "a:b"}]}),
        ("prompt", {"messages": [{"role": "robot", "content": {"type": "text", "text": ""}}]}),
        ("list", {"tools": [{"name": "no schema"}]}),
    ],
)
def test_a_malformed_answer_is_a_typed_error_and_the_client_goes_on(
    method: str, answer: Any
) -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            calls: dict[str, Any] = {
                "complete": lambda: client.complete("p", "a"),
                "call": lambda: client.call_tool("t"),
                "read": lambda: client.read_resource("a:b"),
                "prompt": lambda: client.get_prompt("p"),
                "list": client.list_tools,
            }
            asking = asyncio.ensure_future(calls[method]())
            peer.answer(await peer.receive(), answer)
            with pytest.raises(PeerError):
                await asking
            again = asyncio.ensure_future(client.ping())
            peer.answer(await peer.expect("ping"), {})
            await again

    run(main())


def test_a_refusal_keeps_its_number_text_and_data() -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            call = asyncio.ensure_future(client.call_tool("t"))
            asked = await peer.expect("tools/call")
            error = {"code": -32099, "message": "no", "data": {"why": [1]}}
            peer.send({"jsonrpc": "2.0", "id": asked["id"], "error": error})
            with pytest.raises(RemoteFailure) as refused:
                await call
        assert (refused.value.code, refused.value.message) == (-32099, "no")
        assert (refused.value.data, refused.value.method) == ({"why": [1]}, "tools/call")

    run(main())


# --- how a call ends --------------------------------------------------------------------------------


@duty("tools.timeout")
def test_a_call_has_a_deadline_and_the_server_is_told_when_it_passes() -> None:
    async def main() -> None:
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {"timeout_s": 0.02}),
            ({"timeout_s": 0.02}, {}),
            ({"limits": Limits(call_timeout_s=0.02)}, {}),
            ({"limits": Limits(call_total_s=9.0), "timeout_s": 0.02}, {}),
        ]
        for options, call in cases:
            async with joined(small(), **options) as (client, wire):
                with pytest.raises(DeadlineExceeded) as late:
                    await client.call_tool("hang", **call)
                assert (late.value.method, late.value.timeout_s) == ("tools/call", 0.02)
                assert isinstance(late.value, TimeoutError)
                (told,) = wire.sent("notifications/cancelled")
                assert told["params"]["requestId"] == wire.sent("tools/call")[0]["id"]

    run(main())


@duty("tools.timeout")
def test_every_request_has_a_deadline_by_default() -> None:
    limits = Client(small())._limits
    assert 0 < limits.call_timeout_s < limits.call_total_s
    longer = Client(small(), timeout_s=7_200)._limits
    assert (longer.call_timeout_s, longer.call_total_s) == (7_200, 7_200)


def test_an_answer_after_the_deadline_is_dropped_and_the_client_goes_on() -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            with pytest.raises(DeadlineExceeded):
                await client.call_tool("t", timeout_s=0.02)
            asked = await peer.expect("tools/call")
            await peer.expect("notifications/cancelled")
            peer.answer(asked, {"content": []})
            again = asyncio.ensure_future(client.ping())
            peer.answer(await peer.expect("ping"), {})
            await again

    run(main())


def test_cancelling_a_wait_that_did_not_begin_sends_nothing() -> None:
    async def main() -> None:
        async with joined(small()) as (client, wire):
            call = asyncio.ensure_future(client.call_tool("add", {"a": 1, "b": 2}))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert not wire.sent("tools/call")

    run(main())


@duty("shutdown.by-transport")
@pytest.mark.parametrize("ends", ["client", "server"])
def test_calls_under_way_end_with_a_typed_error_when_the_connection_does(ends: str) -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            calls = [asyncio.ensure_future(client.call_tool("t")) for _ in range(3)]
            await peer.expect("tools/call")
            await (client.aclose() if ends == "client" else peer.aclose())
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, LinkClosed)
                assert error.sent is not False
            assert not client.is_connected
            with pytest.raises((WrongState, LinkError)):
                await client.ping()

    run(main())


def test_a_client_is_opened_once_at_a_time_and_may_be_opened_again() -> None:
    async def main() -> None:
        client = Client(small())
        with pytest.raises(WrongState):
            await client.list_tools()
        for _ in range(2):
            async with client:
                with pytest.raises(WrongState):
                    await client.connect()
                assert (await client.call_tool("add", {"a": 1, "b": 1})).data == 2
            await client.aclose()
            with pytest.raises(WrongState):
                _ = client.server_info

    run(main())


def test_a_server_that_never_answers_the_hello_meets_the_deadline() -> None:
    async def main() -> None:
        connector = ScriptedConnector()
        with pytest.raises(DeadlineExceeded) as late:
            await Client(connector, connect_timeout_s=0.02).connect()
        assert late.value.method == "initialize"
        await (await connector.peer).closed.wait()

    run(main())


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        ("list_tools", "tools"),
        ("list_resources", "resources"),
        ("list_resource_templates", "resources"),
        ("list_prompts", "prompts"),
    ],
)
def test_nothing_is_asked_of_a_server_that_does_not_offer_it(method: str, needs: str) -> None:
    async def main() -> None:
        async with scripted_server({}) as (client, peer):
            with pytest.raises(NotNegotiated) as refused:
                await getattr(client, method)()
            assert refused.value.feature == needs
            with pytest.raises(NotNegotiated):
                await client.set_logging_level("info")
            assert peer.waiting == 0

    run(main())


# --- _meta ------------------------------------------------------------------------------------------


@duty("meta.request-passed", "meta.reserved", "meta.kept")
def test_meta_of_requests_and_results_passes_untouched() -> None:
    async def main() -> None:
        meta = {"example.com/trace": {"deep": [1, None]}, "io.modelcontextprotocol/x": "?"}
        async with scripted_server(EVERYTHING) as (client, peer):
            senders: list[Callable[[], Coroutine[Any, Any, Any]]] = [
                lambda: client.call_tool("t", meta=meta),
                lambda: client.read_resource("a:b", meta=meta),
                lambda: client.get_prompt("p", meta=meta),
            ]
            for send in senders:
                asking = asyncio.ensure_future(send())
                asked = await peer.receive()
                assert asked["params"]["_meta"] == meta
                peer.answer(asked, {"content": [], "contents": [], "messages": [], "_meta": meta})
                assert (await asking).meta == meta

    run(main())


@duty("meta.request-passed", "meta.key-names")
def test_of_our_own_only_the_progress_token_is_written_beside_the_callers_keys() -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            call = asyncio.ensure_future(
                client.call_tool("t", meta={"k": 1}, on_progress=lambda update: None)
            )
            asked = await peer.expect("tools/call")
            assert set(asked["params"]["_meta"]) == {"k", "progressToken"}
            peer.answer(asked, {"content": []})
            await call

    run(main())
