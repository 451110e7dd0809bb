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
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from dragoman.errors import Misconfigured
from dragoman.model.base import Annotations, Icon, Implementation, Meta, Record
from dragoman.model.capabilities import (
    CompletionsCapability,
    LoggingCapability,
    PromptsCapability,
    ResourcesCapability,
    ServerCapabilities,
    ToolsCapability,
)
from dragoman.model.faults import Repair
from dragoman.model.logging import LogMessageParams
from dragoman.model.methods import Side
from dragoman.model.prompts import Prompt
from dragoman.model.resources import ReadResourceResult, Resource, ResourceTemplate
from dragoman.model.tools import Tool, ToolAnnotations
from dragoman.model.uri_template import UriTemplate
from dragoman.protocol.calls import Exchange
from dragoman.protocol.engine import Engine, Introduction
from dragoman.protocol.events import Degraded, Event, Fault, NotificationArrived
from dragoman.protocol.limits import Limits
from dragoman.revisions.registry import supported
from dragoman.runtime.clock import Clock
from dragoman.runtime.driver import Driver, Outcome, Tap
from dragoman.runtime.pool import MAX_THREADS, ThreadPool
from dragoman.server.answers import Answers, CallNext, Middleware
from dragoman.server.asgi import AsgiApp, Identify
from dragoman.server.audience import Audience
from dragoman.server.binding import bind, bind_prompt, bind_resource
from dragoman.server.callback import Callback
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
from dragoman.server.given import annotations_from, checked_meta, checked_name, checked_uri
from dragoman.server.lifespan import Lifespan
from dragoman.server.limits import OFFERS
from dragoman.server.registry import PAGE_SIZE, Registry
from dragoman.transport.base import Link
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import EventLog
from dragoman.transport.streamable.sessions import SessionStore

__all__ = ["CallNext", "Middleware", "Server"]

log = logging.getLogger("dragoman.server")

F = TypeVar("F", bound=Callable[..., Any])

# 8 places fit on a line of the log; a client that sends all its arguments so may have thousands.
MAX_NAMED = 8


class Server:
    """Offers tools, resources and prompts to any number of clients.

    `name` and `version` are shown to people; `instructions` tell a model how to use the server.
    `middleware` wraps every request, as the method of that name does.
    `lifespan` is an async context manager around the server's life; what it yields is
    `Context.state`. It is entered with the first client and left with the last, once in each event
    loop that serves clients. `page_size` is how many entries a list gives at once, `threads` how many
    functions may block at the same time. `revision` pins one revision of the protocol.
    `declares` names features that clients are told of though there is nothing of them yet, because
    it comes later. `log_filter` sees each log message before it goes to a client, and may change it
    or drop it by returning None. `on_roots_changed` is called when the roots of a client changed;
    what comes while it still waits is told once, after it. `keep_alive_s` pings a client after that
    much silence; one that does not answer within `keep_alive_timeout_s` (the same, unless given) is
    given up.

    Raises:
        Misconfigured: a setting that cannot work.
    """

    def __init__(
        self,
        name: str,
        *,
        version: str = "0",
        title: str | None = None,
        description: str | None = None,
        instructions: str | None = None,
        website_url: str | None = None,
        icons: Sequence[Icon] = (),
        lifespan: Callable[[Server], AbstractAsyncContextManager[Any]] | None = None,
        middleware: Sequence[Middleware] = (),
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
        self.audience = Audience()
        self.tools: Registry[ToolLike] = Registry(
            "tool", partial(self.audience.list_changed, "tools"), page_size
        )
        self.resources: Registry[ResourceEntry] = Registry(
            "resource", partial(self.audience.list_changed, "resources"), page_size
        )
        self.templates: Registry[TemplateEntry] = Registry(
            "resource template", partial(self.audience.list_changed, "resources"), page_size
        )
        self.prompts: Registry[PromptEntry] = Registry(
            "prompt", partial(self.audience.list_changed, "prompts"), page_size
        )
        self.limits = limits or Limits(rates=OFFERS)
        self._declares = frozenset(declares)
        if unknown := self._declares - {"tools", "resources", "prompts", "completions"}:
            raise Misconfigured(f"a server cannot declare {', '.join(sorted(unknown))}")
        self._keep_alive_s = keep_alive_s
        self._keep_alive_timeout_s = keep_alive_timeout_s or keep_alive_s
        self._dialects = supported(revision)
        self._pool = ThreadPool(threads, name=f"dragoman-{name}")
        self._connections: set[Driver] = set()
        self._introduction: Introduction | None = None
        # What the introduction was made from.
        self._introduced: tuple[Any, ...] = ()
        self._lifespan = Lifespan(None if lifespan is None else lambda: lifespan(self))
        self._log_filter = log_filter
        self._roots_changed = None if on_roots_changed is None else Callback(on_roots_changed)
        self._answers = Answers(
            self,
            self.audience,
            tools=self.tools,
            resources=self.resources,
            templates=self.templates,
            prompts=self.prompts,
        )
        self._answers.middleware.extend(middleware)

    def __repr__(self) -> str:
        offers = (
            (len(self.tools), "tools"),
            (len(self.resources) + len(self.templates), "resources"),
            (len(self.prompts), "prompts"),
        )
        shown = ", ".join(f"{count} {kind}" for count, kind in offers if count)
        return f"<Server {self.name!r}: {shown or 'nothing yet'}>"

    @property
    def version(self) -> str:
        """The version given at construction."""
        return self.info.version

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self.info.name

    @property
    def state(self) -> Any:
        """What the lifespan yielded; None without one, or while nobody is served.

        Each event loop that serves clients has a life of its own. Code that runs in none of them,
        such as a thread, gets the only state there is, and None while there are several: a handler
        asks its context.
        """
        return self._lifespan.state

    def state_in(self, loop: asyncio.AbstractEventLoop) -> Any:
        """What the lifespan yielded in that event loop; None while it serves nobody."""
        return self._lifespan.state_in(loop)

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
        hints = annotations_from(annotations, ToolAnnotations)
        checked_meta(meta)
        entry: ToolLike
        if input_schema is not None:
            definition = Tool(
                name=checked_name(name or fn.__name__),
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
                name=checked_name(binding.name),
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
            checked_uri(uri)
        checked_meta(meta)
        hints = annotations_from(annotations, Annotations)
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
        self.audience.resource_updated(uri)

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
        checked_meta(meta)
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
            self._answers.completers[target] = Completer(function, self._pool.run)
            return function

        return register

    def middleware(self, function: Middleware) -> Middleware:
        """Wrap every request; the first one added is the outermost. Usable as a decorator."""
        self._answers.middleware.append(function)
        return function

    add_middleware = middleware

    # --- serving ----------------------------------------------------------------------------------

    def run(
        self, transport: Literal["stdio", "http", "sse", "unix"] = "stdio", **options: Any
    ) -> None:
        """Serve until the client leaves ("stdio"), or until SIGINT or SIGTERM. Blocks.

        `options` are those of `serve_http`, with "http", "sse" and "unix".

        Raises:
            Misconfigured: no such transport or option, an address that cannot be used, or an event
                loop is running here already.
            MissingExtra: HTTP needs the extra `http`.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise Misconfigured(
                "run() starts an event loop of its own, and one is running here; "
                "await server.run_async() instead"
            )
        with (
            suppress(KeyboardInterrupt),
            asyncio.Runner(loop_factory=_fast_loop(transport)) as loop,
        ):
            loop.run(self.run_async(transport, **options))

    async def run_async(
        self, transport: Literal["stdio", "http", "sse", "unix"] = "stdio", **options: Any
    ) -> None:
        """As `run`, within a running event loop. Raises as `run` does."""
        if transport == "stdio":
            if options:
                raise Misconfigured(f"stdio takes no {', '.join(sorted(options))}")
            await self.serve_stdio()
        elif transport in ("http", "sse"):
            await self.serve_http(**options)
        elif transport == "unix":
            if options.get("socket") is None:
                raise Misconfigured('a Unix socket needs its path: run("unix", socket="my.sock")')
            await self.serve_http(**options)
        else:
            raise Misconfigured(
                f"the transport {transport!r} is not one of: stdio, http, sse, unix"
            )

    async def serve_http(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        socket: str | Path | None = None,
        fd: int | None = None,
        root_path: str = "",
        allow_hosts: Iterable[str] = (),
        identify: Identify | None = None,
        on_ready: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> None:
        """Serve over HTTP, both transports at once, until SIGINT or SIGTERM.

        `port` 0 takes a free one; in place of both, `socket` is the path of a Unix socket, or `fd` a
        descriptor that listens already, as systemd opens one. `root_path` is the prefix that a proxy
        in front takes off: HTTP+SSE tells its clients where to post. The other settings are those of
        `asgi`. `on_ready` gets the URL once connections are accepted; without it a line on stderr
        names it.

        Raises:
            Misconfigured: an address that cannot be used, or one that others can reach without
                `allow_hosts`.
            MissingExtra: HTTP needs the extra `http`.
        """
        from dragoman.server import serving

        serving.check_root_path(root_path)
        hosts = list(allow_hosts)
        app = self.asgi(allow_hosts=hosts, identify=identify, **settings)
        place = serving.listen(
            host, port, path=socket, fd=fd, has_hosts=bool(hosts), is_public=identify is None
        )
        url = place.origin + app.path

        def ready() -> None:
            if on_ready is not None:
                on_ready(url)
            else:
                sys.stderr.write(f"{self.name} is at {url}\n")

        try:
            await serving.serve(app, place.sock, on_ready=ready, root_path=root_path)
        finally:
            place.close()

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

    def asgi(
        self,
        *,
        path: str = "/mcp",
        sse_path: str | None = "/sse",
        message_path: str = "/messages",
        allow_hosts: Iterable[str] = (),
        allow_origins: Iterable[str] = (),
        identify: Identify | None = None,
        events: EventLog | None = None,
        sessions: SessionStore | None = None,
        limits: HttpLimits | None = None,
    ) -> AsgiApp:
        """This server as an ASGI application, for any ASGI server, or mounted in another app.

        Streamable HTTP is at `path`; HTTP+SSE, for older clients, at `sse_path` (None turns it off)
        and `message_path`. Below a prefix all three stand behind it.

        Only requests to this machine's own names are served, and pages of these: `allow_hosts`
        names others ("api.example.com"; "*" for any), `allow_origins` other pages
        ("https://app.example.com"). `identify` gets the ASGI scope and returns a `Principal`, or
        None to refuse with 401; a session belongs to whoever began it. `events` keeps what clients
        come back for, `sessions` the sessions themselves over a restart; `limits` has the ceilings.

        Raises:
            Misconfigured: a path, host or origin that cannot work.

        Spec: basic/transports
        """
        return AsgiApp(
            self,
            path=path,
            sse_path=sse_path,
            message_path=message_path,
            allow_hosts=allow_hosts,
            allow_origins=allow_origins,
            identify=identify,
            events=events,
            sessions=sessions,
            limits=limits,
        )

    async def serve_link(self, link: Link, *, tap: Tap | None = None) -> None:
        """Serve one client until its link closes. `tap` sees every frame."""
        try:
            await self._lifespan.enter()
        except BaseException:
            await link.aclose()
            raise
        try:
            driver = self.attach(link, tap=tap)
            try:
                error = await asyncio.shield(driver.closed)
                if error is not None:
                    log.info("a connection ended: %s", error)
            finally:
                await self.detach(driver)
        finally:
            await self._lifespan.leave()

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """The server's lifespan, for whoever attaches links: entered with the first, left with the
        last user of this event loop.
        """
        await self._lifespan.enter()
        try:
            yield
        finally:
            await self._lifespan.leave()

    def attach(
        self,
        link: Link,
        *,
        tap: Tap | None = None,
        clock: Clock | None = None,
        resume: Callable[[Engine], None] | None = None,
    ) -> Driver:
        """Begin to serve one client, within `living`; ended by `detach`. See also `serve_link`.

        `resume` puts the engine where another process left it.
        """
        engine = self._engine()
        if resume is not None:
            resume(engine)
        driver = Driver(engine, link, self, tap=tap, clock=clock)
        self._connections.add(driver)
        self.audience.join(driver)
        driver.start()
        if self._keep_alive_s is not None:
            driver.watch(self._keep_alive_s, self._keep_alive_timeout_s or self._keep_alive_s)
        return driver

    async def detach(self, driver: Driver) -> None:
        """End what `attach` began: the link, its handlers and what was kept for the client."""
        self.audience.leave(driver)
        try:
            await driver.aclose()
        finally:
            self._connections.discard(driver)
            if not self._connections:
                # A server that nobody uses keeps no thread.
                self._pool.rest()

    def _engine(self) -> Engine:
        # The same object as long as it says the same: ten thousand sessions share it.
        now = (
            self.info,
            self.instructions,
            self.tools.version,
            self.resources.version,
            self.templates.version,
            self.prompts.version,
            len(self._answers.completers),
        )
        introduction = self._introduction
        if introduction is None or now != self._introduced:
            introduction = Introduction(self.info, self.capabilities, self.instructions)
            self._introduction, self._introduced = introduction, now
        return Engine(Side.SERVER, introduction, dialects=self._dialects, limits=self.limits)

    @property
    def capabilities(self) -> ServerCapabilities:
        """What a client that connects now is told."""
        extra = self._declares
        has_tools = self.tools.is_used or "tools" in extra
        has_prompts = self.prompts.is_used or "prompts" in extra
        has_resources = self.resources.is_used or self.templates.is_used or "resources" in extra
        completes = (
            self._answers.completers
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

    def handle_request(
        self, driver: Driver, exchange: Exchange, params: Record
    ) -> Coroutine[Any, Any, Outcome]:
        """Answer a request; see `Answers`."""
        answers = self._answers
        if exchange.method.name == "tools/call" and not answers.middleware:
            # What is asked most often takes care of every error by itself.
            return answers.call_tool(driver, exchange, params, True)  # type: ignore[arg-type]
        return answers.handle(driver, exchange, params)

    def handle_event(self, driver: Driver, event: Event) -> None:
        """Take note of what the client tells, and of what goes wrong."""
        if isinstance(event, NotificationArrived):
            if event.method.name == "notifications/roots/list_changed":
                self.audience.forget_roots(driver)
                if self._roots_changed is not None:
                    self._roots_changed()
        elif isinstance(event, Fault):
            driver.faults.write(log, event)
        elif isinstance(event, Degraded):
            for loss in event.losses:
                log.debug("%s to an older revision: %s", event.method, loss)

    # --- what a context needs -----------------------------------------------------------------------

    def elicitation_complete(self, elicitation_id: str) -> None:
        """Tell the client that was sent to a URL that what happened there has ended.

        May be called from any thread, long after the request that asked. An id that nobody was
        asked under, or whose client has gone, is ignored.

        Spec: client/elicitation#completion-notifications-for-url-mode-elicitation
        """
        self.audience.elicitation_complete(elicitation_id)

    def filter_log(self, params: LogMessageParams) -> LogMessageParams | None:
        """The message as it may leave, or None."""
        return params if self._log_filter is None else self._log_filter(params)

    async def read_resource(self, uri: str, context: Context) -> ReadResourceResult:
        """Read a resource of this server. Raises ResourceNotFound."""
        return await self._answers.read_resource(uri, context)


def _fast_loop(transport: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop for serving many, where it is installed; a pipe gains little from it."""
    if transport == "stdio":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _warn_of_repairs(tool: str, repairs: Sequence[Repair]) -> None:
    # Where it came may be read by anybody; what came may be a secret.
    places = [repair.path or "the whole" for repair in repairs[:MAX_NAMED]]
    if len(repairs) > MAX_NAMED:
        places.append(f"{len(repairs) - MAX_NAMED} more")
    log.warning("arguments of %s that were JSON as text, and read: %s", tool, ", ".join(places))
    if log.isEnabledFor(logging.DEBUG):
        for repair in repairs:
            log.debug("arguments of %s: %s", tool, repair)
