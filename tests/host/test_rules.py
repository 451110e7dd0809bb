"""One rule: what may be written, what it matches, and what is refused because it never could."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.kinds import Action, Effect, Intent, Trust
from dragoman.host.rules import MAX_READ_CHARS, MAX_RULE_CHARS, Layer, Pattern, Rule

SERVERS = ["github", "fs", "a__b"]


def rule(
    text: str,
    effect: str = "deny",
    servers: list[str] | None = None,
    layer: Layer = "user",
) -> Rule:
    return Rule.parse(text, effect=Effect(effect), layer=layer, source="p.json:7", servers=servers)


def refused(text: str, effect: str = "deny", servers: list[str] | None = None) -> str:
    with pytest.raises(Misconfigured) as caught:
        rule(text, effect, servers)
    assert str(caught.value).startswith("p.json:7: ")
    return str(caught.value)


def intent(action: str, server: str, object: str, **more: Any) -> Intent:
    return Intent(action=Action(action), server=server, identity="sha256:1", object=object, **more)


def call(server: str, tool: str, **arguments: Any) -> Intent:
    return intent("tool.call", server, tool, arguments=arguments)


# --- the grammar ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "action", "server", "object"),
    [
        ("tool(github/create_issue)", "tool.call", "github", "create_issue"),
        ("tool.call(github/create_*)", "tool.call", "github", "create_*"),
        (" tool ( github / create_* ) ", "tool.call", "github", "create_*"),
        ("tool.expose(*/*)", "tool.expose", "*", "*"),
        ("roots(fs/file:///srv/app)", "roots.expose", "fs", "file:///srv/app"),
        ("resource(fs/file:///srv/*)", "resource.read", "fs", "file:///srv/*"),
        ("resource(fs/*)", "resource.read", "fs", "*"),
        ("resource(db/post*://x/(1))", "resource.read", "db", "post*://x/(1)"),
        ("prompt(github/review)", "prompt.get", "github", "review"),
        ("sampling(github/local/*)", "sampling.request", "github", "local/*"),
        ("sampling(github)", "sampling.request", "github", "*"),
        ("elicit.url(*)", "elicit.url", "*", "*"),
        ("elicit.url(gh/https://github.com/*)", "elicit.url", "gh", "https://github.com/*"),
        ("elicit.form(*)", "elicit.form", "*", "*"),
        ("server.start(fs)", "server.start", "fs", "*"),
        ("flow(fs -> model:openai)", "flow", "fs", "model:openai"),
        ("flow(server:fs->server:github)", "flow", "fs", "server:github"),
        ("flow(* -> server:unknown)", "flow", "*", "server:unknown"),
        ("flow(* -> *)", "flow", "*", "*"),
        ("mcp__fs__read_file", "tool.call", "fs", "read_file"),
        ("mcp__fs__*", "tool.call", "fs", "*"),
        ("mcp__fs", "tool.call", "fs", "*"),
    ],
)
def test_a_rule_names_an_action_a_server_and_an_object(
    text: str, action: str, server: str, object: str
) -> None:
    found = rule(text)
    assert (found.action, found.server.text, found.object.text) == (action, server, object)
    assert found.text == text.strip()
    assert str(found) == f"deny {text.strip()}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("tools(fs/read)", "'tool'"),
        ("toool(fs/read)", "'tool'"),
        ("elicit(fs)", "'elicit.form' or 'elicit.url'"),
        ("server(fs)", "'server.start'"),
        ("tool", "'tool(*/*)'"),
        ("fs/read", "'tool(fs/read)'"),
        ("tool(fs/read", "ACTION(SERVER/OBJECT)"),
        ("tool fs/read", "ACTION(SERVER/OBJECT)"),
        ("(fs/read)", "unknown action"),
        ("*(fs/read)", "each action"),
        ("tool.*(fs/read)", "each action"),
        ("tool()", "tool(*/*)"),
        ("elicit.url()", "elicit.url(*)"),
        ("tool(delete_repo)", "'tool(*/delete_repo)'"),
        ("tool(fs/)", "fs/*"),
        ("tool(/read)", "names no server"),
        ("tool(f)s/x)", "cannot be an alias"),
        ("flow(fs)", "source and a sink"),
        ("flow(fs ->)", "source and a sink"),
        ("flow(-> model:x)", "source and a sink"),
        ("flow(a -> b -> model:x)", "source and a sink"),
        ("flow(fs -> openai)", "'flow(fs -> model:openai)'"),
        ("flow(fs -> model:)", "neither"),
        ("flow(fs -> web:x)", "neither"),
        ("roots(fs/srv/app)", "'roots(fs/file:///srv/app)'"),
        ("roots(fs/https://x/*)", "never match"),
        ("resource(fs/readme)", "never match"),
        ("elicit.url(gh/github.com/*)", "'elicit.url(gh/https://github.com/*)'"),
        ("elicit.url(gh/ftp://x)", "'elicit.url(gh/https://x)'"),
        ("mcp__", "mcp__SERVER__TOOL"),
        ("mcp__fs/read", "mcp__SERVER__TOOL"),
        ("mcp__a__b__c", "tool(a/b__c) or tool(a__b/c)"),
        ("mcp__a___b", "tool(a/_b) or tool(a_/b)"),
        ("tool(fs/read, path)", "ARGUMENT=VALUE"),
        ("tool(fs/read, path=)", "without a value"),
        ("tool(fs/read, path=a, b)", "in quotes"),
        ("tool(fs/read, path=a, path=b)", "twice"),
        ("tool(fs/read, path=a, /path=b)", "twice"),
        ('tool(fs/read, path="a)', "broken"),
        ('tool(fs/read, path="a" b)', "after a text in quotes"),
        ("tool(fs/re\u200bad)", "cannot be seen"),
        ("tool(fs/read\n)", "cannot be seen"),
        (f"tool(fs/{'x' * MAX_RULE_CHARS})", "longer"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_may_have_been_meant(text: str, says: str) -> None:
    assert says in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "tool(*/read)",
        "tool(git*/read)",
        "elicit.url(*)",
        "mcp__*__read",
        "flow(* -> model:openai)",
        "flow(fs -> *)",
        "flow(fs -> server:*)",
        "flow(fs -> server:unknown)",
        "elicit.url(gh/https://github.com*)",
        "resource(gh/https://github.*/x)",
    ],
)
def test_an_allow_names_its_server_and_its_host(text: str) -> None:
    rule(text, "deny")
    rule(text, "ask")
    refused(text, "allow")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tool(gthub/read)", "'github'"),
        ("tool(jira/*)", "'fs'"),
        ("tool(git_*/read)", "can never match"),
        ("flow(githb -> model:x)", "'github'"),
        ("flow(github -> server:fss)", "'fs'"),
        ("mcp__gthub__read", "'github'"),
        ("mcp__x__y__z", "can never match"),
        ("flow(github -> fs)", "'flow(github -> server:fs)'"),
        ("tool(github)", "'tool(github/*)'"),
    ],
)
def test_a_rule_for_a_server_that_is_not_there_is_refused(text: str, says: str) -> None:
    assert says in refused(text, servers=SERVERS)


def test_a_rule_for_servers_that_are_there_is_taken() -> None:
    for text in ("tool(git*/x)", "tool(*/x)", "flow(fs -> server:unknown)", "flow(* -> server:*)"):
        rule(text, servers=SERVERS)
    assert rule("mcp__a__b__c", servers=SERVERS).server.text == "a__b"
    assert rule("tool(*/x)", servers=[]).server.is_any
    assert "there are none" in refused("tool(fs/x)", servers=[])


def test_a_flat_name_that_two_servers_could_own_is_refused() -> None:
    assert "tool(a/b__c) or tool(a__b/c)" in refused("mcp__a__b__c", servers=["a", "a__b"])


def test_a_long_or_strange_rule_is_shown_short_and_escaped() -> None:
    told = refused("tool(" + "é\u202e" * 5000)
    assert len(told) < 2000
    assert told.isascii()


# --- matching ---------------------------------------------------------------------------------


def test_a_rule_matches_its_own_action_server_and_object_only() -> None:
    found = rule("tool(git*/create_*)")
    assert found.matches(call("github", "create_issue"))
    assert found.matches(call("gitlab", "create_"))
    assert not found.matches(call("github", "get_issue"))
    assert not found.matches(call("fs", "create_issue"))
    assert not found.matches(intent("prompt.get", "github", "create_issue"))


def test_upper_case_is_another_tool() -> None:
    assert not rule("tool(*/delete)").matches(call("fs", "Delete"))


def test_a_flow_matches_by_source_and_sink() -> None:
    found = rule("flow(fs -> model:open*)", "allow")
    assert found.matches(intent("flow", "fs", "fs -> model:openai"))
    assert found.matches(intent("flow", "fs", "server:fs -> model:openai"))
    assert not found.matches(intent("flow", "fs", "fs -> model:anthropic"))
    assert not found.matches(intent("flow", "github", "github -> model:openai"))
    assert not found.matches(intent("flow", "fs", "fs -> server:openai"))


@pytest.mark.parametrize(
    ("trust", "matches"),
    [
        (Trust.UNKNOWN, True),
        (Trust.CHANGED, True),
        (Trust.BLOCKED, True),
        (Trust.REVIEWED, False),
        (Trust.TRUSTED, False),
    ],
)
def test_an_unknown_server_is_one_that_nobody_has_reviewed(trust: Trust, matches: bool) -> None:
    found = rule("flow(* -> server:unknown)")
    assert found.matches(intent("flow", "web", "fs -> server:web", trust=trust)) is matches
    assert not found.matches(intent("flow", "web", "fs -> model:unknown", trust=trust))
    assert found.matches(intent("flow", "unknown", "fs -> server:unknown", trust=trust))


def test_a_flow_without_an_arrow_can_be_denied_but_not_allowed() -> None:
    strange = intent("flow", "fs", "fs")
    assert rule("flow(fs -> *)").matches(strange)
    assert not rule("flow(fs -> model:*)", "allow").matches(strange)


# --- arguments --------------------------------------------------------------------------------


def test_arguments_must_all_fit() -> None:
    found = rule('tool(fs/write, path=/srv/*, /options/mode="a*", n=3, force=false)', "allow")
    good: dict[str, Any] = {"path": "/srv/x", "options": {"mode": "a*"}, "n": 3, "force": False}
    assert found.matches(call("fs", "write", **good))
    for name, value in {
        "path": "/etc/x",
        "options": {"mode": "ab"},
        "n": 4,
        "force": True,
    }.items():
        assert not found.matches(call("fs", "write", **{**good, name: value}))
        assert not found.matches(
            call("fs", "write", **{k: v for k, v in good.items() if k != name})
        )
    assert not found.matches(intent("tool.call", "fs", "write"))


def test_true_is_not_one() -> None:
    found = rule("tool(fs/x, n=1)")
    assert found.matches(call("fs", "x", n=1))
    assert found.matches(call("fs", "x", n=1.0))
    assert not found.matches(call("fs", "x", n=True))


def test_a_pointer_reaches_into_lists_and_names_with_slashes() -> None:
    found = rule("tool(fs/x, /items/1/a~1b=yes)")
    assert found.matches(call("fs", "x", items=[{}, {"a/b": "yes"}]))
    assert not found.matches(call("fs", "x", items=[{"a/b": "yes"}]))
    assert not rule("tool(fs/x, /items/01=yes)").matches(call("fs", "x", items=["", "yes"]))


def test_of_a_list_an_allow_wants_all_and_a_deny_any() -> None:
    text = "tool(fs/read, paths=/srv/*)"
    for paths, allowed, denied in [
        (["/srv/a", "/srv/b"], True, True),
        (["/srv/a", "/etc/b"], False, True),
        (["/etc/b"], False, False),
        ([], False, False),
        ([["/srv/a"]], False, True),
        ({"deep": {"er": "/srv/a"}}, False, True),
    ]:
        assert rule(text, "allow").matches(call("fs", "read", paths=paths)) is allowed
        assert rule(text, "deny").matches(call("fs", "read", paths=paths)) is denied
        assert rule(text, "ask").matches(call("fs", "read", paths=paths)) is denied


def test_a_star_alone_wants_the_argument_to_be_there() -> None:
    for effect in ("allow", "deny"):
        found = rule("tool(fs/x, path=*)", effect)
        assert found.matches(call("fs", "x", path={"any": ["thing"]}))
        assert not found.matches(call("fs", "x", other=1))


def test_a_number_of_many_digits_is_no_accident() -> None:
    assert rule("tool(fs/x, n=*)").matches(call("fs", "x", n=10**5000))
    assert not rule("tool(fs/x, n=1*)").matches(call("fs", "x", n=10**5000))


# --- texts that can be read in more than one way ----------------------------------------------

OUTSIDE = [
    "/srv/app/../../etc/passwd",
    "/srv/app/..",
    "/srv/app/x/../../secret",
    "/srv/app/%2e%2e/%2e%2e/etc/passwd",
    "/srv/app/%252e%252e/secret",
    "/srv/app/..%2f..%2fetc/passwd",
    "/srv/app/..\\..\\etc",
    "/srv/app/%3F/../../secret",
    "/srv/app/.//../../secret",
    "/srv/app/..\x00%252e/",
    "/srv/app/%c0%ae%c0%ae/secret",
    "/srv/app/a\\b/..//..",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_an_allow_for_a_folder_ends_at_the_folder(path: str) -> None:
    assert not rule("tool(fs/w, path=/srv/app/*)", "allow").matches(call("fs", "w", path=path))
    uri = f"file://{path}"
    assert not rule("roots(fs/file:///srv/app/*)", "allow").matches(
        intent("roots.expose", "fs", uri)
    )
    assert not rule("resource(fs/file:///srv/app/*)", "allow").matches(
        intent("resource.read", "fs", uri)
    )


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/srv/../etc/passwd",
        "/srv/%2e%2e/etc/passwd",
        "/%65tc/passwd",
        "//etc//passwd",
        "/./etc/passwd",
        "\\etc\\passwd",
        "/etc/x/../passwd",
    ],
)
def test_a_deny_for_a_folder_holds_however_the_way_is_written(path: str) -> None:
    assert rule("tool(fs/w, path=/etc/*)").matches(call("fs", "w", path=path))
    assert rule("roots(*/file:///etc/*)").matches(intent("roots.expose", "fs", f"file://{path}"))


@pytest.mark.parametrize(
    "uri",
    [
        "FILE:///etc",
        "file:/etc",
        "file://localhost/etc",
        "file:///etc/",
        "file:///etc/.",
        "file:///srv/../etc/passwd?x=/../..",
    ],
)
def test_a_deny_for_a_root_holds_however_the_uri_is_written(uri: str) -> None:
    assert rule("roots(*/file:///etc*)").matches(intent("roots.expose", "fs", uri))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/login",
        "HTTPS://EVIL.example/login",
        "https://evil.example./login",
        "https://evil.example:443/login",
        "https://github.com@evil.example/login",
        "https://github.com%2f@evil.example/login",
        "https:\\\\evil.example\\login",
        "https:evil.example/login",
        "https:///evil.example/login",
    ],
)
def test_a_deny_for_a_host_holds_however_the_url_is_written(url: str) -> None:
    assert rule("elicit.url(*/https://evil.example/*)").matches(intent("elicit.url", "gh", url))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x.github.com/",
        "https://github.com.evil.example/",
        "https://evil.example?.github.com/",
        "https://evil.example#.github.com/",
        "https://evil.example\\.github.com/",
        "https://x.github.com@evil.example/",
        "https://x.github.com%2f@evil.example/",
        "https://evil.example%2f.github.com/",
        "https://evil.example\uff0f.github.com/",
        "http://x.github.com/",
    ],
)
def test_an_allow_for_a_host_is_for_no_other(url: str) -> None:
    found = rule("elicit.url(gh/https://*.github.com/*)", "allow")
    assert found.matches(intent("elicit.url", "gh", "https://login.github.com/device"))
    assert not found.matches(intent("elicit.url", "gh", url))


def test_an_allow_for_any_host_of_a_name_is_for_no_login() -> None:
    found = rule("elicit.url(gh/https://*.github.com/*)", "allow")
    assert not found.matches(intent("elicit.url", "gh", "https://me@x.github.com/"))


def test_an_empty_segment_of_a_url_is_one_step_up() -> None:
    found = rule("elicit.url(gh/https://h.example/srv/*)", "allow")
    for path in ("srv/../a//../srv/x", "srv/a/../../srv/../x"):
        assert not found.matches(intent("elicit.url", "gh", f"https://h.example/{path}"))
    assert found.matches(intent("elicit.url", "gh", "https://h.example/srv/a//../x"))


def test_an_exact_allow_covers_what_it_says() -> None:
    for uri in ("file:///srv/app", "file:///srv/a%20b", "https://x.example/?q=..%2f"):
        action = "roots.expose" if uri.startswith("file") else "elicit.url"
        short = "roots" if uri.startswith("file") else "elicit.url"
        assert rule(f"{short}(fs/{uri})", "allow").matches(intent(action, "fs", uri))


def test_a_star_that_is_encoded_is_no_wildcard() -> None:
    found = rule("tool(fs/w, path=/srv/%2A)", "allow")
    assert found.matches(call("fs", "w", path="/srv/%2A"))
    assert not found.matches(call("fs", "w", path="/srv/secret"))
    for text in ("/srv/%252a", "/srv/*/%2A"):
        allow = rule(f"tool(fs/w, path={text})", "allow")
        for path in ("/srv/x", "/srv/", "/srv/x/"):
            assert not allow.matches(call("fs", "w", path=path))
    assert not rule("tool(fs/w, path=/srv/%2A)").matches(call("fs", "w", path="/srv/x"))


def test_an_exact_allow_is_for_that_spelling() -> None:
    for text, other in [("a%20b", "a b"), ("/srv/app/../x", "/srv/x"), ("a\\u0000b", "a")]:
        assert not rule(f'tool(fs/w, x="{text}")', "allow").matches(call("fs", "w", x=other))


def test_what_is_cut_at_a_nul_is_read_both_ways() -> None:
    text = "tool(fs/w, path=*.txt)"
    assert not rule(text, "allow").matches(call("fs", "w", path="run.sh\0.txt"))
    assert rule("tool(fs/w, path=*.sh)").matches(call("fs", "w", path="run.sh\0.txt"))


# --- properties -------------------------------------------------------------------------------

chars = st.sampled_from("ab*./%2e\\:@-_ ")
texts = st.text(chars, max_size=14)


@given(st.text(st.sampled_from("ab*"), max_size=8), st.text(st.sampled_from("ab"), max_size=12))
def test_a_pattern_means_what_a_regular_expression_would(pattern: str, text: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL)
    assert Pattern(pattern).covers(text) is (expected is not None)


@given(texts, texts)
def test_what_an_allow_fits_a_deny_fits_too(pattern: str, text: str) -> None:
    found = Pattern(pattern)
    assert not found.fits_narrowly(text) or found.fits_widely(text)
    assert not found.covers(text) or found.fits_widely(text)


@given(st.text(max_size=20))
def test_a_text_fits_itself_and_the_star(text: str) -> None:
    exact = Pattern(text, is_literal=True)
    assert exact.covers(text)
    assert exact.fits_narrowly(text)
    assert Pattern("*").fits_narrowly(text)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "srv"]), max_size=8), st.booleans())
def test_no_spelling_of_a_path_leaves_an_allowed_folder(parts: list[str], is_encoded: bool) -> None:
    import posixpath

    path = "/srv/" + "/".join(parts)
    inside = posixpath.normpath(path).removeprefix("//").startswith("/srv/")
    sent = path.replace("..", "%2e%2e") if is_encoded else path
    if rule("tool(fs/w, path=/srv/*)", "allow").matches(call("fs", "w", path=sent)):
        assert inside or posixpath.normpath(path) == "/srv"
    if inside:
        assert rule("tool(fs/w, path=/srv/*)").matches(call("fs", "w", path=sent))


@given(st.text(st.sampled_from("abc/."), min_size=1, max_size=12))
def test_encoding_a_text_hides_it_from_no_deny(text: str) -> None:
    encoded = "".join(f"%{ord(char):02x}" for char in text)
    found = rule(f'tool(fs/w, x="{text}")')
    assert found.matches(call("fs", "w", x=encoded))
    assert found.matches(call("fs", "w", x=quote(encoded)))


@given(st.text(max_size=40) | st.text(st.sampled_from('tolflw(s/*,="->mcp_:) '), max_size=40))
def test_any_text_is_a_rule_or_refused_with_its_place(text: str) -> None:
    for effect in ("allow", "ask", "deny"):
        try:
            found = rule(text, effect)
        except Misconfigured as error:
            told = str(error)
        else:
            told = "p.json:7: "
            assert rule(found.text, effect) == found
        assert told.startswith("p.json:7: ")


def test_a_hostile_text_costs_no_more_than_its_length() -> None:
    # With a backtracking matcher this would not end.
    pattern = "*".join("a" * 40)
    assert not rule(f"tool(fs/w, x={pattern}b)").matches(call("fs", "w", x="a" * 100_000))
    deep = "%" + "25" * 50_000
    assert not rule("tool(fs/w, x=zz*)").matches(call("fs", "w", x=deep))


def test_what_is_too_long_to_be_a_path_is_denied_by_its_reading_but_not_allowed() -> None:
    long = "/srv/%61/" + "x/" * MAX_READ_CHARS
    assert not rule("tool(fs/w, path=/srv/*)", "allow").matches(call("fs", "w", path=long))
    assert rule("tool(fs/w, path=/srv/a/*)").matches(call("fs", "w", path=long))
    assert rule("tool(fs/w, path=*)", "allow").matches(call("fs", "w", path=long))
    assert rule("resource(fs/*)", "allow").matches(intent("resource.read", "fs", f"x:{long}"))
    # A long text that can be read in one way only is matched like any.
    plain = "word " * MAX_READ_CHARS
    assert rule("tool(fs/w, text=word*)", "allow").matches(call("fs", "w", text=plain))
