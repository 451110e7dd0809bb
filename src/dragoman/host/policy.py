"""May this happen? A pure function of rules, grants and one intent, with its reasons.

The order is fixed, and how specific a rule is never matters: integrity, deny, ask, risk, grants
and allow, default. A later step cannot undo what an earlier one refused. A rule that says ask, or
a risk, is answered by a person: now, or by a grant they gave for exactly this; never by an allow
rule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from dragoman.host.kinds import (
    Action,
    Code,
    Effect,
    Grant,
    Intent,
    Risk,
    Scope,
    Step,
    Trust,
    Verdict,
)
from dragoman.host.rules import Pattern, Rule, at_pointer

__all__ = [
    "AuditRules",
    "Bounds",
    "Ignored",
    "Origin",
    "PinRules",
    "Policy",
    "SamplingRules",
    "covers",
    "evaluate",
    "explain",
    "risks_of",
]

# 4,096 objects: the tools of every server a person runs. Beyond it the memory starts anew, since
# the URIs of resources have no end.
MAX_REMEMBERED = 4096
# 1,024 characters: a tool's name has 128; longer objects are looked at each time.
MAX_REMEMBERED_CHARS = 1024

# What brings nothing to a server that the model has chosen: a flow names its source itself.
_UNTAINTED = {Action.FLOW, Action.TOOL_EXPOSE, Action.RESULT_RELEASE}
# What a server asks for on its own: its own words are the request, not what led to it.
_ASKED_BY_SERVER = {
    Action.ROOTS_EXPOSE,
    Action.SAMPLING_REQUEST,
    Action.SAMPLING_RELEASE,
    Action.ELICIT_FORM,
    Action.ELICIT_URL,
    Action.TASK_INPUT,
}
# Whose allow may speak for a destructive tool: what a repository ships may not.
_OWN_LAYERS = {"managed", "user", "command line"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a setting stands: the layer, and "FILE:LINE"."""

    layer: str = "built in"
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ignored:
    """Something in a policy file that has no effect: where, what and why."""

    source: str
    text: str
    why: str

    def __str__(self) -> str:
        return f"{self.source}: {self.text} is ignored: {self.why}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingRules:
    """What servers may have a model say.

    `models` are patterns of models' names, any of which must fit; with several layers, one of each
    in `further_models`, too. `release` is about the answer that the server gets to see.
    """

    default: Literal["ask", "deny", "allow"] = "ask"
    models: tuple[str, ...] = ("*",)
    further_models: tuple[tuple[str, ...], ...] = ()
    release: Literal["ask", "allow"] = "ask"
    # 6 a minute: about what a person can read and answer.
    max_per_minute: int = 6
    # 20,000: some ten pages of text for one server in one session.
    max_tokens_per_session: int = 20_000
    # 4,096: what most servers ask for at most, and one page of answer takes a quarter of it.
    max_tokens_per_request: int = 4096

    def allows_model(self, name: str) -> bool:
        """Whether that model may be used."""
        return all(
            any(_pattern(one).covers(name) for one in models)
            for models in (self.models, *self.further_models)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PinRules:
    """What happens when definitions change.

    "strict": a changed one is blocked; "warn": flagged; "frozen": blocked, and nothing new can be
    accepted. `new_tools` are hidden until they are reviewed, or asked about.
    """

    mode: Literal["strict", "warn", "frozen"] = "strict"
    new_tools: Literal["hide", "ask"] = "hide"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRules:
    """What is written of arguments, what happens when nothing can be, and what counts as written.

    `sync` "write" survives the death of the process, "disk" that of the machine.
    """

    args: Literal["shape", "digest", "full"] = "shape"
    on_write_failure: Literal["deny", "warn"] = "deny"
    sync: Literal["write", "disk"] = "write"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What bounds the asking."""

    # 300 s: time to read a long view; whoever is away for longer has not agreed.
    approval_timeout_s: float = 300.0
    # 64 questions: more than anybody answers; whoever asks more is refused.
    max_waiting: int = 64
    # 10 rounds: a form, its corrections and a few more; then a server asks in circles.
    max_input_rounds: int = 10


_Candidates = tuple[tuple[Rule, ...], tuple[Rule, ...], tuple[Rule, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """All that was decided beforehand.

    `rules` are in the order of their layers. `ignored` is what a project's file may not say until
    the project is trusted. `origins` tells where a setting ("defaultMode", "sampling.default")
    stands; what is not in it is built in.
    """

    rules: tuple[Rule, ...] = ()
    default_mode: Literal["ask", "deny"] = "ask"
    sampling: SamplingRules = field(default_factory=SamplingRules)
    pins: PinRules = field(default_factory=PinRules)
    audit: AuditRules = field(default_factory=AuditRules)
    bounds: Bounds = field(default_factory=Bounds)
    ignored: tuple[Ignored, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    _by_action: dict[Action, tuple[Rule, ...]] = field(init=False, repr=False, compare=False)
    _known: dict[tuple[Action, str, str, Trust], _Candidates] = field(
        init=False, repr=False, compare=False
    )
    # By the identity of a rule, which lives as long as the policy.
    _allowances: dict[int, Verdict] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_action: dict[Action, list[Rule]] = {}
        for rule in self.rules:
            by_action.setdefault(rule.action, []).append(rule)
        frozen = {action: tuple(rules) for action, rules in by_action.items()}
        object.__setattr__(self, "_by_action", frozen)
        object.__setattr__(self, "_known", {})
        object.__setattr__(self, "_allowances", {})

    @property
    def approval_timeout_s(self) -> float:
        """How long a person has to answer."""
        return self.bounds.approval_timeout_s

    def speaks_of(self, action: Action) -> bool:
        """Whether any rule is about this action."""
        return action in self._by_action

    def allowance_of(self, rule: Rule) -> Verdict:
        """What one of these rules says where it allows: made once, since most calls end here."""
        found = self._allowances.get(id(rule))
        if found is None:
            found = self._allowances[id(rule)] = _by_rule(rule, Step.GRANT)
        return found

    def rules_about(self, intent: Intent) -> tuple[tuple[Rule, ...], ...]:
        """The deny, ask and allow rules that speak of it, whatever its arguments are."""
        key = (intent.action, intent.server, intent.object, intent.trust)
        found = self._known.get(key)
        if found is None:
            about = [one for one in self._by_action.get(intent.action, ()) if one.is_about(intent)]
            found = (
                tuple(one for one in about if one.effect is Effect.DENY),
                tuple(one for one in about if one.effect is Effect.ASK),
                tuple(one for one in about if one.effect is Effect.ALLOW),
            )
            if len(intent.object) <= MAX_REMEMBERED_CHARS:
                if len(self._known) >= MAX_REMEMBERED:
                    self._known.clear()
                self._known[key] = found
        return found


def evaluate(
    policy: Policy,
    intent: Intent,
    grants: Sequence[Grant] = (),
    *,
    session: str,
    now: float,
    can_ask: bool,
) -> Verdict:
    """What policy says of it, without the trail.

    `grants` are those of the principal, a no included; `now` is in seconds since the epoch;
    `can_ask` is whether anybody could answer.
    """
    return _decide(policy, intent, grants, session, now, can_ask, None)


def explain(
    policy: Policy,
    intent: Intent,
    grants: Sequence[Grant] = (),
    *,
    session: str,
    now: float,
    can_ask: bool,
) -> Verdict:
    """The same verdict, its `trail` filled: a line for each step up to the one that decided."""
    trail: list[str] = []
    verdict = _decide(policy, intent, grants, session, now, can_ask, trail)
    said = f"{verdict.effect}" + (f" ({verdict.code})" if verdict.code else "")
    return replace(verdict, trail=(*trail, f"verdict: {said}, decided by step '{verdict.step}'"))


def _decide(
    policy: Policy,
    intent: Intent,
    grants: Sequence[Grant],
    session: str,
    now: float,
    can_ask: bool,
    trail: list[str] | None,
) -> Verdict:
    refused = _integrity(intent)
    if trail is not None:
        trail.append(f"integrity: {refused.rule if refused else 'nothing is wrong'}")
    if refused is not None:
        return refused

    denies, asks, allows = policy.rules_about(intent)
    refused = _denied(policy, intent, denies, grants, session, now)
    if trail is not None:
        trail.append(f"deny: {_told(refused) if refused else 'no rule and no stored no'}")
    if refused is not None:
        return refused

    to_ask: Verdict | None = None
    # Whether an owner of this host wrote that it shall be asked; not so a stranger, or a risk.
    is_wished = False
    for rule in asks:
        if rule.fits_arguments(intent) and not (to_ask and rule.only_tightens):
            to_ask = _by_rule(rule, Step.ASK)
            is_wished = not rule.only_tightens
            if is_wished:
                break
    if trail is not None:
        trail.append(f"ask: {_told(to_ask) if to_ask else 'no rule'}")

    allowing = [rule for rule in allows if rule.fits_arguments(intent)]
    risk = _risk(intent, allowing)
    if to_ask is None and risk:
        to_ask = Verdict(effect=Effect.ASK, step=Step.RISK, rule=risk)
    if trail is not None:
        trail.append(f"risk: {risk or 'nothing raises it'}")

    if to_ask is None and allowing:
        allowed = policy.allowance_of(allowing[0])
        if trail is not None:
            trail.append(f"grants and allow: {_told(allowed)}")
        return allowed
    grant = _grant_for(intent, grants, session, now)
    if trail is not None:
        trail.append(f"grants and allow: {_granted(grant, bool(allowing), to_ask is not None)}")
    if grant is not None:
        return Verdict(
            effect=Effect.ALLOW,
            step=Step.GRANT,
            rule="the person allowed exactly this before",
            layer="grants",
            source=grant.id,
            grant=grant.id,
        )
    verdict = to_ask
    if verdict is None or not (is_wished or allowing):
        default = _default(policy, intent)
        if trail is not None:
            trail.append(f"default: {_told(default)}")
        # What would be refused anyway is not asked about because it is a risk besides.
        if verdict is None or default.effect is Effect.DENY:
            verdict = default
    return _nobody(verdict) if verdict.effect is Effect.ASK and not can_ask else verdict


# --- the steps --------------------------------------------------------------------------------


def _integrity(intent: Intent) -> Verdict | None:
    if intent.problems:
        first = intent.problems[0]
        return Verdict(effect=Effect.DENY, step=Step.INTEGRITY, rule=first.text, code=first.code)
    if intent.trust is Trust.BLOCKED:
        return Verdict(
            effect=Effect.DENY,
            step=Step.INTEGRITY,
            rule="the server is blocked",
            code=Code.SERVER_BLOCKED,
        )
    if intent.trust is Trust.CHANGED:
        return Verdict(
            effect=Effect.DENY,
            step=Step.INTEGRITY,
            rule="the server is not the one that was reviewed",
            code=Code.IDENTITY_CHANGED,
        )
    return None


def _denied(
    policy: Policy,
    intent: Intent,
    denies: Sequence[Rule],
    grants: Sequence[Grant],
    session: str,
    now: float,
) -> Verdict | None:
    for rule in denies:
        if rule.fits_arguments(intent):
            return _by_rule(rule, Step.DENY)
    if intent.action is Action.SAMPLING_REQUEST:
        refused = _sampling(policy, intent)
        if refused is not None:
            return refused
    for grant in grants:
        if grant.effect is Effect.DENY and covers(grant, intent, session, now):
            return Verdict(
                effect=Effect.DENY,
                step=Step.DENY,
                rule="the person said no to this before",
                layer="grants",
                source=grant.id,
                code=Code.DENIED_BEFORE,
            )
    return None


def _sampling(policy: Policy, intent: Intent) -> Verdict | None:
    """The settings that deny whatever rules and grants say."""
    model = intent.model or intent.object
    if model and not policy.sampling.allows_model(model):
        text, code, name = f"sampling.models has no {model!r}", Code.RULE_DENIED, "models"
    elif intent.tokens > policy.sampling.max_tokens_per_request:
        most = policy.sampling.max_tokens_per_request
        text, code = f"sampling.maxTokensPerRequest is {most}", Code.BUDGET
        name = "maxTokensPerRequest"
    else:
        return None
    origin = policy.origins.get(f"sampling.{name}", Origin())
    return Verdict(
        effect=Effect.DENY,
        step=Step.DENY,
        rule=text,
        layer=origin.layer,
        source=origin.source,
        code=code,
    )


def _risk(intent: Intent, allowing: Sequence[Rule]) -> str:
    """Why a person has to look at it whatever the allow rules say, or ""."""
    taint = _taint(intent)
    if taint and not _is_harmless(intent):
        names = ", ".join(sorted(taint))
        return f"words of {names} may have led to it"
    if (
        intent.action is Action.TOOL_CALL
        and intent.claims_destructive
        and allowing
        and not any(rule.is_for_one and rule.layer in _OWN_LAYERS for rule in allowing)
    ):
        return (
            "the server says that the tool is destructive, and no rule of yours allows it by name"
        )
    return ""


def _taint(intent: Intent) -> frozenset[str]:
    if not intent.taint or intent.action in _UNTAINTED:
        return frozenset()
    if intent.action in _ASKED_BY_SERVER:
        return intent.taint - {intent.server}
    return intent.taint


def _is_harmless(intent: Intent) -> bool:
    """Changes nothing and reaches nobody, in the words of a server whose word counts."""
    return (
        intent.trust is Trust.TRUSTED
        and intent.is_read_only
        and not intent.is_open_world
        and not intent.claims_destructive
    )


def _default(policy: Policy, intent: Intent) -> Verdict:
    name: str
    value: str
    if intent.action is Action.SAMPLING_REQUEST and policy.sampling.default != "ask":
        name, value = "sampling.default", policy.sampling.default
    elif intent.action is Action.SAMPLING_RELEASE and policy.sampling.release != "ask":
        name, value = "sampling.release", policy.sampling.release
    else:
        name, value = "defaultMode", policy.default_mode
    origin = policy.origins.get(name, Origin())
    effect = Effect(value)
    return Verdict(
        effect=effect,
        step=Step.DEFAULT,
        rule=f'no rule and no earlier answer decides it; {name} is "{value}"',
        layer=origin.layer,
        source=origin.source,
        code=_refusal_code(intent.action) if effect is Effect.DENY else None,
    )


def _nobody(asked: Verdict) -> Verdict:
    # A rule's own text stays as it is; our sentences say what they lead to.
    why = asked.rule if asked.step is Step.ASK else f"{asked.rule}, and nobody can be asked"
    return replace(asked, effect=Effect.DENY, code=Code.NOBODY_TO_ASK, rule=why)


def _refusal_code(action: Action) -> Code:
    return Code.FLOW_DENIED if action is Action.FLOW else Code.RULE_DENIED


def _by_rule(rule: Rule, step: Step) -> Verdict:
    return Verdict(
        effect=rule.effect,
        step=step,
        rule=rule.text,
        layer=rule.layer,
        source=rule.source,
        code=_refusal_code(rule.action) if rule.effect is Effect.DENY else None,
    )


def _told(verdict: Verdict) -> str:
    where = ", ".join(part for part in (verdict.layer, verdict.source) if part)
    return f"{verdict.rule} ({where})"


def _granted(grant: Grant | None, is_allowed: bool, is_asked: bool) -> str:
    if grant is not None:
        return f"the person allowed exactly this before (grant {grant.id})"
    if is_allowed and is_asked:
        return "a rule allows it, but only a person, or what they allowed before, answers this"
    return "no rule and no grant"


# --- grants -----------------------------------------------------------------------------------


def _grant_for(intent: Intent, grants: Sequence[Grant], session: str, now: float) -> Grant | None:
    """One that allows it; rather one whose calls are not counted."""
    counted: Grant | None = None
    for grant in grants:
        if grant.effect is Effect.ALLOW and covers(grant, intent, session, now):
            if grant.scope is not Scope.ONCE and grant.limits.max_calls is None:
                return grant
            counted = counted or grant
    return counted


def covers(grant: Grant, intent: Intent, session: str, now: float) -> bool:
    """Whether a remembered answer speaks of this.

    A yes covers exactly what it was given for: the same identity, definition and session, no more
    taint, tokens or calls. A no is wider: it still holds for another definition, more taint, and a
    server of the same alias or the same identity.
    """
    if (
        grant.action is not intent.action
        or grant.object != intent.object
        or grant.principal != intent.principal
        or grant.revoked_at is not None
    ):
        return False
    limits = grant.limits
    if limits.expires_at is not None and not now < limits.expires_at:
        return False
    if grant.scope is not Scope.ALWAYS and grant.session != session:
        return False
    if limits.arguments is not None and not _arguments_fit(limits.arguments, intent, grant.effect):
        return False
    if limits.models is not None and not any(
        _pattern(one).covers(intent.model) for one in limits.models
    ):
        return False
    is_same = grant.identity == intent.identity
    if grant.effect is Effect.DENY:
        return grant.scope is not Scope.ONCE and (is_same or grant.server == intent.server)
    return (
        grant.effect is Effect.ALLOW
        and is_same
        and grant.server == intent.server
        and grant.fingerprint == intent.fingerprint
        and intent.taint <= limits.taint
        and (grant.scope is not Scope.ONCE or grant.calls == 0)
        and (limits.max_calls is None or grant.calls < limits.max_calls)
        and (limits.max_tokens is None or intent.tokens <= limits.max_tokens)
    )


def _arguments_fit(limits: Mapping[str, Sequence[str]], intent: Intent, effect: Effect) -> bool:
    for pointer, texts in limits.items():
        found, value = at_pointer(intent.arguments, _way(pointer))
        if not found or not any(_fits(text, value, effect) for text in texts):
            return False
    return True


def _fits(text: str, value: Any, effect: Effect) -> bool:
    if text.startswith("glob:"):
        if not isinstance(value, str):
            return False
        pattern = _pattern(text.removeprefix("glob:"))
        wide = effect is Effect.DENY
        return pattern.fits_widely(value) if wide else pattern.fits_narrowly(value)
    try:
        return _is_same(json.loads(text), value)
    except (ValueError, RecursionError):
        # No JSON: nothing was granted by it.
        return False


def _is_same(one: Any, other: Any) -> bool:
    """Whether both are the same JSON; 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(_is_same(one[name], other[name]) for name in one)
        )
    if isinstance(one, list):
        return (
            isinstance(other, list | tuple)
            and len(one) == len(other)
            and all(map(_is_same, one, other))
        )
    return bool(one == other)


@lru_cache(maxsize=1024)
def _pattern(text: str) -> Pattern:
    return Pattern(text)


@lru_cache(maxsize=1024)
def _way(pointer: str) -> tuple[str, ...]:
    if not pointer:
        return ()
    # A pointer begins with a slash; one that does not leads nowhere.
    if not pointer.startswith("/"):
        return ("", pointer)
    return tuple(
        step.replace("~1", "/").replace("~0", "~") for step in pointer.removeprefix("/").split("/")
    )


# --- for people -------------------------------------------------------------------------------


def risks_of(intent: Intent) -> tuple[Risk, ...]:
    """What a person should know before they say yes, worst first."""
    found = []
    if taint := _taint(intent):
        names = ", ".join(sorted(taint))
        text = f"Words of {names} are in this conversation and may have led to it."
        found.append(Risk(code="taint", text=text))
    if intent.action is Action.TOOL_CALL and (intent.claims_destructive or not intent.is_read_only):
        if intent.claims_destructive:
            text = "The server says that it may destroy what is there."
            found.append(Risk(code="destructive", text=text))
        elif intent.is_destructive:
            text = "It may change or delete things: the server does not say otherwise."
            found.append(Risk(code="may_destroy", text=text))
    if intent.action is Action.TOOL_CALL and intent.is_open_world:
        found.append(Risk(code="open_world", text="It may send what it is given to others."))
    if intent.trust is Trust.UNKNOWN and intent.server:
        text = "Nobody has reviewed this server."
        found.append(Risk(code="unreviewed", text=text))
    return tuple(found)
