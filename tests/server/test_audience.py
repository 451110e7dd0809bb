"""What all clients are told, and what a client that does not read costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dragoman import Server
from dragoman.testing import ScriptedPeer
from dragoman.transport.memory import MemoryLink, memory_pair
from tests.requirements.duties import duty
from tests.runtime.aids import turns
from tests.support import run

HIGH_WATER_BYTES = 10_000


class Deaf(ScriptedPeer):
    """A client that stops reading when it is told to, and counts what is sent to it."""

    def __init__(self, link: MemoryLink) -> None:
        super().__init__(link)
        self.deaf_link = link

    def stop(self) -> None:
        self.deaf_link.pause_reading()

    def go_on(self) -> None:
        self.deaf_link.resume_reading()

    async def subscribe(self, *uris: str) -> None:
        for uri in uris:
            self.request(uri, "resources/subscribe", {"uri": uri})
            assert (await self.receive())["result"] == {}

    async def heard(self) -> list[Any]:
        """Everything that was sent so far, once it has come."""
        await turns()
        self.request("last", "ping")
        messages = []
        while (message := await self.receive()).get("id") != "last":
            messages.append(message)
        return messages


def offering() -> Server:
    server = Server("s", declares=["tools", "resources", "prompts"])
    server.add_resource("x", "note://1", name="one")
    server.add_resource("x", "note://2", name="two")
    return server


@asynccontextmanager
async def facing(server: Server) -> AsyncIterator[tuple[Deaf, MemoryLink]]:
    near, far = memory_pair(high_water_bytes=HIGH_WATER_BYTES)
    peer = Deaf(far)
    serving = asyncio.ensure_future(server.serve_link(near))
    try:
        await peer.hello()
        await turns()
        yield peer, near
    finally:
        await peer.aclose()
        await serving


def uris(messages: list[Any]) -> list[str]:
    return [message["params"]["uri"] for message in messages]


@duty("resources.updated-subscribed", "trust.practices")
def test_a_client_that_does_not_read_is_told_once_of_each_resource_when_it_does() -> None:
    async def main() -> None:
        server = offering()
        async with facing(server) as (peer, link):
            await peer.subscribe("note://1", "note://2")
            peer.stop()
            while not link.is_congested:
                server.notify_resource_updated("note://1")
            for _ in range(10_000):
                server.notify_resource_updated("note://1")
                server.notify_resource_updated("note://2")
                server.notify_resource_updated("note://nobody-asked")
            await turns()
            peer.go_on()
            heard = uris(await peer.heard())
            assert heard[-2:] == ["note://1", "note://2"], "the last change of each is told"
            assert sum(map(len, heard)) < 2 * HIGH_WATER_BYTES
            assert heard.count("note://2") == 1
            server.notify_resource_updated("note://1")
            assert uris(await peer.heard()) == ["note://1"], "then as before"

    run(main())


def test_nothing_is_told_of_a_resource_that_was_unsubscribed_meanwhile() -> None:
    async def main() -> None:
        server = offering()
        async with facing(server) as (peer, link):
            await peer.subscribe("note://1", "note://2")
            peer.stop()
            while not link.is_congested:
                server.notify_resource_updated("note://1")
            server.notify_resource_updated("note://2")
            peer.request("away", "resources/unsubscribe", {"uri": "note://2"})
            await turns()
            peer.go_on()
            assert "note://2" not in [
                message.get("params", {}).get("uri") for message in await peer.heard()
            ]

    run(main())


@duty("trust.practices")
def test_a_client_that_does_not_read_is_told_once_of_each_list() -> None:
    async def main() -> None:
        server = offering()
        async with facing(server) as (peer, link):
            await peer.subscribe("note://1")
            peer.stop()
            while not link.is_congested:
                server.notify_resource_updated("note://1")
            for number in range(200):
                server.add_tool(lambda: 1, name=f"t{number}")
                await turns(2)
            server.add_resource("x", "note://3", name="three")
            await turns()
            peer.go_on()
            methods = [message["method"] for message in await peer.heard()]
            assert methods.count("notifications/tools/list_changed") == 1
            assert methods.count("notifications/resources/list_changed") == 1

    run(main())


def test_a_client_that_leaves_with_news_unread_leaves_no_task() -> None:
    async def main() -> None:
        server = offering()
        async with facing(server) as (peer, link):
            await peer.subscribe("note://1", "note://2")
            peer.stop()
            while not link.is_congested:
                server.notify_resource_updated("note://1")
            server.notify_resource_updated("note://2")
            await turns()
        server.notify_resource_updated("note://2")

    run(main())


def test_one_client_that_does_not_read_keeps_nothing_from_another() -> None:
    async def main() -> None:
        server = offering()
        async with facing(server) as (deaf, link), facing(server) as (peer, _):
            await deaf.subscribe("note://1")
            await peer.subscribe("note://1")
            deaf.stop()
            count = 0
            while not link.is_congested:
                server.notify_resource_updated("note://1")
                count += 1
                await turns(2)
            for _ in range(5):
                server.notify_resource_updated("note://1")
                await turns(2)
            assert len(await peer.heard()) == count + 5
            deaf.go_on()
            assert len(await deaf.heard()) == count + 1

    run(main())
