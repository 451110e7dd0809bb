"""What the pages show of the command line is what it prints."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.aids import PATIENCE_S, ROOT, environment

PAGES = ("quickstart.md", "command-line.md")
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
    program, *words = shlex.split(line)
    assert program == "dragoman"
    done = subprocess.run(
        [sys.executable, "-m", "dragoman", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        cwd=tmp_path,
        env=environment(),
        timeout=PATIENCE_S,
    )
    # An ellipsis between blanks stands for what differs from run to run.
    expected = re.escape(output).replace(r"\ …\ ", " .* ")
    assert re.fullmatch(expected, done.stdout), done.stdout
