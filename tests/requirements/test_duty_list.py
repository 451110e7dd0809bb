"""The duty list and the tests agree, both ways; and the list itself is sound."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.requirements import duties
from tests.requirements.carriers import Findings, find_in_folder, find_in_source
from tests.requirements.count_prose import accounted, read_page, read_schema
from tests.requirements.duties import (
    REVISIONS,
    DutyListError,
    duties_in_force,
    load,
    load_sheets,
)
from tests.requirements.render import PAGE, address, render

TESTS = Path(__file__).parents[1]

GOOD = {
    "id": "calls.cancel.late-answer",
    "level": "SHOULD",
    "who": "both",
    "sentence": "A late answer is ignored.",
    "link": "2024-11-05 basic/utilities/cancellation",
    "layer": "protocol/calls",
    "state": "held",
}


@cache
def _carried() -> Findings:
    return find_in_folder(TESTS)


def test_every_held_duty_is_carried_by_a_test() -> None:
    held = [row.id for row in load().values() if row.state == "held"]
    missing = [duty_id for duty_id in held if duty_id not in _carried().carried]
    assert not missing, f"{len(missing)} of {len(held)} held duties without a test: {missing}"


def test_every_duty_a_test_carries_is_in_the_list() -> None:
    unknown = {
        duty_id: tests for duty_id, tests in _carried().carried.items() if duty_id not in load()
    }
    assert unknown == {}


def test_every_use_of_duty_stands_on_a_test() -> None:
    assert _carried().faults == []


def test_a_duty_that_tests_carry_is_not_marked_later() -> None:
    stale = [
        row.id for row in load().values() if row.state == "later" and row.id in _carried().carried
    ]
    assert stale == []


def test_every_sheet_adds_duties_and_says_why_it_leaves_pages_out() -> None:
    assert [sheet.revision for sheet in load_sheets()] == list(REVISIONS)
    for sheet in load_sheets():
        assert sheet.duties
        assert all(aside.why for aside in sheet.asides)
        assert all(entry.why for entry in sheet.left_out)


def test_no_two_duties_say_the_same_sentence() -> None:
    sentences = [row.sentence for row in load().values()]
    assert len(set(sentences)) == len(sentences)


def test_the_generated_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == render(load_sheets()), (
        "run: python -m tests.requirements.render"
    )


def test_a_batch_is_a_duty_in_one_revision_only() -> None:
    standing = [
        revision
        for revision in REVISIONS
        if "jsonrpc.batch.received" in {row.id for row in duties_in_force(revision)}
    ]
    assert standing == ["2025-03-26"]


def test_a_restated_duty_has_its_new_level_from_then_on() -> None:
    levels = [
        next(row.level for row in duties_in_force(revision) if row.id == "versions.respected")
        for revision in REVISIONS
    ]
    assert levels == ["SHOULD", "SHOULD", "MUST", "MUST"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "one-word"},
        {"id": "calls.Cancel"},
        {"id": "calls..cancel"},
        {"level": "OUGHT"},
        {"who": "user"},
        {"layer": "kernel"},
        {"state": "soon"},
        {"state": "later"},
        {"state": "later", "why": "the host issue"},
        {"state": "later", "issue": "host"},
        {"state": "author"},
        {"why": "held needs none"},
        {"issue": "host"},
        {"until": "2024-11-05"},
        {"until": "2024-12-24"},
        {"covers": -1},
        {"also": {"2024-11-05 basic/index": 0}},
        {"also": {"elsewhere": 1}},
        {"link": "basic/index"},
        {"sentence": ""},
        {"sentence": "x" * (duties.MAX_SENTENCE_CHARS + 1)},
        {"colour": "green"},
    ],
    ids=str,
)
def test_a_malformed_row_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(DutyListError):
        duties.read_duty("2024-11-05", {**GOOD, **change})


@pytest.mark.parametrize("member", sorted(GOOD))
def test_a_row_without_a_required_member_is_refused(member: str) -> None:
    with pytest.raises(DutyListError):
        duties.read_duty("2024-11-05", {key: GOOD[key] for key in GOOD if key != member})


def test_an_id_cannot_be_taken_twice() -> None:
    sheet = load_sheets()[0]
    twice = replace(sheet, duties=(*sheet.duties, sheet.duties[0]))
    with pytest.raises(DutyListError):
        duties.check_together((twice,))


def test_only_an_earlier_duty_can_be_restated() -> None:
    first, second = load_sheets()[:2]
    with pytest.raises(DutyListError):
        duties.check_together((replace(first, duties=()), second))


def test_the_files_are_plain_toml_without_tables_we_do_not_know() -> None:
    for path in sorted(duties.HERE.glob("*.toml")):
        assert path.stem in REVISIONS
        content = tomllib.loads(path.read_text("utf-8"))
        assert content.keys() <= {"duty", "restated", "aside", "left_out"}


def test_duties_on_functions_classes_modules_parameters_and_machines_are_found() -> None:
    source = """
pytestmark = [duty("of.module")]

@duty("of.function", "second.id")
async def test_one() -> None: ...

@duty("of.class")
class TestGroup:
    pytestmark = duty("of.body")

    @pytest.mark.parametrize("x", [pytest.param(1, marks=duty("of.parameter"))])
    def test_two(self, x: int) -> None: ...

TestMachine = duty("of.machine")(Machine.TestCase)
"""
    found = find_in_source(source, "test_x.py")
    assert found.faults == []
    assert dict(found.carried) == {
        "of.module": [
            "test_x.py::test_one",
            "test_x.py::TestGroup::test_two",
            "test_x.py::TestMachine",
        ],
        "of.function": ["test_x.py::test_one"],
        "second.id": ["test_x.py::test_one"],
        "of.class": ["test_x.py::TestGroup::test_two"],
        "of.body": ["test_x.py::TestGroup::test_two"],
        "of.parameter": ["test_x.py::TestGroup::test_two"],
        "of.machine": ["test_x.py::TestMachine"],
    }


@pytest.mark.parametrize(
    "source",
    [
        '@duty("a.b")\ndef helper() -> None: ...',
        '@duty("a.b")\nclass Helper:\n    def test_x(self) -> None: ...',
        'LATER = duty("a.b")',
        "@duty(NAME)\ndef test_x() -> None: ...",
        '@duty(f"a.{b}")\ndef test_x() -> None: ...',
        'def test_x() -> None:\n    duty("a.b")',
    ],
)
def test_a_duty_on_no_test_or_without_a_plain_id_is_a_fault(source: str) -> None:
    found = find_in_source(source, "test_x.py")
    assert found.faults
    assert not found.carried


@pytest.mark.parametrize("mark", ["skip", "skipif(True, reason='r')", "xfail", "slow", "interop"])
def test_a_test_outside_the_default_run_carries_nothing(mark: str) -> None:
    source = f'@duty("a.b")\n@pytest.mark.{mark}\ndef test_x() -> None: ...'
    found = find_in_source(source, "test_x.py")
    assert found.faults == []
    assert not found.carried


def test_each_item_of_a_list_that_a_keyword_opens_counts_once() -> None:
    page = """---
title: x
---

Servers **MUST**:

- One thing
  over two lines
- Another
  - which is only explained here

Clients **SHOULD NOT** do this, and **MAY**
do that:

```
They MUST be ignored in code
```

The keywords "MUST" and "should" are two.
"""
    counts = [statement.keywords for statement in read_page("page", page.splitlines())]
    assert sum(counts) == 2 + 2 + 2


def test_the_comments_of_a_schema_belong_to_the_declaration_they_describe() -> None:
    schema = """
/**
 * The value SHOULD be short. It is text.
 */
export interface First {
  /** This MUST be set. */
  value: string;
}

/** Clients MAY ignore it. */
export type Second = string;
"""
    found = [
        (statement.link, statement.keywords)
        for statement in read_schema("schema", schema.splitlines())
        if statement.keywords
    ]
    assert found == [("schema#First", 1), ("schema#First", 1), ("schema#Second", 1)]


def test_keywords_are_accounted_for_by_section() -> None:
    counts = accounted(load_sheets()[0])
    assert counts["2024-11-05 basic/messages#responses"] == 4
    assert counts["2024-11-05 index"] == 11


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (
            "2024-11-05 basic/lifecycle#stdio",
            "https://modelcontextprotocol.io/specification/2024-11-05/basic/lifecycle#stdio",
        ),
        (
            "2025-03-26 basic/index#batching",
            "https://modelcontextprotocol.io/specification/2025-03-26/basic#batching",
        ),
        (
            "2024-11-05 index",
            "https://modelcontextprotocol.io/specification/2024-11-05",
        ),
        ("JSON-RPC 2.0 error-object", "https://www.jsonrpc.org/specification#error_object"),
    ],
)
def test_a_link_leads_to_the_published_text(link: str, expected: str) -> None:
    assert address(link) == expected
