"""What a client hears while it is connected, and how its callbacks are called."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dragoman import ElicitResult
from dragoman.client import callbacks as callbacks_module
from dragoman.client.callbacks import Callbacks
from dragoman.protocol.events import Fault, FaultKind
from tests.requirements.duties import duty
from tests.scripted import scripted_server
from tests.support import run

EVERYTHING: dict[str, Any] = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "prompts": {"listChanged": True},
    "logging": {},
}


async def settled(client: Any, peer: Any) -> None:
    """Everything the peer said so far was heard."""
    ping = asyncio.ensure_future(client.ping())
    while (message := await peer.receive()).get("method") != "ping":
        pass
    peer.answer(message, {})
    await ping
    await client._callbacks.settle()


@pytest.mark.parametrize("is_async", [True, False])
def test_every_kind_of_news_has_a_callback_which_may_wait(is_async: bool) -> None:
    async def main() -> None:
        heard: list[Any] = []

        def listener(name: str) -> Any:
            def hear(*args: Any) -> None:
                heard.append((name, *args))

            async def hear_later(*args: Any) -> None:
                await asyncio.sleep(0)
                hear(*args)

            return hear_later if is_async else hear

        async with scripted_server(
            EVERYTHING,
            on_log=listener("log"),
            on_tools_changed=listener("tools"),
            on_resources_changed=listener("resources"),
            on_prompts_changed=listener("prompts"),
            on_resource_updated=listener("updated"),
        ) as (client, peer):
            peer.notify("notifications/tools/list_changed")
            peer.notify("notifications/message", {"level": "info", "data": {"a": 1}})
            peer.notify("notifications/resources/updated", {"uri": "note:1"})
            peer.notify("notifications/prompts/list_changed")
            peer.notify("notifications/resources/list_changed", {"_meta": {"k": 1}})
            await settled(client, peer)
        names = [one[0] for one in heard]
        assert names == ["tools", "log", "updated", "prompts", "resources"]
        assert (heard[1][1].data, heard[2][1]) == ({"a": 1}, "note:1")

    run(main())


@duty("resources.sub-resource", "resources.unsubscribe")
def test_an_update_of_a_part_of_a_subscribed_resource_comes_with_its_own_uri() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with scripted_server(EVERYTHING, on_resource_updated=heard.append) as (client, peer):
            asking = asyncio.ensure_future(client.subscribe_resource("file:///folder"))
            asked = await peer.expect("resources/subscribe")
            assert asked["params"] == {"uri": "file:///folder"}
            peer.answer(asked, {})
            await asking
            for uri in ("file:///folder", "file:///folder/a/b.txt"):
                peer.notify("notifications/resources/updated", {"uri": uri})
            await settled(client, peer)
            asking = asyncio.ensure_future(client.unsubscribe_resource("file:///folder"))
            asked = await peer.expect("resources/unsubscribe")
            assert asked["params"] == {"uri": "file:///folder"}
            peer.answer(asked, {})
            await asking
        assert heard == ["file:///folder", "file:///folder/a/b.txt"]

    run(main())


def test_a_callback_that_fails_is_logged_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        heard: list[str] = []

        async def broken_later(message: Any) -> None:
            raise RuntimeError("broken later")

        def broken(uri: str) -> None:
            heard.append(uri)
            raise RuntimeError("broken at once")

        async with scripted_server(EVERYTHING, on_log=broken_later, on_resource_updated=broken) as (
            client,
            peer,
        ):
            for _ in range(2):
                peer.notify("notifications/message", {"level": "info", "data": 1})
                peer.notify("notifications/resources/updated", {"uri": "a:b"})
            await settled(client, peer)
        assert heard == ["a:b", "a:b"]

    run(main())
    assert caplog.text.count("broken later") >= 2
    assert caplog.text.count("broken at once") >= 2


@duty("logging.validated")
@pytest.mark.parametrize(
    "params", [None, {}, {"level": "loud", "data": 1}, {"level": "info"}, {"data": 1}]
)
def test_a_malformed_log_message_harms_nothing(params: Any) -> None:
    async def main() -> None:
        heard: list[Any] = []
        faults: list[Fault] = []
        async with scripted_server(EVERYTHING, on_log=heard.append, on_fault=faults.append) as (
            client,
            peer,
        ):
            peer.notify("notifications/message", params)
            await settled(client, peer)
        assert heard == []
        assert [fault.kind for fault in faults] == [FaultKind.BAD_PARAMS]

    run(main())


def test_junk_is_handed_over_and_everything_else_goes_on() -> None:
    async def main() -> None:
        junk: list[bytes] = []
        faults: list[Fault] = []
        async with scripted_server(EVERYTHING, on_junk=junk.append, on_fault=faults.append) as (
            client,
            peer,
        ):
            for line in (b"Listening on port 80", b"{", b'"text"', b"\xff"):
                peer.send(line)
            peer.send({"jsonrpc": "2.0", "id": 99, "result": {}})
            peer.notify("notifications/progress", {"progressToken": "none", "progress": 1})
            peer.notify("notifications/novel")
            peer.request(1, "novel/method")
            await settled(client, peer)
        assert junk[0] == b"Listening on port 80"
        assert len(junk) == 4
        kinds = {fault.kind for fault in faults}
        assert {FaultKind.STRAY_ANSWER, FaultKind.STRAY_PROGRESS, FaultKind.UNKNOWN_METHOD} <= kinds

    run(main())


def test_faults_of_the_server_are_logged_when_nobody_listens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with scripted_server(EVERYTHING) as (client, peer):
            peer.send(b"garbage with a secret")
            peer.notify("notifications/message", {"level": "none", "data": "a secret"})
            await settled(client, peer)

    with caplog.at_level(logging.INFO, "dragoman"):
        run(main())
    assert caplog.text.count("broke the protocol") == 2
    assert "a secret" not in caplog.text


@duty("elicitation.complete.unknown", "elicitation.url.id-opaque")
def test_a_completion_of_an_unknown_or_finished_elicitation_is_ignored() -> None:
    async def main() -> None:
        heard: list[str] = []
        ident = "  id {with} é\n"
        async with scripted_server(
            EVERYTHING,
            elicitation_handler=lambda params: ElicitResult(action="accept"),
            elicitation_url=True,
            on_elicitation_complete=heard.append,
        ) as (client, peer):
            done = "notifications/elicitation/complete"
            peer.notify(done, {"elicitationId": "never"})
            peer.notify(done, {})
            params = {
                "mode": "url",
                "message": "m",
                "url": "https://a.example",
                "elicitationId": ident,
            }
            peer.request(1, "elicitation/create", params)
            assert (await peer.receive())["result"] == {"action": "accept"}
            peer.notify(done, {"elicitationId": ident})
            peer.notify(done, {"elicitationId": ident})
            await settled(client, peer)
        assert heard == [ident]

    run(main())


@duty("elicitation.complete.unknown", "elicitation.required.list")
@pytest.mark.parametrize(
    ("data", "known"),
    [
        ({"elicitations": [{"elicitationId": "i", "mode": "url"}]}, True),
        ({"elicitations": [{"elicitationId": 3}, 4, None]}, False),
        ({"elicitations": "i"}, False),
        ({}, False),
        ("i", False),
        (None, False),
    ],
)
def test_elicitations_that_an_error_lists_are_known_afterwards(data: Any, known: bool) -> None:
    async def main() -> None:
        heard: list[str] = []
        async with scripted_server(
            EVERYTHING,
            elicitation_handler=lambda params: None,
            elicitation_url=True,
            on_elicitation_complete=heard.append,
        ) as (client, peer):
            call = asyncio.ensure_future(client.call_tool("t"))
            asked = await peer.expect("tools/call")
            error = {"code": -32042, "message": "first", "data": data}
            peer.send({"jsonrpc": "2.0", "id": asked["id"], "error": error})
            assert (await asyncio.wait([call]))[0]
            call.exception()
            peer.notify("notifications/elicitation/complete", {"elicitationId": "i"})
            await settled(client, peer)
        assert heard == (["i"] if known else [])

    run(main())


# --- the queue of callbacks itself --------------------------------------------------------------------


def test_async_callbacks_run_one_after_the_other_in_order() -> None:
    async def main() -> None:
        queue, order = Callbacks(), []

        async def hear(n: int) -> None:
            order.append(f"begin {n}")
            await asyncio.sleep(0)
            order.append(f"end {n}")

        for n in range(3):
            queue.call(hear, n)
        queue.call(None, "nobody")
        await queue.settle()
        assert order == [f"{step} {n}" for n in range(3) for step in ("begin", "end")]
        await queue.settle()
        await queue.aclose()

    run(main())


def test_a_callback_may_itself_wait_for_what_it_waits_in() -> None:
    async def main() -> None:
        queue, order = Callbacks(), []

        async def again() -> None:
            await queue.settle()
            order.append("settled")
            await queue.aclose()
            order.append("closed")

        queue.call(again)
        await queue.settle()
        assert order == ["settled", "closed"]

    run(main())


def test_callbacks_that_wait_too_long_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(callbacks_module, "MAX_WAITING", 2)

    async def main() -> None:
        queue, heard = Callbacks(), []

        async def hear(n: int) -> None:
            heard.append(n)

        for n in range(5):
            queue.call(hear, n)
        await queue.settle()
        assert heard == [0, 1]
        await queue.aclose()

    run(main())
    assert "3 callbacks were dropped" in caplog.text


def test_closing_drops_what_waits_and_stops_what_runs() -> None:
    async def main() -> None:
        queue = Callbacks()
        stopped = asyncio.Event()
        started = asyncio.Event()

        async def hang() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        queue.call(hang)
        queue.call(hang)
        await started.wait()
        await queue.aclose()
        assert stopped.is_set()

    run(main())


def test_an_answer_waits_for_the_callbacks_before_it_and_for_no_later_ones() -> None:
    async def main() -> None:
        calls = Callbacks()
        ran: list[int] = []
        gate = asyncio.Event()

        async def note(number: int) -> None:
            if number:
                await gate.wait()
            ran.append(number)

        calls.call(note, 0)
        settling = asyncio.ensure_future(calls.settle())
        await asyncio.sleep(0)
        calls.call(note, 1)
        await settling
        assert ran == [0]
        gate.set()
        await calls.settle()
        assert ran == [0, 1]

    run(main())


def test_a_task_that_a_callback_started_does_not_wait_for_that_callback() -> None:
    async def main() -> None:
        calls = Callbacks()
        ended: list[str] = []

        async def nested() -> None:
            await asyncio.gather(calls.settle())
            ended.append("nested")

        calls.call(nested)
        await calls.settle()
        assert ended == ["nested"]

    run(main())


def test_a_callback_that_is_cancelled_by_what_it_waits_for_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        calls = Callbacks()
        ran: list[str] = []
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()

        async def waits() -> None:
            await gone

        async def after() -> None:
            ran.append("after")

        calls.call(waits)
        calls.call(after)
        await calls.settle()
        assert ran == ["after"]

    run(main())
    assert "cancelled" in caplog.text


def test_whoever_waits_for_callbacks_is_let_go_when_they_are_dropped() -> None:
    async def main() -> None:
        calls = Callbacks()

        async def never() -> None:
            await asyncio.get_running_loop().create_future()

        calls.call(never)
        settling = asyncio.ensure_future(calls.settle())
        await asyncio.sleep(0)
        await calls.aclose()
        await settling

    run(main())


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="needs Python 3.12")
def test_callbacks_go_on_in_a_loop_whose_tasks_begin_at_once() -> None:
    async def main() -> None:
        factory: Any = asyncio.__dict__["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(factory)
        calls = Callbacks()
        ran: list[int] = []

        async def note(number: int) -> None:
            ran.append(number)

        calls.call(note, 1)
        await asyncio.sleep(0)
        calls.call(note, 2)
        await calls.settle()
        assert ran == [1, 2]

    run(main())
