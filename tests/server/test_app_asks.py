"""What a model is told when a tool's question to the client fails and the tool does not care."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from dragoman import Client, Context, CreateMessageParams, Refused, Server, ToolError
from dragoman.errors import AskRefused, ClientLost
from tests.scripted import scripted_client
from tests.support import HANDSHAKE, joined, run


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


@pytest.mark.parametrize("revision", [HANDSHAKE[2], HANDSHAKE[-1]])
@pytest.mark.parametrize("as_type", [True, False])
def test_an_answer_that_misses_its_form_is_no_fault_of_the_arguments(
    revision: str, as_type: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        server = Server("asks")
        form = {"type": "object", "properties": {"pin": {"type": "integer"}}}

        @server.tool
        async def pin(ctx: Context) -> str:
            await ctx.elicit("pin?", int if as_type else form)
            return "not reached"

        async with scripted_client(server, {"elicitation": {}}, revision=revision) as peer:
            peer.request(1, "tools/call", {"name": "pin", "arguments": {}})
            content = {"pin": "my secret", "value": "my secret"}
            peer.answer(await peer.receive(), {"action": "accept", "content": content})
            answer = await peer.receive()
        assert answer["result"]["isError"] is True
        text = answer["result"]["content"][0]["text"]
        assert text.startswith("the client's answer to elicitation/create does not fit: ")
        assert "secret" not in text

    with caplog.at_level(logging.INFO, "dragoman"):
        run(scenario())
    assert "secret" not in caplog.text
    assert not [one for one in caplog.records if one.levelno > logging.INFO]


@pytest.mark.parametrize("answer", [{}, {"role": "user", "content": [1], "model": 3}])
def test_an_answer_that_is_none_is_the_clients_fault_as_well(answer: Any) -> None:
    async def scenario() -> None:
        async with scripted_client(server_that_asks(), {"sampling": {}}) as peer:
            peer.request(1, "tools/call", {"name": "ask", "arguments": {}})
            peer.answer(await peer.receive(), answer)
            told = await peer.receive()
        assert told["result"]["isError"] is True
        text = told["result"]["content"][0]["text"]
        assert text == "the client's answer to sampling/createMessage does not fit"

    run(scenario())


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
def test_a_client_that_leaves_while_it_is_asked_is_no_error_of_ours(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        server = Server("asks")
        lost: list[Exception] = []

        async def ask(ctx: Context) -> str:
            try:
                return (await ctx.sample("Tea?")).text
            except Exception as error:
                lost.append(error)
                raise

        server.tool(ask)
        server.prompt(ask)
        server.resource("note:1")(ask)
        params: dict[str, dict[str, Any]] = {
            "tools/call": {"name": "ask", "arguments": {}},
            "prompts/get": {"name": "ask"},
            "resources/read": {"uri": "note:1"},
        }
        async with scripted_client(server, {"sampling": {}}) as peer:
            peer.request(1, method, params[method])
            assert (await peer.receive())["method"] == "sampling/createMessage"
        assert [type(one) for one in lost] == [ClientLost]

    with caplog.at_level(logging.INFO, "dragoman"):
        run(scenario())
    assert not [one for one in caplog.records if one.levelno > logging.INFO]
    assert "without its client" in caplog.text


def test_a_connection_of_the_tools_own_that_fails_is_reported_in_full(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        server = Server("asks")

        @server.tool
        async def forward() -> None:
            async with Client(["/no/such/program"]):
                pass

        async with joined(server) as (client, _):
            with pytest.raises(ToolError, match="error id"):
                await client.call_tool("forward")

    run(scenario())
    assert "Traceback" in caplog.text
