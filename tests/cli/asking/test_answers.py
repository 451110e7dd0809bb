"""What a person can answer, whatever the terminal: the same questions on a surface made of notes."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.cli.approvals import TerminalApprover, choices_for
from dragoman.cli.asking import Choice
from dragoman.cli.question import GUTTER, Line, Question, question_of
from dragoman.host.asks.common import FACT_FORM, FACT_MESSAGE
from dragoman.host.broker import Broker
from dragoman.host.kinds import Action, ApprovalRequest, Decision, Effect, Scope
from tests.cli.asking.requests import ADDRESS, request, visit
from tests.cli.asking.screen import Screen, asked
from tests.instant import run_instantly
from tests.requirements.duties import duty


class Noted:
    """A surface whose person follows a script, and which notes what was shown."""

    def __init__(self, *keys: str, lines: Sequence[str] = ()) -> None:
        self.keys = list(keys)
        self.lines = list(lines)
        self.shown: list[Question] = []
        self.offered: list[tuple[Choice, ...]] = []
        self.said: list[str] = []
        self.prompts: list[str] = []
        self.about: list[str] = []
        self.edits: list[str] = []
        self.edited: list[str] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        yield

    async def choose(
        self, question: Question, choices: Sequence[Choice], status: Callable[[], str]
    ) -> str:
        self.shown.append(question)
        self.offered.append(tuple(choices))
        return self.keys.pop(0)

    async def line(
        self, question: Question, prompt: str, fault: str = "", about: Sequence[Line] = ()
    ) -> str | None:
        self.prompts.append(prompt)
        self.about.append("\n".join(line.prefix + line.text for line in about))
        return self.lines.pop(0)

    async def edit(self, question: Question, text: str) -> str | None:
        self.edited.append(text)
        return self.edits.pop(0) if self.edits else None

    def refresh(self) -> None:
        pass

    def say(self, text: str, style: str = "") -> None:
        self.said.append(text)


def form() -> ApprovalRequest:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    return request(
        {},
        action=Action.ELICIT_FORM,
        facts=[(FACT_MESSAGE, "Who are you, and for the parcel?"), (FACT_FORM, json.dumps(schema))],
        scopes=(Scope.ONCE,),
        editable=("",),
    )


def decided(asked: ApprovalRequest, surface: Noted, opened: list[str] | None = None) -> Decision:
    approver = TerminalApprover(surface, open_url=(opened if opened is not None else []).append)
    return asyncio.run(approver.decide(asked))


@duty("elicitation.url.consent", "elicitation.url.shown", "elicitation.url.full")
@pytest.mark.parametrize(
    ("key", "effect", "opens"),
    [
        ("o", Effect.ALLOW, True),
        ("p", Effect.ALLOW, False),
        ("n", Effect.DENY, False),
        ("v", Effect.DENY, False),
        ("c", Effect.CANCEL, False),
    ],
)
def test_an_address_is_shown_whole_and_opened_only_by_the_word_that_says_so(
    key: str, effect: Effect, opens: bool
) -> None:
    opened: list[str] = []
    surface = Noted(key)
    assert decided(visit(), surface, opened).effect is effect
    assert opened == ([ADDRESS] if opens else [])
    (shown,) = surface.shown
    assert ADDRESS in str(shown)
    (yes,) = [one for one in surface.offered[0] if one.key == "o"]
    assert yes.is_yes


@duty("elicitation.url.domain")
def test_the_host_of_an_address_stands_by_itself_and_is_told_apart() -> None:
    question = question_of(visit())
    (host,) = [span.text for line in question.lines for span in line.spans if span.style == "host"]
    assert host == "login.example.com"


@duty("elicitation.url.not-clickable", "elicitation.url.full", "elicitation.url.domain")
@pytest.mark.parametrize("mode", ["full", "plain"])
def test_on_a_terminal_an_address_is_letters_and_its_host_stands_out(mode: str) -> None:
    if sys.platform == "win32":
        pytest.skip("needs a POSIX terminal")
    with Screen(asked("address", mode), columns=100, rows=50) as screen:
        text = screen.until("open it in a browser")
        screen.type("n" if mode == "full" else "n\n")
        assert screen.finish() == 0
    assert ADDRESS in "".join(row[4:] for row in text.split("\n"))
    # OSC 8 is how a program makes text clickable: nothing of ours writes one, and a server's own
    # is shown as letters.
    assert "\x1b]8" not in screen.seen
    assert "\\u001b]8;;https://other.example" in text
    # Bold, not dim, and in the colour of nothing else but warnings.
    found = re.search(r"\x1b\[([0-9;]*)mlogin\.example\.com\x1b\[", screen.seen)
    assert found
    assert {"1", "33"} <= set(found[1].split(";"))
    assert "2" not in found[1].split(";")


@duty("elicitation.url.apart", "elicitation.url.consent")
def test_an_address_is_opened_in_a_program_of_its_own_that_gets_nothing_else(
    tmp_path: Path,
) -> None:
    if sys.platform == "win32":
        pytest.skip("needs a POSIX terminal")
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/opened\n")
    browser.chmod(0o700)
    with Screen(asked("browser", "plain"), columns=100, rows=50, BROWSER=f"{browser} %s") as screen:
        screen.until("open it in a browser")
        assert not (tmp_path / "opened").exists()
        screen.type("o\n")
        assert screen.finish() == 0
    assert (tmp_path / "opened").read_text() == ADDRESS + "\n"
    # What is answered holds that the person agreed, and nothing of the page.
    (decision,) = screen.decisions()
    assert decision["effect"] == "allow"
    assert "payload" not in decision


# --- forms ----------------------------------------------------------------------------------------


@duty("elicitation.ui.review", "elicitation.approval", "elicitation.ui.purpose")
def test_a_form_is_shown_filled_in_and_may_be_changed_before_it_is_sent() -> None:
    surface = Noted("f", "e", "o", lines=["Ann", "Anna"])
    decision = decided(form(), surface)
    assert decision.payload == b'{"name":"Anna"}'
    first, review, again = map(str, surface.shown)
    assert "Who are you, and for the parcel?" in first
    assert '"name": "Ann"' in review
    assert '"name": "Anna"' in again
    # Nothing is sent from where it has not been seen.
    assert [one.word for one in surface.offered[0] if one.is_yes] == ["fill in"]


@duty("elicitation.ui.decline", "elicitation.ui.server")
@pytest.mark.parametrize(
    ("keys", "effect", "scope"),
    [
        (["n"], Effect.DENY, Scope.ONCE),
        (["v"], Effect.DENY, Scope.ALWAYS),
        (["c"], Effect.CANCEL, Scope.ONCE),
        (["f", "n"], Effect.DENY, Scope.ONCE),
        (["f", "c"], Effect.CANCEL, Scope.ONCE),
    ],
)
def test_a_form_can_be_declined_and_cancelled_at_every_step(
    keys: list[str], effect: Effect, scope: Scope
) -> None:
    surface = Noted(*keys, lines=["Ann"])
    decision = decided(form(), surface)
    assert (decision.effect, decision.scope, decision.payload) == (effect, scope, None)
    assert all(question.title.endswith("server fs") for question in surface.shown)
    for offered in surface.offered:
        assert {"n", "c"} <= {one.key for one in offered}


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        (["Ann", "", "", ""], {"name": "Ann", "size": "small", "count": 3}),
        (["Ann", "-", "", "-"], {"name": "Ann", "count": 3}),
        (["-", "-", "-", ""], {"name": "-", "note": "-", "count": 3}),
        (["Ann", "", "", "", "", "-", "-", ""], {"name": "Ann", "note": "-", "count": 3}),
        (["Ann", "-", "x", "7", "", "-", "-", ""], {"name": "Ann", "size": "-", "count": 7}),
    ],
    ids=["as it is", "taken out", "a text of one dash", "taken out later", "a dash after all"],
)
def test_what_a_form_holds_already_is_taken_out_with_a_dash(
    typed: list[str], sent: dict[str, Any]
) -> None:
    keys = ["f", "e", "o"] if len(typed) > 4 else ["f", "o"]
    surface = Noted(*keys, lines=typed)
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "size": {"type": "string", "default": "small"},
            "note": {"type": "string"},
            "count": {"type": "integer", "default": 3},
        },
        "required": ["name", "count"],
    }
    asked = request(
        {"size": "small", "count": 3},
        action=Action.ELICIT_FORM,
        facts=[(FACT_FORM, json.dumps(schema))],
        scopes=(Scope.ONCE,),
        editable=("",),
    )
    if typed == ["Ann", "-", "", "-"]:
        # What is required is not taken out: no number, so it is asked for once more.
        surface.lines.append("3")
    decision = decided(asked, surface)
    assert decision.payload is not None
    assert json.loads(decision.payload) == sent
    offered = [one for one in surface.prompts if one.endswith("; - for nothing)")]
    assert offered[0] == 'size (text; "small" if left empty; - for nothing)'


def test_the_title_and_the_description_of_a_field_stand_at_its_prompt() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "title": "Your name", "description": "As on\u202e\nit."},
            "size": {"type": "string", "description": "x" * 1_000},
            "age": {"type": "integer"},
        },
    }
    asked = request(
        {},
        action=Action.ELICIT_FORM,
        facts=[(FACT_FORM, json.dumps(schema))],
        scopes=(Scope.ONCE,),
        editable=("",),
    )
    surface = Noted("f", "o", lines=["Ann", "", ""])
    decided(asked, surface)
    name, size, age = surface.about
    title, description = name.split("\n")
    # A server's words, so behind the gutter, and without what nobody sees.
    assert title == f"{GUTTER}Your name"
    assert description.startswith(f"{GUTTER}As on")
    assert "\u202e" not in description
    assert len(size) < 400
    assert age == ""


@pytest.mark.parametrize(
    ("key", "second"), [("k", '{"path": '), ("c", "{\n")], ids=["kept", "dropped"]
)
def test_what_was_typed_and_cannot_be_sent_can_be_kept_for_later(key: str, second: str) -> None:
    surface = Noted("e", key, "e", "o")
    surface.edits = ['{"path": ', '{"path": "/b"}']
    decision = decided(request({"path": "/a"}, editable=("",)), surface)
    assert surface.edited[1].startswith(second)
    assert decision.payload == b'{"path":"/b"}'
    back = str(surface.shown[2])
    # Whatever is kept, the question shows what a yes would send.
    assert '"path": "/a"' in back
    assert ("kept for the next edit" in back) is (key == "k")


# --- several that ask the same --------------------------------------------------------------------


class Held(Noted):
    """A surface that draws its status, again when it is told to, and waits for a key."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[str] = []
        self.key: asyncio.Queue[str] = asyncio.Queue()
        self.draw: Callable[[], object] = str

    async def choose(
        self, question: Question, choices: Sequence[Choice], status: Callable[[], str]
    ) -> str:
        self.shown.append(question)
        self.draw = lambda: self.drawn.append(status())
        self.draw()
        return await self.key.get()

    def refresh(self) -> None:
        self.draw()


@pytest.mark.parametrize(
    ("seen_s", "covered"), [(0.3, 3), (0.5, 5)], ids=["too short to be read", "read"]
)
def test_a_yes_is_for_those_whose_number_was_on_the_screen(seen_s: float, covered: int) -> None:
    surface = Held()

    async def scenario() -> list[Decision]:
        broker = Broker([TerminalApprover(surface)])
        asked = request({})
        asked = replace(asked, dedupe_key=asked.view_digest)
        asking = [asyncio.ensure_future(broker.ask(replace(asked, id=f"q{n}"))) for n in range(3)]
        await asyncio.sleep(5.0)
        asking += [asyncio.ensure_future(broker.ask(replace(asked, id=f"q{n}"))) for n in (3, 4)]
        await asyncio.sleep(seen_s)
        surface.key.put_nowait("o")
        await asyncio.sleep(5.0)
        assert [one.done() for one in asking] == [True] * covered + [False] * (5 - covered)
        surface.key.put_nowait("o")
        return list(await asyncio.gather(*asking))

    decisions = run_instantly(scenario())
    drawn = [one.partition(" · ")[0] for one in surface.drawn]
    assert drawn[0] == "3 identical calls wait for this answer"
    assert drawn[2] == "5 identical calls wait for this answer"
    words = "allowed once, all {} identical calls: tool.call(fs/write_file)"
    if covered == 5:
        assert len(surface.shown) == 1
        assert surface.said == [words.format(5)]
        assert {one.approval for one in decisions} == {"q0"}
    else:
        assert drawn[3:] == ["2 identical calls wait for this answer"]
        assert surface.said == [words.format(3), words.format(2)]
        assert [one.approval == "q0" for one in decisions] == [True] * 3 + [False] * 2
        first, second = map(str, surface.shown)
        assert "You allowed exactly this before, for once; what waits now has come since." in second
        assert second.count("\n") == first.count("\n") + 1


def test_one_that_asks_alone_is_not_counted() -> None:
    surface = Held()

    async def scenario() -> None:
        asking = asyncio.ensure_future(Broker([TerminalApprover(surface)]).ask(request({})))
        await asyncio.sleep(1.0)
        surface.key.put_nowait("o")
        await asking

    run_instantly(scenario())
    assert surface.drawn == ["5:00 left"]
    assert surface.said == ["allowed once: tool.call(fs/write_file)"]


# --- the rest -------------------------------------------------------------------------------------


@duty("tools.human", "sampling.human", "trust.ui")
@pytest.mark.parametrize("action", list(Action))
def test_every_question_can_be_answered_with_no_without_reading_on(action: Action) -> None:
    choices = {one.key: one for one in choices_for(request({}, action=action))}
    for key in ("n", "c"):
        assert not choices[key].is_yes
    assert any(one.is_yes for one in choices.values())
