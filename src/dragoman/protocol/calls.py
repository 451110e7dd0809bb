"""Requests under way: ours (`Call`) and the peer's (`Exchange`)."""

from __future__ import annotations

import msgspec

from dragoman.jsonrpc.frame import Delivery, Seen
from dragoman.jsonrpc.message import RequestId
from dragoman.model.methods import Method
from dragoman.model.progress import ProgressParams
from dragoman.protocol.limits import Bucket
from dragoman.revisions.dialect import Dialect

__all__ = ["BatchReply", "Call", "Exchange"]


class Call(msgspec.Struct, eq=False):
    """A request of ours.

    `deadline` moves on with each sign of life, up to `limit`; both in seconds of the engine's
    clock. `about` is what a link needs to send it: on a client its id, on a server the delivery
    that made us ask. `is_unsent` once it is known that the peer cannot have got it. `context` is
    the caller's own and is handed back untouched.
    """

    id: int
    method: Method
    timeout_s: float
    total_s: float
    deadline: float
    limit: float
    wants_progress: bool
    about: Delivery | RequestId | None
    last_progress: float | None = None
    is_unsent: bool = False
    context: object = None

    def __repr__(self) -> str:
        return f"<Call {self.id} {self.method.name}>"


class BatchReply:
    """The answers to one batch, which leave together."""

    __slots__ = ("delivery", "frames", "pending")

    def __init__(self, delivery: Delivery | None = None) -> None:
        self.delivery = delivery
        self.pending = 0
        self.frames: list[bytes] = []


class Exchange(msgspec.Struct, eq=False):
    """A request of the peer.

    `dialect` is the revision it is answered in; `seen` who asked; `deadline` in seconds of the
    engine's clock. `is_over` once it was answered or cancelled: nothing more is sent for it then;
    `was_stopped` when its handler was ended for that. `held_progress` is the newest value that the
    rate limit held back.
    """

    id: RequestId
    method: Method
    dialect: Dialect
    token: RequestId | None
    seen: Seen
    deadline: float
    batch: BatchReply | None
    is_over: bool = False
    was_stopped: bool = False
    last_progress: float | None = None
    held_progress: ProgressParams | None = None
    bucket: Bucket | None = None
    context: object = None

    def __repr__(self) -> str:
        return f"<Exchange {self.id!r} {self.method.name}>"
