"""Open questions as JSON: for a page that shows them, and for the next run of a host.

What is read back is a question that has to be asked again, under an id of its own: no answer that
was meant for the one before fits it.
"""

from __future__ import annotations

import json
from secrets import token_hex
from typing import Any

import msgspec

from dragoman.errors import Misconfigured
from dragoman.host.kinds import ApprovalRequest

__all__ = ["from_json", "to_json"]


def to_json(request: ApprovalRequest) -> bytes:
    """The whole request as one JSON object, its payload as text; ASCII."""
    value = msgspec.to_builtins(request, builtin_types=(bytes,))
    # A payload is JSON and so UTF-8; were it not, its bytes would come back all the same.
    value["view"]["payload"] = request.view.payload.decode("utf-8", "surrogateescape")
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def from_json(text: bytes | str) -> ApprovalRequest:
    """The request as something to be asked anew: it has another id, and no answer.

    Raises:
        Misconfigured: it is no request, or its view is not the one that its digest names.
    """
    try:
        value: Any = json.loads(text)
        view = value["view"]
        view["payload"] = view["payload"].encode("utf-8", "surrogateescape")
        value["id"] = token_hex(8)
        # Who waited for the answer has gone with the program that asked.
        value["askers"] = value["up_to"] = 1
        request = msgspec.convert(value, ApprovalRequest)
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, msgspec.MsgspecError,
    ) as fault:  # fmt: skip
        raise Misconfigured(f"that is no approval request: {fault}") from None
    if request.view.digest(request.intent) != request.view_digest:
        raise Misconfigured("the view of this approval request is not the one its digest names")
    return request
