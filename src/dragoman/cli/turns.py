"""What happens in a chat, shown: as text with a line for each call, or as JSON lines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from dragoman.cli.blocks import result_document
from dragoman.cli.printable import compact_json, one_line, printable
from dragoman.cli.question import unmarked
from dragoman.cli.screen import Screen
from dragoman.cli.wrapping import WordWrap
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
)
from dragoman.host.kinds import Code, Risk

__all__ = ["TurnView", "event_document", "json_line", "usage_text"]

# One line of a call in the chat is a reminder; the question about it showed all of it.
ARGUMENTS_SHOWN = 160
RESULT_SHOWN = 200
RESULT_READ = 4_000
NAME_SHOWN = 160
# A sentence of ours, in which a stranger may be quoted.
NOTICE_SHOWN = 1_000

# One joiner between letters that take one, or between emoji: words of Persian or Hindi, families.
_JOINER = re.compile(
    "(?<=[\u0600-\u06ff\u0750-\u077f\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\u1800-\u18af"
    "\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])[\u200c\u200d]"
)
# No characters of any text: they stand for those two while all others become escapes.
_JOINERS = {0xFDD0: "\u200c", 0xFDD1: "\u200d"}

# Refusals that a person at this terminal has just made.
_BY_PERSON = frozenset({Code.PERSON_DENIED, Code.CANCELLED})

_ENDINGS = {
    Ending.LENGTH: "the answer was cut at its limit of tokens",
    Ending.FILTERED: "the model would not answer",
    Ending.MAX_ROUNDS: "too many rounds: the turn was ended",
    Ending.CANCELLED: "cancelled",
}


class TurnView:
    """Shows the events of a conversation on a screen.

    While `is_held`, nothing is printed: it comes afterwards, in its order. `above` prints above an
    idle prompt when there is one.
    """

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        # Of an answer on a terminal; what goes to a file or a program is as the model said it.
        is_wrapped = screen.out.is_terminal
        self._wrap = WordWrap(_write, lambda: screen.out.width) if is_wrapped else None
        self._held: list[Callable[[], None]] | None = None
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._is_in_line = False
        # A line end of two characters may come in two pieces.
        self._tail = ""
        # The last character: what may follow it is not judged alone.
        self._before = ""
        self.above: Callable[[Callable[[], None]], None] | None = None
        self.usage: UsageReport | None = None
        self.refusals = 0

    def hold(self, is_asking: bool) -> None:
        """Print nothing from now on (True), or what has waited, and go on (False)."""
        if is_asking:
            self._end_line()
            self._pause_bars()
            self._held = self._held or []
            return
        waiting, self._held = self._held or [], None
        for show in waiting:
            show()

    def close(self) -> None:
        """End what was begun: the line of an answer, the bars of calls."""
        self._end_line()
        self._stop_bars()

    def say(self, text: str, style: str = "") -> None:
        """A remark on stderr, on a line of its own."""
        self._do(lambda: self._say(text, style))

    def show(self, event: ChatEvent) -> None:
        """One event."""
        if self._held is not None and isinstance(event, ToolProgress):
            # Old news by then, and a server can send any number of it.
            return
        self._do(lambda: self._show(event))

    def _do(self, show: Callable[[], None]) -> None:
        if self._held is not None:
            self._held.append(show)
        elif self.above is not None:
            self.above(show)
        else:
            show()

    def _show(self, event: ChatEvent) -> None:
        match event:
            case TextDelta():
                self._text(event.text)
            case ToolProposed():
                words = one_line(compact_json(event.arguments), ARGUMENTS_SHOWN)
                self._say(f"→ {_name(event)} {words}", "cyan")
            case ToolStarted():
                pass
            case ToolProgress():
                self._progress(event)
            case ToolFinished():
                self._finished(event)
            case Notice():
                self._say(one_line(event.text, NOTICE_SHOWN), "yellow")
            case UsageReport():
                self.usage = event
            case TurnEnded():
                self._ended(event)
            case _:
                assert_never(event)

    def _text(self, text: str) -> None:
        self._pause_bars()
        text = self._tail + text
        self._tail = ""
        if text.endswith("\r"):
            text, self._tail = text[:-1], "\r"
        if text:
            before = len(printable(self._before))
            shown = printable(_JOINER.sub(_stand_in, self._before + text))[before:]
            # Questions are dragoman's alone: a model cannot write their mark.
            shown = unmarked(shown).translate(_JOINERS)
            if self._wrap is None:
                sys.stdout.write(shown)
            else:
                self._wrap.add(shown)
            sys.stdout.flush()
            self._before = text[-1]
            self._is_in_line = not text.endswith("\n")

    def _say(self, text: str, style: str) -> None:
        self._end_line()
        self._pause_bars()
        self._screen.note(unmarked(text), style)
        self._go_on_bars()

    def _end_line(self) -> None:
        self._before = ""
        if self._wrap is not None:
            self._wrap.end()
        if self._tail:
            sys.stdout.write(printable(self._tail))
            self._tail = ""
        if self._is_in_line:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._is_in_line = False

    def _finished(self, event: ToolFinished) -> None:
        self._drop_bar(event.id)
        name = _name(event)
        if event.is_refused:
            self.refusals += 1
            code = f" ({event.code.value})" if event.code is not None else ""
            ran = ", after it was run" if event.is_withheld else ""
            # Of what the model is told the reason alone.
            why = event.error.partition("): ")[2].partition(". ")[0]
            why = f": {one_line(why, RESULT_SHOWN)}" if why else ""
            # What the person said themselves is no news to them.
            is_told = event.rule and event.code not in _BY_PERSON
            rule = f"; decided by: {one_line(event.rule, NOTICE_SHOWN)}" if is_told else ""
            self._say(f"✗ {name} was refused{code}{ran}{why}{rule}", "red")
        elif event.error:
            why = one_line(event.error.removeprefix("Failed: "), RESULT_SHOWN)
            self._say(f"✗ {name} failed: {why}", "red")
        else:
            result = event.result
            # Not all of it is laid out for one line: a result may hold megabytes.
            words = "" if result is None else one_line(result.text[:RESULT_READ], RESULT_SHOWN)
            if result is not None and result.is_error:
                self._say(f"✗ {name} failed: {words}", "red")
            else:
                self._say(f"✓ {name} {words}".rstrip(), "green")
            for flag in _flags(event):
                self._say(f"! {name}: {one_line(flag.text, RESULT_SHOWN)}", "yellow")

    def _ended(self, event: TurnEnded) -> None:
        self._end_line()
        self._stop_bars()
        if event.reason in _ENDINGS:
            self._screen.note(_ENDINGS[event.reason], "yellow")

    # --- progress ---------------------------------------------------------------------------------

    def _progress(self, event: ToolProgress) -> None:
        console = self._screen.err
        if not console.is_terminal:
            return
        self._end_line()
        if self._bars is None:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False, style="bold"),
                BarColumn(bar_width=30),
                TextColumn("{task.fields[count]}", markup=False, style="cyan"),
                TimeElapsedColumn(),
                # Cut rather than wrapped: on two rows it would leave one behind.
                TextColumn(
                    "{task.fields[message]}",
                    markup=False,
                    style="dim",
                    table_column=Column(no_wrap=True),
                ),
                console=console,
                transient=True,
            )
        if event.id not in self._tasks:
            label = _name(event, 40)
            self._tasks[event.id] = self._bars.add_task(label, total=None, count="", message="")
        done = f"{event.progress:g}"
        self._bars.update(
            self._tasks[event.id],
            completed=event.progress,
            total=event.total,
            count=done if event.total is None else f"{done}/{event.total:g}",
            message=one_line(event.message or "", 60),
        )
        self._go_on_bars()
        self._bars.refresh()

    def _drop_bar(self, id: str) -> None:
        task = self._tasks.pop(id, None)
        if task is not None and self._bars is not None:
            self._bars.remove_task(task)
        if not self._tasks:
            self._stop_bars()

    def _pause_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _go_on_bars(self) -> None:
        if self._bars is not None and self._tasks:
            self._bars.start()

    def _stop_bars(self) -> None:
        self._pause_bars()
        self._bars = None
        self._tasks.clear()


def _write(text: str) -> None:
    sys.stdout.write(text)


def _stand_in(joiner: re.Match[str]) -> str:
    return "\ufdd0" if joiner.group() == "\u200c" else "\ufdd1"


def _name(event: ToolProposed | ToolFinished | ToolProgress, limit: int = NAME_SHOWN) -> str:
    # Both are what a server, or a file, calls itself.
    return one_line(f"{event.server}/{event.tool}", limit)


def _flags(event: ToolFinished) -> Sequence[Risk]:
    return event.result.flags if isinstance(event.result, HostResult) else ()


def usage_text(usage: UsageReport | None) -> Text:
    """What the conversation cost, in a line."""
    if usage is None:
        return Text("nothing was asked yet")
    about = "about " if usage.is_estimate else ""
    return Text(
        f"{about}{usage.total_input:,} tokens in, {usage.total_output:,} out; "
        f"the last request {usage.input_tokens:,} and {usage.output_tokens:,}"
    )


def event_document(event: ChatEvent) -> dict[str, Any]:
    """An event as a JSON object; `event` names it."""
    match event:
        case TextDelta():
            return {"event": "text", "text": event.text}
        case ToolProposed():
            call = {"id": event.id, "server": event.server, "tool": event.tool}
            return {"event": "tool-proposed", **call, "arguments": event.arguments}
        case ToolStarted():
            call = {"id": event.id, "server": event.server, "tool": event.tool}
            return {"event": "tool-started", **call}
        case ToolProgress():
            call = {"id": event.id, "server": event.server, "tool": event.tool}
            far: dict[str, Any] = {"progress": event.progress}
            if event.total is not None:
                far["total"] = event.total
            if event.message is not None:
                far["message"] = event.message
            return {"event": "tool-progress", **call, **far}
        case ToolFinished():
            return {"event": "tool-finished", **_outcome(event)}
        case Notice():
            return {"event": "notice", "text": event.text}
        case UsageReport():
            return {
                "event": "usage",
                "inputTokens": event.input_tokens,
                "outputTokens": event.output_tokens,
                "isEstimate": event.is_estimate,
                "totalInputTokens": event.total_input,
                "totalOutputTokens": event.total_output,
            }
        case TurnEnded():
            return {"event": "turn-ended", "reason": event.reason.value}
        case _:
            assert_never(event)


def _outcome(event: ToolFinished) -> dict[str, Any]:
    document: dict[str, Any] = {"id": event.id, "server": event.server, "tool": event.tool}
    if event.result is not None:
        document["result"] = result_document(event.result)
    if flags := _flags(event):
        document["flags"] = [{"code": flag.code, "text": flag.text} for flag in flags]
    if event.error:
        document["error"] = event.error
    if event.is_refused:
        document["isRefused"] = True
        if event.is_withheld:
            document["isWithheld"] = True
        document["code"] = event.code.value if event.code is not None else None
        if event.rule:
            document["rule"] = event.rule
    return document


def json_line(event: ChatEvent) -> str:
    """An event on a line of its own; unseen characters are JSON's escapes."""
    return json.dumps(event_document(event))
