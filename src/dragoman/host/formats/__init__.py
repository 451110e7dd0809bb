"""The configuration files of other products: read, written, and carried from one to another.

Reading never starts anything and never changes the file. Writing makes a text from a text: what is
not touched stays as it was, comments and unknown members too, and what the product cannot hold is
listed. Whoever asked saves it, with `save`.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dragoman.client.files import read_bounded
from dragoman.errors import Misconfigured
from dragoman.host.formats.claude_code import ClaudeCode
from dragoman.host.formats.claude_desktop import ClaudeDesktop
from dragoman.host.formats.cline import Cline
from dragoman.host.formats.codex import Codex
from dragoman.host.formats.cursor import Cursor
from dragoman.host.formats.goose import Goose
from dragoman.host.formats.librechat import LibreChat
from dragoman.host.formats.own import Own, alias_for
from dragoman.host.formats.portable import Loss, Portable, move_secrets, secrets_in
from dragoman.host.formats.shape import Format, Imported, Skipped, Written
from dragoman.host.formats.takeover import Takeover, take_over
from dragoman.host.formats.vscode import VSCode
from dragoman.host.located import MAX_BYTES

__all__ = [
    "FORMATS",
    "Format",
    "Imported",
    "Loss",
    "Portable",
    "Skipped",
    "Takeover",
    "Written",
    "alias_for",
    "find_format",
    "move_secrets",
    "read_file",
    "read_text",
    "save",
    "secrets_in",
    "take_over",
]

# By the names that a command line takes; "dragoman" is our own mcp.json.
FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        Own(),
        ClaudeDesktop(),
        ClaudeCode(),
        VSCode(),
        Cursor(),
        Cline(),
        Codex(),
        Goose(),
        LibreChat(),
    )
}


def find_format(name: str) -> Format:
    """The format of that name, such as "claude-desktop". Raises Misconfigured."""
    if name in FORMATS:
        return FORMATS[name]
    near = " or ".join(map(repr, difflib.get_close_matches(name, FORMATS)))
    hint = f"did you mean {near}?" if near else f"there are {', '.join(FORMATS)}"
    raise Misconfigured(f"{name!r} is no known format; {hint}")


def read_text(path: Path) -> str:
    """A file's text with its line ends; empty when it is not there. Raises Misconfigured."""
    data = read_bounded(path, MAX_BYTES)
    if data is None:
        return ""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: is not UTF-8") from None


def read_file(path: Path, format: str) -> Imported:
    """The servers of a product's file; nothing is started and nothing is written.

    Raises:
        Misconfigured: there is no such file or format, or the file is not of it.
    """
    if not path.exists():
        raise Misconfigured(f"{path}: there is no such file")
    return find_format(format).read(read_text(path), path)


def save(path: Path, text: str, *, before: str) -> None:
    """Put `text` in the place of `before`, which is what the file held when it was read.

    All of it or nothing; the file's mode stays, and a new one is for its owner alone.

    Raises:
        Misconfigured: the file has changed meanwhile, or cannot be written.
    """
    if read_text(path) != before:
        raise Misconfigured(f"{path} has been changed by another program; try again")
    # Where a link leads to is what is changed, not the link.
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        if not mode & 0o222:
            # Its owner said that it stays as it is; a new file in its place would not ask.
            raise Misconfigured(f"{path} is read-only")
        fd, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with open(fd, "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {error.strerror or error}") from None
