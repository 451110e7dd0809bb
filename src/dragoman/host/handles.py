"""Large results, kept aside: the model gets the beginning and pages through the rest.

Bounded for each conversation: what was used longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["PAGE_CHARS", "Handles", "Page"]

# 8 MiB and 64 results for a conversation: a day's work, and no burden to a laptop.
MAX_BYTES = 8 * 1024 * 1024
MAX_COUNT = 64
# 16,000 characters in one page: about 4,500 tokens, a small part of any context.
PAGE_CHARS = 16_000
# 20 places where a text occurs, with 200 characters around each.
MAX_FOUND = 20
AROUND_CHARS = 100


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a kept result: from character `offset` on; `total` is how long the whole is."""

    text: str
    offset: int
    total: int

    @property
    def next_offset(self) -> int | None:
        """Where the next page begins; None at the end."""
        end = self.offset + len(self.text)
        return end if end < self.total else None


@dataclass(frozen=True, slots=True)
class _Kept:
    text: str
    server: str
    size: int


class Handles:
    """The large results of one conversation, by handle ("r1", "r2", ...)."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_count: int = MAX_COUNT) -> None:
        self.max_bytes = max_bytes
        self.max_count = max_count
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._number = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def total_bytes(self) -> int:
        """How much is kept, as UTF-8."""
        return self._bytes

    def keep(self, text: str, server: str) -> str | None:
        """Keep a text; its handle, or None when it is larger than all there is room for."""
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > self.max_bytes or self.max_count < 1:
            return None
        self._number += 1
        handle = f"r{self._number}"
        self._kept[handle] = _Kept(text, server, size)
        self._bytes += size
        while self._bytes > self.max_bytes or len(self._kept) > self.max_count:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= gone.size
        return handle

    def server_of(self, handle: str) -> str | None:
        """Whose words they are; None when the handle holds nothing."""
        kept = self._kept.get(handle)
        return kept.server if kept is not None else None

    def read(self, handle: str, offset: int = 0, length: int = PAGE_CHARS) -> Page | None:
        """A part of it: at most `PAGE_CHARS`; None when the handle holds nothing."""
        kept = self._used(handle)
        if kept is None:
            return None
        start = min(max(offset, 0), len(kept.text))
        size = min(max(length, 1), PAGE_CHARS)
        return Page(kept.text[start : start + size], start, len(kept.text))

    def search(self, handle: str, wanted: str) -> list[Page] | None:
        """Where a text occurs, whatever the case, with what stands around it; `MAX_FOUND` places
        at most. None when the handle holds nothing."""
        kept = self._used(handle)
        if kept is None:
            return None
        # Case is folded for ASCII only: other folding changes lengths, and with them the offsets.
        text, word = _folded(kept.text), _folded(wanted)
        found: list[Page] = []
        at = text.find(word) if word else -1
        while at >= 0 and len(found) < MAX_FOUND:
            start = max(at - AROUND_CHARS, 0)
            end = min(at + len(word) + AROUND_CHARS, len(text))
            found.append(Page(kept.text[start:end], start, len(text)))
            # What was shown with this one is not shown again.
            at = text.find(word, end)
        return found

    def clear(self) -> None:
        """Let go of everything; no handle is given twice."""
        self._kept.clear()
        self._bytes = 0

    def _used(self, handle: str) -> _Kept | None:
        kept = self._kept.get(handle)
        if kept is not None:
            self._kept.move_to_end(handle)
        return kept


_UPPER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def _folded(text: str) -> str:
    return text.translate(_UPPER)
