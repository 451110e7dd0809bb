"""Write docs/duties.md from the duty list: `python -m tests.requirements.render`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.requirements.duties import JSONRPC, LEVELS, REVISIONS, STATES, Duty, Sheet, load_sheets

PAGE = Path(__file__).parents[2] / "docs" / "duties.md"

SITE = "https://modelcontextprotocol.io/specification"
SCHEMA = "https://github.com/modelcontextprotocol/modelcontextprotocol/blob/main/schema"
JSONRPC_SITE = "https://www.jsonrpc.org/specification"

INTRODUCTION = """\
# What the specification asks, and who keeps it

<!-- Written by `python -m tests.requirements.render` from tests/requirements/*.toml. -->

Each row is one obligation, in our own words; the link leads to the text that binds.
A revision lists only what it adds to or changes in the one before.

- **held**: dragoman keeps it, and at least one test of the default run carries its id.
- **later**: a coming issue keeps it; the row says which part is missing.
- **author**: only whoever writes a server or host can keep it; the row says what helps.
"""


def render(sheets: tuple[Sheet, ...]) -> str:
    """The whole page, ending in a newline."""
    parts = [INTRODUCTION, *_summary(sheets)]
    for sheet in sheets:
        parts.append(f"## {sheet.revision}\n")
        parts.extend(_tables(sheet))
    return "\n".join(parts)


def _summary(sheets: tuple[Sheet, ...]) -> Iterator[str]:
    yield _row("revision", "rows", *STATES, *(level for level in LEVELS))
    yield _row(*["---"] * (2 + len(STATES) + len(LEVELS)))
    for sheet in sheets:
        states = Counter(row.state for row in sheet.duties)
        levels = Counter(row.level for row in sheet.duties)
        counts = [states[state] for state in STATES] + [levels[level] for level in LEVELS]
        yield _row(sheet.revision, str(len(sheet.duties)), *map(str, counts))
    yield ""


def _tables(sheet: Sheet) -> Iterator[str]:
    subject = ""
    for row in sheet.duties:
        if row.id.split(".")[0] != subject:
            if subject:
                yield ""
            subject = row.id.split(".")[0]
            yield f"### {sheet.revision}: {subject}\n"
            yield _row("id", "level", "who", "duty", "kept by", "state")
            yield _row(*["---"] * 6)
        yield _row(f"`{row.id}`", row.level, row.who, _sentence(row), row.layer, _state(row))
    if sheet.restated:
        yield f"\n### {sheet.revision}: said again\n"
        yield _row("id", "where", "level from here on")
        yield _row(*["---"] * 3)
        for again in sheet.restated:
            where = f"[{again.link.split(' ', 1)[1]}]({address(again.link)})"
            yield _row(f"`{again.duty}`", where, again.level or "unchanged")
    yield ""
    if sheet.left_out:
        yield "Not listed yet:\n"
        for entry in sheet.left_out:
            yield f"- {entry.link.split(' ', 1)[1]}: {entry.why}"
        yield ""


def _sentence(row: Duty) -> str:
    return f"{row.sentence} [text]({address(row.link)})"


def _state(row: Duty) -> str:
    until = f", until {row.until}" if row.until else ""
    reason = ": ".join(part for part in (row.issue, row.why) if part)
    return f"{row.state}{until}" + (f" ({reason})" if reason else "")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def address(link: str) -> str:
    """Where the text a link names can be read."""
    if link.startswith(JSONRPC):
        section = link.removeprefix(JSONRPC).strip().replace("-", "_")
        return f"{JSONRPC_SITE}#{section}" if section else JSONRPC_SITE
    revision, place = link.split(" ", 1)
    assert revision in REVISIONS, link
    if place.split("#")[0] == "schema":
        return f"{SCHEMA}/{revision}/schema.ts"
    page, _, anchor = place.partition("#")
    path = "" if page == "index" else "/" + page.removesuffix("/index")
    return f"{SITE}/{revision}{path}" + (f"#{anchor}" if anchor else "")


def main() -> int:
    PAGE.write_text(render(load_sheets()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
