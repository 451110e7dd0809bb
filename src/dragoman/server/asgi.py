"""A server as an ASGI application: both HTTP transports at once, every revision on each.

    app = server.asgi()                      # uvicorn module:app, or mounted in another app

One POST passes through `AsgiApp._post`, `StreamableLink.receive`, the driver and its engine, the
handler, and back through `StreamableLink.send`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

import msgspec

from dragoman.errors import Misconfigured
from dragoman.jsonrpc.frame import Delivery, Principal, Seen
from dragoman.model.base import Implementation, NoParams
from dragoman.model.capabilities import ClientCapabilities
from dragoman.protocol.engine import Engine
from dragoman.revisions.registry import HANDSHAKE
from dragoman.runtime.clock import Clock, LoopClock
from dragoman.runtime.driver import Driver
from dragoman.transport.base import Link
from dragoman.transport.http.guard import Guard
from dragoman.transport.http_sse.server import SseLink
from dragoman.transport.streamable import rules
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import EventLog, MemoryEventLog
from dragoman.transport.streamable.server import Reply, Stream, StreamableLink, encode_event
from dragoman.transport.streamable.sessions import SessionRecord, SessionStore

__all__ = ["AsgiApp", "Identify"]

log = logging.getLogger("dragoman.server")

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

Identify = Callable[[Scope], "Principal | Awaitable[Principal | None] | None"]
"""Says who makes a request, by its ASGI scope; None for nobody who may."""

ANYONE = Principal("anyone", issuer="http")

SESSION = b"mcp-session-id"
VERSION = b"mcp-protocol-version"
LAST_EVENT = b"last-event-id"

_WIRES = frozenset(dialect.wire.encode() for dialect in HANDSHAKE)

# 128 bits make an id that cannot be guessed; 16 bytes more cost nothing.
ID_BYTES = 32

# How often waiting answers and idle sessions are looked at, in seconds. Both may be that late.
TICK_S = 0.5
SWEEP_S = 10.0

# 60 s after the whole of a stream was handed to its reader's socket it is forgotten: by then the
# reader has it, or has noticed that its connection broke and come back.
DONE_S = 60.0

# A client that posts says at most this much of itself in a query string.
MAX_QUERY_BYTES = 4096

_EMPTY = (b"content-length", b"0")
_SSE_HEADERS = [
    (b"content-type", rules.SSE),
    (b"cache-control", b"no-cache, no-transform"),
    # Proxies that hold back what they pass on are told not to.
    (b"x-accel-buffering", b"no"),
]


class Serving(Protocol):
    """What the application needs of the server behind it."""

    @property
    def name(self) -> str: ...

    def living(self) -> Any: ...

    def attach(
        self,
        link: Link,
        *,
        clock: Clock | None = None,
        resume: Callable[[Engine], None] | None = None,
    ) -> Driver: ...

    async def detach(self, driver: Driver) -> None: ...


class Headers(Mapping[str, str]):
    """A request's headers by lower-case name, read when somebody asks."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
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


class _Session:
    """One client of either transport."""

    __slots__ = ("driver", "link", "saved", "used_at")

    def __init__(self, link: StreamableLink | SseLink, driver: Driver) -> None:
        self.link = link
        self.driver = driver
        self.used_at = 0.0
        # What was last kept of it: the level, the count of changed subscriptions, when.
        self.saved = (0, 0, 0.0)


class AsgiApp:
    """The application; made by `Server.asgi`, which explains its settings.

    `lifespan` is an async context manager for the application it is mounted in, which otherwise
    may do without: the server then starts with the first request.
    """

    def __init__(
        self,
        server: Serving,
        *,
        path: str = "/mcp",
        sse_path: str | None = "/sse",
        message_path: str = "/messages",
        allow_hosts: Iterable[str] = (),
        allow_origins: Iterable[str] = (),
        identify: Identify | None = None,
        events: EventLog | None = None,
        sessions: SessionStore | None = None,
        limits: HttpLimits | None = None,
    ) -> None:
        for name, value in (("path", path), ("sse_path", sse_path), ("message_path", message_path)):
            if value is not None and (not value.startswith("/") or "?" in value or "#" in value):
                raise Misconfigured(f"{name}={value!r} is not a path: it begins with a slash")
        self.server = server
        self.path, self.sse_path, self.message_path = path, sse_path, message_path
        self.guard = Guard(allow_hosts, allow_origins)
        self.limits = limits or HttpLimits()
        self.events: EventLog = events or MemoryEventLog(self.limits)
        self.store = sessions
        self._restoring: dict[bytes, asyncio.Task[_Session | None]] = {}
        self._identify = identify
        self._tick_s = min(TICK_S, self.limits.long_wait_s)
        self._sweep_s = min(SWEEP_S, self.limits.idle_s)
        # Streams that were read to their end: since when, session, name.
        self._done: deque[tuple[float, str, str]] = deque()
        # Those that were used longest ago come first.
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._listeners: dict[bytes, _Session] = {}
        self._waiting: dict[Reply, float] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._life: AsyncExitStack | None = None
        # One for all sessions: they live in one loop.
        self._clock: Clock | None = None
        self._starting: asyncio.Task[None] | None = None
        self._busy = 0
        self._is_hurried = False
        # Bound once, for all of them.
        self._when_ended = self._link_ended
        self._is_leaving = False
        self._is_draining = False
        self._quiet: asyncio.Future[None] | None = None
        self._routes = {path: self._mcp, path.rstrip("/") + "/": self._mcp}
        if sse_path is not None:
            self._routes[sse_path] = self._listen
            self._routes[message_path] = self._message

    # --- as an application --------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI server."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except BaseException as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start and stop with the application this one is mounted in: `FastAPI(lifespan=...)`."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def start(self) -> None:
        """Begin the server's own lifespan; what the first request would do otherwise."""
        if self._life is not None:
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        starting = self._starting
        try:
            await asyncio.shield(starting)
        finally:
            if starting.done() and self._starting is starting:
                self._starting = None

    async def _start(self) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.server.living())
            self._is_leaving = self._is_draining = False
            self._life = stack.pop_all()

    def begin_to_leave(self) -> None:
        """Have each answer from now on close its connection: the next one leads elsewhere."""
        self._is_leaving = True

    async def drain(self) -> None:
        """Take no new work, end idle streams, and let calls finish for at most `drain_s`."""
        self._is_leaving = self._is_draining = True
        for session in list(self._sessions.values()):
            link = session.link
            if isinstance(link, StreamableLink) and link.general is not None:
                link.hang_up(link.general)
        loop = asyncio.get_running_loop()
        until = loop.time() + self.limits.drain_s
        self._quiet = loop.create_future()
        while self._busy and not self._is_hurried and (left_s := until - loop.time()) > 0:
            # These streams end with their last answer, and only we know when that was.
            for session in list(self._listeners.values()):
                if not session.driver.engine.exchanges:
                    self._end_soon(session)
            await asyncio.wait([self._quiet], timeout=min(left_s, TICK_S))
        self._quiet = None

    def hurry(self) -> None:
        """Whoever drains shall not wait any longer."""
        self._is_hurried = True
        if self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    async def end_sessions(self) -> None:
        """End every session, whatever is under way; those that are kept go on elsewhere."""
        for timer in (self._tick, self._sweep):
            if timer is not None:
                timer.cancel()
        self._tick = self._sweep = None
        if self.store is not None:
            await self._keep_all()
        for session in [*self._sessions.values(), *self._listeners.values()]:
            self._end_soon(session, is_kept=self.store is not None)
        while self._ending:
            await asyncio.wait(list(self._ending))

    async def stop(self) -> None:
        """Drain, end every session, then the server's lifespan."""
        await self.drain()
        await self.end_sessions()
        await self.events.flush()
        life, self._life = self._life, None
        if life is not None:
            await life.aclose()

    # --- one request --------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        headers = dict(raw)
        origin = headers.get(b"origin")
        fault = self._fault(raw, headers, origin)
        if fault is not None:
            await _refuse(send, *fault)
            return
        if origin is not None:
            send = _with_cors(send, origin)
            if scope["method"] == "OPTIONS":
                await _plain(send, 204, _PREFLIGHT)
                return
        route = self._routes.get(_route_path(scope))
        if route is None:
            await _refuse(send, 404, f"there is nothing here; this server is at {self.path}")
            return
        if self._is_leaving:
            # Those who are here are served to the end, and find another process next time.
            send = _with_headers(send, [(b"connection", b"close")])
        principal = ANYONE
        if self._identify is not None:
            found = self._identify(scope)
            who = await found if inspect.isawaitable(found) else found
            if who is None:
                challenge = (b"www-authenticate", b"Bearer")
                await _refuse(send, 401, "who are you? Send an Authorization header", challenge)
                return
            principal = who
        if self._life is None:
            await self.start()
        self._busy += 1
        try:
            await route(scope, receive, send, headers, principal)
        finally:
            self._busy -= 1
            if self._quiet is not None and not self._busy and not self._quiet.done():
                self._quiet.set_result(None)

    def _fault(
        self, raw: list[tuple[bytes, bytes]], headers: dict[bytes, bytes], origin: bytes | None
    ) -> tuple[int, str] | None:
        """Why a request is not even looked at."""
        if len(headers) != len(raw):
            names = [name for name, _ in raw]
            for name in _ONCE:
                if names.count(name) > 1:
                    return 400, f"the header {name.decode()} came more than once"
        if sum(map(len, headers)) + sum(map(len, headers.values())) > self.limits.max_header_bytes:
            return 431, f"headers are limited to {self.limits.max_header_bytes} bytes"
        guard = self.guard
        host = headers.get(b"host", b"")
        if not guard.allows_host(host):
            asked = host.decode("latin-1")[:128]
            return 403, f"the host {asked!r} is not served here: allow_hosts does not name it"
        if origin is not None and not guard.allows_origin(origin):
            asked = origin.decode("latin-1")[:128]
            return 403, f"the origin {asked!r} may not be served: allow_origins does not name it"
        return None

    async def _body(
        self, receive: Receive, send: Send, headers: dict[bytes, bytes]
    ) -> bytes | None:
        """The whole body; None when it was refused or the client left."""
        limit = self.limits.max_body_bytes
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            await _refuse(send, 413, f"a body is limited to {limit} bytes")
            return None
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            parts = [body]
            size = len(body)
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                if size > limit:
                    await _refuse(send, 413, f"a body is limited to {limit} bytes")
                    return None
                if not message.get("more_body", False):
                    break
            body = b"".join(parts)
        if len(body) > limit:
            await _refuse(send, 413, f"a body is limited to {limit} bytes")
            return None
        return body

    # --- Streamable HTTP ----------------------------------------------------------------------------

    async def _mcp(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
    ) -> None:
        method = scope["method"]
        if method == "POST":
            await self._post(scope, receive, send, headers, principal)
        elif method == "GET":
            await self._get(receive, send, headers, principal)
        elif method == "DELETE":
            await self._delete(send, headers, principal)
        else:
            allow = (b"allow", b"GET, POST, DELETE, OPTIONS")
            await _refuse(send, 405, f"{method} is not a method of this endpoint", allow)

    async def _post(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
    ) -> None:
        accept = headers.get(b"accept")
        if not (rules.accepts(accept, rules.JSON) and rules.accepts(accept, rules.SSE)):
            text = "the Accept header must list application/json and text/event-stream"
            await _refuse(send, 406, text)
            return
        if not rules.is_json(headers.get(b"content-type")):
            await _refuse(send, 415, "the Content-Type must be application/json")
            return
        body = await self._body(receive, send, headers)
        if body is None:
            return
        ident = headers.get(SESSION)
        is_new = ident is None
        if is_new:
            session = await self._open(send, headers, principal, body)
        else:
            session = await self._find(send, headers, principal)
        if session is None:
            return
        link = session.link
        assert isinstance(link, StreamableLink)
        if link.is_paused:
            await link.until_readable()
        if len(link.replies) + len(link.streams) >= self.limits.max_waiting and (
            # What cancels, or answers a question, makes the number smaller.
            rules.holds_request(body)
        ):
            await _refuse(send, 429, "too many requests of this session wait for an answer")
            return
        reply = Reply(link)
        link.receive(body, Seen(principal, Headers(scope["headers"]), reply))
        if reply.open and reply.stream is None:
            await self._wait(link, reply)
        if is_new:
            await self._welcome(send, session, reply)
            return
        if self.store is not None and _state(session) != session.saved[:2]:
            await self._keep(session)
        if reply.stream is not None:
            await self._stream(receive, send, reply.stream, may_have_left=reply.is_late)
        elif reply.frame is not None:
            await _json(send, 400 if reply.is_unreadable else 200, reply.frame)
        elif link.is_over:
            # It may have run: neither a client nor a proxy should take this for "not found".
            await _refuse(send, 500, "the session ended before the answer came")
        elif reply.is_over:
            # Cancelled: there is no answer, but HTTP needs one, and clients expect JSON or a stream.
            await _plain(send, 200, _SSE_HEADERS)
        else:
            await _plain(send, 202)

    async def _wait(self, link: StreamableLink, reply: Reply) -> None:
        """Until there is an answer, or a stream for it."""
        loop = link.loop
        reply.waiter = loop.create_future()
        link.replies[reply] = None
        self._waiting[reply] = loop.time()
        if self._tick is None:
            self._tick = loop.call_later(self._tick_s, self._look_at_waiting)
        try:
            await reply.waiter
        except asyncio.CancelledError:
            link.lose(reply, "the connection was closed")
            raise
        finally:
            reply.waiter = None
            del self._waiting[reply]
            link.replies.pop(reply, None)

    def _look_at_waiting(self) -> None:
        """Answers that take long become streams."""
        self._tick = None
        loop = asyncio.get_running_loop()
        before = loop.time() - self.limits.long_wait_s
        for reply, since in list(self._waiting.items()):
            if since > before:
                break
            if reply.stream is None and not reply.is_over:
                reply.is_late = True
                reply.link.open_stream(reply)
        if self._waiting:
            self._tick = loop.call_later(self._tick_s, self._look_at_waiting)

    async def _stream(
        self,
        receive: Receive,
        send: Send,
        stream: Stream,
        first: bytes = b"",
        *,
        may_have_left: bool = False,
    ) -> None:
        """Write a stream until it is over, the reader leaves, or another takes its place."""
        link = stream.link
        reader = stream.reader
        leaving: asyncio.Task[None] | None = None
        has_left = False
        patience: asyncio.TimerHandle | None = None
        try:
            if may_have_left:
                # Whoever left before there was a stream has nothing to come back by.
                leaving = _watch(receive, stream)
                await asyncio.sleep(0)
                if leaving.done():
                    self._lose(stream)
                    return
            await send({"type": "http.response.start", "status": 200, "headers": _SSE_HEADERS})
            if first:
                await send({"type": "http.response.body", "body": first, "more_body": True})
            while stream.reader is reader and reader is not None:
                chunk = stream.take()
                is_last = stream.is_over or stream.is_leaving
                if chunk or is_last:
                    body = {"type": "http.response.body", "body": chunk, "more_body": not is_last}
                    async with asyncio.timeout(self.limits.write_s):
                        await send(body)
                if is_last:
                    if stream.is_over:
                        self._done.append((link.loop.time(), link.session, stream.name))
                    return
                if leaving is not None and leaving.done():
                    has_left = True
                    break
                if reader.done():
                    reader = stream.reader = link.loop.create_future()
                    if stream.pending or stream.is_over or stream.is_leaving:
                        continue
                if leaving is None:
                    leaving = _watch(receive, stream)
                patience = link.loop.call_later(self.limits.keep_alive_s, stream.say, b": \n\n")
                await reader
                patience.cancel()
            if has_left:
                if stream.number < 0:
                    self._lose(stream)
            else:
                # Another connection reads it now, or this one was too slow.
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("a client took nothing for %g s and was given up", self.limits.write_s)
        finally:
            if patience is not None:
                patience.cancel()
            if leaving is not None:
                leaving.cancel()
                with suppress(asyncio.CancelledError):
                    await leaving
            if stream.reader is reader:
                stream.leave()

    def _lose(self, stream: Stream) -> None:
        """Nobody can come back for a stream that never gave an id."""
        if stream.reply is not None:
            stream.link.lose(stream.reply, "the client left, and cannot come back for the answer")

    async def _open(
        self, send: Send, headers: dict[bytes, bytes], principal: Principal, body: bytes
    ) -> _Session | None:
        """A new session for a body that asks for one."""
        if not rules.is_initialize(body):
            version = headers.get(VERSION)
            if version is not None and version not in _WIRES:
                await self._refuse_version(send, version)
                return None
            text = "no session: the first request is initialize, all others need Mcp-Session-Id"
            await _refuse(send, 400, text)
            return None
        if self._is_draining:
            await _refuse(send, 503, "the server is being stopped", (b"retry-after", b"1"))
            return None
        if len(self._sessions) >= self.limits.max_sessions and not self._evict():
            await _refuse(send, 503, "too many sessions are open", (b"retry-after", b"30"))
            return None
        ident = os.urandom(ID_BYTES).hex()
        link = StreamableLink(ident, principal, self.events, self.limits)
        return _Session(link, self.server.attach(link, clock=self._the_clock()))

    async def _welcome(self, send: Send, session: _Session, reply: Reply) -> None:
        """Answer an initialize; only one that succeeded leaves a session behind."""
        link = session.link
        assert isinstance(link, StreamableLink)
        if session.driver.engine.has_agreed and reply.frame is not None:
            ident = link.session.encode()
            self._sessions[ident] = session
            self._use(ident, session)
            if self.store is not None:
                await self._keep(session)
            link.on_end = self._when_ended
            await _json(send, 200, reply.frame, (SESSION, ident))
            return
        await self.server.detach(session.driver)
        if reply.frame is None:
            await _refuse(send, 400, "initialize got no answer")
        else:
            await _json(send, 400, reply.frame)

    async def _find(
        self, send: Send, headers: dict[bytes, bytes], principal: Principal
    ) -> _Session | None:
        """The session a request belongs to, if it may use it."""
        ident = headers[SESSION]
        session = self._sessions.get(ident)
        if session is None and self.store is not None:
            try:
                session = await self._restore(ident, principal)
            except Exception:
                log.exception("a session could not be looked up")
                retry = (b"retry-after", b"1")
                await _refuse(send, 503, "sessions cannot be looked up just now", retry)
                return None
        if session is None or (
            session.link.owner is not principal and session.link.owner != principal
        ):
            # The same words for both: whether an id exists is its owner's business.
            text = "no such session, or it has ended: send initialize to begin a new one"
            await _refuse(send, 404, text)
            return None
        version = headers.get(VERSION)
        if version is not None and version not in _WIRES:
            await self._refuse_version(send, version)
            return None
        self._use(ident, session)
        return session

    async def _refuse_version(self, send: Send, version: bytes) -> None:
        supported = [dialect.wire for dialect in HANDSHAKE]
        asked = version.decode("latin-1")[:64]
        text = f"MCP-Protocol-Version {asked!r} is not one of {', '.join(supported)}"
        data = {"supported": supported, "requested": asked}
        await _json(send, 400, rules.refusal(-32022, text, data))

    async def _get(
        self,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
    ) -> None:
        if not rules.accepts(headers.get(b"accept"), rules.SSE):
            await _refuse(send, 406, "the Accept header must list text/event-stream")
            return
        if SESSION not in headers:
            await _refuse(send, 400, "a GET needs the Mcp-Session-Id that initialize answered with")
            return
        session = await self._find(send, headers, principal)
        if session is None:
            return
        link = session.link
        assert isinstance(link, StreamableLink)
        if link.connected >= self.limits.max_streams:
            await _refuse(send, 429, f"a session has at most {self.limits.max_streams} streams")
            return
        last = headers.get(LAST_EVENT)
        place = None if last is None else rules.split_event_id(last)
        if last is not None and place is None:
            await _refuse(send, 400, "Last-Event-ID is no id that this server gave")
            return
        stream, missed = await self._resume(link, place)
        if stream is None:
            # It was answered to its end, or nothing is known of it: what there is, and no more.
            await send({"type": "http.response.start", "status": 200, "headers": _SSE_HEADERS})
            await send({"type": "http.response.body", "body": missed, "more_body": False})
            return
        if self._is_draining and stream is link.general:
            # What it missed, and no more: nobody waits here for what may come.
            link.hang_up(stream)
        try:
            await self._stream(receive, send, stream, missed)
        finally:
            self._use(headers[SESSION], session)

    async def _resume(
        self, link: StreamableLink, place: tuple[str, int] | None
    ) -> tuple[Stream | None, bytes]:
        """The stream to go on with, joined, and what its reader has missed, as events."""
        own = link.own_stream()
        name, after = (own.name, link.read_up_to) if place is None else place
        stream = link.streams.get(name)
        if stream is None and name.endswith("0") and not name.startswith(link.prefix):
            # The session's own stream, from before a restart: it goes on under a new name.
            stream = own
        up_to = -1
        if stream is not None:
            # First of all, so that what is said from now on waits for this connection.
            up_to = stream.number
            stream.join()
            if stream is own and link.primes_streams:
                stream.put(b"")
        kept = await self.events.replay(link.session, name, after)
        missed = [
            encode_event(f"{name}-{number}", frame)
            for number, frame in kept or ()
            if frame and (stream is None or stream.name != name or number <= up_to)
        ]
        return stream, b"".join(missed)

    async def _delete(self, send: Send, headers: dict[bytes, bytes], principal: Principal) -> None:
        if SESSION not in headers:
            await _refuse(send, 400, "a DELETE needs the Mcp-Session-Id of what is to end")
            return
        session = await self._find(send, headers, principal)
        if session is None:
            return
        await self._end(session)
        await _plain(send, 204)

    # --- HTTP+SSE -----------------------------------------------------------------------------------

    async def _listen(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
    ) -> None:
        if scope["method"] != "GET":
            # A client that tries the newer transport first learns here that it is the other one.
            allow = (b"allow", b"GET, OPTIONS")
            await _refuse(send, 405, "this is an event stream: GET it", allow)
            return
        if not rules.accepts(headers.get(b"accept"), rules.SSE):
            await _refuse(send, 406, "the Accept header must list text/event-stream")
            return
        if self._is_draining:
            await _refuse(send, 503, "the server is being stopped", (b"retry-after", b"1"))
            return
        if len(self._listeners) >= self.limits.max_sessions:
            await _refuse(send, 503, "too many streams are open", (b"retry-after", b"30"))
            return
        ident = os.urandom(ID_BYTES).hex()
        link = SseLink(ident, principal, self.limits.max_unread_bytes)
        session = _Session(link, self.server.attach(link))
        self._listeners[ident.encode()] = session
        target = f"{scope.get('root_path', '').rstrip('/')}{self.message_path}?session_id={ident}"
        leaving: asyncio.Task[None] | None = None
        patience: asyncio.TimerHandle | None = None
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _SSE_HEADERS})
            first = b"event: endpoint\ndata: %s\n\n" % target.encode()
            await send({"type": "http.response.body", "body": first, "more_body": True})
            leaving = asyncio.ensure_future(_disconnected(receive))
            leaving.add_done_callback(lambda _: link.end(None))
            while True:
                chunk = link.take()
                is_last = link.is_over
                await send({"type": "http.response.body", "body": chunk, "more_body": not is_last})
                if is_last:
                    return
                if not link.pending and not link.is_over:
                    link.reader = link.loop.create_future()
                    patience = link.loop.call_later(self.limits.keep_alive_s, _breathe, link)
                    await link.reader
                    patience.cancel()
        finally:
            if patience is not None:
                patience.cancel()
            if leaving is not None:
                leaving.cancel()
            await self._end(session)

    async def _message(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
    ) -> None:
        if scope["method"] != "POST":
            allow = (b"allow", b"POST, OPTIONS")
            await _refuse(send, 405, "messages are posted here", allow)
            return
        if not rules.is_json(headers.get(b"content-type")):
            await _refuse(send, 415, "the Content-Type must be application/json")
            return
        session = self._listeners.get(_session_in(scope.get("query_string", b"")))
        if session is None or session.link.owner != principal:
            await _refuse(send, 404, "no such session, or its event stream has ended")
            return
        body = await self._body(receive, send, headers)
        if body is None:
            return
        link = session.link
        assert isinstance(link, SseLink)
        if link.is_paused:
            await link.until_readable()
        if link.is_over:
            await _refuse(send, 404, "no such session, or its event stream has ended")
            return
        delivery = Delivery()
        link.receive(body, Seen(principal, Headers(scope["headers"]), delivery))
        if delivery.is_unreadable:
            await _refuse(send, 400, "the body is no message that can be read; see the stream")
        else:
            await _plain(send, 202)

    # --- the life of sessions -----------------------------------------------------------------------

    def _use(self, ident: bytes, session: _Session) -> None:
        session.used_at = session.link.loop.time()
        if ident in self._sessions:
            self._sessions.move_to_end(ident)
        if self._sweep is None:
            self._sweep = session.link.loop.call_later(self._sweep_s, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """End the sessions that nobody has used for long."""
        self._sweep = None
        loop = asyncio.get_running_loop()
        done = self._done
        while done and done[0][0] < loop.time() - DONE_S:
            _, name, stream = done.popleft()
            self.events.forget(name, stream)
        before = loop.time() - self.limits.idle_s
        for ident, session in list(self._sessions.items()):
            if session.used_at > before:
                break
            if session.link.is_idle:  # type: ignore[union-attr]
                log.info("a session ended that nobody used for %g s", self.limits.idle_s)
                self._end_soon(session)
            else:
                session.used_at = loop.time()
                self._sessions.move_to_end(ident)
        if self.store is not None and self._sessions:
            keeping = asyncio.ensure_future(self._keep_all())
            self._ending.add(keeping)
            keeping.add_done_callback(self._ending.discard)
        if self._sessions:
            self._sweep = loop.call_later(self._sweep_s, self._sweep_idle)

    def _evict(self) -> bool:
        """Make room: end the session that was unused for longest. False when all are in use."""
        for session in self._sessions.values():
            if session.link.is_idle:  # type: ignore[union-attr]
                log.warning("over %d sessions: the idlest was ended", self.limits.max_sessions)
                self._end_soon(session)
                return True
        return False

    def _forget(self, session: _Session, *, is_kept: bool = False) -> bool:
        """Let go of a session; True when it is to be deleted where it is kept as well."""
        ident = session.link.session
        self._listeners.pop(ident.encode(), None)
        if self._sessions.pop(ident.encode(), None) is None or is_kept:
            return False
        self.events.forget(ident)
        return self.store is not None

    def _link_ended(self, link: StreamableLink) -> None:
        session = self._sessions.get(link.session.encode())
        if session is not None:
            self._end_soon(session)

    def _end_soon(self, session: _Session, *, is_kept: bool = False) -> None:
        is_deleted = self._forget(session, is_kept=is_kept)
        ending = asyncio.ensure_future(self._detach(session, is_deleted=is_deleted))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, session: _Session) -> None:
        await self._detach(session, is_deleted=self._forget(session))

    async def _detach(self, session: _Session, *, is_deleted: bool) -> None:
        await self.server.detach(session.driver)
        if is_deleted and self.store is not None:
            try:
                await self.store.delete(session.link.session)
            except Exception:
                log.exception("a session that has ended could not be deleted where it is kept")

    # --- sessions that outlive this process ---------------------------------------------------------

    async def _keep(self, session: _Session) -> None:
        """Write down what another process needs to go on with a session."""
        assert self.store is not None
        engine = session.driver.engine
        assert engine.peer is not None
        link = session.link
        record = SessionRecord(
            id=link.session,
            owner=link.owner.name,
            issuer=link.owner.issuer,
            revision=engine.dialect.wire,
            client_info=msgspec.to_builtins(engine.peer),
            client_capabilities=msgspec.to_builtins(engine.peer_capabilities),
            log_level=engine.log_level,
            subscriptions=tuple(engine.subscriptions),
            used_at=time.time() - (link.loop.time() - session.used_at),
        )
        session.saved = (*_state(session), session.used_at)
        try:
            await self.store.save(record)
        except Exception:
            # It goes on here; only a restart would lose it.
            log.exception("a session could not be kept")

    async def _keep_all(self) -> None:
        for session in list(self._sessions.values()):
            if (*_state(session), session.used_at) != session.saved:
                await self._keep(session)

    async def _restore(self, ident: bytes, principal: Principal) -> _Session | None:
        """A session that another process began; one task for all who ask at once."""
        restoring = self._restoring.get(ident)
        if restoring is None:
            restoring = asyncio.ensure_future(self._load(ident, principal))
            self._restoring[ident] = restoring
            restoring.add_done_callback(lambda _: self._restoring.pop(ident, None))
        return await asyncio.shield(restoring)

    async def _load(self, ident: bytes, principal: Principal) -> _Session | None:
        assert self.store is not None
        name = ident.decode("latin-1")
        record = await self.store.load(name)
        if record is None or (record.owner, record.issuer) != (principal.name, principal.issuer):
            return None
        dialect = next((one for one in HANDSHAKE if one.wire == record.revision), None)
        idle_s = time.time() - record.used_at
        if dialect is None or idle_s > self.limits.idle_s:
            return None
        info = msgspec.convert(record.client_info, Implementation)
        capabilities = msgspec.convert(record.client_capabilities, ClientCapabilities)
        link = StreamableLink(name, principal, self.events, self.limits)
        driver = self.server.attach(
            link,
            clock=self._the_clock(),
            resume=lambda engine: engine.resume(
                info,
                capabilities,
                dialect,
                log_level=record.log_level,
                subscriptions=record.subscriptions,
            ),
        )
        session = _Session(link, driver)
        session.saved = (*_state(session), 0.0)
        self._sessions[ident] = session
        link.on_end = self._when_ended
        # What we offer may be other than what it was: the client had better look.
        for kind in ("tools", "resources", "prompts"):
            method = f"notifications/{kind}/list_changed"
            if driver.engine.may_send(method):
                driver.notify(method, NoParams())
        return session

    def _the_clock(self) -> Clock:
        if self._clock is None:
            self._clock = LoopClock()
        return self._clock

    @property
    def sessions(self) -> int:
        """How many sessions are open, of both transports."""
        return len(self._sessions) + len(self._listeners)


def _state(session: _Session) -> tuple[int, int]:
    engine = session.driver.engine
    return engine.log_level, engine.subscriptions.changes


# Headers that decide something: two of them, and two readers could disagree.
_ONCE = (b"host", b"origin", SESSION, VERSION, b"content-type", b"content-length", LAST_EVENT)

_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (
        b"access-control-allow-headers",
        b"authorization, content-type, last-event-id, mcp-protocol-version, mcp-session-id",
    ),
    (b"access-control-max-age", b"600"),
]


def _with_cors(send: Send, origin: bytes) -> Send:
    """Let a page of an allowed origin read the answer."""

    return _with_headers(
        send,
        [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"mcp-session-id, www-authenticate"),
            (b"vary", b"origin"),
        ],
    )


def _with_headers(send: Send, extra: list[tuple[bytes, bytes]]) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return sending


def _breathe(link: SseLink) -> None:
    link.pending.append(b": \n\n")
    link.wake()


def _watch(receive: Receive, stream: Stream) -> asyncio.Task[None]:
    """Ends, and wakes the stream, when the client leaves."""
    leaving = asyncio.ensure_future(_disconnected(receive))
    leaving.add_done_callback(lambda _: stream.wake())
    return leaving


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _route_path(scope: Scope) -> str:
    """The path below whatever this application is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root):
        rest = path[len(root) :]
        if not rest or rest.startswith("/"):
            return rest or "/"
    return path or "/"


def _session_in(query: bytes) -> bytes:
    for pair in query[:MAX_QUERY_BYTES].split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"session_id":
            return value
    return b""


async def _json(send: Send, status: int, body: bytes, *extra: tuple[bytes, bytes]) -> None:
    headers = [
        (b"content-type", rules.JSON),
        (b"content-length", b"%d" % len(body)),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _plain(send: Send, status: int, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    length = [] if status == 204 else [_EMPTY]
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*length, *(headers or ())],
        }
    )
    await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Send, status: int, text: str, *extra: tuple[bytes, bytes]) -> None:
    await _json(send, status, rules.refusal(-32600, text), *extra)
