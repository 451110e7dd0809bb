"""The server's life: entered by the first connection, left by the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from dragoman import Client, Context, DeadlineExceeded, LinkError, Server
from dragoman.server.lifespan import Lifespan
from tests.support import joined, run

EVENTS: list[str] = []


@pytest.fixture(autouse=True)
def no_events() -> None:
    EVENTS.clear()


@asynccontextmanager
async def life(server: Server) -> AsyncIterator[dict[str, Any]]:
    task = asyncio.current_task()
    EVENTS.append(f"enter {server.name}")
    try:
        yield {"calls": 0}
    finally:
        # Some managers, timeouts and task groups among them, must be left where they were entered.
        assert asyncio.current_task() is task
        EVENTS.append("leave")


def counting() -> Server:
    server = Server("counter", lifespan=life)

    @server.tool
    async def count(ctx: Context) -> int:
        ctx.state["calls"] += 1
        return int(ctx.state["calls"])

    return server


def state_of(server: Server) -> Any:
    return server.state


def test_what_it_yields_is_the_state_of_every_handler() -> None:
    async def main() -> None:
        server = counting()
        assert state_of(server) is None
        async with joined(server) as (client, _):
            assert [(await client.call_tool("count")).data for _ in range(2)] == [1, 2]
            assert state_of(server) == {"calls": 2}
        assert state_of(server) is None
        assert EVENTS == ["enter counter", "leave"]

    run(main())


def test_many_connections_share_one_life_and_the_next_begins_anew() -> None:
    async def main() -> None:
        server = counting()
        async with joined(server) as (one, _):
            async with joined(server) as (two, _):
                assert (await one.call_tool("count")).data == 1
                assert (await two.call_tool("count")).data == 2
            assert (await one.call_tool("count")).data == 3
        assert EVENTS == ["enter counter", "leave"]
        async with joined(server) as (client, _):
            assert (await client.call_tool("count")).data == 1
        assert EVENTS == ["enter counter", "leave"] * 2

    run(main())


def test_connections_that_come_and_go_together_enter_and_leave_once_each_time() -> None:
    async def main() -> None:
        server = counting()

        async def visit() -> None:
            async with Client(server) as client:
                await client.call_tool("count")

        for _ in range(5):
            await asyncio.gather(*(visit() for _ in range(10)))
        assert EVENTS.count("enter counter") == EVENTS.count("leave")
        assert set(EVENTS) == {"enter counter", "leave"}

    run(main())


def test_whoever_comes_while_the_last_one_leaves_waits_for_a_life_of_its_own() -> None:
    async def main() -> None:
        leaving, may_leave = asyncio.Event(), asyncio.Event()

        @asynccontextmanager
        async def slow(server: Server) -> AsyncIterator[None]:
            EVENTS.append("enter")
            yield
            leaving.set()
            await may_leave.wait()
            EVENTS.append("leave")

        server = Server("s", lifespan=slow)
        first = await Client(server).connect()
        closing = asyncio.ensure_future(first.aclose())
        await leaving.wait()
        opening = [asyncio.ensure_future(Client(server).connect()) for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert EVENTS == ["enter"]
        may_leave.set()
        clients = await asyncio.gather(*opening)
        await closing
        assert EVENTS == ["enter", "leave", "enter"]
        await asyncio.gather(*(client.aclose() for client in clients))
        assert EVENTS == ["enter", "leave"] * 2

    run(main())


def test_a_life_that_never_begins_ends_when_nobody_waits_for_it() -> None:
    async def main() -> None:
        @asynccontextmanager
        async def slow(server: Server) -> AsyncIterator[None]:
            try:
                await asyncio.Event().wait()
            finally:
                EVENTS.append("gave up")
            yield

        with pytest.raises(DeadlineExceeded):
            await Client(Server("s", lifespan=slow), connect_timeout_s=0.02).connect()
        assert EVENTS == ["gave up"]

    run(main())


def test_a_life_that_fails_at_its_end_is_logged_and_the_next_one_begins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        @asynccontextmanager
        async def broken(server: Server) -> AsyncIterator[None]:
            EVENTS.append("enter")
            yield
            raise RuntimeError("broken at the end")

        server = Server("s", lifespan=broken)
        for _ in range(2):
            async with Client(server) as client:
                await client.ping()
        assert EVENTS == ["enter", "enter"]

    run(main())
    assert caplog.text.count("RuntimeError: broken at the end") == 2


def test_a_life_that_cannot_begin_is_told_to_whoever_connects() -> None:
    async def main() -> None:
        @asynccontextmanager
        async def broken(server: Server) -> AsyncIterator[None]:
            if server.name:
                raise OSError("no database")
            yield

        server = Server("s", lifespan=broken)
        for _ in range(2):
            with pytest.raises(LinkError, match="no database"):
                async with Client(server):
                    pass

    run(main())


def test_a_connection_may_be_opened_in_one_task_and_closed_in_another() -> None:
    async def main() -> None:
        server = counting()
        stack = AsyncExitStack()

        async def enter() -> Client:
            return await stack.enter_async_context(Client(server))

        client = await asyncio.create_task(enter())
        assert (await asyncio.create_task(client.call_tool("count"))).data == 1
        await asyncio.create_task(stack.aclose())
        assert EVENTS == ["enter counter", "leave"]
        assert not client.is_connected

    run(main())


def test_each_event_loop_has_a_life_of_its_own_that_no_other_ends() -> None:
    server = counting()

    @server.tool
    def from_a_thread(ctx: Context) -> int:
        return int(ctx.state["calls"])

    def alone(count: int) -> list[int]:
        async def visit() -> list[int]:
            async with Client(server) as client:
                counts = [(await client.call_tool("count")).data for _ in range(count)]
                assert state_of(server) == {"calls": count}
                return [*counts, (await client.call_tool("from_a_thread")).data]

        return asyncio.run(visit())

    async def main() -> None:
        async with joined(server) as (client, _):
            assert (await client.call_tool("count")).data == 1
            # A loop of its own, in a thread, that begins and ends meanwhile.
            assert await asyncio.to_thread(alone, 3) == [1, 2, 3, 3]
            assert EVENTS == ["enter counter", "enter counter", "leave"]
            assert (await client.call_tool("count")).data == 2
            assert (await client.call_tool("from_a_thread")).data == 2
            assert await asyncio.to_thread(state_of, server) == {"calls": 2}
        assert EVENTS.count("leave") == 2
        assert state_of(server) is None

    run(main())


def test_outside_the_loops_a_state_is_known_only_while_there_is_one() -> None:
    server = counting()

    async def inner() -> Any:
        async with Client(server):
            return await asyncio.to_thread(state_of, server)

    async def main() -> None:
        async with joined(server):
            assert await asyncio.to_thread(state_of, server) == {"calls": 0}
            assert await asyncio.to_thread(asyncio.run, inner()) is None

    run(main())


class Plain:
    """A manager that awaits nothing, so that it may be left without a loop."""

    async def __aenter__(self) -> str:
        return "state"

    async def __aexit__(self, *_: object) -> None:
        EVENTS.append("leave")


def test_a_loop_that_was_closed_in_the_middle_of_a_life_is_forgotten() -> None:
    lifespan = Lifespan(Plain)
    lost = asyncio.new_event_loop()
    lost.set_exception_handler(lambda _, about: EVENTS.append(about["message"]))
    lost.run_until_complete(lifespan.enter())
    assert lifespan.state == "state"
    lost.close()

    async def main() -> None:
        await lifespan.enter()
        assert await asyncio.to_thread(lambda: lifespan.state) == "state"
        await lifespan.leave()

    run(main())
    assert lifespan.state is None
    assert lifespan.state_in(lost) is None
