"""Watching a connection by pings: sparingly, and with an end when nothing comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dragoman.errors import LinkError, WrongState
from dragoman.model.methods import Side
from dragoman.protocol.limits import Limits
from dragoman.runtime.driver import Driver
from dragoman.testing import ManualClock, ScriptedPeer
from dragoman.transport.memory import memory_pair
from tests.protocol.aids import PARAMS, client_engine
from tests.requirements.duties import duty
from tests.runtime.aids import Handlers, facing_script, run, turns


@duty("ping.periodic", "ping.configurable")
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("interval_s", [1.0, 30.0])
def test_a_silent_peer_is_pinged_at_the_interval_that_was_set(
    side: Side, interval_s: float
) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(side, clock=clock) as (driver, peer):
            driver.watch(interval_s, 5.0)
            await turns()
            for _ in range(3):
                clock.advance(interval_s - 0.5)
                await turns()
                assert peer.waiting == 0
                clock.advance(0.5)
                peer.answer(await peer.expect("ping"), {})
                await turns()
            assert not driver.closed.done()

    run(main())


@duty("ping.configurable")
def test_nobody_is_pinged_unless_that_was_asked_for() -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (_, peer):
            clock.advance(1e6)
            await turns()
            assert peer.waiting == 0

    run(main())


@duty("ping.sparing")
def test_a_peer_that_talks_anyway_is_not_pinged() -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            driver.watch(10.0, 5.0)
            await turns()
            for _ in range(10):
                clock.advance(6.0)
                peer.notify("notifications/tools/list_changed")
                await turns()
            assert peer.waiting == 0
            clock.advance(10.0)
            await peer.expect("ping")

    run(main())


@duty("ping.sparing")
def test_no_ping_overlaps_another() -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            driver.watch(1.0, 50.0)
            await turns()
            for _ in range(40):
                clock.advance(1.0)
                await turns()
            assert peer.waiting == 1
            peer.answer(await peer.receive(), {})
            await turns()

    run(main())


@duty("ping.deadline", "ping.timeout-is-failure", "ping.failure-logged")
@pytest.mark.parametrize("timeout_s", [2.0, 20.0])
def test_a_ping_that_is_not_answered_in_time_ends_the_connection(
    timeout_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            call = asyncio.ensure_future(
                driver.request("tools/call", PARAMS["tools/call"], timeout_s=1_000.0)
            )
            await peer.expect("tools/call")
            driver.watch(10.0, timeout_s)
            await turns()
            clock.advance(10.0)
            await peer.expect("ping")
            clock.advance(timeout_s - 0.1)
            await turns()
            assert not driver.closed.done()
            clock.advance(0.1)
            await turns()
            error = await driver.closed
            assert isinstance(error, LinkError)
            with pytest.raises(LinkError, match="ping"):
                await call
            await peer.closed.wait()

    run(main())
    assert f"no answer within {timeout_s:g} s" in caplog.text


def test_a_peer_that_says_something_else_while_a_ping_waits_is_alive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            driver.watch(10.0, 5.0)
            await turns()
            clock.advance(10.0)
            await peer.expect("ping")
            clock.advance(3.0)
            peer.notify("notifications/tools/list_changed")
            await turns()
            clock.advance(2.0)
            await peer.expect("notifications/cancelled")
            assert not driver.closed.done()
            clock.advance(10.0)
            peer.answer(await peer.expect("ping"), {})
            await turns()

    run(main())
    assert "no answer within 5 s" in caplog.text, "it is logged all the same"


def test_a_peer_that_does_not_know_ping_is_alive() -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            driver.watch(10.0, 5.0)
            await turns()
            for _ in range(2):
                clock.advance(10.0)
                peer.fail(await peer.expect("ping"), -32601, "unknown")
                await turns()
            assert not driver.closed.done()

    run(main())


def test_a_watch_waits_until_a_ping_is_allowed_and_while_too_much_is_under_way() -> None:
    async def main() -> None:
        clock = ManualClock()
        near, far = memory_pair()
        engine = client_engine(limits=Limits(max_calls=1))
        driver, peer = Driver(engine, near, Handlers(), clock=clock), ScriptedPeer(far)
        driver.start()
        driver.watch(10.0, 5.0)
        await turns()
        clock.advance(10.0)
        await turns()
        assert peer.waiting == 0, "before the hello nothing may be sent"
        opening = asyncio.ensure_future(driver.open(timeout_s=100.0))
        await turns()
        clock.advance(10.0)
        await turns()
        assert peer.waiting == 1, "the one call that may be under way is the hello"
        await peer.welcome()
        await opening
        clock.advance(20.0)
        peer.answer(await peer.expect("ping"), {})
        await turns()
        await driver.aclose()
        await peer.aclose()

    run(main())


@pytest.mark.parametrize("when", ["between two pings", "during a ping"])
def test_the_end_of_the_connection_ends_the_watch(when: str) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            driver.watch(10.0, 5.0)
            await turns()
            if when == "during a ping":
                clock.advance(10.0)
                await peer.expect("ping")
            await peer.aclose()
            await driver.closed
            await turns()
            await driver.aclose()
            assert asyncio.all_tasks() - before == set()
            assert clock.next_alarm() is None

    run(main())


def test_a_connection_is_watched_once() -> None:
    async def main() -> None:
        async with facing_script(Side.CLIENT, clock=ManualClock()) as (driver, _):
            driver.watch(10.0, 5.0)
            with pytest.raises(WrongState):
                driver.watch(20.0, 5.0)

    run(main())


def test_a_watch_ends_by_itself_when_it_finds_the_connection_closed() -> None:
    async def main() -> None:
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            driver.watch(10.0, 5.0)
            await turns()
            await peer.aclose()
            await driver.closed
            clock.advance(10.0)
            await turns()
            # A late frame of the script would find nobody.
            assert driver.engine.receive(b"{}", now=clock.now()) != []

    run(main())


def test_a_watch_that_ends_in_the_very_turn_of_its_alarm_makes_no_noise() -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        clock = ManualClock()
        async with facing_script(Side.CLIENT, clock=clock) as (driver, peer):
            driver.watch(10.0, 5.0)
            await turns()
            watching = driver._watching
            assert watching is not None
            watching.cancel()
            clock.advance(10.0)
            await turns()
            assert watching.cancelled()
            assert peer.waiting == 0

    run(main())
    assert complaints == []
