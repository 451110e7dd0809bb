"""Awkward schemas, compiled: never stricter than the original, and always what a provider takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dragoman.errors import InvalidArguments
from dragoman.host.models.base import (
    ANTHROPIC_RULES,
    OPENAI_RULES,
    PLAIN_RULES,
    ProviderRules,
)
from dragoman.host.models.schemas import compile_schema
from dragoman.host.toolbox import compile_tools
from dragoman.model.tools import Tool
from dragoman.model.unseen import unseen_in

FOLDER = Path(__file__).parent / "schemas"
CASES = [
    (path.stem, case)
    for path in sorted(FOLDER.glob("*.json"))
    for case in json.loads(path.read_text(encoding="utf-8"))
]
RULES = {"openai": OPENAI_RULES, "anthropic": ANTHROPIC_RULES, "plain": PLAIN_RULES}

every_case = pytest.mark.parametrize(
    "case", [case for _, case in CASES], ids=[f"{of}: {case['name']}" for of, case in CASES]
)

# What the walk over a stranger's schema does not judge, on purpose: patterns may take hours, and
# these keywords belong to a compiled validator. The server judges them.
UNJUDGED = {
    "a pattern", "a pattern with look-ahead", "a pattern that explodes", "rules for names",
    "unevaluated items", "unevaluated members", "a tuple of the seventh draft", "an anchor",
    "bounds of the fourth draft", "the fourth draft", "dependencies of the fourth draft",
    "a reference whose neighbours do not count", "names by pattern",
}  # fmt: skip


# --- a strict reader for each provider ---------------------------------------------------------


def complaints(schema: Any, rules: ProviderRules) -> list[str]:
    """Everything in a schema that the provider has no word for; written apart from the compiler."""
    found: list[str] = []
    if schema.get("type") != "object":
        found.append("the top is no object")
    if not isinstance(schema.get("properties"), dict):
        found.append("the top has no properties")
    found += [
        f"{word} at the top" for word in ("anyOf", "oneOf", "allOf", "enum") if word in schema
    ]
    _complain(schema, rules, "", 0, found)
    return found


KNOWN = {"type", "properties", "required", "items", "enum", "description", "default"}


def _complain(schema: Any, rules: ProviderRules, at: str, depth: int, found: list[str]) -> None:
    if not isinstance(schema, dict):
        found.append(f"{at}: no object")
        return
    allowed = KNOWN | rules.keywords
    if rules.has_alternatives:
        allowed |= {"anyOf"}
    if rules.has_additional:
        allowed |= {"additionalProperties"}
    if rules.formats:
        allowed |= {"format"}
    found += [f"{at}: {word}" for word in schema.keys() - allowed]
    # The bound is on what is inside of each other in the original; a reference adds no more.
    if depth > rules.max_depth + 1:
        found.append(f"{at}: too deep")
    kind = schema.get("type")
    if isinstance(kind, list) and (not rules.has_type_lists or len(set(kind)) != len(kind)):
        found.append(f"{at}: types {kind}")
    kinds = kind if isinstance(kind, list) else [kind]
    if "array" in kinds and "items" not in schema:
        found.append(f"{at}: a list without items")
    values = schema.get("enum", [])
    if "enum" in schema and not 0 < len(values) <= rules.max_enum:
        found.append(f"{at}: {len(values)} values")
    if not rules.has_mixed_enums and not all(isinstance(one, str) for one in values):
        found.append(f"{at}: values {values}")
    if len({json.dumps(one) for one in values}) != len(values):
        found.append(f"{at}: values twice")
    if "format" in schema and schema["format"] not in rules.formats:
        found.append(f"{at}: format {schema['format']}")
    text = schema.get("description", "")
    if not isinstance(text, str) or len(text) > 2100 or unseen_in(text):
        found.append(f"{at}: description")
    members = schema.get("properties", {})
    for name, inner in members.items():
        if not re.fullmatch(rules.property_pattern, name):
            found.append(f"{at}: member {name!r}")
        _complain(inner, rules, f"{at}/{name}", depth + 1, found)
    found += [f"{at}: needs {name}" for name in schema.get("required", ()) if name not in members]
    if "items" in schema:
        _complain(schema["items"], rules, f"{at}/items", depth + 1, found)
    beyond = schema.get("additionalProperties")
    if beyond is not None and beyond is not False:
        _complain(beyond, rules, f"{at}/*", depth + 1, found)
    for number, inner in enumerate(schema.get("anyOf", ())):
        _complain(inner, rules, f"{at}|{number}", depth + 1, found)
    if "anyOf" in schema and len(schema["anyOf"]) < 2:
        found.append(f"{at}: one alternative")


# --- the corpus --------------------------------------------------------------------------------


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 60
    assert len({case["name"] for _, case in CASES}) == len(CASES)


@pytest.mark.parametrize("provider", RULES)
@every_case
def test_a_provider_takes_it_and_it_takes_what_the_original_takes(
    case: dict[str, Any], provider: str
) -> None:
    rules = RULES[provider]
    compiled = compile_schema(case["schema"], rules)
    assert complaints(compiled.schema, rules) == []
    assert jsonschema_rs.meta.is_valid(compiled.schema)
    # However odd the original is: what a model is told of one tool stays payable.
    assert len(json.dumps(compiled.schema)) < 60_000
    for value in case["valid"]:
        assert jsonschema_rs.is_valid(case["schema"], value), "the corpus itself is wrong"
        assert jsonschema_rs.is_valid(compiled.schema, value), compiled


@every_case
def test_arguments_are_judged_by_the_original(case: dict[str, Any]) -> None:
    box = compile_tools([("s", Tool(name="t", input_schema=case["schema"]))], OPENAI_RULES)
    (entry,) = box.entries
    for value in case["valid"]:
        assert entry.read(json.dumps(value)) == (value, ())
    for value in case["invalid"]:
        assert not jsonschema_rs.is_valid(case["schema"], value), "the corpus itself is wrong"
        if case["name"] not in UNJUDGED:
            with pytest.raises(InvalidArguments):
                entry.read(json.dumps(value))


def one_of(name: str) -> Any:
    return next(case["schema"] for _, case in CASES if case["name"] == name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a tuple", "in this order: 1."),
        ("names by pattern", "members whose name matches ^x-"),
        ("names no provider takes", 'have a member "@type"'),
        ("names of other letters", 'must have a member "größe": {"type": "integer"}'),
        ("names of other letters", 'may have a member "": {"type": "string"}'),
        ("names of other letters", 'may have a member "a b": '),
        ("an unfit name inside of a list", 'must have a member "@id"'),
        ("an unfit name at the top, in closed alternatives", 'must have a member "@a"'),
        ("anyOf at the top with one member of several types", "{v, k: i} or {v, k: s}"),
        ("a circle through the top", "again the shape of"),
        ("a circle through alternatives", "again the shape of E"),
        ("a huge enum", "one of value-0"),
        ("if, then, else", "if "),
        ("one needs the other", "dependentRequired"),
        ("a tree of itself", "again the shape of Node"),
        ("a reference into the network", "defined elsewhere: https://example.com/schema.json"),
        ("closed alternatives at the top", "one of these forms: {id} or {name}"),
        ("not", "not {"),
    ],
)
def test_what_is_lost_is_told_to_the_model_and_listed(name: str, told: str) -> None:
    compiled = compile_schema(one_of(name), OPENAI_RULES)
    assert told in json.dumps(compiled.schema, ensure_ascii=False).replace('\\"', '"')
    assert any(told in loss.what for loss in compiled.losses)


def test_what_every_provider_knows_loses_nothing() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where."},
            "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 3},
            "unit": {"enum": ["C", "F"], "type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    compiled = compile_schema(schema, OPENAI_RULES)
    assert compiled.schema == schema
    assert compiled.losses == ()


def test_optional_values_read_as_they_are_meant() -> None:
    compiled = compile_schema(one_of("a string or null"), OPENAI_RULES).schema
    assert compiled["properties"]["a"]["type"] == ["string", "null"]
    constants = compile_schema(one_of("constants by oneOf"), OPENAI_RULES).schema
    assert constants["properties"]["level"]["enum"] == ["low", "high"]
    assert "low: slow" in constants["properties"]["level"]["description"]


@pytest.mark.parametrize("provider", RULES)
@pytest.mark.parametrize("name", ["references that double", "a tree of itself"])
def test_a_schema_that_grows_without_end_is_cut(name: str, provider: str) -> None:
    compiled = compile_schema(one_of(name), RULES[provider])
    assert len(json.dumps(compiled.schema)) < 60_000
    assert compiled.losses


def test_a_schema_of_any_width_stays_payable() -> None:
    wide: list[Any] = [
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20_000)}},
        {"type": "object", "required": [f"p{n}" for n in range(20_000)]},
        {"properties": {"a": {"anyOf": [{"enum": [f"{n}" * 9]} for n in range(20_000)]}}},
        {"properties": {"a": {"allOf": [{"required": [f"p{n}"]} for n in range(20_000)]}}},
        {"patternProperties": {f"p{n}": {"enum": ["x"]} for n in range(20_000)}},
        {
            "properties": {f"p{n}": {"$ref": "#/$defs/E"} for n in range(500)},
            "$defs": {"E": {"enum": list(range(20_000))}},
        },
    ]
    for schema in wide:
        compiled = compile_schema(schema, OPENAI_RULES)
        assert complaints(compiled.schema, OPENAI_RULES) == []
        assert len(json.dumps(compiled.schema)) < 200_000
        assert compiled.losses


def test_nesting_of_any_kind_ends() -> None:
    for word in ("allOf", "anyOf", "oneOf"):
        schema: Any = {"type": "object"}
        for _ in range(400):
            schema = {word: [schema]}
        assert complaints(compile_schema(schema, OPENAI_RULES).schema, OPENAI_RULES) == []
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(400)}
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": chain}
    assert compile_schema(schema, OPENAI_RULES).losses


# --- properties --------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 2.0]),
    st.sampled_from(["", "a", "b", "abc"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc@"), inner, max_size=3)
    ),
    max_leaves=6,
)
TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]


def schemas() -> st.SearchStrategy[Any]:
    leaf = st.one_of(
        st.booleans(),
        st.just({"$ref": "#/$defs/A"}),
        st.just({"$ref": "#/$defs/B"}),
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.one_of(
                    st.sampled_from(TYPES),
                    st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True),
                ),
                "enum": st.lists(scalars, min_size=1, max_size=4),
                "const": scalars,
                "minimum": st.integers(-2, 2),
                "exclusiveMaximum": st.integers(-2, 3),
                "maxLength": st.integers(0, 3),
                "maxItems": st.integers(0, 2),
                "nullable": st.booleans(),
                "uniqueItems": st.booleans(),
                "pattern": st.sampled_from(["^a", "(?=b)"]),
                "description": st.just("d"),
            },
        ),
    )

    def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        some = st.lists(inner, min_size=1, max_size=3)
        return st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(
                    ["array", "object", ["object", "null"], ["array", "string"]]
                ),
                "properties": st.dictionaries(st.sampled_from("abc@"), inner, max_size=3),
                "required": st.lists(st.sampled_from("abc@"), max_size=2, unique=True),
                "additionalProperties": inner,
                "patternProperties": st.dictionaries(st.just("^[ab]"), inner, max_size=1),
                "items": inner,
                "prefixItems": some,
                "anyOf": some,
                "oneOf": some,
                "allOf": some,
                "not": inner,
                "if": inner,
                "then": inner,
                "$ref": st.sampled_from(["#/$defs/A", "#/$defs/B"]),
                "dependentRequired": st.just({"a": ["b"]}),
                "enum": st.lists(scalars, min_size=1, max_size=3),
                "minItems": st.integers(0, 1),
            },
        )

    return st.recursive(leaf, larger, max_leaves=8)


tops = st.builds(
    lambda top, a, b, draft: {
        **(top if isinstance(top, dict) else {}),
        **draft,
        "$defs": {"A": a, "B": b},
    },
    schemas(),
    schemas(),
    schemas(),
    # Before 2019 what stands beside a reference did not count.
    st.sampled_from([{}, {}, {"$schema": "http://json-schema.org/draft-07/schema#"}]),
)


def _is_valid(schema: Any, value: Any) -> bool:
    try:
        return bool(jsonschema_rs.is_valid(schema, value))
    except ValueError:
        # References that go round in a circle without an end.
        return False


def _check_looser(schema: Any, value: dict[str, Any]) -> None:
    for rules in RULES.values():
        compiled = compile_schema(schema, rules)
        assert complaints(compiled.schema, rules) == []
        assert jsonschema_rs.is_valid(compiled.schema, value), (schema, compiled)


@settings(max_examples=20, deadline=None)
@given(schema=tops, found=st.lists(st.dictionaries(st.sampled_from("abc@"), values), max_size=8))
def test_what_fits_the_original_fits_the_compiled(schema: Any, found: list[Any]) -> None:
    fitting = [value for value in found if _is_valid(schema, value)]
    assume(fitting)
    for value in fitting:
        _check_looser(schema, value)


# Six thousand examples take a minute, two where the machine is busy.
@pytest.mark.timeout(300)
@pytest.mark.long
@settings(max_examples=6000, deadline=None)
@given(schema=tops, found=st.lists(st.dictionaries(st.sampled_from("abc@"), values), max_size=8))
def test_what_fits_the_original_fits_the_compiled_thousands_of_times(
    schema: Any, found: list[Any]
) -> None:
    for value in found:
        if _is_valid(schema, value):
            _check_looser(schema, value)


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "anyOf", "allOf", "$ref", "enum", "required",
                 "const", "default", "description", "additionalProperties", "prefixItems", "x",
                 "maxLength", "pattern", "format", "nullable", "examples", "patternProperties"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(schema=anything)
def test_any_json_at_all_compiles_to_what_a_provider_takes(schema: Any) -> None:
    for rules in RULES.values():
        compiled = compile_schema(schema, rules).schema
        assert complaints(compiled, rules) == []
        assert jsonschema_rs.meta.is_valid(compiled)
