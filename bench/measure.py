"""The measurements themselves, a function for each section.

Libraries take turns inside every round and the order moves by one each round, so that a noisy moment of
the machine hits all of them alike.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.driver import BenchError, ServerProcess
from bench.environments import FLOOR, LIBRARIES, MCP, OURS, Library, Places, clean_environment
from bench.http_driver import HttpServer
from bench.metrics import (
    ADDED,
    ALONE,
    BARE,
    BY_GRANT,
    BY_RULE,
    NINE,
    ONE_ENDS,
    ONE_SILENT,
    WITH_HTTPX,
    WITHOUT_HANDSHAKE,
    Results,
)

#: The newest revision with a handshake: every server here speaks it, so the wire is the same for all.
REVISION = "2025-11-25"

# A client program that takes longer than this hangs.
CLIENT_TIMEOUT_S = 120.0

# Calls of one burst of warming up; bursts go on for as long as a measured slice, so that caches and
# a just-in-time compiler settle before the clock starts.
WARM_UP_CALLS = 500

# Ascii, quotes, line ends and a little of the rest: what a file looks like inside JSON.
_PARAGRAPH = 'The "quick" brown fox\njumps over the lazy dog — naïve façade, 12345 67890 \\o/ 🦊.\n'


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    starts: int
    slice_s: float
    held: int

    @classmethod
    def full(cls) -> Effort:
        """A few minutes in all."""
        return cls(rounds=5, starts=11, slice_s=0.8, held=5000)

    @classmethod
    def quick(cls) -> Effort:
        """About a minute; figures move by a fifth from run to run."""
        return cls(rounds=2, starts=3, slice_s=0.25, held=1000)


@dataclass(slots=True)
class Bench:
    """What every section needs."""

    places: Places
    libraries: Sequence[Library]
    effort: Effort
    results: Results
    step: Callable[[str], None]

    def turns(self, rounds: int, having: Callable[[Library], bool]) -> Iterator[Library]:
        """Libraries, interleaved over rounds."""
        chosen = [library for library in self.libraries if having(library)]
        for n in range(rounds):
            shift = n % max(1, len(chosen))
            yield from chosen[shift:] + chosen[:shift]

    def spawn(self, library: Library, mode: str) -> ServerProcess:
        """A server of this library in this mode."""
        return ServerProcess(self.places.server(library, mode), env=clean_environment())

    @contextlib.contextmanager
    def attempt(self, section: str, library: Library, label: str = "") -> Iterator[None]:
        """Note a fault of the library instead of ending the run."""
        self.step(f"{section}: {label or library.name}")
        try:
            yield
        except (BenchError, OSError, subprocess.TimeoutExpired, ValueError) as fault:
            self.results.fail(section, label or library.name, str(fault).strip())

    def failed(self, section: str, library: Library) -> bool:
        """Whether it already failed in this section."""
        return library.name in self.results.failures.get(section, {})


# -- servers ---------------------------------------------------------------------------------------


def start(bench: Bench) -> None:
    """Spawn to `initialize` answered, for both kinds of server; resident memory of the first."""
    for mode in ("quickstart", "models"):
        for library in bench.libraries:
            if mode in library.modes:
                # Not counted: the first start compiles what no installer compiled.
                with bench.attempt("start", library), bench.spawn(library, mode) as server:
                    server.initialize(REVISION)
        able = [library for library in bench.libraries if mode in library.modes]
        for library in bench.turns(bench.effort.starts, able.__contains__):
            if bench.failed("start", library):
                continue
            with bench.attempt("start", library), bench.spawn(library, mode) as server:
                _, took = server.initialize(REVISION)
                bench.results.add(f"start.{mode}", library.name, took)
                if mode == "quickstart":
                    server.ask("ping", {})
                    bench.results.add("start.rss", library.name, server.memory_kb("VmRSS"))


def calls(bench: Bench) -> None:
    """`add`: one at a time, 64 and 512 in flight."""
    _calls(
        bench,
        "calls",
        "calls",
        "add",
        lambda n: {"a": n, "b": 1},
        lambda n: {"result": n + 1},
        (64, 512),
    )


def models(bench: Bench) -> None:
    """`order`: two items in, a receipt out."""

    def order(n: int) -> object:
        items = [
            {"sku": f"A-{n}", "quantity": 2, "price": 1.5},
            {"sku": f"B-{n}", "quantity": 1, "price": 0.25},
        ]
        return {"order": {"customer": f"customer {n}", "items": items, "express": True}}

    def receipt(n: int) -> object:
        return {"customer": f"customer {n}", "lines": 2, "total": 3.25}

    _calls(bench, "models", "models", "order", order, receipt, (64,))


def _calls(
    bench: Bench,
    section: str,
    mode: str,
    tool: str,
    arguments: Callable[[int], object],
    result: Callable[[int], object],
    windows: Sequence[int],
) -> None:
    effort, results = bench.effort, bench.results
    with contextlib.ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        sizes: dict[tuple[str, int], int] = {}

        def prepared(server: ServerProcess, count: int) -> list[bytes]:
            return server.calls(tool, [arguments(n) for n in range(count)])

        for library in bench.libraries:
            if mode not in library.modes:
                continue
            with bench.attempt(section, library):
                server = stack.enter_context(bench.spawn(library, mode))
                server.initialize(REVISION)
                spent = 0.0
                while spent < effort.slice_s:
                    warm = server.burst(prepared(server, WARM_UP_CALLS), 64)
                    server.check(warm.replies, result)
                    spent += warm.wall_s
                one, replies = server.one_at_a_time(prepared(server, 50))
                server.check(replies, result)
                sizes[library.name, 1] = _size(sorted(one)[25], effort.slice_s / 2, 2_000)
                for window in windows:
                    sizes[library.name, window] = _size(
                        warm.wall_s / warm.calls, effort.slice_s, 80_000
                    )
                servers[library.name] = server
        each: dict[str, list[float]] = {}
        for library in bench.turns(effort.rounds, lambda one: one.name in servers):
            if bench.failed(section, library):
                continue
            server = servers[library.name]
            with bench.attempt(section, library):
                took, replies = server.one_at_a_time(prepared(server, sizes[library.name, 1]))
                server.check(replies, result)
                each.setdefault(library.name, []).extend(took)
                results.add(f"{section}.p50", library.name, sorted(took)[len(took) // 2])
                for window in windows:
                    run = server.burst(prepared(server, sizes[library.name, window]), window)
                    server.check(run.replies, result)
                    results.add(f"{section}.{window}", library.name, run.calls / run.wall_s)
                    if window == 64:
                        results.add(f"{section}.cpu", library.name, run.server_cpu_s / run.calls)
                    if library.name == "floor" and section == "calls" and window == 64:
                        busy = 100 * run.driver_cpu_s / run.wall_s
                        note = f"the driver itself was busy {busy:.0f}% of the floor's last run"
                        results.notes[:] = [one for one in results.notes if "driver" not in one]
                        results.notes.append(note)
        if section == "calls":
            for name, times in each.items():
                results.add("calls.p99", name, sorted(times)[int(len(times) * 0.99)])


def _size(each_s: float, slice_s: float, most: int) -> int:
    """How many calls fill a slice of time."""
    return max(100, min(most, int(slice_s / max(each_s, 1e-7))))


def lists(bench: Bench) -> None:
    """`tools/list` of a hundred tools with three arguments each, one at a time."""
    with contextlib.ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        for library in bench.libraries:
            with bench.attempt("lists", library):
                server = stack.enter_context(bench.spawn(library, "list"))
                server.initialize(REVISION)
                raw = server.ask("tools/list", {})
                answer = msgspec.json.decode(raw)
                if len(answer["tools"]) != 100:
                    raise BenchError(f"the first page has {len(answer['tools'])} tools, not 100")
                bench.results.add("lists.bytes", library.name, len(raw))
                server.one_at_a_time(server.requests("tools/list", [{}] * 20))
                servers[library.name] = server
        for library in bench.turns(bench.effort.rounds, lambda one: one.name in servers):
            with bench.attempt("lists", library):
                server = servers[library.name]
                cpu = server.cpu_s()
                count = 20 if bench.effort.rounds < 3 else 50
                took, _ = server.one_at_a_time(server.requests("tools/list", [{}] * count))
                bench.results.add("lists.cpu", library.name, (server.cpu_s() - cpu) / count)
                bench.results.add("lists.p50", library.name, sorted(took)[count // 2])


def payload(bench: Bench) -> None:
    """An echo of 1 and of 10 MB; a new server each time, for its own peak."""
    rounds = 3 if bench.effort.rounds > 2 else 1
    for megabytes, repeats in ((1, 10), (10, 3)):
        unit = len(_PARAGRAPH.encode())
        text = _PARAGRAPH * (megabytes * 1_000_000 // unit)
        for library in bench.turns(rounds, lambda one: "calls" in one.modes):
            key = f"payload.{megabytes}"
            if bench.failed(f"payload {megabytes} MB", library):
                continue
            attempt = bench.attempt(f"payload {megabytes} MB", library)
            with attempt, bench.spawn(library, "calls") as server:
                server.initialize(REVISION)
                small = server.calls("echo", [{"text": "small"}] * 20)
                server.one_at_a_time(small)
                times = []
                for request in server.calls("echo", [{"text": text}] * repeats):
                    took, line = server.big(request)
                    got = msgspec.json.decode(server.result_of(line))["content"][0]["text"]
                    if got != text:
                        raise BenchError("the echo differs from what was sent")
                    times.append(took)
                bench.results.add(key, library.name, sorted(times)[len(times) // 2])
                bench.results.add(f"{key}.peak", library.name, server.memory_kb("VmHWM"))


def flight(bench: Bench) -> None:
    """Calls that all wait: what one of them holds, and how long ending them takes."""
    count = bench.effort.held
    rounds = 3 if bench.effort.rounds > 2 else 1
    for library in bench.turns(rounds, lambda one: "calls" in one.modes):
        if bench.failed("flight", library):
            continue
        with bench.attempt("flight", library), bench.spawn(library, "calls") as server:
            server.initialize(REVISION)
            server.burst(server.calls("echo", [{"text": "warm"}] * WARM_UP_CALLS), 64)
            before = server.memory_kb("VmRSS")
            server.write(b"".join(server.calls("hold", [{}] * count)))
            # Requests are taken in order: when this one is answered, all before it have begun.
            server.ask("tools/call", {"name": "echo", "arguments": {"text": "there?"}})
            grown = server.memory_kb("VmRSS") - before
            begun = time.perf_counter()
            server.write(server.calls("release", [{}])[0])
            server.check(server.read_lines(count + 1))
            bench.results.add("flight.release", library.name, time.perf_counter() - begun)
            bench.results.add("flight.each", library.name, max(0.0, grown / count))


# -- clients ---------------------------------------------------------------------------------------


def clients(bench: Bench) -> None:
    """Each client in a process of its own, 32 calls in flight, against the floor's server."""
    _client_runs(
        bench, "clients", [(one, "stdio", one.name) for one in bench.libraries if one.client]
    )


def memory(bench: Bench) -> None:
    """Client and server of one library in one process."""
    runs = [(one, "memory", one.name) for one in bench.libraries if one.in_memory]
    runs += [(one, "memory-2026", WITHOUT_HANDSHAKE) for one in bench.libraries if one.name == MCP]
    _client_runs(bench, "memory", runs)


def _client_runs(bench: Bench, section: str, runs: Sequence[tuple[Library, str, str]]) -> None:
    keys = (f"{section}.rate", f"{section}.cpu", f"{section}.p50")
    every = [ClientRun(*one, keys) for one in runs]
    _client_rounds(bench, section, every, bench.effort.slice_s, bench.effort.rounds)


@dataclass(frozen=True, slots=True)
class ClientRun:
    """A client program, how it connects, the row of its figures, and their columns."""

    library: Library
    how: str
    label: str
    keys: tuple[str, str, str]
    url: str = ""

    def command(self, places: Places, calls: int) -> list[str]:
        """Its command line, with 32 calls in flight."""
        return places.client(self.library, self.how, calls, 32, self.url)


def _client_rounds(
    bench: Bench, section: str, runs: Sequence[ClientRun], slice_s: float, rounds: int
) -> None:
    results = bench.results
    sizes: dict[ClientRun, int] = {}
    failed: set[ClientRun] = set()
    for run in runs:
        with bench.attempt(section, run.library, run.label):
            pilot = _client(run.command(bench.places, 400))
            sizes[run] = _size(pilot["wall_s"] / pilot["calls"], slice_s * 1.5, 100_000)
    for n in range(rounds):
        shift = n % len(runs)
        for run in (*runs[shift:], *runs[:shift]):
            if run not in sizes or run in failed:
                continue
            failed.add(run)
            with bench.attempt(section, run.library, run.label):
                seen = _client(run.command(bench.places, sizes[run]))
                results.add(run.keys[0], run.label, seen["calls"] / seen["wall_s"])
                results.add(run.keys[1], run.label, seen["cpu_s"] / seen["calls"])
                results.add(run.keys[2], run.label, seen["p50_s"])
                failed.discard(run)


def _client(command: list[str]) -> Any:
    """Run a client program; the figures on its last line, by name. Raises `BenchError`."""
    done = subprocess.run(
        command,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError(f"{command[1]} ended with code {done.returncode}: {done.stderr[-1500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


# -- HTTP ------------------------------------------------------------------------------------------

# Calls are made over this many connections, each with a session of its own.
CONNECTIONS = 32

# The sessions whose memory is measured, and how many are opened and closed before: a server's first
# few hundred cost it more than the next.
IDLE_SESSIONS = 2000
IDLE_WARM_UP = 200

# Sessions open while calls are measured.
OPEN = (1, 100, 10_000)


def _serve(bench: Bench, library: Library, mode: str, how: str) -> HttpServer:
    command = bench.places.http_server(library, mode, how)
    return HttpServer(command, env=clean_environment(), revision=REVISION)


def _kinds(library: Library) -> tuple[str, ...]:
    """Which web servers a library is measured on; node has one."""
    return ("fast",) if library.is_node else ("fast", "plain")


def http_json(bench: Bench) -> None:
    """`add`, answered with JSON, at 32 connections and one at a time."""
    _http_calls(bench, "json", "add")


def http_sse(bench: Bench) -> None:
    """`report`, which tells its progress: a stream of two events."""
    _http_calls(bench, "sse", "report")


def _http_calls(bench: Bench, mode: str, tool: str) -> None:
    effort, results, section = bench.effort, bench.results, f"http-{mode}"
    streamed = mode == "sse"
    with contextlib.ExitStack() as stack:
        servers: dict[tuple[str, str], tuple[HttpServer, list[bytes], int, int]] = {}
        for library in bench.libraries:
            for how in _kinds(library) if library.http else ():
                with bench.attempt(section, library):
                    server = stack.enter_context(_serve(bench, library, mode, how))
                    sessions = server.open_sessions(CONNECTIONS)
                    spent = 0.0
                    while spent < effort.slice_s:
                        warm = server.burst(
                            server.calls(tool, WARM_UP_CALLS, sessions), CONNECTIONS
                        )
                        server.check(warm.replies, streamed=streamed)
                        spent += warm.wall_s
                    took, replies = server.one_at_a_time(server.calls(tool, 50, sessions))
                    server.check(replies, streamed=streamed)
                    many = _size(warm.wall_s / warm.calls, effort.slice_s, 80_000)
                    single = _size(sorted(took)[25], effort.slice_s / 4, 2_000)
                    servers[library.name, how] = server, sessions, many, single
        for library in bench.turns(effort.rounds, lambda one: one.http is not None):
            for how in _kinds(library):
                if (library.name, how) not in servers or bench.failed(section, library):
                    continue
                with bench.attempt(section, library):
                    server, sessions, many, single = servers[library.name, how]
                    prefix = mode if how == "fast" else f"{mode}.plain"
                    run = server.burst(server.calls(tool, many, sessions), CONNECTIONS)
                    server.check(run.replies, streamed=streamed)
                    results.add(f"{prefix}.rate", library.name, run.calls / run.wall_s)
                    results.add(f"{prefix}.cpu", library.name, run.server_cpu_s / run.calls)
                    took, replies = server.one_at_a_time(server.calls(tool, single, sessions))
                    server.check(replies, streamed=streamed)
                    results.add(f"{prefix}.p50", library.name, sorted(took)[len(took) // 2])
                    if library.name == "floor" and how == "fast" and mode == "json":
                        busy = 100 * run.driver_cpu_s / run.wall_s
                        each = 1e6 * run.driver_cpu_s / run.calls
                        note = f"the HTTP driver was busy {busy:.0f}% of the floor's last run"
                        results.notes[:] = [
                            one for one in results.notes if "HTTP driver" not in one
                        ]
                        results.notes.append(f"{note}: {each:.0f} us of CPU a call")


def http_sessions(bench: Bench) -> None:
    """Sessions opened and closed, on both web servers, and what an idle one holds."""
    effort, results, section = bench.effort, bench.results, "http-sessions"
    with contextlib.ExitStack() as stack:
        servers: dict[tuple[str, str], tuple[HttpServer, int]] = {}
        for library in bench.libraries:
            for how in _kinds(library) if library.http else ():
                with bench.attempt(section, library):
                    server = stack.enter_context(_serve(bench, library, "json", how))
                    server.cycle_sessions(IDLE_WARM_UP, CONNECTIONS)
                    if how == "fast":
                        before = server.resident_kb()
                        count = IDLE_SESSIONS if effort.rounds > 2 else IDLE_SESSIONS // 2
                        server.open_sessions(count)
                        each = (server.resident_kb() - before) / count
                        results.add("sessions.idle", library.name, max(0.0, each))
                    warm = server.cycle_sessions(IDLE_WARM_UP, CONNECTIONS)
                    count = _size(warm.wall_s / warm.calls, effort.slice_s, 20_000)
                    servers[library.name, how] = server, count
        for library in bench.turns(effort.rounds, lambda one: one.http is not None):
            for how in _kinds(library):
                if (library.name, how) not in servers or bench.failed(section, library):
                    continue
                with bench.attempt(section, library):
                    server, count = servers[library.name, how]
                    run = server.cycle_sessions(count, CONNECTIONS)
                    if how == "fast":
                        results.add("sessions.rate", library.name, run.calls / run.wall_s)
                        results.add("sessions.cpu", library.name, run.server_cpu_s / run.calls)
                    else:
                        results.add("sessions.plain.rate", library.name, run.calls / run.wall_s)


def http_open(bench: Bench) -> None:
    """CPU a call while 1, 100 and 10,000 sessions are open; calls go round all of them."""
    effort, results, section = bench.effort, bench.results, "http-open"
    for library in bench.libraries:
        if library.http is None:
            continue
        with bench.attempt(section, library), _serve(bench, library, "json", "fast") as server:
            sessions: list[bytes] = []
            spent, calls = 0.0, WARM_UP_CALLS
            sessions += server.open_sessions(1)
            while spent < effort.slice_s:
                warm = server.burst(server.calls("add", calls, sessions), CONNECTIONS)
                spent += warm.wall_s
            calls = _size(warm.wall_s / warm.calls, effort.slice_s, 20_000)
            for wanted in OPEN:
                sessions += server.open_sessions(wanted - len(sessions), CONNECTIONS)
                for _ in range(min(3, effort.rounds)):
                    run = server.burst(server.calls("add", calls, sessions), CONNECTIONS)
                    server.check(run.replies, streamed=False)
                    key = f"open.{wanted}"
                    results.add(key, library.name, run.server_cpu_s / run.calls)
            # The least disturbed run of each: what is compared is a few microseconds.
            one, many = (min(results.samples[f"open.{n}"][library.name]) for n in (1, 10_000))
            results.add("open.flat", library.name, many / one)


def http_clients(bench: Bench) -> None:
    """Each client in a process of its own, 32 calls in flight, against the floor's HTTP server."""
    floor = next(one for one in LIBRARIES if one.name == FLOOR)
    with contextlib.ExitStack() as stack:
        runs: list[ClientRun] = []
        for kind, mode in (("json", "json"), ("sse", "client-sse")):
            server = stack.enter_context(_serve(bench, floor, mode, "fast"))
            keys = (f"remote.{kind}", f"remote.{kind}.cpu", f"remote.{kind}.p50")
            for library in bench.libraries:
                if not library.remote:
                    continue
                runs.append(ClientRun(library, "http", library.name, keys, server.url))
                if library.name == OURS:
                    runs.append(ClientRun(library, "http-httpx2", WITH_HTTPX, keys, server.url))
        # Ten programs to start for each round: fewer, shorter ones keep the whole within minutes.
        rounds = min(3, bench.effort.rounds)
        _client_rounds(bench, "http-clients", runs, bench.effort.slice_s / 2, rounds)


# -- the host --------------------------------------------------------------------------------------

# How the servers are reached.
_WAYS = ("stdio", "memory")


def _ours() -> Library:
    return next(one for one in LIBRARIES if one.name == OURS)


def host(bench: Bench) -> None:
    """A call through a host and without it, by turns in one process, one at a time."""
    rows = {"bare": BARE, "rule": BY_RULE, "grant": BY_GRANT}
    for way in _WAYS:
        with bench.attempt("host", _ours(), way):
            arguments = (way, str(bench.effort.rounds), str(bench.effort.slice_s))
            seen = _client(bench.places.host("calls", *arguments))
            for name, row in rows.items():
                for key in ("p50", "cpu"):
                    for value in seen[name][key]:
                        bench.results.add(f"host.{way}.{key}", row, value)
                bench.results.add(f"host.{way}.p99", row, seen[name]["p99"])


def host_parts(bench: Bench) -> None:
    """The parts, counted while calls go on; the whole is that of the section before."""
    results = bench.results
    for way in _WAYS:
        if results.median(f"host.{way}.p50", BARE) is None:
            host(bench)
        with bench.attempt("host-parts", _ours(), way):
            bare, through = (results.median(f"host.{way}.p50", row) for row in (BARE, BY_RULE))
            if bare is None or through is None:
                raise BenchError("the whole could not be measured")
            added = (through - bare) * 1e6
            results.add(f"parts.{way}", ADDED, added)
            count = str(int(10_000 * bench.effort.slice_s))
            for _ in range(min(3, bench.effort.rounds)):
                for part, each_s in _client(bench.places.host("parts", way, count)).items():
                    results.add(f"parts.{way}", part, each_s * 1e6)
            known = [row for row in results.samples[f"parts.{way}"] if row != ADDED]
            rest = added - sum(results.median(f"parts.{way}", row) or 0.0 for row in known)
            results.add(f"parts.{way}", "the rest", max(0.0, rest))


def host_start(bench: Bench) -> None:
    """From opening a host until the tools of all that work are there."""
    rows = {"alone": ALONE, "nine": NINE, "ends": ONE_ENDS, "silent": ONE_SILENT}
    for _ in range(min(3, bench.effort.rounds)):
        for kind, row in rows.items():
            with bench.attempt("host-start", _ours(), row):
                seen = _client(bench.places.host("start", kind))
                bench.results.add("ready.there", row, seen["there_s"])
                bench.results.add("ready.listed", row, seen["listed_s"])


# -- installation ----------------------------------------------------------------------------------


def install(bench: Bench) -> None:
    """Import time over a bare interpreter, how many distributions came along, and their size."""
    env = clean_environment()

    def run(interpreter: str, code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([interpreter, "-c", code], env=env, check=True, capture_output=True)
        return time.perf_counter() - begun

    for library in bench.turns(bench.effort.starts, lambda one: one.imports is not None):
        if bench.failed("install", library):
            continue
        with bench.attempt("install", library):
            interpreter = bench.places.interpreter(library)
            assert library.imports is not None
            try:
                bare = run(interpreter, "pass")
                took = run(interpreter, library.imports)
            except subprocess.CalledProcessError as fault:
                raise BenchError(fault.stderr.decode("utf-8", "replace")[-500:]) from fault
            bench.results.add("install.import", library.name, took - bare)
    for library in bench.libraries:
        if library.is_node:
            assert library.peer is not None
            modules = bench.places.peers[library.peer] / "node_modules"
            packages = [one for one in modules.glob("**/package.json") if _is_package(one, modules)]
            bench.results.add("install.count", library.name, len(packages))
            bench.results.add("install.mb", library.name, _megabytes(modules, compiled=True))
        elif library.imports is not None:
            site = Path(bench.places.interpreter(library)).parent.parent / "lib"
            folder = next(site.glob("python*/site-packages"))
            count = sum(1 for one in folder.glob("*.dist-info") if not one.name.startswith(_TOOLS))
            bench.results.add("install.count", library.name, count)
            bench.results.add("install.mb", library.name, _megabytes(folder, compiled=False))
            bench.results.add("install.compiled", library.name, _megabytes(folder, compiled=True))


# What `python -m venv` puts there by itself.
_TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")


def _is_package(manifest: Path, modules: Path) -> bool:
    parts = manifest.relative_to(modules).parts[:-1]
    return len(parts) == (2 if parts and parts[0].startswith("@") else 1)


def _megabytes(folder: Path, *, compiled: bool) -> float:
    """Size of the files under a folder, 10^6 bytes, without the installers themselves."""
    total = 0
    for path in folder.rglob("*"):
        top = path.relative_to(folder).parts[0]
        if top.startswith(_TOOLS) or path.is_dir():
            continue
        if compiled or path.suffix != ".pyc":
            total += path.lstat().st_size
    return total / 1e6


RUNS: dict[str, Callable[[Bench], None]] = {
    "start": start,
    "calls": calls,
    "models": models,
    "lists": lists,
    "payload": payload,
    "flight": flight,
    "clients": clients,
    "memory": memory,
    "http-json": http_json,
    "http-sse": http_sse,
    "http-sessions": http_sessions,
    "http-open": http_open,
    "http-clients": http_clients,
    "host": host,
    "host-parts": host_parts,
    "host-start": host_start,
    "install": install,
}


def count_steps(bench: Bench, sections: Sequence[str]) -> int:
    """How many times `Bench.step` will be called, about: for a progress bar."""
    effort = bench.effort
    every = len(bench.libraries)
    client_count = sum(1 for one in bench.libraries if one.client)
    inside = sum(1 for one in bench.libraries if one.in_memory) + 1
    short = 3 if effort.rounds > 2 else 1
    served = sum(len(_kinds(one)) for one in bench.libraries if one.http)
    remote = sum(2 if one.name == OURS else 1 for one in bench.libraries if one.remote)
    steps: dict[str, int] = {
        "start": 2 * every * (effort.starts + 1),
        "calls": every * (effort.rounds + 1),
        "models": every * (effort.rounds + 1),
        "lists": every * (effort.rounds + 1),
        "payload": 2 * every * short,
        "flight": every * short,
        "clients": client_count * (effort.rounds + 1),
        "memory": inside * (effort.rounds + 1),
        "http-json": served * (effort.rounds + 1),
        "http-sse": served * (effort.rounds + 1),
        "http-sessions": served * (effort.rounds + 1),
        "http-open": sum(1 for one in bench.libraries if one.http),
        "http-clients": 2 * remote * (min(3, effort.rounds) + 1),
        "host": len(_WAYS),
        "host-parts": len(_WAYS),
        "host-start": 4 * min(3, effort.rounds),
        "install": inside * effort.starts,
    }
    return sum(steps[name] for name in sections)


def as_json(results: Results) -> dict[str, Any]:
    """Samples and medians, ready to be written."""
    return {
        key: {
            name: {"median": results.median(key, name), "samples": values}
            for name, values in by_library.items()
        }
        for key, by_library in results.samples.items()
    }
