"""Where a command prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from dragoman.cli.printable import json_text, one_line, printable
from dragoman.model.progress import ProgressParams

__all__ = ["ProgressBar", "Screen"]

# What a table may take where there is no terminal to measure: wider than a terminal, since nobody
# scrolls sideways in a file, but not so wide that it cannot be read.
PIPE_WIDTH = 100

# One line of an answer: the most that a terminal hands over at once on Linux.
LINE_BYTES = 4096


class Screen:
    """The person's terminal, or what stands in for it.

    Colour appears only on a terminal, and not when NO_COLOR is set. Text of strangers must come
    through `printable` or `one_line` before it gets here as a renderable.
    """

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            # A stream that cannot hold a character shows its escape instead of failing.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self.out = _console(sys.stdout)
        self.err = _console(sys.stderr)
        self._bar: ProgressBar | None = None

    @property
    def is_interactive(self) -> bool:
        """Whether somebody is there to be asked."""
        return _is_terminal(sys.stdin) and self.err.is_terminal

    def text(self, text: str) -> None:
        """Lines of a stranger, as the result; a line end is added where none is."""
        shown = printable(text)
        self._write(shown.removesuffix("\n"))

    def json(self, value: Any) -> None:
        """One JSON document, as the result."""
        text = json_text(value)
        encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
        if encoding not in ("utf-8", "utf8"):
            # What the stream cannot hold must become JSON's escapes, not Python's.
            text = json.dumps(value, indent=2)
        self._write(text)

    def show(self, what: RenderableType) -> None:
        """A table or a page, as the result."""
        if self.out.is_terminal:
            self.out.print(what)
            return
        # Tables are padded to their width, which a file has no use for.
        with self.out.capture() as captured:
            self.out.print(what)
        lines = [line.rstrip() for line in captured.get().splitlines()]
        self._write("\n".join(lines).rstrip("\n"))

    def _write(self, text: str) -> None:
        # Straight to the stream: there is nothing to lay out, and a result may hold megabytes.
        self.out.file.write(text + "\n")

    def note(self, text: str, style: str = "") -> None:
        """A remark on stderr."""
        self.err.print(Text(printable(text), style=style), soft_wrap=True)

    def error(self, text: str) -> None:
        """What went wrong, on stderr."""
        shown = Text("error: ", style="bold red")
        shown.append(printable(text), style="not bold default")
        self.err.print(shown, soft_wrap=True)

    # --- progress ---------------------------------------------------------------------------------

    def progress_bar(self, label: str) -> ProgressBar:
        """A bar on stderr for one call; it appears with the first report of progress."""
        self._bar = ProgressBar(self.err, label)
        return self._bar

    # --- asking -----------------------------------------------------------------------------------

    async def ask(self, question: str) -> str | None:
        """One line typed by the person, without its end; None when there will be no more.

        Call it only when `is_interactive`. It can be cancelled.
        """
        bar = self._bar
        if bar is not None:
            bar.pause()
        try:
            self.err.print(Text(question), end="", soft_wrap=True)
            line = await _read_line()
        finally:
            if bar is not None:
                bar.go_on()
        if line is None:
            self.err.print()
        return line

    async def confirm(self, question: str) -> bool:
        """Whether the person says yes; anything else is no."""
        answer = await self.ask(f"{question} [y/N] ")
        return answer is not None and answer.strip().casefold() in ("y", "yes")


class ProgressBar:
    """The progress of one call: a bar where a terminal is, nothing elsewhere."""

    def __init__(self, console: Console, label: str) -> None:
        self._console = console
        self._label = one_line(label, 40)
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def update(self, report: ProgressParams) -> None:
        """One report: how far, of how much, and with which words."""
        if not self._console.is_terminal:
            return
        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False, style="bold"),
                BarColumn(bar_width=30),
                _CountColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[message]}", markup=False, style="dim"),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task(self._label, total=None, message="")
            self._progress.start()
        self._progress.update(
            self._task,
            completed=report.progress,
            total=report.total,
            message=one_line(report.message or "", 60),
            refresh=True,
        )

    def pause(self) -> None:
        """Leave the line to somebody else."""
        if self._progress is not None:
            self._progress.stop()

    def go_on(self) -> None:
        """Show it again."""
        if self._progress is not None:
            self._progress.start()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.pause()
        self._progress = None


class _CountColumn(TextColumn):
    """How far in numbers: "3/5", or "3" when nobody knows how much there is."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        """The numbers of one task."""
        done = f"{task.completed:g}"
        return Text(done if task.total is None else f"{done}/{task.total:g}", style="cyan")


class _PlainConsole(Console):
    """A console that leaves a broken pipe to whoever runs the command."""

    def on_broken_pipe(self) -> None:
        """Go on with the error that was caught."""
        raise sys.exception() or BrokenPipeError()


def _console(stream: IO[str]) -> Console:
    width = None
    if not _is_terminal(stream) and "COLUMNS" not in os.environ:
        width = PIPE_WIDTH
    return _PlainConsole(file=stream, markup=False, highlight=False, emoji=False, width=width)


def _is_terminal(stream: Any) -> bool:
    # A stream that was closed, or that the parent never gave us.
    with suppress(AttributeError, ValueError):
        return bool(stream.isatty())
    return False


async def _read_line() -> str | None:
    """One line from descriptor 0, which is a terminal that hands over whole lines."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def take() -> None:
        try:
            line = os.read(0, LINE_BYTES)
        except OSError:
            line = b""
        if not answer.done():
            answer.set_result(line)

    if sys.platform != "win32":
        loop.add_reader(0, take)
        try:
            line = await answer
        finally:
            loop.remove_reader(0)
    else:
        # A console cannot be waited for there. The thread may outlive us: it holds no lock that
        # the end of the program needs.
        def read() -> None:
            got = os.read(0, LINE_BYTES)
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: answer.done() or answer.set_result(got))

        threading.Thread(target=read, daemon=True).start()
        line = await answer
    if not line:
        return None
    return line.decode("utf-8", "replace").rstrip("\r\n")
