"""An answer that comes in pieces, broken between its words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dragoman.cli.question import cells
from dragoman.cli.wrapping import WordWrap

TEXTS = st.text("ab `\n\u4e2d", max_size=60)


def wrapped(*pieces: str, columns: int = 10) -> str:
    written: list[str] = []
    wrap = WordWrap(written.append, lambda: columns)
    for piece in pieces:
        wrap.add(piece)
    wrap.end()
    return "".join(written)


def test_a_line_is_broken_between_words() -> None:
    assert wrapped("The sun is shining.") == "The sun is\nshining."
    assert wrapped("The s", "un is shin", "ing.") == "The sun is\nshining."


def test_a_word_wider_than_the_terminal_is_left_to_it() -> None:
    assert wrapped("see https://example.com/a/b ok") == "see https://example.com/a/b ok"


def test_blanks_at_the_beginning_of_a_line_and_short_lines_stay() -> None:
    assert wrapped("  - one\n  - two \n\nend") == "  - one\n  - two \n\nend"


def test_code_between_fences_stays_as_it_is() -> None:
    code = "```\nx = first + second + third\n```\n"
    assert wrapped(code) == code
    assert wrapped(code + "and then some words") == code + "and then\nsome words"


@given(TEXTS, st.integers(0, 60))
def test_nothing_is_lost_and_no_words_are_joined(text: str, at: int) -> None:
    whole = wrapped(text)
    assert whole.split() == text.split()
    # In whatever pieces it comes.
    assert wrapped(text[:at], text[at:]) == whole


@given(st.lists(st.text("ab\u4e2d", min_size=1, max_size=5), max_size=20))
def test_words_that_fit_are_never_broken_by_the_terminal(words: list[str]) -> None:
    for line in wrapped(" ".join(words)).split("\n"):
        assert cells(line) <= 10
