"""What happens in a host, as data: whoever shows it, a terminal or a page, hears of these."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from dragoman.errors import DragomanError
from dragoman.host.connections import ServerStatus
from dragoman.host.kinds import ApprovalRequest, Decision
from dragoman.model.logging import LogMessageParams
from dragoman.model.progress import ProgressParams

__all__ = [
    "ApprovalChanged",
    "ApprovalPending",
    "ApprovalResolved",
    "CallFinished",
    "CallProgress",
    "CallStarted",
    "HeldBack",
    "HostEvent",
    "Listeners",
    "LogReceived",
    "ServerChanged",
]

log = logging.getLogger("dragoman.host")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerChanged:
    """A server's state, or what it offers, is another one now."""

    status: ServerStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class LogReceived:
    """A server logs; its words are a stranger's."""

    server: str
    message: LogMessageParams


@dataclass(frozen=True, kw_only=True, slots=True)
class CallStarted:
    """A tool is called: `arguments` is the JSON text that goes to the server."""

    trace: str
    server: str
    tool: str
    arguments: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class CallProgress:
    """How far a call has come."""

    trace: str
    server: str
    tool: str
    progress: ProgressParams


@dataclass(frozen=True, kw_only=True, slots=True)
class CallFinished:
    """A call is over; `error` is why it has no result, `is_error` that the tool failed."""

    trace: str
    server: str
    tool: str
    is_error: bool = False
    error: BaseException | DragomanError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalPending:
    """Somebody is being asked."""

    request: ApprovalRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalChanged:
    """More, or fewer, wait for the answer that somebody is asked for: `request.askers`."""

    request: ApprovalRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalResolved:
    """A question is answered; without a `decision` it was withdrawn, or its time was up."""

    request: ApprovalRequest
    decision: Decision | None


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldBack:
    """The gate held back what nobody decided: a fault of the host, or an attack on it.

    Or a confined server wanted to reach what its sandbox does not list.
    """

    server: str
    what: str


HostEvent: TypeAlias = (
    ServerChanged
    | LogReceived
    | CallStarted
    | CallProgress
    | CallFinished
    | ApprovalPending
    | ApprovalChanged
    | ApprovalResolved
    | HeldBack
)


class Listeners:
    """Whoever wants to hear; a listener that fails hurts nobody else."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[HostEvent], Any]] = []

    def add(self, listener: Callable[[HostEvent], Any]) -> Callable[[], None]:
        """Call it with every event, on the loop's thread; it must be quick. Returns its end."""
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def tell(self, event: HostEvent) -> None:
        """Tell everybody."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", type(event).__name__)
