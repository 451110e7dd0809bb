"""Rules that a record's shape cannot say."""

from __future__ import annotations

from typing import Any

import pytest

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
from dragoman.model.sampling import (
    CreateMessageParams,
    CreateMessageResult,
    ModelPreferences,
    SamplingMessage,
)

TEXT = TextContent(text="x")


def use(name: str) -> ToolUseContent:
    """A model's wish to call a tool."""
    return ToolUseContent(id=name, name="t", input={})


def result(name: str) -> ToolResultContent:
    """The answer to that wish."""
    return ToolResultContent(tool_use_id=name, content=[])


def talk(*turns: tuple[Any, Any], **more: Any) -> CreateMessageParams:
    """A sampling request of (role, content) turns."""
    messages = [SamplingMessage(role=role, content=content) for role, content in turns]
    return CreateMessageParams(**{"messages": messages, "max_tokens": 1, **more})


@pytest.mark.parametrize(
    "request_",
    [
        talk(),
        talk(("user", TEXT)),
        talk(("user", TEXT), ("assistant", [TEXT, use("1")]), ("user", [result("1")])),
        talk(("assistant", [use("1"), use("2")]), ("user", [result("2"), result("1")])),
        talk(("assistant", use("1")), ("user", result("1")), ("assistant", TEXT)),
        talk(("user", ImageContent.of(b"x")), ("user", AudioContent.of(b"x"))),
        talk(model_preferences=ModelPreferences(cost_priority=0.0, speed_priority=1.0)),
    ],
)
def test_a_sound_sampling_request_passes(request_: CreateMessageParams) -> None:
    check_sampling(request_)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (talk(max_tokens=0), "maxTokens"),
        (talk(model_preferences=ModelPreferences(speed_priority=1.1)), "speed_priority"),
        (talk(model_preferences=ModelPreferences(cost_priority=-0.1)), "cost_priority"),
        (talk(("assistant", [use("1")])), "no result"),
        (talk(("assistant", [use("1")]), ("user", TEXT)), "no result"),
        (talk(("assistant", [use("1"), use("2")]), ("user", [result("1")])), "no result"),
        (talk(("user", [result("1")])), "no tool use"),
        (talk(("assistant", [use("1")]), ("user", [result("1"), TEXT])), "nothing else"),
        (talk(("assistant", [use("1")]), ("assistant", [result("1")])), "of the user"),
        (talk(("user", ImageContent(data="?", mime_type="image/png"))), "base64"),
        (talk(("user", [TEXT, AudioContent(data="AA==", mime_type="sound")])), "media type"),
    ],
)
def test_a_sampling_request_that_breaks_a_rule_is_refused(
    request_: CreateMessageParams, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        check_sampling(request_)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TEXT, None),
        ([TEXT, use("1")], None),
        ([], None),
        ([result("1")], "tool results"),
        (ImageContent(data="?", mime_type="image/png"), "base64"),
    ],
)
def test_a_models_answer_is_checked(
    content: SamplingBlock | list[SamplingBlock], reason: str | None
) -> None:
    answer = CreateMessageResult(role="assistant", content=content, model="m")
    if reason is None:
        check_sampling_result(answer)
        return
    with pytest.raises(ValueError, match=reason):
        check_sampling_result(answer)


@pytest.mark.parametrize(
    "block",
    [
        TEXT,
        ImageContent.of(b"x"),
        AudioContent(data="", mime_type="audio/ogg; codecs=opus"),
        EmbeddedResource(resource=ResourceContents(uri="a:b", text="x", mime_type="text/plain")),
        EmbeddedResource(resource=ResourceContents.of("a:b", b"x", "image/png")),
        ResourceLink(uri="a:b", name="n"),
    ],
)
def test_content_that_is_what_it_says_passes(block: ContentBlock) -> None:
    check_content(block)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (ImageContent(data="a", mime_type="image/png"), "base64"),
        (ImageContent(data="é", mime_type="image/png"), "base64"),
        (ImageContent(data="QQ==\n", mime_type="image/png"), "base64"),
        (AudioContent(data="", mime_type="wav"), "media type"),
        (EmbeddedResource(resource=ResourceContents(uri="b", text="", mime_type="a/b")), "URI"),
        (EmbeddedResource(resource=ResourceContents(uri="a:b", text="")), "mime_type"),
        (
            EmbeddedResource(resource=ResourceContents(uri="a:b", blob="?", mime_type="a/b")),
            "base64",
        ),
        (ResourceLink(uri="b c", name="n"), "URI"),
    ],
)
def test_content_that_is_not_what_it_says_is_refused(block: ContentBlock, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_content(block)


def form(**fields: Any) -> ElicitParams:
    """A question with these fields."""
    return ElicitParams(message="?", requested_schema={"type": "object", "properties": fields})


@pytest.mark.parametrize(
    "params",
    [
        form(),
        form(a={"type": "string"}, b={"type": "number"}, c={"type": "integer"}),
        form(a={"type": "boolean"}, b={"type": "string", "enum": ["x"]}),
        form(a={"type": "array", "items": {"type": "string", "enum": ["x"]}}),
        ElicitParams(message="?", mode="url", url="https://x.example/a?b=c"),
    ],
)
def test_a_flat_form_or_an_absolute_url_passes(params: ElicitParams) -> None:
    check_elicitation(params)


@pytest.mark.parametrize(
    "params",
    [
        ElicitParams(message="?", requested_schema={}),
        ElicitParams(message="?", requested_schema={"type": "array", "properties": {}}),
        ElicitParams(message="?", requested_schema={"type": "object", "properties": []}),
        form(a={"type": "object"}),
        form(a={"type": "object", "properties": {}}),
        form(a={"type": "string", "properties": {}}),
        form(a={"type": "array", "items": {"type": "integer"}}),
        form(a={"type": "array"}),
        form(a={"anyOf": [{"type": "string"}]}),
        form(a=True),
        ElicitParams(message="?", mode="url", url="x.example/a"),
        ElicitParams(message="?", mode="url", url="https://x.example/a b"),
        ElicitParams(message="?", mode="url", url=""),
    ],
)
def test_any_other_question_is_refused(params: ElicitParams) -> None:
    with pytest.raises(ValueError, match=r"form|URL"):
        check_elicitation(params)
