"""A server as an ASGI application: both HTTP transports at once, every revision on each.

    app = server.asgi()                      # uvicorn module:app, or mounted in another app

One POST passes through `AsgiApp.__call__`, the driver and its engine (`Driver.take_in`), the handler
(`Server.handle_request`), and back through `StreamableLink.send`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from dragoman.errors import Misconfigured
from dragoman.jsonrpc.frame import Principal, Seen
from dragoman.revisions.registry import HANDSHAKE
from dragoman.runtime.driver import Driver
from dragoman.server.http_io import (
    JSON_HEADER,
    PIECE_BYTES,
    Header,
    Headers,
    HttpRefusal,
    Receive,
    Scope,
    Send,
    answer,
    answer_json,
    read_body,
    route_path,
    start_stream,
    with_headers,
    write,
)
from dragoman.server.http_sessions import ID_BYTES, ORDER_S, Serving, Session, Sessions
from dragoman.server.http_streams import DONE_S, Writing, resume, write_old_stream, write_stream
from dragoman.transport.http.guard import Guard
from dragoman.transport.http_sse.server import Post, SseLink
from dragoman.transport.streamable import rules
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import EventLog, MemoryEventLog
from dragoman.transport.streamable.server import Reply
from dragoman.transport.streamable.sessions import SessionStore

__all__ = ["AsgiApp", "Identify"]

log = logging.getLogger("dragoman.server")

Identify = Callable[[Scope], "Principal | Awaitable[Principal | None] | None"]
"""Says who makes a request, by its ASGI scope; None for nobody who may."""

ANYONE = Principal("anyone", issuer="http")

LENGTH = b"content-length"
TOKEN = b"authorization"
SESSION = b"mcp-session-id"
VERSION = b"mcp-protocol-version"
LAST_EVENT = b"last-event-id"

_WIRES = frozenset(dialect.wire.encode() for dialect in HANDSHAKE)

# How often waiting answers are looked at, in seconds; they may become streams that much later.
TICK_S = 0.5

# A client that posts says at most this much of itself in a query string.
MAX_QUERY_BYTES = 4096

# Clients of one kind send the same headers; 256 kinds are remembered as good.
MAX_REMEMBERED = 256

# 4 KiB: four times what clients behind a proxy send. With more, 10,000 sessions could hold 32 KiB
# each; whoever sends so much is looked at each time.
MAX_REMEMBERED_BYTES = 4096

# Headers that decide something: two of them, and two readers could disagree.
_ONCE = (b"host", b"origin", SESSION, VERSION, b"content-type", b"content-length", LAST_EVENT)

# What each POST of a session has of its own, or has checked in another way.
_OWN = (LENGTH, SESSION, TOKEN)

# The digits of any length.
LENGTH_DIGITS = 20

# Whoever sends one of these is looked at each time: pages, which are answered in another way, and
# those who show a secret that would be kept.
_UNUSUAL = frozenset((b"origin", b"content-encoding", b"cookie", b"x-api-key"))

_PREFLIGHT: tuple[Header, ...] = (
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (
        b"access-control-allow-headers",
        b"authorization, content-type, last-event-id, mcp-protocol-version, mcp-session-id",
    ),
    (b"access-control-max-age", b"600"),
)

Route = Callable[[Scope, Receive, Send, dict[bytes, bytes], Principal], Awaitable[None]]


class _Listener:
    """One client of HTTP+SSE."""

    __slots__ = ("driver", "link")

    def __init__(self, link: SseLink, driver: Driver) -> None:
        self.link = link
        self.driver = driver


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
        if sse_path is not None:
            paths = {one.rstrip("/") for one in (path, sse_path, message_path)}
            if len(paths) < len((path, sse_path, message_path)):
                raise Misconfigured("path=, sse_path= and message_path= must differ")
        self.server = server
        self.path, self.sse_path, self.message_path = path, sse_path, message_path
        self.guard = Guard(allow_hosts, allow_origins)
        self.limits = limits or HttpLimits()
        self.events: EventLog = events or MemoryEventLog(self.limits)
        self._identify = identify
        self._sessions = Sessions(server, self.limits, self.events, sessions)
        self._sessions.on_sweep = self._forget_done
        self._listeners: dict[bytes, _Listener] = {}
        # Replies that wait for an answer, and since when.
        self._waiting: dict[Reply, float] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._tick_s = min(TICK_S, self.limits.long_wait_s)
        # Streams that were read to their end: since when, session, name.
        self._done: deque[tuple[float, str, str]] = deque()
        self._max_header_bytes = self.limits.max_header_bytes
        # Host and Origin that were found good; the guard alone knows what they mean.
        self._callers: set[tuple[bytes, bytes | None]] = set()
        # Accept and Content-Type of POSTs that were found good.
        self._good: set[tuple[bytes | None, bytes | None]] = set()
        # All headers of a kind of client, but for its own; sessions share them.
        self._kinds: dict[tuple[Header, ...], dict[bytes, bytes]] = {}
        self._life: AsyncExitStack | None = None
        self._starting: asyncio.Task[None] | None = None
        self._busy = 0
        self._is_leaving = False
        self._is_draining = False
        self._is_ending = False
        self._is_hurried = False
        # How often it was stopped.
        self._stops = 0
        self._quiet: asyncio.Future[None] | None = None
        self._endpoint: Route = self._mcp
        self._routes: dict[str, Route] = {
            path: self._endpoint,
            path.rstrip("/") + "/": self._endpoint,
        }
        if sse_path is not None:
            self._routes[sse_path] = self._listen
            self._routes[message_path] = self._message

    @property
    def sessions(self) -> int:
        """How many sessions are open, of both transports."""
        return len(self._sessions) + len(self._listeners)

    # --- as an application --------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of the ASGI server."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        raw: list[Header] = scope["headers"]
        usual = dict(raw)
        is_repeated = len(usual) != len(raw)
        length, token = usual.pop(LENGTH, b""), usual.pop(TOKEN, b"")
        sessions, limits = self._sessions, self.limits
        session = sessions.known.get(usual.pop(SESSION, b""))
        is_known = True
        if (
            session is None
            # The same client says the same of itself as before, when it was looked at.
            or usual != session.usual
            or len(token) > session.spare_bytes
            or scope["path"] != session.path
            or scope["method"] != "POST"
            or is_repeated
            or self._is_leaving
        ):
            is_known = False
            found = await self._look_closer(scope, receive, send)
            if found is None:
                return
            session, send = found
        link = session.link
        self._busy += 1
        try:
            if self._identify is not None and is_known:
                # Who it is has to be shown each time.
                principal = await self._principal(scope)
                if link.owner is not principal:
                    await sessions.find(link.session.encode(), principal)
            now = link.loop.time()
            if now - session.placed_at > ORDER_S:
                if sessions.store is not None:
                    session = await sessions.look_again(session, link.owner)
                    link = session.link
                    # The store may have taken its time.
                    now = link.loop.time()
                sessions.use(session)
            session.used_at = now
            given = read_body(receive, length, limits.max_body_bytes, limits.body_s)
            if type(given) is bytes:
                body = given
            else:
                rest_of_it = await given  # type: ignore[misc]
                if rest_of_it is None:
                    return
                body = rest_of_it
                now = link.loop.time()
            if link.is_paused:
                await link.until_readable()
                now = link.loop.time()
            if link.is_over and sessions.store is not None and not session.is_over:
                # It moved while the body came: it may be back, or go on elsewhere.
                session = await sessions.find(link.session.encode(), link.owner)
                link = session.link
                now = link.loop.time()
            if link.is_over:
                text = "the session has ended: send initialize to begin a new one"
                raise HttpRefusal(404, text)
            if (link.replies or link.streams) and (
                len(link.replies) + len(link.streams) >= limits.max_waiting
                # What cancels, or answers a question, makes the number smaller.
                and rules.holds_request(body)
            ):
                raise HttpRefusal(429, "too many requests of this session wait for an answer")
            reply = Reply(link)
            rest = session.driver.take_in(body, Seen(link.owner, Headers(raw), reply), now)
            frame = reply.frame
            if rest is not None or frame is None or reply.stream or len(frame) > PIECE_BYTES:
                if rest is not None or reply.open or reply.stream is not None:
                    await self._wait(receive, send, session, reply, rest)
                if sessions.store is not None:
                    await sessions.keep_changes(session)
                await self._answer(send, reply)
                return
            if sessions.store is not None:
                await sessions.keep_changes(session)
            # As `answer_json` does, which costs as much again.
            status = 400 if reply.is_unreadable else 200
            size = (LENGTH, b"%d" % len(frame))
            start = "http.response.start"
            await send({"type": start, "status": status, "headers": [JSON_HEADER, size]})
            await send({"type": "http.response.body", "body": frame})
        except HttpRefusal as refusal:
            await refusal.send(send)
        finally:
            self._busy -= 1
            if self._quiet is not None:
                self._look_for_quiet()

    async def _look_closer(
        self, scope: Scope, receive: Receive, send: Send
    ) -> tuple[Session, Send] | None:
        """Look at a request's headers. All is answered here but what a session POSTs: of that its
        session is returned, and how to answer."""
        try:
            raw: list[Header] = scope["headers"]
            headers = dict(raw)
            if len(headers) != len(raw):
                _check_repeated(raw, headers)
            if len(b"".join([*headers, *headers.values()])) > self._max_header_bytes:
                text = f"headers are limited to {self._max_header_bytes} bytes"
                raise HttpRefusal(431, text)
            caller = (headers.get(b"host", b""), headers.get(b"origin"))
            if caller not in self._callers:
                self._check_caller(*caller)
            route = self._routes.get(route_path(scope))
            if b"origin" in headers:
                send = _with_cors(send, headers[b"origin"])
            if scope["method"] == "OPTIONS":
                await answer(send, 204, *_PREFLIGHT)
                return None
            if route is None:
                raise HttpRefusal(404, f"there is nothing here; this server is at {self.path}")
            if self._is_leaving:
                # Those who are here are served to the end, and find another process next time.
                send = with_headers(send, (b"connection", b"close"))
            if self._is_ending:
                # Its session is being written down, for the process that it comes to next.
                raise HttpRefusal(503, "the server is being stopped", (b"retry-after", b"1"))
            self._busy += 1
            try:
                stops = self._stops
                principal = ANYONE if self._identify is None else await self._principal(scope)
                if self._stops != stops:
                    raise HttpRefusal(503, "the server was stopped", (b"retry-after", b"1"))
                if self._life is None:
                    await self.start()
                if route is not self._endpoint or scope["method"] != "POST":
                    await route(scope, receive, send, headers, principal)
                elif session := await self._post(scope, receive, send, headers, principal):
                    return session, send
            except HttpRefusal as refusal:
                await refusal.send(send)
            finally:
                self._busy -= 1
                self._look_for_quiet()
        except HttpRefusal as refusal:
            await refusal.send(send)
        return None

    def _look_for_quiet(self) -> None:
        """Tell whoever waits for it that no request is under way any more."""
        if self._quiet is not None and not self._busy and not self._quiet.done():
            self._quiet.set_result(None)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
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
            self._is_leaving = self._is_draining = self._is_ending = self._is_hurried = False
            self._sessions.begin()
            self._life = stack.pop_all()

    def begin_to_leave(self) -> None:
        """Have each connection closed after its answer: who comes back finds another process.

        Streams on which nothing is owed end now. A proxy uses their connections for what comes next,
        and has to be given the time to.
        """
        self._is_leaving = True
        for session in self._sessions.known.values():
            if session.link.general is not None:
                session.link.hang_up(session.link.general)

    async def drain(self, drain_s: float | None = None) -> bool:
        """Open no session any more, and let calls finish for at most `drain_s`.

        Returns whether there were any, and all have.
        """
        self.begin_to_leave()
        self._is_draining = True
        loop = asyncio.get_running_loop()
        until = loop.time() + (self.limits.drain_s if drain_s is None else drain_s)
        was_busy = bool(self._busy)
        self._quiet = loop.create_future()
        while self._busy and not self._is_hurried and (left_s := until - loop.time()) > 0:
            # These streams end with their last answer, and only we know when that was.
            for listener in list(self._listeners.values()):
                if not listener.driver.engine.exchanges:
                    listener.link.end(None)
            if self._quiet.done():
                # It was quiet for a moment, and somebody came.
                self._quiet = loop.create_future()
            await asyncio.wait([self._quiet], timeout=min(left_s, TICK_S))
        self._quiet = None
        return was_busy and not self._busy

    def hurry(self) -> None:
        """Whoever drains shall not wait any longer."""
        self._is_hurried = True
        if self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    async def end_sessions(self) -> None:
        """End every session, whatever is under way; those that are kept go on elsewhere."""
        self._is_ending = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        for driver in (
            *(listener.driver for listener in self._listeners.values()),
            *(session.driver for session in self._sessions.known.values()),
        ):
            driver.refuse_all("the server was stopped before it had the answer")
        for listener in list(self._listeners.values()):
            await self.server.detach(listener.driver)
        await self._sessions.end_all()

    async def stop(self) -> None:
        """Drain, end every session, then the server's lifespan."""
        if not self._is_ending:
            await self.drain()
        await self.end_sessions()
        await self.events.flush()
        self._stops += 1
        life, self._life = self._life, None
        # It may be started again, in another loop.
        self._sessions.forget_loop()
        self._is_ending = False
        if life is not None:
            await life.aclose()

    # --- one request --------------------------------------------------------------------------------

    async def _principal(self, scope: Scope) -> Principal:
        assert self._identify is not None
        found = self._identify(scope)
        principal = await found if inspect.isawaitable(found) else found
        if principal is None:
            challenge = (b"www-authenticate", b"Bearer")
            raise HttpRefusal(401, "who are you? Send an Authorization header", challenge)
        return principal

    def _check_caller(self, host: bytes, origin: bytes | None) -> None:
        """Who may talk to this server at all. Raises HttpRefusal."""
        guard = self.guard
        if not guard.allows_host(host):
            asked = host.decode("latin-1")[:128]
            text = f"the host {asked!r} is not served here: allow_hosts does not name it"
            raise HttpRefusal(403, text)
        if origin is not None and not guard.allows_origin(origin):
            asked = origin.decode("latin-1")[:128]
            text = f"the origin {asked!r} may not be served: allow_origins does not name it"
            raise HttpRefusal(403, text)
        if len(self._callers) < MAX_REMEMBERED:
            self._callers.add((host, origin))

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
        if method == "GET":
            await self._get(receive, send, headers, principal)
        elif method == "DELETE":
            if SESSION not in headers:
                raise HttpRefusal(400, "a DELETE needs the Mcp-Session-Id of what is to end")
            await self._sessions.end(await self._find(headers, principal))
            await answer(send, 204)
        else:
            allow = (b"allow", b"GET, POST, DELETE, OPTIONS")
            raise HttpRefusal(405, f"{method} is not a method of this endpoint", allow)

    async def _post(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
    ) -> Session | None:
        """The session of a POST whose headers are good; None once it was a hello, and answered."""
        known = (headers.get(b"accept"), headers.get(b"content-type"))
        if known not in self._good or b"content-encoding" in headers:
            self._check_types(headers, known)
        if SESSION in headers:
            session = await self._find(headers, principal)
            self._remember(headers, session, scope["path"])
            return session
        # Of whoever begins nothing is known: neither patience nor room for much.
        limits = self.limits
        hello = read_body(receive, headers.get(LENGTH, b""), limits.max_hello_bytes, limits.body_s)
        body = hello if isinstance(hello, bytes) else await hello
        if body is not None:
            await self._hello(send, headers, principal, body, scope)
        return None

    def _remember(self, headers: dict[bytes, bytes], session: Session, path: str) -> None:
        """What a session says of itself was found good; the next time it need not be looked at."""
        if not _UNUSUAL.isdisjoint(headers):
            return
        usual = {name: value for name, value in headers.items() if name not in _OWN}
        held = sum(
            map(len, (*_OWN, *usual, *usual.values())), len(headers[SESSION]) + LENGTH_DIGITS
        )
        if held + len(path) > MAX_REMEMBERED_BYTES:
            return
        if self._identify is None:
            if len(self._kinds) >= MAX_REMEMBERED:
                self._kinds.clear()
            usual = self._kinds.setdefault(tuple(usual.items()), usual)
        # Else any of them may be what the client is known by, and ends with its session.
        session.usual = usual
        session.path = path
        session.spare_bytes = self._max_header_bytes - held

    def _check_types(
        self, headers: dict[bytes, bytes], known: tuple[bytes | None, bytes | None]
    ) -> None:
        """What a POST says of itself and of what it takes. Raises HttpRefusal."""
        accept, kind = known
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            accepted = (b"accept-encoding", b"identity")
            raise HttpRefusal(415, "a body is taken as it is: send no Content-Encoding", accepted)
        if not (rules.accepts(accept, rules.JSON) and rules.accepts(accept, rules.SSE)):
            text = "the Accept header must list application/json and text/event-stream"
            raise HttpRefusal(406, text)
        if not rules.is_json(kind):
            raise HttpRefusal(415, "the Content-Type must be application/json")
        if len(self._good) < MAX_REMEMBERED:
            self._good.add(known)

    async def _wait(
        self,
        receive: Receive,
        send: Send,
        session: Session,
        reply: Reply,
        rest: Coroutine[Any, Any, None] | None,
    ) -> None:
        """Until all that a POST asked is answered, or over: the `rest` of the handler of a single
        request runs here, those of a batch in tasks of the driver."""
        link = session.link
        loop = link.loop
        writing = Writing(receive, send, reply, self.limits)
        if reply.stream is not None and reply.stream.reader is not None:
            # The handler told something before it waited for the first time.
            writing.opened(reply.stream.reader)
        reply.on_stream = writing.opened
        link.replies[reply] = None
        self._waiting[reply] = loop.time()
        if self._tick is None:
            self._tick = loop.call_later(self._tick_s, self._look_at_waiting)
        try:
            if rest is not None:
                await rest
            elif reply.stream is None and not reply.is_over and not link.is_over:
                reply.waiter = loop.create_future()
                await reply.waiter
            if reply.stream is not None and await writing.finish():
                self._done.append((loop.time(), link.session, reply.stream.name))
        except asyncio.CancelledError:
            link.lose(reply, "the connection was closed")
            raise
        finally:
            # Nothing may hold itself: there are thousands of these a second.
            reply.waiter = reply.on_stream = None
            del self._waiting[reply]
            link.replies.pop(reply, None)
            if reply.stream is not None:
                await writing.aclose()

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

    async def _answer(self, send: Send, reply: Reply) -> None:
        """What a POST is answered with, once that is known; a stream has been written already."""
        if reply.stream is not None:
            return
        link = reply.link
        if reply.frame is not None:
            # It counts until it was taken.
            link.replies[reply] = None
            try:
                await answer_json(send, 400 if reply.is_unreadable else 200, reply.frame)
            except TimeoutError:
                log.info("a client took nothing of its answer and was given up")
            finally:
                link.replies.pop(reply, None)
        elif reply.is_unreadable:
            raise HttpRefusal(400, "the body is an answer, but not one that can be read")
        elif reply.is_over or reply.open:
            if link.is_over:
                # It may have run: neither a client nor a proxy should take this for "not found".
                raise HttpRefusal(500, "the session ended before the answer came")
            # Cancelled: there is no answer, but HTTP needs one, and clients expect JSON or a stream.
            await start_stream(send)
            await send({"type": "http.response.body", "body": b""})
        else:
            await answer(send, 202)

    async def _hello(
        self,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
        body: bytes,
        scope: Scope,
    ) -> None:
        """A new session for a body that asks for one."""
        if not rules.is_initialize(body):
            _check_version(headers)
            text = "no session: the first request is initialize, all others need Mcp-Session-Id"
            raise HttpRefusal(400, text)
        if self._is_draining:
            raise HttpRefusal(503, "the server is being stopped", (b"retry-after", b"1"))
        session = self._sessions.open(principal)
        reply = Reply(session.link)
        seen = Seen(principal, Headers(scope["headers"]), reply)
        session.driver.frames_received((body,), seen)
        if session.driver.engine.has_agreed and reply.frame is not None:
            ident = await self._sessions.admit(session)
            await answer_json(send, 200, reply.frame, (SESSION, ident))
            return
        # Only a hello that was understood leaves a session behind.
        await self.server.detach(session.driver)
        if reply.frame is None:
            raise HttpRefusal(400, "initialize is a request: it needs an id")
        await answer_json(send, 400, reply.frame)

    async def _find(self, headers: dict[bytes, bytes], principal: Principal) -> Session:
        """The session a request belongs to. Raises HttpRefusal."""
        ident = headers[SESSION]
        session = self._sessions.known.get(ident)
        if session is None or session.link.owner is not principal:
            session = await self._sessions.find(ident, principal)
        if self._sessions.store is not None:
            session = await self._sessions.look_again(session, principal)
        _check_version(headers)
        self._sessions.use(session)
        return session

    async def _get(
        self,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
    ) -> None:
        if not rules.accepts(headers.get(b"accept"), rules.SSE):
            raise HttpRefusal(406, "the Accept header must list text/event-stream")
        if SESSION not in headers:
            text = "a GET needs the Mcp-Session-Id that initialize answered with"
            raise HttpRefusal(400, text)
        session = await self._find(headers, principal)
        link = session.link
        if link.readers + link.answering >= self.limits.max_streams:
            text = f"a session has at most {self.limits.max_streams} streams"
            raise HttpRefusal(429, text)
        last = headers.get(LAST_EVENT)
        place = None if last is None else rules.split_event_id(last)
        if last is not None and place is None:
            raise HttpRefusal(400, "Last-Event-ID is no id that this server gave")
        # Counted by connections and not by streams: whoever comes back again and again, and reads
        # nothing of it, holds many of the former.
        link.readers += 1
        try:
            await self._read(receive, send, session, place)
        finally:
            link.readers -= 1
            if not link.is_over:
                self._sessions.stay(session)

    async def _read(
        self, receive: Receive, send: Send, session: Session, place: tuple[str, int] | None
    ) -> None:
        """Write a stream of a session, from a place on, for one connection."""
        link = session.link
        stream, reader, missed = await resume(link, place)
        if stream is None or reader is None:
            # It was answered to its end, or nothing is known of it: what there is, and no more.
            await start_stream(send)
            try:
                await write(send, missed, is_last=True)
            except TimeoutError:
                log.info("a client took nothing of what it missed and was given up")
            return
        if self._is_leaving and stream is link.general:
            # What it missed, and no more: nobody waits here for what may come.
            link.hang_up(stream)
        if await write_stream(receive, send, stream, reader, self.limits, missed=missed):
            self._done.append((link.loop.time(), link.session, stream.name))

    def _forget_done(self, now: float) -> None:
        """Streams that were read to their end some time ago need not be kept any more."""
        done = self._done
        while done and done[0][0] < now - DONE_S:
            _, session, stream = done.popleft()
            self.events.forget(session, stream)

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
            raise HttpRefusal(405, "this is an event stream: GET it", (b"allow", b"GET, OPTIONS"))
        if not rules.accepts(headers.get(b"accept"), rules.SSE):
            raise HttpRefusal(406, "the Accept header must list text/event-stream")
        if self._is_draining:
            raise HttpRefusal(503, "the server is being stopped", (b"retry-after", b"1"))
        if len(self._listeners) >= self.limits.max_sessions:
            raise HttpRefusal(503, "too many streams are open", (b"retry-after", b"30"))
        ident = os.urandom(ID_BYTES).hex()
        link = SseLink(ident, principal, self.limits.max_unread_bytes)
        listener = self._listeners[ident.encode()] = _Listener(link, self.server.attach(link))
        root = scope.get("root_path", "").rstrip("/")
        endpoint = f"{root}{self.message_path}?session_id={ident}"
        try:
            await write_old_stream(receive, send, link, endpoint, self.limits)
        finally:
            del self._listeners[ident.encode()]
            await self.server.detach(listener.driver)

    async def _message(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, bytes],
        principal: Principal,
    ) -> None:
        if scope["method"] != "POST":
            raise HttpRefusal(405, "messages are posted here", (b"allow", b"POST, OPTIONS"))
        if not rules.is_json(headers.get(b"content-type")):
            raise HttpRefusal(415, "the Content-Type must be application/json")
        gone = HttpRefusal(404, "no such session, or its event stream has ended")
        listener = self._listeners.get(_session_in(scope.get("query_string", b"")))
        if listener is None or listener.link.owner != principal:
            raise gone
        length = headers.get(LENGTH, b"")
        limits = self.limits
        given = read_body(receive, length, limits.max_body_bytes, limits.body_s)
        body = given if isinstance(given, bytes) else await given
        if body is None:
            return
        link = listener.link
        if link.is_paused:
            await link.until_readable()
        if link.is_over:
            raise gone
        delivery = Post(link)
        link.receive(body, Seen(principal, Headers(scope["headers"]), delivery))
        if delivery.is_unreadable:
            raise HttpRefusal(400, "the body is no message that can be read; see the stream")
        await answer(send, 202)


def _check_repeated(raw: list[Header], headers: dict[bytes, bytes]) -> None:
    """Headers of which there is more than one. Raises HttpRefusal."""
    names = [name for name, _ in raw]
    for name in _ONCE:
        if names.count(name) > 1:
            raise HttpRefusal(400, f"the header {name.decode()} came more than once")
    if names.count(b"accept") > 1:
        headers[b"accept"] = b", ".join(value for name, value in raw if name == b"accept")


def _check_version(headers: dict[bytes, bytes]) -> None:
    """Raises HttpRefusal for a revision that nobody speaks here."""
    version = headers.get(VERSION)
    if version is not None and version not in _WIRES:
        supported = [dialect.wire for dialect in HANDSHAKE]
        asked = version.decode("latin-1")[:64]
        text = f"MCP-Protocol-Version {asked!r} is not one of {', '.join(supported)}"
        data = {"supported": supported, "requested": asked}
        raise HttpRefusal(400, text, code=-32022, data=data)


def _with_cors(send: Send, origin: bytes) -> Send:
    """Let a page of an allowed origin read the answer."""
    return with_headers(
        send,
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"mcp-session-id, www-authenticate"),
        (b"vary", b"origin"),
    )


def _session_in(query: bytes) -> bytes:
    for pair in query[:MAX_QUERY_BYTES].split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"session_id":
            return value
    return b""
