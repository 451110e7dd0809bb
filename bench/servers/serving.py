"""How every Python server of the HTTP benchmark is put on a port: uvicorn, one process.

``plain`` is asyncio with h11, ``fast`` uvloop with httptools. The access log is off for everyone: it is
uvicorn's, not the library's. The first line on stdout is the port.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import uvicorn

HOW: dict[str, dict[str, Any]] = {
    "plain": {"loop": "asyncio", "http": "h11"},
    "fast": {"loop": "uvloop", "http": "httptools"},
}


def serve(app: Any, how: str) -> None:
    """Serve an ASGI application on a free port of the loopback until the process is ended."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, **HOW[how])
    # asyncio turns Nagle's algorithm off only where the protocol is named: without it each h11 answer,
    # two writes, waits 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listening])
