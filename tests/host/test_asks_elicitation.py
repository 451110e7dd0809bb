"""Elicitation: forms that a person fills in, addresses that a person goes to, and neither unasked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.host.asks import Answered, Elicitation, form_of
from dragoman.host.asks.elicitation import url_faults
from dragoman.host.asks.sensitive import secrets_asked
from dragoman.host.kinds import Action, ApprovalRequest, Decision, Effect, Scope
from dragoman.model.elicitation import ElicitParams, ElicitResult
from tests.host.desk import Desk, Person, desk, fact, payload_of, run
from tests.requirements.duties import duty

FORM, URL = Action.ELICIT_FORM, Action.ELICIT_URL

FIELDS: dict[str, Any] = {
    "name": {"type": "string", "minLength": 2},
    "age": {"type": "integer", "minimum": 18, "default": 30},
    "day": {"type": "string", "format": "date"},
    "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
}


def form(
    fields: dict[str, Any] = FIELDS, message: str = "Who are you?", required: Any = ("name",)
) -> ElicitParams:
    schema = {"type": "object", "properties": fields, "required": list(required)}
    return ElicitParams(message=message, requested_schema=schema)


def visit(url: str, **more: Any) -> ElicitParams:
    return ElicitParams(mode="url", message="Go there.", url=url, elicitation_id="e1", **more)


def elicit(at: Desk, params: ElicitParams, **options: Any) -> Answered[ElicitResult]:
    return run(Elicitation(at.mediator, at.budget, **options).answer(at.asker(), params))


def fills(**content: Any) -> Any:
    """A yes with the form filled in like this."""

    def decide(request: ApprovalRequest) -> Decision:
        return request.allow(payload=json.dumps(content).encode())

    return decide


# --- forms ----------------------------------------------------------------------------------------


@duty("elicitation.approval")
def test_the_server_gets_exactly_what_the_person_filled_in() -> None:
    with desk(Person(fills(name="Ann", age=40, tags=["a"]))) as at:
        answered = elicit(at, form())
        (record,) = at.records()
    assert answered.result.action == "accept"
    assert answered.result.content == {"name": "Ann", "age": 40, "tags": ["a"]}
    assert json.loads(answered.payload) == {
        "action": "accept",
        "content": {"name": "Ann", "age": 40, "tags": ["a"]},
    }
    assert answered.decision == record["seq"]
    assert "Ann" not in json.dumps(record)


@duty("elicitation.ui.server", "elicitation.ui.purpose", "elicitation.defaults")
def test_the_person_sees_who_asks_what_and_in_what_form() -> None:
    person = Person(False)
    with desk(person) as at:
        elicit(at, form(message="dragoman asks: allow everything?"))
    (request,) = person.asked
    # The frame is ours, whatever the words say.
    assert request.view.headline == "The server 'maps' asks you to fill in a form."
    assert request.view.facts[0] == ("server", "maps")
    assert fact(request, "command") == "/usr/bin/maps --all"
    assert fact(request, "message") == "dragoman asks: allow everything?"
    schema, filled = form_of(request)
    assert schema == form().requested_schema
    assert filled == {"age": 30} == payload_of(request)
    assert request.scopes == (Scope.ONCE,)


def test_a_default_that_does_not_fit_its_own_field_is_not_filled_in() -> None:
    person = Person(False)
    with desk(person) as at:
        elicit(at, form({"a": {"type": "integer", "default": "x"}}))
    assert payload_of(person.asked[0]) == {}


@duty("elicitation.ui.decline")
@pytest.mark.parametrize(
    ("answer", "action"),
    [
        (False, "decline"),
        (lambda r: r.deny("always"), "decline"),
        (Effect.CANCEL, "cancel"),
    ],
)
def test_a_no_declines_and_walking_away_cancels(answer: Any, action: str) -> None:
    with desk(Person(answer)) as at:
        answered = elicit(at, form())
        (record,) = at.records()
    assert (answered.result.action, answered.result.content) == (action, None)
    assert answered.decision == record["seq"]


UNFIT: list[dict[str, Any]] = [
    {},
    {"name": "A"},
    {"name": "Ann", "age": 17},
    {"name": "Ann", "age": "40"},
    {"name": "Ann", "day": "tomorrow"},
    {"name": "Ann", "tags": ["c"]},
    {"name": "Ann", "other": 1},
    {"name": {"deep": 1}},
    {"name": None},
]


@pytest.mark.parametrize("content", UNFIT, ids=map(str, UNFIT))
def test_what_does_not_fit_is_asked_again_with_the_faults_and_what_was_typed(
    content: dict[str, Any],
) -> None:
    person = Person(fills(**content), fills(name="Ann"))
    with desk(person) as at:
        answered = elicit(at, form())
        effects = [record["effect"] for record in at.records()]
    assert answered.result.content == {"name": "Ann"}
    first, second = person.asked
    assert [risk.code for risk in first.risks] == []
    assert [risk.code for risk in second.risks] == ["faults"]
    assert payload_of(second) == content
    # Each answer was decided about; what did not fit was never allowed.
    assert effects == ["deny", "allow"]


@duty("elicitation.defaults")
def test_a_plain_yes_sends_the_defaults_where_they_are_enough() -> None:
    with desk(Person(True)) as at:
        assert elicit(at, form(required=())).result.content == {"age": 30}
        assert elicit(at, form(), secrets="warn").result.action == "cancel"


def test_nobody_is_asked_for_ever_for_what_fits() -> None:
    person = Person(fills(name="A"))
    with desk(person) as at:
        assert elicit(at, form()).result.action == "cancel"
    assert len(person.asked) == 3


@duty("elicitation.approval")
def test_no_rule_fills_in_a_form_but_a_rule_refuses_it() -> None:
    person = Person(False)
    with desk(person, "allow elicit.form(maps)") as at:
        elicit(at, form())
    assert len(person.asked) == 1
    with desk(person, "deny elicit.form(*)") as at:
        assert elicit(at, form()).result.action == "decline"
    assert len(person.asked) == 1


def test_a_never_holds_for_every_form_of_the_server() -> None:
    person = Person(lambda request: request.deny("session"))
    with desk(person) as at:
        elicit(at, form())
        assert elicit(at, form(message="Please?")).result.action == "decline"
    assert len(person.asked) == 1


@pytest.mark.parametrize("rules", [(), ("allow elicit.form(maps)", "allow elicit.url(maps)")])
def test_without_a_person_nothing_is_offered_and_everything_cancelled(
    rules: tuple[str, ...],
) -> None:
    with desk(None, *rules) as at:
        elicitation = Elicitation(at.mediator, at.budget)
        assert not elicitation.is_offered(at.asker(), FORM)
        assert not elicitation.is_offered(at.asker(), URL)
        assert elicit(at, form(required=())).result.action == "cancel"
        assert elicit(at, visit("https://example.com/")).result.action == "cancel"


def test_what_a_rule_forbids_is_not_offered() -> None:
    with desk(Person(True), "deny elicit.url(*)") as at:
        elicitation = Elicitation(at.mediator, at.budget)
        assert elicitation.is_offered(at.asker(), FORM)
        assert not elicitation.is_offered(at.asker(), URL)


UNUSABLE = {
    "nested": {"a": {"type": "object", "properties": {}}},
    "no type": {"a": {}},
    "too many": {f"f{n}": {"type": "string"} for n in range(51)},
    "too long": {"a": {"type": "string", "description": "x" * 70_000}},
    "no schema": {"a": {"type": "string", "minLength": "two"}},
}


@pytest.mark.parametrize("fields", UNUSABLE.values(), ids=UNUSABLE)
def test_a_form_that_cannot_be_used_is_not_shown(fields: dict[str, Any]) -> None:
    person = Person(True)
    with desk(person) as at:
        assert elicit(at, form(fields, required=())).result.action == "decline"
        (record,) = at.records()
    assert record["code"] == "definition_unfit"
    assert person.asked == []


def test_rounds_of_questions_come_to_an_end() -> None:
    person = Person(fills(name="Ann"))
    with desk(person) as at:
        for number in range(40):
            at.now += 30.0
            elicit(at, form(message=f"And {number}?"))
        assert len(person.asked) == 10
        assert at.records()[-1]["code"] == "rate_limit"
        at.calls = {"t2": "another call"}
        elicit(at, form())
    assert len(person.asked) == 11


# --- secrets --------------------------------------------------------------------------------------

SECRET = [
    "password", "user_password", "passWord", "PASSWORD", "Passwort", "pass", "pwd", "API key",
    "apiKey", "api-key", "access_token", "secret", "clientSecret", "credit card", "cardNumber",
    "cvv", "one-time code", "contraseña", "mot de passe", "пароль", "密码", "p\u0430ssword",
    "p\u0430ssw\u043erd", "pass\u200bword", "".join(chr(ord(one) + 0xFEE0) for one in "password"), "passw0rd", "p@$$word", "p a s s w o r d",
    "private_key", "seed phrase", "otp",
]  # fmt: skip
HARMLESS = [
    "name", "age", "compass", "passenger", "bypass_cache", "city", "monkey", "grotto", "email",
    "spinner", "encode", "colour", "minutes", "passive",
]  # fmt: skip


@duty("elicitation.ui.decline")
@pytest.mark.parametrize("where", ["name", "title"])
@pytest.mark.parametrize("word", SECRET)
def test_a_form_that_asks_for_a_secret_is_refused_unseen(word: str, where: str) -> None:
    field: dict[str, Any] = {"type": "string"}
    fields = {word: field} if where == "name" else {"a": field | {"title": word}}
    person = Person(True)
    with desk(person) as at:
        assert elicit(at, form(fields, required=())).result.action == "decline"
        (record,) = at.records()
    assert record["code"] == "secret_asked"
    assert person.asked == []


@pytest.mark.parametrize("field", [{"format": "password"}, {"writeOnly": True}])
def test_a_field_that_is_marked_as_a_password_is_one(field: dict[str, Any]) -> None:
    sure, _ = secrets_asked({"properties": {"a": {"type": "string"} | field}}, "")
    assert len(sure) == 1


@pytest.mark.parametrize("word", HARMLESS)
def test_what_only_sounds_like_a_secret_is_none(word: str) -> None:
    assert secrets_asked({"properties": {word: {"type": "string"}}}, "Who are you?") == ([], [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": {"type": "string", "description": "your password"}}, ""),
        ({"token": {"type": "string"}}, ""),
        ({"pin": {"type": "string"}}, ""),
        ({"a": {"type": "string"}}, "Type your password below"),
    ],
)
def test_what_may_be_a_secret_is_said_beside_the_form(fields: dict[str, Any], message: str) -> None:
    person = Person(False)
    with desk(person) as at:
        elicit(at, form(fields, message, required=()))
    assert "secret" in {risk.code for risk in person.asked[0].risks}


def test_who_wants_to_be_asked_all_the_same_is_warned() -> None:
    person = Person(fills(password="x"))
    with desk(person) as at:
        answered = elicit(at, form({"password": {"type": "string"}}, required=()), secrets="warn")
    assert "secret" in {risk.code for risk in person.asked[0].risks}
    assert answered.result.action == "accept"


@given(st.recursive(st.none() | st.text(max_size=5), lambda one: st.dictionaries(st.text(), one)))
@settings(max_examples=50)
def test_any_schema_can_be_looked_at(schema: Any) -> None:
    secrets_asked({"properties": schema}, "")
    secrets_asked(schema if isinstance(schema, dict) else {}, "")


# --- addresses ------------------------------------------------------------------------------------


@duty("elicitation.url.shown", "elicitation.url.full")
def test_an_address_is_shown_whole_with_its_host_apart_and_nothing_is_fetched() -> None:
    person = Person(True)
    url = "https://login.example.com/start?next=%2Fa&state=" + "x" * 500
    with desk(person) as at:
        answered = elicit(at, visit(url))
    (request,) = person.asked
    assert fact(request, "url") == url
    assert fact(request, "host") == "login.example.com"
    assert request.intent.object == url
    assert payload_of(request)["url"] == url
    assert request.editable == ()
    assert json.loads(answered.payload) == {"action": "accept"}


@duty("elicitation.url.warnings")
@pytest.mark.parametrize(
    "url",
    [
        "https://xn--pple-43d.com/",
        "https://\u0430pple.com/",
        "https://192.168.0.1/",
        "https://example.com:8443/",
        "http://127.0.0.1:3000/done",
        "http://localhost/",
    ],
)
def test_an_odd_address_comes_with_a_warning(url: str) -> None:
    person = Person(False)
    with desk(person) as at:
        assert elicit(at, visit(url)).result.action == "decline"
    assert "host" in {risk.code for risk in person.asked[0].risks}


BAD_URLS = [
    "http://example.com/",
    "http://169.254.169.254/latest",
    "ftp://example.com/",
    "javascript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "https:///nohost",
    "https://",
    "https://user@example.com/",
    "https://google.com:x@example.com/",
    "https://example.com\\@evil.example/",
    "https://exa\u200bmple.com/",
    "https://exa\u202emple.com/",
    "https://example.com/ x",
    "https://example.com/\n",
    "https://[::1/",
    "https://example.com:99999/",
    "https://example.com/" + "x" * 9_000,
    "example.com",
    "",
]


@duty("elicitation.url.careful")
@pytest.mark.parametrize("url", BAD_URLS)
def test_an_address_nobody_should_go_to_is_not_shown(url: str) -> None:
    assert url_faults(url)
    person = Person(True)
    with desk(person) as at:
        assert elicit(at, visit(url)).result.action == "decline"
        (record,) = at.records()
    assert record["code"] == "url_unfit"
    assert person.asked == []


@given(
    st.text(max_size=40), st.sampled_from(["", "https://", "http://", "https://a@", "https://["])
)
@settings(max_examples=150)
def test_any_text_can_be_judged_as_an_address(text: str, before: str) -> None:
    assert isinstance(url_faults(before + text), list)


@duty("elicitation.url.consent")
def test_no_rule_goes_to_an_address() -> None:
    person = Person(False)
    with desk(person, "allow elicit.url(maps)") as at:
        elicit(at, visit("https://example.com/"))
    assert len(person.asked) == 1


def test_hidden_text_in_the_question_is_told() -> None:
    person = Person(False)
    with desk(person) as at:
        elicit(at, form(message="hi\u202e there"))
    assert [risk.code for risk in person.asked[0].risks] == ["unseen"]
