"""Requests to an ASGI application of ours, without a web server and without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from dragoman.server.asgi import AsgiApp
from tests.http.aids import initialize, notification

__all__ = ["ask", "opened", "post"]


async def ask(
    app: AsgiApp,
    message: Any,
    session: bytes | None = None,
    method: str = "POST",
    *,
    extra: Iterable[tuple[bytes, bytes]] = (),
    until: asyncio.Event | None = None,
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a message, without a web server: the status, the headers and the body of the answer.

    The client leaves when `until` is set.
    """
    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        *extra,
    ]
    if session is not None:
        headers.append((b"mcp-session-id", session))
    sent: list[Any] = []
    has_body = True

    async def receive() -> Any:
        nonlocal has_body
        if not has_body and until is not None:
            await until.wait()
            return {"type": "http.disconnect"}
        has_body = False
        return {"type": "http.request", "body": msgspec.json.encode(message)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/mcp", "headers": headers}
    await app(scope, receive, send)
    body = b"".join(part.get("body", b"") for part in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


async def post(app: AsgiApp, message: Any, session: bytes | None = None) -> tuple[int, bytes]:
    """POST a message: the status, and the session that was begun."""
    status, headers, _ = await ask(app, message, session)
    return status, headers.get(b"mcp-session-id", b"")


async def opened(app: AsgiApp, *, extra: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The id of a new session."""
    status, headers, _ = await ask(app, initialize("2025-11-25"), extra=extra)
    assert status == 200
    session = headers[b"mcp-session-id"]
    ready = notification("notifications/initialized")
    assert (await ask(app, ready, session, extra=extra))[0] == 202
    return session
