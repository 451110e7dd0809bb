"""The supervisor: keeps one connection to one server, whatever becomes of its links.

It owns the connector, the link and the driver of a client. When the link breaks it closes what is
left of it, opens another after a while, says hello again, and has the client restore what the new
session does not know. Calls meanwhile wait for `ready`.

    connect -> CONNECTED -> (the link breaks) -> RECONNECTING -> CONNECTED, or LOST in the end
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from dragoman.errors import (
    DeadlineExceeded,
    DragomanError,
    LinkClosed,
    LinkError,
    LocalError,
    SessionLost,
    WrongState,
)
from dragoman.protocol.engine import Engine
from dragoman.runtime.clock import Clock, LoopClock
from dragoman.runtime.driver import Driver, Handler, Tap
from dragoman.transport.base import Connector
from dragoman.transport.stdio.link import finish_despite_cancel

__all__ = [
    "ConnectionEvent",
    "ConnectionState",
    "Keeper",
    "Reconnect",
    "Supervisor",
    "asked_delay",
    "backoff",
]

log = logging.getLogger("dragoman.client")

# What no second attempt changes: the server knows us, or does not want to.
_FINAL_STATUS = frozenset({401, 403, 407})


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconnect:
    """How hard a client tries to get a broken connection back.

    The first attempt comes after about `first_delay_s`, each further one after twice as long, up to
    `max_delay_s`; `jitter` is the share of a delay that chance may take off, so that many clients
    do not come back in step. `max_tries` attempts in a row, and `total_s` without a connection, are
    the end of it. A connection that lived for `steady_s` was a good one: what is counted starts
    anew after it, and only then, so that a server that dies as soon as it runs is not started for
    ever. The first connect is tried once, so that a wrong command or URL shows at once, unless
    `first_connect` has it tried in the same way.
    """

    # 20 attempts are about five minutes with these delays: a redeployment takes one or two.
    max_tries: int = 20
    # 0.1 s: a child that crashed can be started again at once; 20 of them a second would be a storm.
    first_delay_s: float = 0.1
    # 20 s: nobody wants to wait longer than that for a server that is back.
    max_delay_s: float = 20.0
    # Ten minutes: whoever works with it has noticed by then.
    total_s: float = 600.0
    jitter: float = 0.5
    # 10 s: a server that has lived that long did more than to start.
    steady_s: float = 10.0
    first_connect: bool = False

    def __post_init__(self) -> None:
        for name in ("max_tries", "first_delay_s", "max_delay_s", "total_s", "steady_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter is a share: from 0 to 1")


def backoff(policy: Reconnect, attempt: int) -> float:
    """How long to wait before an attempt (1 is the first), in seconds; chance has its part."""
    # 2 to the 60th is beyond every delay, and still a float.
    delay = min(policy.first_delay_s * 2.0 ** min(attempt - 1, 60), policy.max_delay_s)
    return delay * (1.0 - policy.jitter * random.random())  # noqa: S311 - nothing secret


def asked_delay(policy: Reconnect, error: DragomanError | None) -> float:
    """How long an error asks to wait, in seconds, and a little more by chance; 0 when it does not.

    All clients that lost a server are asked for the same, and should not come in the same moment.
    """
    asked: float = getattr(error, "retry_after_s", None) or 0.0
    # A fifth of `jitter`: with the default at most a tenth longer than was asked for.
    spread = min(asked * policy.jitter / 5, policy.max_delay_s)
    return asked + spread * random.random()  # noqa: S311 - nothing secret


class ConnectionState(StrEnum):
    """How things stand, for people."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    LOST = "lost"


class _Move(StrEnum):
    CONNECT = "connect"
    FAIL = "fail"
    OPEN = "open"
    BREAK = "break"
    GIVE_UP = "give up"
    CLOSE = "close"


_S = ConnectionState
_MOVES: dict[tuple[ConnectionState, _Move], ConnectionState] = {
    (_S.CLOSED, _Move.CONNECT): _S.CONNECTING,
    (_S.LOST, _Move.CONNECT): _S.CONNECTING,
    (_S.CONNECTING, _Move.FAIL): _S.CLOSED,
    (_S.CONNECTING, _Move.GIVE_UP): _S.LOST,
    (_S.CONNECTING, _Move.OPEN): _S.CONNECTED,
    (_S.CONNECTED, _Move.BREAK): _S.RECONNECTING,
    (_S.RECONNECTING, _Move.OPEN): _S.CONNECTED,
    (_S.RECONNECTING, _Move.GIVE_UP): _S.LOST,
    (_S.CONNECTED, _Move.CLOSE): _S.CLOSED,
    (_S.RECONNECTING, _Move.CLOSE): _S.CLOSED,
    (_S.LOST, _Move.CLOSE): _S.CLOSED,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionEvent:
    """What happened to a connection; `str` of it is a sentence for people.

    `kind` is one of

    - "lost": the server cannot be reached; `error` says why.
    - "retrying": attempt number `attempt` will be made in `in_s` seconds; `error` is the last one's.
    - "restored": it is there again. After a new handshake `is_new_session` is True, and `problems`
      has what could not be restored: a subscription to what is gone, for instance.
    - "given_up": no further attempt will be made; `error` is the last one's.
    """

    kind: Literal["lost", "retrying", "restored", "given_up"]
    error: DragomanError | None = None
    attempt: int = 0
    in_s: float = 0.0
    is_new_session: bool = False
    problems: tuple[DragomanError, ...] = ()

    def __str__(self) -> str:
        match self.kind:
            case "lost":
                return f"the connection was lost: {self.error}"
            case "retrying":
                return f"attempt {self.attempt} to reconnect in {self.in_s:.1f} s"
            case "given_up":
                return f"the connection could not be restored: {self.error}"
        what = "the connection was restored"
        if self.problems:
            what += ", but not all of it: " + "; ".join(map(str, self.problems))
        return what


class Keeper(Handler, Protocol):
    """Whoever the connection is kept for: the client."""

    def introduce(self) -> Engine:
        """A new engine, which has not said hello.

        Raises:
            ValueError: what it would say is no JSON.
        """

    async def restore(self, driver: Driver, before: Engine) -> tuple[DragomanError, ...]:
        """Tell a new session what the one `before` knew; returns what it did not take.

        Raises:
            LinkError: the new connection broke as well.
        """

    def connection_changed(self, event: ConnectionEvent) -> None:
        """Take note; must neither block nor raise."""


class Supervisor:
    """Keeps one connection. No task runs while all is well.

    `driver` is the one to make calls with, None unless all is well: then `ready` knows more.
    `known` is the last one whose handshake succeeded, for what it knows of the server, `sessions`
    how many there were; `error` is what went wrong last. `policy` is None for a connection that is
    not restored.
    """

    def __init__(
        self,
        connector: Connector,
        keeper: Keeper,
        *,
        policy: Reconnect | None,
        connect_timeout_s: float,
        keep_alive_s: float | None = None,
        keep_alive_timeout_s: float | None = None,
        tap: Tap | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.connector = connector
        self.policy = policy
        self.driver: Driver | None = None
        self.known: Driver | None = None
        self.sessions = 0
        self.error: DragomanError | None = None
        self.state = ConnectionState.CLOSED
        self._keeper = keeper
        self._connect_timeout_s = connect_timeout_s
        self._keep_alive_s = keep_alive_s
        self._keep_alive_timeout_s = keep_alive_timeout_s
        self._tap = tap
        self._given_clock = clock
        self._reconnecting: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        # The driver whose link lives, in trouble or not.
        self._current: Driver | None = None
        # Tells one outage from the next, and from what `aclose` has ended.
        self._outage = 0
        # What this outage, or this row of them, has taken so far.
        self._tries = 0
        self._down_s = 0.0
        self._opened_at = 0.0

    @property
    def clock(self) -> Clock:
        """Where time comes from; needs a running event loop, unless it was given."""
        return self._given_clock or LoopClock()

    @property
    def is_troubled(self) -> bool:
        """Whether the link lives and cannot reach its peer now."""
        return self._current is not None and self.driver is None

    # --- opening and closing ----------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the connection; tries once, unless the policy says otherwise.

        One that was given up is restored; what fails then leaves it given up.

        Raises:
            WrongState: it is open, or being opened or restored.
            LinkError, DeadlineExceeded, PeerError, RemoteFailure, ValueError: it cannot be opened.
        """
        if self.state is ConnectionState.CONNECTING:
            raise WrongState("being opened", "one connect at a time")
        if (self.state, _Move.CONNECT) not in _MOVES:
            raise WrongState("open", "close it before connecting again")
        self._move(_Move.CONNECT)
        self._tries = 0
        self._down_s = 0.0
        before, self.known = self.known, None
        try:
            driver, problems = await self._first(before)
        except BaseException as error:
            if before is None:
                self._move(_Move.FAIL)
            else:
                self.known = before
                self.error = error if isinstance(error, DragomanError) else self.error
                self._move(_Move.GIVE_UP)
            raise
        self._adopt(driver)
        if before is not None:
            self._tell(ConnectionEvent(kind="restored", is_new_session=True, problems=problems))

    async def _first(self, before: Driver | None) -> tuple[Driver, tuple[DragomanError, ...]]:
        clock = self.clock
        began = clock.now()
        while True:
            try:
                driver = await self._open()
                if before is None:
                    return driver, ()
                return driver, await self._restore(driver, before.engine)
            except DragomanError as error:
                policy = self.policy
                self.error = error
                if policy is None or not policy.first_connect:
                    raise
                delay = self._next_delay(policy, clock.now() - began)
                if delay is None:
                    raise
            self._tell(
                ConnectionEvent(kind="retrying", error=self.error, attempt=self._tries, in_s=delay)
            )
            await _sleep(clock, delay)

    async def aclose(self) -> None:
        """End the connection and everything behind it; may be called again, from any task."""
        if (self.state, _Move.CLOSE) not in _MOVES:
            return
        self._move(_Move.CLOSE)
        self._outage += 1
        # Also when it is broken: who was to close it may not have begun.
        driver, self._current, self.driver, self.known = self.known, None, None, None
        reconnecting, self._reconnecting = self._reconnecting, None
        self._wake()
        try:
            if reconnecting is not None and reconnecting is not asyncio.current_task():
                # It clears away what it has begun, which may take a moment; whoever cancels this
                # hurries it.
                await _end_task(reconnecting)
        finally:
            if driver is not None:
                await driver.aclose()

    async def _open(self) -> Driver:
        """A new link with a driver whose handshake is done."""
        # First, since it refuses what cannot be written: no server is started for nothing.
        engine = self._keeper.introduce()
        clock = self.clock
        link = None
        async with _Patience(clock, self._connect_timeout_s):
            link = await self.connector.connect()
        driver = Driver(engine, link, self._keeper, clock=clock, tap=self._tap)
        try:
            driver.start()
            await driver.open(timeout_s=self._connect_timeout_s)
        except BaseException as error:
            tail = getattr(link, "stderr_tail", "")
            await driver.aclose()
            failure = getattr(link, "failure", None)
            if failure is not None and isinstance(error, LinkError):
                raise LinkError(f"the server failed to start: {failure}", sent=False) from failure
            if isinstance(error, DeadlineExceeded) and tail.strip():
                raise DeadlineExceeded(
                    error.method, error.timeout_s, f"the server's stderr ends:\n{tail.strip()}"
                ) from None
            raise
        return driver

    def _adopt(self, driver: Driver) -> None:
        self._move(_Move.OPEN)
        self.driver = self.known = self._current = driver
        self.sessions += 1
        self._opened_at = driver.clock.now()
        driver.on_trouble = lambda error: self.troubled(driver, error)
        if self._keep_alive_s is not None:
            driver.watch(self._keep_alive_s, self._keep_alive_timeout_s or self._keep_alive_s)
        driver.closed.add_done_callback(lambda _: self._broken(driver))
        self._wake()

    # --- waiting ----------------------------------------------------------------------------------

    async def ready(self, clock: Clock, deadline: float) -> Driver | None:
        """The driver, as soon as there is one; None when the deadline has passed before.

        Raises:
            LinkError: the client was closed, or there will be none; `sent` is False.
        """
        while True:
            driver = self._current
            if driver is not None and not driver.closed.done():
                return driver
            if driver is not None:
                # The news of its end is on its way.
                self._broken(driver)
                continue
            if self.state is ConnectionState.LOST:
                raise self.lost_error()
            if self.state is not ConnectionState.RECONNECTING:
                raise LinkClosed("the client was closed", sent=False)
            if clock.now() >= deadline:
                return None
            await self._news(clock, deadline)

    async def pause(self, clock: Clock, until: float) -> None:
        """Wait for a time of the clock, or until the connection changes."""
        if clock.now() < until:
            await self._news(clock, until)

    async def _news(self, clock: Clock, until: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ring() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self._waiters.add(waiter)
        timer = clock.call_at(until, ring)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def lost_error(self) -> LinkError:
        """What a call is told when the connection will not come back; `sent` is False."""
        cause = self.error
        if isinstance(cause, LinkError):
            return cause.again(sent=False)
        return LinkError(f"the connection could not be restored: {cause}", sent=False)

    # --- restoring --------------------------------------------------------------------------------

    def _move(self, move: _Move) -> None:
        # An impossible move is a mistake of ours: let it fail loudly.
        self.state = _MOVES[self.state, move]

    def _tell(self, event: ConnectionEvent) -> None:
        log.info("%s: %s", self.connector.description, event)
        self._keeper.connection_changed(event)

    def troubled(self, driver: Driver, error: LinkError | None) -> None:
        """The link lives and cannot reach its peer now, or can again: there is something to tell."""
        if driver is not self._current or driver.closed.done():
            return
        if error is not None and self.driver is not None:
            self.driver = None
            self.error = error
            self._tell(ConnectionEvent(kind="lost", error=error))
        elif error is None and self.driver is None:
            self.driver = driver
            self._tell(ConnectionEvent(kind="restored"))

    def _broken(self, driver: Driver) -> None:
        """The link of the driver has ended by itself."""
        if self._current is not driver:
            return
        was_troubled = self.is_troubled
        self.driver = self._current = None
        self._move(_Move.BREAK)
        error = driver.closed.result() or LinkClosed("the server ended the connection")
        self.error = error
        lived_s = driver.clock.now() - self._opened_at
        if self.policy is not None and lived_s >= self.policy.steady_s:
            self._tries = 0
            self._down_s = 0.0
        self._outage += 1
        outage = self._outage
        if not was_troubled:
            self._tell(ConnectionEvent(kind="lost", error=error))
        self._wake()
        # Whoever was told may have closed the client at once.
        if outage == self._outage:
            loop = asyncio.get_running_loop()
            reconnecting = self._reconnect(driver, outage)
            self._reconnecting = loop.create_task(reconnecting, name="dragoman-reconnect")

    async def _reconnect(self, broken: Driver, outage: int) -> None:
        began = broken.clock.now()
        try:
            await _discard(broken)
            policy = self.policy
            # A connector may swallow the cancellation by which `aclose` ends this.
            while policy is not None and outage == self._outage:
                delay = self._next_delay(policy, broken.clock.now() - began)
                if delay is None:
                    break
                self._tell(
                    ConnectionEvent(
                        kind="retrying", error=self.error, attempt=self._tries, in_s=delay
                    )
                )
                await _sleep(broken.clock, delay)
                if await self._try_again(broken.engine, outage):
                    self._down_s += broken.clock.now() - began
                    return
        except Exception as error:
            log.exception("reconnecting failed")
            self.error = LinkError(f"reconnecting failed: {error}", sent=False)
        except asyncio.CancelledError:
            if outage == self._outage:
                # Not by `aclose`: the loop is ending, and whoever still waits must not for ever.
                self.error = LinkError("reconnecting was cancelled", sent=False)
                self._give_up()
            raise
        if outage == self._outage:
            self._give_up()

    def _give_up(self) -> None:
        self._move(_Move.GIVE_UP)
        self._tell(ConnectionEvent(kind="given_up", error=self.error))
        self._wake()

    def _next_delay(self, policy: Reconnect, down_s: float) -> float | None:
        """How long to wait before the next attempt; None when there must be none."""
        error = self.error
        if isinstance(error, LocalError) or getattr(error, "status", None) in _FINAL_STATUS:
            return None
        self._tries += 1
        delay = max(backoff(policy, self._tries), asked_delay(policy, error))
        if isinstance(error, SessionLost) and self._tries == 1:
            # The server is there, and waits for a new hello.
            delay = 0.0
        if self._tries > policy.max_tries or self._down_s + down_s + delay > policy.total_s:
            return None
        return delay

    async def _try_again(self, before: Engine, outage: int) -> bool:
        """One attempt: a link, a handshake, and all that the session has to know."""
        try:
            driver = await self._open()
        except DragomanError as error:
            self.error = error
            return False
        except Exception as error:
            log.warning("a connector failed with an error of its own", exc_info=True)
            self.error = LinkError(f"cannot connect: {type(error).__name__}: {error}", sent=False)
            return False
        try:
            problems = await self._restore(driver, before)
        except LinkError as error:
            self.error = error
            return False
        if outage != self._outage:
            await _discard(driver)
            return True
        self._adopt(driver)
        self._tell(ConnectionEvent(kind="restored", is_new_session=True, problems=problems))
        return True

    async def _restore(self, driver: Driver, before: Engine) -> tuple[DragomanError, ...]:
        try:
            return await self._keeper.restore(driver, before)
        except BaseException:
            await _discard(driver)
            raise


async def _end_task(task: asyncio.Task[None]) -> None:
    def cancel() -> None:
        task.cancel()

    cancel()
    await finish_despite_cancel(task, cancel)


async def _discard(driver: Driver) -> None:
    """Close what is left of a connection; a failure to do so must not keep the next one from us."""
    try:
        await driver.aclose()
    except Exception:
        log.exception("what was left of a connection could not be closed")


async def _sleep(clock: Clock, seconds: float) -> None:
    """Wait on a clock that tests may own."""
    reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ring() -> None:
        if not reached.done():
            reached.set_result(None)

    timer = clock.call_at(clock.now() + seconds, ring)
    try:
        await reached
    finally:
        timer.cancel()


class _Patience:
    """Bounds what is awaited within it, on a clock that tests may own.

    A cancellation from within, which nobody outside asked for, becomes a LinkError as well: a
    user who did not cancel sees none.
    """

    def __init__(self, clock: Clock, timeout_s: float) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._is_over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._asked_before = task.cancelling()

        def ring() -> None:
            self._is_over = True
            task.cancel()

        self._timer = self._clock.call_at(self._clock.now() + self._timeout_s, ring)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        asked = self._task.cancelling() - self._asked_before
        if self._is_over:
            self._task.uncancel()
            if asked <= 1 and isinstance(error, asyncio.CancelledError):
                detail = "the connection could not be opened"
                raise DeadlineExceeded("initialize", self._timeout_s, detail) from None
        elif asked <= 0 and isinstance(error, asyncio.CancelledError):
            raise LinkError("connecting was cancelled from within", sent=False) from error
