"""A raw MCP client for measuring servers: pipes, bytes and no library in between.

Requests are encoded before the clock starts and replies are checked after it stops, so what runs in
between is `os.read`, `bytes.count` and `os.write`. One reply lets one more request go out.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

# One read of this size empties a full pipe of the default 64 KiB; larger pipes are emptied in steps.
READ_BYTES = 1 << 18

# What is handed to one write: a pipe takes 64 KiB at most, and cutting 10 MB again and again is slow.
WRITE_BYTES = 1 << 16

# No single step of any measurement takes a healthy server this long on a busy machine.
STEP_TIMEOUT_S = 60.0

# A server that was told to stop by closing its stdin gets this long before it is killed.
STOP_TIMEOUT_S = 5.0


class BenchError(Exception):
    """A server did not do what the measurement needs; the text has the tail of its stderr."""


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, all its threads, to the nanosecond."""
    # The kernel's own numbering of the CPU clock of another process (man clock_getcpuclockid).
    return time.clock_gettime((~pid << 3) | 2)


def memory_kb(pid: int, name: str) -> int:
    """``VmRSS`` or ``VmHWM`` of a process, KiB. Raises `BenchError` if the kernel does not tell."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise BenchError(f"/proc has no {name} of process {pid}")


class _Block(msgspec.Struct):
    type: str
    text: str = ""


class _ToolResult(msgspec.Struct):
    content: list[_Block]
    structured: Any = msgspec.field(name="structuredContent", default=None)
    is_error: bool = msgspec.field(name="isError", default=False)


class _Reply(msgspec.Struct):
    jsonrpc: str
    id: int
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Any = None


_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_tool_result = msgspec.json.Decoder(_ToolResult).decode


def tool_answer(reply: bytes) -> tuple[int, Any]:
    """The id of a reply to ``tools/call``, and the value the tool gave: structured, or its text as JSON.

    Raises `BenchError` for anything but a tool's success.
    """
    try:
        message = _decode_reply(reply)
        if message.error is not None:
            raise BenchError(f"answered with an error: {reply[:300]!r}")
        result = _decode_tool_result(message.result)
        if result.is_error:
            raise BenchError(f"a call failed: {reply[:300]!r}")
        if result.structured is not None:
            return message.id, result.structured
        return message.id, msgspec.json.decode(result.content[0].text)
    except msgspec.MsgspecError as fault:
        raise BenchError(f"not a reply to a call ({fault}): {reply[:300]!r}") from fault


@dataclass(slots=True)
class Burst:
    """One timed run: requests answered, wall seconds, CPU seconds of the server and of this driver."""

    calls: int
    wall_s: float
    server_cpu_s: float
    driver_cpu_s: float
    replies: list[bytes] = field(repr=False, default_factory=list)


class ServerProcess:
    """One server as a child process, spoken to in blocking or windowed style."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None
    ) -> None:
        self.argv = list(argv)
        # A file and not a pipe: a server that logs much must not block on us.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.started = time.perf_counter()
        self._child = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=dict(env),
            cwd=cwd,
            bufsize=0,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._in = self._child.stdin.fileno()
        self._out = self._child.stdout.fileno()
        self._rest = b""
        self._next_id = 0

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its stdin, give it a moment, kill it."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._stderr.close()

    # -- handshake ---------------------------------------------------------------------------------

    def initialize(self, revision: str) -> tuple[dict[str, Any], float]:
        """Shake hands; the result, and the seconds from spawn to the answer.

        Raises `BenchError` if the server does not answer or answers with an error.
        """
        params = {
            "protocolVersion": revision,
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        }
        reply = self.ask("initialize", params)
        took = time.perf_counter() - self.started
        self._write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        result: dict[str, Any] = msgspec.json.decode(reply)
        return result, took

    def ask(self, method: str, params: object, timeout_s: float = STEP_TIMEOUT_S) -> bytes:
        """One request and the bytes of its result. Raises `BenchError` on an error or silence."""
        request = self.requests(method, [params])[0]
        self._write(request)
        return self.result_of(self._read_line(timeout_s))

    def result_of(self, line: bytes) -> bytes:
        """The result inside a reply. Raises `BenchError` for anything else."""
        try:
            reply = _decode_reply(line)
        except msgspec.MsgspecError as fault:
            raise self._fault(f"not a reply ({fault}): {line[:200]!r}") from fault
        if reply.error is not None:
            raise self._fault(f"answered with an error: {reply.error}")
        return bytes(reply.result)

    def requests(self, method: str, params: Sequence[object]) -> list[bytes]:
        """Encoded requests with fresh ids, each a line."""
        encode = msgspec.json.encode
        first = self._next_id
        self._next_id += len(params)
        head = b'{"jsonrpc":"2.0","id":%d,"method":"' + method.encode() + b'","params":'
        return [head % (first + n) + encode(one) + b"}\n" for n, one in enumerate(params)]

    def calls(self, tool: str, arguments: Sequence[object]) -> list[bytes]:
        """Encoded ``tools/call`` requests."""
        return self.requests("tools/call", [{"name": tool, "arguments": one} for one in arguments])

    # -- timed -------------------------------------------------------------------------------------

    def one_at_a_time(self, requests: Sequence[bytes]) -> tuple[list[float], list[bytes]]:
        """Send each after the answer to the one before; seconds of each, and the replies."""
        os.set_blocking(self._in, True)
        os.set_blocking(self._out, True)
        clock = time.perf_counter
        took: list[float] = []
        replies: list[bytes] = []
        for request in requests:
            start = clock()
            os.write(self._in, request)
            line = os.read(self._out, READ_BYTES)
            while not line.endswith(b"\n"):
                more = os.read(self._out, READ_BYTES)
                if not more:
                    raise self._fault("closed its stdout")
                line += more
            took.append(clock() - start)
            replies.append(line)
        return took, replies

    def big(self, request: bytes) -> tuple[float, bytes]:
        """One large request; the seconds until its whole answer was read, and the answer."""
        start = time.perf_counter()
        self._write(request)
        line = self._read_line(STEP_TIMEOUT_S)
        return time.perf_counter() - start, line

    def burst(self, requests: Sequence[bytes], window: int) -> Burst:
        """Send all, at most ``window`` unanswered at a time."""
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        total = len(requests)
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        chunks: list[bytes] = []
        waiting = memoryview(b"".join(requests[:window]))
        sent = min(window, total)
        answered = 0
        writing = False
        cpu, own, start = self.cpu_s(), time.process_time(), time.perf_counter()
        while answered < total:
            if waiting:
                try:
                    done = os.write(self._in, waiting[:WRITE_BYTES])
                except BlockingIOError:
                    done = 0
                waiting = waiting[done:]
                if bool(waiting) != writing:
                    writing = bool(waiting)
                    if writing:
                        poll.register(self._in, select.POLLOUT)
                    else:
                        poll.unregister(self._in)
            ready = poll.poll(STEP_TIMEOUT_S * 1000)
            if not ready:
                raise self._fault(f"went silent with {sent - answered} requests unanswered")
            for fd, _ in ready:
                if fd != self._out:
                    continue
                chunk = os.read(self._out, READ_BYTES)
                if not chunk:
                    raise self._fault("closed its stdout")
                chunks.append(chunk)
                news = chunk.count(b"\n")
                if news:
                    answered += news
                    if sent < total:
                        more = b"".join(requests[sent : sent + news])
                        sent = min(sent + news, total)
                        waiting = memoryview(bytes(waiting) + more if waiting else more)
        wall = time.perf_counter() - start
        return Burst(
            total,
            wall,
            self.cpu_s() - cpu,
            time.process_time() - own,
            b"".join(chunks).splitlines(),
        )

    def check(self, lines: Sequence[bytes], expect: Callable[[int], object] | None = None) -> None:
        """Every line is a successful tool result, ids differ, and ``expect(n)`` of id order matches.

        ``expect`` gives what the structured content (or else the text as JSON) of the n-th request must
        be, n counted from the lowest id. Raises `BenchError`.
        """
        replies = sorted(self._reply(line) for line in lines)
        if len({id_ for id_, _ in replies}) != len(replies):
            raise self._fault("answered an id twice")
        for n, (_, raw) in enumerate(replies):
            result = _decode_tool_result(raw)
            if result.is_error:
                raise self._fault(f"a call failed: {raw[:300]!r}")
            if expect is not None:
                seen = result.structured
                if seen is None:
                    seen = msgspec.json.decode(result.content[0].text)
                if seen != expect(n):
                    raise self._fault(f"wrong result: {raw[:300]!r}, expected {expect(n)!r}")

    def _reply(self, line: bytes) -> tuple[int, bytes]:
        return _decode_reply(line).id, self.result_of(line)

    # -- what the kernel says ----------------------------------------------------------------------

    def cpu_s(self) -> float:
        """CPU seconds of the child, all its threads, to the nanosecond."""
        return cpu_s(self.pid)

    def memory_kb(self, name: str) -> int:
        """``VmRSS`` or ``VmHWM`` of the child, KiB."""
        return memory_kb(self.pid, name)

    # -- lines -------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write all of ``data``, however long the server takes to read it."""
        self._write(data)

    def read_lines(self, count: int) -> list[bytes]:
        """The next ``count`` lines. Raises `BenchError` on silence."""
        return [self._read_line(STEP_TIMEOUT_S) for _ in range(count)]

    def _write(self, data: bytes) -> None:
        """Write, and keep reading meanwhile: a server may answer before it has read everything."""
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        left = memoryview(data)
        parts = [self._rest]
        while left:
            readable, writable, _ = select.select([self._out], [self._in], [], STEP_TIMEOUT_S)
            if not readable and not writable:
                raise self._fault("stopped reading its stdin")
            if readable:
                chunk = os.read(self._out, READ_BYTES)
                if not chunk:
                    raise self._fault("closed its stdout")
                parts.append(chunk)
            if writable:
                try:
                    left = left[os.write(self._in, left[:WRITE_BYTES]) :]
                except OSError as fault:
                    raise self._fault(f"closed its stdin ({fault})") from fault
        self._rest = b"".join(parts)

    def _read_line(self, timeout_s: float) -> bytes:
        line, newline, rest = self._rest.partition(b"\n")
        if newline:
            self._rest = rest
            return line
        os.set_blocking(self._out, False)
        parts = [self._rest]
        while True:
            if not select.select([self._out], [], [], timeout_s)[0]:
                raise self._fault(f"said nothing for {timeout_s:g} s")
            chunk = os.read(self._out, READ_BYTES)
            if not chunk:
                raise self._fault("closed its stdout")
            head, newline, rest = chunk.partition(b"\n")
            parts.append(head)
            if newline:
                self._rest = rest
                return b"".join(parts)

    def _fault(self, what: str) -> BenchError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(0.5)
        code = self._child.poll()
        state = "is still running" if code is None else f"ended with code {code}"
        self._stderr.seek(0)
        tail = self._stderr.read()[-1500:].decode("utf-8", "replace")
        return BenchError(f"{' '.join(self.argv)} {what}; it {state}\n{tail}".rstrip())
