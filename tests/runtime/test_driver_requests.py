"""The peer's requests through a driver: handlers, their failures, their cancellation, their end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import types
from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import pytest

from dragoman.errors import (
    InvalidParams,
    LinkClosed,
    RemoteFailure,
    RequestError,
    ToolError,
)
from dragoman.jsonrpc.frame import LOCAL
from dragoman.model.base import NoParams, Record
from dragoman.model.content import ResourceLink, TextContent
from dragoman.model.methods import Side
from dragoman.model.tools import CallToolResult, ListToolsResult, Tool
from dragoman.protocol.calls import Exchange
from dragoman.protocol.events import CancelArrived, Degraded, Overdue
from dragoman.protocol.limits import Limits
from dragoman.runtime import driver as driver_module
from dragoman.runtime.driver import Driver, Encoded, report_failure
from dragoman.runtime.steps import in_own_context
from dragoman.testing import ManualClock
from tests.protocol.aids import PARAMS, RESULTS, on_the_wire
from tests.requirements.duties import duty
from tests.runtime.aids import (
    Handlers,
    connected,
    facing_script,
    give_result,
    run,
    tool,
    turns,
    wait_for_ever,
)

CALL = {"name": "add", "arguments": {"a": 1}}


def raising(error: BaseException) -> Any:
    async def handle(driver: Driver, exchange: Exchange, params: Record) -> Record:
        raise error

    return handle


# --- answers and failures -------------------------------------------------------------------------


def test_what_a_handler_returns_is_the_answer() -> None:
    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=give_result)) as (_, peer):
            peer.request("x", "tools/call", CALL)
            reply = await peer.receive()
            assert reply["id"] == "x"
            assert reply["result"]["content"] == [{"type": "text", "text": "3"}]

    run(main())


def test_what_a_handler_refuses_with_is_what_the_peer_is_told() -> None:
    async def main() -> None:
        error = InvalidParams("no such city", data={"city": "Atlantis"})
        async with facing_script(Side.SERVER, Handlers(tools_call=raising(error))) as (_, peer):
            peer.request(1, "tools/call", CALL)
            reply = await peer.receive()
            assert reply["error"] == {
                "code": -32602,
                "message": "no such city",
                "data": {"city": "Atlantis"},
            }

    run(main())


class Strange(BaseException):
    """Neither an Exception nor anything asyncio knows."""


FAILURES = {
    "an exception": ValueError("my password is 1234"),
    "an exception of ours": ToolError("my password is 1234"),
    "a base exception": Strange("my password is 1234"),
    "an exit": SystemExit("my password is 1234"),
    "an interrupt": KeyboardInterrupt("my password is 1234"),
    "the end of a generator": GeneratorExit("my password is 1234"),
    "an asynchronous end": StopAsyncIteration("my password is 1234"),
    "the end of an iterator": StopIteration("my password is 1234"),
    "a failed assertion": AssertionError("my password is 1234"),
    "no memory": MemoryError("my password is 1234"),
    "a group": ExceptionGroup("my password is 1234", [ValueError("x")]),
}


@duty(
    "jsonrpc.error.internal",
    "prompts.internal-error",
    "resources.internal-error",
    "logging.internal-error",
    "completion.internal-error",
    "sampling.sensitive",
    "trust.privacy",
)
@pytest.mark.parametrize(
    "method",
    ["tools/call", "prompts/get", "resources/read", "logging/setLevel", "completion/complete"],
)
@pytest.mark.parametrize("how", FAILURES)
def test_a_handler_that_fails_in_any_way_is_answered_with_an_id_and_logged_in_full(
    how: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        handlers = Handlers(ping=give_result)
        handlers.by_method[method] = raising(FAILURES[how])
        async with facing_script(Side.SERVER, handlers) as (driver, peer):
            peer.request(1, method, on_the_wire(method))
            reply = await peer.receive()
            assert reply["error"]["code"] == -32603
            text = reply["error"]["message"]
            assert "password" not in text
            assert "data" not in reply["error"]
            error_id = text.split("error id ")[1].rstrip(")")
            assert error_id in caplog.text
            # The full story stands in the log, for whoever may read it here.
            assert any(record.exc_info for record in caplog.records)
            # The server goes on.
            peer.request(2, "ping")
            assert (await peer.receive())["id"] == 2
            assert driver.engine.exchanges == {}

    run(main())


def test_error_ids_are_never_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def fail_once() -> str:
        try:
            raise ValueError("x")
        except ValueError:
            return report_failure(logging.getLogger("dragoman.test"), "it")

    assert len({fail_once() for _ in range(50)}) == 50


def test_a_handler_that_raises_cancelled_error_by_itself_is_answered() -> None:
    async def main() -> None:
        handlers = Handlers(tools_call=raising(asyncio.CancelledError()), tools_list=give_result)
        async with facing_script(Side.SERVER, handlers) as (_, peer):
            peer.request(1, "tools/call", CALL)
            assert (await peer.receive())["error"]["code"] == -32603
            peer.request(2, "tools/list")
            assert "result" in await peer.receive()

    run(main())


def test_a_handler_that_cancels_its_own_task_is_answered_and_others_go_on() -> None:
    async def cancel_self(driver: Driver, exchange: Exchange, params: Record) -> Record:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        raise AssertionError

    async def main() -> None:
        handlers = Handlers(tools_call=cancel_self, tools_list=give_result)
        async with facing_script(Side.SERVER, handlers) as (_, peer):
            for ident in range(6):
                peer.request(ident, "tools/call" if ident % 2 else "tools/list", CALL)
            replies = [await peer.receive() for _ in range(6)]
            assert {r["id"]: "result" in r for r in replies} == {
                ident: ident % 2 == 0 for ident in range(6)
            }

    run(main())


def test_a_result_that_is_no_json_is_answered_with_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def bad(driver: Driver, exchange: Exchange, params: Record) -> Record:
        return CallToolResult(content=[TextContent(text="\ud800")])

    async def bad_encoded(driver: Driver, exchange: Exchange, params: Record) -> Encoded:
        return Encoded(ListToolsResult(tools=[Tool(name="\ud800", input_schema={})]))

    async def main() -> None:
        handlers = Handlers(tools_call=bad, tools_list=bad_encoded)
        async with facing_script(Side.SERVER, handlers) as (driver, peer):
            peer.request(1, "tools/call", CALL)
            assert (await peer.receive())["error"]["code"] == -32603
            peer.request(2, "tools/list")
            assert (await peer.receive())["error"]["code"] == -32603
            assert peer.waiting == 0
            assert driver.engine.exchanges == {}

    run(main())
    assert "tools/call failed" in caplog.text


def test_a_result_is_written_once_for_each_revision() -> None:
    link = ResourceLink(uri="note://1", name="n")
    result = Encoded(CallToolResult(content=[link]))

    async def give(driver: Driver, exchange: Exchange, params: Record) -> Encoded:
        return result

    async def ask(revision: str) -> tuple[Any, list[Degraded]]:
        handlers = Handlers(tools_call=give)
        async with facing_script(Side.SERVER, handlers, revision=revision) as (_, peer):
            handlers.events.clear()
            for ident in (1, 2):
                peer.request(ident, "tools/call", CALL)
            first, second = await peer.receive(), await peer.receive()
            assert first["result"] == second["result"]
            return first["result"]["content"][0]["type"], handlers.of(Degraded)

    async def main() -> None:
        assert await ask("2025-11-25") == ("resource_link", [])
        raw = result.written["2025-11-25"][0]
        kind, losses = await ask("2024-11-05")
        assert kind == "text"
        assert [loss.method for loss in losses] == ["tools/call"] * 2, "each client's is reported"
        assert set(result.written) == {"2025-11-25", "2024-11-05"}
        assert result.written["2025-11-25"][0] is raw
        assert isinstance(result.record, CallToolResult)

    run(main())


# --- many at once ---------------------------------------------------------------------------------


def test_a_handler_that_waits_holds_nobody_else_up() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            if tool(params) == "slow":
                await gate.wait()
            return RESULTS["tools/call"]

        async with facing_script(Side.SERVER, Handlers(tools_call=call)) as (_, peer):
            # In one write: they arrive as one batch of frames.
            for ident in range(20):
                peer.request(ident, "tools/call", {"name": "slow" if ident % 3 == 0 else "quick"})
            quick = [(await peer.receive())["id"] for _ in range(13)]
            assert sorted(quick) == [ident for ident in range(20) if ident % 3]
            assert peer.waiting == 0
            gate.set()
            slow = [(await peer.receive())["id"] for _ in range(7)]
            assert sorted(slow) == [ident for ident in range(20) if ident % 3 == 0]

    run(main())


@duty("ping.answered")
def test_a_ping_is_answered_while_every_handler_is_busy() -> None:
    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=wait_for_ever)) as (_, peer):
            for ident in range(50):
                peer.request(ident, "tools/call", CALL)
            peer.request("ping", "ping")
            assert (await peer.receive())["id"] == "ping"

    run(main())


@pytest.mark.long
def test_ten_thousand_requests_can_be_under_way_and_all_are_answered() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        waiting = 0

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            nonlocal waiting
            waiting += 1
            await gate.wait()
            return RESULTS["tools/call"]

        async with connected(Handlers(tools_call=call)) as (client, server):
            calls = [
                asyncio.ensure_future(client.request("tools/call", PARAMS["tools/call"]))
                for _ in range(10_000)
            ]
            while waiting < 10_000:
                await asyncio.sleep(0)
            assert len(server.engine.exchanges) == len(client.engine.calls) == 10_000
            gate.set()
            results = await asyncio.gather(*calls)
            assert all(result == RESULTS["tools/call"] for result in results)
            assert (server.engine.exchanges, client.engine.calls) == ({}, {})

    run(main())


def test_more_requests_than_one_turn_takes_leave_room_for_others() -> None:
    async def main() -> None:
        turned = 0

        def turn() -> None:
            nonlocal turned
            turned += 1
            asyncio.get_running_loop().call_soon(turn)

        seen: list[int] = []

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            seen.append(turned)
            return RESULTS["tools/call"]

        async with facing_script(Side.SERVER, Handlers(tools_call=call)) as (_, peer):
            count = driver_module.MAX_IN_A_ROW * 3
            for ident in range(count):
                peer.request(ident, "tools/call", CALL)
            turn()
            for _ in range(count):
                await peer.receive()
            # A second task may help with the rest of the batch; more do not.
            assert max(Counter(seen).values()) <= 2 * driver_module.MAX_IN_A_ROW

    # The loop's own chain of turns ends with the loop.
    run(main())


def test_what_one_request_sets_in_its_context_is_not_seen_by_the_next() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
        seen.append(variable.get())
        variable.set(str(exchange.id))
        await asyncio.sleep(0)
        assert variable.get() == str(exchange.id)
        return RESULTS["tools/call"]

    async def call_at_once(driver: Driver, exchange: Exchange, params: Record) -> Record:
        seen.append(variable.get())
        variable.set(str(exchange.id))
        return RESULTS["tools/list"]

    async def main() -> None:
        handlers = Handlers(tools_call=call, tools_list=call_at_once)
        async with facing_script(Side.SERVER, handlers) as (_, peer):
            for ident in range(10):
                peer.request(ident, "tools/call" if ident % 2 else "tools/list", CALL)
            for _ in range(10):
                await peer.receive()
            assert seen == ["unset"] * 10
            assert variable.get() == "unset"

    run(main())


def test_a_handler_may_use_task_groups_and_timeouts() -> None:
    async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        with pytest.raises(ExceptionGroup):
            await fail_in_a_group()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0, "done"))
        return CallToolResult(content=[TextContent(text=task.result())])

    async def fail() -> None:
        raise ValueError

    async def fail_in_a_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(60)

    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=call)) as (_, peer):
            for ident in (1, 2, 3):
                peer.request(ident, "tools/call", CALL)
            for _ in range(3):
                assert (await peer.receive())["result"]["content"][0]["text"] == "done"

    run(main())


def test_a_handler_may_ask_back_while_it_answers() -> None:
    async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
        await driver.request("roots/list", NoParams())
        return RESULTS["tools/call"]

    async def main() -> None:
        at_client = Handlers(roots_list=give_result)
        async with connected(Handlers(tools_call=call), at_client) as (client, _):
            answers = [client.request("tools/call", PARAMS["tools/call"]) for _ in range(20)]
            assert await asyncio.gather(*answers) == [RESULTS["tools/call"]] * 20

    run(main())


# --- cancellation ---------------------------------------------------------------------------------


@duty("calls.cancel.stops", "calls.cancel.frees", "calls.cancel.no-answer")
def test_a_cancellation_of_the_peer_cancels_the_handler_and_leaves_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "dragoman.runtime")
    stopped: list[Any] = []

    async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
        try:
            return await wait_for_ever(driver, exchange, params)
        finally:
            stopped.append(exchange.id)

    async def main() -> None:
        handlers = Handlers(tools_call=call)
        async with facing_script(Side.SERVER, handlers) as (driver, peer):
            before = asyncio.all_tasks()
            for ident in (1, 2, 3):
                peer.request(ident, "tools/call", CALL)
            await turns()
            assert len(asyncio.all_tasks() - before) == 3
            peer.notify("notifications/cancelled", {"requestId": 2, "reason": "bored"})
            await turns()
            assert stopped == [2]
            assert len(asyncio.all_tasks() - before) == 2
            assert set(driver.engine.exchanges) == {1, 3}
            assert [event.reason for event in handlers.of(CancelArrived)] == ["bored"]
            assert peer.waiting == 0

    run(main())
    assert sorted(stopped) == [1, 2, 3]


@duty("calls.cancel.reason-logged")
def test_the_reason_of_a_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "dragoman.runtime")

    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=wait_for_ever)) as (_, peer):
            peer.request(1, "tools/call", CALL)
            await turns()
            peer.notify("notifications/cancelled", {"requestId": 1, "reason": "the user left"})
            await turns()

    run(main())
    assert "the user left" in caplog.text


def test_a_request_that_is_cancelled_before_it_began_is_not_run() -> None:
    async def main() -> None:
        ran: list[Any] = []

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            ran.append(exchange.id)
            return RESULTS["tools/call"]

        async with facing_script(Side.SERVER, Handlers(tools_call=call)) as (driver, peer):
            before = asyncio.all_tasks()
            # All in one turn: request and cancellation come out of the same read.
            peer.request(1, "tools/call", CALL)
            peer.notify("notifications/cancelled", {"requestId": 1})
            peer.request(2, "tools/call", CALL)
            assert (await peer.receive())["id"] == 2
            await turns()
            assert ran == [2]
            assert peer.waiting == 0
            assert driver.engine.exchanges == {}
            assert asyncio.all_tasks() - before == set()

    run(main())


def test_a_handler_that_swallows_its_cancellation_is_still_not_answered() -> None:
    async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
        with suppress(asyncio.CancelledError):
            await wait_for_ever(driver, exchange, params)
        return RESULTS["tools/call"]

    async def main() -> None:
        handlers = Handlers(tools_call=call, tools_list=give_result)
        async with facing_script(Side.SERVER, handlers) as (_, peer):
            peer.request(1, "tools/call", CALL)
            await turns()
            peer.notify("notifications/cancelled", {"requestId": 1})
            peer.request(2, "tools/list")
            peer.request(3, "tools/list")
            assert [(await peer.receive())["id"] for _ in range(2)] == [2, 3]
            await turns()
            assert peer.waiting == 0

    run(main())


def test_requests_behind_a_cancelled_one_are_served() -> None:
    async def main() -> None:
        handlers = Handlers(tools_call=wait_for_ever, tools_list=give_result)
        async with facing_script(Side.SERVER, handlers) as (_, peer):
            peer.request(1, "tools/call", CALL)
            for ident in range(2, 12):
                peer.request(ident, "tools/list")
            peer.notify("notifications/cancelled", {"requestId": 1})
            assert [(await peer.receive())["id"] for _ in range(10)] == list(range(2, 12))

    run(main())


def test_a_request_that_comes_with_the_cancellation_of_another_is_served() -> None:
    async def main() -> None:
        handlers = Handlers(tools_call=wait_for_ever, tools_list=give_result)
        async with facing_script(Side.SERVER, handlers) as (_, peer):
            peer.request(1, "tools/call", CALL)
            await turns()
            peer.notify("notifications/cancelled", {"requestId": 1})
            peer.request(2, "tools/list")
            assert (await peer.receive())["id"] == 2

    run(main())


def test_a_request_that_arrives_while_a_cancelled_handler_ends_is_served_once() -> None:
    async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
        with suppress(asyncio.CancelledError):
            await wait_for_ever(driver, exchange, params)
        await asyncio.sleep(0)
        driver.frames_received([b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}'], LOCAL)
        return RESULTS["tools/call"]

    async def main() -> None:
        handlers = Handlers(tools_call=call, tools_list=give_result)
        async with facing_script(Side.SERVER, handlers) as (_, peer):
            peer.request(1, "tools/call", CALL)
            await turns()
            peer.notify("notifications/cancelled", {"requestId": 1})
            assert (await peer.receive())["id"] == 2
            await turns()
            assert peer.waiting == 0

    run(main())


def test_a_handler_that_is_thrown_away_with_its_loop_is_closed_in_its_own_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    @types.coroutine
    def pause() -> Generator[None, None, None]:
        yield

    async def handler() -> None:
        variable.set("mine")
        try:
            await pause()
        finally:
            seen.append(variable.get())

    wrapped = in_own_context(handler())
    wrapped.send(None)
    wrapped.close()
    assert seen == ["mine"]
    assert variable.get() == "unset"


@duty("trust.practices")
def test_a_handler_that_never_returns_meets_its_deadline() -> None:
    async def main() -> None:
        clock = ManualClock()
        handlers = Handlers(tools_call=wait_for_ever)
        limits = Limits(exchange_timeout_s=30.0)
        async with facing_script(Side.SERVER, handlers, clock=clock, limits=limits) as (
            driver,
            peer,
        ):
            before = asyncio.all_tasks()
            peer.request(1, "tools/call", CALL)
            await turns()
            clock.advance(29.0)
            await turns()
            assert peer.waiting == 0
            clock.advance(1.0)
            reply = await peer.receive()
            assert (reply["id"], reply["error"]["code"]) == (1, -32603)
            await turns()
            assert asyncio.all_tasks() - before == set()
            assert len(handlers.of(Overdue)) == 1
            assert driver.engine.exchanges == {}

    run(main())


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", Side)
def test_closing_cancels_every_handler_and_leaves_no_task(side: Side) -> None:
    ended: list[Any] = []

    async def handle(driver: Driver, exchange: Exchange, params: Record) -> Record:
        try:
            return await wait_for_ever(driver, exchange, params)
        finally:
            await asyncio.sleep(0)
            ended.append(exchange.id)

    async def main() -> None:
        handlers = Handlers(tools_list=handle, roots_list=handle)
        before = asyncio.all_tasks()
        async with facing_script(side, handlers) as (driver, peer):
            for ident in range(10):
                peer.request(ident, "roots/list" if side is Side.CLIENT else "tools/list")
            await turns()
            assert len(asyncio.all_tasks() - before) == 10
            await driver.aclose()
            assert sorted(ended) == list(range(10))
            assert asyncio.all_tasks() - before == set()

    run(main())


def test_closing_with_requests_that_have_not_begun_runs_none_of_them() -> None:
    async def main() -> None:
        ran: list[Any] = []

        async def handle(driver: Driver, exchange: Exchange, params: Record) -> Record:
            ran.append(exchange.id)
            return RESULTS["tools/list"]

        before = asyncio.all_tasks()
        async with facing_script(Side.SERVER, Handlers(tools_list=handle)) as (driver, peer):
            await turns()
            frames = [
                b'{"jsonrpc":"2.0","id":%d,"method":"tools/list"}' % ident for ident in range(5)
            ]
            driver.frames_received(frames, LOCAL)
            await driver.aclose()
            assert asyncio.all_tasks() - before == set()
            await turns()
            assert ran == []
            assert peer.waiting == 0

    run(main())


def test_a_handler_may_close_its_own_connection() -> None:
    async def close(driver: Driver, exchange: Exchange, params: Record) -> Record:
        await driver.aclose()
        return RESULTS["tools/call"]

    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=close)) as (driver, peer):
            peer.request(1, "tools/call", CALL)
            await peer.closed.wait()
            assert await driver.closed is None
            await turns()

    run(main())


def test_a_handler_that_ignores_its_cancellation_is_left_behind_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "HANDLER_GRACE_S", 0.01)

    async def main() -> None:
        release = asyncio.Event()

        async def stubborn(driver: Driver, exchange: Exchange, params: Record) -> Record:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return RESULTS["tools/call"]

        async with facing_script(Side.SERVER, Handlers(tools_call=stubborn)) as (driver, peer):
            peer.request(1, "tools/call", CALL)
            await turns()
            await driver.aclose()
            assert "ignores its cancellation" in caplog.text
            release.set()
            await turns()
            assert peer.waiting == 0

    run(main())


def test_a_server_finishes_what_was_asked_when_its_client_ends_first() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        outcome: list[Any] = []

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            await gate.wait()
            with pytest.raises(LinkClosed):
                await driver.request("roots/list", NoParams())
            outcome.append(exchange.id)
            return RESULTS["tools/call"]

        clock = ManualClock()
        async with facing_script(Side.SERVER, Handlers(tools_call=call), clock=clock) as (
            driver,
            peer,
        ):
            peer.request(1, "tools/call", CALL)
            await turns()
            await peer.aclose()
            await turns()
            assert not driver.closed.done()
            gate.set()
            assert await driver.closed is None
            assert outcome == [1]

    run(main())


def test_what_a_handler_waits_for_from_its_client_ends_when_the_client_does() -> None:
    async def main() -> None:
        outcome: list[Exception] = []

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            try:
                await driver.request("roots/list", NoParams())
            except LinkClosed as error:
                outcome.append(error)
            return RESULTS["tools/call"]

        clock = ManualClock()
        async with facing_script(Side.SERVER, Handlers(tools_call=call), clock=clock) as (
            driver,
            peer,
        ):
            peer.request(1, "tools/call", CALL)
            await peer.expect("roots/list")
            await peer.aclose()
            assert await driver.closed is None
            assert len(outcome) == 1

    run(main())


def test_a_server_waits_for_its_handlers_only_so_long_once_the_client_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dragoman.runtime")

    async def main() -> None:
        clock = ManualClock()
        handlers = Handlers(tools_call=wait_for_ever)
        async with facing_script(Side.SERVER, handlers, clock=clock) as (driver, peer):
            for ident in (1, 2):
                peer.request(ident, "tools/call", CALL)
            await turns()
            await peer.aclose()
            await turns()
            assert not driver.closed.done()
            clock.advance(driver_module.FINISH_S)
            assert await driver.closed is None
            await turns()

    run(main())
    assert "2 requests were not finished in time" in caplog.text


def test_a_server_that_is_closed_while_it_finishes_ends_at_once() -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        clock = ManualClock()
        handlers = Handlers(tools_call=wait_for_ever)
        async with facing_script(Side.SERVER, handlers, clock=clock) as (driver, peer):
            peer.request(1, "tools/call", CALL)
            await turns()
            await peer.aclose()
            await turns()
            await driver.aclose()
            assert driver.closed.done()
            assert asyncio.all_tasks() - before == set()

    run(main())


def test_an_error_of_a_handler_reaches_our_own_client_as_it_was_meant() -> None:
    async def main() -> None:
        error = RequestError("busy", code=-32050, data=[1])
        async with connected(Handlers(tools_call=raising(error))) as (client, _):
            with pytest.raises(RemoteFailure) as raised:
                await client.request("tools/call", PARAMS["tools/call"])
            assert (raised.value.code, raised.value.message) == (-32050, "busy")
            assert raised.value.data == [1]

    run(main())
