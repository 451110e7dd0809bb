"""What a model is told when a tool's question to the client fails and the tool does not care."""

from __future__ import annotations

import pytest

from dragoman import Context, CreateMessageParams, Refused, Server, ToolError
from dragoman.errors import AskRefused
from tests.support import joined, run


def server_that_asks() -> Server:
    server = Server("asks")

    @server.tool
    async def ask(ctx: Context) -> str:
        return (await ctx.sample("Tea?")).text

    @server.tool
    async def careful(ctx: Context) -> str:
        try:
            return (await ctx.sample("Tea?")).text
        except AskRefused as refusal:
            return f"refused with {refusal.code}"

    return server


def refuse(params: CreateMessageParams) -> str:
    raise Refused("not now", "sampling")


def test_a_refusal_that_the_tool_lets_through_is_told_in_the_clients_own_words() -> None:
    async def scenario() -> None:
        async with joined(server_that_asks(), sampling_handler=refuse) as (client, _):
            with pytest.raises(
                ToolError, match=r"the client refused sampling/createMessage.*not now"
            ):
                await client.call_tool("ask")
            assert (await client.call_tool("careful")).text == "refused with -1"

    run(scenario())


def test_a_feature_that_the_client_lacks_is_named() -> None:
    async def scenario() -> None:
        async with joined(server_that_asks()) as (client, _):
            with pytest.raises(ToolError, match="needs a client that offers sampling"):
                await client.call_tool("ask")

    run(scenario())
