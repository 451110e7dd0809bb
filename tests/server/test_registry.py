"""Registries: entries that come and go, listed page by page."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dragoman.errors import InvalidParams, Misconfigured
from dragoman.model.base import EmptyResult, Record
from dragoman.server.registry import Registry
from tests.requirements.duties import duty


@dataclass
class Thing:
    key: str
    definition: Record


def thing(key: str) -> Thing:
    return Thing(key, EmptyResult())


def registry(page_size: int = 3, names: str = "") -> tuple[Registry[Thing], list[int]]:
    changes: list[int] = []
    made: Registry[Thing] = Registry("thing", lambda: changes.append(1), page_size)
    for name in names:
        made.add(thing(name))
    return made, changes


def keys(page: tuple[list[Thing], str | None]) -> str:
    return "".join(entry.key for entry in page[0])


@duty("pagination.after-cursor")
@pytest.mark.parametrize(
    ("names", "pages"),
    [("", [""]), ("abc", ["abc"]), ("abcd", ["abc", "d"]), ("abcdefg", ["abc", "def", "g"])],
)
def test_each_page_starts_right_after_the_one_before(names: str, pages: list[str]) -> None:
    made, _ = registry(names=names)
    found, cursor = [], None
    for _ in pages:
        page = made.page(cursor)
        found.append(keys(page))
        cursor = page[1]
    assert cursor is None
    assert found == pages


@duty("pagination.bad-cursor")
@pytest.mark.parametrize(
    "cursor", ["", "x", "3", "3.", ".", "1.00", "-1.x", "0x1.f", "é", "1" * 10_000]
)
def test_a_cursor_that_was_not_given_out_is_refused(cursor: str) -> None:
    made, _ = registry(names="abcdef")
    with pytest.raises(InvalidParams):
        made.page(cursor)


@duty("pagination.bad-cursor")
def test_a_cursor_of_another_list_or_another_process_is_refused() -> None:
    one, other = registry(names="abcdef")[0], registry(names="abcdef")[0]
    cursor = one.page(None)[1]
    assert cursor is not None
    for forged in (cursor.upper(), f"0{cursor}", cursor + " ", cursor.replace(".", "..")):
        if forged != cursor:
            with pytest.raises(InvalidParams):
                one.page(forged)
    with pytest.raises(InvalidParams):
        other.page(cursor)


@duty("pagination.stable")
def test_an_outdated_cursor_goes_on_after_the_place_it_names() -> None:
    made, _ = registry(names="abcdef")
    cursor = made.page(None)[1]
    made.remove("c")
    made.remove("a")
    made.add(thing("g"))
    assert keys(made.page(cursor)) == "def"


def test_every_visible_change_is_told_and_nothing_else() -> None:
    made, changes = registry(names="ab")
    made.enable("a", enabled=False)
    made.enable("a", enabled=False)
    made.enable("a")
    made.remove("b")
    made.add(thing("a"), replace=True)
    assert len(changes) == 2 + 2 + 1 + 1
    for wrong in (lambda: made.remove("x"), lambda: made.enable("x"), lambda: made.add(thing("a"))):
        with pytest.raises(Misconfigured):
            wrong()
    assert len(changes) == 6


def test_a_hidden_entry_is_as_if_it_did_not_exist() -> None:
    made, _ = registry(names="abc")
    made.enable("b", enabled=False)
    assert (made.get("b"), len(made), keys(made.page(None))) == (None, 2, "ac")
    assert made.is_used
    assert "b" not in made.suggest("b")


def test_a_page_holds_at_least_one_entry() -> None:
    with pytest.raises(Misconfigured, match="page_size"):
        registry(page_size=0)


class Walk(RuleBasedStateMachine):
    """Entries come and go between pages; whatever stays is listed exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.made, _ = registry(page_size=2)
        self.count = 0
        self.cursor: str | None = None
        self.is_walking = False
        self.staying: set[str] = set()
        self.seen: list[str] = []

    @rule()
    def add(self) -> None:
        self.count += 1
        self.made.add(thing(f"t{self.count}"))

    @precondition(lambda self: len(self.made) > 0)
    @rule(data=st.data())
    def remove(self, data: Any) -> None:
        key = data.draw(st.sampled_from([entry.key for entry in self.made]))
        self.made.remove(key)
        self.staying.discard(key)

    @precondition(lambda self: len(self.made) > 0)
    @rule(data=st.data())
    def replace(self, data: Any) -> None:
        key = data.draw(st.sampled_from([entry.key for entry in self.made]))
        self.made.add(thing(key), replace=True)

    @rule()
    def walk(self) -> None:
        if not self.is_walking:
            self.is_walking, self.cursor, self.seen = True, None, []
            self.staying = {entry.key for entry in self.made}
        entries, self.cursor = self.made.page(self.cursor)
        self.seen += [entry.key for entry in entries]
        if self.cursor is None:
            self.is_walking = False
            assert self.staying <= set(self.seen)

    @invariant()
    def nothing_is_listed_twice(self) -> None:
        assert len(self.seen) == len(set(self.seen))


TestPages = duty("pagination.stable", "pagination.after-cursor")(Walk.TestCase)
TestPages.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_suggestion_is_found_among_many_names_and_for_endless_ones() -> None:
    made, _ = registry()
    for number in range(2_000):
        made.add(thing(f"tool-{number}" + "x" * (number % 50)))
    made.add(thing("forecast"))
    made.add(thing("y" * 10_000))
    assert "'forecast'" in made.suggest("forcast")
    assert made.suggest("y" * 10_000) == ""


def test_entries_may_be_added_by_another_thread_while_pages_are_read() -> None:
    made, _ = registry(page_size=10_000)
    ended = threading.Event()

    def add() -> None:
        for number in range(3_000):
            made.add(thing(str(number)))
        ended.set()

    adding = threading.Thread(target=add)
    adding.start()
    while not ended.is_set():
        made.page(None)
    adding.join()
    assert [entry.key for entry in made.page(None)[0]] == [str(n) for n in range(3_000)]
