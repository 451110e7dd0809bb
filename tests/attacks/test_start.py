"""Attacks 1 to 7: what is started, with what, and what the files of a project can make of it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.cli.question import question_of
from dragoman.errors import Misconfigured
from dragoman.host import Code, Denied, ServerState
from dragoman.host.kinds import Effect, Scope, Trust
from dragoman.model.unseen import UNSEEN, printable
from tests.attacks.harness import ALLOW, HOSTILE, Hostile, Person, Stage, attack, forever, tool
from tests.support import run

ROOT = Path(__file__).parents[2]


# --- 1: one-click config --------------------------------------------------------------------------


@attack(
    1, "one-click config", "nothing spawns before a yes; the full argv is shown; no leaves nothing",
    quick=True,
)  # fmt: skip
@pytest.mark.parametrize("answer", [Effect.DENY, Effect.CANCEL])
def test_nothing_is_started_without_a_yes(stage: Stage, answer: Effect) -> None:
    evil = stage.server(
        tools=[tool("wipe")],
        entry={"args": ["-I", str(HOSTILE), "plan", "x" * 3000, "--the-end"]},
    )

    async def main() -> None:
        person = Person(server_start=answer)
        async with stage.host(person) as host:
            (status,) = await host.ready()
            assert status.state is ServerState.REFUSED
            with pytest.raises(Denied):
                await host.call_tool("evil", "wipe", {})
        (asked,) = person.asked
        shown = json.loads(asked.view.payload)["command"]
        assert shown.startswith(sys.executable)
        assert "x" * 3000 in shown
        assert shown.endswith("--the-end")

    run(main())
    assert evil.starts == []


@attack(1, "", "")
def test_all_that_a_start_is_bound_to_is_shown_and_each_of_it_once(stage: Stage) -> None:
    folder = stage.folder / "used"
    folder.mkdir()
    evil = stage.server(
        entry={
            "args": ["-I", str(HOSTILE), "plan", "--the-end"],
            "env": {"NODE_OPTIONS": "--require evil"},
            "roots": [str(folder)],
        }
    )

    async def main() -> None:
        person = Person(server_start=False)
        async with stage.host(person) as host:
            (status,) = await host.ready()
        (asked,) = person.asked
        # Who it is, whole, is the payload; the folders stand beside it.
        assert list(json.loads(asked.view.payload).items()) == list(status.facts)
        assert [label for label, _ in asked.view.facts] == ["folder it may use"]
        shown = str(question_of(asked))
        for text in ("--the-end", "--require evil", folder.as_uri()):
            assert shown.count(text) == 1
        for label, text in json.loads(asked.view.payload).items():
            assert shown.count(f"{json.dumps(label)}: {json.dumps(text)}") == 1
        # And an answer is bound to every bit of it.
        other = asked.view.payload.replace(b"--the-end", b"--the-enb")
        assert replace(asked.view, payload=other).digest(asked.intent) != asked.view_digest
        assert replace(asked.view, facts=()).digest(asked.intent) != asked.view_digest

    run(main())
    assert evil.starts == []


@attack(1, "", "")
def test_a_question_that_is_open_when_the_host_ends_starts_nothing(stage: Stage) -> None:
    evil = stage.server(tools=[tool("wipe")])

    async def main() -> None:
        person = Person(server_start=forever)
        async with stage.host(person):
            await person.question("server.start")

    run(main())
    assert evil.starts == []


@attack(1, "", "")
def test_a_remote_server_is_not_even_reached_before_a_yes(stage: Stage) -> None:
    evil = stage.server(tools=[tool("wipe")], http=True)

    async def main() -> None:
        async with stage.host(Person(server_connect=False)) as host:
            (status,) = await host.ready()
            assert status.state is ServerState.REFUSED

    run(main())
    assert evil.notes("got") + evil.notes("get") == []


# --- 2: another server under the same name --------------------------------------------------------


def _other_arguments(entry: dict[str, Any]) -> str:
    entry["args"] = [*entry["args"], "--evil"]
    return "--evil"


def _other_variable(entry: dict[str, Any]) -> str:
    entry["env"] = {"NODE_OPTIONS": "--require evil"}
    return "NODE_OPTIONS"


def _other_folder(entry: dict[str, Any]) -> str:
    entry["cwd"] = "/"
    return "folder"


def _other_program(entry: dict[str, Any]) -> str:
    entry["command"] = shutil.which("true")
    return "true"


def _without_its_sandbox(entry: dict[str, Any]) -> str:
    entry["sandbox"] = False
    return "sandbox"


def _own_folder(stage: Stage, evil: Hostile) -> Path:
    """A folder for what it needs: the one around it, with the host's state, no sandbox opens."""
    own = stage.folder / "own"
    own.mkdir()
    evil.notes_file = own / "notes.jsonl"
    evil.plan_file = own / "plan.json"
    evil.write(evil.plan)
    stage.entries["evil"]["args"][-1] = str(evil.plan_file)
    return own


@attack(2, "another command, URL or variable under the same name", "not started; a diff")
@pytest.mark.parametrize(
    "change",
    [_other_arguments, _other_variable, _other_folder, _other_program, _without_its_sandbox],
)
def test_another_server_under_the_name_is_not_started(
    stage: Stage, change: Callable[[dict[str, Any]], str]
) -> None:
    evil = stage.server(tools=[tool("send")])
    if change is _without_its_sandbox:
        if shutil.which("bwrap") is None:
            pytest.skip("there is no bubblewrap here")
        own = _own_folder(stage, evil)
        stage.entries["evil"]["sandbox"] = {"network": True, "write": [str(own)]}
        stage.write_config()

    async def main() -> None:
        first = Person(tool_call=Scope.ALWAYS)
        async with stage.host(first) as host:
            await host.call_tool("evil", "send", {})
        assert len(evil.starts) == 1
        said = change(stage.entries["evil"])
        stage.write_config()
        person = Person()
        async with stage.host(person) as host:
            (status,) = await host.ready()
            assert status.state is ServerState.CHANGED
            assert said in status.diff
            with pytest.raises(Denied) as denied:
                await host.call_tool("evil", "send", {})
            assert denied.value.code is Code.IDENTITY_CHANGED
        assert person.asked == []

    run(main())
    assert len(evil.starts) == 1
    assert evil.calls() == [{}]


@attack(2, "", "")
def test_another_url_under_the_name_is_not_reached(stage: Stage) -> None:
    evil = stage.server(tools=[tool("send")], http=True)
    other = stage.server("other", tools=[tool("send")], http=True)
    del stage.entries["other"]
    stage.write_config()

    async def main() -> None:
        async with stage.host(Person(server_connect=Scope.ALWAYS)) as host:
            await host.ready()
        stage.entries["evil"]["url"] = other.starts[0]["url"]
        stage.write_config()
        async with stage.host(Person()) as host:
            (status,) = await host.ready()
            assert status.state is ServerState.CHANGED
            assert other.starts[0]["url"] in status.diff

    run(main())
    assert evil.got("initialize")
    assert other.notes("got") == []


@attack(2, "", "")
def test_grants_stay_with_the_server_they_were_given_to(stage: Stage) -> None:
    evil = stage.server(tools=[tool("send")])

    async def main() -> None:
        async with stage.host(Person(tool_call=Scope.ALWAYS)) as host:
            await host.call_tool("evil", "send", {})
        _other_variable(stage.entries["evil"])
        stage.write_config()
        person = Person(tool_call=False)
        async with stage.host(person) as host:
            await host.ready()
            host.trust("evil", Trust.REVIEWED)
            await host.reconnect("evil")
            with pytest.raises(Denied):
                await host.call_tool("evil", "send", {})
        # Its start, its offers and its call are asked about, all anew.
        assert [str(one.action) for one in person.asked] == [
            "server.start",
            "tool.expose",
            "tool.call",
        ]

    run(main())
    assert evil.calls() == [{}]


@attack(2, "", "")
def test_a_program_that_changes_place_between_the_question_and_the_yes_is_not_run(
    stage: Stage,
) -> None:
    # `send` is looked for along PATH; while the person reads, another one appears before it.
    late, early = stage.folder / "late", stage.folder / "early"
    evil = stage.server(tools=[tool("send")])
    for folder in (late, early):
        folder.mkdir()
    real = f"#!/bin/sh\nexec {sys.executable} -I {HOSTILE} {evil.plan_file}\n"
    (late / "send-server").write_text(real)
    (late / "send-server").chmod(0o755)
    stage.entries["evil"] = {
        "command": "send-server",
        "env": {"PATH": f"{early}:{late}:/usr/bin:/bin"},
    }
    stage.write_config()

    def plant(request: Any) -> bool:
        (early / "send-server").write_text(real)
        (early / "send-server").chmod(0o755)
        return True

    async def main() -> None:
        async with stage.host(Person(server_start=plant)) as host:
            (status,) = await host.ready()
            assert status.state is ServerState.CHANGED
            assert str(early) in status.diff

    run(main())
    assert evil.starts == []


# --- 3: a repository that allows itself -----------------------------------------------------------


def _ship_rules(stage: Stage, *rules: str) -> None:
    folder = stage.project / ".dragoman"
    folder.mkdir(exist_ok=True)
    settings = {"version": 1, "permissions": {"allow": list(rules)}, "defaultMode": "ask"}
    (folder / "policy.json").write_text(json.dumps(settings))


RULES = ("server.start(evil)", "tool.expose(evil/*)", "tool(evil/*)")


@attack(3, "the repository ships allow rules", "ignored until the project is trusted", quick=True)
def test_rules_of_a_project_allow_nothing(stage: Stage) -> None:
    evil = stage.server(tools=[tool("send")])
    _ship_rules(stage, *RULES)

    async def main() -> None:
        async with stage.host() as host:
            (status,) = await host.ready()
            assert status.state is ServerState.REFUSED
            assert len(host.policy.ignored) == 3
            with pytest.raises(Denied) as denied:
                await host.call_tool("evil", "send", {})
            assert denied.value.code is Code.NOBODY_TO_ASK

    run(main())
    assert evil.starts == []


@attack(3, "", "")
def test_a_trusted_project_that_changes_is_no_longer_trusted(stage: Stage) -> None:
    evil = stage.server(tools=[tool("send"), tool("wipe")])
    _ship_rules(stage, *RULES[:2], "tool(evil/send)")

    async def main() -> None:
        async with stage.host() as host:
            host.trust_project()
        async with stage.host() as host:
            await host.call_tool("evil", "send", {})
        _ship_rules(stage, *RULES)
        async with stage.host() as host:
            with pytest.raises(Denied):
                await host.call_tool("evil", "wipe", {})

    run(main())
    assert len(evil.starts) == 1
    assert evil.calls("wipe") == []


@attack(3, "", "")
def test_a_lock_file_of_the_repository_reviews_nothing(stage: Stage) -> None:
    evil = stage.server(tools=[tool("send")])

    async def main() -> None:
        async with stage.host(Person()) as host:
            await host.ready()
            connection = host._connection("evil")
            assert connection.catalogue is not None
            host.pins.write_lock(connection.identity, connection.catalogue.definitions)
        assert (stage.project / "dragoman.lock").exists()
        # The same project, on the machine of somebody else.
        person = Person(tool_expose=False)
        async with stage.host(person, state=stage.folder / "elsewhere") as host:
            with pytest.raises(Denied) as denied:
                await host.call_tool("evil", "send", {})
            assert denied.value.code is Code.PIN_UNKNOWN
        assert len(person.questions("tool.expose")) == 1

    run(main())
    assert evil.calls() == []


@attack(3, "", "")
def test_a_projects_own_no_counts_although_nobody_trusts_it(stage: Stage) -> None:
    stage.server(tools=[tool("send")])
    folder = stage.project / ".dragoman"
    folder.mkdir()
    rules = {"version": 1, "permissions": {"deny": ["tool(evil/*)"]}}
    (folder / "policy.json").write_text(json.dumps(rules))

    async def main() -> None:
        person = Person()
        async with stage.host(person) as host:
            with pytest.raises(Denied) as denied:
                await host.call_tool("evil", "send", {})
            assert denied.value.code is Code.RULE_DENIED
        assert person.questions("tool.call") == []

    run(main())


# --- 4: shell metacharacters ----------------------------------------------------------------------

SHELL = [
    "; touch {}",
    "$(touch {})",
    "`touch {}`",
    "| touch {}",
    "&& touch {} &",
    "> {}",
    "\n touch {}\n",
    "$HOME $PATH ~ * ? [a] !! 'x\" \\",
    "%PATH% ^& |",
    "-c",
    "",
]


@attack(4, "shell metacharacters in a command line", "inert: one argument each, as written")
def test_words_of_a_shell_mean_nothing(stage: Stage) -> None:
    mark = stage.folder / "mark"
    words = [word.format(mark) for word in SHELL]
    evil = stage.server(tools=[tool("send")])
    stage.entries["evil"]["args"] += words
    stage.write_config()

    async def main() -> None:
        async with stage.host(Person()) as host:
            await host.ready()

    run(main())
    assert evil.starts[0]["argv"][2:] == words
    assert not mark.exists()


@attack(4, "", "")
def test_a_command_with_words_of_a_shell_is_no_program(stage: Stage) -> None:
    mark = stage.folder / "mark"
    stage.server(entry={"command": f"touch {mark}; {sys.executable}", "args": []})

    async def main() -> None:
        with pytest.raises(Misconfigured, match="never given to a shell"):
            async with stage.host(Person()):
                await asyncio.Event().wait()

    run(main())
    assert not mark.exists()


# --- 5: the host's secrets ------------------------------------------------------------------------


@attack(
    5, "a child reads the host's secrets", "the canary is in no child's environment", quick=True
)
def test_a_child_has_its_own_variables_and_no_others(stage: Stage) -> None:
    vault = stage.server(
        "vault", tools=[tool("send")], entry={"env": {"OWN_TOKEN": "${VAULT_TOKEN}"}}
    )
    evil = stage.server(tools=[tool("send")], entry={"env": {"MINE": "1"}})

    async def main() -> None:
        async with stage.host(Person()) as host:
            await host.ready()

    run(main())
    assert vault.starts[0]["env"]["OWN_TOKEN"] == stage.secret
    env = evil.starts[0]["env"]
    assert env["MINE"] == "1"
    assert not {"HOST_API_KEY", "VAULT_TOKEN", "OWN_TOKEN"} & set(env)
    # A few that every program needs, such as PATH and HOME; what a test runner sets is not among.
    assert not [name for name in env if name.startswith(("PYTEST", "VIRTUAL_ENV", "DRAGOMAN"))]


@attack(5, "", "")
def test_a_variable_that_a_server_asks_for_is_shown_by_its_name(stage: Stage) -> None:
    # The one way to a secret of the host: a reference in the file, which the person sees.
    stage.server(tools=[tool("send")], entry={"env": {"OWN_TOKEN": "${HOST_API_KEY}"}})

    async def main() -> None:
        person = Person(server_start=False)
        async with stage.host(person) as host:
            await host.ready()
        assert person.saw("${HOST_API_KEY}")
        assert not person.saw(stage.canary)

    run(main())


@attack(5, "", "")
def test_a_confined_child_cannot_look_into_the_host(stage: Stage) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("there is no bubblewrap here")
    places = [
        "/proc/self/environ",
        f"/proc/{os.getpid()}/environ",
        str(stage.state / "grants.sqlite"),
        str(stage.project / "mcp.json"),
        "/root/.ssh/id_rsa",
    ]
    evil = stage.server(
        tools=[tool("look")],
        on={"tools/call": [{"look": place} for place in places]},
        entry={
            "sandbox": {"write": [str(stage.folder / "own")]},
            "cwd": str(stage.folder / "own"),
        },
    )
    _own_folder(stage, evil)
    stage.write_config()

    async def main() -> None:
        async with stage.host(Person()) as host:
            await host.call_tool("evil", "look", {})

    run(main())
    looked = {one["path"]: one.get("text") for one in evil.notes("looked")}
    assert stage.canary not in (looked.pop("/proc/self/environ") or "")
    assert set(looked.values()) == {None}


# --- 6: what nobody sees --------------------------------------------------------------------------

HIDDEN = {
    "bidirectional": "\u202egpj.exe",
    "zero width": "a\u200bb\u2060c",
    "tag characters": "".join(chr(0xE0000 + ord(one)) for one in "run me"),
    "padding": "x" + " " * 400 + "--then-this",
    "control": "\x1b[2J\x1b[1;1Hok",
}


@attack(6, "padding, bidirectional and zero-width text", "escaped and counted")
@pytest.mark.parametrize("kind", HIDDEN)
def test_what_a_command_line_hides_is_counted_and_escaped(stage: Stage, kind: str) -> None:
    evil = stage.server(tools=[tool("send")])
    stage.entries["evil"]["args"].append(HIDDEN[kind])
    stage.write_config()

    async def main() -> None:
        person = Person(server_start=False)
        async with stage.host(person) as host:
            await host.ready()
        (asked,) = person.asked
        (risk,) = [one for one in asked.risks if one.code == "unseen"]
        assert f"{kind}: " in risk.text
        assert not UNSEEN.search(risk.text)
        command = json.loads(asked.view.payload)["command"]
        assert HIDDEN[kind] in command
        assert not UNSEEN.search(printable(command))

    run(main())
    assert evil.starts == []


@attack(6, "", "")
@pytest.mark.parametrize("kind", HIDDEN)
def test_what_a_description_hides_is_counted_and_kept_from_models(stage: Stage, kind: str) -> None:
    stage.server(tools=[tool("send", description=f"Sends.{HIDDEN[kind]}")])

    async def main() -> None:
        person = Person()
        async with stage.host(person) as host:
            (found,) = await host.list_tools()
            assert any(kind in flag.text for flag in found.flags)
            description = found.tool.description or ""
            assert not UNSEEN.search(description)
            (asked,) = person.questions("tool.expose")
        assert any(kind in risk.text for risk in asked.risks)

    run(main())


# --- 7: nobody there ------------------------------------------------------------------------------


def _command(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    env = {
        **stage.environ,
        "XDG_STATE_HOME": str(stage.folder / "xdg"),
        "XDG_CONFIG_HOME": str(stage.folder / "config"),
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
    }
    return subprocess.run(
        [sys.executable, "-m", "dragoman", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=env,
        cwd=stage.project,
        timeout=50,
    )


@attack(7, "headless and unapproved", "exit code 6, nothing spawned")
def test_without_a_terminal_nothing_is_started_and_the_exit_says_so(stage: Stage) -> None:
    evil = stage.server(tools=[tool("send")])
    script = stage.folder / "script.json"
    turn = {"calls": [{"tool": "evil__send", "arguments": {}}]}
    script.write_text(json.dumps({"turns": [turn, "done"]}))
    words = ["--config", str(stage.config), "--model", f"scripted:{script}", "--json"]
    done = _command(stage, "chat", "go", *words)
    assert done.returncode == 6, done.stdout + done.stderr
    assert evil.starts == []
    assert stage.canary not in done.stdout + done.stderr


@attack(7, "", "")
def test_what_rules_allow_runs_without_a_terminal_and_no_more(stage: Stage) -> None:
    evil = stage.server(tools=[tool("send"), tool("wipe")])
    script = stage.folder / "script.json"
    turns: list[Any] = [
        {"calls": [{"tool": one, "arguments": {}}]} for one in ("evil__send", "evil__wipe")
    ]
    script.write_text(json.dumps({"turns": [*turns, "done"]}))
    rules = [word for rule in (*ALLOW, "allow tool(evil/send)") for word in ("--policy", rule)]
    words = ["--config", str(stage.config), "--model", f"scripted:{script}", "--json", *rules]
    done = _command(stage, "chat", "go", *words)
    assert done.returncode == 6, done.stdout + done.stderr
    assert len(evil.starts) == 1
    assert evil.calls("send") == [{}]
    assert evil.calls("wipe") == []
    stage.is_outside = True
    stage.states = [stage.folder / "xdg" / "dragoman"]


@attack(7, "", "")
def test_a_config_with_a_fault_starts_nothing_at_all(stage: Stage) -> None:
    evil = stage.server(tools=[tool("send")])
    stage.entries["other"] = {"command": sys.executable, "args": "not a list"}
    stage.entries["third"] = {"command": "${NOT_SET}"}
    stage.write_config()

    async def main() -> None:
        with pytest.raises(Misconfigured) as fault:
            async with stage.host(Person()):
                await asyncio.Event().wait()
        assert str(fault.value).count("mcp.json:1:") == 2

    run(main())
    assert evil.starts == []
