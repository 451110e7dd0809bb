"""The official example messages of the newest revision, read, written, and lowered into the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import CannotLower
from dragoman.jsonrpc.codec import encode_value
from dragoman.model.base import Record
from dragoman.model.content import ResourceContents
from dragoman.model.elicitation import ElicitParams
from dragoman.model.methods import CATALOGUE
from dragoman.revisions.dialect import Dialect
from dragoman.revisions.registry import DIALECTS
from tests.properties.strategies import RECORDS
from tests.revisions.official import (
    complaints,
    examples,
    is_declared,
    lowered,
    needs_spec,
    plain,
    schema_of,
)
from tests.revisions.test_lowering import must_be_refused

pytestmark = needs_spec

NEWEST = DIALECTS[-1]

# Examples that are no value of the model: errors are built by the engine; the schemas of form
# fields are plain JSON inside of a form; rounds, discovery and subscriptions come with the runtime
# of the revision that brought them.
NOT_MODELLED = {
    "BooleanSchema",
    "DiscoverRequest",
    "DiscoverResult",
    "DiscoverResultResponse",
    "HeaderMismatchError",
    "InputRequests",
    "InputRequiredResult",
    "InputResponses",
    "InternalError",
    "InvalidParamsError",
    "MethodNotFoundError",
    "MissingRequiredClientCapabilityError",
    "NumberSchema",
    "ParseError",
    "StringSchema",
    "SubscriptionsAcknowledgedNotification",
    "SubscriptionsListenRequest",
    "SubscriptionsListenResult",
    "SubscriptionsListenResultResponse",
    "TitledMultiSelectEnumSchema",
    "TitledSingleSelectEnumSchema",
    "UnsupportedProtocolVersionError",
    "UntitledMultiSelectEnumSchema",
    "UntitledSingleSelectEnumSchema",
}

# Two published examples miss their own schema: one has an `id` that it does not declare, the other
# lacks the cache hints that it requires.
FAULTY = {"list-roots-request", "read-resource-result-response"}

# Members of requests after a round: they come with the runtime of rounds.
OF_ROUNDS = {"inputResponses", "requestState"}

_NAMES: dict[str, type[Record]] = {
    "BlobResourceContents": ResourceContents,
    "TextResourceContents": ResourceContents,
    "ElicitRequestFormParams": ElicitParams,
    "ElicitRequestURLParams": ElicitParams,
}


def record_of(definition: str, message: Any) -> tuple[type[Record], Any]:
    """The record an example holds, and its JSON."""
    if "method" in message:
        return CATALOGUE[message["method"]].params, message.get("params", {})
    if definition.endswith("Response"):
        return RECORDS[definition.removesuffix("Response")], message["result"]
    name = definition.replace("RequestParams", "Params").replace("NotificationParams", "Params")
    renamed = {"PaginatedParams": "PageParams", "LoggingMessageParams": "LogMessageParams"}
    return _NAMES.get(definition) or RECORDS[renamed.get(name, name)], message


CASES = [
    pytest.param(definition, path, id=f"{definition}-{path.stem}")
    for definition, path in examples()
]
MODELLED = [case for case in CASES if case.values[0] not in NOT_MODELLED]


def read(definition: str, path: Path) -> tuple[Record, Any]:
    """An example as a record of the model, and as it was written."""
    record, value = record_of(definition, json.loads(path.read_text()))
    return NEWEST.lift(record, encode_value(value)), value


@pytest.mark.parametrize(("definition", "path"), CASES)
def test_an_official_example_fits_its_own_closed_schema(definition: str, path: Path) -> None:
    against = schema_of(NEWEST.wire).complaints(definition, json.loads(path.read_text()))
    faulty = path.stem in FAULTY and definition in (
        "ListRootsRequest",
        "ReadResourceResultResponse",
    )
    assert bool(against) == faulty


@pytest.mark.parametrize(("definition", "path"), MODELLED)
def test_an_official_example_is_written_as_it_was_read(definition: str, path: Path) -> None:
    value, written = read(definition, path)
    kept = {key: item for key, item in written.items() if key not in OF_ROUNDS}
    result, losses = lowered(NEWEST, value)
    assert losses == []
    again = plain(result)
    # false is what a missing `isError` means
    kept = {key: item for key, item in kept.items() if (key, item) != ("isError", False)}
    # a content block or a reference says its kind, wherever it stands on its own
    added = {"type", "resultType", "ttlMs", "cacheScope"} - set(kept)
    assert {key: item for key, item in again.items() if key not in added} == kept


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.wire)
@pytest.mark.parametrize(("definition", "path"), MODELLED)
def test_an_official_example_fits_every_revision_it_is_lowered_into(
    definition: str, path: Path, dialect: Dialect
) -> None:
    value, _ = read(definition, path)
    if must_be_refused(value, dialect):
        with pytest.raises(CannotLower):
            lowered(dialect, value)
        return
    result, _ = lowered(dialect, value)
    if is_declared(type(result), dialect.wire):
        assert complaints(result, dialect.wire) == []


def test_most_official_examples_are_read() -> None:
    # 129 were published; the rest are the kinds in NOT_MODELLED
    modelled = [definition for definition, _ in examples() if definition not in NOT_MODELLED]
    assert len(modelled) > 90
    assert {definition for definition, _ in examples()} >= NOT_MODELLED
