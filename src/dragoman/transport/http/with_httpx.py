"""The HTTP client over httpx2, which comes with `dragoman[http]`.

Our own connections are made one floor down, in the httpcore2 that httpx2 stands on: the same pool,
proxies, TLS and HTTP/2 without the models around them, which are a quarter of what a POST costs.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore2

from dragoman.errors import HttpError, MissingExtra
from dragoman.transport.http.bodies import Inflated, broken, no_answer, read_all
from dragoman.transport.http.client import HttpClient, HttpOptions, HttpResponse
from dragoman.transport.http.network import Network
from dragoman.transport.http.redirects import Exchanger, Following, Sealed
from dragoman.transport.http.settings import proxy_for, tls_context
from dragoman.transport.http.urls import Address, address

__all__ = ["lend_client", "open_pool"]

# These say that no connection came about, so nothing of the request can have left.
_NOT_SENT = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "InvalidURL",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
    }
)

_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.TimeoutException,
    httpcore2.UnsupportedProtocol,
    OSError,
)

_Pair = tuple[bytes, bytes]


def open_pool(options: HttpOptions) -> HttpClient:
    """A client with connections of its own; they are made when they are needed."""
    return Following(_Pools(options), options.headers, stays_at_origin=options.stays_at_origin)


def lend_client(client: Any, library: ModuleType) -> HttpClient:
    """A client that uses the user's `AsyncClient`, with its proxy, cookies and headers.

    `library` is the module that it comes from: httpx2, or httpx, which it descends from.
    """
    return Following(_Lent(client, library), {})


class _Pools(Exchanger):
    """A pool of connections for each way to get there: scheme and proxy."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._extensions = {"timeout": {"connect": options.connect_timeout_s}}
        self._tls: ssl.SSLContext | None = None
        self._pools: dict[tuple[str, str | None], tuple[httpcore2.AsyncConnectionPool, Network]]
        self._pools = {}
        self._ways: dict[Address, tuple[httpcore2.AsyncConnectionPool, httpcore2.URL, _Pair]] = {}

    async def exchange(
        self, method: str, place: Address, headers: Sealed, body: bytes | None
    ) -> HttpResponse:
        try:
            pool, url, host = self._ways[place]
        except KeyError:
            pool, url, host = self._find_way(place)
        if headers.native is None:
            headers.native = _encoded(headers)
        own_host, pairs = headers.native
        whole = [own_host or host, *pairs]
        if body is not None:
            whole.append((b"Content-Length", b"%d" % len(body)))
        request = httpcore2.Request(
            method, url, headers=whole, content=_Body(body), extensions=self._extensions
        )
        try:
            answer = await pool.handle_async_request(request)
        except _FAILURES as problem:
            raise _failure(place, problem, method) from None
        return _Response(answer.status, answer.headers, place, answer.stream, _FAILURES)

    async def aclose(self) -> None:
        for pool, network in self._pools.values():
            await pool.aclose()
            await network.aclose()

    def _find_way(
        self, place: Address
    ) -> tuple[httpcore2.AsyncConnectionPool, httpcore2.URL, _Pair]:
        proxy = proxy_for(self._options, place)
        known = self._pools.get((place.scheme, proxy))
        if known is None:
            self._pools[place.scheme, proxy] = known = self._open(place.scheme, proxy)
        url = httpcore2.URL(
            scheme=place.scheme, host=place.host, port=place.port, target=place.target
        )
        way = known[0], url, (b"Host", place.origin.partition("://")[2].encode())
        # 64: a client talks to one or two addresses.
        if len(self._ways) < 64:
            self._ways[place] = way
        return way

    def _open(
        self, scheme: str, proxy: str | None
    ) -> tuple[httpcore2.AsyncConnectionPool, Network]:
        options = self._options
        through = None
        if proxy is not None and not proxy.startswith(("socks5:", "socks5h:")):
            through = address(proxy)
        is_secure_proxy = through is not None and through.scheme == "https"
        if self._tls is None and (scheme == "https" or is_secure_proxy):
            self._tls = tls_context(options, httpcore2.default_ssl_context)
        network = Network(
            connect_timeout_s=options.connect_timeout_s,
            handshakes=(scheme == "https") + is_secure_proxy,
            joins_writes=not options.http2,
        )
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls,
            proxy=None if proxy is None else self._proxy(proxy, through),
            max_connections=options.max_connections,
            keepalive_expiry=options.idle_s,
            http2=options.http2,
            uds=options.uds,
            network_backend=network,
        )
        return pool, network

    def _proxy(self, proxy: str, through: Address | None) -> httpcore2.Proxy:
        if through is None:
            if find_spec("socksio") is None:
                raise MissingExtra("socks", "a SOCKS proxy")
            parts = urlsplit(proxy)
            user = parts.username
            return httpcore2.Proxy(
                url=f"{parts.scheme}://{parts.hostname}:{parts.port or 1080}",
                auth=None if user is None else (unquote(user), unquote(parts.password or "")),
            )
        headers = []
        if through.authorization is not None:
            headers = [(b"Proxy-Authorization", through.authorization.encode())]
        return httpcore2.Proxy(
            url=through.url,
            headers=headers,
            ssl_context=self._tls if through.scheme == "https" else None,
        )


class _Lent(Exchanger):
    """An AsyncClient that belongs to someone else."""

    def __init__(self, client: Any, library: ModuleType) -> None:
        self._client = client
        self._failures = (
            library.HTTPError,
            library.InvalidURL,
            library.StreamError,
            RuntimeError,
            OSError,
        )
        own = client.timeout
        self._timeout = library.Timeout(None, connect=own.connect)

    async def exchange(
        self, method: str, place: Address, headers: Sealed, body: bytes | None
    ) -> HttpResponse:
        client = self._client
        pairs = [(name.encode(), value.encode()) for name, value in headers.pairs]
        request = client.build_request(
            method, place.url, headers=pairs, content=body, timeout=self._timeout
        )
        try:
            answer = await client.send(request, stream=True, follow_redirects=False)
        except self._failures as problem:
            if isinstance(problem, RuntimeError) and not client.is_closed:
                raise
            raise _failure(place, problem, method) from None
        return _Response(
            answer.status_code, answer.headers.raw, place, _LentStream(answer), self._failures
        )

    async def aclose(self) -> None:
        """It is not ours to close."""


class _LentStream:
    """The body of a lent client's answer, before the library decodes it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        raw: AsyncIterator[bytes] = self._answer.aiter_raw()
        return raw

    async def aclose(self) -> None:
        await self._answer.aclose()


class _Body:
    """The body of a request, in one piece or none."""

    __slots__ = ("_rest",)

    def __init__(self, body: bytes | None) -> None:
        self._rest = body

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        rest = self._rest
        if not rest:
            raise StopAsyncIteration
        self._rest = None
        return rest


class _Response(HttpResponse):
    __slots__ = ("_failures", "_headers", "_iterator", "_place", "_status", "_stream")

    def __init__(
        self,
        status: int,
        headers: Sequence[_Pair],
        place: Address,
        stream: Any,
        failures: tuple[type[Exception], ...],
    ) -> None:
        self._status = status
        self._place = place
        self._stream = stream
        self._failures = failures
        self._iterator: Any = None
        found: dict[str, str] = {}
        for raw_name, raw_value in headers:
            name = raw_name.decode("latin-1").lower()
            value = raw_value.decode("latin-1")
            found[name] = f"{found[name]}, {value}" if name in found else value
        self._headers = found

    @property
    def status(self) -> int:
        return self._status

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
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the body as it is on the wire."""
        iterator = self._iterator
        if iterator is None:
            self._iterator = iterator = self._stream.__aiter__()
        try:
            while True:
                chunk: bytes = await iterator.__anext__()
                if chunk:
                    return chunk
        except BaseException as problem:
            # Its end is one of these. The connection goes back to the pool, or is closed.
            await self.aclose()
            if isinstance(problem, self._failures):
                raise broken(self._place.shown, _reason(problem)) from None
            raise

    def chunks(self) -> AsyncIterator[bytes]:
        header = self._headers.get("content-encoding")
        return self if header is None else Inflated(self, header)

    async def read(self, limit: int) -> bytes:
        return await read_all(self.chunks(), self, limit)

    async def aclose(self) -> None:
        iterator, self._iterator = self._iterator, _ENDED
        if iterator is not None:
            # Its finally clauses run now, and not in a task when the garbage is collected. It may
            # be running already: then whoever waits in it closes it.
            with suppress(RuntimeError):
                await iterator.aclose()
        await self._stream.aclose()


class _Ended:
    """What is left of a body that was read or dropped."""

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Done already."""


_ENDED = _Ended()


def _encoded(headers: Sealed) -> tuple[_Pair | None, list[_Pair]]:
    """The library's form of headers: Host apart, since it has to be there and comes first."""
    host = None
    others = []
    for name, value in headers.pairs:
        pair = name.encode(), value.encode()
        if name.lower() == "host":
            host = pair
        else:
            others.append(pair)
    return host, others


def _failure(place: Address, problem: Exception, method: str) -> HttpError:
    """What went wrong before an answer came. Nothing is chained: some texts hold whole URLs."""
    reason = _reason(problem)
    names = {base.__name__ for base in type(problem).__mro__}
    if not names & _NOT_SENT:
        return no_answer(place.shown, method, reason)
    status = None
    if "ProxyError" in names and str(problem)[:3].isdigit():
        status = int(str(problem)[:3])
        reason = f"the proxy answered with status {status}"
    return HttpError(
        f"{place.shown} cannot be reached: {reason}", sent=False, url=place.shown, status=status
    )


def _reason(problem: BaseException) -> str:
    name = type(problem).__name__
    if name == "InvalidURL":
        return name
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return str(problem) or name
