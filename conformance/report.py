"""The result of a run, for a person and for a program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TextIO

from conformance.expected import IS_INFO
from conformance.judge import Complaint, Outcome, Verdict
from conformance.legs import LegOutcome
from conformance.suite import SUITE_VERSION

__all__ = ["as_json", "show"]

_COLOURS = {"good": "32", "bad": "31", "dim": "2", "bold": "1", "later": "33"}


class _Paint:
    """Colours for a terminal; plain text for anything else, and where NO_COLOR is set."""

    def __init__(self, out: TextIO) -> None:
        self._is_on = out.isatty() and not os.environ.get("NO_COLOR")

    def __call__(self, kind: str, text: str) -> str:
        return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if self._is_on else text


def show(legs: Sequence[LegOutcome], out: TextIO, *, is_verbose: bool = False) -> None:
    """Print a table of the legs, and everything that is wrong."""
    paint = _Paint(out)

    def say(text: str = "") -> None:
        print(text, file=out)

    width = max(len(leg.leg.name) for leg in legs)
    say()
    head = f"{'leg':<{width}}  {'scenarios':>9}  {'checks':>6}  {'dead too':>8}  {'not yet':>7}  {'s':>5}"
    say(paint("bold", head))
    for leg in legs:
        judged = _with(leg, Verdict.PASSED, Verdict.FAILED)
        good, later = _with(leg, Verdict.PASSED), _with(leg, Verdict.NOT_YET)
        checks = sum(len(one.counted) for one in judged)
        dead = sum(len(one.passed_dead) for one in judged)
        line = (
            f"{leg.leg.name:<{width}}  {f'{len(good)}/{len(judged)}':>9}  {checks:>6}  {dead:>8}"
            f"  {len(later):>7}  {leg.seconds:>5.1f}"
        )
        word = paint("good", "ok") if judged else paint("dim", "nothing to count")
        say(f"{line}  {word if leg.is_good else paint('bad', 'FAILED')}")
    for leg in legs:
        _show_leg(leg, say, paint, is_verbose=is_verbose)
    say()
    say("checks: distinct ids that passed and that a dead implementation does not pass")
    free = {name for leg in legs for one in leg.scenarios for name in one.passed_dead}
    if free:
        say(
            f"dead too: a dead implementation passes them as well; not counted: {', '.join(sorted(free))}"
        )
    _show_names(
        "not yet", {one.scenario for leg in legs for one in _with(leg, Verdict.NOT_YET)}, say
    )
    for name in sorted({name for leg in legs for one in leg.scenarios for name in one.told}):
        say(f"told, not counted: {name} ({IS_INFO[name]})")


def _show_leg(leg: LegOutcome, say: Any, paint: _Paint, *, is_verbose: bool) -> None:
    shown = leg.scenarios if is_verbose else _with(leg, Verdict.FAILED)
    if not shown and not leg.complaints:
        return
    say()
    say(paint("bold", leg.leg.name))
    for complaint in leg.complaints:
        _show_complaint(complaint, say, paint)
    for one in shown:
        match one.verdict:
            case Verdict.PASSED:
                say(f"  {paint('good', 'ok')}      {one.scenario}  {len(one.counted)}")
            case Verdict.NOT_YET:
                say(f"  {paint('later', 'not yet')} {one.scenario}")
            case Verdict.FAILED:
                say(f"  {paint('bad', 'FAILED')}  {one.scenario}")
                for complaint in one.complaints:
                    _show_complaint(complaint, say, paint)


def _show_complaint(complaint: Complaint, say: Any, paint: _Paint) -> None:
    say(f"    {paint('bad', '-')} {f'{complaint.check} {complaint.why}'.strip()}")
    for line in complaint.details.splitlines():
        say(paint("dim", f"        {line}"))


def _show_names(what: str, names: set[str], say: Any) -> None:
    if names:
        say(f"{what}, run and never counted: {', '.join(sorted(names))}")


def _with(leg: LegOutcome, *verdicts: Verdict) -> list[Outcome]:
    return [one for one in leg.scenarios if one.verdict in verdicts]


def as_json(legs: Sequence[LegOutcome]) -> dict[str, Any]:
    """Everything, as JSON values."""
    return {
        "suite": SUITE_VERSION,
        "good": all(leg.is_good for leg in legs),
        "legs": [
            {
                "name": leg.leg.name,
                "side": leg.leg.side,
                "wire": leg.leg.wire,
                "good": leg.is_good,
                "seconds": round(leg.seconds, 1),
                "complaints": [_complaint(one) for one in leg.complaints],
                "scenarios": [
                    {
                        "name": one.scenario,
                        "verdict": one.verdict.value,
                        "counted": list(one.counted),
                        "passed_dead": list(one.passed_dead),
                        "told": list(one.told),
                        "complaints": [_complaint(each) for each in one.complaints],
                    }
                    for one in leg.scenarios
                ],
            }
            for leg in legs
        ],
    }


def _complaint(one: Complaint) -> dict[str, str]:
    return {"check": one.check, "why": one.why, "details": one.details}
