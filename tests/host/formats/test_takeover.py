"""Taking over another product's servers: what can be used arrives, the rest is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import Misconfigured
from dragoman.host.config import load_servers
from dragoman.host.formats import FORMATS, Takeover, take_over
from dragoman.host.formats.portable import Portable, secret_names, variable, with_inputs, written
from dragoman.host.formats.shape import Imported

OURS = Path("mcp.json")
TOKEN = "ghp_0123456789abcdefghijABCDEFGHIJ012345"


def found(product: str, servers: Any, **above: Any) -> Imported:
    member = FORMATS[product].shapes[0][0]
    return FORMATS[product].read(json.dumps({member: servers, **above}), Path("theirs.json"))


def taken(product: str, servers: Any, before: Any = None, **options: Any) -> Takeover:
    above = options.pop("above", {})
    text = "" if before is None else json.dumps(before)
    return take_over(found(product, servers, **above), text, OURS, **options)


def names(one: Takeover) -> list[str]:
    return [server.name for server in one.servers]


def why_left_out(one: Takeover) -> dict[str, str]:
    return {skipped.name: skipped.why for skipped in one.left_out}


def test_a_name_that_cannot_be_one_here_becomes_another_and_the_same_each_time() -> None:
    servers = {"github.com/upstash/context7-mcp": {"command": "npx"}, "My Server": {"command": "x"}}
    first = taken("cline", servers)
    assert names(first) == ["github.com-upstash-context7-mcp", "My-Server"]
    assert first.renamed == {
        "github.com-upstash-context7-mcp": "github.com/upstash/context7-mcp",
        "My-Server": "My Server",
    }
    text = FORMATS["dragoman"].write(first.servers).text
    again = take_over(found("cline", servers), text, OURS)
    assert (again.servers, again.kept) == ((), tuple(names(first)))
    replaced = take_over(found("cline", servers), text, OURS, may_replace=True)
    assert names(replaced) == names(first)
    # Named as they are there.
    assert names(taken("cline", servers, only=["My Server"])) == ["My-Server"]


def test_two_names_that_would_become_one_stay_two() -> None:
    servers = {"a b": {"command": "x"}, "a-b": {"command": "y"}, "a/b": {"command": "z"}}
    done = taken("cline", servers)
    assert len(set(names(done))) == 3
    assert done.left_out == ()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({"command": "npx -y server"}, "put 'npx' there"),
        ({"command": "x", "args": ["${a b}"]}, "no variable"),
        ({"url": "ftp://x.example", "type": "http"}, "no http or https address"),
        ({"url": "https://x.example", "headers": {"A B": "1"}}, "cannot be a header"),
        ({"command": "x", "env": {"A=B": "1"}}, "cannot be a variable"),
    ],
)
def test_one_that_would_break_our_file_is_left_out_and_the_others_arrive(
    tmp_path: Path, raw: Any, why: str
) -> None:
    done = taken("claude-code", {"bad": raw, "good": {"command": "x"}})
    assert names(done) == ["good"]
    assert why in why_left_out(done)["bad"]
    path = tmp_path / "mcp.json"
    path.write_text(FORMATS["dragoman"].write(done.servers).text)
    assert list(load_servers(path, {}).servers) == ["good"]


def test_one_whose_name_is_nearly_there_is_left_out() -> None:
    done = taken("cursor", {"GitHub": {"command": "x"}}, {"mcpServers": {"github": {"command": 1}}})
    assert names(done) == []
    assert "case" in why_left_out(done)["GitHub"]


def test_a_time_that_no_request_takes_is_made_one() -> None:
    servers = {
        "a": {"command": "x", "timeout": 7_200_000},
        "b": {"command": "x", "timeout": 0},
        "c": {"command": "x", "timeout": 60_000},
    }
    done = taken("claude-code", servers)
    assert [one.timeout_s for one in done.servers] == [3600, None, 60]
    assert [note.partition(":")[0] for note in done.notes] == ["a", "b"]


@pytest.mark.parametrize(
    ("raw", "sandbox"),
    [
        ({"command": "x", "sandboxEnabled": True}, True),
        ({"command": "x", "sandboxEnabled": False}, None),
        ({"command": "x", "sandbox": {"network": {"allowedDomains": ["*"]}}}, True),
        ({"url": "https://x.example", "type": "http", "sandboxEnabled": True}, None),
    ],
)
def test_what_was_confined_there_does_not_run_free_here(raw: Any, sandbox: Any) -> None:
    done = taken("vscode", {"x": {"type": "stdio", **raw}})
    (server,) = done.servers
    assert server.sandbox is sandbox
    assert bool(done.notes) is (sandbox is not None)


def test_a_variable_that_is_not_set_here_keeps_nothing_out() -> None:
    done = taken("claude-code", {"a": {"command": "${NOT_SET_ANYWHERE}", "env": {"B": "${C}"}}})
    assert names(done) == ["a"]


def test_only_servers_that_are_there_can_be_asked_for() -> None:
    with pytest.raises(Misconfigured, match=r"theirs\.json has no server 'b'"):
        taken("cursor", {"a": {"command": "x"}}, only=["b"])
    with pytest.raises(Misconfigured, match="b was not read"):
        taken("cursor", {"b": {"command": 1}}, only=["b"])


# --- questions to the person ---


def asking(name: str) -> Any:
    return {"command": "x", "type": "stdio", "env": {"T": f"${{input:{name}}}"}}


def test_only_the_questions_that_are_asked_are_taken_over() -> None:
    inputs = [{"id": "a", "type": "promptString"}, {"id": "b", "type": "command", "command": "x"}]
    done = taken("vscode", {"x": asking("a")}, above={"inputs": inputs})
    assert done.inputs == (inputs[0],)
    # One that only VS Code can run would make the file useless.
    done = taken("vscode", {"x": asking("b"), "y": asking("a")}, above={"inputs": inputs})
    assert (names(done), done.inputs) == (["y"], (inputs[0],))
    assert "which only VS Code can run" in why_left_out(done)["x"]


def test_a_question_of_the_same_name_does_not_hand_one_servers_secret_to_another() -> None:
    ours = {
        "mcpServers": {"mine": asking("token")},
        "inputs": [{"id": "token", "type": "promptString", "description": "Mine"}],
    }
    inputs = [{"id": "token", "type": "promptString", "description": "Theirs", "password": True}]
    done = taken("vscode", {"x": asking("token")}, ours, above={"inputs": inputs})
    (server,) = done.servers
    assert written(server.env["T"]) == "${input:token-2}"
    assert done.inputs == (inputs[0] | {"id": "token-2"},)
    text = (
        FORMATS["dragoman"]
        .write(done.servers, onto=json.dumps(ours), inputs=done.inputs, path=OURS)
        .text
    )
    again = take_over(
        found("vscode", {"x": asking("token")}, inputs=inputs), text, OURS, may_replace=True
    )
    assert written(again.servers[0].env["T"]) == "${input:token-2}"
    assert again.inputs == ()
    # The very same question stays one.
    same = taken("vscode", {"x": asking("token")}, ours, above={"inputs": ours["inputs"]})
    assert written(same.servers[0].env["T"]) == "${input:token}"


def test_a_question_gets_another_name_wherever_it_is_asked() -> None:
    text = ("a", variable("input", "x"), variable("env", "x"))
    server = Portable(
        name="s", kind="stdio", command=text, args=(text,), env={"A": text}, env_file=text,
        cwd=text, url=text, headers={"B": text},
    )  # fmt: skip
    other = ("a", variable("input", "y"), variable("env", "x"))
    assert with_inputs(server, {"x": "y"}) == Portable(
        name="s", kind="stdio", command=other, args=(other,), env={"A": other}, env_file=other,
        cwd=other, url=other, headers={"B": other},
    )  # fmt: skip
    assert with_inputs(server, {}) == server
    assert secret_names(replace(server, url=(variable("secret", "k"),))) == ["k"]


# --- secrets that other products keep beside their settings ---


@pytest.mark.parametrize(
    "kept",
    [
        {"oauth": {"tokens": {"access_token": "abcdefghij"}}},
        {"oauthClient": {"clientId": "x", "clientSecret": "abcdefghij"}},
        {"headersFrom": [["X", TOKEN]]},
        {"apiKey": "abcdefghij"},
    ],
)
def test_a_sign_in_stays_where_it_is(kept: dict[str, Any]) -> None:
    done = taken("cline", {"x": {"command": "x", "colour": "red", **kept}})
    written_ = FORMATS["dragoman"].write(done.servers)
    (member,) = kept
    assert [(loss.what, loss.is_whole) for loss in written_.losses] == [(member, False)]
    assert json.loads(written_.text)["mcpServers"]["x"]["from"] == {"cline": {"colour": "red"}}
