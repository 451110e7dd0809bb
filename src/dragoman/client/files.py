"""Reading a file that a person named: whole, bounded, and never waiting for anybody."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dragoman.errors import Misconfigured

__all__ = ["read_bounded"]

# A pipe without a writer would be waited for, and a terminal would become ours.
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """The bytes of a regular file; None when there is none of that name.

    Pipes, devices, sockets and folders are refused: they may have no end, or no beginning.

    Raises:
        Misconfigured: it is something else, cannot be read, or is larger ("FILE: ...").
    """
    try:
        # Before it is opened, since opening a device may already do something; and after it,
        # since another one may stand there by then.
        _check(path, os.stat(path))
        with open(os.open(path, _FLAGS), "rb") as file:
            _check(path, os.fstat(file.fileno()))
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        if os.path.islink(path):
            raise Misconfigured(f"{path}: is a link to nothing") from None
        return None
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise Misconfigured(f"{str(path)!a}: cannot be a file's name") from None
    if len(data) > max_bytes:
        raise Misconfigured(f"{path}: is larger than {max_bytes} bytes")
    return data


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = next((words for test, words in _KINDS if test(found.st_mode)), "no regular file")
        raise Misconfigured(f"{path}: is {what}; it must be a regular file")


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
