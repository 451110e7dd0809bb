"""File descriptors read and written from an event loop.

Pipes and sockets are watched by the loop itself; whatever a loop cannot watch (regular files,
terminals, and every pipe on Windows) gets a thread behind the same interface. A reader or writer
owns its descriptor and closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from dragoman.transport.stdio.framing import one_line
from dragoman.transport.stdio.limits import (
    BATCH_FRAME_BYTES,
    FRAMES_A_WRITE,
    GROWN_PIPE_BYTES,
    HIGH_WATER_BYTES,
    LOW_WATER_BYTES,
    READ_BYTES,
)

__all__ = ["Reader", "Writer", "grow_pipe", "loop_can_watch", "open_reader", "open_writer"]

OnChunk = Callable[[bytes], None]
OnEnd = Callable[[OSError | None], None]


class Reader(Protocol):
    """Hands over what arrives, from the loop's thread: chunks, then the end once."""

    on_chunk: OnChunk

    def resume(self) -> None:
        """Begin to read, or go on."""

    def pause(self) -> None:
        """Stop reading; a chunk already read by a thread still comes after `resume`."""

    def read_waiting(self) -> bool:
        """Read what lies in the pipe now, without waiting for more.

        True when nothing that was there is left; False when that cannot be known here.
        """

    def close(self) -> None:
        """Stop for good. The end is not reported after this."""

    async def wait_closed(self, timeout_s: float) -> None:
        """Wait until the descriptor is closed; gives up after `timeout_s`."""


class Writer(Protocol):
    """Takes frames and writes lines; the first failure is reported once and ends it."""

    is_corked: bool

    @property
    def is_congested(self) -> bool:
        """True while more than the high-water mark is queued."""

    @property
    def has_outbox(self) -> bool:
        """True while frames wait for the next flush."""

    def send(self, frame: bytes) -> None:
        """Queue a frame. The first of a turn leaves at once, the others together: at the end of the
        turn, at `flush`, or when there are `FRAMES_A_WRITE`."""

    def flush(self) -> None:
        """Write what is queued, as far as the descriptor takes it now."""

    async def drain(self) -> None:
        """Wait until the queue is below its mark, or the writer is over."""

    async def finish(self, timeout_s: float) -> bool:
        """Write everything queued; False when it did not leave in time."""

    def close(self) -> None:
        """Stop for good; what is still queued is dropped."""

    async def wait_closed(self, timeout_s: float) -> None:
        """Wait until the descriptor is closed; gives up after `timeout_s`."""


def open_reader(
    loop: asyncio.AbstractEventLoop, fd: int, on_chunk: OnChunk, on_end: OnEnd
) -> Reader:
    """A reader for `fd`, which it owns from now on; it reads nothing before `resume`."""
    if loop_can_watch(fd):
        return LoopReader(loop, fd, on_chunk, on_end)
    return ThreadReader(loop, fd, on_chunk, on_end)


def open_writer(loop: asyncio.AbstractEventLoop, fd: int, on_broken: OnEnd) -> Writer:
    """A writer for `fd`, which it owns from now on."""
    if loop_can_watch(fd):
        return LoopWriter(loop, fd, on_broken)
    return ThreadWriter(loop, fd, on_broken)


def grow_pipe(fd: int) -> None:
    """Let a pipe hold more, where the system can; large payloads then cross in fewer turns."""
    if sys.platform == "linux":
        import fcntl

        # Not a pipe, or the user's share is used up: it works as well at its old size.
        with contextlib.suppress(OSError):
            if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < GROWN_PIPE_BYTES:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, GROWN_PIPE_BYTES)


def loop_can_watch(fd: int) -> bool:
    """True when an event loop can tell when `fd` is ready; a thread has to wait on it otherwise."""
    # A terminal could be watched too, but only as O_NONBLOCK, and that flag belongs to the open
    # file, which the user's shell shares: it would outlive us if we are killed.
    if sys.platform == "win32":
        return False
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class _QueueingWriter:
    """What both writers share: the frames of this turn, and who waits for the queue to shrink."""

    __slots__ = (
        "_flush_is_due",
        "_is_open",
        "_is_sending",
        "_loop",
        "_on_broken",
        "_outbox",
        "_queued_bytes",
        "_waiters",
        "is_corked",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, on_broken: OnEnd) -> None:
        self._loop = loop
        self._on_broken = on_broken
        self._outbox: list[bytes] = []
        # All that was sent and has not left, here or in what the subclass keeps.
        self._queued_bytes = 0
        self._flush_is_due = False
        self._is_open = True
        self._is_sending = False
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        #: True while the owner will call `flush` itself before it returns to the loop.
        self.is_corked = False

    @property
    def is_congested(self) -> bool:
        return self._queued_bytes > HIGH_WATER_BYTES

    @property
    def has_outbox(self) -> bool:
        return bool(self._outbox)

    def send(self, frame: bytes) -> None:
        if not self._is_open:
            return
        self._outbox.append(one_line(frame))
        self._queued_bytes += len(frame) + 1
        if self.is_corked:
            return
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_now)
            self._send_now()
        elif len(self._outbox) >= FRAMES_A_WRITE:
            self._send_now()

    def _send_now(self) -> None:
        """As `flush`, but whoever sends is not told of the end of its link in the middle of that."""
        self._is_sending = True
        self.flush()
        self._is_sending = False

    def flush(self) -> None:
        raise NotImplementedError

    async def drain(self) -> None:
        if self._queued_bytes > HIGH_WATER_BYTES:
            await self._until_below(LOW_WATER_BYTES)

    async def finish(self, timeout_s: float) -> bool:
        self.flush()
        if self._queued_bytes:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._until_below(0)
            except TimeoutError:
                return False
        return self._is_open

    def close(self) -> None:
        raise NotImplementedError

    def _flush_now(self) -> None:
        self._flush_is_due = False
        self.flush()

    def _break(self, error: OSError) -> None:
        self.close()
        if self._is_sending:
            self._loop.call_soon(self._on_broken, error)
        else:
            self._on_broken(error)

    def _forget_queue(self) -> None:
        self._is_open = False
        self._outbox.clear()
        self._queued_bytes = 0
        self._wake()

    async def _until_below(self, mark_bytes: int) -> None:
        entry = (mark_bytes, self._loop.create_future())
        self._waiters.append(entry)
        try:
            await entry[1]
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    def _wake(self) -> None:
        for entry in list(self._waiters):
            mark_bytes, waiter = entry
            if self._queued_bytes <= mark_bytes or not self._is_open:
                self._waiters.remove(entry)
                if not waiter.done():
                    waiter.set_result(None)


# --- watched by the loop ----------------------------------------------------------------------


class LoopReader:
    """Reads once each time the loop says there is something."""

    __slots__ = (
        "_fd",
        "_grown",
        "_is_over",
        "_is_reading",
        "_loop",
        "_on_end",
        "_was_blocking",
        "on_chunk",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, on_chunk: OnChunk, on_end: OnEnd
    ) -> None:
        self._loop = loop
        self._fd = fd
        self.on_chunk = on_chunk
        self._on_end = on_end
        self._is_reading = False
        self._is_over = False
        self._grown = False
        self._was_blocking = os.get_blocking(fd)
        os.set_blocking(fd, False)

    def resume(self) -> None:
        if not self._is_reading and not self._is_over and self._fd >= 0:
            self._is_reading = True
            self._loop.add_reader(self._fd, self._readable)

    def pause(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._fd)

    def read_waiting(self) -> bool:
        # A process that ended left at most one pipe full behind; whoever else holds the pipe may
        # go on writing, so what is read here is bounded by that.
        left = GROWN_PIPE_BYTES + READ_BYTES
        while self._is_reading and left > 0:
            size = self._readable()
            if not size:
                break
            left -= size
        return True

    def close(self) -> None:
        if self._fd < 0:
            return
        self.pause()
        fd, self._fd = self._fd, -1
        _give_back(fd, self._was_blocking)

    async def wait_closed(self, timeout_s: float) -> None:
        return

    def _readable(self) -> int:
        try:
            chunk = os.read(self._fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._end(error)
            return 0
        if not chunk:
            self._end(None)
            return 0
        if len(chunk) == READ_BYTES and not self._grown:
            self._grown = True
            grow_pipe(self._fd)
        self.on_chunk(chunk)
        return len(chunk)

    def _end(self, error: OSError | None) -> None:
        self._is_over = True
        self.pause()
        self._on_end(error)


class LoopWriter(_QueueingWriter):
    """Writes once or a few times a turn; what the pipe does not take waits until the loop says it can."""

    __slots__ = ("_backlog", "_fd", "_grown", "_is_waiting", "_was_blocking")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, on_broken: OnEnd) -> None:
        super().__init__(loop, on_broken)
        self._fd = fd
        # Lines the pipe was too full for.
        self._backlog: deque[bytes | memoryview] = deque()
        self._is_waiting = False
        self._grown = False
        self._was_blocking = os.get_blocking(fd)
        os.set_blocking(fd, False)

    def flush(self) -> None:
        frames = self._outbox
        if not frames or self._is_waiting or not self._is_open:
            return
        self._outbox = []
        if self._queued_bytes > LOW_WATER_BYTES:
            self._backlog.extend(_lines(frames))
            self._write_backlog()
            return
        # The common case: at most one pipe full, copied together and gone in one write.
        frames.append(b"")
        data = b"\n".join(frames)
        try:
            written = os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError as error:
            self._break(error)
            return
        self._queued_bytes = len(data) - written
        if self._queued_bytes:
            self._backlog.append(memoryview(data)[written:])
            self._wait_until_writable()
        if self._waiters:
            self._wake()

    def close(self) -> None:
        if not self._is_open:
            return
        self._stop_waiting()
        self._backlog.clear()
        self._forget_queue()
        _give_back(self._fd, self._was_blocking)

    async def wait_closed(self, timeout_s: float) -> None:
        return

    def _write_backlog(self) -> None:
        backlog = self._backlog
        # At most 16 pieces a call: what every system takes in one writev.
        pieces = [backlog[i] for i in range(min(len(backlog), 16))]
        try:
            written = os.writev(self._fd, pieces)
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError as error:
            self._break(error)
            return
        self._queued_bytes -= written
        while backlog and written >= len(backlog[0]):
            written -= len(backlog.popleft())
        if written:
            backlog[0] = memoryview(backlog[0])[written:]
        if self._waiters:
            self._wake()
        if backlog:
            self._wait_until_writable()
        else:
            self._stop_waiting()
            self.flush()

    def _wait_until_writable(self) -> None:
        if not self._grown:
            self._grown = True
            grow_pipe(self._fd)
        if not self._is_waiting:
            self._is_waiting = True
            self._loop.add_writer(self._fd, self._write_backlog)

    def _stop_waiting(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._loop.remove_writer(self._fd)


def _lines(frames: list[bytes]) -> list[bytes]:
    # Small frames are joined, large ones stay where they are: a 10 MB frame is not copied.
    lines: list[bytes] = []
    small: list[bytes] = []
    for frame in frames:
        if len(frame) < BATCH_FRAME_BYTES:
            small.append(frame)
            continue
        if small:
            small.append(b"")
            lines.append(b"\n".join(small))
        lines.append(frame)
        # The line end of this frame begins the next piece.
        small = [b""]
    small.append(b"")
    lines.append(b"\n".join(small))
    return lines


def _give_back(fd: int, was_blocking: bool) -> None:
    # O_NONBLOCK belongs to the open file, which others may share with us: leave it as it was.
    if was_blocking:
        with contextlib.suppress(OSError):
            os.set_blocking(fd, True)
    os.close(fd)


# --- a thread each ----------------------------------------------------------------------------


class ThreadReader:
    """A thread reads one chunk at a time and waits until the loop has taken it.

    On POSIX it can be woken while it waits for input. On Windows it cannot: a reader that is
    closed while nothing comes leaves its daemon thread, which closes the descriptor when its
    read returns.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, on_chunk: OnChunk, on_end: OnEnd
    ) -> None:
        self._loop = loop
        self._fd = fd
        self.on_chunk = on_chunk
        self._on_end = on_end
        self._closed = asyncio.Event()
        self._is_open = True
        self._is_over = False
        self._is_started = False
        # Guards the three flags below, which the thread and the loop share.
        self._turn = threading.Condition()
        self._may_read = False
        self._is_chunk_out = False
        self._is_stopping = False
        # A chunk that came while paused.
        self._kept: tuple[bytes, OSError | None] | None = None
        self._alarm: tuple[int, int] | None = None if sys.platform == "win32" else os.pipe()

    def resume(self) -> None:
        if not self._is_open:
            return
        with self._turn:
            self._may_read = True
            self._turn.notify()
        kept, self._kept = self._kept, None
        if kept is not None:
            self._loop.call_soon(self._deliver, *kept)
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._run, name="dragoman-reader", daemon=True).start()

    def pause(self) -> None:
        with self._turn:
            self._may_read = False

    def read_waiting(self) -> bool:
        # The thread is reading already; what it reads arrives as ever, and then the end.
        return self._is_over

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        with self._turn:
            self._is_stopping = True
            self._turn.notify()
            if self._alarm is not None:
                os.write(self._alarm[1], b"!")
        if not self._is_started:
            self._close_descriptors()
            self._closed.set()

    async def wait_closed(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()

    def _run(self) -> None:
        try:
            while self._wait_for_turn():
                chunk: bytes = b""
                failure: OSError | None = None
                try:
                    if not self._wait_for_input():
                        return
                    chunk = os.read(self._fd, READ_BYTES)
                except OSError as error:
                    failure = error
                with self._turn:
                    self._is_chunk_out = True
                self._loop.call_soon_threadsafe(self._deliver, chunk, failure)
                if not chunk:
                    return
        except RuntimeError:
            # The loop was closed without closing us: there is nobody to tell.
            pass
        finally:
            self._close_descriptors()
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._closed.set)

    def _wait_for_turn(self) -> bool:
        with self._turn:
            while not self._is_stopping and (self._is_chunk_out or not self._may_read):
                self._turn.wait()
            return not self._is_stopping

    def _wait_for_input(self) -> bool:
        """False when we are to stop instead."""
        if sys.platform == "win32" or self._alarm is None:
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._alarm[0], select.POLLIN)
        ready = dict(poll.poll())
        return self._alarm[0] not in ready

    def _deliver(self, chunk: bytes, failure: OSError | None) -> None:
        if not self._is_open:
            return
        if not self._may_read:
            self._kept = (chunk, failure)
            return
        if chunk:
            self.on_chunk(chunk)
        else:
            self._is_over = True
            self._on_end(failure)
        with self._turn:
            self._is_chunk_out = False
            self._turn.notify()

    def _close_descriptors(self) -> None:
        with self._turn:
            fd, self._fd = self._fd, -1
            alarm, self._alarm = self._alarm, None
            if fd >= 0:
                os.close(fd)
            if alarm is not None:
                os.close(alarm[0])
                os.close(alarm[1])


class ThreadWriter(_QueueingWriter):
    """A thread writes what each turn of the loop queued.

    A write that never returns (a stopped terminal, a full pipe on Windows) keeps its daemon
    thread and its descriptor until it does.
    """

    __slots__ = ("_closed", "_fd", "_is_started", "_is_stopping", "_pieces", "_turn")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, on_broken: OnEnd) -> None:
        super().__init__(loop, on_broken)
        self._fd = fd
        self._closed = asyncio.Event()
        self._is_started = False
        # Guards the two below, which the thread and the loop share.
        self._turn = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._is_stopping = False

    def flush(self) -> None:
        frames = self._outbox
        if not frames or not self._is_open:
            return
        self._outbox = []
        with self._turn:
            self._pieces.extend(_lines(frames))
            self._turn.notify()
        if not self._is_started:
            self._is_started = True
            threading.Thread(target=self._run, name="dragoman-writer", daemon=True).start()

    def close(self) -> None:
        if not self._is_open:
            return
        self._forget_queue()
        with self._turn:
            self._is_stopping = True
            self._pieces.clear()
            self._turn.notify()
        if not self._is_started:
            os.close(self._fd)
            self._closed.set()

    async def wait_closed(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()

    def _run(self) -> None:
        try:
            while (piece := self._next_piece()) is not None:
                self._write(piece)
        except OSError as error:
            self._tell(self._broken, error)
        finally:
            os.close(self._fd)
            self._tell(self._closed.set)

    def _next_piece(self) -> bytes | None:
        with self._turn:
            while not self._pieces and not self._is_stopping:
                self._turn.wait()
            return None if self._is_stopping else self._pieces.popleft()

    def _write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        # In slices, so that a writer that is closed stops soon.
        while rest and not self._is_stopping:
            written = os.write(self._fd, rest[:READ_BYTES])
            rest = rest[written:]
            self._tell(self._wrote, written)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        # RuntimeError: the loop was closed without closing us, so there is nobody to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    def _wrote(self, size: int) -> None:
        if self._is_open:
            self._queued_bytes -= size
            self._wake()

    def _broken(self, error: OSError) -> None:
        if self._is_open:
            self._forget_queue()
            self._on_broken(error)
