"""A server that wants the user at an address before it runs a request: asked, waited for, repeated."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman import Context, Server
from dragoman.client.targets import connector_for
from dragoman.errors import (
    PeerError,
    RemoteFailure,
    RequestError,
    ToolError,
    UrlElicitationRequired,
)
from dragoman.host import ApprovalRequest, Code, Host, Scope, VisitRequired
from dragoman.host.asks.visits import MAX_ADDRESSES, MAX_ROUNDS
from dragoman.host.chain import read, verify
from dragoman.host.chat.needs import Origin
from dragoman.host.entry import HostEntry
from dragoman.host.kinds import Action, Denied, Effect, Grant, Limits
from tests.host.desk import fact
from tests.requirements.duties import duty
from tests.support import run

PAGE = "https://bank.example/consent?for=4711"


class Person:
    """Says yes to all but what it was told otherwise; a list is one answer for each question."""

    def __init__(self, **answers: Any) -> None:
        self.asked: list[ApprovalRequest] = []
        self.answers = {"tool.expose": Scope.ALWAYS} | {
            name.replace("_", "."): said for name, said in answers.items()
        }

    async def __call__(self, request: ApprovalRequest) -> Any:
        self.asked.append(request)
        said = self.answers.get(request.action, True)
        if isinstance(said, list):
            said = said.pop(0)
        if callable(said):
            said = said(request)
            if asyncio.iscoroutine(said):
                said = await said
        return said

    def of(self, action: Action) -> list[ApprovalRequest]:
        return [one for one in self.asked if one.action is action]


class Bank:
    """A server that pays only for who has been at its page: `wants` are the errors it raises first."""

    def __init__(self) -> None:
        self.server = Server("bank")
        self.wants: list[Callable[[Context], Exception]] = [self.page("e1")]
        self.calls: list[int] = []

        @self.server.tool
        async def pay(amount: int, ctx: Context) -> str:
            self.calls.append(amount)
            if self.wants:
                raise self.wants.pop(0)(ctx)
            return f"paid {amount}"

        @self.server.resource("bank://balance")
        async def balance(ctx: Context) -> str:
            if self.wants:
                raise self.wants.pop(0)(ctx)
            return "12"

    def page(self, ident: str, url: str = PAGE) -> Callable[[Context], Exception]:
        return lambda ctx: ctx.url_required("Agree to this.", url, elicitation_id=ident)

    def raises(self, *pages: dict[str, Any]) -> None:
        """It raises an error with these elicitations, as any other server might."""
        self.wants = [lambda ctx: Unchecked("first", data={"elicitations": list(pages)})]

    def ends(self, ident: str = "e1") -> None:
        self.server.elicitation_complete(ident)


class Unchecked(RequestError):
    """The error of a server that does not look at what it raises."""

    code = -32042


def url(ident: str = "e1", address: str = PAGE, **more: Any) -> dict[str, Any]:
    return {"mode": "url", "message": "Go", "elicitationId": ident, "url": address} | more


class Place:
    """A folder with a host's files, and the bank as its one server."""

    def __init__(self, folder: Path) -> None:
        self.bank = Bank()
        self.config = folder / "mcp.json"
        self.state = folder / "state"
        self.config.write_text(json.dumps({"mcpServers": {"bank": {"command": "bank"}}}))

    def host(self, person: Any, **options: Any) -> Host:
        return Host.load(self.config, approver=person, state=self.state, environ={}, **options)

    def records(self, **wanted: Any) -> list[dict[str, Any]]:
        file = self.state / "audit" / "audit.jsonl"
        assert verify(file).is_intact
        return [
            one
            for one in read(file)
            if all(one.get(name) == value for name, value in wanted.items())
        ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    # The server is in this process: the transport is the memory's.
    monkeypatch.setattr(
        HostEntry, "connector", lambda self, *args, **more: connector_for(made.bank.server)
    )
    return made


async def pay(host: Host) -> str:
    return (await host.call_tool("bank", "pay", {"amount": 5})).text


@duty("elicitation.url.full", "elicitation.url.domain", "elicitation.ui.server")
def test_the_person_is_shown_the_address_and_what_their_yes_brings_about(place: Place) -> None:
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:
            assert await pay(host) == "paid 5"

    run(main())
    assert place.bank.calls == [5, 5]
    (asked,) = person.of(Action.ELICIT_URL)
    assert fact(asked, "url") == PAGE
    assert fact(asked, "host") == "bank.example"
    assert fact(asked, "server") == "bank"
    assert fact(asked, "during") == "the call of its tool 'pay'"
    assert fact(asked, "if you agree").startswith("the call of its tool 'pay' is sent once more")
    assert asked.scopes == (Scope.ONCE,)


def test_each_sending_has_a_decision_and_an_outcome_of_its_own(place: Place) -> None:
    async def main() -> None:
        async with place.host(Person()) as host:
            await pay(host)

    run(main())
    decisions = place.records(kind="decision", action="tool.call")
    outcomes = place.records(kind="outcome", action="tool.call")
    assert [one["effect"] for one in decisions] == ["allow", "allow"]
    assert [(one["status"], one.get("error", "")) for one in outcomes] == [
        ("failed", "error -32042"),
        ("ok", ""),
    ]
    assert len({one["trace"] for one in [*decisions, *outcomes]}) == 1
    (visit,) = place.records(kind="decision", action="elicit.url")
    assert decisions[0]["seq"] < visit["seq"] < decisions[1]["seq"]


@duty("elicitation.complete.manual")
def test_a_person_says_themselves_that_they_are_done_and_sees_the_same_bytes(place: Place) -> None:
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:
            assert await pay(host) == "paid 5"

    run(main())
    first, again = person.of(Action.TOOL_CALL)
    assert again.view.payload == first.view.payload == b'{"amount":5}'
    assert again.editable == ()
    assert fact(again, "it was refused until you have been at") == PAGE


@pytest.mark.parametrize("who", ["the person", "the server"])
def test_what_a_person_has_changed_counts_as_changed_after_the_visit(
    place: Place, who: str
) -> None:
    async def done(request: ApprovalRequest) -> bool:
        if who == "the server":
            place.bank.ends()
            await asyncio.Event().wait()
        return True

    person = Person(tool_call=[lambda one: one.allow(payload=b'{"amount":3}'), done])

    async def main() -> None:
        async with place.host(person) as host:
            result = await host.call_tool("bank", "pay", {"amount": 5})
            assert (result.text, result.was_edited) == ("paid 3", True)

    run(main())
    assert place.bank.calls == [3, 3]


def test_the_word_of_the_server_repeats_the_call_and_takes_the_question_back(place: Place) -> None:
    taken_back = []

    async def wait(request: ApprovalRequest) -> bool:
        place.bank.ends()
        try:
            await asyncio.Event().wait()
        finally:
            taken_back.append(request.id)
        return False

    person = Person(tool_call=[True, wait])

    async def main() -> None:
        async with place.host(person) as host:
            assert await pay(host) == "paid 5"
            assert host.broker.pending() == []

    run(main())
    assert taken_back == [person.of(Action.TOOL_CALL)[1].id]
    *_, last = place.records(kind="decision", action="tool.call")
    assert last["rule"].startswith("the server says that it has ended")


def test_what_ended_before_the_person_answered_is_not_asked_about_again(place: Place) -> None:
    def visit(request: ApprovalRequest) -> bool:
        place.bank.ends()
        return True

    person = Person(elicit_url=_later(visit))

    async def main() -> None:
        async with place.host(person) as host:
            assert await pay(host) == "paid 5"

    run(main())
    assert len(person.of(Action.TOOL_CALL)) == 1


def _later(answer: Callable[[ApprovalRequest], bool]) -> Any:
    async def decide(request: ApprovalRequest) -> bool:
        said = answer(request)
        # What the server sent meanwhile arrives.
        for _ in range(20):
            await asyncio.sleep(0)
        return said

    return decide


def test_a_no_counts_also_when_the_server_says_that_it_has_ended_before_it_is_settled(
    place: Place,
) -> None:
    class Other:
        """Another surface, which is told to put the question away and takes its time."""

        async def decide(self, request: ApprovalRequest) -> bool:
            try:
                return await asyncio.Event().wait()
            finally:
                if request.view.headline.startswith("Are you done"):
                    place.bank.ends()
                    for _ in range(50):
                        await asyncio.sleep(0)

    person = Person(tool_call=[_later(lambda one: True), _later(lambda one: False)])

    async def main() -> None:
        async with place.host([person, Other()]) as host:
            with pytest.raises(VisitRequired) as caught:
                await pay(host)
            assert caught.value.reason is Code.PERSON_DENIED

    run(main())
    assert place.bank.calls == [5]
    *_, last = place.records(kind="decision", action="tool.call")
    assert (last["effect"], last["code"]) == ("deny", "person_denied")


@duty("elicitation.complete.unknown")
def test_the_end_of_something_else_repeats_nothing(place: Place) -> None:
    place.bank.wants = [place.bank.page("e1")]

    async def wait(request: ApprovalRequest) -> bool:
        place.bank.ends("other")
        for _ in range(20):
            await asyncio.sleep(0)
        return False

    person = Person(tool_call=[True, wait])

    async def main() -> None:
        async with place.host(person) as host:
            with pytest.raises(VisitRequired):
                await pay(host)

    run(main())
    assert place.bank.calls == [5]


@duty("elicitation.url.consent", "elicitation.ui.decline")
@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"elicit_url": False}, Code.PERSON_DENIED),
        ({"elicit_url": lambda one: one.cancel()}, Code.CANCELLED),
        ({"tool_call": [True, False]}, Code.PERSON_DENIED),
        ({"tool_call": [True, lambda one: one.cancel()]}, Code.CANCELLED),
    ],
)
def test_who_does_not_go_or_gives_up_gets_an_error_that_names_no_address(
    place: Place, answers: dict[str, Any], reason: Code
) -> None:
    async def main() -> None:
        async with place.host(Person(**answers)) as host:
            with pytest.raises(VisitRequired) as caught:
                await pay(host)
            assert caught.value.reason is reason
            assert caught.value.code == -32042
            assert "bank.example" not in str(caught.value)
            assert caught.value.data["elicitations"][0]["url"] == PAGE

    run(main())
    assert place.bank.calls == [5]
    assert [one["status"] for one in place.records(kind="outcome", action="tool.call")] == [
        "failed"
    ]


def test_a_server_that_asks_in_circles_is_left_after_a_few_rounds(place: Place) -> None:
    place.bank.wants = [place.bank.page(f"e{number}") for number in range(10)]
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:
            with pytest.raises(VisitRequired) as caught:
                await pay(host)
            assert caught.value.reason is Code.BUDGET

    run(main())
    assert len(place.bank.calls) == MAX_ROUNDS + 1
    assert len(person.of(Action.ELICIT_URL)) == MAX_ROUNDS


def test_of_several_addresses_each_is_asked_about_and_one_no_is_enough(place: Place) -> None:
    place.bank.raises(url("e1"), url("e2", PAGE + "2"), url("e3", PAGE + "3"))
    person = Person(elicit_url=[True, False])

    async def main() -> None:
        async with place.host(person) as host:
            with pytest.raises(VisitRequired):
                await pay(host)

    run(main())
    assert [fact(one, "url") for one in person.of(Action.ELICIT_URL)] == [PAGE, PAGE + "2"]
    assert place.bank.calls == [5]


def test_the_end_of_one_of_two_is_not_the_end(place: Place) -> None:
    pages = [url("e1"), url("e2", PAGE + "2")]
    place.bank.wants = [lambda ctx: UrlElicitationRequired("first", pages)]
    heard: list[str] = []

    async def wait(request: ApprovalRequest) -> bool:
        place.bank.ends("e2")
        for _ in range(20):
            await asyncio.sleep(0)
        heard.append("still asked")
        place.bank.ends("e1")
        await asyncio.Event().wait()
        return False

    async def main() -> None:
        async with place.host(Person(tool_call=[True, wait])) as host:
            assert await pay(host) == "paid 5"

    run(main())
    assert heard == ["still asked"]


@pytest.mark.parametrize(
    "pages",
    [
        (),
        (url(mode="form"),),
        (url(elicitationId=""),),
        (url("e1"), url("e1")),
        (url(address="no address"),),
        ({"mode": "url"},),
    ],
)
def test_an_error_that_cannot_be_followed_is_no_question(
    place: Place, pages: tuple[dict[str, Any], ...]
) -> None:
    place.bank.raises(*pages)
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:
            with pytest.raises(PeerError, match="cannot be followed"):
                await pay(host)

    run(main())
    assert person.of(Action.ELICIT_URL) == []


@duty("elicitation.url.careful")
@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        ((url(address="http://bank.example/"),), Code.URL_UNFIT),
        ((url(address="https://you@bank.example/"),), Code.URL_UNFIT),
        (tuple(url(f"e{number}") for number in range(MAX_ADDRESSES + 1)), Code.BUDGET),
    ],
)
def test_addresses_that_nobody_should_go_to_are_not_asked_about(
    place: Place, pages: tuple[dict[str, Any], ...], reason: Code
) -> None:
    place.bank.raises(*pages)
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:
            with pytest.raises(VisitRequired) as caught:
                await pay(host)
            assert caught.value.reason is reason

    run(main())
    assert person.of(Action.ELICIT_URL) == []


@duty("elicitation.url.warnings")
def test_a_misleading_host_is_warned_of_here_too(place: Place) -> None:
    place.bank.raises(url(address="https://xn--bnk-fla.example/"))
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:
            assert await pay(host) == "paid 5"

    run(main())
    (asked,) = person.of(Action.ELICIT_URL)
    assert any("looks like" in risk.text for risk in asked.risks)


def test_a_host_that_offered_no_addresses_follows_none(place: Place) -> None:
    place.bank.raises(url())

    async def main() -> None:
        async with place.host(Person(), rules=["deny elicit.url(*)"]) as host:
            with pytest.raises(RemoteFailure) as caught:
                await pay(host)
            assert not isinstance(caught.value, VisitRequired)

    run(main())
    assert place.bank.calls == [5]


def test_our_own_server_does_not_even_try(place: Place) -> None:
    async def main() -> None:
        async with place.host(Person(), rules=["deny elicit.url(*)"]) as host:
            with pytest.raises(ToolError, match="a client that offers"):
                await pay(host)

    run(main())


def test_a_rule_that_came_meanwhile_stops_the_second_sending(place: Place) -> None:
    """A stored no of the person counts as much, after they had agreed to the address."""
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:

            async def visit(request: ApprovalRequest) -> bool:
                host.trust("bank", "blocked")
                place.bank.ends()
                return True

            person.answers["elicit.url"] = visit
            with pytest.raises(VisitRequired) as caught:
                await pay(host)
            assert caught.value.reason is Code.SERVER_BLOCKED

    run(main())
    assert place.bank.calls == [5]


def test_a_call_that_a_rule_allowed_is_repeated_with_the_persons_word_alone(place: Place) -> None:
    person = Person()

    async def main() -> None:
        async with place.host(person, rules=["allow tool(bank/pay)"]) as host:
            assert await pay(host) == "paid 5"

    run(main())
    # The rule spares the question about the call, not the one whether they are done.
    (again,) = person.of(Action.TOOL_CALL)
    assert again.why == "the server refused it until you have been at an address"


def test_a_call_that_is_cancelled_meanwhile_leaves_no_question(place: Place) -> None:
    async def main() -> None:
        reached = asyncio.Event()

        async def wait(request: ApprovalRequest) -> bool:
            reached.set()
            await asyncio.Event().wait()
            return True

        async with place.host(Person(tool_call=[True, wait])) as host:
            call = asyncio.create_task(pay(host))
            await reached.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert host.broker.pending() == []
            place.bank.ends()

    run(main())
    assert place.bank.calls == [5]


def test_reading_goes_the_same_way(place: Place) -> None:
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:
            found = await host.read_resource("bank", "bank://balance")
            assert found.contents[0].text == "12"

    run(main())
    assert fact(person.of(Action.ELICIT_URL)[0], "if you agree").startswith(
        "the request for 'bank://balance' is sent once more"
    )


def test_a_request_that_was_refused_is_not_under_way_while_the_person_is_at_the_address(
    place: Place,
) -> None:
    seen: list[dict[str, str]] = []
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:

            async def visit(request: ApprovalRequest) -> bool:
                seen.append(dict(host._connection("bank").under_way))
                return True

            person.answers["elicit.url"] = visit
            assert await pay(host) == "paid 5"
            assert not host._connection("bank").under_way

    run(main())
    assert seen == [{}]


@pytest.mark.parametrize("calls", [1, 2])
def test_the_second_sending_is_one_of_the_calls_that_were_granted(place: Place, calls: int) -> None:
    person = Person()

    async def main() -> None:
        async with place.host(person) as host:
            await host.ready()
            intent = host._intent(Action.TOOL_CALL, "bank", "pay", {"amount": 5})
            grant = Grant(
                id="some",
                effect=Effect.ALLOW,
                principal=intent.principal,
                server="bank",
                identity=intent.identity,
                action=intent.action,
                object=intent.object,
                scope=Scope.ALWAYS,
                fingerprint=intent.fingerprint,
                limits=Limits(max_calls=calls),
                created_at=1.0,
            )
            host.grants.add(grant)

            async def visit(request: ApprovalRequest) -> bool:
                place.bank.ends()
                # As far as the host has heard that by the time it goes on.
                client = host._connection("bank").client
                assert client is not None
                await client.ping()
                return True

            person.answers["elicit.url"] = visit
            if calls == 1:
                with pytest.raises(VisitRequired) as caught:
                    await pay(host)
                assert caught.value.reason is Code.GRANT_SPENT
            else:
                assert await pay(host) == "paid 5"
            kept = host.grants.get("some")
            assert kept is not None
            assert kept.calls == calls

    run(main())
    assert place.bank.calls == [5] * calls
    assert person.of(Action.TOOL_CALL) == []


def test_a_flow_that_came_about_while_the_person_was_away_stops_the_second_sending(
    place: Place,
) -> None:
    person = Person()
    origin = Origin([], "")

    async def main() -> None:
        async with place.host(person) as host:

            async def visit(request: ApprovalRequest) -> bool:
                origin.taint.add("web")
                return True

            person.answers["elicit.url"] = visit
            with pytest.raises(VisitRequired) as caught:
                await host.call_tool("bank", "pay", {"amount": 5}, conversation=origin)
            assert caught.value.reason is Code.FLOW_DENIED

    run(main())
    assert place.bank.calls == [5]


@pytest.mark.parametrize(
    ("rules", "code", "said"),
    [
        ([], Code.FLOW_DENIED, "came about while the person thought"),
        (["allow flow(web -> server:bank)"], Code.VIEW_CHANGED, "words of 'web' came in"),
        (["deny flow(web -> server:bank)"], Code.FLOW_DENIED, "flow(web -> server:bank)"),
    ],
)
def test_what_was_heard_of_others_while_the_person_thought_is_judged_before_the_call_is_sent(
    place: Place, rules: list[str], code: Code, said: str
) -> None:
    place.bank.wants = []
    servers = {"bank": {"command": "bank"}, "web": {"command": "web", "disabled": True}}
    place.config.write_text(json.dumps({"mcpServers": servers}))
    origin = Origin([], "")

    def think(request: ApprovalRequest) -> bool:
        origin.taint.add("web")
        return True

    async def main() -> None:
        async with place.host(Person(tool_call=[think, True]), rules=rules) as host:
            with pytest.raises(Denied, match=re.escape(said)) as denied:
                await host.call_tool("bank", "pay", {"amount": 5}, conversation=origin)
            assert denied.value.code is code
            assert place.bank.calls == []
            if not any(rule.startswith("deny") for rule in rules):
                # Asked anew, with the words that came in among what is shown, it is sent.
                await host.call_tool("bank", "pay", {"amount": 5}, conversation=origin)

    run(main())
    refused = place.records(kind="decision", action="tool.call")[0]
    assert refused["code"] == code
    assert said in refused["rule"]
