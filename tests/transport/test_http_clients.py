"""One suite over every HTTP library: real sockets, a server that is scripted byte by byte."""

from __future__ import annotations

import asyncio
import atexit
import gc
import gzip
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest

from dragoman.errors import HttpError, LinkClosed, Misconfigured, MissingExtra
from dragoman.transport.http import opening
from dragoman.transport.http.client import HttpClient, HttpOptions, HttpResponse
from dragoman.transport.http.opening import open_http
from tests.transport.aids import in_loop
from tests.transport.http_aids import (
    Authority,
    Call,
    answer,
    chunked,
    make_authority,
    running_proxy,
    serving,
    serving_h2,
)

OWN = ("aiohttp", "httpx2")
every_own = pytest.mark.parametrize("kind", OWN)
# the same, and clients of the user's
every_kind = pytest.mark.parametrize("kind", [*OWN, "ClientSession", "AsyncClient"])

JSON = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
PLENTY = 1 << 24


@asynccontextmanager
async def opened(kind: str, **options: Any) -> AsyncIterator[HttpClient]:
    """A client of that kind, closed at the end with whatever is behind it."""
    if kind == "ClientSession":
        async with aiohttp.ClientSession() as session:
            yield open_http(session)
    elif kind == "AsyncClient":
        async with httpx2.AsyncClient(trust_env=False) as client:
            yield open_http(client)
    else:
        client_of_ours = open_http(HttpOptions(backend=kind, **options))  # type: ignore[arg-type]
        try:
            yield client_of_ours
        finally:
            await client_of_ours.aclose()


async def fails(client: HttpClient, url: str, method: str = "POST") -> HttpError:
    """The error that a request ends with."""

    async def whole() -> None:
        response = await client.send(method, url, {}, b"{}" if method == "POST" else None)
        await response.read(PLENTY)

    with pytest.raises(HttpError) as caught:
        await whole()
    assert caught.value.__cause__ is None
    return caught.value


async def pieces(response: HttpResponse) -> list[bytes]:
    return [chunk async for chunk in response.chunks()]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


def says(data: bytes) -> Any:
    """A script that answers everything with these bytes."""

    async def script(call: Call) -> None:
        await call.write(data)

    return script


@cache
def deaf() -> socket.socket:
    """A socket that has a port and never listens: nobody else gets that port meanwhile."""
    kept = socket.socket()
    kept.bind(("127.0.0.1", 0))
    atexit.register(kept.close)
    return kept


def closed_port() -> int:
    """A port where nobody listens."""
    number: int = deaf().getsockname()[1]
    return number


# --- requests and answers ---------------------------------------------------------------------


@every_kind
@in_loop
async def test_a_post_comes_as_it_was_sent(kind: str) -> None:
    async with serving(says(answer(200, b"{}"))) as peer, opened(kind) as client:
        response = await client.send(
            "POST", f"{peer.url}/mcp?x=1%20y&z=%2F", {**JSON, "X-Own": "é"}, b'{"id":1}'
        )
        assert (response.status, await response.read(PLENTY)) == (200, b"{}")
        (call,) = peer.calls
        assert (call.method, call.target, call.body) == ("POST", "/mcp?x=1%20y&z=%2F", b'{"id":1}')
        assert call.header("accept") == "application/json, text/event-stream"
        assert call.header("content-type") == "application/json"
        assert call.header("content-length") == "8"
        assert call.header("host") == peer.url.partition("//")[2]
        assert call.header("accept-encoding") == "gzip, deflate"
        assert call.header("user-agent") == "dragoman"
        assert (call.header("x-own") or "").encode("latin-1").decode() == "é"
        assert response.url == f"{peer.url}/mcp?x=1%20y&z=%2F"


@every_kind
@pytest.mark.parametrize("method", ["GET", "DELETE"])
@in_loop
async def test_a_request_without_a_body_has_none(kind: str, method: str) -> None:
    async with serving(says(answer(204))) as peer, opened(kind) as client:
        response = await client.send(method, peer.url, {})
        assert (response.status, await response.read(0)) == (204, b"")
        (call,) = peer.calls
        assert (call.method, call.target, call.body) == (method, "/", b"")
        assert call.header("content-type") is None
        assert call.header("transfer-encoding") is None


@every_kind
@in_loop
async def test_every_status_is_an_answer(kind: str) -> None:
    async def script(call: Call) -> None:
        await call.write(answer(int(call.target[1:]), b"why"))

    async with serving(script) as peer, opened(kind) as client:
        for status in (202, 400, 401, 404, 405, 429, 500, 502, 599):
            response = await client.send("POST", f"{peer.url}/{status}", {}, b"{}")
            assert (response.status, await response.read(PLENTY)) == (status, b"why")


@every_kind
@in_loop
async def test_header_names_have_lower_case_and_repeated_ones_are_joined(kind: str) -> None:
    data = answer(200, b"", {"MCP-Session-ID": "s", "X-Two": "1", "x-two": "2"})
    async with serving(says(data)) as peer, opened(kind) as client:
        response = await client.send("GET", peer.url, {})
        await response.read(PLENTY)
        assert response.headers["mcp-session-id"] == "s"
        assert response.headers["x-two"] == "1, 2"
        assert all(name == name.lower() for name in response.headers)


@every_kind
@in_loop
async def test_informational_answers_are_passed_over(kind: str) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with serving(says(early + answer(200, b"ok"))) as peer, opened(kind) as client:
        response = await client.send("POST", peer.url, {}, b"{}")
        assert (response.status, await response.read(PLENTY)) == (200, b"ok")


@every_kind
@in_loop
async def test_a_large_body_goes_and_comes_whole(kind: str) -> None:
    async def script(call: Call) -> None:
        await call.write(answer(200, call.body))

    body = bytes(range(256)) * 12_000
    async with serving(script) as peer, opened(kind) as client:
        response = await client.send("POST", peer.url, JSON, body)
        assert await response.read(len(body)) == body


@every_own
@in_loop
async def test_no_cookie_is_kept(kind: str) -> None:
    data = answer(200, b"", {"Set-Cookie": "who=me; Path=/"})
    async with serving(says(data)) as peer, opened(kind) as client:
        for _ in range(2):
            response = await client.send("GET", peer.url, {})
            await response.read(PLENTY)
        assert [call.header("cookie") for call in peer.calls] == [None, None]


@every_kind
@in_loop
async def test_headers_may_change_from_request_to_request(kind: str) -> None:
    async with serving(says(answer())) as peer, opened(kind) as client:
        headers = {"X-Own": "1"}
        for value in ("1", "2", "2"):
            headers["X-Own"] = value
            await (await client.send("GET", peer.url, headers)).read(PLENTY)
        assert [call.header("x-own") for call in peer.calls] == ["1", "2", "2"]


@every_own
@in_loop
async def test_the_headers_of_the_options_go_along_and_those_of_the_call_win(kind: str) -> None:
    options = {"headers": {"X-Key": "k", "User-Agent": "mine", "X-Both": "no"}}
    async with serving(says(answer())) as peer, opened(kind, **options) as client:
        await (await client.send("GET", peer.url, {"x-both": "yes"})).read(PLENTY)
        (call,) = peer.calls
        assert [call.header(name) for name in ("x-key", "user-agent", "x-both")] == [
            "k",
            "mine",
            "yes",
        ]


@every_kind
@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "\x7f"])
@in_loop
async def test_a_header_that_would_break_the_request_is_refused(kind: str, value: str) -> None:
    async with serving(says(answer())) as peer, opened(kind) as client:
        with pytest.raises(Misconfigured) as caught:
            await client.send("GET", peer.url, {"Authorization": value})
        assert value not in str(caught.value)
        with pytest.raises(Misconfigured):
            await client.send("GET", peer.url, {f"X{value}": "1"})
        with pytest.raises(Misconfigured):
            await client.send("GET", peer.url, {"Content-Length": "7"})
        assert peer.accepted == 0


# --- bodies, however they come ----------------------------------------------------------------

TEXT = b'{"jsonrpc":"2.0","id":1,"result":{"text":"\xc3\xa9\xf0\x9f\x99\x82"}}'


def deflated(data: bytes, window: int) -> bytes:
    packer = zlib.compressobj(wbits=window)
    return packer.compress(data) + packer.flush()


ENCODED = {
    "identity": TEXT,
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT[:20]) + gzip.compress(TEXT[20:]),
    "GZIP": gzip.compress(TEXT),
    "deflate": deflated(TEXT, zlib.MAX_WBITS),
    "Deflate": deflated(TEXT, -zlib.MAX_WBITS),
}


@every_kind
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
@in_loop
async def test_a_body_may_be_cut_into_reads_and_chunks_anywhere(kind: str, framing: str) -> None:
    async def script(call: Call) -> None:
        if framing == "length":
            await call.drip(answer(200, TEXT))
        elif framing == "chunks":
            small = [TEXT[place : place + 1] for place in range(len(TEXT))]
            data = answer(200, chunked(*small), {"Transfer-Encoding": "chunked"})
            await call.drip(data)
        else:
            await call.drip(answer(200, TEXT, {"Connection": "close"}))
            call.writer.close()

    async with serving(script) as peer, opened(kind) as client:
        response = await client.send("GET", peer.url, {})
        assert await response.read(len(TEXT)) == TEXT
        response = await client.send("GET", peer.url, {})
        got = await pieces(response)
        assert b"".join(got) == TEXT
        assert all(got)


@every_kind
@pytest.mark.parametrize("encoding", ENCODED)
@in_loop
async def test_an_encoded_body_is_decoded_however_it_comes(kind: str, encoding: str) -> None:
    data = answer(200, ENCODED[encoding], {"Content-Encoding": encoding})

    async def script(call: Call) -> None:
        await call.drip(data, 1 if call.target == "/drip" else len(data))

    async with serving(script) as peer, opened(kind) as client:
        for path in ("/", "/drip"):
            response = await client.send("GET", peer.url + path, {})
            assert await response.read(len(TEXT)) == TEXT
            response = await client.send("GET", peer.url + path, {})
            assert b"".join(await pieces(response)) == TEXT
        assert peer.accepted == 1


@every_own
@in_loop
async def test_an_event_is_decoded_as_soon_as_it_was_flushed(kind: str) -> None:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    heard = asyncio.Event()

    async def script(call: Call) -> None:
        fields = {"Content-Encoding": "gzip", "Content-Length": "100000"}
        await call.write(answer(200, b"", fields))
        event = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
        await call.write(event)
        await heard.wait()
        call.cut()

    async with serving(script) as peer, opened(kind) as client:
        response = await client.send("GET", peer.url, {})
        chunks = response.chunks()
        assert await anext(chunks) == b"data: 1\n\n"
        heard.set()
        with pytest.raises(HttpError) as caught:
            await anext(chunks)
        assert caught.value.sent is True


@every_own
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", TEXT),
        ("gzip, gzip", TEXT),
        ("gzip", TEXT),
        ("gzip", gzip.compress(TEXT)[:-9]),
        ("deflate", b"\xff" * 40),
    ],
    ids=["unknown", "several", "not packed", "cut off", "broken"],
)
@in_loop
async def test_a_body_that_cannot_be_decoded_is_an_error(
    kind: str, encoding: str, body: bytes
) -> None:
    data = answer(200, body, {"Content-Encoding": encoding})
    async with serving(says(data)) as peer, opened(kind) as client:
        error = await fails(client, peer.url)
        assert (error.sent, error.status) == (True, None)
        response = await client.send("GET", peer.url, {})
        with pytest.raises(HttpError):
            await pieces(response)


@every_own
@pytest.mark.parametrize("framing", ["length", "chunks"])
@in_loop
async def test_a_decompression_bomb_is_refused_at_the_limit(kind: str, framing: str) -> None:
    bomb = gzip.compress(b"\0" * 8_000_000)
    assert len(bomb) < 100_000
    if framing == "length":
        data = answer(200, bomb, {"Content-Encoding": "gzip"})
    else:
        fields = {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
        data = answer(200, chunked(bomb), fields)
    async with serving(says(data)) as peer, opened(kind) as client:
        response = await client.send("GET", peer.url, {})
        with pytest.raises(HttpError, match="limit of 100000 bytes") as caught:
            await response.read(100_000)
        assert caught.value.sent is True
        response = await client.send("GET", peer.url, {})
        async for chunk in response.chunks():
            assert len(chunk) <= 65_536
            break
        await response.aclose()


@every_kind
@in_loop
async def test_a_body_of_the_limit_passes_and_a_longer_one_is_dropped(kind: str) -> None:
    async with serving(says(answer(200, b"x" * 200_000))) as peer, opened(kind) as client:
        response = await client.send("GET", peer.url, {})
        assert len(await response.read(200_000)) == 200_000
        for limit in (199_999, 10, 0):
            response = await client.send("GET", peer.url, {})
            with pytest.raises(HttpError, match=f"limit of {limit} bytes") as caught:
                await response.read(limit)
            assert caught.value.sent is True
            assert caught.value.url == peer.url + "/"


@every_own
@in_loop
async def test_a_reader_that_stops_holds_the_writer_back(kind: str) -> None:
    """Back-pressure: what is not read is not sent for ever."""
    written = 0

    async def script(call: Call) -> None:
        nonlocal written
        await call.write(answer(200, b"", {"Content-Length": str(1 << 30)}))
        while True:
            await call.write(b"x" * 65536)
            written += 65536

    async with serving(script) as peer, opened(kind) as client:
        response = await client.send("GET", peer.url, {})
        chunks = response.chunks()
        await anext(chunks)
        before = -1
        while written > before:
            before = written
            for _ in range(200):
                await asyncio.sleep(0)
        # buffers of both kernels' ends and ours, and far from a gigabyte
        assert written < 64 << 20
        # and what is read makes room for more
        while written == before:
            await anext(chunks)
        await response.aclose()
        await peer.until_closed()


# --- connections ------------------------------------------------------------------------------


@every_kind
@in_loop
async def test_a_connection_is_used_again_after_its_body_was_read(kind: str) -> None:
    async with serving(says(answer(200, b"abc"))) as peer, opened(kind) as client:
        for _ in range(3):
            await (await client.send("POST", peer.url, {}, b"{}")).read(PLENTY)
            await pieces(await client.send("GET", peer.url, {}))
        response = await client.send("GET", peer.url, {})
        assert await response.read(PLENTY) == b"abc"
        await response.aclose()
        await response.aclose()
        await (await client.send("GET", peer.url, {})).read(PLENTY)
        assert peer.accepted == 1


@every_kind
@in_loop
async def test_a_connection_whose_body_was_left_is_closed(kind: str) -> None:
    data = answer(200, b"abc", {"Content-Length": "1000"})
    async with serving(says(data)) as peer, opened(kind) as client:
        response = await client.send("GET", peer.url, {})
        assert await anext(response.chunks()) == b"abc"
        await response.aclose()
        await peer.until_closed()
        await response.aclose()


@every_kind
@in_loop
async def test_many_requests_are_made_at_once(kind: str) -> None:
    async def script(call: Call) -> None:
        await peer.until(lambda: len(peer.calls) >= 64)
        await call.write(answer(200, call.body))

    async with serving(script) as peer, opened(kind) as client:

        async def one(number: int) -> bytes:
            response = await client.send("POST", peer.url, {}, b"%d" % number)
            return await response.read(PLENTY)

        bodies = await asyncio.gather(*[one(number) for number in range(64)])
        assert bodies == [b"%d" % number for number in range(64)]
        assert peer.accepted == 64


@every_own
@in_loop
async def test_no_more_connections_are_made_than_allowed(kind: str) -> None:
    async with (
        serving(says(answer(200, b"x"))) as peer,
        opened(kind, max_connections=2) as client,
    ):

        async def one() -> None:
            await (await client.send("POST", peer.url, {}, b"{}")).read(PLENTY)

        await asyncio.gather(*[one() for _ in range(20)])
        assert len(peer.calls) == 20
        assert peer.accepted <= 2


@every_own
@in_loop
async def test_closing_the_client_closes_its_connections(kind: str) -> None:
    async with serving(says(answer(200, b"x"))) as peer:
        client = open_http(HttpOptions(backend=kind))  # type: ignore[arg-type]
        await (await client.send("POST", peer.url, {}, b"{}")).read(PLENTY)
        assert peer.open == 1
        await client.aclose()
        await client.aclose()
        await peer.until_closed()
        with pytest.raises(LinkClosed) as caught:
            await client.send("GET", peer.url, {})
        assert caught.value.sent is False


@pytest.mark.parametrize("kind", ["ClientSession", "AsyncClient"])
@in_loop
async def test_a_lent_client_is_left_open_and_may_be_closed_by_its_owner(kind: str) -> None:
    async with serving(says(answer(200, b"x", {"Content-Encoding": "identity"}))) as peer:
        owner: Any = aiohttp.ClientSession() if kind == "ClientSession" else httpx2.AsyncClient()
        client = open_http(owner)
        await (await client.send("GET", peer.url, {})).read(PLENTY)
        await client.aclose()
        response = await open_http(owner).send("GET", peer.url, {})
        await response.read(PLENTY)
        again = open_http(owner)
        await (owner.close() if kind == "ClientSession" else owner.aclose())
        with pytest.raises(HttpError):
            await again.send("GET", peer.url, {})
        await peer.until_closed()


@every_own
@in_loop
async def test_cancelling_at_any_await_leaves_no_socket_and_no_task(kind: str) -> None:
    body = b"x" * 300_000

    async def script(call: Call) -> None:
        await call.drip(answer(200, body), 60_000)

    async with serving(script) as peer:
        finished = 0
        for steps in range(60):
            async with opened(kind) as client:

                async def exchange(client: HttpClient = client) -> None:
                    response = await client.send("POST", peer.url, JSON, body)
                    try:
                        assert await response.read(PLENTY) == body
                    finally:
                        await response.aclose()

                task = asyncio.ensure_future(exchange())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                done = await asyncio.gather(task, return_exceptions=True)
                finished += done[0] is None
                if not finished:
                    assert isinstance(done[0], asyncio.CancelledError)
            await peer.until_closed()
        assert peer.calls


@every_own
@in_loop
async def test_a_cancelled_request_is_heard_of_by_the_server(kind: str) -> None:
    async def script(call: Call) -> None:
        assert await call.reader.read() == b""

    async with serving(script) as peer, opened(kind) as client:
        task = asyncio.ensure_future(client.send("POST", peer.url, {}, b"{}"))
        await peer.until(lambda: len(peer.calls) == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await peer.until_closed()
        peer.script = says(answer(200, b"ok"))
        assert await (await client.send("POST", peer.url, {}, b"{}")).read(9) == b"ok"


@every_own
@in_loop
async def test_a_body_waits_for_a_server_that_reads_slowly(kind: str) -> None:
    may_read = asyncio.Event()
    body = b"x" * (24 << 20)

    async def script(call: Call) -> None:
        await may_read.wait()
        assert await call.reader.readexactly(len(body)) == body
        await call.write(answer(200, b"all"))

    async with serving(script, reads_bodies=False) as peer, opened(kind) as client:
        task = asyncio.ensure_future(client.send("POST", peer.url, {}, body))
        await peer.until(lambda: len(peer.calls) == 1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        may_read.set()
        assert await (await task).read(9) == b"all"


@every_own
@in_loop
async def test_an_answer_may_come_before_the_body_was_taken(kind: str) -> None:
    async def script(call: Call) -> None:
        await call.write(answer(413, b"too large"))
        while await call.reader.read(65536):
            pass

    async with serving(script, reads_bodies=False) as peer, opened(kind) as client:
        response = await client.send("POST", peer.url, {}, b"x" * (24 << 20))
        assert (response.status, await response.read(99)) == (413, b"too large")
        await response.aclose()


# --- addresses of a name ----------------------------------------------------------------------


def _resolved(monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]) -> None:
    """Let every name have these addresses."""

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@contextmanager
def mute_listener() -> Iterator[tuple[str, int]]:
    """An address where connecting neither succeeds nor fails: its queue is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place: tuple[str, int] = full.getsockname()
        callers = [socket.socket() for _ in range(3)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(place)
        try:
            yield place
        finally:
            for caller in callers:
                caller.close()


@in_loop
async def test_the_next_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(says(answer(200, b"x"))) as peer, opened("httpx2") as client:
        host, _, port = peer.url.removeprefix("http://").partition(":")
        here = host, int(port)
        closed = host, closed_port()
        with mute_listener() as mute:
            for places in ((closed, here), (here, mute), (mute, closed, here)):
                with monkeypatch.context() as patch:
                    _resolved(patch, *places)
                    url = f"http://{len(places)}{places[0][1]}.invalid:{port}/"
                    response = await client.send("GET", url, {})
                    assert await response.read(9) == b"x"
        assert len(peer.calls) == 3
        _resolved(monkeypatch, closed, closed)
        assert (await fails(client, "http://closed.invalid/")).sent is False


@in_loop
async def test_cancelling_while_addresses_are_tried_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with mute_listener() as mute:
        _resolved(monkeypatch, mute, mute)
        async with opened("httpx2") as client:
            task = asyncio.ensure_future(client.send("GET", "http://mute.invalid/", {}))
            for _ in range(5):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
    # an open socket would be a ResourceWarning, which is an error here
    gc.collect()


@every_own
@in_loop
async def test_a_name_that_is_looked_up_for_ever_is_given_up(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with opened(kind, connect_timeout_s=0.05) as client:
        assert (await fails(client, "http://slow.invalid/")).sent is False


# --- failures, and whether the request may have run -------------------------------------------


@every_kind
@in_loop
async def test_a_refused_connection_was_certainly_not_sent(kind: str) -> None:
    url = f"http://127.0.0.1:{closed_port()}/mcp?key=hunter2"
    async with opened(kind) as client:
        error = await fails(client, url)
        assert (error.sent, error.status) == (False, None)
        assert error.url == url.replace("key=hunter2", "...")
        assert "hunter2" not in str(error)
        assert "refused" in str(error).lower() or "failed" in str(error)


@every_kind
@in_loop
async def test_a_name_without_an_address_was_certainly_not_sent(kind: str) -> None:
    async with opened(kind) as client:
        assert (await fails(client, "http://no-such-host.invalid/mcp")).sent is False


@every_own
@in_loop
async def test_an_untrusted_certificate_was_certainly_not_sent(
    kind: str, authority: Authority
) -> None:
    tls = authority.server_context()
    async with serving(says(answer()), tls=tls) as peer, opened(kind) as client:
        error = await fails(client, peer.url)
        assert error.sent is False
        assert "certificate" in str(error)
        assert peer.calls == []
        await peer.until_closed()


@every_own
@in_loop
async def test_a_peer_without_tls_was_certainly_not_sent(kind: str) -> None:
    async with serving(says(b""), blurts=answer(400)) as peer, opened(kind) as client:
        error = await fails(client, peer.url.replace("http:", "https:"))
        assert error.sent is False
        await peer.until_closed()


@every_own
@in_loop
async def test_a_peer_that_never_agrees_on_tls_is_given_up(kind: str) -> None:
    # It waits for the end of a request's head, which no TLS handshake holds.
    async with serving(says(answer())) as peer:
        url = peer.url.replace("http:", "https:")
        async with opened(kind, connect_timeout_s=0.05) as client:
            error = await fails(client, url)
            assert error.sent is False
            assert "in time" in str(error)
        await peer.until_closed()


@every_kind
@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Le", b"what?\r\n"]
)
@in_loop
async def test_a_connection_cut_before_the_answer_may_have_been_sent(
    kind: str, data: bytes
) -> None:
    async def script(call: Call) -> None:
        await call.write(data)
        call.writer.close()

    async with serving(script) as peer, opened(kind) as client:
        error = await fails(client, f"{peer.url}/?key=hunter2")
        assert (error.sent, error.status) == (None, None)
        assert "hunter2" not in str(error)
        await peer.until_closed()


@every_kind
@in_loop
async def test_a_connection_that_is_reset_may_have_been_sent(kind: str) -> None:
    async def script(call: Call) -> None:
        call.cut()

    async with serving(script) as peer, opened(kind) as client:
        assert (await fails(client, peer.url)).sent is None


@every_own
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("how", ["read", "chunks"])
@in_loop
async def test_a_body_that_breaks_off_was_certainly_sent(kind: str, framing: str, how: str) -> None:
    async def script(call: Call) -> None:
        if framing == "length":
            await call.write(answer(200, b"abc", {"Content-Length": "10"}))
        else:
            await call.write(answer(200, b"3\r\nabc\r\n", {"Transfer-Encoding": "chunked"}))
        call.writer.close()

    async with serving(script) as peer, opened(kind) as client:
        response = await client.send("POST", peer.url, {}, b"{}")
        with pytest.raises(HttpError) as caught:
            await (response.read(PLENTY) if how == "read" else pieces(response))
        assert caught.value.sent is True
        await peer.until_closed()


@every_own
@in_loop
async def test_a_connection_that_the_server_closed_meanwhile_is_not_used(kind: str) -> None:
    async def script(call: Call) -> None:
        await call.write(answer(200, b"x"))
        call.writer.close()

    async with serving(script) as peer, opened(kind) as client:
        for _ in range(3):
            await (await client.send("POST", peer.url, {}, b"{}")).read(9)
            await peer.until_closed()
            # the loop hears of it before the next request
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert peer.accepted == 3


# --- redirects --------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("status", [307, 308])
@in_loop
async def test_a_redirect_that_keeps_the_method_keeps_the_body(kind: str, status: int) -> None:
    async def script(call: Call) -> None:
        if call.target == "/old":
            await call.write(answer(status, b"moved", {"Location": "/new?a=1#part"}))
        else:
            await call.write(answer(200, call.body))

    async with serving(script) as peer, opened(kind) as client:
        for _ in range(2):
            response = await client.send("POST", f"{peer.url}/old", {"X-Own": "1"}, b"{}")
            assert await response.read(9) == b"{}"
            assert response.url == f"{peer.url}/new?a=1"
        # the address of a permanent one is remembered
        new = "/new?a=1"
        expected = ["/old", new, new] if status == 308 else ["/old", new, "/old", new]
        assert [call.target for call in peer.calls] == expected
        assert {call.header("x-own") for call in peer.calls} == {"1"}
        assert {call.method for call in peer.calls} == {"POST"}


@every_own
@pytest.mark.parametrize("status", [301, 302, 303])
@in_loop
async def test_a_redirect_that_may_change_the_method_is_followed_for_get_alone(
    kind: str, status: int
) -> None:
    async def script(call: Call) -> None:
        if call.target == "/old":
            await call.write(answer(status, b"", {"Location": "new"}))
        else:
            await call.write(answer(200, b"here"))

    async with serving(script) as peer, opened(kind) as client:
        response = await client.send("GET", f"{peer.url}/old", {})
        assert await response.read(9) == b"here"
        for method in ("POST", "DELETE"):
            error = await fails(client, f"{peer.url}/old", method)
            assert (error.status, error.sent) == (status, None)
        assert [call.target for call in peer.calls] == ["/old", "/new", "/old", "/old"]
        await (await client.send("GET", f"{peer.url}/old", {})).read(9)
        assert [call.target for call in peer.calls[4:]] == (
            ["/new"] if status == 301 else ["/old", "/new"]
        )


@every_own
@in_loop
async def test_a_client_that_stays_where_it_was_sent_follows_no_redirect_elsewhere(
    kind: str,
) -> None:
    async def elsewhere(call: Call) -> None:
        await call.write(answer(200, b"elsewhere"))

    async with serving(elsewhere) as other:

        async def script(call: Call) -> None:
            there = {"/near": "/here", "/far": f"{other.url}/"}.get(call.target)
            if there is None:
                await call.write(answer(200, b"here"))
            else:
                await call.write(answer(307, b"", {"Location": there}))

        async with serving(script) as peer, opened(kind, stays_at_origin=True) as client:
            response = await client.send("POST", f"{peer.url}/near", {}, b"{}")
            assert await response.read(9) == b"here"
            error = await fails(client, f"{peer.url}/far")
            assert "another place than was agreed to" in str(error)
        assert other.calls == []


@every_own
@in_loop
async def test_five_redirects_are_followed_and_no_sixth(kind: str) -> None:
    async def script(call: Call) -> None:
        left = int(call.target[1:])
        if left:
            await call.write(answer(307, b"", {"Location": f"/{left - 1}"}))
        else:
            await call.write(answer(200, b"end"))

    async with serving(script) as peer, opened(kind) as client:
        response = await client.send("POST", f"{peer.url}/5", {}, b"{}")
        assert await response.read(9) == b"end"
        error = await fails(client, f"{peer.url}/6")
        assert (error.status, error.sent) == (307, False)
        assert len(peer.calls) == 6 + 6
        assert peer.accepted == 1


@every_kind
@in_loop
async def test_another_origin_gets_no_header_that_could_be_a_secret(kind: str) -> None:
    secrets = {
        "Authorization": "Bearer hunter2",
        "Cookie": "who=me",
        "Mcp-Session-Id": "s",
        "X-Api-Key": "hunter2",
        "Last-Event-ID": "e",
    }
    plain = {**JSON, "MCP-Protocol-Version": "x"}
    async with serving(says(answer(200, b"there"))) as there:
        moved = answer(308, b"", {"Location": f"{there.url}/mcp"})
        async with serving(says(moved)) as here, opened(kind) as client:
            for _ in range(2):
                response = await client.send("POST", here.url, {**plain, **secrets}, b"{}")
                assert await response.read(9) == b"there"
                assert response.url == f"{there.url}/mcp"
            assert len(here.calls) == 1
            assert all(here.calls[0].header(name) == value for name, value in secrets.items())
            for call in there.calls:
                assert [call.header(name) for name in secrets] == [None] * 5
                assert [call.header(name) for name in plain] == list(plain.values())
                assert call.body == b"{}"
                assert call.header("host") == there.url.partition("//")[2]


@every_own
@in_loop
async def test_what_was_lost_on_the_way_does_not_come_back_on_the_way_back(kind: str) -> None:
    async def away(call: Call) -> None:
        if call.target == "/":
            await call.write(answer(307, b"", {"Location": there.url}))
        else:
            await call.write(answer(200, b"back"))

    async def back(call: Call) -> None:
        await call.write(answer(307, b"", {"Location": f"{here.url}/end"}))

    async with serving(away) as here, serving(back) as there, opened(kind) as client:
        response = await client.send("POST", here.url, {"Authorization": "Bearer x"}, b"{}")
        assert await response.read(9) == b"back"
        assert here.calls[0].header("authorization") == "Bearer x"
        assert here.calls[1].header("authorization") is None


@every_own
@in_loop
async def test_https_never_leads_to_http(kind: str, authority: Authority) -> None:
    async with serving(says(answer(200))) as plain:
        moved = answer(307, b"", {"Location": plain.url})
        async with (
            serving(says(moved), tls=authority.server_context()) as secure,
            opened(kind, verify=authority.ca) as client,
        ):
            error = await fails(client, secure.url)
            assert (error.status, error.sent) == (307, False)
            assert plain.calls == []


@every_own
@in_loop
async def test_another_machine_never_leads_to_this_one(kind: str) -> None:
    async with serving(says(answer(200))) as ours:
        moved = answer(307, b"", {"Location": ours.url})
        async with serving(says(moved)) as proxy, opened(kind, proxy=proxy.url) as client:
            error = await fails(client, "http://public.invalid/")
            assert (error.status, error.sent) == (307, False)
            assert len(proxy.calls) == 1


@every_own
@pytest.mark.parametrize(
    "location", [None, "ftp://127.0.0.1/", "file:///etc/passwd", "http://a b/", "//[x/"]
)
@in_loop
async def test_a_redirect_to_nowhere_is_an_error(kind: str, location: str | None) -> None:
    fields = {} if location is None else {"Location": location}
    async with serving(says(answer(307, b"", fields))) as peer, opened(kind) as client:
        error = await fails(client, peer.url)
        assert (error.status, error.sent) == (307, False)
        assert len(peer.calls) == 1


@every_own
@in_loop
async def test_credentials_in_a_redirect_are_not_taken(kind: str) -> None:
    async def script(call: Call) -> None:
        if call.target == "/":
            place = peer.url.replace("//", "//eve:evil@")
            await call.write(answer(307, b"", {"Location": f"{place}/new"}))
        else:
            await call.write(answer(200))

    async with serving(script) as peer, opened(kind) as client:
        response = await client.send("POST", peer.url, {"Authorization": "Bearer x"}, b"{}")
        await response.read(9)
        assert peer.calls[1].header("authorization") == "Bearer x"


# --- secrets ----------------------------------------------------------------------------------


@every_kind
@in_loop
async def test_credentials_in_a_url_become_a_header_and_are_never_shown(kind: str) -> None:
    async def script(call: Call) -> None:
        if call.target == "/cut":
            call.cut()
        else:
            await call.write(answer(302, b"", {"Location": "/?token=hunter2"}))

    async with serving(script) as peer, opened(kind) as client:
        secret = peer.url.replace("//", "//me:hunter2@")
        for path in ("/cut", "/?token=hunter2"):
            error = await fails(client, secret + path)
            for text in (str(error), repr(error), repr(error.__context__), repr(vars(error))):
                assert "hunter2" not in text
        assert peer.calls[0].header("authorization") == "Basic bWU6aHVudGVyMg=="
        assert "hunter2" not in repr(client)
        closed = secret.replace(secret.rpartition(":")[2], str(closed_port()))
        assert "hunter2" not in str(await fails(client, closed))


def test_options_show_no_secret() -> None:
    options = HttpOptions(
        headers={"Authorization": "Bearer hunter2"},
        proxy="http://me:hunter2@proxy:3128",
        cert=("a", "b", "hunter2"),
    )
    assert "hunter2" not in repr(options)


# --- proxies ----------------------------------------------------------------------------------

ME = "Basic bWU6aHVudGVyMg=="


@every_own
@in_loop
async def test_plain_requests_go_through_a_proxy(kind: str) -> None:
    async with running_proxy() as proxy, serving(says(answer(200, b"x"))) as peer:
        async with opened(kind, proxy=proxy.url) as client:
            for _ in range(2):
                response = await client.send("POST", f"{peer.url}/mcp?a=1", JSON, b"{}")
                assert await response.read(9) == b"x"
            assert [call.target for call in proxy.calls] == [f"{peer.url}/mcp?a=1"] * 2
            assert peer.calls[0].body == b"{}"
        await proxy.until_closed()


@every_own
@in_loop
async def test_https_goes_through_a_tunnel(kind: str, authority: Authority) -> None:
    tls = authority.server_context()
    async with running_proxy() as proxy, serving(says(answer(200, b"x")), tls=tls) as peer:
        async with opened(kind, proxy=proxy.url, verify=authority.ca) as client:
            for _ in range(2):
                headers = {"Authorization": "Bearer hunter2"}
                response = await client.send("POST", f"{peer.url}/mcp", headers, b"{}")
                assert await response.read(9) == b"x"
            (call,) = proxy.calls
            assert (call.method, call.target) == ("CONNECT", peer.url.partition("//")[2])
            assert call.header("authorization") is None
            assert len(peer.calls) == 2
        await proxy.until_closed()


@every_own
@pytest.mark.parametrize("scheme", ["http", "https"])
@in_loop
async def test_a_proxy_is_told_who_asks_and_the_server_is_not(
    kind: str, scheme: str, authority: Authority
) -> None:
    tls = authority.server_context() if scheme == "https" else None
    async with running_proxy(authorization=ME) as proxy, serving(says(answer()), tls=tls) as peer:
        url = proxy.url.replace("//", "//me:hunter2@")
        async with opened(kind, proxy=url, verify=authority.ca) as client:
            await (await client.send("POST", peer.url, {}, b"{}")).read(9)
            assert peer.calls[0].header("proxy-authorization") is None
            assert proxy.calls[0].header("proxy-authorization") == ME
        wrong = proxy.url.replace("//", "//me:wrong2@")
        async with opened(kind, proxy=wrong, verify=authority.ca) as client:
            if scheme == "http":
                response = await client.send("POST", peer.url, {}, b"{}")
                assert response.status == 407
                await response.read(99)
            else:
                error = await fails(client, peer.url)
                assert (error.status, error.sent) == (407, False)
                assert "wrong2" not in str(error)
            assert len(peer.calls) == 1


@every_own
@in_loop
async def test_a_proxy_that_is_not_there_was_certainly_not_sent(kind: str) -> None:
    url = f"http://me:hunter2@127.0.0.1:{closed_port()}"
    async with opened(kind, proxy=url) as client:
        error = await fails(client, "http://example.invalid/")
        assert error.sent is False
        assert "hunter2" not in str(error)


@every_own
@in_loop
async def test_a_proxy_can_be_spoken_to_over_tls(kind: str, authority: Authority) -> None:
    tls = authority.server_context()
    async with (
        running_proxy(tls=tls) as proxy,
        serving(says(answer(200, b"x"))) as peer,
        opened(kind, proxy=proxy.url, verify=authority.ca) as client,
    ):
        response = await client.send("POST", peer.url, {}, b"{}")
        assert await response.read(9) == b"x"
        assert proxy.calls[0].target == f"{peer.url}/"


@every_own
@in_loop
async def test_a_proxy_that_never_answers_is_given_up(kind: str) -> None:
    if kind == "aiohttp":
        pytest.skip(
            "aiohttp bounds the socket, not the proxy's answer; the request's deadline does"
        )

    async def script(call: Call) -> None:
        await call.reader.read()

    async with (
        serving(script) as proxy,
        opened(kind, proxy=proxy.url, connect_timeout_s=0.05) as client,
    ):
        error = await fails(client, "https://example.invalid/")
        assert error.sent is False
        await proxy.until_closed()


@in_loop
async def test_a_socks_proxy_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    client = open_http(HttpOptions(proxy="socks5://127.0.0.1:9"))
    with pytest.raises(MissingExtra) as caught:
        await client.send("GET", "http://public.invalid/", {})
    assert caught.value.extra == "socks"
    await client.aclose()
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    async with opened("aiohttp") as other:
        with pytest.raises(Misconfigured):
            await other.send("GET", "http://public.invalid/", {})


def test_the_variables_choose_a_proxy_but_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @in_loop
    async def trial() -> None:
        for kind in OWN:
            async with running_proxy() as proxy, serving(says(answer(200, b"x"))) as peer:
                monkeypatch.setenv("HTTP_PROXY", proxy.url)
                async with opened(kind) as client:
                    await (await client.send("GET", peer.url, {})).read(9)
                    assert proxy.calls == []
                    # the proxy cannot reach it either, but it was asked
                    with pytest.raises(HttpError):
                        await client.send("GET", "http://no-such-host.invalid:9/", {})
                    asked = len(proxy.calls)
                    assert asked
                async with opened(kind, trust_env=False) as client:
                    await fails(client, "http://no-such-host.invalid:9/")
                    assert len(proxy.calls) == asked

    trial()


# --- TLS --------------------------------------------------------------------------------------


@every_own
@pytest.mark.parametrize("verify", ["file", "context", "off"])
@in_loop
async def test_tls_can_trust_a_file_a_context_or_anybody(
    kind: str, verify: str, authority: Authority
) -> None:
    chosen: Any = {
        "file": authority.ca,
        "context": ssl.create_default_context(cafile=authority.ca),
        "off": False,
    }[verify]
    tls = authority.server_context()
    async with serving(says(answer(200, b"x")), tls=tls) as peer:
        async with opened(kind, verify=chosen) as client:
            for _ in range(2):
                response = await client.send("POST", peer.url, {}, b"{}")
                assert await response.read(9) == b"x"
            assert peer.accepted == 1
            named = peer.url.replace("127.0.0.1", "localhost")
            await (await client.send("POST", named, {}, b"{}")).read(9)
        await peer.until_closed()


@every_own
@in_loop
async def test_a_certificate_that_nobody_vouches_for_is_refused_with_a_remedy(
    kind: str, authority: Authority
) -> None:
    async with serving(says(answer(200)), tls=authority.server_context()) as peer:
        async with opened(kind) as client:
            error = await fails(client, peer.url)
        assert error.sent is False
        assert "certificate is not accepted" in str(error)
        assert "HttpOptions(verify=FILE)" in str(error)
        assert peer.calls == []


@every_own
@in_loop
async def test_a_client_shows_its_certificate(kind: str, authority: Authority) -> None:
    tls = authority.server_context(asks_client=True)
    one = (authority.client_certificate, authority.client_key)
    locked = (authority.client_certificate, authority.locked_key, authority.password)
    async with serving(says(answer(200, b"x")), tls=tls) as peer:
        for cert in (one, locked):
            async with opened(kind, verify=authority.ca, cert=cert) as client:
                response = await client.send("POST", peer.url, {}, b"{}")
                assert await response.read(9) == b"x"
        async with opened(kind, verify=authority.ca) as client:
            assert (await fails(client, peer.url)).sent is not True
        assert len(peer.calls) == 2


@every_own
@in_loop
async def test_certificates_that_cannot_be_used_are_named_without_their_password(
    kind: str, authority: Authority, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    wrong = (authority.client_certificate, authority.locked_key, "hunter2")
    for options in (
        {"verify": str(tmp_path / "missing.pem")},
        {"verify": str(empty)},
        {"verify": authority.ca, "cert": str(empty)},
        {"verify": authority.ca, "cert": wrong},
        {"verify": ssl.create_default_context(), "cert": wrong},
    ):
        async with opened(kind, **options) as client:
            with pytest.raises(Misconfigured) as caught:
                await client.send("GET", "https://127.0.0.1:1/", {})
            assert "hunter2" not in str(caught.value)


# --- Unix sockets, HTTP/2 ---------------------------------------------------------------------


@every_own
@in_loop
async def test_a_unix_socket_can_be_asked(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with serving(says(answer(200, b"x")), uds=path) as peer, opened(kind, uds=path) as client:
        response = await client.send("POST", "http://localhost/mcp", {"Host": "me"}, b"{}")
        assert await response.read(9) == b"x"
        (call,) = peer.calls
        assert (call.target, call.header("host")) == ("/mcp", "me")


@every_own
@in_loop
async def test_a_missing_unix_socket_was_certainly_not_sent(kind: str, tmp_path: Path) -> None:
    async with opened(kind, uds=str(tmp_path / "missing")) as client:
        assert (await fails(client, "http://localhost/mcp")).sent is False


@in_loop
async def test_http_2_shares_one_connection(authority: Authority) -> None:
    pytest.importorskip("h2")
    tls = authority.server_context()
    tls.set_alpn_protocols(["h2"])
    async with serving_h2(tls, TEXT) as peer:
        client = open_http(HttpOptions(http2=True, verify=authority.ca))

        async def one(number: int) -> bytes:
            response = await client.send("POST", f"{peer.url}/mcp", JSON, b"%d" % number)
            assert response.status == 200
            assert response.headers["content-type"] == "application/json"
            return await response.read(PLENTY)

        assert await one(0) == TEXT
        assert set(await asyncio.gather(*[one(number) for number in range(20)])) == {TEXT}
        assert peer.accepted == 1
        assert sorted(call.body for call in peer.calls) == sorted(
            [b"0", *(b"%d" % number for number in range(20))]
        )
        call = peer.calls[0]
        assert (call.method, call.target) == ("POST", "/mcp")
        assert call.header(":authority") == peer.url.partition("//")[2]
        await client.aclose()
        await peer.until_closed()


@in_loop
async def test_http_2_falls_back_where_the_server_has_none(authority: Authority) -> None:
    pytest.importorskip("h2")
    async with serving(says(answer(200, b"x")), tls=authority.server_context()) as peer:
        client = open_http(HttpOptions(http2=True, verify=authority.ca))
        for _ in range(3):
            assert await (await client.send("POST", peer.url, {}, b"{}")).read(9) == b"x"
        assert peer.accepted == 1
        await client.aclose()


# --- choosing ---------------------------------------------------------------------------------


def _installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: object() if name in names else None)


def test_aiohttp_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "_Session" in repr(open_http())
    assert "_Pools" in repr(open_http(HttpOptions(http2=True)))
    assert "_Pools" in repr(open_http(HttpOptions(backend="httpx2")))
    assert "_Pools" in repr(open_http(HttpOptions(proxy="socks5://127.0.0.1:1080")))
    _installed(monkeypatch, "httpx2")
    assert "_Pools" in repr(open_http())


def test_a_missing_library_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for installed, options, extra in (
        ((), HttpOptions(), "http"),
        (("httpx2",), HttpOptions(backend="aiohttp"), "fast"),
        (("aiohttp",), HttpOptions(backend="httpx2"), "http"),
        (("httpx2",), HttpOptions(http2=True), "http2"),
    ):
        _installed(monkeypatch, *installed)
        with pytest.raises(MissingExtra) as caught:
            open_http(options)
        assert caught.value.extra == extra


def test_http_2_is_refused_where_it_cannot_be() -> None:
    with pytest.raises(Misconfigured):
        open_http(HttpOptions(http2=True, backend="aiohttp"))


def test_a_client_of_ones_own_is_used_as_it_is() -> None:
    class Own:
        async def send(self, *_: object) -> HttpResponse:
            raise NotImplementedError

        async def aclose(self) -> None:
            raise NotImplementedError

    own: Any = Own()
    assert open_http(own) is own
    with pytest.raises(Misconfigured):
        open_http("http://localhost")
