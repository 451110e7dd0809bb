"""What clients ask of a server, and how each request is answered.

Spec: server/tools, server/resources, server/prompts, server/utilities
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec

from dragoman.errors import (
    AskRefused,
    BadAnswer,
    ClientLost,
    InternalError,
    InvalidArguments,
    InvalidParams,
    LinkError,
    LocalError,
    NotNegotiated,
    Refused,
    RequestError,
    ResourceNotFound,
    ToolError,
    UrlElicitationRequired,
)
from dragoman.model.base import EmptyResult, PageParams, Record
from dragoman.model.checks import check_elicitation
from dragoman.model.completion import CompleteParams, CompleteResult, Completion, PromptReference
from dragoman.model.content import TextContent
from dragoman.model.elicitation import ElicitParams
from dragoman.model.logging import LEVELS, SetLevelParams
from dragoman.model.prompts import GetPromptParams, GetPromptResult, ListPromptsResult
from dragoman.model.resources import (
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    UriParams,
)
from dragoman.model.tools import CallToolParams, CallToolResult, ListToolsResult
from dragoman.protocol.calls import Exchange
from dragoman.protocol.negotiation import check_params
from dragoman.runtime.driver import Driver, Encoded, Outcome, report_failure
from dragoman.server.audience import Audience
from dragoman.server.context import Context, Serving
from dragoman.server.entries import (
    Completer,
    PromptEntry,
    ResourceEntry,
    TemplateEntry,
    ToolEntry,
    ToolLike,
)
from dragoman.server.registry import Registry
from dragoman.server.scalars import write_scalar

__all__ = ["Answers", "CallNext", "Middleware"]

log = logging.getLogger("dragoman.server")

CallNext = Callable[[Record], Awaitable[Record]]
Middleware = Callable[[Context, Record, CallNext], Awaitable[Record]]
"""Wraps every request: `async def m(context, params, call_next)` returns a result, usually that of
`await call_next(params)`. `context.method` says which request it is."""

_LOST = "it asked its client, which can no longer answer"

# server/utilities/completion: no more than this many values in one answer
MAX_COMPLETIONS = 100

# Comparing texts costs the product of their lengths: 1,000 choices against 64 characters take a few
# milliseconds.
MAX_COMPARED = 1_000
MAX_TYPED = 64

# 64 pages in all: lists are short; only a client that walks a huge one would need more.
MAX_KEPT_PAGES = 64


class Answers:
    """Answers the requests of every client of one server, from what the server offers.

    `serving` is the server, as a handler's context sees it; `audience` who is connected.
    """

    def __init__(
        self,
        serving: Serving,
        audience: Audience,
        *,
        tools: Registry[ToolLike],
        resources: Registry[ResourceEntry],
        templates: Registry[TemplateEntry],
        prompts: Registry[PromptEntry],
    ) -> None:
        self.serving = serving
        self.audience = audience
        self.tools = tools
        self.resources = resources
        self.templates = templates
        self.prompts = prompts
        self.completers: dict[str, Completer] = {}
        self.middleware: list[Middleware] = []
        self._lists: dict[tuple[str, str | None], tuple[int, Encoded]] = {}
        self._handlers: dict[str, Callable[..., Awaitable[Outcome]]] = {
            "tools/call": self.call_tool,
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

    async def handle(self, driver: Driver, exchange: Exchange, params: Record) -> Outcome:
        """Find the handler and call it, through the middleware when there is any."""
        handler = self._handlers[exchange.method.name]
        try:
            if not self.middleware:
                return await handler(driver, exchange, params)
            return await self._through_middleware(handler, driver, exchange, params)
        except UrlElicitationRequired as required:
            self._check_required(driver, exchange, required)
            raise
        except ClientLost as lost:
            log.info("%s ended without its client: %s", exchange.method.name, lost)
            raise InternalError(_LOST) from None
        except (ToolError, Refused) as refusal:
            # A tool's own were answered before; this one is of a middleware.
            if exchange.method.name == "tools/call":
                return _tool_failure(str(refusal))
            raise InternalError(str(refusal)) from None

    async def _through_middleware(
        self,
        handler: Callable[..., Awaitable[Outcome]],
        driver: Driver,
        exchange: Exchange,
        params: Record,
    ) -> Record:
        context = Context(self.serving, driver, exchange, params)

        async def innermost(given: Record) -> Record:
            result = await handler(driver, exchange, given)
            # Only what nobody wants to look at is written at once.
            assert not isinstance(result, bytes)
            return result.record if isinstance(result, Encoded) else result

        call: CallNext = innermost
        for layer in reversed(self.middleware):
            call = _wrapped(layer, context, call)
        return await call(params)

    # --- tools, for clients -------------------------------------------------------------------------

    async def _list_tools(self, driver: Driver, exchange: Exchange, params: PageParams) -> Encoded:
        return self._list("tools", params.cursor, self.tools, ListToolsResult, "tools")

    async def call_tool(
        self, driver: Driver, exchange: Exchange, params: CallToolParams, may_write: bool = False
    ) -> Record | bytes:
        """A result; already written, in the revision of the exchange, where that is allowed."""
        entry = self.tools.visible.get(params.name)
        if entry is None:
            name = params.name[:128]
            raise InvalidParams(f"unknown tool {name!r}{self.tools.suggest(name)}")
        context = Context(self.serving, driver, exchange, params) if entry.wants_context else None
        try:
            if type(entry) is ToolEntry and entry.is_direct:
                value = await entry.begin(params.raw_arguments, context)
                # By its type: a proxy may lie about its class.
                if may_write and type(value) is entry.scalar:
                    # It is of one of `SCALARS`.
                    written = write_scalar(value, exchange.dialect)  # type: ignore[arg-type]
                    if written is not None:
                        return written
                return entry.result(value)
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
        except AskRefused as refusal:
            return _tool_failure(f"the client refused {refusal.method}: {refusal.message}")
        except BadAnswer as misfit:
            log.info("%s: %s", params.name, _blame(misfit))
            return _tool_failure(_blame(misfit))
        except ClientLost as lost:
            log.info("%s ended without its client: %s", params.name, lost)
            return _tool_failure(_LOST)
        except NotNegotiated as missing:
            return _tool_failure(f"{params.name} needs a client that offers {missing.feature}")
        except UrlElicitationRequired as required:
            if not self.middleware:
                self._check_required(driver, exchange, required)
            raise
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
                self.audience.remember_elicitation(params.elicitation_id, driver)
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
        return await self.read_resource(params.uri, Context(self.serving, driver, exchange, params))

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
            return await entry.get(
                params.arguments, Context(self.serving, driver, exchange, params)
            )
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
        completer = self.completers.get(target)
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

    # --- lists --------------------------------------------------------------------------------------

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


def _wrapped(layer: Middleware, context: Context, call_next: CallNext) -> CallNext:
    async def call(params: Record) -> Record:
        return await layer(context, params, call_next)

    return call


def _report(what: str) -> str:
    return report_failure(log, what)


def _tool_failure(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=True)


def _blame(misfit: BadAnswer) -> str:
    """What is wrong with the client's answer, and nothing of what the user gave."""
    said = f"the client's answer to {misfit.method} does not fit"
    wrong = (f"{fault.path or 'the answer'}: expected {fault.expected}" for fault in misfit.faults)
    return f"{said}: {'; '.join(wrong)}" if misfit.faults else said


def _near(choices: Sequence[str], typed: str) -> list[str]:
    """The choices that fit what was typed, best first.

    Those that begin with it, those that hold it, then those it could be a slip of the fingers for.
    """
    wanted = typed.casefold()
    begin: list[str] = []
    hold: list[str] = []
    for one in choices:
        fold = one.casefold()
        if fold.startswith(wanted):
            begin.append(one)
        elif wanted in fold:
            hold.append(one)
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
