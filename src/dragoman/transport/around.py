"""A link around another one."""

from __future__ import annotations

from typing import Any

from dragoman.jsonrpc.frame import Delivery
from dragoman.revisions.facts import Facts
from dragoman.transport.base import About, Link, Receiver

__all__ = ["LinkAround"]


class LinkAround:
    """A `Link` that is the link inside of it, but for what a subclass does in another way."""

    __slots__ = ("inner",)

    def __init__(self, inner: Link) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        # What else a link tells of its end, such as a child's stderr and exit code.
        return getattr(self.inner, name)

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver."""
        self.inner.start(receiver)

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Queue one frame; see `Link.send`."""
        self.inner.send(frame, about, is_answer)

    @property
    def is_congested(self) -> bool:
        """See `Link.is_congested`."""
        return self.inner.is_congested

    async def drain(self) -> None:
        """Wait until the queue is below its high-water mark."""
        await self.inner.drain()

    def pause_reading(self) -> None:
        """Stop delivering until `resume_reading`."""
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again."""
        self.inner.resume_reading()

    def agreed(self, wire: str, facts: Facts) -> None:
        """The two sides have agreed on a revision."""
        self.inner.agreed(wire, facts)

    def settle(self, delivery: Delivery) -> None:
        """No answer will come for a delivery."""
        self.inner.settle(delivery)

    async def aclose(self) -> None:
        """End the link inside."""
        await self.inner.aclose()
