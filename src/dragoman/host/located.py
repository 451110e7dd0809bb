"""JSON that people write, with the line of everything in it, for errors that say where.

Read as VS Code reads its settings: `//` and `/* */` comments, a comma before a closing bracket and
a byte order mark are allowed. Everything else is strict: a member that stands twice, NaN or half a
surrogate pair is a fault, because two programs would read it in two ways.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.client.files import read_bounded
from dragoman.errors import Misconfigured

__all__ = ["MAX_BYTES", "Located", "Pointer", "locate", "read_located"]

# The way to a value: member names and list indexes, from the outside in.
Pointer = tuple[str | int, ...]

# 16 MiB: some products keep their whole history in the file that holds their servers.
MAX_BYTES = 16 * 1024 * 1024
# 100 levels: a person's settings have five; more would only exhaust the stack.
MAX_DEPTH = 100

_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
_WORD = re.compile(r"[A-Za-z0-9_$+.-]+")
# A line ends as an editor counts it.
_LINE_END = re.compile(r"\r\n|\r|\n")
_DECODER = json.JSONDecoder()
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Located:
    """One file's `value` as plain JSON, and where everything in it stands.

    `digest` is "sha256:..." of the bytes that were read, so that a trust in exactly this content
    can be checked without reading twice.
    """

    path: Path
    value: Any
    digest: str = ""
    lines: Mapping[Pointer, int] = field(default_factory=dict, repr=False)

    def line(self, pointer: Sequence[str | int] = ()) -> int:
        """The 1-based line of a member's name, or of an item of a list.

        Of what is not there, the line of the nearest thing around it that is.
        """
        way = tuple(pointer)
        while way and way not in self.lines:
            way = way[:-1]
        return self.lines.get(way, 1)

    def place(self, pointer: Sequence[str | int] = ()) -> str:
        """Where it stands, as FILE:LINE."""
        return f"{self.path}:{self.line(pointer)}"

    def fault(self, pointer: Sequence[str | int], text: str) -> Misconfigured:
        """An error about it, to be raised; its text begins "FILE:LINE: "."""
        return Misconfigured(f"{self.place(pointer)}: {text}")


def read_located(path: Path) -> Located:
    """Read one file.

    Raises:
        Misconfigured: it cannot be read ("FILE: ..."), or is no JSON ("FILE:LINE: ..."; members
            that stand twice are all named, a line each).
    """
    data = read_bounded(path, MAX_BYTES)
    if data is None:
        raise Misconfigured(f"{path}: there is no such file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(data[: error.start].splitlines(keepends=True)) or 1
        if data[: error.start].endswith((b"\n", b"\r")):
            line += 1
        raise Misconfigured(f"{path}:{line}: is not UTF-8") from None
    return locate(text, path, digest=f"sha256:{hashlib.sha256(data).hexdigest()}")


def locate(text: str, path: Path, *, digest: str = "") -> Located:
    """The same for a text that has been read; `path` is what errors call it."""
    reader = _Reader(text.removeprefix("\ufeff"), path)
    value = reader.whole()
    return Located(path, value, digest, reader.lines)


class _Reader:
    """One pass over the text."""

    def __init__(self, text: str, path: Path) -> None:
        self._text = text
        self._path = path
        self._at = 0
        # Where the lines were counted up to: each is counted once.
        self._counted = 0
        self._line = 1
        self._twice: list[str] = []
        self.lines: dict[Pointer, int] = {}

    def whole(self) -> Any:
        """The one value of the text."""
        self._blank()
        self.lines[()] = self._here()
        value = self._value((), 0)
        self._blank()
        if self._at < len(self._text):
            raise self._fault(f"unexpected {self._next()} after the end")
        if self._twice:
            raise Misconfigured("\n".join(self._twice))
        return value

    def _value(self, way: Pointer, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._fault(f"is nested deeper than {MAX_DEPTH} levels")
        char = self._text[self._at : self._at + 1]
        if char == "{":
            return self._object(way, depth)
        if char == "[":
            return self._list(way, depth)
        if char == '"':
            return self._string()
        if number := _NUMBER.match(self._text, self._at):
            return self._number(number)
        word = _WORD.match(self._text, self._at)
        if word and word[0] in _WORDS:
            self._at = word.end()
            return _WORDS[word[0]]
        raise self._fault(f"expected a value, found {self._next()}")

    def _object(self, way: Pointer, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._at += 1
        while True:
            self._blank()
            if self._take("}"):
                return found
            if self._text[self._at : self._at + 1] != '"':
                raise self._fault(f'expected a name in double quotes or "}}", found {self._next()}')
            line = self._here()
            name = self._string()
            self._blank()
            if not self._take(":"):
                raise self._fault(f'expected ":" after {name!r}, found {self._next()}')
            self._blank()
            if name in found:
                first = self.lines[(*way, name)]
                self._twice.append(
                    f"{self._path}:{line}: {name!r} stands twice in one object; "
                    f"the first is on line {first}"
                )
            self.lines.setdefault((*way, name), line)
            found[name] = self._value((*way, name), depth + 1)
            self._blank()
            if not self._take(",") and self._text[self._at : self._at + 1] != "}":
                raise self._fault(f'expected "," or "}}", found {self._next()}')

    def _list(self, way: Pointer, depth: int) -> list[Any]:
        found: list[Any] = []
        self._at += 1
        while True:
            self._blank()
            if self._take("]"):
                return found
            item = (*way, len(found))
            self.lines[item] = self._here()
            found.append(self._value(item, depth + 1))
            self._blank()
            if not self._take(",") and self._text[self._at : self._at + 1] != "]":
                raise self._fault(f'expected "," or "]", found {self._next()}')

    def _string(self) -> str:
        # Called at a double quote, so that nothing but a text can be found.
        value: str
        try:
            value, end = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = min(error.pos, len(self._text))
            raise self._fault(f"a text is broken: {error.msg}") from None
        if _HALF_PAIR.search(value):
            raise self._fault("a text holds half a surrogate pair")
        self._at = end
        return value

    def _number(self, match: re.Match[str]) -> int | float:
        text = match[0]
        value: int | float
        try:
            value = int(text) if match[1] is None and match[2] is None else float(text)
        except ValueError:
            raise self._fault("a number has too many digits") from None
        if value in (float("inf"), float("-inf")):
            raise self._fault(f"the number {text} is too large")
        after = _WORD.match(self._text, match.end())
        if after:
            raise self._fault(f"{text + after[0]!r} is no number")
        self._at = match.end()
        return value

    def _take(self, char: str) -> bool:
        if not self._text.startswith(char, self._at):
            return False
        self._at += 1
        return True

    def _blank(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        if self._text.startswith("/*", self._at):
            raise self._fault("a comment has no end")

    def _here(self) -> int:
        """The line of where we are."""
        # A \r\n is never cut in two: no token begins between the two.
        self._line += len(_LINE_END.findall(self._text, self._counted, self._at))
        self._counted = self._at
        return self._line

    def _next(self) -> str:
        if self._at >= len(self._text):
            return "the end of the file"
        word = _WORD.match(self._text, self._at)
        return ascii(word[0][:40] if word else self._text[self._at])

    def _fault(self, what: str) -> Misconfigured:
        return Misconfigured(f"{self._path}:{self._here()}: {what}")
