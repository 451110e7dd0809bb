"""A dragoman server that shows what a proxy does to it; see tests/interop/test_nginx.py.

python proxied_server.py PORT PREFIX
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvicorn

from dragoman import Context, Server
from dragoman.transport.streamable.limits import HttpLimits

server = Server("proxied", version="1")
connections: set[tuple[str, int]] = set()
heard: dict[str, str] = {}
steps = asyncio.Condition()
allowed = 0


@server.tool
async def walk(to: int, ctx: Context) -> str:
    """Report each step, and take the next one once `step` was called."""
    global allowed
    allowed = 0
    for number in range(1, to + 1):
        await ctx.report_progress(number, to)
        async with steps:
            await steps.wait_for(lambda reached=number: allowed >= reached)
    return f"walked {to}"


@server.tool
async def step() -> str:
    """Let `walk` go on."""
    global allowed
    async with steps:
        allowed += 1
        steps.notify_all()
    return "go"


@server.tool
async def wait(seconds: float) -> str:
    """Answer late, and say nothing until then."""
    await asyncio.sleep(seconds)
    return "waited"


@server.tool
def table(rows: int) -> str:
    """A text that shrinks well."""
    return "a row of the table\n" * rows


@server.tool
def size(text: str) -> int:
    """How much arrived."""
    return len(text)


@server.tool
def seen() -> str:
    """How the requests so far came: over how many connections, and the headers of this one."""
    return json.dumps({"connections": len(connections), "headers": heard})


@server.tool
def touch() -> str:
    """Tell those who subscribed."""
    server.notify_resource_updated("notes://one")
    return "announced"


@server.resource("notes://one")
def note() -> str:
    return "a note"


app = server.asgi(
    # Short, so that a proxy with little patience can be tried in a second or two.
    limits=HttpLimits(long_wait_s=0.3, keep_alive_s=0.3, retry_s=0.1),
)


async def watched(scope: Any, receive: Any, send: Any) -> None:
    """The application, and a note of each request."""
    if scope["type"] == "http":
        connections.add(tuple(scope["client"]))
        heard.clear()
        heard.update((name.decode(), value.decode()) for name, value in scope["headers"])
    await app(scope, receive, send)


if __name__ == "__main__":
    port, prefix = sys.argv[1:]
    uvicorn.run(
        watched,
        host="127.0.0.1",
        port=int(port),
        root_path=prefix,
        log_level="warning",
        # The addresses of connections are counted: not those that X-Forwarded-For names.
        proxy_headers=False,
    )
