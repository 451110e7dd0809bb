"""Tools: what a model may call.

Spec: server/tools
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dragoman.model.base import Cursor, Icon, Meta, Record, refuse_not_finite
from dragoman.model.content import ContentBlock

__all__ = [
    "CallToolParams",
    "CallToolResult",
    "ListToolsResult",
    "Tool",
    "ToolAnnotations",
    "ToolExecution",
]

NO_ARGUMENTS = msgspec.Raw(b"")


class ToolAnnotations(Record, frozen=True, kw_only=True):
    """Hints about a tool's behaviour. They are claims: trust them only from a trusted server."""

    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class ToolExecution(Record, frozen=True, kw_only=True):
    """How a tool may be run as a task."""

    task_support: Literal["forbidden", "optional", "required"] | None = None


class Tool(Record, frozen=True, kw_only=True):
    """A tool's definition. `input_schema` is a JSON Schema whose type is "object"."""

    name: str
    input_schema: dict[str, Any]
    title: str | None = None
    description: str | None = None
    output_schema: dict[str, Any] | None = None
    annotations: ToolAnnotations | None = None
    execution: ToolExecution | None = None
    icons: list[Icon] | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @property
    def display_name(self) -> str:
        """What a person should see: the title, wherever it stands, or else the name."""
        if self.title:
            return self.title
        if self.annotations is not None and self.annotations.title:
            return self.annotations.title
        return self.name


class ListToolsResult(Record, frozen=True, kw_only=True):
    """One page of tools."""

    tools: list[Tool]
    next_cursor: Cursor | None = None
    result_type: str | None = None
    ttl_ms: int | None = None
    cache_scope: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class CallToolParams(Record, frozen=True, kw_only=True):
    """A call. `raw_arguments` is the JSON text of the arguments object, still unread."""

    name: str
    raw_arguments: msgspec.Raw = msgspec.field(name="arguments", default=NO_ARGUMENTS)
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments as Python values; decoded anew at each use."""
        raw = bytes(self.raw_arguments)
        if not raw or raw == b"null":
            return {}
        return msgspec.json.decode(raw, type=dict[str, Any])

    @classmethod
    def of(
        cls, name: str, arguments: dict[str, Any] | None = None, meta: Meta | None = None
    ) -> CallToolParams:
        """Encode the arguments; None leaves them out. ValueError for what JSON cannot hold."""
        if arguments is None:
            return cls(name=name, meta=meta)
        try:
            raw = msgspec.json.encode(arguments)
        except RecursionError:
            raise ValueError("the arguments are nested too deeply, or hold themselves") from None
        except (TypeError, UnicodeEncodeError, OverflowError) as fault:
            raise ValueError(f"the arguments cannot be written as JSON: {fault}") from None
        if b"null" in raw:
            refuse_not_finite(arguments)
        return cls(name=name, raw_arguments=msgspec.Raw(raw), meta=meta)


class CallToolResult(Record, frozen=True, kw_only=True):
    """What a tool gave back. `is_error` means the tool, not the protocol, failed."""

    content: list[ContentBlock]
    structured_content: Any = None
    is_error: bool = False
    result_type: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)
