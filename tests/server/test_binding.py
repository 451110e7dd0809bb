"""From a function's signature to a schema, and from JSON text to a call of the function."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypeVar,
)

import annotated_types
import attrs
import jsonschema
import msgspec
import pydantic
import pydantic_core
import pytest
from typing_extensions import Doc, TypeAliasType, TypedDict

from dragoman.errors import InvalidArguments, Misconfigured, MissingExtra
from dragoman.model.content import ImageContent, TextContent
from dragoman.model.faults import MAX_STEPS
from dragoman.model.tools import CallToolResult
from dragoman.server.binding import Binding, bind, bind_prompt, bind_resource
from dragoman.server.results import Image
from tests.requirements.duties import duty

if TYPE_CHECKING:
    from somewhere import Context as Elsewhere  # type: ignore[import-not-found]


class Context:
    """Stands for the server's."""


class Narrow(Context):
    """A context of the user's own."""


def bound(fn: Callable[..., Any], **options: Any) -> Binding:
    return bind(fn, context_type=Context, **options)


def properties(fn: Callable[..., Any]) -> dict[str, Any]:
    found: dict[str, Any] = bound(fn).input_schema["properties"]
    return found


def run(fn: Callable[..., Any], raw: Any, context: Any = None) -> Any:
    binding = bound(fn)
    return binding.call(binding.parse(raw), context)


def faults(fn: Callable[..., Any], raw: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidArguments) as caught:
        bound(fn).parse(raw)
    return [(fault.path, fault.expected) for fault in caught.value.faults]


class Unit(enum.Enum):
    """How warmth is counted."""

    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclasses.dataclass
class Place:
    """A point on the globe."""

    lat: float
    lon: Annotated[float, "degrees east"]
    tags: list[str] = dataclasses.field(default_factory=list)


HERE = Place(1.0, 2.0)
SENTINEL = object()

# --- what is published ------------------------------------------------------------------------


def test_a_signature_becomes_a_closed_object_schema() -> None:
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert bound(add).input_schema == {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}},
        "required": ["a"],
        "additionalProperties": False,
    }


def test_name_and_description_come_from_the_function_unless_given() -> None:
    def forecast(city: str) -> str:
        """Tell the weather.

        In some detail.

        Args:
            city: where
        """
        return city

    binding = bound(forecast)
    assert (binding.name, binding.description) == (
        "forecast",
        "Tell the weather.\n\nIn some detail.",
    )
    assert binding.input_schema["properties"]["city"]["description"] == "where"
    other = bound(forecast, name="weather", description="Other words.")
    assert (other.name, other.description) == ("weather", "Other words.")


def test_descriptions_in_annotations_win_over_the_docstring() -> None:
    def tool(
        a: Annotated[int, "from a string"],
        b: Annotated[int, Doc("from a Doc")],
        c: Annotated[int, msgspec.Meta(description="from a Meta")],
        d: Annotated[int, pydantic.Field(description="from a Field")],
        e: int,
        f: Annotated[int, "of an optional"] = None,  # type: ignore[assignment]  # noqa: RUF013
    ) -> None:
        """Do.

        Args:
            a: not this
            b: not this
            c: not this
            d: not this
            e: from the docstring
            f: not this
        """

    assert {name: one["description"] for name, one in properties(tool).items()} == {
        "a": "from a string",
        "b": "from a Doc",
        "c": "from a Meta",
        "d": "from a Field",
        "e": "from the docstring",
        "f": "of an optional",
    }


T = TypeVar("T")


class Shape(msgspec.Struct, tag_field="kind"):
    area: float


class Circle(Shape, tag="circle"):
    r: float = 1.0


class Box(Shape, tag="box"):
    w: float = 1.0


@attrs.define
class Dish:
    name: str
    hot: bool = False


class Part(TypedDict):
    """Some members."""

    a: int
    b: NotRequired[str]


class Pair(NamedTuple):
    first: int
    second: str = "two"


class Row(msgspec.Struct, Generic[T], forbid_unknown_fields=True):
    item: T
    more: list[T] = []


Metres = NewType("Metres", float)
Names = TypeAliasType("Names", list[str])

INT, STR, NUM = {"type": "integer"}, {"type": "string"}, {"type": "number"}


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, STR),
        (int, INT),
        (float, NUM),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (int | None, {"anyOf": [INT, {"type": "null"}]}),
        (None | int | str, {"anyOf": [INT, STR, {"type": "null"}]}),
        (list[int], {"type": "array", "items": INT}),
        (set[int], {"type": "array", "items": INT, "uniqueItems": True}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [INT, STR], "minItems": 2, "maxItems": 2},
        ),
        (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}),
        (dict[str, int], {"type": "object", "additionalProperties": INT}),
        (dict[str, Any], {"type": "object"}),
        (
            dict[int, str],
            {
                "type": "object",
                "propertyNames": {"pattern": r"^-?\d+$"},
                "additionalProperties": STR,
            },
        ),
        (Literal["slow", "fast", "medium"], {**STR, "enum": ["slow", "fast", "medium"]}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Unit, {**STR, "enum": ["c", "f"], "description": "How warmth is counted."}),
        (datetime.datetime, {**STR, "format": "date-time"}),
        (datetime.date, {**STR, "format": "date"}),
        (datetime.time, {**STR, "format": "time"}),
        (datetime.timedelta, {**STR, "format": "duration"}),
        (uuid.UUID, {**STR, "format": "uuid"}),
        (decimal.Decimal, {"anyOf": [NUM, STR]}),
        (bytes, {**STR, "contentEncoding": "base64"}),
        (Path, {**STR, "format": "path"}),
        (Metres, NUM),
        (Names, {"type": "array", "items": STR}),
        (Annotated[int, msgspec.Meta(ge=1, lt=9)], {**INT, "minimum": 1, "exclusiveMaximum": 9}),
        (
            Annotated[bytes, msgspec.Meta(max_length=4)],
            {**STR, "contentEncoding": "base64", "maxLength": 8},
        ),
        (list[Annotated[int, "each"]], {"type": "array", "items": {**INT, "description": "each"}}),
    ],
)
def test_each_type_has_its_schema(annotation: Any, schema: dict[str, Any]) -> None:
    def tool(x: Any) -> None: ...

    tool.__annotations__["x"] = annotation
    published = bound(tool).input_schema
    jsonschema.Draft202012Validator.check_schema(published)
    assert published["properties"]["x"] == schema


@pytest.mark.parametrize(
    ("annotation", "definition"),
    [
        (
            Place,
            {
                "description": "A point on the globe.",
                "type": "object",
                "properties": {
                    "lat": NUM,
                    "lon": {**NUM, "description": "degrees east"},
                    "tags": {"type": "array", "items": STR},
                },
                "required": ["lat", "lon"],
            },
        ),
        (
            Part,
            {
                "description": "Some members.",
                "type": "object",
                "properties": {"a": INT, "b": STR},
                "required": ["a"],
            },
        ),
        (
            Pair,
            {
                "type": "array",
                "prefixItems": [INT, {**STR, "default": "two"}],
                "minItems": 1,
                "maxItems": 2,
            },
        ),
        (
            Dish,
            {
                "type": "object",
                "properties": {"name": STR, "hot": {"type": "boolean", "default": False}},
                "required": ["name"],
            },
        ),
        (
            Row[int],
            {
                "type": "object",
                "properties": {"item": INT, "more": {"type": "array", "items": INT, "default": []}},
                "required": ["item"],
                "additionalProperties": False,
            },
        ),
        (
            Circle,
            {
                "type": "object",
                "properties": {
                    "kind": {**STR, "enum": ["circle"]},
                    "area": NUM,
                    "r": {**NUM, "default": 1.0},
                },
                "required": ["kind", "area"],
            },
        ),
    ],
)
def test_each_record_has_a_definition(annotation: Any, definition: dict[str, Any]) -> None:
    def tool(x: Any) -> None: ...

    tool.__annotations__["x"] = annotation
    published = bound(tool).input_schema
    jsonschema.Draft202012Validator.check_schema(published)
    (only,) = published["$defs"].values()
    assert only == definition


def test_two_records_of_one_name_keep_apart() -> None:
    def make(field: str) -> Any:
        return dataclasses.make_dataclass("Thing", [(field, int)])

    def tool(a: Any, b: Any, c: Any) -> None: ...

    model = pydantic.create_model("Thing", z=(int, ...))
    tool.__annotations__.update(a=make("x"), b=make("y"), c=model)
    schema = bound(tool).input_schema
    assert len(schema["$defs"]) == 3
    assert bound(tool).parse({"a": {"x": 1}, "b": {"y": 2}, "c": {"z": 3}}).values[2].z == 3
    jsonschema.validate({"a": {"x": 1}, "b": {"y": 2}, "c": {"z": 3}}, schema)


def test_defaults_are_shown_where_json_can_hold_them() -> None:
    def tool(
        a: Unit = Unit.CELSIUS,
        b: Place = HERE,
        c: float = float("nan"),
        d: Any = SENTINEL,
        e: datetime.date = datetime.date(2030, 1, 31),
        f: Path = Path("/srv"),
        g: tuple[int, ...] = (1, 2),
    ) -> None: ...

    shown = {name: one.get("default", "none") for name, one in properties(tool).items()}
    assert shown == {
        "a": "c",
        "b": {"lat": 1.0, "lon": 2.0, "tags": []},
        "c": "none",
        "d": "none",
        "e": "2030-01-31",
        "f": "/srv",
        "g": [1, 2],
    }


def test_constraints_of_annotated_types_hold_in_both_engines() -> None:
    def tool(
        a: Annotated[int, annotated_types.Ge(1), annotated_types.Lt(5)],
        b: Annotated[list[int], annotated_types.Len(0, 2)],
        c: Annotated[int, annotated_types.Interval(gt=0, le=3)],
        d: Annotated[str, annotated_types.Predicate(str.islower)] = "x",
        e: Annotated[int, annotated_types.Ge(1), pydantic.Field(description="both")] = 1,
    ) -> None: ...

    found = properties(tool)
    assert found["a"] == {"type": "integer", "minimum": 1, "exclusiveMaximum": 5}
    assert found["b"] == {"type": "array", "items": INT, "maxItems": 2}
    assert found["c"] == {"type": "integer", "exclusiveMinimum": 0, "maximum": 3}
    assert found["e"]["minimum"] == 1
    told = faults(tool, {"a": 0, "b": [1, 2, 3], "c": 0, "d": "LOUD", "e": 0})
    assert [path for path, _ in told] == ["a", "b", "c", "e", "d"]


Tree = TypeAliasType("Tree", "list[Tree] | int")


def test_named_aliases_are_written_out_and_recursive_ones_go_to_pydantic() -> None:
    def tool(x: Names, y: dict[str, Names], z: Tree = 0) -> Any:
        return x, y, z

    assert properties(tool)["y"]["additionalProperties"] == {"type": "array", "items": STR}
    assert run(tool, {"x": ["a"], "y": {}, "z": [1, [2, [3]]]}) == (["a"], {}, [1, [2, [3]]])
    assert faults(tool, {"x": [1], "y": {}, "z": [1, ["a"]]})[0][0] == "x[0]"


# --- what is left out -------------------------------------------------------------------------


def test_the_context_is_passed_wherever_it_stands_and_never_published() -> None:
    def first(ctx: Context, a: int) -> Any:
        return ctx, a

    def middle(a: int, ctx: Context | None, b: int = 2) -> Any:
        return a, ctx, b

    def by_keyword(a: int, *, b: int = 3, ctx: Annotated[Narrow, "mine"]) -> Any:
        return a, b, ctx

    assert run(first, {"a": 1}, "C") == ("C", 1)
    assert run(middle, {"a": 1}, "C") == (1, "C", 2)
    assert run(by_keyword, {"a": 1}, "C") == (1, 3, "C")
    assert list(properties(by_keyword)) == ["a", "b"]
    assert bound(middle).context_parameter == "ctx"


def test_the_context_may_stand_among_positional_and_keyword_parameters() -> None:
    def tool(a: int, ctx: Context, b: int, *, c: int = 3) -> Any:
        return a, ctx, b, c

    assert run(tool, {"a": 1, "b": 2}, "C") == (1, "C", 2, 3)


def test_a_context_imported_for_the_type_checker_only_is_known_by_its_name() -> None:
    class Local:
        pass

    Local.__name__ = "Elsewhere"

    def tool(a: int, ctx: Elsewhere | None = None) -> Any:
        return a, ctx

    binding = bind(tool, context_type=Local)
    assert list(binding.input_schema["properties"]) == ["a"]


def test_two_contexts_are_refused() -> None:
    def tool(a: Context, b: Context) -> None: ...

    with pytest.raises(Misconfigured, match="twice"):
        bound(tool)


def test_what_a_partial_has_fixed_is_the_authors_own() -> None:
    def query(key: str, text: str, limit: int = 5) -> Any:
        return key, text, limit

    fixed = functools.partial(query, key="s3cret")
    assert list(properties(fixed)) == ["text", "limit"]
    assert run(fixed, {"text": "x"}) == ("s3cret", "x", 5)
    assert run(functools.partial(query, "k"), {"text": "x"}) == ("k", "x", 5)
    assert bound(fixed).name == "query"


# --- what can be bound ------------------------------------------------------------------------


class Shop:
    """A shop."""

    def __init__(self) -> None:
        self.sold = 0

    def sell(self, count: int) -> int:
        """Sell some."""
        self.sold += count
        return self.sold

    async def __call__(self, count: int) -> str:
        """Ask."""
        return "yes"

    @classmethod
    def open(cls, door: str) -> str:
        return f"{cls.__name__} {door}"

    @staticmethod
    def price(of: str) -> int:
        return len(of)


def test_bound_methods_callables_class_and_static_methods_are_functions() -> None:
    shop = Shop()
    assert run(shop.sell, {"count": 2}) == 2
    assert run(Shop.open, {"door": "front"}) == "Shop front"
    assert run(Shop.price, {"of": "tea"}) == 3
    assert run(Shop.__dict__["price"], {"of": "tea"}) == 3
    assert bound(shop.sell).description == "Sell some."
    asked = bound(shop)
    assert (asked.name, asked.description, asked.is_async) == ("Shop", "Ask.", True)


def test_a_wrapped_function_keeps_its_signature() -> None:
    def timed(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return inner

    @timed
    def tool(place: Place, n: int = 1) -> Any:
        return place.lat, n

    assert run(tool, {"place": {"lat": 1, "lon": 2}}) == (1.0, 1)


def test_annotations_may_name_classes_that_are_local_to_the_defining_function() -> None:
    @dataclasses.dataclass
    class Local:
        a: int

    def tool(x: Local, more: list[Local]) -> Any:
        return x, more

    assert run(tool, {"x": {"a": 1}, "more": [{"a": 2}]}) == (Local(1), [Local(2)])


def test_positional_only_and_keyword_only_parameters_are_called_as_they_must() -> None:
    def tool(a: int, /, b: int, *, c: int = 3) -> Any:
        return a, b, c

    assert run(tool, {"c": 5, "b": 2, "a": 1}) == (1, 2, 5)


def test_parameters_may_have_any_name() -> None:
    def tool(self_: int, model_config: int, copy: int, a0: int, __x: int) -> Any:
        return self_, model_config, copy, a0, __x

    sent = {"self_": 1, "model_config": 2, "copy": 3, "a0": 4, "__x": 5}
    assert run(tool, sent) == (1, 2, 3, 4, 5)


def stars(*args: int) -> None: ...
def keywords(**kwargs: int) -> None: ...
def generator() -> Any:
    yield 1


async def stream() -> Any:
    yield 1


class Opaque:
    pass


def two_of_one_name(
    a: Annotated[int, pydantic.Field(alias="b")], b: Annotated[int, pydantic.Field(alias="b")]
) -> None: ...
def bad_type(x: int) -> None: ...
def bad_syntax(x: "list[") -> None: ...  # type: ignore[valid-type]  # noqa: F722
def recursive_alias(x: list[Opaque2]) -> None: ...


bad_type.__annotations__["x"] = "1 + None"


class Opaque2:
    """pydantic knows it, but has no JSON form for it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return pydantic_core.core_schema.is_instance_schema(cls)


def opaque(x: Opaque) -> None: ...
def opaque_inside(x: list[Opaque]) -> None: ...
def unresolved(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


def mixed_libraries(x: list[Circle | MyModel]) -> None: ...


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (stars, r"\*args"),
        (keywords, r"\*\*kwargs"),
        (generator, "generator"),
        (stream, "generator"),
        (opaque, "'x'.*Opaque"),
        (two_of_one_name, "'b'"),
        (bad_type, "'x'"),
        (bad_syntax, "'x'"),
        (recursive_alias, "'x'"),
        (msgspec.Struct.__getattribute__, "cannot be read|object"),
        (opaque_inside, "'x'.*Opaque"),
        (unresolved, "'x'.*Nowhere"),
        (mixed_libraries, "'x'"),
        (Shop.sell, "object.sell"),
        (Shop.__dict__["open"], "Class.method"),
        (lambda a: a, "name="),
        (Shop, "no function"),
        (3, "no function"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_with_the_reason(fn: Any, says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        bound(fn)


# --- reading calls ----------------------------------------------------------------------------


def test_arguments_are_read_from_text_raw_text_a_dict_or_nothing() -> None:
    def tool(a: int = 1) -> int:
        return a

    assert run(tool, b'{"a":2}') == 2
    assert run(tool, msgspec.Raw(b'{"a":2}')) == 2
    assert run(tool, {"a": 2}) == 2
    for nothing in (None, b"", msgspec.Raw(b""), b"null", b" {} "):
        assert run(tool, nothing) == 1


def test_values_arrive_as_the_types_of_the_signature() -> None:
    def tool(
        place: Place,
        unit: Unit,
        when: datetime.datetime,
        amount: decimal.Decimal,
        data: bytes,
        where: Path,
        shape: Circle | Box,
        dish: Dish,
        pair: Pair,
        ids: set[int],
    ) -> Any:
        return place, unit, when, amount, data, where, shape, dish, pair, ids

    read = run(
        tool,
        {
            "place": {"lat": 1, "lon": 2},
            "unit": "f",
            "when": "2030-01-31T09:30:00Z",
            "amount": "1.10",
            "data": "YWJj",
            "where": "/srv",
            "shape": {"kind": "box", "area": 2.0},
            "dish": {"name": "soup"},
            "pair": [1],
            "ids": [1, 1, 2],
        },
    )
    assert read == (
        Place(1.0, 2.0),
        Unit.FAHRENHEIT,
        datetime.datetime(2030, 1, 31, 9, 30, tzinfo=datetime.UTC),
        decimal.Decimal("1.10"),
        b"abc",
        Path("/srv"),
        Box(area=2.0),
        Dish("soup"),
        Pair(1),
        {1, 2},
    )


def test_a_call_cannot_change_the_default_of_the_next() -> None:
    def tool(items: list[int] = [], more: dict[str, int] = {}) -> Any:  # noqa: B006
        items.append(1)
        more["a"] = 1
        return items, more

    assert run(tool, {}) == ([1], {"a": 1})
    assert run(tool, {}) == ([1], {"a": 1})


def test_none_as_a_default_changes_nothing_where_none_is_a_value_already() -> None:
    def tool(
        a: Any = None,
        b: Literal["x", None] = None,
        c: None = None,
        d: Annotated[int | None, "said"] = None,
    ) -> Any:
        return a, b, c, d

    found = properties(tool)
    assert found["a"] == {"default": None}
    assert found["b"] == {"enum": ["x", None], "default": None}
    assert found["c"] == {"type": "null", "default": None}
    assert found["d"]["anyOf"] == [INT, {"type": "null"}]


def test_an_object_is_any_json_value() -> None:
    def tool(x: object, y: list[object]) -> Any:
        return x, y

    assert run(tool, {"x": {"a": [1]}, "y": [None, "b"]}) == ({"a": [1]}, [None, "b"])


class Flat(msgspec.Struct, array_like=True, tag="flat"):
    x: int
    y: int = 2


def test_a_struct_that_travels_as_an_array_is_described_as_one() -> None:
    def tool(x: Flat) -> Any:
        return x

    assert bound(tool).input_schema["$defs"]["Flat"] == {
        "type": "array",
        "prefixItems": [{**STR, "enum": ["flat"]}, INT, {**INT, "default": 2}],
        "minItems": 2,
        "maxItems": 3,
    }
    assert run(tool, {"x": ["flat", 1]}) == Flat(1)


def test_a_path_is_read_from_text_only() -> None:
    def tool(x: Path | int) -> Any:
        return x

    assert faults(tool, {"x": [1]}) == [("x", "a path or an integer")]


def test_none_as_a_default_makes_a_parameter_optional() -> None:
    def tool(n: int = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return n

    assert properties(tool)["n"] == {"anyOf": [INT, {"type": "null"}], "default": None}
    assert run(tool, {"n": None}) is None


def test_nothing_is_coerced() -> None:
    def tool(a: int, b: str, c: bool, d: float) -> None: ...

    told = faults(tool, {"a": True, "b": 3, "c": 1, "d": "x"})
    assert told == [
        ("a", "an integer"),
        ("b", "a string"),
        ("c", "true or false"),
        ("d", "a number"),
    ]


def test_a_whole_float_is_an_integer() -> None:
    def tool(a: int, b: list[int]) -> Any:
        return a, b

    binding = bound(tool)
    call = binding.parse(b'{"a":3.0,"b":[1e2]}')
    assert call.values == (3, [100])
    assert [type(call.values[0]), call.repairs] == [int, ()]


def test_json_text_in_a_string_is_read_and_reported() -> None:
    def tool(items: list[int], place: Place, n: int, text: str) -> None: ...

    call = bound(tool).parse(
        {"items": "[1, 2]", "place": '{"lat": 1, "lon": "2.5"}', "n": "3", "text": "[4]"}
    )
    assert call.values == ([1, 2], Place(1.0, 2.5), 3, "[4]")
    assert [one.path for one in call.repairs] == ["items", "place", "place.lon", "n"]


def test_all_arguments_as_one_json_text_are_read() -> None:
    def tool(a: int) -> None: ...

    call = bound(tool).parse(b'"{\\"a\\": 1}"')
    assert call.values == (1,)
    assert call.repairs[0].path == ""


@duty("tools.inputs-validated")
def test_every_fault_is_told_at_once() -> None:
    def tool(
        city: str,
        days: Annotated[int, msgspec.Meta(le=10)],
        unit: Unit,
        place: Place,
        when: datetime.date,
    ) -> None: ...

    told = faults(
        tool,
        {"ctiy": "x", "days": 99, "unit": "k", "place": {"lat": "a"}, "when": "soon"},
    )
    assert [path for path, _ in told] == [
        "days",
        "unit",
        "place.lat",
        "place.lon",
        "when",
        "ctiy",
        "city",
    ]


def test_the_text_of_a_refusal_is_written_for_a_model() -> None:
    def forecast(city: str, days: int = 3) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        bound(forecast).parse({"ctiy": "Paris", "days": None})
    assert str(caught.value) == (
        "invalid arguments for forecast:\n"
        "- days: expected an integer, got null (leave it out to use the default, 3)\n"
        "- ctiy: expected no argument of this name, got \"Paris\" (did you mean 'city'?)\n"
        "- city: expected a string, got nothing (was it sent as 'ctiy'?)"
    )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"{", "a JSON object"),
        (b"\xff", "a JSON object"),
        (b'{"a":NaN}', "a JSON object"),
        (b"[" * 100_000, "fewer levels of nesting"),
        (b'{"a":' + b"[" * 100_000, "fewer levels of nesting"),
        (b"[1]", "an object with a"),
        (b"3", "an object with a"),
    ],
)
def test_what_is_no_object_is_refused(raw: bytes, expected: str) -> None:
    def tool(a: int) -> None: ...

    assert faults(tool, raw) == [("", expected)]


@pytest.mark.parametrize(
    ("annotation", "sent", "expected"),
    [
        (datetime.datetime, "soon", "a date and time"),
        (datetime.time, "25:00", "a time"),
        (datetime.timedelta, "1 day", "a duration"),
        (uuid.UUID, "x", "a UUID"),
        (bytes, "a", "base64 text"),
        (list[datetime.date], ["x"], "a date"),
    ],
)
def test_a_text_of_the_wrong_form_is_told_its_form(
    annotation: Any, sent: Any, expected: str
) -> None:
    def tool(x: Any) -> None: ...

    tool.__annotations__["x"] = annotation
    ((path, told),) = faults(tool, {"x": sent})
    assert told == expected
    assert path.startswith("x")


@dataclasses.dataclass
class Span:
    start: int
    end: int

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise ValueError("the end is before the start")


def test_a_records_own_check_is_a_fault_beside_the_others() -> None:
    def tool(spans: list[Span], n: int) -> None: ...

    told = faults(tool, {"spans": [{"start": 1, "end": 2}, {"start": 2, "end": 1}], "n": "x"})
    assert told == [
        ("n", "an integer"),
        ("spans[1]", "a value that fits (the end is before the start)"),
    ]


def test_a_dict_that_holds_no_json_is_refused() -> None:
    def tool(a: Any) -> None: ...

    loop: list[Any] = []
    loop.append(loop)
    for value in (object(), "\ud800", loop):
        ((path, expected),) = faults(tool, {"a": value})
        assert (path, expected) == ("", "JSON values")


def test_a_fault_deep_inside_is_shown_by_its_own_value() -> None:
    def tool(spans: dict[str, list[Span]]) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        bound(tool).parse({"spans": {"a": [{"start": 2, "end": 1}]}})
    (fault,) = caught.value.faults
    assert fault.got in ("an object with start, end", "an object with a")


def test_a_million_wrong_values_are_refused_in_bounded_work() -> None:
    def tool(x: list[int]) -> None: ...

    # All right but the last: the explaining walk gives up before it, and still the call is refused.
    assert faults(tool, {"x": [1] * (2 * MAX_STEPS) + ["a"]})


# --- pydantic ---------------------------------------------------------------------------------


class MyModel(pydantic.BaseModel):
    """A model."""

    a: int = pydantic.Field(ge=1, description="an a")
    kids: list[MyModel] = []

    @pydantic.field_validator("a")
    @classmethod
    def not_seven(cls, value: int) -> int:
        if value == 7:
            raise ValueError("seven is taken")
        return value


def with_model(
    m: MyModel,
    n: int = pydantic.Field(3, ge=1, description="count"),
    who: Annotated[str, pydantic.Field(alias="from")] = "me",
    plain: Place | None = None,
    made: list[int] = pydantic.Field(default_factory=list),  # noqa: B008
) -> Any:
    return m, n, who, plain, made


def test_models_and_fields_stand_beside_plain_types() -> None:
    schema = bound(with_model).input_schema
    assert schema["$defs"]["MyModel"] == {
        "description": "A model.",
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 1, "description": "an a"},
            "kids": {"type": "array", "items": {"$ref": "#/$defs/MyModel"}, "default": []},
        },
        "required": ["a"],
    }
    assert schema["properties"]["n"] == {
        "type": "integer",
        "minimum": 1,
        "description": "count",
        "default": 3,
    }
    assert list(schema["properties"]) == ["m", "n", "from", "plain", "made"]
    assert run(with_model, {"m": {"a": 1}, "from": "you"}) == (MyModel(a=1), 3, "you", None, [])


def test_a_default_that_pydantic_cannot_write_is_not_shown() -> None:
    def tool(m: MyModel = SENTINEL) -> Any:  # type: ignore[assignment]
        return m

    assert "default" not in properties(tool)["m"]
    assert run(tool, {}) is SENTINEL


def test_patterned_keys_are_described_alike_by_both_engines() -> None:
    keys = Annotated[str, msgspec.Meta(pattern="^a")]

    def tool(a: dict[keys, int], b: Annotated[dict[keys, int], pydantic.Field()]) -> None: ...

    found = properties(tool)
    assert found["a"] == found["b"]
    assert [path for path, _ in faults(tool, {"a": {"b": 1}, "b": {"b": 1}})] == ["a.b", "b.b"]


def test_a_factory_makes_each_call_its_own_default() -> None:
    first, second = (run(with_model, {"m": {"a": 1}})[4] for _ in range(2))
    assert first == second == []
    assert first is not second


def test_faults_of_models_and_of_plain_types_come_together() -> None:
    told = faults(
        with_model,
        {"m": {"a": 0, "kids": [{"a": "x"}]}, "n": 0, "plain": {"lat": 1}, "form": "you"},
    )
    assert [path for path, _ in told] == ["m.a", "m.kids[0].a", "n", "plain.lon", "form"]


def test_a_validator_of_the_users_speaks_for_itself() -> None:
    assert faults(with_model, {"m": {"a": 1, "kids": [{"a": 7}]}}) == [
        ("m.kids[0].a", "a valid value (seven is taken)")
    ]


def test_json_text_is_mended_for_models_too() -> None:
    call = bound(with_model).parse({"m": '{"a": "2"}'})
    assert call.values[0] == MyModel(a=2)
    assert [one.path for one in call.repairs] == ["m", "m.a"]


def test_a_union_that_msgspec_refuses_goes_to_pydantic() -> None:
    def tool(x: Place | Dish2 | int, y: str | datetime.date = "now") -> Any:
        return x, y

    assert run(tool, {"x": {"lat": 1, "lon": 2}}) == (Place(1.0, 2.0), "now")
    assert run(tool, {"x": {"dish": "soup"}}) == (Dish2("soup"), "now")
    assert run(tool, {"x": 3}) == (3, "now")


@dataclasses.dataclass
class Dish2:
    dish: str


def test_metadata_of_msgspec_holds_under_pydantic_and_the_other_way_round() -> None:
    def tool(
        x: Annotated[str | datetime.date, msgspec.Meta(description="either")],
        y: Annotated[int, msgspec.Meta(ge=2), pydantic.Field(le=5)] = 3,
    ) -> None: ...

    found = properties(tool)
    assert found["x"]["description"] == "either"
    assert (found["y"]["minimum"], found["y"]["maximum"]) == (2, 5)
    assert [path for path, _ in faults(tool, {"x": "a", "y": 1})] == ["y"]
    assert [path for path, _ in faults(tool, {"x": "a", "y": 6})] == ["y"]


def in_a_fresh_interpreter(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_plain_signatures_never_import_pydantic() -> None:
    told = in_a_fresh_interpreter(
        """
        import sys, dataclasses, msgspec
        from typing import Annotated
        from dragoman.server.binding import bind
        @dataclasses.dataclass
        class P: x: int
        def f(a: int, b: list[P], c: Annotated[str, msgspec.Meta(min_length=1)] = "x") -> P: ...
        print(bind(f, context_type=type("C", (), {})).parse({"a": 1, "b": []}).values)
        print([name for name in sys.modules if name.startswith(("pydantic", "attr", "jsonschema"))])
        """
    )
    assert told.splitlines() == ["(1, [], 'x')", "[]"]


def test_without_pydantic_a_refused_union_names_the_remedy() -> None:
    told = in_a_fresh_interpreter(
        """
        import sys, datetime, importlib.util
        real = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name == "pydantic" else real(name, *a)
        from dragoman.errors import MissingExtra
        from dragoman.server.binding import bind
        def f(a: str | datetime.date): ...
        try:
            bind(f, context_type=type("C", (), {}))
        except MissingExtra as error:
            print(error.extra, "'a'" in str(error), error.install)
        """
    )
    assert told == "pydantic True pip install 'dragoman[pydantic]'"
    assert issubclass(MissingExtra, Misconfigured)


# --- what comes back --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "wraps", "schema"),
    [
        (int, True, INT),
        (str, True, STR),
        (list[int], True, {"type": "array", "items": INT}),
        (int | None, True, {"anyOf": [INT, {"type": "null"}]}),
        (dict[str, int], False, {"type": "object", "additionalProperties": INT}),
        (
            Part,
            False,
            {
                "description": "Some members.",
                "type": "object",
                "properties": {"a": INT, "b": STR},
                "required": ["a"],
            },
        ),
        (
            Dish,
            False,
            {
                "type": "object",
                "properties": {"name": STR, "hot": {"type": "boolean"}},
                "required": ["name", "hot"],
            },
        ),
    ],
)
def test_a_return_annotation_becomes_an_output_schema(
    returns: Any, wraps: bool, schema: dict[str, Any]
) -> None:
    def tool() -> Any: ...

    tool.__annotations__["return"] = returns
    binding = bound(tool)
    assert binding.wraps_output is wraps
    assert binding.output_schema is not None
    jsonschema.Draft202012Validator.check_schema(binding.output_schema)
    if wraps:
        assert binding.output_schema == {
            "type": "object",
            "properties": {"result": schema},
            "required": ["result"],
        }
    else:
        assert binding.output_schema == schema


@pytest.mark.parametrize(
    "returns",
    [
        None,
        Any,
        object,
        bytes,
        Image,
        TextContent,
        CallToolResult,
        list[TextContent | ImageContent],
        str | Image,
        list[bytes],
        Opaque,
    ],
)
def test_content_and_unknown_types_promise_no_structure(returns: Any) -> None:
    def tool() -> Any: ...

    tool.__annotations__["return"] = returns
    assert bound(tool).output_schema is None


def test_a_recursive_record_is_published_with_its_definition() -> None:
    def tool() -> MyModel:
        raise NotImplementedError

    schema = bound(tool).output_schema
    assert schema is not None
    assert schema["type"] == "object"
    assert schema["$defs"]["MyModel"]["properties"]["kids"]["items"] == {"$ref": "#/$defs/MyModel"}


# --- prompts and resources --------------------------------------------------------------------


def plan(
    city: str,
    days: Annotated[int, "how long"] = 3,
    unit: Unit = Unit.CELSIUS,
    stops: list[str] | None = None,
    when: datetime.date | None = None,
    model: MyModel | None = None,
    ctx: Context | None = None,
) -> Any:
    """Plan a trip.

    Args:
        city: where to
    """
    return city, days, unit, stops, when, model


def test_a_prompt_lists_its_arguments() -> None:
    listed = bind_prompt(plan, context_type=Context).prompt_arguments
    assert [(one.name, one.description, one.required) for one in listed[:3]] == [
        ("city", "where to", True),
        ("days", "how long (an integer)", False),
        ("unit", 'How warmth is counted. (one of "c", "f")', False),
    ]
    assert len(listed) == 6


def test_a_prompts_arguments_are_read_from_text() -> None:
    prompt = bind_prompt(plan, context_type=Context)
    call = prompt.parse(
        {
            "city": "3",
            "days": "5",
            "unit": "f",
            "stops": '["Lyon", "Nice"]',
            "when": "2030-01-31",
            "model": '{"a": 2}',
        }
    )
    assert prompt.call(call) == (
        "3",
        5,
        Unit.FAHRENHEIT,
        ["Lyon", "Nice"],
        datetime.date(2030, 1, 31),
        MyModel(a=2),
    )


@duty("prompts.missing-argument", "prompts.validated", "prompts.safe")
def test_every_fault_of_a_prompts_arguments_is_told() -> None:
    with pytest.raises(InvalidArguments) as caught:
        bind_prompt(plan, context_type=Context).parse({"ctiy": "x", "days": "many", "unit": "k"})
    assert [fault.path for fault in caught.value.faults] == ["ctiy", "city", "days", "unit"]
    assert caught.value.code == -32602


def test_text_stays_text_where_text_is_allowed() -> None:
    def prompt(a: str | int, b: Any, c: bool, d: float, e: Literal["x", "y"]) -> Any:
        return a, b, c, d, e

    found = bind_prompt(prompt, context_type=Context)
    call = found.parse({"a": "3", "b": "3", "c": "true", "d": "2", "e": "y"})
    assert found.call(call) == ("3", "3", True, 2.0, "y")


def test_a_resource_takes_the_variables_of_its_template() -> None:
    def read(city: str, day: int = 1, *, tags: list[int] = [], ctx: Context) -> Any:  # noqa: B006
        return city, day, tags, ctx

    resource = bind_resource(read, ["city", "tags"], context_type=Context)
    assert resource.variables == ("city", "tags")
    call = resource.parse({"city": "Paris", "tags": ["1", "2"]})
    assert resource.call(call, "C") == ("Paris", 1, [1, 2], "C")
    with pytest.raises(InvalidArguments):
        resource.parse({"city": ["a"]})


def test_models_in_prompts_and_resources_are_read_from_text() -> None:
    def read(m: MyModel, n: Annotated[int, pydantic.Field(ge=1)], u: str | uuid.UUID) -> Any:
        return m, n, u

    resource = bind_resource(read, ["m", "n", "u"], context_type=Context)
    call = resource.parse({"m": '{"a": 3}', "n": "2", "u": "x"})
    assert resource.call(call) == (MyModel(a=3), 2, "x")
    with pytest.raises(InvalidArguments) as caught:
        resource.parse({"m": '{"a": 0}', "n": ["2"], "u": "x"})
    assert [fault.path for fault in caught.value.faults] == ["m", "n"]


def test_variables_and_parameters_must_agree() -> None:
    def read(city: str) -> None: ...

    with pytest.raises(Misconfigured, match="rename the parameter 'city'"):
        bind_resource(read, ["cityy"], context_type=Context)
    with pytest.raises(Misconfigured, match="add the parameter"):
        bind_resource(read, ["city", "zone"], context_type=Context)
    with pytest.raises(Misconfigured, match=r"'city'.*not in its URI template"):
        bind_resource(read, [], context_type=Context)
