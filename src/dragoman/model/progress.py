"""Progress and cancellation of a request under way.

Spec: basic/utilities/progress, basic/utilities/cancellation
"""

from __future__ import annotations

import msgspec

from dragoman.model.base import Meta, Record

__all__ = ["CancelledParams", "ProgressParams"]


class ProgressParams(Record, frozen=True, kw_only=True):
    """How far a request is. `progress` only ever grows; `total` is where it will end, if known."""

    progress_token: int | str
    progress: float
    total: float | None = None
    message: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)


class CancelledParams(Record, frozen=True, kw_only=True):
    """The sender no longer wants the answer to `request_id`."""

    request_id: int | str
    reason: str | None = None
    meta: Meta | None = msgspec.field(name="_meta", default=None)
