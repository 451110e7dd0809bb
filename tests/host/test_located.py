"""JSON that people write: what is allowed, and the line of everything in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.located import MAX_BYTES, MAX_DEPTH, locate, read_located

FILE = Path("policy.json")

TEXT = """\
// who may what
{
  "version": 1,
  "permissions": { "deny": [
      "a", /* two
      lines */ "b",
    ],
    "ask": ["not // a comment", "nor , ] this"],
  },
}
"""

values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


def fault(text: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        locate(text, FILE)
    return str(caught.value)


def test_comments_last_commas_and_a_byte_order_mark_are_allowed() -> None:
    assert locate("\ufeff" + TEXT, FILE).value == {
        "version": 1,
        "permissions": {"deny": ["a", "b"], "ask": ["not // a comment", "nor , ] this"]},
    }


def test_everything_has_the_line_of_its_name_or_of_the_item() -> None:
    found = locate(TEXT, FILE)
    assert found.line() == 2
    assert found.line(("version",)) == 3
    assert found.line(("permissions", "deny")) == 4
    assert found.line(("permissions", "deny", 0)) == 5
    assert found.line(("permissions", "deny", 1)) == 6
    assert found.line(("permissions", "ask", 1)) == 8


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    found = locate(TEXT, FILE)
    assert found.line(("permissions", "allow", 3)) == 4
    assert found.line(("nowhere",)) == 2


def test_a_fault_about_a_value_begins_with_file_and_line() -> None:
    error = locate(TEXT, FILE).fault(("version",), "is too high")
    assert isinstance(error, Misconfigured)
    assert str(error) == "policy.json:3: is too high"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(end: str) -> None:
    found = locate(TEXT.replace("\n", end), FILE)
    assert found.line(("permissions", "ask")) == 8


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("{", 1),
        ('{\n"a" 1}', 2),
        ('{\n"a": 1\n"b": 2}', 3),
        ("{a: 1}", 1),
        ("[1,\n,]", 2),
        ("[\n01]", 2),
        ("[\n1.]", 2),
        ("[\n-]", 2),
        ("[\n+1]", 2),
        ("[\n1e999]", 2),
        (f"[\n{'9' * 5000}]", 2),
        ("[\nNaN]", 2),
        ("[\nInfinity]", 2),
        ("[\nTrue]", 2),
        ("[\n'a']", 2),
        ('[\n"a\nb"]', 2),
        ('[\n"a]', 2),
        ('[\n"\\x"]', 2),
        ('[\n"\\ud800"]', 2),
        ('{\n"\\udc00": 1}', 2),
        ("{}\n{}", 2),
        ("{}\n/* for ever", 2),
        ("[1]\n]", 2),
        ("[" * (MAX_DEPTH + 2), 1),
    ],
)
def test_what_is_no_json_is_refused_with_its_line(text: str, line: int) -> None:
    assert fault(text).startswith(f"policy.json:{line}: ")


def test_a_member_that_stands_twice_is_refused_and_all_such_are_named() -> None:
    told = fault('{"a": 1,\n"b": {"c": 1,\n"c": 2},\n"a": 3}').splitlines()
    assert [line.partition(": ")[0] for line in told] == ["policy.json:3", "policy.json:4"]
    assert "line 2" in told[0]
    assert "line 1" in told[1]


def test_an_escaped_name_is_the_same_name() -> None:
    assert "twice" in fault('{"a": 1, "\\u0061": 2}')


def test_a_file_is_read_with_the_digest_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b'\xef\xbb\xbf{"\xc3\xa9": 1}')
    found = read_located(path)
    assert found.value == {"é": 1}
    assert found.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("before", "line"), [(b"", 1), (b"{\n\n", 3), (b'{"a":\r\n "b', 2)])
def test_a_file_that_is_not_utf_8_is_refused_with_the_line(
    tmp_path: Path, before: bytes, line: int
) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(before + b"\xff\n}")
    with pytest.raises(Misconfigured) as caught:
        read_located(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(Misconfigured) as caught:
            read_located(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        # A hole: it takes no room.
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(Misconfigured, match=str(MAX_BYTES)):
        read_located(path)


@given(values, st.sampled_from([None, 1]))
def test_plain_json_is_read_as_the_standard_library_reads_it(value: Any, indent: int) -> None:
    text = json.dumps(value, indent=indent)
    assert locate(text, FILE).value == json.loads(text)


@given(st.text(st.sampled_from('{}[]",:/*\\ \n1truefalsnu-.e"'), max_size=40))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        found = locate(text, FILE)
    except Misconfigured as error:
        told = str(error)
    else:
        told = "policy.json:"
        json.dumps(found.value)
        lines = len(text.splitlines()) or 1
        assert all(1 <= line <= lines for line in found.lines.values())
    assert told.startswith("policy.json:")
