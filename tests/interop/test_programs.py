"""The peers' own clients against their own servers: the checks are sound before we are measured by them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest

from interop import peers
from tests.interop.documents import CHECKS, Document, Pair, grouped, run
from tests.interop.serving import address

pytestmark = pytest.mark.interop

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


# What each peer can serve over HTTP, and its client can reach.
TRANSPORTS = {
    "mcp-1.6": ("sse",),
    # This line of the TypeScript SDK has no server of HTTP+SSE.
    "ts-2": ("streamable",),
}
RUNS = {
    **{name: (name, "stdio") for name in PAIRS},
    **{
        f"{name}-over-{transport}": (name, transport)
        for name in PAIRS
        for transport in TRANSPORTS.get(name, ("sse", "streamable"))
    },
}
# Servers that close the stream of a request before they answer it; the client has to come back.
CUTTERS = {"mcp-1.29", "mcp-2.3", "fastmcp-4.1", "ts-1", "ts-2"}


@functools.cache
def document(name: str) -> Document:
    peer, transport = RUNS[name]
    kind, line = peer.split("-")
    stem = "fastmcp" if kind == "fastmcp" else f"{kind}{line[0]}"
    suffix = "mjs" if kind == "ts" else "py"
    options = [] if PAIRS[peer].cancels else ["--skip-cancel"]
    options += ["--mode", "legacy"] if stem in ("mcp2", "fastmcp") else []
    with address(f"itself-{peer}", peer, f"{stem}_server.{suffix}", transport) as server:
        return run([*peers.program(peer, f"{stem}_client.{suffix}"), *options, *server])


@pytest.mark.parametrize("name", grouped(RUNS))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_peer_agrees_with_itself(check: Callable[[Document, Pair], None], name: str) -> None:
    peer, transport = RUNS[name]
    check(document(name), replace(PAIRS[peer], cuts=transport == "streamable" and peer in CUTTERS))
