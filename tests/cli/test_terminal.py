"""What a person sees at a terminal, and how they answer."""

from __future__ import annotations

import re
import signal
import sys

import pytest

from tests.cli.aids import ODD, UNSEEN, Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")

# Colours and the moves of a progress bar are ours; everything else that a terminal obeys is not.
OURS = re.compile(r"\x1b\[[0-9;]*[A-Km]|\x1b\[\?25[lh]")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "dragoman", *words]


def plain(text: str) -> str:
    return OURS.sub("", text).replace("\r\n", "\n")


def test_colours_appear_on_a_terminal() -> None:
    with Terminal(command("list", ODD)) as terminal:
        assert terminal.finish() == 0
    assert "\x1b[1;32mecho" in terminal.seen
    for character in UNSEEN:
        assert character not in plain(terminal.seen)


def test_no_colour_appears_when_the_person_wants_none() -> None:
    with Terminal(command("call", ODD, "fail"), NO_COLOR="1") as terminal:
        assert terminal.finish() == 1
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal.seen)
    assert "it cannot be done" in terminal.seen


def test_a_progress_bar_appears_and_leaves_only_the_result() -> None:
    with Terminal(command("call", ODD, "steps")) as terminal:
        terminal.expect("4/4")
        assert terminal.finish() == 0
    assert "step 4" in terminal.seen
    assert "━" in terminal.seen
    # The bar's line is cleared before the result is printed.
    assert terminal.seen.rpartition("\x1b[2K")[2].strip() == "walked"


def test_a_sampling_request_is_answered_by_the_person() -> None:
    with Terminal(command("call", ODD, "ask_model")) as terminal:
        terminal.expect("Answer this request? [y/N] ")
        assert "Knock knock." in terminal.seen
        assert "Who is there? \\x1b[2J" in terminal.seen
        terminal.type("y\n")
        terminal.expect("Your answer: ")
        terminal.type("Zoë\n")
        assert terminal.finish() == 0
    # The answer as it was typed, and the result once the bar has gone.
    assert "Your answer: Zoë\n" in plain(terminal.seen)
    assert terminal.seen.rpartition("\x1b[2K")[2].strip() == "Zoë"
    assert "1/2" in terminal.seen


@pytest.mark.long
@pytest.mark.parametrize("keys", ["n\n", "\n", "maybe\n", "\x04"])
def test_anything_but_a_yes_refuses(keys: str) -> None:
    with Terminal(command("call", ODD, "ask_model")) as terminal:
        terminal.expect("Answer this request? [y/N] ")
        terminal.type(keys)
        assert terminal.finish() == 1
    assert "refused: -1" in terminal.seen


def test_a_form_is_filled_in_field_by_field() -> None:
    with Terminal(command("call", ODD, "ask_person")) as terminal:
        terminal.expect("Fill in this form? [y/N] ")
        terminal.type("yes\n")
        terminal.expect("name (text): ")
        terminal.type("\n")
        terminal.expect("name (text): ")
        terminal.type("Ada\n")
        terminal.expect("if left empty): ")
        terminal.type("huge\n")
        terminal.expect("expected")
        terminal.type("\n")
        terminal.expect("age (integer; may be left empty): ")
        terminal.type("36\n")
        assert terminal.finish() == 0
    assert "accept Answer(name='Ada', size='small', age=36)" in plain(terminal.seen)


def test_the_end_of_input_cancels_a_form() -> None:
    with Terminal(command("call", ODD, "ask_person")) as terminal:
        terminal.expect("Fill in this form? [y/N] ")
        terminal.type("y\n")
        terminal.expect("name (text): ")
        terminal.type("\x04")
        assert terminal.finish() == 0
    assert "cancel None" in terminal.seen


def test_an_address_is_never_opened_and_only_visited_with_a_yes() -> None:
    with Terminal(command("call", ODD, "ask_visit")) as terminal:
        terminal.expect("It is not opened for you. [y/N] ")
        assert "at example.com" in terminal.seen
        terminal.type("n\n")
        assert terminal.finish() == 0
    assert plain(terminal.seen).endswith("decline\n")


def test_ctrl_c_at_a_question_ends_the_command() -> None:
    with Terminal(command("call", ODD, "ask_model")) as terminal:
        terminal.expect("Answer this request? [y/N] ")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish() == 130
    assert "Traceback" not in terminal.seen


def test_a_server_run_by_hand_says_what_to_do_instead() -> None:
    with Terminal(command("run", ODD)) as terminal:
        terminal.expect("dragoman inspect")
        terminal.type("\x04")
        assert terminal.finish() == 0
    assert "Traceback" not in terminal.seen
