"""The words of the host: what may be wanted, what is asked, what is answered, what is remembered.

Records only. An `Intent` is one thing somebody wants done; policy turns it into a `Verdict`; where
that says "ask", an `ApprovalRequest` goes to the person and a `Decision` comes back, which may
leave a `Grant` behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from dragoman.errors import Refused, RemoteFailure

__all__ = [
    "Action",
    "ApprovalRequest",
    "Approver",
    "Code",
    "Decision",
    "Denied",
    "Effect",
    "Grant",
    "Intent",
    "Limits",
    "Problem",
    "Risk",
    "Scope",
    "Step",
    "Trust",
    "Verdict",
    "View",
    "VisitRequired",
]


class Action(StrEnum):
    """Everything that needs a decision."""

    SERVER_START = "server.start"
    SERVER_CONNECT = "server.connect"
    AUTH_AUTHORIZE = "auth.authorize"
    TOOL_EXPOSE = "tool.expose"
    TOOL_CALL = "tool.call"
    RESULT_RELEASE = "result.release"
    RESOURCE_READ = "resource.read"
    FLOW = "flow"
    PROMPT_GET = "prompt.get"
    COMPLETE = "complete"
    ROOTS_EXPOSE = "roots.expose"
    SAMPLING_REQUEST = "sampling.request"
    SAMPLING_RELEASE = "sampling.release"
    ELICIT_FORM = "elicit.form"
    ELICIT_URL = "elicit.url"
    TASK_INPUT = "task.input"
    EXPORT = "export"


class Trust(StrEnum):
    """What the user thinks of a server. Only `TRUSTED` lets its annotations relax anything."""

    UNKNOWN = "unknown"
    REVIEWED = "reviewed"
    TRUSTED = "trusted"
    BLOCKED = "blocked"
    # Its identity is not the one that was reviewed.
    CHANGED = "changed"


class Effect(StrEnum):
    """What a rule, a grant, a decision or a verdict says; a verdict alone can say ASK."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"
    # A decision only: the person walked away from this one. Nothing is remembered.
    CANCEL = "cancel"


class Scope(StrEnum):
    """How long a decision holds."""

    ONCE = "once"
    SESSION = "session"
    ALWAYS = "always"


class Step(StrEnum):
    """The step of the evaluation that decided; in this order."""

    INTEGRITY = "integrity"
    DENY = "deny"
    ASK = "ask"
    RISK = "risk"
    GRANT = "grant"
    DEFAULT = "default"


class Code(StrEnum):
    """Why something was refused: stable, for scripts, logs and models."""

    IDENTITY_CHANGED = "identity_changed"
    SERVER_BLOCKED = "server_blocked"
    PIN_CHANGED = "pin_changed"
    PIN_UNKNOWN = "pin_unknown"
    DEFINITION_UNFIT = "definition_unfit"
    ARGUMENTS_UNFIT = "arguments_unfit"
    URL_UNFIT = "url_unfit"
    ROOT_UNFIT = "root_unfit"
    RULE_DENIED = "rule_denied"
    PERSON_DENIED = "person_denied"
    # A stored no answered: the person was not asked again.
    DENIED_BEFORE = "denied_before"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    NOBODY_TO_ASK = "nobody_to_ask"
    TOO_MANY_WAITING = "too_many_waiting"
    # The decision was for another view than the one that was asked about.
    VIEW_CHANGED = "view_changed"
    # What was about to be sent is not what was approved.
    PAYLOAD_CHANGED = "payload_changed"
    GRANT_SPENT = "grant_spent"
    RATE_LIMIT = "rate_limit"
    BUDGET = "budget"
    FLOW_DENIED = "flow_denied"
    NOT_OFFERED = "not_offered"
    # A form asks for what a form must not ask for: a password, a key, a card's number.
    SECRET_ASKED = "secret_asked"  # noqa: S105 - the name of a refusal
    AUDIT_FAILED = "audit_failed"
    STORE_FAILED = "store_failed"
    HOST_CLOSED = "host_closed"


class Denied(Refused):
    """The host refused. `.code` says why, `.step` where in the evaluation, `.server` whom it met.

    `.rule` (a sentence or the rule's own text) and `.subject` are those of `Refused`.
    """

    def __init__(
        self,
        code: Code,
        subject: str,
        rule: str,
        *,
        step: Step | None = None,
        server: str = "",
        diff: str = "",
        note: str = "",
        decision: int = 0,
        approval: str = "",
        source: str = "",
    ) -> None:
        self.code = code
        self.step = step
        self.server = server
        # What changed, for people, where something did; several lines.
        self.diff = diff
        # What the person said beside their no.
        self.note = note
        # The number of the audit record of the refusal; 0 when there is none.
        self.decision = decision
        # The id of the question that it is the answer to, or that got none; "" when nobody was asked.
        self.approval = approval
        # Where the rule stands, "FILE:LINE", or the id of a grant; "" for a sentence of ours.
        self.source = source
        super().__init__(rule, subject)


# What a caller, and with it a model, is told; the rule and the address stay out of it.
_NOT_REPEATED = {
    Code.PERSON_DENIED: "the user declined",
    Code.CANCELLED: "the user did not decide",
    Code.DEADLINE: "it was not done in time",
    Code.NOBODY_TO_ASK: "there is nobody to ask",
    Code.BUDGET: "it asked for too much",
    Code.RATE_LIMIT: "it asked too often",
}


class VisitRequired(RemoteFailure):
    """The server wants the user at an address first (-32042), and the request was not sent again.

    `.reason` says why not. `.data` is what the server sent; what is in it was shown to the user, or
    is not to be: nobody else should send them there.

    Spec: client/elicitation#url-elicitation-required-error
    """

    def __init__(self, refusal: RemoteFailure, reason: Code) -> None:
        self.reason = reason
        why = _NOT_REPEATED.get(reason, "the host does not allow it")
        super().__init__(
            refusal.code,
            f"the server wants the user at an address first, and {why}",
            refusal.data,
            method=refusal.method,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A fault that no rule overrides: a changed identity or pin, an unfit schema, URL or root."""

    code: Code
    text: str
    diff: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """One thing that somebody wants done.

    `object` is what it is done to: a tool's name, a resource's or root's URI, a prompt's name, a
    model's name, a URL; for a flow "SOURCE -> SINK". `arguments` are what a grant's matchers look
    at. `fingerprint` is the pinned digest of the definition concerned. `taint` names the servers
    whose words may have led to this. `is_destructive`, `is_open_world` and `is_read_only` are what
    the server claims; what it does not claim counts as the worse (server/tools#tool-annotations).
    `claims_destructive` is that the server says so itself, in so many words.
    `problems` are the integrity faults found; a single one is the end of it.
    """

    action: Action
    server: str
    identity: str
    object: str
    principal: str = "user"
    arguments: Mapping[str, Any] | None = None
    fingerprint: str = ""
    trust: Trust = Trust.UNKNOWN
    is_destructive: bool = True
    is_open_world: bool = True
    is_read_only: bool = False
    claims_destructive: bool = False
    taint: frozenset[str] = frozenset()
    model: str = ""
    tokens: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def subject(self) -> str:
        """For people: what it is about."""
        return (
            f"{self.action}({self.server}/{self.object})"
            if self.object
            else (f"{self.action}({self.server})")
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What policy says of an intent, and why.

    `rule` is the text of the rule or a sentence of ours, `layer` the file's layer ("managed",
    "user", "project", "command line", "grants" or "built in"), `source` "FILE:LINE" of a rule or
    the id of a grant. `trail` has one line for each step that was looked at, for `explain`.
    `grant` is the one that allowed it, to be spent.
    """

    effect: Effect
    step: Step
    rule: str
    layer: str = "built in"
    source: str = ""
    code: Code | None = None
    grant: str = ""
    trail: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Risk:
    """Something a person should know before they say yes. `text` is a sentence of ours."""

    code: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a person decides about, whole.

    `payload` is the exact JSON text of what will be sent or released; whatever shows it may lay it
    out, but never cuts it. `headline` is a sentence of ours. `facts` are (label, text) pairs beside
    it, such as a server's command line or where the result goes; labels are ours, texts may be a
    stranger's.
    """

    headline: str
    payload: bytes
    facts: tuple[tuple[str, str], ...] = ()

    def digest(self, intent: Intent) -> str:
        """What binds a decision to this view: SHA-256 over all of it and over what it is for."""
        sha = hashlib.sha256()
        parts = [intent.principal, intent.action, intent.server, intent.identity, intent.object]
        parts += [self.headline, *(text for fact in self.facts for text in fact)]
        for part in (*(text.encode("utf-8", "surrogatepass") for text in parts), self.payload):
            # A length before each part: no two lists of parts run together to the same bytes.
            sha.update(len(part).to_bytes(8, "big"))
            sha.update(part)
        return f"sha256:{sha.hexdigest()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a grant is limited to; None means no limit.

    `arguments` maps a JSON pointer into the arguments to the texts it may have there: exact values
    as JSON, or a glob for strings ("glob:/srv/app/*"). `taint` are the servers whose words may
    have led to what it allows. `expires_at` is in seconds since the epoch.
    """

    arguments: Mapping[str, tuple[str, ...]] | None = None
    taint: frozenset[str] = frozenset()
    max_calls: int | None = None
    models: tuple[str, ...] | None = None
    max_tokens: int | None = None
    expires_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """A remembered decision; a no is one, too.

    `object` is exact. `session` is the host's session it holds in, empty for ALWAYS. `fingerprint`
    is the definition it was given for: another one is not covered. `approval` is the id of the
    request that led to it. `calls` is how often it was used.
    """

    id: str
    effect: Effect
    principal: str
    server: str
    identity: str
    action: Action
    object: str
    scope: Scope
    session: str = ""
    fingerprint: str = ""
    limits: Limits = field(default_factory=Limits)
    approval: str = ""
    created_at: float = 0.0
    calls: int = 0
    revoked_at: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ApprovalRequest:
    """One question to the person.

    `server` is the alias the user gave it, never what it says of itself. `editable` are JSON
    pointers into the payload that may be changed ("" is all of it). `timeout_s` is how long there
    is to answer; after that the answer is no. Two requests with the same `dedupe_key` are one.
    `askers` is how many wait for this answer, `up_to` the number of the last of them: they are
    numbered from 1 in the order in which they asked, and who goes away keeps its number.
    """

    id: str
    intent: Intent
    view: View
    view_digest: str
    why: str
    risks: tuple[Risk, ...] = ()
    scopes: tuple[Scope, ...] = (Scope.ONCE, Scope.SESSION, Scope.ALWAYS)
    editable: tuple[str, ...] = ()
    timeout_s: float = 300.0
    dedupe_key: str = ""
    trace: str = ""
    askers: int = 1
    up_to: int = 1

    @property
    def action(self) -> Action:
        """What is to be done."""
        return self.intent.action

    @property
    def server(self) -> str:
        """The alias of the server concerned."""
        return self.intent.server

    def allow(
        self, scope: Scope | str | None = None, *, payload: bytes | None = None, note: str = ""
    ) -> Decision:
        """A yes; `payload` is what shall be sent instead.

        Without a `scope` it is the narrowest that is offered: ONCE, but for what has to hold longer.
        It is for those who waited when this request was made, and for nobody who came later.
        """
        if scope is None:
            scope = next((one for one in Scope if one in self.scopes), Scope.ONCE)
        return Decision(
            effect=Effect.ALLOW,
            scope=Scope(scope),
            view_digest=self.view_digest,
            payload=payload,
            note=note,
            up_to=self.up_to,
        )

    def deny(self, scope: Scope | str = Scope.ONCE, *, note: str = "") -> Decision:
        """A no; with SESSION or ALWAYS it is remembered."""
        return Decision(
            effect=Effect.DENY, scope=Scope(scope), view_digest=self.view_digest, note=note
        )

    def cancel(self) -> Decision:
        """Neither: whoever asked is told that the person walked away."""
        return Decision(effect=Effect.CANCEL, view_digest=self.view_digest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The answer to one request.

    `view_digest` must be that of the request: an answer to another view is refused. `payload` is
    the edited JSON text, None to take it as it is. `note` is for whoever asked: the reason of a no.
    `actor` and `channel` say who answered and where. A yes for ONCE is for the askers up to the
    number `up_to`, those that the person knew of; who came later is asked about anew. `approval` is
    the id of the question that it answered; the broker fills it in.
    """

    effect: Effect
    view_digest: str
    scope: Scope = Scope.ONCE
    payload: bytes | None = None
    note: str = ""
    actor: str = ""
    channel: str = ""
    up_to: int = 1
    approval: str = ""


@runtime_checkable
class Approver(Protocol):
    """Whoever can be asked: a terminal, a web page, a callback of yours.

    It is cancelled when another one was faster, or when time is up. Whatever it raises counts as a
    no. One that has a method `askers_changed(request)` is told when more, or fewer, wait for an
    answer that it has been asked for; the request is the one that it was given, but for the numbers.
    """

    async def decide(self, request: ApprovalRequest) -> Decision:
        """Answer one question. Several may be asked at the same time."""
