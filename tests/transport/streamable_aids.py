"""A server over real sockets that says exactly what a test tells it to, and what watches a link."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.errors import LinkError
from dragoman.jsonrpc.frame import Delivery, Noise, Seen
from dragoman.revisions.registry import HANDSHAKE

NEWEST = HANDSHAKE[-1]


@dataclass
class Asked:
    """One request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def message(self) -> Any:
        """The body as JSON; None when there is none."""
        return json.loads(self.body) if self.body else None

    @property
    def rpc(self) -> str:
        """The method of the message, or what else it is."""
        if self.method != "POST":
            return self.method
        message = self.message
        return message.get("method", "answer") if isinstance(message, dict) else "batch"


class Reply:
    """How a script answers one request."""

    def __init__(
        self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.asked = asked
        self.reader = reader
        self.writer = writer
        self.is_stream = False
        self.is_over = False

    async def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer; header names are written with "_" for "-"."""
        self._head(status, {"content-length": str(len(body)), **_named(headers)})
        self.writer.write(body)
        await self.writer.drain()

    async def json(self, message: Any, status: int = 200, **headers: str) -> None:
        """JSON."""
        body = json.dumps(message).encode()
        headers.setdefault("content_type", "application/json")
        await self.send(status, body, **headers)

    async def result(self, result: Mapping[str, Any], **headers: str) -> None:
        """The result of the request, as JSON."""
        await self.json(answer(self.asked, result), 200, **headers)

    async def stream(self, status: int = 200, **headers: str) -> None:
        """Begin an event stream."""
        self.is_stream = True
        self._head(
            status,
            {
                "content-type": "text/event-stream",
                "transfer-encoding": "chunked",
                **_named(headers),
            },
        )
        await self.writer.drain()

    async def event(
        self, message: Any = None, *, ident: str | None = None, retry: int | None = None
    ) -> None:
        """One event; without a message it has an id and empty data."""
        lines = [] if ident is None else [f"id: {ident}"]
        if retry is not None:
            lines.append(f"retry: {retry}")
        lines.append("data: " + ("" if message is None else json.dumps(message)))
        await self.write(("\n".join(lines) + "\n\n").encode())

    async def write(self, data: bytes) -> None:
        """A piece of the stream's body."""
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        """End the stream in order."""
        self.writer.write(b"0\r\n\r\n")
        self.is_over = True
        await self.writer.drain()

    def hang_up(self) -> None:
        """Close the connection in the middle of the stream; what was written arrives."""
        self.is_over = True
        self.writer.close()

    def cut(self) -> None:
        """Break the connection."""
        self.is_over = True
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        with suppress(ConnectionError):
            assert await self.reader.read() == b""

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in headers.items())]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


Script = Callable[[Asked, Reply], Awaitable[None]]


class ScriptedServer:
    """Speaks Streamable HTTP in the plainest way, but where a script says otherwise.

    `on` has scripts by the method of the message, or by GET and DELETE; each gets all requests of
    its kind. `asked` is what came, in order.
    """

    def __init__(
        self,
        on: Mapping[str, Script] | None = None,
        *,
        session: str | None = "s-1",
        revision: str | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> None:
        self.on: dict[str, Script] = {
            "initialize": self._initialize,
            "GET": _no_stream,
            "DELETE": _accept,
            "answer": _accept,
            **(on or {}),
        }
        self.session = session
        self.revision = revision
        self.capabilities = capabilities if capabilities is not None else {"tools": {}}
        self.asked: list[Asked] = []
        self.url = ""
        self.connections = 0
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.errors: list[BaseException] = []

    async def _initialize(self, asked: Asked, reply: Reply) -> None:
        headers = {} if self.session is None else {"mcp_session_id": self.session}
        await reply.result(self.welcome(asked), **headers)

    def welcome(self, asked: Asked) -> dict[str, Any]:
        """The result of initialize."""
        return {
            "protocolVersion": self.revision or asked.message["params"]["protocolVersion"],
            "capabilities": self.capabilities,
            "serverInfo": {"name": "script", "version": "1"},
        }

    def of(self, rpc: str) -> list[Asked]:
        """The requests of one kind so far."""
        return [one for one in self.asked if one.rpc == rpc]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until a request makes it true."""
        while not is_so():
            self._news.clear()
            await self._news.wait()

    async def start(self, *, uds: Path | None = None, port: int = 0) -> None:
        """Listen."""
        if uds is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(uds))
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/mcp"

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The server's own tasks, which are no leak of the client's."""
        return set(self._tasks)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.split(":")[2].split("/")[0])

    async def aclose(self) -> None:
        """Stop listening and break every connection."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._server.wait_closed()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._talk(reader, writer, self.connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self._writers.add(writer)
        try:
            while True:
                asked = await _read(reader, number)
                if asked is None:
                    return
                self.asked.append(asked)
                self._news.set()
                reply = Reply(asked, reader, writer)
                script = self.on.get(asked.rpc, _accept if _is_notice(asked) else _refuse)
                await script(asked, reply)
                if writer.transport.is_closing():
                    return
                if reply.is_stream and not reply.is_over:
                    await reply.end()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self._writers.discard(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def answer(asked: Asked, result: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    return {"jsonrpc": "2.0", "id": asked.message["id"], "result": result}


def text(said: str) -> dict[str, Any]:
    """The result of a tool that says something."""
    return {"content": [{"type": "text", "text": said}]}


def notice(method: str, **params: Any) -> dict[str, Any]:
    """A notification."""
    return {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params}


async def _read(reader: asyncio.StreamReader, number: int) -> Asked | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, path, headers, body, number)


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _is_notice(asked: Asked) -> bool:
    return asked.rpc.startswith("notifications/")


async def _accept(asked: Asked, reply: Reply) -> None:
    await reply.send(202)


async def _no_stream(asked: Asked, reply: Reply) -> None:
    await reply.send(405, allow="POST, DELETE")


async def _refuse(asked: Asked, reply: Reply) -> None:
    await reply.send(500, f"nobody has told me what to do with {asked.rpc}".encode())


@asynccontextmanager
async def scripted(
    on: Mapping[str, Script] | None = None, **options: Any
) -> AsyncIterator[ScriptedServer]:
    """A scripted server, listening."""
    server = ScriptedServer(on, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.aclose()
        assert not server.errors, server.errors


class Waits:
    """Stands for `asyncio.sleep`: remembers what was asked for and waits for nothing."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Ear:
    """A receiver that keeps what a link tells it; it awaits the ids in `awaited`."""

    awaited: set[int | str] = field(default_factory=set)
    frames: list[bytes] = field(default_factory=list)
    noises: list[Noise] = field(default_factory=list)
    lost: dict[int | str, LinkError] = field(default_factory=dict)
    troubles: list[LinkError | None] = field(default_factory=list)
    ends: list[LinkError | None] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        assert not self.ends
        self.frames.extend(frames)
        for frame in frames:
            with suppress(ValueError):
                message = json.loads(frame)
                if isinstance(message, dict) and "method" not in message:
                    self.awaited.discard(message.get("id", ""))
        self.news.set()

    def frame_refused(self, noise: Noise) -> None:
        assert not self.ends
        self.noises.append(noise)
        self.news.set()

    def link_closed(self, error: LinkError | None) -> None:
        self.ends.append(error)
        self.news.set()

    def is_awaited(self, ident: int | str) -> bool:
        return ident in self.awaited

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        assert not self.ends
        assert ident in self.awaited
        self.awaited.discard(ident)
        self.lost[ident] = error
        self.news.set()

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        raise AssertionError("a client has no deliveries")

    def link_troubled(self, error: LinkError | None) -> None:
        self.troubles.append(error)
        self.news.set()

    @property
    def messages(self) -> list[Any]:
        """The frames as JSON."""
        return [json.loads(frame) for frame in self.frames]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something received makes it true."""
        while not is_so():
            self.news.clear()
            await self.news.wait()
