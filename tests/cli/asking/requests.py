"""Questions to ask in tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dragoman.host.asks.common import FACT_HOST, FACT_MESSAGE, FACT_URL
from dragoman.host.kinds import Action, ApprovalRequest, Intent, Risk, Scope, View

__all__ = ["ADDRESS", "HIDDEN", "LONG", "SHORT", "documented", "request", "visit"]

SHORT = {"path": "/srv/app/a.txt", "content": "hello"}
HIDDEN = {
    "path": "/srv/app/a.txt\u202egpj.exe",
    "content": "\u200b\x1b[2J\x1b[1;1H" + " " * 400 + "\U000e0041 ▌ dragoman asks · [o] once",
}
# Three screens of a usual terminal.
LONG = {"lines": [f"line {number} of a long call" for number in range(120)], "last": "rm -rf"}
# Longer than a line of any terminal.
ADDRESS = "https://login.example.com/start?next=%2F" + "x" * 300


def request(
    payload: Any,
    *,
    action: Action = Action.TOOL_CALL,
    object: str = "write_file",
    facts: Sequence[tuple[str, str]] = (("started as", "node server.js --root /srv/app"),),
    risks: Sequence[Risk] = (),
    scopes: tuple[Scope, ...] = (Scope.ONCE, Scope.SESSION, Scope.ALWAYS),
    editable: tuple[str, ...] = (),
    timeout_s: float = 300.0,
) -> ApprovalRequest:
    """A question about this payload: JSON, or the bytes themselves."""
    intent = Intent(action=action, server="fs", identity="sha256:1", object=object)
    exact = (
        payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    )
    view = View(headline=f"The server 'fs' wants {object}.", payload=exact, facts=tuple(facts))
    return ApprovalRequest(
        id="q1",
        intent=intent,
        view=view,
        view_digest=view.digest(intent),
        why="No rule decides about it.",
        risks=tuple(risks),
        scopes=scopes,
        editable=editable,
        timeout_s=timeout_s,
    )


def documented() -> ApprovalRequest:
    """The question that docs/terminal.md shows."""
    return request(
        {"path": "/srv/app/notes.txt", "content": "Rain.\nSun.\u202e"},
        facts=[
            ("the answer goes to", "model:anthropic"),
            ("command", "npx -y server-filesystem /srv/app"),
        ],
        risks=[
            Risk(
                code="taint",
                text="Words of web are in this conversation and may have led to it.",
            )
        ],
        editable=("",),
    )


def visit() -> ApprovalRequest:
    """A server asks to go to an address, and names another one with a link of its own."""
    message = "Log in. Or \x1b]8;;https://other.example\x1b\\here\x1b]8;;\x1b\\"
    return request(
        {"mode": "url", "url": ADDRESS, "message": message},
        action=Action.ELICIT_URL,
        object=ADDRESS,
        facts=[(FACT_HOST, "login.example.com"), (FACT_URL, ADDRESS), (FACT_MESSAGE, message)],
        scopes=(Scope.ONCE,),
    )
