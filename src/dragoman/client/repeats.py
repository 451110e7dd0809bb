"""Asking again: what becomes of a request that met a broken connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dragoman.client.supervisor import (
    ConnectionState,
    Reconnect,
    Supervisor,
    asked_delay,
    backoff,
)
from dragoman.errors import DeadlineExceeded, LinkError, SessionLost, WrongState
from dragoman.model.base import Record
from dragoman.model.progress import ProgressParams
from dragoman.runtime.driver import Driver

__all__ = ["HARMLESS", "Ask", "ask_again"]

HARMLESS = frozenset(
    {
        "ping",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "logging/setLevel",
    }
)
"""Methods that only look something up, or set what is set to the same again."""

# 2: a request that broke the connection three times may well be what breaks it.
MAX_REPEATS = 2

# 3: a server that was restarted lost its sessions once, behind a balancer perhaps twice. One that
# forgets each session it has just opened will go on doing so.
MAX_SESSIONS_LOST = 3

# What a proxy says while nobody is behind it: it is no fault of what was asked. 520 to 525 and 530 are
# Cloudflare's.
AWAY = frozenset({502, 503, 504, *range(520, 526), 530})

# What goes away by itself, by HTTP status; None: there was no answer at all.
PASSING = frozenset({None, 408, 425, 429}) | AWAY


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request, however often it is sent: what is asked, and how long that may take.

    `timeout_s` counts from the last sign of life, `total_s` from `began` on. `is_harmless` says
    that twice is as good as once.
    """

    method: str
    params: Record
    timeout_s: float
    total_s: float
    began: float
    on_progress: Callable[[ProgressParams], None] | None
    is_harmless: bool


async def ask_again(
    supervisor: Supervisor, ask: Ask, driver: Driver | None, error: LinkError | None
) -> Record:
    """Repeat a request as often as that is right and may help, and wait for a connection.

    `driver` and `error` are those of the first attempt, None when there was no connection to try.

    Raises:
        LinkError: it is not repeated, or no more; `sent` speaks for all attempts together.
        DeadlineExceeded: there was no connection in time.
        WrongState: the client was never opened, or is closed.
        Otherwise as `Driver.request`.
    """
    clock = supervisor.clock
    limit = ask.began + ask.total_s
    sent: bool | None = False
    attempts = repeats = 0
    # The sessions that this request was refused in as unknown.
    forgotten: set[Driver] = set()
    if error is None:
        _check_open(supervisor)
    while True:
        if error is not None:
            sent = _worse(sent, error.sent)
            attempts += 1
            if driver is not None and isinstance(error, SessionLost):
                forgotten.add(driver)
            repeats += error.sent is not False and getattr(error, "status", None) not in AWAY
            policy = supervisor.policy
            if (
                policy is None
                or supervisor.state is ConnectionState.CLOSED
                or not (ask.is_harmless or sent is False)
                or repeats > MAX_REPEATS
                or len(forgotten) > MAX_SESSIONS_LOST
                or attempts > policy.max_tries
            ):
                raise _for_all(error, sent)
            if driver is not None and driver is supervisor.known and not driver.closed.done():
                # Only this request was lost; the link goes on.
                patience = min(clock.now() + ask.timeout_s, limit)
                await _hold_off(supervisor, driver, policy, error, attempts, sent, patience)
        deadline = min(clock.now() + ask.timeout_s, limit)
        try:
            driver = await supervisor.ready(clock, deadline)
        except LinkError as lost:
            raise _for_all(lost, sent) from error
        left_s = limit - clock.now()
        if driver is None or left_s <= 0:
            waited_s = ask.timeout_s if left_s > 0 else ask.total_s
            detail = f"there is no connection: {supervisor.error}"
            raise DeadlineExceeded(ask.method, waited_s, detail) from error
        try:
            answer = await driver.request(
                ask.method,
                ask.params,
                timeout_s=ask.timeout_s,
                total_s=left_s,
                on_progress=ask.on_progress,
            )
        except LinkError as another:
            error = another
        else:
            supervisor.troubled(driver, None)
            return answer


async def _hold_off(
    supervisor: Supervisor,
    driver: Driver,
    policy: Reconnect,
    error: LinkError,
    attempts: int,
    sent: bool | None,
    patience: float,
) -> None:
    """Wait before a request is sent again over the same link.

    Raises:
        LinkError: the same, where waiting would not help or take too long.
    """
    clock = supervisor.clock
    status = getattr(error, "status", None)
    until = clock.now() + max(backoff(policy, attempts), asked_delay(policy, error))
    if status not in PASSING or until >= patience:
        raise _for_all(error, sent)
    # Once is nothing to speak of. And a link whose session was lost says so by itself.
    is_away = (
        (status is None or status in AWAY)
        and error.sent is not True
        and not isinstance(error, SessionLost)
    )
    if is_away and attempts > 1:
        supervisor.troubled(driver, error)
    while clock.now() < until and supervisor.known is driver and not driver.closed.done():
        await supervisor.pause(clock, until)


def _check_open(supervisor: Supervisor) -> None:
    if supervisor.state is ConnectionState.CLOSED:
        raise WrongState("closed", "use `async with Client(...)`, or `await client.connect()`")
    if supervisor.state is ConnectionState.CONNECTING:
        raise WrongState("being opened", "wait until `connect` has returned")


def _worse(one: bool | None, other: bool | None) -> bool | None:
    """Whether any of two attempts may have run."""
    if one is True or other is True:
        return True
    return None if one is None or other is None else False


def _for_all(error: LinkError, sent: bool | None) -> LinkError:
    """The error of the last attempt, as what it says of all of them."""
    return error if error.sent is sent else error.again(sent=sent)
