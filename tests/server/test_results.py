"""What a handler returned, as content blocks and structured content."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import jsonschema
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.model.base import Annotations
from dragoman.model.content import (
    AudioContent,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    TextContent,
)
from dragoman.model.tools import CallToolResult
from dragoman.server.binding import bind
from dragoman.server.results import Audio, File, Image, to_result
from tests.requirements.duties import duty

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
WAV = b"RIFF\x24\0\0\0WAVEfmt "


class Context:
    """Stands for the server's."""


def returned(value: Any, annotation: Any) -> CallToolResult:
    """The result of a tool that is annotated so and returned that."""

    def tool() -> Any: ...

    tool.__annotations__["return"] = annotation
    binding = bind(tool, context_type=Context)
    result = binding.to_result(value)
    if binding.output_schema is not None:
        jsonschema.validate(result.structured_content, binding.output_schema)
    return result


def text(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


@dataclasses.dataclass
class Forecast:
    city: str
    high: float
    day: datetime.date = datetime.date(2030, 1, 31)


class Row(TypedDict):
    n: int


class Point(msgspec.Struct):
    x: int


class Model(pydantic.BaseModel):
    a: int
    when: datetime.date | None = None


# --- content ----------------------------------------------------------------------------------


def test_text_is_text_and_nothing_is_no_content() -> None:
    assert to_result("hello") == CallToolResult(content=[TextContent(text="hello")])
    assert to_result(None) == CallToolResult(content=[])
    assert returned(None, None) == CallToolResult(content=[])


def test_a_finished_result_and_blocks_pass_through() -> None:
    ready = CallToolResult(content=[TextContent(text="no")], is_error=True)
    assert to_result(ready) is ready
    link = ResourceLink(uri="file:///a", name="a")
    assert to_result(link).content == [link]


def test_a_list_with_blocks_keeps_its_order() -> None:
    image = ImageContent.of(PNG)
    result = to_result(["first", image, Image(PNG), {"n": 1}, None, b"raw", Point(2)])
    assert [type(block) for block in result.content] == [
        TextContent,
        ImageContent,
        ImageContent,
        TextContent,
        EmbeddedResource,
        TextContent,
    ]
    assert [block.text for block in result.content if isinstance(block, TextContent)] == [
        "first",
        '{"n":1}',
        '{"x":2}',
    ]
    assert result.structured_content is None


@pytest.mark.parametrize(
    ("data", "block"),
    [
        (PNG, ImageContent),
        (b"\xff\xd8\xff\xe0", ImageContent),
        (b"RIFF\0\0\0\0WEBPVP8 ", ImageContent),
        (WAV, AudioContent),
        (b"fLaC\0", AudioContent),
        (b"anything", EmbeddedResource),
        (bytearray(b"x"), EmbeddedResource),
        (memoryview(PNG), ImageContent),
    ],
)
def test_bytes_become_what_they_look_like(data: Any, block: type) -> None:
    (made,) = to_result(data).content
    assert type(made) is block


@settings(max_examples=50)
@given(st.binary(max_size=50))
def test_bytes_of_any_kind_come_back_whole(data: bytes) -> None:
    (made,) = to_result(File(data)).content
    assert isinstance(made, EmbeddedResource)
    assert made.resource.data == data


def test_helpers_take_their_media_type_from_format_suffix_or_bytes(tmp_path: Path) -> None:
    (tmp_path / "chart.gif").write_bytes(b"GIF89a..")
    (tmp_path / "odd").write_bytes(b"\xff\xd8\xff..")
    assert Image(PNG).block().mime_type == "image/png"
    assert Image(b"?").block().mime_type == "image/png"
    assert Image(b"?", format="jpg").block().mime_type == "image/jpeg"
    assert Image(b"?", format="image/avif").block().mime_type == "image/avif"
    assert Image(b"?", format=".svg").block().mime_type == "image/svg+xml"
    assert Image(path=tmp_path / "chart.gif").block().mime_type == "image/gif"
    assert Image(path=str(tmp_path / "odd")).block().mime_type == "image/jpeg"
    assert Audio(WAV).block().mime_type == "audio/wav"
    assert Audio(b"?").block().mime_type == "audio/wav"
    assert Audio(b"?", format="mp3").block().mime_type == "audio/mpeg"
    assert base64.b64decode(Image(path=tmp_path / "odd").block().data) == b"\xff\xd8\xff.."


def test_a_file_travels_as_text_when_it_is_text(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("héllo", encoding="utf-8")
    block = File(path=path).block()
    assert block.resource == ResourceContents(
        uri="resource:///notes.txt", text="héllo", mime_type="text/plain"
    )
    assert File(b"\xff\xfe", format="txt").block().resource.blob is not None
    pdf = File(b"%PDF-1.7", name="paper.pdf", uri="paper://1").block().resource
    assert (pdf.uri, pdf.mime_type) == ("paper://1", "application/pdf")
    assert File(b"{}", format="json").block().resource.text == "{}"
    assert File(b"a,b", name="table.csv").block().resource.text == "a,b"
    assert File(b"?").block().resource.uri == "resource:///result.bin"


def test_helpers_keep_their_annotations() -> None:
    annotations = Annotations(audience=["user"], priority=1.0)
    assert Image(PNG, annotations=annotations).block().annotations == annotations
    assert Audio(WAV, annotations=annotations).block().annotations == annotations
    assert File(b"x", annotations=annotations).block().annotations == annotations


def test_resource_contents_are_embedded() -> None:
    contents = ResourceContents(uri="a://b", text="x", mime_type="text/plain")
    assert to_result(contents).content == [EmbeddedResource(resource=contents)]


@pytest.mark.parametrize("make", [Image, Audio, File])
def test_a_helper_needs_exactly_one_source(make: Callable[..., Any]) -> None:
    with pytest.raises(Misconfigured):
        make()
    with pytest.raises(Misconfigured):
        make(b"x", path="x")


def test_a_file_that_is_not_there_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        to_result(Image(path=tmp_path / "none.png"))


# --- data -------------------------------------------------------------------------------------


@duty("tools.structured.text")
@pytest.mark.parametrize(
    ("value", "annotation", "structured", "shown"),
    [
        (3, int, {"result": 3}, "3"),
        (True, bool, {"result": True}, "true"),
        (False, bool, {"result": False}, "false"),
        ("hi", str, {"result": "hi"}, "hi"),
        (1.5, float, {"result": 1.5}, "1.5"),
        (2, float, {"result": 2}, "2"),
        (None, int | None, {"result": None}, "null"),
        ([1, 2], list[int], {"result": [1, 2]}, "[1,2]"),
        ([{"n": 1}], list[Row], {"result": [{"n": 1}]}, '[{"n":1}]'),
        ({"n": 1}, Row, {"n": 1}, '{"n":1}'),
        ({"a": 1}, dict[str, int], {"a": 1}, '{"a":1}'),
        ({1: "a"}, dict[int, str], {"1": "a"}, '{"1":"a"}'),
        (Point(1), Point, {"x": 1}, '{"x":1}'),
        (Model(a=1), Model, {"a": 1, "when": None}, '{"a":1,"when":null}'),
        ({"a": 1}, Model, {"a": 1, "when": None}, '{"a":1,"when":null}'),
        (
            Forecast("Paris", 20.0),
            Forecast,
            {"city": "Paris", "high": 20.0, "day": "2030-01-31"},
            '{"city":"Paris","high":20.0,"day":"2030-01-31"}',
        ),
        (
            [Forecast("Paris", 20.0)],
            list[Forecast],
            {"result": [{"city": "Paris", "high": 20.0, "day": "2030-01-31"}]},
            '[{"city":"Paris","high":20.0,"day":"2030-01-31"}]',
        ),
        ([Model(a=1)], list[Model], {"result": [{"a": 1, "when": None}]}, '[{"a":1,"when":null}]'),
        (Path("/srv"), Path, {"result": "/srv"}, "/srv"),
    ],
)
def test_annotated_data_is_structured_and_told_in_text(
    value: Any, annotation: Any, structured: Any, shown: str
) -> None:
    result = returned(value, annotation)
    assert result.structured_content == structured
    assert text(result) == shown


@pytest.mark.parametrize(
    ("value", "structured", "shown"),
    [
        ({"a": 1}, {"a": 1}, '{"a":1}'),
        (Point(1), {"x": 1}, '{"x":1}'),
        (Model(a=1), {"a": 1, "when": None}, '{"a":1,"when":null}'),
        ([1, "a"], None, '[1,"a"]'),
        ([Model(a=1)], None, '[{"a":1,"when":null}]'),
        (3, None, "3"),
        ({"deep": [Path("/x")]}, {"deep": ["/x"]}, '{"deep":["/x"]}'),
    ],
)
def test_data_without_an_annotation_is_structured_when_it_is_an_object(
    value: Any, structured: Any, shown: str
) -> None:
    result = to_result(value)
    assert result.structured_content == structured
    assert text(result) == shown


@duty("tools.output.conforms")
@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("3", int),
        (True, int),
        (Forecast("Paris", "hot"), Forecast),  # type: ignore[arg-type]
        ({"city": "Paris"}, Forecast),
        ({"n": "1"}, Row),
        ([1, "2"], list[int]),
        ({"a": "x"}, Model),
        (None, Forecast),
        (math.nan, float),
        ([math.inf], list[float]),
        (Forecast("Paris", math.nan), Forecast),
    ],
)
def test_a_value_that_breaks_its_promise_is_the_authors_error(value: Any, annotation: Any) -> None:
    with pytest.raises(Misconfigured):
        returned(value, annotation)


@duty("tools.outputs-sanitized")
@pytest.mark.parametrize("value", [object(), {"a": object()}, [math.nan], {"a": {"b": -math.inf}}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(Misconfigured):
        to_result(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Misconfigured):
        to_result(loop)


def test_null_in_data_is_not_taken_for_nan() -> None:
    assert to_result({"a": None, "b": "null", "c": 1.5}).structured_content == {
        "a": None,
        "b": "null",
        "c": 1.5,
    }
