"""Bytes to message and back.

Strict where JSON is loose: duplicate keys, NaN, lone surrogates and deep nesting are refused, and
an id is a string or an integer. The typical frame passes the strictness checks at C speed; only a
frame that looks unusual is examined slowly.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from dragoman.errors import BadMessage
from dragoman.jsonrpc.message import (
    ABSENT,
    Batch,
    ErrorBody,
    Failure,
    Message,
    Notification,
    Request,
    RequestId,
    Success,
)

__all__ = [
    "MAX_CONTAINERS",
    "MAX_DEPTH",
    "MAX_ID_CHARS",
    "decode",
    "encode_value",
    "failure",
    "find_id",
    "notification",
    "request",
    "success",
]

# 128 levels: the deepest official example has 12; parsers around us give up between 500 and 1000.
MAX_DEPTH = 128

# 1,000,000 arrays and objects: half a second and 250 MB once they are read. A frame of 64 MiB has
# room for twenty times as many, and one peer could take all memory and time with a few of them.
MAX_CONTAINERS = 1_000_000

# 2^53: what every JSON implementation can hold exactly; ids beyond it come back as other ids.
MAX_ID = 2**53

# 256 characters: a UUID has 36. An id is held while its request is under way and comes back with
# the answer, so 16,384 requests with ids of a megabyte each would take 16 GB.
MAX_ID_CHARS = 256

# 256 bytes of a bad frame are enough to recognise it in a log without repeating a secret in full.
_SAMPLE_BYTES = 256


_Id = (
    Annotated[int, msgspec.Meta(ge=-MAX_ID, le=MAX_ID)]
    | Annotated[str, msgspec.Meta(max_length=MAX_ID_CHARS)]
)


class _Whole(msgspec.Struct):
    """Any message but a failure, whose error is read in another way."""

    # No tag: one may be missing.
    jsonrpc: Literal["2.0"]
    id: _Id | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: msgspec.Raw = ABSENT
    result: msgspec.Raw = ABSENT


class _Parts(msgspec.Struct):
    """The members that stay undecoded."""

    params: msgspec.Raw = ABSENT
    result: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_parts = msgspec.json.Decoder(_Parts).decode
_whole = msgspec.json.Decoder(_Whole).decode
_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode
_error_body = msgspec.json.Decoder(ErrorBody).decode
_anything = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# An opening bracket as 1, a closing one as -1.
_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))
# A frame of up to this many bytes has no room for more brackets and their ends.
_FLAT_BYTES = 2 * MAX_DEPTH
# Indented by one space a level, a line this far to the right is inside of MAX_DEPTH containers.
_DEEPEST_LINE = b"\n" + b" " * MAX_DEPTH
# 256 KiB: indenting is the fastest check, but can make a hostile frame a hundred times longer.
_INDENTABLE_BYTES = 256 * 1024
# 1 KiB from each end of a frame that is not read, as links keep of one that they refuse.
_END_BYTES = 1024
_BACKSLASH = ord("\\")
_NOTHING: dict[str, Any] = {}
_ESCAPED_COLON = re.compile(rb"\\u003[aA]")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


def decode(frame: bytes) -> Message | Batch:
    """Read one frame.

    A batch is recognised, not judged: whether arrays are allowed is for the caller to say. An
    empty batch raises, as JSON-RPC asks.

    Raises:
        BadMessage: `.kind` is "parse" when the frame is not acceptable JSON, "invalid" when it is
            JSON but no JSON-RPC 2.0 message; `.id` is the request's id where it could be read.
    """
    # First as a message that is proven to be strict without a close look. Its own members are known
    # and counted, so only what they hold has to be read as values.
    if len(frame) > _FLAT_BYTES and frame.count(b"[") + frame.count(b"{") > MAX_DEPTH:
        return _look_closer(frame)
    try:
        whole = _whole(frame)
        method, ident = whole.method, whole.id
        body = whole.result if method is UNSET else whole.params
        value = _NOTHING if body is ABSENT else _anything(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _look_closer(frame)
    if type(value) is not dict:
        return _look_closer(frame)
    # Each pair has one colon outside of strings: as many colons as pairs prove that there are no
    # more pairs than those that were read, which there are where a key appears twice.
    colons = frame.count(b":") - 1
    pairs = len(value) + (body is not ABSENT) + (method is not UNSET) + (ident is not UNSET)
    for inner in value.values():
        if type(inner) is dict:
            pairs += len(inner)
    if pairs != colons:
        # There are deeper objects, or colons in strings; these survive a round trip.
        inside = colons - (body is not ABSENT) - (method is not UNSET) - (ident is not UNSET)
        if _encode(value).count(b":") != inside or _hides_colons(frame):
            return _look_closer(frame)
    if method is not UNSET:
        return Notification(method, body) if ident is UNSET else Request(ident, method, body)
    if ident is UNSET or body is ABSENT:
        return _look_closer(frame)
    return Success(ident, body)


def _look_closer(frame: bytes) -> Message | Batch:
    """Any frame, and why it is refused if it is."""
    value = _read(frame)
    if type(value) is dict:
        return _one(frame, value)
    if type(value) is list:
        if not value:
            raise _bad("invalid", "a batch must hold at least one message", frame)
        return Batch(tuple(map(_member, _batch(frame), value)))
    raise _bad("invalid", f"expected a JSON object, got {_kind(value)}", frame)


def _hides_colons(frame: bytes) -> bool:
    """Whether a string of a frame holds a colon in its escaped form, which cannot be counted."""
    return _BACKSLASH in frame and b"\\u003" in frame and bool(_ESCAPED_COLON.search(frame))


def _member(raw: msgspec.Raw, value: Any) -> Message | BadMessage:
    frame = bytes(raw)
    if type(value) is not dict:
        return _bad("invalid", "a batch may hold only objects", frame)
    try:
        return _one(frame, value)
    except BadMessage as fault:
        return fault


def _read(frame: bytes) -> Any:
    """The frame as plain values, once it has passed every strictness check."""
    if len(frame) > 2 * MAX_CONTAINERS and _has_too_many(frame):
        raise _crowded(frame)
    try:
        value = _anything(frame)
    except RecursionError:
        raise _bad("parse", f"nested deeper than {MAX_DEPTH} levels", frame) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise _bad("parse", _explain(frame, fault), frame) from None
    if (
        len(frame) > _FLAT_BYTES
        and frame.count(b"[") + frame.count(b"{") > MAX_DEPTH
        and _too_deep(frame)
    ):
        raise _bad("parse", f"nested deeper than {MAX_DEPTH} levels", frame, _id_of(value))
    # Each pair of an object has one colon outside of strings; colons inside strings survive a
    # round trip. So equal counts prove that no pair was lost, which is what a duplicate key does.
    if frame.count(b":") != _encode(value).count(b":") or _hides_colons(frame):
        _refuse_duplicates(frame, value)
    return value


def _id_of(value: Any) -> RequestId | None:
    ident = value.get("id") if type(value) is dict else None
    if type(ident) is not int and type(ident) is not str:
        return None
    return None if _out_of_bounds(ident) else ident


def _out_of_bounds(ident: RequestId) -> str:
    """Why an id is one that we do not take; empty when we do."""
    if type(ident) is int:
        return "" if -MAX_ID <= ident <= MAX_ID else f"must lie within ±2^53, got {ident}"
    size = len(ident)  # type: ignore[arg-type]
    return "" if size <= MAX_ID_CHARS else f"has at most {MAX_ID_CHARS} characters, got {size}"


def _too_deep(frame: bytes) -> bool:
    """Exact nesting check of a frame that is valid JSON."""
    if len(frame) <= _INDENTABLE_BYTES:
        try:
            if _DEEPEST_LINE not in msgspec.json.format(frame, indent=1):
                return False
        except RecursionError:
            return True
    depths = accumulate(memoryview(_brackets(frame).translate(_STEPS)).cast("b"))
    return max(depths, default=0) > MAX_DEPTH


def _has_too_many(frame: bytes) -> bool:
    """Whether there are more containers than we hold; texts may be full of brackets."""
    if frame.count(b"[") + frame.count(b"{") <= MAX_CONTAINERS:
        return False
    brackets = _brackets(frame)
    return brackets.count(b"[") + brackets.count(b"{") > MAX_CONTAINERS


def _brackets(frame: bytes) -> bytes:
    """The brackets outside of strings: escapes dropped, then every second piece between quotes."""
    if b"\\" in frame:
        frame = frame.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(frame.split(b'"')[::2]).translate(None, _NOT_BRACKETS)


def _crowded(frame: bytes) -> BadMessage:
    """A frame that is not read at all: whose it is can only be guessed from its two ends."""
    reason = f"more than {MAX_CONTAINERS} arrays and objects in one message"
    ident, is_request = find_id(frame[:_END_BYTES], frame[-_END_BYTES:])
    return (_bad if is_request else _bad_answer)("parse", reason, frame, ident)


def _refuse_duplicates(frame: bytes, value: Any) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    reason = f"the key {key[:64]!r} appears twice in one object"
                    ident = None if key == "id" else _id_of(value)
                    raise _bad("parse", reason, frame, ident)
                seen.add(key)
        return result

    json.loads(frame, object_pairs_hook=unique)


def _explain(frame: bytes, fault: Exception) -> str:
    """Why a frame is not JSON, in words that name the real cause."""
    try:
        text = frame.decode("utf-8")
    except UnicodeDecodeError as undecodable:
        return f"not valid UTF-8 at byte {undecodable.start}"
    if not text.strip():
        return "the message is empty"

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        plain = json.dumps(json.loads(text, parse_constant=refuse), ensure_ascii=False)
    except RecursionError:
        return f"nested deeper than {MAX_DEPTH} levels"
    except ValueError as reason:
        return f"not valid JSON: {reason}"
    if _LONE_SURROGATE.search(plain):
        return "a string holds half of a surrogate pair, which is no character"
    return f"not acceptable JSON: {fault}"


def _one(frame: bytes, value: dict[str, Any]) -> Message:
    ident = value.get("id", msgspec.UNSET)
    kind = type(ident)
    has_id = kind is int or kind is str
    if has_id and (fault := _out_of_bounds(ident)):
        bad = _bad if "method" in value else _bad_answer
        raise bad("invalid", f"an id {fault}", frame)
    parts = _parts(frame)
    if value.get("jsonrpc") != "2.0":
        raise _bad("invalid", 'the member "jsonrpc" must be "2.0"', frame, _id_of(value))

    method = value.get("method", msgspec.UNSET)
    if method is msgspec.UNSET:
        return _outcome(frame, value, parts)
    if type(method) is not str:
        reason = f"the method must be a string, got {_kind(method)}"
        raise _bad("invalid", reason, frame, _id_of(value))
    if parts.result is not ABSENT or parts.error is not ABSENT:
        reason = "a message has a method or an outcome, not both"
        raise _bad("invalid", reason, frame, _id_of(value))
    params = parts.params
    if params is not ABSENT and type(value["params"]) is not dict:
        raise _bad("invalid", "params must be an object", frame, _id_of(value))
    if has_id:
        return Request(ident, method, params)
    if ident is msgspec.UNSET:
        return Notification(method, params)
    raise _bad("invalid", f"an id must be a string or an integer, got {_kind(ident)}", frame)


def _outcome(frame: bytes, value: dict[str, Any], parts: _Parts) -> Success | Failure:
    ident = _id_of(value)
    raw_id = value.get("id", msgspec.UNSET)
    if parts.result is ABSENT and parts.error is ABSENT:
        raise _bad("invalid", "the message has neither method, result nor error", frame, ident)
    if parts.result is not ABSENT and parts.error is not ABSENT:
        raise _bad_answer("invalid", "the message has both result and error", frame, ident)
    if parts.error is ABSENT:
        if ident is None:
            raise _bad_answer(
                "invalid", f"a result needs the id it answers, got {_kind(raw_id)}", frame
            )
        if type(value["result"]) is not dict:
            raise _bad_answer("invalid", "a result must be an object", frame, ident)
        return Success(ident, parts.result)
    if ident is None and raw_id is not None and raw_id is not msgspec.UNSET:
        raise _bad_answer(
            "invalid", f"an id must be a string or an integer, got {_kind(raw_id)}", frame
        )
    try:
        return Failure(ident, _error_body(parts.error))
    except msgspec.MsgspecError as fault:
        raise _bad_answer("invalid", f"the error is malformed: {fault}", frame, ident) from None


def _bad_answer(kind: str, reason: str, frame: bytes, ident: RequestId | None = None) -> BadMessage:
    return BadMessage(kind, reason, id=ident, sample=frame[:_SAMPLE_BYTES], is_answer=True)


def _bad(kind: str, reason: str, frame: bytes, ident: RequestId | None = None) -> BadMessage:
    return BadMessage(kind, reason, id=ident, sample=frame[:_SAMPLE_BYTES])


def _kind(value: Any) -> str:
    if value is msgspec.UNSET:
        return "nothing"
    if value is None:
        return "null"
    names = {bool: "a boolean", float: "a fraction", int: "an integer", str: "a string"}
    return names.get(type(value), "an array" if isinstance(value, list) else "an object")


_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.){0,256}"|-?\d{1,16})\s*[,}]')
_METHOD = re.compile(rb'"method"\s*:')


def find_id(head: bytes, tail: bytes) -> tuple[RequestId | None, bool]:
    """Guess the id of a frame of which only the ends are left, and whether it is a request.

    Only for frames that were too large to hold: their owner should hear of it at once instead of
    waiting for a deadline. A wrong guess is possible, so nothing but an error may follow from it.
    """
    is_request = bool(_METHOD.search(head) or _METHOD.search(tail))
    ids = _ID.findall(head) or _ID.findall(tail)[-1:]
    try:
        ident = _anything(ids[0]) if ids else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None, is_request
    if ident is not None and _out_of_bounds(ident):
        return None, is_request
    return ident, is_request


# --- writing ------------------------------------------------------------------------------------


def encode_value(value: Any) -> bytes:
    """Write a value as compact JSON in UTF-8.

    A float that is no number becomes null, as JavaScript writes it.

    Raises:
        ValueError: it holds something JSON or UTF-8 cannot: an unknown type, a lone surrogate.
    """
    try:
        return _encode(value)
    except RecursionError:
        raise ValueError("the value is nested too deeply, or refers to itself") from None
    except (TypeError, msgspec.MsgspecError, UnicodeEncodeError, OverflowError) as fault:
        raise ValueError(f"cannot be written as JSON: {fault}") from None


def _id(ident: RequestId | None) -> bytes:
    return b"%d" % ident if type(ident) is int else _encode(ident)


def request(ident: RequestId, method: str, params: bytes) -> bytes:
    """A request; empty `params` leaves the member out."""
    if params:
        return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (
            _id(ident),
            _encode(method),
            params,
        )
    return b'{"jsonrpc":"2.0","id":%b,"method":%b}' % (_id(ident), _encode(method))


def notification(method: str, params: bytes) -> bytes:
    """A notification; empty `params` leaves the member out."""
    if params:
        return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (_encode(method), params)
    return b'{"jsonrpc":"2.0","method":%b}' % _encode(method)


def success(ident: RequestId, result: bytes) -> bytes:
    """The answer to a request that worked."""
    if type(ident) is int:
        return b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (ident, result)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (_encode(ident), result)


def failure(ident: RequestId | None, error: ErrorBody, *, null_id: bool = True) -> bytes:
    """The answer to a request that did not work.

    Without an id the member is null, as JSON-RPC says, or left out where `null_id` is False.
    """
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    try:
        written = encode_value(body)
    except ValueError:
        # The data is the sender's own and may hold anything; the number and text must arrive.
        text = error.message.encode("utf-8", "replace").decode("utf-8")
        written = _encode({"code": error.code, "message": text})
    if ident is None and not null_id:
        return b'{"jsonrpc":"2.0","error":%b}' % written
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (_id(ident), written)
