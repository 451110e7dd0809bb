"""The threads of a server: started for functions that block, and gone with the last client."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from dragoman import Client, Server
from tests.support import joined, run

# Only a thread that hangs meets it.
LONG_S = 10.0


def threads_of(name: str) -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith(f"dragoman-{name}-")]


def wait_for_end(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(LONG_S)
        assert not thread.is_alive()


def blocking(name: str) -> Server:
    server = Server(name)

    @server.tool
    def where() -> str:
        return threading.current_thread().name

    return server


def test_threads_stay_while_a_client_does_and_end_with_the_last_one() -> None:
    async def main() -> None:
        server = blocking("stays")
        async with joined(server) as (first, _):
            async with joined(server) as (second, _):
                assert (await second.call_tool("where")).text.startswith("dragoman-stays-")
            assert not server._pool._is_resting
            assert (await first.call_tool("where")).text.startswith("dragoman-stays-")
            threads = threads_of("stays")
            assert 1 <= len(threads) <= 2
        wait_for_end(threads)
        async with joined(server) as (client, _):
            assert (await client.call_tool("where")).text.startswith("dragoman-stays-")
        wait_for_end(threads_of("stays"))

    run(main())


def test_a_server_that_is_dropped_leaves_no_thread() -> None:
    async def visit() -> tuple[weakref.ref[Server], list[threading.Thread]]:
        server = blocking("dropped")
        async with Client(server) as client:
            await client.call_tool("where")
            return weakref.ref(server), threads_of("dropped")

    seen, threads = run(visit())
    assert len(threads) == 1
    wait_for_end(threads)
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("servers", [50])
def test_many_servers_one_after_the_other_leave_no_thread(servers: int) -> None:
    async def main() -> None:
        for number in range(servers):
            async with Client(blocking(f"many-{number}")) as client:
                await client.call_tool("where")

    run(main())
    wait_for_end(threads_of("many"))


def test_a_function_that_outlives_its_client_ends_its_thread_with_itself() -> None:
    async def main() -> None:
        server = Server("outlives")
        begun, gate = threading.Event(), threading.Event()

        @server.tool
        def block() -> None:
            begun.set()
            gate.wait(LONG_S)

        async with joined(server) as (client, _):
            call = asyncio.ensure_future(client.call_tool("block"))
            await asyncio.to_thread(begun.wait, LONG_S)
            (thread,) = threads_of("outlives")
            call.cancel()
        assert thread.is_alive()
        gate.set()
        wait_for_end([thread])

    run(main())
