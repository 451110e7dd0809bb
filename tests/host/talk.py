"""A host of the tests' own for conversations, and what they ask of a conversation again and again."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dragoman.client.results import ToolResult
from dragoman.errors import DragomanError, Misconfigured
from dragoman.host.chat import ChatEvent, Conversation, Origin
from dragoman.host.models.scripted import Call, ScriptedModel, Turn
from dragoman.host.models.words import blocks_of
from dragoman.model.content import (
    ContentBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.progress import ProgressParams
from dragoman.model.prompts import GetPromptResult, Prompt, PromptArgument
from dragoman.model.resources import ReadResourceResult
from dragoman.model.sampling import SamplingMessage
from dragoman.model.tools import CallToolResult, Tool
from tests.support import run

__all__ = [
    "PNG",
    "Asked",
    "Behaviour",
    "Desk",
    "Offered",
    "answers",
    "assert_valid",
    "one_turn",
    "only",
    "result",
    "told",
    "turn",
    "uses",
]

# How a picture begins; what follows is nobody's business here.
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()

Behaviour = Callable[[dict[str, Any], "Asked"], Awaitable[Any] | Any]


@dataclass(frozen=True)
class Offered:
    server: str
    tool: Tool
    is_usable: bool = True


@dataclass(frozen=True)
class Asked:
    """One call as the host was given it."""

    server: str
    name: str
    arguments: dict[str, Any]
    taint: frozenset[str]
    sink: str
    trace: str
    on_progress: Callable[[ProgressParams], Any]


@dataclass
class Desk:
    """A host of the test's own: it satisfies the protocol, and writes down what it was asked."""

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    more: list[Offered] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    own_acts: list[tuple[str, str, bool]] = field(default_factory=list)
    resources: dict[str, ReadResourceResult | DragomanError] = field(default_factory=dict)
    prompts: dict[str, GetPromptResult] = field(default_factory=dict)
    cancelled: int = 0

    async def list_tools(self) -> Sequence[Offered]:
        schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
        mine = [Offered("s", Tool(name=name, input_schema=schema)) for name in self.behaviours]
        return [*mine, *self.more]

    async def list_prompts(self) -> Sequence[tuple[str, Prompt]]:
        arguments = [PromptArgument(name="topic"), PromptArgument(name="tone")]
        return [("s", Prompt(name=name, arguments=arguments)) for name in self.prompts]

    async def call_tool(
        self,
        server: str,
        name: str,
        arguments: dict[str, Any],
        *,
        conversation: Origin | None = None,
        on_progress: Callable[[ProgressParams], Any] | None = None,
        trace: str = "",
        raise_on_error: bool = True,
    ) -> ToolResult:
        assert conversation is not None
        assert on_progress is not None
        assert not raise_on_error
        asked = Asked(
            server,
            name,
            arguments,
            frozenset(conversation.taint),
            conversation.sink,
            trace,
            on_progress,
        )
        self.asked.append(asked)
        try:
            found = self.behaviours[name](arguments, asked)
            if isinstance(found, Awaitable):
                found = await found
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(found, Exception):
            raise found
        conversation.taint.add(server)
        return found if isinstance(found, ToolResult) else result(str(found))

    async def read_resource(
        self, server: str, uri: str, *, conversation: Origin | None = None, is_own_act: bool = False
    ) -> ReadResourceResult:
        self.own_acts.append((server, uri, is_own_act))
        found = self.resources.get(uri) or Misconfigured(f"there is no server {server!r}")
        if isinstance(found, DragomanError):
            raise found
        assert conversation is not None
        conversation.taint.add(server)
        return found

    async def get_prompt(
        self,
        server: str,
        name: str,
        arguments: dict[str, str] | None = None,
        *,
        conversation: Origin | None = None,
        is_own_act: bool = False,
    ) -> GetPromptResult:
        self.own_acts.append((server, f"{name} {json.dumps(arguments)}", is_own_act))
        if name not in self.prompts:
            raise Misconfigured(f"there is no prompt {name!r}")
        assert conversation is not None
        conversation.taint.add(server)
        return self.prompts[name]


def result(*content: str | ContentBlock, is_error: bool = False, data: Any = None) -> ToolResult:
    blocks = [TextContent(text=one) if isinstance(one, str) else one for one in content]
    return ToolResult(CallToolResult(content=blocks, is_error=is_error, structured_content=data))


def uses(*names: str, **arguments: Any) -> Turn:
    return Turn(calls=tuple(Call(tool=f"s__{name}", arguments=arguments) for name in names))


async def turn(conversation: Conversation, text: str = "go", **options: Any) -> list[ChatEvent]:
    return [event async for event in conversation.send(text, **options)]


def one_turn(desk: Desk, *script: Any, **options: Any) -> tuple[list[ChatEvent], Conversation]:
    conversation = Conversation(desk, ScriptedModel(script), **options)
    return run(turn(conversation)), conversation


def only(events: Sequence[ChatEvent], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def answers(conversation: Conversation) -> list[ToolResultContent]:
    return [
        block
        for message in conversation.transcript.messages
        for block in blocks_of(message)
        if isinstance(block, ToolResultContent)
    ]


def told(answer: ToolResultContent) -> str:
    return "".join(block.text for block in answer.content if isinstance(block, TextContent))


def assert_valid(messages: Sequence[SamplingMessage]) -> None:
    """What every provider asks for: each call is answered, at once, and nothing else is."""
    for at, message in enumerate(messages):
        asked = [b.id for b in blocks_of(message) if isinstance(b, ToolUseContent)]
        if asked:
            assert message.role == "assistant"
            assert at + 1 < len(messages), "a call at the end has no answer"
            given = [
                b.tool_use_id
                for b in blocks_of(messages[at + 1])
                if isinstance(b, ToolResultContent)
            ]
            assert given == asked
        replied = [b for b in blocks_of(message) if isinstance(b, ToolResultContent)]
        if replied:
            assert message.role == "user"
            assert at > 0, "an answer without its question"
            before = [b for b in blocks_of(messages[at - 1]) if isinstance(b, ToolUseContent)]
            assert len(before) == len(replied)
    ids = [b.id for m in messages for b in blocks_of(m) if isinstance(b, ToolUseContent)]
    assert len(set(ids)) == len(ids)
