"""A server refuses a request until the user has been at an address (-32042).

The address is put to the person like any other that a server asks about. When they agree, they
agree as well to the same bytes being sent once more, when the server says that it has ended; they
may say so themselves, or give up.

Spec: client/elicitation#url-elicitation-required-error
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from dragoman.errors import RemoteFailure
from dragoman.host.asks.common import Asker, facts_about
from dragoman.host.asks.elicitation import Elicitation
from dragoman.host.broker import BrokerEvent, Closed
from dragoman.host.kinds import Action, Code, Denied, Intent, Scope, View, VisitRequired
from dragoman.host.mediator import Clearance, Mediator
from dragoman.model.elicitation import ElicitParams

__all__ = ["MAX_ROUNDS", "Completions", "Held", "Visits"]

# 3 times: a sign-in, a consent that it leads to, and one more; then a server asks in circles.
MAX_ROUNDS = 3

# 5 addresses at once: each is a question, and a person has to be able to follow.
MAX_ADDRESSES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A request that the server has refused for now.

    `clearance` is what it was sent with, `what` a name for it in our words, such as "the call of
    its tool 'x'". `again` gives its intent as it stands now.
    """

    clearance: Clearance
    what: str
    again: Callable[[bytes], Awaitable[Intent]]


class Completions:
    """What one server says has ended, for those who wait for it."""

    def __init__(self) -> None:
        self._waiting: list[tuple[set[str], asyncio.Event]] = []

    def heard(self, elicitation_id: str) -> None:
        """The server says that what happened behind a URL has ended."""
        for left, done in self._waiting:
            left.discard(elicitation_id)
            if not left:
                done.set()

    @contextmanager
    def of(self, ids: Iterable[str]) -> Iterator[asyncio.Event]:
        """An event that is set when all these have ended; listens while this is open."""
        wait = (set(ids), asyncio.Event())
        self._waiting.append(wait)
        try:
            yield wait[1]
        finally:
            # The same, not an equal one.
            self._waiting = [one for one in self._waiting if one is not wait]


class Visits:
    """Puts to the person what servers want done before they run a request."""

    def __init__(self, mediator: Mediator, elicitation: Elicitation) -> None:
        self._mediator = mediator
        self._elicitation = elicitation
        self._completions: dict[str, Completions] = {}

    def completions(self, server: str) -> Completions:
        """What that server says has ended."""
        return self._completions.setdefault(server, Completions())

    async def go(
        self,
        asker: Asker,
        asked: Sequence[ElicitParams],
        held: Held,
        refusal: RemoteFailure,
        *,
        rounds: int,
    ) -> Clearance:
        """Ask the person to go there; returns leave to send the request once more, as it was.

        `asked` is what the error lists, `rounds` how often the request has met it by now.

        Raises:
            VisitRequired: it is not sent again; `.reason` says why.
        """
        try:
            if rounds > MAX_ROUNDS or len(asked) > MAX_ADDRESSES:
                raise self._too_much(asker, asked, rounds)
            if not self._elicitation.is_offered(asker, Action.ELICIT_URL):
                raise Denied(
                    Code.NOT_OFFERED,
                    f"{Action.ELICIT_URL}({asker.server})",
                    "the server was not offered to send anybody anywhere",
                    server=asker.server,
                )
            # Before anybody is asked: it may be over by the time they answer.
            with self.completions(asker.server).of(
                one.elicitation_id or "" for one in asked
            ) as done:
                for number, params in enumerate(asked, 1):
                    which = f" ({number} of {len(asked)})" if len(asked) > 1 else ""
                    then = (
                        f"{held.what} is sent once more, unchanged, when the server says that this "
                        f"has ended{which}, or you do"
                    )
                    await self._elicitation.visit(asker, params, then=then)
                return await self._leave(asker, asked, held, done)
        except Denied as denied:
            raise VisitRequired(refusal, denied.code) from denied

    def _too_much(self, asker: Asker, asked: Sequence[ElicitParams], rounds: int) -> Denied:
        said = (
            f"it names {len(asked)} addresses at once, the most there may be is {MAX_ADDRESSES}"
            if len(asked) > MAX_ADDRESSES
            else f"it wants the user somewhere for the {rounds}th time, for one request"
        )
        return Denied(
            Code.BUDGET, f"{Action.ELICIT_URL}({asker.server})", said, server=asker.server
        )

    async def _leave(
        self, asker: Asker, asked: Sequence[ElicitParams], held: Held, done: asyncio.Event
    ) -> Clearance:
        """Wait until it has ended: in the words of the server, or of the person. Raises Denied."""
        if not done.is_set():
            answered = asyncio.Event()
            asking = asyncio.create_task(self._ask(asker, asked, held, answered))
            hearing = asyncio.create_task(done.wait())
            try:
                await asyncio.wait([asking, hearing], return_when=asyncio.FIRST_COMPLETED)
                if answered.is_set():
                    # It is not settled yet: other windows are put away, a record is written.
                    await asyncio.wait([asking])
            finally:
                hearing.cancel()
                asking.cancel()
                await asyncio.wait([asking, hearing])
            if not asking.cancelled():
                # Theirs is the last word, also when both came at once.
                # What they had changed before is not as it was asked for, still.
                was_edited = held.clearance.was_edited
                return msgspec.structs.replace(asking.result(), was_edited=was_edited)
        given = held.clearance
        now = await held.again(given.payload)
        why = "the server says that it has ended, and the person agreed to this with the address"
        return await self._mediator.renew(given, now, why)

    async def _ask(
        self,
        asker: Asker,
        asked: Sequence[ElicitParams],
        held: Held,
        answered: asyncio.Event,
    ) -> Clearance:
        """The same request as a question: the person says that they are done, or gives up.

        `answered` is set as soon as they have.
        """
        given = held.clearance
        intent = await held.again(given.payload)
        view = View(
            headline=f"Are you done? Then {held.what} is sent to {asker.server!r} once more.",
            payload=given.payload,
            facts=(
                *facts_about(asker),
                (
                    "it was refused until you have been at",
                    "\n".join(one.url or "" for one in asked),
                ),
                *asker.lines(),
            ),
        )
        digest = view.digest(intent)

        def heard(event: BrokerEvent) -> None:
            if isinstance(event, Closed) and event.decision and event.request.view_digest == digest:
                answered.set()

        forget = self._mediator.broker.on_event(heard)
        try:
            return await self._mediator.clear(
                intent,
                view,
                scopes=(Scope.ONCE,),
                trace=given.trace,
                again=held.again,
                must_ask="the server refused it until you have been at an address",
            )
        finally:
            forget()
