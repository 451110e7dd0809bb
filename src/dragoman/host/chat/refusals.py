"""What a model is told of a call that was refused, or that failed."""

from __future__ import annotations

from dragoman.errors import (
    DeadlineExceeded,
    DragomanError,
    LinkError,
    Refused,
    RemoteFailure,
)
from dragoman.host.kinds import Action, Code, Denied

__all__ = ["failure_text", "refusal_text", "is_withheld"]

_BECAUSE = {
    Code.IDENTITY_CHANGED: "the server is not the one that was reviewed",
    Code.SERVER_BLOCKED: "the server is blocked",
    Code.PIN_CHANGED: "the tool's definition has changed since it was reviewed",
    Code.PIN_UNKNOWN: "the tool has not been reviewed",
    Code.RULE_DENIED: "a rule forbids it",
    Code.PERSON_DENIED: "the user said no",
    Code.DENIED_BEFORE: "the user said no before",
    Code.CANCELLED: "the user did not decide",
    Code.DEADLINE: "nobody answered in time",
    Code.NOBODY_TO_ASK: "it needs a decision, and there is nobody to ask",
    Code.FLOW_DENIED: "data may not go there",
    Code.RATE_LIMIT: "there were too many requests",
    Code.BUDGET: "the budget is used up",
}


def refusal_text(refused: Refused) -> str:
    """What a model is told of a refusal: always the same words, with the stable code.

    The rule stays out of it. What the person gave as their reason is for the model, and is there.
    """
    code = refused.code if isinstance(refused, Denied) else Code.RULE_DENIED
    because = _BECAUSE.get(code, "the host does not allow it")
    ran = "It was not run; do not try it again unasked."
    if is_withheld(refused):
        ran = "It was run, and its answer is withheld; do not try it again unasked."
    reason = ""
    if isinstance(refused, Denied) and code in (Code.PERSON_DENIED, Code.CANCELLED):
        reason = f" Their reason: {refused.note.strip()}" if refused.note.strip() else ""
    return f"Refused ({code}): {because}. {ran}{reason}"


def is_withheld(refused: Refused) -> bool:
    """Whether it was the answer that was refused, after the request."""
    return refused.subject.startswith(f"{Action.RESULT_RELEASE}(")


def failure_text(error: DragomanError) -> str:
    """What a model is told of a call that failed, and whether it may have run."""
    if isinstance(error, RemoteFailure):
        return f"The server answered with an error: {error.message} ({error.code})"
    if isinstance(error, DeadlineExceeded):
        return f"Failed: {error}. It may have run."
    if isinstance(error, LinkError):
        ran = "It was not run." if error.sent is False else "It may have run."
        # Not its text: the end of a child's stderr, a stranger's page, is in there.
        return f"Failed: the connection to the server broke. {ran}"
    return f"Failed: {error}"
