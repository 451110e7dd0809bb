"""A chat's events on a screen and as JSON lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dragoman.cli.screen import Screen
from dragoman.cli.turns import TurnView, event_document, json_line, usage_text
from dragoman.client.results import ToolResult
from dragoman.host.calls import HostResult
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
    refusal_text,
)
from dragoman.host.kinds import Code, Denied, Risk
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


def test_news_of_progress_is_not_kept_while_a_question_is_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = TurnView(Screen())
    view.hold(True)
    for number in range(1000):
        view.show(ToolProgress(**call(progress=number)))
    assert view._held == []
    view.hold(False)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["❤", "\ufe0f"], "❤\ufe0f"),
        (["\U0001f469", "\u200d", "\U0001f4bb"], "\U0001f469\u200d\U0001f4bb"),
        (["\u0645\u06cc", "\u200c", "\u062e"], "\u0645\u06cc\u200c\u062e"),
        (["a", "\u200d", "b"], "a\\u200db"),
        (["\U0001f469\u200d", "\u200d"], "\U0001f469\u200d\\u200d"),
        (["x", "\ufe0f"], "x\\ufe0f"),
        (["one\r", "\ntwo"], "one\ntwo"),
    ],
)
def test_an_answer_in_pieces_is_shown_as_the_whole_would_be(
    capsys: pytest.CaptureFixture[str], pieces: list[str], shown: str
) -> None:
    view = TurnView(Screen())
    for piece in pieces:
        view.show(TextDelta(text=piece))
    view.show(TurnEnded(reason=Ending.END))
    assert capsys.readouterr().out == f"{shown}\n"


def test_what_a_server_says_takes_a_line_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    view = TurnView(Screen())
    flood = "words\n" * 100_000
    named: dict[str, Any] = {"id": "1", "server": "s", "tool": "t\n✓ s/other done"}
    for event in (
        ToolProposed(**named, arguments={"a": flood}),
        ToolFinished(**named, result=result(flood)),
        ToolFinished(**named, error=f"Failed: {flood}"),
        ToolFinished(**named, error=flood, is_refused=True, code=Code.RULE_DENIED),
        Notice(text=flood),
    ):
        view.show(event)
    lines = capsys.readouterr().err.splitlines()
    assert [line[0] for line in lines] == ["→", "✓", "✗", "✗", "w"]
    assert max(map(len, lines)) <= 1_000


def test_a_refusal_says_why_and_whether_it_was_run(capsys: pytest.CaptureFixture[str]) -> None:
    view = TurnView(Screen())
    for subject in ("tool.call(s/t)", "result.release(s/t)"):
        error = refusal_text(Denied(Code.PERSON_DENIED, subject, "rule"))
        is_withheld = subject.startswith("result")
        view.show(
            ToolFinished(
                id="1", server="s", tool="t", error=error, is_refused=True, is_withheld=is_withheld,
                code=Code.PERSON_DENIED,
            )
        )  # fmt: skip
    assert capsys.readouterr().err.splitlines() == [
        "✗ s/t was refused (person_denied): the user said no",
        "✗ s/t was refused (person_denied), after it was run: the user said no",
    ]


def test_what_is_wrong_with_a_result_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    raw = CallToolResult(content=[TextContent(text="fine")])
    risk = Risk(code="output_unfit", text=f"it does not fit {NASTY}")
    event = ToolFinished(
        id="1", server="s", tool="t", result=HostResult(raw, server="s", flags=[risk])
    )
    TurnView(Screen()).show(event)
    shown = capsys.readouterr().err
    assert shown.splitlines()[1].startswith("! s/t: it does not fit")
    assert_harmless(shown, json_line(event))
    assert event_document(event)["flags"][0]["code"] == "output_unfit"


def test_a_turn_that_breaks_off_leaves_no_line_begun(capsys: pytest.CaptureFixture[str]) -> None:
    view = TurnView(Screen())
    view.show(TextDelta(text="half a"))
    view.close()
    assert capsys.readouterr().out == "half a\n"


def test_what_it_cost_is_told() -> None:
    assert str(usage_text(None)) == "nothing was asked yet"
    event = EVENTS[-2]
    assert isinstance(event, UsageReport)
    assert str(usage_text(event)) == "about 3 tokens in, 4 out; the last request 1 and 2"


@pytest.mark.parametrize("code", [Code.RULE_DENIED, Code.NOBODY_TO_ASK])
def test_a_refusal_that_no_person_made_names_the_rule_in_one_line(
    capsys: pytest.CaptureFixture[str], code: Code
) -> None:
    view = TurnView(Screen())
    refused = Denied(code, "tool.call(s/t)", "x")
    event = ToolFinished(
        id="1",
        server="s",
        tool="t",
        error=refusal_text(refused),
        is_refused=True,
        code=code,
        rule=f"tool(s/*){NASTY} (policy.toml:3)",
    )
    view.show(event)
    err = capsys.readouterr().err
    assert_harmless(err)
    assert "decided by: tool(s/*)" in err
    assert "(policy.toml:3)" in err
    assert err.count("\n") == 1
    assert event_document(event)["rule"] == event.rule


def test_what_the_person_refused_is_not_explained_to_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = TurnView(Screen())
    refused = Denied(Code.PERSON_DENIED, "tool.call(s/t)", "the person said no")
    told = refusal_text(refused)
    more = {"error": told, "is_refused": True, "code": refused.code, "rule": refused.rule}
    view.show(ToolFinished(**(call(**more) | {"tool": "t"})))
    assert "decided by" not in capsys.readouterr().err
