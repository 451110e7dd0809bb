"""A terminal that knows what is on its screen, for programs that draw instead of print."""

from __future__ import annotations

import copy
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cli.aids import ROOT, Terminal

__all__ = ["Screen", "asked", "script"]

# The private mode that switches to the other screen.
ALTERNATE = 1049

# No answer comes to a question for the cursor's place: this is no real terminal.
_FIXED = {"PYTHONPATH": str(ROOT), "PROMPT_TOOLKIT_NO_CPR": "1"}

# Seconds until something must have appeared, on a busy machine.
UNTIL_S = 20.0
QUIET_S = 0.6


def asked(*words: str) -> list[str]:
    """The command line of the child that asks."""
    return [sys.executable, "-m", "tests.cli.asking.asked", *words]


class Screen(Terminal):
    """A command on a terminal of so many columns and rows, with what it shows."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        variables: Mapping[str, str] | None = None,
        **env: str,
    ) -> None:
        import pyte

        class Alternate(pyte.Screen):
            """A screen with a second one, for programs that want it for themselves."""

            before: Any = None

            def set_mode(self, *modes: int, **options: Any) -> None:
                super().set_mode(*modes, **options)
                if ALTERNATE in modes and options.get("private"):
                    self.before = copy.deepcopy(self.buffer), copy.copy(self.cursor)
                    self.erase_in_display(2)

            def reset_mode(self, *modes: int, **options: Any) -> None:
                super().reset_mode(*modes, **options)
                if ALTERNATE in modes and options.get("private") and self.before:
                    self.buffer, self.cursor = self.before
                    self.before = None
                    self.dirty.update(range(self.lines))

        self._columns, self._lines = columns, rows
        self._screen = Alternate(columns, rows)
        self._stream = pyte.Stream(self._screen)
        self._fed = 0
        size = {"LINES": str(rows), "COLUMNS": str(columns)}
        super().__init__(argv, **(_FIXED | size | dict(variables or {}) | env))

    def prepare(self, slave: int) -> None:
        """Give the terminal its size."""
        import fcntl
        import termios

        fcntl.ioctl(
            slave, termios.TIOCSWINSZ, struct.pack("HHHH", self._lines, self._columns, 0, 0)
        )

    @property
    def rows(self) -> list[str]:
        """What is on the screen, row by row, without blanks at the end."""
        self._stream.feed(self.seen[self._fed :])
        self._fed = len(self.seen)
        return [row.rstrip() for row in self._screen.display]

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.rows)

    def until(self, condition: Callable[[str], Any] | str) -> str:
        """Read until the screen holds this; returns it."""
        is_there = condition if callable(condition) else lambda text: condition in text
        end = time.monotonic() + UNTIL_S
        while not is_there(self.text):
            # What is drawn every second would keep a test alive for ever.
            assert time.monotonic() < end, f"{condition!r} never appeared:\n{self.text}"
            assert self._read(), f"{condition!r} never appeared; the screen:\n{self.text}"
        return self.text

    def until_quiet(self) -> None:
        """Read until nothing comes for longer than keys are ignored, and less than a redraw."""
        while select.select([self._master], [], [], QUIET_S)[0] and self._read():
            pass

    def insist(self, key: str) -> int:
        """Press a key until the command ends, however late keys begin to count; its exit code."""
        end = time.monotonic() + UNTIL_S
        while self.process.poll() is None:
            assert time.monotonic() < end, f"{key!r} does not end it; the screen:\n{self.text}"
            self.type(key)
            self.until_quiet()
        return self.finish()

    def finish(self) -> int:
        """Read to the end; returns the exit code."""
        end = time.monotonic() + UNTIL_S
        while self._read():
            assert time.monotonic() < end, f"it does not end; the screen:\n{self.text}"
        return self.process.wait(UNTIL_S)

    def interrupt(self) -> None:
        """SIGINT, as from elsewhere."""
        os.kill(self.process.pid, signal.SIGINT)

    def decisions(self) -> list[Any]:
        """The decisions that were printed, once the command has ended."""
        import json

        lines = self.seen.replace("\r\n", "\n").splitlines()
        found = [line.partition("DECISION ")[2] for line in lines if "DECISION " in line]
        return [json.loads(one) for one in found]


def script(path: Path, text: str) -> str:
    """An executable of that text, as an EDITOR."""
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(0o700)
    return str(path)
