"""Anthropic's messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from dragoman.errors import MissingExtra
from dragoman.host.models.answer import Answer, Call, count_of
from dragoman.host.models.base import (
    ANTHROPIC_RULES,
    ModelError,
    ModelEvent,
    ModelRequest,
    ProviderRules,
    Stop,
    TextDelta,
    Trouble,
    Usage,
)
from dragoman.host.models.exchange import Patience, told_in_body
from dragoman.host.models.kept import Kept
from dragoman.host.models.remote import Remote
from dragoman.host.models.words import IMAGE_TYPES, arguments_text, as_text, merged, safe_id
from dragoman.model.content import (
    ImageContent,
    SamplingBlock,
    ToolResultContent,
    ToolUseContent,
)

__all__ = ["AnthropicMessages"]

# 200,000: what every current model has; say more with `context_tokens`.
CONTEXT_TOKENS = 200_000

# 400 characters: what a block costs when it is empty, so that 10,000 of them are too much text.
BLOCK_CHARS = 400

_STOPS = {
    "end_turn": Stop.END,
    "tool_use": Stop.TOOLS,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.LENGTH,
    "stop_sequence": Stop.STOP_SEQUENCE,
    "refusal": Stop.FILTERED,
}

# Blocks that a provider wants back unchanged with the calls that follow them.
_THOUGHTS = ("thinking", "redacted_thinking")


class AnthropicMessages(Remote):
    """A model behind Anthropic's messages API.

    `base_url` is that of a server that speaks the same, else ANTHROPIC_BASE_URL; a "/v1" at its end
    may be there or not. `allow_plain_http` lets words and key travel in the clear.

    Raises:
        MissingExtra: anthropic is not installed.
        Misconfigured: the address or the key cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        context_tokens: int = CONTEXT_TOKENS,
        rules: ProviderRules = ANTHROPIC_RULES,
        patience: Patience | None = None,
        allow_plain_http: bool = False,
    ) -> None:
        try:
            import anthropic
        except ImportError:
            raise MissingExtra("anthropic", "a model behind Anthropic's API") from None
        super().__init__(
            anthropic,
            "anthropic",
            model,
            base_url=base_url,
            api_key=api_key,
            context_tokens=context_tokens,
            rules=rules,
            patience=patience,
            allow_plain_http=allow_plain_http,
        )
        # Thoughts before a call, which go back with it as they came.
        self._thoughts = Kept()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """See `ChatModel.stream`."""
        wire = self._written(request)
        # The library adds it.
        base_url = self.endpoint.url.removesuffix("/v1")

        async def start() -> Any:
            try:
                client = self.connected(self.library.AsyncAnthropic, "x-api-key", base_url)
                return await client.messages.create(**wire)
            except TypeError as error:
                # How the library says that it found no key.
                if "authentication" not in str(error):
                    raise
                raise ModelError(Trouble.AUTH, str(error)[:300], provider=self.provider) from None

        answer = Answer(self.provider)
        reading = _Reading(answer, self.provider)
        async with aclosing(self.events(start)) as events:
            async for event in events:
                if text := answer.say(reading.take(event)):
                    yield TextDelta(text)
        if not reading.is_whole:
            raise ModelError(
                Trouble.CUT, "the answer stopped in the middle", provider=self.provider
            )
        reason = _STOPS.get(reading.stop or "end_turn", Stop.OTHER)
        last = list(answer.end(reason, reading.stop, reading.usage(), repr(wire)))
        if reading.thoughts:
            for key in answer.wanted:
                self._thoughts.keep(key, reading.thoughts, reading.thought_chars)
        for closing in last:
            yield closing

    def _written(self, request: ModelRequest) -> dict[str, Any]:
        """The request in the provider's words."""
        messages = []
        for role, blocks in merged(request.messages):
            parts = _parts(blocks)
            if role == "assistant":
                ids = [block.id for block in blocks if isinstance(block, ToolUseContent)]
                parts = [*(self._thoughts.of(ids) or ()), *parts]
            if parts:
                messages.append({"role": role, "content": parts})
        wire: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": request.max_tokens,
            "stream": True,
        }
        if request.system:
            wire["system"] = request.system
        if request.temperature is not None:
            wire["temperature"] = request.temperature
        if stop := [one for one in request.stop if one.strip()]:
            # Blank ones are refused.
            wire["stop_sequences"] = stop
        if request.tools:
            wire["tools"] = [
                {
                    "name": tool.name,
                    "description": tool.description or "",
                    "input_schema": tool.input_schema,
                }
                for tool in request.tools
            ]
            kinds = {"auto": "auto", "required": "any", "none": "none"}
            wire["tool_choice"] = {"type": kinds[request.tool_choice]}
        return wire


def _parts(blocks: list[SamplingBlock]) -> list[dict[str, Any]]:
    """The blocks of a message; answers to calls come first, or they are refused."""
    answers: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, ToolResultContent):
            inside = [part for inner in block.content for part in _part(inner)]
            answers.append(
                {
                    "type": "tool_result",
                    "tool_use_id": safe_id(block.tool_use_id),
                    "content": inside,
                    "is_error": block.is_error,
                }
            )
        elif isinstance(block, ToolUseContent):
            rest.append(
                {
                    "type": "tool_use",
                    "id": safe_id(block.id),
                    "name": block.name,
                    "input": block.input,
                }
            )
        else:
            rest.extend(_part(block))
    return answers + rest


def _part(block: Any) -> list[dict[str, Any]]:
    if isinstance(block, ImageContent) and block.mime_type in IMAGE_TYPES:
        source = {"type": "base64", "media_type": block.mime_type, "data": block.data}
        return [{"type": "image", "source": source}]
    text = as_text(block)
    # Blank text is refused.
    return [{"type": "text", "text": text}] if text.strip() else []


class _Reading:
    """The events of one answer, put together. Blocks are told apart by their index, and one that
    begins ends what had its index before."""

    def __init__(self, answer: Answer, provider: str) -> None:
        self.stop = ""
        self._answer = answer
        self._provider = provider
        self._has_ended = False
        # By index; None is a block that is no call of ours.
        self._blocks: dict[int, Call | None] = {}
        self._last = 0
        # Blocks of thoughts, as they go back.
        self.thoughts: list[dict[str, Any]] = []
        self.thought_chars = 0
        self._thinking: dict[int, dict[str, Any]] = {}
        self._input: int | None = None
        self._output: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its end came: the event, or at least the reason."""
        return self._has_ended or bool(self.stop)

    def take(self, event: dict[str, Any]) -> str:
        """Read one event; the text in it.

        Raises:
            ModelError: it says that there is no answer, or goes on with a call that never began.
        """
        match event.get("type"):
            case "message_start":
                self._take_usage(_inside(event, "message").get("usage"))
            case "content_block_start":
                return self._begin(event)
            case "content_block_delta":
                return self._go_on(event)
            case "message_delta":
                stop = _inside(event, "delta").get("stop_reason")
                self.stop = stop if isinstance(stop, str) else self.stop
                self._take_usage(event.get("usage"))
            case "message_stop":
                self._has_ended = True
            case "error":
                # Under another name of an event, where the library does not look.
                raise told_in_body(event.get("error"), self._provider)
            case _:
                # Pings, ends of blocks, and what is still to be invented.
                pass
        return ""

    def _begin(self, event: dict[str, Any]) -> str:
        block = _inside(event, "content_block")
        # An empty block costs something as well.
        self._answer.count_text(BLOCK_CHARS)
        index = event.get("index")
        self._last = index if isinstance(index, int) else self._last + 1
        self._blocks[self._last] = None
        self._thinking.pop(self._last, None)
        if block.get("type") in _THOUGHTS:
            kept = {"type": block["type"]}
            self.thoughts.append(kept)
            self._thinking[self._last] = kept
            self._think(block, kept)
            return ""
        if block.get("type") != "tool_use":
            text = block.get("text")
            return text if isinstance(text, str) else ""
        call = self._answer.begin()
        self._answer.call_it(call, id=block.get("id"), name=block.get("name"))
        if given := block.get("input"):
            # Empty here, and sent in pieces; a compatible server may send it whole.
            self._answer.give(call, arguments_text(given))
        self._blocks[self._last] = call
        return ""

    def _go_on(self, event: dict[str, Any]) -> str:
        delta = _inside(event, "delta")
        if delta.get("type") == "text_delta":
            text = delta.get("text")
            return text if isinstance(text, str) else ""
        index = event.get("index")
        index = index if isinstance(index, int) else self._last
        if (kept := self._thinking.get(index)) is not None:
            self._think(delta, kept)
        elif delta.get("type") == "input_json_delta":
            if index not in self._blocks:
                raise self._answer.garbage("arguments came for a call that had not begun")
            if (call := self._blocks[index]) is not None:
                self._answer.add(call, arguments_text(delta.get("partial_json")))
        return ""

    def _think(self, piece: dict[str, Any], kept: dict[str, Any]) -> None:
        """Add to a block of thoughts what is in its beginning or in a delta."""
        for member in ("thinking", "signature", "data"):
            if isinstance(text := piece.get(member), str):
                self._answer.count_text(len(text))
                self.thought_chars += len(text)
                kept[member] = kept.get(member, "") + text

    def _take_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        counts = [count for part in parts if (count := count_of(usage.get(part))) is not None]
        if counts:
            self._input = max(sum(counts), self._input or 0)
        if (output := count_of(usage.get("output_tokens"))) is not None:
            self._output = output

    def usage(self) -> Usage | None:
        """What the provider said it cost."""
        if self._input is None or self._output is None:
            return None
        return Usage(self._input, self._output)


def _inside(event: dict[str, Any], member: str) -> dict[str, Any]:
    inner = event.get(member)
    return inner if isinstance(inner, dict) else {}
