"""OpenAI's chat completions, and every server that speaks the same (`base_url`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from dragoman.errors import MissingExtra
from dragoman.host.models.base import (
    OPENAI_RULES,
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
    safe_id,
    texts,
)
from dragoman.model.content import (
    AudioContent,
    ImageContent,
    SamplingBlock,
    ToolResultContent,
    ToolUseContent,
)

__all__ = ["OpenAIChat"]

# 128,000: the smallest context of the models that take tools; say more with `context_tokens`.
CONTEXT_TOKENS = 128_000

_STOPS = {
    "stop": Stop.END,
    "tool_calls": Stop.TOOLS,
    "function_call": Stop.TOOLS,
    "length": Stop.LENGTH,
    "content_filter": Stop.FILTERED,
}
_SOUNDS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}

# 256 calls in one answer: more is a model that has lost its way.
MAX_CALLS = 256


class OpenAIChat:
    """A model behind OpenAI's chat completions.

    `base_url` is that of a compatible server; such a one often needs no key, and knows
    `max_tokens` where OpenAI itself wants `max_completion_tokens`. `asks_usage` may be switched
    off for a server that refuses `stream_options`.

    Raises:
        MissingExtra: openai is not installed.
    """

    provider = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        context_tokens: int = CONTEXT_TOKENS,
        rules: ProviderRules = OPENAI_RULES,
        patience: Patience | None = None,
        asks_usage: bool = True,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise MissingExtra("openai", "a model behind OpenAI's API") from None
        self._library = openai
        self.model = model
        self.name = f"openai:{model}"
        self.context_tokens = context_tokens
        self.rules = rules
        self._base_url = base_url
        self._api_key = api_key
        self._patience = patience or Patience()
        self._asks_usage = asks_usage
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
            key = self._api_key
            if key is None and self._base_url is not None:
                # The library insists on one; a server of one's own rarely does.
                import os

                key = os.environ.get("OPENAI_API_KEY") or "none"
            # No retries there: ours know what has reached the caller.
            self._client = self._library.AsyncOpenAI(
                api_key=key,
                base_url=self._base_url,
                max_retries=0,
                timeout=self._patience.idle_s,
            )
        return self._client

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """See `ChatModel.stream`."""
        wire = self._written(request)

        async def start() -> Any:
            return await self._connected().chat.completions.create(**wire)

        reading = _Reading()
        halves = Halves()
        has_begun = False
        async with aclosing(
            events_of(self._library, self.provider, start, self._patience)
        ) as chunks:
            async for chunk in chunks:
                has_begun = True
                for text in map(halves.take, reading.take(chunk)):
                    if text:
                        yield TextDelta(text)
        if rest := halves.rest():
            yield TextDelta(rest)
        if not has_begun:
            # A page, or JSON in one piece: most often the address lacks a part, such as /v1.
            raise ModelError(
                Trouble.CUT,
                "there was not a single event; is base_url right?",
                provider=self.provider,
            )
        if reading.finish is None:
            raise ModelError(
                Trouble.CUT, "the answer stopped in the middle", provider=self.provider
            )
        uses = reading.uses()
        for use in uses:
            yield use
        yield reading.usage or Usage(
            estimate_tokens(repr(wire)),
            estimate_tokens(reading.said + "".join(use.arguments for use in uses)),
            is_estimate=True,
        )
        reason = _STOPS.get(reading.finish, Stop.OTHER)
        if uses and reason is Stop.END:
            # Some servers say "stop" whatever happened.
            reason = Stop.TOOLS
        yield Stopped(reason, reading.finish)

    def _written(self, request: ModelRequest) -> dict[str, Any]:
        """The request in the provider's words."""
        messages: list[dict[str, Any]] = []
        if request.system:
            messages.append({"role": "system", "content": request.system})
        for role, blocks in merged(request.messages):
            messages.extend(_assistant(blocks) if role == "assistant" else _user(blocks))
        limit = "max_tokens" if self._base_url is not None else "max_completion_tokens"
        wire: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "stream": True,
            limit: request.max_tokens,
        }
        if self._asks_usage:
            wire["stream_options"] = {"include_usage": True}
        if request.temperature is not None:
            wire["temperature"] = request.temperature
        if request.stop:
            # The API takes four.
            wire["stop"] = list(request.stop)[:4]
        if request.tools:
            wire["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description or "",
                        "parameters": tool.input_schema,
                    },
                }
                for tool in request.tools
            ]
            wire["tool_choice"] = request.tool_choice
        return wire


def _assistant(blocks: list[SamplingBlock]) -> list[dict[str, Any]]:
    calls = [
        {
            "id": safe_id(block.id),
            "type": "function",
            "function": {"name": block.name, "arguments": arguments_text(block.input) or "{}"},
        }
        for block in blocks
        if isinstance(block, ToolUseContent)
    ]
    said = texts(block for block in blocks if not isinstance(block, ToolUseContent))
    message: dict[str, Any] = {"role": "assistant", "content": said or None}
    if calls:
        message["tool_calls"] = calls
    return [message] if calls or said else []


def _user(blocks: list[SamplingBlock]) -> list[dict[str, Any]]:
    """Answers to calls first, each a message; then the rest, pictures out of results included."""
    messages: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if not isinstance(block, ToolResultContent):
            parts.extend(_part(block))
            continue
        # A result can be text only: a picture follows in the person's name.
        seen = [inner for inner in block.content if _is_picture(inner)]
        text = texts(inner for inner in block.content if not _is_picture(inner))
        if block.is_error:
            text = f"Error: {text}"
        if seen:
            text = f"{text}\n[the images follow]".strip()
        messages.append(
            {"role": "tool", "tool_call_id": safe_id(block.tool_use_id), "content": text}
        )
        for picture in seen:
            parts.extend(_part(picture))
    if len(parts) == 1 and parts[0]["type"] == "text":
        # Plain text is what every server reads.
        messages.append({"role": "user", "content": parts[0]["text"]})
    elif parts:
        messages.append({"role": "user", "content": parts})
    return messages


def _is_picture(block: Any) -> bool:
    return isinstance(block, ImageContent) and block.mime_type in IMAGE_TYPES


def _part(block: Any) -> list[dict[str, Any]]:
    if isinstance(block, ImageContent) and block.mime_type in IMAGE_TYPES:
        url = f"data:{block.mime_type};base64,{block.data}"
        return [{"type": "image_url", "image_url": {"url": url}}]
    if isinstance(block, AudioContent) and block.mime_type in _SOUNDS:
        sound = {"data": block.data, "format": _SOUNDS[block.mime_type]}
        return [{"type": "input_audio", "input_audio": sound}]
    text = as_text(block)
    return [{"type": "text", "text": text}] if text else []


class _Reading:
    """The chunks of one answer, put together.

    Servers differ: calls without an index, arguments in one object, the same id in each piece,
    usage in the last chunk, beside the last choice or nowhere.
    """

    def __init__(self) -> None:
        self.said = ""
        self.finish: str | None = None
        self.usage: Usage | None = None
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}

    def take(self, chunk: dict[str, Any]) -> list[str]:
        """Read one chunk; the text in it."""
        if isinstance(usage := chunk.get("usage"), dict):
            self.usage = Usage(
                _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
            )
        found: list[str] = []
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index") not in (None, 0):
                continue
            delta = choice.get("delta")
            if isinstance(delta, dict):
                for member in ("content", "refusal"):
                    text = delta.get(member)
                    if isinstance(text, str) and text:
                        found.append(text)
                        self.said += text
                calls = delta.get("tool_calls")
                for call in calls if isinstance(calls, list) else ():
                    if isinstance(call, dict):
                        self._take_call(call)
            if isinstance(finish := choice.get("finish_reason"), str) and finish:
                self.finish = finish
        return found

    def _take_call(self, piece: dict[str, Any]) -> None:
        index, key = piece.get("index"), piece.get("id")
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        call = self._by_index.get(index) if isinstance(index, int) else None
        is_new = bool(key) and (call is None or (call.id and call.id != key))
        if index is None:
            # Without an index a new id is a new call, a known one goes on, and none is the last.
            call = next((one for one in self._calls if key and one.id == key), None)
            if call is None and not key and self._calls and not function.get("name"):
                call = self._calls[-1]
            is_new = call is None
        if call is None or is_new:
            if len(self._calls) >= MAX_CALLS:
                raise ModelError(
                    Trouble.GARBAGE, f"more than {MAX_CALLS} calls in one answer", provider="openai"
                )
            call = _Call()
            self._calls.append(call)
            if isinstance(index, int):
                self._by_index[index] = call
        if isinstance(key, str) and key:
            call.id = key
        name = function.get("name")
        if isinstance(name, str) and name and call.name != name:
            # Some send the whole name with each piece, some the name in pieces.
            call.name += name
        given = function.get("arguments")
        call.arguments.append(arguments_text(given))

    def uses(self) -> list[ToolUse]:
        """The calls, whole."""
        return [
            ToolUse(call.id or f"call_{number}", call.name, "".join(call.arguments))
            for number, call in enumerate(self._calls)
        ]


class _Call:
    """One call as it arrives."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
