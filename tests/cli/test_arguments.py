"""`name=value` words become the values that a tool's schema asks for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.cli.arguments import read_arguments, read_json_object, read_pairs
from dragoman.errors import Misconfigured

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "ratio": {"type": "number"},
        "is_wet": {"type": "boolean"},
        "units": {"enum": ["metric", "imperial"]},
        "size": {"enum": [1, 2, None]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "numbers": {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
        "place": {"$ref": "#/$defs/Place"},
        "id": {"type": ["string", "integer"]},
        "any": {},
        "a.b": {"type": "integer"},
    },
    "additionalProperties": False,
    "$defs": {
        "Place": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "floor": {"type": "integer"},
                "inside": {"$ref": "#/$defs/Place"},
            },
            "required": ["city"],
        }
    },
}


def read(*words: str) -> dict[str, Any]:
    arguments, warnings = read_arguments(words, SCHEMA)
    assert warnings == []
    return arguments


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("city=Paris", "Paris"),
        ("city=", ""),
        ("city=a=b", "a=b"),
        ("city=3", "3"),
        ("city=null", "null"),
        ("days=3", 3),
        ("days=-3", -3),
        ("ratio=2", 2),
        ("ratio=2.5e3", 2500.0),
        ("is_wet=yes", True),
        ("is_wet=False", False),
        ("units=metric", "metric"),
        ("size=2", 2),
        ("size=null", None),
        ("tags=a", ["a"]),
        ("tags=", []),
        ('tags=["a","b"]', ["a", "b"]),
        ("numbers=4", [4]),
        ("numbers=null", None),
        ('place={"city":"Oslo"}', {"city": "Oslo"}),
        ("id=7", 7),
        ("id=seven", "seven"),
        ('id:="7"', "7"),
        ("any=word", "word"),
        ("any=[1]", [1]),
        ('city:=["not", "a", "text"]', ["not", "a", "text"]),
        ("a.b=1", 1),
    ],
)
def test_a_value_is_read_as_its_type(word: str, value: Any) -> None:
    name = word.partition("=")[0].removesuffix(":")
    assert read(word) == {name: value}
    assert type(read(word)[name]) is type(value)


def test_the_same_name_again_makes_a_list() -> None:
    assert read("tags=a", "tags=b") == {"tags": ["a", "b"]}
    assert read("numbers=1", "numbers=2") == {"numbers": [1, 2]}
    assert read("any=1", "any=b") == {"any": [1, "b"]}


def test_a_dot_reaches_into_an_object() -> None:
    assert read("place.city=Oslo", "place.inside.city=Bergen", "place.floor=2") == {
        "place": {"city": "Oslo", "floor": 2, "inside": {"city": "Bergen"}}
    }


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["days=three"], ["days", "integer, 1 to 7", "three"]),
        (["days=1.5"], ["days"]),
        (["is_wet=maybe"], ["is_wet", "true or false"]),
        (["units=metrik"], ["units", "did you mean 'metric'"]),
        (["city=a", "city=b"], ["city", "2 times"]),
        (["any:=[1"], ["any", "JSON"]),
        (["any:=NaN"], ["any"]),
        (["cty=Paris"], ["cty", "did you mean 'city'"]),
        (["place.floor=1"], ["place.city", "missing"]),
        (['place={"city":"a"}', "place.floor=1"], ["place", "whole and in parts"]),
        (["days=x", "is_wet=x", "nope=x"], ["days", "is_wet", "nope"]),
    ],
)
def test_every_fault_is_named_at_once(words: list[str], named: list[str]) -> None:
    with pytest.raises(Misconfigured) as caught:
        read_arguments(words, SCHEMA)
    for one in named:
        assert one in str(caught.value)


def test_what_is_missing_is_named_with_its_type() -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    }
    with pytest.raises(Misconfigured) as caught:
        read_arguments(["days=1"], schema)
    assert "city: missing (text)" in str(caught.value)
    assert "days" not in str(caught.value)


def test_a_name_that_is_unknown_but_not_forbidden_is_sent_with_a_warning() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    arguments, warnings = read_arguments(["cty=1", "city=Oslo"], schema)
    assert arguments == {"cty": 1, "city": "Oslo"}
    assert len(warnings) == 1
    assert "city" in warnings[0]


def test_a_name_that_is_unknown_is_read_as_additional_properties_say() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    assert read_arguments(["a=1"], schema) == ({"a": "1"}, [])


@pytest.mark.parametrize("word", ["city", "=x", ":=1", ""])
def test_a_word_that_is_no_pair_is_refused(word: str) -> None:
    with pytest.raises(Misconfigured):
        read_pairs([word])


@pytest.mark.parametrize("text", ["", "[1]", "{", "3", "[" * 100_000])
def test_arguments_as_json_must_be_an_object(text: str) -> None:
    with pytest.raises(Misconfigured):
        read_json_object(text)


KEYWORDS = st.sampled_from(
    [
        "type",
        "properties",
        "required",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "items",
        "$ref",
        "$defs",
        "additionalProperties",
        "minimum",
        "maxItems",
        "format",
        "pattern",
        "default",
        "description",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["string", "integer", "array", "object", "#", "#/$defs/a", "a", "b"])
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYWORDS | st.sampled_from(["a", "b"]), inner, max_size=4)
    ),
    max_leaves=20,
)
WORDS = st.sampled_from(["a=1", "a=x", "b=[1]", "a.b=1", "b:=2", "a=2", "b.a.b=x"])


@given(st.dictionaries(KEYWORDS, SCHEMAS, max_size=5), st.lists(WORDS, max_size=4))
def test_no_schema_of_a_stranger_breaks_the_reading(
    schema: dict[str, Any], words: list[str]
) -> None:
    try:
        arguments, _ = read_arguments(words, schema)
    except Misconfigured:
        return
    assert set(arguments) <= {"a", "b", "a.b", "b.a.b"}
