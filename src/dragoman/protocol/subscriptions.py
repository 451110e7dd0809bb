"""Which resources the peer wants to hear about.

Spec: server/resources#subscriptions
"""

from __future__ import annotations

from collections.abc import Iterator

from dragoman.errors import RequestError

__all__ = ["Subscriptions"]


# A million characters: 10,000 URIs of a hundred each. A URI may be long, but not all of them.
MAX_CHARS = 1_000_000


class Subscriptions:
    """The URIs one client subscribed to; at most `limit` of them. `changes` counts changes."""

    __slots__ = ("_chars", "_uris", "changes", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.changes = 0
        self._chars = 0
        # Most clients subscribe to nothing, and a set is larger than all the rest of this.
        self._uris: set[str] | None = None

    def add(self, uri: str) -> None:
        """Subscribe; a second time changes nothing. RequestError -32000 over the limit."""
        if self._uris is None:
            self._uris = set()
        if uri in self._uris:
            return
        if len(self._uris) >= self.limit:
            raise RequestError(f"more than {self.limit} subscriptions", code=-32000)
        if self._chars + len(uri) > MAX_CHARS:
            text = f"subscriptions of more than {MAX_CHARS} characters in all"
            raise RequestError(text, code=-32000)
        self._uris.add(uri)
        self._chars += len(uri)
        self.changes += 1

    def remove(self, uri: str) -> bool:
        """Unsubscribe; False when there was no subscription."""
        if self._uris is not None and uri in self._uris:
            self._uris.remove(uri)
            self._chars -= len(uri)
            self.changes += 1
            return True
        return False

    def __contains__(self, uri: str) -> bool:
        return self._uris is not None and uri in self._uris

    def __iter__(self) -> Iterator[str]:
        return iter(self._uris or ())

    def __len__(self) -> int:
        return len(self._uris or ())
