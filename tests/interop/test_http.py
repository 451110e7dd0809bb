"""What only HTTP has: sessions, streams that are resumed, servers that go away and come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from dragoman import Client, LinkError
from dragoman.client.supervisor import ConnectionEvent, Reconnect
from dragoman.transport.http.client import HttpClient, HttpOptions, HttpResponse
from dragoman.transport.http.opening import open_http
from interop import peers
from tests.interop.documents import grouped
from tests.interop.servers import OVER_HTTP, SERVERS
from tests.interop.serving import PATHS, Program, children, serve_peer

pytestmark = pytest.mark.interop

STREAMABLE = [name for name, (_, transport) in OVER_HTTP.items() if transport == "streamable"]
USE_TIMEOUT_S = 45.0

# A server on this machine is back within seconds; on a busy one, within half a minute.
SOON = Reconnect(first_delay_s=0.05, max_delay_s=0.3, max_tries=1_000, total_s=USE_TIMEOUT_S)


def program_of(name: str) -> tuple[Program, str]:
    """The server program of a visit, not yet started, and its URL."""
    server, transport = OVER_HTTP[name]
    found = SERVERS[server]
    program = serve_peer(f"http-{server}", found.peer, found.program, transport)
    return program, program.url + PATHS[transport]


def while_serving(program: Program, use: Callable[[], Awaitable[None]]) -> None:
    """Run `use` while the program serves, and see that no process is left behind."""

    async def run() -> None:
        async with asyncio.timeout(USE_TIMEOUT_S):
            await use()

    with program:
        asyncio.run(run())
    assert children() == []


@dataclass
class Recorder:
    """An HTTP client that writes down every request: method, headers and the status it got."""

    inner: HttpClient
    made: list[tuple[str, Mapping[str, str], int]] = field(default_factory=list)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> HttpResponse:
        response = await self.inner.send(method, url, headers, body)
        lower = {name.lower(): value for name, value in headers.items()}
        self.made.append((method, lower, response.status))
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()

    def of(self, method: str) -> list[Mapping[str, str]]:
        return [headers for made, headers, _ in self.made if made == method]


# A server of mcp 1.9 fails as a whole when one client ends its session.
ENDABLE = [name for name in STREAMABLE if name != "mcp-1.9-over-streamable"]


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", grouped(ENDABLE))
def test_a_session_has_one_id_and_ends_with_it(name: str) -> None:
    program, url = program_of(name)

    async def use() -> None:
        recorder = Recorder(open_http(HttpOptions()))
        async with Client(url, http=recorder) as client:
            assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "5"
            revision = client.protocol_version
        opening, *rest = recorder.made
        assert "mcp-session-id" not in opening[1]
        assert len({headers.get("mcp-session-id") for _, headers, _ in rest}) == 1
        (farewell,) = recorder.of("DELETE")
        if revision >= "2025-06-18":
            assert {headers["mcp-protocol-version"] for _, headers, _ in rest} == {revision}
        # The id means nothing any more.
        again = {**recorder.of("POST")[-1], "mcp-session-id": farewell["mcp-session-id"]}
        ping = json.dumps({"jsonrpc": "2.0", "id": 99, "method": "ping"}).encode()
        response = await recorder.send("POST", url, again, ping)
        await response.aclose()
        assert response.status == 404
        await recorder.aclose()

    while_serving(program, use)


@pytest.mark.parametrize("name", grouped(ENDABLE))
def test_a_session_that_the_server_forgot_is_opened_anew_unseen(name: str) -> None:
    program, url = program_of(name)

    async def use() -> None:
        events: list[ConnectionEvent] = []
        recorder = Recorder(open_http(HttpOptions()))
        async with Client(
            url, http=recorder, reconnect=SOON, on_connection=events.append
        ) as client:
            await client.ping()
            end = recorder.of("POST")[-1]
            response = await recorder.send("DELETE", url, end)
            await response.aclose()
            assert response.status < 300
            assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "5"
            assert recorder.of("POST")[-1]["mcp-session-id"] != end["mcp-session-id"]
        assert [event.kind for event in events if event.kind != "retrying"] == ["lost", "restored"]
        assert events[-1].is_new_session
        await recorder.aclose()

    while_serving(program, use)


# --- streams that are resumed -----------------------------------------------------------------------

# Those that close the stream of a request before they answer it.
CUTTERS = [f"{name}-over-streamable" for name in ("mcp-1.29", "mcp-2.3", "fastmcp-4.1", "ts-1")]
CUTTERS += ["ts-2-over-streamable", "dragoman-over-streamable"]


@pytest.mark.parametrize("name", grouped(CUTTERS))
def test_an_answer_is_fetched_with_the_id_of_the_last_event(name: str) -> None:
    program, url = program_of(name)

    async def use() -> None:
        recorder = Recorder(open_http(HttpOptions()))
        async with Client(url, http=recorder) as client:
            assert (await client.call_tool("cut")).text == "resumed"
        assert sum("last-event-id" in headers for headers in recorder.of("GET")) >= 1
        await recorder.aclose()

    while_serving(program, use)


# --- servers that go away ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", grouped(OVER_HTTP))
def test_our_client_survives_a_server_that_is_killed_under_a_call(name: str) -> None:
    program, url = program_of(name)

    async def use() -> None:
        events: list[ConnectionEvent] = []
        updated: list[str] = []
        levels: list[str] = []
        async with Client(
            url,
            reconnect=SOON,
            on_connection=events.append,
            on_resource_updated=updated.append,
            on_log=lambda message: levels.append(message.level),
        ) as client:
            await client.set_logging_level("warning")
            await client.subscribe_resource("interop://greeting")
            call = asyncio.create_task(client.call_tool("hang"))
            while json.loads((await client.call_tool("hang_state")).text)["hanging"] != 1:
                pass
            await asyncio.to_thread(program.kill)
            meanwhile = asyncio.create_task(
                client.call_tool("add", {"a": 2, "b": 3}, idempotent=True)
            )
            await asyncio.to_thread(program.start)
            assert (await meanwhile).text == "5"
            with pytest.raises(LinkError) as caught:
                await call
            # It was running: nobody may think that it was not.
            assert caught.value.sent is not False
            # What the new process was told again.
            said = await client.call_tool("touch", {"uri": "interop://greeting"})
            assert said.text == "announced"
            while not updated:
                await client.ping()
            await client.call_tool("log_all_levels")
            while len(levels) < 5:
                await client.ping()
            assert levels == ["warning", "error", "critical", "alert", "emergency"]
        kinds = [event.kind for event in events]
        assert kinds[0] == "lost"
        assert kinds[-1] == "restored"
        assert events[-1].is_new_session
        assert events[-1].problems == ()

    while_serving(program, use)


@pytest.mark.parametrize("name", grouped(OVER_HTTP))
def test_our_client_survives_a_server_that_starts_again_while_nothing_runs(name: str) -> None:
    program, url = program_of(name)

    async def use() -> None:
        events: list[ConnectionEvent] = []
        async with Client(url, reconnect=SOON, on_connection=events.append) as client:
            assert (await client.call_tool("add", {"a": 2, "b": 3})).text == "5"
            await asyncio.to_thread(program.kill)
            await asyncio.to_thread(program.start)
            assert (await client.call_tool("add", {"a": 2, "b": 4}, idempotent=True)).text == "6"
        assert not any(event.kind == "given_up" for event in events)

    while_serving(program, use)


# --- one server for every client --------------------------------------------------------------------


def test_one_server_of_ours_serves_clients_of_every_transport_and_revision_at_once() -> None:
    async def run(*command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode("utf-8", "replace")[-2000:]
        version = json.loads(out)["protocolVersion"]
        assert isinstance(version, str)
        return version

    with serve_peer("http-many", "dragoman", "dragoman_server.py", "streamable") as program:
        old = (*peers.program("mcp-1.6", "mcp1_client.py"), "--skip-cancel", "sse")
        new = (*peers.program("ts-2", "ts2_client.mjs"), "streamable")
        middle = (*peers.program("mcp-1.22", "mcp1_client.py"), "--skip-cancel", "streamable")

        async def all_at_once() -> list[str]:
            return await asyncio.gather(
                run(*old, program.url + "/sse"),
                run(*new, program.url + "/mcp"),
                run(*middle, program.url + "/mcp"),
            )

        assert asyncio.run(all_at_once()) == ["2024-11-05", "2025-11-25", "2025-06-18"]
