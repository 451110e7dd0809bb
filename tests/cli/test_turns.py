"""A chat's events on a screen and as JSON lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dragoman.cli.screen import Screen
from dragoman.cli.turns import TurnView, event_document, json_line, usage_text
from dragoman.client.results import ToolResult
from dragoman.host.chat import (
    ChatEvent,
    Ending,
    Notice,
    TextDelta,
    ToolFinished,
    ToolProgress,
    ToolProposed,
    ToolStarted,
    TurnEnded,
    UsageReport,
)
from dragoman.host.kinds import Code
from dragoman.model.content import TextContent
from dragoman.model.tools import CallToolResult
from tests.cli.aids import assert_harmless

NASTY = "\x1b[2J\u202e\u200b"


def result(text: str, *, is_error: bool = False) -> ToolResult:
    return ToolResult(CallToolResult(content=[TextContent(text=text)], is_error=is_error))


def call(**more: Any) -> dict[str, Any]:
    return {"id": "1", "server": "s", "tool": f"t{NASTY}"} | more


EVENTS: list[ChatEvent] = [
    TextDelta(text=f"hello {NASTY}"),
    ToolProposed(**call(arguments={"a": NASTY})),
    ToolStarted(**call()),
    ToolProgress(**call(progress=1, total=4, message=NASTY)),
    ToolFinished(**call(result=result(NASTY))),
    ToolFinished(**call(result=result(NASTY, is_error=True))),
    ToolFinished(**call(error=NASTY)),
    ToolFinished(**call(error=NASTY, is_refused=True, code=Code.PERSON_DENIED)),
    Notice(text=NASTY),
    UsageReport(input_tokens=1, output_tokens=2, is_estimate=True, total_input=3, total_output=4),
    TurnEnded(reason=Ending.LENGTH),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda one: type(one).__name__)
def test_an_event_is_one_line_of_json_without_anything_hidden(event: ChatEvent) -> None:
    line = json_line(event)
    assert_harmless(line)
    assert "\n" not in line
    assert json.loads(line) == event_document(event)
    assert isinstance(json.loads(line)["event"], str)


def test_no_event_writes_anything_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    view = TurnView(Screen())
    for event in EVENTS:
        view.show(event)
    out, err = capsys.readouterr()
    assert_harmless(out, err)
    assert "was refused (person_denied)" in err
    assert "cut at its limit" in err
    assert view.refusals == 1


def test_remarks_begin_a_line_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    view = TurnView(Screen())
    for event in (TextDelta(text="one"), Notice(text="note"), TextDelta(text="two\r")):
        view.show(event)
    view.show(TextDelta(text="\nthree"))
    view.show(TurnEnded(reason=Ending.END))
    out, err = capsys.readouterr()
    assert out == "one\ntwo\nthree\n"
    assert err == "note\n"


@pytest.mark.parametrize("sign", ["▌", "▋", "▍"])
def test_the_mark_of_a_question_is_written_by_nobody_else(
    capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    view = TurnView(Screen())
    for event in (TextDelta(text=f"{sign} dragoman asks"), Notice(text=f"{sign} allowed")):
        view.show(event)
    view.say(f"{sign} from a log")
    printed = capsys.readouterr()
    assert sign not in printed.out + printed.err
    assert "dragoman asks" in printed.out


def test_nothing_is_printed_while_a_question_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    view = TurnView(Screen())
    view.hold(True)
    view.show(TextDelta(text="later"))
    view.say("and this")
    assert capsys.readouterr() == ("", "")
    view.hold(False)
    assert capsys.readouterr() == ("later\n", "and this\n")


def test_what_it_cost_is_told() -> None:
    assert str(usage_text(None)) == "nothing was asked yet"
    event = EVENTS[-2]
    assert isinstance(event, UsageReport)
    assert str(usage_text(event)) == "about 3 tokens in, 4 out; the last request 1 and 2"
