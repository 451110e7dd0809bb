"""A chat on a real terminal, with a scripted model and a real server."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cli.aids import ODD, ROOT, UNSEEN
from tests.cli.asking.screen import Screen
from tests.cli.asking.test_approvals_terminal import OURS
from tests.cli.hosts.places import START, Place, call, events

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")

FORECAST = call("weather__forecast", city="Oslo", days=1)
LATER = str(ROOT / "tests" / "cli" / "servers" / "later.py")
ASK = ("Will it rain?", "--policy", "allow tool(weather/forecast)", *START)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A user who has reviewed the weather server."""
    place = Place(tmp_path_factory.mktemp("chat"))
    place.pin()
    return place


def at_prompt(text: str) -> bool:
    return text.rstrip().split("\n")[-1].rstrip() == ">"


def talk(place: Place, *words: str, rows: int = 60, **env: str) -> Screen:
    return place.screen("chat", *words, *START, rows=rows, **env)


def leave(screen: Screen) -> None:
    """Drop what was begun, then end; a key typed between two prompts belongs to neither."""
    screen.type("\x03")
    screen.until("to leave")
    screen.until(at_prompt)
    screen.type("\x04")
    assert screen.finish() == 0


def is_told(screen: Screen, word: str, times: int, text: str) -> bool:
    """Whether a word was written so often, and does not only stand there from before."""
    return screen.seen.count(word) >= times


def connected(screen: Screen) -> None:
    """Wait until the server is there."""
    screen.until(at_prompt)
    while "connected" not in screen.text:
        once_more = partial(is_told, screen, "trust", screen.seen.count("trust") + 1)
        screen.type("/servers\r")
        screen.until(once_more)
        screen.until(at_prompt)


@pytest.mark.long
def test_one_question_is_answered_where_rules_allow_the_call(place: Place) -> None:
    model = place.script(FORECAST, {"expect": "rain", "text": "Yes: {last}"})
    done = place.run("chat", *ASK, "--model", model)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Yes: ")
    assert "→ weather/forecast" in done.stderr
    assert "✓ weather/forecast" in done.stderr


def test_one_question_without_a_terminal_is_refused_what_no_rule_allows(place: Place) -> None:
    model = place.script(FORECAST, "I may not look.")
    done = place.run("chat", "Will it rain?", "--model", model, "--json", *START)
    assert done.returncode == 6
    found = events(done.stdout)
    (finished,) = [one for one in found if one["event"] == "tool-finished"]
    assert finished["isRefused"] is True
    assert finished["code"] == "nobody_to_ask"
    assert found[-1] == {"event": "turn-ended", "reason": "end"}


@pytest.mark.long
def test_a_server_that_nobody_approved_is_not_started_and_that_is_told(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    spawns = {"command": sys.executable, "args": ["-c", f"open({str(mark)!r}, 'w')"]}
    place = Place(tmp_path, {"evil": spawns})
    done = place.run("chat", "Hello?", "--model", place.script("Hello."))
    assert done.returncode == 6
    assert "evil is refused" in done.stderr
    assert not mark.exists()


def test_tools_that_nobody_reviewed_are_told_of_and_missed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    done = place.run("chat", "Rain?", "--model", place.script("I cannot look."), *START)
    assert done.returncode == 6
    assert "hidden until reviewed" in done.stderr
    assert done.stderr.count("dragoman host pin weather") == 1


@pytest.mark.long
def test_a_question_may_come_on_stdin(place: Place) -> None:
    done = place.run("chat", "--model", place.script("You said it."), *START, stdin="Hello?\n")
    assert (done.returncode, done.stdout) == (0, "You said it.\n")


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("chat", "Hello?"), "DRAGOMAN_MODEL"),
        (("chat", "Hello?", "--model", "scriptd:x"), "did you mean 'scripted'"),
        (("chat", "Hello?", "--model", "scripted:x", "--policy", "alow tool(x/y)"), "allow"),
        (("chat", "Hello?", "--model", "scripted:x", "--config", "none.json"), "none.json"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    place: Place, words: tuple[str, ...], told: str
) -> None:
    (place.folder / "x").write_text('{"turns": ["Hello."]}')
    done = place.run(*words)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_call_is_approved_and_the_answer_streams_in(place: Place) -> None:
    model = place.script({"text": "Let me look.\n"} | FORECAST, "Rain it is.")
    with talk(place, "--model", model) as screen:
        screen.until(at_prompt)
        screen.type("Will it rain?\r")
        text = screen.until("[o] once")
        assert "Call the tool 'forecast' of the server 'weather'?" in text
        assert '"city": "Oslo"' in text
        assert "model:scripted" in text
        screen.type("o")
        screen.until("Rain it is.")
        text = screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0
    told = [line for line in text.split("\n") if line]
    start = told.index("> Will it rain?")
    assert told[start + 1] == "Let me look."
    assert told[start + 2] == '→ weather/forecast {"city":"Oslo","days":1}'
    assert told[start + 3] == "▌ allowed once: tool.call(weather/forecast)"
    assert told[start + 4].startswith("✓ weather/forecast ")


@pytest.mark.long
def test_an_edited_call_reaches_the_server_as_it_was_edited(place: Place) -> None:
    model = place.script(FORECAST, "It says: {last}")
    with talk(place, "--model", model) as screen:
        screen.until(at_prompt)
        screen.type("Will it rain?\r")
        screen.until("[e] edit")
        screen.type("e")
        screen.until("Ctrl-S when done")
        # To the city, over its letters.
        screen.type("\x1b[B\x05\x1b[D\x1b[D" + "\x7f" * 4 + "Cairo\x13")
        assert '+  "city": "Cairo"' in screen.until("[o] once")
        screen.type("o")
        assert '"city":"Cairo"' in screen.until("It says")
        screen.until(at_prompt)
        screen.type("/quit\r")
        assert screen.finish() == 0


@pytest.mark.long
def test_a_refusal_is_remembered_and_not_asked_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.pin()
    model = place.script(FORECAST, "Then not.", FORECAST, "Still not.")
    with talk(place, "--model", model) as screen:
        screen.until(at_prompt)
        screen.type("Will it rain?\r")
        screen.until("[v] never")
        screen.type("v")
        screen.until("Then not.")
        screen.until(at_prompt)
        screen.type("And now?\r")
        screen.until("Still not.")
        text = screen.until(at_prompt)
        assert text.count("was refused") == 2
        assert "denied_before" in text
        screen.type("\x04")
        assert screen.finish() == 0
    (grant,) = place.document("host", "grants")["grants"]
    assert (grant["effect"], grant["object"], grant["scope"]) == ("deny", "forecast", "always")


@pytest.mark.long
def test_two_calls_at_once_are_asked_one_after_the_other(place: Place) -> None:
    calls = FORECAST["calls"] + call("weather__forecast", city="Paris")["calls"]
    model = place.script({"calls": calls}, "Done.")
    with talk(place, "--model", model) as screen:
        screen.until(at_prompt)
        screen.type("Both?\r")
        assert "1 more waiting" in screen.until("[o] once")
        screen.type("n")
        screen.until(lambda text: '"Paris"' in text and "[o] once" in text)
        screen.type("o")
        screen.until("Done.")
        text = screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0
    assert text.count("was refused (person_denied)") == 1
    assert text.count("✓ weather/forecast") == 1


@pytest.mark.long
def test_the_same_call_three_times_is_one_question_that_says_so(place: Place) -> None:
    model = place.script({"calls": FORECAST["calls"] * 3}, "Done.")
    with talk(place, "--model", model) as screen:
        screen.until(at_prompt)
        screen.type("Thrice?\r")
        screen.until("3 identical calls wait for this answer")
        screen.until("[o] once")
        screen.type("o")
        screen.until("Done.")
        text = screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0
    assert text.count("allowed once, all 3 identical calls: tool.call(weather/forecast)") == 1
    assert text.count("✓ weather/forecast") == 3
    records = [
        json.loads(line)
        for line in place.run("host", "audit", "show", "--json").stdout.splitlines()
    ]
    asked = [one for one in records if one["kind"] == "decision" and one["action"] == "tool.call"]
    assert len({one["approval"] for one in asked[-3:]}) == 1


@pytest.mark.long
def test_ctrl_c_at_a_question_refuses_it_and_goes_on(place: Place) -> None:
    with talk(place, "--model", place.script(FORECAST, "Well then.")) as screen:
        screen.until(at_prompt)
        screen.type("Will it rain?\r")
        screen.until("[o] once")
        screen.type("\x03")
        screen.until("Well then.")
        text = screen.until(at_prompt)
        assert "cancelled: tool.call(weather/forecast)" in text
        screen.type("\x04")
        assert screen.finish() == 0


@pytest.fixture
def odd(tmp_path: Path) -> Place:
    """A user of the odd server, which may do everything, once it is reviewed."""
    place = Place(
        tmp_path, {"odd": {"command": sys.executable, "args": ["-m", "dragoman", "run", ODD]}}
    )
    done = place.run("host", "pin", "odd", "--yes", "--policy", "allow server.start(odd)")
    assert done.returncode == 0, done.stdout + done.stderr
    return place


ODD_RULES = ("--policy", "allow server.start(odd)", "--policy", "allow tool(odd/*)")


@pytest.mark.long
def test_ctrl_c_in_a_turn_cancels_it_and_says_so_at_once(odd: Place) -> None:
    model = odd.script(call("odd__hang"), "After that.")
    rules = (*ODD_RULES, "--policy", "allow tool(odd/hang)")
    with odd.screen("chat", "--model", model, *rules) as screen:
        screen.until(at_prompt)
        screen.type("Hang!\r")
        screen.until("hanging")
        screen.type("\x03")
        text = screen.until(at_prompt)
        assert "cancelling; Ctrl-C again leaves" in text
        assert "\ncancelled" in text
        screen.type("Go on\r")
        screen.until("After that.")
        screen.until(at_prompt)
        screen.type("\x03")
        screen.until("to leave")
        screen.until(at_prompt)
        screen.type("\x03")
        assert screen.finish() == 0
    assert "Traceback" not in screen.seen


@pytest.mark.long
def test_progress_is_drawn_and_vanishes(odd: Place) -> None:
    model = odd.script(call("odd__steps"), "Walked.")
    rules = (*ODD_RULES, "--policy", "allow tool(odd/steps)")
    with odd.screen("chat", "--model", model, *rules) as screen:
        screen.until(at_prompt)
        screen.type("Walk!\r")
        screen.until("Walked.")
        text = screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0
    assert "step 4" in screen.seen
    assert "━" in screen.seen
    assert "━" not in text


@pytest.mark.long
def test_a_hostile_server_writes_nothing_that_a_terminal_obeys(odd: Place) -> None:
    model = odd.script(call("odd__hostile"), "It says: {last}")
    rules = (*ODD_RULES, "--policy", "allow tool(odd/hostile)")
    with odd.screen("chat", "--model", model, *rules) as screen:
        connected(screen)
        screen.type("/tools\r")
        screen.until("odd/echo")
        screen.until(at_prompt)
        screen.type("Say hello\r")
        screen.until("It says")
        screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0
    harmless = OURS.sub("", screen.seen)
    for character in UNSEEN:
        assert character not in harmless


@pytest.mark.long
def test_a_sampling_request_passes_two_gates(odd: Place) -> None:
    model = odd.script(call("odd__ask_model"), "A secret guest.", "It says: {last}")
    rules = (*ODD_RULES, "--policy", "allow tool(odd/ask_model)")
    with odd.screen("chat", "--model", model, *rules) as screen:
        screen.until(at_prompt)
        screen.type("Knock!\r")
        text = screen.until("[o] once")
        assert "sampling.request · server odd" in text
        assert "Knock knock." in text
        screen.type("o")
        text = screen.until("[o] release it")
        assert "A secret guest." in text
        screen.type("x")
        screen.until("words to take out")
        screen.type("secret\r")
        screen.until("as you changed it")
        screen.until("[o] release it")
        screen.type("o")
        text = screen.until("It says")
        assert "A [redacted] guest." in text
        screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0


@pytest.mark.long
def test_a_form_of_a_server_is_filled_in(odd: Place) -> None:
    model = odd.script(call("odd__ask_person"), "It says: {last}")
    rules = (*ODD_RULES, "--policy", "allow tool(odd/ask_person)")
    with odd.screen("chat", "--model", model, *rules) as screen:
        screen.until(at_prompt)
        screen.type("Who?\r")
        assert "Who are you?" in screen.until("[f] fill in")
        screen.type("f")
        screen.until("name (text)")
        screen.type("Ada\r")
        screen.until("size (")
        screen.type("\r")
        screen.until("age (")
        screen.type("36\r")
        screen.until("[o] send it")
        screen.type("o")
        assert "name='Ada', size='small', age=36" in screen.until("It says")
        screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0


@pytest.mark.long
def test_suggestions_appear_while_typing_and_a_prompt_is_used(place: Place) -> None:
    with talk(place, "--model", place.script("I was given: {last}")) as screen:
        connected(screen)
        screen.type("/w")
        screen.until("/weather:plan_trip")
        screen.type("\t")
        screen.type(" city=C")
        screen.until("city=Cairo")
        screen.type("\t")
        screen.until("> /weather:plan_trip city=Cairo")
        screen.type(" days=2\r")
        screen.until("Plan 2 days in Cairo")
        screen.until(at_prompt)
        screen.type("see @weather:")
        screen.until("weather://cities")
        leave(screen)


@pytest.mark.long
def test_what_was_begun_is_there_again_after_a_question(tmp_path: Path) -> None:
    word = tmp_path / "word"
    os.mkfifo(word)
    place = Place(tmp_path, {"later": {"command": sys.executable, "args": [LATER, str(word)]}})
    rules = ("--policy", "allow server.start(later)")
    with place.screen("chat", "--model", place.script("You said: {last}"), *rules) as screen:
        screen.until(at_prompt)
        screen.type("half a li")
        screen.until("> half a li")
        # It blocks until the server reads it, so the server is there.
        word.write_text("ask")
        text = screen.until("[f] fill in")
        assert "Who are you?" in text
        assert "half a li" not in text
        screen.type("n")
        # Before that, what was there before the question is on the screen once more.
        screen.until("refused: elicit.form(later)")
        screen.until(lambda text: text.rstrip().endswith("> half a li"))
        screen.type("ne\r")
        assert "You said: half a line" in screen.until("You said")
        screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0


@pytest.mark.long
def test_a_start_that_is_refused_at_the_terminal_starts_nothing_and_the_chat_goes_on(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    with place.screen("chat", "--model", place.script("Hello.")) as screen:
        text = screen.until("[n] no")
        # Who it is stands there once, in one row or two.
        assert text.replace("\n  ┊ ", "").count("weather_server.py") == 1
        screen.type("n")
        screen.until("refused: server.start(weather)")
        screen.until(at_prompt)
        screen.type("/quit\r")
        assert screen.finish() == 0
    assert "refused: server.start(weather)" in screen.text


@pytest.mark.long
def test_a_dumb_terminal_can_chat_too(place: Place) -> None:
    with talk(place, "--model", place.script(FORECAST, "Rain it is."), TERM="dumb") as screen:
        screen.until(at_prompt)
        screen.type("Will it rain?\n")
        screen.until("cancel  [")
        screen.type("once\n")
        screen.until("Rain it is.")
        screen.until(at_prompt)
        screen.type("\x04")
        assert screen.finish() == 0
    assert "\x1b" not in screen.seen


@pytest.mark.long
def test_the_history_is_its_owners_alone(place: Place) -> None:
    with talk(place, "--model", place.script("Yes.")) as screen:
        screen.until(at_prompt)
        screen.type("a private question\r")
        screen.until("Yes.")
        screen.until(at_prompt)
        screen.type("\x1b[A")
        screen.until("> a private question")
        leave(screen)
    (history,) = place.state.rglob("chat_history")
    assert history.stat().st_mode & 0o777 == 0o600
    assert "a private question" in history.read_text()
