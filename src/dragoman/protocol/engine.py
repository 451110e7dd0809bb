"""The engine: the only stateful object that understands MCP.

It takes frames and clock readings and gives frames and events; it never touches a socket, a clock
or a task. One engine serves one connection, on either side.

    engine.open(now=0.0)                   # a client says hello
    engine.take()                          # [(frame, about, is_answer), ...] to send, in order
    engine.receive(frame, now=0.1)         # [event, ...]; never raises for a fault of the peer
    engine.next_deadline                   # when to call `expire`, or None
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import NamedTuple, get_args

import msgspec

from dragoman.errors import (
    BadMessage,
    CannotLower,
    DeadlineExceeded,
    DragomanError,
    InternalError,
    InvalidParams,
    InvalidRequest,
    LimitExceeded,
    LinkClosed,
    LinkError,
    LocalError,
    MethodNotFound,
    NotNegotiated,
    ParseError,
    PeerError,
    RemoteFailure,
    RequestError,
    WrongState,
)
from dragoman.jsonrpc import codec
from dragoman.jsonrpc.frame import LOCAL, Delivery, Noise, Seen
from dragoman.jsonrpc.message import (
    ABSENT,
    Batch,
    ErrorBody,
    Failure,
    Message,
    Notification,
    Request,
    RequestId,
    Success,
)
from dragoman.model.base import EmptyResult, Implementation, Record
from dragoman.model.capabilities import (
    ClientCapabilities,
    InitializeParams,
    InitializeResult,
    ServerCapabilities,
)
from dragoman.model.logging import LEVELS, LoggingLevel, LogMessageParams
from dragoman.model.methods import CATALOGUE, Method, Side
from dragoman.model.progress import CancelledParams, ProgressParams
from dragoman.protocol.admission import Admission
from dragoman.protocol.calls import BatchReply, Call, Exchange
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
from dragoman.protocol.lifecycle import MOVES, RECEIVES, SENDS, Move, State
from dragoman.protocol.limits import Bucket, Limits
from dragoman.protocol.negotiation import Capabilities, check_params, shared_vocabulary
from dragoman.protocol.subscriptions import Subscriptions
from dragoman.revisions.dialect import Dialect, Loss
from dragoman.revisions.registry import HANDSHAKE, negotiate

__all__ = ["Engine", "Introduction"]

_NO_PARAMS = b"{}"

About = Delivery | RequestId | None

# What the engine says by itself, at the right time and with the right ids.
_OWN = frozenset(
    {
        "initialize",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
    }
)

# What the engine answers by itself.
_AT_ONCE = frozenset({"ping", "initialize"})

_CLOSED = State.CLOSED

_LEVEL_NAMES: tuple[LoggingLevel, ...] = get_args(LoggingLevel)

# 200 characters say what is wrong; more would only repeat what the peer has sent.
_DETAIL_CHARS = 200


class Introduction(NamedTuple):
    """What we tell the peer about ourselves; `instructions` only from a server."""

    info: Implementation
    capabilities: Capabilities
    instructions: str | None = None


class Engine:
    """One end of one connection.

    Frames to send collect in `outbox`, which `take` empties; look at it after every other method.
    So do `events` that calls of ours caused (what was degraded on the way out), for `drain_events`.
    `next_deadline` is the earliest time at which `expire` may have something to do; None for never.
    `has_agreed` once both sides know the revision, which `dialect` then is.
    `answers` counts the answers among them so far, refusals included; `unsent_bytes` is the size of
    those results that wait in the outbox.

    Raises:
        ValueError: the introduction cannot be written as JSON.
    """

    # A server has one of these for each session, and may have thousands of those.
    __slots__ = (
        "_abandoned",
        "_admission",
        "_granted_below",
        "_logs",
        "_logs_dropped",
        "_losses",
        "_may_ask",
        "_may_be_asked",
        "_may_be_told",
        "_may_tell",
        "_next_id",
        "_receives",
        "_sends",
        "answers",
        "calls",
        "dialect",
        "dialects",
        "events",
        "exchanges",
        "has_agreed",
        "instructions",
        "introduction",
        "limits",
        "log_level",
        "next_deadline",
        "outbox",
        "peer",
        "peer_capabilities",
        "side",
        "state",
        "subscriptions",
        "unsent_bytes",
    )

    def __init__(
        self,
        side: Side,
        introduction: Introduction,
        *,
        dialects: Sequence[Dialect] = HANDSHAKE,
        limits: Limits | None = None,
    ) -> None:
        self.side = side
        self.introduction = introduction
        self.dialects = dialects
        self.limits = limits or Limits()
        self.state = State.IDLE
        self.dialect = dialects[-1]
        self.has_agreed = False
        self.peer: Implementation | None = None
        self.peer_capabilities: Capabilities = (
            ServerCapabilities() if side is Side.CLIENT else ClientCapabilities()
        )
        self.instructions: str | None = None
        self.log_level: int = 0
        self.subscriptions = Subscriptions(self.limits.max_subscriptions)
        self.calls: dict[RequestId, Call] = {}
        self.exchanges: dict[RequestId, Exchange] = {}
        self.answers = 0
        self.unsent_bytes = 0
        self._granted_below = 0
        self._abandoned: dict[RequestId, None] = {}
        self._next_id = 1
        self.outbox: list[tuple[bytes, About, bool]] = []
        self._losses: list[Loss] = []
        self.events: list[Event] = []
        self.next_deadline: float | None = None
        self._sends = SENDS[side, self.state]
        self._receives = RECEIVES[side, self.state]
        self._admission = Admission(self.limits)
        # Made when first needed: most connections are quiet.
        self._logs: Bucket | None = None
        self._logs_dropped = 0
        self._set_vocabulary()
        _check(introduction)

    # --- what to send, and when to wake -----------------------------------------------------------

    def take(self) -> list[tuple[bytes, About, bool]]:
        """Empty the outbox: frames in order, each with what it is about and whether it answers.

        A server's frame is about the delivery that it answers or belongs to, a client's about the
        id of its own request.
        """
        out = self.outbox
        if out:
            self.outbox = []
            self.unsent_bytes = 0
        return out

    def drain_events(self) -> list[Event]:
        """Empty `events`."""
        events = self.events
        if events:
            self.events = []
        return events

    # --- opening ------------------------------------------------------------------------------------

    def open(self, *, now: float, timeout_s: float | None = None) -> Call:
        """Say hello (clients only, once): offers the newest revision we speak.

        Raises:
            WrongState: the hello was said before, the connection is closed, or we are the server.

        Spec: basic/lifecycle#initialization
        """
        if "initialize" not in self._sends:
            raise WrongState(self.state.value, "a hello is the first thing a client says")
        params = InitializeParams(
            protocol_version=self.dialects[-1].wire,
            capabilities=self._our_client_capabilities(),
            client_info=self.introduction.info,
        )
        call = self._call(
            CATALOGUE["initialize"], params, now, timeout_s, None, wants_progress=False
        )
        self._move(Move.HELLO)
        return call

    def resume(
        self,
        peer: Implementation,
        capabilities: ClientCapabilities,
        dialect: Dialect,
        *,
        log_level: int = 0,
        subscriptions: Iterable[str] = (),
    ) -> None:
        """Go on with a connection that was opened before, in another process (servers only).

        Raises:
            WrongState: this one was opened already, or we are the client.
        """
        if self.side is not Side.SERVER or self.state is not State.IDLE:
            raise WrongState(self.state.value, "only a fresh server goes on with a connection")
        self._move(Move.RESUME)
        self.dialect = dialect
        self.has_agreed = True
        self.peer = peer
        self.peer_capabilities = capabilities
        self.log_level = log_level
        for uri in subscriptions:
            self.subscriptions.add(uri)
        self._set_vocabulary()

    def may_send(self, method: str) -> bool:
        """Whether `request` or `notify` takes the method: it exists, is declared, is allowed now."""
        return method in self._sends and (method in self._may_ask or method in self._may_tell)

    # --- our requests -------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        params: Record,
        *,
        now: float,
        timeout_s: float | None = None,
        total_s: float | None = None,
        wants_progress: bool = False,
        about: Delivery | None = None,
    ) -> Call:
        """Ask the peer. The answer comes as `Answered` or `Failed` with this call.

        `about` is the delivery of the peer whose handling makes us ask.

        `timeout_s` counts from the last sign of life, `total_s` from now. While a client has a
        request of the server to answer, its own do not run out of the former.

        Raises:
            WrongState: the connection is not open yet.
            NotNegotiated: the peer did not declare what this needs.
            CannotLower: the peer's revision has no such thing.
            LinkClosed: the connection is closed (`sent` is False).
            LocalError: this side never sends that as a request.
            LimitExceeded: too many requests are under way.
            ValueError: the parameters cannot be written as JSON.
        """
        known = self._may_ask.get(method)
        if known is None or method not in self._sends:
            raise self._not_permitted(method, is_request=True)
        if known.needs_of is not None:
            check_params(params, self.dialect, self.peer_capabilities)
        return self._call(
            known, params, now, timeout_s, total_s, wants_progress=wants_progress, about=about
        )

    def _call(
        self,
        method: Method,
        params: Record,
        now: float,
        timeout_s: float | None,
        total_s: float | None,
        *,
        wants_progress: bool,
        about: Delivery | None = None,
    ) -> Call:
        limits = self.limits
        if len(self.calls) >= limits.max_calls:
            raise LimitExceeded("requests under way", limits.max_calls, "requests")
        ident = self._next_id
        meta = getattr(params, "meta", None)
        if wants_progress:
            meta = {**(meta or {}), "progressToken": ident}
            params = msgspec.structs.replace(params, meta=meta)
        elif meta is not None and "progressToken" in meta:
            # Somebody else's token, passed on by mistake: it could be in use here.
            meta = {key: value for key, value in meta.items() if key != "progressToken"}
            params = msgspec.structs.replace(params, meta=meta or None)
        raw = self._write(method.name, params)
        self._next_id = ident + 1
        if timeout_s is None:
            timeout_s = limits.call_timeout_s
        if total_s is None:
            total_s = limits.call_total_s
        limit = now + total_s
        deadline = now + timeout_s if timeout_s < total_s else limit
        topic = ident if self.side is Side.CLIENT else about
        call = Call(ident, method, timeout_s, total_s, deadline, limit, wants_progress, topic)
        self.calls[ident] = call
        wake = self.next_deadline
        if wake is None or deadline < wake:
            self.next_deadline = deadline
        frame = codec.request(ident, method.name, b"" if raw == _NO_PARAMS else raw)
        self.outbox.append((frame, topic, False))
        return call

    def cancel(self, call: Call, reason: str | None = None) -> bool:
        """Give a call up and tell the peer. False when it has ended already.

        Raises:
            LocalError: the call is `initialize`, which must not be cancelled.
            ValueError: the reason cannot be written as JSON; the call goes on.

        Spec: basic/utilities/cancellation
        """
        if call.method.name == "initialize":
            raise LocalError("initialize must not be cancelled; close the connection instead")
        if self.calls.get(call.id) is not call:
            return False
        self._tell_cancelled(call, reason)
        del self.calls[call.id]
        self._abandon(call)
        return True

    def _abandon(self, call: Call) -> None:
        self._abandoned[call.id] = None
        if len(self._abandoned) > self.limits.max_abandoned:
            del self._abandoned[next(iter(self._abandoned))]

    def _tell_cancelled(self, call: Call, reason: str | None) -> None:
        params = CancelledParams(request_id=call.id, reason=reason)
        raw = self._write("notifications/cancelled", params)
        frame = codec.notification("notifications/cancelled", raw)
        self.outbox.append((frame, call.about, False))

    # --- our notifications ----------------------------------------------------------------------------

    def notify(self, method: str, params: Record, *, about: Delivery | None = None) -> None:
        """Tell the peer. Raises as `request` does, but for LimitExceeded."""
        if method not in self._may_tell or method not in self._sends:
            raise self._not_permitted(method, is_request=False)
        raw = self._write(method, params)
        frame = codec.notification(method, b"" if raw == _NO_PARAMS else raw)
        self.outbox.append((frame, about, False))

    def log(self, params: LogMessageParams, *, now: float, about: Delivery | None = None) -> bool:
        """Send a log message if the client wants its level; False when it was not sent.

        At most `logs_per_s` in the long run; what is dropped is counted and the count is sent
        with the next message that passes.

        Raises:
            ValueError: the data cannot be written as JSON.

        Spec: server/utilities/logging
        """
        if not self.may_send("notifications/message") or LEVELS[params.level] < self.log_level:
            return False
        if self._logs is None:
            self._logs = Bucket(self.limits.logs_per_s, self.limits.logs_burst)
        if not self._logs.take(now):
            self._logs_dropped += 1
            return False
        if self._logs_dropped:
            dropped, self._logs_dropped = self._logs_dropped, 0
            note = f"{dropped} log messages were dropped: over {self.limits.logs_per_s:g} a second"
            # A warning, or as little more as the client still wants to hear.
            level = _LEVEL_NAMES[max(LEVELS["warning"], self.log_level)]
            self.notify(
                "notifications/message",
                LogMessageParams(level=level, logger="dragoman", data=note),
            )
        self.notify("notifications/message", params, about=about)
        return True

    # --- the peer's requests ----------------------------------------------------------------------------

    def answer(self, exchange: Exchange, result: Record) -> None:
        """Answer a request; nothing is sent when it was cancelled meanwhile.

        Raises:
            CannotLower, ValueError: this revision cannot hold the result, or it is no JSON. Nothing
                was sent: the caller logs the cause, and tells the peer what it may know by `fail`.
        """
        if exchange.is_over:
            return
        raw = self._write(exchange.method.name, result, exchange.dialect)
        self._finish(exchange, codec.success(exchange.id, raw))

    def drop(self, delivery: Delivery, reason: str) -> list[Event]:
        """Whoever sent a delivery cannot have its answers any more: its requests are over."""
        for exchange in [one for one in self.exchanges.values() if one.seen.delivery is delivery]:
            exchange.is_over = True
            self._forget(exchange)
            self.events.append(CancelArrived(exchange, reason))
        events, self.events = self.events, []
        return events

    def answer_raw(self, exchange: Exchange, raw: bytes) -> None:
        """Answer with a result that was lowered and written before, for this very dialect."""
        if not exchange.is_over:
            self._finish(exchange, codec.success(exchange.id, raw))

    def answer_now(self, exchange: Exchange, raw: bytes) -> bytes | None:
        """As `answer_raw`, but the frame is returned, for the caller to send; None when there is
        nothing to send before what is in the outbox."""
        if self.outbox or exchange.is_over or exchange.held_progress or exchange.batch:
            self.answer_raw(exchange, raw)
            return None
        self._close(exchange)
        ident = exchange.id
        if type(ident) is int:
            # As `codec.success` does: this is how most requests end.
            return b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (ident, raw)
        return codec.success(ident, raw)

    def fail(self, exchange: Exchange, error: RequestError) -> None:
        """Refuse a request; nothing is sent when it was cancelled meanwhile."""
        if not exchange.is_over:
            body = exchange.dialect.error(error)
            self._finish(exchange, codec.failure(exchange.id, body))

    def progress(
        self,
        exchange: Exchange,
        progress: float,
        total: float | None = None,
        message: str | None = None,
        *,
        now: float,
    ) -> bool:
        """Tell how far a request is; False when nothing was sent.

        Nothing is sent when the peer did not ask for it, when `progress` is no finite number or
        does not increase, or when the request is over. Over the rate limit only the newest value
        is kept: it goes out in front of the answer, or later values take its place; one that
        reaches its total passes at once.

        Raises:
            ValueError: the message cannot be written as JSON.

        Spec: basic/utilities/progress
        """
        if exchange.token is None or exchange.is_over or not isfinite(progress):
            return False
        last = exchange.last_progress
        if last is not None and progress <= last:
            return False
        if total is not None and not isfinite(total):
            total = None
        params = ProgressParams(
            progress_token=exchange.token, progress=progress, total=total, message=message
        )
        if exchange.bucket is None:
            exchange.bucket = Bucket(self.limits.progress_per_s, self.limits.progress_burst)
        if not exchange.bucket.take(now) and (total is None or progress < total):
            exchange.held_progress = params
            return False
        self._tell_progress(exchange, params)
        return True

    def _tell_progress(self, exchange: Exchange, params: ProgressParams) -> None:
        raw = self._write("notifications/progress", params, exchange.dialect)
        exchange.last_progress = params.progress
        exchange.held_progress = None
        frame = codec.notification("notifications/progress", raw)
        self.outbox.append((frame, exchange.seen.delivery, False))

    def _finish(self, exchange: Exchange, frame: bytes) -> None:
        if exchange.held_progress is not None:
            self._tell_held_progress(exchange, exchange.held_progress)
        self._close(exchange)
        self.unsent_bytes += len(frame)
        batch = exchange.batch
        if batch is None:
            self.outbox.append((frame, exchange.seen.delivery, True))
            return
        batch.frames.append(frame)
        batch.pending -= 1
        self._flush_batch(batch)

    def _close(self, exchange: Exchange) -> None:
        """A request of the peer has its answer."""
        exchange.is_over = True
        self.answers += 1
        if self.calls and exchange.method.name != "ping":
            # They may have had to wait for this; see `_grant_time`.
            self._granted_below = self._next_id
        # As `_forget` does.
        del self.exchanges[exchange.id]
        delivery = exchange.seen.delivery
        if delivery is not None:
            delivery.open -= 1
        if self._admission.is_counting:
            self._admission.ended(exchange.method.name)

    def _forget(self, exchange: Exchange) -> None:
        """A request of the peer is no longer under way."""
        del self.exchanges[exchange.id]
        delivery = exchange.seen.delivery
        if delivery is not None:
            delivery.open -= 1
        self._admission.ended(exchange.method.name)

    def _tell_held_progress(self, exchange: Exchange, params: ProgressParams) -> None:
        try:
            self._tell_progress(exchange, params)
        except ValueError:
            # A text that is no JSON cost its progress; the answer goes out all the same.
            exchange.held_progress = None

    def _flush_batch(self, batch: BatchReply) -> None:
        if batch.pending == 0 and batch.frames:
            frame = b"[" + b",".join(batch.frames) + b"]"
            self.outbox.append((frame, batch.delivery, True))
            batch.frames = []

    # --- receiving ------------------------------------------------------------------------------------

    def receive(self, frame: bytes, *, now: float, seen: Seen = LOCAL) -> list[Event]:
        """Take one frame. Faults of the peer become events, never exceptions."""
        arrived = self.receive_one(frame, now, seen)
        events = self.events
        if arrived is not None:
            events.append(arrived)
        if events:
            self.events = []
        return events

    def receive_one(self, frame: bytes, now: float, seen: Seen = LOCAL) -> RequestArrived | None:
        """As `receive`, but for a request that comes alone: it is returned. The rest is in `events`."""
        if self.state is _CLOSED:
            text = "a frame came after the end"
            self.events.append(Fault(FaultKind.WRONG_TIME, text, frame[:256]))
            return None
        try:
            message = codec.decode(frame)
        except BadMessage as bad:
            self._unreadable(bad, seen, None)
            return None
        kind = type(message)
        if kind is Request:
            return self._request(message, now, seen, None)  # type: ignore[arg-type]
        if kind is Success:
            self._success(message)  # type: ignore[arg-type]
        elif kind is Batch:
            self._batch(message, now, seen)  # type: ignore[arg-type]
        else:
            self._message(message, now, seen, None)  # type: ignore[arg-type]
        return None

    def refuse(self, noise: Noise) -> list[Event]:
        """Take note of a frame the link could not hold: whoever waits for it hears of it."""
        if self.state is State.CLOSED:
            return [Fault(FaultKind.WRONG_TIME, "a frame came after the end", noise.head[:256])]
        ident, is_request = codec.find_id(noise.head, noise.tail)
        detail = f"a frame of {noise.size} bytes is over the limit of {noise.limit}"
        self.events.append(Fault(FaultKind.TOO_LARGE, detail, noise.head[:256]))
        if is_request:
            # A guess must not end a request that is under way.
            known = None if ident in self.exchanges else ident
            self._reply_unreadable(known, InvalidRequest(detail), LOCAL, None)
        elif ident is not None and ident in self.calls:
            call = self.calls.pop(ident)
            self._abandon(call)
            self._lose(call, LimitExceeded("the size of a frame", noise.limit, "bytes", detail))
        events, self.events = self.events, []
        return events

    def _message(self, message: Message, now: float, seen: Seen, batch: BatchReply | None) -> None:
        kind = type(message)
        if kind is Request:
            arrived = self._request(message, now, seen, batch)  # type: ignore[arg-type]
            if arrived is not None:
                self.events.append(arrived)
        elif kind is Success:
            self._success(message)  # type: ignore[arg-type]
        elif kind is Notification:
            self._notification(message, now)  # type: ignore[arg-type]
        else:
            self._failure(message)  # type: ignore[arg-type]

    def _batch(self, batch: Batch, now: float, seen: Seen) -> None:
        size = len(batch.members)
        if not self._takes_batches():
            detail = f"revision {self.dialect.wire} has no batches; send each message on its own"
        elif size > self.limits.max_batch:
            detail = f"a batch of {size} messages is over the limit of {self.limits.max_batch}"
        else:
            reply = BatchReply(seen.delivery)
            # Held until every member was looked at, so that no part leaves before the rest.
            reply.pending = 1
            for member in batch.members:
                if isinstance(member, BadMessage):
                    self._unreadable(member, seen, reply)
                else:
                    self._message(member, now, seen, reply)
            reply.pending -= 1
            if seen.delivery is not None:
                seen.delivery.is_unreadable = all(
                    isinstance(member, BadMessage) for member in batch.members
                )
            self._flush_batch(reply)
            return
        self.events.append(Fault(FaultKind.BAD_BATCH, detail))
        self._reply_unreadable(None, InvalidRequest(detail), seen, None)

    def _takes_batches(self) -> bool:
        if self.state is State.IDLE:
            # Not agreed on yet: any revision that may still be chosen will do.
            return any(dialect.facts.takes_batches for dialect in self.dialects)
        return self.dialect.facts.takes_batches

    # requests of the peer

    def _request(
        self, message: Request, now: float, seen: Seen, batch: BatchReply | None
    ) -> RequestArrived | None:
        name, ident = message.method, message.id
        method = self._may_be_asked.get(name)
        if method is None or name not in self._receives:
            self._refuse_request(message, seen, batch)
            return None
        exchanges = self.exchanges
        if ident in exchanges:
            detail = f"the id {_short(ident)} belongs to a request that is under way"
            self._refused(FaultKind.REUSED_ID, message, InvalidRequest(detail), seen, batch)
            return None
        dialect, limits = self.dialect, self.limits
        admission = self._admission
        is_rated = name in limits.rates
        if is_rated or admission.is_limited or len(exchanges) >= limits.max_exchanges:
            excess = admission.excess(name, len(exchanges), now)
            if excess is not None:
                error = RequestError(excess, code=-32000)
                self._refused(FaultKind.TOO_MANY, message, error, seen, batch)
                return None
        raw = message.params
        try:
            params = dialect.readers[method.params](_NO_PARAMS if raw is ABSENT else raw)
        except (msgspec.ValidationError, ValueError) as fault:
            misfit = InvalidParams(f"{name}: {_plain(str(fault))}")
            self._refused(FaultKind.BAD_PARAMS, message, misfit, seen, batch)
            return None
        meta = params.meta
        token = None
        if meta is not None:
            token = meta.get("progressToken")
            if token is not None and not _is_token(token):
                misfit = InvalidParams(
                    "the progress token must be an integer, or a string of at most "
                    f"{codec.MAX_ID_CHARS} characters"
                )
                self._refused(FaultKind.BAD_PARAMS, message, misfit, seen, batch)
                return None
        deadline = now + limits.exchange_timeout_s
        exchange = Exchange(ident, method, dialect, token, seen, deadline, batch)
        exchanges[ident] = exchange
        delivery = seen.delivery
        if delivery is not None:
            delivery.open += 1
        if is_rated:
            admission.began(name)
        if batch is not None:
            batch.pending += 1
        wake = self.next_deadline
        if wake is None or deadline < wake:
            self.next_deadline = deadline
        if name in _AT_ONCE:
            if name == "ping":
                self.answer(exchange, EmptyResult())
            else:
                self._hello(exchange, params)
            return None
        return RequestArrived(exchange, params)

    def _refuse_request(self, message: Request, seen: Seen, batch: BatchReply | None) -> None:
        """Say why a request cannot be taken: no such method, or not now."""
        name = message.method
        known = self.dialect.method(name, self.side.other)
        if known is None:
            detail = f"unknown method {name[:128]!r}"
            self._refused(FaultKind.UNKNOWN_METHOD, message, MethodNotFound(detail), seen, batch)
        elif not known.is_request:
            detail = f"{name} is a notification and takes no id"
            self._refused(FaultKind.UNKNOWN_METHOD, message, MethodNotFound(detail), seen, batch)
        elif name in self._receives:
            detail = f"{name} was not negotiated: no such capability is declared here"
            self._refused(FaultKind.NOT_NEGOTIATED, message, MethodNotFound(detail), seen, batch)
        else:
            if name == "initialize":
                detail = "the connection is open already; initialize comes once"
            else:
                detail = f"{name} came before the connection was initialized; only ping may"
            self._refused(FaultKind.WRONG_TIME, message, InvalidRequest(detail), seen, batch)

    def _refused(
        self,
        kind: FaultKind,
        message: Request,
        error: RequestError,
        seen: Seen,
        batch: BatchReply | None,
    ) -> None:
        self.events.append(Fault(kind, error.message))
        self.answers += 1
        frame = codec.failure(message.id, self.dialect.error(error))
        if batch is None:
            self.outbox.append((frame, seen.delivery, True))
        else:
            batch.frames.append(frame)

    def _hello(self, exchange: Exchange, params: InitializeParams) -> None:
        if exchange.batch is not None:
            self.fail(exchange, InvalidRequest("initialize must not be part of a batch"))
            return
        self._move(Move.HELLO)
        self.dialect = negotiate(params.protocol_version, self.dialects)
        self.has_agreed = True
        exchange.dialect = self.dialect
        self.peer = params.client_info
        self.peer_capabilities = params.capabilities
        self._set_vocabulary()
        ours = self.introduction
        assert isinstance(ours.capabilities, ServerCapabilities)
        result = InitializeResult(
            protocol_version=self.dialect.wire,
            capabilities=ours.capabilities,
            server_info=ours.info,
            instructions=ours.instructions,
        )
        self.answer(exchange, result)

    # answers to our requests

    def _success(self, message: Success) -> None:
        call = self.calls.pop(message.id, None)
        if call is None:
            self._stray(message.id)
            return
        record = call.method.result
        assert record is not None
        try:
            result = self.dialect.readers[record](message.result)
        except (msgspec.ValidationError, ValueError) as fault:
            text = _plain(str(fault))
            detail = f"the answer to {call.method.name} does not fit: {text}"
            self.events.append(Fault(FaultKind.BAD_ANSWER, detail, bytes(message.result)[:256]))
            self._lose(call, PeerError(detail))
            return
        if call.method.name == "initialize":
            self._welcome(call, result)
            return
        self.events.append(Answered(call, result))

    def _welcome(self, call: Call, result: InitializeResult) -> None:
        chosen = next((d for d in self.dialects if d.wire == result.protocol_version), None)
        if chosen is None:
            ours = ", ".join(dialect.wire for dialect in self.dialects)
            text = f"the server chose revision {result.protocol_version[:64]!r}; we speak {ours}"
            self._lose(call, PeerError(text))
            return
        self.dialect = chosen
        self.has_agreed = True
        self.peer = result.server_info
        self.peer_capabilities = result.capabilities
        self.instructions = result.instructions
        self.outbox.append((codec.notification("notifications/initialized", b""), None, False))
        self._move(Move.WELCOME)
        self._set_vocabulary()
        self.events.append(
            Opened(result.server_info, result.capabilities, chosen, result.instructions)
        )
        self.events.append(Answered(call, result))

    def _failure(self, message: Failure) -> None:
        error = message.error
        if message.id is None:
            detail = f"error {error.code}: {_plain(error.message)}"
            self.events.append(Fault(FaultKind.REFUSED_US, detail))
            # Whose it is nobody can tell: it may even answer a notification. Only a hello, with
            # nothing else said yet, need not wait for its deadline.
            if self.state is not State.OPENING or len(self.calls) != 1:
                return
            call = self.calls.popitem()[1]
        else:
            found = self.calls.pop(message.id, None)
            if found is None:
                self._stray(message.id)
                return
            call = found
        self._lose(
            call, RemoteFailure(error.code, error.message, error.data, method=call.method.name)
        )

    def _lose(self, call: Call, error: DragomanError) -> None:
        """A call, taken from the table before, has failed. Without a hello nothing else lives."""
        self.events.append(Failed(call, error))
        if call.method.name == "initialize":
            self._move(Move.REJECT)
            self._drop_all(LinkClosed("the connection could not be opened"))

    def _stray(self, ident: RequestId) -> None:
        if ident in self._abandoned:
            del self._abandoned[ident]
            self.events.append(LateAnswer(ident))
        else:
            detail = f"no request has the id {_short(ident)}"
            self.events.append(Fault(FaultKind.STRAY_ANSWER, detail))

    # notifications of the peer

    def _notification(self, message: Notification, now: float) -> None:
        name = message.method
        method = self.dialect.method(name, self.side.other)
        if method is None or method.is_request:
            what = "needs an id" if method is not None else "does not exist here"
            self.events.append(
                Fault(FaultKind.UNKNOWN_METHOD, f"the notification {name[:128]!r} {what}")
            )
            return
        if name not in self._receives:
            detail = f"{name} is not allowed while the connection is {self.state.value}"
            self.events.append(Fault(FaultKind.WRONG_TIME, detail))
            return
        raw = message.params
        try:
            params = self.dialect.lift(method.params, _NO_PARAMS if raw is ABSENT else raw)
        except (msgspec.ValidationError, ValueError) as fault:
            detail = f"{name}: {_plain(str(fault))}"
            self.events.append(Fault(FaultKind.BAD_PARAMS, detail))
            return
        if name == "notifications/progress":
            self._progress(params, now)  # type: ignore[arg-type]
        elif name == "notifications/cancelled":
            self._cancelled(params)  # type: ignore[arg-type]
        elif name == "notifications/initialized":
            self._move(Move.READY)
            assert self.peer is not None
            self.events.append(
                Opened(self.peer, self.peer_capabilities, self.dialect, self.instructions)
            )
        else:
            if name not in self._may_be_told:
                # Not declared, but harmless: the listener decides.
                self.events.append(
                    Fault(FaultKind.NOT_NEGOTIATED, f"{name} was sent without being declared")
                )
            self.events.append(NotificationArrived(method, params))

    def _progress(self, params: ProgressParams, now: float) -> None:
        call = self.calls.get(params.progress_token)
        if call is None or not call.wants_progress:
            if params.progress_token not in self._abandoned:
                detail = f"no request has the progress token {_short(params.progress_token)}"
                self.events.append(Fault(FaultKind.STRAY_PROGRESS, detail))
            return
        last = call.last_progress
        if last is not None and params.progress <= last:
            detail = f"progress went from {last:g} to {params.progress:g}"
            self.events.append(Fault(FaultKind.BACKWARD_PROGRESS, detail))
            return
        call.last_progress = params.progress
        call.deadline = min(now + call.timeout_s, call.limit)
        self.events.append(ProgressArrived(call, params))

    def _cancelled(self, params: CancelledParams) -> None:
        exchange = self.exchanges.get(params.request_id)
        if exchange is None:
            detail = f"no request has the id {_short(params.request_id)}, or it has ended"
            self.events.append(Fault(FaultKind.STRAY_CANCEL, detail))
            return
        exchange.is_over = True
        self._forget(exchange)
        if exchange.batch is not None:
            exchange.batch.pending -= 1
            self._flush_batch(exchange.batch)
        self.events.append(CancelArrived(exchange, params.reason))

    def lose(self, ident: RequestId, error: LinkError) -> list[Event]:
        """The link could not carry one request of ours; the connection goes on without it."""
        call = self.calls.pop(ident, None)
        if call is not None:
            self._abandon(call)
            self._lose(call, error)
        events, self.events = self.events, []
        return events

    # faults

    def _unreadable(self, bad: BadMessage, seen: Seen, batch: BatchReply | None) -> None:
        self.events.append(Fault(FaultKind.UNREADABLE, bad.reason, bad.sample))
        if bad.is_answer:
            if seen.delivery is not None and batch is None:
                seen.delivery.is_unreadable = True
            call = None if bad.id is None else self.calls.pop(bad.id, None)
            if call is not None:
                detail = f"the answer to {call.method.name} is no valid message: {bad.reason}"
                self._lose(call, PeerError(detail))
            return
        error = ParseError(bad.reason) if bad.kind == "parse" else InvalidRequest(bad.reason)
        self._reply_unreadable(bad.id, error, seen, batch)

    def _reply_unreadable(
        self, ident: RequestId | None, error: RequestError, seen: Seen, batch: BatchReply | None
    ) -> None:
        if self.side is Side.CLIENT and ident is None and batch is None:
            # What a child prints by mistake is no request and wants no answer.
            return
        self.answers += 1
        if seen.delivery is not None and batch is None:
            seen.delivery.is_unreadable = True
        body = ErrorBody(error.code, error.message)
        frame = codec.failure(ident, body, null_id=self.dialect.facts.sends_null_id)
        if batch is None:
            self.outbox.append((frame, seen.delivery, True))
        else:
            batch.frames.append(frame)

    # --- time and end -----------------------------------------------------------------------------------

    def expire(self, now: float) -> list[Event]:
        """End what is overdue: our calls are cancelled, the peer's requests answered with an error."""
        if self.side is Side.CLIENT and (self.exchanges or self._granted_below):
            self._grant_time(now)
        for call in [call for call in self.calls.values() if call.deadline <= now]:
            if self.calls.pop(call.id, None) is None:
                # It ended together with the hello, which came before it in the table.
                continue
            self._abandon(call)
            if call.method.name != "initialize":
                self._tell_cancelled(call, "no answer in time")
            waited = call.timeout_s if call.deadline < call.limit else call.total_s
            self._lose(call, DeadlineExceeded(call.method.name, waited))
        for exchange in [one for one in self.exchanges.values() if one.deadline <= now]:
            limit = self.limits.exchange_timeout_s
            detail = f"{exchange.method.name} took longer than {limit:g} s"
            self.fail(exchange, InternalError(detail))
            self.events.append(Overdue(exchange))
        deadlines = [call.deadline for call in self.calls.values()]
        deadlines += [exchange.deadline for exchange in self.exchanges.values()]
        self.next_deadline = min(deadlines, default=None)
        events, self.events = self.events, []
        return events

    def _grant_time(self, now: float) -> None:
        """Start the time of calls anew: the server waits for us, or did since they were made.

        A tool that asks the user cannot answer before the user does. `Call.limit` stands.
        """
        below = self._next_id if self.exchanges else self._granted_below
        self._granted_below = 0
        for call in self.calls.values():
            if call.id < below:
                call.deadline = max(call.deadline, min(now + call.timeout_s, call.limit))

    def close(self, error: LinkError | None = None) -> list[Event]:
        """The link is over: every call of ours fails, every request of the peer is dropped."""
        self._move(Move.CLOSE)
        self._drop_all(
            LinkClosed("the connection was closed before the answer came")
            if error is None
            else error
        )
        self.outbox.clear()
        events, self.events = self.events, []
        return events

    def _drop_all(self, error: LinkError) -> None:
        """Fail every call and drop every request of the peer."""
        for call in self.calls.values():
            self.events.append(Failed(call, error.again(sent=False if call.is_unsent else None)))
        self.calls.clear()
        for exchange in self.exchanges.values():
            exchange.is_over = True
            self.events.append(CancelArrived(exchange, "the connection was closed"))
        self.exchanges.clear()
        self._admission.all_ended()
        self.next_deadline = None

    # --- inside -----------------------------------------------------------------------------------------

    def _move(self, move: Move) -> None:
        # An impossible move is a mistake of ours: let it fail loudly.
        self.state = new = MOVES[self.side, self.state, move]
        self._sends = SENDS[self.side, new]
        self._receives = RECEIVES[self.side, new]

    def _not_permitted(self, name: str, *, is_request: bool) -> DragomanError:
        """Why we may not send a method."""
        if self.state is State.CLOSED:
            return LinkClosed("the connection is closed", sent=False)
        known = CATALOGUE.get(name)
        if known is None:
            return LocalError(f"there is no method {name[:128]!r}")
        if name in _OWN or known.is_request is not is_request or self.side not in known.senders:
            how = "request" if is_request else "notification"
            return LocalError(f"a {self.side.value} cannot send {name} as a {how} of its own")
        if name not in self._sends:
            return WrongState(self.state.value, f"{name} has to wait until it is open")
        if self.dialect.method(name, self.side) is None:
            return CannotLower(f"the method {name!r}", self.dialect.wire)
        return NotNegotiated(self.dialect.needs(known) or name)

    def _write(self, method: str, value: Record, dialect: Dialect | None = None) -> bytes:
        """Lower and encode; what was lost becomes an event."""
        losses = self._losses
        try:
            raw = (dialect or self.dialect).encode(value, losses.append)
        except BaseException:
            losses.clear()
            raise
        if losses:
            self.events.append(Degraded(method, tuple(losses)))
            losses.clear()
        return raw

    def _our_client_capabilities(self) -> ClientCapabilities:
        capabilities = self.introduction.capabilities
        assert isinstance(capabilities, ClientCapabilities)
        return capabilities

    def _set_vocabulary(self) -> None:
        ours, theirs = self.introduction.capabilities, self.peer_capabilities
        if self.side is Side.CLIENT:
            assert isinstance(ours, ClientCapabilities)
            assert isinstance(theirs, ServerCapabilities)
            client, server = ours, theirs
        else:
            assert isinstance(theirs, ClientCapabilities)
            assert isinstance(ours, ServerCapabilities)
            client, server = theirs, ours
        words = shared_vocabulary(self.dialect, self.side, client, server, _OWN)
        self._may_ask, self._may_tell, self._may_be_asked, self._may_be_told = words


_last_checked: Introduction | None = None


def _check(introduction: Introduction) -> None:
    """Better to fail before there is a connection than in the middle of a hello.

    A server introduces itself to all of its clients in the same words, so looking once is enough.
    """
    global _last_checked
    if introduction is not _last_checked:
        codec.encode_value(introduction)
        _last_checked = introduction


def _plain(text: str) -> str:
    """The peer's words for a fault, bounded and on one line: they go to logs and terminals."""
    cut = text[:_DETAIL_CHARS]
    if cut.isprintable():
        return cut
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in cut)


def _is_token(value: object) -> bool:
    """Whether a value can be a progress token. It is repeated in every report, so it is short."""
    kind = type(value)
    return kind is int or (kind is str and len(value) <= codec.MAX_ID_CHARS)  # type: ignore[arg-type]


def _short(ident: RequestId) -> str:
    """An id for a person to read; the peer chose its length."""
    return repr(ident if type(ident) is int else ident[:64])  # type: ignore[index]
