"""How much of the peer's is let in: requests under way, and requests in a second."""

from __future__ import annotations

from dragoman.protocol.limits import Bucket, Limits

__all__ = ["Admission"]


class Admission:
    """Counts the requests of one peer against the ceilings.

    `is_limited` where every request is counted, and not only those of some methods; `is_counting`
    once one of those has begun.
    """

    # A server has one for each session: buckets and counts are made when they are needed.
    __slots__ = ("_at_once", "_limits", "_rates", "_requests", "is_counting", "is_limited")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rates: dict[str, Bucket] | None = None
        # How many of each limited method are under way.
        self._at_once: dict[str, int] | None = None
        self._requests: Bucket | None = None
        self.is_counting = False
        self.is_limited = limits.requests_per_s is not None

    def excess(self, name: str, under_way: int, now: float) -> str | None:
        """Which limit one more request would break, in words; None for none, and then it counts."""
        limits = self._limits
        if under_way >= limits.max_exchanges and name != "ping":
            # A ping is answered on the spot, so it is never one too many.
            return f"{under_way} requests are under way; wait for some to end"
        if limits.requests_per_s is not None:
            if self._requests is None:
                self._requests = Bucket(limits.requests_per_s, limits.requests_burst)
            if not self._requests.take(now):
                return f"more than {limits.requests_per_s:g} requests a second; slow down"
        rate = limits.rates.get(name)
        if rate is None:
            return None
        at_once = 0 if self._at_once is None else self._at_once.get(name, 0)
        if at_once >= rate.at_once:
            return f"{name} is limited to {rate.at_once} at once; wait for some to end"
        if self._rates is None:
            self._rates = {}
        bucket = self._rates.get(name)
        if bucket is None:
            bucket = self._rates[name] = Bucket(rate.per_s, rate.burst)
        if not bucket.take(now):
            return f"{name} is limited to {rate.per_s:g} a second; slow down"
        return None

    def began(self, name: str) -> None:
        """A request of a limited method is under way."""
        if self._at_once is None:
            self._at_once = {}
            self.is_counting = True
        self._at_once[name] = self._at_once.get(name, 0) + 1

    def ended(self, name: str) -> None:
        """A request is under way no more."""
        if self._at_once is not None and name in self._at_once:
            self._at_once[name] -= 1

    def all_ended(self) -> None:
        """None is under way any more."""
        self._at_once = None
        self.is_counting = False
