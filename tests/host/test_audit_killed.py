"""Whatever ends the process, each decision that anybody saw is in the log (attack 68)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from dragoman.host.audit import read, verify

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

ROOT = Path(__file__).parents[2]


@contextmanager
def writers() -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.host.children.audit_writer"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        child.wait(20)
        if child.stdout is not None:
            child.stdout.close()


def killed_after(child: subprocess.Popen[str], path: Path, count: int, seen: int) -> set[int]:
    """The numbers of the decisions of which one heard before the writers were killed."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{path} {count}\n")
    child.stdin.flush()
    pids: list[int] = []
    numbers: set[int] = set()
    for line in _lines(child.stdout):
        first, second = line.split()
        if first == "pid":
            pids.append(int(second))
        else:
            numbers.add(int(second))
        if len(pids) == count and len(numbers) >= seen:
            while pids:
                os.kill(pids.pop(), signal.SIGKILL)
            # From now on only what is still in the pipe.
            count = -1
    return numbers


def _lines(stdout: IO[str]) -> Iterator[str]:
    while (line := stdout.readline().strip()) != "end":
        assert line, "the writers ended by themselves"
        yield line


def check(path: Path, seen: set[int]) -> None:
    """The log is whole, and holds a decision for each number."""
    report = verify(path)
    assert report.is_intact, str(report)
    # A kill in the middle of a write leaves half a line, which is kept and given as unreadable.
    records = [record for record in read(path) if record["kind"] != "unreadable"]
    decided = {record["id"]: record["seq"] for record in records if record["kind"] == "decision"}
    assert seen <= set(decided.values())
    assert {record["id"] for record in records if record["kind"] == "outcome"} <= decided.keys()


def kill_often(path: Path, times: int, chance: random.Random) -> None:
    seen: set[int] = set()
    with writers() as child:
        for _ in range(times):
            count = chance.choice((1, 1, 2, 3))
            new = killed_after(child, path, count, chance.randrange(40))
            assert not new & seen, "a number was given twice"
            seen |= new
        check(path, seen)


def test_what_a_killed_process_had_decided_is_in_the_log(tmp_path: Path) -> None:
    kill_often(tmp_path / "audit.jsonl", 12, random.Random(1))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_hundreds_of_processes_are_killed_and_nothing_is_missing(tmp_path: Path, seed: int) -> None:
    kill_often(tmp_path / "audit.jsonl", 150, random.Random(seed))
