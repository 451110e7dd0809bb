"""What every record shares, and the small records used by all others."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal, TypeAlias

import msgspec

__all__ = [
    "JSON",
    "Annotations",
    "Cursor",
    "EmptyResult",
    "Icon",
    "Implementation",
    "Meta",
    "NoParams",
    "PageParams",
    "Record",
    "Role",
    "refuse_not_finite",
]

JSON: TypeAlias = Any
"""Any JSON value as Python holds it."""

Meta: TypeAlias = dict[str, Any]
"""The `_meta` object: reserved for the protocol and for agreements between two sides."""

Cursor: TypeAlias = str
"""An opaque position in a list; only the server that made it can read it."""

Role: TypeAlias = Literal["user", "assistant"]


class Record(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", dict=False
):
    """The root of all records."""


def refuse_not_finite(value: JSON) -> None:
    """JSON has no NaN and no infinities; an encoder may write them as null, which is another value.

    Raises:
        ValueError: the value holds one.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not isfinite(item):
            raise ValueError(f"JSON cannot hold {item}; use None")
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)


class Annotations(Record, frozen=True, kw_only=True):
    """For whom a value is, and how much it matters.

    `audience` lists roles; `priority` runs from 0 (optional) to 1 (required); `last_modified` is
    an ISO 8601 instant; a `datetime` given for it is written as one (local time when it is naive).
    Spec: server/resources#annotations
    """

    audience: list[Role] | None = None
    priority: float | None = None
    last_modified: str | None = None

    def __post_init__(self) -> None:
        given: object = self.last_modified
        if isinstance(given, datetime):
            msgspec.structs.force_setattr(self, "last_modified", iso_8601(given))


def iso_8601(when: datetime) -> str:
    """An instant in UTC, as it travels; a naive one is local time."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


class Icon(Record, frozen=True, kw_only=True):
    """A picture for a person. `src` is an https or data URI; `sizes` like "48x48" or "any"."""

    src: str
    mime_type: str | None = None
    sizes: list[str] | None = None
    theme: Literal["light", "dark"] | None = None


class Implementation(Record, frozen=True, kw_only=True):
    """The name and version of a program; text for display, never an identity to trust."""

    name: str
    version: str
    title: str | None = None
    description: str | None = None
    website_url: str | None = None
    icons: list[Icon] | None = None

    @property
    def display_name(self) -> str:
        """What a person should see: the title, or else the name."""
        return self.title or self.name


class NoParams(Record, frozen=True, kw_only=True):
    """Parameters of a method that takes none but `_meta`."""

    meta: Meta | None = msgspec.field(name="_meta", default=None)


class PageParams(Record, frozen=True, kw_only=True):
    """Parameters of a list request. `cursor` comes from the page before."""

    cursor: Cursor | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class EmptyResult(Record, frozen=True, kw_only=True):
    """A result that says only: done."""

    meta: Meta | None = msgspec.field(name="_meta", default=None)
    result_type: str | None = None
