"""What each side says it can do, and how a connection is opened.

Spec: basic/lifecycle#initialization
"""

from __future__ import annotations

from typing import Any

import msgspec

from dragoman.model.base import Implementation, Meta, Record

__all__ = [
    "ClientCapabilities",
    "CompletionsCapability",
    "ElicitationCapability",
    "InitializeParams",
    "InitializeResult",
    "LoggingCapability",
    "PromptsCapability",
    "ResourcesCapability",
    "RootsCapability",
    "SamplingCapability",
    "ServerCapabilities",
    "ToolsCapability",
]


class RootsCapability(Record, frozen=True, kw_only=True):
    """The client answers roots/list, and says when the list changes."""

    list_changed: bool | None = None


class SamplingCapability(Record, frozen=True, kw_only=True):
    """The client answers sampling/createMessage; `tools` and `context` allow more in it."""

    tools: dict[str, Any] | None = None
    context: dict[str, Any] | None = None


class ElicitationCapability(Record, frozen=True, kw_only=True):
    """The client answers elicitation/create; with neither named, form mode is meant."""

    form: dict[str, Any] | None = None
    url: dict[str, Any] | None = None


class ClientCapabilities(Record, frozen=True, kw_only=True):
    """What a client offers."""

    roots: RootsCapability | None = None
    sampling: SamplingCapability | None = None
    elicitation: ElicitationCapability | None = None
    experimental: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None
    tasks: dict[str, Any] | None = None


class ToolsCapability(Record, frozen=True, kw_only=True):
    """The server has tools, and says when the list changes."""

    list_changed: bool | None = None


class PromptsCapability(Record, frozen=True, kw_only=True):
    """The server has prompts, and says when the list changes."""

    list_changed: bool | None = None


class ResourcesCapability(Record, frozen=True, kw_only=True):
    """The server has resources; it takes subscriptions, and says when the list changes."""

    subscribe: bool | None = None
    list_changed: bool | None = None


class LoggingCapability(Record, frozen=True, kw_only=True):
    """The server sends log messages."""


class CompletionsCapability(Record, frozen=True, kw_only=True):
    """The server completes arguments."""


class ServerCapabilities(Record, frozen=True, kw_only=True):
    """What a server offers."""

    tools: ToolsCapability | None = None
    resources: ResourcesCapability | None = None
    prompts: PromptsCapability | None = None
    logging: LoggingCapability | None = None
    completions: CompletionsCapability | None = None
    experimental: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None
    tasks: dict[str, Any] | None = None


class InitializeParams(Record, frozen=True, kw_only=True):
    """The client opens: the newest revision it wants, what it can do, who it is."""

    protocol_version: str
    capabilities: ClientCapabilities
    client_info: Implementation
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class InitializeResult(Record, frozen=True, kw_only=True):
    """The server answers: the revision it will speak, what it can do, who it is."""

    protocol_version: str
    capabilities: ServerCapabilities
    server_info: Implementation
    instructions: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)
