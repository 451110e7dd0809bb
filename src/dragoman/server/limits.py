"""How often a client may ask a server for one thing.

Spec: server/tools#security-considerations, server/utilities/completion#security
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dragoman.protocol.limits import ASKS, Rate

__all__ = ["OFFERS"]

OFFERS: Mapping[str, Rate] = MappingProxyType(
    {
        **ASKS,
        # One request a keystroke: 50 a second is ten people who type at once.
        "completion/complete": Rate(at_once=100, burst=500, per_s=50.0),
    }
)
"""What is limited unless the server is given other `Limits`.

Tool calls are bounded by `Limits.max_exchanges` at once. How many a second are too many depends on
the tool, so a server that wants such a bound gives its own: `Limits(rates={**OFFERS,
"tools/call": Rate(at_once=64, burst=200, per_s=100.0)})`.
"""
