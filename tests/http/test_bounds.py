"""What a server takes over HTTP, and what it does with more, with slow readers and with silence."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dragoman.server import http_io
from dragoman.server.http_io import HttpRefusal, read_body
from dragoman.transport.streamable.limits import HttpLimits
from tests.http.aids import (
    JSON,
    STREAM,
    Answer,
    Event,
    OldPeer,
    Peer,
    call,
    closing,
    initialize,
    notification,
    request,
    serving,
)
from tests.http.workshop import LATEST, POLLED, STREAMABLE, Workshop, looped, place_of, session
from tests.requirements.duties import duty


async def event_or_break(answer: Answer) -> Event | None:
    """The next event; None when the connection ended, however it did."""
    try:
        return await answer.event()
    except (asyncio.IncompleteReadError, ConnectionError, AssertionError, ValueError):
        answer.close()
        return None


async def statuses(peer: Peer, count: int, body: Any) -> list[int]:
    """The status of each of some POSTs in a row."""
    found = []
    for _ in range(count):
        answer = await peer.post(body)
        found.append(answer.status)
        await answer.read()
    return found


# --- sizes ------------------------------------------------------------------------------------------


@looped
async def test_a_body_over_the_limit_gets_413_however_it_is_framed() -> None:
    async with session(limits=HttpLimits(max_body_bytes=10_000)) as (peer, _):
        fits = request(1, "ping", {"_meta": {"pad": "y" * 9_000}})
        assert await statuses(peer, 1, fits) == [200]
        huge = b" " * 10_001
        answer = await peer.post(huge)
        assert answer.status == 413
        await answer.read()
        # Refused by what it says, before a byte of it came.
        answer = await peer.post(b"", content_length="1000000000000")
        assert answer.status == 413
        answer.close()
        # And with a length that only shows as it comes: refused before its end, which never comes.
        chunks = b"".join(b"3e8\r\n" + b" " * 1000 + b"\r\n" for _ in range(11))
        answer = await peer.post(chunks, transfer_encoding="chunked")
        assert answer.status == 413
        answer.close()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_a_length_of_thousands_of_digits_is_over_any_limit() -> None:
    # uvicorn lets none of these through; other servers may.
    async def receive() -> Any:
        raise AssertionError("nothing of it is wanted")

    with pytest.raises(HttpRefusal, match="413"):
        read_body(receive, b"9" * 5_000, 10_000, 1.0)


@looped
async def test_a_chunked_body_is_one_body() -> None:
    async with session() as (peer, _):
        text = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        chunks = b"".join(b"1\r\n" + text[n : n + 1] + b"\r\n" for n in range(len(text)))
        answer = await peer.post(chunks + b"0\r\n\r\n", transfer_encoding="chunked")
        assert (answer.status, (await answer.json())["result"]) == (200, {})


@looped
async def test_the_old_transport_has_the_same_limit() -> None:
    shop = Workshop()
    async with place_of(shop, limits=HttpLimits(max_body_bytes=10_000)) as place:
        peer = await OldPeer.open(place)
        answer = await peer.post(b" " * 10_001)
        assert answer.status == 413
        await answer.read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        peer.stream.close()


@looped
async def test_headers_over_the_limit_get_431() -> None:
    async with session(limits=HttpLimits(max_header_bytes=4_000)) as (peer, _):
        answer = await peer.post(request(1, "ping"), x_pad="y" * 4_000)
        assert answer.status == 431
        await answer.read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@pytest.mark.parametrize(
    "revision", [LATEST, *(pytest.param(one, marks=pytest.mark.long) for one in STREAMABLE[:-1])]
)
@looped
async def test_an_event_of_ten_megabytes_arrives(revision: str) -> None:
    size = 10_000_000
    async with session(revision) as (peer, _):
        answer = await peer.post(call(1, "fill", {"size": size, "count": 1}))
        assert answer.kind == STREAM
        log, last = await answer.messages()
        assert len(log["params"]["data"]) == size
        assert last["id"] == 1
        answer = await peer.post(call(2, "letters", {"size": size}))
        assert len((await answer.json())["result"]["content"][0]["text"]) == size


@looped
async def test_many_events_at_once_all_arrive() -> None:
    async with session() as (peer, _):
        answer = await peer.post(call(1, "fill", {"size": 50_000, "count": 200}))
        messages = await answer.messages()
        assert len(messages) == 201


# --- counts -----------------------------------------------------------------------------------------


@looped
async def test_sessions_over_the_limit_get_503_until_one_ends() -> None:
    async with place_of(Workshop(), limits=HttpLimits(max_sessions=3)) as place:
        peers = [await Peer.open(place, LATEST) for _ in range(3)]
        # Each is used: none of them gives way to a newcomer.
        streams = [await peer.get() for peer in peers]
        assert await statuses(Peer(place, LATEST), 2, initialize(LATEST)) == [503, 503]
        await (await peers[1].delete()).read()
        assert await statuses(Peer(place, LATEST), 1, initialize(LATEST)) == [200]
        assert await peers[0].call("add", {"a": 1, "b": 2}) == "3"
        with closing(*streams):
            pass


@looped
async def test_streams_over_the_limit_get_429_until_one_ends() -> None:
    async with session(limits=HttpLimits(max_streams=3)) as (peer, shop):
        held = [await peer.post(call(n, "step_and_wait", token=n)) for n in range(3)]
        assert [answer.kind for answer in held] == [STREAM] * 3
        answer = await peer.get()
        assert answer.status == 429
        await answer.read()
        shop.gate.set()
        for answer in held:
            assert (await answer.messages())[-1]["result"]
        listening = await peer.get()
        assert listening.status == 200
        listening.close()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_posts_that_wait_over_the_limit_get_429_until_one_is_answered() -> None:
    async with session(limits=HttpLimits(max_waiting=3)) as (peer, shop):
        held = [asyncio.ensure_future(peer.post(call(n, "wait"))) for n in range(3)]
        await shop.until_entered(3)
        assert await statuses(peer, 2, request(9, "ping")) == [429, 429]
        # What asks nothing is heard all the same: it may be what ends the others.
        await peer.notify("notifications/cancelled", {"requestId": 0})
        await shop.until_left()
        shop.gate.set()
        for waiting in held:
            await (await waiting).read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


# --- time -------------------------------------------------------------------------------------------


@duty("http.answer")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_an_answer_that_takes_long_becomes_a_stream(revision: str) -> None:
    async with session(revision, limits=HttpLimits(long_wait_s=0.01)) as (peer, shop):
        answer = await peer.post(call(1, "wait"))
        assert (answer.status, answer.kind) == (200, STREAM)
        shop.gate.set()
        (last,) = await answer.messages()
        assert last["result"]["content"][0]["text"] == "waited"


@pytest.mark.parametrize("where", ["post", "get", "old"])
@looped
async def test_a_silent_stream_shows_that_it_lives(where: str) -> None:
    limits = HttpLimits(long_wait_s=0.01, keep_alive_s=0.01)
    async with session(STREAMABLE[0], limits=limits) as (peer, shop):
        if where == "post":
            stream = await peer.post(call(1, "wait"))
        elif where == "get":
            stream = await peer.get()
        else:
            stream = (await OldPeer.open(peer.place)).stream
        for _ in range(3):
            await stream.comment()
        shop.gate.set()
        if where == "post":
            assert [m["id"] for m in await stream.messages()] == [1]
        stream.close()


@looped
async def test_a_session_that_nobody_uses_ends() -> None:
    # 0.2 s: long enough to open a stream in it, on a busy machine.
    async with session(limits=HttpLimits(idle_s=0.2)) as (peer, _):
        used = await Peer.open(peer.place, LATEST)
        stream = await used.get()
        pause_s = 0.4
        while (status := (await statuses(peer, 1, request(1, "ping")))[0]) == 200:
            # Asking uses it, so the next pause is longer.
            await asyncio.sleep(pause_s)
            pause_s *= 2
        assert status == 404
        # One with an open stream is in use, however silent.
        assert await used.call("add", {"a": 1, "b": 2}) == "3"
        stream.close()


@looped
async def test_a_call_that_takes_longer_than_a_session_may_idle_is_answered() -> None:
    async with session(limits=HttpLimits(idle_s=0.3)) as (peer, shop):
        waiting = asyncio.ensure_future(peer.post(call(1, "wait")))
        await shop.until_entered()
        await asyncio.sleep(0.5)
        shop.gate.set()
        answer = await waiting
        told = await answer.json() if answer.kind == JSON else (await answer.messages())[-1]
        assert told["result"]["content"][0]["text"] == "waited"


# --- slow readers and gone ones ---------------------------------------------------------------------


@pytest.mark.parametrize("revision", [STREAMABLE[0], LATEST])
@looped
async def test_a_reader_that_reads_nothing_holds_up_nobody_and_misses_nothing(
    revision: str,
) -> None:
    async with session(revision) as (slow, _):
        quick = await Peer.open(slow.place, revision)
        # 20 MB: far more than the buffers of both sockets hold.
        answer = await slow.post(call(1, "fill", {"size": 20_000, "count": 1_000}))
        for n in range(50):
            assert await quick.call("add", {"a": n, "b": 1}) == str(n + 1)
        assert await slow.call("add", {"a": 1, "b": 2}) == "3"
        assert len(await answer.messages()) == 1_001


@looped
async def test_an_old_client_that_reads_nothing_is_given_up() -> None:
    limits = HttpLimits(max_unread_bytes=200_000)
    async with place_of(Workshop(), limits=limits) as place:
        slow, quick = await OldPeer.open(place), await OldPeer.open(place)
        await slow.send(call(1, "fill", {"size": 20_000, "count": 2_000}))
        for n in range(50):
            assert await quick.call("add", {"a": n, "b": 1}) == str(n + 1)
        quick.stream.close()
        slow.stream.abort()


@looped
async def test_work_ends_when_nobody_can_take_its_answer() -> None:
    # No event was sent, so there is none to come back by.
    async with session(STREAMABLE[0], limits=HttpLimits(long_wait_s=0.02)) as (peer, shop):
        waiting = asyncio.ensure_future(peer.post(call(1, "wait")))
        await shop.until_entered()
        waiting.cancel()
        await shop.until_left()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@duty("http.disconnect.no-cancel")
@looped
async def test_a_client_that_left_a_long_call_finds_its_answer_later() -> None:
    async with session(POLLED, limits=HttpLimits(long_wait_s=0.01)) as (peer, shop):
        answer = await peer.post(call(1, "wait"))
        event = await answer.event()
        assert event is not None
        answer.abort()
        for _ in range(3):
            assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        assert shop.left == 0
        shop.gate.set()
        (last,) = await (await peer.get(last=event.id)).messages()
        assert last["result"]["content"][0]["text"] == "waited"


@looped
async def test_notifications_from_everywhere_at_once_are_all_taken() -> None:
    async with session() as (peer, _):
        answers = await asyncio.gather(
            *(peer.post(notification("notifications/x", {"n": n})) for n in range(200))
        )
        assert {answer.status for answer in answers} == {202}
        for answer in answers:
            await answer.read()


@looped
async def test_a_body_that_stops_coming_gets_408() -> None:
    async with session(limits=HttpLimits(body_s=0.05)) as (peer, _):
        answer = await peer.post(b'{"jsonrpc"', content_length="100")
        assert answer.status == 408
        answer.close()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_less_is_taken_from_whoever_has_no_session_yet() -> None:
    shop = Workshop()
    async with place_of(shop, limits=HttpLimits(max_hello_bytes=1_000)) as place:
        peer = await Peer.open(place, LATEST)
        hello = initialize(LATEST)
        hello["params"]["_meta"] = {"pad": "y" * 1_000}
        for body in (hello, b" " * 1_001):
            answer = await Peer(place, LATEST).post(body)
            assert answer.status == 413
            await answer.read()
        answer = await peer.post(request(1, "ping", {"_meta": {"pad": "y" * 1_000}}))
        assert answer.status == 200
        await answer.read()


@pytest.mark.parametrize("transport", ["streamable", "sse"])
@looped
async def test_a_reader_that_takes_nothing_at_all_is_given_up(
    transport: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "dragoman.server")
    monkeypatch.setattr(http_io, "WRITE_S", 0.05)
    app = Workshop().server.asgi()
    async with serving(app) as place:
        quick = await Peer.open(place, LATEST)
        flood = call(1, "fill", {"size": 20_000, "count": 1_000})
        if transport == "streamable":
            answer = await (await Peer.open(place, LATEST)).post(flood)
        else:
            old = await OldPeer.open(place)
            await old.send(flood)
            answer = old.stream
        # A session of the old transport ends with its stream; the other is there to come back to.
        while "was given up" not in caplog.text if transport == "streamable" else app.sessions > 1:
            assert await quick.call("add", {"a": 1, "b": 2}) == "3"
        seen: list[Any] = []
        # What was on its way already still comes, and then the connection ends.
        while (event := await event_or_break(answer)) is not None:
            seen += [event.message] if event.data else []
        assert not any("result" in message for message in seen)
