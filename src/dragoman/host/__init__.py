"""The host: many servers under one user's authority.

It asks before anything happens, remembers the answer, shows what was done, and gives a model its
tools. `Host` is the way in; everything else here is what it is made of, usable by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dragoman.host.broker import AnyApprover, Broker
    from dragoman.host.calls import HostResult
    from dragoman.host.chat import Conversation
    from dragoman.host.connections import ServerState, ServerStatus
    from dragoman.host.host import Host, HostTool
    from dragoman.host.kinds import (
        Action,
        ApprovalRequest,
        Approver,
        Code,
        Decision,
        Denied,
        Effect,
        Grant,
        Intent,
        Risk,
        Scope,
        Step,
        Trust,
        Verdict,
        View,
        VisitRequired,
    )
    from dragoman.host.models.base import ChatModel, ModelError
    from dragoman.host.models.opening import open_model

# Where each public name is defined; loaded when it is first used.
_HOMES = {
    "dragoman.host.broker": (
        "AnyApprover",
        "Broker",
    ),
    "dragoman.host.calls": ("HostResult",),
    "dragoman.host.chat": ("Conversation",),
    "dragoman.host.connections": (
        "ServerState",
        "ServerStatus",
    ),
    "dragoman.host.host": (
        "Host",
        "HostTool",
    ),
    "dragoman.host.kinds": (
        "Action",
        "ApprovalRequest",
        "Approver",
        "Code",
        "Decision",
        "Denied",
        "Effect",
        "Grant",
        "Intent",
        "Risk",
        "Scope",
        "Step",
        "Trust",
        "Verdict",
        "View",
        "VisitRequired",
    ),
    "dragoman.host.models.base": (
        "ChatModel",
        "ModelError",
    ),
    "dragoman.host.models.opening": ("open_model",),
}

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "AnyApprover",
    "ApprovalRequest",
    "Approver",
    "Broker",
    "ChatModel",
    "Code",
    "Conversation",
    "Decision",
    "Denied",
    "Effect",
    "Grant",
    "Host",
    "HostResult",
    "HostTool",
    "Intent",
    "ModelError",
    "Risk",
    "Scope",
    "ServerState",
    "ServerStatus",
    "Step",
    "Trust",
    "Verdict",
    "View",
    "VisitRequired",
    "open_model",
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
