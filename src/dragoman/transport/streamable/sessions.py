"""Sessions that outlive their process: what has to be known of one to go on with it elsewhere.

A server that keeps its sessions serves its clients after a restart as if nothing had happened:
no client has to say hello again. Calls under way are lost with the process all the same.
Spec: basic/transports#session-management
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

__all__ = ["SessionRecord", "SessionStore"]


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session.

    `id` is its secret id; `owner` and `issuer` name the principal it belongs to; `revision` is what
    was agreed on. `client_info` and `client_capabilities` are the client's own words, as JSON;
    `log_level` the number of the level it chose; `subscriptions` the URIs it wants to hear of;
    `used_at` seconds since the epoch; `holder` a name of the process that used it then.
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
    holder: str = ""


class SessionStore(Protocol):
    """Keeps sessions. What it raises becomes a refusal of the request (503), never a lost one."""

    async def save(self, record: SessionRecord) -> None:
        """Keep a session, in place of what was kept under its id.

        But not in place of a record of another holder that was used later: it has the session now.
        """

    async def load(self, ident: str) -> SessionRecord | None:
        """A session by its id; None when there is none, or it is too old."""

    async def delete(self, ident: str) -> None:
        """A session is over. Nothing happens when it is not known."""

    async def aclose(self) -> None:
        """Let go of everything; what was saved stays."""
