"""Sessions that outlive their process: what has to be known of one to go on with it elsewhere.

A server that keeps its sessions serves its clients after a restart as if nothing had happened:
no client has to say hello again. Calls under way are lost with the process all the same.
Spec: basic/transports#session-management
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

import msgspec

__all__ = ["Saved", "SessionRecord", "SessionStore"]


class Saved(Enum):
    """What became of a record that was to be kept."""

    KEPT = "kept"
    # Another process was spoken to later: it holds the session, and its record stays.
    TAKEN = "taken"
    # The session was deleted.
    ENDED = "ended"


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session.

    `id` is its secret id; `owner` and `issuer` name the principal it belongs to; `revision` is what
    was agreed on. `client_info` and `client_capabilities` are the client's own words, as JSON;
    `log_level` the number of the level it chose; `subscriptions` the URIs it wants to hear of;
    `used_at` when it was last alive, in seconds since the epoch; `holder` a name of the process
    that its client spoke to last, and `held_at` when that was.
    """

    id: str
    owner: str
    issuer: str
    revision: str
    client_info: dict[str, Any]
    client_capabilities: dict[str, Any]
    log_level: int = 0
    subscriptions: tuple[str, ...] = ()
    used_at: float = 0.0
    held_at: float = 0.0
    holder: str = ""


class SessionStore(Protocol):
    """Keeps sessions. What it raises becomes a refusal of the request (503), never a lost one."""

    async def save(self, record: SessionRecord) -> Saved:
        """Keep a session, in place of what was kept under its id.

        But not after `delete`, and not in place of a record of another `holder` whose `held_at` is
        later.
        """

    async def load(self, ident: str) -> SessionRecord | None:
        """A session by its id; None when there is none, it was deleted, or it is too old."""

    async def delete(self, ident: str, holder: str | None = None) -> bool:
        """A session is over, and cannot be kept any more for as long as one may be idle.

        With `holder`, only if no other holds it. Returns whether it is over. Nothing happens when
        it is not known.
        """

    async def aclose(self) -> None:
        """Let go of everything; what was saved stays."""
