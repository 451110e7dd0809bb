"""One way to write a JSON value: the bytes that are hashed, shown and compared.

RFC 8785 (JCS), but for one point: a whole number beyond 2**53 keeps all of its digits, where JCS
rounds it to a double first. Two definitions that differ only there would have the same digest, and
a change nobody sees is what digests are here to rule out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from json.encoder import encode_basestring as _quoted
from typing import Any

__all__ = ["canonical", "digest", "digest_of_bytes", "read_json"]

# 256 levels: twice what the codec lets through, well within the interpreter's own limit.
MAX_DEPTH = 256


def canonical(value: Any) -> bytes:
    """The value as JSON text: members sorted, no blanks, numbers in their shortest form, UTF-8.

    Objects are mappings, arrays lists or tuples. 5 and 5.0 are the same number.

    Raises:
        ValueError: JSON cannot hold it (NaN, half a character, a name that is no text, another
            type), or it is nested deeper than `MAX_DEPTH`.
    """
    parts: list[str] = []
    _write(value, parts, 0)
    try:
        return "".join(parts).encode()
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate) cannot be written as JSON") from None


def digest(value: Any) -> str:
    """SHA-256 of the canonical text, as "sha256:" and 64 digits. Raises ValueError as that."""
    return digest_of_bytes(canonical(value))


def digest_of_bytes(text: bytes) -> str:
    """The same of bytes that are canonical already."""
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def read_json(text: bytes | str) -> Any:
    """Read JSON text strictly: what could be read in two ways is refused.

    Raises:
        ValueError: no JSON, a member that stands twice in one object, NaN or Infinity, a number
            that no double can hold, half a character, or nesting beyond `MAX_DEPTH`.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"JSON nested deeper than {MAX_DEPTH} levels") from None
    # What canonical refuses is refused here: whatever comes out can be written again.
    canonical(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the member {name[:80]!r} stands twice in one object")
            seen.add(name)
    return found


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _write(value: Any, parts: list[str], depth: int) -> None:
    if isinstance(value, str):
        parts.append(_quoted(value))
    elif value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, int):
        parts.append(int.__repr__(value))
    elif isinstance(value, float):
        parts.append(_number(value))
    elif depth >= MAX_DEPTH:
        raise ValueError(f"a value nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101  (quicker so)
        _write_object(value, parts, depth)
    elif isinstance(value, list | tuple):
        mark = "["
        for item in value:
            parts.append(mark)
            _write(item, parts, depth + 1)
            mark = ","
        parts.append("]" if value else "[]")
    else:
        raise ValueError(f"JSON holds no {type(value).__name__}")


def _write_object(value: Mapping[Any, Any], parts: list[str], depth: int) -> None:
    names = list(value)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"a member's name is a text, not {type(name).__name__}")
    if all(map(str.isascii, names)):
        names.sort()
    else:
        # By UTF-16 code units: a character beyond 0xFFFF comes before those from 0xE000 on.
        names.sort(key=_utf16)
    mark = "{"
    for name in names:
        parts.append(mark)
        parts.append(_quoted(name))
        parts.append(":")
        _write(value[name], parts, depth + 1)
        mark = ","
    parts.append("}" if names else "{}")


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> str:
    """As ECMAScript writes a number: the fewest digits that lead back to the same double."""
    if not math.isfinite(value):
        raise ValueError("NaN and the infinities are no JSON numbers")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # Python finds the same digits; only the layout differs.
    mantissa, _, exponent = float.__repr__(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    # The value is 0.DIGITS times ten to the power of `point`.
    point = len(whole) + int(exponent or 0)
    digits = (whole + fraction).rstrip("0")
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped
    if 0 < point <= 21:
        if len(digits) <= point:
            return sign + digits.ljust(point, "0")
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    power = point - 1
    return f"{sign}{digits[0]}{rest}e{'+' if power > 0 else '-'}{abs(power)}"
