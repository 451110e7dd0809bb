"""Running lines of Python in a real sandbox, with a real gatekeeper, and hearing what they say."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman.client.config import ServerEntry
from dragoman.errors import LinkError
from dragoman.host.sandbox import Root, Sandbox, confine, starter
from dragoman.host.sandbox.connector import ConfinedConnector
from dragoman.host.sandbox.gatekeeper import Gatekeeper, GateLimits
from dragoman.host.sandbox.targets import Address, Reach, parse_target
from dragoman.jsonrpc.frame import Noise, Seen
from dragoman.transport.base import Connector, Link

__all__ = ["Child", "Origin", "child", "descriptors", "needs_bubblewrap", "origin", "reach_of"]


def _works() -> bool:
    if sys.platform != "linux" or shutil.which("bwrap") is None:
        return False
    done = subprocess.run(
        ["bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"], capture_output=True, timeout=30
    )
    return done.returncode == 0


needs_bubblewrap = pytest.mark.skipif(not _works(), reason="bubblewrap does not work here")

# Before the lines of a test: how they tell, and how they ask the proxy.
_PRELUDE = """
import json, os, signal, socket, struct, sys, threading, urllib.request
def tell(**said): print(json.dumps(said), flush=True)
def attempt(work, *given):
    try:
        return work(*given)
    except Exception as error:
        return type(error).__name__
PROXY = os.environ.get("HTTP_PROXY", "").removeprefix("http://").rpartition(":")
def proxied(*sent, until=None):
    with socket.create_connection((PROXY[0], int(PROXY[2])), 10) as proxy:
        proxy.settimeout(10)
        for one in sent[:-1]:
            proxy.sendall(one)
            proxy.recv(65536)
        proxy.sendall(sent[-1])
        found = b""
        while chunk := proxy.recv(65536):
            found += chunk
            if until and until in found:
                break
        return found.decode("latin-1")
def tunnel(where):
    asked = f"CONNECT {where} HTTP/1.1\\r\\nHost: {where}\\r\\n\\r\\n".encode()
    return proxied(asked, until=b"\\r\\n\\r\\n").partition("\\r\\n")[0]
"""


def reach_of(*targets: str) -> Reach:
    """A list of hosts as a server's settings would have it."""
    return Reach.of(parse_target(one, may_be_pattern=True) for one in targets)


class Child:
    """A confined process: what it told, and what its gatekeeper refused."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Any] = asyncio.Queue()
        self.refused: list[str] = []
        self.stderr: list[str] = []
        self.ended: asyncio.Future[LinkError | None] = asyncio.get_running_loop().create_future()
        self.link: Any = None
        self.gatekeepers: list[Gatekeeper] = []

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        for frame in frames:
            self.said.put_nowait(json.loads(frame))

    def frame_refused(self, noise: Noise) -> None:
        self.stderr.append(str(noise))

    def link_closed(self, error: LinkError | None) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    async def told(self) -> Any:
        """The next thing it tells; a failure with its last words if it ends before."""
        said = asyncio.ensure_future(self.said.get())
        done, _ = await asyncio.wait((said, self.ended), return_when=asyncio.FIRST_COMPLETED)
        if said in done or not self.said.empty():
            return await said
        said.cancel()
        raise AssertionError("\n".join(self.stderr))

    async def exit_code(self) -> int | None:
        """How it ended."""
        await self.ended
        code: int | None = self.link.exit_code
        return code


@asynccontextmanager
async def child(
    code: str,
    *targets: str,
    names: dict[str, list[Address]] | None = None,
    env: dict[str, str] | None = None,
    roots: Sequence[Root] = (),
    sandbox: Sandbox | None = None,
    source: Path = Path("mcp.json"),
    guarded: Sequence[Path] = (),
    program: str | None = None,
    limits: GateLimits | None = None,
) -> AsyncIterator[Child]:
    """A process that runs these lines and reaches these targets; of other names are `names`.

    Without targets its network is as `sandbox` says.
    """
    entry = ServerEntry(
        name="x",
        source=source,
        command=program or sys.executable,
        args=("-I", "-c", _PRELUDE + textwrap.dedent(code)),
        env=env or {},
    )
    reach = reach_of(*targets)
    found = Child()

    async def resolve(host: str, port: int) -> Sequence[Address]:
        if names is None or host not in names:
            raise OSError(f"there is no {host}")
        return names[host]

    def gatekeeper(reach: Reach) -> Gatekeeper:
        made = Gatekeeper(reach, refused=found.refused.append, limits=limits, resolve=resolve)
        found.gatekeepers.append(made)
        return made

    confined = confine(entry, sandbox or Sandbox(reach=reach), roots=roots, guarded=guarded)
    connector: Connector
    if targets:
        connector = ConfinedConnector(
            confined, reach, stderr=found.stderr.append, make_gatekeeper=gatekeeper
        )
    else:
        connector = starter(confined, reach, stderr=found.stderr.append)
    link: Link = await connector.connect()
    found.link = link
    try:
        # A child is its own receiver, for those methods that a pipe uses.
        receiver: Any = found
        link.start(receiver)
        yield found
    finally:
        await link.aclose()


class Origin:
    """A server on this machine's loopback: what it was sent, connection by connection."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: list[bytes] = []
        self.sent = 0
        #: Set when a connection has ended, however it did.
        self.over = asyncio.Event()
        #: Set when for half a second nobody took what it sends.
        self.stalled = asyncio.Event()
        self.body = b"hello"
        self.is_raw = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            heard = await (reader.read(65536) if self.is_raw else reader.readuntil(b"\r\n\r\n"))
            self.heard.append(heard)
            if not self.is_raw:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.body))
            for start in range(0, len(self.body), 65536):
                part = self.body[start : start + 65536]
                writer.write(part)
                try:
                    async with asyncio.timeout(0.5):
                        await writer.drain()
                except TimeoutError:
                    self.stalled.set()
                    await writer.drain()
                self.sent += len(part)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self.over.set()


@asynccontextmanager
async def origin() -> AsyncIterator[Origin]:
    """One that listens, on a port of the system's choice."""
    made = Origin()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))
