"""The HTTP benchmark's server on ``mcp`` 2.x. Arguments: json|sse plain|fast.

``json`` asks the library for JSON answers, ``sse`` is its default.
"""

from __future__ import annotations

import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from serving import serve

server = MCPServer("bench")


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def report(a: int, b: int, ctx: Context) -> int:
    """Add two numbers, and say so."""
    await ctx.report_progress(a, a + b)
    return a + b


if __name__ == "__main__":
    # Its default is 10,000, and one more is opened while 10,000 are.
    app = server.streamable_http_app(json_response=sys.argv[1] == "json", max_sessions=20_000)
    serve(app, sys.argv[2])
