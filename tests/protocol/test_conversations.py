"""Any order of any events on both sides keeps the rules.

A client and a server engine are joined by two queues. Hypothesis chooses who does what, and when
a frame arrives; the checks after every step know the rules, not the engine's state. Once junk was
slipped in between the two, a peer may be at fault; what the engines owe their callers still holds.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dragoman.errors import (
    CannotLower,
    InternalError,
    InvalidParams,
    LimitExceeded,
    LinkClosed,
    LinkError,
    LocalError,
    RequestError,
)
from dragoman.model.base import NoParams
from dragoman.model.logging import LEVELS, LoggingLevel, LogMessageParams
from dragoman.model.methods import CATALOGUE, Side
from dragoman.protocol.calls import Call, Exchange
from dragoman.protocol.engine import Engine
from dragoman.protocol.events import (
    Answered,
    CancelArrived,
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
from dragoman.protocol.lifecycle import State
from dragoman.protocol.limits import Limits, Rate
from dragoman.testing import LinkedEngines
from tests.properties.strategies import json_values, records_of
from tests.protocol.aids import (
    FULL_CLIENT,
    PARAMS,
    REVISIONS,
    answer,
    cancelled,
    client_engine,
    failure,
    hello,
    notification,
    progress,
    request,
    server_engine,
)
from tests.requirements.duties import duty

sides = st.sampled_from(Side)
REQUESTS = sorted(name for name, method in CATALOGUE.items() if method.is_request)
NOTICES = sorted(name for name, method in CATALOGUE.items() if not method.is_request)

# Small enough to be met now and then.
LIMITS = Limits(
    max_calls=12,
    max_exchanges=8,
    max_abandoned=1_000,
    max_batch=4,
    call_timeout_s=10.0,
    call_total_s=40.0,
    exchange_timeout_s=60.0,
    progress_per_s=1.0,
    progress_burst=2,
    logs_per_s=1.0,
    logs_burst=3,
    rates={"sampling/createMessage": Rate(at_once=2, burst=4, per_s=0.5)},
)

# What an honest peer can cause: a cancellation that crosses with the answer, and meeting a limit.
HONEST_FAULTS = {FaultKind.STRAY_CANCEL, FaultKind.TOO_MANY}

junk_ids = st.integers(-1, 15) | st.sampled_from(["hello", "", "1", None, True, 1.5])
junk_messages = st.one_of(
    st.binary(max_size=20),
    json_values,
    st.builds(request, junk_ids, st.sampled_from([*REQUESTS, *NOTICES, "sing"]), st.none()),
    st.builds(request, junk_ids, st.just("initialize"), st.just(hello(capabilities=FULL_CLIENT))),
    st.builds(request, junk_ids, st.just("tools/list"), st.just({"_meta": {"progressToken": 1}})),
    st.builds(notification, st.sampled_from([*NOTICES, "sing"])),
    st.builds(answer, junk_ids, st.just({"content": []})),
    st.builds(failure, junk_ids),
    st.builds(cancelled, junk_ids),
    st.builds(progress, junk_ids, st.floats(0, 5)),
    st.lists(st.builds(request, junk_ids, st.sampled_from(["ping", "tools/list"])), max_size=6),
    st.lists(st.builds(answer, junk_ids), max_size=3),
)


class Wire:
    """What one side has put on the wire, seen from outside."""

    def __init__(self) -> None:
        self.read = 0
        self.request_ids: list[Any] = []
        self.answered: Counter[Any] = Counter()
        self.progress: dict[Any, float] = {}


class Conversation(RuleBasedStateMachine):
    """Two engines, two queues, and everything two programs can do with them."""

    revisions: tuple[str | None, str | None] = (None, None)

    def __init__(self) -> None:
        super().__init__()
        client, server = self.revisions
        self.pair = LinkedEngines(
            client_engine(client, limits=LIMITS), server_engine(server, limits=LIMITS)
        )
        self.calls: dict[Side, list[Call]] = {side: [] for side in Side}
        self.ends: dict[Side, Counter[int]] = {side: Counter() for side in Side}
        self.exchanges: dict[Side, list[Exchange]] = {side: [] for side in Side}
        self.wires = {side: Wire() for side in Side}
        self.seen_opened: Counter[Side] = Counter()
        self.told_progress: dict[tuple[Side, int], float] = {}
        self.is_honest = True
        self.may_slip_in = self.may_hang_up = False
        self.closed: set[Side] = set()

    # --- helpers ------------------------------------------------------------------------------------

    def engine(self, side: Side) -> Engine:
        return self.pair.engines[side]

    def pick_exchange(self, side: Side, data: st.DataObject) -> Exchange | None:
        known = [*self.engine(side).exchanges.values()] * 3 + self.exchanges[side]
        return data.draw(st.sampled_from(known)) if known else None

    def look(self) -> None:
        """Take in what happened in the last step."""
        self.pair.collect()
        for side in Side:
            for event in self.pair.new_events(side):
                self.note(side, event)
        messages = {side: self.new_messages(side) for side in Side}
        # Both sides may have spoken since: what was asked comes before what was answered.
        for side in Side:
            for message in messages[side]:
                self.read_request(self.wires[side], message)
        for side in Side:
            for message in messages[side]:
                self.read_rest(side, self.wires[side], message)

    def note(self, side: Side, event: Event) -> None:
        if isinstance(event, Answered | Failed):
            assert event.call in self.calls[side], "a call that nobody made"
            self.ends[side][event.call.id] += 1
        elif isinstance(event, RequestArrived):
            assert self.engine(side).state is State.OPEN
            assert event.exchange.method.is_request
            self.exchanges[side].append(event.exchange)
        elif isinstance(event, CancelArrived | Overdue):
            assert event.exchange.is_over
        elif isinstance(event, ProgressArrived):
            key = (side, event.call.id)
            assert event.call.wants_progress
            assert event.params.progress > self.told_progress.get(key, float("-inf"))
            assert not self.ends[side][event.call.id], "progress after the end"
            self.told_progress[key] = event.params.progress
        elif isinstance(event, Opened):
            self.seen_opened[side] += 1
            assert self.seen_opened[side] == 1
        elif isinstance(event, NotificationArrived):
            assert not event.method.is_request
        elif isinstance(event, LateAnswer):
            assert self.ends[side][int(event.id)] == 1 or not self.is_honest
        elif isinstance(event, Fault) and self.is_honest:
            over = self.engine(side).state is State.CLOSED and event.kind is FaultKind.WRONG_TIME
            assert over or event.kind in HONEST_FAULTS, event

    def new_messages(self, side: Side) -> list[dict[str, Any]]:
        wire, frames = self.wires[side], self.pair.sent[side]
        decoded = [json.loads(frame) for frame in frames[wire.read :]]
        wire.read = len(frames)
        lists = [one if isinstance(one, list) else [one] for one in decoded]
        messages = list(itertools.chain.from_iterable(lists))
        assert all(message["jsonrpc"] == "2.0" for message in messages)
        return messages

    def read_request(self, wire: Wire, message: dict[str, Any]) -> None:
        if "method" in message and "id" in message:
            assert type(message["id"]) is int
            assert message["id"] not in wire.request_ids, "an id comes again"
            wire.request_ids.append(message["id"])

    def read_rest(self, side: Side, wire: Wire, message: dict[str, Any]) -> None:
        name = message.get("method")
        if name is None:
            assert ("result" in message) is not ("error" in message)
            ident = message.get("id")
            wire.answered[ident] += 1
            if self.is_honest:
                assert wire.answered[ident] == 1, "a second answer"
                assert ident in self.wires[side.other].request_ids
                wire.progress.pop(ident, None)
            return
        if name == "notifications/progress":
            params = message["params"]
            token = params["progressToken"]
            if self.is_honest:
                # Our tokens are the ids of the requests they belong to.
                assert token in self.wires[side.other].request_ids
                assert not wire.answered[token], "progress after the answer"
                assert params["progress"] > wire.progress.get(token, float("-inf"))
            wire.progress[token] = params["progress"]
        elif name == "notifications/cancelled":
            ident = message["params"]["requestId"]
            assert ident in wire.request_ids
            [call] = [call for call in self.calls[side] if call.id == ident]
            assert call.method.name != "initialize"

    # --- what programs do ---------------------------------------------------------------------------

    @initialize(
        opens=st.sampled_from([True, True, True, False]),
        junk=st.sampled_from([False, False, True]),
        ends=st.sampled_from([False, False, True]),
    )
    def begin(self, opens: bool, junk: bool, ends: bool) -> None:
        self.may_slip_in, self.may_hang_up = junk, ends
        self.calls[Side.CLIENT].append(self.pair.client.open(now=0.0))
        if opens:
            self.pair.settle()

    @rule(side=sides, data=st.data(), wants=st.booleans())
    def ask(self, side: Side, data: st.DataObject, wants: bool) -> None:
        engine = self.engine(side)
        before = len(engine.calls)
        # Mostly what can be asked; now and then what cannot.
        possible = [name for name in REQUESTS if engine.may_send(name)] * 5
        name = data.draw(st.sampled_from([*possible, *REQUESTS]))
        params = data.draw(records_of(CATALOGUE[name].params))
        timeout_s = data.draw(st.none() | st.floats(0.1, 30))
        try:
            call = engine.request(
                name, params, now=self.pair.now, timeout_s=timeout_s, wants_progress=wants
            )
        except LinkClosed:
            assert engine.state is State.CLOSED
        except (LocalError, ValueError):
            assert len(engine.calls) == before
        except LimitExceeded:
            assert before == LIMITS.max_calls
        else:
            assert engine.state is State.OPEN or name == "ping"
            self.calls[side].append(call)

    @rule(side=sides, data=st.data(), name=st.sampled_from(NOTICES))
    def tell(self, side: Side, data: st.DataObject, name: str) -> None:
        engine = self.engine(side)
        allowed = engine.may_send(name)
        try:
            engine.notify(name, data.draw(records_of(CATALOGUE[name].params)))
        except LinkClosed:
            assert engine.state is State.CLOSED
        except LocalError:
            assert not allowed
        else:
            assert allowed

    @rule(level=st.sampled_from(sorted(LEVELS)), value=json_values, least=st.integers(0, 7))
    def write_log(self, level: LoggingLevel, value: Any, least: int) -> None:
        self.pair.server.log_level = least
        self.pair.server.log(LogMessageParams(level=level, data=value), now=self.pair.now)

    @rule(side=sides, data=st.data(), fails=st.sampled_from([False, False, True]))
    def reply(self, side: Side, data: st.DataObject, fails: bool) -> None:
        # Sometimes to a request that is over already: handlers do not always know.
        exchange = self.pick_exchange(side, data)
        if exchange is None:
            return
        engine = self.engine(side)
        if fails:
            code = data.draw(st.integers(-32099, -32000))
            error = data.draw(
                st.sampled_from([InternalError("x"), InvalidParams("y", data={"a": object()})])
            )
            engine.fail(exchange, data.draw(st.sampled_from([error, RequestError("z", code=code)])))
            return
        assert exchange.method.result is not None
        try:
            engine.answer(exchange, data.draw(records_of(exchange.method.result)))
        except (CannotLower, ValueError):
            engine.fail(exchange, InternalError("x"))

    @rule(side=sides, data=st.data(), value=st.integers(0, 3), total=st.none() | st.integers(0, 3))
    def report(self, side: Side, data: st.DataObject, value: float, total: float | None) -> None:
        # Mostly where somebody listens.
        asked_for = [one for one in self.engine(side).exchanges.values() if one.token is not None]
        known = asked_for * 3 + self.exchanges[side]
        if known:
            exchange = data.draw(st.sampled_from(known))
            engine = self.engine(side)
            was_over = exchange.is_over
            told = engine.progress(exchange, value, total, "at it", now=self.pair.now)
            assert not (told and (was_over or exchange.token is None))

    @rule(side=sides, values=st.lists(st.integers(0, 5), max_size=5))
    def work_in_steps(self, side: Side, values: list[int]) -> None:
        """A request with its progress, in one go: by chance alone that comes too seldom."""
        method = "tools/call" if side is Side.CLIENT else "roots/list"
        engine = self.engine(side)
        if not engine.may_send(method) or len(engine.calls) == LIMITS.max_calls:
            return
        call = engine.request(method, PARAMS[method], now=self.pair.now, wants_progress=True)
        self.calls[side].append(call)
        self.pair.settle()
        self.look()
        exchange = self.engine(side.other).exchanges.get(call.id)
        if exchange is not None:
            for value in values:
                self.engine(side.other).progress(exchange, value, 5, now=self.pair.now)

    @rule(side=sides, data=st.data())
    def give_up(self, side: Side, data: st.DataObject) -> None:
        if not self.calls[side]:
            return
        call = data.draw(st.sampled_from(self.calls[side]))
        if call.method.name == "initialize":
            with pytest.raises(LocalError):
                self.engine(side).cancel(call)
        elif self.engine(side).cancel(call, "no longer wanted"):
            self.ends[side][call.id] += 1

    @rule()
    def say_hello_again(self) -> None:
        with pytest.raises(LocalError):
            self.pair.client.open(now=self.pair.now)

    # --- what happens to them -----------------------------------------------------------------------

    @rule(side=sides, count=st.integers(1, 4))
    def deliver(self, side: Side, count: int) -> None:
        for _ in range(count):
            self.pair.deliver(side)

    @rule()
    def settle(self) -> None:
        self.pair.settle()

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.1, 1.0, 1.0, 5.0, 12.0, 50.0]))
    def wait(self, seconds: float) -> None:
        self.pair.advance(seconds)
        for side in Side:
            engine = self.engine(side)
            assert all(call.deadline > self.pair.now for call in engine.calls.values())
            assert all(one.deadline > self.pair.now for one in engine.exchanges.values())

    @precondition(lambda self: self.may_slip_in)
    @rule(side=sides, junk=junk_messages, data=st.data())
    def slip_in(self, side: Side, junk: Any, data: st.DataObject) -> None:
        self.look()
        self.is_honest = False
        self.pair.collect()
        frame = junk if isinstance(junk, bytes) else json.dumps(junk).encode()
        inbox = self.pair.inbox[side]
        inbox.insert(data.draw(st.integers(0, len(inbox))), frame)

    @precondition(lambda self: self.may_hang_up and len(self.pair.sent[Side.CLIENT]) > 15)
    @rule(side=sides, error=st.sampled_from([None, LinkError("cut", sent=True)]))
    def hang_up(self, side: Side, error: LinkError | None) -> None:
        self.look()
        self.pair.close(side, error)
        self.closed.add(side)

    # --- what must hold after every step ------------------------------------------------------------

    @invariant()
    def rules_are_kept(self) -> None:
        self.look()
        for side in Side:
            engine = self.engine(side)
            for call in self.calls[side]:
                under_way = engine.calls.get(call.id) is call
                assert self.ends[side][call.id] + under_way == 1, "a call ends exactly once"
            for exchange in self.exchanges[side]:
                under_way = engine.exchanges.get(exchange.id) is exchange
                assert exchange.is_over is not under_way
            deadlines = [call.deadline for call in engine.calls.values()]
            deadlines += [one.deadline for one in engine.exchanges.values()]
            wake = engine.next_deadline
            if deadlines:
                assert wake is not None
                assert wake <= min(deadlines)
            assert len(engine.calls) <= LIMITS.max_calls
            assert len(engine.exchanges) <= LIMITS.max_exchanges
            if side in self.closed:
                assert engine.state is State.CLOSED

    @invariant()
    def both_sides_speak_the_same_revision(self) -> None:
        client, server = self.pair.client, self.pair.server
        if self.is_honest and client.state is server.state is State.OPEN:
            assert client.dialect is server.dialect

    @invariant()
    def who_is_closed_says_nothing(self) -> None:
        for side in Side:
            if self.engine(side).state is State.CLOSED:
                before = len(self.pair.sent[side])
                self.pair.collect()
                assert len(self.pair.sent[side]) == before

    def teardown(self) -> None:
        """Let everything come to its end: nothing may be left."""
        self.pair.settle()
        self.look()
        for side in Side:
            for exchange in self.exchanges[side]:
                self.engine(side).fail(exchange, InternalError("the end"))
        self.pair.settle()
        self.pair.advance(100.0)
        self.pair.settle()
        self.rules_are_kept()
        for side in Side:
            engine = self.engine(side)
            assert (engine.calls, engine.exchanges) == ({}, {})
            self.pair.close(side)
            self.look()
            assert engine.take() == []
            assert engine.next_deadline is None
        for side in Side:
            assert all(self.ends[side][call.id] == 1 for call in self.calls[side])


PAIRS = list(itertools.product([None, *REVISIONS], repeat=2))


@duty(
    "jsonrpc.id.fresh",
    "jsonrpc.response.every-request",
    "calls.cancel.race",
    "progress.increases",
    "progress.stops",
    "capabilities.respected",
)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_any_order_of_any_events_keeps_the_rules(ours: str | None, theirs: str | None) -> None:
    converse(ours, theirs, examples=25 if ours is theirs is None else 3)


@pytest.mark.slow
def test_any_order_of_very_many_events_keeps_the_rules() -> None:
    converse(None, None, examples=3_000)


def converse(ours: str | None, theirs: str | None, *, examples: int) -> None:
    """Run the machine between two sides that are pinned to these revisions."""

    class Between(Conversation):
        revisions = (ours, theirs)

    run_state_machine_as_test(
        Between,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_machine_sees_a_rule_that_is_broken() -> None:
    machine = Conversation()
    machine.begin(opens=True, junk=False, ends=False)
    machine.look()
    call = machine.pair.client.request("ping", NoParams(), now=0.0)
    machine.calls[Side.CLIENT].append(call)
    machine.pair.settle()
    machine.look()
    machine.ends[Side.CLIENT][call.id] += 1
    with pytest.raises(AssertionError, match="exactly once"):
        machine.rules_are_kept()
