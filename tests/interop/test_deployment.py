"""The server of examples/deployment: two processes of it behind nginx, with TLS and tokens, as they are there."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dragoman import Client
from dragoman.client.supervisor import ConnectionEvent
from dragoman.errors import HttpError
from dragoman.transport.http.client import HttpOptions
from interop import nginx, peers
from tests.interop.serving import Program, free_port

EXAMPLE = peers.ROOT / "examples" / "deployment"
NGINX = nginx.find()
OPENSSL = shutil.which("openssl")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(NGINX is None, reason="no nginx; python interop/nginx.py fetches one"),
    pytest.mark.skipif(OPENSSL is None, reason="no openssl to make a certificate with"),
]

# As root its workers would become somebody who may not write below a test's directory.
USER = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
USE_TIMEOUT_S = 60.0

# Clients that were not written to come back: what they do, and with which program here.
CALLERS = {"mcp-1.29": "mcp1_caller.py", "ts-1": "ts1_caller.mjs"}


@dataclass
class Team:
    """The whole of it: what it keeps, its two processes and the proxy."""

    state: Path
    processes: list[Program]
    url: str
    events: list[ConnectionEvent] = field(default_factory=list)

    @property
    def certificate(self) -> str:
        return str(self.state / "cert.pem")

    def token(self, name: str) -> str:
        words = [sys.executable, str(EXAMPLE / "notebook.py"), "token", name]
        env = os.environ | {"STATE": str(self.state)}
        made = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
        return made.stdout.strip()

    def take_away(self, name: str) -> None:
        path = self.state / "tokens.json"
        people = json.loads(path.read_text())
        path.write_text(json.dumps({one: who for one, who in people.items() if who != name}))

    def client(self, token: str, path: str = "/mcp", *, http2: bool = False) -> Client:
        return Client(
            self.url + path,
            token=token,
            http=HttpOptions(verify=self.certificate, http2=http2),
            trusts_annotations=True,
            on_connection=self.events.append,
        )

    def restart(self, process: Program) -> None:
        """As a supervisor does it: SIGTERM, until it has ended, and another."""
        process.signal(signal.SIGTERM)
        process.wait()
        process.start()


def set_for_test(text: str, ports: dict[str, int]) -> str:
    for old, port in ports.items():
        assert f"127.0.0.1:{old}" in text
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{port}")
    assert "daemon off;" in text
    return text.replace("daemon off;", USER)


@contextmanager
def team(state: Path) -> Iterator[Team]:
    assert OPENSSL is not None
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(state / "key.pem"), "-out", str(state / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    processes = [
        Program(
            f"deployment-{number}",
            lambda port: [sys.executable, str(EXAMPLE / "notebook.py")],
            env=lambda port: {"STATE": str(state), "PORT": str(port)},
        )
        for number in (1, 2)
    ]

    def command(port: int) -> list[str]:
        ports = {"8001": processes[0].port, "8002": processes[1].port, "8443": port}
        text = set_for_test((EXAMPLE / "nginx.conf").read_text("utf-8"), ports)
        (state / "nginx.conf").write_text(text, "utf-8")
        return [str(NGINX), "-p", str(state), "-c", str(state / "nginx.conf")]

    with ExitStack() as running:
        for process in processes:
            running.enter_context(process)
        front = running.enter_context(Program("deployment-nginx", command, port=free_port()))
        yield Team(state, processes, f"https://localhost:{front.port}")


async def served_by(client: Client) -> int:
    found: int = (await client.call_tool("served_by")).data
    return found


def in_time(use: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(USE_TIMEOUT_S):
            await use

    asyncio.run(run())


def status(place: Team, token: str | None, session: str | None = None) -> tuple[int, str]:
    """What a POST gets that is not ours: the status, and the session that was begun."""
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    if session is None:
        info = {"name": "c", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    else:
        headers["mcp-session-id"] = session
        message = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    request = urllib.request.Request(place.url + "/mcp", json.dumps(message).encode(), headers)
    trusted = ssl.create_default_context(cafile=place.certificate)
    try:
        with urllib.request.urlopen(request, context=trusted) as answer:
            return answer.status, answer.headers["mcp-session-id"] or ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_people_with_tokens_are_served_over_tls_and_nobody_else(tmp_path: Path) -> None:
    with team(tmp_path) as place:
        ada, bob = place.token("ada"), place.token("bob")
        assert status(place, None)[0] == 401
        assert status(place, "guessed")[0] == 401
        code, session = status(place, ada)
        assert code == 200
        assert status(place, ada, session)[0] == 200
        # Whoever learns of a session cannot use it.
        assert status(place, bob, session)[0] == 404
        assert status(place, None, session)[0] == 401

        async def use() -> None:
            for path, http2 in (("/mcp", False), ("/mcp", True), ("/sse", False)):
                async with place.client(ada, path, http2=http2) as client:
                    await client.call_tool("add_note", {"text": f"{path} {http2}"})
            async with place.client(bob) as client:
                assert (await client.call_tool("notes")).data == []
            async with place.client(ada) as client:
                written = ["/mcp False", "/mcp True", "/sse False"]
                assert (await client.call_tool("notes")).data == written
                # A token that is taken away is worth nothing from then on.
                place.take_away("ada")
                with pytest.raises(HttpError) as refused:
                    await client.call_tool("notes")
                assert refused.value.status == 401
            with pytest.raises(HttpError):
                async with place.client(ada):
                    pass

        in_time(use())
        # A certificate that nobody vouches for is not accepted.
        words = [sys.executable, "-m", "dragoman", "list", f"{place.url}/mcp", "--json"]
        env = os.environ | {"TOKEN": bob}
        asked = [*words, "--token-env", "TOKEN"]
        refused = subprocess.run(asked, env=env, capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert "--ca FILE" in refused.stdout
        trusted = [*asked, "--ca", place.certificate]
        listed = subprocess.run(trusted, env=env, capture_output=True, text=True, check=True)
        names = [tool["name"] for tool in json.loads(listed.stdout)["tools"]]
        assert names == ["add_note", "notes", "served_by"]


def test_processes_are_restarted_one_by_one_and_no_call_is_lost(tmp_path: Path) -> None:
    with team(tmp_path) as place:
        token = place.token("ada")

        async def use() -> None:
            async with place.client(token) as client:
                seen = {await served_by(client)}
                is_over = asyncio.Event()
                written = 0

                async def write(name: int) -> None:
                    nonlocal written
                    while not is_over.is_set():
                        await client.call_tool("add_note", {"text": f"{name} {written}"})
                        written += 1

                async with asyncio.TaskGroup() as group:
                    for name in range(4):
                        group.create_task(write(name))
                    for _ in range(2):
                        for process in place.processes:
                            await asyncio.to_thread(place.restart, process)
                            seen.add(await served_by(client))
                    is_over.set()
                # Each call was run once; the session went from process to process.
                notes = (await client.call_tool("notes")).data
                assert len(notes) == len(set(notes)) == written > 100
                assert len(seen) > 1
                assert not [event for event in place.events if event.is_new_session]

        in_time(use())


@pytest.mark.parametrize(("peer", "script"), CALLERS.items())
def test_clients_of_other_sdks_notice_nothing_of_it_either(
    peer: str, script: str, tmp_path: Path
) -> None:
    with team(tmp_path) as place:
        words = peers.program(peer, script, place.url + "/mcp", place.token("ada"))
        trusted = {"SSL_CERT_FILE": place.certificate, "NODE_EXTRA_CA_CERTS": place.certificate}
        caller = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | trusted,
        )
        try:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "calling\n"
            for process in place.processes:
                place.restart(process)
            told, _ = caller.communicate(timeout=USE_TIMEOUT_S)
        finally:
            caller.kill()
            caller.wait()
        seen = json.loads(told)
        assert seen["failures"] == []

        async def use() -> None:
            async with place.client(place.token("ada")) as client:
                notes = (await client.call_tool("notes")).data
                assert notes == [str(number + 1) for number in range(seen["calls"])]

        in_time(use())


def test_a_session_goes_on_in_the_other_process_when_its_own_is_killed(tmp_path: Path) -> None:
    with team(tmp_path) as place:
        token = place.token("ada")

        async def use() -> None:
            async with place.client(token) as client:
                # What may be repeated: those that only read.
                await client.list_tools()
                await client.call_tool("add_note", {"text": "before"})
                first = await served_by(client)
                os.kill(first, signal.SIGKILL)
                assert (await client.call_tool("notes")).data == ["before"]
                second = await served_by(client)
                assert second != first
                await client.call_tool("add_note", {"text": "after"})
                assert not [event for event in place.events if event.is_new_session]

        in_time(use())
