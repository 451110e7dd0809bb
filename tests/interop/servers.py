"""The everything servers, and what each can and cannot do."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from dragoman.model.content import AudioContent, ResourceLink
from interop import peers


@dataclass(frozen=True, slots=True)
class Server:
    """One everything server: its peer, its program, and what it can and cannot do.

    `newest` is the newest revision it shakes hands on, `oldest` the oldest it still accepts. `codes`:
    its error numbers; a name that is missing is answered with a tool result that is an error.
    `pages`: it answers lists page by page. `leaves_out`: the kinds of content that it lacks.
    """

    peer: str
    program: str
    name: str
    newest: str
    codes: dict[str, int]
    messages: bool = True
    cancels: bool = True
    pages: bool = False
    leaves_out: tuple[type, ...] = ()

    def command(self) -> list[str]:
        """What starts it."""
        if self.peer == "dragoman":
            return [sys.executable, str(peers.PROGRAMS / self.program)]
        return peers.program(self.peer, self.program)


NO_CODE = {"prompt": 0, "resource": 0}
TS_1 = {"prompt": -32602, "resource": -32602}
TS_2 = {**TS_1, "tool": -32602}

SERVERS: dict[str, Server] = {
    "mcp-1.6": Server(
        "mcp-1.6",
        "mcp1_server.py",
        "mcp1-everything",
        "2024-11-05",
        NO_CODE,
        messages=False,
        cancels=False,
        leaves_out=(AudioContent, ResourceLink),
    ),
    "mcp-1.9": Server(
        "mcp-1.9",
        "mcp1_server.py",
        "mcp1-everything",
        "2025-03-26",
        NO_CODE,
        messages=False,
        cancels=False,
        leaves_out=(ResourceLink,),
    ),
    "mcp-1.22": Server(
        "mcp-1.22", "mcp1_server.py", "mcp1-everything", "2025-06-18", NO_CODE, False
    ),
    "mcp-1.29": Server(
        "mcp-1.29", "mcp1_server.py", "mcp1-everything", "2025-11-25", NO_CODE, False
    ),
    "mcp-2.3": Server(
        "mcp-2.3",
        "mcp2_server.py",
        "mcp2-everything",
        "2025-11-25",
        {"prompt": 0, "resource": -32602},
    ),
    "fastmcp-4.1": Server(
        "fastmcp-4.1", "fastmcp_server.py", "fastmcp-everything", "2025-11-25", TS_1, pages=True
    ),
    "ts-1": Server("ts-1", "ts1_server.mjs", "ts1-everything", "2025-11-25", TS_1),
    "ts-2": Server("ts-2", "ts2_server.mjs", "ts2-everything", "2025-11-25", TS_2),
    # Ourselves, so that both ends are known to keep every rule at every revision.
    "dragoman": Server(
        "dragoman",
        "dragoman_server.py",
        "dragoman-everything",
        "2025-11-25",
        {"tool": -32602, "prompt": -32602, "resource": -32002},
        pages=True,
    ),
}

# mcp 1.6 is older than Streamable HTTP, and this line of the TypeScript SDK has no server of HTTP+SSE.
NO_STREAMABLE = {"mcp-1.6"}
NO_SSE = {"ts-2"}

# Each server with each HTTP transport that it has: name of the visit, name of the server, transport.
OVER_HTTP = {
    **{f"{name}-over-sse": (name, "sse") for name in SERVERS if name not in NO_SSE},
    **{
        f"{name}-over-streamable": (name, "streamable")
        for name in SERVERS
        if name not in NO_STREAMABLE
    },
}
