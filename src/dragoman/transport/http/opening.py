"""Opening an HTTP client: which library, with which settings.

aiohttp where it is installed, else httpx2. They are imported when a client is opened, not before.
"""

from __future__ import annotations

import sys
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
    raise MissingExtra("http", "HTTP")
