"""Log messages from server to client, with the eight levels of RFC 5424.

Spec: server/utilities/logging
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import msgspec

from dragoman.model.base import Meta, Record

__all__ = ["LEVELS", "LogMessageParams", "LoggingLevel", "SetLevelParams"]

LoggingLevel: TypeAlias = Literal[
    "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"
]

LEVELS: dict[str, int] = {level: rank for rank, level in enumerate(get_args(LoggingLevel))}
"""Each level's rank: 0 (debug) to 7 (emergency)."""


class SetLevelParams(Record, frozen=True, kw_only=True):
    """The least severe level the client wants to hear."""

    level: LoggingLevel
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class LogMessageParams(Record, frozen=True, kw_only=True):
    """One log message; `data` is any JSON."""

    level: LoggingLevel
    data: Any
    logger: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)
