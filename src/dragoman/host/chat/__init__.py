"""A conversation: the person's words, the model's answers, and the calls of tools in between.

The loop knows no provider and calls no server itself: a model is behind `ChatModel`, and whatever
the model wants goes to the host, which asks, refuses, records.
"""

from __future__ import annotations

from dragoman.host.chat.conversation import Conversation
from dragoman.host.chat.events import (
    ChatEvent,
    Ending,
    Notice,
    ToolFinished,
    ToolProgress,
    ToolProposed,
    ToolStarted,
    TurnEnded,
    UsageReport,
)
from dragoman.host.chat.needs import Bounds, ChatHost, OfferedTool, Origin
from dragoman.host.chat.refusals import refusal_text
from dragoman.host.models.base import TextDelta

__all__ = [
    "Bounds",
    "ChatEvent",
    "ChatHost",
    "Conversation",
    "Ending",
    "Notice",
    "OfferedTool",
    "Origin",
    "TextDelta",
    "ToolFinished",
    "ToolProgress",
    "ToolProposed",
    "ToolStarted",
    "TurnEnded",
    "UsageReport",
    "refusal_text",
]
