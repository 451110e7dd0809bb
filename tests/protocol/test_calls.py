"""Requests under way: progress, cancellation with its races, deadlines."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dragoman.errors import DeadlineExceeded, InternalError, LocalError
from dragoman.model.base import NoParams
from dragoman.model.methods import Side
from dragoman.model.progress import ProgressParams
from dragoman.model.tools import CallToolParams
from dragoman.protocol.calls import Call
from dragoman.protocol.engine import Engine
from dragoman.protocol.events import (
    Answered,
    CancelArrived,
    Failed,
    Fault,
    FaultKind,
    LateAnswer,
    Overdue,
    ProgressArrived,
    RequestArrived,
)
from dragoman.protocol.limits import Limits
from tests.protocol.aids import (
    PARAMS,
    RESULTS,
    REVISIONS,
    answer,
    ask,
    cancelled,
    client_engine,
    failure,
    fault_kinds,
    linked,
    notification,
    only,
    open_alone,
    progress,
    request,
    sent,
    sent_one,
    tell,
)
from tests.requirements.duties import duty

TEXT_RESULT = {"content": [{"type": "text", "text": "3"}]}


def call_tool(client: Engine, *, wants_progress: bool = True, **more: Any) -> Call:
    """A call whose frame has left already."""
    call = client.request(
        "tools/call", PARAMS["tools/call"], now=0.0, wants_progress=wants_progress, **more
    )
    client.take()
    return call


# --- progress we ask for --------------------------------------------------------------------------


@duty("progress.token.unique")
def test_every_call_that_wants_progress_has_a_token_of_its_own() -> None:
    client = open_alone(Side.CLIENT)
    tokens = []
    for _ in range(20):
        client.request("tools/call", PARAMS["tools/call"], now=0.0, wants_progress=True)
        tokens.append(sent_one(client)["params"]["_meta"]["progressToken"])
    assert len(set(tokens)) == 20
    assert all(type(token) is int for token in tokens)


@duty("progress.token.unique")
@pytest.mark.parametrize("wants_progress", [False, True])
def test_a_token_that_was_passed_on_by_mistake_does_not_go_out(wants_progress: bool) -> None:
    client = open_alone(Side.CLIENT)
    params = CallToolParams.of("add", meta={"progressToken": "theirs", "trace": "t1"})
    call = client.request("tools/call", params, now=0.0, wants_progress=wants_progress)
    meta = sent_one(client)["params"]["_meta"]
    expected: dict[str, Any] = {"trace": "t1"}
    if wants_progress:
        expected["progressToken"] = call.id
    assert meta == expected
    assert params.meta == {"progressToken": "theirs", "trace": "t1"}


def test_a_meta_of_nothing_but_a_strange_token_disappears() -> None:
    client = open_alone(Side.CLIENT)
    params = NoParams(meta={"progressToken": 1})
    client.request("ping", params, now=0.0)
    assert "params" not in sent_one(client)


@duty("progress.optional")
@pytest.mark.parametrize(
    "values",
    [
        [],
        [{"progress": 1}],
        [{"progress": 0.5}, {"progress": 1, "total": 2}, {"progress": 2}],
        [{"progress": n, "total": 3, "message": f"step {n}"} for n in range(200)],
        [{"progress": -5}, {"progress": 0}, {"progress": 1e300}],
    ],
)
def test_progress_may_come_never_or_often_with_or_without_a_total(
    values: list[dict[str, Any]],
) -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    for value in values:
        message = notification("notifications/progress", {"progressToken": call.id, **value})
        arrived = only(tell(client, message), ProgressArrived)
        assert arrived.call is call
        assert arrived.params == ProgressParams(
            progress_token=call.id,
            progress=value["progress"],
            total=value.get("total"),
            message=value.get("message"),
        )
    only(tell(client, answer(call.id, TEXT_RESULT)), Answered)


@duty("progress.increases")
@pytest.mark.parametrize("value", [5, 4.999, 0, -1])
def test_progress_that_does_not_increase_is_a_fault_and_reaches_nobody(value: float) -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    tell(client, progress(call.id, 5), now=10.0)
    deadline = call.deadline
    fault = only(tell(client, progress(call.id, value), now=20.0), Fault)
    assert fault.kind is FaultKind.BACKWARD_PROGRESS
    assert call.deadline == deadline, "it is no sign of life"
    assert call.last_progress == 5


@duty("progress.tracked")
@pytest.mark.parametrize("token", [99, "2", "", "x" * 10_000])
def test_progress_for_a_token_nobody_gave_is_reported_and_reaches_no_call(token: Any) -> None:
    client = open_alone(Side.CLIENT)
    call_tool(client)
    fault = only(tell(client, progress(token, 1)), Fault)
    assert fault.kind is FaultKind.STRAY_PROGRESS
    assert len(fault.detail) < 150


@duty("progress.tracked")
def test_a_call_that_wants_no_progress_has_no_token_to_guess() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client, wants_progress=False)
    assert fault_kinds(tell(client, progress(call.id, 1), now=5.0)) == [FaultKind.STRAY_PROGRESS]
    assert call.last_progress is None


@duty("progress.tracked")
@pytest.mark.parametrize("end", ["answer", "failure"])
def test_a_token_does_not_outlive_its_request(end: str) -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    tell(client, answer(call.id, TEXT_RESULT) if end == "answer" else failure(call.id))
    assert fault_kinds(tell(client, progress(call.id, 1))) == [FaultKind.STRAY_PROGRESS]


def test_progress_that_crosses_with_a_cancellation_is_dropped_quietly() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    client.cancel(call)
    assert tell(client, progress(call.id, 1)) == []


# --- progress we report ---------------------------------------------------------------------------


@pytest.mark.parametrize("token", [0, 7, "", "abc"])
def test_progress_carries_the_token_of_its_request_with_its_type(token: Any) -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/call", token=token).exchange
    assert server.progress(exchange, 0.5, 2, "half", now=0.0)
    params = sent_one(server)["params"]
    assert params == {"progressToken": token, "progress": 0.5, "total": 2, "message": "half"}
    assert type(params["progressToken"]) is type(token)


def test_a_text_with_the_progress_needs_a_revision_that_has_it() -> None:
    server = open_alone(Side.SERVER, REVISIONS[0])
    exchange = ask(server, 1, "tools/call", token="t").exchange
    server.progress(exchange, 1, message="half", now=0.0)
    assert sent_one(server)["params"] == {"progressToken": "t", "progress": 1}
    assert len(server.drain_events()) == 1


@duty("progress.active-token")
def test_without_a_token_there_is_nothing_to_report_to() -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/call").exchange
    assert server.progress(exchange, 1, now=0.0) is False
    assert sent(server) == []


@duty("progress.increases")
def test_progress_that_does_not_increase_is_not_sent() -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/call", token="t").exchange
    told = [server.progress(exchange, value, now=0.0) for value in (1, 1, 0.5, 2, 2, 3)]
    assert told == [True, False, False, True, False, True]
    assert [message["params"]["progress"] for message in sent(server)] == [1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_progress_that_is_no_number_is_not_sent(value: float) -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/call", token="t").exchange
    assert server.progress(exchange, value, now=0.0) is False
    assert server.progress(exchange, 1, value, now=0.0) is True
    assert sent_one(server)["params"] == {"progressToken": "t", "progress": 1}


@duty("progress.in-progress", "progress.stops")
@pytest.mark.parametrize("end", ["answer", "fail", "cancel", "overdue", "close"])
def test_no_progress_follows_the_end_of_its_request(end: str) -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/call", token="t").exchange
    server.progress(exchange, 1, now=0.0)
    if end == "answer":
        server.answer(exchange, RESULTS["tools/call"])
    elif end == "fail":
        server.fail(exchange, InternalError("no"))
    elif end == "cancel":
        tell(server, cancelled(1))
    elif end == "overdue":
        server.expire(exchange.deadline)
    else:
        server.close()
    server.take()
    assert server.progress(exchange, 2, 2, now=0.0) is False
    assert sent(server) == []


@duty("progress.rate-limited")
def test_too_much_progress_is_held_back_and_its_newest_value_leaves_with_the_answer() -> None:
    limits = Limits(progress_per_s=2.0, progress_burst=3)
    server = open_alone(Side.SERVER, limits=limits)
    exchange = ask(server, 1, "tools/call", token="t").exchange
    assert [server.progress(exchange, n, now=0.0) for n in range(1, 7)] == [True] * 3 + [False] * 3
    assert [m["params"]["progress"] for m in sent(server)] == [1, 2, 3]
    assert server.progress(exchange, 7, now=0.5), "two a second in the long run"
    assert not server.progress(exchange, 8, now=0.5)
    assert not server.progress(exchange, 9, now=0.5)
    server.take()
    server.answer(exchange, RESULTS["tools/call"])
    last, reply = sent(server)
    assert last["params"]["progress"] == 9
    assert "result" in reply


@duty("progress.rate-limited")
def test_the_progress_that_reaches_its_total_passes_at_once() -> None:
    server = open_alone(Side.SERVER, limits=Limits(progress_per_s=1.0, progress_burst=1))
    exchange = ask(server, 1, "tools/call", token="t").exchange
    told = [server.progress(exchange, n, 5, now=0.0) for n in range(1, 6)]
    assert told == [True, False, False, False, True]
    assert [m["params"]["progress"] for m in sent(server)] == [1, 5]
    server.answer(exchange, RESULTS["tools/call"])
    assert "result" in sent_one(server), "what was overtaken is not sent"


def test_held_progress_that_was_overtaken_is_forgotten() -> None:
    server = open_alone(Side.SERVER, limits=Limits(progress_per_s=1.0, progress_burst=1))
    exchange = ask(server, 1, "tools/call", token="t").exchange
    assert server.progress(exchange, 1, now=0.0)
    assert not server.progress(exchange, 2, now=0.0)
    assert server.progress(exchange, 3, now=10.0)
    server.take()
    server.answer(exchange, RESULTS["tools/call"])
    assert "result" in sent_one(server)


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_held_progress_is_not_sent_for_a_request_nobody_waits_for(end: str) -> None:
    server = open_alone(Side.SERVER, limits=Limits(progress_per_s=1.0, progress_burst=1))
    exchange = ask(server, 1, "tools/call", token="t").exchange
    server.progress(exchange, 1, now=0.0)
    server.progress(exchange, 2, now=0.0)
    server.take()
    if end == "cancel":
        tell(server, cancelled(1))
    else:
        server.close()
    server.answer(exchange, RESULTS["tools/call"])
    assert sent(server) == []


def test_a_text_that_is_no_json_costs_its_progress_and_not_the_answer() -> None:
    server = open_alone(Side.SERVER, limits=Limits(progress_per_s=1.0, progress_burst=1))
    exchange = ask(server, 1, "tools/call", token="t").exchange
    with pytest.raises(ValueError, match="JSON"):
        server.progress(exchange, 1, message="\ud800", now=0.0)
    assert server.progress(exchange, 1, 9, now=1.0), "the value was not used up"
    assert server.progress(exchange, 2, 9, "\ud800", now=1.0) is False
    server.take()
    server.answer(exchange, RESULTS["tools/call"])
    assert "result" in sent_one(server)


# --- cancelling our calls -------------------------------------------------------------------------


@duty("calls.cancel.names-request", "calls.cancel.own-requests")
@pytest.mark.parametrize("side", Side)
def test_a_cancellation_names_the_request_and_the_reason(side: Side) -> None:
    engine = open_alone(side)
    call = engine.request("ping", NoParams(), now=0.0)
    engine.take()
    assert engine.cancel(call, "bored") is True
    assert sent_one(engine) == cancelled(call.id, "bored")
    assert engine.calls == {}


def test_a_cancellation_needs_no_reason() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    client.cancel(call)
    assert sent_one(client) == cancelled(call.id)


@duty("calls.cancel.own-requests", "calls.cancel.in-progress")
def test_a_call_of_another_connection_is_not_cancelled_here() -> None:
    client, other = open_alone(Side.CLIENT), open_alone(Side.CLIENT)
    ours, theirs = call_tool(client), call_tool(other)
    assert ours.id == theirs.id
    assert client.cancel(theirs) is False
    assert sent(client) == []
    assert list(client.calls.values()) == [ours]


@duty("calls.cancel.in-progress")
@pytest.mark.parametrize("end", ["answer", "failure", "bad answer", "cancel", "deadline", "close"])
def test_a_call_that_has_ended_is_not_cancelled(end: str) -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    if end == "answer":
        tell(client, answer(call.id, TEXT_RESULT))
    elif end == "failure":
        tell(client, failure(call.id))
    elif end == "bad answer":
        tell(client, answer(call.id, {}))
    elif end == "cancel":
        client.cancel(call)
    elif end == "deadline":
        client.expire(call.deadline)
    else:
        client.close()
    client.take()
    assert client.cancel(call) is False
    assert sent(client) == []


@duty("calls.cancel.never-initialize")
def test_initialize_is_never_cancelled() -> None:
    client = client_engine()
    call = client.open(now=0.0)
    client.take()
    with pytest.raises(LocalError):
        client.cancel(call, "too slow")
    assert list(client.calls.values()) == [call]
    client.expire(call.deadline)
    assert sent(client) == []


def test_a_reason_that_is_no_json_leaves_the_call_as_it_is() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    with pytest.raises(ValueError, match="JSON"):
        client.cancel(call, "\ud800")
    assert sent(client) == []
    assert client.cancel(call, "plain") is True


@duty("calls.cancel.late-answer", "calls.cancel.may-be-ignored")
@pytest.mark.parametrize("how", ["answer", "failure"])
def test_an_answer_that_comes_after_the_cancellation_is_dropped(how: str) -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    client.cancel(call)
    client.take()
    message = answer(call.id, TEXT_RESULT) if how == "answer" else failure(call.id)
    assert tell(client, message) == [LateAnswer(call.id)]
    assert fault_kinds(tell(client, message)) == [FaultKind.STRAY_ANSWER], "it is forgotten then"
    assert sent(client) == []


def test_given_up_ids_are_remembered_up_to_a_limit() -> None:
    client = open_alone(Side.CLIENT, limits=Limits(max_abandoned=3))
    calls = [call_tool(client) for _ in range(5)]
    for call in calls:
        client.cancel(call)
    kinds = [type(tell(client, answer(call.id))[0]) for call in calls]
    assert kinds == [Fault, Fault, LateAnswer, LateAnswer, LateAnswer]


# --- cancellations of the peer --------------------------------------------------------------------


@duty("calls.cancel.no-answer")
@pytest.mark.parametrize("reason", [None, "", "bored"])
def test_a_cancelled_request_gets_no_answer(reason: str | None) -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/call", token="t").exchange
    arrived = only(tell(server, cancelled(1, reason)), CancelArrived)
    assert (arrived.exchange, arrived.reason) == (exchange, reason)
    assert exchange.is_over
    assert server.exchanges == {}
    server.answer(exchange, RESULTS["tools/call"])
    server.answer_raw(exchange, b"{}")
    server.fail(exchange, InternalError("no"))
    assert server.progress(exchange, 1, now=0.0) is False
    assert sent(server) == []


@duty("calls.cancel.unknown", "calls.cancel.completed")
@pytest.mark.parametrize("ident", [99, "1", "", "never", "x" * 10_000])
def test_a_cancellation_of_nothing_is_ignored(ident: Any) -> None:
    server = open_alone(Side.SERVER)
    first = ask(server, 1, "tools/call").exchange
    second = ask(server, 2, "tools/call").exchange
    server.answer(second, RESULTS["tools/call"])
    server.take()
    for gone in (ident, 2):
        fault = only(tell(server, cancelled(gone)), Fault)
        assert fault.kind is FaultKind.STRAY_CANCEL
        assert len(fault.detail) < 150
    assert sent(server) == []
    assert list(server.exchanges.values()) == [first]


@duty("calls.cancel.malformed")
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"requestId": None},
        {"requestId": True},
        {"requestId": []},
        {"requestId": 1, "reason": 5},
    ],
)
def test_a_malformed_cancellation_is_ignored(params: dict[str, Any]) -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/call").exchange
    events = tell(server, notification("notifications/cancelled", params))
    assert fault_kinds(events) == [FaultKind.BAD_PARAMS]
    assert sent(server) == []
    server.answer(exchange, RESULTS["tools/call"])
    assert sent_one(server)["id"] == 1


def test_initialize_cannot_be_cancelled_from_outside() -> None:
    server = open_alone(Side.SERVER)
    assert fault_kinds(tell(server, cancelled("hello"))) == [FaultKind.STRAY_CANCEL]


def test_the_id_of_a_cancelled_request_may_come_again() -> None:
    server = open_alone(Side.SERVER)
    first = ask(server, 1, "tools/call").exchange
    tell(server, cancelled(1))
    second = ask(server, 1, "tools/list").exchange
    server.answer(first, RESULTS["tools/call"])
    assert sent(server) == []
    server.answer(second, RESULTS["tools/list"])
    assert sent_one(server) == answer(1, {"tools": []})


@duty("calls.cancel.race", "calls.cancel.may-be-ignored")
@pytest.mark.parametrize("side", Side)
def test_an_answer_and_a_cancellation_that_cross_harm_neither_side(side: Side) -> None:
    pair = linked()
    asker, giver = pair.engines[side], pair.engines[side.other]
    method = "tools/call" if side is Side.CLIENT else "roots/list"
    call = asker.request(method, PARAMS[method], now=0.0)
    pair.deliver(side.other)
    arrived = only(pair.new_events(side.other), RequestArrived)
    giver.answer(arrived.exchange, RESULTS[method])
    asker.cancel(call, "too late")
    pair.settle()
    assert pair.new_events(side) == [LateAnswer(call.id)]
    assert fault_kinds(pair.new_events(side.other)) == [FaultKind.STRAY_CANCEL]
    assert (asker.calls, giver.exchanges) == ({}, {})
    again = asker.request("ping", NoParams(), now=0.0)
    pair.settle()
    assert only(pair.new_events(side), Answered).call is again


@duty("calls.cancel.race")
def test_a_cancellation_that_overtakes_the_answer_leaves_silence() -> None:
    pair = linked()
    call = pair.client.request("tools/call", PARAMS["tools/call"], now=0.0)
    pair.settle()
    arrived = only(pair.new_events(Side.SERVER), RequestArrived)
    pair.client.cancel(call)
    pair.settle()
    only(pair.new_events(Side.SERVER), CancelArrived)
    pair.server.answer(arrived.exchange, RESULTS["tools/call"])
    pair.settle()
    assert pair.new_events(Side.CLIENT) == []


# --- deadlines ------------------------------------------------------------------------------------


@duty("calls.timeout", "calls.timeout.handled", "calls.timeout.cancels")
@pytest.mark.parametrize("side", Side)
def test_every_call_has_a_deadline_and_is_cancelled_when_it_passes(side: Side) -> None:
    engine = open_alone(side)
    assert engine.expire(90.0) == []
    call = engine.request("ping", NoParams(), now=100.0)
    engine.take()
    limit = Limits().call_timeout_s
    assert engine.next_deadline == 100.0 + limit
    assert engine.expire(100.0 + limit - 0.001) == []
    assert engine.next_deadline == 100.0 + limit
    failed = only(engine.expire(100.0 + limit), Failed)
    assert failed.call is call
    assert isinstance(failed.error, DeadlineExceeded)
    assert (failed.error.method, failed.error.timeout_s) == ("ping", limit)
    assert sent_one(engine)["params"]["requestId"] == call.id
    left: tuple[object, object] = (engine.calls, engine.next_deadline)
    assert left == ({}, None)
    # The session goes on; the late answer is told from a stray one.
    assert tell(engine, answer(call.id)) == [LateAnswer(call.id)]
    again = engine.request("ping", NoParams(), now=200.0)
    assert only(tell(engine, answer(again.id)), Answered).call is again


@duty("calls.timeout.per-request")
def test_the_deadline_is_each_requests_own() -> None:
    client = open_alone(Side.CLIENT)
    slow = call_tool(client, timeout_s=50.0)
    quick = call_tool(client, timeout_s=0.5)
    total = call_tool(client, timeout_s=50.0, total_s=3.0)
    assert client.next_deadline == 0.5
    assert only(client.expire(0.5), Failed).call is quick
    assert client.next_deadline == 3.0
    failed = only(client.expire(3.0), Failed)
    assert failed.call is total
    assert isinstance(failed.error, DeadlineExceeded)
    assert failed.error.timeout_s == 3.0
    assert client.next_deadline == 50.0
    assert only(client.expire(50.0), Failed).call is slow


def test_a_deadline_of_nothing_is_due_at_once() -> None:
    client = open_alone(Side.CLIENT)
    call = client.request("ping", NoParams(), now=7.0, timeout_s=0.0)
    assert only(client.expire(7.0), Failed).call is call


def test_progress_is_a_sign_of_life_and_starts_the_time_anew() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client, timeout_s=10.0)
    for now in (9.0, 18.0, 27.0):
        only(tell(client, progress(call.id, now), now=now), ProgressArrived)
        assert client.expire(now + 9.9) == []
    failed = only(client.expire(37.0), Failed)
    assert isinstance(failed.error, DeadlineExceeded)
    assert failed.error.timeout_s == 10.0


def test_a_client_that_lets_the_server_wait_grants_it_the_time() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client, timeout_s=10.0)
    asked = ask(client, 1, "sampling/createMessage").exchange
    for now in (10.0, 20.0, 30.0):
        assert client.expire(now) == []
    client.answer(asked, RESULTS["sampling/createMessage"])
    assert client.expire(40.0) == [], "the answer came between 30 and 40"
    later = client.request("tools/call", PARAMS["tools/call"], now=41.0, timeout_s=1.0)
    assert only(client.expire(42.0), Failed).call is later
    assert only(client.expire(50.0), Failed).call is call


def test_time_granted_for_an_earlier_question_is_not_granted_to_a_later_call() -> None:
    client = open_alone(Side.CLIENT)
    client.answer(
        ask(client, 1, "sampling/createMessage").exchange, RESULTS["sampling/createMessage"]
    )
    call = call_tool(client, timeout_s=10.0)
    assert only(client.expire(10.0), Failed).call is call


def test_pings_of_a_server_buy_it_no_time() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client, timeout_s=10.0)
    tell(client, request(1, "ping"), now=9.0)
    assert only(client.expire(10.0), Failed).call is call


def test_a_server_cannot_grant_itself_time_by_what_it_is_asked() -> None:
    server = open_alone(Side.SERVER)
    ask(server, 1, "tools/call")
    call = server.request("ping", NoParams(), now=0.0, timeout_s=10.0)
    assert only(server.expire(10.0), Failed).call is call


@duty("calls.timeout.maximum")
def test_however_long_a_client_lets_the_server_wait_a_call_has_a_longest_time() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client, timeout_s=10.0, total_s=25.0)
    ask(client, 1, "sampling/createMessage")
    assert client.expire(10.0) == []
    assert client.expire(20.0) == []
    assert only(client.expire(25.0), Failed).call is call


@duty("calls.timeout.maximum")
def test_however_much_progress_comes_a_call_has_a_longest_time() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client, timeout_s=10.0, total_s=25.0)
    for now in range(1, 25):
        only(tell(client, progress(call.id, now), now=float(now)), ProgressArrived)
        assert client.expire(float(now)) == []
    failed = only(client.expire(25.0), Failed)
    assert isinstance(failed.error, DeadlineExceeded)
    assert failed.error.timeout_s == 25.0


@duty("calls.timeout.maximum")
def test_there_is_a_longest_time_by_default() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    assert call.limit == Limits().call_total_s
    now, value = 0.0, 0
    while now < call.limit:
        now, value = now + 50.0, value + 1
        client.expire(now)
        tell(client, progress(call.id, value), now=now)
    assert client.calls == {}


def test_a_handler_that_takes_too_long_is_answered_for() -> None:
    server = open_alone(Side.SERVER, limits=Limits(exchange_timeout_s=30.0))
    exchange = ask(server, 1, "tools/call").exchange
    other = only(tell(server, request(2, "tools/list"), now=10.0), RequestArrived).exchange
    assert server.next_deadline == 30.0
    assert only(server.expire(30.0), Overdue).exchange is exchange
    assert exchange.is_over
    reply = sent_one(server)
    assert (reply["id"], reply["error"]["code"]) == (1, -32603)
    assert server.next_deadline == 40.0
    server.answer(exchange, RESULTS["tools/call"])
    assert sent(server) == []
    server.answer(other, RESULTS["tools/list"])
    assert sent_one(server)["id"] == 2


def test_nothing_to_wait_for_means_no_deadline() -> None:
    client = open_alone(Side.CLIENT)
    assert client.expire(1000.0) == []
    assert client.next_deadline is None
