"""A user of a host: a folder with an mcp.json, a state folder, scripts for a model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cli.aids import PATIENCE_S, ROOT, WEATHER, environment
from tests.cli.asking.screen import Screen

__all__ = ["Place"]

# Rules without which the weather server is not even started.
START = ("--policy", "allow server.start(weather)")


class Place:
    """Where a user works."""

    def __init__(self, folder: Path, servers: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.config = folder / "mcp.json"
        self.state = folder / "state"
        if servers is None:
            servers = {"weather": {"command": sys.executable, "args": [WEATHER]}}
        self.config.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")

    @property
    def env(self) -> dict[str, str]:
        """Variables that keep this user's files here."""
        return {
            "XDG_STATE_HOME": str(self.state),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        }

    def script(self, *turns: Any) -> str:
        """A model that says these."""
        path = self.folder / "script.json"
        path.write_text(json.dumps({"turns": list(turns)}), encoding="utf-8")
        return f"scripted:{path}"

    def run(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """One command to its end, without a terminal."""
        return subprocess.run(
            [sys.executable, "-m", "dragoman", *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            encoding="utf-8",
            env=environment(**self.env),
            cwd=self.folder,
            timeout=PATIENCE_S,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """One command with pipes that stay open."""
        return subprocess.Popen(
            [sys.executable, "-m", "dragoman", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(**self.env),
            cwd=self.folder,
        )

    def document(self, *words: str, code: int = 0) -> Any:
        """The JSON document of a command."""
        done = self.run(*words, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def screen(self, *words: str, rows: int = 60, **env: str) -> Screen:
        """A command on a terminal, in this folder."""
        argv = [sys.executable, "-c", _IN_FOLDER, str(self.folder), *words]
        return Screen(argv, rows=rows, variables=self.env | env)

    def pin(self) -> None:
        """Review what the weather server offers."""
        done = self.run("host", "pin", "weather", "--yes", *START)
        assert done.returncode == 0, done.stdout + done.stderr


_IN_FOLDER = (
    "import os, sys; os.chdir(sys.argv[1]); from dragoman.cli import main; "
    "sys.exit(main(sys.argv[2:]))"
)


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """A turn of the model in which it wants a call."""
    return {"calls": [{"tool": tool, "arguments": arguments}]}


def events(text: str) -> Sequence[Any]:
    """The events of a chat with --json."""
    return [json.loads(line) for line in text.splitlines()]
