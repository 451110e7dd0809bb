"""What a person may write in a message beside words: `@server:uri` and `/server:prompt name=value`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dragoman.errors import Misconfigured

__all__ = [
    "MAX_MENTIONS",
    "PromptCall",
    "ResourceMention",
    "begun",
    "bracketed",
    "prompt_in",
    "quoted",
    "resources_in",
]

# An opening bracket or a quotation mark may stand before it; a letter makes it an address.
_RESOURCE = re.compile(r"(?<![^\s(\[{\"'«„“])@([A-Za-z0-9_.-]+):(?:<([^>\n]+)>|(\S+))")
_PROMPT = re.compile(r"/([A-Za-z0-9_.-]+):(?:<([^>\n]+)>|(\S+))(?:\s+(.*))?\Z", re.DOTALL)
_WORD = re.compile(
    r"""(?>(?:(?P<name>[A-Za-z0-9_.-]+)=)?)"""
    r"""(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)'|(?P<plain>(?!["'])\S*))(?:\s+|\Z)""",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\([\"\\])")

# Marks that end a sentence and no URI that anybody would mention in one.
_MARKS = ".,;:!?]}'\"»”"

# 16 resources in one message.
MAX_MENTIONS = 16


@dataclass(frozen=True, slots=True)
class ResourceMention:
    """A resource that is to come along."""

    server: str
    uri: str


@dataclass(frozen=True, slots=True)
class PromptCall:
    """A prompt to start from: values by name, and those that were given by their place alone."""

    server: str
    name: str
    named: dict[str, str]
    placed: tuple[str, ...]


def resources_in(text: str) -> list[ResourceMention]:
    """The resources that a text mentions, each once.

    `@server:<uri>` allows for blanks; otherwise the URI ends at a blank, and marks at its end belong
    to the sentence. An address such as "me@host:1" is none: no letter may stand before the @.
    """
    found: dict[ResourceMention, None] = {}
    for match in _RESOURCE.finditer(text):
        uri = match.group(2) or _without_marks(match.group(3))
        if uri:
            found[ResourceMention(match.group(1), uri)] = None
    return list(found)


def _without_marks(uri: str) -> str:
    """A URI without the end of the sentence; a bracket that was opened in it is its own."""
    while uri:
        shorter = uri.rstrip(_MARKS)
        if shorter.endswith(")") and shorter.count("(") < shorter.count(")"):
            shorter = shorter[:-1]
        if shorter == uri:
            break
        uri = shorter
    return uri


def prompt_in(text: str) -> PromptCall | None:
    """The prompt that a text is: `/server:prompt value name="two words"`; None for other texts.

    A name with blanks stands in brackets: `/server:<code review>`. Quotation marks count where a
    value begins; between double ones `\\"` and `\\\\` are escapes, anywhere else a backslash is one.

    Raises:
        Misconfigured: a quotation mark is not closed.
    """
    match = _PROMPT.match(text.strip())
    if match is None:
        return None
    named: dict[str, str] = {}
    placed: list[str] = []
    rest, at = match.group(4) or "", 0
    while at < len(rest):
        word = _WORD.match(rest, at)
        if word is None:
            begun = " ".join(rest[at:].split())[:40]
            raise Misconfigured(
                f"the arguments cannot be read from {begun!r} on: a quotation mark is not closed, or "
                'does not end a word; write name="a value"'
            )
        at = word.end()
        if word["name"] is None:
            placed.append(_value(word))
        else:
            named[word["name"]] = _value(word)
    return PromptCall(match.group(1), match.group(2) or match.group(3), named, tuple(placed))


def quoted(value: str) -> str:
    """A value as `prompt_in` reads it: between quotation marks where it needs them."""
    if value and not re.search(r"\s", value) and value[0] not in "\"'":
        return value
    return '"' + re.sub(r'([\\"])', r"\\\1", value) + '"'


def bracketed(name: str) -> str:
    """A prompt's name, or a URI, as it is read here: in brackets where it holds blanks."""
    return f"<{name}>" if re.search(r"\s", name) else name


def begun(text: str) -> tuple[dict[str, str], str]:
    """Of arguments that are being typed the values that are named and done, and the last word."""
    named: dict[str, str] = {}
    at = 0
    while (word := _WORD.match(text, at)) and word.group()[-1:].isspace():
        at = word.end()
        if word["name"] is not None:
            named[word["name"]] = _value(word)
    return named, text[at:]


def _value(word: re.Match[str]) -> str:
    double, single = word["double"], word["single"]
    if double is not None:
        return _ESCAPED.sub(r"\1", double)
    return str(word["plain"] if single is None else single)
