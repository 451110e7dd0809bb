"""Results of tools that return one value and have promised it: written without a record in between.

What stands around the value is the same every time. Each revision is asked for it once, with a
result like any other, so nothing is known here about what a revision holds.
"""

from __future__ import annotations

import msgspec

from dragoman.errors import CannotLower
from dragoman.model.content import TextContent
from dragoman.model.tools import CallToolResult
from dragoman.revisions.dialect import Dialect, Loss

__all__ = ["SCALARS", "write_scalar"]

# By exact class: a subclass may have another form.
SCALARS = (int, str, bool)

_VALUE = "the value"

_encode = msgspec.json.Encoder().encode

# For texts and for others: in front of the text, between text and data, behind. None where this
# revision loses a part.
_Around = tuple[bytes, bytes, bytes]
_around: dict[Dialect, tuple[_Around, _Around] | None] = {}


def write_scalar(value: int | str | bool, dialect: Dialect) -> bytes | None:
    """The result that holds a value and its text, as JSON; None when it takes a closer look.

    Spec: server/tools#structured-content
    """
    try:
        around = _around[dialect]
    except KeyError:
        around = _around[dialect] = _ask(dialect)
    if around is None:
        return None
    try:
        data = _encode(value)
    except (ValueError, OverflowError, msgspec.MsgspecError):
        # Too large a number, half a character: the usual way says what is wrong.
        return None
    before, between, behind = around[value.__class__ is not str]
    return b"%b%b%b%b%b" % (before, data, between, data, behind)


def _ask(dialect: Dialect) -> tuple[_Around, _Around] | None:
    result = CallToolResult(
        content=[TextContent(text=_VALUE)], structured_content={"result": _VALUE}
    )
    losses: list[Loss] = []
    try:
        parts = dialect.encode(result, losses.append).split(_encode(_VALUE))
    except CannotLower:
        return None
    if losses or len(parts) != 3:
        return None
    before, between, behind = parts
    return (before, between, behind), (before + b'"', b'"' + between, behind)
