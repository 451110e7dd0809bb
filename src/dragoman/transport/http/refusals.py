"""An answer that says no, as an error that says what a caller may do about it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from dragoman.errors import HttpError, LinkError
from dragoman.transport.http.client import HttpResponse
from dragoman.transport.http.urls import without_secrets

__all__ = [
    "is_passing",
    "is_unreachable",
    "media_type",
    "printable",
    "refusal",
    "sent_by_status",
    "wished_s",
]

# 64 KiB of a body are read, since it may hold a JSON-RPC error, and 1 KiB of them kept for people:
# a sentence or the beginning of a page, enough to see who speaks.
BODY_BYTES = 64 * 1024
SAMPLE_BYTES = 1024

# A day: whoever asks for longer has made a mistake, or wants to be left alone.
MOST_RETRY_AFTER_S = 86_400.0

# 5 s for that explanation: the status is known, and whoever waits for it should hear of it.
BODY_WAIT_S = 5.0

# The server, or something before it, answered instead of doing the work. With 408 and 499 nobody
# can tell: they come when the request was not whole, and when its work took too long. 521, 523, 525
# and 530 are Cloudflare's words for a server that no connection came about to.
_NOT_TAKEN = frozenset({307, 308, 503, 511, 521, 523, 525, 530, *range(400, 500)} - {408, 499})

# Envoy says 503 of a connection that broke, and names the reason: unless that is one of these two,
# the server may have had the request.
_BROKE_WITHIN = b"disconnect/reset before headers"
_BROKE_BEFORE = (b"connection failure", b"overflow")

# What passes by itself: the same request may be taken in a while. 520 to 525 and 530 are Cloudflare's.
_PASSING = frozenset({408, 425, 429, 502, 503, 504, *range(520, 526), 530})

# What a proxy says when nobody is behind it.
_NOBODY = frozenset({502, 503, 521, 522, 523, 530})

_TITLE = re.compile(r"<title[^<>]*>([^<]*)</title>", re.IGNORECASE)

_HINTS = {
    401: "The server wants credentials; pass token= or headers=",
    403: "The server refuses these credentials, this origin or this host name",
    404: "Is the path right?",
    407: "The proxy wants credentials",
}


def sent_by_status(status: int) -> bool | None:
    """What a status says about whether the request was carried out: False or None."""
    return False if status in _NOT_TAKEN else None


def _broke_within(status: int, body: bytes) -> bool:
    """Whether a proxy passed the request on, as far as one can tell, and then lost the server."""
    return (
        status == 503
        and _BROKE_WITHIN in body
        and not any(reason in body for reason in _BROKE_BEFORE)
    )


async def refusal(response: HttpResponse, what: str = "the server") -> tuple[HttpError, bytes]:
    """The error for an answer that is no success, and what was read of its body.

    The response is closed.
    """
    body = await _beginning(response)
    status = response.status
    shown = without_secrets(response.url)
    text = printable(body[:SAMPLE_BYTES])
    wait_s = _retry_after_s(response)
    message = f"{what} at {shown} answered with status {status}"
    if wait_s is not None:
        message += f" and asks to wait {wait_s:g} s"
    words = " ".join(_words(media_type(response.headers), body, text).split())
    if words:
        message += f": {words[:200]}"
    error = HttpError(
        message,
        sent=None if _broke_within(status, body) else sent_by_status(status),
        url=shown,
        status=status,
        retry_after_s=wait_s,
        body=text,
        hint=_HINTS.get(status),
    )
    return error, body


def _words(kind: str, body: bytes, text: str) -> str:
    """What a person should read of a body: its message where it has one, a page's title."""
    if kind == "text/html":
        title = _TITLE.search(text)
        return title[1].strip() or text if title else text
    if kind.endswith("json"):
        try:
            told = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return text
        # {"error": {"message": "..."}}, or what OAuth and RFC 9457 say.
        if isinstance(told, dict) and isinstance(told.get("error"), dict):
            told = told["error"]
        for name in ("message", "error_description", "detail", "error", "title"):
            words = told.get(name) if isinstance(told, dict) else None
            if isinstance(words, str) and words.strip():
                return _cleaned(words)
    return text


def is_passing(error: LinkError) -> bool:
    """Whether the same may succeed in a while: nobody was reached, or the server said so."""
    if not isinstance(error, HttpError):
        return False
    return error.status in _PASSING if error.status is not None else error.sent is not True


def is_unreachable(error: LinkError, *, was_heard: bool) -> bool:
    """Whether the failure says that nobody serves there now.

    The words of a proxy count where the same request `was_heard` before: else it may be the proxy
    that does not like it.
    """
    if not isinstance(error, HttpError):
        return False
    return error.status is None or (was_heard and error.status in _NOBODY)


def wished_s(error: LinkError) -> float:
    """How long we were asked to wait before we try again, in seconds; 0 when we were not."""
    return (error.retry_after_s or 0.0) if isinstance(error, HttpError) else 0.0


def media_type(headers: Mapping[str, str]) -> str:
    """The type of a body in lower case, without its parameters; empty when none is named."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def printable(body: bytes) -> str:
    """Bytes as text without anything that could steer a terminal."""
    return _cleaned(body.decode("utf-8", "replace"))


def _cleaned(text: str) -> str:
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in text).strip()


def _retry_after_s(response: HttpResponse) -> float | None:
    """How long the answer asks to wait, 0 to a day; None when it does not say."""
    value = response.headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:20]), MOST_RETRY_AFTER_S)
    try:
        until = _seconds(value)
    except (ValueError, OverflowError):
        return None
    try:
        # The other side's own clock, where it tells: ours may be wrong.
        now = _seconds(response.headers.get("date", ""))
    except (ValueError, OverflowError):
        now = time.time()
    return min(max(until - now, 0.0), MOST_RETRY_AFTER_S)


def _seconds(date: str) -> float:
    """A date of HTTP, in seconds since 1970. It is UTC, also in the form that does not say so.

    Raises:
        ValueError, OverflowError: it is none.
    """
    found = parsedate_to_datetime(date)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


async def _beginning(response: HttpResponse) -> bytes:
    held = bytearray()
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            async for chunk in response.chunks():
                held += chunk[: BODY_BYTES - len(held)]
                if len(held) >= BODY_BYTES:
                    break
    except (HttpError, TimeoutError):
        pass  # what the status says stands, even when its explanation is cut off
    finally:
        await response.aclose()
    return bytes(held)
