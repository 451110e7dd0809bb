"""Which hosts a list of a sandbox names, and which addresses a name may lead to."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.config import load_servers
from dragoman.host.identity import diff_identity, identity_of
from dragoman.host.sandbox.targets import BadTargetError, Reach, Target, parse_target
from tests.host.confined import reach_of


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("api.github.com:443", "api.github.com:443"),
        ("API.GitHub.Com.:443", "api.github.com:443"),
        ("b\u00fccher.example:80", "xn--bcher-kva.example:80"),
        ("B\u00dcCHER.example.:80", "xn--bcher-kva.example:80"),
        ("api\u3002github\uff0ecom:443", "api.github.com:443"),
        ("*.Example.com:1", "*.example.com:1"),
        ("localhost:5432", "localhost:5432"),
        ("_srv.example:5432", "_srv.example:5432"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ("[2001:DB8:0:0::1]:65535", "[2001:db8::1]:65535"),
    ],
)
def test_one_host_has_one_spelling(text: str, meant: str) -> None:
    target = parse_target(text, may_be_pattern=True)
    assert str(target) == meant
    # And that is a spelling of it.
    assert parse_target(meant, may_be_pattern=True) == target


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", ""),
        ("api.github.com", "'api.github.com:443'"),
        ("https://api.github.com/v3", "'api.github.com:443'"),
        ("http://x.example:8080/", "'x.example:8080'"),
        ("http://u@x.example", "'x.example:80'"),
        ("*:443", "'network': true"),
        ("*.com:443", "*.example.com"),
        ("*.127.0.0.1:443", ""),
        ("api.*.com:443", "'*'"),
        ("*api.github.com:443", "'*'"),
        ("*.*.com:443", "'*'"),
        ("x:0", "1 to 65535"),
        ("x:65536", "1 to 65535"),
        ("x:" + "9" * 5000, "1 to 65535"),
        ("x:\u0661", "1 to 65535"),
        ("x:+1", "1 to 65535"),
        ("x:http", "1 to 65535"),
        ("x:", "1 to 65535"),
        ("::1", "[::1]"),
        ("::1:443", "[::1]"),
        ("[::1]", "port"),
        ("[::1]x:1", "IPv6"),
        ("[127.0.0.1]:1", "IPv6"),
        ("[fe80::1%eth0]:1", ""),
        ("127.1:80", ""),
        ("0x7f.1:80", ""),
        ("2130706433:80", ""),
        ("x.0x1:80", ""),
        ("0.0.0.0:80", ""),
        ("[::]:80", ""),
        ("224.0.0.1:80", ""),
        ("255.255.255.255:80", ""),
        ("foo.localhost:80", "'localhost'"),
        ("a b:80", ""),
        ("a..b:80", ""),
        (".:80", ""),
        ("-a.example:80", ""),
        ("x" * 64 + ":80", ""),
        ("a." * 127 + "bc:80", ""),
        ("user@x:80", ""),
        ("x/y:80", ""),
        ("x:80/y", ""),
        ("x\x00y:80", ""),
        ("x\r\ny:80", ""),
        ("stra\u00dfe.example:80", "xn--"),
        ("a\u200db.example:80", "xn--"),
        ("\ud800.example:80", ""),
    ],
)
def test_what_names_no_host_is_an_error_that_helps(text: str, hint: str) -> None:
    with pytest.raises(BadTargetError) as found:
        parse_target(text, may_be_pattern=True)
    assert hint in str(found.value)


def test_a_request_holds_no_pattern_and_may_have_a_port_of_its_own() -> None:
    with pytest.raises(BadTargetError):
        parse_target("*.example.com:443")
    assert parse_target("example.com", default_port=80) == Target("example.com", 80)


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_an_error(text: str) -> None:
    try:
        target = parse_target(text, default_port=1, may_be_pattern=True)
    except BadTargetError:
        return
    assert target.host.isascii()
    assert parse_target(str(target), may_be_pattern=True) == target


@pytest.mark.parametrize(
    ("wanted", "is_allowed"),
    [
        ("api.test:443", True),
        ("api.test:80", False),
        ("x.api.test:443", False),
        ("wide.test:443", False),
        ("a.wide.test:443", True),
        ("a.b.wide.test:443", True),
        ("awide.test:443", False),
        ("a.wide.test.evil.test:443", False),
        ("a.wide.test:80", False),
        ("10.0.0.1:5432", True),
        ("10.0.0.2:5432", False),
        ("localhost:8080", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("127.0.0.2:8080", False),
        ("127.0.0.1:5432", False),
    ],
)
def test_a_list_allows_what_it_names(wanted: str, is_allowed: bool) -> None:
    reach = reach_of("api.test:443", "*.wide.test:443", "10.0.0.1:5432", "localhost:8080")
    assert reach.allows(parse_target(wanted)) is is_allowed


@given(
    st.lists(st.sampled_from(["a.test", "*.test.example", "10.0.0.1", "localhost"]), max_size=4),
    st.from_regex(r"[a-z.]{1,20}", fullmatch=True),
    st.integers(1, 3),
)
def test_only_a_listed_port_is_ever_allowed(listed: list[str], host: str, port: int) -> None:
    reach = reach_of(*(f"{one}:2" for one in listed))
    try:
        wanted = parse_target(f"{host}:{port}")
    except BadTargetError:
        return
    if reach.allows(wanted):
        assert port == 2
        assert any(wanted.host == one or wanted.host.endswith(one[1:]) for one in listed)


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:1.1.1.1", True),
        # An IPv6-only network's way to an IPv4 address.
        ("64:ff9b::1.1.1.1", True),
        ("127.0.0.1", False),
        ("127.64.0.1", False),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.100.100.200", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("::ffff:127.0.0.1", False),
        ("::127.0.0.1", False),
        ("64:ff9b::127.0.0.1", False),
        ("64:ff9b::169.254.169.254", False),
        ("64:ff9b:1::1", False),
        ("192.88.99.1", False),
        ("2001:20::1", False),
        ("2001:30::1", False),
        ("2001:db8::1", False),
        ("3fff::1", False),
        ("3fff:fff:ffff::1", False),
        ("3fff:1000::1", True),
        ("5f00::1", False),
        ("100:0:0:1::1", False),
        ("2002:7f00:1::", False),
        ("2002:a00:1::", False),
        ("2001:0:7f00:1::", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
    ],
)
def test_a_name_leads_to_the_open_internet_or_to_what_is_listed(
    address: str, is_allowed: bool
) -> None:
    found = ipaddress.ip_address(address)
    assert reach_of("api.test:443").allows_address(found, 443) is is_allowed
    if not is_allowed and not (found.is_unspecified or found.is_multicast):
        try:
            listed = reach_of("api.test:443", str(Target(address, 443)))
        except BadTargetError:
            return
        assert listed.allows_address(found, 443)
        assert not listed.allows_address(found, 80)


def test_the_order_and_the_spelling_of_a_list_do_not_matter_to_who_a_server_is() -> None:
    assert reach_of("b.test:1", "A.test.:2", "a.test:2") == reach_of("a.test:2", "b.test:1")
    assert str(Reach()) == ""


def test_the_list_is_part_of_who_a_server_is_and_is_shown(tmp_path: Path) -> None:
    def of(network: object) -> tuple[str, tuple[tuple[str, str], ...]]:
        path = tmp_path / "mcp.json"
        raw = {"command": "run", "sandbox": {"network": network}}
        path.write_text(json.dumps({"mcpServers": {"x": raw}}))
        identity = identity_of(load_servers(path).servers["x"])
        return identity.digest, identity.lines

    one, lines = of(["b.test:443", "a.test:443"])
    assert dict(lines)["sandbox"] == "confined: network to a.test:443, b.test:443 only"
    assert of(["A.test:443", "b.test.:443"])[0] == one
    more, other = of(["b.test:443", "a.test:443", "*.c.test:443"])
    assert more != one
    assert "+ sandbox: confined: network to *.c.test:443, a.test:443" in diff_identity(lines, other)
    assert len({one, more, of(True)[0], of(False)[0]}) == 4
    assert of([])[0] == of(False)[0]


@pytest.mark.parametrize(
    ("network", "line", "hint"),
    [
        ('["a.test:443",\n"b.test"]', 2, "write 'b.test:443'"),
        ('["https://api.github.com"]', 1, "write 'api.github.com:443'"),
        ('"a.test:443"', 1, "write ['a.test:443']"),
        ("[443]", 1, "'host:port'"),
        ("1", 1, "true, false or a list"),
        ("[" + ",".join(f'"a{one}.test:1"' for one in range(65)) + "]", 1, "64"),
    ],
)
def test_a_list_that_cannot_be_held_stops_the_load_with_its_line_and_a_suggestion(
    tmp_path: Path, network: str, line: int, hint: str
) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(
        '{"mcpServers": {"x": {"command": "run", "sandbox": {"network": ' + network + "}}}}"
    )
    with pytest.raises(Misconfigured) as found:
        load_servers(path)
    assert str(found.value).startswith(f"{path}:{line}: the server 'x' 'network'")
    assert hint in str(found.value)


def test_a_variable_stands_for_a_host_and_one_that_is_not_set_starts_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mcp.json"
    raw = {"command": "run", "sandbox": {"network": ["${DB_HOST}:5432"]}}
    path.write_text(json.dumps({"mcpServers": {"x": raw}}))
    entry = load_servers(path, {"DB_HOST": "db.test"}).servers["x"]
    assert entry.sandbox is not None
    assert str(entry.sandbox.reach) == "db.test:5432"
    unset = load_servers(path, {}, may_be_unset=True).servers["x"]
    assert any("DB_HOST" in one for one in unset.faults)
    with pytest.raises(Misconfigured, match="DB_HOST"):
        unset.connector(environ={})
