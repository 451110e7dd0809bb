"""`dragoman host`: every command, as people and as programs see it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.cli.host_pages import limits_text
from dragoman.host.kinds import Action, Effect, Grant, Limits, Scope
from tests.cli.aids import UNSEEN, WEATHER, assert_harmless
from tests.cli.hosts.places import START, Place, call

SECRET = "ghp_" + "a1B2c3D4" * 5


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def servers(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))["mcpServers"]


# --- the servers ----------------------------------------------------------------------------------


def test_status_starts_nothing_and_shows_the_whole_command(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    spawns = {"command": sys.executable, "args": ["-c", f"open({str(mark)!r}, 'w')", "\u202etxt"]}
    place = Place(tmp_path, {"evil": spawns, "off": {"command": "x", "disabled": True}})
    document = place.document("host", "status")
    assert [(one["server"], one["state"], one["trust"]) for one in document["servers"]] == [
        ("evil", "closed", "unknown"),
        ("off", "disabled", "unknown"),
    ]
    facts = {one["label"]: one["text"] for one in document["servers"][0]["facts"]}
    assert str(mark) in facts["command"]
    assert not mark.exists()


@pytest.mark.long
def test_status_connects_only_when_asked_and_where_policy_allows(place: Place) -> None:
    place.pin()
    (refused,) = place.document("host", "status", "--connect")["servers"]
    assert refused["state"] == "refused"
    (weather,) = place.document("host", "status", "--connect", *START)["servers"]
    assert (weather["state"], weather["tools"]) == ("connected", 3)


@pytest.mark.long
def test_a_server_that_changed_is_shown_with_its_difference_and_trusted_again(place: Place) -> None:
    place.pin()
    changed = {"command": sys.executable, "args": [WEATHER, "--now-evil"]}
    place.config.write_text(json.dumps({"mcpServers": {"weather": changed}}))
    (weather,) = place.document("host", "status")["servers"]
    assert weather["state"] == "changed"
    assert "--now-evil" in weather["diff"]
    done = place.run("host", "status", "--connect", *START)
    assert "changed" in done.stdout
    refused = place.document("host", "diff", "weather", *START, code=6)
    assert refused["error"]["code"] == "identity_changed"
    asked = place.run("host", "trust", "weather")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    assert place.document("host", "trust", "weather", "--yes")["changed"] is True
    (weather,) = place.document("host", "status")["servers"]
    assert (weather["state"], weather["trust"]) == ("closed", "reviewed")


@pytest.mark.long
def test_a_server_is_added_and_removed(place: Place) -> None:
    added = place.run("host", "add", "files", "--cwd", "/srv", "--", "npx", "-y", "files", "/srv")
    assert added.returncode == 0, added.stderr
    assert servers(place.config)["files"] == {
        "command": "npx",
        "args": ["-y", "files", "/srv"],
        "cwd": "/srv",
    }
    place.document("host", "add", "web", "https://a.test/mcp", "--header", "X-A: b")
    assert servers(place.config)["web"] == {
        "type": "http",
        "url": "https://a.test/mcp",
        "headers": {"X-A": "b"},
    }
    again = place.run("host", "add", "web", "https://b.test/mcp")
    assert again.returncode == 2
    assert "--replace" in again.stderr
    assert place.document("host", "remove", "web")["removed"] == ["web"]
    assert list(servers(place.config)) == ["weather", "files"]
    assert place.run("host", "remove", "web").returncode == 2


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ("add", "x"),
        ("add", "x", "https://a.test", "--env", "A=b"),
        ("add", "x", "--header", "A:b", "--", "y"),
        ("add", "x", "https://a.test", "--", "y"),
        ("add", "x", "--env", "nonsense", "--", "y"),
        ("add", "x", "not-a-url"),
        ("add", "x", "--", "npx -y server"),
        ("add", "x", "--", "y", "${a b}"),
        ("remove", "wether"),
        ("trust",),
        ("trust", "weather", "--project"),
        ("trust", "wether", "--yes"),
        ("export", "vscod"),
        ("import", "cursor", "nowhere.json"),
        ("revoke", "nothing"),
        ("policy", "explain", "tool.cal", "weather"),
        ("policy", "explain", "tool.call", "wether"),
        ("stat",),
    ],
)
def test_wrong_words_are_told_and_change_nothing(place: Place, words: tuple[str, ...]) -> None:
    before = place.config.read_bytes()
    done = place.run("host", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert place.config.read_bytes() == before


@pytest.mark.parametrize("server", ["wether", "nothing-like-it"])
@pytest.mark.parametrize("words", [("trust", "--yes"), ("pin", "--yes"), ("diff",)])
def test_a_server_that_is_not_there_is_told_in_its_words(
    place: Place, words: tuple[str, ...], server: str
) -> None:
    done = place.run("host", *words, server)
    assert done.returncode == 2
    assert f"has no server '{server}'" in done.stderr
    assert ("did you mean 'weather'?" in done.stderr) is (server == "wether")


def test_pinning_one_server_starts_no_other(place: Place) -> None:
    started = place.folder / "started"
    other = {"command": sys.executable, "args": ["-c", f"open({str(started)!r}, 'w')"]}
    weather = servers(place.config)["weather"]
    place.config.write_text(json.dumps({"mcpServers": {"weather": weather, "other": other}}))
    rules = ("--policy", "allow server.start(weather)", "--policy", "allow server.start(other)")
    assert place.run("host", "pin", "weather", "--yes", *rules).returncode == 0
    assert not started.exists()


def test_a_group_without_a_command_shows_its_help(place: Place) -> None:
    done = place.run("host")
    assert done.returncode == 2
    assert done.stdout.startswith("Usage: dragoman host")
    assert "Usage" not in done.stderr
    wrong = place.run("host", "add", "bad name", "--", "x")
    assert wrong.stderr.count("'bad-name' would do") == 1


@pytest.mark.long
def test_a_secret_is_told_and_moved_on_request(place: Place) -> None:
    words = ("host", "add", "git", "--replace", "--env", f"GITHUB_TOKEN={SECRET}")
    told = place.run(*words, "--", "git-server")
    assert "--move-secrets" in told.stderr
    assert SECRET not in told.stdout + told.stderr
    done = place.run(*words, "--move-secrets", "--", "git-server")
    assert done.returncode == 0, done.stderr
    assert SECRET not in place.config.read_text()
    assert SECRET not in done.stdout + done.stderr
    assert servers(place.config)["git"]["env"]["GITHUB_TOKEN"].startswith("${secret:")
    stays = place.run("host", "add", "arg", "--move-secrets", "--", "git-server", SECRET)
    assert "argument 1 looks like a secret and stays in the file" in stays.stderr
    assert "kept in" not in stays.stderr
    assert SECRET not in stays.stdout + stays.stderr
    removed = place.run("host", "remove", "git")
    assert "its secrets stay where they are kept: git/GITHUB_TOKEN" in removed.stdout


@pytest.mark.long
def test_servers_are_imported_without_starting_them_and_rules_are_only_proposed(
    place: Place,
) -> None:
    other = place.folder / "cline.json"
    text = json.dumps(
        {
            "mcpServers": {
                "fs": {"command": "fs", "alwaysAllow": ["read_file"], "odd": 1},
                "weather": {"command": "other"},
                "bad": {"nothing": True},
            }
        }
    )
    other.write_text(text)
    document = place.document("host", "import", "cline", str(other))
    assert document["added"] == ["fs"]
    assert document["kept"] == ["weather"]
    assert [one["server"] for one in document["notRead"]] == ["bad"]
    assert document["proposedRules"] == ["allow tool(fs/read_file)"]
    assert other.read_text() == text
    assert servers(place.config)["weather"]["command"] == sys.executable
    verdict = place.document("host", "policy", "explain", "tool.call", "fs", "read_file", code=6)
    assert verdict["code"] == "nobody_to_ask"


@pytest.mark.long
def test_an_import_takes_what_can_be_used_here_and_says_what_it_left_out(place: Place) -> None:
    other = place.folder / "claude.json"
    theirs = {
        "My Server": {"command": "x", "env": {"A_TOKEN": SECRET}},
        "one-liner": {"command": "npx -y server"},
    }
    other.write_text(json.dumps({"mcpServers": theirs}))
    words = ("host", "import", "claude-desktop", str(other), "--move-secrets")
    done = place.run(*words)
    assert done.returncode == 0, done.stderr
    assert "My Server is called My-Server here" in done.stdout
    assert "one-liner was left out: " in done.stdout
    assert servers(place.config)["My-Server"]["env"] == {"A_TOKEN": "${secret:My-Server/A_TOKEN}"}
    # The file is of use, and taking over once more finds what is there.
    assert len(place.document("host", "status")["servers"]) == 2
    again = place.document(*words, "--replace")
    assert (again["added"], again["movedSecrets"]) == ([], ["My-Server/A_TOKEN"])


@pytest.mark.long
def test_a_projects_other_files_are_found_beside_the_one_in_use(place: Place) -> None:
    place.config.unlink()
    for folder, member in ((".vscode", "servers"), (".cursor", "mcpServers")):
        (place.folder / folder).mkdir()
        servers_ = {folder[1:]: {"type": "stdio", "command": "x"}}
        (place.folder / folder / "mcp.json").write_text(json.dumps({member: servers_}))
    itself = place.run("host", "import", "vscode")
    assert itself.returncode == 2
    assert "--config .mcp.json" in itself.stderr
    for product in ("vscode", "cursor"):
        done = place.document("host", "import", product, "--config", ".mcp.json")
        assert done["added"] == [product]


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
def test_nobody_waits_for_a_pipe(place: Place) -> None:
    pipe = str(place.folder / "pipe")
    os.mkfifo(pipe)
    for words in (
        ("import", "cursor", pipe),
        ("export", "cursor", pipe),
        ("status", "--config", pipe),
        ("status", "--policy-file", pipe),
        ("add", "x", "--config", pipe, "--", "y"),
        ("audit", "verify", pipe),
    ):
        done = place.run("host", *words)
        assert done.returncode == 2
        assert "regular file" in done.stderr


@pytest.mark.long
def test_servers_are_exported_with_what_is_lost(place: Place) -> None:
    done = place.run("host", "export", "vscode")
    assert json.loads(done.stdout)["servers"]["weather"]["type"] == "stdio"
    target = place.folder / "codex.toml"
    document = place.document("host", "export", "codex", str(target))
    assert document["exported"] == ["weather"]
    assert "[mcp_servers.weather]" in target.read_text()


# --- pins, policy, grants -------------------------------------------------------------------------


@pytest.mark.long
def test_what_a_server_offers_is_pinned_and_compared(place: Place) -> None:
    first = place.document("host", "diff", "weather", *START, code=1)
    assert "forecast" in first["diff"]
    place.pin()
    assert place.document("host", "diff", "weather", *START) == {
        "server": "weather",
        "changed": False,
        "diff": "",
    }


@pytest.mark.long
def test_only_what_is_named_is_shown_and_pinned(place: Place) -> None:
    one = place.document("host", "pin", "weather", "tool/forecast", "--yes", *START)
    assert "tool/forecast" in one["diff"]
    assert "summarise" not in one["diff"]
    assert place.document("host", "diff", "weather", "forecast", *START)["changed"] is False
    assert place.document("host", "diff", "weather", "summarise", *START, code=1)["changed"]
    for words in (("pin", "--yes"), ("diff",)):
        wrong = place.run("host", *words, "weather", "sumarise", *START)
        assert wrong.returncode == 2
        assert "offers no 'sumarise'; did you mean 'summarise'?" in wrong.stderr


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_whoever_is_asked_to_trust_a_server_sees_its_risks(tmp_path: Path) -> None:
    place = Place(tmp_path, {"x": {"command": "npx", "args": ["-y", "server"]}})
    with place.screen("host", "trust", "x") as screen:
        screen.until("command: npx -y server")
        screen.until("! it downloads a package and runs it")
        screen.until("as it is now?")
        screen.type("n\r")
        assert screen.finish() == 6


@pytest.mark.long
def test_a_verdict_is_explained_step_by_step(place: Place) -> None:
    words = ("host", "policy", "explain", "tool.call", "weather", "forecast")
    done = place.run(*words)
    assert done.returncode == 6
    assert done.stdout.startswith("deny  tool.call(weather/forecast)\n")
    assert "integrity" in done.stdout
    if sys.platform != "win32":
        # At a terminal somebody can be asked.
        with place.screen(*words) as screen:
            screen.until("ask  tool.call(weather/forecast)")
            assert screen.finish() == 0
    allowed = place.document(*words, "--policy", "allow tool(weather/forecast)")
    assert (allowed["effect"], allowed["layer"]) == ("allow", "command line")
    refused = place.run(*words, "--policy", "allow tool(wether/forecast)")
    assert refused.returncode == 2
    assert "weather" in refused.stderr


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_an_answer_that_is_remembered_is_listed_and_revoked(place: Place) -> None:
    place.pin()
    model = place.script(call("weather__forecast", city="Oslo"), "Done.")
    with place.screen("chat", "Rain?", "--model", model, *START) as screen:
        screen.until("[a] always")
        screen.type("a")
        screen.until("Done.")
        assert screen.finish() == 0
    (grant,) = place.document("host", "grants")["grants"]
    assert (grant["effect"], grant["server"], grant["object"]) == ("allow", "weather", "forecast")
    assert "forecast" in place.run("host", "grants").stdout
    again = place.run("chat", "Rain?", "--model", model, *START)
    assert (again.returncode, again.stdout) == (0, "Done.\n")
    assert place.document("host", "revoke", grant["id"])["revoked"] == [grant["id"]]
    assert place.document("host", "grants")["grants"] == []
    assert len(place.document("host", "grants", "--all")["grants"]) == 1
    assert place.run("chat", "Rain?", "--model", model, *START).returncode == 6


@pytest.mark.long
def test_a_projects_rules_are_ignored_and_listed_until_it_is_trusted(place: Place) -> None:
    rules = place.folder / ".dragoman" / "policy.json"
    rules.parent.mkdir()
    rules.write_text('{"version": 1, "permissions": {"allow": ["tool(weather/forecast)"]}}')
    (ignored,) = place.document("host", "status")["ignored"]
    assert "tool(weather/forecast)" in ignored
    words = ("host", "policy", "explain", "tool.call", "weather", "forecast")
    assert place.document(*words, code=6)["effect"] == "deny"
    assert place.document("host", "trust", "--project", "--yes")["changed"] is True
    assert place.document(*words)["layer"] == "project"


def test_a_no_is_not_said_to_be_limited_by_whose_words_came_before() -> None:
    yes = Grant(
        id="g1",
        effect=Effect.ALLOW,
        principal="user",
        server="git",
        identity="sha256:1",
        action=Action.TOOL_CALL,
        object="git_log",
        scope=Scope.ALWAYS,
        limits=Limits(taint=frozenset({"web"})),
    )
    assert limits_text(yes) == "even after words of web"
    assert limits_text(replace(yes, effect=Effect.DENY)) == ""


# --- the audit log --------------------------------------------------------------------------------


@pytest.mark.long
def test_the_log_is_shown_and_verified_and_an_edit_is_found(place: Place) -> None:
    place.pin()
    model = place.script(call("weather__forecast", city="Oslo"), "Done.")
    allow = ("--policy", "allow tool(weather/forecast)")
    assert place.run("chat", "Rain?", "--model", model, *START, *allow).returncode == 0
    shown = place.run("host", "audit", "show")
    assert "tool.call(weather/forecast)" in shown.stdout
    lines = place.run("host", "audit", "show", "--json", "--last", "3").stdout.splitlines()
    assert len(lines) == 3
    decisions = [
        json.loads(line)
        for line in place.run(
            "host", "audit", "show", "--json", "--action", "tool.call"
        ).stdout.splitlines()
    ]
    assert [one["effect"] for one in decisions if one["kind"] == "decision"] == ["allow"]
    assert place.document("host", "audit", "verify")["isIntact"] is True
    (log,) = place.state.rglob("audit.jsonl")
    log.write_text(log.read_text().replace('"effect":"allow"', '"effect":"deny"', 1))
    report = place.document("host", "audit", "verify", code=1)
    assert report["fault"]["kind"] == "edited"
    assert report["fault"]["line"] > 1

    # A log whose end is gone is refused; aside it stays as it was, and a new one begins.
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    refused = place.run("host", "status")
    assert refused.returncode == 2
    assert "dragoman host audit set-aside" in refused.stderr
    folder = Path(place.document("host", "audit", "set-aside")["folder"])
    assert place.run("host", "status").returncode == 0
    assert place.document("host", "audit", "verify")["isIntact"] is True
    assert place.document("host", "audit", "verify", str(folder / log.name), code=1)
    log.unlink()
    assert "there is no audit log" in place.run("host", "audit", "set-aside").stderr


@pytest.mark.long
def test_a_hostile_name_or_command_writes_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    nasty = "".join(UNSEEN)
    place = Place(tmp_path, {"x": {"command": "x", "args": [nasty], "odd\x1b[2J": 1}})
    for words in (("status",), ("status", "--json"), ("export", "cursor"), ("audit", "show")):
        done = place.run("host", *words)
        assert_harmless(done.stdout, done.stderr)


# --- what the file wants to know ------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_an_input_of_the_file_is_asked_for_and_a_password_not_shown(tmp_path: Path) -> None:
    server = {"command": "git-server", "args": ["${input:where}"], "env": {"T": "${input:token}"}}
    place = Place(tmp_path)
    inputs = [
        {"type": "promptString", "id": "token", "description": "Your\x1b[2J token", "password": True},
        {"type": "pickString", "id": "where", "options": ["here", "there"]},
    ]  # fmt: skip
    place.config.write_text(json.dumps({"mcpServers": {"git": server}, "inputs": inputs}))
    connect = ("host", "status", "--connect", "--policy", "deny server.start(*)")
    with place.screen(*connect) as screen:
        for words, said in (("${input:where}", "there"), ("${input:token}", SECRET)):
            screen.until(words)
            screen.type(f"{said}\r")
        screen.until("refused")
        assert screen.finish() == 0
    assert SECRET not in screen.seen
    assert "\x1b[2J" not in screen.seen
    with place.screen(*connect) as screen:
        screen.until("there):")
        screen.until_quiet()
        screen.type("\x03")
        assert screen.finish() == 130
    (alone,) = place.document("host", "status", "--connect")["servers"]
    assert alone["state"] == "failed"
    assert "there is nobody to ask" in alone["detail"]


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_what_starts_no_server_asks_for_no_more_than_it_needs(tmp_path: Path) -> None:
    server = {"command": "git-server", "args": ["${input:where}"], "env": {"T": "${input:token}"}}
    place = Place(tmp_path, {"git": server})
    whole = json.loads(place.config.read_text())
    inputs = [{"id": "token", "password": True}, {"id": "where"}]
    place.config.write_text(json.dumps(whole | {"inputs": inputs}))
    for words, shown in (
        (("status",), "it asks for where, token"),
        (("grants",), "Nothing is remembered"),
        (("audit", "show"), "opened"),
    ):
        with place.screen("host", *words) as screen:
            screen.until(lambda text: shown in " ".join(text.split()))  # noqa: B023
            assert screen.finish() == 0
        assert "${input:" not in screen.seen
    with place.screen("host", "trust", "git") as screen:
        screen.until("${input:where}")
        screen.type("there\r")
        # What is agreed to is what was said.
        screen.until("command: git-server there")
        screen.until("as it is now?")
        screen.type("y\r")
        screen.until("git: reviewed")
        assert screen.finish() == 0
    assert "${input:token} in" not in screen.seen


# --- what is not set ------------------------------------------------------------------------------


LAME: dict[str, Any] = {
    "command": "git-server",
    "args": ["${HOMEE}"],
    "env": {"T": "${NOT_SET}"},
    "envFile": ".env",
}


def test_a_variable_that_is_not_set_is_shown_with_its_server(tmp_path: Path) -> None:
    place = Place(tmp_path, {"git": LAME, "off": {"command": "x"}})
    lame, other = place.document("host", "status")["servers"]
    assert (lame["state"], lame["identity"]) == ("failed", "")
    for part in ("mcp.json:1: ", "HOMEE", "did you mean 'HOME'?", "NOT_SET", "envFile"):
        assert part in lame["detail"]
    assert other["state"] == "closed"


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("grants",), 0),
        (("audit", "show"), 0),
        (("revoke", "none"), 2),
        (("policy", "explain", "tool.call", "git", "log"), 6),
        (("trust", "--project", "--yes"), 0),
        (("trust", "off", "--yes"), 0),
        (("export", "cursor"), 0),
        (("add", "more", "--", "x"), 0),
        (("remove", "git"), 0),
    ],
)
def test_what_starts_nothing_works_while_a_variable_is_not_set(
    tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    place = Place(tmp_path, {"git": LAME, "off": {"command": "x"}})
    done = place.run("host", *words)
    assert done.returncode == code, done.stderr
    if words[0] == "policy":
        assert "HOMEE" in done.stderr
        assert "no earlier answer was looked at" in done.stderr


@pytest.mark.long
def test_one_server_is_pinned_while_the_variable_of_another_is_not_set(tmp_path: Path) -> None:
    weather = {"command": sys.executable, "args": [WEATHER]}
    place = Place(tmp_path, {"git": LAME, "weather": weather})
    place.pin()
    lame = place.run("host", "pin", "git", "--yes")
    assert lame.returncode == 3
    assert "HOMEE" in lame.stderr


@pytest.mark.long
@pytest.mark.parametrize("words", [("grants",), ("revoke", "none"), ("audit", "show")])
def test_an_answer_can_be_taken_back_whatever_the_file_is_like(
    place: Place, words: tuple[str, ...]
) -> None:
    place.config.write_text("{ broken")
    assert "broken" not in place.run("host", *words).stderr
    place.config.unlink()
    assert "mcp.json" not in place.run("host", *words).stderr


# --- secrets --------------------------------------------------------------------------------------


def test_kept_secrets_are_listed_and_forgotten_and_never_shown(place: Place) -> None:
    assert place.document("host", "secrets", "list") == {"secrets": []}
    words = ("host", "add", "git", "--env", f"GITHUB_TOKEN={SECRET}", "--move-secrets")
    assert place.run(*words, "--", "git-server").returncode == 0
    # A broken mcp.json keeps nobody from seeing what is kept.
    place.config.write_text("{", encoding="utf-8")
    (kept,) = place.document("host", "secrets", "list")["secrets"]
    assert kept["name"] == "git/GITHUB_TOKEN"
    (where,) = kept["where"]
    assert where.endswith("secrets.json")
    listed = place.run("host", "secrets", "list")
    assert "git/GITHUB_TOKEN" in listed.stdout
    assert SECRET not in listed.stdout + listed.stderr + json.dumps(kept)
    unknown = place.run("host", "secrets", "forget", "git/GITHUB_TOKEN", "other")
    assert unknown.returncode == 2
    assert "there is no secret 'other', and none was deleted" in unknown.stderr
    forgotten = place.run("host", "secrets", "forget", "git/GITHUB_TOKEN")
    assert forgotten.stdout == "git/GITHUB_TOKEN: forgotten\n"
    assert place.document("host", "secrets", "list") == {"secrets": []}
    assert SECRET not in "".join(one.read_text() for one in place.state.rglob("secrets.json"))


def test_the_help_of_the_audit_log_says_what_a_record_is(place: Place) -> None:
    shown = " ".join(place.run("host", "audit", "show", "--help").stdout.split())
    assert "A record is a decision" in shown
    assert 'the member "trace" of a record' in shown
    assert "tool.call" in shown
