"""Structured results, held against the output schemas of their tools."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dragoman import PeerError, Server
from tests.requirements.duties import duty
from tests.scripted import scripted_server
from tests.support import joined, run

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "label": {"type": "string"}},
    "required": ["n"],
}


def tool(name: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, "outputSchema": schema}


async def outcome_of(schema: Any, result: dict[str, Any], **options: Any) -> Any:
    """What a call comes to whose tool has this schema and gives this result."""
    async with scripted_server({"tools": {}}, **options) as (client, peer):
        listing = asyncio.ensure_future(client.list_tools())
        peer.answer(await peer.expect("tools/list"), {"tools": [tool("t", schema)]})
        await listing
        call = asyncio.ensure_future(client.call_tool("t", raise_on_error=False))
        peer.answer(await peer.expect("tools/call"), {"content": [], **result})
        return await call


@duty("tools.output.checked")
@pytest.mark.parametrize("value", [{}, {"n": "x"}, {"n": 1, "label": 2}, [], "text", 3])
def test_a_structured_result_that_misses_its_schema_is_a_typed_error(value: Any) -> None:
    async def main() -> None:
        with pytest.raises(PeerError, match="output schema"):
            await outcome_of(SCHEMA, {"structuredContent": value})
        unchecked = await outcome_of(SCHEMA, {"structuredContent": value}, check_output=False)
        assert unchecked.data == value

    run(main())


@duty("tools.output.checked")
def test_a_result_that_fits_or_says_that_the_tool_failed_passes() -> None:
    async def main() -> None:
        fits = await outcome_of(SCHEMA, {"structuredContent": {"n": 1, "more": True}})
        assert fits.data == {"n": 1, "more": True}
        failed = await outcome_of(SCHEMA, {"isError": True})
        assert failed.is_error
        with pytest.raises(PeerError, match="no such data"):
            await outcome_of(SCHEMA, {})

    run(main())


@duty("tools.output.checked")
def test_the_faults_are_named_all_at_once() -> None:
    async def main() -> None:
        with pytest.raises(PeerError) as wrong:
            await outcome_of(SCHEMA, {"structuredContent": {"n": "x", "label": 2}})
        assert "n: expected" in str(wrong.value)
        assert "label: expected" in str(wrong.value)

    run(main())


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"n": {"$ref": "https://a.example/schema.json"}}},
        {"type": "object", "properties": {"n": {"$ref": "#/nowhere"}}},
        {"type": "object", "properties": {"n": {"$dynamicRef": "#n"}}},
        {"type": "object", "properties": []},
        {"type": 3},
    ],
)
def test_a_schema_that_cannot_be_judged_is_logged_once_and_nothing_is_fetched(
    schema: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        result = await outcome_of(schema, {"structuredContent": {"n": 1}})
        assert result.data == {"n": 1}

    run(main())
    assert caplog.text.count("are not checked") == 1


def test_a_server_cannot_stall_its_client_with_a_pattern() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "string", "pattern": "^(a+)+$"}}}

    async def main() -> None:
        result = await outcome_of(schema, {"structuredContent": {"n": "a" * 60 + "!"}})
        assert result.data == {"n": "a" * 60 + "!"}

    run(main())


def test_the_tools_are_listed_once_however_many_results_wait_for_their_schemas() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        async def twice(n: int) -> int:
            return 2 * n

        async with joined(server) as (client, wire):
            results = await asyncio.gather(*(client.call_tool("twice", {"n": n}) for n in range(9)))
            assert [result.data for result in results] == [2 * n for n in range(9)]
            assert len(wire.sent("tools/list")) == 1
            await client.call_tool("twice", {"n": 1})
            assert len(wire.sent("tools/list")) == 1
            server.add_tool(lambda: {"result": 1}, name="plain")
            await client.ping()
            assert (await client.call_tool("plain")).data == {"result": 1}
            assert len(wire.sent("tools/list")) == 2

    run(main())


def test_a_tool_that_is_not_listed_is_looked_for_once() -> None:
    async def main() -> None:
        async with scripted_server({"tools": {}}) as (client, peer):
            for is_first in (True, False):
                call = asyncio.ensure_future(client.call_tool("hidden"))
                asked = await peer.expect("tools/call")
                peer.answer(asked, {"content": [], "structuredContent": {"result": 1}})
                if is_first:
                    peer.answer(await peer.expect("tools/list"), {"tools": []})
                assert (await call).data == {"result": 1}

    run(main())


def test_when_listing_fails_one_result_comes_unread_and_the_others_try_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with scripted_server({"tools": {}}) as (client, peer):
            calls = [asyncio.ensure_future(client.call_tool("t")) for _ in range(2)]
            for _ in calls:
                asked = await peer.expect("tools/call")
                peer.answer(asked, {"content": [], "structuredContent": {"result": 1}})
            peer.fail(await peer.expect("tools/list"), -32603, "not now")
            listed = {"tools": [tool("t", {"properties": {"result": {}}, "type": "object"})]}
            peer.answer(await peer.expect("tools/list"), listed)
            # The tools have done their work: no result may be lost for a list.
            results = await asyncio.gather(*calls)
            assert [result.data for result in results] == [{"result": 1}, 1]
            again = asyncio.ensure_future(client.call_tool("t"))
            asked = await peer.expect("tools/call")
            peer.answer(asked, {"content": [], "structuredContent": {"result": 2}})
            assert (await again).data == 2

    run(main())
    assert caplog.text.count("cannot be listed") == 1


def test_a_list_of_tools_that_never_ends_keeps_no_result_waiting() -> None:
    async def main() -> None:
        async with scripted_server({"tools": {}}) as (client, peer):
            call = asyncio.ensure_future(client.call_tool("t", timeout_s=0.05))
            asked = await peer.expect("tools/call")
            peer.answer(asked, {"content": [], "structuredContent": {"result": 1}})
            await peer.expect("tools/list")
            # Unlisted, the value stays as it came; the next result asks for the list again.
            assert (await call).data == {"result": 1}

    run(main())


@pytest.mark.parametrize(
    ("schema", "value", "data"),
    [
        ({"type": "object", "properties": {"result": {"type": "integer"}}}, {"result": 1}, 1),
        (
            {
                "type": "object",
                "properties": {"result": {"type": "integer"}},
                "x-fastmcp-wrap-result": True,
                "title": "Wrapped",
            },
            {"result": 1},
            1,
        ),
        (
            {"type": "object", "title": "Model", "properties": {"result": {"type": "integer"}}},
            {"result": 1},
            {"result": 1},
        ),
        (
            {"type": "object", "properties": {"result": {}, "more": {}}},
            {"result": 1},
            {"result": 1},
        ),
    ],
)
def test_a_value_that_had_to_be_wrapped_comes_out_again(schema: Any, value: Any, data: Any) -> None:
    async def main() -> None:
        assert (await outcome_of(schema, {"structuredContent": value})).data == data

    run(main())
