"""Prompts: messages a person may choose to start from.

Spec: server/prompts
"""

from __future__ import annotations

import msgspec

from dragoman.model.base import Cursor, Icon, Meta, Record, Role
from dragoman.model.content import ContentBlock

__all__ = [
    "GetPromptParams",
    "GetPromptResult",
    "ListPromptsResult",
    "Prompt",
    "PromptArgument",
    "PromptMessage",
]


class PromptArgument(Record, frozen=True, kw_only=True):
    """An argument of a prompt; its value is always a string."""

    name: str
    title: str | None = None
    description: str | None = None
    required: bool | None = None


class Prompt(Record, frozen=True, kw_only=True):
    """A prompt's definition."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: list[PromptArgument] | None = None
    icons: list[Icon] | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @property
    def display_name(self) -> str:
        """What a person should see: the title, or else the name."""
        return self.title or self.name


class ListPromptsResult(Record, frozen=True, kw_only=True):
    """One page of prompts."""

    prompts: list[Prompt]
    next_cursor: Cursor | None = None
    result_type: str | None = None
    ttl_ms: int | None = None
    cache_scope: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class GetPromptParams(Record, frozen=True, kw_only=True):
    """Which prompt, filled with what."""

    name: str
    arguments: dict[str, str] | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class PromptMessage(Record, frozen=True, kw_only=True):
    """One message of a prompt."""

    role: Role
    content: ContentBlock


class GetPromptResult(Record, frozen=True, kw_only=True):
    """A prompt, ready to use: 0..n messages in order."""

    messages: list[PromptMessage]
    description: str | None = None
    result_type: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)
