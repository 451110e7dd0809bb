"""Where a server is, and what we show it with each request."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from dragoman.errors import LinkError, Misconfigured, PeerError
from dragoman.transport.http.limits import MAX_URL_CHARS
from dragoman.transport.http.urls import without_secrets

__all__ = ["Access", "Token", "is_same_origin"]

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A bearer token, or a function that gives one; it is asked again when the server refuses one."""

_PORTS = {"http": 80, "https": 443}

_TOKEN = re.compile(r"[\x21-\x7e]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")

# Headers that carry a secret, by the names in use.
_SECRET = re.compile(
    r"authorization|cookie|token|secret|password|api-?key|auth-?key", re.IGNORECASE
)


class Access:
    """A URL, the headers of the user, and the bearer token with its renewal.

    `url` has no user and password: they become a header. `shown` is for people: no query either.
    `headers` are what each request carries; `round` counts the tokens so far.

    Raises:
        Misconfigured: the URL or a header cannot be used, or a secret would travel in the clear.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
        is_local: bool = False,
        allows_plain_secrets: bool = False,
    ) -> None:
        parts = _split(url)
        self.url = _without_user(parts)
        self.shown = without_secrets(self.url)
        self.headers = dict(headers or {})
        self.round = 0
        self._token = token
        self._asking = asyncio.Lock()
        for name, value in self.headers.items():
            _check_header(name, value)
        if parts.username is not None or parts.password is not None:
            pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            self._authorize("Basic " + base64.b64encode(pair.encode()).decode())
        if isinstance(token, str):
            self._authorize(_bearer(token))
        elif token is not None and not callable(token):
            raise Misconfigured("a token is a text, or a function that returns one")
        has_secret = token is not None or any(_SECRET.search(name) for name in self.headers)
        is_plain = parts.scheme == "http" and not is_local and not _is_loopback(parts.hostname)
        if has_secret and is_plain and not allows_plain_secrets:
            raise Misconfigured(
                f"{self.shown} is not encrypted, and a token, password or cookie would be read on "
                "the way; use https"
            )

    def __repr__(self) -> str:
        return f"<Access to {self.shown}>"

    async def open(self) -> None:
        """Ask for the first token, where a function gives it.

        Raises:
            LinkError: the function failed, or returned no token; `sent` is False.
        """
        if self.round == 0:
            await self.renew(0)

    async def renew(self, used: int) -> bool:
        """Whether there is another token than that of round `used`; asks for it if need be.

        Raises:
            LinkError: the function failed, or returned no token; `sent` is False.
        """
        if self._token is None or isinstance(self._token, str):
            return False
        async with self._asking:
            # Of many requests that are refused together one asks, for all.
            if self.round == used:
                before = self.headers.get("Authorization")
                self._authorize(await self._ask())
                if self.headers["Authorization"] == before:
                    return False
                self.round += 1
            return True

    async def _ask(self) -> str:
        assert callable(self._token)
        try:
            given = self._token()
            token = given if isinstance(given, str) else await given
            return _bearer(token)
        except Exception as error:
            # Its text may hold a secret: it stays with the cause.
            kind = type(error).__name__
            raise LinkError(
                f"the function that gives the token for {self.shown} failed with {kind}", sent=False
            ) from error

    def _authorize(self, value: str) -> None:
        for name in [one for one in self.headers if one.lower() == "authorization"]:
            del self.headers[name]
        self.headers["Authorization"] = value

    def resolve(self, reference: str) -> str:
        """A URL that the server named, made absolute.

        Raises:
            PeerError: it is no URL, or leads to another origin than ours.
        """
        if len(reference) > MAX_URL_CHARS or not reference.isprintable():
            raise PeerError(f"{self.shown} named an endpoint that is no URL")
        try:
            found = urljoin(self.url, reference)
            same = is_same_origin(self.url, found)
        except ValueError:
            raise PeerError(f"{self.shown} named an endpoint that is no URL") from None
        if not same:
            raise PeerError(
                f"{self.shown} named an endpoint at another origin, {without_secrets(found)}: messages "
                "go only where the stream comes from"
            )
        return _without_user(urlsplit(found))


def is_same_origin(one: str, other: str) -> bool:
    """Whether two absolute URLs have the same scheme, host and port. Raises ValueError."""
    return _origin(urlsplit(one)) == _origin(urlsplit(other))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Misconfigured(f"that is no URL to connect to: {error}") from None
    if parts.scheme not in _PORTS:
        raise Misconfigured(f"{without_secrets(url)} is neither http:// nor https://")
    if not parts.hostname or port == 0:
        raise Misconfigured(f"{without_secrets(url)} names no host to connect to")
    if len(url) > MAX_URL_CHARS or not url.isprintable() or " " in url:
        raise Misconfigured(f"{without_secrets(url)} has characters no URL has, or too many")
    return parts


def _without_user(parts: SplitResult) -> str:
    """The URL without user, password and fragment."""
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bearer(token: object) -> str:
    # Never the value itself: it is a secret however wrong it is.
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Misconfigured("a token is a text of visible ASCII characters")
    return f"Bearer {token}"


def _check_header(name: str, value: object) -> None:
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise Misconfigured(f"{name!r} is no name of a header")
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise Misconfigured(f"the header {name!r} has a value that is no text of one line")
