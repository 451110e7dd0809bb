"""The client of ``mcp`` 2.x. Arguments: stdio|memory|memory-2026|http CALLS WINDOW [SERVER…|URL].

``memory`` shakes hands, as stdio does; ``memory-2026`` is the library's default inside a process.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from common import drive, report
from mcp import Client, StdioServerParameters


def target(how: str) -> tuple[Any, str]:
    """What to connect to, and the library's name for the opening."""
    if how == "stdio":
        return StdioServerParameters(command=sys.argv[4], args=sys.argv[5:]), "legacy"
    if how == "http":
        return sys.argv[4], "legacy"
    from mcp.server import MCPServer

    server = MCPServer("bench")

    @server.tool()
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return server, "legacy" if how == "memory" else "auto"


async def main() -> None:
    """Connect and run the calls."""
    server, mode = target(sys.argv[1])
    async with Client(server, mode=mode) as client:

        async def call(a: int) -> int:
            result = await client.call_tool("add", {"a": a, "b": 1})
            value: int = result.structured_content["result"]
            return value

        report(await drive(call, int(sys.argv[2]), int(sys.argv[3])))


asyncio.run(main())
