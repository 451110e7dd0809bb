"""Serving over HTTP or a Unix socket, with uvicorn.

The sockets are bound here and not by uvicorn: so that a port of 0 is known, a Unix socket belongs
to its user alone, and a restart can hand them on.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import re
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dragoman.errors import Misconfigured, MissingExtra
from dragoman.server.asgi import AsgiApp
from dragoman.transport.stdio.serve import on_stop_signal

__all__ = [
    "GRACE_S",
    "LINGER_S",
    "Place",
    "bind_tcp",
    "bind_unix",
    "check_root_path",
    "is_loopback",
    "listen",
    "serve",
    "take_socket",
    "take_waiting",
]

log = logging.getLogger("dragoman.server")

# 2,048 connections may wait to be accepted: a burst of clients that reconnect after a restart.
BACKLOG = 2_048

# 0.5 s for requests that are on their way over connections nobody is using at the moment: a client
# whose request met a closing connection could not tell whether it was taken.
LINGER_S = 0.5

# 75 s of silence on a connection: longer than nginx keeps one (60 s), or it would send a request over one
# that is being closed here, which it must not send again.
KEEP_ALIVE_S = 75

# 3 s after all sessions have ended before uvicorn closes what is still open.
GRACE_S = 3

# What may stand in a path as it is. The prefix goes into the address that an event stream names, so
# nothing in it may end a line or begin a query or another host.
PREFIX = re.compile(r"/(?!/)[A-Za-z0-9\-._~!$&'()*+,;=:@/]+")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_root_path(root_path: str) -> None:
    """Raises Misconfigured for what is no prefix of paths: "" is none, "/tools" is one."""
    if root_path and (not PREFIX.fullmatch(root_path) or root_path.endswith("/")):
        raise Misconfigured(
            f"root_path={root_path!r} is not a prefix such as '/tools': it begins with a slash, "
            "and does not end with one"
        )


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        Misconfigured: the address is not ours, or in use.
    """
    try:
        family = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0][0]
        # Named in full: of a socket whose protocol is left open asyncio does not know that it is TCP,
        # and lets the second of two small writes wait for 40 ms.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host.strip("[]"), port))
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise Misconfigured(f"cannot listen on {host} port {port}: {error}") from None
    sock.setblocking(False)
    return sock


def bind_unix(path: str | Path) -> socket.socket:
    """A listening Unix socket that only this user may connect to.

    A socket that is left there and that nobody listens on is replaced.

    Raises:
        Misconfigured: somebody listens there, the path is no socket, or cannot be used.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise Misconfigured("there are no Unix sockets on this system")
    path = Path(path)
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise Misconfigured(f"{path} exists and is no socket")
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise Misconfigured(f"cannot use {path}: {error}") from None
        else:
            raise Misconfigured(f"a server listens on {path} already")
        finally:
            probe.close()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Between bind and chmod the file would be anybody's; the mask makes it ours from the start.
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise Misconfigured(f"cannot listen on {path}: {error}") from None
    finally:
        os.umask(mask)
    sock.setblocking(False)
    return sock


def take_socket(fd: int) -> socket.socket:
    """A listening socket that somebody opened for this process.

    Raises:
        Misconfigured: the descriptor is none.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise Misconfigured(f"the descriptor {fd} is no socket: {error}") from None
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, LISTENING):
        sock.detach()
        raise Misconfigured(f"the descriptor {fd} is no listening socket")
    # Whatever the server starts must not keep the port open after it.
    sock.set_inheritable(False)
    sock.setblocking(False)
    return sock


def take_waiting(sock: socket.socket) -> list[socket.socket]:
    """Connections that were made and not accepted yet: the end of the listener would break them."""
    found: list[socket.socket] = []
    while len(found) < BACKLOG:
        try:
            connection, _ = sock.accept()
        except OSError:
            break
        connection.setblocking(False)
        found.append(connection)
    return found


# Whether a socket listens; where the system cannot say, the next step will.
LISTENING = getattr(socket, "SO_ACCEPTCONN", socket.SO_TYPE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is: its listening socket, `origin` as URLs begin, and the file to remove."""

    sock: socket.socket
    origin: str
    file: Path | None = None

    def close(self) -> None:
        """Close the socket and remove its file."""
        self.sock.close()
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink()


def listen(
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    path: str | Path | None = None,
    fd: int | None = None,
    has_hosts: bool = False,
    is_public: bool = True,
) -> Place:
    """Listen on a port, on a Unix socket at `path`, or on what `fd` already listens on.

    `has_hosts` says whether the names are listed that the server is called by, without which no
    other machine may reach it; `is_public` whether whoever reaches it may use it.

    Raises:
        Misconfigured: the address cannot be used, or others can reach it unguarded.
    """
    if fd is not None:
        sock = take_socket(fd)
        name = sock.getsockname()
        host = str(name[0]) if isinstance(name, tuple) else "localhost"
    if path is not None:
        file = Path(path).absolute()
        return Place(bind_unix(path), f"http+unix://{quote(str(file), safe='')}", file)
    if not is_loopback(host) and not has_hosts:
        if fd is not None:
            # It stays with whoever gave it.
            sock.detach()
        raise Misconfigured(
            f"others can reach {host}: name what they call this server by, for example "
            "allow_hosts=['api.example.com'] (--allow-host api.example.com)"
        )
    if fd is None:
        sock = bind_tcp(host, port)
    origin = _origin(sock, host)
    if is_public and not is_loopback(host):
        log.warning("whoever can reach %s may use this server: identify= is not set", origin)
    return Place(sock, origin)


def _origin(sock: socket.socket, host: str) -> str:
    name = sock.getsockname()
    if not isinstance(name, tuple):
        return f"http+unix://{quote(str(name), safe='')}"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{name[1]}"


async def serve(
    app: AsgiApp,
    sock: socket.socket,
    *,
    on_ready: Callable[[], None] | None = None,
    access_log: bool = False,
    root_path: str = "",
) -> None:
    """Serve an application on a socket until SIGINT or SIGTERM; both then are closed.

    `root_path` is the prefix that a proxy takes off every path before it comes here.

    Raises:
        MissingExtra: uvicorn is not installed.
        Misconfigured: the prefix is none, or the application did not start; the log says why.
    """
    check_root_path(root_path)
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("http", "serving over HTTP") from None

    class Uvicorn(uvicorn.Server):
        """Drains before it closes: an open event stream must not hold up the end."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            try:
                await super().startup(sockets)
            except SystemExit:
                # How it says that the application's own start failed.
                self.should_exit = True
                return
            # What is there now stays: the collector need not look at it again with every sweep.
            gc.collect()
            gc.freeze()
            if on_ready is not None and self.started:
                on_ready()

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Its own would end the process by the signal once more after an orderly end.
            undo = on_stop_signal(self._told_to_stop)
            try:
                yield
            finally:
                undo()

        def _protocol(self) -> asyncio.Protocol:
            # As its own `startup` makes them.
            kind: Any = self.config.http_protocol_class
            protocol: asyncio.Protocol = kind(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return protocol

        def _told_to_stop(self, number: object) -> None:
            # SIGTERM again within moments is told once, as by a supervisor that signals the process
            # and its group; Ctrl-C again is somebody who does not want to wait. Later, the process
            # ends as if nobody handled it.
            if self.should_exit and number == signal.SIGINT:
                app.hurry()
            self.should_exit = True

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # First of all nobody new: who connects from now on waits for the next process.
            waiting = take_waiting(sock)
            for listener in self.servers:
                listener.close()
            app.begin_to_leave()
            loop = asyncio.get_running_loop()
            for late in waiting:
                await loop.connect_accepted_socket(self._protocol, late)
            until = loop.time() + LINGER_S + app.limits.drain_s
            while self.server_state.connections:
                # An answer frees its connection, and the next request may be on its way over it.
                await asyncio.sleep(LINGER_S)
                if not await app.drain(until - loop.time()):
                    break
            # Those that nobody uses, before anything else is waited for: a request that came now would
            # find its session ended.
            for connection in list(self.server_state.connections):
                connection.shutdown()
            # What is left would only be waited for once more.
            await app.end_sessions()
            self.config.timeout_graceful_shutdown = GRACE_S
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=access_log,
        lifespan="on",
        server_header=False,
        ws="none",
        root_path=root_path,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = Uvicorn(config)
    try:
        await server.serve(sockets=[sock])
    finally:
        sock.close()
    if not server.started:
        raise Misconfigured("the server did not start; the log says why")
