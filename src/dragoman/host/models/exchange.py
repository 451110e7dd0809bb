"""One exchange with a provider through its own client: bounded, retried, its faults in our words.

Both libraries come from one generator, so their streams and errors have the same shape; the module
is handed in and never imported here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from dragoman.host.models.base import ModelError, Trouble
from dragoman.host.models.bounded import Meter, meter_of
from dragoman.model.unseen import one_line
from dragoman.transport.http.urls import without_secrets

__all__ = ["Patience", "events_of", "told_in_body"]

# 300 characters of what a provider says: enough for its reason, and no page of HTML.
MAX_REASON_CHARS = 300

# Three generators inside of each other in either library.
DROPPED = 3

_RETRIED = frozenset({Trouble.RATE_LIMIT, Trouble.OVERLOADED, Trouble.CONNECTION})


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to wait for a provider, and how often to try.

    `deadline_s` is for the whole answer, `idle_s` for the time without a single byte: a provider
    whose model thinks before it speaks sends pings. A wait that the provider asks for is honoured up
    to `max_wait_s`; a longer one is for the caller to decide.
    """

    # Ten minutes: longer answers end at their limit of tokens.
    deadline_s: float = 600.0
    # Two minutes: providers send pings far more often.
    idle_s: float = 120.0
    # Three: a busy provider has recovered by then, or will not soon.
    attempts: int = 3
    first_wait_s: float = 0.5
    max_wait_s: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def wait_s(self, attempt: int, asked_s: float | None) -> float | None:
        """How long to wait before the next attempt; None: do not try again."""
        if attempt >= self.attempts:
            return None
        if asked_s is not None:
            return asked_s if asked_s <= self.max_wait_s else None
        # Half of it by chance: those who failed together shall not come back together.
        whole = min(self.first_wait_s * 2.0 ** (attempt - 1), self.max_wait_s)
        return whole / 2 + random.random() * whole / 2  # noqa: S311 - no secret hangs on it


async def events_of(
    library: Any,
    provider: str,
    start: Callable[[], Awaitable[Any]],
    patience: Patience,
    on_end: Callable[[bool], None] = lambda has_done: None,
) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a stream as plain objects; `on_end` hears at the end whether "[DONE]" came.

    What fails before the first event is tried again, where that can help; later there is no way
    back. Closing this generator closes the stream.

    Raises:
        ModelError: no answer, or only a part.
    """
    ends_at = asyncio.get_running_loop().time() + patience.deadline_s
    attempt = 0
    while True:
        attempt += 1
        has_begun = False
        try:
            tried = _attempt(library, provider, start, patience, ends_at, on_end)
            async with aclosing(tried) as events:
                async for event in events:
                    has_begun = True
                    yield event
            return
        except ModelError as trouble:
            if has_begun or trouble.kind not in _RETRIED:
                raise
            wait_s = patience.wait_s(attempt, trouble.retry_after_s)
            if wait_s is None or asyncio.get_running_loop().time() + wait_s >= ends_at:
                raise
        await patience.sleep(wait_s)


async def _attempt(
    library: Any,
    provider: str,
    start: Callable[[], Awaitable[Any]],
    patience: Patience,
    ends_at: float,
    on_end: Callable[[bool], None],
) -> AsyncGenerator[dict[str, Any], None]:
    stream: Any = None
    meter: Meter | None = None
    clock = asyncio.get_running_loop().time
    # The root of the library's errors is the one that is named after the provider.
    root: type[Exception] = library.APIError.__mro__[1]
    try:
        while True:
            # Around each step and not around all of them: between two the caller has the floor.
            async with asyncio.timeout_at(min(clock() + patience.idle_s, ends_at)) as limit:
                if meter is not None:
                    meter.on_bytes = partial(_wait_on, limit, patience.idle_s, ends_at)
                try:
                    if stream is None:
                        stream = await start()
                        meter = meter_of(stream)
                        continue
                    event = await anext(stream)
                except StopAsyncIteration:
                    on_end(meter is not None and meter.has_done)
                    return
            yield _plain(event, provider)
    except ModelError:
        raise
    except TimeoutError:
        late = f"nothing came within {patience.idle_s:g} s"
        if clock() >= ends_at:
            late = f"there was no end within {patience.deadline_s:g} s"
        raise ModelError(Trouble.TIMEOUT, late, provider=provider) from None
    except library.APIError as error:
        raise _told(library, provider, error) from error
    except root as error:
        # Raised before anything is sent: there is no key.
        raise ModelError(Trouble.AUTH, _short(str(error)), provider=provider) from error
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as error:
        # Where the library meets what its API does not have: no JSON, a list instead of an object,
        # a thousand lists inside of each other.
        raise ModelError(
            Trouble.GARBAGE,
            f"an event of the stream cannot be read ({_short(str(error))})",
            provider=provider,
        ) from error
    finally:
        if stream is not None:
            await stream.close()
            stream = None
            # The libraries drop generators that are not at their end, and the loop closes those in
            # tasks of its own. They end here, and not after the loop that they belong to.
            for _ in range(DROPPED):
                await asyncio.sleep(0)


def _wait_on(limit: asyncio.Timeout, idle_s: float, ends_at: float) -> None:
    """Something came, be it a ping: the wait begins again."""
    if not limit.expired():
        limit.reschedule(min(asyncio.get_running_loop().time() + idle_s, ends_at))


def _plain(event: Any, provider: str) -> dict[str, Any]:
    """An event as the object that came; the typed one has lost nothing of it."""
    plain = event.to_dict(warnings=False) if hasattr(event, "to_dict") else event
    if not isinstance(plain, dict):
        raise ModelError(Trouble.GARBAGE, "an event is no JSON object", provider=provider)
    return plain


_BY_STATUS = {
    401: Trouble.AUTH,
    403: Trouble.AUTH,
    404: Trouble.NOT_FOUND,
    408: Trouble.OVERLOADED,
    413: Trouble.TOO_LONG,
    429: Trouble.RATE_LIMIT,
}
# What providers call a request that does not fit, in the body's `code`, `type` or text.
_TOO_LONG = (
    "context_length", "context length", "context limit", "context size", "prompt is too long",
    "maximum context", "exceeds the maximum number of tokens",
)  # fmt: skip
_BY_TYPE = {
    "overloaded_error": Trouble.OVERLOADED,
    "rate_limit_error": Trouble.RATE_LIMIT,
    "rate_limit_exceeded": Trouble.RATE_LIMIT,
    "authentication_error": Trouble.AUTH,
    "api_error": Trouble.OVERLOADED,
    "server_error": Trouble.OVERLOADED,
    "timeout_error": Trouble.OVERLOADED,
    "not_found_error": Trouble.NOT_FOUND,
    "permission_error": Trouble.AUTH,
    "billing_error": Trouble.AUTH,
    "request_too_large": Trouble.TOO_LONG,
}


def _told(library: Any, provider: str, error: Any) -> ModelError:
    """A library's error as ours."""
    if isinstance(error, library.APITimeoutError):
        return ModelError(Trouble.TIMEOUT, "no answer in time", provider=provider)
    if isinstance(error, library.APIConnectionError):
        reason = str(error.__cause__ or error)
        return ModelError(
            Trouble.CONNECTION, f"the connection failed ({_short(reason)})", provider=provider
        )
    status = getattr(error, "status_code", None)
    if status is not None and 300 <= status < 400:
        to = without_secrets(error.response.headers.get("location", ""))
        return ModelError(
            Trouble.NOT_FOUND,
            f"status {status}, it sends on to {_short(to) or 'nowhere'}; what was said is not sent "
            "there unasked: if it is right, make it the base_url",
            provider=provider,
            status=status,
        )
    # An error inside of a stream comes with the status of the stream, which says nothing.
    status = status if status is not None and status >= 400 else None
    body = getattr(error, "body", None)
    if isinstance(body, list) and body:
        # How Google's compatible API says it.
        body = body[0]
    inner = body.get("error", body) if isinstance(body, dict) else body
    return told_in_body(
        inner, provider, status, str(error.message), retry_after_s=_retry_after_s(error)
    )


def told_in_body(
    inner: Any,
    provider: str,
    status: int | None = None,
    otherwise: str = "",
    *,
    retry_after_s: float | None = None,
) -> ModelError:
    """What a provider says of a failure, as our error. `status` is the HTTP status, from 400 on."""
    words = inner if isinstance(inner, dict) else {}
    said = inner if isinstance(inner, str) and inner.strip() else words.get("message")
    reason = str(said or words.get("detail") or otherwise or "an error without a reason")
    code = words.get("code")
    # Some put the status of whoever is behind them there.
    number = status
    if number is None and isinstance(code, int) and not isinstance(code, bool):
        number = code
    kind = None if number is None else _BY_STATUS.get(number)
    if kind is None and number is not None and 500 <= number < 600:
        kind = Trouble.OVERLOADED
    if kind is None:
        kind = _BY_TYPE.get(str(words.get("type") or code), Trouble.BAD_REQUEST)
    marks = f"{code} {words.get('type')} {reason}".lower()
    if kind is Trouble.BAD_REQUEST and any(mark in marks for mark in _TOO_LONG):
        kind = Trouble.TOO_LONG
    where = f"status {status}, " if status is not None else ""
    return ModelError(
        kind,
        f"{where}{_short(reason)}",
        provider=provider,
        status=status,
        retry_after_s=retry_after_s,
    )


def _retry_after_s(error: Any) -> float | None:
    """`Retry-After` in seconds; a date there is no promise worth parsing."""
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or {}
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _short(text: str) -> str:
    # A server's words: what would move a terminal's cursor is shown instead.
    return one_line(text[: 4 * MAX_REASON_CHARS], MAX_REASON_CHARS)
