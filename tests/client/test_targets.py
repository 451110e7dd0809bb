"""What a client connects to, and how it watches that the other side is still there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dragoman import Client, DeadlineExceeded, LinkError, Server
from dragoman.client.targets import connector_for
from dragoman.errors import Misconfigured
from tests.instant import run_instantly
from tests.protocol.aids import hello, notification, request
from tests.requirements.duties import duty
from tests.runtime.aids import turns
from tests.scripted import scripted_client, scripted_server
from tests.support import joined, run

SCRIPT = """
import os, sys
from dragoman import Server
server = Server("child", instructions=os.environ.get("GREETING"))
@server.tool
def where() -> str:
    print("on stdout", flush=True)
    print("on stderr", file=sys.stderr, flush=True)
    return os.getcwd()
server.run()
"""


@pytest.mark.parametrize("form", ["str", "path", "list"])
def test_a_script_and_a_command_line_are_started_as_children(form: str, tmp_path: Path) -> None:
    script = tmp_path / "my server.py"
    script.write_text(SCRIPT)
    target: Any = {
        "str": str(script),
        "path": script,
        "list": [sys.executable, str(script)],
    }[form]

    async def main() -> None:
        lines: list[str] = []
        async with Client(
            target, cwd=tmp_path, env={"GREETING": "hello"}, on_stderr=lines.append
        ) as client:
            assert client.instructions == "hello"
            found = (await client.call_tool("where")).text
            assert Path(found).samefile(tmp_path)
        assert {"on stdout", "on stderr"} <= {line.strip() for line in lines}

    run(main())


def test_a_server_object_is_described_by_its_name() -> None:
    assert "small" in connector_for(Server("small")).description


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("ws://example.com/mcp", "URL"),
        (3, "int"),
        (None, "NoneType"),
        ([], "empty|command"),
        ("no-such-script.py", "no-such-script"),
    ],
)
def test_what_cannot_be_connected_to_is_refused_with_what_can(target: Any, said: str) -> None:
    async def main() -> None:
        with pytest.raises((Misconfigured, LinkError), match=said):
            await Client(target).connect()

    run(main())


@pytest.mark.long
def test_a_child_that_never_answers_is_told_with_the_end_of_its_stderr(tmp_path: Path) -> None:
    script = tmp_path / "mute.py"
    script.write_text(
        "import sys, time\nprint('no key set', file=sys.stderr, flush=True)\nsys.stdin.read()\n"
    )

    async def main() -> None:
        with pytest.raises(DeadlineExceeded, match="no key set") as late:
            # 10 s: long enough to start Python and have it say something, on any machine.
            await Client(script, connect_timeout_s=10.0).connect()
        assert late.value.method == "initialize"

    run(main())


def test_a_child_that_ends_at_once_is_told_with_its_exit_code_and_stderr(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('cannot find the database')\n")

    async def main() -> None:
        with pytest.raises(LinkError, match="cannot find the database") as ended:
            await Client(script).connect()
        assert getattr(ended.value, "exit_code", None) == 1

    run(main())


# --- watching ---------------------------------------------------------------------------------------


@duty("ping.periodic", "ping.configurable", "ping.deadline", "ping.timeout-is-failure")
def test_a_client_pings_a_silent_server_and_leaves_one_that_does_not_answer() -> None:
    async def main() -> None:
        async with scripted_server({}, keep_alive_s=0.01, keep_alive_timeout_s=0.05) as (
            client,
            peer,
        ):
            for _ in range(2):
                peer.answer(await peer.expect("ping"), {})
            waiting = asyncio.ensure_future(client.ping(timeout_s=30.0))
            with pytest.raises(LinkError, match="ping"):
                await waiting
            await peer.closed.wait()
            assert not client.is_connected

    run_instantly(main())


@duty("ping.periodic", "ping.timeout-is-failure")
def test_a_server_pings_a_silent_client_and_leaves_one_that_does_not_answer() -> None:
    async def main() -> None:
        server = Server("s", keep_alive_s=0.01, keep_alive_timeout_s=0.05)
        async with scripted_client(server) as peer:
            for _ in range(2):
                peer.answer(await peer.expect("ping"), {})
            await peer.closed.wait()

    run_instantly(main())


@duty("ping.configurable")
def test_nobody_is_pinged_unless_it_is_asked_for() -> None:
    async def main() -> None:
        async with joined(Server("s")) as (client, wire):
            await client.ping()
            assert len(wire.sent("ping")) == 1
            assert not wire.received("ping")

    run(main())


async def _pinged(client: Client) -> None:
    while True:
        await client.ping()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_server_whose_tool_blocks_the_loop(
    number: signal.Signals, tmp_path: Path
) -> None:
    script = tmp_path / "blocked.py"
    script.write_text(
        "import sys, time\n"
        "from dragoman import Server\n"
        "server = Server('s')\n"
        "@server.tool\n"
        "async def block() -> None:\n"
        "    print('blocked', file=sys.stderr, flush=True)\n"
        "    for _ in range(6_000):\n"
        "        time.sleep(0.01)\n"
        "server.run()\n"
    )
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "block", "arguments": {}},
    }
    frames = [request("hello", "initialize", hello()), notification("notifications/initialized")]
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            for frame in (*frames, call):
                process.stdin.write(json.dumps(frame).encode() + b"\n")
            process.stdin.flush()
            assert process.stderr.readline() == b"blocked\n"
            sent = 0
            while process.poll() is None and sent < 50:
                process.send_signal(number)
                sent += 1
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
            # The first is an order to end in peace, and what follows at once is no second one.
            assert sent > 2
            assert process.returncode == -number
        finally:
            process.kill()


def test_whoever_closes_and_is_cancelled_still_waits_for_the_end_of_the_servers_life() -> None:
    async def main() -> None:
        left: list[str] = []
        leaving, may_leave = asyncio.Event(), asyncio.Event()

        @asynccontextmanager
        async def life(server: Server) -> AsyncIterator[None]:
            yield
            leaving.set()
            await may_leave.wait()
            left.append("left")

        client = await Client(Server("s", lifespan=life)).connect()
        closing = asyncio.ensure_future(client.aclose())
        await leaving.wait()
        closing.cancel()
        await turns()
        assert not closing.done()
        may_leave.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert left == ["left"]

    run(main())


def test_whoever_closes_and_cannot_wait_any_longer_cancels_twice() -> None:
    async def main() -> None:
        leaving, may_leave = asyncio.Event(), asyncio.Event()

        @asynccontextmanager
        async def life(server: Server) -> AsyncIterator[None]:
            yield
            leaving.set()
            await may_leave.wait()

        before = asyncio.all_tasks()
        client = await Client(Server("s", lifespan=life)).connect()
        closing = asyncio.ensure_future(client.aclose())
        await leaving.wait()
        closing.cancel()
        await turns()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        may_leave.set()
        await asyncio.wait(asyncio.all_tasks() - before)

    run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_a_server_that_is_told_to_stop_ends_its_life_in_order(tmp_path: Path) -> None:
    script = tmp_path / "stoppable.py"
    script.write_text(
        "import contextlib, pathlib\n"
        "from dragoman import Server\n"
        "@contextlib.asynccontextmanager\n"
        "async def life(server):\n"
        "    yield\n"
        f"    pathlib.Path({str(tmp_path / 'left')!r}).write_text('left')\n"
        "server = Server('s', lifespan=life)\n"
        "@server.tool\n"
        "async def pid() -> int:\n"
        "    import os\n"
        "    return os.getpid()\n"
        "server.run()\n"
    )

    async def main() -> None:
        async with Client(script, reconnect=False) as client:
            pid = int((await client.call_tool("pid")).text)
            os.kill(pid, 15)
            with pytest.raises(LinkError):
                await _pinged(client)
        assert (tmp_path / "left").read_text() == "left"

    run(main())
