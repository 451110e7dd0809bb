"""Listening, and ending in order: sockets of our own, a descriptor that was given, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman import Client, Misconfigured, Server
from dragoman.server import serving
from dragoman.server.serving import listen
from tests.support import PATIENCE_S, run

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


# --- where ---------------------------------------------------------------------------------------


def test_a_free_port_is_taken_and_named() -> None:
    place = listen(port=0)
    try:
        port = place.sock.getsockname()[1]
        assert place.origin == f"http://127.0.0.1:{port}"
        with pytest.raises(Misconfigured, match=str(port)):
            listen(port=port)
    finally:
        place.close()


def test_an_ipv6_address_stands_in_brackets() -> None:
    try:
        place = listen("::1", 0)
    except Misconfigured:
        pytest.skip("no IPv6 here")
    assert place.origin.startswith("http://[::1]:")
    place.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost"])
def test_this_machine_s_addresses_need_no_list_of_names(host: str) -> None:
    assert serving.is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_an_address_that_others_reach_needs_a_list_of_names(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Misconfigured, match="allow_hosts"):
        listen(host, 0)
    assert caplog.records == []


def test_who_lets_everybody_in_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    listen("0.0.0.0", 0, has_hosts=True, is_public=False).close()
    assert caplog.records == []
    listen("0.0.0.0", 0, has_hosts=True).close()
    assert "identify" in caplog.text


@posix
def test_a_unix_socket_is_its_owner_s_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    place = listen(path=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Misconfigured, match="listens on"):
        listen(path=path)
    place.close()
    assert not path.exists()


@posix
def test_a_socket_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    serving.bind_unix(path).close()
    assert path.exists()
    place = listen(path=path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    place.close()


@posix
def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(Misconfigured, match="no socket"):
        listen(path=path)
    assert path.read_text() == "precious"
    for bad in (tmp_path / "none" / "s.sock", tmp_path / ("x" * 200)):
        with pytest.raises(Misconfigured):
            listen(path=bad)


@posix
def test_a_descriptor_that_listens_is_served_and_any_other_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        place = listen(fd=os.dup(given.fileno()))
        assert place.origin == f"http://127.0.0.1:{given.getsockname()[1]}"
        place.close()
        # Whoever gave it still has it.
        with socket.create_connection(given.getsockname()):
            pass
    with socket.socket() as idle, pytest.raises(Misconfigured, match="listening"):
        listen(fd=idle.fileno())
    with socket.create_server(("0.0.0.0", 0)) as public:
        fd = public.fileno()
        with pytest.raises(Misconfigured, match="allow_hosts"):
            listen(fd=fd)
        assert public.getsockname()
    with (tmp_path / "file").open("w") as file, pytest.raises(Misconfigured, match="no socket"):
        listen(fd=file.fileno())


@posix
def test_a_server_serves_on_a_descriptor() -> None:
    async def talk() -> None:
        server = Server("s")
        with socket.create_server(("127.0.0.1", 0)) as given:
            ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            task = asyncio.ensure_future(
                server.serve_http(fd=os.dup(given.fileno()), on_ready=ready.set_result)
            )
            async with Client(await ready) as client:
                await client.ping()
            os.kill(os.getpid(), signal.SIGTERM)
            await task

    run(talk())


# --- the end -------------------------------------------------------------------------------------

CHILD = """
import asyncio, sys
from contextlib import asynccontextmanager
from dragoman import Server
from dragoman.server import serving

# A busy machine may take longer than a client would to send its next request.
serving.LINGER_S = 1.5

@asynccontextmanager
async def life(server):
    yield
    print("lifespan left", flush=True)

server = Server("child", lifespan=life)

@server.tool
async def until(path: str) -> str:
    from pathlib import Path
    Path(path).touch()
    while Path(path).exists():
        await asyncio.sleep(0.01)
    return "done"

@server.tool
async def fast() -> int:
    return 1

server.run("http", port=0, on_ready=lambda url: print(url, flush=True))
"""


class Child:
    """A server in a process, raw connections to it, and a session."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2].partition("/")[0])

    def finish(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


HELLO = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"raw","version":"1"}}}'
)
PING = b'{"jsonrpc":"2.0","id":2,"method":"ping"}'


class Raw:
    """One keep-alive connection, byte for byte."""

    def __init__(self, child: Child) -> None:
        self._sock = socket.create_connection(("127.0.0.1", child.port), timeout=PATIENCE_S)
        self._file = self._sock.makefile("rb")

    def post(self, body: bytes, session: str | None = None) -> tuple[int, dict[str, str], bytes]:
        """Send one POST and read its whole answer."""
        self.send("POST", body, session)
        return self.read()

    def send(self, method: str, body: bytes = b"", session: str | None = None) -> None:
        """Send one request."""
        extra = "" if session is None else f"mcp-session-id: {session}\r\n"
        head = (
            f"{method} /mcp HTTP/1.1\r\nhost: localhost\r\naccept: application/json, "
            f"text/event-stream\r\ncontent-type: application/json\r\n{extra}"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self._sock.sendall(head.encode() + body)

    def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of the next answer."""
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer, which has a length."""
        status, headers = self.head()
        return status, headers, self._file.read(int(headers["content-length"]))

    def is_at_end(self) -> bool:
        """Wait for the other side to close; reads what still comes."""
        while self._file.read(1):
            pass
        return True

    def close(self) -> None:
        """Close our end."""
        self._file.close()
        self._sock.close()


def is_listening(child: Child) -> bool:
    try:
        socket.create_connection(("127.0.0.1", child.port), timeout=PATIENCE_S).close()
    except ConnectionError:
        # Refused, or not accepted any more.
        return False
    return True


def wait_until(condition: Callable[[], Any]) -> None:
    while not condition():
        pass


@pytest.mark.long
@posix
def test_a_request_that_was_sent_before_the_end_is_answered_and_its_connection_closed() -> None:
    with Child() as child:
        connection = Raw(child)
        session = connection.post(HELLO)[1]["mcp-session-id"]
        assert connection.post(PING, session)[1].get("connection") is None
        child.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(child))
        # The client does not know yet.
        status, headers, body = connection.post(PING, session)
        assert (status, headers["connection"]) == (200, "close")
        assert body == b'{"jsonrpc":"2.0","id":2,"result":{}}'
        assert connection.is_at_end()
        connection.close()
        assert child.finish() == (0, "lifespan left\n", "")


@pytest.mark.long
@posix
def test_a_call_under_way_is_answered_before_the_server_ends(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def talk(child: Child) -> None:
        async with Client(child.url, reconnect=False) as client:
            calling = asyncio.ensure_future(client.call_tool("until", {"path": str(flag)}))
            while not flag.exists():
                await asyncio.sleep(0)
            child.process.send_signal(signal.SIGTERM)
            while await asyncio.to_thread(is_listening, child):
                pass
            flag.unlink()
            assert (await calling).text == "done"

    with Child() as child:
        run(talk(child))
        assert child.finish() == (0, "lifespan left\n", "")


@pytest.mark.long
@posix
def test_streams_that_only_listen_do_not_hold_up_the_end() -> None:
    with Child() as child:
        connection, listener = Raw(child), Raw(child)
        session = connection.post(HELLO)[1]["mcp-session-id"]
        listener.send("GET", session=session)
        assert listener.head()[0] == 200
        child.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(child))
        # Another begins while the server leaves.
        connection.send("GET", session=session)
        assert connection.head()[0] == 200
        assert listener.is_at_end()
        assert connection.is_at_end()
        listener.close()
        connection.close()
        assert child.finish() == (0, "lifespan left\n", "")


@posix
def test_a_signal_to_the_process_and_to_its_group_is_one() -> None:
    with Child() as child:
        child.process.send_signal(signal.SIGTERM)
        child.process.send_signal(signal.SIGINT)
        child.process.send_signal(signal.SIGTERM)
        assert child.finish() == (0, "lifespan left\n", "")


def test_a_lifespan_that_fails_is_told_as_such(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def life(server: Server) -> AsyncIterator[None]:
        if server.name == "s":
            raise RuntimeError("no database today")
        yield

    async def serve() -> None:
        with pytest.raises(Misconfigured, match="did not start"):
            await Server("s", lifespan=life).serve_http(port=0)

    # Whoever ran uvicorn with its own logging in this process has turned these off.
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    caplog.set_level(logging.ERROR, "uvicorn.error")
    run(serve())
    assert "no database today" in caplog.text
