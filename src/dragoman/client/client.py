"""The client: one connection to one server, as typed calls.

async with Client("server.py") as client:
    tools = await client.list_tools()
    result = await client.call_tool("forecast", {"city": "Paris"}, on_progress=print)
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, cast

import msgspec

from dragoman.client.callbacks import Callbacks
from dragoman.client.outputs import Output, Outputs
from dragoman.client.repeats import HARMLESS, Ask, ask_again
from dragoman.client.results import ToolResult
from dragoman.client.roots import RootLike, as_roots
from dragoman.client.supervisor import (
    ConnectionEvent,
    ConnectionState,
    Reconnect,
    Supervisor,
)
from dragoman.client.targets import HttpLike, Mode, Target, Token, connector_for
from dragoman.errors import (
    DragomanError,
    InvalidParams,
    LinkError,
    LocalError,
    Misconfigured,
    NotNegotiated,
    PeerError,
    Refused,
    RemoteFailure,
    RequestError,
    ToolError,
    UrlElicitationRequired,
    WrongState,
)
from dragoman.model.base import EmptyResult, Implementation, Meta, NoParams, PageParams, Record
from dragoman.model.capabilities import (
    ClientCapabilities,
    ElicitationCapability,
    RootsCapability,
    SamplingCapability,
    ServerCapabilities,
)
from dragoman.model.checks import check_elicitation, check_sampling, check_sampling_result
from dragoman.model.completion import (
    CompleteParams,
    CompleteResult,
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)
from dragoman.model.content import SamplingBlock, TextContent
from dragoman.model.elicitation import ElicitationCompleteParams, ElicitParams, ElicitResult
from dragoman.model.faults import find_faults
from dragoman.model.logging import LoggingLevel, LogMessageParams, SetLevelParams
from dragoman.model.methods import Side
from dragoman.model.progress import ProgressParams
from dragoman.model.prompts import GetPromptParams, GetPromptResult, ListPromptsResult, Prompt
from dragoman.model.resources import (
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    ResourceUpdatedParams,
    UriParams,
)
from dragoman.model.roots import ListRootsResult, Root
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult
from dragoman.model.tools import CallToolParams, CallToolResult, ListToolsResult, Tool
from dragoman.protocol.calls import Exchange
from dragoman.protocol.engine import Engine, Introduction
from dragoman.protocol.events import Degraded, Event, Fault, FaultKind, NotificationArrived
from dragoman.protocol.limits import Limits
from dragoman.protocol.negotiation import check_params
from dragoman.revisions.registry import supported
from dragoman.runtime.driver import Driver, Tap, report_failure

__all__ = ["CONNECT_TIMEOUT_S", "Client", "OnProgress"]

log = logging.getLogger("dragoman.client")

R = TypeVar("R", bound=Record)

OnProgress = Callable[[ProgressParams], Any]
"""Called with `.progress`, `.total` and `.message`; may be async."""

SamplingAnswer = CreateMessageResult | SamplingBlock | str
ElicitationAnswer = ElicitResult | Mapping[str, Any] | None
SamplingHandler = Callable[[CreateMessageParams], Awaitable[SamplingAnswer] | SamplingAnswer]
ElicitationHandler = Callable[[ElicitParams], Awaitable[ElicitationAnswer] | ElicitationAnswer]
RootsSource = Callable[[], Iterable[RootLike] | Awaitable[Iterable[RootLike]]]
Roots = Iterable[RootLike] | RootsSource

# 30 s: an interpreter with heavy imports on a cold disk takes ten; a hung child should not take
# a whole call's deadline to be noticed.
CONNECT_TIMEOUT_S = 30.0

# 1,000 pages of 500 entries; a server that has more is not listing, it is looping.
MAX_PAGES = 1_000

# client/sampling#error-handling
USER_REJECTED = -1

# 32 at once: restoring a thousand subscriptions over a slow line should not take a thousand turns,
# nor look like an attack.
RESTORED_AT_ONCE = 32


class Client:
    """Talks to one server.

    `target` is a URL, a script ("server.py"), a command line as a list, a `Server` object or a
    connector. `env` and `cwd` are for a child; `headers`, `token` (a bearer token, or a function
    that gives one), `http` (HttpOptions, or an HTTP client of your own) and `http_mode`
    ("streamable" or "sse", to try nothing else) for a URL. `revision` pins one revision of the
    protocol. `timeout_s` is the default deadline of a request, counted from its last sign of life
    (60 s unless `limits` say otherwise), `total_s` that of a request as a whole;
    `connect_timeout_s` that of the opening.

    A connection that breaks is restored by itself, as `reconnect` says (False: it is not); see
    `Reconnect`. `on_connection` hears of it, as ConnectionEvents. A request that met the break is
    repeated if it certainly did not run, or may run twice: the method only reads, or the caller
    said so (`call_tool(..., idempotent=True)`), or, with `trusts_annotations`, the server did, of
    a tool that was listed. Otherwise it ends with a LinkError; `.sent` says whether it may have run.

    Callbacks may be sync or async: `on_log` (a LogMessageParams), `on_progress` (the default for
    every call), `on_tools_changed`, `on_resources_changed`, `on_prompts_changed` (no argument; also
    called after a new session was opened), `on_resource_updated` (the URI),
    `on_elicitation_complete` (the id), `on_fault` (a protocol fault of the server), `on_junk` (a
    line of the server that is no message), `on_stderr` (a line), `on_wire` ("sent" or "received",
    the frame; sync, must not block; one that raises is logged and not called again).

    Handlers make the client offer a feature: `sampling_handler` gets a CreateMessageParams and
    returns a CreateMessageResult or a text (`sampling_tools` and `sampling_context` say that it
    takes tools and `include_context`); `elicitation_handler` gets an ElicitParams and returns
    an ElicitResult, a dict (accepted) or None (declined); `roots` are paths, file URIs or a
    function that returns them. A handler that raises `Refused` says that the user said no.

    `keep_alive_s` pings after that much silence; a ping without an answer within
    `keep_alive_timeout_s` (the same, unless given) breaks the connection. `check_output` holds the
    structured results of tools against their output schemas.

    Raises:
        Misconfigured: a target or setting that cannot work.
    """

    def __init__(
        self,
        target: Target,
        *,
        name: str = "dragoman",
        version: str = "0",
        title: str | None = None,
        revision: str | None = None,
        timeout_s: float | None = None,
        total_s: float | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        reconnect: Reconnect | bool = True,
        trusts_annotations: bool = False,
        limits: Limits | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        http: HttpLike | None = None,
        headers: Mapping[str, str] | None = None,
        token: Token | None = None,
        http_mode: Mode = "auto",
        roots: Roots | None = None,
        sampling_handler: SamplingHandler | None = None,
        sampling_tools: bool = False,
        sampling_context: bool = False,
        elicitation_handler: ElicitationHandler | None = None,
        elicitation_url: bool = False,
        on_log: Callable[[LogMessageParams], Any] | None = None,
        on_progress: OnProgress | None = None,
        on_tools_changed: Callable[[], Any] | None = None,
        on_resources_changed: Callable[[], Any] | None = None,
        on_prompts_changed: Callable[[], Any] | None = None,
        on_resource_updated: Callable[[str], Any] | None = None,
        on_elicitation_complete: Callable[[str], Any] | None = None,
        on_fault: Callable[[Fault], Any] | None = None,
        on_junk: Callable[[bytes], Any] | None = None,
        on_stderr: Callable[[str], Any] | None = None,
        on_wire: Tap | None = None,
        on_connection: Callable[[ConnectionEvent], Any] | None = None,
        keep_alive_s: float | None = None,
        keep_alive_timeout_s: float | None = None,
        check_output: bool = True,
        experimental: dict[str, Any] | None = None,
    ) -> None:
        self._dialects = supported(revision)
        self._info = Implementation(name=name, version=version, title=title)
        self._limits = _limits(limits or Limits(), timeout_s, total_s)
        policy = Reconnect() if reconnect is True else reconnect or None
        self._supervisor = Supervisor(
            connector_for(
                target,
                env=env,
                cwd=cwd,
                on_stderr=on_stderr,
                http=http,
                headers=headers,
                token=token,
                mode=http_mode,
            ),
            self,
            policy=policy,
            connect_timeout_s=connect_timeout_s,
            keep_alive_s=keep_alive_s,
            keep_alive_timeout_s=keep_alive_timeout_s,
            tap=on_wire,
        )
        self._on_connection = on_connection
        self._trusts_annotations = trusts_annotations
        self._check_output = check_output
        self._roots: RootsSource | None = None
        if callable(roots):
            self._roots = roots
        elif roots is not None:
            fixed = as_roots(roots)
            self._roots = lambda: fixed
        self._sampling = sampling_handler
        self._elicitation = elicitation_handler
        self._on_progress = on_progress
        self._on_log = on_log
        self._on_changed: dict[str, Callable[[], Any] | None] = {
            "notifications/tools/list_changed": on_tools_changed,
            "notifications/resources/list_changed": on_resources_changed,
            "notifications/prompts/list_changed": on_prompts_changed,
        }
        self._on_resource_updated = on_resource_updated
        self._on_elicitation_complete = on_elicitation_complete
        self._on_fault = on_fault
        self._on_junk = on_junk
        self._capabilities = ClientCapabilities(
            roots=RootsCapability(list_changed=True) if roots is not None else None,
            sampling=SamplingCapability(
                tools={} if sampling_tools else None, context={} if sampling_context else None
            )
            if sampling_handler is not None
            else None,
            elicitation=ElicitationCapability(form={}, url={} if elicitation_url else None)
            if elicitation_handler is not None
            else None,
            experimental=experimental,
        )
        self._callbacks = Callbacks()
        self._outputs = Outputs()
        self._elicitations: OrderedDict[str, None] = OrderedDict()
        # Tools that the server says may be called twice, as far as they were listed.
        self._repeatable: set[str] = set()
        # What a new session has to be told.
        self._log_level: LoggingLevel | None = None
        self._subscribed: dict[str, None] = {}
        # Which lists may differ in the new session.
        self._stale: tuple[str, ...] = ()

    # --- connecting -------------------------------------------------------------------------------

    async def connect(self) -> Client:
        """Open the connection; `async with` does the same.

        Raises:
            LinkError: the server cannot be reached, or ended; with its stderr and exit code.
            DeadlineExceeded: it does not answer.
            PeerError: it speaks no revision that we speak.
            RemoteFailure: it refused.
            WrongState: the client is connected already, or about to be.
            ValueError: what the client says of itself is no JSON.
        """
        try:
            await self._supervisor.connect()
        except BaseException:
            if self._supervisor.state is ConnectionState.CLOSED:
                await self._callbacks.aclose()
            raise
        return self

    async def aclose(self) -> None:
        """Close the connection and everything behind it; may be called again, from any task."""
        state = self._supervisor.state
        if state is ConnectionState.CLOSED or state is ConnectionState.CONNECTING:
            return
        # Nothing outlives its session: no schema, no id.
        self._forget_session()
        self._log_level = None
        self._subscribed.clear()
        try:
            await self._supervisor.aclose()
        finally:
            await self._callbacks.aclose()

    def _forget_session(self) -> None:
        self._outputs.forget()
        self._elicitations.clear()
        self._repeatable.clear()

    async def __aenter__(self) -> Client:
        return await self.connect()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _known(self) -> Engine:
        """What is known of the server, also while it cannot be reached."""
        known = self._supervisor.known
        if known is None:
            raise self._not_open()
        return known.engine

    def _not_open(self) -> WrongState:
        return WrongState("closed", "use `async with Client(...)`, or `await client.connect()`")

    def __repr__(self) -> str:
        state: str = "not connected"
        if self.is_connected:
            state = f"connected in {self.protocol_version}"
        elif self.connection_state != "closed":
            state = self.connection_state
        return f"<Client of {self._supervisor.connector.description!r}: {state}>"

    # --- who is there -----------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the server can be reached now, as far as is known."""
        driver = self._supervisor.driver
        return driver is not None and not driver.closed.done()

    @property
    def connection_state(self) -> str:
        """How things stand, for people.

        "closed", "connecting", "connected", "reconnecting" or "lost": given up.
        """
        supervisor = self._supervisor
        if supervisor.state is ConnectionState.CONNECTED and not self.is_connected:
            return ConnectionState.RECONNECTING.value
        return supervisor.state.value

    @property
    def server_info(self) -> Implementation:
        """The server's own words about itself: for display, never to trust."""
        peer = self._known().peer
        assert peer is not None
        return peer

    @property
    def server_capabilities(self) -> ServerCapabilities:
        """What the server declared."""
        capabilities = self._known().peer_capabilities
        assert isinstance(capabilities, ServerCapabilities)
        return capabilities

    @property
    def protocol_version(self) -> str:
        """The revision that was agreed on."""
        return self._known().dialect.wire

    @property
    def instructions(self) -> str | None:
        """How the server wants to be used; text for a model, from a stranger."""
        return self._known().instructions

    def required_elicitations(self, error: RemoteFailure) -> list[ElicitParams]:
        """What the server wants done first, of the error -32042 by which it refused a request.

        Each has a URL, and an id of its own. Empty when the error is another one, or where that
        number means nothing: the revision, or this client, has no elicitation in URL mode.

        Raises:
            PeerError: the error says nothing of use.

        Spec: client/elicitation#url-elicitation-required-error
        """
        if error.code != UrlElicitationRequired.code:
            return []
        any_url = ElicitParams(message="", mode="url", url="about:blank")
        try:
            check_params(any_url, self._known().dialect, self._capabilities)
        except LocalError:
            return []
        data = error.data
        listed = data.get("elicitations") if isinstance(data, dict) else None
        try:
            if not isinstance(listed, list) or not listed:
                raise ValueError("it lists no elicitation")
            found = [msgspec.convert(one, ElicitParams) for one in listed]
            if any(one.mode != "url" or not one.elicitation_id for one in found):
                raise ValueError("each elicitation in it has the mode url, and an id")
            if len({one.elicitation_id for one in found}) < len(found):
                raise ValueError("two elicitations in it have the same id")
            for one in found:
                check_elicitation(one)
        except ValueError as fault:
            raise PeerError(
                f"the server's error {error.code} cannot be followed: {fault}"
            ) from error
        return found

    # --- asking -----------------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        params: Record,
        result: type[R],
        *,
        timeout_s: float | None = None,
        total_s: float | None = None,
        on_progress: OnProgress | None = None,
        is_harmless: bool = False,
    ) -> R:
        """Ask, and ask again where that is right; `is_harmless` says that twice is as good as once.

        Raises as `call_tool`.
        """
        driver = self._supervisor.driver
        limits = self._limits
        if total_s is None and timeout_s is not None and timeout_s > limits.call_total_s:
            # Whoever waits longer than any request may take in all means it.
            total_s = timeout_s
        hear = on_progress or self._on_progress
        heard = None if hear is None else partial(self._callbacks.call, hear)
        began = None
        failure: LinkError | None = None
        try:
            if driver is not None:
                began = driver.clock.now()
                try:
                    answer = await driver.request(
                        method, params, timeout_s=timeout_s, total_s=total_s, on_progress=heard
                    )
                except LinkError as error:
                    failure = error
            if driver is None or failure is not None:
                supervisor = self._supervisor
                ask = Ask(
                    method=method,
                    params=params,
                    timeout_s=limits.call_timeout_s if timeout_s is None else timeout_s,
                    total_s=limits.call_total_s if total_s is None else total_s,
                    began=supervisor.clock.now() if began is None else began,
                    on_progress=heard,
                    is_harmless=is_harmless or method in HARMLESS,
                )
                answer = await ask_again(supervisor, ask, driver, failure)
        except RemoteFailure as refused:
            if refused.code == UrlElicitationRequired.code:
                self._expect_required(refused.data)
            await self._callbacks.settle()
            raise
        if hear is not None:
            await self._callbacks.settle()
        return cast(R, answer)

    async def _all(self, page: Callable[[str | None], Awaitable[Any]], member: str) -> list[Any]:
        """Every page of a list, all of one session.

        Raises:
            PeerError: the server gives the same cursor again, or never ends.
        """
        found: list[Any] = []
        cursor: str | None = None
        seen: set[str] = set()
        session = self._supervisor.sessions
        for _ in range(MAX_PAGES):
            try:
                result = await page(cursor)
            except RemoteFailure:
                if cursor is None or session == self._supervisor.sessions:
                    raise
                # Cursors end with the session that gave them.
                result = None
            if cursor is None:
                session = self._supervisor.sessions
            elif session != self._supervisor.sessions:
                found, cursor = [], None
                seen.clear()
                continue
            assert result is not None
            found += getattr(result, member)
            cursor = result.next_cursor
            if cursor is None:
                return found
            if cursor in seen:
                raise PeerError(f"the server's list of {member} repeats the cursor {cursor[:64]!r}")
            seen.add(cursor)
        raise PeerError(f"the server's list of {member} has more than {MAX_PAGES} pages")

    # --- tools ------------------------------------------------------------------------------------

    async def list_tools(self) -> list[Tool]:
        """Every tool, all pages. Raises as `call_tool`, and PeerError for an endless list."""
        tools: list[Tool] = await self._all(self.list_tools_page, "tools")
        self._outputs.replace(tools)
        if self._trusts_annotations:
            self._repeatable = {tool.name for tool in tools if _may_repeat(tool)}
        return tools

    def know_tools(self, tools: Iterable[Tool]) -> None:
        """Take these as listed: their results are then understood without a list of their own.

        For whoever reads the pages themselves. It holds until the server says that they changed.
        """
        self._outputs.replace(tools)

    async def list_tools_page(self, cursor: str | None = None) -> ListToolsResult:
        """One page of tools; the next begins at its `next_cursor`."""
        return await self._ask("tools/list", PageParams(cursor=cursor), ListToolsResult)

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        total_s: float | None = None,
        idempotent: bool = False,
        raise_on_error: bool = True,
        meta: Meta | None = None,
    ) -> ToolResult:
        """Call a tool.

        Cancelling the task that awaits this cancels the call. `timeout_s` counts from the last
        sign of life, such as progress or a connection that was restored; `total_s` bounds the
        whole. `idempotent` says that the call may run twice: then it is repeated when the
        connection breaks.

        Raises:
            ToolError: the tool failed (unless `raise_on_error` is False); `.result` has it all.
            PeerError: the result is malformed, or is not what the tool's output schema says.
            RemoteFailure: the server refused: an unknown tool (-32602), wrong arguments.
            NotNegotiated: the server has no tools.
            DeadlineExceeded: no answer in time.
            LinkError: the connection broke; `.sent` says whether the call may have run.
            WrongState: the client is not open.
            ValueError: the arguments are no JSON.

        Spec: server/tools#calling-tools
        """
        params = CallToolParams.of(name, None if arguments is None else dict(arguments), meta)
        result = await self._ask(
            "tools/call",
            params,
            CallToolResult,
            timeout_s=timeout_s,
            total_s=total_s,
            on_progress=on_progress,
            is_harmless=idempotent or name in self._repeatable,
        )
        if result.is_error:
            outcome = ToolResult(result)
            if raise_on_error:
                text = outcome.text or "the tool gave no reason"
                raise ToolError(text, tool=name, result=outcome)
            return outcome
        if result.structured_content is None:
            known = self._outputs.get(name)
            if known is not None and self._check_output:
                known.check_absent(name)
            return ToolResult(result)
        output = self._outputs.get(name) or await self._output_of(name, timeout_s)
        if self._check_output:
            output.check(name, result.structured_content)
        return ToolResult(result, is_wrapped=output.is_wrapped)

    async def _output_of(self, tool: str, timeout_s: float | None) -> Output:
        """What is known of a tool's output; lists the tools when nothing is."""
        outputs = self._outputs
        patience = self._limits.call_timeout_s if timeout_s is None else timeout_s
        if not await outputs.learn(self.list_tools, patience):
            return Output(None)
        # A tool that is not listed can be called all the same; nothing is known of it.
        return outputs.get(tool) or outputs.add(tool, None)

    # --- resources --------------------------------------------------------------------------------

    async def list_resources(self) -> list[Resource]:
        """Every resource, all pages."""
        found: list[Resource] = await self._all(self.list_resources_page, "resources")
        return found

    async def list_resources_page(self, cursor: str | None = None) -> ListResourcesResult:
        """One page of resources."""
        return await self._ask("resources/list", PageParams(cursor=cursor), ListResourcesResult)

    async def list_resource_templates(self) -> list[ResourceTemplate]:
        """Every resource template, all pages."""
        found: list[ResourceTemplate] = await self._all(
            self.list_resource_templates_page, "resource_templates"
        )
        return found

    async def list_resource_templates_page(
        self, cursor: str | None = None
    ) -> ListResourceTemplatesResult:
        """One page of templates."""
        return await self._ask(
            "resources/templates/list", PageParams(cursor=cursor), ListResourceTemplatesResult
        )

    async def read_resource(
        self,
        uri: str,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float | None = None,
        total_s: float | None = None,
        meta: Meta | None = None,
    ) -> ReadResourceResult:
        """The contents of a resource: `.contents`, or `.text` for its text.

        Raises:
            RemoteFailure: there is no such resource (-32002, or -32602 in newer revisions).

        Spec: server/resources#reading-resources
        """
        return await self._ask(
            "resources/read",
            UriParams(uri=uri, meta=meta),
            ReadResourceResult,
            timeout_s=timeout_s,
            total_s=total_s,
            on_progress=on_progress,
        )

    async def subscribe_resource(self, uri: str) -> None:
        """Hear of changes of a resource, through `on_resource_updated`; new sessions included."""
        await self._ask("resources/subscribe", UriParams(uri=uri), EmptyResult)
        self._subscribed[uri] = None

    async def unsubscribe_resource(self, uri: str) -> None:
        """Hear no more of a resource."""
        await self._ask("resources/unsubscribe", UriParams(uri=uri), EmptyResult)
        self._subscribed.pop(uri, None)

    # --- prompts ----------------------------------------------------------------------------------

    async def list_prompts(self) -> list[Prompt]:
        """Every prompt, all pages."""
        found: list[Prompt] = await self._all(self.list_prompts_page, "prompts")
        return found

    async def list_prompts_page(self, cursor: str | None = None) -> ListPromptsResult:
        """One page of prompts."""
        return await self._ask("prompts/list", PageParams(cursor=cursor), ListPromptsResult)

    async def get_prompt(
        self,
        name: str,
        arguments: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
        meta: Meta | None = None,
    ) -> GetPromptResult:
        """A prompt, filled: `.messages` and `.description`. Values are strings.

        Raises:
            RemoteFailure: there is no such prompt, or an argument is missing (-32602).
            TypeError: a value is no string.
        """
        filled = dict(arguments) if arguments is not None else None
        for key, value in (filled or {}).items():
            if not isinstance(value, str):
                raise TypeError(
                    f"prompt arguments are strings; {key!r} is of type {type(value).__name__}"
                )
        params = GetPromptParams(name=name, arguments=filled, meta=meta)
        return await self._ask("prompts/get", params, GetPromptResult, timeout_s=timeout_s)

    async def complete(
        self,
        ref: PromptReference | ResourceTemplateReference | str,
        argument: str,
        value: str = "",
        *,
        context: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Completion:
        """Suggestions for an argument: `.values` (at most 100), `.total`, `.has_more`.

        `ref` is a reference, a template's URI (with `://` or a variable in it), or a prompt's name;
        `context` holds the arguments that are settled already.
        """
        if isinstance(ref, str):
            is_uri = "://" in ref or "{" in ref
            ref = ResourceTemplateReference(uri=ref) if is_uri else PromptReference(name=ref)
        params = CompleteParams(
            ref=ref,
            argument=CompletionArgument(name=argument, value=value),
            context=None if context is None else CompletionContext(arguments=dict(context)),
        )
        answer = await self._ask("completion/complete", params, CompleteResult, timeout_s=timeout_s)
        return answer.completion

    # --- utilities --------------------------------------------------------------------------------

    async def set_logging_level(self, level: LoggingLevel) -> None:
        """Hear log messages of this level and above; of new sessions, too."""
        await self._ask("logging/setLevel", SetLevelParams(level=level), EmptyResult)
        self._log_level = level

    async def ping(self, *, timeout_s: float | None = None) -> None:
        """Ask for a sign of life."""
        await self._ask("ping", NoParams(), EmptyResult, timeout_s=timeout_s)

    def set_roots(self, roots: Iterable[RootLike]) -> None:
        """Replace the roots and tell the server.

        Raises:
            Misconfigured: a root is no absolute file URI or path.
            NotNegotiated: the client was made without roots.
        """
        fixed = as_roots(roots)
        if self._capabilities.roots is None:
            raise NotNegotiated("roots", "the client was made without roots=")
        self._roots = lambda: fixed
        if self._supervisor.known is not None:
            self.notify_roots_changed()

    def notify_roots_changed(self) -> None:
        """Tell the server that the roots have changed; it will ask for them.

        While there is no connection nothing is sent: a new session asks for them by itself.

        Raises:
            NotNegotiated: the client was made without roots.
            WrongState: the client is not open.
        """
        self._known()
        if self._capabilities.roots is None:
            raise NotNegotiated("roots", "the client was made without roots=")
        driver = self._supervisor.known
        if driver is not None and not driver.closed.done():
            driver.notify("notifications/roots/list_changed", NoParams())

    # --- what the supervisor calls ----------------------------------------------------------------

    def introduce(self) -> Engine:
        """A new engine, which has not said hello."""
        return Engine(
            Side.CLIENT,
            Introduction(self._info, self._capabilities),
            dialects=self._dialects,
            limits=self._limits,
        )

    async def restore(self, driver: Driver, before: Engine) -> tuple[DragomanError, ...]:
        """Tell a new session the log level and the subscriptions; forget the old one's lists."""
        self._forget_session()
        offers = (before.peer_capabilities, driver.engine.peer_capabilities)
        self._stale = tuple(
            name
            for name in self._on_changed
            if any(getattr(one, name.split("/")[1], None) is not None for one in offers)
        )
        wanted: list[tuple[str, Record]] = []
        if self._log_level is not None:
            wanted.append(("logging/setLevel", SetLevelParams(level=self._log_level)))
        wanted += [("resources/subscribe", UriParams(uri=uri)) for uri in self._subscribed]
        problems: list[DragomanError] = []
        for start in range(0, len(wanted), RESTORED_AT_ONCE):
            part = wanted[start : start + RESTORED_AT_ONCE]
            outcomes = await asyncio.gather(
                *(driver.request(method, params) for method, params in part),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if isinstance(outcome, DragomanError) and not isinstance(outcome, LinkError):
                    problems.append(outcome)
                elif isinstance(outcome, BaseException):
                    raise outcome
        return tuple(problems)

    def connection_changed(self, event: ConnectionEvent) -> None:
        """Tell the user, and after a new session what may be different now."""
        self._callbacks.call(self._on_connection, event)
        if event.is_new_session:
            for name in self._stale:
                self._callbacks.call(self._on_changed[name])

    # --- what the driver calls --------------------------------------------------------------------

    async def handle_request(self, driver: Driver, exchange: Exchange, params: Record) -> Record:
        """Answer what the server asks."""
        name = exchange.method.name
        try:
            match params:
                case CreateMessageParams():
                    return await self._sample(params)
                case ElicitParams():
                    return await self._elicit(params)
            if name == "roots/list" and self._roots is not None:
                return ListRootsResult(roots=await self._current_roots())
        except Refused as refused:
            if isinstance(params, ElicitParams):
                return ElicitResult(action="decline")
            raise RequestError(
                f"User rejected {_SPOKEN.get(name, name)}: {refused.rule}", code=USER_REJECTED
            ) from None
        except RequestError:
            raise
        except Exception:  # noqa: BLE001 - logged in full under its id
            raise RequestError(f"{name} failed {report_failure(log, name)}") from None
        raise NotNegotiated(name)

    async def _current_roots(self) -> list[Root]:
        assert self._roots is not None
        given = self._roots()
        if inspect.isawaitable(given):
            given = await given
        return as_roots(given)

    async def _sample(self, params: CreateMessageParams) -> CreateMessageResult:
        assert self._sampling is not None
        declared = self._capabilities.sampling
        assert declared is not None
        if declared.tools is None and (params.tools is not None or params.tool_choice is not None):
            raise InvalidParams("this client declared no tools in sampling")
        try:
            check_sampling(params)
        except ValueError as fault:
            raise InvalidParams(str(fault)) from None
        answer = self._sampling(params)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, str):
            answer = TextContent(text=answer)
        if isinstance(answer, SamplingBlock):
            answer = CreateMessageResult(role="assistant", content=answer, model="unknown")
        if not isinstance(answer, CreateMessageResult):
            raise Misconfigured(
                "a sampling handler returns a CreateMessageResult, a content block or a text, "
                f"not {type(answer).__name__}"
            )
        check_sampling_result(answer)
        return answer

    async def _elicit(self, params: ElicitParams) -> ElicitResult:
        assert self._elicitation is not None
        declared = self._capabilities.elicitation
        if params.mode == "url" and (declared is None or declared.url is None):
            raise InvalidParams("this client did not declare elicitation in URL mode")
        try:
            check_elicitation(params)
        except ValueError as fault:
            raise InvalidParams(str(fault)) from None
        if params.elicitation_id is not None:
            self._expect_elicitation(params.elicitation_id)
        answer = self._elicitation(params)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is None:
            return ElicitResult(action="decline")
        if isinstance(answer, Mapping):
            answer = ElicitResult(action="accept", content=dict(answer))
        if not isinstance(answer, ElicitResult):
            raise Misconfigured(
                "an elicitation handler returns an ElicitResult, a dict or None, "
                f"not {type(answer).__name__}"
            )
        return _as_asked(params, answer)

    def _expect_elicitation(self, elicitation_id: str) -> None:
        """Remember an elicitation by URL, to know its completion by."""
        self._elicitations[elicitation_id] = None
        if len(self._elicitations) > MAX_ELICITATIONS:
            self._elicitations.popitem(last=False)

    def _expect_required(self, data: Any) -> None:
        """Remember what a server wants done first; malformed data names nothing."""
        listed = data.get("elicitations") if isinstance(data, dict) else None
        for one in listed if isinstance(listed, list) else ():
            ident = one.get("elicitationId") if isinstance(one, dict) else None
            if isinstance(ident, str):
                self._expect_elicitation(ident)

    def handle_event(self, driver: Driver, event: Event) -> None:
        """Pass on what the server tells."""
        if isinstance(event, NotificationArrived):
            self._notified(event)
        elif isinstance(event, Fault):
            if event.kind is FaultKind.UNREADABLE and self._on_junk is not None:
                self._callbacks.call(self._on_junk, event.sample)
            else:
                driver.faults.write(log, event)
            self._callbacks.call(self._on_fault, event)
        elif isinstance(event, Degraded):
            for loss in event.losses:
                log.debug("%s to an older revision: %s", event.method, loss)

    def _notified(self, event: NotificationArrived) -> None:
        name, params = event.method.name, event.params
        if isinstance(params, LogMessageParams):
            self._callbacks.call(self._on_log, params)
        elif isinstance(params, ResourceUpdatedParams):
            self._callbacks.call(self._on_resource_updated, params.uri)
        elif isinstance(params, ElicitationCompleteParams):
            # One that nobody knows, or that ended before, is nothing to anybody.
            if self._elicitations.pop(params.elicitation_id, self) is None:
                self._callbacks.call(self._on_elicitation_complete, params.elicitation_id)
        elif name in self._on_changed:
            if name == "notifications/tools/list_changed":
                self._outputs.forget()
            self._callbacks.call(self._on_changed[name])


# 1,000 pages that a user was sent to and that have not ended; a client has one user.
MAX_ELICITATIONS = 1_000


def _as_asked(params: ElicitParams, answer: ElicitResult) -> ElicitResult:
    """The answer as it may be sent: content only with a form that was accepted, and fitting it.

    Raises:
        Misconfigured: the handler filled the form in another way than it asks for. It is no
            refusal: what was filled in stays here.
    """
    if answer.action != "accept" or params.mode == "url":
        return ElicitResult(action=answer.action, meta=answer.meta)
    content = {key: value for key, value in (answer.content or {}).items() if value is not None}
    # The form is the server's: nothing in it may stall us.
    faults = find_faults(params.requested_schema or {}, content, is_ours=False)
    if faults:
        said = "; ".join(f"{fault.path}: expected {fault.expected}" for fault in faults)
        raise Misconfigured(f"the elicitation handler's answer does not fit the form: {said}")
    return answer


def _limits(limits: Limits, timeout_s: float | None, total_s: float | None) -> Limits:
    """The limits with the deadlines that were given apart from them."""
    if timeout_s is not None:
        limits = replace(limits, call_timeout_s=timeout_s)
        if total_s is None:
            total_s = max(timeout_s, limits.call_total_s)
    return limits if total_s is None else replace(limits, call_total_s=total_s)


def _may_repeat(tool: Tool) -> bool:
    """Whether the server says that a tool may run twice.

    Spec: server/tools#tool (annotations)
    """
    said = tool.annotations
    return said is not None and (said.read_only_hint is True or said.idempotent_hint is True)


_SPOKEN = {"sampling/createMessage": "sampling request", "elicitation/create": "the question"}
