"""Names the protocol has rules for: tools, URIs, and the keys of `_meta`.

Spec: server/tools#tool-names, server/resources#custom-uri-schemes, basic/index#meta
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["check_meta_keys", "check_tool_name", "check_uri"]

# server/tools#tool-names: 1 to 128 of these; case counts
MAX_TOOL_NAME_CHARS = 128
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]+")

# RFC 3986: a scheme, then any of the characters that it reserves or leaves unreserved.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
)

# basic/index#meta: labels that begin with a letter, joined by dots, then a slash; then a name.
_LABEL = r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_META_KEY = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*/)?(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
)

# Names of strangers are shown in errors; this much tells which one is meant.
_SHOWN = 80


def check_tool_name(name: str) -> None:
    """1 to 128 characters: ASCII letters, digits, underscore, hyphen and dot.

    Raises:
        ValueError: the name is another; the text says how.
    """
    if not 1 <= len(name) <= MAX_TOOL_NAME_CHARS:
        raise ValueError(
            f"a tool's name has 1 to {MAX_TOOL_NAME_CHARS} characters, "
            f"{name[:_SHOWN]!r} has {len(name)}"
        )
    if not _TOOL_NAME.fullmatch(name):
        odd = next(character for character in name if not _TOOL_NAME.fullmatch(character))
        raise ValueError(
            f"a tool's name holds ASCII letters, digits and _ - . only, {name!r} holds {odd!r}"
        )


def check_uri(uri: str) -> None:
    """A URI as RFC 3986 has it: a scheme, and no character that must be percent-encoded.

    Raises:
        ValueError: it is none; the text says why.
    """
    if _URI.fullmatch(uri):
        return
    if not _SCHEME.match(uri):
        raise ValueError(f"the URI {uri[:_SHOWN]!r} begins with no scheme, such as 'notes:'")
    fitting = _URI.match(uri)
    odd = uri[fitting.end() if fitting else 0]
    raise ValueError(f"the URI {uri[:_SHOWN]!r} holds {odd!r}, which must be percent-encoded")


def check_meta_keys(keys: Iterable[str]) -> None:
    """Keys of `_meta`: an optional prefix of dotted labels and a slash, then a name.

    Raises:
        ValueError: a key is another; the text names it.
    """
    for key in keys:
        if not key or not _META_KEY.fullmatch(key):
            raise ValueError(
                f"{key[:_SHOWN]!r} is no key for _meta; write a name, or 'com.example/name'"
            )
