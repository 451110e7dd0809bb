"""What a handler knows of its request and asks of its client: sampling, forms, URLs, roots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from typing_extensions import TypedDict

from dragoman import (
    Context,
    CreateMessageParams,
    CreateMessageResult,
    ElicitParams,
    ElicitResult,
    Limits,
    NotNegotiated,
    PromptMessage,
    Refused,
    RemoteFailure,
    ResourceLink,
    SamplingMessage,
    Server,
    TextContent,
    Tool,
    ToolError,
)
from dragoman.errors import (
    BadAnswer,
    CannotLower,
    DeadlineExceeded,
    Misconfigured,
    PeerError,
    UrlElicitationRequired,
)
from dragoman.jsonrpc.frame import LOCAL
from dragoman.model.content import ImageContent, ToolResultContent, ToolUseContent
from dragoman.model.roots import Root
from dragoman.model.sampling import ModelHint, ModelPreferences, ToolChoice
from dragoman.server.forms import Elicited
from tests.requirements.duties import duty
from tests.scripted import ask, scripted_client
from tests.support import HANDSHAKE, joined, run

NEWEST = HANDSHAKE[-1]


def asking(question: Callable[[Context], Awaitable[Any]], **options: Any) -> Server:
    """A server whose one tool puts a question; what came of it is in `server.outcome`."""
    server = Server("s", **options)
    server.outcomes = []  # type: ignore[attr-defined]

    @server.tool
    async def go(ctx: Context) -> str:
        try:
            outcome = await question(ctx)
        except Exception as error:
            outcome = error
        server.outcomes.append(outcome)  # type: ignore[attr-defined]
        return "asked"

    return server


async def outcome_of(question: Callable[[Context], Awaitable[Any]], **options: Any) -> Any:
    """What a question comes to, when a client with these options is asked."""
    server = asking(question)
    async with joined(server, **options) as (client, _):
        await client.call_tool("go")
    (outcome,) = server.outcomes  # type: ignore[attr-defined]
    return outcome


async def outcome_of_script(
    question: Callable[[Context], Awaitable[Any]],
    capabilities: dict[str, Any],
    answer: dict[str, Any],
    *,
    revision: str | None = None,
) -> tuple[Any, Any]:
    """What a question comes to with a client that answers just this; and how it was asked."""
    server = asking(question)
    async with scripted_client(server, capabilities, revision=revision) as peer:
        peer.request(1, "tools/call", {"name": "go", "arguments": {}})
        asked = await peer.receive()
        peer.answer(asked, answer)
        await peer.receive()
    (outcome,) = server.outcomes  # type: ignore[attr-defined]
    return outcome, asked.get("params", {})


# --- who and what -----------------------------------------------------------------------------------


def test_a_handler_knows_its_request_its_client_and_its_server() -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def look(ctx: Context) -> None:
            seen.append(
                (
                    type(ctx.request_id),
                    ctx.method,
                    ctx.client_info.name,
                    ctx.client_info.version,
                    ctx.client_capabilities.roots,
                    ctx.protocol_version,
                    ctx.state,
                    ctx.server,
                    ctx.meta,
                )
            )

        server = asking(look)
        async with joined(server, name="c", version="7", revision=HANDSHAKE[1]) as (client, _):
            await client.call_tool("go", meta={"k": 1})
        expected = (int, "tools/call", "c", "7", None, HANDSHAKE[1], None, server, {"k": 1})
        assert seen == [expected]

    run(main())


def test_a_context_is_found_wherever_it_stands_in_the_signature() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def first(ctx: Context, a: int) -> str:
            return f"{ctx.method} {a}"

        @server.tool
        async def last(a: int, *, ctx: Context | None = None) -> str:
            assert ctx is not None
            return f"{ctx.method} {a}"

        @server.prompt
        def prompt(a: str, context: Context) -> str:
            return f"{context.method} {a}"

        async with joined(server) as (client, _):
            assert [list(t.input_schema["properties"]) for t in await client.list_tools()] == [
                ["a"],
                ["a"],
            ]
            assert (await client.call_tool("first", {"a": 1})).text == "tools/call 1"
            assert (await client.call_tool("last", {"a": 2})).text == "tools/call 2"
            (message,) = (await client.get_prompt("prompt", {"a": "3"})).messages
            assert message.content == TextContent(text="prompts/get 3")

    run(main())


def test_a_handler_may_ask_for_a_sign_of_life_and_knows_who_asks() -> None:
    async def main() -> None:
        async def question(ctx: Context) -> Any:
            await ctx.ping()
            return ctx.principal

        assert await outcome_of(question) == LOCAL.principal

    run(main())


# --- sampling ---------------------------------------------------------------------------------------


def test_a_message_whose_content_is_plain_text_is_sent_as_a_block() -> None:
    plain: Any = "hi"
    got: list[CreateMessageParams] = []

    def answer(params: CreateMessageParams) -> str:
        got.append(params)
        return "ok"

    result = run(
        outcome_of(
            lambda ctx: ctx.sample([SamplingMessage(role="assistant", content=plain)]),
            sampling_handler=answer,
        )
    )
    assert result.text == "ok"
    (message,) = got[0].messages
    assert message == SamplingMessage(role="assistant", content=TextContent(text="hi"))


@duty("sampling.preferences", "sampling.discretion")
def test_a_question_reaches_the_model_whole_and_the_answer_comes_back_whole() -> None:
    async def main() -> None:
        got: list[CreateMessageParams] = []

        def answer(params: CreateMessageParams) -> CreateMessageResult:
            got.append(params)
            return CreateMessageResult(
                role="assistant",
                content=TextContent(text="sunny"),
                model="another-model",
                stop_reason="maxTokens",
                meta={"k": 1},
            )

        result = await outcome_of(
            lambda ctx: ctx.sample(
                ["how is it?", SamplingMessage(role="assistant", content=TextContent(text="hm"))],
                max_tokens=7,
                system_prompt="be brief",
                temperature=0.25,
                stop_sequences=["END"],
                model_preferences=["tiny", "small"],
                metadata={"trace": "x"},
            ),
            sampling_handler=answer,
        )
        assert (result.model, result.stop_reason, result.text) == (
            "another-model",
            "maxTokens",
            "sunny",
        )
        assert result.meta == {"k": 1}
        (params,) = got
        assert [(m.role, m.content) for m in params.messages] == [
            ("user", TextContent(text="how is it?")),
            ("assistant", TextContent(text="hm")),
        ]
        assert (params.max_tokens, params.system_prompt) == (7, "be brief")
        assert (params.temperature, params.stop_sequences) == (0.25, ["END"])
        assert params.model_preferences == ModelPreferences(
            hints=[ModelHint(name="tiny"), ModelHint(name="small")]
        )
        assert (params.metadata, params.include_context) == ({"trace": "x"}, None)

    run(main())


@pytest.mark.parametrize(
    ("answer", "text", "model"),
    [
        ("hello", "hello", "unknown"),
        (TextContent(text="block"), "block", "unknown"),
        (
            CreateMessageResult(
                role="assistant", content=[TextContent(text="a"), TextContent(text="b")], model="m"
            ),
            "ab",
            "m",
        ),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
def test_a_sampling_handler_may_answer_in_short_and_may_wait(
    answer: Any, text: str, model: str, is_async: bool
) -> None:
    async def wait(params: CreateMessageParams) -> Any:
        await asyncio.sleep(0)
        return answer

    async def main() -> None:
        handler = wait if is_async else lambda params: answer
        result = await outcome_of(lambda ctx: ctx.sample("q"), sampling_handler=handler)
        assert (result.text, result.model) == (text, model)

    run(main())


def test_a_prompt_may_be_put_to_the_model_and_what_is_no_message_may_not() -> None:
    async def main() -> None:
        asked: list[CreateMessageParams] = []

        def answer(params: CreateMessageParams) -> str:
            asked.append(params)
            return "a"

        said = PromptMessage(role="assistant", content=TextContent(text="before"))
        await outcome_of(lambda ctx: ctx.sample([said, "now"]), sampling_handler=answer)
        assert [message.role for message in asked[0].messages] == ["assistant", "user"]
        link = PromptMessage(role="user", content=ResourceLink(uri="a:b", name="n"))
        wrong: list[Any] = [link, 3, [None], {"role": "user"}]
        for one in wrong:

            async def question(ctx: Context, one: Any = one) -> Any:
                return await ctx.sample(one)

            outcome = await outcome_of(question, sampling_handler=answer)
            assert isinstance(outcome, TypeError), one
        assert len(asked) == 1

    run(main())


@duty("sampling.declared", "roots.unavailable", "elicitation.declared")
@pytest.mark.parametrize(
    "question",
    [
        lambda ctx: ctx.sample("q"),
        lambda ctx: ctx.list_roots(),
        lambda ctx: ctx.elicit("q", str),
        lambda ctx: ctx.elicit_url("q", "https://a.example"),
    ],
)
def test_a_client_is_never_asked_what_it_did_not_offer(question: Any) -> None:
    async def main() -> None:
        assert isinstance(await outcome_of(question), NotNegotiated)

    run(main())


@duty("sampling.rejected")
def test_a_refusal_by_the_user_is_told_from_a_failure() -> None:
    async def main() -> None:
        def refuse(params: CreateMessageParams) -> str:
            raise Refused("not at night", "a question")

        def fail(params: CreateMessageParams) -> str:
            raise RuntimeError("secret")

        refused = await outcome_of(lambda ctx: ctx.sample("q"), sampling_handler=refuse)
        assert isinstance(refused, RemoteFailure)
        assert refused.code == -1
        assert "not at night" in refused.message
        failed = await outcome_of(lambda ctx: ctx.sample("q"), sampling_handler=fail)
        assert isinstance(failed, RemoteFailure)
        assert failed.code == -32603
        assert "secret" not in failed.message
        wrong: Any = lambda params: 3  # noqa: E731
        odd = await outcome_of(lambda ctx: ctx.sample("q"), sampling_handler=wrong)
        assert isinstance(odd, RemoteFailure)

    run(main())


@duty("sampling.validated")
@pytest.mark.parametrize(
    "question",
    [
        lambda ctx: ctx.sample("q", max_tokens=0),
        lambda ctx: ctx.sample(ImageContent(data="!", mime_type="image/png")),
        lambda ctx: ctx.sample("q", model_preferences=ModelPreferences(cost_priority=2)),
        lambda ctx: ctx.sample(
            SamplingMessage(role="user", content=[ToolResultContent(tool_use_id="x", content=[])])
        ),
    ],
)
def test_a_malformed_question_is_not_sent(question: Any) -> None:
    async def main() -> None:
        asked: list[Any] = []
        outcome = await outcome_of(question, sampling_handler=asked.append)
        assert isinstance(outcome, ValueError)
        assert asked == []

    run(main())


@duty("sampling.validated")
@pytest.mark.parametrize(
    "content",
    [
        {"type": "image", "data": "!", "mimeType": "image/png"},
        {"type": "text"},
        {"type": "tool_result", "toolUseId": "x", "content": []},
    ],
)
def test_a_malformed_answer_is_a_typed_error(content: Any) -> None:
    async def main() -> None:
        answer = {"role": "assistant", "model": "m", "content": content}
        outcome, _ = await outcome_of_script(lambda ctx: ctx.sample("q"), {"sampling": {}}, answer)
        assert isinstance(outcome, PeerError)

    run(main())


@duty("sampling.context.default")
@pytest.mark.parametrize("revision", HANDSHAKE)
def test_the_context_to_include_is_left_out_unless_it_is_set_and_taken(revision: str) -> None:
    async def main() -> None:
        answer = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "a"}}

        async def asked(declared: dict[str, Any], wanted: Any) -> Any:
            _, params = await outcome_of_script(
                lambda ctx: ctx.sample("q", include_context=wanted),
                {"sampling": declared},
                answer,
                revision=revision,
            )
            return params.get("includeContext")

        assert await asked({}, None) is None
        assert await asked({}, "none") == "none"
        assert await asked({"context": {}}, "thisServer") == "thisServer"
        # The newest revision made it a capability of its own; before, it came with sampling.
        assert await asked({}, "thisServer") == (None if revision == NEWEST else "thisServer")

    run(main())


ADD = Tool(name="add", input_schema={"type": "object"})


@duty("sampling.tools.choice", "sampling.tools.declared", "sampling.tools.meta-kept")
def test_tools_and_the_choice_of_them_reach_the_handler_as_they_were_given() -> None:
    async def main() -> None:
        got: list[CreateMessageParams] = []
        use = ToolUseContent(id="u", name="add", input={"a": 1}, meta={"k": 1})

        def answer(params: CreateMessageParams) -> CreateMessageResult:
            got.append(params)
            return CreateMessageResult(role="assistant", content=[use], model="m")

        async def question(ctx: Context) -> Any:
            first = await ctx.sample("q", tools=[ADD], tool_choice="required")
            done = ToolResultContent(tool_use_id="u", content=[TextContent(text="1")])
            history = [
                SamplingMessage(role="user", content=TextContent(text="q")),
                SamplingMessage(role="assistant", content=first.content),
                SamplingMessage(role="user", content=[done]),
            ]
            return await ctx.sample(history, tools=[ADD], tool_choice=ToolChoice(mode="none"))

        await outcome_of(question, sampling_handler=answer, sampling_tools=True)
        assert [p.tool_choice for p in got] == [
            ToolChoice(mode="required"),
            ToolChoice(mode="none"),
        ]
        assert got[0].tools == [ADD]
        assert got[1].messages[1].content == [use]

    run(main())


@duty("sampling.tools.undeclared")
def test_tools_are_not_sent_to_a_client_that_takes_none() -> None:
    async def main() -> None:
        all_options: list[dict[str, Any]] = [{"tools": [ADD]}, {"tool_choice": "auto"}]
        for options in all_options:

            async def question(ctx: Context, options: dict[str, Any] = options) -> Any:
                return await ctx.sample("q", **options)

            asked: list[CreateMessageParams] = []
            outcome = await outcome_of(question, sampling_handler=asked.append)
            assert isinstance(outcome, NotNegotiated)
            assert asked == []
        # Where tools in sampling do not exist, no answer could be what was asked for.
        older = await outcome_of(
            lambda ctx: ctx.sample("q", tools=[ADD]),
            sampling_handler=asked.append,
            revision=HANDSHAKE[2],
        )
        assert isinstance(older, CannotLower)
        assert asked == []

    run(main())


def test_a_question_has_a_deadline_of_its_own() -> None:
    async def main() -> None:
        async def never(params: CreateMessageParams) -> str:
            await asyncio.Event().wait()
            return ""

        outcome = await outcome_of(
            lambda ctx: ctx.sample("q", timeout_s=0.02), sampling_handler=never
        )
        assert isinstance(outcome, DeadlineExceeded)

    run(main())


# --- forms ------------------------------------------------------------------------------------------


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Order:
    """An order."""

    name: Annotated[str, msgspec.Meta(min_length=2, description="Who")]
    count: int = 1
    size: Size = Size.SMALL
    note: str | None = None


@duty("elicitation.actions", "elicitation.validated", "elicitation.decline")
def test_only_an_accepted_form_brings_content_and_it_comes_as_the_type_asked_for() -> None:
    async def main() -> None:
        answers: list[tuple[Any, str, Any]] = [
            (
                {"name": "Ada", "count": 2, "size": "l"},
                "accept",
                Order("Ada", 2, Size.LARGE),
            ),
            ({"name": "Ada"}, "accept", Order("Ada")),
            (None, "decline", None),
            (ElicitResult(action="decline"), "decline", None),
            (ElicitResult(action="cancel", content={"name": "Ada"}), "cancel", None),
        ]
        for answer, action, data in answers:
            outcome: Elicited[Order] = await outcome_of(
                lambda ctx: ctx.elicit("order?", Order),
                elicitation_handler=lambda params, answer=answer: answer,
            )
            assert (outcome.action, outcome.data) == (action, data)
            assert bool(outcome) is (action == "accept")
            assert (outcome.content is None) is (action != "accept")

    run(main())


@duty("elicitation.decline")
def test_a_handler_that_refuses_declines() -> None:
    async def main() -> None:
        def refuse(params: ElicitParams) -> None:
            raise Refused("not now", "a form")

        outcome = await outcome_of(lambda ctx: ctx.elicit("q", str), elicitation_handler=refuse)
        assert outcome.action == "decline"

    run(main())


@pytest.mark.parametrize(
    ("shape", "answer", "data"),
    [
        (str, {"value": "x"}, "x"),
        (int, {"value": 3}, 3),
        (bool, {"value": True}, True),
        (Size, {"value": "l"}, Size.LARGE),
        (Literal["a", "b"], {"value": "b"}, "b"),
        (
            {"type": "object", "properties": {"n": {"type": "number"}}},
            {"n": 1.5},
            {"n": 1.5},
        ),
    ],
)
def test_a_form_may_be_one_plain_type_or_a_schema(shape: Any, answer: Any, data: Any) -> None:
    async def main() -> None:
        outcome = await outcome_of(
            lambda ctx: ctx.elicit("q", shape), elicitation_handler=lambda params: answer
        )
        assert outcome.data == data

    run(main())


def test_a_form_of_any_record_type_is_made_plain() -> None:
    class Typed(TypedDict, total=False):
        sizes: list[Size]
        note: str | None
        count: Annotated[int | None, msgspec.Meta(description="How many")]

    class Model(pydantic.BaseModel):
        name: str = pydantic.Field(min_length=2, description="Who")
        size: Size = Size.SMALL

    async def main() -> None:
        typed = {"sizes": ["s", "l"], "note": "x", "count": 3}
        outcome = await outcome_of(
            lambda ctx: ctx.elicit("q", Typed), elicitation_handler=lambda params: typed
        )
        assert outcome.data == {"sizes": [Size.SMALL, Size.LARGE], "note": "x", "count": 3}
        forms: list[ElicitParams] = []

        def fill(params: ElicitParams) -> dict[str, str]:
            forms.append(params)
            return {"name": "Ada", "size": "l"}

        outcome = await outcome_of(lambda ctx: ctx.elicit("q", Model), elicitation_handler=fill)
        assert outcome.data == Model(name="Ada", size=Size.LARGE)
        schema = forms[0].requested_schema or {}
        assert schema["properties"]["name"]["minLength"] == 2
        assert schema["properties"]["size"]["enum"] == ["s", "l"]
        assert "$ref" not in str(schema)
        assert repr(outcome).startswith("<Elicited accept")

    run(main())


@duty("elicitation.request.members", "elicitation.form.members", "elicitation.modes.default")
@pytest.mark.parametrize("revision", HANDSHAKE[2:])
def test_a_form_is_sent_as_its_revision_says(revision: str) -> None:
    async def main() -> None:
        _, params = await outcome_of_script(
            lambda ctx: ctx.elicit("order?", Order),
            {"elicitation": {}},
            {"action": "decline"},
            revision=revision,
        )
        assert params["message"] == "order?"
        assert params.get("mode") == ("form" if revision == NEWEST else None)
        schema = params["requestedSchema"]
        assert schema["type"] == "object"
        assert schema["required"] == ["name"]
        name, count = schema["properties"]["name"], schema["properties"]["count"]
        assert (name["type"], name["minLength"]) == ("string", 2)
        # Defaults of numbers came with the newest revision.
        assert (count["type"], count.get("default")) == (
            "integer",
            1 if revision == NEWEST else None,
        )
        assert schema["properties"]["size"]["enum"] == ["s", "l"]
        assert schema["properties"]["note"]["type"] == "string"

    run(main())


@duty("elicitation.flat")
@pytest.mark.parametrize(
    "shape",
    [
        list[int],
        dict[str, int],
        {"type": "object", "properties": {"a": {"type": "object"}}},
        {"type": "string"},
        {},
    ],
)
def test_a_form_that_is_not_flat_is_refused_before_it_is_sent(shape: Any) -> None:
    async def main() -> None:
        asked: list[Any] = []
        outcome = await outcome_of(
            lambda ctx: ctx.elicit("q", shape), elicitation_handler=asked.append
        )
        assert isinstance(outcome, Misconfigured)
        assert asked == []

    run(main())


@duty("elicitation.validated")
@pytest.mark.parametrize("content", [{}, {"name": "A"}, {"name": 3}, {"name": "Ada", "count": "x"}])
@pytest.mark.parametrize("as_type", [True, False])
def test_an_answer_that_does_not_fit_the_form_never_reaches_the_handler(
    content: Any, as_type: bool
) -> None:
    async def main() -> None:
        schema = {
            "type": "object",
            "properties": {
                "name": {"type": "string", "minLength": 2},
                "count": {"type": "integer"},
            },
            "required": ["name"],
        }
        outcome, _ = await outcome_of_script(
            lambda ctx: ctx.elicit("q", Order if as_type else schema),
            {"elicitation": {"form": {}}},
            {"action": "accept", "content": content},
        )
        assert isinstance(outcome, BadAnswer)
        assert (outcome.method, bool(outcome.faults)) == ("elicitation/create", True)

    run(main())


@duty("elicitation.enums")
@pytest.mark.parametrize("revision", HANDSHAKE[2:])
def test_choices_of_every_kind_are_asked_as_the_revision_can(revision: str) -> None:
    async def main() -> None:
        options = [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]
        plain = {"type": "string", "enum": ["s", "l"]}
        titled = {"type": "string", "oneOf": options}
        several = {"type": "array", "items": {"type": "string", "enum": ["s", "l"]}}
        several_titled = {"type": "array", "items": {"anyOf": options}}

        async def asked(field: Any, answer: Any) -> Any:
            outcome = await outcome_of(
                lambda ctx: ctx.elicit("q", {"type": "object", "properties": {"x": field}}),
                elicitation_handler=lambda params: {"x": answer},
                revision=revision,
            )
            if isinstance(outcome, Elicited):
                content: Any = outcome.content
                return content["x"]
            return type(outcome)

        assert await asked(plain, "l") == "l"
        assert await asked(titled, "l") == "l"
        for many in (several, several_titled):
            expected = ["s", "l"] if revision == NEWEST else CannotLower
            assert await asked(many, ["s", "l"]) == expected

    run(main())


# --- URLs -------------------------------------------------------------------------------------------


@duty("elicitation.url.members", "elicitation.url.id-unique", "elicitation.url.id-opaque")
def test_a_user_is_sent_to_a_url_under_an_id_of_its_own() -> None:
    async def main() -> None:
        got: list[ElicitParams] = []

        def agree(params: ElicitParams) -> ElicitResult:
            got.append(params)
            return ElicitResult(action="accept", content={"secret": "x"})

        async def question(ctx: Context) -> Any:
            first = await ctx.elicit_url("sign in", "https://a.example/in?x=1")
            second = await ctx.elicit_url(
                "sign", "https://a.example/2", elicitation_id="my {id} é\n"
            )
            return first, second

        first, second = await outcome_of(question, elicitation_handler=agree, elicitation_url=True)
        # Whatever the client sends along, nothing of it is taken for an answer.
        assert (first.action, first.data, first.content) == ("accept", None, None)
        assert second
        assert [(p.mode, p.message, p.url) for p in got] == [
            ("url", "sign in", "https://a.example/in?x=1"),
            ("url", "sign", "https://a.example/2"),
        ]
        assert got[1].elicitation_id == "my {id} é\n"
        assert len(got[0].elicitation_id or "") >= 32

    run(main())


@duty("elicitation.url.valid", "elicitation.url.id-unique")
def test_a_bad_url_or_an_id_in_use_is_refused_before_anything_is_sent() -> None:
    async def main() -> None:
        async def bad_url(ctx: Context) -> Any:
            return await ctx.elicit_url("q", "example.com/sign-in")

        async def twice(ctx: Context) -> Any:
            await ctx.elicit_url("q", "https://a.example", elicitation_id="one")
            return await ctx.elicit_url("q", "https://a.example", elicitation_id="one")

        for question, sent in ((bad_url, 0), (twice, 1)):
            asked: list[Any] = []
            outcome = await outcome_of(
                question, elicitation_handler=asked.append, elicitation_url=True
            )
            assert isinstance(outcome, ValueError)
            assert len(asked) == sent

    run(main())


@duty("elicitation.complete.id", "elicitation.complete.addressed", "elicitation.complete.unknown")
def test_completion_is_told_to_the_client_that_was_asked_once_and_by_its_id() -> None:
    async def main() -> None:
        heard: dict[str, list[str]] = {"a": [], "b": []}

        async def question(ctx: Context) -> Any:
            return await ctx.elicit_url("q", "https://a.example", elicitation_id="the-id")

        server = asking(question)
        options: dict[str, Any] = {
            "elicitation_handler": lambda params: ElicitResult(action="accept"),
            "elicitation_url": True,
        }
        async with (
            joined(server, on_elicitation_complete=heard["a"].append, **options) as (a, wire_a),
            joined(server, on_elicitation_complete=heard["b"].append, **options) as (b, wire_b),
        ):
            server.elicitation_complete("the-id")
            await a.call_tool("go")
            server.elicitation_complete("never")
            await asyncio.to_thread(server.elicitation_complete, "the-id")
            server.elicitation_complete("the-id")
            await asyncio.gather(a.ping(), b.ping())
            (told,) = wire_a.received("notifications/elicitation/complete")
            assert told["params"] == {"elicitationId": "the-id"}
            assert not wire_b.received("notifications/elicitation/complete")
        assert heard == {"a": ["the-id"], "b": []}

    run(main())


@duty(
    "elicitation.required.only-url",
    "elicitation.required.list",
    "elicitation.required.url-mode",
    "elicitation.complete.id",
)
def test_a_request_that_needs_a_url_first_says_so_with_everything_it_needs() -> None:
    async def main() -> None:
        server = Server("s")
        is_signed_in = False

        @server.tool
        async def inbox(ctx: Context) -> str:
            if not is_signed_in:
                raise ctx.url_required(
                    "Sign in first", "https://a.example/in", elicitation_id="in-1"
                )
            return "3 letters"

        ended: list[str] = []
        async with joined(
            server,
            elicitation_handler=lambda params: None,
            elicitation_url=True,
            on_elicitation_complete=ended.append,
        ) as (client, _):
            with pytest.raises(RemoteFailure) as required:
                await client.call_tool("inbox")
            assert required.value.code == -32042
            (listed,) = required.value.data["elicitations"]
            params = msgspec.convert(listed, ElicitParams)
            assert (params.mode, params.url) == ("url", "https://a.example/in")
            assert (params.elicitation_id, params.message) == ("in-1", "Sign in first")
            is_signed_in = True
            server.elicitation_complete("in-1")
            assert (await client.call_tool("inbox")).text == "3 letters"
            assert ended == ["in-1"]

    run(main())


@duty("elicitation.required.only-url", "elicitation.required.url-mode")
@pytest.mark.parametrize(
    "listed",
    [
        [],
        [{"mode": "form", "message": "m", "requestedSchema": {"type": "object"}}],
        [{"mode": "url", "message": "m", "url": "https://a.example"}],
        [{"mode": "url", "message": "m", "url": "here", "elicitationId": "i"}],
        [{"mode": "url", "url": "https://a.example", "elicitationId": "i"}],
    ],
)
def test_such_an_error_that_lists_something_else_is_our_own_fault(listed: Any) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def inbox() -> None:
            raise UrlElicitationRequired("first", listed)

        async with joined(
            server, elicitation_handler=lambda params: None, elicitation_url=True
        ) as (client, _):
            with pytest.raises(RemoteFailure, match="error id") as failed:
                await client.call_tool("inbox")
        assert failed.value.code == -32603

    run(main())


@duty("elicitation.required.only-url")
@pytest.mark.parametrize("revision", HANDSHAKE)
def test_a_client_that_sends_its_user_nowhere_never_gets_such_an_error(revision: str) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        async def polite(ctx: Context) -> None:
            raise ctx.url_required("first", "https://a.example")

        @server.resource("note:1")
        def rude() -> None:
            one = {
                "mode": "url",
                "message": "m",
                "url": "https://a.example",
                "elicitationId": "i",
            }
            raise UrlElicitationRequired("first", [one])

        async with joined(server, revision=revision, elicitation_handler=lambda params: None) as (
            client,
            _,
        ):
            with pytest.raises(ToolError, match=r"error id|offers elicitation\.url"):
                await client.call_tool("polite")
            with pytest.raises(RemoteFailure) as failed:
                await client.read_resource("note:1")
        assert failed.value.code == -32603

    run(main())


# --- roots ------------------------------------------------------------------------------------------


@duty("roots.cached", "roots.changes-handled", "roots.list-changed", "roots.change-watch")
def test_roots_are_asked_once_and_again_after_each_change() -> None:
    async def main() -> None:
        changes: list[str] = []
        server = asking(lambda ctx: ctx.list_roots(), on_roots_changed=lambda: changes.append("!"))
        async with joined(server, roots=["file:///one"]) as (client, wire):
            await client.call_tool("go")
            await client.call_tool("go")
            assert len(wire.received("roots/list")) == 1
            client.set_roots(["file:///two", "file:///three"])
            await client.call_tool("go")
            await client.call_tool("go")
            assert len(wire.received("roots/list")) == 2
            client.notify_roots_changed()
            await client.call_tool("go")
            assert len(wire.received("roots/list")) == 3
        one, two = [Root(uri="file:///one")], [Root(uri="file:///two"), Root(uri="file:///three")]
        assert server.outcomes == [one, one, two, two, two]  # type: ignore[attr-defined]
        assert changes == ["!", "!"]

    run(main())


@duty("roots.cached")
@pytest.mark.parametrize(("promise", "asked"), [({"listChanged": True}, 1), ({}, 2)])
def test_roots_are_kept_only_where_the_client_promised_to_tell(
    promise: dict[str, bool], asked: int
) -> None:
    async def main() -> None:
        server = asking(lambda ctx: ctx.list_roots())
        async with scripted_client(server, {"roots": promise}) as peer:
            requests = 0
            for ident in (1, 2):
                peer.request(ident, "tools/call", {"name": "go", "arguments": {}})
                while (message := await peer.receive()).get("method") == "roots/list":
                    requests += 1
                    peer.answer(message, {"roots": [{"uri": "file:///one"}]})
                assert message["id"] == ident
            assert requests == asked

    run(main())


@duty("roots.unavailable")
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"roots": []}, list),
        ({"roots": [{"uri": "file:///gone"}]}, list),
        ({"roots": "none"}, PeerError),
        ({}, PeerError),
        ({"roots": [{"name": "no uri"}]}, PeerError),
    ],
)
def test_a_handler_gets_a_list_or_a_typed_error(answer: Any, kind: type[Any]) -> None:
    async def main() -> None:
        outcome, _ = await outcome_of_script(lambda ctx: ctx.list_roots(), {"roots": {}}, answer)
        assert isinstance(outcome, kind)

    run(main())


@duty("roots.unavailable", "roots.internal-error")
def test_roots_that_cannot_be_listed_are_a_typed_error() -> None:
    async def main() -> None:
        def broken() -> list[str]:
            raise OSError("secret disk")

        failed = await outcome_of(lambda ctx: ctx.list_roots(), roots=broken)
        assert isinstance(failed, RemoteFailure)
        assert (failed.code, "secret" in failed.message) == (-32603, False)
        slow = asking(lambda ctx: ctx.list_roots(), limits=Limits(call_timeout_s=0.02))
        async with scripted_client(slow, {"roots": {}}) as peer:
            answer = await ask(peer, "tools/call", {"name": "go", "arguments": {}})
            assert answer["result"]["content"][0]["text"] == "asked"
        assert isinstance(slow.outcomes[0], DeadlineExceeded)  # type: ignore[attr-defined]

    run(main())
