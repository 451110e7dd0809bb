"""Arrays of messages in a POST: taken where the revision has them, refused where it has not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dragoman.protocol.limits import Limits
from tests.http.aids import (
    JSON,
    STREAM,
    Answer,
    OldPeer,
    Peer,
    call,
    initialize,
    notification,
    request,
)
from tests.http.workshop import LATEST, Workshop, looped, place_of, session
from tests.requirements.duties import duty
from tests.support import HANDSHAKE

BATCHES = HANDSHAKE[1]


def flat(messages: list[Any]) -> list[Any]:
    """Messages one by one, whether they came in arrays or not."""
    return [one for m in messages for one in (m if isinstance(m, list) else [m])]


async def told(answer: Answer) -> list[Any]:
    """What an answer brings, whichever form it takes."""
    if answer.kind == STREAM:
        return flat(await answer.messages())
    return flat([await answer.json()])


@duty("jsonrpc.batch.received", "http.answer", "http.stream.answers")
@looped
async def test_an_array_of_requests_gets_an_answer_to_each() -> None:
    async with session(BATCHES) as (peer, _):
        answer = await peer.post([call(n, "add", {"a": n, "b": 1}) for n in range(20)])
        assert answer.status == 200
        messages = await told(answer)
        texts = {m["id"]: m["result"]["content"][0]["text"] for m in messages}
        assert texts == {n: str(n + 1) for n in range(20)}
        assert len(messages) == 20


@duty("jsonrpc.batch.answers", "http.accepted")
@looped
async def test_an_array_of_notifications_gets_202_and_no_body() -> None:
    async with session(BATCHES) as (peer, _):
        answer = await peer.post([notification("notifications/x"), notification("notifications/y")])
        assert (answer.status, await answer.read()) == (202, b"")


@duty("jsonrpc.batch.received", "http.accepted")
@looped
async def test_an_array_of_responses_gets_202_and_answers_each_question() -> None:
    async with session(BATCHES, {"sampling": {}}) as (peer, _):
        answers = [await peer.post(call(n, "ask_model")) for n in (1, 2)]
        asked = [await answer.message() for answer in answers]
        sample = {"role": "assistant", "content": {"type": "text", "text": "so"}, "model": "m"}
        posted = await peer.post(
            [{"jsonrpc": "2.0", "id": one["id"], "result": sample} for one in asked]
        )
        assert (posted.status, await posted.read()) == (202, b"")
        for n, answer in zip((1, 2), answers, strict=True):
            (last,) = await answer.messages()
            assert (last["id"], last["result"]["content"][0]["text"]) == (n, "so")


@duty("jsonrpc.batch.received", "http.answer")
@looped
async def test_a_mixed_array_is_answered_for_its_requests() -> None:
    async with session(BATCHES) as (peer, _):
        answer = await peer.post(
            [
                notification("notifications/x"),
                request("a", "ping"),
                notification("notifications/y"),
                call("b", "add", {"a": 1, "b": 2}),
            ]
        )
        assert answer.status == 200
        assert {m["id"] for m in await told(answer)} == {"a", "b"}


@duty("http.stream.answers", "http.stream.related", "http.stream.closes")
@looped
async def test_an_array_whose_handlers_report_gets_one_stream_for_all() -> None:
    async with session(BATCHES) as (peer, _):
        answer = await peer.post([call(n, "steps", {"count": 2}, token=n) for n in (1, 2, 3)])
        assert (answer.status, answer.kind) == (200, STREAM)
        messages = await told(answer)
        assert {m["id"] for m in messages if "id" in m} == {1, 2, 3}
        for n in (1, 2, 3):
            progress = [
                m["params"]["progress"]
                for m in messages
                if m.get("params", {}).get("progressToken") == n
            ]
            assert progress == [1, 2]
            last = [m.get("id") == n for m in messages].index(True)
            assert all(m.get("params", {}).get("progressToken") != n for m in messages[last:])


@duty("jsonrpc.batch.answers")
@looped
async def test_a_bad_member_gets_its_own_error_and_the_good_ones_their_answers() -> None:
    async with session(BATCHES) as (peer, _):
        answer = await peer.post([request(1, "ping"), 7, {"jsonrpc": "2.0", "id": 2}])
        assert answer.status == 200
        messages = await told(answer)
        good = [m for m in messages if "result" in m]
        assert [m["id"] for m in good] == [1]
        assert [m["error"]["code"] for m in messages if "error" in m] == [-32600, -32600]


@duty("jsonrpc.batch.answers")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_an_empty_array_gets_400(revision: str) -> None:
    async with session(revision) as (peer, _):
        answer = await peer.post([])
        assert (answer.status, answer.kind) == (400, JSON)
        assert (await answer.json())["error"]["code"] == -32600


@duty("jsonrpc.batch.no-initialize")
@looped
async def test_initialize_within_an_array_opens_no_session() -> None:
    async with place_of(Workshop()) as place:
        for body in ([initialize(BATCHES)], [initialize(BATCHES), request(1, "ping")]):
            answer = await Peer(place, BATCHES).post(body)
            assert answer.status == 400
            assert "mcp-session-id" not in answer.headers
            await answer.read()


@duty("http.body.array-refused", "jsonrpc.batch.refused")
@pytest.mark.parametrize("revision", HANDSHAKE[2:])
@pytest.mark.parametrize("body", [[request(1, "ping")], [notification("notifications/x")]])
@looped
async def test_a_revision_without_arrays_refuses_them(revision: str, body: Any) -> None:
    async with session(revision) as (peer, _):
        answer = await peer.post(body)
        assert (answer.status, answer.kind) == (400, JSON)
        assert (await answer.json())["error"]["code"] == -32600
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@duty("http.body.array-refused")
@looped
async def test_an_array_for_no_session_gets_400() -> None:
    async with place_of(Workshop()) as place:
        answer = await Peer(place, LATEST).post([request(1, "ping")])
        assert answer.status == 400
        await answer.read()


@duty("jsonrpc.batch.received", "http-sse.message-events")
@looped
async def test_an_array_over_the_old_transport_is_answered_on_the_stream() -> None:
    async with place_of(Workshop()) as place:
        peer = await OldPeer.open(place, BATCHES)
        await peer.send([request(1, "ping"), notification("notifications/x"), request(2, "ping")])
        found: set[int] = set()
        while len(found) < 2:
            found |= {m["id"] for m in flat([await peer.stream.message()])}
        assert found == {1, 2}
        peer.stream.close()


@duty("jsonrpc.batch.refused")
@pytest.mark.parametrize("revision", HANDSHAKE[2:])
@looped
async def test_an_array_over_the_old_transport_is_refused_by_later_revisions(
    revision: str,
) -> None:
    async with place_of(Workshop()) as place:
        peer = await OldPeer.open(place, revision)
        answer = await peer.post([request(1, "ping")])
        if answer.status == 202:
            await answer.read()
            assert (await peer.stream.message())["error"]["code"] == -32600
        else:
            assert answer.status == 400
            assert (await answer.json())["error"]["code"] == -32600
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        peer.stream.close()


@duty("jsonrpc.batch.answers", "http.refused")
@looped
async def test_an_array_over_the_limit_is_refused_whole() -> None:
    async with session(BATCHES, shop=Workshop(limits=Limits(max_batch=5))) as (peer, shop):
        answer = await peer.post([call(n, "wait") for n in range(6)])
        assert (answer.status, answer.kind) == (400, JSON)
        assert (await answer.json())["error"]["code"] == -32600
        assert shop.entered == 0
        answer = await peer.post([request(n, "ping") for n in range(5)])
        assert (answer.status, len(await told(answer))) == (200, 5)


@duty("jsonrpc.batch.received", "calls.cancel.stops")
@looped
async def test_one_cancelled_member_leaves_the_answers_of_the_others() -> None:
    async with session(BATCHES) as (peer, shop):
        members = [call(1, "wait"), call(2, "add", {"a": 1, "b": 2}), call(3, "wait")]
        posting = asyncio.ensure_future(peer.post(members))
        await shop.until_entered(2)
        await peer.notify("notifications/cancelled", {"requestId": 1})
        await shop.until_left()
        shop.gate.set()
        answer = await posting
        assert answer.status == 200
        assert sorted(m["id"] for m in await told(answer)) == [2, 3]


@duty("http.resume.replay", "http.disconnect.no-cancel")
@looped
async def test_the_answers_to_an_array_can_be_fetched_after_its_stream_broke() -> None:
    async with session(BATCHES) as (peer, shop):
        answer = await peer.post([call(n, "step_and_wait", token=n) for n in (1, 2)])
        event = await answer.event()
        assert event is not None
        answer.abort()
        await shop.until_entered(2)
        shop.gate.set()
        messages = flat(await (await peer.get(last=event.id)).messages())
        assert sorted(m["id"] for m in messages if "id" in m) == [1, 2]
        assert len(messages) == 5 + 2
        assert shop.left == 0
