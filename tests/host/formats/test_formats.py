"""Other products' files: what is read from them, and that nothing in them is lost or changed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.config import load_servers
from dragoman.host.formats import (
    FORMATS,
    Imported,
    alias_for,
    find_format,
    move_secrets,
    read_file,
    read_text,
    save,
    secrets_in,
)
from dragoman.host.formats.claude_code import read_permissions
from dragoman.host.formats.documents import JsonDocument, TomlDocument, YamlDocument
from dragoman.host.formats.portable import Portable, Text, variable, written
from dragoman.host.secrets import FileVault, SecretStore

SAMPLES = Path(__file__).parent / "samples"
FILES = {
    "claude-desktop": "claude_desktop_config.json",
    "claude-code": "claude_code.mcp.json",
    "vscode": "vscode.mcp.json",
    "cursor": "cursor.mcp.json",
    "cline": "cline_mcp_settings.json",
    "codex": "codex.config.toml",
    "goose": "goose.config.yaml",
    "librechat": "librechat.yaml",
}
PRODUCTS = tuple(FILES)

every_product = pytest.mark.parametrize("name", PRODUCTS)


def sample(name: str) -> str:
    return (SAMPLES / FILES[name]).read_text(encoding="utf-8")


@cache
def imported(name: str) -> Imported:
    return FORMATS[name].read(sample(name), Path("x"))


def servers_of(name: str) -> dict[str, Portable]:
    return {one.name: one for one in read_file(SAMPLES / FILES[name], name).servers}


def plain(name: str, text: str) -> Any:
    kind = {"codex": TomlDocument, "goose": YamlDocument, "librechat": YamlDocument}
    return kind.get(name, JsonDocument)(text, Path(name)).value


def texts(given: Any) -> Any:
    return {name: written(text) for name, text in given.items()}


def test_there_is_a_sample_of_every_product() -> None:
    assert set(FORMATS) == {"dragoman", *PRODUCTS}
    with pytest.raises(Misconfigured, match="claude-desktop"):
        find_format("claude")


# --- reading ---


def test_claude_desktops_file_is_read() -> None:
    found = servers_of("claude-desktop")
    assert list(found) == ["filesystem", "github"]
    github = found["github"]
    assert written(github.command) == "docker"
    assert [str(one) for one in secrets_in(github)] == [
        "env.GITHUB_PERSONAL_ACCESS_TOKEN looks like a GitHub token"
    ]
    assert github.extras == {"claude-desktop": {"someday": {"nested": [1, 2.5, None, True]}}}


def test_claude_codes_file_is_read() -> None:
    found = read_file(SAMPLES / FILES["claude-code"], "claude-code")
    servers = {one.name: one for one in found.servers}
    assert [one.name for one in found.skipped] == ["socket"]
    assert servers["sentry"].url == (
        variable("env", "API_BASE_URL", "https://mcp.sentry.dev"),
        "/mcp",
    )
    assert servers["sentry"].timeout_s == 90
    assert servers["helper"].unused == ("headersHelper",)
    assert (servers["sentry"].kind, servers["asana"].kind) == ("http", "sse")
    assert servers["airtable"].env == {"AIRTABLE_API_KEY": (variable("env", "AIRTABLE_API_KEY"),)}


def test_what_claude_code_allows_without_asking_is_read() -> None:
    text = json.dumps(
        {"permissions": {"allow": ["Bash(ls)", "mcp__github__get_issue", "mcp__fs", 3]}}
    )
    found = read_permissions(text, Path("settings.json"))
    assert found == {"github": ("get_issue",), "fs": ("*",)}
    with pytest.raises(Misconfigured):
        read_permissions("[]", Path("settings.json"))


def test_vscodes_file_is_read_with_its_comments_and_questions() -> None:
    found = read_file(SAMPLES / FILES["vscode"], "vscode")
    servers = {one.name: one for one in found.servers}
    assert [one["id"] for one in found.inputs] == ["perplexity-key"]
    # A bare URL means HTTP.
    assert servers["GitHub"].kind == "http"
    assert servers["perplexity"].env == {
        "PERPLEXITY_API_KEY": (variable("input", "perplexity-key"),),
        "HOME_TOO": (variable("env", "HOME"),),
    }
    assert written(servers["watched"].cwd) == "${workspaceFolder}/server"
    assert written(servers["watched"].env_file) == "${workspaceFolder}/.env"
    assert set(servers["watched"].extras["vscode"]) == {"dev"}


def test_cursors_file_is_read() -> None:
    found = servers_of("cursor")
    assert texts(found["remote"].headers) == {"Authorization": "Bearer ${MY_SERVICE_TOKEN}"}
    assert set(found["remote"].extras["cursor"]) == {"auth"}


def test_clines_file_is_read_and_its_lists_become_proposals() -> None:
    found = servers_of("cline")
    assert found["local-server"].allowed == ("tool1", "tool2")
    assert found["local-server"].rules == (
        ("allow", "tool(local-server/tool1)"),
        ("allow", "tool(local-server/tool2)"),
    )
    remote = found["remote-server"]
    assert (remote.disabled, remote.timeout_s, remote.allowed) == (True, 120, ("tool3",))


def test_what_clines_command_line_writes_is_read_and_changed_as_a_whole() -> None:
    cline = FORMATS["cline"]
    text = json.dumps(
        {
            "mcpServers": {
                "x": {
                    "transport": {"type": "sse", "url": "https://x.example", "headers": {"A": "1"}},
                    "disabled": True,
                    "timeout": 60000,
                    "metadata": {"source": "y"},
                }
            }
        }
    )
    (server,) = cline.read(text, Path("x")).servers
    assert (server.kind, server.url, server.headers) == (
        "sse",
        ("https://x.example",),
        {"A": ("1",)},
    )
    # Longer than Cline waits: it is taken for its most.
    assert (server.disabled, server.timeout_s) == (True, 3600)
    assert server.extras == {"cline": {"metadata": {"source": "y"}}}
    assert cline.write([server], onto=text).text == text
    other = replace(server, url=("https://y.example",))
    changed = cline.write([other], onto=text, may_replace=True).text
    assert json.loads(changed)["mcpServers"]["x"] == {
        "disabled": True,
        "timeout": 60000,
        "metadata": {"source": "y"},
        "type": "sse",
        "url": "https://y.example",
        "headers": {"A": "1"},
    }
    assert cline.read(changed, Path("x")).servers == (other,)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"url": "https://x.example"}, "sse"),
        ({"url": "https://x.example", "transportType": "http"}, "http"),
        ({"url": "https://x.example", "transportType": "sse"}, "sse"),
        ({"url": "https://x.example", "transportType": ["x"]}, "sse"),
        ({"url": "https://x.example", "type": "streamableHttp", "transportType": "sse"}, "http"),
        ({"command": "x", "url": "https://x.example", "transportType": "stdio"}, "stdio"),
    ],
)
def test_how_cline_reaches_a_server_is_read_as_cline_reads_it(raw: Any, kind: str) -> None:
    server = FORMATS["cline"].server("x", raw)
    assert (server.kind, server.extras.get("cline", {}).get("transportType")) == (kind, None)


def test_what_cline_runs_without_asking_stands_where_it_looks() -> None:
    server = Portable(name="x", kind="stdio", command=("x",), allowed=("a",))
    text = FORMATS["cline"].write([server]).text
    assert json.loads(text)["mcpServers"]["x"]["autoApprove"] == ["a"]
    old = '{"mcpServers": {"x": {"command": "x", "alwaysAllow": ["b"]}}}'
    changed = FORMATS["cline"].write([server], onto=old, may_replace=True).text
    assert json.loads(changed)["mcpServers"]["x"] == {"command": "x", "autoApprove": ["a"]}


def test_codexs_file_is_read() -> None:
    found = servers_of("codex")
    context7, figma = found["context7"], found["figma"]
    assert texts(context7.env) == {"MY_ENV_VAR": "MY_ENV_VALUE", "LOCAL_TOKEN": "${LOCAL_TOKEN}"}
    assert (context7.timeout_s, context7.start_timeout_s) == (45.5, 20)
    assert (context7.only, context7.hidden) == (("search", "summarize"), ("slow-tool",))
    assert context7.allowed == ("search",)
    assert context7.rules == (
        ("deny", "tool(context7/slow-tool)"),
        ("allow", "tool(context7/search)"),
    )
    assert context7.extras == {"codex": {"required": True}}
    assert texts(figma.headers) == {
        "X-Figma-Region": "us-east-1",
        "X-Trace": "${TRACE_ID}",
        "Authorization": "Bearer ${FIGMA_OAUTH_TOKEN}",
    }
    assert figma.disabled


def test_gooses_file_is_read_and_its_own_extensions_stay_there() -> None:
    found = read_file(SAMPLES / FILES["goose"], "goose")
    servers = {one.name: one for one in found.servers}
    assert [one.name for one in found.skipped] == ["developer"]
    github = servers["github"]
    assert texts(github.env) == {
        "LOG_LEVEL": "debug",
        "GITHUB_PERSONAL_ACCESS_TOKEN": "${GITHUB_PERSONAL_ACCESS_TOKEN}",
    }
    assert github.only == ("get_issue",)
    assert github.extras["goose"]["name"] == "GitHub"
    assert servers["linear"].disabled
    assert texts(servers["linear"].headers) == {"Authorization": "Bearer ${LINEAR_TOKEN}"}


def test_librechats_file_is_read() -> None:
    found = read_file(SAMPLES / FILES["librechat"], "librechat")
    servers = {one.name: one for one in found.servers}
    assert [one.name for one in found.skipped] == ["old"]
    assert servers["everything"].kind == "http"
    assert servers["everything"].timeout_s == 60
    assert servers["puppeteer"].start_timeout_s == 10
    assert texts(servers["googlesheets"].headers)["X-User-ID"] == "{{LIBRECHAT_USER_ID}}"


@every_product
def test_reading_changes_nothing_and_starts_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / FILES[name]
    path.write_text(sample(name))
    before = path.stat()
    read_file(path, name)
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert list(tmp_path.iterdir()) == [path]


@every_product
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_every_product_has_a_place_on_every_system(name: str, system: str) -> None:
    environ = {"HOME": "/h", "USERPROFILE": "/h", "APPDATA": "/h/roaming"}
    found = FORMATS[name].files(environ, Path("/p"), platform=system)
    assert found
    assert all(path.is_relative_to("/h") or path.is_relative_to("/p") for path in found)


def test_the_places_are_those_of_the_products() -> None:
    mac = {"HOME": "/Users/ada"}
    assert FORMATS["claude-desktop"].files(mac, Path("/p"), platform="darwin") == [
        Path("/Users/ada/Library/Application Support/Claude/claude_desktop_config.json")
    ]
    windows = {"USERPROFILE": "/u", "APPDATA": "/u/Roaming"}
    assert FORMATS["goose"].files(windows, Path("/p"), platform="win32") == [
        Path("/u/Roaming/Block/goose/config/config.yaml")
    ]
    cline = "settings/cline_mcp_settings.json"
    assert FORMATS["cline"].files({"HOME": "/h"}, Path("/p")) == [
        Path("/h/.cline/data") / cline,
        Path("/h/.config/Code/User/globalStorage/saoudrizwan.claude-dev") / cline,
    ]
    for environ, path in (
        ({"CLINE_MCP_SETTINGS_PATH": "/c/x.json"}, Path("/c/x.json")),
        ({"CLINE_DATA_DIR": "/c/d"}, Path("/c/d") / cline),
        ({"CLINE_DIR": "/c"}, Path("/c/data") / cline),
    ):
        assert FORMATS["cline"].files({"HOME": "/h", **environ}, Path("/p"))[0] == path
    assert FORMATS["codex"].files({"HOME": "/h"}, Path("/p")) == [
        Path("/p/.codex/config.toml"),
        Path("/h/.codex/config.toml"),
    ]


def test_claude_desktop_of_the_windows_store_keeps_its_file_in_its_package(tmp_path: Path) -> None:
    package = tmp_path / "AppData/Local/Packages/Claude_abc/LocalCache/Roaming/Claude"
    package.mkdir(parents=True)
    environ = {"USERPROFILE": str(tmp_path), "APPDATA": str(tmp_path / "r")}
    assert FORMATS["claude-desktop"].files(environ, Path("/p"), platform="win32") == [
        package / "claude_desktop_config.json",
        tmp_path / "r" / "Claude" / "claude_desktop_config.json",
    ]


@every_product
@pytest.mark.parametrize("content", ["", "  \n"])
def test_an_empty_file_has_no_servers(name: str, content: str) -> None:
    assert FORMATS[name].read(content, Path("x")).servers == ()


@every_product
def test_a_file_that_is_something_else_is_an_error_with_its_name(name: str) -> None:
    shape = ".".join(FORMATS[name].shapes[0])
    wrong = {"codex": f"{shape} = 1", "goose": f"{shape}: 1", "librechat": f"{shape}: 1"}
    broken = {"codex": "a = [", "goose": "a: [", "librechat": "a: ["}
    for text in (wrong.get(name, f'{{"{shape}": 1}}'), broken.get(name, '{"a": [')):
        with pytest.raises(Misconfigured, match=r"^x\.file"):
            FORMATS[name].read(text, Path("x.file"))


@every_product
@pytest.mark.parametrize(
    "raw",
    [
        None,
        1,
        [],
        "x",
        {},
        {"type": ["stdio"]},
        {"type": "stdio", "command": 1, "cmd": 1},
        {"command": "x", "cmd": "x", "type": "stdio", "args": "y"},
        {"command": "x", "cmd": "x", "type": "stdio", "args": [1]},
        {"command": "x", "cmd": "x", "type": "stdio", "env": [1], "envs": [1]},
        {"url": 1, "uri": 1, "type": "sse"},
        {"url": "x", "uri": "x", "type": "streamable_http", "headers": 1, "http_headers": 1},
    ],
)
def test_a_server_that_makes_no_sense_is_skipped_with_a_reason(name: str, raw: Any) -> None:
    product = FORMATS[name]
    text = json.dumps(raw)
    whole = f'{{"{product.shapes[0][0]}": {{"a": {text}}}}}'
    if name == "codex":
        if raw is None:
            return
        import tomlkit

        whole = tomlkit.dumps({product.shapes[0][0]: {"a": raw}})
    found = product.read(whole, Path("x"))
    assert found.servers == ()
    assert [one.name for one in found.skipped] == ["a"]


# --- round trips ---


@every_product
def test_what_is_written_back_unchanged_is_the_same_text(name: str) -> None:
    text = sample(name)
    found = FORMATS[name].read(text, Path("x"))
    again = FORMATS[name].write(found.servers, onto=text, inputs=found.inputs)
    assert again.text == text
    assert (again.names, again.losses) == ((), ())


@every_product
def test_written_anew_a_server_has_all_its_members(name: str) -> None:
    found = FORMATS[name].read(sample(name), Path("x"))
    fresh = FORMATS[name].write(found.servers, inputs=found.inputs)
    assert fresh.losses == ()
    again = FORMATS[name].read(fresh.text, Path("x"))
    assert again.servers == found.servers
    assert again.inputs == found.inputs


@every_product
def test_through_our_own_file_and_back_nothing_is_lost(name: str) -> None:
    found = FORMATS[name].read(sample(name), Path("x"))
    own = FORMATS["dragoman"].write(found.servers, inputs=found.inputs)
    literal = {loss.server for loss in own.losses}
    assert literal == set()
    back = FORMATS["dragoman"].read(own.text, Path("mcp.json"))
    again = FORMATS[name].write(back.servers, inputs=back.inputs)
    assert again.losses == ()
    assert FORMATS[name].read(again.text, Path("x")).servers == found.servers


@every_product
def test_our_own_file_of_an_import_is_one_that_the_host_reads(name: str, tmp_path: Path) -> None:
    found = FORMATS[name].read(sample(name), Path("x"))
    own = FORMATS["dragoman"].write(found.servers, inputs=found.inputs)
    path = tmp_path / "mcp.json"
    path.write_text(own.text)
    (tmp_path / ".env").write_text("A=1")
    environ = dict.fromkeys(
        [
            "AIRTABLE_API_KEY",
            "SENTRY_TOKEN",
            "HOME",
            "API_KEY",
            "MY_SERVICE_TOKEN",
            "LOCAL_TOKEN",
            "TRACE_ID",
            "FIGMA_OAUTH_TOKEN",
            "GITHUB_PERSONAL_ACCESS_TOKEN",
            "LINEAR_TOKEN",
            "SOME_API_KEY",
        ],
        "value-of-it",
    )
    config = load_servers(path, environ, lambda one: "typed-by-hand")
    assert list(config.servers) == [one.name for one in found.servers]


@every_product
def test_one_member_changes_and_everything_else_stays(name: str) -> None:
    text = sample(name)
    found = FORMATS[name].read(text, Path("x"))
    first = next(one for one in found.servers if one.kind == "stdio")
    changed = replace(first, args=(*first.args, ("--verbose",)))
    refused = FORMATS[name].write([changed], onto=text)
    assert refused.text == text
    assert refused.losses[0].is_whole
    done = FORMATS[name].write([changed], onto=text, may_replace=True)
    assert (done.names, done.losses) == ((first.name,), ())
    again = {one.name: one for one in FORMATS[name].read(done.text, Path("x")).servers}
    assert again[first.name] == changed
    assert [one for one in again.values() if one.name != first.name] == [
        one for one in found.servers if one.name != first.name
    ]
    for comment in (line.partition("//")[2] for line in text.splitlines() if " // " in line):
        assert comment in done.text
    for comment in (line.partition("# ")[2] for line in text.splitlines() if "# " in line):
        assert comment in done.text


@every_product
def test_a_server_is_added_and_removed_and_the_rest_stays(name: str) -> None:
    text = sample(name)
    new = Portable(name="new-one", kind="stdio", command=("run",), args=(("a b",),))
    added = FORMATS[name].write([new], onto=text)
    assert added.losses == ()
    names = [one.name for one in FORMATS[name].read(added.text, Path("x")).servers]
    assert names[-1] == "new-one"
    removed = FORMATS[name].remove("new-one", added.text)
    assert plain(name, removed) == plain(name, text)
    if name not in ("goose", "librechat"):
        assert removed.rstrip() == text.rstrip() or name == "vscode"
    with pytest.raises(Misconfigured, match="nobody"):
        FORMATS[name].remove("nobody", text)


def test_other_spellings_of_a_member_do_not_stay_beside_it() -> None:
    text = '{"mcpServers": {"a": {"serverUrl": "https://old.example", "transport": "http"}}}'
    new = Portable(name="a", kind="sse", url=("https://new.example",))
    done = FORMATS["claude-code"].write([new], onto=text, may_replace=True)
    assert plain("claude-code", done.text) == {
        "mcpServers": {"a": {"url": "https://new.example", "type": "sse"}}
    }


# --- from one to another ---

FULL_LOCAL = Portable(
    name="local",
    kind="stdio",
    command=("run",),
    args=(("--root",), ("/srv",)),
    env={"LEVEL": ("debug",), "TOKEN": (variable("env", "TOKEN"),)},
    timeout_s=30,
    start_timeout_s=5,
    allowed=("read",),
    only=("read", "write"),
    hidden=("drop",),
    roots=("/srv",),
)
FULL_REMOTE = Portable(
    name="remote",
    kind="http",
    url=("https://x.example/mcp",),
    headers={"Authorization": ("Bearer ", variable("env", "TOKEN")), "X-Plain": ("1",)},
    timeout_s=30,
)
# What each product cannot hold of the two above; "*": the server as a whole.
LOSSES = {
    "dragoman": set(),
    "claude-desktop": {
        "local env.TOKEN",
        "local timeout",
        "local startTimeout",
        "local alwaysAllow",
        "local enabledTools",
        "local disabledTools",
        "local roots",
        "remote *",
    },
    "claude-code": {
        "local startTimeout",
        "local alwaysAllow",
        "local enabledTools",
        "local disabledTools",
        "local roots",
    },
    "vscode": {
        "local timeout",
        "local startTimeout",
        "local alwaysAllow",
        "local enabledTools",
        "local disabledTools",
        "local roots",
        "remote timeout",
    },
    "cursor": {
        "local timeout",
        "local startTimeout",
        "local alwaysAllow",
        "local enabledTools",
        "local disabledTools",
        "local roots",
        "remote timeout",
    },
    "cline": {
        "local startTimeout",
        "local enabledTools",
        "local disabledTools",
        "local roots",
    },
    "codex": {"local roots"},
    "goose": {"local startTimeout", "local alwaysAllow", "local disabledTools", "local roots"},
    "librechat": {"local alwaysAllow", "local enabledTools", "local disabledTools", "local roots"},
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_what_a_product_cannot_hold_is_told_and_the_rest_arrives(name: str) -> None:
    done = FORMATS[name].write([FULL_LOCAL, FULL_REMOTE])
    told = {f"{one.server} {'*' if one.is_whole else one.what}" for one in done.losses}
    assert told == LOSSES[name]
    again = FORMATS[name].read(done.text, Path("x")).servers
    assert again[0].command == FULL_LOCAL.command
    assert again[0].args == FULL_LOCAL.args
    # A target's type is written: what it guesses from a URL alone differs.
    if name != "codex" and "remote *" not in told:
        assert json.dumps(plain(name, done.text)).count('"type"') >= 1
    # And what arrived is what was sent: written again, nothing more is lost.
    assert FORMATS[name].write(again).losses == ()


@every_product
@pytest.mark.parametrize("target", PRODUCTS)
def test_from_every_product_to_every_other_each_member_arrives_or_is_named(
    name: str, target: str
) -> None:
    found = imported(name)
    done = FORMATS[target].write(found.servers, inputs=found.inputs)
    again = {one.name: one for one in FORMATS[target].read(done.text, Path("x")).servers}
    for server in found.servers:
        lost = {one.what for one in done.losses if one.server == server.name}
        if server.name not in again:
            assert "all of it" in lost
            continue
        arrived = again[server.name]
        for member, what in (
            ("kind", "-"),
            ("command", "-"),
            ("args", "-"),
            ("url", "-"),
            ("disabled", "-"),
            ("cwd", "-"),
            ("env_file", "envFile"),
            ("timeout_s", "timeout"),
            ("start_timeout_s", "startTimeout"),
            ("allowed", "alwaysAllow"),
            ("only", "enabledTools"),
            ("hidden", "disabledTools"),
        ):
            if what not in lost:
                assert getattr(arrived, member) == getattr(server, member), (member, lost)
        for member, kind in (("env", "env"), ("headers", "headers")):
            sent, came = getattr(server, member), getattr(arrived, member)
            expected = {key: one for key, one in sent.items() if f"{kind}.{key}" not in lost}
            assert came == expected
        for product, members in server.extras.items():
            assert product == target or set(members) <= lost


def test_a_server_that_is_off_or_confined_is_not_exported_to_where_it_would_run_free() -> None:
    off = Portable(name="off", kind="stdio", command=("run",), disabled=True)
    confined = Portable(name="confined", kind="stdio", command=("run",), sandbox=True)
    for name in PRODUCTS:
        done = FORMATS[name].write([off, confined])
        arrived = {one.name for one in FORMATS[name].read(done.text, Path("x")).servers}
        assert "confined" not in arrived
        assert ("off" in arrived) == ("disabled" in FORMATS[name].holds)


def test_text_that_would_become_a_variable_is_not_written_as_one() -> None:
    server = Portable(name="x", kind="stdio", command=("run",), env={"A": ("cost: ${PRICE}",)})
    for name in ("dragoman", "claude-code", "librechat"):
        done = FORMATS[name].write([server])
        assert [one.what for one in done.losses] == ["env.A"]
        assert "PRICE" not in done.text
    for name in ("claude-desktop", "cline"):
        done = FORMATS[name].write([server])
        assert done.losses == ()
        assert FORMATS[name].read(done.text, Path("x")).servers == (server,)


@pytest.mark.parametrize("name", ["My Server", "a/b", "", "-", "ünïcode", "x" * 100, "unknown"])
def test_a_name_that_can_be_no_alias_here_is_told_with_one_that_can(name: str) -> None:
    server = Portable(name=name, kind="stdio", command=("run",))
    done = FORMATS["dragoman"].write([server])
    assert [one.is_whole for one in done.losses] == [True]
    alias = alias_for(name)
    assert repr(alias) in str(done.losses[0])
    assert FORMATS["dragoman"].write([replace(server, name=alias)]).losses == ()
    other = alias_for(name, [alias.upper()])
    assert other.casefold() != alias.casefold()


def test_two_products_servers_of_nearly_one_name_do_not_stand_beside_each_other() -> None:
    first, second = (Portable(name=n, kind="stdio", command=("x",)) for n in ("GitHub", "github"))
    done = FORMATS["dragoman"].write([first, second])
    assert done.names == ("GitHub",)
    assert done.losses[0].is_whole
    assert "'github-2' would do" in str(done.losses[0])
    again = FORMATS["dragoman"].write([second], onto=done.text)
    assert (again.text, again.names) == (done.text, ())
    # Elsewhere these are two names.
    assert FORMATS["claude-code"].write([first, second]).losses == ()


# --- properties ---

_words = st.text(st.characters(codec="utf-8", exclude_characters="$\x00"), min_size=1, max_size=8)
_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=8).filter(
    lambda one: one[0].isalpha()
)
_plain = _words.map(lambda word: (word,))


@st.composite
def _texts(draw: st.DrawFn) -> Text:
    return draw(
        st.one_of(_plain, _names.map(lambda one: (variable("env", one.replace("-", "_")),)))
    )


@st.composite
def _servers(draw: st.DrawFn) -> Portable:
    name = draw(_names)
    if draw(st.booleans()):
        return Portable(
            name=name,
            kind="stdio",
            command=draw(_plain),
            args=tuple(draw(st.lists(_plain, max_size=3))),
            env=draw(st.dictionaries(_names, _texts(), max_size=3)),
        )
    return Portable(
        name=name,
        kind="http",
        url=("https://x.example/" + draw(_names),),
        headers=draw(st.dictionaries(_names, _texts(), max_size=3)),
    )


@every_product
@given(servers=st.lists(_servers(), max_size=3, unique_by=lambda one: one.name))
@settings(max_examples=5, deadline=None)
def test_any_servers_are_read_as_they_were_written(name: str, servers: list[Portable]) -> None:
    done = FORMATS[name].write(servers, onto=sample(name))
    again = {one.name: one for one in FORMATS[name].read(done.text, Path("x")).servers}
    gone = {one.server for one in done.losses if one.is_whole}
    for server in servers:
        if server.name in gone:
            continue
        lost = {one.what for one in done.losses if one.server == server.name}
        arrived = replace(again[server.name], extras={})
        expected = replace(
            server,
            env={key: one for key, one in server.env.items() if f"env.{key}" not in lost},
            headers={
                key: one for key, one in server.headers.items() if f"headers.{key}" not in lost
            },
        )
        assert arrived == expected


# --- secrets and saving ---


def test_literal_secrets_move_to_the_store_and_references_stay_behind(tmp_path: Path) -> None:
    store = SecretStore(FileVault(tmp_path / "secrets.json"))
    github = servers_of("claude-desktop")["github"]
    moved, names = move_secrets(github, store)
    assert names == ["github/GITHUB_PERSONAL_ACCESS_TOKEN"]
    assert texts(moved.env) == {
        "GITHUB_PERSONAL_ACCESS_TOKEN": "${secret:github/GITHUB_PERSONAL_ACCESS_TOKEN}"
    }
    assert store.get(names[0]) == "ghp_0123456789abcdefghijABCDEFGHIJ012345"
    assert secrets_in(moved) == []
    own = FORMATS["dragoman"].write([moved])
    assert "ghp_" not in own.text
    remote = servers_of("cline")["remote-server"]
    moved, names = move_secrets(remote, store)
    assert texts(moved.headers) == {"Authorization": "Bearer ${secret:remote-server/Authorization}"}
    assert store.get(names[0]) == "your-token"


def test_a_second_secret_of_a_name_does_not_replace_the_first(tmp_path: Path) -> None:
    store = SecretStore(FileVault(tmp_path / "secrets.json"))
    github = servers_of("claude-desktop")["github"]
    move_secrets(github, store)
    _, names = move_secrets(
        replace(github, env={"GITHUB_PERSONAL_ACCESS_TOKEN": ("ghp_another0123456789",)}), store
    )
    assert names == ["github/GITHUB_PERSONAL_ACCESS_TOKEN-2"]
    assert len(store.names()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_a_read_only_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text("{}")
    path.chmod(0o444)
    with pytest.raises(Misconfigured, match="read-only"):
        save(path, "[]", before="{}")
    assert path.read_text() == "{}"
    assert [one.name for one in tmp_path.iterdir()] == ["mcp.json"]


def test_saving_keeps_the_mode_and_refuses_when_the_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mcp.json"
    save(path, "{}", before="")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    save(path, '{"a": 1}', before="{}")
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(Misconfigured, match="changed by another"):
        save(path, "{}", before="{}")
    assert read_text(path) == '{"a": 1}'
    link = tmp_path / "link.json"
    link.symlink_to(path)
    save(link, "{}", before='{"a": 1}')
    assert link.is_symlink()
    assert [one.name for one in path.parent.iterdir()] == ["mcp.json"]


def test_line_ends_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    text = '{\r\n  "mcpServers": {\r\n    "a": {"command": "x"}\r\n  }\r\n}\r\n'
    path.write_bytes(text.encode())
    before = read_text(path)
    done = FORMATS["dragoman"].write(
        [Portable(name="b", kind="stdio", command=("y",))], onto=before
    )
    save(path, done.text, before=before)
    assert path.read_bytes().startswith(b'{\r\n  "mcpServers": {\r\n    "a": {"command": "x"}')
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n")
