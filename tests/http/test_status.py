"""Which status each request over Streamable HTTP gets, as bytes on a socket show it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dragoman.jsonrpc.frame import Principal
from tests.http.aids import (
    BOTH,
    JSON,
    STREAM,
    Answer,
    Peer,
    ask,
    bare,
    initialize,
    notification,
    request,
)
from tests.http.workshop import LATEST, STREAMABLE, Workshop, looped, place_of, session
from tests.requirements.duties import duty
from tests.support import HANDSHAKE


async def fault(answer: Answer, code: int | None = None) -> Any:
    """The error in the body of a refusal; it answers no request."""
    told = await answer.json()
    assert told.get("id") is None, told
    assert told["jsonrpc"] == "2.0"
    if code is not None:
        assert told["error"]["code"] == code
    return told["error"]


# --- what is accepted -------------------------------------------------------------------------------


@duty("http.answer", "http.session.assigned")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_a_session_opens_with_one_json_answer_and_an_id(revision: str) -> None:
    async with place_of(Workshop()) as place:
        peer = Peer(place, revision)
        answer = await peer.post(initialize(revision))
        assert (answer.status, answer.kind) == (200, JSON)
        assert answer.headers["mcp-session-id"]
        told = await answer.json()
        assert told["id"] == 0
        assert told["result"]["protocolVersion"] == revision


@duty("http.accepted", "jsonrpc.notification.no-answer")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_a_notification_gets_202_and_not_a_byte_of_body(revision: str) -> None:
    async with session(revision) as (peer, _):
        for method in ("notifications/roots/list_changed", "notifications/unheard-of"):
            answer = await peer.post(notification(method))
            assert answer.status == 202
            assert "content-type" not in answer.headers
            assert await answer.read() == b""


@duty("http.accepted")
@looped
async def test_a_response_nobody_waits_for_gets_202_and_does_no_harm() -> None:
    async with session() as (peer, _):
        stray = {"jsonrpc": "2.0", "id": 77, "result": {}}
        for _ in range(2):
            answer = await peer.post(stray)
            assert (answer.status, await answer.read()) == (202, b"")
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@duty("http.answer")
@pytest.mark.parametrize(
    "accept", [BOTH, "*/*", f"{STREAM};q=0.5, {JSON}", "application/*, text/*"]
)
@looped
async def test_what_accepts_both_kinds_is_answered(accept: str) -> None:
    async with session() as (peer, _):
        answer = await peer.post(request(1, "ping"), accept=accept)
        assert answer.status == 200
        assert (await answer.json())["result"] == {}


@pytest.mark.parametrize("kind", [JSON, "application/json; charset=utf-8", "Application/JSON"])
@looped
async def test_json_is_json_with_parameters_too(kind: str) -> None:
    async with session() as (peer, _):
        answer = await peer.post(request(1, "ping"), content_type=kind)
        assert (answer.status, (await answer.json())["result"]) == (200, {})


@looped
async def test_a_request_that_fails_is_still_a_request_that_was_answered() -> None:
    async with session() as (peer, _):
        for method, code in (("unheard/of", -32601), ("tools/call", -32602)):
            answer = await peer.post(request(1, method, {}))
            assert (answer.status, answer.kind) == (200, JSON)
            told = await answer.json()
            assert (told["id"], told["error"]["code"]) == (1, code)


# --- what is refused --------------------------------------------------------------------------------


@duty("http.endpoint")
@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "PURGE"])
@looped
async def test_another_method_gets_405_and_the_list_of_those_there_are(method: str) -> None:
    async with session() as (peer, _):
        answer = await ask(peer.place, method, "/mcp", peer.headers())
        assert answer.status == 405
        allowed = {one.strip() for one in answer.headers["allow"].split(",")}
        assert {"GET", "POST", "DELETE"} <= allowed
        assert method not in allowed
        await answer.read()


@pytest.mark.parametrize("target", ["/", "/mcp/other", "/mcpx", "/other", "/messages/x"])
@looped
async def test_another_path_gets_404(target: str) -> None:
    async with session() as (peer, _):
        answer = await ask(peer.place, "GET", target, peer.headers(accept=STREAM))
        assert answer.status == 404
        await answer.read()


@duty("http.refused")
@pytest.mark.parametrize("accept", ["text/html", "text/plain, image/*"])
@looped
async def test_a_post_that_takes_neither_kind_of_answer_gets_406(accept: str) -> None:
    async with session() as (peer, _):
        answer = await peer.post(request(1, "ping"), accept=accept)
        assert answer.status == 406
        await fault(answer)


@duty("http.get.answer")
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
@looped
async def test_a_get_that_takes_no_stream_gets_406(accept: str) -> None:
    async with session() as (peer, _):
        answer = await peer.get(accept=accept)
        assert answer.status == 406
        await fault(answer)


@duty("http.refused")
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
@looped
async def test_a_body_that_says_it_is_something_else_gets_415(kind: str) -> None:
    # These three are what a page of a foreign site may send without asking the browser.
    async with session() as (peer, _):
        answer = await peer.post(request(1, "ping"), content_type=kind)
        assert answer.status == 415
        await fault(answer)


@duty("http.refused")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b"\xff\xfe", -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"} {}', -32700),
        (b"7", -32600),
        (b'{"id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0"}', -32600),
    ],
)
@looped
async def test_a_body_that_is_no_message_gets_400_and_leaves_the_session_whole(
    body: bytes, code: int
) -> None:
    async with session() as (peer, _):
        answer = await peer.post(body)
        assert answer.status == 400
        told = await answer.json()
        assert told["error"]["code"] == code
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@duty("http.refused")
@looped
async def test_without_a_session_a_body_that_is_no_message_gets_400() -> None:
    async with place_of(Workshop()) as place:
        for body in (b"{", b"[]", b"{}", b"", b"\xff"):
            answer = await Peer(place, LATEST).post(body)
            assert answer.status == 400
            assert "mcp-session-id" not in answer.headers
            assert (await fault(answer))["code"] in {-32700, -32600}


NASTY = [
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"1e999999999",
    b'"\\ud800"',
    b'{"jsonrpc":"2.0","id":1e400,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":[1],"method":"ping"}',
    b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":7}',
    b'{"jsonrpc":"2.0","id":1,"method":7}',
    b'{"jsonrpc":"2.0","id":1,"method":"initialize"}',
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":7}}',
    b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
    b'{"jsonrpc":"2.0","id":1,"error":7}',
    b'{"jsonrpc":"2.0","id":1,"method":"ping","id":2}',
    b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":1,"method":"pi\x00ng"}',
    "{}".encode("utf-16"),
]


@duty("http.refused")
@pytest.mark.parametrize("body", NASTY, ids=range(len(NASTY)))
@looped
async def test_nothing_that_a_body_holds_is_the_servers_fault(body: bytes) -> None:
    async with session() as (peer, _):
        for posting in (peer, Peer(peer.place, LATEST)):
            answer = await posting.post(body)
            # 413: less is taken from whoever has no session yet.
            assert answer.status in {200, 202, 400, 413}
            await answer.read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


# --- sessions ---------------------------------------------------------------------------------------


@duty("http.session.required")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_without_a_session_id_only_initialize_is_heard(revision: str) -> None:
    async with session(revision) as (peer, _):
        for body in (request(1, "ping"), request(1, "tools/list"), notification("notifications/x")):
            answer = await peer.post(body, mcp_session_id=None)
            assert answer.status == 400
            assert "mcp-session-id" not in answer.headers
            await answer.read()
        for answer in (
            await peer.get(mcp_session_id=None),
            await peer.delete(mcp_session_id=None),
        ):
            assert answer.status == 400
            await fault(answer)


@duty("http.session.gone")
@pytest.mark.parametrize("revision", STREAMABLE)
@looped
async def test_a_session_that_was_deleted_is_gone_for_every_method(revision: str) -> None:
    async with session(revision) as (peer, _):
        answer = await peer.delete()
        assert answer.status in {200, 204}
        assert await answer.read() == b""
        for answer in (
            await peer.post(request(1, "ping")),
            await peer.post(notification("notifications/x")),
            await peer.post(initialize(revision)),
            await peer.get(),
            await peer.delete(),
        ):
            assert answer.status == 404
            await fault(answer)


@duty("http.session.gone")
@pytest.mark.parametrize("name", ["x", "0" * 32, "é", "a" * 4000])
@looped
async def test_a_session_that_never_was_gets_404(name: str) -> None:
    async with session() as (peer, _):
        for answer in (
            await peer.post(request(1, "ping"), mcp_session_id=name),
            await peer.get(mcp_session_id=name),
            await peer.delete(mcp_session_id=name),
        ):
            assert answer.status == 404
            await answer.read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_initialize_within_a_session_is_refused_and_opens_no_other() -> None:
    async with session() as (peer, _):
        answer = await peer.post(initialize(LATEST, id=5))
        assert answer.headers.get("mcp-session-id", peer.session) == peer.session
        assert (await answer.json())["error"]["code"] == -32600
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


# --- the revision's header --------------------------------------------------------------------------


@duty("http.version-header.invalid")
@pytest.mark.parametrize("value", ["1999-01-01", "latest", "", "2025-06-18, 2025-11-25"])
@looped
async def test_a_header_that_names_no_revision_gets_400(value: str) -> None:
    async with session() as (peer, _):
        for answer in (
            await peer.post(request(1, "ping"), mcp_protocol_version=value),
            await peer.get(mcp_protocol_version=value),
            await peer.delete(mcp_protocol_version=value),
        ):
            assert answer.status == 400
            await answer.read()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@duty("versions.answer.other", "versions.answer.latest")
@pytest.mark.parametrize("offered", ["1999-01-01", "2024-10-07", "2026-07-28", "9999-12-31", "x"])
@looped
async def test_a_revision_we_do_not_have_is_answered_with_the_newest(offered: str) -> None:
    async with place_of(Workshop()) as place:
        peer = Peer(place, LATEST)
        answer = await peer.post(initialize(offered))
        assert answer.status == 200
        peer.session = answer.headers["mcp-session-id"]
        assert (await answer.json())["result"]["protocolVersion"] == LATEST
        await peer.notify("notifications/initialized")
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@duty("http.version-header.invalid")
@looped
async def test_a_refused_revision_is_told_which_there_are() -> None:
    async with session() as (peer, _):
        answer = await peer.post(request(1, "ping"), mcp_protocol_version="2026-07-28")
        assert answer.status == 400
        told = (await answer.read()).decode()
        assert all(revision in told for revision in HANDSHAKE)


@duty("http.version-header.missing")
@pytest.mark.parametrize("revision", HANDSHAKE)
@looped
async def test_without_the_header_a_request_is_of_the_sessions_revision(revision: str) -> None:
    async with session(revision) as (peer, _):
        answer = await peer.post(request(1, "tools/list"), mcp_protocol_version=None)
        assert answer.status == 200
        tool = (await answer.json())["result"]["tools"][0]
        # Output schemas came with the third revision.
        assert ("outputSchema" in tool) is (revision >= HANDSHAKE[2])


# --- what a foreign page could send -----------------------------------------------------------------

METHODS = [
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("GET", "/sse"),
    ("POST", "/messages"),
]


async def tried(peer: Peer, method: str, target: str, **headers: str | None) -> Answer:
    given: dict[str, str | None] = {"Accept": STREAM, **headers}
    if method == "POST":
        given |= {"Accept": BOTH, "Content_Type": JSON}
    body = json.dumps(request(1, "ping")).encode() if method == "POST" else b""
    return await ask(peer.place, method, target, peer.headers(**given), body)


@duty("http.origin.forbidden", "http-sse.origin")
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://127.0.0.1.evil.example", "null", "x"]
)
@pytest.mark.parametrize(("method", "target"), METHODS)
@looped
async def test_a_foreign_origin_gets_403_wherever_it_knocks(
    method: str, target: str, origin: str
) -> None:
    async with session() as (peer, _):
        answer = await tried(peer, method, target, origin=origin)
        assert answer.status == 403
        await fault(answer)
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize(("method", "target"), METHODS)
@looped
async def test_a_foreign_host_gets_403_wherever_it_knocks(
    method: str, target: str, host: str
) -> None:
    # A name of the attacker's that leads to 127.0.0.1: what DNS rebinding looks like.
    async with session() as (peer, _):
        answer = await tried(peer, method, target, host=host)
        assert answer.status == 403
        await fault(answer)


@duty("http-sse.origin")
@pytest.mark.parametrize(
    "origin", ["http://localhost:{port}", "http://127.0.0.1:{port}", "http://[::1]:{port}"]
)
@looped
async def test_a_page_of_this_machine_may_ask(origin: str) -> None:
    async with session() as (peer, _):
        answer = await tried(peer, "POST", "/mcp", origin=origin.format(port=peer.place.port))
        assert answer.status == 200
        await answer.read()


@pytest.mark.parametrize(
    "host",
    ["localhost:{port}", "127.0.0.1:{port}", "LOCALHOST:{port}", "[::1]:{port}", "localhost"],
)
@looped
async def test_this_machine_may_be_called_by_any_of_its_own_names(host: str) -> None:
    async with session() as (peer, _):
        answer = await tried(peer, "POST", "/mcp", host=host.format(port=peer.place.port))
        assert answer.status == 200
        await answer.read()


@duty("http.origin.forbidden")
@looped
async def test_a_list_widens_who_may_ask_and_nothing_else_does() -> None:
    options: dict[str, Any] = {
        "allow_hosts": ["api.example"],
        "allow_origins": ["https://app.example"],
    }
    shop = Workshop()
    async with place_of(shop, **options) as place:
        peer = Peer(place, LATEST)
        for host, origin, status in (
            ("api.example", None, 200),
            ("api.example", "https://app.example", 200),
            ("api.example:443", "https://app.example", 200),
            ("api.example", "http://app.example", 403),
            ("api.example", "https://app.example.evil.example", 403),
            ("api.example.evil.example", None, 403),
            ("other.example", "https://app.example", 403),
        ):
            answer = await peer.post(initialize(LATEST), host=host, origin=origin)
            assert answer.status == status, (host, origin)
            await answer.read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "evil.example"),
        ("Origin", "http://evil.example"),
        ("Mcp-Session-Id", "x"),
        ("MCP-Protocol-Version", "2024-11-05"),
        ("Content-Type", "text/plain"),
    ],
)
@looped
async def test_a_header_that_decides_something_may_not_come_twice(name: str, value: str) -> None:
    # Whoever stands in front might look at the one, and we at the other.
    async with session() as (peer, _):
        body = json.dumps(request(1, "ping")).encode()
        good = {
            "Host": peer.place.host,
            "Origin": peer.place.url,
            "Mcp-Session-Id": peer.session or "",
            "MCP-Protocol-Version": LATEST,
            "Content-Type": JSON,
            "Accept": BOTH,
        }
        for headers in ([*good.items(), (name, value)], [(name, value), *good.items()]):
            reader, writer = await peer.place.connect()
            writer.write(bare("POST", "/mcp", headers, body))
            head = await reader.readuntil(b"\r\n\r\n")
            answer = Answer(reader, writer, head[:-4])
            assert answer.status == 400
            answer.close()
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"


@looped
async def test_a_page_that_is_allowed_may_ask_first_and_read_the_session_id() -> None:
    origin = "https://app.example"
    async with place_of(Workshop(), allow_origins=[origin]) as place:
        asking = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type, mcp-session-id",
        }
        answer = await ask(place, "OPTIONS", "/mcp", asking)
        assert answer.status in {200, 204}
        assert answer.headers["access-control-allow-origin"] == origin
        allowed = answer.headers["access-control-allow-headers"].lower()
        for name in ("content-type", "mcp-session-id", "mcp-protocol-version", "last-event-id"):
            assert name in allowed
        for method in ("GET", "POST", "DELETE"):
            assert method in answer.headers["access-control-allow-methods"]
        await answer.read()
        answer = await Peer(place, LATEST).post(initialize(LATEST), origin=origin)
        assert answer.headers["access-control-allow-origin"] == origin
        assert "mcp-session-id" in answer.headers["access-control-expose-headers"].lower()
        # A cache must not show one page's answer to another.
        assert "origin" in answer.headers["vary"].lower()
        await answer.read()
        for headers in (asking | {"Origin": "https://evil.example"},):
            answer = await ask(place, "OPTIONS", "/mcp", headers)
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
            await answer.read()


@looped
async def test_whoever_is_nobody_gets_401_wherever_he_knocks() -> None:
    def identify(scope: Any) -> Principal | None:
        given = dict(scope["headers"]).get(b"authorization")
        return Principal("ada", "test") if given == b"Bearer good" else None

    async with place_of(Workshop(), identify=identify) as place:
        peer = await Peer.open(place, LATEST, extra={"Authorization": "Bearer good"})
        assert await peer.call("add", {"a": 1, "b": 2}) == "3"
        for given in (None, "Bearer bad", "good"):
            for method, target in METHODS:
                answer = await tried(peer, method, target, authorization=given)
                assert answer.status == 401
                assert "bearer" in answer.headers["www-authenticate"].lower()
                await answer.read()
