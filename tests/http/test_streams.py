"""Event streams of Streamable HTTP: when there is one, what it brings, and what it never brings."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.http.aids import (
    BOTH,
    JSON,
    STREAM,
    Answer,
    Peer,
    bare,
    call,
    notification,
    request,
    serving,
)
from tests.http.workshop import POLLED, STREAMABLE, Workshop, looped, session
from tests.requirements.duties import duty
from tests.support import HANDSHAKE


def kinds(messages: list[Any]) -> list[str]:
    return [message.get("method", "answer") for message in messages]


async def listen(peer: Peer) -> Answer:
    """Open the GET stream, past its empty event."""
    listening = await peer.get()
    assert (listening.status, listening.kind) == (200, STREAM)
    if peer.revision >= POLLED:
        event = await listening.event()
        assert event is not None
        assert event.data == ""
    return listening


# --- JSON or a stream -------------------------------------------------------------------------------


@duty("http.answer")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_a_handler_that_only_answers_is_answered_in_json(revision: str) -> None:
    async with session(revision) as (peer, _):
        for body in (
            request(1, "ping"),
            request(2, "tools/list"),
            call(3, "add", {"a": 1, "b": 2}),
            # Nobody asked for progress, so none is sent.
            call(4, "steps", {"count": 3}),
        ):
            answer = await peer.post(body)
            assert (answer.status, answer.kind) == (200, JSON)
            assert (await answer.json())["id"] == body["id"]


@duty("http.answer", "http.stream.answers", "http.stream.related", "http.stream.closes")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_a_handler_that_reports_gets_a_stream_that_ends_with_the_answer(
    revision: str,
) -> None:
    async with session(revision) as (peer, _):
        answer = await peer.post(call(1, "steps", {"count": 3}, token="t"))
        assert (answer.status, answer.kind) == (200, STREAM)
        assert "no-cache" in answer.headers["cache-control"]
        messages = await answer.messages()
        assert kinds(messages) == ["notifications/progress"] * 3 + ["answer"]
        assert [m["params"]["progress"] for m in messages[:3]] == [1, 2, 3]
        assert {m["params"]["progressToken"] for m in messages[:3]} == {"t"}
        assert messages[3]["id"] == 1


@duty("http.stream.answers", "http.stream.related")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_calls_at_once_each_have_their_own_stream(revision: str) -> None:
    async with session(revision) as (peer, shop):
        answers = [
            await peer.post(call(n, "step_and_wait", {"name": str(n)}, token=n)) for n in range(5)
        ]
        await shop.until_entered(5)
        shop.gate.set()
        for n, answer in enumerate(answers):
            messages = await answer.messages()
            assert kinds(messages) == ["notifications/progress"] * 3 + ["answer"]
            assert {m["params"]["progressToken"] for m in messages[:3]} == {n}
            assert messages[3]["id"] == n


@duty("http.stream.primed")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_a_stream_begins_with_an_empty_event_where_the_revision_knows_it(
    revision: str,
) -> None:
    async with session(revision) as (peer, _):
        posted = await (await peer.post(call(1, "steps", {"count": 1}, token=1))).events()
        listening = await peer.get()
        if revision >= POLLED:
            first = await listening.event()
            for event in (posted[0], first):
                assert event is not None
                assert event.id
                assert event.data == ""
            posted = posted[1:]
        # An older client would take an event without a message for a broken message.
        assert all(event.message for event in posted)
        await (await peer.delete()).read()
        assert await listening.events() == []


@duty("http.events.ids", "http.events.unique", "http.events.per-stream", "http.events.name-stream")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_every_event_has_an_id_that_no_other_of_the_session_has(revision: str) -> None:
    async with session(revision) as (peer, _):
        streams = []
        for n in range(3):
            answer = await peer.post(call(n, "steps", {"count": 3}, token=n))
            streams.append(await answer.events())
        listening = await peer.get()
        await peer.call("grow")
        await (await peer.delete()).read()
        streams.append(await listening.events())
        ids = [event.id for stream in streams for event in stream]
        assert len(ids) >= 13
        assert all(ids)
        assert len(set(ids)) == len(ids)


# --- the GET stream ---------------------------------------------------------------------------------


@duty("http.get.answer", "http.get.unrelated", "http.get.no-responses", "http.one-stream")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_the_get_stream_brings_what_belongs_to_no_request_and_nothing_else(
    revision: str,
) -> None:
    async with session(revision) as (peer, _):
        listening = await listen(peer)
        answer = await peer.post(call(1, "steps", {"count": 2}, token=1))
        assert kinds(await answer.messages()) == ["notifications/progress"] * 2 + ["answer"]
        answer = await peer.post(call(2, "grow"))
        told = [await answer.json()] if answer.kind == JSON else await answer.messages()
        assert kinds(told) == ["answer"]
        assert (await listening.message())["method"] == "notifications/tools/list_changed"
        await (await peer.delete()).read()
        assert await listening.messages() == []


@duty("http.one-stream")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_news_goes_to_one_of_several_streams(revision: str) -> None:
    async with session(revision) as (peer, shop):
        answers = [await peer.get() for _ in range(3)]
        listening = [answer for answer in answers if answer.status == 200]
        held = await peer.post(call(1, "step_and_wait", token=1))
        assert listening
        for _ in range(4):
            await peer.call("grow")
        shop.gate.set()
        assert kinds(await held.messages()) == ["notifications/progress"] * 3 + ["answer"]
        await (await peer.delete()).read()
        news = [message for answer in listening for message in await answer.messages()]
        assert kinds(news) == ["notifications/tools/list_changed"] * 4
        for answer in answers:
            answer.close()


@duty("http.one-stream")
@looped
async def test_each_session_hears_news_once() -> None:
    async with session() as (first, shop):
        second = await Peer.open(first.place, first.revision)
        streams = [await listen(first), await listen(second)]
        await first.call("grow")
        shop.server.notify_resource_updated("note:a")
        await (await first.delete()).read()
        await (await second.delete()).read()
        for stream in streams:
            assert kinds(await stream.messages()) == ["notifications/tools/list_changed"]


@looped
async def test_a_get_stream_that_was_closed_can_be_opened_again() -> None:
    async with session() as (peer, _):
        for _ in range(3):
            listening = await listen(peer)
            listening.abort()
        listening = await listen(peer)
        await peer.call("grow")
        assert (await listening.message())["method"] == "notifications/tools/list_changed"
        listening.close()


# --- requests of the server -------------------------------------------------------------------------

SAMPLE = {"role": "assistant", "content": {"type": "text", "text": "so"}, "model": "m"}


@duty("http.accepted", "http.stream.related", "http.one-stream")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_what_a_handler_asks_comes_on_its_own_stream_and_is_answered_by_a_post(
    revision: str,
) -> None:
    async with session(revision, {"sampling": {}}) as (peer, _):
        listening = await listen(peer)
        answer = await peer.post(call(1, "ask_model"))
        asked = await answer.message()
        assert asked["method"] == "sampling/createMessage"
        told = {"jsonrpc": "2.0", "id": asked["id"], "result": SAMPLE}
        accepted = await peer.post(told)
        assert (accepted.status, await accepted.read()) == (202, b"")
        # The second is nobody's any more.
        again = await peer.post(told)
        assert (again.status, await again.read()) == (202, b"")
        (last,) = await answer.messages()
        assert last["id"] == 1
        assert last["result"]["content"][0]["text"] == "so"
        await (await peer.delete()).read()
        assert await listening.messages() == []


@looped
async def test_a_response_with_an_error_reaches_the_handler() -> None:
    async with session(capabilities={"sampling": {}}) as (peer, _):
        answer = await peer.post(call(1, "ask_model"))
        asked = await answer.message()
        error = {"code": -1, "message": "the user said no"}
        accepted = await peer.post({"jsonrpc": "2.0", "id": asked["id"], "error": error})
        assert accepted.status == 202
        await accepted.read()
        (last,) = await answer.messages()
        assert last["result"]["isError"]


@looped
async def test_an_answer_from_another_session_is_not_taken() -> None:
    async with session(capabilities={"sampling": {}}) as (peer, _):
        thief = await Peer.open(peer.place, peer.revision, {"sampling": {}})
        answer = await peer.post(call(1, "ask_model"))
        asked = await answer.message()
        told = {"jsonrpc": "2.0", "id": asked["id"], "result": SAMPLE}
        stolen = {**SAMPLE, "content": {"type": "text", "text": "stolen"}}
        await (await thief.post({**told, "result": stolen})).read()
        await (await peer.post(told)).read()
        (last,) = await answer.messages()
        assert last["result"]["content"][0]["text"] == "so"


# --- duplicates and cancellation --------------------------------------------------------------------


@duty("jsonrpc.id.reused-refused")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_an_id_in_use_is_refused_and_the_first_request_goes_on(revision: str) -> None:
    async with session(revision) as (peer, shop):
        first = asyncio.ensure_future(peer.post(call(1, "wait")))
        await shop.until_entered()
        second = await peer.post(call(1, "add", {"a": 1, "b": 2}))
        body = await second.read()
        assert b"-32600" in body
        assert b'"result"' not in body
        shop.gate.set()
        told = await (await first).json()
        assert (told["id"], told["result"]["content"][0]["text"]) == (1, "waited")


@duty("calls.cancel.stops")
@pytest.mark.parametrize("tool", ["wait", "step_and_wait"])
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_a_cancelled_request_ends_without_an_answer(revision: str, tool: str) -> None:
    async with session(revision) as (peer, shop):
        waiting = asyncio.ensure_future(peer.post(call(1, tool, token=1)))
        await shop.until_entered()
        answer = await peer.post(notification("notifications/cancelled", {"requestId": 1}))
        assert (answer.status, await answer.read()) == (202, b"")
        await shop.until_left()
        held = await waiting
        body = await held.read()
        assert b'"result"' not in body
        assert b'"error"' not in body
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        shop.gate.set()


# --- a connection that breaks -----------------------------------------------------------------------


@duty("http.disconnect.no-cancel", "http.resume.replay", "http.get.no-responses")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_a_stream_that_breaks_cancels_nothing_and_can_be_taken_up_again(
    revision: str,
) -> None:
    async with session(revision) as (peer, shop):
        answer = await peer.post(call(1, "step_and_wait", token=1))
        event = await answer.event()
        while event is not None and not event.data:
            event = await answer.event()
        assert event is not None
        answer.abort()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        assert shop.left == 0
        resumed = await peer.get(last=event.id)
        assert (resumed.status, resumed.kind) == (200, STREAM)
        shop.gate.set()
        messages = await resumed.messages()
        assert kinds(messages) == ["notifications/progress"] * 2 + ["answer"]
        assert [m["params"]["progress"] for m in messages[:2]] == [2, 3]
        assert messages[-1]["id"] == 1


@looped
async def test_a_client_that_closes_its_side_of_json_costs_nobody_else() -> None:
    async with session() as (peer, shop):
        reader, writer = await peer.place.connect()
        writer.write(b"POST /mcp HTTP/1.1\r\nHost: " + peer.place.host.encode() + b"\r\n")
        writer.write(b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        assert shop.left == 0
        del reader


@looped
async def test_many_requests_follow_each_other_on_one_connection() -> None:
    async with session() as (peer, _):
        reader, writer = await peer.place.connect()
        for n in range(20):
            writer.write(posted(peer, call(n, "add", {"a": n, "b": 1})))
            head = await reader.readuntil(b"\r\n\r\n")
            answer = Answer(reader, writer, head[:-4])
            assert answer.status == 200
            text = await reader.readexactly(int(answer.headers["content-length"]))
            assert json.loads(text)["result"]["content"][0]["text"] == str(n + 1)


@pytest.mark.parametrize("http", ["h11", "httptools"])
@looped
async def test_requests_sent_before_the_answers_came_are_answered_in_order(http: str) -> None:
    async with serving(Workshop().server.asgi(), http=http) as place:
        peer = await Peer.open(place, HANDSHAKE[1])
        reader, writer = await place.connect()
        bodies = [call(1, "steps", {"count": 2}, token=1), call(2, "add", {"a": 1, "b": 2})]
        for body in bodies:
            writer.write(posted(peer, body))
        first = Answer(reader, writer, (await reader.readuntil(b"\r\n\r\n"))[:-4])
        assert [await first.message() for _ in range(3)][-1]["id"] == 1
        await reader.readuntil(b"0\r\n\r\n")
        second = Answer(reader, writer, (await reader.readuntil(b"\r\n\r\n"))[:-4])
        assert (await second.json())["id"] == 2


@looped
async def test_a_client_that_knows_no_chunks_gets_a_stream_that_ends_with_its_connection() -> None:
    # uvicorn sends chunks to such a client all the same when it parses with httptools.
    async with serving(Workshop().server.asgi(), http="h11") as place:
        peer = await Peer.open(place, HANDSHAKE[1])
        reader, writer = await place.connect()
        body = posted(peer, call(1, "steps", {"count": 2}, token=1))
        writer.write(body.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"))
        answer = Answer(reader, writer, (await reader.readuntil(b"\r\n\r\n"))[:-4])
        assert "transfer-encoding" not in answer.headers
        assert kinds(await answer.messages()) == ["notifications/progress"] * 2 + ["answer"]


def posted(peer: Peer, body: Any) -> bytes:
    """A POST of a session as bytes."""
    fixed = [
        ("Host", peer.place.host),
        ("Content-Type", JSON),
        ("Accept", BOTH),
        ("Mcp-Session-Id", peer.session or ""),
    ]
    return bare("POST", "/mcp", fixed, json.dumps(body).encode())
