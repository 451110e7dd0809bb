"""`dragoman run --reload`: the code changes, a new process serves it, and no client notices."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pytest

from dragoman import Client, LinkError
from tests.cli.aids import PATIENCE_S
from tests.cli.serving import Running, counter

T = TypeVar("T")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="hands sockets on, as POSIX does")

RELOAD = ("--transport", "http", "--port", "0", "--reload")
AGAIN = "counter runs again"
WRITES_PID = "\nimport os\nopen({!r}, 'w').write(str(os.getpid()))\n"


async def aside(work: Callable[..., T], *args: object) -> T:
    """Wait in a thread, so that clients here go on."""
    return await asyncio.to_thread(work, *args)


def run_within_a_minute(work: Callable[[], object]) -> None:
    asyncio.run(asyncio.wait_for(work(), 50))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.long
def test_no_call_fails_while_the_code_changes_and_the_session_stays(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    async def talk() -> None:
        with Running(str(counter(tmp_path)), *RELOAD, TMPDIR=str(temporary)) as server:
            url = await aside(server.url)
            (folder,) = temporary.iterdir()
            assert folder.stat().st_mode & 0o777 == 0o700
            seen: list[int] = []
            events: list[object] = []
            is_over = False
            async with Client(url, on_connection=events.append) as client:
                session = (await client.call_tool("session")).data

                async def call() -> None:
                    while not is_over:
                        seen.append((await client.call_tool("version")).data)

                callers = [asyncio.ensure_future(call()) for _ in range(3)]
                for version in (2, 3):
                    await until(lambda version=version: version - 1 in seen)  # type: ignore[misc]
                    counter(tmp_path, version)
                    await until(lambda version=version: version in seen)  # type: ignore[misc]
                is_over = True
                await asyncio.gather(*callers)
                assert seen == sorted(seen)
                assert set(seen) == {1, 2, 3}
                assert (await client.call_tool("session")).data == session
                assert events == []
            assert await aside(server.stop) == 0
            assert list(temporary.iterdir()) == []
            # The URL was printed once.
            assert server.process.stdout is not None
            assert server.process.stdout.read() == ""
            for line in server.stderr.splitlines():
                assert line.startswith("dragoman: ")

    run_within_a_minute(talk)


@pytest.mark.long
def test_a_call_under_way_is_finished_by_the_code_it_began_with(tmp_path: Path) -> None:
    async def talk() -> None:
        heard = asyncio.Event()
        with Running(str(counter(tmp_path)), *RELOAD) as server:
            url = await aside(server.url)
            async with Client(url, on_resource_updated=lambda uri: heard.set()) as client:
                await client.subscribe_resource("note://x")
                flag = tmp_path / "flag"
                waiting = asyncio.ensure_future(client.call_tool("wait_for", {"path": str(flag)}))
                await until(flag.exists)
                counter(tmp_path, 2)
                await aside(server.expect, "counter.py changed")
                # Made by a connection of its own, it waits for the process to come.
                behind = asyncio.ensure_future(client.call_tool("version"))
                flag.unlink()
                assert (await waiting).data == 1
                await aside(server.expect, AGAIN)
                assert (await behind).data in (1, 2)
                assert (await client.call_tool("version")).data == 2
                # The new process knows whom to tell.
                await client.call_tool("change")
                await asyncio.wait_for(heard.wait(), PATIENCE_S)
            assert await aside(server.stop) == 0

    run_within_a_minute(talk)


def ask(url: str) -> tuple[int, str | None]:
    """What a plain request gets: its status and Retry-After."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=PATIENCE_S)
    try:
        connection.request("POST", parts.path, body=b"{" * 100_000)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers["retry-after"]
    finally:
        connection.close()


@pytest.mark.long
def test_a_mistake_is_shown_and_requests_are_refused_until_it_is_put_right(tmp_path: Path) -> None:
    async def talk() -> None:
        with Running(str(counter(tmp_path)), *RELOAD) as server:
            url = await aside(server.url)
            async with Client(url) as client:
                session = (await client.call_tool("session")).data
                file = tmp_path / "counter.py"
                file.write_text("def (:\n")
                await aside(server.expect, "waiting for a change")
                assert "SyntaxError" in server.stderr
                assert await aside(ask, url) == (503, "1")
                counter(tmp_path, 2)
                await aside(server.expect, AGAIN)
                assert (await client.call_tool("version")).data == 2
                assert (await client.call_tool("session")).data == session
            assert await aside(server.stop) == 0

    run_within_a_minute(talk)


@pytest.mark.long
def test_a_file_that_is_wrong_from_the_beginning_is_served_once_it_is_right(tmp_path: Path) -> None:
    file = tmp_path / "counter.py"
    file.write_text("import nowhere_at_all\n")
    with Running(str(file), *RELOAD) as server:
        server.expect("waiting for a change")
        assert "nowhere_at_all" in server.stderr
        counter(tmp_path, 2)
        url = server.url()
        assert url.endswith("/mcp")
        assert ask(url)[0] != 503
        assert server.stop() == 0


@pytest.mark.long
def test_a_process_that_dies_is_replaced_after_the_next_change(tmp_path: Path) -> None:
    file = counter(tmp_path)
    mortal = (
        file.read_text() + "\n@server.tool\ndef die() -> None:\n    import os\n    os._exit(7)\n"
    )
    file.write_text(mortal)
    with Running(str(file), *RELOAD) as server:
        url = server.url()

        async def kill() -> None:
            async with Client(url, reconnect=False) as client:
                with pytest.raises(LinkError):
                    await client.call_tool("die")

        asyncio.run(kill())
        server.expect("exit code 7")
        assert ask(url) == (503, "1")
        counter(tmp_path, 2)
        server.expect(AGAIN)
        assert ask(url)[0] != 503
        assert server.stop() == 0


@pytest.mark.long
def test_a_change_of_a_neighbour_counts_and_one_of_another_kind_does_not(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    with Running(str(counter(tmp_path)), *RELOAD) as server:
        server.url()
        (tmp_path / "data.txt").write_text("nothing to do with it")
        (tmp_path / "part" / "near.py").write_text("x = 1\n")
        server.expect(AGAIN)
        assert os.path.join("part", "near.py") in server.stderr
        assert "data.txt" not in server.stderr
        assert server.stop() == 0


@pytest.mark.long
def test_a_change_within_the_same_second_and_of_the_same_size_is_run(tmp_path: Path) -> None:
    near, file = tmp_path / "near.py", tmp_path / "served.py"
    near.write_text("NAME = 'one'\n")
    file.write_text("from near import NAME\nfrom dragoman import Server\nserver = Server(NAME)\n")
    written = near.stat()
    # Empty as unset: whoever runs this may not want compiled files either.
    with Running(str(file), *RELOAD, PYTHONDONTWRITEBYTECODE="") as server:
        server.url()
        near.write_text("NAME = 'two'\n")
        os.utime(near, ns=(written.st_atime_ns, written.st_mtime_ns))
        server.expect("two runs again")
        assert server.stop() == 0


def test_ctrl_c_ends_parent_and_child_in_order(tmp_path: Path) -> None:
    file, pid = counter(tmp_path), tmp_path / "pid"
    file.write_text(file.read_text() + WRITES_PID.format(str(pid)))
    with Running(str(file), *RELOAD) as server:
        server.url()
        child = int(pid.read_text())
        assert server.press_ctrl_c() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
        assert "Traceback" not in server.stderr


@pytest.mark.long
def test_a_child_whose_parent_was_killed_ends_by_itself(tmp_path: Path) -> None:
    with Running(str(counter(tmp_path)), *RELOAD) as server:
        url = server.url()
        server.stop(signal.SIGKILL)
        # The end of the last process that has stderr is the end of stderr.
        server.join()
        with pytest.raises(ConnectionError):
            ask(url)


@pytest.mark.long
def test_a_unix_socket_stays_the_same_one_over_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"

    async def talk() -> None:
        words = ("--transport", "unix", "--socket", str(path), "--reload")
        with Running(str(counter(tmp_path)), *words) as server:
            url = await aside(server.url)
            node = path.stat().st_ino
            async with Client(url) as client:
                assert (await client.call_tool("version")).data == 1
                counter(tmp_path, 2)
                await aside(server.expect, AGAIN)
                assert (await client.call_tool("version")).data == 2
            assert path.stat().st_ino == node
            assert await aside(server.stop) == 0
        assert not path.exists()

    run_within_a_minute(talk)


LEAVES_ONE_BEHIND = """
import os, sys, time
if os.fork() == 0:
    while os.path.exists({!r}):
        time.sleep(0.01)
    os._exit(0)
sys.exit(9)
"""


@pytest.mark.long
def test_a_file_that_starts_a_program_before_it_fails_does_not_hold_us_up(tmp_path: Path) -> None:
    file, flag = tmp_path / "counter.py", tmp_path / "flag"
    flag.touch()
    file.write_text(LEAVES_ONE_BEHIND.format(str(flag)))
    with Running(str(file), *RELOAD) as server:
        try:
            server.expect("exit code 9")
            counter(tmp_path, 2)
            assert server.url().endswith("/mcp")
            assert server.stop() == 0
        finally:
            flag.unlink()
