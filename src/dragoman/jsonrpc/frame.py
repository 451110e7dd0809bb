"""What travels between a link and an engine besides the bytes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["LOCAL", "Delivery", "Noise", "Principal", "Seen"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is behind a frame, as far as the link can tell.

    `name` is stable and unique within `issuer`; the local user behind a pipe is `LOCAL`.
    """

    name: str
    issuer: str = "local"


class Delivery:
    """What came in one piece, on links where an answer has to find its way back.

    `open` is how many of its requests have no answer yet; the engine counts. `is_unreadable` when
    it was no message, or a batch of nothing but such.
    """

    __slots__ = ("is_unreadable", "open")

    def __init__(self) -> None:
        self.open = 0
        self.is_unreadable = False

    @property
    def is_congested(self) -> bool:
        """True while more waits for whoever reads its answer than should; `drain` then waits."""
        return False

    async def drain(self) -> None:
        """Wait until enough was read; returns at once when nothing waits."""

    def let_go(self, retry_s: float) -> bool:
        """Close the connection that waits for the answer; whoever waits comes back for it.

        False where nobody could come back, and nothing was closed.
        """
        return False


_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Seen:
    """What the link knows about a frame without opening it.

    `headers` have lower-case names; `delivery` is what the frame was part of, where that matters.
    """

    __slots__ = ("delivery", "headers", "principal")

    def __init__(
        self,
        principal: Principal,
        headers: Mapping[str, str] = _NO_HEADERS,
        delivery: Delivery | None = None,
    ) -> None:
        self.principal = principal
        self.headers = headers
        self.delivery = delivery


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
