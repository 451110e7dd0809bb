"""The server of the HTTP tests: tools that a test can hold at a point and let go on."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

from dragoman import Context, Server
from tests.http.aids import OldPeer, Peer, Place, serving
from tests.support import HANDSHAKE, run

__all__ = ["LATEST", "POLLED", "STREAMABLE", "Workshop", "looped", "old_session", "session"]

STREAMABLE = HANDSHAKE[1:]
LATEST = HANDSHAKE[-1]
# The first revision whose streams begin with an empty event and may be left and come back to.
POLLED = "2025-11-25"

P = ParamSpec("P")


def looped(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in a loop of its own; it must leave no task behind."""

    @functools.wraps(test)
    def runs(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return runs


class Workshop:
    """A server, and the handles by which a test drives its tools.

    `gate` lets the tool `wait` end; `entered` counts those who came to it, `left` those who were
    cancelled there.
    """

    def __init__(self, **options: Any) -> None:
        self.server = Server("workshop", version="1", **options)
        self.gate = asyncio.Event()
        self.arrived = asyncio.Condition()
        self.entered = 0
        self.left = 0
        self._add_tools()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until that holds; asked again at each arrival and departure."""
        async with self.arrived:
            await self.arrived.wait_for(holds)

    async def until_entered(self, count: int = 1) -> None:
        """Wait until so many calls have come to the gate."""
        await self.until(lambda: self.entered >= count)

    async def until_left(self, count: int = 1) -> None:
        """Wait until so many calls at the gate were cancelled."""
        await self.until(lambda: self.left >= count)

    async def _changed(self) -> None:
        async with self.arrived:
            self.arrived.notify_all()

    async def at_gate(self) -> None:
        """What a tool awaits to be held."""
        self.entered += 1
        await self._changed()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.left += 1
            await self._changed()
            raise

    def _add_tools(self) -> None:
        server = self.server

        @server.tool
        async def add(a: int, b: int) -> int:
            return a + b

        @server.tool
        async def wait() -> str:
            await self.at_gate()
            return "waited"

        @server.tool
        async def steps(count: int, ctx: Context) -> str:
            for step in range(1, count + 1):
                await ctx.report_progress(step, count)
            return "stepped"

        @server.tool
        async def step_and_wait(ctx: Context, name: str = "") -> str:
            await ctx.report_progress(1, 3)
            await self.at_gate()
            await ctx.report_progress(2, 3)
            await ctx.report_progress(3, 3)
            return f"waited {name}".strip()

        @server.tool
        async def leave(retry_s: float, ctx: Context) -> str:
            is_left = await ctx.close_stream(retry_s=retry_s)
            await self.at_gate()
            return str(is_left)

        @server.tool
        async def say(level: str, text: str, ctx: Context) -> str:
            await getattr(ctx, level)(text)
            return "said"

        @server.tool
        async def fill(size: int, count: int, ctx: Context) -> str:
            for _ in range(count):
                await ctx.error("x" * size)
            return "filled"

        @server.tool
        async def letters(size: int) -> str:
            return "x" * size

        @server.tool
        async def ask_model(ctx: Context) -> str:
            return (await ctx.sample("how?")).text

        @server.tool
        async def folders(ctx: Context) -> list[str]:
            return [root.uri for root in await ctx.list_roots()]

        @server.tool
        async def grow() -> str:
            server.add_tool(lambda: "grown", name="grown", replace=True)
            return "grew"

        @server.resource("note:a")
        def note() -> str:
            return "a"


@asynccontextmanager
async def session(
    revision: str = LATEST,
    capabilities: Any = None,
    *,
    shop: Workshop | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Peer, Workshop]]:
    """A session over Streamable HTTP with a workshop; `options` are those of `Server.asgi`."""
    shop = shop or Workshop()
    async with serving(shop.server.asgi(**options)) as place:
        yield await Peer.open(place, revision, capabilities), shop


@asynccontextmanager
async def old_session(
    revision: str = HANDSHAKE[0],
    capabilities: Any = None,
    *,
    shop: Workshop | None = None,
    **options: Any,
) -> AsyncIterator[tuple[OldPeer, Workshop]]:
    """A session over HTTP+SSE with a workshop."""
    shop = shop or Workshop()
    async with serving(shop.server.asgi(**options)) as place:
        peer = await OldPeer.open(place, revision, capabilities)
        try:
            yield peer, shop
        finally:
            peer.stream.close()


@asynccontextmanager
async def place_of(shop: Workshop, **options: Any) -> AsyncIterator[Place]:
    """A workshop served, without a session."""
    async with serving(shop.server.asgi(**options)) as place:
        yield place
