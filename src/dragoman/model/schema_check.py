"""Arguments against a schema that a person wrote by hand.

With the `schema` extra a compiled validator decides and the walk of `faults` only explains; without
it the walk decides, and a schema it cannot judge in full is refused at once. Neither ever fetches
anything: a reference leads into the schema itself.

A schema is read by the dialect that its `$schema` names, or as 2020-12 (`DIALECTS`).
Spec: basic/index#json-schema-usage
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from dragoman.errors import ArgumentFault, InvalidArguments, Misconfigured, MissingExtra
from dragoman.model.base import JSON
from dragoman.model.faults import (
    KINDS,
    MAX_FAULTS,
    SUPPORTED,
    Repair,
    Schema,
    compile_pattern,
    find_faults,
    preview,
    repair,
    resolve,
)
from dragoman.model.quick_check import surely_fits

__all__ = ["DIALECTS", "SchemaCheck", "check_shapes"]

DIALECTS = {
    "json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "json-schema.org/draft-07/schema": "Draft7Validator",
    "json-schema.org/draft-06/schema": "Draft6Validator",
    "json-schema.org/draft-04/schema": "Draft4Validator",
}
"""The dialects we read, by what `$schema` says, without its scheme and its empty fragment."""

_NEWEST = "json-schema.org/draft/2020-12/schema"
_OLDEST = "json-schema.org/draft-04/schema"

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


# Before 2019-09 whatever stands beside a reference is ignored; without rules nothing is lost.
_RULES = SUPPORTED - {"$ref", "$defs", "definitions"}


def is_number(value: Any) -> bool:
    """A JSON number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """A whole number from 0."""
    return is_number(value) and value >= 0 and float(value).is_integer()


def is_schema(value: Any) -> bool:
    """A schema: an object, or true or false."""
    return isinstance(value, (dict, bool))


def is_schema_map(value: Any) -> bool:
    """Schemas by name."""
    return isinstance(value, dict) and all(is_schema(inner) for inner in value.values())


def is_schema_list(value: Any) -> bool:
    """One schema or more."""
    return isinstance(value, list) and bool(value) and all(is_schema(inner) for inner in value)


def is_names(value: Any) -> bool:
    """Texts, each once."""
    is_texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return is_texts and len(set(value)) == len(value)


def is_type(value: Any) -> bool:
    """The name of a JSON type, or several."""
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(one, str) and one in KINDS for one in names)


class SchemaCheck:
    """A schema, ready to judge values.

    One that is not ours may have been written to do harm. References that double at each step cost
    even a compiled validator hours, so the walk judges it, within bounds and without its patterns;
    what lies beyond them is let through.

    Raises:
        Misconfigured: the schema is not valid in its dialect, names a dialect we do not know,
            holds a reference that leaves it or leads nowhere, or a pattern that cannot be read.
        MissingExtra: it uses keywords that only the `schema` extra can judge.
    """

    def __init__(self, schema: Schema, *, is_ours: bool = True) -> None:
        self.schema = schema
        self.is_ours = is_ours
        self.dialect = _dialect(schema)
        self.validator: Any = _compiled(schema, DIALECTS[self.dialect]) if is_ours else None
        if self.validator is None:
            for part in _parts(schema):
                _check_for_the_walk(part, self.dialect, is_ours=is_ours)
                if (ref := part.get("$ref")) is not None:
                    resolve(schema, ref)
        # After the shapes: it takes each keyword for what it should be.
        self._surely_fits = surely_fits(schema)

    def faults(self, value: JSON) -> list[ArgumentFault]:
        """Every fault of a value, at most `faults.MAX_FAULTS`; none means that it fits."""
        if self._surely_fits is not None and self._surely_fits(value):
            return []
        if self.validator is None:
            return find_faults(self.schema, value, is_ours=self.is_ours)
        if self.validator.is_valid(value):
            return []
        # The walk's words suit a model better; the validator's own stand in where it sees nothing.
        return self._explained(value) or [
            _told(error, value)
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
            try:
                value, repairs = repair(self.schema, value)
            except Misconfigured:
                # An anchor, say: the validator follows it, the walk does not.
                pass
            else:
                faults = self.faults(value)
        if not faults and not isinstance(value, dict):
            faults = [ArgumentFault("", "an object", preview(value))]
        if faults:
            raise InvalidArguments(faults, what=what)
        return value, repairs

    def _explained(self, value: JSON) -> list[ArgumentFault]:
        # Without patterns: Python's may take hours for a text that was made for it, which is why
        # the validator matches them in linear time. It tells of those that do not match.
        try:
            found = find_faults(self.schema, value, uses_patterns=False)
        except Misconfigured:
            # A reference that only the validator follows.
            return []
        mismatches = [
            _told(error, value)
            for error, _ in zip(self.validator.iter_errors(value), range(MAX_FAULTS), strict=False)
            if error.schema_path[-1:] == ["pattern"]
        ]
        return (found + mismatches)[:MAX_FAULTS]


def _told(error: Any, value: JSON) -> ArgumentFault:
    """An error of the compiled validator, in our words where we have them."""
    at = _path(error.instance_path)
    # A name that misses a pattern has the same path, but is told of as the object's fault.
    pattern = getattr(error.kind, "pattern", None)
    if pattern is not None:
        return ArgumentFault(at, f"text that matches {pattern!r}", preview(error.instance))
    return ArgumentFault(at, str(error.message)[:200], preview(value))


def _dialect(schema: Schema) -> str:
    named = schema.get("$schema", _NEWEST) if isinstance(schema, dict) else _NEWEST
    plain = str(named).removesuffix("#").removeprefix("https://").removeprefix("http://")
    if plain not in DIALECTS:
        known = ", ".join(DIALECTS)
        raise Misconfigured(f"the JSON Schema dialect {named!r} is not supported; known: {known}")
    return plain


def _compiled(schema: Schema, dialect: str) -> Any:
    try:
        import jsonschema_rs
    except ImportError:
        return None
    make = getattr(jsonschema_rs, dialect)
    try:
        # Linear-time matching: a pattern with nested repeats cannot stall the server. Look-around
        # is beyond that engine, so a schema that needs it gets one that backtracks up to a limit.
        return make(schema, offline=True, pattern_options=jsonschema_rs.RegexOptions())
    except jsonschema_rs.ReferencingError as error:
        raise Misconfigured(
            f"a reference of the schema leads nowhere: {_first_line(error)}"
        ) from None
    except ValueError:
        limited = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT)
        try:
            return make(schema, offline=True, pattern_options=limited)
        except ValueError as error:
            raise Misconfigured(f"not a usable JSON Schema: {_first_line(error)}") from None


# 100,000 steps back: well under a tenth of a second, and far beyond what an honest pattern takes.
BACKTRACK_LIMIT = 100_000


# What each keyword's value must be; the compiled validator has the whole of this built in.
_SHAPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), is_number),
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
         "minContains", "maxContains"),
        is_count,
    ),
    **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions",
                     "dependentSchemas"), is_schema_map),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), is_schema_list),
    **dict.fromkeys(_INSIDE, is_schema),
    **dict.fromkeys(("$ref", "pattern"), lambda value: isinstance(value, str)),
    "enum": lambda value: isinstance(value, list),
    "multipleOf": lambda value: is_number(value) and value > 0,
    "required": is_names,
    "type": is_type,
    "uniqueItems": lambda value: isinstance(value, bool),
    "dependentRequired": lambda value: (
        isinstance(value, dict) and all(is_names(names) for names in value.values())
    ),
}  # fmt: skip


def _check_for_the_walk(part: dict[str, Any], dialect: str, *, is_ours: bool) -> None:
    """Refuse what the walk would misread: a malformed keyword, or another dialect's meaning."""
    differs = dialect != _NEWEST and (
        isinstance(part.get("items"), list) or ("$ref" in part and part.keys() & _RULES)
    )
    beyond = next(iter(part.keys() & _BEYOND_THE_WALK), None)
    if dialect == _OLDEST or differs or beyond is not None:
        what = f"the keyword {beyond!r}" if beyond else f"the dialect {dialect}"
        if not is_ours:
            raise Misconfigured(f"{what} of a JSON Schema is not judged where it is not ours")
        raise MissingExtra("schema", f"{what} of a JSON Schema")
    for word, value in part.items():
        if word in _SHAPES and not _SHAPES[word](value):
            raise Misconfigured(f"not a usable JSON Schema: {word!r} cannot be {preview(value)}")
    for pattern in (part.get("pattern"), *part.get("patternProperties", ())):
        if pattern is not None and is_ours:
            compile_pattern(pattern)


# What these may hold differs between the dialects.
_DIFFER = frozenset({"exclusiveMaximum", "exclusiveMinimum", "items"})


def check_shapes(schema: Schema) -> None:
    """Whether each keyword of a schema has a value that it can have.

    For a stranger's schema: it takes time in proportion to its size, follows no reference, and
    compiles neither the schema nor its patterns.

    Raises:
        Misconfigured: one has not, or the schema names a dialect we do not know.
    """
    is_newest = _dialect(schema) == _NEWEST
    for part in _parts(schema):
        for word, value in part.items():
            if word not in _SHAPES or (word in _DIFFER and not is_newest):
                continue
            if not _SHAPES[word](value):
                raise Misconfigured(
                    f"not a usable JSON Schema: {word!r} cannot be {preview(value)}"
                )


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
