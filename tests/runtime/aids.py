"""Drivers over real links in memory, with handlers that tests write as small functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from dragoman.errors import MethodNotFound
from dragoman.model.base import Record
from dragoman.model.methods import Side
from dragoman.model.tools import CallToolParams
from dragoman.protocol.calls import Exchange
from dragoman.protocol.events import Event
from dragoman.protocol.limits import Limits
from dragoman.runtime.driver import Driver, Encoded
from dragoman.testing import ManualClock, ScriptedPeer
from dragoman.transport.memory import memory_pair
from tests.protocol.aids import FULL_CLIENT, FULL_SERVER, RESULTS, engine_of

T = TypeVar("T")

Answerer = Callable[[Driver, Exchange, Record], Awaitable[Record | Encoded]]


class Handlers:
    """A `Handler` made of functions by method; events are kept in `events`."""

    def __init__(self, **by_method: Answerer) -> None:
        self.by_method = {name.replace("_", "/", 1): how for name, how in by_method.items()}
        self.events: list[Event] = []
        self.on_event: Callable[[Event], None] | None = None

    async def handle_request(
        self, driver: Driver, exchange: Exchange, params: Record
    ) -> Record | Encoded:
        how = self.by_method.get(exchange.method.name)
        if how is None:
            raise MethodNotFound(exchange.method.name)
        return await how(driver, exchange, params)

    def handle_event(self, driver: Driver, event: Event) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)

    def of(self, kind: type[T]) -> list[T]:
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]


async def give_result(driver: Driver, exchange: Exchange, params: Record) -> Record:
    """Answer with the sample result of the method."""
    return RESULTS[exchange.method.name]


async def wait_for_ever(driver: Driver, exchange: Exchange, params: Record) -> Record:
    """Never answer."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine; every task it started must be over when it returns."""

    async def watched() -> T:
        before = asyncio.all_tasks()
        result = await main
        assert asyncio.all_tasks() - before == set(), "a task was left behind"
        return result

    return asyncio.run(watched(), debug=False)


async def turns(count: int = 20) -> None:
    """Let the loop turn a few times: long enough for any chain of callbacks in these tests."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def facing_script(
    side: Side,
    handlers: Handlers | None = None,
    *,
    clock: ManualClock | None = None,
    limits: Limits | None = None,
    revision: str | None = None,
    high_water_bytes: int = 1 << 20,
    opened: bool = True,
    **more: Any,
) -> AsyncIterator[tuple[Driver, ScriptedPeer]]:
    """A driver on one side, a script on the other; open, and closed at the end."""
    near, far = memory_pair(high_water_bytes=high_water_bytes)
    engine = engine_of(side, revision, limits=limits)
    driver = Driver(engine, near, handlers or Handlers(), clock=clock, **more)
    peer = ScriptedPeer(far)
    driver.start()
    try:
        if opened and side is Side.SERVER:
            await peer.hello(FULL_CLIENT, revision=revision)
            await turns()
        elif opened:
            opening = asyncio.ensure_future(driver.open())
            await peer.welcome(FULL_SERVER)
            await opening
        yield driver, peer
    finally:
        await driver.aclose()
        await peer.aclose()


@asynccontextmanager
async def connected(
    at_server: Handlers | None = None,
    at_client: Handlers | None = None,
    *,
    clock: ManualClock | None = None,
    client_limits: Limits | None = None,
    server_limits: Limits | None = None,
    high_water_bytes: int = 1 << 20,
) -> AsyncIterator[tuple[Driver, Driver]]:
    """A client's and a server's driver, open, and closed at the end."""
    near, far = memory_pair(high_water_bytes=high_water_bytes)
    client = Driver(
        engine_of(Side.CLIENT, limits=client_limits), near, at_client or Handlers(), clock=clock
    )
    server = Driver(
        engine_of(Side.SERVER, limits=server_limits), far, at_server or Handlers(), clock=clock
    )
    server.start()
    client.start()
    try:
        await client.open()
        await turns()
        yield client, server
    finally:
        await client.aclose()
        await server.aclose()


def tool(params: Record) -> str:
    """Which tool is called."""
    assert isinstance(params, CallToolParams)
    return params.name
