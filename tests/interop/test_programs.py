"""The peers' own clients against their own servers: the checks are sound before we are measured by them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from interop import peers
from tests.interop.documents import CHECKS, Document, Pair, run

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("programs")]

NO_CODE = {"unknownPrompt": 0, "missingArgument": 0, "unknownResource": 0}
TS_1 = {"unknownPrompt": -32602, "missingArgument": -32602, "unknownResource": -32602}

PAIRS: dict[str, Pair] = {
    "mcp-1.6": Pair(
        "2024-11-05",
        "mcp1-everything",
        NO_CODE,
        media=("text", "resource"),
        messages=False,
        elicits=False,
        cancels=False,
    ),
    "mcp-1.9": Pair(
        "2025-03-26",
        "mcp1-everything",
        NO_CODE,
        media=("text", "audio", "resource"),
        messages=False,
        elicits=False,
        cancels=False,
    ),
    "mcp-1.22": Pair("2025-06-18", "mcp1-everything", NO_CODE, messages=False),
    "mcp-1.29": Pair("2025-11-25", "mcp1-everything", NO_CODE, messages=False),
    "mcp-2.3": Pair(
        "2025-11-25",
        "mcp2-everything",
        {"unknownPrompt": 0, "missingArgument": 0, "unknownResource": -32602},
    ),
    "fastmcp-4.1": Pair(
        "2025-11-25",
        "fastmcp-everything",
        {"unknownPrompt": -32602, "missingArgument": -32603, "unknownResource": -32602},
    ),
    "ts-1": Pair("2025-11-25", "ts1-everything", TS_1, icons=False),
    "ts-2": Pair("2025-11-25", "ts2-everything", {**TS_1, "unknownTool": -32602}),
}


@functools.cache
def document(name: str) -> Document:
    kind = name.split("-")[0]
    if kind == "ts":
        line = name[-1]
        server = peers.program(name, f"ts{line}_server.mjs")
        return run([*peers.program(name, f"ts{line}_client.mjs"), *server])
    stem = "fastmcp" if kind == "fastmcp" else f"mcp{name[4]}"
    options = [] if PAIRS[name].cancels else ["--skip-cancel"]
    options += ["--mode", "legacy"] if stem != "mcp1" else []
    server = peers.program(name, f"{stem}_server.py")
    return run([*peers.program(name, f"{stem}_client.py"), *options, *server])


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_peer_agrees_with_itself(check: Callable[[Document, Pair], None], name: str) -> None:
    check(document(name), PAIRS[name])
