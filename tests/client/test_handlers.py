"""What a client offers its server: a model, its user, its folders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dragoman import (
    Client,
    CreateMessageParams,
    CreateMessageResult,
    ElicitParams,
    ElicitResult,
    ImageContent,
    Limits,
    Refused,
    Root,
    Server,
    TextContent,
)
from dragoman.errors import Misconfigured, NotNegotiated
from dragoman.model.content import ToolResultContent
from dragoman.protocol.limits import ASKS, Rate
from tests.requirements.duties import duty
from tests.scripted import ScriptedConnector, ask, scripted_server
from tests.support import HANDSHAKE, run

NEWEST = HANDSHAKE[-1]
QUESTION = {
    "messages": [{"role": "user", "content": {"type": "text", "text": "q"}}],
    "maxTokens": 9,
}
FORM = {
    "message": "who?",
    "requestedSchema": {
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 2}, "age": {"type": "integer"}},
        "required": ["name"],
    },
}
PAGE = {"mode": "url", "message": "go", "url": "https://a.example/x", "elicitationId": "i"}


async def declared(**options: Any) -> Any:
    """The capabilities in a client's hello."""
    connector = ScriptedConnector()
    client = Client(connector, **options)
    opening = asyncio.ensure_future(client.connect())
    hello = await (await connector.peer).welcome()
    await opening
    await client.aclose()
    return hello["params"]["capabilities"]


async def answer_to(method: str, params: Any, **options: Any) -> Any:
    """What a client with these options answers a server."""
    async with scripted_server({}, **options) as (_, peer):
        return await ask(peer, method, params)


# --- what is declared ---------------------------------------------------------------------------------


@duty(
    "roots.declared",
    "sampling.declared",
    "sampling.tools.declared",
    "elicitation.declared",
    "elicitation.modes.declared",
)
def test_a_client_declares_exactly_what_it_has_a_handler_for() -> None:
    async def main() -> None:
        sample: Any = lambda params: "a"  # noqa: E731
        elicit: Any = lambda params: None  # noqa: E731
        assert await declared() == {}
        assert await declared(roots=[]) == {"roots": {"listChanged": True}}
        assert await declared(roots=list) == {"roots": {"listChanged": True}}
        assert await declared(sampling_handler=sample) == {"sampling": {}}
        tools = await declared(sampling_handler=sample, sampling_tools=True)
        assert tools == {"sampling": {"tools": {}}}
        assert await declared(sampling_tools=True, elicitation_url=True) == {}
        assert await declared(elicitation_handler=elicit) == {"elicitation": {"form": {}}}
        url = await declared(elicitation_handler=elicit, elicitation_url=True)
        assert url == {"elicitation": {"form": {}, "url": {}}}
        assert await declared(experimental={"x": {}}) == {"experimental": {"x": {}}}

    run(main())


@duty("sampling.declared", "elicitation.declared", "roots.declared")
@pytest.mark.parametrize(
    ("method", "params"),
    [("sampling/createMessage", QUESTION), ("elicitation/create", FORM), ("roots/list", {})],
)
def test_what_is_not_declared_is_not_answered(method: str, params: Any) -> None:
    async def main() -> None:
        assert (await answer_to(method, params))["error"]["code"] == -32601

    run(main())


# --- sampling ---------------------------------------------------------------------------------------


@duty("sampling.preferences", "sampling.tools.choice")
def test_the_handler_gets_the_whole_question() -> None:
    async def main() -> None:
        got: list[CreateMessageParams] = []

        def handler(params: CreateMessageParams) -> str:
            got.append(params)
            return "a"

        question = {
            **QUESTION,
            "modelPreferences": {"hints": [{"name": "a"}, {}], "costPriority": 0.5},
            "systemPrompt": "s",
            "temperature": 0.1,
            "stopSequences": ["x"],
            "metadata": {"any": [1]},
            "includeContext": "allServers",
            "tools": [{"name": "add", "inputSchema": {"type": "object"}}],
            "toolChoice": {"mode": "required"},
            "_meta": {"k": 1},
        }
        answer = await answer_to(
            "sampling/createMessage",
            question,
            sampling_handler=handler,
            sampling_tools=True,
        )
        assert answer["result"]["content"] == {"type": "text", "text": "a"}
        (params,) = got
        wishes = params.model_preferences
        assert wishes is not None
        assert [hint.name for hint in wishes.hints or ()] == ["a", None]
        assert (wishes.cost_priority, wishes.speed_priority) == (0.5, None)
        assert params.tool_choice is not None
        assert params.tool_choice.mode == "required"
        assert (params.metadata, params.meta) == ({"any": [1]}, {"k": 1})

    run(main())


@duty(
    "sampling.validated",
    "sampling.tools.undeclared",
    "sampling.tools.missing-result",
    "sampling.tools.mixed",
)
@pytest.mark.parametrize(
    "change",
    [
        {"tools": []},
        {"toolChoice": {"mode": "auto"}},
        {"maxTokens": 0},
        {"maxTokens": "many"},
        {"messages": "q"},
        {"messages": [{"role": "system", "content": {"type": "text", "text": "q"}}]},
        {
            "messages": [
                {"role": "user", "content": {"type": "image", "data": "!", "mimeType": "x"}}
            ]
        },
        {"modelPreferences": {"speedPriority": 3}},
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "u", "name": "n", "input": {}}],
                },
                {"role": "user", "content": [{"type": "text", "text": "no result"}]},
            ]
        },
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "u", "name": "n", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "toolUseId": "u", "content": []},
                        {"type": "text", "text": "mixed"},
                    ],
                },
            ]
        },
    ],
)
def test_a_question_that_breaks_a_rule_never_reaches_the_handler(change: Any) -> None:
    async def main() -> None:
        got: list[Any] = []
        answer = await answer_to(
            "sampling/createMessage", {**QUESTION, **change}, sampling_handler=got.append
        )
        assert answer["error"]["code"] == -32602
        assert got == []

    run(main())


@duty("sampling.rejected")
def test_a_refusal_is_minus_one_and_a_failure_tells_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        def refuse(params: Any) -> str:
            raise Refused("the user declined", "a question")

        def fail(params: Any) -> str:
            raise RuntimeError("secret")

        refused = (await answer_to("sampling/createMessage", QUESTION, sampling_handler=refuse))[
            "error"
        ]
        assert (refused["code"], refused["message"]) == (
            -1,
            "User rejected sampling request: the user declined",
        )
        failed = (await answer_to("sampling/createMessage", QUESTION, sampling_handler=fail))[
            "error"
        ]
        assert failed["code"] == -32603
        assert "secret" not in failed["message"]

    run(main())
    assert "secret" in caplog.text


@duty("sampling.validated")
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        3,
        TextContent(text="\ud800"),
        ImageContent(data="no base64", mime_type="image/png"),
        CreateMessageResult(
            role="assistant",
            model="m",
            content=[ToolResultContent(tool_use_id="u", content=[])],
        ),
    ],
)
def test_an_answer_of_the_handler_that_is_none_is_a_failure(wrong: Any) -> None:
    async def main() -> None:
        answer = await answer_to(
            "sampling/createMessage", QUESTION, sampling_handler=lambda params: wrong
        )
        assert answer["error"]["code"] == -32603

    run(main())


# --- elicitation ------------------------------------------------------------------------------------


@duty("elicitation.decline", "elicitation.modes.default", "elicitation.validated")
@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ({"name": "Ada", "age": 36}, {"action": "accept", "content": {"name": "Ada", "age": 36}}),
        ({"name": "Ada", "age": None}, {"action": "accept", "content": {"name": "Ada"}}),
        (None, {"action": "decline"}),
        (ElicitResult(action="decline"), {"action": "decline"}),
        (ElicitResult(action="cancel", content={"name": "Ada"}), {"action": "cancel"}),
        (
            ElicitResult(action="accept", content={"name": "Ada"}, meta={"k": 1}),
            {"action": "accept", "content": {"name": "Ada"}, "_meta": {"k": 1}},
        ),
    ],
)
@pytest.mark.parametrize("mode", [{}, {"mode": "form"}])
def test_a_form_is_answered_in_short_or_in_full(answer: Any, sent: Any, mode: Any) -> None:
    async def main() -> None:
        got: list[ElicitParams] = []

        async def handler(params: ElicitParams) -> Any:
            got.append(params)
            return answer

        said = await answer_to("elicitation/create", {**FORM, **mode}, elicitation_handler=handler)
        assert said["result"] == sent
        assert got[0].requested_schema == FORM["requestedSchema"]

    run(main())


@duty("elicitation.decline")
def test_a_handler_that_refuses_declines() -> None:
    async def main() -> None:
        def refuse(params: ElicitParams) -> None:
            raise Refused("no", "a form")

        said = await answer_to("elicitation/create", FORM, elicitation_handler=refuse)
        assert said["result"] == {"action": "decline"}

    run(main())


@duty("elicitation.validated")
@pytest.mark.parametrize("content", [{}, {"name": "A"}, {"name": 3}, {"name": "Ada", "age": "x"}])
def test_an_answer_that_does_not_fit_the_form_is_not_sent(
    content: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        said = await answer_to("elicitation/create", FORM, elicitation_handler=lambda p: content)
        assert said["error"]["code"] == -32603
        assert "name" not in said["error"]["message"]

    run(main())
    assert "does not fit the form" in caplog.text


@duty("elicitation.flat", "elicitation.form.members")
@pytest.mark.parametrize(
    "params",
    [
        {"message": "m"},
        {"requestedSchema": {"type": "object", "properties": {}}},
        {"message": "m", "requestedSchema": {"type": "array"}},
        {
            "message": "m",
            "requestedSchema": {"type": "object", "properties": {"a": {"type": "object"}}},
        },
        {"message": "m", "requestedSchema": {"type": "object", "properties": {"a": {"type": []}}}},
        {"mode": "hologram", "message": "m"},
    ],
)
def test_a_form_that_is_none_never_reaches_the_handler(params: Any) -> None:
    async def main() -> None:
        got: list[Any] = []
        said = await answer_to("elicitation/create", params, elicitation_handler=got.append)
        assert said["error"]["code"] == -32602
        assert got == []

    run(main())


@duty("elicitation.modes.refused")
def test_a_mode_that_was_not_declared_is_refused() -> None:
    async def main() -> None:
        got: list[Any] = []
        said = await answer_to("elicitation/create", PAGE, elicitation_handler=got.append)
        assert said["error"]["code"] == -32602
        assert got == []

    run(main())


@duty("elicitation.url.no-prefetch", "elicitation.url.id-opaque")
def test_a_url_is_handed_to_the_handler_and_to_nobody_else() -> None:
    async def main() -> None:
        fetched: list[Any] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            fetched.append(await reader.readline())
            writer.close()

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/secret?token=1"
        got: list[ElicitParams] = []

        def handler(params: ElicitParams) -> ElicitResult:
            got.append(params)
            return ElicitResult(action="accept", content={"name": "dropped"})

        said = await answer_to(
            "elicitation/create",
            {**PAGE, "url": url, "elicitationId": " é{} "},
            elicitation_handler=handler,
            elicitation_url=True,
        )
        listener.close()
        assert said["result"] == {"action": "accept"}
        assert (got[0].url, got[0].elicitation_id) == (url, " é{} ")
        assert fetched == []

    run(main())


@duty("sampling.rate-limited", "elicitation.rate-limited")
@pytest.mark.parametrize(
    ("method", "params"), [("sampling/createMessage", QUESTION), ("elicitation/create", FORM)]
)
def test_what_a_server_may_ask_is_limited_at_once_and_in_time(method: str, params: Any) -> None:
    async def main() -> None:
        assert 0 < ASKS[method].at_once <= 100
        assert 0 < ASKS[method].per_s <= 10
        gate = asyncio.Event()

        async def wait(given: Any) -> None:
            await gate.wait()
            raise Refused("no", "x")

        limits = Limits(rates={method: Rate(at_once=2, burst=3, per_s=0.001)})
        async with scripted_server(
            {}, sampling_handler=wait, elicitation_handler=wait, limits=limits
        ) as (_, peer):
            for ident in (1, 2):
                peer.request(ident, method, params)
            assert "at once" in (await ask(peer, method, params, ident=3))["error"]["message"]
            gate.set()
            for _ in (1, 2):
                assert "id" in await peer.receive()
            await ask(peer, method, params, ident=4)
            excess = (await ask(peer, method, params, ident=5))["error"]
            assert (excess["code"], "a second" in excess["message"]) == (-32000, True)

    run(main())


# --- roots ------------------------------------------------------------------------------------------


@duty("roots.permitted", "roots.file-uri")
def test_exactly_the_given_roots_are_listed(tmp_path: Path) -> None:
    async def main() -> None:
        given = [
            tmp_path,
            "file:///srv/a%20b",
            Root(uri="file:///c", name="C"),
            str(tmp_path / "d"),
        ]
        answer = await answer_to("roots/list", {}, roots=given)
        assert answer["result"]["roots"] == [
            {"uri": tmp_path.as_uri(), "name": tmp_path.name},
            {"uri": "file:///srv/a%20b"},
            {"uri": "file:///c", "name": "C"},
            {"uri": (tmp_path / "d").as_uri(), "name": "d"},
        ]
        assert (await answer_to("roots/list", None, roots=[]))["result"] == {"roots": []}

    run(main())


@pytest.mark.parametrize("is_async", [True, False])
def test_roots_may_be_a_function_that_is_asked_each_time(is_async: bool) -> None:
    async def main() -> None:
        current = ["file:///one"]

        async def later() -> list[str]:
            return current

        async with scripted_server({}, roots=later if is_async else lambda: current) as (_, peer):
            first = await ask(peer, "roots/list", ident=1)
            current[:] = ["file:///two"]
            second = await ask(peer, "roots/list", ident=2)
        assert first["result"]["roots"] == [{"uri": "file:///one"}]
        assert second["result"]["roots"] == [{"uri": "file:///two"}]

    run(main())


BAD_ROOTS = [
    "https://example.com/x",
    "file://relative",
    "file:///a/../b",
    "file:///a/%2e%2e/b",
    "file:///a%2Fb",
    "file:///a%5c..%5cb",
    "file:///a%00",
    "file:",
]


@duty("roots.uri-validated", "roots.file-uri")
@pytest.mark.parametrize("uri", BAD_ROOTS)
def test_a_root_that_is_no_absolute_file_uri_is_refused_where_it_is_given(uri: str) -> None:
    with pytest.raises(Misconfigured, match="root"):
        Client(Server("s"), roots=[Root(uri=uri)])
    client = Client(Server("s"), roots=[])
    with pytest.raises(Misconfigured, match="root"):
        client.set_roots([Root(uri=uri)])


@duty("roots.uri-validated", "roots.internal-error", "roots.file-uri")
@pytest.mark.parametrize("uri", BAD_ROOTS)
def test_a_function_that_returns_such_a_root_is_a_failure_without_its_text(uri: str) -> None:
    async def main() -> None:
        error = (await answer_to("roots/list", {}, roots=lambda: [Root(uri=uri)]))["error"]
        assert error["code"] == -32603
        assert uri not in error["message"]

    run(main())


@duty("roots.internal-error")
def test_a_function_that_fails_is_a_failure_without_its_text() -> None:
    async def main() -> None:
        def broken() -> list[str]:
            raise OSError("secret disk")

        error = (await answer_to("roots/list", {}, roots=broken))["error"]
        assert (error["code"], "secret" in error["message"]) == (-32603, False)

    run(main())


@duty("roots.list-changed", "roots.change-watch")
def test_new_roots_are_told_by_themselves_and_changes_behind_them_when_the_user_says_so() -> None:
    async def main() -> None:
        async with scripted_server({}, roots=["file:///one"]) as (client, peer):
            client.set_roots(["file:///two"])
            await peer.expect("notifications/roots/list_changed")
            listed = await ask(peer, "roots/list")
            assert listed["result"]["roots"] == [{"uri": "file:///two"}]
            client.notify_roots_changed()
            await peer.expect("notifications/roots/list_changed")
            with pytest.raises(Misconfigured):
                client.set_roots(["https://a.example"])
            assert (await ask(peer, "roots/list"))["result"] == listed["result"]
        client.set_roots(["file:///three"])
        async with scripted_server({}) as (client, peer):
            with pytest.raises(NotNegotiated):
                client.set_roots(["file:///x"])
            with pytest.raises(NotNegotiated):
                client.notify_roots_changed()
            assert peer.waiting == 0

    run(main())
