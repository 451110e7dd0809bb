"""The roots a client opens to its servers.

Spec: client/roots
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dragoman.errors import Misconfigured
from dragoman.model.roots import Root

__all__ = ["RootLike", "as_roots"]

RootLike = Root | str | Path


def as_roots(given: Iterable[RootLike]) -> list[Root]:
    """Roots from paths and file URIs; a path becomes absolute and is named after its last part.

    Raises:
        Misconfigured: a URI is no file URI, is not absolute, or holds `..`, a null character or an
            encoded separator.
    """
    return [_root(one) for one in given]


def _root(given: RootLike) -> Root:
    if isinstance(given, Path):
        return Root(uri=given.absolute().as_uri(), name=given.name or None)
    if isinstance(given, str):
        if "://" not in given:
            return _root(Path(given))
        given = Root(uri=given)
    parts = urlsplit(given.uri)
    if parts.scheme != "file":
        raise Misconfigured(f"a root must be a file URI, not {given.uri!r}")
    if "%2f" in parts.path.lower() or "%5c" in parts.path.lower():
        raise Misconfigured(f"a root must hold no encoded separator: {given.uri!r}")
    path = unquote(parts.path)
    if not path.startswith("/") or "\x00" in path or ".." in path.split("/"):
        raise Misconfigured(f"a root must be an absolute path without '..': {given.uri!r}")
    return given
