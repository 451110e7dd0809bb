"""A log to test with: what is decided in it, and its lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dragoman.host.kinds import Action, Effect, Intent, Step, Verdict

IDENTITY = f"sha256:{'1' * 64}"

INTENT = Intent(
    action=Action.TOOL_CALL,
    server="fs",
    identity=IDENTITY,
    object="read_file",
    arguments={"path": "/srv/app/x"},
    fingerprint=f"sha256:{'2' * 64}",
    taint=frozenset({"web", "mail"}),
)
YES = Verdict(
    effect=Effect.ALLOW,
    step=Step.GRANT,
    rule="tool(fs/read_file)",
    layer="user",
    source="policy.json:3",
)
PAYLOAD = b'{"name":"read_file","arguments":{"path":"/srv/app/x"}}'


def lines(path: Path) -> list[bytes]:
    """The lines of a file, each with its end."""
    return path.read_bytes().splitlines(keepends=True)


def put(path: Path, parts: list[bytes]) -> None:
    """Write these lines in the place of what is there."""
    path.write_bytes(b"".join(parts))


def kinds(records: list[dict[str, Any]]) -> list[str]:
    """What each record is, briefly."""
    return [record.get("event") or record["kind"] for record in records]
