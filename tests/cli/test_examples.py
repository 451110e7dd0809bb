"""Every example runs, in a real process, and does what it says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from dragoman import Client, RemoteFailure
from tests.cli.aids import PATIENCE_S, ROOT, UNSEEN, Terminal, environment

EXAMPLES = ROOT / "examples"
SCRIPTS = {
    "client.py": ["connected to weather 1.0", "structured: rain", "progress: 2/2", "failed: there"],
    "sampling.py": ["Roses are red", "failed: no poem"],
    "host_chat.py": ["Start the server 'weather'", "forecast: done", "2 of 2", "(person_denied)"],
    "host.py": [
        "? Start the server 'weather'",
        "forecast: rain in Oslo",
        "forecast: rain in Paris",
        "summarise: refused (person_denied): the person said no: not today",
        "collect_readings: refused (rule_denied)",
        "remembered: allow tool.call forecast",
        "on record: deny collect_readings",
        "the log is as it was written: True",
    ],
    "elicitation.py": ["2 of apple cake ordered", "no cake was ordered (decline)"],
}
SERVERS = {"quickstart.py", "weather_server.py", "lifespan.py", "files_server.py"}


def test_every_example_is_run_here() -> None:
    there = {path.name for path in EXAMPLES.glob("*.py")}
    # The embedding example has tests of its own, beside the engine it embeds.
    assert there - {"tour.py", *SCRIPTS, *SERVERS} <= {"embedded_engine.py"}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_runs_to_its_end(name: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for text in SCRIPTS[name]:
        assert text in done.stdout


def test_the_quick_start_greets() -> None:
    async def talk() -> str:
        async with Client(EXAMPLES / "quickstart.py") as client:
            return (await client.call_tool("greet", {"name": "Ada", "times": 2})).text

    assert asyncio.run(talk()) == "Hello, Ada! Hello, Ada!"


def test_the_lifespan_opens_and_closes_around_all_calls() -> None:
    said: list[str] = []

    async def talk() -> object:
        async with Client(EXAMPLES / "lifespan.py", on_stderr=said.append) as client:
            await client.call_tool("add_note", {"text": "buy milk"})
            await client.call_tool("add_note", {"text": "sleep"})
            return (await client.call_tool("find_notes", {"word": "milk"})).data

    assert asyncio.run(talk()) == ["buy milk"]
    assert said[0] == "notes: the database is open"
    assert said[-1] == "notes: the database is closed"
    assert sum(line.startswith("tools/call took") for line in said) == 3


def test_the_files_server_gives_what_is_inside_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("hello")
    (root / "sub" / "b.bin").write_bytes(b"\xff\x00")
    (tmp_path / "secret").write_text("secret")
    (root / "way-out").symlink_to(tmp_path / "secret")

    async def talk() -> None:
        target = EXAMPLES / "files_server.py"
        async with Client(target, env={"FILES_ROOT": str(root)}) as client:
            assert (await client.read_resource("files:///a.txt")).text == "hello"
            assert (await client.read_resource("files:///sub/b.bin")).contents[
                0
            ].data == b"\xff\x00"
            listed = await client.call_tool("list_files", {"folder": "sub"})
            assert listed.data == ["sub/b.bin"]
            for way in ("files:///../secret", "files:///way-out", "files:///%2e%2e/secret"):
                with pytest.raises(RemoteFailure):
                    await client.read_resource(way)
            for arguments in ({"folder": ".."}, {"pattern": "../*"}):
                outside = await client.call_tool("list_files", arguments, raise_on_error=False)
                assert outside.is_error

    asyncio.run(talk())


TOUR = [sys.executable, str(EXAMPLES / "tour.py")]


@pytest.mark.long
def test_the_tour_says_a_plain_yes_where_nobody_is() -> None:
    done = subprocess.run(
        TOUR,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "→ #1 initialize",
        "← #1 result",
        "→ notifications/initialized",
        "collect_readings",
        "2026-05-01: rain, 8 to 16 °C",
        '← notifications/progress {"progressToken":7,"progress":8,"total":8',
        "Oslo: 12.1 °C on average over 8 stations",
        '{"city":"Lisbon","temperature":21,"sky":"rain"}',
        "c… may become Cairo",
        "user: Plan 2 days in Cairo.",
        "sampling/createMessage",
        "a plain yes",
        "summarise gave back: yes",
    ):
        assert text in done.stdout
    for character in UNSEEN:
        assert character not in done.stdout
    assert "dragoman inspect examples/weather_server.py" in done.stdout.splitlines()[-2]
    assert max(len(line) for line in done.stdout.splitlines()[:-2]) <= 100


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_the_tour_asks_whoever_is_at_the_terminal() -> None:
    with Terminal(TOUR) as terminal:
        terminal.expect("Answer this request? [y/N] ")
        terminal.type("y\n")
        terminal.expect("Your answer: ")
        terminal.type("Bring an umbrella.\n")
        assert terminal.finish() == 0
    assert "summarise gave back: Bring an umbrella." in terminal.seen
    assert "8/8" in terminal.seen
    assert "\x1b[1;36m→ \x1b[0m" in terminal.seen
