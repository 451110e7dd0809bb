"""Each revision's methods and their directions are those of its official schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dragoman.model.methods import CATALOGUE, Side
from dragoman.revisions.dialect import Dialect
from dragoman.revisions.registry import DIALECTS
from tests.revisions.official import SPEC, needs_spec

CLIENT, SERVER = Side.CLIENT, Side.SERVER

# What a schema has and we do not, with the reason.
NOT_YET: dict[str, dict[tuple[str, Side], str]] = {
    "2025-11-25": {
        (name, side): "tasks come with an issue of their own"
        for name in (
            "notifications/tasks/status",
            "tasks/cancel",
            "tasks/get",
            "tasks/list",
            "tasks/result",
        )
        for side in Side
    },
    "2026-07-28": {
        ("server/discover", CLIENT): "comes with the runtime of this revision",
        ("subscriptions/listen", CLIENT): "comes with the runtime of this revision",
        ("notifications/subscriptions/acknowledged", SERVER): "belongs to subscriptions/listen",
    },
}

# What we have and a schema has not, with the reason.
MORE: dict[str, dict[tuple[str, Side], str]] = {
    "2026-07-28": {
        ("notifications/progress", CLIENT): (
            "its direction stands in the catalogue, for all revisions; here a client answers no "
            "request of its own, so it has no progress to tell"
        ),
    },
}


def _methods(definitions: dict[str, Any], union: str) -> set[str]:
    node = definitions.get(union)
    if node is None:
        return set()
    parts = node.get("anyOf", [node])
    parts = [
        definitions[part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part for part in parts
    ]
    return {part["properties"]["method"]["const"] for part in parts}


def official(revision: str) -> set[tuple[str, Side]]:
    """Every method with a side that may send it, as the schema's unions have it."""
    schema = json.loads((SPEC / revision / "schema.json").read_text())
    definitions = schema.get("definitions") or schema["$defs"]
    return {
        (name, side)
        for side, unions in {
            CLIENT: ("ClientRequest", "ClientNotification"),
            # where servers do not send requests, what they ask for travels inside of results
            SERVER: ("ServerRequest", "ServerNotification", "InputRequest"),
        }.items()
        for union in unions
        for name in _methods(definitions, union)
    }


@needs_spec
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.wire)
def test_the_vocabulary_is_the_official_one_but_for_named_exceptions(dialect: Dialect) -> None:
    ours = {
        (name, side)
        for name in dialect.methods
        for side in Side
        if dialect.method(name, side) is not None
    }
    theirs = official(dialect.wire)
    assert theirs - ours == set(NOT_YET.get(dialect.wire, {}))
    assert ours - theirs == set(MORE.get(dialect.wire, {}))


def test_every_method_of_the_catalogue_exists_somewhere() -> None:
    assert set(CATALOGUE) == frozenset().union(*(dialect.methods for dialect in DIALECTS))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.wire)
def test_a_method_is_known_only_from_the_side_that_may_send_it(dialect: Dialect) -> None:
    for name, method in CATALOGUE.items():
        for side in Side:
            found = dialect.method(name, side)
            assert found == (method if name in dialect.methods and side in method.senders else None)
    assert dialect.method("no/such", CLIENT) is None


def test_requests_have_results_and_notifications_have_none() -> None:
    for name, method in CATALOGUE.items():
        assert method.is_request is not name.startswith("notifications/")
        assert method.senders
        assert (method.needs is None) == (method.needs_of is None)
    assert CLIENT.other is SERVER
    assert SERVER.other is CLIENT


def test_completion_needs_its_capability_since_there_is_one() -> None:
    method = CATALOGUE["completion/complete"]
    assert [dialect.needs(method) for dialect in DIALECTS] == [None, *["completions"] * 4]
    assert DIALECTS[0].needs(CATALOGUE["tools/call"]) == "tools"
