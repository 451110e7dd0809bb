"""What every request goes through before and after the library: headers sealed, redirects followed.

The rules are the same for every library: at most five redirects; 307 and 308 repeat the request,
301, 302 and 303 are followed for GET alone; never from https to http, nor from another machine to
this one; what leads to another origin takes only headers along that hold no secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urljoin

from dragoman.errors import HttpError, LinkClosed, Misconfigured
from dragoman.transport.http.client import HttpClient, HttpResponse
from dragoman.transport.http.inflate import ACCEPTED_ENCODINGS
from dragoman.transport.http.urls import Address, address, is_loopback, without_secrets

__all__ = ["Exchanger", "Following", "Sealed"]

# 5: what the other SDKs' libraries meet in practice is one or two; browsers stop at 20.
MAX_REDIRECTS = 5

# 64 addresses that have moved for good; a client talks to one or two.
MAX_MOVED = 64

_ALWAYS = frozenset({307, 308})
_FOR_GET = frozenset({301, 302, 303})
_REDIRECTS = _ALWAYS | _FOR_GET
_FOR_GOOD = frozenset({301, 308})

# What another origin may see: how the message is to be read, and nothing of whose it is.
_HARMLESS = frozenset(
    {
        "accept",
        "accept-encoding",
        "cache-control",
        "content-type",
        "mcp-protocol-version",
        "user-agent",
    }
)

# The library frames the body; a second word on its length is how requests are smuggled.
_NOT_YOURS = frozenset({"content-length", "transfer-encoding", "connection", "upgrade"})

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Sealed:
    """Headers that were checked and are complete; `native` is for the library's own form of them."""

    __slots__ = ("native", "pairs")

    def __init__(self, pairs: tuple[tuple[str, str], ...]) -> None:
        self.pairs = pairs
        self.native: Any = None


class Exchanger(Protocol):
    """One library behind us: a request, an answer, no redirects."""

    async def exchange(
        self, method: str, place: Address, headers: Sealed, body: bytes | None
    ) -> HttpResponse:
        """As `HttpClient.send`; the answer's `url` is `place.url`."""

    async def aclose(self) -> None:
        """As `HttpClient.aclose`."""


class Following(HttpClient):
    """The `HttpClient` that the links use, over one library.

    Redirects that are permanent at every step are remembered for the client's life. With
    `stays_at_origin` those that lead elsewhere are not followed.
    """

    def __init__(
        self, inner: Exchanger, headers: Mapping[str, str], *, stays_at_origin: bool = False
    ) -> None:
        self._inner = inner
        self._stays = stays_at_origin
        self._base = dict(headers)
        self._moved: dict[tuple[str, str], Address] = {}
        # Links send the same headers again and again: sealing costs 4 us, comparing 0.2.
        self._last: tuple[dict[str, str], str | None, Sealed] = ({}, None, self._seal({}, None))
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<HTTP by {type(self._inner).__name__}>"

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> HttpResponse:
        """See `HttpClient.send`."""
        if self._is_closed:
            raise LinkClosed("the HTTP client is closed", sent=False)
        place = address(url)
        known, authorization, sealed = self._last
        if headers != known or authorization is not place.authorization:
            sealed = self._seal(headers, place.authorization)
            self._last = (dict(headers), place.authorization, sealed)
        if self._moved and (there := self._moved.get((method, url))) is not None:
            if there.origin != place.origin:
                sealed = _harmless(sealed)
            place = there
        response = await self._inner.exchange(method, place, sealed, body)
        if response.status not in _REDIRECTS:
            return response
        return await self._follow(method, url, place, sealed, body, response)

    async def aclose(self) -> None:
        """See `HttpClient.aclose`."""
        self._is_closed = True
        await self._inner.aclose()

    async def _follow(
        self,
        method: str,
        url: str,
        place: Address,
        sealed: Sealed,
        body: bytes | None,
        response: HttpResponse,
    ) -> HttpResponse:
        is_for_good = True
        for _ in range(MAX_REDIRECTS):
            status = response.status
            location = response.headers.get("location")
            # An empty body is quickly read, and its connection can take us on.
            if response.headers.get("content-length") == "0":
                await response.read(0)
            await response.aclose()
            there = _next(method, place, status, location, stays=self._stays)
            is_for_good = is_for_good and status in _FOR_GOOD
            if there.origin != place.origin:
                sealed = _harmless(sealed)
            place = there
            response = await self._inner.exchange(method, place, sealed, body)
            if response.status not in _REDIRECTS:
                if is_for_good and len(self._moved) < MAX_MOVED:
                    self._moved[method, url] = place
                return response
        await response.aclose()
        raise HttpError(
            f"{without_secrets(url)} redirects more than {MAX_REDIRECTS} times",
            sent=False,
            url=place.shown,
            status=response.status,
        )

    def _seal(self, headers: Mapping[str, str], authorization: str | None) -> Sealed:
        given: dict[str, tuple[str, str]] = {
            "accept-encoding": ("Accept-Encoding", ACCEPTED_ENCODINGS),
            "user-agent": ("User-Agent", "dragoman"),
        }
        if authorization is not None:
            given["authorization"] = ("Authorization", authorization)
        for name, value in (*self._base.items(), *headers.items()):
            if not _NAME.match(name):
                raise Misconfigured(f"{name[:40]!r} cannot be the name of a header")
            if _CONTROL.search(value):
                # Without the value: it may be a secret with a line end behind it.
                raise Misconfigured(f"the header {name} holds a control character")
            if name.lower() in _NOT_YOURS:
                raise Misconfigured(f"the header {name} is set by the library, not by its caller")
            given[name.lower()] = (name, value.strip(" \t"))
        return Sealed(tuple(given.values()))


def _harmless(sealed: Sealed) -> Sealed:
    return Sealed(tuple(pair for pair in sealed.pairs if pair[0].lower() in _HARMLESS))


def _next(
    method: str, place: Address, status: int, location: str | None, *, stays: bool = False
) -> Address:
    """Where a redirect leads, if we may go there."""
    # 307 and 308 say that nothing was done; after the others one cannot know.
    sent = False if status in _ALWAYS or method == "GET" else None
    reason = None
    if location is None:
        reason = "without saying where to"
    elif status not in _ALWAYS and method != "GET":
        reason = f"in a way that a {method} may not follow"
    else:
        try:
            there = address(_without_user(urljoin(place.url, location)))
        except (Misconfigured, ValueError):
            reason = "to what is no http or https URL"
        else:
            if stays and there.origin != place.origin:
                reason = f"to another place than was agreed to, to {there.shown}"
            elif place.scheme == "https" and there.scheme == "http":
                reason = f"from https to http, to {there.shown}"
            elif is_loopback(there.host) and not is_loopback(place.host):
                reason = f"to our own machine, to {there.shown}"
            else:
                return there
    raise HttpError(
        f"{place.shown} redirects (status {status}) {reason}",
        sent=sent,
        url=place.shown,
        status=status,
    )


def _without_user(url: str) -> str:
    # Credentials from a redirect would be the other side's choice of who we are.
    return re.sub(r"\A([A-Za-z]+://)[^/?#]*@", r"\1", url)
