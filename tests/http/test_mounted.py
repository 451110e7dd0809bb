"""The app within somebody else's: under a prefix, in FastAPI and in Starlette, with its lifespan or without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from dragoman import Server
from dragoman.errors import Misconfigured
from tests.http.aids import App, OldPeer, Peer, ask, call, request, serving
from tests.http.workshop import LATEST, Workshop, looped
from tests.requirements.duties import duty

PREFIX = "/some/where"


def in_fastapi(app: Any, lifespan: Any) -> App:
    outer = FastAPI(lifespan=lifespan)

    @outer.get("/health")
    def health() -> dict[str, bool]:
        return {"ok": True}

    outer.mount(PREFIX, app)
    return outer


def in_starlette(app: Any, lifespan: Any) -> App:
    return Starlette(routes=[Mount(PREFIX, app)], lifespan=lifespan)


MOUNTS = [in_fastapi, in_starlette]


@duty("http.old.served")
@pytest.mark.parametrize("has_lifespan", [True, False])
@pytest.mark.parametrize("mount", MOUNTS)
@looped
async def test_a_mounted_server_is_reached_below_its_prefix(mount: Any, has_lifespan: bool) -> None:
    app = Workshop().server.asgi()
    async with serving(mount(app, app.lifespan if has_lifespan else None)) as place:
        peer = await Peer.open(place, LATEST, target=f"{PREFIX}/mcp")
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        answer = await peer.post(call(9, "steps", {"count": 2}, token=9))
        assert len(await answer.messages()) == 3
        old = await OldPeer.open(place, target=f"{PREFIX}/sse")
        # The path as the client has to write it, prefix and all.
        assert old.endpoint.startswith(f"{PREFIX}/messages")
        assert await old.call("add", {"a": 1, "b": 2}) == "3"
        old.stream.close()
        await (await peer.delete()).read()
        outside = await ask(place, "POST", "/mcp", peer.headers(), request(1, "ping"))
        assert outside.status in {404, 405}
        await outside.read()


@pytest.mark.parametrize("mount", MOUNTS)
@looped
async def test_the_end_of_the_outer_app_ends_open_streams(mount: Any) -> None:
    app = Workshop().server.asgi()
    async with serving(mount(app, app.lifespan)) as place:
        peer = await Peer.open(place, LATEST, target=f"{PREFIX}/mcp")
        old = await OldPeer.open(place, target=f"{PREFIX}/sse")
        listening = await peer.get()
    assert await listening.messages() == []
    assert await old.stream.messages() == []


@pytest.mark.parametrize("has_lifespan", [True, False])
@pytest.mark.parametrize("mount", [*MOUNTS, None])
@looped
async def test_the_servers_own_life_begins_before_its_first_call_and_ends_once(
    mount: Any, has_lifespan: bool
) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def life(server: Server) -> AsyncIterator[str]:
        told.append("began")
        yield "state"
        told.append("ended")

    shop = Workshop(lifespan=life)
    app = shop.server.asgi()

    @shop.server.tool
    async def state() -> str:
        return str(shop.server.state)

    if mount is None:
        whole = serving(app, lifespan="on" if has_lifespan else "off")
        target = "/mcp"
    else:
        whole = serving(mount(app, app.lifespan if has_lifespan else None))
        target = f"{PREFIX}/mcp"
    async with whole as place:
        for _ in range(2):
            peer = await Peer.open(place, LATEST, target=target)
            assert await peer.call("state") == "state"
            await (await peer.delete()).read()
        assert told == ["began"]
    if not has_lifespan:
        # Nobody told the app that it is over.
        assert told == ["began"]
        await app.stop()
    assert told == ["began", "ended"]


@looped
async def test_paths_are_what_the_app_was_given() -> None:
    app = Workshop().server.asgi(path="/", sse_path="/events", message_path="/post")
    async with serving(Starlette(routes=[Mount("/mcp", app)])) as place:
        peer = await Peer.open(place, LATEST, target="/mcp/")
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        old = await OldPeer.open(place, target="/mcp/events")
        assert old.endpoint.startswith("/mcp/post")
        assert await old.call("add", {"a": 1, "b": 2}) == "3"
        old.stream.close()


@looped
async def test_two_servers_stand_beside_each_other() -> None:
    first, second = Workshop(), Workshop()
    second.server.add_tool(lambda: "second", name="which")
    first.server.add_tool(lambda: "first", name="which")
    routes = [Mount("/a", first.server.asgi()), Mount("/b", second.server.asgi())]
    async with serving(Starlette(routes=routes)) as place:
        one = await Peer.open(place, LATEST, target="/a/mcp")
        two = await Peer.open(place, LATEST, target="/b/mcp")
        assert (await one.call("which"), await two.call("which")) == ("first", "second")
        stray = Peer(place, LATEST, session=one.session, target="/b/mcp")
        answer = await stray.post(request(1, "ping"))
        assert answer.status == 404
        await answer.read()


@pytest.mark.parametrize("is_stripped", [True, False])
@looped
async def test_a_prefix_may_stay_in_the_path_or_be_taken_off(is_stripped: bool) -> None:
    # Both are done: the ASGI specification keeps it, some frameworks and proxies take it off.
    app = Workshop().server.asgi()

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(PREFIX) if is_stripped else scope["path"]
            scope = {**scope, "path": path, "root_path": PREFIX}
        await app(scope, receive, send)

    async with serving(outer) as place:
        peer = await Peer.open(place, LATEST, target=f"{PREFIX}/mcp")
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        old = await OldPeer.open(place, target=f"{PREFIX}/sse")
        assert old.endpoint.startswith(f"{PREFIX}/messages")
        assert await old.call("add", {"a": 1, "b": 2}) == "3"
        old.stream.close()


@pytest.mark.parametrize("path", ["mcp", "/mcp?x=1", "/mcp#x", ""])
def test_a_path_that_is_none_is_refused_at_once(path: str) -> None:
    for name in ("path", "sse_path", "message_path"):
        with pytest.raises(Misconfigured):
            Workshop().server.asgi(**{name: path})  # type: ignore[arg-type]


@looped
async def test_the_old_transport_can_be_left_out() -> None:
    async with serving(Workshop().server.asgi(sse_path=None)) as place:
        for method, target in (("GET", "/sse"), ("POST", "/messages")):
            answer = await ask(place, method, target)
            assert answer.status == 404
            await answer.read()
        peer = await Peer.open(place, LATEST)
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
