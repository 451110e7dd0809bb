"""Every fault of a value against a JSON Schema, written for a model to act on.

A plain walk over the keywords of JSON Schema 2020-12 (see `SUPPORTED`). It never fetches anything:
a `$ref` points into the schema itself. It is slow and thorough, and so runs only after the typed
decoder has refused a value, or where no compiled validator is installed.

`repair` mends the one mistake that models make often: a value sent as JSON text inside a string,
at a place where the schema forbids a string.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from dragoman.errors import ArgumentFault, Misconfigured
from dragoman.model.base import JSON

__all__ = [
    "KINDS",
    "MAX_DEPTH",
    "MAX_FAULTS",
    "MAX_PATTERN_INPUT",
    "MAX_STEPS",
    "SUPPORTED",
    "Repair",
    "Schema",
    "closest",
    "compile_pattern",
    "describe",
    "find_faults",
    "kinds",
    "preview",
    "repair",
    "resolve",
    "same_json",
    "unknown_name",
]

Schema = Any
"""A JSON Schema: an object, or True (anything) or False (nothing)."""

# 25: a model mends a call from the first few; a longer list only costs it context.
MAX_FAULTS = 25
# 120 nested schemas: each takes up to three Python frames, and the interpreter stops at 1000.
MAX_DEPTH = 120
# 100,000 values: a tenth of a second or two in this walk. A decoder in C refuses ten megabytes at
# once; explaining the refusal must not hold up a server for longer than the call would have.
MAX_STEPS = 100_000
# 64 KiB: a pattern's cost can grow with the square of its input, and no identifier is longer.
MAX_PATTERN_INPUT = 64 * 1024
# 64 names of 64 characters: comparing names costs the product of their lengths.
MAX_NAMES_COMPARED = 64
MAX_NAME_LENGTH = 64
# 40 characters of a value: enough to recognise it, too few to leak a document into a log.
PREVIEW_LENGTH = 40

KINDS = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_NOTHING = "nothing"

SUPPORTED = frozenset(
    {
        "$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "contains",
        "definitions", "dependentRequired", "dependentSchemas", "else", "enum", "exclusiveMaximum",
        "exclusiveMinimum", "if", "items", "maxContains", "maxItems", "maxLength", "maxProperties",
        "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum",
        "multipleOf", "not", "oneOf", "pattern", "patternProperties", "prefixItems", "properties",
        "propertyNames", "required", "then", "type", "uniqueItems",
    }
)  # fmt: skip
"""The keywords that are checked. Keywords outside 2020-12's vocabularies are annotations."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A string that was read as the JSON text in it. `path` as in a fault, `was` a preview."""

    path: str
    was: str

    def __str__(self) -> str:
        where = self.path or "the arguments"
        return f"{where}: read {self.was} as JSON text, since the schema forbids a string there"


def find_faults(
    schema: Schema,
    value: JSON,
    *,
    path: str = "",
    root: Schema | None = None,
    formats: Mapping[str, Callable[[str], bool]] | None = None,
    is_final: bool = True,
    uses_patterns: bool = True,
    is_ours: bool = True,
) -> list[ArgumentFault]:
    """All faults of `value`, in document order, at most `MAX_FAULTS`; none means it fits.

    `path` starts every fault's path. `root` is what `$ref` points into, `schema` itself when not
    given. `formats` asserts the formats it names (and "base64" for `contentEncoding`); without
    it a format is an annotation, as 2020-12 has it. A value of more than `MAX_STEPS` parts that
    shows no fault before is refused as too large, unless another check follows (`is_final` false).

    Python's patterns can take time without end, so they are left out without `uses_patterns`. They
    are left out, too, of a schema that is not ours, whose author may mean harm: the whole walk then
    costs at most `MAX_STEPS`, members of the schema included, and what lies beyond is let through.

    Raises:
        Misconfigured: the schema itself cannot be used: a reference that leads nowhere, or a
            pattern that is no regular expression.
    """
    walk = _Walk(
        schema if root is None else root,
        formats or {},
        uses_patterns=uses_patterns and is_ours,
        is_ours=is_ours,
    )
    found = walk.faults(schema, value, path, 0)[:MAX_FAULTS]
    if is_final and is_ours and not found and walk.steps > MAX_STEPS:
        return [ArgumentFault(path, f"at most {MAX_STEPS} values inside", preview(value))]
    return found


class _Walk:
    """One walk. Faults are returned, not collected, so that branches can be compared."""

    def __init__(
        self,
        root: Schema,
        formats: Mapping[str, Callable[[str], bool]],
        *,
        uses_patterns: bool = True,
        is_ours: bool = True,
    ) -> None:
        self.root = root
        self.formats = formats
        self.uses_patterns = uses_patterns
        self.is_ours = is_ours
        self.steps = 0

    def charge(self, schema: Schema) -> None:
        """Count what a look at a stranger's schema costs: each of its lists and maps may be long."""
        self.steps += 1
        if isinstance(schema, dict):
            self.steps += sum(
                len(part) for part in schema.values() if isinstance(part, dict | list)
            )

    def describe(self, schema: Schema) -> str:
        """A schema in a few words. Of a stranger's only what stands at its top."""
        if self.is_ours or not isinstance(schema, dict):
            return describe(schema, self.root)
        top = {key: schema[key] for key in ("type", "enum", "const") if key in schema}
        return describe(top, self.root)

    def faults(self, schema: Schema, value: JSON, path: str, depth: int) -> list[ArgumentFault]:
        if not self.is_ours:
            self.charge(schema)
        if schema is True or schema == {}:
            return []
        if schema is False:
            return [ArgumentFault(path, _NOTHING, preview(value))]
        self.steps += 1
        if self.steps > MAX_STEPS:
            return []
        if depth > MAX_DEPTH:
            return [ArgumentFault(path, f"at most {MAX_DEPTH} levels of nesting", preview(value))]
        found: list[ArgumentFault] = []
        ref = schema.get("$ref")
        if ref is not None:
            found += self.faults(resolve(self.root, ref), value, path, depth + 1)
        wanted = schema.get("type")
        if wanted is not None and not _has_type(value, wanted):
            # Nothing else that the schema says can be of use once the type is wrong.
            return [
                *found,
                ArgumentFault(
                    path, self.describe(schema), preview(value), _type_hint(schema, value)
                ),
            ]
        found += _value_faults(schema, value, path)
        if isinstance(value, str):
            found += self.string_faults(schema, value, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found += _number_faults(schema, value, path)
        elif isinstance(value, dict):
            found += self.object_faults(schema, value, path, depth)
        elif isinstance(value, list):
            found += self.array_faults(schema, value, path, depth)
        found += self.combined_faults(schema, value, path, depth)
        return found

    def string_faults(self, schema: Schema, value: str, path: str) -> list[ArgumentFault]:
        found = []
        low, high = schema.get("minLength"), schema.get("maxLength")
        if low is not None and len(value) < low:
            found.append(_miscounted(path, "at least", low, len(value), "character"))
        if high is not None and len(value) > high:
            found.append(_miscounted(path, "at most", high, len(value), "character"))
        pattern = schema.get("pattern")
        if pattern is not None and self.uses_patterns:
            if len(value) > MAX_PATTERN_INPUT:
                most = f"at most {MAX_PATTERN_INPUT} characters, since a pattern applies"
                found.append(ArgumentFault(path, most, _counted(len(value), "character")))
            elif not compile_pattern(pattern).search(value):
                found.append(ArgumentFault(path, f"text that matches {pattern!r}", preview(value)))
        name = "base64" if schema.get("contentEncoding") == "base64" else schema.get("format")
        check = self.formats.get(name) if isinstance(name, str) else None
        if check is not None and not check(value):
            found.append(
                ArgumentFault(path, self.describe(schema), preview(value), EXAMPLES.get(name))
            )
        return found

    def object_faults(
        self, schema: Schema, value: dict[str, JSON], path: str, depth: int
    ) -> list[ArgumentFault]:
        found = []
        properties: dict[str, Schema] = schema.get("properties", {})
        patterns: dict[str, Schema] = schema.get("patternProperties", {})
        extra = schema.get("additionalProperties", True)
        if patterns and not self.uses_patterns:
            # Who is declared cannot be told then.
            patterns, extra = {}, True
        unknown: dict[str, JSON] = {}
        for name, item in value.items():
            at = _member(path, name)
            declared = False
            if name in properties:
                declared = True
                found += self.member_faults(schema, name, item, at, depth)
            for pattern, inner in patterns.items():
                if len(name) <= MAX_PATTERN_INPUT and compile_pattern(pattern).search(name):
                    declared = True
                    found += self.faults(inner, item, at, depth + 1)
            if declared or extra is True:
                continue
            if extra is False:
                unknown[name] = item
            else:
                found += self.faults(extra, item, at, depth + 1)
        missing = [name for name in schema.get("required", ()) if name not in value]
        free = [name for name in properties if name not in value]
        for name, item in list(unknown.items())[:MAX_FAULTS]:
            at, got = _member(path, name), preview(item)
            found.append(unknown_name(at, name, got, free, list(properties)))
        for name in missing:
            likely = closest(name, list(unknown))
            hint = f"was it sent as {likely!r}?" if likely else None
            wanted = self.describe(properties.get(name, True))
            found.append(ArgumentFault(_member(path, name), wanted, _NOTHING, hint))
        for name, needs in schema.get("dependentRequired", {}).items():
            if name in value:
                found += [
                    ArgumentFault(
                        _member(path, need), f"a value, since {name!r} is given", _NOTHING
                    )
                    for need in needs
                    if need not in value
                ]
        for name, inner in schema.get("dependentSchemas", {}).items():
            if name in value:
                found += self.faults(inner, value, path, depth + 1)
        names = schema.get("propertyNames")
        if names is not None:
            for name in value:
                if wrong := self.faults(names, name, "", depth + 1):
                    found.append(
                        ArgumentFault(
                            _member(path, name), f"a name: {wrong[0].expected}", name[:64]
                        )
                    )
        low, high = schema.get("minProperties"), schema.get("maxProperties")
        if low is not None and len(value) < low:
            found.append(_miscounted(path, "at least", low, len(value), "member"))
        if high is not None and len(value) > high:
            found.append(_miscounted(path, "at most", high, len(value), "member"))
        return found

    def member_faults(
        self, owner: Schema, name: str, item: JSON, path: str, depth: int
    ) -> list[ArgumentFault]:
        inner = owner["properties"][name]
        found = self.faults(inner, item, path, depth + 1)
        optional = name not in owner.get("required", ())
        if item is None and found and optional:
            # Models send null for "no value" where the default was meant.
            hint = "leave it out instead of sending null"
            if isinstance(inner, dict) and "default" in inner:
                hint = f"leave it out to use the default, {preview(inner['default'])}"
            first = found[0]
            found[0] = ArgumentFault(first.path, first.expected, first.got, hint)
        return found

    def array_faults(
        self, schema: Schema, value: list[JSON], path: str, depth: int
    ) -> list[ArgumentFault]:
        found = []
        prefix: Sequence[Schema] = schema.get("prefixItems", ())
        rest = schema.get("items", True)
        for index, item in enumerate(value):
            inner = prefix[index] if index < len(prefix) else rest
            if inner is True or inner == {}:
                continue
            found += self.faults(inner, item, f"{path}[{index}]", depth + 1)
            # A million items, right or wrong, cost no more than the bounds allow.
            if len(found) > MAX_FAULTS or self.steps > MAX_STEPS:
                return found
        low, high = schema.get("minItems"), schema.get("maxItems")
        if low is not None and len(value) < low:
            found.append(_miscounted(path, "at least", low, len(value), "item"))
        if high is not None and len(value) > high:
            found.append(_miscounted(path, "at most", high, len(value), "item"))
        if schema.get("uniqueItems") and _has_repeats(value):
            found.append(ArgumentFault(path, "items that all differ", preview(value)))
        inner = schema.get("contains")
        if inner is not None:
            hits = sum(not self.faults(inner, item, "", depth + 1) for item in value)
            least, most = schema.get("minContains", 1), schema.get("maxContains", math.inf)
            if not least <= hits <= most:
                wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"
                what = f"{wanted} items that are {self.describe(inner)}"
                found.append(ArgumentFault(path, what, f"{hits} of them"))
        return found

    def combined_faults(
        self, schema: Schema, value: JSON, path: str, depth: int
    ) -> list[ArgumentFault]:
        found = []
        for inner in schema.get("allOf", ()):
            found += self.faults(inner, value, path, depth + 1)
        for word in ("anyOf", "oneOf"):
            options = schema.get(word)
            if options is None:
                continue
            tried = [self.faults(option, value, path, depth + 1) for option in options]
            fitting = tried.count([])
            if fitting == 0:
                found += self.nearest(options, tried, value, path)
            elif fitting > 1 and word == "oneOf":
                found.append(
                    ArgumentFault(path, "exactly one of its forms to fit", f"{fitting} that fit")
                )
        if "not" in schema and not self.faults(schema["not"], value, path, depth + 1):
            what = f"anything but {self.describe(schema['not'])}"
            found.append(ArgumentFault(path, what, preview(value)))
        if "if" in schema:
            fits = not self.faults(schema["if"], value, path, depth + 1)
            found += self.faults(
                schema.get("then" if fits else "else", True), value, path, depth + 1
            )
        return found

    def nearest(
        self, options: Sequence[Schema], tried: list[list[ArgumentFault]], value: JSON, path: str
    ) -> list[ArgumentFault]:
        """The faults against the option that was most likely meant.

        Options of another JSON kind are left out; among the rest one whose constants fit (a tag)
        comes first, then the one with the fewest faults. Without any, the options are named.
        """
        if not self.is_ours:
            return [ArgumentFault(path, "a value of one of its forms", preview(value))]
        kind = kind_of(value)
        near = [
            (not self.tags_fit(option, value), len(faults), index)
            for index, (option, faults) in enumerate(zip(options, tried, strict=True))
            if _accepts_kind(kinds(option, self.root), kind)
        ]
        scalar = kind not in ("array", "object")
        if not near or (scalar and len(near) > 1):
            wanted = " or ".join(dict.fromkeys(describe(option, self.root) for option in options))
            return [ArgumentFault(path, wanted, preview(value))]
        return tried[min(near)[2]]

    def tags_fit(self, schema: Schema, value: JSON) -> bool:
        """Whether the members that an option fixes to constants have those values."""
        if not isinstance(value, dict):
            return True
        for part in concrete(schema, self.root):
            for name, inner in part.get("properties", {}).items():
                if not isinstance(inner, dict) or not ({"const", "enum"} & inner.keys()):
                    continue
                allowed = inner["enum"] if "enum" in inner else [inner["const"]]
                if name in value and not any(same_json(value[name], one) for one in allowed):
                    return False
                if name not in value and name in part.get("required", ()):
                    return False
        return True


# --- repairs ----------------------------------------------------------------------------------


def repair(schema: Schema, value: JSON) -> tuple[JSON, tuple[Repair, ...]]:
    """Read JSON text inside strings where the schema forbids a string; the rest is untouched.

    Returns the mended value, a new one where anything changed, and what was done. A number that
    is whole but written like 3.0 becomes an integer where only an integer is allowed; that is
    the same JSON number, so it is no repair. A string that is not JSON, or whose JSON the schema
    would refuse by its kind, stays a string. After `MAX_STEPS` values the rest stays as it is.
    """
    mender = _Mender(schema)
    return mender.mend(schema, value, "", 0), tuple(mender.done)


class _Mender:
    """One pass of `repair`."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.walk = _Walk(root, {})
        self.done: list[Repair] = []
        self.steps = 0

    def mend(self, schema: Schema, value: JSON, path: str, depth: int) -> JSON:
        self.steps += 1
        if not isinstance(schema, dict) or depth > MAX_DEPTH or self.steps > MAX_STEPS:
            return value
        if isinstance(value, (str, float)):
            allowed = kinds(schema, self.root)
            if isinstance(value, str) and "string" not in allowed:
                value = self.read_text(allowed, value, path)
            if isinstance(value, float) and "number" not in allowed and "integer" in allowed:
                return int(value) if value.is_integer() else value
        if not isinstance(value, (dict, list)):
            return value
        kind = kind_of(value)
        parts = [
            part
            for part in concrete(schema, self.root)
            if _accepts_kind(kinds(part, self.root), kind)
        ]
        if len(parts) > 1:
            parts = [part for part in parts if self.walk.tags_fit(part, value)]
        # Two forms of the same kind: which one was meant is a guess, so nothing inside is touched.
        if len(parts) != 1:
            return value
        part = parts[0]
        if isinstance(value, list):
            prefix, rest = part.get("prefixItems", ()), part.get("items", True)
            mended: list[JSON] = []
            for i, item in enumerate(value):
                if self.steps > MAX_STEPS:
                    return mended + value[i:]
                inner = prefix[i] if i < len(prefix) else rest
                mended.append(self.mend(inner, item, f"{path}[{i}]", depth + 1))
            return mended
        properties, rest = part.get("properties", {}), part.get("additionalProperties", True)
        return {
            name: self.mend(properties.get(name, rest), item, _member(path, name), depth + 1)
            for name, item in value.items()
        }

    def read_text(self, allowed: frozenset[str], text: str, path: str) -> JSON:
        try:
            inner = msgspec.json.decode(text.encode())
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return text
        if not _accepts_kind(allowed, kind_of(inner)):
            return text
        self.done.append(Repair(path, preview(text)))
        return inner


# --- reading a schema -------------------------------------------------------------------------


def resolve(root: Schema, ref: str) -> Schema:
    """What a reference within `root` points at ("#", or "#/" and a JSON pointer).

    Raises:
        Misconfigured: it points outside the schema, or nowhere. Nothing is ever fetched.
    """
    if ref == "#":
        return root
    if not ref.startswith("#/"):
        raise Misconfigured(
            f"the reference {ref!r} leaves the schema; only local ones are followed"
        )
    target: Any = root
    for part in ref[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~").replace("%25", "%")
        if isinstance(target, dict) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        else:
            raise Misconfigured(f"the reference {ref!r} points at nothing in the schema")
    return target


def concrete(
    schema: Schema, root: Schema, seen: frozenset[str] = frozenset()
) -> Iterator[dict[str, Any]]:
    """The schemas without a choice that this one stands for: refs followed, anyOf spread out."""
    if not isinstance(schema, dict):
        return
    ref = schema.get("$ref")
    if ref is not None and ref not in seen:
        yield from concrete(resolve(root, ref), root, seen | {ref})
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        for option in options:
            yield from concrete(option, root, seen)
    elif ref is None:
        yield schema


def kinds(schema: Schema, root: Schema, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """The JSON kinds that a schema lets through, as far as its types and constants say.

    "number" includes integers; "integer" alone means whole numbers only.
    """
    if schema is False:
        return frozenset()
    if not isinstance(schema, dict):
        return KINDS
    allowed = KINDS
    wanted = schema.get("type")
    if wanted is not None:
        allowed = frozenset([wanted] if isinstance(wanted, str) else wanted)
        if "number" in allowed:
            allowed |= {"integer"}
    for values in (schema.get("enum"), [schema["const"]] if "const" in schema else None):
        if values is not None:
            allowed &= {kind_of(one) for one in values}
    ref = schema.get("$ref")
    # A reference that is being read already adds nothing new.
    if ref is not None and ref not in seen:
        allowed &= kinds(resolve(root, ref), root, seen | {ref})
    for word in ("anyOf", "oneOf"):
        if word in schema:
            allowed &= frozenset().union(*(kinds(one, root, seen) for one in schema[word]))
    for inner in schema.get("allOf", ()):
        allowed &= kinds(inner, root, seen)
    return allowed


def kind_of(value: JSON) -> str:
    """The JSON kind of a decoded value; a whole float is an "integer", as 2020-12 has it."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def _accepts_kind(allowed: frozenset[str], kind: str) -> bool:
    return kind in allowed or (kind == "integer" and "number" in allowed)


def _has_type(value: JSON, wanted: str | Sequence[str]) -> bool:
    names = (wanted,) if isinstance(wanted, str) else wanted
    kind = kind_of(value)
    return kind in names or (kind == "integer" and "number" in names)


def same_json(left: JSON, right: JSON) -> bool:
    """Equality of JSON values: 1 and 1.0 are one number, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    return bool(left == right)


def _has_repeats(values: list[JSON]) -> bool:
    seen: set[bytes] = set()
    for value in values:
        # A canonical text makes this linear; True and 1 differ in it, 1 and 1.0 do not.
        key = msgspec.json.encode(_canonical(value), order="deterministic")
        if key in seen:
            return True
        seen.add(key)
    return False


def _canonical(value: JSON) -> JSON:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    return value


_patterns: dict[str, re.Pattern[str]] = {}


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A schema's pattern, ready to search with.

    Raises:
        Misconfigured: it is no regular expression that Python can read.
    """
    known = _patterns.get(pattern)
    if known is None:
        try:
            known = re.compile(pattern)
        except re.error as error:
            raise Misconfigured(f"the pattern {pattern!r} cannot be used: {error}") from None
        # 512 patterns: more than one server's schemas hold; beyond it they are compiled anew.
        if len(_patterns) < 512:
            _patterns[pattern] = known
    return known


# --- single faults ----------------------------------------------------------------------------


def _value_faults(schema: Schema, value: JSON, path: str) -> list[ArgumentFault]:
    allowed = schema.get("enum")
    if "const" in schema:
        wanted = schema["const"]
        fits = allowed is None or any(same_json(wanted, one) for one in allowed)
        # What the two allow together; at times that is nothing.
        allowed = [wanted] if fits else []
    if allowed is None or any(same_json(value, one) for one in allowed):
        return []
    names = [one for one in allowed if isinstance(one, str)]
    likely = closest(value, names) if isinstance(value, str) else None
    hint = f"did you mean {likely!r}?" if likely else None
    return [ArgumentFault(path, _one_of(allowed), preview(value), hint)]


def _number_faults(schema: Schema, value: float, path: str) -> list[ArgumentFault]:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf")
    wanted = []
    if low is not None and not value >= low:
        wanted.append(f"at least {preview(low)}")
    if above is not None and not value > above:
        wanted.append(f"more than {preview(above)}")
    if high is not None and not value <= high:
        wanted.append(f"at most {preview(high)}")
    if below is not None and not value < below:
        wanted.append(f"less than {preview(below)}")
    if step is not None and not _divides(step, value):
        wanted.append(f"a multiple of {preview(step)}")
    return [ArgumentFault(path, one, preview(value)) for one in wanted]


def _divides(step: float, value: float) -> bool:
    if isinstance(step, int) and isinstance(value, int):
        return value % step == 0
    if not math.isfinite(value):
        return False
    # As decimals, since 0.3 is a multiple of 0.1 to whoever wrote it.
    ratio = Decimal(repr(value)) / Decimal(repr(step))
    return ratio == ratio.to_integral_value()


def _miscounted(path: str, bound: str, limit: int, count: int, unit: str) -> ArgumentFault:
    return ArgumentFault(path, f"{bound} {_counted(limit, unit)}", _counted(count, unit))


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def unknown_name(
    path: str, name: str, got: str, free: Sequence[str], known: Sequence[str]
) -> ArgumentFault:
    """The fault of a member that nobody declared; `free` are the known names not in use."""
    likely = closest(name, free)
    if likely:
        hint: str | None = f"did you mean {likely!r}?"
    elif not known:
        hint = "there are none"
    else:
        # A longer list costs a model more than it helps.
        hint = "known: " + ", ".join(known) if len(known) <= 12 else None
    return ArgumentFault(path, "no argument of this name", got, hint)


def _type_hint(schema: Schema, value: JSON) -> str | None:
    if isinstance(value, str) and schema.get("type") in ("array", "object"):
        return f"send the {schema['type']} itself, not a string"
    if isinstance(value, bool) and schema.get("type") in ("integer", "number"):
        return "true and false are not numbers"
    return None


EXAMPLES: dict[str | None, str] = {
    "date-time": "like 2030-01-31T09:30:00Z",
    "date": "like 2030-01-31",
    "time": "like 09:30:00",
    "duration": "like PT1H30M",
    "uuid": "like 123e4567-e89b-12d3-a456-426614174000",
    "decimal": "like 12.50",
    "email": "like ada@example.org",
    "uri": "like https://example.org/",
}
"""A hint for each format that is asserted."""

_ARTICLES = {
    "null": "null",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "a string",
    "array": "an array",
    "object": "an object",
}
_FORMATS = {
    "date-time": "a date and time",
    "date": "a date",
    "time": "a time",
    "duration": "a duration",
    "uuid": "a UUID",
    "decimal": "a decimal number in a string",
    "email": "an e-mail address",
    "uri": "a URI",
    "path": "a path",
}


def describe(schema: Schema, root: Schema, depth: int = 0) -> str:
    """A schema in a few words: "an integer", "one of 'a', 'b'", "an array of strings"."""
    if schema is False:
        return _NOTHING
    if not isinstance(schema, dict) or depth > 4:
        return "a value"
    if "enum" in schema:
        return _one_of(schema["enum"])
    if "const" in schema:
        return _one_of([schema["const"]])
    if "$ref" in schema:
        return describe(resolve(root, schema["$ref"]), root, depth + 1)
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(describe(one, root, depth + 1) for one in options))
    wanted = schema.get("type")
    if wanted == "string":
        if schema.get("contentEncoding") == "base64":
            return "base64 text"
        return _FORMATS.get(schema.get("format", ""), "a string")
    if wanted == "array" and isinstance(schema.get("items"), dict) and schema["items"]:
        return f"an array, each item {describe(schema['items'], root, depth + 1)}"
    if wanted == "object" and schema.get("properties"):
        names = list(schema["properties"])
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        return f"an object with {shown}"
    if isinstance(wanted, list):
        return " or ".join(_ARTICLES[one] for one in wanted if one in _ARTICLES)
    return _ARTICLES.get(wanted, "a value") if isinstance(wanted, str) else "a value"


def _one_of(values: Sequence[JSON]) -> str:
    shown = ", ".join(preview(value) for value in values[:12])
    more = f", … ({len(values)} in all)" if len(values) > 12 else ""
    return f"one of {shown}{more}" if len(values) > 1 else shown or _NOTHING


def preview(value: JSON) -> str:
    """A value on one short line: strings and numbers are cut, containers only counted."""
    match value:
        case str():
            if len(value) <= PREVIEW_LENGTH:
                return _quoted(value)
            return f'{_quoted(value[:PREVIEW_LENGTH])[:-1]}…" ({len(value)} characters)'
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)
        case int():
            # Printing an integer of many digits is slow, and refused above a few thousand.
            return str(value) if value.bit_length() < 128 else "an integer of many digits"
        case list() | tuple():
            return f"an array of {len(value)} item{'' if len(value) == 1 else 's'}"
        case dict():
            names = [str(name)[:20] for name in list(value)[:4]]
            more = ", …" if len(value) > 4 else ""
            return f"an object with {', '.join(names)}{more}" if names else "an empty object"
        case _:
            return f"a {type(value).__name__}"


def _quoted(text: str) -> str:
    try:
        return msgspec.json.encode(text).decode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which UTF-8 cannot hold.
        return f'"{text.encode("ascii", "backslashreplace").decode()}"'


def closest(name: str, known: Sequence[str]) -> str | None:
    """The known name most like this one, or None when none is near."""
    if len(name) > MAX_NAME_LENGTH:
        return None
    # Needed only to explain a fault, and slow to load.
    import difflib

    fair = [one for one in known[:MAX_NAMES_COMPARED] if len(one) <= MAX_NAME_LENGTH]
    folded: dict[str, str] = {one.lower().replace("-", "_"): one for one in reversed(fair)}
    wanted = name.lower().replace("-", "_")
    if wanted in folded:
        return folded[wanted]
    near = difflib.get_close_matches(wanted, list(folded), n=1, cutoff=0.6)
    return folded[near[0]] if near else None


def _member(path: str, name: str) -> str:
    if re.fullmatch(r"[A-Za-z_$][\w$-]{0,63}", name):
        return f"{path}.{name}" if path else name
    return f"{path}[{_quoted(name[:MAX_NAME_LENGTH])}]"
