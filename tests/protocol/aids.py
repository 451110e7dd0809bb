"""Engines, frames and plain conversations for the tests of the protocol."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from dragoman.jsonrpc.frame import LOCAL, Delivery, Seen
from dragoman.model.base import EmptyResult, Implementation, NoParams, PageParams, Record
from dragoman.model.capabilities import (
    ClientCapabilities,
    CompletionsCapability,
    ElicitationCapability,
    LoggingCapability,
    PromptsCapability,
    ResourcesCapability,
    RootsCapability,
    SamplingCapability,
    ServerCapabilities,
    ToolsCapability,
)
from dragoman.model.completion import (
    CompleteParams,
    CompleteResult,
    Completion,
    CompletionArgument,
    PromptReference,
)
from dragoman.model.content import ResourceContents, TextContent
from dragoman.model.elicitation import ElicitationCompleteParams, ElicitParams, ElicitResult
from dragoman.model.logging import LogMessageParams, SetLevelParams
from dragoman.model.methods import Side
from dragoman.model.prompts import GetPromptParams, GetPromptResult, ListPromptsResult
from dragoman.model.resources import (
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    ResourceUpdatedParams,
    UriParams,
)
from dragoman.model.roots import ListRootsResult, Root
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult, SamplingMessage
from dragoman.model.tools import CallToolParams, CallToolResult, ListToolsResult
from dragoman.protocol.engine import Engine, Introduction
from dragoman.protocol.events import Event, Fault, FaultKind, RequestArrived
from dragoman.protocol.limits import Limits
from dragoman.protocol.negotiation import Capabilities
from dragoman.revisions.registry import HANDSHAKE, supported
from dragoman.testing import LinkedEngines

E = TypeVar("E")

REVISIONS = [dialect.wire for dialect in HANDSHAKE]
NEWEST = REVISIONS[-1]

CLIENT_INFO = Implementation(name="asker", version="1.0")
SERVER_INFO = Implementation(name="giver", version="2.0")

ALL_OF_A_CLIENT = ClientCapabilities(
    roots=RootsCapability(list_changed=True),
    sampling=SamplingCapability(tools={}, context={}),
    elicitation=ElicitationCapability(form={}, url={}),
)
ALL_OF_A_SERVER = ServerCapabilities(
    tools=ToolsCapability(list_changed=True),
    resources=ResourcesCapability(subscribe=True, list_changed=True),
    prompts=PromptsCapability(list_changed=True),
    logging=LoggingCapability(),
    completions=CompletionsCapability(),
)
NOTHING_OF: dict[Side, Capabilities] = {
    Side.CLIENT: ClientCapabilities(),
    Side.SERVER: ServerCapabilities(),
}

PARAMS: dict[str, Record] = {
    "ping": NoParams(),
    "tools/list": PageParams(),
    "tools/call": CallToolParams.of("add", {"a": 1, "b": 2}),
    "resources/list": PageParams(),
    "resources/templates/list": PageParams(),
    "resources/read": UriParams(uri="note://1"),
    "resources/subscribe": UriParams(uri="note://1"),
    "resources/unsubscribe": UriParams(uri="note://1"),
    "prompts/list": PageParams(),
    "prompts/get": GetPromptParams(name="plan"),
    "completion/complete": CompleteParams(
        ref=PromptReference(name="plan"), argument=CompletionArgument(name="city", value="P")
    ),
    "logging/setLevel": SetLevelParams(level="warning"),
    "sampling/createMessage": CreateMessageParams(
        messages=[SamplingMessage(role="user", content=TextContent(text="hi"))], max_tokens=5
    ),
    "roots/list": NoParams(),
    "elicitation/create": ElicitParams(
        message="Who?", requested_schema={"type": "object", "properties": {}}
    ),
    "notifications/message": LogMessageParams(level="error", data="broken"),
    "notifications/tools/list_changed": NoParams(),
    "notifications/prompts/list_changed": NoParams(),
    "notifications/resources/list_changed": NoParams(),
    "notifications/resources/updated": ResourceUpdatedParams(uri="note://1"),
    "notifications/elicitation/complete": ElicitationCompleteParams(elicitation_id="e1"),
    "notifications/roots/list_changed": NoParams(),
}
"""Parameters for every method that a program may send by itself."""

RESULTS: dict[str, Record] = {
    "ping": EmptyResult(),
    "tools/list": ListToolsResult(tools=[]),
    "tools/call": CallToolResult(content=[TextContent(text="3")]),
    "resources/list": ListResourcesResult(resources=[]),
    "resources/templates/list": ListResourceTemplatesResult(resource_templates=[]),
    "resources/read": ReadResourceResult(contents=[ResourceContents(uri="note://1", text="x")]),
    "resources/subscribe": EmptyResult(),
    "resources/unsubscribe": EmptyResult(),
    "prompts/list": ListPromptsResult(prompts=[]),
    "prompts/get": GetPromptResult(messages=[]),
    "completion/complete": CompleteResult(completion=Completion(values=["Paris"])),
    "logging/setLevel": EmptyResult(),
    "sampling/createMessage": CreateMessageResult(
        role="assistant", content=TextContent(text="hello"), model="m"
    ),
    "roots/list": ListRootsResult(roots=[Root(uri="file:///home")]),
    "elicitation/create": ElicitResult(action="accept", content={}),
}
"""A result for every request."""


def client_engine(
    revision: str | None = None,
    *,
    capabilities: ClientCapabilities = ALL_OF_A_CLIENT,
    limits: Limits | None = None,
) -> Engine:
    """A client that was not opened yet, pinned to a revision if one is given."""
    introduction = Introduction(CLIENT_INFO, capabilities)
    return Engine(Side.CLIENT, introduction, dialects=supported(revision), limits=limits)


def server_engine(
    revision: str | None = None,
    *,
    capabilities: ServerCapabilities = ALL_OF_A_SERVER,
    instructions: str | None = None,
    limits: Limits | None = None,
) -> Engine:
    """A server that was not opened yet, pinned to a revision if one is given."""
    introduction = Introduction(SERVER_INFO, capabilities, instructions)
    return Engine(Side.SERVER, introduction, dialects=supported(revision), limits=limits)


def engine_of(
    side: Side,
    revision: str | None = None,
    *,
    capabilities: Capabilities | None = None,
    limits: Limits | None = None,
) -> Engine:
    """Either of the two."""
    if side is Side.CLIENT:
        assert not isinstance(capabilities, ServerCapabilities)
        return client_engine(revision, capabilities=capabilities or ALL_OF_A_CLIENT, limits=limits)
    assert not isinstance(capabilities, ClientCapabilities)
    return server_engine(revision, capabilities=capabilities or ALL_OF_A_SERVER, limits=limits)


def open_alone(
    side: Side,
    revision: str | None = None,
    *,
    capabilities: Capabilities | None = None,
    peer: dict[str, Any] | None = None,
    limits: Limits | None = None,
) -> Engine:
    """An open engine whose peer is a plain conversation; `peer` is what that peer declares.

    The outbox is empty afterwards.
    """
    engine = engine_of(side, revision, capabilities=capabilities, limits=limits)
    wire = engine.dialects[-1].wire
    if side is Side.CLIENT:
        call = engine.open(now=0.0)
        tell(engine, answer(call.id, welcome(wire, FULL_SERVER if peer is None else peer)))
    else:
        tell(
            engine,
            request("hello", "initialize", hello(wire, FULL_CLIENT if peer is None else peer)),
        )
        tell(engine, notification("notifications/initialized"))
    engine.take()
    return engine


def linked(
    revision: str | None = None,
    *,
    server_revision: str | None = None,
    client_limits: Limits | None = None,
    server_limits: Limits | None = None,
) -> LinkedEngines:
    """A client and a server with every capability, open, with no events left over."""
    pair = LinkedEngines(
        client_engine(revision, limits=client_limits),
        server_engine(server_revision or revision, limits=server_limits),
    )
    pair.open()
    for side in Side:
        pair.new_events(side)
    return pair


FULL_CLIENT: dict[str, Any] = {
    "roots": {"listChanged": True},
    "sampling": {"tools": {}, "context": {}},
    "elicitation": {"form": {}, "url": {}},
}
FULL_SERVER: dict[str, Any] = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "prompts": {"listChanged": True},
    "logging": {},
    "completions": {},
}


def hello(revision: str = NEWEST, capabilities: dict[str, Any] | None = None) -> dict[str, Any]:
    """Parameters of initialize."""
    return {
        "protocolVersion": revision,
        "capabilities": capabilities or {},
        "clientInfo": {"name": "script", "version": "0"},
    }


def welcome(revision: str = NEWEST, capabilities: dict[str, Any] | None = None) -> dict[str, Any]:
    """A result of initialize."""
    return {
        "protocolVersion": revision,
        "capabilities": capabilities or {},
        "serverInfo": {"name": "script", "version": "0"},
    }


def request(ident: Any, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """A request as it stands on the wire."""
    return {"id": ident, **notification(method, params)}


def notification(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """A notification as it stands on the wire."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return message


def answer(ident: Any, result: dict[str, Any] | None = None) -> dict[str, Any]:
    """A successful answer as it stands on the wire."""
    return {"jsonrpc": "2.0", "id": ident, "result": result or {}}


def failure(ident: Any, code: int = -32000, message: str = "no") -> dict[str, Any]:
    """An error as it stands on the wire."""
    return {"jsonrpc": "2.0", "id": ident, "error": {"code": code, "message": message}}


def progress(token: Any, value: float, **more: Any) -> dict[str, Any]:
    """A progress notification as it stands on the wire."""
    params = {"progressToken": token, "progress": value, **more}
    return notification("notifications/progress", params)


def cancelled(ident: Any, reason: str | None = None) -> dict[str, Any]:
    """A cancellation as it stands on the wire."""
    params = {"requestId": ident} if reason is None else {"requestId": ident, "reason": reason}
    return notification("notifications/cancelled", params)


def tell(
    engine: Engine, message: Any, *, now: float = 0.0, delivery: Delivery | None = None
) -> list[Event]:
    """Hand one message (or bytes as they are) to an engine, as part of a delivery if one is given."""
    frame = message if isinstance(message, bytes) else json.dumps(message).encode()
    return engine.receive(frame, now=now, seen=Seen(LOCAL.principal, delivery=delivery))


def sent(engine: Engine) -> list[Any]:
    """What an engine wants to send, read as JSON; its outbox is empty afterwards."""
    return [json.loads(frame) for frame, _, _ in engine.take()]


def sent_one(engine: Engine) -> Any:
    """The one thing an engine wants to send."""
    [message] = sent(engine)
    return message


def only(events: list[Event], kind: type[E]) -> E:
    """The one event there is, which must be of that kind."""
    [event] = events
    assert isinstance(event, kind), event
    return event


def fault_kinds(events: list[Event]) -> list[FaultKind]:
    """The kinds of the faults among these events."""
    return [event.kind for event in events if isinstance(event, Fault)]


def on_the_wire(method: str) -> dict[str, Any]:
    """Parameters of a method as plain JSON."""
    params: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(PARAMS[method]))
    return params


def ask(engine: Engine, ident: Any, method: str, *, token: Any = None) -> RequestArrived:
    """Have a peer ask something that the engine takes."""
    params = on_the_wire(method)
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return only(tell(engine, request(ident, method, params)), RequestArrived)
