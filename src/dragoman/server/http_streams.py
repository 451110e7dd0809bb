"""Writing event streams to whoever reads them, and finding what somebody missed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from dragoman.server.http_io import WRITE_S, Receive, Send, start_stream, write
from dragoman.transport.http_sse.server import SseLink
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import Kept
from dragoman.transport.streamable.server import Reply, Stream, StreamableLink, encode_event

__all__ = ["DONE_S", "Writing", "resume", "write_old_stream", "write_stream"]

log = logging.getLogger("dragoman.server")

# A comment: proxies and clients see that the stream lives.
_BREATH = b": \n\n"

# 60 s after the whole of a stream was handed to its reader's socket it is forgotten: by then the
# reader has it, or has noticed that its connection broke and come back.
DONE_S = 60.0

# How often something that tells no disconnect is asked for one, in seconds.
AGAIN_S = 1.0


class Writing:
    """The stream of one POST, if it comes to that: begun when its handler first waits, else by the
    POST itself once the handler has ended.
    """

    __slots__ = ("_limits", "_reader", "_receive", "_reply", "_send", "_task")

    def __init__(self, receive: Receive, send: Send, reply: Reply, limits: HttpLimits) -> None:
        self._receive = receive
        self._send = send
        self._reply = reply
        self._limits = limits
        self._reader: asyncio.Future[None] | None = None
        self._task: asyncio.Task[bool] | None = None

    def opened(self, reader: asyncio.Future[None]) -> None:
        """There is a stream, with this reader."""
        self._reader = reader
        self._reply.link.loop.call_soon(self._begin)

    def _begin(self) -> None:
        if self._reader is not None:
            self._task = self._reply.link.loop.create_task(self._write())

    def _write(self) -> Coroutine[Any, Any, bool]:
        reader, self._reader = self._reader, None
        reply = self._reply
        assert reader is not None
        assert reply.stream is not None
        return write_stream(
            self._receive,
            self._send,
            reply.stream,
            reader,
            self._limits,
            may_have_left=reply.is_late,
        )

    async def finish(self) -> bool:
        """Write what is left. True when the whole stream was written."""
        if self._reader is not None:
            return await self._write()
        return False if self._task is None else await self._task

    async def aclose(self) -> None:
        """End it, whatever is left."""
        reader, self._reader = self._reader, None
        stream = self._reply.stream
        if reader is not None and stream is not None and stream.reader is reader:
            stream.leave()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


async def write_stream(
    receive: Receive,
    send: Send,
    stream: Stream,
    reader: asyncio.Future[None],
    limits: HttpLimits,
    *,
    missed: bytes = b"",
    may_have_left: bool = False,
) -> bool:
    """Write a stream until it is over, the reader leaves, or another takes its place.

    `reader` is what `Stream.join` gave, `missed` what comes before all else. `may_have_left` says
    that it is long since the client was heard of. True when the whole stream was written.
    """
    loop = stream.link.loop
    leaving: asyncio.Task[None] | None = None
    patience: asyncio.TimerHandle | None = None
    try:
        if may_have_left:
            # Whoever left before there was a stream has nothing to come back by.
            leaving = _watch(receive, stream.wake)
            await asyncio.sleep(0)
            if leaving.done():
                return False
        await start_stream(send)
        if missed:
            await write(send, missed, is_last=False)
        while stream.reader is reader:
            chunk = stream.take()
            is_last = stream.is_over or stream.is_leaving
            if chunk or is_last:
                await write(send, chunk, is_last=is_last)
            if is_last:
                return stream.is_over
            if leaving is not None and leaving.done():
                return False
            if reader.done():
                if stream.reader is not reader:
                    break
                reader = stream.reader = loop.create_future()
                if stream.pending or stream.is_over or stream.is_leaving:
                    continue
            if leaving is None:
                leaving = _watch(receive, stream.wake)
            patience = loop.call_later(limits.keep_alive_s, stream.say, _BREATH)
            await reader
            patience.cancel()
        # Another connection reads it now.
        await write(send, b"", is_last=True)
        return False
    except TimeoutError:
        log.info("a client took nothing for %g s and was given up", WRITE_S)
        return False
    except OSError as error:
        log.debug("a client left: %s", error)
        return False
    finally:
        if patience is not None:
            patience.cancel()
        if stream.reader is reader:
            stream.leave()
            if stream.number < 0 and not stream.is_over:
                _lose(stream)
        if leaving is not None:
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving


async def write_old_stream(
    receive: Receive, send: Send, link: SseLink, endpoint: str, limits: HttpLimits
) -> None:
    """Write the one stream of an HTTP+SSE connection until either side ends it."""
    leaving: asyncio.Task[None] | None = None
    patience: asyncio.TimerHandle | None = None
    try:
        await start_stream(send)
        first = b"event: endpoint\ndata: %s\n\n" % endpoint.encode()
        await write(send, first, is_last=False)
        leaving = _watch(receive, lambda: link.end(None))
        while True:
            chunk = link.take()
            is_last = link.is_over
            if chunk or is_last:
                await write(send, chunk, is_last=is_last)
            if is_last:
                return
            if not link.pending and not link.is_over:
                link.reader = link.loop.create_future()
                patience = link.loop.call_later(limits.keep_alive_s, link.say, _BREATH)
                await link.reader
                patience.cancel()
    except TimeoutError:
        log.info("a client took nothing for %g s and was given up", WRITE_S)
    except OSError as error:
        log.debug("a client left: %s", error)
    finally:
        if patience is not None:
            patience.cancel()
        if leaving is not None:
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving


def _watch(receive: Receive, tell: Callable[[], None]) -> asyncio.Task[None]:
    """Ends, and tells, when the client leaves."""
    leaving = asyncio.ensure_future(_disconnected(receive))
    leaving.add_done_callback(lambda _: tell())
    return leaving


async def _disconnected(receive: Receive) -> None:
    # Something in between may give the body again and again, without ever waiting.
    while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(AGAIN_S)


def _lose(stream: Stream) -> None:
    """Nobody can come back for a stream that never gave an id."""
    if stream.reply is not None:
        stream.link.lose(stream.reply, "the client left, and cannot come back for the answer")


async def resume(
    link: StreamableLink, place: tuple[str, int] | None
) -> tuple[Stream | None, asyncio.Future[None] | None, bytes]:
    """Take up a stream after a place; the session's own stream without one.

    Returns the stream, joined, with what `join` gave, and the events that were missed. The stream
    is None when it was over or is not known: then what was missed is all there will be.
    """
    own = link.own_stream()
    name, after = (own.name, link.read_up_to) if place is None else place
    stream = link.streams.get(name)
    if stream is None and link.is_former_own(name):
        # The session's own stream, from before a restart: it goes on under a new name.
        stream = own
    reader: asyncio.Future[None] | None = None
    up_to = before = -1
    if stream is not None:
        # First of all, so that what is said from now on waits for this connection.
        up_to, before = stream.number, link.read_up_to
        reader = stream.join()
        if stream is own and link.primes_streams:
            stream.put(b"")
    try:
        missed = await _missed(link, name, after, up_to if stream and stream.name == name else None)
        if stream is not None and stream.name != name:
            missed += await _missed(link, stream.name, before, up_to)
    except BaseException:
        if stream is not None and stream.reader is reader:
            stream.leave()
        raise
    return stream, reader, b"".join(missed)


async def _missed(link: StreamableLink, name: str, after: int, up_to: int | None) -> list[bytes]:
    kept: list[Kept] = await link.events.replay(link.session, name, after) or []
    return [
        encode_event(f"{name}-{number}", frame)
        for number, frame in kept
        if frame and (up_to is None or number <= up_to)
    ]
