"""Revision 2026-07-28: what changed since 2025-11-25.

The dialect and its tables stand here; no connection is opened in it yet (see registry.HANDSHAKE).

Spec: https://modelcontextprotocol.io/specification/2026-07-28/changelog
"""

from __future__ import annotations

from typing import Any

from dragoman.model.base import EmptyResult, Record
from dragoman.model.completion import CompleteResult
from dragoman.model.content import ToolResultContent
from dragoman.model.prompts import GetPromptResult, ListPromptsResult
from dragoman.model.resources import (
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
)
from dragoman.model.tools import CallToolResult, ListToolsResult, Tool
from dragoman.revisions.facts import Ask, Opening
from dragoman.revisions.v2024_11_05 import members_at
from dragoman.revisions.v2025_11_25 import V2025_11_25

__all__ = ["V2026_07_28"]

_DONE: dict[str, Any] = {"result_type": "complete"}
# server/utilities/caching: both are required; 0 says that nothing may be reused unasked
_UNCACHED: dict[str, Any] = {**_DONE, "ttl_ms": 0, "cache_scope": "private"}

_FILLS: dict[type[Record], dict[str, Any]] = {
    EmptyResult: _DONE,
    CallToolResult: _DONE,
    CompleteResult: _DONE,
    GetPromptResult: _DONE,
    ListToolsResult: _UNCACHED,
    ListResourcesResult: _UNCACHED,
    ListResourceTemplatesResult: _UNCACHED,
    ListPromptsResult: _UNCACHED,
    ReadResourceResult: _UNCACHED,
}

V2026_07_28 = V2025_11_25.evolve(
    wire="2026-07-28",
    members=members_at(4),
    removes={
        # basic/versioning: no opening, no sessions, no ping
        "initialize",
        "notifications/initialized",
        "ping",
        # server/utilities/logging: the level travels with each request
        "logging/setLevel",
        # basic/patterns/subscriptions: subscriptions/listen instead
        "resources/subscribe",
        "resources/unsubscribe",
        "notifications/roots/list_changed",
        "notifications/elicitation/complete",
    },
    facts={
        "opening": Opening.NONE,
        "ask": Ask.ROUNDS,
        # server/resources#error-handling
        "resource_not_found": -32602,
        "log_level_per_request": True,
        # changelog: streams can no longer be resumed
        "primes_streams": False,
    },
    substitutes={
        # server/tools: structured content and output schemas may be any JSON
        CallToolResult: None,
        ToolResultContent: None,
        Tool: None,
    },
    fills=_FILLS,
)
