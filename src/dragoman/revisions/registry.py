"""The ordered list of dialects, and the choice between them."""

from __future__ import annotations

from collections.abc import Sequence

from dragoman.errors import Misconfigured
from dragoman.revisions.dialect import Dialect
from dragoman.revisions.facts import Opening
from dragoman.revisions.v2024_11_05 import V2024_11_05
from dragoman.revisions.v2025_03_26 import V2025_03_26
from dragoman.revisions.v2025_06_18 import V2025_06_18
from dragoman.revisions.v2025_11_25 import V2025_11_25
from dragoman.revisions.v2026_07_28 import V2026_07_28

__all__ = ["DIALECTS", "HANDSHAKE", "dialect_for", "negotiate", "supported"]

DIALECTS: tuple[Dialect, ...] = (
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
    V2026_07_28,
)
"""Every revision, oldest first. Order exists only as a position in this tuple."""

HANDSHAKE: tuple[Dialect, ...] = tuple(
    dialect for dialect in DIALECTS if dialect.facts.opening is Opening.HANDSHAKE
)
"""The revisions that open with a handshake, oldest first."""

_BY_WIRE = {dialect.wire: dialect for dialect in DIALECTS}


def dialect_for(wire: str) -> Dialect | None:
    """The dialect of that name; None for a name we do not know. Unknown names never compare."""
    return _BY_WIRE.get(wire)


def supported(wanted: str | None) -> tuple[Dialect, ...]:
    """The handshake dialects to offer: all, or the one that was asked for.

    Raises:
        Misconfigured: no such revision, or one that does not open with a handshake.
    """
    if wanted is None:
        return HANDSHAKE
    dialect = _BY_WIRE.get(wanted)
    if dialect is None or dialect not in HANDSHAKE:
        known = ", ".join(one.wire for one in HANDSHAKE)
        raise Misconfigured(f"revision {wanted!r} is not one of {known}")
    return (dialect,)


def negotiate(asked: str, offered: Sequence[Dialect]) -> Dialect:
    """The server's choice: what the client asked for if we speak it, else the newest we speak.

    Spec: basic/lifecycle#version-negotiation
    """
    for dialect in offered:
        if dialect.wire == asked:
            return dialect
    return offered[-1]
