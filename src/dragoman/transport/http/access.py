"""Where a server is, and what we show it with each request."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from urllib.parse import urljoin

from dragoman.errors import LinkError, Misconfigured, PeerError
from dragoman.transport.http.choices import Token
from dragoman.transport.http.urls import address, is_loopback

__all__ = ["Access", "carries_secret"]

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
        is_private: bool = False,
    ) -> None:
        place = address(url)
        self.url = place.url
        self.shown = place.shown
        self.headers = dict(headers or {})
        self.round = 0
        self._token = token
        self._asking = asyncio.Lock()
        for name, value in self.headers.items():
            _check_header(name, value)
        if place.authorization is not None:
            self._authorize(place.authorization)
        if isinstance(token, str):
            self._authorize(_bearer(token))
        elif token is not None and not callable(token):
            raise Misconfigured("a token is a text, or a function that returns one")
        is_exposed = place.scheme == "http" and not is_private and not is_loopback(place.host)
        if is_exposed and (token is not None or carries_secret(self.headers)):
            raise Misconfigured(
                f"{self.shown} is not encrypted: a token, password or cookie would be read on the "
                "way. Use https, or HttpOptions(allow_plain_secrets=True) on a network you trust"
            )

    def __repr__(self) -> str:
        return f"<Access to {self.shown}>"

    async def open(self) -> None:
        """Ask for the first token, where a function gives it.

        Raises:
            LinkError: the function failed, or returned no token; `sent` is False.
        """
        # A lock is of one loop; a connector may be used in another.
        self._asking = asyncio.Lock()
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
                now = await self._ask()
                if now == before:
                    return False
                self._authorize(now)
                self.round += 1
            return True

    async def _ask(self) -> str:
        assert callable(self._token)
        try:
            given = self._token()
            return _bearer(given if isinstance(given, str) else await given)
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

    def is_at(self, url: str) -> bool:
        """Whether a URL has our scheme, host and port."""
        return address(url).origin == address(self.url).origin

    def resolve(self, reference: str, base: str) -> str:
        """A URL that the server named, made absolute from `base`, where it named it.

        Raises:
            PeerError: it is no URL, or leads to another origin than `base`.
        """
        try:
            found = address(urljoin(base, reference))
            is_ours = found.origin == address(base).origin
        except (ValueError, Misconfigured):
            raise PeerError(f"{self.shown} named an endpoint that is no URL") from None
        if not is_ours:
            raise PeerError(
                f"{self.shown} named an endpoint at another origin, {found.shown}: messages go "
                "only where the stream comes from"
            )
        return found.url


def carries_secret(headers: Mapping[str, str]) -> bool:
    """Whether one of the headers is, by its name, a secret."""
    return any(_SECRET.search(name) for name in headers)


def _bearer(token: object) -> str:
    # Never the value itself: it is a secret however wrong it is.
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Misconfigured("a token is a text of visible ASCII characters")
    return f"Bearer {token}"


def _check_header(name: object, value: object) -> None:
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise Misconfigured(f"{name!r} is no name of a header")
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise Misconfigured(f"the header {name!r} has a value that is no text of one line")
