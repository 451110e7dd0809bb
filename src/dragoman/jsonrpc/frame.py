"""What travels between a link and an engine besides the bytes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["LOCAL", "Noise", "Principal", "Seen"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is behind a frame, as far as the link can tell.

    `name` is stable and unique within `issuer`; the local user behind a pipe is `LOCAL`.
    """

    name: str
    issuer: str = "local"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the link knows about a frame without opening it: its headers and its principal."""

    principal: Principal
    headers: Mapping[str, str] = field(default_factory=dict)


LOCAL = Seen(Principal("local"))


@dataclass(frozen=True, slots=True)
class Noise:
    """A frame that a link refused to hold.

    `size` counts all of its bytes; `head` and `tail` are its first and last bytes (at most 1 KiB
    each), enough to find a request id; `limit` is the ceiling it met.
    """

    reason: str
    size: int
    limit: int
    head: bytes = b""
    tail: bytes = b""
