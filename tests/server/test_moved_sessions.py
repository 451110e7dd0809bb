"""Sessions that several processes keep in one place: who holds one, and what the others know of it.

Two applications stand for two processes; they share nothing but the store and the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dragoman import Context, Server
from dragoman.jsonrpc.frame import Principal
from dragoman.server import http_sessions
from dragoman.server.asgi import AsgiApp
from dragoman.server.http_sessions import ORDER_S
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import MemoryEventLog
from dragoman.transport.streamable.sessions import Saved, SessionRecord
from tests.http.aids import initialize, notification, request
from tests.instant import run_instantly
from tests.server.asgi_aids import ask, opened, post

# Longer than a session may be unused before it is looked at again.
A_WHILE_S = 2 * ORDER_S


class Shelf:
    """Sessions that are kept for several processes, and which of them were deleted."""

    def __init__(self) -> None:
        self.records: dict[str, SessionRecord] = {}
        self.deleted: list[str] = []
        self.is_broken = False
        self.is_full = False

    async def save(self, record: SessionRecord) -> Saved:
        if self.is_full:
            raise OSError("the disk is full")
        if record.id in self.deleted:
            return Saved.ENDED
        kept = self.records.get(record.id)
        if kept is not None and kept.holder != record.holder and kept.held_at > record.held_at:
            return Saved.TAKEN
        self.records[record.id] = record
        return Saved.KEPT

    async def load(self, ident: str) -> SessionRecord | None:
        await asyncio.sleep(0.01)
        if self.is_broken:
            raise OSError("the disk is gone")
        return self.records.get(ident)

    async def delete(self, ident: str, holder: str | None = None) -> bool:
        kept = self.records.get(ident)
        if holder is not None and kept is not None and kept.holder != holder:
            return False
        self.deleted.append(ident)
        self.records.pop(ident, None)
        return True

    async def aclose(self) -> None:
        pass


def known_by_key(scope: Any) -> Principal | None:
    """Somebody, as an object of their own each time."""
    key = dict(scope["headers"]).get(b"x-api-key", b"").decode()
    return Principal(key, issuer="keys") if key else None


ADA, EVE = [(b"x-api-key", b"ada")], [(b"x-api-key", b"eve")]


class Pair:
    """Two processes of one server."""

    def __init__(self, identify: Any = None) -> None:
        self.limits = HttpLimits(idle_s=60)
        self.shelf, self.events = Shelf(), MemoryEventLog(self.limits)
        self.identify = identify
        self.go_on = asyncio.Event()
        self.one, self.other = self.process(), self.process()

    def process(self) -> AsgiApp:
        server = Server("s")

        @server.tool
        async def wait(ctx: Context) -> str:
            await ctx.info("begun")
            await self.go_on.wait()
            return "the answer"

        @server.tool
        async def say(ctx: Context) -> str:
            await ctx.debug("a detail")
            return "said"

        return server.asgi(
            limits=self.limits, sessions=self.shelf, events=self.events, identify=self.identify
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock on the wall goes as fast as that of the loop."""
    monkeypatch.setattr(
        http_sessions, "time", SimpleNamespace(time=lambda: asyncio.get_running_loop().time())
    )


pytestmark = pytest.mark.usefixtures("clock")


@asynccontextmanager
async def pair(identify: Any = None) -> AsyncIterator[Pair]:
    both = Pair(identify)
    await both.one.start()
    await both.other.start()
    yield both
    await both.one.stop()
    await both.other.stop()


async def ping(app: AsgiApp, session: bytes) -> int:
    return (await post(app, request(1, "ping"), session))[0]


async def hears_details(app: AsgiApp, session: bytes) -> bool:
    status, _, body = await ask(app, request(2, "tools/call", {"name": "say"}), session)
    assert status == 200
    assert b"said" in body
    return b"a detail" in body


async def choose(app: AsgiApp, session: bytes, level: str) -> None:
    assert (await post(app, request(3, "logging/setLevel", {"level": level}), session))[0] == 200


def test_a_session_is_not_ended_for_being_idle_where_it_was_before() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            name = session.decode()
            both.events.append(name, "stream", 0, b"{}")
            for _ in range(20):
                await asyncio.sleep(10)
                assert await ping(both.other, session) == 200
            assert (both.one.sessions, both.other.sessions) == (0, 1)
            assert both.shelf.deleted == []
            assert await both.events.replay(name, "stream", -1)
            # Once it is used nowhere, it goes everywhere.
            await asyncio.sleep(120)
            assert both.other.sessions == 0
            assert both.shelf.deleted == [name]
            assert not await both.events.replay(name, "stream", -1)

    run_instantly(main())


def test_a_session_that_comes_back_goes_on_as_the_other_process_left_it() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            await choose(both.one, session, "debug")
            assert await hears_details(both.one, session)
            await choose(both.other, session, "error")
            assert not await hears_details(both.other, session)
            await asyncio.sleep(A_WHILE_S)
            assert not await hears_details(both.one, session)
            assert both.one.sessions == 1
            # And once more, the other way round.
            await choose(both.one, session, "debug")
            await asyncio.sleep(A_WHILE_S)
            assert await hears_details(both.other, session)

    run_instantly(main())


def test_requests_that_come_back_at_once_all_find_it() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            assert await ping(both.other, session) == 200
            await asyncio.sleep(A_WHILE_S)
            found = await asyncio.gather(*(ping(both.one, session) for _ in range(8)))
            assert found == [200] * 8
            assert both.one.sessions == 1

    run_instantly(main())


def test_a_session_that_was_deleted_elsewhere_is_over_here() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            assert (await ask(both.other, None, session, "DELETE"))[0] == 204
            await asyncio.sleep(A_WHILE_S)
            assert await ping(both.one, session) == 404
            assert both.one.sessions == 0

    run_instantly(main())


def test_a_session_goes_on_while_nobody_can_look_where_it_is_kept() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            both.shelf.is_broken = True
            await asyncio.sleep(A_WHILE_S)
            assert await ping(both.one, session) == 200
            both.shelf.is_broken = False
            await asyncio.sleep(A_WHILE_S)
            assert await ping(both.one, session) == 200

    run_instantly(main())


def test_a_session_that_could_not_be_kept_goes_on_where_it_is() -> None:
    async def main() -> None:
        async with pair() as both:
            both.shelf.is_full = True
            fresh = await opened(both.one)
            both.shelf.is_full = False
            moved = await opened(both.one)
            both.shelf.is_full = True
            await choose(both.other, moved, "debug")
            await asyncio.sleep(A_WHILE_S)
            assert await ping(both.one, fresh) == 200
            # What is kept says that another process holds it, and an older level.
            assert await hears_details(both.other, moved)

    run_instantly(main())


def test_a_session_that_finished_opening_elsewhere_is_not_ended_where_it_began() -> None:
    async def main() -> None:
        async with pair() as both:
            status, session = await post(both.one, initialize("2025-11-25"))
            assert status == 200
            await asyncio.sleep(1)
            assert (await post(both.other, notification("notifications/initialized"), session))[
                0
            ] == 202
            for _ in range(10):
                await asyncio.sleep(10)
                assert await ping(both.other, session) == 200
            assert (both.one.sessions, both.shelf.deleted) == (0, [])

    run_instantly(main())


def test_what_a_process_writes_late_does_not_undo_what_the_holder_wrote() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            assert await ping(both.one, session) == 200
            await asyncio.sleep(1)
            await choose(both.other, session, "debug")
            # By now the first has written that it was used there, before.
            await asyncio.sleep(30)
            both.one, stopped = both.process(), both.one
            await stopped.stop()
            await both.one.start()
            assert await hears_details(both.one, session)

    run_instantly(main())


def test_who_listens_where_the_session_was_before_is_sent_to_where_it_is() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            listening = asyncio.ensure_future(ask(both.one, None, session, "GET"))
            await asyncio.sleep(1)
            assert await ping(both.one, session) == 200
            # As long as it is held here, it may listen for as long as it likes.
            await asyncio.sleep(300)
            assert not listening.done()
            assert await ping(both.other, session) == 200
            await asyncio.sleep(30)
            assert (await listening)[0] == 200
            # What was known here is no more than that it was alive.
            assert both.shelf.records[session.decode()].holder == both.other._sessions.holder

    run_instantly(main())


def test_the_end_of_a_stream_here_does_not_undo_what_was_told_elsewhere() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            await choose(both.one, session, "debug")
            gone = asyncio.Event()
            listening = asyncio.ensure_future(ask(both.one, None, session, "GET", until=gone))
            await asyncio.sleep(1)
            await choose(both.other, session, "error")
            await asyncio.sleep(1)
            gone.set()
            await listening
            await asyncio.sleep(30)
            assert not await hears_details(both.other, session)
            assert not await hears_details(both.one, session)

    run_instantly(main())


def test_a_person_who_is_another_object_each_time_is_told_the_same() -> None:
    async def main() -> None:
        async with pair(known_by_key) as both:
            session = await opened(both.one, extra=ADA)
            assert (await ask(both.other, None, session, "DELETE", extra=ADA))[0] == 204
            await asyncio.sleep(A_WHILE_S)
            for app in (both.one, both.other):
                assert (await ask(app, request(1, "ping"), session, extra=ADA))[0] == 404

    run_instantly(main())


def test_a_process_whose_clock_is_behind_takes_a_session_over_all_the_same() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            name = session.decode()
            ahead = msgspec.structs.replace(both.shelf.records[name], held_at=10_000.0)
            both.shelf.records[name] = ahead
            await choose(both.other, session, "error")
            record = both.shelf.records[name]
            assert record.holder == both.other._sessions.holder
            assert record.log_level != ahead.log_level

    run_instantly(main())


def test_a_stranger_who_asks_first_does_not_keep_the_owner_out() -> None:
    async def main() -> None:
        async with pair(known_by_key) as both:
            session = await opened(both.one, extra=ADA)
            eve, ada = await asyncio.gather(
                *(ask(both.other, request(1, "ping"), session, extra=who) for who in (EVE, ADA))
            )
            assert (eve[0], ada[0]) == (404, 200)

    run_instantly(main())


def test_a_session_that_was_deleted_does_not_come_back_with_what_is_written_late() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            await asyncio.sleep(11)
            assert await ping(both.one, session) == 200
            assert await ping(both.other, session) == 200
            assert (await ask(both.other, None, session, "DELETE"))[0] == 204
            await asyncio.sleep(30)
            assert (both.one.sessions, both.shelf.records) == (0, {})
            assert await ping(both.one, session) == 404

    run_instantly(main())


def test_a_session_whose_record_was_lost_goes_on_and_is_written_again() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            both.shelf.records.clear()
            await asyncio.sleep(A_WHILE_S)
            assert await ping(both.one, session) == 200
            assert await ping(both.other, session) == 200

    run_instantly(main())


def test_what_runs_for_a_batch_that_nobody_is_connected_for_is_not_cancelled() -> None:
    async def main() -> None:
        async with pair() as both:
            status, session = await post(both.one, initialize("2025-03-26"))
            assert status == 200
            await post(both.one, notification("notifications/initialized"), session)
            gone = asyncio.Event()
            batch = [request(7, "tools/call", {"name": "wait"}), request(8, "ping")]
            asking = asyncio.ensure_future(ask(both.one, batch, session, until=gone))
            await asyncio.sleep(1)
            gone.set()
            told = (await asking)[2]
            place = told.split(b"id: ")[1].split(b"\n")[0]
            assert await ping(both.other, session) == 200
            await asyncio.sleep(A_WHILE_S)
            last = [(b"last-event-id", place)]
            coming = asyncio.ensure_future(ask(both.one, None, session, "GET", extra=last))
            await asyncio.sleep(1)
            both.go_on.set()
            assert b"the answer" in (await coming)[2]

    run_instantly(main())


def test_a_call_where_the_hello_was_made_works_when_it_was_finished_elsewhere() -> None:
    async def main() -> None:
        async with pair() as both:
            _, session = await post(both.one, initialize("2025-11-25"))
            ready = notification("notifications/initialized")
            assert (await post(both.other, ready, session))[0] == 202
            # Which asserts that it was carried out.
            await hears_details(both.one, session)

    run_instantly(main())


def test_a_session_that_makes_room_here_is_found_if_another_process_holds_it() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            assert await ping(both.other, session) == 200
            found = both.one._sessions
            found._end_idle(found.known[session])
            assert await ping(both.one, session) == 200

    run_instantly(main())


def test_a_session_that_is_read_from_here_stays_here() -> None:
    async def main() -> None:
        async with pair() as both:
            session = await opened(both.one)
            held = both.one._sessions.known[session]
            held.link.readers += 1
            assert await ping(both.other, session) == 200
            await asyncio.sleep(A_WHILE_S)
            assert await ping(both.one, session) == 200
            assert both.one._sessions.known[session] is held
            held.link.readers -= 1

    run_instantly(main())
