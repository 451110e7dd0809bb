"""A server's loop over a model with tools of its own, through both gates."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dragoman.errors import Refused
from dragoman.host.asks import Sampling
from dragoman.host.kinds import Action, ApprovalRequest, Decision
from dragoman.host.models.base import ModelError
from dragoman.host.models.sampling import SamplingModels
from dragoman.host.models.scripted import Call, ScriptedModel, Turn
from dragoman.host.policy import Bounds, SamplingRules
from dragoman.model.checks import check_sampling, check_sampling_result
from dragoman.model.content import (
    ImageContent,
    SamplingBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.sampling import (
    CreateMessageParams,
    CreateMessageResult,
    SamplingMessage,
    ToolChoice,
)
from dragoman.model.tools import Tool
from tests.host.desk import Desk, Person, desk, payload_of, run
from tests.requirements.duties import duty

REQUEST, RELEASE = Action.SAMPLING_REQUEST, Action.SAMPLING_RELEASE
WEATHER = Tool(
    name="get.weather",
    input_schema={"type": "object", "properties": {"city": {"type": "string"}}},
)
PICTURE = ImageContent(data="AAAA" * 20_000, mime_type="image/png")


def user(*blocks: SamplingBlock) -> SamplingMessage:
    return SamplingMessage(role="user", content=list(blocks))


def assistant(*blocks: SamplingBlock) -> SamplingMessage:
    return SamplingMessage(role="assistant", content=list(blocks))


def text(said: str) -> TextContent:
    return TextContent(text=said)


def use(ident: str, name: str = "get.weather") -> ToolUseContent:
    return ToolUseContent(id=ident, name=name, input={"city": "Oslo"})


def result_of(ident: str, *content: Any) -> ToolResultContent:
    return ToolResultContent(tool_use_id=ident, content=list(content) or [text("rain")])


ASK = user(text("How is the weather?"))


def params(*messages: SamplingMessage, **more: Any) -> CreateMessageParams:
    given: dict[str, Any] = {"messages": list(messages or [ASK]), "max_tokens": 100}
    return CreateMessageParams(**given | {"tools": [WEATHER]} | more)


def sample(at: Desk, model: ScriptedModel, asked: CreateMessageParams) -> CreateMessageResult:
    sampling = Sampling(at.mediator, SamplingModels([model]), at.budget)
    return run(sampling.answer(at.asker(), asked)).result


def uses_in(result: CreateMessageResult) -> list[ToolUseContent]:
    blocks = result.content if isinstance(result.content, list) else [result.content]
    return [one for one in blocks if isinstance(one, ToolUseContent)]


def calling(*cities: str, ids: tuple[str, ...] = ()) -> Any:
    """A turn that calls the first tool, once for each city."""

    def turn(request: Any) -> Turn:
        names = [tool.name for tool in request.tools] or ["nothing"]
        calls = [
            Call(tool=names[0], arguments={"city": city}, id=ids[at] if ids else f"c{at}")
            for at, city in enumerate(cities)
        ]
        return Turn(calls=tuple(calls))

    return turn


@duty("sampling.tools.choice", "sampling.approval")
def test_each_turn_of_the_loop_is_asked_about_and_shown_whole() -> None:
    model, person = ScriptedModel([calling("Oslo", "Paris"), "Rain in both."]), Person(True)
    with desk(person) as at:
        first = sample(at, model, params(tool_choice=ToolChoice(mode="required")))
        uses = uses_in(first)
        assert [(one.name, one.input["city"]) for one in uses] == [
            ("get.weather", "Oslo"),
            ("get.weather", "Paris"),
        ]
        assert first.stop_reason == "toolUse"
        last = sample(
            at,
            model,
            params(ASK, assistant(*uses), user(*(result_of(one.id) for one in uses))),
        )
    assert last.text == "Rain in both."
    requests, releases = person.of(REQUEST), person.of(RELEASE)
    assert [payload_of(one)["tools"][0]["name"] for one in requests] == ["get.weather"] * 2
    assert payload_of(requests[0])["toolChoice"] == {"mode": "required"}
    assert [block["type"] for block in payload_of(releases[0])["content"]] == ["tool_use"] * 2
    assert model.requests[0].tool_choice == "required"
    # The results are read by the person, too, before the model has them.
    assert requests[1].view.payload.count(b"rain") == 2


def test_a_call_that_the_person_takes_out_is_not_released() -> None:
    def edit(request: ApprovalRequest) -> Decision:
        payload = payload_of(request)
        payload["content"] = payload["content"][:1]
        return request.allow(payload=json.dumps(payload).encode())

    model, person = ScriptedModel([calling("Oslo", "Paris")]), Person(True, edit)
    with desk(person) as at:
        assert [one.input["city"] for one in uses_in(sample(at, model, params()))] == ["Oslo"]


def test_an_answer_without_its_calls_cannot_say_that_it_stops_for_them() -> None:
    """Nobody but the server would know what it waits for."""

    def edit(request: ApprovalRequest) -> Decision:
        payload = payload_of(request) | {"content": {"type": "text", "text": "No."}}
        if request.risks:
            payload["stopReason"] = "endTurn"
        return request.allow(payload=json.dumps(payload).encode())

    model, person = ScriptedModel([calling("Oslo")]), Person(True, edit)
    with desk(person) as at:
        result = sample(at, model, params())
    assert (result.text, result.stop_reason) == ("No.", "endTurn")
    assert "stopReason" in person.of(RELEASE)[1].risks[0].text


@pytest.mark.parametrize("more", [{"tool_choice": ToolChoice(mode="none")}, {"tools": None}])
def test_a_call_where_none_was_to_be_made_is_released_to_nobody(more: dict[str, Any]) -> None:
    model, person = ScriptedModel([calling("Oslo")]), Person(True)
    with desk(person) as at, pytest.raises(ModelError, match="must not"):
        sample(at, model, params(**more))
    assert person.of(RELEASE) == []


def test_calls_made_before_are_defined_for_the_model_without_leave_to_make_more() -> None:
    model = ScriptedModel(["Rain."])
    asked = params(ASK, assistant(use("a")), user(result_of("a")), tools=None)
    with desk(Person(True)) as at:
        assert sample(at, model, asked).text == "Rain."
    (request,) = model.requests
    assert request.tool_choice == "none"
    blocks = request.messages[1].content
    assert isinstance(blocks, list)
    named = [one.name for one in blocks if isinstance(one, ToolUseContent)]
    assert [tool.name for tool in request.tools] == named


@pytest.mark.parametrize("ids", [("c", "c"), ("", ""), ("a", "a_2"), ("a", "a")])
def test_each_call_has_an_id_of_its_own(ids: tuple[str, str]) -> None:
    """Also among those of the calls before it, which small servers of models number anew."""
    model = ScriptedModel([calling("Oslo", "Paris", ids=ids)])
    earlier = [ASK, assistant(use("a")), user(result_of("a"))]
    with desk(Person(True)) as at:
        found = [one.id for one in uses_in(sample(at, model, params(*earlier)))]
    assert len({*found, "a"}) == 3
    assert all(found)


@duty("sampling.tools.iterations")
def test_a_loop_has_as_many_rounds_as_a_call_may_have_questions() -> None:
    model, person = ScriptedModel([calling("Oslo")] * 20), Person(True)
    settings = {
        "sampling": SamplingRules(max_per_minute=600, max_tokens_per_session=1_000_000),
        "bounds": Bounds(max_input_rounds=4),
    }
    with desk(person, **settings) as at:
        for _ in range(4):
            sample(at, model, params())
        with pytest.raises(Refused, match="too many requests"):
            sample(at, model, params())
    assert len(model.requests) == 4


def test_a_picture_in_a_result_counts_as_a_picture() -> None:
    model, person = ScriptedModel(["A cat."]), Person(True)
    asked = params(ASK, assistant(use("a")), user(result_of("a", PICTURE)))
    with desk(person) as at:
        assert sample(at, model, asked).text == "A cat."
    assert "media" in [risk.code for risk in person.of(REQUEST)[0].risks]


# --- what holds between calls and results ---------------------------------------------------------


@duty("sampling.tools.balanced", "sampling.tools.results-only", "sampling.validated")
@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([ASK, assistant(use("a"), use("a")), user(result_of("a"))], "the same id"),
        ([ASK, assistant(use("a")), user(result_of("a"), result_of("a"))], "two results"),
        ([user(use("a")), user(result_of("a"))], "of the assistant"),
        ([ASK, assistant(use("a")), assistant(result_of("a"))], "of the user"),
        ([ASK, assistant(use("a"), use("b")), user(result_of("a"))], "b have no result"),
        ([ASK, assistant(use("a")), user(result_of("a"), text("and"))], "nothing else"),
        ([ASK, assistant(use("a"))], "have no result"),
        ([ASK, user(result_of("a"))], "answers no tool use"),
        (
            [
                ASK,
                assistant(use("a")),
                user(result_of("a", ImageContent(data="?", mime_type="image/png"))),
            ],
            "base64",
        ),
    ],
)
def test_calls_and_results_must_match(messages: list[SamplingMessage], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check_sampling(params(*messages))


def test_the_same_ids_may_come_again_in_a_later_round() -> None:
    once = [assistant(use("a")), user(result_of("a"))]
    check_sampling(params(ASK, *once, *once))


def test_an_answer_with_two_calls_of_one_id_is_none() -> None:
    content: list[SamplingBlock] = [use("a"), use("a")]
    with pytest.raises(ValueError, match="the same id"):
        check_sampling_result(CreateMessageResult(role="assistant", content=content, model="m"))
    assert msgspec.json.encode(content)
