"""Nothing is used that was not declared, by either side, in any revision."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.errors import CannotLower, NotNegotiated
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
from dragoman.model.content import TextContent
from dragoman.model.elicitation import ElicitParams
from dragoman.model.methods import CATALOGUE, Side
from dragoman.model.sampling import CreateMessageParams, SamplingMessage, ToolChoice
from dragoman.model.tools import Tool
from dragoman.protocol import negotiation
from dragoman.protocol.events import Fault, FaultKind, NotificationArrived, RequestArrived
from dragoman.protocol.negotiation import (
    check_params,
    grants,
    shared_vocabulary,
    vocabulary,
)
from dragoman.revisions.registry import HANDSHAKE, dialect_for
from tests.protocol.aids import (
    ALL_OF_A_CLIENT,
    ALL_OF_A_SERVER,
    NEWEST,
    NOTHING_OF,
    PARAMS,
    REVISIONS,
    fault_kinds,
    on_the_wire,
    only,
    open_alone,
    request,
    sent,
    sent_one,
    tell,
)
from tests.requirements.duties import duty

# Each capability alone, as declared on the wire, and every method that it opens.
OF_SERVERS: dict[str, tuple[ServerCapabilities, dict[str, Any], set[str]]] = {
    "tools": (
        ServerCapabilities(tools=ToolsCapability()),
        {"tools": {}},
        {"tools/list", "tools/call"},
    ),
    "tools.listChanged": (
        ServerCapabilities(tools=ToolsCapability(list_changed=True)),
        {"tools": {"listChanged": True}},
        {"tools/list", "tools/call", "notifications/tools/list_changed"},
    ),
    "tools without listChanged": (
        ServerCapabilities(tools=ToolsCapability(list_changed=False)),
        {"tools": {"listChanged": False}},
        {"tools/list", "tools/call"},
    ),
    "resources": (
        ServerCapabilities(resources=ResourcesCapability()),
        {"resources": {}},
        {"resources/list", "resources/read", "resources/templates/list"},
    ),
    "resources.subscribe": (
        ServerCapabilities(resources=ResourcesCapability(subscribe=True)),
        {"resources": {"subscribe": True}},
        {
            "resources/list",
            "resources/read",
            "resources/templates/list",
            "resources/subscribe",
            "resources/unsubscribe",
            "notifications/resources/updated",
        },
    ),
    "resources.listChanged": (
        ServerCapabilities(resources=ResourcesCapability(list_changed=True)),
        {"resources": {"listChanged": True}},
        {
            "resources/list",
            "resources/read",
            "resources/templates/list",
            "notifications/resources/list_changed",
        },
    ),
    "prompts": (
        ServerCapabilities(prompts=PromptsCapability()),
        {"prompts": {}},
        {"prompts/list", "prompts/get"},
    ),
    "prompts.listChanged": (
        ServerCapabilities(prompts=PromptsCapability(list_changed=True)),
        {"prompts": {"listChanged": True}},
        {"prompts/list", "prompts/get", "notifications/prompts/list_changed"},
    ),
    "logging": (
        ServerCapabilities(logging=LoggingCapability()),
        {"logging": {}},
        {"logging/setLevel", "notifications/message"},
    ),
    "completions": (
        ServerCapabilities(completions=CompletionsCapability()),
        {"completions": {}},
        {"completion/complete"},
    ),
    "nothing": (ServerCapabilities(), {}, set()),
}
OF_CLIENTS: dict[str, tuple[ClientCapabilities, dict[str, Any], set[str]]] = {
    "roots": (ClientCapabilities(roots=RootsCapability()), {"roots": {}}, {"roots/list"}),
    "roots.listChanged": (
        ClientCapabilities(roots=RootsCapability(list_changed=True)),
        {"roots": {"listChanged": True}},
        {"roots/list", "notifications/roots/list_changed"},
    ),
    "sampling": (
        ClientCapabilities(sampling=SamplingCapability()),
        {"sampling": {}},
        {"sampling/createMessage"},
    ),
    "elicitation": (
        ClientCapabilities(elicitation=ElicitationCapability()),
        {"elicitation": {}},
        {"elicitation/create"},
    ),
    "elicitation.url": (
        ClientCapabilities(elicitation=ElicitationCapability(form={}, url={})),
        {"elicitation": {"form": {}, "url": {}}},
        {"elicitation/create", "notifications/elicitation/complete"},
    ),
    "nothing": (ClientCapabilities(), {}, set()),
}

# Methods that need a capability of servers, and of clients.
ON_SERVERS = {name for name, known in CATALOGUE.items() if known.needs_of is Side.SERVER}
ON_CLIENTS = {name for name, known in CATALOGUE.items() if known.needs_of is Side.CLIENT}


def exists(method: str, revision: str) -> bool:
    dialect = dialect_for(revision)
    assert dialect is not None
    return method in dialect.methods


def opened_by(granted: set[str], revision: str) -> set[str]:
    """What a capability opens in a revision, with what needs no declaration there."""
    always = {"completion/complete"} if revision == "2024-11-05" else set()
    return {name for name in granted | always if exists(name, revision)}


@duty(
    "capabilities.only-negotiated",
    "capabilities.respected",
    "capabilities.tools-needed",
    "prompts.negotiated",
    "errors.capability-missing",
)
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("name", OF_SERVERS)
def test_a_client_asks_only_for_what_its_server_declared(name: str, revision: str) -> None:
    _, declared, granted = OF_SERVERS[name]
    client = open_alone(Side.CLIENT, revision, peer=declared)
    open_methods = opened_by(granted, revision)
    for method in ON_SERVERS:
        known = CATALOGUE[method]
        if Side.CLIENT not in known.senders or not exists(method, revision):
            continue
        if method in open_methods:
            client.request(method, PARAMS[method], now=0.0)
            assert sent_one(client)["method"] == method
        else:
            with pytest.raises(NotNegotiated) as raised:
                client.request(method, PARAMS[method], now=0.0)
            assert raised.value.feature == known.needs
            assert str(raised.value.feature) in str(raised.value)
            assert sent(client) == []


@duty("capabilities.sampling-needed", "roots.capability-checked", "isolation.constraints")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("name", OF_CLIENTS)
def test_a_server_asks_only_for_what_its_client_declared(name: str, revision: str) -> None:
    _, declared, granted = OF_CLIENTS[name]
    server = open_alone(Side.SERVER, revision, peer=declared)
    for method in ON_CLIENTS:
        known = CATALOGUE[method]
        if Side.SERVER not in known.senders or not known.is_request:
            continue
        if not exists(method, revision):
            with pytest.raises(CannotLower):
                server.request(method, PARAMS[method], now=0.0)
        elif method in granted:
            server.request(method, PARAMS[method], now=0.0)
            assert sent_one(server)["method"] == method
        else:
            with pytest.raises(NotNegotiated) as raised:
                server.request(method, PARAMS[method], now=0.0)
            assert raised.value.feature == known.needs
            assert sent(server) == []


@duty("capabilities.respected", "capabilities.subscribe-needed", "resources.subscribe-optional")
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("name", OF_SERVERS)
def test_a_server_offers_and_tells_only_what_it_declared_itself(name: str, revision: str) -> None:
    ours, _, granted = OF_SERVERS[name]
    server = open_alone(Side.SERVER, revision, capabilities=ours)
    open_methods = opened_by(granted, revision)
    for number, method in enumerate(sorted(ON_SERVERS)):
        known = CATALOGUE[method]
        if not known.is_request:
            assert server.may_send(method) is (method in open_methods)
            continue
        events = tell(server, request(number, method, on_the_wire(method)))
        if method in open_methods:
            only(events, RequestArrived)
        else:
            assert fault_kinds(events) == [FaultKind.NOT_NEGOTIATED]
            assert sent_one(server)["error"]["code"] == -32601


@duty("roots.unsupported", "completion.not-supported", "jsonrpc.error.method-not-found")
@pytest.mark.parametrize("revision", REVISIONS[1:])
@pytest.mark.parametrize(
    ("side", "method"),
    [
        (Side.CLIENT, "roots/list"),
        (Side.CLIENT, "sampling/createMessage"),
        (Side.SERVER, "completion/complete"),
        (Side.SERVER, "tools/call"),
        (Side.SERVER, "prompts/get"),
        (Side.SERVER, "resources/subscribe"),
        (Side.SERVER, "logging/setLevel"),
    ],
)
def test_a_request_for_what_we_did_not_declare_is_method_not_found(
    side: Side, method: str, revision: str
) -> None:
    engine = open_alone(side, revision, capabilities=NOTHING_OF[side])
    fault = only(tell(engine, request(1, method, on_the_wire(method))), Fault)
    assert fault.kind is FaultKind.NOT_NEGOTIATED
    assert method in fault.detail
    assert sent_one(engine)["error"]["code"] == -32601


def test_a_notice_nobody_declared_is_reported_and_still_delivered() -> None:
    client = open_alone(Side.CLIENT, peer={})
    message = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    fault, arrived = tell(client, message)
    assert isinstance(fault, Fault)
    assert fault.kind is FaultKind.NOT_NEGOTIATED
    assert isinstance(arrived, NotificationArrived)


# --- what parameters use --------------------------------------------------------------------------


FORM = ElicitParams(message="Who?", requested_schema={"type": "object", "properties": {}})
FORM_BY_NAME = ElicitParams(mode="form", message="Who?", requested_schema={"type": "object"})
URL = ElicitParams(mode="url", message="Pay", url="https://pay.example", elicitation_id="e1")


@duty("elicitation.modes.negotiated")
@pytest.mark.parametrize(
    ("declared", "form", "url"),
    [
        ({}, True, False),
        ({"form": {}}, True, False),
        ({"url": {}}, False, True),
        ({"form": {}, "url": {}}, True, True),
    ],
)
def test_no_elicitation_goes_out_in_a_mode_the_client_lacks(
    declared: dict[str, Any], form: bool, url: bool
) -> None:
    server = open_alone(Side.SERVER, NEWEST, peer={"elicitation": declared})
    for params, allowed, feature in (
        (FORM, form, "elicitation.form"),
        (FORM_BY_NAME, form, "elicitation.form"),
        (URL, url, "elicitation.url"),
    ):
        if allowed:
            server.request("elicitation/create", params, now=0.0)
            assert sent_one(server)["method"] == "elicitation/create"
        else:
            with pytest.raises(NotNegotiated) as raised:
                server.request("elicitation/create", params, now=0.0)
            assert raised.value.feature == feature
            assert sent(server) == []


def test_a_revision_without_url_mode_cannot_be_asked_in_it() -> None:
    server = open_alone(Side.SERVER, "2025-06-18", peer={"elicitation": {"url": {}, "form": {}}})
    with pytest.raises(CannotLower):
        server.request("elicitation/create", URL, now=0.0)
    server.request("elicitation/create", FORM, now=0.0)


def sampling(**more: Any) -> CreateMessageParams:
    message = SamplingMessage(role="user", content=TextContent(text="hi"))
    return CreateMessageParams(messages=[message], max_tokens=5, **more)


SAMPLING_NEEDS: dict[str, tuple[CreateMessageParams, str | None]] = {
    "plain": (sampling(), None),
    "no context": (sampling(include_context="none"), None),
    "tools": (sampling(tools=[Tool(name="t", input_schema={"type": "object"})]), "tools"),
    "a tool choice": (sampling(tool_choice=ToolChoice(mode="auto")), "tools"),
    "the context of the server": (sampling(include_context="thisServer"), "context"),
    "the context of all": (sampling(include_context="allServers"), "context"),
}


@duty("sampling.tools.negotiated", "sampling.context.negotiated")
@pytest.mark.parametrize("what", SAMPLING_NEEDS)
@pytest.mark.parametrize(
    "declared", [{}, {"tools": {}}, {"context": {}}, {"tools": {}, "context": {}}]
)
def test_sampling_uses_only_the_parts_the_client_declared(
    what: str, declared: dict[str, Any]
) -> None:
    params, part = SAMPLING_NEEDS[what]
    server = open_alone(Side.SERVER, NEWEST, peer={"sampling": declared})
    if part is None or part in declared:
        server.request("sampling/createMessage", params, now=0.0)
        assert sent_one(server)["method"] == "sampling/createMessage"
    else:
        with pytest.raises(NotNegotiated) as raised:
            server.request("sampling/createMessage", params, now=0.0)
        assert raised.value.feature == f"sampling.{part}"
        assert sent(server) == []


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_before_context_was_declared_every_client_could_be_asked_for_it(revision: str) -> None:
    server = open_alone(Side.SERVER, revision, peer={"sampling": {}})
    params, _ = SAMPLING_NEEDS["the context of all"]
    server.request("sampling/createMessage", params, now=0.0)
    assert sent_one(server)["params"]["includeContext"] == "allServers"


# --- the functions themselves ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tools", True),
        ("tools.list_changed", False),
        ("resources.subscribe", True),
        ("resources.list_changed", False),
        ("prompts", False),
        ("prompts.list_changed", False),
        ("nonsense", False),
    ],
)
def test_a_path_is_granted_when_every_step_is_declared(path: str, expected: bool) -> None:
    declared = ServerCapabilities(
        tools=ToolsCapability(),
        resources=ResourcesCapability(subscribe=True, list_changed=False),
    )
    assert grants(declared, path) is expected


@pytest.mark.parametrize("dialect", HANDSHAKE, ids=lambda dialect: dialect.wire)
@pytest.mark.parametrize("sender", Side)
def test_with_everything_declared_the_vocabulary_is_the_whole_revision(
    dialect: Any, sender: Side
) -> None:
    words = vocabulary(dialect, sender, ALL_OF_A_CLIENT, ALL_OF_A_SERVER)
    assert set(words) == {name for name in dialect.methods if sender in CATALOGUE[name].senders}


def test_a_client_has_no_parameters_to_check() -> None:
    check_params(URL, HANDSHAKE[-1], ServerCapabilities())


def test_elicitation_without_any_declaration_is_refused_in_both_modes() -> None:
    for params in (FORM, URL):
        with pytest.raises(NotNegotiated):
            check_params(params, HANDSHAKE[-1], ClientCapabilities())
    with pytest.raises(NotNegotiated):
        check_params(SAMPLING_NEEDS["tools"][0], HANDSHAKE[-1], ClientCapabilities())
    with pytest.raises(NotNegotiated):
        check_params(SAMPLING_NEEDS["the context of all"][0], HANDSHAKE[-1], ClientCapabilities())


FREE = {"note": "x"}


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (ClientCapabilities(experimental=FREE), ServerCapabilities()),
        (ClientCapabilities(extensions=FREE), ServerCapabilities()),
        (ClientCapabilities(tasks=FREE), ServerCapabilities()),
        (ClientCapabilities(sampling=SamplingCapability(tools=FREE)), ServerCapabilities()),
        (ClientCapabilities(sampling=SamplingCapability(context=FREE)), ServerCapabilities()),
        (ClientCapabilities(elicitation=ElicitationCapability(form=FREE)), ServerCapabilities()),
        (ClientCapabilities(elicitation=ElicitationCapability(url=FREE)), ServerCapabilities()),
        (ClientCapabilities(), ServerCapabilities(experimental=FREE)),
        (ClientCapabilities(), ServerCapabilities(extensions=FREE)),
        (ClientCapabilities(), ServerCapabilities(tasks=FREE)),
    ],
)
@pytest.mark.parametrize("side", Side)
def test_what_a_side_says_at_length_is_not_remembered(
    client: ClientCapabilities, server: ServerCapabilities, side: Side
) -> None:
    dialect = dialect_for(NEWEST)
    assert dialect is not None
    shared_vocabulary(dialect, side, client, server, frozenset())
    assert not [
        known
        for recent in negotiation._recent.values()
        for known in recent
        if known[0] is client or known[1] is server
    ]
    # The same words once more for those who say only names.
    plain = ClientCapabilities(roots=RootsCapability())
    once = shared_vocabulary(dialect, side, plain, ServerCapabilities(), frozenset())
    again = ClientCapabilities(roots=RootsCapability())
    assert shared_vocabulary(dialect, side, again, ServerCapabilities(), frozenset()) is once
