"""A server to be killed: it writes down what it runs, so that nothing runs twice unseen.

python server.py LOG                over stdio
python server.py LOG PORT           over HTTP
"""

from __future__ import annotations

import asyncio
import os
import random
import sys

from dragoman import Context, Server

server = Server("victim")
LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


@server.tool
async def record(n: int, ctx: Context) -> int:
    """Note that call number `n` ran, and take a while, now and then with progress."""
    # One write: what other processes append stays whole.
    os.write(LOG, f"{n}\n".encode())
    if n % 3 == 0:
        await ctx.report_progress(0.5)
    await asyncio.sleep(random.random() * 0.02)
    return n


@server.resource("soak://{name}")
async def resource(name: str) -> str:
    """Something to subscribe to."""
    return name


if __name__ == "__main__":
    if len(sys.argv) > 2:
        server.run("http", port=int(sys.argv[2]))
    else:
        server.run()
