"""Arguments against a schema that a person wrote by hand.

With the `schema` extra a compiled validator decides and the walk of `faults` only explains; without
it the walk decides, and a schema it cannot judge in full is refused at once. Neither ever fetches
anything: a reference leads into the schema itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dragoman.errors import ArgumentFault, InvalidArguments, Misconfigured, MissingExtra
from dragoman.model.base import JSON
from dragoman.model.faults import (
    Repair,
    Schema,
    compile_pattern,
    find_faults,
    preview,
    repair,
    resolve,
)

__all__ = ["SchemaCheck"]

# Keywords of 2020-12 that decide validity and that the walk does not know.
_BEYOND_THE_WALK = frozenset(
    {"$dynamicRef", "$recursiveRef", "additionalItems", "dependencies", "unevaluatedItems",
     "unevaluatedProperties"}
)  # fmt: skip
_IN_A_MAP = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)
_IN_A_LIST = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_INSIDE = frozenset(
    {
        "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
        "unevaluatedItems", "unevaluatedProperties",
    }
)  # fmt: skip


class SchemaCheck:
    """A schema, ready to judge values.

    Raises:
        Misconfigured: the schema is no JSON Schema, holds a reference that leaves it or leads
            nowhere, or a pattern that cannot be read.
        MissingExtra: it uses keywords that only the `schema` extra can judge.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.validator = _compiled(schema)
        for part in _parts(schema):
            if isinstance(ref := part.get("$ref"), str):
                resolve(schema, ref)
            if self.validator is not None:
                continue
            for word in part:
                if word in _BEYOND_THE_WALK:
                    raise MissingExtra("schema", f"the keyword {word!r} of a JSON Schema")
            for pattern in (part.get("pattern"), *part.get("patternProperties", ())):
                if pattern is not None:
                    compile_pattern(pattern)

    def faults(self, value: JSON) -> list[ArgumentFault]:
        """Every fault of a value, at most `faults.MAX_FAULTS`; none means that it fits."""
        if self.validator is None:
            return find_faults(self.schema, value)
        if self.validator.is_valid(value):
            return []
        # The walk's words suit a model better; the validator's own stand in where it sees nothing.
        return self._explained(value) or [
            ArgumentFault(_path(error.instance_path), str(error.message)[:200], preview(value))
            for error, _ in zip(self.validator.iter_errors(value), range(5), strict=False)
        ]

    def parse(
        self, raw: bytes | msgspec.Raw | Mapping[str, JSON] | None, *, name: str
    ) -> tuple[dict[str, JSON], tuple[Repair, ...]]:
        """Read the arguments of a call to `name`, mending JSON text in strings.

        Raises:
            InvalidArguments: they do not fit; `.faults` has all faults.
        """
        what = f"arguments for {name}"
        if isinstance(raw, Mapping):
            value: Any = dict(raw)
        else:
            text = b"" if raw is None else bytes(raw)
            try:
                value = {} if text.strip() in (b"", b"null") else msgspec.json.decode(text)
            except RecursionError:
                fault = ArgumentFault("", "fewer levels of nesting", "too many")
                raise InvalidArguments([fault], what=what) from None
            except (msgspec.DecodeError, UnicodeError) as wrong:
                fault = ArgumentFault("", "a JSON object", f"text that cannot be read ({wrong})")
                raise InvalidArguments([fault], what=what) from None
        faults = self.faults(value)
        repairs: tuple[Repair, ...] = ()
        if faults:
            value, repairs = repair(self.schema, value)
            faults = self.faults(value)
        if not faults and not isinstance(value, dict):
            faults = [ArgumentFault("", "an object", preview(value))]
        if faults:
            raise InvalidArguments(faults, what=what)
        return value, repairs

    def _explained(self, value: JSON) -> list[ArgumentFault]:
        try:
            return find_faults(self.schema, value)
        except Misconfigured:
            # A pattern in a dialect of regular expressions that Python does not read.
            return []


def _compiled(schema: Schema) -> Any:
    try:
        import jsonschema_rs
    except ImportError:
        return None
    try:
        # Linear-time matching: a pattern with nested repeats cannot stall the server. Look-around
        # is beyond that engine, so a schema that needs it gets one that backtracks up to a limit.
        return _validator(jsonschema_rs, schema, jsonschema_rs.RegexOptions())
    except ValueError:
        limited = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT)
        try:
            return _validator(jsonschema_rs, schema, limited)
        except ValueError as error:
            raise Misconfigured(f"not a usable JSON Schema: {_first_line(error)}") from None


# 100,000 steps back: well under a tenth of a second, and far beyond what an honest pattern takes.
BACKTRACK_LIMIT = 100_000


def _validator(library: Any, schema: Schema, patterns: Any) -> Any:
    try:
        return library.Draft202012Validator(schema, offline=True, pattern_options=patterns)
    except library.ReferencingError as error:
        raise Misconfigured(
            f"a reference of the schema leads nowhere: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _path(location: list[str | int]) -> str:
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _parts(schema: Schema) -> list[dict[str, Any]]:
    """The schema and every schema inside it."""
    found: list[dict[str, Any]] = []
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        found.append(part)
        for word, inner in part.items():
            if word in _IN_A_MAP and isinstance(inner, dict):
                waiting.extend(inner.values())
            elif word in _IN_A_LIST and isinstance(inner, list):
                waiting.extend(inner)
            elif word in _INSIDE:
                waiting.append(inner)
    return found
