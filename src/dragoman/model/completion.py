"""Completion: suggestions for an argument being typed.

Spec: server/utilities/completion
"""

from __future__ import annotations

import msgspec

from dragoman.model.base import Meta, Record

__all__ = [
    "CompleteParams",
    "CompleteResult",
    "Completion",
    "CompletionArgument",
    "CompletionContext",
    "PromptReference",
    "ResourceTemplateReference",
]


class PromptReference(Record, frozen=True, kw_only=True, tag_field="type", tag="ref/prompt"):
    """An argument of this prompt."""

    name: str
    title: str | None = None


class ResourceTemplateReference(
    Record, frozen=True, kw_only=True, tag_field="type", tag="ref/resource"
):
    """A variable of this URI template."""

    uri: str


class CompletionArgument(Record, frozen=True, kw_only=True):
    """What is being typed: the argument's name and its value so far."""

    name: str
    value: str


class CompletionContext(Record, frozen=True, kw_only=True):
    """Arguments that are settled already, by name."""

    arguments: dict[str, str] | None = None


class CompleteParams(Record, frozen=True, kw_only=True):
    """A request for suggestions."""

    ref: PromptReference | ResourceTemplateReference
    argument: CompletionArgument
    context: CompletionContext | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class Completion(Record, frozen=True, kw_only=True):
    """Suggestions, best first: at most 100. `total` counts all, `has_more` says there are more."""

    values: list[str]
    total: int | None = None
    has_more: bool | None = None


class CompleteResult(Record, frozen=True, kw_only=True):
    """The answer to a request for suggestions."""

    completion: Completion
    result_type: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)
