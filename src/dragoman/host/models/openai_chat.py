"""OpenAI's chat completions, and every server that speaks the same (`base_url`)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from dragoman.errors import MissingExtra
from dragoman.host.models.answer import Answer, Call, count_of
from dragoman.host.models.base import (
    OPENAI_RULES,
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
from dragoman.host.models.words import (
    IMAGE_TYPES,
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

# How the bound on an answer is called: by compatible servers, and by OpenAI itself.
_LIMITS = ("max_tokens", "max_completion_tokens")
# Where servers put what a model thinks, and what they sign it with beside a call.
_THOUGHTS = ("reasoning_content", "reasoning")
_EXTRA = "extra_content"
# What a server says of a parameter that it does not know.
_UNKNOWN = re.compile(
    r"max_completion_tokens' instead|max_tokens' instead|not supported|unsupported|unknown|"
    r"unrecognized|unexpected|not permitted|extra_forbidden|extra fields|not allowed",
    re.IGNORECASE,
)


class OpenAIChat(Remote):
    """A model behind OpenAI's chat completions.

    `base_url` is that of a compatible server, else OPENAI_BASE_URL. Such a one knows `max_tokens`
    where OpenAI itself wants `max_completion_tokens`; where a server refuses the one, or
    `stream_options`, it is asked once more without. `asks_usage` switches `stream_options` off from
    the start. `allow_plain_http` lets words and key travel in the clear.

    Raises:
        MissingExtra: openai is not installed.
        Misconfigured: the address or the key cannot be used.
    """

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
        allow_plain_http: bool = False,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise MissingExtra("openai", "a model behind OpenAI's API") from None
        super().__init__(
            openai,
            "openai",
            model,
            base_url=base_url,
            api_key=api_key,
            context_tokens=context_tokens,
            rules=rules,
            patience=patience,
            allow_plain_http=allow_plain_http,
        )
        self._asks_usage = asks_usage
        self._limit = _LIMITS[not self.endpoint.is_own]
        # What goes back with a call, as (members of the message, members of the call).
        self._kept = Kept()
        self._thinks_in: set[str] = set()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """See `ChatModel.stream`."""
        wire = self._written(request)

        async def start() -> Any:
            client = self.connected(self.library.AsyncOpenAI, None, self.endpoint.url)
            # Twice at most: the one parameter, and the other.
            for _ in range(2):
                try:
                    return await client.chat.completions.create(**wire)
                except self.library.APIStatusError as refused:
                    if not self._adapt(refused, wire):
                        raise
            return await client.chat.completions.create(**wire)

        answer = Answer(self.provider)
        reading = _Reading(answer, self.provider)
        async with aclosing(self.events(start, reading.ended)) as chunks:
            async for chunk in chunks:
                for text in map(answer.say, reading.take(chunk)):
                    if text:
                        yield TextDelta(text)
        if not reading.has_begun:
            # A page, or JSON in one piece: most often the address lacks a part, such as /v1.
            raise ModelError(
                Trouble.CUT,
                "there was not a single event; is base_url right?",
                provider=self.provider,
            )
        if reading.finish is None and not reading.has_done:
            raise ModelError(
                Trouble.CUT, "the answer stopped in the middle", provider=self.provider
            )
        if reading.finish == "error":
            raise ModelError(
                Trouble.CUT, "the server broke off with an error", provider=self.provider
            )
        reason = _STOPS.get(reading.finish or "stop", Stop.OTHER)
        if reading.is_refused and reason is Stop.END:
            reason = Stop.FILTERED
        last = list(answer.end(reason, reading.finish or "", reading.usage, repr(wire)))
        self._keep(answer, reading)
        for event in last:
            yield event

    def _keep(self, answer: Answer, reading: _Reading) -> None:
        """What the server wants to see again beside the calls it has just made."""
        thoughts = {member: "".join(pieces) for member, pieces in reading.thoughts.items()}
        # A server that shows thoughts may insist on them, and be it that there were none.
        self._thinks_in |= thoughts.keys()
        for key, call in answer.wanted.items():
            extra = reading.extras.get(call, {})
            if thoughts or extra:
                self._kept.keep(key, (thoughts, extra), len(repr((thoughts, extra))))

    def _adapt(self, refused: Any, wire: dict[str, Any]) -> bool:
        """Whether the request was made one that this server may take, for all that follow too."""
        if refused.status_code not in (400, 422):
            return False
        text = f"{refused.message} {refused.body}"
        if "stream_options" in text and "stream_options" in wire:
            self._asks_usage = False
            del wire["stream_options"]
            return True
        other = _LIMITS[self._limit == _LIMITS[0]]
        # "max_tokens is too large" names it as well, and is for the person to read.
        if self._limit in wire and self._limit in text and _UNKNOWN.search(text):
            wire[other] = wire.pop(self._limit)
            self._limit = other
            return True
        return False

    def _written(self, request: ModelRequest) -> dict[str, Any]:
        """The request in the provider's words."""
        messages: list[dict[str, Any]] = []
        if request.system:
            messages.append({"role": "system", "content": request.system})
        for role, blocks in merged(request.messages):
            messages.extend(self._assistant(blocks) if role == "assistant" else _user(blocks))
        wire: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "stream": True,
            self._limit: request.max_tokens,
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

    def _assistant(self, blocks: list[SamplingBlock]) -> list[dict[str, Any]]:
        uses = [block for block in blocks if isinstance(block, ToolUseContent)]
        said = texts(block for block in blocks if not isinstance(block, ToolUseContent))
        message: dict[str, Any] = {"role": "assistant", "content": said or None}
        calls = []
        for use in uses:
            thoughts, extra = self._kept.of([use.id]) or ({}, {})
            function = {"name": use.name, "arguments": arguments_text(use.input) or "{}"}
            calls.append({"id": safe_id(use.id), "type": "function", "function": function} | extra)
            message |= thoughts
        if calls:
            message |= dict.fromkeys(self._thinks_in - message.keys(), "")
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
    another id in each piece, usage in the last chunk, beside the last choice or nowhere.
    """

    def __init__(self, answer: Answer, provider: str) -> None:
        self.finish: str | None = None
        self.usage: Usage | None = None
        self.has_begun = False
        self.has_done = False
        self.is_refused = False
        # By the member they came in.
        self.thoughts: dict[str, list[str]] = {}
        # What came with a call and is not of the API.
        self.extras: dict[Call, dict[str, Any]] = {}
        self._answer = answer
        self._provider = provider
        self._by_index: dict[int, Call] = {}

    def ended(self, has_done: bool) -> None:
        """The stream is at its end, said or not."""
        self.has_done = has_done

    def take(self, chunk: dict[str, Any]) -> list[str]:
        """Read one chunk; the text in it.

        Raises:
            ModelError: it says that there is no answer.
        """
        self.has_begun = True
        if chunk.get("object") == "error":
            # How some say it in the middle of a stream.
            raise told_in_body(chunk, self._provider)
        if isinstance(usage := chunk.get("usage"), dict):
            asked, said = (count_of(usage.get(f"{way}_tokens")) for way in ("prompt", "completion"))
            if asked is not None and said is not None:
                self.usage = Usage(asked, said)
        found: list[str] = []
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index") not in (None, 0):
                continue
            delta = choice.get("delta")
            if isinstance(delta, dict):
                found += self._take_delta(delta)
            if isinstance(finish := choice.get("finish_reason"), str) and finish:
                self.finish = finish
        return found

    def _take_delta(self, delta: dict[str, Any]) -> list[str]:
        found = _texts_in(delta.get("content"))
        if isinstance(refusal := delta.get("refusal"), str) and refusal:
            found.append(refusal)
            self.is_refused = True
        for member in _THOUGHTS:
            if isinstance(thought := delta.get(member), str):
                self._answer.count_text(len(thought))
                self.thoughts.setdefault(member, []).append(thought)
        calls = delta.get("tool_calls")
        pieces = list(calls) if isinstance(calls, list) else []
        if isinstance(only := delta.get("function_call"), dict):
            # How calls were written before there could be several.
            pieces.append({"function": only})
        for piece in pieces:
            if isinstance(piece, dict):
                self._take_call(piece)
        return found

    def _take_call(self, piece: dict[str, Any]) -> None:
        index, key = piece.get("index"), piece.get("id")
        index = index if isinstance(index, int) else None
        key = str(key) if isinstance(key, str | int) else ""
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        name = function.get("name")
        name = name if isinstance(name, str) else ""
        arguments = arguments_text(function.get("arguments"))
        call = self._known(index, key, name, arguments)
        if call is None:
            call = self._answer.begin()
        if index is not None:
            self._by_index[index] = call
        self._answer.call_it(call, id=key, name=name)
        self._answer.add(call, arguments)
        if isinstance(extra := piece.get(_EXTRA), dict):
            self._answer.count_text(len(repr(extra)))
            self.extras[call] = {_EXTRA: extra}

    def _known(self, index: int | None, key: str, name: str, arguments: str) -> Call | None:
        """The call that a piece goes on with; None when it begins one."""
        if index is not None:
            call = self._by_index.get(index)
        else:
            # A known id goes on, and neither id nor name is the last one.
            calls = self._answer.calls
            call = next((one for one in reversed(calls) if key and one.id == key), None)
            if call is None and calls and not name:
                call = calls[-1]
        if call is None or not name:
            # Without a name it begins nothing, whatever its id.
            return call
        is_other = bool(key and call.id and call.id != key)
        # After a whole object nothing may follow: another call, under the same index or id.
        return None if is_other or (call.is_whole and arguments.strip()) else call


def _texts_in(content: Any) -> list[str]:
    """The text of a delta's content: it is one, or a list of parts, some of which are text."""
    if isinstance(content, str):
        return [content] if content else []
    return [
        part["text"]
        for part in (content if isinstance(content, list) else ())
        if isinstance(part, dict)
        and part.get("type", "text") == "text"
        and isinstance(part.get("text"), str)
        and part["text"]
    ]
