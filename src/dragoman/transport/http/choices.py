"""The words in which a caller says how to reach a URL; light, since every client imports them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias

from dragoman.transport.http.client import HttpClient, HttpOptions

__all__ = ["HttpLike", "Mode", "Token"]

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A bearer token, or a function that gives one; it is asked again when the server refuses one."""

Mode: TypeAlias = Literal["auto", "streamable", "sse"]
"""Which transport: Streamable HTTP, HTTP+SSE, or the first of them that the server speaks."""

HttpLike: TypeAlias = HttpOptions | HttpClient | Any
"""How to make requests: options, or a client of your own (an `HttpClient`, an
`aiohttp.ClientSession`, an `httpx2.AsyncClient`), which stays open when the link closes."""
