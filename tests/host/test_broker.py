"""One question, many surfaces, one answer: who answers, who does not, and what counts as one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.broker import (
    AnswerRefused,
    Asked,
    Broker,
    BrokerEvent,
    Closed,
    Joined,
    Left,
    NoAnswer,
    changed_pointers,
)
from dragoman.host.kinds import (
    Action,
    ApprovalRequest,
    Approver,
    Code,
    Decision,
    Denied,
    Effect,
    Intent,
    Problem,
    Risk,
    Scope,
    Trust,
    View,
)
from dragoman.host.pending import from_json, to_json
from dragoman.testing.clock import ManualClock
from tests.instant import InstantLoop, run_instantly

INTENT = Intent(action=Action.TOOL_CALL, server="files", identity="sha256:1", object="write")


def question(
    payload: bytes = b'{"path":"/a","text":"x"}',
    *,
    id: str = "q1",
    intent: Intent = INTENT,
    is_deduped: bool = True,
    **more: Any,
) -> ApprovalRequest:
    view = View(headline="Call the tool?", payload=payload)
    digest = view.digest(intent)
    return ApprovalRequest(
        id=id,
        intent=intent,
        view=view,
        view_digest=digest,
        why="no rule speaks of it",
        dedupe_key=digest if is_deduped else "",
        **more,
    )


class Slow:
    """An approver that answers after some time, and knows what became of it."""

    name = "slow"

    def __init__(self, after_s: float, said: Any = True) -> None:
        self.after_s = after_s
        self.said = said
        self.asked: list[str] = []
        self.was_cancelled = 0

    async def decide(self, request: ApprovalRequest) -> Decision:
        self.asked.append(request.id)
        try:
            await asyncio.sleep(self.after_s)
        except asyncio.CancelledError:
            self.was_cancelled += 1
            raise
        if isinstance(self.said, BaseException):
            raise self.said
        said = self.said(request) if callable(self.said) else self.said
        return said  # type: ignore[no-any-return]


class Never(Slow):
    """Asked, and silent."""

    def __init__(self) -> None:
        super().__init__(10_000_000.0)


def refusal(code: Code, asking: Coroutine[Any, Any, Any]) -> Denied:
    with pytest.raises(Denied) as caught:
        run_instantly(asking)
    assert caught.value.code is code
    return caught.value


# --- one surface ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "effect", "scope"),
    [
        (True, Effect.ALLOW, Scope.ONCE),
        (Effect.ALLOW, Effect.ALLOW, Scope.ONCE),
        (Scope.SESSION, Effect.ALLOW, Scope.SESSION),
        (Scope.ALWAYS, Effect.ALLOW, Scope.ALWAYS),
        (False, Effect.DENY, Scope.ONCE),
        (Effect.DENY, Effect.DENY, Scope.ONCE),
        (Effect.CANCEL, Effect.CANCEL, Scope.ONCE),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_may_answer_in_one_word(
    said: Any, effect: Effect, scope: Scope, is_async: bool
) -> None:
    async def later(request: ApprovalRequest) -> Any:
        return said

    broker = Broker([later if is_async else lambda request: said])
    decision = run_instantly(broker.ask(question()))
    assert (decision.effect, decision.scope) == (effect, scope)
    assert decision.view_digest == question().view_digest


@pytest.mark.parametrize(
    "said", [None, 1, "allow", "yes", "always", Effect.ASK, [], object(), Decision, {"effect": 1}]
)
def test_whatever_else_is_returned_is_no_yes(said: Any) -> None:
    refusal(Code.NOBODY_TO_ASK, Broker([lambda request: said]).ask(question()))


def test_an_approver_that_fails_allows_nothing_and_its_words_go_nowhere() -> None:
    def fails(request: ApprovalRequest) -> bool:
        raise RuntimeError("the secret is 4711")

    heard: list[BrokerEvent] = []
    broker = Broker([fails])
    broker.on_event(heard.append)
    denied = refusal(Code.NOBODY_TO_ASK, broker.ask(question()))
    assert "4711" not in str(denied)
    (no_answer,) = [event for event in heard if isinstance(event, NoAnswer)]
    assert "RuntimeError" in no_answer.reason
    assert "4711" not in no_answer.reason


def test_an_approver_whose_own_wait_is_cancelled_is_out() -> None:
    async def gives_up(request: ApprovalRequest) -> bool:
        raise asyncio.CancelledError

    refusal(Code.NOBODY_TO_ASK, Broker([gives_up]).ask(question()))


def test_without_anybody_it_is_refused_at_once() -> None:
    broker = Broker()
    assert not broker.can_ask
    refusal(Code.NOBODY_TO_ASK, broker.ask(question()))


def test_what_is_no_approver_is_not_taken_for_one() -> None:
    with pytest.raises(Misconfigured):
        Broker(["yes"])  # type: ignore[list-item]


def test_the_decision_says_through_which_channel_it_came() -> None:
    async def scenario() -> tuple[Decision, Decision]:
        broker = Broker([Slow(0.0, lambda r: r.allow())])
        named = await broker.ask(question())
        own = Broker([lambda r: replace(r.allow(), channel="web", actor="ann")])
        return named, await own.ask(question())

    by_name, own = run_instantly(scenario())
    assert by_name.channel == "slow"
    assert (own.channel, own.actor) == ("web", "ann")


# --- time -----------------------------------------------------------------------------------------


def test_no_answer_within_the_deadline_is_a_no() -> None:
    silent = Never()
    denied = refusal(Code.DEADLINE, Broker([silent]).ask(question(timeout_s=30.0)))
    assert "30 s" in denied.rule
    assert silent.was_cancelled == 1


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("-inf")])
def test_a_question_without_time_is_refused(timeout_s: float) -> None:
    refusal(Code.DEADLINE, Broker([Never()]).ask(question(timeout_s=timeout_s)))


def test_an_answer_that_comes_when_time_is_up_does_not_count() -> None:
    """The loop was held up: the timer has not run, but the time is over."""

    class HeldUp(ManualClock):
        late_s = 0.0

        def now(self) -> float:
            return super().now() + self.late_s

    clock = HeldUp()

    def late(request: ApprovalRequest) -> bool:
        clock.late_s = 31.0
        return True

    async def scenario() -> None:
        await Broker([late], clock).ask(question(timeout_s=30.0))

    refusal(Code.DEADLINE, scenario())


def test_a_clock_of_ones_own_counts_the_time() -> None:
    clock = ManualClock()
    broker = Broker([Never()], clock)

    async def scenario() -> None:
        asking = asyncio.ensure_future(broker.ask(question(timeout_s=30.0)))
        await asyncio.sleep(0)
        clock.advance(29.0)
        await asyncio.sleep(0)
        assert not asking.done()
        assert broker.remaining_s("q1") == 1.0
        clock.advance(1.0)
        await asking

    refusal(Code.DEADLINE, scenario())


# --- many surfaces --------------------------------------------------------------------------------


def test_the_first_answer_counts_and_the_others_are_cancelled() -> None:
    quick, slow = Slow(1.0, False), Slow(2.0, True)
    decision = run_instantly(Broker([slow, quick]).ask(question()))
    assert decision.effect is Effect.DENY
    assert (quick.was_cancelled, slow.was_cancelled) == (0, 1)


@pytest.mark.parametrize(
    "said",
    [
        RuntimeError("gone"),
        "garbage",
        lambda r: replace(r.allow(), view_digest="sha256:other"),
        lambda r: r.allow(payload=b'{"path":"/etc"}'),
    ],
    ids=["fails", "garbage", "another view", "an edit that is not allowed"],
)
def test_a_surface_without_a_valid_answer_leaves_it_to_the_others(said: Any) -> None:
    heard: list[BrokerEvent] = []
    broker = Broker([Slow(1.0, said), Slow(2.0, False)])
    broker.on_event(heard.append)
    assert run_instantly(broker.ask(question())).effect is Effect.DENY
    assert [type(event) for event in heard] == [Asked, NoAnswer, Closed]


def test_when_every_surface_is_out_it_is_refused_for_the_reason_that_says_most() -> None:
    stale = Slow(1.0, lambda r: replace(r.allow(), view_digest="sha256:other"))
    broker = Broker([stale, Slow(2.0, RuntimeError())])
    refusal(Code.VIEW_CHANGED, broker.ask(question()))


def test_a_window_is_put_away_before_whoever_asked_goes_on() -> None:
    seen: list[str] = []

    async def window(request: ApprovalRequest) -> bool:
        try:
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(0.5)
            seen.append("put away")
        return True

    async def scenario() -> None:
        await Broker([window, Slow(1.0, True)]).ask(question())
        seen.append("goes on")

    run_instantly(scenario())
    assert seen == ["put away", "goes on"]


def test_a_surface_that_does_not_let_go_holds_up_nobody_for_long() -> None:
    async def scenario() -> float:
        let_go = asyncio.Event()

        async def stubborn(request: ApprovalRequest) -> bool:
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue
            return True

        broker = Broker([stubborn, Slow(1.0, True)])
        await broker.ask(question())
        took_s = asyncio.get_running_loop().time()
        let_go.set()
        await broker.aclose()
        return took_s

    assert run_instantly(scenario()) < 3.0


def test_who_comes_later_is_asked_what_is_open_and_who_leaves_is_not_asked_any_more() -> None:
    first, second = Never(), Slow(5.0, True)

    async def scenario() -> Decision:
        broker = Broker([first])
        asking = asyncio.ensure_future(broker.ask(question()))
        await asyncio.sleep(1.0)
        broker.attach(second)
        broker.detach(first)
        return await asking

    assert run_instantly(scenario()).effect is Effect.ALLOW
    assert first.was_cancelled == 1
    assert second.asked == ["q1"]


def test_what_a_surface_says_after_it_was_detached_does_not_count() -> None:
    async def says_yes_when_told_to_stop(request: ApprovalRequest) -> bool:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000)
        return True

    async def scenario() -> Decision:
        broker = Broker([says_yes_when_told_to_stop, Slow(5.0, False)])
        asking = asyncio.ensure_future(broker.ask(question()))
        await asyncio.sleep(1.0)
        broker.detach(says_yes_when_told_to_stop)
        return await asking

    assert run_instantly(scenario()).effect is Effect.DENY


def test_when_the_last_surface_leaves_the_question_is_refused() -> None:
    async def scenario() -> None:
        surface = Never()
        broker = Broker([surface])
        asking = asyncio.ensure_future(broker.ask(question()))
        await asyncio.sleep(1.0)
        broker.detach(surface)
        assert not broker.can_ask
        await asking

    refusal(Code.NOBODY_TO_ASK, scenario())


def test_a_method_is_detached_like_any_function() -> None:
    class Desk:
        def decide_it(self, request: ApprovalRequest) -> bool:
            return True

    desk = Desk()
    broker = Broker([desk.decide_it])
    broker.detach(desk.decide_it)
    assert not broker.can_ask


def test_surfaces_run_in_their_own_context_and_not_in_that_of_whoever_asks() -> None:
    from contextvars import ContextVar

    mine: ContextVar[str] = ContextVar("mine", default="nobody's")
    seen: list[str] = []

    def surface(request: ApprovalRequest) -> bool:
        seen.append(mine.get())
        return True

    async def scenario() -> None:
        mine.set("the surface's")
        broker = Broker([surface])
        mine.set("the caller's")
        await broker.ask(question())

    run_instantly(scenario())
    assert seen == ["the surface's"]


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 brings them")
def test_it_is_the_same_where_tasks_start_at_once() -> None:
    async def scenario() -> list[Effect]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        fails = Broker([lambda r: 1, lambda r: False])
        return [(await fails.ask(question())).effect]

    assert run_instantly(scenario()) == [Effect.DENY]


# --- surfaces that are no coroutines --------------------------------------------------------------


def test_a_page_answers_what_is_pending() -> None:
    async def scenario() -> Decision:
        broker = Broker()
        with broker.watching():
            assert broker.can_ask
            asking = asyncio.ensure_future(broker.ask(question()))
            await asyncio.sleep(0)
            (request,) = broker.pending()
            broker.answer(request.id, request.allow("session"), channel="web")
            return await asking

    decision = run_instantly(scenario())
    assert (decision.scope, decision.channel) == (Scope.SESSION, "web")


def test_a_page_hears_why_its_answer_does_not_count_and_may_answer_again() -> None:
    async def scenario() -> Decision:
        broker = Broker()
        with broker.watching():
            asking = asyncio.ensure_future(broker.ask(question()))
            await asyncio.sleep(0)
            (request,) = broker.pending()
            for wrong, code in (
                (replace(request.allow(), view_digest="sha256:old"), Code.VIEW_CHANGED),
                (request.allow(payload=b"{}"), Code.PAYLOAD_CHANGED),
            ):
                with pytest.raises(AnswerRefused) as caught:
                    broker.answer(request.id, wrong)
                assert caught.value.code is code
            broker.answer(request.id, request.deny())
            with pytest.raises(AnswerRefused):
                broker.answer(request.id, request.allow())
            return await asking

    assert run_instantly(scenario()).effect is Effect.DENY


def test_when_the_last_page_closes_the_question_is_refused() -> None:
    async def scenario() -> None:
        broker = Broker()
        with broker.watching():
            asking = asyncio.ensure_future(broker.ask(question()))
            await asyncio.sleep(0)
        await asking

    refusal(Code.NOBODY_TO_ASK, scenario())


def test_an_answer_to_an_unknown_question_does_not_count() -> None:
    with pytest.raises(AnswerRefused):
        Broker().answer("q9", question().allow())


# --- the same, asked at once ----------------------------------------------------------------------


def test_twenty_that_ask_the_same_at_once_are_one_question() -> None:
    surface = Slow(1.0, True)
    heard: list[BrokerEvent] = []

    async def scenario() -> list[Decision]:
        broker = Broker([surface])
        broker.on_event(heard.append)
        return await asyncio.gather(
            *(broker.ask(question(id=f"q{number}")) for number in range(20))
        )

    decisions = run_instantly(scenario())
    assert surface.asked == ["q0"]
    assert {decision.effect for decision in decisions} == {Effect.ALLOW}
    assert [event.askers for event in heard if isinstance(event, Joined)] == list(range(2, 21))


class Watching:
    """An approver that is told how many wait, and answers when it is told to."""

    name = "watching"

    def __init__(self, say: Callable[[ApprovalRequest], Any]) -> None:
        self.say = say
        self.asked: list[ApprovalRequest] = []
        self.told: list[tuple[str, int, int]] = []
        self.go_on = asyncio.Event()

    async def decide(self, request: ApprovalRequest) -> Decision:
        self.asked.append(request)
        await self.go_on.wait()
        self.go_on.clear()
        return self.say(request)  # type: ignore[no-any-return]

    def askers_changed(self, request: ApprovalRequest) -> None:
        self.told.append((request.id, request.askers, request.up_to))


async def turns(count: int = 5) -> None:
    """Let everybody else run."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_request_says_how_many_wait_when_it_is_asked() -> None:
    surface = Watching(lambda request: request.allow())

    async def scenario() -> list[Decision]:
        broker = Broker([surface])
        asking = [asyncio.ensure_future(broker.ask(question(id=f"q{n}"))) for n in range(20)]
        await turns()
        assert [one.askers for one in broker.pending()] == [20]
        surface.go_on.set()
        return list(await asyncio.gather(*asking))

    decisions = run_instantly(scenario())
    assert [(one.askers, one.up_to) for one in surface.asked] == [(20, 20)]
    assert {decision.approval for decision in decisions} == {"q0"}


@pytest.mark.parametrize("late", [1, 5])
def test_a_yes_for_once_is_not_for_those_who_came_after_what_was_shown(late: int) -> None:
    surface = Watching(lambda request: request.allow())
    ended: list[str] = []

    async def scenario() -> list[Decision]:
        broker = Broker([surface])

        async def ask(name: str) -> Decision:
            decision = await broker.ask(question(id=name))
            ended.append(name)
            return decision

        asking = [asyncio.ensure_future(ask(f"q{n}")) for n in range(3)]
        await turns()
        asking += [asyncio.ensure_future(ask(f"late{n}")) for n in range(late)]
        await turns()
        surface.go_on.set()
        await turns(10)
        assert ended == ["q0", "q1", "q2"]
        (again,) = broker.pending()
        assert again.askers == late
        assert again.id not in {"q0", *(f"late{n}" for n in range(late))}
        surface.go_on.set()
        return list(await asyncio.gather(*asking))

    decisions = run_instantly(scenario())
    first, second = surface.asked
    assert [one.approval for one in decisions] == [first.id] * 3 + [second.id] * late
    assert [one.up_to for one in (first, second)] == [3, late]


@pytest.mark.parametrize(
    "say",
    [
        lambda request: request.deny(),
        lambda request: request.cancel(),
        lambda request: request.allow("session"),
        lambda request: request.allow("always"),
    ],
    ids=["no", "cancel", "session", "always"],
)
def test_a_no_and_a_yes_that_is_remembered_are_for_all_that_wait(
    say: Callable[[ApprovalRequest], Decision],
) -> None:
    surface = Watching(say)

    async def scenario() -> list[Decision]:
        broker = Broker([surface])
        asking = [asyncio.ensure_future(broker.ask(question(id="q0")))]
        await turns()
        asking += [asyncio.ensure_future(broker.ask(question(id=f"q{n}"))) for n in range(1, 5)]
        await turns()
        surface.go_on.set()
        return list(await asyncio.gather(*asking))

    assert len({id(decision) for decision in run_instantly(scenario())}) == 1
    assert len(surface.asked) == 1


def test_a_surface_that_hears_of_more_may_say_yes_to_them_too() -> None:
    newest: list[ApprovalRequest] = []
    surface = Watching(lambda request: newest[0].allow())

    async def scenario() -> list[Decision]:
        broker = Broker([surface])
        asking = [asyncio.ensure_future(broker.ask(question(id="q0")))]
        await turns()
        asking += [asyncio.ensure_future(broker.ask(question(id=f"q{n}"))) for n in range(1, 5)]
        await turns()
        newest.extend(broker.pending())
        surface.go_on.set()
        return list(await asyncio.gather(*asking))

    run_instantly(scenario())
    assert len(surface.asked) == 1
    assert surface.told == [("q0", n, n) for n in (2, 3, 4, 5)]


def test_who_leaves_keeps_its_number_so_that_nobody_slips_into_it() -> None:
    surface = Watching(lambda request: request.allow())
    heard: list[BrokerEvent] = []

    async def scenario() -> list[Any]:
        broker = Broker([surface])
        broker.on_event(heard.append)
        asking = [asyncio.ensure_future(broker.ask(question(id=f"q{n}"))) for n in range(3)]
        await turns()
        asking[0].cancel()
        await turns()
        # Three wait again, as when it was asked; but one of them was not there then.
        asking.append(asyncio.ensure_future(broker.ask(question(id="q3"))))
        await turns()
        assert broker.askers("q0") == 3
        surface.go_on.set()
        await turns(10)
        assert [one.done() for one in asking] == [True, True, True, False]
        surface.go_on.set()
        return await asyncio.gather(*asking, return_exceptions=True)

    run_instantly(scenario())
    assert [event.askers for event in heard if isinstance(event, Left)] == [2]
    assert surface.told == [("q0", 2, 3), ("q0", 3, 4)]
    assert len(surface.asked) == 2


def test_a_decision_without_a_number_is_for_one() -> None:
    surface = Watching(
        lambda request: Decision(effect=Effect.ALLOW, view_digest=request.view_digest)
    )

    async def scenario() -> None:
        broker = Broker([surface])
        asking = [asyncio.ensure_future(broker.ask(question(id=f"q{n}"))) for n in range(3)]
        for left in (2, 1, 0):
            await turns(10)
            surface.go_on.set()
            await turns(10)
            assert sum(not one.done() for one in asking) == left

    run_instantly(scenario())
    assert len(surface.asked) == 3


@pytest.mark.parametrize("up_to", [0, -1, 21, True, 1.0, None])
def test_a_yes_for_askers_that_there_have_not_been_does_not_count(up_to: Any) -> None:
    broker = Broker([lambda request: replace(request.allow(), up_to=up_to)])

    async def scenario() -> None:
        asking = [broker.ask(question(id=f"q{n}")) for n in range(20)]
        for outcome in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(outcome, Denied)
            assert outcome.code is Code.NOT_OFFERED
            assert outcome.approval == "q0"

    run_instantly(scenario())


def test_who_is_asked_about_again_is_refused_when_nobody_is_left() -> None:
    surface = Watching(lambda request: request.allow())

    async def scenario() -> None:
        broker = Broker([surface])
        first = asyncio.ensure_future(broker.ask(question(id="q0")))
        await turns()
        late = asyncio.ensure_future(broker.ask(question(id="q1")))
        await turns()
        surface.go_on.set()
        await first
        broker.detach(surface)
        with pytest.raises(Denied) as caught:
            await late
        assert caught.value.code is Code.NOBODY_TO_ASK

    run_instantly(scenario())


def test_a_surface_that_fails_when_it_is_told_of_more_is_asked_all_the_same() -> None:
    class Fails(Slow):
        def askers_changed(self, request: ApprovalRequest) -> None:
            raise RuntimeError

    async def scenario() -> list[Decision]:
        broker = Broker([Fails(1.0, True)])
        return await asyncio.gather(*(broker.ask(question(id=f"q{n}")) for n in range(2)))

    assert len(run_instantly(scenario())) == 2


DIFFERENT: dict[str, Callable[[], ApprovalRequest]] = {
    "another payload": lambda: question(b'{"path":"/b"}', id="q2"),
    "another server": lambda: question(id="q2", intent=replace(INTENT, server="other")),
    "another definition": lambda: question(id="q2", intent=replace(INTENT, fingerprint="x")),
    "another taint": lambda: question(id="q2", intent=replace(INTENT, taint=frozenset({"w"}))),
    "another trust": lambda: question(id="q2", intent=replace(INTENT, trust=Trust.TRUSTED)),
    "a risk": lambda: question(id="q2", risks=(Risk(code="taint", text="beware"),)),
    "fewer scopes": lambda: question(id="q2", scopes=(Scope.ONCE,)),
    "no key": lambda: question(id="q2", is_deduped=False),
}


@pytest.mark.parametrize("other", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_in_anything_shown_is_a_question_of_its_own(
    other: Callable[[], ApprovalRequest],
) -> None:
    surface = Slow(1.0, True)

    async def scenario() -> None:
        broker = Broker([surface])
        await asyncio.gather(broker.ask(question()), broker.ask(other()))

    run_instantly(scenario())
    assert surface.asked == ["q1", "q2"]


def test_what_is_asked_after_the_answer_is_asked_again() -> None:
    surface = Slow(1.0, True)

    async def scenario() -> None:
        broker = Broker([surface])
        await broker.ask(question(id="q1"))
        await broker.ask(question(id="q2"))

    run_instantly(scenario())
    assert surface.asked == ["q1", "q2"]


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_caller_that_gives_up_leaves_the_question_to_the_others(leaver: int) -> None:
    surface = Slow(2.0, True)

    async def scenario() -> Decision:
        broker = Broker([surface])
        asking = [asyncio.ensure_future(broker.ask(question(id=f"q{n}"))) for n in (0, 1)]
        await asyncio.sleep(1.0)
        asking[leaver].cancel()
        return await asking[1 - leaver]

    assert run_instantly(scenario()).effect is Effect.ALLOW
    assert surface.was_cancelled == 0


def test_a_question_nobody_waits_for_any_more_is_withdrawn() -> None:
    surface = Never()
    heard: list[BrokerEvent] = []

    async def scenario() -> list[ApprovalRequest]:
        broker = Broker([surface])
        broker.on_event(heard.append)
        asking = [asyncio.ensure_future(broker.ask(question(id=f"q{n}"))) for n in (0, 1)]
        await asyncio.sleep(1.0)
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        return broker.pending()

    assert run_instantly(scenario()) == []
    assert surface.was_cancelled == 1
    (closed,) = [event for event in heard if isinstance(event, Closed)]
    assert (closed.decision, closed.code) == (None, Code.CANCELLED)


# --- bounds and the end ---------------------------------------------------------------------------


def test_more_questions_than_can_wait_are_refused_and_the_others_stand() -> None:
    async def scenario() -> list[Any]:
        broker = Broker([Slow(1.0, True)], max_waiting=2)
        return await asyncio.gather(
            *(broker.ask(question(b'{"n":%d}' % n, id=f"q{n}")) for n in range(3)),
            return_exceptions=True,
        )

    first, second, third = run_instantly(scenario())
    assert first.effect is second.effect is Effect.ALLOW
    assert isinstance(third, Denied)
    assert third.code is Code.TOO_MANY_WAITING


def test_what_one_server_asks_by_itself_leaves_room_for_the_others() -> None:
    async def scenario() -> list[Any]:
        broker = Broker([Slow(1.0, True)], max_waiting=8)
        asks = [
            question(
                b'{"n":%d}' % n,
                id=f"{server}{n}",
                intent=Intent(action=action, server=server, identity="sha256:1", object="x"),
            )
            for server, action in (
                ("evil", Action.ELICIT_FORM),
                ("worse", Action.SAMPLING_REQUEST),
                ("files", Action.TOOL_CALL),
            )
            for n in range(4)
        ]
        return await asyncio.gather(*map(broker.ask, asks), return_exceptions=True)

    codes = [getattr(one, "code", None) for one in run_instantly(scenario())]
    few = [None, None, Code.TOO_MANY_WAITING, Code.TOO_MANY_WAITING]
    assert codes == [*few, *few, None, None, None, None]


def test_closing_refuses_what_is_open_and_whatever_comes_later() -> None:
    async def scenario() -> list[Any]:
        surface = Never()
        broker = Broker([surface])
        asking = asyncio.ensure_future(broker.ask(question()))
        await asyncio.sleep(1.0)
        await broker.aclose()
        assert surface.was_cancelled == 1
        later = broker.ask(question(id="q2"))
        return list(await asyncio.gather(asking, later, return_exceptions=True))

    for outcome in run_instantly(scenario()):
        assert isinstance(outcome, Denied)
        assert outcome.code is Code.HOST_CLOSED


def test_a_listener_that_fails_changes_nothing() -> None:
    def fails(event: BrokerEvent) -> None:
        raise RuntimeError

    heard: list[BrokerEvent] = []
    broker = Broker([lambda request: True])
    broker.on_event(fails)
    stop = broker.on_event(heard.append)

    async def scenario() -> None:
        await broker.ask(question())
        stop()
        await broker.ask(question())

    run_instantly(scenario())
    assert [type(event) for event in heard] == [Asked, Closed]


# --- what counts as an answer ---------------------------------------------------------------------


def test_a_yes_for_longer_than_was_offered_does_not_count() -> None:
    request = question(scopes=(Scope.ONCE,))
    refusal(Code.NOT_OFFERED, Broker([lambda r: Scope.ALWAYS]).ask(request))


def test_a_no_for_longer_than_was_offered_is_a_no() -> None:
    request = question(scopes=(Scope.ONCE,))
    decision = run_instantly(Broker([lambda r: r.deny("always")]).ask(request))
    assert (decision.effect, decision.scope) == (Effect.DENY, Scope.ALWAYS)


def test_an_edit_for_longer_than_once_does_not_count() -> None:
    request = question(editable=("",))
    broker = Broker([lambda r: r.allow("session", payload=b'{"path":"/b"}')])
    refusal(Code.PAYLOAD_CHANGED, broker.ask(request))


EDITS = [
    (("",), b'{"path":"/b","text":"y"}', True),
    (("",), b'{"other":1}', True),
    (("",), b"[]", False),
    (("",), b'"text"', False),
    (("",), b"null", False),
    (("/path",), b'{"path":"/b","text":"x"}', True),
    (("/path",), b'{"text":"x","path":"/a"}', True),
    (("/path",), b'{"path":"/b","text":"y"}', False),
    (("/path",), b'{"path":"/a","text":"x","path2":1}', False),
    (("/path",), b'{"text":"x"}', True),
    (("/path",), b'{"path":"/b"}', False),
    (("/path",), b'{"path":{"deep":1},"text":"x"}', True),
    (("/pat",), b'{"path":"/b","text":"x"}', False),
    ((), b'{"path":"/b","text":"x"}', False),
    ((), b'{"path":"/a","text":"x"}', True),
    ((), b'{"text":"x","path":"/a"}', False),
    (("",), b'{"path":"/a","path":"/b"}', False),
    (("",), b'{"path":NaN}', False),
    (("",), b'{"path":1e999}', False),
    (("",), b'{"path":"\\ud800"}', False),
    (("",), b"{", False),
    (("",), b"\xff", False),
    (("",), b"[" * 100_000, False),
]


@pytest.mark.parametrize(("editable", "payload", "is_fit"), EDITS)
def test_an_edit_counts_only_where_it_is_allowed_and_can_be_read_in_one_way(
    editable: tuple[str, ...], payload: bytes, is_fit: bool
) -> None:
    broker = Broker([lambda r: r.allow(payload=payload)])
    asking = broker.ask(question(editable=editable))
    if not is_fit:
        refusal(Code.PAYLOAD_CHANGED, asking)
        return
    decision = run_instantly(asking)
    unchanged = payload == question().view.payload
    assert decision.payload == (None if unchanged else payload)


def test_an_edit_that_is_no_bytes_or_too_long_does_not_count() -> None:
    wrong: list[Any] = ["{}", b'{"a":"' + b"x" * (9 << 20) + b'"}']
    for payload in wrong:
        broker = Broker([lambda r: r.allow(payload=payload)])  # noqa: B023
        refusal(Code.PAYLOAD_CHANGED, broker.ask(question(editable=("",))))


def test_a_no_carries_no_payload() -> None:
    broker = Broker([lambda r: replace(r.deny(note="why"), payload=b"{}")])
    decision = run_instantly(broker.ask(question()))
    assert (decision.payload, decision.note) == (None, "why")


def test_changes_are_named_by_their_smallest_parts() -> None:
    old = {"a": [1, 2, {"b": 1}], "c~/d": True, "e": 1}
    new = {"e": 1.0, "a": [1, 3, {"b": 1, "n": 0}, 4], "c~/d": 1}
    assert changed_pointers(old, new) == ["/a/1", "/a/2/n", "/a/3", "/c~0~1d", "/e"]
    assert changed_pointers(old, dict(reversed(old.items()))) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "a/b", "~"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), inner),
    max_leaves=8,
)


@given(JSON, JSON)
@settings(max_examples=100)
def test_two_values_are_the_same_exactly_if_nothing_is_changed(old: Any, new: Any) -> None:
    same = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    assert (changed_pointers(old, new) == []) is same


# --- properties -----------------------------------------------------------------------------------

TIMES = st.integers(0, 8).map(float)
SAYS = st.sampled_from(["yes", "no", "cancel", "fails", "garbage", "stale", "edits", "never"])


def _surface(says: str, after_s: float) -> Approver:
    match says:
        case "yes":
            return Slow(after_s, True)
        case "no":
            return Slow(after_s, False)
        case "cancel":
            return Slow(after_s, Effect.CANCEL)
        case "fails":
            return Slow(after_s, RuntimeError())
        case "stale":
            return Slow(after_s, lambda r: replace(r.allow(), view_digest="sha256:0"))
        case "edits":
            return Slow(after_s, lambda r: r.allow(payload=b"{}"))
        case "garbage":
            return Slow(after_s, 5)
    return Never()


@given(
    st.lists(st.tuples(SAYS, TIMES), min_size=1, max_size=4),
    st.lists(st.tuples(TIMES, st.none() | TIMES), min_size=1, max_size=4),
    st.integers(1, 8).map(lambda n: n + 0.5),
)
@settings(max_examples=150, deadline=None)
def test_whatever_surfaces_and_callers_do_each_question_has_one_end(
    surfaces: list[tuple[str, float]], callers: list[tuple[float, float | None]], timeout_s: float
) -> None:
    """The first valid answer to each question wins; a yes is for nobody who came after it was asked."""
    heard: list[BrokerEvent] = []
    opened_at: dict[str, float] = {}
    # When each caller came, and what it was told in the end.
    outcomes: list[tuple[float, Any]] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        broker = Broker([_surface(*one) for one in surfaces])

        def hear(event: BrokerEvent) -> None:
            heard.append(event)
            if isinstance(event, Asked):
                opened_at[event.request.id] = loop.time()

        broker.on_event(hear)

        async def caller(number: int, begins_s: float, lasts_s: float | None) -> None:
            # At times of their own: nobody comes in the very moment of an answer.
            await asyncio.sleep(begins_s + 0.1 * (number + 1))
            came_at = loop.time()
            request = question(id=f"q{number}", timeout_s=timeout_s)
            asking = asyncio.ensure_future(broker.ask(request))
            if lasts_s is not None:
                await asyncio.wait([asking], timeout=lasts_s + 0.25)
                asking.cancel()
            (outcome,) = await asyncio.gather(asking, return_exceptions=True)
            outcomes.append((came_at, outcome))

        await asyncio.gather(*(caller(n, *one) for n, one in enumerate(callers)))
        assert broker.pending() == []
        await broker.aclose()

    run_instantly(scenario())
    asked = [event.request.id for event in heard if isinstance(event, Asked)]
    closed = {event.request.id: event for event in heard if isinstance(event, Closed)}
    assert len(set(asked)) == len(asked)
    assert len([event for event in heard if isinstance(event, Closed)]) == len(asked)
    valid = sorted((after, says) for says, after in surfaces if says in ("yes", "no", "cancel"))
    for came_at, outcome in outcomes:
        if isinstance(outcome, asyncio.CancelledError):
            continue
        assert isinstance(outcome, Decision | Denied)
        end = closed[outcome.approval]
        if isinstance(outcome, Denied):
            assert outcome.code is end.code
            continue
        assert outcome is end.decision
        if outcome.effect is Effect.ALLOW:
            assert came_at <= opened_at[outcome.approval]
    for end in closed.values():
        if end.decision is None:
            # Nobody was refused although somebody had answered in time.
            if end.code is not Code.CANCELLED:
                assert not valid or valid[0][0] > timeout_s
            continue
        first = {says for after, says in valid if after == valid[0][0]}
        words = {Effect.ALLOW: "yes", Effect.DENY: "no", Effect.CANCEL: "cancel"}
        assert words[end.decision.effect] in first


def test_a_cancel_at_any_turn_of_the_loop_leaves_nothing_behind() -> None:
    for turn in range(1, 12):
        heard: list[BrokerEvent] = []

        async def scenario(turn: int = turn, heard: list[BrokerEvent] = heard) -> Any:
            broker = Broker([Slow(0.0, True), Slow(0.0, False), Never()])
            broker.on_event(heard.append)
            asking = asyncio.ensure_future(broker.ask(question()))
            loop = asyncio.get_running_loop()
            assert isinstance(loop, InstantLoop)
            loop.call_in_turn(turn, asking.cancel)
            (outcome,) = await asyncio.gather(asking, return_exceptions=True)
            assert broker.pending() == []
            return outcome

        run_instantly(scenario())
        assert len([event for event in heard if isinstance(event, Closed)]) <= 1
        assert len([event for event in heard if isinstance(event, Asked)]) == len(
            [event for event in heard if isinstance(event, Closed)]
        )


# --- as JSON --------------------------------------------------------------------------------------

TEXTS = st.text(max_size=12) | st.just("\ud800 half \u202e") | st.just('"\n')


@given(TEXTS, TEXTS, st.binary(max_size=20), st.frozensets(TEXTS, max_size=2))
@settings(max_examples=60)
def test_a_request_survives_as_json_but_for_its_id(
    text: str, other: str, payload: bytes, taint: frozenset[str]
) -> None:
    intent = Intent(
        action=Action.SAMPLING_REQUEST,
        server=text,
        identity="sha256:1",
        object=other,
        arguments={text: [1, 2.5, None, {"a": other}]},
        taint=taint,
        problems=(Problem(code=Code.BUDGET, text=text),),
    )
    view = View(headline=text, payload=payload, facts=((other, text),))
    request = ApprovalRequest(
        id="q1",
        intent=intent,
        view=view,
        view_digest=view.digest(intent),
        why=text,
        risks=(Risk(code="x", text=other),),
        scopes=(Scope.ONCE,),
        editable=("", other),
        timeout_s=12.5,
    )
    again = from_json(to_json(replace(request, askers=20, up_to=25)))
    assert again.id != "q1"
    assert replace(again, id="q1") == request


def test_an_answer_to_the_question_before_does_not_fit_the_one_that_was_read_back() -> None:
    async def scenario() -> None:
        again = from_json(to_json(question()))
        broker = Broker()
        with broker.watching():
            asking = asyncio.ensure_future(broker.ask(again))
            await asyncio.sleep(0)
            with pytest.raises(AnswerRefused):
                broker.answer("q1", question().allow())
            assert broker.pending() == [again]
            broker.answer(again.id, again.deny())
            await asking

    run_instantly(scenario())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"view":{"payload":1}}',
        to_json(question()).replace(b"/a", b"/b"),
        to_json(question()).replace(b"files", b"other"),
        to_json(question()).replace(b"tool.call", b"tool.fall"),
    ],
)
def test_what_is_no_request_or_was_changed_is_not_read(text: bytes) -> None:
    with pytest.raises(Misconfigured):
        from_json(text)


def test_an_awaitable_of_an_awaitable_is_no_answer() -> None:
    async def inner() -> bool:
        return True

    async def outer(request: ApprovalRequest) -> Awaitable[bool]:
        return asyncio.ensure_future(inner())

    refusal(Code.NOBODY_TO_ASK, Broker([outer]).ask(question()))
