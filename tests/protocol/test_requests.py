"""Requests and their answers: ids, both directions, and everything an answer can be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dragoman.errors import (
    CannotLower,
    InternalError,
    InvalidParams,
    LimitExceeded,
    LinkClosed,
    LocalError,
    PeerError,
    RemoteFailure,
    RequestError,
    ResourceNotFound,
)
from dragoman.jsonrpc.frame import Delivery, Noise, Principal, Seen
from dragoman.model.base import EmptyResult, NoParams, PageParams
from dragoman.model.content import ResourceLink, TextContent
from dragoman.model.elicitation import ElicitParams
from dragoman.model.methods import CATALOGUE, Side
from dragoman.model.tools import CallToolParams, CallToolResult
from dragoman.protocol.calls import Call, Exchange
from dragoman.protocol.engine import Engine
from dragoman.protocol.events import (
    Answered,
    Degraded,
    Event,
    Failed,
    Fault,
    FaultKind,
    LateAnswer,
    RequestArrived,
)
from dragoman.protocol.limits import Limits
from tests.protocol.aids import (
    NEWEST,
    PARAMS,
    RESULTS,
    REVISIONS,
    answer,
    ask,
    client_engine,
    failure,
    fault_kinds,
    linked,
    notification,
    only,
    open_alone,
    request,
    sent,
    sent_one,
    tell,
    welcome,
)
from tests.requirements.duties import duty


def call_tool(client: Engine) -> Call:
    call = client.request("tools/call", PARAMS["tools/call"], now=0.0)
    client.take()
    return call


# --- ids ------------------------------------------------------------------------------------------


@duty("jsonrpc.id.required", "jsonrpc.id.fresh", "jsonrpc.version")
def test_every_request_carries_an_integer_id_that_never_comes_again() -> None:
    client = open_alone(Side.CLIENT)
    seen: list[int] = []
    for round_ in range(50):
        call = client.request("ping", NoParams(), now=0.0)
        message = sent_one(client)
        assert message["jsonrpc"] == "2.0"
        assert type(message["id"]) is int
        assert message["id"] == call.id
        seen.append(message["id"])
        if round_ % 3 == 0:
            tell(client, answer(call.id))
        elif round_ % 3 == 1:
            client.cancel(call)
            client.take()
    assert len(set(seen)) == len(seen)


def test_a_request_that_could_not_be_written_uses_up_no_id_and_leaves_nothing() -> None:
    client = open_alone(Side.CLIENT)
    with pytest.raises(ValueError, match="JSON"):
        client.request("resources/read", PARAMS["resources/read"].__class__(uri="\ud800"), now=0.0)
    assert (client.calls, sent(client)) == ({}, [])
    assert client.request("ping", NoParams(), now=0.0).id == 2


@duty("jsonrpc.response.same-id", "jsonrpc.id.required")
@pytest.mark.parametrize("ident", [0, -1, 2**53, "", "1", "ключ", "ü" * 256])
def test_an_answer_carries_the_id_with_its_type_and_value(ident: Any) -> None:
    server = open_alone(Side.SERVER)
    arrived = ask(server, ident, "tools/call")
    assert arrived.exchange.id == ident
    server.answer(arrived.exchange, RESULTS["tools/call"])
    reply = sent_one(server)
    assert reply["id"] == ident
    assert type(reply["id"]) is type(ident)
    assert reply["jsonrpc"] == "2.0"


@duty("jsonrpc.response.same-id")
def test_the_ids_1_and_text_1_are_two_requests() -> None:
    server = open_alone(Side.SERVER)
    number, text = ask(server, 1, "tools/list"), ask(server, "1", "tools/list")
    server.answer(text.exchange, RESULTS["tools/list"])
    assert sent_one(server)["id"] == "1"
    server.answer(number.exchange, RESULTS["tools/list"])
    assert sent_one(server)["id"] == 1


@duty("jsonrpc.id.not-null", "jsonrpc.id.not-bool", "jsonrpc.id.not-fraction")
@pytest.mark.parametrize("ident", [None, True, False, 1.5, 1.0, [1], {"a": 1}, 2**53 + 1])
def test_a_request_whose_id_is_no_string_or_integer_is_invalid(ident: Any) -> None:
    server = open_alone(Side.SERVER)
    events = tell(server, request(ident, "tools/list"))
    assert fault_kinds(events) == [FaultKind.UNREADABLE]
    assert len(events) == 1
    assert sent_one(server)["error"]["code"] == -32600


@pytest.mark.parametrize("ident", [True, 1.0, "1"])
def test_an_answer_to_1_by_another_type_is_no_answer(ident: Any) -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    assert call.id == 2
    twin = True if ident is True else type(ident)(2)
    events = tell(client, answer(twin, {"content": []}))
    assert not any(isinstance(event, Answered) for event in events)
    assert call.id in client.calls


@duty("jsonrpc.id.reused-refused")
def test_an_id_that_is_in_use_is_refused_and_the_first_request_goes_on() -> None:
    server = open_alone(Side.SERVER)
    first = ask(server, 7, "tools/call")
    events = tell(server, request(7, "tools/list"))
    assert fault_kinds(events) == [FaultKind.REUSED_ID]
    assert len(events) == 1
    reply = sent_one(server)
    assert (reply["id"], reply["error"]["code"]) == (7, -32600)
    server.answer(first.exchange, RESULTS["tools/call"])
    assert sent_one(server)["result"]["content"][0]["text"] == "3"
    # Once it has ended, we cannot tell a new request from a careless peer; it is served.
    ask(server, 7, "tools/list")


# --- answers --------------------------------------------------------------------------------------


@duty("jsonrpc.response.every-request")
@pytest.mark.parametrize("revision", REVISIONS)
def test_every_request_of_either_side_is_answered_exactly_once(revision: str) -> None:
    pair = linked(revision)
    for side in Side:
        engine = pair.engines[side]
        methods = [m for m in PARAMS if CATALOGUE[m].is_request and engine.may_send(m)]
        assert methods
        calls = [engine.request(m, PARAMS[m], now=0.0) for m in methods]
        pair.settle()
        for event in pair.new_events(side.other):
            assert isinstance(event, RequestArrived | Degraded)
            if isinstance(event, RequestArrived):
                result = RESULTS[event.exchange.method.name]
                pair.engines[side.other].answer(event.exchange, result)
                # A second answer changes nothing.
                pair.engines[side.other].answer(event.exchange, result)
                pair.engines[side.other].fail(event.exchange, InternalError("again"))
        pair.settle()
        ended = [event for event in pair.new_events(side) if not isinstance(event, Degraded)]
        assert all(isinstance(event, Answered) for event in ended)
        assert sorted(e.call.id for e in ended if isinstance(e, Answered)) == [c.id for c in calls]
        assert pair.engines[side].calls == {}
        assert pair.engines[side.other].exchanges == {}
        assert len(pair.sent[side.other]) - len(pair.sent[side]) < len(calls)


def test_an_answer_arrives_as_the_record_of_its_method() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    call.context = "mine"
    events = tell(client, answer(call.id, {"content": [{"type": "text", "text": "3"}]}))
    answered = only(events, Answered)
    assert answered.call is call
    assert answered.call.context == "mine"
    assert answered.result == CallToolResult(content=[TextContent(text="3")])
    assert client.calls == {}


@duty("jsonrpc.response.unknown-id")
@pytest.mark.parametrize("message", [answer(99), failure(99), answer("hello"), failure("x" * 256)])
def test_an_answer_to_nobody_is_reported_and_changes_nothing(message: Any) -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    fault = only(tell(client, message), Fault)
    assert fault.kind is FaultKind.STRAY_ANSWER
    assert len(fault.detail) < 150
    assert list(client.calls.values()) == [call]
    assert sent(client) == []


def test_a_second_answer_is_a_stray_one() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    only(tell(client, answer(call.id, {"content": []})), Answered)
    events = tell(client, answer(call.id, {"content": []}))
    assert fault_kinds(events) == [FaultKind.STRAY_ANSWER]


BAD_ANSWERS: dict[str, dict[str, Any]] = {
    "the result is an array": {"result": []},
    "the result is null": {"result": None},
    "a member has the wrong type": {"result": {"content": "text"}},
    "a member is missing": {"result": {}},
    "both result and error": {"result": {"content": []}, "error": {"code": 1, "message": ""}},
    "the error has no code": {"error": {"message": "no"}},
    "the error has no message": {"error": {"code": 1}},
    "the code is a fraction": {"error": {"code": 1.5, "message": "no"}},
    "the code is text": {"error": {"code": "1", "message": "no"}},
    "the error is text": {"error": "no"},
}


@duty(
    "jsonrpc.response.not-both",
    "jsonrpc.response.one-of",
    "jsonrpc.error.integer-code",
    "jsonrpc.error.code-and-message",
)
@pytest.mark.parametrize("how", BAD_ANSWERS)
def test_an_answer_that_does_not_fit_fails_its_call_as_the_peers_fault(how: str) -> None:
    client = open_alone(Side.CLIENT)
    call, other = call_tool(client), call_tool(client)
    events = tell(client, {"jsonrpc": "2.0", "id": call.id, **BAD_ANSWERS[how]})
    fault, failed = events
    assert isinstance(fault, Fault)
    assert fault.kind in (FaultKind.BAD_ANSWER, FaultKind.UNREADABLE)
    assert isinstance(failed, Failed)
    assert failed.call is call
    assert isinstance(failed.error, PeerError)
    assert list(client.calls.values()) == [other]
    assert sent(client) == [], "an answer is never answered"


@duty("jsonrpc.response.one-of")
def test_a_message_with_neither_method_nor_result_nor_error_is_refused() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    events = tell(client, {"jsonrpc": "2.0", "id": call.id})
    assert FaultKind.UNREADABLE in fault_kinds(events)
    assert not any(isinstance(event, Answered) for event in events)


def test_an_answer_without_jsonrpc_2_0_is_refused() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    for version in ("1.0", 2.0, None):
        events = tell(client, {**answer(call.id, {"content": []}), "jsonrpc": version})
        assert fault_kinds(events) == [FaultKind.UNREADABLE]
    assert call.id in client.calls


def test_the_text_of_a_bad_answer_is_kept_short() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    block = {"type": "x" * 100_000, "text": "?"}
    fault, failed = tell(client, answer(call.id, {"content": [block]}))
    assert isinstance(fault, Fault)
    assert isinstance(failed, Failed)
    assert len(fault.detail) < 400
    assert len(str(failed.error)) < 400
    assert len(fault.sample) <= 256


def test_a_refusal_arrives_with_code_message_data_and_method() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    error = {"code": -32602, "message": "unknown tool", "data": {"name": "add"}}
    failed = only(tell(client, {"jsonrpc": "2.0", "id": call.id, "error": error}), Failed)
    refusal = failed.error
    assert isinstance(refusal, RemoteFailure)
    assert (refusal.code, refusal.message) == (-32602, "unknown tool")
    assert (refusal.data, refusal.method) == ({"name": "add"}, "tools/call")


@duty("jsonrpc.error.id-omitted")
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("error_id", [{"id": None}, {}])
def test_an_error_without_an_id_matches_no_request(others: int, error_id: dict[str, Any]) -> None:
    client = open_alone(Side.CLIENT)
    calls = [call_tool(client) for _ in range(1 + others)]
    message = {"jsonrpc": "2.0", **error_id, "error": {"code": -32700, "message": "what?"}}
    fault = only(tell(client, message), Fault)
    assert fault.kind is FaultKind.REFUSED_US
    assert "what?" in fault.detail
    assert list(client.calls.values()) == calls
    only(tell(client, answer(calls[0].id, {"content": []})), Answered)


# --- requests of the peer -------------------------------------------------------------------------


def test_a_request_arrives_with_its_parameters_its_origin_and_its_revision() -> None:
    server = open_alone(Side.SERVER, "2025-06-18")
    seen = Seen(Principal("ann", "https://login.example"), {"x": "y"})
    frame = json.dumps(
        request("r", "tools/call", {"name": "add", "arguments": {"a": 1}, "_meta": {"k": [1]}})
    ).encode()
    arrived = only(server.receive(frame, now=5.0, seen=seen), RequestArrived)
    assert isinstance(arrived.params, CallToolParams)
    assert (arrived.params.name, arrived.params.arguments) == ("add", {"a": 1})
    assert arrived.params.meta == {"k": [1]}
    exchange = arrived.exchange
    assert exchange.seen is seen
    assert exchange.dialect.wire == "2025-06-18"
    assert exchange.method is CATALOGUE["tools/call"]
    assert exchange.token is None
    assert repr(exchange) == "<Exchange 'r' tools/call>"
    assert exchange.deadline == 5.0 + Limits().exchange_timeout_s


def test_members_that_nobody_knows_are_left_aside() -> None:
    server = open_alone(Side.SERVER)
    message = {**request(1, "tools/list", {"cursor": "c", "news": [1, 2]}), "extra": True}
    arrived = only(tell(server, message), RequestArrived)
    assert arrived.params == PageParams(cursor="c")


@duty("jsonrpc.error.method-not-found")
@pytest.mark.parametrize(
    "method",
    ["nonsense", "", "tools/List", "rpc.discover", "sampling/createMessage", "m" * 100_000],
)
def test_an_unknown_method_is_answered_with_method_not_found(method: str) -> None:
    server = open_alone(Side.SERVER)
    events = tell(server, request(1, method))
    assert fault_kinds(events) == [FaultKind.UNKNOWN_METHOD]
    reply = sent_one(server)
    assert (reply["id"], reply["error"]["code"]) == (1, -32601)
    assert len(reply["error"]["message"]) < 200


@duty("jsonrpc.notification.no-id")
@pytest.mark.parametrize(
    "method", [name for name, known in CATALOGUE.items() if not known.is_request]
)
@pytest.mark.parametrize("side", Side)
def test_a_notification_method_with_an_id_is_answered_but_not_run(side: Side, method: str) -> None:
    engine = open_alone(side)
    events = tell(engine, request(5, method, {"requestId": 1, "progressToken": 1, "progress": 1}))
    assert fault_kinds(events) == [FaultKind.UNKNOWN_METHOD]
    assert len(events) == 1
    reply = sent_one(engine)
    assert (reply["id"], reply["error"]["code"]) == (5, -32601)
    assert engine.exchanges == {}


@duty("jsonrpc.notification.no-answer")
@pytest.mark.parametrize(
    "message",
    [
        notification("nonsense"),
        notification("tools/call", {"name": "add"}),
        notification("initialize"),
        notification("notifications/initialized"),
        notification("notifications/cancelled", {"requestId": []}),
        notification("notifications/progress"),
        notification("notifications/message", {"level": "loud", "data": 1}),
        notification("notifications/roots/list_changed", {"_meta": 5}),
    ],
)
@pytest.mark.parametrize("side", Side)
def test_a_notification_is_never_answered_not_even_with_an_error(
    side: Side, message: dict[str, Any]
) -> None:
    engine = open_alone(side)
    events = tell(engine, message)
    assert len(fault_kinds(events)) == len(events) == 1
    assert sent(engine) == []


@duty("jsonrpc.error.invalid-params", "jsonrpc.params.object")
@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("tools/call", {}, -32602),
        ("tools/call", {"name": 5}, -32602),
        ("tools/call", {"name": "a", "_meta": []}, -32602),
        ("tools/list", {"cursor": 7}, -32602),
        ("resources/read", {"uri": None}, -32602),
        ("logging/setLevel", {"level": "loud"}, -32602),
        ("logging/setLevel", {"level": "x" * 100_000}, -32602),
        ("completion/complete", {"ref": {"type": "ref/x"}, "argument": {}}, -32602),
        ("prompts/get", {"name": "p", "arguments": {"n": 5}}, -32602),
        ("tools/list", {"_meta": {"progressToken": True}}, -32602),
        ("tools/list", {"_meta": {"progressToken": 1.5}}, -32602),
        ("tools/list", {"_meta": {"progressToken": {}}}, -32602),
        ("tools/list", [], -32600),
        ("tools/list", "x", -32600),
    ],
)
def test_parameters_of_the_wrong_type_are_refused(method: str, params: Any, code: int) -> None:
    server = open_alone(Side.SERVER)
    message = {**request(1, method), "params": params}
    events = tell(server, message)
    expected = FaultKind.BAD_PARAMS if code == -32602 else FaultKind.UNREADABLE
    assert fault_kinds(events) == [expected]
    reply = sent_one(server)
    assert (reply["id"], reply["error"]["code"]) == (1, code)
    assert len(reply["error"]["message"]) < 300
    assert server.exchanges == {}


def test_no_parameters_and_empty_parameters_are_the_same() -> None:
    server = open_alone(Side.SERVER)
    for ident, message in enumerate([request(0, "tools/list"), request(1, "tools/list", {})]):
        assert only(tell(server, message), RequestArrived).params == PageParams()
        server.answer(server.exchanges[ident], RESULTS["tools/list"])


def test_an_absent_required_parameter_is_refused_also_without_params() -> None:
    server = open_alone(Side.SERVER)
    assert fault_kinds(tell(server, request(1, "tools/call"))) == [FaultKind.BAD_PARAMS]


# --- answering ------------------------------------------------------------------------------------


@duty("jsonrpc.error.internal", "jsonrpc.error.concise", "jsonrpc.error.code-and-message")
@pytest.mark.parametrize(
    ("error", "code", "message", "data"),
    [
        (InternalError("it broke"), -32603, "it broke", None),
        (InvalidParams("no city", data={"city": None}), -32602, "no city", {"city": None}),
        (RequestError("busy", code=-32099), -32099, "busy", None),
        (RequestError(""), -32603, "", None),
    ],
)
def test_a_refusal_goes_out_with_code_message_and_data(
    error: RequestError, code: int, message: str, data: Any
) -> None:
    server = open_alone(Side.SERVER)
    server.fail(ask(server, 1, "tools/call").exchange, error)
    expected = {"code": code, "message": message}
    if data is not None:
        expected["data"] = data
    assert sent_one(server) == {"jsonrpc": "2.0", "id": 1, "error": expected}
    assert server.exchanges == {}


def test_data_that_is_no_json_costs_a_refusal_its_data_only() -> None:
    server = open_alone(Side.SERVER)
    error = InternalError("half \ud800", data=object())
    server.fail(ask(server, 1, "tools/call").exchange, error)
    assert sent_one(server)["error"]["code"] == -32603


def test_a_result_that_is_no_json_is_told_to_the_caller_and_the_peer_still_waits() -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/call").exchange
    with pytest.raises(ValueError, match="JSON"):
        server.answer(exchange, CallToolResult(content=[TextContent(text="\ud800")]))
    assert server.take() == []
    assert not exchange.is_over
    server.fail(exchange, InternalError("it failed"))
    reply = sent_one(server)
    assert (reply["id"], reply["error"]) == (1, {"code": -32603, "message": "it failed"})
    assert exchange.is_over


def test_a_result_that_the_revision_cannot_hold_is_told_to_the_caller() -> None:
    server = open_alone(Side.SERVER, "2024-11-05")
    exchange = ask(server, 1, "tools/call").exchange
    params = ElicitParams(message="?", requested_schema={"type": "object"})
    with pytest.raises(CannotLower):
        server.answer(exchange, params)
    assert server.take() == []
    # What was lost on the way to the failure is not reported with the next answer.
    second = ask(server, 2, "tools/call").exchange
    server.answer(second, RESULTS["tools/call"])
    assert server.drain_events() == []


def test_losses_of_a_value_that_failed_are_not_charged_to_the_next_one() -> None:
    server = open_alone(Side.SERVER, "2024-11-05")
    link = ResourceLink(uri="note://1", name="n")
    bad = CallToolResult(content=[link, TextContent(text="\ud800")])
    with pytest.raises(ValueError, match="JSON"):
        server.answer(ask(server, 1, "tools/call").exchange, bad)
    server.answer(ask(server, 2, "tools/call").exchange, RESULTS["tools/call"])
    assert [event for event in server.drain_events() if isinstance(event, Degraded)] == []


def test_what_a_revision_cannot_hold_is_replaced_and_reported() -> None:
    server = open_alone(Side.SERVER, "2024-11-05")
    exchange = ask(server, 1, "tools/call").exchange
    server.answer(exchange, CallToolResult(content=[ResourceLink(uri="note://1", name="n")]))
    [block] = sent_one(server)["result"]["content"]
    assert block["type"] == "text"
    degraded = only(server.drain_events(), Degraded)
    assert degraded.method == "tools/call"
    assert degraded.losses[0].record == "ResourceLink"
    assert server.drain_events() == []


def test_what_was_written_before_is_sent_as_it_is() -> None:
    server = open_alone(Side.SERVER)
    exchange = ask(server, 1, "tools/list").exchange
    server.answer_raw(exchange, b'{"tools":[]}')
    server.answer_raw(exchange, b'{"tools":[]}')
    assert sent_one(server) == answer(1, {"tools": []})


@pytest.mark.parametrize(("revision", "code"), [(wire, -32002) for wire in REVISIONS])
def test_a_missing_resource_has_the_number_of_the_revision(revision: str, code: int) -> None:
    server = open_alone(Side.SERVER, revision)
    server.fail(ask(server, 1, "resources/read").exchange, ResourceNotFound("note://1"))
    error = sent_one(server)["error"]
    assert (error["code"], error["data"]) == (code, {"uri": "note://1"})


@duty("ping.answered")
@pytest.mark.parametrize("side", Side)
def test_a_ping_is_answered_at_once_whatever_else_is_under_way(side: Side) -> None:
    engine = open_alone(side)
    busy = "tools/call" if side is Side.SERVER else "roots/list"
    ask(engine, "busy", busy)
    assert tell(engine, request("p", "ping")) == []
    assert sent_one(engine) == answer("p", {})
    assert list(engine.exchanges) == ["busy"]


@duty("ping.answered")
def test_a_ping_is_answered_before_the_connection_is_open() -> None:
    for engine in (client_engine(), open_alone(Side.SERVER)):
        assert tell(engine, request("p", "ping")) == []
        assert sent_one(engine) == answer("p", {})
    client = client_engine()
    call = client.open(now=0.0)
    client.take()
    tell(client, request("p", "ping", {"_meta": {"k": 1}}))
    assert sent_one(client) == answer("p", {})
    only([e for e in tell(client, answer(call.id, welcome())) if isinstance(e, Answered)], Answered)


@duty("ping.answered")
def test_a_ping_is_answered_even_when_no_other_request_fits() -> None:
    server = open_alone(Side.SERVER, limits=Limits(max_exchanges=1))
    ask(server, 1, "tools/call")
    tell(server, request(2, "ping"))
    assert sent_one(server) == answer(2, {})


# --- frames the link refused ----------------------------------------------------------------------


def noise(head: bytes, tail: bytes = b"") -> Noise:
    return Noise("too large", size=10**9, limit=1024, head=head, tail=tail)


@duty("trust.practices")
def test_a_request_too_large_to_hold_is_refused_by_its_id() -> None:
    server = open_alone(Side.SERVER)
    fault = only(server.refuse(noise(b'{"jsonrpc":"2.0","id":8,"method":"tools/call","par')), Fault)
    assert fault.kind is FaultKind.TOO_LARGE
    assert "1000000000" in fault.detail
    reply = sent_one(server)
    assert (reply["id"], reply["error"]["code"]) == (8, -32600)


def test_an_answer_too_large_to_hold_fails_its_call_at_once() -> None:
    client = open_alone(Side.CLIENT)
    call, other = call_tool(client), call_tool(client)
    head = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"aaa' % call.id
    fault, failed = client.refuse(noise(head, b'aaa"}]}}'))
    assert isinstance(fault, Fault)
    assert isinstance(failed, Failed)
    assert failed.call is call
    assert isinstance(failed.error, LimitExceeded)
    assert (failed.error.value, failed.error.unit) == (1024, "bytes")
    assert list(client.calls.values()) == [other]
    assert sent(client) == []
    # Should the peer send it again, nobody waits.
    assert tell(client, answer(call.id, {"content": []})) == [LateAnswer(call.id)]


def test_a_welcome_too_large_to_hold_closes_the_connection() -> None:
    client = client_engine()
    call = client.open(now=0.0)
    client.take()
    fault, failed = client.refuse(noise(b'{"jsonrpc":"2.0","id":1,"result":{"serverInfo":{'))
    assert isinstance(fault, Fault)
    assert isinstance(failed, Failed)
    assert failed.call is call
    assert client.state.value == "closed"


@duty("jsonrpc.error.unreadable-id")
def test_a_guessed_id_never_ends_a_request_that_is_under_way() -> None:
    server = open_alone(Side.SERVER, "2024-11-05")
    arrived = ask(server, 5, "tools/call")
    server.refuse(noise(b'{"jsonrpc":"2.0","method":"tools/call","params":{"id":5,'))
    assert sent_one(server)["id"] is None
    server.answer(arrived.exchange, RESULTS["tools/call"])
    assert sent_one(server)["id"] == 5


def test_a_large_frame_of_which_nothing_is_known_is_only_reported() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    assert fault_kinds(client.refuse(noise(b"xxxxxxx"))) == [FaultKind.TOO_LARGE]
    assert fault_kinds(client.refuse(noise(b'{"id":77,"result":{'))) == [FaultKind.TOO_LARGE]
    assert (list(client.calls.values()), sent(client)) == ([call], [])


# --- unreadable frames ----------------------------------------------------------------------------


UNREADABLE = {
    "not JSON": (b'{"jsonrpc"', -32700),
    "empty": (b"", -32700),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"p\xff"}', -32700),
    "a lone surrogate": (b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', -32700),
    "NaN": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}', -32700),
    "a number": (b"5", -32600),
    "null": (b"null", -32600),
    "a string": (b'"ping"', -32600),
    "an empty array": (b"[]", -32600),
    "an empty object": (b"{}", -32600),
    "no jsonrpc": (b'{"id":1,"method":"ping"}', -32600),
    "another jsonrpc": (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
    "upper case": (b'{"JSONRPC":"2.0","ID":1,"METHOD":"ping"}', -32600),
    "a method that is no string": (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
    "method and result": (b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', -32600),
    "an id twice": (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700),
    "too deep": (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 500, -32700),
}


@duty(
    "jsonrpc.error.parse",
    "jsonrpc.error.invalid-request",
    "jsonrpc.method.required",
    "jsonrpc.members.case",
    "transport.utf-8",
)
@pytest.mark.parametrize("how", UNREADABLE)
@pytest.mark.parametrize("revision", [REVISIONS[0], NEWEST])
def test_a_server_answers_what_it_cannot_read_and_goes_on(how: str, revision: str) -> None:
    frame, code = UNREADABLE[how]
    server = open_alone(Side.SERVER, revision)
    fault = only(tell(server, frame), Fault)
    assert fault.kind is FaultKind.UNREADABLE
    assert fault.sample == frame[:256]
    reply = sent_one(server)
    assert reply["error"]["code"] == code
    assert reply.get("id") in (None, 1)
    tell(server, request("next", "ping"))
    assert sent_one(server)["id"] == "next"


@duty("jsonrpc.error.id-omitted", "jsonrpc.error.unreadable-id")
@pytest.mark.parametrize("revision", REVISIONS)
def test_an_error_about_an_unreadable_message_borrows_no_id(revision: str) -> None:
    server = open_alone(Side.SERVER, revision)
    ask(server, 1, "tools/call")
    tell(server, b"{nonsense}")
    reply = sent_one(server)
    if revision == NEWEST:
        assert "id" not in reply
    else:
        assert reply["id"] is None


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_client_reports_unreadable_lines_and_answers_only_what_has_an_id(how: str) -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    assert FaultKind.UNREADABLE in fault_kinds(tell(client, UNREADABLE[how][0]))
    # Only what has an id can be a request that somebody waits for.
    assert all(reply["id"] == 1 and "error" in reply for reply in sent(client))
    assert list(client.calls.values()) == [call]


@pytest.mark.parametrize("line", [b"5", b"null", b"{}", b"[]", b"[1, 2]", b"loading...", b'"x"'])
@pytest.mark.parametrize("revision", REVISIONS)
def test_what_a_child_prints_by_mistake_is_not_answered(revision: str, line: bytes) -> None:
    client = open_alone(Side.CLIENT, revision)
    assert set(fault_kinds(tell(client, line))) <= {FaultKind.UNREADABLE, FaultKind.BAD_BATCH}
    if line != b"[1, 2]" or not client.dialect.facts.takes_batches:
        assert sent(client) == []


def test_events_and_calls_show_themselves() -> None:
    client = open_alone(Side.CLIENT)
    call = call_tool(client)
    assert repr(call) == "<Call 2 tools/call>"


# --- what may not be asked ------------------------------------------------------------------------


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    "method", ["nonsense", "", "notifications/cancelled", "notifications/progress", "\ud800"]
)
def test_a_program_can_only_ask_and_tell_what_is_its_own(side: Side, method: str) -> None:
    engine = open_alone(side)
    with pytest.raises(LocalError):
        engine.request(method, NoParams(), now=0.0)
    with pytest.raises(LocalError):
        engine.notify(method, NoParams())
    assert (sent(engine), engine.calls) == ([], {})


def test_a_request_is_not_told_and_a_notification_not_asked() -> None:
    client = open_alone(Side.CLIENT)
    with pytest.raises(LocalError):
        client.notify("tools/list", PageParams())
    with pytest.raises(LocalError):
        client.request("notifications/roots/list_changed", NoParams(), now=0.0)
    assert sent(client) == []


def test_a_method_that_a_revision_lacks_is_not_asked() -> None:
    server = open_alone(Side.SERVER, "2025-03-26")
    with pytest.raises(CannotLower) as raised:
        server.request("elicitation/create", PARAMS["elicitation/create"], now=0.0)
    assert raised.value.revision == "2025-03-26"


def test_what_a_request_loses_on_its_way_is_an_event() -> None:
    server = open_alone(Side.SERVER, "2025-06-18")
    params = PARAMS["sampling/createMessage"]
    degraded = params.__class__(
        **{name: getattr(params, name) for name in params.__struct_fields__ if name != "tools"},
        tools=[],
    )
    server.request("sampling/createMessage", degraded, now=0.0)
    event: Event = only(server.drain_events(), Degraded)
    assert isinstance(event, Degraded)
    assert event.method == "sampling/createMessage"
    assert "tools" not in sent_one(server)["params"]


def exchange_of(events: list[Event]) -> Exchange:
    [event] = events
    assert isinstance(event, RequestArrived)
    return event.exchange


def test_frames_leave_in_order_each_with_the_delivery_it_belongs_to() -> None:
    server = open_alone(Side.SERVER)
    a, b = Delivery(), Delivery()
    params = {"name": "t", "arguments": {}, "_meta": {"progressToken": "t"}}
    first = exchange_of(tell(server, request("a", "tools/call", params), delivery=a))
    second = exchange_of(tell(server, request("b", "tools/list"), delivery=b))
    assert (a.open, b.open) == (1, 1)
    server.progress(first, 1, now=0.0)
    server.notify("notifications/tools/list_changed", NoParams())
    server.notify("notifications/tools/list_changed", NoParams(), about=b)
    call = server.request("ping", NoParams(), now=0.0, about=a)
    server.cancel(call)
    server.answer(second, RESULTS["tools/list"])
    server.fail(first, InternalError("no"))
    tell(server, request("c", "no/such"), delivery=b)
    tell(server, b"no json", delivery=a)
    sent = [(about, is_answer) for _, about, is_answer in server.take()]
    assert sent == [
        (a, False),
        (None, False),
        (b, False),
        (a, False),
        (a, False),
        (b, True),
        (a, True),
        (b, True),
        (a, True),
    ]
    assert (a.open, b.open) == (0, 0)
    assert server.take() == []


def test_a_clients_frames_are_about_its_own_requests() -> None:
    client = open_alone(Side.CLIENT)
    call = client.request("tools/list", PageParams(), now=0.0)
    client.cancel(call)
    tell(client, request("x", "ping"))
    sent = [(about, is_answer) for _, about, is_answer in client.take()]
    assert sent == [(call.id, False), (call.id, False), (None, True)]


def test_a_request_that_a_link_lost_fails_alone() -> None:
    client = open_alone(Side.CLIENT)
    lost, other = (client.request("tools/list", PageParams(), now=0.0) for _ in range(2))
    error = LinkClosed("nobody there", sent=False)
    assert client.lose(lost.id, error) == [Failed(lost, error)]
    assert client.lose(lost.id, error) == []
    assert list(client.calls) == [other.id]
    assert tell(client, answer(lost.id, {"tools": []})) == [LateAnswer(lost.id)]


def test_an_exchange_of_an_older_connection_is_not_answered_twice() -> None:
    server = open_alone(Side.SERVER)
    exchange: Exchange = ask(server, 1, "tools/list").exchange
    server.answer(exchange, RESULTS["tools/list"])
    server.take()
    server.answer(exchange, EmptyResult())
    server.answer_raw(exchange, b"{}")
    server.fail(exchange, InternalError("late"))
    assert sent(server) == []


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "\x1b[2J\nFAKE" * 10_000}},
        request(1, "completion/complete", {"ref": {"type": "\x1b[2J\nFAKE" * 10_000}}),
    ],
)
def test_the_peers_words_in_a_fault_are_few_and_hold_nothing_unseen(message: Any) -> None:
    fault = only(tell(open_alone(Side.SERVER), message), Fault)
    assert fault.detail.isprintable()
    assert len(fault.detail) < 1_000
