"""One question, many who can answer it: the first valid answer counts, and it is the only one.

A surface is whoever can be asked: a terminal, a page, a callback. All are asked at once. The first
valid answer wins and the others are cancelled; no answer in time is a no. What asks the same thing
at the same time gets the same answer, as far as whoever answered knew of it: a yes for once is not
for those who came later, who are asked about anew. A question that nobody waits for any more is
withdrawn.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any, TypeAlias

from dragoman.errors import LocalError, Misconfigured
from dragoman.host.canonical import read_json
from dragoman.host.kinds import (
    Action,
    ApprovalRequest,
    Approver,
    Code,
    Decision,
    Denied,
    Effect,
    Scope,
)
from dragoman.runtime.clock import Clock, LoopClock, Timer

__all__ = [
    "AnswerRefused",
    "Asked",
    "Broker",
    "BrokerEvent",
    "Closed",
    "Joined",
    "Left",
    "NoAnswer",
    "AnyApprover",
    "changed_pointers",
]

log = logging.getLogger("dragoman.host")

# 64 open questions: more than anybody answers; a server that asks without end meets this.
MAX_WAITING = 64

# A quarter of them for what one server asks by itself: several that ask all the time must not keep
# the person's own questions from being asked.
SHARE = 4
_ASKED_BY_SERVER = frozenset(
    {
        Action.ELICIT_FORM,
        Action.ELICIT_URL,
        Action.SAMPLING_REQUEST,
        Action.SAMPLING_RELEASE,
        Action.TASK_INPUT,
    }
)

# 1,024 callers behind one question: a loop that asks the same thing again without waiting.
MAX_ASKERS = 1_024

# A day: beyond it a question is forgotten rather than open. Also keeps an infinity off the timers.
MAX_TIMEOUT_S = 86_400.0

# 1 s for a surface to put its window away once somebody else has answered. Whoever takes longer is
# waited for when the broker closes, and holds up nobody until then.
GRACE_S = 1.0

# 8 MiB: twice the largest frame, in which an edited payload has to fit anyway.
MAX_EDIT_BYTES = 8 * 1024 * 1024

# 1,000 characters of a person's remark: it goes into the audit file and to whoever asked.
MAX_NOTE_CHARS = 1_000

AnyApprover: TypeAlias = Approver | Callable[[ApprovalRequest], Any]
"""An `Approver`, or a function, sync or async, that gets the request and returns a Decision, True
or False, Effect.ALLOW, DENY or CANCEL, or the Scope to allow it for. A sync one must not block."""


class AnswerRefused(LocalError):
    """An answer that does not count; the question is open as before. `.code` and `.reason` say why.

    `.code` is VIEW_CHANGED (it is about another view), PAYLOAD_CHANGED (an edit that is not
    allowed), DEADLINE (too late, or answered already) or NOT_OFFERED.
    """

    def __init__(self, code: Code, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the answer does not count: {reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question is open."""

    request: ApprovalRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """One more waits for the same answer; `askers` is how many there are now."""

    request: ApprovalRequest
    askers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """One went away before the answer; `askers` is how many wait now, one at least."""

    request: ApprovalRequest
    askers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NoAnswer:
    """A surface failed, or said what does not count; `surface` is its name, `reason` ours."""

    request: ApprovalRequest
    surface: str
    reason: str
    code: Code


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """A question is over, exactly once: by a `decision`, or with a `code` where there is none."""

    request: ApprovalRequest
    decision: Decision | None
    code: Code | None = None


BrokerEvent: TypeAlias = Asked | Joined | Left | NoAnswer | Closed


class Broker:
    """Asks people, on behalf of the mediator.

    `approvers` are the surfaces to begin with. `clock` counts the time there is to answer, the
    event loop's unless given. What is asked in a loop is answered in it.
    """

    def __init__(
        self,
        approvers: Sequence[AnyApprover] = (),
        clock: Clock | None = None,
        *,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.max_waiting = max_waiting
        self._clock = clock
        self._surfaces: list[_Seat] = []
        self._watchers = 0
        self._questions: dict[str, _Question] = {}
        self._by_key: dict[object, _Question] = {}
        self._listeners: list[Callable[[BrokerEvent], Any]] = []
        # Tasks of surfaces that were cancelled and have not ended.
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_closed = False
        for approver in approvers:
            self.attach(approver)

    # --- who can be asked -------------------------------------------------------------------------

    @property
    def can_ask(self) -> bool:
        """Whether there is anybody who could answer."""
        return not self._is_closed and bool(self._surfaces or self._watchers)

    def attach(self, surface: AnyApprover, *, name: str = "") -> None:
        """One more who can answer; it is asked what is open as well.

        `name` is the channel its decisions are recorded with where they name none.

        Raises:
            Misconfigured: it is neither an Approver nor a function.
        """
        if not callable(getattr(surface, "decide", None)) and not callable(surface):
            raise Misconfigured(
                "an approver has an async method `decide`, or is a function of one request; "
                f"{type(surface).__name__} is neither"
            )
        # Questions come from everybody's tasks; a surface runs in the context it was attached in.
        seat = _Seat(surface, name or _name_of(surface), contextvars.copy_context())
        self._surfaces.append(seat)
        for question in list(self._questions.values()):
            self._consult(question, seat)

    def detach(self, surface: AnyApprover) -> None:
        """It is not asked any more; what it is being asked, it is asked no longer."""
        # Equal, not the same: a bound method is another object each time it is looked up.
        for seat in [one for one in self._surfaces if one.surface == surface]:
            self._surfaces.remove(seat)
            for question in list(self._questions.values()):
                task = question.tasks.pop(seat, None)
                if task is not None:
                    self._dismiss(task)
                self._give_up_if_alone(question, f"{seat.name} has left")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Say that somebody looks at `pending` and will call `answer`, such as a page that is open.

        A question waits as long as anybody watches; when the last one leaves and no surface is
        left, it is refused.
        """
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1
            for question in list(self._questions.values()):
                self._give_up_if_alone(question)

    def on_event(self, listener: Callable[[BrokerEvent], Any]) -> Callable[[], None]:
        """Tell a function of every event, on the loop's thread; it must be quick. Returns its end.

        One that fails is logged and hurts nobody.
        """
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    # --- asking -----------------------------------------------------------------------------------

    async def ask(self, request: ApprovalRequest) -> Decision:
        """Ask everybody, and return what the first one said: allow, deny or cancel.

        A yes for once that was said without knowledge of this caller is not returned: it is asked
        about again, together with whoever else came too late. Cancelling it takes this caller away
        from the question, and the question from the surfaces when it was the last.

        Raises:
            Denied: HOST_CLOSED; NOBODY_TO_ASK; TOO_MANY_WAITING; DEADLINE; or, when every surface
                is out, VIEW_CHANGED or PAYLOAD_CHANGED where one said what does not count.
        """
        while True:
            question = self._join(request) or self._open(request)
            number = question.enter()
            if number > 1:
                self._tell_askers(question, Joined)
            try:
                # Shielded: another caller may wait for the same.
                outcome = await asyncio.shield(question.outcome)
            finally:
                question.leave()
                if not question.outcome.done():
                    if question.askers:
                        self._tell_askers(question, Left)
                    else:
                        said = "nobody waits for it any more"
                        self._close(question, None, Code.CANCELLED, said)
                # A screen is put away before anything else is shown on it.
                await self._part_from(question)
            if not isinstance(outcome, Decision):
                code, rule = outcome
                raise Denied(
                    code,
                    request.intent.subject,
                    rule,
                    server=request.server,
                    approval=question.request.id,
                )
            if _settles(outcome, number):
                return outcome
            # Its own id was perhaps that of the question that is over: no answer fits both.
            request = replace(request, id=token_hex(8))

    def _join(self, request: ApprovalRequest) -> _Question | None:
        """An open question that is the same in all that a person sees of it."""
        question = self._by_key.get(_key_of(request)) if request.dedupe_key else None
        if question is None or question.outcome.done():
            return None
        if question.askers >= MAX_ASKERS:
            raise self._refusal(request, Code.TOO_MANY_WAITING, "too many wait for the same answer")
        return question

    def _open(self, request: ApprovalRequest) -> _Question:
        if self._is_closed:
            raise self._refusal(request, Code.HOST_CLOSED, "the host is closing")
        if not self.can_ask:
            raise self._refusal(request, Code.NOBODY_TO_ASK, "nobody is there to be asked")
        if len(self._questions) >= self.max_waiting:
            rule = f"{self.max_waiting} questions wait for an answer already"
            raise self._refusal(request, Code.TOO_MANY_WAITING, rule)
        if request.action in _ASKED_BY_SERVER:
            its = sum(
                one.request.server == request.server and one.request.action in _ASKED_BY_SERVER
                for one in self._questions.values()
            )
            if its >= max(self.max_waiting // SHARE, 1):
                rule = f"{its} questions of {request.server!r} wait for an answer already"
                raise self._refusal(request, Code.TOO_MANY_WAITING, rule)
        if request.id in self._questions:
            raise Misconfigured(f"a question with the id {request.id!r} is open already")
        clock = self._clock or LoopClock()
        # A number that compares with nothing (NaN) gives no time at all.
        timeout_s = request.timeout_s if request.timeout_s > 0 else 0.0
        if (request.askers, request.up_to) != (1, 1):
            request = replace(request, askers=1, up_to=1)
        question = _Question(
            request,
            asyncio.get_running_loop().create_future(),
            clock,
            clock.now() + min(timeout_s, MAX_TIMEOUT_S),
        )
        question.timer = clock.call_at(question.deadline, lambda: self._expire(question))
        self._questions[request.id] = question
        if request.dedupe_key:
            self._by_key[_key_of(request)] = question
        self._tell(Asked(request=request))
        # All are noted before the first is asked: where tasks start at once, it may be out already.
        question.tasks.update(dict.fromkeys(self._surfaces))
        for seat in tuple(question.tasks):
            self._consult(question, seat)
        return question

    @staticmethod
    def _refusal(request: ApprovalRequest, code: Code, rule: str) -> Denied:
        return Denied(code, request.intent.subject, rule, server=request.server)

    def _expire(self, question: _Question) -> None:
        said = f"no answer within {question.request.timeout_s:g} s"
        self._close(question, None, Code.DEADLINE, said)

    # --- answers ----------------------------------------------------------------------------------

    def pending(self) -> list[ApprovalRequest]:
        """The open questions, oldest first; each says how many wait for its answer."""
        return [question.request for question in self._questions.values()]

    def askers(self, id: str) -> int:
        """How many wait for the answer to an open question; 0 when there is none with that id."""
        question = self._questions.get(id)
        return 0 if question is None else question.askers

    def remaining_s(self, id: str) -> float:
        """How long there is to answer an open question; 0 when there is none with that id."""
        question = self._questions.get(id)
        if question is None:
            return 0.0
        return max(question.deadline - question.clock.now(), 0.0)

    def answer(self, id: str, decision: Decision, *, channel: str = "") -> None:
        """Answer an open question, for surfaces that are no coroutines, such as a page.

        On the loop's thread, like everything here.

        Raises:
            AnswerRefused: the answer does not count, or there is no such question (any more).
        """
        question = self._questions.get(id)
        if question is None:
            raise AnswerRefused(Code.DEADLINE, "there is no such question, or it is answered")
        self._offer(question, decision, channel)

    def _offer(self, question: _Question, decision: Decision, channel: str) -> None:
        """Take an answer. Raises AnswerRefused."""
        if question.outcome.done():
            raise AnswerRefused(Code.DEADLINE, "it was answered already")
        # The timer may come late, where something held up the loop.
        if question.clock.now() >= question.deadline:
            self._expire(question)
            raise AnswerRefused(Code.DEADLINE, "it comes too late")
        decision = _checked(question.request, decision)
        if not decision.channel:
            decision = replace(decision, channel=channel)
        decision = replace(decision, approval=question.request.id)
        self._close(question, decision, None, "")

    def _consult(self, question: _Question, seat: _Seat) -> None:
        if question.outcome.done():
            return
        question.tasks[seat] = None
        task = asyncio.get_running_loop().create_task(
            self._hear(question, seat), context=seat.context.copy()
        )
        # It may have run to its end already.
        if seat in question.tasks:
            question.tasks[seat] = task

    async def _hear(self, question: _Question, seat: _Seat) -> None:
        """Ask one surface; whatever goes wrong with it, the others can still answer."""
        this = asyncio.current_task()
        assert this is not None
        request = question.request
        question.hearing.add(seat)
        try:
            said = seat.ask(request)
            if inspect.isawaitable(said):
                said = await said
            if this.cancelling():
                # It was told to stop and answered all the same: it has left, and nobody asks it.
                return
            self._offer(question, _decision_of(request, said), seat.name)
            return
        except AnswerRefused as refused:
            code, reason = refused.code, refused.reason
        except asyncio.CancelledError:
            if this.cancelling():
                raise
            code, reason = Code.NOBODY_TO_ASK, "what it waited for was cancelled"
        except Exception as error:
            # Its text may hold what nobody else should read: the log has it, the record has not.
            log.exception("the approver %s failed", seat.name)
            code, reason = Code.NOBODY_TO_ASK, f"it failed with {type(error).__name__}"
        question.tasks.pop(seat, None)
        if question.outcome.done():
            return
        question.codes.append(code)
        self._tell(NoAnswer(request=request, surface=seat.name, reason=reason, code=code))
        self._give_up_if_alone(question, reason)

    def _give_up_if_alone(self, question: _Question, reason: str = "") -> None:
        """Refuse a question that nobody is left to answer."""
        if question.tasks or self._watchers or question.outcome.done():
            return
        code = next((one for one in question.codes if one is not Code.NOBODY_TO_ASK), None)
        said = f"nobody is left who could answer{f' ({reason})' if reason else ''}"
        self._close(question, None, code or Code.NOBODY_TO_ASK, said)

    # --- the end of a question --------------------------------------------------------------------

    def _close(
        self, question: _Question, decision: Decision | None, code: Code | None, rule: str
    ) -> None:
        """Settle it, once and for all: nothing here waits, so nobody comes in between."""
        if question.outcome.done():
            return
        request = question.request
        question.outcome.set_result(decision if decision is not None else (code, rule))
        if question.timer is not None:
            question.timer.cancel()
        del self._questions[request.id]
        key = _key_of(request)
        if self._by_key.get(key) is question:
            del self._by_key[key]
        try:
            this = asyncio.current_task()
        except RuntimeError:
            # From a timer that a test moves by hand, outside of the loop.
            this = None
        for task in question.tasks.values():
            if task is not None and task is not this:
                self._dismiss(task)
                question.leaving.add(task)
        question.tasks.clear()
        self._tell(Closed(request=request, decision=decision, code=code))

    def _dismiss(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _part_from(self, question: _Question) -> None:
        left = {task for task in question.leaving if not task.done()}
        if left:
            await asyncio.wait(left, timeout=GRACE_S)

    async def aclose(self) -> None:
        """Refuse what is open and let nobody ask any more; waits for the surfaces, within bounds."""
        self._is_closed = True
        for question in list(self._questions.values()):
            self._close(question, None, Code.HOST_CLOSED, "the host is closing")
        if self._leaving:
            _, stuck = await asyncio.wait(set(self._leaving), timeout=GRACE_S)
            if stuck:
                log.warning("%d approvers go on although they were cancelled", len(stuck))

    def _tell_askers(self, question: _Question, event: type[Joined | Left]) -> None:
        """Say how many wait now: to the listeners, and to the surfaces that ask about it."""
        request = question.request
        self._tell(event(request=request, askers=question.askers))
        for seat in question.hearing.intersection(question.tasks):
            try:
                seat.tell_askers(request)
            except Exception:
                log.exception("the approver %s failed", seat.name)

    def _tell(self, event: BrokerEvent) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed on %s", type(event).__name__)


class _Seat:
    """One surface as it is attached."""

    __slots__ = ("context", "name", "surface")

    def __init__(self, surface: AnyApprover, name: str, context: contextvars.Context) -> None:
        self.surface = surface
        self.name = name
        self.context = context

    def ask(self, request: ApprovalRequest) -> Any:
        decide = getattr(self.surface, "decide", None)
        if callable(decide):
            return decide(request)
        assert callable(self.surface)
        return self.surface(request)

    def tell_askers(self, request: ApprovalRequest) -> None:
        """Say how many wait, to a surface that wants to know."""
        changed = getattr(self.surface, "askers_changed", None)
        if callable(changed):
            changed(request)


class _Question:
    """One open question: who is being asked, and how many wait."""

    __slots__ = (
        "askers",
        "clock",
        "codes",
        "deadline",
        "hearing",
        "last",
        "leaving",
        "outcome",
        "request",
        "tasks",
        "timer",
    )

    def __init__(
        self,
        request: ApprovalRequest,
        outcome: asyncio.Future[Any],
        clock: Clock,
        deadline: float,
    ) -> None:
        self.request = request
        # A Decision, or a Code and a sentence where there is none.
        self.outcome = outcome
        self.clock = clock
        self.deadline = deadline
        self.timer: Timer | None = None
        self.askers = 0
        # The number of the one that came last.
        self.last = 0
        # Who is still being asked; None until the task is there.
        self.tasks: dict[_Seat, asyncio.Task[None] | None] = {}
        # Whose task has begun: the others are given the numbers when theirs does.
        self.hearing: set[_Seat] = set()
        self.leaving: set[asyncio.Task[None]] = set()
        self.codes: list[Code] = []

    def enter(self) -> int:
        """One more waits; returns its number."""
        self.askers += 1
        self.last += 1
        self._renumber()
        return self.last

    def leave(self) -> None:
        """One waits no longer."""
        self.askers -= 1
        if not self.outcome.done():
            self._renumber()

    def _renumber(self) -> None:
        if (self.askers, self.last) != (self.request.askers, self.request.up_to):
            self.request = replace(self.request, askers=self.askers, up_to=self.last)


def _name_of(surface: AnyApprover) -> str:
    named = getattr(surface, "name", None)
    if isinstance(named, str) and named:
        return named
    return str(getattr(surface, "__qualname__", None) or type(surface).__qualname__)


def _key_of(request: ApprovalRequest) -> object:
    """What two requests must share to be one question: all that is shown, and what is bound to it.

    The digest does not cover why it is asked, the risks, the definition or the taint: an answer
    given without one of them would else settle a question with it.
    """
    intent = request.intent
    return (
        request.dedupe_key,
        request.view_digest,
        request.why,
        request.risks,
        request.scopes,
        request.editable,
        intent.fingerprint,
        intent.trust,
        intent.taint,
    )


def _settles(decision: Decision, number: int) -> bool:
    """Whether an answer is for the asker of this number.

    A no is for all that wait. So is a yes that is remembered: it is for those that come after it,
    too. A yes for once is for those that whoever said it knew of.
    """
    if decision.effect is not Effect.ALLOW or decision.scope is not Scope.ONCE:
        return True
    return number <= decision.up_to


# --- what counts as an answer ---------------------------------------------------------------------


def _decision_of(request: ApprovalRequest, said: object) -> Decision:
    """What a surface returned, as a decision. Raises AnswerRefused."""
    if isinstance(said, Decision):
        return said
    if said is True or said is Effect.ALLOW:
        return request.allow()
    if said is False or said is Effect.DENY:
        return request.deny()
    if said is Effect.CANCEL:
        return request.cancel()
    # Its own type: the text "always" from somewhere is no scope that somebody chose.
    if isinstance(said, Scope):
        return request.allow(said)
    raise AnswerRefused(
        Code.NOBODY_TO_ASK, f"it returned {type(said).__name__}, which is no decision"
    )


def _checked(request: ApprovalRequest, decision: Decision) -> Decision:
    """A decision that counts for this request. Raises AnswerRefused.

    A yes has to be right in everything. A no about this view is a no, whatever else is wrong.
    """
    if not isinstance(decision, Decision):
        raise AnswerRefused(Code.NOBODY_TO_ASK, f"{type(decision).__name__} is no decision")
    if decision.view_digest != request.view_digest:
        raise AnswerRefused(Code.VIEW_CHANGED, "it is about another view than the one asked about")
    note = decision.note[:MAX_NOTE_CHARS]
    if decision.effect in (Effect.DENY, Effect.CANCEL):
        return replace(decision, note=note, payload=None)
    if decision.effect is not Effect.ALLOW:
        raise AnswerRefused(Code.NOBODY_TO_ASK, f"{decision.effect} is no decision")
    if decision.scope not in request.scopes:
        raise AnswerRefused(
            Code.NOT_OFFERED, f"allowing it for {decision.scope.value!r} was not offered"
        )
    if type(decision.up_to) is not int or not 1 <= decision.up_to <= request.up_to:
        raise AnswerRefused(Code.NOT_OFFERED, "it is for askers that there have not been")
    if decision.payload is None or decision.payload == request.view.payload:
        return replace(decision, note=note, payload=None)
    _check_edit(request, decision)
    return replace(decision, note=note)


def _check_edit(request: ApprovalRequest, decision: Decision) -> None:
    payload = decision.payload
    if not isinstance(payload, bytes):
        raise AnswerRefused(Code.PAYLOAD_CHANGED, "an edited payload is JSON text, as bytes")
    if not request.editable:
        raise AnswerRefused(Code.PAYLOAD_CHANGED, "nothing of it may be changed")
    if len(payload) > MAX_EDIT_BYTES:
        raise AnswerRefused(
            Code.PAYLOAD_CHANGED, f"an edited payload has at most {MAX_EDIT_BYTES:,} bytes"
        )
    if decision.scope is not Scope.ONCE:
        # What would be remembered is a yes to something else than what was sent.
        raise AnswerRefused(Code.PAYLOAD_CHANGED, "an edit is for once")
    try:
        new = read_json(payload)
        old = read_json(request.view.payload)
    except ValueError as fault:
        raise AnswerRefused(
            Code.PAYLOAD_CHANGED, f"the edited payload cannot be read: {fault}"
        ) from None
    if type(new) is not type(old):
        raise AnswerRefused(Code.PAYLOAD_CHANGED, "an object stays an object, a list a list")
    for pointer in changed_pointers(old, new):
        if not any(_is_within(pointer, allowed) for allowed in request.editable):
            raise AnswerRefused(
                Code.PAYLOAD_CHANGED, f"{pointer or 'the whole'!r} may not be changed"
            )


def _is_within(pointer: str, allowed: str) -> bool:
    return allowed in ("", pointer) or pointer.startswith(f"{allowed}/")


def changed_pointers(old: Any, new: Any) -> list[str]:
    """Where two JSON values differ: pointers (RFC 6901) to the smallest parts, in document order.

    The order of an object's members is no difference; 1, 1.0 and true all differ.
    """
    found: list[str] = []
    _compare(old, new, "", found)
    return found


def _compare(old: Any, new: Any, at: str, found: list[str]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in (*old, *(name for name in new if name not in old)):
            inner = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
            if name in old and name in new:
                _compare(old[name], new[name], inner, found)
            else:
                found.append(inner)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            if index < len(old) and index < len(new):
                _compare(old[index], new[index], f"{at}/{index}", found)
            else:
                found.append(f"{at}/{index}")
    elif type(old) is not type(new) or old != new:
        found.append(at)
