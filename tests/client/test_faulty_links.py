"""The failing links themselves: each fault is what it says, and nothing else happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dragoman.errors import LinkClosed, LinkError
from dragoman.jsonrpc.frame import Delivery, Noise, Seen
from dragoman.testing import CALM, FaultPlan, FaultyConnector, FaultyLink, ManualClock
from dragoman.transport.base import Link
from dragoman.transport.memory import MemoryLink, memory_pair
from tests.instant import run_instantly


class Ear:
    """A receiver that writes down what it is told; every request is awaited."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        self.heard += frames

    def frame_refused(self, noise: Noise) -> None:
        self.heard.append(noise.size)

    def link_closed(self, error: LinkError | None) -> None:
        self.heard.append(("closed", str(error)))

    def is_awaited(self, ident: int | str) -> bool:
        return True

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        self.heard.append((ident, error.sent))

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        self.heard.append(reason)

    def link_troubled(self, error: LinkError | None) -> None:
        self.heard.append(("troubled", str(error)))


class Pair:
    """A faulty link, and the far end of it; both are listened to."""

    description = "a pair"

    def __init__(self, plan: FaultPlan = CALM) -> None:
        self.clock = ManualClock()
        self.connector = FaultyConnector(self, plan, clock=self.clock)
        self.near_ear, self.far_ear = Ear(), Ear()
        self.far: MemoryLink
        self.near: FaultyLink

    async def connect(self) -> Link:
        near, self.far = memory_pair(max_frame_bytes=1_000)
        return near

    async def __aenter__(self) -> Pair:
        self.near = await self.connector.connect()
        self.near.start(self.near_ear)
        self.far.start(self.far_ear)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.near.aclose()
        await self.far.aclose()

    async def after(self, seconds: float = 0.0) -> tuple[list[Any], list[Any]]:
        """What both have heard since, once that much time has passed."""
        await turns()
        self.clock.advance(seconds)
        await turns()
        heard = (self.near_ear.heard, self.far_ear.heard)
        self.near_ear.heard, self.far_ear.heard = [], []
        return heard


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def both(plan: FaultPlan, body: Callable[[Pair], Any]) -> Pair:
    made: list[Pair] = []

    async def main() -> None:
        async with Pair(plan) as pair:
            made.append(pair)
            await body(pair)

    run_instantly(main())
    return made[0]


def test_by_the_calm_plan_everything_passes() -> None:
    async def body(pair: Pair) -> None:
        pair.near.send(b"1", 1)
        pair.far.send(b"2")
        pair.far.send(b"x" * 2_000)
        assert not pair.near.is_congested
        await pair.near.drain()
        assert await pair.after() == ([b"2", 2_000], [b"1"])
        pair.near.request_lost(7, LinkError("x", sent=False))
        pair.near.link_troubled(LinkError("no route"))
        pair.near.delivery_lost(Delivery(), "the reader went")
        assert pair.near.is_awaited(7)
        heard = [(7, False), ("troubled", "no route"), "the reader went"]
        assert await pair.after() == (heard, [])

    pair = both(CALM, body)
    assert not pair.connector.counts
    assert pair.connector.links[0].is_closed
    assert "faulty" in pair.connector.description


def test_what_is_dropped_never_comes_and_what_is_cut_short_comes_in_part() -> None:
    async def drop(pair: Pair) -> None:
        pair.near.send(b"1", 1)
        pair.far.send(b"2")
        assert await pair.after(10) == ([], [])

    assert both(FaultPlan(drop=1.0), drop).connector.counts == {"drop": 2}

    async def truncate(pair: Pair) -> None:
        pair.near.send(b"123456789", 1)
        pair.far.send(b"abcdefghi")
        ((near,), (far,)) = await pair.after(10)
        assert len(near) < 9
        assert b"abcdefghi".startswith(near)
        assert b"123456789".startswith(far)

    both(FaultPlan(truncate=1.0), truncate)


def test_only_what_comes_in_comes_twice() -> None:
    async def body(pair: Pair) -> None:
        pair.near.send(b"1", 1)
        pair.far.send(b"2")
        assert await pair.after() == ([b"2", b"2"], [b"1"])

    both(FaultPlan(duplicate=1.0), body)


def test_what_is_late_keeps_its_order() -> None:
    async def body(pair: Pair) -> None:
        for n in range(9):
            pair.near.send(b"%d" % n, n)
            pair.far.send(b"%d" % n)
        everything = [b"%d" % n for n in range(9)]
        assert await pair.after(0.0) != (everything, everything)
        pair.near_ear.heard, pair.far_ear.heard = [], []
        await pair.after(2.0)

    async def slow(pair: Pair) -> None:
        pair.near.send(b"x" * 100, 1)
        pair.far.send(b"y" * 100)
        assert await pair.after(0.9) == ([], [])
        near, far = await pair.after(0.2)
        assert (near, far) == ([b"y" * 100], [b"x" * 100])

    both(FaultPlan(delay=0.5, delay_s=1.0, seed=3), body)
    both(FaultPlan(bytes_per_s=100.0), slow)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_streams_overtake_one_another_only_where_there_are_streams(is_ordered: bool) -> None:
    heard: list[Any] = []

    async def body(pair: Pair) -> None:
        for n in range(20):
            pair.far.send(b'{"id":%d,"result":{}}' % n)
            pair.far.send(b'{"method":"p","params":{"progressToken":%d}}' % n)
        pair.far.send(b"[]")
        pair.far.send(b"junk")
        for _ in range(20):
            heard.extend((await pair.after(0.1))[0])

    both(FaultPlan(delay=0.5, delay_s=1.0, is_ordered=is_ordered), body)
    assert len(heard) == 42
    of_stream = [one for one in heard if b'"id":7,' in one or b'Token":7}' in one]
    assert [b"result" in one for one in of_stream] == [True, False]
    ids = [json.loads(one)["id"] for one in heard if b"result" in one]
    assert (ids == sorted(ids)) is is_ordered


def test_nothing_goes_out_before_a_notification_that_went_earlier() -> None:
    async def body(pair: Pair) -> None:
        for _ in range(20):
            pair.near.send(b"notification")
            pair.near.send(b"request", 1)
        heard: list[Any] = []
        for _ in range(60):
            heard += (await pair.after(0.1))[1]
        assert len(heard) == 40
        for place in range(1, 41):
            before = heard[:place]
            assert before.count(b"notification") >= before.count(b"request")

    both(FaultPlan(delay=0.5, delay_s=1.0, is_ordered=False), body)


def test_a_cut_ends_the_link_once_and_what_is_late_is_lost() -> None:
    async def body(pair: Pair) -> None:
        pair.connector.plan = FaultPlan(delay=1.0)
        pair.near.send(b"late", 1)
        pair.far.send(b"late")
        await turns()
        pair.connector.plan = FaultPlan(cut=1.0)
        pair.near.send(b"1", 1)
        with pytest.raises(LinkClosed) as refused:
            pair.near.send(b"2", 2)
        assert refused.value.sent is False
        pair.far.send(b"3")
        pair.far.send(b"x" * 2_000)
        await pair.near.drain()
        near, far = await pair.after(10)
        assert near == [("closed", "the link was cut on purpose")]
        assert far in ([], [b"1"])
        pair.near.cut()
        pair.near.link_troubled(None)
        assert await pair.after() == ([], [])

    both(CALM, body)


def test_a_lost_request_is_told_of_and_may_have_passed() -> None:
    passed: set[bool] = set()

    async def body(pair: Pair) -> None:
        for n in range(20):
            pair.near.send(b"request", n)
            near, far = await pair.after()
            assert near == [(n, None if far else False)]
            passed.add(bool(far))
        # What is no request of ours cannot be lost by itself.
        pair.near.send(b"notification")
        assert await pair.after() == ([], [b"notification"])

    both(FaultPlan(lose=1.0), body)
    assert passed == {True, False}


def test_nothing_comes_while_reading_is_paused() -> None:
    async def body(pair: Pair) -> None:
        pair.far.send(b"1")
        await turns()
        pair.near.pause_reading()
        assert await pair.after(10) == ([], [])
        pair.near.resume_reading()
        assert await pair.after(10) == ([b"1"], [])

    both(FaultPlan(delay=1.0), body)


def test_what_is_late_comes_before_the_end() -> None:
    async def body(pair: Pair) -> None:
        pair.far.send(b"1")
        await turns()
        await pair.far.aclose()
        assert await pair.after() == ([b"1", ("closed", "None")], [("closed", "None")])

    both(FaultPlan(delay=1.0), body)


def test_connects_may_be_refused_or_take_their_time() -> None:
    async def main() -> None:
        with pytest.raises(LinkError, match="on purpose") as refused:
            await FaultyConnector(Pair(), FaultPlan(refuse=1.0)).connect()
        assert refused.value.sent is False
        loop = asyncio.get_running_loop()
        link = await FaultyConnector(Pair(), FaultPlan(connect_s=100.0, seed=1)).connect()
        assert 1 < loop.time() < 100
        await link.aclose()

    run_instantly(main())


@pytest.mark.parametrize("wrong", [{"drop": 1.5}, {"cut": -0.1}, {"drop": 0.6, "cut": 0.6}])
def test_a_plan_that_cannot_be_followed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"probability|together"):
        FaultPlan(**wrong)
