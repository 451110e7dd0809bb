"""Finding every fault of a value, and mending JSON text in strings."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.model.faults import (
    MAX_DEPTH,
    MAX_FAULTS,
    MAX_STEPS,
    PREVIEW_LENGTH,
    closest,
    describe,
    find_faults,
    kinds,
    preview,
    repair,
    same_json,
)

# --- the oracle: hand-written schemas with every keyword --------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from([0.5, 1.0, 2.5, -3.0]),
    st.sampled_from(["", "a", "ab", "ba", "abc", "1"]),
)
names = st.sampled_from(["a", "b", "ab", "c"])
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)
kind = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
small = st.integers(0, 3)


def some(**words: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A schema with one or two of these keywords."""
    return st.lists(st.sampled_from(sorted(words)), min_size=1, max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({word: words[word] for word in chosen})
    )


plain_schemas: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    st.booleans(),
    some(
        type=st.one_of(kind, st.lists(kind, min_size=1, max_size=2, unique=True)),
        enum=st.lists(values, min_size=1, max_size=3),
        const=values,
        minimum=st.integers(-3, 3),
        maximum=st.integers(-3, 3),
        exclusiveMinimum=st.integers(-3, 3),
        exclusiveMaximum=st.integers(-3, 3),
        multipleOf=st.integers(1, 3),
        minLength=small,
        maxLength=small,
        pattern=st.sampled_from(["^a", "b$", "[ab]{2}", "1"]),
        minItems=small,
        maxItems=small,
        uniqueItems=st.booleans(),
        minProperties=small,
        maxProperties=small,
        required=st.lists(names, max_size=2, unique=True),
        dependentRequired=st.dictionaries(
            names, st.lists(names, max_size=2, unique=True), max_size=2
        ),
    ),
    st.sampled_from([{"$ref": "#/$defs/leaf"}, {"$ref": "#/$defs/tree"}]),
)
schemas = st.recursive(
    plain_schemas,
    lambda inner: some(
        properties=st.dictionaries(names, inner, max_size=3),
        additionalProperties=inner,
        patternProperties=st.dictionaries(st.sampled_from(["^a", "b"]), inner, max_size=2),
        propertyNames=inner,
        items=inner,
        prefixItems=st.lists(inner, min_size=1, max_size=3),
        contains=inner,
        anyOf=st.lists(inner, min_size=1, max_size=3),
        oneOf=st.lists(inner, min_size=1, max_size=3),
        allOf=st.lists(inner, min_size=1, max_size=2),
        dependentSchemas=st.dictionaries(names, inner, max_size=2),
        **{"not": inner, "if": inner, "then": inner, "else": inner},
    ),
    max_leaves=6,
)
LEAF = {"type": ["string", "integer"], "minLength": 2}
TREE = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/leaf"}, "b": {"$ref": "#/$defs/tree"}},
    "required": ["a"],
    "additionalProperties": False,
}


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas, values)
def test_a_value_has_faults_exactly_when_the_oracle_refuses_it(schema: Any, value: Any) -> None:
    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"leaf": LEAF, "tree": TREE}}
    fits = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (find_faults(schema, value) == []) is fits


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(schemas, values)
def test_repairing_never_spoils_a_value_that_fits(schema: Any, value: Any) -> None:
    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"leaf": LEAF, "tree": TREE}}
    judge = jsonschema.Draft202012Validator(schema)
    mended, repairs = repair(schema, value)
    if judge.is_valid(value):
        assert judge.is_valid(mended)
        assert same_json(mended, value)
        assert repairs == ()


# --- what is said -----------------------------------------------------------------------------

FORECAST = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "places": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "height": {"type": "number"}},
                "required": ["name"],
            },
        },
    },
    "required": ["city"],
    "additionalProperties": False,
}


def test_all_faults_come_at_once_each_with_its_path() -> None:
    found = find_faults(
        FORECAST,
        {"ctiy": "Paris", "days": 99, "unit": "celsus", "places": [{"name": "x"}, {"name": 3}]},
    )
    assert [fault.path for fault in found] == ["days", "unit", "places[1].name", "ctiy", "city"]


def test_an_unknown_name_and_the_missing_one_point_at_each_other() -> None:
    unknown, missing = find_faults(FORECAST, {"ctiy": "Paris"})
    assert (unknown.path, unknown.hint) == ("ctiy", "did you mean 'city'?")
    assert (missing.path, missing.got, missing.hint) == (
        "city",
        "nothing",
        "was it sent as 'ctiy'?",
    )


def test_a_name_near_to_none_lists_the_known_ones() -> None:
    (fault,) = find_faults(FORECAST, {"city": "Paris", "zzz": 1})
    assert fault.hint == "known: city, days, unit, places"


def test_a_value_of_an_enumeration_is_answered_with_the_closest() -> None:
    (fault,) = find_faults(FORECAST, {"city": "Paris", "unit": "Celsius"})
    assert fault.hint == "did you mean 'celsius'?"
    assert fault.expected == 'one of "celsius", "fahrenheit"'


def test_null_for_an_optional_member_is_told_of_the_default() -> None:
    (fault,) = find_faults(FORECAST, {"city": "Paris", "days": None})
    assert fault.hint == "leave it out to use the default, 3"


def test_a_long_value_is_cut_and_never_dumped() -> None:
    secret = "s3cret-" * 1000
    (fault,) = find_faults({"type": "integer"}, secret)
    assert "7000 characters" in fault.got
    assert len(fault.got) < PREVIEW_LENGTH + 30


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (10**100, "an integer of many digits"),
        ([], "an array of 0 items"),
        ([1], "an array of 1 item"),
        ({}, "an empty object"),
        ({"a": 1, "b": 2}, "an object with a, b"),
        (dict.fromkeys("abcdef"), "an object with a, b, c, d, …"),
        ("tab\t", '"tab\\t"'),
        ("\ud800", '"\\ud800"'),
        (float("nan"), "nan"),
        (object(), "a object"),
    ],
)
def test_a_preview_is_one_short_line(value: Any, shown: str) -> None:
    assert preview(value) == shown


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer"}, "an integer"),
        ({"type": ["integer", "null"]}, "an integer or null"),
        ({"enum": ["a", 1]}, 'one of "a", 1'),
        ({"const": "a"}, '"a"'),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "a string or null"),
        ({"type": "array", "items": {"type": "number"}}, "an array, each item a number"),
        ({"type": "string", "format": "date"}, "a date"),
        ({"type": "string", "format": "email"}, "an e-mail address"),
        ({"type": "string", "format": "uri"}, "a URI"),
        ({"type": "string", "contentEncoding": "base64"}, "base64 text"),
        ({"type": "object", "properties": {"x": {}, "y": {}}}, "an object with x, y"),
        ({}, "a value"),
        (False, "nothing"),
        ({"enum": list(range(20))}, "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (20 in all)"),
    ],
)
def test_a_schema_is_described_in_a_few_words(schema: Any, words: str) -> None:
    assert describe(schema, schema) == words


def test_of_several_forms_the_one_with_the_fitting_tag_explains_the_fault() -> None:
    def shape(tag: str, **members: Any) -> dict[str, Any]:
        properties = {"kind": {"enum": [tag]}, **members}
        return {"type": "object", "properties": properties, "required": list(properties)}

    schema = {"anyOf": [shape("circle", r={"type": "number"}), shape("box", w={"type": "number"})]}
    (fault,) = find_faults(schema, {"kind": "box", "w": "wide"})
    assert (fault.path, fault.expected) == ("w", "a number")


def test_of_several_forms_only_those_of_the_same_json_kind_are_considered() -> None:
    schema = {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "integer"}}]}
    (fault,) = find_faults(schema, [1, "x"])
    assert fault.path == "[1]"
    (other,) = find_faults(schema, True)
    assert other.expected == "null or an array, each item an integer"


def test_member_names_that_are_no_identifiers_are_quoted_in_paths() -> None:
    schema = {"additionalProperties": {"type": "integer"}}
    (fault,) = find_faults(schema, {"a b": "x"})
    assert fault.path == '["a b"]'


def test_formats_are_asserted_only_when_asked_for() -> None:
    schema = {"type": "string", "format": "date"}
    assert find_faults(schema, "nope") == []
    (fault,) = find_faults(schema, "nope", formats={"date": lambda _: False})
    assert (fault.expected, fault.hint) == ("a date", "like 2030-01-31")


def test_a_decimal_step_is_judged_in_decimals() -> None:
    assert find_faults({"multipleOf": 0.1}, 0.3) == []
    assert find_faults({"multipleOf": 0.1}, 0.35) != []
    assert find_faults({"multipleOf": 0.1}, float("inf")) != []


# --- bounds -----------------------------------------------------------------------------------


def test_no_more_faults_are_reported_than_a_model_can_use() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    assert len(find_faults(schema, ["x"] * 10_000)) == MAX_FAULTS


def test_a_recursive_schema_and_a_deep_value_end_in_a_fault() -> None:
    schema = {"type": "array", "items": {"$ref": "#"}}
    value: list[Any] = []
    for _ in range(MAX_DEPTH + 10):
        value = [value]
    (fault,) = find_faults(schema, value)
    assert fault.expected == f"at most {MAX_DEPTH} levels of nesting"


def test_a_pointer_may_go_through_lists_and_escaped_names() -> None:
    schema = {
        "anyOf": [{"type": "integer"}, {"$ref": "#/$defs/a~1b"}],
        "$defs": {"a/b": {"$ref": "#/anyOf/0"}},
    }
    assert find_faults(schema, 1) == []
    assert find_faults(schema, "x") != []


def test_a_value_that_another_check_judges_is_not_refused_for_its_size() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    assert find_faults(schema, [1] * (MAX_STEPS + 1), is_final=False) == []


def test_more_patterns_than_are_remembered_still_work() -> None:
    for number in range(600):
        assert find_faults({"pattern": f"^{number}$"}, str(number)) == []


def test_a_reference_to_itself_ends() -> None:
    schema = {"$ref": "#"}
    assert find_faults(schema, 1)
    assert kinds(schema, schema) >= {"string"}
    assert repair(schema, "1") == ("1", ())


def test_forms_that_multiply_at_each_level_end_by_the_number_of_steps() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
    value: Any = {"next": 1}
    for _ in range(50):
        value = {"next": value}
    # Two to the fiftieth evaluations without the bound.
    find_faults(node, value)


def test_a_value_too_large_to_check_is_refused() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    (fault,) = find_faults(schema, [1] * (MAX_STEPS + 1))
    assert fault.expected == f"at most {MAX_STEPS} values inside"


def test_a_pattern_never_sees_a_text_of_unbounded_length() -> None:
    (fault,) = find_faults({"pattern": "^(a+)+$"}, "a" * 100_000 + "b")
    assert "since a pattern applies" in fault.expected


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "#/$defs/missing"},
        {"pattern": "(", "type": "string"},
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_of_its_author(schema: Any) -> None:
    with pytest.raises(Misconfigured):
        find_faults(schema, "x")


# --- repairs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "sent", "read"),
    [
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": "integer"}, "3", 3),
        ({"type": "integer"}, "3.0", 3),
        ({"type": "boolean"}, "true", True),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        ({"enum": [1, 2]}, "2", 2),
        ({"type": "array", "items": {"type": "integer"}}, '["1", 2]', [1, 2]),
    ],
)
def test_json_text_is_read_where_a_string_is_forbidden(schema: Any, sent: str, read: Any) -> None:
    mended, repairs = repair(schema, sent)
    assert mended == read
    assert repairs[0].path == ""


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "string"}, "3"),
        ({}, "[1]"),
        ({"type": ["integer", "string"]}, "3"),
        ({"anyOf": [{"type": "integer"}, {"enum": ["a"]}]}, "3"),
        ({"type": "integer"}, "three"),
        ({"type": "integer"}, "[3]"),
        ({"type": "integer"}, ""),
        ({"type": "integer"}, "3.5"),
        ({"type": "boolean"}, "yes"),
        ({"type": "array"}, "[" * 100_000),
    ],
)
def test_a_string_stays_a_string_where_it_may_or_must(schema: Any, sent: str) -> None:
    assert repair(schema, sent) == (sent, ())


def test_repairs_inside_name_their_places() -> None:
    mended, repairs = repair(FORECAST, {"city": "7", "days": "7", "places": '[{"height": "2.5"}]'})
    assert mended == {"city": "7", "days": 7, "places": [{"height": 2.5}]}
    assert [one.path for one in repairs] == ["days", "places", "places[0].height"]


def test_a_whole_float_becomes_an_integer_without_a_word() -> None:
    mended, repairs = repair({"type": "integer"}, 3.0)
    assert type(mended) is int
    assert repairs == ()
    assert type(repair({"type": "number"}, 3.0)[0]) is float


def test_inside_two_forms_of_one_kind_nothing_is_touched() -> None:
    form = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = {"anyOf": [form, {**form, "required": ["b"]}]}
    assert repair(schema, {"a": "1"}) == ({"a": "1"}, ())


def test_a_repair_says_what_it_did() -> None:
    _, (whole,) = repair({"type": "array"}, "[1]")
    assert str(whole) == (
        'the arguments: read "[1]" as JSON text, since the schema forbids a string there'
    )
    _, (inner,) = repair({"properties": {"a": {"type": "array"}}}, {"a": "[1]"})
    assert str(inner).startswith("a: read")


def test_of_two_forms_the_tag_decides_which_one_is_mended() -> None:
    def form(tag: str, kind: str) -> dict[str, Any]:
        properties = {"tag": {"const": tag}, "v": {"type": kind}}
        return {"type": "object", "properties": properties, "required": ["tag"]}

    schema = {"oneOf": [form("n", "integer"), form("t", "string")]}
    assert repair(schema, {"tag": "n", "v": "1"})[0] == {"tag": "n", "v": 1}
    assert repair(schema, {"tag": "t", "v": "1"})[0] == {"tag": "t", "v": "1"}
    assert repair(schema, {"v": "1"})[0] == {"v": "1"}


def test_a_huge_array_is_left_alone_after_the_bound() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    mended, repairs = repair(schema, ["1"] * (MAX_STEPS + 10))
    assert (mended[0], mended[-1]) == (1, "1")
    assert len(repairs) < MAX_STEPS


# --- small parts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "likely"),
    [("ctiy", "city"), ("CITY", "city"), ("max-days", "max_days"), ("zzz", None), ("c" * 99, None)],
)
def test_the_closest_name_is_found_or_none(name: str, likely: str | None) -> None:
    assert closest(name, ["city", "max_days"]) == likely


def test_one_and_true_differ_and_one_and_one_point_zero_do_not() -> None:
    assert not same_json(1, True)
    assert not same_json([0], [False])
    assert same_json({"a": [1]}, {"a": [1.0]})
    assert find_faults({"uniqueItems": True}, [1, True]) == []
    assert find_faults({"uniqueItems": True}, [{"a": 1}, {"a": 1.0}]) != []


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"minLength": 1}, "", "expected at least 1 character, got 0 characters"),
        ({"minItems": 2}, ["x"], "expected at least 2 items, got 1 item"),
        ({"maxProperties": 1}, {"a": 1, "b": 2}, "expected at most 1 member, got 2 members"),
    ],
)
def test_a_count_of_one_is_said_in_the_singular(schema: Any, value: Any, said: str) -> None:
    (fault,) = find_faults(schema, value)
    assert said in str(fault)


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"enum": [1, 2], "const": 2}, 2, True),
        ({"enum": [1, 2], "const": 2}, 1, False),
        ({"enum": [1], "const": 2}, 1, False),
        ({"enum": [1], "const": 2}, 2, False),
    ],
)
def test_a_constant_holds_beside_choices(schema: Any, value: Any, fits: bool) -> None:
    assert (find_faults(schema, value) == []) is fits
