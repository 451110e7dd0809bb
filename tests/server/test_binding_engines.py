"""Two engines read signatures. Whatever both can read, they must describe and judge alike.

The oracle for values is the jsonschema library, against the schema that we publish.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, Required, Union

import jsonschema
import msgspec
import pydantic
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typing_extensions import TypedDict

from dragoman.errors import ArgumentFault, InvalidArguments
from dragoman.model.faults import find_faults, kinds
from dragoman.server.annotations import for_msgspec
from dragoman.server.binding import Binding, Call, bind
from dragoman.server.schemas import Definitions, SchemaWriter, from_text, inline_root
from dragoman.server.with_pydantic import PydanticType


class Context:
    """Stands for the server's."""


class Colour(enum.Enum):
    """What it looks like."""

    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 2
    HIGH = 3


@dataclass
class Plain:
    a: int
    b: float = 1.5
    c: Colour = Colour.RED
    d: list[str] = field(default_factory=list)


@dataclass
class Tree:
    """A node with children."""

    name: str
    left: Tree | None = None
    children: list[Tree] = field(default_factory=list)


class Half(TypedDict, total=False):
    """Some of it."""

    z: Required[int]
    a: str | None
    m: NotRequired[Plain]


class Whole(TypedDict):
    x: bool
    y: NotRequired[Level]


class Pair(NamedTuple):
    first: int
    second: str = "two"


SCALARS: list[Any] = [
    int,
    float,
    str,
    bool,
    None,
    Any,
    bytes,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    Path,
    Colour,
    Level,
    Literal["slow", "fast"],
    Literal["b", 3, None],
    Literal[7],
    Plain,
    Tree,
    Half,
    Whole,
    Pair,
    dict,
    list,
    Annotated[int, msgspec.Meta(ge=0, lt=10)],
    Annotated[float, msgspec.Meta(gt=0.5, le=99)],
    Annotated[int, msgspec.Meta(multiple_of=3)],
    Annotated[str, msgspec.Meta(min_length=2, max_length=4, pattern="^a")],
    Annotated[list[int], msgspec.Meta(min_length=1, max_length=2)],
    Annotated[dict[str, int], msgspec.Meta(max_length=2)],
    Annotated[str, "in words"],
]
# JSON kinds that do not overlap, so that a union of them is one that msgspec accepts.
APART: list[Any] = [int, str, bool, list[int], dict[str, float], Plain]


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda one: list[one]),  # type: ignore[valid-type]
        inner.map(lambda one: Sequence[one]),  # type: ignore[valid-type]
        inner.map(lambda one: tuple[one, ...]),  # type: ignore[valid-type]
        inner.map(lambda one: dict[str, one]),  # type: ignore[valid-type]
        inner.map(lambda one: Mapping[str, one]),  # type: ignore[valid-type]
        st.tuples(inner, inner).map(lambda two: tuple[two]),  # type: ignore[valid-type]
        inner.map(lambda one: Optional[one]),  # noqa: UP045 - `None | None` is no type
    )


unions = st.lists(st.sampled_from(APART), min_size=2, max_size=4, unique=True).map(
    lambda parts: Union[tuple(parts)]  # noqa: UP007 - made at run time
)
hashable = st.sampled_from([int, str, Colour, Literal["slow", "fast"]])
sets = st.one_of(
    hashable.map(lambda one: set[one]),  # type: ignore[valid-type]
    hashable.map(lambda one: frozenset[one]),  # type: ignore[valid-type]
)
# A recursive strategy alone seldom draws a bare leaf.
leaves = st.one_of(st.sampled_from(SCALARS), unions, sets)
every_annotation: st.SearchStrategy[Any] = st.one_of(
    leaves, st.recursive(leaves, containers, max_leaves=4)
)


def is_single_dict_like(annotation: Any) -> bool:
    try:
        msgspec.json.Decoder(for_msgspec(annotation), dec_hook=from_text)
    except TypeError:
        return False
    return True


readable = every_annotation.filter(is_single_dict_like)


def by_msgspec(annotation: Any, *, is_output: bool = False) -> Any:
    definitions = Definitions()
    schema = SchemaWriter(definitions, is_output=is_output).write(annotation)
    return inline_root(schema, definitions.schemas)


def by_pydantic(annotation: Any, *, is_output: bool = False) -> Any:
    definitions = Definitions()
    schema = definitions.take_in(PydanticType(annotation).schema(is_output=is_output))
    return inline_root(schema, definitions.schemas)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(readable)
def test_both_engines_publish_the_same_input_schema(annotation: Any) -> None:
    assert by_msgspec(annotation) == by_pydantic(annotation)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(readable)
def test_both_engines_publish_the_same_output_schema(annotation: Any) -> None:
    assert by_msgspec(annotation, is_output=True) == by_pydantic(annotation, is_output=True)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(readable)
def test_every_published_schema_is_valid_json_schema(annotation: Any) -> None:
    for schema in (by_msgspec(annotation), by_msgspec(annotation, is_output=True)):
        jsonschema.Draft202012Validator.check_schema(schema)


# --- values -----------------------------------------------------------------------------------

# Left out: types whose text has a format, which a schema only annotates; sets, which both engines
# fill from repeated items; named tuples, which pydantic also reads from objects.
JUDGED: list[Any] = [
    int,
    float,
    str,
    bool,
    None,
    Any,
    Colour,
    Level,
    Literal["slow", "fast"],
    Literal["b", 3, None],
    Literal[7],
    Plain,
    Tree,
    Half,
    Whole,
    dict,
    list,
    Annotated[int, msgspec.Meta(ge=0, lt=10)],
    Annotated[float, msgspec.Meta(gt=0.5, le=99)],
    Annotated[int, msgspec.Meta(multiple_of=3)],
    Annotated[str, msgspec.Meta(min_length=2, max_length=4, pattern="^a")],
    Annotated[list[int], msgspec.Meta(min_length=1, max_length=2)],
    Annotated[dict[str, int], msgspec.Meta(max_length=2)],
]
some_judged = st.one_of(st.sampled_from(JUDGED), unions)
judged = st.one_of(some_judged, st.recursive(some_judged, containers, max_leaves=3)).filter(
    is_single_dict_like
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-20, 20),
    st.integers(-(2**60), 2**60),
    st.floats(-100, 100, allow_nan=False, width=32),
    st.sampled_from([0.0, 1.0, 3.0, 1e10]),
    st.text(max_size=5),
    st.sampled_from(["red", "slow", "ab", "abc", "3", "true", "null", "[1, 2]", '{"a": 1}', '"x"']),
)
any_json = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "name", "x", "z", "q"]), inner, max_size=3),
    ),
    max_leaves=5,
)


def fitting(schema: Any, root: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that should fit, now and then with something else in a place."""
    if depth > 4:
        return st.none()
    return st.integers(0, 11).flatmap(
        lambda chance: any_json if chance == 0 else exactly(schema, root, depth)
    )


def exactly(schema: Any, root: Any, depth: int) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return fitting(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, depth + 1)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([fitting(option, root, depth + 1) for option in schema["anyOf"]])
    match schema.get("type"):
        case "integer":
            return st.integers(-3, 12)
        case "number":
            return st.one_of(st.integers(-3, 100), st.floats(0, 100, width=32))
        case "string":
            return st.sampled_from(["", "a", "ab", "abcd", "abcde", "zz", "red"])
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "array":
            if "prefixItems" in schema:
                return st.tuples(
                    *[fitting(one, root, depth + 1) for one in schema["prefixItems"]]
                ).map(list)
            return st.lists(fitting(schema.get("items", {}), root, depth + 1), max_size=3)
        case "object":
            members = {
                name: fitting(inner, root, depth + 1)
                for name, inner in schema.get("properties", {}).items()
            }
            needed = {name: members.pop(name) for name in schema.get("required", ())}
            if not needed and not members:
                inner = schema.get("additionalProperties", {})
                names = st.sampled_from(["k", "l", "m"])
                return st.dictionaries(names, fitting(inner, root, depth + 1), max_size=3)
            return st.fixed_dictionaries(needed, optional=members)
    return any_json


def tool_of(annotation: Any) -> Binding:
    def tool(x: Any) -> None: ...

    tool.__annotations__ = {"x": annotation}
    return bind(tool, context_type=Context)


def outcome(binding: Binding, value: Any) -> tuple[Call | None, tuple[ArgumentFault, ...]]:
    try:
        return binding.parse({"x": value}), ()
    except InvalidArguments as error:
        return None, error.faults


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, Any]:
    annotation = draw(judged)
    schema = by_msgspec(annotation)
    return annotation, draw(fitting(schema, schema))


COMMON = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@COMMON
@given(cases())
def test_the_fault_finder_agrees_with_the_oracle_on_published_schemas(
    case: tuple[Any, Any],
) -> None:
    annotation, value = case
    schema = tool_of(annotation).input_schema
    given_value = {"x": value}
    fits = jsonschema.Draft202012Validator(schema).is_valid(given_value)
    assert (find_faults(schema, given_value) == []) is fits


@COMMON
@given(cases())
def test_what_the_schema_allows_both_engines_read_and_nothing_else(case: tuple[Any, Any]) -> None:
    annotation, value = case
    mine = tool_of(annotation)
    theirs = tool_of(Annotated[annotation, pydantic.Field()])
    assert mine.input_schema == theirs.input_schema
    fits = jsonschema.Draft202012Validator(mine.input_schema).is_valid({"x": value})
    for binding in (mine, theirs):
        call, faults = outcome(binding, value)
        if call is None:
            assert faults
            assert not fits, faults
        else:
            assert fits or call.repairs, call


@COMMON
@given(cases())
def test_both_engines_name_the_same_faults(case: tuple[Any, Any]) -> None:
    annotation, value = case
    mine = outcome(tool_of(annotation), value)
    theirs = outcome(tool_of(Annotated[annotation, pydantic.Field()]), value)
    assert mine[1] == theirs[1]


@COMMON
@given(cases())
def test_json_text_is_mended_exactly_where_the_schema_forbids_a_string(
    case: tuple[Any, Any],
) -> None:
    annotation, value = case
    schema = by_msgspec(annotation)
    judge = jsonschema.Draft202012Validator(schema)
    text = msgspec.json.encode(value).decode()
    assume(judge.is_valid(value) and not judge.is_valid(text))
    # A pattern or a length may forbid this string and not others: then strings stay as they are.
    assume("string" not in kinds(schema, schema))
    for wanted in (annotation, Annotated[annotation, pydantic.Field()]):
        binding = tool_of(wanted)
        call = binding.parse({"x": text})
        assert [one.path for one in call.repairs] == ["x"]
        assert call.values == binding.parse({"x": value}).values
