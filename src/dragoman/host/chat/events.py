"""What happens in a turn, as records, and their way to who reads it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from dragoman.client.results import ToolResult
from dragoman.host.kinds import Code
from dragoman.host.models.base import TextDelta

__all__ = [
    "ChatEvent",
    "Ending",
    "News",
    "Notice",
    "ToolFinished",
    "ToolProgress",
    "ToolProposed",
    "ToolStarted",
    "TurnEnded",
    "UsageReport",
]

# 1,000 events wait for who reads them; then the model's stream waits as well.
MAX_EVENTS = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolProposed:
    """The model wants a call. Nothing has been decided yet."""

    id: str
    server: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolStarted:
    """The call was handed to the host, which may still ask the person."""

    id: str
    server: str
    tool: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolProgress:
    """How far a call is, as the server says; the latest news only."""

    id: str
    server: str
    tool: str
    progress: float
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolFinished:
    """A call is over. Either `result` is there, or `error` says why not, as the model is told.

    `is_refused` means that policy or the person said no, with `code`; nothing was sent then, unless
    `is_withheld`: it is the answer that they withheld. `rule` is the rule that decided, with its
    place, or a sentence where none did; it is for people, and no model is told.
    """

    id: str
    server: str
    tool: str
    result: ToolResult | None = None
    error: str = ""
    is_refused: bool = False
    is_withheld: bool = False
    code: Code | None = None
    rule: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """Something a person should know: a sentence of ours, which may quote a stranger's words."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageReport:
    """What the last request cost, and all requests of the conversation, in tokens."""

    input_tokens: int
    output_tokens: int
    is_estimate: bool
    total_input: int
    total_output: int


class Ending(StrEnum):
    """Why a turn is over."""

    END = "end"
    # The answer was cut at its limit of tokens.
    LENGTH = "length"
    # The provider or the model would not answer.
    FILTERED = "filtered"
    MAX_ROUNDS = "max_rounds"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnEnded:
    """The last event of a turn."""

    reason: Ending


ChatEvent: TypeAlias = (
    TextDelta
    | ToolProposed
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | Notice
    | UsageReport
    | TurnEnded
)


class News:
    """Events on their way to who reads the turn. Progress waits as its latest news only."""

    def __init__(self) -> None:
        self._waiting: deque[ChatEvent | str] = deque()
        self._latest: dict[str, ToolProgress] = {}
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_closed = False

    def add(self, event: ChatEvent) -> None:
        """Put an event behind the others."""
        self._waiting.append(event)
        self._changed.set()

    def progress(self, event: ToolProgress) -> None:
        """Put news of a call in the place of older news that nobody has read."""
        if event.id not in self._latest:
            self._waiting.append(event.id)
        self._latest[event.id] = event
        self._changed.set()

    async def room(self) -> None:
        """Wait while too much is unread."""
        while len(self._waiting) >= MAX_EVENTS:
            self._taken.clear()
            await self._taken.wait()

    def close(self) -> None:
        """Nothing more will come."""
        self._is_closed = True
        self._changed.set()

    async def next(self) -> ChatEvent | None:
        """The next event; None when there will be no more."""
        while not self._waiting:
            if self._is_closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        event = self._waiting.popleft()
        self._taken.set()
        return self._latest.pop(event) if isinstance(event, str) else event
