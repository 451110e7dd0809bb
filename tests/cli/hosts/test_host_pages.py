"""Tables about a host."""

from __future__ import annotations

import pytest
from rich.table import Table

from dragoman.cli.host_pages import records_table


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"scope": "once"}, "Ada said yes"),
        ({"scope": "session"}, "Ada said yes, for the session"),
        ({"scope": "always", "edited": True}, "Ada said yes, for always, with an edit"),
        ({}, "Ada said yes"),
    ],
)
def test_a_record_says_how_long_a_yes_holds_and_whether_it_was_edited(
    answer: dict[str, object], told: str
) -> None:
    record = {
        "kind": "decision", "seq": 7, "action": "tool.call", "server": "s", "object": "t",
        "effect": "allow", "rule": "Ada said yes",
    }  # fmt: skip
    table = records_table([record | answer])
    assert isinstance(table, Table)
    (why,) = table.columns[-1].cells
    assert why == told
