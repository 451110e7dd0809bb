"""The adapter for messages: the real client library against a server of ours."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dragoman.host.models.anthropic_messages import AnthropicMessages
from dragoman.host.models.base import (
    ModelError,
    ModelEvent,
    ModelRequest,
    Stop,
    Stopped,
    TextDelta,
    ToolUse,
    Trouble,
    Usage,
    streamed,
)
from dragoman.host.models.exchange import Patience
from dragoman.model.content import (
    ImageContent,
    SamplingBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.sampling import SamplingMessage
from dragoman.model.tools import Tool
from tests.host.model_servers import Reply, error, message, model_server, named_events
from tests.support import run

# Loaded by the first test that needs it: it takes a second or two.
pytestmark = pytest.mark.skipif(find_spec("anthropic") is None, reason="anthropic is not installed")

waits: list[float] = []


async def _no_wait(seconds: float) -> None:
    waits.append(seconds)


PATIENCE = Patience(sleep=_no_wait)


def said(text: str) -> ModelRequest:
    return ModelRequest(messages=[SamplingMessage(role="user", content=TextContent(text=text))])


async def ask(
    *replies: Reply, request: ModelRequest | None = None, patience: Patience = PATIENCE
) -> tuple[list[ModelEvent], list[dict[str, Any]]]:
    async with model_server(*replies) as server:
        model = AnthropicMessages("m", base_url=server.base_url, api_key="k", patience=patience)
        try:
            async with streamed(model, request or said("hi")) as events:
                heard = [event async for event in events]
            # Which header carries the key is the library's affair.
            sent = server.headers[0]
            assert "k" in (sent.get("x-api-key"), sent.get("authorization", "")[len("Bearer ") :])
            return heard, server.requests
        finally:
            await model.aclose()


def texts(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("split", [None, 1, 7])
def test_text_arrives_however_the_stream_is_split(split: int | None) -> None:
    events, _ = run(ask(Reply(body=message("Hello, Zoë"), split=split)))
    assert texts(events) == "Hello, Zoë"
    assert events[-2:] == [Usage(7, 5), Stopped(Stop.END, "end_turn")]


def test_calls_are_put_together_from_their_pieces() -> None:
    body = message(
        "Let me see.",
        ("a", "first", ['{"x"', ": 1}"]),
        ("b", "second", []),
        stop="tool_use",
    )
    events, _ = run(ask(Reply(body=body)))
    uses = [event for event in events if isinstance(event, ToolUse)]
    assert uses == [ToolUse("a", "first", '{"x": 1}'), ToolUse("b", "second", "")]
    assert events[-1] == Stopped(Stop.TOOLS, "tool_use")


def test_a_call_whose_arguments_come_whole_is_taken() -> None:
    block = {"type": "tool_use", "id": "a", "name": "first", "input": {"x": 1}}
    body = named_events(
        [
            {"type": "message_start", "message": {"role": "assistant", "content": []}},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ]
    )
    events, _ = run(ask(Reply(body=body)))
    assert ToolUse("a", "first", '{"x": 1}') in events
    assert events[-1] == Stopped(Stop.TOOLS, "end_turn")
    usage = next(event for event in events if isinstance(event, Usage))
    assert usage.is_estimate


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("max_tokens", Stop.LENGTH),
        ("stop_sequence", Stop.STOP_SEQUENCE),
        ("refusal", Stop.FILTERED),
        ("pause_turn", Stop.OTHER),
    ],
)
def test_why_it_stopped_is_told(stop: str, reason: Stop) -> None:
    events, _ = run(ask(Reply(body=message("x", stop=stop))))
    assert events[-1] == Stopped(reason, stop)


def failure(kind: str, text: str = "no") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text}}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(401, failure("authentication_error")), Trouble.AUTH),
        (error(404, failure("not_found_error")), Trouble.NOT_FOUND),
        (error(400, failure("invalid_request_error")), Trouble.BAD_REQUEST),
        (
            error(400, failure("invalid_request_error", "prompt is too long: 9 tokens")),
            Trouble.TOO_LONG,
        ),
        (error(413, failure("request_too_large")), Trouble.TOO_LONG),
        (Reply(body=b"event: message_start\ndata: {not json\n\n"), Trouble.GARBAGE),
        (Reply(body=b"event: message_start\ndata: [1]\n\n"), Trouble.GARBAGE),
        (Reply(body=message("half", stop=None)), Trouble.CUT),
        (Reply(body=b"hello", content_type="text/plain"), Trouble.CUT),
        (Reply(body=b""), Trouble.CUT),
    ],
    ids=lambda value: value.value if isinstance(value, Trouble) else "",
)
def test_what_is_wrong_is_told_apart_and_not_tried_again(reply: Reply, kind: Trouble) -> None:
    with pytest.raises(ModelError) as caught:
        run(ask(reply))
    assert caught.value.kind is kind
    # It is named after where the words went, which is not Anthropic.
    assert caught.value.provider.startswith("127.0.0.1:")


@pytest.mark.parametrize("status", [429, 500, 529])
def test_a_busy_provider_is_tried_again_after_the_wait_it_asks_for(status: int) -> None:
    waits.clear()
    busy = error(status, failure("overloaded_error"), ("Retry-After", "3"))
    events, requests = run(ask(busy, Reply(body=message("at last"))))
    assert texts(events) == "at last"
    assert len(requests) == 2
    assert waits == [3.0]


def test_an_overload_at_the_start_of_the_stream_is_tried_again() -> None:
    body = named_events([failure("overloaded_error")])
    events, _ = run(ask(Reply(body=body), Reply(body=message("at last"))))
    assert texts(events) == "at last"


def test_an_overload_in_the_middle_of_the_answer_ends_it() -> None:
    body = message("half", stop=None) + named_events([failure("overloaded_error")])
    with pytest.raises(ModelError) as caught:
        run(ask(Reply(body=body), Reply(body=message("again"))))
    assert caught.value.kind is Trouble.OVERLOADED


def test_a_silent_server_is_given_up() -> None:
    patience = Patience(idle_s=0.05, sleep=_no_wait)
    with pytest.raises(ModelError) as caught:
        run(ask(Reply(body=message("half", stop=None), hangs=True), patience=patience))
    assert caught.value.kind is Trouble.TIMEOUT


def test_who_leaves_closes_the_stream() -> None:
    async def leave() -> None:
        async with model_server(Reply(body=message("one", stop=None), hangs=True)) as server:
            model = AnthropicMessages("m", base_url=server.base_url, api_key="k")
            async with streamed(model, said("hi")) as events:
                async for _ in events:
                    break
            await server.left.wait()
            await model.aclose()

    run(leave())


def test_the_request_is_in_the_words_of_the_api() -> None:
    picture = ImageContent(data="AAAA", mime_type="image/png")
    drawing = ImageContent(data="AAAA", mime_type="image/svg+xml")
    answers: list[SamplingBlock] = [
        TextContent(text="and now?"),
        ToolResultContent(tool_use_id="u 1", content=[TextContent(text="42"), picture, drawing]),
        ToolResultContent(tool_use_id="u2", content=[], is_error=True),
    ]
    request = ModelRequest(
        system="be brief",
        messages=[
            SamplingMessage(role="user", content=TextContent(text="hi")),
            SamplingMessage(role="user", content=TextContent(text="there")),
            SamplingMessage(
                role="assistant",
                content=[
                    TextContent(text=" "),
                    ToolUseContent(id="u 1", name="f", input={"x": 1}),
                    ToolUseContent(id="u2", name="f", input={}),
                ],
            ),
            SamplingMessage(role="user", content=answers),
        ],
        tools=[Tool(name="f", description="d", input_schema={"type": "object"})],
        max_tokens=9,
        stop=["END", " "],
        tool_choice="required",
    )
    _, (wire,) = run(ask(Reply(body=message("ok")), request=request))
    first, second, third = wire["messages"]
    # Neighbours of one role are one message; blank text is left out.
    assert [part["text"] for part in first["content"]] == ["hi", "there"]
    assert [part["type"] for part in second["content"]] == ["tool_use", "tool_use"]
    # Answers come before anything else, with the ids of the questions.
    assert [part["type"] for part in third["content"]] == ["tool_result", "tool_result", "text"]
    ids = [part["id"] for part in second["content"]]
    assert [part["tool_use_id"] for part in third["content"][:2]] == ids
    assert " " not in ids[0]
    inside = third["content"][0]["content"]
    assert [part["type"] for part in inside] == ["text", "image", "text"]
    assert third["content"][1]["is_error"] is True
    assert (wire["system"], wire["max_tokens"]) == ("be brief", 9)
    assert wire["stop_sequences"] == ["END"]
    assert wire["tool_choice"] == {"type": "any"}
    assert wire["tools"] == [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]


def test_a_missing_key_is_an_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("API_KEY", "AUTH_TOKEN", "PROFILE", "BASE_URL"):
        monkeypatch.delenv(f"ANTHROPIC_{name}", raising=False)
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))

    async def ask_without() -> None:
        model = AnthropicMessages("m", patience=PATIENCE)
        try:
            async with streamed(model, said("hi")) as events:
                async for _ in events:
                    pass
        finally:
            await model.aclose()

    with pytest.raises(ModelError) as caught:
        run(ask_without())
    assert caught.value.kind is Trouble.AUTH
    assert caught.value.provider == "anthropic"
