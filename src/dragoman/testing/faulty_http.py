"""A proxy for HTTP through which things go wrong, in the same way for the same seed.

    async with FaultyHttp("http://127.0.0.1:8000", HttpFaultPlan(seed=7, status=0.1)) as proxy:
        async with Client(f"{proxy.url}/mcp") as client:
            ...

It is a real server on a real socket, so whatever speaks HTTP/1.1 can be tried through it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from dragoman.errors import Misconfigured

__all__ = ["FaultyHttp", "HttpFaultPlan"]

# 64 KiB of header lines, as servers allow; and how much is relayed at once.
MAX_HEAD_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024


_FAULTS = ("refuse", "status", "swallow", "stall", "cut", "drip")


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpFaultPlan:
    """How often what goes wrong; each share is a probability from 0 to 1, a request.

    - `refuse`: the connection is closed before the request was passed on.
    - `status`: the answer is one of `statuses`, which did not come from the server; with
      `retry_after_s` it says when to come again.
    - `swallow`: the request is passed on, and the connection closed before the answer.
    - `stall`: the request is passed on, and nothing comes of it until the client leaves.
    - `cut`: the answer breaks off within its first `cut_within` bytes.
    - `drip`: the answer comes in pieces of `drip_bytes`, each `drip_s` seconds after the last.
    """

    seed: int = 0
    refuse: float = 0.0
    status: float = 0.0
    statuses: Sequence[int] = (429, 502, 503)
    retry_after_s: int | None = None
    swallow: float = 0.0
    stall: float = 0.0
    cut: float = 0.0
    cut_within: int = 512
    drip: float = 0.0
    drip_bytes: int = 64
    drip_s: float = 0.002

    def __post_init__(self) -> None:
        shares = [getattr(self, name) for name in _FAULTS]
        if min(shares) < 0.0 or sum(shares) > 1.0:
            raise ValueError("the shares are probabilities: none below 0, together at most 1")


class FaultyHttp:
    """Stands before one origin ("http://host:port"), while it is entered.

    `plan` may be replaced at any time; `counts` says what was done so far, by the names of the
    plan's members, and "passed". Requests have a Content-Length or no body.

    Raises:
        Misconfigured: the origin is no plain http:// URL.
    """

    def __init__(self, origin: str, plan: HttpFaultPlan | None = None) -> None:
        parts = urlsplit(origin)
        if parts.scheme != "http" or parts.hostname is None or parts.path not in ("", "/"):
            raise Misconfigured(f"{origin!r} is no origin: http://host:port")
        self.plan = plan or HttpFaultPlan()
        self.counts: Counter[str] = Counter()
        self._host = parts.hostname
        self._port = parts.port or 80
        self._random = random.Random(self.plan.seed)  # noqa: S311 - nothing secret
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where the proxy listens, without a path."""
        assert self._server is not None, "the proxy is not entered"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> FaultyHttp:
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", 0, limit=MAX_HEAD_BYTES
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        relays = list(self._relays)
        for relay in relays:
            relay.cancel()
        if relays:
            await asyncio.wait(relays)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            await self._one_request(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Either side went; the other learns it by the end of its connection.
            pass
        except asyncio.CancelledError:
            # Only `__aexit__` cancels; a task of a stream server must not end so.
            pass
        finally:
            self._relays.discard(task)
            writer.transport.abort()

    async def _one_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(_length_of(head))
        plan = self.plan
        fault = self._draw(plan)
        self.counts[fault] += 1
        if fault == "refuse":
            return
        if fault == "status":
            status = self._random.choice(list(plan.statuses))
            await _answer(writer, status, plan.retry_after_s)
            return
        from_server, to_server = await asyncio.open_connection(self._host, self._port)
        try:
            to_server.write(_for_origin(head, f"{self._host}:{self._port}") + body)
            await to_server.drain()
            if fault == "swallow":
                # Its answer has begun, so the server did get the request.
                await from_server.read(1)
                return
            if fault == "stall":
                await reader.read()
                return
            limit = self._random.randrange(plan.cut_within) if fault == "cut" else None
            relay = asyncio.ensure_future(
                _relay(from_server, writer, plan, limit=limit, is_slow=fault == "drip")
            )
            left = asyncio.ensure_future(reader.read())
            try:
                await asyncio.wait({relay, left}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                relay.cancel()
                left.cancel()
                outcomes = await asyncio.gather(relay, left, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
                    raise outcome
        finally:
            to_server.transport.abort()

    def _draw(self, plan: HttpFaultPlan) -> str:
        point = self._random.random()
        for name in _FAULTS:
            point -= getattr(plan, name)
            if point < 0:
                return name
        return "passed"


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    plan: HttpFaultPlan,
    *,
    limit: int | None,
    is_slow: bool,
) -> None:
    """The answer, to its end or to its break."""
    left = limit
    while chunk := await reader.read(plan.drip_bytes if is_slow else CHUNK_BYTES):
        if left is not None:
            chunk = chunk[:left]
            left -= len(chunk)
        writer.write(chunk)
        await writer.drain()
        if left == 0:
            return
        if is_slow:
            await asyncio.sleep(plan.drip_s)
    with suppress(OSError):
        # What was written goes out before the end of the connection.
        writer.write_eof()
    await _flushed(writer)


async def _answer(writer: asyncio.StreamWriter, status: int, retry_after_s: int | None) -> None:
    body = b"this answer does not come from the server\n"
    lines = [
        f"HTTP/1.1 {status} On purpose",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    if retry_after_s is not None:
        lines.append(f"Retry-After: {retry_after_s}")
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await _flushed(writer)


async def _flushed(writer: asyncio.StreamWriter) -> None:
    """Wait until everything was handed to the system; what comes after is the end."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _lines(head: bytes) -> list[bytes]:
    return head.rstrip(b"\r\n").split(b"\r\n")


def _length_of(head: bytes) -> int:
    for line in _lines(head)[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _for_origin(head: bytes, host: str) -> bytes:
    """The head as the origin gets it: its own name, and one request a connection."""
    first, *lines = _lines(head)
    kept = [
        line
        for line in lines
        if line.partition(b":")[0].strip().lower() not in (b"host", b"connection")
    ]
    own = [b"Host: " + host.encode(), b"Connection: close"]
    return b"\r\n".join([first, *own, *kept, b"", b""])
