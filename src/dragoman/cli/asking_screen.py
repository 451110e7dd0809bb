"""Questions on a screen of their own: nothing else is on it, and all of it can be scrolled.

Imported only where it is used, since it needs prompt_toolkit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import ColorDepth, create_output
from prompt_toolkit.styles import Style as Styles

from dragoman.cli.asking import CANCEL, Choice, edit_in_program, editor_of
from dragoman.cli.interrupts import interrupted_by
from dragoman.cli.keyboard import Keyboard
from dragoman.cli.question import (
    CONTINUED,
    GUTTER,
    MARK,
    MARK_CONTINUED,
    MIN_COLUMNS,
    Line,
    Question,
    Span,
    cells,
    wrap,
)
from dragoman.cli.screen import Screen

__all__ = ["Pager", "ScreenSurface"]

# 0.4 s without a key before keys count: what was typed for somebody else must not answer a question
# that appeared under the fingers. About twice the pause between two keys of a slow typist.
SETTLE_S = 0.4
# How often what is left of the time is drawn.
TICK_S = 1.0
EDITOR_ROWS = 12
WIDEST_PLACE = "rows 999999-999999 of 999999"

STYLES = Styles.from_dict(
    {
        "mark": "ansicyan bold",
        "gutter": "ansibrightblack",
        "ours": "ansicyan",
        "title": "ansicyan bold",
        "label": "ansicyan",
        "warning": "ansiyellow bold",
        "host": "ansiyellow bold",
        "name": "ansiblue",
        "string": "ansigreen",
        "literal": "ansimagenta",
        "escape": "ansibrightblack",
        "unseen": "ansired bold reverse",
        "plain": "",
        "keys": "bold",
        "bar": "ansicyan",
    }
)


class Pager:
    """The rows of a question, of which a screen shows some. Knows whether the end was reached."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._columns = 0
        self._rows: list[Line] = []
        self._titles: list[Line] = []
        self._height = 1
        self.top = 0
        self.is_end_seen = False
        # Nothing of the question fits: whatever is answered then is no yes.
        self.is_too_small = False

    def __len__(self) -> int:
        return len(self._rows)

    def fit(self, columns: int, rows: int, below: int) -> tuple[list[Line], list[Line]]:
        """The title's rows, and those of the rest that are to be shown.

        The screen has that many columns and rows, of which the last `below` are for others.
        """
        if columns != self._columns:
            # Where a line is after a change of width is counted in what stands above it.
            share = self.top / len(self._rows) if self._rows else 0.0
            self._columns = columns
            # One column stays free: a character that is wider than it says would push the next
            # one into the next row.
            self._rows = list(wrap(self._question.lines, columns - 1))
            title = Line((Span(self._question.title, "title"),), is_ours=True)
            self._titles = list(wrap([title], columns - 1))
            self.top = int(share * len(self._rows))
        self._height = max(rows - below - len(self._titles), 1)
        # On fewer columns the ends of rows would be off the screen.
        is_narrow = columns - 1 < MIN_COLUMNS + len(GUTTER)
        self.is_too_small = is_narrow or rows <= below + len(self._titles)
        self.move(0)
        return self._titles, self._rows[self.top : self.top + self._height]

    def move(self, by: int) -> None:
        """Scroll by so many rows; never beyond an end."""
        self.top = max(0, min(self.top + by, len(self._rows) - self._height))
        if self.top + self._height >= len(self._rows) and not self.is_too_small:
            self.is_end_seen = True

    def page(self, by: int) -> None:
        """Scroll by screens, of which one row stays."""
        self.move(by * max(self._height - 1, 1))

    @property
    def place(self) -> str:
        """Which rows are shown, in words; empty when all are."""
        if self._height >= len(self._rows):
            return ""
        last = min(self.top + self._height, len(self._rows))
        return f"rows {self.top + 1}-{last} of {len(self._rows)}"


class ScreenSurface:
    """A full screen for each question; what was there before comes back afterwards."""

    def __init__(
        self,
        screen: Screen,
        keyboard: Keyboard,
        environ: Mapping[str, str],
        *,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._screen = screen
        self._keyboard = keyboard
        self._environ = environ
        self._settle_s = settle_s
        self._choosing: _Choosing | None = None

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Around one question."""
        async with self._keyboard.taken():
            yield

    async def choose(
        self, question: Question, choices: Sequence[Choice], status: Callable[[], str]
    ) -> str:
        """Show it, scrolled; a key is the answer."""
        self._choosing = _Choosing(question, choices, status, self._settle_s)
        try:
            return await self._choosing.run()
        finally:
            self._choosing = None

    async def line(
        self, question: Question, prompt: str, fault: str = "", about: Sequence[Line] = ()
    ) -> str | None:
        """One line below the question, which can still be scrolled; `about` begins it."""
        shown = Question(question.title, (*about, *question.lines))
        if fault:
            shown = shown.noting(f"! {fault}")
        return await _Typing(shown, f"{prompt}: ", "").run()

    async def edit(self, question: Question, text: str) -> str | None:
        """In the person's editor, or below the question."""
        command = editor_of(self._environ)
        if command is not None:
            return await edit_in_program(command, text)
        words = "Ctrl-S when done, Ctrl-C to give up"
        return await _Typing(question, words, text, is_long=True).run()

    def refresh(self) -> None:
        """Draw the status again."""
        if self._choosing is not None:
            self._choosing.refresh()

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self._screen.note(MARK + text, style)


class _Choosing:
    """One question with its keys."""

    def __init__(
        self,
        question: Question,
        choices: Sequence[Choice],
        status: Callable[[], str],
        settle_s: float,
    ) -> None:
        self._pager = Pager(question)
        self._choices = choices
        self._status = status
        self._settle_s = settle_s
        self._ready_at = 0.0
        self._is_over = False
        self._app: Application[str] = _application(
            HSplit([Window(FormattedTextControl(self._draw, show_cursor=False), wrap_lines=False)]),
            self._keys(),
        )

    async def run(self) -> str:
        loop = asyncio.get_running_loop()
        self._ready_at = loop.time() + self._settle_s
        timer = loop.call_later(self._settle_s, self._settle)
        try:
            with interrupted_by(lambda: self._end(CANCEL)):
                return await self._app.run_async(handle_sigint=False)
        except EOFError:
            return CANCEL
        finally:
            timer.cancel()

    def _end(self, key: str) -> None:
        if self._app.is_running and not self._is_over:
            self._is_over = True
            self._app.exit(result=key)

    def refresh(self) -> None:
        """Draw it again, at the next turn of the loop."""
        if self._app.is_running:
            self._app.invalidate()

    def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._ready_at - loop.time()
        if left > 0:
            loop.call_later(left, self._settle)
        elif self._app.is_running:
            self._app.invalidate()

    @property
    def _is_ready(self) -> bool:
        return asyncio.get_running_loop().time() >= self._ready_at

    def _draw(self) -> StyleAndTextTuples:
        size = self._app.output.get_size()
        # What the bar takes at most: were it to grow once the end is seen, it would hide the end.
        columns = size.columns - 1
        below = max(
            len(self._bar(columns, is_seen=seen, place=WIDEST_PLACE)) for seen in (True, False)
        )
        titles, rows = self._pager.fit(size.columns, size.rows, below)
        if self._pager.is_too_small:
            return [("class:warning", "a question; make the window larger, or c: cancel")]
        is_seen = self._pager.is_end_seen
        bar = self._bar(columns, is_seen=is_seen, place=self._pager.place)
        drawn: StyleAndTextTuples = []
        filler = size.rows - len(titles) - len(rows) - len(bar)
        for row in [*titles, *rows]:
            drawn += _fragments(row)
        drawn += [("", "\n")] * filler
        for row in bar:
            drawn += _fragments(row, "class:bar")
        # No line end behind the last row, or the screen would scroll.
        if drawn:
            drawn.pop()
        return drawn

    def _bar(self, columns: int, *, is_seen: bool, place: str) -> list[Line]:
        parts = ["keys count in a moment"]
        if self._is_ready:
            parts = [_key_word(one) for one in self._choices if is_seen or not one.is_yes]
        if not is_seen:
            parts.insert(0, "more below: space, ↓, End")
        room = columns - len(MARK)
        rows = [""]
        for part in parts:
            joined = f"{rows[-1]}  {part}" if rows[-1] else part
            if rows[-1] and cells(joined) > room:
                rows.append(part)
            else:
                rows[-1] = joined
        about = " · ".join(part for part in (place, self._status()) if part)
        lines = [Line((Span(row, "title"),), is_ours=True) for row in rows]
        if about:
            lines.insert(0, Line((Span(about, "label"),), is_ours=True))
        return list(wrap(lines, columns))

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        _scrolling(keys, lambda: self._pager)

        @keys.add("c-c")
        @keys.add("c-d")
        def give_up(event: KeyPressEvent) -> None:
            self._end(CANCEL)

        @keys.add(Keys.Any)
        def answer(event: KeyPressEvent) -> None:
            loop = asyncio.get_running_loop()
            if not self._is_ready or event.data not in {one.key for one in self._choices}:
                # Somebody is typing something else: the pause begins again.
                self._ready_at = loop.time() + self._settle_s
                loop.call_later(self._settle_s, self._settle)
                return
            for one in self._choices:
                is_seen = self._pager.is_end_seen and not self._pager.is_too_small
                if event.data == one.key and (is_seen or not one.is_yes):
                    self._end(one.key)

        return keys


class _Typing:
    """A question with something to type below it."""

    def __init__(
        self, question: Question, prompt: str, text: str, *, is_long: bool = False
    ) -> None:
        self._pager = Pager(question)
        self._prompt = MARK + prompt
        self._rows = EDITOR_ROWS if is_long else 1
        self._is_over = False
        self._buffer = Buffer(multiline=is_long)
        self._buffer.text = text
        if not is_long:
            self._buffer.cursor_position = len(text)
        field = BufferControl(
            self._buffer,
            input_processors=[] if is_long else [BeforeInput(self._prompt, "class:title")],
        )
        parts: list[Window] = [Window(FormattedTextControl(self._draw), wrap_lines=False)]
        if is_long:
            parts.append(Window(FormattedTextControl([("class:title", self._prompt)]), height=1))
        height = Dimension.exact(self._rows) if is_long else Dimension(min=1, max=EDITOR_ROWS)
        parts.append(Window(field, height=height, wrap_lines=True, dont_extend_height=True))
        self._app: Application[str | None] = _application(
            HSplit(parts), self._keys(is_long=is_long), focus=field
        )

    async def run(self) -> str | None:
        try:
            with interrupted_by(lambda: self._end(None)):
                return await self._app.run_async(handle_sigint=False)
        except EOFError:
            return None

    def _end(self, text: str | None) -> None:
        if self._app.is_running and not self._is_over:
            self._is_over = True
            self._app.exit(result=text)

    def _draw(self) -> StyleAndTextTuples:
        size = self._app.output.get_size()
        titles, rows = self._pager.fit(size.columns, size.rows, self._rows + 2)
        drawn: StyleAndTextTuples = []
        for row in [*titles, *rows]:
            drawn += _fragments(row)
        return drawn

    def _keys(self, *, is_long: bool) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c")
        def give_up(event: KeyPressEvent) -> None:
            self._end(None)

        @keys.add("c-d")
        def end_of_input(event: KeyPressEvent) -> None:
            if self._buffer.text:
                self._buffer.delete()
            else:
                self._end(None)

        @keys.add("c-s" if is_long else "enter")
        def done(event: KeyPressEvent) -> None:
            self._end(self._buffer.text)

        @keys.add("pageup")
        def up(event: KeyPressEvent) -> None:
            self._pager.page(-1)

        @keys.add("pagedown")
        def down(event: KeyPressEvent) -> None:
            self._pager.page(1)

        return keys


def _application(layout: HSplit, keys: KeyBindings, focus: object = None) -> Application[Any]:
    return Application(
        layout=Layout(layout, focused_element=focus),  # type: ignore[arg-type]
        key_bindings=keys,
        style=STYLES,
        full_screen=True,
        mouse_support=False,
        refresh_interval=TICK_S,
        input=create_input(always_prefer_tty=True),
        # Where questions are, whatever stdout is connected to.
        output=create_output(always_prefer_tty=True),
        color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
    )


def _scrolling(keys: KeyBindings, pager: Callable[[], Pager]) -> None:
    """The keys that everybody knows."""
    moves: dict[tuple[str, ...], Callable[[Pager], None]] = {
        ("down", "enter"): lambda one: one.move(1),
        ("up",): lambda one: one.move(-1),
        ("pagedown", " "): lambda one: one.page(1),
        ("pageup",): lambda one: one.page(-1),
        ("home",): lambda one: one.move(-len(one)),
        ("end",): lambda one: one.move(len(one)),
    }
    for names, move in moves.items():
        for name in names:

            def scroll(event: KeyPressEvent, move: Callable[[Pager], None] = move) -> None:
                move(pager())

            keys.add(name)(scroll)


def _key_word(choice: Choice) -> str:
    return f"[{choice.key}] {choice.word}"


def _fragments(row: Line, style: str = "") -> StyleAndTextTuples:
    prefix = "class:mark" if row.is_ours else "class:gutter"
    assert row.prefix in (MARK, MARK_CONTINUED, GUTTER, CONTINUED)
    drawn: StyleAndTextTuples = [(prefix, row.prefix)]
    drawn += [(style or f"class:{span.style}", span.text) for span in row.spans]
    drawn.append(("", "\n"))
    return drawn
