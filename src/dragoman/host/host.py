"""The host: many servers under one user's authority.

async with Host.load("mcp.json", approver=ask_me) as host:
    print(await host.list_tools())
    await host.call_tool("github", "create_issue", {"title": "It rains in"})
"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any

import msgspec

from dragoman.client.client import OnProgress
from dragoman.errors import Misconfigured, NotNegotiated, ToolError, WrongState
from dragoman.host.asks.roots import RootState
from dragoman.host.asks.sampling import ModelSource
from dragoman.host.audit import Audit, Redactor
from dragoman.host.broker import (
    AnyApprover,
    Asked,
    Broker,
    BrokerEvent,
    Closed,
    Joined,
    Left,
    NoAnswer,
)
from dragoman.host.calls import Calls, Context, HostResult
from dragoman.host.catalogue import Catalogue, Offer
from dragoman.host.chat import ChatEvent, Conversation
from dragoman.host.config import AskInput, HostConfig, HostEntry, Secrets, load_servers
from dragoman.host.connections import Connection, ServerState, ServerStatus
from dragoman.host.definitions import Definition, cleaned
from dragoman.host.events import (
    ApprovalChanged,
    ApprovalPending,
    ApprovalResolved,
    CallFinished,
    CallProgress,
    CallStarted,
    HeldBack,
    HostEvent,
    Listeners,
    LogReceived,
    ServerChanged,
)
from dragoman.host.gate import Passage
from dragoman.host.grants import GrantStore
from dragoman.host.heard import OnBehalf
from dragoman.host.identity import ServerIdentity, identity_of
from dragoman.host.inbound import Inbound
from dragoman.host.kinds import Action, Grant, Intent, Problem, Risk, Trust, Verdict
from dragoman.host.lazy_secrets import LazySecrets
from dragoman.host.mediator import Clearance, Mediator
from dragoman.host.models.base import ChatModel
from dragoman.host.pins import Pins
from dragoman.host.policy import Policy
from dragoman.host.rules import action_named
from dragoman.host.sandbox import Root as Folder
from dragoman.host.secrets import SecretStore
from dragoman.host.settings import default_policy_paths, load_policy, project_digest
from dragoman.host.state import StateDir
from dragoman.model.completion import (
    Completion,
    PromptReference,
    ResourceTemplateReference,
)
from dragoman.model.logging import LogMessageParams
from dragoman.model.progress import ProgressParams
from dragoman.model.prompts import GetPromptResult, Prompt
from dragoman.model.resources import ReadResourceResult, Resource, ResourceTemplate
from dragoman.model.tools import Tool
from dragoman.transport.base import Connector

__all__ = ["Host", "HostTool"]

# 10 s for the servers to come up before a list is given without the slow ones.
READY_WAIT_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HostTool:
    """One tool of one server.

    `tool` is its definition with everything unseen taken out of its texts. `is_usable` says whether
    a model may see it; if not, `problems` say why. `flags` are what a person should know of it.
    """

    server: str
    tool: Tool
    is_usable: bool
    problems: tuple[Problem, ...] = ()
    flags: tuple[Risk, ...] = ()

    @property
    def name(self) -> str:
        """The tool's name at its server."""
        return self.tool.name


class Host:
    """Runs the servers of one user, asks before anything happens, and records what did.

    Make one with `Host.load`. Used with `async with`: servers connect in the background from then
    on, each with its own health. `broker` is where approvals are asked and answered, `policy` what
    the rules say, `audit` the record of everything, `grants` what was remembered.
    """

    def __init__(
        self,
        config: HostConfig,
        *,
        policy: Policy,
        state: StateDir,
        grants: GrantStore,
        audit: Audit,
        pins: Pins,
        broker: Broker,
        secrets: Secrets | None = None,
        models: Sequence[ChatModel] = (),
        principal: str = "user",
    ) -> None:
        self.config = config
        self.policy = policy
        self.state = state
        self.grants = grants
        self.audit = audit
        self.pins = pins
        self.broker = broker
        self.models: dict[str, ChatModel] = {model.name: model for model in models}
        self.principal = principal
        self.session = token_hex(8)
        # A name for each call of this session.
        self._traces = count(1)
        self._secrets = secrets
        self._listeners = Listeners()
        self._mediator = Mediator(
            policy=policy, grants=grants, audit=audit, broker=broker, session=self.session
        )
        self._connections: dict[str, Connection] = {}
        on_behalf = OnBehalf()
        self._inbound = Inbound(
            self._mediator,
            self._model_source(),
            on_roots_changed=self._tell_roots,
            context=on_behalf.words,
        )
        self._calls = Calls(self._mediator, self._connection, self._inbound.visit, on_behalf)
        self._end_of_broker = broker.on_event(self._asked)
        self._is_open = False
        self._is_closing = False
        self._reconnecting: dict[str, asyncio.Lock] = {}
        # The models that were opened here, and so are closed here.
        self._own_models: list[ChatModel] = []
        self.passages: Callable[[str, Passage], None] | None = None

    # --- making one -------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        config: str | Path,
        *,
        approver: AnyApprover | Sequence[AnyApprover] | None = None,
        rules: Sequence[str] = (),
        policy: str | Path | None = None,
        state: str | Path | None = None,
        models: Sequence[ChatModel | str] = (),
        principal: str = "user",
        inputs: AskInput | None = None,
        may_be_unset: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> Host:
        """Read the servers of an mcp.json and the policy; nothing is started.

        `approver` is asked when policy says so: an object with `decide`, or a function that gets an
        ApprovalRequest and returns a Decision, True or False; several are asked at once and the
        first answers. Without one, what is not allowed is denied. `rules` are those of the command
        line, such as "allow tool(git/git_log)". `policy` stands for the user's own policy file,
        `state` for the folder of grants and audit. `models` are ChatModels, or names such as
        "anthropic:claude-…", for chats and for what servers ask of a model.

        `inputs` asks the person for an `${input:id}` of the file. With `may_be_unset` they are
        asked for what a server needs when it is opened, and one whose variables are not all there
        has failed, while the others go on.

        Raises:
            Misconfigured: a file, a rule, a variable or a setting that cannot work, with its file,
                line and a suggestion.
        """
        servers = load_servers(config, environ, inputs, may_be_unset=may_be_unset)
        from dragoman.host.models.opening import open_model

        # Before any file is: a name that is none leaves nothing open.
        opened = [open_model(one) for one in models if isinstance(one, str)]
        folder = StateDir(state, environ=environ)
        grants = GrantStore(folder.grants)
        try:
            paths = default_policy_paths(servers.project, environ)
            # Whoever trusts a project trusts its files as they are now, not whatever comes.
            is_trusted = grants.project_digest(servers.project) == project_digest(servers.project)
            settled = load_policy(
                managed=paths.managed,
                user=paths.user if policy is None else Path(policy),
                project=paths.project,
                is_project_trusted=is_trusted,
                command_line=rules,
                servers=list(servers.servers),
                must_exist=["user"] if policy is not None else [],
            )
            pins = Pins.open(
                folder=servers.project,
                state=folder,
                grants=grants,
                rules=settled.pins,
                is_lock_trusted=is_trusted,
            )
            audit = Audit(
                folder.audit,
                settled.audit,
                redactor=Redactor(servers.secrets),
                sync="disk" if settled.audit.sync == "disk" else "process",
            )
        except BaseException:
            grants.close()
            raise
        if approver is None:
            approvers: list[AnyApprover] = []
        elif isinstance(approver, Sequence):
            approvers = list(approver)
        else:
            approvers = [approver]
        ready = iter(opened)
        host = cls(
            servers,
            policy=settled,
            state=folder,
            grants=grants,
            audit=audit,
            pins=pins,
            broker=Broker(approvers, max_waiting=settled.bounds.max_waiting),
            secrets=LazySecrets(folder.path),
            models=[next(ready) if isinstance(one, str) else one for one in models],
            principal=principal,
        )
        host._own_models += opened
        return host

    # --- opening and closing ----------------------------------------------------------------------

    async def open(self, only: Collection[str] | None = None) -> Host:
        """Begin to connect to every server, in the background; `async with` does the same.

        With `only`, to those; the others are not started. Misconfigured: there is none of a name.
        """
        if self._is_open:
            raise WrongState("open", "a host is opened once")
        names = list(self.config.servers) if only is None else only
        for name in names:
            self._entry(name)
        self._ask_for(names)
        entries = {name: self._entry(name) for name in names}
        self._is_open = True
        for name, entry in entries.items():
            self._connections[name] = self._connect(entry)
        for connection in self._connections.values():
            connection.start()
        return self

    def _ask_for(self, names: Collection[str], *, only_who: bool = False) -> None:
        """Ask for the inputs of these servers that were not asked for when the file was read."""
        self.config = self.config.asked(names, only_who=only_who)
        self.audit.redactor.add(*self.config.secrets)

    def _connect(self, entry: HostEntry) -> Connection:
        return Connection(
            entry,
            self._mediator,
            self.grants,
            self.pins,
            _Hooks(self),
            principal=self.principal,
            project=self.config.project,
        )

    async def aclose(self) -> None:
        """End every connection, every child and every question; may be called again."""
        self._is_closing = True
        self._mediator.close()
        await self.broker.aclose()
        self._end_of_broker()
        await asyncio.gather(
            *(connection.aclose() for connection in self._connections.values()),
            return_exceptions=True,
        )
        for model in self._own_models:
            await model.aclose()
        self._own_models.clear()
        await self.audit.aclose()
        self.grants.close()
        self._is_open = False

    async def __aenter__(self) -> Host:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def ready(self, wait_s: float = READY_WAIT_S) -> list[ServerStatus]:
        """Wait until every server is connected, or will not be, or has failed to be once.

        Each has `wait_s` seconds from when it was begun with: one that never answers holds up
        nobody twice. Returns how each stands then.
        """
        now = asyncio.get_running_loop().time()
        left_s = max((one.began_at + wait_s - now for one in self._on_their_way()), default=0.0)
        waiting = [asyncio.ensure_future(one.settled()) for one in self._connections.values()]
        try:
            if waiting:
                # Also without time: one that is there is seen to be there.
                await asyncio.wait(waiting, timeout=max(left_s, 0.0))
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return self.servers

    def _on_their_way(self) -> Iterator[Connection]:
        return (one for one in self._connections.values() if not one.is_settled)

    def on_event(self, listener: Callable[[HostEvent], Any]) -> Callable[[], None]:
        """Hear of everything that happens, as `dragoman.host.events`; returns what ends it."""
        return self._listeners.add(listener)

    def _asked(self, event: BrokerEvent) -> None:
        match event:
            case Asked(request=request):
                self._listeners.tell(ApprovalPending(request=request))
            case Joined(request=request) | Left(request=request):
                self._listeners.tell(ApprovalChanged(request=request))
            case Closed(request=request, decision=decision):
                self._listeners.tell(ApprovalResolved(request=request, decision=decision))
            case NoAnswer(request=request, surface=surface, reason=reason, code=code):
                # Somebody who answers for another view is a fault, or an attack on it.
                self.audit.event_soon(
                    "no_answer",
                    server=request.server,
                    text=reason,
                    trace=request.trace,
                    surface=surface,
                    code=str(code),
                )

    # --- servers ----------------------------------------------------------------------------------

    @property
    def servers(self) -> list[ServerStatus]:
        """How each server stands, in the order of the file; a disabled or dead one is there, too."""
        return [connection.status() for connection in self._connections.values()]

    def server(self, name: str) -> ServerStatus:
        """How one server stands. Misconfigured when there is none of that name."""
        return self._connection(name).status()

    async def reconnect(self, server: str) -> None:
        """Try once more to reach a server that was given up, refused or changed."""
        # One after another: of two at once, the connection of one would be nobody's.
        async with self._reconnecting.setdefault(self._connection(server).server, asyncio.Lock()):
            connection = self._connection(server)
            await connection.aclose()
            if self._is_closing:
                raise WrongState("closed", "it was closed meanwhile")
            fresh = self._connections[server] = self._connect(connection.entry)
            fresh.start()

    def _connection(self, server: str) -> Connection:
        connection = self._connections.get(server)
        if connection is None:
            if not self._is_open:
                raise WrongState("closed", "use `async with host`, or `await host.open()`")
            near = difflib.get_close_matches(server, list(self._connections), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise Misconfigured(f"{self.config.path} has no server {server!r}{hint}")
        return connection

    # --- what servers offer -----------------------------------------------------------------------

    async def list_tools(
        self, *, wait_s: float = READY_WAIT_S, all: bool = False
    ) -> list[HostTool]:
        """The tools that may be used, of every server that is there within `wait_s` seconds.

        With `all` also those that are held back, with the reason. A server that is not there is in
        `servers`, and adds nothing here.
        """
        await self.ready(wait_s)
        found = []
        for name, offer in self._offers("tool"):
            if isinstance(offer.record, Tool) and (all or offer.is_usable):
                found.append(
                    HostTool(
                        server=name,
                        tool=offer.record,
                        is_usable=offer.is_usable,
                        problems=offer.problems,
                        flags=offer.flags,
                    )
                )
        return found

    async def list_prompts(self, *, wait_s: float = READY_WAIT_S) -> list[tuple[str, Prompt]]:
        """The prompts that may be used, each with its server."""
        await self.ready(wait_s)
        return [
            (name, offer.record)
            for name, offer in self._offers("prompt")
            if isinstance(offer.record, Prompt) and offer.is_usable
        ]

    async def list_resource_templates(
        self, *, wait_s: float = READY_WAIT_S
    ) -> list[tuple[str, ResourceTemplate]]:
        """The resource templates that may be used, each with its server."""
        await self.ready(wait_s)
        return [
            (name, offer.record)
            for name, offer in self._offers("resource_template")
            if isinstance(offer.record, ResourceTemplate) and offer.is_usable
        ]

    async def list_resources(self, server: str) -> list[Resource]:
        """The resources of one server, as it lists them now, without what nobody sees.

        Raises:
            LinkError, DeadlineExceeded, RemoteFailure, PeerError: as `Client.list_resources`.
            LimitExceeded: there are more than anybody looks through.
        """
        return [
            msgspec.convert(cleaned(one), Resource)
            for one in await self._connection(server).resources()
        ]

    def _offers(self, kind: str) -> Iterable[tuple[str, Offer]]:
        for name, connection in self._connections.items():
            if connection.catalogue is not None and connection.state in _USABLE:
                for offer in connection.catalogue.offers(kind):
                    yield name, offer

    # --- asking servers ---------------------------------------------------------------------------

    async def call_tool(
        self,
        server: str,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        conversation: Context | None = None,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        trace: str = "",
        raise_on_error: bool = True,
    ) -> HostResult:
        """Call a tool, if policy or the person allows it.

        `conversation` is on whose behalf: its taint is looked at, and what comes back adds to it.
        The deadline `timeout_s` does not count while somebody thinks about the question.

        Raises:
            Denied: policy, the person or a deadline said no; `.code` says which. Nothing was sent.
            VisitRequired: the server wants the user at an address first, and it was not called
                again; `.reason` says why not.
            ToolError: the tool failed (unless `raise_on_error` is False); `.result` has it all.
            InvalidArguments: the arguments do not fit the tool's schema; nobody was asked.
            Misconfigured: there is no such server or tool.
            LinkError, DeadlineExceeded, RemoteFailure, PeerError: as `Client.call_tool`.
        """
        trace = trace or f"{self.session[:8]}{next(self._traces):08x}"
        # A folder that has gone since is not the server's any more.
        self._inbound.roots.refresh()

        def started(clearance: Clearance) -> None:
            if self._listeners.is_heard:
                self._listeners.tell(
                    CallStarted(trace=trace, server=server, tool=name, arguments=clearance.payload)
                )

        def progressed(progress: ProgressParams) -> Any:
            self._listeners.tell(
                CallProgress(trace=trace, server=server, tool=name, progress=progress)
            )
            return None if on_progress is None else on_progress(progress)

        # A server that nobody listens to is not asked to tell how far it has come.
        is_heard = on_progress is not None or self._listeners.is_heard
        try:
            result = await self._calls.call_tool(
                server,
                name,
                arguments,
                context=conversation,
                on_progress=progressed if is_heard else None,
                timeout_s=timeout_s,
                trace=trace,
                on_started=started,
            )
        except BaseException as error:
            self._listeners.tell(CallFinished(trace=trace, server=server, tool=name, error=error))
            raise
        is_error = result.raw.is_error
        if self._listeners.is_heard:
            self._listeners.tell(
                CallFinished(trace=trace, server=server, tool=name, is_error=is_error)
            )
        if is_error and raise_on_error:
            raise ToolError(result.text or "the tool gave no reason", tool=name, result=result)
        return result

    async def read_resource(
        self,
        server: str,
        uri: str,
        *,
        conversation: Context | None = None,
        timeout_s: float | None = None,
        is_own_act: bool = False,
    ) -> ReadResourceResult:
        """Read a resource, if policy or the person allows it.

        `is_own_act` says that the person named it themselves, in so many words: then only a deny
        stands against it. Never set it for what a model or a server asked for.

        Raises as `call_tool`, but ToolError and InvalidArguments.
        """
        return await self._calls.read_resource(
            server, uri, context=conversation, timeout_s=timeout_s, is_own_act=is_own_act
        )

    async def get_prompt(
        self,
        server: str,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        conversation: Context | None = None,
        timeout_s: float | None = None,
        is_own_act: bool = False,
    ) -> GetPromptResult:
        """Get a prompt, if policy or the person allows it; see `read_resource`."""
        return await self._calls.get_prompt(
            server,
            name,
            arguments,
            context=conversation,
            timeout_s=timeout_s,
            is_own_act=is_own_act,
        )

    async def complete(
        self,
        server: str,
        ref: PromptReference | ResourceTemplateReference | str,
        argument: str,
        value: str = "",
        *,
        context: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        is_own_act: bool = False,
    ) -> Completion:
        """Suggestions for an argument, as `Client.complete`; see `read_resource`."""
        if isinstance(ref, str):
            is_uri = "://" in ref or "{" in ref
            ref = ResourceTemplateReference(uri=ref) if is_uri else PromptReference(name=ref)
        return await self._calls.complete(
            server,
            ref,
            argument,
            value,
            settled=context,
            is_own_act=is_own_act,
            timeout_s=timeout_s,
        )

    def known_secrets(self) -> tuple[str, ...]:
        """The secrets that were looked up so far: they are kept out of everything written."""
        store = self._secrets
        return store.known if isinstance(store, LazySecrets | SecretStore) else ()

    # --- with a model -----------------------------------------------------------------------------

    def conversation(self, model: ChatModel | str | None = None, **options: Any) -> Conversation:
        """A conversation of the person with a model that may use the servers.

        `model` is one of the host's models, by itself or by name; without it the first.

        Raises:
            Misconfigured: there is no such model, or none at all.
        """
        return Conversation(self, self._model(model), **options)

    async def chat(
        self,
        text: str,
        model: ChatModel | str | None = None,
        *,
        is_typed: bool = True,
        **options: Any,
    ) -> AsyncGenerator[ChatEvent, None]:
        """One turn of a new conversation; see `Conversation.send`."""
        conversation = self.conversation(model, **options)
        async with aclosing(conversation.send(text, is_typed=is_typed)) as events:
            async for event in events:
                yield event

    def _model(self, model: ChatModel | str | None) -> ChatModel:
        if model is None:
            if not self.models:
                raise Misconfigured("there is no model; give Host.load one: models=[...]")
            return next(iter(self.models.values()))
        if not isinstance(model, str):
            return model
        if model not in self.models:
            from dragoman.host.models.opening import open_model

            self.models[model] = open_model(model)
            self._own_models.append(self.models[model])
        return self.models[model]

    def _model_source(self) -> ModelSource | None:
        if not self.models:
            return None
        from dragoman.host.models.sampling import SamplingModels

        return SamplingModels(list(self.models.values()))

    # --- rules, trust, pins -----------------------------------------------------------------------

    def explain(
        self,
        action: Action | str,
        server: str,
        object: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """What would be decided about something, and why: `.trail` has a line for each step.

        `action` may be the short word that rules use ("tool").

        Raises:
            Misconfigured: there is no such action or server.
        """
        intent = self._intent(action_named(str(action)), server, object, arguments)
        return self._mediator.explain(intent)

    def _intent(
        self, action: Action, server: str, object: str, arguments: Mapping[str, Any] | None
    ) -> Intent:
        connection = self._connections.get(server)
        if connection is None:
            self._entry(server)
            # What was granted was granted to who it is.
            self._ask_for([server], only_who=True)
            connection = self._connect(self._entry(server))
        more: dict[str, Any] = {}
        catalogue = connection.catalogue
        kind = {Action.TOOL_CALL: "tool", Action.PROMPT_GET: "prompt"}.get(action)
        if kind is not None and catalogue is None:
            # It does not run: what was reviewed of it is what answers are remembered for.
            catalogue = self._reviewed(connection, f"{kind}/{object}")
        offer = None
        if kind is not None and catalogue is not None:
            offer = catalogue.get(kind, object)
        if offer is not None:
            more = {
                "fingerprint": offer.definition.full,
                "problems": offer.problems,
                **offer.claims,
            }
        return connection.intent(action, object, arguments=arguments, **more)

    def _reviewed(self, connection: Connection, key: str) -> Catalogue | None:
        """The one offer of that key, as it was reviewed; None where nobody did."""
        definition = self.pins.reviewed(connection.identity, key)
        if definition is None:
            return None
        report = self.pins.review(connection.identity, [definition])
        return Catalogue([definition], report, offers=connection.entry.offers)

    def _entry(self, server: str) -> HostEntry:
        entry = self.config.servers.get(server)
        if entry is None:
            near = difflib.get_close_matches(server, list(self.config.servers), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise Misconfigured(f"{self.config.path} has no server {server!r}{hint}")
        return entry

    def identity(self, server: str) -> ServerIdentity:
        """Who a server is as it is configured now; nothing is started.

        Raises:
            Misconfigured: there is no such server, or a variable is missing without which nobody
                knows what it is.
        """
        self._entry(server)
        self._ask_for([server], only_who=True)
        entry = self._entry(server)
        if not entry.is_identified:
            raise Misconfigured("\n".join(entry.faults) or f"{entry.place}: a variable is not set")
        return identity_of(entry)

    def trust(self, server: str, level: Trust | str = Trust.TRUSTED) -> None:
        """Say what the user thinks of a server as it is configured now.

        A changed server is accepted by this, as it is now; its old grants stay with its old
        identity. Reconnect afterwards. One that is blocked is ended at once.

        Raises Misconfigured as `identity`.
        """
        identity = self.identity(server)
        self.grants.set_identity(
            server, identity.digest, identity.lines, project=self.config.project
        )
        self.grants.set_trust(server, identity.digest, Trust(level))
        connection = self._connections.get(server)
        if Trust(level) is Trust.BLOCKED and connection is not None:
            connection.block()

    async def trust_in_turn(self, server: str, level: Trust | str = Trust.TRUSTED) -> None:
        """As `trust`; the loop goes on while another process holds the store.

        One that is blocked is ended before that.
        """
        identity = self.identity(server)
        told = Trust(level)
        connection = self._connections.get(server)
        if told is Trust.BLOCKED and connection is not None:
            connection.block()
        await self.grants.in_turn(
            lambda: self.grants.set_identity(
                server, identity.digest, identity.lines, project=self.config.project
            )
        )
        await self.grants.in_turn(lambda: self.grants.set_trust(server, identity.digest, told))

    def trust_project(self) -> None:
        """Trust the project's policy and lock file as they are now; it counts from the next load."""
        folder = self.config.project
        self.grants.trust_project(folder, project_digest(folder))

    def revoke(self, grant: str) -> bool:
        """Take a remembered answer back; False when there is none of that id."""
        return self.grants.revoke(grant)

    async def revoke_in_turn(self, grant: str) -> bool:
        """As `revoke`; the loop goes on while another process holds the store."""
        return await self.grants.in_turn(lambda: self.grants.revoke(grant))

    def remembered(self, *, all: bool = False) -> Sequence[Grant]:
        """What is remembered; with `all` also what was revoked or has expired."""
        return self.grants.list(principal=self.principal, with_revoked=all)

    def accept(self, server: str, names: Sequence[str] | None = None) -> None:
        """Pin what a connected server offers now, all of it or some by name ("tool/x").

        Raises Misconfigured: it offers nothing of a name.
        """
        connection, chosen = self._chosen(server, names)
        with self._still_trusted():
            self.pins.accept(connection.identity, chosen, is_all=names is None)
        connection.repin()

    async def accept_in_turn(self, server: str, names: Sequence[str] | None = None) -> None:
        """As `accept`; the loop goes on while another process holds the store or the lock file.

        What is pinned is what was offered when this was called.
        """
        connection, chosen = self._chosen(server, names)
        identity = connection.identity
        await self._still_trusted_in_turn(
            lambda: self.pins.accept(identity, chosen, is_all=names is None, at_once=True)
        )
        connection.repin()

    def _chosen(
        self, server: str, names: Sequence[str] | None
    ) -> tuple[Connection, list[Definition]]:
        connection = self._connection(server)
        catalogue = connection.catalogue
        if catalogue is None:
            raise connection.unavailable()
        for name in names or ():
            _check_offered(server, name, catalogue.definitions)
        chosen = [
            one
            for one in catalogue.definitions
            if names is None or one.key in names or one.name in names
        ]
        return connection, chosen

    def lock(self, server: str) -> None:
        """Put what was reviewed of a connected server into the project's `dragoman.lock`.

        The file is made if need be; commit it, and who trusts the project needs no review.
        """
        connection, offered = self._chosen(server, None)
        with self._still_trusted():
            self.pins.write_lock(connection.identity, offered)

    async def lock_in_turn(self, server: str) -> None:
        """As `lock`; the loop goes on while another process holds the store or the lock file."""
        connection, offered = self._chosen(server, None)
        identity = connection.identity
        await self._still_trusted_in_turn(
            lambda: self.pins.write_lock(identity, offered, at_once=True)
        )

    @contextmanager
    def _still_trusted(self) -> Iterator[None]:
        """Keep the trust in a project over a change of its lock file by the user's own hand.

        Not if somebody else has changed its files meanwhile.
        """
        folder = self.config.project
        is_trusted = self.grants.project_digest(folder) == project_digest(folder)
        yield
        if is_trusted:
            self.trust_project()

    async def _still_trusted_in_turn(self, change: Callable[[], object]) -> None:
        """Do that, as `_still_trusted`; tried again as long as another process stands against it."""
        folder = self.config.project

        def once() -> str | None:
            is_trusted = self.grants.project_digest(folder) == project_digest(folder)
            change()
            # Of the files as they are at this moment, not after the wait that may follow.
            return project_digest(folder) if is_trusted else None

        trusted = await self.grants.in_turn(once)
        if trusted is not None:
            await self.grants.in_turn(lambda: self.grants.trust_project(folder, trusted))

    def diff(self, server: str, name: str | None = None) -> str:
        """How what a connected server offers differs from what was reviewed; empty: not at all.

        Raises Misconfigured: nothing of that name is offered, or was.
        """
        connection = self._connection(server)
        catalogue = connection.catalogue
        if catalogue is None:
            raise connection.unavailable()
        found = self.pins.diff(connection.identity, catalogue.definitions, name)
        if name is not None and not found:
            _check_offered(server, name, catalogue.definitions)
        return found

    # --- roots ------------------------------------------------------------------------------------

    def roots(self, server: str) -> list[str]:
        """The folders that are opened to a server, as file URIs."""
        return self._inbound.roots.listed(self._connection(server).server)

    def root_states(self, server: str) -> list[RootState]:
        """The same, each with where it leads and, in `.fault`, why the server is not told of it."""
        return self._inbound.roots.states(self._connection(server).server)

    def add_root(self, server: str, path: str | Path) -> RootState:
        """Open a folder to a server, and tell it.

        Where the server runs in a sandbox that does not show the folder, it is not told of it, and
        `.fault` of what is returned says so: the folder is put into the sandbox, to be read, when
        the server is started again (`reconnect`) and the person agrees.

        Raises:
            Misconfigured: it cannot be one.
        """
        root = self._inbound.roots.add(self._connection(server).server, path)
        return next(one for one in self.root_states(server) if one.root.uri == root.uri)

    def remove_root(self, server: str, path: str | Path) -> None:
        """Close a folder to a server, and tell it."""
        self._inbound.roots.remove(self._connection(server).server, path)

    def _tell_roots(self, server: str) -> None:
        connection = self._connections.get(server)
        client = None if connection is None else connection.client
        if client is not None and client.is_connected:
            # A server that was not told of roots is told nothing of them now.
            with suppress(NotNegotiated):
                client.notify_roots_changed()


_USABLE = frozenset({ServerState.CONNECTED, ServerState.RECONNECTING})


def _check_offered(server: str, name: str, definitions: Iterable[Definition]) -> None:
    known = {known for one in definitions for known in (one.name, one.key)}
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Misconfigured(f"the server {server!r} offers no {name!r}{hint}")


class _Hooks:
    """What the connections need of the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def client_options(self, connection: Connection) -> dict[str, Any]:
        return self._host._inbound.client_options(connection)

    async def starting(self, connection: Connection) -> list[Folder]:
        return await self._host._inbound.starting(connection)

    def connector(self, connection: Connection) -> Connector:
        host = self._host

        def heard(line: str) -> None:
            # A server may say its own secrets; what is shown of it does not.
            connection.heard_stderr(self.redact(line))

        connector = connection.entry.connector(
            host._secrets,
            roots=connection.folders,
            stderr=heard,
            refused=lambda what: self.held_back(connection, what),
            guarded=self._guarded(),
        )
        host.audit.redactor.add(*connection.entry.secrets, *host.known_secrets())
        return connector

    def _guarded(self) -> Iterator[Path]:
        """What no sandbox opens: what is remembered here, and where the rules stand."""
        host = self._host
        yield host.state.path
        yield default_policy_paths(host.config.project).user.parent
        sources = [one.source for one in host.policy.rules]
        sources += [one.source for one in host.policy.origins.values()]
        for source in sources:
            if file := source.rpartition(":")[0]:
                yield Path(file)

    def redact(self, text: str) -> str:
        return self._host.audit.redactor.redact(text)

    def status_changed(self, connection: Connection) -> None:
        self._host._listeners.tell(ServerChanged(status=connection.status()))

    def log_received(self, connection: Connection, params: LogMessageParams) -> None:
        self._host._listeners.tell(LogReceived(server=connection.server, message=params))

    def passed(self, connection: Connection, passage: Passage) -> None:
        if self._host.passages is not None:
            self._host.passages(connection.server, passage)

    def held_back(self, connection: Connection, what: str) -> None:
        # It did not pass either way.
        self._host.audit.event_soon("held_back", server=connection.server, text=what)
        self._host._listeners.tell(HeldBack(server=connection.server, what=what))
