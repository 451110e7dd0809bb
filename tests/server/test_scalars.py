"""One value that a tool has promised is written at once: what is sent is what a record would say."""

from __future__ import annotations

from contextlib import suppress
from enum import IntEnum
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dragoman import CallToolResult, RemoteFailure, Server, TextContent
from dragoman.revisions.dialect import Dialect, Loss
from dragoman.revisions.registry import DIALECTS, HANDSHAKE
from dragoman.server.scalars import SCALARS, write_scalar
from tests.support import HANDSHAKE as WIRES
from tests.support import joined, run


def as_record(value: int | str | bool, dialect: Dialect) -> tuple[bytes, list[Loss]]:
    """The same result, by way of the record."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    result = CallToolResult(content=[TextContent(text=text)], structured_content={"result": value})
    losses: list[Loss] = []
    return dialect.encode(result, losses.append), losses


values = st.one_of(
    st.integers(-(2**80), 2**80),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.wire)
@given(value=values)
@example(value="the value")
@example(value='"the value"')
@example(value="")
@example(value=True)
@example(value=0)
def test_what_is_written_at_once_is_what_the_record_says(
    dialect: Dialect, value: int | str | bool
) -> None:
    expected, losses = as_record(value, dialect)
    assert write_scalar(value, dialect) == (None if losses else expected)


def test_the_newer_revisions_are_written_at_once() -> None:
    for dialect in HANDSHAKE[-2:]:
        assert all(write_scalar(kind(), dialect) is not None for kind in SCALARS)


@pytest.mark.parametrize("value", [10**5000, "\ud800"], ids=["a long number", "half a character"])
def test_what_cannot_be_written_is_left_to_the_usual_way(value: Any) -> None:
    assert write_scalar(value, HANDSHAKE[-1]) is None


class Level(IntEnum):
    """Not exactly a number."""

    HIGH = 3


class Proxy:
    """Says that it is a number, as proxies of an object do."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return int

    def __repr__(self) -> str:
        return "<a proxy>"


def workshop() -> Server:
    server = Server("workshop")

    @server.tool
    async def promised(value: int) -> int:
        return value

    @server.tool
    async def said(value: str) -> str:
        return value

    @server.tool
    async def agreed(value: bool) -> bool:
        return value

    @server.tool
    async def bounded(value: int) -> Annotated[int, msgspec.Meta(ge=0)]:
        return value

    @server.tool
    async def enumerated() -> int:
        return Level.HIGH

    @server.tool
    async def proxied() -> int:
        return Proxy()  # type: ignore[return-value]

    @server.tool
    async def broken() -> int:
        return "no number"  # type: ignore[return-value]

    @server.tool
    async def unspeakable() -> str:
        return "\ud800"

    @server.tool(output_schema={"type": "object", "properties": {"result": {"maximum": 5}}})
    async def schemed(value: int) -> int:
        return value

    return server


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("promised", {"value": 7}),
    ("promised", {"value": "7"}),
    ("promised", {"value": 2**70}),
    ("promised", {"valu": 7}),
    ("said", {"value": 'a "quoted" ü\n'}),
    ("said", {"value": ""}),
    ("agreed", {"value": True}),
    ("agreed", {"value": False}),
    ("bounded", {"value": 1}),
    ("enumerated", {}),
    ("proxied", {}),
    ("broken", {}),
    ("unspeakable", {}),
    ("schemed", {"value": 3}),
    ("schemed", {"value": 9}),
]


async def answers(server: Server, revision: str) -> list[Any]:
    """What the wire holds for each call; error ids are different each time."""
    async with joined(server, revision=revision) as (client, wire):
        for name, arguments in CALLS:
            # Refused or not: what is compared is the wire.
            with suppress(RemoteFailure):
                await client.call_tool(name, arguments, raise_on_error=False)
        return [masked(frame) for way, frame in wire.frames if way == "received"]


def masked(frame: Any) -> Any:
    text = msgspec.json.encode(frame).decode()
    head, mark, rest = text.partition("(error id ")
    return msgspec.json.decode((head + mark + rest[12:]).encode()) if mark else frame


@pytest.mark.parametrize("revision", WIRES)
def test_every_call_is_answered_as_with_a_middleware_that_looks_at_the_record(
    revision: str,
) -> None:
    looked_at: list[type] = []
    watched = workshop()

    @watched.middleware
    async def look(context: Any, params: Any, call_next: Any) -> Any:
        result = await call_next(params)
        looked_at.append(type(result))
        return result

    quick = run(answers(workshop(), revision))
    slow = run(answers(watched, revision))
    assert quick == slow
    assert CallToolResult in looked_at
    assert bytes not in looked_at


def test_an_error_of_the_function_is_no_fault_of_its_arguments() -> None:
    calls: list[int] = []

    server = Server("workshop")

    @server.tool
    async def root(value: int) -> int:
        calls.append(value)
        if value < 0:
            raise ValueError("too small")
        return value

    async def main() -> Any:
        async with joined(server, revision=WIRES[-1]) as (client, _):
            fine = await client.call_tool("root", {"value": 4})
            failed = await client.call_tool("root", {"value": -4}, raise_on_error=False)
            return fine, failed

    fine, failed = run(main())
    assert fine.structured_content == {"result": 4}
    assert failed.is_error
    assert "root failed (error id " in str(failed.content[0])
    # Once each: what the function raised is not taken for arguments to read again.
    assert calls == [4, -4]


def test_arguments_that_were_mended_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    server = Server("workshop")

    @server.tool
    async def count(items: list[int]) -> int:
        return len(items)

    async def main() -> Any:
        async with joined(server, revision=WIRES[-1]) as (client, _):
            return await client.call_tool("count", {"items": "[1, 2]"})

    assert run(main()).structured_content == {"result": 2}
    assert "items" in caplog.text
