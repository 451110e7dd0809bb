"""Arrays of messages: recognised, member by member, and never trusted as a whole."""

from __future__ import annotations

import pytest

from dragoman.errors import BadMessage
from dragoman.jsonrpc.codec import MAX_DEPTH, decode
from dragoman.jsonrpc.message import ABSENT, Batch, Notification, Request


def test_members_keep_their_order() -> None:
    got = decode(b'[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"b"}]')
    assert got == Batch((Request(1, "a", ABSENT), Notification("b", ABSENT)))


def test_an_empty_batch_is_invalid() -> None:
    with pytest.raises(BadMessage) as caught:
        decode(b" [ ] ")
    assert caught.value.kind == "invalid"


def test_a_faulty_member_does_not_spoil_the_others() -> None:
    got = decode(
        b'[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"1.0","id":2,"method":"b"},'
        b'{"jsonrpc":"2.0","id":3,"result":{}}]'
    )
    assert isinstance(got, Batch)
    first, second, third = got.members
    assert first == Request(1, "a", ABSENT)
    assert isinstance(second, BadMessage)
    assert (second.kind, second.id) == ("invalid", 2)
    assert not isinstance(third, BadMessage)


@pytest.mark.parametrize(
    "member", [b"1", b"null", b'"x"', b"[]", b'[{"jsonrpc":"2.0","method":"b"}]']
)
def test_a_member_that_is_no_object_is_a_faulty_member(member: bytes) -> None:
    got = decode(b'[{"jsonrpc":"2.0","method":"a"},' + member + b"]")
    assert isinstance(got, Batch)
    assert got.members[0] == Notification("a", ABSENT)
    fault = got.members[1]
    assert isinstance(fault, BadMessage)
    assert fault.kind == "invalid"
    assert fault.sample == member


def test_a_batch_of_nothing_but_faults_is_still_a_batch() -> None:
    got = decode(b"[1,2,3]")
    assert isinstance(got, Batch)
    assert [type(member) for member in got.members] == [BadMessage] * 3


def test_a_duplicate_key_in_one_member_spoils_the_frame() -> None:
    # The text as a whole is not acceptable JSON, as a missing brace would make it.
    with pytest.raises(BadMessage) as caught:
        decode(b'[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":1,"id":2}]')
    assert caught.value.kind == "parse"
    assert caught.value.id is None


def test_the_array_counts_as_a_level() -> None:
    head, tail = b'[{"jsonrpc":"2.0","method":"a","params":', b"}]"
    inside = MAX_DEPTH - 2
    fits = head + b'{"x":' * (inside - 1) + b"{}" + b"}" * (inside - 1) + tail
    assert isinstance(decode(fits), Batch)
    with pytest.raises(BadMessage):
        decode(head + b'{"x":' * inside + b"{}" + b"}" * inside + tail)


def test_a_batch_of_ten_thousand_is_read() -> None:
    one = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    got = decode(b"[" + b",".join([one] * 10_000) + b"]")
    assert isinstance(got, Batch)
    assert len(got.members) == 10_000
