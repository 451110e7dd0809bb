"""Which libraries are measured, where they are installed, and the command lines that start them.

Peers come from ``interop/peers.py``. dragoman, and the floor, which shares its interpreter, get two
fresh environments of their own: as installed by ``pip install``, without and with pydantic. They are
made again when the sources change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

    @property
    def is_node(self) -> bool:
        """Whether it runs on node."""
        return self.server.endswith(".mjs")


_ALL = frozenset({"quickstart", "calls", "models", "list"})

LIBRARIES: tuple[Library, ...] = (
    Library(FLOOR, None, "floor.py", "floor.py", _ALL),
    Library(
        OURS,
        None,
        "dragoman_high.py",
        "dragoman_client.py",
        _ALL,
        in_memory=True,
        imports="from dragoman import Server",
    ),
    Library(
        MCP,
        "mcp-2.3",
        "mcp_high.py",
        "mcp_client.py",
        _ALL,
        in_memory=True,
        imports="from mcp.server import MCPServer",
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
    Library(TS_2, "ts-2", "ts2.mjs", "ts2.mjs", _ALL),
)


@dataclass(frozen=True, slots=True)
class Places:
    """Interpreters and directories, once everything is installed."""

    core: Path
    with_pydantic: Path
    peers: dict[str, Path]

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

    def client(self, library: Library, how: str, calls: int, window: int) -> list[str]:
        """The command line of its client, against the floor's server or its own in memory."""
        assert library.client is not None
        script = self._script(library, "clients", library.client)
        own = [self.interpreter(library), str(script), how, str(calls), str(window)]
        if how != "stdio":
            return own
        return [*own, str(self.core), str(HERE / "servers" / "floor.py"), "calls"]

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


def prepare(libraries: Sequence[Library], here: bool, say: Callable[[str], None]) -> Places:
    """Make what is missing. ``here`` takes the running interpreter for dragoman and the floor.

    Raises `EnvironmentFault`.
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
    if here:
        return Places(Path(sys.executable), Path(sys.executable), peers)
    say("dragoman, freshly installed")
    core, with_pydantic = _own(cache)
    return Places(core, with_pydantic, peers)


def _own(cache: Path) -> tuple[Path, Path]:
    """The two environments with dragoman as users get it, made again when the sources changed."""
    home = cache / "bench"
    core, rich = home / "core", home / "pydantic"
    stamp, mark = home / "stamp.json", {"sources": _fingerprint(), "python": sys.version}
    try:
        if json.loads(stamp.read_text("utf-8")) == mark:
            return _python(core), _python(rich)
    except (OSError, ValueError):
        pass
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    _run([sys.executable, "-m", "venv", str(core)])
    _run([sys.executable, "-m", "venv", str(rich)])
    pip = ["-m", "pip", "--disable-pip-version-check", "--no-input", "-q"]
    _run([str(_python(core)), *pip, "wheel", "--no-deps", "-w", str(home), str(ROOT)])
    wheel = str(next(home.glob("dragoman-*.whl")))
    _run([str(_python(core)), *pip, "install", wheel])
    _run([str(_python(rich)), *pip, "install", wheel, "pydantic"])
    stamp.write_text(json.dumps(mark), "utf-8")
    return _python(core), _python(rich)


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


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
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
