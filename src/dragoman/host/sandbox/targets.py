"""What of the network a confined server may reach: names and addresses, each with a port.

Pure: nothing is resolved and nothing is opened here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "LOCALHOST",
    "MAX_TARGETS",
    "Address",
    "BadTargetError",
    "Reach",
    "Target",
    "parse_target",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# 64: what a person still reads. Who needs more needs the network.
MAX_TARGETS = 64

LOCALHOST = "localhost"
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_LOOPBACK = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))

# RFC 1035: 253 characters for a name, 63 for each of its parts. An underscore occurs in practice.
_MAX_NAME = 253
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# "127.1", "0x7f.1" and "2130706433" are addresses to many resolvers, and names to nobody.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# What the two standards for such names read differently: two names for one spelling.
_AMBIGUOUS = frozenset("\u00df\u03c2\u200c\u200d")
_IN_BRACKETS = re.compile(r"\[([^\[\]]*)\](?::(.*))?", re.DOTALL)

# Not what Python's `is_global` says in every version of it: carrier-grade NAT (where Alibaba has
# its metadata), IETF's own block (Oracle's), benchmarks, Azure's metadata, what is reserved, Teredo,
# what leads on to whatever 6to4 relay is near (RFC 7526), and the examples of RFC 9637. ORCHID and
# drone ids (RFC 7343, 9374) are names of keys: no network answers there.
_NEVER_BY_NAME = tuple(
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "2001::/32",
        "2001:10::/28",
        "2001:20::/28",
        "2001:30::/28",
        "3fff::/20",
    )
)
# All of IPv6 that is given out for use on the open internet.
_GIVEN_OUT = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class BadTargetError(ValueError):
    """A text that names no target; its own text is the rest of a sentence about it."""


@dataclass(frozen=True, order=True, slots=True)
class Target:
    """A host and a port. `host` is in lower case and ASCII, without a dot at its end.

    A pattern has "*." before its name, and is every name below it.
    """

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def address(self) -> Address | None:
        """The address that the host is; None: it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for every name below one."""
        return self.host.startswith("*.")


@dataclass(frozen=True, slots=True)
class Reach:
    """All that one server may reach, sorted and each once."""

    targets: tuple[Target, ...] = ()

    @classmethod
    def of(cls, targets: Iterable[Target]) -> Reach:
        """The same targets in their order, each once."""
        return cls(tuple(sorted(set(targets))))

    def __str__(self) -> str:
        return ", ".join(str(one) for one in self.targets)

    def allows(self, wanted: Target) -> bool:
        """Whether a connection to this may be made; of a name, its addresses are another matter."""
        if wanted in self.targets:
            return True
        address = wanted.address
        if address is not None:
            return address in _LOOPBACK and Target(LOCALHOST, wanted.port) in self.targets
        return any(
            one.is_pattern and one.port == wanted.port and wanted.host.endswith(one.host[1:])
            for one in self.targets
        )

    def addresses_of(self, wanted: Target) -> tuple[Address, ...]:
        """The addresses that need no resolving; none: it is a name."""
        if wanted.host == LOCALHOST:
            return _LOOPBACK
        address = wanted.address
        return () if address is None else (address,)

    def allows_address(self, address: Address, port: int) -> bool:
        """Whether a name that is listed may lead to this address.

        What is not on the open internet has to be listed itself: names are made by strangers.
        """
        return _is_public(address) or self.allows(Target(_plain(address), port))


def parse_target(
    text: str, *, default_port: int | None = None, may_be_pattern: bool = False
) -> Target:
    """Read "host:port".

    The port is needed unless there is a default. An IPv6 address stands in brackets.

    Raises:
        BadTargetError: it is no such thing.
    """
    host, port = _split(text)
    if port is None:
        if default_port is None:
            raise BadTargetError(f"names no port; write {host + ':443'!r}, or whichever it is")
        number = default_port
    else:
        # Five digits: more would be a number that takes long to read.
        if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
            raise BadTargetError(f"has the port {port[:20]!r}; ports are numbers from 1 to 65535")
        number = int(port)
    if "*" in host:
        if not may_be_pattern:
            raise BadTargetError("is a pattern, and no host")
        return Target(_pattern(host), number)
    return Target(_host(host), number)


def _split(text: str) -> tuple[str, str | None]:
    if "://" in text:
        raise BadTargetError(f"is a URL; write {_of_url(text)!r}")
    if not text or any(one.isspace() or one in "/@?#\\%" for one in text):
        raise BadTargetError("is no 'host:port'")
    if text.startswith("["):
        match = _IN_BRACKETS.fullmatch(text)
        if match is None or ":" not in match.group(1):
            raise BadTargetError("is no '[IPv6 address]:port'")
        return match.group(1), match.group(2)
    host, colon, port = text.partition(":")
    if ":" in port:
        raise BadTargetError("has more than one ':'; an IPv6 address is written '[::1]:443'")
    return host, port if colon else None


def _of_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    has_port = re.search(r":[0-9]+$", host) is not None
    return host if has_port else f"{host}:{80 if scheme.lower() in ('http', 'ws') else 443}"


def _pattern(host: str) -> str:
    if host == "*":
        raise BadTargetError("is everywhere; write 'network': true for that")
    name = host.removeprefix("*.")
    if name == host or "*" in name:
        raise BadTargetError("has a '*' that does not stand first, alone, before a '.'")
    found = _host(name)
    if "." not in found or _as_address(found) is not None:
        raise BadTargetError("is too wide: name the domain, as in '*.example.com:443'")
    return f"*.{found}"


def _host(text: str) -> str:
    address = _as_address(text)
    if address is not None:
        if address.is_unspecified or address.is_multicast or address == _BROADCAST:
            raise BadTargetError("is an address nobody can be reached at")
        return _plain(address)
    if ":" in text:
        raise BadTargetError("is no IPv6 address")
    name = _ascii(text).lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(one) for one in labels):
        raise BadTargetError("is no name of a host")
    if _NUMBER.fullmatch(labels[-1]):
        raise BadTargetError("is no name of a host, and no address in full")
    if labels[-1] == LOCALHOST and len(labels) > 1:
        raise BadTargetError("is this machine; write 'localhost'")
    return name


def _ascii(text: str) -> str:
    if text.isascii():
        return text
    if _AMBIGUOUS & set(text):
        raise BadTargetError("is read in two ways; write its 'xn--' form")
    try:
        # With the last dot the codec would find an empty part.
        return text.removesuffix(".").encode("idna").decode("ascii")
    except UnicodeError:
        raise BadTargetError("is no name of a host") from None


def _as_address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise BadTargetError("is an address of one interface")
        return address.ipv4_mapped or address
    return address


def _plain(address: Address) -> str:
    return str(_unwrapped(address))


def _unwrapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_public(address: Address) -> bool:
    address = _unwrapped(address)
    if isinstance(address, ipaddress.IPv6Address):
        # What leads on to an IPv4 address is no better than that one.
        if address in _NAT64:
            return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None:
            return _is_public(address.sixtofour)
        if address not in _GIVEN_OUT:
            return False
    if any(address.version == one.version and address in one for one in _NEVER_BY_NAME):
        return False
    return address.is_global and not address.is_multicast
