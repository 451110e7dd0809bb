"""The fast yes: it may say no to anything, but yes only to what fits."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings

from dragoman.model.quick_check import surely_fits
from tests.model.test_faults import schemas, values

RECORD = {
    "type": "object",
    "title": "Record",
    "properties": {
        "name": {"type": "string", "description": "who"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"name": "Ada"}, True),
        ({"name": "Ada", "age": 36, "tags": ["x", "y"]}, True),
        ({"age": 36}, False),
        ({"name": "Ada", "more": 1}, False),
        ({"name": "Ada", "age": True}, False),
        ({"name": "Ada", "tags": ["x", 1]}, False),
        (["name"], False),
    ],
)
def test_a_plain_record_is_recognised(value: Any, fits: bool) -> None:
    check = surely_fits(RECORD)
    assert check is not None
    assert check(value) is fits


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": ["string", "null"]},
        {"type": "string", "minLength": 1},
        {"type": "object", "required": ["a"]},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}},
        {"type": "string", "properties": {}},
        {"type": "integer", "items": {}},
    ],
)
def test_a_schema_that_is_not_plain_is_left_to_the_walk(schema: Any) -> None:
    assert surely_fits(schema) is None


@settings(max_examples=200, deadline=None)
@given(schema=schemas, value=values)
def test_a_yes_is_never_wrong(schema: Any, value: Any) -> None:
    check = surely_fits(schema)
    if check is not None and check(value):
        assert jsonschema.Draft202012Validator(schema).is_valid(value)
