"""Nothing that a terminal would obey is ever printed as it is."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.cli.printable import compact_json, json_text, one_line, printable

# Number signs that are seen; Unicode counts them as format characters all the same.
SEEN = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
UNSEEN_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_unseen(character: str) -> bool:
    if character in SEEN or character in "\n\t":
        return False
    return unicodedata.category(character) in UNSEEN_CATEGORIES


def test_every_unseen_character_of_unicode_is_escaped() -> None:
    everything = (chr(number) for number in range(0x110000))
    assert [hex(ord(one)) for one in everything if is_unseen(one) and one in printable(one)] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b2J", "\\x9b2J"),
        ("ring\x07", "ring\\a"),
        ("over\rwritten", "over\\rwritten"),
        ("\u202edlrow", "\\u202edlrow"),
        ("no\u200bthing", "no\\u200bthing"),
        ("\U000e0041", "\\U000e0041"),
        ("\ufe00\U000e0100", "\\ufe00\\U000e0100"),
        ("\ud800", "\\ud800"),
        ("line\r\nline\n\tline", "line\nline\n\tline"),
        ("naïve 日本語 ❤️ 👍🏽 עברית", "naïve 日本語 ❤️ 👍🏽 עברית"),
    ],
)
def test_what_is_seen_stays_and_what_is_not_is_named(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_one_line_has_no_line_ends_and_keeps_to_its_limit() -> None:
    assert one_line("a\n  b\tc\x1b") == "a b c\\x1b"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"


@given(st.text())
def test_printed_text_holds_only_what_is_seen(text: str) -> None:
    assert not any(is_unseen(one) for one in printable(text))
    assert not any(is_unseen(one) or one == "\n" for one in one_line(text))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES)
def test_json_means_the_same_and_holds_only_what_is_seen(value: object) -> None:
    for written in (json_text(value), compact_json(value)):
        assert json.loads(written) == value
        assert not any(is_unseen(one) for one in written)
