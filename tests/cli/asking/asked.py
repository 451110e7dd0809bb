"""Asks one or several questions at the terminal it runs on, and prints the decisions as JSON.

    asked.py CASE [PLAIN]

A child process of the terminal tests: everything but the questions is real.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from dragoman.cli.approvals import TerminalApprover, surface_for
from dragoman.cli.keyboard import Keyboard
from dragoman.cli.screen import Screen
from dragoman.host.broker import Broker
from dragoman.host.kinds import Action, ApprovalRequest, Decision
from tests.cli.asking.requests import HIDDEN, LONG, SHORT, request, visit

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "size": {"type": "string", "enum": ["small", "large"], "default": "small"},
        "age": {"type": "integer", "title": "Your age, in years"},
    },
    "required": ["name"],
}
FORM = [("message", "Who are you?"), ("form", json.dumps(SCHEMA))]
ANSWER = {
    "role": "assistant",
    "content": {"type": "text", "text": "The code is 1234, and 1234 again."},
    "model": "a/b",
}


def show(decision: Decision) -> None:
    document: dict[str, Any] = {
        "effect": decision.effect.value,
        "scope": decision.scope.value,
        "note": decision.note,
        "channel": decision.channel,
        "digest": decision.view_digest,
        "approval": decision.approval,
    }
    if decision.payload is not None:
        document["payload"] = decision.payload.decode()
    sys.stdout.write("DECISION " + json.dumps(document) + "\n")
    sys.stdout.flush()


async def ask_many(approver: TerminalApprover, word: Path) -> None:
    """Three ask the same; at a word from outside, 17 more do."""
    broker = Broker([approver])
    asked = request(SHORT)
    asked = replace(asked, dedupe_key=asked.view_digest)

    def ask(count: int) -> list[asyncio.Future[Decision]]:
        requests = [replace(asked, id=token_hex(8)) for _ in range(count)]
        return [asyncio.ensure_future(broker.ask(one)) for one in requests]

    asking = ask(3)
    await asyncio.get_running_loop().run_in_executor(None, word.read_text)
    asking += ask(17)
    for decision in await asyncio.gather(*asking):
        show(decision)


async def main(case: str, *, is_plain: bool | None) -> None:
    keyboard = Keyboard()
    approver = TerminalApprover(
        surface_for(Screen(), keyboard, is_plain=is_plain),
        # In one case the real one, which asks the system.
        open_url=None if case == "browser" else lambda url: sys.stdout.write(f"OPENED {url}\n"),
    )
    if case == "many":
        await ask_many(approver, Path(sys.argv[3]))
        return
    requests: list[ApprovalRequest] = {
        "short": lambda: [request(SHORT, editable=("",))],
        "hidden": lambda: [request(HIDDEN)],
        "emoji": lambda: [request({"command": "ls 👍" + "🏽" * 60 + "; rm -rf ~"})],
        "long": lambda: [request(LONG)],
        "two": lambda: [request(SHORT), request(LONG, object="second")],
        "withdrawn": lambda: [request(SHORT)],
        "form": lambda: [
            request({"size": "small"}, action=Action.ELICIT_FORM, facts=FORM, editable=("",))
        ],
        "url": lambda: [
            request(
                {"url": "https://a.test/x"}, action=Action.ELICIT_URL, object="https://a.test/x"
            )
        ],
        "address": lambda: [visit()],
        "browser": lambda: [visit()],
        "release": lambda: [request(ANSWER, action=Action.SAMPLING_RELEASE, editable=("",))],
    }[case]()
    if case == "withdrawn":
        asking = asyncio.ensure_future(approver.decide(requests[0]))
        # The word to withdraw it comes from outside, as from another surface.
        await asyncio.get_running_loop().run_in_executor(None, Path(sys.argv[3]).read_text)
        asking.cancel()
        await asyncio.wait([asking])
        sys.stdout.write(f"WITHDRAWN {asking.cancelled()}\n")
        return
    for decision in await asyncio.gather(*map(approver.decide, requests)):
        show(decision)


if __name__ == "__main__":
    plain = {"plain": True, "full": False}.get(sys.argv[2]) if len(sys.argv) > 2 else None
    asyncio.run(main(sys.argv[1], is_plain=plain))
