"""One keyboard for everybody who wants to read from it: a question goes before an idle prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

__all__ = ["Keyboard"]

T = TypeVar("T")


class Keyboard:
    """Who may read. `taken` is for questions, one after the other; `idle` waits in between."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._idle: asyncio.Future[Any] | None = None
        # Questions that want it or have it, and whether there is none.
        self._wanted = 0
        self._unwanted = asyncio.Event()
        self._unwanted.set()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Nobody else reads meanwhile; an idle prompt is withdrawn and comes back afterwards."""
        self._wanted += 1
        self._unwanted.clear()
        try:
            if self._idle is not None:
                self._idle.cancel()
            async with self._turn:
                yield
        finally:
            self._wanted -= 1
            if not self._wanted:
                self._unwanted.set()

    async def idle(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` returns; it is cancelled and called again when somebody took the keyboard."""
        while True:
            await self._unwanted.wait()
            async with self._turn:
                if self._wanted:
                    # A question came while the lock was on its way here, and nobody would be
                    # there to withdraw a prompt for it.
                    continue
                self._idle = reading = asyncio.ensure_future(read())
                try:
                    await asyncio.wait([reading])
                    if not reading.cancelled():
                        return reading.result()
                finally:
                    self._idle = None
                    if not reading.done():
                        reading.cancel()
                        await asyncio.wait([reading])
