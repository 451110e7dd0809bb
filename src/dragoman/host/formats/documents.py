"""Files in JSON, TOML and YAML that are changed in place: what is not touched stays as it was."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Protocol

from dragoman.errors import Misconfigured, MissingExtra
from dragoman.host.formats.json_text import remove_member, set_member
from dragoman.host.located import MAX_BYTES, locate

__all__ = ["Document", "JsonDocument", "TomlDocument", "YamlDocument"]

# 100,000 values: aliases in YAML can make a few lines into more than fits into memory.
MAX_VALUES = 100_000


class Document(Protocol):
    """One file's text, open for changes of single members."""

    @property
    def text(self) -> str:
        """As it is now."""

    @property
    def value(self) -> Any:
        """As it is now, as plain JSON."""

    def set(self, way: Sequence[str], value: Any) -> None:
        """Give the member at `way` a value; tables on the way are made. Raises Misconfigured."""

    def remove(self, way: Sequence[str]) -> None:
        """Take a member out, if it is there. Raises Misconfigured."""


class _Checked:
    """What is common: each change is compared with what it should have done.

    A library that keeps comments can misplace a member; then nothing is changed.
    """

    def __init__(self, text: str, path: Path) -> None:
        if len(text) > MAX_BYTES:
            raise Misconfigured(f"{path}: is larger than {MAX_BYTES} bytes")
        self._path = path
        self.text = text
        self.value = self._read(text)

    def set(self, way: Sequence[str], value: Any) -> None:
        """Give the member at `way` a value."""
        wanted = copy.deepcopy(self.value)
        inner = wanted
        for name in way[:-1]:
            if not isinstance(inner, dict):
                break
            inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            raise Misconfigured(f"{self._path}: {'.'.join(way[:-1])!r} is no table")
        inner[way[-1]] = value
        self._become(self._with(way, value), wanted)

    def remove(self, way: Sequence[str]) -> None:
        """Take a member out, if it is there."""
        wanted = copy.deepcopy(self.value)
        inner = wanted
        for name in way[:-1]:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or way[-1] not in inner:
            return
        del inner[way[-1]]
        self._become(self._without(way), wanted)

    def _become(self, text: str, wanted: Any) -> None:
        value = self._read(text)
        if value != wanted:
            raise Misconfigured(
                f"{self._path}: cannot be changed without touching something else in it; change it "
                "by hand"
            )
        self.text = text
        self.value = value

    def _read(self, text: str) -> Any:
        raise NotImplementedError

    def _with(self, way: Sequence[str], value: Any) -> str:
        raise NotImplementedError

    def _without(self, way: Sequence[str]) -> str:
        raise NotImplementedError


class JsonDocument(_Checked):
    """JSON with comments. Raises Misconfigured: it is none."""

    def _read(self, text: str) -> Any:
        return locate(text, self._path).value if text.strip("\ufeff \t\r\n") else {}

    def _with(self, way: Sequence[str], value: Any) -> str:
        if "\r\n" in self.text and self.text.count("\r\n") == self.text.count("\n"):
            # Every line ends so, and new ones shall, too; a text in JSON holds no line end.
            return set_member(self.text.replace("\r\n", "\n"), way, value).replace("\n", "\r\n")
        return set_member(self.text, way, value)

    def _without(self, way: Sequence[str]) -> str:
        return remove_member(self.text, way)


class TomlDocument(_Checked):
    """TOML. Raises Misconfigured: it is none, MissingExtra: there is no library for it."""

    def _read(self, text: str) -> Any:
        return _plain(self._document(text), self._path)

    def _with(self, way: Sequence[str], value: Any) -> str:
        import tomlkit

        document = self._document(self.text)
        table: Any = document
        for depth, name in enumerate(way[:-1]):
            if name not in table:
                # A header of its own only for the table that gets the members.
                table[name] = tomlkit.table(is_super_table=depth < len(way) - 2)
            table = table[name]
        table[way[-1]] = value
        return tomlkit.dumps(document)

    def _without(self, way: Sequence[str]) -> str:
        import tomlkit

        document = self._document(self.text)
        table: Any = document
        for name in way[:-1]:
            table = table[name]
        table.remove(way[-1])
        return tomlkit.dumps(document)

    def _document(self, text: str) -> Any:
        try:
            import tomlkit
            from tomlkit.exceptions import TOMLKitError
        except ImportError:
            raise MissingExtra("host", "TOML") from None
        try:
            return tomlkit.parse(text)
        except (TOMLKitError, ValueError, RecursionError) as error:
            line = getattr(error, "line", None)
            place = self._path if line is None else f"{self._path}:{line}"
            raise Misconfigured(f"{place}: {error}") from None


class YamlDocument(_Checked):
    """YAML. Raises Misconfigured: it is none, MissingExtra: there is no library for it."""

    def _read(self, text: str) -> Any:
        found = self._document(text)
        return {} if found is None else _plain(found, self._path)

    def _with(self, way: Sequence[str], value: Any) -> str:
        document = self._document(self.text)
        document = {} if document is None else document
        table: Any = document
        for name in way[:-1]:
            if name not in table or table[name] is None:
                table[name] = {}
            table = table[name]
        table[way[-1]] = _quoted(value)
        return self._written(document)

    def _without(self, way: Sequence[str]) -> str:
        document = self._document(self.text)
        table: Any = document
        for name in way[:-1]:
            table = table[name]
        del table[way[-1]]
        return self._written(document)

    def _yaml(self) -> Any:
        try:
            from ruamel.yaml import YAML
        except ImportError:
            raise MissingExtra("host", "YAML") from None
        yaml = YAML(typ="rt", pure=True)
        yaml.preserve_quotes = True
        # Never folded: a long argument stays on its line.
        yaml.width = 1_000_000
        return yaml

    def _document(self, text: str) -> Any:
        yaml = self._yaml()
        from ruamel.yaml.error import YAMLError

        try:
            return yaml.load(text)
        except (YAMLError, ValueError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            place = self._path if mark is None else f"{self._path}:{mark.line + 1}"
            what = getattr(error, "problem", None) or type(error).__name__
            raise Misconfigured(f"{place}: {what}") from None

    def _written(self, document: Any) -> str:
        yaml = self._yaml()
        mapping, sequence, offset = _yaml_layout(self.text)
        yaml.indent(mapping=mapping, sequence=sequence, offset=offset)
        out = io.StringIO()
        yaml.dump(document, out)
        return out.getvalue()


def _quoted(value: Any) -> Any:
    """With double quotes around what YAML would fold or drop: line ends and control characters."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return {key: _quoted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_quoted(one) for one in value]
    if isinstance(value, str) and not value.isprintable():
        return DoubleQuotedScalarString(value)
    return value


def _yaml_layout(text: str) -> tuple[int, int, int]:
    """How a YAML text indents: members, list items, and the dash within an item."""
    mapping, offset = 0, -1
    previous, previous_is_key = 0, False
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip(" "))
        if previous_is_key and bare.startswith("- ") and offset < 0:
            offset = max(indent - previous, 0)
        elif previous_is_key and indent > previous and not mapping:
            mapping = indent - previous
        previous, previous_is_key = indent, bare.endswith(":")
    offset = 0 if offset < 0 else offset
    return mapping or 2, offset + 2, offset


def _plain(value: Any, path: Path) -> Any:
    """As plain JSON, without the marks that a library keeps with its values."""
    left = [MAX_VALUES]

    def one(value: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or depth > 100:
            raise Misconfigured(f"{path}: holds more than {MAX_VALUES} values, or is too deep")
        value = value.unwrap() if hasattr(value, "unwrap") and depth == 0 else value
        if isinstance(value, dict):
            return {str(key): one(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [one(item, depth + 1) for item in value]
        if value is None or isinstance(value, bool):
            return value
        for kind in (int, float, str):
            if isinstance(value, kind):
                return kind(value)
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        return str(value)

    return one(value, 0)
