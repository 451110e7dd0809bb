"""Roots: the folders a server may work in.

Spec: client/roots
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from dragoman.model.base import Meta, Record

__all__ = ["ListRootsResult", "Root"]


class Root(Record, frozen=True, kw_only=True):
    """A folder or file the user opens to the server; `uri` is a file URI."""

    uri: str
    name: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @property
    def path(self) -> Path:
        """The folder as a path of this machine. ValueError when it is no file URI."""
        parts = urlsplit(self.uri)
        if parts.scheme != "file":
            raise ValueError(f"{self.uri!r} is no file URI")
        # On Windows a file URI has a slash before the drive's letter.
        path = unquote(parts.path)
        return Path(path.removeprefix("/") if os.name == "nt" else path)

    def holds(self, path: str | Path) -> bool:
        """Whether a path lies in this root, after every `..` and every link was followed."""
        return Path(path).resolve().is_relative_to(self.path.resolve())


class ListRootsResult(Record, frozen=True, kw_only=True):
    """All roots."""

    roots: list[Root]
    meta: Meta | None = msgspec.field(name="_meta", default=None)
