"""The driver: one engine, one link, and the tasks that run between them.

The only place where an event becomes an awaited call. The way of a request is

    link -> Driver.frames_received -> Engine.receive -> Driver._dispatch -> Handler.handle_request

and back through `Engine.answer` and `Link.send`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Protocol

from dragoman.errors import (
    DeadlineExceeded,
    InternalError,
    LimitExceeded,
    LinkClosed,
    LinkError,
    RemoteFailure,
    RequestError,
    WrongState,
)
from dragoman.jsonrpc.frame import Delivery, Noise, Seen
from dragoman.model.base import NoParams, Record
from dragoman.model.methods import Side
from dragoman.model.progress import ProgressParams
from dragoman.protocol.calls import Call, Exchange
from dragoman.protocol.engine import Engine
from dragoman.protocol.events import (
    Answered,
    CancelArrived,
    Degraded,
    Event,
    Failed,
    LateAnswer,
    Overdue,
    ProgressArrived,
    RequestArrived,
)
from dragoman.revisions.dialect import Loss
from dragoman.runtime.clock import Clock, LoopClock, Timer
from dragoman.runtime.fault_log import FaultLog
from dragoman.runtime.steps import go_on, in_own_context
from dragoman.transport.base import About, Link

__all__ = [
    "HANDLER_GRACE_S",
    "Driver",
    "Encoded",
    "Handler",
    "Outcome",
    "Tap",
    "report_failure",
]

log = logging.getLogger("dragoman.runtime")

Tap = Callable[[str, bytes], None]
"""Sees every frame: ("sent" or "received", the frame). Must not block.

One that raises is logged and not called again on that connection: the frames go on without it.
"""

# 256 requests: about two milliseconds of work before the loop may look at anything else.
MAX_IN_A_ROW = 256

# 64 KiB of answers, one pipe full, are handed over before the next request is begun: a peer that
# asks for much and reads nothing should cost little more than what it was given.
MAX_UNSENT_BYTES = 64 * 1024

# 1 s: how long answers may still be worked out for a client that has ended its direction. Clients
# wait about two before they send a signal.
FINISH_S = 1.0

# 5 s: how long handlers may take to end after they were cancelled, before we go on without them.
HANDLER_GRACE_S = 5.0

# 1 s: how long we stop reading a peer that does not take our answers. It is bounded because a
# peer may do the same, and two ends that each wait for the other to read would wait for ever.
PAUSE_S = 1.0


def report_failure(logger: logging.Logger, what: str) -> str:
    """Log the exception being handled in full, under a fresh id: the peer learns only the id."""
    error_id = os.urandom(6).hex()
    logger.exception("%s failed (error id %s)", what, error_id)
    return f"(error id {error_id})"


class Encoded:
    """A result that was written before, once for each revision.

    `record` is the result itself, for whoever wants to look at it; `written` its JSON text by the
    revision's wire string, with what that revision could not hold.
    """

    __slots__ = ("record", "written")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.written: dict[str, tuple[bytes, tuple[Loss, ...]]] = {}


Outcome = Record | Encoded | bytes
"""What a request is answered with. Bytes are its JSON text, written for the exchange's dialect."""


class Handler(Protocol):
    """What a driver calls: the server or the client behind it."""

    async def handle_request(self, driver: Driver, exchange: Exchange, params: Record) -> Outcome:
        """Answer the peer's request.

        Raises:
            RequestError: what the peer is told. Anything else becomes an internal error.
        """

    def handle_event(self, driver: Driver, event: Event) -> None:
        """Take note of anything else; must not block."""


class _Waiter:
    """Who awaits a call, and who hears of its progress."""

    __slots__ = ("future", "on_progress")

    def __init__(
        self,
        future: asyncio.Future[Record],
        on_progress: Callable[[ProgressParams], None] | None,
    ) -> None:
        self.future = future
        self.on_progress = on_progress


class Driver:
    """Runs one connection until its link closes.

    A server has one for each session: it holds little until there is something to hold.

    `on_trouble` hears when the link cannot reach its peer (an error) and when it can again (None).
    `closed` is a future that ends with the link: None, or the LinkError that ended it. `faults` is
    where the handler has the peer's faults written down.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "_checking",
        "_faults",
        "_finishing",
        "_hands",
        "_heard_at",
        "_held",
        "_is_clogged",
        "_is_closing",
        "_is_new",
        "_loop",
        "_lost",
        "_queue",
        "_running",
        "_telling",
        "_timer",
        "_timer_at",
        "_unclogging",
        "_watching",
        "clock",
        "closed",
        "engine",
        "handler",
        "link",
        "on_trouble",
        "tap",
    )

    def __init__(
        self,
        engine: Engine,
        link: Link,
        handler: Handler,
        *,
        clock: Clock | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.engine = engine
        self.link = link
        self.handler = handler
        self.clock: Clock = clock or LoopClock()
        self.tap = tap
        self.on_trouble: Callable[[LinkError | None], None] | None = None
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[LinkError | None] = self._loop.create_future()
        self._faults: FaultLog | None = None
        # None while there is nothing in it: most connections are idle most of the time.
        self._queue: deque[RequestArrived] | None = None
        self._checking = False
        self._is_clogged = False
        self._hands: dict[asyncio.Task[None], None] = {}
        self._running: dict[Exchange, asyncio.Task[Any]] = {}
        self._timer: Timer | None = None
        self._timer_at: float | None = None
        self._answers = 0
        self._unclogging: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._held: OrderedDict[Hashable, Callable[[], None]] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._heard_at = self.clock.now()
        self._lost: LinkError | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._is_closing = False
        # Until the link was told the revision.
        self._is_new = True

    @property
    def faults(self) -> FaultLog:
        """Where the peer's faults are written down."""
        if self._faults is None:
            self._faults = FaultLog(self.engine.side, self.clock)
        return self._faults

    def start(self) -> None:
        """Begin to receive."""
        self.link.start(self)
        self._tell_agreed()

    # --- what the link calls ------------------------------------------------------------------------

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        """Run frames through the engine and act on what it says."""
        receive = self.engine.receive
        self._heard_at = now = self.clock.now()
        for frame in frames:
            if self.tap is not None:
                self._show("received", frame)
            events = receive(frame, now=now, seen=seen)
            if events:
                self._dispatch(events)
        if self._is_new:
            self._tell_agreed()
        if self._queue and not self._checking and not self._is_clogged:
            self._lend_hand()
        self.flush()

    def take_in(self, frame: bytes, seen: Seen, now: float) -> Coroutine[Any, Any, None] | None:
        """As `frames_received` with one frame, but a request that it brings is begun here.

        For links whose every frame has a task of its own, which calls this. Most handlers end
        without waiting: then the answer was sent. If one waits, the rest of it is returned, and the
        same task awaits that: it is cancelled when the request is, and goes on after it. Whoever
        else cancels the task ends it. `now` is what the clock says.
        """
        self._heard_at = now
        if self.tap is not None:
            self._show("received", frame)
        engine = self.engine
        rest: Coroutine[Any, Any, None] | None = None
        answer: bytes | None = None
        arrived = engine.receive_one(frame, now, seen)
        if self._is_new:
            self._tell_agreed()
        if engine.events:
            self._dispatch(engine.drain_events())
        if arrived is None:
            pass
        elif self._is_clogged:
            self._dispatch((arrived,))
        else:
            exchange = arrived.exchange
            try:
                handling = self.handler.handle_request(self, exchange, arrived.params)
                try:
                    pending = handling.send(None)
                except StopIteration as end:
                    result = end.value
                    if type(result) is bytes:
                        answer = engine.answer_now(exchange, result)
                    else:
                        self._answer(exchange, result)
                else:
                    rest = self._end_of(exchange, go_on(handling, pending))
            except BaseException as error:
                self._fail(exchange, error)
                if isinstance(error, asyncio.CancelledError) and not exchange.was_stopped:
                    self.flush()
                    raise
            if answer is not None:
                # What goes wrong here is no fault of the handler, which has ended.
                self._send_now(answer, exchange)
        if self._queue and not self._checking and not self._is_clogged:
            self._lend_hand()
        if engine.outbox or engine.events or engine.next_deadline is not self._timer_at:
            self.flush()
        return rest

    async def _end_of(self, exchange: Exchange, handling: Awaitable[Outcome]) -> None:
        """A request whose handler waits, in the task of the caller."""
        this = asyncio.current_task()
        assert this is not None
        self._running[exchange] = this
        if exchange.is_over:
            # It was ended from within, while nobody knew its task.
            this.cancel()
        try:
            await self._run(exchange, handling)
        except asyncio.CancelledError:
            if not exchange.was_stopped:
                raise
            while this.cancelling():
                this.uncancel()
        finally:
            self.flush()

    def _tell_agreed(self) -> None:
        if self.engine.has_agreed:
            self._is_new = False
            dialect = self.engine.dialect
            self.link.agreed(dialect.wire, dialect.facts)

    def frame_refused(self, noise: Noise) -> None:
        """A frame was too large to hold."""
        self._dispatch(self.engine.refuse(noise))
        self.flush()

    def link_closed(self, error: LinkError | None) -> None:
        """Fail what is under way, stop the handlers, and say so.

        A server whose client has only ended its own direction first finishes what was asked, for
        at most `FINISH_S`: the answers may still be wanted.
        """
        error = error or self._lost
        is_server = self.engine.side is Side.SERVER
        if error is None and is_server and not self._is_closing and (self._queue or self._running):
            self._finishing = self._loop.create_task(self._finish())
        else:
            self._end(error)

    def is_awaited(self, ident: int | str) -> bool:
        """Whether our request with this id still waits for its outcome."""
        return ident in self.engine.calls

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        """The link could not carry one of our requests."""
        self._dispatch(self.engine.lose(ident, error))
        self.flush()

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        """Nobody can take the answers to a delivery any more."""
        self._dispatch(self.engine.drop(delivery, reason))
        self.flush()

    def link_troubled(self, error: LinkError | None) -> None:
        """The link lost its peer, or found it again: told to whoever asked by `on_trouble`."""
        if error is not None:
            log.info("the peer cannot be reached: %s", error)
        if self.on_trouble is not None:
            try:
                self.on_trouble(error)
            except Exception:
                log.exception("whoever minds the connection failed")

    async def _finish(self) -> None:
        """Let the handlers end. What they ask of the client now fails at once."""
        over = LinkClosed("the client sends nothing any more", sent=None)
        for call in list(self.engine.calls.values()):
            self.engine.cancel(call, "the answer could not come any more")
            self._settle(Failed(call, over.again(sent=None)))
        self.flush()
        patience = self._cancel_at(self.clock.now() + FINISH_S)
        try:
            while tasks := self._tasks():
                await asyncio.wait(tasks)
        except asyncio.CancelledError:
            log.info("%d requests were not finished in time", len(self._running))
        finally:
            patience.cancel()
            self._end(None)

    def _tasks(self) -> set[asyncio.Task[Any]]:
        """Those that handlers run in: hands, and the tasks that gave us a request themselves."""
        return {*self._hands, *self._running.values()}

    def _cancel_at(self, when: float) -> Timer:
        """Cancel the current task at a time of the clock, unless the timer is cancelled before."""
        this = asyncio.current_task()
        assert this is not None
        cancel = this.cancel

        def ring() -> None:
            cancel()

        return self.clock.call_at(when, ring)

    def _end(self, error: LinkError | None) -> None:
        if self.closed.done():
            return
        self._dispatch(self.engine.close(error))
        if self._queue:
            self._queue.clear()
        if self._held:
            self._held.clear()
        if self._faults is not None:
            self._faults.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._timer_at = None
        self.closed.set_result(error)

    def _show(self, direction: str, frame: bytes) -> None:
        assert self.tap is not None
        try:
            self.tap(direction, frame)
        except Exception:
            # It would most likely fail on every frame; one log record is enough.
            self.tap = None
            log.exception("whoever watches the wire failed and sees no more of it")

    # --- sending --------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand the outbox to the link, take note of new deadlines, and mind the back-pressure."""
        engine = self.engine
        if engine.events:
            self._note(engine.drain_events())
        if engine.outbox:
            out = engine.take()
            link = self.link
            left = iter(out)
            about: About = None
            try:
                for frame, about, is_answer in left:
                    if self.tap is not None:
                        self._show("sent", frame)
                    link.send(frame, about, is_answer)
            except LinkClosed:
                # `link_closed` follows, or has come; what is under way fails there, and why.
                self._note_unsent(about)
                for _, about, _ in left:
                    self._note_unsent(about)
                return
            if engine.answers != self._answers:
                # Only what we answer grows with what we read; to stop for requests of our own
                # would keep their answers out.
                self._answers = engine.answers
                if link.is_congested:
                    self._mind_congestion()
        wake = engine.next_deadline
        if wake is not None and (self._timer_at is None or wake < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = wake
            self._timer = self.clock.call_at(wake, self._expire)

    def _mind_congestion(self) -> None:
        """Read no more until the peer has taken what it was answered."""
        if self._unclogging is None:
            self.link.pause_reading()
            unclogging = self._loop.create_task(self._unclog())
            if not unclogging.done():
                self._unclogging = unclogging

    def _note_unsent(self, about: About) -> None:
        """The link took no frame about this any more: a request of ours certainly did not run.

        Its cancellation has no call any more, and so hides nothing of one that was sent.
        """
        call = None if isinstance(about, Delivery | None) else self.engine.calls.get(about)
        if call is not None:
            call.is_unsent = True

    async def _unclog(self) -> None:
        """Read on once the peer has taken what we wrote, or after a while."""
        patience = self._cancel_at(self.clock.now() + PAUSE_S)
        try:
            await self.link.drain()
        except LinkError:
            return
        except asyncio.CancelledError:
            if self.closed.done():
                raise
        finally:
            patience.cancel()
            self._unclogging = None
        self.link.resume_reading()

    def _expire(self) -> None:
        self._timer = self._timer_at = None
        self._dispatch(self.engine.expire(self.clock.now()))
        self.flush()

    async def request(
        self,
        method: str,
        params: Record,
        *,
        timeout_s: float | None = None,
        total_s: float | None = None,
        on_progress: Callable[[ProgressParams], None] | None = None,
        about: Delivery | None = None,
    ) -> Record:
        """Ask the peer and wait for the answer. Cancelling the wait cancels the request.

        `about` is the delivery of the peer whose handling makes us ask.

        Raises:
            RemoteFailure: the peer answered with an error.
            DeadlineExceeded: no answer in time; the peer was told.
            LinkError: the connection ended; `sent` says whether the request may have run.
            LocalError, LimitExceeded, ValueError: as `Engine.request`.
        """
        if self._finishing is not None:
            raise LinkClosed("the client sends nothing any more", sent=False)
        call = self.engine.request(
            method,
            params,
            now=self.clock.now(),
            timeout_s=timeout_s,
            total_s=total_s,
            wants_progress=on_progress is not None,
            about=about,
        )
        return await self._wait(call, on_progress)

    async def open(self, *, timeout_s: float | None = None) -> Record:
        """Say hello and wait until the connection is open. Raises as `request` does.

        A hello cannot be cancelled: whoever gives up waiting has to close the connection.
        """
        call = self.engine.open(now=self.clock.now(), timeout_s=timeout_s)
        return await self._wait(call, None)

    async def _wait(
        self, call: Call, on_progress: Callable[[ProgressParams], None] | None
    ) -> Record:
        future: asyncio.Future[Record] = self._loop.create_future()
        call.context = _Waiter(future, on_progress)
        self.flush()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # It failed in the same turn; asyncio would complain that nobody looked.
                future.exception()
            if call.method.name != "initialize" and self.engine.cancel(call, "no longer wanted"):
                log.debug("%r was cancelled: no longer wanted", call)
                self.flush()
            raise

    def notify(self, method: str, params: Record, *, about: Delivery | None = None) -> None:
        """Tell the peer. Raises as `Engine.notify` does."""
        self.engine.notify(method, params, about=about)
        self.flush()

    def soon(self, key: Hashable, tell: Callable[[], None]) -> None:
        """Call `tell`, which notifies the peer, as soon as the peer has taken what was sent.

        That is at once, unless the link is congested. Of those that wait with the same key only
        the first is called, so news that repeats costs no more than what it is about.
        """
        if not self._held and not self.link.is_congested:
            tell()
        elif not self.closed.done():
            if self._held is None:
                self._held = OrderedDict()
            self._held.setdefault(key, tell)
            if self._telling is None:
                telling = self._loop.create_task(self._tell_held())
                # A loop with eager tasks may have run it to its end already.
                if not telling.done():
                    self._telling = telling

    async def _tell_held(self) -> None:
        held = self._held
        assert held is not None
        try:
            while held:
                await self.link.drain()
                while held:
                    _, tell = held.popitem(last=False)
                    try:
                        tell()
                    except Exception:
                        log.exception("a notification could not be sent")
                    if self.link.is_congested:
                        break
        except LinkError as error:
            held.clear()
            log.debug("nothing more can be sent: %s", error)
        finally:
            self._telling = None

    # --- watching -------------------------------------------------------------------------------------

    def watch(self, interval_s: float, timeout_s: float) -> None:
        """Ping the peer whenever it was silent for `interval_s`, from now on.

        A peer that leaves a ping unanswered for `timeout_s`, and says nothing else meanwhile, is
        taken for lost: the link is closed, and `closed` and every wait end with a LinkError.

        Raises:
            WrongState: the connection is being watched already.

        Spec: basic/utilities/ping
        """
        if self._watching is not None:
            raise WrongState("watched", "one watch is enough")
        self._watching = self._loop.create_task(self._watch(interval_s, timeout_s))

    async def _watch(self, interval_s: float, timeout_s: float) -> None:
        due = self.clock.now() + interval_s
        is_troubled = False
        while not self.closed.done():
            await self._until(due)
            asked_at = self.clock.now()
            due = self._heard_at + interval_s
            if due > asked_at:
                continue
            due = asked_at + interval_s
            if not self.engine.may_send("ping"):
                continue
            try:
                await self.request("ping", NoParams(), timeout_s=timeout_s, total_s=timeout_s)
            except (RemoteFailure, LimitExceeded):
                # A peer that does not know ping, or owes us many answers, is alive all the same.
                continue
            except LinkError as error:
                if self.closed.done():
                    return
                # Only this ping was lost; the link goes on.
                is_troubled = True
                self.link_troubled(error)
            except DeadlineExceeded:
                log.warning("a ping got no answer within %g s", timeout_s)
                if self._heard_at < asked_at:
                    self._lost = LinkError(f"the peer answered no ping within {timeout_s:g} s")
                    await self.link.aclose()
                    return
            else:
                if is_troubled:
                    is_troubled = False
                    self.link_troubled(None)

    async def _until(self, when: float) -> None:
        """Wait for a time of the clock."""
        reached: asyncio.Future[None] = self._loop.create_future()

        def ring() -> None:
            if not reached.done():
                reached.set_result(None)

        timer = self.clock.call_at(when, ring)
        try:
            await reached
        finally:
            timer.cancel()

    # --- acting on events ---------------------------------------------------------------------------

    def _dispatch(self, events: Sequence[Event]) -> None:
        for event in events:
            # By exact type: this runs for every message, and isinstance costs five times as much.
            kind = type(event)
            if kind is RequestArrived:
                queue = self._queue
                if queue is None:
                    queue = self._queue = deque()
                queue.append(event)  # type: ignore[arg-type]
            elif kind is Answered or kind is Failed:
                self._settle(event)  # type: ignore[arg-type]
            elif kind is ProgressArrived:
                self._tell_progress(event)  # type: ignore[arg-type]
            else:
                if isinstance(event, CancelArrived | Overdue):
                    self._stop(event)
                elif kind is LateAnswer:
                    log.debug("an answer came after its request %s was given up", event.id)  # type: ignore[union-attr]
                self._tell(event)

    def _stop(self, event: CancelArrived | Overdue) -> None:
        """End the handler of a request that is over."""
        exchange = event.exchange
        reason = event.reason if isinstance(event, CancelArrived) else "it took too long"
        log.debug("%r was cancelled: %s", exchange, reason)
        task = self._running.get(exchange)
        if task is not None:
            task.cancel()
        delivery = exchange.seen.delivery
        if delivery is not None and not delivery.open and isinstance(event, CancelArrived):
            # First what is on its way for it already.
            self.flush()
            self.link.settle(delivery)

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            self._tell(event)

    def _tell(self, event: Event) -> None:
        try:
            self.handler.handle_event(self, event)
        except Exception:
            log.exception("a listener failed on %s", type(event).__name__)

    def _settle(self, event: Answered | Failed) -> None:
        waiter = event.call.context
        if not isinstance(waiter, _Waiter) or waiter.future.done():
            return
        if isinstance(event, Answered):
            waiter.future.set_result(event.result)
        else:
            waiter.future.set_exception(event.error)

    def _tell_progress(self, event: ProgressArrived) -> None:
        waiter = event.call.context
        if not isinstance(waiter, _Waiter) or waiter.on_progress is None:
            return
        try:
            waiter.on_progress(event.params)
        except Exception:
            log.exception("a progress callback failed")

    # --- the peer's requests ----------------------------------------------------------------------

    def _lend_hand(self) -> None:
        """Start a task that works off the queue, and see to it that it does not get stuck.

        Most handlers end without waiting, so one task does for all requests of a batch. One that
        waits keeps its task to itself: the check, right after the task's first step, then lends
        another to the rest.
        """
        has_more = self._queue is not None and len(self._queue) > 1
        hand = self._loop.create_task(self._work())
        # A loop with eager tasks may have run it to its end already.
        if not hand.done():
            self._hands[hand] = None
        if has_more:
            self._check_soon()

    def _check_soon(self) -> None:
        self._checking = True
        self._loop.call_soon(self._check_hands)

    def _check_hands(self) -> None:
        self._checking = False
        if self._queue and not self._is_clogged:
            self._lend_hand()
        self.flush()

    async def _work(self) -> None:
        """Work off the queue, one request after the other."""
        this = asyncio.current_task()
        assert this is not None
        in_a_row = 0
        try:
            while queue := self._queue:
                event = queue.popleft()
                exchange = event.exchange
                if exchange.is_over:
                    # Cancelled before it began.
                    continue
                self._running[exchange] = this
                handling = self.handler.handle_request(self, exchange, event.params)
                try:  # noqa: SIM105 - this is on the way of every request, and costs nothing
                    await self._run(exchange, in_own_context(handling))
                except asyncio.CancelledError:
                    # The request has failed; what this task does next is decided below.
                    pass
                if this.cancelling():
                    # A task that was cancelled once may be cancelled again: it takes no new work.
                    break
                if self.engine.unsent_bytes > MAX_UNSENT_BYTES:
                    self.flush()
                    if self.link.is_congested:
                        await self._relieve()
                in_a_row += 1
                if in_a_row % MAX_IN_A_ROW == 0:
                    self.flush()
                    await asyncio.sleep(0)
        finally:
            self._hands.pop(this, None)
            if not self._queue:
                self._queue = None
            elif not self._checking and not self._is_clogged:
                self._lend_hand()
            self.flush()

    async def _relieve(self) -> None:
        """Begin no request until the peer has taken what was answered.

        We go on reading meanwhile, so two peers that do the same cannot wait for each other.
        """
        self._is_clogged = True
        try:
            await self.link.drain()
        except LinkError as error:
            log.debug("nothing more can be sent: %s", error)
        finally:
            self._is_clogged = False
            if self._queue and not self._checking:
                self._check_soon()

    async def _run(self, exchange: Exchange, handling: Awaitable[Outcome]) -> None:
        """One request of the peer, from its event to its answer. Raises CancelledError alone."""
        try:
            self._answer(exchange, await handling)
        except BaseException as error:
            self._fail(exchange, error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            del self._running[exchange]

    def _send_now(self, frame: bytes, exchange: Exchange) -> None:
        """Send an answer without a detour over the outbox, which holds nothing before it."""
        self._answers = self.engine.answers
        if self.tap is not None:
            self._show("sent", frame)
        link = self.link
        try:
            link.send(frame, exchange.seen.delivery, True)
        except LinkClosed:
            # As in `flush`.
            return
        if link.is_congested:
            self._mind_congestion()

    def _answer(self, exchange: Exchange, result: Outcome) -> None:
        """Answer a request. Raises as `Engine.answer` does."""
        kind = type(result)
        if kind is bytes:
            self.engine.answer_raw(exchange, result)  # type: ignore[arg-type]
        elif kind is Encoded:
            self._answer_encoded(exchange, result)  # type: ignore[arg-type]
        else:
            self.engine.answer(exchange, result)  # type: ignore[arg-type]

    def _fail(self, exchange: Exchange, error: BaseException) -> None:
        """Refuse a request, with the exception being handled: what its handler, or writing its
        answer, came to.
        """
        engine = self.engine
        name = exchange.method.name
        if isinstance(error, RequestError):
            engine.fail(exchange, error)
        elif isinstance(error, asyncio.CancelledError):
            # The peer's cancellation and the end of the link have marked the exchange already.
            exchange.was_stopped = exchange.is_over
            engine.fail(exchange, InternalError(f"{name} was cancelled here"))
        else:
            # Even SystemExit from a handler ends the request, not the server. A result that cannot
            # be written ends here as well.
            engine.fail(exchange, InternalError(f"{name} failed {report_failure(log, name)}"))

    def _answer_encoded(self, exchange: Exchange, result: Encoded) -> None:
        dialect = exchange.dialect
        written = result.written.get(dialect.wire)
        if written is None:
            losses: list[Loss] = []
            raw = dialect.encode(result.record, losses.append)
            written = result.written[dialect.wire] = (raw, tuple(losses))
        if written[1]:
            self._tell(Degraded(exchange.method.name, written[1]))
        self.engine.answer_raw(exchange, written[0])

    # --- ending ---------------------------------------------------------------------------------------

    def refuse_all(self, reason: str) -> None:
        """Answer every request under way with an error: nothing better will come."""
        engine = self.engine
        for exchange in list(engine.exchanges.values()):
            engine.fail(exchange, InternalError(reason))
            task = self._running.get(exchange)
            if task is not None:
                task.cancel()
        self.flush()

    async def drain(self) -> None:
        """Wait until the peer has taken enough of what was sent."""
        await self.link.drain()

    async def aclose(self) -> None:
        """End the link, the handlers and every wait; may be called again, from any task."""
        self._is_closing = True
        try:
            await self.link.aclose()
        finally:
            self._end(self._lost)
            ours = (
                *self._tasks(),
                self._finishing,
                self._unclogging,
                self._watching,
                self._telling,
            )
            # A handler that closes its own connection must not wait for itself.
            this = asyncio.current_task()
            tasks = [task for task in ours if task is not None and task is not this]
            for task in tasks:
                task.cancel()
            if tasks:
                _, stuck = await asyncio.wait(tasks, timeout=HANDLER_GRACE_S)
                for task in stuck:
                    log.warning("a handler ignores its cancellation: %r", task)
