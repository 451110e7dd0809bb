"""Middleware: around every request, before its handler, with the power to refuse."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dragoman import (
    CallToolResult,
    Context,
    InvalidParams,
    Refused,
    RemoteFailure,
    RequestError,
    Server,
    TextContent,
    ToolError,
)
from dragoman.model.base import Record
from dragoman.model.completion import CompleteParams
from dragoman.model.resources import UriParams
from dragoman.model.tools import CallToolParams, ListToolsResult
from dragoman.server.app import CallNext
from tests.requirements.duties import duty
from tests.support import joined, run

RAN: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def guarded() -> Server:
    server = Server("s")

    @server.tool
    def add(a: int, b: int) -> int:
        RAN.append("add")
        return a + b

    @server.resource("note:{key}")
    def note(key: str) -> str:
        RAN.append(f"note {key}")
        return key

    @server.prompt
    def ask(word: str) -> str:
        RAN.append("ask")
        return word

    @server.completion("ask")
    def _word() -> list[str]:
        RAN.append("complete")
        return ["one"]

    return server


def test_middleware_sees_every_request_in_the_order_it_was_added() -> None:
    async def main() -> None:
        server, order = guarded(), []

        @server.middleware
        async def outer(context: Context, params: Record, call_next: CallNext) -> Record:
            order.append(f"outer {context.method}")
            result = await call_next(params)
            order.append("outer done")
            return result

        async def inner(context: Context, params: Record, call_next: CallNext) -> Record:
            order.append(f"inner {context.client_info.name}")
            return await call_next(params)

        server.add_middleware(inner)
        async with joined(server, name="c") as (client, _):
            assert (await client.call_tool("add", {"a": 1, "b": 2})).text == "3"
            assert order[:3] == ["outer tools/call", "inner c", "outer done"]
            order.clear()
            await client.list_tools()
            await client.read_resource("note:1")
            await client.get_prompt("ask", {"word": "w"})
            await client.complete("ask", "word")
            await client.set_logging_level("info")
            await client.subscribe_resource("note:1")
            assert [one for one in order if one.startswith("outer ") and "/" in one] == [
                "outer tools/list",
                "outer resources/read",
                "outer prompts/get",
                "outer completion/complete",
                "outer logging/setLevel",
                "outer resources/subscribe",
            ]

    run(main())


@duty(
    "tools.access-control",
    "resources.access-control",
    "resources.permission-first",
    "completion.access",
    "trust.access-controls",
)
def test_middleware_refuses_before_any_code_of_what_was_asked_for_runs() -> None:
    async def main() -> None:
        server = guarded()

        @server.middleware
        async def guard(context: Context, params: Record, call_next: CallNext) -> Record:
            match params:
                case CallToolParams(name="add"):
                    raise ToolError("you may not add")
                case UriParams(uri=uri) if uri.endswith("secret"):
                    raise RequestError("forbidden", code=-32003, data={"uri": uri})
                case CompleteParams():
                    raise InvalidParams("no suggestions for you")
            return await call_next(params)

        async with joined(server) as (client, _):
            refused = await client.call_tool("add", {"a": 1, "b": 2}, raise_on_error=False)
            assert (refused.is_error, refused.text) == (True, "you may not add")
            with pytest.raises(RemoteFailure) as forbidden:
                await client.read_resource("note:secret")
            assert (forbidden.value.code, forbidden.value.data) == (-32003, {"uri": "note:secret"})
            with pytest.raises(RemoteFailure):
                await client.subscribe_resource("note:secret")
            with pytest.raises(RemoteFailure, match="no suggestions"):
                await client.complete("ask", "word")
            assert RAN == []
            assert (await client.read_resource("note:open")).text == "open"
        assert RAN == ["note open"]

    run(main())


@pytest.mark.parametrize("error", [ToolError("no"), Refused("no", "x")])
def test_a_refusal_may_come_as_the_error_a_model_reads(error: Exception) -> None:
    async def main() -> None:
        server = guarded()

        @server.middleware
        async def guard(context: Context, params: Record, call_next: CallNext) -> Record:
            raise error

        async with joined(server) as (client, _):
            with pytest.raises(ToolError, match="no"):
                await client.call_tool("add", {"a": 1, "b": 2})
            with pytest.raises(RemoteFailure, match="no"):
                await client.read_resource("note:1")

    run(main())
    assert RAN == []


def test_middleware_may_change_the_request_and_the_result() -> None:
    async def main() -> None:
        server = guarded()

        @server.middleware
        async def shout(context: Context, params: Record, call_next: CallNext) -> Record:
            if isinstance(params, CallToolParams):
                changed = CallToolParams.of(params.name, {**params.arguments, "b": 40})
                result = await call_next(changed)
                assert isinstance(result, CallToolResult)
                return msgspec.structs.replace(result, meta={"took": "1ms"})
            result = await call_next(params)
            if isinstance(result, ListToolsResult):
                return msgspec.structs.replace(result, tools=[])
            return result

        async with joined(server) as (client, _):
            result = await client.call_tool("add", {"a": 2, "b": 2})
            assert (result.text, result.meta) == ("42", {"took": "1ms"})
            assert await client.list_tools() == []

    run(main())


def test_middleware_may_answer_by_itself_or_fail(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = guarded()

        @server.middleware
        async def cache(context: Context, params: Record, call_next: CallNext) -> Record:
            if context.method == "tools/call":
                return CallToolResult(content=[TextContent(text="from the cache")])
            if context.method == "prompts/get":
                raise RuntimeError("secret")
            return await call_next(params)

        async with joined(server) as (client, wire):
            assert (await client.call_tool("none")).text == "from the cache"
            with pytest.raises(RemoteFailure, match="error id") as failed:
                await client.get_prompt("ask", {"word": "w"})
        assert failed.value.code == -32603
        assert "secret" not in str(wire.frames)

    run(main())
    assert "secret" in caplog.text


def test_a_handler_under_middleware_still_asks_and_tells() -> None:
    async def main() -> None:
        server = guarded()

        @server.tool
        async def work(ctx: Context) -> Any:
            await ctx.report_progress(1, 1)
            await ctx.info("working")
            return (await ctx.sample("q")).text

        @server.middleware
        async def through(context: Context, params: Record, call_next: CallNext) -> Record:
            return await call_next(params)

        told: list[str] = []
        async with joined(
            server,
            sampling_handler=lambda params: "a",
            on_log=lambda message: told.append(message.data),
        ) as (client, _):
            result = await client.call_tool("work", on_progress=lambda p: told.append("progress"))
            assert result.text == "a"
        assert told == ["progress", "working"]

    run(main())
