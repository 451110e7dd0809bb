"""A URL as the target of a client: what is accepted, what stays secret, what a call is like."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dragoman import Client, Server
from dragoman.client.targets import connector_for
from dragoman.errors import (
    DeadlineExceeded,
    HttpError,
    LinkError,
    Misconfigured,
    RemoteFailure,
)
from dragoman.transport.http.client import HttpOptions
from dragoman.transport.http.connector import HttpConnector
from dragoman.transport.http.opening import open_http
from tests.requirements.duties import duty
from tests.support import run
from tests.transport.streamable_aids import (
    Asked,
    Reply,
    ScriptedServer,
    answer,
    notice,
    scripted,
    text,
)


def connector_to(url: str, **options: Any) -> HttpConnector:
    found = connector_for(url, **options)
    assert isinstance(found, HttpConnector)
    return found


async def _done(asked: Asked, reply: Reply) -> None:
    await reply.result(text("done"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com/mcp", "https://example.com/mcp"),
        ("HTTP://Example.com:80", "http://example.com/"),
        ("https://me:pw@example.com/mcp", "https://example.com/mcp"),
        ("https://example.com/mcp?key=s3cret", "https://example.com/mcp?..."),
        ("http://[::1]:8000/mcp", "http://[::1]:8000/mcp"),
        ("http+unix://%2Frun%2Fa.sock/mcp", "/run/a.sock/mcp"),
        ("http+unix://%2Frun%2Fa.sock", "/run/a.sock/mcp"),
    ],
)
def test_a_url_is_described_without_its_secrets(url: str, shown: str) -> None:
    found = connector_to(url)
    assert found.description == shown
    for secret in ("pw", "s3cret"):
        assert secret not in repr((found, vars(found)["_access"]))


@pytest.mark.parametrize(
    "url",
    [
        "ws://example.com",
        "ftp://example.com",
        "https://",
        "https:///mcp",
        "https://exa mple.com",
        "https://example.com:99999",
        "http+unix:///mcp",
        "https://example.com/\nX: y",
    ],
)
def test_a_url_that_cannot_be_connected_to_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured):
        connector_for(url)


@pytest.mark.parametrize("name", ["http", "headers", "token", "mode"])
def test_what_is_said_of_a_url_is_refused_for_another_target(name: str) -> None:
    value: Any = {"http": HttpOptions(), "headers": {}, "token": "t", "mode": "sse"}[name]
    with pytest.raises(Misconfigured, match="URL"):
        connector_for(Server("s"), **{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"token": "no good"},
        {"token": "a\r\nb"},
        {"token": ""},
        {"token": 3},
        {"headers": {"A b": "c"}},
        {"headers": {"A": "b\r\nC: d"}},
        {"headers": {"A": 3}},
        {"mode": "websocket"},
    ],
)
def test_a_token_or_header_that_cannot_be_sent_is_refused_unquoted(options: Any) -> None:
    with pytest.raises(Misconfigured) as refused:
        connector_for("https://example.com", **options)
    assert "no good" not in str(refused.value)
    assert "C: d" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"token": "t"},
        {"token": lambda: "t"},
        {"headers": {"Authorization": "Basic abc"}},
        {"headers": {"cookie": "a=b"}},
        {"headers": {"X-API-Key": "abc"}},
        {"http": HttpOptions(headers={"Authorization": "Bearer t"})},
    ],
)
def test_a_secret_goes_only_where_it_is_not_read_on_the_way(options: Any) -> None:
    with pytest.raises(Misconfigured, match="not encrypted"):
        connector_for("http://example.com/mcp", **options)
    for url in (
        "https://example.com/mcp",
        "http://127.0.0.1:8000/mcp",
        "http://localhost/mcp",
        "http://[::1]/mcp",
        "http+unix://%2Frun%2Fa.sock/mcp",
    ):
        connector_for(url, **options)
    http = options.get("http", HttpOptions())
    told = HttpOptions(headers=http.headers, allow_plain_secrets=True)
    connector_for("http://example.com/mcp", **{**options, "http": told})


def test_a_password_in_a_url_is_a_secret_too() -> None:
    with pytest.raises(Misconfigured, match="not encrypted") as refused:
        connector_for("http://me:pw@example.com/mcp")
    assert "pw" not in str(refused.value)
    connector_for("http://example.com/mcp", headers={"X-Mine": "1"})


def test_a_user_and_a_password_in_the_url_become_a_header() -> None:
    async def main() -> None:
        async with scripted() as server:
            url = server.url.replace("//", "//me:p%40w@")
            async with Client(url):
                pass
            heard = {one.headers["authorization"] for one in server.asked}
            assert heard == {"Basic bWU6cEB3"}

    run(main())


@pytest.mark.parametrize("kind", ["fixed", "function", "coroutine"])
def test_a_token_is_sent_with_each_request(kind: str) -> None:
    async def later() -> str:
        return "t"

    token: Any = {"fixed": "t", "function": lambda: "t", "coroutine": later}[kind]

    async def main() -> None:
        async with scripted({"tools/call": _done}) as server:
            async with Client(server.url, token=token) as client:
                assert (await client.call_tool("work")).text == "done"
            assert {one.headers["authorization"] for one in server.asked} == {"Bearer t"}

    run(main())


def test_a_unix_socket_is_a_target(tmp_path: Path) -> None:
    socket = tmp_path / "my server.sock"

    async def main() -> None:
        server = ScriptedServer({"tools/call": _done})
        await server.start(uds=socket)
        try:
            url = f"http+unix://{quote(str(socket), safe='')}/mcp"
            async with Client(url) as client:
                assert (await client.call_tool("work")).text == "done"
            assert {one.path for one in server.asked} == {"/mcp"}
        finally:
            await server.aclose()

    run(main())


@pytest.mark.parametrize("library", ["aiohttp", "httpx2"])
def test_a_client_of_ones_own_is_used_and_left_open(library: str) -> None:
    async def main() -> None:
        async with scripted({"tools/call": _done}) as server:
            if library == "aiohttp":
                import aiohttp

                async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as session:
                    await _calls(server, session)
                    assert not session.closed
            else:
                import httpx2

                async with httpx2.AsyncClient(headers={"X-Mine": "1"}) as client:
                    await _calls(server, client)
                    assert not client.is_closed
            assert {one.headers["x-mine"] for one in server.asked} == {"1"}

    run(main())


async def _calls(server: ScriptedServer, http: Any) -> None:
    for _ in range(2):
        async with Client(server.url, http=http) as client:
            assert (await client.call_tool("work")).text == "done"


def test_an_http_client_of_ones_own_kind_is_used() -> None:
    async def main() -> None:
        inner = open_http(HttpOptions(backend="aiohttp"))
        sent: list[str] = []

        class Counting:
            async def send(
                self, method: str, url: str, headers: Any, body: bytes | None = None
            ) -> Any:
                sent.append(method)
                return await inner.send(method, url, headers, body)

            async def aclose(self) -> None:
                raise AssertionError("it is not ours to close")

        async with scripted() as server:
            async with Client(server.url, http=Counting()):
                await server.until(lambda: bool(server.of("GET")))
            await inner.aclose()
        assert sent == ["POST", "POST", "GET", "DELETE"]

    run(main())


# --- calls ------------------------------------------------------------------------------------------


def test_an_error_of_the_protocol_and_a_failure_of_http_are_told_apart() -> None:
    error = {"code": -32602, "message": "no such tool"}

    async def work(asked: Asked, reply: Reply) -> None:
        name = asked.message["params"]["name"]
        if name == "refused":
            await reply.json({"jsonrpc": "2.0", "id": asked.message["id"], "error": error})
        else:
            await reply.send(413, b"too much")

    async def main() -> None:
        async with scripted({"tools/call": work}) as server, Client(server.url) as client:
            with pytest.raises(RemoteFailure, match="no such tool"):
                await client.call_tool("refused")
            with pytest.raises(HttpError, match="too much") as failed:
                await client.call_tool("large")
            assert (failed.value.status, failed.value.sent) == (413, False)

    run(main())


@duty("http.cancel.explicit")
def test_a_server_that_never_answers_meets_the_deadline_and_is_told() -> None:
    gone = asyncio.Event()

    async def hang(asked: Asked, reply: Reply) -> None:
        await reply.gone()
        gone.set()

    async def main() -> None:
        async with scripted({"tools/call": hang}) as server, Client(server.url) as client:
            with pytest.raises(DeadlineExceeded):
                await client.call_tool("work", timeout_s=0.05)
            await gone.wait()
            (cancelled,) = server.of("notifications/cancelled")
            (call,) = server.of("tools/call")
            assert cancelled.message["params"]["requestId"] == call.message["id"]
            assert cancelled.connection != call.connection

    run(main())


def test_a_server_that_never_answers_the_hello_meets_the_deadline() -> None:
    async def hang(asked: Asked, reply: Reply) -> None:
        await reply.gone()

    async def main() -> None:
        async with scripted({"initialize": hang}) as server:
            with pytest.raises(DeadlineExceeded):
                await Client(server.url, connect_timeout_s=0.05).connect()

    run(main())


def test_nobody_at_the_url_is_told_with_what_was_tried() -> None:
    async def main() -> None:
        async with scripted() as server:
            url = server.url
        with pytest.raises(LinkError) as failed:
            await Client(url).connect()
        assert failed.value.sent is False
        assert url.split("/")[2] in str(failed.value)

    run(main())


@pytest.mark.parametrize("where", ["stream of the call", "stream we listen to"])
def test_a_question_of_the_server_is_answered_by_a_post(where: str) -> None:
    answered = asyncio.Event()
    listening: list[Reply] = []
    question = {
        "jsonrpc": "2.0",
        "id": "q",
        "method": "elicitation/create",
        "params": {
            "message": "your name?",
            "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    }

    async def get(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.write(b": here\n\n")
        listening.append(reply)
        await reply.gone()

    async def work(asked: Asked, reply: Reply) -> None:
        if where == "stream of the call":
            await reply.stream()
            await reply.event(question)
            await answered.wait()
            await reply.event(answer(asked, text("done")))
        else:
            await server.until(lambda: bool(listening))
            await listening[0].event(question)
            await answered.wait()
            await reply.result(text("done"))

    async def take(asked: Asked, reply: Reply) -> None:
        assert asked.message["result"]["content"] == {"name": "Ada"}
        await reply.send(202)
        answered.set()

    server = ScriptedServer({"tools/call": work, "GET": get, "answer": take})

    async def main() -> None:
        await server.start()
        try:
            async with Client(
                server.url, elicitation_handler=lambda form: {"name": "Ada"}
            ) as client:
                assert (await client.call_tool("work")).text == "done"
        finally:
            await server.aclose()
        assert not server.errors

    run(main())


def test_progress_and_a_large_answer_come_on_one_stream() -> None:
    large = "x" * (10 * 1024 * 1024)

    async def work(asked: Asked, reply: Reply) -> None:
        token = asked.message["params"]["_meta"]["progressToken"]
        await reply.stream()
        for step in range(3):
            await reply.event(notice("progress", progressToken=token, progress=step))
        await reply.event(answer(asked, text(large)))

    async def main() -> None:
        seen: list[float] = []
        async with scripted({"tools/call": work}) as server, Client(server.url) as client:
            result = await client.call_tool("work", on_progress=lambda p: seen.append(p.progress))
            assert len(result.text) == len(large)
            assert seen == [0, 1, 2]

    run(main())


@pytest.mark.long
def test_many_calls_at_once_each_get_their_own_answer() -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        said = asked.message["params"]["name"]
        if int(said) % 2:
            await reply.result(text(said))
        else:
            await reply.stream()
            await reply.event(answer(asked, text(said)))

    async def main() -> None:
        async with scripted({"tools/call": work}) as server, Client(server.url) as client:
            names = [str(number) for number in range(200)]
            results = await asyncio.gather(*(client.call_tool(name) for name in names))
            assert [result.text for result in results] == names

    run(main())


def test_a_client_can_be_opened_in_one_task_and_closed_in_another() -> None:
    async def main() -> None:
        async with scripted({"tools/call": _done}) as server:
            client = Client(server.url)
            await asyncio.ensure_future(client.connect())
            assert (await client.call_tool("work")).text == "done"
            await asyncio.ensure_future(client.aclose())

    run(main())


@pytest.mark.parametrize("turns", range(0, 60, 3))
def test_whoever_is_cancelled_at_any_moment_leaves_no_task_behind(turns: int) -> None:
    async def work(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(ident="w-1", retry=1)

    async def use(url: str) -> None:
        async with Client(url) as client:
            await client.call_tool("work")

    async def main() -> None:
        async with scripted({"tools/call": work}) as server:
            using = asyncio.ensure_future(use(server.url))
            for _ in range(turns):
                await asyncio.sleep(0)
            using.cancel()
            with pytest.raises((asyncio.CancelledError, LinkError)):
                await using
            assert not asyncio.all_tasks() - {asyncio.current_task(), *server.tasks}

    run(main())


@pytest.mark.parametrize("options", [{"verify": "missing.pem"}, {"cert": "missing.pem"}])
def test_certificates_that_cannot_be_used_are_refused_before_anything_is_sent(
    options: dict[str, Any],
) -> None:
    with pytest.raises(Misconfigured, match=r"missing\.pem|no certificate"):
        connector_to("https://example.com/mcp", http=HttpOptions(**options))
