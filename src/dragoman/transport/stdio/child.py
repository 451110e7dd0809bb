"""A server as a child process: start it, talk to it, and leave nothing of it behind.

Spec: basic/transports#stdio, basic/lifecycle#shutdown
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dragoman.errors import CannotStart, ChildExited, LinkClosed, LinkError, Misconfigured
from dragoman.transport.base import Receiver
from dragoman.transport.stdio.command import child_environment, explain_failed_start, resolve
from dragoman.transport.stdio.limits import (
    CLOSE_WAIT_S,
    END_WAIT_S,
    FLUSH_WAIT_S,
    GROUP_POLL_S,
    GROUP_WAIT_S,
    MAX_FRAME_BYTES,
    STDERR_LINE_BYTES,
    STDERR_TAIL_BYTES,
    TERM_WAIT_S,
)
from dragoman.transport.stdio.link import PipeLink
from dragoman.transport.stdio.pipes import open_reader

__all__ = ["ChildLink", "StdioConnector"]

logger = logging.getLogger("dragoman.transport")


@dataclass(frozen=True, kw_only=True, slots=True)
class StdioConnector:
    """How to start one server as a child process; each `connect` starts it anew.

    `command` is a program name or path and `args` what follows it, never a shell line. The child
    gets a short list of our environment variables (see `child_environment`) and, over them, `env`.
    `stderr` is called with each line the child writes there, without its line end; it must return
    soon. `close_wait_s` and `term_wait_s` bound the two patient steps of the shutdown.

    With `guard`, a small shell process watches over us: when we are killed without warning it
    ends the child's whole process group. Without it a child sees the end of its stdin, and one
    that ignores that goes on. POSIX only.
    """

    command: str
    args: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    cwd: str | Path | None = None
    stderr: Callable[[str], object] | None = None
    max_frame_bytes: int = MAX_FRAME_BYTES
    close_wait_s: float = CLOSE_WAIT_S
    term_wait_s: float = TERM_WAIT_S
    guard: bool = False

    @property
    def description(self) -> str:
        """The command line, for people."""
        return " ".join([self.command, *self.args])

    async def connect(self) -> ChildLink:
        """Start the child.

        Raises:
            CannotStart: there is no such program or directory, or it may not be executed.
            Misconfigured: `guard` was asked for where there is none.
        """
        if self.guard and sys.platform == "win32":
            raise Misconfigured("guard needs a POSIX system; leave it out on Windows")
        # No await from here on: whoever cancels this finds a link or no process at all.
        return ChildLink(self)


# A session of its own: the terminal's Ctrl-C reaches us and not the child, which we end in order.
_OWN_SESSION = sys.platform != "win32"
if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
else:
    _CREATION_FLAGS = 0


class ChildLink(PipeLink):
    """The link to one child process.

    The end is reported when the child has exited and all it left in its pipes is delivered, with
    its exit code and the end of its stderr; what other processes still hold open is not waited
    for.
    """

    def __init__(self, connector: StdioConnector) -> None:
        self.command = (connector.command, *connector.args)
        self._connector = connector
        self._process, input_fd, output_fd, stderr_fd = _spawn(connector)
        #: The child's process id; on POSIX also the id of its process group.
        self.pid = self._process.pid
        try:
            self._guard = (
                _Guard(self.pid, connector.close_wait_s, connector.term_wait_s)
                if connector.guard
                else None
            )
        except OSError as error:
            self._process.kill()
            self._process.wait()
            for fd in (input_fd, output_fd, stderr_fd):
                os.close(fd)
            raise CannotStart(f"the guard cannot start: {error}", command=self.command) from error
        super().__init__(input_fd, output_fd, max_frame_bytes=connector.max_frame_bytes)
        self._stderr = _StderrDrain(self._loop, stderr_fd, connector.stderr, self._settle)
        self._exited = asyncio.Event()
        self._exit_watch = _ExitWatch(self._loop, self._process, self._child_exited)
        self._input_is_over = False
        # Runs from the first sign of the end to the second: a pipe's end, or the exit.
        self._end_timer: asyncio.TimerHandle | None = None
        self._is_hurried = False
        # Ends what the child left in its group; None when it left nothing.
        self._leftovers: asyncio.Task[None] | None = None
        # A group without members gives its number back, and then it may be a stranger's.
        self._group_is_gone = False

    @property
    def exit_code(self) -> int | None:
        """The exit status, negative for a signal; None while the child runs."""
        return self._process.returncode

    @property
    def stderr_tail(self) -> str:
        """The last of what the child wrote to stderr, at most `STDERR_TAIL_BYTES`."""
        return self._stderr.tail

    def start(self, receiver: Receiver) -> None:
        """Begin to read and to deliver; a child that is gone already is reported soon."""
        super().start(receiver)
        self._loop.call_soon(self._settle)

    def resume_reading(self) -> None:
        """Read again."""
        super().resume_reading()
        self._loop.call_soon(self._settle)

    async def aclose(self) -> None:
        """Close the child's stdin, wait, SIGTERM its group, wait, SIGKILL it, and reap.

        A cancellation skips the patience and not the cleaning: the group is killed at once.
        Spec: basic/lifecycle#shutdown
        """
        await super().aclose()

    # --- how it ends by itself ---

    def _child_exited(self) -> None:
        self._exited.set()
        # At once, while the number of its group can only mean what the child left behind.
        if self._ask_group_to_end():
            self._leftovers = self._loop.create_task(self._stop_group())
        self._settle()

    def _input_over(self, error: OSError | None) -> None:
        self._input_is_over = True
        self._deliver_rest()
        self._expect_end()

    def _output_broken(self, error: OSError | None) -> None:
        # Nearly always the child is exiting, and its last words are still in the other pipe.
        self._cannot_send = "the server no longer reads its stdin"
        self._expect_end()

    def _expect_end(self) -> None:
        if self._exited.is_set():
            self._settle()
        elif self._end_timer is None and not self._has_ended:
            self._end_timer = self._loop.call_later(END_WAIT_S, self._give_up_waiting)

    def _settle(self) -> None:
        """Report the end if the child is gone and nothing it left is still to be delivered."""
        if not self._exited.is_set() or self._receiver is None or self._has_ended:
            return
        if self._is_paused and not self._input_is_over:
            return
        # Both: each has to empty its pipe.
        is_empty = [self._stderr.read_waiting(), self._reader.read_waiting()]
        if self._is_paused and not self._input_is_over:
            return
        if all(is_empty):
            self._report_end()
        elif self._end_timer is None:
            self._end_timer = self._loop.call_later(END_WAIT_S, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        self._end_timer = None
        if self._is_paused and self._exited.is_set() and not self._input_is_over:
            return
        self._report_end()

    def _report_end(self) -> None:
        if self._has_ended:
            return
        error: LinkError
        if self._exited.is_set():
            self._deliver_rest()
            error = self._exit_error()
            self._cannot_send = "the server process has ended"
        elif self._input_is_over:
            self._cannot_send = "the server closed its stdout and runs on"
            error = LinkClosed(self._cannot_send)
        else:
            error = LinkClosed("the server no longer reads its stdin and runs on")
        self._reader.pause()
        self._writer.close()
        self._end(error)

    def _exit_error(self) -> ChildExited:
        code = self._process.returncode
        detail = ""
        if code is not None and code < 0:
            # ValueError: a real-time signal, which has no name here.
            with contextlib.suppress(ValueError):
                detail = f"({signal.Signals(-code).name})"
        return ChildExited(
            command=self.command, exit_code=code, stderr_tail=self._stderr.tail, detail=detail
        )

    # --- how we end it ---

    def _hurry(self) -> None:
        self._is_hurried = True
        super()._hurry()
        self._kill_group()

    async def _close(self) -> None:
        try:
            self._end(None)
            # The child may have much to say before it goes: a full pipe would keep it here.
            self._reader.resume()
            await self._writer.finish(FLUSH_WAIT_S)
            self._writer.close()
            await self._stop_child()
            if self._leftovers is not None:
                await self._leftovers
        except asyncio.CancelledError:
            # The loop itself is being torn down.
            self._kill_group()
            if self._guard is not None:
                self._guard.kill()
            raise
        finally:
            self._release()
        await self._reader.wait_closed(END_WAIT_S)
        await self._writer.wait_closed(END_WAIT_S)
        await self._stderr.wait_closed(END_WAIT_S)
        if self._guard is not None:
            await self._guard.wait_closed()

    async def _stop_child(self) -> None:
        if await self._exits_within(self._connector.close_wait_s):
            return
        self._ask_group_to_end()
        if await self._exits_within(self._connector.term_wait_s):
            return
        self._kill_group()
        await self._exits_within(END_WAIT_S)

    async def _exits_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._exited.wait()
        except TimeoutError:
            return False
        return True

    async def _stop_group(self) -> None:
        if not self._is_hurried and await self._group_ends_within(GROUP_WAIT_S):
            return
        self._kill_group()
        await self._group_ends_within(GROUP_WAIT_S)

    async def _group_ends_within(self, timeout_s: float) -> bool:
        # They are not our children, so nothing tells us when they end: look again and again.
        deadline = self._loop.time() + timeout_s
        while self._signal_group(0) and _has_live_member(self.pid):
            if self._loop.time() >= deadline:
                return False
            await asyncio.sleep(GROUP_POLL_S)
        return True

    def _ask_group_to_end(self) -> bool:
        """True when there was someone to ask and it is known when they have ended."""
        if sys.platform == "win32":
            if not self._exited.is_set():
                with contextlib.suppress(OSError):
                    os.kill(self.pid, signal.CTRL_BREAK_EVENT)
            return False
        return self._signal_group(signal.SIGTERM)

    def _kill_group(self) -> None:
        if sys.platform == "win32":
            if self._process.poll() is None:
                subprocess.run(  # noqa: S603 - a number is all that varies
                    ["taskkill", "/T", "/F", "/PID", str(self.pid)],  # noqa: S607 - a part of Windows
                    capture_output=True,
                    check=False,
                )
                self._process.kill()
        else:
            self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> bool:
        """False when the group has no member left that we may signal."""
        if sys.platform == "win32" or self._group_is_gone:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            self._group_is_gone = self._exited.is_set()
            return False
        return True

    def _release(self) -> None:
        if self._process.poll() is None:
            self._kill_group()
            # A killed process is gone within milliseconds, unless the kernel holds it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_WAIT_S)
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._exit_watch.close()
        self._stderr.close()
        if self._guard is not None:
            self._guard.dismiss()
        super()._release()


def _spawn(connector: StdioConnector) -> tuple[subprocess.Popen[bytes], int, int, int]:
    """Start the child; returns it and our ends: to read, to write, and its stderr."""
    env = child_environment(connector.env)
    line = resolve(connector.command, connector.args, env, connector.cwd)
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for we_read in (True, False, True):
            read_end, write_end = os.pipe()
            ours.append(read_end if we_read else write_end)
            theirs.append(write_end if we_read else read_end)
        process = subprocess.Popen(  # noqa: S603 - starting what the user names is the task
            line,
            stdin=theirs[1],
            stdout=theirs[0],
            stderr=theirs[2],
            cwd=connector.cwd,
            env=env,
            start_new_session=_OWN_SESSION,
            creationflags=_CREATION_FLAGS,
        )
    except (OSError, ValueError) as error:
        for fd in ours:
            os.close(fd)
        raise explain_failed_start(error, connector.command, connector.args, env) from error
    finally:
        for fd in theirs:
            os.close(fd)
    return process, ours[0], ours[1], ours[2]


def _has_live_member(group: int) -> bool:
    """False when all that is left of a process group are zombies nobody reaps."""
    if sys.platform != "linux":
        return True
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        # It may end while we look.
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", encoding="latin-1") as stat:
                # After the name, which may hold anything: state, parent, group.
                state, _, its_group, *_ = stat.read().rpartition(")")[2].split()
            if int(its_group) == group and state not in "ZX":
                return True
    return False


class _ExitWatch:
    """Calls back once, from the loop, when a child process has exited; it is reaped then."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        process: subprocess.Popen[bytes],
        on_exit: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._process = process
        self._on_exit = on_exit
        self._fd = _process_descriptor(process.pid)
        self._is_open = True
        if self._fd is not None:
            loop.add_reader(self._fd, self._look)
        else:
            threading.Thread(target=self._wait, name="dragoman-exit", daemon=True).start()

    def close(self) -> None:
        self._is_open = False
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _look(self) -> None:
        if self._is_open and self._process.poll() is not None:
            self.close()
            self._on_exit()

    def _wait(self) -> None:
        self._process.wait()
        # RuntimeError: the loop was closed without closing us, so there is nobody to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._look)


def _process_descriptor(pid: int) -> int | None:
    if sys.platform == "linux":
        # An old kernel: a thread waits instead.
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None


class _StderrDrain:
    """Reads a child's stderr for as long as it lasts, and remembers its end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        on_line: Callable[[str], object] | None,
        on_end: Callable[[], None],
    ) -> None:
        self._on_line = on_line
        self._on_end = on_end
        self._tail = bytearray()
        self._is_cut = False
        self._line = bytearray()
        self._reader = open_reader(loop, fd, self._chunk_came, self._over)
        self._reader.resume()

    @property
    def tail(self) -> str:
        tail = bytes(self._tail)
        if self._is_cut:
            # The first line lacks its beginning; a single long line is shown all the same.
            tail = tail.partition(b"\n")[2] or tail
        return tail.decode("utf-8", "replace")

    def read_waiting(self) -> bool:
        return self._reader.read_waiting()

    def close(self) -> None:
        self._reader.close()
        self._finish_line()

    async def wait_closed(self, timeout_s: float) -> None:
        await self._reader.wait_closed(timeout_s)

    def _chunk_came(self, chunk: bytes) -> None:
        self._tail += chunk
        if len(self._tail) > STDERR_TAIL_BYTES:
            del self._tail[:-STDERR_TAIL_BYTES]
            self._is_cut = True
        if self._on_line is None:
            return
        self._line += chunk
        *lines, rest = bytes(self._line).split(b"\n")
        if len(rest) > STDERR_LINE_BYTES:
            lines.append(rest)
            rest = b""
        self._line = bytearray(rest)
        for line in lines:
            for start in range(0, len(line) or 1, STDERR_LINE_BYTES):
                self._tell(line[start : start + STDERR_LINE_BYTES])

    def _tell(self, line: bytes) -> None:
        if self._on_line is None:
            return
        try:
            self._on_line(line.removesuffix(b"\r").decode("utf-8", "replace"))
        except Exception:
            # It is the user's; a link must not fail for it, nor log once a line.
            self._on_line = None
            logger.exception("the callback for stderr failed and is not called again")

    def _over(self, error: OSError | None) -> None:
        self._finish_line()
        self._on_end()

    def _finish_line(self) -> None:
        if self._line:
            self._tell(bytes(self._line))
            self._line.clear()


# A shell that reads until the pipe from us ends. A line on it means that all is well. Its end
# without a line means that we were killed: the child gets a while to see that its stdin is closed,
# a while after SIGTERM, and then nothing of its group is left.
_GUARD_SCRIPT = (
    "trap '' HUP INT TERM; read -r line && exit 0; "
    'sleep "$2"; kill -s TERM -- "-$1" 2>/dev/null || exit 0; '
    'sleep "$3"; kill -s KILL -- "-$1" 2>/dev/null'
)


class _Guard:
    """A process that ends a child's group when ours is killed; see `StdioConnector.guard`."""

    def __init__(self, group: int, close_wait_s: float, term_wait_s: float) -> None:
        read_end, self._write_end = os.pipe()
        self._is_open = True
        self._exited = asyncio.Event()
        loop = asyncio.get_running_loop()
        numbers = [str(group), f"{close_wait_s:.3f}", f"{term_wait_s:.3f}"]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a number is all that varies
                ["/bin/sh", "-c", _GUARD_SCRIPT, "dragoman-guard", *numbers],
                stdin=read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except OSError:
            os.close(self._write_end)
            raise
        finally:
            os.close(read_end)
        self._exit_watch = _ExitWatch(loop, self._process, self._exited.set)

    def dismiss(self) -> None:
        if self._is_open:
            self._is_open = False
            # BrokenPipeError: someone ended the guard.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._write_end, b"over\n")
            os.close(self._write_end)

    async def wait_closed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_WAIT_S):
                await self._exited.wait()
        self.kill()

    def kill(self) -> None:
        """End and reap it at once."""
        self._exit_watch.close()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
