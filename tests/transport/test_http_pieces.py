"""The parts below the HTTP clients that need no socket: URLs, proxies by name, encodings."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import HttpError, Misconfigured
from dragoman.transport.http.bodies import no_answer
from dragoman.transport.http.client import HttpOptions
from dragoman.transport.http.inflate import Inflater, encoding_of
from dragoman.transport.http.refusals import printable, refusal
from dragoman.transport.http.settings import proxy_for
from dragoman.transport.http.urls import address, is_loopback, without_secrets
from tests.support import run

# --- URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected", "origin"),
    [
        ("http://a", "http://a/", "http://a"),
        ("HTTPS://A.B:443/x", "https://a.b/x", "https://a.b"),
        ("http://a:8080?q", "http://a:8080/?q", "http://a:8080"),
        ("http://[::1]:80/x#part", "http://[::1]/x", "http://[::1]"),
        ("http://u:p@a/x", "http://a/x", "http://a"),
        ("http://a/é b".replace(" ", "%20"), "http://a/%C3%A9%20b", "http://a"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/", "http://xn--bcher-kva.example"),
    ],
)
def test_a_url_is_taken_apart_and_made_plain(url: str, expected: str, origin: str) -> None:
    place = address(url)
    assert (place.url, place.origin) == (expected, origin)
    assert place.url == place.origin + place.target


def test_ports_and_hosts_are_what_a_socket_needs() -> None:
    assert address("https://a/")[2:4] == ("a", 443)
    assert address("http://[fe80::1]:99/")[2:4] == ("fe80::1", 99)


@pytest.mark.parametrize(
    "url",
    [
        *["", "a", "/mcp", "ftp://a", "http:///x", "http://a:0/", "http://a:99999/", "http://a:x/"],
        *[
            "http://a b/",
            "http://a/ b",
            "http://a/\n",
            "http://a\\@b/",
            "http://[::1",
            "http://a%00/",
        ],
        *["http://" + "a" * 9000, "http://[v1.x]/", "http://a,b/", "http://\ud800/"],
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured):
        address(url)
    assert len(without_secrets(url)) <= 201


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_misconfigured(text: str) -> None:
    for url in (text, f"http://{text}", f"http://a/{text}"):
        try:
            place = address(url)
        except Misconfigured:
            continue
        assert address(place.url).url == place.url
        assert place.url.isascii()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:hunter2@a/x?key=hunter2#hunter2", "http://a/x?..."),
        ("ftp://me:hunter2@a/x?key=hunter2", "ftp://a/x?..."),
        ("https://a/x", "https://a/x"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        *[("localhost", True), ("a.localhost", True), ("127.0.0.1", True), ("127.9.9.9", True)],
        *[("::1", True), ("10.0.0.1", False), ("localhost.example", False), ("127.0.0.1.x", False)],
    ],
)
def test_this_machine_is_known_by_its_names(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours


# --- proxies ----------------------------------------------------------------------------------

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def chosen(monkeypatch: pytest.MonkeyPatch, url: str, **variables: str) -> str | None:
    for name in (*VARIABLES, *(one.upper() for one in VARIABLES), "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return proxy_for(HttpOptions(), address(url))


def test_the_variable_of_the_scheme_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://all:1"}
    assert chosen(monkeypatch, "http://a/", **both) == "http://p:1"
    assert chosen(monkeypatch, "https://a/", **both) == "http://all:1"
    assert chosen(monkeypatch, "http://a/", http_proxy="low:1", HTTP_PROXY="up:1") == "http://low:1"
    assert chosen(monkeypatch, "http://a/") is None


def test_a_variable_that_a_request_can_set_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    cgi = {"HTTP_PROXY": "http://evil:1", "REQUEST_METHOD": "GET"}
    assert chosen(monkeypatch, "http://a/", **cgi) is None
    assert chosen(monkeypatch, "http://a/", http_proxy="http://p:1", **cgi) == "http://p:1"


@pytest.mark.parametrize(
    ("entry", "is_exempt"),
    [
        *[("a.example", True), (".example", True), ("*.example", True), ("EXAMPLE", True)],
        *[
            ("ple", False),
            ("b.example", False),
            ("*", True),
            ("x, a.example ,y", True),
            ("", False),
        ],
        *[("a.example:8080", True), ("a.example:80", False), ("example:8080", True), (",", False)],
    ],
)
def test_no_proxy_names_hosts_and_domains(
    monkeypatch: pytest.MonkeyPatch, entry: str, is_exempt: bool
) -> None:
    proxy = chosen(monkeypatch, "http://a.example:8080/", all_proxy="http://p", NO_PROXY=entry)
    assert (proxy is None) is is_exempt


@pytest.mark.parametrize(
    ("url", "entry", "is_exempt"),
    [
        ("http://10.1.2.3/", "10.0.0.0/8", True),
        ("http://11.1.2.3/", "10.0.0.0/8", False),
        ("http://a/", "10.0.0.0/8", False),
        ("http://10.1.2.3/", "10.1.2.3", True),
        ("http://[fe80::1]:99/", "fe80::/10", True),
        ("http://[fe80::1]:99/", "[fe80::1]:99", True),
        ("http://[fe80::1]:99/", "[fe80::1]:98", False),
        ("http://[fe80::1]/", "fe80::1", True),
        ("http://10.1.2.3/", "10.1.2.3/x", False),
    ],
)
def test_no_proxy_names_addresses_and_networks(
    monkeypatch: pytest.MonkeyPatch, url: str, entry: str, is_exempt: bool
) -> None:
    assert (chosen(monkeypatch, url, all_proxy="http://p", no_proxy=entry) is None) is is_exempt


def test_options_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://p")
    place = address("http://a/")
    assert proxy_for(HttpOptions(proxy="http://own"), place) == "http://own"
    assert proxy_for(HttpOptions(proxy=""), place) is None
    assert proxy_for(HttpOptions(trust_env=False), place) is None
    assert proxy_for(HttpOptions(uds="/s", proxy="http://own"), place) is None
    assert proxy_for(HttpOptions(proxy="http://own"), address("http://localhost/")) == "http://own"


# --- encodings --------------------------------------------------------------------------------


def packed(data: bytes, window: int, *, flushes: bool) -> bytes:
    packer = zlib.compressobj(wbits=window)
    half = len(data) // 2
    first = packer.compress(data[:half])
    if flushes:
        first += packer.flush(zlib.Z_SYNC_FLUSH)
    return first + packer.compress(data[half:]) + packer.flush()


BODIES = st.binary(max_size=300) | st.integers(0, 200_000).map(lambda size: b"ab" * size)


@given(
    BODIES,
    st.sampled_from([("gzip", 31), ("deflate", 15), ("deflate", 9), ("deflate", -15)]),
    st.booleans(),
    st.lists(st.integers(0, 1 << 16), max_size=6),
)
def test_whatever_was_packed_comes_back_in_small_pieces(
    data: bytes, how: tuple[str, int], flushes: bool, places: list[int]
) -> None:
    encoding, window = how
    stream = packed(data, window, flushes=flushes)
    inflater = Inflater(encoding)
    pieces: list[bytes] = []
    start = 0
    for place in [*sorted(place % (len(stream) + 1) for place in places), len(stream)]:
        pieces += inflater.feed(stream[start:place])
        start = place
    inflater.finish()
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= 65_536 for piece in pieces)


@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate"]))
def test_bytes_that_stand_for_nothing_are_a_value_error(stream: bytes, encoding: str) -> None:
    inflater = Inflater(encoding)
    try:
        for _ in inflater.feed(stream):
            pass
        inflater.finish()
    except ValueError:
        pass


def test_what_follows_the_end_of_a_body_is_passed_over() -> None:
    for encoding, stream in (
        ("gzip", gzip.compress(b"abc") + b"\0" * 9),
        ("deflate", zlib.compress(b"abc") + b"anything"),
    ):
        inflater = Inflater(encoding)
        assert b"".join(inflater.feed(stream)) == b"abc"
        assert b"".join(inflater.feed(b"\0more")) == b""
        inflater.finish()


def test_only_known_encodings_are_taken() -> None:
    assert [encoding_of(text) for text in ("", " Identity ", "GZIP", "deflate")] == [
        None,
        None,
        "gzip",
        "deflate",
    ]
    for text in ("br", "zstd", "gzip, deflate", "compress"):
        with pytest.raises(ValueError, match="not asked for"):
            encoding_of(text)


# --- errors -----------------------------------------------------------------------------------


def test_a_certificate_that_was_not_taken_means_that_nothing_ran() -> None:
    error = no_answer("https://a/", "POST", "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13")
    assert error.sent is False
    assert error.hint
    assert no_answer("https://a/", "POST", "the connection was closed").sent is None


def test_an_error_can_be_told_to_another_request() -> None:
    error = HttpError("x", sent=None, url="http://a/", status=502, retry_after_s=2.0, body="b")
    twin = error.again(sent=False)
    assert isinstance(twin, HttpError)
    assert (twin.sent, twin.status, twin.retry_after_s, twin.body) == (False, 502, 2.0, "b")
    assert (str(twin), error.sent) == ("x", None)


# --- refusals ---------------------------------------------------------------------------------


class Answered:
    """An answer with a body, all of it there."""

    status = 500
    url = "http://a/mcp"

    def __init__(self, kind: str, body: bytes) -> None:
        self.headers = {"content-type": kind}
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body

    async def read(self, limit: int) -> bytes:
        return self._body[:limit]

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("application/json", b'{"jsonrpc":"2.0","error":{"code":-1,"message":"who?"}}', "who?"),
        ("application/problem+json; charset=utf-8", b'{"title":"x","detail":"no key"}', "no key"),
        ("application/json", b'{"error":"invalid_token"}', "invalid_token"),
        ("application/json", b'{"error":"x","error_description":"it ended"}', "it ended"),
        ("application/json", b'{"error":"","message":"no"}', "no"),
        ("application/problem+json", b'{"title":"Out of credit","status":403}', "Out of credit"),
        ("application/json", b'{"error":"f\xfcr alle"}', '{"error":"f\ufffdr alle"}'),
        ("text/html", b"<title></title>nothing", "<title></title>nothing"),
        ("text/html", b"<title lang=en>Bad Gateway</title>", "Bad Gateway"),
        ("application/json", rb'{"message":"a\u001b[2Jb\n c"}', "a [2Jb c"),
        ("application/json", b'{"else":1}', '{"else":1}'),
        ("application/json", b"[1]", "[1]"),
        ("application/json", b"not json", "not json"),
        ("application/json", b"[" * 50_000, "[" * 200),
        ("text/html", b"<html><TITLE>502 Bad\nGateway</TITLE><body>x", "502 Bad Gateway"),
        ("text/html", b"<h1>no</h1>", "<h1>no</h1>"),
        ("text/plain", b"  slow down ", "slow down"),
        ("text/plain", b"", ""),
    ],
)
def test_an_error_says_what_a_person_should_read_of_a_refusal(
    kind: str, body: bytes, words: str
) -> None:
    error, read = run(refusal(Answered(kind, body)))
    assert str(error) == "the server at http://a/mcp answered with status 500" + (
        f": {words}" if words else ""
    )
    assert read == body
    # All that came is there for programs.
    assert error.body == printable(body[:1024])
