"""What both HTTP links share: every frame is a POST of its own, in a task that the link owns."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from dragoman.errors import LinkClosed, LinkError, SessionLost, WrongState
from dragoman.jsonrpc.frame import Delivery, Principal, Seen
from dragoman.revisions.facts import Facts
from dragoman.transport.base import About, Receiver
from dragoman.transport.event_stream import EventStreamDecoder, ServerEvent
from dragoman.transport.http.access import Access
from dragoman.transport.http.client import HttpClient, HttpResponse
from dragoman.transport.http.limits import (
    ACKNOWLEDGEMENT_BYTES,
    ANSWER_COST_BYTES,
    FAREWELL_WAIT_S,
    FIRST_DELAY_S,
    GATE_WAIT_S,
    MAX_DELAY_S,
    MAX_REPEATS,
    MAX_REQUESTS,
    MESSAGE_WAIT_S,
    SESSION_WAIT_S,
    SPREAD,
)
from dragoman.transport.http.refusals import is_passing, refusal, wished_s
from dragoman.transport.stdio.limits import HIGH_WATER_BYTES, MAX_FRAME_BYTES
from dragoman.transport.stdio.link import finish_despite_cancel

__all__ = ["HttpLink", "Wait", "apart", "backoff_s"]

log = logging.getLogger("dragoman.transport")

Wait = Callable[[float], Awaitable[object]]
"""Waits that many seconds: `asyncio.sleep`, or what a test puts in its place."""

# How a ping begins, whatever its id. It tells whether the server is there, so it waits for nothing.
_PING = b'"method":"ping"'
_PING_WITHIN = 80

# Ours, whatever the user's headers say.
_OWN_HEADERS = frozenset(
    {"accept", "content-type", "last-event-id", "mcp-protocol-version", "mcp-session-id"}
)


def backoff_s(tries: int) -> float:
    """How long to wait before one more try after `tries` failures: longer each time, and by chance.

    Clients that lost the same server would otherwise all come back in the same moment.
    """
    ceiling = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(tries, 16))
    return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - no secret hangs on it


def apart(asked_s: float) -> float:
    """A wait that a server asked for, and a little more by chance: it asks all clients alike."""
    return asked_s + random.uniform(0.0, min(asked_s * SPREAD, MAX_DELAY_S))  # noqa: S311 - as above


class HttpLink:
    """The client's end of a connection over HTTP.

    Whatever follows a notification waits until that was acknowledged, so `initialized` comes first;
    a cancellation waits for nothing, and ends the exchange of its request. Of requests at most
    `max_requests` are under way at once, and the others wait: a ping does not.
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
        self._loop = asyncio.get_running_loop()
        self._http = http
        self._owns_http = owns_http
        self._access = access
        self._wait = wait
        self._limit = max_frame_bytes
        self._seen = Seen(Principal(access.shown, "http"))
        self._receiver: Receiver | None = None
        self._url = access.url
        # Where we were led, when that is another origin: it may not know what is the user's.
        self._is_elsewhere = False
        # What each request carries besides what is the user's.
        self._extra: dict[str, str] = {}
        self._post_headers: dict[str, str] = {}
        # Which token the headers hold.
        self._round = 0
        self._requests: dict[int | str, asyncio.Task[None]] = {}
        # Those that wait for a notification, or for others to end, and were not begun.
        self._held: set[int | str] = set()
        self._slots = asyncio.Semaphore(max_requests)
        self._others: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._gate: asyncio.Event | None = None
        # Until the server took our first notification, which says that the session is open.
        self._is_opening = True
        self._unsent = 0
        self._drained: list[asyncio.Future[None]] = []
        self._resumed: asyncio.Event | None = None
        self._is_troubled = False
        self._lost: SessionLost | None = None
        self._lost_timer: asyncio.TimerHandle | None = None
        self._has_ended = False
        self._closing: asyncio.Task[None] | None = None
        self._goodbye: asyncio.Task[None] | None = None
        self._set_headers()

    # --- what a receiver uses -----------------------------------------------------------------------

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver."""
        if self._receiver is not None:
            raise WrongState("started", "a link is started once")
        self._receiver = receiver

    def hand_over(self, receiver: Receiver) -> None:
        """Deliver to another receiver from now on."""
        self._receiver = receiver

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Begin to send one frame; see `Link.send`.

        Raises:
            LinkClosed: the link was closed, or its session is gone.
        """
        if self._has_ended:
            raise LinkClosed(f"the link to {self._access.shown} is closed", sent=False)
        receiver = self._receiver
        if about is None or receiver is None or isinstance(about, Delivery):
            self._send_message(frame, is_answer)
        elif receiver.is_awaited(about):
            if self._lost is not None:
                self._loop.call_soon(self._lose, about, self._lost)
                return
            gate = self._gate
            if gate is not None:
                self._held.add(about)
            task = self._loop.create_task(self._carry(about, frame, gate))
            # A loop with eager tasks may have run it to its end already.
            if not task.done():
                self._requests[about] = task
        else:
            self._send_cancel(about, frame)

    @property
    def is_congested(self) -> bool:
        """True while answers and notifications of ours over the high-water mark are on their way."""
        return self._unsent > HIGH_WATER_BYTES

    async def drain(self) -> None:
        """Wait until the server has taken most of them, or the link is over."""
        while self.is_congested and not self._has_ended:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._drained:
                    self._drained.remove(waiter)

    def pause_reading(self) -> None:
        """Stop reading until `resume_reading`."""
        if self._resumed is None:
            self._resumed = asyncio.Event()

    def resume_reading(self) -> None:
        """Read again."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def agreed(self, wire: str, facts: Facts) -> None:
        """From now on name the revision with each request, if it wants that."""
        if facts.has_version_header:
            self._extra["MCP-Protocol-Version"] = wire
            self._set_headers()

    def settle(self, delivery: Delivery) -> None:
        """Only servers owe answers to deliveries."""

    async def aclose(self) -> None:
        """Say goodbye, for at most `FAREWELL_WAIT_S`, and end every task, stream and connection."""
        if self._closing is None:
            was_over = self._has_ended
            self._end(None)
            closing = self._close(may_say_goodbye=not was_over)
            self._closing = self._loop.create_task(closing, name="dragoman-link-close")
        await finish_despite_cancel(self._closing, self._hurry)

    # --- what the two links do each in its own way ------------------------------------------------

    async def _request(self, ident: int | str, frame: bytes) -> None:
        """Post a request and see it through. Raises LinkError when it is lost."""
        raise NotImplementedError

    async def _acknowledged(self, response: HttpResponse) -> None:
        """A notification or an answer of ours was taken; nothing else is expected."""
        try:
            await response.read(ACKNOWLEDGEMENT_BYTES)
        except LinkError as error:
            log.debug("the acknowledgement of a message broke: %s", error)
        finally:
            await response.aclose()

    def _notified(self) -> None:
        """A notification of ours was acknowledged, or given up."""

    async def _say_goodbye(self) -> None:
        """Tell the server that we leave. May raise LinkError."""

    def _means_session_lost(self, status: int, body: bytes) -> bool:
        """Whether a refusal says that the server does not know our session any more."""
        raise NotImplementedError

    # --- our requests -------------------------------------------------------------------------------

    async def _carry(self, ident: int | str, frame: bytes, gate: asyncio.Event | None) -> None:
        """One request of ours, from its POST to its outcome."""
        slots = self._slots
        has_slot = False
        try:
            if gate is not None:
                await gate.wait()
            if not slots.locked() or _PING not in frame[:_PING_WITHIN]:
                if slots.locked():
                    self._held.add(ident)
                await slots.acquire()
                has_slot = True
            self._held.discard(ident)
            await self._request(ident, frame)
        except LinkError as error:
            self._lose(ident, error)
        except Exception:
            log.exception("a request could not be carried")
            self._lose(ident, LinkError("the request failed on our side of the link"))
        finally:
            if has_slot:
                slots.release()
            self._forget(ident)
            if self._lost is not None and not self._requests:
                self._end(self._lost)

    def _forget(self, ident: int | str) -> None:
        self._held.discard(ident)
        self._requests.pop(ident, None)

    def _lose(self, ident: int | str, error: LinkError) -> None:
        if isinstance(error, SessionLost):
            self._lose_session(error)
        receiver = self._receiver
        if receiver is not None and not self._has_ended and receiver.is_awaited(ident):
            receiver.request_lost(ident, error)

    def _lose_session(self, error: SessionLost) -> None:
        """The link ends as soon as every request has learnt whether it was taken."""
        if self._lost is None:
            self._lost = error
            wait_s = SESSION_WAIT_S if self._requests else 0.0
            self._lost_timer = self._loop.call_later(wait_s, self._end, error)

    def _send_cancel(self, ident: int | str, frame: bytes) -> None:
        task = self._requests.get(ident)
        if task is not None and ident in self._held:
            # The server has never heard of it. The task may not have begun, and then never cleans up.
            task.cancel()
            self._forget(ident)
        elif self._lost is None:
            self._spawn(self._tell_cancelled(frame, task), self._telling)

    async def _tell_cancelled(self, frame: bytes, task: asyncio.Task[None] | None) -> None:
        try:
            async with asyncio.timeout(GATE_WAIT_S):
                await self._post_message(frame)
        except SessionLost as error:
            self._lose_session(error)
        except (LinkError, TimeoutError) as error:
            log.debug("the server was not told that a request is cancelled: %s", error)
        finally:
            if task is not None:
                task.cancel()

    # --- our notifications and answers --------------------------------------------------------------

    def _send_message(self, frame: bytes, is_answer: bool) -> None:
        if self._lost is not None:
            return
        before = self._gate
        gate = None
        if not is_answer:
            gate = self._gate = asyncio.Event()
        self._unsent += len(frame) + ANSWER_COST_BYTES
        self._spawn(self._tell(frame, before, gate), self._telling)

    async def _tell(
        self, frame: bytes, before: asyncio.Event | None, gate: asyncio.Event | None
    ) -> None:
        patience = None
        try:
            if before is not None:
                await before.wait()
            if gate is not None:
                patience = self._loop.call_later(GATE_WAIT_S, gate.set)
            await self._post_despite_trouble(frame)
            if gate is not None:
                self._is_opening = False
        except SessionLost as error:
            self._lose_session(error)
        except (LinkError, TimeoutError) as error:
            log.warning("a message to %s was lost: %s", self._access.shown, error)
            # One that is refused for good may still be a server that takes no notifications.
            is_out_of_reach = not isinstance(error, LinkError) or is_passing(error)
            if gate is not None and self._is_opening and is_out_of_reach:
                self._never_opened(error)
        except Exception:
            log.exception("a message to %s could not be sent", self._access.shown)
        finally:
            if gate is not None:
                if patience is not None:
                    patience.cancel()
                self._notified()
                gate.set()
                if self._gate is gate:
                    self._gate = None
            self._unsent -= len(frame) + ANSWER_COST_BYTES
            if self._drained and not self.is_congested:
                self._wake()

    def _never_opened(self, error: LinkError | TimeoutError) -> None:
        """The server does not know that we are ready: it would refuse whatever we ask."""
        if not isinstance(error, LinkError):
            error = LinkError(f"{self._access.shown} did not take our first notification")
        self._end(error)

    async def _post_despite_trouble(self, frame: bytes) -> None:
        """Post a frame that does no harm when it comes twice, again if need be."""
        tries = 0
        while True:
            try:
                async with asyncio.timeout(MESSAGE_WAIT_S):
                    return await self._post_message(frame)
            except LinkError as error:
                asked_s = wished_s(error)
                if not is_passing(error) or tries == MAX_REPEATS or asked_s > MAX_DELAY_S:
                    raise
                delay_s = max(apart(asked_s), backoff_s(tries))
            tries += 1
            await self._wait(delay_s)

    async def _post_message(self, frame: bytes) -> None:
        """Post a frame that has no answer. Raises LinkError when it is not taken."""
        response = await self._post(frame)
        if 200 <= response.status < 300:
            await self._acknowledged(response)
        else:
            raise (await self._refused(response))[0]

    # --- one exchange -------------------------------------------------------------------------------

    async def _post(self, frame: bytes) -> HttpResponse:
        used = self._round
        response = await self._http.send("POST", self._url, self._post_headers, frame)
        if self._is_troubled and response.status < 400:
            self._reached()
        if response.status == 401 and await self._renewed(response, used):
            response = await self._http.send("POST", self._url, self._post_headers, frame)
        return response

    async def _renewed(self, response: HttpResponse, used: int) -> bool:
        """After a 401: whether another token is worth a try. The response is closed then."""
        try:
            is_new = await self._access.renew(used)
        except BaseException:
            await response.aclose()
            raise
        if is_new:
            await response.aclose()
            self._set_headers()
        return is_new

    async def _refused(self, response: HttpResponse) -> tuple[LinkError, bytes]:
        """What a failed exchange means, and the body it came with; the response is closed."""
        error, body = await refusal(response)
        if self._means_session_lost(response.status, body):
            return SessionLost(f"{self._access.shown} no longer knows our session"), body
        if self._is_troubled and response.status < 500:
            # Whoever refuses is there. One that has lost our session is no end of the trouble yet.
            self._reached()
        return error, body

    def _move_to(self, url: str) -> None:
        """Send everything to another URL from now on."""
        self._url = url
        self._is_elsewhere = not self._access.is_at(url)
        self._set_headers()

    def _set_headers(self) -> None:
        access = self._access
        self._round = access.round
        given = {} if self._is_elsewhere else access.headers
        shared = {name: value for name, value in given.items() if name.lower() not in _OWN_HEADERS}
        shared.update(self._extra)
        self._shared_headers = shared
        self._post_headers = {
            **shared,
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
        }

    # --- what comes -----------------------------------------------------------------------------------

    async def _deliver(self, frames: Sequence[bytes]) -> None:
        while self._resumed is not None:
            await self._resumed.wait()
        receiver = self._receiver
        if receiver is not None and not self._has_ended:
            receiver.frames_received(frames, self._seen)

    async def _deliver_with_refusals(
        self, events: Sequence[ServerEvent], decoder: EventStreamDecoder
    ) -> None:
        """Deliver the messages among the events, and say of what was too large, each in its place."""
        refused, decoder.refused = decoder.refused, []
        start = 0
        for place, noise in [*refused, (len(events), None)]:
            frames = [
                one.data for one in events[start:place] if one.data and one.event == "message"
            ]
            start = place
            if frames:
                await self._deliver(frames)
            if noise is not None and self._receiver is not None and not self._has_ended:
                self._receiver.frame_refused(noise)

    def _trouble(self, error: LinkError) -> None:
        if not self._is_troubled and not self._has_ended and self._receiver is not None:
            self._is_troubled = True
            self._receiver.link_troubled(error)

    def _reached(self) -> None:
        if self._is_troubled and not self._has_ended and self._receiver is not None:
            self._is_troubled = False
            self._receiver.link_troubled(None)

    # --- the end ------------------------------------------------------------------------------------

    def _spawn(
        self, coroutine: Coroutine[Any, Any, None], owner: set[asyncio.Task[None]]
    ) -> asyncio.Task[None]:
        task = self._loop.create_task(coroutine)
        if not task.done():
            owner.add(task)
            task.add_done_callback(owner.discard)
        return task

    def _end(self, error: LinkError | None) -> None:
        """Deliver nothing more; after a failure stop all work, since `aclose` may come late."""
        if self._has_ended:
            return
        if error is not None:
            # These wait for a notification to be taken, and were never sent.
            for ident in list(self._held):
                self._lose(ident, error.again(sent=False))
        self._has_ended = True
        if self._lost_timer is not None:
            self._lost_timer.cancel()
        self._wake()
        if error is not None:
            self._stop_all()
        if self._receiver is not None:
            self._receiver.link_closed(error)

    def _stop_all(self) -> list[asyncio.Task[None]]:
        this = asyncio.current_task()
        tasks = [*self._requests.values(), *self._others, *self._telling]
        tasks = [task for task in tasks if task is not this]
        for task in tasks:
            task.cancel()
        return tasks

    def _wake(self) -> None:
        waiters, self._drained = self._drained, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _close(self, *, may_say_goodbye: bool) -> None:
        if may_say_goodbye:
            self._goodbye = self._loop.create_task(self._leave())
            await asyncio.wait([self._goodbye])
        tasks = self._stop_all()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=FAREWELL_WAIT_S)
            for task in stuck:
                log.warning("a task of the link ignores its cancellation: %r", task)
        if self._owns_http:
            await self._http.aclose()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL_WAIT_S):
                if self._telling:
                    await asyncio.wait(list(self._telling))
                await self._say_goodbye()
        except (LinkError, TimeoutError) as error:
            log.debug("%s did not hear our goodbye: %s", self._access.shown, error)
        except Exception:
            log.exception("the goodbye to %s failed", self._access.shown)

    def _hurry(self) -> None:
        if self._goodbye is not None:
            self._goodbye.cancel()
