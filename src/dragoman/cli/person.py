"""The person at the terminal, who answers what a server asks.

There is no model here: a sampling request is shown whole and the person types the answer, or has
given one with `--answer`. Nothing is answered without a yes.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dragoman.cli.arguments import read_value
from dragoman.cli.blocks import summary
from dragoman.cli.printable import compact_json, one_line, printable
from dragoman.cli.schemas import Row, rows_of
from dragoman.cli.screen import Screen
from dragoman.errors import Misconfigured, Refused
from dragoman.model.content import TextContent
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult

__all__ = ["Person"]

PLAIN_YES = "yes"


class Person:
    """Answers for whoever runs the command.

    `answer` is the text to give to every request; `is_willing` agrees to all of them without
    asking. Where nobody can be asked and neither is given, everything is refused.
    """

    def __init__(
        self, screen: Screen, *, answer: str | None = None, is_willing: bool = False
    ) -> None:
        self._screen = screen
        self._answer = answer
        self._is_willing = is_willing
        # One question at a time, however many a server asks at once.
        self._turn = asyncio.Lock()

    # --- sampling ---------------------------------------------------------------------------------

    async def sample(self, request: CreateMessageParams) -> CreateMessageResult:
        """Show the whole request, ask, and answer. Raises Refused."""
        async with self._turn:
            self._screen.err.print(_sampling_panel(request))
            await self._agree("Answer this request?", "a sampling request")
            text, model = self._answer, "the --answer option"
            if text is None and self._screen.is_interactive:
                text, model = await self._screen.ask("Your answer: "), "a person"
                if text is None:
                    raise Refused("the person gave no answer", "a sampling request")
            return CreateMessageResult(
                role="assistant",
                content=TextContent(text=PLAIN_YES if text is None else text),
                model=model if text is not None else "a plain yes",
                stop_reason="endTurn",
            )

    async def _agree(self, question: str, subject: str) -> None:
        """Return when the person agrees. Raises Refused."""
        if self._is_willing:
            return
        if self._screen.is_interactive:
            if await self._screen.confirm(question):
                return
            raise Refused("the person said no", subject)
        if self._answer is not None:
            return
        self._screen.note(
            f"refused {subject}: nobody is at the terminal; --yes or --answer would answer it",
            "yellow",
        )
        raise Refused("nobody is there to ask", subject)

    # --- elicitation ------------------------------------------------------------------------------

    async def elicit(self, request: ElicitParams) -> ElicitResult:
        """Show the question, ask, and answer it; a no is a declined question."""
        async with self._turn:
            self._screen.err.print(_elicitation_panel(request))
            try:
                if request.mode == "url":
                    await self._agree(
                        "Will you visit that address? It is not opened for you.", "a link"
                    )
                    return ElicitResult(action="accept")
                await self._agree("Fill in this form?", "a form")
            except Refused:
                return ElicitResult(action="decline")
            schema = request.requested_schema or {}
            if self._answer is not None:
                return self._given(schema, self._answer)
            if self._screen.is_interactive:
                return await self._typed(schema)
            return self._defaults(schema)

    def _given(self, schema: dict[str, Any], answer: str) -> ElicitResult:
        """The form filled with `--answer`: a JSON object, or the one field there is."""
        try:
            content = json.loads(answer)
        except ValueError:
            content = None
        if isinstance(content, dict):
            return ElicitResult(action="accept", content=content)
        rows = rows_of(schema, is_flat=True)
        needed = [row for row in rows if row.is_required] or rows
        if len(needed) == 1:
            try:
                content = {needed[0].path: read_value(needed[0].path, answer, schema)}
            except Misconfigured as fault:
                self._screen.note(f"declined: {fault}", "yellow")
                return ElicitResult(action="decline")
            return ElicitResult(action="accept", content=content)
        self._screen.note(
            "declined: the form has several fields; give --answer a JSON object", "yellow"
        )
        return ElicitResult(action="decline")

    def _defaults(self, schema: dict[str, Any]) -> ElicitResult:
        """The form as it stands, where it can be sent like that."""
        rows = rows_of(schema, is_flat=True)
        missing = [row.path for row in rows if row.is_required and row.default is None]
        if missing:
            self._screen.note(
                f"declined: the form needs {', '.join(missing)}; give it with --answer", "yellow"
            )
            return ElicitResult(action="decline")
        content = {row.path: json.loads(row.default) for row in rows if row.default is not None}
        return ElicitResult(action="accept", content=content)

    async def _typed(self, schema: dict[str, Any]) -> ElicitResult:
        """The form, field by field; an end of input cancels it."""
        content: dict[str, Any] = {}
        for row in rows_of(schema, is_flat=True):
            while True:
                line = await self._screen.ask(_field_prompt(row))
                if line is None:
                    return ElicitResult(action="cancel")
                if not line:
                    if row.default is not None:
                        content[row.path] = json.loads(row.default)
                    if row.default is not None or not row.is_required:
                        break
                    self._screen.note("this one needs an answer", "yellow")
                    continue
                try:
                    content[row.path] = read_value(row.path, line, schema)
                except Misconfigured as fault:
                    self._screen.note(str(fault), "yellow")
                    continue
                break
        return ElicitResult(action="accept", content=content)


def _field_prompt(row: Row) -> str:
    about = [one_line(row.type)]
    if row.default is not None:
        about.append(f"{one_line(row.default)} if left empty")
    elif not row.is_required:
        about.append("may be left empty")
    return f"  {one_line(row.path)} ({'; '.join(about)}): "


def _sampling_panel(request: CreateMessageParams) -> Panel:
    grid = _grid()
    if request.system_prompt is not None:
        grid.add_row("system", Text(printable(request.system_prompt)))
    for message in request.messages:
        blocks = message.content if isinstance(message.content, list) else [message.content]
        for block in blocks:
            grid.add_row(message.role, Text(printable(summary(block))))
    about = [f"at most {request.max_tokens} tokens"]
    if request.temperature is not None:
        about.append(f"temperature {request.temperature:g}")
    if request.stop_sequences:
        about.append(f"stop at {', '.join(repr(one) for one in request.stop_sequences)}")
    if request.include_context not in (None, "none"):
        about.append(f"with context: {request.include_context}")
    preferences = request.model_preferences
    if preferences is not None:
        names = [hint.name for hint in preferences.hints or () if hint.name]
        if names:
            about.append(f"wants {', '.join(names)}")
        for what in ("cost", "speed", "intelligence"):
            weight = getattr(preferences, f"{what}_priority")
            if weight is not None:
                about.append(f"{what} {weight:g}")
    if request.tools:
        about.append(f"tools: {', '.join(tool.name for tool in request.tools)}")
    grid.add_row("", Text(one_line(" · ".join(about)), style="dim"))
    if request.metadata:
        grid.add_row("metadata", Text(compact_json(request.metadata), style="dim"))
    return _panel("the server asks for a model's answer", grid)


def _elicitation_panel(request: ElicitParams) -> Panel:
    parts: list[RenderableType] = [Text(printable(request.message))]
    if request.mode == "url":
        parts += [
            Text(one_line(request.url or ""), style="bold"),
            Text(f"at {_host(request.url or '')}"),
        ]
        return _panel("the server asks you to visit an address", Group(*parts))
    grid = _grid()
    for row in rows_of(request.requested_schema or {}, is_flat=True):
        words = one_line(row.type) + ("" if row.is_required else ", optional")
        described = f"  {one_line(row.description)}" if row.description else ""
        grid.add_row(one_line(row.path), Text(words + described, style="dim"))
    return _panel("the server asks you", Group(*parts, grid))


def _host(url: str) -> str:
    """Where an address leads; a name in other letters also as its look-alikes cannot fake it."""
    try:
        host = urlsplit(url).hostname
        if not host:
            return "no host"
        if host.isascii():
            return one_line(host)
        return one_line(f"{host} ({host.encode('idna').decode()})")
    except ValueError:
        return "no host that can be read"


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _panel(title: str, inside: RenderableType) -> Panel:
    return Panel(inside, title=title, title_align="left", border_style="yellow", expand=False)
