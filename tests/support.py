"""What many tests need: running a coroutine, a server and a client joined, the wire between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from dragoman import Client, Server

T = TypeVar("T")

HANDSHAKE = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

# 20 s: what a test that hangs may cost; pytest's own limit would end the whole process.
PATIENCE_S = 20.0


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, and fail when it leaves a task behind."""

    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE_S):
            result = await coroutine
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks were left behind: {left}"
        return result

    return asyncio.run(bounded())


class Wire:
    """Everything a client sent and received, as plain values, in order."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, Any]] = []

    def __call__(self, direction: str, frame: bytes) -> None:
        self.frames.append((direction, json.loads(frame)))

    def sent(self, method: str) -> list[Any]:
        """The messages the client sent with that method."""
        return [m for d, m in self.frames if d == "sent" and m.get("method") == method]

    def received(self, method: str) -> list[Any]:
        """The messages the client received with that method."""
        return [m for d, m in self.frames if d == "received" and m.get("method") == method]

    def answers(self) -> list[Any]:
        """The answers the client received."""
        return [m for d, m in self.frames if d == "received" and "method" not in m]


@asynccontextmanager
async def joined(server: Server, **options: Any) -> AsyncIterator[tuple[Client, Wire]]:
    """A client of a server in this process, and the wire between them."""
    wire = Wire()
    async with Client(server, on_wire=wire, **options) as client:
        yield client, wire
