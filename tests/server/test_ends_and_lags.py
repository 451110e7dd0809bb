"""Requests whose session, store, keeper of events or process ends or lags in the middle of them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from dragoman import Context, Server
from dragoman.model.logging import LogMessageParams
from dragoman.protocol.limits import Limits
from dragoman.server.asgi import AsgiApp
from dragoman.server.http_sessions import ORDER_S
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import MemoryEventLog
from dragoman.transport.streamable.sessions import SessionRecord
from tests.http.aids import request
from tests.instant import run_instantly
from tests.server.asgi_aids import ask, opened
from tests.server.test_moved_sessions import Shelf

PATIENCE_S = 30.0


class SlowShelf(Shelf):
    """Sessions that are read as slowly as a test wants."""

    load_s = 0.01

    async def load(self, ident: str) -> SessionRecord | None:
        await asyncio.sleep(self.load_s)
        return self.records.get(ident)


def call(tool: str, ident: int = 1, token: int | None = None) -> dict[str, Any]:
    params: dict[str, Any] = {"name": tool, "arguments": {}}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return request(ident, "tools/call", params)


async def in_two_pieces(
    app: AsgiApp, message: Any, session: bytes, rest: asyncio.Event
) -> tuple[int, bytes]:
    """POST a message whose second half comes once `rest` is set."""
    body = msgspec.json.encode(message)
    pieces = iter((body[:5], body[5:]))
    sent: list[Any] = []

    async def receive() -> Any:
        piece = next(pieces)
        if len(piece) > 5:
            await rest.wait()
        return {"type": "http.request", "body": piece, "more_body": len(piece) == 5}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        (b"mcp-session-id", session),
    ]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers}
    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


def test_a_handler_that_ends_its_own_session_before_it_waits_leaves_no_post_waiting() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        async def end() -> str:
            status, _, _ = await ask(app, None, session, "DELETE")
            return str(status)

        app = server.asgi()
        session = await opened(app)
        async with asyncio.timeout(PATIENCE_S):
            assert (await ask(app, call("end"), session))[0] == 500

    run_instantly(main())


def test_a_handler_that_lets_go_of_its_stream_twice_leaves_nothing_unread_for_ever() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        async def long(context: Context) -> str:
            for _ in range(3):
                await context.close_stream()
                await asyncio.sleep(1)
            return "done"

        app = server.asgi()
        session = await opened(app)
        await ask(app, call("long"), session)
        link = app._sessions.known[session].link
        await asyncio.sleep(10)
        assert link.unread_bytes == 0
        await app.stop()

    run_instantly(main())


def test_an_answer_that_cannot_be_kept_leaves_no_post_waiting() -> None:
    class Full(MemoryEventLog):
        def append(self, session: str, stream: str, number: int, frame: bytes) -> None:
            if b'"result"' in frame:
                raise OSError("the disk is full")
            super().append(session, stream, number, frame)

    async def main() -> None:
        server = Server("s")

        @server.tool
        async def tell(context: Context) -> str:
            await context.report_progress(1)
            return "done"

        app = server.asgi(events=Full())
        session = await opened(app)
        # It is for whoever runs the application: 500, and a line in the log.
        with pytest.raises(OSError, match="the disk is full"):
            async with asyncio.timeout(PATIENCE_S):
                await ask(app, call("tell", token=1), session)
        assert app._busy == 0

    run_instantly(main())


def test_a_store_that_answers_slowly_takes_no_time_from_the_handler() -> None:
    async def main() -> None:
        server = Server("s", limits=Limits(exchange_timeout_s=2))

        @server.tool
        async def wait() -> str:
            await asyncio.sleep(1)
            return "done"

        shelf = SlowShelf()
        app = server.asgi(sessions=shelf)
        session = await opened(app)
        await asyncio.sleep(2 * ORDER_S)
        shelf.load_s = 3
        assert b"done" in (await ask(app, call("wait"), session))[2]
        await app.stop()

    run_instantly(main())


def test_a_store_that_answers_one_post_slowly_does_not_turn_back_the_clock_of_the_next() -> None:
    async def main() -> None:
        server = Server("s", limits=Limits(requests_per_s=2, requests_burst=4))

        @server.tool
        async def say() -> str:
            return "done"

        shelf = SlowShelf()
        app = server.asgi(sessions=shelf)
        session = await opened(app)
        await asyncio.sleep(2 * ORDER_S)
        shelf.load_s = 3
        first = asyncio.ensure_future(ask(app, call("say", 1), session))
        await asyncio.sleep(2)
        shelf.load_s = 0.01
        assert b"done" in (await ask(app, call("say", 2), session))[2]
        assert b"done" in (await first)[2]
        await app.stop()

    run_instantly(main())


def test_who_sends_slowly_while_the_server_stops_is_told_to_try_again_and_not_to_begin_anew() -> (
    None
):
    async def main() -> None:
        app = Server("s").asgi(sessions=Shelf(), limits=HttpLimits(drain_s=1))
        session, rest = await opened(app), asyncio.Event()
        posting = asyncio.ensure_future(in_two_pieces(app, request(1, "ping"), session, rest))
        await asyncio.sleep(0.1)
        await app.stop()
        rest.set()
        assert (await posting)[0] == 503

    run_instantly(main())


def test_who_sends_slowly_while_a_session_comes_back_here_finds_it() -> None:
    async def main() -> None:
        shelf = Shelf()
        one, other = Server("s").asgi(sessions=shelf), Server("s").asgi(sessions=shelf)
        session, rest = await opened(one), asyncio.Event()
        posting = asyncio.ensure_future(in_two_pieces(one, request(1, "ping"), session, rest))
        await asyncio.sleep(2 * ORDER_S)
        assert (await ask(other, request(2, "ping"), session))[0] == 200
        assert (await ask(one, request(3, "ping"), session))[0] == 200
        rest.set()
        assert (await posting)[0] == 200
        await one.stop()
        await other.stop()

    run_instantly(main())


def test_a_session_does_not_come_back_into_a_server_that_has_stopped() -> None:
    async def main() -> None:
        shelf = SlowShelf()
        app = Server("s").asgi(sessions=shelf, limits=HttpLimits(drain_s=1))
        session = await opened(app)
        await asyncio.sleep(2 * ORDER_S)
        shelf.load_s = 5
        asking = asyncio.ensure_future(ask(app, request(1, "ping"), session))
        await asyncio.sleep(0.1)
        await app.stop()
        assert (await asking)[0] == 503
        assert app.sessions == 0

    run_instantly(main())


def test_a_large_notification_after_a_direct_answer_does_not_pause_the_link() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        async def say() -> str:
            return "done"

        @server.tool
        async def tell(context: Context) -> str:
            link = app._sessions.known[session].link
            await context.info("first")
            assert b"done" in (await ask(app, call("say", 2), session))[2]
            driver = context._driver
            driver.engine.notify(
                "notifications/message",
                msgspec.convert({"level": "info", "data": "x" * 300_000}, LogMessageParams),
                about=context._exchange.seen.delivery,
            )
            driver.flush()
            return "paused" if link.is_paused else "read on"

        app = server.asgi()
        session = await opened(app)
        await ask(app, request(9, "logging/setLevel", {"level": "debug"}), session)
        body = (await ask(app, call("tell", 1), session))[2]
        assert b"read on" in body
        await app.stop()

    run_instantly(main())
