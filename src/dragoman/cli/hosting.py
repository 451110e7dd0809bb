"""`dragoman run FILE --transport http`: a server out of a file, over HTTP or a Unix socket."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

from dragoman.cli.serve import NotLoaded, find_server_object, load_file, show_fault, split_target
from dragoman.errors import MissingExtra

__all__ = ["Hosting", "announce", "check_installed", "host_file"]

DEFAULT_PATH = {"http": "/mcp", "sse": "/sse", "unix": "/mcp"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hosting:
    """What the options of `dragoman run` say about a server that is not on stdio.

    `path` is where the chosen transport is found; None for its usual place. `root_path` is the
    prefix that a proxy takes off. `handed` are two
    descriptors from a parent that watches the file: the socket that listens, and one that hears
    when we are ready and whose end is the parent's.
    """

    transport: Literal["http", "sse", "unix"]
    host: str = "127.0.0.1"
    port: int = 8000
    path: str | None = None
    socket: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    keep_sessions: str | None = None
    is_json: bool = False
    handed: tuple[int, int] | None = None
    root_path: str = ""

    def options(self) -> dict[str, Any]:
        """As `Server.serve_http` takes them."""
        found: dict[str, Any] = {
            "allow_hosts": self.allow_hosts,
            "allow_origins": self.allow_origins,
            "root_path": self.root_path,
        }
        if self.handed is not None:
            found["fd"] = self.handed[0]
        elif self.transport == "unix":
            found["socket"] = self.socket
        else:
            found |= {"host": self.host, "port": self.port}
        if self.path is not None:
            found["sse_path" if self.transport == "sse" else "path"] = self.path
        return found

    def url(self, of_mcp: str) -> str:
        """The URL of the chosen transport, from that of Streamable HTTP."""
        if self.transport != "sse":
            return of_mcp
        return of_mcp.removesuffix(DEFAULT_PATH["http"]) + (self.path or DEFAULT_PATH["sse"])


def host_file(target: str, hosting: Hosting) -> int:
    """Serve until a signal; returns the exit code.

    Raises:
        Misconfigured: there is no such file or object, or the address cannot be used.
        MissingExtra: uvicorn is not installed.
    """
    path, name = split_target(target)
    check_installed()
    with ExitStack() as stack:
        if hosting.is_json:
            # The first line of stdout is ours.
            stack.enter_context(redirect_stdout(sys.stderr))
        try:
            server = find_server_object(load_file(path), path, name)
        except NotLoaded as error:
            show_fault(error.fault, path)
            return 2
    on_ready: Callable[[str], None]
    if hosting.handed is None:

        def on_ready(url: str) -> None:
            announce(server.name, hosting.url(url), is_json=hosting.is_json)
    else:
        on_ready = _report_to(hosting.handed[1], server.name, hosting)
    options = hosting.options()
    store = None
    if hosting.keep_sessions is not None:
        from dragoman.transport.streamable.sqlite import SqliteStore

        store = SqliteStore(hosting.keep_sessions)
        options |= {"events": store, "sessions": store}
    try:
        server.run("http", on_ready=on_ready, **options)
    finally:
        if store is not None:
            asyncio.run(store.aclose())
    return 0


def check_installed() -> None:
    """Raises MissingExtra when what serves HTTP is not installed."""
    if importlib.util.find_spec("uvicorn") is None:
        raise MissingExtra("http", "serving over HTTP")


def announce(name: str, url: str, *, is_json: bool) -> None:
    """Say where a server is: to a person, or as a line of JSON on stdout for a program."""
    if is_json:
        sys.stdout.write(json.dumps({"url": url}) + "\n")
        sys.stdout.flush()
    else:
        sys.stderr.write(f"{name} is at {url}\n")
        sys.stderr.flush()


def _report_to(fd: int, name: str, hosting: Hosting) -> Callable[[str], None]:
    """What tells the parent that we are ready. We end when it has ended."""
    parent = socket.socket(fileno=fd)
    parent.set_inheritable(False)
    parent.setblocking(True)

    def wait() -> None:
        # It says nothing; but the system says when it is no more.
        while parent.recv(1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="dragoman-parent", daemon=True).start()

    def report(url: str) -> None:
        said: Mapping[str, str] = {"name": name, "url": hosting.url(url)}
        parent.sendall(json.dumps(said).encode() + b"\n")

    return report
