"""How a chat ends that is told to end, and what it takes for words that somebody typed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from dragoman.cli.interrupts import ended_by_signals
from tests.cli.asking.screen import Screen
from tests.cli.hosts.places import START, Place, call, events
from tests.cli.hosts.test_chat_terminal import at_prompt
from tests.support import run

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal"),
]

SERVER = """
from dragoman import Server

server = Server("notes")

@server.resource("notes://secret")
def secret() -> str:
    return "a private note"

server.run()
"""
NOTES = ("--policy", "allow server.start(notes)")


@pytest.fixture
def notes(tmp_path: Path) -> Place:
    """A user of a server with one resource."""
    (tmp_path / "notes.py").write_text(SERVER)
    place = Place(tmp_path, {"notes": {"command": sys.executable, "args": ["notes.py"]}})
    done = place.run("host", "pin", "notes", "--yes", *NOTES)
    assert done.returncode == 0, done.stderr
    return place


def echoes(screen: Screen) -> bool:
    """Whether the terminal shows what is typed, as it did before."""
    import termios

    flags = termios.tcgetattr(screen._master)[3]
    return bool(flags & termios.ECHO and flags & termios.ICANON)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_chat_that_is_told_to_end_leaves_the_terminal_as_it_was(
    tmp_path: Path, number: signal.Signals
) -> None:
    place = Place(tmp_path)
    place.pin()
    with place.screen("chat", "--model", place.script("Yes."), *START) as screen:
        screen.until(at_prompt)
        assert not echoes(screen)
        os.kill(screen.process.pid, number)
        assert screen.finish() == 128 + number
        assert echoes(screen)
    assert "Traceback" not in screen.seen


def test_a_signal_that_is_ignored_stays_so() -> None:
    async def main() -> None:
        with ended_by_signals() as ended:
            os.kill(os.getpid(), signal.SIGHUP)
            # The loop looks at what has come in, and runs what it caught.
            for _ in range(5):
                await asyncio.sleep(0)
        assert ended.code is None

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(main())
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_question_that_is_told_to_end_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.screen("chat", "--model", place.script("Yes.")) as screen:
        screen.until("[n] no")
        os.kill(screen.process.pid, signal.SIGTERM)
        assert screen.finish() == 128 + signal.SIGTERM
        assert echoes(screen)
    assert "Traceback" not in screen.seen


def test_what_comes_on_stdin_was_typed_by_nobody(notes: Place) -> None:
    mail = "Dear all,\nsee @notes:notes://secret\n"
    model = notes.script("It says: {last}")
    piped = notes.run("chat", "--model", model, *NOTES, stdin=mail)
    assert "@notes:notes://secret" in piped.stdout
    assert "a private note" not in piped.stdout
    typed = notes.run("chat", mail, "--model", model, *NOTES)
    assert "a private note" in typed.stdout
    assert "comes along" in typed.stderr


def test_an_error_is_a_line_of_json_like_all_before_it(notes: Place) -> None:
    model = notes.script({"text": "half", "trouble": "cut"})
    done = notes.run("chat", "Hello?", "--json", "--model", model, *NOTES)
    assert done.returncode == 4
    found = events(done.stdout)
    assert [one["event"] for one in found] == ["text", "error"]
    assert found[-1]["error"]["exit"] == 4
    assert done.stderr == ""


def test_an_error_begins_a_line_of_its_own(notes: Place) -> None:
    model = notes.script({"text": "half", "trouble": "cut"})
    done = notes.run("chat", "Hello?", "--model", model, *NOTES)
    assert (done.returncode, done.stdout) == (4, "half\n")


@pytest.mark.parametrize("kind", ["die", "flood"])
def test_a_server_that_is_loud_or_dies_takes_a_few_lines(tmp_path: Path, kind: str) -> None:
    (tmp_path / "loud.py").write_text(
        """
import os

from dragoman import Context, Server

server = Server("loud")

@server.tool
async def flood(ctx: Context) -> str:
    for number in range(300):
        await ctx.warning(f"line {number}")
    return "done"

@server.tool
def die() -> str:
    os._exit(3)

server.run()
"""
    )
    place = Place(tmp_path, {"loud": {"command": sys.executable, "args": ["loud.py"]}})
    rules = [word for one in ("server.start(loud)", f"tool(loud/{kind})") for word in
             ("--policy", f"allow {one}")]  # fmt: skip
    assert place.run("host", "pin", "loud", "--yes", *rules).returncode == 0
    model = place.script(call(f"loud__{kind}"), "So it is.")
    with place.screen("chat", "--model", model, *rules, TERM="dumb") as screen:
        screen.expect("/help")
        screen.expect("> ")
        screen.type("Go\n")
        screen.expect("So it is.")
        screen.expect("280 more messages were not shown" if kind == "flood" else "loud is back")
        screen.type("/quit\n")
        assert screen.finish() == 0
    assert screen.seen.count("[loud warning]") == (20 if kind == "flood" else 0)
    assert screen.seen.count("loud is reconnecting") == (0 if kind == "flood" else 1)
