"""Questions line by line, for terminals that can do no more, and where prompt_toolkit is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

from rich.text import Text

from dragoman.cli.asking import CANCEL, Choice, edit_in_program, editor_of
from dragoman.cli.interrupts import interrupted_by
from dragoman.cli.keyboard import Keyboard
from dragoman.cli.question import MARK, PLAIN_MARKS, Line, Question, Span, Style, wrap
from dragoman.cli.screen import Screen

__all__ = ["LineSurface"]

# Of the screen's lines, those that stay free for what is asked.
SPARE_LINES = 3
MIN_LINES = 4
# 1 s between two lines that say how many wait: they come one after the other, and stay.
REFRESH_S = 1.0

STYLES: dict[Style, str] = {
    "ours": "cyan",
    "title": "bold cyan",
    "label": "dim cyan",
    "warning": "bold yellow",
    "host": "bold yellow",
    "name": "blue",
    "string": "green",
    "literal": "magenta",
    "escape": "dim",
    "unseen": "bold red reverse",
    "plain": "",
}


class LineSurface:
    """Prints a screenful, waits for Enter, and takes answers as lines."""

    def __init__(self, screen: Screen, keyboard: Keyboard, environ: Mapping[str, str]) -> None:
        self._screen = screen
        self._keyboard = keyboard
        self._environ = environ
        # What asks for a choice at the moment, and when it is asked again with another status.
        self._prompt: Callable[[], str] | None = None
        self._again: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Around one question."""
        async with self._keyboard.taken():
            yield

    async def choose(
        self, question: Question, choices: Sequence[Choice], status: Callable[[], str]
    ) -> str:
        """Show all of it, a screenful at a time; the answer is a whole word or its letter."""
        console = self._screen.err
        rows = list(wrap(question.lines, console.width - 1))
        room = max(console.height - SPARE_LINES, MIN_LINES)
        is_seen = False
        self._title(question)
        shown = 0
        while not is_seen:
            for row in rows[shown : shown + room]:
                self._print(row)
            shown += room
            is_seen = shown >= len(rows)
            offered = [one for one in choices if is_seen or not one.is_yes]
            while True:
                answer = await self._choice(partial(_offer, offered, status, is_seen=is_seen))
                if answer is None:
                    return CANCEL
                if not answer and not is_seen:
                    break
                for one in offered:
                    if answer in (one.key, one.word.split()[0].rstrip(",")):
                        return one.key
        return CANCEL

    async def line(
        self, question: Question, prompt: str, fault: str = "", about: Sequence[Line] = ()
    ) -> str | None:
        """One line, below what is on the screen already."""
        if fault:
            self.say(f"! {fault}", "yellow")
        for row in wrap(about, self._screen.err.width - 1):
            self._print(row)
        return await self._ask(f"{MARK}{prompt}: ")

    async def edit(self, question: Question, text: str) -> str | None:
        """In the person's editor, or as one line."""
        command = editor_of(self._environ)
        if command is not None:
            return await edit_in_program(command, text)
        return await self._ask(f"{MARK}the whole JSON on one line (EDITOR names an editor): ")

    def refresh(self) -> None:
        """Ask again below, with the status as it is then; what was typed stays typed."""
        if self._prompt is not None and self._again is None:
            self._again = asyncio.get_running_loop().call_later(REFRESH_S, self._ask_again)

    def _ask_again(self) -> None:
        self._again = None
        if self._prompt is not None:
            self._screen.err.print()
            self._screen.err.print(Text(self._marks(self._prompt())), end="", soft_wrap=True)

    async def _choice(self, prompt: Callable[[], str]) -> str | None:
        """One line, asked for again while the status changes."""
        self._prompt = prompt
        try:
            return await self._ask(prompt())
        finally:
            self._prompt = None
            if self._again is not None:
                self._again.cancel()
                self._again = None

    def say(self, text: str, style: str = "") -> None:
        """A line."""
        self._screen.note(self._marks(MARK) + text, style)

    async def _ask(self, prompt: str) -> str | None:
        """One line; None for Ctrl-C, an end of input, or a terminal that has gone."""
        # Whatever was typed before the question was there is no answer to it.
        _forget_typed()
        asking = asyncio.ensure_future(self._screen.ask(self._marks(prompt)))
        try:
            with interrupted_by(asking.cancel):
                await asyncio.wait([asking])
            if asking.cancelled():
                self._screen.err.print()
                return None
            answer = asking.result()
            return None if answer is None else answer.strip()
        except asyncio.CancelledError:
            # What is said next begins a line.
            self._screen.err.print()
            raise
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])

    def _title(self, question: Question) -> None:
        for row in wrap(
            [Line((Span(question.title, "title"),), is_ours=True)], self._screen.err.width - 1
        ):
            self._print(row)

    def _print(self, row: Line) -> None:
        # The sign before a line is dim, what it says is not: it is what has to be read.
        text = Text()
        text.append(self._marks(row.prefix), style="cyan" if row.is_ours else "dim")
        for span in row.spans:
            text.append(span.text, style=STYLES[span.style])
        self._screen.err.print(text, soft_wrap=True)

    def _marks(self, text: str) -> str:
        encoding = (getattr(sys.stderr, "encoding", None) or "utf-8").lower()
        if encoding in ("utf-8", "utf8"):
            return text
        for mark, plain in PLAIN_MARKS.items():
            if text.startswith(mark):
                return plain + text[len(mark) :]
        return text


def _offer(choices: Sequence[Choice], status: Callable[[], str], *, is_seen: bool) -> str:
    words = [one.word if one.word[0] == one.key else f"{one.word} ({one.key})" for one in choices]
    more = "" if is_seen else "Enter: more, "
    told = status()
    return f"{MARK}{more}{', '.join(words)}{f'  [{told}]' if told else ''}: "


def _forget_typed() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import termios

        if os.isatty(0):
            termios.tcflush(0, termios.TCIFLUSH)
