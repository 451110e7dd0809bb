"""A tool's JSON Schema in the words a provider accepts.

The compiled schema is never stricter than the original: what a provider has no word for is left out
and told in the description instead, and the arguments are judged by the original later. It can be
made of any JSON at all: what cannot be read is left out as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.errors import Misconfigured
from dragoman.host.models.base import ProviderRules
from dragoman.model.faults import KINDS, resolve
from dragoman.model.unseen import without_unseen

__all__ = ["Compiled", "Loss", "compile_schema"]

# 1,000 parts of a schema: references that double at each step would make more than any model reads.
MAX_PARTS = 1_000
# A reference is followed into itself twice: enough to show a tree's shape, no more to be paid for.
MAX_TURNS = 2
# 40 schemas inside of each other, references and `allOf` counted: the interpreter's stack is finite.
MAX_LEVELS = 40
# 200 characters for what is told of a keyword, and six such notes on one part.
MAX_NOTE_CHARS = 200
MAX_NOTES = 6
# 2,000 characters for the description of one member; the tool's own has another limit.
MAX_TEXT_CHARS = 2_000
# 40,000 characters for all descriptions of one schema, about 11,000 tokens; then each is cut short.
MAX_ALL_CHARS = 40_000
SHORT_CHARS = 60
# Enums of more than 1,000 values are not looked at: none is short enough for a provider.
MAX_VALUES = 1_000

_SIDE_BY_SIDE_IGNORED = ("draft-04", "draft-06", "draft-07")
_ANNOTATIONS = frozenset(
    {
        "$comment", "$defs", "$id", "$schema", "definitions", "deprecated", "description",
        "examples", "example", "id", "readOnly", "title", "writeOnly", "$anchor",
    }
)  # fmt: skip
_LEAST = {"minimum", "exclusiveMinimum", "minLength", "minItems"}
_MOST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems"}
_COUNTS = {"minLength", "minItems", "maxLength", "maxItems"}


@dataclass(frozen=True, slots=True)
class Loss:
    """What the compiled schema does not say: `path` is where (a JSON pointer), `what` in words."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path or '/'}: {self.what}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A schema for a provider, and what it lost."""

    schema: dict[str, Any]
    losses: tuple[Loss, ...]


def compile_schema(schema: Any, rules: ProviderRules) -> Compiled:
    """The schema of a tool's arguments as `rules` have it: at the top a plain object."""
    writer = _Writer(schema, rules)
    top = writer.write(schema, "", 0, ())
    return Compiled(writer.as_object(top), tuple(writer.losses))


class _Part:
    """A schema on its way: keywords that are settled, and what to tell in the description."""

    __slots__ = ("notes", "text", "words")

    def __init__(self) -> None:
        self.words: dict[str, Any] = {}
        self.text = ""
        self.notes: list[str] = []


class _Writer:
    """One compilation."""

    def __init__(self, root: Any, rules: ProviderRules) -> None:
        self.root = root
        self.rules = rules
        self.losses: list[Loss] = []
        self.parts = 0
        self.level = 0
        self.room = MAX_ALL_CHARS
        self.property_name = re.compile(rules.property_pattern)
        named = root.get("$schema") if isinstance(root, Mapping) else None
        self.is_old = isinstance(named, str) and any(one in named for one in _SIDE_BY_SIDE_IGNORED)

    def lose(self, part: _Part, path: str, note: str) -> None:
        """Leave something out: told to the model where there is room, and to whoever asks."""
        note = _shortened(without_unseen(note), MAX_NOTE_CHARS)
        self.losses.append(Loss(path, note))
        if len(part.notes) < MAX_NOTES and note not in part.notes:
            part.notes.append(note)

    def write(self, schema: Any, path: str, depth: int, refs: tuple[str, ...]) -> dict[str, Any]:
        """A schema as this provider has it."""
        return self.finish(self.read(schema, path, depth, refs))

    def finish(self, part: _Part) -> dict[str, Any]:
        """The keywords, with the description that tells the rest."""
        words = dict(part.words)
        text = part.text
        if part.notes:
            told = "; ".join(part.notes)
            text = f"{text} ({told})" if text else f"({told})"
        if text:
            text = _shortened(text, MAX_TEXT_CHARS if self.room > 0 else SHORT_CHARS)
            words["description"] = text
            self.room -= len(text)
        kind = words.get("type")
        if kind == "array" or (isinstance(kind, list) and "array" in kind):
            # Some refuse a list of they do not know what.
            words.setdefault("items", {})
        return words

    # --- one schema ---------------------------------------------------------------------------

    def read(self, schema: Any, path: str, depth: int, refs: tuple[str, ...]) -> _Part:
        """A schema, with what its references and its `allOf` add."""
        self.parts += 1
        self.level += 1
        try:
            return self.read_one(schema, path, depth, refs)
        finally:
            self.level -= 1

    def read_one(self, schema: Any, path: str, depth: int, refs: tuple[str, ...]) -> _Part:
        """The same, within its bounds."""
        part = _Part()
        if schema is False:
            self.lose(part, path, "no value fits here")
            return part
        if not isinstance(schema, Mapping):
            if schema is not True:
                self.lose(part, path, "the schema here cannot be read")
            return part
        part.text = self.told_text(schema)
        is_deep = depth > self.rules.max_depth or self.level > MAX_LEVELS
        if is_deep or self.parts > MAX_PARTS:
            kind = self.kinds_of(schema)
            self.set_kinds(part, path, kind)
            if schema.keys() - _ANNOTATIONS - {"type"}:
                self.lose(part, path, "what is further inside is not described")
            return part
        ref = schema.get("$ref")
        if ref is not None:
            target = self.follow(part, ref, path, refs)
            if target is not None:
                inner = self.read(target, path, depth, (*refs, str(ref)))
                self.merge(part, inner, path)
            if self.is_old:
                return part
        self.take_kinds(part, schema, path)
        self.take_values(part, schema, path)
        self.take_bounds(part, schema, path)
        self.take_object(part, schema, path, depth, refs)
        self.take_array(part, schema, path, depth, refs)
        branches = schema.get("allOf")
        if isinstance(branches, list):
            for number, branch in enumerate(branches):
                if self.parts > MAX_PARTS:
                    self.lose(part, path, f"{len(branches) - number} more conditions")
                    break
                inner = self.read(branch, f"{path}/allOf/{number}", depth, refs)
                self.merge(part, inner, path)
        for word in ("anyOf", "oneOf"):
            if isinstance(branches := schema.get(word), list) and branches:
                self.take_branches(part, branches, f"{path}/{word}", depth, refs)
        if schema.get("nullable") is True:
            self.admit_null(part, path)
        self.tell_rest(part, schema, path)
        return part

    def told_text(self, schema: Mapping[str, Any]) -> str:
        """What the author says of it, without characters that nobody sees."""
        for word in ("description", "title"):
            text = schema.get(word)
            if isinstance(text, str) and text.strip():
                return _shortened(without_unseen(text.strip()), MAX_TEXT_CHARS)
        return ""

    def follow(self, part: _Part, ref: Any, path: str, refs: tuple[str, ...]) -> Any:
        """Where a reference leads; None when it leads nowhere, outside, or round in a circle."""
        if not isinstance(ref, str) or not ref.startswith("#"):
            self.lose(part, path, f"defined elsewhere: {ref}")
            return None
        if refs.count(ref) >= MAX_TURNS:
            try:
                target = resolve(self.root, ref)
            except Misconfigured:
                return None
            if isinstance(target, Mapping) and not (self.is_old and "$ref" in target):
                self.set_kinds(part, path, self.kinds_of(target))
            self.lose(part, path, f"again the shape of {ref.rpartition('/')[2] or 'the whole'}")
            return None
        try:
            return resolve(self.root, ref)
        except Misconfigured:
            self.lose(part, path, f"defined as {ref}, which is not there")
            return None

    # --- types and values ---------------------------------------------------------------------

    def kinds_of(self, schema: Mapping[str, Any]) -> list[str]:
        """The types that a schema names; none means any."""
        named = schema.get("type")
        listed = named if isinstance(named, list) else [named]
        kinds = [kind for kind in listed if isinstance(kind, str)]
        return kinds if kinds and all(kind in KINDS for kind in kinds) else []

    def take_kinds(self, part: _Part, schema: Mapping[str, Any], path: str) -> None:
        if "type" not in schema:
            return
        kinds = self.kinds_of(schema)
        if not kinds:
            self.lose(part, path, f"of type {_preview(schema['type'])}")
            return
        known = _listed(part.words.get("type"))
        if known:
            kinds = _common_kinds(known, kinds)
            if not kinds:
                self.lose(part, path, f"also of type {_preview(schema['type'])}")
                return
        self.set_kinds(part, path, kinds)

    def set_kinds(self, part: _Part, path: str, kinds: list[str]) -> None:
        kinds = list(dict.fromkeys(kinds))
        if "number" in kinds and "integer" in kinds:
            kinds.remove("integer")
        if not kinds:
            part.words.pop("type", None)
        elif len(kinds) == 1 and (kinds != ["null"] or self.rules.has_type_lists):
            part.words["type"] = kinds[0]
        elif self.rules.has_type_lists:
            part.words["type"] = kinds
        else:
            part.words.pop("type", None)
            self.lose(part, path, " or ".join(kinds))

    def take_values(self, part: _Part, schema: Mapping[str, Any], path: str) -> None:
        """`const`, `enum`, `default` and examples."""
        if "const" in schema:
            self.set_values(part, path, [schema["const"]])
        if isinstance(values := schema.get("enum"), list) and values:
            self.set_values(part, path, values)
        if "default" in schema:
            value = schema["default"]
            if _is_small(value):
                part.words["default"] = value
            else:
                self.lose(part, path, f"default {_preview(value)}")
        examples = schema.get("examples")
        if isinstance(examples, list) and examples:
            shown = ", ".join(_preview(one) for one in examples[:3])
            part.notes.append(_shortened(without_unseen(f"for example {shown}"), MAX_NOTE_CHARS))

    def set_values(self, part: _Part, path: str, values: list[Any]) -> None:
        known = part.words.pop("enum", None)
        if len(values) <= MAX_VALUES:
            if known is not None:
                left = {_key(one) for one in values}
                values = [one for one in known if _key(one) in left] or known
            values = list({_key(one): one for one in values}.values())
        is_mixed = not all(isinstance(one, str) for one in values)
        fits = (
            len(values) <= self.rules.max_enum
            and all(_is_small(one) for one in values)
            and (self.rules.has_mixed_enums or not is_mixed)
        )
        if not fits:
            shown = ", ".join(_preview(one) for one in values[:8])
            more = f" and {len(values) - 8} more" if len(values) > 8 else ""
            self.lose(part, path, f"one of {shown}{more}")
            if known is not None:
                part.words["enum"] = known
            return
        part.words["enum"] = values
        if "type" not in part.words:
            # Providers want a type beside the values.
            kinds = list(dict.fromkeys(_kind(one) for one in values))
            if len(kinds) == 1 or self.rules.has_type_lists:
                self.set_kinds(part, path, kinds)

    def take_bounds(self, part: _Part, schema: Mapping[str, Any], path: str) -> None:
        """What limits numbers, texts and the length of lists."""
        for word in (*_LEAST, *_MOST, "multipleOf", "pattern", "uniqueItems", "format"):
            if word not in schema:
                continue
            value = schema[word]
            if not self.is_bound(word, value):
                self.lose(part, path, f"{word} {_preview(value)}")
                continue
            known = part.words.get(word)
            if known is not None and known != value:
                if word in _LEAST:
                    value = max(known, value)
                elif word in _MOST:
                    value = min(known, value)
                else:
                    self.lose(part, path, f"{word} {_preview(value)}")
                    continue
            part.words[word] = value

    def is_bound(self, word: str, value: Any) -> bool:
        """Whether the provider takes this limit and it is one."""
        if word == "format":
            return isinstance(value, str) and value in self.rules.formats
        if word not in self.rules.keywords:
            return False
        if word == "pattern":
            return isinstance(value, str) and without_unseen(value) == value and _reads(value)
        if word == "uniqueItems":
            return isinstance(value, bool)
        if isinstance(value, bool) or not isinstance(value, int | float):
            # True was how the fourth draft wrote an exclusive bound.
            return False
        if word in _COUNTS:
            return value >= 0 and float(value).is_integer()
        return value > 0 if word == "multipleOf" else True

    # --- objects and lists --------------------------------------------------------------------

    def take_object(
        self, part: _Part, schema: Mapping[str, Any], path: str, depth: int, refs: tuple[str, ...]
    ) -> None:
        members = schema.get("properties")
        is_open = True
        if isinstance(members, Mapping):
            known = part.words.setdefault("properties", {})
            needed = schema.get("required")
            needed = needed if isinstance(needed, list) else []
            # Those that can only be told and are needed come first: there is room for a few.
            unfit = {name for name in members if not self.is_name(name)}
            ordered = sorted(
                members.items(), key=lambda one: one[0] in unfit and one[0] not in needed
            )
            for number, (name, inner) in enumerate(ordered):
                at = f"{path}/properties/{_token(str(name))}"
                if self.parts > MAX_PARTS:
                    part.words["additionalProperties"] = True
                    self.lose(part, path, f"{len(members) - number} more members")
                    break
                if name in unfit:
                    part.words["additionalProperties"] = True
                    told = self.finish(self.read(inner, at, depth + 1, refs))
                    has = "must have" if name in needed else "may have"
                    self.lose(part, at, f"{has} a member {_quoted(name)}: {_preview(told)}")
                elif name in known:
                    both = self.read(inner, at, depth + 1, refs)
                    first = _Part()
                    first.words = known[name]
                    first.text = first.words.pop("description", "")
                    self.merge(first, both, at)
                    known[name] = self.finish(first)
                else:
                    known[name] = self.write(inner, at, depth + 1, refs)
        if isinstance(schema.get("patternProperties"), Mapping):
            is_open = False
            for pattern, inner in schema["patternProperties"].items():
                if self.parts > MAX_PARTS:
                    break
                at = f"{path}/patternProperties/{_token(str(pattern))}"
                told = self.finish(self.read(inner, at, depth + 1, refs))
                note = f"members whose name matches {pattern}"
                self.lose(part, at, f"{note}: {_preview(told)}" if told else note)
            part.words["additionalProperties"] = True
        beyond = schema.get("additionalProperties")
        if is_open and beyond is not None and part.words.get("additionalProperties") is not True:
            self.take_beyond(part, beyond, path, depth, refs)
        told_of = members if isinstance(members, Mapping) else {}
        self.take_required(part, schema.get("required"), path, told_of)

    def take_beyond(
        self, part: _Part, beyond: Any, path: str, depth: int, refs: tuple[str, ...]
    ) -> None:
        """What members without a name of their own may be."""
        at = f"{path}/additionalProperties"
        if beyond is False:
            if self.rules.has_additional:
                part.words["additionalProperties"] = False
            return
        if beyond is True or not isinstance(beyond, Mapping):
            return
        inner = self.write(beyond, at, depth + 1, refs)
        if not inner or part.words.get("additionalProperties") is False:
            return
        if self.rules.has_additional and "additionalProperties" not in part.words:
            part.words["additionalProperties"] = inner
        else:
            self.lose(part, at, f"further members: {_preview(inner)}")

    def take_required(self, part: _Part, names: Any, path: str, told_of: Mapping[Any, Any]) -> None:
        if not isinstance(names, list):
            if names is not None:
                self.lose(part, path, f"required {_preview(names)}")
            return
        known = part.words.setdefault("properties", {}) if names else {}
        needed = dict.fromkeys(part.words.get("required", []))
        for number, name in enumerate(names):
            if self.parts > MAX_PARTS:
                self.lose(part, path, f"needs {len(names) - number} more members")
                break
            if isinstance(name, str) and self.is_name(name):
                needed[name] = None
                if name not in known:
                    self.parts += 1
                    known[name] = {}
            elif not isinstance(name, str):
                self.lose(part, path, f"needs a member {_preview(name)}")
            elif name not in told_of:
                self.lose(part, path, f"must have a member {_quoted(name)}")
        if needed:
            part.words["required"] = list(needed)

    def is_name(self, name: Any) -> bool:
        """Whether the provider takes this as the name of a member."""
        return isinstance(name, str) and self.property_name.fullmatch(name) is not None

    def take_array(
        self, part: _Part, schema: Mapping[str, Any], path: str, depth: int, refs: tuple[str, ...]
    ) -> None:
        items = schema.get("items")
        places = schema.get("prefixItems")
        rest = items
        if isinstance(items, list):
            # Before 2020-12 a tuple was a list of items, and the rest had another name.
            places, rest = items, schema.get("additionalItems")
        if isinstance(places, list) and places:
            told = []
            for number, place in enumerate(places[:20]):
                inner = self.write(place, f"{path}/prefixItems/{number}", depth + 1, refs)
                told.append(f"{number + 1}. {_preview(inner)}")
            self.lose(part, f"{path}/prefixItems", "in this order: " + ", ".join(told))
            if rest is False and "maxItems" in self.rules.keywords:
                most = part.words.get("maxItems", len(places))
                part.words["maxItems"] = min(most, len(places))
            part.words["items"] = {}
        elif isinstance(rest, Mapping):
            inner_part = self.read(rest, f"{path}/items", depth + 1, refs)
            if "items" in part.words:
                first = _Part()
                first.words = dict(part.words["items"])
                first.text = first.words.pop("description", "")
                self.merge(first, inner_part, f"{path}/items")
                inner_part = first
            part.words["items"] = self.finish(inner_part)
        elif rest is False:
            self.lose(part, path, "an empty list")

    # --- alternatives -------------------------------------------------------------------------

    def take_branches(
        self, part: _Part, branches: list[Any], path: str, depth: int, refs: tuple[str, ...]
    ) -> None:
        """One of several: as values, as a type that may be null, as alternatives, or told."""
        if self.parts + len(branches) > MAX_PARTS:
            self.lose(part, path, f"one of {len(branches)} forms")
            return
        shapes = [
            self.write(branch, f"{path}/{number}", depth + (depth > 0), refs)
            for number, branch in enumerate(branches)
            if branch is not False
        ]
        if not shapes:
            self.lose(part, path, "no value fits here")
            return
        plain = [shape for shape in shapes if shape.get("type") != "null"]
        has_null = len(plain) < len(shapes)
        if not plain:
            self.take_kinds(part, {"type": "null"}, path)
            return
        unique = list({_key(shape): shape for shape in plain}.values())
        values = self.all_values(unique)
        if values is not None:
            self.set_values(part, path, [*values, *([None] if has_null else [])])
            told = [
                f"{_preview(value)}: {shape['description']}"
                for shape in unique
                if "description" in shape
                for value in shape["enum"][:1]
            ]
            if told:
                part.notes.extend(
                    _shortened(note, MAX_NOTE_CHARS) for note in told[: MAX_NOTES - len(part.notes)]
                )
            return
        if len(unique) == 1 and not has_null:
            self.merge(part, _opened(unique[0]), path)
            return
        if len(unique) == 1 and self.merge_nullable(part, unique[0], path):
            return
        if any(_is_anything(shape) for shape in unique):
            # One of them takes everything: to list the others would only mislead.
            notes = [shape["description"] for shape in unique if "description" in shape]
            if notes:
                self.lose(part, path, "one of: " + " | ".join(notes))
            return
        if depth == 0:
            self.merge_objects(part, unique, path)
        elif self.rules.has_alternatives and "anyOf" not in part.words:
            null = [{"type": "null"}] if has_null else []
            part.words["anyOf"] = [*unique, *null]
        else:
            told_shapes = " | ".join(_preview(shape) for shape in unique)
            self.lose(part, path, f"one of {told_shapes}{' | null' if has_null else ''}")

    def all_values(self, shapes: list[dict[str, Any]]) -> list[Any] | None:
        """The values of all branches, when each is nothing but values."""
        if not shapes or not all(
            shape.keys() <= {"type", "enum", "description", "default"} and "enum" in shape
            for shape in shapes
        ):
            return None
        return [value for shape in shapes for value in shape["enum"]]

    def merge_nullable(self, part: _Part, shape: dict[str, Any], path: str) -> bool:
        """X or null, as X whose type may be null; False where that cannot be said."""
        kinds = _listed(shape.get("type"))
        if not kinds or not self.rules.has_type_lists or part.words.keys() - {"default"}:
            return False
        inner = _opened(shape)
        inner.words["type"] = [*kinds, "null"]
        if "enum" in inner.words:
            inner.words["enum"] = [*inner.words["enum"], None]
        self.merge(part, inner, path)
        return True

    def admit_null(self, part: _Part, path: str) -> None:
        """`nullable`, which is OpenAPI's and not JSON Schema's, but common."""
        kinds = _listed(part.words.get("type"))
        if kinds and "null" not in kinds:
            if self.rules.has_type_lists:
                part.words["type"] = [*kinds, "null"]
                if "enum" in part.words and None not in part.words["enum"]:
                    part.words["enum"] = [*part.words["enum"], None]
            else:
                part.words.pop("type")
                part.words.pop("enum", None)
                self.lose(part, path, f"{' or '.join(kinds)} or null")

    def merge_objects(self, part: _Part, shapes: list[dict[str, Any]], path: str) -> None:
        """Alternatives at the top, where no provider has any: one object with the members of all."""
        forms = []
        members: dict[str, list[dict[str, Any]]] = {}
        needed: list[set[str]] = []
        is_closed = self.rules.has_additional
        for shape in shapes:
            kinds = _listed(shape.get("type"))
            if kinds and "object" not in kinds:
                # Arguments are an object always.
                continue
            properties = shape.get("properties", {})
            for name, inner in properties.items():
                members.setdefault(name, []).append(inner)
            needed.append(set(shape.get("required", ())))
            is_closed = is_closed and shape.get("additionalProperties") is False
            form = "{" + ", ".join(_member(*one) for one in properties.items()) + "}"
            about = shape.get("description")
            forms.append(f"{form} {_preview(about)}" if about else form)
        known = part.words.setdefault("properties", {})
        for name, found in members.items():
            unique = list({_key(one): one for one in found}.values())
            # Beside a form that names the member another may leave it open.
            is_everywhere = len(found) == len(forms) or is_closed
            if name in known:
                continue
            if len(unique) == 1 and is_everywhere:
                known[name] = unique[0]
            elif (
                is_everywhere and self.rules.has_alternatives and not any(map(_is_anything, unique))
            ):
                known[name] = {"anyOf": unique}
            else:
                told = _Part()
                told.notes.append(
                    _shortened(" | ".join(_preview(one) for one in unique), MAX_NOTE_CHARS)
                )
                known[name] = self.finish(told)
        common = set.intersection(*needed) if needed else set()
        both = [*part.words.get("required", []), *sorted(common)]
        if both:
            part.words["required"] = list(dict.fromkeys(both))
        if is_closed and forms:
            part.words.setdefault("additionalProperties", False)
        self.lose(part, path, "one of these forms: " + " or ".join(forms))

    # --- putting together ---------------------------------------------------------------------

    def merge(self, part: _Part, other: _Part, path: str) -> None:
        """Add what `other` asks for as well; never more than both together."""
        words = other.words
        part.text = part.text or other.text
        for note in other.notes:
            if len(part.notes) < MAX_NOTES and note not in part.notes:
                part.notes.append(note)
        if "type" in words:
            self.take_kinds(part, words, path)
        if "enum" in words:
            self.set_values(part, path, list(words["enum"]))
        if "default" in words:
            part.words.setdefault("default", words["default"])
        self.take_bounds(part, words, path)
        self.merge_members(part, words, path)
        if "items" in words:
            if "items" in part.words and part.words["items"] != words["items"]:
                first = _opened(part.words["items"])
                self.merge(first, _opened(words["items"]), f"{path}/items")
                part.words["items"] = self.finish(first)
            else:
                part.words["items"] = words["items"]
        if "anyOf" in words:
            if "anyOf" in part.words:
                told = " | ".join(_preview(one) for one in words["anyOf"])
                self.lose(part, path, f"and one of {told}")
            else:
                part.words["anyOf"] = words["anyOf"]

    def merge_members(self, part: _Part, words: Mapping[str, Any], path: str) -> None:
        mine, theirs = part.words.get("additionalProperties"), words.get("additionalProperties")
        if "properties" in words:
            known = part.words.setdefault("properties", {})
            for name, inner in words["properties"].items():
                if name in known:
                    first = _opened(known[name])
                    self.merge(first, _opened(inner), f"{path}/properties/{_token(name)}")
                    known[name] = self.finish(first)
                else:
                    known[name] = inner
        if "required" in words:
            both = [*part.words.get("required", []), *words["required"]]
            part.words["required"] = list(dict.fromkeys(both))
        if mine is True or theirs is True:
            # One of them has members that cannot be named: nothing may be closed around them.
            part.words["additionalProperties"] = True
        elif mine is False or theirs is False:
            part.words["additionalProperties"] = False
        elif isinstance(mine, Mapping) and (theirs is not None or "properties" in words):
            # What one calls a further member the other may name.
            part.words.pop("additionalProperties")
            self.lose(part, path, f"further members: {_preview(mine)}")
        elif isinstance(theirs, Mapping):
            if part.words.get("properties"):
                self.lose(part, path, f"further members: {_preview(theirs)}")
            else:
                part.words["additionalProperties"] = theirs

    def tell_rest(self, part: _Part, schema: Mapping[str, Any], path: str) -> None:
        """Keywords that no provider reads, in words."""
        for word in _TOLD:
            if word in schema:
                self.lose(part, f"{path}/{word}", f"{word} {_preview(schema[word])}")

    def as_object(self, top: dict[str, Any]) -> dict[str, Any]:
        """The top: an object, without anything that limits the object as a whole."""
        kinds = _listed(top.get("type"))
        if kinds and "object" not in kinds:
            self.losses.append(Loss("", "the arguments are no object by this schema"))
        kept: dict[str, Any] = {
            word: top[word]
            for word in ("description", "properties", "required", "additionalProperties")
            if word in top
        }
        beyond = kept.get("additionalProperties")
        if beyond is True or (beyond is not None and not self.rules.has_additional):
            kept.pop("additionalProperties")
        kept.setdefault("properties", {})
        return _tidy({"type": "object", **kept}, self.rules)


_TOLD = (
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "dependentRequired",
    "dependentSchemas", "dependencies", "propertyNames", "minProperties", "maxProperties",
    "unevaluatedProperties", "unevaluatedItems", "contentEncoding", "contentMediaType",
    "$dynamicRef", "$recursiveRef",
)  # fmt: skip


def _tidy(schema: dict[str, Any], rules: ProviderRules) -> dict[str, Any]:
    """Take away what says nothing: an open door that is open anyway."""
    tidy: dict[str, Any] = {}
    for word, value in schema.items():
        if word == "additionalProperties" and (value is True or not rules.has_additional):
            continue
        if word == "properties":
            tidy[word] = {name: _tidy(inner, rules) for name, inner in value.items()}
        elif word in ("items", "additionalProperties") and isinstance(value, dict):
            tidy[word] = _tidy(value, rules)
        elif word == "anyOf":
            tidy[word] = [_tidy(inner, rules) for inner in value]
        else:
            tidy[word] = value
    return tidy


def _opened(shape: Mapping[str, Any]) -> _Part:
    """A finished schema as a part that can be added to."""
    part = _Part()
    part.words = dict(shape)
    part.text = part.words.pop("description", "")
    if "properties" in part.words:
        part.words["properties"] = dict(part.words["properties"])
    return part


def _is_anything(shape: Mapping[str, Any]) -> bool:
    return not shape.keys() - {"description", "default"}


def _listed(kind: Any) -> list[str]:
    return [] if kind is None else list(kind) if isinstance(kind, list) else [kind]


def _common_kinds(left: list[str], right: list[str]) -> list[str]:
    """The types that both allow; every integer is a number."""
    common = [kind for kind in left if kind in right]
    if ("number" in left and "integer" in right) or ("integer" in left and "number" in right):
        common.append("integer")
    return common


def _kind(value: Any) -> str:
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
        case list():
            return "array"
        case _:
            return "object"


def _is_small(value: Any) -> bool:
    """A single value that a person can read whole."""
    if isinstance(value, str):
        return len(value) <= MAX_NOTE_CHARS and without_unseen(value) == value
    return value is None or isinstance(value, bool | int | float)


def _key(value: Any) -> str:
    """Equal for equal JSON; True is not 1, but 1.0 is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, default=str)


def _preview(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = "…"
    return _shortened(text, MAX_NOTE_CHARS)


def _quoted(name: Any) -> str:
    """A name as it must be written, so that blanks and signs in it are seen."""
    return _shortened(json.dumps(str(name), ensure_ascii=False), MAX_NOTE_CHARS // 2)


def _member(name: str, shape: Mapping[str, Any]) -> str:
    """A member of a form, with its value where that tells the form from others."""
    values = shape.get("enum", ())
    return f"{name}: {_preview(values[0])}" if len(values) == 1 else name


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _reads(pattern: str) -> bool:
    """Whether it is a pattern in every dialect: no look-around, no names, nothing of one language."""
    if re.search(r"\(\?[^:]|\\[pPkKAZzhG]|[*+?}]\+", pattern):
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
