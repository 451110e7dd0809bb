"""Revisions as two engines speak them: what is offered, what is agreed on, and what then goes out."""

from __future__ import annotations

from functools import partial

import pytest

from dragoman.errors import DragomanError
from dragoman.model.base import Icon, Record
from dragoman.model.content import AudioContent, ContentBlock, ResourceLink, TextContent
from dragoman.model.methods import CATALOGUE, Side
from dragoman.model.tools import (
    CallToolResult,
    ListToolsResult,
    Tool,
    ToolAnnotations,
    ToolExecution,
)
from dragoman.protocol.events import Degraded
from dragoman.revisions.dialect import Dialect
from dragoman.revisions.registry import HANDSHAKE
from tests.protocol.aids import (
    PARAMS,
    ask,
    client_engine,
    hello,
    open_alone,
    request,
    sent_one,
    server_engine,
    tell,
)
from tests.requirements.duties import duty

every_handshake = pytest.mark.parametrize("dialect", HANDSHAKE, ids=lambda one: one.wire)


def answered(asked: str, pinned: str | None = None) -> str:
    """The revision with which a server answers a client that asks for one."""
    server = server_engine(pinned)
    tell(server, request(1, "initialize", hello(asked)))
    revision: str = sent_one(server)["result"]["protocolVersion"]
    return revision


@duty("versions.offer.supported", "versions.offer.latest")
def test_a_client_offers_its_newest_revision_with_a_handshake() -> None:
    client = client_engine()
    client.open(now=0.0)
    assert sent_one(client)["params"]["protocolVersion"] == HANDSHAKE[-1].wire


@every_handshake
@duty("versions.offer.supported")
def test_a_pinned_client_offers_what_it_is_pinned_to(dialect: Dialect) -> None:
    client = client_engine(dialect.wire)
    client.open(now=0.0)
    assert sent_one(client)["params"]["protocolVersion"] == dialect.wire


@every_handshake
@duty("versions.answer.same")
def test_a_server_answers_with_the_revision_it_is_asked_for(dialect: Dialect) -> None:
    assert answered(dialect.wire) == dialect.wire
    assert answered(dialect.wire, dialect.wire) == dialect.wire


@pytest.mark.parametrize("asked", ["1999-01-01", "9999-12-31", "", "draft", "2026-07-28"])
@duty("versions.answer.other", "versions.answer.latest")
def test_a_server_answers_an_unknown_revision_with_its_newest(asked: str) -> None:
    assert answered(asked) == HANDSHAKE[-1].wire
    assert answered(asked, HANDSHAKE[0].wire) == HANDSHAKE[0].wire


@every_handshake
@pytest.mark.parametrize("side", Side)
@duty("versions.respected")
def test_no_method_goes_out_that_the_revision_does_not_know(dialect: Dialect, side: Side) -> None:
    engine = open_alone(side, dialect.wire)
    for name, params in PARAMS.items():
        if name in dialect.methods:
            continue
        assert not engine.may_send(name)
        send = partial(engine.request, now=0.0) if CATALOGUE[name].is_request else engine.notify
        with pytest.raises(DragomanError):
            send(name, params)
        assert engine.take() == []


BLOCKS: list[ContentBlock] = [
    TextContent(text="x", meta={"k": 1}),
    AudioContent(data="AAAA", mime_type="audio/wav"),
    ResourceLink(uri="a:b", name="n", title="N"),
]
RESULTS: dict[str, Record] = {
    "tools/call": CallToolResult(
        content=BLOCKS, structured_content={"a": 1}, result_type="complete"
    ),
    "tools/list": ListToolsResult(
        tools=[
            Tool(
                name="t",
                title="T",
                input_schema={"type": "object"},
                output_schema={"type": "object"},
                annotations=ToolAnnotations(title="T", read_only_hint=True),
                execution=ToolExecution(task_support="optional"),
                icons=[Icon(src="data:,")],
                meta={"k": 1},
            )
        ],
        ttl_ms=5,
        cache_scope="public",
    ),
}
KINDS = {"text": 0, "image": 0, "resource": 0, "audio": 1, "resource_link": 2}
"""Each kind of block, and the position of the revision that brought it."""


@every_handshake
@duty("versions.respected")
def test_no_member_and_no_block_goes_out_that_the_revision_does_not_know(dialect: Dialect) -> None:
    server = open_alone(Side.SERVER, dialect.wire)
    for method, result in RESULTS.items():
        arrived = ask(server, method, method)
        server.answer(arrived.exchange, result)
        [degraded] = [event for event in server.drain_events() if isinstance(event, Degraded)]
        assert degraded.losses
        wire = sent_one(server)["result"]
        assert set(wire) <= dialect.members[type(result).__name__]
        for block in wire.get("content", []):
            assert KINDS[block["type"]] <= dialect.position
            assert ("_meta" in block) <= (dialect.position >= 2)
        for tool in wire.get("tools", []):
            assert set(tool) <= dialect.members["Tool"]
