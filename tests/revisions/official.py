"""Where the official schemas are, and what they say about a record.

They are not part of the project. The environment variable DRAGOMAN_SPEC names their folder; else
`shared/spec` beside the checkout is tried. Without them the tests that need them are skipped.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dragoman.jsonrpc.codec import encode_value
from dragoman.model.base import Record
from dragoman.revisions.dialect import Dialect, Loss
from dragoman.revisions.registry import DIALECTS
from dragoman.testing.oracle import ClosedSchema
from tools.generate_fields import PLACES

__all__ = [
    "HAS_SPEC",
    "SPEC",
    "complaints",
    "examples",
    "is_declared",
    "lowered",
    "needs_spec",
    "places",
    "plain",
    "schema_of",
    "with_envelope",
]

ROOT = Path(__file__).resolve().parents[2]
SPEC = Path(os.environ.get("DRAGOMAN_SPEC") or ROOT.parent / "shared" / "spec")

HAS_SPEC = (SPEC / DIALECTS[0].wire / "schema.json").is_file()
needs_spec = pytest.mark.skipif(
    not HAS_SPEC,
    reason="the official schemas are not here: set DRAGOMAN_SPEC to the folder that holds them",
)

# Where the first revisions put what the later ones give a name of its own.
_ALSO = {
    "NoParams": ["PingRequest/params", "ListRootsRequest/params"],
    "PageParams": ["ListToolsRequest/params"],
    "UriParams": ["ReadResourceRequest/params"],
}


@cache
def schema_of(revision: str) -> ClosedSchema:
    """The closed schema, read once."""
    return ClosedSchema(SPEC, revision)


def places(record: type[Record], revision: str) -> list[str]:
    """Where a record stands in a revision's schema: 0..n places."""
    name = record.__name__
    wanted = PLACES.get(name, [name]) + _ALSO.get(name, [])
    return [place for place in wanted if schema_of(revision).find(place) is not None]


def is_declared(record: type[Record], revision: str) -> bool:
    """Whether the revision has the record at all."""
    return bool(places(record, revision))


def lowered(dialect: Dialect, value: Record) -> tuple[Record, list[Loss]]:
    """What the revision's peer gets, and what was reported on the way."""
    losses: list[Loss] = []
    return dialect.lower(value, losses.append), losses


def plain(value: Record) -> Any:
    """A record as its peer reads it."""
    return json.loads(encode_value(value))


def with_envelope(place: str, value: Any, revision: str) -> Any:
    """A request's params with what the engine adds to each request where there is no opening."""
    node = schema_of(revision).find(place) or {}
    if "_meta" not in node.get("required", []):
        return value
    envelope = {
        "io.modelcontextprotocol/protocolVersion": revision,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {**value, "_meta": {**value.get("_meta", {}), **envelope}}


def complaints(value: Record, revision: str) -> list[str]:
    """What the closed schema has against a lowered record, wherever it may stand."""
    found: list[str] = []
    for place in places(type(value), revision):
        seen = with_envelope(place, plain(value), revision)
        against = schema_of(revision).complaints(place, seen)
        if not against:
            return []
        found += [f"{place}{complaint.removeprefix('$')}" for complaint in against]
    return found or [f"{type(value).__name__} does not exist in {revision}"]


def examples() -> list[tuple[str, Path]]:
    """The official examples of the newest revision: definition and file."""
    folder = SPEC / DIALECTS[-1].wire / "examples"
    return sorted((path.parent.name, path) for path in folder.glob("*/*.json"))
