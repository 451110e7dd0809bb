"""`key=value` words as a tool's arguments, typed by its input schema.

`key=value` is read as the schema's type; `key:=JSON` is taken as JSON; the same key again makes a
list; `outer.inner=value` reaches into an object.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from dragoman.cli.schemas import Schema, flatten, kind_of, members_of, resolve, type_text
from dragoman.errors import Misconfigured

__all__ = ["read_arguments", "read_json_object", "read_pairs", "read_value"]

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})

# Deeper than any form a person would fill word by word; `--args` has no such bound.
MAX_DEPTH = 8


def read_pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """`key=value` words apart, in order; a key keeps the colon of `:=`.

    Raises:
        Misconfigured: a word is no pair.
    """
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.removesuffix(":"):
            raise Misconfigured(f"{word!r} is no argument; write it as name=value")
        pairs.append((key, value))
    return pairs


def read_json_object(text: str) -> dict[str, Any]:
    """All arguments at once, as a JSON object.

    Raises:
        Misconfigured: it is not one.
    """
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Misconfigured(f"the arguments are not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Misconfigured('the arguments must be a JSON object, such as \'{"city": "Paris"}\'')
    return value


def read_arguments(words: Sequence[str], schema: Schema) -> tuple[dict[str, Any], list[str]]:
    """The arguments, and warnings about names that the schema does not know but allows.

    Raises:
        Misconfigured: with every fault at once: a value that does not fit, a name that is
            forbidden, a required one that is missing.
    """
    reader = _Reader(schema)
    arguments = reader.object(read_pairs(words), resolve(schema, schema), "", 0)
    if reader.faults:
        if len(reader.faults) == 1:
            raise Misconfigured(reader.faults[0])
        raise Misconfigured("\n- ".join(["the arguments do not fit:", *reader.faults]))
    return arguments, reader.warnings


def read_value(name: str, text: str, schema: Schema) -> Any:
    """One member's value, as its schema says; an empty schema takes JSON or text.

    Raises:
        Misconfigured: it does not fit.
    """
    reader = _Reader(schema)
    try:
        return reader.value("", text, members_of(resolve(schema, schema)).get(name, {}))
    except ValueError as fault:
        raise Misconfigured(f"{name}: {fault}") from None


class _Reader:
    """Reads pairs against one schema and keeps every fault."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self.faults: list[str] = []
        self.warnings: list[str] = []

    def object(
        self, pairs: Sequence[tuple[str, str]], schema: Schema, path: str, depth: int
    ) -> dict[str, Any]:
        """The pairs as the members of one object."""
        properties = members_of(schema)
        groups: dict[str, list[tuple[str, str]]] = {}
        inner: dict[str, list[tuple[str, str]]] = {}
        for key, value in pairs:
            head, dot, rest = key.partition(".")
            plain = key.removesuffix(":")
            if plain not in properties and dot and head in properties and depth < MAX_DEPTH:
                inner.setdefault(head, []).append((rest, value))
            else:
                groups.setdefault(plain, []).append((key, value))
        found: dict[str, Any] = {}
        for name, given in groups.items():
            where = f"{path}{name}"
            if name not in properties and not self._may_be_extra(name, where, schema):
                continue
            extra = schema.get("additionalProperties")
            member = properties.get(name, extra if isinstance(extra, dict) else {})
            try:
                found[name] = self._member(given, member)
            except ValueError as fault:
                self.faults.append(f"{where}: {fault}")
        for name, given in inner.items():
            if name in found:
                self.faults.append(f"{path}{name} is given whole and in parts")
                continue
            options = [one for one in flatten(properties[name], self._root) if members_of(one)]
            found[name] = self.object(
                given, options[0] if options else {}, f"{path}{name}.", depth + 1
            )
        required = schema.get("required")
        for name in required if isinstance(required, list) else ():
            if isinstance(name, str) and name not in found and name not in groups:
                needed = type_text(properties.get(name, {}), self._root)
                self.faults.append(f"{path}{name}: missing ({needed})")
        return found

    def _may_be_extra(self, name: str, where: str, schema: Schema) -> bool:
        known = list(members_of(schema))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if schema.get("additionalProperties") is False:
            if not near:
                hint = f"; it has {', '.join(known)}" if known else "; it takes none"
            self.faults.append(f"{where}: the tool has no such argument{hint}")
            return False
        if known and not isinstance(schema.get("additionalProperties"), dict):
            self.warnings.append(f"the tool's schema does not name {where!r}{hint}")
        return True

    def _member(self, given: Sequence[tuple[str, str]], schema: Schema) -> Any:
        options = flatten(schema, self._root)
        lists = [one for one in options if kind_of(one) == "array"]
        if len(given) > 1:
            if options and not lists and any(kind_of(one) for one in options):
                raise ValueError(f"given {len(given)} times, but it is no list")
            items = lists[0].get("items", {}) if lists else {}
            return [self.value(key, value, items) for key, value in given]
        key, text = given[0]
        return self.value(key, text, schema)

    def value(self, key: str, text: str, schema: Schema) -> Any:
        """One value; a key that ends with a colon takes JSON. Raises ValueError."""
        if key.endswith(":"):
            return _json(text)
        options = flatten(schema, self._root)
        chosen = _choice(text, options)
        if chosen is not _NOTHING:
            return chosen
        kinds = {kind_of(one) for one in options if not _is_choice(one)}
        for kind in ("null", "boolean", "integer", "number", "object", "array"):
            if kind in kinds:
                value = self._as(kind, text, options)
                if value is not _NOTHING:
                    return value
        if "string" in kinds:
            return text
        if None in kinds or not options:
            # No type at all: what looks like JSON is JSON, everything else is text.
            try:
                return _json(text)
            except ValueError:
                return text
        raise ValueError(_miss(text, schema, options, self._root))

    def _as(self, kind: str, text: str, options: Sequence[Schema]) -> Any:
        lowered = text.casefold()
        if kind == "null":
            return None if lowered == "null" else _NOTHING
        if kind == "boolean":
            return True if lowered in _TRUE else False if lowered in _FALSE else _NOTHING
        if kind == "array" and not text.startswith("["):
            items = next(one.get("items", {}) for one in options if kind_of(one) == "array")
            return [self.value("", text, items)] if text else []
        try:
            value = _json(text)
        except ValueError:
            return _NOTHING
        return value if _IS[kind](value) else _NOTHING


_NOTHING: Any = object()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_IS: dict[str, Any] = {
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}


def _json(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{text!r} is no JSON") from None


def _is_choice(schema: Schema) -> bool:
    return "enum" in schema or "const" in schema


def _choices(options: Sequence[Schema]) -> list[Any]:
    found: list[Any] = []
    for one in options:
        if "const" in one:
            found.append(one["const"])
        elif isinstance(one.get("enum"), list):
            found += one["enum"]
    return found


def _choice(text: str, options: Sequence[Schema]) -> Any:
    """The listed value that is written like this, whatever its type."""
    for value in _choices(options):
        if value == text if isinstance(value, str) else json.dumps(value) == text:
            return value
    return _NOTHING


def _miss(text: str, schema: Schema, options: Sequence[Schema], root: Schema) -> str:
    texts = [one for one in _choices(options) if isinstance(one, str)]
    near = difflib.get_close_matches(text, texts, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected {type_text(schema, root)}, got {text!r}{hint}"
