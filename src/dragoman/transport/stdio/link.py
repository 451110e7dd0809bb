"""A link over two descriptors: what a child's pipes and our own standard streams share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dragoman.errors import LinkClosed, LinkError, WrongState
from dragoman.jsonrpc.frame import LOCAL, Delivery
from dragoman.revisions.facts import Facts
from dragoman.transport.base import About, Receiver
from dragoman.transport.stdio.framing import FrameSplitter
from dragoman.transport.stdio.limits import END_WAIT_S, FLUSH_WAIT_S, MAX_FRAME_BYTES
from dragoman.transport.stdio.pipes import open_reader, open_writer

__all__ = ["PipeLink", "finish_despite_cancel"]


class PipeLink:
    """Frames as lines over a descriptor to read and one to write, both owned by the link.

    Frames come straight from the loop's callback. Frames sent while a batch is being received
    leave in one write when it returns; all others of a turn leave in one write right after it.

    When the input ends, `link_closed(None)` is delivered, and answers that are still under way can
    be sent until `aclose`.
    """

    def __init__(
        self, input_fd: int, output_fd: int, *, max_frame_bytes: int = MAX_FRAME_BYTES
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._splitter = FrameSplitter(max_frame_bytes)
        self._receiver: Receiver | None = None
        self._reader = open_reader(self._loop, input_fd, self._chunk_came, self._input_over)
        self._writer = open_writer(self._loop, output_fd, self._output_broken)
        self._is_paused = False
        self._has_ended = False
        self._closing: asyncio.Task[None] | None = None
        # Why nothing can be sent any more; None while it can.
        self._cannot_send: str | None = None

    def start(self, receiver: Receiver) -> None:
        """Begin to read and to deliver."""
        if self._receiver is not None:
            raise WrongState("started", "a link is started once")
        self._receiver = receiver
        if not self._is_paused:
            self._reader.resume()

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Queue one frame; see `Link.send`.

        Raises:
            LinkClosed: the other side no longer reads, or the link was closed.
        """
        if self._cannot_send is not None:
            raise LinkClosed(self._cannot_send, sent=False)
        self._writer.send(frame)

    @property
    def is_congested(self) -> bool:
        """True while more is queued than the high-water mark."""
        return self._writer.is_congested

    async def drain(self) -> None:
        """Wait until the queue is below its mark, or the link is over."""
        await self._writer.drain()

    def pause_reading(self) -> None:
        """Stop reading until `resume_reading`; the pipe fills and the other side waits."""
        self._is_paused = True
        self._reader.pause()

    def resume_reading(self) -> None:
        """Read again."""
        if self._is_paused:
            self._is_paused = False
            if self._receiver is not None:
                self._reader.resume()

    def agreed(self, wire: str, facts: Facts) -> None:
        """Nothing here depends on the revision."""

    def settle(self, delivery: Delivery) -> None:
        """Nothing is kept for an answer here."""

    async def aclose(self) -> None:
        """Write what is queued, for at most `FLUSH_WAIT_S`, and close both descriptors."""
        if self._closing is None:
            self._cannot_send = "the link is closed"
            self._closing = self._loop.create_task(self._close(), name="dragoman-link-close")
        await finish_despite_cancel(self._closing, self._hurry)

    async def _close(self) -> None:
        try:
            # Not closed yet: both may be one socket, whose mode closing gives back.
            self._reader.pause()
            await self._writer.finish(FLUSH_WAIT_S)
        finally:
            self._release()
        await self._reader.wait_closed(END_WAIT_S)
        await self._writer.wait_closed(END_WAIT_S)

    def _hurry(self) -> None:
        # Nobody waits for the last frames any more.
        self._writer.close()

    def _release(self) -> None:
        """Let go of everything at once; may be called again."""
        self._reader.close()
        self._writer.close()
        self._end(None)

    def _chunk_came(self, chunk: bytes) -> None:
        receiver = self._receiver
        if receiver is None or self._has_ended:
            return
        frames = self._splitter.feed(chunk)
        if self._splitter.refused:
            self._deliver_with_refusals(receiver, frames)
        elif frames:
            self._deliver(receiver, frames)

    def _deliver(self, receiver: Receiver, frames: list[bytes]) -> None:
        if self._has_ended:
            return
        writer = self._writer
        writer.is_corked = True
        try:
            receiver.frames_received(frames, LOCAL)
        finally:
            writer.is_corked = False
            if writer.has_outbox:
                writer.flush()

    def _deliver_with_refusals(self, receiver: Receiver, frames: list[bytes]) -> None:
        refused, self._splitter.refused = self._splitter.refused, []
        start = 0
        for place, noise in refused:
            if place > start:
                self._deliver(receiver, frames[start:place])
                start = place
            # Answers sent meanwhile may have shown that nobody reads them, and ended the link.
            if not self._has_ended:
                receiver.frame_refused(noise)
        if start < len(frames):
            self._deliver(receiver, frames[start:])

    def _deliver_rest(self) -> None:
        # A last line without its line end.
        frames = self._splitter.finish()
        if self._receiver is not None:
            self._deliver_with_refusals(self._receiver, frames)

    def _input_over(self, error: OSError | None) -> None:
        # The other direction stays: answers under way may still be wanted.
        self._deliver_rest()
        self._end(None if error is None else LinkClosed(f"reading failed: {error}"))

    def _output_broken(self, error: OSError | None) -> None:
        self._cannot_send = "the other side no longer reads"
        self._reader.pause()
        self._end(LinkClosed(f"{self._cannot_send}: {error}"))

    def _end(self, error: LinkError | None) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self._receiver is not None:
            self._receiver.link_closed(error)


async def finish_despite_cancel(task: asyncio.Task[None], hurry: Callable[[], None]) -> None:
    """Wait until `task` is done, whatever happens to the caller.

    A cancellation calls `hurry`, is held back until the task is done, and is raised then.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            hurry()
    if cancelled is not None:
        raise cancelled
    if not task.cancelled():
        task.result()
