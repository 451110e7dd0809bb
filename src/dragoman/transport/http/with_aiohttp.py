"""The HTTP client over aiohttp, for `dragoman[fast]`."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from dragoman.errors import HttpError, Misconfigured
from dragoman.transport.http.bodies import Inflated, broken, no_answer, read_all, too_large
from dragoman.transport.http.client import HttpClient, HttpOptions, HttpResponse
from dragoman.transport.http.redirects import Exchanger, Following, Sealed
from dragoman.transport.http.settings import proxy_for, tls_context, why_refused
from dragoman.transport.http.sockets import open_socket
from dragoman.transport.http.urls import Address

__all__ = ["lend_session", "open_session"]

# aiohttp warns of larger bodies that are bytes, since they leave in one piece; a file is cut up.
_LARGE_BODY_BYTES = 1024 * 1024

# These say that no connection came about, so nothing of the request can have left.
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.ServerFingerprintMismatch,
)
# What a session of the user's decodes by itself, unless it was told not to.
_DECODED_BY_IT = frozenset({"br", "deflate", "gzip", "zstd"})

# aiohttp 3.11 makes its sockets itself.
_SOCKETS: dict[str, Any] = (
    {"socket_factory": open_socket} if hasattr(aiohttp, "SocketFactoryType") else {}
)

_NO_HEADERS_OF_ITS_OWN = ("User-Agent", "Content-Type")


def open_session(options: HttpOptions) -> HttpClient:
    """A client with connections of its own; they are made when they are needed."""
    return Following(_Session(options), options.headers, stays_at_origin=options.stays_at_origin)


def lend_session(session: aiohttp.ClientSession) -> HttpClient:
    """A client that uses a session of the user's, with its proxy, cookies and headers."""
    return Following(_Lent(session), {})


class _BoundedResolver(AbstractResolver):
    """Looks names up within the time for connecting, which aiohttp grants to the socket alone."""

    def __init__(self, timeout_s: float) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._timeout_s = timeout_s

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._inner.resolve(host, port, family)
        except TimeoutError:
            raise OSError(None, f"no address within {self._timeout_s:g} s") from None

    async def close(self) -> None:
        await self._inner.close()


class _Session(Exchanger):
    """Our own session, opened with the first request, on the loop that it runs on."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=options.connect_timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._urls: dict[Address, tuple[URL, URL | None]] = {}

    async def exchange(
        self, method: str, place: Address, headers: Sealed, body: bytes | None
    ) -> HttpResponse:
        session = self._session
        if session is None:
            self._session = session = self._open()
        try:
            url, proxy = self._urls[place]
        except KeyError:
            url, proxy = self._look_up(place)
        tls: ssl.SSLContext | bool = True
        if place.scheme == "https" or (proxy is not None and proxy.scheme == "https"):
            if self._tls is None:
                self._tls = tls_context(self._options)
            tls = self._tls
        if headers.native is None:
            headers.native = CIMultiDict(headers.pairs)
        if body is not None and len(body) >= _LARGE_BODY_BYTES:
            data: io.BytesIO | bytes | None = io.BytesIO(body)
        else:
            data = body
        try:
            answer = await session.request(
                method,
                url,
                data=data,
                headers=headers.native,
                allow_redirects=False,
                proxy=proxy,
                ssl=tls,
            )
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise _failure(place, problem, method) from None
        return _Response(answer, place, is_decoded=False)

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        options = self._options
        connector: aiohttp.BaseConnector
        if options.uds is not None:
            connector = aiohttp.UnixConnector(
                options.uds, limit=options.max_connections, keepalive_timeout=options.idle_s
            )
        else:
            connector = aiohttp.TCPConnector(
                limit=options.max_connections,
                keepalive_timeout=options.idle_s,
                resolver=_BoundedResolver(options.connect_timeout_s),
                **_SOCKETS,
            )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            auto_decompress=False,
            skip_auto_headers=_NO_HEADERS_OF_ITS_OWN,
        )

    def _look_up(self, place: Address) -> tuple[URL, URL | None]:
        proxy = proxy_for(self._options, place)
        if proxy is not None and not proxy.startswith(("http://", "https://")):
            raise Misconfigured("aiohttp knows http and https proxies; take backend='httpx2'")
        found = URL(place.url, encoded=True), None if proxy is None else URL(proxy)
        # 64: a client talks to one or two addresses.
        if len(self._urls) < 64:
            self._urls[place] = found
        return found


class _Lent(Exchanger):
    """A session that belongs to someone else."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        own = session.timeout
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=own.connect, sock_connect=own.sock_connect
        )

    async def exchange(
        self, method: str, place: Address, headers: Sealed, body: bytes | None
    ) -> HttpResponse:
        large = body is not None and len(body) >= _LARGE_BODY_BYTES
        try:
            answer = await self._session.request(
                method,
                URL(place.url, encoded=True),
                data=io.BytesIO(body) if large and body is not None else body,
                headers=CIMultiDict(headers.pairs),
                allow_redirects=False,
                raise_for_status=False,
                timeout=self._timeout,
                skip_auto_headers=_NO_HEADERS_OF_ITS_OWN,
            )
        except RuntimeError as problem:
            if not self._session.closed:
                raise
            raise _failure(place, problem, method) from None
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise _failure(place, problem, method) from None
        return _Response(answer, place, is_decoded=self._session.auto_decompress)

    async def aclose(self) -> None:
        """It is not ours to close."""


class _Response(HttpResponse):
    __slots__ = ("_answer", "_headers", "_is_decoded", "_place")

    def __init__(self, answer: aiohttp.ClientResponse, place: Address, *, is_decoded: bool) -> None:
        self._answer = answer
        self._place = place
        self._is_decoded = is_decoded
        headers: dict[str, str] = {}
        for name, value in answer.headers.items():
            low = name.lower()
            headers[low] = f"{headers[low]}, {value}" if low in headers else value
        self._headers = headers
        if is_decoded and headers.get("content-encoding", "").lower() not in _DECODED_BY_IT:
            self._is_decoded = False

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> dict[str, str]:
        return self._headers

    @property
    def url(self) -> str:
        return self._place.url

    @property
    def shown(self) -> str:
        return self._place.shown

    def raw(self) -> AsyncIterator[bytes]:
        return _Chunks(self._answer, self._place.shown)

    def chunks(self) -> AsyncIterator[bytes]:
        header = self._headers.get("content-encoding")
        return self.raw() if header is None or self._is_decoded else Inflated(self, header)

    async def read(self, limit: int) -> bytes:
        if "content-encoding" in self._headers and not self._is_decoded:
            return await read_all(self.chunks(), self, limit)
        content = self._answer.content
        try:
            data = await content.readany()
        except (aiohttp.ClientError, OSError) as problem:
            self._answer.close()
            raise broken(self._place.shown, _reason(problem)) from None
        if len(data) <= limit:
            # Small bodies come with their headers: here is where nearly every answer ends.
            if content.at_eof():
                return data
            return await read_all(self.raw(), self, limit, data)
        self._answer.close()
        raise too_large(self._place.shown, limit)

    async def aclose(self) -> None:
        # Gives the connection back when the body was read, and closes it otherwise: at once, since
        # TLS would wait for the server's goodbye longer than the event loop may live.
        connection = self._answer.connection
        transport = None if connection is None else connection.transport
        self._answer.release()
        if transport is not None and transport.is_closing():
            transport.abort()


class _Chunks:
    """The body as it comes."""

    __slots__ = ("_answer", "_content", "_shown")

    def __init__(self, answer: aiohttp.ClientResponse, shown: str) -> None:
        self._answer = answer
        self._content = answer.content
        self._shown = shown

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._content.readany()
        except (aiohttp.ClientError, OSError) as problem:
            self._answer.close()
            raise broken(self._shown, _reason(problem)) from None
        if not chunk:
            raise StopAsyncIteration
        return chunk


def _failure(place: Address, problem: Exception, method: str) -> HttpError:
    """What went wrong before an answer came. Nothing is chained: some texts hold whole URLs."""
    reason = _reason(problem)
    if isinstance(problem, _NOT_SENT):
        status = problem.status if isinstance(problem, aiohttp.ClientHttpProxyError) else None
        return HttpError(
            f"{place.shown} cannot be reached: {reason}",
            sent=False,
            url=place.shown,
            status=status,
        )
    return no_answer(place.shown, method, reason)


def _reason(problem: BaseException) -> str:
    if isinstance(problem, aiohttp.ClientConnectorCertificateError):
        return why_refused(problem.certificate_error)
    if isinstance(problem, aiohttp.ClientHttpProxyError):
        return f"the proxy answered with status {problem.status}"
    if isinstance(problem, aiohttp.ClientConnectorError):
        return f"{problem.os_error.strerror or problem.os_error}"
    if isinstance(problem, aiohttp.ConnectionTimeoutError):
        return "no connection came about in time"
    if isinstance(problem, aiohttp.ServerDisconnectedError):
        return "the connection was closed"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return type(problem).__name__
