"""Time behind one small protocol, so that tests can own it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "LoopClock", "Timer"]


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None:
        """It will not happen."""


class Clock(Protocol):
    """Monotonic time, in seconds from an arbitrary start."""

    def now(self) -> float:
        """The time."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at that time, or as soon as possible when it has passed."""


class LoopClock:
    """The time of the running event loop."""

    __slots__ = ("_call_at", "now")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = loop.time
        self._call_at = loop.call_at

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at that time of the loop."""
        return self._call_at(when, callback)
