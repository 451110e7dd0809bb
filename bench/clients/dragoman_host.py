"""What a host adds to a call, part by part, and how long it takes to start. Prints one line of JSON.

    calls HOW ROUNDS SLICE_S SERVER...     bare clients and a host, by turns
    parts HOW CALLS SERVER...              where the time of a host's call goes
    start KIND SERVER...                   until a host has the tools of nine servers

HOW is stdio or memory; SERVER... is the command line of a server of a hundred tools. KIND: alone, nine,
ends, silent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from dragoman import Client, Server
from dragoman.client.targets import connector_for
from dragoman.host import Host, Scope
from dragoman.host.connections import Connection
from dragoman.host.host import _Hooks

SERVERS, TOOLS = 10, 100

# Rules allow what is asked of the first five, a remembered yes what is asked of the others.
BY_RULE = range(SERVERS // 2)
BY_GRANT = range(SERVERS // 2, SERVERS)

# What the slowest server of the start waits before it says a word: a package runner that looks for
# news first takes as long.
SLOW_S = 1.5

# A full run of the longest takes half of this.
TIMEOUT_S = 90.0

Call = Callable[[int], Awaitable[Any]]


def make_server() -> Server:
    """The server of ``list``, for a host in its own process."""
    server = Server("bench")

    def make(n: int) -> None:
        async def tool(
            city: Annotated[str, "Name of the city."],
            days: Annotated[int, "How many days."] = 3,
            units: Annotated[str, "metric or imperial."] = "m",
        ) -> int:
            """A tool with three arguments, one of a hundred."""
            return n

        server.add_tool(tool, name=f"tool_{n}")

    for number in range(TOOLS):
        make(number)
    return server


class _Inside(_Hooks):
    """Finds each server in this process."""

    def connector(self, connection: Connection) -> Any:
        return connector_for(make_server())


class MemoryHost(Host):
    """A host of servers in its own process; all else is as it is."""

    def _connect(self, entry: Any) -> Connection:
        hooks = _Inside(self)
        return Connection(
            entry, self._mediator, self.grants, self.pins, hooks, principal=self.principal
        )


def load(folder: Path, how: str, commands: Sequence[Sequence[str]], **more: Any) -> Host:
    """A host of these servers, not opened."""
    servers = {
        f"s{n}": {"command": one[0], "args": list(one[1:])} for n, one in enumerate(commands)
    }
    config = folder / "mcp.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    rules = [f"allow tool(s{n}/*)" for n in BY_RULE if n < len(commands)]
    for name in servers:
        rules += [f"allow server.start({name})", f"allow tool.expose({name}/*)"]
    kind = MemoryHost if how == "memory" else Host
    return kind.load(
        config,
        approver=lambda request: request.allow(Scope.ALWAYS),
        rules=rules,
        state=folder / "state",
        **more,
    )


def asked(n: int, among: Sequence[int]) -> tuple[int, str, dict[str, Any]]:
    """The n-th call: its server, tool and arguments; all servers and tools in turn."""
    return among[n % len(among)], f"tool_{n % TOOLS}", {"city": "Oslo", "days": n}


def right(n: int, data: object) -> None:
    """Raise `ValueError` unless that is what the n-th call has to answer."""
    if data != n % TOOLS:
        raise ValueError(f"call {n} gave {data!r}")


def through(host: Host, among: Sequence[int]) -> Call:
    """Calls through the host."""

    async def call(n: int) -> None:
        server, tool, arguments = asked(n, among)
        right(n, (await host.call_tool(f"s{server}", tool, arguments)).data)

    return call


async def warm(call: Call) -> None:
    """Each tool of each server often enough: the first call of each asks, and builds its check."""
    for n in range(2 * SERVERS * TOOLS):
        await call(n)


async def calls(how: str, rounds: int, slice_s: float, command: list[str]) -> dict[str, Any]:
    """Seconds of each call, one at a time, and CPU seconds of this process; by turns."""
    clients = [Client(make_server() if how == "memory" else command) for _ in range(SERVERS)]
    with tempfile.TemporaryDirectory() as folder:
        async with load(Path(folder), how, [command] * SERVERS) as host:
            for client in clients:
                await client.connect()
                await client.list_tools()
            await host.list_tools(wait_s=60)

            async def bare(n: int) -> None:
                server, tool, arguments = asked(n, range(SERVERS))
                right(n, (await clients[server].call_tool(tool, arguments)).data)

            ways = {"bare": bare, "rule": through(host, BY_RULE), "grant": through(host, BY_GRANT)}
            found: dict[str, Any] = {name: {"p50": [], "cpu": [], "all": []} for name in ways}
            for call in ways.values():
                await warm(call)
            names = list(ways)
            for _ in range(rounds):
                for name in names:
                    each, cpu = await timed(ways[name], slice_s)
                    found[name]["p50"].append(sorted(each)[len(each) // 2])
                    found[name]["cpu"].append(cpu)
                    found[name]["all"] += each
                names = names[1:] + names[:1]
            for one in found.values():
                every = sorted(one.pop("all"))
                one["p99"] = every[int(len(every) * 0.99)]
            for client in clients:
                await client.aclose()
            return found


async def timed(call: Call, slice_s: float) -> tuple[list[float], float]:
    """Seconds of each call of one slice, and CPU seconds of this process for one."""
    each: list[float] = []
    clock = time.perf_counter
    cpu, end = time.process_time(), clock() + slice_s
    n, now = 0, clock()
    while now < end:
        await call(n)
        n += 1
        then, now = now, clock()
        each.append(now - then)
    return each, (time.process_time() - cpu) / n


# -- parts -----------------------------------------------------------------------------------------


class Watch:
    """Counts the time inside of functions, each without what is counted elsewhere."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.times: dict[str, int] = {}
        self._inner = [0.0]

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, counted."""
        clock, inner = time.perf_counter, self._inner
        self.spent.setdefault(part, 0.0)
        self.times.setdefault(part, 0)

        def counted(*args: Any, **more: Any) -> Any:
            self.times[part] += 1
            inner.append(0.0)
            begun = clock()
            try:
                return function(*args, **more)
            finally:
                took = clock() - begun
                self.spent[part] += took - inner.pop()
                inner[-1] += took

        return counted

    def coroutine(self, part: str, owner: Any, name: str) -> None:
        """Count an async function that ends without waiting, as those of a host's store and log do."""
        function, clock, inner = getattr(owner, name), time.perf_counter, self._inner
        self.spent.setdefault(part, 0.0)
        self.times.setdefault(part, 0)

        async def counted(*args: Any, **more: Any) -> Any:
            self.times[part] += 1
            inner.append(0.0)
            begun = clock()
            try:
                return await function(*args, **more)
            finally:
                took = clock() - begun
                self.spent[part] += took - inner.pop()
                inner[-1] += took

        setattr(owner, name, counted)

    def method(self, part: str, owner: Any, name: str) -> None:
        """Count a function of a module or class from now on."""
        setattr(owner, name, self.around(part, getattr(owner, name)))

    def context(self, part: str, owner: Any, name: str) -> None:
        """Count the entering and leaving of what a function returns, not what is done inside."""
        made = self.around(part, getattr(owner, name))
        watch = self

        class Counted:
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __enter__(self) -> Any:
                return watch.around(part, self.inner.__enter__)()

            def __exit__(self, *error: Any) -> Any:
                return watch.around(part, self.inner.__exit__)(*error)

        setattr(owner, name, lambda *args, **more: Counted(made(*args, **more)))

    def costs(self) -> float:
        """What counting one call adds to itself, in seconds."""
        empty = Watch()
        nothing = empty.around("nothing", lambda: None)
        for _ in range(20_000):
            nothing()
        return empty.spent["nothing"] / 20_000


async def parts(how: str, count: int, command: list[str]) -> dict[str, float]:
    """Seconds a call of each part of a host."""
    from dragoman.host import calls as calls_module
    from dragoman.host import mediator as mediator_module
    from dragoman.host.audit import Audit
    from dragoman.host.calls import Calls
    from dragoman.host.gate import Gate, _GateLink
    from dragoman.host.grants import GrantStore
    from dragoman.runtime.driver import Driver
    from dragoman.transport.memory import MemoryLink
    from dragoman.transport.stdio.link import PipeLink

    watch = Watch()
    watch.method("policy", mediator_module, "evaluate")
    for name in ("find", "spend", "trust_of"):
        watch.method("grants", GrantStore, name)
    watch.coroutine("grants", GrantStore, "look")
    for name in ("decision_in_turn", "outcome_in_turn"):
        watch.coroutine("audit", Audit, name)
    watch.context("gate", Gate, "admit")
    for name in ("send", "frames_received"):
        watch.method("gate", _GateLink, name)
    # What the gate passes on to is not the gate.
    for owner, name in (
        (Driver, "frames_received"),
        (PipeLink, "send"),
        (MemoryLink, "send"),
    ):
        watch.method("(client)", owner, name)
    watch.method("freeze and checks", calls_module, "frozen")
    watch.method("freeze and checks", calls_module.SchemaCheck, "faults")
    watch.method("freeze and checks", Connection, "intent")
    watch.method("freeze and checks", Calls, "_result")
    with tempfile.TemporaryDirectory() as folder:
        async with load(Path(folder), how, [command] * SERVERS) as host:
            await host.list_tools(wait_s=60)
            call = through(host, BY_RULE)
            await warm(call)
            spent, times = dict(watch.spent), dict(watch.times)
            for n in range(count):
                await call(n)
            each = watch.costs()
            return {
                part: max(0.0, (watch.spent[part] - spent[part]) / count)
                - each * (watch.times[part] - times[part]) / count
                for part in spent
                if not part.startswith("(")
            }


# -- start -----------------------------------------------------------------------------------------


async def start(kind: str, command: list[str]) -> dict[str, float]:
    """Seconds from `open` until all tools of the healthy ones are there, and until `list_tools` ends."""
    slow = [
        sys.executable,
        "-c",
        f"import os, sys, time; time.sleep({SLOW_S}); os.execv(sys.argv[1], sys.argv[1:])",
        *command,
    ]
    last = {
        "ends": [sys.executable, "-c", "raise SystemExit(3)"],
        "silent": [sys.executable, "-c", "import sys; sys.stdin.read()"],
    }
    commands = [slow] if kind == "alone" else [slow, *[command] * 8]
    healthy = len(commands)
    if kind in last:
        # Not the last to be started: whoever comes after it would wait for it.
        commands.insert(1, last[kind])
    with tempfile.TemporaryDirectory() as folder:
        host = load(Path(folder), "stdio", commands)
        news = asyncio.Event()
        host.on_event(lambda event: news.set())
        begun = time.perf_counter()
        async with host:
            listing = asyncio.ensure_future(host.list_tools())
            while len(await host.list_tools(wait_s=0)) < healthy * TOOLS:
                news.clear()
                await news.wait()
            there = time.perf_counter() - begun
            await listing
            return {"there_s": there, "listed_s": time.perf_counter() - begun}


async def main(what: str, *rest: str) -> None:
    """Measure, and print it."""
    # A server that fails would be waited for: rather the reason than silence.
    async with asyncio.timeout(TIMEOUT_S):
        found = await _measured(what, *rest)
    sys.stdout.write(json.dumps(found) + "\n")


async def _measured(what: str, *rest: str) -> Any:
    if what == "calls":
        return await calls(rest[0], int(rest[1]), float(rest[2]), list(rest[3:]))
    if what == "parts":
        return await parts(rest[0], int(rest[1]), list(rest[2:]))
    return await start(rest[0], list(rest[1:]))


asyncio.run(main(*sys.argv[1:]))
