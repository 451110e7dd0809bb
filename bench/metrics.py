"""Every figure the benchmark takes, and the targets that dragoman is held to."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.environments import FLOOR, MCP, OURS, TS_2

#: Our client over HTTP without the extra ``fast``.
WITH_HTTPX = f"{OURS} (httpx2)"

#: What an in-memory peer is called when it opens with the revision that needs no handshake.
WITHOUT_HANDSHAKE = f"{MCP} (no handshake)"

#: The rows of the host: how a call goes, what is added, what is started.
BARE = "bare client"
BY_RULE = "host, a rule allows"
BY_GRANT = "host, a remembered yes"
ADDED = "all that a host adds"
ALONE = "the slowest alone"
NINE = "nine healthy ones"
ONE_ENDS = "nine, one that ends"
ONE_SILENT = "nine, one is silent"


@dataclass(frozen=True, slots=True)
class Metric:
    """One column: its section, its heading, the unit of its samples and which way is better."""

    key: str
    section: str
    title: str
    unit: str
    show: Callable[[float], str]
    more_is_better: bool = False


def _digits(value: float) -> str:
    """About three significant digits."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _scaled(factor: float) -> Callable[[float], str]:
    return lambda value: _digits(value * factor)


def _rate(value: float) -> str:
    return f"{value / 1000:.1f}k" if value >= 10_000 else f"{value / 1000:.2f}k"


def _count(value: float) -> str:
    return f"{value:.0f}"


_MS, _US, _MB = _scaled(1e3), _scaled(1e6), _scaled(1 / 1024)


def _served(kind: str) -> tuple[Metric, ...]:
    """The columns of one kind of HTTP answer: uvloop with httptools (or node), then asyncio with h11."""
    section = f"http-{kind}"
    return (
        Metric(f"{kind}.rate", section, "calls/s, 32", "1/s", _rate, True),
        Metric(f"{kind}.cpu", section, "CPU us", "s", _US),
        Metric(f"{kind}.p50", section, "p50, us", "s", _US),
        Metric(f"{kind}.plain.rate", section, "h11: calls/s, 32", "1/s", _rate, True),
        Metric(f"{kind}.plain.cpu", section, "CPU us", "s", _US),
        Metric(f"{kind}.plain.p50", section, "p50, us", "s", _US),
    )


METRICS: tuple[Metric, ...] = (
    Metric("start.quickstart", "start", "quick start, ms", "s", _MS),
    Metric("start.models", "start", "pydantic models, ms", "s", _MS),
    Metric("start.rss", "start", "resident idle, MB", "KiB", _MB),
    Metric("calls.p50", "calls", "one at a time p50, us", "s", _US),
    Metric("calls.p99", "calls", "p99, us", "s", _US),
    Metric("calls.64", "calls", "calls/s, 64", "1/s", _rate, True),
    Metric("calls.512", "calls", "calls/s, 512", "1/s", _rate, True),
    Metric("calls.cpu", "calls", "CPU us a call", "s", _US),
    Metric("models.p50", "models", "one at a time p50, us", "s", _US),
    Metric("models.64", "models", "calls/s, 64", "1/s", _rate, True),
    Metric("models.cpu", "models", "CPU us a call", "s", _US),
    Metric("lists.p50", "lists", "tools/list of 100, ms", "s", _MS),
    Metric("lists.cpu", "lists", "CPU ms", "s", _MS),
    Metric("lists.bytes", "lists", "answer, KB", "B", _scaled(1 / 1000)),
    Metric("payload.1", "payload", "1 MB, ms", "s", _MS),
    Metric("payload.1.peak", "payload", "peak, MB", "KiB", _MB),
    Metric("payload.10", "payload", "10 MB, ms", "s", _MS),
    Metric("payload.10.peak", "payload", "peak, MB", "KiB", _MB),
    Metric("flight.each", "flight", "KB a waiting call", "KiB", _digits),
    Metric("flight.release", "flight", "all answered, ms", "s", _MS),
    Metric("clients.rate", "clients", "calls/s, 32", "1/s", _rate, True),
    Metric("clients.cpu", "clients", "own CPU us a call", "s", _US),
    Metric("clients.p50", "clients", "one at a time p50, us", "s", _US),
    Metric("memory.rate", "memory", "calls/s, 32", "1/s", _rate, True),
    Metric("memory.cpu", "memory", "CPU us a call", "s", _US),
    Metric("memory.p50", "memory", "one at a time p50, us", "s", _US),
    *_served("json"),
    *_served("sse"),
    Metric("sessions.rate", "http-sessions", "opened and closed/s", "1/s", _rate, True),
    Metric("sessions.cpu", "http-sessions", "CPU us each", "s", _US),
    Metric("sessions.plain.rate", "http-sessions", "h11: /s", "1/s", _rate, True),
    Metric("sessions.idle", "http-sessions", "KiB an idle one", "KiB", _digits),
    Metric("open.1", "http-open", "CPU us a call, 1 open", "s", _US),
    Metric("open.100", "http-open", "100", "s", _US),
    Metric("open.10000", "http-open", "10,000", "s", _US),
    Metric("open.flat", "http-open", "10,000 to 1", "1", _digits),
    Metric("remote.json", "http-clients", "JSON calls/s, 32", "1/s", _rate, True),
    Metric("remote.json.cpu", "http-clients", "own CPU us", "s", _US),
    Metric("remote.json.p50", "http-clients", "p50, us", "s", _US),
    Metric("remote.sse", "http-clients", "SSE calls/s, 32", "1/s", _rate, True),
    Metric("remote.sse.cpu", "http-clients", "own CPU us", "s", _US),
    Metric("remote.sse.p50", "http-clients", "p50, us", "s", _US),
    Metric("host.stdio.p50", "host", "stdio p50, us", "s", _US),
    Metric("host.stdio.p99", "host", "p99, us", "s", _US),
    Metric("host.stdio.cpu", "host", "own CPU us", "s", _US),
    Metric("host.memory.p50", "host", "memory p50, us", "s", _US),
    Metric("host.memory.p99", "host", "p99, us", "s", _US),
    Metric("host.memory.cpu", "host", "CPU us", "s", _US),
    Metric("parts.stdio", "host-parts", "stdio, us a call", "us", _digits),
    Metric("parts.memory", "host-parts", "memory, us a call", "us", _digits),
    Metric("ready.there", "host-start", "all tools of the healthy, s", "s", _digits),
    Metric("ready.listed", "host-start", "list_tools() returns, s", "s", _digits),
    Metric("install.import", "install", "import the server, ms", "s", _MS),
    Metric("install.count", "install", "distributions", "1", _count),
    Metric("install.mb", "install", "MB installed", "MB", _digits),
    Metric("install.compiled", "install", "MB with bytecode", "MB", _digits),
)

BY_KEY = {metric.key: metric for metric in METRICS}

SECTIONS: dict[str, str] = {
    "start": "Spawn to `initialize` answered, and what the server then weighs",
    "calls": "tools/call `add` over stdio",
    "models": "tools/call with pydantic arguments and result over stdio",
    "lists": "tools/list of 100 tools",
    "payload": "An `echo` of 1 MB and 10 MB of text: time and peak memory of the server",
    "flight": "Calls that wait, all in flight at once",
    "clients": "Each client against the floor's server over stdio",
    "memory": "Client and server in one process",
    "http-json": "tools/call `add` over HTTP, answered with JSON",
    "http-sse": "tools/call `report` over HTTP, answered with a stream: progress, then the result",
    "http-sessions": "Sessions over HTTP",
    "http-open": "A call over HTTP, with so many sessions open and calls going round all of them",
    "http-clients": "Each client against the floor's server over HTTP",
    "host": "A call through a host of 10 servers with 1,000 tools, and the same call without it",
    "host-parts": "Where the time goes that a host adds to a call",
    "host-start": "A host that starts 10 servers, one of them slow, one of them dead",
    "install": "What is installed and imported",
}

#: What the figures of a section are compared with; mcp, where it is not named here.
BASES = {"host": BARE, "host-parts": ADDED, "host-start": ALONE}

#: What ``--only`` takes besides: each section whose name begins so.
GROUPS = ("http", "host")


@dataclass(slots=True)
class Results:
    """Samples by metric and library, and why a library has none."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, library: str, value: float) -> None:
        """One more sample."""
        self.samples.setdefault(BY_KEY[key].key, {}).setdefault(library, []).append(value)

    def fail(self, section: str, library: str, why: str) -> None:
        """This library could not be measured here."""
        self.failures.setdefault(section, {})[library] = why

    def median(self, key: str, library: str) -> float | None:
        """The median sample, or None."""
        found = self.samples.get(key, {}).get(library)
        return statistics.median(found) if found else None


@dataclass(frozen=True, slots=True)
class Target:
    """dragoman's figure against a peer's: at least ``times`` better, or at most ``part`` of it."""

    what: str
    key: str
    against: str | None
    times: float | None = None
    part: float | None = None
    row: str = OURS

    def measured(self, results: Results) -> float | None:
        """The ratio (or the bare figure where there is no peer), or None if one side is missing."""
        own = results.median(self.key, self.row)
        if own is None:
            return None
        if self.against is None:
            return own
        other = results.median(self.key, self.against)
        if other is None or not own or not other:
            return None
        if self.part is not None:
            return own / other
        return own / other if BY_KEY[self.key].more_is_better else other / own

    def met(self, measured: float) -> bool:
        """Whether the figure is on the right side."""
        if self.part is not None:
            return measured <= self.part
        return self.times is None or measured >= self.times

    @property
    def wanted(self) -> str:
        """The bound as text."""
        if self.against is None:
            return f"at most {self.part:g}"
        if self.part is not None:
            return f"at most {self.part:g} of {self.against}"
        return f"at least {self.times:g}x {self.against}"


TARGETS: tuple[Target, ...] = (
    Target("calls/s, 64 in flight", "calls.64", MCP, times=40),
    Target("calls/s, 64 in flight", "calls.64", TS_2, times=1),
    Target("one at a time, p50", "calls.p50", MCP, part=0.2),
    Target("CPU a call", "calls.cpu", MCP, times=30),
    Target("tools/list of 100", "lists.p50", MCP, times=30),
    Target("1 MB, time", "payload.1", MCP, part=1),
    Target("1 MB, peak memory", "payload.1.peak", MCP, part=0.5),
    Target("10 MB, time", "payload.10", MCP, part=1),
    Target("10 MB, peak memory", "payload.10.peak", MCP, part=0.5),
    Target("spawn to initialize, quick start", "start.quickstart", MCP, part=0.3),
    Target("spawn to initialize, models", "start.models", MCP, part=0.45),
    Target("client calls/s, stdio", "clients.rate", MCP, times=8),
    Target("client calls/s, in memory", "memory.rate", MCP, times=10),
    Target("client calls/s, in memory", "memory.rate", WITHOUT_HANDSHAKE, times=10),
    Target("HTTP JSON answers", "json.rate", MCP, times=8),
    Target("HTTP JSON answers, h11", "json.plain.rate", MCP, times=3.5),
    Target("HTTP JSON answers", "json.rate", TS_2, times=2.5),
    Target("HTTP JSON answers", "json.rate", FLOOR, times=0.5),
    Target("HTTP SSE answers", "sse.rate", MCP, times=10),
    Target("HTTP sessions/s", "sessions.rate", MCP, times=5),
    # The same four by CPU, which other work on the machine moves far less than the clock.
    Target("HTTP JSON answers, CPU", "json.cpu", MCP, times=8),
    Target("HTTP JSON answers, h11, CPU", "json.plain.cpu", MCP, times=3.5),
    Target("HTTP SSE answers, CPU", "sse.cpu", MCP, times=10),
    Target("HTTP sessions, CPU", "sessions.cpu", MCP, times=5),
    Target("KiB an idle HTTP session", "sessions.idle", None, part=8),
    # Memory that is cold costs something; a search through the sessions would cost thousands of times.
    Target("a call at 10,000 sessions to one at 1", "open.flat", None, part=1.25),
    Target("HTTP client calls/s, aiohttp", "remote.json", MCP, times=5),
    Target("HTTP client calls/s, httpx2", "remote.json", MCP, times=1.3, row=WITH_HTTPX),
    Target("HTTP client, aiohttp, CPU", "remote.json.cpu", MCP, times=5),
    Target("HTTP client, httpx2, CPU", "remote.json.cpu", MCP, times=1.3, row=WITH_HTTPX),
    Target("a host adds to a stdio call, us", "parts.stdio", None, part=150, row=ADDED),
    Target("a dead server costs a host's start", "ready.there", NINE, part=1.05, row=ONE_ENDS),
    Target("a silent one costs a host's start", "ready.there", NINE, part=1.05, row=ONE_SILENT),
    Target("ten servers to the slowest alone", "ready.there", ALONE, part=1.1, row=ONE_ENDS),
    Target("resident memory, idle", "start.rss", MCP, part=0.5),
    Target("distributions installed", "install.count", None, part=2),
    Target("MB installed", "install.mb", None, part=1.5),
)

#: Metrics whose ratio to the floor says how much of the time is ours.
AGAINST_FLOOR = (
    "calls.64",
    "calls.512",
    "calls.p50",
    "calls.cpu",
    "models.64",
    "lists.p50",
    "clients.rate",
    "json.rate",
    "json.plain.rate",
    "json.p50",
    "json.cpu",
    "sse.rate",
    "sse.cpu",
    "sessions.rate",
    "remote.json",
)

__all__ = [
    "ADDED",
    "AGAINST_FLOOR",
    "ALONE",
    "BARE",
    "BASES",
    "BY_GRANT",
    "BY_KEY",
    "BY_RULE",
    "FLOOR",
    "GROUPS",
    "METRICS",
    "NINE",
    "ONE_ENDS",
    "ONE_SILENT",
    "SECTIONS",
    "TARGETS",
    "WITHOUT_HANDSHAKE",
    "WITH_HTTPX",
    "Metric",
    "Results",
    "Target",
]
