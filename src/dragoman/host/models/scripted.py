"""A model that follows a script: for examples, tests, and to see what a model would be given.

A script is a JSON file, or a Python file with `turns`. In JSON:

    {"turns": [
      {"text": "Let me look.", "calls": [{"tool": "weather__forecast", "arguments": {"city": "Oslo"}}]},
      {"expect": "rain", "text": "It says: {last}"}
    ]}

`expect` must occur in what the model was given last; `{last}` in a text is that.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from dragoman.errors import Misconfigured
from dragoman.host.models.base import (
    ANTHROPIC_RULES,
    ModelError,
    ModelEvent,
    ModelRequest,
    ProviderRules,
    Stop,
    Stopped,
    TextDelta,
    ToolUse,
    Trouble,
    Usage,
    estimate_tokens,
)
from dragoman.host.models.words import blocks_of, texts
from dragoman.model.content import ToolResultContent

__all__ = ["Call", "Script", "ScriptedModel", "Turn", "given_last"]

_PIECES = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call in a script. `arguments` as text goes out as it is, even if it is no JSON."""

    tool: str
    arguments: dict[str, Any] | str = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One answer of the model.

    `expect` is a text that must occur in what it was given last. `trouble` makes the turn fail
    after its text.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    expect: str = ""
    stop: Stop | None = None
    trouble: Trouble | None = None


Step: TypeAlias = Turn | str | Callable[[ModelRequest], "Turn | str"]
Script: TypeAlias = Sequence[Step]
"""Turns; a plain text is a turn that says it, a function sees the request and makes the turn."""


class ScriptedModel:
    """Follows its script, one turn for each request; `requests` are those it was given."""

    provider = "scripted"

    def __init__(
        self,
        script: Script,
        *,
        name: str = "script",
        context_tokens: int = 100_000,
        rules: ProviderRules = ANTHROPIC_RULES,
    ) -> None:
        self.name = f"scripted:{name}"
        self.context_tokens = context_tokens
        self.rules = rules
        self.requests: list[ModelRequest] = []
        self._script = list(script)

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> ScriptedModel:
        """Read a script from a file.

        A `.py` file is run: it is a program, and as trusted as any.

        Raises:
            Misconfigured: there is no such file, or it holds no script.
        """
        path = Path(path)
        if path.suffix == ".py":
            import runpy

            if not path.is_file():
                raise Misconfigured(f"there is no script {str(path)!r}")
            script = runpy.run_path(str(path)).get("turns")
            if not isinstance(script, list | tuple):
                raise Misconfigured(f"{path}: a script in Python needs a list called 'turns'")
        else:
            try:
                script = _read(json.loads(path.read_text(encoding="utf-8")))
            except OSError as error:
                raise Misconfigured(f"{path}: {error.strerror or error}") from None
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise Misconfigured(f"{path}: not a script: {error}") from None
        return cls(script, name=path.name, **options)

    def count_tokens(self, text: str) -> int:
        """See `estimate_tokens`."""
        return estimate_tokens(text)

    async def aclose(self) -> None:
        """Nothing is held."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """See `ChatModel.stream`."""
        number = len(self.requests)
        self.requests.append(request)
        if number >= len(self._script):
            raise ModelError(
                Trouble.SCRIPT, f"the script has {len(self._script)} turns", provider="scripted"
            )
        step = self._script[number]
        turn = step(request) if callable(step) else step
        if isinstance(turn, str):
            turn = Turn(text=turn)
        last = given_last(request)
        if turn.expect and turn.expect not in last:
            raise ModelError(
                Trouble.SCRIPT,
                f"turn {number + 1} expects {turn.expect!r} and was given {last[:300]!r}",
                provider="scripted",
            )
        said = turn.text.replace("{last}", last)
        for piece in _PIECES.findall(said):
            yield TextDelta(piece)
        if turn.trouble is not None:
            raise ModelError(turn.trouble, "as the script says", provider="scripted")
        for place, call in enumerate(turn.calls):
            arguments = call.arguments
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            yield ToolUse(call.id or f"call_{number + 1}_{place + 1}", call.tool, text)
        seen = sum(estimate_tokens(texts(blocks_of(one))) for one in request.messages)
        yield Usage(seen, estimate_tokens(said), is_estimate=True)
        yield Stopped(turn.stop or (Stop.TOOLS if turn.calls else Stop.END))


def given_last(request: ModelRequest) -> str:
    """The text that a model was given last: the results of its calls, or the person's words."""
    if not request.messages:
        return ""
    found = []
    for block in blocks_of(request.messages[-1]):
        inner = block.content if isinstance(block, ToolResultContent) else [block]
        found.append(texts(inner))
    return "\n".join(text for text in found if text)


def _read(value: Any) -> list[Step]:
    turns = value["turns"]
    if not isinstance(turns, list):
        raise TypeError("'turns' is no list")
    return [one if isinstance(one, str) else _turn(one) for one in turns]


def _turn(value: dict[str, Any]) -> Turn:
    unknown = value.keys() - {"text", "calls", "expect", "stop", "trouble"}
    if unknown:
        raise ValueError(f"a turn has no member {min(unknown)!r}")
    return Turn(
        text=str(value.get("text", "")),
        calls=tuple(
            Call(
                tool=str(call["tool"]),
                arguments=call.get("arguments", {}),
                id=str(call.get("id", "")),
            )
            for call in value.get("calls", ())
        ),
        expect=str(value.get("expect", "")),
        stop=Stop(value["stop"]) if "stop" in value else None,
        trouble=Trouble(value["trouble"]) if "trouble" in value else None,
    )
