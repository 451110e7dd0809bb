"""`dragoman run`: a server out of a file, with its output kept out of the conversation."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from dragoman import Client
from tests.cli.aids import PATIENCE_S, dragoman

NOISY = """
import os, subprocess, sys
print("printed while loading")
os.write(1, b"written while loading\\n")
subprocess.run(["echo", "said by a child"])
import neighbour
from dataclasses import dataclass
from dragoman import Server

@dataclass
class Out:
    where: str

main = Server(__name__)
same = main

@main.tool
def tell() -> Out:
    print("printed while serving")
    return Out(neighbour.WORD)

if __name__ == "__main__":
    raise SystemExit("the file is not the program")
"""


def test_what_a_file_prints_never_reaches_the_client(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(NOISY)
    (tmp_path / "neighbour.py").write_text("WORD = 'next door'\n")
    junk: list[bytes] = []
    stderr: list[str] = []

    async def talk() -> object:
        argv = [sys.executable, "-m", "dragoman", "run", str(tmp_path / "json.py")]
        async with Client(argv, on_junk=junk.append, on_stderr=stderr.append) as client:
            return (await client.call_tool("tell")).data

    assert asyncio.run(talk()) == {"where": "next door"}
    assert junk == []
    for text in ("printed while loading", "written while loading", "said by a child"):
        assert text in stderr
    assert "printed while serving" in stderr


TWO = "from dragoman import Server\none = Server('one')\ntwo = Server('two')\nx = 3\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (TWO, "", ["2 servers", "one, two", ":NAME"]),
        (TWO, ":three", ["'three'", "one, two"]),
        (TWO, ":x", ["'x'", "int"]),
        (TWO, ":", ["names no object"]),
        ("x = 3\n", "", ["defines no Server", "Server('file')"]),
        (
            "import nowhere_at_all\n",
            "",
            ["No module named 'nowhere_at_all'", "could not be loaded"],
        ),
        ("def (:\n", "", ["SyntaxError", "could not be loaded"]),
    ],
)
def test_a_file_that_cannot_be_served_is_explained(
    tmp_path: Path, content: str, name: str, said: list[str]
) -> None:
    file = tmp_path / "file.py"
    file.write_text(content)
    done = dragoman("run", f"{file}{name}")
    assert (done.returncode, done.stdout) == (2, "")
    for text in said:
        assert text in done.stderr
    assert "cli/serve.py" not in done.stderr
    assert "importlib" not in done.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for target in (tmp_path / "none.py", tmp_path):
        done = dragoman("run", str(target))
        assert done.returncode == 2
        assert str(target) in done.stderr


def test_running_ends_with_the_end_of_its_input(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text("from dragoman import Server\nserver = Server('s')\n")
    done = dragoman("run", str(file), stdin="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [(TWO, ":three", "has no 'three'"), ("import nowhere_at_all\n", "", "nowhere_at_all")],
)
def test_why_it_cannot_be_served_is_told_where_stderr_is_merged_into_stdout(
    tmp_path: Path, content: str, name: str, said: str
) -> None:
    file = tmp_path / "file.py"
    file.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "dragoman", "run", f"{file}{name}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert said in done.stdout


def test_why_it_cannot_be_served_is_told_where_stdout_leads_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(TWO)
    done = subprocess.run(
        [sys.executable, "-m", "dragoman", "run", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "2 servers" in done.stderr
