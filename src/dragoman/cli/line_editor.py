"""Lines of a chat: with history, several rows and suggestions where prompt_toolkit is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth

from dragoman.cli.keyboard import Keyboard
from dragoman.cli.reading import PROMPT, Stop
from dragoman.cli.suggestions import Suggestions

__all__ = ["LineEditor"]


class _Completer(Completer):
    def __init__(self, suggestions: Suggestions) -> None:
        self._suggestions = suggestions

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> list[Completion]:
        """Nothing: servers are asked without waiting for them."""
        return []

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """What could follow what stands before the cursor."""
        for one in await self._suggestions.for_text(document.text_before_cursor):
            yield Completion(one.text, start_position=-one.length, display_meta=one.about)


class LineEditor:
    """Reads lines at a terminal, whenever nobody asks a question there."""

    def __init__(self, keyboard: Keyboard, suggestions: Suggestions, history: Path | None) -> None:
        self._keyboard = keyboard
        self._text = ""
        self._printing: set[asyncio.Future[None]] = set()
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=_Completer(suggestions),
            complete_while_typing=True,
            key_bindings=_keys(),
            multiline=True,
            # Ctrl-Z as everywhere.
            enable_suspend=True,
            prompt_continuation="  ",
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        )

    async def line(self) -> str | Stop:
        """What was typed; what was begun when a question came is there again after it."""
        return await self._keyboard.idle(self._read)

    def above(self, show: Callable[[], None]) -> None:
        """Print something above the line that is being typed."""
        if self._session.app.is_running:
            task = asyncio.ensure_future(run_in_terminal(show))
            self._printing.add(task)
            task.add_done_callback(self._printing.discard)
        else:
            show()

    async def _read(self) -> str | Stop:
        try:
            typed = await self._session.prompt_async(
                PROMPT, default=self._text, handle_sigint=False
            )
        except KeyboardInterrupt:
            self._text = ""
            return Stop.INTERRUPT
        except EOFError:
            return Stop.END
        except asyncio.CancelledError:
            self._text = self._session.default_buffer.text
            raise
        self._text = ""
        return typed


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def submit(event: KeyPressEvent) -> None:
        buffer: Buffer = event.current_buffer
        state = buffer.complete_state
        if state is not None and state.current_completion is not None:
            # Enter takes what is chosen in the menu.
            buffer.complete_state = None
            return
        buffer.validate_and_handle()

    @keys.add("tab")
    def take(event: KeyPressEvent) -> None:
        buffer: Buffer = event.current_buffer
        state = buffer.complete_state
        if state is None:
            buffer.start_completion(insert_common_part=True)
        elif len(state.completions) > 1:
            buffer.complete_next()
        elif state.completions:
            # The only one is taken, and what may follow it is looked for.
            buffer.apply_completion(state.completions[0])
            buffer.start_completion()

    @keys.add("escape", "enter")
    def line_end(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history(path: Path | None) -> History:
    """Kept in a file that only its owner can read, or for this run alone."""
    if path is None:
        return InMemoryHistory()
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
