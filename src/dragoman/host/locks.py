"""A lock between processes: a file that one of them holds at a time, for a bounded wait."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from dragoman.host.state import open_private

__all__ = ["LOCK_WAIT_S", "FileLock", "LockTimeout"]

# 2 s: what is done under a lock takes well under a millisecond; who holds it longer was stopped.
LOCK_WAIT_S = 2.0

# 0.2 ms at first, some appends long; then longer, so that many who wait do not keep a core busy.
_FIRST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.02


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
        try:
            _unlock(self._fd)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Give the file back; nothing may hold the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _wait(self) -> None:
        give_up_at = time.monotonic() + self._wait_s
        pause_s = _FIRST_PAUSE_S
        while not _try_lock(self._fd):
            if time.monotonic() >= give_up_at:
                raise LockTimeout(f"another process has held {self.path} for {self._wait_s:g} s")
            # No system offers a lock with a deadline.
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
