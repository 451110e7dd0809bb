"""Which resources the peer wants to hear about.

Spec: server/resources#subscriptions
"""

from __future__ import annotations

from dragoman.errors import RequestError

__all__ = ["Subscriptions"]


class Subscriptions:
    """The URIs one client subscribed to; at most `limit` of them."""

    __slots__ = ("_uris", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._uris: set[str] = set()

    def add(self, uri: str) -> None:
        """Subscribe; a second time changes nothing. RequestError -32000 over the limit."""
        if uri not in self._uris and len(self._uris) >= self.limit:
            raise RequestError(f"more than {self.limit} subscriptions", code=-32000)
        self._uris.add(uri)

    def remove(self, uri: str) -> bool:
        """Unsubscribe; False when there was no subscription."""
        if uri in self._uris:
            self._uris.remove(uri)
            return True
        return False

    def __contains__(self, uri: str) -> bool:
        return uri in self._uris

    def __len__(self) -> int:
        return len(self._uris)
