"""Every scenario, for each pair of client and server revision, over every link.

A server over HTTP runs under a real uvicorn in the loop of its test: that costs milliseconds, where
a process of its own costs half a second.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dragoman import Client, PeerError
from dragoman.model.base import Record
from dragoman.model.methods import CATALOGUE, Side
from dragoman.revisions.dialect import Dialect, Loss
from dragoman.revisions.registry import dialect_for
from dragoman.transport.http.client import HttpOptions
from tests.http.aids import serving
from tests.requirements.duties import duty
from tests.revisions.official import HAS_SPEC, places, schema_of
from tests.scenarios import REVISIONS, SCENARIOS, Seen, make_server
from tests.support import Wire, run

ROOT = Path(__file__).parent.parent
LINKS = ("memory", "stdio", "sse", "streamable", "unix")
CHOICES = (None, *REVISIONS)


def agreed_by(client: str | None, server: str | None) -> str | None:
    """What two sides agree on; None when they cannot."""
    if client is not None and server is not None:
        return client if client == server else None
    return client or server or REVISIONS[-1]


@asynccontextmanager
async def served(link: str, revision: str | None) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """A server of that revision: the target of a client, and the options it takes to reach it."""
    if link == "memory":
        yield make_server(revision), {}
    elif link == "stdio":
        command = [sys.executable, "-m", "tests.scenarios", *([revision] if revision else [])]
        yield command, {"cwd": ROOT}
    elif link == "unix":
        # Short, since the path of a socket has at most 107 characters.
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/s"
            async with serving(make_server(revision).asgi(), uds=path):
                yield "http://localhost/mcp", {"http": HttpOptions(uds=path)}
    else:
        async with serving(make_server(revision).asgi()) as place:
            yield place.url + ("/sse" if link == "sse" else "/mcp"), {}


PAIRS = [(client, server) for client in CHOICES for server in CHOICES]


@duty(
    "versions.offer.supported",
    "versions.offer.latest",
    "versions.answer.same",
    "versions.answer.latest",
    "versions.respected",
    "transport.custom.preserved",
)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("client", "server"), [p for p in PAIRS if agreed_by(*p) is not None])
def test_every_scenario_holds(link: str, client: str | None, server: str | None) -> None:
    agreed = agreed_by(client, server)
    assert agreed is not None

    async def main() -> None:
        wire, seen = Wire(), Seen()
        failed: list[Exception] = []
        async with (
            served(link, server) as (target, options),
            Client(
                target, revision=client, on_wire=wire, **options, **seen.options()
            ) as connection,
        ):
            for scenario in SCENARIOS:
                try:
                    await scenario(connection, agreed, seen)
                except (Exception, AssertionError) as error:
                    error.add_note(f"in the scenario {scenario.__name__}")
                    failed.append(error)
        if failed:
            raise ExceptionGroup(f"{client} with {server} over {link}", failed)
        offered = wire.sent("initialize")[0]["params"]["protocolVersion"]
        assert offered == (client or REVISIONS[-1])
        assert wire.answers()[0]["result"]["protocolVersion"] == agreed
        assert leaks(wire, agreed) == []

    run(main())


@duty("versions.answer.other", "versions.answer.latest", "versions.offer.supported")
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(("client", "server"), [p for p in PAIRS if agreed_by(*p) is None])
def test_sides_that_cannot_agree_part_with_a_typed_error(
    link: str, client: str, server: str
) -> None:
    async def main() -> None:
        wire = Wire()
        async with served(link, server) as (target, options):
            with pytest.raises(PeerError) as parted:
                async with Client(target, revision=client, on_wire=wire, **options):
                    pass
        assert client in str(parted.value)
        assert server in str(parted.value)
        assert wire.answers()[0]["result"]["protocolVersion"] == server
        assert not wire.sent("notifications/initialized")

    run(main())


# --- nothing on the wire that the revision does not know ------------------------------------------------


def leaks(wire: Wire, revision: str) -> list[str]:
    """What the wire held that the revision has no word for: methods, members, kinds of content.

    The opening is left out: it is spoken before anything is agreed on. With the official schemas
    at hand, closed, they are asked as well.
    """
    dialect = dialect_for(revision)
    assert dialect is not None
    found: list[str] = []
    asked: dict[tuple[str, Any], str] = {}
    for direction, message in wire.frames:
        sender = Side.CLIENT if direction == "sent" else Side.SERVER
        if "method" in message:
            name = message["method"]
            if name == "initialize":
                continue
            if "id" in message:
                asked[direction, message["id"]] = name
            if dialect.method(name, sender) is None:
                found.append(f"the method {name}")
            else:
                found += _strange(dialect, CATALOGUE[name].params, message.get("params", {}))
        elif "result" in message:
            asker = "received" if direction == "sent" else "sent"
            answered = asked.pop((asker, message["id"]), None)
            record = None if answered is None else CATALOGUE[answered].result
            if record is not None:
                found += _strange(dialect, record, message["result"])
    return found


def _strange(dialect: Dialect, record: type[Record], value: Any) -> list[str]:
    losses: list[Loss] = []
    dialect.lower(dialect.lift(record, msgspec.json.encode(value)), losses.append)
    found = [str(loss) for loss in losses]
    if HAS_SPEC and (where := places(record, dialect.wire)):
        against = [schema_of(dialect.wire).complaints(place, value) for place in where]
        if all(against):
            found += [f"{record.__name__}: {complaint}" for complaint in against[0]]
    return found
