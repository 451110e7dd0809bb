"""All of it real: the host, a server in a process, and a provider's own client over a socket."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dragoman.host import Host, Scope
from dragoman.host.chat import Ending, TextDelta, ToolFinished, ToolProgress, TurnEnded
from dragoman.host.models.anthropic_messages import AnthropicMessages
from dragoman.host.models.base import ChatModel
from dragoman.host.models.openai_chat import OpenAIChat
from dragoman.host.models.scripted import Call, ScriptedModel, Turn
from tests.host.model_servers import Reply, chunks, message, model_server, tool_delta
from tests.support import run

WEATHER = Path(__file__).parent.parent.parent / "examples" / "weather_server.py"


def host_of(folder: Path, model: ChatModel) -> Host:
    config = folder / "mcp.json"
    entry = {"command": sys.executable, "args": [str(WEATHER)]}
    config.write_text(json.dumps({"mcpServers": {"weather": entry}}))
    return Host.load(
        config,
        approver=lambda request: Scope.SESSION,
        state=folder / "state",
        models=[model],
        environ={},
    )


async def talk(folder: Path, model: ChatModel) -> str:
    try:
        async with host_of(folder, model) as host:
            heard = ""
            async for event in host.chat("How is the weather in Lisbon?"):
                if isinstance(event, TextDelta):
                    heard += event.text
                elif isinstance(event, ToolFinished):
                    assert event.result is not None, event.error
            return heard
    finally:
        await model.aclose()


def test_a_model_behind_chat_completions_calls_a_real_server(tmp_path: Path) -> None:
    pytest.importorskip("openai")

    async def converse() -> tuple[str, list[dict[str, Any]]]:
        call = chunks(
            tool_delta(0, "c1", "weather__forecast", '{"city": "Lis'),
            tool_delta(0, arguments='bon", "days": 1}'),
            finish="tool_calls",
        )
        replies = (Reply(body=call, split=5), Reply(body=chunks("Take a coat.")))
        async with model_server(*replies) as server:
            heard = await talk(tmp_path, OpenAIChat("m", base_url=server.base_url))
            return heard, server.requests

    heard, (first, second) = run(converse())
    assert heard == "Take a coat."
    assert "weather__forecast" in [tool["function"]["name"] for tool in first["tools"]]
    answer = second["messages"][-1]
    assert (answer["role"], answer["tool_call_id"]) == ("tool", "c1")
    assert json.loads(answer["content"])["city"] == "Lisbon"


def test_a_model_behind_messages_calls_a_real_server(tmp_path: Path) -> None:
    pytest.importorskip("anthropic")

    async def converse() -> tuple[str, list[dict[str, Any]]]:
        use = ("t1", "weather__forecast", ['{"city": "Lis', 'bon", "days": 1}'])
        call = Reply(body=message("Wait. ", use, stop="tool_use"), split=5)
        async with model_server(call, Reply(body=message("Take a coat."))) as server:
            model = AnthropicMessages("m", base_url=server.base_url, api_key="k")
            return await talk(tmp_path, model), server.requests

    heard, (first, second) = run(converse())
    assert heard == "Wait. Take a coat."
    assert "weather__forecast" in [tool["name"] for tool in first["tools"]]
    (answer,) = second["messages"][-1]["content"]
    assert (answer["type"], answer["tool_use_id"]) == ("tool_result", "t1")
    assert json.loads(answer["content"][0]["text"])["city"] == "Lisbon"


def test_a_turn_that_is_cancelled_while_a_real_tool_runs_can_be_gone_on_with(
    tmp_path: Path,
) -> None:
    async def cancel() -> list[Any]:
        slow = Call(tool="weather__collect_readings", arguments={"city": "Oslo", "stations": 500})
        model = ScriptedModel([Turn(calls=(slow,)), Turn(expect="and now?", text="{last}")])
        async with host_of(tmp_path, model) as host:
            conversation = host.conversation()
            first = []
            async for event in conversation.send("go"):
                first.append(event)
                if isinstance(event, ToolProgress):
                    conversation.cancel()
            second = [event async for event in conversation.send("and now?")]
            return [first[-1], second[-1]]

    assert run(cancel()) == [
        TurnEnded(reason=Ending.CANCELLED),
        TurnEnded(reason=Ending.END),
    ]
