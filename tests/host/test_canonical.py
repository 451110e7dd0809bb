"""A value has one text. Source: RFC 8785, its appendix B and the library `rfc8785`."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from dragoman.host.canonical import MAX_DEPTH, canonical, digest, read_json

EXACT = 2**53

texts = st.text(st.characters(exclude_categories=["Cs"]))
values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-EXACT + 1, EXACT - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=8,
)


@given(values)
def test_values_are_written_as_the_reference_writes_them(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@given(st.integers(0, 2**64 - 1))
def test_every_double_is_written_as_the_reference_writes_it(bits: int) -> None:
    (value,) = struct.unpack(">d", bits.to_bytes(8, "big"))
    if math.isfinite(value):
        assert canonical(value) == rfc8785.dumps(value)
        assert float(canonical(value)) == value
    else:
        with pytest.raises(ValueError, match="NaN"):
            canonical(value)


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_the_numbers_of_appendix_b(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical(value) == text.encode()


def test_the_example_of_section_3_2_2() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_members_are_sorted_by_utf_16_as_in_section_3_2_3() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    written = json.loads(canonical(dict.fromkeys(names)), object_pairs_hook=list)
    assert [name for name, _ in written] == [
        "\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33",
    ]  # fmt: skip


@given(st.integers(EXACT, 10**30), st.integers(1, 9))
def test_whole_numbers_beyond_a_double_differ_when_any_digit_does(number: int, by: int) -> None:
    assert digest(number) != digest(number + by)
    assert canonical(-number) == str(-number).encode()


@given(st.dictionaries(texts, st.integers()))
def test_the_order_of_members_does_not_matter(value: dict[str, Any]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@given(values, values)
def test_only_equal_values_have_equal_texts(one: Any, other: Any) -> None:
    def typed(value: Any) -> Any:
        if isinstance(value, bool):
            return ("bool", value)
        if isinstance(value, list):
            return [typed(item) for item in value]
        if isinstance(value, dict):
            return {name: typed(item) for name, item in value.items()}
        return value

    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


def test_a_digest_names_its_function() -> None:
    assert digest({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("\ud800", "half a character"),
        ({"\udfff": 1}, "half a character"),
        (float("nan"), "NaN"),
        ([-math.inf], "infinities"),
        ({1: 2}, "name is a text"),
        ({"a": {1, 2}}, "no set"),
        (b"bytes", "no bytes"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        canonical(value)


def test_endless_nesting_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="deeper"):
        canonical(value)
    deep: Any = 0
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert canonical(deep).count(b"[") == MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "'a' stands twice"),
        ('{"x": {"a": 1, "\\u0061": 2}}', "'a' stands twice"),
        ("[NaN]", "NaN is no JSON number"),
        ("[1e999]", "infinities"),
        ('"\\ud800"', "half a character"),
        ("{'a': 1}", "property name"),
        ("", "Expecting value"),
        ("[" * 100_000, "deeper"),
        (b"\xff\xfe", "utf|Expecting|decode"),
    ],
)
def test_text_that_could_be_read_in_two_ways_is_not_read(text: bytes | str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_json(text)


@given(values)
def test_what_is_written_reads_back(value: Any) -> None:
    assert canonical(read_json(canonical(value))) == canonical(value)
