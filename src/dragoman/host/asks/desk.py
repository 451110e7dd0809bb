"""What servers ask of a host: each request goes to its gates, and each answer through the gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

from dragoman.errors import Refused
from dragoman.host.asks.common import Answered, Asker, Mediates
from dragoman.host.asks.elicitation import Elicitation
from dragoman.host.asks.roots import RootsBook
from dragoman.host.asks.sampling import ContextSource, ModelSource, Sampling
from dragoman.host.budget import Budget
from dragoman.host.gate import AnswerTicket, leaves_of
from dragoman.host.kinds import Action, Intent
from dragoman.host.policy import Policy
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.roots import Root
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult

__all__ = ["AskingConnection", "Asks"]


class _Identity(Protocol):
    @property
    def lines(self) -> tuple[tuple[str, str], ...]: ...


class _Gate(Protocol):
    def lend_answer(self, ticket: AnswerTicket) -> None: ...


class _Entry(Protocol):
    @property
    def roots(self) -> tuple[Root, ...]: ...


class AskingConnection(Protocol):
    """What is needed of a connection; see `dragoman.host.connections.Connection`."""

    @property
    def server(self) -> str:
        """Its alias."""

    @property
    def identity(self) -> _Identity:
        """What it is."""

    @property
    def entry(self) -> _Entry:
        """Its configuration."""

    @property
    def gate(self) -> _Gate:
        """What its answers go through."""

    def intent(self, action: Action, object: str = "", **more: Any) -> Intent:
        """Something wanted of this server."""


class Asks:
    """The desk to which all servers of a host come.

    Without `models` nothing is sampled. `can_ask` is whether anybody could answer. `context` is
    what `includeContext` may stand for. `on_roots_change` hears of a server whose folders changed.
    """

    def __init__(
        self,
        mediator: Mediates,
        *,
        policy: Policy | None = None,
        models: ModelSource | None = None,
        can_ask: Callable[[], bool] = lambda: True,
        context: ContextSource | None = None,
        on_roots_change: Callable[[str], object] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._can_ask = can_ask
        self._clock = clock
        self._budgets: dict[str, Budget] = {}
        self._under_way: dict[str, dict[str, str]] = {}
        self.roots = RootsBook(mediator, self.budget, on_change=on_roots_change)
        self.elicitation = Elicitation(mediator, self.budget)
        self.sampling = (
            Sampling(mediator, models, self.budget, context=context) if models is not None else None
        )

    def budget(self, server: str) -> Budget:
        """What a server may still ask for in this session."""
        if server not in self._budgets:
            self._budgets[server] = Budget(self._clock) if self._clock else Budget()
        return self._budgets[server]

    @contextmanager
    def under_way(self, server: str, trace: str, about: str) -> Iterator[None]:
        """Note a call that is under way: `about` says which, for who is asked in its course."""
        calls = self._under_way.setdefault(server, {})
        calls[trace] = about
        try:
            yield
        finally:
            calls.pop(trace, None)

    def client_options(self, connection: AskingConnection) -> dict[str, Any]:
        """The client's handlers for what this server may ask.

        What nobody could grant is not among them, so that it is not even offered.
        """
        asker = self.asker(connection)
        self.roots.seed(connection.server, connection.entry.roots)
        options: dict[str, Any] = {}
        if self.roots.is_offered(asker, can_ask=self._can_ask()):
            options["roots"] = lambda: self._list_roots(connection)
        if self.sampling is not None and self.sampling.is_offered(asker):
            options["sampling_handler"] = lambda params: self._sample(connection, params)
            options["sampling_tools"] = True
        if self._can_ask():
            is_url = self.elicitation.is_offered(asker, Action.ELICIT_URL)
            if is_url or self.elicitation.is_offered(asker, Action.ELICIT_FORM):
                options["elicitation_handler"] = lambda params: self._elicit(connection, params)
                options["elicitation_url"] = is_url
        return options

    def asker(self, connection: AskingConnection) -> Asker:
        """The server of a connection, as one that asks."""
        server = connection.server

        def calls() -> Mapping[str, str]:
            return dict(self._under_way.get(server, {}))

        return Asker(
            server=server,
            intent=connection.intent,
            lines=lambda: connection.identity.lines,
            calls=calls,
        )

    async def aclose(self) -> None:
        """Nothing is left behind: who still waits is answered by the broker's end."""
        self._under_way.clear()

    # --- the client's handlers --------------------------------------------------------------------

    async def _list_roots(self, connection: AskingConnection) -> list[Root]:
        answered = await self.roots.answer(self.asker(connection))
        _let_out(connection, "roots/list", answered)
        return answered.result.roots

    async def _sample(
        self, connection: AskingConnection, params: CreateMessageParams
    ) -> CreateMessageResult:
        if self.sampling is None:
            raise Refused("declined", "a sampling request")
        answered = await self.sampling.answer(self.asker(connection), params)
        _let_out(connection, "sampling/createMessage", answered)
        return answered.result

    async def _elicit(self, connection: AskingConnection, params: ElicitParams) -> ElicitResult:
        answered = await self.elicitation.answer(self.asker(connection), params)
        _let_out(connection, "elicitation/create", answered)
        return answered.result


def _let_out(connection: AskingConnection, method: str, answered: Answered[Any]) -> None:
    """Open the gate for exactly this answer; it leaves when the handler has ended."""
    leaves = leaves_of(msgspec.json.decode(answered.payload))
    ticket = AnswerTicket(method=method, leaves=leaves, decision=answered.decision)
    connection.gate.lend_answer(ticket)
