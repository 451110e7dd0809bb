"""Policy files: what may stand in them, how the layers meet, and what a stranger's file cannot do."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.kinds import Action, Effect, Intent
from dragoman.host.policy import AuditRules, Bounds, PinRules, Policy, SamplingRules, evaluate
from dragoman.host.settings import default_policy_paths, load_policy, project_digest

WHOLE = """\
{ "$schema": "anything", "version": 1,
  "defaultMode": "ask",                       // ask | deny
  "servers": ["jira"],
  "permissions": {
    "deny":  ["tool(*/delete_*)", "flow(* -> server:unknown)", "tool(jira/*)"],
    "ask":   ["tool(github/create_*)", "elicit.url(*)"],
    "allow": ["tool(github/get_*)", "mcp__fs__read_file", "roots(fs/file:///srv/app)"] },
  "sampling": { "default": "ask", "models": ["local/*"], "release": "allow",
                "maxPerMinute": 7, "maxTokensPerSession": 10000, "maxTokensPerRequest": 100 },
  "pins":  { "mode": "warn", "newTools": "ask" },
  "audit": { "args": "full", "onWriteFailure": "warn", "sync": "disk" },
  "limits": { "approvalTimeout": 2.5, "maxWaiting": 3, "maxInputRounds": 4, },
}
"""
SERVERS = ["github", "fs"]


class Files:
    """The files of one test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, layer: str, content: Any) -> Path:
        path = self._folder / f"{layer}.json"
        if isinstance(content, dict) and "version" not in content:
            content = {"version": 1, **content}
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return path

    def load(
        self,
        *,
        is_project_trusted: Any = False,
        command_line: Sequence[str] = (),
        servers: list[str] | None = None,
        **layers: Any,
    ) -> Policy:
        paths = {layer: self.write(layer, content) for layer, content in layers.items()}
        return load_policy(
            managed=paths.get("managed"),
            user=paths.get("user"),
            project=paths.get("project"),
            is_project_trusted=is_project_trusted,
            command_line=command_line,
            servers=servers,
        )

    def faults(self, **options: Any) -> list[str]:
        """The faults, a line each, without the folder."""
        with pytest.raises(Misconfigured) as caught:
            self.load(**options)
        return str(caught.value).replace(f"{self._folder}/", "").splitlines()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def effect(policy: Policy, server: str, tool: str, **arguments: Any) -> Effect:
    intent = Intent(
        action=Action.TOOL_CALL, server=server, identity="i", object=tool, arguments=arguments
    )
    return evaluate(policy, intent, (), session="s", now=0.0, can_ask=True).effect


# --- one file ---------------------------------------------------------------------------------


def test_a_file_says_everything_there_is_to_say(files: Files) -> None:
    policy = files.load(user=WHOLE, servers=SERVERS)
    assert [str(rule) for rule in policy.rules] == [
        "deny tool(*/delete_*)",
        "deny flow(* -> server:unknown)",
        "deny tool(jira/*)",
        "ask tool(github/create_*)",
        "ask elicit.url(*)",
        "allow tool(github/get_*)",
        "allow mcp__fs__read_file",
        "allow roots(fs/file:///srv/app)",
    ]
    assert {rule.layer for rule in policy.rules} == {"user"}
    assert policy.rules[0].source.endswith("user.json:5")
    assert policy.rules[7].source.endswith("user.json:7")
    assert policy.default_mode == "ask"
    assert policy.sampling == SamplingRules(
        default="ask",
        models=("local/*",),
        release="allow",
        max_per_minute=7,
        max_tokens_per_session=10000,
        max_tokens_per_request=100,
    )
    assert policy.pins == PinRules(mode="warn", new_tools="ask")
    assert policy.audit == AuditRules(args="full", on_write_failure="warn", sync="disk")
    assert policy.bounds == Bounds(approval_timeout_s=2.5, max_waiting=3, max_input_rounds=4)
    assert policy.origins["pins.mode"].layer == "user"
    assert policy.origins["pins.mode"].source.endswith("user.json:10")
    assert policy.ignored == ()


def test_without_files_there_is_the_built_in_policy(tmp_path: Path) -> None:
    none = tmp_path / "none" / "policy.json"
    policy = load_policy(managed=none, user=none, project=none)
    assert policy == Policy()
    assert load_policy() == Policy()
    assert (policy.default_mode, policy.pins.mode, policy.audit.args) == ("ask", "strict", "shape")


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("[]", 1, "must be an object"),
        ("{}", 1, '"version"'),
        ('{"version":\n 2}', 1, "must be 1"),
        ('{"version": true}', 1, "must be 1"),
        ('{\n"version": 1,\n"defaultmode": "ask"}', 3, "'defaultMode'"),
        ('{"version": 1,\n"defaultMode": "allow"}', 2, "'deny', 'ask'"),
        ('{"version": 1,\n"defaultMode": "dney"}', 2, "did you mean 'deny'?"),
        ('{"version": 1,\n"defaultMode": ["ask"]}', 2, "must be one of"),
        ('{"version": 1,\n"permission": {}}', 2, "'permissions'"),
        ('{"version": 1,\n"deny": []}', 2, "belongs into 'permissions'"),
        ('{"version": 1,\n"permissions": []}', 2, "must be an object"),
        ('{"version": 1,\n"permissions": {\n"alow": []}}', 3, "'allow'"),
        ('{"version": 1,\n"permissions": {\n"deny": "x"}}', 3, "list of rules"),
        ('{"version": 1,\n"permissions": {\n"deny": [\n7]}}', 4, "must be a text"),
        ('{"version": 1,\n"permissions": {\n"deny": [\n"tol(a/b)"]}}', 4, "'tool'"),
        ('{"version": 1,\n"sampling": {\n"maxPerMinute": "6"}}', 3, "whole number"),
        ('{"version": 1,\n"sampling": {\n"maxPerMinute": 1.5}}', 3, "whole number"),
        ('{"version": 1,\n"sampling": {\n"maxPerMinute": true}}', 3, "whole number"),
        ('{"version": 1,\n"sampling": {\n"maxPerMinute": -1}}', 3, "from 0 to 600"),
        ('{"version": 1,\n"sampling": {\n"models": "local/*"}}', 3, "list of texts"),
        ('{"version": 1,\n"sampling": {"models":\n[""]}}', 3, "must be a text"),
        ('{"version": 1,\n"pins": {\n"mode": "loose"}}', 3, "'frozen', 'strict', 'warn'"),
        ('{"version": 1,\n"audit": {\n"args": null}}', 3, "must be one of"),
        ('{"version": 1,\n"limits": {\n"approvalTimeout": 0}}', 3, "from 1 to 86400"),
        ('{"version": 1,\n"servers": [\n3]}', 3, "must be a text"),
        ('{"version": 1,\n"version": 1}', 2, "twice"),
        ('{"version": 1,', 1, "end of the file"),
    ],
)
def test_what_may_not_stand_in_a_file_is_refused_with_its_line(
    files: Files, content: str, line: int, says: str
) -> None:
    found = files.faults(user=content)
    assert len(found) == 1
    assert found[0].startswith(f"user.json:{line}: ")
    assert says in found[0]


def test_all_faults_of_all_files_are_told_at_once(files: Files) -> None:
    found = files.faults(
        managed='{"version": 1,\n"pins": {"mode": "x"},\n"colour": 1}',
        user='{"version": 1, "permissions": {"deny": ["tool(x)",\n"flow(y)"]}}',
        project="{",
        command_line=["deny tool(a/b)", "tool(a/b)", "allow tool(*/b)"],
    )
    assert [line.split(": ")[0] for line in found] == [
        "managed.json:3",
        "managed.json:2",
        "user.json:1",
        "user.json:2",
        "project.json:1",
        "command line:2",
        "command line:3",
    ]


def test_a_rule_for_a_server_that_is_not_there_is_a_fault_unless_the_file_names_it(
    files: Files,
) -> None:
    rules = {"permissions": {"deny": ["tool(jira/*)"]}}
    assert "can never match" in files.faults(user=rules, servers=SERVERS)[0]
    assert files.load(user={**rules, "servers": ["jira"]}, servers=SERVERS).rules
    assert files.load(user=rules).rules
    # What one file names, another does not know.
    assert files.faults(user={"servers": ["jira"]}, managed=rules, servers=SERVERS)


def test_a_rule_that_another_list_of_the_file_makes_pointless_is_a_fault(files: Files) -> None:
    both = {"permissions": {"allow": ["tool(fs/x)"], "deny": ["tool(fs/x)"]}}
    assert "has no effect under 'allow'" in files.faults(user=both)[0]


def test_what_a_stranger_wrote_cannot_draw_on_the_terminal(files: Files) -> None:
    evil = '{"version": 1, "\\u001b[2J\\u202e": 1, "defaultMode": "\\u001b[31m", '
    evil += '"permissions": {"deny": ["\\u001b]0;x"]}}'
    for line in files.faults(project=evil):
        assert line.isprintable()
        assert line.isascii()


# --- the layers -------------------------------------------------------------------------------


def test_rules_of_all_layers_count_together(files: Files) -> None:
    policy = files.load(
        managed={"permissions": {"deny": ["tool(*/rm)"]}},
        user={"permissions": {"allow": ["tool(fs/*)"]}},
        project={"permissions": {"ask": ["tool(fs/write)"]}},
        command_line=["allow tool(fs/rm)", "  deny   tool(fs/move)"],
    )
    assert [rule.layer for rule in policy.rules] == [
        "managed",
        "user",
        "project",
        "command line",
        "command line",
    ]
    found = {tool: effect(policy, "fs", tool) for tool in ("rm", "read", "write", "move")}
    assert found == {
        "rm": Effect.DENY,
        "read": Effect.ALLOW,
        "write": Effect.ASK,
        "move": Effect.DENY,
    }


STRICT = {
    "defaultMode": "deny",
    "sampling": {
        "default": "deny",
        "release": "ask",
        "maxPerMinute": 1,
        "maxTokensPerSession": 1,
        "maxTokensPerRequest": 1,
    },
    "pins": {"mode": "frozen", "newTools": "hide"},
    "audit": {"args": "digest", "onWriteFailure": "deny", "sync": "disk"},
    "limits": {"approvalTimeout": 1, "maxWaiting": 1, "maxInputRounds": 1},
}
LOOSE = {
    "defaultMode": "ask",
    "sampling": {
        "default": "allow",
        "release": "allow",
        "maxPerMinute": 600,
        "maxTokensPerSession": 90000,
        "maxTokensPerRequest": 90000,
    },
    "pins": {"mode": "warn", "newTools": "ask"},
    "audit": {"args": "full", "onWriteFailure": "warn", "sync": "write"},
    "limits": {"approvalTimeout": 80000, "maxWaiting": 999, "maxInputRounds": 999},
}


def settings_of(policy: Policy) -> tuple[Any, ...]:
    return policy.default_mode, policy.sampling, policy.pins, policy.audit, policy.bounds


def test_of_each_setting_the_strictest_value_holds(files: Files) -> None:
    strict = settings_of(files.load(user=STRICT))
    assert settings_of(files.load(managed=STRICT, user=LOOSE)) == strict
    found = files.load(
        managed={**LOOSE, "audit": {"onWriteFailure": "warn"}},
        user=STRICT,
        project=LOOSE,
        is_project_trusted=True,
    )
    assert settings_of(found) == strict
    assert found.origins["pins.mode"].layer == "user"


def test_a_setting_that_a_stricter_layer_overrules_is_listed(files: Files) -> None:
    policy = files.load(managed={"pins": {"mode": "strict"}}, user={"pins": {"mode": "warn"}})
    assert policy.pins.mode == "strict"
    (one,) = policy.ignored
    assert one.source.endswith("user.json:4")
    assert "managed.json:4 says 'strict'" in one.why
    assert str(one).endswith(f"pins.mode 'warn' is ignored: {one.why}")


def test_a_person_may_loosen_what_is_built_in(files: Files) -> None:
    for policy in (files.load(managed=LOOSE), files.load(user=LOOSE)):
        assert policy.sampling.default == "allow"
        assert policy.audit == AuditRules(args="full", on_write_failure="warn")
        assert policy.bounds.max_waiting == 999
        assert policy.ignored == ()


def test_how_much_is_recorded_is_for_the_managed_file_to_say(files: Files) -> None:
    policy = files.load(managed={"audit": {"args": "full"}}, user={"audit": {"args": "digest"}})
    assert policy.audit.args == "full"
    assert len(policy.ignored) == 1
    again = files.load(user={"audit": {"args": "full"}}, managed={"audit": {"args": "shape"}})
    assert again.audit.args == "shape"


def test_a_model_must_be_listed_by_every_layer_that_lists_models(files: Files) -> None:
    policy = files.load(
        managed={"sampling": {"models": ["local/*", "x"]}},
        user={"sampling": {"models": ["*/small", "x"]}},
        project={"sampling": {"models": ["*"]}},
    )
    allowed = {
        name: policy.sampling.allows_model(name)
        for name in ("local/small", "x", "local/big", "cloud/small")
    }
    assert allowed == {"local/small": True, "x": True, "local/big": False, "cloud/small": False}
    assert policy.origins["sampling.models"].layer == "managed"
    assert not files.load(user={"sampling": {"models": []}}).sampling.allows_model("x")


# --- what comes with somebody's repository ----------------------------------------------------


def test_attack_3_a_project_that_is_not_trusted_may_only_tighten(files: Files) -> None:
    project = {
        **LOOSE,
        "permissions": {
            "allow": ["tool(fs/*)", "not even a \u202erule"],
            "ask": ["tool(fs/read)"],
            "deny": ["tool(fs/rm)"],
        },
    }
    user = {"permissions": {"allow": ["tool(fs/read)", "tool(fs/rm)"]}}
    policy = files.load(user=user, project=project, servers=SERVERS)
    assert settings_of(policy) == settings_of(Policy())
    assert effect(policy, "fs", "write") is Effect.ASK
    assert effect(policy, "fs", "read") is Effect.ASK
    assert effect(policy, "fs", "rm") is Effect.DENY
    told = [str(one) for one in policy.ignored]
    assert all("project.json:" in one and one.isascii() for one in told)
    assert all("the project is not trusted" in one for one in told)
    assert sum("allow" in one and "tool(fs/*)" in one for one in told) == 1
    # Two rules, and every setting that is looser than what is built in.
    assert len(told) == 2 + 12


def test_a_project_that_is_not_trusted_turns_no_refusal_into_a_question(files: Files) -> None:
    policy = files.load(
        user={"defaultMode": "deny"}, project={"permissions": {"ask": ["tool(*/*)"]}}
    )
    assert effect(policy, "fs", "write") is Effect.DENY


def test_a_project_that_is_not_trusted_may_tighten_settings_but_not_thin_out_the_record(
    files: Files,
) -> None:
    policy = files.load(project=STRICT)
    assert policy.default_mode == "deny"
    assert policy.pins.mode == "frozen"
    assert policy.bounds == Bounds(approval_timeout_s=1, max_waiting=1, max_input_rounds=1)
    assert policy.audit == AuditRules(args="shape", sync="disk")
    assert [one.text for one in policy.ignored] == ["audit.args 'digest'"]


def test_a_project_that_is_trusted_counts_like_any_layer(files: Files) -> None:
    project = {**LOOSE, "permissions": {"allow": ["tool(fs/*)"]}}
    policy = files.load(project=project, is_project_trusted=True)
    assert effect(policy, "fs", "write") is Effect.ALLOW
    assert policy.pins.mode == "warn"
    assert policy.ignored == ()


def test_trust_is_in_the_bytes_that_were_read(files: Files) -> None:
    project = {"permissions": {"allow": ["tool(fs/*)"]}}
    asked: list[str] = []

    def trusts(digest: str) -> bool:
        asked.append(digest)
        return len(asked) == 1

    first = files.load(project=project, is_project_trusted=trusts)
    assert asked[0].startswith("sha256:")
    assert effect(first, "fs", "x") is Effect.ALLOW
    changed = json.dumps({"version": 1, **project})
    second = files.load(project=changed, is_project_trusted=trusts)
    assert asked[1] != asked[0]
    assert effect(second, "fs", "x") is Effect.ASK


def test_a_trust_in_a_project_ends_when_its_policy_or_its_lock_changes(tmp_path: Path) -> None:
    seen = [project_digest(tmp_path)]
    lock, policy = tmp_path / "dragoman.lock", tmp_path / ".dragoman" / "policy.json"
    policy.parent.mkdir()
    for path, content in [(policy, ""), (policy, "{}"), (lock, ""), (lock, "{}"), (policy, "[]")]:
        path.write_text(content)
        seen.append(project_digest(tmp_path))
    policy.unlink()
    seen.append(project_digest(tmp_path))
    assert len(set(seen)) == len(seen)
    lock.unlink()
    assert project_digest(tmp_path) == seen[0]
    lock.mkdir()
    with pytest.raises(Misconfigured, match=r"dragoman\.lock"):
        project_digest(tmp_path)


# --- the files themselves ---------------------------------------------------------------------


def test_a_file_of_ones_own_that_everybody_may_write_is_refused(files: Files) -> None:
    path = files.write("user", {})
    path.chmod(0o666)
    layers: dict[str, Path]
    for layers in ({"user": path}, {"managed": path}):
        with pytest.raises(Misconfigured, match="chmod o-w"):
            load_policy(user=layers.get("user"), managed=layers.get("managed"))
    assert load_policy(project=path).rules == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(files: Files) -> None:
    path = files.write("user", {})
    os.chown(path, 12345, -1)
    with pytest.raises(Misconfigured, match="another user"):
        load_policy(user=path)


def test_a_file_that_somebody_named_must_be_there(tmp_path: Path) -> None:
    none = tmp_path / "none.json"
    assert load_policy(user=none, managed=none, must_exist=()) == Policy()
    with pytest.raises(Misconfigured, match=r"none\.json"):
        load_policy(user=none, managed=none, must_exist=["user"])


def test_a_link_that_leads_nowhere_and_a_folder_are_no_missing_files(tmp_path: Path) -> None:
    link = tmp_path / "policy.json"
    link.symlink_to(tmp_path / "gone")
    layers: dict[str, Path]
    for layers in ({"user": link}, {"project": link}, {"user": tmp_path}, {"project": tmp_path}):
        with pytest.raises(Misconfigured):
            load_policy(user=layers.get("user"), project=layers.get("project"))


def test_the_files_stand_where_the_base_directories_are(tmp_path: Path) -> None:
    found = default_policy_paths("/p", {"XDG_CONFIG_HOME": "/c", "HOME": "/h"})
    assert found.user == Path("/c/dragoman/policy.json")
    assert found.project == Path("/p/.dragoman/policy.json")
    assert found.managed == Path("/etc/dragoman/policy.json")
    home = default_policy_paths("/p", {"HOME": "/h"}).user
    assert home == Path("/h/.config/dragoman/policy.json")
    # A relative one would be the repository's own.
    assert default_policy_paths("/p", {"XDG_CONFIG_HOME": "conf", "HOME": "/h"}).user == home


# --- properties -------------------------------------------------------------------------------


def _has_no_rule_twice(permissions: dict[str, list[str]]) -> bool:
    texts = [text for some in permissions.values() for text in some]
    return len(texts) == len(set(texts))


looks = st.fixed_dictionaries(
    {},
    optional={
        "defaultMode": st.sampled_from(["ask", "deny"]),
        "permissions": st.fixed_dictionaries(
            {},
            optional={
                name: st.lists(
                    st.sampled_from(["tool(fs/read)", "tool(fs/*)", "tool(fs/w*)"]),
                    max_size=2,
                    unique=True,
                )
                for name in ("deny", "ask", "allow")
            },
        ).filter(_has_no_rule_twice),
        "sampling": st.fixed_dictionaries(
            {},
            optional={
                "default": st.sampled_from(["ask", "deny", "allow"]),
                "maxPerMinute": st.integers(0, 600),
            },
        ),
        "pins": st.fixed_dictionaries({"mode": st.sampled_from(["strict", "warn", "frozen"])}),
    },
)
FREEDOM = {Effect.DENY: 0, Effect.ASK: 1, Effect.ALLOW: 2}
MODES = ["frozen", "strict", "warn"]


@given(looks, looks)
def test_no_file_of_a_stranger_loosens_anything(
    tmp_path_factory: pytest.TempPathFactory, user: Any, project: Any
) -> None:
    files = Files(tmp_path_factory.mktemp("policy"))
    before = files.load(user=user)
    after = files.load(user=user, project=project)
    for tool in ("read", "write", "x"):
        assert FREEDOM[effect(after, "fs", tool)] <= FREEDOM[effect(before, "fs", tool)]
    assert after.sampling.max_per_minute <= before.sampling.max_per_minute
    assert MODES.index(after.pins.mode) <= MODES.index(before.pins.mode)
    assert ["deny", "ask", "allow"].index(after.sampling.default) <= ["deny", "ask", "allow"].index(
        before.sampling.default
    )
