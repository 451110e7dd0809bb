"""What we wrote on the wire, held against the closed schema of the agreed revision."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from typing import Any

from tests.revisions.official import schema_of

# Results that are not called after their request.
_RESULTS = {
    "ping": "EmptyResult",
    "logging/setLevel": "EmptyResult",
    "resources/subscribe": "EmptyResult",
    "resources/unsubscribe": "EmptyResult",
}


@functools.cache
def definitions(revision: str) -> dict[str, str]:
    """The definition of each request and notification, by method."""
    schema = schema_of(revision)
    found = {}
    for name in schema.definitions:
        method = schema.find(f"{name}/method")
        if method is not None and "const" in method:
            found[method["const"]] = name
    return found


def complaints(frames: Iterable[tuple[bool, str]], revision: str) -> tuple[list[str], int]:
    """What the schema says against our messages, and how many it was asked about.

    `frames` are in the order of the wire: whether it is ours, and the text.
    """
    asked: dict[Any, str] = {}
    found: list[str] = []
    checked = 0
    for is_ours, text in frames:
        message = json.loads(text)
        method = message.get("method")
        if not is_ours:
            if method is not None and "id" in message:
                asked[message["id"]] = method
            continue
        if method is not None:
            name = definitions(revision).get(method)
            if name is None:
                found.append(f"{method}: not in {revision}")
                continue
            whole = schema_of(revision).find(f"{name}/jsonrpc") is not None
            # Before 2025-11-25 the definitions leave out what every message has.
            body = message if whole else _without_envelope(message)
        elif "result" in message:
            method = asked[message["id"]]
            name = _RESULTS.get(method) or definitions(revision)[method].replace(
                "Request", "Result"
            )
            body = message["result"]
        else:
            whole = "JSONRPCErrorResponse" in schema_of(revision).definitions
            name = "JSONRPCErrorResponse" if whole else "JSONRPCError"
            body = message
        checked += 1
        found += [f"{method} ({name}): {one}" for one in schema_of(revision).complaints(name, body)]
    return found, checked


def _without_envelope(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key not in ("jsonrpc", "id")}
