"""What a client's HTTP links make of proxies, firewalls and servers that are away or come back otherwise."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from contextlib import suppress
from typing import Any

import pytest

from dragoman.client.repeats import AWAY, PASSING
from dragoman.client.supervisor import Reconnect, asked_delay
from dragoman.errors import HttpError, LinkClosed, PeerError, SessionLost
from dragoman.jsonrpc import codec
from dragoman.transport.http.client import HttpOptions
from dragoman.transport.http.connector import HttpConnector
from dragoman.transport.http.limits import MAX_FAILURES, MAX_OVERHEARD, REFUSED_DELAY_S
from dragoman.transport.http.link import apart
from dragoman.transport.http.refusals import is_passing, sent_by_status
from tests.transport.aids import in_loop
from tests.transport.streamable_aids import Asked, Reply, Waits, answer, notice, scripted, text
from tests.transport.test_streamable_client import INITIALIZED, Side, call, encoded, linked

# --- the stream we listen to ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 403, 410, 500, 521, 530])
@in_loop
async def test_a_stream_that_was_there_before_is_asked_for_again_whatever_refuses_it(
    status: int,
) -> None:
    may_end = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        number = len(server.of("GET"))
        if number in (2, 3):
            await reply.send(status, b"<html>We are working on it</html>", content_type="text/html")
            return
        await reply.stream()
        await reply.event(notice("tools/list_changed"), ident=f"g-{number}")
        if number == 1:
            reply.cut()
        else:
            await may_end.wait()

    async with scripted({"GET": get}) as server, linked(server) as side:
        await side.ear.until(lambda: len(side.ear.frames) == 3)
        assert [one.headers.get("last-event-id") for one in server.of("GET")] == [
            None,
            *["g-1"] * 3,
        ]
        assert not side.ear.ends
        may_end.set()


@in_loop
async def test_a_stream_that_is_refused_for_long_is_asked_for_once_a_minute() -> None:
    refused = MAX_FAILURES + 4
    may_end = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        if 1 < len(server.of("GET")) <= 1 + refused:
            await reply.send(403)
            return
        await reply.stream()
        await reply.event(notice("tools/list_changed"))
        if len(server.of("GET")) > 1:
            await may_end.wait()

    async with scripted({"GET": get}) as server, linked(server) as side:
        await side.ear.until(lambda: len(side.ear.frames) == 3)
        waits = side.waits.asked
        assert len(waits) == 1 + refused
        assert max(waits[: 1 + MAX_FAILURES]) < REFUSED_DELAY_S
        assert waits[1 + MAX_FAILURES :] == [REFUSED_DELAY_S] * (refused - MAX_FAILURES)
        may_end.set()


@pytest.mark.parametrize("status", [405, 501])
@in_loop
async def test_a_server_that_offers_no_stream_any_more_is_not_asked_again(status: int) -> None:
    async def get(asked: Asked, reply: Reply) -> None:
        if len(server.of("GET")) > 1:
            await reply.send(status)
        else:
            await reply.stream()

    async def work(asked: Asked, reply: Reply) -> None:
        await reply.result(text("done"))

    async with scripted({"GET": get, "tools/call": work}) as server, linked(server) as side:
        await server.until(lambda: len(server.of("GET")) == 2)
        for number in range(1, 4):
            side.ask(call(number))
            assert (await side.outcome(number))["result"] == text("done")
        assert len(server.of("GET")) == 2
        assert len(side.waits.asked) == 1


@in_loop
async def test_a_server_that_comes_back_without_our_session_is_no_end_of_the_trouble() -> None:
    async def get(asked: Asked, reply: Reply) -> None:
        number = len(server.of("GET"))
        if number == 1:
            await reply.stream()
        else:
            await reply.send(502 if number == 2 else 404)

    async with scripted({"GET": get}) as server, linked(server) as side:
        await side.ear.until(lambda: bool(side.ear.ends))
        assert isinstance(side.ear.ends[0], SessionLost)
        # One outage is told as one: nobody hears that it is over before there is a new session.
        assert [type(one) for one in side.ear.troubles] == [HttpError]


@in_loop
async def test_an_answer_is_fetched_once_the_server_has_seen_that_the_first_stream_is_gone() -> (
    None
):
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(ident="1")
        reply.cut()

    async def get(asked: Asked, reply: Reply) -> None:
        if "last-event-id" not in asked.headers:
            await reply.send(405)
        elif len([one for one in server.of("GET") if "last-event-id" in one.headers]) < 3:
            await reply.send(409, b"there is a stream already")
        else:
            await reply.stream()
            await reply.event(answer(server.of("tools/call")[0], text("done")))

    async with scripted({"tools/call": work, "GET": get}) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        assert len(server.of("tools/call")) == 1


@in_loop
async def test_streams_that_answer_notifications_and_never_end_are_not_held_for_ever() -> None:
    ended = 0

    async def take(asked: Asked, reply: Reply) -> None:
        nonlocal ended
        await reply.stream()
        await reply.gone()
        ended += 1

    async def work(asked: Asked, reply: Reply) -> None:
        await reply.result(text("done"))

    told = 2 * MAX_OVERHEARD
    script = {"notifications/roots/list_changed": take, "tools/call": work}
    async with scripted(script) as server, linked(server) as side:
        for number in range(1, told + 1):
            side.link.send(encoded(notice("roots/list_changed")))
            side.ask(call(number))
            assert (await side.outcome(number))["result"] == text("done")
        while ended < told - MAX_OVERHEARD:
            await asyncio.sleep(0)
        # The newest are still listened to.
        assert ended == told - MAX_OVERHEARD


# --- what refusals say ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "sent"),
    [(520, None), (521, False), (522, None), (523, False), (524, None), (525, False), (530, False)],
)
@in_loop
async def test_what_cloudflare_says_of_a_server_that_is_away_passes(
    status: int, sent: bool | None
) -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.send(status, b"<html><title>Web server is down</title></html>")

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert lost.sent is sent is sent_by_status(status)
        assert is_passing(lost)
        assert status in AWAY


# How Envoy begins to say that a connection broke.
_BROKE = "upstream connect error or disconnect/reset before headers. reset reason:"


def test_whoever_repeats_a_call_and_whoever_listens_wait_for_the_same_statuses() -> None:
    for status in range(100, 600):
        error = HttpError("refused", sent=None, url="http://a.example", status=status)
        assert is_passing(error) is (status in PASSING), status


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (f"{_BROKE} connection termination", None),
        (f"{_BROKE} protocol error", None),
        (f"{_BROKE} connection failure", False),
        (f"{_BROKE} remote connection failure, transport failure reason: 111", False),
        (f"{_BROKE} overflow", False),
        ("no healthy upstream", False),
        ("", False),
    ],
)
@in_loop
async def test_a_503_of_a_connection_that_broke_may_have_run(words: str, sent: bool | None) -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.send(503, words.encode(), content_type="text/plain", server="envoy")

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert lost.sent is sent


@pytest.mark.skipif(sys.platform == "win32", reason="sets the time zone")
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "XYZ+11"])
def test_a_date_without_a_zone_is_utc_wherever_we_are(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()

    @in_loop
    async def check() -> None:
        async def work(asked: Asked, reply: Reply) -> None:
            await reply.send(
                429,
                retry_after="Wed Oct 21 07:28:10 2015",
                date="Wed, 21 Oct 2015 07:28:00 GMT",
            )

        async with scripted({"tools/call": work}) as server, linked(server) as side:
            side.ask(call(1))
            assert (await side.outcome(1)).retry_after_s == 10.0

    try:
        check()
    finally:
        monkeypatch.undo()
        time.tzset()


# --- many clients at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("asked_s", [0.5, 5.0, 86_400.0])
def test_what_a_server_asks_all_clients_for_is_waited_for_in_full_and_not_in_step(
    asked_s: float,
) -> None:
    error = HttpError("busy", sent=False, url="", status=429, retry_after_s=asked_s)
    for waits in (
        [apart(asked_s) for _ in range(50)],
        [asked_delay(Reconnect(), error) for _ in range(50)],
    ):
        assert min(waits) >= asked_s
        # At most a tenth longer, and never more than the longest delay of our own.
        assert max(waits) <= asked_s + min(asked_s / 10, Reconnect().max_delay_s)
        # Fifty draws in the same half of what is allowed: once in 10 to the 15th.
        assert max(waits) - min(waits) > min(asked_s / 10, 10.0) / 100
    assert asked_delay(Reconnect(jitter=0.0), error) == asked_s
    assert asked_delay(Reconnect(), LinkClosed("over")) == apart(0.0) == 0.0


# --- requests that never left -----------------------------------------------------------------------


def _sse(on_endpoint: bytes = b"event: endpoint\ndata: /post\n\n") -> Any:
    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.write(on_endpoint)
        await reply.gone()

    return get


@in_loop
async def test_what_still_waited_for_a_notification_when_the_link_ended_was_not_sent() -> None:
    may_end = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.write(b"event: endpoint\ndata: /post\n\n")
        await may_end.wait()
        reply.cut()

    async def hang(asked: Asked, reply: Reply) -> None:
        with suppress(ConnectionError):
            await reply.gone()

    script = {"GET": get, "notifications/initialized": hang}
    async with (
        scripted(script) as server,
        linked(server, mode="sse", is_open=False) as side,
    ):
        side.link.send(encoded(INITIALIZED))
        side.ask(call(1))
        await server.until(lambda: bool(server.of("notifications/initialized")))
        may_end.set()
        lost = await side.outcome(1)
        assert isinstance(lost, LinkClosed)
        assert lost.sent is False
        assert not server.of("tools/call")


@pytest.mark.parametrize("backend", ["aiohttp", "httpx2"])
@in_loop
async def test_calls_that_take_up_all_connections_leave_some_for_pings_answers_and_cancellations(
    backend: Any,
) -> None:
    may_end = asyncio.Event()

    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await may_end.wait()
        await reply.event(answer(asked, text("done")))

    async def ping(asked: Asked, reply: Reply) -> None:
        await reply.result({})

    many = 12
    options = HttpOptions(backend=backend, max_connections=8)
    script = {"tools/call": work, "ping": ping}
    async with scripted(script) as server, linked(server, http=options) as side:
        for number in range(1, many + 1):
            side.ask(call(number))
        await server.until(lambda: len(server.of("tools/call")) == 6)
        side.ear.awaited.add(100)
        # As our engine writes it.
        side.link.send(codec.request(100, "ping", b"{}"), 100)
        assert (await side.outcome(100))["result"] == {}
        side.link.send(encoded(answer(server.of("ping")[0], {})), is_answer=True)
        await server.until(lambda: len(server.of("answer")) == 1)
        # The last has not been sent: nobody has to hear that it is not wanted any more.
        side.cancel(many)
        side.cancel(1)
        await server.until(lambda: bool(server.of("notifications/cancelled")))
        may_end.set()
        for number in range(2, many):
            assert (await side.outcome(number))["result"] == text("done")
        assert len(server.of("tools/call")) == many - 1
        assert len(server.of("notifications/cancelled")) == 1


@in_loop
async def test_a_400_that_speaks_of_the_session_loses_it_over_http_sse_too() -> None:
    async def refuse(asked: Asked, reply: Reply) -> None:
        await reply.send(400, b"No transport found for sessionId")

    script = {"GET": _sse(), "tools/call": refuse}
    async with (
        scripted(script) as server,
        linked(server, mode="sse", is_open=False) as side,
    ):
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, SessionLost)
        assert lost.sent is False
        await side.ear.until(lambda: bool(side.ear.ends))


def _found(connector: HttpConnector) -> str | None:
    return connector.found


@in_loop
async def test_a_stream_that_names_no_endpoint_any_more_is_tried_as_the_other_transport() -> None:
    async with scripted({"GET": _sse()}) as server:
        connector = HttpConnector(server.url)
        connector.found = "sse"
        await (await connector.connect()).aclose()
        assert _found(connector) == "sse"
        server.on["GET"] = _sse(b'data: {"jsonrpc":"2.0","method":"notifications/message"}\n\n')
        with pytest.raises(PeerError):
            await connector.connect()
        assert _found(connector) is None
        link = await connector.connect()
        await Side(link, Waits()).open()
        assert _found(connector) == "streamable"
        await link.aclose()


# --- sockets ----------------------------------------------------------------------------------------


def _ours(port: int) -> list[socket.socket]:
    """Copies of the sockets of this process that are connected to a port."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            copy = socket.socket(fileno=os.dup(int(name)))
            try:
                is_there = copy.getpeername()[1] == port
            except (OSError, IndexError):
                is_there = False
            if is_there:
                found.append(copy)
            else:
                copy.close()
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("backend", ["aiohttp", "httpx2"])
@in_loop
async def test_the_other_end_of_a_silent_connection_is_asked_whether_it_is_there(
    backend: Any,
) -> None:
    may_end = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await may_end.wait()

    options = HttpOptions(backend=backend)
    async with scripted({"GET": get}) as server, linked(server, http=options) as side:
        await server.until(lambda: bool(server.of("GET")))
        found = _ours(server.port)
        try:
            assert found
            for one in found:
                assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
                assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
                assert not os.get_blocking(one.fileno())
        finally:
            for one in found:
                one.close()
        assert not side.ear.ends
        may_end.set()
