"""Hypothesis strategies for every record of the model, made from the records' own types.

    records_of(Tool)        any tool
    RECORDS                 every record class, by name

Values are what the newest revision can hold; members that are free to be any JSON are any JSON.
What a type cannot say (base64, URIs, forms, one of two members) is said in the tables below.
"""

from __future__ import annotations

import base64
import importlib
import pkgutil
import string
import typing
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st

import dragoman.model
from dragoman.model.base import Record
from dragoman.model.content import ResourceContents
from dragoman.model.elicitation import ElicitParams
from dragoman.model.tools import NO_ARGUMENTS

__all__ = [
    "RECORDS",
    "forms",
    "json_objects",
    "json_schemas",
    "json_values",
    "records_of",
    "texts",
]

R = TypeVar("R", bound=Record)


def _all_records() -> dict[str, type[Record]]:
    found: dict[str, type[Record]] = {}
    for info in pkgutil.iter_modules(dragoman.model.__path__):
        module = importlib.import_module(f"dragoman.model.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Record) and value is not Record:
                found[value.__name__] = value
    return dict(sorted(found.items()))


RECORDS: dict[str, type[Record]] = _all_records()

# --- plain values -------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
names = st.text(string.ascii_lowercase, min_size=1, max_size=4)
numbers = st.floats(allow_nan=False, allow_infinity=False)
# 64 bits: every peer holds these; wider integers are tested with the codec
integers = st.integers(-(2**63), 2**63 - 1)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | integers | numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
json_objects = st.dictionaries(texts, json_values, max_size=2)

_URI_CHARACTERS = string.ascii_letters + string.digits + "/-._~:?#@!$&'()*+,;=%"
uris = st.builds(
    lambda scheme, rest: f"{scheme}:{rest}",
    st.sampled_from(["file", "https", "weather", "x+y"]),
    st.text(_URI_CHARACTERS, max_size=6),
)
base64_texts = st.binary(max_size=6).map(lambda data: base64.b64encode(data).decode())
mime_types = (
    st.sampled_from(["text/plain", "audio/x-wav", "audio/mp4; codecs=a b", "audio", ""]) | texts
)
# A progress token means something, so random keys must not hit it by chance.
metas = st.dictionaries(texts.filter(lambda key: key != "progressToken"), json_values, max_size=2)

# --- JSON Schemas -------------------------------------------------------------------------------

_parts = st.sampled_from(
    [True, False, {}, {"type": "string"}, {"type": ["array", "null"], "items": True}, {"not": {}}]
)


@st.composite
def json_schemas(draw: st.DrawFn, *, is_object: bool = True) -> dict[str, Any]:
    """A JSON Schema as tools carry one; of type "object", unless any type will do."""
    schema: dict[str, Any] = {}
    if is_object or draw(st.booleans()):
        schema["type"] = "object"
        if draw(st.booleans()):
            schema["properties"] = draw(st.dictionaries(names, _parts, max_size=3))
        if draw(st.booleans()):
            schema["required"] = draw(st.lists(names, max_size=2, unique=True))
        if draw(st.booleans()):
            schema["$defs"] = {"x": draw(_parts)}
    elif draw(st.booleans()):
        schema["type"] = draw(st.sampled_from(["array", "string", ["object", "null"]]))
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(_parts)
    return schema


# --- forms --------------------------------------------------------------------------------------

_labels: dict[str, st.SearchStrategy[Any]] = {"title": texts, "description": texts}
_counts = st.integers(0, 9)
_choices = st.lists(names, min_size=1, max_size=3, unique=True)
_titled = st.lists(st.fixed_dictionaries({"const": names, "title": texts}), min_size=1, max_size=3)


def _field(
    fixed: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    # `x-extra` is a keyword no form language knows
    extra = {"x-extra": st.just(1)} | _labels | optional
    return st.fixed_dictionaries(fixed, optional=extra)


_form_fields = st.one_of(
    _field(
        {"type": st.just("string")},
        minLength=_counts,
        maxLength=_counts,
        format=st.sampled_from(["email", "uri", "date", "date-time", "hostname"]),
        pattern=st.just("^a"),
        default=texts,
    ),
    _field({"type": st.just("number")}, minimum=numbers, maximum=numbers, default=numbers),
    _field(
        {"type": st.just("integer")},
        minimum=integers,
        maximum=integers,
        default=integers,
        exclusiveMinimum=integers,
    ),
    _field({"type": st.just("boolean")}, default=st.booleans()),
    _field({"type": st.just("string"), "enum": _choices}, default=names),
    _choices.flatmap(
        lambda options: _field(
            {"type": st.just("string"), "enum": st.just(options), "enumNames": st.just(options)},
            default=names,
        )
    ),
    _field({"type": st.just("string"), "oneOf": _titled}, default=names),
    _field(
        {
            "type": st.just("array"),
            "items": st.fixed_dictionaries({"type": st.just("string"), "enum": _choices}),
        },
        minItems=_counts,
        maxItems=_counts,
        uniqueItems=st.just(True),
        default=st.lists(names, max_size=2),
    ),
    _field(
        {"type": st.just("array"), "items": st.fixed_dictionaries({"anyOf": _titled})},
        minItems=_counts,
        maxItems=_counts,
        default=st.lists(names, max_size=2),
    ),
)

forms: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(names, _form_fields, max_size=2)},
    optional={
        "required": st.lists(names, max_size=2, unique=True),
        "$schema": st.just("https://json-schema.org/draft/2020-12/schema"),
        "title": texts,
        "additionalProperties": st.booleans(),
    },
)
"""The schema of a form, with every kind of field, and with keywords no form language has."""

# --- records ------------------------------------------------------------------------------------

_open_capability = st.dictionaries(names, json_objects, max_size=2)
_task_capability = st.fixed_dictionaries(
    {}, optional={"list": json_objects, "cancel": json_objects}
)
_share = st.floats(0, 1)

# What the type of a member does not say, wherever the member stands.
_MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "meta": metas,
    "uri": uris,
    "url": uris,
    "src": uris,
    "website_url": uris,
    "uri_template": st.just("weather://{city}/now"),
    "data": base64_texts,
    "blob": base64_texts,
    "mime_type": mime_types,
    "experimental": _open_capability,
    "extensions": _open_capability,
    "tasks": _task_capability,
    "size": st.integers(0, 2**53),
    "total": st.integers(0, 2**53),
    "ttl_ms": st.integers(0, 2**53),
    "cache_scope": st.sampled_from(["public", "private"]),
    "result_type": st.just("complete"),
    "input_schema": json_schemas(),
    "output_schema": json_schemas(is_object=False),
    "requested_schema": forms,
    "priority": _share,
    "cost_priority": _share,
    "speed_priority": _share,
    "intelligence_priority": _share,
    "raw_arguments": st.just(NO_ARGUMENTS)
    | json_objects.map(lambda value: msgspec.Raw(msgspec.json.encode(value))),
}

# Members whose name means something else in this record.
_EXCEPTIONS: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("ElicitationCapability", "url"): json_objects,
    ("LogMessageParams", "data"): json_values,
    ("ProgressParams", "total"): numbers,
}


def _of_hint(hint: Any) -> st.SearchStrategy[Any]:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return json_values
    if isinstance(hint, type) and issubclass(hint, Record):
        return st.deferred(lambda: records_of(hint))
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: texts,
        int: integers,
        float: numbers,
        bool: st.booleans(),
        type(None): st.none(),
    }
    if hint in plain:
        return plain[hint]
    if origin is typing.Literal:
        return st.sampled_from(inside)
    if origin is list:
        return st.lists(_of_hint(inside[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(texts, _of_hint(inside[1]), max_size=2)
    if inside:
        return st.one_of([_of_hint(part) for part in inside])
    raise TypeError(f"no strategy for {hint}")


def _of_member(record: type[Record], member: Any, hint: Any) -> st.SearchStrategy[Any]:
    known = _EXCEPTIONS.get((record.__name__, member.name), _MEMBERS.get(member.name))
    if known is None:
        return _of_hint(hint)
    # every optional member can be left out, which its default says
    return known if member.default is msgspec.NODEFAULT else st.just(member.default) | known


_CACHE: dict[type[Record], st.SearchStrategy[Any]] = {}


def records_of(record: type[R]) -> st.SearchStrategy[R]:
    """Any value of a record class."""
    made = _CACHE.get(record)
    if made is None:
        made = _CACHE[record] = _make(record)
    return made


def _make(record: type[Record]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(record)
    members = {
        member.name: _of_member(record, member, hints[member.name])
        for member in msgspec.structs.fields(record)
    }
    if record is ResourceContents:
        either = st.sampled_from(["text", "blob"])
        return either.flatmap(
            lambda form: st.builds(
                record,
                **{
                    **members,
                    "text": texts if form == "text" else st.none(),
                    "blob": base64_texts if form == "blob" else st.none(),
                },
            )
        )
    if record is ElicitParams:
        form = {"url": st.none(), "elicitation_id": st.none(), "requested_schema": forms}
        page = {"mode": st.just("url"), "url": uris, "requested_schema": st.none()}
        plain = {"mode": st.none() | st.just("form")}
        return st.builds(record, **{**members, **form, **plain}) | st.builds(
            record, **{**members, **page}
        )
    return st.builds(record, **members)
