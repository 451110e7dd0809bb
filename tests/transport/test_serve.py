"""A server on its own standard streams: whatever these are, and whatever the user's code prints."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman.transport.stdio.limits import MAX_FRAME_BYTES
from dragoman.transport.stdio.serve import on_stop_signal
from tests.requirements.duties import duty

from .aids import in_loop, script

# Long enough for a slow machine; nothing here waits that long when all is well.
PATIENCE_S = 20.0

# The interpreter, and a line up to the limit with the growth of its buffer.
PEAK_WITH_A_LONG_LINE_KB = 40_000 + 1.2 * MAX_FRAME_BYTES / 1024

PRINTED = [
    "from print",
    "from the buffer",
    "from the descriptor",
    "from a shell",
    "from a child",
    "from a C library",
]


class Talk(subprocess.Popen[bytes]):
    """A process to write lines to and to read lines from, with a bound on the waiting."""

    def write(self, data: bytes) -> None:
        assert self.stdin is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self.stdin.write(rest) or 0 :]

    def read_line(self) -> bytes:
        assert self.stdout is not None
        line, self.unread = read_line_from(self.stdout.fileno(), getattr(self, "unread", b""))
        return line

    def finish(self, data: bytes | None = None) -> tuple[bytes, bytes]:
        """Write `data`, close stdin, and wait; returns all that was not yet read."""
        out, err = self.communicate(data, PATIENCE_S)
        return getattr(self, "unread", b"") + (out or b""), err or b""


@contextmanager
def server(*words: str, **options: Any) -> Iterator[Talk]:
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
    options.setdefault("env", {**os.environ, "PYTHONUNBUFFERED": ""})
    process = Talk([*script("server"), *words], bufsize=0, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def read_line_from(fd: int, unread: bytes = b"") -> tuple[bytes, bytes]:
    """The next line, or what is left before the end; and what was read after it."""
    parts = [unread]
    while b"\n" not in parts[-1]:
        ready, _, _ = select.select([fd], [], [], PATIENCE_S)
        assert ready, f"nothing came after {b''.join(parts)[:100]!r}"
        part = os.read(fd, 65536)
        if not part:
            break
        parts.append(part)
    line, end, rest = b"".join(parts).partition(b"\n")
    return line + end, rest


def ended_within(pid: int, timeout_s: float = PATIENCE_S) -> bool:
    """Wait for the end of a process that need not be our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout_s)[0])
    finally:
        os.close(fd)


@duty("shutdown.server-eof")
def test_frames_come_back_and_the_end_of_stdin_ends_the_server() -> None:
    with server(stderr=subprocess.PIPE) as process:
        process.write(b'{"id":1}\n')
        assert process.read_line() == b'{"id":1}\n'
        out, err = process.finish(b"[]\nlast")
        assert out == b"[]\nlast\n"
        assert err == b"link closed: None\n"
        assert process.returncode == 0


@duty("stdio.stdout-clean")
@pytest.mark.parametrize("way", ["loop", "threads"])
def test_nothing_that_is_printed_reaches_the_wire(way: str) -> None:
    with server(way, "take-first", "prints-early", stderr=subprocess.PIPE) as process:
        process.write(b"print\n")
        assert process.read_line() == b"print\n"
        out, err = process.finish()
        assert out == b""
        printed = err.decode().splitlines()
        assert printed[:2] == [
            "printed before the streams were taken",
            "printed by user code while it is imported",
        ]
        assert sorted(PRINTED) == sorted(printed[2:-1])


def test_nothing_eats_the_input_or_inherits_the_wire() -> None:
    with server(stderr=subprocess.DEVNULL) as process:
        process.write(b"eat\n")
        eaten = json.loads(process.read_line())
        assert eaten["read"] == eaten["child"] == ""
        assert eaten["input"] == "EOFError"
        # Its three streams and the directory it lists.
        assert eaten["inherited"] == ["0", "1", "2", "3"]
        process.write(b"{}\n")
        assert process.read_line() == b"{}\n"


@duty("stdio.stdout-clean")
def test_stderr_merged_into_stdout_does_not_reach_the_wire() -> None:
    with server(stderr=subprocess.STDOUT) as process:
        process.write(b"print\n")
        assert process.read_line() == b"print\n"
        out, _ = process.finish(b"{}\n")
        # The streams are given back at the end, and what is written then is no frame any more.
        assert out == b"{}\n"


def test_a_server_without_stderr_works() -> None:
    with server(preexec_fn=lambda: os.close(2)) as process:
        process.write(b"print\n")
        assert process.read_line() == b"print\n"
        assert process.finish()[0] == b""


@pytest.mark.parametrize("fd", [0, 1])
def test_a_process_without_a_stream_is_told_so(fd: int) -> None:
    with server(stderr=subprocess.PIPE, preexec_fn=lambda: os.close(fd)) as process:
        _, err = process.finish()
        assert process.returncode == 4
        assert ("stdin", "stdout")[fd] in err.decode()


@duty("stdio.utf-8")
@pytest.mark.parametrize("way", ["loop", "threads"])
def test_bytes_do_not_depend_on_the_locale(way: str) -> None:
    env = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONIOENCODING": "latin-1",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    text = '{"text":"é\u2028\u0085🎈"}\n'.encode()
    with server(way, env=env, stderr=subprocess.DEVNULL) as process:
        process.write(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
        assert process.read_line() == text


def test_regular_files_serve_as_streams(tmp_path: Path) -> None:
    frames = b"".join(b'{"id":%d}\n' % number for number in range(5000))
    (tmp_path / "in").write_bytes(frames + b"print\nlast")
    with (
        open(tmp_path / "in", "rb") as stdin,
        open(tmp_path / "out", "wb") as stdout,
        server(stdin=stdin, stdout=stdout, stderr=subprocess.PIPE) as process,
    ):
        _, err = process.finish()
    assert (tmp_path / "out").read_bytes() == frames + b"print\nlast\n"
    assert b"from print" in err
    assert process.returncode == 0


def test_an_empty_stdin_ends_the_server() -> None:
    with server(stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert process.finish()[0] == b""
        assert process.returncode == 0


def test_one_socket_serves_as_all_streams() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, server(stdin=theirs, stdout=theirs, stderr=theirs) as process:
        theirs.close()
        ours.settimeout(PATIENCE_S)
        ours.sendall(b"print\nbig\n{}\n")
        wanted = b"print\n" + b"x" * 3_000_000 + b"\n{}\n"
        received = b""
        while len(received) < len(wanted):
            received += ours.recv(1 << 20)
        assert received == wanted
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""
        assert process.wait(PATIENCE_S) == 0


def test_a_terminal_works_and_keeps_its_mode() -> None:
    main, terminal = pty.openpty()
    mode = termios.tcgetattr(terminal)
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, mode)
    with server("threads", stdin=terminal, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.write(main, b'{"id":1}\n')
        assert read_line_from(main)[0] == b'{"id":1}\r\n'
        # Shared with a person's shell, and it would stay so if the server were killed now.
        assert not fcntl.fcntl(terminal, fcntl.F_GETFL) & os.O_NONBLOCK
        os.write(main, b"\x04")
        assert process.wait(PATIENCE_S) == 0
    os.close(main)
    os.close(terminal)


def test_the_blocking_mode_of_the_pipes_is_given_back() -> None:
    read_end, write_end = os.pipe()
    with server(stdout=write_end, stderr=subprocess.DEVNULL) as process:
        process.write(b"{}\n")
        assert read_line_from(read_end)[0] == b"{}\n"
        assert not os.get_blocking(write_end)
        process.finish()
        assert os.get_blocking(write_end)
    os.close(read_end)
    os.close(write_end)


def test_answers_may_follow_the_end_of_the_input() -> None:
    with server("late", stderr=subprocess.DEVNULL) as process:
        out, _ = process.finish(b"{}\n")
        assert out == b"{}\nlate answer\n"


def test_the_streams_are_given_back_when_the_link_closes() -> None:
    with server("signals", "prints-late", stderr=subprocess.PIPE) as process:
        assert process.read_line() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.read_line() == b"stopped by SIGTERM\n"
        out, _ = process.finish(b"some text\n")
        assert out == b"after the link\ninput: some text\n"


def test_the_streams_hold_one_link_at_a_time() -> None:
    with server("twice", stderr=subprocess.DEVNULL) as process:
        assert b"one link at a time" in process.read_line()
        process.write(b"{}\n")
        assert process.read_line() == b"{}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leads_to_an_orderly_end(number: signal.Signals) -> None:
    with server("signals", stderr=subprocess.PIPE) as process:
        assert process.read_line() == b"ready\n"
        process.send_signal(number)
        out, err = process.finish()
        assert out == b"stopped by " + number.name.encode() + b"\n"
        assert err == b"link closed: None\n"
        assert process.returncode == 0


@pytest.mark.parametrize("way", ["loop", "threads"])
def test_a_client_that_stops_reading_ends_the_server(way: str) -> None:
    with server(way, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.write(b"{}\n")
        assert process.stderr is not None
        assert b"no longer reads" in process.stderr.read()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("way", ["loop", "threads"])
def test_ten_megabytes_come_back_and_cost_little(way: str) -> None:
    with server(way, stderr=subprocess.DEVNULL) as process:
        process.write(b"peak\n")
        before_kb = int(process.read_line())
        frame = b"x" * 10_000_000 + b"\n"
        # Written from a process of its own, or both sides would wait for each other.
        if os.fork() == 0:
            process.write(frame)
            os._exit(0)
        assert process.read_line() == frame
        os.wait()
        process.write(b"peak\n")
        after_kb = int(process.read_line())
        # Twice the frame, the growth of the buffer, and what the threads' stacks take.
        assert after_kb - before_kb < 27_000


def test_a_line_of_one_gigabyte_is_refused_in_bounded_memory() -> None:
    with server(stderr=subprocess.DEVNULL) as process:
        block = b"x" * 1_000_000
        process.write(b'{"id":1,')
        for _ in range(1000):
            process.write(block)
        process.write(b"\npeak\n")
        assert process.read_line() == b"refused %d %d\n" % (1_000_000_008, MAX_FRAME_BYTES)
        peak_kb = int(process.read_line())
        assert peak_kb < PEAK_WITH_A_LONG_LINE_KB


@in_loop
async def test_only_the_main_thread_is_asked_for_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def elsewhere() -> None:
        on_stop_signal(lambda number: None)()

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert signal.getsignal(signal.SIGTERM) is before


@in_loop
async def test_the_handlers_of_before_are_put_back() -> None:
    def mine(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        undo = on_stop_signal(lambda number: None)
        assert signal.getsignal(signal.SIGTERM) is not mine
        undo()
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


# --- when the parent dies ---------------------------------------------------------------------

# Starts the server with its own streams, tells its id, and waits.
LAUNCHER = """
import subprocess, sys, time
process = subprocess.Popen(sys.argv[2:])
sys.stderr.write(f"{process.pid}\\n")
sys.stderr.flush()
if sys.argv[1] == "stay":
    time.sleep(600)
"""


@contextmanager
def launched(manner: str, *words: str) -> Iterator[tuple[Talk, int]]:
    """A server whose parent is not the process that holds its pipes; that process is us."""
    launcher = Talk(
        [sys.executable, "-c", LAUNCHER, manner, *script("server"), *words],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert launcher.stderr is not None
    pid = int(launcher.stderr.readline())
    try:
        yield launcher, pid
    finally:
        launcher.kill()
        launcher.wait()
        for stream in (launcher.stdin, launcher.stdout, launcher.stderr):
            assert stream is not None
            stream.close()
        assert ended_within(pid)


def test_a_server_ends_when_its_parent_dies_though_stdin_stays_open() -> None:
    with launched("stay", "impatient") as (launcher, pid):
        launcher.write(b"{}\n")
        assert launcher.read_line() == b"{}\n"
        launcher.kill()
        launcher.wait()
        assert ended_within(pid)


@pytest.mark.long
def test_a_client_that_outlives_the_parent_keeps_the_server() -> None:
    with launched("stay", "impatient") as (launcher, pid):
        launcher.write(b"{}\n")
        assert launcher.read_line() == b"{}\n"
        launcher.kill()
        launcher.wait()
        # Sooner or later it sees the death of its parent, and after that a frame; then it stays
        # for longer than an orphan is given.
        for pause_s in (0.05, 0.05, 0.05, 0.05, 0.6):
            launcher.write(b"[]\n")
            assert launcher.read_line() == b"[]\n"
            assert not ended_within(pid, pause_s)
        launcher.write(b"{}\n")
        assert launcher.read_line() == b"{}\n"


@pytest.mark.long
def test_a_launcher_that_leaves_before_the_first_frame_is_not_missed() -> None:
    with launched("leave", "impatient") as (launcher, pid):
        launcher.wait()
        launcher.write(b"{}\n")
        assert launcher.read_line() == b"{}\n"
        assert not ended_within(pid, 0.6)


# --- when a client dies -----------------------------------------------------------------------


def host(*arguments: str) -> subprocess.Popen[bytes]:
    """A process with a dragoman link to a child; it tells the ids of all that it started."""
    return subprocess.Popen([*script("host"), *arguments], stdout=subprocess.PIPE)


def ids_told_by(process: subprocess.Popen[bytes]) -> list[int]:
    assert process.stdout is not None
    ids = [int(word) for word in process.stdout.readline().split()]
    process.stdout.close()
    assert ids
    return ids


def test_children_and_grandchildren_end_when_their_client_is_killed() -> None:
    process = host("nested")
    ids = ids_told_by(process)
    assert len(ids) == 2
    process.kill()
    process.wait()
    assert all(ended_within(pid) for pid in ids)


def test_a_guard_ends_children_that_ignore_everything() -> None:
    process = host("guarded")
    ids = ids_told_by(process)
    process.kill()
    process.wait()
    assert all(ended_within(pid) for pid in ids)


def test_a_guard_lets_a_child_be_when_its_link_is_closed() -> None:
    process = host("guarded-and-closed")
    assert ids_told_by(process)
    assert process.wait(PATIENCE_S) == 0


def test_a_client_refuses_a_line_of_one_gigabyte_in_bounded_memory() -> None:
    process = host("one-line")
    out, _ = process.communicate(timeout=PATIENCE_S)
    size, limit, peak_kb = (int(word) for word in out.split())
    assert size == 1_000_000_016
    assert limit == MAX_FRAME_BYTES
    assert peak_kb < PEAK_WITH_A_LONG_LINE_KB
