"""The three streams of a process: closed before it began, or with nobody and no room behind them."""

from __future__ import annotations

import errno
import os
import sys

__all__ = ["is_unwritten", "open_closed_streams", "write_nowhere"]

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))


def is_unwritten(error: BaseException) -> bool:
    """Whether a disk took no more of what was written: stdout's, as a rule."""
    return isinstance(error, OSError) and error.filename is None and error.errno in _FULL


def write_nowhere() -> None:
    """What is still buffered must not be tried again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def open_closed_streams() -> None:
    """A stream that was closed before we began is nowhere: else the next file or socket that is
    opened took its number, and what is printed went into that."""
    if None not in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        return
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        # A program that is started here has them, too.
        os.set_inheritable(null, True)
    os.close(null)
    # For as long as the process is there.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
