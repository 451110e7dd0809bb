"""Every error there is has its exit code."""

from __future__ import annotations

import pytest

from dragoman import errors
from dragoman.cli import BROKEN_PIPE, OUTPUT, USAGE
from dragoman.cli.exits import KINDS, Exit, describe, exit_for, text_of
from dragoman.host.kinds import Code, Denied, Step


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ToolError("x"), 1),
        (errors.Misconfigured("x"), 2),
        (errors.MissingExtra("cli", "x"), 2),
        (errors.WrongState("open", "x"), 2),
        (errors.CannotStart("x", command=["y"]), 3),
        (errors.ChildExited(command=["y"], exit_code=1, stderr_tail=""), 3),
        (errors.LinkClosed("x"), 3),
        (errors.HttpError("x", sent=None, url="http://y"), 3),
        (errors.HttpError("x", sent=None, url="http://y", status=502), 3),
        (errors.HttpError("x", sent=False, url="http://y", status=429), 3),
        (errors.HttpError("x", sent=False, url="http://y", status=401), 4),
        (errors.SessionLost(), 3),
        (errors.RemoteFailure(-1, "x"), 4),
        (errors.NotNegotiated("x"), 4),
        (errors.CannotLower("x", "y"), 4),
        (errors.PeerError("x"), 4),
        (errors.LimitExceeded("x", 1, "y"), 4),
        (errors.DeadlineExceeded("x", 1), 5),
        (errors.Refused("no", "x"), 6),
        (Denied(Code.RULE_DENIED, "x", "no"), 6),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_ends_a_command_with_its_code(error: BaseException, code: int) -> None:
    assert exit_for(error) == code


def test_the_codes_that_need_nothing_loaded_are_the_same() -> None:
    assert (Exit.USAGE, Exit.OUTPUT, Exit.BROKEN_PIPE) == (USAGE, OUTPUT, BROKEN_PIPE)


def test_every_code_that_is_printed_has_a_kind() -> None:
    assert set(KINDS) == set(Exit) - {Exit.OK, Exit.OUTPUT, Exit.BROKEN_PIPE}


def test_a_remote_failure_is_described_with_its_number_and_data() -> None:
    error = errors.RemoteFailure(-32002, "gone", {"uri": "x"}, method="resources/read")
    assert describe(error, Exit.REMOTE)["error"] == {
        "kind": "remote",
        "exit": 4,
        "message": "gone",
        "code": -32002,
        "method": "resources/read",
        "data": {"uri": "x"},
    }


def test_a_refusal_is_described_with_its_code_and_the_step_that_decided() -> None:
    error = Denied(
        Code.IDENTITY_CHANGED,
        "server.start(x)",
        "it changed",
        step=Step.INTEGRITY,
        server="x",
        diff="- a",
    )
    shown = describe(error, Exit.REFUSED)["error"]
    assert shown.pop("message") == str(error)
    assert shown == {
        "kind": "refused",
        "exit": 6,
        "code": "identity_changed",
        "subject": "server.start(x)",
        "rule": "it changed",
        "step": "integrity",
        "server": "x",
        "diff": "- a",
    }


def test_the_status_of_a_refusal_is_told() -> None:
    error = errors.HttpError("no", sent=False, url="http://y", status=403)
    assert describe(error, Exit.REMOTE)["error"] == {
        "kind": "remote",
        "exit": 4,
        "message": "no",
        "status": 403,
    }


def test_remedies_are_those_of_a_command_line() -> None:
    text = text_of(errors.Misconfigured("secret. pass token= or headers="))
    assert "--token-env" in text
    assert "token=" not in text
