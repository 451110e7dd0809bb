"""A host in a process of its own, to be killed, or to run out of space.

python -m tests.attacks.host_process CONFIG STATE loop COUNT
    Calls the tool "go" of the server "evil", COUNT at the same time, until something ends it.
    Everything is allowed. Each line of stdout is the number of a call that is about to be made.

python -m tests.attacks.host_process CONFIG STATE full audit|grants
    Calls it until no file may become larger; says as JSON how each call ended, and how it goes on
    when there is room again.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from itertools import count
from pathlib import Path
from typing import Any

from dragoman.errors import DragomanError
from dragoman.host import ApprovalRequest, Denied, Host, Scope
from dragoman.host.models.scripted import ScriptedModel

# More calls than any test makes, so that the model never runs out of words.
ENOUGH = 10_000

# Bytes left in the audit file: a few records.
LEFT = 6_000


def load(config: str, state: str, **options: Any) -> Host:
    """A host that a person has said yes to in everything; forms are filled in."""

    def answer(request: ApprovalRequest) -> Any:
        if request.action == "elicit.form":
            return request.allow(payload=b'{"name":"Bo"}')
        return options.get(request.action, True)

    model = ScriptedModel(["blue"] * ENOUGH)
    return Host.load(config, approver=answer, state=state, models=[model])


async def loop(config: str, state: str, width: int) -> None:
    """Call until the end."""
    numbers = count(1)
    async with load(config, state) as host:
        await host.ready()

        async def one_after_the_other() -> None:
            for number in numbers:
                print(number, flush=True)
                await host.call_tool("evil", "go", {"number": number})

        await asyncio.gather(*(one_after_the_other() for _ in range(width)))


async def full(config: str, state: str, which: str) -> None:
    """Call with no room left, and with room again."""
    scope = Scope.ALWAYS if which == "grants" else Scope.ONCE
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    said: list[str] = []
    async with load(config, state, **{"tool.call": scope}) as host:
        await host.ready()

        async def call(number: int) -> str:
            try:
                await host.call_tool("evil", "go" if which == "audit" else f"go{number}", {})
            except Denied as denied:
                return str(denied.code)
            except DragomanError as error:
                return type(error).__name__
            return "ok"

        if which == "audit":
            size = (Path(state) / "audit" / "audit.jsonl").stat().st_size + LEFT
        else:
            # Whatever it is written to next, nothing gets longer than it is.
            size = max(path.stat().st_size for path in Path(state).glob("grants*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        said += [await call(number) for number in range(20)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        said += [await call(number) for number in range(20, 23)]
    print(json.dumps(said))


def main() -> None:
    config, state, what, word = sys.argv[1:]
    asyncio.run(loop(config, state, int(word)) if what == "loop" else full(config, state, word))


if __name__ == "__main__":
    main()
