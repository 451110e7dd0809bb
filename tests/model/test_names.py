"""Names, URIs and keys of `_meta`."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.model.names import check_meta_keys, check_tool_name, check_uri


@pytest.mark.parametrize("name", ["a", "A1_b-c.d", "x" * 128, "getUser", "admin.tools.list", "0"])
def test_a_tool_name_of_the_allowed_characters_passes(name: str) -> None:
    check_tool_name(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a,b", "é", "a/b", "a\n", "a@b", "٣"])
def test_any_other_tool_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="tool's name"):
        check_tool_name(name)


@pytest.mark.parametrize(
    "uri",
    ["file:///a/b", "a:", "https://x.example/?q=1#f", "x+y.z-1:%20", "urn:a:b", "http://[::1]/"],
)
def test_a_uri_passes(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize(
    "uri",
    ["", "a", "/a/b", "1a:b", "a b:c", "a:b c", "a:\n", "a:é", "a:%", "a:%2", "a:%zz", "a:<b>"],
)
def test_what_is_no_uri_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="URI"):
        check_uri(uri)


def test_a_refusal_shows_the_character_that_spoils_a_uri() -> None:
    with pytest.raises(ValueError, match=r"' '.*percent-encoded"):
        check_uri("file:///a b")


@pytest.mark.parametrize(
    "key", ["k", "a.b_c-d", "com.example/k", "x/", "io.modelcontextprotocol/v", "a1-b.c/d1"]
)
def test_a_key_of_meta_passes(key: str) -> None:
    check_meta_keys([key])


@pytest.mark.parametrize(
    "key", ["", "-k", "k-", "a b", "1a/k", "a./k", ".a/k", "/k", "a/b/c", "é", "a-/k"]
)
def test_any_other_key_of_meta_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="_meta"):
        check_meta_keys(["fine", key])


@given(st.text(max_size=200))
def test_a_check_of_any_text_raises_nothing_but_a_value_error(text: str) -> None:
    for check in (check_tool_name, check_uri, lambda given: check_meta_keys([given])):
        with contextlib.suppress(ValueError):
            check(text)
