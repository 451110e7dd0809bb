"""What servers ask of the host: a model's answer, the person's input, the roots.

Each question goes through the mediator like everything else (`dragoman.host.asks`); what was
released for it is lent to the gate, which lets nothing else out. What nobody could grant is not
offered to a server at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from dragoman.errors import RemoteFailure
from dragoman.host.asks.common import Answered, Asker
from dragoman.host.asks.context import ContextSource
from dragoman.host.asks.elicitation import Elicitation
from dragoman.host.asks.roots import RootsBook
from dragoman.host.asks.sampling import ModelSource, Sampling
from dragoman.host.asks.visits import Held, Visits
from dragoman.host.budget import Budget
from dragoman.host.connections import Connection
from dragoman.host.gate import AnswerTicket, leaves_of
from dragoman.host.kinds import Action
from dragoman.host.mediator import Clearance, Mediator
from dragoman.host.sandbox import Root as Folder
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.roots import Root
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult

__all__ = ["Inbound"]


class Inbound:
    """Answers what servers ask; `roots` is the book of the folders that are opened to each."""

    def __init__(
        self,
        mediator: Mediator,
        models: ModelSource | None,
        *,
        on_roots_changed: Callable[[str], object],
        context: ContextSource | None = None,
    ) -> None:
        self._budgets: dict[str, Budget] = {}
        self._sampling = (
            None if models is None else Sampling(mediator, models, self._budget, context=context)
        )
        self._elicitation = Elicitation(mediator, self._budget)
        self._visits = Visits(mediator, self._elicitation)
        self.roots = RootsBook(mediator, self._budget, on_change=on_roots_changed)

    def _budget(self, server: str) -> Budget:
        return self._budgets.setdefault(server, Budget())

    def client_options(self, connection: Connection) -> dict[str, Any]:
        """The handlers of a client of this server: none that nobody could ever grant."""
        asker = _asker(connection)
        self.roots.seed(connection.server, [root.uri for root in connection.entry.roots])
        options: dict[str, Any] = {}
        sampling, elicitation = self._sampling, self._elicitation
        if sampling is not None and sampling.is_offered(asker):

            async def sample(params: CreateMessageParams) -> CreateMessageResult:
                answered = await sampling.answer(asker, params)
                _lend(connection, "sampling/createMessage", answered)
                return answered.result

            options |= {"sampling_handler": sample, "sampling_tools": True}
            options["sampling_context"] = sampling.offers_context(asker)
        offers_form = elicitation.is_offered(asker, Action.ELICIT_FORM)
        offers_url = elicitation.is_offered(asker, Action.ELICIT_URL)
        if offers_form or offers_url:

            async def elicit(params: ElicitParams) -> ElicitResult:
                answered = await elicitation.answer(asker, params)
                _lend(connection, "elicitation/create", answered)
                return answered.result

            options |= {"elicitation_handler": elicit, "elicitation_url": offers_url}
        if offers_url:
            heard = self._visits.completions(connection.server).heard
            options["on_elicitation_complete"] = heard
        if self.roots.is_offered(asker):

            async def roots() -> list[Root]:
                answered = await self.roots.answer(asker)
                _lend(connection, "roots/list", answered)
                return answered.result.roots

            options["roots"] = roots
        return options

    async def starting(self, connection: Connection) -> list[Folder]:
        """The folders that the server's sandbox is to show; none where it has no sandbox.

        Those that were opened since it was configured are asked about first.
        """
        entry = connection.entry
        self.roots.seed(connection.server, [root.uri for root in entry.roots])
        if entry.sandbox is None:
            self.roots.confined(connection.server, None)
            return []
        added = await self.roots.for_start(_asker(connection))
        folders = [*entry.roots, *(Folder(path) for path in added)]
        shown = [*(one.path for one in folders), *entry.sandbox.read, *entry.sandbox.write]
        self.roots.confined(connection.server, shown)
        return folders

    async def visit(
        self,
        connection: Connection,
        asked: Sequence[ElicitParams],
        held: Held,
        refusal: RemoteFailure,
        rounds: int,
    ) -> Clearance:
        """Put to the person where a server wants them before it runs a request.

        Raises:
            VisitRequired: it is not sent again.
        """
        # Refused, it is under way no longer; the questions about it still say what they are about.
        calls = {**connection.under_way, held.clearance.trace: held.what}
        asker = replace(_asker(connection), calls=lambda: calls)
        return await self._visits.go(asker, asked, held, refusal, rounds=rounds)


def _asker(connection: Connection) -> Asker:
    return Asker(
        server=connection.server,
        intent=connection.intent,
        lines=lambda: connection.identity.lines,
        calls=lambda: connection.under_way,
    )


def _lend(connection: Connection, method: str, answered: Answered[Any]) -> None:
    """Let the gate pass what was released, and nothing more."""
    leaves = leaves_of(msgspec.json.decode(answered.payload))
    connection.gate.lend_answer(
        AnswerTicket(method=method, leaves=leaves, decision=answered.decision)
    )
