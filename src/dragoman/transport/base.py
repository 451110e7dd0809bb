"""The three small protocols every transport implements.

A frame is `bytes`: one JSON text without a line end. Links push: what arrives is handed to the
receiver from the event loop's own callback, so a call crosses no queue on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dragoman.errors import LinkError
from dragoman.jsonrpc.frame import Delivery, Noise, Seen
from dragoman.revisions.facts import Facts

__all__ = ["About", "Connector", "Link", "Receiver"]

About = Delivery | int | str | None
"""What a frame is about: on a server the delivery that it answers or belongs to, on a client the
id of the request that it is, or that it cancels. None for what belongs to no request."""


class Receiver(Protocol):
    """Whoever a link hands its frames to; called on the event loop's thread, never concurrently."""

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        """Take 1..n whole frames, in order. Must not raise and must not block."""

    def frame_refused(self, noise: Noise) -> None:
        """A frame was over the limit and is gone; the link goes on."""

    def link_closed(self, error: LinkError | None) -> None:
        """The link is over; called exactly once, last. `error` is None after an orderly end."""

    # Only links that carry each request by itself have a use for the rest.

    def is_awaited(self, ident: int | str) -> bool:
        """Whether our request with this id still waits for its outcome."""

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        """This one request failed; `error.sent` says whether it may have run. The link goes on."""

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        """Nobody can take the answers to a delivery any more: its requests are cancelled."""

    def link_troubled(self, error: LinkError | None) -> None:
        """The peer cannot be reached now, and the link goes on trying; None once it can again."""


class Link(Protocol):
    """One open connection that moves whole frames both ways."""

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver; frames that came earlier are delivered first. Called once."""

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Queue one frame; returns at once.

        `about` and `is_answer` are for links that must choose a stream: what the frame is about,
        and whether it is a response or a batch of them. Frames queued in one turn of the loop
        leave in few writes.

        Raises:
            LinkClosed: the link is over (`sent` is False).
        """

    @property
    def is_congested(self) -> bool:
        """True while more is queued than the high-water mark; `drain` then waits."""

    async def drain(self) -> None:
        """Wait until the queue is below its high-water mark; returns at once when it is."""

    def pause_reading(self) -> None:
        """Stop delivering until `resume_reading`; the peer then feels back-pressure."""

    def resume_reading(self) -> None:
        """Deliver again."""

    def agreed(self, wire: str, facts: Facts) -> None:
        """The two sides have agreed on a revision; told once, before the next frame is sent."""

    def settle(self, delivery: Delivery) -> None:
        """No answer will come for a delivery: all that it asked was cancelled."""

    async def aclose(self) -> None:
        """End the link and everything it owns; may be called again and may be cancelled."""


class Connector(Protocol):
    """A way to open links to one peer, more than once."""

    async def connect(self) -> Link:
        """Open a link; it delivers nothing before `start`.

        Raises:
            LinkError: the peer cannot be reached or started; `sent` is False.
        """

    @property
    def description(self) -> str:
        """A short text for people: what this connects to."""
