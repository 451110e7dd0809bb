"""Which libraries are measured, where they are installed, and the command lines that start them.

Peers come from ``interop/peers.py``; as web servers they get environments of their own, with the web
server that dragoman runs on. dragoman, and the floor, which shares its interpreter, get three fresh
environments: as installed by ``pip install``, without and with pydantic, and with the extras for HTTP.
They are made again when the sources change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent

# Building a wheel and two environments takes a quarter of a minute; past this the registry hangs.
INSTALL_TIMEOUT_S = 600.0

FLOOR = "floor"
OURS = "dragoman"
MCP = "mcp 2.3"
MCP_LOW = "mcp 2.3 low level"
FASTMCP = "fastmcp 4.1"
TS_1 = "TypeScript 1.32"
TS_2 = "TypeScript 2.4"


class EnvironmentFault(Exception):
    """An environment could not be made; the text has the installer's last words."""


@dataclass(frozen=True, slots=True)
class Library:
    """One implementation: its peer (or None for ours) and its programs."""

    name: str
    peer: str | None
    server: str
    client: str | None
    modes: frozenset[str]
    in_memory: bool = False
    imports: str | None = None
    http: str | None = None
    remote: bool = False

    @property
    def is_node(self) -> bool:
        """Whether it runs on node."""
        return self.server.endswith(".mjs")


_ALL = frozenset({"quickstart", "calls", "models", "list"})

LIBRARIES: tuple[Library, ...] = (
    Library(FLOOR, None, "floor.py", "floor.py", _ALL, http="floor_http.py", remote=True),
    Library(
        OURS,
        None,
        "dragoman_high.py",
        "dragoman_client.py",
        _ALL,
        in_memory=True,
        imports="from dragoman import Server",
        http="dragoman_http.py",
        remote=True,
    ),
    Library(
        MCP,
        "mcp-2.3",
        "mcp_high.py",
        "mcp_client.py",
        _ALL,
        in_memory=True,
        imports="from mcp.server import MCPServer",
        http="mcp_http.py",
        remote=True,
    ),
    Library(MCP_LOW, "mcp-2.3", "mcp_low.py", None, _ALL - {"models"}),
    Library(
        FASTMCP,
        "fastmcp-4.1",
        "fastmcp_high.py",
        "fastmcp_client.py",
        _ALL,
        in_memory=True,
        imports="from fastmcp import FastMCP",
    ),
    Library(TS_1, "ts-1", "ts1.mjs", "ts1.mjs", _ALL),
    Library(TS_2, "ts-2", "ts2.mjs", "ts2.mjs", _ALL, http="ts2_http.mjs", remote=True),
)


# What the servers of the HTTP benchmark need besides the peer: the same web server as ours, and for node
# the SDK's own adapter to node:http, whose 2.1 is the line that goes with 2.4 of the rest.
WEB = ("uvicorn", "uvloop", "httptools")
HTTP_PEERS: dict[str, tuple[str, ...]] = {
    "mcp-2.3": ("mcp==2.3.0",),
    "ts-2": (
        "@modelcontextprotocol/server@2.4.0",
        "@modelcontextprotocol/node@2.1.2",
        "zod@4.4.3",
    ),
}


@dataclass(frozen=True, slots=True)
class Places:
    """Interpreters and directories, once everything is installed."""

    core: Path
    with_pydantic: Path
    peers: dict[str, Path]
    with_http: Path = Path()
    http_peers: dict[str, Path] = field(default_factory=dict)

    def interpreter(self, library: Library, mode: str = "") -> str:
        """The program that runs this library's scripts."""
        if library.is_node:
            return shutil.which("node") or "node"
        if library.peer is not None:
            return str(_python(self.peers[library.peer] / "env"))
        return str(self.with_pydantic if mode == "models" else self.core)

    def server(self, library: Library, mode: str) -> list[str]:
        """The command line of its server."""
        script = self._script(library, "servers", library.server)
        return [self.interpreter(library, mode), str(script), mode]

    def http_server(self, library: Library, mode: str, how: str) -> list[str]:
        """The command line of its HTTP server: ``json``, ``sse`` or ``client-sse``; ``fast`` or ``plain``."""
        assert library.http is not None
        if library.peer is None:
            interpreter, folder = str(self.with_http), HERE / "servers"
        elif library.is_node:
            interpreter, folder = self.interpreter(library), self.http_peers[library.peer]
        else:
            interpreter = str(_python(self.http_peers[library.peer] / "env"))
            folder = HERE / "servers"
        return [interpreter, str(folder / library.http), mode, how]

    def client(
        self, library: Library, how: str, calls: int, window: int, url: str = ""
    ) -> list[str]:
        """The command line of its client: against the floor's server, its own in memory, or ``url``."""
        assert library.client is not None
        script = self._script(library, "clients", library.client)
        interpreter = self.interpreter(library)
        if url and library.peer is None:
            interpreter = str(self.with_http)
        own = [interpreter, str(script), how, str(calls), str(window)]
        if url:
            return [*own, url]
        if how != "stdio":
            return own
        return [*own, str(self.core), str(HERE / "servers" / "floor.py"), "calls"]

    def host(self, what: str, *arguments: str) -> list[str]:
        """The command line of the host's program; our server of a hundred tools is what it starts."""
        script, server = (
            HERE / "clients" / "dragoman_host.py",
            HERE / "servers" / "dragoman_high.py",
        )
        own = str(self.core)
        return [own, str(script), what, *arguments, own, str(server), "list"]

    def _script(self, library: Library, folder: str, name: str) -> Path:
        if not library.is_node:
            return HERE / folder / name
        # Node looks packages up from the folder of the script: run a copy that lives beside them.
        assert library.peer is not None
        copies = self.peers[library.peer] / "bench" / folder
        return copies / name


def clean_environment() -> dict[str, str]:
    """This process's environment without what would lead a child to our own packages."""
    unwanted = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NODE_PATH", "PYTHONDONTWRITEBYTECODE"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def prepare(
    libraries: Sequence[Library], here: bool, http: bool, say: Callable[[str], None]
) -> Places:
    """Make what is missing. ``here`` takes the running interpreter for dragoman and the floor.

    ``http``: also what the servers of the HTTP sections need. Raises `EnvironmentFault`.
    """
    peers: dict[str, Path] = {}
    wanted = sorted({one.peer for one in libraries if one.peer is not None})
    if wanted:
        script = str(ROOT / "interop" / "peers.py")
        only = [part for name in wanted for part in ("--only", name)]
        say("peers")
        _run([sys.executable, script, *only])
        listed = json.loads(_run([sys.executable, script, "--json", *only]))
        peers = {one["name"]: Path(one["directory"]) for one in listed["peers"]}
        cache = Path(listed["cache"])
    else:
        cache = ROOT / ".peers"
    for library in libraries:
        if library.is_node and library.peer is not None:
            for folder in ("servers", "clients"):
                copies = peers[library.peer] / "bench" / folder
                copies.mkdir(parents=True, exist_ok=True)
                for source in (HERE / folder).glob("*.mjs"):
                    shutil.copyfile(source, copies / source.name)
    http_peers: dict[str, Path] = {}
    if http:
        for library in libraries:
            if library.http is not None and library.peer is not None:
                say(f"{library.name} as a web server")
                http_peers[library.peer] = _http_peer(cache, library)
    if here:
        running = Path(sys.executable)
        return Places(running, running, peers, running, http_peers)
    say("dragoman, freshly installed")
    core, with_pydantic, with_http = _own(cache)
    return Places(core, with_pydantic, peers, with_http, http_peers)


def _own(cache: Path) -> tuple[Path, Path, Path]:
    """The three environments with dragoman as users get it, made again when the sources changed."""
    home = cache / "bench"
    core, rich, web = home / "core", home / "pydantic", home / "http"
    pythons = _python(core), _python(rich), _python(web)
    mark = {"sources": _fingerprint(), "python": sys.version, "web": _pinned(WEB)}
    stamp = home / "stamp.json"
    if _is_stamped(stamp, mark):
        return pythons
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for one in (core, rich, web):
        _run([sys.executable, "-m", "venv", str(one)])
    _run([str(_python(core)), *_PIP, "wheel", "--no-deps", "-w", str(home), str(ROOT)])
    wheel = str(next(home.glob("dragoman-*.whl")))
    _run([str(_python(core)), *_PIP, "install", wheel])
    _run([str(_python(rich)), *_PIP, "install", wheel, "pydantic"])
    _run([str(_python(web)), *_PIP, "install", f"{wheel}[http,fast]", *_pinned(WEB)])
    stamp.write_text(json.dumps(mark), "utf-8")
    return pythons


def _http_peer(cache: Path, library: Library) -> Path:
    """An environment of its own for a peer's HTTP server; interoperability keeps the bare one."""
    assert library.peer is not None
    assert library.http is not None
    home = cache / f"{library.peer}-http"
    packages = list(HTTP_PEERS[library.peer])
    if not library.is_node:
        packages += _pinned(WEB)
    mark = {"packages": packages, "python": "" if library.is_node else sys.version}
    stamp = home / "stamp.json"
    if not _is_stamped(stamp, mark):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        if library.is_node:
            wanted = dict(one.rsplit("@", 1) for one in packages)
            manifest = {"name": "dragoman-bench-http", "private": True, "dependencies": wanted}
            (home / "package.json").write_text(json.dumps(manifest), "utf-8")
            flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
            _run(["npm", "install", *flags, "--no-progress", "--loglevel=error"], home)
        else:
            _run([sys.executable, "-m", "venv", str(home / "env")])
            _run([str(_python(home / "env")), *_PIP, "install", *packages])
        stamp.write_text(json.dumps(mark), "utf-8")
    if library.is_node:
        # Node looks packages up from the folder of the script.
        shutil.copyfile(HERE / "servers" / library.http, home / library.http)
    return home


_PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]


def _pinned(names: Sequence[str]) -> list[str]:
    """These distributions at the versions of ``constraints.txt``."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0] in names]


def _is_stamped(stamp: Path, mark: object) -> bool:
    try:
        return bool(json.loads(stamp.read_text("utf-8")) == mark)
    except (OSError, ValueError):
        return False


def _fingerprint() -> str:
    """A digest of everything that goes into the wheel."""
    digest = hashlib.sha256()
    files = [ROOT / "pyproject.toml", *sorted((ROOT / "src").rglob("*"))]
    for path in files:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _run(command: Sequence[str], cwd: Path = ROOT) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).strip()[-2000:]
        raise EnvironmentFault(f"{' '.join(command)} ended with code {done.returncode}:\n{tail}")
    return done.stdout
