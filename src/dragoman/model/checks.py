"""What a record's shape cannot say: rules both sides check, before sending and on receiving."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from dragoman.model.content import (
    AudioContent,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingBlock,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.elicitation import ElicitParams
from dragoman.model.names import check_uri
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult, SamplingMessage

__all__ = ["check_content", "check_elicitation", "check_sampling", "check_sampling_result"]

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
    is_plain = isinstance(kind, str) and kind in _PLAIN
    return is_plain and "properties" not in field and "items" not in field


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
    if len(answered) != len(results):
        raise ValueError("a tool use has two results")
    if answered != open_uses:
        if open_uses - answered:
            missing = ", ".join(sorted(open_uses - answered))
            raise ValueError(f"the tool uses {missing} have no result in the next message")
        raise ValueError("a tool result answers no tool use of the message before")
    if results and message.role != "user":
        raise ValueError("tool results are messages of the user")
    for block in blocks:
        if isinstance(block, ImageContent | AudioContent):
            _check_media(block)
    for result in results:
        for inner in result.content:
            if isinstance(inner, ImageContent | AudioContent):
                _check_media(inner)
    uses = [block.id for block in blocks if isinstance(block, ToolUseContent)]
    if uses and message.role != "assistant":
        raise ValueError("tool uses are messages of the assistant")
    return _once(uses)


def _once(uses: list[str]) -> set[str]:
    if len(set(uses)) != len(uses):
        raise ValueError("two tool uses in one message have the same id")
    return set(uses)


def check_sampling_result(result: CreateMessageResult) -> None:
    """What a model said holds base64 where it must, and no tool results.

    Raises:
        ValueError: a rule is broken; the text says which.

    Spec: client/sampling#message-content-constraints
    """
    blocks = result.content if isinstance(result.content, list) else [result.content]
    for block in blocks:
        if isinstance(block, ToolResultContent):
            raise ValueError("a model's answer must hold no tool results")
        if isinstance(block, ImageContent | AudioContent):
            _check_media(block)
    _once([block.id for block in blocks if isinstance(block, ToolUseContent)])


def check_content(block: ContentBlock) -> None:
    """Pictures and sounds are base64 with a media type; a resource has a URI and a media type.

    Raises:
        ValueError: a rule is broken; the text says which.

    Spec: server/tools#tool-result, server/prompts#promptmessage
    """
    if isinstance(block, ImageContent | AudioContent):
        _check_media(block)
    elif isinstance(block, EmbeddedResource):
        resource = block.resource
        check_uri(resource.uri)
        if resource.blob is not None:
            _check_base64(resource.blob, f"the blob of {resource.uri!r}")
        if resource.mime_type is None:
            raise ValueError(f"the resource {resource.uri!r} needs a mime_type to be embedded")
        _check_mime_type(resource.mime_type)
    elif isinstance(block, ResourceLink):
        check_uri(block.uri)


def _check_media(block: ImageContent | AudioContent) -> None:
    _check_base64(block.data, "the data of an image or a sound")
    _check_mime_type(block.mime_type)


def _check_base64(data: str, what: str) -> None:
    try:
        binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{what} must be base64") from None


# RFC 6838: type, slash, subtype, each of restricted characters; then parameters, unread.
_MIME_TYPE = re.compile(
    r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}(?:\s*;.*)?", re.ASCII
)


def _check_mime_type(given: str) -> None:
    if not _MIME_TYPE.fullmatch(given):
        raise ValueError(f"{given[:80]!r} is no media type such as 'image/png'")
