"""The duty list: what each revision of the specification asks, and which test shows it.

One TOML file per revision stands beside this module. A file holds only what its
revision adds or changes; everything else is inherited from the file before it.

    [[duty]]     one obligation, in our own words (see `Duty`)
    [[restated]] an earlier revision's duty, said again in other words or more strongly
    [[aside]]    keywords of the prose that oblige nobody, with the reason (see `Aside`)
    [[left_out]] pages or sections whose duties come with a later issue (see `LeftOut`)

A test says which duties it shows:

    @duty("calls.cancel.late-answer")
    def test_late_answer_after_cancel_is_dropped() -> None: ...
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "ISSUES",
    "LAYERS",
    "LEVELS",
    "PARTIES",
    "REVISIONS",
    "STATES",
    "Aside",
    "Duty",
    "DutyListError",
    "LeftOut",
    "Restated",
    "Sheet",
    "check_together",
    "duty",
    "duties_in_force",
    "load",
    "load_sheets",
    "read_duty",
]

HERE = Path(__file__).parent

# Oldest first; each file is read as a change to the ones before it.
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

LEVELS = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY")
PARTIES = ("server", "client", "host", "both")

# held:   dragoman keeps it, and at least one test in the default run carries its id.
# later:  a later issue keeps it; `why` says which part is missing.
# author: only whoever writes a server or host can keep it; `why` names the means we give.
STATES = ("held", "later", "author")

# Which later issue will hold a `later` duty.
ISSUES = ("http", "host", "console", "authorization", "tasks")

# First part of a duty's `layer`: a folder of src/dragoman, or the documentation.
LAYERS = (
    "jsonrpc",
    "model",
    "revisions",
    "protocol",
    "transport",
    "runtime",
    "server",
    "client",
    "host",
    "gateway",
    "cli",
    "console",
    "docs",
)

# Links start with a revision, or with the name of the standard MCP builds on.
JSONRPC = "JSON-RPC 2.0"

# A paraphrase longer than this has become a copy.
MAX_SENTENCE_CHARS = 200


class DutyListError(Exception):
    """A row of the list is malformed; the text names the file, the row and the fault."""


@dataclass(frozen=True, kw_only=True)
class Duty:
    """One obligation.

    `covers` counts the normative keywords of the section `link` names that this row
    accounts for: 1 as a rule, 0 when a row above already counts the sentence or when
    the sentence has no keyword. `also` does the same for further sections that repeat
    the obligation. `until` is the first revision in which the duty no longer stands.
    """

    id: str
    revision: str
    level: str
    who: str
    sentence: str
    link: str
    layer: str
    state: str
    why: str = ""
    issue: str = ""
    until: str = ""
    covers: int = 1
    also: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Restated:
    """A duty of an earlier revision that this one words anew: where, and how many keywords.

    `level` is the level from this revision on, where it changed.
    """

    duty: str
    link: str
    count: int
    level: str = ""


@dataclass(frozen=True, kw_only=True)
class Aside:
    """Keywords of one section that oblige nobody: how many, and why they do not."""

    link: str
    count: int
    why: str


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A page, or one section of it, whose duties a later issue will list."""

    link: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One revision's file, in the order it is written."""

    revision: str
    duties: tuple[Duty, ...]
    restated: tuple[Restated, ...]
    asides: tuple[Aside, ...]
    left_out: tuple[LeftOut, ...]


def duty(*ids: str) -> pytest.MarkDecorator:
    """Say that a test shows these duties. Ids are checked by test_duty_list, not here."""
    return pytest.mark.duty(*ids)


@cache
def load_sheets() -> tuple[Sheet, ...]:
    """Read and check every revision's file, oldest first.

    Raises:
        DutyListError: a row has an unknown or missing member, a bad value, or a taken id.
    """
    sheets = tuple(_read_sheet(revision) for revision in REVISIONS)
    check_together(sheets)
    return sheets


def check_together(sheets: Iterable[Sheet]) -> None:
    """Check what one row alone cannot show: ids are taken once, restated duties came before.

    Raises:
        DutyListError: one of the two does not hold.
    """
    began: dict[str, str] = {}
    for sheet in sheets:
        for again in sheet.restated:
            if again.duty not in began:
                raise DutyListError(f"{sheet.revision}: restates {again.duty}, unknown before")
        for row in sheet.duties:
            if row.id in began:
                raise DutyListError(f"{sheet.revision}: {row.id} is already in {began[row.id]}")
            began[row.id] = sheet.revision


@cache
def load() -> Mapping[str, Duty]:
    """Every duty of every revision, by id, in the order of the files."""
    return {row.id: row for sheet in load_sheets() for row in sheet.duties}


def duties_in_force(revision: str) -> Iterator[Duty]:
    """The duties that stand in `revision`, inherited ones at the level they have by then."""
    position = REVISIONS.index(revision)
    sheets = load_sheets()[: position + 1]
    levels = {
        again.duty: again.level for sheet in sheets for again in sheet.restated if again.level
    }
    for sheet in sheets:
        for row in sheet.duties:
            if not row.until or REVISIONS.index(row.until) > position:
                yield replace(row, level=levels.get(row.id, row.level))


def _path(revision: str) -> Path:
    return HERE / f"{revision}.toml"


def _read_sheet(revision: str) -> Sheet:
    with _path(revision).open("rb") as file:
        content = tomllib.load(file)
    unknown = content.keys() - {"duty", "restated", "aside", "left_out"}
    if unknown:
        raise DutyListError(f"{revision}: unknown tables {sorted(unknown)}")
    return Sheet(
        revision=revision,
        duties=tuple(read_duty(revision, row) for row in content.get("duty", ())),
        restated=tuple(
            Restated(
                **_checked(revision, row, required={"duty", "link", "count"}, optional={"level"})
            )
            for row in content.get("restated", ())
        ),
        asides=tuple(
            Aside(**_checked(revision, row, required={"link", "count", "why"}))
            for row in content.get("aside", ())
        ),
        left_out=tuple(
            LeftOut(**_checked(revision, row, required={"link", "why"}))
            for row in content.get("left_out", ())
        ),
    )


def _checked(
    revision: str, row: dict[str, Any], *, required: set[str], optional: Iterable[str] = ()
) -> dict[str, Any]:
    name = row.get("id", row.get("link", "a row without a name"))
    missing = required - row.keys()
    unknown = row.keys() - required - set(optional)
    if missing or unknown:
        raise DutyListError(f"{revision}: {name}: missing {missing}, unknown {unknown}")
    return row


def read_duty(revision: str, row: dict[str, Any]) -> Duty:
    """One row of a file as a record.

    Raises:
        DutyListError: a member is missing, unknown or malformed.
    """
    _checked(
        revision,
        row,
        required={"id", "level", "who", "sentence", "link", "layer", "state"},
        optional={"why", "issue", "until", "covers", "also"},
    )
    made = Duty(revision=revision, **{"also": {}, **row})
    for fault in _faults(made):
        raise DutyListError(f"{revision}: {made.id}: {fault}")
    return made


def _faults(row: Duty) -> Iterator[str]:
    """What is wrong with one row, apart from its place among the others."""
    parts = row.id.split(".")
    if len(parts) < 2 or not all(part.replace("-", "").isalnum() for part in parts):
        yield "an id is two or more words joined by dots, such as calls.cancel.late-answer"
    if row.id != row.id.lower():
        yield "an id is lower case"
    for member, known in (("level", LEVELS), ("who", PARTIES), ("state", STATES)):
        if getattr(row, member) not in known:
            yield f"{member} {getattr(row, member)!r} is none of {known}"
    if row.layer.split("/")[0] not in LAYERS:
        yield f"layer {row.layer!r} does not start with one of {LAYERS}"
    if not row.sentence or len(row.sentence) > MAX_SENTENCE_CHARS:
        yield f"a sentence has 1 to {MAX_SENTENCE_CHARS} characters, this has {len(row.sentence)}"
    if row.state != "held" and not row.why:
        yield f"state {row.state!r} needs a why"
    if row.state == "held" and row.why:
        yield "a held duty needs no why"
    if (row.state == "later") != (row.issue in ISSUES):
        yield f"a later duty, and only a later duty, names its issue: one of {ISSUES}"
    if row.until and (row.until not in REVISIONS or row.until <= row.revision):
        yield f"until {row.until!r} is no later revision"
    if row.covers < 0 or any(count < 1 for count in row.also.values()):
        yield "covers is 0 or more, and each count in also is 1 or more"
    for link in (row.link, *row.also):
        if not link.startswith((f"{row.revision} ", f"{JSONRPC} ")):
            yield f"link {link!r} starts neither with {row.revision} nor with {JSONRPC}"
