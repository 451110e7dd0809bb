"""Roots: the folders a server may work in.

Spec: client/roots
"""

from __future__ import annotations

import msgspec

from dragoman.model.base import Meta, Record

__all__ = ["ListRootsResult", "Root"]


class Root(Record, frozen=True, kw_only=True):
    """A folder or file the user opens to the server; `uri` is a file URI."""

    uri: str
    name: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class ListRootsResult(Record, frozen=True, kw_only=True):
    """All roots."""

    roots: list[Root]
    meta: Meta | None = msgspec.field(name="_meta", default=None)
