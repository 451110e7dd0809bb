"""docs/revisions.md says what `degrade` and the facts say."""

from __future__ import annotations

from dragoman.revisions import degrade
from dragoman.revisions.registry import DIALECTS, HANDSHAKE
from tests.revisions.official import ROOT

PAGE = (ROOT / "docs" / "revisions.md").read_text(encoding="utf-8")


def rows(text: str) -> list[str]:
    """The lines of every table in a text."""
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_page_has_every_substitute_in_the_words_of_the_code() -> None:
    assert degrade.__doc__ is not None
    table = rows(degrade.__doc__)
    assert len(table) > 20
    assert [row for row in table if row not in rows(PAGE)] == []


def test_the_page_names_every_revision_and_the_numbers_that_differ() -> None:
    header, *lines = rows(PAGE)
    assert [cell.strip() for cell in header.split("|")[2:-1]] == [one.wire for one in DIALECTS]
    table = {
        cells[0]: cells[1:]
        for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    }
    assert table["an unknown resource is error"] == [
        str(one.facts.resource_not_found) for one in DIALECTS
    ]
    assert table["JSON-RPC batches"] == [
        "read" if one.facts.takes_batches else "refused" for one in DIALECTS
    ]
    assert [bool(cell) for cell in table["elicitation"]] == [
        one.facts.has_elicitation for one in DIALECTS
    ]
    assert [cell.startswith("a tool's") for cell in table["misfit arguments are"]] == [
        one.facts.argument_faults_are_results for one in DIALECTS
    ]
    assert f"may speak, {HANDSHAKE[-1].wire}" in PAGE
