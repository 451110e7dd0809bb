"""What a failed exchange means for a link: whose words it is, and whether it passes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from dragoman.errors import HttpError, LinkError
from dragoman.transport.http.client import HttpResponse
from dragoman.transport.http.limits import ERROR_BODY_BYTES, ERROR_WAIT_S
from dragoman.transport.http.refusals import refusal

__all__ = ["failed", "is_passing", "is_unreachable", "media_type", "wished_s"]

# What passes by itself: the same request may be taken in a while.
_PASSING = frozenset({408, 425, 429, 502, 503, 504})

# What a proxy says when nobody is behind it.
_UNREACHABLE = frozenset({502, 503, 504})


async def failed(response: HttpResponse) -> tuple[HttpError, bytes]:
    """An answer that is no success, as an error; and its body, as far as it was read.

    The response is closed.
    """
    body = await _some(response)
    return await refusal(_Held(response, body)), body


def is_passing(error: LinkError) -> bool:
    """Whether the same may succeed in a while: nobody was reached, or the server said so."""
    if not isinstance(error, HttpError):
        return False
    return error.status in _PASSING if error.status is not None else error.sent is not True


def is_unreachable(error: LinkError) -> bool:
    """Whether the failure says that nobody serves there now."""
    return isinstance(error, HttpError) and (error.status is None or error.status in _UNREACHABLE)


def wished_s(error: LinkError) -> float:
    """How long we were asked to wait before we try again, in seconds; 0 when we were not."""
    return (error.retry_after_s or 0.0) if isinstance(error, HttpError) else 0.0


def media_type(headers: Mapping[str, str]) -> str:
    """The type of a body in lower case, without its parameters; empty when none is named."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def _some(response: HttpResponse) -> bytes:
    """The first bytes of a body, as many as come soon: it may hold a JSON-RPC error."""
    parts = []
    size = 0
    try:
        with suppress(TimeoutError, LinkError):
            async with asyncio.timeout(ERROR_WAIT_S):
                async for chunk in response.chunks():
                    parts.append(chunk)
                    size += len(chunk)
                    if size >= ERROR_BODY_BYTES:
                        break
    finally:
        await response.aclose()
    return b"".join(parts)[:ERROR_BODY_BYTES]


class _Held:
    """A response whose body has been read."""

    def __init__(self, response: HttpResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.url = response.url
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body

    async def read(self, limit: int) -> bytes:
        return self._body

    async def aclose(self) -> None:
        pass
