"""Agreeing on a revision, with sides that know others than we do."""

from __future__ import annotations

import asyncio

import pytest

from dragoman import Client, PeerError, Server
from dragoman.errors import Misconfigured
from dragoman.testing import ScriptedPeer
from dragoman.transport.memory import memory_pair
from tests.requirements.duties import duty
from tests.scripted import ScriptedConnector, scripted_server
from tests.support import HANDSHAKE, run

NEWEST = HANDSHAKE[-1]


@duty("versions.answer.same", "versions.answer.other", "versions.answer.latest")
@pytest.mark.parametrize(
    ("offered", "pinned", "answered"),
    [
        *((revision, None, revision) for revision in HANDSHAKE),
        ("2023-01-01", None, NEWEST),
        ("2999-12-31", None, NEWEST),
        ("", None, NEWEST),
        ("latest é", None, NEWEST),
        ("2026-07-28", None, NEWEST),
        (NEWEST, HANDSHAKE[1], HANDSHAKE[1]),
        ("2999-12-31", HANDSHAKE[0], HANDSHAKE[0]),
    ],
)
def test_a_server_answers_with_what_was_offered_or_else_its_latest(
    offered: str, pinned: str | None, answered: str
) -> None:
    async def main() -> None:
        near, far = memory_pair()
        serving = asyncio.ensure_future(Server("s", revision=pinned).serve_link(far))
        peer = ScriptedPeer(near)
        params = {
            "protocolVersion": offered,
            "capabilities": {},
            "clientInfo": {"name": "c", "version": "1"},
        }
        peer.request(1, "initialize", params)
        answer = await peer.receive()
        assert answer["result"]["protocolVersion"] == answered
        await peer.aclose()
        await serving

    run(main())


@duty("versions.offer.supported", "versions.offer.latest")
@pytest.mark.parametrize("pinned", [None, *HANDSHAKE])
def test_a_client_offers_its_latest_or_the_one_it_is_pinned_to(pinned: str | None) -> None:
    async def main() -> None:
        connector = ScriptedConnector()
        opening = asyncio.ensure_future(Client(connector, revision=pinned).connect())
        peer = await connector.peer
        hello = await peer.welcome({})
        assert hello["params"]["protocolVersion"] == (pinned or NEWEST)
        await (await opening).aclose()

    run(main())


@pytest.mark.parametrize("revision", HANDSHAKE)
def test_an_unpinned_client_goes_along_with_any_revision_it_knows(revision: str) -> None:
    async def main() -> None:
        async with scripted_server({}, revision=revision) as (client, _):
            assert client.protocol_version == revision

    run(main())


@pytest.mark.parametrize("revision", ["2023-01-01", "2999-12-31", "2026-07-28", "x" * 1_000])
def test_a_client_leaves_a_server_whose_revision_it_does_not_know(revision: str) -> None:
    async def main() -> None:
        connector = ScriptedConnector()
        opening = asyncio.ensure_future(Client(connector).connect())
        peer = await connector.peer
        hello = await peer.expect("initialize")
        result = {
            "protocolVersion": revision,
            "capabilities": {},
            "serverInfo": {"name": "s", "version": "1"},
        }
        peer.answer(hello, result)
        with pytest.raises(PeerError, match="we speak") as parted:
            await opening
        assert len(str(parted.value)) < 300
        await peer.closed.wait()
        assert peer.waiting == 0

    run(main())


@pytest.mark.parametrize("revision", ["1999-01-01", "", "2026-07-28"])
def test_a_revision_that_cannot_be_pinned_is_refused_at_once(revision: str) -> None:
    with pytest.raises(Misconfigured, match="is not one of"):
        Server("s", revision=revision)
    with pytest.raises(Misconfigured, match="is not one of"):
        Client(Server("s"), revision=revision)
