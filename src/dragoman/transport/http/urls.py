"""URLs as requests need them: checked, taken apart once, and shown without their secrets."""

from __future__ import annotations

import base64
import ipaddress
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from dragoman.errors import Misconfigured

__all__ = ["Address", "address", "is_loopback", "without_secrets"]

_DEFAULT_PORTS = {"http": 80, "https": 443}

# What may stand in a path or a query as it is: RFC 3986's characters, and "%", since what comes
# here is escaped already, if not always completely.
_AS_IT_IS = "/?:@!$&'()*+,;=-._~%"

# A host of letters, digits and a few signs, or a literal address; anything else could be read in
# more than one way by the libraries behind us.
_HOST = re.compile(r"[A-Za-z0-9._~-]+\Z|[0-9A-Fa-f:.]+\Z")

# 1 KiB is far more than any host has; 8 KiB is the least that RFC 9110 asks servers to take.
_MOST_CHARACTERS = 8 * 1024


class Address(NamedTuple):
    """A URL that can be asked.

    `url` is complete but for credentials and fragment, which are never sent; `host` is ASCII and
    has no brackets, `target` is the path with the query, `origin` what browsers compare.
    `authorization` is the header that the URL's credentials stand for; `shown` is for texts.
    """

    url: str
    scheme: str
    host: str
    port: int
    target: str
    origin: str
    shown: str
    authorization: str | None


def without_secrets(url: str) -> str:
    """The URL as it may stand in a log: no credentials, and of a query only that there is one."""
    try:
        return address(url).shown
    except Misconfigured:
        # Whatever this is, before an "@" there may be a password.
        return re.sub(r"[?#].*", "?...", re.sub(r"//.*@", "//", url))[:200]


@lru_cache(maxsize=256)
def address(url: str) -> Address:
    """Take an absolute http or https URL apart.

    Raises:
        Misconfigured: it is none, or has a host or port that cannot be.
    """
    if len(url) > _MOST_CHARACTERS:
        raise Misconfigured(f"a URL of {len(url)} characters is over the limit of 8192")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise Misconfigured("a URL holds a space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as problem:
        raise Misconfigured("a URL has a host or a port that cannot be") from problem
    scheme = parts.scheme
    if scheme not in _DEFAULT_PORTS:
        raise Misconfigured(f"a URL begins with http:// or https://, not with {scheme[:20]!r}")
    host = _ascii_host(host)
    if port == 0 or ("[" in parts.netloc and ":" not in host):
        raise Misconfigured("a URL has a host or a port that cannot be")
    literal = f"[{host}]" if ":" in host else host
    place = literal if port in (None, _DEFAULT_PORTS[scheme]) else f"{literal}:{port}"
    path = quote(parts.path or "/", safe=_AS_IT_IS)
    query = quote(parts.query, safe=_AS_IT_IS)
    target = f"{path}?{query}" if query else path
    origin = f"{scheme}://{place}"
    return Address(
        url=origin + target,
        scheme=scheme,
        host=host,
        port=port or _DEFAULT_PORTS[scheme],
        target=target,
        origin=origin,
        shown=f"{origin}{path}?..." if query else origin + path,
        authorization=_basic(parts.username, parts.password),
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nothing else: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _ascii_host(host: str) -> str:
    try:
        plain = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as problem:
        raise Misconfigured("a URL has a host or a port that cannot be") from problem
    if not _HOST.match(plain):
        raise Misconfigured("a URL has a host or a port that cannot be")
    return plain


def _basic(name: str | None, password: str | None) -> str | None:
    if name is None and password is None:
        return None
    pair = f"{unquote(name or '')}:{unquote(password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
