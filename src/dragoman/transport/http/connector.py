"""Reaching a server at a URL: which of the two transports it speaks, found out once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from dragoman.errors import DragomanError, HttpError, LinkError, Misconfigured
from dragoman.jsonrpc.frame import Delivery, Noise, Seen
from dragoman.revisions.facts import Facts
from dragoman.transport.base import About, Link, Receiver
from dragoman.transport.http.access import Access, carries_secret
from dragoman.transport.http.choices import HttpLike, Mode, Token
from dragoman.transport.http.client import HttpOptions
from dragoman.transport.http.limits import MAX_REQUESTS, RESERVED
from dragoman.transport.http.link import Wait
from dragoman.transport.http.opening import open_http
from dragoman.transport.http_sse.client import SseLink
from dragoman.transport.stdio.limits import MAX_FRAME_BYTES
from dragoman.transport.stdio.link import finish_despite_cancel
from dragoman.transport.streamable.client import StreamableLink

__all__ = ["HttpConnector"]

log = logging.getLogger("dragoman.transport")

L = TypeVar("L", StreamableLink, SseLink)

# 4xx, and yet no sign of another transport: who we are, or how often we come, is what is wrong.
_NO_SIGN = frozenset({401, 403, 407, 408, 429})


class HttpConnector:
    """Opens links to the server at a URL: http://, https://, or http+unix://SOCKET/path.

    SOCKET is the percent-encoded path of a Unix socket. What the server speaks is remembered
    from one link to the next.

    Raises:
        Misconfigured: the URL, a header or a file of certificates cannot be used, or a secret would
            travel in the clear.
    """

    def __init__(
        self,
        url: str,
        *,
        http: HttpLike | None = None,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
        mode: Mode = "auto",
        max_frame_bytes: int = MAX_FRAME_BYTES,
        wait: Wait = asyncio.sleep,
    ) -> None:
        if mode not in ("auto", "streamable", "sse"):
            raise Misconfigured(f"the mode is 'auto', 'streamable' or 'sse', not {mode!r}")
        self._socket, url = _split_socket(url)
        if self._socket is not None:
            if http is not None and not isinstance(http, HttpOptions):
                raise Misconfigured("a client of your own knows its socket: give an http:// URL")
            http = replace(http or HttpOptions(), uds=self._socket)
        options = http if isinstance(http, HttpOptions) else None
        self._http = http
        self._access = Access(
            url,
            headers=headers,
            token=token,
            is_private=options is not None
            and (options.uds is not None or options.allow_plain_secrets),
        )
        if options is not None and carries_secret(options.headers):
            # They are added further down; the same rule holds for them.
            Access(
                url,
                headers=options.headers,
                is_private=options.uds is not None or options.allow_plain_secrets,
            )
        if options is not None and (isinstance(options.verify, str) or options.cert is not None):
            from dragoman.transport.http.settings import tls_context

            # Said now, and not by the first request; it is read again where it is needed.
            tls_context(options)
        self._limit = max_frame_bytes
        self._max_requests = MAX_REQUESTS
        if http is None or (options is not None and not options.http2):
            connections = (options or HttpOptions()).max_connections
            self._max_requests = max(1, connections - min(RESERVED, connections // 4))
        self._wait = wait
        self.mode: Mode = mode
        self.found: Mode | None = None if mode == "auto" else mode

    @property
    def headers(self) -> Mapping[str, str]:
        """What each request carries besides the protocol's own; may hold secrets."""
        return self._access.headers

    @property
    def description(self) -> str:
        """The URL without user, password and query; a socket by its path."""
        if self._socket is not None:
            return f"{self._socket}{urlsplit(self._access.url).path}"
        return self._access.shown

    def __repr__(self) -> str:
        return f"<HttpConnector to {self.description}>"

    async def connect(self) -> Link:
        """Open a link. For Streamable HTTP nothing is sent before the first frame.

        Raises:
            LinkError: there is no token, or no stream where one is needed; `sent` is False.
            PeerError: the server names an endpoint at another origin.
            MissingExtra: there is no HTTP library.
        """
        await self._access.open()
        if self.found == "sse":
            try:
                return await self.open_sse()
            except HttpError as error:
                if self.mode == "sse" or error.status is None or error.status in _NO_SIGN:
                    raise
                # It speaks something else by now.
                self.found = None
            except BaseException:
                # A stream that names no endpoint, or only silence, within the time there was: it
                # may be one of the other kind, and the next attempt finds out.
                self.found = "sse" if self.mode == "sse" else None
                raise
        link = self._link(StreamableLink)
        return link if self.mode == "streamable" else _DetectingLink(self, link)

    async def open_sse(self) -> SseLink:
        """An HTTP+SSE link whose stream has begun. Raises as `connect` does."""
        link = self._link(SseLink)
        await link.open()
        return link

    def _link(self, kind: type[L]) -> L:
        return kind(
            open_http(self._http),
            self._access,
            owns_http=self._http is None or isinstance(self._http, HttpOptions),
            max_frame_bytes=self._limit,
            max_requests=self._max_requests,
            wait=self._wait,
        )


class _DetectingLink:
    """Streamable HTTP, until the server refuses the hello in a way that older servers do.

    Then the same URL is asked for an HTTP+SSE stream, and the hello goes there.

    Spec: basic/transports#backwards-compatibility
    """

    def __init__(self, connector: HttpConnector, link: StreamableLink) -> None:
        self._connector = connector
        self._link: StreamableLink | SseLink = link
        self._receiver: Receiver | None = None
        self._hello: tuple[bytes, int | str] | None = None
        self._is_paused = False
        self._is_falling_back = False
        self._falling_back: asyncio.Task[None] | None = None

    # --- as a link ------------------------------------------------------------------------------------

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver."""
        self._receiver = receiver
        self._link.start(self)

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Begin to send one frame; see `Link.send`."""
        if self._hello is None and isinstance(about, int | str):
            self._hello = frame, about
        self._link.send(frame, about, is_answer)

    @property
    def is_congested(self) -> bool:
        """See `HttpLink.is_congested`."""
        return self._link.is_congested

    async def drain(self) -> None:
        """See `HttpLink.drain`."""
        await self._link.drain()

    def pause_reading(self) -> None:
        """Stop reading until `resume_reading`."""
        self._is_paused = True
        self._link.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._is_paused = False
        self._link.resume_reading()

    def agreed(self, wire: str, facts: Facts) -> None:
        """See `HttpLink.agreed`."""
        self._link.agreed(wire, facts)

    def settle(self, delivery: Delivery) -> None:
        """Only servers owe answers to deliveries."""

    async def aclose(self) -> None:
        """End whichever link there is, and the search for one."""
        search = self._falling_back
        if search is not None and not search.done():
            search.cancel()
            # It owns a link until it hands it over, so it is waited for whatever happens to us.
            await finish_despite_cancel(search, lambda: None)
        await self._link.aclose()
        if self._is_falling_back:
            self._is_falling_back = False
            self.link_closed(None)

    # --- as the receiver of the first link, until we know ---------------------------------------------

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        """It answers, so it is the right one: step aside."""
        assert self._receiver is not None
        self._connector.found = "streamable"
        self._link.hand_over(self._receiver)
        self._receiver.frames_received(frames, seen)

    def frame_refused(self, noise: Noise) -> None:
        """It answers with too much, but it answers."""
        assert self._receiver is not None
        self._receiver.frame_refused(noise)

    def link_closed(self, error: LinkError | None) -> None:
        """The first link is over; when another is being opened, that is no news."""
        if not self._is_falling_back and self._receiver is not None:
            self._receiver.link_closed(error)

    def is_awaited(self, ident: int | str) -> bool:
        """Whether the hello is."""
        return self._receiver is not None and self._receiver.is_awaited(ident)

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        """The hello was refused: perhaps an older server serves here."""
        assert self._receiver is not None
        is_hello = self._hello is not None and self._hello[1] == ident
        if not is_hello or not _is_sign(error):
            self._receiver.request_lost(ident, error)
            return
        assert self._hello is not None
        self._is_falling_back = True
        self._falling_back = asyncio.get_running_loop().create_task(
            self._fall_back(*self._hello, error)
        )

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        """Only servers have deliveries."""

    def link_troubled(self, error: LinkError | None) -> None:
        """Nothing listens before the hello is answered."""

    async def _fall_back(self, hello: bytes, ident: int | str, refusal: LinkError) -> None:
        receiver = self._receiver
        assert receiver is not None
        await self._link.aclose()
        try:
            link = await self._connector.open_sse()
        except DragomanError as error:
            log.debug("no HTTP+SSE stream either: %s", error)
            if not isinstance(error, HttpError) or error.status is None:
                # There was one, and it is not to be used.
                refusal = (
                    error if isinstance(error, LinkError) else LinkError(str(error), sent=False)
                )
            receiver.request_lost(ident, refusal)
            # What the server speaks we do not: there is no link any more.
            self._is_falling_back = False
            self.link_closed(refusal)
            return
        self._is_falling_back = False
        self._connector.found = "sse"
        self._link = link
        if self._is_paused:
            link.pause_reading()
        link.start(receiver)
        link.send(hello, ident)


def _is_sign(error: LinkError) -> bool:
    """Whether a refusal of the hello may come from a server that only knows HTTP+SSE."""
    if not isinstance(error, HttpError) or error.status is None:
        return False
    return 400 <= error.status < 500 and error.status not in _NO_SIGN


def _split_socket(url: str) -> tuple[str | None, str]:
    """The Unix socket that a URL names, and the URL to ask there."""
    if not url.startswith("http+unix://"):
        return None, url
    rest = url.removeprefix("http+unix://")
    place, slash, path = rest.partition("/")
    socket = unquote(place)
    if not socket or "\0" in socket:
        raise Misconfigured(
            "http+unix:// is followed by the path of a socket, percent-encoded, as in "
            "http+unix://%2Frun%2Fserver.sock/mcp"
        )
    return socket, f"http://localhost/{path if slash else 'mcp'}"
