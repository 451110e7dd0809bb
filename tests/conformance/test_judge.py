"""The judge of the conformance suite is stricter than the suite: each way to look well must fail."""

from __future__ import annotations

import io
import json

import pytest

from conformance import client, legs
from conformance.expected import IS_INFO, client_checks, server_checks
from conformance.judge import Check, Complaint, Outcome, Verdict, judge, read_checks
from conformance.legs import LEGS, LegOutcome
from conformance.report import as_json, show

GOOD = [Check("ping", "SUCCESS"), Check("wire-schema-valid", "SUCCESS")]
DEAD = [Check("ping", "FAILURE"), Check("wire-schema-valid", "SUCCESS")]
IDS = frozenset({"ping", "wire-schema-valid"})


def verdict(checks: list[Check] | None, **changes: object) -> Outcome:
    given = {"dead": DEAD, "expected": IDS, **changes}
    return judge("ping", checks, **given)  # type: ignore[arg-type]


def test_a_scenario_passes_when_each_expected_check_did() -> None:
    outcome = verdict(GOOD)
    assert outcome.verdict is Verdict.PASSED
    assert outcome.complaints == ()


def test_a_check_that_a_dead_implementation_passes_is_shown_and_not_counted() -> None:
    outcome = verdict(GOOD)
    assert outcome.counted == ("ping",)
    assert outcome.passed_dead == ("wire-schema-valid",)


@pytest.mark.parametrize("status", ["FAILURE", "WARNING", "SKIPPED", "SOMETHING"])
def test_any_check_that_did_not_pass_fails_the_scenario(status: str) -> None:
    outcome = verdict([*GOOD, Check("extra", status, "because")])
    assert outcome.verdict is Verdict.FAILED
    assert [complaint.check for complaint in outcome.complaints] == ["extra"]


def test_a_check_that_passed_once_and_failed_once_fails() -> None:
    assert verdict([*GOOD, Check("ping", "FAILURE")]).verdict is Verdict.FAILED


def test_an_expected_check_that_was_never_made_fails_the_scenario() -> None:
    outcome = verdict([Check("ping", "SUCCESS")])
    assert outcome.complaints == (Complaint("wire-schema-valid", "was not made"),)


def test_a_check_that_is_only_told_about_does_not_stand_for_one_that_passed() -> None:
    outcome = verdict([Check("ping", "INFO"), Check("wire-schema-valid", "SUCCESS")])
    assert [complaint.check for complaint in outcome.complaints] == ["ping", ""]


def test_a_check_that_may_be_told_is_shown_and_not_counted() -> None:
    (name,) = IS_INFO
    outcome = verdict([*GOOD, Check(name, "INFO")], expected=IDS | {name})
    assert outcome.verdict is Verdict.PASSED
    assert outcome.told == (name,)
    assert name not in outcome.counted


def test_a_scenario_without_a_result_fails() -> None:
    assert verdict(None).verdict is Verdict.FAILED
    assert verdict([]).verdict is Verdict.FAILED


def test_a_scenario_that_nobody_knows_fails() -> None:
    assert verdict(GOOD, expected=None).verdict is Verdict.FAILED


def test_a_scenario_that_a_dead_implementation_passes_proves_nothing() -> None:
    outcome = verdict(GOOD, dead=GOOD)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.counted == ()


def test_a_client_that_crashed_after_its_checks_fails() -> None:
    assert verdict(GOOD, faults=[Complaint("", "it crashed")]).verdict is Verdict.FAILED


def test_a_scenario_about_authorization_is_never_counted() -> None:
    outcome = judge("auth/basic-cimd", GOOD, DEAD, IDS)
    assert outcome == Outcome("auth/basic-cimd", Verdict.NOT_YET)


def test_the_suites_result_is_read_with_its_reasons() -> None:
    text = json.dumps(
        [{"id": "a", "status": "FAILURE", "errorMessage": "no", "details": {"got": 1}}]
    )
    (check,) = read_checks(text)
    assert (check.id, check.status, check.message) == ("a", "FAILURE", "no")
    assert '"got": 1' in check.details
    with pytest.raises(ValueError, match="not a list"):
        read_checks('{"id": 1}')


def test_the_number_of_scenarios_is_the_suites() -> None:
    # `list --spec-version`, without those about authorization.
    assert [len(leg.expected) for leg in LEGS] == [1, 27, 27, 33, 33, 0, 2, 5, 0, 2, 5]


def test_the_runner_waits_for_the_words_that_our_client_says() -> None:
    assert legs.DONE == client.DONE


def test_each_scenario_expects_a_check() -> None:
    for wire in ("2025-03-26", "2025-06-18", "2025-11-25"):
        for checks in (server_checks(wire), client_checks(wire)):
            assert all(checks.values())


def test_a_leg_is_good_only_if_all_of_it_is() -> None:
    leg = LegOutcome(LEGS[0], [verdict(GOOD)])
    assert leg.is_good
    assert not LegOutcome(LEGS[0], [verdict(GOOD), verdict([])]).is_good
    assert not LegOutcome(LEGS[0], [verdict(GOOD)], [Complaint("", "the server died")]).is_good


def test_the_report_names_what_failed_and_what_was_left_out() -> None:
    later = judge("auth/basic-cimd", GOOD, DEAD, IDS)
    failed = verdict([*GOOD, Check("extra", "WARNING", "too slow", "a line")])
    leg = LegOutcome(LEGS[0], [failed, later], [Complaint("", "the server died")])
    out = io.StringIO()
    show([leg], out)
    for words in ("0/1", "extra warned: too slow", "a line", "the server died", "auth/basic-cimd"):
        assert words in out.getvalue()
    assert "\x1b" not in out.getvalue()
    document = json.loads(json.dumps(as_json([leg])))
    assert document["good"] is False
    assert [one["verdict"] for one in document["legs"][0]["scenarios"]] == ["failed", "not yet"]
