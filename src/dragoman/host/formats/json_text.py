"""Changing one member of a JSON text and leaving every other character as it is.

Comments, a comma before a closing bracket, the order of members and how the text is laid out
belong to the person who wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dragoman.host.located import locate

__all__ = ["remove_member", "set_member"]

_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLAIN = re.compile(r"[^\s,\]}/]+")
_REST_OF_LINE = re.compile(r"[ \t]*(?://[^\r\n]*|/\*[^\r\n]*?\*/[ \t]*)?(?:\r\n|\n|\r|$)")
_INDENT = re.compile(r"[ \t]*")


@dataclass(slots=True)
class _Node:
    """One value: where it begins and ends, and for an object its members in order."""

    start: int
    end: int = 0
    members: dict[str, _Member] | None = None


@dataclass(slots=True)
class _Member:
    key_start: int
    node: _Node = field(repr=False)


def set_member(text: str, way: Sequence[str], value: Any) -> str:
    """The text with the member at `way` having `value`; objects on the way there are made.

    Raises:
        Misconfigured: the text is no JSON (with comments).
        ValueError: something on the way is no object.
    """
    text = text if text.strip() else "{}\n"
    root = _parsed(text)
    node, rest = root, list(way)
    while rest and node.members is not None and rest[0] in node.members:
        node = node.members[rest.pop(0)].node
    if not rest:
        indent = _indent_of(text, node.start)
        new = _written(value, indent, _unit(text), is_flat=False)
        return text[: node.start] + new + text[node.end :]
    if node.members is None:
        raise ValueError(f"{rest[0]!r} cannot be put into what is no object")
    for name in reversed(rest[1:]):
        value = {name: value}
    return _inserted(text, node, rest[0], value)


def remove_member(text: str, way: Sequence[str]) -> str:
    """The text without that member, and as it is when there is none.

    Raises:
        Misconfigured: the text is no JSON (with comments).
    """
    if not text.strip():
        return text
    node = _parsed(text)
    for name in way[:-1]:
        if node.members is None or name not in node.members:
            return text
        node = node.members[name].node
    if node.members is None or way[-1] not in node.members:
        return text
    member = node.members[way[-1]]
    start, end = member.key_start, member.node.end
    after = _skip(text, end)
    if text[after : after + 1] == ",":
        end = after + 1
    else:
        # It is the last: the comma before it goes, with nothing else between.
        names = list(node.members)
        place = names.index(way[-1])
        if place:
            before = node.members[names[place - 1]].node.end
            comma = _skip(text, before)
            text = text[:comma] + text[comma + 1 :]
            start, end = start - 1, end - 1
    line_start = text.rfind("\n", 0, start) + 1
    rest = _REST_OF_LINE.match(text, end)
    if text[line_start:start].strip() == "" and line_start and rest is not None:
        return text[:line_start] + text[rest.end() :]
    front, behind = text[:start], text[end:]
    if rest or behind.lstrip(" \t").startswith("}"):
        return front.rstrip(" \t") + behind.lstrip(" \t")
    return front + behind.lstrip(" ")


def _inserted(text: str, node: _Node, name: str, value: Any) -> str:
    close = node.end - 1
    key = json.dumps(name, ensure_ascii=False)
    unit = _unit(text)
    if not node.members:
        outer = _indent_of(text, node.start)
        new = _written(value, outer + unit, unit, is_flat=False)
        inside = text[node.start + 1 : close]
        kept = inside.rstrip() if inside.strip() else ""
        return f"{text[: node.start + 1]}{kept}\n{outer}{unit}{key}: {new}\n{outer}{text[close:]}"
    last = list(node.members.values())[-1].node
    first = next(iter(node.members.values()))
    comma = _skip(text, last.end)
    has_comma = text[comma : comma + 1] == ","
    if "\n" not in text[node.start : close]:
        new = f"{key}: {_written(value, '', unit, is_flat=True)}"
        at = comma + 1 if has_comma else last.end
        return f"{text[:at]}{'' if has_comma else ','} {new}{text[at:]}"
    line_start = text.rfind("\n", 0, first.key_start) + 1
    indent = text[line_start : first.key_start]
    if indent.strip():
        indent = _indent_of(text, node.start) + unit
    new = _written(value, indent, unit, is_flat=False)
    # After everything that stands there, comments too, and before the bracket.
    tail = text[last.end : close]
    kept = tail.rstrip()
    lead = "" if has_comma else ","
    # As before: who writes a comma after the last member gets one.
    trail = "," if has_comma else ""
    outer = tail[len(kept) :] or f"\n{_indent_of(text, node.start)}"
    if "\n" not in outer:
        outer = f"\n{_indent_of(text, node.start)}"
    return f"{text[: last.end]}{lead}{kept}\n{indent}{key}: {new}{trail}{outer}{text[close:]}"


def _written(value: Any, indent: str, unit: str, *, is_flat: bool) -> str:
    if is_flat:
        return json.dumps(value, ensure_ascii=False)
    lines = json.dumps(value, ensure_ascii=False, indent=unit).split("\n")
    return f"\n{indent}".join(lines)


def _unit(text: str) -> str:
    """How the text indents: what its first indented line begins with."""
    for line in text.splitlines():
        blank = _INDENT.match(line)
        if blank and blank[0] and line.strip() and not line.lstrip().startswith(("/", "*")):
            return blank[0] if blank[0][0] == "\t" else blank[0][:8]
    return "  "


def _indent_of(text: str, at: int) -> str:
    """What the line of a place begins with."""
    line_start = text.rfind("\n", 0, at) + 1
    blank = _INDENT.match(text, line_start)
    return blank[0] if blank else ""


def _parsed(text: str) -> _Node:
    # It is known to be sound from here on, so that the spans can be read without checks.
    locate(text, Path("text"))
    node, _ = _value(text, _skip(text, 1 if text.startswith("\ufeff") else 0))
    return node


def _value(text: str, at: int) -> tuple[_Node, int]:
    node = _Node(at)
    char = text[at]
    if char == "{":
        node.members = {}
        at = _skip(text, at + 1)
        while text[at] != "}":
            key_start = at
            key_end = _string_end(text, at)
            name = json.loads(text[key_start:key_end])
            at = _skip(text, _skip(text, key_end) + 1)
            child, at = _value(text, at)
            node.members[name] = _Member(key_start, child)
            at = _skip(text, at)
            if text[at] == ",":
                at = _skip(text, at + 1)
        at += 1
    elif char == "[":
        at = _skip(text, at + 1)
        while text[at] != "]":
            _, at = _value(text, at)
            at = _skip(text, at)
            if text[at] == ",":
                at = _skip(text, at + 1)
        at += 1
    elif char == '"':
        at = _string_end(text, at)
    else:
        match = _PLAIN.match(text, at)
        assert match is not None
        at = match.end()
    node.end = at
    return node, at


def _string_end(text: str, at: int) -> int:
    match = _STRING.match(text, at)
    assert match is not None
    return match.end()


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()
