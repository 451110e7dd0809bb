"""The client's end of Streamable HTTP.

Spec: basic/transports#streamable-http
"""

from __future__ import annotations

import asyncio
import logging
import re

import msgspec

from dragoman.errors import HttpError, LinkError, SessionLost
from dragoman.transport.event_stream import EventStreamDecoder
from dragoman.transport.http.access import Access
from dragoman.transport.http.client import HttpClient, HttpResponse
from dragoman.transport.http.limits import (
    LINGER_S,
    MAX_FAILURES,
    MAX_OVERHEARD,
    MAX_REQUESTS,
    MAX_RETRY_MS,
    MAX_SESSION_CHARS,
    MIN_DELAY_S,
    REFUSED_DELAY_S,
    SETTLED_S,
)
from dragoman.transport.http.link import HttpLink, Wait, apart, backoff_s
from dragoman.transport.http.refusals import (
    is_passing,
    is_unreachable,
    media_type,
    printable,
    wished_s,
)
from dragoman.transport.stdio.limits import MAX_FRAME_BYTES

__all__ = ["StreamableLink"]

log = logging.getLogger("dragoman.transport")

_JSON = "application/json"
_STREAM = "text/event-stream"

_SESSION = re.compile(rf"[\x21-\x7e]{{1,{MAX_SESSION_CHARS}}}")


class _Place:
    """How far a stream was read: its last event id, the server's `retry`, whether that was news."""

    __slots__ = ("has_news", "last_event_id", "retry_ms")

    def __init__(self) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.has_news = False

    def note(self, decoder: EventStreamDecoder) -> None:
        """Take down how far the connection that the decoder reads has come."""
        last = decoder.last_event_id
        # What is no visible ASCII cannot be sent back in a header.
        if last and last != self.last_event_id and last.isascii() and last.isprintable():
            self.last_event_id = last
            self.has_news = True
        if decoder.retry_ms is not None:
            self.retry_ms = decoder.retry_ms

    def delay_s(self, failures: int) -> float:
        """How long to wait before we come back, after so many failures in a row."""
        own_s = backoff_s(failures)
        if self.retry_ms is None:
            return own_s
        asked_s = max(min(self.retry_ms, MAX_RETRY_MS) / 1000, MIN_DELAY_S)
        # A failure may be that of many clients at once; whoever hung up on purpose meant us alone.
        return max(apart(asked_s), own_s) if failures else asked_s


class StreamableLink(HttpLink):
    """Each frame is a POST; answers come as JSON, or on a stream that survives its connection.

    Once the connection is open, a GET listens for what belongs to no request, where the server
    offers that. A stream that ends before its answer is taken up again from its last event.
    """

    def __init__(
        self,
        http: HttpClient,
        access: Access,
        *,
        owns_http: bool = True,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        max_requests: int = MAX_REQUESTS,
        wait: Wait = asyncio.sleep,
    ) -> None:
        super().__init__(
            http,
            access,
            owns_http=owns_http,
            max_frame_bytes=max_frame_bytes,
            max_requests=max_requests,
            wait=wait,
        )
        self._session: str | None = None
        # The hello has been answered.
        self._is_open = False
        self._listening: asyncio.Task[None] | None = None
        # Streams that answer what wants no answer, the oldest first.
        self._overheard: list[asyncio.Task[None]] = []
        # Whether the server has a way to reach us now besides the streams of our requests.
        self._is_heard = False

    # --- requests -----------------------------------------------------------------------------------

    async def _request(self, ident: int | str, frame: bytes) -> None:
        response = await self._post(frame)
        status = response.status
        if 200 <= status < 300:
            headers = response.headers
            if not self._is_open:
                await self._take_session(response)
            kind = headers.get("content-type", "")
            if kind == _JSON or media_type(headers) == _JSON:
                await self._take_answer(ident, response)
                return
            if media_type(headers) == _STREAM:
                await self._see_through(ident, response)
                return
            await self._without_answer(ident, response)
            return
        error, body = await self._refused(response)
        if not isinstance(error, SessionLost) and _answers(body, ident):
            await self._deliver((body,))
        raise error

    async def _take_answer(self, ident: int | str, response: HttpResponse) -> None:
        try:
            body = await response.read(self._limit)
        except BaseException:
            await response.aclose()
            raise
        if self._resumed is not None:
            await self._deliver((body,))
        elif not self._has_ended:
            self._receiver.frames_received((body,), self._seen)  # type: ignore[union-attr]
        if self._is_awaited(ident):
            raise HttpError(
                f"{self._access.shown} answered with something that is no answer",
                sent=True,
                url=self._access.shown,
                status=response.status,
                body=printable(body[:1024]),
            )

    async def _without_answer(self, ident: int | str, response: HttpResponse) -> None:
        """A success that is neither JSON nor a stream."""
        if response.status != 200 and self._is_heard:
            # Taken, and nothing said: the answer can only come where we listen.
            await self._acknowledged(response)
            return
        kind = media_type(response.headers) or "nothing"
        error, _ = await self._refused(response)
        assert isinstance(error, HttpError)
        raise HttpError(
            f"{self._access.shown} answered {response.status} with {kind}, which holds no message",
            sent=True,
            url=error.url,
            status=response.status,
            body=error.body,
            hint="Is this the URL of an MCP endpoint?",
        )

    async def _see_through(self, ident: int | str, response: HttpResponse) -> None:
        """Read the stream of a request until its answer is here, over as many connections."""
        place = _Place()
        failures = 0
        asked_s = 0.0
        error: LinkError | None = await self._follow(response, place, ident)
        while self._is_awaited(ident):
            if not place.last_event_id or failures > MAX_FAILURES:
                raise self._broken(error)
            await self._wait(max(asked_s, place.delay_s(failures)))
            if not self._is_awaited(ident):
                return
            try:
                again = await self._get(place)
            except LinkError as failure:
                if isinstance(failure, SessionLost):
                    self._lose_session(failure)
                if not is_passing(failure) and not _is_taken(failure):
                    raise self._broken(failure) from failure
                error = failure
                failures += 1
                asked_s = apart(wished_s(failure))
                continue
            asked_s = 0.0
            error = await self._follow(again, place, ident)
            # An end in order is what a server does that wants to be asked again.
            failures = 0 if error is None or place.has_news else failures + 1

    def _broken(self, error: LinkError | None) -> LinkError:
        """A request whose stream is over for good; it ran, or began to."""
        why = "ended" if error is None else f"broke ({error})"
        return LinkError(f"the stream of {self._access.shown} {why} before the answer", sent=True)

    def _is_awaited(self, ident: int | str) -> bool:
        receiver = self._receiver
        return receiver is not None and not self._has_ended and receiver.is_awaited(ident)

    async def _acknowledged(self, response: HttpResponse) -> None:
        if media_type(response.headers) == _STREAM:
            # Nothing has to come of it; whatever does is taken, without holding up what waits.
            overheard = [one for one in self._overheard if not one.done()]
            overheard.append(self._spawn(self._overhear(response), self._others))
            if len(overheard) > MAX_OVERHEARD:
                overheard.pop(0).cancel()
            self._overheard = overheard
            return
        await super()._acknowledged(response)

    async def _overhear(self, response: HttpResponse) -> None:
        error = await self._follow(response, _Place(), None)
        if error is not None:
            log.debug("a stream that nothing hangs on broke: %s", error)

    # --- streams ------------------------------------------------------------------------------------

    async def _follow(
        self, response: HttpResponse, place: _Place, ident: int | str | None
    ) -> LinkError | None:
        """Deliver the messages of one connection until it ends; returns how it broke, if it did."""
        decoder = EventStreamDecoder(max_event_bytes=self._limit)
        place.has_news = False
        try:
            async with asyncio.timeout(None) as patience:
                async for chunk in response.chunks():
                    events = decoder.feed(chunk)
                    place.note(decoder)
                    if decoder.refused:
                        await self._deliver_with_refusals(events, decoder)
                    else:
                        frames = [one.data for one in events if one.data and one.event == "message"]
                        if not frames:
                            continue
                        await self._deliver(frames)
                    place.has_news = True
                    if (
                        ident is not None
                        and patience.when() is None
                        and not self._is_awaited(ident)
                    ):
                        patience.reschedule(self._loop.time() + LINGER_S)
        except LinkError as error:
            return error
        except TimeoutError:
            log.debug("a stream went on after its answer and was closed")
        finally:
            await response.aclose()
        return None

    async def _get(self, place: _Place) -> HttpResponse:
        """Open a stream, or take it up again from a place. Raises LinkError when there is none."""
        used = self._round
        response = await self._http.send("GET", self._url, self._get_headers(place))
        if response.status == 401 and await self._renewed(response, used):
            response = await self._http.send("GET", self._url, self._get_headers(place))
        if self._is_troubled and response.status < 400:
            self._reached()
        if response.status == 200 and media_type(response.headers) == _STREAM:
            return response
        raise (await self._refused(response))[0]

    def _get_headers(self, place: _Place) -> dict[str, str]:
        headers = {**self._shared_headers, "Accept": _STREAM}
        if place.last_event_id:
            headers["Last-Event-ID"] = place.last_event_id
        return headers

    # --- what belongs to no request -------------------------------------------------------------------

    def _notified(self) -> None:
        if self._listening is None and self._is_open and not self._has_ended:
            self._listening = self._spawn(self._listen(), self._others)

    async def _listen(self) -> None:
        try:
            await self._keep_listening()
        except SessionLost as error:
            self._lose_session(error)
        except LinkError as error:
            log.debug("%s offers no stream to listen to: %s", self._access.shown, error)
        except Exception:
            log.exception("listening to %s failed", self._access.shown)

    async def _keep_listening(self) -> None:
        """Hold a stream open, one connection after the other. Raises LinkError if there is none."""
        place = _Place()
        failures = 0
        refusals = 0
        was_heard = False
        while True:
            try:
                response = await self._get(place)
                was_heard = self._is_heard = True
                began = self._loop.time()
                broke = await self._follow(response, place, None)
                was_good = (
                    place.has_news
                    or self._loop.time() - began > SETTLED_S
                    # Whoever says when to come back hangs up on purpose.
                    or (broke is None and place.retry_ms is not None)
                )
                failures = 0 if was_good else failures + 1
                refusals = 0
                if broke is not None:
                    log.debug("the stream we listen to broke: %s", broke)
            except SessionLost as lost:
                # A server that never had such a stream may say so with the same number.
                if was_heard:
                    raise
                raise LinkError("there is none") from lost
            except LinkError as error:
                if not is_passing(error) and not (was_heard and _is_taken(error)):
                    if not was_heard or _is_never(error):
                        raise
                    # It was there before: a proxy's page, or a firewall, may pass as well.
                    refusals += 1
                is_gone = is_unreachable(error, was_heard=was_heard)
                if not was_heard and not is_gone and failures >= MAX_FAILURES:
                    raise
                failures += 1
                if is_gone:
                    self._trouble(error)
                asked_s = apart(wished_s(error))
                if refusals > MAX_FAILURES:
                    asked_s = max(asked_s, REFUSED_DELAY_S)
            else:
                asked_s = 0.0
            finally:
                self._is_heard = False
            await self._wait(max(asked_s, place.delay_s(failures)))

    # --- the session ----------------------------------------------------------------------------------

    async def _take_session(self, response: HttpResponse) -> None:
        """Remember the session that the answer to initialize brings, and where it came from."""
        self._is_open = True
        if response.url != self._url:
            # A redirect led us here, and here the session is.
            self._move_to(response.url)
        session = response.headers.get("mcp-session-id")
        if session is None:
            return
        if not _SESSION.fullmatch(session):
            await response.aclose()
            raise LinkError(
                f"{self._access.shown} gave a session id that is too long or no visible ASCII",
                sent=True,
            )
        self._session = session
        self._extra["Mcp-Session-Id"] = session
        self._set_headers()

    def _means_session_lost(self, status: int, body: bytes) -> bool:
        if self._session is None:
            return False
        # Many servers say 400, and in words what it is.
        return status == 404 or (status == 400 and b"session" in body.lower())

    async def _say_goodbye(self) -> None:
        if self._session is None or self._lost is not None:
            return
        response = await self._http.send("DELETE", self._url, self._shared_headers)
        # 405 is a server whose sessions end by themselves.
        log.debug("%s answered our goodbye with %d", self._access.shown, response.status)
        await response.aclose()


class _Answer(msgspec.Struct):
    """As much of a refusal's body as says whose it is."""

    id: int | str
    error: msgspec.Raw


_read_answer = msgspec.json.Decoder(_Answer).decode


def _answers(body: bytes, ident: int | str) -> bool:
    """Whether the body of a refusal is the JSON-RPC error of this very request."""
    try:
        return _read_answer(body).id == ident
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _is_taken(error: LinkError) -> bool:
    """Whether the server still takes our former connection for open."""
    return isinstance(error, HttpError) and error.status == 409


def _is_never(error: LinkError) -> bool:
    """Whether the server says that it has no such streams, and nobody in between."""
    return isinstance(error, HttpError) and error.status in (405, 501)
