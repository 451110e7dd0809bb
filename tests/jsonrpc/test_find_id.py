"""Guessing the id of a frame that was too large to hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.jsonrpc.codec import find_id


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"a":"xx', b'xx"}}', (7, True)),
        (b'{"jsonrpc":"2.0", "id" : "seven" , "result":{"a":"xx', b'xx"}}', ("seven", False)),
        (b'{"jsonrpc":"2.0","result":{"a":"xx', b'xx"},"id":-3}', (-3, False)),
        (b'{"params":{"a":"xx', b'xx"},"method":"m","id":"t","jsonrpc":"2.0"}', ("t", True)),
        (b'{"jsonrpc":"2.0","method":"n","params":{"a":"xx', b'xx"}}', (None, True)),
        (b'{"jsonrpc":"2.0","id":null,"result":{"a":"xx', b'xx"}}', (None, False)),
        (b'{"jsonrpc":"2.0","id":1.5,"result":{"a":"xx', b'xx"}}', (None, False)),
        (b'{"jsonrpc":"2.0","id":"a\\"b","result":{"a":"xx', b'xx"}}', ('a"b', False)),
        (b"", b"", (None, False)),
    ],
)
def test_an_id_is_found_at_either_end(
    head: bytes, tail: bytes, expected: tuple[int | str | None, bool]
) -> None:
    assert find_id(head, tail) == expected


def test_the_start_of_a_frame_speaks_before_its_end() -> None:
    assert find_id(b'{"id":1,"result":{"x":"', b'","id":2}}')[0] == 1


def test_at_the_end_of_a_frame_the_last_id_speaks() -> None:
    # what is nested inside a result ends before the frame does
    assert find_id(b'{"result":{"x":"', b'","y":{"id":5}},"id":2}')[0] == 2


@pytest.mark.parametrize(
    "head",
    [
        b'{"id":"\\q",',
        b'{"id":"\xff",',
        b'{"id":"\\ud800",',
        b'{"id":007,',
        b'{"id":-,',
        b'{"id":9999999999999999,',
        b'{"id":"' + b"x" * 300 + b'",',
    ],
)
def test_what_looks_like_an_id_and_is_none_is_not_found(head: bytes) -> None:
    assert find_id(head, b"")[0] is None


def test_an_unclosed_string_takes_no_time() -> None:
    assert find_id(b'"id":"' * 100_000, b'"id":"\\' * 100_000) == (None, False)


@given(head=st.binary(max_size=60), tail=st.binary(max_size=60))
def test_a_guess_never_raises(head: bytes, tail: bytes) -> None:
    ident, is_request = find_id(b'"id":"' + head, b'"id":' + tail)
    assert ident is None or type(ident) in (int, str)
    assert isinstance(is_request, bool)
