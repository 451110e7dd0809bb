"""Content blocks: what tools return, prompts hold and models exchange.

Spec: server/tools#tool-result
"""

from __future__ import annotations

import base64
from typing import Any, TypeAlias

import msgspec

from dragoman.model.base import Annotations, Icon, Meta, Record

__all__ = [
    "AudioContent",
    "ContentBlock",
    "EmbeddedResource",
    "ImageContent",
    "ResourceContents",
    "ResourceLink",
    "SamplingBlock",
    "TextContent",
    "ToolResultContent",
    "ToolUseContent",
]


class TextContent(Record, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Text for a model or a person."""

    text: str
    annotations: Annotations | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class ImageContent(Record, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """A picture; `data` is base64."""

    data: str
    mime_type: str
    annotations: Annotations | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @classmethod
    def of(cls, data: bytes, mime_type: str = "image/png") -> ImageContent:
        """Encode raw bytes."""
        return cls(data=base64.b64encode(data).decode("ascii"), mime_type=mime_type)


class AudioContent(Record, frozen=True, kw_only=True, tag_field="type", tag="audio"):
    """Sound; `data` is base64."""

    data: str
    mime_type: str
    annotations: Annotations | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @classmethod
    def of(cls, data: bytes, mime_type: str = "audio/wav") -> AudioContent:
        """Encode raw bytes."""
        return cls(data=base64.b64encode(data).decode("ascii"), mime_type=mime_type)


class ResourceContents(Record, frozen=True, kw_only=True):
    """A resource, or one part of it: either its `text` or its bytes as base64 in `blob`.

    Raises:
        ValueError: neither or both of `text` and `blob` are given.

    Spec: server/resources#resource-contents (TextResourceContents, BlobResourceContents)
    """

    uri: str
    text: str | None = None
    blob: str | None = None
    mime_type: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    def __post_init__(self) -> None:
        if (self.text is None) == (self.blob is None):
            raise ValueError(f"contents of {self.uri!r} need exactly one of `text` and `blob`")

    @classmethod
    def of(cls, uri: str, data: bytes, mime_type: str | None = None) -> ResourceContents:
        """Encode raw bytes."""
        return cls(uri=uri, blob=base64.b64encode(data).decode("ascii"), mime_type=mime_type)

    @property
    def data(self) -> bytes:
        """The bytes, whichever form they came in (text as UTF-8)."""
        if self.blob is not None:
            return base64.b64decode(self.blob)
        return (self.text or "").encode()


class EmbeddedResource(Record, frozen=True, kw_only=True, tag_field="type", tag="resource"):
    """A resource carried inside a result or a prompt."""

    resource: ResourceContents
    annotations: Annotations | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class ResourceLink(Record, frozen=True, kw_only=True, tag_field="type", tag="resource_link"):
    """A pointer to a resource that the client may read."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    annotations: Annotations | None = None
    icons: list[Icon] | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @property
    def display_name(self) -> str:
        """What a person should see: the title, or else the name."""
        return self.title or self.name


ContentBlock: TypeAlias = (
    TextContent | ImageContent | AudioContent | ResourceLink | EmbeddedResource
)


class ToolUseContent(Record, frozen=True, kw_only=True, tag_field="type", tag="tool_use"):
    """A model asks for a tool, inside a sampling exchange. `input` holds the arguments."""

    id: str
    name: str
    input: dict[str, Any]
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class ToolResultContent(Record, frozen=True, kw_only=True, tag_field="type", tag="tool_result"):
    """The answer to a `ToolUseContent`, inside a sampling exchange."""

    tool_use_id: str
    content: list[ContentBlock]
    structured_content: Any = None
    is_error: bool = False
    meta: Meta | None = msgspec.field(name="_meta", default=None)


SamplingBlock: TypeAlias = (
    TextContent | ImageContent | AudioContent | ToolUseContent | ToolResultContent
)
