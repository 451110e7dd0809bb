"""Streams taken up again after an event: all of the rest, once, and nothing of another stream."""

from __future__ import annotations

import pytest

from tests.http.aids import STREAM, Event, Peer, call
from tests.http.workshop import POLLED, STREAMABLE, looped, session
from tests.requirements.duties import duty


async def finished(peer: Peer, id: int, count: int = 3) -> list[Event]:
    """A stream read to its end."""
    return await (await peer.post(call(id, "steps", {"count": count}, token=id))).events()


@duty("http.resume.replay", "http.resume.own-stream", "http.events.per-stream")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_from_each_event_on_the_rest_of_its_stream_is_replayed(revision: str) -> None:
    async with session(revision) as (peer, _):
        streams = [await finished(peer, number) for number in range(1, 4)]
        for stream in streams:
            for position, event in enumerate(stream[:-1]):
                resumed = await peer.get(last=event.id)
                assert (resumed.status, resumed.kind) == (200, STREAM)
                assert await resumed.events() == stream[position + 1 :]


@duty("http.resume.own-stream")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_what_came_on_a_get_stream_is_never_replayed_on_another(revision: str) -> None:
    async with session(revision) as (peer, _):
        listening = await peer.get()
        stream = await finished(peer, 1)
        await peer.call("grow")
        first = await listening.event()
        assert first is not None
        if not first.data:
            first = await listening.event()
        assert first is not None
        assert first.message["method"] == "notifications/tools/list_changed"
        resumed = await peer.get(last=stream[0].id)
        assert await resumed.events() == stream[1:]
        listening.close()


@duty("http.resume.replay")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_news_that_came_while_the_get_stream_was_broken_is_replayed(revision: str) -> None:
    async with session(revision) as (peer, _):
        listening = await peer.get()
        await peer.call("grow")
        seen = await listening.event()
        assert seen is not None
        if not seen.data:
            seen = await listening.event()
            assert seen is not None
        listening.abort()
        await peer.call("grow")
        await peer.call("grow")
        resumed = await peer.get(last=seen.id)
        assert (resumed.status, resumed.kind) == (200, STREAM)
        for _ in range(2):
            assert (await resumed.message())["method"] == "notifications/tools/list_changed"
        # And from there on it is live again.
        await peer.call("grow")
        assert (await resumed.message())["method"] == "notifications/tools/list_changed"
        await (await peer.delete()).read()
        assert await resumed.messages() == []


@duty("http.resume.replay", "http.one-stream")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_a_stream_taken_up_while_its_old_connection_stands_goes_on_once(
    revision: str,
) -> None:
    async with session(revision) as (peer, shop):
        old = await peer.post(call(1, "step_and_wait", token=1))
        event = await old.event()
        while event is not None and not event.data:
            event = await old.event()
        assert event is not None
        new = await peer.get(last=event.id)
        assert new.status == 200
        shop.gate.set()
        steps = [m["params"]["progress"] for m in await new.messages() if "method" in m]
        assert steps == [2, 3]
        assert await old.messages() == []


@duty("http.resume.own-stream", "http.session.owner")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_an_event_of_another_session_brings_nothing_of_it(revision: str) -> None:
    async with session(revision) as (peer, _):
        stream = await finished(peer, 1)
        other = await Peer.open(peer.place, revision)
        answer = await other.get(last=stream[0].id)
        if answer.status == 200:
            await (await other.delete()).read()
            assert await answer.messages() == []
        else:
            assert 400 <= answer.status < 500
            await answer.read()


@duty("http.resume.own-stream")
@pytest.mark.parametrize("last", ["x", "0", "-1", "9-9", "1-99999", "1-1-1", "--", "a" * 2000])
@looped
async def test_an_event_that_never_was_brings_nothing(last: str) -> None:
    async with session() as (peer, _):
        await finished(peer, 1)
        answer = await peer.get(last=last)
        if answer.status == 200:
            await (await peer.delete()).read()
            assert await answer.messages() == []
        else:
            assert 400 <= answer.status < 500
            await answer.read()
            assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@duty("http.stream.primed", "http.resume.replay")
@looped
async def test_a_stream_cut_after_its_empty_event_is_replayed_whole() -> None:
    async with session(POLLED) as (peer, shop):
        answer = await peer.post(call(1, "step_and_wait", token=1))
        empty = await answer.event()
        assert empty is not None
        assert empty.data == ""
        answer.abort()
        await shop.until_entered()
        shop.gate.set()
        resumed = await peer.get(last=empty.id)
        messages = await resumed.messages()
        assert [m["params"]["progress"] for m in messages if "method" in m] == [1, 2, 3]
        assert messages[-1]["id"] == 1


@duty("http.stream.retry", "http.resume.replay")
@looped
async def test_a_stream_the_server_leaves_says_when_to_come_back_and_goes_on_there() -> None:
    async with session(POLLED) as (peer, shop):
        events = await (await peer.post(call(1, "leave", {"retry_s": 0.25}))).events()
        assert [event.retry for event in events if event.retry is not None][-1] == 250
        assert not any(event.data for event in events)
        (last,) = {event.id for event in events if event.id}
        shop.gate.set()
        (answer,) = await (await peer.get(last=last)).messages()
        assert (answer["id"], answer["result"]["content"][0]["text"]) == (1, "True")


@duty("http.stream.not-early")
@pytest.mark.parametrize("revision", STREAMABLE[:-1])
@looped
async def test_where_clients_do_not_come_back_the_server_does_not_leave(revision: str) -> None:
    async with session(revision) as (peer, shop):
        shop.gate.set()
        answer = await peer.post(call(1, "leave", {"retry_s": 0.25}))
        told = await answer.json() if answer.kind != STREAM else (await answer.messages())[-1]
        assert (told["id"], told["result"]["content"][0]["text"]) == (1, "False")
