"""How much a server may ask for: how often, for how long, and for how many tokens.

Pure, but for the clock that is passed in. What is refused here costs a person nothing: they never
see it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection

from dragoman.host.kinds import Code, Problem

__all__ = ["Budget", "Reservation", "estimated_tokens"]

# 60 s: what is counted "a minute" is any minute, not the one on the clock.
WINDOW_S = 60.0

# 4 bytes of UTF-8 make a token, near enough for English; other scripts have fewer letters to it
# and more bytes to a letter, so that it evens out or errs on the side of counting more.
BYTES_PER_TOKEN = 4


def estimated_tokens(text: str | bytes) -> int:
    """About how many tokens a text has, whatever the model; at least 1 unless it is empty."""
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


class Budget:
    """What one server asks for in one session. `clock` counts seconds from anywhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}
        # How often something was asked while a call was under way, by the call.
        self._rounds: dict[tuple[str, str], int] = {}
        # How often in a row it was refused, by kind, and the record that says so.
        self._refused: dict[str, int] = {}
        self.records: dict[str, int] = {}
        self._spent = 0

    @property
    def tokens(self) -> int:
        """Tokens that were used or are set aside."""
        return self._spent

    def take_turn(
        self, kind: str, calls: Collection[str], *, per_minute: int, per_call: int
    ) -> Problem | None:
        """Count one request of a kind, or say why it is one too many; that one is not counted.

        `calls` are the calls under way. Nobody can tell which of them a request belongs to, so it
        counts for all, and is refused when all have had their share.
        """
        problem = self._too_many(kind, calls, per_minute, per_call)
        self._refused[kind] = 0 if problem is None else self._refused.get(kind, 0) + 1
        return problem

    def is_news(self, kind: str) -> bool:
        """Whether the last refusal of a kind has to be recorded: the first in a row, the second, the
        fourth, the eighth. A server that asks without end would else fill the disk.

        `records` has the number of the last such record, by kind, for whoever puts it there.
        """
        count = self._refused.get(kind, 0)
        return count & (count - 1) == 0

    def _too_many(
        self, kind: str, calls: Collection[str], per_minute: int, per_call: int
    ) -> Problem | None:
        now = self._clock()
        times = self._times.setdefault(kind, deque())
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if len(times) >= per_minute:
            return Problem(
                code=Code.RATE_LIMIT,
                text=f"the server has asked {len(times)} times within a minute, the most there may "
                f"be is {per_minute}{self._since(kind)}",
            )
        self._rounds = {
            (of, call): count
            for (of, call), count in self._rounds.items()
            if of != kind or call in calls
        }
        counts = [self._rounds.get((kind, call), 0) for call in calls]
        if counts and min(counts) >= per_call:
            return Problem(
                code=Code.RATE_LIMIT,
                text=f"the server has asked {min(counts)} times during one call, the most there "
                f"may be is {per_call}",
            )
        times.append(now)
        for call in calls:
            self._rounds[kind, call] = self._rounds.get((kind, call), 0) + 1
        return None

    def _since(self, kind: str) -> str:
        count = self._refused.get(kind, 0)
        return f"; it was refused {count} times since" if count else ""

    def reserve(self, used: int, wanted: int, *, most: int) -> Reservation | Problem:
        """Set tokens aside: `used` that are certain, and of those `wanted` as many as are left.

        `most` is what there is in the whole session. What is set aside by others counts as used, so
        that two at once cannot spend the same.
        """
        left = most - self._spent - used
        if left <= 0:
            return Problem(
                code=Code.BUDGET,
                text=f"{self._spent} of the {most} tokens for this session are used, and this "
                f"needs about {used} and an answer",
            )
        return Reservation(self, used, min(wanted, left))

    def change(self, tokens: int) -> None:
        """Count more tokens as used, or fewer."""
        self._spent += tokens


class Reservation:
    """Tokens that are set aside until it is known how many were used.

    `granted` is how long an answer may be; `used` what the question itself costs.
    """

    __slots__ = ("_budget", "_held", "granted", "used")

    def __init__(self, budget: Budget, used: int, granted: int) -> None:
        self._budget = budget
        self.used = used
        self.granted = granted
        self._held = used + granted
        budget.change(self._held)

    def settle(self, tokens: int) -> None:
        """So many were used in all; the rest is free again. More than was set aside counts, too."""
        self._budget.change(tokens - self._held)
        self._held = tokens
