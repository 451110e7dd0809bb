"""What has been said in a conversation, kept valid for every provider and within the context."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from dragoman.host.models.words import as_text, blocks_of
from dragoman.model.content import (
    ContentBlock,
    ImageContent,
    SamplingBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.sampling import SamplingMessage

__all__ = ["Transcript"]

# 1,600 tokens: what providers count for a picture of the largest size they keep.
IMAGE_TOKENS = 1_600
# 8 tokens around a message or a call: roles, ids, brackets.
FRAME_TOKENS = 8
# A result shorter than this many tokens is not worth being taken out.
WORTH_TOKENS = 64

REMOVED = "[this result was removed to make room; call the tool again if it is needed]"


class Transcript:
    """Messages in order. Every use of a tool is followed by its answer, always."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._messages: list[SamplingMessage] = []
        self._tokens: list[int] = []

    @property
    def messages(self) -> tuple[SamplingMessage, ...]:
        """All of it."""
        return tuple(self._messages)

    @property
    def tokens(self) -> int:
        """About what it costs."""
        return sum(self._tokens)

    def __len__(self) -> int:
        return len(self._messages)

    def say(self, role: str, blocks: Sequence[SamplingBlock]) -> None:
        """Add a message; none without blocks."""
        if not blocks:
            return
        message = SamplingMessage(
            role="assistant" if role == "assistant" else "user", content=list(blocks)
        )
        self._messages.append(message)
        self._tokens.append(self._cost(message))

    def clear(self) -> None:
        """Begin anew."""
        self._messages.clear()
        self._tokens.clear()

    def trim(self, budget_tokens: int) -> tuple[int, int]:
        """Make it fit, oldest first: results of tools are emptied, then whole turns go.

        What followed the person's last words is the turn under way; of that only results go, and
        not those the model has not seen. Returns how many results and how many messages went.
        """
        results = 0
        for at in range(len(self._messages) - 1):
            if self.tokens <= budget_tokens:
                break
            results += self._empty(at)
        gone = 0
        while self.tokens > budget_tokens:
            starts = [at for at in self._starts() if at > 0]
            if not starts:
                break
            del self._messages[: starts[0]], self._tokens[: starts[0]]
            gone += starts[0]
        return results, gone

    def _starts(self) -> Iterator[int]:
        """Where a turn of the person begins: their words, and no answers to calls."""
        for at, message in enumerate(self._messages):
            has_results = any(isinstance(one, ToolResultContent) for one in blocks_of(message))
            follows_user = at > 0 and self._messages[at - 1].role == "user"
            if message.role == "user" and not has_results and not follows_user:
                yield at

    def _empty(self, at: int) -> int:
        """Take the content out of the results in one message; how many there were."""
        message = self._messages[at]
        count = 0
        blocks: list[SamplingBlock] = []
        for block in blocks_of(message):
            if isinstance(block, ToolResultContent) and self._block_cost(block) > WORTH_TOKENS:
                count += 1
                emptied: list[ContentBlock] = [TextContent(text=REMOVED)]
                blocks.append(
                    ToolResultContent(
                        tool_use_id=block.tool_use_id, content=emptied, is_error=block.is_error
                    )
                )
            else:
                blocks.append(block)
        if count:
            self._messages[at] = SamplingMessage(role=message.role, content=blocks)
            self._tokens[at] = self._cost(self._messages[at])
        return count

    def _cost(self, message: SamplingMessage) -> int:
        return FRAME_TOKENS + sum(self._block_cost(block) for block in blocks_of(message))

    def _block_cost(self, block: SamplingBlock | ContentBlock) -> int:
        if isinstance(block, ImageContent):
            return IMAGE_TOKENS
        if isinstance(block, ToolUseContent):
            return FRAME_TOKENS + self._count(block.name + json.dumps(block.input))
        if isinstance(block, ToolResultContent):
            return FRAME_TOKENS + sum(self._block_cost(inner) for inner in block.content)
        return self._count(as_text(block))
