"""Two ends of one link inside one process.

Frames are handed over as they are, in one batch a turn of the loop, and with the same manners as a
pipe: a bound on what waits, back-pressure, an end that both sides see once.
"""

from __future__ import annotations

import asyncio

from dragoman.errors import LinkClosed, WrongState
from dragoman.jsonrpc.frame import LOCAL, Delivery, Noise
from dragoman.revisions.facts import Facts
from dragoman.transport.base import About, Receiver

# The same figures as for pipes, so that what holds in memory holds there.
from dragoman.transport.stdio.limits import (
    HIGH_WATER_BYTES,
    MAX_FRAME_BYTES,
    SAMPLE_BYTES,
)

__all__ = ["MemoryLink", "memory_pair"]


def memory_pair(
    *, max_frame_bytes: int = MAX_FRAME_BYTES, high_water_bytes: int = HIGH_WATER_BYTES
) -> tuple[MemoryLink, MemoryLink]:
    """Two linked ends; what one sends the other receives. Needs a running event loop."""
    loop = asyncio.get_running_loop()
    near = MemoryLink(loop, max_frame_bytes, high_water_bytes)
    far = MemoryLink(loop, max_frame_bytes, high_water_bytes)
    near.join(far)
    far.join(near)
    return near, far


class MemoryLink:
    """One end of a pair; see `Link` for what each method promises."""

    __slots__ = (
        "_closed",
        "_due",
        "_ended",
        "_high_water",
        "_inbox",
        "_inbox_bytes",
        "_limit",
        "_loop",
        "_paused",
        "_peer",
        "_peer_gone",
        "_receiver",
        "_refused",
        "_waiters",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, max_frame_bytes: int, high_water_bytes: int
    ) -> None:
        self._loop = loop
        self._limit = max_frame_bytes
        self._high_water = high_water_bytes
        self._peer: MemoryLink = self
        self._receiver: Receiver | None = None
        # What the peer has sent and we have not delivered yet.
        self._inbox: list[bytes] = []
        self._inbox_bytes = 0
        # Frames the limit refused, each with its place among the inbox.
        self._refused: list[tuple[int, Noise]] = []
        self._due = False
        self._paused = False
        self._closed = False
        self._peer_gone = False
        self._ended = False
        # Who waits on this end for the peer's inbox to empty.
        self._waiters: list[asyncio.Future[None]] = []

    def join(self, peer: MemoryLink) -> None:
        """Name the other end; `memory_pair` does this."""
        self._peer = peer

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver; frames that came earlier are delivered first."""
        if self._receiver is not None:
            raise WrongState("started", "a link is started once")
        self._receiver = receiver
        self._schedule()

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Queue one frame for the other end.

        Raises:
            LinkClosed: either end is closed.
        """
        peer = self._peer
        if self._closed or peer._closed:
            raise LinkClosed("the link in memory is closed", sent=False)
        size = len(frame)
        if size > self._limit:
            peer._refuse(frame)
        else:
            peer._inbox.append(frame)
            peer._inbox_bytes += size
        if not peer._due:
            peer._schedule()

    @property
    def is_congested(self) -> bool:
        """True while the other end has more than the high-water mark to deliver."""
        return self._peer._inbox_bytes > self._high_water

    async def drain(self) -> None:
        """Wait until the other end has taken most of what was sent; at once when it has."""
        if self._peer._inbox_bytes <= self._high_water:
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def pause_reading(self) -> None:
        """Stop delivering until `resume_reading`."""
        self._paused = True

    def resume_reading(self) -> None:
        """Deliver again, from the next turn of the loop on."""
        if self._paused:
            self._paused = False
            self._schedule()

    def agreed(self, wire: str, facts: Facts) -> None:
        """Nothing here depends on the revision."""

    def settle(self, delivery: Delivery) -> None:
        """Nothing is kept for an answer here."""

    async def aclose(self) -> None:
        """End the link: the other end gets what was sent before, then its `link_closed`."""
        if self._closed:
            return
        self._closed = True
        self._inbox.clear()
        self._inbox_bytes = 0
        peer = self._peer
        peer._peer_gone = True
        peer._schedule()
        peer._wake()
        self._wake()
        self._end()

    def _schedule(self) -> None:
        # Nothing to do twice: one delivery a turn takes everything that came before it.
        if not self._due and not self._paused and self._receiver is not None:
            self._due = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._due = False
        receiver = self._receiver
        if self._paused or self._closed or receiver is None:
            return
        if self._refused:
            self._deliver_with_refusals(receiver)
        elif self._inbox:
            batch = self._take_inbox()
            receiver.frames_received(batch, LOCAL)
        self._end_if_over()

    def _end_if_over(self) -> None:
        # A receiver that paused while it took the last frames is told when it resumes.
        if self._peer_gone and not self._paused and not self._inbox:
            self._end()

    def _take_inbox(self) -> list[bytes]:
        batch, self._inbox = self._inbox, []
        self._inbox_bytes = 0
        if self._peer._waiters:
            self._peer._wake()
        return batch

    def _deliver_with_refusals(self, receiver: Receiver) -> None:
        refused, self._refused = self._refused, []
        batch = self._take_inbox()
        start = 0
        for place, noise in refused:
            if place > start:
                receiver.frames_received(batch[start:place], LOCAL)
                start = place
            receiver.frame_refused(noise)
        if start < len(batch):
            receiver.frames_received(batch[start:], LOCAL)

    def _refuse(self, frame: bytes) -> None:
        noise = Noise(
            reason=f"a frame of {len(frame)} bytes is over the limit of {self._limit}",
            size=len(frame),
            limit=self._limit,
            head=frame[:SAMPLE_BYTES],
            tail=frame[-SAMPLE_BYTES:],
        )
        self._refused.append((len(self._inbox), noise))

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._receiver is not None:
            self._receiver.link_closed(None)
