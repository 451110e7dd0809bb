"""What the suite's checks prove: pure functions from what it wrote to a verdict.

The suite's own summary is too kind: a check that was not made, was skipped or only warns counts for
nothing there, and some checks pass when nothing is listening at all. Here every expected check must have
passed, nothing may have failed, warned or been skipped, and a check is counted only if a dead
implementation does not pass it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from conformance.expected import IS_INFO, is_not_yet

__all__ = ["Check", "Complaint", "Outcome", "Verdict", "complaint_of", "judge", "read_checks"]

# What a person reads of a failure's details; requests and answers of the suite fit.
MAX_DETAILS = 2_000


class Verdict(Enum):
    """What became of a scenario."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_YET = "not yet"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the suite's result."""

    id: str
    status: str
    message: str = ""
    details: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One reason why a scenario did not pass. `check` is empty when it is about the whole."""

    check: str
    why: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario with its verdict.

    `counted` are the ids of checks that passed and that a dead implementation does not pass; `passed_dead`
    those that it does; `told` those that the suite only tells about.
    """

    scenario: str
    verdict: Verdict
    counted: tuple[str, ...] = ()
    passed_dead: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    complaints: tuple[Complaint, ...] = ()


def read_checks(text: str) -> list[Check]:
    """The checks of a `checks.json`. Raises ValueError if it is none."""
    listed = json.loads(text)
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ValueError("not a list of checks")
    return [_check(one) for one in listed]


def _check(one: Mapping[str, Any]) -> Check:
    details = one.get("details")
    shown = "" if details is None else json.dumps(details, indent=1, ensure_ascii=False)
    message = one.get("errorMessage") or ""
    return Check(str(one.get("id")), str(one.get("status")), str(message), shown[:MAX_DETAILS])


def judge(
    scenario: str,
    checks: Sequence[Check] | None,
    dead: Iterable[Check],
    expected: frozenset[str] | None,
    *,
    faults: Iterable[Complaint] = (),
) -> Outcome:
    """The verdict on one scenario.

    `checks` is None when the scenario wrote nothing, `dead` what a dead implementation got, `expected`
    the ids that must be there, None for a scenario that nobody knows. `faults` are what was seen beside
    the checks: a crash, words on stderr.
    """
    if is_not_yet(scenario):
        return Outcome(scenario, Verdict.NOT_YET)
    complaints = list(faults)
    if checks is None:
        complaints.append(Complaint("", "the scenario wrote no result: it threw, or never ended"))
        checks = ()
    if expected is None:
        complaints.append(Complaint("", "nobody knows this scenario: add it to expected.py"))
        expected = frozenset()
    complaints += [found for check in checks if (found := _complaint(check)) is not None]

    passed = _ids(checks, "SUCCESS")
    told = _ids(checks, "INFO") & IS_INFO.keys()
    # A check that failed has its complaint already.
    seen = passed | told | {complaint.check for complaint in complaints}
    complaints += [Complaint(name, "was not made") for name in sorted(expected - seen)]

    passed_dead = passed & _ids(dead, "SUCCESS")
    counted = passed - passed_dead
    if not counted:
        complaints.append(Complaint("", "nothing passed that a dead implementation does not pass"))
    return Outcome(
        scenario,
        Verdict.FAILED if complaints else Verdict.PASSED,
        tuple(sorted(counted)),
        tuple(sorted(passed_dead)),
        tuple(sorted(told - passed)),
        tuple(complaints),
    )


def _complaint(check: Check) -> Complaint | None:
    if check.status in ("SUCCESS", "INFO"):
        return None
    why = {"FAILURE": "failed", "WARNING": "warned", "SKIPPED": "was skipped"}.get(
        check.status, f"has the unknown status {check.status}"
    )
    said = f"{why}: {check.message}" if check.message else why
    return complaint_of(said, check=check.id, details=check.details)


def complaint_of(said: str, *, check: str = "", details: str = "") -> Complaint:
    """A complaint whose first line is the reason; the others go before the details."""
    why, *rest = said.splitlines() or [""]
    return Complaint(check, why, "\n".join([*rest, details] if details else rest))


def _ids(checks: Iterable[Check], status: str) -> set[str]:
    return {check.id for check in checks if check.status == status}
