"""The second schema engine: types that only pydantic can read.

This module imports pydantic, so it is itself imported only when a signature holds one of pydantic's
models, fields or types, or a type that msgspec refuses.

Values are validated in strict mode from JSON text: a string stays a string, true stays a boolean.
"""

from __future__ import annotations

import re
import typing
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import pydantic
import pydantic_core
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from dragoman.errors import ArgumentFault, Misconfigured
from dragoman.model.base import JSON
from dragoman.model.faults import preview
from dragoman.server.annotations import map_type
from dragoman.server.schemas import REF, Schema

__all__ = ["PydanticType", "field_factory", "field_name", "tidy"]

# Bytes travel as base64, as they do everywhere else in the protocol.
_CONFIG = pydantic.ConfigDict(val_json_bytes="base64", ser_json_bytes="base64")


_ROOTS = ("object", "array")
_SAID = {"title", "description", "examples", "default", "deprecated"}


class _Generator(GenerateJsonSchema):
    """pydantic's generator without the titles that repeat a member's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "serialization" and field["type"] != "typed-dict-field":
            # A default is written out like any other value.
            return not field.get("serialization_exclude", False)
        return super().field_is_required(field, total)


class PydanticType:
    """One type under pydantic's rules.

    Raises:
        Misconfigured: pydantic has no JSON form for it either.
    """

    def __init__(self, annotation: Any) -> None:
        self.annotation = map_type(annotation, _to_field)
        bare = typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
        self.bare = bare
        try:
            with warnings.catch_warnings():
                # An alias on a parameter is handled by the binding.
                warnings.simplefilter("ignore")
                self.adapter = self.make_adapter()
        except (pydantic.PydanticUserError, TypeError) as error:
            raise Misconfigured(str(error).splitlines()[0]) from None

    def make_adapter(self) -> pydantic.TypeAdapter[Any]:
        """The type under our configuration, or its own where it has one."""
        try:
            return pydantic.TypeAdapter(self.annotation, config=_CONFIG)
        except pydantic.PydanticUserError as error:
            # Models, dataclasses and TypedDicts bring their own configuration.
            if error.code != "type-adapter-config-unused":
                raise
            return pydantic.TypeAdapter(self.annotation)

    def schema(self, *, is_output: bool = False) -> Schema:
        """The JSON Schema, in the same words as `schemas.SchemaWriter`'s; with `$defs`."""
        made = self.schema_of(self.adapter, is_output=is_output)
        if "$ref" in made or not isinstance(self.bare, type) or made.get("type") not in _ROOTS:
            return made
        # pydantic writes a record at the root in place; as everywhere else it gets a definition,
        # and what was said about the parameter stands beside the reference.
        plain = self.schema_of(pydantic.TypeAdapter(self.bare), is_output=is_output)
        around = {key: value for key, value in made.items() if plain.get(key) != value}
        if not plain.keys() & {"properties", "prefixItems"} or around.keys() - _SAID:
            return made
        shared = plain.pop("$defs", {})
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", self.bare.__name__)
        return {"$ref": REF + name, **around, "$defs": {name: plain, **shared}}

    def schema_of(self, adapter: pydantic.TypeAdapter[Any], *, is_output: bool) -> Schema:
        """The tidied schema of an adapter, a record at its root written in place."""
        try:
            raw = adapter.json_schema(
                ref_template=REF + "{model}",
                schema_generator=_Generator,
                mode="serialization" if is_output else "validation",
            )
        except pydantic.PydanticUserError as error:
            raise Misconfigured(str(error).splitlines()[0]) from None
        name = getattr(self.bare, "__name__", None)
        return tidy(raw, name, with_defaults=not is_output)

    def read(self, raw: msgspec.Raw | bytes) -> Any:
        """Validate JSON text.

        Raises:
            ValueError: it does not fit (pydantic's ValidationError is one).
        """
        return self.adapter.validate_json(bytes(raw), strict=True)

    def read_text(self, text: str) -> Any:
        """Validate a string that stands for a value, as in a URI: "3" may be a number here."""
        return self.adapter.validate_strings(text)

    def faults(self, raw: bytes, path: str) -> list[ArgumentFault]:
        """What pydantic finds wrong with JSON text; none when it fits."""
        try:
            self.read(raw)
        except pydantic.ValidationError as error:
            whole = msgspec.json.decode(raw)
            return [
                ArgumentFault(
                    path + _path(one["loc"], whole),
                    f"a valid value ({one['msg'].removeprefix('Value error, ')})",
                    preview(one["input"]),
                )
                for one in error.errors(include_url=False, include_context=False)
            ]
        return []

    def dump(self, value: Any) -> JSON:
        """The JSON form of a value, checked against the type.

        Raises:
            ValueError: the value is not of this type; the text says where.
        """
        try:
            return self.written(value)
        except pydantic_core.PydanticSerializationError:
            # A dict where a model was promised is welcome when the model can be made of it.
            return self.written(self.adapter.validate_python(value))

    def written(self, value: Any) -> JSON:
        """The JSON form of a value that is of this type already."""
        return self.adapter.dump_python(value, mode="json", by_alias=True, warnings="error")


def field_name(metadata: Any) -> str | None:
    """The name that a `Field(alias=...)` gives a parameter on the wire; None when it gives none."""
    if not isinstance(metadata, FieldInfo):
        return None
    alias = metadata.validation_alias or metadata.alias
    return alias if isinstance(alias, str) else None


def field_factory(metadata: FieldInfo) -> Callable[[], Any] | None:
    """What makes a `Field`'s default anew for each call; None when the default is a value."""
    if metadata.default_factory is None:
        return None
    return lambda: metadata.get_default(call_default_factory=True, validated_data={})


def _to_field(metadata: Any) -> Any:
    """One item of `Annotated` in pydantic's words; what is already so stays as it is."""
    if isinstance(metadata, FieldInfo):
        return metadata
    text = metadata if isinstance(metadata, str) else getattr(metadata, "documentation", None)
    if isinstance(text, str):
        return pydantic.Field(description=text)
    if not isinstance(metadata, msgspec.Meta):
        return metadata
    names = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
    said = ("title", "description", "examples")
    given = {
        name: value
        for name in (*names, *said)
        if (value := getattr(metadata, name, None)) is not None
    }
    return pydantic.Field(**given, json_schema_extra=metadata.extra_json_schema)


def _path(location: tuple[int | str, ...], value: JSON) -> str:
    """Where a fault is. pydantic also names the branches of unions, which lead nowhere."""
    path = ""
    for step in location:
        if isinstance(value, list) and isinstance(step, int) and step < len(value):
            path, value = f"{path}[{step}]", value[step]
        elif isinstance(value, dict) and step in value:
            path, value = f"{path}.{step}", value[step]
    return path


def tidy(schema: Schema, name: str | None = None, *, with_defaults: bool = True) -> Schema:
    """Bring pydantic's schema into the form that the other engine writes.

    Titles that repeat a class name go, `const` becomes a one-element `enum`, enumerations are
    written in place, "any value" is written as nothing. `name` is the class at the root. Defaults
    go from what is only ever written: there they promise nothing.
    """
    if not with_defaults:
        schema = _without_defaults(schema)
    definitions: dict[str, Schema] = schema.pop("$defs", {})
    enums = {
        REF + key: _tidy_one(definition, key)
        for key, definition in definitions.items()
        if "enum" in definition or "const" in definition
    }
    kept = {
        key: _tidy(definition, key, enums)
        for key, definition in definitions.items()
        if REF + key not in enums
    }
    whole: Schema = _tidy(schema, name, enums)
    return {**whole, "$defs": kept} if kept else whole


def _tidy(schema: Any, name: str | None, enums: dict[str, Schema]) -> Any:
    if not isinstance(schema, dict):
        return schema
    if schema.get("$ref") in enums:
        around = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**enums[schema["$ref"]], **around}
    one = _tidy_one(schema, name)
    for word, inner in list(one.items()):
        if word in ("properties", "patternProperties", "dependentSchemas"):
            one[word] = {key: _tidy(value, None, enums) for key, value in inner.items()}
        elif word in ("items", "additionalProperties", "not", "contains", "propertyNames"):
            one[word] = _tidy(inner, None, enums)
        elif word in ("anyOf", "oneOf", "allOf", "prefixItems"):
            one[word] = [_tidy(value, None, enums) for value in inner]
    _drop_any(one)
    if isinstance(one.get("propertyNames"), dict):
        # A member's name is always text.
        one["propertyNames"].pop("type", None)
    patterns = one.get("patternProperties")
    if patterns and "properties" not in one and "additionalProperties" not in one:
        # So are a dict's keys under a pattern written; the validator refuses every other key.
        ((pattern, values),) = patterns.items() if len(patterns) == 1 else ((None, None),)
        if pattern is not None:
            del one["patternProperties"]
            one["propertyNames"] = {"pattern": pattern}
            one |= {"additionalProperties": values} if values else {}
    return one


def _tidy_one(schema: Schema, name: str | None) -> Schema:
    one = dict(schema)
    if "const" in one:
        one["enum"] = [one.pop("const")]
    title = one.get("title")
    if title is not None and title == name:
        del one["title"]
    if one.get("format") == "base64url":
        del one["format"]
        one["contentEncoding"] = "base64"
    # An OpenAPI word; the constants in each branch say the same.
    one.pop("discriminator", None)
    return one


def _drop_any(schema: Schema) -> None:
    for word in ("items", "additionalProperties"):
        if schema.get(word) in (True, {}):
            del schema[word]


def _without_defaults(schema: Any) -> Any:
    """The same schema, its members without their defaults."""
    if isinstance(schema, list):
        return [_without_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {word: _without_defaults(inner) for word, inner in schema.items()}
    for inner in schema.get("properties", {}):
        changed["properties"][inner].pop("default", None)
    for inner in changed.get("prefixItems", ()):
        inner.pop("default", None)
    return changed
