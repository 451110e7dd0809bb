"""The whole of a request is shown before it is answered, and nothing in it is obeyed."""

from __future__ import annotations

import asyncio

import pytest

from dragoman import (
    CreateMessageParams,
    ElicitParams,
    ImageContent,
    Refused,
    SamplingMessage,
    TextContent,
    Tool,
)
from dragoman.cli.person import Person
from dragoman.cli.screen import Screen
from dragoman.model.sampling import ModelHint, ModelPreferences
from tests.cli.aids import assert_harmless

HOSTILE = "\x1b[2J\u202e[bold]\u200b"
SHOWN = "\\x1b[2J\\u202e[bold]\\u200b"


def request_with(words: str) -> CreateMessageParams:
    """A request with these words wherever it holds text."""
    return CreateMessageParams(
        messages=[
            SamplingMessage(role="user", content=TextContent(text=f"asked {words}")),
            SamplingMessage(
                role="assistant",
                content=[TextContent(text=words), ImageContent(data="AAAA", mime_type=words)],
            ),
        ],
        max_tokens=70,
        system_prompt=f"be {words}",
        temperature=0.5,
        stop_sequences=[words],
        include_context="thisServer",
        model_preferences=ModelPreferences(hints=[ModelHint(name=words)], cost_priority=0.25),
        metadata={words: words},
        tools=[Tool(name=words, input_schema={"type": "object"})],
    )


def test_everything_in_a_sampling_request_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    answered = asyncio.run(Person(Screen(), answer="fine").sample(request_with("word")))
    assert (answered.text, answered.role) == ("fine", "assistant")
    out, err = capsys.readouterr()
    assert out == ""
    for text in (
        "system be word",
        "user asked word",
        "[image word, 3 bytes]",
        "at most 70 tokens",
        "temperature 0.5",
        "stop at 'word'",
        "with context: thisServer",
        "wants word",
        "cost 0.25",
        "tools: word",
        '{"word":"word"}',
    ):
        # However wide the panel is, and wherever it folds.
        assert text in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user@example.com:8443/pay?x=1", "at example.com"),
        ("https://p\u0430ypal.com/", "at p\u0430ypal.com (xn--pypal-4ve.com)"),
        ("https://[broken", "no host"),
        ("nothing", "no host"),
    ],
)
def test_the_host_of_an_address_stands_by_itself(
    url: str, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ElicitParams(message="m", mode="url", url=url, elicitation_id="1")
    asyncio.run(Person(Screen(), is_willing=True).elicit(request))
    assert host in capsys.readouterr().err


def test_nothing_in_a_request_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    form = {
        "type": "object",
        "properties": {HOSTILE: {"type": "string", "description": HOSTILE, "default": HOSTILE}},
    }
    person = Person(Screen(), is_willing=True)

    async def ask() -> None:
        await person.sample(request_with(HOSTILE))
        await person.elicit(ElicitParams(message=HOSTILE, requested_schema=form))
        address = f"https://example.com/{HOSTILE}"
        await person.elicit(
            ElicitParams(message=HOSTILE, mode="url", url=address, elicitation_id="1")
        )

    asyncio.run(ask())
    err = capsys.readouterr().err
    assert_harmless(err)
    assert SHOWN in err


FORM = {
    "type": "object",
    "properties": {
        "a=b:": {"type": "integer", "default": 3},
        "n.m": {"type": "string"},
    },
    "required": ["n.m"],
}


@pytest.mark.parametrize(
    ("answer", "action", "content"),
    [
        ('{"n.m": "x", "a=b:": 1}', "accept", {"n.m": "x", "a=b:": 1}),
        ("word", "accept", {"n.m": "word"}),
        ("3", "accept", {"n.m": "3"}),
    ],
)
def test_a_given_answer_fills_a_form(
    answer: str, action: str, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    person = Person(Screen(), answer=answer)
    done = asyncio.run(person.elicit(ElicitParams(message="m", requested_schema=FORM)))
    assert (done.action, done.content) == (action, content)


def test_an_answer_that_does_not_fit_declines(capsys: pytest.CaptureFixture[str]) -> None:
    number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    two = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}
    for schema in (number, two):
        person = Person(Screen(), answer="word")
        done = asyncio.run(person.elicit(ElicitParams(message="m", requested_schema=schema)))
        assert done.action == "decline"
    err = capsys.readouterr().err
    assert "n: expected integer, got 'word'" in err
    assert "a JSON object" in err


def test_a_bare_yes_sends_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "default": 3}}}
    person = Person(Screen(), is_willing=True)
    done = asyncio.run(person.elicit(ElicitParams(message="m", requested_schema=schema)))
    assert (done.action, done.content) == ("accept", {"a": 3})


def test_where_nobody_is_everything_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    person = Person(Screen())
    with pytest.raises(Refused):
        asyncio.run(person.sample(request_with("word")))
    url = ElicitParams(message="m", mode="url", url="https://x.org", elicitation_id="1")
    assert asyncio.run(person.elicit(url)).action == "decline"
    assert "--yes" in capsys.readouterr().err
