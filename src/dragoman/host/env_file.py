"""Reading a `.env` file: variables for a server, one to a line."""

from __future__ import annotations

import re
from pathlib import Path

from dragoman.client.files import read_bounded
from dragoman.errors import Misconfigured

__all__ = ["read_env_file"]

# 1 MiB: a file of variables, not of data.
MAX_ENV_FILE_BYTES = 1024 * 1024

_ENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a `.env` file.

    A line is `NAME=value`, with `export` before it or not. Single quotes keep a value as it is,
    double quotes know the usual escapes, and either may span lines; without quotes ` #` begins a
    comment. Nothing in a value is filled in.

    Raises:
        Misconfigured: it cannot be read, or a line is none of these ("FILE:LINE: ...").
    """
    data = read_bounded(path, MAX_ENV_FILE_BYTES)
    if data is None:
        raise Misconfigured(f"{path}: there is no such file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Misconfigured(f"{path}: is not UTF-8") from None
    found: dict[str, str] = {}
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        start = at
        line = lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        if match is None:
            raise Misconfigured(f"{path}:{start + 1}: expected NAME=value")
        name, value = match.group(1), match.group(2)
        if value[:1] in ("'", '"'):
            while (end := _closing(value)) is None:
                if at == len(lines):
                    raise Misconfigured(f"{path}:{start + 1}: a quotation mark is not closed")
                value += "\n" + lines[at]
                at += 1
            rest = value[end + 1 :].strip()
            if rest and not rest.startswith("#"):
                raise Misconfigured(
                    f"{path}:{at}: unexpected text after the closing quotation mark"
                )
            value = _unquoted(value[: end + 1])
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()
        found[name] = value
    return found


def _closing(value: str) -> int | None:
    """Where a quoted value ends."""
    quote, at = value[0], 1
    while at < len(value):
        if value[at] == "\\" and quote == '"':
            at += 1
        elif value[at] == quote:
            return at
        at += 1
    return None


def _unquoted(value: str) -> str:
    inside = value[1:-1]
    if value[0] == "'":
        return inside
    return re.sub(
        r"\\(.)",
        lambda match: _ESCAPES.get(match.group(1), match.group(0)),
        inside,
        flags=re.DOTALL,
    )
