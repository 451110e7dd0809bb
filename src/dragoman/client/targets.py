"""What a client can connect to, and how."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

from dragoman.errors import Misconfigured
from dragoman.transport.base import Connector, Link
from dragoman.transport.http.choices import HttpLike, Mode, Token
from dragoman.transport.memory import MemoryLink
from dragoman.transport.stdio.child import StdioConnector
from dragoman.transport.stdio.command import command_for
from dragoman.transport.stdio.limits import HIGH_WATER_BYTES, MAX_FRAME_BYTES

__all__ = [
    "HttpLike",
    "Mode",
    "Servable",
    "ServedLink",
    "Target",
    "Token",
    "connector_for",
]

log = logging.getLogger("dragoman.client")


@runtime_checkable
class Servable(Protocol):
    """Anything that can serve a link in this process: a `Server`."""

    @property
    def name(self) -> str: ...

    async def serve_link(self, link: Link) -> None: ...


Target: TypeAlias = str | Path | Sequence[str] | Servable | Connector
"""A URL, a script, a command line as a list, a server object, or a connector."""

_URL_SCHEMES = frozenset({"http", "https", "http+unix"})


def connector_for(
    target: Target,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    on_stderr: Callable[[str], Any] | None = None,
    http: HttpLike | None = None,
    headers: Mapping[str, str] | None = None,
    token: Token | None = None,
    mode: Mode = "auto",
) -> Connector:
    """How to reach a target.

    `env`, `cwd` and `on_stderr` are for what is started as a child; `http` (HttpOptions or a client
    of your own), `headers`, `token` (a bearer token, or a function that gives one) and `mode` for
    a URL: http://, https://, or http+unix://SOCKET/path.

    Raises:
        Misconfigured: it is nothing we can connect to; the text says what would be.
    """
    if isinstance(target, str) and "://" in target:
        scheme = target.partition("://")[0].lower()
        if scheme not in _URL_SCHEMES:
            raise Misconfigured(
                f"a URL of a server begins with http://, https:// or http+unix://, not {scheme!r}"
            )
        # Only now: a client of a script has no use for all that stands behind it.
        from dragoman.transport.http.connector import HttpConnector

        return HttpConnector(target, http=http, headers=headers, token=token, mode=mode)
    if http is not None or headers is not None or token is not None or mode != "auto":
        raise Misconfigured("http, headers, token and mode are for a URL, which the target is not")
    if isinstance(target, Servable):
        return _MemoryConnector(target)
    if isinstance(target, str | Path | Sequence):
        command, args = command_for(target)
        return StdioConnector(command=command, args=args, env=env, cwd=cwd, stderr=on_stderr)
    if hasattr(target, "connect"):
        return target
    raise Misconfigured(
        f"cannot connect to an object of type {type(target).__name__}; give a URL, a script, a "
        "command line as a list, or a Server"
    )


class _MemoryConnector:
    """Serves every link it opens with a server in this process."""

    __slots__ = ("_server",)

    def __init__(self, server: Servable) -> None:
        self._server = server

    @property
    def description(self) -> str:
        return f"{self._server.name} (in this process)"

    async def connect(self) -> ServedLink:
        loop = asyncio.get_running_loop()
        near = ServedLink(loop, MAX_FRAME_BYTES, HIGH_WATER_BYTES)
        far = MemoryLink(loop, MAX_FRAME_BYTES, HIGH_WATER_BYTES)
        near.join(far)
        far.join(near)
        near.serving = asyncio.ensure_future(self._server.serve_link(far))
        return near


class ServedLink(MemoryLink):
    """The client's end of a pair whose other end is served by a task that this end owns."""

    __slots__ = ("_is_ending", "failure", "serving")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, max_frame_bytes: int, high_water_bytes: int
    ) -> None:
        super().__init__(loop, max_frame_bytes, high_water_bytes)
        self.serving: asyncio.Future[None] | None = None
        self.failure: BaseException | None = None
        self._is_ending = False

    async def aclose(self) -> None:
        """End the link and wait for the server's side of it, its lifespan included.

        May be called again, from any task. A cancellation is held back until the server has ended;
        whoever cannot wait for that cancels a second time.
        """
        await super().aclose()
        serving = self.serving
        if serving is None:
            return
        if not self._is_ending:
            self._is_ending = True
            # Both directions end together here: nothing that is still worked at has a reader. Only
            # once: a second cancellation would interrupt the end.
            serving.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not serving.done():
            try:
                await asyncio.wait([serving])
            except asyncio.CancelledError as error:
                if cancelled is not None:
                    raise
                cancelled = error
        if self.failure is None and not serving.cancelled():
            self.failure = serving.exception()
            if self.failure is not None:
                log.error("the server in this process failed", exc_info=self.failure)
        if cancelled is not None:
            raise cancelled
