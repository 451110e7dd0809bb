"""The state folder: what the host remembers between runs, readable by its owner alone.

A folder or a file that somebody else could have written is refused: a grant in it would be theirs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from dragoman.errors import Misconfigured

__all__ = ["StateDir", "open_private", "private_folder"]

# Windows gives files to their user through the profile folder's own access list, which `chmod`
# bits do not show.
_HAS_MODES = os.name != "nt"

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class StateDir:
    """The folder and what lies in it; made, with mode 0700, when it is missing.

    Without `path` it is `$XDG_STATE_HOME/dragoman`, or `~/.local/state/dragoman`.

    Raises:
        Misconfigured: it belongs to another user, others may write to it, or it cannot be made;
            the text says what to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        chosen = (
            Path(path)
            if path is not None
            else _default_path(os.environ if environ is None else environ)
        )
        self.path = private_folder(chosen)

    @property
    def grants(self) -> Path:
        """The database of the grant store."""
        return self.path / "grants.sqlite"

    @property
    def audit(self) -> Path:
        """The audit log; what belongs to it lies beside it."""
        return self.folder("audit") / "audit.jsonl"

    @property
    def definitions(self) -> Path:
        """The folder of the definitions that were reviewed."""
        return self.folder("definitions")

    def folder(self, name: str) -> Path:
        """A folder in it, made when it is missing and checked as the state folder itself is."""
        return private_folder(self.path / name)

    def __str__(self) -> str:
        return str(self.path)


def _default_path(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_STATE_HOME", "")
    # A relative path there is to be ignored, says the XDG base directory specification.
    if base and Path(base).is_absolute():
        return Path(base) / "dragoman"
    home = environ.get("HOME", "")
    return (Path(home) if home else Path.home()) / ".local" / "state" / "dragoman"


def private_folder(path: Path) -> Path:
    """The folder, made with mode 0700 when it is missing.

    One that exists keeps its mode as long as only its owner may write to it: the files in it have
    their own.

    Raises:
        Misconfigured: see `StateDir`.
    """
    try:
        if not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            # The mode is given when it is made, so that there is no moment with another one.
            path.mkdir(mode=0o700, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise Misconfigured(f"the folder {path} cannot be used: {error.strerror}") from None
    _check_owner(path, status, "folder", "0700")
    return path


def open_private(path: Path, flags: int) -> int:
    """Open a file with mode 0600, made with it when `flags` have O_CREAT; returns the descriptor.

    A symbolic link is not followed. A file that others may read is closed to them.

    Raises:
        Misconfigured: it is no plain file, belongs to another user, or others may write to it.
        OSError: it cannot be opened.
    """
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    # O_NONBLOCK: opening a pipe that somebody put there must not wait for its other end.
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise Misconfigured(f"{path} is a symbolic link; put the file itself there")
    fd = os.open(path, flags, 0o600)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Misconfigured(f"{path} is no plain file; move it away")
        _check_owner(path, status, "file", "0600")
        if _HAS_MODES and stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_owner(path: Path, status: os.stat_result, what: str, mode: str) -> None:
    if not _HAS_MODES:
        return
    if status.st_uid != os.geteuid():
        raise Misconfigured(
            f"the {what} {path} belongs to user {status.st_uid} and not to {os.geteuid()}, who"
            " runs this; name another one, or give it to that user with chown"
        )
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise Misconfigured(
            f"others than its owner may write to the {what} {path}; if what is in it is yours,"
            f" close it with: chmod {mode} {path}"
        )
