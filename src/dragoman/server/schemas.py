"""JSON Schemas (2020-12) of the types that msgspec reads.

The words are chosen so that the pydantic engine's schemas, once brought into the same form by
`tidy`, say the same for the same type; a property test holds the two together.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
import typing
from typing import Any

import msgspec
from msgspec import inspect as mi

from dragoman.errors import Misconfigured
from dragoman.server.annotations import (
    Survey,
    describe_metadata,
    field_hints,
    for_msgspec,
    literal_key,
    survey,
)

__all__ = [
    "REF",
    "Definitions",
    "Schema",
    "SchemaWriter",
    "default_json",
    "from_text",
    "inline_root",
    "is_path",
    "to_text",
]

Schema = dict[str, Any]

REF = "#/$defs/"


class Definitions:
    """The `$defs` of one schema. Two different records of one name get different names."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}
        self.names: dict[Any, str] = {}

    def name_for(self, cls: Any, wanted: str) -> str:
        """Reserve a name for a record."""
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).strip("_") or "Record"
        name, number = plain, 2
        while name in self.schemas:
            name, number = f"{plain}_{number}", number + 1
        self.names[cls] = name
        self.schemas[name] = {}
        return name

    def take_in(self, schema: Schema) -> Schema:
        """Move the `$defs` of a finished schema in here, renaming where names collide."""
        inner = schema.pop("$defs", {})
        renamed: dict[str, str] = {}
        for name, definition in inner.items():
            known = self.schemas.get(name)
            if known is not None and known != definition:
                renamed[REF + name] = REF + self.name_for((name, len(self.names)), name)
            else:
                self.schemas[name] = definition
        if not renamed:
            return schema
        for name, definition in inner.items():
            target = renamed.get(REF + name, REF + name).removeprefix(REF)
            self.schemas[target] = _rename_refs(definition, renamed)
        changed: Schema = _rename_refs(schema, renamed)
        return changed


def _rename_refs(schema: Any, renamed: dict[str, str]) -> Any:
    if isinstance(schema, dict):
        return {
            key: renamed.get(value, value)
            if key == "$ref" and isinstance(value, str)
            else _rename_refs(value, renamed)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_rename_refs(item, renamed) for item in schema]
    return schema


class SchemaWriter:
    """Writes schemas of msgspec types into shared `Definitions`.

    `is_output` writes what an encoder produces: fields with defaults are then always there.
    """

    def __init__(self, definitions: Definitions, *, is_output: bool = False) -> None:
        self.definitions = definitions
        self.is_output = is_output
        self.seen = Survey()

    def write(self, annotation: Any) -> Schema:
        """The schema of a type.

        Raises:
            Misconfigured: msgspec has no JSON form for it. The text names the type.
        """
        survey(annotation, self.seen)
        try:
            info = mi.type_info(for_msgspec(annotation))
        except TypeError as error:
            raise Misconfigured(str(error).splitlines()[0]) from None
        return self.of(info)

    def of(self, info: mi.Type) -> Schema:
        """The schema of a type that msgspec has taken apart."""
        match info:
            case mi.Metadata():
                said = dict(info.extra_json_schema or {})
                return {**self.of(info.type), **said}
            case mi.AnyType() | mi.RawType():
                return {}
            case mi.NoneType():
                return {"type": "null"}
            case mi.BoolType():
                return {"type": "boolean"}
            case mi.IntType():
                return {"type": "integer", **_limits(info)}
            case mi.FloatType():
                return {"type": "number", **_limits(info)}
            case mi.StrType():
                return {"type": "string", **_lengths(info, "Length"), **_pattern(info)}
            case mi.BytesType() | mi.ByteArrayType() | mi.MemoryViewType():
                return _base64(info)
            case mi.LiteralType():
                values = self.seen.literals.get(literal_key(info.values), info.values)
                return _enum(list(values))
            case mi.EnumType():
                return _enum([one.value for one in info.cls], _own_doc(info.cls))
            case mi.UnionType():
                return self.union(info)
            case mi.TupleType():
                return self.fixed_tuple(info)
            case mi.CollectionType():
                items = self.of(info.item_type)
                unique = isinstance(info, (mi.SetType, mi.FrozenSetType))
                return {
                    "type": "array",
                    **({"items": items} if items else {}),
                    **_lengths(info, "Items"),
                    **({"uniqueItems": True} if unique else {}),
                }
            case mi.DictType():
                return self.mapping(info)
            case mi.StructType() | mi.DataclassType() | mi.TypedDictType() | mi.NamedTupleType():
                return self.record(info)
            case mi.CustomType():
                if is_path(info.cls):
                    return {"type": "string", "format": "path"}
                if info.cls is object:
                    return {}
                raise Misconfigured(
                    f"the type {getattr(info.cls, '__name__', info.cls)} has no JSON form; use a "
                    "dataclass, TypedDict, Struct, attrs class or pydantic model"
                )
            case _:
                return self.text_like(info)

    def text_like(self, info: mi.Type) -> Schema:
        """Types that travel as text of a certain form."""
        if isinstance(info, mi.DecimalType):
            text = {"type": "string"}
            # Both are read; only text is written, since a JSON number would lose digits.
            return text if self.is_output else {"anyOf": [{"type": "number"}, text]}
        form = _FORMATS.get(type(info))
        if form is None:
            raise Misconfigured(f"the type {type(info).__name__} has no JSON form")
        return {"type": "string", "format": form}

    def union(self, info: mi.UnionType) -> Schema:
        """Any of several; null comes last, as people read it."""
        parts = list(info.types)
        parts.sort(key=lambda part: isinstance(part, mi.NoneType))
        options: list[Schema] = []
        for part in parts:
            one = self.of(part)
            # A choice within a choice says no more than the one list.
            options += one["anyOf"] if one.keys() == {"anyOf"} else [one]
        return {"anyOf": options}

    def fixed_tuple(self, info: mi.TupleType) -> Schema:
        """An array with a type for each place."""
        count = len(info.item_types)
        items = [self.of(item) for item in info.item_types]
        first = {"prefixItems": items} if items else {}
        return {"type": "array", **first, "minItems": count, "maxItems": count}

    def mapping(self, info: mi.DictType) -> Schema:
        """An object whose members' names are data."""
        values = self.of(info.value_type)
        names = self.of(info.key_type)
        # A member's name is always text; what else the key's type asks for is kept.
        kind = names.pop("type", None)
        if kind == "integer":
            names = {"pattern": r"^-?\d+$"}
        return {
            "type": "object",
            **({"propertyNames": names} if names else {}),
            **({"additionalProperties": values} if values else {}),
            **_lengths(info, "Properties"),
        }

    def record(
        self, info: mi.StructType | mi.DataclassType | mi.TypedDictType | mi.NamedTupleType
    ) -> Schema:
        """A reference to the record's definition, which is written on first use."""
        known = self.definitions.names.get(info.cls)
        if known is None:
            known = self.definitions.name_for(info.cls, _class_name(info.cls))
            self.definitions.schemas[known] = self.fields(info)
        return {"$ref": REF + known}

    def fields(
        self, info: mi.StructType | mi.DataclassType | mi.TypedDictType | mi.NamedTupleType
    ) -> Schema:
        """A record's definition: an object, or an array for those that travel as one."""
        cls = typing.get_origin(info.cls) or info.cls
        hints = field_hints(cls)
        order = {name: place for place, name in enumerate(hints)}
        members = list(info.fields)
        if isinstance(info, mi.TypedDictType):
            members.sort(key=lambda member: order.get(member.name, 0))
        properties: dict[str, Schema] = {}
        required: list[str] = []
        tag = info.tag if isinstance(info, mi.StructType) else None
        if isinstance(info, mi.StructType) and info.tag_field is not None:
            properties[info.tag_field] = _enum([tag])
            required.append(info.tag_field)
        always = self.is_output and not _leaves_defaults_out(cls)
        for member in members:
            inner = self.of(member.type)
            if (said := describe_metadata(hints.get(member.name))) is not None:
                inner = {**inner, "description": said}
            if member.required or (always and not isinstance(info, mi.TypedDictType)):
                required.append(member.encode_name)
            if not member.required and not self.is_output:
                inner = {**inner, **_field_default(member, info)}
            properties[member.encode_name] = inner
        said = _own_doc(cls)
        about: Schema = {"description": said} if said else {}
        if isinstance(info, mi.NamedTupleType) or (
            isinstance(info, mi.StructType) and info.array_like
        ):
            needed = {member.encode_name for member in members if member.required}
            if tag is not None and isinstance(info, mi.StructType):
                needed.add(info.tag_field or "")
            last = max((i for i, name in enumerate(properties) if name in needed), default=-1)
            return {
                **about,
                "type": "array",
                "prefixItems": list(properties.values()),
                "minItems": last + 1,
                "maxItems": len(properties),
            }
        closed = isinstance(info, mi.StructType) and info.forbid_unknown_fields
        return {
            **about,
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            **({"additionalProperties": False} if closed else {}),
        }


_FORMATS: dict[type[mi.Type], str] = {
    mi.DateTimeType: "date-time",
    mi.DateType: "date",
    mi.TimeType: "time",
    mi.TimeDeltaType: "duration",
    mi.UUIDType: "uuid",
}


def _enum(values: list[Any], said: str | None = None) -> Schema:
    kinds = {_JSON_NAMES.get(type(value)) for value in values}
    kind = kinds.pop() if len(kinds) == 1 else None
    return {
        **({"description": said} if said else {}),
        **({"type": kind} if kind else {}),
        "enum": values,
    }


_JSON_NAMES: dict[type, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def _limits(info: mi.IntType | mi.FloatType) -> Schema:
    limits = {
        "minimum": info.ge,
        "exclusiveMinimum": info.gt,
        "maximum": info.le,
        "exclusiveMaximum": info.lt,
        "multipleOf": info.multiple_of,
    }
    return {word: limit for word, limit in limits.items() if limit is not None}


def _lengths(info: mi.StrType | mi.CollectionType | mi.DictType, noun: str) -> Schema:
    lengths = {f"min{noun}": info.min_length, f"max{noun}": info.max_length}
    return {word: length for word, length in lengths.items() if length is not None}


def _pattern(info: mi.StrType) -> Schema:
    return {} if info.pattern is None else {"pattern": info.pattern}


def _base64(info: mi.BytesType | mi.ByteArrayType | mi.MemoryViewType) -> Schema:
    # Four characters for three bytes, padded.
    lengths = {"minLength": info.min_length, "maxLength": info.max_length}
    return {
        "type": "string",
        "contentEncoding": "base64",
        **{word: 4 * ((n + 2) // 3) for word, n in lengths.items() if n is not None},
    }


def _field_default(member: mi.Field, owner: mi.Type) -> Schema:
    if member.default is not msgspec.NODEFAULT:
        return default_json(member.default)
    # `= []` in a Struct; elsewhere a factory was asked for, which may make anything.
    if isinstance(owner, mi.StructType) and member.default_factory in (list, dict, set):
        return {"default": [] if member.default_factory is not dict else {}}
    return {}


def default_json(value: Any) -> Schema:
    """`{"default": ...}`, or nothing for a value that JSON cannot hold."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=to_text)
    except (TypeError, ValueError, NotImplementedError, RecursionError):
        return {}
    if isinstance(plain, tuple):
        plain = list(plain)
    return {"default": plain} if _is_finite(plain) else {}


def _is_finite(plain: Any) -> bool:
    match plain:
        case float():
            return math.isfinite(plain)
        case dict():
            return all(_is_finite(item) for item in plain.values())
        case list() | tuple():
            return all(_is_finite(item) for item in plain)
        case _:
            return True


def is_path(cls: type) -> bool:
    """Whether a class is one of pathlib's; nobody can have one who has not imported it."""
    pathlib = sys.modules.get("pathlib")
    return pathlib is not None and issubclass(cls, pathlib.PurePath)


def to_text(value: Any) -> str:
    """Encode what msgspec has no form for: paths.

    Raises:
        NotImplementedError: no form at all; msgspec turns it into a TypeError that names the type.
    """
    if is_path(type(value)):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def from_text(wanted: Any, value: Any) -> Any:
    """Decode what msgspec has no form for: paths. The other way of `to_text`."""
    if isinstance(wanted, type) and is_path(wanted) and isinstance(value, str):
        return wanted(value)
    if wanted is object:
        return value
    raise ValueError(f"expected {getattr(wanted, '__name__', wanted)}")


def _class_name(cls: Any) -> str:
    origin = typing.get_origin(cls)
    if origin is None:
        return str(cls.__name__)
    arguments = "_".join(getattr(one, "__name__", str(one)) for one in typing.get_args(cls))
    return f"{origin.__name__}_{arguments}_"


def _own_doc(cls: type) -> str | None:
    """A class's own docstring, unless Python wrote it (dataclasses and named tuples)."""
    doc = cls.__dict__.get("__doc__")
    if not isinstance(doc, str) or doc.startswith(f"{cls.__name__}("):
        return None
    return inspect.cleandoc(doc) or None


def _leaves_defaults_out(cls: Any) -> bool:
    config = getattr(cls, "__struct_config__", None)
    return bool(config is not None and config.omit_defaults)


def inline_root(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """A whole schema document: a reference at the root is replaced by what it points at.

    Definitions nothing refers to are left out. MCP wants a root that says `type: object`.
    """
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith(REF):
        around = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**definitions[ref.removeprefix(REF)], **around}
    used: dict[str, Schema] = {}
    waiting = [schema]
    while waiting:
        for name in _refs(waiting.pop()):
            if name not in used:
                used[name] = definitions[name]
                waiting.append(definitions[name])
    kept = {name: definitions[name] for name in definitions if name in used}
    return {**schema, "$defs": kept} if kept else schema


def _refs(schema: Any) -> list[str]:
    found: list[str] = []
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            ref = part.get("$ref")
            if isinstance(ref, str) and ref.startswith(REF):
                found.append(ref.removeprefix(REF))
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return found
