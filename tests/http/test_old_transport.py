"""HTTP+SSE as bytes: one stream that names where to post, and everything comes on it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.http.aids import (
    JSON,
    STREAM,
    OldPeer,
    Peer,
    ask,
    call,
    initialize,
    notification,
    request,
)
from tests.http.workshop import LATEST, Workshop, looped, old_session, place_of
from tests.requirements.duties import duty
from tests.support import HANDSHAKE


@duty("http-sse.two-endpoints", "http-sse.endpoint-event", "http.old.served")
@looped
async def test_the_first_event_names_where_to_post_on_this_server() -> None:
    async with place_of(Workshop()) as place:
        stream = await ask(place, "GET", "/sse", {"Accept": STREAM})
        assert (stream.status, stream.kind) == (200, STREAM)
        assert "no-cache" in stream.headers["cache-control"]
        event = await stream.event()
        assert event is not None
        assert [name for name, _ in event.fields] == ["event", "data"]
        assert event.kind == "endpoint"
        # A path of this server: clients refuse another origin.
        assert (event.data or "").startswith("/messages")
        stream.close()


@duty("http-sse.message-events", "http-sse.two-endpoints")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_every_revision_is_spoken_and_every_answer_is_a_message_event(
    revision: str,
) -> None:
    async with old_session(revision) as (peer, _):
        answer = await peer.post(call(1, "steps", {"count": 2}, token=1))
        assert answer.status == 202
        assert b"jsonrpc" not in await answer.read()
        events = [await peer.stream.event() for _ in range(3)]
        assert all(event is not None and event.kind == "message" for event in events)
        messages = [event.message for event in events if event is not None]
        assert [m.get("method", "answer") for m in messages] == [
            "notifications/progress",
            "notifications/progress",
            "answer",
        ]
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_an_accept_of_anything_opens_the_stream() -> None:
    async with place_of(Workshop()) as place:
        for accept in (None, "*/*", "text/*", STREAM):
            stream = await ask(place, "GET", "/sse", {"Accept": accept})
            assert stream.status == 200
            stream.close()


@looped
async def test_questions_and_news_come_on_the_same_stream() -> None:
    async with old_session(capabilities={"sampling": {}}) as (peer, _):
        await peer.send(call(1, "ask_model"))
        asked = await peer.stream.message()
        assert asked["method"] == "sampling/createMessage"
        sample = {"role": "assistant", "content": {"type": "text", "text": "so"}, "model": "m"}
        await peer.send({"jsonrpc": "2.0", "id": asked["id"], "result": sample})
        assert (await peer.stream.message())["result"]["content"][0]["text"] == "so"
        await peer.send(call(2, "grow"))
        kinds = {(await peer.stream.message()).get("method", "answer") for _ in range(2)}
        assert kinds == {"answer", "notifications/tools/list_changed"}


@looped
async def test_sessions_beside_each_other_never_see_each_others_messages() -> None:
    async with place_of(Workshop()) as place:
        peers = [await OldPeer.open(place) for _ in range(5)]
        assert len({peer.endpoint for peer in peers}) == 5
        for n, peer in enumerate(peers):
            await peer.send(call(1, "add", {"a": n, "b": 0}))
        for n, peer in enumerate(peers):
            told = await peer.stream.message()
            assert told["result"]["content"][0]["text"] == str(n)
            peer.stream.close()


@duty("http.old.served")
@looped
async def test_both_transports_share_one_server() -> None:
    async with place_of(Workshop()) as place:
        old = await OldPeer.open(place, "2024-11-05")
        new = await Peer.open(place, LATEST)
        assert await new.call("grow") == "grew"
        assert (await old.stream.message())["method"] == "notifications/tools/list_changed"
        assert await old.call("grown") == "grown"
        old.stream.close()


@duty("shutdown.http")
@looped
async def test_the_session_ends_with_its_stream() -> None:
    async with old_session() as (peer, shop):
        await peer.send(call(1, "wait"))
        await shop.until_entered()
        peer.stream.abort()
        # Nobody can take the answer any more, so the work ends.
        await shop.until_left()
        other = await OldPeer.open(peer.place)
        for _ in range(100):
            answer = await peer.post(request(2, "ping"))
            await answer.read()
            if answer.status == 404:
                break
        assert answer.status == 404
        assert await other.call("add", {"a": 1, "b": 2}) == "3"
        other.stream.close()


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", JSON, 400),
        (b"", JSON, 400),
        (b"\xff", JSON, 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "text/plain", 415),
    ],
)
@looped
async def test_a_post_that_is_no_message_is_refused_at_once(
    body: bytes, kind: str, status: int
) -> None:
    async with old_session() as (peer, _):
        answer = await peer.post(body, Content_Type=kind)
        assert answer.status == status
        await answer.read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_a_post_for_no_session_or_an_unknown_one_is_refused() -> None:
    async with old_session() as (peer, _):
        path, _, query = peer.endpoint.partition("?")
        name = query.partition("=")[0]
        for target, statuses in (
            (path, {400, 404}),
            (f"{path}?{name}=", {400, 404}),
            (f"{path}?{name}=" + "0" * 32, {404}),
            (f"{path}?{name}=%C3%A9", {404}),
        ):
            stray = OldPeer(peer.place, peer.stream, target)
            answer = await stray.post(request(1, "ping"))
            assert answer.status in statuses, target
            await answer.read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@pytest.mark.parametrize(
    ("method", "target", "allowed"), [("PUT", "/sse", "GET"), ("GET", "/messages", "POST")]
)
@looped
async def test_another_method_gets_405_and_the_one_there_is(
    method: str, target: str, allowed: str
) -> None:
    async with place_of(Workshop()) as place:
        answer = await ask(place, method, target, {"Accept": STREAM})
        assert answer.status == 405
        assert allowed in answer.headers["allow"]
        await answer.read()


@looped
async def test_a_session_of_one_transport_is_none_of_the_other() -> None:
    async with place_of(Workshop()) as place:
        old = await OldPeer.open(place)
        new = await Peer.open(place, LATEST)
        name = old.endpoint.partition("=")[2]
        answer = await new.post(request(1, "ping"), mcp_session_id=name)
        assert answer.status == 404
        await answer.read()
        path = old.endpoint.partition("=")[0]
        answer = await OldPeer(place, old.stream, f"{path}={new.session}").post(request(1, "ping"))
        assert answer.status == 404
        await answer.read()
        old.stream.close()


@looped
async def test_a_request_before_initialize_is_refused_on_the_stream() -> None:
    async with place_of(Workshop()) as place:
        peer = await OldPeer.connect(place)
        await peer.send(request(1, "tools/list"))
        assert "error" in await peer.stream.message()
        await peer.send(initialize("2024-11-05", id=2))
        assert (await peer.stream.message())["id"] == 2
        peer.stream.close()


# --- what both transports owe -----------------------------------------------------------------------


def first_text(message: Any) -> str:
    return str(message["result"]["content"][0]["text"])


@looped
async def test_a_cancelled_call_is_stopped_and_gets_no_answer() -> None:
    async with old_session() as (peer, shop):
        await peer.send(call(1, "wait"))
        await shop.until_entered()
        await peer.send(notification("notifications/cancelled", {"requestId": 1}))
        await shop.until_left()
        await peer.send(call(2, "add", {"a": 1, "b": 2}))
        told = await peer.stream.message()
        assert (told["id"], first_text(told)) == (2, "3")


@looped
async def test_a_big_message_passes_both_ways() -> None:
    size = 2_000_000
    async with old_session() as (peer, _):
        text = await peer.call("letters", {"size": size})
        assert len(text) == size
        answer = await peer.post(request(9, "ping", {"_meta": {"pad": "y" * size}}))
        assert answer.status == 202
        await answer.read()
        assert (await peer.stream.message())["id"] == 9


@looped
async def test_calls_at_once_are_answered_as_they_end() -> None:
    async with old_session() as (peer, shop):
        await peer.send(call(1, "wait"))
        await peer.send(call(2, "add", {"a": 1, "b": 2}))
        assert (await peer.stream.message())["id"] == 2
        shop.gate.set()
        assert (await peer.stream.message())["id"] == 1
        await asyncio.sleep(0)


@looped
async def test_a_flood_is_held_back_until_the_client_has_read() -> None:
    # 20 MB out of a handler that waits for nothing else.
    async with old_session() as (peer, _):
        await peer.send(call(1, "fill", {"size": 20_000, "count": 1_000}))
        for _ in range(1_000):
            assert (await peer.stream.message())["method"] == "notifications/message"
        assert (await peer.stream.message())["id"] == 1
