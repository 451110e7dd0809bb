"""A dragoman server behind a real nginx, with the configuration of examples/proxy.

`proxied_server.py` is behind it: it takes 0.3 s until an answer becomes a stream, and sends a sign of life
every 0.3 s on a stream where nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dragoman import Client, DeadlineExceeded, LinkError, Server
from dragoman.client.supervisor import ConnectionEvent, Reconnect
from dragoman.errors import HttpError
from dragoman.model.progress import ProgressParams
from dragoman.transport.http.client import HttpOptions
from interop import nginx, peers
from tests.interop.clients import CLIENTS, RUNS, pair
from tests.interop.documents import CHECKS, run
from tests.interop.serving import PATHS as PATH_OF
from tests.interop.serving import Program, free_port

CONFIGURATION = peers.ROOT / "examples" / "proxy" / "nginx.conf"
NGINX = nginx.find()

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(NGINX is None, reason="no nginx; python interop/nginx.py fetches one"),
]

USE_TIMEOUT_S = 30.0
PREFIX = "/tools"
PATHS = ["/mcp", "/sse"]

# Each line of the configuration that a test sets otherwise, or adds to `location`.
Change = tuple[str, str]


def more(line: str) -> Change:
    """Adds a line to the location."""
    return "            proxy_http_version 1.1;\n", f"            proxy_http_version 1.1;\n{line}\n"


# As root its workers would become somebody who may not write below a test's directory.
USER = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
AT_THE_ROOT = ("location /tools/ {", "location / {")
BUFFERED = more("proxy_buffering on;")
UNBUFFERED = more("proxy_buffering off;")
DEAF = more("proxy_ignore_headers X-Accel-Buffering;")
IMPATIENT = ("proxy_read_timeout 60s;", "proxy_read_timeout 1s;")
GZIP_ALL = ("gzip_types application/json;", "gzip_types *;")
LOGGED = (
    "access_log off;",
    'log_format s "$connection $status $upstream_status"; access_log access.log s;',
)


@dataclass
class Proxied:
    """A server and the proxy before it."""

    backend: Program
    front: Program
    directory: Path

    @property
    def url(self) -> str:
        return self.front.url + PREFIX

    def lines(self) -> list[list[str]]:
        """The access log of the proxy, by word."""
        return [line.split() for line in (self.directory / "access.log").read_text().splitlines()]


@contextlib.contextmanager
def proxied(
    directory: Path,
    *changes: Change,
    server: Callable[[int], list[str]] | None = None,
    env: Callable[[int], dict[str, str]] = lambda port: {},
) -> Iterator[Proxied]:
    """A server behind nginx, configured as in examples/proxy but for the changes."""
    script = peers.PROGRAMS / "proxied_server.py"
    backend = Program(
        "proxied-server",
        server or (lambda port: [sys.executable, str(script), str(port), PREFIX]),
        env=env,
    )
    written = directory / "nginx.conf"

    def command(port: int) -> list[str]:
        text = CONFIGURATION.read_text("utf-8")
        ports = (("127.0.0.1:8000", f"127.0.0.1:{backend.port}"), (":8080", f":{port}"))
        told = [
            (old.replace("PORT", str(port)), new.replace("PORT", str(port))) for old, new in changes
        ]
        for old, new in (*ports, ("daemon off;", USER), *told):
            assert old in text, old
            text = text.replace(old, new)
        written.write_text(text, "utf-8")
        return [str(NGINX), "-p", str(directory), "-c", str(written)]

    with backend, Program("nginx", command) as front:
        yield Proxied(backend, front, directory)


def in_time(use: Awaitable[None]) -> None:
    async def run() -> None:
        async with asyncio.timeout(USE_TIMEOUT_S):
            await use

    asyncio.run(run())


async def walk(client: Client, to: int, timeout_s: float | None = None) -> list[float]:
    """A call whose every step waits until we have heard of the one before; what we heard."""
    heard: list[float] = []
    steps: list[asyncio.Task[object]] = []

    def on_progress(update: ProgressParams) -> None:
        heard.append(update.progress)
        steps.append(asyncio.ensure_future(client.call_tool("step")))

    result = await client.call_tool(
        "walk", {"to": to}, on_progress=on_progress, timeout_s=timeout_s
    )
    assert result.text == f"walked {to}"
    await asyncio.gather(*steps)
    return heard


def test_the_configuration_of_the_example_serves_as_it_is(tmp_path: Path) -> None:
    with proxied(tmp_path) as place:

        async def use() -> None:
            for path in PATHS:
                async with Client(place.url + path) as client:
                    assert (await client.call_tool("size", {"text": "abc"})).text == "3"
                    assert await walk(client, 3) == [1, 2, 3]

        in_time(use())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("buffering", [BUFFERED, UNBUFFERED], ids=["on", "off"])
def test_events_arrive_when_they_happen_whatever_the_buffering(
    path: str, buffering: Change, tmp_path: Path
) -> None:
    with proxied(tmp_path, buffering) as place:

        async def use() -> None:
            updated: list[str] = []
            async with Client(place.url + path, on_resource_updated=updated.append) as client:
                assert await walk(client, 3) == [1, 2, 3]
                # What belongs to no request has a stream of its own.
                await client.subscribe_resource("notes://one")
                await client.call_tool("touch")
                while not updated:
                    await client.ping()

        in_time(use())


def test_a_proxy_that_compresses_streams_and_is_deaf_to_our_header_holds_them_back(
    tmp_path: Path,
) -> None:
    # What the tests around this one would see if the server did not say "X-Accel-Buffering: no".
    with proxied(tmp_path, DEAF, GZIP_ALL) as place:

        async def use() -> None:
            async with Client(place.url + "/mcp") as client:
                with pytest.raises(DeadlineExceeded):
                    await walk(client, 2, timeout_s=1.0)

        in_time(use())


@pytest.mark.parametrize("path", PATHS)
def test_a_call_may_take_longer_than_the_patience_of_the_proxy(path: str, tmp_path: Path) -> None:
    with proxied(tmp_path, IMPATIENT, LOGGED) as place:

        async def use() -> None:
            events: list[ConnectionEvent] = []
            async with Client(place.url + path, on_connection=events.append) as client:
                assert (await client.call_tool("wait", {"seconds": 2.5})).text == "waited"
            assert events == []

        in_time(use())
        assert {status for _, status, _ in place.lines()} <= {"200", "202", "204", "405", "499"}


def test_connections_are_kept_on_both_sides_of_the_proxy(tmp_path: Path) -> None:
    with proxied(tmp_path, LOGGED) as place:

        async def use() -> None:
            async with Client(place.url + "/mcp") as client:
                for number in range(50):
                    await client.call_tool("size", {"text": "a" * number})
                seen = json.loads((await client.call_tool("seen")).text)
            # Its own stream has one; nginx keeps the others.
            assert seen["connections"] <= 6
            assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"
            assert seen["headers"]["host"] == "127.0.0.1"

        in_time(use())
        lines = place.lines()
        assert len(lines) > 50
        assert len({connection for connection, _, _ in lines}) <= 4


@pytest.mark.parametrize("types", [None, GZIP_ALL], ids=["json", "all"])
def test_a_proxy_may_compress(types: Change | None, tmp_path: Path) -> None:
    with proxied(tmp_path, *([types] if types else [])) as place:

        async def use() -> None:
            for path in PATHS:
                async with Client(place.url + path) as client:
                    table = (await client.call_tool("table", {"rows": 20_000})).text
                    assert table == "a row of the table\n" * 20_000
                    assert await walk(client, 3) == [1, 2, 3]

        in_time(use())


def test_a_long_answer_is_compressed(tmp_path: Path) -> None:
    with proxied(tmp_path) as place:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "gzip",
        }

        def post(message: object, **more: str) -> tuple[dict[str, str], bytes]:
            body = json.dumps(message).encode()
            request = urllib.request.Request(place.url + "/mcp", body, {**headers, **more})
            with urllib.request.urlopen(request, timeout=10) as response:
                return {k.lower(): v for k, v in response.headers.items()}, response.read()

        info = {"name": "raw", "version": "1"}
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
        answer, _ = post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        session = {"Mcp-Session-Id": answer["mcp-session-id"]}
        post({"jsonrpc": "2.0", "method": "notifications/initialized"}, **session)
        call = {"name": "table", "arguments": {"rows": 20_000}}
        answer, body = post(
            {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}, **session
        )
        assert answer["content-encoding"] == "gzip"
        assert len(body) < 10_000


def test_a_body_as_large_as_the_server_takes_passes_the_proxy(tmp_path: Path) -> None:
    with proxied(tmp_path) as place:

        async def use() -> None:
            async with Client(place.url + "/mcp") as client:
                text = "a" * 5_000_000
                assert (await client.call_tool("size", {"text": text})).text == "5000000"

        in_time(use())


@pytest.mark.parametrize("path", PATHS)
def test_the_client_survives_a_server_that_is_redeployed_behind_the_proxy(
    path: str, tmp_path: Path
) -> None:
    with proxied(tmp_path, LOGGED) as place:

        async def use() -> None:
            events: list[ConnectionEvent] = []
            updated: list[str] = []
            async with Client(
                place.url + path,
                reconnect=Reconnect(
                    first_delay_s=0.05, max_delay_s=0.3, max_tries=1_000, total_s=USE_TIMEOUT_S
                ),
                on_connection=events.append,
                on_resource_updated=updated.append,
            ) as client:
                await client.subscribe_resource("notes://one")
                call = asyncio.create_task(client.call_tool("wait", {"seconds": 20}))
                # It runs once a later call was answered.
                await client.call_tool("size", {"text": ""})
                await asyncio.to_thread(place.backend.kill)
                meanwhile = asyncio.create_task(
                    client.call_tool("size", {"text": "abc"}, idempotent=True)
                )
                # The proxy answers for the server that is away.
                while not any(status == "502" for _, status, _ in place.lines()):
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(place.backend.start)
                assert (await meanwhile).text == "3"
                with pytest.raises(LinkError) as caught:
                    await call
                assert caught.value.sent is not False
                await client.call_tool("touch")
                while not updated:
                    await client.ping()
            kinds = [event.kind for event in events]
            assert kinds[0] == "lost"
            assert kinds[-1] == "restored"
            assert "given_up" not in kinds

        in_time(use())


def test_without_a_server_the_proxy_is_to_blame_and_named(tmp_path: Path) -> None:
    with proxied(tmp_path) as place:
        place.backend.kill()

        async def use() -> None:
            with pytest.raises(HttpError) as caught:
                async with Client(place.url + "/mcp", reconnect=False):
                    pass
            assert caught.value.status == 502
            assert place.url in str(caught.value)

        in_time(use())


def test_the_page_about_it_quotes_the_configuration_and_its_commands_work(tmp_path: Path) -> None:
    page = (peers.ROOT / "docs" / "reverse-proxy.md").read_text("utf-8")
    known = {line.strip() for line in CONFIGURATION.read_text("utf-8").splitlines()}
    quoted = [
        line.strip()
        for block in page.split("```nginx\n")[1:]
        for line in block.split("```")[0].splitlines()
    ]
    assert len(quoted) > 10
    assert set(quoted) <= known | {""}
    example = CONFIGURATION.with_name("server.py")

    def server(port: int) -> list[str]:
        return [sys.executable, str(example)]

    with proxied(tmp_path, server=server, env=lambda port: {"PORT": str(port)}) as place:
        (told,) = [line for line in page.splitlines() if line.startswith("$ dragoman call ")]
        url, *rest = told.removeprefix("$ dragoman call ").split()
        command = [
            sys.executable,
            "-m",
            "dragoman",
            "call",
            url.replace(":8080", f":{place.front.port}"),
            *rest,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=USE_TIMEOUT_S)
        assert done.stderr == ""
        assert f"{told}\n{done.stdout}" in page


@pytest.mark.parametrize("words", [[], ["--reload"]], ids=["plain", "reload"])
def test_a_command_is_told_the_prefix_that_the_proxy_cuts_off(
    words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "served.py"
    file.write_text(
        "from dragoman import Server\nserver = Server('told')\n\n"
        "@server.tool\ndef add(a: int, b: int) -> int:\n    return a + b\n"
    )

    def server(port: int) -> list[str]:
        told = ["--transport", "http", "--port", str(port), "--root-path", PREFIX, *words]
        return [sys.executable, "-m", "dragoman", "run", str(file), *told]

    with proxied(tmp_path, server=server) as place:

        async def use() -> None:
            for path in PATHS:
                async with Client(place.url + path) as client:
                    assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "5"

        in_time(use())


def test_a_unix_socket_may_join_the_server_and_the_proxy(tmp_path: Path) -> None:
    place = tmp_path / "mcp.sock"
    text = CONFIGURATION.read_text("utf-8")
    port = free_port()
    for old, new in (
        ("server 127.0.0.1:8000", f"server unix:{place}"),
        (":8080", f":{port}"),
        ("daemon off;", USER),
    ):
        text = text.replace(old, new)
    (tmp_path / "nginx.conf").write_text(text, "utf-8")

    async def use() -> None:
        server = Server("joined")

        @server.tool
        def add(a: int, b: int) -> int:
            return a + b

        ready = asyncio.Event()
        serving = asyncio.create_task(
            server.serve_http(socket=place, on_ready=lambda url: ready.set())
        )
        await ready.wait()
        command = [str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
        try:
            with Program("nginx-unix", lambda _: command, port=port) as front:
                async with Client(front.url + PREFIX + "/mcp") as client:
                    assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "5"
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    in_time(use())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
@pytest.mark.parametrize("http2", [False, True], ids=["1.1", "2"])
def test_the_proxy_may_do_tls_and_http2(http2: bool, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-nodes", "-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*request, *names, *files], check=True, capture_output=True)
    pair_of_files = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
    listening = ("listen 127.0.0.1:PORT;", f"listen 127.0.0.1:PORT ssl http2; {pair_of_files}")
    versions = ("access_log off;", 'log_format v "$server_protocol"; access_log access.log v;')
    with proxied(tmp_path, listening, versions) as place:

        async def use() -> None:
            options = HttpOptions(verify=str(certificate), http2=http2)
            url = place.url.replace("http://", "https://")
            for path in PATHS:
                async with Client(url + path, http=options) as client:
                    calls = [client.call_tool("size", {"text": "a" * n}) for n in range(32)]
                    results = await asyncio.gather(*calls)
                    assert [result.text for result in results] == [str(n) for n in range(32)]
                    assert await walk(client, 3) == [1, 2, 3]

        in_time(use())
        assert {line for (line,) in place.lines()} == {"HTTP/2.0" if http2 else "HTTP/1.1"}


# One client of each line of the peers, the oldest first.
THROUGH = ["mcp-1.6-over-sse", "mcp-1.29-over-streamable", "mcp-2.3-over-streamable"]
THROUGH += ["ts-1-over-sse", "ts-2-at-2025-11-25-over-streamable"]


@pytest.mark.parametrize("name", THROUGH)
@pytest.mark.parametrize("buffering", [BUFFERED, UNBUFFERED], ids=["on", "off"])
def test_a_peer_client_sees_all_of_our_server_through_the_proxy(
    name: str, buffering: Change, tmp_path: Path
) -> None:
    script = peers.PROGRAMS / "dragoman_server.py"
    client, transport = RUNS[name]
    peer, program, options, _ = CLIENTS[client]

    def ours(port: int) -> list[str]:
        return [sys.executable, str(script), transport, str(port)]

    with proxied(tmp_path, AT_THE_ROOT, buffering, server=ours) as place:
        url = place.front.url + PATH_OF[transport]
        document = run(peers.program(peer, program, *options, transport, url))
    for check in CHECKS:
        check(document, pair(name))
