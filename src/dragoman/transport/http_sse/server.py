"""One connection of the two-endpoint HTTP transport, as its server sees it.

The client holds one event stream open; its first event names the address to post to, and every
message of the server is an event on it. When it ends, so does the connection.
Spec: basic/transports#http-with-sse
"""

from __future__ import annotations

import asyncio
from collections import deque

from dragoman.errors import LinkClosed, LinkError, WrongState
from dragoman.jsonrpc.frame import Delivery, Principal, Seen
from dragoman.revisions.facts import Facts
from dragoman.transport.base import About, Receiver
from dragoman.transport.pausing import Pausable
from dragoman.transport.stdio.limits import HIGH_WATER_BYTES

__all__ = ["Post", "SseLink"]


class Post(Delivery):
    """What one POST brought: whatever answers it goes to the one stream there is."""

    __slots__ = ("_link",)

    def __init__(self, link: SseLink) -> None:
        super().__init__()
        self._link = link

    @property
    def is_congested(self) -> bool:
        """True while more waits for the client than the high-water mark."""
        return self._link.is_congested

    async def drain(self) -> None:
        """Wait until the client has taken enough, or has gone."""
        await self._link.drain()


class SseLink(Pausable):
    """A server's end of one connection: what is sent waits for the stream's writer."""

    __slots__ = (
        "_has_ended",
        "_waiters",
        "loop",
        "max_unread_bytes",
        "owner",
        "pending",
        "reader",
        "receiver",
        "session",
        "unread_bytes",
    )

    def __init__(self, session: str, owner: Principal, max_unread_bytes: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.session = session
        self.owner = owner
        self.max_unread_bytes = max_unread_bytes
        self.receiver: Receiver | None = None
        self.pending: deque[bytes] = deque()
        self.unread_bytes = 0
        self.reader: asyncio.Future[None] = self.loop.create_future()
        self._waiters: list[asyncio.Future[None]] = []
        self._has_ended = False
        self._begin_unpaused()

    def start(self, receiver: Receiver) -> None:
        """Deliver to this receiver."""
        if self.receiver is not None:
            raise WrongState("started", "a link is started once")
        self.receiver = receiver

    def receive(self, body: bytes, seen: Seen) -> None:
        """Hand in what a POST brought."""
        assert self.receiver is not None
        if not self._has_ended:
            self.receiver.frames_received((body,), seen)

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Queue one event.

        Raises:
            LinkClosed: the connection is over.
        """
        if self._has_ended:
            raise LinkClosed("the client's event stream is closed", sent=False)
        if self.unread_bytes > self.max_unread_bytes:
            # Nothing is kept for later here: a client that reads nothing is given up.
            self.end(LinkClosed("the client does not read its event stream"))
            return
        self.say(b"event: message\ndata: %s\n\n" % frame)

    def say(self, event: bytes) -> None:
        """Queue an encoded event."""
        self.pending.append(event)
        self.unread_bytes += len(event)
        self.wake()

    def wake(self) -> None:
        """Let the writer look at what has changed."""
        if not self.reader.done():
            self.reader.set_result(None)

    def take(self) -> bytes:
        """What is to be written now; empties it."""
        chunk = b"".join(self.pending)
        self.pending.clear()
        self.unread_bytes = 0
        self._wake_waiters()
        return chunk

    @property
    def is_congested(self) -> bool:
        """True while more waits for the client than the high-water mark."""
        return self.unread_bytes > HIGH_WATER_BYTES

    async def drain(self) -> None:
        """Wait until the client has taken enough, or has gone."""
        if not self.is_congested or self._has_ended:
            return
        waiter = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def agreed(self, wire: str, facts: Facts) -> None:
        """There is one stream in every revision."""

    def settle(self, delivery: Delivery) -> None:
        """No POST waits for an answer here."""

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._has_ended

    async def aclose(self) -> None:
        """End the connection."""
        self.end(None)

    def end(self, error: LinkError | None) -> None:
        """The stream is over, for whatever reason."""
        if self._has_ended:
            return
        self._has_ended = True
        self.resume_reading()
        self.wake()
        self._wake_waiters()
        if self.receiver is not None:
            self.receiver.link_closed(error)
