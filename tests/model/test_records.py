"""What holds for every record: frozen, by keyword, named as on the wire, sparse, and unchanged by a
round trip."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.jsonrpc.codec import encode_value
from dragoman.model.base import Record
from tests.properties.strategies import RECORDS, records_of

every_record = pytest.mark.parametrize("record", RECORDS.values(), ids=list(RECORDS))
few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@every_record
def test_a_record_is_frozen_and_made_by_keyword(record: type[Record]) -> None:
    config = record.__struct_config__
    assert config.frozen
    assert config.omit_defaults
    with pytest.raises(TypeError):
        record("positional")


@every_record
def test_members_are_named_as_on_the_wire(record: type[Record]) -> None:
    for field in msgspec.structs.fields(record):
        head, *rest = field.name.split("_")
        camel = head + "".join(part.capitalize() for part in rest)
        special = {"meta": "_meta", "rawArguments": "arguments"}
        assert field.encode_name == special.get(camel, camel)


@every_record
def test_no_two_values_share_a_default_that_can_change(record: type[Record]) -> None:
    for field in msgspec.structs.fields(record):
        assert not isinstance(field.default, list | dict | set)
        assert field.default_factory is msgspec.NODEFAULT


@every_record
@few
@given(data=st.data())
def test_a_record_is_written_sparse_reads_back_equal_and_can_be_copied(
    record: type[Record], data: st.DataObject
) -> None:
    value = data.draw(records_of(record))
    written = encode_value(value)
    again = msgspec.json.decode(written, type=record)
    assert again == value
    # and is written the same, so that nothing is kept aside that equality does not see
    assert encode_value(again) == written

    members: dict[str, Any] = msgspec.json.decode(written)
    for field in msgspec.structs.fields(record):
        # a member left at its default is not written
        left = (
            field.default is not msgspec.NODEFAULT and getattr(value, field.name) is field.default
        )
        assert (field.encode_name in members) is not left

    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value
