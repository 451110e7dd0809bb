"""Anthropic's messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from dragoman.errors import MissingExtra
from dragoman.host.models.base import (
    ANTHROPIC_RULES,
    ModelError,
    ModelEvent,
    ModelRequest,
    ProviderRules,
    Stop,
    Stopped,
    TextDelta,
    ToolUse,
    Trouble,
    Usage,
    estimate_tokens,
)
from dragoman.host.models.exchange import Patience, events_of
from dragoman.host.models.words import (
    IMAGE_TYPES,
    Halves,
    arguments_text,
    as_text,
    merged,
    read_arguments,
    safe_id,
)
from dragoman.model.content import (
    ImageContent,
    SamplingBlock,
    ToolResultContent,
    ToolUseContent,
)

__all__ = ["AnthropicMessages"]

# 200,000: what every current model has; say more with `context_tokens`.
CONTEXT_TOKENS = 200_000

_STOPS = {
    "end_turn": Stop.END,
    "tool_use": Stop.TOOLS,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.LENGTH,
    "stop_sequence": Stop.STOP_SEQUENCE,
    "refusal": Stop.FILTERED,
}


class AnthropicMessages:
    """A model behind Anthropic's messages API, or a server that speaks the same (`base_url`).

    Raises:
        MissingExtra: anthropic is not installed.
    """

    provider = "anthropic"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        context_tokens: int = CONTEXT_TOKENS,
        rules: ProviderRules = ANTHROPIC_RULES,
        patience: Patience | None = None,
    ) -> None:
        try:
            import anthropic
        except ImportError:
            raise MissingExtra("anthropic", "a model behind Anthropic's API") from None
        self._library = anthropic
        self.model = model
        self.name = f"anthropic:{model}"
        self.context_tokens = context_tokens
        self.rules = rules
        self._base_url = base_url
        self._api_key = api_key
        self._patience = patience or Patience()
        self._client: Any = None

    def count_tokens(self, text: str) -> int:
        """See `estimate_tokens`."""
        return estimate_tokens(text)

    async def aclose(self) -> None:
        """Close the connections to the provider."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _connected(self) -> Any:
        if self._client is None:
            # No retries there: ours know what has reached the caller.
            self._client = self._library.AsyncAnthropic(
                api_key=self._api_key,
                base_url=self._base_url,
                max_retries=0,
                timeout=self._patience.idle_s,
            )
        return self._client

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """See `ChatModel.stream`."""
        wire = self._written(request)

        async def start() -> Any:
            try:
                return await self._connected().messages.create(**wire)
            except TypeError as error:
                # How the library says that it found no key.
                if "authentication" not in str(error):
                    raise
                raise ModelError(Trouble.AUTH, str(error)[:300], provider="anthropic") from None

        reading = _Reading()
        halves = Halves()
        async with aclosing(
            events_of(self._library, self.provider, start, self._patience)
        ) as events:
            async for event in events:
                text = halves.take(reading.take(event))
                if text:
                    yield TextDelta(text)
        if rest := halves.rest():
            yield TextDelta(rest)
        if not reading.is_whole:
            raise ModelError(
                Trouble.CUT, "the answer stopped in the middle", provider=self.provider
            )
        uses = reading.uses()
        for use in uses:
            yield use
        yield reading.usage() or Usage(
            estimate_tokens(repr(wire)),
            estimate_tokens(reading.said + "".join(use.arguments for use in uses)),
            is_estimate=True,
        )
        reason = _STOPS.get(reading.stop, Stop.OTHER)
        yield Stopped(Stop.TOOLS if uses and reason is Stop.END else reason, reading.stop)

    def _written(self, request: ModelRequest) -> dict[str, Any]:
        """The request in the provider's words."""
        messages = []
        for role, blocks in merged(request.messages):
            parts = _parts(blocks)
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
    """The events of one answer, put together."""

    def __init__(self) -> None:
        self.said = ""
        self.stop = ""
        self.is_whole = False
        self._uses: dict[int, tuple[str, str, list[str]]] = {}
        self._input: int | None = None
        self._output: int | None = None

    def take(self, event: dict[str, Any]) -> str:
        """Read one event; the text in it."""
        match event.get("type"):
            case "message_start":
                self._take_usage(_inside(event, "message").get("usage"))
            case "content_block_start":
                block = _inside(event, "content_block")
                if block.get("type") == "tool_use":
                    # Empty here, and sent in pieces; a compatible server may send it whole.
                    given = block.get("input")
                    self._uses[int(event.get("index") or 0)] = (
                        str(block.get("id") or f"toolu_{len(self._uses)}"),
                        str(block.get("name") or ""),
                        [arguments_text(given)] if given else [],
                    )
                elif isinstance(text := block.get("text"), str):
                    self.said += text
                    return text
            case "content_block_delta":
                delta = _inside(event, "delta")
                if delta.get("type") == "text_delta" and isinstance(delta.get("text"), str):
                    self.said += delta["text"]
                    return str(delta["text"])
                use = self._uses.get(int(event.get("index") or 0))
                if delta.get("type") == "input_json_delta" and use is not None:
                    use[2].append(arguments_text(delta.get("partial_json")))
            case "message_delta":
                stop = _inside(event, "delta").get("stop_reason")
                self.stop = stop if isinstance(stop, str) else self.stop
                self._take_usage(event.get("usage"))
            case "message_stop":
                self.is_whole = True
            case _:
                # Pings, ends of blocks, and what is still to be invented.
                pass
        return ""

    def _take_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        counts = [usage[part] for part in parts if isinstance(usage.get(part), int)]
        if counts:
            self._input = max(sum(counts), self._input or 0)
        if isinstance(usage.get("output_tokens"), int):
            self._output = usage["output_tokens"]

    def usage(self) -> Usage | None:
        """What the provider said it cost."""
        if self._input is None or self._output is None:
            return None
        return Usage(self._input, self._output)

    def uses(self) -> list[ToolUse]:
        """The calls, whole, in the order of their blocks."""
        return [
            ToolUse(key, name, _arguments(pieces))
            for _, (key, name, pieces) in sorted(self._uses.items())
        ]


def _arguments(pieces: list[str]) -> str:
    whole = "".join(pieces)
    # A server that sent them whole and then in pieces as well: the pieces count.
    if len(pieces) > 1 and read_arguments(whole) is None:
        later = "".join(pieces[1:])
        return later if read_arguments(later) is not None else whole
    return whole


def _inside(event: dict[str, Any], member: str) -> dict[str, Any]:
    inner = event.get(member)
    return inner if isinstance(inner, dict) else {}
