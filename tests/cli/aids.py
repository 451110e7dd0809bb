"""Running the real command line in child processes, with and without a terminal."""

from __future__ import annotations

import codecs
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ODD = str(HERE / "servers" / "odd.py")
BARE = str(HERE / "servers" / "bare.py")
WEATHER = str(ROOT / "examples" / "weather_server.py")

# What a terminal obeys, as characters; none of it may ever be printed.
UNSEEN = ("\x1b", "\x07", "\x9b", "\u202e", "\u200b", "\U000e0041")

# Seconds until a test gives up on a child; an ordinary command takes half of one.
PATIENCE_S = 30.0


def environment(**extra: str) -> dict[str, str]:
    """Ours without what would change colours and widths, and with `extra`."""
    unwanted = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "XDG_CONFIG_HOME", "TERM")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return kept | extra


def dragoman(
    *words: str,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "dragoman", *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        encoding="utf-8",
        env=environment(**(env or {})),
        cwd=cwd,
        timeout=PATIENCE_S,
    )


def document(*words: str, code: int = 0) -> Any:
    """The JSON document that a command prints; checks its exit code."""
    done = dragoman(*words, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def assert_harmless(*texts: str) -> None:
    """None of the texts holds anything a terminal would obey."""
    for text in texts:
        for character in UNSEEN:
            assert character not in text


class Terminal:
    """A command on a terminal of its own: what it prints, and a keyboard."""

    def __init__(self, argv: Sequence[str], **env: str) -> None:
        # Only where there are such terminals; the tests that use this are skipped elsewhere.
        import pty

        self._master, slave = pty.openpty()
        env = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"} | env
        try:
            self.prepare(slave)
            self.process = subprocess.Popen(
                argv,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment(**env),
                start_new_session=True,
                preexec_fn=_take_terminal,  # noqa: PLW1509 - no thread runs here
            )
        finally:
            os.close(slave)
        self.seen = ""
        self._next = 0
        # A terminal echoes byte by byte, and a character may arrive in two reads.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self._master)

    def prepare(self, slave: int) -> None:
        """Set the terminal up before the command starts."""

    def expect(self, text: str) -> None:
        """Read until this text has appeared, after what was expected before."""
        while (at := self.seen.find(text, self._next)) < 0:
            assert self._read(), f"{text!r} never appeared in:\n{self.seen}"
        self._next = at + len(text)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._master, text.encode())

    def finish(self) -> int:
        """Read to the end; returns the exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], PATIENCE_S)
        assert ready, f"nothing more came after:\n{self.seen}"
        try:
            data = os.read(self._master, 65536)
        except OSError:
            # How Linux says that the other end of a terminal is closed.
            return False
        self.seen += self._decoder.decode(data)
        return bool(data)


def _take_terminal() -> None:
    """In the child: Ctrl-C on this terminal is for it, and it hears when the terminal goes away."""
    import fcntl
    import signal
    import termios

    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
