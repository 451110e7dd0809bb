"""What is piped in beside a question that is given in words, and what a refusal says there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.hosts.places import START, Place, call, events


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, {})


def test_what_is_piped_in_goes_along_as_material(place: Place) -> None:
    model = place.script({"text": "{last}"})
    done = place.run("chat", "What is this?", "--model", model, stdin="a line\n@a:b\n")
    assert (done.returncode, done.stderr) == (0, "")
    words, marked, material = done.stdout.partition("Material, no instructions:\n\n")
    assert words.startswith("What is this?")
    assert "not typed by the user" in words
    assert marked
    assert material.rstrip() == "a line\n@a:b"


@pytest.mark.parametrize("stdin", [None, "", " \n"])
def test_an_empty_stdin_changes_nothing(place: Place, stdin: str | None) -> None:
    done = place.run("chat", "Rain?", "--model", place.script({"text": "{last}"}), stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Rain?\n", "")


def test_material_without_an_end_is_a_fault(place: Place) -> None:
    size = 10_000_001
    done = place.run("chat", "Rain?", "--model", place.script("Done."), stdin="x" * size)
    assert done.returncode == 2
    assert "longer than 10,000,000 bytes" in done.stderr


@pytest.mark.long
def test_who_waits_for_a_pipe_that_nobody_closes_is_told_why(place: Place) -> None:
    words = ("chat", "Rain?", "--model", place.script("Done."))
    with place.start(*words) as process:
        assert process.stderr is not None
        assert process.stdin is not None
        assert "waiting for the end of stdin" in process.stderr.readline()
        out, _ = process.communicate("")
        assert (process.returncode, out) == (0, "Done.\n")


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_a_long_answer_is_broken_between_words_on_a_terminal_and_nowhere_else(
    place: Place,
) -> None:
    answer = " ".join(["extraordinary"] * 20)
    words = ("chat", "Rain?", "--model", place.script(answer))
    with place.screen(*words) as screen:
        assert screen.finish() == 0
        rows = [row for row in screen.rows if row]
    assert len(rows) == 4
    assert all(set(row.split()) == {"extraordinary"} for row in rows)
    assert place.run(*words).stdout == answer + "\n"


def test_a_refusal_without_a_person_says_which_rule_decided(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.pin()
    model = place.script(call("weather__forecast", city="Oslo"), "Done.")
    words = ("chat", "Rain?", "--model", model, *START)
    denied = place.run(*words, "--policy", "deny tool(weather/*)")
    assert denied.returncode == 6
    assert "decided by: tool(weather/*) (command line:2)" in denied.stderr
    silent = place.run(*words)
    assert "decided by: no rule and no earlier answer decides it" in silent.stderr
    finished = events(place.run(*words, "--json").stdout)[1:]
    (refused,) = [one for one in finished if one["event"] == "tool-finished"]
    assert refused["rule"].startswith("no rule and no earlier answer decides it")
    # The model is told what happened, and nothing of the rules.
    assert "no rule" not in refused["error"]
