"""What the pages show of the command line is what it prints."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.aids import PATIENCE_S, ROOT, environment

PAGES = ("quickstart.md", "command-line.md")
# Pages on which a block is one story: its commands run one after the other, in one folder.
STORIES = ("terminal.md",)
SESSION = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```python\n# ([\w-]+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str, str]]:
    """Each command with its page and the output shown below it."""
    found = []
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for session in SESSION.findall(text):
            for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
                line, _, output = part.partition("\n")
                found.append((page, line, output))
    return found


@pytest.mark.parametrize(("page", "line", "output"), commands(), ids=lambda one: str(one)[:60])
def test_a_command_prints_what_its_page_shows(
    page: str, line: str, output: str, tmp_path: Path
) -> None:
    for name, content in FILE.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "examples").mkdir()
    for example in (ROOT / "examples").glob("*.py"):
        shutil.copy(example, tmp_path / "examples")
    assert_prints(line, output, tmp_path)


def assert_prints(line: str, output: str, folder: Path, **env: str) -> None:
    """Run a command in this folder, and compare what it prints with what is shown."""
    program, *words = shlex.split(line)
    assert program == "dragoman"
    done = subprocess.run(
        [sys.executable, "-m", "dragoman", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        cwd=folder,
        env=environment(**env),
        timeout=PATIENCE_S,
    )
    # An ellipsis stands for what differs from run to run.
    expected = re.escape(output).replace("…", ".*")
    assert re.fullmatch(expected, done.stdout), done.stdout


def stories() -> list[str]:
    """The blocks that are one story each."""
    texts = ((ROOT / "docs" / page).read_text(encoding="utf-8") for page in STORIES)
    return [session for text in texts for session in SESSION.findall(text)]


@pytest.mark.parametrize("session", stories(), ids=lambda one: str(one)[:60])
def test_commands_one_after_the_other_go_as_their_page_shows(session: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    # The user's own files, and the Python that the tests run with, by its plain name.
    env = {
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        assert_prints(line, output, tmp_path, **env)
