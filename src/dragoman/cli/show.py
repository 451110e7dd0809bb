"""Pages and tables about a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dragoman.cli.printable import one_line, printable
from dragoman.cli.schemas import rows_of, type_text
from dragoman.model.base import Implementation
from dragoman.model.capabilities import ServerCapabilities
from dragoman.model.prompts import Prompt
from dragoman.model.resources import Resource, ResourceTemplate
from dragoman.model.tools import Tool

__all__ = ["Listing", "ServerPage", "listing_tables", "page", "signature"]

E = TypeVar("E")

# A description in a list is a reminder; `inspect` has all of it.
DESCRIPTION_IN_LIST = 160


@dataclass(frozen=True, slots=True)
class Listing:
    """What a server offers; None for what it did not declare."""

    tools: list[Tool] | None = None
    resources: list[Resource] | None = None
    templates: list[ResourceTemplate] | None = None
    prompts: list[Prompt] | None = None

    def document(self) -> dict[str, Any]:
        """As JSON, with the protocol's own names."""
        parts = {
            "tools": self.tools,
            "resources": self.resources,
            "resourceTemplates": self.templates,
            "prompts": self.prompts,
        }
        return {name: msgspec.to_builtins(part) for name, part in parts.items() if part is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerPage:
    """Everything a client can learn of a server without using it."""

    info: Implementation
    target: str
    revision: str
    capabilities: ServerCapabilities
    instructions: str | None
    listing: Listing = field(default_factory=Listing)

    def document(self) -> dict[str, Any]:
        """As JSON, with the protocol's own names."""
        head = {
            "serverInfo": msgspec.to_builtins(self.info),
            "protocolVersion": self.revision,
            "capabilities": msgspec.to_builtins(self.capabilities),
        }
        if self.instructions is not None:
            head["instructions"] = self.instructions
        return head | self.listing.document()


# --- lists ------------------------------------------------------------------------------------


def listing_tables(listing: Listing) -> RenderableType:
    """One table for each kind of thing there is."""
    parts: list[RenderableType] = []
    if listing.tools:
        table = _table("tools", "name", "arguments", "description")
        for tool in listing.tools:
            table.add_row(_name(tool.name), signature(tool), _brief(tool.title, tool.description))
        parts.append(table)
    if listing.resources:
        table = _table("resources", "URI", "type", "description")
        for resource in listing.resources:
            kind = one_line(resource.mime_type or "")
            if resource.size is not None:
                kind = f"{kind}, {resource.size:,} bytes".lstrip(", ")
            words = _brief(resource.title or resource.name, resource.description)
            table.add_row(_name(resource.uri), Text(kind, style="dim"), words)
        parts.append(table)
    if listing.templates:
        table = _table("resource templates", "URI template", "type", "description")
        for family in listing.templates:
            words = _brief(family.title or family.name, family.description)
            kind = one_line(family.mime_type or "")
            table.add_row(_name(family.uri_template), Text(kind, style="dim"), words)
        parts.append(table)
    if listing.prompts:
        table = _table("prompts", "name", "arguments", "description")
        for prompt in listing.prompts:
            names = [
                one_line(one.name) + ("" if one.required else "?") for one in prompt.arguments or ()
            ]
            table.add_row(
                _name(prompt.name), Text(", ".join(names)), _brief(prompt.title, prompt.description)
            )
        parts.append(table)
    if not parts:
        return Text("The server offers nothing.", style="dim")
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def signature(tool: Tool) -> Text:
    """A tool's arguments in a line: "city: text, days?: integer"."""
    line = Text()
    for row in rows_of(tool.input_schema, is_flat=True):
        if line:
            line.append(", ")
        line.append(one_line(row.path))
        if not row.is_required:
            line.append("?")
        line.append(f": {one_line(row.type, 60)}", style="dim")
    return line


# --- the page ---------------------------------------------------------------------------------


def page(server: ServerPage) -> RenderableType:
    """The whole page."""
    parts: list[RenderableType] = [*_identity(server)]
    listing = server.listing
    if server.instructions:
        parts += [_heading("instructions"), _indented(Text(printable(server.instructions)))]
    parts += _section("tools", listing.tools, _tool)
    parts += _section("resources", listing.resources, _resource)
    parts += _section("resource templates", listing.templates, _template)
    parts += _section("prompts", listing.prompts, _prompt)
    return Group(*parts)


def _section(
    title: str, entries: Sequence[E] | None, show: Callable[[E], list[RenderableType]]
) -> list[RenderableType]:
    if not entries:
        return []
    parts = [_heading(f"{title} ({len(entries)})")]
    for entry in entries:
        parts += show(entry)
    return parts


def _identity(server: ServerPage) -> list[RenderableType]:
    info = server.info
    title = Text(one_line(info.title or info.name), style="bold")
    title.append(f"  {one_line(info.version)}", style="dim")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("name", one_line(info.name))
    if info.description:
        grid.add_row("about", Text(printable(info.description)))
    if info.website_url:
        grid.add_row("website", Text(one_line(info.website_url)))
    grid.add_row("started as", Text(one_line(server.target)))
    grid.add_row("revision", server.revision)
    grid.add_row("offers", Text(_capabilities(server.capabilities)))
    return [title, grid]


def _capabilities(given: ServerCapabilities) -> str:
    words = []
    for name, value in msgspec.to_builtins(given).items():
        extras = [key for key, on in value.items() if on] if isinstance(value, dict) else []
        inside = f" ({', '.join(extras)})" if extras else ""
        words.append(one_line(f"{name}{inside}"))
    return ", ".join(words) or "nothing"


def _tool(tool: Tool) -> list[RenderableType]:
    parts: list[RenderableType] = [_entry_head(tool.name, tool.display_name)]
    if tool.annotations is not None:
        hints = {
            "read only": tool.annotations.read_only_hint,
            "destructive": tool.annotations.destructive_hint,
            "idempotent": tool.annotations.idempotent_hint,
            "open world": tool.annotations.open_world_hint,
        }
        said = [
            name if value else f"not {name}" for name, value in hints.items() if value is not None
        ]
        if said:
            parts.append(_indented(Text(f"says it is {', '.join(said)}", style="yellow")))
    parts += _described(tool.description)
    parts.append(_spaced(_schema_table("argument", tool.input_schema)))
    if tool.output_schema is not None:
        parts.append(_spaced(_schema_table("returns", tool.output_schema)))
    return parts


def _schema_table(what: str, schema: dict[str, Any]) -> RenderableType:
    rows = rows_of(schema)
    if not rows:
        nothing = "takes no arguments" if what == "argument" else type_text(schema, schema)
        return Text(nothing if what == "argument" else f"returns {one_line(nothing)}", style="dim")
    table = _schema_grid()
    table.add_column(what, overflow="fold")
    table.add_column("type", overflow="fold", style="cyan")
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in rows:
        needed = "required" if row.is_required else ""
        if row.default is not None:
            needed = f"= {one_line(row.default, 30)}"
        if what == "returns" and needed == "required":
            needed = ""
        indent = "  " * (row.path.count("."))
        table.add_row(
            Text(indent + one_line(row.path)),
            Text(one_line(row.type)),
            Text(needed, style="dim"),
            Text(one_line(row.description)),
        )
    return table


def _resource(resource: Resource) -> list[RenderableType]:
    parts = [_entry_head(resource.uri, resource.title or resource.name)]
    about = [one_line(resource.mime_type)] if resource.mime_type else []
    if resource.size is not None:
        about.append(f"{resource.size:,} bytes")
    if about:
        parts.append(_indented(Text(", ".join(about), style="dim")))
    return parts + _described(resource.description)


def _template(family: ResourceTemplate) -> list[RenderableType]:
    parts = [_entry_head(family.uri_template, family.title or family.name)]
    if family.mime_type:
        parts.append(_indented(Text(one_line(family.mime_type), style="dim")))
    return parts + _described(family.description)


def _prompt(prompt: Prompt) -> list[RenderableType]:
    parts = [_entry_head(prompt.name, prompt.title), *_described(prompt.description)]
    if prompt.arguments:
        table = _schema_grid()
        for title in ("argument", "", ""):
            table.add_column(title, overflow="fold")
        for one in prompt.arguments:
            table.add_row(
                Text(one_line(one.name)),
                Text("required" if one.required else "", style="dim"),
                Text(one_line(one.description or "")),
            )
        parts.append(_spaced(table))
    return parts


# --- pieces -----------------------------------------------------------------------------------


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        header_style="dim",
        border_style="dim",
    )
    for number, column in enumerate(columns):
        # The name is what is typed next: it may fold, but it is never cut.
        table.add_column(column, overflow="fold", ratio=None if number == 0 else 1)
    return table


def _schema_grid() -> Table:
    return Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim", border_style="dim"
    )


def _name(text: str) -> Text:
    return Text(one_line(text), style="bold green")


def _brief(title: str | None, description: str | None) -> Text:
    first = (description or "").strip().split("\n\n")[0]
    words = Text(one_line(title), style="") if title else Text()
    if first:
        if words:
            words.append(": ")
        words.append(one_line(first, DESCRIPTION_IN_LIST))
    return words


def _heading(title: str) -> RenderableType:
    return Padding(Rule(title, align="left", style="dim"), (1, 0, 0, 0))


def _entry_head(name: str, title: str | None) -> RenderableType:
    head = Text(one_line(name), style="bold green")
    if title and title != name:
        head.append(f"  {one_line(title)}", style="not bold default")
    return Padding(head, (1, 0, 0, 0))


def _described(description: str | None) -> list[RenderableType]:
    return [_indented(Text(printable(description.strip())))] if description else []


def _indented(what: RenderableType) -> RenderableType:
    return Padding(what, (0, 0, 0, 2))


def _spaced(what: RenderableType) -> RenderableType:
    return Padding(what, (1, 0, 0, 2))
