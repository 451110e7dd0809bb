"""One answer of a model as it arrives: text and calls put together, within bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dragoman.host.models.base import (
    ModelError,
    ModelEvent,
    Stop,
    Stopped,
    TextDelta,
    ToolUse,
    Trouble,
    Usage,
    estimate_tokens,
)
from dragoman.host.models.words import Halves, whole_characters

__all__ = ["Answer", "Call", "count_of"]

# 4,194,304 characters of text: a million tokens, more than any model writes in one answer.
MAX_TEXT_CHARS = 4 * 1024 * 1024
# 1,048,576 characters of arguments, all calls together: more than fits into a model's answer.
MAX_ARGUMENT_CHARS = 1024 * 1024
# 256 calls in one answer: more is a model that has lost its way.
MAX_CALLS = 256
# 1,024 characters for the name of a tool, and for an id: providers write fewer than 100.
MAX_NAME_CHARS = 1024
# A billion tokens: what claims to be more is no count.
MAX_COUNT = 1_000_000_000

# What a call says whose arguments were cut before their first character.
CUT_OFF = "(cut off: the answer reached its limit of tokens)"

_MARK = re.compile(r'["\\{}\[\]]')


class Call:
    """A call as it arrives. `is_whole`: its arguments are at the end of an object."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.is_whole = False
        self.given = ""
        self._pieces: list[str] = []
        self._depth = 0
        self._is_text = False
        self._is_escaped = False

    @property
    def arguments(self) -> str:
        """What there is of them: the pieces, else what was given where it began."""
        return "".join(self._pieces) or self.given

    def take(self, piece: str) -> None:
        """More of the arguments; brackets are counted, so each character is looked at once."""
        self._pieces.append(piece)
        at = 0
        if self._is_escaped and piece:
            at, self._is_escaped = 1, False
        while mark := _MARK.search(piece, at):
            at = mark.end()
            if mark[0] == "\\":
                self._is_escaped = at == len(piece)
                at += 1
            elif mark[0] == '"':
                self._is_text = not self._is_text
            elif not self._is_text:
                self._depth += 1 if mark[0] in "{[" else -1
                self.is_whole = self._depth == 0


class Answer:
    """Text and calls of one answer.

    Raises ModelError out of whatever takes more than the bounds allow. After `end`, `wanted` are
    the calls that go out under an id of the provider's own.
    """

    def __init__(self, provider: str) -> None:
        self.calls: list[Call] = []
        self.wanted: dict[str, Call] = {}
        self._provider = provider
        self._halves = Halves()
        self._said: list[str] = []
        self._said_chars = 0
        self._argument_chars = 0

    def garbage(self, what: str) -> ModelError:
        """The error for what no provider says."""
        return ModelError(Trouble.GARBAGE, what, provider=self._provider)

    def say(self, text: Any) -> str:
        """Take a piece of text; what can be shown of it."""
        if not isinstance(text, str) or not text:
            return ""
        self.count_text(len(text))
        self._said.append(text)
        return self._halves.take(text)

    def count_text(self, chars: int) -> None:
        """Make room for text, also for what is not shown."""
        self._said_chars += chars
        if self._said_chars > MAX_TEXT_CHARS:
            raise self._too_large(f"the answer has more than {MAX_TEXT_CHARS} characters")

    def begin(self) -> Call:
        """A new call."""
        if len(self.calls) >= MAX_CALLS:
            raise self._too_large(f"more than {MAX_CALLS} calls in one answer")
        call = Call()
        self.calls.append(call)
        return call

    def call_it(self, call: Call, *, id: Any = None, name: Any = None) -> None:
        """Give a call its id, and its name or the next piece of it."""
        if isinstance(id, str | int) and not isinstance(id, bool) and id != "" and not call.id:
            call.id = whole_characters(str(id))
        if isinstance(name, str) and name and call.name != name:
            # Some send the whole name with each piece, some the name in pieces.
            call.name = whole_characters(call.name + name)
        if len(call.name) > MAX_NAME_CHARS or len(call.id) > MAX_NAME_CHARS:
            raise self._too_large(f"a name or id of more than {MAX_NAME_CHARS} characters")

    def give(self, call: Call, arguments: str) -> None:
        """Arguments that came with the beginning of a call; pieces that follow count more."""
        self._count_arguments(arguments)
        call.given = arguments

    def add(self, call: Call, arguments: str) -> None:
        """More arguments for a call."""
        self._count_arguments(arguments)
        if arguments:
            call.take(arguments)

    def end(
        self, reason: Stop, detail: str, usage: Usage | None, asked: str
    ) -> Iterator[ModelEvent]:
        """The last events: what is left of the text, the calls, the cost, and why it ended.

        What a filter stopped has no calls: none of it is meant any more. A call whose arguments
        were cut stays one, with arguments that cannot be read, so that the model hears of it.
        """
        if rest := self._halves.rest():
            yield TextDelta(rest)
        uses = [] if reason is Stop.FILTERED else self._uses(is_cut=reason is Stop.LENGTH)
        if uses and reason is Stop.END:
            # Some servers say "stop" whatever happened.
            reason = Stop.TOOLS
        elif reason is Stop.TOOLS and not uses:
            if not self._said:
                raise self.garbage("the model wants a tool, and no call of one came")
            reason = Stop.OTHER
        yield from uses
        yield usage or Usage(
            estimate_tokens(asked),
            estimate_tokens("".join(self._said) + "".join(use.arguments for use in uses)),
            is_estimate=True,
        )
        yield Stopped(reason, detail)

    def _uses(self, *, is_cut: bool) -> list[ToolUse]:
        found: dict[str, ToolUse] = {}
        for number, call in enumerate(self.calls):
            key, again = call.id or f"call_{number}", 1
            while key in found:
                again += 1
                key = f"{call.id or f'call_{number}'}_{again}"
            arguments = whole_characters(call.arguments)
            if is_cut and call is self.calls[-1] and not arguments.strip():
                # No arguments would be read as an empty object.
                arguments = CUT_OFF
            found[key] = ToolUse(key, call.name, arguments)
            if key == call.id:
                self.wanted[key] = call
        return list(found.values())

    def _count_arguments(self, arguments: str) -> None:
        self._argument_chars += len(arguments)
        if self._argument_chars > MAX_ARGUMENT_CHARS:
            raise self._too_large(
                f"calls with more than {MAX_ARGUMENT_CHARS} characters of arguments"
            )

    def _too_large(self, what: str) -> ModelError:
        return ModelError(Trouble.TOO_LARGE, what, provider=self._provider)


def count_of(value: Any) -> int | None:
    """A number of tokens; None when it is none."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT
    return value if is_count else None
