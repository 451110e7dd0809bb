"""The server's life around its connections: entered by the first, left by the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

__all__ = ["Lifespan"]

_Make = Callable[[], AbstractAsyncContextManager[Any]]


class Lifespan:
    """The lives of a server: one in each event loop that serves clients, each with its own state.

    What a life opens mostly belongs to the loop it was opened in, so loops in several threads
    share nothing, and none ends what another still uses.
    """

    def __init__(self, make: _Make | None) -> None:
        self._make = make
        self._lives: dict[asyncio.AbstractEventLoop, _Life] = {}

    def state_in(self, loop: asyncio.AbstractEventLoop) -> Any:
        """What the life in this loop yielded; None while there is none."""
        life = self._lives.get(loop)
        return None if life is None else life.state

    @property
    def state(self) -> Any:
        """The state of the running loop's life; where it has none, of the only one there is."""
        lives = list(self._lives.items())
        if len(lives) > 1:
            try:
                here = asyncio.get_running_loop()
            except RuntimeError:
                return None
            lives = [(loop, life) for loop, life in lives if loop is here]
        return lives[0][1].state if lives else None

    async def enter(self) -> None:
        """Begin with the first user in this loop; wait until the manager has yielded.

        Raises:
            Exception: whatever the manager raised on entering.
        """
        if self._make is None:
            return
        loop = asyncio.get_running_loop()
        life = self._lives.get(loop)
        if life is None:
            # A loop that was closed in the middle of a life never ended it.
            for one in [one for one in list(self._lives) if one.is_closed()]:
                self._lives.pop(one, None)
            life = self._lives[loop] = _Life(self._make)
        try:
            await life.enter()
        finally:
            self._forget(loop, life)

    async def leave(self) -> None:
        """End with the last user in this loop; wait until the manager is left.

        Raises:
            Exception: whatever the manager raised on leaving.
        """
        if self._make is None:
            return
        loop = asyncio.get_running_loop()
        life = self._lives[loop]
        try:
            await life.leave()
        finally:
            self._forget(loop, life)

    def _forget(self, loop: asyncio.AbstractEventLoop, life: _Life) -> None:
        if life.is_over and self._lives.get(loop) is life:
            del self._lives[loop]


class _Life:
    """Runs a context manager in one task of its own, however many connections come and go.

    So a manager that must be left in the task that entered it is safe with any of them.
    """

    def __init__(self, make: _Make) -> None:
        self._make = make
        self.state: Any = None
        self._users = 0
        self._coming = 0
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._over: asyncio.Event | None = None

    @property
    def is_over(self) -> bool:
        """Nobody uses it or is about to, and its manager is left."""
        ended = self._task is None or self._task.done()
        return ended and not self._users and not self._coming

    async def enter(self) -> None:
        """Begin with the first user; raises what the manager raises on entering."""
        self._coming += 1
        try:
            if self._users == 0 and self._task is not None:
                # The last one is on its way out.
                await asyncio.wait([self._task])
            self._users += 1
        finally:
            self._coming -= 1
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
        """End with the last user; raises what the manager raises on leaving."""
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
