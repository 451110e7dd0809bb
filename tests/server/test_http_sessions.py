"""Which of many sessions gives way to a new one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dragoman import Server
from dragoman.server import http_sessions
from dragoman.server.asgi import AsgiApp
from dragoman.server.http_sessions import ORDER_S
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import MemoryEventLog
from dragoman.transport.streamable.sessions import SessionRecord
from tests.http.aids import initialize, notification, request
from tests.instant import run_instantly


async def post(app: AsgiApp, message: Any, session: bytes | None = None) -> tuple[int, bytes]:
    """POST a message, without a web server: the status, and the session that was begun."""
    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
    ]
    if session is not None:
        headers.append((b"mcp-session-id", session))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": msgspec.json.encode(message)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers}
    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"mcp-session-id", b"")


async def opened(app: AsgiApp) -> bytes:
    """The id of a new session."""
    status, session = await post(app, initialize("2025-11-25"))
    assert status == 200
    assert await post(app, notification("notifications/initialized"), session) == (202, b"")
    return session


def test_a_session_that_is_used_all_the_time_outlives_one_that_nobody_uses() -> None:
    async def main() -> None:
        app = Server("s").asgi(limits=HttpLimits(max_sessions=2))
        await app.start()
        busy, left = await opened(app), await opened(app)
        for n in range(20):
            # So often that its place is never out of date by more than is allowed.
            await asyncio.sleep(0.9 * ORDER_S)
            assert (await post(app, request(n, "ping"), busy))[0] == 200
        assert await opened(app)
        assert (await post(app, request(1, "ping"), busy))[0] == 200
        assert (await post(app, request(1, "ping"), left))[0] == 404
        await app.stop()

    run_instantly(main())


class Shelf:
    """Sessions that are kept for several processes, and which of them were deleted."""

    def __init__(self) -> None:
        self.records: dict[str, SessionRecord] = {}
        self.deleted: list[str] = []

    async def save(self, record: SessionRecord) -> None:
        self.records[record.id] = record

    async def load(self, ident: str) -> SessionRecord | None:
        return self.records.get(ident)

    async def delete(self, ident: str) -> None:
        self.deleted.append(ident)
        self.records.pop(ident, None)

    async def aclose(self) -> None:
        pass


def test_a_session_that_moved_to_another_process_is_not_ended_by_the_one_it_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        # The clock on the wall goes as fast as that of the loop.
        clock = SimpleNamespace(time=asyncio.get_running_loop().time)
        monkeypatch.setattr(http_sessions, "time", clock)
        limits = HttpLimits(idle_s=60)
        shelf, events = Shelf(), MemoryEventLog(limits)
        left, taken = (
            Server("s").asgi(limits=limits, sessions=shelf, events=events) for _ in range(2)
        )
        await left.start()
        await taken.start()
        session = await opened(left)
        name = session.decode()
        events.append(name, "stream", 0, b"{}")
        for n in range(20):
            await asyncio.sleep(10)
            assert (await post(taken, request(n, "ping"), session))[0] == 200
        assert (left.sessions, taken.sessions) == (0, 1)
        assert shelf.deleted == []
        assert await events.replay(name, "stream", -1)
        # Once it is used nowhere, it goes everywhere.
        await asyncio.sleep(120)
        assert taken.sessions == 0
        assert shelf.deleted == [name]
        assert not await events.replay(name, "stream", -1)
        await left.stop()
        await taken.stop()

    run_instantly(main())
