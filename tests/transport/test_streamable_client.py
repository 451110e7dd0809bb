"""The client's end of Streamable HTTP, against a server over real sockets that follows a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dragoman.errors import HttpError, LinkClosed, LinkError, SessionLost
from dragoman.transport.base import Link
from dragoman.transport.event_stream import encode_event
from dragoman.transport.http.client import HttpOptions
from dragoman.transport.http.connector import HttpConnector
from tests.transport.aids import in_loop, open_descriptors
from tests.transport.streamable_aids import (
    NEWEST,
    Asked,
    Ear,
    Reply,
    Script,
    ScriptedServer,
    Waits,
    answer,
    notice,
    scripted,
    text,
)

HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": NEWEST.wire,
        "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def encoded(message: Any) -> bytes:
    return json.dumps(message).encode()


def call(ident: int, name: str = "work") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ident, "method": "tools/call", "params": {"name": name}}


class Side:
    """Our side: a link, what it tells, and what a driver would have it do."""

    def __init__(self, link: Link, waits: Waits) -> None:
        self.link = link
        self.waits = waits
        self.ear = Ear()
        link.start(self.ear)

    def ask(self, message: dict[str, Any]) -> None:
        self.ear.awaited.add(message["id"])
        self.link.send(encoded(message), message["id"])

    def cancel(self, ident: int) -> None:
        self.ear.awaited.discard(ident)
        self.link.send(encoded(notice("cancelled", requestId=ident)), ident)

    async def outcome(self, ident: int) -> Any:
        """The answer, or the error that the request was lost with."""
        await self.ear.until(lambda: ident not in self.ear.awaited)
        if ident in self.ear.lost:
            return self.ear.lost[ident]
        return next(m for m in self.ear.messages if m.get("id") == ident and "method" not in m)

    async def open(self, *, revision: Any = NEWEST) -> None:
        """Shake hands, as a driver does."""
        self.ask(HELLO)
        await self.ear.until(lambda: bool(self.ear.frames))
        self.link.agreed(revision.wire, revision.facts)
        self.link.send(encoded(INITIALIZED))


def congested(side: Side) -> bool:
    return side.link.is_congested


@asynccontextmanager
async def linked(
    server: ScriptedServer, *, is_open: bool = True, **options: Any
) -> AsyncIterator[Side]:
    waits = Waits()
    connector = HttpConnector(server.url, **{"mode": "streamable", "wait": waits, **options})
    side = Side(await connector.connect(), waits)
    try:
        if is_open:
            await side.open()
            await server.until(lambda: bool(server.of("notifications/initialized")))
        yield side
    finally:
        await side.link.aclose()
        assert len(side.ear.ends) == 1


# --- answers ----------------------------------------------------------------------------------------


@in_loop
async def test_an_answer_comes_as_json() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.result(text("done"))

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")


@in_loop
async def test_an_answer_comes_on_a_stream_after_what_belongs_to_it() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(notice("progress", progressToken=1, progress=1))
        await reply.event(answer(asked, text("done")))

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        assert [m["method"] for m in side.ear.messages if "method" in m] == [
            "notifications/progress"
        ]


@in_loop
async def test_each_request_says_what_it_takes_and_repeats_session_and_revision() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.result(text("done"))

    # What is the protocol's own is not the user's to say.
    given = {"X-Mine": "1", "accept": "no", "Mcp-Session-Id": "no", "last-event-id": "no"}
    async with scripted({"tools/call": work}) as server:
        async with linked(server, headers=given) as side:
            side.ask(call(1))
            await side.outcome(1)
        hello, *others = server.asked
    assert "mcp-session-id" not in hello.headers
    assert "mcp-protocol-version" not in hello.headers
    assert {one.rpc for one in others} == {
        "notifications/initialized",
        "tools/call",
        "GET",
        "DELETE",
    }
    for one in others:
        assert one.headers["mcp-session-id"] == "s-1"
        assert one.headers["mcp-protocol-version"] == NEWEST.wire
    for one in server.asked:
        assert "no" not in one.headers.values()
        assert one.headers["x-mine"] == "1"
        if one.method == "POST":
            assert one.headers["accept"] == "application/json, text/event-stream"
            assert one.headers["content-type"] == "application/json"
        elif one.method == "GET":
            assert one.headers["accept"] == "text/event-stream"


@in_loop
async def test_a_server_without_sessions_is_sent_no_session_and_no_delete() -> None:
    async with scripted(session=None) as server:
        async with linked(server):
            await server.until(lambda: bool(server.of("GET")))
        assert all("mcp-session-id" not in one.headers for one in server.asked)
        assert not server.of("DELETE")


@in_loop
async def test_the_revision_is_not_repeated_where_the_revision_has_no_header() -> None:
    from dragoman.revisions.registry import HANDSHAKE

    async with scripted() as server, linked(server, is_open=False) as side:
        await side.open(revision=HANDSHAKE[0])
        await server.until(lambda: bool(server.of("GET")))
        assert all("mcp-protocol-version" not in one.headers for one in server.asked)


@in_loop
async def test_a_session_id_that_is_no_visible_ascii_is_refused() -> None:
    async with scripted(session="a b") as server, linked(server, is_open=False) as side:
        side.ask(HELLO)
        lost = await side.outcome(0)
        assert isinstance(lost, LinkError)
        assert lost.sent is True


@in_loop
async def test_an_event_that_is_too_large_is_noise_and_the_rest_goes_on() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(notice("message", level="info", data="x" * 5000))
        await reply.event(answer(asked, text("done")))

    script = {"tools/call": work}
    async with scripted(script) as server, linked(server, max_frame_bytes=4000) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        (noise,) = side.ear.noises
        assert noise.size > 5000
        assert noise.limit == 4000


@in_loop
async def test_a_json_body_that_is_too_large_loses_its_request() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.result(text("x" * 5000))

    script = {"tools/call": work}
    async with scripted(script) as server, linked(server, max_frame_bytes=4000) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert lost.sent is True


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>sign in</html>", "text/html"),
        (b"", "application/json"),
        (b"{", "application/json"),
        (b'{"jsonrpc":"2.0","id":99,"result":{}}', "application/json"),
    ],
)
@in_loop
async def test_a_success_without_the_answer_loses_the_request(body: bytes, kind: str) -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.send(200, body, content_type=kind)

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert (lost.sent, lost.status) == (True, 200)
        assert body.decode() in lost.body


@in_loop
async def test_a_request_that_is_only_accepted_is_lost_unless_we_listen() -> None:
    streams: list[Reply] = []
    may_end = asyncio.Event()

    async def listen(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.write(b": here\n\n")
        streams.append(reply)
        await may_end.wait()

    async def accept(asked: Asked, reply: Reply) -> None:
        await reply.send(202)
        if streams:
            await streams[0].event(answer(asked, text("over there")))

    async with scripted({"tools/call": accept}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert (lost.sent, lost.status) == (True, 202)
    async with scripted({"tools/call": accept, "GET": listen}) as server, linked(server) as side:
        await server.until(lambda: bool(streams))
        # A first message shows that our side listens.
        await streams[0].event(notice("tools/list_changed"))
        await side.ear.until(lambda: len(side.ear.frames) == 2)
        side.ask(call(2))
        assert (await side.outcome(2))["result"] == text("over there")
        may_end.set()


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (400, False),
        (401, False),
        (403, False),
        (405, False),
        (413, False),
        (415, False),
        (429, False),
        (500, None),
        (502, None),
        (503, False),
        (504, None),
    ],
)
@in_loop
async def test_a_status_says_whether_the_request_may_have_run(
    status: int, sent: bool | None
) -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.send(status, b"because\x1b[31m of that", retry_after="7")

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert (lost.status, lost.sent, lost.retry_after_s) == (status, sent, 7.0)
        assert "of that" in lost.body
        assert lost.body.isprintable()
        # One request is lost, and nothing else.
        server.on["tools/call"] = _done
        side.ask(call(2))
        assert (await side.outcome(2))["result"] == text("done")


async def _done(asked: Asked, reply: Reply) -> None:
    await reply.result(text("done"))


@in_loop
async def test_a_refusal_that_holds_the_error_of_the_request_is_its_answer() -> None:
    error = {"code": -32602, "message": "no"}

    async def work(asked: Asked, reply: Reply) -> None:
        await reply.json({"jsonrpc": "2.0", "id": asked.message["id"], "error": error}, status=400)

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["error"] == error


@in_loop
async def test_a_connection_that_breaks_before_the_answer_leaves_it_open_whether_it_ran() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        reply.cut()

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert (lost.status, lost.sent) == (None, None)


@in_loop
async def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    async with scripted({"tools/call": _done}) as server:
        side_of = linked(server)
        side = await side_of.__aenter__()
        await server.aclose()
        await asyncio.sleep(0)
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert lost.status is None
        assert lost.sent is not True
        side.ask(call(2))
        lost = await side.outcome(2)
        assert lost.sent is False
        await side_of.__aexit__(None, None, None)
        await server.start(port=server.port)


# --- sessions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b""),
        (404, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}'),
        (400, b"Bad Request: No valid session ID provided"),
    ],
)
@in_loop
async def test_a_lost_session_ends_every_request_that_meets_it_and_then_the_link(
    status: int, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last request ends the link, however long there would be to wait for others.
    monkeypatch.setattr("dragoman.transport.http.link.SESSION_WAIT_S", 1000.0)
    may_refuse = asyncio.Event()

    async def refuse(asked: Asked, reply: Reply) -> None:
        if asked.message["params"]["name"] == "slow":
            await may_refuse.wait()
        await reply.send(status, body)

    async with scripted({"tools/call": refuse}) as server, linked(server) as side:
        side.ask(call(1, "slow"))
        await server.until(lambda: len(server.of("tools/call")) == 1)
        side.ask(call(2))
        first = await side.outcome(2)
        assert isinstance(first, SessionLost)
        assert first.sent is False
        # What is asked meanwhile is not sent at all.
        side.ask(call(3))
        assert isinstance(await side.outcome(3), SessionLost)
        side.link.send(encoded(notice("roots/list_changed")))
        side.cancel(98)
        async with linked(server):
            # By the time that another link has done all this, ours would have been heard.
            pass
        assert not side.ear.ends
        may_refuse.set()
        last = await side.outcome(1)
        assert isinstance(last, SessionLost)
        assert last.sent is False
        await side.ear.until(lambda: bool(side.ear.ends))
        assert isinstance(side.ear.ends[0], SessionLost)
        assert len(server.of("tools/call")) == 2
        assert not server.of("notifications/roots/list_changed")
        assert not server.of("notifications/cancelled")
        with pytest.raises(LinkClosed) as closed:
            side.link.send(encoded(call(4)), 4)
        assert closed.value.sent is False
    # The other link said goodbye to its own; ours had none left.
    assert len(server.of("DELETE")) == 1


@in_loop
async def test_a_404_without_a_session_is_the_failure_of_one_request() -> None:
    async def refuse(asked: Asked, reply: Reply) -> None:
        await reply.send(404)

    async with scripted({"tools/call": refuse}, session=None) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert (lost.status, lost.sent) == (404, False)
        assert not side.ear.ends


@pytest.mark.parametrize("status", [200, 204, 404, 405, 500])
@in_loop
async def test_a_session_is_ended_with_the_link_whatever_the_server_says(status: int) -> None:
    async def leave(asked: Asked, reply: Reply) -> None:
        await reply.send(status)

    async with scripted({"DELETE": leave}) as server:
        async with linked(server):
            pass
        (asked,) = server.of("DELETE")
        assert asked.headers["mcp-session-id"] == "s-1"


# --- streams that end early -------------------------------------------------------------------------


class Resumable:
    """A tool whose stream is left after its first event and answers where it is taken up again."""

    def __init__(self, leave: Script, *, retry: int | None = None, refusals: int = 0) -> None:
        self.leave = leave
        self.retry = retry
        self.refusals = refusals
        self.call: Asked | None = None
        self.resumed: list[str] = []

    async def work(self, asked: Asked, reply: Reply) -> None:
        self.call = asked
        await reply.stream()
        await reply.event(ident="w-1", retry=self.retry)
        await reply.event(notice("progress", progressToken=1, progress=1), ident="w-2")
        await self.leave(asked, reply)

    async def get(self, asked: Asked, reply: Reply) -> None:
        last = asked.headers.get("last-event-id")
        if last is None:
            await reply.send(405)
            return
        self.resumed.append(last)
        if len(self.resumed) <= self.refusals:
            await reply.send(503)
            return
        assert self.call is not None
        await reply.stream()
        await reply.event(answer(self.call, text("late")), ident="w-3")

    @property
    def on(self) -> dict[str, Script]:
        return {"tools/call": self.work, "GET": self.get}


async def _end(asked: Asked, reply: Reply) -> None:
    await reply.end()


async def _cut(asked: Asked, reply: Reply) -> None:
    # In the middle of an event: what is incomplete does not count, its id neither.
    await reply.write(b'id: w-9\ndata: {"jsonrpc"')
    reply.cut()


@pytest.mark.parametrize("leave", [_end, _cut])
@in_loop
async def test_a_stream_is_taken_up_again_from_its_last_event(leave: Script) -> None:
    script = Resumable(leave)
    async with scripted(script.on) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("late")
        assert script.resumed == ["w-2"]
        assert len(server.of("tools/call")) == 1


@in_loop
async def test_the_wait_before_a_stream_is_taken_up_again_is_the_servers_to_choose() -> None:
    script = Resumable(_end, retry=1234)
    async with scripted(script.on) as server, linked(server) as side:
        side.ask(call(1))
        await side.outcome(1)
        assert side.waits.asked == [1.234]


@in_loop
async def test_trouble_on_the_way_back_is_waited_for_longer_each_time() -> None:
    script = Resumable(_end, retry=60, refusals=3)
    async with scripted(script.on) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("late")
        first, *later = side.waits.asked
        assert first == 0.06
        assert len(later) == 3
        assert all(wait > first for wait in later)
        assert script.resumed == ["w-2"] * 4


@in_loop
async def test_a_stream_that_cannot_be_had_again_loses_its_request_which_ran() -> None:
    for status in (400, 405, 404):
        script = Resumable(_end)

        async def get(asked: Asked, reply: Reply, status: int = status) -> None:
            await reply.send(status if "last-event-id" in asked.headers else 405)

        async with scripted({**script.on, "GET": get}) as server, linked(server) as side:
            side.ask(call(1))
            lost = await side.outcome(1)
            assert isinstance(lost, LinkError)
            assert lost.sent is True
            if status == 404:
                await side.ear.until(lambda: bool(side.ear.ends))
                assert isinstance(side.ear.ends[0], SessionLost)


@in_loop
async def test_a_stream_that_fails_again_and_again_is_given_up() -> None:
    script = Resumable(_end, refusals=1000)
    async with scripted(script.on) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert lost.sent is True
        assert 5 <= len(script.resumed) <= 20


@in_loop
async def test_a_server_that_wants_to_be_asked_again_and_again_is() -> None:
    polls = 50
    first: list[Asked] = []
    seen: list[str] = []

    async def work(asked: Asked, reply: Reply) -> None:
        first.append(asked)
        await reply.stream()
        await reply.event(ident="p-0", retry=60)

    async def get(asked: Asked, reply: Reply) -> None:
        last = asked.headers.get("last-event-id")
        if last is None:
            await reply.send(405)
            return
        seen.append(last)
        await reply.stream()
        if len(seen) == polls:
            await reply.event(answer(first[0], text("at last")))

    async with scripted({"tools/call": work, "GET": get}) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("at last")
        assert seen == ["p-0"] * polls
        assert side.waits.asked == [0.06] * polls


@in_loop
async def test_wherever_a_stream_is_cut_its_messages_come_once_and_in_order() -> None:
    place = 0

    def events(asked: Asked) -> list[bytes]:
        messages = [
            None,
            notice("progress", progressToken=1, progress=1),
            notice("progress", progressToken=1, progress=2),
            answer(asked, text("done")),
        ]
        return [
            encode_event(b"" if one is None else encoded(one), id=f"c{number}-{asked_id(asked)}")
            for number, one in enumerate(messages)
        ]

    def asked_id(asked: Asked) -> int:
        return int(asked.message["id"])

    calls: dict[int, Asked] = {}

    async def work(asked: Asked, reply: Reply) -> None:
        calls[asked_id(asked)] = asked
        await reply.stream()
        whole = b"".join(events(asked))
        if whole[:place]:
            await reply.write(whole[:place])
        reply.hang_up()

    async def get(asked: Asked, reply: Reply) -> None:
        last = asked.headers.get("last-event-id")
        if last is None:
            await reply.send(405)
            return
        number, _, ident = last.removeprefix("c").partition("-")
        await reply.stream()
        # Another piece, and another cut: each connection brings half of an event more.
        rest = events(calls[int(ident)])[int(number) + 1 :]
        await reply.write(rest[0] + b"".join(rest[1:])[:20])
        reply.hang_up()

    async with scripted({"tools/call": work, "GET": get}) as server, linked(server) as side:
        first, *_ = events(Asked("POST", "/", {}, encoded(call(1)), 0))
        whole = len(b"".join(events(Asked("POST", "/", {}, encoded(call(1)), 0))))
        for place in range(0, whole, 5):
            del side.ear.frames[:]
            ident = 1000 + place
            side.ask(call(ident))
            outcome = await side.outcome(ident)
            messages = [
                m["params"]["progress"] if "method" in m else "answer" for m in side.ear.messages
            ]
            if isinstance(outcome, LinkError):
                # Only a stream that never said where it is cannot be taken up again.
                assert outcome.sent is True
                assert place < len(first) + len("1000")
                assert messages == []
            else:
                assert messages == [1, 2, "answer"], place


@pytest.mark.parametrize("leave", [_end, _cut])
@in_loop
async def test_a_stream_without_event_ids_that_ends_early_loses_its_request(leave: Script) -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(notice("progress", progressToken=1, progress=1))
        if leave is _cut:
            reply.cut()

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, LinkError)
        assert lost.sent is True
        assert not side.ear.ends
        assert len(server.of("GET")) <= 1


@in_loop
async def test_a_stream_that_breaks_again_and_again_without_news_is_given_up() -> None:
    script = Resumable(_end)

    async def get(asked: Asked, reply: Reply) -> None:
        if "last-event-id" not in asked.headers:
            await reply.send(405)
            return
        script.resumed.append(asked.headers["last-event-id"])
        await reply.stream()
        reply.cut()

    async with scripted({**script.on, "GET": get}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert lost.sent is True
        assert 5 <= len(script.resumed) <= 20


@in_loop
async def test_an_event_id_that_no_header_can_hold_is_no_place_to_go_on_from() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.write(b"id: a\x01b\ndata: \n\n")

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert lost.sent is True
        assert "before the answer" in str(lost)


@in_loop
async def test_a_stream_that_ends_in_order_leaves_its_connection_to_the_next_request() -> None:
    told = asyncio.Event()

    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(answer(asked, text("done")))
        # The end does not come together with the answer.
        await told.wait()
        await reply.event(notice("tools/list_changed"))

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        for ident in range(1, 6):
            side.ask(call(ident))
            await side.outcome(ident)
            for _ in range(10):
                await asyncio.sleep(0)
            told.set()
            while len(side.ear.frames) < 1 + 2 * ident:
                side.ear.news.clear()
                await side.ear.news.wait()
            told.clear()
        assert len({one.connection for one in server.of("tools/call")}) <= 2


# --- what belongs to no request ---------------------------------------------------------------------


@in_loop
async def test_messages_outside_of_requests_come_where_we_listen_from_the_last_event_on() -> None:
    asked_from: list[str | None] = []
    may_end = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        asked_from.append(asked.headers.get("last-event-id"))
        await reply.stream()
        number = len(asked_from)
        if number == 1:
            await reply.event(notice("tools/list_changed"), ident="g-1", retry=70)
        elif number == 2:
            reply.cut()
        else:
            await reply.event(notice("prompts/list_changed"), ident="g-2")
            await may_end.wait()

    async with scripted({"GET": get}) as server, linked(server) as side:
        await side.ear.until(lambda: len(side.ear.frames) == 3)
        assert [m["method"] for m in side.ear.messages[1:]] == [
            "notifications/tools/list_changed",
            "notifications/prompts/list_changed",
        ]
        assert asked_from == [None, "g-1", "g-1"]
        assert side.waits.asked[0] == 0.07
        may_end.set()


@in_loop
async def test_a_listener_that_is_asked_to_come_back_does_so_when_it_was_asked_to() -> None:
    many = 20
    enough = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        if len(server.of("GET")) == many:
            await enough.wait()
        await reply.write(b"retry: 0\n\n")

    async with scripted({"GET": get}) as server, linked(server) as side:
        await server.until(lambda: len(server.of("GET")) == many)
        assert side.waits.asked == [0.05] * (many - 1)
        assert side.ear.troubles == []
        enough.set()


@in_loop
async def test_a_gateway_that_likes_no_streams_is_no_trouble_and_not_asked_for_ever() -> None:
    async def get(asked: Asked, reply: Reply) -> None:
        await reply.send(504)

    async with scripted({"GET": get, "tools/call": _done}) as server, linked(server) as side:
        await server.until(lambda: len(server.of("GET")) == 9)
        side.ask(call(1))
        await side.outcome(1)
        assert len(server.of("GET")) == 9
        assert len(side.waits.asked) == 8
        assert side.ear.troubles == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 406, 409])
@in_loop
async def test_a_server_that_offers_no_stream_is_asked_for_it_once(status: int) -> None:
    async def get(asked: Asked, reply: Reply) -> None:
        await reply.send(status)

    async with scripted({"GET": get, "tools/call": _done}) as server, linked(server) as side:
        await server.until(lambda: bool(server.of("GET")))
        for ident in range(1, 4):
            side.ask(call(ident))
            assert (await side.outcome(ident))["result"] == text("done")
        assert len(server.of("GET")) == 1
        assert side.waits.asked == []
        assert not side.ear.ends


@in_loop
async def test_a_request_does_not_wait_for_the_stream_we_listen_to() -> None:
    never = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        await never.wait()

    async with scripted({"GET": get, "tools/call": _done}) as server, linked(server) as side:
        await server.until(lambda: bool(server.of("GET")))
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")


@in_loop
async def test_a_listener_whose_session_is_gone_ends_the_link_and_all_its_work() -> None:
    may_leave = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        if len(server.of("GET")) > 1:
            await reply.send(404)
            return
        await reply.stream()
        await may_leave.wait()

    async def hang(asked: Asked, reply: Reply) -> None:
        await reply.gone()

    script = {"GET": get, "answer": hang}
    async with scripted(script) as server, linked(server) as side:
        side.link.send(encoded({"jsonrpc": "2.0", "id": "s", "result": {}}), None, True)
        await server.until(lambda: bool(server.of("answer")))
        may_leave.set()
        await side.ear.until(lambda: bool(side.ear.ends))
        assert isinstance(side.ear.ends[0], SessionLost)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not asyncio.all_tasks() - {asyncio.current_task(), *server.tasks}


@in_loop
async def test_a_server_that_takes_our_former_stream_for_open_is_asked_again() -> None:
    never = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        if len(server.of("GET")) in (2, 3):
            await reply.send(409)
            return
        await reply.stream()
        if len(server.of("GET")) > 3:
            await reply.event(notice("tools/list_changed"))
            await never.wait()

    async with scripted({"GET": get}) as server, linked(server) as side:
        await side.ear.until(lambda: len(side.ear.frames) == 2)
        assert len(server.of("GET")) == 4
        assert side.ear.troubles == []


@in_loop
async def test_trouble_is_told_once_and_so_is_its_end() -> None:
    refused = 3

    async def get(asked: Asked, reply: Reply) -> None:
        if 1 < len(server.of("GET")) <= 1 + refused:
            await reply.send(502)
            return
        await reply.stream()
        if len(server.of("GET")) > 1:
            await never.wait()

    never = asyncio.Event()
    async with scripted({"GET": get}) as server, linked(server) as side:
        await side.ear.until(lambda: len(side.ear.troubles) == 2)
        trouble, end = side.ear.troubles
        assert isinstance(trouble, HttpError)
        assert trouble.status == 502
        assert end is None
        assert len(server.of("GET")) == 2 + refused
        assert not side.ear.ends


@in_loop
async def test_a_listener_survives_a_server_that_is_started_anew() -> None:
    never = asyncio.Event()

    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(notice("tools/list_changed"), ident=f"e-{len(server.of('GET'))}")
        await never.wait()

    async with scripted({"GET": get}) as server, linked(server) as side:
        await side.ear.until(lambda: len(side.ear.frames) == 2)
        await server.aclose()
        await side.ear.until(lambda: len(side.ear.troubles) == 1)
        await server.start(port=server.port)
        await side.ear.until(lambda: len(side.ear.frames) == 3)
        assert side.ear.troubles[1:] == [None]
        assert server.of("GET")[-1].headers["last-event-id"] == "e-1"


# --- our notifications and answers ------------------------------------------------------------------


@in_loop
async def test_what_follows_a_notification_waits_until_that_was_taken() -> None:
    may_take = asyncio.Event()

    async def take(asked: Asked, reply: Reply) -> None:
        await may_take.wait()
        await reply.send(202)

    script = {"notifications/initialized": take, "tools/call": _done}
    async with scripted(script) as server, linked(server) as side:
        side.ask(call(1))
        side.link.send(encoded({"jsonrpc": "2.0", "id": "s", "result": {}}), None, True)
        side.ask(call(2))
        # A cancellation overtakes them all, so they would have come by now.
        side.cancel(99)
        await server.until(lambda: bool(server.of("notifications/cancelled")))
        assert [one.rpc for one in server.asked] == [
            "initialize",
            "notifications/initialized",
            "notifications/cancelled",
        ]
        may_take.set()
        await side.outcome(1)
        await side.outcome(2)
        await server.until(lambda: bool(server.of("answer")))


@pytest.mark.parametrize("status", [200, 201, 400, 405])
@in_loop
async def test_a_server_that_takes_no_notifications_is_spoken_to_all_the_same(status: int) -> None:
    async def take(asked: Asked, reply: Reply) -> None:
        await reply.json({"jsonrpc": "2.0", "result": {}}, status)

    script = {"notifications/initialized": take, "tools/call": _done}
    async with scripted(script) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        assert len(server.of("notifications/initialized")) == 1
        assert len(side.ear.frames) == 2


@in_loop
async def test_a_session_whose_opening_cannot_be_told_is_over_and_nothing_was_sent_in_it() -> None:
    async def fail(asked: Asked, reply: Reply) -> None:
        await reply.send(502)

    script = {"notifications/initialized": fail, "tools/call": _done}
    async with scripted(script) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert (lost.status, lost.sent) == (502, False)
        await side.ear.until(lambda: bool(side.ear.ends))
        assert isinstance(side.ear.ends[0], HttpError)
        assert len(server.of("notifications/initialized")) == 4
        assert not server.of("tools/call")


@in_loop
async def test_a_request_that_waits_to_be_sent_can_be_cancelled_and_never_is() -> None:
    may_take = asyncio.Event()

    async def take(asked: Asked, reply: Reply) -> None:
        await may_take.wait()
        await reply.send(202)

    script = {"notifications/initialized": take, "tools/call": _done}
    async with scripted(script) as server, linked(server) as side:
        side.ask(call(1))
        side.cancel(1)
        side.ask(call(2))
        may_take.set()
        await side.outcome(2)
        assert [one.message["id"] for one in server.of("tools/call")] == [2]
        assert not side.ear.lost
        assert not server.of("notifications/cancelled")


@in_loop
async def test_a_cancellation_waits_for_nothing_and_then_ends_its_stream() -> None:
    gone = asyncio.Event()
    may_take = asyncio.Event()

    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(notice("progress", progressToken=1, progress=1))
        await reply.gone()
        gone.set()

    async def take(asked: Asked, reply: Reply) -> None:
        await may_take.wait()
        await reply.send(202)

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        await side.ear.until(lambda: len(side.ear.frames) == 2)
        server.on["notifications/roots/list_changed"] = take
        side.link.send(encoded(notice("roots/list_changed")))
        await server.until(lambda: bool(server.of("notifications/roots/list_changed")))
        assert not gone.is_set()
        side.cancel(1)
        await server.until(lambda: bool(server.of("notifications/cancelled")))
        await gone.wait()
        may_take.set()


@pytest.mark.parametrize("status", [429, 502, 503, None])
@in_loop
async def test_an_answer_of_ours_that_meets_trouble_is_sent_again(status: int | None) -> None:
    async def take(asked: Asked, reply: Reply) -> None:
        if len(server.of("answer")) < 3:
            if status is None:
                reply.cut()
            else:
                await reply.send(status, retry_after="1")
            return
        await reply.send(202)

    frame = encoded({"jsonrpc": "2.0", "id": "s", "result": {}})
    async with scripted({"answer": take}) as server, linked(server) as side:
        side.link.send(frame, None, True)
        await server.until(lambda: len(server.of("answer")) == 3)
        assert [one.body for one in server.of("answer")] == [frame] * 3
        assert len(side.waits.asked) == 2
        assert status is None or min(side.waits.asked) >= 1.0


@in_loop
async def test_answers_that_nobody_takes_are_congestion() -> None:
    may_take = asyncio.Event()

    async def take(asked: Asked, reply: Reply) -> None:
        await may_take.wait()
        await reply.send(202)

    async with scripted({"answer": take}) as server, linked(server) as side:
        assert not congested(side)
        await side.link.drain()
        for ident in range(5):
            message = {"jsonrpc": "2.0", "id": f"s{ident}", "result": {"x": "y" * 100_000}}
            side.link.send(encoded(message), None, True)
        assert congested(side)
        draining = asyncio.ensure_future(side.link.drain())
        await server.until(lambda: len(server.of("answer")) == 5)
        assert not draining.done()
        may_take.set()
        await draining
        assert not congested(side)


@in_loop
async def test_a_paused_link_delivers_nothing_and_then_everything() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        if asked.message["params"]["name"] == "plain":
            await reply.result(text("plain"))
            return
        await reply.stream()
        await reply.event(answer(asked, text("stream")))

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.link.pause_reading()
        side.ask(call(1, "plain"))
        side.ask(call(2, "stream"))
        await server.until(lambda: len(server.of("tools/call")) == 2)
        # Two round trips later the answers are here, and not told.
        side.cancel(98)
        await server.until(lambda: len(server.of("notifications/cancelled")) == 1)
        side.cancel(99)
        await server.until(lambda: len(server.of("notifications/cancelled")) == 2)
        assert side.ear.awaited == {1, 2}
        side.link.resume_reading()
        assert (await side.outcome(1))["result"] == text("plain")
        assert (await side.outcome(2))["result"] == text("stream")


# --- who we are -------------------------------------------------------------------------------------


@in_loop
async def test_a_token_that_is_refused_is_asked_for_again_once_for_all() -> None:
    given: list[str] = []

    async def token() -> str:
        await asyncio.sleep(0)
        given.append(f"t{len(given)}")
        return given[-1]

    async def work(asked: Asked, reply: Reply) -> None:
        if asked.headers["authorization"] == "Bearer t0":
            await reply.send(401)
            return
        await reply.result(text("done"))

    async with scripted({"tools/call": work}) as server, linked(server, token=token) as side:
        for ident in range(1, 6):
            side.ask(call(ident))
        for ident in range(1, 6):
            assert (await side.outcome(ident))["result"] == text("done")
        assert given == ["t0", "t1"]
        assert server.asked[0].headers["authorization"] == "Bearer t0"


@in_loop
async def test_a_token_that_stays_the_same_is_not_tried_twice() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.send(401)

    for token in ("fixed", lambda: "fixed"):
        async with scripted({"tools/call": work}) as server, linked(server, token=token) as side:
            side.ask(call(1))
            lost = await side.outcome(1)
            assert isinstance(lost, HttpError)
            assert (lost.status, lost.sent) == (401, False)
            assert len(server.of("tools/call")) == 1
            assert "fixed" not in repr((lost, lost.__dict__))


@in_loop
async def test_a_function_that_gives_no_token_fails_without_telling_what_it_knew() -> None:
    def token() -> str:
        raise RuntimeError("refresh token s3cret is no good")

    async with scripted() as server:
        with pytest.raises(LinkError, match="RuntimeError") as failed:
            await HttpConnector(server.url, token=token).connect()
        assert "s3cret" not in str(failed.value)
        assert failed.value.sent is False
        with pytest.raises(LinkError):
            await HttpConnector(server.url, token=lambda: "no good\r\n").connect()


# --- the end ----------------------------------------------------------------------------------------


@in_loop
async def test_a_closed_link_has_let_go_of_everything() -> None:
    never = asyncio.Event()

    async def hang(asked: Asked, reply: Reply) -> None:
        if asked.method == "GET" or asked.message["params"]["name"] == "stream":
            await reply.stream()
            await reply.write(b": here\n\n")
        await never.wait()

    before = open_descriptors()
    async with scripted({"tools/call": hang, "GET": hang}) as server:
        async with linked(server) as side:
            side.ask(call(1))
            side.ask(call(2, "stream"))
            await server.until(lambda: len(server.of("tools/call")) == 2)
            tasks = asyncio.all_tasks()
            await side.link.aclose()
            await side.link.aclose()
            assert side.ear.ends == [None]
            assert not side.ear.lost
        assert server.of("DELETE")
        assert len(asyncio.all_tasks()) < len(tasks)
    await asyncio.sleep(0)
    assert open_descriptors() == before


@in_loop
async def test_a_server_that_never_says_goodbye_does_not_hold_up_one_in_a_hurry() -> None:
    never = asyncio.Event()

    async def hang(asked: Asked, reply: Reply) -> None:
        await never.wait()

    async with scripted({"DELETE": hang}) as server, linked(server) as side:
        closing = asyncio.ensure_future(side.link.aclose())
        await server.until(lambda: bool(server.of("DELETE")))
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert side.ear.ends == [None]


@pytest.mark.parametrize("backend", ["aiohttp", "httpx2"])
@in_loop
async def test_a_link_that_is_closed_at_any_moment_leaves_nothing(backend: Any) -> None:
    never = asyncio.Event()

    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(ident="w-1", retry=1)
        await asyncio.sleep(0)
        if asked.message["id"] % 2:
            reply.cut()
        else:
            await never.wait()

    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await never.wait()

    before = open_descriptors()
    async with scripted({"tools/call": work, "GET": get}) as server:
        for turns in range(40):
            connector = HttpConnector(
                server.url, mode="streamable", http=HttpOptions(backend=backend), wait=Waits()
            )
            side = Side(await connector.connect(), Waits())
            side.ask(HELLO)
            side.ask(call(1))
            side.link.send(encoded(INITIALIZED))
            side.ask(call(2))
            for _ in range(turns):
                await asyncio.sleep(0)
            await side.link.aclose()
            assert len(side.ear.ends) == 1
            assert not asyncio.all_tasks() - {asyncio.current_task(), *server.tasks}
    await asyncio.sleep(0)
    assert open_descriptors() == before


@in_loop
async def test_a_redirect_is_followed_for_good_and_takes_no_secret_along() -> None:
    async def leave(asked: Asked, reply: Reply) -> None:
        await reply.send(307, location=other.url + "/here")

    async with (
        scripted({"tools/call": _done}) as other,
        scripted({"initialize": leave}) as server,
        linked(server, is_open=False, token="t0", headers={"X-Mine": "1"}) as side,
    ):
        await side.open()
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        await other.until(lambda: bool(other.of("GET")))
        assert [one.rpc for one in server.asked] == ["initialize"]
        assert server.asked[0].headers["authorization"] == "Bearer t0"
        assert {one.path for one in other.asked} == {"/mcp/here"}
        for one in other.asked:
            assert "authorization" not in one.headers
            assert "x-mine" not in one.headers
            assert one.rpc == "initialize" or one.headers["mcp-session-id"] == "s-1"


@in_loop
async def test_a_stream_to_listen_to_is_asked_for_with_a_new_token_too() -> None:
    given: list[str] = []
    never = asyncio.Event()

    def token() -> str:
        given.append(f"t{len(given)}")
        return given[-1]

    async def get(asked: Asked, reply: Reply) -> None:
        if asked.headers["authorization"] == "Bearer t0":
            await reply.send(401)
            return
        await reply.stream()
        await reply.event(notice("tools/list_changed"))
        await never.wait()

    async with scripted({"GET": get}) as server, linked(server, token=token) as side:
        await side.ear.until(lambda: len(side.ear.frames) == 2)
        assert given == ["t0", "t1"]


@in_loop
async def test_a_notification_that_is_answered_with_a_stream_holds_nothing_up() -> None:
    may_end = asyncio.Event()

    async def take(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(notice("tools/list_changed"))
        await may_end.wait()

    script = {"notifications/initialized": take, "tools/call": _done}
    async with scripted(script) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        await side.ear.until(lambda: len(side.ear.frames) == 3)
        may_end.set()


@in_loop
async def test_a_stream_that_does_not_end_after_its_answer_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dragoman.transport.streamable.client.LINGER_S", 0.0)
    gone = asyncio.Event()

    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(answer(asked, text("done")))
        await reply.gone()
        gone.set()

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        await gone.wait()
        assert not side.ear.ends


@in_loop
async def test_trouble_is_over_as_soon_as_anything_gets_through() -> None:
    async def get(asked: Asked, reply: Reply) -> None:
        if len(server.of("GET")) > 1:
            await reply.send(502)
            return
        await reply.stream()

    class Once(Waits):
        """The second wait, which comes when there is trouble, lasts for ever."""

        async def __call__(self, seconds: float) -> None:
            await super().__call__(seconds)
            if len(self.asked) > 1:
                await asyncio.Event().wait()

    script = {"GET": get, "tools/call": _done}
    async with scripted(script) as server, linked(server, wait=Once()) as side:
        await side.ear.until(lambda: len(side.ear.troubles) == 1)
        side.ask(call(1))
        assert (await side.outcome(1))["result"] == text("done")
        assert side.ear.troubles[1:] == [None]


@in_loop
async def test_a_cancellation_that_meets_a_lost_session_ends_the_link() -> None:
    async def hang(asked: Asked, reply: Reply) -> None:
        await reply.gone()

    async def refuse(asked: Asked, reply: Reply) -> None:
        await reply.send(404)

    script = {"tools/call": hang, "notifications/cancelled": refuse}
    async with scripted(script) as server, linked(server) as side:
        side.ask(call(1))
        await server.until(lambda: bool(server.of("tools/call")))
        side.cancel(1)
        await side.ear.until(lambda: bool(side.ear.ends))
        assert isinstance(side.ear.ends[0], SessionLost)


@pytest.mark.parametrize(
    ("retry_after", "date", "wished_s"),
    [
        ("3", "", 3.0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", "", 0.0),
        ("9" * 400, "", 86_400.0),
        ("soon", "", None),
        ("-3", "", None),
    ],
)
@in_loop
async def test_how_long_a_server_asks_to_wait_is_read_in_either_form(
    retry_after: str, date: str, wished_s: float | None
) -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.send(503, retry_after=retry_after, date=date)

    async with scripted({"tools/call": work}) as server, linked(server) as side:
        side.ask(call(1))
        lost = await side.outcome(1)
        assert isinstance(lost, HttpError)
        assert lost.retry_after_s == wished_s
