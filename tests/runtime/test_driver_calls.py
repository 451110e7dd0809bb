"""Our own requests through a driver: answers, cancellation, deadlines, progress, the end."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import msgspec
import pytest

from dragoman.errors import (
    DeadlineExceeded,
    LimitExceeded,
    LinkClosed,
    LinkError,
    NotNegotiated,
    PeerError,
    RemoteFailure,
    WrongState,
)
from dragoman.jsonrpc.frame import LOCAL
from dragoman.model.base import NoParams, Record
from dragoman.model.capabilities import InitializeResult
from dragoman.model.methods import Side
from dragoman.model.progress import ProgressParams
from dragoman.protocol.events import Degraded, Fault, LateAnswer, NotificationArrived, Opened
from dragoman.protocol.lifecycle import State
from dragoman.protocol.limits import Limits
from dragoman.runtime.driver import Driver
from dragoman.testing import ManualClock, ScriptedPeer
from dragoman.transport.memory import memory_pair
from tests.protocol.aids import (
    NEWEST,
    PARAMS,
    RESULTS,
    client_engine,
    engine_of,
    progress,
    server_engine,
    welcome,
)
from tests.requirements.duties import duty
from tests.runtime.aids import Handlers, connected, facing_script, give_result, run, turns

CALL = PARAMS["tools/call"]
TEXT = {"content": [{"type": "text", "text": "3"}]}


def start(driver: Driver, **more: Any) -> asyncio.Task[Record]:
    """A tool call in a task of its own."""
    return asyncio.ensure_future(driver.request("tools/call", CALL, **more))


@duty("transport.custom.preserved")
def test_a_call_goes_to_the_other_side_and_its_answer_comes_back() -> None:
    async def main() -> None:
        async with connected(Handlers(tools_call=give_result)) as (client, server):
            assert await client.request("tools/call", CALL) == RESULTS["tools/call"]
            assert (client.engine.calls, server.engine.exchanges) == ({}, {})

    run(main())


def test_a_server_can_ask_as_well() -> None:
    async def main() -> None:
        async with connected(at_client=Handlers(roots_list=give_result)) as (_, server):
            assert await server.request("roots/list", NoParams()) == RESULTS["roots/list"]

    run(main())


def test_opening_gives_what_the_server_said_and_tells_the_handler() -> None:
    async def main() -> None:
        near, far = memory_pair()
        handlers = Handlers()
        driver, peer = Driver(client_engine(), near, handlers), ScriptedPeer(far)
        driver.start()
        opening = asyncio.ensure_future(driver.open())
        await peer.welcome({"tools": {}})
        result = await opening
        assert isinstance(result, InitializeResult)
        assert result.server_info.name == "script"
        assert driver.engine.state is State.OPEN
        assert [event.dialect.wire for event in handlers.of(Opened)] == [NEWEST]
        await driver.aclose()

    run(main())


def test_a_failed_opening_raises_and_leaves_nothing() -> None:
    async def main() -> None:
        near, far = memory_pair()
        driver, peer = Driver(client_engine(), near, Handlers()), ScriptedPeer(far)
        driver.start()
        opening = asyncio.ensure_future(driver.open())
        peer.answer(await peer.expect("initialize"), welcome("1999-01-01"))
        with pytest.raises(PeerError):
            await opening
        with pytest.raises(LinkClosed):
            await driver.request("ping", NoParams())
        await driver.aclose()
        assert peer.waiting == 0

    run(main())


@duty("errors.init-timeout")
def test_a_server_that_never_answers_the_hello_is_given_up_at_the_deadline() -> None:
    async def main() -> None:
        clock = ManualClock()
        near, far = memory_pair()
        driver, peer = Driver(client_engine(), near, Handlers(), clock=clock), ScriptedPeer(far)
        driver.start()
        opening = asyncio.ensure_future(driver.open(timeout_s=3.0))
        await peer.expect("initialize")
        clock.advance(3.0)
        with pytest.raises(DeadlineExceeded):
            await opening
        await driver.aclose()
        assert peer.waiting == 0
        assert clock.next_alarm() is None

    run(main())


@duty("calls.cancel.never-initialize")
def test_giving_up_on_the_hello_sends_no_cancellation() -> None:
    async def main() -> None:
        near, far = memory_pair()
        driver, peer = Driver(client_engine(), near, Handlers()), ScriptedPeer(far)
        driver.start()
        opening = asyncio.ensure_future(driver.open())
        await peer.expect("initialize")
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await driver.aclose()
        await peer.closed.wait()
        assert peer.waiting == 0

    run(main())


@duty("errors.capability-missing")
def test_what_cannot_be_sent_fails_before_anything_is_sent() -> None:
    async def main() -> None:
        near, far = memory_pair()
        driver, peer = Driver(client_engine(), near, Handlers()), ScriptedPeer(far)
        driver.start()
        with pytest.raises(WrongState):
            await driver.request("tools/list", PARAMS["tools/list"])
        opening = asyncio.ensure_future(driver.open())
        await peer.welcome({"tools": {}})
        await opening
        with pytest.raises(NotNegotiated):
            await driver.request("prompts/list", PARAMS["prompts/list"])
        with pytest.raises(NotNegotiated):
            await driver.request("logging/setLevel", PARAMS["logging/setLevel"])
        await driver.aclose()
        assert peer.waiting == 0

    run(main())


def test_a_refusal_is_raised_with_its_numbers() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            call = start(driver)
            peer.fail(await peer.expect("tools/call"), -32602, "unknown tool")
            with pytest.raises(RemoteFailure) as raised:
                await call
            assert (raised.value.code, raised.value.message) == (-32602, "unknown tool")

    run(main())


# --- cancellation ---------------------------------------------------------------------------------


@duty("calls.cancel.names-request", "calls.cancel.frees", "calls.cancel.reason-logged")
def test_cancelling_the_awaiting_task_cancels_the_request_on_the_wire(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "dragoman.runtime")

    async def main() -> None:
        handlers = Handlers()
        async with facing_script(Side.CLIENT, handlers) as (driver, peer):
            call = start(driver)
            request = await peer.expect("tools/call")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            cancelled = await peer.expect("notifications/cancelled")
            assert cancelled["params"]["requestId"] == request["id"]
            assert driver.engine.calls == {}
            # The answer comes all the same: it is dropped.
            peer.answer(request, TEXT)
            await turns()
            assert handlers.of(LateAnswer) == [LateAnswer(request["id"])]
            peer.notify("notifications/progress", {"progressToken": request["id"], "progress": 1})
            await turns()

    run(main())
    assert "no longer wanted" in caplog.text


def test_a_timeout_of_asyncio_cancels_as_well() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await driver.request("tools/call", CALL)
            await peer.expect("tools/call")
            await peer.expect("notifications/cancelled")

    run(main())


@duty("calls.cancel.in-progress")
def test_a_task_that_is_cancelled_after_the_answer_cancels_nothing_on_the_wire() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            call = start(driver)
            request = await peer.expect("tools/call")
            driver.frames_received(
                [b'{"jsonrpc":"2.0","id":%d,"result":{"content":[]}}' % request["id"]],
                LOCAL,
            )
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await turns()
            assert peer.waiting == 0

    run(main())


def test_an_answer_that_comes_in_the_turn_of_the_cancellation_is_dropped() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            call = start(driver)
            request = await peer.expect("tools/call")
            call.cancel()
            driver.frames_received(
                [b'{"jsonrpc":"2.0","id":%d,"result":{"content":[]}}' % request["id"]],
                LOCAL,
            )
            with pytest.raises(asyncio.CancelledError):
                await call
            await turns()
            assert peer.waiting == 0

    run(main())


def test_a_call_that_was_made_on_the_engine_itself_wakes_nobody() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            driver.engine.request("tools/call", CALL, now=driver.clock.now(), wants_progress=True)
            driver.flush()
            request = await peer.expect("tools/call")
            peer.send(progress(request["id"], 1))
            peer.answer(request, TEXT)
            await turns()
            assert driver.engine.calls == {}

    run(main())


def test_a_failure_and_a_cancellation_in_one_turn_make_no_noise() -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        async with facing_script(Side.CLIENT) as (driver, peer):
            call = start(driver)
            request = await peer.expect("tools/call")
            driver.frames_received(
                [b'{"jsonrpc":"2.0","id":%d,"error":{"code":1,"message":"no"}}' % request["id"]],
                LOCAL,
            )
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            del call
            await turns()
            gc.collect()
            await turns()

    run(main())
    assert complaints == []


# --- deadlines and progress -----------------------------------------------------------------------


@duty(
    "calls.timeout", "calls.timeout.cancels", "calls.timeout.handled", "calls.timeout.per-request"
)
def test_a_call_without_an_answer_ends_at_its_deadline_and_the_session_goes_on() -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            slow, quick = start(driver, timeout_s=50.0), start(driver, timeout_s=5.0)
            first, second = await peer.expect("tools/call"), await peer.expect("tools/call")
            clock.advance(5.0)
            with pytest.raises(DeadlineExceeded) as raised:
                await quick
            assert (raised.value.method, raised.value.timeout_s) == ("tools/call", 5.0)
            cancelled = await peer.expect("notifications/cancelled")
            assert cancelled["params"]["requestId"] == second["id"]
            peer.answer(first, TEXT)
            assert await slow == RESULTS["tools/call"]

    run(main())


def test_a_shorter_deadline_moves_the_alarm_forward() -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            calls = [start(driver, timeout_s=timeout_s) for timeout_s in (30.0, 10.0, 20.0)]
            for _ in calls:
                await peer.expect("tools/call")
            assert clock.next_alarm() == 10.0
            for moment in (10.0, 20.0, 30.0):
                clock.advance(moment - clock.now())
                await turns()
                assert sum(call.done() for call in calls) == moment / 10.0
            for call in calls:
                assert isinstance(call.exception(), DeadlineExceeded)

    run(main())


@duty("progress.optional", "calls.timeout.maximum")
def test_progress_reaches_the_callback_and_keeps_the_call_alive_up_to_its_total() -> None:
    async def main() -> None:
        clock = ManualClock()
        told: list[ProgressParams] = []
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            call = start(driver, timeout_s=10.0, total_s=24.0, on_progress=told.append)
            request = await peer.expect("tools/call")
            token = request["params"]["_meta"]["progressToken"]
            for step in (1, 2, 3):
                clock.advance(7.0)
                peer.send(progress(token, step, total=3))
                await turns()
            assert not call.done()
            clock.advance(3.0)
            with pytest.raises(DeadlineExceeded) as raised:
                await call
            assert raised.value.timeout_s == 24.0
            assert [(one.progress, one.total) for one in told] == [(1, 3), (2, 3), (3, 3)]

    run(main())


def test_a_progress_callback_that_fails_is_logged_and_the_call_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def bad(params: ProgressParams) -> None:
        raise ValueError("oops")

    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            call = start(driver, on_progress=bad)
            request = await peer.expect("tools/call")
            peer.send(progress(request["id"], 1))
            peer.answer(request, TEXT)
            assert await call == RESULTS["tools/call"]

    run(main())
    assert "a progress callback failed" in caplog.text


@duty("progress.tracked")
def test_progress_without_a_token_of_ours_reaches_no_callback() -> None:
    async def main() -> None:
        handlers = Handlers()
        async with facing_script(Side.CLIENT, handlers) as (driver, peer):
            call = start(driver)
            request = await peer.expect("tools/call")
            assert "_meta" not in request["params"]
            peer.send(progress(request["id"], 1))
            peer.answer(request, TEXT)
            await call
            assert [fault.kind.name for fault in handlers.of(Fault)] == ["STRAY_PROGRESS"]

    run(main())


# --- the end --------------------------------------------------------------------------------------


@duty("shutdown.by-transport")
@pytest.mark.parametrize("who", ["we", "the peer"])
def test_the_end_of_the_link_fails_every_call_and_is_seen_by_both(who: str) -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            calls = [start(driver) for _ in range(3)]
            for _ in calls:
                await peer.expect("tools/call")
            if who == "we":
                await driver.aclose()
            else:
                await peer.aclose()
            for call in calls:
                with pytest.raises(LinkClosed) as raised:
                    await call
                assert raised.value.sent is None
            assert await driver.closed is None
            await peer.closed.wait()
            with pytest.raises(LinkClosed) as late:
                await driver.request("ping", NoParams())
            assert late.value.sent is False
            with pytest.raises(LinkClosed):
                driver.notify("notifications/roots/list_changed", NoParams())

    run(main())


def test_the_error_that_ended_the_link_is_what_every_call_raises() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            call = start(driver)
            await peer.expect("tools/call")
            driver.link_closed(LinkError("the cable was cut"))
            with pytest.raises(LinkError, match="the cable was cut"):
                await call
            error = await driver.closed
            assert isinstance(error, LinkError)
            # A link says it once; twice would change nothing.
            driver.link_closed(None)
            assert driver.closed.result() is error

    run(main())


def test_a_frame_for_a_link_that_has_just_ended_fails_its_call_and_nothing_else() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, peer):
            await peer.aclose()
            # Our side has not heard of it yet.
            assert not driver.closed.done()
            with pytest.raises(LinkClosed):
                await driver.request("tools/call", CALL)
            assert driver.closed.done()

    run(main())


def test_closing_twice_and_from_two_tasks_is_the_same_as_once() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT) as (driver, _):
            await asyncio.gather(driver.aclose(), driver.aclose())
            await driver.aclose()

    run(main())


def test_a_driver_may_be_opened_in_one_task_and_closed_in_another() -> None:
    async def main() -> None:
        handlers = Handlers(tools_call=give_result)
        near, far = memory_pair()
        server = Driver(server_engine(), far, handlers)
        client = Driver(client_engine(), near, Handlers())
        server.start()

        async def enter() -> None:
            client.start()
            await client.open()

        async def leave() -> None:
            await client.aclose()
            await server.aclose()

        await asyncio.create_task(enter())
        assert (
            await asyncio.create_task(client.request("tools/call", CALL)) == RESULTS["tools/call"]
        )
        await asyncio.create_task(leave())

    run(main())


def test_closing_that_is_cancelled_has_still_ended_the_connection() -> None:
    class SlowLink:
        """A link whose end takes for ever."""

        def __init__(self, link: Any) -> None:
            self.link = link

        def __getattr__(self, name: str) -> Any:
            return getattr(self.link, name)

        async def aclose(self) -> None:
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        near, far = memory_pair()
        driver, peer = Driver(client_engine(), SlowLink(near), Handlers()), ScriptedPeer(far)
        driver.start()
        opening = asyncio.ensure_future(driver.open())
        await peer.expect("initialize")
        closing = asyncio.ensure_future(driver.aclose())
        await turns()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(LinkClosed):
            await opening
        assert driver.closed.done()
        await near.aclose()

    run(main())


# --- what else arrives ----------------------------------------------------------------------------


def test_notifications_and_faults_reach_the_handler_in_order() -> None:
    async def main() -> None:
        handlers = Handlers()
        async with facing_script(Side.CLIENT, handlers) as (_, peer):
            handlers.events.clear()
            peer.notify("notifications/tools/list_changed")
            peer.send(b"garbage")
            peer.notify("notifications/message", {"level": "info", "data": 1})
            await turns()
            assert [type(event) for event in handlers.events] == [
                NotificationArrived,
                Fault,
                NotificationArrived,
            ]

    run(main())


def test_a_listener_that_fails_is_logged_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        handlers = Handlers()
        async with facing_script(Side.CLIENT, handlers) as (driver, peer):

            def fail(event: Any) -> None:
                raise RuntimeError("deaf")

            handlers.on_event = fail
            call = start(driver)
            request = await peer.expect("tools/call")
            peer.notify("notifications/tools/list_changed")
            peer.answer(request, TEXT)
            assert await call == RESULTS["tools/call"]

    run(main())
    assert "a listener failed on NotificationArrived" in caplog.text


def test_a_frame_too_large_fails_its_call_at_once() -> None:
    async def main() -> None:
        near, far = memory_pair(max_frame_bytes=4096)
        driver, peer = Driver(client_engine(), near, Handlers()), ScriptedPeer(far)
        driver.start()
        opening = asyncio.ensure_future(driver.open())
        await peer.welcome({"tools": {}})
        await opening
        call = start(driver)
        text = {"content": [{"type": "text", "text": "x" * 5000}]}
        peer.answer(await peer.expect("tools/call"), text)
        with pytest.raises(LimitExceeded) as raised:
            await call
        assert raised.value.value == 4096
        await driver.aclose()

    run(main())


def test_what_was_lost_on_the_way_out_is_told_to_the_handler() -> None:
    async def main() -> None:
        handlers = Handlers()
        async with facing_script(Side.SERVER, handlers, revision="2024-11-05") as (driver, peer):
            handlers.events.clear()
            driver.notify("notifications/message", PARAMS["notifications/message"])
            assert handlers.events == []
            plain = PARAMS["sampling/createMessage"]
            params = msgspec.structs.replace(plain, tools=[])
            task = asyncio.ensure_future(driver.request("sampling/createMessage", params))
            await peer.expect("notifications/message")
            request = await peer.expect("sampling/createMessage")
            assert [event.method for event in handlers.of(Degraded)] == ["sampling/createMessage"]
            peer.fail(request, -1, "no")
            with pytest.raises(RemoteFailure):
                await task

    run(main())


def test_a_tap_sees_every_frame_in_both_directions() -> None:
    async def main() -> None:
        seen: list[tuple[str, bytes]] = []
        async with facing_script(Side.CLIENT, tap=lambda way, frame: seen.append((way, frame))) as (
            driver,
            peer,
        ):
            call = start(driver)
            peer.answer(await peer.expect("tools/call"), TEXT)
            await call
        ways = [way for way, _ in seen]
        assert ways == ["sent", "received", "sent", "sent", "received"]
        assert b"initialize" in seen[0][1]
        assert b"tools/call" in seen[3][1]

    run(main())


@pytest.mark.parametrize("good", range(5))
def test_a_tap_that_raises_costs_no_frame_and_is_not_called_again(
    good: int, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bytes] = []

    def tap(way: str, frame: bytes) -> None:
        seen.append(frame)
        if len(seen) > good:
            raise RuntimeError("the disk is full")

    async def main() -> None:
        async with facing_script(Side.CLIENT, tap=tap) as (driver, peer):
            call = start(driver)
            peer.answer(await peer.expect("tools/call"), TEXT)
            await call
            assert (await start_and_answer(driver, peer)) is not None

    async def start_and_answer(driver: Driver, peer: ScriptedPeer) -> Record:
        call = start(driver)
        peer.answer(await peer.expect("tools/call"), TEXT)
        return await call

    run(main())
    assert len(seen) == good + 1
    assert caplog.text.count("sees no more of it") == 1


def test_too_many_calls_fail_here() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT, limits=Limits(max_calls=1)) as (driver, peer):
            call = start(driver)
            request = await peer.expect("tools/call")
            with pytest.raises(LimitExceeded):
                await driver.request("ping", NoParams())
            peer.answer(request, TEXT)
            await call

    run(main())


def test_a_driver_can_be_idle_and_closed_without_ever_opening() -> None:
    async def main() -> None:
        for side in Side:
            near, far = memory_pair()
            driver = Driver(engine_of(side), near, Handlers())
            driver.start()
            await driver.aclose()
            await far.aclose()

    run(main())


def test_draining_waits_for_the_link() -> None:
    async def main() -> None:
        async with connected(Handlers(tools_call=give_result), high_water_bytes=10) as (client, _):
            call = start(client)
            await turns(1)
            await client.drain()
            assert not client.link.is_congested
            await call

    run(main())
