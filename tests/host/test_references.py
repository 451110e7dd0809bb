"""What a person may write beside words: resources and prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.references import PromptCall, prompt_in, quoted, resources_in


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        ("see @s:n://a, please", ["n://a"]),
        ("(@s:n://a)", ["n://a"]),
        ('"@s:n://a".', ["n://a"]),
        ("@s:n://a(b)", ["n://a(b)"]),
        ("(see @s:n://a(b))", ["n://a(b)"]),
        ("@s:<n://a b> and more", ["n://a b"]),
        ("@s:file:///a%20b,", ["file:///a%20b"]),
        ("@s:n://日本", ["n://日本"]),
        ("@s:n://a @s:n://a @s:n://b", ["n://a", "n://b"]),
        ("me@host:1 and a@b:c", []),
        ("@everyone: hello", []),
        ("@s: n://a", []),
        ("@s:...", []),
    ],
)
def test_a_resource_ends_where_the_sentence_goes_on(text: str, uris: list[str]) -> None:
    assert [mention.uri for mention in resources_in(text)] == uris


@pytest.mark.parametrize(
    ("text", "named", "placed"),
    [
        ("/s:p", {}, ()),
        ("/s:p \n ", {}, ()),
        ("/s:p don't stop", {}, ("don't", "stop")),
        ("/s:p text=don't", {"text": "don't"}, ()),
        (r"/s:p path=C:\temp\new", {"path": r"C:\temp\new"}, ()),
        ("/s:p 'two words' a=\"b c\"", {"a": "b c"}, ("two words",)),
        (r'/s:p a="he said \"no\" \ twice"', {"a": r'he said "no" \ twice'}, ()),
        ("/s:p a=b=c x= https://h/?q=1", {"a": "b=c", "x": ""}, ("https://h/?q=1",)),
        ('/s:p a="" b=\'"\'', {"a": "", "b": '"'}, ()),
        ("/s:p a=1\nb=2\tc=3", {"a": "1", "b": "2", "c": "3"}, ()),
    ],
)
def test_arguments_are_read_as_they_are_written(
    text: str, named: dict[str, str], placed: tuple[str, ...]
) -> None:
    assert prompt_in(text) == PromptCall("s", "p", named, placed)


def test_a_prompt_whose_name_holds_blanks_stands_in_brackets() -> None:
    assert prompt_in("/s:<code review> a=1") == PromptCall("s", "code review", {"a": "1"}, ())


@pytest.mark.parametrize("text", ['/s:p a="b', "/s:p 'b c", '/s:p x "a"b', "/s:p a='b'c"])
def test_a_quotation_mark_that_does_not_close_a_word_is_told(text: str) -> None:
    with pytest.raises(Misconfigured, match="quotation mark"):
        prompt_in(text)


@pytest.mark.parametrize("text", ["/etc/hosts: what is it?", "/s", "hello /s:p", "/s: p"])
def test_what_is_no_prompt_is_left_alone(text: str) -> None:
    assert prompt_in(text) is None


@given(value=st.text().filter(lambda value: value.isprintable()))
def test_a_value_that_is_quoted_is_read_as_itself(value: str) -> None:
    call = prompt_in(f"/s:p before a={quoted(value)} b={quoted(value)} after")
    assert call == PromptCall("s", "p", {"a": value, "b": value}, ("before", "after"))
