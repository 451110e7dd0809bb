"""Aids for tests, ours and yours: a clock, two linked engines, a peer that follows a script.

The schema oracle stands in `dragoman.testing.oracle`; it needs jsonschema.
"""

from __future__ import annotations

from dragoman.testing.clock import ManualClock
from dragoman.testing.engines import LinkedEngines
from dragoman.testing.peer import ScriptedPeer, UnexpectedMessage

__all__ = ["LinkedEngines", "ManualClock", "ScriptedPeer", "UnexpectedMessage"]
