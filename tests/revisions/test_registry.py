"""Choosing a dialect."""

from __future__ import annotations

import pytest

from dragoman.errors import Misconfigured
from dragoman.revisions.facts import Opening
from dragoman.revisions.registry import DIALECTS, HANDSHAKE, dialect_for, negotiate, supported


def test_dialects_stand_in_their_order() -> None:
    assert [dialect.position for dialect in DIALECTS] == [0, 1, 2, 3, 4]
    assert sorted(dialect.wire for dialect in DIALECTS) == [dialect.wire for dialect in DIALECTS]


def test_a_dialect_is_found_by_its_exact_name_only() -> None:
    for dialect in DIALECTS:
        assert dialect_for(dialect.wire) is dialect
    for name in ("", "2024-11-5", "2024-11-05 ", "latest", "9999-12-31"):
        assert dialect_for(name) is None


def test_only_revisions_with_a_handshake_open_with_one() -> None:
    assert DIALECTS[:4] == HANDSHAKE
    assert {dialect.facts.opening for dialect in HANDSHAKE} == {Opening.HANDSHAKE}


def test_a_server_agrees_to_what_it_speaks() -> None:
    for dialect in HANDSHAKE:
        assert negotiate(dialect.wire, HANDSHAKE) is dialect


@pytest.mark.parametrize("asked", ["1999-01-01", "9999-12-31", "", "draft", "2026-07-28"])
def test_a_server_answers_an_unknown_revision_with_its_newest(asked: str) -> None:
    assert negotiate(asked, HANDSHAKE) is HANDSHAKE[-1]
    assert negotiate(asked, HANDSHAKE[:1]) is HANDSHAKE[0]


def test_a_pinned_revision_is_the_only_one_offered() -> None:
    assert supported(None) == HANDSHAKE
    assert supported("2024-11-05") == (DIALECTS[0],)
    assert negotiate("2025-11-25", supported("2024-11-05")) is DIALECTS[0]


@pytest.mark.parametrize("wanted", ["", "2024", "newest", "2026-07-28"])
def test_a_revision_that_cannot_open_a_connection_cannot_be_pinned(wanted: str) -> None:
    with pytest.raises(Misconfigured, match="2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25"):
        supported(wanted)
