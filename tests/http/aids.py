"""A server of ours under a real uvicorn, and a client that hides nothing: bytes over a socket.

    async with serving(server.asgi()) as place:
        peer = await Peer.open(place, "2025-06-18")
        answer = await peer.call("add", {"a": 1, "b": 2})

Everything runs in one loop, so that a test can hold a handler at a point and let it go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

__all__ = [
    "BOTH",
    "JSON",
    "STREAM",
    "Answer",
    "Event",
    "OldPeer",
    "Peer",
    "Place",
    "Received",
    "Recorder",
    "ask",
    "bare",
    "initialize",
    "notification",
    "request",
    "serving",
]

JSON = "application/json"
STREAM = "text/event-stream"
BOTH = f"{JSON}, {STREAM}"

App = Callable[..., Coroutine[Any, Any, None]]


# --- serving ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a server listens: a port of the loopback address, or a Unix socket."""

    port: int = 0
    uds: str = ""
    opened: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The value of a Host header."""
        return "localhost" if self.uds else f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"http://{self.host}"

    async def connect(
        self, limit: int = 2**16
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of its own; `limit` bounds what is read ahead, in bytes."""
        if self.uds:
            pair = await asyncio.open_unix_connection(self.uds, limit=limit)
        else:
            pair = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        self.opened.append(pair[1])
        return pair

    def leave(self) -> None:
        """Break every connection that was made here."""
        for writer in self.opened:
            writer.transport.abort()


class _Uvicorn(uvicorn.Server):
    """uvicorn as it is, but for its waits of a tenth of a second and its hold on signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.ending = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        self.ready.set()
        await self.ending.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        for listener in self.servers:
            listener.close()
        await self.lifespan.shutdown()
        for task in self.server_state.tasks:
            task.cancel()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()


@asynccontextmanager
async def serving(app: App, *, uds: str = "", **options: Any) -> AsyncIterator[Place]:
    """The app under uvicorn, on a free port or a Unix socket; `options` are uvicorn's."""
    given: dict[str, Any] = {"log_level": "critical", "ws": "none", "access_log": False, **options}
    where: dict[str, Any] = {"uds": uds} if uds else {"host": "127.0.0.1", "port": 0}
    server = _Uvicorn(uvicorn.Config(app, **where, **given))
    task = asyncio.ensure_future(server.serve())
    ready = asyncio.ensure_future(server.ready.wait())
    place: Place | None = None
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            raise AssertionError("the server ended before it began")
        place = Place(0 if uds else server.servers[0].sockets[0].getsockname()[1], uds)
        yield place
    finally:
        ready.cancel()
        server.ending.set()
        # A test that failed is not to be hidden behind how its server ended.
        await asyncio.wait({task})
        if place is not None:
            place.leave()
    task.result()


@dataclass(frozen=True)
class Received:
    """One request as a server saw it; the names of `headers` are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        """The body as a value; None when there is none."""
        return json.loads(self.body) if self.body else None


class Recorder:
    """Stands before an app and keeps every request, with its whole body; `tell` hears of each."""

    def __init__(self, app: App, tell: Callable[[Received], None] | None = None) -> None:
        self.app = app
        self.tell = tell
        self.requests: list[Received] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body, is_whole = b"", False
        while not is_whole:
            event = await receive()
            body += event.get("body", b"")
            is_whole = not event.get("more_body", False)
        received = Received(scope["method"], scope["path"], headers, body)
        self.requests.append(received)
        if self.tell is not None:
            self.tell(received)
        has_told = False

        async def listen() -> Any:
            nonlocal has_told
            if has_told:
                return await receive()
            has_told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, listen, send)

    def posts(self, method: str | None = None) -> list[Received]:
        """The POSTs, or those whose message has that method."""
        posts = [one for one in self.requests if one.method == "POST"]
        if method is None:
            return posts
        return [one for one in posts if dict(one.message).get("method") == method]

    def named(self, method: str) -> list[Received]:
        """The requests with that HTTP method."""
        return [one for one in self.requests if one.method == method]


# --- asking -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """One event of a stream as it was written; `fields` are its lines, comments left out."""

    fields: tuple[tuple[str, str], ...]

    def _get(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key == name]
        return "\n".join(found) if found else None

    @property
    def id(self) -> str | None:
        """The id, None where the event has none."""
        return self._get("id")

    @property
    def kind(self) -> str:
        """The type: "message" unless the event says otherwise."""
        return self._get("event") or "message"

    @property
    def data(self) -> str | None:
        """The data, None where there is not even an empty line of it."""
        return self._get("data")

    @property
    def retry(self) -> int | None:
        """Milliseconds."""
        value = self._get("retry")
        return None if value is None else int(value)

    @property
    def message(self) -> Any:
        """The data as a value; None for an event without a message."""
        return json.loads(self.data) if self.data else None


class Answer:
    """The answer to one request: its head at once, its body as it comes."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.fields = [
            (name.lower(), value.strip())
            for name, _, value in (line.partition(":") for line in lines if line)
        ]
        self.headers = dict(self.fields)
        self._reader = reader
        self._writer = writer
        self._chunked = self.headers.get("transfer-encoding") == "chunked"
        # No length and no chunks: up to the end of the connection, unless no body can come.
        has_none = self._chunked or self.status in {204, 304}
        self._left = int(self.headers.get("content-length", 0 if has_none else -1))
        self._text = b""
        self._is_over = False

    @property
    def kind(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip()

    async def _chunk(self) -> bytes:
        """The next piece of the body; empty at its end."""
        if self._is_over:
            return b""
        if self._chunked:
            size = int(await self._reader.readline() or b"0", 16)
            piece = await self._reader.readexactly(size)
            await self._reader.readline()
        elif self._left >= 0:
            piece = await self._reader.read(min(self._left, 2**16)) if self._left else b""
            self._left -= len(piece)
        else:
            piece = await self._reader.read(2**16)
        self._is_over = not piece
        return piece

    async def read(self) -> bytes:
        """The rest of the body; the connection is closed afterwards."""
        pieces = [self._text]
        while piece := await self._chunk():
            pieces.append(piece)
        self._text = b""
        self.close()
        return b"".join(pieces)

    async def json(self) -> Any:
        """The body as a value."""
        assert self.kind == JSON, (self.status, self.headers)
        return json.loads(await self.read())

    async def event(self) -> Event | None:
        """The next event of the stream; None at its end. Comments are passed over."""
        assert self.kind == STREAM, (self.status, self.headers)
        while True:
            block, mark, rest = self._text.partition(b"\n\n")
            if mark:
                self._text = rest
                lines = [line for line in block.decode().split("\n") if not line.startswith(":")]
                pairs = [line.partition(":") for line in lines if line]
                if pairs:
                    return Event(tuple((name, value.removeprefix(" ")) for name, _, value in pairs))
                continue
            if not await self._reads_on():
                assert not self._text.strip(), "the stream ended within an event"
                self.close()
                return None

    async def _reads_on(self) -> bool:
        """Read until an empty line may be there; whether the stream is not at its end."""
        pieces = [self._text]
        seen = self._text
        while b"\n\n" not in seen:
            piece = await self._chunk()
            pieces.append(piece)
            if not piece:
                break
            # Put together once it ends, and not for each piece of ten megabytes.
            seen = (seen[-3:] + piece).replace(b"\r\n", b"\n")
        # Lines may end in CRLF; a CR of its own does not occur in what we write.
        self._text = b"".join(pieces).replace(b"\r\n", b"\n")
        return bool(pieces[-1])

    async def comment(self) -> str:
        """The text of the next comment; events before it must not come."""
        while b"\n" not in self._text:
            piece = await self._chunk()
            assert piece, "the stream ended"
            self._text += piece
        line, _, self._text = self._text.partition(b"\n")
        if not line.strip():
            return await self.comment()
        assert line.startswith(b":"), line
        return line[1:].decode().strip()

    async def events(self) -> list[Event]:
        """The rest of the stream, up to its end."""
        found = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found

    async def messages(self) -> list[Any]:
        """The messages of the rest of the stream; events without one are left out."""
        return [event.message for event in await self.events() if event.data]

    async def message(self) -> Any:
        """The next event that holds a message, its message; None at the end."""
        while (event := await self.event()) is not None:
            if event.data:
                return event.message
        return None

    def close(self) -> None:
        """Close the connection, whatever is on its way."""
        self._is_over = True
        self._writer.close()

    def abort(self) -> None:
        """Break the connection as a network does."""
        self._is_over = True
        self._writer.transport.abort()


def bare(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """One request as bytes; Content-Length is added unless a header frames the body already."""
    given = list(headers)
    names = {name.lower() for name, _ in given}
    if not names & {"content-length", "transfer-encoding"} and (body or method == "POST"):
        given.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def ask(
    place: Place,
    method: str,
    target: str = "/mcp",
    headers: Mapping[str, str | None] | None = None,
    body: Any = b"",
    *,
    limit: int = 2**16,
) -> Answer:
    """One request on a connection of its own; the answer's head has come when this returns.

    A body that is no bytes is written as JSON. A header that is None is not sent, Host included.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = dict(headers or {})
    if "host" not in {name.lower() for name in given}:
        given = {"Host": place.host, **given}
    sent = [(name, value) for name, value in given.items() if value is not None]
    reader, writer = await place.connect(limit)
    try:
        writer.write(bare(method, target, sent, content))
        head = await reader.readuntil(b"\r\n\r\n")
    except BaseException:
        writer.transport.abort()
        raise
    return Answer(reader, writer, head[:-4])


# --- messages ---------------------------------------------------------------------------------------


def request(id: Any, method: str, params: Any = None) -> dict[str, Any]:
    """A request as a value."""
    message = {"jsonrpc": "2.0", "id": id, "method": method}
    return message if params is None else {**message, "params": params}


def notification(method: str, params: Any = None) -> dict[str, Any]:
    """A notification as a value."""
    message = {"jsonrpc": "2.0", "method": method}
    return message if params is None else {**message, "params": params}


def initialize(revision: str, capabilities: Any = None, id: Any = 0) -> dict[str, Any]:
    """The first request of a session."""
    params = {
        "protocolVersion": revision,
        "capabilities": capabilities or {},
        "clientInfo": {"name": "raw", "version": "1"},
    }
    return request(id, "initialize", params)


def call(id: Any, tool: str, arguments: Any = None, token: Any = None) -> dict[str, Any]:
    """A call of a tool; with a token it asks for progress."""
    params: dict[str, Any] = {"name": tool, "arguments": arguments or {}}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return request(id, "tools/call", params)


@dataclass
class Peer:
    """A session over Streamable HTTP, each request on a connection of its own."""

    place: Place
    revision: str
    session: str | None = None
    opening: Any = None
    target: str = "/mcp"
    extra: dict[str, str] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1000))

    @classmethod
    async def open(
        cls, place: Place, revision: str, capabilities: Any = None, **options: Any
    ) -> Peer:
        """Initialize, and say that it is done."""
        peer = cls(place, revision, **options)
        answer = await peer.post(initialize(revision, capabilities))
        peer.opening = await one(answer)
        assert answer.status == 200, peer.opening
        assert peer.opening["result"]["protocolVersion"] == revision
        peer.session = answer.headers.get("mcp-session-id")
        accepted = await peer.post(notification("notifications/initialized"))
        assert accepted.status == 202
        await accepted.read()
        return peer

    def headers(self, **changes: str | None) -> dict[str, str | None]:
        """What goes with a request; `accept=None` leaves a header out, `_` stands for a hyphen."""
        found: dict[str, str | None] = dict(self.extra)
        if self.session is not None:
            found["Mcp-Session-Id"] = self.session
            if self.revision >= "2025-06-18":
                found["MCP-Protocol-Version"] = self.revision
        for name, value in changes.items():
            whole = name.replace("_", "-")
            for taken in [key for key in found if key.lower() == whole.lower()]:
                del found[taken]
            found[whole] = value
        return found

    async def post(self, body: Any, **changes: str | None) -> Answer:
        """POST a message, an array of them, or bytes."""
        given: dict[str, str | None] = {"Content_Type": JSON, "Accept": BOTH, **changes}
        return await ask(self.place, "POST", self.target, self.headers(**given), body)

    async def get(self, last: str | None = None, **changes: str | None) -> Answer:
        """Open the stream for what belongs to no request, or resume the one of that event."""
        given: dict[str, str | None] = {"Accept": STREAM, **changes}
        if last is not None:
            given["Last_Event_ID"] = last
        return await ask(self.place, "GET", self.target, self.headers(**given))

    async def delete(self, **changes: str | None) -> Answer:
        """End the session."""
        return await ask(self.place, "DELETE", self.target, self.headers(**changes))

    async def request(self, method: str, params: Any = None) -> Any:
        """Ask, whatever form the answer takes; its message."""
        ident = next(self.ids)
        answer = await one(await self.post(request(ident, method, params)))
        assert answer["id"] == ident, answer
        return answer

    async def call(self, tool: str, arguments: Any = None) -> str:
        """The text of a tool's result."""
        answer = await self.request("tools/call", {"name": tool, "arguments": arguments or {}})
        return str(answer["result"]["content"][0]["text"])

    async def notify(self, method: str, params: Any = None) -> None:
        """Send a notification, which must be accepted."""
        answer = await self.post(notification(method, params))
        assert (answer.status, await answer.read()) == (202, b"")


async def one(answer: Answer) -> Any:
    """The last message of an answer, JSON or stream."""
    if answer.kind == STREAM:
        return (await answer.messages())[-1]
    return await answer.json()


@dataclass
class OldPeer:
    """A session over HTTP+SSE: one stream, and POSTs beside it."""

    place: Place
    stream: Answer
    endpoint: str
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1000))
    extra: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def connect(cls, place: Place, target: str = "/sse", **extra: str) -> OldPeer:
        """Open the stream, and read where to post."""
        stream = await ask(place, "GET", target, {"Accept": STREAM, **extra})
        assert (stream.status, stream.kind) == (200, STREAM), await stream.read()
        event = await stream.event()
        assert event is not None
        assert event.kind == "endpoint"
        assert event.data is not None
        return cls(place, stream, event.data, extra=extra)

    @classmethod
    async def open(
        cls, place: Place, revision: str = "2024-11-05", capabilities: Any = None, **options: Any
    ) -> OldPeer:
        """Connect and initialize."""
        peer = await cls.connect(place, **options)
        await peer.send(initialize(revision, capabilities))
        opening = await peer.stream.message()
        assert opening["result"]["protocolVersion"] == revision
        await peer.send(notification("notifications/initialized"))
        return peer

    async def post(self, body: Any, **headers: str | None) -> Answer:
        """POST to the endpoint that the stream named."""
        given = {"Content-Type": JSON, **self.extra}
        changes = {name.replace("_", "-"): value for name, value in headers.items()}
        return await ask(self.place, "POST", self.endpoint, {**given, **changes}, body)

    async def send(self, body: Any) -> None:
        """POST, which must be accepted."""
        answer = await self.post(body)
        assert answer.status == 202, (answer.status, await answer.read())
        await answer.read()

    async def request(self, method: str, params: Any = None) -> Any:
        """Ask, and read the stream up to the answer."""
        ident = next(self.ids)
        await self.send(request(ident, method, params))
        while (message := await self.stream.message()) is not None:
            if message.get("id") == ident and "method" not in message:
                return message
        raise AssertionError("the stream ended before the answer")

    async def call(self, tool: str, arguments: Any = None) -> str:
        """The text of a tool's result."""
        answer = await self.request("tools/call", {"name": tool, "arguments": arguments or {}})
        return str(answer["result"]["content"][0]["text"])


@contextlib.contextmanager
def closing(*answers: Answer) -> Iterator[None]:
    """Close what was opened, however the test ends."""
    try:
        yield
    finally:
        for answer in answers:
            answer.close()
