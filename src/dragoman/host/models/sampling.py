"""A server's sampling request, answered by one of the host's models.

Nothing here asks anybody: both gates are in front of it.
Spec: client/sampling
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from dragoman.errors import Misconfigured
from dragoman.host.models.base import (
    ChatModel,
    ModelError,
    ModelRequest,
    Stop,
    Stopped,
    TextDelta,
    ToolUse,
    Trouble,
    streamed,
)
from dragoman.host.models.words import blocks_of, read_arguments
from dragoman.host.toolbox import Toolbox, compile_tools
from dragoman.model.content import SamplingBlock, TextContent, ToolUseContent
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult, SamplingMessage
from dragoman.model.tools import Tool

__all__ = ["SamplingModels"]

_REASONS = {
    Stop.END: "endTurn",
    Stop.STOP_SEQUENCE: "stopSequence",
    Stop.LENGTH: "maxTokens",
    Stop.TOOLS: "toolUse",
}


class SamplingModels:
    """The models that may answer sampling requests, best first."""

    def __init__(self, models: Iterable[ChatModel]) -> None:
        self._models = {model.name: model for model in models}

    def names(self) -> Sequence[str]:
        """The names to choose from, best first."""
        return list(self._models)

    async def answer(self, model: str, params: CreateMessageParams) -> CreateMessageResult:
        """What the model says. `max_tokens` is kept to; `include_context` was settled before.

        The result's `model` is the name without its provider and address. Arguments of calls that
        are no JSON object make the answer fail, a server could do nothing with them; so does a call
        where none was to be made. Each call has an id of its own.

        Raises:
            ModelError: the model could not answer, or did what it must not.
            Misconfigured: there is no such model.
        """
        chosen = self._models.get(model)
        if chosen is None:
            raise Misconfigured(f"there is no model {model!r}")
        tools = list(params.tools or ())
        choice = params.tool_choice.mode if params.tool_choice is not None else None
        may_call = bool(tools) and choice != "none"
        if not tools and (used := _used_in(params.messages)):
            # Providers refuse messages with calls of tools that are not defined.
            tools = [Tool(name=name, input_schema={"type": "object"}) for name in used]
        box = compile_tools([("", tool) for tool in tools], chosen.rules)
        request = ModelRequest(
            messages=[_renamed(message, box) for message in params.messages],
            system=params.system_prompt or "",
            tools=[entry.definition for entry in box.entries],
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            stop=params.stop_sequences or (),
            tool_choice=(choice or "auto") if may_call else "none",
        )
        said: list[str] = []
        uses: list[ToolUseContent] = []
        reason: str | None = None
        async with streamed(chosen, request) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    said.append(event.text)
                elif isinstance(event, ToolUse):
                    uses.append(_use(event, box, chosen.provider))
                elif isinstance(event, Stopped):
                    reason = _REASONS.get(event.reason, event.detail or event.reason.value)
        if uses and not may_call:
            raise ModelError(
                Trouble.GARBAGE, "it calls a tool where it must not", provider=chosen.provider
            )
        uses = _apart(uses, params.messages)
        text = "".join(said)
        blocks: list[SamplingBlock] = [TextContent(text=text)] if text or not uses else []
        blocks += uses
        return CreateMessageResult(
            role="assistant",
            content=blocks[0] if len(blocks) == 1 else blocks,
            model=getattr(chosen, "model", "") or chosen.name.partition(":")[2],
            stop_reason=reason,
        )


def _use(use: ToolUse, box: Toolbox, provider: str) -> ToolUseContent:
    entry = box.get(use.name)
    arguments = read_arguments(use.arguments)
    if arguments is None:
        raise ModelError(
            Trouble.GARBAGE, "the arguments of a call are no JSON object", provider=provider
        )
    # A tool nobody offered: the server sees the name and judges it.
    return ToolUseContent(
        id=use.id, name=entry.tool.name if entry is not None else use.name, input=arguments
    )


def _used_in(messages: Iterable[SamplingMessage]) -> list[str]:
    """The names of the tools that were called in a conversation, each once."""
    blocks = (block for message in messages for block in blocks_of(message))
    return list(dict.fromkeys(one.name for one in blocks if isinstance(one, ToolUseContent)))


def _apart(
    uses: Sequence[ToolUseContent], messages: Iterable[SamplingMessage]
) -> list[ToolUseContent]:
    """The same calls, no two of one id: a server could not say which of them its result is for."""
    blocks = (block for message in messages for block in blocks_of(message))
    taken = {one.id for one in blocks if isinstance(one, ToolUseContent)}
    found = []
    for use in uses:
        key, number = use.id or "call", 1
        while key in taken:
            number += 1
            key = f"{use.id or 'call'}_{number}"
        taken.add(key)
        found.append(msgspec.structs.replace(use, id=key))
    return found


def _renamed(message: SamplingMessage, box: Toolbox) -> SamplingMessage:
    """The message with its uses of tools under the names that the model knows."""
    blocks = blocks_of(message)
    if not any(isinstance(block, ToolUseContent) for block in blocks):
        return message
    renamed: list[SamplingBlock] = [
        ToolUseContent(id=block.id, name=box.name_of("", block.name), input=block.input)
        if isinstance(block, ToolUseContent)
        else block
        for block in blocks
    ]
    return SamplingMessage(role=message.role, content=renamed)
