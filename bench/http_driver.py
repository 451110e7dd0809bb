"""A raw HTTP client for measuring servers: non-blocking sockets, `epoll` and no library in between.

Requests are encoded before the clock starts and responses are checked after it stops. In between there
are `recv`, a search for the end of the response, and `send`: no more than one request is under way on a
connection, as with any HTTP/1.1 client. All connections are kept alive.

It never sleeps while it waits. One that sleeps has to be woken by whoever answers, inside the system call
that sends the answer: on a virtual machine 6 to 9 us of CPU of the server for most answers of a server that
is slower than the driver, and for few of one that is not. Where there is one CPU only, it sleeps.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bench.driver import (
    STEP_TIMEOUT_S,
    STOP_TIMEOUT_S,
    BenchError,
    Burst,
    cpu_s,
    memory_kb,
    tool_answer,
)

# An answer of these benchmarks is under a kilobyte: one read takes it whole.
READ_BYTES = 1 << 16

# The driver has one CPU and the server another, or else it must let the server have its own.
_MAY_SPIN = len(os.sched_getaffinity(0)) > 1

# What ends a chunked body. A line "0" and an empty one cannot stand in an event of these benchmarks.
_LAST_CHUNK = b"\r\n0\r\n\r\n"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SESSION = re.compile(rb"\r\nmcp-session-id: *([^\r]+)", re.IGNORECASE)
_BLANK = re.compile(rb"\r?\n\r?\n")

#: What to send next on a connection, given its number and the response that just came (None at first).
Script = Callable[[int, bytes | None], bytes | None]


class HttpServer:
    """One server as a child process that listens on a port and prints it."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], revision: str) -> None:
        self.argv = list(argv)
        self._revision = revision.encode()
        # A file and not a pipe: a server that logs much must not block on us.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._child = subprocess.Popen(
            self.argv, stdout=subprocess.PIPE, stderr=self._stderr, env=dict(env)
        )
        self._next_id = 0
        # Seconds for which the driver had nothing to do.
        self._idle_s = 0.0
        self.port = self._read_port()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def __enter__(self) -> HttpServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill it: how servers stop is no part of the benchmark."""
        self._child.kill()
        self._child.wait(STOP_TIMEOUT_S)
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._stderr.close()

    def cpu_s(self) -> float:
        """CPU seconds of the server, all its threads."""
        return cpu_s(self.pid)

    def resident_kb(self) -> int:
        """``VmRSS`` of the server, KiB."""
        return memory_kb(self.pid, "VmRSS")

    # -- requests ----------------------------------------------------------------------------------

    def post(self, body: bytes, session: bytes = b"") -> bytes:
        """A POST of one message."""
        return b"%bcontent-length: %d\r\n\r\n%b" % (self._head(b"POST", session), len(body), body)

    def delete(self, session: bytes) -> bytes:
        """The DELETE that ends a session."""
        return self._head(b"DELETE", session) + b"content-length: 0\r\n\r\n"

    def _head(self, method: bytes, session: bytes) -> bytes:
        head = (
            b"%b /mcp HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
            b"accept: application/json, text/event-stream\r\n" % (method, self.port)
        )
        if session:
            head += b"mcp-session-id: %b\r\nmcp-protocol-version: %b\r\n" % (
                session,
                self._revision,
            )
        return head

    def initialize(self) -> bytes:
        """The request that opens a session."""
        params = {
            "protocolVersion": self._revision.decode(),
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        }
        self._next_id += 1
        message = {"jsonrpc": "2.0", "id": self._next_id, "method": "initialize", "params": params}
        return self.post(msgspec.json.encode(message))

    def initialized(self, session: bytes) -> bytes:
        """The notification that follows."""
        return self.post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}', session)

    def calls(self, tool: str, count: int, sessions: Sequence[bytes]) -> list[bytes]:
        """``count`` calls of ``tool(a, b)`` that go round the sessions; `check` knows what they give."""
        first = self._next_id = self._next_id + 1
        self._next_id += count
        token = b'"_meta":{"progressToken":%d},' if tool == "report" else b""
        requests = []
        for n in range(count):
            meta = token % (first + n) if token else b""
            body = (
                b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{%b"name":"%b",'
                b'"arguments":{"a":%d,"b":1}}}' % (first + n, meta, tool.encode(), n)
            )
            requests.append(self.post(body, sessions[n % len(sessions)]))
        return requests

    # -- conversations -----------------------------------------------------------------------------

    def open_sessions(self, count: int, connections: int = 8) -> list[bytes]:
        """Open that many sessions and shake hands in each; their ids. Raises `BenchError`."""
        opened: list[bytes] = []
        left = count

        def script(_: int, response: bytes | None) -> bytes | None:
            nonlocal left
            # Some name the session in every response.
            if response is not None and not response.startswith(b"HTTP/1.1 202"):
                opened.append(self._session_of(response))
                return self.initialized(opened[-1])
            if left == 0:
                return None
            left -= 1
            return self.initialize()

        self.drive(script, connections)
        return opened

    def cycle_sessions(self, count: int, connections: int) -> Burst:
        """Open and close that many sessions: ``initialize``, ``initialized``, DELETE."""
        left = count
        current = [b""] * connections
        hello = self.initialize()

        def script(n: int, response: bytes | None) -> bytes | None:
            nonlocal left
            if response is not None:
                session = current[n]
                if not session:
                    current[n] = session = self._session_of(response)
                    return self.initialized(session)
                if response.startswith(b"HTTP/1.1 202"):
                    return self.delete(session)
                self._status(response, {200, 204})
                current[n] = b""
            if left == 0:
                return None
            left -= 1
            return hello

        return self._timed(count, lambda: self.drive(script, connections))

    def burst(self, requests: Sequence[bytes], connections: int) -> Burst:
        """Send all, one after the other on each of that many connections."""
        replies: list[bytes] = []
        keep = replies.append
        coming = iter(requests)

        def script(_: int, response: bytes | None) -> bytes | None:
            if response is not None:
                keep(response)
            return next(coming, None)

        run = self._timed(len(requests), lambda: self.drive(script, connections))
        run.replies = replies
        return run

    def one_at_a_time(self, requests: Sequence[bytes]) -> tuple[list[float], list[bytes]]:
        """Send each after the answer to the one before; seconds of each, and the responses."""
        clock = time.perf_counter
        took: list[float] = []
        replies: list[bytes] = []
        with self._connect() as link:
            for request in requests:
                start = clock()
                link.send(request)
                response = link.recv(READ_BYTES)
                while not is_whole(response):
                    more = link.recv(READ_BYTES)
                    if not more:
                        raise self._fault("closed a connection")
                    response += more
                took.append(clock() - start)
                replies.append(response)
        return took, replies

    def drive(self, script: Script, connections: int) -> None:
        """Run a script on each of that many new connections until it has nothing left to send.

        Raises `BenchError` when the server closes one or goes silent.
        """
        links = [self._connect() for _ in range(connections)]
        try:
            self._drive(script, links)
        finally:
            for link in links:
                link.close()

    def _drive(self, script: Script, links: Sequence[socket.socket]) -> None:
        poll = select.epoll()
        numbers = {link.fileno(): n for n, link in enumerate(links)}
        receive = {link.fileno(): link.recv for link in links}
        send = {link.fileno(): link.send for link in links}
        parts: dict[int, bytes] = {}
        busy = 0
        with contextlib.closing(poll):
            for fd, n in numbers.items():
                links[n].setblocking(False)
                poll.register(fd, select.EPOLLIN)
                first = script(n, None)
                if first is not None:
                    busy += 1
                    send[fd](first)
            while busy:
                ready = poll.poll(0) or self._wait(poll)
                if not ready:
                    raise self._fault(f"went silent with {busy} requests unanswered")
                for fd, _ in ready:
                    data = receive[fd](READ_BYTES)
                    if not data:
                        raise self._fault("closed a connection")
                    if fd in parts:
                        data = parts.pop(fd) + data
                    if not is_whole(data):
                        parts[fd] = data
                        continue
                    request = script(numbers[fd], data)
                    if request is None:
                        busy -= 1
                    elif send[fd](request) != len(request):
                        raise self._fault("does not read what a request holds")

    def _wait(self, poll: select.epoll) -> list[tuple[int, int]]:
        """What is ready, once something is; nothing when that takes too long."""
        start = time.perf_counter()
        if _MAY_SPIN:
            until = start + STEP_TIMEOUT_S
            while not (ready := poll.poll(0)) and time.perf_counter() < until:
                pass
        else:
            ready = poll.poll(STEP_TIMEOUT_S)
        self._idle_s += time.perf_counter() - start
        return ready

    def _timed(self, count: int, work: Callable[[], None]) -> Burst:
        idle = self._idle_s
        cpu, start = self.cpu_s(), time.perf_counter()
        work()
        wall = time.perf_counter() - start
        return Burst(count, wall, self.cpu_s() - cpu, wall - (self._idle_s - idle))

    # -- checks ------------------------------------------------------------------------------------

    def check(self, responses: Sequence[bytes], *, streamed: bool) -> None:
        """Each is a success with the right sum, in JSON or in a stream with news before the answer.

        Ids differ. Raises `BenchError`.
        """
        answers = []
        for response in responses:
            head, body = self._status(response, {200})
            if b"text/event-stream" in head.lower():
                events = events_of(body)
                if streamed and len(events) < 2:
                    raise self._fault(f"told nothing before it answered: {body[:300]!r}")
                body = events[-1]
            elif streamed:
                raise self._fault(f"did not answer with a stream: {head!r}")
            try:
                answers.append(tool_answer(body))
            except BenchError as fault:
                raise self._fault(str(fault)) from fault
        answers.sort()
        first = answers[0][0]
        for n, (ident, value) in enumerate(answers):
            if ident != first + n or value != {"result": n + 1}:
                raise self._fault(f"answered {value!r} to call {n}, with id {ident}")

    def _session_of(self, response: bytes) -> bytes:
        head, _ = self._status(response, {200})
        found = _SESSION.search(head)
        if found is None:
            raise self._fault(f"gave no session id: {head!r}")
        return found[1]

    def _status(self, response: bytes, wanted: set[int]) -> tuple[bytes, bytes]:
        """Head and body of a response whose status is wanted."""
        head, _, body = response.partition(b"\r\n\r\n")
        if int(head[9:12]) not in wanted:
            raise self._fault(f"answered {head[:300]!r} {body[:300]!r}")
        if b"transfer-encoding: chunked" in head.lower():
            body = _joined(body)
        return head, body

    # -- the process -------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        link = socket.create_connection(("127.0.0.1", self.port), STEP_TIMEOUT_S)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def _read_port(self) -> int:
        out = self._child.stdout
        assert out is not None
        if not select.select([out], [], [], STEP_TIMEOUT_S)[0]:
            raise self._fault("printed no port")
        line = out.readline()
        try:
            return int(line)
        except ValueError:
            raise self._fault(f"printed {line!r} and not a port") from None

    def _fault(self, what: str) -> BenchError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(0.5)
        code = self._child.poll()
        state = "is still running" if code is None else f"ended with code {code}"
        if code is None:
            self._child.kill()
        self._stderr.seek(0)
        tail = self._stderr.read()[-1500:].decode("utf-8", "replace")
        return BenchError(f"{' '.join(self.argv)} {what}; it {state}\n{tail}".rstrip())


def is_whole(data: bytes) -> bool:
    """Whether a response is complete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _LENGTH.search(data, 0, end)
    if length is not None:
        return len(data) - end - 4 >= int(length[1])
    if data.endswith(_LAST_CHUNK):
        return True
    # Neither a length nor chunks: a response without a body, unless chunks are announced.
    return b"chunked" not in data[:end].lower()


def events_of(body: bytes) -> list[bytes]:
    """The data of each event of a stream that has some."""
    events = []
    for block in _BLANK.split(body):
        lines = [line[5:].strip() for line in block.splitlines() if line.startswith(b"data:")]
        if any(lines):
            events.append(b"\n".join(lines))
    return events


def _joined(body: bytes) -> bytes:
    """A chunked body without its chunks."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
