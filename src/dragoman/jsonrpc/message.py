"""The four kinds of JSON-RPC 2.0 message, and the batch.

`params`, `result` and an error's `data` stay undecoded here: whoever knows the method reads them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from dragoman.errors import BadMessage

__all__ = [
    "ABSENT",
    "Batch",
    "ErrorBody",
    "Failure",
    "Message",
    "Notification",
    "Request",
    "RequestId",
    "Success",
]

RequestId: TypeAlias = int | str
"""A string or an integer; never null, never a boolean, and 55 is not "55"."""

ABSENT = msgspec.Raw(b"")
"""A member that was not there."""


class Request(msgspec.Struct, frozen=True):
    """A call that wants an answer."""

    id: RequestId
    method: str
    params: msgspec.Raw = ABSENT


class Notification(msgspec.Struct, frozen=True):
    """A message that wants no answer."""

    method: str
    params: msgspec.Raw = ABSENT


class Success(msgspec.Struct, frozen=True):
    """The answer to a request that worked."""

    id: RequestId
    result: msgspec.Raw


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong: a number, one sentence, and whatever else the sender adds."""

    code: int
    message: str
    data: Any = None


class Failure(msgspec.Struct, frozen=True):
    """The answer to a request that did not work; `id` is None when it could not be read."""

    id: RequestId | None
    error: ErrorBody


Message: TypeAlias = Request | Notification | Success | Failure


class Batch(msgspec.Struct, frozen=True):
    """Several messages in one frame, in order; a faulty member does not spoil the others."""

    members: tuple[Message | BadMessage, ...]
