"""What a provider wants back with the next request, and nobody else reads.

Models that think give their thoughts a signature, or want to see them again as long as their calls
are being answered. The records of a conversation have no place for that, so the adapter keeps it by
the ids of the calls.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

__all__ = ["Kept"]

# 256 calls: as many as one answer may have; a turn has 64.
MAX_KEPT = 256
# 8,388,608 characters in all: a long turn of a model that thinks a lot has a tenth of it.
MAX_KEPT_CHARS = 8 * 1024 * 1024


class Kept:
    """Values by the ids of calls; beyond the bounds the oldest are forgotten."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._chars = 0

    def keep(self, key: str, value: Any, chars: int) -> None:
        """Keep a value of about `chars` characters for the call with the id `key`."""
        self._chars -= self._values.pop(key, (None, 0))[1]
        self._values[key] = (value, chars)
        self._chars += chars
        while len(self._values) > MAX_KEPT or self._chars > MAX_KEPT_CHARS:
            _, (_, gone) = self._values.popitem(last=False)
            self._chars -= gone

    def of(self, ids: Iterable[str]) -> Any:
        """The value of the first call that has one; None when none has."""
        for key in ids:
            if key in self._values:
                return self._values[key][0]
        return None
