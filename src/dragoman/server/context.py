"""The context: what a handler knows of its request, and what it can do meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, overload

import msgspec

from dragoman.errors import BadAnswer, UrlElicitationRequired
from dragoman.jsonrpc.frame import Principal
from dragoman.model.base import (
    EmptyResult,
    Implementation,
    Meta,
    NoParams,
    Record,
    refuse_not_finite,
)
from dragoman.model.capabilities import ClientCapabilities
from dragoman.model.checks import check_elicitation, check_sampling, check_sampling_result
from dragoman.model.content import SamplingBlock, TextContent
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.logging import LEVELS, LoggingLevel, LogMessageParams
from dragoman.model.prompts import PromptMessage
from dragoman.model.resources import ReadResourceResult
from dragoman.model.roots import ListRootsResult, Root
from dragoman.model.sampling import (
    CreateMessageParams,
    CreateMessageResult,
    ModelHint,
    ModelPreferences,
    SamplingMessage,
    ToolChoice,
)
from dragoman.model.tools import Tool
from dragoman.protocol.calls import Exchange
from dragoman.protocol.negotiation import check_params
from dragoman.runtime.driver import Driver
from dragoman.server.asking import DirectAsk, Strategy
from dragoman.server.audience import Audience
from dragoman.server.forms import Elicited, Form

__all__ = ["Context", "Serving"]

T = TypeVar("T")

_IncludeContext = Literal["none", "thisServer", "allServers"]

Ask = str | SamplingBlock | SamplingMessage | PromptMessage

# 10 minutes: a person may have to read, think and approve before a model or a form answers.
ASK_TIMEOUT_S = 600.0


class Serving(Protocol):
    """What a context needs of the server behind it."""

    @property
    def name(self) -> str: ...

    def state_in(self, loop: asyncio.AbstractEventLoop) -> Any: ...

    @property
    def audience(self) -> Audience: ...

    def filter_log(self, params: LogMessageParams) -> LogMessageParams | None: ...

    async def read_resource(self, uri: str, context: Context) -> ReadResourceResult: ...


class Context:
    """One request, seen by its handler.

    A handler that has a parameter annotated `Context` receives it; it is good until the handler
    returns. Cancellation is the task's own: `asyncio.CancelledError` at the next `await`.
    """

    __slots__ = ("_ask", "_driver", "_exchange", "_params", "server")

    def __init__(self, server: Serving, driver: Driver, exchange: Exchange, params: Record) -> None:
        self.server = server
        self._driver = driver
        self._exchange = exchange
        self._params = params
        self._ask: Strategy | None = None

    # --- who and what -----------------------------------------------------------------------------

    @property
    def request_id(self) -> int | str:
        """The id the client gave this request."""
        return self._exchange.id

    @property
    def method(self) -> str:
        """The method of this request, for example "tools/call"."""
        return self._exchange.method.name

    @property
    def meta(self) -> Meta:
        """The request's `_meta`; empty when it has none."""
        return getattr(self._params, "meta", None) or {}

    @property
    def principal(self) -> Principal:
        """Who asks, as far as the link can tell."""
        return self._exchange.seen.principal

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the HTTP request, by lower-case name; empty on other transports.

        They may hold the client's credentials: never log them whole, never pass them on.
        """
        return self._exchange.seen.headers

    @property
    def protocol_version(self) -> str:
        """The revision this request is answered in."""
        return self._exchange.dialect.wire

    @property
    def client_info(self) -> Implementation:
        """The client's own words about itself: for display, never to trust."""
        peer = self._driver.engine.peer
        assert peer is not None
        return peer

    @property
    def client_capabilities(self) -> ClientCapabilities:
        """What the client declared."""
        capabilities = self._driver.engine.peer_capabilities
        assert isinstance(capabilities, ClientCapabilities)
        return capabilities

    @property
    def state(self) -> Any:
        """What the server's lifespan yielded in the event loop of this client; None without one."""
        return self.server.state_in(self._driver.closed.get_loop())

    # --- telling the client -----------------------------------------------------------------------

    async def log(self, level: LoggingLevel, data: Any, *, logger: str | None = None) -> None:
        """Send a log message. `data` is text or any JSON; never put a secret in it.

        `logger` is the server's name unless given. Nothing is sent below the level the client
        chose, over the rate limit, or once the request is over: answered, cancelled or overdue.

        Raises:
            ValueError: the data is no JSON, or there is no such level.

        Spec: server/utilities/logging
        """
        driver = self._driver
        if level not in LEVELS:
            raise ValueError(f"{level!r} is not one of {', '.join(LEVELS)}")
        if not isinstance(data, str):
            refuse_not_finite(data)
        if self._exchange.is_over:
            return
        params = LogMessageParams(level=level, data=data, logger=logger or self.server.name)
        filtered = self.server.filter_log(params)
        if filtered is not None:
            driver.engine.log(filtered, now=driver.clock.now(), about=self._exchange.seen.delivery)
            await self._sent()

    async def debug(self, data: Any, *, logger: str | None = None) -> None:
        """Details for whoever looks for a fault."""
        await self.log("debug", data, logger=logger)

    async def info(self, data: Any, *, logger: str | None = None) -> None:
        """The ordinary course of things."""
        await self.log("info", data, logger=logger)

    async def notice(self, data: Any, *, logger: str | None = None) -> None:
        """Ordinary, but worth a look."""
        await self.log("notice", data, logger=logger)

    async def warning(self, data: Any, *, logger: str | None = None) -> None:
        """Something may go wrong."""
        await self.log("warning", data, logger=logger)

    async def error(self, data: Any, *, logger: str | None = None) -> None:
        """Something went wrong."""
        await self.log("error", data, logger=logger)

    async def critical(self, data: Any, *, logger: str | None = None) -> None:
        """A part has failed."""
        await self.log("critical", data, logger=logger)

    async def alert(self, data: Any, *, logger: str | None = None) -> None:
        """Somebody must act now."""
        await self.log("alert", data, logger=logger)

    async def emergency(self, data: Any, *, logger: str | None = None) -> None:
        """Nothing works any more."""
        await self.log("emergency", data, logger=logger)

    async def report_progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Tell how far this request is; `progress` only grows.

        Nothing is sent when the client did not ask for progress, or over the rate limit.
        Spec: basic/utilities/progress
        """
        driver = self._driver
        driver.engine.progress(self._exchange, progress, total, message, now=driver.clock.now())
        await self._sent()

    async def _sent(self) -> None:
        """Hand over what was written; wait when the client reads more slowly than we write."""
        driver = self._driver
        driver.flush()
        delivery = self._exchange.seen.delivery
        if delivery is not None:
            # What others do not read is no reason to wait here.
            if delivery.is_congested:
                await delivery.drain()
        elif driver.link.is_congested:
            await driver.drain()

    async def close_stream(self, *, retry_s: float = 1.0) -> bool:
        """Close the connection that waits for this answer; the client comes back for it.

        For work that takes minutes: nothing in between has to hold a connection that long. The
        client returns after `retry_s` and gets what was sent meanwhile. False, and nothing is
        closed, where it could not come back: over stdio, or in a revision without it.

        Spec: basic/transports#sending-messages-to-the-server
        """
        delivery = self._exchange.seen.delivery
        if delivery is None or self._exchange.is_over:
            return False
        self._driver.flush()
        return delivery.let_go(retry_s)

    # --- asking the client ------------------------------------------------------------------------

    @property
    def asking(self) -> Strategy:
        """How questions travel to this client."""
        if self._ask is None:
            self._ask = DirectAsk(self._driver, self._exchange)
        return self._ask

    async def sample(
        self,
        messages: Ask | Sequence[Ask],
        *,
        max_tokens: int = 1024,
        system_prompt: str | None = None,
        temperature: float | None = None,
        stop_sequences: list[str] | None = None,
        model_preferences: ModelPreferences | str | list[str] | None = None,
        include_context: _IncludeContext | None = None,
        metadata: dict[str, Any] | None = None,
        tools: list[Tool] | None = None,
        tool_choice: ToolChoice | Literal["auto", "required", "none"] | None = None,
        timeout_s: float | None = ASK_TIMEOUT_S,
    ) -> CreateMessageResult:
        """Ask the client's model. The user may read, change or refuse both question and answer.

        `messages` is a text, a content block, a message or a list of them; texts and blocks are
        the user's. `model_preferences` may be a model's name or several, in order.

        `include_context` is left out where the client did not declare that it takes it.

        Raises:
            NotNegotiated: the client has no model to ask, or none that uses tools.
            ValueError: the messages break a rule of sampling.
            BadAnswer: the answer does.
            RemoteFailure: it was refused (`code` -1 when by the user) or failed.
            DeadlineExceeded, ClientLost: no answer came.

        Spec: client/sampling
        """
        if isinstance(model_preferences, str):
            model_preferences = [model_preferences]
        if isinstance(model_preferences, list):
            hints = [ModelHint(name=name) for name in model_preferences]
            model_preferences = ModelPreferences(hints=hints)
        params = CreateMessageParams(
            messages=_messages(messages),
            max_tokens=max_tokens,
            system_prompt=system_prompt,
            temperature=temperature,
            stop_sequences=stop_sequences,
            model_preferences=model_preferences,
            include_context=self._allowed_context(include_context),
            metadata=metadata,
            tools=tools,
            tool_choice=ToolChoice(mode=tool_choice)
            if isinstance(tool_choice, str)
            else tool_choice,
        )
        check_sampling(params)
        result = await self.asking.ask(
            "sampling/createMessage", params, CreateMessageResult, timeout_s=timeout_s
        )
        try:
            check_sampling_result(result)
        except ValueError as fault:
            raise BadAnswer("sampling/createMessage", str(fault)) from None
        return result

    def _allowed_context(self, wanted: _IncludeContext | None) -> _IncludeContext | None:
        """What may be asked of the client: some revisions make it a capability of its own."""
        if wanted in (None, "none") or not self._exchange.dialect.facts.has_sampling_tools:
            return wanted
        declared = self.client_capabilities.sampling
        return wanted if declared is not None and declared.context is not None else None

    @overload
    async def elicit(
        self, message: str, schema: type[T], *, timeout_s: float | None = ...
    ) -> Elicited[T]: ...
    @overload
    async def elicit(
        self, message: str, schema: Any, *, timeout_s: float | None = ...
    ) -> Elicited[Any]: ...
    async def elicit(
        self, message: str, schema: Any, *, timeout_s: float | None = ASK_TIMEOUT_S
    ) -> Elicited[Any]:
        """Ask the user a form.

        `schema` is a JSON Schema of plain fields, a record type (dataclass, TypedDict, msgspec,
        attrs, pydantic) or one plain type. The result is true when the user accepted; `.data` then
        holds the answer as that type. Never ask for secrets: use `elicit_url`.

        Raises:
            NotNegotiated: the client cannot ask its user.
            Misconfigured: a form cannot ask for such a thing.
            BadAnswer: the client sent an answer that does not fit; it should have checked.
            RemoteFailure, DeadlineExceeded, ClientLost: it failed, or no answer came.

        Spec: client/elicitation
        """
        form = Form(schema)
        # Revisions with more than one mode want it named; the others have no word for it.
        mode: Literal["form"] | None = (
            "form" if self._exchange.dialect.facts.has_url_elicitation else None
        )
        params = ElicitParams(message=message, mode=mode, requested_schema=form.schema)
        result = await self.asking.ask(
            "elicitation/create", params, ElicitResult, timeout_s=timeout_s
        )
        return form.read(result)

    async def elicit_url(
        self,
        message: str,
        url: str,
        *,
        elicitation_id: str | None = None,
        timeout_s: float | None = ASK_TIMEOUT_S,
    ) -> Elicited[None]:
        """Send the user to a URL, for what must not pass through the client.

        The answer says only whether the user agreed; call `elicitation_complete` with the id, here
        or later on the server, when what happens there has ended.

        Raises:
            ValueError: the URL is not absolute, or the id is in use.
            Others as `elicit`.

        Spec: client/elicitation#url-mode
        """
        params = self._url_params(message, url, elicitation_id)
        self.server.audience.expect_elicitation(params.elicitation_id or "", self._driver)
        result = await self.asking.ask(
            "elicitation/create", params, ElicitResult, timeout_s=timeout_s
        )
        return Elicited(result.action, None, None)

    def url_required(
        self, message: str, url: str, *, elicitation_id: str | None = None
    ) -> UrlElicitationRequired:
        """The error that ends this request until the user has been at a URL: raise it.

        Raises:
            NotNegotiated, CannotLower: the client cannot send its user anywhere.
            ValueError: the URL is not absolute, or the id is in use.

        Spec: client/elicitation#url-elicitation-required-error
        """
        params = self._url_params(message, url, elicitation_id)
        check_params(params, self._exchange.dialect, self.client_capabilities)
        self.server.audience.expect_elicitation(params.elicitation_id or "", self._driver)
        return UrlElicitationRequired(message, [msgspec.to_builtins(params)])

    @staticmethod
    def _url_params(message: str, url: str, elicitation_id: str | None) -> ElicitParams:
        params = ElicitParams(
            message=message,
            mode="url",
            url=url,
            elicitation_id=elicitation_id or os.urandom(16).hex(),
        )
        check_elicitation(params)
        return params

    async def elicitation_complete(self, elicitation_id: str) -> None:
        """Tell the client that what happened behind a URL has ended; see the server's method."""
        self.server.audience.elicitation_complete(elicitation_id)

    async def ping(self, *, timeout_s: float | None = None) -> None:
        """Ask the client for a sign of life. Raises DeadlineExceeded, ClientLost."""
        await self.asking.ask("ping", NoParams(), EmptyResult, timeout_s=timeout_s)

    async def list_roots(self, *, timeout_s: float | None = None) -> list[Root]:
        """The folders the user opened to this server.

        A client that tells of changes is asked once, and again after each change.

        Raises:
            NotNegotiated: the client has no roots.
            RemoteFailure, DeadlineExceeded, ClientLost: it failed, or no answer came.

        Spec: client/roots
        """
        known = self.server.audience.roots_of(self._driver)
        if known is not None:
            return list(known)
        result = await self.asking.ask(
            "roots/list", NoParams(), ListRootsResult, timeout_s=timeout_s
        )
        self.server.audience.keep_roots(self._driver, result.roots)
        return list(result.roots)

    async def read_resource(self, uri: str) -> ReadResourceResult:
        """Read one of this server's own resources. Raises ResourceNotFound."""
        return await self.server.read_resource(uri, self)


def _messages(given: Ask | Sequence[Ask]) -> list[SamplingMessage]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        given = [given]
    return [_message(one) for one in given]


def _message(one: Ask) -> SamplingMessage:
    if isinstance(one, SamplingMessage):
        content: object = one.content
        if isinstance(content, str):
            # Not what the type says, but what everybody writes first.
            return SamplingMessage(role=one.role, content=TextContent(text=content))
        return one
    if isinstance(one, PromptMessage):
        block = one.content
        if not isinstance(block, SamplingBlock):
            raise TypeError(
                f"a model is asked with text, images or audio, not {type(block).__name__}"
            )
        return SamplingMessage(role=one.role, content=block)
    if isinstance(one, str):
        one = TextContent(text=one)
    if not isinstance(one, msgspec.Struct):
        raise TypeError(f"expected a text, a content block or a message, got {type(one).__name__}")
    return SamplingMessage(role="user", content=one)
