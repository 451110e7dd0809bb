"""A slow, independent reading of JSON-RPC frames, to hold against `codec.decode`.

It uses the standard library's parser and no code of ours but the message records.
"""

from __future__ import annotations

import json
from typing import Any

DEPTH = 128
EXACT = 2**53
ID_CHARS = 256


class Unreadable(Exception):
    """Not acceptable JSON, or no JSON-RPC message; `.kind` is "parse" or "invalid"."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(kind)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise Unreadable("parse")
    return dict(pairs)


def _constant(name: str) -> Any:
    raise Unreadable("parse")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Unreadable("parse")
    return value


def depth(value: Any) -> int:
    """How many containers stand around the innermost value, itself included."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def _characters(value: Any) -> None:
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, list):
        for item in value:
            _characters(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _characters(key)
            _characters(item)


def parse(frame: bytes) -> Any:
    """The frame's value, or Unreadable("parse")."""
    try:
        value = json.loads(
            frame.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_constant=_constant,
            parse_float=_float,
        )
        _characters(value)
    except (ValueError, RecursionError):
        raise Unreadable("parse") from None
    if depth(value) > DEPTH:
        raise Unreadable("parse")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def classify(value: Any) -> dict[str, Any]:
    """One message as {"kind", and what belongs to the kind}, or Unreadable("invalid")."""
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise Unreadable("invalid")
    if isinstance(value.get("jsonrpc"), bool):
        raise Unreadable("invalid")
    names = set(value)
    identified = False
    if "id" in names:
        ident = value["id"]
        if _whole(ident):
            if abs(ident) > EXACT:
                raise Unreadable("invalid")
            identified = True
        elif isinstance(ident, str):
            if len(ident) > ID_CHARS:
                raise Unreadable("invalid")
            identified = True
        elif ident is not None or "error" not in names or "method" in names:
            raise Unreadable("invalid")
    if "method" in names:
        wrong = (
            not isinstance(value["method"], str)
            or names & {"result", "error"}
            or not isinstance(value.get("params", {}), dict)
        )
        if wrong:
            raise Unreadable("invalid")
        if identified:
            return {
                "kind": "request",
                "id": value["id"],
                "method": value["method"],
                "params": value.get("params"),
            }
        return {"kind": "notification", "method": value["method"], "params": value.get("params")}
    if ("result" in names) == ("error" in names):
        raise Unreadable("invalid")
    if "result" in names:
        if not identified or not isinstance(value["result"], dict):
            raise Unreadable("invalid")
        return {"kind": "success", "id": value["id"], "result": value["result"]}
    error = value["error"]
    if (
        not isinstance(error, dict)
        or not _whole(error.get("code"))
        or not isinstance(error.get("message"), str)
    ):
        raise Unreadable("invalid")
    return {
        "kind": "failure",
        "id": value.get("id"),
        "code": error["code"],
        "message": error["message"],
        "data": error.get("data"),
    }


def read(frame: bytes) -> dict[str, Any] | list[dict[str, Any]]:
    """One frame; a batch gives a list, with {"kind": "bad"} for each faulty member."""
    value = parse(frame)
    if not isinstance(value, list):
        return classify(value)
    if not value:
        raise Unreadable("invalid")
    members: list[dict[str, Any]] = []
    for item in value:
        try:
            members.append(classify(item))
        except Unreadable:
            members.append({"kind": "bad"})
    return members
