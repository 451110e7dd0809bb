"""Start a server program on a port of its own, wait for it, and always end it.

Each program runs in a process group of its own, and writes to a file under ``logs/`` of the peers' cache
that is kept until the next run. Its end is the end of the group: nothing that it started stays behind.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from interop import peers

HOST = "127.0.0.1"

# Below the ports that systems give to clients: a client that knocks at a server that is down must not
# be given the server's own port.
PORTS = range(20_000, 32_000)

# The slowest peer takes three seconds to start on an idle machine.
START_TIMEOUT_S = 40.0

PATHS = {"sse": "/sse", "streamable": "/mcp"}


def free_port() -> int:
    """A port that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As servers do: a port on which connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port


class Program:
    """One server program; it keeps its port when it is started again."""

    def __init__(
        self,
        name: str,
        command: Callable[[int], list[str]],
        *,
        env: Callable[[int], dict[str, str]] = lambda port: {},
        port: int | None = None,
    ) -> None:
        """`name`: what its log is called. `command` and `env` are told the port, a free one if not given."""
        self.port = free_port() if port is None else port
        self.url = f"http://{HOST}:{self.port}"
        self._command = command(self.port)
        self._environment = {**os.environ, **env(self.port)}
        logs = peers.cache() / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{name}.log"
        self.log.write_bytes(b"")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes connections. Fails with the end of its log."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        give_up = time.monotonic() + START_TIMEOUT_S
        while not self.takes_connections():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise AssertionError(f"{self._command} does not serve:\n{self.tail()}")
            time.sleep(0.02)

    def takes_connections(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
            return True
        return False

    def signal(self, number: int) -> None:
        """Send a signal to the program and whatever it started."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None
        return self._process.wait(timeout=START_TIMEOUT_S)

    def kill(self) -> None:
        """End it at once, as a machine that fails would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text("utf-8", "replace")[-3000:]

    def __enter__(self) -> Program:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def serve_peer(name: str, peer: str, script: str, transport: str) -> Program:
    """The everything server of a peer, or ours, as an HTTP server of `transport`."""

    def command(port: int) -> list[str]:
        arguments = (transport, str(port))
        if peer == "dragoman":
            return [sys.executable, str(peers.PROGRAMS / script), *arguments]
        return peers.program(peer, script, *arguments)

    return Program(f"{name}-{transport}", command)


@contextlib.contextmanager
def address(name: str, peer: str, script: str, transport: str) -> Iterator[list[str]]:
    """What a client program takes to reach an everything server: its command line, or its URL."""
    if transport == "stdio":
        if peer == "dragoman":
            yield [sys.executable, str(peers.PROGRAMS / script)]
        else:
            yield peers.program(peer, script)
        return
    with serve_peer(name, peer, script, transport) as program:
        yield [transport, program.url + PATHS[transport]]


def children() -> list[int]:
    """The processes this one has started and not seen the end of; none where the system keeps silent."""
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return []
    return [
        int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()
    ]
