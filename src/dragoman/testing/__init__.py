"""Aids for tests, ours and yours: a clock, two linked engines, a peer that follows a script, links
and a proxy that fail on purpose.

The schema oracle stands in `dragoman.testing.oracle`; it needs jsonschema.
"""

from __future__ import annotations

from dragoman.testing.clock import ManualClock
from dragoman.testing.engines import LinkedEngines
from dragoman.testing.faults import CALM, FaultPlan, FaultyConnector, FaultyLink
from dragoman.testing.faulty_http import FaultyHttp, HttpFaultPlan
from dragoman.testing.peer import ScriptedPeer, UnexpectedMessage

__all__ = [
    "CALM",
    "FaultPlan",
    "FaultyConnector",
    "FaultyHttp",
    "FaultyLink",
    "HttpFaultPlan",
    "LinkedEngines",
    "ManualClock",
    "ScriptedPeer",
    "UnexpectedMessage",
]
