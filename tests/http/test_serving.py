"""Serving by the server itself: where it listens, whom it refuses, how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from dragoman.errors import Misconfigured
from dragoman.server import serving
from tests.http.aids import (
    BOTH,
    JSON,
    STREAM,
    OldPeer,
    Peer,
    Place,
    bare,
    call,
    initialize,
    notification,
    request,
)
from tests.http.workshop import LATEST, Workshop, looped
from tests.requirements.duties import duty

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[str]:
    """A workshop that serves itself in this loop; the URL it names."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    shop = Workshop()
    ending = asyncio.ensure_future(shop.server.serve_http(on_ready=url.set_result, **options))
    try:
        both: set[asyncio.Future[Any]] = {ending, url}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            ending.result()
        yield url.result()
    finally:
        # Nobody else would catch it.
        if not ending.done():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait({ending})
    ending.result()


def place_at(url: str) -> Place:
    """The place a URL names."""
    parts = urlsplit(url)
    if parts.scheme == "http+unix":
        return Place(uds=unquote(parts.netloc))
    assert parts.port is not None
    return Place(parts.port)


# --- where ------------------------------------------------------------------------------------------


@looped
async def test_clients_of_a_server_whose_prefix_is_cut_off_post_below_it() -> None:
    async with running(port=0, root_path="/tools") as url:
        # The server's own address: the proxy comes here without the prefix.
        assert urlsplit(url).path == "/mcp"
        place = place_at(url)
        old = await OldPeer.connect(place)
        assert old.endpoint.startswith("/tools/messages?")
        # As the proxy would.
        old.endpoint = old.endpoint.removeprefix("/tools")
        await old.request("initialize", initialize("2024-11-05")["params"])
        await old.send(notification("notifications/initialized"))
        assert await old.call("add", {"a": 1, "b": 2}) == "3"
        old.stream.close()
        peer = await Peer.open(place, LATEST)
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        place.leave()


@pytest.mark.parametrize(
    "prefix",
    [
        "tools",
        "/",
        "/tools/",
        "//elsewhere",
        "/a b",
        "/a?b",
        "/a#b",
        "/a\n",
        "/a\r\ndata: x",
        "http://a/b",
    ],
)
@looped
async def test_a_prefix_that_is_none_is_refused_before_anything_listens(prefix: str) -> None:
    with pytest.raises(Misconfigured, match="root_path="):
        async with running(port=0, root_path=prefix):
            pass


@duty("http-sse.localhost")
@looped
async def test_a_server_listens_on_the_loopback_address_and_no_other() -> None:
    async with running(port=0) as url:
        assert urlsplit(url).hostname == "127.0.0.1"
        assert urlsplit(url).path == "/mcp"
        peer = await Peer.open(place_at(url), LATEST)
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        # The whole of 127/8 is this machine, so who listens everywhere would answer here as well.
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.2", peer.place.port)
        peer.place.leave()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
@looped
async def test_an_address_that_others_can_reach_needs_the_names_it_is_called_by(host: str) -> None:
    with pytest.raises(Misconfigured, match="allow_hosts"):
        async with running(host=host, port=0):
            pass


@looped
async def test_a_public_server_that_identifies_nobody_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with running(host="0.0.0.0", port=0, allow_hosts=["api.example"]) as url:
        place = Place(urlsplit(url).port or 0)
        peer = Peer(place, LATEST, extra={"Host": "api.example"})
        answer = await peer.post({}, host="other.example")
        assert answer.status == 403
        await answer.read()
        place.leave()
    assert any("identify" in record.getMessage() for record in caplog.records)


@looped
async def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Misconfigured, match=str(taken.getsockname()[1])):
            async with running(port=taken.getsockname()[1]):
                pass


@looped
async def test_a_unix_socket_is_its_users_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with running(socket=path) as url:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        peer = await Peer.open(place_at(url), LATEST)
        assert peer.place.uds == str(path)
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        with pytest.raises(Misconfigured, match="listens"):
            async with running(socket=path):
                pass
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        peer.place.leave()
    assert not path.exists()


@looped
async def test_a_socket_that_was_left_behind_is_replaced_and_any_other_file_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with running(socket=path) as url:
        peer = await Peer.open(place_at(url), LATEST)
        peer.place.leave()
    path.write_text("mine")
    with pytest.raises(Misconfigured, match="no socket"):
        async with running(socket=path):
            pass
    assert path.read_text() == "mine"


# --- the end ----------------------------------------------------------------------------------------


class Child:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, place: Place, folder: Path) -> None:
        self.process = process
        self.place = place
        self.folder = folder

    async def until(self, name: str) -> None:
        """Wait until the child made that file."""
        while not (self.folder / name).exists():
            await asyncio.sleep(0.01)

    async def until_closed(self) -> None:
        """Wait until nobody new is let in."""
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.place.port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def child_in(folder: Path) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.http.child", str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        child = Child(process, place_at(url), folder)
        yield child
        child.place.leave()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        # The pipe's transport is closed with the last of its bytes.
        await process.stdout.read()


@pytest.mark.parametrize("transport", ["streamable", "sse"])
@looped
async def test_a_server_that_is_told_to_stop_answers_what_it_took(
    transport: str, tmp_path: Path
) -> None:
    async with child_in(tmp_path) as child:
        if transport == "streamable":
            peer = await Peer.open(child.place, LATEST)
            idle = await peer.get()
            waiting = asyncio.ensure_future(peer.post(call(1, "wait")))
        else:
            old = await OldPeer.open(child.place)
            idle = (await OldPeer.open(child.place)).stream
            await old.send(call(1, "wait"))
        await child.until("came")
        child.process.send_signal(signal.SIGTERM)
        await child.until_closed()
        # A stream on which nothing can come any more does not hold up the end.
        assert await idle.messages() == []
        (tmp_path / "go").touch()
        if transport == "streamable":
            answer = await waiting
            told = (await answer.messages())[-1] if answer.kind == STREAM else await answer.json()
        else:
            told = await old.stream.message()
        assert told["result"]["content"][0]["text"] == "waited"
        assert await child.process.wait() == 0


@looped
async def test_a_connection_that_is_made_in_the_last_moment_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late: list[socket.socket] = []
    take = serving.take_waiting

    def at_the_last_moment(listening: socket.socket) -> list[socket.socket]:
        late.append(socket.create_connection(listening.getsockname()))
        late[0].sendall(bare("POST", "/mcp", headers, json.dumps(request(7, "ping")).encode()))
        return take(listening)

    monkeypatch.setattr(serving, "take_waiting", at_the_last_moment)
    async with running(port=0) as url:
        peer = await Peer.open(place_at(url), LATEST)
        given = peer.headers(Host=peer.place.host, Content_Type=JSON, Accept=BOTH)
        headers = [(name, text) for name, text in given.items() if text is not None]
        peer.place.leave()
    with late[0], late[0].makefile("rb") as answer:
        told = answer.read()
    assert told.startswith(b"HTTP/1.1 200 ")
    assert told.endswith(b'{"jsonrpc":"2.0","id":7,"result":{}}')


@looped
async def test_a_connection_that_a_stream_leaves_free_serves_one_more_request(
    tmp_path: Path,
) -> None:
    # A proxy uses it for the next request at once: a call that was then lost could not be repeated.
    async with child_in(tmp_path) as child:
        peer = await Peer.open(child.place, LATEST)
        reader, writer = await child.place.connect()
        given = peer.headers(Host=child.place.host, Content_Type=JSON, Accept=BOTH)
        headers = [(name, text) for name, text in given.items() if text is not None]
        writer.write(bare("GET", "/mcp", headers, b""))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        child.process.send_signal(signal.SIGTERM)
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(bare("POST", "/mcp", headers, json.dumps(request(7, "ping")).encode()))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in head
        assert b"connection: close" in head
        assert json.loads(await reader.read()) == {"jsonrpc": "2.0", "id": 7, "result": {}}
        writer.close()
        assert await child.process.wait() == 0


@pytest.mark.long
@looped
async def test_a_call_that_never_ends_does_not_keep_a_server_from_stopping(tmp_path: Path) -> None:
    (tmp_path / "short").touch()
    async with child_in(tmp_path) as child:
        peer = await Peer.open(child.place, LATEST)
        waiting = asyncio.ensure_future(peer.post(call(1, "hang")))
        await child.until("came")
        child.process.send_signal(signal.SIGTERM)
        assert await child.process.wait() == 0
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            assert b'"result"' not in await (await waiting).read()


@looped
async def test_a_server_that_is_told_twice_stops_at_once(tmp_path: Path) -> None:
    async with child_in(tmp_path) as child:
        peer = await Peer.open(child.place, LATEST)
        waiting = asyncio.ensure_future(peer.post(call(1, "hang")))
        await child.until("came")
        child.process.send_signal(signal.SIGINT)
        await child.until_closed()
        child.process.send_signal(signal.SIGINT)
        await child.process.wait()
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await (await waiting).read()
