"""What a conversation has heard of its servers, and what a server's prompt may get of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from dragoman import Context, Server
from dragoman.client.targets import connector_for
from dragoman.host import ApprovalRequest, Conversation, Host, Scope
from dragoman.host.entry import HostEntry
from dragoman.host.heard import MAX_SERVERS, MAX_WORDS, Heard, OnBehalf
from dragoman.host.kinds import Action
from dragoman.host.models.scripted import Call, ScriptedModel, Turn
from dragoman.model.content import ImageContent, ResourceContents, TextContent
from dragoman.model.prompts import GetPromptResult, PromptMessage
from dragoman.model.resources import ReadResourceResult
from dragoman.model.tools import CallToolResult
from tests.support import run

SECRET = "the balance is 4711"


def result(text: str, **more: Any) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], **more)


# --- what is heard --------------------------------------------------------------------------------


def test_the_words_of_each_server_are_kept_in_order() -> None:
    heard = Heard()
    heard.add("a", result("one"))
    heard.add("b", result("two"))
    heard.add("a", result("three"))
    assert heard.words() == {"b": "two", "a": "one\n\nthree"}
    heard.clear()
    assert heard.words() == {}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (CallToolResult(content=[], structured_content={"a": 1}), '{"a":1}'),
        (
            GetPromptResult(
                messages=[PromptMessage(role="user", content=TextContent(text="Say it."))]
            ),
            "Say it.",
        ),
        (
            ReadResourceResult(
                contents=[
                    ResourceContents(uri="a://1", text="one"),
                    ResourceContents(uri="a://2", blob="AAAA"),
                ]
            ),
            "one",
        ),
        (result("seen\U000e0041\U000e0042 only"), "seen only"),
    ],
)
def test_an_answer_is_kept_as_its_words(answer: Any, said: str) -> None:
    heard = Heard()
    heard.add("a", answer)
    assert heard.words() == {"a": said}


def test_an_answer_without_words_is_not_kept() -> None:
    heard = Heard()
    heard.add("a", CallToolResult(content=[]))
    heard.add("a", ReadResourceResult(contents=[]))
    assert heard.words() == {}
    heard.add("a", CallToolResult(content=[ImageContent(data="AAAA", mime_type="image/png")]))
    assert "AAAA" not in str(heard.words())


def test_the_newest_words_stay_within_the_bound() -> None:
    heard = Heard()
    for number in range(100):
        heard.add("a", result(f"{number} " * 500))
    heard.add("b", result("x" * (MAX_WORDS + 1) + "end"))
    words = heard.words()
    assert len(words["a"]) <= MAX_WORDS + 200
    assert words["a"].endswith("99 ".strip())
    assert len(words["b"]) == MAX_WORDS
    assert words["b"].endswith("end")
    for number in range(MAX_SERVERS + 5):
        heard.add(f"s{number}", result("hello"))
    assert len(heard.words()) == MAX_SERVERS


def test_whose_request_it_is_has_to_be_certain() -> None:
    one, other = Heard(), Heard()
    one.add("bank", result("one"))
    other.add("bank", result("two"))
    on_behalf = OnBehalf()
    assert on_behalf.words("evil") == {}
    on_behalf.begin("evil", one)
    on_behalf.begin("evil", one)
    on_behalf.begin("bank", other)
    assert on_behalf.words("evil") == {"bank": "one"}
    # A request of another conversation, or one of nobody's, and it could be theirs as well.
    for else_ in (other, None):
        on_behalf.begin("evil", else_)
        assert on_behalf.words("evil") == {}
        on_behalf.end("evil", else_)
    on_behalf.end("evil", one)
    assert on_behalf.words("evil") == {"bank": "one"}
    on_behalf.end("evil", one)
    assert on_behalf.words("evil") == {}


# --- in a conversation ----------------------------------------------------------------------------


def bank() -> Server:
    made = Server("bank")

    @made.tool
    def read() -> str:
        return SECRET

    return made


def curious(wanted: Literal["none", "thisServer", "allServers"] = "allServers") -> Server:
    made = Server("curious")

    @made.tool
    async def ask(ctx: Context) -> str:
        return (await ctx.sample("What is there?", max_tokens=50, include_context=wanted)).text

    return made


class Person:
    """Agrees to all; what of the context they bring in is `brings`."""

    def __init__(self, brings: str = "") -> None:
        self.brings = brings
        self.prompts: list[ApprovalRequest] = []

    async def __call__(self, request: ApprovalRequest) -> Any:
        if request.action is Action.TOOL_EXPOSE:
            return Scope.ALWAYS
        if request.action is Action.SAMPLING_REQUEST:
            self.prompts.append(request)
            if self.brings and len(self.prompts) == 1:
                value = json.loads(request.view.payload) | {"includeContext": self.brings}
                return request.allow(payload=json.dumps(value).encode())
        return True


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Host]:
    servers = {"bank": bank(), "curious": curious()}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {name: {"command": name} for name in servers}}))
    # The servers are in this process: the transport is the memory's.
    monkeypatch.setattr(
        HostEntry, "connector", lambda self, *args, **more: connector_for(servers[self.name])
    )

    def load(person: Any, model: ScriptedModel, **options: Any) -> Host:
        return Host.load(
            config,
            approver=person,
            models=[model],
            state=tmp_path / "state",
            environ={},
            **options,
        )

    return load


async def say(conversation: Conversation, text: str) -> None:
    async for _ in conversation.send(text):
        pass


def calling(tool: str) -> Turn:
    return Turn(calls=(Call(tool=tool),))


def prompts_of(model: ScriptedModel) -> list[str]:
    """What the model was given for the server, not for the chat."""
    return [
        str(request.messages)
        for request in model.requests
        if "What is there?" in str(request.messages[-1])
    ]


def test_words_of_the_conversation_come_in_by_the_persons_word(host: Any) -> None:
    person = Person("allServers")
    model = ScriptedModel([calling("bank__read"), calling("curious__ask"), "I see.", "Done."])

    async def main() -> None:
        async with host(person, model) as opened:
            await say(opened.conversation(), "Look.")

    run(main())
    first, second = person.prompts
    assert SECRET not in first.view.payload.decode()
    assert SECRET in second.view.payload.decode()
    (given,) = prompts_of(model)
    assert SECRET in given


@pytest.mark.parametrize("rules", [[], ["allow flow(curious -> server:curious)"]])
def test_nothing_comes_in_by_itself(host: Any, rules: list[str]) -> None:
    person = Person()
    model = ScriptedModel([calling("bank__read"), calling("curious__ask"), "I see.", "Done."])

    async def main() -> None:
        async with host(person, model, rules=rules) as opened:
            await say(opened.conversation(), "Look.")

    run(main())
    (given,) = prompts_of(model)
    assert SECRET not in given


def test_a_rule_brings_them_in(host: Any) -> None:
    person = Person()
    model = ScriptedModel([calling("bank__read"), calling("curious__ask"), "I see.", "Done."])

    async def main() -> None:
        rules = ["allow flow(bank -> server:curious)"]
        async with host(person, model, rules=rules) as opened:
            await say(opened.conversation(), "Look.")

    run(main())
    (given,) = prompts_of(model)
    assert SECRET in given
    (seen,) = person.prompts
    assert SECRET in seen.view.payload.decode()


def test_what_was_always_allowed_for_calls_brings_in_no_words_unseen(host: Any) -> None:
    seen: list[tuple[str, bool]] = []

    async def person(request: ApprovalRequest) -> Any:
        if request.action in (Action.SAMPLING_REQUEST, Action.SAMPLING_RELEASE):
            seen.append((request.action.value, SECRET in request.view.payload.decode()))
        return Scope.ALWAYS if Scope.ALWAYS in request.scopes else True

    answer = f"It is {SECRET}"
    script: list[Any] = [calling("curious__ask"), "I see.", "Done."]
    script += [calling("bank__read"), calling("curious__ask"), answer, "Done."]
    script += [calling("curious__ask"), answer, "Done."]
    model = ScriptedModel(script)

    async def main() -> None:
        async with host(person, model) as opened:
            conversation = opened.conversation()
            for text in ("Ask.", "Look.", "Ask again."):
                await say(conversation, text)
            flows = [one for one in opened.grants.list() if one.action is Action.FLOW]
            assert "bank -> server:curious" in [one.object for one in flows]

    run(main())
    without, *later = prompts_of(model)
    assert SECRET not in without
    assert all(SECRET in one for one in later)
    assert seen == [
        ("sampling.request", False),
        ("sampling.release", False),
        *[("sampling.request", True), ("sampling.release", True)] * len(later),
    ]


@pytest.mark.parametrize("what", ["a call of nobody's", "another conversation", "after a clear"])
def test_only_the_conversation_that_the_call_is_for_has_words(host: Any, what: str) -> None:
    person = Person("allServers")
    script: list[Any] = [calling("bank__read"), "Read."]
    script += (
        ["I see."] if what == "a call of nobody's" else [calling("curious__ask"), "I see.", "Done."]
    )
    model = ScriptedModel(script)

    async def main() -> None:
        async with host(person, model) as opened:
            conversation = opened.conversation()
            await say(conversation, "Read.")
            person.brings = ""
            if what == "a call of nobody's":
                await opened.call_tool("curious", "ask", {})
            elif what == "another conversation":
                await say(opened.conversation(), "Ask.")
            else:
                conversation.clear()
                await say(conversation, "Ask.")

    run(main())
    assert len(person.prompts) == 1
    assert "to give it context" not in dict(person.prompts[0].view.facts)
    (given,) = prompts_of(model)
    assert SECRET not in given


@pytest.mark.parametrize(
    ("rules", "is_told"), [([], True), (["deny flow(* -> server:curious)"], False)]
)
def test_a_server_is_told_of_context_where_it_could_be_granted(
    host: Any, rules: list[str], is_told: bool
) -> None:
    model = ScriptedModel(["I see."])

    async def main() -> None:
        async with host(Person(), model, rules=rules) as opened:
            await opened.ready()
            client = opened._connections["curious"].client
            assert (client._capabilities.sampling.context is not None) is is_told

    run(main())
