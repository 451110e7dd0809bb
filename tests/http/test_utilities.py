"""What every transport must carry, over both HTTP transports: pages, log levels, roots, progress.

The other revisions and links are in tests/test_matrix.py; here the bytes are looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.http.aids import STREAM, OldPeer, Peer, call, notification, request
from tests.http.workshop import LATEST, Workshop, looped, place_of
from tests.requirements.duties import duty
from tests.support import HANDSHAKE

TRANSPORTS = ("streamable", "sse")
ROOTS = {"roots": {"listChanged": True}}


@asynccontextmanager
async def connected(
    transport: str, shop: Workshop, revision: str, capabilities: Any = None
) -> AsyncIterator[Peer | OldPeer]:
    async with place_of(shop) as place:
        if transport == "streamable":
            yield await Peer.open(place, revision, capabilities)
        else:
            peer = await OldPeer.open(place, revision, capabilities)
            yield peer
            peer.stream.close()


async def exchange(peer: Peer | OldPeer, body: Any, answers: Any = None) -> list[Any]:
    """Send a request; every message up to its answer. `answers` are results for questions."""
    found: list[Any] = []
    if isinstance(peer, OldPeer):
        await peer.send(body)
        stream = peer.stream
    else:
        answer = await peer.post(body)
        if answer.kind != STREAM:
            return [await answer.json()]
        stream = answer
    while True:
        message = await stream.message()
        assert message is not None
        found.append(message)
        if message.get("id") == body["id"] and "method" not in message:
            break
        if "id" in message:
            reply = {"jsonrpc": "2.0", "id": message["id"], "result": answers}
            if isinstance(peer, OldPeer):
                await peer.send(reply)
            else:
                accepted = await peer.post(reply)
                assert (accepted.status, await accepted.read()) == (202, b"")
    if not isinstance(peer, OldPeer):
        stream.close()
    return found


@duty("pagination.after-cursor", "pagination.bad-cursor", "pagination.end")
@pytest.mark.parametrize("revision", [HANDSHAKE[0], LATEST])
@pytest.mark.parametrize("transport", TRANSPORTS)
@looped
async def test_pages_join_to_the_whole_list_and_a_strange_cursor_is_refused(
    transport: str, revision: str
) -> None:
    async with connected(transport, Workshop(page_size=3), revision) as peer:
        names: list[str] = []
        params: dict[str, Any] = {}
        pages = 0
        while True:
            (told,) = await exchange(peer, request(pages + 1, "tools/list", params))
            names += [tool["name"] for tool in told["result"]["tools"]]
            pages += 1
            if "nextCursor" not in told["result"]:
                break
            assert len(told["result"]["tools"]) == 3
            params = {"cursor": told["result"]["nextCursor"]}
        assert len(names) == len(set(names)) > 6
        assert {"add", "grow", "wait"} <= set(names)
        (told,) = await exchange(peer, request(99, "tools/list", {"cursor": "no such place"}))
        assert told["error"]["code"] == -32602


@duty("logging.threshold", "logging.set-level")
@pytest.mark.parametrize("revision", [HANDSHAKE[0], LATEST])
@pytest.mark.parametrize("transport", TRANSPORTS)
@looped
async def test_only_log_messages_of_the_level_asked_for_come(transport: str, revision: str) -> None:
    async with connected(transport, Workshop(), revision) as peer:
        (told,) = await exchange(peer, request(1, "logging/setLevel", {"level": "error"}))
        assert told["result"] == {}
        quiet = await exchange(peer, call(2, "say", {"level": "warning", "text": "quiet"}))
        assert [m.get("method") for m in quiet] == [None]
        loud = await exchange(peer, call(3, "say", {"level": "error", "text": "loud"}))
        assert [m.get("method") for m in loud] == ["notifications/message", None]
        assert (loud[0]["params"]["level"], loud[0]["params"]["data"]) == ("error", "loud")
        (told,) = await exchange(peer, request(4, "logging/setLevel", {"level": "debug"}))
        quiet = await exchange(peer, call(5, "say", {"level": "debug", "text": "quiet"}))
        assert [m.get("method") for m in quiet] == ["notifications/message", None]


@looped
async def test_the_log_level_is_each_sessions_own() -> None:
    shop = Workshop()
    async with place_of(shop) as place:
        loud, quiet = [await Peer.open(place, LATEST) for _ in range(2)]
        await loud.request("logging/setLevel", {"level": "debug"})
        await quiet.request("logging/setLevel", {"level": "error"})
        for peer, count in ((loud, 2), (quiet, 1)):
            found = await exchange(peer, call("x", "say", {"level": "info", "text": "t"}))
            assert len(found) == count


@duty("roots.changes-handled")
@pytest.mark.parametrize("revision", [HANDSHAKE[0], LATEST])
@pytest.mark.parametrize("transport", TRANSPORTS)
@looped
async def test_roots_are_asked_for_and_asked_again_once_they_changed(
    transport: str, revision: str
) -> None:
    async with connected(transport, Workshop(), revision, ROOTS) as peer:
        for number, root in enumerate(("file:///srv/one", "file:///srv/two")):
            found = await exchange(peer, call(number, "folders"), {"roots": [{"uri": root}]})
            assert [m.get("method") for m in found] == ["roots/list", None]
            assert root in str(found[-1]["result"]["content"])
            changed = notification("notifications/roots/list_changed")
            if isinstance(peer, OldPeer):
                await peer.send(changed)
            else:
                await (await peer.post(changed)).read()


@duty("roots.capability-checked")
@pytest.mark.parametrize("revision", [HANDSHAKE[0], LATEST])
@pytest.mark.parametrize("transport", TRANSPORTS)
@looped
async def test_a_client_without_roots_is_never_asked(transport: str, revision: str) -> None:
    async with connected(transport, Workshop(), revision) as peer:
        (told,) = await exchange(peer, call(1, "folders"))
        assert told["result"]["isError"]


@pytest.mark.parametrize("token", ["t", 7, 0, ""])
@pytest.mark.parametrize("transport", TRANSPORTS)
@looped
async def test_progress_carries_the_token_as_it_was_given(transport: str, token: Any) -> None:
    async with connected(transport, Workshop(), LATEST) as peer:
        found = await exchange(peer, call(1, "steps", {"count": 2}, token=token))
        tokens = [m["params"]["progressToken"] for m in found[:-1]]
        assert tokens == [token, token]
        assert [type(one) for one in tokens] == [type(token)] * 2


@pytest.mark.parametrize("transport", TRANSPORTS)
@looped
async def test_ids_come_back_as_they_were_sent(transport: str) -> None:
    async with connected(transport, Workshop(), LATEST) as peer:
        for ident in (1, "1", 0, -5, 2**53 - 1, "", "ä", "a" * 200):
            (told,) = await exchange(peer, request(ident, "ping"))
            assert told == {"jsonrpc": "2.0", "id": ident, "result": {}}
            assert type(told["id"]) is type(ident)
