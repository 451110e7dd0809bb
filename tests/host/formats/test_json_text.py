"""Changing a member of a JSON text in place: the value is right, and the rest stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.formats.documents import JsonDocument, TomlDocument, YamlDocument
from dragoman.host.formats.json_text import remove_member, set_member
from dragoman.host.located import locate


def value_of(text: str) -> Any:
    return locate(text, Path("x")).value


@pytest.mark.parametrize(
    ("before", "way", "value", "after"),
    [
        ("", ["a"], 1, '{\n  "a": 1\n}\n'),
        ("{}", ["a", "b"], 1, '{\n  "a": {\n    "b": 1\n  }\n}'),
        ('{"a": 1}', ["b"], 2, '{"a": 1, "b": 2}'),
        ('{"a": 1,}', ["b"], 2, '{"a": 1, "b": 2}'),
        ('{\n\t"a": 1\n}\n', ["b"], {"c": 2}, '{\n\t"a": 1,\n\t"b": {\n\t\t"c": 2\n\t}\n}\n'),
        ('{\n  "a": 1, // x\n}', ["b"], 2, '{\n  "a": 1, // x\n  "b": 2,\n}'),
        ('{\n  "a": 1 // x\n}', ["b"], 2, '{\n  "a": 1, // x\n  "b": 2\n}'),
        ('{\n  "a": 1 /* , */ // }\n}', ["b"], 2, '{\n  "a": 1, /* , */ // }\n  "b": 2\n}'),
        ('{"a": "//", "b": [1, 2]}', ["b"], None, '{"a": "//", "b": null}'),
        ('{"a": {"b": "}"}}', ["a", "b"], "x", '{"a": {"b": "x"}}'),
        ("{ // nothing\n}", ["a"], 1, '{ // nothing\n  "a": 1\n}'),
    ],
)
def test_a_member_is_set(before: str, way: list[str], value: Any, after: str) -> None:
    assert set_member(before, way, value) == after


@pytest.mark.parametrize(
    ("before", "way", "after"),
    [
        ("", ["a"], ""),
        ("{}", ["a"], "{}"),
        ('{"a": {"b": 1}}', ["b", "a"], '{"a": {"b": 1}}'),
        ('{"a": 1, "b": 2}', ["b"], '{"a": 1}'),
        ('{\n  "a": 1,\n  "b": 2\n}\n', ["b"], '{\n  "a": 1\n}\n'),
        ('{\n  "a": 1, // x\n  "b": 2 // y\n}\n', ["b"], '{\n  "a": 1 // x\n}\n'),
        ('{\n  "a": 1, // x\n  // of b\n  "b": 2,\n}', ["a"], '{\n  // of b\n  "b": 2,\n}'),
        ('{\n  "a": 1,\n  "b": 2,\n}', ["b"], '{\n  "a": 1,\n}'),
    ],
)
def test_a_member_is_removed(before: str, way: list[str], after: str) -> None:
    assert remove_member(before, way) == after


def test_nothing_is_put_into_what_is_no_object() -> None:
    with pytest.raises(ValueError, match="no object"):
        set_member('{"a": [1]}', ["a", "b"], 1)
    with pytest.raises(Misconfigured, match="no table"):
        JsonDocument('{"a": 1}', Path("x")).set(["a", "b"], 1)


_names = st.sampled_from(["a", "b", "c", "//", "}", 'q"', "ä"])
_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from(["", "//", "/*", "}", '"'])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(_names, inner, max_size=3)
    ),
    max_leaves=8,
)
_objects = st.dictionaries(_names, _values, max_size=4)
_blanks = st.sampled_from(["", " ", "\n", "\n    ", "\t", " /* , } */ ", " // ] , \n", "\r\n"])


def _laid_out(draw: Callable[[st.SearchStrategy[Any]], Any], value: Any) -> str:
    """A text of that value, laid out any way, with comments and last commas."""

    def blank() -> str:
        return str(draw(_blanks))

    if isinstance(value, dict):
        parts = [
            f"{blank()}{json.dumps(name)}{blank()}:{blank()}{_laid_out(draw, one)}{blank()}"
            for name, one in value.items()
        ]
    elif isinstance(value, list):
        parts = [f"{blank()}{_laid_out(draw, one)}{blank()}" for one in value]
    else:
        return json.dumps(value)
    inside = ",".join(parts) + ("," if parts and draw(st.booleans()) else "") + blank()
    return f"{{{inside}}}" if isinstance(value, dict) else f"[{inside}]"


@given(data=st.data(), whole=_objects, way=st.lists(_names, min_size=1, max_size=3), new=_values)
@settings(max_examples=60, deadline=None)
def test_any_member_of_any_text_is_set_and_removed(
    data: st.DataObject, whole: dict[str, Any], way: list[str], new: Any
) -> None:
    text = data.draw(_blanks) + _laid_out(data.draw, whole) + data.draw(_blanks)
    document = JsonDocument(text, Path("x"))
    assert document.value == whole
    inner: Any = whole
    for name in way[:-1]:
        inner = inner.get(name, {}) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        return
    # Either raises when the value is not what it should be.
    document.set(way, new)
    assert value_of(document.text) == document.value
    comments = text.count("/* , } */") + text.count("// ] ,")
    document.remove(way)
    assert value_of(document.text) == document.value
    untouched = JsonDocument(text, Path("x"))
    untouched.remove(["not there"])
    assert untouched.text == text
    if way[0] not in whole:
        # Nothing of what stood there went.
        kept = document.text.count("/* , } */") + document.text.count("// ] ,")
        assert kept == comments


TOML = """\
# mine
model = "x" # y

[mcp_servers.a] # z
command = "run"
args = ["1"]

[mcp_servers.a.env]
A = "1" # of A

[other]
b = 1
"""

YAML = """\
# mine
extensions:
  a:   # of a
    args:
      - -y
      - 'quoted'
    envs: {A: "1"}
other: |
  text
  of lines
"""


def test_toml_keeps_its_comments_and_its_tables() -> None:
    document = TomlDocument(TOML, Path("x"))
    document.set(["mcp_servers", "a", "env", "B"], "2")
    document.set(["mcp_servers", "a", "args"], ["1", "2"])
    document.set(["mcp_servers", "b"], {"command": "x", "env": {"C": "3"}})
    document.remove(["mcp_servers", "a", "env", "A"])
    assert document.value["mcp_servers"] == {
        "a": {"command": "run", "args": ["1", "2"], "env": {"B": "2"}},
        "b": {"command": "x", "env": {"C": "3"}},
    }
    for line in ("# mine", 'model = "x" # y', "[mcp_servers.a] # z", "[other]", "b = 1"):
        assert line in document.text.splitlines()


def test_yaml_keeps_its_comments_quotes_and_layout() -> None:
    document = YamlDocument(YAML, Path("x"))
    document.set(["extensions", "a", "timeout"], 5)
    assert document.value["extensions"]["a"]["timeout"] == 5
    assert document.text.replace("    timeout: 5\n", "") == YAML
    document.set(["extensions", "b", "cmd"], "a\nb\u2028c")
    assert document.value["extensions"]["b"] == {"cmd": "a\nb\u2028c"}
    document.remove(["extensions", "b"])
    document.remove(["extensions", "a", "timeout"])
    assert document.text == YAML


@pytest.mark.parametrize("kind", [JsonDocument, TomlDocument, YamlDocument])
def test_what_is_no_document_is_an_error_with_its_place(kind: Any) -> None:
    for text in ("{[}", "\x00", "a: b: c", "[" * 300):
        with pytest.raises(Misconfigured, match=r"^here"):
            kind(text, Path("here"))


def test_a_yaml_file_that_grows_without_end_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(Misconfigured, match="values"):
        YamlDocument("\n".join(lines), Path("x"))
