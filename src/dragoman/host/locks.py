"""A lock between processes: a file that one of them holds at a time, for a bounded wait."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from dragoman.host.state import open_private

__all__ = ["LOCK_WAIT_S", "FileLock", "InTurn", "LockTimeout", "pauses"]

T = TypeVar("T")

# 2 s: what is done under a lock takes well under a millisecond; who holds it longer was stopped.
LOCK_WAIT_S = 2.0

# 0.2 ms at first, some appends long; then longer, so that many who wait do not keep a core busy.
_FIRST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.02


def pauses(give_up_at: float) -> Iterator[float]:
    """How long to pause between one attempt and the next, until that time (`time.monotonic`)."""
    pause_s = _FIRST_PAUSE_S
    while time.monotonic() < give_up_at:
        yield pause_s
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class LockTimeout(Exception):
    """The lock was held by somebody else for as long as we waited."""


class FileLock:
    """Held by one thread of one process at a time; the system lets go of it when a process dies.

    Use it with `with`. It is not reentrant.

    Raises:
        LockTimeout: on entering, after `wait_s` seconds.
        Misconfigured: the file is not ours alone.
        OSError: the file cannot be opened or locked.
    """

    def __init__(self, path: Path, *, wait_s: float = LOCK_WAIT_S) -> None:
        self.path = path
        self._wait_s = wait_s
        self._threads = threading.Lock()
        self._fd = open_private(path, os.O_RDWR | os.O_CREAT)

    def take(self) -> bool:
        """Take it if nobody holds it, without waiting; then `leave` gives it back.

        Raises:
            OSError: the file cannot be locked.
        """
        if not self._threads.acquire(blocking=False):
            return False
        try:
            # Not `_try_lock`: this is on the way of every call.
            _lock(self._fd, _HOLD)
        except BlockingIOError:
            self._threads.release()
            return False
        except BaseException:
            self._threads.release()
            raise
        return True

    def leave(self) -> None:
        """Give it back."""
        try:
            _lock(self._fd, _RELEASE)
        finally:
            self._threads.release()

    def __enter__(self) -> FileLock:
        if not self._threads.acquire(timeout=self._wait_s):
            raise LockTimeout(f"another thread holds {self.path}")
        try:
            if not _try_lock(self._fd):
                self._wait()
        except BaseException:
            self._threads.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def close(self) -> None:
        """Give the file back; nothing may hold the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _wait(self) -> None:
        for pause_s in pauses(time.monotonic() + self._wait_s):
            # No system offers a lock with a deadline.
            time.sleep(pause_s)
            if _try_lock(self._fd):
                return
        raise LockTimeout(f"another process has held {self.path} for {self._wait_s:g} s")


class InTurn:
    """Waits for what another process holds, while the event loop goes on; whoever came first is
    served first.

    `is_held` says of an error that the attempt met a lock; other errors end the wait.
    """

    def __init__(self, is_held: type[Exception], *, wait_s: float = LOCK_WAIT_S) -> None:
        self._is_held = is_held
        self._wait_s = wait_s
        self._waiting = 0
        self._turn: asyncio.Lock | None = None

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits."""
        return self._waiting > 0

    async def do(self, attempt: Callable[[], T]) -> T:
        """What the attempt gives; made again until nothing stands against it, or time is up.

        Raises:
            Exception: what the attempt raises, at last also that it met a lock.
        """
        if not self._waiting:
            try:
                return attempt()
            except self._is_held:
                # Of whoever waits already, and of us, the first comes first.
                self._turn = asyncio.Lock()
        turn = self._turn
        assert turn is not None
        self._waiting += 1
        # Counted from here, however many are before us.
        attempts = pauses(time.monotonic() + self._wait_s)
        try:
            async with turn:
                while True:
                    try:
                        return attempt()
                    except self._is_held:
                        pause_s = next(attempts, None)
                        if pause_s is None:
                            raise
                    await asyncio.sleep(pause_s)
        finally:
            self._waiting -= 1


if sys.platform == "win32":
    import msvcrt

    _HOLD, _RELEASE = msvcrt.LK_NBLCK, msvcrt.LK_UNLCK

    def _lock(fd: int, how: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            msvcrt.locking(fd, how, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from None

else:
    import fcntl

    _HOLD, _RELEASE = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN

    _lock = fcntl.flock


def _try_lock(fd: int) -> bool:
    try:
        _lock(fd, _HOLD)
    except BlockingIOError:
        return False
    return True
