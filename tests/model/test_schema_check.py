"""Hand-written schemas: judged by the compiled validator, or by the walk where there is none."""

from __future__ import annotations

import builtins
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from dragoman.errors import InvalidArguments, Misconfigured, MissingExtra
from dragoman.model.schema_check import SchemaCheck
from tests.model.test_faults import FORECAST, LEAF, TREE, schemas, values
from tests.requirements.duties import duty


@pytest.fixture(params=["compiled", "walk"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to judge; the second as on a machine without the extra."""
    if request.param == "walk":
        without_the_extra(monkeypatch)
    return str(request.param)


def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fake(name: str, *rest: Any) -> Any:
        if name == "jsonschema_rs":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fake)


def test_faults_are_told_in_the_same_words_either_way(engine: str) -> None:
    check = SchemaCheck(FORECAST)
    assert (check.validator is None) is (engine == "walk")
    assert check.faults({"city": "Paris"}) == []
    assert [one.path for one in check.faults({"ctiy": 1, "days": 11})] == ["days", "ctiy", "city"]


def test_a_call_is_read_and_mended(engine: str) -> None:
    check = SchemaCheck(FORECAST)
    raw = msgspec.Raw(b'{"city": "Paris", "days": "3"}')
    arguments, repairs = check.parse(raw, name="forecast")
    assert arguments == {"city": "Paris", "days": 3}
    assert [one.path for one in repairs] == ["days"]
    assert check.parse({"city": "x"}, name="forecast") == ({"city": "x"}, ())


@pytest.mark.parametrize("raw", [None, b"", b"null", b"[1]", b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_fitting_object_is_refused(engine: str, raw: bytes | None) -> None:
    with pytest.raises(InvalidArguments):
        SchemaCheck(FORECAST).parse(raw, name="forecast")
    with pytest.raises(InvalidArguments):
        SchemaCheck({"required": ["a"]}).parse(raw, name="forecast")


def test_no_arguments_are_an_empty_object(engine: str) -> None:
    assert SchemaCheck({"type": "object"}).parse(None, name="t") == ({}, ())


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {"properties": {"a": {"$ref": "http://localhost:1/x"}}},
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        {"properties": {"a": {"type": "string", "pattern": "("}}},
    ],
)
def test_a_schema_that_leads_elsewhere_is_refused_before_anything_is_read(
    engine: str, schema: Any
) -> None:
    with pytest.raises(Misconfigured):
        SchemaCheck(schema)


def test_keywords_beyond_the_walk_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"properties": {"a": {}}, "unevaluatedProperties": False}
    (fault,) = SchemaCheck(schema).faults({"b": 1})
    assert fault.expected
    without_the_extra(monkeypatch)
    with pytest.raises(MissingExtra) as caught:
        SchemaCheck(schema)
    assert caught.value.extra == "schema"


def test_a_member_called_like_a_keyword_is_no_keyword(monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_extra(monkeypatch)
    schema = {"properties": {"$dynamicRef": {"type": "integer"}}, "enum": [{"$dynamicRef": 1}]}
    assert SchemaCheck(schema).faults({"$dynamicRef": 1}) == []


def test_the_validators_own_words_stand_in_where_the_walk_is_blind() -> None:
    inner = {"properties": {"a": {}}, "unevaluatedProperties": False}
    check = SchemaCheck({"properties": {"list": {"items": inner}}})
    (fault,) = check.faults({"list": [{"b": 1}]})
    assert fault.path == "list[0]"
    # \p{L} is no Python pattern.
    (other,) = SchemaCheck({"pattern": r"^\p{L}+$"}).faults("1")
    assert other.path == ""


MALFORMED: list[Any] = [
    {"type": "strnig"},
    {"type": []},
    {"type": 3},
    {"properties": []},
    {"properties": {"a": 3}},
    {"required": "a"},
    {"required": ["a", "a"]},
    {"enum": 3},
    {"minLength": -1},
    {"minLength": True},
    {"maxItems": 1.5},
    {"minimum": "1"},
    {"multipleOf": 0},
    {"anyOf": []},
    {"items": 3},
    {"uniqueItems": 1},
    {"pattern": 3},
    {"dependentRequired": {"a": "b"}},
    {"properties": {"a": {"type": "nmber"}}},
]


@duty("schemas.valid")
@pytest.mark.parametrize("schema", MALFORMED)
def test_a_schema_that_is_not_valid_is_refused(engine: str, schema: Any) -> None:
    with pytest.raises(Misconfigured):
        SchemaCheck(schema)


@duty("schemas.default-dialect")
def test_without_a_dialect_a_schema_is_read_as_the_newest(engine: str) -> None:
    check = SchemaCheck({"prefixItems": [{"type": "integer"}]})
    assert check.faults(["x"])
    jsonschema.Draft202012Validator.check_schema(FORECAST)


@duty("schemas.unknown-dialect")
def test_an_unknown_dialect_is_an_error_that_names_it(engine: str) -> None:
    with pytest.raises(Misconfigured, match=r"example\.com/dialect"):
        SchemaCheck({"$schema": "https://example.com/dialect"})


@duty("schemas.validated", "schemas.explicit-dialect")
def test_values_are_judged_by_the_dialect_that_the_schema_names() -> None:
    # A list of `items` is a tuple in draft-07, and `prefixItems` means nothing there.
    old = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "items": [{"type": "integer"}],
        "prefixItems": [{"type": "string"}],
    }
    check = SchemaCheck(old)
    assert check.schema is old
    assert check.faults([1]) == []
    assert check.faults(["x"]) != []
    bounded = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "minimum": 1,
        "exclusiveMinimum": True,
    }
    assert SchemaCheck(bounded).faults(1) != []
    assert SchemaCheck(bounded).faults(2) == []


@duty("schemas.validated")
def test_without_the_extra_an_older_dialect_is_read_where_it_means_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_the_extra(monkeypatch)
    named = {"$schema": "http://json-schema.org/draft-07/schema#"}
    assert SchemaCheck({**named, **FORECAST}).faults({"city": 1}) != []
    for other in (
        {**named, "items": [{"type": "integer"}]},
        {**named, "properties": {"a": {"$ref": "#", "type": "integer"}}},
        {"$schema": "http://json-schema.org/draft-04/schema#"},
    ):
        with pytest.raises(MissingExtra):
            SchemaCheck(other)


def test_a_reference_that_only_the_validator_follows_is_no_error_later() -> None:
    schema = {
        "properties": {"a": {"$ref": "#whole"}},
        "$defs": {"n": {"$anchor": "whole", "type": "integer"}},
    }
    check = SchemaCheck(schema)
    assert check.parse({"a": 1}, name="t") == ({"a": 1}, ())
    with pytest.raises(InvalidArguments) as caught:
        check.parse({"a": "1"}, name="t")
    assert caught.value.faults[0].path == "a"


def test_a_pattern_that_backtracks_cannot_stall() -> None:
    linear = SchemaCheck({"pattern": "^(a+)+$"})
    assert linear.validator.is_valid("a" * 40 + "b") is False
    # Look-ahead needs the engine that backtracks; its limit ends the search.
    limited = SchemaCheck({"pattern": "^(?=a)(a+)+$"})
    assert limited.validator.is_valid("a" * 40 + "b") is False


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas, values)
def test_the_compiled_validator_agrees_with_the_oracle(schema: Any, value: Any) -> None:
    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"leaf": LEAF, "tree": TREE}}
    fits = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (SchemaCheck(schema).faults(value) == []) is fits


def test_a_name_that_misses_a_pattern_is_a_fault_and_no_crash(engine: str) -> None:
    check = SchemaCheck({"type": "object", "propertyNames": {"pattern": "^a"}})
    assert check.faults({"a": 1}) == []
    assert check.faults({"b": 1})


# --- schemas of strangers ------------------------------------------------------------------------


def doubling(word: str, steps: int = 60) -> Any:
    """A schema in which each reference leads to two others, so that a naive look never ends."""
    definitions: dict[str, Any] = {
        f"a{step}": {word: [{"$ref": f"#/$defs/a{step + 1}"}, {"$ref": f"#/$defs/a{step + 1}"}]}
        for step in range(steps)
    }
    definitions[f"a{steps}"] = {"type": "string"}
    return {"properties": {"x": {"$ref": "#/$defs/a0"}}, "$defs": definitions}


@pytest.mark.parametrize("word", ["anyOf", "oneOf", "allOf"])
@pytest.mark.parametrize("value", [1, "fits"])
def test_a_strangers_references_that_double_end_within_bounds(word: str, value: Any) -> None:
    assert len(SchemaCheck(doubling(word), is_ours=False).faults({"x": value})) <= 25


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"enum": [str(n) for n in range(50_000)]}}, ["x"] * 50_000),
        ({"items": {"allOf": [True] * 50_000}}, [1] * 50_000),
        ({"items": {"required": [str(n) for n in range(50_000)]}}, [{}] * 50_000),
    ],
    ids=["many choices", "many that say nothing", "many names"],
)
def test_a_strangers_long_lists_cost_no_more_for_a_long_value(schema: Any, value: Any) -> None:
    assert len(SchemaCheck(schema, is_ours=False).faults(value)) <= 25


def test_a_strangers_patterns_are_not_matched_and_leave_names_open() -> None:
    schema = {
        "patternProperties": {"^(a+)+$": {"type": "integer"}},
        "additionalProperties": False,
        "properties": {"p": {"pattern": "("}},
    }
    check = SchemaCheck(schema, is_ours=False)
    assert check.faults({"a" * 60 + "!": 1, "p": "any"}) == []


def test_a_strangers_schema_still_judges_types_members_and_choices() -> None:
    schema = {
        "properties": {"n": {"type": "integer"}, "c": {"enum": ["a", "b"]}},
        "required": ["m"],
        "anyOf": [{"required": ["n"]}, {"required": ["z"]}],
    }
    faults = SchemaCheck(schema, is_ours=False).faults({"c": "x"})
    assert [fault.path for fault in faults] == ["c", "m", ""]
    (fault,) = SchemaCheck(schema, is_ours=False).faults({"n": "1", "m": 0})
    assert (fault.path, fault.expected) == ("n", "an integer")


def test_all_faults_are_told_beside_a_pattern_that_does_not_match() -> None:
    schema = {"properties": {"a": {"type": "string", "pattern": "^x"}, "b": {"type": "integer"}}}
    faults = SchemaCheck(schema).faults({"a": "y", "b": "z"})
    assert sorted(fault.path for fault in faults) == ["a", "b"]
    assert "'^x'" in next(fault.expected for fault in faults if fault.path == "a")


def test_the_words_for_a_mismatch_do_not_stall_where_the_validator_does_not() -> None:
    (fault,) = SchemaCheck({"properties": {"a": {"pattern": "^(a+)+$"}}}).faults(
        {"a": "a" * 60 + "!"}
    )
    assert fault.path == "a"
