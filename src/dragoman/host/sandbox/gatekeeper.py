"""Who stands between a confined server and the network: it connects for the server, or does not.

Whatever a program in the sandbox sends is a stranger's. It decides nothing here: names are
resolved here, addresses are checked here, and the connection is made to the address that was
checked. What passes is carried in both directions without being looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from dragoman.host.sandbox.asked import BadRequestError, Outcome, read_asked
from dragoman.host.sandbox.targets import Address, Reach, Target

__all__ = ["GateLimits", "Gatekeeper", "Resolve", "Resolver"]

log = logging.getLogger("dragoman.host")

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]

# 64 KiB: what is read at once, and how long a request's head may be. At most some 256 KiB wait in
# each direction of a connection; then its sender waits.
CHUNK_BYTES = 64 * 1024

# 100 ms: as long as it takes until a process that has no descriptor left may have one.
_RETRY_S = 0.1
_NO_ROOM = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPROTO)
)

# 4: a resolver that hangs holds a thread, which cannot be ended.
_RESOLVERS = 4
# 8 addresses of one name are tried; more are tried by nobody.
_MOST_ADDRESSES = 8
# 100: after as many different refusals a person knows enough.
_MOST_TOLD = 100
# On closing, nothing is sent but a reset: what is refused looks like a port nobody listens on.
_AT_ONCE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class GateLimits:
    """What one server may take of the host.

    Of its connections only so many are carried at once, with two descriptors each; the others
    wait. 64 leave a process that may open 1024 files room for several such servers.
    """

    connections: int = 64
    # 10 s to say what is wanted; a program sends that at once.
    ask_s: float = 10.0
    # 20 s for resolving and connecting, as long as most programs wait themselves.
    connect_s: float = 20.0
    # 5 s for one of several addresses.
    address_s: float = 5.0
    # An hour without a byte: event streams and pools of connections are silent for minutes.
    idle_s: float = 3600.0
    # 60 s when one side has ended: the rest of an answer comes in that time or goes on coming.
    half_closed_s: float = 60.0


class Gatekeeper:
    """Carries one server's connections, as long as the server lives.

    `refused` is told, in a few words, of what the server may not reach: each target once, and only
    so many of them. Every task of it is awaited by `aclose`.
    """

    def __init__(
        self,
        reach: Reach,
        *,
        refused: Callable[[str], object] | None = None,
        limits: GateLimits | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._reach = reach
        self._refused = refused
        self._limits = limits or GateLimits()
        self._resolve = resolve or Resolver().resolve
        self._slots = asyncio.Semaphore(self._limits.connections)
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()

    def serve(self, listening: socket.socket, target: Target | None) -> None:
        """Take the connections that come here; without a `target` each says where it wants to go.

        The socket is the gatekeeper's from now on.
        """
        listening.setblocking(False)
        self._own(self._listen(listening, target))

    @property
    def carried(self) -> int:
        """How many connections are open now."""
        return self._limits.connections - self._slots._value

    async def aclose(self) -> None:
        """End every connection, at once."""
        while self._tasks:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _own(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the gatekeeper of a sandbox failed", exc_info=error)

    async def _listen(self, listening: socket.socket, target: Target | None) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    taken, _ = await loop.sock_accept(listening)
                except OSError as error:
                    if error.errno not in _NO_ROOM:
                        raise
                    await asyncio.sleep(_RETRY_S)
                    continue
                try:
                    await self._slots.acquire()
                except asyncio.CancelledError:
                    taken.close()
                    raise
                self._own(self._carry(taken, target))

    async def _carry(self, taken: socket.socket, target: Target | None) -> None:
        try:
            async with _opened(taken) as (reader, writer):
                if target is None:
                    await self._serve_proxy(reader, writer)
                else:
                    await self._serve_target(reader, writer, target)
        # Either side has gone.
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            taken.close()
            self._slots.release()

    async def _serve_target(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target
    ) -> None:
        found = await self._reach_out(target)
        if isinstance(found, _No):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            return
        async with _opened(found) as (far_reader, far_writer):
            await self._join(reader, writer, far_reader, far_writer)

    async def _serve_proxy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(self._limits.ask_s):
                asked = await read_asked(reader, writer)
        except BadRequestError as bad:
            self._tell(f"what its sandbox cannot do: {bad}")
            await self._say(reader, writer, bad.answer)
            return
        found = await self._reach_out(asked.target)
        if isinstance(found, _No):
            await self._say(reader, writer, asked.answer(found.outcome, found.why))
            return
        async with _opened(found) as (far_reader, far_writer):
            writer.write(asked.answer(Outcome.CONNECTED))
            far_writer.write(asked.first)
            await self._join(reader, writer, far_reader, far_writer)

    async def _say(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes
    ) -> None:
        """The last words: they arrive only when what came with the question was read."""
        writer.write(answer)
        async with asyncio.timeout(self._limits.ask_s):
            await writer.drain()
            writer.write_eof()
            while await reader.read(CHUNK_BYTES):
                pass

    # --- whether, and where to --------------------------------------------------------------------

    async def _reach_out(self, target: Target) -> socket.socket | _No:
        """A connection to it, or why there is none."""
        if not self._reach.allows(target):
            self._tell(f"a connection to {target}, which 'network' of its sandbox does not list")
            return _No(
                Outcome.REFUSED, f"The sandbox does not allow {target}: 'network' does not list it."
            )
        try:
            async with asyncio.timeout(self._limits.connect_s):
                addresses = self._reach.addresses_of(target)
                if not addresses:
                    found = await self._resolve(target.host, target.port)
                    addresses = tuple(
                        one for one in found if self._reach.allows_address(one, target.port)
                    )
                    if found and not addresses:
                        self._tell(
                            f"a connection to {target}, which leads to {found[0]}: no address of"
                            " the open internet, and 'network' of its sandbox does not list it"
                        )
                        return _No(
                            Outcome.REFUSED,
                            f"The sandbox does not allow {target}: it leads to {found[0]}, which"
                            " 'network' does not list.",
                        )
                return await self._connect(addresses[:_MOST_ADDRESSES], target.port)
        except OSError as error:
            log.debug("a confined server does not reach %s: %r", target, error)
            return _No(Outcome.UNREACHABLE, f"{target} cannot be reached: {_text_of(error)}.")

    async def _connect(self, addresses: Sequence[Address], port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        last: OSError = OSError(errno.EHOSTUNREACH, "it has no address")
        for address in addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            far = socket.socket(family, socket.SOCK_STREAM)
            try:
                far.setblocking(False)
                async with asyncio.timeout(self._limits.address_s):
                    # To the address that was checked: nothing is resolved again.
                    await loop.sock_connect(far, (str(address), port))
            except OSError as error:
                far.close()
                last = error
            except BaseException:
                far.close()
                raise
            else:
                return far
        raise last

    def _tell(self, what: str) -> None:
        if self._refused is None or what in self._told or len(self._told) > _MOST_TOLD:
            return
        self._told.add(what)
        if len(self._told) > _MOST_TOLD:
            what = "more connections, of which nothing is told any more"
        self._refused(what)

    # --- carrying ---------------------------------------------------------------------------------

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Carry in both directions until both have ended, or nothing moves any more."""
        loop = asyncio.get_running_loop()
        wait_s = self._limits.idle_s

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            nonlocal wait_s
            while chunk := await source.read(CHUNK_BYTES):
                sink.write(chunk)
                await sink.drain()
                bound.reschedule(loop.time() + wait_s)
            sink.write_eof()
            wait_s = self._limits.half_closed_s
            bound.reschedule(loop.time() + wait_s)

        try:
            async with asyncio.timeout(wait_s) as bound, asyncio.TaskGroup() as both:
                both.create_task(pump(reader, far_writer))
                both.create_task(pump(far_reader, writer))
        except* OSError as group:
            # What one side has broken off ends for the other, too, and not as if it were whole.
            for one in (writer, far_writer):
                _break_off(one)
            log.debug("a connection of a confined server is over: %r", group.exceptions[0])


@dataclass(frozen=True, slots=True)
class _No:
    outcome: Outcome
    why: str


class _opened:  # noqa: N801 - used as a function
    """Streams over a connected socket, closed at the end whatever happens."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=CHUNK_BYTES)
        except BaseException:
            self._sock.close()
            raise
        return reader, self._writer

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._writer.transport.abort()
        else:
            self._writer.close()
        # Nothing is left to send, or nobody who would read it.
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _break_off(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, AttributeError):
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()


def _text_of(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or str(error)


class Resolver:
    """The system's resolver, in threads of its own: the loop's are for the host."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_RESOLVERS)

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """The addresses of a name, in the system's order. Raises OSError: it has none."""
        loop = asyncio.get_running_loop()
        await self._free.acquire()
        done: asyncio.Future[Sequence[Address]] = loop.create_future()

        def finish(found: Sequence[Address], error: OSError | None) -> None:
            # Not before the thread has ended, however long ago whoever asked has given up.
            self._free.release()
            if done.done():
                return
            if error is None:
                done.set_result(found)
            else:
                done.set_exception(error)

        def work() -> None:
            found: list[Address] = []
            error: OSError | None = None
            try:
                for _, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                    # An address of one interface alone is none that anybody lists.
                    if "%" not in str(place[0]):
                        found.append(ipaddress.ip_address(place[0]))
            except (OSError, UnicodeError) as raised:
                error = raised if isinstance(raised, OSError) else OSError(str(raised))
            # The loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, found, error)

        threading.Thread(target=work, name="dragoman-resolve", daemon=True).start()
        return await done
