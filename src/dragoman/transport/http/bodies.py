"""How a body is read, whatever library it comes from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from dragoman.errors import HttpError
from dragoman.transport.http.inflate import Inflater, encoding_of

__all__ = ["Inflated", "RawBody", "broken", "no_answer", "read_all", "too_large"]


class RawBody(Protocol):
    """The bytes of a body as they are on the wire, and what it takes to speak of them."""

    @property
    def shown(self) -> str:
        """Where it comes from, for texts."""

    def raw(self) -> AsyncIterator[bytes]:
        """The pieces; raises HttpError when they end too early."""

    async def aclose(self) -> None:
        """Drop what is left."""


class Inflated:
    """The body without its Content-Encoding, in pieces; HttpError when it is broken.

    An object and not a generator: one that is left early needs no task to finish it.
    """

    __slots__ = ("_body", "_header", "_inflater", "_pieces", "_raw")

    def __init__(self, body: RawBody, header: str) -> None:
        self._body = body
        self._header = header
        self._raw = body.raw()
        self._inflater: Inflater | None = None
        self._pieces: Iterator[bytes] = iter(())

    def __aiter__(self) -> Inflated:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece."""
        try:
            inflater = self._inflater
            if inflater is None:
                encoding = encoding_of(self._header)
                if encoding is None:
                    return await anext(self._raw)
                self._inflater = inflater = Inflater(encoding)
            while True:
                for piece in self._pieces:
                    return piece
                try:
                    chunk = await anext(self._raw)
                except StopAsyncIteration:
                    inflater.finish()
                    raise
                self._pieces = inflater.feed(chunk)
        except ValueError as problem:
            await self._body.aclose()
            raise broken(self._body.shown, str(problem)) from None


async def read_all(
    chunks: AsyncIterator[bytes], body: RawBody, limit: int, first: bytes = b""
) -> bytes:
    """The whole body in one; `first` is what was read of it already.

    Raises:
        HttpError: it is over the limit, and was dropped.
    """
    held = [first]
    size = len(first)
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            await body.aclose()
            raise too_large(body.shown, limit)
        held.append(chunk)
    return b"".join(held)


def broken(shown: str, how: str) -> HttpError:
    """The error for an answer that began and did not come to its end."""
    return HttpError(f"the answer from {shown} broke off: {how}", sent=True, url=shown)


def no_answer(shown: str, method: str, reason: str) -> HttpError:
    """The error for a request that was written, at least in part, and got no answer."""
    # With TLS 1.3 the server's opinion of our certificate comes after the handshake, in place of
    # an answer: it never read the request.
    if "_ALERT_" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return HttpError(
            f"{shown} does not accept our certificate: {reason}",
            sent=False,
            url=shown,
            hint="Pass cert= in HttpOptions",
        )
    return HttpError(f"{method} {shown} got no answer: {reason}", sent=None, url=shown)


def too_large(shown: str, limit: int) -> HttpError:
    """The error for an answer that nobody wants to hold."""
    return HttpError(
        f"the body from {shown} is over the limit of {limit} bytes", sent=True, url=shown
    )
