"""Opening a connection: once at a time, and nothing started for nothing."""

from __future__ import annotations

import asyncio

import pytest

from dragoman import Client, Server
from dragoman.client.targets import connector_for
from dragoman.errors import WrongState
from dragoman.transport.base import Link
from tests.scripted import scripted_server
from tests.support import run


class Counting:
    """A connector that counts what it opens."""

    def __init__(self, server: Server) -> None:
        self._connector = connector_for(server)
        self.opened = 0

    @property
    def description(self) -> str:
        return "a counted server"

    async def connect(self) -> Link:
        self.opened += 1
        return await self._connector.connect()


def test_a_second_connect_meanwhile_is_refused_and_starts_nothing() -> None:
    async def main() -> None:
        connector = Counting(Server("s"))
        client = Client(connector)
        first, second = await asyncio.gather(
            client.connect(), client.connect(), return_exceptions=True
        )
        assert first is client
        assert isinstance(second, WrongState)
        assert connector.opened == 1
        await client.aclose()
        async with client:
            assert connector.opened == 2

    run(main())


def test_no_server_is_started_for_an_introduction_that_is_no_json() -> None:
    async def main() -> None:
        connector = Counting(Server("s"))
        with pytest.raises(ValueError, match="JSON"):
            await Client(connector, experimental={"x": {"y": object()}}).connect()
        assert connector.opened == 0

    run(main())


def test_a_form_cannot_stall_the_client_that_fills_it() -> None:
    field = {"type": "string", "pattern": "^(.+)+\\x00$"}
    form = {"type": "object", "properties": {"a": field}}

    async def main() -> None:
        filled = {"a": "x" * 60}
        async with scripted_server({}, elicitation_handler=lambda _: filled) as (_, peer):
            peer.request(1, "elicitation/create", {"message": "?", "requestedSchema": form})
            answer = await peer.receive()
            assert answer["result"] == {"action": "accept", "content": filled}

    run(main())
