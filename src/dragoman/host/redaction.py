"""What is written of texts and values: secrets replaced, shapes in place of contents.

Nothing here reads or writes a file.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec

__all__ = ["MIN_SECRET", "REDACTED", "Redactor", "encoded", "shape_of", "sorted_json"]

# What stands in the place of a secret.
REDACTED = "[secret]"

# 6 characters: a shorter value ("true", "8080", "prod") is in every other text by chance, and to
# replace it there would destroy the log without hiding anything.
MIN_SECRET = 6
# 8 characters of base64 are 6 bytes: fewer would be met by chance.
_MIN_BASE64 = 8

_SURROGATE = re.compile("[\ud800-\udfff]")

_SCHEME = re.compile(r"^(?:bearer|basic|token|apikey)\s+(\S.*)$", re.IGNORECASE | re.DOTALL)

# 64 entries and 8 levels describe what a call was like; a value of 10,000 items does not make a
# log of its own.
MAX_SHAPE_ENTRIES = 64
MAX_SHAPE_DEPTH = 8
# 64 characters of a member's name tell which one it is.
MAX_SHAPE_NAME = 64


class Redactor:
    """The secret values that are known, and how they are taken out of what is written.

    A value is found as it is, percent-encoded, in base64 (also inside of a longer text that was
    encoded), and as JSON writes it inside of a text. Values of fewer than 6 characters are not
    taken as secrets.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._needles: tuple[str, ...] = ()
        self._encoded: tuple[bytes, ...] = ()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Take out these values from now on; of "Bearer x" also the x alone."""
        found = {form for secret in secrets for form in _forms(secret)}
        if not found <= set(self._needles):
            # The longest first: a secret may be a part of another one.
            every = sorted({*self._needles, *found}, key=lambda form: (-len(form), form))
            self._needles = tuple(every)
            self._encoded = tuple(_escaped(form).encode() for form in every)

    def finds(self, body: bytes) -> bool:
        """Whether JSON as `encoded` writes it holds a secret."""
        # A loop: a generator takes twice as long, and this is on the way of every call.
        for needle in self._encoded:  # noqa: SIM110
            if needle in body:
                return True
        return False

    def redact(self, text: str) -> str:
        """The text with `[secret]` in the place of each secret."""
        for needle in self._needles:
            if needle in text:
                text = text.replace(needle, REDACTED)
        return text

    def clean(self, value: Any) -> Any:
        """A JSON value without secrets, in its texts and in the names of its members."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(str(name)): self.clean(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(item) for item in value]
        if value is None or isinstance(value, bool):
            return value
        # A number can be a secret, too, such as an account's.
        text = str(value)
        return value if text == self.redact(text) else REDACTED


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def _forms(secret: str) -> set[str]:
    """The ways in which a secret may stand in a text."""
    plain = {secret, secret.strip()}
    plain |= {match[1].strip() for one in tuple(plain) if (match := _SCHEME.match(one))}
    forms = set()
    for one in plain:
        if len(one) < MIN_SECRET:
            continue
        percent = {quote(one, safe="", errors="replace"), quote_plus(one, errors="replace")}
        lower = {re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), text) for text in percent}
        forms |= {one, _escaped(one), *percent, *lower, *_in_base64(one)}
    return forms


def _in_base64(secret: str) -> Iterable[str]:
    """What base64 makes of it, wherever in a longer text it begins: at a byte of 3, 0 to 2."""
    raw = secret.encode("utf-8", "surrogatepass")
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + raw).decode()
        # Only the characters that depend on nothing but the secret.
        sure = text[(offset * 8 + 5) // 6 : (offset + len(raw)) * 8 // 6]
        if len(sure) >= _MIN_BASE64:
            yield sure
            yield sure.translate(str.maketrans("+/", "-_"))


def encoded(value: Any) -> bytes:
    """JSON on one line, in ASCII: nothing in it can move a terminal's cursor or turn its text."""
    try:
        body = msgspec.json.encode(value)
        if body.isascii() and b"\x7f" not in body:
            return body
    except (UnicodeEncodeError, OverflowError):
        # Half a surrogate pair, which no reader of UTF-8 would take: its name stands for it.
        text = json.dumps(value, ensure_ascii=False)
        body = _SURROGATE.sub(lambda half: f"\\\\u{ord(half[0]):x}", text).encode()
    return json.dumps(json.loads(body), separators=(",", ":")).encode()


def sorted_json(value: Any) -> bytes:
    """The same bytes for equal JSON values, whatever the order of their members.

    For comparing values within one installation; it is not RFC 8785.
    """
    try:
        try:
            return msgspec.json.encode(value, order="sorted")
        except (UnicodeEncodeError, OverflowError, TypeError):
            return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr).encode()
    except (RecursionError, ValueError):
        # Too deep, or a number of thousands of digits.
        return b'"cannot be written"'


def shape_of(value: Any, redact: Callable[[str], str] = str) -> dict[str, str]:
    """What a value is like, without what it says: JSON pointer to type and length.

    A text or an object says how long it is, a list how many items it has; "..." stands for the
    entries beyond the first 64 and for levels below the eighth. `redact` cleans the names that a
    pointer holds in another form than they have: they could not be recognised afterwards.
    """
    shape: dict[str, str] = {}
    _describe("", value, 0, shape, redact)
    return shape


def _describe(
    pointer: str, item: Any, depth: int, shape: dict[str, str], redact: Callable[[str], str]
) -> bool:
    """Add a value and all in it; False when there is no room left. As deep as `MAX_SHAPE_DEPTH`."""
    if len(shape) >= MAX_SHAPE_ENTRIES:
        shape["..."] = "more"
        return False
    kind = type(item)
    if kind is str:
        shape[pointer] = f"string({len(item)})"
        return True
    if kind in _SCALARS:
        shape[pointer] = _SCALARS[kind]
        return True
    if kind is dict or isinstance(item, dict):
        count = len(item)
        shape[pointer] = f"object({count})"
    elif isinstance(item, msgspec.Struct):
        return _describe_record(pointer, item, depth, shape, redact)
    elif isinstance(item, _ARRAYS):
        count = len(item)
        shape[pointer] = f"array({count})"
    else:
        shape[pointer] = _other(item)
        return True
    if not count:
        return True
    if depth >= MAX_SHAPE_DEPTH:
        shape["..."] = "more"
        return True
    if isinstance(item, _ARRAYS):
        for index, part in enumerate(item):
            if not _describe(f"{pointer}/{index}", part, depth + 1, shape, redact):
                return False
        return True
    for name, part in item.items():
        if type(name) is not str or len(name) > MAX_SHAPE_NAME or "/" in name or "~" in name:
            name = _step(name, redact)
        # Texts and numbers once more, since most of what there is are these, in every call.
        kind = type(part)
        if kind is str and len(shape) < MAX_SHAPE_ENTRIES:
            shape[f"{pointer}/{name}"] = f"string({len(part)})"
        elif kind in _SCALARS and len(shape) < MAX_SHAPE_ENTRIES:
            shape[f"{pointer}/{name}"] = _SCALARS[kind]
        elif not _describe(f"{pointer}/{name}", part, depth + 1, shape, redact):
            return False
    return True


def _describe_record(
    pointer: str,
    item: msgspec.Struct,
    depth: int,
    shape: dict[str, str],
    redact: Callable[[str], str],
) -> bool:
    """The same of a record: as it stands on the wire, its names there, what it lacks left out."""
    parts = _parts_of(item)
    count = len(parts) - parts.count(None)
    shape[pointer] = f"object({count})"
    if count and depth >= MAX_SHAPE_DEPTH:
        shape["..."] = "more"
        return True
    for name, part in zip(item.__struct_encode_fields__, parts, strict=True):
        if part is None:
            continue
        kind = type(part)
        if kind is str and len(shape) < MAX_SHAPE_ENTRIES:
            shape[f"{pointer}/{name}"] = f"string({len(part)})"
        elif not _describe(f"{pointer}/{name}", part, depth + 1, shape, redact):
            return False
    return True


_parts_of = msgspec.structs.astuple
_ARRAYS = (list, tuple)


def _step(name: object, redact: Callable[[str], str]) -> str:
    text = str(name)
    if len(text) <= MAX_SHAPE_NAME and "~" not in text and "/" not in text:
        return text
    text = redact(text)
    if len(text) > MAX_SHAPE_NAME:
        text = f"{text[:MAX_SHAPE_NAME]}...({len(text)})"
    return text.replace("~", "~0").replace("/", "~1")


_SCALARS = {type(None): "null", bool: "boolean", int: "integer", float: "number"}


def _other(value: Any) -> str:
    """What is no value of JSON as it is decoded, but may stand for one."""
    return f"string({len(value)})" if isinstance(value, str | bytes) else type(value).__name__
