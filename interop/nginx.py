"""Find nginx for the tests behind a reverse proxy, or unpack one beside the peers.

nginx is taken from the PATH. Where it is missing and the system is a Debian or Ubuntu, its package is
downloaded and unpacked under the peers' cache; nothing is installed and no service is started. Without
either, the tests behind a proxy are skipped, and `make interop` says so.

    python interop/nginx.py      say which nginx there is; unpack one if there is none
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from interop.peers import PeerError, cache

# Newer distributions have the program in the first, older ones in the second.
PACKAGES = ("nginx", "nginx-light")

# Half a megabyte from a mirror, after the lists of packages were renewed.
STEP_TIMEOUT_S = 120.0


def find() -> Path | None:
    """The program, if there is one that runs."""
    unpacked = cache() / "nginx" / "usr" / "sbin" / "nginx"
    for path in (shutil.which("nginx"), str(unpacked)):
        if path is not None and _version(path) is not None:
            return Path(path)
    return None


def make() -> Path:
    """The program, unpacked when there is none. Raises `PeerError` with what is missing."""
    found = find()
    if found is not None:
        return found
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PeerError(f"nginx is not on the PATH, and without {tool} it cannot be fetched")
    renewed = False
    while True:
        fault = ""
        for package in PACKAGES:
            fault = _unpack(package)
            found = find()
            if found is not None:
                return found
        if renewed or os.geteuid() != 0:
            raise PeerError(f"nginx is not on the PATH, and apt-get cannot fetch it: {fault}")
        # A fresh container knows of no packages.
        _run(["apt-get", "update", "--quiet=2"], Path.cwd())
        renewed = True


def describe(path: Path) -> str:
    """The program and its version, for people."""
    return f"{_version(str(path))} at {path}"


def _unpack(package: str) -> str:
    """Download a package and unpack it; what went wrong, or nothing."""
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as place:
        fault = _run(["apt-get", "download", "--quiet=2", package], Path(place))
        for archive in Path(place).glob("*.deb"):
            fault = _run(["dpkg-deb", "-x", str(archive), str(cache() / "nginx")], Path(place))
    return fault


def _run(command: list[str], directory: Path) -> str:
    """What a command that failed wrote last; nothing if it did not fail."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip()[-300:]


def _version(path: str) -> str | None:
    """What the program says it is; None if it does not start."""
    try:
        done = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    return done.stderr.strip().removeprefix("nginx version: ") if done.returncode == 0 else None


def main() -> int:
    """Run the command line; always 0, since the tests do without."""
    try:
        print(f"nginx  ready: {describe(make())}", flush=True)
    except PeerError as fault:
        print(f"nginx  SKIPPED, and with it the tests behind a proxy: {fault}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
