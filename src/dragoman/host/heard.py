"""What servers have said in one conversation: what `includeContext` can stand for, if it is granted.

Only what was released to the conversation, never what the person or the model said in it.

Spec: client/sampling
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dragoman.host.models.words import as_text
from dragoman.model.base import Record
from dragoman.model.prompts import GetPromptResult
from dragoman.model.resources import ReadResourceResult
from dragoman.model.tools import CallToolResult
from dragoman.model.unseen import without_unseen

__all__ = ["MAX_WORDS", "Heard", "OnBehalf"]

# 16,000 characters of one server are some 4,000 tokens: what a chat gives of one result at most.
MAX_WORDS = 16_000

# 64 servers: more than anybody runs, and 2 MB of words.
MAX_SERVERS = 64


class Heard:
    """The last words of each server in one conversation, without what nobody sees."""

    def __init__(self) -> None:
        self._words: dict[str, deque[str]] = {}

    def add(self, server: str, answer: Record) -> None:
        """Keep what was released of a server's answer; its oldest words go when there are many."""
        said = without_unseen(_text_of(answer)[-MAX_WORDS:]).strip()
        if not said:
            return
        mine = self._words.pop(server, deque())
        mine.append(said)
        # The server that was heard of last is the last one.
        self._words[server] = mine
        while sum(map(len, mine)) > MAX_WORDS:
            mine.popleft()
        if len(self._words) > MAX_SERVERS:
            del self._words[next(iter(self._words))]

    def words(self) -> dict[str, str]:
        """What each has said, oldest first."""
        return {server: "\n\n".join(said) for server, said in self._words.items()}

    def clear(self) -> None:
        """Forget all of it."""
        self._words.clear()


class OnBehalf:
    """On whose behalf requests are under way, by the server that they are made to."""

    def __init__(self) -> None:
        self._under_way: dict[str, list[Heard | None]] = {}

    def begin(self, server: str, heard: Heard | None) -> None:
        """A request to that server begins; None when it is not a conversation's."""
        self._under_way.setdefault(server, []).append(heard)

    def end(self, server: str, heard: Heard | None) -> None:
        """It has ended."""
        under_way = self._under_way[server]
        if len(under_way) == 1:
            del self._under_way[server]
            return
        # The same, not an equal one.
        del under_way[next(at for at, one in enumerate(under_way) if one is heard)]

    def words(self, server: str) -> Mapping[str, str]:
        """The words of the conversation that what this server asks now belongs to.

        None where that cannot be known: no request of a conversation is under way at it, or those
        of several, or one that is nobody's.
        """
        under_way = self._under_way.get(server, [])
        first = under_way[0] if under_way else None
        if first is None or any(one is not first for one in under_way):
            return {}
        return first.words()


def _text_of(answer: Record) -> str:
    """The words of an answer; what is no text is named."""
    blocks: Sequence[Any]
    if isinstance(answer, CallToolResult):
        blocks = answer.content
        if not blocks and answer.structured_content is not None:
            return msgspec.json.encode(answer.structured_content).decode()
    elif isinstance(answer, GetPromptResult):
        blocks = [message.content for message in answer.messages]
    elif isinstance(answer, ReadResourceResult):
        return "\n".join(part.text for part in answer.contents if part.text is not None)
    else:
        return ""
    return "\n".join(as_text(block) for block in blocks)
