"""The adapter for messages: the real client library against a server of ours."""

from __future__ import annotations

import json
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
from dragoman.host.models.kept import MAX_KEPT, MAX_KEPT_CHARS, Kept
from dragoman.host.models.words import read_arguments
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


# --- awkward servers ---------------------------------------------------------------------------


def begins(index: Any, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def goes_on(index: Any, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def answer(*events: dict[str, Any], stop: str | None = "tool_use", usage: Any = (7, 5)) -> bytes:
    """An answer with these events for its blocks."""
    whole = message(stop=stop, usage=usage)
    end = whole.find(b"event: message_delta")
    end = len(whole) if end < 0 else end
    return whole[:end] + named_events(events) + whole[end:]


def uses(events: list[ModelEvent]) -> list[ToolUse]:
    return [event for event in events if isinstance(event, ToolUse)]


def test_an_empty_answer_is_one() -> None:
    events, _ = run(ask(Reply(body=message())))
    assert events == [Usage(7, 5), Stopped(Stop.END, "end_turn")]


def test_events_and_deltas_that_nobody_knows_are_passed_over() -> None:
    body = answer(
        {"type": "ping"},
        {"type": "weather", "index": 0},
        begins(0, type="hologram", data={"a": 1}),
        goes_on(0, type="hologram_delta", data="x"),
        begins(1, type="text", text="hel"),
        goes_on(1, type="citations_delta", citation={"cited_text": "x"}),
        {"type": "ping"},
        goes_on(1, type="text_delta", text="lo"),
        goes_on(1, type="text_delta", text=None),
        goes_on(1, type="text_delta"),
        {"type": "content_block_delta", "index": 1, "delta": None},
        {"type": "content_block_start", "index": 2, "content_block": None},
        {"type": "content_block_stop"},
        begins(3, type="server_tool_use", id="s", name="web_search", input={}),
        goes_on(3, type="input_json_delta", partial_json='{"query": "x"}'),
        stop="end_turn",
    )
    events, _ = run(ask(Reply(body=body)))
    assert (texts(events), uses(events)) == ("hello", [])
    assert events[-1] == Stopped(Stop.END, "end_turn")


def test_blocks_with_one_index_are_all_kept() -> None:
    body = answer(
        begins(0, type="tool_use", id="a", name="f", input={}),
        goes_on(0, type="input_json_delta", partial_json='{"x": 1}'),
        begins(0, type="tool_use", id="b", name="g", input={}),
        goes_on(0, type="input_json_delta", partial_json='{"y": 2}'),
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "f", '{"x": 1}'), ToolUse("b", "g", '{"y": 2}')]


def test_calls_with_one_id_or_none_are_told_apart() -> None:
    body = answer(
        begins(0, type="tool_use", id="a", name="f", input={"x": 1}),
        begins(1, type="tool_use", id="a", name="f", input={}),
        begins(2, type="tool_use", id=None, name="f", input={}),
        begins(3, type="tool_use", name="f", input={}),
    )
    events, _ = run(ask(Reply(body=body)))
    assert [use.id for use in uses(events)] == ["a", "a_2", "call_2", "call_3"]


@pytest.mark.parametrize("index", [None, "0", 1.5, [], {}])
def test_a_block_whose_index_is_none_is_the_last_one(index: Any) -> None:
    body = answer(
        begins(index, type="tool_use", id="a", name="f", input={}),
        goes_on(index, type="input_json_delta", partial_json='{"x": 1}'),
        begins(index, type="tool_use", id="b", name="g", input={}),
        goes_on(index, type="input_json_delta", partial_json='{"y": 2}'),
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "f", '{"x": 1}'), ToolUse("b", "g", '{"y": 2}')]


def test_arguments_for_a_call_that_never_began_are_not_dropped_in_silence() -> None:
    body = answer(goes_on(4, type="input_json_delta", partial_json='{"x": 1}'))
    with pytest.raises(ModelError, match="had not begun") as caught:
        run(ask(Reply(body=body)))
    assert caught.value.kind is Trouble.GARBAGE


@pytest.mark.parametrize("given", [{}, "", None, []])
def test_a_call_without_arguments_has_none(given: Any) -> None:
    body = answer(
        begins(0, type="tool_use", id="a", name="f", input=given),
        goes_on(0, type="input_json_delta", partial_json=""),
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "f", "")]
    assert read_arguments("") == {}


def test_arguments_that_came_whole_and_in_pieces_are_not_doubled() -> None:
    body = answer(
        begins(0, type="tool_use", id="a", name="f", input={"x": 1}),
        goes_on(0, type="input_json_delta", partial_json='{"x": '),
        goes_on(0, type="input_json_delta", partial_json="1}"),
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "f", '{"x": 1}')]


@pytest.mark.parametrize(("pieces", "left"), [([], "(cut off"), (['{"x": "ha'], '{"x": "ha')])
def test_a_call_that_was_cut_is_never_one_without_arguments(pieces: list[str], left: str) -> None:
    body = message(("a", "f", ["{}"]), ("b", "g", pieces), stop="max_tokens")
    events, _ = run(ask(Reply(body=body)))
    whole, cut = uses(events)
    assert whole.arguments == "{}"
    assert cut.arguments.startswith(left)
    assert read_arguments(cut.arguments) is None
    assert events[-1] == Stopped(Stop.LENGTH, "max_tokens")


def test_calls_of_an_answer_that_became_a_refusal_are_not_made() -> None:
    body = message("Sure", ("a", "f", ["{}"]), stop="refusal")
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == []
    assert events[-1] == Stopped(Stop.FILTERED, "refusal")


def test_calls_that_were_announced_and_never_came_are_told() -> None:
    with pytest.raises(ModelError, match="no call of one came") as caught:
        run(ask(Reply(body=message(stop="tool_use"))))
    assert caught.value.kind is Trouble.GARBAGE


def test_a_reason_that_nobody_knows_is_told_in_its_own_word() -> None:
    events, _ = run(ask(Reply(body=message("x", stop="moonrise"))))
    assert events[-1] == Stopped(Stop.OTHER, "moonrise")


def test_an_end_without_a_reason_is_an_end() -> None:
    end = named_events([{"type": "message_stop"}])
    events, _ = run(ask(Reply(body=message(("a", "f", ["{}"]), stop=None) + end)))
    assert events[-1] == Stopped(Stop.TOOLS, "")


@pytest.mark.parametrize(
    "usage", [None, {}, "much", {"input_tokens": None, "output_tokens": -3}, {"input_tokens": True}]
)
def test_usage_that_is_no_count_is_estimated(usage: Any) -> None:
    body = named_events(
        [
            {"type": "message_start", "message": {"usage": usage}},
            begins(0, type="text", text="hello"),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
            {"type": "message_stop"},
        ]
    )
    events, _ = run(ask(Reply(body=body)))
    assert isinstance(events[-2], Usage)
    assert events[-2].is_estimate
    assert events[-2].output_tokens == 2


def test_what_was_read_from_a_cache_is_counted_once() -> None:
    start = {"input_tokens": 3, "cache_read_input_tokens": 100, "output_tokens": 1}
    body = named_events(
        [
            {"type": "message_start", "message": {"usage": start}},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": start | {"output_tokens": 9},
            },
            {"type": "message_stop"},
        ]
    )
    events, _ = run(ask(Reply(body=body)))
    assert events[0] == Usage(103, 9)


@pytest.mark.parametrize("name", ["error", "message_delta"])
@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        ({"type": "overloaded_error", "message": "boom"}, Trouble.OVERLOADED),
        ({"type": "api_error", "message": "boom"}, Trouble.OVERLOADED),
        ({"type": "rate_limit_error", "message": "boom"}, Trouble.RATE_LIMIT),
        ({"type": "invalid_request_error", "message": "boom"}, Trouble.BAD_REQUEST),
        ("boom", Trouble.BAD_REQUEST),
    ],
)
def test_an_error_in_the_middle_of_a_stream_is_told_as_what_it_is(
    name: str, inner: Any, kind: Trouble
) -> None:
    # Also where it comes under the name of another event.
    event = json.dumps({"type": "error", "error": inner})
    body = message("half", stop=None) + f"event: {name}\ndata: {event}\n\n".encode()
    with pytest.raises(ModelError, match="boom") as caught:
        run(ask(Reply(body=body + message("more"))))
    assert caught.value.kind is kind
    assert caught.value.status is None


def test_an_error_that_is_no_json_is_an_error() -> None:
    body = message("half", stop=None) + b"event: error\ndata: boom\n\n"
    with pytest.raises(ModelError, match="boom"):
        run(ask(Reply(body=body)))


def test_a_provider_that_stays_overloaded_says_when_to_come_back() -> None:
    waits.clear()
    busy = error(529, failure("overloaded_error"), ("Retry-After", "7"))
    with pytest.raises(ModelError) as caught:
        run(ask(busy, busy, busy, busy))
    assert (caught.value.kind, caught.value.status) == (Trouble.OVERLOADED, 529)
    assert caught.value.retry_after_s == 7.0
    assert waits == [7.0, 7.0]


# --- thoughts ----------------------------------------------------------------------------------


def called(*keys: str) -> ModelRequest:
    """A conversation in which calls with these ids were made and answered."""
    use = [ToolUseContent(id=key, name="f", input={}) for key in keys]
    done = [ToolResultContent(tool_use_id=key, content=[TextContent(text="1")]) for key in keys]
    return ModelRequest(
        messages=[
            SamplingMessage(role="user", content=TextContent(text="hi")),
            SamplingMessage(role="assistant", content=[TextContent(text="Well."), *use]),
            SamplingMessage(role="user", content=list(done)),
        ]
    )


def test_thoughts_are_no_text_and_go_back_unchanged_before_their_calls() -> None:
    body = answer(
        begins(0, type="thinking", thinking="", signature=""),
        goes_on(0, type="thinking_delta", thinking="Let me "),
        goes_on(0, type="thinking_delta", thinking="see."),
        goes_on(0, type="signature_delta", signature="sig1"),
        begins(1, type="redacted_thinking", data="abcdef"),
        begins(2, type="tool_use", id="a", name="f", input={}),
    )

    async def ask_on() -> tuple[list[ModelEvent], list[dict[str, Any]]]:
        replies = (Reply(body=body), Reply(body=message("ok")), Reply(body=message("ok")))
        async with model_server(*replies) as server:
            model = AnthropicMessages("m", base_url=server.base_url, patience=PATIENCE)
            heard = []
            for request in (said("hi"), called("a"), called("other")):
                async with streamed(model, request) as events:
                    heard += [event async for event in events]
            await model.aclose()
            return heard, server.requests

    heard, (_, with_thoughts, without) = run(ask_on())
    assert texts(heard) == "okok"
    _, assistant, _ = with_thoughts["messages"]
    assert assistant["content"][:2] == [
        {"type": "thinking", "thinking": "Let me see.", "signature": "sig1"},
        {"type": "redacted_thinking", "data": "abcdef"},
    ]
    assert [part["type"] for part in assistant["content"][2:]] == ["text", "tool_use"]
    assert "thinking" not in str(without["messages"])


def test_a_thought_without_an_end_ends_at_the_bound_of_the_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dragoman.host.models.answer.MAX_TEXT_CHARS", 100_000)
    body = answer(begins(0, type="thinking", thinking=""), stop=None)
    more = named_events([goes_on(0, type="thinking_delta", thinking="hm " * 1000)])
    with pytest.raises(ModelError) as caught:
        run(ask(Reply(body=body, endless=more)))
    assert caught.value.kind is Trouble.TOO_LARGE


@pytest.mark.parametrize("kind", ["text", "thinking", "hologram"])
def test_empty_blocks_without_an_end_end_at_the_bound_of_the_text(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragoman.host.models.answer.MAX_TEXT_CHARS", 100_000)
    body = answer(stop=None)
    more = named_events([begins(number, type=kind) for number in range(100)])
    with pytest.raises(ModelError) as caught:
        run(ask(Reply(body=body, endless=more)))
    assert caught.value.kind is Trouble.TOO_LARGE


def test_thoughts_are_forgotten_the_oldest_first() -> None:
    kept = Kept()
    for number in range(MAX_KEPT + 1):
        kept.keep(f"k{number}", number, 10)
    assert kept.of(["k0"]) is None
    assert kept.of(["none", "k1"]) == 1
    kept.keep("large", "x", MAX_KEPT_CHARS)
    assert kept.of([f"k{MAX_KEPT}"]) is None
    assert kept.of(["large"]) == "x"
    kept.keep("large", "y", 5)
    kept.keep("small", "z", MAX_KEPT_CHARS - 5)
    assert kept.of(["large"]) == "y"
