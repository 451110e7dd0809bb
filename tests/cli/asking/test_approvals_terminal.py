"""Questions on a real terminal, drawn full screen and printed line by line."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dragoman.cli.question import question_of
from tests.cli.aids import UNSEEN
from tests.cli.asking.requests import HIDDEN, LONG, SHORT, request
from tests.cli.asking.screen import Screen, asked, script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")

GUTTERS = ("  │ ", "  ┊ ")
FULL_READY = "[n] no"
PLAIN_READY = "cancel  ["
# Colours, moves and modes: what we and the library that draws for us write.
OURS = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>78])|[\r\n]")


def decide(case: str, keys: str, *, mode: str = "full") -> Any:
    """The one decision after these keys."""
    with Screen(asked(case, mode)) as screen:
        screen.until(FULL_READY if mode == "full" else PLAIN_READY)
        screen.type(keys)
        assert screen.finish() == 0
    (decision,) = screen.decisions()
    return decision


@pytest.mark.parametrize(
    ("key", "effect", "scope"),
    [
        ("o", "allow", "once"),
        ("s", "allow", "session"),
        ("a", "allow", "always"),
        ("n", "deny", "once"),
        ("v", "deny", "always"),
        ("c", "cancel", "once"),
        ("\x03", "cancel", "once"),
        ("\x04", "cancel", "once"),
    ],
)
@pytest.mark.parametrize("mode", ["full", "plain"])
@pytest.mark.long
def test_every_key_is_its_answer(mode: str, key: str, effect: str, scope: str) -> None:
    keys = key if mode == "full" or not key.isprintable() else f"{key}\n"
    decision = decide("short", keys, mode=mode)
    assert (decision["effect"], decision["scope"]) == (effect, scope)
    assert decision["digest"] == request(SHORT, editable=("",)).view_digest
    assert decision["channel"] == "terminal"
    assert "payload" not in decision


@pytest.mark.long
def test_a_yes_is_for_the_view_that_was_shown() -> None:
    with Screen(asked("short", "full")) as screen:
        text = screen.until("[o] once")
        for line in str(question_of(request(SHORT))).split("\n"):
            assert line in text.split("\n")
        screen.type("zzz?")  # keys that mean nothing do nothing but begin the pause again
        assert screen.insist("o") == 0
    assert "allowed once: tool.call(fs/write_file)" in screen.text
    assert screen.decisions()[0]["digest"] == request(SHORT).view_digest


def test_nothing_hidden_reaches_the_terminal_and_the_frame_cannot_be_forged() -> None:
    with Screen(asked("hidden", "full")) as screen:
        text = screen.until("[n] no")
        screen.type("n")
        assert screen.finish() == 0
    assert "hidden characters, shown as escapes" in text
    assert "gpj.exe" in text
    assert "\\u202e" in text
    # The words that imitate the frame stand behind the gutter, without the mark.
    forged = [row for row in text.split("\n") if "[o] once" in row]
    assert [row.startswith("▌") for row in forged] == [False, True]
    harmless = OURS.sub("", screen.seen)
    for character in UNSEEN:
        assert character not in harmless


def test_a_long_view_is_scrolled_to_its_end_before_a_yes() -> None:
    shown: dict[str, None] = {}
    with Screen(asked("long", "full"), rows=20) as screen:
        screen.until("[n] no")
        screen.type("oas")
        while "[o] once" not in screen.text:
            shown |= dict.fromkeys(screen.rows)
            place = re.search(r"rows \d+-\d+", screen.text)
            assert place
            screen.type(" ")
            screen.until(partial(differs, place[0]))
        shown |= dict.fromkeys(screen.rows)
        screen.type("o")
        assert screen.finish() == 0
    assert screen.decisions()[0]["effect"] == "allow"
    # All of it was on the screen, in order.
    rows = [row[4:] for row in shown if row.startswith("  │ ")]
    start = rows.index("{")
    assert json.loads("".join(rows[start:])) == LONG


@pytest.mark.long
def test_a_refusal_needs_no_scrolling() -> None:
    assert decide("long", "n")["effect"] == "deny"


@pytest.mark.long
def test_a_small_screen_shows_all_of_it_row_by_row() -> None:
    shown: dict[str, None] = {}
    with Screen(asked("short", "full"), columns=40, rows=8) as screen:
        screen.until("[n] no")
        while "[o] once" not in screen.text:
            shown |= dict.fromkeys(screen.rows)
            place = re.search(r"rows \d+-\d+", screen.text)
            assert place
            screen.type("\x1b[B")
            screen.until(partial(differs, place[0]))
        shown |= dict.fromkeys(screen.rows)
        screen.type("o")
        assert screen.finish() == 0
    assert json.loads("".join(row[4:] for row in list(shown) if row[:4] in GUTTERS and "node" not in row)) == SHORT  # fmt: skip
    assert screen.decisions()[0]["effect"] == "allow"


def differs(before: str, text: str) -> bool:
    return before not in text


def test_what_stands_behind_a_row_of_emoji_is_on_the_screen() -> None:
    with Screen(asked("emoji", "full")) as screen:
        text = screen.until("[o] once")
        screen.type("n")
        assert screen.finish() == 0
    assert "; rm -rf ~" in text


@pytest.mark.long
@pytest.mark.parametrize(("columns", "rows"), [(40, 4), (20, 24)])
def test_a_screen_on_which_nothing_fits_takes_no_yes(columns: int, rows: int) -> None:
    with Screen(asked("short", "full"), columns=columns, rows=rows) as screen:
        screen.until("make the")
        screen.type("\x1b[F")
        screen.until_quiet()
        screen.type("o")
        assert screen.insist("c") == 0
    assert screen.decisions()[0]["effect"] == "cancel"


@pytest.mark.long
def test_what_was_typed_before_the_question_answers_nothing() -> None:
    with Screen(asked("short", "full")) as screen:
        screen.type("oooo")
        screen.until("[o] once")
        screen.type("n")
        assert screen.finish() == 0
    assert screen.decisions()[0]["effect"] == "deny"


@pytest.mark.long
def test_a_sentence_typed_into_a_question_answers_nothing() -> None:
    with Screen(asked("short", "full")) as screen:
        screen.until("[o] once")
        screen.type("What is so long about noon?")
        assert screen.insist("n") == 0
    assert screen.decisions()[0]["effect"] == "deny"


@pytest.mark.long
def test_two_questions_wait_for_each_other() -> None:
    with Screen(asked("two", "full")) as screen:
        assert "1 more waiting" in screen.until("[o] once")
        screen.type("o")
        text = screen.until(lambda text: "second" in text and "[n] no" in text)
        assert "more waiting" not in text.split("No rule decides")[1]
        screen.type("n")
        assert screen.finish() == 0
    assert [one["effect"] for one in screen.decisions()] == ["allow", "deny"]


@pytest.mark.long
def test_ctrl_c_cancels_one_question_and_leaves_the_next() -> None:
    with Screen(asked("two", "full")) as screen:
        screen.until("[o] once")
        screen.type("\x03")
        screen.until(lambda text: "second" in text and "[n] no" in text)
        screen.interrupt()
        assert screen.finish() == 0
    assert [one["effect"] for one in screen.decisions()] == ["cancel", "cancel"]
    assert "Traceback" not in screen.seen


@pytest.mark.parametrize("mode", ["full", "plain"])
@pytest.mark.long
def test_a_withdrawn_question_vanishes_and_says_so(mode: str, tmp_path: Path) -> None:
    word = tmp_path / "word"
    os.mkfifo(word)
    with Screen(asked("withdrawn", mode, str(word))) as screen:
        screen.until("cancel")
        word.write_text("now")
        assert screen.finish() == 0
    assert "no longer asked (answered or withdrawn): tool.call(fs/write_file)" in screen.text
    assert "WITHDRAWN True" in screen.seen


@pytest.mark.parametrize("mode", ["full", "plain"])
@pytest.mark.long
def test_how_many_wait_is_on_the_screen_and_drawn_again_as_more_come(
    mode: str, tmp_path: Path
) -> None:
    word = tmp_path / "word"
    os.mkfifo(word)
    with Screen(asked("many", mode, str(word)), columns=120) as screen:
        screen.until("3 identical calls wait for this answer")
        screen.until("[o] once" if mode == "full" else "once, session")
        word.write_text("more")
        screen.until("20 identical calls wait for this answer")
        # Until it has been there for long enough to be read.
        screen.until_quiet()
        screen.type("o" if mode == "full" else "once\n")
        assert screen.finish() == 0
    assert "allowed once, all 20 identical calls: tool.call(fs/write_file)" in screen.seen
    decisions = screen.decisions()
    assert [one["effect"] for one in decisions] == ["allow"] * 20
    assert len({one["approval"] for one in decisions}) == 1


# --- changing what is sent ------------------------------------------------------------------------


@pytest.mark.long
def test_an_edit_is_shown_again_and_sent_exactly() -> None:
    with Screen(asked("short", "full")) as screen:
        screen.until("[e] edit")
        screen.type("e")
        screen.until("Ctrl-S when done")
        # Down to the content, to its end, before the quote.
        screen.type("\x1b[B\x1b[B\x05\x1b[D, you\x13")
        text = screen.until("Your changes:")
        assert '+  "content": "hello, you"' in text
        text = screen.until("[o] once")
        assert "as you changed it, all of its 48 bytes" in text
        assert "[a] always" not in text
        screen.type("o")
        assert screen.finish() == 0
    (decision,) = screen.decisions()
    assert json.loads(decision["payload"]) == SHORT | {"content": "hello, you"}
    assert decision["digest"] == request(SHORT, editable=("",)).view_digest


@pytest.mark.long
def test_an_edit_that_is_no_json_is_told_and_edited_again() -> None:
    with Screen(asked("short", "full")) as screen:
        screen.until("[e] edit")
        screen.type("e")
        screen.until("Ctrl-S when done")
        screen.type("}\x13")
        screen.until("that cannot be sent: line 1, column 1")
        screen.until("[e] edit again")
        screen.type("e")
        screen.until("Ctrl-S when done")
        # The text is there as it was left.
        screen.type("\x1b[3~\x13")
        screen.until("[v] never")
        screen.type("n")
        assert screen.finish() == 0
    assert screen.decisions()[0]["effect"] == "deny"


@pytest.mark.parametrize("mode", ["full", "plain"])
@pytest.mark.long
def test_the_editor_of_the_person_is_used(mode: str, tmp_path: Path) -> None:
    editor = script(
        tmp_path / "editor",
        "import os, pathlib, stat, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "assert stat.S_IMODE(os.stat(path).st_mode) == 0o600\n"
        "path.write_text(path.read_text().replace('hello', 'goodbye'))\n",
    )
    with Screen(asked("short", mode), EDITOR=editor, TMPDIR=str(tmp_path)) as screen:
        screen.until("cancel")
        screen.until("[e] edit" if mode == "full" else PLAIN_READY)
        screen.type("e" if mode == "full" else "edit\n")
        screen.until("as you changed it")
        if mode == "full":
            screen.until("[o] once")
        screen.until(lambda text: text.count("cancel") > (mode == "plain"))
        screen.type("o" if mode == "full" else "once\n")
        assert screen.finish() == 0
    (decision,) = screen.decisions()
    assert json.loads(decision["payload"]) == SHORT | {"content": "goodbye"}
    assert [one.name for one in tmp_path.iterdir()] == ["editor"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("editor", "words"),
    [("/nonexistent/editor", "set EDITOR"), ('vi "a', "EDITOR is no command line")],
)
def test_an_editor_that_cannot_be_started_changes_nothing(editor: str, words: str) -> None:
    with Screen(asked("short", "full"), EDITOR=editor) as screen:
        screen.until("[e] edit")
        screen.type("e")
        screen.until(words)
        screen.until("[e] edit again")
        screen.type("c")
        screen.until("[v] never")
        screen.type("c")
        assert screen.finish() == 0
    assert screen.decisions()[0]["effect"] == "cancel"


# --- other kinds of questions ---------------------------------------------------------------------


@pytest.mark.long
def test_an_answer_of_the_model_is_released_without_some_words() -> None:
    with Screen(asked("release", "full")) as screen:
        screen.until("[x] take words out")
        screen.type("x")
        screen.until("words to take out, wherever they stand")
        screen.type("1234\r")
        screen.until("as you changed it")
        screen.until("[o] release it")
        screen.type("o")
        assert screen.finish() == 0
    (decision,) = screen.decisions()
    assert "1234" not in decision["payload"]
    assert decision["payload"].count("[redacted]") == 2


@pytest.mark.parametrize(
    ("key", "effect", "note"), [("n", "deny", "withheld"), ("g", "cancel", "regenerate")]
)
@pytest.mark.long
def test_an_answer_of_the_model_is_withheld_or_made_anew(key: str, effect: str, note: str) -> None:
    with Screen(asked("release", "full")) as screen:
        screen.until("[g] generate another")
        screen.type(key)
        assert screen.finish() == 0
    (decision,) = screen.decisions()
    assert (decision["effect"], decision["note"]) == (effect, note)


@pytest.mark.parametrize(
    ("mode", "typed", "size"),
    [("full", "", {"size": "small"}), ("full", "-", {}), ("plain", "-", {})],
)
@pytest.mark.long
def test_a_form_is_filled_in_field_by_field_and_shown_before_it_is_sent(
    mode: str, typed: str, size: dict[str, str]
) -> None:
    enter = "\r" if mode == "full" else "\n"
    with Screen(asked("form", mode), rows=40) as screen:
        screen.until("fill in")
        screen.until("[f] fill in" if mode == "full" else PLAIN_READY)
        screen.type("f" if mode == "full" else "fill\n")
        screen.until("name (text)")
        screen.type(enter)
        screen.until("! name needs an answer")
        # What is typed before it is asked for again is forgotten.
        screen.until(lambda text: "name (text)" in text.partition("! name needs")[2])
        screen.type("Ada" + enter)
        screen.until('size ("small" or "large"; "small" if left empty; - for nothing)')
        screen.type(typed + enter)
        shown = screen.until("age (integer; may be left empty)")
        assert "  │ Your age, in years\n" in shown
        screen.type("many" + enter)
        screen.until(lambda text: "age (integer" in text.partition("expected")[2])
        screen.type("36" + enter)
        screen.until("send it")
        if mode == "full":
            screen.until("[o] send it")
        screen.type("o" if mode == "full" else "send\n")
        assert screen.finish() == 0
    (decision,) = screen.decisions()
    assert decision["effect"] == "allow"
    assert json.loads(decision["payload"]) == size | {"name": "Ada", "age": 36}


@pytest.mark.parametrize(
    ("key", "effect", "opened"), [("o", "allow", True), ("p", "allow", False), ("n", "deny", False)]
)
@pytest.mark.long
def test_an_address_is_opened_only_on_a_yes(key: str, effect: str, opened: bool) -> None:
    with Screen(asked("url", "full")) as screen:
        assert "https://a.test/x" in screen.until("[o] open it")
        assert "OPENED" not in screen.seen
        screen.type(key)
        assert screen.finish() == 0
    assert screen.decisions()[0]["effect"] == effect
    assert ("OPENED https://a.test/x" in screen.seen) is opened


@pytest.mark.long
def test_lines_show_a_screenful_at_a_time_and_no_yes_before_the_end() -> None:
    with Screen(asked("long", "plain"), rows=20) as screen:
        screen.until("Enter: more")
        screen.type("once\n")
        screen.until(lambda text: text.count("left]") == 2)
        while True:
            count = screen.seen.count("left]")
            screen.type("\n")
            while screen.seen.count("left]") == count:
                assert screen._read()
            if "once, session" in screen.text:
                break
        screen.type("once\n")
        assert screen.finish() == 0
    assert screen.decisions()[0]["effect"] == "allow"
    shown = re.findall(r"  │ (.*?)\r?\n", OURS_BUT_LINES.sub("", screen.seen))
    assert json.loads("".join(shown[shown.index("{") :])) == LONG


OURS_BUT_LINES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.long
def test_a_dumb_terminal_gets_lines() -> None:
    with Screen(asked("hidden"), TERM="dumb") as screen:
        text = screen.until(PLAIN_READY)
        screen.type("n\n")
        assert screen.finish() == 0
    assert screen.decisions()[0]["effect"] == "deny"
    assert "\x1b" not in screen.seen
    assert json.dumps(HIDDEN)[:8] in text or "\\u202e" in text
