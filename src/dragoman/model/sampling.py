"""Sampling: a server asks the client's model.

Spec: client/sampling
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dragoman.model.base import Meta, Record, Role
from dragoman.model.content import SamplingBlock, TextContent
from dragoman.model.tools import Tool

__all__ = [
    "CreateMessageParams",
    "CreateMessageResult",
    "ModelHint",
    "ModelPreferences",
    "SamplingMessage",
    "ToolChoice",
]


class ModelHint(Record, frozen=True, kw_only=True):
    """Part of a model's name; the client may map it to another provider's equivalent."""

    name: str | None = None


class ModelPreferences(Record, frozen=True, kw_only=True):
    """What matters when the client chooses a model; priorities run from 0 to 1."""

    hints: list[ModelHint] | None = None
    cost_priority: float | None = None
    speed_priority: float | None = None
    intelligence_priority: float | None = None


class SamplingMessage(Record, frozen=True, kw_only=True):
    """One message of the conversation; one block or several."""

    role: Role
    content: SamplingBlock | list[SamplingBlock]
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class ToolChoice(Record, frozen=True, kw_only=True):
    """Whether the model may, must or must not use the given tools."""

    mode: Literal["auto", "required", "none"] | None = None


class CreateMessageParams(Record, frozen=True, kw_only=True):
    """A request to the client's model. The client and its user may change or refuse all of it."""

    messages: list[SamplingMessage]
    max_tokens: int
    system_prompt: str | None = None
    temperature: float | None = None
    stop_sequences: list[str] | None = None
    model_preferences: ModelPreferences | None = None
    include_context: Literal["none", "thisServer", "allServers"] | None = None
    metadata: dict[str, Any] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class CreateMessageResult(Record, frozen=True, kw_only=True):
    """What the model said. `stop_reason` is "endTurn", "stopSequence", "maxTokens" or its own."""

    role: Role
    content: SamplingBlock | list[SamplingBlock]
    model: str
    stop_reason: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @property
    def text(self) -> str:
        """The text blocks, joined; other blocks are left out."""
        blocks = self.content if isinstance(self.content, list) else [self.content]
        return "".join(block.text for block in blocks if isinstance(block, TextContent))
