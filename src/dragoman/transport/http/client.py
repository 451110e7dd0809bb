"""What the client links ask of an HTTP library, and what can be chosen about it.

The links see `HttpClient` and `HttpResponse` and nothing of the library behind them.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol, runtime_checkable

__all__ = ["HttpClient", "HttpOptions", "HttpResponse"]

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

# 10 s to look up a name, connect, and agree on TLS, through a proxy too: a lost SYN is sent again
# after 1, 3 and 7 s.
CONNECT_TIMEOUT_S = 10.0

# 512 connections at once, half of the file descriptors that a process commonly may hold. Each call
# that waits for its answer holds one, so a low limit would let calls that wait for the user block
# the very answer they wait for.
MAX_CONNECTIONS = 512

# An idle connection is used again for 4 s and not longer: uvicorn and Node close theirs after 5 s,
# and a request that meets the close has an unknown outcome.
IDLE_S = 4.0


class HttpResponse(Protocol):
    """An answer whose headers have come. Close it, unless `read` returned or `chunks` ended."""

    @property
    def status(self) -> int:
        """The status code; every code, 200 and 500 alike."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; a header that came more than once is joined by ", "."""

    @property
    def url(self) -> str:
        """Who answered, after redirects: equal to what was asked when there were none."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, decoded from gzip and deflate; no chunk is empty.

        Raises:
            HttpError: the connection broke, or the encoding did; `sent` is True.
        """

    async def read(self, limit: int) -> bytes:
        """The whole body, decoded.

        Raises:
            HttpError: it is over `limit` bytes, and was dropped, or it broke; `sent` is True.
        """

    async def aclose(self) -> None:
        """Drop what is left; may be called again."""


@runtime_checkable
class HttpClient(Protocol):
    """Something that can make HTTP requests, many at once."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> HttpResponse:
        """Make a request; returns when the headers of its answer are there, whatever its status.

        There is no time limit but the one for connecting; cancelling it closes its connection.

        Raises:
            HttpError: no answer came; `sent` says whether the request may have been taken.
            Misconfigured: a header or the URL cannot be sent.
        """

    async def aclose(self) -> None:
        """Close every connection; may be called again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How to reach a server over HTTP.

    `headers` go with each request, unless a redirect leads to another origin. `verify` is True,
    False, a file or folder of certificates to trust, or a context; `cert` a file with our own
    certificate and key, or (certificate, key), or (certificate, key, password). `proxy` is its
    URL, "" for none; when it is None and `trust_env` is True, the variables HTTPS_PROXY,
    HTTP_PROXY, ALL_PROXY and NO_PROXY decide, except for this machine itself. No other variable
    and no file (such as .netrc) is looked at. `uds` is the path of a Unix socket to connect to
    whatever the URL says. `backend` chooses the library; None takes aiohttp when it is installed
    and can do what is asked (HTTP/2 it cannot), else httpx2. `allow_plain_secrets` lets tokens and
    cookies travel over http:// to another machine, where everybody on the way can read them. With
    `stays_at_origin` no redirect is followed that leads to another scheme, host or port.
    """

    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, repr=False)
    verify: bool | str | ssl.SSLContext = True
    cert: str | tuple[str, ...] | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    trust_env: bool = True
    http2: bool = False
    uds: str | None = None
    backend: Literal["aiohttp", "httpx2"] | None = None
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    max_connections: int = MAX_CONNECTIONS
    idle_s: float = IDLE_S
    allow_plain_secrets: bool = False
    stays_at_origin: bool = False
