"""The person at the terminal as an approver: everything is shown, and a key is the answer.

Whoever asks at the same time waits; Ctrl-C is never a yes.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dragoman.cli.arguments import read_value
from dragoman.cli.asking import CANCEL, Choice, Surface
from dragoman.cli.asking_lines import LineSurface
from dragoman.cli.keyboard import Keyboard
from dragoman.cli.printable import one_line
from dragoman.cli.question import (
    Line,
    Question,
    compact,
    payload_lines,
    question_of,
    text_lines,
    unmarked,
)
from dragoman.cli.schemas import Row, members_of, resolve, rows_of
from dragoman.cli.screen import Screen
from dragoman.errors import Misconfigured
from dragoman.host.asks import REGENERATE, form_of
from dragoman.host.broker import changed_pointers
from dragoman.host.kinds import Action, ApprovalRequest, Decision, Effect, Scope

__all__ = ["TerminalApprover", "choices_for", "surface_for"]

CHANNEL = "terminal"
# 0.4 s on the screen before a number counts as seen, as long as keys must rest before they count:
# nobody has read a number that appeared as their key went down.
SEEN_S = 0.4
# 64 views that were allowed: the questions that may wait at the same time.
MAX_ALLOWED = 64
ALLOWED_BEFORE = "You allowed exactly this before, for once; what waits now has come since."
# Typed alone, it takes a value out of a form. What only looks like it is typed once more, into the
# field that is empty then.
CLEAR = "-"
REDACTED = "[redacted]"
DRAFT_KEPT = "what you typed is kept for the next edit; what stands below is without it"
# 300 characters of a title and of a description beside a field: the form itself showed all of it.
ABOUT_SHOWN = 300

_ONCE = Choice("o", "once", is_yes=True)
_SESSION = Choice("s", "session", is_yes=True)
_ALWAYS = Choice("a", "always", is_yes=True)
_NO = Choice("n", "no")
_NEVER = Choice("v", "never")
_EDIT = Choice("e", "edit")
_CANCEL = Choice(CANCEL, "cancel")
_AGAIN = Choice("e", "edit again")
_KEEP = Choice("k", "keep it for later")
_DROP = Choice(CANCEL, "drop it")
_RELEASE = Choice("o", "release it", is_yes=True)
_REDACT = Choice("x", "take words out")
_WITHHOLD = Choice("n", "withhold it")
_REGENERATE = Choice("g", "generate another")
_FILL = Choice("f", "fill in", is_yes=True)
_SEND = Choice("o", "send it", is_yes=True)
_DECLINE = Choice("n", "no, decline")
_OPEN = Choice("o", "open it in a browser", is_yes=True)
_PRINT = Choice("p", "print it, I go there myself", is_yes=True)


def surface_for(
    screen: Screen,
    keyboard: Keyboard,
    environ: Mapping[str, str] = os.environ,
    *,
    is_plain: bool | None = None,
) -> Surface:
    """The best this terminal can do: a full screen, or lines.

    Lines, where `is_plain` says so, where TERM is `dumb` or not set, and where prompt_toolkit (the
    extra `host`) is missing.
    """
    if is_plain is None:
        is_plain = sys.platform != "win32" and environ.get("TERM", "dumb") == "dumb"
    if not is_plain:
        try:
            from dragoman.cli.asking_screen import ScreenSurface
        except ModuleNotFoundError as missing:
            if missing.name is None or not missing.name.startswith("prompt_toolkit"):
                raise
        else:
            return ScreenSurface(screen, keyboard, environ)
    return LineSurface(screen, keyboard, environ)


def choices_for(request: ApprovalRequest) -> tuple[Choice, ...]:
    """The answers that a request can be given, in the order they are shown."""
    edit = (_EDIT,) if request.editable else ()
    match request.action:
        case Action.SAMPLING_RELEASE:
            redact = (_REDACT,) if request.editable else ()
            return (_RELEASE, *edit, *redact, _WITHHOLD, _REGENERATE, _CANCEL)
        case Action.ELICIT_URL:
            return (_OPEN, _PRINT, _DECLINE, _NEVER, _CANCEL)
        case Action.ELICIT_FORM:
            return (_FILL, _DECLINE, _NEVER, _CANCEL)
        case _:
            yes = {Scope.ONCE: _ONCE, Scope.SESSION: _SESSION, Scope.ALWAYS: _ALWAYS}
            allow = tuple(yes[scope] for scope in yes if scope in request.scopes)
            never = (_NEVER,) if Scope.ALWAYS in request.scopes else ()
            return (*allow, _NO, *never, *edit, _CANCEL)


class TerminalApprover:
    """Asks at the terminal; satisfies `dragoman.host.Approver`.

    `surface` shows and reads; the default is `surface_for`. `open_url` opens an address that the
    person agreed to; it is never called before. `on_asking` is told when a question begins (True)
    and has ended (False), so that a progress bar can make room.
    """

    def __init__(
        self,
        surface: Surface | None = None,
        *,
        open_url: Callable[[str], object] | None = None,
        on_asking: Callable[[bool], object] | None = None,
        actor: str = "",
    ) -> None:
        self._surface = surface or surface_for(Screen(), Keyboard())
        self._open_url = open_url or _open_in_browser
        self._on_asking = on_asking or (lambda is_asking: None)
        self._actor = actor
        self._waiting = 0
        # Who waits for the answers that are asked for here.
        self._askers: list[_Askers] = []
        # The views that were allowed once, the latest last.
        self._allowed: deque[str] = deque(maxlen=MAX_ALLOWED)

    async def decide(self, request: ApprovalRequest) -> Decision:
        """Ask about one request. It waits for its turn; cancelled, it vanishes and says so."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout_s
        self._waiting += 1
        is_shown = False
        askers = _Askers(request, loop.time)
        self._askers.append(askers)
        try:
            async with self._surface.opened():
                self._waiting -= 1
                is_shown = True
                self._on_asking(True)
                try:
                    # A question that looks like the one just answered is not a fault to click away.
                    note = ALLOWED_BEFORE if request.view_digest in self._allowed else ""
                    asking = _Asking(self._surface, request, self._status(deadline, askers), note)
                    decision, words = await asking.decide(self._open_url)
                    decision = replace(decision, up_to=askers.seen.up_to)
                except asyncio.CancelledError:
                    why = "out of time" if loop.time() >= deadline else "answered or withdrawn"
                    self._surface.say(f"no longer asked ({why}): {_about(request)}", "yellow")
                    raise
                finally:
                    self._on_asking(False)
                if decision.effect is Effect.ALLOW and decision.scope is Scope.ONCE:
                    words += askers.words
                    if decision.payload is None:
                        self._allowed.append(request.view_digest)
                self._surface.say(f"{words}: {_about(request)}", _COLOURS[decision.effect])
                return _signed(decision, self._actor)
        finally:
            self._askers.remove(askers)
            if not is_shown:
                self._waiting -= 1

    def askers_changed(self, request: ApprovalRequest) -> None:
        """More, or fewer, wait for the answer: it is shown with the question."""
        for askers in self._askers:
            if askers.now.id == request.id:
                askers.now = request
                self._surface.refresh()

    def _status(self, deadline: float, askers: _Askers) -> Callable[[], str]:
        loop = asyncio.get_running_loop()

        def status() -> str:
            left = max(int(deadline - loop.time()), 0)
            parts = [f"{left // 60}:{left % 60:02d} left"]
            if self._waiting:
                parts.insert(0, f"{self._waiting} more waiting")
            if told := askers.told():
                parts.insert(0, told)
            return " · ".join(parts)

        return status


_COLOURS = {Effect.ALLOW: "green", Effect.DENY: "red", Effect.CANCEL: "yellow", Effect.ASK: ""}


def _about(request: ApprovalRequest) -> str:
    return unmarked(one_line(request.intent.subject, 200))


def _signed(decision: Decision, actor: str) -> Decision:
    return replace(decision, actor=actor, channel=CHANNEL)


def _open_in_browser(url: str) -> object:
    import webbrowser

    # Whatever else a desktop would start for an address: not from here.
    return url.startswith(("https://", "http://")) and webbrowser.open(url)


class _Askers:
    """How many wait for one answer: as it is, and as it has been on the screen for a moment."""

    def __init__(self, request: ApprovalRequest, clock: Callable[[], float]) -> None:
        # The request with the numbers as they are.
        self.now = request
        self._clock = clock
        # When which numbers were drawn, the latest last.
        self._drawn: deque[tuple[float, ApprovalRequest]] = deque()

    def told(self) -> str:
        """How many, in words, to be drawn now; nothing for one that asks alone."""
        drawn = self._drawn
        if not drawn or drawn[-1][1] is not self.now:
            drawn.append((self._clock(), self.now))
            self._forget()
        if self.now.askers < 2:
            return ""
        return f"{self.now.askers:,} identical {self._what}s wait for this answer"

    @property
    def seen(self) -> ApprovalRequest:
        """The request with the numbers that a person has read who answers now."""
        self._forget()
        # Where nothing was drawn, nobody knows of more than one.
        return self._drawn[0][1] if self._drawn else replace(self.now, askers=1, up_to=1)

    @property
    def words(self) -> str:
        """Whom a yes for once is for, when there are several."""
        count = self.seen.askers
        return f", all {count:,} identical {self._what}s" if count > 1 else ""

    @property
    def _what(self) -> str:
        return "call" if self.now.action is Action.TOOL_CALL else "request"

    def _forget(self) -> None:
        """What was replaced so long ago that it is no longer what was read."""
        while len(self._drawn) > 1 and self._drawn[1][0] <= self._clock() - SEEN_S:
            self._drawn.popleft()


class _Asking:
    """One request's way to a decision."""

    def __init__(
        self, surface: Surface, request: ApprovalRequest, status: Callable[[], str], note: str = ""
    ) -> None:
        self._surface = surface
        self._request = request
        self._status = status
        # A remark of ours about the request, to stand above it.
        self._note = note
        # What the person made of the payload, and how it differs; None while it is as it came.
        self._edited: bytes | None = None
        self._changes: tuple[str, ...] = ()
        # What was typed in an edit that cannot be sent as it is, to go on with.
        self._draft: str | None = None
        # Why what the person tried last did not work.
        self._fault = ""

    async def decide(self, open_url: Callable[[str], object]) -> tuple[Decision, str]:
        """The decision, and what it was in words."""
        request = self._request
        while True:
            choices = choices_for(request)
            if self._edited is not None:
                # The edit is for this once: what is remembered would be something else.
                choices = tuple(one for one in choices if one not in (_SESSION, _ALWAYS))
            question = question_of(request, self._edited, changes=self._changes)
            if self._note:
                question = question.noting(self._note)
            if self._fault:
                question, self._fault = question.noting(f"! {self._fault}"), ""
            key = await self._surface.choose(question, choices, self._status)
            chosen = next((one for one in choices if one.key == key), _CANCEL)
            if chosen in (_EDIT, _REDACT):
                await (self._edit(question) if chosen is _EDIT else self._redact(question))
            elif chosen is _FILL:
                filled = await self._fill(question)
                if filled is not None:
                    return filled
            elif chosen is _OPEN or chosen is _PRINT:
                return self._visit(open_url, is_opened=chosen is _OPEN)
            else:
                return self._plain(chosen)

    def _plain(self, chosen: Choice) -> tuple[Decision, str]:
        request = self._request
        edited = " as you changed it" if self._edited is not None else ""
        if chosen is _ONCE:
            return request.allow(Scope.ONCE, payload=self._edited), f"allowed once{edited}"
        if chosen is _RELEASE:
            return request.allow(Scope.ONCE, payload=self._edited), f"released{edited}"
        if chosen is _SESSION:
            return request.allow(Scope.SESSION), "allowed for this session"
        if chosen is _ALWAYS:
            return request.allow(Scope.ALWAYS), "allowed from now on"
        if chosen is _NEVER:
            return request.deny(Scope.ALWAYS), "refused, for ever"
        if chosen is _WITHHOLD:
            return request.deny(note="withheld"), "withheld"
        if chosen is _REGENERATE:
            again = Decision(effect=Effect.CANCEL, view_digest=request.view_digest, note=REGENERATE)
            return again, "to be generated again"
        if chosen in (_NO, _DECLINE):
            return request.deny(), "refused"
        return request.cancel(), "cancelled"

    # --- changing what is sent --------------------------------------------------------------------

    async def _edit(self, question: Question) -> None:
        before = self._request.view.payload if self._edited is None else self._edited
        text = "\n".join(line.text for line in payload_lines(before, is_exact=True))
        text = text if self._draft is None else self._draft
        while True:
            try:
                typed = await self._surface.edit(question, text)
                if typed is None:
                    self._fault = "nothing was changed"
                    return
                text = typed
                self._take(compact(typed))
                self._draft = None
                return
            except Misconfigured as fault:
                told = question.noting(f"! that cannot be sent: {fault}")
                key = await self._surface.choose(told, (_AGAIN, _KEEP, _DROP), self._status)
                if key == _AGAIN.key:
                    continue
                self._draft = text if key == _KEEP.key else None
                if self._draft is not None:
                    self._fault = DRAFT_KEPT
                return

    async def _redact(self, question: Question) -> None:
        before = self._request.view.payload if self._edited is None else self._edited
        words = await self._surface.line(question, "words to take out, wherever they stand")
        if not words:
            return
        value = _replaced(json.loads(before), words)
        try:
            self._take(json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode())
        except Misconfigured as fault:
            self._fault = str(fault)
        else:
            if self._edited is None:
                self._fault = "these words do not stand there"

    def _take(self, payload: bytes) -> None:
        """Make this the payload. Raises Misconfigured where the request does not allow that."""
        original = self._request.view.payload
        if not isinstance(json.loads(payload), type(json.loads(original))):
            raise Misconfigured("it must stay what it was, an object an object")
        changed = changed_pointers(json.loads(original), json.loads(payload))
        fixed = [one for one in changed if not _is_within(one, self._request.editable)]
        if fixed:
            raise Misconfigured(f"{fixed[0] or 'the whole'} cannot be changed here")
        if not changed:
            self._edited, self._changes = None, ()
            return
        self._edited = payload
        self._changes = tuple(_diff(original, payload))

    # --- forms and addresses ----------------------------------------------------------------------

    async def _fill(self, question: Question) -> tuple[Decision, str] | None:
        """Field by field, then all of it once more; None to show the form again."""
        schema, content = form_of(self._request)
        while True:
            for row in rows_of(schema, is_flat=True):
                wrong = ""
                while True:
                    prompt = _field_prompt(row, content)
                    about = _about_field(row, schema)
                    line = await self._surface.line(question, prompt, wrong, about)
                    if line is None:
                        return None
                    wrong = _fill_field(content, row, line, schema)
                    if not wrong:
                        break
            payload = json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()
            review = question_of(self._request, payload)
            choices = (_SEND, Choice("e", "fill in again"), _DECLINE, _CANCEL)
            key = await self._surface.choose(review, choices, self._status)
            if key == _SEND.key:
                return self._request.allow(payload=payload), "sent"
            if key == _DECLINE.key:
                return self._request.deny(), "declined"
            if key == CANCEL:
                return self._request.cancel(), "cancelled"

    def _visit(self, open_url: Callable[[str], object], *, is_opened: bool) -> tuple[Decision, str]:
        url = _address(self._request)
        if is_opened and url:
            open_url(url)
        self._surface.say(f"the address: {url}")
        return self._request.allow(), "agreed to"


def _address(request: ApprovalRequest) -> str:
    """The address of an URL request: the one that was shown."""
    value = json.loads(request.view.payload)
    url = value.get("url") if isinstance(value, dict) else None
    return url if isinstance(url, str) else ""


def _about_field(row: Row, schema: dict[str, Any]) -> list[Line]:
    """The server's title and description of a field, a line each, to stand beside its prompt."""
    title = resolve(members_of(schema).get(row.path), schema).get("title")
    words = [title if isinstance(title, str) else "", row.description]
    shown = [one_line(one, ABOUT_SHOWN) for one in words if one.strip()]
    return [line for one in dict.fromkeys(shown) for line in text_lines(one)]


def _field_prompt(row: Row, content: Mapping[str, Any]) -> str:
    about = [one_line(row.type)]
    if row.path in content:
        about.append(f"{one_line(json.dumps(content[row.path], ensure_ascii=False))} if left empty")
        if not row.is_required:
            about.append(f"{CLEAR} for nothing")
    elif not row.is_required:
        about.append("may be left empty")
    return f"{one_line(row.path)} ({'; '.join(about)})"


def _fill_field(content: dict[str, Any], row: Row, line: str, schema: dict[str, Any]) -> str:
    """Put what was typed into the form; returns what is wrong with it, or nothing."""
    if not line:
        if row.path not in content and row.is_required:
            return f"{one_line(row.path)} needs an answer"
        return ""
    if line == CLEAR and row.path in content and not row.is_required:
        del content[row.path]
        return ""
    try:
        content[row.path] = read_value(row.path, line, schema)
    except Misconfigured as fault:
        return str(fault)
    return ""


def _replaced(value: Any, words: str) -> Any:
    """The value with these words taken out of every text in it; names stay."""
    if isinstance(value, str):
        return value.replace(words, REDACTED)
    if isinstance(value, list):
        return [_replaced(one, words) for one in value]
    if isinstance(value, dict):
        return {name: _replaced(one, words) for name, one in value.items()}
    return value


def _is_within(pointer: str, editable: Sequence[str]) -> bool:
    return any(not one or pointer == one or pointer.startswith(f"{one}/") for one in editable)


def _diff(old: bytes, new: bytes) -> list[str]:
    """The lines that differ, with a sign before each."""
    before, after = ([line.text for line in payload_lines(one)] for one in (old, new))
    found = difflib.unified_diff(before, after, lineterm="", n=1)
    return [line for line in found if not line.startswith(("---", "+++", "@@"))]
