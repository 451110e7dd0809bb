"""What is in a text and is not seen: found, named, shown, removed.

A terminal obeys what is written to it, a model reads what a person cannot see, and a line may be
shown in another order than it has. So every character that does something instead of being seen is
written as its escape for people, and left out for models.

The host names of URLs are here, too: two that look alike are one to the eye.
"""

from __future__ import annotations

import ipaddress
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "UNSEEN",
    "Unseen",
    "compact_json",
    "json_text",
    "one_line",
    "printable",
    "unseen_in",
    "warn_of_host",
    "without_unseen",
]

# The characters of the categories Cc, Cf, Cs, Zl and Zp, and a few that are blank by nature.
# Left alone are the line feed and the tab, the Arabic and Kaithi number signs (Cf, but visible),
# and the two variation selectors that choose between a symbol's text and emoji forms, where they
# stand behind something that can have two forms: elsewhere a row of them is a row of bits.
_ALWAYS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, C0 and C1
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners, fillers
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero width, line ends, direction
    "\u2800\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"  # fillers, variation selectors, BOM
    "\ud800-\udfff"  # half a character
    "\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # format controls
    "\U000e0000-\U000e0fff"  # tags and variation selectors: text that nobody sees
)
UNSEEN = re.compile(
    f"[{_ALWAYS}]"
    "|(?<![0-9#*\x80-\U0010ffff])[\ufe0e\ufe0f]"
    f"|(?<=[{_ALWAYS}\ufe0e\ufe0f])[\ufe0e\ufe0f]"
)
"""One unseen character."""

_NAMES = {"\r": "\\r", "\x1b": "\\x1b", "\x07": "\\a", "\x08": "\\b"}


# --- shown to people ----------------------------------------------------------------------------


def printable(text: str) -> str:
    """The text with every unseen character as `\\x1b`, `\\u202e` and the like; lines stay lines."""
    return UNSEEN.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str, limit: int | None = None) -> str:
    """As `printable`, on one line: runs of blanks become one. At most `limit` characters."""
    flat = printable(" ".join(text.split()))
    if limit is not None and len(flat) > limit:
        return flat[: limit - 1] + "…"
    return flat


def json_text(value: Any) -> str:
    """Indented JSON of the same value, in which unseen characters are JSON's own escapes."""
    return UNSEEN.sub(_json_escape, json.dumps(value, indent=2, ensure_ascii=False))


def compact_json(value: Any) -> str:
    """The same on one line, without blanks."""
    written = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return UNSEEN.sub(_json_escape, written)


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    number = ord(character)
    if number <= 0xFF:
        return _NAMES.get(character, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _json_escape(match: re.Match[str]) -> str:
    # JSON has escapes of 16 bits only; a larger character is a pair of them.
    return json.dumps(match.group())[1:-1] if ord(match.group()) != 0x7F else "\\u007f"


# --- counted --------------------------------------------------------------------------------------

# 400 characters tell what a hidden text wants; all of it is in `says`.
_MOST_SAID = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Unseen:
    """What one kind of unseen character does in a text: how many, and where the first one is.

    `kind` is "control", "line ends", "bidirectional", "zero width", "blank", "tag characters",
    "variation selectors", "half characters", "format" or "padding". `says` is the text that they
    spell, where they spell one; it is a stranger's.
    """

    kind: str
    count: int
    first: int
    says: str = ""

    def __str__(self) -> str:
        spelled = f' that spell "{one_line(self.says, _MOST_SAID)}"' if self.says else ""
        return f"{self.kind}: {self.count}{spelled}, the first at character {self.first}"


_KINDS = (
    ("control", re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")),
    ("line ends", re.compile("[\x0b-\x0d\x85\u2028\u2029]")),
    ("bidirectional", re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]")),
    ("zero width", re.compile("[\xad\u034f\u180e\u200b-\u200d\u2060-\u2065\ufeff]")),
    ("blank", re.compile("[\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]")),
    ("tag characters", re.compile("[\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]")),
    ("variation selectors", re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")),
    ("half characters", re.compile("[\ud800-\udfff]")),
)


@cache
def _first_of(kind: str) -> re.Pattern[str]:
    """What finds the first one of a kind; the CR of a CR LF is none."""
    # Not made until it is needed: all of them take a tenth of the start of a command.
    if kind == "format":
        others = "|".join(pattern.pattern for _, pattern in _KINDS)
        return re.compile(f"(?!{others})(?:{UNSEEN.pattern})")
    return re.compile(f"(?={dict(_KINDS)[kind].pattern})(?!\r\n)(?:{UNSEEN.pattern})")


# 32 blanks or 8 line ends in a row: more than any indentation or pause needs, and enough to push
# what follows out of a view.
_PADDING = re.compile(
    "[ \t\xa0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000]{32,}|(?:[ \t]*(?:\r\n|\n|\r)){8,}"
)

_LONG_BLANK = " " * 32


def unseen_in(text: str) -> tuple[Unseen, ...]:
    """What is in a text and not seen, a record for each kind; none when all of it is seen.

    Long runs of blanks and line ends count too, as "padding". A line end written as CR LF does not.
    """
    if text.isascii() and text.isprintable() and _LONG_BLANK not in text:
        return ()
    # No step of ours for each of them: a stranger may send millions.
    hidden = UNSEEN.findall(text)
    counts = Counter(hidden)
    counts["\r"] -= text.count("\r\n")
    found: dict[str, dict[str, int]] = {}
    for character, count in counts.items():
        if count > 0:
            found.setdefault(_kind(character), {})[character] = count
    records = []
    for kind, members in found.items():
        first = _first_of(kind).search(text)
        assert first is not None
        is_text = kind in ("tag characters", "variation selectors")
        says = _spelled("".join(filter(members.__contains__, hidden))) if is_text else ""
        count = sum(members.values())
        records.append(Unseen(kind=kind, count=count, first=first.start(), says=says))
    runs = list(_PADDING.finditer(text))
    if runs:
        count = sum(len(run.group()) for run in runs)
        records.append(Unseen(kind="padding", count=count, first=runs[0].start()))
    return tuple(sorted(records, key=lambda record: record.first))


def without_unseen(text: str) -> str:
    """The text as a model gets it: what a person cannot see is not in it. Lines stay lines."""
    if text.isascii() and text.isprintable():
        return text
    plain = re.sub("\r\n|[\r\x0b\x0c\x85\u2028\u2029]", "\n", text)
    return UNSEEN.sub("", plain)


def _kind(character: str) -> str:
    return next((kind for kind, pattern in _KINDS if pattern.match(character)), "format")


def _spelled(characters: str) -> str:
    """The text behind tags (ASCII, moved) or behind variation selectors (bytes, moved)."""
    tags = "".join(chr(ord(one) - 0xE0000) for one in characters if 0xE0020 <= ord(one) <= 0xE007E)
    if tags:
        return tags
    octets = bytes(_octets(characters))
    try:
        said = octets.decode()
    except UnicodeDecodeError:
        return ""
    return said if said.isprintable() else ""


def _octets(characters: str) -> Iterator[int]:
    for one in characters:
        if 0xFE00 <= ord(one) <= 0xFE0F:
            yield ord(one) - 0xFE00
        elif 0xE0100 <= ord(one) <= 0xE01EF:
            yield ord(one) - 0xE0100 + 16


# --- host names -----------------------------------------------------------------------------------

# Writing systems that one word may mix: Japanese, Korean and Chinese are written so.
_MIXES = (
    {"LATIN", "CJK", "HIRAGANA", "KATAKANA"},
    {"LATIN", "CJK", "HANGUL"},
    {"LATIN", "CJK", "BOPOMOFO"},
)

# Letters of other scripts that most fonts draw like a Latin one.
_LOOK_ALIKES = str.maketrans(
    {
        # Cyrillic
        "\u0430": "a", "\u0431": "b", "\u0441": "c", "\u0501": "d", "\u0435": "e", "\u04bb": "h",
        "\u0456": "i", "\u0458": "j", "\u04cf": "l", "\u043a": "k", "\u043c": "m", "\u043e": "o",
        "\u051b": "q", "\u0440": "p", "\u0455": "s", "\u0442": "t", "\u0443": "y", "\u0475": "v",
        "\u051d": "w", "\u0445": "x",
        # Greek
        "\u03b1": "a", "\u03b5": "e", "\u03b9": "i", "\u03ba": "k", "\u03bd": "v", "\u03bf": "o",
        "\u03c1": "p", "\u03c4": "t", "\u03c5": "u", "\u03c7": "x", "\u03c9": "w",
        # Armenian
        "\u0585": "o", "\u0581": "g", "\u0570": "h", "\u0578": "n", "\u057d": "u",
        # Latin beyond ASCII
        "\u028f": "y", "\u0251": "a", "\u0261": "g", "\u0131": "i",
        "\u2113": "l",
    }
)  # fmt: skip
_DEFAULT_PORTS = {"http": 80, "https": 443}
# 4 labels: www.something.co.uk; beyond that the beginning of a name may pose as its end.
_MANY_LABELS = 4


def warn_of_host(url: str) -> tuple[str, ...]:
    """What a person should know of where a URL leads, a sentence each; none when nothing is odd.

    Nothing is looked up or fetched.
    """
    warnings: list[str] = []
    if UNSEEN.search(url) or any(one.isspace() for one in url):
        warnings.append("the address holds characters that are not seen, or blanks")
    if "\\" in url:
        warnings.append("the address holds a backslash, which some programs read as a slash")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return (*warnings, "the address has a host or a port that cannot be")
    scheme = parts.scheme
    if scheme not in _DEFAULT_PORTS:
        warnings.append(f'the address is no web address, its scheme is "{one_line(scheme, 40)}"')
    elif scheme == "http":
        warnings.append("the connection is not encrypted: others can read and change it")
    if "@" in parts.netloc:
        before = one_line(parts.netloc.rpartition("@")[0].partition(":")[0], 60)
        warnings.append(f'"{before}" before the @ is the name of a user, not where this leads')
    if port is not None and port != _DEFAULT_PORTS.get(scheme):
        warnings.append(f"the port {port} is not the usual one")
    if not host:
        return (*warnings, "the address names no host")
    if "%" in host:
        warnings.append("the host's name is written with percent signs")
    if host.endswith("."):
        warnings.append("the host's name ends with a dot")
    literal = _literal(host)
    if literal is not None:
        return (*warnings, *_warn_of_literal(host, literal))
    return (*warnings, *_warn_of_name(host.rstrip(".")))


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, in any of the forms that programs accept."""
    plain = host.rstrip(".").partition("%")[0]
    try:
        return ipaddress.ip_address(plain)
    except ValueError:
        pass
    # As inet_aton reads it: one to four numbers, octal or hexadecimal too; the last fills the rest.
    pieces = plain.split(".")
    if len(pieces) > 4:
        return None
    numbers = []
    for piece in pieces:
        if not re.fullmatch(r"0x[0-9a-f]*|[0-9]{1,11}", piece):
            return None
        try:
            base = 16 if piece.startswith("0x") else 8 if piece.startswith("0") else 10
            numbers.append(int(piece.removeprefix("0x") or "0", base))
        except ValueError:
            return None
    *leading, last = numbers
    if any(one > 255 for one in leading) or last >= 256 ** (4 - len(leading)):
        return None
    whole = last
    for place, one in enumerate(leading):
        whole += one << (8 * (3 - place))
    return ipaddress.IPv4Address(whole)


def _warn_of_literal(
    host: str, literal: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> Iterator[str]:
    shown = one_line(host, 60)
    same = "" if str(literal) == host else f", which is {literal}"
    inner = getattr(literal, "ipv4_mapped", None) or literal
    if inner.is_loopback:
        yield f"{shown}{same} is this machine"
    elif inner.is_link_local:
        yield f"{shown}{same} is on the local link, where clouds keep the credentials of a machine"
    elif inner.is_private or inner.is_unspecified:
        yield f"{shown}{same} is on a private network"
    else:
        yield f"the host is a number, {shown}{same}, not a name"


def _warn_of_name(host: str) -> Iterator[str]:
    labels = [_decoded(label) for label in host.split(".")]
    if host == "localhost" or host.endswith(".localhost"):
        yield "the host is this machine"
    elif len(labels) == 1 or labels[-1] in ("internal", "local", "lan", "home", "corp", "intranet"):
        yield f'"{one_line(host, 60)}" is a name on the local network'
    elif re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        yield f'"{one_line(host, 60)}" is neither a name nor an address'
    if len(labels) > _MANY_LABELS:
        end = ".".join(labels[-3:])
        yield f'only the end of a name says whose it is: "{one_line(end, 80)}"'
    for label, raw in zip(labels, host.split("."), strict=True):
        if raw.startswith("xn--"):
            written = "that cannot be read" if label == raw else f'for "{one_line(label, 80)}"'
            yield f'"{one_line(raw, 80)}" is a coded name {written}'
        if label.isascii():
            continue
        if label == raw:
            coded = one_line(_coded(label), 80)
            yield f'"{one_line(label, 80)}" is not plain letters; its coded name is "{coded}"'
        scripts = {script for one in label if (script := _script(one))}
        if len(scripts) > 1 and not any(scripts <= mix for mix in _MIXES):
            mixed = ", ".join(sorted(script.capitalize() for script in scripts))
            yield f'"{one_line(label, 80)}" mixes the letters of several scripts: {mixed}'
        alike = _look_alike(label)
        if alike != label and re.fullmatch("[a-z0-9-]+", alike):
            yield f'"{one_line(label, 80)}" looks like "{alike}", and is another name'


def _decoded(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return label


def _coded(label: str) -> str:
    return f"xn--{label.lower().encode('punycode', 'replace').decode('ascii')}"


def _script(character: str) -> str:
    """The writing system of a letter, by the first word of its name; "" for anything else."""
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "").partition(" ")[0].partition("-")[0]


def _look_alike(label: str) -> str:
    """The name in the Latin letters that it looks like; accents and the like are taken off."""
    plain = unicodedata.normalize("NFKD", label.lower())
    bare = "".join(one for one in plain if not unicodedata.combining(one))
    return bare.translate(_LOOK_ALIKES)
