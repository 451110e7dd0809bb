"""What a chat suggests: asked for after a pause, once, and never with anything hidden."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.cli.suggestions import KEEP_S, PATIENCE_S, PAUSE_S, Suggestions
from dragoman.errors import LinkClosed
from dragoman.model.completion import (
    Completion,
    PromptReference,
    ResourceTemplateReference,
)
from dragoman.model.prompts import Prompt, PromptArgument
from dragoman.model.resources import Resource, ResourceTemplate
from tests.instant import run_instantly
from tests.requirements.duties import duty


class Source:
    """A host's answers, counted."""

    def __init__(self, values: Sequence[str] = ("Oslo", "Paris")) -> None:
        self.values = values
        self.asked: list[Any] = []
        self.is_slow = False
        self.is_broken = False

    async def list_prompts(self, *, wait_s: float = 0) -> list[tuple[str, Prompt]]:
        self.asked.append("prompts")
        arguments = [PromptArgument(name="city", required=True), PromptArgument(name="days")]
        return [
            ("weather", Prompt(name="plan", description="Plan a trip", arguments=arguments)),
            ("web", Prompt(name="code review", arguments=arguments)),
            ("web", Prompt(name="b\u202ed")),
        ]

    async def list_resources(self, server: str) -> list[Resource]:
        self.asked.append(("resources", server))
        return [
            Resource(uri="weather://cities", name="cities"),
            Resource(uri="weather://b\u202ed", name="bad"),
            Resource(uri="weather://my towns", name="towns"),
        ]

    async def list_resource_templates(
        self, *, wait_s: float = 0
    ) -> list[tuple[str, ResourceTemplate]]:
        self.asked.append("templates")
        return [("weather", ResourceTemplate(uri_template="weather://{city}/now", name="now"))]

    async def complete(
        self,
        server: str,
        ref: PromptReference | ResourceTemplateReference | str,
        argument: str,
        value: str = "",
        *,
        context: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        is_own_act: bool = False,
    ) -> Completion:
        assert is_own_act
        self.asked.append((server, argument, value, context))
        if self.is_broken:
            raise LinkClosed("gone")
        if self.is_slow:
            await asyncio.sleep(60)
        return Completion(
            values=[one for one in self.values if one.lower().startswith(value.lower())]
        )


def texts(source: Source, *typed: str) -> list[list[str]]:
    """What is suggested for each text, one after the other."""

    async def work() -> list[list[str]]:
        suggestions = Suggestions(source, lambda: ["weather", "web"])
        found = [[one.text for one in await suggestions.for_text(text)] for text in typed]
        await suggestions.aclose()
        return found

    return run_instantly(work())


def test_commands_and_prompts_are_suggested_at_a_slash() -> None:
    (found,) = texts(Source(), "/")
    assert found[-2:] == ["/weather:plan", "/web:<code review>"]
    assert "/quit" in found
    assert texts(Source(), "/weather:p") == [["/weather:plan"]]


def test_a_text_without_signs_has_no_suggestions_and_asks_nobody() -> None:
    source = Source()
    assert texts(source, "hello", "me@host.example", "a / b") == [[], [], []]
    assert source.asked == []


def test_the_arguments_of_a_prompt_are_suggested_by_name_and_value() -> None:
    source = Source()
    found = texts(
        source,
        "/weather:plan ",
        "/weather:plan d",
        "/weather:plan city=o",
        "/weather:plan city=Oslo ",
        "/weather:plan city=Oslo days=",
    )
    assert found[:4] == [["city=", "days="], ["days="], ["city=Oslo"], ["days="]]
    assert source.asked[-1] == ("weather", "days", "", {"city": "Oslo"})


def test_values_with_blanks_are_quoted() -> None:
    assert texts(Source(["New York"]), "/weather:plan city=n") == [['city="New York"']]


def test_what_has_blanks_in_its_name_is_suggested_in_the_brackets_it_needs() -> None:
    source = Source()
    found = texts(
        source,
        "/web:<code r",
        "/web:<code review> ci",
        "(see @weather:<weather://m",
        '/weather:plan city="New York" da',
        '/weather:plan city="Os',
    )
    assert found == [
        ["/web:<code review>"],
        ["city="],
        ["<weather://my towns>"],
        ["days="],
        ["city=Oslo"],
    ]


def test_servers_and_their_resources_are_suggested_after_an_at() -> None:
    found = texts(Source(), "see @w", "see @weather:", "see @weather:weather://o", "@nobody:")
    assert found[0] == ["@weather:", "@web:"]
    assert found[1] == ["weather://cities", "<weather://my towns>", "weather://"]
    assert found[2] == ["weather://Oslo/now"]
    assert found[3] == []


def test_what_hides_something_is_not_suggested() -> None:
    source = Source(["good", "b\u202ed", "a\x1b[2J", ""])
    assert texts(source, "/weather:plan city=") == [["city=good"]]


@duty("completion.debounced")
def test_rapid_typing_asks_a_server_once_for_the_last_text() -> None:
    source = Source()

    async def work() -> list[list[str]]:
        suggestions = Suggestions(source, lambda: ["weather"])
        await suggestions.for_text("/weather:plan ")
        source.asked.clear()
        asking = []
        for end in range(1, 6):
            text = f"/weather:plan city={'paris'[:end]}"
            asking.append(asyncio.create_task(suggestions.for_text(text)))
            await asyncio.sleep(PAUSE_S / 3)
        return [[one.text for one in found] for found in await asyncio.gather(*asking)]

    assert run_instantly(work()) == [[], [], [], [], ["city=Paris"]]
    assert [one[2] for one in source.asked] == ["paris"]


@duty("completion.cached")
def test_the_same_text_is_answered_from_memory_for_a_while() -> None:
    source = Source()

    async def work() -> int:
        suggestions = Suggestions(source, lambda: ["weather"])
        for _ in range(3):
            assert await suggestions.for_text("/weather:plan city=o")
        before = len(source.asked)
        await asyncio.sleep(KEEP_S)
        assert await suggestions.for_text("/weather:plan city=o")
        return before

    assert run_instantly(work()) == 2
    assert len(source.asked) == 4


def test_a_slow_or_broken_server_makes_nobody_wait_and_no_noise() -> None:
    source = Source()

    async def work() -> float:
        loop = asyncio.get_running_loop()
        suggestions = Suggestions(source, lambda: ["weather"])
        source.is_slow = True
        before = loop.time()
        assert await suggestions.for_text("/weather:plan city=o") == []
        took = loop.time() - before
        source.is_slow, source.is_broken = False, True
        assert await suggestions.for_text("/weather:plan city=p") == []
        await suggestions.aclose()
        return took

    assert run_instantly(work()) <= PAUSE_S + PATIENCE_S + 0.01
