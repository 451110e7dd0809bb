"""Answers without an end, too large or sent elsewhere: the real client libraries, hostile servers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from dragoman.host.models import answer, bounded
from dragoman.host.models.anthropic_messages import AnthropicMessages
from dragoman.host.models.base import (
    ModelError,
    ModelEvent,
    ModelRequest,
    Stop,
    Stopped,
    TextDelta,
    Trouble,
    streamed,
)
from dragoman.host.models.exchange import Patience
from dragoman.host.models.openai_chat import OpenAIChat
from dragoman.model.content import TextContent
from dragoman.model.sampling import SamplingMessage
from tests.host.model_servers import (
    ModelServer,
    Reply,
    chunks,
    error,
    message,
    model_server,
    named_events,
    sse,
    tool_delta,
)
from tests.support import run

# Loaded by the first test that needs them: it takes a second or two.
pytestmark = pytest.mark.skipif(
    find_spec("openai") is None or find_spec("anthropic") is None,
    reason="openai or anthropic is not installed",
)


async def _no_wait(seconds: float) -> None:
    pass


PATIENCE = Patience(sleep=_no_wait)
HELLO = ModelRequest(messages=[SamplingMessage(role="user", content=TextContent(text="hi"))])

Make = Callable[..., OpenAIChat | AnthropicMessages]
both = pytest.mark.parametrize("make", [OpenAIChat, AnthropicMessages])


async def hear(
    make: Make, *replies: Reply, patience: Patience = PATIENCE
) -> tuple[list[ModelEvent], ModelServer]:
    async with model_server(*replies) as server:
        return await ask(make, server, patience), server


async def ask(make: Make, server: ModelServer, patience: Patience = PATIENCE) -> list[ModelEvent]:
    model = make("m", base_url=f"{server.base_url}/v1", patience=patience)
    try:
        async with streamed(model, HELLO) as events:
            return [event async for event in events]
    finally:
        await model.aclose()


def trouble(make: Make, *replies: Reply, patience: Patience = PATIENCE) -> ModelError:
    with pytest.raises(ModelError) as caught:
        run(hear(make, *replies, patience=patience))
    return caught.value


def said(make: Make, *texts: str) -> bytes:
    return chunks(*texts) if make is OpenAIChat else message(*texts)


def begun(make: Make, text: str) -> bytes:
    """An answer that has begun and goes on."""
    if make is OpenAIChat:
        return chunks(text, finish=None, done=False)
    return message(text, stop=None)


# --- what has no end ---------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("body", "endless", "what"),
    [
        (b"data: ", b"x" * 65536, "1048576 bytes"),
        (b'data: {"a": "', b"y" * 997, "1048576 bytes"),
        (b"", b"\xff" * 65536, "1048576 bytes"),
        (b"event: x\n", b"data: z\n" * 100, "1000 lines"),
        (b"data: z\r", b"\ndata: z\r", "1000 lines"),
        (b"data: z\r", b"\n" + b"data: z\r\n" * 99 + b"data: z\r", "1000 lines"),
    ],
    ids=["a line", "a text", "no text at all", "many lines", "half a line end", "half line ends"],
)
def test_an_event_without_an_end_is_left_at_its_bound(
    make: Make, body: bytes, endless: bytes, what: str
) -> None:
    async def measure() -> int:
        async with model_server(Reply(body=body, endless=endless)) as server:
            with pytest.raises(ModelError, match=what) as caught:
                await ask(make, server)
            await server.left.wait()
            assert caught.value.kind is Trouble.TOO_LARGE
            return server.sent_bytes

    # What is on its way in the buffers of the sockets comes on top.
    assert run(measure()) < bounded.MAX_EVENT_BYTES + 16 * 1024 * 1024


@both
def test_an_event_below_the_bound_is_read_whole(make: Make) -> None:
    text = "é" * 100_000
    events, _ = run(hear(make, Reply(body=said(make, text), split=65_521)))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == text


@both
def test_a_line_in_pieces_of_one_byte_costs_what_it_weighs(make: Make) -> None:
    events, _ = run(hear(make, Reply(body=said(make, "x" * 20_000), split=1)))
    assert events[0] == TextDelta("x" * 20_000)


@both
def test_an_answer_of_endless_pings_ends_at_its_bound(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "MAX_ANSWER_BYTES", 1_000_000)
    found = trouble(make, Reply(body=begun(make, "x"), endless=b": ping\n\n" * 500))
    assert found.kind is Trouble.TOO_LARGE


@both
def test_words_without_an_end_end_at_their_bound(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "MAX_TEXT_CHARS", 100_000)
    if make is OpenAIChat:
        more = chunks("word " * 100, finish=None, done=False)
    else:
        delta = {"type": "text_delta", "text": "word " * 100}
        more = named_events([{"type": "content_block_delta", "index": 0, "delta": delta}])
    found = trouble(make, Reply(body=begun(make, "x"), endless=more))
    assert (found.kind, "100000 characters" in str(found)) == (Trouble.TOO_LARGE, True)


@both
def test_arguments_without_an_end_end_at_their_bound(make: Make) -> None:
    if make is OpenAIChat:
        body = chunks(tool_delta(0, "a", "f", "{"), finish=None, done=False)
        more = chunks(tool_delta(0, arguments='"\\' * 5000), finish=None, done=False)
    else:
        body = message(("a", "f", ["{"]), stop=None)
        delta = {"type": "input_json_delta", "partial_json": '"\\' * 5000}
        more = named_events([{"type": "content_block_delta", "index": 0, "delta": delta}])
    found = trouble(make, Reply(body=body, endless=more))
    assert (found.kind, "arguments" in str(found)) == (Trouble.TOO_LARGE, True)


@both
def test_calls_without_an_end_end_at_their_bound(make: Make) -> None:
    if make is OpenAIChat:
        events = [tool_delta(n, f"i{n}", "f", "{}") for n in range(300)]
        body = chunks(*events, finish="tool_calls")
    else:
        body = message(*((f"i{n}", "f", ["{}"]) for n in range(300)), stop="tool_use")
    found = trouble(make, Reply(body=body))
    assert (found.kind, "256 calls" in str(found)) == (Trouble.TOO_LARGE, True)


@both
@pytest.mark.parametrize("member", ["id", "name"])
def test_a_name_or_id_of_a_book_is_too_large(make: Make, member: str) -> None:
    long = {"id": "a", "name": "f", member: "x" * 5000}
    if make is OpenAIChat:
        body = chunks(tool_delta(0, long["id"], long["name"], "{}"), finish="tool_calls")
    else:
        body = message((long["id"], long["name"], ["{}"]), stop="tool_use")
    assert trouble(make, Reply(body=body)).kind is Trouble.TOO_LARGE


@both
def test_lists_inside_of_each_other_are_garbage_and_no_crash(make: Make) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    body = b'event: message_start\ndata: {"type": "message_start", "a": ' + deep + b"}\n\n"
    assert trouble(make, Reply(body=body)).kind is Trouble.GARBAGE


# --- time --------------------------------------------------------------------------------------


@pytest.mark.long
@both
def test_pings_keep_a_thinking_model_alive_until_the_deadline(make: Make) -> None:
    # Were pings no sign of life, it would be given up after the shorter time.
    patience = Patience(idle_s=1.0, deadline_s=2.5, sleep=_no_wait)
    found = trouble(make, Reply(body=begun(make, "x"), endless=b": ping\n\n"), patience=patience)
    assert found.kind is Trouble.TIMEOUT
    assert "2.5 s" in str(found)


@both
def test_a_stream_that_breaks_off_is_a_failed_connection(make: Make) -> None:
    found = trouble(make, Reply(body=begun(make, "half"), is_cut=True))
    assert found.kind is Trouble.CONNECTION


# --- what is compressed, and what is sent elsewhere ---------------------------------------------


@both
def test_a_compressed_answer_is_not_unpacked(make: Make) -> None:
    bomb = gzip.compress(b"data: " + b"x" * 50_000_000)
    reply = Reply(body=bomb, headers=(("Content-Encoding", "gzip"),))
    found = trouble(make, reply)
    assert (found.kind, "compressed" in str(found)) == (Trouble.GARBAGE, True)


@both
def test_a_compressed_refusal_keeps_its_status(make: Make) -> None:
    reply = error(401, {"error": {"message": "no"}}, ("Content-Encoding", "gzip"))
    found = trouble(make, reply)
    assert (found.kind, found.status) == (Trouble.AUTH, 401)


@both
def test_nothing_compressed_is_asked_for(make: Make) -> None:
    _, server = run(hear(make, Reply(body=said(make, "x"))))
    assert server.headers[0]["accept-encoding"] == "identity"


@both
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_told_and_not_followed(make: Make, status: int) -> None:
    async def redirected() -> tuple[ModelError, int]:
        async with model_server(Reply(body=said(make, "mine now"))) as elsewhere:
            to = ("Location", f"{elsewhere.base_url}/v1?token=abc")
            with pytest.raises(ModelError) as caught:
                await hear(make, Reply(status=status, headers=(to,)))
            assert elsewhere.base_url in str(caught.value)
            assert "abc" not in str(caught.value)
            return caught.value, len(elsewhere.requests)

    found, requests = run(redirected())
    assert (found.kind, found.status, requests) == (Trouble.NOT_FOUND, status, 0)


@both
def test_a_refusal_without_an_end_is_read_to_its_bound_only(make: Make) -> None:
    found = trouble(make, Reply(status=400, body=b'{"error": "', endless=b"no " * 10_000))
    assert (found.kind, found.status) == (Trouble.BAD_REQUEST, 400)
    assert len(str(found)) < 500


@both
def test_a_refusal_that_breaks_off_keeps_its_status(make: Make) -> None:
    body = json.dumps({"error": {"message": "x" * 100}}).encode()[:50]
    found = trouble(make, Reply(status=403, body=body, is_cut=True))
    assert (found.kind, found.status) == (Trouble.AUTH, 403)


@both
def test_a_refusal_cannot_move_the_cursor(make: Make) -> None:
    found = trouble(make, error(400, {"error": {"message": "no\x1b[2J\u202e way"}}))
    assert "\x1b" not in str(found)
    assert "\\x1b[2J" in str(found)


# --- an answer is read as it is ----------------------------------------------------------------


@both
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("split", [None, 1, 3])
def test_every_kind_of_line_end_is_read(make: Make, end: bytes, split: int | None) -> None:
    body = said(make, "one ", "two").replace(b"\n", end)
    events, _ = run(hear(make, Reply(body=body, split=split)))
    texts = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert texts == "one two"
    assert isinstance(events[-1], Stopped)
    assert events[-1].reason is Stop.END


@both
def test_half_a_character_is_put_together_or_left_out(make: Make) -> None:
    halves = ("a\ud83d", "\ude00b\ude00", "c\ud83d")
    if make is OpenAIChat:
        body = chunks(*halves)
    else:
        deltas: list[dict[str, Any]] = [
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": half},
            }
            for half in halves
        ]
        body = message("", stop=None) + named_events(deltas) + message()
    events, _ = run(hear(make, Reply(body=body)))
    texts = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert texts == "a\U0001f600b\ufffdc\ufffd"


@both
def test_half_a_character_in_arguments_is_put_together(make: Make) -> None:
    pieces = ['{"x": "\ud83d', '\ude00", "y": "\ude00"}']
    if make is OpenAIChat:
        first = tool_delta(0, "a\ud83d", "f\ud83d", pieces[0])
        body = chunks(first, tool_delta(0, arguments=pieces[1]), finish="tool_calls")
    else:
        body = message(("a\ud83d", "f\ud83d", pieces), stop="tool_use")
    events, _ = run(hear(make, Reply(body=body)))
    use = events[0]
    assert use.arguments == '{"x": "\U0001f600", "y": "\ufffd"}'  # type: ignore[union-attr]
    assert use.id == "a\ufffd"  # type: ignore[union-attr]
    assert use.name == "f\ufffd"  # type: ignore[union-attr]


def test_a_stream_that_says_no_end_of_itself_is_whole_when_it_said_why_it_ended() -> None:
    events, _ = run(hear(OpenAIChat, Reply(body=chunks("x", done=False))))
    assert events[-1] == Stopped(Stop.END, "stop")
    body = message("x").replace(b'event: message_stop\ndata: {"type": "message_stop"}\n\n', b"")
    events, _ = run(hear(AnthropicMessages, Reply(body=body)))
    assert events[-1] == Stopped(Stop.END, "end_turn")


def test_the_word_that_ends_a_stream_is_no_word_of_the_text() -> None:
    body = sse([{"choices": [{"index": 0, "delta": {"content": "\ndata: [DONE]\n"}}]}])
    assert trouble(OpenAIChat, Reply(body=body)).kind is Trouble.CUT
