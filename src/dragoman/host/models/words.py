"""What the adapters share: content that a provider has no form for, as text; ids; a list of blocks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dragoman.model.content import (
    AudioContent,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    SamplingBlock,
    TextContent,
)
from dragoman.model.sampling import SamplingMessage

__all__ = [
    "IMAGE_TYPES",
    "Halves",
    "arguments_text",
    "as_text",
    "blocks_of",
    "merged",
    "read_arguments",
    "safe_id",
    "texts",
    "whole_characters",
]

# Both providers take exactly these.
IMAGE_TYPES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def blocks_of(message: SamplingMessage) -> list[SamplingBlock]:
    """The blocks of a message, one or many."""
    return message.content if isinstance(message.content, list) else [message.content]


def as_text(block: Any) -> str:
    """A block as text: what a model gets where it cannot have the block itself."""
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, ResourceLink):
        about = f": {block.description}" if block.description else ""
        return f"[resource {block.display_name} at {block.uri}{about}]"
    if isinstance(block, EmbeddedResource):
        inside = block.resource
        if inside.text is not None:
            return inside.text
        kind = inside.mime_type or "unknown type"
        return f"[resource {inside.uri}, {kind}, {_bytes_in(inside.blob or '')} bytes]"
    if isinstance(block, ImageContent):
        return f"[an image, {block.mime_type}, {_bytes_in(block.data)} bytes]"
    if isinstance(block, AudioContent):
        return f"[sound, {block.mime_type}, {_bytes_in(block.data)} bytes]"
    return ""


def texts(blocks: Iterable[Any]) -> str:
    """Several blocks as one text."""
    return "\n".join(text for block in blocks if (text := as_text(block)))


def _bytes_in(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")


class Halves:
    """A text in pieces, whole characters only.

    Some servers cut a character into two halves, each in a piece of its own: they are put together.
    A half that stays alone becomes U+FFFD; no provider takes it back with the next request.
    """

    def __init__(self) -> None:
        self._half = ""

    def take(self, piece: str) -> str:
        """What there is of the text with this piece."""
        if piece.isascii() and not self._half:
            return piece
        piece, self._half = self._half + piece, ""
        if "\ud800" <= piece[-1:] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        return whole_characters(piece)

    def rest(self) -> str:
        """What is left at the end."""
        half, self._half = self._half, ""
        return whole_characters(half)


def whole_characters(text: str) -> str:
    """Halves that belong together as one character, any other as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def safe_id(id: str) -> str:
    """The id of a tool use in the characters that every provider takes; the same each time."""
    if _ID.fullmatch(id):
        return id
    return f"id_{hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def arguments_text(value: Any) -> str:
    """Arguments as JSON text, whether they came as text, in an object, or not at all."""
    if value is None or value == "":
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_arguments(text: str) -> dict[str, Any] | None:
    """The arguments object in a model's JSON text; None when it is none. No text is no argument."""
    if not text.strip():
        return {}
    try:
        # Not the standard library's: it takes NaN and half characters, which no server could read.
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def merged(messages: Sequence[SamplingMessage]) -> list[tuple[str, list[SamplingBlock]]]:
    """Messages as (role, blocks), neighbours of one role joined: some providers want them to
    alternate."""
    found: list[tuple[str, list[SamplingBlock]]] = []
    for message in messages:
        if found and found[-1][0] == message.role:
            found[-1][1].extend(blocks_of(message))
        else:
            found.append((message.role, list(blocks_of(message))))
    return found
