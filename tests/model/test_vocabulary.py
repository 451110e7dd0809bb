"""The helpers of single records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from dragoman.jsonrpc.codec import encode_value
from dragoman.model.base import Annotations
from dragoman.model.content import (
    AudioContent,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    SamplingBlock,
    TextContent,
    ToolUseContent,
)
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.logging import LEVELS
from dragoman.model.resources import ReadResourceResult
from dragoman.model.sampling import CreateMessageResult, SamplingMessage
from dragoman.model.tools import CallToolParams, Tool, ToolAnnotations

OBJECT = {"type": "object"}


# --- content ------------------------------------------------------------------------------------


def test_bytes_are_encoded_on_the_way_in() -> None:
    assert ImageContent.of(b"\x00\xff").data == "AP8="
    assert ImageContent.of(b"").mime_type == "image/png"
    assert AudioContent.of(b"a", "audio/mp3") == AudioContent(data="YQ==", mime_type="audio/mp3")
    part = ResourceContents.of("a:b", b"\x00\xff", "image/png")
    assert part == ResourceContents(uri="a:b", blob="AP8=", mime_type="image/png")
    assert part.data == b"\x00\xff"


def test_the_bytes_of_a_text_are_utf8() -> None:
    assert ResourceContents(uri="a:b", text="é").data == b"\xc3\xa9"
    assert ResourceContents(uri="a:b", text="").data == b""


@pytest.mark.parametrize("members", [{}, {"text": "", "blob": ""}])
def test_contents_are_text_or_bytes(members: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        ResourceContents(uri="a:b", **members)  # type: ignore[arg-type]


def test_an_empty_text_is_a_text() -> None:
    read = msgspec.json.decode(b'{"uri":"a:b","text":""}', type=ResourceContents)
    assert read.text == ""
    assert encode_value(read) == b'{"uri":"a:b","text":""}'


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"type":"text","text":"x"}', TextContent),
        (b'{"type":"image","data":"","mimeType":"image/png"}', ImageContent),
        (b'{"type":"audio","data":"","mimeType":"audio/wav"}', AudioContent),
        (b'{"type":"resource","resource":{"uri":"a:b","text":""}}', EmbeddedResource),
        (b'{"type":"resource_link","uri":"a:b","name":"n"}', ResourceLink),
    ],
)
def test_a_block_is_known_by_its_type(raw: bytes, kind: type[ContentBlock]) -> None:
    assert isinstance(msgspec.json.decode(raw, type=ContentBlock), kind)


@pytest.mark.parametrize("raw", [b'{"text":"x"}', b'{"type":"hologram"}', b'{"type":"tool_use"}'])
def test_a_block_of_no_known_type_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=ContentBlock)


def test_tool_traffic_belongs_to_sampling_only() -> None:
    raw = b'{"type":"tool_use","id":"1","name":"n","input":{}}'
    assert isinstance(msgspec.json.decode(raw, type=SamplingBlock), ToolUseContent)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=ContentBlock)


def test_a_sampling_message_holds_a_block_or_several() -> None:
    one = b'{"role":"user","content":{"type":"text","text":"x"}}'
    many = b'{"role":"user","content":[{"type":"text","text":"x"}]}'
    assert msgspec.json.decode(one, type=SamplingMessage).content == TextContent(text="x")
    assert msgspec.json.decode(many, type=SamplingMessage).content == [TextContent(text="x")]
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(one.replace(b"user", b"system"), type=SamplingMessage)


def test_the_text_of_a_result_is_its_text_blocks() -> None:
    picture = ImageContent.of(b"")
    said = CreateMessageResult(
        role="assistant", model="m", content=[TextContent(text="a"), picture, TextContent(text="b")]
    )
    assert said.text == "ab"
    assert CreateMessageResult(role="assistant", model="m", content=picture).text == ""
    parts = [ResourceContents(uri="a:1", text="x"), ResourceContents.of("a:2", b"")]
    assert ReadResourceResult(contents=[*parts, parts[0]]).text == "x\nx"


# --- annotations --------------------------------------------------------------------------------


def test_an_instant_is_written_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    given = Annotations(last_modified=datetime(2030, 1, 31, 12, 0, tzinfo=east))  # type: ignore[arg-type]
    assert given.last_modified == "2030-01-31T10:00:00Z"
    precise = Annotations(last_modified=datetime(2030, 1, 31, 1, 2, 3, 4, tzinfo=UTC))  # type: ignore[arg-type]
    assert precise.last_modified == "2030-01-31T01:02:03.000004Z"
    assert Annotations(last_modified="yesterday").last_modified == "yesterday"


# --- tools --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", [b'{"name":"x"}', b'{"name":"x","arguments":null}', b'{"name":"x","arguments":{}}']
)
def test_no_arguments_are_an_empty_object(raw: bytes) -> None:
    assert msgspec.json.decode(raw, type=CallToolParams).arguments == {}


def test_arguments_are_written_as_they_were_given() -> None:
    assert encode_value(CallToolParams.of("x")) == b'{"name":"x"}'
    assert encode_value(CallToolParams.of("x", {})) == b'{"name":"x","arguments":{}}'
    call = CallToolParams.of("x", {"a": [1.5, None]}, {"k": 1})
    assert encode_value(call) == b'{"name":"x","arguments":{"a":[1.5,null]},"_meta":{"k":1}}'
    assert call.arguments == {"a": [1.5, None]}


def test_arguments_that_are_no_object_are_refused_when_they_are_read() -> None:
    call = msgspec.json.decode(b'{"name":"x","arguments":[1]}', type=CallToolParams)
    with pytest.raises(msgspec.ValidationError):
        call.arguments


def test_a_person_sees_the_title_wherever_it_stands() -> None:
    hint = ToolAnnotations(title="Hint")
    assert Tool(name="n", input_schema=OBJECT).display_name == "n"
    assert Tool(name="n", input_schema=OBJECT, annotations=hint).display_name == "Hint"
    assert Tool(name="n", input_schema=OBJECT, annotations=hint, title="T").display_name == "T"
    assert Tool(name="n", input_schema=OBJECT, annotations=ToolAnnotations()).display_name == "n"


# --- elicitation, logging -----------------------------------------------------------------------


def test_a_question_is_a_form_unless_it_says_otherwise() -> None:
    assert ElicitParams(message="?", requested_schema=OBJECT).mode is None
    with pytest.raises(ValueError, match="requestedSchema"):
        ElicitParams(message="?")
    with pytest.raises(ValueError, match="requestedSchema"):
        ElicitParams(message="?", mode="form", url="https://x.example")
    with pytest.raises(ValueError, match="url"):
        ElicitParams(message="?", mode="url", requested_schema=OBJECT)
    with pytest.raises(msgspec.ValidationError, match="requestedSchema"):
        msgspec.json.decode(b'{"message":"?"}', type=ElicitParams)


@pytest.mark.parametrize("answer", ["x", 1, 1.5, True, ["a", "b"], None])
def test_an_answer_keeps_its_type(answer: object) -> None:
    raw = msgspec.json.encode({"action": "accept", "content": {"k": answer}})
    read = msgspec.json.decode(raw, type=ElicitResult)
    assert read.content is not None
    assert read.content["k"] == answer
    assert type(read.content["k"]) is type(answer)


def test_levels_are_those_of_the_rfc_in_their_order() -> None:
    assert list(LEVELS) == [
        "debug",
        "info",
        "notice",
        "warning",
        "error",
        "critical",
        "alert",
        "emergency",
    ]
    assert list(LEVELS.values()) == list(range(8))


def endless() -> list[object]:
    made: list[object] = []
    made.append(made)
    return made


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800", endless(), {(1, 2): 3}])
def test_arguments_that_json_cannot_hold_are_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        CallToolParams.of("tool", {"value": value})
