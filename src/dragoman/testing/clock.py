"""Time that moves only when a test says so."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from dragoman.runtime.clock import Timer

__all__ = ["ManualClock"]


class ManualClock:
    """A clock for a `Driver`; it stands still until `advance` moves it."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now = start_s
        self._alarms: list[_Alarm] = []
        self._count = 0

    def now(self) -> float:
        """The time, in seconds."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back when `advance` reaches that time; `advance(0)` makes what is due already."""
        self._count += 1
        alarm = _Alarm(when, self._count, callback)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def advance(self, seconds: float) -> int:
        """Move on, and make every call that falls due, each at its own time and in order.

        Returns how many were made. Tasks that they wake run when the test next awaits.
        """
        end = self._now + seconds
        made = 0
        while (due := self.next_alarm()) is not None and due <= end:
            alarm = heapq.heappop(self._alarms)
            self._now = max(self._now, alarm.when)
            alarm.callback()
            made += 1
        self._now = end
        return made

    def next_alarm(self) -> float | None:
        """When the next call falls due; None when none is planned."""
        while self._alarms and self._alarms[0].is_cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0].when if self._alarms else None


class _Alarm:
    """One planned call."""

    __slots__ = ("_place", "callback", "is_cancelled", "when")

    def __init__(self, when: float, place: int, callback: Callable[[], None]) -> None:
        self.when = when
        self._place = place
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        """It will not happen."""
        self.is_cancelled = True

    def __lt__(self, other: _Alarm) -> bool:
        # Calls for the same time are made in the order in which they were planned.
        return (self.when, self._place) < (other.when, other._place)
