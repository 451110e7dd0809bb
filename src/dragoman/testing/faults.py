"""Links that fail on purpose, in the same way for the same seed.

    connector = FaultyConnector(connector_for("server.py"), FaultPlan(seed=7, cut=0.05))
    async with Client(connector) as client:
        ...

What happens is decided frame by frame by a generator of random numbers that starts from the seed,
so a run that went wrong can be had again as long as the frames are the same.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dragoman.errors import LinkClosed, LinkError
from dragoman.jsonrpc.frame import Delivery, Noise, Seen
from dragoman.runtime.clock import Clock, LoopClock, Timer
from dragoman.transport.around import LinkAround
from dragoman.transport.base import About, Connector, Link, Receiver

__all__ = ["CALM", "FaultPlan", "FaultyConnector", "FaultyLink"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultPlan:
    """How often what goes wrong; each share is a probability from 0 to 1, a frame or a connect.

    For every frame, in both directions:

    - `delay`: it is late by up to `delay_s` seconds, and so is what follows it on its stream.
    - `drop`: it never arrives.
    - `truncate`: only a part of it arrives.
    - `cut`: the link breaks, before or after the frame passed.

    For frames that come in: `duplicate`, it arrives twice. For requests that go out: `lose`, only
    this request fails, before or after it passed, as over HTTP. `bytes_per_s` makes both directions
    slow. For connects: `refuse`, nobody is there, and `connect_s`, how long it may take at most.

    With `is_ordered` all frames of a direction are one stream, as over a pipe. Without it each
    request has a stream of its own, and frames of different streams overtake one another; but
    nothing that we send overtakes a notification of ours.
    """

    seed: int = 0
    delay: float = 0.0
    delay_s: float = 0.1
    drop: float = 0.0
    truncate: float = 0.0
    cut: float = 0.0
    duplicate: float = 0.0
    lose: float = 0.0
    refuse: float = 0.0
    connect_s: float = 0.0
    bytes_per_s: float | None = None
    is_ordered: bool = True

    def __post_init__(self) -> None:
        for name in ("delay", "drop", "truncate", "cut", "duplicate", "lose", "refuse"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability: from 0 to 1")
        if self.delay + self.drop + self.truncate + self.cut + self.duplicate + self.lose > 1.0:
            raise ValueError("the shares of the frames are more than 1 together")


CALM = FaultPlan()
"""The plan by which nothing happens."""


class FaultyConnector:
    """Opens the links of another connector, and wraps them.

    `plan` may be replaced at any time, `CALM` included; open links follow it at once. `counts` says
    what was done so far, by the names of the plan's members; `links` are all that were opened.
    """

    def __init__(
        self, inner: Connector, plan: FaultPlan = CALM, *, clock: Clock | None = None
    ) -> None:
        self.inner = inner
        self.plan = plan
        self.counts: Counter[str] = Counter()
        self.links: list[FaultyLink] = []
        self._clock = clock
        self._random = random.Random(plan.seed)  # noqa: S311 - nothing secret

    @property
    def description(self) -> str:
        """What it connects to, and that it does so badly."""
        return f"{self.inner.description} (faulty)"

    async def connect(self) -> FaultyLink:
        """Open a link.

        Raises:
            LinkError: by the plan, or as the inner connector does.
        """
        clock = self._clock or LoopClock()
        plan = self.plan
        if plan.connect_s > 0:
            await _sleep(clock, self._random.uniform(0, plan.connect_s))
        if self._random.random() < plan.refuse:
            self.counts["refuse"] += 1
            raise LinkError("the connection was refused on purpose", sent=False)
        seed = self._random.getrandbits(64)
        link = FaultyLink(await self.inner.connect(), self, clock, seed)
        self.links.append(link)
        return link


class FaultyLink(LinkAround):
    """A link through which things go wrong; it is also what receives from the link inside.

    `is_closed` once `aclose` has returned.
    """

    def __init__(self, inner: Link, owner: FaultyConnector, clock: Clock, seed: int) -> None:
        super().__init__(inner)
        self.is_closed = False
        self._owner = owner
        self._clock = clock
        self._random = random.Random(seed)  # noqa: S311 - nothing secret
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver | None = None
        self._lanes: dict[tuple[str, Any], _Lane] = {}
        # What goes out after a notification of ours goes no sooner than that.
        self._barrier = 0.0
        self._paused = False
        self._is_cut = False
        self._has_ended = False

    # --- what the driver calls --------------------------------------------------------------------

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver."""
        self._receiver = receiver
        self.inner.start(self)

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Queue one frame, or do something worse to it.

        Raises:
            LinkClosed: the link is over.
        """
        if self._is_cut or self._has_ended:
            raise LinkClosed("the link was cut", sent=False)
        fault, delay_s = self._draw(frame, is_out=True)
        if fault == "lose" and not (isinstance(about, int | str) and self._is_awaited(about)):
            # No request of ours: nobody would hear of its loss.
            fault = ""
        if fault == "drop":
            return
        if fault == "truncate":
            frame = frame[: self._random.randrange(len(frame))]
        passes = fault not in ("cut", "lose") or self._random.random() < 0.5
        if passes:
            lane = self._lane("out", about)
            due = lane.put(delay_s, lambda: self.inner.send(frame, about, is_answer), self._barrier)
            if about is None and due > self._clock.now():
                # A moment later: timers for the same time ring in any order.
                self._barrier = due + 1e-6
        if fault == "cut":
            self.cut()
        elif fault == "lose":
            error = LinkError("this request was lost on purpose", sent=None if passes else False)
            # Later: whoever sends is not told while it does.
            self._loop.call_soon(self._lose, about, error)

    async def drain(self) -> None:
        """As the link inside."""
        if not self._is_cut:
            await self.inner.drain()

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`."""
        self._paused = True
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again."""
        self._paused = False
        for lane in list(self._lanes.values()):
            lane.go_on_soon()
        self.inner.resume_reading()

    def cut(self, error: LinkError | None = None) -> None:
        """Break the link now: what is on its way is lost, and the receiver hears of it soon."""
        if not self._is_cut:
            self._is_cut = True
            self._drop_lanes()
            self._loop.call_soon(self._end, error or LinkError("the link was cut on purpose"))

    async def aclose(self) -> None:
        """End the link inside."""
        self._is_cut = True
        self._drop_lanes()
        try:
            await self.inner.aclose()
        finally:
            self.is_closed = True
            self._end(None)

    # --- what the link inside calls ---------------------------------------------------------------

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        """Pass frames on, or do something worse to them."""
        for frame in frames:
            if self._is_cut:
                return
            self._receive(frame, seen)

    def _receive(self, frame: bytes, seen: Seen) -> None:
        fault, delay_s = self._draw(frame, is_out=False)
        if fault == "drop":
            return
        stream = self._stream_of(frame)
        if fault == "truncate":
            frame = frame[: self._random.randrange(len(frame))]
        if fault != "cut" or self._random.random() < 0.5:
            lane = self._lane("in", stream)
            for _ in range(2 if fault == "duplicate" else 1):
                lane.put(delay_s, lambda: self._deliver(frame, seen))
        if fault == "cut":
            self.cut()

    def _deliver(self, frame: bytes, seen: Seen) -> None:
        assert self._receiver is not None
        self._receiver.frames_received([frame], seen)

    def frame_refused(self, noise: Noise) -> None:
        """Pass it on."""
        if self._receiver is not None and not self._is_cut:
            self._receiver.frame_refused(noise)

    def link_closed(self, error: LinkError | None) -> None:
        """The link inside is over: what is late comes now, then the end."""
        for lane in list(self._lanes.values()):
            lane.hurry()
        if not self._is_cut:
            self._end(error)

    def is_awaited(self, ident: int | str) -> bool:
        """As the receiver says."""
        return self._is_awaited(ident)

    def _is_awaited(self, ident: int | str) -> bool:
        return self._receiver is not None and self._receiver.is_awaited(ident)

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        """Pass it on."""
        self._lose(ident, error)

    def _lose(self, about: About, error: LinkError) -> None:
        if self._receiver is not None and not self._has_ended and isinstance(about, int | str):
            self._receiver.request_lost(about, error)

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        """Pass it on."""
        if self._receiver is not None and not self._is_cut:
            self._receiver.delivery_lost(delivery, reason)

    def link_troubled(self, error: LinkError | None) -> None:
        """Pass it on."""
        if self._receiver is not None and not self._is_cut:
            self._receiver.link_troubled(error)

    # --- inside -----------------------------------------------------------------------------------

    def _draw(self, frame: bytes, *, is_out: bool) -> tuple[str, float]:
        """What happens to a frame, and how late it is."""
        plan = self._owner.plan
        if plan is CALM:
            return "", 0.0
        delay_s = 0.0 if plan.bytes_per_s is None else len(frame) / plan.bytes_per_s
        only = {"duplicate": not is_out, "lose": is_out}
        point = self._random.random()
        for name in ("delay", "drop", "truncate", "cut", "duplicate", "lose"):
            point -= getattr(plan, name)
            if point < 0:
                if not only.get(name, True):
                    break
                self._owner.counts[name] += 1
                if name == "delay":
                    delay_s += self._random.uniform(0, plan.delay_s)
                return name, delay_s
        return "", delay_s

    def _stream_of(self, frame: bytes) -> Any:
        """Which request a frame that comes in belongs to; None where that cannot be told."""
        if self._owner.plan.is_ordered:
            return None
        try:
            message = msgspec.json.decode(frame)
        except ValueError:
            return None
        if not isinstance(message, dict):
            return None
        if "method" not in message:
            return message.get("id")
        params = message.get("params")
        return params.get("progressToken") if isinstance(params, dict) else None

    def _lane(self, direction: str, stream: Any) -> _Lane:
        if self._owner.plan.is_ordered or not isinstance(stream, int | str):
            stream = None
        key = (direction, stream)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(self, key, self._clock)
        return lane

    def forget_lane(self, lane: _Lane) -> None:
        """An empty lane is let go; lanes call this."""
        if self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def may_pass(self, lane: _Lane) -> bool:
        """Whether a lane may let its frames go now; lanes ask this."""
        return not (self._paused and lane.key[0] == "in")

    def _drop_lanes(self) -> None:
        for lane in list(self._lanes.values()):
            lane.drop()
        self._lanes.clear()

    def _end(self, error: LinkError | None) -> None:
        if self._has_ended:
            return
        self._has_ended = self._is_cut = True
        self._drop_lanes()
        if self._receiver is not None:
            self._receiver.link_closed(error)


class _Lane:
    """The frames of one stream in one direction: late or not, they stay in order."""

    def __init__(self, link: FaultyLink, key: tuple[str, Any], clock: Clock) -> None:
        self.key = key
        self._link = link
        self._clock = clock
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: Timer | None = None
        self._is_passing = False

    def put(self, delay_s: float, let_go: Callable[[], None], not_before: float = 0.0) -> float:
        """Let one frame go after a while, and after all before it; returns when that is."""
        due = max(self._clock.now() + delay_s, not_before)
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, let_go))
        self._go_on()
        return due

    def go_on_soon(self) -> None:
        """Look again, from the next turn of the loop on."""
        self._arm(self._clock.now())

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._go_on()

    def _go_on(self) -> None:
        if self._is_passing:
            return
        self._is_passing = True
        try:
            while self._waiting and self._link.may_pass(self):
                due = self._waiting[0][0]
                if due > self._clock.now():
                    self._arm(due)
                    return
                self._let_go()
        finally:
            self._is_passing = False
        if not self._waiting:
            self._link.forget_lane(self)

    def _let_go(self) -> None:
        let_go = self._waiting.popleft()[1]
        try:
            let_go()
        except LinkError:
            # The link inside is over, and says so by itself.
            self._waiting.clear()

    def hurry(self) -> None:
        """Let everything go now."""
        while self._waiting:
            self._let_go()
        self.drop()

    def drop(self) -> None:
        """Nothing more goes."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _sleep(clock: Clock, seconds: float) -> None:
    reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ring() -> None:
        if not reached.done():
            reached.set_result(None)

    timer = clock.call_at(clock.now() + seconds, ring)
    try:
        await reached
    finally:
        timer.cancel()
