"""Each substitute, as the table in `degrade` promises it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dragoman.errors import CannotLower
from dragoman.model.base import Annotations, Icon, Implementation, Record
from dragoman.model.capabilities import (
    ClientCapabilities,
    CompletionsCapability,
    ElicitationCapability,
    InitializeParams,
    RootsCapability,
    SamplingCapability,
    ServerCapabilities,
)
from dragoman.model.content import (
    AudioContent,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.elicitation import (
    ElicitationCompleteParams,
    ElicitParams,
    ElicitResult,
)
from dragoman.model.progress import ProgressParams
from dragoman.model.prompts import GetPromptResult, Prompt, PromptMessage
from dragoman.model.sampling import (
    CreateMessageParams,
    CreateMessageResult,
    SamplingMessage,
    ToolChoice,
)
from dragoman.model.tools import (
    CallToolResult,
    ListToolsResult,
    Tool,
    ToolAnnotations,
    ToolExecution,
)
from dragoman.revisions.dialect import Dialect, Loss
from dragoman.revisions.registry import DIALECTS

FIRST, AUDIO, FORMS, RICH, NEWEST = DIALECTS

OBJECT = {"type": "object"}


def lower(dialect: Dialect, value: Record) -> tuple[Any, set[str]]:
    """What the peer gets, and "Record.member" of each loss."""
    losses: list[Loss] = []
    result = dialect.lower(value, losses.append)
    return result, {f"{loss.record}.{loss.member}" for loss in losses}


# --- nothing to do ------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS[:-1], ids=lambda one: one.wire)
def test_a_value_that_is_at_home_everywhere_stays_the_same_object(dialect: Dialect) -> None:
    for value in (
        CallToolResult(content=[TextContent(text="5")]),
        ListToolsResult(tools=[Tool(name="x", input_schema=OBJECT)]),
        CreateMessageParams(
            messages=[SamplingMessage(role="user", content=TextContent(text="?"))], max_tokens=9
        ),
    ):
        result, losses = lower(dialect, value)
        assert result is value
        assert losses == set()


def test_what_an_older_revision_lacks_is_left_out_and_said() -> None:
    value = ListToolsResult(
        tools=[Tool(name="a", input_schema=OBJECT, icons=[Icon(src="data:,")], meta={"k": 1})],
        ttl_ms=5,
        meta={"kept": True},
    )
    result, losses = lower(FIRST, value)
    assert result == ListToolsResult(
        tools=[Tool(name="a", input_schema=OBJECT)], meta={"kept": True}
    )
    assert losses == {"Tool.icons", "Tool.meta", "ListToolsResult.ttl_ms"}


def test_only_the_records_that_change_are_made_anew() -> None:
    plain, rich = (
        Tool(name="a", input_schema=OBJECT),
        Tool(name="b", input_schema=OBJECT, execution=ToolExecution(task_support="optional")),
    )
    result, _ = lower(FORMS, ListToolsResult(tools=[plain, rich, plain]))
    assert result.tools[0] is plain
    assert result.tools[1] == Tool(name="b", input_schema=OBJECT)
    assert result.tools[2] is plain


def test_names_and_instants_reach_into_nested_records() -> None:
    value = GetPromptResult(
        messages=[
            PromptMessage(
                role="user",
                content=TextContent(
                    text="t", annotations=Annotations(priority=1.0, last_modified="2025"), meta={}
                ),
            )
        ]
    )
    result, losses = lower(AUDIO, value)
    assert result.messages[0].content == TextContent(
        text="t", annotations=Annotations(priority=1.0)
    )
    assert losses == {"TextContent.meta", "Annotations.last_modified"}


# --- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mime_type", "uri"),
    [
        ("audio/wav", "audio:embedded.wav"),
        ("audio/vnd.wave", "audio:embedded.vnd.wave"),
        ("audio/ogg; codecs=opus", "audio:embedded.ogg"),
        ("audio", "audio:embedded.bin"),
        ("audio/a b\n<c>", "audio:embedded.a-b-c-"),
    ],
)
def test_audio_becomes_a_resource_with_the_same_bytes(mime_type: str, uri: str) -> None:
    block = AudioContent(data="AAAA", mime_type=mime_type, annotations=Annotations(priority=0.5))
    result, losses = lower(FIRST, CallToolResult(content=[TextContent(text="a"), block]))
    assert result.content[1] == EmbeddedResource(
        resource=ResourceContents(uri=uri, blob="AAAA", mime_type=mime_type),
        annotations=Annotations(priority=0.5),
    )
    assert losses == {"AudioContent.data"}
    marked = msgspec.structs.replace(block, meta={"k": 1})
    assert lower(FIRST, CallToolResult(content=[marked]))[1] == {
        "AudioContent.data",
        "EmbeddedResource.meta",
    }
    assert lower(AUDIO, CallToolResult(content=[block]))[0].content == [block]


@pytest.mark.parametrize("dialect", [FIRST, AUDIO], ids=lambda one: one.wire)
def test_a_link_becomes_a_line_of_text(dialect: Dialect) -> None:
    link = ResourceLink(
        uri="file:///a", name="a", title="The A", mime_type="text/plain", description="first"
    )
    result, losses = lower(dialect, CallToolResult(content=[link]))
    assert result.content == [TextContent(text="[The A](file:///a) (text/plain) - first")]
    assert losses == {"ResourceLink.uri"}
    rated = ResourceLink(uri="file:///b", name="b", annotations=Annotations(priority=1.0))
    bare, _ = lower(dialect, CallToolResult(content=[rated]))
    assert bare.content == [
        TextContent(text="[b](file:///b)", annotations=Annotations(priority=1.0))
    ]
    assert lower(FORMS, CallToolResult(content=[link]))[0].content == [link]


# --- structured output --------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [FIRST, AUDIO], ids=lambda one: one.wire)
@pytest.mark.parametrize(
    ("value", "text"), [({"a": 1}, '{"a":1}'), ([1, None], "[1,null]"), (0, "0")]
)
def test_structured_output_becomes_text_where_it_does_not_exist(
    dialect: Dialect, value: Any, text: str
) -> None:
    result, losses = lower(dialect, CallToolResult(content=[], structured_content=value))
    assert result == CallToolResult(content=[TextContent(text=text)])
    assert losses == {"CallToolResult.structured_content"}


@pytest.mark.parametrize("dialect", [FIRST, AUDIO], ids=lambda one: one.wire)
def test_structured_output_beside_its_text_is_left_out(dialect: Dialect) -> None:
    value = CallToolResult(content=[TextContent(text="one")], structured_content={"a": 1})
    result, losses = lower(dialect, value)
    assert result == CallToolResult(content=[TextContent(text="one")])
    assert losses == {"CallToolResult.structured_content"}


@pytest.mark.parametrize("dialect", [FORMS, RICH], ids=lambda one: one.wire)
def test_structured_output_is_an_object_until_any_json_is_allowed(dialect: Dialect) -> None:
    whole = CallToolResult(content=[], structured_content={"a": [1]})
    assert lower(dialect, whole) == (whole, set())
    result, losses = lower(dialect, CallToolResult(content=[], structured_content=[1]))
    assert result == CallToolResult(content=[TextContent(text="[1]")])
    assert losses == {"CallToolResult.structured_content"}
    told, _ = lower(
        dialect, CallToolResult(content=[TextContent(text="one")], structured_content=[1])
    )
    assert told == CallToolResult(content=[TextContent(text="one")])
    assert lower(NEWEST, told)[0].structured_content is None
    any_json = lower(NEWEST, CallToolResult(content=[], structured_content=[1]))[0]
    assert any_json.structured_content == [1]


@pytest.mark.parametrize("content", [[], [TextContent(text="one")]])
def test_a_tool_result_for_a_model_holds_an_object_until_any_json_is_allowed(
    content: list[Any],
) -> None:
    block = ToolResultContent(tool_use_id="1", content=content, structured_content=[1])
    message = SamplingMessage(role="user", content=[block])
    result, losses = lower(RICH, message)
    assert result.content[0].structured_content is None
    assert result.content[0].content == (content or [TextContent(text="[1]")])
    assert losses == {"ToolResultContent.structured_content"}
    assert lower(NEWEST, message) == (message, set())


# --- tools --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [FORMS, RICH], ids=lambda one: one.wire)
@pytest.mark.parametrize("schema", [{"type": "array"}, {}, {"type": ["object", "null"]}])
def test_an_output_schema_that_is_no_object_is_left_out(
    dialect: Dialect, schema: dict[str, Any]
) -> None:
    result, losses = lower(dialect, Tool(name="t", input_schema=OBJECT, output_schema=schema))
    assert result == Tool(name="t", input_schema=OBJECT)
    assert losses == {"Tool.output_schema"}
    kept = Tool(name="t", input_schema=OBJECT, output_schema=OBJECT)
    assert lower(dialect, kept) == (kept, set())


@pytest.mark.parametrize("dialect", DIALECTS[:-1], ids=lambda one: one.wire)
def test_a_property_that_allows_all_or_nothing_is_written_as_an_object(dialect: Dialect) -> None:
    schema = {"type": "object", "properties": {"a": True, "b": False, "c": {"items": True}}}
    result, losses = lower(dialect, Tool(name="t", input_schema=schema))
    assert result.input_schema == {
        "type": "object",
        "properties": {"a": {}, "b": {"not": {}}, "c": {"items": True}},
    }
    assert losses == {"Tool.input_schema"}
    assert schema["properties"] == {"a": True, "b": False, "c": {"items": True}}


def test_a_title_stands_among_the_annotations_where_only_they_have_one() -> None:
    tool = Tool(name="t", input_schema=OBJECT, title="Title")
    result, losses = lower(AUDIO, tool)
    assert result == Tool(name="t", input_schema=OBJECT, annotations=ToolAnnotations(title="Title"))
    assert losses == {"Tool.title"}
    hinted = Tool(
        name="t", input_schema=OBJECT, title="Title", annotations=ToolAnnotations(title="Hint")
    )
    assert lower(AUDIO, hinted)[0].annotations.title == "Hint"
    assert lower(FIRST, tool)[0] == Tool(name="t", input_schema=OBJECT)
    assert lower(FORMS, tool)[0] is tool


# --- sampling -----------------------------------------------------------------------------------

TEXT, IMAGE = TextContent(text="see"), ImageContent(data="AAAA", mime_type="image/png")
RATED = TextContent(text="see", annotations=Annotations(priority=1.0))
USE = ToolUseContent(id="u", name="add", input={"a": 1})
RESULT = ToolResultContent(tool_use_id="u", content=[TextContent(text="5"), IMAGE], is_error=True)


def asking(*blocks: Any, **more: Any) -> CreateMessageParams:
    """A request with one message of these blocks."""
    message = SamplingMessage(role="user", content=list(blocks))
    return CreateMessageParams(messages=[message], max_tokens=5, **more)


@pytest.mark.parametrize("dialect", [FIRST, AUDIO, FORMS], ids=lambda one: one.wire)
def test_several_blocks_become_several_messages(dialect: Dialect) -> None:
    result, losses = lower(dialect, asking(TEXT, IMAGE))
    assert [(m.role, m.content) for m in result.messages] == [("user", TEXT), ("user", IMAGE)]
    assert losses == {"SamplingMessage.content"}
    assert lower(dialect, asking())[0].messages == []


@pytest.mark.parametrize("dialect", [FIRST, AUDIO, FORMS], ids=lambda one: one.wire)
def test_the_traffic_of_tools_becomes_text_a_model_can_read(dialect: Dialect) -> None:
    result, losses = lower(dialect, asking(USE, RESULT))
    assert [m.content.text for m in result.messages] == [
        '[tool call u: add({"a":1})]',
        "[tool result u failed] 5\n[1 more blocks that are not text]",
    ]
    assert {"ToolUseContent.input", "ToolResultContent.content"} <= losses


def test_audio_in_sampling_becomes_a_line_where_there_are_no_resources_in_it() -> None:
    sound = AudioContent(data="AAAA", mime_type="audio/wav")
    message = SamplingMessage(role="user", content=sound)
    result, losses = lower(FIRST, CreateMessageParams(messages=[message], max_tokens=5))
    assert result.messages[0].content == TextContent(text="[audio, audio/wav, 3 bytes]")
    assert losses == {"AudioContent.data"}
    assert lower(AUDIO, message) == (message, set())


@pytest.mark.parametrize("dialect", [FIRST, AUDIO, FORMS], ids=lambda one: one.wire)
def test_tools_are_not_offered_to_a_model_that_cannot_call_them(dialect: Dialect) -> None:
    tool = Tool(name="t", input_schema=OBJECT)
    with pytest.raises(CannotLower) as caught:
        lower(dialect, asking(TEXT, tools=[tool]))
    assert caught.value.revision == dialect.wire
    # a choice among no tools can go without
    assert lower(dialect, asking(TEXT, tool_choice=ToolChoice(mode="none")))[0].tool_choice is None
    assert lower(RICH, asking(TEXT, tools=[tool]))[0].tools == [tool]


@pytest.mark.parametrize("dialect", [FIRST, AUDIO, FORMS], ids=lambda one: one.wire)
@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([TEXT], TEXT),
        ([RATED], RATED),
        ([IMAGE], IMAGE),
        ([TEXT, TextContent(text="more")], TextContent(text="see\nmore")),
        ([IMAGE, TEXT], TEXT),
        ([IMAGE, IMAGE], IMAGE),
        ([USE], TextContent(text='[tool call u: add({"a":1})]')),
        ([], TextContent(text="")),
    ],
)
def test_an_answer_of_several_blocks_becomes_one(
    dialect: Dialect, blocks: list[Any], expected: Any
) -> None:
    answer = CreateMessageResult(role="assistant", content=blocks, model="m")
    result, losses = lower(dialect, answer)
    assert result == CreateMessageResult(role="assistant", content=expected, model="m")
    assert "CreateMessageResult.content" in losses
    assert lower(RICH, answer) == (answer, set())


# --- elicitation --------------------------------------------------------------------------------


def form(**fields: Any) -> ElicitParams:
    """A question with these fields."""
    return ElicitParams(message="?", requested_schema={"type": "object", "properties": fields})


def fields_of(value: Any) -> Any:
    """The fields of a lowered question."""
    return value.requested_schema["properties"]


@pytest.mark.parametrize("dialect", [FIRST, AUDIO], ids=lambda one: one.wire)
@pytest.mark.parametrize(
    "value",
    [
        form(),
        ElicitResult(action="accept"),
        ElicitationCompleteParams(elicitation_id="1"),
    ],
)
def test_there_is_no_question_before_elicitation(dialect: Dialect, value: Record) -> None:
    with pytest.raises(CannotLower):
        lower(dialect, value)


def test_titled_choices_become_names_beside_values() -> None:
    rich = form(
        color={
            "type": "string",
            "title": "Color",
            "oneOf": [{"const": "#f00", "title": "Red"}, {"const": "#0f0", "title": "Green"}],
            "default": "#f00",
        }
    )
    result, losses = lower(FORMS, rich)
    assert fields_of(result)["color"] == {
        "type": "string",
        "title": "Color",
        "enum": ["#f00", "#0f0"],
        "enumNames": ["Red", "Green"],
    }
    assert losses == {"ElicitParams.color"}
    assert lower(RICH, rich) == (rich, set())


def test_multiple_choice_is_refused_before_it_existed() -> None:
    many = form(x={"type": "array", "items": {"type": "string", "enum": ["a"]}})
    with pytest.raises(CannotLower) as caught:
        lower(FORMS, many)
    assert "'x'" in caught.value.what
    assert lower(RICH, many) == (many, set())


def test_defaults_are_left_out_before_they_existed() -> None:
    asked = form(
        a={"type": "string", "default": "x"},
        b={"type": "integer", "default": 1},
        c={"type": "boolean", "default": True},
    )
    result, losses = lower(FORMS, asked)
    assert fields_of(result) == {
        "a": {"type": "string"},
        "b": {"type": "integer"},
        "c": {"type": "boolean", "default": True},
    }
    assert losses == {"ElicitParams.a", "ElicitParams.b"}
    assert lower(RICH, asked) == (asked, set())


@pytest.mark.parametrize("dialect", [FORMS, RICH, NEWEST], ids=lambda one: one.wire)
def test_keywords_that_forms_do_not_have_are_left_out(dialect: Dialect) -> None:
    asked = ElicitParams(
        message="?",
        requested_schema={
            "type": "object",
            "title": "Form",
            "additionalProperties": False,
            "properties": {
                "a": {"type": "string", "pattern": "^a", "format": "hostname", "minLength": 1},
                "b": {"type": "number", "exclusiveMinimum": 0},
            },
            "required": ["a"],
        },
    )
    result, losses = lower(dialect, asked)
    assert result.requested_schema == {
        "type": "object",
        "properties": {"a": {"type": "string", "minLength": 1}, "b": {"type": "number"}},
        "required": ["a"],
    }
    assert losses == {"ElicitParams.requested_schema", "ElicitParams.a", "ElicitParams.b"}


@pytest.mark.parametrize("dialect", [FORMS, RICH, NEWEST], ids=lambda one: one.wire)
@pytest.mark.parametrize(
    "field",
    [
        {"type": "object"},
        {"type": "array"},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"enum": [1]}},
        {"type": "array", "items": {"anyOf": [{"title": "no value"}]}},
        {"type": ["string", "null"]},
        {"type": "null"},
        {"anyOf": [{"type": "string"}]},
        {"enum": [1, 2]},
        {"type": "string", "oneOf": [{"title": "no value"}]},
        {},
        True,
        None,
    ],
)
def test_a_field_that_forms_do_not_have_is_refused(dialect: Dialect, field: Any) -> None:
    with pytest.raises(CannotLower):
        lower(dialect, form(x=field))


def test_fields_without_names_are_refused() -> None:
    odd = ElicitParams(message="?", requested_schema={"type": "object", "properties": ["x"]})
    with pytest.raises(CannotLower):
        lower(RICH, odd)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"enum": ["a"]}, {"type": "string", "enum": ["a"]}),
        (
            {"type": "string", "oneOf": [{"const": "a"}]},
            {"type": "string", "oneOf": [{"const": "a", "title": "a"}]},
        ),
        (
            {"type": "array", "items": {"enum": ["a"], "x": 1}},
            {"type": "array", "items": {"type": "string", "enum": ["a"]}},
        ),
        (
            {"type": "array", "items": {"anyOf": [{"const": "a"}], "type": "string"}},
            {"type": "array", "items": {"anyOf": [{"const": "a", "title": "a"}]}},
        ),
    ],
)
def test_what_a_field_forgot_is_filled_in(field: Any, expected: Any) -> None:
    result, losses = lower(RICH, form(x=field))
    assert fields_of(result) == {"x": expected}
    assert losses == {"ElicitParams.x"}


def test_a_form_that_forgot_what_it_is_gets_a_type_and_fields() -> None:
    result, losses = lower(RICH, ElicitParams(message="?", requested_schema={}))
    assert result.requested_schema == {"type": "object", "properties": {}}
    assert losses == {"ElicitParams.requested_schema"}


def test_the_mode_of_a_form_goes_without_saying_before_there_were_two() -> None:
    schema = {"type": "object", "properties": {}}
    named = ElicitParams(message="?", mode="form", requested_schema=schema)
    assert lower(FORMS, named)[0] == ElicitParams(message="?", requested_schema=schema)
    assert lower(RICH, named) == (named, set())


def test_a_url_is_refused_before_that_mode_existed_and_is_its_own_id_after() -> None:
    page = ElicitParams(message="?", mode="url", url="https://x.example/1")
    with pytest.raises(CannotLower):
        lower(FORMS, page)
    result, losses = lower(RICH, page)
    assert result == msgspec.structs.replace(page, elicitation_id="https://x.example/1")
    assert losses == {"ElicitParams.elicitation_id"}
    named = msgspec.structs.replace(page, elicitation_id="7")
    assert lower(RICH, named) == (named, set())
    assert lower(NEWEST, named) == (page, {"ElicitParams.elicitation_id"})


def test_a_question_is_a_form_or_a_page_and_not_both() -> None:
    schema = {"type": "object", "properties": {}}
    page = ElicitParams(
        message="?",
        mode="url",
        url="https://x.example",
        elicitation_id="1",
        requested_schema=schema,
    )
    result, losses = lower(RICH, page)
    assert result.requested_schema is None
    assert losses == {"ElicitParams.requested_schema"}
    asked = ElicitParams(
        message="?", url="https://x.example", elicitation_id="1", requested_schema=schema
    )
    result, losses = lower(RICH, asked)
    assert result == ElicitParams(message="?", requested_schema=schema)
    assert losses == {"ElicitParams.url", "ElicitParams.elicitation_id"}


def test_answers_are_what_a_form_can_ask() -> None:
    answer = ElicitResult(action="accept", content={"a": "x", "b": None, "c": 1.5})
    for dialect in (FORMS, RICH, NEWEST):
        result, losses = lower(dialect, answer)
        assert result.content == {"a": "x", "c": 1.5}
        assert losses == {"ElicitResult.content"}
    several = ElicitResult(action="accept", content={"a": ["x", "y"]})
    assert lower(RICH, several) == (several, set())
    with pytest.raises(CannotLower):
        lower(FORMS, several)


# --- capabilities -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asks", "kept"),
    [
        (ElicitationCapability(), True),
        (ElicitationCapability(form={}), True),
        (ElicitationCapability(form={}, url={}), True),
        (ElicitationCapability(url={}), False),
    ],
)
def test_a_client_promises_forms_only_if_it_has_them(
    asks: ElicitationCapability, kept: bool
) -> None:
    result, _ = lower(FORMS, ClientCapabilities(elicitation=asks))
    assert result.elicitation == (ElicitationCapability() if kept else None)
    assert lower(RICH, ClientCapabilities(elicitation=asks))[0].elicitation == asks
    assert lower(AUDIO, ClientCapabilities(elicitation=asks))[0].elicitation is None


def test_capabilities_that_are_only_a_name_survive_where_they_exist() -> None:
    server = ServerCapabilities(completions=CompletionsCapability())
    assert lower(FIRST, server)[0] == ServerCapabilities()
    assert lower(AUDIO, server)[0] is server
    client = ClientCapabilities(
        roots=RootsCapability(list_changed=True), sampling=SamplingCapability(tools={})
    )
    assert lower(FIRST, client)[0] == ClientCapabilities(
        roots=RootsCapability(list_changed=True), sampling=SamplingCapability()
    )
    assert lower(NEWEST, client)[0] == ClientCapabilities(
        roots=RootsCapability(), sampling=SamplingCapability(tools={})
    )


def test_there_is_no_handshake_in_the_newest_revision() -> None:
    hello = InitializeParams(
        protocol_version="x",
        capabilities=ClientCapabilities(),
        client_info=Implementation(name="n", version="1", icons=[Icon(src="data:,")]),
    )
    with pytest.raises(CannotLower):
        lower(NEWEST, hello)
    assert lower(FIRST, hello)[0].client_info == Implementation(name="n", version="1")


# --- small things -------------------------------------------------------------------------------


def test_progress_has_a_text_since_its_second_revision() -> None:
    told = ProgressParams(progress_token=1, progress=0.5, message="half")
    assert lower(FIRST, told)[0] == ProgressParams(progress_token=1, progress=0.5)
    assert lower(AUDIO, told)[0] is told


def test_a_prompt_keeps_its_arguments_and_loses_its_looks() -> None:
    prompt = Prompt(name="p", title="P", arguments=[], icons=[])
    assert lower(AUDIO, prompt) == (
        Prompt(name="p", arguments=[]),
        {"Prompt.title", "Prompt.icons"},
    )


def test_results_say_that_they_are_whole_and_for_how_long_in_the_newest_revision() -> None:
    result, losses = lower(NEWEST, CallToolResult(content=[]))
    assert (result.result_type, losses) == ("complete", set())
    listed, _ = lower(NEWEST, ListToolsResult(tools=[]))
    assert (listed.result_type, listed.ttl_ms, listed.cache_scope) == ("complete", 0, "private")
    cached, _ = lower(NEWEST, ListToolsResult(tools=[], ttl_ms=9, cache_scope="public"))
    assert (cached.ttl_ms, cached.cache_scope) == (9, "public")
