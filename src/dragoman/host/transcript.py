"""What has been said in a conversation, kept valid for every provider and within the context."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

__all__ = ["IMAGE_TOKENS", "MAX_PICTURES", "Transcript", "Trimmed"]

# 1,600 tokens: what providers count for a picture of the largest size they keep.
IMAGE_TOKENS = 1_600
# 8 tokens around a message or a call: roles, ids, brackets.
FRAME_TOKENS = 8
# A result shorter than this many tokens is not worth being taken out.
WORTH_TOKENS = 64

# 20 pictures and 20 MB of base64: with more than 20 providers take smaller ones only, and a request
# may have about 30 MB. The latest stay.
MAX_PICTURES = 20
MAX_PICTURE_CHARS = 20_000_000

REMOVED = "[this result was removed to make room; call the tool again if it is needed]"
NO_PICTURE = "[a picture was here]"


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many results, messages and pictures were taken out."""

    results: int = 0
    messages: int = 0
    pictures: int = 0


class Transcript:
    """Messages in order. Every use of a tool is followed by its answer, always."""

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._messages: list[SamplingMessage] = []
        self._costs: list[int] = []
        # Where the person's turns begin.
        self._begins: list[bool] = []
        self._tokens = 0
        self._has_pictures = False

    @property
    def messages(self) -> tuple[SamplingMessage, ...]:
        """All of it."""
        return tuple(self._messages)

    @property
    def tokens(self) -> int:
        """About what it costs."""
        return self._tokens

    @property
    def least(self) -> int:
        """What the turn under way costs at least: its words, and what the model has not seen."""
        calls = self._first_call
        last = max(calls, len(self._messages) - 2)
        return sum(self._costs[self._start : calls]) + sum(self._costs[last:])

    @property
    def has_calls(self) -> bool:
        """Whether a tool was used in it."""
        return any(map(_has_uses, self._messages))

    def __len__(self) -> int:
        return len(self._messages)

    def say(self, role: str, blocks: Sequence[SamplingBlock], *, begins: bool = False) -> None:
        """Add a message; none without blocks. `begins`: it is the first of a turn."""
        if not blocks:
            return
        message = SamplingMessage(
            role="assistant" if role == "assistant" else "user", content=list(blocks)
        )
        self._messages.append(message)
        self._costs.append(self._cost(message))
        self._begins.append(begins)
        self._tokens += self._costs[-1]
        self._has_pictures = self._has_pictures or any(map(_holds_picture, blocks))

    def clear(self) -> None:
        """Begin anew."""
        self._remove(0, len(self._messages))
        self._has_pictures = False

    def take_back(self) -> None:
        """Unsay the turn under way, if the model has not said anything in it."""
        start = self._start
        if self._messages and self._messages[-1].role == "user":
            self._remove(start, len(self._messages))

    def trim(self, budget_tokens: int) -> Trimmed:
        """Make it fit, oldest first: results are emptied, turns go, then calls of the last turn.

        Of the turn under way its words stay, and the answers the model has not seen. Where these
        alone do not fit, nothing is taken out. Pictures go beyond what a request may have, or half
        of the budget.
        """
        most = min(MAX_PICTURES, max(budget_tokens // 2 // IMAGE_TOKENS, 1))
        pictures = self._drop_pictures(most, MAX_PICTURE_CHARS)
        if self.least > budget_tokens:
            return Trimmed(pictures=pictures)
        results = 0
        for at in range(len(self._messages) - 1):
            if self._tokens <= budget_tokens:
                break
            results += self._empty(at)
        before = len(self._messages)
        self._drop_turns(budget_tokens)
        while self._tokens > budget_tokens and (at := self._first_call) + 2 < len(self._messages):
            self._remove(at, at + 2)
        return Trimmed(results, before - len(self._messages), pictures)

    def drop_pictures(self) -> int:
        """Take all pictures out; how many there were."""
        return self._drop_pictures(0, 0)

    # --- what goes --------------------------------------------------------------------------------

    @property
    def _start(self) -> int:
        """Where the last turn begins."""
        at = len(self._begins) - 1
        while at > 0 and not self._begins[at]:
            at -= 1
        return max(at, 0)

    @property
    def _first_call(self) -> int:
        """Where the first call of the last turn is, or the end."""
        at = self._start
        while at < len(self._messages) and not _has_uses(self._messages[at]):
            at += 1
        return at

    def _drop_turns(self, budget_tokens: int) -> None:
        """The oldest turns, as many as have to go; never the last."""
        cut, left = 0, self._tokens
        for at in range(1, self._start + 1):
            if left <= budget_tokens and self._begins[at - 1]:
                break
            left -= self._costs[at - 1]
            cut = at if self._begins[at] else cut
        self._remove(0, cut)

    def _remove(self, start: int, end: int) -> None:
        self._tokens -= sum(self._costs[start:end])
        del self._messages[start:end], self._costs[start:end], self._begins[start:end]

    def _put(self, at: int, blocks: list[SamplingBlock]) -> None:
        self._messages[at] = SamplingMessage(role=self._messages[at].role, content=blocks)
        self._tokens -= self._costs[at]
        self._costs[at] = self._cost(self._messages[at])
        self._tokens += self._costs[at]

    def _empty(self, at: int) -> int:
        """Take the content out of the results in one message; how many there were."""
        count = 0
        blocks: list[SamplingBlock] = []
        for block in blocks_of(self._messages[at]):
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
            self._put(at, blocks)
        return count

    def _drop_pictures(self, most: int, most_chars: int) -> int:
        """All but the latest pictures, which are not more and no larger; how many went."""
        if not self._has_pictures:
            return 0
        kept = chars = gone = 0

        def stays(block: object) -> bool:
            nonlocal kept, chars, gone
            if not isinstance(block, ImageContent):
                return True
            kept, chars = kept + 1, chars + len(block.data)
            is_kept = kept <= most and chars <= most_chars
            gone += not is_kept
            return is_kept

        told = TextContent(text=NO_PICTURE)
        for at in reversed(range(len(self._messages))):
            before = gone
            blocks: list[SamplingBlock] = []
            for block in reversed(blocks_of(self._messages[at])):
                if isinstance(block, ToolResultContent):
                    inner = [one if stays(one) else told for one in reversed(block.content)]
                    blocks.append(
                        ToolResultContent(
                            tool_use_id=block.tool_use_id,
                            content=inner[::-1],
                            is_error=block.is_error,
                        )
                    )
                else:
                    blocks.append(block if stays(block) else told)
            if gone > before:
                self._put(at, blocks[::-1])
        return gone

    # --- what it costs ----------------------------------------------------------------------------

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


def _has_uses(message: SamplingMessage) -> bool:
    return any(isinstance(block, ToolUseContent) for block in blocks_of(message))


def _holds_picture(block: SamplingBlock) -> bool:
    if isinstance(block, ToolResultContent):
        return any(isinstance(one, ImageContent) for one in block.content)
    return isinstance(block, ImageContent)
