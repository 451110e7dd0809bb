"""What is written down of a peer's faults: the first ones in full, of a flood only how many."""

from __future__ import annotations

import logging

from dragoman.model.methods import Side
from dragoman.protocol.events import Fault, FaultKind
from dragoman.protocol.limits import Bucket
from dragoman.runtime.clock import Clock

__all__ = ["BURST", "PER_S", "FaultLog"]

# 20 lines at once show what kind of peer it is, and 1 a second that it goes on; a peer that means
# harm would fill a disk with more.
BURST = 20
PER_S = 1.0

# A cancellation that crosses the answer on its way: nothing is wrong.
_RACES = frozenset({FaultKind.STRAY_CANCEL})

# Clients of newer revisions begin by asking for a method that tells them which they have met; the
# refusal is the answer, and nothing is wrong.
_OF_CLIENTS = _RACES | {FaultKind.UNKNOWN_METHOD}


class FaultLog:
    """Writes the faults of one peer as warnings: `BURST` at once, `PER_S` in the long run.

    What is left out is counted, and the count is told with the next one that is written, or at
    `close`. What happens between peers that do nothing wrong is written at DEBUG.
    """

    def __init__(self, side: Side, clock: Clock) -> None:
        self._peer = side.other.value
        self._harmless = _OF_CLIENTS if side is Side.SERVER else _RACES
        self._clock = clock
        self._bucket = Bucket(PER_S, BURST)
        self._left_out = 0
        self._logger: logging.Logger | None = None

    def write(self, logger: logging.Logger, fault: Fault) -> None:
        """Write one fault down, or count it."""
        if fault.kind in self._harmless:
            level = logging.DEBUG
        elif self._bucket.take(self._clock.now()):
            level = logging.WARNING
            self._tell_left_out()
        else:
            self._left_out += 1
            self._logger = logger
            return
        logger.log(
            level, "the %s broke the protocol: %s (%s)", self._peer, fault.kind.value, fault.detail
        )

    def close(self) -> None:
        """The connection is over: say what was left out."""
        self._tell_left_out()

    def _tell_left_out(self) -> None:
        if self._logger is not None:
            count, self._left_out = self._left_out, 0
            self._logger.warning("%d more faults of the %s were not logged", count, self._peer)
            self._logger = None
