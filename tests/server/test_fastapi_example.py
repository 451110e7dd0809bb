"""examples/fastapi_mount: a server behind a prefix of a web application, under uvicorn."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman import Client, ToolError
from tests.support import HANDSHAKE, PATIENCE_S, run

FOLDER = Path(__file__).parent.parent.parent / "examples" / "fastapi_mount"

# As in the example, but on a port that is free, which it tells.
SERVE = """
import socket, sys
import uvicorn
from shop import app

sock = socket.socket()
sock.bind(("127.0.0.1", 0))
sock.listen()

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(sock.getsockname()[1], flush=True)

config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
Server(config).run(sockets=[sock])
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.terminate()
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, -15), stderr
    assert "Error" not in stderr


def test_the_application_s_own_routes_are_beside_the_mounted_server(origin: str) -> None:
    with urllib.request.urlopen(f"{origin}/orders/7", timeout=PATIENCE_S) as response:
        assert json.load(response)["item"] == "apple cake"


@pytest.mark.parametrize("revision", HANDSHAKE)
def test_the_mounted_server_answers_every_revision_on_its_transport(
    origin: str, revision: str
) -> None:
    path = "sse" if revision == HANDSHAKE[0] else "mcp"

    async def talk() -> None:
        async with Client(f"{origin}/agents/{path}", revision=revision) as client:
            assert client.protocol_version == revision
            found = await client.call_tool("order", {"number": 8})
            assert json.loads(found.text) == {"number": 8, "item": "teapot", "is_sent": True}
            with pytest.raises(ToolError, match="no order 9"):
                await client.call_tool("order", {"number": 9})

    run(talk())


def test_what_an_agent_changes_is_told_to_the_others_and_seen_by_people(origin: str) -> None:
    heard: list[str] = []

    async def talk() -> None:
        told = asyncio.Event()

        def hear(uri: str) -> None:
            heard.append(uri)
            told.set()

        url = f"{origin}/agents/mcp"
        async with Client(url, on_resource_updated=hear) as one, Client(url) as other:
            await one.subscribe_resource("shop://orders/7")
            assert (await other.call_tool("send", {"number": 7})).text == "on its way"
            await told.wait()

    run(talk())
    assert heard == ["shop://orders/7"]
    with urllib.request.urlopen(f"{origin}/orders/7", timeout=PATIENCE_S) as response:
        assert json.load(response)["is_sent"] is True
