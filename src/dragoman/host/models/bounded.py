"""A provider's own HTTP client, held to bounds: what it may read, where it goes, what it shows.

The libraries put no limit on an answer, follow redirects with all that was said, and take headers
from the environment. The bounds are hooks of the client, so they hold for whatever is read.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from functools import cache
from importlib import import_module
from typing import Any

from dragoman.host.models.base import ModelError, Trouble
from dragoman.host.models.endpoint import Endpoint

__all__ = ["Meter", "bounded_client", "meter_of"]

# 1 MiB for one event: a whole call in one, a file of 250,000 tokens among its arguments.
MAX_EVENT_BYTES = 1024 * 1024
# 1,000 lines in one event: real ones have two, and the libraries copy an event with each line.
MAX_EVENT_LINES = 1_000
# 64 MiB for an answer: 128,000 tokens, each in an event of 400 bytes, are 50 MB.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
# 64 KiB of what a server says of its refusal; the rest is not read.
MAX_REFUSAL_BYTES = 64 * 1024

_LINE_ENDS = re.compile(rb"\r\n|\n|\r")
_DONE = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]")
_METER = "dragoman.meter"

# What a request needs, and nothing that the environment or the library adds for the provider.
_NEEDED = frozenset(
    {
        "accept", "accept-encoding", "anthropic-version", "connection", "content-length",
        "content-type", "host", "transfer-encoding", "user-agent",
    }
)  # fmt: skip


class Meter:
    """What has been read of one answer. `on_bytes` is called with each piece that arrives."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.has_done = False
        self.on_bytes: Callable[[], None] | None = None
        self._held = bytearray()
        self._total = 0
        self._event = 0
        self._lines = 0
        self._is_half_end = False

    def take(self, piece: bytes) -> bytes:
        """The whole lines there are with this piece; what is left waits for its end.

        Raises:
            ModelError: an event, or the answer, is too large.
        """
        if self.on_bytes is not None:
            self.on_bytes()
        self._total += len(piece)
        if self._total > MAX_ANSWER_BYTES:
            raise self._too_large(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        end = max(piece.rfind(b"\n"), piece.rfind(b"\r")) + 1
        if not end:
            self._held += piece
            self._check(len(self._held))
            return b""
        whole = bytes(self._held) + piece[:end]
        self._held[:] = piece[end:]
        # A line end may lie between two pieces: its second half is no empty line.
        begin = 1 if self._is_half_end and whole.startswith(b"\n") else 0
        self._is_half_end = whole.endswith(b"\r")
        for mark in _LINE_ENDS.finditer(whole, begin):
            is_blank = mark.start() == begin
            self._event = 0 if is_blank else self._event + mark.end() - begin
            self._lines = 0 if is_blank else self._lines + 1
            self._check(0)
            begin = mark.end()
        self._check(len(self._held))
        self.has_done = self.has_done or _DONE.search(whole) is not None
        return whole

    def rest(self) -> bytes:
        """What is left at the end."""
        left = bytes(self._held)
        self._held.clear()
        self.has_done = self.has_done or _DONE.search(left) is not None
        return left

    def _check(self, held: int) -> None:
        if self._event + held > MAX_EVENT_BYTES:
            raise self._too_large(f"an event of the answer has more than {MAX_EVENT_BYTES} bytes")
        if self._lines > MAX_EVENT_LINES:
            raise self._too_large(f"an event of the answer has more than {MAX_EVENT_LINES} lines")

    def _too_large(self, what: str) -> ModelError:
        return ModelError(Trouble.TOO_LARGE, what, provider=self.provider)


def meter_of(stream: Any) -> Meter | None:
    """The meter of a library's stream."""
    found = stream.response.extensions.get(_METER)
    return found if isinstance(found, Meter) else None


def bounded_client(library: Any, end: Endpoint, key_header: str | None, timeout_s: float) -> Any:
    """An HTTP client for `library`, which asks `end` and nobody else.

    `key_header` is a header in which the API has its key, beside "authorization".
    """
    # Whatever HTTP library it is made with: that of the client's root, next to `object`.
    root = library.DefaultAsyncHttpxClient.__mro__[-2]
    name = root.__module__.partition(".")[0]
    http = import_module(name)

    async def asked(request: Any) -> None:
        # Compressed, a small answer could be a very large one.
        request.headers["accept-encoding"] = "identity"
        if not end.is_own:
            return
        for name in [*request.headers]:
            if name.lower() not in _NEEDED:
                del request.headers[name]
        if end.key is not None:
            # Gateways to any API look for a key in this one, too.
            request.headers["authorization"] = f"Bearer {end.key}"
            if key_header is not None:
                request.headers[key_header] = end.key

    async def answered(response: Any) -> None:
        is_packed = response.headers.get("content-encoding", "identity").lower() != "identity"
        if is_packed:
            del response.headers["content-encoding"]
        if response.status_code >= 300:
            response.stream = _beginning(http, response.stream, 0 if is_packed else None)
            return
        meter = Meter(end.sink)
        response.extensions[_METER] = meter
        response.stream = _metered(http, response.stream, meter, is_packed)

    literal = f"[{end.host}]" if ":" in end.host else end.host
    return library.DefaultAsyncHttpxClient(
        timeout=timeout_s,
        # A redirect would take all that was said to an address that nobody named.
        follow_redirects=False,
        verify=_trusted(name),
        event_hooks={"request": [asked], "response": [answered]},
        mounts={f"all://{literal}": None} if end.is_local else {},
    )


@cache
def _trusted(library: str) -> Any:
    """The TLS context that an HTTP library makes for itself."""
    # Once for all clients: reading the certificates takes longer than all else of a client.
    return import_module(library).create_ssl_context()


def _metered(http: Any, stream: Any, meter: Meter, is_packed: bool) -> Any:
    """The body of an answer, as whole lines and within the bounds."""

    async def pieces() -> AsyncIterator[bytes]:
        if is_packed:
            raise ModelError(
                Trouble.GARBAGE, "the answer is compressed, unasked", provider=meter.provider
            )
        try:
            async for piece in stream:
                if whole := meter.take(piece):
                    yield whole
        except http.TimeoutException:
            raise ModelError(
                Trouble.TIMEOUT, "no answer in time", provider=meter.provider
            ) from None
        except http.HTTPError as error:
            raise ModelError(
                Trouble.CONNECTION, f"the connection failed ({error})", provider=meter.provider
            ) from error
        if rest := meter.rest():
            yield rest

    return _as_stream(http, stream, pieces)


def _beginning(http: Any, stream: Any, most: int | None) -> Any:
    """The beginning of a refusal; that it breaks off changes nothing."""

    async def pieces() -> AsyncIterator[bytes]:
        left = MAX_REFUSAL_BYTES if most is None else most
        try:
            if left:
                async for piece in stream:
                    yield piece[:left]
                    left -= len(piece)
                    if left <= 0:
                        break
        except http.HTTPError:
            return

    return _as_stream(http, stream, pieces)


def _as_stream(http: Any, inner: Any, pieces: Callable[[], AsyncIterator[bytes]]) -> Any:
    class Body(http.AsyncByteStream):  # type: ignore[misc]
        def __aiter__(self) -> AsyncIterator[bytes]:
            return pieces()

        async def aclose(self) -> None:
            await inner.aclose()

    return Body()
