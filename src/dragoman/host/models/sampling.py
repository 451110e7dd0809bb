"""A server's sampling request, answered by one of the host's models.

Nothing here asks anybody: both gates are in front of it.
Spec: client/sampling
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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

        The result's `model` is the name without its provider and address. Arguments of calls that are no JSON
        object make the answer fail: a server could do nothing with them.

        Raises:
            ModelError: the model could not answer.
            Misconfigured: there is no such model.
        """
        chosen = self._models.get(model)
        if chosen is None:
            raise Misconfigured(f"there is no model {model!r}")
        box = compile_tools([("", tool) for tool in params.tools or ()], chosen.rules)
        choice = params.tool_choice.mode if params.tool_choice is not None else None
        request = ModelRequest(
            messages=[_renamed(message, box) for message in params.messages],
            system=params.system_prompt or "",
            tools=[entry.definition for entry in box.entries],
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            stop=params.stop_sequences or (),
            tool_choice=choice or "auto",
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
