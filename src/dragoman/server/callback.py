"""A function of the author's that clients can cause to be called, and never too often at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

__all__ = ["Callback"]

log = logging.getLogger("dragoman.server")


class Callback:
    """Calls a function that may wait: one call under way in each event loop, at most one to come.

    What it is told carries no data, so one call after the last change says as much as many.
    """

    __slots__ = ("_function", "_running", "_wanted")

    def __init__(self, function: Callable[[], Awaitable[None] | None]) -> None:
        self._function = function
        self._running: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}
        self._wanted: set[asyncio.AbstractEventLoop] = set()

    def __call__(self) -> None:
        """Call it in the running loop, now or once the call under way has ended.

        Raises:
            Exception: what the function raises before it waits.
        """
        loop = asyncio.get_running_loop()
        if loop in self._running:
            self._wanted.add(loop)
            return
        outcome = self._function()
        if outcome is None:
            return
        task = loop.create_task(self._finish(loop, outcome))
        # A loop with eager tasks may have run it to its end already.
        if not task.done():
            self._running[loop] = task

    async def _finish(
        self, loop: asyncio.AbstractEventLoop, outcome: Awaitable[None] | None
    ) -> None:
        try:
            while outcome is not None:
                await self._wait(outcome)
                outcome = None
                if loop in self._wanted:
                    self._wanted.discard(loop)
                    outcome = self._again()
        finally:
            self._running.pop(loop, None)
            self._wanted.discard(loop)

    async def _wait(self, outcome: Awaitable[None]) -> None:
        try:
            await outcome
        except Exception:
            log.exception("a callback failed")

    def _again(self) -> Awaitable[None] | None:
        try:
            return self._function()
        except Exception:
            log.exception("a callback failed")
            return None
