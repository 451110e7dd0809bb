"""What asks a person: the choices they have, and what a terminal must be able to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dragoman.cli.interrupts import interrupted_by
from dragoman.cli.question import Line, Question
from dragoman.errors import Misconfigured

__all__ = ["CANCEL", "Choice", "Surface", "edit_in_program", "editor_of"]

# What `choose` returns for Ctrl-C and for an end of input; it is always among the choices.
CANCEL = "c"


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: its key, the word for it, and whether it lets something happen.

    What lets something happen can only be chosen when the end of the question has been seen.
    """

    key: str
    word: str
    is_yes: bool = False


class Surface(Protocol):
    """A terminal, one question at a time."""

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Around everything below: whoever else uses the terminal lets go of it."""
        ...

    async def choose(
        self, question: Question, choices: Sequence[Choice], status: Callable[[], str]
    ) -> str:
        """Show all of it and return the key of a choice. `status` is a line that may change."""
        ...

    async def line(
        self, question: Question, prompt: str, fault: str = "", about: Sequence[Line] = ()
    ) -> str | None:
        """One line typed by the person; None for Ctrl-C and for an end of input.

        `fault` is what was wrong with the last one, `about` is shown close to the prompt.
        """
        ...

    async def edit(self, question: Question, text: str) -> str | None:
        """The text as the person changed it; None when they gave up."""
        ...

    def refresh(self) -> None:
        """The status of the question on the screen is another one now; it is drawn soon."""
        ...

    def say(self, text: str, style: str = "") -> None:
        """A line that stays on the screen."""
        ...


def editor_of(environ: Mapping[str, str]) -> list[str] | None:
    """The person's editor, as a command line; None when they have named none.

    Raises Misconfigured: what they have named is no command line.
    """
    name = "VISUAL" if environ.get("VISUAL") else "EDITOR"
    named = environ.get(name, "")
    try:
        return shlex.split(named) or None
    except ValueError as error:
        raise Misconfigured(f"the variable {name} is no command line: {error}") from None


async def edit_in_program(command: Sequence[str], text: str) -> str | None:
    """The text as the person leaves it in their editor; None when that fails.

    The file is theirs alone (0600) and is gone afterwards. Raises Misconfigured when the editor
    cannot be started.
    """
    handle, name = tempfile.mkstemp(prefix="dragoman-", suffix=".json")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # Ctrl-C in the editor is the editor's.
        with interrupted_by(lambda: None):
            code = await _run_editor([*command, name])
        return _read(name) if code == 0 else None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


async def _run_editor(argv: Sequence[str]) -> int:
    try:
        process = await asyncio.create_subprocess_exec(*argv)
    except OSError as error:
        raise Misconfigured(
            f"the editor {argv[0]!r} cannot be started: {error.strerror}; set EDITOR to another one"
        ) from None
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise


def _read(name: str) -> str | None:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
