"""One record for each thing that can happen on a connection."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec

from dragoman.errors import DragomanError
from dragoman.jsonrpc.message import RequestId
from dragoman.model.base import Implementation, Record
from dragoman.model.capabilities import ClientCapabilities, ServerCapabilities
from dragoman.model.methods import Method
from dragoman.model.progress import ProgressParams
from dragoman.protocol.calls import Call, Exchange
from dragoman.revisions.dialect import Dialect, Loss

__all__ = [
    "Answered",
    "CancelArrived",
    "Degraded",
    "Event",
    "Failed",
    "Fault",
    "FaultKind",
    "LateAnswer",
    "NotificationArrived",
    "Opened",
    "Overdue",
    "ProgressArrived",
    "RequestArrived",
]


class _Happened(msgspec.Struct, frozen=True):
    """What all have in common: they are made for every message, so they have to be cheap."""


class Opened(_Happened, frozen=True):
    """The connection is open: who the peer is, what it can do, in which revision we speak."""

    peer: Implementation
    capabilities: ClientCapabilities | ServerCapabilities
    dialect: Dialect
    instructions: str | None


class RequestArrived(_Happened, frozen=True):
    """The peer asks; answer with `Engine.answer` or `Engine.fail`."""

    exchange: Exchange
    params: Record


class NotificationArrived(_Happened, frozen=True):
    """The peer tells."""

    method: Method
    params: Record


class Answered(_Happened, frozen=True):
    """A call of ours has its result."""

    call: Call
    result: Record


class Failed(_Happened, frozen=True):
    """A call of ours has failed: RemoteFailure, PeerError, DeadlineExceeded, LimitExceeded or
    LinkError."""

    call: Call
    error: DragomanError


class ProgressArrived(_Happened, frozen=True):
    """A call of ours makes progress."""

    call: Call
    params: ProgressParams


class CancelArrived(_Happened, frozen=True):
    """The peer no longer wants an answer; none will be sent."""

    exchange: Exchange
    reason: str | None


class Overdue(_Happened, frozen=True):
    """A request of the peer is under way for too long; it was answered with an error."""

    exchange: Exchange


class LateAnswer(_Happened, frozen=True):
    """The answer to a call that was given up; it is dropped."""

    id: RequestId


class FaultKind(Enum):
    """Ways in which a peer breaks the protocol without ending the connection."""

    UNREADABLE = "a frame that is no message"
    TOO_LARGE = "a frame over the size limit"
    REFUSED_US = "the peer could not read a message of ours"
    STRAY_ANSWER = "an answer to nobody"
    BAD_ANSWER = "an answer that does not fit its request"
    UNKNOWN_METHOD = "a method that does not exist here"
    WRONG_TIME = "a message that is not allowed yet, or no longer"
    BAD_PARAMS = "parameters that do not fit the method"
    STRAY_PROGRESS = "progress for nobody"
    BACKWARD_PROGRESS = "progress that does not increase"
    STRAY_CANCEL = "a cancellation of nothing"
    NOT_NEGOTIATED = "a feature that was not declared"
    REUSED_ID = "an id that is in use"
    TOO_MANY = "more requests than a limit allows"
    BAD_BATCH = "a batch where none is allowed"


class Fault(_Happened, frozen=True):
    """The peer broke the protocol; the connection goes on."""

    kind: FaultKind
    detail: str
    sample: bytes = b""


class Degraded(_Happened, frozen=True):
    """Something we sent did not fit the peer's revision and was replaced or left out."""

    method: str
    losses: tuple[Loss, ...]


Event: TypeAlias = (
    Opened
    | RequestArrived
    | NotificationArrived
    | Answered
    | Failed
    | ProgressArrived
    | CancelArrived
    | Overdue
    | LateAnswer
    | Fault
    | Degraded
)
