"""What a person may write in a message beside words: `@server:uri` and `/server:prompt name=value`."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from dragoman.errors import Misconfigured

__all__ = ["PromptCall", "ResourceMention", "prompt_in", "resources_in"]

_RESOURCE = re.compile(r"(?<!\S)@([A-Za-z0-9_.-]+):(?:<([^>\n]+)>|(\S+))")
_PROMPT = re.compile(r"/([A-Za-z0-9_.-]+):(\S+)(?:\s+(.*))?\Z", re.DOTALL)
_NAMED = re.compile(r"([A-Za-z0-9_.-]+)=(.*)", re.DOTALL)

# Marks that end a sentence and no URI that anybody would mention in one.
_MARKS = ".,;:!?)'\"»”"

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
    """The resources that a text mentions, each once, `MAX_MENTIONS` at most.

    `@server:<uri>` allows for blanks; otherwise the URI ends at a blank, and marks at its end belong
    to the sentence. An address such as "me@host:1" is none: nothing may stand before the @.
    """
    found: dict[ResourceMention, None] = {}
    for match in _RESOURCE.finditer(text):
        uri = match.group(2) or match.group(3).rstrip(_MARKS)
        if uri:
            found[ResourceMention(match.group(1), uri)] = None
    return list(found)[:MAX_MENTIONS]


def prompt_in(text: str) -> PromptCall | None:
    """The prompt that a text is: `/server:prompt value name="two words"`; None for other texts.

    Raises:
        Misconfigured: a quotation mark is not closed.
    """
    match = _PROMPT.match(text.strip())
    if match is None:
        return None
    try:
        words = shlex.split(match.group(3) or "")
    except ValueError as error:
        raise Misconfigured(f"the arguments cannot be read: {error}".lower()) from None
    named: dict[str, str] = {}
    placed: list[str] = []
    for word in words:
        if pair := _NAMED.fullmatch(word):
            named[pair.group(1)] = pair.group(2)
        else:
            placed.append(word)
    return PromptCall(match.group(1), match.group(2), named, tuple(placed))
