"""The legs of the run: the suite against one side of dragoman at one revision, in real processes."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from conformance.expected import client_checks, is_not_yet, server_checks
from conformance.judge import Check, Complaint, Outcome, Verdict, judge, read_checks
from conformance.suite import ROOT, Suite, SuiteError

__all__ = ["DONE", "LEGS", "Leg", "LegOutcome", "Targets", "run_leg"]

HERE = Path(__file__).resolve().parent

# The last words of our client: one that crashed after its checks would look well otherwise.
DONE = "scenario done"

# 60 s for one client: the suite starts up to 19 at once, on two cores.
CLIENT_TIMEOUT_S = 60

# 300 s for a leg: the slowest takes under ten alone.
LEG_TIMEOUT_S = 300.0

# 20 s: an interpreter with cold imports on a busy machine takes five.
READY_TIMEOUT_S = 20.0
POLL_S = 0.05

# 10 s: a server drains what is under way when it is told to stop, and nothing is.
STOP_TIMEOUT_S = 10.0

# What a person reads of a log: the last lines hold the reason, and --keep has the rest.
MAX_TAIL_LINES = 8

_STAMP = re.compile(r"-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z$")


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of the suite.

    `is_frozen` runs the set of scenarios that the revision requires; `is_pinned` makes our server speak
    that revision alone; `library` is what our client makes its requests with.
    """

    name: str
    side: Literal["server", "client"]
    wire: str
    is_frozen: bool = False
    is_pinned: bool = False
    library: str | None = None

    @property
    def expected(self) -> dict[str, frozenset[str]]:
        """What must be seen, scenario by scenario."""
        return (server_checks if self.side == "server" else client_checks)(self.wire)

    @property
    def selection(self) -> list[str]:
        """The suite's words for what this leg runs."""
        if self.is_frozen:
            return ["--requirements", self.wire]
        return ["--suite", "all", "--spec-version", self.wire]


LEGS = (
    Leg("server-2025-03-26", "server", "2025-03-26"),
    Leg("server-2025-06-18", "server", "2025-06-18"),
    Leg("server-2025-06-18-only", "server", "2025-06-18", is_pinned=True),
    Leg("server-2025-11-25", "server", "2025-11-25"),
    Leg("server-required-2025-11-25", "server", "2025-11-25", is_frozen=True),
    *(
        Leg(f"client-{wire}-{library}", "client", wire, library=library)
        for library in ("httpx2", "aiohttp")
        for wire in ("2025-03-26", "2025-06-18", "2025-11-25")
    ),
)


@dataclass(frozen=True, slots=True)
class Targets:
    """What is looked at: our fixtures, unless a running server or another client is named."""

    url: str | None = None
    client: str | None = None


@dataclass(slots=True)
class LegOutcome:
    """What became of a leg: its scenarios, and what is wrong with the leg as a whole."""

    leg: Leg
    scenarios: list[Outcome] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether everything that counts passed."""
        failed = any(one.verdict is Verdict.FAILED for one in self.scenarios)
        return not failed and not self.complaints


def run_leg(
    leg: Leg, suite: Suite, results: Path, targets: Targets, scenario: str | None = None
) -> LegOutcome:
    """Run a leg, and the same leg against nothing at all; `results` gets what the suite writes.

    Raises:
        SuiteError: the suite or the server does not start, or never ends.
    """
    start = time.monotonic()
    outcome = LegOutcome(leg)
    runner = _run_server if leg.side == "server" else _run_client
    dead_dir, live_dir = results / "dead", results / "live"
    selection = leg.selection
    if scenario is not None:
        selection = ["--scenario", scenario, "--spec-version", leg.wire]
    _run_dead(leg, suite, dead_dir, selection)
    outcome.complaints += runner(leg, suite, live_dir, selection, targets)

    dead = _collect(leg, dead_dir)
    live = _collect(leg, live_dir)
    expected = leg.expected
    wanted = expected.keys() if scenario is None else {scenario}
    ours = targets.client is None
    for name in sorted(live.keys() | wanted, key=lambda name: (is_not_yet(name), name)):
        place = live.get(name)
        faults = _client_faults(place) if leg.side == "client" and ours and place else ()
        outcome.scenarios.append(
            judge(
                name,
                _checks(place),
                _checks(dead.get(name)) or (),
                expected.get(name),
                faults=faults,
            )
        )
    outcome.seconds = time.monotonic() - start
    return outcome


# --- the suite against a server ---------------------------------------------------------------------


def _run_server(
    leg: Leg, suite: Suite, results: Path, selection: Sequence[str], targets: Targets
) -> list[Complaint]:
    if targets.url is not None:
        _must_answer(targets.url)
        _run_suite(suite, ["server", "--url", targets.url, *selection], results)
        return []
    results.mkdir(parents=True, exist_ok=True)
    log = results.parent / "server.log"
    complaints: list[Complaint] = []
    with _server(log, complaints, leg.wire if leg.is_pinned else None) as url:
        _run_suite(suite, ["server", "--url", url, *selection], results)
    said = log.read_text("utf-8", "replace")
    if "Traceback" in said:
        complaints.append(Complaint("", "the server logged a traceback", _tail(said)))
    return complaints


@contextlib.contextmanager
def _server(log: Path, complaints: list[Complaint], revision: str | None) -> Iterator[str]:
    """Our server in a process of its own, on a port that was free; complains if it does not last."""
    environment = {**os.environ, **({"CONFORMANCE_REVISION": revision} if revision else {})}
    port = _free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    if _answers(url):
        raise SuiteError(f"port {port} was free a moment ago and is taken now; run it again")
    command = [sys.executable, str(HERE / "server.py"), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            _wait_until_ready(process, url, log)
            yield url
            if (code := process.poll()) is not None:
                complaints.append(Complaint("", f"the server ended by itself with code {code}"))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                complaints.append(
                    Complaint(
                        "", f"the server did not stop within {STOP_TIMEOUT_S:.0f} s of SIGTERM"
                    )
                )


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _answers(url):
        if process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
            continue
        tail = _tail(log.read_text("utf-8", "replace"))
        how = "does not answer" if process.poll() is None else f"ended with {process.returncode}"
        raise SuiteError(f"the server {how}:\n{tail}")


def _answers(url: str) -> bool:
    """Whether an HTTP server answers there, whatever it says."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    try:
        connection.request("OPTIONS", parts.path)
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True
    finally:
        connection.close()


def _must_answer(url: str) -> None:
    if not _answers(url):
        raise SuiteError(f"nothing answers at {url}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- the suite against a client ---------------------------------------------------------------------


def _run_client(
    leg: Leg, suite: Suite, results: Path, selection: Sequence[str], targets: Targets
) -> list[Complaint]:
    # The interpreter itself: on a timeout the suite kills what it started, and nothing below that.
    ours = [
        sys.executable,
        str(HERE / "client.py"),
        *(["--http", leg.library] if leg.library else []),
    ]
    command = targets.client or _shell_words(ours)
    _run_suite(suite, ["client", "--command", command, *selection, *_PATIENCE], results)
    return []


_PATIENCE = ("--timeout", str(CLIENT_TIMEOUT_S * 1000))


def _shell_words(command: Sequence[str]) -> str:
    """A command line as the suite hands it to the shell."""
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def _client_faults(place: Path) -> list[Complaint]:
    """What the checks do not show: a client that crashed after them, or that complained."""
    said = _text(place / "stdout.txt")
    complained = _text(place / "stderr.txt").strip()
    faults: list[Complaint] = []
    if DONE not in said.splitlines():
        faults.append(Complaint("", "the client did not get to its end", _tail(complained)))
    elif complained:
        faults.append(Complaint("", "the client wrote to stderr", _tail(complained)))
    return faults


def _tail(said: str) -> str:
    return "\n".join(said.strip().splitlines()[-MAX_TAIL_LINES:])


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


# --- running the suite ------------------------------------------------------------------------------


def _run_dead(leg: Leg, suite: Suite, results: Path, selection: Sequence[str]) -> None:
    """The leg against nothing: a port where nobody listens, or a client that ends at once."""
    if leg.side == "client":
        command = _shell_words([sys.executable, "-c", "pass"])
        _run_suite(suite, ["client", "--command", command, *selection, *_PATIENCE], results)
        return
    with socket.socket() as nobody:
        # Bound and not listening: connections are refused, and nobody else can take the port.
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/mcp"
        _run_suite(suite, ["server", "--url", url, *selection], results)


def _run_suite(suite: Suite, arguments: Sequence[str], results: Path) -> None:
    """Run the suite to its end. Its exit status is its own opinion; what it wrote is judged here."""
    results.mkdir(parents=True, exist_ok=True)
    command = suite.command(*arguments, "-o", str(results))
    try:
        done = subprocess.run(
            command,
            cwd=results,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LEG_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise SuiteError(f"the suite took more than {LEG_TIMEOUT_S:.0f} s") from late
    (results.parent / f"{results.name}.log").write_bytes(done.stdout)
    if not any(results.rglob("*Z")):
        tail = _tail(done.stdout.decode("utf-8", "replace"))
        raise SuiteError(f"the suite ran no scenario and ended with {done.returncode}:\n{tail}")


def _collect(leg: Leg, results: Path) -> dict[str, Path]:
    """The directory of each scenario that was run."""
    found: dict[str, Path] = {}
    for place in results.rglob("*Z"):
        name = place.relative_to(results).as_posix()
        if place.is_dir() and _STAMP.search(name):
            name = _STAMP.sub("", name)
            found[name.removeprefix("server-") if leg.side == "server" else name] = place
    return found


def _checks(place: Path | None) -> list[Check] | None:
    if place is None:
        return None
    try:
        return read_checks((place / "checks.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
