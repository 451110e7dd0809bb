"""Arrays of messages: taken where the revision has them, refused whole elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.jsonrpc.frame import Delivery
from dragoman.model.base import NoParams
from dragoman.model.methods import Side
from dragoman.protocol.engine import Engine
from dragoman.protocol.events import (
    Answered,
    CancelArrived,
    Failed,
    Fault,
    FaultKind,
    NotificationArrived,
    Overdue,
    ProgressArrived,
    RequestArrived,
)
from dragoman.protocol.limits import Limits
from dragoman.revisions.registry import HANDSHAKE
from tests.protocol.aids import (
    FULL_CLIENT,
    PARAMS,
    RESULTS,
    answer,
    cancelled,
    client_engine,
    failure,
    fault_kinds,
    hello,
    notification,
    only,
    open_alone,
    progress,
    request,
    sent,
    sent_one,
    server_engine,
    tell,
)
from tests.requirements.duties import duty

WITH = [dialect.wire for dialect in HANDSHAKE if dialect.facts.takes_batches]
WITHOUT = [dialect.wire for dialect in HANDSHAKE if not dialect.facts.takes_batches]

with_batches = pytest.mark.parametrize("revision", WITH)
without_batches = pytest.mark.parametrize("revision", WITHOUT)

CALL = {"name": "add"}


def exchanges(events: list[Any]) -> list[Any]:
    return [event.exchange for event in events if isinstance(event, RequestArrived)]


def test_the_revisions_are_told_apart() -> None:
    assert (WITH, WITHOUT) == (["2024-11-05", "2025-03-26"], ["2025-06-18", "2025-11-25"])


@duty("jsonrpc.batch.received", "jsonrpc.batch.answers")
@with_batches
def test_the_answers_to_a_batch_leave_together_once_the_last_is_there(revision: str) -> None:
    server = open_alone(Side.SERVER, revision)
    events = tell(
        server,
        [
            request(1, "tools/call", CALL),
            notification("notifications/roots/list_changed"),
            request("p", "ping"),
            request(2, "tools/list"),
        ],
    )
    first, second = exchanges(events)
    assert [type(event) for event in events] == [
        RequestArrived,
        NotificationArrived,
        RequestArrived,
    ]
    assert sent(server) == []
    server.answer(second, RESULTS["tools/list"])
    assert sent(server) == []
    server.answer(first, RESULTS["tools/call"])
    replies = sent_one(server)
    assert {reply["id"] for reply in replies} == {1, 2, "p"}
    assert len(replies) == 3
    assert server.exchanges == {}


@duty("jsonrpc.batch.answers")
@with_batches
def test_an_array_of_notifications_gets_no_answer(revision: str) -> None:
    server = open_alone(Side.SERVER, revision)
    message = notification("notifications/roots/list_changed")
    events = tell(server, [message, message])
    assert [type(event) for event in events] == [NotificationArrived] * 2
    assert sent(server) == []


@duty("jsonrpc.batch.answers")
@pytest.mark.parametrize("revision", [*WITH, *WITHOUT])
def test_an_empty_array_is_an_invalid_request(revision: str) -> None:
    server = open_alone(Side.SERVER, revision)
    assert fault_kinds(tell(server, [])) == [FaultKind.UNREADABLE]
    assert sent_one(server)["error"]["code"] == -32600


@duty("jsonrpc.batch.answers")
@with_batches
def test_every_bad_member_gets_its_own_error_and_the_good_ones_are_served(revision: str) -> None:
    server = open_alone(Side.SERVER, revision)
    events = tell(
        server,
        [
            1,
            [request(8, "ping")],
            {"jsonrpc": "2.0", "method": 5, "id": 3},
            request(4, "nonsense"),
            request(5, "tools/call", {"name": 7}),
            request(6, "ping"),
            request(None, "ping"),
        ],
    )
    assert fault_kinds(events) == [
        FaultKind.UNREADABLE,
        FaultKind.UNREADABLE,
        FaultKind.UNREADABLE,
        FaultKind.UNKNOWN_METHOD,
        FaultKind.BAD_PARAMS,
        FaultKind.UNREADABLE,
    ]
    replies = [(r["id"], r.get("error", {}).get("code")) for r in sent_one(server)]
    assert replies == [
        (None, -32600),
        (None, -32600),
        (3, -32600),
        (4, -32601),
        (5, -32602),
        (6, None),
        (None, -32600),
    ]


@with_batches
def test_a_client_takes_a_batch_of_answers_progress_and_requests(revision: str) -> None:
    client = open_alone(Side.CLIENT, revision)
    calls = [
        client.request("tools/call", PARAMS["tools/call"], now=0.0, wants_progress=True)
        for _ in range(3)
    ]
    client.take()
    events = tell(
        client,
        [
            progress(calls[0].id, 1),
            answer(calls[1].id, {"content": []}),
            failure(calls[0].id),
            answer(99),
            {"jsonrpc": "2.0", "id": calls[2].id, "result": 5},
            request("r", "roots/list"),
        ],
    )
    assert [type(event) for event in events] == [
        ProgressArrived,
        Answered,
        Failed,
        Fault,
        Fault,
        Failed,
        RequestArrived,
    ]
    assert client.calls == {}
    client.answer(exchanges(events)[0], RESULTS["roots/list"])
    [reply] = sent_one(client)
    assert reply["id"] == "r"


@with_batches
def test_a_batch_with_nothing_but_answers_is_not_answered(revision: str) -> None:
    client = open_alone(Side.CLIENT, revision)
    call = client.request("ping", NoParams(), now=0.0)
    client.take()
    only(tell(client, [answer(call.id)]), Answered)
    assert sent(client) == []


@with_batches
def test_an_id_twice_in_one_batch_is_refused_the_second_time(revision: str) -> None:
    server = open_alone(Side.SERVER, revision)
    events = tell(server, [request(1, "tools/call", CALL), request(1, "tools/list")])
    assert fault_kinds(events) == [FaultKind.REUSED_ID]
    [exchange] = exchanges(events)
    server.answer(exchange, RESULTS["tools/call"])
    replies = sent_one(server)
    assert ["error" in reply for reply in replies] == [True, False]


@with_batches
@pytest.mark.parametrize("when", ["inside", "before the rest", "after the rest"])
def test_a_cancelled_member_leaves_the_others_their_answers(revision: str, when: str) -> None:
    server = open_alone(Side.SERVER, revision)
    members = [request(1, "tools/call", CALL), request(2, "tools/list")]
    if when == "inside":
        members.append(cancelled(1))
    events = tell(server, members)
    first, second = exchanges(events)
    if when == "before the rest":
        events += tell(server, cancelled(1))
    server.answer(second, RESULTS["tools/list"])
    if when == "after the rest":
        assert sent(server) == []
        events += tell(server, cancelled(1))
    assert isinstance(events[-1], CancelArrived)
    [reply] = sent_one(server)
    assert reply["id"] == 2
    server.answer(first, RESULTS["tools/call"])
    assert sent(server) == []


@with_batches
def test_a_batch_whose_every_member_was_cancelled_is_not_answered(revision: str) -> None:
    server = open_alone(Side.SERVER, revision)
    tell(server, [request(1, "tools/call", CALL), request(2, "tools/list")])
    tell(server, [cancelled(1), cancelled(2)])
    assert sent(server) == []
    assert server.exchanges == {}


@with_batches
def test_a_member_that_takes_too_long_does_not_hold_the_batch_back(revision: str) -> None:
    server = open_alone(Side.SERVER, revision, limits=Limits(exchange_timeout_s=5.0))
    events = tell(server, [request(1, "tools/call", CALL), request(2, "tools/list")])
    server.answer(exchanges(events)[1], RESULTS["tools/list"])
    only(server.expire(5.0), Overdue)
    assert [("error" in r) for r in sent_one(server)] == [False, True]


@duty("trust.practices")
@with_batches
def test_a_batch_over_the_limit_is_refused_whole(revision: str) -> None:
    server = open_alone(Side.SERVER, revision, limits=Limits(max_batch=3))
    assert len(exchanges(tell(server, [request(n, "tools/list") for n in range(3)]))) == 3
    fault = only(tell(server, [request(n, "tools/list") for n in range(10, 14)]), Fault)
    assert fault.kind is FaultKind.BAD_BATCH
    reply = sent_one(server)
    assert (reply["id"], reply["error"]["code"]) == (None, -32600)


@duty("jsonrpc.batch.refused")
@without_batches
def test_later_revisions_refuse_an_array_whole_and_go_on(revision: str) -> None:
    server = open_alone(Side.SERVER, revision)
    fault = only(tell(server, [request(1, "tools/list"), request(2, "ping")]), Fault)
    assert fault.kind is FaultKind.BAD_BATCH
    assert revision in fault.detail
    reply = sent_one(server)
    assert reply["error"]["code"] == -32600
    assert reply.get("id") is None
    assert server.exchanges == {}
    tell(server, request(3, "ping"))
    assert sent_one(server)["id"] == 3


@duty("jsonrpc.batch.refused")
@without_batches
def test_a_client_of_a_later_revision_takes_no_array_and_its_calls_go_on(revision: str) -> None:
    client = open_alone(Side.CLIENT, revision)
    call = client.request("ping", NoParams(), now=0.0)
    client.take()
    assert fault_kinds(tell(client, [answer(call.id)])) == [FaultKind.BAD_BATCH]
    assert sent(client) == []
    only(tell(client, answer(call.id)), Answered)


@duty("jsonrpc.batch.refused")
def test_no_array_is_sent_by_itself() -> None:
    for side in Side:
        engine = open_alone(side, WITH[0])
        for _ in range(3):
            engine.request("ping", NoParams(), now=0.0)
        assert [type(message) for message in sent(engine)] == [dict] * 3


@duty("jsonrpc.batch.no-initialize")
@pytest.mark.parametrize("revision", [*WITH, None])
def test_initialize_inside_an_array_is_refused(revision: str | None) -> None:
    server = server_engine(revision)
    events = tell(
        server, [request(1, "initialize", hello(WITH[0], FULL_CLIENT)), request(2, "ping")]
    )
    assert exchanges(events) == []
    first, second = sent_one(server)
    assert (first["id"], first["error"]["code"]) == (1, -32600)
    assert second == answer(2, {})
    # The server still waits for a hello that comes alone.
    tell(server, request(3, "initialize", hello(WITH[0])))
    assert sent_one(server)["result"]["protocolVersion"] == (revision or WITH[0])


@duty("jsonrpc.batch.no-initialize")
def test_the_hello_of_a_client_stands_alone() -> None:
    client: Engine = client_engine(WITH[1])
    client.open(now=0.0)
    assert sent_one(client)["method"] == "initialize"


@without_batches
def test_before_the_hello_an_array_is_refused_where_no_revision_has_them(revision: str) -> None:
    server = server_engine(revision)
    assert fault_kinds(tell(server, [request(1, "ping")])) == [FaultKind.BAD_BATCH]
    assert sent_one(server)["error"]["code"] == -32600


def test_before_the_hello_an_array_is_taken_where_a_revision_may_still_have_them() -> None:
    server = server_engine()
    assert tell(server, [request(1, "ping"), request(2, "ping")]) == []
    assert [reply["id"] for reply in sent_one(server)] == [1, 2]


def test_the_answers_to_a_batch_are_about_the_delivery_it_came_in() -> None:
    server = open_alone(Side.SERVER, WITH[0])
    delivery = Delivery()
    batch = [request(1, "tools/call", CALL), request(2, "tools/list"), request(3, "no/such")]
    first, second = exchanges(tell(server, batch, delivery=delivery))
    assert delivery.open == 2
    server.answer(second, RESULTS["tools/list"])
    server.answer(first, RESULTS["tools/call"])
    assert [(about, is_answer) for _, about, is_answer in server.take()] == [(delivery, True)]
    assert delivery.open == 0
    other = Delivery()
    tell(server, [request(3, "ping")], delivery=other)
    assert [(about, is_answer) for _, about, is_answer in server.take()] == [(other, True)]
    assert other.open == 0


def test_a_batch_whose_requests_are_all_cancelled_leaves_nothing_open() -> None:
    server = open_alone(Side.SERVER, WITH[0])
    delivery = Delivery()
    batch = [request(1, "tools/call", CALL), request(2, "tools/call", CALL)]
    tell(server, batch, delivery=delivery)
    tell(server, cancelled(1))
    assert delivery.open == 1
    tell(server, cancelled(2))
    assert delivery.open == 0
    assert server.take() == []
