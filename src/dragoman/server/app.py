"""The server: what it offers, and how a request finds its handler.

server = Server("weather")

@server.tool
async def forecast(city: str, days: int = 3) -> Forecast: ...

server.run()
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, TypeVar, cast, overload

import msgspec

from dragoman.errors import (
    InternalError,
    InvalidArguments,
    InvalidParams,
    LinkError,
    LocalError,
    Misconfigured,
    Refused,
    RequestError,
    ResourceNotFound,
    ToolError,
    UrlElicitationRequired,
)
from dragoman.model.base import (
    Annotations,
    EmptyResult,
    Icon,
    Implementation,
    Meta,
    NoParams,
    PageParams,
    Record,
)
from dragoman.model.capabilities import (
    CompletionsCapability,
    LoggingCapability,
    PromptsCapability,
    ResourcesCapability,
    ServerCapabilities,
    ToolsCapability,
)
from dragoman.model.checks import check_elicitation
from dragoman.model.completion import (
    CompleteParams,
    CompleteResult,
    Completion,
    PromptReference,
)
from dragoman.model.content import TextContent
from dragoman.model.elicitation import ElicitationCompleteParams, ElicitParams
from dragoman.model.faults import Repair
from dragoman.model.logging import LEVELS, LogMessageParams, SetLevelParams
from dragoman.model.methods import Side
from dragoman.model.names import check_meta_keys, check_tool_name, check_uri
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
from dragoman.model.roots import Root
from dragoman.model.tools import (
    CallToolParams,
    CallToolResult,
    ListToolsResult,
    Tool,
    ToolAnnotations,
)
from dragoman.model.uri_template import UriTemplate
from dragoman.protocol.calls import Exchange
from dragoman.protocol.engine import Engine, Introduction
from dragoman.protocol.events import Degraded, Event, Fault, FaultKind, NotificationArrived
from dragoman.protocol.limits import Limits
from dragoman.protocol.negotiation import check_params
from dragoman.revisions.registry import supported
from dragoman.runtime.driver import Driver, Encoded, Tap, report_failure
from dragoman.runtime.pool import MAX_THREADS, ThreadPool
from dragoman.server.binding import bind, bind_prompt, bind_resource
from dragoman.server.context import Context
from dragoman.server.entries import (
    Completer,
    PromptEntry,
    RawToolEntry,
    ResourceEntry,
    TemplateEntry,
    ToolEntry,
    ToolLike,
)
from dragoman.server.lifespan import Lifespan
from dragoman.server.limits import OFFERS
from dragoman.server.registry import PAGE_SIZE, Registry
from dragoman.transport.base import Link

__all__ = ["CallNext", "Middleware", "Server"]

log = logging.getLogger("dragoman.server")

F = TypeVar("F", bound=Callable[..., Any])

CallNext = Callable[[Record], Awaitable[Record]]
Middleware = Callable[[Context, Record, CallNext], Awaitable[Record]]
"""Wraps every request: `async def m(context, params, call_next)` returns a result, usually that of
`await call_next(params)`. `context.method` says which request it is."""

# server/utilities/completion: no more than this many values in one answer
MAX_COMPLETIONS = 100


class Server:
    """Offers tools, resources and prompts to any number of clients.

    `name` and `version` are shown to people; `instructions` tell a model how to use the server.
    `lifespan` is an async context manager around the server's life; what it yields is
    `Context.state`. `page_size` is how many entries a list gives at once, `threads` how many
    functions may block at the same time. `revision` pins one revision of the protocol.
    `declares` names features that clients are told of though there is nothing of them yet, because
    it comes later. `log_filter` sees each log message before it goes to a client, and may change it
    or drop it by returning None. `keep_alive_s` pings a client after that much silence; one that
    does not answer within `keep_alive_timeout_s` (the same, unless given) is given up.

    Raises:
        Misconfigured: a setting that cannot work.
    """

    def __init__(
        self,
        name: str,
        version: str = "0",
        *,
        title: str | None = None,
        description: str | None = None,
        instructions: str | None = None,
        website_url: str | None = None,
        icons: Sequence[Icon] = (),
        lifespan: Callable[[Server], AbstractAsyncContextManager[Any]] | None = None,
        page_size: int = PAGE_SIZE,
        threads: int = MAX_THREADS,
        limits: Limits | None = None,
        revision: str | None = None,
        declares: Iterable[Literal["tools", "resources", "prompts", "completions"]] = (),
        keep_alive_s: float | None = None,
        keep_alive_timeout_s: float | None = None,
        log_filter: Callable[[LogMessageParams], LogMessageParams | None] | None = None,
        on_roots_changed: Callable[[], Awaitable[None] | None] | None = None,
    ) -> None:
        if not name:
            raise Misconfigured("a server needs a name")
        self.info = Implementation(
            name=name,
            version=version,
            title=title,
            description=description,
            website_url=website_url,
            icons=list(icons) or None,
        )
        self.instructions = instructions
        self.tools: Registry[ToolLike] = Registry("tool", self._changes("tools"), page_size)
        self.resources: Registry[ResourceEntry] = Registry(
            "resource", self._changes("resources"), page_size
        )
        self.templates: Registry[TemplateEntry] = Registry(
            "resource template", self._changes("resources"), page_size
        )
        self.prompts: Registry[PromptEntry] = Registry(
            "prompt", self._changes("prompts"), page_size
        )
        self.limits = limits or Limits(rates=OFFERS)
        self._declares = frozenset(declares)
        if unknown := self._declares - {"tools", "resources", "prompts", "completions"}:
            raise Misconfigured(f"a server cannot declare {', '.join(sorted(unknown))}")
        self._keep_alive_s = keep_alive_s
        self._keep_alive_timeout_s = keep_alive_timeout_s or keep_alive_s
        self._dialects = supported(revision)
        self._pool = ThreadPool(threads, name=f"dragoman-{name}")
        self._lifespan = Lifespan(None if lifespan is None else lambda: lifespan(self))
        self._log_filter = log_filter
        self._on_roots_changed = on_roots_changed
        self._completers: dict[str, Completer] = {}
        self._middleware: list[Middleware] = []
        self._drivers: dict[Driver, asyncio.AbstractEventLoop] = {}
        self._roots: dict[Driver, list[Root]] = {}
        self._elicitations: dict[str, Driver] = {}
        self._changed: dict[asyncio.AbstractEventLoop, set[str]] = {}
        self._lists: dict[tuple[str, str | None], tuple[int, Encoded]] = {}
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Callable[..., Awaitable[Record | Encoded]]] = {
            "tools/call": self._call_tool,
            "tools/list": self._list_tools,
            "resources/list": self._list_resources,
            "resources/templates/list": self._list_templates,
            "resources/read": self._read_resource,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
            "prompts/list": self._list_prompts,
            "prompts/get": self._get_prompt,
            "completion/complete": self._complete,
            "logging/setLevel": self._set_level,
        }

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self.info.name

    @property
    def state(self) -> Any:
        """What the lifespan yielded; None without one, or while nobody is served."""
        return self._lifespan.state

    # --- tools ------------------------------------------------------------------------------------

    @overload
    def tool(self, fn: F, /) -> F: ...
    @overload
    def tool(
        self,
        name: str | None = None,
        /,
        *,
        title: str | None = None,
        description: str | None = None,
        annotations: ToolAnnotations | Mapping[str, Any] | None = None,
        input_schema: dict[str, Any] | None = None,
        output_schema: dict[str, Any] | None = None,
        icons: Sequence[Icon] = (),
        meta: Meta | None = None,
        thread: bool | None = None,
        enabled: bool = True,
    ) -> Callable[[F], F]: ...

    def tool(self, fn: Any = None, /, **options: Any) -> Any:
        """Offer a function as a tool: `@server.tool`, `@server.tool(...)` or `server.tool(fn)`.

        The name, the description and the schemas come from the function; `name=` and the others
        replace them. The function is returned unchanged. A sync function runs in a thread unless
        `thread=False` says that it does not block. With `input_schema` the function takes the
        arguments as one dict, checked against that schema, and may take the context second.

        Raises:
            Misconfigured: the function cannot be a tool, or the name is taken.
        """
        if callable(fn):
            self.add_tool(fn, **options)
            return fn
        if fn is not None:
            options["name"] = fn

        def register(function: F) -> F:
            self.add_tool(function, **options)
            return function

        return register

    def add_tool(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        annotations: ToolAnnotations | Mapping[str, Any] | None = None,
        input_schema: dict[str, Any] | None = None,
        output_schema: dict[str, Any] | None = None,
        icons: Sequence[Icon] = (),
        meta: Meta | None = None,
        thread: bool | None = None,
        enabled: bool = True,
        replace: bool = False,
    ) -> Tool:
        """Add a tool at run time; as `tool`, and returns its definition."""
        hints = _annotations(annotations, ToolAnnotations)
        _check_meta(meta)
        entry: ToolLike
        if input_schema is not None:
            definition = Tool(
                name=_tool_name(name or fn.__name__),
                title=title,
                description=description or inspect.getdoc(fn),
                input_schema=input_schema,
                output_schema=output_schema,
                annotations=hints,
                icons=list(icons) or None,
                meta=meta,
            )
            entry = RawToolEntry(definition, fn, thread, self._pool.run, _warn_of_repairs)
        else:
            binding = bind(fn, context_type=Context, name=name, description=description)
            definition = Tool(
                name=_tool_name(binding.name),
                title=title,
                description=binding.description,
                input_schema=binding.input_schema,
                output_schema=output_schema or binding.output_schema,
                annotations=hints,
                icons=list(icons) or None,
                meta=meta,
            )
            entry = ToolEntry(
                definition,
                binding,
                thread,
                self._pool.run,
                _warn_of_repairs,
                is_checked=output_schema is not None,
            )
        self.tools.add(entry, enabled=enabled, replace=replace)
        return definition

    def remove_tool(self, name: str) -> None:
        """Take a tool away; clients are told. Raises Misconfigured when there is none."""
        self.tools.remove(name)

    def enable_tool(self, name: str) -> None:
        """Show a tool again."""
        self.tools.enable(name)

    def disable_tool(self, name: str) -> None:
        """Hide a tool: it is neither listed nor callable."""
        self.tools.enable(name, enabled=False)

    # --- resources --------------------------------------------------------------------------------

    def resource(
        self,
        uri: str,
        /,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        size: int | None = None,
        annotations: Annotations | Mapping[str, Any] | None = None,
        icons: Sequence[Icon] = (),
        meta: Meta | None = None,
        thread: bool | None = None,
        enabled: bool = True,
    ) -> Callable[[F], F]:
        """Offer a function as a resource: `@server.resource("scheme://path")`.

        A URI with variables, "weather://{city}/now", makes a template; the function's parameters
        bear the variables' names. What it returns is the contents: `str`, `bytes`, data (as JSON),
        `ResourceContents` or a list of those.

        Raises:
            Misconfigured: the function and the URI do not fit, or the URI is taken.
        """
        if callable(uri):
            raise Misconfigured('a resource needs its URI: @server.resource("scheme://path")')

        def register(function: F) -> F:
            self.add_resource(
                function,
                uri,
                name=name,
                title=title,
                description=description,
                mime_type=mime_type,
                size=size,
                annotations=annotations,
                icons=icons,
                meta=meta,
                thread=thread,
                enabled=enabled,
            )
            return function

        return register

    def add_resource(
        self,
        source: Callable[..., Any] | str | bytes,
        uri: str,
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        mime_type: str | None = None,
        size: int | None = None,
        annotations: Annotations | Mapping[str, Any] | None = None,
        icons: Sequence[Icon] = (),
        meta: Meta | None = None,
        thread: bool | None = None,
        enabled: bool = True,
        replace: bool = False,
    ) -> Resource | ResourceTemplate:
        """Add a resource or a template at run time; text or bytes may stand for a function."""
        template = UriTemplate(uri)
        if not template.variables:
            _check_uri(uri)
        _check_meta(meta)
        hints = _annotations(annotations, Annotations)
        if not callable(source):
            if template.variables:
                raise Misconfigured(f"{uri!r} has variables, so it needs a function")
            data = source.encode() if isinstance(source, str) else source
            fixed = Resource(
                uri=uri,
                name=name or uri,
                title=title,
                description=description,
                mime_type=mime_type,
                size=len(data) if size is None else size,
                annotations=hints,
                icons=list(icons) or None,
                meta=meta,
            )
            entry = ResourceEntry(fixed, None, source)
            self.resources.add(entry, enabled=enabled, replace=replace)
            return fixed
        binding = bind_resource(
            source,
            template.variables,
            context_type=Context,
            name=name,
            description=description,
        )
        if template.variables:
            template.ensure_matchable()
            family = ResourceTemplate(
                uri_template=uri,
                name=binding.name,
                title=title,
                description=binding.description,
                mime_type=mime_type,
                annotations=hints,
                icons=list(icons) or None,
                meta=meta,
            )
            self.templates.add(
                TemplateEntry(family, template, binding, thread, self._pool.run),
                enabled=enabled,
                replace=replace,
            )
            return family
        single = Resource(
            uri=uri,
            name=binding.name,
            title=title,
            description=binding.description,
            mime_type=mime_type,
            size=size,
            annotations=hints,
            icons=list(icons) or None,
            meta=meta,
        )
        self.resources.add(
            ResourceEntry.of(single, binding, thread, self._pool.run),
            enabled=enabled,
            replace=replace,
        )
        return single

    def _resources_with(self, uri: str) -> Registry[ResourceEntry] | Registry[TemplateEntry]:
        return self.templates if UriTemplate(uri).variables else self.resources

    def remove_resource(self, uri: str) -> None:
        """Take a resource or a template away; clients are told."""
        self._resources_with(uri).remove(uri)

    def enable_resource(self, uri: str) -> None:
        """Show a resource or a template again."""
        self._resources_with(uri).enable(uri)

    def disable_resource(self, uri: str) -> None:
        """Hide a resource or a template: it is neither listed nor readable."""
        self._resources_with(uri).enable(uri, enabled=False)

    def notify_resource_updated(self, uri: str) -> None:
        """Tell every client that subscribed to this URI. May be called from any thread.

        Spec: server/resources#subscriptions
        """
        for driver, loop in list(self._drivers.items()):
            _in_loop(loop, partial(self._tell_updated, driver, uri))

    def _tell_updated(self, driver: Driver, uri: str) -> None:
        if uri in driver.engine.subscriptions and driver.engine.may_send(
            "notifications/resources/updated"
        ):
            driver.notify("notifications/resources/updated", ResourceUpdatedParams(uri=uri))

    # --- prompts ----------------------------------------------------------------------------------

    @overload
    def prompt(self, fn: F, /) -> F: ...
    @overload
    def prompt(
        self,
        name: str | None = None,
        /,
        *,
        title: str | None = None,
        description: str | None = None,
        icons: Sequence[Icon] = (),
        meta: Meta | None = None,
        thread: bool | None = None,
        enabled: bool = True,
    ) -> Callable[[F], F]: ...

    def prompt(self, fn: Any = None, /, **options: Any) -> Any:
        """Offer a function as a prompt: `@server.prompt` or `@server.prompt(...)`.

        It returns the messages: a text or a content block (of the user), a `PromptMessage`, a dict
        with `role` and `content`, or a list of those.

        Raises:
            Misconfigured: the function cannot be a prompt, or the name is taken.
        """
        if callable(fn):
            self.add_prompt(fn, **options)
            return fn
        if fn is not None:
            options["name"] = fn

        def register(function: F) -> F:
            self.add_prompt(function, **options)
            return function

        return register

    def add_prompt(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        title: str | None = None,
        description: str | None = None,
        icons: Sequence[Icon] = (),
        meta: Meta | None = None,
        thread: bool | None = None,
        enabled: bool = True,
        replace: bool = False,
    ) -> Prompt:
        """Add a prompt at run time; as `prompt`, and returns its definition."""
        _check_meta(meta)
        binding = bind_prompt(fn, context_type=Context, name=name, description=description)
        definition = Prompt(
            name=binding.name,
            title=title,
            description=binding.description,
            arguments=list(binding.prompt_arguments) or None,
            icons=list(icons) or None,
            meta=meta,
        )
        entry = PromptEntry(definition, binding, thread, self._pool.run)
        self.prompts.add(entry, enabled=enabled, replace=replace)
        return definition

    def remove_prompt(self, name: str) -> None:
        """Take a prompt away; clients are told."""
        self.prompts.remove(name)

    def enable_prompt(self, name: str) -> None:
        """Show a prompt again."""
        self.prompts.enable(name)

    def disable_prompt(self, name: str) -> None:
        """Hide a prompt: it is neither listed nor given."""
        self.prompts.enable(name, enabled=False)

    # --- completion and middleware ----------------------------------------------------------------

    def completion(self, target: str, /) -> Callable[[F], F]:
        """Suggest values for the arguments of a prompt (by name) or of a template (by its URI).

        The function takes any of `argument` (the name), `value` (what was typed) and `context`
        (arguments that are settled); it returns texts, best first, or a `Completion`. Arguments
        that are choices (`Literal`, `Enum`) are completed without it.
        """

        def register(function: F) -> F:
            self._completers[target] = Completer(function, self._pool.run)
            return function

        return register

    def middleware(self, function: Middleware) -> Middleware:
        """Wrap every request; the first one added is the outermost. Usable as a decorator."""
        self._middleware.append(function)
        return function

    add_middleware = middleware

    # --- serving ----------------------------------------------------------------------------------

    def run(self, transport: str = "stdio") -> None:
        """Serve until the client leaves, or until SIGINT or SIGTERM. Blocks.

        Raises:
            Misconfigured: no such transport.
        """
        if transport != "stdio":
            raise Misconfigured(f"the transport {transport!r} is not one of: stdio")
        with suppress(KeyboardInterrupt):
            asyncio.run(self.serve_stdio())

    async def serve_stdio(self) -> None:
        """Serve whoever started this process, over its stdin and stdout."""
        from dragoman.transport.stdio.serve import StdioServerLink, on_stop_signal, take_streams

        streams = take_streams()
        link = StdioServerLink(streams)
        stopped = asyncio.get_running_loop().create_future()

        def stop(signal: object) -> None:
            if not stopped.done():
                stopped.set_result(None)

        undo = on_stop_signal(stop)
        serving = asyncio.ensure_future(self.serve_link(link))
        try:
            await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not serving.done():
                serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
            undo()

    async def serve_link(self, link: Link, *, tap: Tap | None = None) -> None:
        """Serve one client until its link closes. `tap` sees every frame."""
        try:
            await self._lifespan.enter()
        except BaseException:
            await link.aclose()
            raise
        try:
            driver = Driver(self._engine(), link, self, tap=tap)
            self._drivers[driver] = asyncio.get_running_loop()
            try:
                driver.start()
                if self._keep_alive_s is not None:
                    driver.watch(
                        self._keep_alive_s, self._keep_alive_timeout_s or self._keep_alive_s
                    )
                error = await asyncio.shield(driver.closed)
                if error is not None:
                    log.info("a connection ended: %s", error)
            finally:
                self._drivers.pop(driver, None)
                self._roots.pop(driver, None)
                for ident in [one for one, of in self._elicitations.items() if of is driver]:
                    del self._elicitations[ident]
                await driver.aclose()
        finally:
            await self._lifespan.leave()

    def _engine(self) -> Engine:
        introduction = Introduction(self.info, self.capabilities, self.instructions)
        return Engine(Side.SERVER, introduction, dialects=self._dialects, limits=self.limits)

    @property
    def capabilities(self) -> ServerCapabilities:
        """What a client that connects now is told."""
        extra = self._declares
        has_tools = self.tools.is_used or "tools" in extra
        has_prompts = self.prompts.is_used or "prompts" in extra
        has_resources = self.resources.is_used or self.templates.is_used or "resources" in extra
        completes = (
            self._completers
            or "completions" in extra
            or any(
                entry.choices(argument.name)
                for entry in self.prompts
                for argument in entry.definition.arguments or ()
            )
            or any(
                entry.choices(variable)
                for entry in self.templates
                for variable in entry.template.variables
            )
        )
        return ServerCapabilities(
            tools=ToolsCapability(list_changed=True) if has_tools else None,
            resources=ResourcesCapability(subscribe=True, list_changed=True)
            if has_resources
            else None,
            prompts=PromptsCapability(list_changed=True) if has_prompts else None,
            logging=LoggingCapability(),
            completions=CompletionsCapability() if completes else None,
        )

    # --- what the driver calls --------------------------------------------------------------------

    async def handle_request(
        self, driver: Driver, exchange: Exchange, params: Record
    ) -> Record | Encoded:
        """Find the handler and call it, through the middleware when there is any."""
        handler = self._handlers[exchange.method.name]
        try:
            if not self._middleware:
                return await handler(driver, exchange, params)
            return await self._through_middleware(handler, driver, exchange, params)
        except UrlElicitationRequired as required:
            self._check_required(driver, exchange, required)
            raise
        except (ToolError, Refused) as refusal:
            # A tool's own were answered before; this one is of a middleware.
            if exchange.method.name == "tools/call":
                return _tool_failure(str(refusal))
            raise InternalError(str(refusal)) from None

    async def _through_middleware(
        self,
        handler: Callable[..., Awaitable[Record | Encoded]],
        driver: Driver,
        exchange: Exchange,
        params: Record,
    ) -> Record:
        context = Context(self, driver, exchange, params)

        async def innermost(given: Record) -> Record:
            result = await handler(driver, exchange, given)
            return result.record if isinstance(result, Encoded) else result

        call: CallNext = innermost
        for layer in reversed(self._middleware):
            call = _wrapped(layer, context, call)
        return await call(params)

    def handle_event(self, driver: Driver, event: Event) -> None:
        """Take note of what the client tells, and of what goes wrong."""
        if isinstance(event, NotificationArrived):
            if event.method.name == "notifications/roots/list_changed":
                self._roots.pop(driver, None)
                self._call_back(self._on_roots_changed)
        elif isinstance(event, Fault):
            # Clients of newer revisions begin by asking for a method that tells them which they
            # have met; the refusal is the answer, and nothing is wrong.
            level = logging.DEBUG if event.kind is FaultKind.UNKNOWN_METHOD else logging.WARNING
            log.log(level, "a fault of the client: %s (%s)", event.kind.value, event.detail)
        elif isinstance(event, Degraded):
            for loss in event.losses:
                log.debug("%s to an older revision: %s", event.method, loss)

    def _call_back(self, callback: Callable[[], Awaitable[None] | None] | None) -> None:
        if callback is None:
            return
        outcome = callback()
        if outcome is not None:
            task = asyncio.ensure_future(_finish(outcome))
            self._side_tasks.add(task)
            task.add_done_callback(self._side_tasks.discard)

    # --- tools, for clients -------------------------------------------------------------------------

    async def _list_tools(self, driver: Driver, exchange: Exchange, params: PageParams) -> Encoded:
        return self._list("tools", params.cursor, self.tools, ListToolsResult, "tools")

    async def _call_tool(
        self, driver: Driver, exchange: Exchange, params: CallToolParams
    ) -> Record:
        entry = self.tools.get(params.name)
        if entry is None:
            name = params.name[:128]
            raise InvalidParams(f"unknown tool {name!r}{self.tools.suggest(name)}")
        context = Context(self, driver, exchange, params) if entry.wants_context else None
        try:
            return await entry.call(params.raw_arguments, context)
        except InvalidArguments as fault:
            if exchange.dialect.facts.argument_faults_are_results:
                return _tool_failure(str(fault))
            raise
        except ToolError as error:
            if isinstance(error.result, CallToolResult):
                return error.result
            return _tool_failure(str(error))
        except Refused as refusal:
            return _tool_failure(str(refusal))
        except RequestError:
            raise
        except Exception:  # noqa: BLE001 - logged in full under its id
            return _tool_failure(f"{params.name} failed {_report(params.name)}")

    def _check_required(
        self, driver: Driver, exchange: Exchange, required: UrlElicitationRequired
    ) -> None:
        """What such an error lists: at least one elicitation, each with a URL and an id.

        Raises:
            InternalError: it lists something else, or the client cannot send its user anywhere.
        """
        try:
            if not required.elicitations:
                raise ValueError("it lists no elicitation")
            for one in required.elicitations:
                params = msgspec.convert(one, ElicitParams)
                if params.mode != "url" or not params.elicitation_id:
                    raise ValueError("each elicitation in it has the mode url, and an id")
                check_elicitation(params)
                check_params(params, exchange.dialect, driver.engine.peer_capabilities)
                self._elicitations.setdefault(params.elicitation_id, driver)
        except (ValueError, LocalError):
            raise InternalError(
                f"a required elicitation could not be told {_report('-32042')}"
            ) from None

    # --- resources, for clients ---------------------------------------------------------------------

    async def _list_resources(
        self, driver: Driver, exchange: Exchange, params: PageParams
    ) -> Encoded:
        return self._list(
            "resources", params.cursor, self.resources, ListResourcesResult, "resources"
        )

    async def _list_templates(
        self, driver: Driver, exchange: Exchange, params: PageParams
    ) -> Encoded:
        return self._list(
            "templates",
            params.cursor,
            self.templates,
            ListResourceTemplatesResult,
            "resource_templates",
        )

    async def _read_resource(self, driver: Driver, exchange: Exchange, params: UriParams) -> Record:
        return await self.read_resource(params.uri, Context(self, driver, exchange, params))

    async def read_resource(self, uri: str, context: Context) -> ReadResourceResult:
        """Read a resource of this server. Raises ResourceNotFound."""
        fixed = self.resources.get(uri)
        try:
            if fixed is not None:
                return await fixed.read(context)
            for entry in self.templates:
                variables = entry.match(uri)
                if variables is not None:
                    return await entry.read(uri, variables, context)
        except (RequestError, LinkError):
            raise
        except (ToolError, Refused) as error:
            raise InternalError(str(error)) from None
        except Exception:  # noqa: BLE001 - logged in full under its id
            raise InternalError(f"reading {uri} failed {_report(uri)}") from None
        raise ResourceNotFound(uri)

    def _has_resource(self, uri: str) -> bool:
        if self.resources.get(uri) is not None:
            return True
        return any(entry.match(uri) is not None for entry in self.templates)

    async def _subscribe(self, driver: Driver, exchange: Exchange, params: UriParams) -> Record:
        if not self._has_resource(params.uri):
            raise ResourceNotFound(params.uri)
        driver.engine.subscriptions.add(params.uri)
        return EmptyResult()

    async def _unsubscribe(self, driver: Driver, exchange: Exchange, params: UriParams) -> Record:
        driver.engine.subscriptions.remove(params.uri)
        return EmptyResult()

    # --- prompts, for clients -----------------------------------------------------------------------

    async def _list_prompts(
        self, driver: Driver, exchange: Exchange, params: PageParams
    ) -> Encoded:
        return self._list("prompts", params.cursor, self.prompts, ListPromptsResult, "prompts")

    async def _get_prompt(
        self, driver: Driver, exchange: Exchange, params: GetPromptParams
    ) -> GetPromptResult:
        entry = self.prompts.get(params.name)
        if entry is None:
            name = params.name[:128]
            raise InvalidParams(f"unknown prompt {name!r}{self.prompts.suggest(name)}")
        try:
            return await entry.get(params.arguments, Context(self, driver, exchange, params))
        except (RequestError, LinkError):
            raise
        except (ToolError, Refused) as error:
            raise InternalError(str(error)) from None
        except Exception:  # noqa: BLE001 - logged in full under its id
            raise InternalError(f"{params.name} failed {_report(params.name)}") from None

    # --- utilities, for clients ---------------------------------------------------------------------

    async def _set_level(
        self, driver: Driver, exchange: Exchange, params: SetLevelParams
    ) -> EmptyResult:
        driver.engine.log_level = LEVELS[params.level]
        return EmptyResult()

    async def _complete(
        self, driver: Driver, exchange: Exchange, params: CompleteParams
    ) -> CompleteResult:
        ref, argument = params.ref, params.argument
        choices: Sequence[str] | None = None
        if isinstance(ref, PromptReference):
            target = ref.name
            prompt = self.prompts.get(target)
            if prompt is None:
                raise InvalidParams(f"unknown prompt {target[:128]!r}")
            known = [one.name for one in prompt.definition.arguments or ()]
            choices = prompt.choices(argument.name)
        else:
            target = ref.uri
            family = self.templates.get(target)
            if family is None and self.resources.get(target) is None:
                raise InvalidParams(f"unknown resource template {target[:128]!r}")
            known = [] if family is None else list(family.template.variables)
            choices = None if family is None else family.choices(argument.name)
        if argument.name not in known:
            raise InvalidParams(f"{target[:128]!r} has no argument {argument.name[:128]!r}")
        completer = self._completers.get(target)
        settled = (params.context.arguments if params.context is not None else None) or {}
        try:
            found: Sequence[str] | Completion | None = None
            if completer is not None:
                found = await completer(argument.name, argument.value, settled)
            if found is None and choices is not None:
                found = _near(choices, argument.value)
        except (RequestError, LinkError):
            raise
        except Exception:  # noqa: BLE001 - logged in full under its id
            raise InternalError(f"completing {target} failed {_report(target)}") from None
        return CompleteResult(completion=_bounded(found or ()))

    # --- lists and their changes --------------------------------------------------------------------

    def _list(
        self,
        kind: str,
        cursor: str | None,
        registry: Registry[Any],
        result: Callable[..., Record],
        member: str,
    ) -> Encoded:
        """One page, written once and kept until the list changes."""
        kept = self._lists.get((kind, cursor))
        if kept is not None and kept[0] == registry.version:
            return kept[1]
        entries, next_cursor = registry.page(cursor)
        definitions = [entry.definition for entry in entries]
        page = Encoded(result(**{member: definitions}, next_cursor=next_cursor))
        if kept is not None or len(self._lists) < MAX_KEPT_PAGES:
            self._lists[kind, cursor] = (registry.version, page)
        return page

    def _changes(self, kind: str) -> Callable[[], None]:
        def changed() -> None:
            for loop in set(self._drivers.values()):
                _in_loop(loop, lambda: self._note_change(kind))

        return changed

    def _note_change(self, kind: str) -> None:
        """Announce at the end of this turn of the loop, once for any number of changes."""
        loop = asyncio.get_running_loop()
        kinds = self._changed.get(loop)
        if kinds is None:
            kinds = self._changed[loop] = set()
            loop.call_soon(self._announce, loop)
        kinds.add(kind)

    def _announce(self, loop: asyncio.AbstractEventLoop) -> None:
        kinds = self._changed.pop(loop)
        for driver, at_home in list(self._drivers.items()):
            if at_home is not loop:
                continue
            for kind in sorted(kinds):
                method = f"notifications/{kind}/list_changed"
                if driver.engine.may_send(method):
                    driver.notify(method, NoParams())

    # --- elicitation ------------------------------------------------------------------------------

    def elicitation_complete(self, elicitation_id: str) -> None:
        """Tell the client that was sent to a URL that what happened there has ended.

        May be called from any thread, long after the request that asked. An id that nobody was
        asked under, or whose client has gone, is ignored.

        Spec: client/elicitation#completion-notifications-for-url-mode-elicitation
        """
        driver = self._elicitations.pop(elicitation_id, None)
        loop = None if driver is None else self._drivers.get(driver)
        if driver is not None and loop is not None:
            _in_loop(loop, partial(self._tell_complete, driver, elicitation_id))

    def _tell_complete(self, driver: Driver, elicitation_id: str) -> None:
        if driver.engine.may_send("notifications/elicitation/complete"):
            driver.notify(
                "notifications/elicitation/complete",
                ElicitationCompleteParams(elicitation_id=elicitation_id),
            )

    def expect_elicitation(self, elicitation_id: str, driver: Driver) -> None:
        """Remember whom an elicitation by URL was put to. ValueError for an id that is in use."""
        if elicitation_id in self._elicitations:
            raise ValueError(f"the elicitation id {elicitation_id[:64]!r} is in use")
        while len(self._elicitations) >= MAX_ELICITATIONS:
            del self._elicitations[next(iter(self._elicitations))]
        self._elicitations[elicitation_id] = driver

    # --- what a context needs -----------------------------------------------------------------------

    def filter_log(self, params: LogMessageParams) -> LogMessageParams | None:
        """The message as it may leave, or None."""
        return params if self._log_filter is None else self._log_filter(params)

    def roots_of(self, driver: Driver) -> list[Root] | None:
        """The roots as they were last told, while that is known to be current."""
        return self._roots.get(driver)

    def keep_roots(self, driver: Driver, roots: list[Root]) -> None:
        """Remember the roots of a client that tells when they change."""
        declared = getattr(driver.engine.peer_capabilities, "roots", None)
        if declared is not None and declared.list_changed:
            self._roots[driver] = roots


# 10,000 users sent to a URL at once; the oldest are forgotten first, and then never told complete.
MAX_ELICITATIONS = 10_000

# Comparing texts costs the product of their lengths: 1,000 choices against 64 characters take a few
# milliseconds.
MAX_COMPARED = 1_000
MAX_TYPED = 64

# 64 pages in all: lists are short; only a client that walks a huge one would need more.
MAX_KEPT_PAGES = 64


def _wrapped(layer: Middleware, context: Context, call_next: CallNext) -> CallNext:
    async def call(params: Record) -> Record:
        return await layer(context, params, call_next)

    return call


async def _finish(outcome: Awaitable[None]) -> None:
    try:
        await outcome
    except Exception:
        log.exception("a callback failed")


def _in_loop(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    """Run now when we are in that loop, else as soon as it can."""
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        action()
    else:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(action)


def _report(what: str) -> str:
    return report_failure(log, what)


def _tool_failure(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


def _warn_of_repairs(tool: str, repairs: Sequence[Repair]) -> None:
    for repair in repairs:
        log.warning("arguments of %s: %s", tool, repair)


R = TypeVar("R", bound=Record)


def _annotations(given: R | Mapping[str, Any] | None, record: type[R]) -> R | None:
    """Annotations from a mapping, by their names in Python or on the wire."""
    if given is None or isinstance(given, record):
        return given
    names = {field.encode_name: field.name for field in msgspec.structs.fields(record)}
    members: dict[str, Any] = {}
    for key, value in cast("Mapping[str, Any]", given).items():
        name = names.get(key, key)
        if name not in names.values():
            raise Misconfigured(f"there is no annotation {key!r}; there are {', '.join(names)}")
        members[name] = value
    made = record(**members)
    try:
        msgspec.convert(msgspec.to_builtins(made), record)
    except msgspec.ValidationError as fault:
        raise Misconfigured(f"annotations: {fault}") from None
    return made


def _tool_name(name: str) -> str:
    try:
        check_tool_name(name)
    except ValueError as fault:
        raise Misconfigured(f"{fault}; give another with name=") from None
    return name


def _check_uri(uri: str) -> None:
    try:
        check_uri(uri)
    except ValueError as fault:
        raise Misconfigured(str(fault)) from None


def _check_meta(meta: Meta | None) -> None:
    try:
        check_meta_keys(meta or ())
    except ValueError as fault:
        raise Misconfigured(str(fault)) from None


def _near(choices: Sequence[str], typed: str) -> list[str]:
    """The choices that fit what was typed, best first.

    Those that begin with it, those that hold it, then those it could be a slip of the fingers for.
    """
    wanted = typed.casefold()
    begin = [one for one in choices if one.casefold().startswith(wanted)]
    hold = [one for one in choices if wanted in one.casefold() and one not in begin]
    if begin or hold:
        return begin + hold
    by_fold = {one.casefold(): one for one in choices[:MAX_COMPARED]}
    return [by_fold[fold] for fold in get_close_matches(wanted[:MAX_TYPED], by_fold)]


def _bounded(found: Sequence[str] | Completion) -> Completion:
    """At most 100 values, with the total and whether there are more."""
    if isinstance(found, Completion):
        values = list(found.values)
        total, has_more = found.total, found.has_more
    else:
        values = [str(one) for one in found]
        total, has_more = len(values), None
    if len(values) > MAX_COMPLETIONS:
        total = total if total is not None else len(values)
        return Completion(values=values[:MAX_COMPLETIONS], total=total, has_more=True)
    return Completion(values=values, total=total, has_more=has_more or False)
