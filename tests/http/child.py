"""A server in a process of its own, for tests of its end: `python -m tests.http.child FOLDER`.

It prints its URL once it serves. The tool `wait` answers once the file FOLDER/go is there.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dragoman import Server
from dragoman.transport.streamable.limits import HttpLimits

# Every event of the tests stays well below it; a test that shows the bound waits so long.
DRAIN_S = 1.0


def main(folder: Path) -> None:
    server = Server("child", version="1")

    @server.tool
    async def wait() -> str:
        (folder / "came").touch()
        while not (folder / "go").exists():
            await asyncio.sleep(0.01)
        return "waited"

    @server.tool
    async def hang() -> None:
        (folder / "came").touch()
        await asyncio.Event().wait()

    server.run(
        "http",
        port=0,
        limits=HttpLimits(drain_s=DRAIN_S if (folder / "short").exists() else 30.0),
        on_ready=lambda url: print(url, flush=True),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
