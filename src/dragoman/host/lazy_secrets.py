"""The user's secrets, for a host: opened late, and asked one at a time."""

from __future__ import annotations

import threading
from pathlib import Path

from dragoman.host.secrets import SecretStore

__all__ = ["LazySecrets"]


class LazySecrets:
    """The user's secrets, opened when the first is needed: a keyring takes a while to load."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store: SecretStore | None = None
        # Each server's are looked up in a thread of its own; a person is asked one thing at a time.
        self._turn = threading.Lock()

    def get(self, name: str, *, only_keyring: bool = False) -> str:
        """A secret, as `SecretStore.get`, and with its errors."""
        with self._turn:
            if self._store is None:
                self._store = SecretStore.open(self._folder)
            return self._store.get(name, only_keyring=only_keyring)

    @property
    def known(self) -> tuple[str, ...]:
        """The values that were looked up so far."""
        return () if self._store is None else self._store.known
