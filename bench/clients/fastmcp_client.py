"""The client of ``fastmcp`` 4.x. Arguments: stdio|memory|memory-2026 CALLS WINDOW [SERVER…]."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from common import drive, report
from fastmcp import Client, FastMCP
from fastmcp.client.transports import StdioTransport


def target(how: str) -> Any:
    """What to connect to."""
    if how == "stdio":
        return StdioTransport(command=sys.argv[4], args=sys.argv[5:])
    server = FastMCP("bench")

    @server.tool
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return server


async def main() -> None:
    """Connect and run the calls."""
    how = sys.argv[1]
    async with Client(target(how), mode="auto" if how == "memory-2026" else "legacy") as client:

        async def call(a: int) -> int:
            result = await client.call_tool("add", {"a": a, "b": 1})
            value: int = result.structured_content["result"]
            return value

        report(await drive(call, int(sys.argv[2]), int(sys.argv[3])))


asyncio.run(main())
