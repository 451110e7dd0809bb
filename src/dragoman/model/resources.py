"""Resources: data a server exposes by URI.

Spec: server/resources
"""

from __future__ import annotations

import msgspec

from dragoman.model.base import Annotations, Cursor, Icon, Meta, Record
from dragoman.model.content import ResourceContents

__all__ = [
    "ListResourceTemplatesResult",
    "ListResourcesResult",
    "ReadResourceResult",
    "Resource",
    "ResourceTemplate",
    "ResourceUpdatedParams",
    "UriParams",
]


class Resource(Record, frozen=True, kw_only=True):
    """A resource's definition. `size` is in bytes, before any encoding."""

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


class ResourceTemplate(Record, frozen=True, kw_only=True):
    """A family of resources; `uri_template` follows RFC 6570."""

    uri_template: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    annotations: Annotations | None = None
    icons: list[Icon] | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @property
    def display_name(self) -> str:
        """What a person should see: the title, or else the name."""
        return self.title or self.name


class ListResourcesResult(Record, frozen=True, kw_only=True):
    """One page of resources."""

    resources: list[Resource]
    next_cursor: Cursor | None = None
    result_type: str | None = None
    ttl_ms: int | None = None
    cache_scope: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class ListResourceTemplatesResult(Record, frozen=True, kw_only=True):
    """One page of templates."""

    resource_templates: list[ResourceTemplate]
    next_cursor: Cursor | None = None
    result_type: str | None = None
    ttl_ms: int | None = None
    cache_scope: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class UriParams(Record, frozen=True, kw_only=True):
    """Parameters of resources/read, resources/subscribe and resources/unsubscribe."""

    uri: str
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class ReadResourceResult(Record, frozen=True, kw_only=True):
    """The contents of a resource: 1..n parts (a folder may give many)."""

    contents: list[ResourceContents]
    result_type: str | None = None
    ttl_ms: int | None = None
    cache_scope: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    @property
    def text(self) -> str:
        """The text parts, joined by line ends; binary parts are left out."""
        return "\n".join(part.text for part in self.contents if part.text is not None)


class ResourceUpdatedParams(Record, frozen=True, kw_only=True):
    """A resource that was subscribed to, or a part of it, has changed."""

    uri: str
    meta: Meta | None = msgspec.field(name="_meta", default=None)
