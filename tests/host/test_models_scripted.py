"""The scripted model, models by name, and the answers to servers' sampling requests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import Misconfigured, MissingExtra
from dragoman.host.models.base import (
    PLAIN_RULES,
    ChatModel,
    ModelError,
    ModelEvent,
    ModelRequest,
    Stop,
    Stopped,
    TextDelta,
    ToolUse,
    Trouble,
    estimate_tokens,
    streamed,
)
from dragoman.host.models.opening import open_model
from dragoman.host.models.sampling import SamplingModels
from dragoman.host.models.scripted import Call, Script, ScriptedModel, Turn
from dragoman.host.models.words import blocks_of
from dragoman.model.content import ImageContent, TextContent, ToolResultContent, ToolUseContent
from dragoman.model.sampling import CreateMessageParams, SamplingMessage, ToolChoice
from dragoman.model.tools import Tool
from tests.support import run


def said(text: str) -> ModelRequest:
    return ModelRequest(messages=[SamplingMessage(role="user", content=TextContent(text=text))])


async def hear(model: ChatModel, request: ModelRequest) -> list[ModelEvent]:
    async with streamed(model, request) as events:
        return [event async for event in events]


def script_file(folder: Path, value: Any) -> str:
    path = folder / "script.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def test_a_script_in_json_is_followed(tmp_path: Path) -> None:
    turns = [
        {"text": "Let me look.", "calls": [{"tool": "s__add", "arguments": {"x": 1}}]},
        {"expect": "rain", "text": "It says: {last}", "stop": "length"},
        "Bye.",
    ]
    model = open_model("scripted:" + script_file(tmp_path, {"turns": turns}))
    assert (model.name, model.provider) == ("scripted:script.json", "scripted")
    first = run(hear(model, said("hi")))
    assert "".join(e.text for e in first if isinstance(e, TextDelta)) == "Let me look."
    assert ToolUse("call_1_1", "s__add", '{"x": 1}') in first
    assert first[-1] == Stopped(Stop.TOOLS)
    second = run(hear(model, said("rain at six")))
    assert "".join(e.text for e in second if isinstance(e, TextDelta)) == "It says: rain at six"
    assert second[-1] == Stopped(Stop.LENGTH)
    assert TextDelta("Bye.") in run(hear(model, said("bye")))


def test_a_script_in_python_sees_what_the_model_is_given(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("turns = [lambda request: f'{len(request.messages)} message']\n")
    assert TextDelta("message") in run(hear(open_model(f"scripted:{path}"), said("hi")))


def test_a_script_that_is_over_or_surprised_says_so() -> None:
    for script in ([], [Turn(expect="rain", text="x")]):
        with pytest.raises(ModelError) as caught:
            run(hear(ScriptedModel(script), said("sun")))
        assert caught.value.kind is Trouble.SCRIPT


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"turns": 5},
        {"turns": [5]},
        {"turns": [{"txt": "x"}]},
        {"turns": [{"calls": [{}]}]},
        {"turns": [{"stop": "never"}]},
    ],
)
def test_a_file_that_is_no_script_is_misconfigured(tmp_path: Path, value: Any) -> None:
    with pytest.raises(Misconfigured, match="not a script"):
        ScriptedModel.load(script_file(tmp_path, value))


def test_scripts_that_are_not_there_are_misconfigured(tmp_path: Path) -> None:
    for name in ("none.json", "none.py"):
        with pytest.raises(Misconfigured):
            ScriptedModel.load(tmp_path / name)
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(Misconfigured, match="turns"):
        ScriptedModel.load(tmp_path / "empty.py")


# --- models by name ----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["", "openai", "openai:", "gpt", ":x"])
def test_a_name_without_its_parts_is_refused(spec: str) -> None:
    with pytest.raises(Misconfigured):
        open_model(spec)


def test_an_unknown_provider_is_refused_with_a_suggestion() -> None:
    with pytest.raises(Misconfigured, match="did you mean 'anthropic'"):
        open_model("antropic:claude")


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_provider_opens_without_a_connection_and_says_what_it_is(provider: str) -> None:
    pytest.importorskip(provider)
    model = open_model(f"{provider}:some-model", context_tokens=5000, rules=PLAIN_RULES)
    assert (model.name, model.provider) == (f"{provider}:some-model", provider)
    assert (model.context_tokens, model.rules) == (5000, PLAIN_RULES)
    assert isinstance(model, ChatModel)
    run(model.aclose())


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_provider_whose_client_is_not_there_says_what_to_install(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, provider, None)
    with pytest.raises(MissingExtra) as caught:
        open_model(f"{provider}:x")
    assert caught.value.extra == provider


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("word " * 70, 100), ("\u65e5\u672c", 2)]
)
def test_tokens_are_estimated(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


# --- sampling ----------------------------------------------------------------------------------


def params(**more: Any) -> CreateMessageParams:
    message = SamplingMessage(role="user", content=TextContent(text="hi"))
    return CreateMessageParams(**{"messages": [message], "max_tokens": 50, **more})


def answered(script: Script, **more: Any) -> tuple[Any, ScriptedModel]:
    model = ScriptedModel(script, name="m")
    source = SamplingModels([model])
    assert source.names() == ["scripted:m"]
    return run(source.answer("scripted:m", params(**more))), model


def test_a_sampling_request_reaches_the_model_as_it_stands() -> None:
    result, model = answered(
        ["Hello."], system_prompt="be brief", temperature=0.5, stop_sequences=["END"]
    )
    assert (result.role, result.text, result.model) == ("assistant", "Hello.", "m")
    assert result.stop_reason == "endTurn"
    (request,) = model.requests
    assert (request.system, request.temperature, request.max_tokens) == ("be brief", 0.5, 50)
    assert list(request.stop) == ["END"]
    assert request.tools == []


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (Stop.LENGTH, "maxTokens"),
        (Stop.STOP_SEQUENCE, "stopSequence"),
        (Stop.FILTERED, "filtered"),
    ],
)
def test_the_reason_is_in_the_words_of_the_protocol(stop: Stop, reason: str) -> None:
    result, _ = answered([Turn(text="x", stop=stop)])
    assert result.stop_reason == reason


def test_tools_of_the_server_go_under_names_that_the_provider_takes_and_come_back() -> None:
    long = "x" * 90
    tools = [
        Tool(name="look.up", input_schema={"type": "object"}),
        Tool(name=long, input_schema={"type": "object"}),
    ]

    def call_both(request: ModelRequest) -> Turn:
        return Turn(text="Wait.", calls=tuple(Call(tool=tool.name) for tool in request.tools))

    earlier = [
        SamplingMessage(role="user", content=TextContent(text="hi")),
        SamplingMessage(
            role="assistant", content=[ToolUseContent(id="1", name="look.up", input={})]
        ),
        SamplingMessage(
            role="user",
            content=[ToolResultContent(tool_use_id="1", content=[TextContent(text="x")])],
        ),
    ]
    result, model = answered(
        [call_both], tools=tools, messages=earlier, tool_choice=ToolChoice(mode="required")
    )
    (request,) = model.requests
    assert all(len(tool.name) <= 64 for tool in request.tools)
    assert request.tool_choice == "required"
    (before,) = blocks_of(request.messages[1])
    assert isinstance(before, ToolUseContent)
    assert before.name == request.tools[0].name
    text, first, second = result.content
    assert text == TextContent(text="Wait.")
    assert [first.name, second.name] == ["look.up", long]
    assert result.stop_reason == "toolUse"


def test_arguments_that_are_no_object_make_the_answer_fail() -> None:
    with pytest.raises(ModelError) as caught:
        answered([Turn(calls=(Call(tool="x", arguments="{oops"),))])
    assert caught.value.kind is Trouble.GARBAGE


def test_pictures_reach_the_model() -> None:
    picture = ImageContent(data="AAAA", mime_type="image/png")
    _, model = answered(["ok"], messages=[SamplingMessage(role="user", content=picture)])
    assert blocks_of(model.requests[0].messages[0]) == [picture]


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(Misconfigured):
        run(SamplingModels([]).answer("gpt", params()))


def test_an_answer_without_a_word_is_an_empty_text() -> None:
    result, _ = answered([Turn()])
    assert result.content == TextContent(text="")
