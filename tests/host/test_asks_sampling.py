"""Sampling: what the model is given and what the server is given, each decided by a person."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import Refused
from dragoman.host.asks import REGENERATE, Answered, Sampling
from dragoman.host.asks.sampling import MAX_ANSWERS
from dragoman.host.kinds import (
    Action,
    ApprovalRequest,
    Decision,
    Denied,
    Effect,
    Intent,
    Scope,
)
from dragoman.host.policy import SamplingRules
from dragoman.model.content import ImageContent, TextContent
from dragoman.model.sampling import (
    CreateMessageParams,
    CreateMessageResult,
    ModelHint,
    ModelPreferences,
    SamplingMessage,
)
from dragoman.model.tools import Tool
from tests.host.desk import Desk, Person, desk, fact, payload_of, run
from tests.requirements.duties import duty

REQUEST, RELEASE = Action.SAMPLING_REQUEST, Action.SAMPLING_RELEASE


class Models:
    """Two models that say what was scripted, and remember what they were given."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers or ["blue"])
        self.given: list[tuple[str, CreateMessageParams]] = []

    def names(self) -> Sequence[str]:
        return ["local:small", "cloud:large"]

    async def answer(self, model: str, params: CreateMessageParams) -> CreateMessageResult:
        self.given.append((model, params))
        text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return CreateMessageResult(
            role="assistant", content=TextContent(text=text), model=model, stop_reason="endTurn"
        )


def params(text: str = "Which colour?", **more: Any) -> CreateMessageParams:
    message = SamplingMessage(role="user", content=TextContent(text=text))
    return CreateMessageParams(**{"messages": [message], "max_tokens": 100, **more})


def sample(
    at: Desk, models: Models, asked: CreateMessageParams | None = None, **options: Any
) -> Answered[CreateMessageResult]:
    sampling = Sampling(at.mediator, models, at.budget, **options)
    return run(sampling.answer(at.asker(), asked or params()))


def edits(**members: Any) -> Any:
    """A yes with these members changed."""

    def decide(request: ApprovalRequest) -> Decision:
        return request.allow(payload=json.dumps(payload_of(request) | members).encode())

    return decide


def again(request: ApprovalRequest) -> Decision:
    return replace(request.cancel(), note=REGENERATE)


# --- the first gate -------------------------------------------------------------------------------


@duty(
    "sampling.human",
    "sampling.informed",
    "sampling.approval",
    "trust.sampling.approved",
    "trust.sampling.whether",
)
def test_nothing_reaches_a_model_before_a_person_agreed() -> None:
    models, person = Models(), Person(False)
    with desk(person) as at, pytest.raises(Refused):
        sample(at, models)
    assert models.given == []
    (request,) = person.asked
    assert request.action is REQUEST


@duty("sampling.ui.review", "sampling.informed")
def test_the_person_sees_the_whole_of_what_the_model_is_given() -> None:
    """View fidelity: shown, approved and sent are the same."""
    models, person = Models(), Person(True)
    asked = params(
        system_prompt="Be brief.",
        temperature=0.5,
        stop_sequences=["\n"],
        tools=[Tool(name="look", input_schema={"type": "object"})],
        metadata={"a": 1},
    )
    with desk(person) as at:
        sample(at, models, asked)
    ((model, sent),) = models.given
    (request,) = person.of(REQUEST)
    shown = payload_of(request)
    assert shown == {"model": model, **msgspec.to_builtins(sent)}
    assert shown["systemPrompt"] == "Be brief."
    assert shown["includeContext"] == "none"
    assert fact(request, "server") == "maps"
    assert fact(request, "during") == "tool.call(maps/route)"
    assert fact(request, "command") == "/usr/bin/maps --all"


@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.text(max_size=5), max_size=3))
@settings(max_examples=25, deadline=None)
def test_whatever_is_written_is_shown_approved_and_sent_alike(
    text: str, system: str, stops: list[str]
) -> None:
    models, person = Models(text), Person(True)
    with desk(person) as at:
        answered = sample(at, models, params(text, system_prompt=system, stop_sequences=stops))
    ((model, sent),) = models.given
    request, release = person.asked
    assert payload_of(request) == {"model": model, **msgspec.to_builtins(sent)}
    assert sent.messages[0].content == TextContent(text=text)
    assert payload_of(release) == json.loads(answered.payload)
    assert answered.result.text == text


@duty("sampling.ui.response", "trust.sampling.visible")
def test_the_server_gets_what_the_person_made_of_the_answer_and_nothing_else() -> None:
    redacted = {"type": "text", "text": "[redacted]"}
    with desk(Person(True, edits(content=redacted))) as at:
        answered = sample(at, Models("the secret is 4711"))
    assert answered.result.text == "[redacted]"
    assert b"4711" not in answered.payload
    assert b"4711" not in msgspec.json.encode(answered.result)


@duty("sampling.ui.response", "trust.sampling.visible")
def test_a_withheld_answer_is_nowhere_in_what_the_server_is_told() -> None:
    with desk(Person(True, False)) as at, pytest.raises(Refused) as caught:
        sample(at, Models("the secret is 4711"))
    assert "4711" not in str(caught.value)


@duty("sampling.ui.edit", "trust.sampling.prompt")
def test_the_model_gets_what_the_person_made_of_the_prompt() -> None:
    models = Models()
    message = {"role": "user", "content": {"type": "text", "text": "Which flavour?"}}
    with desk(Person(edits(messages=[message], model="cloud:large"), True)) as at:
        sampling = Sampling(at.mediator, models, at.budget)
        run(sampling.answer(at.asker(), params()))
        (kept,) = sampling.kept
    ((model, sent),) = models.given
    assert model == "cloud:large"
    assert sent.messages[0].content == TextContent(text="Which flavour?")
    # Both are kept: what was asked, and what was sent.
    assert b"Which colour?" in kept.asked
    assert b"Which flavour?" in kept.sent
    assert b"Which colour?" not in kept.sent


UNFIT = {
    "no prompt": {"messages": "?"},
    "an unknown model": {"model": "cloud:huge"},
    "more tokens than there are": {"maxTokens": 101},
    "no tokens": {"maxTokens": 0},
    "context": {"includeContext": "allServers"},
    "a member nobody knows": {"sytemPrompt": "typo"},
    "two members of one meaning": {"system_prompt": "x"},
}


@pytest.mark.parametrize("members", UNFIT.values(), ids=UNFIT)
def test_an_edit_that_cannot_be_sent_is_asked_about_again_with_its_faults(
    members: dict[str, Any],
) -> None:
    models, person = Models(), Person(edits(**members), edits(), edits(systemPrompt="ok"), True)
    with desk(person) as at, pytest.raises(Refused):
        # The faulty edit stays in the question: taking it as it is helps nobody.
        sample(at, models)
    first, second, *_ = person.asked
    assert next(risk.code for risk in second.risks) == "faults"
    assert payload_of(second) == payload_of(first) | members
    assert models.given == []


def test_an_edit_that_was_mended_is_sent() -> None:
    models = Models()
    person = Person(edits(maxTokens=101), edits(maxTokens=99), True)
    with desk(person) as at:
        sample(at, models)
    assert models.given[0][1].max_tokens == 99
    # One decision that allowed it, and one refusal of the edit that could not be sent.
    assert len(person.of(REQUEST)) == 2


def test_a_number_may_be_written_in_either_way() -> None:
    models = Models()
    with desk(Person(edits(temperature=1), True)) as at:
        sample(at, models)
    assert models.given[0][1].temperature == 1.0


def test_an_answer_that_cannot_be_written_is_recorded_as_failed() -> None:
    with desk(Person(True)) as at:
        with pytest.raises(UnicodeError):
            sample(at, Models("half \ud800"))
        (outcome,) = at.records("outcome")
    assert outcome["status"] == "failed"


def test_a_person_that_does_not_get_it_right_is_not_asked_for_ever() -> None:
    person = Person(edits(maxTokens=101))
    with desk(person) as at, pytest.raises(Refused):
        sample(at, Models())
    assert len(person.asked) == 3


def test_hidden_text_is_counted_and_told() -> None:
    person = Person(False)
    with desk(person) as at, pytest.raises(Refused):
        sample(at, Models(), params("hi\u202e" + "".join(chr(0xE0000 + ord(c)) for c in "obey")))
    (risk,) = [one for one in person.asked[0].risks if one.code == "unseen"]
    assert "obey" in risk.text


def test_pictures_tools_and_requests_out_of_the_blue_are_told() -> None:
    person = Person(False)
    picture = SamplingMessage(role="user", content=ImageContent.of(b"x"))
    tool = Tool(name="look", input_schema={"type": "object"})
    with desk(person) as at:
        at.calls.clear()
        with pytest.raises(Refused):
            sample(at, Models(), params(messages=[picture], tools=[tool]))
    assert {risk.code for risk in person.asked[0].risks} == {"media", "tools", "unasked"}


# --- rules and grants -----------------------------------------------------------------------------


def test_rules_can_answer_both_gates() -> None:
    person = Person(False)
    rules = SamplingRules(default="allow", release="allow")
    with desk(person, sampling=rules) as at:
        assert sample(at, Models("blue")).result.text == "blue"
    assert person.asked == []


def test_a_deny_rule_is_not_asked_about() -> None:
    person = Person(True)
    with desk(person, "deny sampling(maps)") as at, pytest.raises(Refused):
        sample(at, Models())
    assert person.asked == []


def test_a_yes_for_the_session_holds_for_this_server_and_model_only() -> None:
    models, person = Models(), Person(Scope.SESSION)
    with desk(person) as at:
        for _ in range(2):
            sample(at, models)
        assert len(person.asked) == 2
        sampling = Sampling(at.mediator, models, at.budget)
        run(sampling.answer(at.asker("other"), params()))
        assert len(person.of(REQUEST)) == 2
        wish = ModelPreferences(hints=[ModelHint(name="large")])
        run(sampling.answer(at.asker(), params(model_preferences=wish)))
        assert len(person.of(REQUEST)) == 3


@duty("trust.sampling.whether")
def test_a_never_is_remembered() -> None:
    person = Person(lambda request: request.deny("always"))
    with desk(person) as at:
        for _ in range(3):
            with pytest.raises(Refused):
                sample(at, Models())
    assert len(person.asked) == 1


def test_only_models_that_the_rules_name_are_chosen() -> None:
    models = Models()
    wish = ModelPreferences(hints=[ModelHint(name="large")])
    with desk(Person(True), sampling=SamplingRules(models=("local:*",))) as at:
        sample(at, models, params(model_preferences=wish))
    assert models.given[0][0] == "local:small"


def test_a_hint_chooses_and_its_wishes_are_shown() -> None:
    models, person = Models(), Person(True)
    wish = ModelPreferences(hints=[ModelHint(name="large")], cost_priority=1.0)
    with desk(person) as at:
        sample(at, models, params(model_preferences=wish))
    assert models.given[0][0] == "cloud:large"
    assert "large" in fact(person.asked[0], "it wishes for")


def test_without_a_model_that_may_be_used_it_is_refused_and_recorded() -> None:
    with desk(Person(True), sampling=SamplingRules(models=("none:*",))) as at:
        assert not Sampling(at.mediator, Models(), at.budget).is_offered(at.asker())
        with pytest.raises(Refused):
            sample(at, Models())
        (record,) = at.records()
    assert record["code"] == "not_offered"


def test_words_for_a_model_may_be_forbidden_as_a_flow() -> None:
    models, person = Models(), Person(True)
    with desk(person, "deny flow(* -> model:local)") as at:
        with pytest.raises(Refused):
            sample(at, models)
        assert [record["code"] for record in at.records()] == ["flow_denied"]
    assert (models.given, person.asked) == ([], [])


def test_an_edit_cannot_choose_a_model_that_a_flow_forbids() -> None:
    models = Models()
    person = Person(edits(model="cloud:large"))
    with desk(person, "deny flow(* -> model:cloud)") as at, pytest.raises(Refused):
        sample(at, models)
    assert models.given == []


def test_a_flow_that_has_to_be_asked_about_is_asked_with_the_prompt() -> None:
    person = Person(True)
    rules = SamplingRules(default="allow", release="allow")
    with desk(person, "ask flow(* -> model:local)", sampling=rules) as at:
        sample(at, Models())
    assert [request.action for request in person.asked] == [REQUEST]
    assert "local" in person.asked[0].why


@duty("sampling.approval", "trust.sampling.approved")
def test_when_nobody_can_be_asked_nothing_is_offered_or_sent() -> None:
    models = Models()
    with desk(None) as at:
        assert not Sampling(at.mediator, models, at.budget).is_offered(at.asker())
        with pytest.raises(Refused):
            sample(at, models)
        (record,) = at.records()
    assert record["code"] == "nobody_to_ask"
    assert models.given == []


def test_rules_alone_can_offer_it_to_a_program_without_a_person() -> None:
    with desk(None, sampling=SamplingRules(default="allow", release="allow")) as at:
        assert Sampling(at.mediator, Models(), at.budget).is_offered(at.asker())
        assert sample(at, Models("blue")).result.text == "blue"
    with desk(None, sampling=SamplingRules(default="allow", release="ask")) as at:
        assert not Sampling(at.mediator, Models(), at.budget).is_offered(at.asker())


# --- context --------------------------------------------------------------------------------------


WORDS = {"maps": "a map", "mail": "a letter", "files": "a file"}


def words(server: str) -> dict[str, str]:
    """Words of three servers, as the conversation might hold them that a call is made for."""
    return WORDS if server == "maps" else {}


def brings(wanted: str) -> Any:
    return edits(includeContext=wanted)


def texts(sent: CreateMessageParams) -> str:
    return json.dumps(msgspec.to_builtins(sent))


@duty("sampling.discretion")
@pytest.mark.parametrize("wanted", ["thisServer", "allServers"])
def test_context_that_nobody_granted_is_none(wanted: str) -> None:
    models, person = Models(), Person(True)
    with desk(person) as at:
        sample(at, models, params(include_context=wanted), context=words)
    ((_, sent),) = models.given
    assert sent.include_context == "none"
    assert not any(one in texts(sent) for one in WORDS.values())
    assert fact(person.asked[0], "context") == f"it asks for {wanted}, and gets nothing"


def test_context_comes_from_those_whose_flow_is_allowed_and_is_shown() -> None:
    models, person = Models(), Person(True)
    with desk(person, "allow flow(mail -> server:maps)") as at:
        asked = params(include_context="allServers", system_prompt="Be brief.")
        sample(at, models, asked, context=words)
        (outcome,) = at.records("outcome")[:1]
    ((_, sent),) = models.given
    # Not among the system's words: there a model takes it for orders.
    assert sent.system_prompt == "Be brief."
    first, second = payload_of(person.asked[0])["messages"]
    assert "'mail'" in first["content"]["text"]
    assert first["content"]["text"].endswith("a letter")
    assert first["role"] == "user"
    assert second["content"]["text"] == "Which colour?"
    assert fact(person.asked[0], "context") == "it asks for allServers, and gets the words of mail"
    assert fact(person.asked[1], "words in the prompt") == "mail"
    assert outcome["details"]["context"] == ["mail"]


@pytest.mark.parametrize(
    ("wanted", "given", "come_in"),
    [
        ("thisServer", "thisServer", ["maps"]),
        ("allServers", "thisServer", ["maps"]),
        ("allServers", "allServers", ["maps", "mail", "files"]),
    ],
)
def test_a_person_brings_words_in_and_sees_them_before_they_go_out(
    wanted: str, given: str, come_in: list[str]
) -> None:
    models = Models()
    person = Person(brings(given), True)
    with desk(person) as at:
        sample(at, models, params(include_context=wanted), context=words)
        refused, allowed = (one for one in at.records() if one["action"] == REQUEST)
        outcome = at.records("outcome")[0]
    first, second = person.of(REQUEST)
    assert "includeContext" in fact(first, "to give it context")
    assert not any(one in first.view.payload.decode() for one in WORDS.values())
    # The second shows all of it, is for this once, and is what is sent.
    assert [risk.code for risk in second.risks][:1] == ["filled_in"]
    assert second.scopes == (Scope.ONCE,)
    ((model, sent),) = models.given
    assert payload_of(second) == {"model": model, **msgspec.to_builtins(sent)}
    assert [one for one in WORDS if WORDS[one] in texts(sent)] == come_in
    assert (refused["effect"], allowed["effect"]) == ("deny", "allow")
    assert outcome["details"]["context"] == come_in


@pytest.mark.parametrize("wanted", ["none", "thisServer"])
def test_a_person_gives_no_more_than_was_asked_for(wanted: str) -> None:
    models = Models()
    person = Person(brings("allServers"))
    with desk(person) as at, pytest.raises(Refused):
        sample(at, models, params(include_context=wanted), context=words)
    assert models.given == []
    assert person.asked[-1].risks[0].code == "faults"


def test_words_that_came_in_are_not_brought_in_twice() -> None:
    models = Models()
    person = Person(brings("allServers"))
    with desk(person) as at, pytest.raises(Refused):
        sample(at, models, params(include_context="allServers"), context=words)
    assert models.given == []
    assert person.asked[-1].view.payload.count(b"a letter") == 1


@pytest.mark.parametrize(
    "rule",
    [
        "deny flow(mail -> server:maps)",
        "deny flow(mail -> model:local)",
        "deny flow(mail -> model:*)",
    ],
)
def test_words_that_a_rule_keeps_back_are_not_there_to_be_given(rule: str) -> None:
    models = Models()
    person = Person(brings("allServers"), True)
    with desk(person, rule) as at:
        sample(at, models, params(include_context="allServers"), context=words)
    ((_, sent),) = models.given
    assert [one for one in WORDS if WORDS[one] in texts(sent)] == ["maps", "files"]
    assert "mail" not in fact(person.asked[0], "to give it context")


def test_words_kept_from_one_provider_do_not_follow_an_edit_to_it() -> None:
    models = Models()
    person = Person(brings("allServers"), edits(model="cloud:large"))
    with desk(person, "deny flow(mail -> model:cloud)") as at, pytest.raises(Refused):
        sample(at, models, params(include_context="allServers"), context=words)
    assert models.given == []


def test_without_a_word_of_the_person_a_kept_yes_brings_nothing_in() -> None:
    """Neither a yes to all prompts of this server, nor rules that allow them."""
    models = Models()
    settings = SamplingRules(default="allow", release="allow")
    with desk(Person(False), sampling=settings) as at:
        sample(at, models, params(include_context="allServers"), context=words)
    ((_, sent),) = models.given
    assert not any(one in texts(sent) for one in WORDS.values())


def test_a_rule_that_asks_about_the_way_to_the_model_is_asked_about() -> None:
    models, person = Models(), Person(True)
    rules = ("allow flow(mail -> server:maps)", "ask flow(mail -> model:local)")
    settings = SamplingRules(default="allow", release="allow")
    with desk(person, *rules, sampling=settings) as at:
        sample(at, models, params(include_context="allServers"), context=words)
    (asked,) = person.of(REQUEST)
    assert "mail -> model:local" in asked.why


def test_context_counts_against_the_tokens_of_the_server() -> None:
    settings = SamplingRules(max_tokens_per_session=200)
    long = {"maps": "word " * 400}
    with desk(Person(True), "allow flow(maps -> server:maps)", sampling=settings) as at:
        asked = params(include_context="thisServer")
        with pytest.raises(Refused, match="tokens"):
            sample(at, Models(), asked, context=lambda server: long)
        assert sample(at, Models(), params()).result.text == "blue"


# --- the second gate ------------------------------------------------------------------------------


def test_another_answer_is_asked_for_as_often_as_is_sensible() -> None:
    models = Models("one", "two", "three")
    person = Person(True, again, True)
    with desk(person) as at:
        assert sample(at, models).result.text == "two"
    assert len(models.given) == 2
    assert len(person.of(REQUEST)) == 1


def test_another_answer_is_not_asked_for_without_end() -> None:
    models, person = Models(), Person(True, again)
    with desk(person) as at, pytest.raises(Refused):
        sample(at, models)
    assert len(models.given) == MAX_ANSWERS


def test_a_cancel_is_no_wish_for_another_answer() -> None:
    models = Models()
    with desk(Person(True, Effect.CANCEL)) as at, pytest.raises(Refused):
        sample(at, models)
    assert len(models.given) == 1


@pytest.mark.parametrize(
    "members",
    [
        {"role": "user"},
        {"content": {"type": "tool_result", "toolUseId": "1", "content": []}},
        {"content": {"type": "image", "data": "?", "mimeType": "image/png"}},
        {"secret": 1},
    ],
)
def test_an_edited_answer_must_be_one(members: dict[str, Any]) -> None:
    person = Person(True, edits(**members))
    with desk(person) as at, pytest.raises(Refused):
        sample(at, Models())
    assert [risk.code for risk in person.asked[-1].risks] == ["faults"]


# --- how much -------------------------------------------------------------------------------------


def test_a_hundred_requests_in_a_minute_are_six_questions() -> None:
    person = Person(False)
    with desk(person) as at:
        for number in range(100):
            with pytest.raises(Refused) as caught:
                sample(at, Models(), params(f"n {number}"))
        codes = [record["code"] for record in at.records()]
        assert len(person.asked) == 6
        # The 1st, 2nd, 4th, ... 64th: a server must not fill the disk.
        assert codes.count("rate_limit") == 7
        assert "too many requests" in str(caught.value)
        at.now = 61.0
        with pytest.raises(Refused):
            sample(at, Models())
    assert len(person.asked) == 7


def test_rounds_within_one_call_come_to_an_end() -> None:
    person = Person(False)
    with desk(person) as at:
        for number in range(50):
            at.now += 61.0
            with pytest.raises(Refused):
                sample(at, Models(), params(f"n {number}"))
    assert len(person.asked) == 10


def test_a_request_gets_no_more_tokens_than_rules_allow_and_the_person_sees_it() -> None:
    models, person = Models(), Person(True)
    with desk(person, sampling=SamplingRules(max_tokens_per_request=50)) as at:
        sample(at, models, params(max_tokens=1_000_000))
    assert models.given[0][1].max_tokens == 50
    assert "1000000" in fact(person.asked[0], "tokens")


def test_a_session_has_only_so_many_tokens() -> None:
    models, person = Models("x" * 200), Person(True)
    with desk(person, sampling=SamplingRules(max_tokens_per_session=150)) as at:
        sample(at, models)
        sample(at, models)
        while at.budget("maps").tokens < 140:
            sample(at, models)
        with pytest.raises(Refused) as caught:
            sample(at, models)
        assert at.records()[-1]["code"] == "budget"
    granted = [sent.max_tokens for _, sent in models.given]
    assert granted[0] == 100 > granted[1] > granted[-1]
    assert "tokens" in str(caught.value)


def test_a_refused_request_costs_no_tokens() -> None:
    with desk(Person(False)) as at:
        for _ in range(3):
            with pytest.raises(Refused):
                sample(at, Models())
        assert at.budget("maps").tokens == 0


def test_two_at_once_cannot_spend_the_same_tokens() -> None:
    models = Models("x" * 4)

    async def scenario(at: Desk) -> list[Any]:
        sampling = Sampling(at.mediator, models, at.budget)
        asked = [sampling.answer(at.asker(), params(f"n {n}")) for n in range(5)]
        return await asyncio.gather(*asked, return_exceptions=True)

    with desk(Person(True), sampling=SamplingRules(max_tokens_per_session=250)) as at:
        outcomes = run(scenario(at))
        assert sum(sent.max_tokens for _, sent in models.given) <= 250
        assert any(isinstance(one, Refused) for one in outcomes)
        assert at.budget("maps").tokens < 250


# --- what is told and what is recorded ------------------------------------------------------------


def test_the_server_does_not_learn_which_rule_or_file_refused_it() -> None:
    with desk(Person(True), "deny sampling(maps/local:*)") as at, pytest.raises(Refused) as caught:
        sample(at, Models())
    assert not isinstance(caught.value, Denied)
    assert caught.value.rule == "declined"


def test_the_server_is_told_what_the_person_says_to_it() -> None:
    person = Person(lambda request: request.deny(note="ask me\nlater"))
    with desk(person) as at, pytest.raises(Refused) as caught:
        sample(at, Models())
    assert caught.value.rule == "ask me later"


def test_each_gate_leaves_a_decision_before_and_an_outcome_after() -> None:
    with desk(Person(True)) as at:
        answered = sample(at, Models())
        decisions, outcomes = at.records(), at.records("outcome")
    assert [one["action"] for one in decisions] == [REQUEST, RELEASE]
    assert {one["effect"] for one in decisions} == {"allow"}
    assert len({one["trace"] for one in decisions}) == 1
    assert [one["status"] for one in outcomes] == ["ok", "ok"]
    assert decisions[1]["seq"] == answered.decision
    assert decisions[0]["seq"] < outcomes[0]["seq"]


def test_a_model_that_fails_is_recorded_and_its_words_are_not_told() -> None:
    class Broken(Models):
        async def answer(self, model: str, params: CreateMessageParams) -> CreateMessageResult:
            raise RuntimeError("key sk-4711 was rejected")

    with desk(Person(True)) as at:
        with pytest.raises(RuntimeError):
            sample(at, Broken())
        (outcome,) = at.records("outcome")
        # The prompt was used up, the answer was not.
        assert at.budget("maps").tokens < 100
    assert (outcome["status"], outcome["error"]) == ("failed", "RuntimeError")
    assert "sk-4711" not in json.dumps(outcome)


@pytest.mark.parametrize("stage", ["request", "model", "release"])
def test_a_request_that_is_cancelled_leaves_no_open_record(stage: str) -> None:
    reached = asyncio.Event()

    async def silent(request: ApprovalRequest) -> Any:
        if (request.action is RELEASE) is (stage == "release"):
            reached.set()
            await asyncio.sleep(1_000)
        return True

    class Slow(Models):
        async def answer(self, model: str, params: CreateMessageParams) -> CreateMessageResult:
            if stage == "model":
                reached.set()
                await asyncio.sleep(1_000)
            return await super().answer(model, params)

    person = Person(silent if stage != "model" else True)

    async def scenario(at: Desk) -> None:
        sampling = Sampling(at.mediator, Slow(), at.budget)
        asking = asyncio.ensure_future(sampling.answer(at.asker(), params()))
        await reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert at.broker.pending() == []

    with desk(person) as at:
        run(scenario(at))
        allowed = [one for one in at.records() if one["effect"] == "allow"]
        assert len(at.records("outcome")) == len(allowed) == (0 if stage == "request" else 1)


def test_the_identity_may_change_while_the_person_thinks() -> None:
    """The intent is made anew after the answer: what is wrong by then refuses it."""
    models = Models()
    with desk(Person(True)) as at:
        asker = at.asker()
        made: list[Intent] = []

        def intent(action: Action, object: str = "", **more: Any) -> Intent:
            from dragoman.host.kinds import Trust

            trust = (
                Trust.CHANGED if at.mediator.broker.pending() or len(made) > 2 else Trust.UNKNOWN
            )
            one = replace(asker.intent(action, object, **more), trust=trust)
            if action is REQUEST:
                made.extend([one] * 3)
            return one

        sampling = Sampling(at.mediator, models, at.budget)
        with pytest.raises(Refused):
            run(sampling.answer(replace(asker, intent=intent), params()))
        assert at.records()[-1]["code"] == "identity_changed"
    assert models.given == []


def test_only_so_much_is_kept() -> None:
    with desk(Person(False)) as at:
        sampling = Sampling(at.mediator, Models(), at.budget)
        for number in range(80):
            at.now += 61.0
            at.calls = {f"t{number}": "a call"}
            with pytest.raises(Refused):
                run(sampling.answer(at.asker(), params("x" * 400_000)))
    assert len(sampling.kept) <= 64
    assert sum(one.size for one in sampling.kept) <= 16 * 1024 * 1024
