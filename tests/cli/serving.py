"""`dragoman run` over HTTP or a Unix socket, as a child whose URL is read from its stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.cli.aids import PATIENCE_S, environment

COUNTER = """
import asyncio
from dragoman import Context, Server

server = Server("counter")
VERSION = 1

@server.tool
async def version() -> int:
    return VERSION

@server.tool
async def wait_for(path: str) -> int:
    from pathlib import Path
    Path(path).touch()
    while Path(path).exists():
        await asyncio.sleep(0.01)
    return VERSION

@server.tool
async def session(ctx: Context) -> str:
    return ctx.headers["mcp-session-id"]

@server.resource("note://x")
def note() -> str:
    return str(VERSION)

@server.tool
async def change(ctx: Context) -> None:
    server.notify_resource_updated("note://x")
"""


class Running:
    """A `dragoman run` with these words; `url` is where it says it is."""

    def __init__(self, *words: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dragoman", "run", *words, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(**env),
            # So that Ctrl-C can be sent to it as a terminal does: to the group.
            start_new_session=True,
        )
        self.stderr = ""
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.stop()
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def url(self) -> str:
        """Wait until it serves."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stderr
        found: str = json.loads(line)["url"]
        return found

    def expect(self, text: str, times: int = 1) -> None:
        """Wait until stderr has this text so many times."""
        with self._more:
            there = self._more.wait_for(lambda: self.stderr.count(text) >= times, PATIENCE_S)
        assert there, f"{text!r} never came in:\n{self.stderr}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def join(self) -> None:
        """Wait until nobody has its stderr any more."""
        self._reader.join(PATIENCE_S)
        assert not self._reader.is_alive()

    def press_ctrl_c(self) -> int:
        """As a terminal does it: every process of the group hears of it."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self.stderr += line
                self._more.notify_all()


def counter(folder: Path, version: int = 1) -> Path:
    """Write the server's file, as an editor does: whole, and in one step."""
    file = folder / "counter.py"
    draft = folder / "draft"
    draft.write_text(COUNTER.replace("VERSION = 1", f"VERSION = {version}"))
    draft.replace(file)
    return file
