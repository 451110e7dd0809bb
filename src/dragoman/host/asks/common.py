"""What all that servers ask has in common: who asks, the decision, the answer, what they are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from dragoman.errors import Refused
from dragoman.host.broker import Broker, changed_pointers
from dragoman.host.canonical import canonical, read_json
from dragoman.host.kinds import (
    ApprovalRequest,
    Code,
    Denied,
    Intent,
    Problem,
    Risk,
    Scope,
    Verdict,
    View,
)
from dragoman.host.policy import Policy
from dragoman.model.base import Record
from dragoman.model.unseen import one_line, unseen_in

__all__ = [
    "FACT_FORM",
    "FACT_HOST",
    "FACT_MESSAGE",
    "FACT_URL",
    "MAX_TRIES",
    "REGENERATE",
    "RISK_FAULTS",
    "Answered",
    "Asker",
    "Cleared",
    "Mediates",
    "clear_when_it_fits",
    "facts_about",
    "fault_risk",
    "form_of",
    "read_record",
    "refusal_for",
    "texts_in",
    "unseen_risks",
]

R = TypeVar("R")
T = TypeVar("T", bound=Record)

FACT_MESSAGE = "message"
"""The label of the fact that holds a server's own words to the person."""

FACT_FORM = "form"
"""The label of the fact that holds a form's schema, as JSON text."""

FACT_URL = "url"
"""The label of the fact that holds the whole address a server wants the person to go to."""

FACT_HOST = "host"
"""The label of the fact that holds that address's host, by itself."""

RISK_FAULTS = "faults"
"""The code of the risk that says what was wrong with the answer before."""

REGENERATE = "regenerate"
"""The note of a cancel by which a person wants another answer of the model."""

# 3 times: an answer that does not fit, its correction, and one more; then it is refused.
MAX_TRIES = 3

# 200 characters of a person's reason for their no: the server's error holds it.
MAX_TOLD_CHARS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Asker:
    """The server that asks, as the host knows it at this moment.

    `intent` makes an Intent of an action, an object and more members, with the identity and the
    trust the server has now. `lines` tell a person which server it is (label, text). `calls` are
    the calls under way: a name for each, with a sentence of ours about it.
    """

    server: str
    intent: Callable[..., Intent]
    lines: Callable[[], Sequence[tuple[str, str]]] = tuple
    calls: Callable[[], Mapping[str, str]] = field(default=dict)


class Cleared(Protocol):
    """Leave to do one thing; see `dragoman.host.mediator.Clearance`."""

    @property
    def payload(self) -> bytes:
        """The exact JSON text that may be sent or released."""

    @property
    def decision(self) -> int:
        """The number of the audit record."""

    @property
    def trace(self) -> str:
        """What belongs together has the same."""


class Mediates(Protocol):
    """Decides, asks and records; see `dragoman.host.mediator.Mediator`."""

    policy: Policy
    broker: Broker

    def judge(self, intent: Intent) -> Verdict:
        """What policy and the remembered answers say of it."""

    async def clear(
        self,
        intent: Intent,
        view: View,
        *,
        editable: Sequence[str] = (),
        risks: Sequence[Risk] = (),
        scopes: Sequence[Scope] = ...,
        trace: str = "",
        again: Callable[[bytes], Awaitable[Intent]] | None = None,
        must_ask: str = "",
        also: Sequence[Intent] = (),
    ) -> Cleared:
        """Decide about one thing. Raises Denied."""

    async def settle(self, clearance: Any, status: str, **details: Any) -> None:
        """Record how it ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered(Generic[R]):
    """What a server is told.

    `payload` is the JSON text of all that was released for it, `decision` the number of the record
    that released (or refused) it; 0 when there is none, since nothing is told.
    """

    result: R
    payload: bytes
    decision: int


# --- what a person sees ---------------------------------------------------------------------------


def facts_about(asker: Asker) -> list[tuple[str, str]]:
    """Which server asks, and during which calls: first in every view, in our words."""
    shown = [("server", asker.server)]
    calls = list(asker.calls().values())
    if calls:
        shown.append(("during", "\n".join(calls)))
    return shown


def unseen_risks(texts: Iterable[str]) -> list[Risk]:
    """A risk that counts what is in the texts and not seen, if there is anything."""
    counts: dict[str, int] = {}
    spelled: list[str] = []
    for text in texts:
        for record in unseen_in(text):
            counts[record.kind] = counts.get(record.kind, 0) + record.count
            if record.says:
                spelled.append(record.says)
    if not counts:
        return []
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    words = f', that spell "{one_line(" ".join(spelled), 500)}"' if spelled else ""
    return [Risk(code="unseen", text=f"It holds what cannot be seen: {told}{words}.")]


def texts_in(value: Any) -> list[str]:
    """Every text in a JSON value, names of members included."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, Mapping):
            found.extend(name for name in item if isinstance(name, str))
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
    return found


def fault_risk(faults: Sequence[str]) -> list[Risk]:
    """What was wrong with the answer before, when it is asked again."""
    if not faults:
        return []
    return [Risk(code=RISK_FAULTS, text=f"Your answer does not fit: {'; '.join(faults)}.")]


def form_of(request: ApprovalRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    """For surfaces: the schema of a form, and what it is filled with so far."""
    schema = next((text for label, text in request.view.facts if label == FACT_FORM), "{}")
    return read_json(schema), read_json(request.view.payload)


# --- what a person wrote --------------------------------------------------------------------------


def read_record(kind: type[T], value: Any) -> T:
    """A JSON value as a record that says the very same.

    Raises:
        ValueError: it is no such record, or holds what the record would leave out.
    """
    record = msgspec.convert(value, kind)
    written = msgspec.to_builtins(record)
    # 1 and 1.0 are the same number, and a record may hold the one for the other.
    if canonical(value) != canonical(written):
        lost = changed_pointers(value, written)
        raise ValueError(f"{', '.join(map(repr, lost[:5]))} would not be sent as written")
    return record


async def clear_when_it_fits(
    mediator: Mediates,
    payload: bytes,
    *,
    intent_of: Callable[[bytes, tuple[Problem, ...]], Intent],
    view_of: Callable[[bytes], View],
    check: Callable[[bytes], list[str]],
    problems: tuple[Problem, ...] = (),
    risks: Sequence[Risk] = (),
    fill_in: Callable[[bytes], tuple[bytes, str] | None] | None = None,
    options: Callable[[], Mapping[str, Any]] = dict,
    **fixed: Any,
) -> Cleared:
    """Clear what a person may change, and ask again, with the faults, when it does not fit then.

    `intent_of` makes the intent of a payload with more problems, `check` gives the faults of one,
    a sentence each. `problems` are those there are from the start. `fill_in` puts in what a person
    has asked for by their change, with a sentence about it: it is shown before it is sent, too.
    `options`, asked for each time, and `fixed` are those of `Mediates.clear`.

    Raises:
        Denied: refused; ARGUMENTS_UNFIT after `MAX_TRIES` answers that do not fit.
    """
    said: list[Risk] = []
    for last in range(1, MAX_TRIES + 1):
        found: list[str] = []
        # What is shown the next time, and what is said of it.
        answer: list[Any] = [payload, said]

        async def again(
            given: bytes, found: list[str] = found, answer: list[Any] = answer
        ) -> Intent:
            filled = None if fill_in is None else fill_in(given)
            if filled is None:
                found += check(given)
                answer[:] = given, fault_risk(found)
            else:
                found.append(filled[1])
                answer[:] = filled[0], [Risk(code="filled_in", text=filled[1])]
            unfit = (Problem(code=Code.ARGUMENTS_UNFIT, text="; ".join(found)),) if found else ()
            return intent_of(given, unfit)

        try:
            return await mediator.clear(
                intent_of(payload, problems),
                view_of(payload),
                editable=("",),
                risks=(*said, *risks),
                again=again,
                **{**fixed, **options()},
            )
        except Denied:
            if not found or last == MAX_TRIES:
                raise
        payload, said = answer
    raise AssertionError("the last try returns or raises")


# --- what a server is told ------------------------------------------------------------------------

# Whether a rule, a stored no or a person refused is nobody's business but the user's.
_TOLD = {
    Code.RATE_LIMIT: "too many requests",
    Code.BUDGET: "no tokens are left for this session",
    Code.ARGUMENTS_UNFIT: "no answer that fits was given",
}


def refusal_for(denied: Denied, subject: str) -> Refused:
    """What the server may know of a refusal: that it was one, and what a person said to it."""
    if denied.code is Code.PERSON_DENIED and denied.note:
        return Refused(one_line(denied.note, MAX_TOLD_CHARS), subject)
    return Refused(_TOLD.get(denied.code, "declined"), subject)
