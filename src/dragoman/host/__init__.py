"""The host: many servers under one user's authority.

It asks before anything happens, remembers the answer, shows what was done, and gives a model its
tools. `Host` is the way in; everything else here is what it is made of, usable by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dragoman.host.kinds import (
        Action,
        ApprovalRequest,
        Approver,
        Decision,
        Effect,
        Grant,
        Intent,
        Scope,
        Step,
        Trust,
        Verdict,
        View,
    )

# Where each public name is defined; loaded when it is first used.
_HOMES = {
    "dragoman.host.kinds": (
        "Action",
        "ApprovalRequest",
        "Approver",
        "Decision",
        "Effect",
        "Grant",
        "Intent",
        "Scope",
        "Step",
        "Trust",
        "Verdict",
        "View",
    ),
}

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "ApprovalRequest",
    "Approver",
    "Decision",
    "Effect",
    "Grant",
    "Intent",
    "Scope",
    "Step",
    "Trust",
    "Verdict",
    "View",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'dragoman.host' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
