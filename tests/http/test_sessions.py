"""Sessions over Streamable HTTP: their ids, their owners, how they begin and end."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import tracemalloc
from collections import Counter
from typing import Any

import pytest

from dragoman.jsonrpc.frame import Principal
from dragoman.protocol.engine import Engine
from dragoman.runtime.driver import Driver
from dragoman.transport.streamable.limits import HttpLimits
from tests.http.aids import OldPeer, Peer, call, initialize, request, serving
from tests.http.workshop import LATEST, STREAMABLE, Workshop, looped, place_of, session
from tests.requirements.duties import duty


@duty("http.session.visible", "http.session.secure")
@looped
async def test_session_ids_are_visible_long_and_never_alike() -> None:
    async with place_of(Workshop()) as place:
        ids = []
        for _ in range(100):
            answer = await Peer(place, LATEST).post(initialize(LATEST))
            await answer.read()
            ids.append(answer.headers["mcp-session-id"])
    assert len(set(ids)) == 100
    for one in ids:
        # 128 bits in base 64 are 22 characters.
        assert len(one) >= 22
        assert all(0x21 <= ord(character) <= 0x7E for character in one)
    # Nothing that counts or tells the time: at every place where ids differ at all there are many
    # different characters.
    shortest = min(map(len, ids))
    varied = [len(Counter(one[place] for one in ids)) for place in range(shortest)]
    assert sum(count >= 8 for count in varied) >= 22


@looped
async def test_sessions_know_nothing_of_each_other() -> None:
    shop = Workshop()
    async with place_of(shop) as place:
        first = await Peer.open(place, LATEST)
        second = await Peer.open(place, LATEST)
        assert first.session != second.session
        # The same request ids at the same time, and a cancellation that names one of them.
        held = [asyncio.ensure_future(peer.call("wait")) for peer in (first, second)]
        await shop.until_entered(2)
        await first.notify("notifications/cancelled", {"requestId": 1000})
        await shop.until_left()
        shop.gate.set()
        assert await held[1] == "waited"
        await asyncio.wait({held[0]})
        held[0].exception()
        assert shop.left == 1
        await (await first.delete()).read()
        assert await second.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_each_session_keeps_its_own_revision() -> None:
    async with place_of(Workshop()) as place:
        peers = [await Peer.open(place, revision) for revision in STREAMABLE]
        for peer in peers:
            tools = (await peer.request("tools/list"))["result"]["tools"]
            assert ("outputSchema" in tools[0]) is (peer.revision >= STREAMABLE[1])


@duty("http.session.gone")
@looped
async def test_the_end_of_a_session_ends_what_runs_in_it_and_its_streams() -> None:
    async with session() as (peer, shop):
        listening = await peer.get()
        assert listening.status == 200
        waiting = asyncio.ensure_future(peer.post(request(1, "tools/call", {"name": "wait"})))
        await shop.until_entered()
        await (await peer.delete()).read()
        await shop.until_left()
        assert await listening.messages() == []
        answer = await waiting
        # No result can come any more; whatever the form, the exchange is over.
        assert b'"result"' not in await answer.read()


@duty("http.session.no-authentication", "http.session.owner")
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
@looped
async def test_a_session_of_somebody_else_is_unknown(method: str) -> None:
    def identify(scope: Any) -> Principal:
        return Principal(dict(scope["headers"])[b"x-user"].decode(), "test")

    async with place_of(Workshop(), identify=identify) as place:
        ada = await Peer.open(place, LATEST, extra={"X-User": "ada"})
        bob = Peer(place, LATEST, session=ada.session, extra={"X-User": "bob"})
        if method == "POST":
            answer = await bob.post(request(1, "ping"))
        else:
            answer = await (bob.get() if method == "GET" else bob.delete())
        assert answer.status == 404
        await answer.read()
        assert await ada.call("add", {"a": 1, "b": 2}) == "3"


@duty("http.session.owner")
@looped
async def test_who_it_is_is_asked_of_each_request_of_a_session() -> None:
    def identify(scope: Any) -> Principal | None:
        token = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        return Principal(token.decode(), "test") if token in (b"ada", b"bob") else None

    async with place_of(Workshop(), identify=identify) as place:
        ada = await Peer.open(place, LATEST, extra={"Authorization": "Bearer ada"})
        for token, status in (("Bearer bob", 404), ("Bearer eve", 401), (None, 401)):
            # Nothing else differs from what was found good a moment ago.
            assert await ada.call("add", {"a": 1, "b": 2}) == "3"
            answer = await ada.post(request(1, "ping"), authorization=token)
            assert answer.status == status
            await answer.read()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": None}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"accept": "application/json"}, 406),
        ({"accept": "text/event-stream"}, 406),
        ({"content_type": "text/plain"}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"mcp_protocol_version": "1999-01-01"}, 400),
        ({"mcp_session_id": "0" * 64}, 404),
        ({"mcp_session_id": None}, 400),
        ({"x_more": "m" * 40_000}, 431),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
@looped
async def test_what_was_found_good_of_a_session_lets_nothing_else_pass(
    changes: dict[str, str | None], status: int
) -> None:
    async with place_of(Workshop()) as place:
        peer = await Peer.open(place, LATEST)
        for _ in range(2):
            assert await peer.call("add", {"a": 1, "b": 2}) == "3"
            answer = await peer.post(request(1, "ping"), **changes)
            assert answer.status == status
            await answer.read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_many_long_headers_are_served_and_not_kept() -> None:
    app = Workshop().server.asgi(identify=lambda scope: Principal("ada", "test"))
    async with serving(app) as place:
        tracemalloc.start()
        try:
            peers = [await Peer.open(place, LATEST) for _ in range(20)]
            before = tracemalloc.get_traced_memory()[0]
            for peer in peers:
                answer = await peer.post(request(1, "ping"), x_more="m" * 30_000)
                assert answer.status == 200
                await answer.read()
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        # Kept, they would be 600,000 bytes.
        assert grown < 300_000


@looped
async def test_a_token_counts_as_part_of_the_headers_in_a_session_too() -> None:
    limits = HttpLimits(max_header_bytes=1000)
    async with place_of(Workshop(), limits=limits) as place:
        peer = await Peer.open(place, LATEST, extra={"Authorization": "short"})
        for size, status in ((400, 200), (990, 431), (401, 200)):
            answer = await peer.post(request(size, "ping"), authorization="t" * size)
            assert answer.status == status
            await answer.read()


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@looped
async def test_a_session_is_the_same_under_each_parser(http: str, loop: str) -> None:
    shop = Workshop()
    async with serving(shop.server.asgi(), http=http, loop=loop) as place:
        peer = await Peer.open(place, LATEST)
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        answer = await peer.post(
            request(
                9,
                "tools/call",
                {"name": "steps", "arguments": {"count": 2}, "_meta": {"progressToken": 9}},
            )
        )
        assert [m.get("method", "answer") for m in await answer.messages()] == [
            "notifications/progress",
            "notifications/progress",
            "answer",
        ]
        listening = await peer.get()
        await (await peer.delete()).read()
        assert await listening.messages() == []


@looped
async def test_a_session_over_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Workshop().server.asgi(), uds=f"{folder}/s") as place:
            peer = await Peer.open(place, LATEST)
            assert await peer.call("add", {"a": 1, "b": 2}) == "3"
            await (await peer.delete()).read()


def alive(kind: type) -> int:
    """How many objects of a class there are."""
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


@looped
async def test_sessions_that_ended_leave_nothing_behind() -> None:
    shop = Workshop()
    shop.gate.set()
    app = shop.server.asgi()
    async with serving(app) as place:
        before = alive(Engine), alive(Driver), len(asyncio.all_tasks())
        for _ in range(20):
            peer = await Peer.open(place, LATEST)
            listening = await peer.get()
            answer = await peer.post(call(1, "step_and_wait", token=1))
            await answer.messages()
            await (await peer.delete()).read()
            assert await listening.messages() == []
            old = await OldPeer.open(place)
            assert await old.call("add", {"a": 1, "b": 2}) == "3"
            old.stream.abort()
        while app.sessions:
            await asyncio.sleep(0)
        place.leave()
        for _ in range(100):
            if (alive(Engine), alive(Driver), len(asyncio.all_tasks())) <= before:
                break
            await asyncio.sleep(0.01)
        assert (alive(Engine), alive(Driver), len(asyncio.all_tasks())) <= before
