"""Lines of a chat where a terminal can do no more than hand them over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from dragoman.cli.interrupts import interrupted_by
from dragoman.cli.keyboard import Keyboard
from dragoman.cli.screen import Screen

__all__ = ["PROMPT", "LineReader", "PlainReader", "Stop"]

PROMPT = "> "


class Stop(Enum):
    """Why there is no line."""

    # Ctrl-C: the line was given up.
    INTERRUPT = "interrupt"
    # Ctrl-D, or the terminal has gone.
    END = "end"


class LineReader(Protocol):
    """Where a chat's lines come from."""

    async def line(self) -> str | Stop:
        """The next one."""
        ...

    def above(self, show: Callable[[], None]) -> None:
        """Print something while a line is being typed."""
        ...


class PlainReader:
    """Reads whole lines."""

    def __init__(self, screen: Screen, keyboard: Keyboard) -> None:
        self._screen = screen
        self._keyboard = keyboard

    async def line(self) -> str | Stop:
        """The next line."""
        return await self._keyboard.idle(self._read)

    def above(self, show: Callable[[], None]) -> None:
        """Below the prompt, which follows again: a line that is being typed cannot be drawn anew."""
        self._screen.err.print()
        show()
        self._screen.err.print(PROMPT, end="")

    async def _read(self) -> str | Stop:
        asking = asyncio.ensure_future(self._screen.ask(PROMPT))
        try:
            with interrupted_by(asking.cancel):
                await asyncio.wait([asking])
            if asking.cancelled():
                return Stop.INTERRUPT
            line = asking.result()
            return Stop.END if line is None else line
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])
                self._screen.err.print()
