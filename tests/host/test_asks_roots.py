"""Roots: the folders a user opens, to the servers they open them to, each by consent."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import Misconfigured
from dragoman.host.asks import Answered, RootsBook
from dragoman.host.asks.roots import MAX_ROOTS, NOT_SHOWN
from dragoman.host.kinds import ApprovalRequest, Scope
from dragoman.model.roots import ListRootsResult
from tests.host.desk import Desk, Person, desk, fact, payload_of, run
from tests.requirements.duties import duty


def folders(tmp_path: Path, *names: str) -> list[Path]:
    made = [tmp_path / name for name in names]
    for one in made:
        one.mkdir()
    return made


def listed(at: Desk, book: RootsBook, server: str = "maps") -> list[str]:
    return [root.uri for root in answer(at, book, server).result.roots]


def answer(at: Desk, book: RootsBook, server: str = "maps") -> Answered[ListRootsResult]:
    return run(book.answer(at.asker(server)))


@duty("roots.consent", "trust.data.exposed")
def test_nothing_is_exposed_before_a_person_agreed(tmp_path: Path) -> None:
    a, b = folders(tmp_path, "a", "b")
    person = Person(lambda request: "a" in payload_of(request)["name"])
    with desk(person) as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", a)
        book.add("maps", b)
        answered = answer(at, book)
        decisions = at.records()
    assert [root.uri for root in answered.result.roots] == [a.as_uri()]
    assert b.as_uri().encode() not in answered.payload
    assert sorted(record["effect"] for record in decisions) == ["allow", "deny"]
    # The record that names what was told, not the refusal of the rest.
    assert [answered.decision] == [one["seq"] for one in decisions if one["effect"] == "allow"]
    assert {request.intent.object for request in person.asked} == {a.as_uri(), b.as_uri()}
    assert fact(person.asked[0], "also open to it") == b.as_uri()


@duty("roots.access-control")
def test_a_server_sees_only_what_was_opened_to_it(tmp_path: Path) -> None:
    a, b = folders(tmp_path, "a", "b")
    with desk(Person(True)) as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", a)
        book.add("mail", b)
        assert listed(at, book, "maps") == [a.as_uri()]
        assert listed(at, book, "mail") == [b.as_uri()]
        empty = answer(at, book, "other")
    assert (empty.result.roots, empty.decision) == ([], 0)


def test_a_yes_that_is_remembered_is_not_asked_again(tmp_path: Path) -> None:
    (a,) = folders(tmp_path, "a")
    person = Person(Scope.SESSION)
    with desk(person) as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", a)
        assert listed(at, book) == listed(at, book) == [a.as_uri()]
    assert len(person.asked) == 1


def test_a_folder_that_leads_somewhere_else_now_is_another_question(tmp_path: Path) -> None:
    a, b = folders(tmp_path, "a", "b")
    link = tmp_path / "link"
    link.symlink_to(a)
    person = Person(Scope.ALWAYS)
    with desk(person) as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", link)
        listed(at, book)
        listed(at, book)
        assert len(person.asked) == 1
        assert fact(person.asked[0], "leads to") == str(a)
        link.unlink()
        link.symlink_to(b)
        listed(at, book)
    assert len(person.asked) == 2
    assert fact(person.asked[1], "leads to") == str(b)


def test_a_folder_that_is_exchanged_while_the_person_thinks_is_not_exposed(tmp_path: Path) -> None:
    a, b = folders(tmp_path, "a", "b")
    link = tmp_path / "link"
    link.symlink_to(a)

    def swaps(request: ApprovalRequest) -> bool:
        link.unlink()
        link.symlink_to(b)
        return True

    with desk(Person(swaps)) as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", link)
        assert listed(at, book) == []
        assert at.records()[-1]["code"] == "root_unfit"


@duty("roots.accessible")
@pytest.mark.parametrize("what", ["gone", "closed"])
def test_a_folder_that_goes_while_the_person_thinks_is_not_exposed(
    what: str, tmp_path: Path
) -> None:
    (a,) = folders(tmp_path, "a")

    def goes(request: ApprovalRequest) -> bool:
        if what == "gone":
            a.rmdir()
        else:
            book.remove("maps", a)
        return True

    with desk(Person(goes)) as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", a)
        assert listed(at, book) == []
        assert at.records()[-1]["code"] == "root_unfit"


@pytest.mark.parametrize(
    "root",
    [
        "file:///srv/../etc",
        "file:///srv/%2e%2e/etc",
        "file:///srv%2f..%2fetc",
        "file:///srv%00",
        "file://relative",
        "https://example.com/",
        "http://169.254.169.254/",
        "data:,x",
    ],
)
def test_what_is_no_folder_of_this_machine_cannot_be_opened(root: str) -> None:
    with desk(Person(True)) as at:
        book = RootsBook(at.mediator, at.budget)
        with pytest.raises((Misconfigured, ValueError)):
            book.add("maps", root if "://" in root else f"data://{root}")
        assert book.listed("maps") == []


@duty("roots.monitored", "roots.accessible")
def test_a_folder_that_is_gone_is_left_out_and_noticed(tmp_path: Path) -> None:
    a, b = folders(tmp_path, "a", "b")
    told: list[str] = []
    person = Person(True)
    with desk(person) as at:
        book = RootsBook(at.mediator, at.budget, on_change=told.append)
        book.seed("maps", [a, b])
        assert (book.refresh(), told) == ([], [])
        b.rmdir()
        assert book.refresh() == told == ["maps"]
        assert listed(at, book) == [a.as_uri()]
        assert [request.intent.object for request in person.asked] == [a.as_uri()]
        (gone,) = [state for state in book.states("maps") if not state.is_there]
        assert gone.root.uri == b.as_uri()
        assert "reached" in gone.fault
        b.mkdir()
        assert book.refresh() == ["maps"]
        assert listed(at, book) == [a.as_uri(), b.as_uri()]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (a,) = folders(tmp_path, "a")
    a.chmod(0)
    with desk(Person(True)) as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", a)
        assert listed(at, book) == []


def test_opening_and_closing_is_told_once_each(tmp_path: Path) -> None:
    (a,) = folders(tmp_path, "a")
    told: list[str] = []
    with desk(Person(True)) as at:
        book = RootsBook(at.mediator, at.budget, on_change=told.append)
        book.seed("maps", [a])
        book.add("maps", a)
        assert told == []
        book.remove("maps", a)
        with pytest.raises(Misconfigured):
            book.remove("maps", a)
        book.seed("maps", [a])
        assert book.listed("maps") == []
        book.add("maps", a)
    assert told == ["maps", "maps"]


def test_only_so_many_folders_are_opened(tmp_path: Path) -> None:
    with desk(Person(True)) as at:
        book = RootsBook(at.mediator, at.budget)
        for number in range(MAX_ROOTS):
            book.add("maps", tmp_path / str(number))
        with pytest.raises(Misconfigured):
            book.add("maps", tmp_path)
        book.add("mail", tmp_path)


def test_roots_are_offered_only_where_they_could_be_granted(tmp_path: Path) -> None:
    (a,) = folders(tmp_path, "a")

    def is_offered(person: Person | None, *rules: str, opened: Any = (a,)) -> bool:
        with desk(person, *rules) as at:
            book = RootsBook(at.mediator, at.budget)
            book.seed("maps", opened)
            return book.is_offered(at.asker())

    assert is_offered(Person(True))
    assert is_offered(Person(True), opened=())
    assert not is_offered(Person(True), "deny roots(maps/*)")
    assert not is_offered(None)
    assert is_offered(None, f"allow roots(maps/{a.as_uri()})")
    assert not is_offered(None, f"allow roots(maps/{a.as_uri()})", opened=())


def test_a_server_that_asks_without_end_is_not_shown_to_the_person_each_time(
    tmp_path: Path,
) -> None:
    (a,) = folders(tmp_path, "a")
    person = Person(False)
    with desk(person) as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", a)
        for _ in range(30):
            assert listed(at, book) == []
        assert at.records()[-1]["code"] == "rate_limit"
    assert len(person.asked) == 10


def test_all_folders_are_asked_about_at_once(tmp_path: Path) -> None:
    """Their deadlines do not add up while the server waits."""

    async def slowly(request: ApprovalRequest) -> bool:
        await asyncio.sleep(100.0)
        return True

    async def scenario(at: Desk) -> float:
        book = RootsBook(at.mediator, at.budget)
        for one in folders(tmp_path, "a", "b", "c"):
            book.add("maps", one)
        await book.answer(at.asker())
        return asyncio.get_running_loop().time()

    with desk(Person(slowly)) as at:
        assert run(scenario(at)) < 101.0


# --- a server in a sandbox ------------------------------------------------------------------------


def test_a_confined_server_is_not_told_of_what_its_sandbox_does_not_show(tmp_path: Path) -> None:
    shown, added = folders(tmp_path, "shown", "added")
    (inner,) = folders(shown, "inner")
    told: list[str] = []
    person = Person(True)
    with desk(person) as at:
        book = RootsBook(at.mediator, at.budget, on_change=told.append)
        book.seed("maps", [shown])
        book.confined("maps", [shown])
        book.add("maps", added)
        assert told == []
        book.add("maps", inner)
        assert told == ["maps"]
        assert listed(at, book) == [shown.as_uri(), inner.as_uri()]
        faults = {state.root.uri: state.fault for state in book.states("maps")}
    assert faults == {shown.as_uri(): "", added.as_uri(): NOT_SHOWN, inner.as_uri(): ""}
    assert added.as_uri() not in {one.intent.object for one in person.asked}


def test_a_link_out_of_what_is_shown_is_not_shown(tmp_path: Path) -> None:
    shown, other = folders(tmp_path, "shown", "other")
    (shown / "link").symlink_to(other)
    with desk(Person(True)) as at:
        book = RootsBook(at.mediator, at.budget)
        book.confined("maps", [shown])
        book.add("maps", shown / "link")
        assert listed(at, book) == []


def test_what_was_added_is_asked_about_before_a_sandbox_shows_it(tmp_path: Path) -> None:
    mine, yes, no = folders(tmp_path, "mine", "yes", "no")
    person = Person(lambda request: not payload_of(request)["uri"].endswith("/no"))
    with desk(person) as at:
        book = RootsBook(at.mediator, at.budget)
        book.seed("maps", [mine])
        for one in (yes, no, tmp_path / "gone"):
            book.add("maps", one)
        assert run(book.for_start(at.asker())) == [yes]
        # What the configuration says was in the question about the start.
        assert {one.intent.object for one in person.asked} == {yes.as_uri(), no.as_uri()}
        book.confined("maps", [mine, yes])
        assert listed(at, book) == [mine.as_uri(), yes.as_uri()]
        book.confined("maps", None)
        assert [state.is_there for state in book.states("maps")] == [True, True, True, False]


def test_with_nobody_to_ask_only_what_a_rule_allows_is_put_into_a_sandbox(tmp_path: Path) -> None:
    yes, no = folders(tmp_path, "yes", "no")
    with desk(None, f"allow roots(maps/{yes.as_uri()})") as at:
        book = RootsBook(at.mediator, at.budget)
        book.add("maps", yes)
        book.add("maps", no)
        assert run(book.for_start(at.asker())) == [yes]
