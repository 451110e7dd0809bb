"""A server as a child process, with good manners and bad ones; every child here is a real one."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import CannotStart, ChildExited, LinkClosed
from dragoman.transport.stdio import pipes
from dragoman.transport.stdio.child import ChildLink, StdioConnector
from dragoman.transport.stdio.limits import SAMPLE_BYTES, STDERR_TAIL_BYTES
from tests.requirements.duties import duty

from .aids import Recorder, child_processes, in_loop, is_alive, open_descriptors, script


def connector(behaviour: str, *args: str, **options: Any) -> StdioConnector:
    command, *rest = script("peer")
    return StdioConnector(command=command, args=[*rest, behaviour, *args], **options)


@asynccontextmanager
async def child(
    behaviour: str, *args: str, **options: Any
) -> AsyncIterator[tuple[ChildLink, Recorder]]:
    """A started link to a child; afterwards nothing of it may be left."""
    descriptors, children = open_descriptors(), child_processes()
    link = await connector(behaviour, *args, **options).connect()
    receiver = Recorder()
    try:
        link.start(receiver)
        yield link, receiver
    finally:
        await link.aclose()
    assert len(receiver.ends) == 1
    assert open_descriptors() == descriptors
    assert child_processes() == children
    assert not is_alive(link.pid)


# --- the ordinary way -------------------------------------------------------------------------


@duty("stdio.supported")
@in_loop
async def test_frames_go_to_a_child_and_come_back() -> None:
    async with child("echo") as (link, receiver):
        sent = [b'{"id":%d,"text":"\xc3\xa9\xe2\x80\xa8"}' % number for number in range(1000)]
        for frame in sent:
            link.send(frame)
        await receiver.frame(999)
        assert receiver.frames == sent
        status_while_it_runs = link.exit_code
    assert status_while_it_runs is None
    assert link.exit_code == 0
    assert receiver.ends == [None]


@in_loop
async def test_ten_megabytes_go_there_and_back() -> None:
    async with child("echo") as (link, receiver):
        frame = os.urandom(5_000_000).hex().encode()
        link.send(frame)
        assert link.is_congested
        assert await receiver.frame(0) == frame
        await link.drain()


@in_loop
async def test_a_connector_starts_a_new_child_each_time() -> None:
    one = connector("echo")
    first, second = await one.connect(), await one.connect()
    assert first.pid != second.pid
    assert one.description.endswith("peer.py echo")
    await asyncio.gather(first.aclose(), second.aclose())


@duty("stdio.credentials")
@in_loop
async def test_a_child_gets_a_short_environment_and_what_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("LC_TIME", "C.UTF-8")
    monkeypatch.setenv("SHELL", "() { echo a function; }")
    given = {"API_KEY": "mine", "HOME": "/elsewhere"}
    async with child("environment", env=given, cwd=tmp_path) as (_, receiver):
        await receiver.until(lambda: any(f == b"that is all" for f in receiver.frames))
    lines = [frame.decode() for frame in receiver.frames]
    assert "API_KEY=mine" in lines
    assert "HOME=/elsewhere" in lines
    assert "LC_TIME=C.UTF-8" in lines
    assert f"PATH={os.environ['PATH']}" in lines
    assert not any("hunter2" in line or line.startswith("SHELL=") for line in lines)
    assert f"cwd {tmp_path}" in lines


@in_loop
async def test_a_child_leads_its_own_session_and_inherits_nothing_else() -> None:
    other = await connector("echo").connect()
    async with child("environment") as (_, receiver):
        await receiver.until(lambda: any(f == b"that is all" for f in receiver.frames))
    await other.aclose()
    assert b"leader 1" in receiver.frames
    # The fourth is the one that lists the directory.
    assert b"descriptors 0 1 2 3" in receiver.frames


# --- a child that cannot be started -----------------------------------------------------------


@in_loop
async def test_a_missing_program_is_named_with_the_closest_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mcp-server-weather").touch(mode=0o755)
    before = open_descriptors()
    with pytest.raises(CannotStart) as caught:
        await StdioConnector(
            command="mcp-server-wether", args=["-v"], env={"PATH": str(tmp_path)}
        ).connect()
    assert caught.value.sent is False
    assert caught.value.command == ("mcp-server-wether", "-v")
    assert caught.value.hint is not None
    assert "mcp-server-weather" in caught.value.hint
    assert open_descriptors() == before


@in_loop
async def test_a_command_line_in_one_word_is_explained() -> None:
    with pytest.raises(CannotStart) as caught:
        await StdioConnector(command="npx -y some-server").connect()
    assert caught.value.hint is not None
    assert "args=['-y', 'some-server']" in caught.value.hint


def file_without_mode(directory: Path) -> Path:
    path = directory / "server.py"
    path.write_text("print(1)")
    return path


def file_without_interpreter(directory: Path) -> Path:
    path = directory / "server"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    return path


def file_without_first_line(directory: Path) -> Path:
    path = directory / "server"
    path.write_text("hello")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (file_without_mode, "is not executable"),
        (file_without_interpreter, "interpreter in its first line"),
        (file_without_first_line, "no '#!' line"),
        (lambda directory: directory, "is a directory"),
        (lambda directory: directory / "nothing", "there is no program"),
    ],
)
@in_loop
async def test_the_reason_why_a_file_does_not_start_is_told(
    make: Any, said: str, tmp_path: Path
) -> None:
    before = open_descriptors()
    with pytest.raises(CannotStart, match=said) as caught:
        await StdioConnector(command=str(make(tmp_path))).connect()
    assert caught.value.sent is False
    assert open_descriptors() == before


@in_loop
async def test_a_missing_working_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="working directory"):
        await connector("echo", cwd=tmp_path / "nowhere").connect()


@pytest.mark.parametrize("command", ["", "a\0b"])
@in_loop
async def test_a_command_that_is_none_is_refused(command: str) -> None:
    with pytest.raises(CannotStart):
        await StdioConnector(command=command).connect()


# --- a child that ends by itself --------------------------------------------------------------


@duty("shutdown.server-closes")
@in_loop
async def test_a_child_that_exits_at_once_tells_its_status_and_its_last_words() -> None:
    async with child("exits", "3") as (link, receiver):
        link.send(b'{"id":1}')
        error = await receiver.end()
        with pytest.raises(LinkClosed) as caught:
            link.send(b'{"id":2}')
    assert isinstance(error, ChildExited)
    assert error.exit_code == 3
    assert error.stderr_tail == "first line\nAPI_KEY is missing\n"
    assert error.command == link.command
    assert error.sent is None
    assert caught.value.sent is False
    assert link.exit_code == 3


@in_loop
async def test_an_early_exit_is_reported_to_who_starts_late() -> None:
    link = await connector("exits", "0").connect()
    receiver = Recorder()
    while link.exit_code is None:
        await asyncio.sleep(0.001)
    link.start(receiver)
    error = await receiver.end()
    assert isinstance(error, ChildExited)
    assert error.exit_code == 0
    assert "API_KEY" in error.stderr_tail
    await link.aclose()


@in_loop
async def test_a_child_that_dies_in_mid_call_names_the_signal() -> None:
    async with child("dies", str(int(signal.SIGSEGV))) as (link, receiver):
        link.send(b"{}")
        error = await receiver.end()
    assert isinstance(error, ChildExited)
    assert error.exit_code == -signal.SIGSEGV
    assert "SIGSEGV" in str(error)
    assert error.stderr_tail == "about to crash\n"
    # What it managed to say comes first, half a frame too.
    assert receiver.frames == [b'{"id":1}', b'{"id":2,"resu']


@in_loop
async def test_all_that_lies_in_the_pipes_is_delivered_before_the_end() -> None:
    async with child("last_words") as (_, receiver):
        error = await receiver.end()
    assert isinstance(error, ChildExited)
    assert len(receiver.frames) == 4000
    assert error.stderr_tail.endswith("last complaint\n")


@in_loop
async def test_the_end_of_a_child_waits_for_a_paused_receiver() -> None:
    async with child("last_words") as (link, receiver):
        link.pause_reading()
        while link.exit_code is None:
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)
        assert receiver.ends == []
        link.resume_reading()
        assert isinstance(await receiver.end(), ChildExited)
        assert len(receiver.frames) == 4000


@in_loop
async def test_a_grandchild_that_holds_the_pipes_does_not_hide_the_exit() -> None:
    async with child("leaves_grandchild") as (link, receiver):
        grandchild = int(await receiver.frame(0))
        assert is_alive(grandchild)
        link.send(b"exit")
        error = await receiver.end()
        assert isinstance(error, ChildExited)
        assert error.exit_code == 7
    assert not is_alive(grandchild)


@duty("shutdown.server-closes")
@in_loop
async def test_a_child_that_closes_its_stdout_ends_the_link() -> None:
    async with child("closes_stdout", close_wait_s=0.05) as (link, receiver):
        error = await receiver.end()
        assert isinstance(error, LinkClosed)
        assert link.exit_code is None
    assert receiver.frames == [b"ready"]


@in_loop
async def test_a_child_that_closes_its_stdin_ends_the_link_when_it_is_spoken_to() -> None:
    async with child("closes_stdin", close_wait_s=0.05) as (link, receiver):
        await receiver.frame(0)
        link.send(b"{}")
        assert isinstance(await receiver.end(), LinkClosed)


# --- floods and junk --------------------------------------------------------------------------


@duty("stdio.stderr-free", "stdio.stderr-not-error")
@in_loop
async def test_a_flood_on_stderr_blocks_nobody_and_its_end_is_kept() -> None:
    async with child("floods_stderr", "30") as (link, receiver):
        link.send(b"{}")
        assert await receiver.frame(0) == b"{}"
    tail = link.stderr_tail
    assert tail.endswith("the very last line\n")
    assert STDERR_TAIL_BYTES - 200 < len(tail) <= STDERR_TAIL_BYTES
    assert tail.startswith("a log line")


@in_loop
async def test_each_line_of_stderr_goes_to_the_callback() -> None:
    lines: list[str] = []
    async with child("floods_stderr", "1", stderr=lines.append) as (link, receiver):
        link.send(b"{}")
        await receiver.frame(0)
    assert len(lines) == 10_001
    assert set(lines[:-1]) == {"a log line of one hundred bytes " + "." * 67}
    assert lines[-1] == "the very last line"


@in_loop
async def test_a_line_of_stderr_without_its_end_reaches_the_callback() -> None:
    lines: list[str] = []
    code = "import os; os.write(2, b'a\\r\\n\\n' + b'x' * 20_000 + b'\\n\\xff'); os.read(0, 1)"
    link = await StdioConnector(
        command=sys.executable, args=["-c", code], stderr=lines.append
    ).connect()
    receiver = Recorder()
    link.start(receiver)
    link.send(b"x")
    await receiver.end()
    await link.aclose()
    assert lines[:2] == ["a", ""]
    assert "".join(lines[2:-1]) == "x" * 20_000
    assert lines[-1] == "\ufffd"


@in_loop
async def test_a_failing_callback_is_dropped_and_the_link_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    def fail(line: str) -> None:
        calls.append(line)
        raise RuntimeError("mine")

    with caplog.at_level(logging.ERROR, logger="dragoman.transport"):
        async with child("floods_stderr", "1", stderr=fail) as (link, receiver):
            link.send(b"{}")
            await receiver.frame(0)
    assert len(calls) == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert link.stderr_tail.endswith("the very last line\n")


@in_loop
async def test_a_flood_on_stdout_arrives_whole() -> None:
    async with child("floods_stdout", "30") as (_, receiver):
        await receiver.until(lambda: receiver.frames[-1:] == [b"done"])
        assert len(receiver.frames) == 30_001


@in_loop
async def test_a_flood_on_stdout_does_not_keep_a_child_from_being_closed() -> None:
    async with child("floods_stdout", "100000", close_wait_s=0.05) as (_, receiver):
        await receiver.frame(0)


@in_loop
async def test_junk_is_delivered_as_it_came_and_the_link_goes_on() -> None:
    async with child("junk") as (link, receiver):
        link.send(b"[]")
        await receiver.frame(3)
        assert receiver.frames == [b"Starting server...", b"\xff\xfe\x00", b"{}", b"[]"]


@in_loop
async def test_a_long_line_is_refused_with_both_its_ends() -> None:
    async with child("one_line", "30", max_frame_bytes=1_000_000) as (link, receiver):
        link.send(b"[]")
        await receiver.frame(1)
        assert receiver.frames == [b'{"id":43}', b"[]"]
        [noise] = receiver.refused
        assert noise.size == 30_000_016
        assert noise.head.startswith(b'{"id":42,"x":"xx')
        assert len(noise.tail) == SAMPLE_BYTES
        assert noise.tail.endswith(b'x"}')


@duty("stdio.stdin-clean")
@in_loop
async def test_a_child_reads_the_frames_and_nothing_else() -> None:
    code = "import os, sys; os.write(2, sys.stdin.buffer.read())"
    link = await StdioConnector(command=sys.executable, args=["-c", code]).connect()
    link.start(Recorder())
    link.send(b'{"id":1}')
    link.send(b'{\n"id":2}')
    await link.aclose()
    assert link.stderr_tail == '{"id":1}\n{ "id":2}\n'


# --- closing ----------------------------------------------------------------------------------


@duty("shutdown.close-stdin")
@in_loop
async def test_what_was_queued_reaches_a_child_before_its_stdin_closes() -> None:
    # More than any pipe holds: most of it is still queued when the link closes.
    code = "import os, sys; os.write(2, b'%d' % len(sys.stdin.buffer.read()))"
    link = await StdioConnector(command=sys.executable, args=["-c", code]).connect()
    link.start(Recorder())
    for _ in range(300):
        link.send(b"x" * 9_999)
    await link.aclose()
    assert link.exit_code == 0
    assert link.stderr_tail == "3000000"


@in_loop
async def test_closing_goes_on_reading_what_a_child_answers() -> None:
    async with child("echo") as (link, _):
        for _ in range(300):
            link.send(b"x" * 10_000)
        await link.aclose()
        assert link.exit_code == 0


@in_loop
async def test_a_child_may_talk_to_the_end() -> None:
    async with child("talks_to_the_end") as (link, receiver):
        await receiver.frame(0)
    assert link.exit_code == 0
    assert link.stderr_tail == "said it all\n"


@duty("shutdown.sigterm")
@in_loop
async def test_a_child_that_ignores_the_end_of_stdin_gets_sigterm() -> None:
    async with child("needs_term", close_wait_s=0.1) as (link, receiver):
        await receiver.frame(0)
    assert link.exit_code == 0
    assert link.stderr_tail == "got SIGTERM\n"


@duty("shutdown.sigkill", "errors.shutdown-timeout")
@in_loop
async def test_a_child_that_ignores_sigterm_too_is_killed() -> None:
    async with child("stubborn", close_wait_s=0.1, term_wait_s=0.1) as (link, receiver):
        await receiver.frame(0)
    assert link.exit_code == -signal.SIGKILL


@pytest.mark.parametrize("manners", ["", "deaf"])
@in_loop
async def test_grandchildren_end_with_the_child(manners: str) -> None:
    async with child("leaves_grandchild", manners) as (_, receiver):
        grandchild = int(await receiver.frame(0))
        assert is_alive(grandchild)
    assert not is_alive(grandchild)


@in_loop
async def test_a_cancelled_close_kills_at_once_and_leaves_nothing() -> None:
    async with child("stubborn", close_wait_s=3600) as (link, receiver):
        await receiver.frame(0)
        closing = asyncio.create_task(link.aclose())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert link.exit_code == -signal.SIGKILL
        assert not is_alive(link.pid)


@in_loop
async def test_many_may_close_one_link() -> None:
    async with child("echo") as (link, receiver):
        await asyncio.gather(*(link.aclose() for _ in range(5)))
        assert receiver.ends == [None]


@in_loop
async def test_closing_ends_a_drain_that_waits() -> None:
    async with child("stubborn", close_wait_s=0.05, term_wait_s=0.05) as (link, receiver):
        await receiver.frame(0)
        link.send(b"x" * 2_000_000)
        draining = asyncio.create_task(link.drain())
        await asyncio.sleep(0)
        closing = asyncio.create_task(link.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await draining


def test_a_loop_that_is_torn_down_takes_the_child_with_it() -> None:
    pids: list[int] = []

    async def main() -> None:
        link = await connector("stubborn").connect()
        receiver = Recorder()
        link.start(receiver)
        await receiver.frame(0)
        pids.append(link.pid)
        closing = asyncio.create_task(link.aclose())
        await asyncio.sleep(0)
        assert not closing.done()

    descriptors, children = open_descriptors(), child_processes()
    # `asyncio.run` cancels every task that is left, the closing one too.
    asyncio.run(main())
    assert not is_alive(pids[0])
    assert child_processes() == children
    assert open_descriptors() == descriptors


@in_loop
async def test_a_guard_is_gone_with_its_link() -> None:
    async with child("echo", guard=True) as (link, receiver):
        link.send(b"{}")
        await receiver.frame(0)
    assert link.exit_code == 0


@in_loop
async def test_starting_and_ending_many_children_leaks_nothing() -> None:
    for _ in range(3):
        async with child("exits", "1") as (_, receiver):
            await receiver.end()


@pytest.mark.skipif(sys.platform != "linux", reason="threads stand in for it elsewhere")
@in_loop
async def test_a_system_without_process_descriptors_sees_the_exit_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError("no such call")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    async with child("exits", "9") as (_, receiver):
        error = await receiver.end()
    assert isinstance(error, ChildExited)
    assert error.exit_code == 9


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: no pipe can be watched by the loop, and no process either."""

    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError("no such call")

    monkeypatch.setattr(pipes, "loop_can_watch", lambda fd: False)
    monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.usefixtures("threads")
class TestWithThreadsInsteadOfTheLoop:
    @in_loop
    async def test_frames_go_to_a_child_and_come_back(self) -> None:
        async with child("echo") as (link, receiver):
            sent = [b"%d" % number for number in range(1000)] + [b"x" * 3_000_000]
            for frame in sent:
                link.send(frame)
            await receiver.frame(1000)
            assert receiver.frames == sent
        assert link.exit_code == 0

    @in_loop
    async def test_all_that_lies_in_the_pipes_is_delivered_before_the_end(self) -> None:
        async with child("last_words") as (_, receiver):
            error = await receiver.end()
        assert isinstance(error, ChildExited)
        assert error.exit_code == 5
        assert len(receiver.frames) == 4000
        assert error.stderr_tail.endswith("last complaint\n")

    @in_loop
    async def test_a_grandchild_that_holds_the_pipes_does_not_hide_the_exit(self) -> None:
        async with child("leaves_grandchild", "deaf") as (link, receiver):
            await receiver.frame(0)
            link.send(b"exit")
            error = await receiver.end()
            assert isinstance(error, ChildExited)
            assert error.exit_code == 7

    @in_loop
    async def test_a_child_that_ignores_sigterm_is_killed(self) -> None:
        async with child("stubborn", close_wait_s=0.1, term_wait_s=0.1) as (link, receiver):
            await receiver.frame(0)
        assert link.exit_code == -signal.SIGKILL

    @in_loop
    async def test_a_flood_on_stderr_blocks_nobody(self) -> None:
        async with child("floods_stderr", "10") as (link, receiver):
            link.send(b"{}")
            assert await receiver.frame(0) == b"{}"
        assert link.stderr_tail.endswith("the very last line\n")
