"""What the specification asks of the records: what they keep, refuse, and show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.model.base import Annotations, Icon, Implementation
from dragoman.model.capabilities import ClientCapabilities, ServerCapabilities
from dragoman.model.checks import (
    check_content,
    check_elicitation,
    check_sampling,
    check_sampling_result,
)
from dragoman.model.content import (
    AudioContent,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    SamplingBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.elicitation import ElicitParams
from dragoman.model.logging import LEVELS, LogMessageParams, SetLevelParams
from dragoman.model.methods import CATALOGUE
from dragoman.model.names import check_meta_keys, check_tool_name, check_uri
from dragoman.model.progress import CancelledParams, ProgressParams
from dragoman.model.prompts import Prompt
from dragoman.model.resources import ReadResourceResult, Resource, ResourceTemplate
from dragoman.model.roots import Root
from dragoman.model.sampling import (
    CreateMessageParams,
    CreateMessageResult,
    ModelPreferences,
    SamplingMessage,
)
from dragoman.model.tools import CallToolResult, Tool, ToolAnnotations
from tests.requirements.duties import duty

R = TypeVar("R")

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)

USE = ToolUseContent(id="u1", name="add", input={"a": 1})
OTHER_USE = ToolUseContent(id="u2", name="add", input={"a": 2})
RESULT = ToolResultContent(tool_use_id="u1", content=[TextContent(text="1")])
OTHER_RESULT = ToolResultContent(tool_use_id="u2", content=[TextContent(text="2")])
TEXT = TextContent(text="hello")


def again(value: R) -> R:
    """The value, written and read."""
    return msgspec.json.decode(msgspec.json.encode(value), type=type(value))


def read(kind: type[R], value: Any) -> R:
    return msgspec.json.decode(msgspec.json.encode(value), type=kind)


# --- names ----------------------------------------------------------------------------------------


@duty("tools.names.length", "tools.names.characters", "tools.names.no-spaces")
@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a,b", "é", "a/b", "a\n", "٣"])
def test_a_tool_name_is_1_to_128_ascii_letters_digits_and_three_signs(name: str) -> None:
    check_tool_name("x" * 128)
    check_tool_name("A1_b-c.d")
    with pytest.raises(ValueError, match="tool's name"):
        check_tool_name(name)


@duty("resources.custom-scheme")
@pytest.mark.parametrize("uri", ["", "notes", "/etc", "1x://a", "my_app:a", "x:a b", "x:é", "x:%z"])
def test_a_uri_follows_rfc_3986_whatever_its_scheme(uri: str) -> None:
    for fine in ("x-my.app+v2://host:1/p?q#f", "urn:a:%C3%A9", "note:7"):
        check_uri(fine)
    with pytest.raises(ValueError, match="URI"):
        check_uri(uri)


@duty("meta.key-names", "meta.reverse-dns")
@pytest.mark.parametrize("key", ["", "a b", "/x", "1a/x", "com..example/x", "-a/x", "a/b/c", "_x"])
def test_a_key_of_meta_is_a_name_with_or_without_a_prefix_of_labels(key: str) -> None:
    check_meta_keys(["trace", "com.example/trace-id", "a-b.c1/x.y_z", "progressToken"])
    with pytest.raises(ValueError, match="_meta"):
        check_meta_keys([key])


# --- _meta ----------------------------------------------------------------------------------------

WITH_META: set[type[Any]] = {
    record
    for method in CATALOGUE.values()
    for record in (method.params, method.result)
    if record is not None
}


@duty("meta.kept", "meta.reserved")
@pytest.mark.parametrize("record", sorted(WITH_META, key=str))
def test_every_request_notification_and_result_has_a_meta(record: type[Any]) -> None:
    fields = {field.name: field.encode_name for field in msgspec.structs.fields(record)}
    assert fields["meta"] == "_meta"


@duty("meta.kept", "meta.reserved")
@given(st.dictionaries(st.sampled_from(["x", "io.modelcontextprotocol/x", "a/b"]), JSON_VALUES))
def test_meta_is_kept_whatever_its_values_are(meta: dict[str, Any]) -> None:
    assert again(CallToolResult(content=[], meta=meta)).meta == meta


@duty("sampling.tools.meta-kept")
def test_meta_of_tool_uses_and_results_is_kept() -> None:
    use = ToolUseContent(id="u", name="n", input={}, meta={"example.com/k": [1]})
    done = ToolResultContent(tool_use_id="u", content=[], meta={"k": {"deep": None}})
    for block in (use, done):
        assert again(SamplingMessage(role="user", content=[block])).content == [block]


# --- annotations, icons, names for people ---------------------------------------------------------


@duty("annotations.last-modified")
@pytest.mark.parametrize(
    ("given", "written"),
    [
        (datetime(2025, 1, 12, 15, 0, 58, tzinfo=UTC), "2025-01-12T15:00:58Z"),
        (
            datetime(2025, 1, 12, 15, 0, 58, tzinfo=timezone(timedelta(hours=2))),
            "2025-01-12T13:00:58Z",
        ),
        ("2025-01-12T15:00:58Z", "2025-01-12T15:00:58Z"),
    ],
)
def test_a_time_is_written_as_iso_8601(given: Any, written: str) -> None:
    assert Annotations(last_modified=given).last_modified == written
    assert msgspec.to_builtins(Annotations(last_modified=given)) == {"lastModified": written}


@duty("annotations.last-modified")
def test_a_time_without_a_zone_is_local_time() -> None:
    naive: Any = datetime(2025, 1, 12, 15, 0, 58)
    written = Annotations(last_modified=naive).last_modified
    assert written is not None
    assert datetime.fromisoformat(written).astimezone().replace(tzinfo=None) == naive


NAMED = [
    Implementation(name="name", version="1"),
    Resource(uri="a:b", name="name"),
    ResourceTemplate(uri_template="a:{b}", name="name"),
    Prompt(name="name"),
    ResourceLink(uri="a:b", name="name"),
    Tool(name="name", input_schema={}),
]


@duty("icons.carried")
@pytest.mark.parametrize("record", NAMED, ids=lambda record: type(record).__name__)
def test_icons_are_kept_whole(record: Any) -> None:
    icons = [
        Icon(src="https://a.example/i.png", mime_type="image/png", sizes=["48x48", "any"]),
        Icon(src="data:image/svg+xml;base64,AA==", theme="dark"),
    ]
    assert again(msgspec.structs.replace(record, icons=icons)).icons == icons


@duty("names.display")
@pytest.mark.parametrize("record", NAMED, ids=lambda record: type(record).__name__)
def test_the_name_shown_to_people_is_the_title_or_else_the_name(record: Any) -> None:
    assert record.display_name == "name"
    assert msgspec.structs.replace(record, title="Title").display_name == "Title"


@duty("names.display")
def test_a_tool_without_a_title_shows_that_of_its_annotations() -> None:
    hinted = Tool(name="name", input_schema={}, annotations=ToolAnnotations(title="Hint"))
    assert hinted.display_name == "Hint"
    assert msgspec.structs.replace(hinted, title="Title").display_name == "Title"


@duty("tools.annotations.passed")
def test_annotations_of_a_tool_are_kept_whole() -> None:
    hints = ToolAnnotations(
        title="T",
        read_only_hint=True,
        destructive_hint=False,
        idempotent_hint=True,
        open_world_hint=False,
    )
    assert again(Tool(name="n", input_schema={}, annotations=hints)).annotations == hints


@duty("capabilities.open-set")
@pytest.mark.parametrize("kind", [ClientCapabilities, ServerCapabilities])
def test_unknown_capabilities_are_accepted_and_experimental_ones_can_be_read(
    kind: type[ClientCapabilities] | type[ServerCapabilities],
) -> None:
    capabilities = read(kind, {"experimental": {"x": {"y": 1}}, "teleport": {"range": 3}})
    assert capabilities.experimental == {"x": {"y": 1}}


# --- content --------------------------------------------------------------------------------------


def embedded(**members: Any) -> EmbeddedResource:
    return EmbeddedResource(resource=ResourceContents(**members))


@duty("prompts.image", "prompts.audio", "prompts.embedded.uri", "prompts.embedded.mime-type")
@pytest.mark.parametrize(
    "block",
    [
        TEXT,
        ImageContent.of(b"\x00\xff", "image/png"),
        AudioContent.of(b"", "audio/wav; codecs=1"),
        ResourceLink(uri="note:1", name="n"),
        embedded(uri="note://1", text="t", mime_type="text/plain"),
        embedded(uri="note://1", blob="AP8=", mime_type="application/vnd.x+json"),
    ],
    ids=lambda block: type(block).__name__,
)
def test_content_that_is_what_it_says_passes(block: ContentBlock) -> None:
    check_content(block)


@duty(
    "prompts.image",
    "prompts.audio",
    "prompts.embedded.uri",
    "prompts.embedded.mime-type",
    "prompts.embedded.data",
)
@pytest.mark.parametrize(
    ("block", "said"),
    [
        (ImageContent(data="no!", mime_type="image/png"), "base64"),
        (ImageContent(data="AA", mime_type="image/png"), "base64"),
        (AudioContent(data="é", mime_type="audio/wav"), "base64"),
        (ImageContent(data="", mime_type="png"), "media type"),
        (AudioContent(data="", mime_type=""), "media type"),
        (ResourceLink(uri="here", name="n"), "scheme"),
        (embedded(uri="no uri", text="t", mime_type="text/plain"), "scheme"),
        (embedded(uri="note://1", text="t"), "mime_type"),
        (embedded(uri="note://1", blob="no!", mime_type="image/png"), "base64"),
    ],
)
def test_content_that_is_not_what_it_says_is_refused(block: ContentBlock, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_content(block)


@duty("prompts.embedded.data")
@pytest.mark.parametrize("members", [{}, {"text": "t", "blob": "AA=="}])
def test_a_resource_holds_text_or_data_and_not_both(members: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        ResourceContents(uri="note://1", **members)


@duty("tools.embedded")
@given(st.binary(max_size=64))
def test_bytes_come_back_byte_for_byte(data: bytes) -> None:
    contents = ResourceContents.of("a:b", data, "application/x")
    assert again(ReadResourceResult(contents=[contents])).contents[0].data == data


@duty("tools.embedded", "tools.links")
def test_blocks_are_read_by_their_type() -> None:
    text, data, link = read(
        CallToolResult,
        {
            "content": [
                {"type": "resource", "resource": {"uri": "a:b", "text": "é"}},
                {"type": "resource", "resource": {"uri": "a:b", "blob": "AP8="}},
                {"type": "resource_link", "uri": "a:c", "name": "c", "size": 3, "novel": 1},
            ]
        },
    ).content
    assert isinstance(text, EmbeddedResource)
    assert text.resource.data == b"\xc3\xa9"
    assert isinstance(data, EmbeddedResource)
    assert data.resource.data == b"\x00\xff"
    assert isinstance(link, ResourceLink)
    assert link.uri == "a:c"
    with pytest.raises(msgspec.ValidationError, match="hologram"):
        read(CallToolResult, {"content": [{"type": "hologram"}]})


@duty("tools.errors.is-error-default")
def test_a_result_that_does_not_say_so_is_no_failure() -> None:
    assert read(CallToolResult, {"content": []}).is_error is False


# --- forms and URLs -------------------------------------------------------------------------------


def form(**fields: Any) -> ElicitParams:
    return ElicitParams(message="m", requested_schema={"type": "object", "properties": fields})


@duty("elicitation.flat", "elicitation.enums")
@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "minLength": 1, "format": "email"},
        {"type": "number"},
        {"type": "boolean", "default": True},
        {"type": "string", "enum": ["a"], "enumNames": ["A"]},
        {"type": "string", "oneOf": [{"const": "a", "title": "A"}]},
        {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
        {"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}},
    ],
)
def test_a_form_holds_plain_fields_and_choices(field: dict[str, Any]) -> None:
    check_elicitation(form(x=field))


@duty("elicitation.flat")
@pytest.mark.parametrize(
    "field",
    [
        {"type": "object", "properties": {}},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array"},
        {"type": "null"},
        {"type": ["string", "null"]},
        {"type": {}},
        {},
        True,
    ],
)
def test_a_form_holds_nothing_nested(field: Any) -> None:
    with pytest.raises(ValueError, match="'x'"):
        check_elicitation(form(x=field))


@duty("elicitation.flat", "elicitation.form.members")
@pytest.mark.parametrize("schema", [{}, {"type": "array"}, {"type": "object"}, {"properties": {}}])
def test_a_form_is_an_object_with_properties(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="object"):
        check_elicitation(ElicitParams(message="m", requested_schema=schema))


@duty("elicitation.url.valid")
@pytest.mark.parametrize("url", ["", "example.com", "//host/x", "https://", "https://a b", "/x"])
def test_a_url_that_is_not_absolute_is_refused(url: str) -> None:
    for fine in ("https://example.com/in?x=1", "http://localhost:80", "app:open"):
        check_elicitation(ElicitParams(message="m", mode="url", url=fine))
    with pytest.raises(ValueError, match="URL"):
        check_elicitation(ElicitParams(message="m", mode="url", url=url))


@duty("elicitation.form.members", "elicitation.url.members", "elicitation.modes.default")
def test_an_elicitation_without_a_mode_is_a_form_and_needs_a_schema() -> None:
    schema = {"type": "object", "properties": {}}
    assert read(ElicitParams, {"message": "m", "requestedSchema": schema}).mode is None
    for lacking in (
        {"message": "m"},
        {"message": "m", "url": "https://a.example"},
        {"message": "m", "mode": "form"},
        {"message": "m", "mode": "url"},
        {"requestedSchema": schema},
    ):
        with pytest.raises(msgspec.ValidationError):
            read(ElicitParams, lacking)


# --- sampling -------------------------------------------------------------------------------------


def asked(*messages: SamplingMessage, **members: Any) -> CreateMessageParams:
    return CreateMessageParams(messages=list(messages), **{"max_tokens": 10, **members})


def user(*blocks: SamplingBlock) -> SamplingMessage:
    return SamplingMessage(role="user", content=list(blocks))


def model(*blocks: SamplingBlock) -> SamplingMessage:
    return SamplingMessage(role="assistant", content=list(blocks))


@duty("sampling.validated")
@pytest.mark.parametrize(
    ("params", "said"),
    [
        (asked(user(TEXT), max_tokens=0), "maxTokens"),
        (asked(user(ImageContent(data="!", mime_type="image/png"))), "base64"),
        (asked(user(AudioContent(data="!", mime_type="audio/wav"))), "base64"),
        (asked(user(TEXT), model_preferences=ModelPreferences(cost_priority=1.5)), "cost_priority"),
        (asked(user(TEXT), model_preferences=ModelPreferences(speed_priority=-1)), "speed"),
    ],
)
def test_a_sampling_request_out_of_range_is_refused(params: CreateMessageParams, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_sampling(params)


@duty("sampling.validated")
@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": {"type": "text", "text": "x"}},
        {"role": "user", "content": {"type": "video", "data": ""}},
        {"role": "user"},
    ],
)
def test_a_message_of_another_role_or_kind_is_no_message(message: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(SamplingMessage, message)


@duty("sampling.tools.balanced", "sampling.tools.results-only")
@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ((user(TEXT), model(USE)), "u1"),
        ((user(TEXT), model(USE), user(TEXT)), "u1"),
        ((user(TEXT), model(USE, OTHER_USE), user(RESULT)), "u2"),
        ((user(TEXT), model(USE), user(TEXT), user(RESULT)), "u1"),
        ((user(RESULT),), "answers no tool use"),
        ((user(TEXT), model(USE), user(OTHER_RESULT)), "u1"),
        ((user(TEXT), model(USE), user(RESULT, TEXT)), "nothing else"),
        ((user(TEXT), model(USE), model(RESULT)), "of the user"),
    ],
)
def test_each_tool_use_has_its_result_in_the_next_message_and_alone(
    messages: tuple[SamplingMessage, ...], said: str
) -> None:
    check_sampling(asked(user(TEXT), model(TEXT, USE, OTHER_USE), user(OTHER_RESULT, RESULT)))
    with pytest.raises(ValueError, match=said):
        check_sampling(asked(*messages))


@duty("sampling.validated")
@pytest.mark.parametrize("content", [RESULT, [TEXT, RESULT], ImageContent(data="!", mime_type="x")])
def test_a_models_answer_is_checked_too(content: Any) -> None:
    check_sampling_result(CreateMessageResult(role="assistant", content=[TEXT, USE], model="m"))
    with pytest.raises(ValueError, match="must"):
        check_sampling_result(CreateMessageResult(role="assistant", content=content, model="m"))


# --- logging, progress, cancellation --------------------------------------------------------------


@duty("logging.levels")
def test_the_eight_levels_stand_in_their_order() -> None:
    names = "debug info notice warning error critical alert emergency"
    assert list(LEVELS) == names.split()
    assert list(LEVELS.values()) == list(range(8))


@duty("logging.validated")
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (LogMessageParams, {"level": "loud", "data": 1}),
        (LogMessageParams, {"level": "info"}),
        (LogMessageParams, {"data": 1}),
        (LogMessageParams, {"level": "info", "data": 1, "logger": 7}),
        (SetLevelParams, {"level": "INFO"}),
        (SetLevelParams, {}),
    ],
)
def test_a_malformed_log_message_is_none(kind: type[Any], value: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(kind, value)


@duty("progress.token.type")
@given(st.integers(-(2**53), 2**53) | st.text())
def test_a_progress_token_keeps_its_type_and_value(token: int | str) -> None:
    back = again(ProgressParams(progress_token=token, progress=1)).progress_token
    assert (type(back), back) == (type(token), token)
    cancelled = again(CancelledParams(request_id=token)).request_id
    assert (type(cancelled), cancelled) == (type(token), token)


@duty("progress.token.type")
@pytest.mark.parametrize("token", [None, True, 1.5, [], {}])
def test_a_progress_token_of_another_type_is_none(token: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(ProgressParams, {"progressToken": token, "progress": 1})


@duty("progress.floats", "progress.message")
def test_progress_may_be_a_fraction_with_a_message() -> None:
    update = read(
        ProgressParams, {"progressToken": 1, "progress": 0.25, "total": 1, "message": "a quarter"}
    )
    assert (update.progress, update.total, update.message) == (0.25, 1.0, "a quarter")


# --- roots ----------------------------------------------------------------------------------------


@duty("roots.paths-checked")
def test_a_root_tells_what_lies_in_it_after_every_link_and_step_up(tmp_path: Path) -> None:
    inside, outside = tmp_path / "with space é", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "door").symlink_to(outside)
    root = Root(uri=inside.as_uri())
    assert root.holds(inside / "new" / ".." / "file.txt")
    assert not root.holds(inside / ".." / "x")
    assert not root.holds(inside / "door" / "x")
    assert not root.holds(str(inside) + "-and-more")
    gone = tmp_path / "gone"
    assert Root(uri=gone.as_uri()).holds(gone / "x")
