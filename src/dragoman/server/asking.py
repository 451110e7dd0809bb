"""How a handler asks the client for something: one small strategy, chosen by the revision.

The context holds one of these and never a session, so that a handler's `await` reads the same
whichever way the question travels.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, cast

from dragoman.errors import AskRefused, BadAnswer, ClientLost, LinkError, PeerError, RemoteFailure
from dragoman.model.base import Record
from dragoman.protocol.calls import Exchange
from dragoman.runtime.driver import Driver

__all__ = ["DirectAsk", "Strategy"]

R = TypeVar("R", bound=Record)


class Strategy(Protocol):
    """A way to ask the client."""

    async def ask(
        self, method: str, params: Record, result: type[R], *, timeout_s: float | None = None
    ) -> R:
        """Ask, and wait for the answer."""


class DirectAsk:
    """A request of our own, beside the one being handled.

    Raises from `ask`:
        NotNegotiated: the client did not declare the feature.
        CannotLower: the client's revision has no such thing.
        AskRefused: the client or its user refused.
        BadAnswer: the answer is not what the method answers with.
        DeadlineExceeded, ClientLost: no answer came.
    """

    __slots__ = ("_driver", "_exchange")

    def __init__(self, driver: Driver, exchange: Exchange) -> None:
        self._driver = driver
        self._exchange = exchange

    async def ask(
        self, method: str, params: Record, result: type[R], *, timeout_s: float | None = None
    ) -> R:
        """Ask, and wait for the answer."""
        try:
            about = self._exchange.seen.delivery
            return cast(
                R, await self._driver.request(method, params, timeout_s=timeout_s, about=about)
            )
        except RemoteFailure as failure:
            raise AskRefused(
                failure.code, failure.message, failure.data, method=failure.method
            ) from None
        except PeerError as fault:
            raise BadAnswer(method, str(fault)) from None
        except LinkError as lost:
            # Handlers may have connections of their own; this one is their client's.
            raise ClientLost(str(lost), sent=lost.sent) from None
