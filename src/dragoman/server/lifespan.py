"""The server's life around its connections: entered by the first, left by the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

__all__ = ["Lifespan"]


class Lifespan:
    """Runs a context manager in one task of its own, however many connections come and go.

    So a manager that must be left in the task that entered it is safe with any of them.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]] | None) -> None:
        self._make = make
        self.state: Any = None
        self._users = 0
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._over: asyncio.Event | None = None

    async def enter(self) -> None:
        """Begin with the first user; wait until the manager has yielded.

        Raises:
            Exception: whatever the manager raised on entering.
        """
        if self._make is None:
            return
        if self._users == 0 and self._task is not None:
            # The last one is on its way out.
            await asyncio.wait([self._task])
        self._users += 1
        if self._users == 1:
            self._ready = asyncio.get_running_loop().create_future()
            self._over = asyncio.Event()
            self._task = asyncio.ensure_future(self._live(self._ready, self._over))
        assert self._ready is not None
        try:
            await asyncio.shield(self._ready)
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """End with the last user; wait until the manager is left. Raises what it raises."""
        if self._make is None:
            return
        self._users -= 1
        if self._users > 0:
            return
        assert self._over is not None
        assert self._task is not None
        self._over.set()
        task = self._task
        if self._ready is not None and not self._ready.done():
            # It has not begun, and nobody waits for it any more.
            task.cancel()
        try:
            await asyncio.shield(task)
        finally:
            # Whoever came meanwhile may have begun another life already.
            if task.done() and self._task is task:
                self._task = None

    async def _live(self, ready: asyncio.Future[None], over: asyncio.Event) -> None:
        assert self._make is not None
        try:
            async with self._make() as state:
                self.state = state
                ready.set_result(None)
                await over.wait()
        except BaseException as error:
            if ready.done():
                raise
            if isinstance(error, asyncio.CancelledError):
                ready.cancel()
                return
            # Whoever waits for the start hears of it; nobody else has to.
            ready.set_exception(error)
            ready.exception()
        finally:
            self.state = None
