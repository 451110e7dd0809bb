"""Messages as plain values, so that two readings of a frame can be compared."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from dragoman.errors import BadMessage
from dragoman.jsonrpc.message import (
    ABSENT,
    Batch,
    Failure,
    Message,
    Notification,
    Request,
)


def _plain(raw: msgspec.Raw) -> Any:
    return None if raw is ABSENT else json.loads(bytes(raw))


def view(message: Message | BadMessage) -> dict[str, Any]:
    """One message in the words of tests/jsonrpc/reference.py."""
    if isinstance(message, BadMessage):
        return {"kind": "bad"}
    if isinstance(message, Request):
        return {
            "kind": "request",
            "id": message.id,
            "method": message.method,
            "params": _plain(message.params),
        }
    if isinstance(message, Notification):
        return {
            "kind": "notification",
            "method": message.method,
            "params": _plain(message.params),
        }
    if isinstance(message, Failure):
        return {
            "kind": "failure",
            "id": message.id,
            "code": message.error.code,
            "message": message.error.message,
            "data": message.error.data,
        }
    return {"kind": "success", "id": message.id, "result": _plain(message.result)}


def view_frame(decoded: Message | Batch) -> dict[str, Any] | list[dict[str, Any]]:
    """What `decode` returned, a batch as a list."""
    if isinstance(decoded, Batch):
        return [view(member) for member in decoded.members]
    return view(decoded)
