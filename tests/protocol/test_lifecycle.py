"""Opening and closing: the tables, cell by cell, and the conversations they allow."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from dragoman.errors import (
    DeadlineExceeded,
    InternalError,
    LinkClosed,
    LinkError,
    LocalError,
    NotNegotiated,
    PeerError,
    RemoteFailure,
    WrongState,
)
from dragoman.jsonrpc.frame import Noise
from dragoman.model.base import Implementation, NoParams, Record
from dragoman.model.capabilities import ClientCapabilities, ServerCapabilities
from dragoman.model.logging import LEVELS, LogMessageParams
from dragoman.model.methods import CATALOGUE, Method, Side
from dragoman.protocol.engine import Engine, Introduction
from dragoman.protocol.events import (
    Answered,
    CancelArrived,
    Failed,
    Fault,
    FaultKind,
    NotificationArrived,
    Opened,
    RequestArrived,
)
from dragoman.protocol.lifecycle import MOVES, RECEIVES, SENDS, Move, State, next_state
from dragoman.revisions.dialect import Dialect
from dragoman.revisions.registry import HANDSHAKE
from dragoman.testing import LinkedEngines
from tests.protocol.aids import (
    CLIENT_INFO,
    FULL_CLIENT,
    FULL_SERVER,
    NEWEST,
    NOTHING_OF,
    PARAMS,
    REVISIONS,
    SERVER_INFO,
    answer,
    client_engine,
    engine_of,
    failure,
    fault_kinds,
    hello,
    notification,
    only,
    open_alone,
    request,
    sent,
    sent_one,
    server_engine,
    tell,
    welcome,
)
from tests.requirements.duties import duty

# What the engine sends by itself; a program may not.
OWN = {
    "initialize",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
}

CELLS = list(itertools.product(Side, State))


def engine_in(side: Side, state: State) -> Engine:
    """An engine of the newest revision, with every capability, in that state."""
    if state is State.OPEN:
        return open_alone(side)
    engine = engine_of(side)
    if state is State.OPENING and side is Side.CLIENT:
        engine.open(now=0.0)
    elif state is State.OPENING:
        tell(engine, request("hello", "initialize", hello(NEWEST, FULL_CLIENT)))
    elif state is State.CLOSED:
        engine.close()
    engine.take()
    assert engine.state is state
    return engine


# --- the tables, cell by cell ---------------------------------------------------------------------


@pytest.mark.parametrize(("side", "state"), CELLS)
@pytest.mark.parametrize("move", Move)
def test_every_move_leads_where_the_table_says_or_is_refused(
    side: Side, state: State, move: Move
) -> None:
    allowed = {
        (Side.CLIENT, State.IDLE, Move.HELLO): State.OPENING,
        (Side.CLIENT, State.OPENING, Move.WELCOME): State.OPEN,
        (Side.CLIENT, State.OPENING, Move.REJECT): State.CLOSED,
        (Side.SERVER, State.IDLE, Move.HELLO): State.OPENING,
        (Side.SERVER, State.OPENING, Move.READY): State.OPEN,
        (Side.SERVER, State.IDLE, Move.RESUME): State.OPEN,
    }
    expected = State.CLOSED if move is Move.CLOSE else allowed.get((side, state, move))
    assert next_state(side, state, move) is expected
    assert MOVES.get((side, state, move)) is expected


def make(engine: Engine, move: Move) -> None:
    """Bring a move about from outside; where it is impossible this changes nothing."""
    hello_call = next(iter(engine.calls), 1)
    if move is Move.CLOSE:
        engine.close()
    elif move is Move.HELLO and engine.side is Side.CLIENT:
        engine.open(now=0.0)
    elif move is Move.HELLO:
        tell(engine, request("h", "initialize", hello()))
    elif move is Move.WELCOME:
        tell(engine, answer(hello_call, welcome()))
    elif move is Move.REJECT:
        tell(engine, failure(hello_call))
    elif move is Move.RESUME:
        engine.resume(Implementation(name="c", version="1"), ClientCapabilities(), HANDSHAKE[0])
    else:
        tell(engine, notification("notifications/initialized"))


@pytest.mark.parametrize(("side", "state"), CELLS)
@pytest.mark.parametrize("move", Move)
def test_an_engine_makes_every_possible_move_and_no_other(
    side: Side, state: State, move: Move
) -> None:
    engine = engine_in(side, state)
    expected = next_state(side, state, move)
    is_ours = move is Move.RESUME or (move is Move.HELLO and side is Side.CLIENT)
    if expected is None and is_ours:
        with pytest.raises(WrongState):
            make(engine, move)
    else:
        make(engine, move)
    assert engine.state is (expected or state)


@pytest.mark.parametrize("dialect", HANDSHAKE, ids=[one.wire for one in HANDSHAKE])
def test_a_resumed_server_is_as_open_as_the_one_it_goes_on_for(dialect: Dialect) -> None:
    first = open_alone(Side.SERVER, dialect.wire)
    assert first.peer is not None
    assert isinstance(first.peer_capabilities, ClientCapabilities)
    tell(first, request(1, "logging/setLevel", {"level": "error"}))
    second = server_engine()
    second.resume(
        first.peer,
        first.peer_capabilities,
        dialect,
        log_level=LEVELS["error"],
        subscriptions=["file:///a"],
    )
    assert (second.state, second.has_agreed, second.dialect) == (State.OPEN, True, dialect)
    assert "file:///a" in second.subscriptions
    every = [name for name in CATALOGUE if first.may_send(name)]
    assert [name for name in CATALOGUE if second.may_send(name)] == every
    assert not second.log(LogMessageParams(level="warning", data="x"), now=0.0)
    assert second.log(LogMessageParams(level="error", data="x"), now=0.0)
    [event] = tell(second, request(1, "tools/list"))
    assert isinstance(event, RequestArrived)


def test_the_tables_have_a_row_for_every_side_and_state() -> None:
    assert set(SENDS) == set(RECEIVES) == set(CELLS)


@pytest.mark.parametrize("state", State)
def test_what_one_side_may_send_the_other_takes_in_the_same_state(state: State) -> None:
    # A client in OPENING has said hello, so its server is in OPENING once that has arrived; and
    # a server in OPENING meets a client in OPENING or, once its answer has arrived, OPEN.
    assert SENDS[Side.CLIENT, state] <= RECEIVES[Side.SERVER, state]
    assert SENDS[Side.SERVER, state] <= RECEIVES[Side.CLIENT, state]
    assert SENDS[Side.SERVER, State.OPENING] <= RECEIVES[Side.CLIENT, State.OPEN]


@pytest.mark.parametrize(("side", "state"), CELLS)
@pytest.mark.parametrize("method", CATALOGUE)
def test_a_side_sends_a_method_only_where_the_table_allows_it(
    side: Side, state: State, method: str
) -> None:
    engine = engine_in(side, state)
    known = CATALOGUE[method]
    is_ours = side in known.senders and method not in OWN
    allowed = is_ours and method in SENDS[side, state]
    # Before the answer to its hello a side does not know what the other declared.
    blind = state in (State.IDLE, State.OPENING) and engine.peer is None
    if blind and known.needs_of is side.other:
        allowed = False
    assert engine.may_send(method) is allowed
    params = PARAMS.get(method, NoParams())
    expected: type[Exception] | None = None
    if state is State.CLOSED:
        expected = LinkClosed
    elif not is_ours:
        expected = LocalError
    elif method not in SENDS[side, state]:
        expected = WrongState
    if expected is None:
        say(engine, known, params)
        assert [message["method"] for message in sent(engine)] == [method]
    else:
        with pytest.raises(expected):
            say(engine, known, params)
        assert sent(engine) == []


def say(engine: Engine, method: Method, params: Record) -> None:
    if method.is_request:
        engine.request(method.name, params, now=0.0)
    else:
        engine.notify(method.name, params)


def wire_params(method: str) -> dict[str, Any]:
    if method == "initialize":
        return hello()
    if method == "notifications/progress":
        return {"progressToken": "nobody's", "progress": 1}
    if method == "notifications/cancelled":
        return {"requestId": "nobody's"}
    params = PARAMS.get(method, NoParams())
    decoded: dict[str, Any] = json.loads(HANDSHAKE[-1].encode(params, lambda loss: None))
    return decoded


@pytest.mark.parametrize(("side", "state"), CELLS)
@pytest.mark.parametrize("method", CATALOGUE)
def test_a_side_takes_a_method_only_where_the_table_allows_it(
    side: Side, state: State, method: str
) -> None:
    engine = engine_in(side, state)
    known = CATALOGUE[method]
    make_message = request if known.is_request else _notification
    events = tell(engine, make_message("x", method, wire_params(method)))
    answers = sent(engine)
    faults = fault_kinds(events)

    if state is State.CLOSED:
        assert faults == [FaultKind.WRONG_TIME]
        assert answers == []
    elif side.other not in known.senders:
        assert faults == [FaultKind.UNKNOWN_METHOD]
        assert [a["error"]["code"] for a in answers] == ([-32601] if known.is_request else [])
    elif method not in RECEIVES[side, state]:
        assert faults == [FaultKind.WRONG_TIME]
        assert [a["error"]["code"] for a in answers] == ([-32600] if known.is_request else [])
    elif method in ("ping", "initialize"):
        assert events == []
        assert [list(a) for a in answers] == [["jsonrpc", "id", "result"]]
    elif method == "notifications/progress":
        assert faults == [FaultKind.STRAY_PROGRESS]
    elif method == "notifications/cancelled":
        assert faults == [FaultKind.STRAY_CANCEL]
    elif method == "notifications/initialized":
        assert isinstance(only(events, Opened), Opened)
    elif known.is_request:
        assert only(events, RequestArrived).exchange.method is known
        assert answers == []
    else:
        # The log message of a server that is still being opened comes before its declaration.
        assert faults == ([] if state is State.OPEN else [FaultKind.NOT_NEGOTIATED])
        arrived = events[-1]
        assert isinstance(arrived, NotificationArrived)
        assert arrived.method is known


def _notification(_: Any, method: str, params: dict[str, Any]) -> dict[str, Any]:
    return notification(method, params)


# --- the handshake --------------------------------------------------------------------------------


@duty("lifecycle.init.first", "lifecycle.init.request")
@pytest.mark.parametrize("revision", REVISIONS)
def test_the_first_frame_of_a_client_is_a_whole_hello(revision: str) -> None:
    client = client_engine(revision, capabilities=ClientCapabilities())
    call = client.open(now=0.0)
    assert sent_one(client) == {
        "jsonrpc": "2.0",
        "id": call.id,
        "method": "initialize",
        "params": {
            "protocolVersion": revision,
            "capabilities": {},
            "clientInfo": {"name": "asker", "version": "1.0"},
        },
    }


@duty("lifecycle.init.response")
@pytest.mark.parametrize("revision", REVISIONS)
def test_a_server_answers_hello_with_version_capabilities_and_name(revision: str) -> None:
    server = server_engine(instructions="Ask me.", capabilities=ServerCapabilities())
    assert tell(server, request("h", "initialize", hello(revision))) == []
    assert sent_one(server) == {
        "jsonrpc": "2.0",
        "id": "h",
        "result": {
            "protocolVersion": revision,
            "capabilities": {},
            "serverInfo": {"name": "giver", "version": "2.0"},
            "instructions": "Ask me.",
        },
    }


@duty("lifecycle.init.first")
@pytest.mark.parametrize(
    "method", [m for m in CATALOGUE if Side.CLIENT in CATALOGUE[m].senders and m != "initialize"]
)
def test_a_server_refuses_all_but_hello_and_ping_until_the_hello(method: str) -> None:
    server = server_engine()
    known = CATALOGUE[method]
    if not known.is_request:
        events = tell(server, notification(method, wire_params(method)))
        assert not any(isinstance(event, NotificationArrived | Opened) for event in events)
        assert sent(server) == []
        return
    assert not any(
        isinstance(event, RequestArrived)
        for event in tell(server, request(1, method, wire_params(method)))
    )
    reply = sent_one(server)
    assert ("result" in reply) is (method == "ping")


@duty("lifecycle.initialized")
def test_initialized_is_the_first_thing_a_client_says_after_the_welcome() -> None:
    client = client_engine()
    call = client.open(now=0.0)
    client.take()
    events = tell(client, answer(call.id, welcome(NEWEST, FULL_SERVER)))
    client.request("tools/list", PARAMS["tools/list"], now=0.0)
    assert [message["method"] for message in sent(client)] == [
        "notifications/initialized",
        "tools/list",
    ]
    opened, answered = events
    assert isinstance(opened, Opened)
    assert isinstance(answered, Answered)
    assert answered.call is call
    assert opened.dialect.wire == NEWEST
    assert opened.peer.name == "script"
    assert client.peer == opened.peer


def test_initialized_has_neither_id_nor_params() -> None:
    client = client_engine()
    call = client.open(now=0.0)
    client.take()
    tell(client, answer(call.id, welcome()))
    assert sent_one(client) == {"jsonrpc": "2.0", "method": "notifications/initialized"}


@duty("lifecycle.before-response")
@pytest.mark.parametrize(
    "method",
    [m for m in CATALOGUE if CATALOGUE[m].is_request and Side.CLIENT in CATALOGUE[m].senders],
)
def test_before_the_welcome_a_client_can_ask_for_nothing_but_a_ping(method: str) -> None:
    client = client_engine()
    client.open(now=0.0)
    client.take()
    if method == "ping":
        client.request("ping", NoParams(), now=0.0)
        assert sent_one(client)["method"] == "ping"
    else:
        with pytest.raises(LocalError):
            client.request(method, PARAMS.get(method, NoParams()), now=0.0)
        assert sent(client) == []


@duty("lifecycle.before-initialized")
def test_before_initialized_a_server_can_send_nothing_but_pings_and_log_messages() -> None:
    server = engine_in(Side.SERVER, State.OPENING)
    for method, known in CATALOGUE.items():
        if Side.SERVER not in known.senders or method in OWN:
            continue
        if method in ("ping", "notifications/message"):
            assert server.may_send(method)
        else:
            assert not server.may_send(method)
    server.request("ping", NoParams(), now=0.0)
    assert server.log(LogMessageParams(level="error", data="early"), now=0.0)
    assert [message["method"] for message in sent(server)] == ["ping", "notifications/message"]


@duty("lifecycle.init.once")
@pytest.mark.parametrize("state", [State.OPENING, State.OPEN])
def test_a_second_hello_is_refused_and_changes_nothing(state: State) -> None:
    server = engine_in(Side.SERVER, state)
    dialect, peer = server.dialect, server.peer
    other = {**hello(REVISIONS[0]), "clientInfo": {"name": "impostor", "version": "9"}}
    events = tell(server, request("again", "initialize", other))
    assert fault_kinds(events) == [FaultKind.WRONG_TIME]
    reply = sent_one(server)
    assert (reply["id"], reply["error"]["code"]) == ("again", -32600)
    assert (server.state, server.dialect, server.peer) == (state, dialect, peer)


@duty("lifecycle.init.once")
def test_a_client_says_hello_once() -> None:
    client = client_engine()
    client.open(now=0.0)
    with pytest.raises(WrongState):
        client.open(now=0.0)
    assert len(sent(client)) == 1


def test_a_server_never_says_hello() -> None:
    server = server_engine()
    with pytest.raises(WrongState):
        server.open(now=0.0)
    assert server.state is State.IDLE
    assert sent(server) == []


@pytest.mark.parametrize("state", State)
def test_initialize_and_initialized_are_not_a_programs_to_send(state: State) -> None:
    client = engine_in(Side.CLIENT, state)
    with pytest.raises((LocalError, LinkClosed)):
        client.request("initialize", NoParams(), now=0.0)
    with pytest.raises((LocalError, LinkClosed)):
        client.notify("notifications/initialized", NoParams())
    assert sent(client) == []


def test_a_second_initialized_is_a_fault_and_opens_nothing() -> None:
    server = open_alone(Side.SERVER)
    events = tell(server, notification("notifications/initialized"))
    assert fault_kinds(events) == [FaultKind.WRONG_TIME]
    assert len(events) == 1


def test_a_hello_with_bad_parameters_leaves_the_server_waiting_for_a_better_one() -> None:
    server = server_engine()
    events = tell(server, request(1, "initialize", {"protocolVersion": 5}))
    assert fault_kinds(events) == [FaultKind.BAD_PARAMS]
    assert sent_one(server)["error"]["code"] == -32602
    tell(server, request(2, "initialize", hello()))
    assert "result" in sent_one(server)


@duty("lifecycle.base-supported")
@pytest.mark.parametrize("revision", REVISIONS)
def test_two_sides_without_any_feature_open_ping_and_close(revision: str) -> None:
    pair = LinkedEngines(
        client_engine(revision, capabilities=ClientCapabilities()),
        server_engine(revision, capabilities=ServerCapabilities()),
    )
    pair.open()
    for side in Side:
        opened = pair.new_events(side)[0]
        assert isinstance(opened, Opened)
        call = pair.engines[side].request("ping", NoParams(), now=0.0)
        pair.settle()
        assert only(pair.new_events(side), Answered).call is call
        # The first revision had no capability for completion: every server may be asked.
        undeclared = side is Side.CLIENT and revision == "2024-11-05"
        allowed = {"ping", "completion/complete"} if undeclared else {"ping"}
        assert {name for name in CATALOGUE if pair.engines[side].may_send(name)} == allowed
    for side in Side:
        pair.close(side)
        assert pair.engines[side].state is State.CLOSED
        assert pair.new_events(side) == []


def test_each_side_learns_who_the_other_is() -> None:
    pair = LinkedEngines(client_engine(), server_engine(instructions="Be kind."))
    pair.open()
    at_client, at_server = (pair.new_events(side)[0] for side in Side)
    assert isinstance(at_client, Opened)
    assert isinstance(at_server, Opened)
    assert (at_client.peer, at_client.instructions) == (SERVER_INFO, "Be kind.")
    assert (at_server.peer, at_server.instructions) == (CLIENT_INFO, None)
    assert at_client.dialect is at_server.dialect is HANDSHAKE[-1]
    assert pair.client.instructions == "Be kind."


@pytest.mark.parametrize("side", Side)
def test_an_introduction_that_is_no_json_is_refused_before_anything_is_said(side: Side) -> None:
    info = CLIENT_INFO.__class__(name="\ud800", version="1")
    with pytest.raises(ValueError, match="JSON"):
        Engine(side, Introduction(info, NOTHING_OF[side]))


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [*REVISIONS, None])
@pytest.mark.parametrize("theirs", [*REVISIONS, None])
def test_two_sides_agree_on_a_revision_or_the_client_leaves(
    ours: str | None, theirs: str | None
) -> None:
    pair = LinkedEngines(client_engine(ours), server_engine(theirs))
    call = pair.open()
    offered = ours or NEWEST
    chosen = offered if theirs in (None, offered) else theirs
    if ours in (None, chosen):
        assert pair.client.state is pair.server.state is State.OPEN
        assert pair.client.dialect.wire == pair.server.dialect.wire == chosen
    else:
        assert pair.client.state is State.CLOSED
        seen = pair.new_events(Side.CLIENT)
        [failed] = [event for event in seen if isinstance(event, Failed)]
        assert failed.call is call
        assert isinstance(failed.error, PeerError)
        assert not any(isinstance(event, Opened) for event in seen)


@duty("versions.refused", "errors.version-mismatch")
@pytest.mark.parametrize("chosen", ["1999-01-01", "", "2.0", "2026-07-28", "x" * 100_000])
def test_a_client_leaves_a_server_whose_revision_it_does_not_speak(chosen: str) -> None:
    client = client_engine()
    call = client.open(now=0.0)
    client.take()
    events = tell(client, answer(call.id, welcome(chosen)))
    failed = only(events, Failed)
    assert failed.call is call
    assert isinstance(failed.error, PeerError)
    text = str(failed.error)
    assert chosen[:64] in text
    assert all(revision in text for revision in REVISIONS)
    assert len(text) < 300
    assert client.state is State.CLOSED
    assert sent(client) == []
    assert client.next_deadline is None


@duty("errors.version-mismatch")
def test_a_server_that_refuses_the_revision_leaves_the_client_with_its_reasons() -> None:
    client = client_engine()
    call = client.open(now=0.0)
    error = {
        "code": -32602,
        "message": "Unsupported protocol version",
        "data": {"supported": ["2024-11-05"], "requested": NEWEST},
    }
    events = tell(client, {"jsonrpc": "2.0", "id": call.id, "error": error})
    failure_seen = only(events, Failed).error
    assert isinstance(failure_seen, RemoteFailure)
    assert failure_seen.data == {"supported": ["2024-11-05"], "requested": NEWEST}
    assert client.state is State.CLOSED


@pytest.mark.parametrize("asked", ["1999-01-01", "", "zzzz", "2026-07-28"])
def test_a_server_offers_its_newest_revision_to_a_client_it_does_not_understand(asked: str) -> None:
    server = server_engine()
    tell(server, request(1, "initialize", hello(asked)))
    assert sent_one(server)["result"]["protocolVersion"] == NEWEST


# --- openings that fail ---------------------------------------------------------------------------


@duty("errors.init-timeout")
def test_a_hello_that_is_never_answered_ends_everything_at_its_deadline() -> None:
    client = client_engine()
    call = client.open(now=0.0, timeout_s=10.0)
    ping = client.request("ping", NoParams(), now=0.0, timeout_s=100.0)
    client.take()
    assert client.expire(9.9) == []
    first, second = client.expire(10.0)
    assert isinstance(first, Failed)
    assert isinstance(second, Failed)
    assert (first.call, second.call) == (call, ping)
    assert isinstance(first.error, DeadlineExceeded)
    assert (first.error.method, first.error.timeout_s) == ("initialize", 10.0)
    assert isinstance(second.error, LinkError)
    assert sent(client) == [], "initialize must not be cancelled"
    assert (client.calls, client.next_deadline) == ({}, None)
    assert client.state is State.CLOSED
    # The answer comes after all: nobody is there any more.
    assert fault_kinds(tell(client, answer(call.id, welcome()))) == [FaultKind.WRONG_TIME]
    assert sent(client) == []


def test_a_hello_and_a_ping_that_are_overdue_together_end_once_each() -> None:
    client = client_engine()
    hello_call = client.open(now=0.0, timeout_s=5.0)
    ping = client.request("ping", NoParams(), now=0.0, timeout_s=5.0)
    failed = [event for event in client.expire(5.0) if isinstance(event, Failed)]
    assert [event.call for event in failed] == [hello_call, ping]
    assert client.close() == []


BAD_WELCOMES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "an error": lambda ident: failure(ident, -32603, "not today"),
    "no version": lambda ident: answer(ident, {"capabilities": {}}),
    "capabilities of the wrong type": lambda ident: answer(
        ident, {**welcome(), "capabilities": []}
    ),
    "both result and error": lambda ident: {**answer(ident, welcome()), **failure(ident)},
    "an error without an id": lambda _: failure(None, -32700, "what?"),
}


@pytest.mark.parametrize("how", BAD_WELCOMES)
def test_a_failed_hello_closes_the_connection_and_drops_the_rest(how: str) -> None:
    client = client_engine()
    call = client.open(now=0.0)
    client.take()
    events = tell(client, BAD_WELCOMES[how](call.id))
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.call for event in failed] == [call]
    assert client.state is State.CLOSED
    assert client.calls == {}
    assert sent(client) == []
    assert client.close() == []


def test_a_failed_hello_takes_the_pings_of_both_sides_with_it() -> None:
    client = client_engine()
    call = client.open(now=0.0)
    ping = client.request("ping", NoParams(), now=0.0)
    client.take()
    events = tell(client, failure(call.id))
    assert [event.call for event in events if isinstance(event, Failed)] == [call, ping]
    error = events[1].error if isinstance(events[1], Failed) else None
    assert isinstance(error, LinkClosed)


# --- closing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", Side)
def test_closing_ends_every_call_and_every_request_once(side: Side) -> None:
    engine = open_alone(side)
    ours = engine.request("ping", NoParams(), now=0.0)
    asked = "tools/list" if side is Side.SERVER else "roots/list"
    arrived = only(tell(engine, request("p", asked)), RequestArrived)
    failed, dropped = engine.close()
    assert isinstance(failed, Failed)
    assert failed.call is ours
    assert isinstance(failed.error, LinkClosed)
    assert failed.error.sent is None
    assert isinstance(dropped, CancelArrived)
    assert dropped.exchange is arrived.exchange
    assert (engine.calls, engine.exchanges, engine.next_deadline) == ({}, {}, None)
    engine.fail(arrived.exchange, InternalError("late"))
    assert sent(engine) == []
    assert engine.close() == []


def test_the_error_that_ended_the_link_reaches_every_call_as_its_own() -> None:
    client = open_alone(Side.CLIENT)
    calls = [client.request("ping", NoParams(), now=0.0) for _ in range(3)]
    cause = LinkError("the cable was cut", sent=True)
    events = client.close(cause)
    errors = [event.error for event in events if isinstance(event, Failed)]
    assert [type(error) for error in errors] == [LinkError] * len(calls)
    assert len({id(error) for error in errors} | {id(cause)}) == len(calls) + 1
    assert all(isinstance(error, LinkError) and error.sent is None for error in errors)
    assert cause.sent is True


@pytest.mark.parametrize("side", Side)
def test_nothing_is_sent_or_taken_after_the_end(side: Side) -> None:
    engine = open_alone(side)
    engine.request("ping", NoParams(), now=0.0)
    engine.close()
    assert sent(engine) == [], "what had not left yet is dropped"
    for frame in (
        request(1, "ping"),
        answer(1),
        notification("notifications/message"),
        b"{",
        b"[]",
    ):
        assert only(tell(engine, frame), Fault).kind is FaultKind.WRONG_TIME
    large = Noise("too large", 2, 1, b'{"jsonrpc":"2.0","id":1,"method":"ping"')
    assert fault_kinds(engine.refuse(large)) == [FaultKind.WRONG_TIME]
    with pytest.raises(LinkClosed) as raised:
        engine.request("ping", NoParams(), now=0.0)
    assert raised.value.sent is False
    with pytest.raises(LinkClosed):
        engine.notify("notifications/message", PARAMS["notifications/message"])
    assert engine.log(LogMessageParams(level="error", data="?"), now=0.0) is False
    assert engine.expire(1e9) == []
    assert sent(engine) == []


def test_an_idle_connection_can_be_closed() -> None:
    for side in Side:
        engine = engine_of(side)
        assert engine.close() == []
        assert engine.state is State.CLOSED


def test_a_feature_of_the_peer_is_unknown_until_it_is_declared() -> None:
    client = open_alone(Side.CLIENT, peer={"tools": {}})
    assert client.may_send("tools/list")
    with pytest.raises(NotNegotiated):
        client.request("prompts/list", PARAMS["prompts/list"], now=0.0)
