"""Exit codes: how a command ended, for scripts."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from dragoman.errors import (
    CannotLower,
    ChildExited,
    DeadlineExceeded,
    HttpError,
    LinkError,
    LocalError,
    NotNegotiated,
    Refused,
    RemoteFailure,
    ToolError,
)
from dragoman.host.kinds import Denied

__all__ = ["Exit", "describe", "exit_for", "text_of"]


class Exit(IntEnum):
    """Every code a command can end with."""

    OK = 0
    TOOL_FAILED = 1
    # What shells and click use for a wrong command line.
    USAGE = 2
    NO_CONNECTION = 3
    REMOTE = 4
    TIMEOUT = 5
    # Policy or the person said no.
    REFUSED = 6
    # EX_SOFTWARE: a fault of our own.
    INTERNAL = 70
    # EX_IOERR: a disk that is full, as a rule that of stdout.
    OUTPUT = 74
    # As a shell reports a program that SIGINT or SIGPIPE ended: 128 and the signal's number.
    INTERRUPTED = 130
    BROKEN_PIPE = 141


KINDS = {
    Exit.TOOL_FAILED: "tool-failed",
    Exit.USAGE: "usage",
    Exit.NO_CONNECTION: "no-connection",
    Exit.REMOTE: "remote",
    Exit.TIMEOUT: "timeout",
    Exit.REFUSED: "refused",
    Exit.INTERNAL: "internal",
    Exit.INTERRUPTED: "interrupted",
}


def exit_for(error: BaseException) -> Exit:
    """How a command ends that met this error.

    A local fault is the person's, except that what the server did not declare, or its revision
    cannot hold, is the server's answer.
    """
    match error:
        case ToolError():
            return Exit.TOOL_FAILED
        case DeadlineExceeded():
            return Exit.TIMEOUT
        case HttpError() if error.status in range(400, 500) and error.status not in _PASSING:
            return Exit.REMOTE
        case LinkError():
            return Exit.NO_CONNECTION
        case NotNegotiated() | CannotLower():
            return Exit.REMOTE
        case Refused():
            return Exit.REFUSED
        case LocalError():
            return Exit.USAGE
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case BrokenPipeError():
            return Exit.BROKEN_PIPE
        case _:
            return Exit.REMOTE


def text_of(error: BaseException) -> str:
    """What happened, with the remedies that a command line has."""
    text = str(error)
    for in_code, here in _REMEDIES.items():
        text = text.replace(in_code, here)
    return text


# Errors name what a program would write.
_REMEDIES = {
    "timeout_s=": "--timeout SECONDS",
    "pass token= or headers=": "name the variable that holds a token with --token-env, or use --header",
    "HttpOptions(verify=FILE)": "--ca FILE",
    "verify=": "--ca ",
    ", or HttpOptions(allow_plain_secrets=True) on a network you trust": "",
}

# Statuses that say no more than that it cannot be had at the moment.
_PASSING = frozenset({408, 429})


def describe(error: BaseException, code: Exit) -> dict[str, Any]:
    """The error as the JSON document a command prints instead of its result."""
    shown: dict[str, Any] = {"kind": KINDS[code], "exit": int(code), "message": text_of(error)}
    if isinstance(error, RemoteFailure):
        shown |= {"message": error.message, "code": error.code, "method": error.method}
        if error.data is not None:
            shown["data"] = error.data
    elif isinstance(error, ChildExited):
        shown |= {"childExitCode": error.exit_code, "stderr": error.stderr_tail}
    elif isinstance(error, Denied):
        shown |= {"code": error.code.value, "subject": error.subject, "rule": error.rule}
        if error.step is not None:
            shown["step"] = error.step.value
        if error.server:
            shown["server"] = error.server
        if error.diff:
            shown["diff"] = error.diff
    elif isinstance(error, HttpError) and error.status is not None:
        shown["status"] = error.status
    return {"error": shown}
