"""Each kind of event and of fault, brought about in the shortest way there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest

from dragoman.jsonrpc.frame import Noise
from dragoman.model.base import NoParams
from dragoman.model.content import ResourceLink
from dragoman.model.methods import Side
from dragoman.model.tools import CallToolResult
from dragoman.protocol.events import (
    Answered,
    CancelArrived,
    Degraded,
    Event,
    Failed,
    Fault,
    FaultKind,
    LateAnswer,
    NotificationArrived,
    Opened,
    Overdue,
    ProgressArrived,
    RequestArrived,
)
from dragoman.protocol.limits import Limits
from tests.protocol.aids import (
    answer,
    ask,
    cancelled,
    client_engine,
    failure,
    notification,
    open_alone,
    progress,
    request,
    sent,
    tell,
    welcome,
)


def after_a_call(say: Callable[[int], object], *, cancel: bool = False) -> list[Event]:
    """Events of a client that asked with id N and is told `say(N)`."""
    client = open_alone(Side.CLIENT)
    call = client.request("ping", NoParams(), now=0.0, wants_progress=True)
    if cancel:
        client.cancel(call)
    return tell(client, say(call.id))


def backward() -> list[Event]:
    client = open_alone(Side.CLIENT)
    call = client.request("ping", NoParams(), now=0.0, wants_progress=True)
    tell(client, progress(call.id, 2))
    return tell(client, progress(call.id, 1))


def reused() -> list[Event]:
    server = open_alone(Side.SERVER)
    ask(server, 1, "tools/list")
    return tell(server, request(1, "tools/list"))


def too_many() -> list[Event]:
    server = open_alone(Side.SERVER, limits=Limits(max_exchanges=1))
    ask(server, 1, "tools/list")
    return tell(server, request(2, "tools/list"))


def to_server(message: object) -> list[Event]:
    return tell(open_alone(Side.SERVER), message)


FAULTS: dict[FaultKind, Callable[[], list[Event]]] = {
    FaultKind.UNREADABLE: lambda: to_server(b"what?"),
    FaultKind.TOO_LARGE: lambda: open_alone(Side.SERVER).refuse(Noise("big", 2, 1)),
    FaultKind.REFUSED_US: lambda: to_server(failure(None)),
    FaultKind.STRAY_ANSWER: lambda: to_server(answer(1)),
    FaultKind.BAD_ANSWER: lambda: after_a_call(lambda n: answer(n, {"_meta": 1})),
    FaultKind.UNKNOWN_METHOD: lambda: to_server(request(1, "sing")),
    FaultKind.WRONG_TIME: lambda: to_server(notification("notifications/initialized")),
    FaultKind.BAD_PARAMS: lambda: to_server(request(1, "tools/call")),
    FaultKind.STRAY_PROGRESS: lambda: to_server(progress(1, 1)),
    FaultKind.BACKWARD_PROGRESS: backward,
    FaultKind.STRAY_CANCEL: lambda: to_server(cancelled(1)),
    FaultKind.NOT_NEGOTIATED: lambda: tell(
        open_alone(Side.CLIENT, peer={}), notification("notifications/tools/list_changed")
    )[:1],
    FaultKind.REUSED_ID: reused,
    FaultKind.TOO_MANY: too_many,
    FaultKind.BAD_BATCH: lambda: to_server([request(1, "ping")]),
}


@pytest.mark.parametrize("kind", FaultKind)
def test_every_kind_of_fault_is_reported_and_leaves_the_engine_working(kind: FaultKind) -> None:
    fault, *rest = FAULTS[kind]()
    assert isinstance(fault, Fault)
    assert fault.kind is kind
    assert 0 < len(fault.detail) < 200
    assert all(isinstance(event, Failed) for event in rest)


def opened() -> list[Event]:
    client = client_engine()
    return tell(client, answer(client.open(now=0.0).id, welcome()))[:1]


def degraded() -> list[Event]:
    server = open_alone(Side.SERVER, "2024-11-05")
    exchange = ask(server, 1, "tools/call").exchange
    server.answer(exchange, CallToolResult(content=[ResourceLink(uri="a:b", name="n")]))
    return server.drain_events()


def cancel_arrived() -> list[Event]:
    server = open_alone(Side.SERVER)
    ask(server, 1, "tools/list")
    return tell(server, cancelled(1))


def overdue() -> list[Event]:
    server = open_alone(Side.SERVER)
    return server.expire(ask(server, 1, "tools/list").exchange.deadline)


EVENTS: dict[type[Event], Callable[[], list[Event]]] = {
    Opened: opened,
    RequestArrived: lambda: to_server(request(1, "tools/list")),
    NotificationArrived: lambda: to_server(notification("notifications/roots/list_changed")),
    Answered: lambda: after_a_call(answer),
    Failed: lambda: after_a_call(failure),
    ProgressArrived: lambda: after_a_call(lambda n: progress(n, 1)),
    CancelArrived: cancel_arrived,
    Overdue: overdue,
    LateAnswer: lambda: after_a_call(answer, cancel=True),
    Fault: lambda: to_server(b"what?"),
    Degraded: degraded,
}


def test_there_is_a_recipe_for_every_event() -> None:
    assert set(EVENTS) == set(get_args(Event))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_happens_alone(kind: type[Event]) -> None:
    [event] = EVENTS[kind]()
    assert type(event) is kind


def test_events_are_handed_out_once() -> None:
    server = open_alone(Side.SERVER)
    assert len(tell(server, b"what?")) == 1
    assert server.drain_events() == []
    assert tell(server, request(1, "ping")) == []
    assert len(sent(server)) == 2
