"""Real servers, killed at random while calls run; a short one by default, a long one on demand.

Nothing here waits for a time: the killer counts calls. `python -m pytest -m slow tests/soak` runs
the long ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import sys
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman import Client, LinkError
from dragoman.client.supervisor import Reconnect
from dragoman.errors import DragomanError
from dragoman.transport.http.client import HttpOptions

SERVER = Path(__file__).parent / "server.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# What dies ten times a second is meant to be restored all the same.
POLICY = Reconnect(max_tries=200, first_delay_s=0.02, max_delay_s=0.2, steady_s=0.0)

WORKERS = 16

# 120 s, and 10 s a death: a server starts in 0.5 s on an idle machine; this one may be busy.
PATIENCE_S = 120.0
PATIENCE_A_KILL_S = 10.0


class Victim:
    """What is killed: a child that the client itself starts anew."""

    def __init__(self, log: Path) -> None:
        self.log = log

    #: How the client is made, besides.
    options: Mapping[str, Any] = {}

    @property
    def target(self) -> Any:
        return [sys.executable, str(SERVER), str(self.log)]

    async def start(self) -> None:
        """Nothing: the client does it."""

    async def kill(self, client: Client, number: int) -> None:
        known = client._supervisor.known
        assert known is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(known.link.pid, number)  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Nothing: the client does it."""


class HttpVictim(Victim):
    """A server over HTTP, in a process that comes back at the same port."""

    def __init__(self, log: Path) -> None:
        super().__init__(log)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: asyncio.subprocess.Process | None = None

    @property
    def target(self) -> Any:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SERVER),
            str(self.log),
            str(self.port),
            stderr=asyncio.subprocess.PIPE,
        )
        assert self.process.stderr is not None
        while b" is at " not in (line := await self.process.stderr.readline()):
            assert line, "the server did not start"

    async def kill(self, client: Client, number: int) -> None:
        await self.stop(number)
        await self.start()

    async def stop(self, number: int = signal.SIGKILL) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(number)
            await process.communicate()


class OverHttpx(HttpVictim):
    """The same, over the other library."""

    options: Mapping[str, Any] = {"http": HttpOptions(backend="httpx2")}


class OverSse(HttpVictim):
    """The same, over HTTP+SSE."""

    options: Mapping[str, Any] = {"http_mode": "sse"}

    @property
    def target(self) -> Any:
        return f"http://127.0.0.1:{self.port}/sse"


class Soak:
    """Workers that call, a killer, and the books on both."""

    def __init__(self, victim: Victim, seed: int) -> None:
        self.victim = victim
        self.random = random.Random(seed)
        self.next = 0
        self.outcomes: dict[int, object] = {}
        self.repeatable: set[int] = set()
        self.events: Counter[str] = Counter()
        self.is_over = False
        self._outcome_came = asyncio.Event()

    async def run(self, kills: int) -> None:
        await self.victim.start()
        try:
            async with Client(
                self.victim.target,
                reconnect=POLICY,
                timeout_s=30.0,
                on_connection=lambda event: self.events.update([event.kind]),
                on_progress=lambda update: None,
                **self.victim.options,
            ) as client:
                await client.subscribe_resource("soak://a")
                workers = [asyncio.ensure_future(self.work(client)) for _ in range(WORKERS)]
                await self.warm_up(client)
                before = resources()
                for _ in range(kills):
                    await self.outcomes_to_come(self.random.randrange(1, 60))
                    number = self.random.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
                    await self.victim.kill(client, number)
                await self.outcomes_to_come(WORKERS * 4)
                after = resources()
                self.is_over = True
                await asyncio.gather(*workers)
                await client.ping()
                assert client.connection_state == "connected"
        finally:
            self.is_over = True
            await self.victim.stop()
        assert after - before <= 2 * WORKERS, "files were left open"

    async def warm_up(self, client: Client) -> None:
        """One death first: what is made once is no leak."""
        await self.outcomes_to_come(WORKERS)
        await self.victim.kill(client, signal.SIGKILL)
        await self.outcomes_to_come(WORKERS * 4)

    async def work(self, client: Client) -> None:
        while not self.is_over:
            n, self.next = self.next, self.next + 1
            idempotent = self.random.random() < 0.3
            if idempotent:
                self.repeatable.add(n)
            call = asyncio.ensure_future(
                client.call_tool("record", {"n": n}, idempotent=idempotent)
            )
            if self.random.random() < 0.05:
                asyncio.get_running_loop().call_later(self.random.random() * 0.02, call.cancel)
            try:
                outcome: object = (await call).structured_content
            except (DragomanError, asyncio.CancelledError) as error:
                this = asyncio.current_task()
                if this is not None and this.cancelling():
                    raise
                outcome = error
            assert n not in self.outcomes
            self.outcomes[n] = outcome
            self._outcome_came.set()

    async def outcomes_to_come(self, count: int) -> None:
        until = len(self.outcomes) + count
        while len(self.outcomes) < until:
            self._outcome_came.clear()
            await self._outcome_came.wait()

    def check(self) -> None:
        ran = Counter(int(line) for line in self.victim.log.read_text().splitlines())
        assert set(self.outcomes) == set(range(self.next))
        told: Counter[str] = Counter()
        for n, outcome in self.outcomes.items():
            told[type(outcome).__name__] += 1
            if isinstance(outcome, LinkError):
                assert outcome.sent is not False or not ran[n], (n, outcome)
            elif not isinstance(outcome, asyncio.CancelledError):
                assert outcome == {"result": n}, (n, outcome)
                assert ran[n] >= 1
            assert n in self.repeatable or ran[n] <= 1, (n, ran[n], outcome)
        # Of those that nobody cancelled most have their answer.
        wanted = len(self.outcomes) - told["CancelledError"]
        assert told["dict"] > wanted / 2, told
        assert self.events["lost"] >= 1
        assert self.events["given_up"] == 0


def resources() -> int:
    """How many files this process holds open, sockets and pipes included."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def soak(victim: Victim, *, seed: int, kills: int) -> Soak:
    made: list[Soak] = []

    async def main() -> None:
        it = Soak(victim, seed)
        made.append(it)
        async with asyncio.timeout(PATIENCE_S + PATIENCE_A_KILL_S * kills):
            await it.run(kills)
        # Transports of subprocesses close in the turns after.
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    files = resources()
    asyncio.run(main())
    assert resources() <= files
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    made[0].check()
    return made[0]


VICTIMS = pytest.mark.parametrize(
    "kind", [Victim, HttpVictim, OverHttpx, OverSse], ids=["stdio", "http", "httpx2", "sse"]
)

# The default run has one; the gate has them all.
LONG_HTTP = (
    pytest.param(HttpVictim, id="http", marks=pytest.mark.long),
    pytest.param(OverHttpx, id="httpx2", marks=pytest.mark.long),
    pytest.param(OverSse, id="sse", marks=pytest.mark.long),
)


@pytest.mark.parametrize("kind", [pytest.param(Victim, id="stdio"), *LONG_HTTP])
@pytest.mark.timeout(200)
def test_calls_have_one_outcome_while_their_server_is_killed(
    kind: type[Victim], tmp_path: Path
) -> None:
    soak(kind(tmp_path / "log"), seed=1, kills=2)


@pytest.mark.long
@pytest.mark.parametrize("kind", LONG_HTTP)
def test_cancelling_whoever_holds_an_http_client_leaves_no_socket_and_no_task(
    kind: type[HttpVictim], tmp_path: Path
) -> None:
    chance = random.Random(5)

    policy = replace(POLICY, first_connect=True)

    async def scenario(victim: HttpVictim) -> None:
        async with Client(victim.target, reconnect=policy, **victim.options) as client:
            await client.subscribe_resource("soak://a")
            for n in range(1_000):
                await client.call_tool(
                    "record", {"n": n}, idempotent=True, on_progress=lambda update: None
                )

    async def main() -> None:
        victim = kind(tmp_path / "log")
        await victim.start()
        try:
            files = None
            for attempt in range(30):
                task = asyncio.ensure_future(scenario(victim))
                await asyncio.sleep(chance.random() * 0.1)
                if attempt % 10 == 9:
                    await victim.stop()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                if attempt % 10 == 9:
                    await victim.start()
                # Transports close in the turns after.
                for _ in range(5):
                    await asyncio.sleep(0)
                assert asyncio.all_tasks() == {asyncio.current_task()}
                if attempt == 9:
                    files = resources()
            assert files is not None
            assert resources() <= files
        finally:
            await victim.stop()

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@VICTIMS
def test_calls_have_one_outcome_through_a_hundred_deaths_and_memory_stays_flat(
    kind: type[Victim], tmp_path: Path
) -> None:
    soak(kind(tmp_path / "first"), seed=2, kills=10)
    tracemalloc.start()
    try:
        soak(kind(tmp_path / "second"), seed=3, kills=10)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        soak(kind(tmp_path / "third"), seed=4, kills=100)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # 5 KiB a death: with HTTP+SSE each session has a URL of its own, and caches of URLs (ours, the
    # library's, urllib's) hold some hundred of them. A session that was kept would be 20 KiB.
    assert grown < 5 * 1024 * 100
