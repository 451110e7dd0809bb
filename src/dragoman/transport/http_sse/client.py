"""The client's end of HTTP+SSE: one stream brings everything, POSTs take it.

Spec: basic/transports#http-with-sse
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from dragoman.errors import HttpError, LinkClosed, LinkError, PeerError
from dragoman.transport.base import Receiver
from dragoman.transport.event_stream import EventStreamDecoder, ServerEvent
from dragoman.transport.http.access import Access
from dragoman.transport.http.client import HttpClient, HttpResponse
from dragoman.transport.http.limits import ENDPOINT_WAIT_S, MAX_REQUESTS
from dragoman.transport.http.link import HttpLink, Wait
from dragoman.transport.http.refusals import media_type, refusal
from dragoman.transport.stdio.limits import MAX_FRAME_BYTES

__all__ = ["SseLink"]

log = logging.getLogger("dragoman.transport")


class SseLink(HttpLink):
    """A stream that lives as long as the connection, and the URL it named for our messages.

    `open` before `start`. The end of the stream is the end of the link.
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
        self._decoder = EventStreamDecoder(max_event_bytes=max_frame_bytes)
        self._response: HttpResponse | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._early: Sequence[ServerEvent] = ()

    async def open(self) -> None:
        """Open the stream and wait until it has named the endpoint; a failure closes the link.

        Raises:
            LinkError: there is no such stream; `sent` is False.
            PeerError: it names no endpoint that we may use.
        """
        try:
            async with asyncio.timeout(ENDPOINT_WAIT_S):
                await self._open()
        except TimeoutError:
            await self.aclose()
            raise LinkError(
                f"{self._access.shown} named no endpoint within {ENDPOINT_WAIT_S:g} s", sent=False
            ) from None
        except LinkError as error:
            await self.aclose()
            raise error.again(sent=False) from error
        except BaseException:
            await self.aclose()
            raise

    async def _open(self) -> None:
        used = self._round
        response = self._response = await self._get()
        if response.status == 401 and await self._renewed(response, used):
            response = self._response = await self._get()
        if response.status != 200 or media_type(response.headers) != "text/event-stream":
            error, _ = await refusal(response)
            if response.status == 200:
                raise HttpError(
                    f"{error.url} answered with no event stream",
                    sent=False,
                    url=error.url,
                    status=200,
                    body=error.body,
                    hint="Is this the URL of an MCP endpoint?",
                )
            raise error
        self._chunks = response.chunks()
        async for chunk in self._chunks:
            events = self._decoder.feed(chunk)
            for place, event in enumerate(events):
                if event.event == "endpoint":
                    self._take_endpoint(event.data, response.url)
                    self._early = events[place + 1 :]
                    return
                if event.event == "message" and event.data:
                    raise PeerError(f"{self._access.shown} named no endpoint before its messages")
        raise LinkClosed(f"the stream of {self._access.shown} ended before it named an endpoint")

    async def _get(self) -> HttpResponse:
        headers = {**self._shared_headers, "Accept": "text/event-stream"}
        return await self._http.send("GET", self._access.url, headers)

    def _take_endpoint(self, reference: bytes, base: str) -> None:
        self._move_to(self._access.resolve(reference.decode("utf-8", "replace").strip(), base))

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver."""
        super().start(receiver)
        self._begin()

    def _begin(self) -> None:
        self._spawn(self._listen(), self._others)

    async def _listen(self) -> None:
        """Deliver what the stream brings until it ends, and the link with it."""
        shown = self._access.shown
        error: LinkError
        try:
            await self._take(self._early)
            self._early = ()
            assert self._chunks is not None
            async for chunk in self._chunks:
                await self._take(self._decoder.feed(chunk))
            error = LinkClosed(f"{shown} ended the stream")
        except LinkError as broken:
            error = LinkClosed(f"the stream of {shown} broke: {broken}")
        except Exception as failure:
            log.exception("listening to %s failed", shown)
            error = LinkClosed(f"listening to {shown} failed: {type(failure).__name__}")
        finally:
            if self._response is not None:
                await self._response.aclose()
        self._end(error)

    async def _take(self, events: Sequence[ServerEvent]) -> None:
        if self._decoder.refused:
            await self._deliver_with_refusals(events, self._decoder)
            return
        frames = [one.data for one in events if one.data and one.event == "message"]
        if frames:
            await self._deliver(frames)

    async def _request(self, ident: int | str, frame: bytes) -> None:
        # The answer comes on the stream.
        await self._post_message(frame)

    def _means_session_lost(self, status: int, body: bytes) -> bool:
        # The endpoint's URL is the session. Some servers say 400, and in words what it is.
        return status == 404 or (status == 400 and b"session" in body.lower())

    async def _close(self, *, may_say_goodbye: bool) -> None:
        await super()._close(may_say_goodbye=may_say_goodbye)
        # A link that was opened and never started has nobody else to let go of its stream.
        if self._response is not None:
            await self._response.aclose()
