"""One session of the Streamable HTTP transport, as its server sees it: a link of many streams.

Each POST is a `Reply`. Its answer leaves as one JSON body, unless something else has to be said
first or it takes long: then a `Stream` is opened for it. What belongs to no request waits on the
session's own stream, which the client gets with a GET.
Spec: basic/transports#streamable-http
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable

from dragoman.errors import LinkClosed, LinkError, WrongState
from dragoman.jsonrpc.frame import Delivery, Principal
from dragoman.revisions.facts import Facts
from dragoman.transport.base import About, Receiver
from dragoman.transport.pausing import Pausable
from dragoman.transport.stdio.limits import HIGH_WATER_BYTES
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import EventLog

__all__ = ["Reply", "Stream", "StreamableLink", "encode_event"]


def encode_event(number: str, frame: bytes) -> bytes:
    """One message as an event; a frame has no line ends, so one data line holds it."""
    return b"event: message\nid: %s\ndata: %s\n\n" % (number.encode(), frame)


class Stream:
    """One stream of events: numbered, kept for replay, read by at most one connection at a time.

    `name` is unique for good; `reader` the connection that reads it now. Events that nobody reads
    are only kept.
    """

    __slots__ = (
        "is_leaving",
        "is_over",
        "link",
        "name",
        "number",
        "pending",
        "pending_bytes",
        "reader",
        "reply",
        "waiters",
    )

    def __init__(self, link: StreamableLink, name: str, reply: Reply | None) -> None:
        self.link = link
        self.name = name
        self.reply = reply
        # The number of the newest event.
        self.number = -1
        self.is_over = False
        # The connection shall close once all is written; the stream goes on.
        self.is_leaving = False
        self.pending: deque[bytes] = deque()
        self.pending_bytes = 0
        self.reader: asyncio.Future[None] | None = None
        self.waiters: list[asyncio.Future[None]] | None = None

    def put(self, frame: bytes) -> None:
        """Say something; an empty frame primes the client to come back."""
        self.number = number = self.number + 1
        link = self.link
        link.events.append(link.session, self.name, number, frame)
        reader = self.reader
        if reader is None or self.is_leaving:
            return
        if frame:
            event = encode_event(f"{self.name}-{number}", frame)
        else:
            event = b"id: %s-%d\nretry: %d\ndata:\n\n" % (
                self.name.encode(),
                number,
                int(link.limits.retry_s * 1000),
            )
        if self.pending_bytes > link.limits.max_unread_bytes:
            # It reads too slowly to hold its place: what is written already is its last, and
            # everything it misses is kept.
            link.hang_up(self)
        else:
            self.say(event)

    def say(self, event: bytes) -> None:
        """Hand an encoded event to the connection that reads."""
        self.pending.append(event)
        size = len(event)
        self.pending_bytes += size
        if self.reply is not None:
            self.link.count_unread(size)
        self.wake()

    def wake(self) -> None:
        """Let the connection look at what has changed."""
        reader = self.reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    def take(self) -> bytes:
        """What is to be written now; empties it."""
        pending = self.pending
        if not pending:
            return b""
        chunk = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        if self.reply is None:
            self.link.read_up_to = self.number
        self._taken()
        return chunk

    def _taken(self) -> None:
        """Nothing waits any more."""
        if self.reply is not None:
            self.link.count_unread(-self.pending_bytes)
        self.pending_bytes = 0
        self.link.wake_waiters()
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def join(self) -> asyncio.Future[None]:
        """A connection reads from now on; the one that did before ends."""
        if self.reader is None:
            self.link.connected += 1
        else:
            self._release()
        self.reader = reader = self.link.loop.create_future()
        return reader

    def leave(self) -> None:
        """Nobody reads any more, for now; what was not written is read from what is kept."""
        if self.reader is not None:
            self.link.connected -= 1
            self._release()

    def _release(self) -> None:
        reader, self.reader = self.reader, None
        self.is_leaving = False
        self.pending.clear()
        self._taken()
        if reader is not None and not reader.done():
            reader.set_result(None)

    def finish(self) -> None:
        """The last was said."""
        self.is_over = True
        self.link.streams.pop(self.name, None)
        self.wake()


class Reply(Delivery):
    """The answer to one POST: a frame, or a stream once there is more to say than that.

    `waiter` is done when there is one or the other, or when nothing will come.
    """

    __slots__ = ("frame", "is_late", "is_over", "link", "on_stream", "stream", "waiter")

    def __init__(self, link: StreamableLink) -> None:
        # Not by way of `super`: there is one for every POST.
        self.open = 0
        self.is_unreadable = False
        self.link = link
        self.frame: bytes | None = None
        # It took so long that it became a stream for that alone.
        self.is_late = False
        self.stream: Stream | None = None
        self.is_over = False
        self.waiter: asyncio.Future[None] | None = None
        # Told once there is a stream: what its reader has to know itself by.
        self.on_stream: Callable[[asyncio.Future[None]], None] | None = None

    def end(self) -> None:
        """Never to be answered."""
        self.is_over = True
        self.wake()

    def wake(self) -> None:
        """Let the POST look at what has changed."""
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def is_congested(self) -> bool:
        """True while more of its stream waits for its reader than the high-water mark."""
        stream = self.stream
        return stream is not None and stream.pending_bytes > self.link.high_water_bytes

    async def drain(self) -> None:
        """Wait until the reader has taken what waits, or has gone."""
        stream = self.stream
        if stream is None or not self.is_congested:
            return
        waiter = self.link.loop.create_future()
        if stream.waiters is None:
            stream.waiters = []
        stream.waiters.append(waiter)
        await waiter

    def let_go(self, retry_s: float) -> bool:
        """Close the connection; the client comes back after `retry_s`."""
        link = self.link
        if self.is_over or not link.primes_streams:
            return False
        stream = self.stream or link.open_stream(self)
        if stream.reader is not None:
            stream.say(b"retry: %d\n\n" % int(retry_s * 1000))
            link.hang_up(stream)
        return True


class StreamableLink(Pausable):
    """A server's end of one session.

    `session` is its id, `owner` who may use it. `streams` are those that are not over, by name;
    `connected` counts those of them with a connection. `is_paused` while POSTs have to wait,
    `is_over` once the session has ended, `is_congested` while more waits for those who read answers
    than the high-water mark.
    """

    __slots__ = (
        "_next_stream",
        "_waiters",
        "connected",
        "events",
        "general",
        "high_water_bytes",
        "is_congested",
        "is_over",
        "limits",
        "loop",
        "on_end",
        "owner",
        "prefix",
        "primes_streams",
        "read_up_to",
        "readers",
        "receiver",
        "replies",
        "session",
        "streams",
        "unread_bytes",
        "wire",
    )

    def __init__(
        self, session: str, owner: Principal, events: EventLog, limits: HttpLimits
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.session = session
        self.owner = owner
        self.events = events
        self.limits = limits
        # Handlers wait well before a reader is given up for reading too little.
        self.high_water_bytes = min(HIGH_WATER_BYTES, limits.max_unread_bytes // 2)
        self.receiver: Receiver | None = None
        self.wire = ""
        self.primes_streams = False
        self.streams: dict[str, Stream] = {}
        self.connected = 0
        # Connections that came with a GET, whether their stream goes on or not.
        self.readers = 0
        # In the order in which they came.
        self.replies: dict[Reply, None] = {}
        self.unread_bytes = 0
        # Names are unique for good, also after a restart that keeps the session.
        self.prefix = os.urandom(4).hex()
        self._next_stream = 0
        # The newest event of the session's own stream that was written to somebody.
        self.read_up_to = -1
        self._waiters: list[asyncio.Future[None]] | None = None
        self._begin_unpaused()
        # Looked at for every POST, so they are no properties.
        self.is_over = False
        self.is_congested = False
        self.general: Stream | None = None
        # Hears of the end, whoever caused it.
        self.on_end: Callable[[StreamableLink], None] | None = None

    # --- as a link ----------------------------------------------------------------------------------

    def start(self, receiver: Receiver) -> None:
        """Deliver to this receiver."""
        if self.receiver is not None:
            raise WrongState("started", "a link is started once")
        self.receiver = receiver

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Send on the stream of the POST it is about, else on the session's own.

        Raises:
            LinkClosed: the session is over.
        """
        if self.is_over:
            raise LinkClosed("the session is over", sent=False)
        if isinstance(about, Reply):
            stream = about.stream
            if is_answer:
                if stream is None:
                    about.frame = frame
                    about.is_over = True
                    if about.waiter is not None:
                        about.wake()
                else:
                    stream.put(frame)
                    about.is_over = True
                    stream.finish()
                return
            if not about.is_over:
                if stream is None:
                    stream = self.open_stream(about)
                stream.put(frame)
                return
            # What a handler says after its request was cancelled belongs to nothing any more.
        self.own_stream().put(frame)

    def open_stream(self, reply: Reply) -> Stream:
        """Answer a POST with a stream from now on."""
        self._next_stream += 1
        name = f"{self.prefix}{self._next_stream:x}"
        stream = self.streams[name] = reply.stream = Stream(self, name, reply)
        reader = stream.join()
        if self.primes_streams:
            stream.put(b"")
        if reply.on_stream is not None:
            reply.on_stream(reader)
        reply.wake()
        return stream

    def is_former_own(self, name: str) -> bool:
        """Whether a name is that of the session's own stream in a former process."""
        return (
            len(name) == len(self.prefix) + 1
            and name.endswith("0")
            and not name.startswith(self.prefix)
        )

    def own_stream(self) -> Stream:
        """The stream for what belongs to no request."""
        general = self.general
        if general is None:
            name = f"{self.prefix}0"
            general = self.general = self.streams[name] = Stream(self, name, None)
        return general

    def hang_up(self, stream: Stream) -> None:
        """Close the connection of a stream once what waits is written; the stream goes on."""
        if stream.reader is not None:
            stream.is_leaving = True
            stream.wake()

    def count_unread(self, size: int) -> None:
        """So much more waits for those who read answers.

        The session's own stream does not count: whoever does not read it waits for nothing.
        """
        self.unread_bytes += size
        self.is_congested = self.unread_bytes > self.high_water_bytes

    async def drain(self) -> None:
        """Wait until readers have taken enough, or have gone."""
        if not self.is_congested or self.is_over:
            return
        waiter = self.loop.create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            # Whoever woke it has taken the whole list.
            waiters: list[asyncio.Future[None]] | None = self._waiters
            if waiters and waiter in waiters:
                waiters.remove(waiter)

    def wake_waiters(self) -> None:
        """Some of what waited was taken."""
        if self._waiters and (self.is_over or not self.is_congested):
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def agreed(self, wire: str, facts: Facts) -> None:
        """The revision decides whether streams begin with an event to come back by."""
        self.wire = wire
        self.primes_streams = facts.primes_streams

    def settle(self, delivery: Delivery) -> None:
        """Everything a POST asked was cancelled."""
        if isinstance(delivery, Reply) and not delivery.is_over:
            delivery.is_over = True
            if delivery.stream is None:
                delivery.wake()
            else:
                delivery.stream.finish()

    def lose(self, reply: Reply, reason: str) -> None:
        """Nobody can take the answer to a POST any more."""
        if not reply.is_over and self.receiver is not None and not self.is_over:
            self.receiver.delivery_lost(reply, reason)

    @property
    def answering(self) -> int:
        """How many streams of POSTs somebody reads."""
        return sum(1 for one in self.streams.values() if one.reply is not None and one.reader)

    @property
    def is_idle(self) -> bool:
        """Whether no connection is open and no answer is owed."""
        return not self.connected and not self.readers and not self.replies

    async def aclose(self) -> None:
        """End the session: every stream, and every POST that still waits."""
        self._end(None)

    def _end(self, error: LinkError | None) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.resume_reading()
        for reply in list(self.replies):
            if not reply.is_over:
                reply.end()
        for stream in list(self.streams.values()):
            stream.finish()
        self.wake_waiters()
        if self.receiver is not None:
            self.receiver.link_closed(error)
        if self.on_end is not None:
            self.on_end(self)
