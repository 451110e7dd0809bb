"""Opening an HTTP client: which library, with which settings.

aiohttp where it is installed, else httpx2. They are imported when a client is opened, not before.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from dragoman.errors import Misconfigured, MissingExtra
from dragoman.transport.http.client import HttpClient, HttpOptions

__all__ = ["open_http"]


def open_http(wish: HttpOptions | HttpClient | Any | None = None) -> HttpClient:
    """An HTTP client as `wish` says: options, or a client that exists already.

    A client of your own is anything with the methods of `HttpClient`, used as it is, or an
    `aiohttp.ClientSession` or `httpx2.AsyncClient`, which follows our rules for redirects and
    which closing the result leaves open.

    Raises:
        MissingExtra: no library for HTTP is installed, or none that can do what is asked.
        Misconfigured: `wish` is none of these.
    """
    if wish is None or isinstance(wish, HttpOptions):
        return _open(wish or HttpOptions())
    for library in ("aiohttp", "httpx2", "httpx"):
        module = sys.modules.get(library)
        if module is None:
            continue
        if library == "aiohttp" and isinstance(wish, module.ClientSession):
            from dragoman.transport.http.with_aiohttp import lend_session

            return lend_session(wish)
        if library != "aiohttp" and isinstance(wish, module.AsyncClient):
            from dragoman.transport.http.with_httpx import lend_client

            return lend_client(wish, module)
    if isinstance(wish, HttpClient):
        return wish
    raise Misconfigured(
        f"http= takes HttpOptions, an HttpClient, an aiohttp.ClientSession or an "
        f"httpx2.AsyncClient, not {type(wish).__name__}"
    )


def _open(options: HttpOptions) -> HttpClient:
    has_aiohttp = find_spec("aiohttp") is not None
    if options.http2 and options.backend == "aiohttp":
        raise Misconfigured("aiohttp has no HTTP/2; leave backend= out, or take httpx2")
    is_socks = (options.proxy or "").startswith("socks")
    wants_httpx = options.backend == "httpx2" or options.http2 or is_socks
    if has_aiohttp and not wants_httpx:
        from dragoman.transport.http.with_aiohttp import open_session

        return open_session(options)
    if options.backend == "aiohttp":
        raise MissingExtra("fast", "HTTP over aiohttp")
    if find_spec("httpx2") is None:
        raise MissingExtra("http", "HTTP/2" if options.http2 else "HTTP")
    if options.http2 and find_spec("h2") is None:
        raise MissingExtra("http2", "HTTP/2")
    from dragoman.transport.http.with_httpx import open_pool

    return open_pool(options)
