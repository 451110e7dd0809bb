"""What a server offers: named entries that can come and go while it runs, listed page by page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Generic, Protocol, TypeVar

from dragoman.errors import InvalidParams, Misconfigured
from dragoman.model.base import Record

__all__ = ["PAGE_SIZE", "Entry", "Registry"]

# 500: one page for nearly every server, so that a client that forgets to ask for more misses
# nothing; a page of 500 tools is about 200 kB.
PAGE_SIZE = 500

# 200 names of 64 characters take under ten milliseconds to compare with one; a client can ask for
# unknown ones as often as it likes.
MAX_COMPARED = 200
MAX_NAME_CHARS = 64

# 64 characters: a number in hexadecimal, a dot and 18 more; what is longer was not made here.
MAX_CURSOR_CHARS = 64


class Entry(Protocol):
    """Something a registry holds."""

    @property
    def key(self) -> str:
        """Its name or URI."""

    @property
    def definition(self) -> Record:
        """What a list shows of it."""


E = TypeVar("E", bound=Entry)


class _Slot(Generic[E]):
    __slots__ = ("entry", "is_enabled", "number")

    def __init__(self, entry: E, number: int, is_enabled: bool) -> None:
        self.entry = entry
        self.number = number
        self.is_enabled = is_enabled


class Registry(Generic[E]):
    """Entries by key, in the order they were added.

    `kind` is the word for messages ("tool"); `changed` is called after every visible change.
    """

    def __init__(self, kind: str, changed: Callable[[], None], page_size: int = PAGE_SIZE) -> None:
        if page_size < 1:
            raise Misconfigured(f"a page holds at least 1 entry, got page_size={page_size}")
        self.kind = kind
        self.page_size = page_size
        self._changed = changed
        self._slots: dict[str, _Slot[E]] = {}
        self.visible: dict[str, E] = {}
        """What clients see, by key. Read it, and do not keep it: a change may bring another."""
        self._next = 1
        self._secret = os.urandom(16)
        self.version = 0
        """Grows with every visible change: what was made from an older one is stale."""

    # --- changing -------------------------------------------------------------------------------

    def add(self, entry: E, *, enabled: bool = True, replace: bool = False) -> None:
        """Add an entry.

        Raises:
            Misconfigured: the key is taken, and `replace` was not asked for.
        """
        key = entry.key
        old = self._slots.get(key)
        if old is not None and not replace:
            raise Misconfigured(
                f"there is a {self.kind} {key!r} already; remove it first, or give another name"
            )
        number = self._next if old is None else old.number
        if old is None:
            self._next += 1
        self._slots[key] = _Slot(entry, number, enabled)
        if old is None and enabled:
            # The usual case, at its cost: a thousand tools are added one by one.
            self.visible[key] = entry
            self._tell_changed()
        else:
            self._refresh()

    def remove(self, key: str) -> E:
        """Take an entry away. Raises Misconfigured when there is none."""
        slot = self._slot(key)
        del self._slots[key]
        self._refresh()
        return slot.entry

    def enable(self, key: str, enabled: bool = True) -> None:
        """Show an entry, or hide it: a hidden one is as if it did not exist."""
        slot = self._slot(key)
        if slot.is_enabled != enabled:
            slot.is_enabled = enabled
            self._refresh()

    def _slot(self, key: str) -> _Slot[E]:
        slot = self._slots.get(key)
        if slot is None:
            raise Misconfigured(f"there is no {self.kind} {key!r}{self.suggest(key)}")
        return slot

    def _refresh(self) -> None:
        # Copies, here and below: another thread may add an entry meanwhile.
        slots = list(self._slots.items())
        self.visible = {key: slot.entry for key, slot in slots if slot.is_enabled}
        self._tell_changed()

    def _tell_changed(self) -> None:
        self.version += 1
        self._changed()

    # --- reading --------------------------------------------------------------------------------

    def get(self, key: str) -> E | None:
        """The visible entry of that key."""
        return self.visible.get(key)

    def __iter__(self) -> Iterator[E]:
        return iter(list(self.visible.values()))

    def __len__(self) -> int:
        return len(self.visible)

    @property
    def is_used(self) -> bool:
        """Whether there is any entry, were it a hidden one."""
        return bool(self._slots)

    def suggest(self, key: str) -> str:
        """A helpful end for "there is no such ..."."""
        key = key[:MAX_NAME_CHARS]
        names = [name for name in list(self.visible) if len(name) <= MAX_NAME_CHARS]
        if len(names) > MAX_COMPARED:
            # Names that are alike have much the same length.
            names = sorted(names, key=lambda name: abs(len(name) - len(key)))[:MAX_COMPARED]
        near = get_close_matches(key, names, n=1)
        return f"; did you mean {near[0]!r}?" if near else ""

    # --- pages ----------------------------------------------------------------------------------

    def page(self, cursor: str | None) -> tuple[list[E], str | None]:
        """The entries after a cursor, and the cursor of the next page, if there is one.

        A cursor stays good while entries come and go: it names the last entry that was seen, not
        a count. It is sealed, so that only cursors made here, for this list, are accepted.

        Raises:
            InvalidParams: the cursor was not made here.
        """
        after = 0 if cursor is None else self._open(cursor)
        found: list[_Slot[E]] = []
        for slot in list(self._slots.values()):
            if slot.is_enabled and slot.number > after:
                if len(found) == self.page_size:
                    return [one.entry for one in found], self._seal(found[-1].number)
                found.append(slot)
        return [one.entry for one in found], None

    def _seal(self, number: int) -> str:
        return f"{number:x}.{self._mark(number)}"

    def _open(self, cursor: str) -> int:
        number, _, mark = cursor[:MAX_CURSOR_CHARS].partition(".")
        try:
            value = int(number, 16)
        except ValueError:
            value = 0
        if value < 1 or mark != self._mark(value) or cursor != self._seal(value):
            raise InvalidParams("the cursor was not given out by this list; start without one")
        return value

    def _mark(self, number: int) -> str:
        # Imported when a list has a second page: it is not needed before.
        from hashlib import blake2s

        text = f"{self.kind}:{number}".encode()
        return blake2s(text, key=self._secret, digest_size=9).hexdigest()
