"""The adapter for chat completions: the real client library against a server of ours."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

import pytest

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
from dragoman.host.models.openai_chat import OpenAIChat
from dragoman.host.models.words import read_arguments
from dragoman.model.content import (
    AudioContent,
    ImageContent,
    SamplingBlock,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.sampling import SamplingMessage
from dragoman.model.tools import Tool
from tests.host.model_servers import Reply, chunks, error, model_server, sse, tool_delta
from tests.support import run

# Loaded by the first test that needs it: it takes a second or two.
pytestmark = pytest.mark.skipif(find_spec("openai") is None, reason="openai is not installed")

# Real waits are left out; what would be waited is kept.
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
        model = OpenAIChat("m", base_url=f"{server.base_url}/v1", patience=patience)
        try:
            async with streamed(model, request or said("hi")) as events:
                return [event async for event in events], server.requests
        finally:
            await model.aclose()


def texts(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def uses(events: list[ModelEvent]) -> list[ToolUse]:
    return [event for event in events if isinstance(event, ToolUse)]


@pytest.mark.parametrize("split", [None, 1, 7])
def test_text_arrives_however_the_stream_is_split(split: int | None) -> None:
    body = chunks("Hel", "lo, Zoë", usage={"prompt_tokens": 3, "completion_tokens": 4})
    events, _ = run(ask(Reply(body=body, split=split)))
    assert texts(events) == "Hello, Zoë"
    assert events[-2:] == [Usage(3, 4), Stopped(Stop.END, "stop")]


def test_half_a_character_is_put_together_or_left_out() -> None:
    body = sse(
        [
            {"choices": [{"index": 0, "delta": {"content": half}, "finish_reason": None}]}
            for half in ("a\ud83d", "\ude00b\ude00", "c\ud83d")
        ]
        + [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    )
    events, _ = run(ask(Reply(body=body)))
    assert texts(events) == "a\U0001f600b\ufffdc\ufffd"


def test_an_address_without_a_stream_is_asked_about() -> None:
    with pytest.raises(ModelError, match="is base_url right"):
        run(ask(Reply(body=b"<html>hello</html>", content_type="text/html")))


def test_parallel_calls_are_put_together_by_their_index() -> None:
    body = chunks(
        tool_delta(0, "a", "first", ""),
        tool_delta(1, "b", "second", '{"y"'),
        tool_delta(0, arguments='{"x": '),
        tool_delta(1, arguments=": 2}"),
        tool_delta(0, arguments="1}"),
        finish="tool_calls",
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "first", '{"x": 1}'), ToolUse("b", "second", '{"y": 2}')]
    assert events[-1] == Stopped(Stop.TOOLS, "tool_calls")


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    body = chunks(
        tool_delta(None, "a", "first", '{"x":'),
        tool_delta(None, None, None, " 1}"),
        tool_delta(None, "b", "second", "{}"),
        finish="tool_calls",
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "first", '{"x": 1}'), ToolUse("b", "second", "{}")]


def test_calls_that_all_claim_the_first_index_are_told_apart_by_their_ids() -> None:
    body = chunks(
        tool_delta(0, "a", "first", "{}"), tool_delta(0, "b", "first", '{"x": 1}'), finish="stop"
    )
    events, _ = run(ask(Reply(body=body)))
    assert [use.id for use in uses(events)] == ["a", "b"]
    # The server says "stop", and there are calls.
    assert events[-1] == Stopped(Stop.TOOLS, "stop")


def test_arguments_as_an_object_and_calls_without_an_id_are_taken() -> None:
    body = chunks(tool_delta(0, None, "first", {"x": [1]}), finish="tool_calls")
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("call_0", "first", '{"x": [1]}')]


def test_a_server_that_repeats_the_name_does_not_double_it() -> None:
    body = chunks(
        tool_delta(0, "a", "first", "{"), tool_delta(0, "a", "first", "}"), finish="tool_calls"
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "first", "{}")]


def test_missing_usage_is_estimated() -> None:
    events, _ = run(ask(Reply(body=chunks("hello"))))
    usage = next(event for event in events if isinstance(event, Usage))
    assert usage.is_estimate
    assert usage.output_tokens == 2
    assert usage.input_tokens > 0


def test_a_refusal_and_a_filter_are_told() -> None:
    events, _ = run(ask(Reply(body=chunks({"refusal": "I will not"}, finish="content_filter"))))
    assert texts(events) == "I will not"
    assert events[-1] == Stopped(Stop.FILTERED, "content_filter")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(401, {"error": {"message": "bad key"}}), Trouble.AUTH),
        (error(403, {"error": {"message": "no"}}), Trouble.AUTH),
        (error(404, {"error": {"message": "no such model"}}), Trouble.NOT_FOUND),
        (error(400, {"error": {"message": "odd"}}), Trouble.BAD_REQUEST),
        (
            error(400, {"error": {"message": "long", "code": "context_length_exceeded"}}),
            Trouble.TOO_LONG,
        ),
        (
            error(400, {"error": {"message": "the request exceeds the available context size"}}),
            Trouble.TOO_LONG,
        ),
        (error(413, {}), Trouble.TOO_LONG),
        (Reply(body=b"data: {not json\n\n"), Trouble.GARBAGE),
        (Reply(body=b"data: [1, 2]\n\n"), Trouble.GARBAGE),
        (Reply(body=b'data: {"error": {"message": "boom"}}\n\n'), Trouble.BAD_REQUEST),
        (Reply(body=b"<html>hello</html>", content_type="text/html"), Trouble.CUT),
        (Reply(body=b""), Trouble.CUT),
        (Reply(body=chunks("half", finish=None, done=False)), Trouble.CUT),
        (Reply(body=sse([{"choices": "none"}, {"choices": [None]}, {}])), Trouble.CUT),
    ],
    ids=lambda value: value.value if isinstance(value, Trouble) else "",
)
def test_what_is_wrong_is_told_apart_and_not_tried_again(reply: Reply, kind: Trouble) -> None:
    with pytest.raises(ModelError) as caught:
        run(ask(reply))
    assert caught.value.kind is kind
    # It is named after where the words went, which is not OpenAI.
    assert caught.value.provider.startswith("127.0.0.1:")


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_provider_is_tried_again_after_the_wait_it_asks_for(status: int) -> None:
    waits.clear()
    busy = error(status, {"error": {"message": "later"}}, ("Retry-After", "2"))
    events, requests = run(ask(busy, Reply(body=chunks("at last"))))
    assert texts(events) == "at last"
    assert len(requests) == 2
    assert waits == [2.0]


def test_it_is_tried_a_bounded_number_of_times() -> None:
    waits.clear()
    busy = error(429, {"error": {"message": "later"}})
    with pytest.raises(ModelError) as caught:
        run(ask(busy, busy, busy, busy))
    assert (caught.value.kind, caught.value.status) == (Trouble.RATE_LIMIT, 429)
    assert len(waits) == 2
    assert waits[0] <= 0.5
    assert waits[1] <= 1.0


def test_a_long_wait_is_left_to_the_caller() -> None:
    busy = error(429, {"error": {"message": "tomorrow"}}, ("Retry-After", "86400"))
    with pytest.raises(ModelError) as caught:
        run(ask(busy))
    assert caught.value.retry_after_s == 86400.0


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_a_retry_after_that_is_no_time_is_no_promise(value: str) -> None:
    busy = error(429, {}, ("Retry-After", value))
    events, _ = run(ask(busy, Reply(body=chunks("ok"))))
    assert texts(events) == "ok"


def test_a_stream_that_breaks_off_after_words_is_not_begun_again() -> None:
    body = chunks("half", finish=None).removesuffix(b"data: [DONE]\n\n")

    async def ask_twice() -> tuple[str, int]:
        replies = (Reply(body=body, is_cut=True), Reply(body=chunks("again")))
        async with model_server(*replies) as server:
            model = OpenAIChat("m", base_url=server.base_url, patience=PATIENCE)
            heard: list[ModelEvent] = []

            async def read() -> None:
                async with streamed(model, said("hi")) as events:
                    async for event in events:
                        heard.append(event)  # noqa: PERF401 - it is what came before the error

            with pytest.raises(ModelError) as caught:
                await read()
            await model.aclose()
            assert caught.value.kind is Trouble.CONNECTION
            return texts(heard), len(server.requests)

    assert run(ask_twice()) == ("half", 1)


def test_a_stream_that_breaks_off_before_words_is_begun_again() -> None:
    events, requests = run(ask(Reply(is_cut=True), Reply(body=chunks("again"))))
    assert texts(events) == "again"
    assert len(requests) == 2


def test_a_server_that_is_not_there_is_a_failed_connection() -> None:
    async def ask_nobody() -> None:
        async with model_server() as server:
            url = server.base_url
        model = OpenAIChat("m", base_url=url, patience=PATIENCE)
        try:
            async with streamed(model, said("hi")) as events:
                async for _ in events:
                    pass
        finally:
            await model.aclose()

    with pytest.raises(ModelError) as caught:
        run(ask_nobody())
    assert caught.value.kind is Trouble.CONNECTION


@pytest.mark.parametrize("body", [b"", chunks("half", finish=None)])
def test_a_silent_server_is_given_up(body: bytes) -> None:
    patience = Patience(idle_s=0.05, sleep=_no_wait)
    body = body.removesuffix(b"data: [DONE]\n\n")
    with pytest.raises(ModelError) as caught:
        run(ask(Reply(body=body, hangs=True), patience=patience))
    assert caught.value.kind is Trouble.TIMEOUT


def test_the_whole_answer_has_a_deadline() -> None:
    patience = Patience(deadline_s=0.05, sleep=_no_wait)
    with pytest.raises(ModelError) as caught:
        run(ask(Reply(body=b": ping\n\n", hangs=True), patience=patience))
    assert caught.value.kind is Trouble.TIMEOUT


def test_who_leaves_closes_the_stream() -> None:
    async def leave() -> None:
        body = chunks("one", "two", finish=None).removesuffix(b"data: [DONE]\n\n")
        async with model_server(Reply(body=body, hangs=True)) as server:
            model = OpenAIChat("m", base_url=server.base_url, patience=PATIENCE)
            async with streamed(model, said("hi")) as events:
                async for _ in events:
                    break
            # The server sees it go, although the client as a whole stays open.
            await server.left.wait()
            await model.aclose()

    run(leave())


def test_who_is_cancelled_closes_the_stream() -> None:
    async def cancel() -> None:
        async with model_server(Reply(hangs=True)) as server:
            model = OpenAIChat("m", base_url=server.base_url, patience=PATIENCE)

            async def read() -> None:
                async with streamed(model, said("hi")) as events:
                    async for _ in events:
                        pass

            task = asyncio.create_task(read())
            while not server.requests:
                await asyncio.sleep(0)
            task.cancel()
            await server.left.wait()
            with pytest.raises(asyncio.CancelledError):
                await task
            await model.aclose()

    run(cancel())


def test_the_request_is_in_the_words_of_the_api() -> None:
    picture = ImageContent(data="AAAA", mime_type="image/png")
    blocks: list[SamplingBlock] = [
        ToolResultContent(tool_use_id="u 1", content=[TextContent(text="42"), picture]),
        ToolResultContent(
            tool_use_id="u2", content=[TextContent(text="no such file")], is_error=True
        ),
        TextContent(text="and now?"),
        AudioContent(data="BBBB", mime_type="audio/wav"),
        AudioContent(data="BBBB", mime_type="audio/ogg"),
    ]
    tool = Tool(name="f", description="d", input_schema={"type": "object", "properties": {}})
    request = ModelRequest(
        system="be brief",
        messages=[
            SamplingMessage(role="user", content=TextContent(text="hi")),
            SamplingMessage(
                role="assistant",
                content=[
                    TextContent(text="let me see"),
                    ToolUseContent(id="u 1", name="f", input={"x": 1}),
                    ToolUseContent(id="u2", name="f", input={}),
                ],
            ),
            SamplingMessage(role="user", content=blocks),
        ],
        tools=[tool],
        max_tokens=9,
        temperature=0.5,
        stop=["a", "b", "c", "d", "e"],
        tool_choice="required",
    )
    _, (wire,) = run(ask(Reply(body=chunks("ok")), request=request))
    system, user, assistant, first, second, rest = wire["messages"]
    assert system == {"role": "system", "content": "be brief"}
    assert user == {"role": "user", "content": "hi"}
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert assistant["content"] == "let me see"
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    # An id with a blank in it is replaced, by the same one on both sides.
    assert " " not in ids[0]
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert first["content"] == "42\n[the images follow]"
    assert second["content"] == "Error: no such file"
    kinds = [part["type"] for part in rest["content"]]
    assert kinds == ["image_url", "text", "input_audio", "text"]
    assert (wire["max_tokens"], wire["temperature"], len(wire["stop"])) == (9, 0.5, 4)
    assert wire["tool_choice"] == "required"
    assert wire["tools"][0]["function"]["name"] == "f"


def test_a_missing_key_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def ask_without() -> None:
        async with streamed(OpenAIChat("m"), said("hi")) as events:
            async for _ in events:
                pass

    with pytest.raises(ModelError) as caught:
        run(ask_without())
    assert caught.value.kind is Trouble.AUTH


def test_too_many_calls_are_refused() -> None:
    body = chunks(*(tool_delta(n, f"i{n}", "f", "{}") for n in range(300)), finish="tool_calls")
    with pytest.raises(ModelError) as caught:
        run(ask(Reply(body=body)))
    assert caught.value.kind is Trouble.TOO_LARGE


# --- awkward servers ---------------------------------------------------------------------------


def arguments(events: list[ModelEvent]) -> list[str]:
    return [use.arguments for use in uses(events)]


def test_an_end_without_a_reason_is_an_end() -> None:
    call = tool_delta(0, "a", "f", '{"x": 1}')
    events, _ = run(ask(Reply(body=chunks("hi", finish=None))))
    assert events[-1] == Stopped(Stop.END, "")
    events, _ = run(ask(Reply(body=chunks(call, finish=None))))
    assert arguments(events) == ['{"x": 1}']
    assert events[-1] == Stopped(Stop.TOOLS, "")


def test_two_calls_with_one_id_are_two_calls() -> None:
    body = chunks(
        tool_delta(0, "a", "f", '{"x": 1}'), tool_delta(1, "a", "g", "{}"), finish="tool_calls"
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "f", '{"x": 1}'), ToolUse("a_2", "g", "{}")]


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("key", [None, "", "a"])
def test_whole_calls_under_one_index_and_id_are_not_run_together(
    index: int | None, key: str | None
) -> None:
    body = chunks(
        tool_delta(index, key, "f", '{"x": "}{"}'),
        tool_delta(index, key, "f", '{"x": "\\"}"}'),
        tool_delta(index, key, "g", "{}"),
        finish="tool_calls",
    )
    events, _ = run(ask(Reply(body=body)))
    assert [use.name for use in uses(events)] == ["f", "f", "g"]
    assert arguments(events) == ['{"x": "}{"}', '{"x": "\\"}"}', "{}"]
    assert len({use.id for use in uses(events)}) == 3


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_call_whose_pieces_repeat_its_name_stays_one_wherever_it_is_cut(size: int) -> None:
    whole = '{"a\\"}": {"b": ["\\\\", "{"]}, "c": "\\u007d"}'
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    body = chunks(*(tool_delta(0, "a", "f", piece) for piece in pieces), finish="tool_calls")
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "f", whole)]


def test_a_server_with_a_new_id_for_each_piece_writes_one_call() -> None:
    body = chunks(
        tool_delta(0, "a", "f", '{"x"'),
        tool_delta(0, "b", None, ": 1"),
        tool_delta(0, "c", None, "}"),
        finish="tool_calls",
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("a", "f", '{"x": 1}')]


@pytest.mark.parametrize("text", ["no JSON", "[1]", '{"x": NaN}', "{}{}", '{"x": 1'])
def test_arguments_that_are_no_json_arrive_as_they_are(text: str) -> None:
    events, _ = run(ask(Reply(body=chunks(tool_delta(0, "a", "f", text), finish="tool_calls"))))
    assert uses(events) == [ToolUse("a", "f", text)]


@pytest.mark.parametrize(
    ("given", "left"), [(None, "(cut off"), ("", "(cut off"), ('{"x": "ha', '{"x": "ha')]
)
def test_a_call_that_was_cut_is_never_one_without_arguments(given: str | None, left: str) -> None:
    body = chunks(tool_delta(0, "a", "f", "{}"), tool_delta(1, "b", "g", given), finish="length")
    events, _ = run(ask(Reply(body=body)))
    assert arguments(events)[0] == "{}"
    assert arguments(events)[1].startswith(left)
    assert read_arguments(arguments(events)[1]) is None
    assert events[-1] == Stopped(Stop.LENGTH, "length")


def test_calls_of_an_answer_that_was_filtered_are_not_made() -> None:
    body = chunks("Well", tool_delta(0, "a", "f", "{}"), finish="content_filter")
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == []
    assert events[-1] == Stopped(Stop.FILTERED, "content_filter")


def test_a_refusal_of_the_model_itself_is_one() -> None:
    events, _ = run(ask(Reply(body=chunks({"content": None, "refusal": "I will not"}))))
    assert texts(events) == "I will not"
    assert events[-1] == Stopped(Stop.FILTERED, "stop")


def test_calls_that_were_announced_and_never_came_are_told() -> None:
    with pytest.raises(ModelError, match="no call of one came") as caught:
        run(ask(Reply(body=chunks(finish="tool_calls"))))
    assert caught.value.kind is Trouble.GARBAGE
    events, _ = run(ask(Reply(body=chunks("f(x)", finish="tool_calls"))))
    assert events[-1] == Stopped(Stop.OTHER, "tool_calls")


def test_a_call_in_the_oldest_form_is_one() -> None:
    body = chunks(
        {"function_call": {"name": "f", "arguments": '{"x":'}},
        {"function_call": {"arguments": " 1}"}},
        finish="function_call",
    )
    events, _ = run(ask(Reply(body=body)))
    assert uses(events) == [ToolUse("call_0", "f", '{"x": 1}')]
    assert events[-1] == Stopped(Stop.TOOLS, "function_call")


def test_what_is_null_or_odd_is_passed_over() -> None:
    odd: list[dict[str, Any] | str | None] = [
        None,
        {},
        {"content": None, "tool_calls": None, "refusal": None},
        {"content": 5, "tool_calls": {"0": {}}},
        {"tool_calls": [None, 7, "f"]},
        {"role": "assistant", "content": "", "audio": {"id": "x"}},
        "hello",
    ]
    body = sse([{"choices": None}, {"choices": [], "usage": None}, {"id": "x"}]) + chunks(
        *odd, usage={"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": None}
    )
    events, _ = run(ask(Reply(body=body)))
    assert events == [TextDelta("hello"), Usage(1, 2), Stopped(Stop.END, "stop")]


@pytest.mark.parametrize("value", [-1, 1.5, True, "7", None, 10**12])
def test_usage_that_is_no_count_is_estimated(value: Any) -> None:
    body = chunks("hello", usage={"prompt_tokens": value, "completion_tokens": 2})
    events, _ = run(ask(Reply(body=body)))
    assert isinstance(events[-2], Usage)
    assert events[-2].is_estimate


def test_other_choices_are_passed_over() -> None:
    second = {"index": 1, "delta": {"content": "NO"}, "finish_reason": "stop"}
    body = sse([{"choices": [second]}]) + chunks("yes")
    events, _ = run(ask(Reply(body=body)))
    assert texts(events) == "yes"


def test_content_in_parts_is_read_and_thoughts_are_not_text() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
        {"type": "text", "text": None},
    ]
    events, _ = run(ask(Reply(body=chunks({"content": parts}))))
    assert texts(events) == "yes"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"error": {"message": "boom", "code": 429}}, Trouble.RATE_LIMIT),
        ({"error": {"message": "boom", "code": 502}}, Trouble.OVERLOADED),
        ({"error": {"message": "boom", "type": "server_error"}}, Trouble.OVERLOADED),
        ({"error": "boom"}, Trouble.BAD_REQUEST),
        ({"object": "error", "message": "boom", "code": 400}, Trouble.BAD_REQUEST),
        ({"object": "error", "message": "boom", "code": 503}, Trouble.OVERLOADED),
        ({"error": {"message": "boom", "code": True}}, Trouble.BAD_REQUEST),
    ],
)
def test_an_error_in_the_middle_of_a_stream_is_told_as_what_it_is(
    event: dict[str, Any], kind: Trouble
) -> None:
    body = chunks("half", finish=None, done=False) + sse([event]) + chunks("more")
    with pytest.raises(ModelError, match="boom") as caught:
        run(ask(Reply(body=body)))
    assert caught.value.kind is kind


def test_an_end_that_is_an_error_is_one() -> None:
    with pytest.raises(ModelError) as caught:
        run(ask(Reply(body=chunks("half", finish="error"))))
    assert caught.value.kind is Trouble.CUT


def test_a_refusal_in_a_list_is_read() -> None:
    body = [{"error": {"code": 400, "message": "missing a signature", "status": "INVALID"}}]
    with pytest.raises(ModelError, match="missing a signature"):
        run(ask(error(400, body)))


# --- what goes back with a call ----------------------------------------------------------------


def called(*keys: str) -> ModelRequest:
    """A conversation in which calls with these ids were made and answered."""
    use = [ToolUseContent(id=key, name="f", input={}) for key in keys]
    done = [ToolResultContent(tool_use_id=key, content=[TextContent(text="1")]) for key in keys]
    return ModelRequest(
        messages=[
            SamplingMessage(role="user", content=TextContent(text="hi")),
            SamplingMessage(role="assistant", content=list(use)),
            SamplingMessage(role="user", content=list(done)),
        ]
    )


async def ask_on(
    first: Reply, request: ModelRequest
) -> tuple[list[ModelEvent], list[dict[str, Any]]]:
    """Ask twice, with what was heard first behind the second request."""
    async with model_server(first, Reply(body=chunks("done"))) as server:
        model = OpenAIChat("m", base_url=server.base_url, patience=PATIENCE)
        async with streamed(model, said("hi")) as events:
            heard = [event async for event in events]
        async with streamed(model, request) as events:
            _ = [event async for event in events]
        await model.aclose()
        return heard, server.requests[1]["messages"]


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
def test_thoughts_are_no_text_and_go_back_with_their_calls(member: str) -> None:
    calls = tool_delta(0, "a", "f", "{}")
    body = chunks({member: "Let me "}, {member: "see."}, calls, finish="tool_calls")
    heard, (user, assistant, tool) = run(ask_on(Reply(body=body), called("a")))
    assert texts(heard) == ""
    assert assistant[member] == "Let me see."
    assert member not in user | tool


def test_a_server_that_shows_thoughts_gets_back_that_there_were_none() -> None:
    body = chunks({"reasoning_content": ""}, tool_delta(0, "a", "f", "{}"), finish="tool_calls")
    _, messages = run(ask_on(Reply(body=body), called("older")))
    assert messages[1]["reasoning_content"] == ""


def test_the_signature_of_a_call_goes_back_with_that_call() -> None:
    first = tool_delta(0, "a", "f", "{}")
    first["tool_calls"][0]["extra_content"] = {"google": {"thought_signature": "s1"}}
    body = chunks(first, tool_delta(1, "b", "f", "{}"), finish="tool_calls")
    _, messages = run(ask_on(Reply(body=body), called("a", "b")))
    signed, unsigned = messages[1]["tool_calls"]
    assert signed["extra_content"] == {"google": {"thought_signature": "s1"}}
    assert "extra_content" not in unsigned
    assert "reasoning_content" not in messages[1]
