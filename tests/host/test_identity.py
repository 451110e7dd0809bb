"""Who a server is: attacks 1, 2 and 5 begin here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.client.config import RemoteEntry, ServerEntry
from dragoman.errors import Misconfigured
from dragoman.host.identity import (
    ServerIdentity,
    alias_faults,
    check_aliases,
    diff_identity,
    identity_of,
)
from dragoman.host.sandbox import Root

CANARY = "ghp_CANARY0123456789"
FILE = Path("/srv/app/mcp.json")


@dataclass(frozen=True)
class Entry:
    """What a host's configuration has of a server."""

    entry: ServerEntry | RemoteEntry
    shown: ServerEntry | RemoteEntry
    references: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)
    sandbox: object = None
    roots: tuple[Root, ...] = ()


def child(**changes: Any) -> ServerEntry:
    given: dict[str, Any] = {
        "name": "fs",
        "source": FILE,
        "command": sys.executable,
        "args": ("-m", "some_server_of_nobody", "--root", "/srv/app"),
        "env": {"TOKEN": "one", "MODE": "fast"},
        "cwd": Path("/"),
    }
    return ServerEntry(**given | changes)


def remote(**changes: Any) -> RemoteEntry:
    given: dict[str, Any] = {
        "name": "web",
        "source": FILE,
        "url": "https://mcp.example.com/v1?team=a",
        "headers": {"Authorization": "Bearer one", "X-Team": "a"},
        "mode": "streamable",
    }
    return RemoteEntry(**given | changes)


def declared(entry: ServerEntry | RemoteEntry, **more: Any) -> Entry:
    return Entry(entry, more.pop("shown", entry), **more)


def test_the_same_settings_are_the_same_server() -> None:
    assert identity_of(child()) == identity_of(child(env={"MODE": "fast", "TOKEN": "one"}))
    # Header names have no case.
    shouted = remote(headers={"X-TEAM": "a", "AUTHORIZATION": "Bearer one"})
    assert identity_of(remote()).digest == identity_of(shouted).digest
    assert identity_of(declared(child())).digest == identity_of(child()).digest


@pytest.mark.parametrize(
    "change",
    [
        {"name": "files"},
        {"command": "/bin/sh"},
        {"args": ("-m", "some_server_of_nobody", "--root", "/")},
        {"args": ("-m some_server_of_nobody", "--root", "/srv/app")},
        {"args": ()},
        {"cwd": Path("/usr")},
        {"cwd": None},
        {"env": {"TOKEN": "two", "MODE": "fast"}},
        {"env": {"TOKEN": "one"}},
        {"env": {"TOKEN": "one", "MODE": "fast", "LD_PRELOAD": "/tmp/x.so"}},
        {"env": {"TOKEN": "fast", "MODE": "one"}},
    ],
    ids=str,
)
def test_any_change_of_what_is_started_is_another_server_and_shows(change: dict[str, Any]) -> None:
    old, new = identity_of(child()), identity_of(child(**change))
    assert old.digest != new.digest
    if "name" not in change:
        assert diff_identity(old.lines, new.lines)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "site"},
        {"url": "https://mcp.example.com/v1?team=b"},
        {"url": "https://mcp.example.org/v1?team=a"},
        {"url": "http://mcp.example.com/v1?team=a"},
        {"headers": {"Authorization": "Bearer two", "X-Team": "a"}},
        {"headers": {"Authorization": "Bearer one", "X-Tenant": "a"}},
        {"headers": {}},
        {"mode": "sse"},
    ],
    ids=str,
)
def test_any_change_of_what_is_reached_is_another_server_and_shows(change: dict[str, Any]) -> None:
    old, new = identity_of(remote()), identity_of(remote(**change))
    assert old.digest != new.digest
    if "name" not in change:
        assert diff_identity(old.lines, new.lines)


def test_a_sandbox_that_is_taken_away_is_a_change() -> None:
    confined = identity_of(declared(child(), sandbox="confined: no network"))
    assert confined.digest != identity_of(child()).digest
    assert "- sandbox: confined: no network\n+ sandbox: no" in diff_identity(
        confined.lines, identity_of(child()).lines
    )


def test_the_whole_command_line_is_shown_word_by_word() -> None:
    args = ("-c", "x; rm -rf /", "$(id)", "a b", "", "z" * 5000)
    (line,) = [text for label, text in identity_of(child(args=args)).lines if label == "command"]
    assert line.endswith("-c 'x; rm -rf /' '$(id)' 'a b' '' " + "z" * 5000)


def test_labels_are_there_once() -> None:
    for identity in (identity_of(child()), identity_of(remote())):
        assert len(dict(identity.lines)) == len(identity.lines)


def test_a_program_is_the_one_that_the_childs_own_path_finds(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        program = tmp_path / name / "server"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    entry = child(command="server", args=())
    first = identity_of(entry, environ={"PATH": f"{tmp_path}/one:{tmp_path}/two"})
    second = identity_of(entry, environ={"PATH": f"{tmp_path}/two:{tmp_path}/one"})
    own = identity_of(
        replace(entry, env={"PATH": f"{tmp_path}/two"}), environ={"PATH": f"{tmp_path}/one"}
    )
    assert dict(first.lines)["program"] == str(tmp_path / "one" / "server")
    assert dict(own.lines)["program"] == str(tmp_path / "two" / "server")
    assert first.digest != second.digest
    missing = identity_of(entry, environ={"PATH": str(tmp_path)})
    assert "missing" in {risk.code for risk in missing.risks}
    assert missing.digest not in (first.digest, second.digest)


def test_a_program_of_the_folder_it_is_started_in_is_bound_to_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "node_modules" / ".bin").mkdir(parents=True)
    entry = child(cwd=None)

    def digests(entry: ServerEntry) -> tuple[str, str]:
        found = []
        for name in ("one", "two"):
            monkeypatch.chdir(tmp_path / name)
            found.append(identity_of(entry).digest)
        return found[0], found[1]

    # Nothing of it lies there: the folder does not matter.
    one, two = digests(entry)
    assert one == two
    for name in ("one", "two"):
        (tmp_path / name / "some_server_of_nobody.py").touch()
        (tmp_path / name / "node_modules" / ".bin" / "server").touch()
    after = digests(entry)
    assert after[0] != after[1]
    assert one not in after
    commands: list[tuple[str, tuple[str, ...]]] = [
        (sys.executable, ("some_server_of_nobody.py",)),
        ("npx", ("-y", "server@1.2.3")),
        ("./server", ()),
        ("npm", ("start",)),
        ("uv", ("run", "x")),
    ]
    for command, args in commands:
        here, there = digests(child(cwd=None, command=command, args=args))
        assert here != there
    # Where packages come from is said by the folder, or one above it.
    fetcher = child(cwd=None, command="npx", args=("-y", "another@1.2.3"))
    here, there = digests(fetcher)
    assert here == there
    (tmp_path / ".npmrc").write_text("registry=https://evil.example/")
    here, there = digests(fetcher)
    assert here != there


def test_no_secret_is_in_an_identity_and_a_renewed_one_is_no_change() -> None:
    def identity(secret: str) -> Any:
        return identity_of(
            declared(
                child(env={"TOKEN": secret, "PW": secret}),
                shown=child(env={"TOKEN": "${TOKEN}", "PW": secret}),
                references={"TOKEN": "${TOKEN}"},
            )
        )

    def header(secret: str) -> Any:
        return identity_of(
            declared(
                remote(headers={"Authorization": f"Bearer {secret}", "X-Key": CANARY}),
                references={"Authorization": "Bearer ${TOKEN:-" + CANARY + "}"},
            )
        )

    for made in (identity(CANARY), header(CANARY)):
        assert CANARY not in str(made)
        assert CANARY not in repr(made)
    assert dict(identity(CANARY).lines)["variable TOKEN"] == "from ${TOKEN}"
    assert header("one") == header("two")
    # Another place to take it from is a change; so is one that stands in the file.
    one = declared(child(), references={"TOKEN": "${TOKEN}"})
    other = declared(child(), references={"TOKEN": "${OTHER}"})
    assert len({identity_of(entry).digest for entry in (one, other, child())}) == 3
    assert identity("x").digest != identity("y").digest


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{CANARY}@mcp.example.com/",
        f"https://me:a@{CANARY}@mcp.example.com/x=1",
        f"https://{CANARY}@mcp.example.com/?x=1",
        f"https://mcp.example.com/?x=1&key=${{A}}{CANARY}",
        f"https://mcp.example.com/?api_key={CANARY}&x=1",
        f"https://mcp.example.com/?x=1&access-token={CANARY}#part",
    ],
)
def test_a_secret_in_a_url_is_not_shown_and_its_change_is(url: str) -> None:
    one = identity_of(remote(url=url))
    other = identity_of(remote(url=url.replace(CANARY, "ghp_other")))
    assert CANARY not in repr(one) + str(one)
    assert diff_identity(one.lines, other.lines)
    # What is no secret is shown in full.
    assert ("x=1" in str(one)) == ("x=1" in url)


def test_a_reference_in_a_url_is_shown() -> None:
    url = "https://${USER}:${PASS}@mcp.example.com/?token=${TOKEN}"
    assert dict(identity_of(remote(url=url)).lines)["url"] == url


def test_a_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(Misconfigured, match="is gone"):
        identity_of(child(cwd=None))


def test_a_difference_has_a_line_each_way_with_what_is_unseen_escaped() -> None:
    old = (("command", "a"), ("folder", "/x"), ("variable A", "from ${A}"))
    new = (("command", "a\u202eb\nc"), ("folder", "/x"), ("variable B", "from ${B}"))
    assert diff_identity(old, new).splitlines() == [
        "- command: a",
        "+ command: a\\u202eb\\nc",
        "- variable A: from ${A}",
        "+ variable B: from ${B}",
    ]
    assert diff_identity(old, old) == ""


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (child(args=("a\u200bb",)), "unseen"),
        (child(env={"A\u200b": "b"}), "unseen"),
        (child(args=("x" + " " * 300 + "; evil",)), "unseen"),
        (child(command="bash", args=("-c", "curl x | sh")), "shell"),
        (child(command=r"C:\Windows\cmd.exe", args=("/c", "x")), "shell"),
        (child(command="npx", args=("-y", "some-server")), "unpinned"),
        (child(cwd=None), "folder"),
        (child(env={"LD_PRELOAD": "x"}), "steering"),
        (child(env={"https_proxy": "x"}), "steering"),
        (remote(url="http://mcp.example.com/"), "host"),
        (remote(url="https://g\u0456thub.com/"), "host"),
    ],
)
def test_what_a_person_should_know_is_a_risk(entry: ServerEntry | RemoteEntry, code: str) -> None:
    assert code in {risk.code for risk in identity_of(entry).risks}


@pytest.mark.parametrize(
    "entry",
    [
        child(),
        child(cwd=None, args=("-P", "-m", "some_server_of_nobody")),
        child(cwd=None, args=("/srv/app/server.py", "-m", "x")),
        child(command="npx", args=("-y", "@scope/server@1.2.3"), env={"A": "b"}),
        remote(),
        remote(url="http://localhost:3000/mcp"),
        remote(url="http://[::1]:3000/mcp"),
        remote(url="http+unix://%2Frun%2Fx.sock/mcp"),
    ],
)
def test_ordinary_servers_are_not_warned_of(entry: ServerEntry | RemoteEntry) -> None:
    assert {risk.code for risk in identity_of(entry).risks} <= {"missing"}


def test_the_portable_digest_is_the_files_not_the_machines() -> None:
    raw = {"command": "npx", "args": ["${workspaceFolder}/x"], "env": {"T": "${T}"}, "timeout": 5}

    def made(home: str, raw: Mapping[str, Any]) -> str:
        entry = child(command="npx", args=(f"{home}/x",), env={"T": home}, source=Path(home, "m"))
        return identity_of(declared(entry, raw=raw, references={"T": "${T}"})).portable

    assert made("/home/a", raw) == made("/home/b", raw)
    assert made("/home/a", raw) == made("/home/a", {**raw, "timeout": 9})
    assert made("/home/a", raw) != made("/home/a", {**raw, "args": []})
    assert made("/home/a", raw) != made("/home/a", {**raw, "sandbox": True})


def test_without_the_file_paths_below_its_folder_are_portable() -> None:
    def made(folder: str, *args: str) -> str:
        return identity_of(child(source=Path(folder, "mcp.json"), args=args)).portable

    assert made("/srv/a", "/srv/a/server.py") == made("/srv/b", "/srv/b/server.py")
    assert made("/srv/a", "/srv/a/server.py") != made("/srv/a", "/srv/a/other.py")
    assert identity_of(remote()).portable != identity_of(remote(url="https://x.example/")).portable


@given(st.lists(st.text(max_size=5), max_size=3), st.lists(st.text(max_size=5), max_size=3))
def test_two_command_lines_are_one_server_only_when_they_are_the_same(
    one: list[str], other: list[str]
) -> None:
    digests = {identity_of(child(args=tuple(args)), environ={}).digest for args in (one, other)}
    assert (len(digests) == 1) == (one == other)


def test_a_path_of_bytes_that_are_no_text_has_an_identity() -> None:
    odd = os.fsdecode(b"/srv/\xff")
    assert (
        identity_of(child(args=(odd,))).digest != identity_of(child(args=("/srv/\\dcff",))).digest
    )


# --- aliases (attack 15) --------------------------------------------------------------------------


def flat(alias: str, tool: str) -> str:
    return f"{alias}__{tool}"


@pytest.mark.parametrize(
    "aliases",
    [["a", "a__b"], ["a__b", "a"], ["a", "a_"], ["x", "a", "a__b__c"], ["a_", "a___b"]],
)
def test_names_that_could_give_two_tools_one_name_are_refused(aliases: list[str]) -> None:
    with pytest.raises(Misconfigured, match="could give two tools one name"):
        check_aliases(aliases)


pieces = st.text(st.sampled_from("ab_"), min_size=1, max_size=5)


@given(pieces, pieces, pieces, pieces)
def test_names_that_are_let_through_never_meet(one: str, tool: str, other: str, its: str) -> None:
    if one != other and not alias_faults([one, other]):
        assert flat(one, tool) != flat(other, its)


@pytest.mark.parametrize("alias", ["github", "GitHub-2", "my_server", "a.b", "7zip", "a" * 64])
def test_plain_names_are_taken(alias: str) -> None:
    check_aliases([alias])


@pytest.mark.parametrize(
    ("alias", "hint"),
    [
        ("My Server", "'my-server' would do"),
        ("fs/tools", "'fs-tools' would do"),
        ("g\u0456thub", "'g-thub' would do"),
        ("*", ""),
        ("", ""),
        ("-x", "'x' would do"),
        ("a" * 65, "would do"),
        ("a\u200bb", "a\\u200bb"),
        ("unknown", "rules mean something else"),
    ],
)
def test_other_names_are_refused_with_a_better_one(alias: str, hint: str) -> None:
    ((named, text),) = alias_faults([alias])
    assert named == alias
    assert hint in text


def test_names_that_differ_in_case_only_are_refused() -> None:
    assert [alias for alias, _ in alias_faults(["GitHub", "fs", "github"])] == ["github"]


def test_what_a_sandbox_opens_to_a_server_is_part_of_who_it_is() -> None:
    def of(*roots: Root, sandbox: object = "confined: no network") -> ServerIdentity:
        raw = {"command": "x", "sandbox": True, "roots": [str(one.path) for one in roots]}
        return identity_of(Entry(child(), child(), raw=raw, sandbox=sandbox, roots=roots))

    one = of(Root(Path("/srv/a")))
    more = of(Root(Path("/srv/a")), Root(Path("/home/me"), True))
    assert one.digest != more.digest
    assert one.portable != more.portable
    assert "writes /home/me" in diff_identity(one.lines, more.lines)
    assert one.digest != of(Root(Path("/srv/a"), True)).digest
    # Without a sandbox a root is only told of, and asked about then.
    assert of(sandbox=None).digest == of(Root(Path("/srv/a")), sandbox=None).digest


def test_a_variable_that_steers_what_is_run_is_shown_and_counts() -> None:
    def of(value: str, **references: str) -> ServerIdentity:
        shown = "(from .env)" if references else value
        return identity_of(
            Entry(
                child(env={"NODE_OPTIONS": value}),
                child(env={"NODE_OPTIONS": shown}),
                references=references,
            )
        )

    assert dict(of("--require ./x.js").lines)["variable NODE_OPTIONS"] == "--require ./x.js"
    # A file of variables comes with the settings.
    file = {"NODE_OPTIONS": ".env (NODE_OPTIONS)"}
    one, other = of("--require ./x.js", **file), of("--require ./y.js", **file)
    assert one.digest != other.digest
    assert dict(one.lines)["variable NODE_OPTIONS"] == (
        "--require ./x.js (from .env (NODE_OPTIONS))"
    )
    # What the user's own environment brings is theirs to change.
    own = {"NODE_OPTIONS": "${NODE_OPTIONS}"}
    assert of("a", **own).digest == of("b", **own).digest


def test_a_secret_in_a_variable_that_steers_is_not_shown() -> None:
    for name, value in (
        ("HTTPS_PROXY", f"http://me:{CANARY}@proxy.example.com:8080"),
        ("NPM_CONFIG_AUTH", CANARY),
    ):
        identity = identity_of(child(env={name: value}))
        assert CANARY not in str(identity)
