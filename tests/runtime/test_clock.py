"""Clocks: the loop's own, and the one that tests move by hand."""

from __future__ import annotations

import asyncio

import pytest

from dragoman.runtime.clock import LoopClock
from dragoman.testing import ManualClock
from tests.runtime.aids import run


def test_the_clock_of_the_loop_tells_its_time_and_calls_back() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = LoopClock()
        before = loop.time()
        assert before <= clock.now() <= loop.time()
        rung: asyncio.Future[str] = loop.create_future()
        clock.call_at(clock.now() - 1.0, lambda: rung.set_result("past"))
        assert await rung == "past"

    run(main())


def test_a_call_of_the_loops_clock_can_be_cancelled() -> None:
    async def main() -> None:
        rung: list[str] = []
        clock = LoopClock()
        timer = clock.call_at(clock.now(), lambda: rung.append("no"))
        timer.cancel()
        done = asyncio.get_running_loop().create_future()
        clock.call_at(clock.now(), lambda: done.set_result(None))
        await done
        assert rung == []

    run(main())


def test_the_clock_of_the_loop_needs_a_loop() -> None:
    with pytest.raises(RuntimeError):
        LoopClock()


def test_time_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(start_s=5.0)
    assert clock.now() == clock.now() == 5.0
    assert clock.advance(2.5) == 0
    assert clock.now() == 7.5


def test_calls_are_made_in_order_each_at_its_own_time() -> None:
    clock = ManualClock()
    made: list[tuple[str, float]] = []
    for name, when in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("b2", 2.0), ("later", 9.0)):
        clock.call_at(when, lambda name=name: made.append((name, clock.now())))  # type: ignore[misc]
    assert clock.advance(4.0) == 4
    assert made == [("a", 1.0), ("b", 2.0), ("b2", 2.0), ("c", 3.0)]
    assert clock.now() == 4.0
    assert clock.next_alarm() == 9.0


def test_a_call_may_plan_the_next_one() -> None:
    clock = ManualClock()
    made: list[float] = []

    def tick() -> None:
        made.append(clock.now())
        clock.call_at(clock.now() + 1.0, tick)

    clock.call_at(1.0, tick)
    clock.advance(3.0)
    assert made == [1.0, 2.0, 3.0]


def test_a_cancelled_call_is_not_made() -> None:
    clock = ManualClock()
    made: list[str] = []
    first = clock.call_at(1.0, lambda: made.append("first"))
    clock.call_at(2.0, lambda: made.append("second"))
    first.cancel()
    assert clock.next_alarm() == 2.0
    assert clock.advance(5.0) == 1
    assert made == ["second"]
    assert clock.next_alarm() is None


def test_a_call_for_the_past_is_made_at_the_next_move() -> None:
    clock = ManualClock(start_s=10.0)
    made: list[float] = []
    clock.call_at(1.0, lambda: made.append(clock.now()))
    clock.advance(0.0)
    assert made == [10.0]
