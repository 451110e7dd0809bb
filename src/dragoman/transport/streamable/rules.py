"""What a request's headers decide, as pure functions: no socket, no session, no clock.

Header names are lower-case bytes, as ASGI gives them. Spec: basic/transports#streamable-http
"""

from __future__ import annotations

import msgspec

from dragoman.jsonrpc.codec import encode_value

__all__ = [
    "JSON",
    "SSE",
    "accepts",
    "holds_request",
    "is_initialize",
    "is_json",
    "refusal",
    "split_event_id",
]

JSON = b"application/json"
SSE = b"text/event-stream"


def accepts(header: bytes | None, kind: bytes) -> bool:
    """Whether an Accept header takes a media type; without one everything is taken."""
    if header is None:
        return True
    if kind in header and b"q=0" not in header:
        # Nearly always: a client of this protocol lists both by name.
        return True
    main = kind.split(b"/")[0]
    for part in header.lower().split(b","):
        name, *parameters = (piece.strip() for piece in part.split(b";"))
        if name in (kind, b"*/*", main + b"/*"):
            return not any(_is_zero(parameter) for parameter in parameters)
    return False


def _is_zero(parameter: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip() == b"q" and value.strip().strip(b"0.") == b""


def is_json(header: bytes | None) -> bool:
    """Whether a Content-Type says JSON; a character set may stand behind it."""
    return header is not None and header.split(b";")[0].strip().lower() == JSON


def holds_request(body: bytes) -> bool:
    """Whether a body asks for anything, rather than telling or answering. When in doubt it does."""
    try:
        messages = _HEADS.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return True
    listed = messages if isinstance(messages, list) else [messages]
    return any(one.method and one.id is not msgspec.UNSET for one in listed)


class _Head(msgspec.Struct):
    method: str = ""
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_HEAD = msgspec.json.Decoder(_Head)
_HEADS = msgspec.json.Decoder(_Head | list[_Head])


def is_initialize(body: bytes) -> bool:
    """Whether a body is a request that opens a session. It is not checked any further here."""
    try:
        return _HEAD.decode(body).method == "initialize"
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def split_event_id(header: bytes) -> tuple[str, int] | None:
    """The stream and the number in a Last-Event-ID; None when we never gave such an id."""
    name, dash, number = header.rpartition(b"-")
    if not dash or not name.isalnum() or not number.isdigit() or len(header) > 64:
        return None
    return name.decode("ascii"), int(number)


def refusal(code: int, message: str, data: object = None) -> bytes:
    """The body of a refusal: an error without a request."""
    error: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode_value({"jsonrpc": "2.0", "id": None, "error": error})
