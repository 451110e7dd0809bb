"""Ceilings: what is over one is refused or left out, and the rest goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import LimitExceeded, RequestError
from dragoman.jsonrpc.frame import Delivery
from dragoman.model.base import NoParams
from dragoman.model.logging import LEVELS, LoggingLevel, LogMessageParams
from dragoman.model.methods import CATALOGUE, Side
from dragoman.protocol.events import Fault, FaultKind, Overdue, RequestArrived
from dragoman.protocol.limits import ASKS, Bucket, Limits, Rate
from dragoman.protocol.subscriptions import Subscriptions
from tests.protocol.aids import (
    PARAMS,
    RESULTS,
    answer,
    ask,
    cancelled,
    fault_kinds,
    on_the_wire,
    only,
    open_alone,
    request,
    sent,
    sent_one,
    tell,
)
from tests.requirements.duties import duty

# --- the bucket -----------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_at_once_and_its_rate_in_the_long_run() -> None:
    bucket = Bucket(per_s=2.0, burst=3)
    assert [bucket.take(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(100.5), bucket.take(100.5)] == [True, False]
    assert [bucket.take(101.0), bucket.take(101.5)] == [True, True]


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = Bucket(per_s=1.0, burst=2)
    bucket.take(0.0)
    assert [bucket.take(1e6) for _ in range(3)] == [True, True, False]


@given(
    st.floats(0.1, 100),
    st.integers(1, 50),
    st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_a_bucket_never_gives_more_than_burst_and_rate_together(
    per_s: float, burst: int, pauses: list[float]
) -> None:
    bucket = Bucket(per_s, burst)
    now = 0.0
    given_out = int(bucket.take(now))
    for pause in pauses:
        now += pause
        given_out += bucket.take(now)
        assert given_out <= burst + now * per_s + 1e-6


# --- requests under way ---------------------------------------------------------------------------


@duty("trust.practices")
@pytest.mark.parametrize("side", Side)
def test_our_own_requests_under_way_are_limited(side: Side) -> None:
    engine = open_alone(side, limits=Limits(max_calls=2))
    calls = [engine.request("ping", NoParams(), now=0.0) for _ in range(2)]
    engine.take()
    with pytest.raises(LimitExceeded) as raised:
        engine.request("ping", NoParams(), now=0.0)
    assert (raised.value.value, raised.value.unit) == (2, "requests")
    assert sent(engine) == []
    tell(engine, answer(calls[0].id))
    engine.request("ping", NoParams(), now=0.0)


@duty("trust.practices")
def test_requests_of_the_peer_under_way_are_limited() -> None:
    server = open_alone(Side.SERVER, limits=Limits(max_exchanges=2))
    first, second = ask(server, 1, "tools/call"), ask(server, 2, "tools/call")
    fault = only(tell(server, request(3, "tools/list")), Fault)
    assert fault.kind is FaultKind.TOO_MANY
    reply = sent_one(server)
    assert (reply["id"], reply["error"]["code"]) == (3, -32000)
    server.answer(first.exchange, RESULTS["tools/call"])
    ask(server, 3, "tools/list")
    tell(server, cancelled(2))
    ask(server, 4, "tools/list")
    assert second.exchange.is_over


def test_ten_thousand_requests_fit_under_way_by_default() -> None:
    client, server = open_alone(Side.CLIENT), open_alone(Side.SERVER)
    for number in range(10_000):
        client.request("tools/list", PARAMS["tools/list"], now=0.0)
        only(tell(server, request(number, "tools/list")), RequestArrived)
    assert len(client.calls) == len(server.exchanges) == 10_000


@duty("trust.practices")
def test_requests_of_the_peer_can_be_limited_in_time() -> None:
    server = open_alone(Side.SERVER, limits=Limits(requests_per_s=1.0, requests_burst=2))
    # The hello was one of the two.
    kinds = [fault_kinds(tell(server, request(n, "ping"), now=0.0)) for n in range(3)]
    assert kinds == [[], [FaultKind.TOO_MANY], [FaultKind.TOO_MANY]]
    assert [reply.get("error", {}).get("code") for reply in sent(server)] == [None, -32000, -32000]
    assert tell(server, request(9, "ping"), now=1.0) == []


@duty("sampling.rate-limited", "elicitation.rate-limited")
@pytest.mark.parametrize("method", ASKS)
def test_a_client_limits_how_often_it_is_asked(method: str) -> None:
    client = open_alone(Side.CLIENT, limits=Limits(rates={method: Rate(10, 3, 0.5)}))
    for number in range(3):
        client.answer(ask(client, number, method).exchange, RESULTS[method])
    client.take()
    fault = only(tell(client, _ask(4, method)), Fault)
    assert fault.kind is FaultKind.TOO_MANY
    reply = sent_one(client)
    assert (reply["id"], reply["error"]["code"]) == (4, -32000)
    only(tell(client, _ask(5, method), now=2.0), RequestArrived)
    # Other requests are not concerned.
    for number in range(10, 20):
        ask(client, number, "roots/list")


@duty("sampling.rate-limited", "elicitation.rate-limited")
@pytest.mark.parametrize("method", ASKS)
def test_a_client_limits_how_much_it_is_asked_at_once(method: str) -> None:
    client = open_alone(Side.CLIENT, limits=Limits(rates={method: Rate(2, 100, 100.0)}))
    first, _ = ask(client, 1, method), ask(client, 2, method)
    ask(client, 3, "roots/list")
    assert fault_kinds(tell(client, _ask(4, method))) == [FaultKind.TOO_MANY]
    client.answer(first.exchange, RESULTS[method])
    ask(client, 5, method)


@pytest.mark.parametrize(
    "ending", ["answered", "refused", "cancelled", "overdue", "cancelled twice"]
)
def test_whatever_ends_a_limited_request_makes_room_for_one_other(ending: str) -> None:
    limits = Limits(rates={"tools/call": Rate(2, 100, 100.0)}, exchange_timeout_s=60.0)
    server = open_alone(Side.SERVER, limits=limits)
    first, now = ask(server, 1, "tools/call").exchange, 0.0
    if ending == "overdue":
        now = 60.0
        only(server.expire(now), Overdue)
    only(tell(server, _ask(2, "tools/call"), now=now), RequestArrived)
    if ending == "answered":
        server.answer(first, RESULTS["tools/call"])
    elif ending == "refused":
        server.fail(first, RequestError("no"))
    elif ending.startswith("cancelled"):
        for _ in ending.split():
            tell(server, cancelled(1))
    # What comes too late changes nothing.
    server.answer(first, RESULTS["tools/call"])
    only(tell(server, _ask(3, "tools/call"), now=now), RequestArrived)
    assert fault_kinds(tell(server, _ask(4, "tools/call"), now=now)) == [FaultKind.TOO_MANY]


def test_a_request_that_was_refused_takes_no_room() -> None:
    server = open_alone(Side.SERVER, limits=Limits(rates={"tools/call": Rate(1, 100, 100.0)}))
    assert fault_kinds(tell(server, request(1, "tools/call", {}))) == [FaultKind.BAD_PARAMS]
    only(tell(server, _ask(2, "tools/call")), RequestArrived)
    assert fault_kinds(tell(server, _ask(3, "tools/call"))) == [FaultKind.TOO_MANY]


@duty("sampling.rate-limited", "elicitation.rate-limited")
@pytest.mark.parametrize("method", ASKS)
def test_the_limits_on_asking_stand_by_default(method: str) -> None:
    rate = ASKS[method]
    client = open_alone(Side.CLIENT)
    kinds = [tell(client, _ask(number, method)) for number in range(rate.at_once + 1)]
    assert fault_kinds(kinds[-1]) == [FaultKind.TOO_MANY]
    assert not any(fault_kinds(events) for events in kinds[:-1])
    assert 0 < rate.at_once <= rate.burst
    assert Side.SERVER in CATALOGUE[method].senders


def _ask(number: int, method: str) -> dict[str, object]:
    return request(number, method, on_the_wire(method))


# --- ids and tokens -------------------------------------------------------------------------------


@pytest.mark.parametrize("ident", ["a" * 257, "ü" * 1_000_000])
def test_an_id_of_more_than_256_characters_is_refused_and_not_repeated(ident: str) -> None:
    server = open_alone(Side.SERVER)
    assert fault_kinds(tell(server, request(ident, "tools/list"))) == [FaultKind.UNREADABLE]
    reply = sent_one(server)
    assert reply["error"]["code"] == -32600
    assert reply.get("id") is None
    assert "256 characters" in reply["error"]["message"]
    assert server.exchanges == {}


@pytest.mark.parametrize("side", Side)
def test_an_answer_with_an_endless_id_is_a_fault_that_gets_no_reply(side: Side) -> None:
    engine = open_alone(side)
    assert fault_kinds(tell(engine, answer("a" * 257))) == [FaultKind.UNREADABLE]
    assert sent(engine) == []


@pytest.mark.parametrize(("size", "taken"), [(256, True), (257, False)])
def test_a_progress_token_has_at_most_256_characters(size: int, taken: bool) -> None:
    server = open_alone(Side.SERVER)
    events = tell(
        server, request(1, "tools/call", {"name": "add", "_meta": {"progressToken": "t" * size}})
    )
    if taken:
        assert server.progress(only(events, RequestArrived).exchange, 1, now=0.0)
    else:
        assert fault_kinds(events) == [FaultKind.BAD_PARAMS]
        assert sent_one(server)["error"]["code"] == -32602


# --- log messages ---------------------------------------------------------------------------------


def log_message(level: LoggingLevel, data: object = "x") -> LogMessageParams:
    return LogMessageParams(level=level, data=data)


@pytest.mark.parametrize("least", LEVELS)
def test_log_messages_below_the_wanted_level_are_not_sent(least: str) -> None:
    server = open_alone(Side.SERVER)
    server.log_level = LEVELS[least]
    levels: list[LoggingLevel] = list(LEVELS)  # type: ignore[arg-type]
    told = [server.log(log_message(level), now=0.0) for level in levels]
    assert told == [LEVELS[level] >= LEVELS[least] for level in levels]
    assert [m["params"]["level"] for m in sent(server)] == levels[LEVELS[least] :]


def test_by_default_every_level_is_sent() -> None:
    server = open_alone(Side.SERVER)
    assert server.log(
        log_message("debug"),
        now=0.0,
    )
    assert sent_one(server)["params"] == {"level": "debug", "data": "x"}


def test_a_log_message_can_belong_to_a_request() -> None:
    server = open_alone(Side.SERVER)
    delivery = Delivery()
    server.log(log_message("info"), now=0.0, about=delivery)
    [(_, about, is_answer)] = server.take()
    assert (about, is_answer) == (delivery, False)


@duty("logging.rate-limited")
def test_log_messages_are_limited_and_what_was_left_out_is_told() -> None:
    server = open_alone(Side.SERVER, limits=Limits(logs_per_s=2.0, logs_burst=3))
    told = [server.log(log_message("info", n), now=0.0) for n in range(7)]
    assert told == [True] * 3 + [False] * 4
    assert [m["params"]["data"] for m in sent(server)] == [0, 1, 2]
    assert server.log(log_message("info", "next"), now=1.0)
    note, message = sent(server)
    assert note["params"]["level"] == "warning"
    assert note["params"]["data"].startswith("4 log messages were dropped")
    assert message["params"]["data"] == "next"
    assert server.log(log_message("info"), now=1.0)
    assert len(sent(server)) == 1, "it is told once"


@duty("logging.rate-limited")
def test_what_was_left_out_is_told_at_a_level_the_client_still_wants() -> None:
    server = open_alone(Side.SERVER, limits=Limits(logs_per_s=1.0, logs_burst=1))
    server.log_level = LEVELS["alert"]
    server.log(log_message("alert"), now=0.0)
    server.log(log_message("alert"), now=0.0)
    server.take()
    server.log(log_message("emergency"), now=1.0)
    assert [m["params"]["level"] for m in sent(server)] == ["alert", "emergency"]


def test_a_log_message_that_is_no_json_is_refused_here() -> None:
    server = open_alone(Side.SERVER)
    with pytest.raises(ValueError, match="JSON"):
        server.log(log_message("info", object()), now=0.0)
    assert sent(server) == []


# --- subscriptions --------------------------------------------------------------------------------


@duty("resources.updated-subscribed", "resources.unsubscribe")
def test_a_subscription_lasts_from_subscribe_to_unsubscribe() -> None:
    subscriptions = Subscriptions(limit=10)
    assert "note://1" not in subscriptions
    subscriptions.add("note://1")
    subscriptions.add("note://1")
    assert "note://1" in subscriptions
    assert "note://2" not in subscriptions
    assert len(subscriptions) == 1
    assert subscriptions.remove("note://1") is True
    assert subscriptions.remove("note://1") is False
    assert "note://1" not in subscriptions


@duty("trust.practices")
def test_subscriptions_are_limited() -> None:
    server = open_alone(Side.SERVER, limits=Limits(max_subscriptions=2))
    server.subscriptions.add("a:1")
    server.subscriptions.add("a:2")
    with pytest.raises(RequestError) as raised:
        server.subscriptions.add("a:3")
    assert raised.value.code == -32000
    server.subscriptions.add("a:1")
    assert len(server.subscriptions) == 2


# --- the limits themselves ------------------------------------------------------------------------


@duty("trust.practices")
def test_every_default_limit_is_a_positive_number() -> None:
    limits = Limits()
    for name in limits.__slots__:
        value = getattr(limits, name)
        if name not in ("rates", "requests_per_s"):
            assert value > 0, name
