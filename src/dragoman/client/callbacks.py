"""Calling the user back, in order, whether the callback waits or not."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

__all__ = ["Callbacks"]

log = logging.getLogger("dragoman.client")

# 10,000 waiting callbacks: as many as requests that must fit; each is a small coroutine object.
MAX_WAITING = 10_000

# Whose callback is running here, in its own task or in one that it started.
_inside: ContextVar[Callbacks | None] = ContextVar("dragoman-callbacks", default=None)


class Callbacks:
    """Sync callbacks run at once; async ones one after the other, in one task."""

    def __init__(self) -> None:
        self._waiting: deque[Awaitable[Any]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._is_working = False
        self._dropped = 0
        # How many async callbacks were taken, and how many of them have ended.
        self._taken = 0
        self._ended = 0
        self._settling: deque[tuple[int, asyncio.Future[None]]] = deque()

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
        self._taken += 1
        if not self._is_working:
            self._is_working = True
            worker = asyncio.ensure_future(self._work())
            # A loop with eager tasks may have run it to its end already.
            if not worker.done():
                self._worker = worker

    async def _work(self) -> None:
        this = asyncio.current_task()
        assert this is not None
        _inside.set(self)
        try:
            while self._waiting:
                try:
                    await self._waiting.popleft()
                except Exception:
                    log.exception("a callback failed")
                except asyncio.CancelledError:
                    if this.cancelling():
                        raise
                    log.warning("a callback was cancelled by what it waited for")
                self._ended += 1
                self._tell_settled()
        finally:
            self._worker = None
            self._is_working = False

    def _tell_settled(self) -> None:
        while self._settling and self._settling[0][0] <= self._ended:
            future = self._settling.popleft()[1]
            if not future.done():
                future.set_result(None)

    async def settle(self) -> None:
        """Wait until every callback so far has run; from within one it returns at once.

        What comes later is not waited for: a peer that never stops talking would hold up every
        answer.
        """
        if self._ended == self._taken or _inside.get() is self:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append((self._taken, future))
        await future

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
        self._ended = self._taken
        self._tell_settled()
