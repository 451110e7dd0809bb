"""Make each interoperability peer its own environment, once, and say how to start programs in it.

A peer is another implementation of the protocol at one pinned version: a Python distribution in a virtual
environment, or npm packages in a directory. Peers live under ``.peers/`` in the repository, or under the
directory that ``DRAGOMAN_PEERS`` names. A peer whose stamp file matches its pinned specification and its
interpreter is left alone, so a second run does nothing; processes that run at the same time wait for each
other, one peer at a time. Only the standard library, ``pip``, ``node`` and ``npm`` are needed.

    python interop/peers.py                    make every peer
    python interop/peers.py --only mcp-1.6     make one (repeat the option for more)
    python interop/peers.py --list             name them and say which are ready
    python interop/peers.py --json             the same as one JSON document
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(__file__).resolve().parent / "programs"
STAMP = "dragoman-peer.json"

# A cold npm install of the largest peer takes under two minutes on a slow line; past this it hangs.
INSTALL_TIMEOUT_S = 900.0

# The oldest node that every npm peer runs on.
NODE_MIN = 20


class PeerError(Exception):
    """A peer cannot be made; the text says what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer: its name, ``"python"`` or ``"npm"``, its pinned packages and what it is for."""

    name: str
    kind: str
    packages: tuple[str, ...]
    about: str

    @property
    def directory(self) -> Path:
        """Where the peer is installed."""
        return cache() / self.name


# mcp 1.6 and 1.9 call a private hook of pydantic that 2.11 dropped.
_OLD_PYDANTIC = "pydantic<2.11"

PEERS: tuple[Peer, ...] = (
    Peer("mcp-1.6", "python", ("mcp==1.6.0", _OLD_PYDANTIC), "Python SDK, speaks 2024-11-05"),
    Peer("mcp-1.9", "python", ("mcp==1.9.4", _OLD_PYDANTIC), "Python SDK, speaks 2025-03-26"),
    Peer("mcp-1.22", "python", ("mcp==1.22.0",), "Python SDK, speaks 2025-06-18"),
    Peer("mcp-1.29", "python", ("mcp==1.29.0",), "Python SDK, speaks 2025-11-25"),
    Peer("mcp-2.3", "python", ("mcp==2.3.0",), "Python SDK, speaks up to 2026-07-28"),
    # 4.1.3 and later ask for a certifi so new that not every registry has it.
    Peer("fastmcp-4.1", "python", ("fastmcp==4.1.2",), "FastMCP on the Python SDK 2"),
    Peer(
        "ts-1",
        "npm",
        ("@modelcontextprotocol/sdk@1.32.2", "zod@4.4.3"),
        "TypeScript SDK, first line",
    ),
    Peer(
        "ts-2",
        "npm",
        (
            "@modelcontextprotocol/server@2.4.0",
            "@modelcontextprotocol/client@2.4.0",
            "zod@4.4.3",
        ),
        "TypeScript SDK, second line",
    ),
    Peer(
        "server-everything",
        "npm",
        ("@modelcontextprotocol/server-everything@2026.8.31",),
        "reference server with every feature",
    ),
    Peer(
        "server-filesystem",
        "npm",
        ("@modelcontextprotocol/server-filesystem@2026.8.31",),
        "reference server that reads roots",
    ),
    Peer(
        "server-memory",
        "npm",
        ("@modelcontextprotocol/server-memory@2026.8.31",),
        "reference server with structured results",
    ),
    Peer(
        "server-git",
        "python",
        ("mcp-server-git==2026.10.19",),
        "reference server on a repository, Python",
    ),
    Peer(
        "server-time",
        "python",
        ("mcp-server-time==2026.10.19",),
        "reference server without state, Python",
    ),
    Peer(
        "inspector",
        "npm",
        ("@modelcontextprotocol/inspector@2.12.0",),
        "the Inspector and its --cli",
    ),
)


def cache() -> Path:
    """The directory that holds the peers."""
    named = os.environ.get("DRAGOMAN_PEERS")
    return Path(named).resolve() if named else ROOT / ".peers"


def find(name: str) -> Peer:
    """The peer called ``name``. Raises `PeerError` with the known names."""
    for peer in PEERS:
        if peer.name == name:
            return peer
    known = ", ".join(peer.name for peer in PEERS)
    raise PeerError(f"no peer is called {name!r}; the peers are {known}")


def python(peer: Peer) -> Path:
    """The interpreter of a Python peer."""
    if os.name == "nt":
        return peer.directory / "env" / "Scripts" / "python.exe"
    return peer.directory / "env" / "bin" / "python"


def ready(peer: Peer) -> bool:
    """Whether the peer is installed exactly as pinned, for the interpreter in use."""
    try:
        stamp = json.loads((peer.directory / STAMP).read_text("utf-8"))
        return bool(stamp == _stamp(peer))
    except (OSError, ValueError, PeerError):
        return False


def program(name: str, script: str, *arguments: str) -> list[str]:
    """The command line that runs ``interop/programs/<script>`` inside the peer called ``name``.

    Node resolves a bare import from the file that holds it, so the scripts for npm peers are copied
    into the peer first. Raises `PeerError` if the peer is not ready.
    """
    peer = _need(name)
    source = PROGRAMS / script
    if peer.kind == "python":
        return [str(python(peer)), str(source), *arguments]
    copies = peer.directory / "programs"
    copies.mkdir(exist_ok=True)
    for module in PROGRAMS.glob("*.mjs"):
        # Written beside and renamed: another process may start the same copy at this moment.
        fresh = copies / f".{module.name}.{os.getpid()}.{threading.get_ident()}"
        fresh.write_bytes(module.read_bytes())
        fresh.replace(copies / module.name)
    return [_tool("node"), str(copies / script), *arguments]


def binary(name: str, package: str, *arguments: str) -> list[str]:
    """The command line of the first command that ``package`` installs in the npm peer ``name``.

    Raises `PeerError` if the peer is not ready.
    """
    peer = _need(name)
    home = peer.directory / "node_modules" / package
    commands = json.loads((home / "package.json").read_text("utf-8"))["bin"]
    entry = commands if isinstance(commands, str) else next(iter(commands.values()))
    return [_tool("node"), str((home / entry).resolve()), *arguments]


def module(name: str, package: str, *arguments: str) -> list[str]:
    """The command line that runs ``package`` of the Python peer ``name``, as ``python -m`` does.

    Raises `PeerError` if the peer is not ready.
    """
    return [str(python(_need(name))), "-m", package, *arguments]


def make(peer: Peer, *, timeout_s: float = INSTALL_TIMEOUT_S) -> bool:
    """Install ``peer`` unless it is ready; True if anything was done.

    Raises `PeerError` with the tail of the installer's output when it fails.
    """
    if ready(peer):
        return False
    with _locked(peer):
        if ready(peer):
            return False
        stamp = _stamp(peer)
        shutil.rmtree(peer.directory, ignore_errors=True)
        peer.directory.mkdir(parents=True)
        if peer.kind == "python":
            _make_python(peer, timeout_s)
        else:
            _make_npm(peer, timeout_s)
        # The stamp comes last: a build that was cut short has none and is made again.
        (peer.directory / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", "utf-8")
        return True


def _make_python(peer: Peer, timeout_s: float) -> None:
    environment = peer.directory / "env"
    _run([sys.executable, "-m", "venv", str(environment)], peer, timeout_s)
    pip = [str(python(peer)), "-m", "pip", "install"]
    flags = ["--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*pip, *flags, *peer.packages], peer, timeout_s)


def _make_npm(peer: Peer, timeout_s: float) -> None:
    wanted = dict(package.rsplit("@", 1) for package in peer.packages)
    manifest = {"name": f"dragoman-peer-{peer.name}", "private": True, "dependencies": wanted}
    (peer.directory / "package.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--no-progress"]
    _run([_tool("npm"), "install", *flags, "--loglevel=error"], peer, timeout_s)


def _run(command: Sequence[str], peer: Peer, timeout_s: float) -> None:
    """Run one installer step in the peer's directory, once more if it fails: registries drop connections."""
    for attempt in (1, 2):
        try:
            done = subprocess.run(
                command,
                cwd=peer.directory,
                env=_clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise PeerError(f"{' '.join(command)} took more than {timeout_s:.0f} s") from late
        if done.returncode == 0:
            return
        if attempt == 2:
            tail = done.stdout.decode("utf-8", "replace").strip()[-2000:]
            raise PeerError(f"{' '.join(command)} ended with code {done.returncode}:\n{tail}")


def _clean_environment() -> dict[str, str]:
    """This process's environment without what would make the peer see our own packages."""
    unwanted = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NODE_PATH", "__PYVENV_LAUNCHER__"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def _stamp(peer: Peer) -> dict[str, object]:
    """What the peer's stamp must say: the exact packages and what runs them."""
    if peer.kind == "python":
        runtime = f"python {sys.version.split()[0]} at {sys.base_prefix}"
    else:
        runtime = f"node {node_version().split('.')[0]}"
    return {"packages": list(peer.packages), "runtime": runtime}


_node_seen: list[str] = []


def node_version() -> str:
    """The version of node on this machine, ``"20.20.2"``.

    Raises `PeerError` if node is missing, does not start or is too old for the peers.
    """
    if not _node_seen:
        command = [_tool("node"), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        found = done.stdout.strip().removeprefix("v")
        if done.returncode != 0 or not found.split(".")[0].isdigit():
            raise PeerError(f"node does not start: {done.stderr.strip()[-500:]}")
        _node_seen.append(found)
    if int(_node_seen[0].split(".")[0]) < NODE_MIN:
        raise PeerError(f"node {_node_seen[0]} is too old, the npm peers need {NODE_MIN} or newer")
    return _node_seen[0]


def _tool(name: str) -> str:
    """The path of ``node`` or ``npm``. Raises `PeerError` if it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise PeerError(
            f"{name} was not found on PATH; install Node.js {NODE_MIN} or newer, which brings node and npm"
        )
    return path


def _need(name: str) -> Peer:
    peer = find(name)
    if not ready(peer):
        raise PeerError(f"peer {name} is not ready; run: python interop/peers.py --only {name}")
    return peer


@contextlib.contextmanager
def _locked(peer: Peer) -> Iterator[None]:
    """Hold the peer's lock file; the system drops it when a process dies, so none can go stale."""
    locks = cache() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / peer.name).open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:
                with contextlib.suppress(OSError):
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
                    break
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)


def describe(peer: Peer) -> dict[str, object]:
    """One peer as JSON: name, kind, packages, directory, whether it is ready, what starts it."""
    entry: dict[str, object] = {
        "name": peer.name,
        "kind": peer.kind,
        "packages": list(peer.packages),
        "about": peer.about,
        "directory": str(peer.directory),
        "ready": ready(peer),
    }
    if peer.kind == "python":
        entry["python"] = str(python(peer))
    else:
        entry["node"] = shutil.which("node")
    return entry


def _make_and_say(peer: Peer, width: int) -> bool:
    """Make one peer and print one line about it; False if it failed."""
    start = time.monotonic()
    try:
        done = make(peer)
    except (PeerError, OSError) as fault:
        print(f"{peer.name:<{width}}  FAILED: {fault}", file=sys.stderr, flush=True)
        return False
    how = f"made in {time.monotonic() - start:.0f} s" if done else "ready"
    print(f"{peer.name:<{width}}  {how}: {', '.join(peer.packages)}", flush=True)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if every peer asked for is ready, 1 if one failed, 2 for a wrong name."""
    parser = argparse.ArgumentParser(description="Make the interoperability peers of dragoman.")
    parser.add_argument("--only", action="append", metavar="NAME", help="this peer (repeatable)")
    parser.add_argument("--list", action="store_true", help="name the peers, make nothing")
    parser.add_argument(
        "--json", action="store_true", help="describe the peers as JSON, make nothing"
    )
    parser.add_argument("--jobs", type=int, default=3, help="peers made at the same time")
    options = parser.parse_args(argv)
    try:
        chosen = [find(name) for name in options.only] if options.only else list(PEERS)
    except PeerError as fault:
        print(fault, file=sys.stderr)
        return 2
    if options.json:
        print(
            json.dumps(
                {"cache": str(cache()), "peers": [describe(peer) for peer in chosen]}, indent=2
            )
        )
        return 0
    width = max(len(peer.name) for peer in chosen)
    if options.list:
        for peer in chosen:
            state = "ready" if ready(peer) else "-"
            print(f"{peer.name:<{width}}  {state:<5}  {', '.join(peer.packages)}  ({peer.about})")
        return 0
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        outcomes = list(pool.map(lambda peer: _make_and_say(peer, width), chosen))
    if not options.only:
        # No peer, and the tests do without: it says so where it cannot be had.
        subprocess.run([sys.executable, str(PROGRAMS.parent / "nginx.py")], check=False)
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
