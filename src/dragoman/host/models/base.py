"""A model as the host sees it: a request goes in, text and calls of tools come out.

The records of messages are the protocol's own (`SamplingMessage` and its blocks); each adapter
writes them in its provider's words.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from dragoman.errors import DragomanError
from dragoman.model.sampling import SamplingMessage
from dragoman.model.tools import Tool

__all__ = [
    "ANTHROPIC_RULES",
    "OPENAI_RULES",
    "PLAIN_RULES",
    "ChatModel",
    "ModelError",
    "ModelEvent",
    "ModelRequest",
    "ProviderRules",
    "Stop",
    "Stopped",
    "TextDelta",
    "ToolUse",
    "Trouble",
    "Usage",
    "estimate_tokens",
    "streamed",
]


class Trouble(StrEnum):
    """What went wrong with a model."""

    # The key is missing, wrong, or may not do this.
    AUTH = "auth"
    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    # The request does not fit into the model's context.
    TOO_LONG = "too_long"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    # The answer stopped in the middle.
    CUT = "cut"
    # The answer, an event or a call is larger than any real one.
    TOO_LARGE = "too_large"
    # What came is not what the provider's API says.
    GARBAGE = "garbage"
    # A script has no turn left, or what it expects did not come.
    SCRIPT = "script"


class ModelError(DragomanError):
    """A model could not answer.

    `.kind` says what went wrong, `.status` is the HTTP status or None, `.retry_after_s` how long
    the provider asked us to wait, `.provider` whose model it is.
    """

    def __init__(
        self,
        kind: Trouble,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.kind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        self.provider = provider
        super().__init__(f"{provider}: {message}" if provider else message)


# 64 characters: what OpenAI accepts; Anthropic takes 128 by now, but shows fewer to nobody.
MAX_NAME_CHARS = 64

_SIZES = frozenset({"minItems", "maxItems", "minLength", "maxLength"})
_BOUNDS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)  # fmt: skip
_FORMATS = frozenset({"date", "date-time", "email", "ipv4", "ipv6", "time", "uri", "uuid"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderRules:
    """What a provider accepts as the definition of a tool.

    `keywords` are the JSON Schema keywords that may limit a value, beside the ones that every
    provider knows ("type", "properties", "required", "items", "enum", "description").
    `property_pattern` is what names of members must match in full. The top of a schema is always a
    plain object without alternatives.
    """

    name_pattern: str = r"[a-zA-Z0-9_-]{1,64}"
    max_name_chars: int = MAX_NAME_CHARS
    max_description_chars: int | None = None
    property_pattern: str = r"[a-zA-Z0-9_.-]{1,64}"
    keywords: frozenset[str] = frozenset()
    formats: frozenset[str] = frozenset()
    has_alternatives: bool = True
    has_type_lists: bool = True
    # Members beyond the named ones: forbidden, or of one schema.
    has_additional: bool = True
    # Numbers, booleans and null in an enum.
    has_mixed_enums: bool = True
    # 100 values: each is paid for in every request; a longer list is no help to a model.
    max_enum: int = 100
    # 10 levels: OpenAI's documented limit for nested objects, and deeper than models follow.
    max_depth: int = 10
    max_tools: int | None = None


# Function descriptions were held to 1024 characters; what is longer goes into the schema's own
# description, which has no such limit. 128 tools in one request.
OPENAI_RULES = ProviderRules(
    max_description_chars=1024,
    keywords=_SIZES | _BOUNDS,
    formats=_FORMATS,
    max_tools=128,
)
ANTHROPIC_RULES = ProviderRules(
    keywords=_SIZES | _BOUNDS | {"pattern", "uniqueItems"},
    formats=_FORMATS,
)
# For servers that turn a schema into a grammar and know little of JSON Schema.
PLAIN_RULES = ProviderRules(
    max_description_chars=1024,
    property_pattern=r"[a-zA-Z_][a-zA-Z0-9_]{0,63}",
    has_alternatives=False,
    has_type_lists=False,
    has_additional=False,
    has_mixed_enums=False,
    max_depth=6,
    max_tools=128,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """What a model is asked.

    `tools` are already in the provider's form (`toolbox.compile_tools`). `tool_choice` is "auto",
    "required" or "none". `max_tokens` bounds the answer.
    """

    messages: Sequence[SamplingMessage]
    system: str = ""
    tools: Sequence[Tool] = ()
    max_tokens: int = 4096
    temperature: float | None = None
    stop: Sequence[str] = ()
    tool_choice: Literal["auto", "required", "none"] = "auto"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model wants a tool; `arguments` is JSON text as the model wrote it, perhaps no JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost, in tokens. `is_estimate`: the provider did not say."""

    input_tokens: int
    output_tokens: int
    is_estimate: bool = False


class Stop(StrEnum):
    """Why an answer ended."""

    END = "end"
    TOOLS = "tools"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"
    # The provider, or the model itself, would not answer.
    FILTERED = "filtered"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Stopped:
    """The end of the answer, always the last event; `detail` is the provider's own word."""

    reason: Stop
    detail: str = ""


ModelEvent: TypeAlias = TextDelta | ToolUse | Usage | Stopped


@runtime_checkable
class ChatModel(Protocol):
    """A model that can be talked to. Write your own: nothing here knows a vendor."""

    @property
    def name(self) -> str:
        """Provider and model, such as "anthropic:claude-x"."""

    @property
    def provider(self) -> str:
        """Where the words go: the name of the sink in flow rules."""

    @property
    def rules(self) -> ProviderRules:
        """What it accepts as a tool."""

    @property
    def context_tokens(self) -> int:
        """How much fits into request and answer together."""

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Answer, piece by piece; the last event is `Stopped`. Closing an iterator that has
        `aclose` ends the exchange with the provider.

        Raises:
            ModelError: there is no answer, or not all of it.
        """

    def count_tokens(self, text: str) -> int:
        """About how many tokens a text costs; rather too many than too few."""

    async def aclose(self) -> None:
        """Let go of connections."""


@asynccontextmanager
async def streamed(
    model: ChatModel, request: ModelRequest
) -> AsyncIterator[AsyncIterator[ModelEvent]]:
    """A model's answer, closed at the end of the block wherever it was left."""
    events = model.stream(request)
    try:
        yield events
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


def estimate_tokens(text: str) -> int:
    """About how many tokens a text costs, without the provider's own table.

    One for each 3.5 ASCII characters and one for each other character. English prose is nearer to
    four characters a token and JSON to three, so a mix of both comes out a little high.
    """
    if text.isascii():
        return math.ceil(len(text) / 3.5)
    plain = len(text.encode("ascii", "ignore"))
    return math.ceil(plain / 3.5 + (len(text) - plain))
