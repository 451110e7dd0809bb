"""Who may talk to a server over HTTP: the Host and Origin headers against the lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.transport.http.guard import LOOPBACK, MAX_REMEMBERED, Guard
from tests.requirements.duties import duty

HERE = ("localhost", "127.0.0.1", "[::1]", "LOCALHOST", "localhost:8000", "127.0.0.1:1", "[::1]:80")
ELSEWHERE = (
    "",
    "evil.example.com",
    "localhost.evil.example.com",
    "evil.example.com:80",
    "127.0.0.1.evil.example.com",
    "127.0.0.2",
    "0.0.0.0",
    "[::]",
    "::1",
    "[::1].evil",
    "[::1",
    "localhost:80@evil.example.com",
    "localhost:8000.evil.example.com",
    "localhost:80:80",
    "localhost:123456",
    "localhost@evil.example.com",
    "evil.example.com#localhost",
    "localhost\\.evil.example.com",
    "localhost/",
    " localhost",
)


@duty("http-sse.origin")
@pytest.mark.parametrize("host", HERE)
def test_by_default_this_machine_is_served_under_its_own_names(host: str) -> None:
    guard = Guard()
    assert guard.allows_host(host.encode())
    assert guard.allows_origin(f"http://{host}".encode())
    assert guard.allows_origin(f"https://{host}".encode())


@pytest.mark.parametrize("host", ELSEWHERE)
def test_no_other_name_is_served(host: str) -> None:
    guard = Guard()
    assert not guard.allows_host(host.encode())
    assert not guard.allows_origin(f"http://{host}".encode())


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "file://",
        "http:",
        "localhost",
        "chrome-extension://localhost",
        "http:/localhost",
    ],
)
def test_an_origin_that_is_no_web_page_of_this_machine_is_refused(origin: str) -> None:
    assert not Guard().allows_origin(origin.encode())


def test_named_hosts_take_the_place_of_this_machines() -> None:
    guard = Guard(["api.example.com", "Other.example.com:8443", "fd00::1"])
    for host in ("api.example.com", "API.example.com:99", "other.example.com:8443", "[fd00::1]:80"):
        assert guard.allows_host(host.encode()), host
    for host in ("localhost", "other.example.com", "other.example.com:1", "x.api.example.com"):
        assert not guard.allows_host(host.encode()), host
    assert guard.allows_origin(b"https://api.example.com")


def test_named_origins_are_matched_whole() -> None:
    guard = Guard(["api.example.com"], ["https://app.example.com", "http://localhost:3000"])
    assert guard.allows_origin(b"https://app.example.com")
    assert guard.allows_origin(b"http://localhost:3000")
    for other in (
        b"http://app.example.com",
        b"https://app.example.com:444",
        b"http://localhost:3001",
    ):
        assert not guard.allows_origin(other)


def test_a_star_for_hosts_opens_no_origin() -> None:
    guard = Guard(["*"])
    assert guard.allows_host(b"anything.example.com")
    assert not guard.allows_origin(b"http://anything.example.com")
    assert Guard(["*"], ["*"]).allows_origin(b"null")


@pytest.mark.parametrize("host", ["", "http://api.example.com", "a/b", "u@host", " x"])
def test_a_host_that_could_never_match_is_a_mistake(host: str) -> None:
    with pytest.raises(Misconfigured, match="is not a host"):
        Guard([host])


@pytest.mark.parametrize("origin", ["app.example.com", "https://", "https://a/b", "https://a?x=1"])
def test_an_origin_that_could_never_match_is_a_mistake(origin: str) -> None:
    with pytest.raises(Misconfigured, match="is not an origin"):
        Guard([], [origin])


@given(st.lists(st.binary(max_size=40), max_size=60))
def test_whatever_is_sent_only_listed_names_pass_and_little_is_remembered(
    values: list[bytes],
) -> None:
    guard = Guard()
    for value in values * 2:
        host = value.decode("latin-1").lower()
        name, colon, port = host.rpartition(":")
        is_port = (
            bool(colon) and (not port or (port.isascii() and port.isdigit())) and len(port) < 6
        )
        assert guard.allows_host(value) is (host in LOOPBACK or (is_port and name in LOOPBACK))
        guard.allows_origin(value)
    assert len(guard._known_hosts) <= MAX_REMEMBERED
    assert len(guard._known_origins) <= MAX_REMEMBERED


def test_a_flood_of_names_is_not_remembered() -> None:
    guard = Guard()
    for number in range(10 * MAX_REMEMBERED):
        guard.allows_host(b"h%d" % number)
        guard.allows_origin(b"http://h%d" % number)
    assert len(guard._known_hosts) <= MAX_REMEMBERED
    assert len(guard._known_origins) <= MAX_REMEMBERED
