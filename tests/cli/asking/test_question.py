"""What is shown is what is sent: all of it, in lines that no stranger can forge."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.cli.question import (
    CONTINUED,
    GUTTER,
    MARK,
    MARK_CONTINUED,
    cells,
    compact,
    payload_lines,
    payload_of,
    question_of,
    text_lines,
    wrap,
)
from dragoman.errors import Misconfigured
from dragoman.host.kinds import Risk
from tests.cli.aids import ROOT, UNSEEN
from tests.cli.asking.requests import HIDDEN, LONG, SHORT, documented, request
from tests.requirements.duties import duty

# Texts that a hostile server would write: signs of ours, escapes, padding, marks, halves.
NASTY = st.one_of(
    st.text(max_size=60),
    st.text(
        st.sampled_from('▌␣│┊ \n\t\\"u202e\u202e\u200b\x1b\x9b\u0301\ufeff👩\U000e0041한字'),
        max_size=60,
    ),
    st.integers(1, 60).map(lambda number: "a" + " " * number + "b"),
    st.text(st.characters(categories=["Cs", "Cf", "Cc", "Zs", "Mn"]), max_size=20),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NASTY,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NASTY, inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


def exact(value: Any) -> bytes:
    """As JSON in valid UTF-8: a half character is an escape."""
    return re.sub(
        "[\ud800-\udfff]",
        lambda half: f"\\u{ord(half.group()):04x}",
        json.dumps(value, ensure_ascii=False),
    ).encode()


@duty("tools.inputs-shown", "sampling.ui.review")
@settings(max_examples=60)
@given(VALUES, st.integers(16, 200))
def test_what_stands_behind_the_gutter_is_the_payload(value: Any, columns: int) -> None:
    payload = exact(value)
    shown = payload_of(wrap(payload_lines(payload), columns))
    assert repr(json.loads(shown)) == repr(json.loads(payload))


@settings(max_examples=60)
@given(VALUES)
def test_what_is_edited_is_the_payload(value: Any) -> None:
    payload = exact(value)
    text = "\n".join(line.text for line in payload_lines(payload, is_exact=True))
    assert repr(json.loads(text)) == repr(json.loads(payload))
    assert repr(json.loads(compact(text))) == repr(json.loads(payload))


@duty("trust.ui")
@settings(max_examples=60)
@given(NASTY, NASTY, NASTY, st.binary(max_size=40), st.integers(16, 200))
def test_no_stranger_writes_a_line_of_ours_or_anything_a_terminal_obeys(
    headline: str, fact: str, name: str, payload: bytes, columns: int
) -> None:
    asked = request(
        payload, object=name, facts=[(headline, fact)], risks=[Risk(code="x", text=fact)]
    )
    question = question_of(asked)
    assert "\n" not in question.title
    for line in wrap(question.lines, columns):
        assert MARK.strip() not in line.text
        assert line.prefix in (MARK, MARK_CONTINUED, GUTTER, CONTINUED)
        assert line.is_ours == line.prefix.startswith(MARK)
        assert not set(line.text) & {*UNSEEN, "\n", "\r", "\t"}


@settings(max_examples=60)
@given(NASTY, st.integers(16, 60))
def test_a_wrapped_line_is_never_wider_than_the_screen(text: str, columns: int) -> None:
    for line in wrap(text_lines(text * 5), columns):
        assert cells(line.text) <= max(columns - len(line.prefix), 16)


# All of them take ten seconds; a step that is no power of two meets every block.
@pytest.mark.parametrize("step", [37, pytest.param(1, marks=pytest.mark.long)])
def test_no_character_is_wider_than_a_line_is_thought_to_be(step: int) -> None:
    widths = pytest.importorskip("prompt_toolkit.utils")
    from rich.cells import cell_len

    for number in range(0x20, 0x110000, step):
        one = chr(number)
        if [line.text for line in text_lines(one)] == [one]:
            assert cells(one) >= max(widths.get_cwidth(one), cell_len(one)), hex(number)


def test_what_a_line_of_ours_quotes_begins_no_line_of_ours() -> None:
    words = "x" * 20 + " dragoman has looked at this"
    lines = list(wrap(question_of(request(SHORT, object=words)).lines, 50))
    assert [line.prefix for line in lines[:3]] == [MARK, MARK_CONTINUED, MARK]


def test_ten_megabytes_are_laid_out_in_time() -> None:
    # Were each row cut off the front of the rest, this would take minutes.
    payload = json.dumps({"a": "é" * 5_000_000}, ensure_ascii=False).encode()
    assert sum(1 for _ in wrap(payload_lines(payload), 80)) > 60_000


def test_hidden_characters_are_escaped_and_counted() -> None:
    text = str(question_of(request(HIDDEN)))
    assert "hidden characters, shown as escapes:" in text
    for kind in ("1 bidirectional", "2 control", "1 zero width", "1 tag characters"):
        assert kind in text
    assert "they spell: A" in text
    assert "padded: 400 blanks in a row" in text
    assert text.count("␣") == 400
    assert "\\u258c dragoman asks" in text


def test_hidden_characters_in_a_fact_are_counted_too() -> None:
    text = str(question_of(request(SHORT, facts=[("started as", "x\u200b")])))
    assert "hidden characters, shown as escapes: 1 zero width" in text
    assert "x\\u200b" in text


def test_empty_lines_that_hide_what_follows_are_told() -> None:
    assert "more below what looks like its end" in str(
        question_of(request({"a": "x" + "\n" * 40 + "y"}))
    )


def test_text_that_runs_from_right_to_left_is_warned_of() -> None:
    assert "right to left" in str(question_of(request({"path": "אבג"})))
    assert "right to left" not in str(question_of(request(SHORT)))


def test_a_long_payload_is_there_to_its_last_line() -> None:
    text = str(question_of(request(LONG)))
    assert "line 119 of a long call" in text
    assert '"last": "rm -rf"' in text


def test_every_digit_and_every_name_of_a_payload_is_shown() -> None:
    payload = b'{"a":1.10,"a":12345678901234567890.00,"e":{},"l":[],"b":"\\u0041"}'
    shown = payload_of(payload_lines(payload))
    assert (
        re.sub(r"\s", "", shown) == '{"a":1.10,"a":12345678901234567890.00,"e":{},"l":[],"b":"A"}'
    )


def test_a_text_of_many_lines_is_laid_out_in_lines() -> None:
    lines = [line.text for line in payload_lines(b'{"a":"one\\ntwo\\n\\nthree"}')]
    assert lines == ["{", '  "a": "one\\n', "two\\n\\n", 'three"', "}"]


def test_what_is_no_json_is_shown_as_it_is() -> None:
    assert str(question_of(request(b"not \xff json\x1b"))).count("not \\xff json\\u001b") == 1


def test_the_question_in_the_docs_is_what_is_shown() -> None:
    page = (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8")
    assert f"```text\n{question_of(documented())}\n```" in page


@duty("trust.ui")
def test_a_view_shows_its_digest_its_risks_and_its_facts() -> None:
    asked = request(SHORT, risks=[Risk(code="taint", text="Words of 'web' led to this.")])
    text = str(question_of(asked))
    assert "! Words of 'web' led to this." in text
    assert "started as:\n  │ node server.js --root /srv/app" in text
    assert asked.view_digest[:23] in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1"),
        ('{"a": "x\n"}', "Invalid control character$"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": "\ud800"}', "half a character"),
        ("[" * 100_000, "nested"),
    ],
)
def test_json_that_cannot_be_sent_is_refused(text: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        compact(text)


def test_typed_json_keeps_its_digits() -> None:
    assert compact('{ "a" : 1.10,\n "b": [ 1e3 ] }') == b'{"a":1.10,"b":[1e3]}'
