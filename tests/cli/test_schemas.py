"""Schemas in a person's words, whatever a stranger has written into them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.cli.schemas import MAX_ROWS, Row, flatten, resolve, rows_of, type_text
from tests.cli.test_arguments import KEYWORDS, SCHEMAS


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "format": "date"}, "date"),
        ({"type": "string", "minLength": 1, "maxLength": 9}, "text, 1 to 9 characters"),
        ({"type": "string", "pattern": "^a"}, "text, like ^a"),
        ({"type": "integer", "minimum": 1, "maximum": 7}, "integer, 1 to 7"),
        ({"type": "integer", "minimum": 0}, "integer, at least 0"),
        ({"type": "number", "maximum": 1}, "number, at most 1"),
        ({"type": "number", "exclusiveMinimum": 0}, "number, above 0"),
        ({"type": "integer", "multipleOf": 5}, "integer, a multiple of 5"),
        ({"type": "boolean"}, "true or false"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"enum": ["a", 1, None]}, '"a" or 1 or null'),
        ({"const": "x"}, '"x"'),
        ({"oneOf": [{"const": "x", "title": "Ex"}, {"const": 2}]}, '"x" (Ex) or 2'),
        ({"enum": list(range(20))}, " or ".join(map(str, range(12))) + " or … (20 in all)"),
        ({"type": "array", "items": {"type": "integer"}}, "list of integer"),
        ({"type": "array", "minItems": 2}, "list of anything, at least 2 items"),
        ({"type": "array", "minItems": 1}, "list of anything, at least 1 item"),
        ({"type": "string", "maxLength": 1}, "text, at most 1 character"),
        ({"type": "array", "minItems": 1, "maxItems": 2}, "list of anything, 1 to 2 items"),
        ({"type": "array", "minItems": 0, "maxItems": 1}, "list of anything, 0 to 1 item"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({"type": "object"}, "object"),
        ({"anyOf": [{"type": "string"}, {"type": "string"}, {"type": "null"}]}, "text or null"),
        ({}, "anything"),
        (True, "anything"),
        ({"$ref": "#"}, "anything"),
        ({"$ref": "https://example.com/s.json"}, "anything"),
    ],
)
def test_a_type_reads_as_words(schema: Any, words: str) -> None:
    assert type_text(schema, schema if isinstance(schema, dict) else {}) == words


def test_members_of_members_follow_their_owner() -> None:
    schema = {
        "type": "object",
        "properties": {
            "days": {"type": "integer", "default": 3, "description": "how many"},
            "stops": {"type": "array", "items": {"$ref": "#/$defs/Stop"}},
        },
        "required": ["stops"],
        "$defs": {"Stop": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
    assert rows_of(schema) == [
        Row("days", "integer", False, "3", "how many"),
        Row("stops", "list of object", True, None, ""),
        Row("stops[].city", "text", False, None, ""),
    ]


def test_a_schema_that_refers_to_itself_ends() -> None:
    schema = {
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}},
    }
    assert 0 < len(rows_of(schema)) <= MAX_ROWS + 1


def test_unions_of_unions_do_not_multiply() -> None:
    level: dict[str, Any] = {}
    schema: dict[str, Any] = {"$defs": {"n0": level}}
    for number in range(1, 9):
        schema["$defs"][f"n{number}"] = {"anyOf": [{"$ref": f"#/$defs/n{number - 1}"}] * 50}
    schema["properties"] = {"a": {"$ref": "#/$defs/n8"}}
    assert [row.path for row in rows_of(schema)] == ["a"]


def test_what_stands_beside_a_reference_wins() -> None:
    root = {"$defs": {"a/b": {"type": "string", "description": "theirs"}}}
    found = resolve({"$ref": "#/$defs/a~1b", "description": "ours"}, root)
    assert found == {"type": "string", "description": "ours"}


def test_a_list_of_types_is_a_union() -> None:
    assert flatten({"type": ["string", "null"], "title": "t"}, {}) == [
        {"type": "string", "title": "t"},
        {"type": "null", "title": "t"},
    ]


@given(st.dictionaries(KEYWORDS, SCHEMAS, max_size=5))
def test_no_schema_of_a_stranger_breaks_the_rows(schema: dict[str, Any]) -> None:
    for row in rows_of(schema):
        assert isinstance(row.type, str)
        assert isinstance(row.description, str)
