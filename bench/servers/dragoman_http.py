"""The HTTP benchmark's server on dragoman. Arguments: json|sse plain|fast (the first changes nothing)."""

from __future__ import annotations

import sys

from serving import serve

from dragoman import Context, Server

server = Server("bench")


@server.tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool
async def report(a: int, b: int, ctx: Context) -> int:
    """Add two numbers, and say so."""
    await ctx.report_progress(a, a + b)
    return a + b


if __name__ == "__main__":
    serve(server.asgi(), sys.argv[2])
