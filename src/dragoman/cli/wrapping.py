"""Text that comes in pieces, broken between words where a terminal would break within one."""

from __future__ import annotations

import re
from collections.abc import Callable

from dragoman.cli.question import cells

__all__ = ["WordWrap"]

_PIECES = re.compile(r"\n| +|[^\n ]+")
# What begins and ends a block of code: its lines are to be copied, so they stay as they are.
FENCE = "```"


class WordWrap:
    """Writes words as soon as they are whole; nothing but blanks at a break is left out.

    `columns` says how wide the terminal is now. A word wider than that is broken by the terminal.
    """

    def __init__(self, write: Callable[[str], object], columns: Callable[[], int]) -> None:
        self._write = write
        self._columns = columns
        # Columns taken in this row, blanks that follow them, and the word that has begun.
        self._taken = 0
        self._blanks = ""
        self._word = ""
        # How the line of the text begins, as far as a fence is long, and whether one is open.
        self._start = ""
        self._is_code = False

    def add(self, text: str) -> None:
        """The next piece: printable, lines ended by "\\n"."""
        for piece in _PIECES.findall(text):
            if len(self._start) < len(FENCE):
                self._start = (self._start + piece).lstrip()[: len(FENCE)]
            if piece == "\n":
                self.flush()
                self._write("\n")
                self._taken = 0
                if self._start.rstrip() == FENCE:
                    self._is_code = not self._is_code
                self._start = ""
            elif piece[0] == " ":
                self._end_word()
                self._blanks += piece
            else:
                self._word += piece
                if self._is_code or cells(self._word) >= self._columns():
                    # It is broken wherever it begins: nothing is won by waiting for its end.
                    self._end_word()

    def flush(self) -> None:
        """Write what is held: the word, and blanks at the end."""
        self._end_word()
        if self._blanks:
            self._write(self._blanks)
            self._taken += len(self._blanks)
            self._blanks = ""

    def end(self) -> None:
        """The text is over, and whoever writes next begins a line."""
        self.flush()
        self._taken, self._start, self._is_code = 0, "", False

    def _end_word(self) -> None:
        if not self._word:
            return
        columns = self._columns()
        wide = cells(self._word)
        is_over = self._taken + len(self._blanks) + wide > columns
        if is_over and self._taken and self._blanks and wide <= columns and not self._is_code:
            self._write("\n" + self._word)
            self._taken = wide
        else:
            self._write(self._blanks + self._word)
            self._taken += len(self._blanks) + wide
            if self._taken > columns:
                # The terminal has gone on to the next row by itself.
                self._taken %= columns
        self._blanks = self._word = ""
