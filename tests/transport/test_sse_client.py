"""The client's end of HTTP+SSE, and how a client finds out that a server speaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dragoman import Client
from dragoman.errors import DragomanError, HttpError, LinkClosed, LinkError, PeerError, SessionLost
from dragoman.revisions.registry import HANDSHAKE
from dragoman.transport.base import Link
from dragoman.transport.http.connector import HttpConnector
from tests.requirements.duties import duty
from tests.transport.aids import in_loop, open_descriptors
from tests.transport.streamable_aids import (
    Asked,
    Ear,
    Reply,
    Script,
    ScriptedServer,
    Waits,
    answer,
    notice,
    scripted,
    text,
)

HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": HANDSHAKE[0].wire},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def encoded(message: Any) -> bytes:
    return json.dumps(message).encode()


def call(ident: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": {"name": "work"}}


class OldServer:
    """Speaks HTTP+SSE: GET opens the one stream, a POST to the endpoint it named is accepted.

    `endpoint` is what its first event says. `on` has scripts by the method of a message; the others
    are answered on the stream.
    """

    def __init__(
        self,
        *,
        endpoint: str = "/messages?session=1",
        refusal: int = 405,
        on: dict[str, Script] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.refusal = refusal
        self.on = on or {}
        self.streams: list[Reply] = []
        self.may_end = asyncio.Event()

    async def get(self, asked: Asked, reply: Reply) -> None:
        self.may_end = asyncio.Event()
        await reply.stream()
        await reply.write(f"event: endpoint\ndata: {self.endpoint}\n\n".encode())
        self.streams.append(reply)
        await self.may_end.wait()

    async def post(self, asked: Asked, reply: Reply) -> None:
        if not asked.path.startswith("/messages"):
            await reply.send(self.refusal, b"<html>not here</html>")
            return
        script = self.on.get(asked.rpc)
        if script is not None:
            await script(asked, reply)
            return
        await reply.send(202, b"Accepted")
        if asked.rpc == "initialize":
            result: dict[str, Any] = {
                "protocolVersion": asked.message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "old", "version": "1"},
            }
        else:
            result = text("done")
        if "id" in asked.message and "method" in asked.message:
            await self.streams[-1].event(answer(asked, result))

    @property
    def scripts(self) -> dict[str, Script]:
        names = ("initialize", "notifications/initialized", "notifications/cancelled")
        posts: dict[str, Script] = dict.fromkeys((*names, "tools/call", "answer"), self.post)
        return {"GET": self.get, **posts}


class Side:
    """Our side: a started link, and what it tells."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.ear = Ear()
        link.start(self.ear)

    def ask(self, message: dict[str, Any]) -> None:
        self.ear.awaited.add(message["id"])
        self.link.send(encoded(message), message["id"])

    async def outcome(self, ident: int) -> Any:
        """The answer, or the error that the request was lost with."""
        await self.ear.until(lambda: ident not in self.ear.awaited)
        if ident in self.ear.lost:
            return self.ear.lost[ident]
        return next(m for m in self.ear.messages if m.get("id") == ident)


@asynccontextmanager
async def linked(server: ScriptedServer, **options: Any) -> AsyncIterator[Side]:
    connector = HttpConnector(server.url, mode="sse", wait=Waits(), **options)
    side = Side(await connector.connect())
    try:
        yield side
    finally:
        await side.link.aclose()
        assert len(side.ear.ends) == 1


@duty("http-sse.posts", "http-sse.message-events")
@in_loop
async def test_messages_go_to_the_endpoint_and_come_on_the_stream() -> None:
    old = OldServer()
    async with scripted(old.scripts) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        side.link.send(encoded(INITIALIZED))
        await old.streams[0].event(notice("tools/list_changed"))
        await side.ear.until(lambda: len(side.ear.frames) == 2)
        await server.until(lambda: bool(server.of("notifications/initialized")))
        get, *posts = server.asked
        assert (get.path, get.headers["accept"]) == ("/mcp", "text/event-stream")
        assert {post.path for post in posts} == {"/messages?session=1"}
        assert "mcp-session-id" not in posts[0].headers


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("messages", "/messages"),
        ("?session=7", "/mcp?session=7"),
        ("//{host}/messages", "/messages"),
        ("http://{host}/messages/7", "/messages/7"),
        ("HTTP://{host}/messages#part", "/messages"),
    ],
)
@in_loop
async def test_an_endpoint_may_be_relative_or_a_whole_url_of_the_same_origin(
    endpoint: str, path: str
) -> None:
    old = OldServer()
    async with scripted({**old.scripts, "tools/call": _accept}) as server:
        old.endpoint = endpoint.replace("{host}", f"127.0.0.1:{server.port}")
        async with linked(server) as side:
            side.ask(call(1))
            await server.until(lambda: bool(server.of("tools/call")))
            assert server.of("tools/call")[0].path == path


async def _accept(asked: Asked, reply: Reply) -> None:
    await reply.send(202)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:1/messages",
        "https://127.0.0.1/messages",
        "http://localhost:{port}/messages",
        "//example.com/messages",
        "http://127.0.0.1:{port}@example.com/messages",
        "http://127.0.0.1:{port}\\@example.com/messages",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://[bad/messages",
        "/a b",
    ],
)
@in_loop
async def test_an_endpoint_at_another_origin_is_refused(endpoint: str) -> None:
    old = OldServer()
    async with scripted(old.scripts) as server:
        old.endpoint = endpoint.replace("{port}", str(server.port))
        with pytest.raises(PeerError):
            async with linked(server):
                pass
        assert [one.method for one in server.asked] == ["GET"]
        assert not asyncio.all_tasks() - {asyncio.current_task(), *server.tasks}


@in_loop
async def test_messages_before_the_endpoint_are_refused() -> None:
    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.write(b": hello\n\nevent: other\ndata: 1\n\n")
        await reply.event(notice("tools/list_changed"))

    async with scripted({"GET": get}) as server:
        with pytest.raises(PeerError):
            async with linked(server):
                pass


@in_loop
async def test_what_comes_together_with_the_endpoint_is_delivered() -> None:
    may_end = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        message = json.dumps(notice("tools/list_changed"))
        await reply.write(f"event: endpoint\ndata: /messages\n\ndata: {message}\n\n".encode())
        await may_end.wait()

    async with scripted({"GET": get}) as server, linked(server) as side:
        await side.ear.until(lambda: bool(side.ear.frames))
        assert side.ear.messages == [notice("tools/list_changed")]
        may_end.set()


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "text/plain"), (500, "text/plain"), (200, "text/html")]
)
@in_loop
async def test_what_is_no_stream_cannot_be_connected_to(status: int, kind: str) -> None:
    async def get(asked: Asked, reply: Reply) -> None:
        await reply.send(status, b"no stream here", content_type=kind)

    async with scripted({"GET": get}) as server:
        with pytest.raises(HttpError) as failed:
            async with linked(server):
                pass
        assert (failed.value.status, failed.value.sent) == (status, False)
        assert "no stream here" in failed.value.body


@in_loop
async def test_a_stream_that_ends_before_the_endpoint_cannot_be_connected_to() -> None:
    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.write(b"event: endpoint\ndata: /messages\n")

    async with scripted({"GET": get}) as server:
        with pytest.raises(LinkError) as failed:
            async with linked(server):
                pass
        assert failed.value.sent is False


@pytest.mark.parametrize("is_cut", [True, False])
@in_loop
async def test_the_end_of_the_stream_is_the_end_of_the_link(is_cut: bool) -> None:
    old = OldServer()
    old.on["tools/call"] = _accept
    async with scripted(old.scripts) as server, linked(server) as side:
        side.ask(call(1))
        await server.until(lambda: bool(server.of("tools/call")))
        if is_cut:
            old.streams[0].cut()
        old.may_end.set()
        await side.ear.until(lambda: bool(side.ear.ends))
        assert isinstance(side.ear.ends[0], LinkClosed)
        with pytest.raises(LinkClosed):
            side.link.send(encoded(call(2)), 2)


@in_loop
async def test_a_refused_post_loses_its_request_and_a_404_the_session() -> None:
    statuses = iter([413, 404])

    async def refuse(asked: Asked, reply: Reply) -> None:
        await reply.send(next(statuses))

    old = OldServer(on={"tools/call": refuse})
    async with scripted(old.scripts) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert (lost.status, lost.sent) == (413, False)
        side.ask(call(2))
        lost = await side.outcome(2)
        assert isinstance(lost, SessionLost)
        assert lost.sent is False
        await side.ear.until(lambda: bool(side.ear.ends))
        assert isinstance(side.ear.ends[0], SessionLost)


@in_loop
async def test_an_event_that_is_too_large_is_noise() -> None:
    old = OldServer()
    script = old.scripts
    async with scripted(script) as server, linked(server, max_frame_bytes=1000) as side:
        await old.streams[0].event(notice("message", level="info", data="x" * 2000))
        await old.streams[0].event(notice("tools/list_changed"))
        await side.ear.until(lambda: bool(side.ear.frames))
        assert [noise.limit for noise in side.ear.noises] == [1000]


@in_loop
async def test_a_link_that_was_opened_and_never_started_can_be_closed() -> None:
    before = open_descriptors()
    old = OldServer()
    async with scripted(old.scripts) as server:
        link = await HttpConnector(server.url, mode="sse").connect()
        await link.aclose()
    await asyncio.sleep(0)
    assert open_descriptors() == before


@in_loop
async def test_opening_can_be_given_up_at_any_moment() -> None:
    before = open_descriptors()
    old = OldServer()
    async with scripted(old.scripts) as server:
        for turns in range(25):
            opening = asyncio.ensure_future(HttpConnector(server.url, mode="sse").connect())
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            try:
                link = await opening
            except asyncio.CancelledError:
                pass
            else:
                await link.aclose()
            assert not asyncio.all_tasks() - {asyncio.current_task(), *server.tasks}
            old.may_end.set()
    await asyncio.sleep(0)
    assert open_descriptors() == before


# --- finding out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [400, 404, 405, 406, 415, 422])
@in_loop
async def test_a_server_that_refuses_the_hello_is_asked_for_a_stream(refusal: int) -> None:
    old = OldServer(refusal=refusal)
    async with scripted(old.scripts) as server:
        connector = HttpConnector(server.url)
        for _ in range(2):
            async with Client(connector) as client:
                assert client.server_info.name == "old"
                assert (await client.call_tool("work")).text == "done"
        # Found out once: the second time the stream came first.
        kinds = [one.method for one in server.asked if one.path == "/mcp"]
        assert kinds == ["POST", "GET", "GET"]
        assert connector.found == "sse"


@in_loop
async def test_a_server_that_answers_the_hello_is_not_asked_for_a_stream_first() -> None:
    async with scripted() as server:
        connector = HttpConnector(server.url.replace("/mcp", "/sse"))
        async with Client(connector) as client:
            assert client.server_info.name == "script"
        assert server.asked[0].rpc == "initialize"
        assert connector.found == "streamable"


@pytest.mark.parametrize("refusal", [401, 403, 429, 500, 503])
@in_loop
async def test_a_refusal_for_another_reason_is_told_and_nothing_else_is_tried(refusal: int) -> None:
    async def refuse(asked: Asked, reply: Reply) -> None:
        await reply.send(refusal, b"no", retry_after="3")

    async with scripted({"initialize": refuse}) as server:
        with pytest.raises(HttpError) as failed:
            await Client(server.url).connect()
        assert failed.value.status == refusal
        assert not server.of("GET")


@in_loop
async def test_a_server_that_speaks_neither_is_told_by_its_first_refusal() -> None:
    async def refuse(asked: Asked, reply: Reply) -> None:
        await reply.send(404, b"no such page")

    async with scripted({"initialize": refuse, "GET": refuse}) as server:
        with pytest.raises(HttpError, match="no such page") as failed:
            await Client(server.url).connect()
        assert failed.value.status == 404
        assert [one.method for one in server.asked] == ["POST", "GET"]


@in_loop
async def test_a_link_that_found_no_transport_is_over() -> None:
    async def refuse(asked: Asked, reply: Reply) -> None:
        await reply.send(404)

    async with scripted({"initialize": refuse, "GET": refuse}) as server:
        side = Side(await HttpConnector(server.url).connect())
        side.ask(HELLO)
        lost = await side.outcome(0)
        assert isinstance(lost, HttpError)
        assert len(side.ear.ends) == 1
        assert isinstance(side.ear.ends[0], HttpError)
        with pytest.raises(LinkClosed):
            side.link.send(encoded(call(1)), 1)
        await side.link.aclose()
        assert len(side.ear.ends) == 1


@in_loop
async def test_a_pause_lasts_over_the_change_of_transports() -> None:
    old = OldServer()
    async with scripted(old.scripts) as server:
        side = Side(await HttpConnector(server.url).connect())
        side.link.pause_reading()
        side.ask(HELLO)
        await server.until(lambda: len(server.of("initialize")) == 2)
        side.link.send(encoded(INITIALIZED))
        await server.until(lambda: bool(server.of("notifications/initialized")))
        assert not side.ear.frames
        side.link.resume_reading()
        assert "result" in await side.outcome(0)
        await side.link.aclose()
        old.may_end.set()


@in_loop
async def test_a_stream_that_must_not_be_used_is_told_for_what_it_is() -> None:
    old = OldServer(endpoint="https://example.com/messages")
    async with scripted(old.scripts) as server:
        with pytest.raises(DragomanError, match="another origin"):
            await Client(server.url).connect()


@in_loop
async def test_a_server_that_moves_on_to_streamable_http_is_found_again() -> None:
    old = OldServer()
    async with scripted(old.scripts) as server:
        connector = HttpConnector(server.url)
        async with Client(connector) as client:
            assert client.server_info.name == "old"
        new = ScriptedServer()
        server.on = new.on
        async with Client(connector) as client:
            assert client.server_info.name == "script"
        assert connector.found == "streamable"


@in_loop
async def test_a_client_that_gives_up_while_it_finds_out_leaves_nothing() -> None:
    before = open_descriptors()
    old = OldServer()
    async with scripted(old.scripts) as server:
        for turns in range(40):
            side = Side(await HttpConnector(server.url).connect())
            side.ask(HELLO)
            for _ in range(turns):
                await asyncio.sleep(0)
            await side.link.aclose()
            assert len(side.ear.ends) == 1
            assert not asyncio.all_tasks() - {asyncio.current_task(), *server.tasks}
            old.may_end.set()
    await asyncio.sleep(0)
    assert open_descriptors() == before


@in_loop
async def test_a_session_over_http_sse_ends_with_its_connection() -> None:
    old = OldServer()
    async with scripted(old.scripts) as server:
        async with Client(server.url) as client:
            await client.call_tool("work")
            (stream,) = old.streams
        assert await stream.reader.read() == b""
        assert not server.of("DELETE")
        old.may_end.set()


@in_loop
async def test_a_stream_behind_a_redirect_names_an_endpoint_that_learns_no_secret() -> None:
    async def leave(asked: Asked, reply: Reply) -> None:
        await reply.send(307, location=other.url)

    old = OldServer()
    async with (
        scripted(old.scripts) as other,
        scripted({"GET": leave}) as server,
        linked(server, token="t0") as side,
    ):
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        assert server.asked[0].headers["authorization"] == "Bearer t0"
        assert all("authorization" not in one.headers for one in other.asked)


@in_loop
async def test_a_stream_is_opened_with_a_new_token_when_the_first_is_refused() -> None:
    tokens = iter(["t0", "t1"])
    old = OldServer()

    async def get(asked: Asked, reply: Reply) -> None:
        if asked.headers["authorization"] == "Bearer t0":
            await reply.send(401)
            return
        await old.get(asked, reply)

    async with (
        scripted({**old.scripts, "GET": get}) as server,
        linked(server, token=lambda: next(tokens)) as side,
    ):
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        assert server.asked[-1].headers["authorization"] == "Bearer t1"


@in_loop
async def test_a_stream_that_never_names_an_endpoint_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dragoman.transport.http_sse.client.ENDPOINT_WAIT_S", 0.05)

    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.gone()

    async with scripted({"GET": get}) as server:
        with pytest.raises(LinkError, match="no endpoint") as failed:
            async with linked(server):
                pass
        assert failed.value.sent is False
