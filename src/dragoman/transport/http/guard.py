"""Who may talk to a server over HTTP at all: the Host and Origin headers, held against a list.

A page in a browser can make requests to any address, also to this machine's; a name that it
controls may even be made to point here. What it cannot do is choose these two headers.
Spec: basic/transports#security-warning
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from dragoman.errors import Misconfigured

__all__ = ["LOOPBACK", "Guard"]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""The names of this machine."""

# 256 answers are remembered for each header: a server has few names, and whoever sends others
# shall not fill our memory.
MAX_REMEMBERED = 256


class Guard:
    """Decides by the values of Host and Origin.

    `hosts` are names without a scheme: "api.example.com" (any port), "api.example.com:8443", or "*"
    for any; this machine's own names are used when there are none. `origins` are whole,
    "https://app.example.com", or "*"; pages of the allowed hosts are allowed as well.

    Raises:
        Misconfigured: a host or an origin that could never match.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self.hosts = frozenset(_host(host) for host in hosts) or frozenset(LOOPBACK)
        self.origins = frozenset(_origin(origin) for origin in origins)
        self._known_hosts: dict[bytes, bool] = {}
        self._known_origins: dict[bytes, bool] = {}

    def allows_host(self, value: bytes) -> bool:
        """Whether a Host header may be served."""
        known = self._known_hosts.get(value)
        if known is None:
            known = self._matches(value.decode("latin-1"))
            _remember(self._known_hosts, value, known)
        return known

    def allows_origin(self, value: bytes) -> bool:
        """Whether a page of this origin may be served. Whoever sends none is no page."""
        known = self._known_origins.get(value)
        if known is None:
            text = value.decode("latin-1")
            known = "*" in self.origins or text.lower() in self.origins
            if not known and text.lower().startswith(("http://", "https://")):
                known = "*" not in self.hosts and self._matches(text.split("://", 1)[1])
            _remember(self._known_origins, value, known)
        return known

    def _matches(self, authority: str) -> bool:
        authority = authority.lower()
        if "*" in self.hosts or authority in self.hosts:
            return True
        parts = _AUTHORITY.fullmatch(authority)
        return parts is not None and parts[1] in self.hosts


_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]{0,5})?")


def _remember(known: dict[bytes, bool], value: bytes, answer: bool) -> None:
    if len(known) >= MAX_REMEMBERED:
        known.clear()
    known[value] = answer


def _host(host: str) -> str:
    if host == "*":
        return host
    if not host or "/" in host or "@" in host or host != host.strip():
        raise Misconfigured(
            f"{host!r} is not a host: give a name such as 'api.example.com', one with a port such "
            "as 'api.example.com:8443', or '*'"
        )
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    return host.lower()


def _origin(origin: str) -> str:
    if origin == "*":
        return origin
    parts = urlsplit(origin)
    if not parts.scheme or not parts.netloc or parts.path not in ("", "/") or parts.query:
        raise Misconfigured(
            f"{origin!r} is not an origin: give one such as 'https://app.example.com', or '*'"
        )
    return f"{parts.scheme}://{parts.netloc}".lower()
