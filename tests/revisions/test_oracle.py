"""The oracle itself: what it closes, what it leaves open, and how it complains."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import Misconfigured
from dragoman.revisions.registry import DIALECTS
from dragoman.testing.oracle import ClosedSchema
from tests.revisions.official import examples, needs_spec, schema_of

TEXT = {"type": "string"}


def made(folder: Path, definitions: dict[str, Any], keyword: str = "$defs") -> ClosedSchema:
    """An oracle over these definitions."""
    draft = {
        "$defs": "https://json-schema.org/draft/2020-12/schema",
        "definitions": "http://json-schema.org/draft-07/schema#",
    }[keyword]
    (folder / "r").mkdir()
    schema = {"$schema": draft, keyword: definitions}
    (folder / "r" / "schema.json").write_text(json.dumps(schema))
    return ClosedSchema(folder, "r")


@pytest.mark.parametrize("keyword", ["$defs", "definitions"])
def test_declared_members_are_the_only_ones(tmp_path: Path, keyword: str) -> None:
    inner = {"type": "object", "properties": {"x": TEXT}}
    oracle = made(
        tmp_path,
        {
            "Inner": inner,
            "Outer": {
                "type": "object",
                "properties": {
                    "one": {"$ref": f"#/{keyword}/Inner"},
                    "many": {"type": "array", "items": {"$ref": f"#/{keyword}/Inner"}},
                    "inline": inner,
                    "map": {"type": "object", "additionalProperties": inner},
                },
                "required": ["one"],
            },
        },
        keyword,
    )
    assert oracle.definitions == {"Inner", "Outer"}
    assert oracle.complaints("Outer", {"one": {"x": "1"}, "many": [{}], "map": {"any": {}}}) == []
    for wrong, where in [
        ({"one": {}, "y": 1}, "$: "),
        ({"one": {"y": 1}}, "$.one: "),
        ({"one": {}, "many": [{}, {"y": 1}]}, "$.many[1]: "),
        ({"one": {}, "inline": {"y": 1}}, "$.inline: "),
        ({"one": {}, "map": {"k": {"y": 1}}}, "$.map.k: "),
        ({}, "$: "),
        ({"one": {"x": 1}}, "$.one.x: "),
    ]:
        [complaint] = oracle.complaints("Outer", wrong)
        assert complaint.startswith(where)


def test_what_belongs_to_others_stays_open(tmp_path: Path) -> None:
    free = {"type": "object", "additionalProperties": {}}
    oracle = made(
        tmp_path,
        {
            "AnyMetaObject": {"type": "object", "properties": {"known": TEXT}},
            "Tool": {
                "type": "object",
                "properties": {
                    "_meta": {"type": "object", "properties": {"progressToken": TEXT}},
                    "more": {"$ref": "#/$defs/AnyMetaObject"},
                    "inputSchema": {"type": "object", "properties": {"type": {"const": "object"}}},
                    "arguments": free,
                    "metadata": {**free, "properties": {}},
                },
            },
        },
    )
    value = {
        "_meta": {"k": 1, "progressToken": "a"},
        "more": {"k": 1},
        "inputSchema": {"type": "object", "k": 1},
        "arguments": {"k": 1},
        "metadata": {"k": 1},
    }
    assert oracle.complaints("Tool", value) == []
    assert oracle.complaints("Tool", {"_meta": {"progressToken": 1}}) != []
    assert oracle.complaints("Tool", {"inputSchema": {"type": "array"}}) != []


def test_combined_types_are_merged_before_they_are_closed(tmp_path: Path) -> None:
    part = {"type": "object", "properties": {"a": TEXT}, "required": ["a"]}
    other = {"type": "object", "properties": {"b": TEXT}}
    oracle = made(tmp_path, {"Part": part, "Whole": {"allOf": [{"$ref": "#/$defs/Part"}, other]}})
    assert oracle.complaints("Whole", {"a": "1", "b": "2"}) == []
    assert oracle.complaints("Whole", {"b": "2"}) != []
    assert oracle.complaints("Whole", {"a": "1", "c": "3"}) != []


def test_params_that_call_themselves_open_are_closed_but_for_meta(tmp_path: Path) -> None:
    open_params = {
        "type": "object",
        "properties": {"_meta": {"type": "object"}},
        "additionalProperties": {},
    }
    method = {"type": "string", "const": "m"}
    oracle = made(
        tmp_path,
        {
            "ListRequest": {
                "type": "object",
                "properties": {"method": method, "params": open_params},
            },
            "CallRequest": {
                "type": "object",
                "properties": {"method": method, "params": {"$ref": "#/$defs/CallParams"}},
            },
            "CallParams": {"type": "object", "properties": {"name": TEXT}},
            "Request": {"type": "object", "properties": {"method": TEXT, "params": open_params}},
            "Result": {"type": "object", "properties": {"_meta": {}}, "additionalProperties": {}},
            "EmptyResult": {"$ref": "#/$defs/Result"},
        },
    )
    assert oracle.complaints("ListRequest/params", {"_meta": {"k": 1}}) == []
    assert oracle.complaints("ListRequest/params", {"cursor": "x"}) != []
    assert oracle.complaints("CallParams", {"name": "n", "_meta": {"k": 1}}) == []
    assert oracle.complaints("Request", {"method": "any", "params": {"any": 1}}) == []
    assert oracle.complaints("EmptyResult", {"_meta": {}}) == []
    assert oracle.complaints("EmptyResult", {"tools": []}) != []


def test_of_several_alternatives_the_nearest_explains(tmp_path: Path) -> None:
    def block(kind: str, member: str) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"type": {"const": kind}, member: TEXT},
            "required": ["type", member],
        }

    oracle = made(tmp_path, {"Block": {"anyOf": [block("text", "text"), block("image", "data")]}})
    [complaint] = oracle.complaints("Block", {"type": "image", "data": "x", "extra": 1})
    assert "'extra'" in complaint
    [complaint] = oracle.complaints("Block", {"type": "image"})
    assert "'data'" in complaint


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("uri", "file:///a%20b", "no scheme"),
        ("uri", "a:", "a:b c"),
        ("byte", "AAAA", "AAA"),
        ("byte", "", "é"),
    ],
)
def test_uris_and_base64_are_checked(tmp_path: Path, name: str, good: str, bad: str) -> None:
    oracle = made(tmp_path, {"X": {"type": "string", "format": name}})
    assert oracle.complaints("X", good) == []
    assert oracle.complaints("X", bad) != []
    # what is no text at all is for `type` to complain of
    assert len(oracle.complaints("X", 1)) == 1


def test_asking_for_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no schema"):
        ClosedSchema(tmp_path, "r")
    oracle = made(tmp_path, {"X": {"type": "object", "properties": {"a": TEXT}}})
    for place in ("Y", "X/b", "X/a/b"):
        assert oracle.find(place) is None
        with pytest.raises(KeyError):
            oracle.complaints(place, {})


def test_without_its_package_the_oracle_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *more: Any) -> Any:
        if name == "jsonschema":
            raise ModuleNotFoundError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(Misconfigured, match="pip install jsonschema"):
        made(tmp_path, {})


@needs_spec
def test_the_closed_schemas_refuse_what_the_open_ones_let_pass() -> None:
    """The newest examples as they are, without lowering: few fit a revision that is not theirs."""
    fitting: list[int] = []
    for dialect in DIALECTS:
        oracle = schema_of(dialect.wire)
        fitting.append(
            sum(
                not oracle.complaints(definition, json.loads(path.read_text()))
                for definition, path in examples()
                if definition in oracle.definitions
            )
        )
    # counted once by hand; 129 examples, of which two miss their own schema
    assert fitting == [28, 30, 41, 80, 127]
