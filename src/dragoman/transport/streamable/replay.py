"""What was sent on streams, kept for clients that come back for it.

The link numbers the events of each stream itself, so that keeping one needs no answer from
whatever keeps it: an event may be on its way to the client before it is written down.
Spec: basic/transports#resumability-and-redelivery
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple, Protocol

from dragoman.transport.streamable.limits import HttpLimits

__all__ = ["EventLog", "Kept", "MemoryEventLog"]


class Kept(NamedTuple):
    """One event: its number within its stream, and the frame; empty for one that only primes."""

    number: int
    frame: bytes


class EventLog(Protocol):
    """Keeps events; every implementation is bounded and forgets the oldest first."""

    def append(self, session: str, stream: str, number: int, frame: bytes) -> None:
        """Keep one event. Returns at once; numbers of a stream only grow."""

    async def replay(self, session: str, stream: str, after: int) -> list[Kept] | None:
        """The events of a stream after a number, in order.

        None when the stream is not known, or some of those events are gone already.
        """

    def forget(self, session: str, stream: str | None = None) -> None:
        """Nothing of a session is needed any more, or nothing of one of its streams."""

    async def flush(self) -> None:
        """Wait until what was appended is kept for good."""

    async def aclose(self) -> None:
        """Flush and let go of everything."""


class _Stream:
    __slots__ = ("dropped", "events")

    def __init__(self, dropped: int) -> None:
        self.events: deque[Kept] = deque()
        # The highest number that is gone; below the first one for none.
        self.dropped = dropped


class _Session:
    __slots__ = ("bytes", "count", "order", "streams")

    def __init__(self) -> None:
        self.streams: dict[str, _Stream] = {}
        # The stream of each event, oldest first: what goes when there is too much.
        self.order: deque[str] = deque()
        self.bytes = 0
        self.count = 0


# What an event costs besides its frame: a tuple, a bytes object, its place in two queues.
_OVERHEAD_BYTES = 160


class MemoryEventLog:
    """Keeps events in this process, within the bounds of `limits`."""

    def __init__(self, limits: HttpLimits | None = None) -> None:
        self._limits = limits or HttpLimits()
        # The session that was written to longest ago comes first.
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._bytes = 0

    def append(self, session: str, stream: str, number: int, frame: bytes) -> None:
        """Keep one event."""
        kept = self._sessions.get(session)
        if kept is None:
            kept = self._sessions[session] = _Session()
        else:
            self._sessions.move_to_end(session)
        of = kept.streams.get(stream)
        if of is None:
            of = kept.streams[stream] = _Stream(number - 1)
        of.events.append(Kept(number, frame))
        size = len(frame) + _OVERHEAD_BYTES
        kept.order.append(stream)
        kept.bytes += size
        kept.count += 1
        self._bytes += size
        limits = self._limits
        # The newest stays, however large: it may be the one answer somebody comes back for.
        while kept.count > 1 and (
            kept.bytes > limits.max_kept_bytes or kept.count > limits.max_kept_events
        ):
            self._drop_oldest(kept)
        while self._bytes > limits.max_kept_total_bytes and len(self._sessions) > 1:
            _, oldest = self._sessions.popitem(last=False)
            self._bytes -= oldest.bytes

    def _drop_oldest(self, kept: _Session) -> None:
        stream = None
        while stream is None:
            # Names of streams that were forgotten stay here until they come to the front.
            name = kept.order.popleft()
            stream = kept.streams.get(name)
        gone = stream.events.popleft()
        stream.dropped = gone.number
        size = len(gone.frame) + _OVERHEAD_BYTES
        kept.bytes -= size
        kept.count -= 1
        self._bytes -= size
        if not stream.events:
            del kept.streams[name]

    async def replay(self, session: str, stream: str, after: int) -> list[Kept] | None:
        """The events of a stream after a number; None when some are gone or nothing is known."""
        kept = self._sessions.get(session)
        of = None if kept is None else kept.streams.get(stream)
        if of is None or after < of.dropped:
            return None
        return [event for event in of.events if event.number > after]

    def forget(self, session: str, stream: str | None = None) -> None:
        """A session or a stream is over."""
        if stream is not None:
            self._forget_stream(session, stream)
            return
        kept = self._sessions.pop(session, None)
        if kept is not None:
            self._bytes -= kept.bytes

    def _forget_stream(self, session: str, stream: str) -> None:
        kept = self._sessions.get(session)
        of = None if kept is None else kept.streams.pop(stream, None)
        if kept is None or of is None:
            return
        size = sum(len(frame) + _OVERHEAD_BYTES for _, frame in of.events)
        kept.bytes -= size
        kept.count -= len(of.events)
        self._bytes -= size
        if not kept.streams:
            del self._sessions[session]
        elif len(kept.order) > 2 * kept.count + 64:
            kept.order = deque(name for name in kept.order if name in kept.streams)

    async def flush(self) -> None:
        """There is nothing to wait for."""

    async def aclose(self) -> None:
        """Forget everything."""
        self._sessions.clear()
        self._bytes = 0
