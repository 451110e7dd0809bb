"""Serving over HTTP or a Unix socket, with uvicorn.

The sockets are bound here and not by uvicorn: so that a port of 0 is known, a Unix socket belongs
to its user alone, and a restart can hand them on.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dragoman.errors import Misconfigured, MissingExtra
from dragoman.server.asgi import AsgiApp
from dragoman.transport.stdio.serve import on_stop_signal

__all__ = ["bind_tcp", "bind_unix", "is_loopback", "serve"]

log = logging.getLogger("dragoman.server")

# 2,048 connections may wait to be accepted: a burst of clients that reconnect after a restart.
BACKLOG = 2_048

# 3 s more than the application's own drain before uvicorn closes what is still open.
GRACE_S = 3.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        Misconfigured: the address is not ours, or in use.
    """
    try:
        family = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.socket(family, socket.SOCK_STREAM)
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


async def serve(
    app: AsgiApp,
    sock: socket.socket,
    *,
    on_ready: Callable[[], None] | None = None,
    access_log: bool = False,
) -> None:
    """Serve an application on a socket until SIGINT or SIGTERM; both then are closed.

    Raises:
        MissingExtra: uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("http", "serving over HTTP") from None

    class Uvicorn(uvicorn.Server):
        """Drains before it closes: an open event stream must not hold up the end."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
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

        def _told_to_stop(self, signal: object) -> None:
            # Told twice: now.
            self.force_exit = self.should_exit
            self.should_exit = True

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # First of all nobody new: who connects from now on waits for the next process.
            for listener in self.servers:
                listener.close()
            await app.drain()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=access_log,
        lifespan="on",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=int(app.limits.drain_s + GRACE_S),
    )
    server = Uvicorn(config)
    name = sock.getsockname()
    try:
        await server.serve(sockets=[sock])
    finally:
        sock.close()
        if isinstance(name, str) and name:
            with suppress(OSError):
                os.unlink(name)
    if not server.started:
        raise Misconfigured("the server did not start; the log says why")
