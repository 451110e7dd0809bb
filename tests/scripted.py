"""A client or a server of ours, joined with a script that plays the other side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from dragoman import Client, Server
from dragoman.testing import ScriptedPeer
from dragoman.transport.memory import MemoryLink, memory_pair


class ScriptedConnector:
    """Leads to a script; `peer` is a future, since the script begins when a client connects."""

    description = "a script"

    def __init__(self) -> None:
        self.peer: asyncio.Future[ScriptedPeer] = asyncio.get_running_loop().create_future()

    async def connect(self) -> MemoryLink:
        near, far = memory_pair()
        self.peer.set_result(ScriptedPeer(far))
        return near


@asynccontextmanager
async def scripted_server(
    capabilities: Mapping[str, Any] | None = None, *, revision: str | None = None, **options: Any
) -> AsyncIterator[tuple[Client, ScriptedPeer]]:
    """A connected client, and the script that serves it."""
    connector = ScriptedConnector()
    # The script is played once.
    client = Client(connector, **{"reconnect": False, **options})
    opening = asyncio.ensure_future(client.connect())
    peer = await connector.peer
    try:
        await peer.welcome(capabilities, revision=revision)
        await opening
        yield client, peer
    finally:
        opening.cancel()
        await client.aclose()


@asynccontextmanager
async def scripted_client(
    server: Server, capabilities: Mapping[str, Any] | None = None, *, revision: str | None = None
) -> AsyncIterator[ScriptedPeer]:
    """A script that has said hello to a server."""
    near, far = memory_pair()
    serving = asyncio.ensure_future(server.serve_link(far))
    peer = ScriptedPeer(near)
    try:
        await peer.hello(capabilities, revision=revision)
        yield peer
    finally:
        await peer.aclose()
        await serving


async def ask(
    peer: ScriptedPeer, method: str, params: Mapping[str, Any] | None = None, *, ident: Any = 1
) -> Any:
    """What a server answers: the whole message; what it tells meanwhile is passed over."""
    peer.request(ident, method, params)
    while True:
        message = await peer.receive()
        if message.get("id") == ident and "method" not in message:
            return message
