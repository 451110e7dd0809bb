"""A server for the proxy beside it (nginx.conf); docs/reverse-proxy.md tells the whole story.

Run it:        python examples/proxy/server.py
"""

from __future__ import annotations

import asyncio
import os

import uvicorn

from dragoman import Context, Server

server = Server("behind-a-proxy", version="1")


@server.tool
async def count(to: int, ctx: Context, pause_s: float = 0.5) -> str:
    """Count slowly, and say so."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to)
        await asyncio.sleep(pause_s)
    return f"counted to {to}"


# The names that clients use for the proxy. This machine's own names would be served without a list.
app = server.asgi(allow_hosts=["localhost", "127.0.0.1", "tools.example.com"])

if __name__ == "__main__":
    # root_path is the prefix that the proxy cuts off: HTTP+SSE tells its clients where to post.
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run(app, host="127.0.0.1", port=port, root_path="/tools")
