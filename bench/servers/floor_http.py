"""The floor of HTTP: a bare ASGI application and msgspec. Arguments: json|sse|client-sse plain|fast.

Sessions are a set of ids; there are no checks but that one. ``report`` answers with an event stream
because it has progress to tell. ``client-sse`` answers every call so, for clients to be measured against.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

import floor
import msgspec
from floor import decode, decode_add, decode_call, encode
from serving import serve

JSON = [(b"content-type", b"application/json")]
STREAM = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
INITIALIZED = encode(
    {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}, "logging": {}},
        "serverInfo": {"name": "floor", "version": "1"},
    }
)
LISTED = encode(
    {
        "tools": [
            {
                "name": name,
                "description": "Add.",
                "inputSchema": floor.INTEGERS,
                "outputSchema": floor.SUM,
            }
            for name in ("add", "report")
        ]
    }
)
PROGRESS = (
    b'event: message\r\ndata: {"jsonrpc":"2.0","method":"notifications/progress","params":'
    b'{"progressToken":%b,"progress":%d,"total":%d}}\r\n\r\n'
)
LOGGED = (
    b'event: message\r\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":'
    b'{"level":"info","data":"adding"}}\r\n\r\n'
)

sessions: set[bytes] = set()


class Meta(msgspec.Struct):
    """What `report` needs of a request's ``_meta``."""

    token: msgspec.Raw = msgspec.field(name="progressToken", default=msgspec.Raw(b""))


class WithMeta(msgspec.Struct):
    """The ``_meta`` of any request."""

    meta: Meta = msgspec.field(name="_meta", default_factory=Meta)


decode_meta = msgspec.json.Decoder(WithMeta).decode


async def application(scope: Any, receive: Any, send: Any) -> None:
    """One request."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    session = b""
    for name, value in scope["headers"]:
        if name == b"mcp-session-id":
            session = value
    method = scope["method"]
    if method != "POST":
        # No stream of its own (405), and DELETE ends the session.
        if method == "DELETE":
            sessions.discard(session)
        await answer(send, 200 if method == "DELETE" else 405, [], b"")
        return
    event = await receive()
    body = event["body"]
    while event.get("more_body"):
        event = await receive()
        body += event["body"]
    message = decode(body)
    if message.method == "initialize":
        session = secrets.token_hex(16).encode()
        sessions.add(session)
        head = b'{"jsonrpc":"2.0","id":' + bytes(message.id)
        reply = head + b',"result":' + INITIALIZED + b"}"
        await answer(send, 200, [*JSON, (b"mcp-session-id", session)], reply)
        return
    if session not in sessions:
        await answer(send, 404, [], b"")
        return
    if not message.id:
        await answer(send, 202, [], b"")
        return
    head = b'{"jsonrpc":"2.0","id":' + bytes(message.id)
    if message.method == "tools/call":
        call = decode_call(message.params)
        reply = head + b',"result":' + await floor.add(call.arguments) + b"}"
        if call.name == "report" or ALWAYS_STREAM:
            token = bytes(decode_meta(message.params).meta.token)
            arguments = decode_add(call.arguments)
            news = LOGGED
            if token:
                news = PROGRESS % (token, arguments.a, arguments.a + arguments.b)
            await send({"type": "http.response.start", "status": 200, "headers": STREAM})
            await send({"type": "http.response.body", "body": news, "more_body": True})
            last = b"event: message\r\ndata: " + reply + b"\r\n\r\n"
            await send({"type": "http.response.body", "body": last})
            return
        await answer(send, 200, JSON, reply)
    elif message.method == "tools/list":
        await answer(send, 200, JSON, head + b',"result":' + LISTED + b"}")
    else:
        await answer(send, 200, JSON, head + b',"result":{}}')


async def answer(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """A whole response."""
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Any, send: Any) -> None:
    """Nothing to start or stop."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    ALWAYS_STREAM = sys.argv[1] == "client-sse"
    serve(application, sys.argv[2])
