"""Our own standard streams as a link: the server's side of stdio.

The streams are taken before any user code runs. From then on descriptor 1 is stderr and
descriptor 0 is empty, so neither a print, nor a C library, nor a child process can write into the
conversation or eat a part of it.

Spec: basic/transports#stdio
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from types import FrameType

from dragoman.errors import LinkClosed, Misconfigured, WrongState
from dragoman.transport.stdio.limits import MAX_FRAME_BYTES, PARENT_WAIT_S, REPEAT_S
from dragoman.transport.stdio.link import PipeLink

__all__ = ["StandardStreams", "StdioServerLink", "on_stop_signal", "take_streams"]

_STDIN, _STDOUT, _STDERR = 0, 1, 2

_taken: StandardStreams | None = None


def take_streams() -> StandardStreams:
    """Take the process's stdin and stdout away from everyone else, once.

    A second call returns the same object until it is given back. Call it as early as possible;
    text that lies in the buffer of `sys.stdout` goes to stderr.

    Raises:
        Misconfigured: stdin or stdout is closed.
    """
    global _taken
    if _taken is None:
        _taken = StandardStreams()
    return _taken


class StandardStreams:
    """The real stdin and stdout, held until `give_back`; see `take_streams`.

    `input_fd` and `output_fd` are private copies that no child inherits.
    """

    def __init__(self) -> None:
        # Python sets these to None when it starts without the descriptor, whose number may since
        # have been given to something else.
        for stream, fd, name in (
            (sys.__stdin__, _STDIN, "stdin"),
            (sys.__stdout__, _STDOUT, "stdout"),
        ):
            if stream is None or not _is_open(fd):
                raise Misconfigured(
                    f"this process has no {name}, so it cannot serve over stdio; "
                    "start it from an MCP client or with pipes"
                )
        has_stderr = sys.__stderr__ is not None and _is_open(_STDERR)
        null = os.open(os.devnull, os.O_RDWR)
        if null == _STDERR:
            # It was free: let nothing else take the place where C libraries write.
            null = os.dup(null)
        self.input_fd = os.dup(_STDIN)
        self.output_fd = os.dup(_STDOUT)
        self.in_use = False
        self._stderr_fd: int | None = None
        self._is_given_back = False
        if sys.platform == "win32":
            import msvcrt

            msvcrt.setmode(self.input_fd, os.O_BINARY)
            msvcrt.setmode(self.output_fd, os.O_BINARY)
        try:
            if has_stderr and _is_same_stream(_STDOUT, _STDERR):
                # Someone merged stderr into stdout: what is printed now would be on the wire.
                self._stderr_fd = os.dup(_STDERR)
                os.dup2(null, _STDERR)
            os.dup2(null, _STDIN)
            os.dup2(_STDERR if has_stderr else null, _STDOUT)
        finally:
            os.close(null)
        self._was_line_buffered = _set_line_buffered(True)

    def copies(self) -> tuple[int, int]:
        """Two new descriptors, to read and to write, for a link to own."""
        return os.dup(self.input_fd), os.dup(self.output_fd)

    def give_back(self) -> None:
        """Put stdin, stdout and stderr back as they were."""
        global _taken
        if self._is_given_back:
            return
        self._is_given_back = True
        # What was printed meanwhile belongs to stderr still.
        _set_line_buffered(self._was_line_buffered)
        os.dup2(self.input_fd, _STDIN)
        os.dup2(self.output_fd, _STDOUT)
        os.close(self.input_fd)
        os.close(self.output_fd)
        if self._stderr_fd is not None:
            os.dup2(self._stderr_fd, _STDERR)
            os.close(self._stderr_fd)
        if _taken is self:
            _taken = None


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_same_stream(one: int, other: int) -> bool:
    if sys.platform == "win32":
        # Pipes have no identity there: any two would look the same.
        return False
    try:
        mode = os.fstat(one).st_mode
        # On a terminal all three are the same, and a person wants to see what is printed.
        return os.path.sameopenfile(one, other) and not stat.S_ISCHR(mode)
    except OSError:
        return False


def _set_line_buffered(wanted: bool) -> bool:
    """Flush `sys.stdout` and change its buffering, so that prints appear; returns the old one."""
    stream = sys.stdout
    # Replaced by a notebook or a test runner, or absent: not ours to change.
    if not isinstance(stream, io.TextIOWrapper):
        return False
    was = stream.line_buffering
    with contextlib.suppress(OSError, ValueError):
        stream.flush()
        stream.reconfigure(line_buffering=wanted)
    return was


class StdioServerLink(PipeLink):
    """The link to whoever started this process; it needs a running event loop.

    Closing it gives the streams back.

    With `watch_parent` the link also ends when the parent process has died while something else
    holds stdin open (on Linux). The watch begins with the first frame, so a launcher that only
    hands over its streams and leaves does not count; and frames that still arrive after the
    parent's death prove that the client lives elsewhere.
    """

    def __init__(
        self,
        streams: StandardStreams | None = None,
        *,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        watch_parent: bool = True,
    ) -> None:
        self._streams = streams or take_streams()
        if self._streams.in_use:
            raise WrongState("serving", "the standard streams hold one link at a time")
        self._streams.in_use = True
        super().__init__(*self._streams.copies(), max_frame_bytes=max_frame_bytes)
        self._parent: _ParentWatch | None = None
        self._parent_timer: asyncio.TimerHandle | None = None
        if watch_parent:
            self._reader.on_chunk = self._first_chunk_came

    def _release(self) -> None:
        self._forget_parent()
        super()._release()
        self._streams.in_use = False
        self._streams.give_back()

    def _first_chunk_came(self, chunk: bytes) -> None:
        self._reader.on_chunk = self._chunk_came
        self._parent = _ParentWatch.begin(self._loop, self._parent_died)
        self._chunk_came(chunk)

    def _parent_died(self) -> None:
        # Nearly always stdin ends in the same moment, and that is the better end.
        self._reader.on_chunk = self._chunk_came_without_parent
        self._parent_timer = self._loop.call_later(PARENT_WAIT_S, self._orphaned)

    def _chunk_came_without_parent(self, chunk: bytes) -> None:
        self._reader.on_chunk = self._chunk_came
        self._forget_parent()
        self._chunk_came(chunk)

    def _orphaned(self) -> None:
        self._cannot_send = "the process that started this server is gone"
        self._reader.pause()
        self._end(LinkClosed(f"{self._cannot_send}, though something holds stdin open"))

    def _forget_parent(self) -> None:
        if self._parent is not None:
            self._parent.close()
            self._parent = None
        if self._parent_timer is not None:
            self._parent_timer.cancel()
            self._parent_timer = None


class _ParentWatch:
    """Calls back when the process that started us ends."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, on_death: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._on_death = on_death
        loop.add_reader(fd, self._died)

    @classmethod
    def begin(
        cls, loop: asyncio.AbstractEventLoop, on_death: Callable[[], None]
    ) -> _ParentWatch | None:
        """A watch, or None where there is nothing to watch or no way to."""
        if sys.platform != "linux":
            return None
        parent = os.getppid()
        # OSError: an old kernel, or a parent outside our namespace (its number is 0 then).
        try:
            fd = os.pidfd_open(parent)
        except OSError:
            return None
        if os.getppid() != parent:
            # It ended in between, so the number may be another's by now.
            os.close(fd)
            return None
        return cls(loop, fd, on_death)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _died(self) -> None:
        self.close()
        self._on_death()


def on_stop_signal(callback: Callable[[signal.Signals], None]) -> Callable[[], None]:
    """Have SIGINT and SIGTERM call `callback` in the running loop; returns what undoes it.

    A second signal of the same kind, more than `REPEAT_S` after the first, ends the process as if
    nobody handled it: the loop may be held up by a handler that never gives it back.

    Only the main thread can take signals: elsewhere this does nothing.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    first_at: dict[int, float] = {}

    def tell(number: int, frame: FrameType | None) -> None:
        # Python calls this between any two steps of the main thread, whether the loop turns or not.
        now = loop.time()
        if now - first_at.setdefault(number, now) > REPEAT_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif sys.platform == "win32":
            # The loop may be closing just now; then it ends anyway.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(callback, signal.Signals(number))

    for number in before:
        if sys.platform != "win32":
            # This also has the loop woken up whichever thread the system gives the signal to.
            loop.add_signal_handler(number, callback, number)
        signal.signal(number, tell)

    def undo() -> None:
        for number, handler in before.items():
            if sys.platform != "win32" and not loop.is_closed():
                loop.remove_signal_handler(number)
            # None: a handler that was not installed from Python and cannot be put back.
            if handler is not None:
                signal.signal(number, handler)

    return undo
