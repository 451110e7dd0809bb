"""Text of strangers made safe to print.

A terminal obeys what is written to it: it can be told to move, to clear, to answer as if the
person had typed, and to show text in another order than it has. So every character that does
something instead of being seen is written as its escape.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["compact_json", "json_text", "one_line", "printable"]

# The characters of the categories Cc, Cf, Cs, Zl and Zp, and a few that are blank by nature.
# Left alone are the line feed and the tab, the Arabic and Kaithi number signs (Cf, but visible),
# and the two variation selectors that choose between a symbol's text and emoji forms.
_UNSEEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, C0 and C1
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners, fillers
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero width, line ends, direction
    "\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"  # fillers, variation selectors, byte order mark
    "\ud800-\udfff"  # half a character
    "\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # format controls
    "\U000e0000-\U000e0fff"  # tags and variation selectors: text that nobody sees
    "]"
)
_NAMES = {"\r": "\\r", "\x1b": "\\x1b", "\x07": "\\a", "\x08": "\\b"}


def printable(text: str) -> str:
    """The text with every unseen character as `\\x1b`, `\\u202e` and the like; lines stay lines."""
    return _UNSEEN.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str, limit: int | None = None) -> str:
    """As `printable`, on one line: runs of blanks become one. At most `limit` characters."""
    flat = printable(" ".join(text.split()))
    if limit is not None and len(flat) > limit:
        return flat[: limit - 1] + "…"
    return flat


def json_text(value: Any) -> str:
    """Indented JSON of the same value, in which unseen characters are JSON's own escapes."""
    return _UNSEEN.sub(_json_escape, json.dumps(value, indent=2, ensure_ascii=False))


def compact_json(value: Any) -> str:
    """The same on one line, without blanks."""
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return _UNSEEN.sub(_json_escape, written)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    number = ord(character)
    if number <= 0xFF:
        return _NAMES.get(character, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _json_escape(match: re.Match[str]) -> str:
    # JSON has escapes of 16 bits only; a larger character is a pair of them.
    return json.dumps(match.group())[1:-1] if ord(match.group()) != 0x7F else "\\u007f"
