"""The client of dragoman. Arguments: stdio|memory|http|http-httpx2 CALLS WINDOW [SERVER…|URL]."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from common import drive, report

from dragoman import Client


def target(how: str) -> Any:
    """What to connect to."""
    if how == "stdio":
        return sys.argv[4:]
    if how == "http-httpx2":
        # What it finds where the extra `fast` is not installed.
        sys.modules["aiohttp"] = None  # type: ignore[assignment]
    if how.startswith("http"):
        return sys.argv[4]
    from dragoman import Server

    server = Server("bench")

    @server.tool
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return server


async def main() -> None:
    """Connect and run the calls."""
    async with Client(target(sys.argv[1])) as client:

        async def call(a: int) -> int:
            result = await client.call_tool("add", {"a": a, "b": 1})
            value: int = result.structured_content["result"]
            return value

        report(await drive(call, int(sys.argv[2]), int(sys.argv[3])))


asyncio.run(main())
