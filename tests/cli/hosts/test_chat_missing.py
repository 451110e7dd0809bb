"""One question while a server is not there: it is answered, and said who took no part."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.aids import WEATHER
from tests.cli.hosts.places import START, Place, call, events

WEATHER_SERVER = {"command": sys.executable, "args": [WEATHER]}
DEAD = {"command": "/nonexistent/program"}
LAME = {"command": "x", "args": ["${NOT_SET}"]}
START_DEAD = ("--policy", "allow server.start(dead)")


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_answer_without_a_server_is_given_and_the_server_named(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    place = Place(tmp_path, {"dead": DEAD})
    model = place.script("Done.")
    done = place.run("chat", "Rain?", "--model", model, *START_DEAD, *more)
    assert "without dead, which is " in done.stderr
    assert "there is no program '/nonexistent/program'" in done.stderr
    assert done.returncode == 3
    if more:
        assert [one["event"] for one in events(done.stdout)] == ["text", "usage", "turn-ended"]
    else:
        assert done.stdout == "Done.\n"


@pytest.mark.long
def test_the_servers_that_are_there_take_part_and_a_refusal_tells_more(tmp_path: Path) -> None:
    place = Place(tmp_path, {"dead": DEAD, "weather": WEATHER_SERVER})
    place.pin()
    model = place.script(call("weather__forecast", city="Oslo"), "Done.")
    words = ("chat", "Rain?", "--model", model, *START, *START_DEAD)
    done = place.run(*words, "--policy", "allow tool(weather/forecast)")
    assert done.returncode == 3
    assert "✓ weather/forecast" in done.stderr
    assert place.run(*words).returncode == 6


@pytest.mark.long
def test_a_server_that_somebody_switched_off_is_not_missed(tmp_path: Path) -> None:
    place = Place(tmp_path, {"dead": {**DEAD, "disabled": True}})
    done = place.run("chat", "Rain?", "--model", place.script("Done."))
    assert (done.returncode, done.stdout, done.stderr) == (0, "Done.\n", "")


@pytest.mark.long
def test_a_variable_that_is_not_set_stops_a_chat_unless_its_server_is_left_out(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, {"lame": LAME, "lamer": LAME})
    words = ("chat", "Rain?", "--model", place.script("Done."))
    stopped = place.run(*words)
    assert (stopped.returncode, stopped.stdout) == (2, "")
    assert stopped.stderr.count("NOT_SET, which is not set") == 2
    assert stopped.stderr.count("--skip-unset goes on without") == 1
    done = place.run(*words, "--skip-unset")
    assert (done.returncode, done.stdout) == (3, "Done.\n")
    assert "without lamer" in done.stderr


def test_a_file_with_another_fault_gets_no_hint_that_would_not_help(tmp_path: Path) -> None:
    place = Place(tmp_path, {"lame": LAME, "odd": {"command": 1}})
    stopped = place.run("chat", "Rain?", "--model", place.script("Done."))
    assert stopped.returncode == 2
    assert "'odd'" in stopped.stderr
    assert "--skip-unset" not in stopped.stderr
