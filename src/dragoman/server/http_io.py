"""What every HTTP request needs, on bare ASGI: its headers, its body, answers and refusals."""

from __future__ import annotations

import asyncio
import types
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from typing import Any

from dragoman.runtime.steps import go_on
from dragoman.transport.streamable import rules

__all__ = [
    "JSON_HEADER",
    "PIECE_BYTES",
    "SSE_HEADERS",
    "WRITE_S",
    "Header",
    "Headers",
    "HttpRefusal",
    "Receive",
    "Scope",
    "Send",
    "answer",
    "answer_json",
    "read_body",
    "route_path",
    "start_stream",
    "write",
    "with_headers",
]

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Header = tuple[bytes, bytes]

# Tuples: what is handed to an ASGI server may be changed on its way by whatever stands between.
SSE_HEADERS: tuple[Header, ...] = (
    (b"content-type", rules.SSE),
    (b"cache-control", b"no-cache, no-transform"),
    # Proxies that hold back what they pass on are told not to.
    (b"x-accel-buffering", b"no"),
)

JSON_HEADER: Header = (b"content-type", rules.JSON)
_EMPTY: Header = (b"content-length", b"0")

_COROUTINE = types.CoroutineType

# 64 KiB: what an ASGI server takes before it lets the next write wait for the client. In one piece a
# body would be held in memory for whoever reads none of it.
PIECE_BYTES = 64 * 1024

# 20 s: a client that takes nothing for that long is not there, or wants to cost us something.
WRITE_S = 20.0


class HttpRefusal(Exception):
    """A request ends here, with this status; its text is for whoever reads the body."""

    def __init__(
        self,
        status: int,
        text: str,
        *headers: Header,
        code: int = -32600,
        data: object = None,
    ) -> None:
        self.status = status
        self.text = text
        self.headers = headers
        self.code = code
        self.data = data
        super().__init__(f"{status}: {text}")

    async def send(self, send: Send) -> None:
        """Answer with it."""
        body = rules.refusal(self.code, self.text, self.data)
        await answer_json(send, self.status, body, *self.headers)


class Headers(Mapping[str, str]):
    """A request's headers by lower-case name, read when somebody asks."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[Header]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        wanted = name.lower().encode("latin-1")
        values = [value for key, value in self._raw if key == wanted]
        if not values:
            raise KeyError(name)
        return b", ".join(values).decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return iter({key.decode("latin-1"): None for key, _ in self._raw})

    def __len__(self) -> int:
        return len({key for key, _ in self._raw})


# --- reading ------------------------------------------------------------------------------------------


def read_body(
    receive: Receive, length: bytes, limit: int, patience_s: float
) -> bytes | Awaitable[bytes | None]:
    """The whole body, of at most `limit` bytes; None when the client left before its end.

    `length` is the Content-Length, empty where there is none. Nearly always the body is there already
    and returned as it is; else it has to be awaited, and whoever sends it piece by piece has
    `patience_s` for all of it.

    Raises:
        HttpRefusal: 413 for a body over the limit, 408 for one that does not come.
    """
    # Four digits are read in any case, and counted when they are here; no size has over twenty.
    if len(length) > 4 and length.isdigit() and (len(length) > 20 or int(length) > limit):
        raise _too_large(limit)
    receiving = receive()
    if type(receiving) is _COROUTINE:
        try:
            pending = receiving.send(None)
        except StopIteration as end:
            message = end.value
        else:
            return _read_on(go_on(receiving, pending), receive, limit, patience_s)
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message.get("body", b"")
            if len(body) <= limit:
                return body
            raise _too_large(limit)
        receiving = _done(message)
    return _read_on(receiving, receive, limit, patience_s)


async def _read_on(
    receiving: Awaitable[Any], receive: Receive, limit: int, patience_s: float
) -> bytes | None:
    try:
        async with asyncio.timeout(patience_s):
            parts = [part async for part in _parts(receiving, receive, limit)]
    except TimeoutError:
        raise HttpRefusal(408, f"the body did not come within {patience_s:g} s") from None
    except EOFError:
        return None
    return b"".join(parts)


async def _parts(receiving: Awaitable[Any], receive: Receive, limit: int) -> AsyncIterator[bytes]:
    size = 0
    while True:
        message = await receiving
        if message["type"] == "http.disconnect":
            raise EOFError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        yield part
        if not message.get("more_body", False):
            return
        receiving = receive()


async def _done(message: Any) -> Any:
    return message


def _too_large(limit: int) -> HttpRefusal:
    return HttpRefusal(413, f"a body is limited to {limit} bytes")


def route_path(scope: Scope) -> str:
    """The path below whatever this application is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root):
        rest = path[len(root) :]
        if not rest or rest.startswith("/"):
            return rest or "/"
    return path or "/"


# --- answering ----------------------------------------------------------------------------------------


async def answer_json(send: Send, status: int, body: bytes, *extra: Header) -> None:
    """One JSON body."""
    headers = [JSON_HEADER, (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if len(body) > PIECE_BYTES:
        await write(send, body, is_last=True)
    else:
        await send({"type": "http.response.body", "body": body})


async def write(send: Send, body: bytes, *, is_last: bool) -> None:
    """Write more of a body, as fast as the client takes it.

    Raises:
        TimeoutError: the client took none of it for `WRITE_S`.
    """
    start = 0
    while True:
        piece = body[start : start + PIECE_BYTES] if len(body) > PIECE_BYTES else body
        start += PIECE_BYTES
        is_end = start >= len(body)
        message = {
            "type": "http.response.body",
            "body": piece,
            "more_body": not (is_end and is_last),
        }
        await _in_time(send(message))
        if is_end:
            return


async def _in_time(sending: Awaitable[None]) -> None:
    # A timer costs more than the write, and nearly every write ends at once.
    if type(sending) is _COROUTINE:
        try:
            pending = sending.send(None)
        except StopIteration:
            return
        sending = go_on(sending, pending)
    async with asyncio.timeout(WRITE_S):
        await sending


async def answer(send: Send, status: int, *extra: Header) -> None:
    """A status without a body."""
    headers = list(extra) if status == 204 else [_EMPTY, *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def start_stream(send: Send) -> None:
    """The head of an event stream."""
    await send({"type": "http.response.start", "status": 200, "headers": [*SSE_HEADERS]})


def with_headers(send: Send, *extra: Header) -> Send:
    """Add headers to whatever is answered."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return sending
