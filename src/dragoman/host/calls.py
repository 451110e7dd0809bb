"""What a host asks of its servers: tool calls, resources, prompts and completions.

Each goes the same way: the intent as it stands, the decision, a ticket at the gate for the very
bytes that were decided about, the request, the release of the answer, the record of the outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from dragoman.client.client import Client, OnProgress
from dragoman.client.results import ToolResult
from dragoman.errors import (
    DeadlineExceeded,
    DragomanError,
    InvalidArguments,
    LinkError,
    Misconfigured,
    PeerError,
    RemoteFailure,
)
from dragoman.host.asks.visits import Held
from dragoman.host.catalogue import Offer
from dragoman.host.connections import Connection
from dragoman.host.gate import Ticket
from dragoman.host.heard import Heard, OnBehalf
from dragoman.host.kinds import Action, Code, Denied, Effect, Intent, Risk, Step, Trust, View
from dragoman.host.mediator import Clearance, Mediator, frozen
from dragoman.host.policy import risks_of
from dragoman.model.base import Record
from dragoman.model.completion import (
    Completion,
    PromptReference,
    ResourceTemplateReference,
)
from dragoman.model.elicitation import ElicitParams
from dragoman.model.prompts import GetPromptResult
from dragoman.model.resources import ReadResourceResult
from dragoman.model.schema_check import SchemaCheck
from dragoman.model.tools import CallToolParams, CallToolResult

__all__ = ["Calls", "Context", "HostResult"]

F = TypeVar("F", bound=Record)
S = TypeVar("S")

Visit = Callable[
    [Connection, Sequence[ElicitParams], Held, RemoteFailure, int], Awaitable[Clearance]
]
"""Puts to the person where a server wants them, and gives leave to send the request again: the
connection, what is asked, the request, its refusal, and how often it has met one.

Raises VisitRequired."""


class Context(Protocol):
    """The conversation on whose behalf something is asked.

    `taint` are the servers whose words are in it; what is released to it adds to them. `sink` is
    where its words go, such as "model:anthropic"; empty when they stay here.
    """

    @property
    def taint(self) -> set[str]: ...

    @property
    def sink(self) -> str: ...


class HostResult(ToolResult):
    """A tool's result, and what the host knows about it.

    `server` is whose it is, `flags` what is wrong with it, `sent` the JSON text of the arguments as
    they were sent, and `was_edited` whether a person had changed them.
    """

    __slots__ = ("flags", "raw", "sent", "server", "was_edited")

    def __init__(
        self,
        result: CallToolResult,
        *,
        server: str,
        flags: Sequence[Risk] = (),
        sent: bytes = b"",
        was_edited: bool = False,
        is_wrapped: bool = False,
    ) -> None:
        super().__init__(result, is_wrapped=is_wrapped)
        #: The whole of it, as one record.
        self.raw = result
        self.server = server
        self.flags = tuple(flags)
        self.sent = sent
        self.was_edited = was_edited


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """A request for something to read: what a person sees of it, and what the gate holds it to."""

    headline: str
    payload: bytes
    method: str
    name: str
    body: bytes = b""


class Calls:
    """Asks servers, through the mediator.

    `visit` puts to the person what a server wants done before it runs a request. `on_behalf` notes
    which conversation a request is for, while it runs.
    """

    def __init__(
        self,
        mediator: Mediator,
        connection_of: Callable[[str], Connection],
        visit: Visit | None = None,
        on_behalf: OnBehalf | None = None,
    ) -> None:
        self._mediator = mediator
        self._connection_of = connection_of
        self._visit = visit
        self._on_behalf = on_behalf or OnBehalf()
        self._checks: dict[tuple[str, str], SchemaCheck | None] = {}

    # --- tools ------------------------------------------------------------------------------------

    async def call_tool(
        self,
        server: str,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        context: Context | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        trace: str = "",
        on_started: Callable[[Clearance], None] | None = None,
    ) -> HostResult:
        """Call a tool. A result that says the tool failed is returned like any other.

        Raises as `Host.call_tool`, but ToolError.
        """
        connection = self._connection_of(server)
        # It refuses what JSON cannot hold, which an encoder by itself would change.
        wanted = CallToolParams.of(name, dict(arguments or {}))
        given = frozen(bytes(wanted.raw_arguments))
        seen: tuple[int, Offer]

        async def intent_of(payload: bytes) -> Intent:
            nonlocal seen
            catalogue = await connection.fresh()
            offer = catalogue.need("tool", name, server)
            values = _values.decode(payload)
            check = None if offer.problems else self._check(offer, "inputSchema")
            faults = check.faults(values) if check is not None else []
            if faults:
                raise InvalidArguments(faults)
            seen = (connection.changes, offer)
            return connection.intent(
                Action.TOOL_CALL,
                name,
                looked=True,
                arguments=values,
                fingerprint=offer.definition.full,
                taint=_taint_of(context),
                problems=offer.problems,
                **offer.claims,
            )

        intent = await intent_of(given)
        _, offer = seen
        flows, must_ask = self._flows(connection, context)
        again = self._again(connection, context, intent_of, flows)
        clearance = await self._mediator.clear(
            intent,
            lambda: View(
                headline=f"Call the tool {name!r} of the server {server!r}?",
                payload=given,
                facts=(*offer.facts, *_flow_facts(context), *connection.identity.lines),
            ),
            payload=given,
            editable=("",),
            risks=lambda: [*offer.flags, *risks_of(intent)],
            trace=trace,
            again=again,
            must_ask=must_ask,
            also=flows,
            looked=True,
        )

        async def send(clearance: Clearance) -> HostResult:
            _as_seen(connection, seen[0], clearance)
            ticket = Ticket(
                method="tools/call", name=name, body=clearance.payload, decision=clearance.decision
            )
            with connection.gate.admit(ticket):
                result = await _client(connection).call_tool(
                    name,
                    msgspec.json.decode(clearance.payload),
                    on_progress=on_progress,
                    timeout_s=_patience(connection, timeout_s),
                    raise_on_error=False,
                )
            outcome = self._result(clearance, offer, result)
            if self._mediator.policy.speaks_of(Action.RESULT_RELEASE):
                await self._release(connection, clearance, outcome.raw)
            return outcome

        clearance, outcome = await self._sent(
            connection,
            clearance,
            send,
            what=f"the call of its tool {name!r}",
            again=again,
            context=context,
            on_started=on_started,
        )
        # What says nothing stays out of the record.
        flags = {"flags": [flag.code for flag in outcome.flags]} if outcome.flags else {}
        await self._mediator.settle(
            clearance, "failed" if outcome.raw.is_error else "ok", result=outcome.raw, **flags
        )
        if context is not None and not _is_clean(intent):
            context.taint.add(server)
        if (heard := _heard_of(context)) is not None:
            heard.add(server, outcome.raw)
        return outcome

    def _result(self, clearance: Clearance, offer: Offer, result: ToolResult) -> HostResult:
        """The result with what is to be said of it."""
        flags: list[Risk] = []
        raw = CallToolResult(
            content=result.content,
            structured_content=result.structured_content,
            is_error=result.is_error,
            meta=result.meta or None,
        )
        if offer.has_output and not raw.is_error:
            said = self._output_faults(offer, raw.structured_content)
            if said:
                flags.append(Risk(code="output_unfit", text=said))
        return HostResult(
            raw,
            server=clearance.intent.server,
            flags=flags,
            sent=clearance.payload,
            was_edited=clearance.was_edited,
            is_wrapped=offer.is_wrapped,
        )

    def _output_faults(self, offer: Offer, structured: Any) -> str:
        if structured is None:
            return "it has an output schema, and its result holds no such data"
        check = self._check(offer, "outputSchema")
        if check is None:
            return "its output schema cannot be used, so the result is unchecked"
        faults = check.faults(structured)
        return "it does not fit its output schema: " + "; ".join(map(str, faults)) if faults else ""

    def _check(self, offer: Offer, member: str) -> SchemaCheck | None:
        """The check of one of a tool's schemas; None for one that cannot be used."""
        key = (offer.definition.full, member)
        try:
            return self._checks[key]
        except KeyError:
            if len(self._checks) >= MAX_CHECKS:
                self._checks.clear()
        try:
            check = SchemaCheck(offer.definition.raw[member], is_ours=False)
        except (Misconfigured, LookupError, TypeError):
            # The server checks its own arguments; of results it is said that nobody did.
            check = None
        self._checks[key] = check
        return check

    # --- resources, prompts, completions ----------------------------------------------------------

    async def read_resource(
        self,
        server: str,
        uri: str,
        *,
        context: Context | None = None,
        timeout_s: float | None = None,
        trace: str = "",
        is_own_act: bool = False,
    ) -> ReadResourceResult:
        """Read a resource. Raises as `Host.read_resource`."""
        connection = self._connection_of(server)

        async def intent_of(payload: bytes) -> Intent:
            await connection.fresh()
            return connection.intent(
                Action.RESOURCE_READ,
                uri,
                looked=True,
                taint=_taint_of(context),
                is_destructive=False,
                is_read_only=True,
            )

        async def read(
            clearance: Clearance, client: Client, timeout_s: float | None
        ) -> ReadResourceResult:
            return await client.read_resource(uri, timeout_s=timeout_s)

        return await self._fetch(
            connection,
            _Reading(
                headline=f"Read this resource of the server {server!r}?",
                payload=frozen(msgspec.json.encode({"uri": uri})),
                method="resources/read",
                name=uri,
            ),
            intent_of,
            read,
            context=context,
            timeout_s=timeout_s,
            trace=trace,
            is_own_act=is_own_act,
        )

    async def get_prompt(
        self,
        server: str,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        context: Context | None = None,
        timeout_s: float | None = None,
        trace: str = "",
        is_own_act: bool = False,
    ) -> GetPromptResult:
        """Get a prompt. Raises as `Host.get_prompt`."""
        connection = self._connection_of(server)
        given = None if arguments is None else dict(arguments)
        payload = frozen(msgspec.json.encode(given or {}))
        seen: int

        async def intent_of(payload: bytes) -> Intent:
            nonlocal seen
            catalogue = await connection.fresh()
            offer = catalogue.need("prompt", name, server)
            seen = connection.changes
            return connection.intent(
                Action.PROMPT_GET,
                name,
                looked=True,
                arguments=_values.decode(payload),
                fingerprint=offer.definition.full,
                taint=_taint_of(context),
                is_destructive=False,
                is_read_only=True,
                problems=offer.problems,
            )

        async def get(
            clearance: Clearance, client: Client, timeout_s: float | None
        ) -> GetPromptResult:
            _as_seen(connection, seen, clearance)
            return await client.get_prompt(name, given, timeout_s=timeout_s)

        return await self._fetch(
            connection,
            _Reading(
                headline=f"Get the prompt {name!r} from the server {server!r}?",
                payload=payload,
                method="prompts/get",
                name=name,
                body=b"" if given is None else payload,
            ),
            intent_of,
            get,
            context=context,
            timeout_s=timeout_s,
            trace=trace,
            is_own_act=is_own_act,
        )

    async def _fetch(
        self,
        connection: Connection,
        reading: _Reading,
        intent_of: Callable[[bytes], Awaitable[Intent]],
        ask: Callable[[Clearance, Client, float | None], Awaitable[F]],
        *,
        context: Context | None,
        timeout_s: float | None,
        trace: str,
        is_own_act: bool,
    ) -> F:
        """Ask for something to read: decide, ask the server, release, record."""
        intent = await intent_of(reading.payload)
        flows, must_ask = self._flows(connection, context)
        again = self._again(connection, context, intent_of, flows)
        clearance = await self._mediator.clear(
            intent,
            View(
                headline=reading.headline,
                payload=reading.payload,
                facts=(*_flow_facts(context), *connection.identity.lines),
            ),
            risks=risks_of(intent),
            trace=trace,
            again=again,
            must_ask=must_ask,
            is_own_act=is_own_act,
            also=flows,
            looked=True,
        )

        async def send(clearance: Clearance) -> F:
            ticket = Ticket(
                method=reading.method,
                name=reading.name,
                body=reading.body,
                decision=clearance.decision,
            )
            with connection.gate.admit(ticket):
                result = await ask(clearance, _client(connection), _patience(connection, timeout_s))
            if self._mediator.policy.speaks_of(Action.RESULT_RELEASE):
                await self._release(connection, clearance, result)
            return result

        what = f"the request for {reading.name!r}"
        clearance, result = await self._sent(
            connection, clearance, send, what=what, again=again, context=context
        )
        await self._mediator.settle(clearance, "ok", result=result)
        if context is not None:
            context.taint.add(connection.server)
        if (heard := _heard_of(context)) is not None:
            heard.add(connection.server, result)
        return result

    async def complete(
        self,
        server: str,
        ref: PromptReference | ResourceTemplateReference,
        argument: str,
        value: str = "",
        *,
        settled: Mapping[str, str] | None = None,
        is_own_act: bool = False,
        timeout_s: float | None = None,
    ) -> Completion:
        """Ask for suggestions. Raises as `Host.complete`."""
        connection = self._connection_of(server)
        await connection.fresh()
        parts: list[Any] = [ref, {"name": argument, "value": value}]
        if settled is not None:
            parts.append({"arguments": dict(settled)})
        texts = [msgspec.json.encode(part) for part in parts]
        intent = connection.intent(
            Action.COMPLETE,
            ref.name if isinstance(ref, PromptReference) else ref.uri,
            looked=True,
            arguments={argument: value},
            is_destructive=False,
            is_read_only=True,
        )
        view = View(
            headline=f"Send this, half typed, to the server {server!r} for suggestions?",
            payload=b"[" + b",".join(texts) + b"]",
            facts=connection.identity.lines,
        )
        clearance = await self._mediator.clear(intent, view, is_own_act=is_own_act, looked=True)
        try:
            ticket = Ticket(
                method="completion/complete",
                name="",
                body=b"".join(texts),
                decision=clearance.decision,
            )
            with connection.gate.admit(ticket):
                result = await _client(connection).complete(
                    ref,
                    argument,
                    value,
                    context=settled,
                    timeout_s=_patience(connection, timeout_s),
                )
        except (DragomanError, asyncio.CancelledError) as error:
            await self._ended(clearance, error)
            raise
        await self._mediator.settle(clearance, "ok")
        return result

    # --- sending ----------------------------------------------------------------------------------

    async def _sent(
        self,
        connection: Connection,
        clearance: Clearance,
        send: Callable[[Clearance], Awaitable[S]],
        *,
        what: str,
        again: Callable[[bytes], Awaitable[Intent]],
        context: Context | None,
        on_started: Callable[[Clearance], None] | None = None,
    ) -> tuple[Clearance, S]:
        """Send a request; once more, after the person was where the server wanted them first.

        Gives the leave that it was sent with in the end, and the answer. Each time has a decision
        and an outcome of its own.
        """
        rounds = 0
        # What a server asks meanwhile may be on its behalf.
        trace, heard = clearance.trace, _heard_of(context)

        def begin() -> None:
            connection.under_way[trace] = what
            self._on_behalf.begin(connection.server, heard)

        def end() -> None:
            self._on_behalf.end(connection.server, heard)
            connection.under_way.pop(trace, None)

        begin()
        try:
            while True:
                try:
                    if on_started is not None and not rounds:
                        on_started(clearance)
                    return clearance, await send(clearance)
                except (DragomanError, asyncio.CancelledError) as error:
                    await self._ended(clearance, error, context)
                    if not isinstance(error, RemoteFailure):
                        raise
                    client = connection.client
                    asked = [] if client is None else client.required_elicitations(error)
                    if self._visit is None or not asked:
                        raise
                    rounds += 1
                    held = Held(clearance=clearance, what=what, again=again)
                    # It has ended for now: what the server asks meanwhile is not on its behalf.
                    end()
                    try:
                        clearance = await self._visit(connection, asked, held, error, rounds)
                    finally:
                        begin()
        finally:
            end()

    # --- flows and releases -----------------------------------------------------------------------

    def _flows(self, connection: Connection, context: Context | None) -> tuple[list[Intent], str]:
        """Which words would go where by this request, and why that has to be asked about.

        The store was looked at just now.

        Raises:
            Denied: one of the flows is forbidden.
        """
        if context is None:
            return [], ""
        flows = []
        why = []
        sinks = [(source, f"server:{connection.server}") for source in sorted(context.taint)]
        sinks.append((connection.server, context.sink))
        for source, sink in sinks:
            if not sink or sink == f"server:{source}":
                continue
            flow = connection.intent(Action.FLOW, f"{source} -> {sink}", looked=True)
            verdict = self._mediator.judge(flow, looked=True)
            # To the model that the person chose goes what they let it ask for: only a rule says
            # otherwise.
            if sink.startswith("model:") and verdict.step in (Step.DEFAULT, Step.RISK):
                continue
            if verdict.effect is Effect.DENY and verdict.code is not Code.NOBODY_TO_ASK:
                raise Denied(
                    Code.FLOW_DENIED,
                    flow.subject,
                    verdict.rule,
                    step=verdict.step,
                    server=connection.server,
                )
            if verdict.effect is not Effect.ALLOW:
                flows.append(flow)
                why.append(f"words of {source!r} may go to {sink}")
        return flows, "; ".join(why)

    def _again(
        self,
        connection: Connection,
        context: Context | None,
        intent_of: Callable[[bytes], Awaitable[Intent]],
        shown: Sequence[Intent],
    ) -> Callable[[bytes], Awaitable[Intent]]:
        """The request as it stands after a person has thought about it, and its flows.

        A flow that would have to be asked about, and is not among those that were shown, ends it:
        the yes was not for that one.
        """
        settled = {flow.object for flow in shown}

        async def again(payload: bytes) -> Intent:
            intent = await intent_of(payload)
            flows, _ = self._flows(connection, context)
            for flow in flows:
                if flow.object not in settled:
                    raise Denied(
                        Code.FLOW_DENIED,
                        flow.subject,
                        "this flow came about while the person thought: it has to be asked again",
                        step=Step.RISK,
                        server=connection.server,
                    )
            return intent

        return again

    async def _release(self, connection: Connection, clearance: Clearance, result: Record) -> None:
        """Let an answer go to whoever asked; only rules about it can stand against that."""
        intent = connection.intent(
            Action.RESULT_RELEASE, clearance.intent.object, is_destructive=False, is_read_only=True
        )
        if self._mediator.judge(intent).step is Step.DEFAULT:
            return
        view = View(
            headline=f"Release this answer of the server {connection.server!r}?",
            payload=msgspec.json.encode(result),
        )
        release = await self._mediator.clear(intent, view, trace=clearance.trace)
        await self._mediator.settle(release, "ok")

    async def _ended(
        self, clearance: Clearance, error: BaseException, context: Context | None = None
    ) -> None:
        """Record how it ended: badly."""
        status, said = "failed", type(error).__name__
        match error:
            case Denied():
                status, said = "refused", error.code
            case LinkError() | DeadlineExceeded():
                # Whether it ran, nobody knows, unless it was certainly not sent.
                if getattr(error, "sent", None) is not False:
                    status = "unknown"
            case RemoteFailure() | PeerError():
                if context is not None:
                    # What a server says of its failure are its words as well.
                    context.taint.add(clearance.intent.server)
                if isinstance(error, RemoteFailure):
                    said = f"error {error.code}"
            case asyncio.CancelledError():
                status, said = "cancelled", ""
        await self._mediator.settle(clearance, status, error=said)


# 4,096 output schemas that were read: the definitions of one server at their bound.
MAX_CHECKS = 4_096


def _heard_of(context: Context | None) -> Heard | None:
    """What a conversation has of its servers; None of what is no conversation."""
    if context is None:
        return None
    found = getattr(context, "heard", None)
    return found if isinstance(found, Heard) else None


def _taint_of(context: Context | None) -> frozenset[str]:
    return frozenset() if context is None else frozenset(context.taint)


def _as_seen(connection: Connection, changes: int, clearance: Clearance) -> None:
    """What is about to be sent is for the server as it was when that was decided; else Denied.

    The record may have waited for another process, and the loop went on meanwhile.
    """
    if connection.changes != changes:
        raise Denied(
            Code.PIN_CHANGED,
            clearance.intent.subject,
            "the server, or what it offers, has changed since that was decided",
            server=connection.server,
        )


def _client(connection: Connection) -> Client:
    client = connection.client
    if client is None:
        raise connection.unavailable()
    return client


def _patience(connection: Connection, timeout_s: float | None) -> float | None:
    """How long a request may take: what the caller says, else the server's settings."""
    return connection.entry.timeout_s if timeout_s is None else timeout_s


def _is_clean(intent: Intent) -> bool:
    """Whether what comes back holds nobody's words but those of a server that is trusted."""
    return intent.trust is Trust.TRUSTED and not intent.is_open_world


_values = msgspec.json.Decoder(dict[str, Any])


def _flow_facts(context: Context | None) -> list[tuple[str, str]]:
    if context is None:
        return []
    lines = []
    if context.taint:
        lines.append(("words of these servers came before", ", ".join(sorted(context.taint))))
    if context.sink:
        lines.append(("the answer goes to", context.sink))
    return lines
