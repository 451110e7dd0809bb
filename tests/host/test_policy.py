"""Policy as a pure function: its order, its grants, its reasons, and what nothing can change."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.host.kinds import (
    Action,
    Code,
    Effect,
    Grant,
    Intent,
    Limits,
    Problem,
    Scope,
    Step,
    Trust,
    Verdict,
)
from dragoman.host.policy import (
    MAX_REMEMBERED,
    MAX_REMEMBERED_CHARS,
    Bounds,
    Origin,
    Policy,
    SamplingRules,
    covers,
    evaluate,
    explain,
    risks_of,
)
from dragoman.host.rules import LAYERS, Layer, Rule
from tests.requirements.duties import duty

IDENTITY = "sha256:1"
NOW = 1000.0


def rules(layer: Layer = "user", **texts: str | list[str]) -> tuple[Rule, ...]:
    """rules(deny="tool(a/b)", allow=[...])"""
    return tuple(
        Rule.parse(text, effect=Effect(effect), layer=layer, source=f"{layer}.json:1")
        for effect, some in texts.items()
        for text in ([some] if isinstance(some, str) else some)
    )


def call(tool: str = "create", server: str = "gh", **more: Any) -> Intent:
    return Intent(
        **{
            "action": Action.TOOL_CALL,
            "server": server,
            "identity": IDENTITY,
            "object": tool,
            "arguments": {},
            "fingerprint": "sha256:f",
            **more,
        }
    )


def grant(intent: Intent, effect: Effect = Effect.ALLOW, **more: Any) -> Grant:
    """What a person's answer to exactly this intent leaves behind."""
    return Grant(
        **{
            "id": "g1",
            "effect": effect,
            "principal": intent.principal,
            "server": intent.server,
            "identity": intent.identity,
            "action": intent.action,
            "object": intent.object,
            "scope": Scope.ALWAYS,
            "fingerprint": intent.fingerprint,
            "limits": Limits(taint=intent.taint),
            **more,
        }
    )


def judge(
    policy: Policy,
    intent: Intent,
    *grants: Grant,
    can_ask: bool = True,
    now: float = NOW,
    session: str = "s1",
) -> Verdict:
    """What evaluate says; what explain says must be the same."""
    verdict = evaluate(policy, intent, grants, session=session, now=now, can_ask=can_ask)
    told = explain(policy, intent, grants, session=session, now=now, can_ask=can_ask)
    assert told.trail
    assert replace(told, trail=()) == verdict
    return verdict


# --- the order --------------------------------------------------------------------------------


def test_with_nothing_said_a_person_is_asked() -> None:
    verdict = judge(Policy(), call())
    assert (verdict.effect, verdict.step, verdict.code) == (Effect.ASK, Step.DEFAULT, None)
    assert verdict.layer == "built in"


def test_with_nothing_said_and_nobody_there_it_is_refused() -> None:
    verdict = judge(Policy(), call(), can_ask=False)
    assert (verdict.effect, verdict.step) == (Effect.DENY, Step.DEFAULT)
    assert verdict.code is Code.NOBODY_TO_ASK
    assert verdict.rule.endswith("and nobody can be asked")


def test_the_default_may_be_no() -> None:
    origin = Origin(layer="user", source="p.json:2")
    policy = Policy(default_mode="deny", origins={"defaultMode": origin})
    for can_ask in (True, False):
        verdict = judge(policy, call(), can_ask=can_ask)
        assert (verdict.effect, verdict.code) == (Effect.DENY, Code.RULE_DENIED)
        assert (verdict.layer, verdict.source) == ("user", "p.json:2")


def test_a_rule_that_decides_is_named_with_its_layer_and_line() -> None:
    for effect, step, code in [
        ("deny", Step.DENY, Code.RULE_DENIED),
        ("ask", Step.ASK, None),
        ("allow", Step.GRANT, None),
    ]:
        policy = Policy(rules=rules("managed", **{effect: "tool(gh/cre*)"}))
        verdict = judge(policy, call())
        assert (verdict.effect, verdict.step, verdict.code) == (Effect(effect), step, code)
        assert verdict.rule == "tool(gh/cre*)"
        assert (verdict.layer, verdict.source) == ("managed", "managed.json:1")


def test_deny_comes_before_ask_and_ask_before_allow() -> None:
    said = rules(allow="tool(gh/create)", ask="tool(gh/create)", deny="tool(gh/create)")
    assert judge(Policy(rules=said), call()).effect is Effect.DENY
    assert judge(Policy(rules=said[:2]), call()).effect is Effect.ASK
    assert judge(Policy(rules=said[:1]), call()).effect is Effect.ALLOW


def test_how_specific_a_rule_is_does_not_matter() -> None:
    wide = rules(deny="tool(*/*)") + rules("managed", allow="tool(gh/create)")
    assert judge(Policy(rules=wide), call()).effect is Effect.DENY


@pytest.mark.parametrize("layer", LAYERS)
def test_a_deny_holds_whatever_layer_it_stands_in(layer: Layer) -> None:
    others = rules("managed", allow="tool(gh/*)") + rules("command line", allow="tool(gh/*)")
    policy = Policy(rules=others + rules(layer, deny="tool(gh/create)"))
    assert judge(policy, call()).effect is Effect.DENY


def test_a_rule_about_other_arguments_says_nothing() -> None:
    policy = Policy(rules=rules(deny="tool(gh/create, repo=prod*)", allow="tool(gh/create)"))
    assert judge(policy, call(arguments={"repo": "prod-1"})).effect is Effect.DENY
    assert judge(policy, call(arguments={"repo": "test"})).effect is Effect.ALLOW


def test_a_denied_flow_has_its_own_code() -> None:
    intent = call("gh -> model:x", action=Action.FLOW)
    assert judge(Policy(rules=rules(deny="flow(* -> *)")), intent).code is Code.FLOW_DENIED
    assert judge(Policy(default_mode="deny"), intent).code is Code.FLOW_DENIED


# --- integrity --------------------------------------------------------------------------------

EVERYTHING = rules("managed", allow=["tool(gh/*)", "tool(gh/create)"])


@duty("trust.tools.caution")
@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"problems": (Problem(code=Code.PIN_CHANGED, text="t"),)}, Code.PIN_CHANGED),
        ({"trust": Trust.BLOCKED}, Code.SERVER_BLOCKED),
        ({"trust": Trust.CHANGED}, Code.IDENTITY_CHANGED),
    ],
)
def test_no_rule_and_no_grant_overrides_integrity(more: dict[str, Any], code: Code) -> None:
    intent = call(**more)
    verdict = judge(Policy(rules=EVERYTHING), intent, grant(intent))
    assert (verdict.effect, verdict.step, verdict.code) == (Effect.DENY, Step.INTEGRITY, code)


def test_the_first_problem_is_the_reason() -> None:
    problems = (
        Problem(code=Code.URL_UNFIT, text="the URL is odd"),
        Problem(code=Code.PIN_CHANGED, text="and it changed"),
    )
    verdict = judge(Policy(), call(problems=problems, trust=Trust.BLOCKED))
    assert (verdict.code, verdict.rule) == (Code.URL_UNFIT, "the URL is odd")


# --- stored answers ---------------------------------------------------------------------------


def test_a_stored_yes_allows_exactly_what_it_was_given_for() -> None:
    verdict = judge(Policy(), call(), grant(call()))
    assert (verdict.effect, verdict.step) == (Effect.ALLOW, Step.GRANT)
    assert (verdict.layer, verdict.source, verdict.grant) == ("grants", "g1", "g1")


@pytest.mark.parametrize(
    "other",
    [
        {"object": "create_all"},
        {"server": "gh2"},
        {"identity": "sha256:2"},
        {"principal": "somebody"},
        {"fingerprint": "sha256:other"},
        {"fingerprint": ""},
        {"taint": frozenset({"web"})},
        {"action": Action.PROMPT_GET},
    ],
)
def test_a_stored_yes_covers_nothing_else(other: dict[str, Any]) -> None:
    assert judge(Policy(), call(**other), grant(call())).effect is Effect.ASK


@pytest.mark.parametrize(
    ("limits", "intent", "fits"),
    [
        ({"expires_at": NOW + 1}, {}, True),
        ({"expires_at": NOW}, {}, False),
        ({"expires_at": float("nan")}, {}, False),
        ({"models": ("local/*",)}, {"model": "local/x"}, True),
        ({"models": ("local/*",)}, {"model": "cloud/x"}, False),
        ({"models": ()}, {"model": "local/x"}, False),
        ({"max_tokens": 10}, {"tokens": 10}, True),
        ({"max_tokens": 10}, {"tokens": 11}, False),
        ({"taint": frozenset({"web"})}, {}, True),
        ({"taint": frozenset({"web"})}, {"taint": frozenset({"web"})}, True),
        ({"taint": frozenset({"web"})}, {"taint": frozenset({"web", "x"})}, False),
        ({"arguments": {}}, {"arguments": {"a": 1}}, True),
        ({"arguments": {"/a": ("1",)}}, {"arguments": {"a": 1, "b": 2}}, True),
        ({"arguments": {"/a": ("1",)}}, {"arguments": {"a": 1.0}}, True),
        ({"arguments": {"/a": ("1",)}}, {"arguments": {"a": True}}, False),
        ({"arguments": {"/a": ("1",)}}, {"arguments": {"a": "1"}}, False),
        ({"arguments": {"/a": ("1", '"1"')}}, {"arguments": {"a": "1"}}, True),
        ({"arguments": {"/a": ()}}, {"arguments": {"a": 1}}, False),
        ({"arguments": {"/a": ("1",)}}, {"arguments": {}}, False),
        ({"arguments": {"/a": ("1",)}}, {"arguments": None}, False),
        ({"arguments": {"a": ("1",)}}, {"arguments": {"a": 1}}, False),
        ({"arguments": {"/a": ("no JSON",)}}, {"arguments": {"a": "no JSON"}}, False),
        ({"arguments": {"": ('{"a":[1,{}]}',)}}, {"arguments": {"a": [1, {}]}}, True),
        ({"arguments": {"": ('{"a":[1,{}]}',)}}, {"arguments": {"a": [1, {}], "b": 1}}, False),
        ({"arguments": {"/a~1b/0": ('"x"',)}}, {"arguments": {"a/b": ["x"]}}, True),
        ({"arguments": {"/p": ("glob:/srv/*",)}}, {"arguments": {"p": "/srv/x"}}, True),
        ({"arguments": {"/p": ("glob:/srv/*",)}}, {"arguments": {"p": "/srv/../etc"}}, False),
        ({"arguments": {"/p": ("glob:*",)}}, {"arguments": {"p": 1}}, False),
    ],
)
def test_a_stored_yes_ends_at_its_limits(
    limits: dict[str, Any], intent: dict[str, Any], fits: bool
) -> None:
    wanted = call(**intent)
    given_yes = grant(call(), limits=Limits(**limits))
    assert covers(given_yes, wanted, "s1", NOW) is fits
    assert judge(Policy(), wanted, given_yes).effect is (Effect.ALLOW if fits else Effect.ASK)


def test_a_yes_for_so_many_calls_is_spent_after_them() -> None:
    thrice = grant(call(), limits=Limits(max_calls=3))
    assert covers(replace(thrice, calls=2), call(), "s1", NOW)
    assert not covers(replace(thrice, calls=3), call(), "s1", NOW)


def test_a_yes_for_once_holds_once_and_in_its_session() -> None:
    once = grant(call(), scope=Scope.ONCE, session="s1")
    assert covers(once, call(), "s1", NOW)
    assert not covers(once, call(), "s2", NOW)
    assert not covers(replace(once, calls=1), call(), "s1", NOW)


def test_a_yes_for_the_session_ends_with_it() -> None:
    held = grant(call(), scope=Scope.SESSION, session="s1")
    assert judge(Policy(), call(), held, session="s1").effect is Effect.ALLOW
    assert judge(Policy(), call(), held, session="s2").effect is Effect.ASK


def test_a_yes_that_was_taken_back_is_none() -> None:
    assert judge(Policy(), call(), grant(call(), revoked_at=1.0)).effect is Effect.ASK


def test_what_is_neither_yes_nor_no_covers_nothing() -> None:
    for effect in (Effect.ASK, Effect.CANCEL):
        assert not covers(grant(call(), effect), call(), "s1", NOW)


def test_of_two_yes_the_uncounted_one_is_used() -> None:
    counted = grant(call(), id="counted", limits=Limits(max_calls=3))
    free = grant(call(), id="free")
    assert judge(Policy(), call(), counted, free).grant == "free"
    assert judge(Policy(), call(), counted).grant == "counted"


def test_a_rule_that_allows_spends_no_grant() -> None:
    policy = Policy(rules=rules(allow="tool(gh/create)"))
    assert judge(policy, call(), grant(call())).grant == ""


def test_a_stored_yes_answers_a_rule_that_asks_and_an_allow_rule_does_not() -> None:
    policy = Policy(rules=rules(ask="tool(*/create)", allow="tool(gh/create)"))
    assert judge(policy, call()).effect is Effect.ASK
    assert judge(policy, call(), grant(call())).effect is Effect.ALLOW
    refused = judge(policy, call(), can_ask=False)
    assert (refused.effect, refused.step, refused.code) == (
        Effect.DENY,
        Step.ASK,
        Code.NOBODY_TO_ASK,
    )


def test_a_stored_yes_does_not_answer_a_deny() -> None:
    policy = Policy(rules=rules(deny="tool(*/create)"))
    assert judge(policy, call(), grant(call())).effect is Effect.DENY


def test_attack_23_a_stored_no_is_not_asked_again() -> None:
    policy = Policy(rules=rules("managed", allow="tool(gh/*)"))
    no = grant(call(), Effect.DENY, id="no")
    for can_ask in (True, False):
        verdict = judge(policy, call(), grant(call()), no, can_ask=can_ask)
        assert (verdict.effect, verdict.step) == (Effect.DENY, Step.DENY)
        assert (verdict.code, verdict.source) == (Code.DENIED_BEFORE, "no")
        assert verdict.grant == ""


@pytest.mark.parametrize(
    ("other", "holds"),
    [
        ({"fingerprint": "sha256:other"}, True),
        ({"taint": frozenset({"web"})}, True),
        ({"identity": "sha256:2"}, True),
        ({"server": "renamed"}, True),
        ({"server": "renamed", "identity": "sha256:2"}, False),
        ({"object": "other"}, False),
        ({"principal": "somebody"}, False),
    ],
)
def test_a_stored_no_is_wider_than_a_yes(other: dict[str, Any], holds: bool) -> None:
    assert covers(grant(call(), Effect.DENY), call(**other), "s1", NOW) is holds


def test_a_stored_no_ends_with_its_session_its_time_and_its_taking_back() -> None:
    no = grant(call(), Effect.DENY)
    assert not covers(replace(no, scope=Scope.SESSION, session="s1"), call(), "s2", NOW)
    assert not covers(replace(no, limits=Limits(expires_at=NOW)), call(), "s1", NOW)
    assert not covers(replace(no, revoked_at=1.0), call(), "s1", NOW)
    assert not covers(replace(no, scope=Scope.ONCE, session="s1"), call(), "s1", NOW)


# --- risk -------------------------------------------------------------------------------------


def test_attack_32_a_tainted_call_is_asked_about_despite_an_allow() -> None:
    policy = Policy(rules=rules("managed", allow="tool(gh/create)"))
    tainted = call(taint=frozenset({"web"}))
    verdict = judge(policy, tainted)
    assert (verdict.effect, verdict.step) == (Effect.ASK, Step.RISK)
    assert "web" in verdict.rule
    assert judge(policy, tainted, can_ask=False).code is Code.NOBODY_TO_ASK
    assert judge(policy, tainted, grant(call())).effect is Effect.ASK
    assert judge(policy, tainted, grant(tainted)).effect is Effect.ALLOW


def test_a_server_taints_its_own_tools_too() -> None:
    policy = Policy(rules=rules(allow="tool(gh/*)"))
    assert judge(policy, call(taint=frozenset({"gh"}))).step is Step.RISK


@duty("tools.annotations.untrusted")
@pytest.mark.parametrize(
    ("more", "is_asked"),
    [
        ({}, True),
        ({"is_read_only": True, "is_open_world": False}, True),
        ({"trust": Trust.REVIEWED, "is_read_only": True, "is_open_world": False}, True),
        ({"trust": Trust.TRUSTED}, True),
        ({"trust": Trust.TRUSTED, "is_open_world": False}, True),
        ({"trust": Trust.TRUSTED, "is_read_only": True}, True),
        ({"trust": Trust.TRUSTED, "is_read_only": True, "is_open_world": False}, False),
        (
            {
                "trust": Trust.TRUSTED,
                "is_read_only": True,
                "is_open_world": False,
                "claims_destructive": True,
            },
            True,
        ),
    ],
)
def test_attack_30_only_a_trusted_server_is_believed_that_a_tool_reaches_nobody(
    more: dict[str, Any], is_asked: bool
) -> None:
    policy = Policy(rules=rules(allow="tool(gh/create)"))
    verdict = judge(policy, call(taint=frozenset({"web"}), **more))
    assert verdict.effect is (Effect.ASK if is_asked else Effect.ALLOW)


def test_a_flow_names_its_source_so_taint_says_nothing_new() -> None:
    policy = Policy(rules=rules(allow="flow(web -> server:gh)"))
    intent = call("web -> server:gh", action=Action.FLOW, taint=frozenset({"web"}))
    assert judge(policy, intent).effect is Effect.ALLOW


def test_what_a_server_asks_for_is_not_tainted_by_itself_but_by_others() -> None:
    policy = Policy(rules=rules(allow="sampling(gh)"))
    own = call("m", action=Action.SAMPLING_REQUEST, taint=frozenset({"gh"}))
    assert judge(policy, own).effect is Effect.ALLOW
    other = replace(own, taint=frozenset({"gh", "web"}))
    assert judge(policy, other).step is Step.RISK
    assert "gh" not in judge(policy, other).rule


@duty("tools.sensitive-confirmed")
def test_a_tool_that_says_it_destroys_must_be_allowed_by_name() -> None:
    intent = call(claims_destructive=True)
    wildcard = Policy(rules=rules(allow="tool(gh/cre*)"))
    verdict = judge(wildcard, intent)
    assert (verdict.effect, verdict.step) == (Effect.ASK, Step.RISK)
    assert judge(wildcard, intent, grant(intent)).effect is Effect.ALLOW
    assert judge(wildcard, call()).effect is Effect.ALLOW
    for layer in LAYERS:
        named = Policy(rules=rules(layer, allow="tool(gh/create)"))
        expected = Effect.ASK if layer == "project" else Effect.ALLOW
        assert judge(named, intent).effect is expected


def test_that_a_tool_does_not_say_whether_it_destroys_takes_no_allow_away() -> None:
    policy = Policy(rules=rules(allow="tool(gh/*)"))
    assert judge(policy, call(is_destructive=True)).effect is Effect.ALLOW


def test_the_risks_are_told_worst_first() -> None:
    found = risks_of(call(taint=frozenset({"web", "fs"}), claims_destructive=True))
    assert [risk.code for risk in found] == ["taint", "destructive", "open_world", "unreviewed"]
    assert "fs, web" in found[0].text
    assert [risk.code for risk in risks_of(call())] == ["may_destroy", "open_world", "unreviewed"]
    calm = call(trust=Trust.TRUSTED, is_read_only=True, is_open_world=False)
    assert risks_of(calm) == ()


# --- sampling ---------------------------------------------------------------------------------


def sampling(model: str = "local/x", **more: Any) -> Intent:
    return call(model, action=Action.SAMPLING_REQUEST, model=model, **more)


def test_sampling_follows_its_own_default() -> None:
    assert judge(Policy(), sampling()).effect is Effect.ASK
    allowed = Policy(sampling=SamplingRules(default="allow"))
    assert judge(allowed, sampling()).effect is Effect.ALLOW
    assert judge(allowed, call()).effect is Effect.ASK
    denied = judge(Policy(sampling=SamplingRules(default="deny")), sampling())
    assert (denied.effect, denied.code) == (Effect.DENY, Code.RULE_DENIED)
    release = replace(sampling(), action=Action.SAMPLING_RELEASE)
    assert judge(allowed, release).effect is Effect.ASK
    freely = Policy(sampling=SamplingRules(release="allow"))
    assert judge(freely, release).effect is Effect.ALLOW
    assert judge(freely, sampling()).effect is Effect.ASK


def test_sampling_that_asks_is_denied_where_the_default_is_no() -> None:
    assert judge(Policy(default_mode="deny"), sampling()).effect is Effect.DENY


def test_a_model_that_is_not_listed_is_denied_whatever_is_allowed() -> None:
    policy = Policy(
        rules=rules(allow="sampling(gh)"),
        sampling=SamplingRules(models=("local/*", "x"), further_models=(("*/x", "x"),)),
        origins={"sampling.models": Origin(layer="user", source="p.json:4")},
    )
    assert judge(policy, sampling("local/x")).effect is Effect.ALLOW
    assert judge(policy, sampling("x")).effect is Effect.ALLOW
    for name in ("local/y", "cloud/x"):
        verdict = judge(policy, sampling(name), grant(sampling(name)))
        assert (verdict.effect, verdict.step) == (Effect.DENY, Step.DENY)
        assert (verdict.layer, verdict.source) == ("user", "p.json:4")


def test_more_tokens_than_a_request_may_have_are_denied() -> None:
    policy = Policy(
        rules=rules(allow="sampling(gh)"), sampling=SamplingRules(max_tokens_per_request=100)
    )
    assert judge(policy, sampling(tokens=100)).effect is Effect.ALLOW
    assert judge(policy, sampling(tokens=101)).code is Code.BUDGET


# --- explain ----------------------------------------------------------------------------------


def test_the_trail_has_a_line_for_each_step_up_to_the_one_that_decided() -> None:
    policy = Policy(rules=rules(ask="tool(gh/*)", allow="tool(gh/create)"))
    told = explain(policy, call(), (), session="s", now=NOW, can_ask=False)
    names = [line.partition(":")[0] for line in told.trail]
    assert names == ["integrity", "deny", "ask", "risk", "grants and allow", "verdict"]
    assert "tool(gh/*) (user, user.json:1)" in told.trail[2]
    assert "only a person" in told.trail[4]
    assert "nobody_to_ask" in told.trail[5]


def test_the_trail_of_a_deny_ends_there() -> None:
    policy = Policy(rules=rules(deny="tool(gh/*)"))
    told = explain(policy, call(), (), session="s", now=NOW, can_ask=True)
    assert len(told.trail) == 3
    assert "tool(gh/*)" in told.trail[1]


def test_the_trail_of_nothing_said_goes_to_the_default() -> None:
    told = explain(Policy(), call(), (), session="s", now=NOW, can_ask=True)
    assert [line.partition(":")[0] for line in told.trail][-2:] == ["default", "verdict"]


# --- where the default is no ------------------------------------------------------------------


def test_where_the_default_is_no_a_rule_may_say_that_it_is_asked() -> None:
    policy = Policy(rules=rules(ask="tool(gh/create)"), default_mode="deny")
    assert judge(policy, call()).effect is Effect.ASK
    assert judge(policy, call("get")).effect is Effect.DENY


def test_where_the_default_is_no_neither_a_stranger_nor_a_risk_makes_it_a_question() -> None:
    strange = tuple(replace(one, only_tightens=True) for one in rules("project", ask="tool(*/*)"))
    policy = Policy(rules=strange, default_mode="deny")
    assert judge(policy, call()).effect is Effect.DENY
    assert judge(policy, call()).step is Step.DEFAULT
    tainted = call(taint=frozenset({"web"}))
    assert judge(Policy(default_mode="deny"), tainted).effect is Effect.DENY
    allowing = replace(policy, rules=(*strange, *rules(allow="tool(gh/*)")))
    assert (judge(allowing, call()).effect, judge(allowing, call()).step) == (Effect.ASK, Step.ASK)
    both = replace(policy, rules=(*strange, *rules(ask="tool(gh/*)")))
    assert judge(both, call()).effect is Effect.ASK
    assert judge(both, call(), grant(call())).effect is Effect.ALLOW


# --- what is remembered -----------------------------------------------------------------------


def test_what_a_policy_remembers_is_bounded() -> None:
    policy = Policy(rules=rules(allow="tool(gh/*)"))
    for number in range(MAX_REMEMBERED + 10):
        assert judge(policy, call(f"t{number}")).effect is Effect.ALLOW
    assert judge(policy, call("x" * (MAX_REMEMBERED_CHARS + 1))).effect is Effect.ALLOW
    assert len(policy._known) <= MAX_REMEMBERED
    assert all(len(key[2]) <= MAX_REMEMBERED_CHARS for key in policy._known)


def test_trust_that_changes_is_noticed() -> None:
    policy = Policy(rules=rules(deny="flow(* -> server:unknown)", allow="flow(fs -> server:gh)"))
    intent = call("fs -> server:gh", action=Action.FLOW)
    assert judge(policy, intent).effect is Effect.DENY
    assert judge(policy, replace(intent, trust=Trust.REVIEWED)).effect is Effect.ALLOW


def test_the_time_to_answer_is_a_property_of_the_policy() -> None:
    assert Policy(bounds=Bounds(approval_timeout_s=5)).approval_timeout_s == 5


# --- properties -------------------------------------------------------------------------------

some_rules = st.builds(
    lambda effect, layer, server, tool, argument, is_strange: replace(
        Rule.parse(
            f"tool({'gh' if effect == 'allow' else server}/{tool}{argument})",
            effect=Effect(effect),
            layer=layer,
        ),
        only_tightens=is_strange and effect != "allow",
    ),
    st.sampled_from(["allow", "allow", "ask", "deny"]),
    st.sampled_from(LAYERS),
    st.sampled_from(["gh", "*", "fs"]),
    st.sampled_from(["create", "cre*", "*", "get"]),
    st.sampled_from(["", ", a=1", ", a=*"]),
    st.booleans(),
)
some_intents = st.builds(
    call,
    st.sampled_from(["create", "get"]),
    server=st.sampled_from(["gh", "fs"]),
    arguments=st.sampled_from([{}, {"a": 1}, {"a": 2}]),
    # Mostly whole, or nothing but integrity would ever decide.
    trust=st.sampled_from([Trust.UNKNOWN, Trust.REVIEWED, Trust.TRUSTED] * 3 + [*Trust]),
    claims_destructive=st.booleans(),
    is_read_only=st.booleans(),
    is_open_world=st.booleans(),
    taint=st.sampled_from([frozenset(), frozenset({"web"})]),
    problems=st.sampled_from([()] * 7 + [(Problem(code=Code.PIN_CHANGED, text="t"),)]),
)
some_grants = st.builds(
    lambda intent, effect, scope, session, revoked: grant(
        intent,
        effect,
        id=f"{effect}",
        scope=scope,
        session="" if scope is Scope.ALWAYS else session,
        revoked_at=revoked,
    ),
    some_intents,
    st.sampled_from([Effect.ALLOW, Effect.DENY]),
    st.sampled_from(Scope),
    st.sampled_from(["s1", "s2"]),
    st.sampled_from([None, None, 1.0]),
)
some_policies = st.builds(
    lambda rules, mode: Policy(rules=tuple(rules), default_mode=mode),
    st.lists(some_rules, max_size=6),
    st.sampled_from(["ask", "deny"]),
)
many_grants = st.lists(some_grants, max_size=4)

# 60 examples each: eight of them in the default run; tests of thousands found no more.
few = settings(max_examples=60)

# How far each verdict lets one go.
FREEDOM = {Effect.DENY: 0, Effect.ASK: 1, Effect.ALLOW: 2}


@few
@given(some_policies, some_intents, many_grants, st.booleans())
def test_evaluate_and_explain_agree_and_every_refusal_has_a_code(
    policy: Policy, intent: Intent, grants: list[Grant], can_ask: bool
) -> None:
    verdict = judge(policy, intent, *grants, can_ask=can_ask)
    assert (verdict.code is not None) == (verdict.effect is Effect.DENY)
    assert verdict.effect is not Effect.ASK or can_ask
    assert bool(verdict.grant) <= (verdict.effect is Effect.ALLOW)


@few
@given(some_policies, some_intents, many_grants)
def test_without_integrity_there_is_nothing(
    policy: Policy, intent: Intent, grants: list[Grant]
) -> None:
    verdict = judge(policy, intent, *grants)
    is_broken = bool(intent.problems) or intent.trust in (Trust.BLOCKED, Trust.CHANGED)
    assert (verdict.step is Step.INTEGRITY) == is_broken
    assert not is_broken or verdict.effect is Effect.DENY


@few
@given(some_policies, some_intents, many_grants, some_rules, st.booleans())
def test_a_further_deny_or_ask_rule_never_loosens(
    policy: Policy, intent: Intent, grants: list[Grant], more: Rule, can_ask: bool
) -> None:
    before = judge(policy, intent, *grants, can_ask=can_ask)
    after = judge(replace(policy, rules=(*policy.rules, more)), intent, *grants, can_ask=can_ask)
    if more.effect is Effect.ALLOW:
        assert FREEDOM[after.effect] >= FREEDOM[before.effect]
    elif before.step is Step.DEFAULT and more.effect is Effect.ASK and not more.only_tightens:
        # Where the default is no, one may say that something shall be asked all the same.
        assert after.effect is not Effect.ALLOW
    else:
        assert FREEDOM[after.effect] <= FREEDOM[before.effect]


@few
@given(some_policies, some_intents, many_grants, some_grants)
def test_a_further_no_never_loosens(
    policy: Policy, intent: Intent, grants: list[Grant], more: Grant
) -> None:
    before = judge(policy, intent, *grants)
    after = judge(policy, intent, *grants, replace(more, effect=Effect.DENY))
    assert FREEDOM[after.effect] <= FREEDOM[before.effect]


@few
@given(some_policies, some_intents, many_grants, st.randoms(use_true_random=False))
def test_the_order_of_rules_and_grants_changes_no_verdict(
    policy: Policy, intent: Intent, grants: list[Grant], chance: Any
) -> None:
    shuffled = list(policy.rules)
    chance.shuffle(shuffled)
    turned = list(grants)
    chance.shuffle(turned)
    before = judge(policy, intent, *grants)
    after = judge(replace(policy, rules=tuple(shuffled)), intent, *turned)
    assert (after.effect, after.step, after.code) == (before.effect, before.step, before.code)


@few
@given(some_policies, some_intents, many_grants)
def test_a_deny_that_matches_beats_everything_but_integrity(
    policy: Policy, intent: Intent, grants: list[Grant]
) -> None:
    is_denied = any(r.effect is Effect.DENY and r.matches(intent) for r in policy.rules)
    verdict = judge(policy, intent, *grants)
    if is_denied:
        assert verdict.effect is Effect.DENY
        assert verdict.step in (Step.INTEGRITY, Step.DENY)


@few
@given(some_policies, some_intents, many_grants)
def test_more_taint_never_loosens(policy: Policy, intent: Intent, grants: list[Grant]) -> None:
    before = judge(policy, intent, *grants)
    after = judge(policy, replace(intent, taint=intent.taint | {"other"}), *grants)
    assert FREEDOM[after.effect] <= FREEDOM[before.effect]


@few
@given(some_policies, some_intents, many_grants)
def test_that_nobody_can_be_asked_never_loosens(
    policy: Policy, intent: Intent, grants: list[Grant]
) -> None:
    asked = judge(policy, intent, *grants)
    alone = judge(policy, intent, *grants, can_ask=False)
    if asked.effect is Effect.ASK:
        assert (alone.effect, alone.code) == (Effect.DENY, Code.NOBODY_TO_ASK)
        assert alone.step is asked.step
        assert alone.rule.startswith(asked.rule)
    else:
        assert alone == asked


@pytest.mark.slow
def test_a_verdict_costs_microseconds() -> None:
    """A figure for people; 200 rules about one server, the last of which decides."""
    texts = [f"tool(gh/tool_{number}_*)" for number in range(199)]
    policy = Policy(rules=rules(deny=texts) + rules(allow="tool(gh/cre*, repo=a*)"))
    intent = call(arguments={"repo": "abc"})
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        for _ in range(1000):
            evaluate(policy, intent, (), session="s", now=NOW, can_ask=True)
        best = min(best, time.perf_counter() - begin)
    print(f"{best * 1000:.2f} us a verdict")
