"""Reading mcp.json in the shapes that are in use, with its variables and its faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.client.config import (
    RemoteEntry,
    ServerEntry,
    config_paths,
    find_server,
    read_config,
)
from dragoman.errors import Misconfigured
from dragoman.transport.http.connector import HttpConnector
from dragoman.transport.stdio.child import StdioConnector


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def entry_of(tmp_path: Path, settings: Any, **environ: str) -> ServerEntry:
    path = written(tmp_path / "mcp.json", {"mcpServers": {"x": settings}})
    return local(read_config(path).entry("x", environ))


def local(entry: ServerEntry | RemoteEntry) -> ServerEntry:
    assert isinstance(entry, ServerEntry)
    return entry


def remote_of(tmp_path: Path, settings: Any, **environ: str) -> RemoteEntry:
    path = written(tmp_path / "mcp.json", {"mcpServers": {"x": settings}})
    found = read_config(path).entry("x", environ)
    assert isinstance(found, RemoteEntry)
    return found


def test_a_server_is_read_from_either_shape(tmp_path: Path) -> None:
    settings = {"command": "python", "args": ["-m", "x"], "env": {"A": "1"}, "cwd": "sub"}
    for shape in ("mcpServers", "servers"):
        path = written(tmp_path / "mcp.json", {shape: {"x": {"type": "stdio", **settings}}})
        found = read_config(path).entry("x", {})
        assert found == ServerEntry(
            name="x",
            source=path,
            command="python",
            args=("-m", "x"),
            env={"A": "1"},
            cwd=tmp_path / "sub",
        )


def test_comments_and_last_commas_are_allowed_and_strings_are_left_alone(tmp_path: Path) -> None:
    text = """\ufeff{
      // our servers, "all" of them
      "servers": { /* one: { */
        "x": {"command": "run //not", "args": ["a,]", "/*b*/", "\\\\", "c",],},
      }
    }"""
    found = local(read_config(written(tmp_path / "mcp.json", text)).entry("x", {}))
    assert found.command == "run //not"
    assert found.args == ("a,]", "/*b*/", "\\", "c")


def test_a_fault_in_json_is_placed_where_it_stands_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "mcp.json", '{ /* two\nlines */\n  "servers": nothing }')
    with pytest.raises(Misconfigured, match="line 3, column 14"):
        read_config(path)


def test_variables_are_filled_in_everywhere(tmp_path: Path) -> None:
    found = entry_of(
        tmp_path,
        {
            "command": "${BIN}/run",
            "args": ["${env:KEY}", "${NO:-plain}", "${EMPTY:-full}", "${EMPTY}", "$KEY", "${NO:-}"],
            "env": {"PATH": "${BIN}:/bin", "N": 7, "GONE": None},
            "cwd": "${workspaceFolder}/${KEY}",
        },
        BIN="/opt",
        KEY="k",
        EMPTY="",
    )
    assert found.command == "/opt/run"
    assert found.args == ("k", "plain", "full", "", "$KEY", "")
    assert found.env == {"PATH": "/opt:/bin", "N": "7"}
    assert found.cwd == tmp_path / "k"


def test_every_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="not set: A, B") as caught:
        entry_of(tmp_path, {"command": "${A}", "args": ["${env:B}", "${A}", "${C}"]}, C="c")
    assert "'x'" in str(caught.value)


def test_a_value_is_filled_in_once_and_not_read_again(tmp_path: Path) -> None:
    assert entry_of(tmp_path, {"command": "${A}"}, A="${B}").command == "${B}"


@pytest.mark.parametrize("variable", ["${input:key}", "${}", "${a b}", "${env:}", "${9}"])
def test_what_is_no_variable_is_refused(tmp_path: Path, variable: str) -> None:
    with pytest.raises(Misconfigured):
        entry_of(tmp_path, {"command": "run", "args": [variable]})


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({}, "auto"),
        ({"type": "http"}, "auto"),
        ({"type": "streamable-http"}, "streamable"),
        ({"type": "streamableHttp"}, "streamable"),
        ({"transport": "sse"}, "sse"),
        ({"type": "sse"}, "sse"),
    ],
)
@pytest.mark.parametrize("member", ["url", "serverUrl", "httpUrl"])
def test_a_server_at_a_url_is_read_as_the_programs_write_it(
    tmp_path: Path, settings: Any, mode: str, member: str
) -> None:
    found = remote_of(tmp_path, {**settings, member: "https://example.com/mcp"})
    assert found == RemoteEntry(
        name="x",
        source=tmp_path / "mcp.json",
        url="https://example.com/mcp",
        headers={},
        mode=mode,  # type: ignore[arg-type]
    )


def test_variables_are_filled_in_where_a_server_is_and_what_it_is_told(tmp_path: Path) -> None:
    found = remote_of(
        tmp_path,
        {
            "url": "https://${HOST:-example.com}/mcp?key=${KEY}",
            "headers": {"Authorization": "Bearer ${env:KEY}", "X-N": 3, "X-Gone": None},
        },
        KEY="s3cret",
    )
    assert found.url == "https://example.com/mcp?key=s3cret"
    assert found.headers == {"Authorization": "Bearer s3cret", "X-N": "3"}
    connector = found.connector()
    assert "s3cret" not in repr((found, connector, connector.description))
    with pytest.raises(Misconfigured, match="not set: KEY"):
        remote_of(tmp_path, {"url": "https://example.com", "headers": {"A": "${KEY}"}})


def test_what_the_caller_adds_wins_over_what_the_file_says(tmp_path: Path) -> None:
    found = remote_of(tmp_path, {"url": "https://example.com", "headers": {"X-A": "1", "X-B": "1"}})
    connector = found.connector(headers={"x-a": "2"})
    assert isinstance(connector, HttpConnector)
    assert connector.headers == {"X-B": "1", "x-a": "2"}
    for wrong in ({"env": {"A": "1"}}, {"cwd": tmp_path}, {"headers": {"a b": "c"}}):
        with pytest.raises(Misconfigured, match="'x'"):
            found.connector(**wrong)


def test_a_unix_socket_is_named_as_vscode_does(tmp_path: Path) -> None:
    found = remote_of(tmp_path, {"type": "http", "url": "unix:///run/my server.sock#/here"})
    assert found.url == "http+unix://%2Frun%2Fmy%20server.sock/here"
    assert found.connector().description == "/run/my server.sock/here"


@pytest.mark.parametrize(
    "settings",
    [
        {"type": "http"},
        {"type": "ws", "url": "ws://example.com"},
        {"type": "sse", "command": "run"},
        {"url": 3},
        {"url": ""},
        {"url": "https://example.com", "headers": ["A"]},
        {"url": "https://example.com", "headers": {"A": True}},
        {"url": "https://example.com", "headersHelper": "run"},
        {"type": "stdio", "url": "https://example.com"},
    ],
)
def test_a_server_at_a_url_that_cannot_work_is_named(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(Misconfigured, match="'x'"):
        remote_of(tmp_path, settings)


@pytest.mark.parametrize("url", ["ftp://example.com", "https://", "no url", "http://a:b:c"])
def test_a_url_that_cannot_work_is_told_with_its_server(tmp_path: Path, url: str) -> None:
    with pytest.raises(Misconfigured, match="'x'"):
        remote_of(tmp_path, {"url": url}).connector()


def test_a_secret_of_a_file_is_not_sent_in_the_clear(tmp_path: Path) -> None:
    settings = {"url": "http://example.com/mcp", "headers": {"X-Api-Key": "s3cret"}}
    with pytest.raises(Misconfigured, match="https") as refused:
        remote_of(tmp_path, settings).connector()
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        None,
        "python",
        {},
        {"command": ""},
        {"command": ["python"]},
        {"command": "x", "args": "y"},
        {"command": "x", "args": [1]},
        {"command": "x", "env": ["A"]},
        {"command": "x", "env": {"A": True}},
        {"command": "x", "cwd": 3},
        {"command": "x", "envFile": ".env"},
    ],
)
def test_settings_that_cannot_work_name_their_server(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(Misconfigured, match="'x'"):
        entry_of(tmp_path, settings)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"servers": []}',
        '{"servers": {"x": {}, "x": {}}}',
        "[" * 100_000,
        '{"servers": {}} more',
    ],
)
def test_a_file_that_holds_no_servers_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(Misconfigured):
        read_config(written(tmp_path / "mcp.json", content))


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        read_config(tmp_path / "none.json")
    with pytest.raises(Misconfigured):
        read_config(tmp_path)
    (tmp_path / "mcp.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(Misconfigured):
        read_config(tmp_path / "mcp.json")


def test_the_first_file_that_has_the_name_wins(tmp_path: Path) -> None:
    first = written(tmp_path / "a.json", {"servers": {"one": {"command": "1"}}})
    second = written(
        tmp_path / "b.json", {"servers": {"one": {"command": "2"}, "two": {"command": "3"}}}
    )
    paths = [tmp_path / "none.json", first, second]
    assert local(find_server("one", paths, {})).command == "1"
    assert local(find_server("two", paths, {})).command == "3"
    with pytest.raises(Misconfigured, match="did you mean 'two'"):
        find_server("twoo", paths, {})


def test_a_fault_of_another_server_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "mcp.json", {"servers": {"bad": 1, "good": {"command": "x"}}})
    assert local(find_server("good", [path], {})).command == "x"


def test_without_any_file_the_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="nowhere"):
        find_server("x", [tmp_path / "nowhere.json"], {})


def test_the_projects_files_come_before_the_persons(tmp_path: Path) -> None:
    paths = config_paths({"XDG_CONFIG_HOME": str(tmp_path)})
    assert [str(path) for path in paths[:3]] == [".mcp.json", "mcp.json", ".vscode/mcp.json"]
    assert paths[3:] == [tmp_path / "dragoman" / "mcp.json"]
    assert config_paths({})[3] == Path.home() / ".config" / "dragoman" / "mcp.json"


def test_the_folder_of_a_vscode_file_is_the_project(tmp_path: Path) -> None:
    path = written(
        tmp_path / ".vscode" / "mcp.json",
        {"servers": {"x": {"command": "run", "cwd": "${workspaceFolder}"}}},
    )
    assert local(read_config(path).entry("x", {})).cwd == tmp_path


def test_a_connector_is_made_of_an_entry_and_what_the_caller_adds(tmp_path: Path) -> None:
    found = entry_of(tmp_path, {"command": "run", "args": ["a"], "env": {"A": "1", "B": "2"}})
    plain = found.connector()
    assert isinstance(plain, StdioConnector)
    assert (plain.command, tuple(plain.args), plain.cwd) == ("run", ("a",), None)
    changed = found.connector(env={"B": "3"}, cwd=tmp_path)
    assert isinstance(changed, StdioConnector)
    assert changed.env == {"A": "1", "B": "3"}
    assert changed.cwd == tmp_path
