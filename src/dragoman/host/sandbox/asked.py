"""What a program asks of a proxy, in HTTP or SOCKS5, and what it is told.

Bounded by the reader's limit; how long it may take is the caller's to say.

Spec: RFC 9112 section 3.2, RFC 9110 section 9.3.6, RFC 1928
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from enum import Enum

from dragoman.host.sandbox.targets import BadTargetError, Target, parse_target

__all__ = ["Asked", "BadRequestError", "Outcome", "read_asked"]


class Outcome(Enum):
    """What became of a request."""

    CONNECTED = "connected"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


class BadRequestError(Exception):
    """It asks for nothing a proxy can do; `answer` is what to send before closing."""

    def __init__(self, text: str, answer: bytes = b"") -> None:
        self.answer = answer
        super().__init__(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Whom a program wants to reach.

    `first` is what to send there before anything else of the program's. `is_plain` when it speaks
    HTTP itself to whoever answers: then success is not announced.
    """

    target: Target
    first: bytes = b""
    is_plain: bool = False
    is_socks: bool = False

    def answer(self, outcome: Outcome, why: str = "") -> bytes:
        """What to tell the program; `why` is a sentence for people."""
        if self.is_socks:
            return _SOCKS_ANSWERS[outcome]
        if outcome is Outcome.CONNECTED:
            return b"" if self.is_plain else b"HTTP/1.1 200 Connection established\r\n\r\n"
        return _http(*_HTTP_ANSWERS[outcome], why)


# Version, code, reserved, and an address that means nothing to who connects.
_SOCKS_TAIL = b"\x00\x01\x00\x00\x00\x00\x00\x00"
_SOCKS_ANSWERS = {
    Outcome.CONNECTED: b"\x05\x00" + _SOCKS_TAIL,
    # Not allowed by the ruleset; host unreachable.
    Outcome.REFUSED: b"\x05\x02" + _SOCKS_TAIL,
    Outcome.UNREACHABLE: b"\x05\x04" + _SOCKS_TAIL,
}
_HTTP_ANSWERS = {Outcome.REFUSED: (403, "Forbidden"), Outcome.UNREACHABLE: (502, "Bad Gateway")}

_REQUEST_LINE = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+) ([^ \r\n]+) HTTP/1\.([01])")
_ABSOLUTE = re.compile(rb"http://([^/?#]*)([^#]*)", re.IGNORECASE)
_HEADER = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):([^\r\n\0]*)")
# They are between the program and its proxy; RFC 9110 section 7.6.1.
_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"host",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"upgrade",
    )
)


async def read_asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    """Read one request; of SOCKS5 that is two, and the first is answered here.

    Raises:
        BadRequestError: it is none, or one that is not served.
        asyncio.IncompleteReadError, OSError: the program has gone.
    """
    first = await reader.readexactly(1)
    if first == b"\x05":
        return await _read_socks(reader, writer)
    try:
        head = first + await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _bad("a request whose head does not end", 431, "Header Fields Too Large") from None
    return _read_http(head)


def _read_http(head: bytes) -> Asked:
    line, *fields = head[:-4].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise _bad("what is no request of HTTP/1.1")
    method, wanted = match.group(1), match.group(2)
    if method == b"CONNECT":
        return Asked(target=_target(wanted, None))
    found = _ABSOLUTE.fullmatch(wanted)
    if found is None:
        raise _bad("a request without the 'http://' URL that a proxy needs")
    path = found.group(2)
    if not path.startswith(b"/"):
        path = b"/" + path
    target = _target(found.group(1), 80)
    # One request for each connection: the next one may be for somebody else.
    lines = [
        b"%s %s HTTP/1.%s" % (method, path, match.group(3)),
        b"Host: " + found.group(1),
        b"Connection: close",
        *_passed_on(fields),
    ]
    return Asked(target=target, first=b"\r\n".join(lines) + b"\r\n\r\n", is_plain=True)


def _passed_on(fields: list[bytes]) -> list[bytes]:
    pairs = []
    dropped = set(_HOP_BY_HOP)
    for field in fields:
        match = _HEADER.fullmatch(field)
        if match is None:
            raise _bad("a header that is none")
        name = match.group(1).lower()
        pairs.append((name, field))
        if name == b"connection":
            dropped |= {one.strip().lower() for one in match.group(2).split(b",")}
    # What frames the body stays, whatever a program calls hop by hop.
    dropped -= {b"content-length", b"transfer-encoding"}
    return [field for name, field in pairs if name not in dropped]


def _target(authority: bytes, default_port: int | None) -> Target:
    try:
        return parse_target(authority.decode("ascii"), default_port=default_port)
    except (BadTargetError, UnicodeDecodeError) as wrong:
        raise _bad(f"{authority[:200]!r}, which {_reason(wrong)}") from None


async def _read_socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Asked:
    (methods,) = await reader.readexactly(1)
    if 0 not in await reader.readexactly(methods):
        raise BadRequestError("SOCKS5 with a password", b"\x05\xff")
    writer.write(b"\x05\x00")
    version, command, _, kind = await reader.readexactly(4)
    # Command not supported; address type not supported; not allowed.
    if version != 5 or command != 1:
        raise BadRequestError("something of SOCKS5 besides CONNECT", b"\x05\x07" + _SOCKS_TAIL)
    if kind == 3:
        (length,) = await reader.readexactly(1)
        raw = await reader.readexactly(length)
        host = raw.decode("utf-8", "replace")
    elif kind in (1, 4):
        packed = await reader.readexactly(4 if kind == 1 else 16)
        host = _written(packed)
    else:
        raise BadRequestError("an address that SOCKS5 does not know", b"\x05\x08" + _SOCKS_TAIL)
    port = int.from_bytes(await reader.readexactly(2), "big")
    if ":" in host:
        host = f"[{host}]"
    try:
        return Asked(target=parse_target(f"{host}:{port}"), is_socks=True)
    except BadTargetError as wrong:
        text = f"{host[:200]!r}, which {wrong}"
        raise BadRequestError(text, b"\x05\x02" + _SOCKS_TAIL) from None


def _written(packed: bytes) -> str:
    import ipaddress

    return str(ipaddress.ip_address(packed))


def _bad(text: str, code: int = 400, reason: str = "Bad Request") -> BadRequestError:
    return BadRequestError(text, _http(code, reason, f"This proxy was asked for {text}."))


def _reason(wrong: ValueError) -> str:
    return str(wrong) if isinstance(wrong, BadTargetError) else "is not ASCII"


def _http(code: int, reason: str, why: str) -> bytes:
    body = f"{why}\n".encode("utf-8", "replace")
    head = (
        f"HTTP/1.1 {code} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
