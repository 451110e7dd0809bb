"""The host's servers: each with its own connection, health and deadline, in its own task.

A server that is dead, slow or waiting for a yes is visible and blocks nobody.

    WAITING (for a yes) -> CONNECTING -> CONNECTED <-> RECONNECTING -> FAILED
       \\-> REFUSED, CHANGED, BLOCKED                        (DISABLED: never started)
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import msgspec

from dragoman.client.client import CONNECT_TIMEOUT_S, Client
from dragoman.client.config import ServerEntry
from dragoman.client.supervisor import ConnectionEvent, Reconnect
from dragoman.errors import DeadlineExceeded, DragomanError, LinkError, Misconfigured
from dragoman.host.catalogue import Catalogue, read_all
from dragoman.host.config import HostEntry
from dragoman.host.definitions import Definition
from dragoman.host.gate import Gate, Passage, StartRefused
from dragoman.host.grants import GrantStore, StoreFailed
from dragoman.host.identity import ServerIdentity, diff_identity, identity_of
from dragoman.host.kinds import (
    Action,
    Code,
    Denied,
    Effect,
    Intent,
    Problem,
    Risk,
    Scope,
    Trust,
    View,
)
from dragoman.host.mediator import Clearance, Mediator
from dragoman.host.pins import PinReport, Pins, manifest_of
from dragoman.host.sandbox import Root
from dragoman.model.logging import LogMessageParams
from dragoman.model.tools import Tool
from dragoman.transport.base import Connector

__all__ = ["Connection", "ConnectionHooks", "ServerState", "ServerStatus"]

log = logging.getLogger("dragoman.host")

T = TypeVar("T")

# 30 s to start and say hello; ten more to list what it has, page by page.
LIST_TIMEOUT_S = 30.0

# 10 times within 10 s the lists are read as soon as they change; a server that goes on like that
# is read once a second, since reading and reviewing them costs the whole host time.
MAX_READS = 10
READS_WITHIN_S = 10.0

# 512 KiB of definitions are some 10 ms of digests and faults; more are looked at beside the loop.
MAX_AT_ONCE_BYTES = 512 * 1024

# 200 lines: what a person scrolls through to see why a server died.
MAX_STDERR_LINES = 200


class ServerState(StrEnum):
    """How a server stands, for people."""

    DISABLED = "disabled"
    WAITING = "waiting for approval"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    # The person, or policy, said no.
    REFUSED = "refused"
    # Its command, address or variables are not those that were reviewed.
    CHANGED = "changed"
    BLOCKED = "blocked"
    FAILED = "failed"
    CLOSED = "closed"


# From these it does not come back by itself.
SETTLED = frozenset(
    {
        ServerState.DISABLED,
        ServerState.REFUSED,
        ServerState.CHANGED,
        ServerState.BLOCKED,
        ServerState.FAILED,
        ServerState.CLOSED,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStatus:
    """One server, for people and for machines.

    `detail` is a sentence about the state: the error, the attempt, the question that is open.
    `calls_itself` is the server's own name and version, for display only. `tools` counts what may
    be used, `held_back` names what may not, with the reason. `diff` is what changed, in state
    "changed". `identity` is empty where a variable is missing without which it is not known.
    """

    server: str
    state: ServerState
    detail: str = ""
    identity: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    trust: Trust = Trust.UNKNOWN
    revision: str = ""
    calls_itself: str = ""
    tools: int = 0
    prompts: int = 0
    held_back: tuple[tuple[str, str], ...] = ()
    flags: tuple[tuple[str, str], ...] = ()
    diff: str = ""
    stderr: tuple[str, ...] = field(default=(), repr=False)

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to wait for: it is connected, or will not be."""
        return self.state is ServerState.CONNECTED or self.state in SETTLED


class ConnectionHooks(Protocol):
    """What a connection needs of the host."""

    def client_options(self, connection: Connection) -> dict[str, Any]:
        """The client's handlers for what this server may ask: none that nobody could grant."""

    async def starting(self, connection: Connection) -> Sequence[Root]:
        """The folders that its sandbox is to show; the person may be asked about some."""

    def connector(self, connection: Connection) -> Connector:
        """How to reach the server. Raises Misconfigured."""

    def redact(self, text: str) -> str:
        """A text without secrets."""

    def status_changed(self, connection: Connection) -> None:
        """Its state or its offers have changed."""

    def log_received(self, connection: Connection, params: LogMessageParams) -> None:
        """The server logs."""

    def passed(self, connection: Connection, passage: Passage) -> None:
        """A message went to the server."""

    def held_back(self, connection: Connection, what: str) -> None:
        """The gate held something back."""


class Connection:
    """One server of the host.

    `client` is its client; it is behind `gate`, so that holding it allows nothing. `catalogue` is
    what it offers, None until it was listed. `folders` are what its sandbox shows, if it has one.
    """

    def __init__(
        self,
        entry: HostEntry,
        mediator: Mediator,
        grants: GrantStore,
        pins: Pins,
        hooks: ConnectionHooks,
        *,
        principal: str = "user",
        project: Path | str = "",
    ) -> None:
        self.entry = entry
        self.project = project
        self.server = entry.name
        self.principal = principal
        self.identity: ServerIdentity = identity_of(entry)
        self.catalogue: Catalogue | None = None
        self.folders: tuple[Root, ...] = ()
        self.client: Client | None = None
        self.gate = Gate(
            self.server,
            permit=self._permit,
            on_list=self._listed,
            on_passage=lambda passage: hooks.passed(self, passage),
            on_violation=lambda what: hooks.held_back(self, what),
            redact=hooks.redact,
        )
        self.state = ServerState.DISABLED if entry.disabled else ServerState.WAITING
        #: When it was begun with, by the loop's clock.
        self.began_at = 0.0
        self.detail = ""
        self.error: DragomanError | None = None
        #: The calls under way: a sentence about each, by its trace.
        self.under_way: dict[str, str] = {}
        self._mediator = mediator
        self._grants = grants
        self._pins = pins
        self._hooks = hooks
        self._task: asyncio.Task[None] | None = None
        self._clearance: Clearance | None = None
        # The lists that are being read, and the text of their pages.
        self._reading: set[str] = set()
        self._pages: dict[tuple[str, str | None], bytes] = {}
        self._one_at_a_time = asyncio.Lock()
        self._stderr: deque[str] = deque(maxlen=MAX_STDERR_LINES)
        self._waiters: set[asyncio.Future[None]] = set()
        self._diff = ""
        # The definitions may not be what the server has now.
        self._is_stale = True
        # How often it was said that they are not.
        self._changes = 0
        # An attempt to reach it failed, and none has succeeded since.
        self._has_failed = False
        self._wake = asyncio.Event()
        # When the lists were read again.
        self._read_at: deque[float] = deque(maxlen=MAX_READS)

    # --- starting and ending ----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to connect, in a task of its own; a disabled server is left alone."""
        if self.entry.disabled or (self._task is not None and not self._task.done()):
            return
        self._move(ServerState.WAITING, "")
        loop = asyncio.get_running_loop()
        self.began_at = loop.time()
        self._task = loop.create_task(self._run())

    def block(self) -> None:
        """The user has blocked it: nothing reaches it from now on, and it is ended."""
        self.gate.shut()
        self._wake.set()

    async def aclose(self) -> None:
        """End the connection and everything behind it."""
        self.gate.shut()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._close_client()
        if self.state is not ServerState.DISABLED:
            self._move(ServerState.CLOSED, "")

    async def _close_client(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            await client.aclose()

    async def _run(self) -> None:
        try:
            await self._begin()
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._follow()
        except Denied as denied:
            await self._end(_STATES.get(denied.code, ServerState.REFUSED), denied)
        except StartRefused as refused:
            code = refused.denied.code
            await self._end(_STATES.get(code, ServerState.REFUSED), refused.denied)
        except DragomanError as error:
            await self._end(ServerState.FAILED, error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("the connection to %s failed", self.server)
            await self._end(
                ServerState.FAILED, LinkError(f"a fault of the host: {type(error).__name__}")
            )

    async def _begin(self) -> None:
        if self.entry.faults:
            # Before anybody is asked about it: it could not be started.
            raise Misconfigured("; ".join(self.entry.faults))
        self._clearance = await self._may_start()
        await self._mediator.settle(self._clearance, "ok")
        self._move(ServerState.CONNECTING, "")
        self.folders = tuple(await self._hooks.starting(self))
        connector = self.gate.guard(await self._connector())
        self.client = Client(
            connector,
            reconnect=Reconnect(first_connect=True, max_tries=MAX_TRIES),
            connect_timeout_s=self.entry.start_timeout_s or CONNECT_TIMEOUT_S,
            check_output=False,
            on_connection=self._connection_changed,
            on_tools_changed=self._changed,
            on_prompts_changed=self._changed,
            on_resources_changed=self._changed,
            on_log=lambda params: self._hooks.log_received(self, params),
            **self._hooks.client_options(self),
        )
        await self.client.connect()
        await self._review()

    async def _connector(self) -> Connector:
        if not self.entry.needs_secrets:
            return self._hooks.connector(self)
        # A keyring may wait for the person to unlock it, for as long as they like.
        self._move(ServerState.CONNECTING, "its secrets are looked up")
        connector = await _beside(lambda: self._hooks.connector(self))
        self._move(ServerState.CONNECTING, "")
        return connector

    async def _follow(self) -> None:
        """Keep up with what changed."""
        if self._shown_trust() is Trust.BLOCKED:
            (problem,) = self._identity_problems()[-1:]
            raise Denied(problem.code, f"going on with {self.server}", problem.text)
        if self._is_stale:
            await self._take_time()
        client = self.client
        if client is None or client.connection_state == "lost":
            raise self.error or LinkError("the connection was given up")
        if client.is_connected and self._is_stale:
            try:
                await self._review()
            except (LinkError, DeadlineExceeded) as error:
                # The next session reads them anew; until then nothing stale is used.
                self._move(ServerState.RECONNECTING, str(error))

    async def _take_time(self) -> None:
        """Wait, where the lists were read too often of late."""
        loop = asyncio.get_running_loop()
        if len(self._read_at) == MAX_READS:
            wait_s = self._read_at[0] + READS_WITHIN_S - loop.time()
            if wait_s > 0:
                self._move(self.state, "it changes what it offers all the time; it is not followed")
                await asyncio.sleep(wait_s)
        self._read_at.append(loop.time())

    async def _end(self, state: ServerState, error: DragomanError) -> None:
        self.error = error
        self.gate.shut()
        self._diff = getattr(error, "diff", "")
        self._move(state, str(error))
        await self._close_client()

    # --- the decision to start --------------------------------------------------------------------

    @property
    def trust(self) -> Trust:
        """What the user thinks of the server with this identity. Raises Denied: it is not known."""
        return self._trust()

    def _trust(self, *, looked: bool = False) -> Trust:
        try:
            return self._grants.trust_of(self.identity.digest, looked=looked)
        except StoreFailed as failed:
            raise self._unread(failed) from None

    @property
    def changes(self) -> int:
        """How often it was said that the server, or what it offers, is not what it was."""
        return self._changes

    @contextmanager
    def _stored(self) -> Iterator[None]:
        """Without the store nothing is allowed: Denied in place of StoreFailed."""
        try:
            yield
        except StoreFailed as failed:
            raise self._unread(failed) from None

    def _unread(self, failed: StoreFailed) -> Denied:
        return Denied(
            Code.STORE_FAILED,
            f"anything of {self.server}",
            f"what was allowed cannot be read: {failed}",
            server=self.server,
        )

    def intent(
        self, action: Action, object: str = "", *, looked: bool = False, **more: Any
    ) -> Intent:
        """Something wanted of this server. `looked`: see `GrantStore.look`."""
        return Intent(
            action=action,
            server=self.server,
            identity=self.identity.digest,
            object=object,
            principal=self.principal,
            trust=self._trust(looked=looked),
            **more,
        )

    def _identity_problems(self) -> tuple[Problem, ...]:
        """What stands against the server as it is configured now."""
        now = identity_of(self.entry)
        with self._stored():
            known = self._grants.last_identity(self.server, self.project)
        problems = []
        before = None
        if now.digest != self.identity.digest:
            before = self.identity.lines
        elif known is not None and known[0] != now.digest:
            before = known[1]
        if before is not None:
            problems.append(
                Problem(
                    code=Code.IDENTITY_CHANGED,
                    text=f"the server {self.server!r} is not what was approved under this name; "
                    f"look at the difference, then: dragoman host trust {self.server}",
                    diff=diff_identity(before, now.lines),
                )
            )
        if self.trust is Trust.BLOCKED:
            problems.append(
                Problem(code=Code.SERVER_BLOCKED, text=f"the server {self.server!r} is blocked")
            )
        return tuple(problems)

    async def _may_start(self) -> Clearance:
        """Ask whether the server may be started or reached. Raises Denied."""
        is_child = isinstance(self.entry.entry, ServerEntry)
        intent = self.intent(
            Action.SERVER_START if is_child else Action.SERVER_CONNECT,
            problems=self._identity_problems(),
        )
        view = View(
            headline=f"Start the server {self.server!r} on this machine, with your rights?"
            if is_child
            else f"Connect to the server {self.server!r}?",
            payload=msgspec.json.encode(dict(self.identity.lines)),
            facts=tuple(("folder it may use", one.uri) for one in self.entry.roots),
        )
        if self._mediator.judge(intent).effect is Effect.ASK:
            self._move(ServerState.WAITING, "its start has to be approved")
        clearance = await self._mediator.clear(
            intent, view, again=self._again, risks=self.identity.risks
        )
        try:
            with self._stored():
                await self._grants.in_turn(self._keep_identity)
                await self._grants.in_turn(self._keep_trust)
        except Denied as denied:
            await self._mediator.settle(clearance, "refused", error=denied.code)
            raise
        return clearance

    def _keep_identity(self) -> None:
        """What was approved is what this server is from now on."""
        if self._grants.last_identity(self.server, self.project) is None:
            self._grants.set_identity(
                self.server, self.identity.digest, self.identity.lines, project=self.project
            )

    def _keep_trust(self) -> None:
        if self._grants.trust_of(self.identity.digest) is Trust.UNKNOWN:
            self._grants.set_trust(self.server, self.identity.digest, Trust.REVIEWED)

    async def _again(self, payload: bytes) -> Intent:
        is_child = isinstance(self.entry.entry, ServerEntry)
        return self.intent(
            Action.SERVER_START if is_child else Action.SERVER_CONNECT,
            problems=self._identity_problems(),
        )

    async def _permit(self) -> int:
        """Whether a start, or another start, is still what was allowed. Raises Denied."""
        clearance = self._clearance
        intent = await self._again(b"")
        verdict = self._mediator.judge(intent)
        if clearance is None or intent.problems or verdict.effect is Effect.DENY:
            problem = intent.problems[0] if intent.problems else None
            raise Denied(
                problem.code if problem else verdict.code or Code.RULE_DENIED,
                intent.subject,
                problem.text if problem else verdict.rule,
                server=self.server,
                diff=problem.diff if problem else "",
            )
        return clearance.decision

    # --- what it offers ---------------------------------------------------------------------------

    def _listed(self, method: str, cursor: str | None, raw: bytes) -> None:
        # Only what is being waited for: a server may send megabytes with each page.
        if method in self._reading:
            self._pages[method, cursor] = raw

    def _changed(self) -> None:
        """The server says that its lists have changed: nothing of them is used until read anew."""
        self._changes += 1
        self._is_stale = True
        self._wake.set()

    def _connection_changed(self, event: ConnectionEvent) -> None:
        self.error = event.error or self.error
        if event.kind == "retrying":
            self._has_failed = True
        if event.kind == "restored":
            self._has_failed = False
            if event.is_new_session:
                self._changes += 1
                self._is_stale = True
            self._move(ServerState.CONNECTED if not self._is_stale else self.state, "")
        elif event.kind in ("lost", "retrying"):
            # Whoever is there when it comes back may offer something else under the same names.
            self._changes += 1
            self._is_stale = True
            is_first = self.state in (ServerState.CONNECTING, ServerState.WAITING)
            said = f"{event}"
            if event.kind == "retrying" and self.error is not None:
                said += f": {self.error}"
            self._move(ServerState.CONNECTING if is_first else ServerState.RECONNECTING, said)
        self._wake.set()

    async def fresh(self, timeout_s: float = LIST_TIMEOUT_S) -> Catalogue:
        """What the server offers now; read anew if it has said that something changed.

        The store was looked at when it returns; see `GrantStore.look`.

        Raises:
            LinkError: the server cannot be reached, or is not approved; `sent` is False.
            DeadlineExceeded: it does not say in time.
            Denied: what was allowed cannot be read.
        """
        while True:
            if self.catalogue is None or self._is_stale:
                await self._until_fresh(timeout_s)
            try:
                await self._grants.look()
            except StoreFailed as failed:
                raise self._unread(failed) from None
            # The look may have waited for another process.
            if self.catalogue is not None and not self._is_stale:
                return self.catalogue

    async def _until_fresh(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while self.catalogue is None or self._is_stale:
                    if self.state in SETTLED:
                        raise self.unavailable()
                    self._wake.set()
                    await self._news()
        except TimeoutError:
            raise DeadlineExceeded(
                f"listing what {self.server} offers",
                timeout_s,
                f"it is {self.state}: {self.detail}",
            ) from None

    def unavailable(self) -> DragomanError:
        """Why the server cannot be used now."""
        error = self.error
        if isinstance(error, Denied):
            return error
        text = f"the server {self.server!r} is {self.state}"
        if self.detail:
            text += f": {self.detail}"
        return LinkError(text, sent=False)

    async def _review(self) -> None:
        """Read the lists, hold them against the pins, and ask about a server that is new."""
        client = self.client
        assert client is not None
        # Until it is read, what was read before is not used; nor if it changes meanwhile.
        changes = self._changes
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                definitions = await self._read(client)
        except TimeoutError:
            raise DeadlineExceeded("listing what the server offers", LIST_TIMEOUT_S) from None
        report = self._pins.review(self.identity, definitions)
        catalogue = Catalogue(definitions, report, offers=self.entry.offers)
        if report.needs_review:
            if self.catalogue is not None:
                # What was reviewed before stays of use while somebody looks at what is new.
                self._take(catalogue, changes)
            report = await self._ask_to_expose(catalogue)
            catalogue = Catalogue(definitions, report, offers=self.entry.offers)
        self._take(catalogue, changes)
        if not self._is_stale:
            self._move(ServerState.CONNECTED, _summary(report))

    def _take(self, catalogue: Catalogue, changes: int) -> None:
        """Use what was read when it had been said so often that something changed."""
        self.catalogue = catalogue
        if self.client is not None:
            tools = (offer.record for offer in catalogue.offers("tool"))
            self.client.know_tools(tool for tool in tools if isinstance(tool, Tool))
        self._is_stale = self._changes != changes

    async def _read(self, client: Client) -> list[Definition]:
        has = client.server_capabilities
        found: list[Definition] = []
        spent = 0
        wanted: list[tuple[str, Callable[[str | None], Awaitable[Any]]]] = []
        if has.tools is not None:
            wanted.append(("tools/list", client.list_tools_page))
        if has.prompts is not None:
            wanted.append(("prompts/list", client.list_prompts_page))
        if has.resources is not None:
            wanted.append(("resources/templates/list", client.list_resource_templates_page))
        for method, ask in wanted:
            listed, spent = await self._list(method, ask, spent)
            found += listed
        if client.instructions:
            found.append(Definition.of("instructions", {"text": client.instructions}))
        if spent > MAX_AT_ONCE_BYTES:
            await asyncio.to_thread(_look_at, found)
        return found

    async def _list(
        self, method: str, ask: Callable[[str | None], Awaitable[Any]], spent: int = 0
    ) -> tuple[list[Definition], int]:
        """All of one list, and how many bytes were read by now."""
        self._reading.add(method)
        try:
            return await read_all(method, ask, self._pages, spent_bytes=spent)
        finally:
            self._reading.discard(method)
            for page in [one for one in self._pages if one[0] == method]:
                del self._pages[page]

    async def resources(self) -> list[Definition]:
        """What resources it lists now. They are not pinned: they come and go.

        Raises:
            LinkError, DeadlineExceeded, RemoteFailure, PeerError: as for any list.
            LimitExceeded: there are more than anybody looks through.
        """
        await self.fresh()
        client = self.client
        if client is None:
            raise self.unavailable()
        if client.server_capabilities.resources is None:
            return []
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(LIST_TIMEOUT_S):
                    return (await self._list("resources/list", client.list_resources_page))[0]
            except TimeoutError:
                raise DeadlineExceeded("listing its resources", LIST_TIMEOUT_S) from None

    async def _ask_to_expose(self, catalogue: Catalogue) -> PinReport:
        """Show what is new to the person; what they accept is pinned."""
        new = catalogue.report.to_review
        fit = [one for one in catalogue.definitions if one.key in new]
        # Apart from ours: a server's own member "kind" must not take the place of it.
        shown = msgspec.json.encode([{"kind": one.kind, "definition": one.raw} for one in fit])
        names = ", ".join(f"{one.kind} {one.name}".strip() for one in fit)
        # For these very definitions: a later one is another question.
        intent = self.intent(
            Action.TOOL_EXPOSE, "*", fingerprint=manifest_of({one.key: one.full for one in fit})
        )
        if self._mediator.judge(intent).effect is Effect.ASK:
            self._move(ServerState.WAITING, "what it offers has to be reviewed")
        what = "this offer" if len(fit) == 1 else f"these {len(fit)} offers"
        view = View(
            headline=f"Let models see and ask for {what} of {self.server!r}?",
            payload=shown,
            facts=(("offers", names), *self.identity.lines),
        )
        risks = [
            Risk(code=flag.code, text=f"{one.name}: {flag.text}")
            for one in catalogue.definitions
            if one.key in new and (offer := catalogue.get(one.kind, one.name)) is not None
            for flag in offer.flags
        ]
        try:
            clearance = await self._mediator.clear(
                intent, view, risks=risks, scopes=(Scope.SESSION, Scope.ALWAYS)
            )
        except Denied:
            # They stay hidden; the server is of no use, but nobody is hurt.
            return catalogue.report
        is_for_now = clearance.scope is Scope.SESSION
        await self._grants.in_turn(
            lambda: self._pins.accept(self.identity, fit, session_only=is_for_now, at_once=True)
        )
        await self._mediator.settle(clearance, "ok")
        return self._pins.review(self.identity, catalogue.definitions)

    def repin(self) -> None:
        """Compare what is offered with the pins once more: they have changed."""
        if self.catalogue is not None:
            definitions = self.catalogue.definitions
            report = self._pins.review(self.identity, definitions)
            self.catalogue = Catalogue(definitions, report, offers=self.entry.offers)
            self._move(self.state, _summary(report))

    # --- how it stands ----------------------------------------------------------------------------

    def heard_stderr(self, line: str) -> None:
        """Keep a line that the server wrote to its stderr."""
        self._stderr.append(line)

    def status(self) -> ServerStatus:
        """How it stands now."""
        catalogue, client = self.catalogue, self.client
        offers = (
            []
            if catalogue is None
            else [
                offer
                for kind in ("tool", "prompt", "resource_template", "instructions")
                for offer in catalogue.offers(kind)
            ]
        )
        about = ""
        revision = ""
        if client is not None and client.connection_state not in ("closed", "connecting"):
            about = f"{client.server_info.name} {client.server_info.version}"
            revision = client.protocol_version
        usable = [offer for offer in offers if not offer.problems]
        return ServerStatus(
            server=self.server,
            state=self.state,
            detail=self.detail,
            identity=self.identity.digest if self.entry.is_identified else "",
            facts=self.identity.lines,
            trust=self._shown_trust(),
            revision=revision,
            calls_itself=about,
            tools=sum(offer.definition.kind == "tool" for offer in usable),
            prompts=sum(offer.definition.kind == "prompt" for offer in usable),
            held_back=tuple(
                (f"{offer.definition.kind} {offer.name}".strip(), offer.problems[0].text)
                for offer in offers
                if offer.problems
            ),
            flags=tuple(
                (f"{offer.definition.kind} {offer.name}".strip(), flag.text)
                for offer in offers
                for flag in offer.flags
            ),
            diff=self._diff,
            stderr=tuple(self._stderr),
        )

    def _shown_trust(self) -> Trust:
        if self.state is ServerState.CHANGED:
            return Trust.CHANGED
        try:
            return self.trust
        except Denied:
            # How it stands is to be seen all the same.
            return Trust.UNKNOWN

    @property
    def is_settled(self) -> bool:
        """Whether it is connected, or will not be, or an attempt to reach it has failed."""
        return (
            self.state in SETTLED
            or self._has_failed
            or (self.state is ServerState.CONNECTED and not self._is_stale)
        )

    async def settled(self) -> None:
        """Wait until it is."""
        while not self.is_settled:
            await self._news()

    async def _news(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _move(self, state: ServerState, detail: str) -> None:
        # An error may quote what the server printed when it died.
        detail = self._mediator.audit.redactor.redact(detail)
        if (state, detail) != (self.state, self.detail):
            self.state, self.detail = state, detail
            log.info("%s is %s%s", self.server, state, f": {detail}" if detail else "")
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._hooks.status_changed(self)


# 8 attempts are about a minute: then the person should look, and `reconnect` is a word away.
MAX_TRIES = 8

_STATES = {
    Code.IDENTITY_CHANGED: ServerState.CHANGED,
    Code.SERVER_BLOCKED: ServerState.BLOCKED,
    # Nobody said no.
    Code.STORE_FAILED: ServerState.FAILED,
    Code.AUDIT_FAILED: ServerState.FAILED,
}


async def _beside(work: Callable[[], T]) -> T:
    """Do something in a thread of its own, which holds up neither the loop nor the end of all."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", result))

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - handed on to whoever waits
            error = raised
        # The loop may be closed by now.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name="dragoman-secrets", daemon=True).start()
    return await done


def _look_at(definitions: Sequence[Definition]) -> None:
    """Work out what a definition keeps of itself: it takes most of the time of a review."""
    for one in definitions:
        _ = one.full, one.contract, one.problems, one.risks


def _summary(report: PinReport) -> str:
    """What of its offers is held back, in a few words."""
    return report.summary
