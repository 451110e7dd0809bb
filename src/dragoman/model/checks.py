"""What a record's shape cannot say: rules both sides check, before sending and on receiving."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from dragoman.model.content import (
    AudioContent,
    ImageContent,
    SamplingBlock,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.elicitation import ElicitParams
from dragoman.model.sampling import CreateMessageParams, SamplingMessage

__all__ = ["check_elicitation", "check_sampling"]

_PLAIN = frozenset({"string", "number", "integer", "boolean"})


def check_elicitation(params: ElicitParams) -> None:
    """A form is a flat object of plain fields; a URL is absolute.

    Raises:
        ValueError: it is not; the text names the field.

    Spec: client/elicitation#requested-schema
    """
    if params.mode == "url":
        parts = urlsplit(params.url or "")
        if not parts.scheme or not (parts.netloc or parts.path) or " " in (params.url or ""):
            raise ValueError(f"the elicitation's URL {params.url!r} is not an absolute URL")
        return
    schema = params.requested_schema or {}
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        raise ValueError("a form's schema must have the type object, and properties")
    for name, field in schema["properties"].items():
        if not isinstance(field, dict) or not _is_plain(field):
            raise ValueError(
                f"the field {name!r} of a form must be a text, a number, a truth value or a choice"
            )


def _is_plain(field: dict[str, Any]) -> bool:
    kind = field.get("type")
    if kind == "array":
        items = field.get("items")
        return isinstance(items, dict) and ("enum" in items or "anyOf" in items)
    return kind in _PLAIN and "properties" not in field and "items" not in field


def check_sampling(params: CreateMessageParams) -> None:
    """Ranges, base64 data, and the order of tool use and tool results.

    Raises:
        ValueError: a rule is broken; the text says which.

    Spec: client/sampling#message-content-constraints
    """
    if params.max_tokens < 1:
        raise ValueError(f"maxTokens must be at least 1, got {params.max_tokens}")
    wishes = params.model_preferences
    if wishes is not None:
        for name in ("cost_priority", "speed_priority", "intelligence_priority"):
            value = getattr(wishes, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value:g}")
    open_uses: set[str] = set()
    for message in params.messages:
        open_uses = _check_message(message, open_uses)
    if open_uses:
        missing = ", ".join(sorted(open_uses))
        raise ValueError(f"the tool uses {missing} have no result")


def _check_message(message: SamplingMessage, open_uses: set[str]) -> set[str]:
    blocks: Sequence[SamplingBlock] = (
        message.content if isinstance(message.content, list) else [message.content]
    )
    results = [block for block in blocks if isinstance(block, ToolResultContent)]
    if results and len(results) != len(blocks):
        raise ValueError("a message with tool results must hold nothing else")
    answered = {block.tool_use_id for block in results}
    if answered != open_uses:
        if open_uses - answered:
            missing = ", ".join(sorted(open_uses - answered))
            raise ValueError(f"the tool uses {missing} have no result in the next message")
        raise ValueError("a tool result answers no tool use of the message before")
    if results and message.role != "user":
        raise ValueError("tool results are messages of the user")
    for block in blocks:
        if isinstance(block, ImageContent | AudioContent):
            try:
                binascii.a2b_base64(block.data, strict_mode=True)
            except (binascii.Error, ValueError):
                raise ValueError("the data of an image or a sound must be base64") from None
    return {block.id for block in blocks if isinstance(block, ToolUseContent)}
