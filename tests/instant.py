"""A loop in which no time passes: when everybody waits, its clock jumps to the next timer.

What would take minutes takes milliseconds, in the same order every time; and when everybody waits
for nothing that can still happen, that is an error and not a hang. For tests without sockets,
processes and threads.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingLeftToHappen(AssertionError):
    """Every task waits, and no timer is set."""


class _Jumping(selectors.SelectSelector):
    """Looks without waiting; the time that it should have waited is added to the clock."""

    now = 0.0
    turn = 0
    at: tuple[int, Callable[[], object]] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turn += 1
        if self.at is not None and self.turn == self.at[0]:
            self.at[1]()
            return []
        found = super().select(0)
        if found or timeout == 0:
            return found
        if timeout is None:
            raise NothingLeftToHappen("every task waits for what will never come")
        # A little more, since the loop compares what it computed from rounded numbers.
        self.now += max(timeout, 0.0) + 1e-6
        return found


class InstantLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since the loop was made, none of which anybody has waited."""
        return self._jumping.now

    @property
    def turn(self) -> int:
        """How often the loop has turned."""
        return self._jumping.turn

    def call_in_turn(self, turn: int, callback: Callable[[], object]) -> None:
        """Call back between two turns of the loop, the last of which is that many from now."""
        self._jumping.at = (self._jumping.turn + turn, callback)


def run_instantly(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in such a loop, and fail when it leaves a task behind."""

    async def watched() -> T:
        result = await coroutine
        # Two turns: one for what was cancelled, one for who waited for it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks were left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        return runner.run(watched())
