"""What our client sends over HTTP, as the server receives it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dragoman import Client, Reconnect
from dragoman.errors import SessionLost
from tests.http.aids import BOTH, STREAM, Peer, Received, Recorder, serving
from tests.http.workshop import LATEST, POLLED, STREAMABLE, Workshop, looped
from tests.requirements.duties import duty
from tests.support import HANDSHAKE


@asynccontextmanager
async def recorded(
    revision: str | None = None, target: str = "/mcp", **options: Any
) -> AsyncIterator[tuple[Client, Recorder, Workshop]]:
    """A client of a workshop, and every request that it makes."""
    shop = Workshop()
    recorder = Recorder(shop.server.asgi())
    async with (
        serving(recorder) as place,
        Client(place.url + target, revision=revision, **options) as client,
    ):
        yield client, recorder, shop


def kinds(accept: str) -> set[str]:
    return {one.partition(";")[0].strip() for one in accept.split(",")}


@duty(
    "http.post",
    "http.accept-both",
    "http.body.message-or-array",
    "http.body.single",
    "http.answer.both",
)
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_every_message_is_a_post_of_its_own_that_takes_both_kinds_of_answer(
    revision: str,
) -> None:
    async with recorded(revision) as (client, recorder, _):
        assert client.protocol_version == revision
        steps: list[float] = []
        result = await client.call_tool(
            "steps", {"count": 3}, on_progress=lambda update: steps.append(update.progress)
        )
        assert (result.text, steps) == ("stepped", [1, 2, 3])
        results = await asyncio.gather(
            *(client.call_tool("add", {"a": n, "b": 1}) for n in range(20))
        )
        assert [result.text for result in results] == [str(n + 1) for n in range(20)]
        posts = recorder.posts()
        assert [one.message["method"] for one in posts[:3]] == [
            "initialize",
            "notifications/initialized",
            "tools/call",
        ]
        assert len(recorder.posts("tools/call")) == 21
        for one in posts:
            assert isinstance(one.message, dict)
            assert one.path == "/mcp"
            assert kinds(one.headers["accept"]) == kinds(BOTH)
            assert one.headers["content-type"].startswith("application/json")


@duty("http.session.sent", "http.version-header", "http.session.deleted", "http.get.accept")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_every_later_request_carries_session_and_revision_and_the_last_one_ends_it(
    revision: str,
) -> None:
    async with recorded(revision) as (client, recorder, shop):
        await client.call_tool("add", {"a": 1, "b": 2})
        told = asyncio.Event()
        client_done = client.list_tools()
        await client_done
        shop.server.notify_resource_updated("note:a")
        told.set()
    first, *later = recorder.requests
    assert first.message["method"] == "initialize"
    assert "mcp-session-id" not in first.headers
    assert later
    (session,) = {one.headers["mcp-session-id"] for one in later}
    assert session
    for one in later:
        named = one.headers.get("mcp-protocol-version")
        assert named == (revision if revision >= HANDSHAKE[2] else None)
    for one in recorder.named("GET"):
        assert STREAM in kinds(one.headers["accept"])
    assert recorder.requests[-1].method == "DELETE"
    assert len(recorder.named("DELETE")) == 1


@duty("http.get.accept")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_news_is_heard_without_a_request(revision: str) -> None:
    heard = asyncio.Event()
    async with recorded(revision, on_tools_changed=heard.set) as (client, recorder, _):
        await client.call_tool("grow")
        await heard.wait()
        (get,) = recorder.named("GET")
        assert STREAM in kinds(get.headers["accept"])


@duty("http.cancel.explicit")
@pytest.mark.parametrize("target", ["/mcp", "/sse"])
@looped
async def test_a_call_that_is_cancelled_says_so(target: str) -> None:
    async with recorded(target=target) as (client, recorder, shop):
        waiting = asyncio.ensure_future(client.call_tool("wait"))
        await shop.until_entered()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await shop.until_left()
        (asked,) = recorder.posts("tools/call")
        (told,) = recorder.posts("notifications/cancelled")
        assert told.message["params"]["requestId"] == asked.message["id"]
        assert (await client.call_tool("add", {"a": 1, "b": 2})).text == "3"


@duty(
    "http.old.any-url",
    "http.old.post-first",
    "http.old.falls-back",
    "http.old.kept",
    "http-sse.posts",
)
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_a_url_of_the_old_transport_is_found_out_and_kept(revision: str) -> None:
    async with recorded(revision, "/sse") as (client, recorder, _):
        assert client.protocol_version == revision
        assert (await client.call_tool("add", {"a": 1, "b": 2})).text == "3"
    methods = [(one.method, one.path) for one in recorder.requests]
    assert methods[:2] == [("POST", "/sse"), ("GET", "/sse")]
    assert set(methods[2:]) == {("POST", "/messages")}
    assert recorder.requests[0].message["method"] == "initialize"


@duty("http.session.renewed")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_a_session_that_is_gone_is_followed_by_a_new_one(revision: str) -> None:
    shop = Workshop()
    recorder = Recorder(shop.server.asgi())
    async with (
        serving(recorder) as place,
        Client(f"{place.url}/mcp", revision=revision) as client,
    ):
        await client.list_tools()
        lost = recorder.requests[-1].headers["mcp-session-id"]
        thief = Peer(place, revision, session=lost)
        await (await thief.delete()).read()
        # Reading may be done again, so the caller hears nothing of it.
        assert len(await client.list_tools()) > 5
        first, second = recorder.posts("initialize")
        assert "mcp-session-id" not in second.headers
        renewed = recorder.posts("tools/list")[-1].headers["mcp-session-id"]
        assert renewed != lost
        assert first is not second


class Cutter:
    """Breaks the connection of the first stream that answers a POST after its first message."""

    def __init__(self, app: Any, then: Callable[[], None]) -> None:
        self.app = app
        self.then = then
        self.is_cut = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or self.is_cut:
            await self.app(scope, receive, send)
            return
        is_stream = False

        async def tell(event: Any) -> None:
            nonlocal is_stream
            if self.is_cut and is_stream:
                raise ConnectionAbortedError
            if event["type"] == "http.response.start":
                is_stream = dict(event["headers"]).get(b"content-type", b"").startswith(b"text/e")
            elif is_stream and b'"method"' in event.get("body", b""):
                # To come back in a thousandth of a second, so that the test does not wait.
                await send({**event, "body": event["body"] + b"retry: 1\n\n"})
                self.is_cut = True
                self.then()
                raise ConnectionAbortedError
            await send(event)

        with contextlib.suppress(ConnectionAbortedError):
            await self.app(scope, receive, tell)
        if is_stream and self.is_cut:
            raise ConnectionAbortedError


@duty("http.resume.get", "http.stream.polled")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_a_broken_stream_is_taken_up_where_it_broke(revision: str) -> None:
    shop = Workshop()
    recorder = Recorder(shop.server.asgi())
    async with (
        serving(Cutter(recorder, shop.gate.set)) as place,
        Client(f"{place.url}/mcp", revision=revision) as client,
    ):
        steps: list[float] = []
        result = await client.call_tool(
            "step_and_wait", on_progress=lambda update: steps.append(update.progress)
        )
        assert (result.text, steps) == ("waited", [1, 2, 3])
        assert shop.entered == 1
    (resumed,) = [one for one in recorder.named("GET") if "last-event-id" in one.headers]
    assert resumed.headers["last-event-id"]


@duty("http.retry.respected", "http.stream.polled", "http.resume.get")
@looped
async def test_a_client_comes_back_when_it_is_told_to_and_no_sooner() -> None:
    shop = Workshop()

    def tell(received: Received) -> None:
        if "last-event-id" in received.headers:
            shop.gate.set()

    recorder = Recorder(shop.server.asgi(), tell)
    async with (
        serving(recorder) as place,
        Client(f"{place.url}/mcp", revision=POLLED) as client,
    ):
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert (await client.call_tool("leave", {"retry_s": 0.3})).text == "True"
        # A lower bound: however slow the machine is, it cannot be too slow for it.
        assert loop.time() - before >= 0.3
    (resumed,) = [one for one in recorder.named("GET") if "last-event-id" in one.headers]
    assert len(recorder.posts("tools/call")) == 1
    assert resumed.headers["mcp-session-id"] == recorder.requests[-1].headers["mcp-session-id"]


@duty("http.session.careful")
@looped
async def test_the_session_id_is_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with recorded() as (client, recorder, _):
        await client.call_tool("add", {"a": 1, "b": 2})
        session = recorder.requests[-1].headers["mcp-session-id"]
        assert session not in repr(client)
        with pytest.raises(Exception, match="none") as failed:
            await client.call_tool("none")
        assert session not in str(failed.value)
        assert session not in repr(failed.value)
    assert session not in caplog.text


@pytest.mark.parametrize("revision", [None, LATEST, POLLED])
@looped
async def test_nothing_is_left_open_after_the_client(revision: str | None) -> None:
    shop = Workshop()
    async with serving(shop.server.asgi()) as place:
        before = len(asyncio.all_tasks())
        async with Client(f"{place.url}/mcp", revision=revision) as client:
            await client.call_tool("add", {"a": 1, "b": 2})
        for _ in range(200):
            if len(asyncio.all_tasks()) <= before:
                break
            await asyncio.sleep(0)


@looped
async def test_a_server_that_forgets_every_session_is_not_asked_for_ever() -> None:
    app = Workshop().server.asgi()
    hellos = 0

    async def forgetful(scope: Any, receive: Any, send: Any) -> None:
        nonlocal hellos
        first = await receive()
        body = first.get("body", b"")
        hellos += b'"initialize"' in body
        if b'"tools/call"' in body:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        given = [first]

        async def again() -> Any:
            return given.pop() if given else await receive()

        await app(scope, again if scope["type"] == "http" else receive, send)

    async def choose(scope: Any, receive: Any, send: Any) -> None:
        await (forgetful if scope["type"] == "http" else app)(scope, receive, send)

    async with (
        serving(choose) as place,
        Client(place.url + "/mcp", reconnect=Reconnect(first_delay_s=0.0)) as client,
    ):
        with pytest.raises(SessionLost) as lost:
            await client.call_tool("add", {"a": 1, "b": 2})
        assert lost.value.sent is False
        assert 2 <= hellos <= 6
        # It is the call that is given up, not the connection.
        await client.ping()
