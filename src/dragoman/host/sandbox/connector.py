"""Starting a confined server; one that may reach some hosts with a gatekeeper beside it.

What is started is `launch.py`, which becomes bubblewrap. With a list of hosts it makes a network of
its own before that. The sockets that listen in it come out through a door, a Unix socket that is
there until they have come and that the sandbox does not show; from then on the gatekeeper takes the
connections. Nothing runs in the sandbox but the server, and no way leads out of it but those.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import shutil
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dragoman.errors import LinkError, Misconfigured
from dragoman.host.sandbox.bubblewrap import NO_NETWORK, Confined
from dragoman.host.sandbox.gatekeeper import Gatekeeper
from dragoman.host.sandbox.targets import LOCALHOST, Reach, Target
from dragoman.transport.around import LinkAround
from dragoman.transport.base import Connector, Link
from dragoman.transport.stdio.child import StdioConnector

__all__ = ["ConfinedConnector", "Opening", "openings", "starter"]

log = logging.getLogger("dragoman.host")

# 10 s, as the other side waits: a process that starts and a few system calls.
_DOOR_S = 10.0
# Without what a variable or a package might add to it.
_LAUNCH = ("-I", "-S", str(Path(__file__).with_name("launch.py")))
# What a path of a Unix socket may have, with its last zero byte; unix(7).
_MAX_SOCKET_PATH = 107
# Of this machine's own 127/8, so that no real host is hidden: the proxy, and one for each name.
_INSIDE = "127.64.0.{}"

# Both spellings: programs differ. `ALL_PROXY` is an HTTP proxy, too: some libraries fail at once on
# "socks5h" when they lack a package.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_NOT_PROXIED = "localhost,127.0.0.1,::1"


@dataclass(frozen=True, slots=True)
class Opening:
    """Where to listen in the sandbox, and for whom; None: for whomever a program asks for."""

    address: str
    port: int
    target: Target | None


def openings(reach: Reach) -> tuple[tuple[Opening, ...], str]:
    """Where a sandbox has to listen, and its /etc/hosts.

    Each name that is listed leads to an address of its own in there, so that a program which knows
    of no proxy reaches it as anywhere else; an address is its own. Patterns need the proxy.
    """
    listed = {one.host for one in reach.targets}
    free = (place for number in range(1, 256) if (place := _INSIDE.format(number)) not in listed)
    proxy = Opening(next(free), 0, None)
    found = {(proxy.address, 0): proxy}
    places = {LOCALHOST: "127.0.0.1"}
    lines = [f"127.0.0.1 {LOCALHOST} sandbox"]
    for target in reach.targets:
        if target.is_pattern:
            continue
        if target.address is None and target.host not in places:
            places[target.host] = next(free)
            lines.append(f"{places[target.host]} {target.host}")
        place = places.get(target.host, target.host)
        # "localhost" and its address may both be listed: it is the same.
        found.setdefault((place, target.port), Opening(place, target.port, target))
    return tuple(found.values()), "\n".join(lines) + "\n"


def starter(
    confined: Confined,
    reach: Reach,
    *,
    stderr: Callable[[str], object] | None = None,
    refused: Callable[[str], object] | None = None,
) -> Connector:
    """How to start a confined server.

    `refused` is told what it tried to reach and may not.

    Raises:
        Misconfigured: there is no interpreter to start it with.
    """
    if not reach.targets:
        return StdioConnector(
            command=_interpreter(),
            args=(*_launch(confined), "--", confined.command, *confined.args),
            env=confined.env,
            cwd=confined.cwd,
            stderr=stderr,
        )
    return ConfinedConnector(
        confined,
        reach,
        stderr=stderr,
        make_gatekeeper=functools.partial(Gatekeeper, refused=refused),
    )


class ConfinedConnector:
    """Starts a server and its gatekeeper; each `connect` starts both anew.

    Raises:
        Misconfigured: there is no interpreter to start it with.
    """

    __slots__ = ("_confined", "_interpreter", "_make_gatekeeper", "_reach", "_stderr")

    def __init__(
        self,
        confined: Confined,
        reach: Reach,
        *,
        stderr: Callable[[str], object] | None = None,
        make_gatekeeper: Callable[[Reach], Gatekeeper] = Gatekeeper,
    ) -> None:
        self._confined = confined
        self._reach = reach
        self._interpreter = _interpreter()
        self._stderr = stderr
        self._make_gatekeeper = make_gatekeeper

    @property
    def description(self) -> str:
        """The command line, for people."""
        return " ".join([self._confined.command, *self._confined.args])

    async def connect(self) -> Link:
        """Start the server.

        Raises:
            CannotStart: there is no such program.
            LinkError: there is no place for the door.
        """
        found, hosts = openings(self._reach)
        try:
            door = _Door(found, hosts, self._confined)
        except OSError as error:
            raise LinkError(f"the sandbox cannot be made: {error}", sent=False) from error
        try:
            # Nothing waits in here: whoever cancels this finds a link or no process at all.
            link = await StdioConnector(
                command=self._interpreter,
                args=(*_launch(self._confined), door.path),
                env=self._confined.env,
                cwd=self._confined.cwd,
                stderr=self._stderr,
            ).connect()
        except BaseException:
            door.close()
            raise
        return _ConfinedLink(link, link.pid, door, self._make_gatekeeper(self._reach))


class _ConfinedLink(LinkAround):
    """The link to a confined server, with what belongs to it."""

    __slots__ = ("_door", "_gatekeeper", "_opening")

    def __init__(self, link: Link, pid: int, door: _Door, gatekeeper: Gatekeeper) -> None:
        super().__init__(link)
        self._door = door
        self._gatekeeper = gatekeeper
        self._opening = asyncio.get_running_loop().create_task(door.hand_over(pid, gatekeeper))

    async def aclose(self) -> None:
        """End it, and what belongs to it."""
        try:
            await super().aclose()
        finally:
            self._opening.cancel()
            await asyncio.wait([self._opening])
            self._door.close()
            await self._gatekeeper.aclose()


class _Door:
    """A Unix socket through which listening sockets come out of a network; used once."""

    def __init__(self, found: Sequence[Opening], hosts: str, confined: Confined) -> None:
        self._openings = found
        self._plan = _plan(found, hosts, confined)
        self._folder = _private_folder()
        self.path = os.path.join(self._folder, "d")
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listening.bind(self.path)
            self._listening.listen(1)
            self._listening.setblocking(False)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._listening.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def hand_over(self, pid: int, gatekeeper: Gatekeeper) -> None:
        """Tell the process `pid` what to do, and take the sockets that it opens.

        When it comes to nothing the process says why on its stderr, and ends.
        """
        try:
            async with asyncio.timeout(_DOOR_S):
                with await self._opened_by(pid) as channel:
                    loop = asyncio.get_running_loop()
                    await loop.sock_sendall(channel, self._plan)
                    taken = await self._take(channel)
                    if taken is None:
                        return
                    for sock, one in zip(taken, self._openings, strict=True):
                        gatekeeper.serve(sock, one.target)
                    # Before it goes on: what it becomes must find the door shut.
                    self.close()
                    await loop.sock_sendall(channel, b"G")
        except OSError as error:
            log.warning("a sandbox was not opened: %s", error)
        finally:
            self.close()

    async def _opened_by(self, pid: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        while True:
            channel, _ = await loop.sock_accept(self._listening)
            credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            if struct.unpack("iII", credentials)[0] == pid:
                return channel
            # Whoever it is, it is not the one that was started.
            channel.close()

    async def _take(self, channel: socket.socket) -> list[socket.socket] | None:
        """The sockets, in the order of the openings; None when the process has given up."""
        await _readable(channel)
        said, numbers, _, _ = socket.recv_fds(channel, 1, len(self._openings))
        with contextlib.ExitStack() as unwanted:
            for number in numbers:
                unwanted.callback(os.close, number)
                # They arrive as any program that this process starts would have them.
                os.set_inheritable(number, False)
            if not said or len(numbers) != len(self._openings):
                return None
            if not all(map(_fits, numbers, self._openings)):
                return None
            unwanted.pop_all()
        return [socket.socket(fileno=number) for number in numbers]


def _fits(number: int, opening: Opening) -> bool:
    """Whether this descriptor is the socket that was to be opened."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return False
    # A second one for the look: closing it leaves the other.
    with socket.socket(fileno=os.dup(number)) as sock:
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        name = sock.getsockname()
    return name[:1] == (opening.address,) and opening.port in (0, name[1])


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(sock, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(sock)


def _plan(found: Sequence[Opening], hosts: str, confined: Confined) -> bytes:
    env = dict.fromkeys(_PROXIES, "http://{proxy}") | {"NO_PROXY": _NOT_PROXIED}
    env |= {name.lower(): value for name, value in env.items()}
    # Node asks for its proxy only when it is told to.
    env |= {"NODE_USE_ENV_PROXY": confined.env.get("NODE_USE_ENV_PROXY", "1")}
    options = [one for one in confined.args[: confined.options] if one != NO_NETWORK]
    addresses = {one.address for one in found if not _is_there(one.address)}
    plan = {
        "addresses": sorted(addresses),
        "listen": [(one.address, one.port) for one in found],
        "hosts": hosts,
        "argv": [confined.command, *options, *confined.args[confined.options :]],
        "at": 1 + len(options),
        "env": env,
    }
    return json.dumps(plan).encode() + b"\n"


def _is_there(address: str) -> bool:
    """Whether the loopback interface has that address anyway."""
    return address.startswith("127.") or address == "::1"


def _private_folder() -> str:
    """A folder that only this user may enter, with a path that is short enough for a socket."""
    for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
        if not place or len(os.fsencode(place)) > _MAX_SOCKET_PATH - len(
            "/dragoman-door-XXXXXXXX/d"
        ):
            continue
        with contextlib.suppress(OSError):
            return tempfile.mkdtemp(prefix="dragoman-door-", dir=place)
    raise OSError("there is no folder for a socket")


def _launch(confined: Confined) -> tuple[str, ...]:
    return (*_LAUNCH, "--ignore-term") if confined.resets_term else _LAUNCH


def _interpreter() -> str:
    """A Python that runs `launch.py`: this one, unless it is built into a program."""
    own = "" if getattr(sys, "frozen", False) else sys.executable
    found = own or shutil.which("python3")
    if not found:
        raise Misconfigured("a sandbox needs a Python interpreter to be started with")
    return found
