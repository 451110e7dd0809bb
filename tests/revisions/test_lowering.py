"""Any value, lowered into any revision, fits that revision's closed schema; nothing is lost unsaid."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.errors import CannotLower
from dragoman.jsonrpc.codec import encode_value
from dragoman.model.base import Record
from dragoman.model.content import AudioContent, ResourceLink
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.sampling import CreateMessageParams, SamplingMessage
from dragoman.revisions.dialect import Dialect
from dragoman.revisions.registry import DIALECTS
from tests.properties.strategies import RECORDS, records_of
from tests.revisions.official import HAS_SPEC, complaints, is_declared, lowered, needs_spec

# Capabilities that say all by being there: where they do not exist, their holder leaves them out.
_BARE = {
    "CompletionsCapability",
    "ElicitationCapability",
    "LoggingCapability",
    "RootsCapability",
    "SamplingCapability",
}

every_record = pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
every_revision = pytest.mark.parametrize("dialect", DIALECTS, ids=[one.wire for one in DIALECTS])
# 8 a cell: there are some 300 cells, and the slow run below takes 400
few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=400)


def must_be_refused(value: Record, dialect: Dialect) -> bool:
    """Whether `degrade` promises CannotLower: no revision is given less than it was asked for."""
    facts = dialect.facts
    fields = getattr(value, "requested_schema", None) or {}
    match value:
        case AudioContent() | ResourceLink():
            return False
        case CreateMessageParams() if not facts.has_sampling_tools:
            return bool(value.tools)
        case SamplingMessage() if not facts.has_sampling_tools:
            return isinstance(value.content, list) and len(value.content) != 1
        case ElicitParams() if facts.has_elicitation and not facts.has_rich_enums:
            kinds = [field["type"] for field in fields.get("properties", {}).values()]
            return value.mode == "url" or "array" in kinds
        case ElicitResult() if facts.has_elicitation and not facts.has_rich_enums:
            return any(isinstance(answer, list) for answer in (value.content or {}).values())
    return not dialect.members[type(value).__name__] and type(value).__name__ not in _BARE


def without_fills(value: Any, dialect: Dialect) -> Any:
    """A lowered value without what the revision asks to be filled in."""
    fills = dialect.fills.get(type(value), {})
    return msgspec.structs.replace(value, **dict.fromkeys(fills)) if fills else value


def check(value: Record, dialect: Dialect) -> None:
    """Every promise of lowering that needs no schema, for one value."""
    before = encode_value(value)
    if must_be_refused(value, dialect):
        with pytest.raises(CannotLower) as caught:
            lowered(dialect, value)
        assert caught.value.revision == dialect.wire
        assert encode_value(value) == before
        return
    result, losses = lowered(dialect, value)
    assert encode_value(value) == before
    # a reader of that revision finds what was written
    assert dialect.lift(type(result), encode_value(result)) == result
    same = without_fills(result, dialect) == without_fills(value, dialect)
    assert same == (not losses), losses
    # what is at home already stays as it is, and says nothing
    again, more = lowered(dialect, result)
    assert again == result
    assert more == []


def check_schema(value: Record, dialect: Dialect) -> None:
    """What a peer gets fits its own schema, closed."""
    if must_be_refused(value, dialect):
        return
    result, _ = lowered(dialect, value)
    if is_declared(type(result), dialect.wire) or type(result).__name__ not in _BARE:
        assert complaints(result, dialect.wire) == []


@every_revision
@every_record
@few
@given(data=st.data())
def test_every_loss_is_said_and_what_is_given_fits_the_closed_schema(
    record: type[Record], dialect: Dialect, data: st.DataObject
) -> None:
    value = data.draw(records_of(record))
    check(value, dialect)
    if HAS_SPEC:
        check_schema(value, dialect)


@needs_spec
@pytest.mark.slow
@pytest.mark.timeout(600)
@every_revision
@every_record
@many
@given(data=st.data())
def test_many_lowered_values_keep_every_promise(
    record: type[Record], dialect: Dialect, data: st.DataObject
) -> None:
    value = data.draw(records_of(record))
    check(value, dialect)
    check_schema(value, dialect)


@needs_spec
@every_revision
@every_record
def test_a_record_has_members_where_it_is_declared(record: type[Record], dialect: Dialect) -> None:
    if record.__name__ not in _BARE:
        assert bool(dialect.members[record.__name__]) == is_declared(record, dialect.wire)
