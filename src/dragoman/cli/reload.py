"""`dragoman run FILE --reload`: serve a file in a child process, anew whenever the code changes.

This process only holds the listening socket, which each child is given in its turn: connections
that come while there is no child wait for the next. Sessions are kept in a file meanwhile, so that
clients go on with theirs.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from dragoman.cli.exits import Exit
from dragoman.cli.hosting import Hosting, announce, check_installed
from dragoman.cli.serve import split_target
from dragoman.errors import Misconfigured, MissingExtra
from dragoman.runtime.driver import HANDLER_GRACE_S
from dragoman.server.serving import GRACE_S, LINGER_S, check_root_path, listen
from dragoman.transport.stdio.serve import on_stop_signal
from dragoman.transport.streamable.limits import HttpLimits

__all__ = ["reload_file"]

# 10 s: a file that takes longer to load has its clients told to come back, instead of waiting.
LOADING_S = 10.0

# What a child needs to end by itself, with 2 s for what is on its way out; then it is killed.
ENDING_S = LINGER_S + HttpLimits().drain_s + HANDLER_GRACE_S + GRACE_S + 2.0

# A client that cannot say what it wants in 5 s, or in 64 KiB of headers, gets no answer.
REQUEST_S = 5.0
MAX_HEAD_BYTES = 64 * 1024


def reload_file(target: str, hosting: Hosting) -> int:
    """Serve until a signal; returns the exit code.

    Raises:
        Misconfigured: there is no such file, or the address cannot be used.
        MissingExtra: what it needs is not installed.
    """
    path, name = split_target(target)
    if sys.platform == "win32":
        raise Misconfigured("--reload hands its socket on, which this system has no way for")
    if importlib.util.find_spec("watchfiles") is None:
        raise MissingExtra("cli", "--reload")
    check_installed()
    check_root_path(hosting.root_path)
    place = listen(
        hosting.host,
        hosting.port,
        path=hosting.socket,
        has_hosts=bool(hosting.allow_hosts),
        # The child warns, each time: it knows whom it lets in.
        is_public=False,
    )
    with closing(place), tempfile.TemporaryDirectory(prefix="dragoman-") as folder:
        kept = hosting.keep_sessions or str(Path(folder) / "sessions.db")
        words = _words(str(path) if name is None else f"{path}:{name}", hosting, kept)
        with suppress(KeyboardInterrupt):
            asyncio.run(_Parent(path, words, place.sock, hosting).run())
    return Exit.OK


def _words(target: str, hosting: Hosting, kept: str) -> list[str]:
    """The command line of a child, up to its descriptors."""
    words = ["run", target, "--transport", hosting.transport, "--keep-sessions", kept]
    if hosting.path is not None:
        words += ["--path", hosting.path]
    if hosting.root_path:
        words += ["--root-path", hosting.root_path]
    for host in hosting.allow_hosts:
        words += ["--allow-host", host]
    for origin in hosting.allow_origins:
        words += ["--allow-origin", origin]
    return words


class _Child:
    """One process that serves the file as it was when it began."""

    def __init__(self, process: asyncio.subprocess.Process, near: socket.socket) -> None:
        self._process = process
        # Its end tells the child that we have ended.
        self._near = near
        self.ended = asyncio.ensure_future(process.wait())

    async def until_ready(self) -> dict[str, str] | None:
        """What it says of itself once it serves; None when it ended before."""
        loop = asyncio.get_running_loop()
        said = b""
        while not said.endswith(b"\n"):
            try:
                part = await loop.sock_recv(self._near, 4096)
            except ConnectionError:
                return None
            if not part:
                return None
            said += part
        found: dict[str, str] = json.loads(said)
        return found

    async def stop(self) -> int:
        """Have it finish what it does and end; returns its exit code."""
        self.tell(signal.SIGTERM)
        await asyncio.wait([self.ended], timeout=ENDING_S)
        self.tell(signal.SIGKILL)
        code = await self.ended
        self._near.close()
        return code

    def tell(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


class _Parent:
    """Starts a child, watches the code, starts the next."""

    def __init__(
        self, path: Path, words: Sequence[str], sock: socket.socket, hosting: Hosting
    ) -> None:
        self._path = path
        self._words = words
        self._sock = sock
        self._hosting = hosting
        self._is_announced = False
        self._child: _Child | None = None
        # Made in the loop: what has happened since somebody last looked.
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until a signal comes."""
        undo = on_stop_signal(self._stop)
        try:
            with self._watching():
                while not self._stopping.is_set():
                    self._changed.clear()
                    await self._serve_once()
        finally:
            if self._child is not None:
                await self._child.stop()
            undo()

    def _stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set() and self._child is not None:
            # Told twice: now.
            self._child.tell(number)
        self._stopping.set()

    async def _serve_once(self) -> None:
        """One child, from its start to its end, and what there is to wait for after a fault."""
        child = self._child = await self._start()
        is_ready = await self._until_ready(child)
        if is_ready:
            await self._first(child.ended)
        is_wanted = not (self._changed.is_set() or self._stopping.is_set())
        code = await child.stop()
        self._child = None
        if is_wanted:
            how = "ended" if is_ready else "did not start"
            _say(f"{self._path.name} {how} (exit code {code}); waiting for a change")
            async with self._refusing(f"{self._path.name} does not run at the moment"):
                await self._first()

    async def _start(self) -> _Child:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            handed = f"{self._sock.fileno()},{far.fileno()}"
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # A compiled module is told from its source by second and size alone: what changes
                # twice in a second would run as it was before.
                "-B",
                "-m",
                "dragoman",
                *self._words,
                "--handed",
                handed,
                stdin=asyncio.subprocess.DEVNULL,
                # A program reads our stdout, and expects one line of it.
                stdout=sys.stderr.fileno() if self._hosting.is_json else None,
                pass_fds=(self._sock.fileno(), far.fileno()),
                # Ctrl-C is for us; the child hears of it once, from us.
                process_group=0,
            )
        return _Child(process, near)

    async def _until_ready(self, child: _Child) -> bool:
        """Wait until it serves; False when it ended first, or is not wanted any more."""
        loading = asyncio.ensure_future(child.until_ready())
        try:
            # A child that ends may leave a child of its own behind, which keeps the socket open.
            if not await self._first(loading, child.ended, timeout=LOADING_S):
                text = f"{self._path.name} is still being loaded"
                async with self._refusing(text):
                    await self._first(loading, child.ended)
            said = loading.result() if loading.done() else None
        finally:
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading
        if said is None:
            return False
        if self._is_announced:
            _say(f"{said['name']} runs again")
        else:
            self._is_announced = True
            announce(said["name"], said["url"], is_json=self._hosting.is_json)
        return True

    async def _first(self, *others: asyncio.Future[Any], timeout: float | None = None) -> bool:
        """Wait for a change, a signal, or something else; False when none came in time."""
        waiting = [asyncio.ensure_future(one.wait()) for one in (self._changed, self._stopping)]
        try:
            done, _ = await asyncio.wait(
                [*waiting, *others], timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for one in waiting:
                one.cancel()
        return bool(done)

    # --- what is watched ----------------------------------------------------------------------------

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Set `changed` whenever a Python file in the folder changes, or one below it."""
        import watchfiles

        loop = asyncio.get_running_loop()
        ending = threading.Event()
        files = watchfiles.PythonFilter(extra_extensions=(self._path.suffix,))

        def watch() -> None:
            folder = self._path.parent
            for changes in watchfiles.watch(
                folder, watch_filter=files, stop_event=ending, raise_interrupt=False
            ):
                names = sorted({_below(changed, folder) for _, changed in changes})
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._note, names)

        thread = threading.Thread(target=watch, name="dragoman-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def _note(self, names: Sequence[str]) -> None:
        if not self._changed.is_set() and not self._stopping.is_set():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            _say(f"{', '.join(names[:3])}{more} changed: starting again")
        self._changed.set()

    # --- what clients are told while nobody serves them ---------------------------------------------

    @asynccontextmanager
    async def _refusing(self, text: str) -> AsyncIterator[None]:
        """Answer every request with 503 meanwhile: better than to have them wait for a person."""
        body = json.dumps(
            {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": text}}
        ).encode()
        answer = (
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
            b"retry-after: 1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
        ) % (len(body), body)

        answering: set[asyncio.Task[None]] = set()

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            answering.add(task)
            try:
                async with asyncio.timeout(REQUEST_S):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(answer)
                    writer.write_eof()
                    # What it still sends is read, so that the end does not overtake the answer.
                    while await reader.read(MAX_HEAD_BYTES):
                        pass
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
                pass
            finally:
                answering.discard(task)
                writer.close()

        server = await asyncio.start_server(refuse, sock=self._sock.dup(), limit=MAX_HEAD_BYTES)
        try:
            yield
        finally:
            server.close()
            for task in list(answering):
                with suppress(asyncio.CancelledError):
                    await task


def _below(path: str, folder: Path) -> str:
    try:
        return str(Path(path).relative_to(folder))
    except ValueError:
        return path


def _say(text: str) -> None:
    sys.stderr.write(f"dragoman: {text}\n")
    sys.stderr.flush()
