"""Elicitation: a server asks the user.

Spec: client/elicitation
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dragoman.model.base import Meta, Record

__all__ = ["ElicitParams", "ElicitResult", "ElicitationCompleteParams"]


class ElicitParams(Record, frozen=True, kw_only=True):
    """A question. In form mode `requested_schema` is a flat object schema; in URL mode the user is
    sent to `url` and nothing comes back but whether they agreed.

    One record for both modes, as both travel under one method name.
    """

    message: str
    mode: Literal["form", "url"] | None = None
    requested_schema: dict[str, Any] | None = None
    url: str | None = None
    elicitation_id: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)

    def __post_init__(self) -> None:
        if self.mode == "url":
            if self.url is None:
                raise ValueError("an elicitation in URL mode needs `url`")
        elif self.requested_schema is None:
            raise ValueError("an elicitation in form mode needs `requestedSchema`")


class ElicitResult(Record, frozen=True, kw_only=True):
    """What the user did. `content` holds the form's values when `action` is "accept"."""

    action: Literal["accept", "decline", "cancel"]
    content: dict[str, str | int | float | bool | list[str] | None] | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class ElicitationCompleteParams(Record, frozen=True, kw_only=True):
    """The interaction behind a URL has ended."""

    elicitation_id: str
    meta: Meta | None = msgspec.field(name="_meta", default=None)
