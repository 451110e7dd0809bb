"""Calling the user back, in order, whether the callback waits or not."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Callbacks"]

log = logging.getLogger("dragoman.client")

# 10,000 waiting callbacks: as many as requests that must fit; each is a small coroutine object.
MAX_WAITING = 10_000


class Callbacks:
    """Sync callbacks run at once; async ones one after the other, in one task."""

    def __init__(self) -> None:
        self._waiting: deque[Awaitable[Any]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._dropped = 0

    def call(self, callback: Callable[..., Any] | None, *args: Any) -> None:
        """Call back; a failure is logged and hurts nobody else."""
        if callback is None:
            return
        try:
            outcome = callback(*args)
        except Exception:
            log.exception("the callback %r failed", callback)
            return
        if outcome is None or not hasattr(outcome, "__await__"):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            if hasattr(outcome, "close"):
                outcome.close()
            log.warning("%d callbacks were dropped: they run too slowly", self._dropped)
            return
        self._waiting.append(outcome)
        if self._worker is None:
            self._worker = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        try:
            while self._waiting:
                try:
                    await self._waiting.popleft()
                except Exception:
                    log.exception("a callback failed")
        finally:
            self._worker = None

    async def settle(self) -> None:
        """Wait until every callback so far has run; from within one it returns at once."""
        worker = self._worker
        if worker is not None and worker is not asyncio.current_task():
            await asyncio.wait([worker])

    async def aclose(self) -> None:
        """Drop what waits and stop."""
        while self._waiting:
            outcome = self._waiting.popleft()
            if hasattr(outcome, "close"):
                outcome.close()
        worker = self._worker
        if worker is not None and worker is not asyncio.current_task():
            worker.cancel()
            await asyncio.wait([worker])
