"""Every ceiling of the protocol: value, unit, reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["ASKS", "Bucket", "Limits", "Rate"]


class Rate(NamedTuple):
    """How often the peer may ask for one thing: `at_once` under way together, `burst` in a row,
    `per_s` a second in the long run."""

    at_once: int
    burst: int
    per_s: float


ASKS: Mapping[str, Rate] = MappingProxyType(
    {
        # A model's time costs money: a server with a hundred calls under way may sample for each,
        # but 10 a second is more than a person could look at.
        "sampling/createMessage": Rate(at_once=100, burst=200, per_s=10.0),
        # A form is for a person: ten open ones are too many already.
        "elicitation/create": Rate(at_once=10, burst=20, per_s=1.0),
    }
)
"""What a client lets its server ask for, by method.

Spec: client/sampling#security-considerations, client/elicitation#security-considerations
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """The ceilings of one connection."""

    max_exchanges: int = 16_384
    """Requests of the peer under way at once. 10,000 must fit; each holds a few hundred bytes."""

    max_calls: int = 16_384
    """Our own requests under way at once; the same number, so that two of us never block."""

    max_subscriptions: int = 10_000
    """Resources one peer may subscribe to; a URI and a set entry each."""

    max_abandoned: int = 1_024
    """Ids of given-up calls to remember, so that a late answer is told from a stray one."""

    max_batch: int = 1_000
    """Members of one batch; a larger one is refused whole."""

    call_timeout_s: float = 60.0
    """How long a request of ours may stay without a sign of life. 60 s is what the official SDKs
    use; progress starts the time anew."""

    call_total_s: float = 3_600.0
    """How long a request of ours may take in all, whatever progress it reports."""

    exchange_timeout_s: float = 3_600.0
    """How long one of our handlers may take. The peer's own deadline is nearly always sooner; this
    one ends what nobody waits for any more."""

    progress_per_s: float = 20.0
    """Progress notifications a request may send in the long run; eyes see no more."""

    progress_burst: int = 50
    """... and at once, so that short work reports every step."""

    requests_per_s: float | None = None
    """Requests a peer may make in the long run; None leaves only `max_exchanges` to bound it."""

    requests_burst: int = 1_000
    """... and at once, where `requests_per_s` is set."""

    logs_per_s: float = 500.0
    """Log messages a connection may send in the long run."""

    logs_burst: int = 2_000
    """... and at once."""

    rates: Mapping[str, Rate] = field(default_factory=lambda: ASKS)
    """Methods of the peer that are limited one by one; a server may add its own. What is over is
    refused with -32000."""


class Bucket:
    """A token bucket: `burst` at once, `per_s` in the long run."""

    __slots__ = ("_at", "_left", "burst", "per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self.per_s = per_s
        self.burst = burst
        self._left = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """True when one more is allowed at this time, in seconds; one that is past adds nothing."""
        if self._at is None:
            self._at = now
        elif now > self._at:
            self._left = min(self.burst, self._left + (now - self._at) * self.per_s)
            self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
