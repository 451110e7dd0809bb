"""Real servers and children that are stopped, cut off or killed under many calls or many clients."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dragoman import Client, DeadlineExceeded, LinkError
from dragoman.client.supervisor import ConnectionEvent, Reconnect
from tests.soak.test_soak import HttpVictim, OverHttpx, OverSse, Victim, resources

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]

POLICY = Reconnect(first_delay_s=0.02, max_delay_s=0.2, steady_s=0.0)

# 30 s for what takes three on an idle machine.
PATIENCE_S = 30.0

VICTIMS = pytest.mark.parametrize(
    "kind", [Victim, HttpVictim, OverHttpx, OverSse], ids=["stdio", "http", "httpx2", "sse"]
)
OVER_HTTP = pytest.mark.parametrize(
    "kind", [HttpVictim, OverHttpx, OverSse], ids=["http", "httpx2", "sse"]
)


class Events:
    """What a user was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self._news = asyncio.Event()

    def __call__(self, event: ConnectionEvent) -> None:
        self.kinds[event.kind] += 1
        self._news.set()

    async def until(self, kind: str, count: int = 1) -> None:
        while self.kinds[kind] < count:
            self._news.clear()
            await self._news.wait()


def ran(victim: Victim) -> Counter[int]:
    return Counter(int(line) for line in victim.log.read_text().splitlines())


async def outcome(call: Awaitable[Any]) -> Any:
    """The result as the tool gave it, or the error."""
    try:
        return (await call).data
    except (LinkError, DeadlineExceeded) as error:
        return error


def bounded(main: Callable[[], Awaitable[None]]) -> None:
    """Run it within the patience; nothing may be left: no task, no file, no child."""

    async def whole() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main()
        # Transports close in the turns after.
        for _ in range(5):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    files = resources()
    asyncio.run(whole())
    assert resources() <= files
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def signalled(victim: Victim, client: Client, number: int) -> None:
    if isinstance(victim, HttpVictim):
        assert victim.process is not None
        victim.process.send_signal(number)
    else:
        known = client._supervisor.known
        assert known is not None
        os.kill(known.link.pid, number)  # type: ignore[attr-defined]


@VICTIMS
def test_a_server_that_stands_still_answers_when_it_goes_on_and_nobody_else_suffers(
    kind: type[Victim], tmp_path: Path
) -> None:
    async def main() -> None:
        victim, events = kind(tmp_path / "log"), Events()
        await victim.start()
        try:
            async with Client(
                victim.target, reconnect=POLICY, on_connection=events, **victim.options
            ) as client:
                await client.call_tool("record", {"n": 0})
                signalled(victim, client, signal.SIGSTOP)
                calls = [
                    asyncio.ensure_future(outcome(client.call_tool("record", {"n": n})))
                    for n in range(1, 21)
                ]
                late = await outcome(client.call_tool("record", {"n": 99}, timeout_s=0.3))
                assert isinstance(late, DeadlineExceeded)
                assert not any(one.done() for one in calls)
                signalled(victim, client, signal.SIGCONT)
                assert await asyncio.gather(*calls) == list(range(1, 21))
        finally:
            await victim.stop()
        assert not events.kinds
        assert max(ran(victim).values()) == 1

    bounded(main)


@VICTIMS
def test_a_server_that_stands_still_is_left_when_pings_are_on(
    kind: type[Victim], tmp_path: Path
) -> None:
    async def main() -> None:
        victim, events = kind(tmp_path / "log"), Events()
        await victim.start()
        try:
            async with Client(
                victim.target,
                reconnect=POLICY,
                on_connection=events,
                keep_alive_s=0.3,
                connect_timeout_s=5.0,
                **victim.options,
            ) as client:
                await client.call_tool("record", {"n": 0})
                signalled(victim, client, signal.SIGSTOP)
                calls = [
                    asyncio.ensure_future(outcome(client.call_tool("record", {"n": n})))
                    for n in range(1, 21)
                ]
                for lost in await asyncio.gather(*calls):
                    assert isinstance(lost, LinkError)
                    assert lost.sent is not False
                await events.until("lost")
                if isinstance(victim, HttpVictim):
                    signalled(victim, client, signal.SIGCONT)
                await events.until("restored")
                assert await outcome(client.call_tool("record", {"n": 50})) == 50
        finally:
            await victim.stop()
        assert events.kinds["given_up"] == 0
        assert max(ran(victim).values()) == 1

    bounded(main)


class Wire:
    """Stands before a port; `freeze` lets every connection hang for ever, and new ones pass."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._frozen: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def freeze(self) -> None:
        self._frozen |= self._tasks

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(far_writer)
            await asyncio.gather(
                self._pass(reader, far_writer, this), self._pass(far_reader, writer, this)
            )
        except OSError:
            pass
        finally:
            for one in writers:
                one.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, owner: asyncio.Task[None]
    ) -> None:
        while data := await reader.read(65536):
            if owner in self._frozen:
                break
            writer.write(data)
            await writer.drain()
        if owner in self._frozen:
            await asyncio.Event().wait()
        with suppress(OSError):
            writer.close()


@OVER_HTTP
def test_connections_that_hang_for_ever_cost_a_call_its_deadline_and_no_other_call_anything(
    kind: type[HttpVictim], tmp_path: Path
) -> None:
    async def main() -> None:
        victim, events = kind(tmp_path / "log"), Events()
        await victim.start()
        wire = Wire(victim.port)
        port = await wire.start()
        target = victim.target.replace(str(victim.port), str(port))
        try:
            async with Client(
                target,
                reconnect=POLICY,
                on_connection=events,
                keep_alive_s=0.3,
                connect_timeout_s=5.0,
                **victim.options,
            ) as client:
                for number in range(1, 4):
                    assert await outcome(client.call_tool("record", {"n": number})) == number
                    wire.freeze()
                    if kind is OverSse:
                        # Pings go, and no answer comes: the stream hangs, and with it the session.
                        await events.until("restored", number)
                    # No connection is used again that hung before: soon there is none left.
                    hung = 0
                    while not isinstance(
                        await outcome(
                            client.call_tool("record", {"n": 0}, timeout_s=0.5, idempotent=True)
                        ),
                        int,
                    ):
                        hung += 1
                    assert hung <= 4
        finally:
            await wire.stop()
            await victim.stop()
        assert events.kinds["given_up"] == 0
        assert kind is OverSse or not events.kinds

    bounded(main)


@OVER_HTTP
def test_fifty_clients_that_lose_one_server_come_back_and_hear_of_one_outage(
    kind: type[HttpVictim], tmp_path: Path
) -> None:
    many = 50

    async def main() -> None:
        victim = kind(tmp_path / "log")
        await victim.start()
        told = [Events() for _ in range(many)]
        clients = [
            Client(victim.target, reconnect=POLICY, on_connection=events, **victim.options)
            for events in told
        ]
        try:
            await asyncio.gather(*(client.connect() for client in clients))
            await victim.stop()
            # Of a stream that we only listen to nobody tells us; of a call that fails one hears.
            calls = [
                asyncio.ensure_future(outcome(client.call_tool("record", {"n": n})))
                for n, client in enumerate(clients)
            ]
            await victim.start()
            outcomes = await asyncio.gather(*calls)
            await asyncio.gather(*(client.ping() for client in clients))
            await asyncio.gather(*(client.aclose() for client in clients))
        finally:
            await victim.stop()
        counts = ran(victim)
        for n, one in enumerate(outcomes):
            if isinstance(one, LinkError):
                assert (one.sent, counts[n] <= 1) == (None, True)
            else:
                assert (one, counts[n]) == (n, 1)
        for events in told:
            assert (events.kinds["lost"], events.kinds["restored"]) == (1, 1)
            assert events.kinds["given_up"] == 0

    bounded(main)


def test_two_hundred_calls_of_a_child_that_is_killed_have_one_outcome_each(tmp_path: Path) -> None:
    many = 200

    async def main() -> None:
        victim, events = Victim(tmp_path / "log"), Events()
        async with Client(victim.target, reconnect=POLICY, on_connection=events) as client:
            await client.call_tool("record", {"n": 9_999})
            for number in range(1, 6):
                first = number * 1_000
                calls = [
                    asyncio.ensure_future(outcome(client.call_tool("record", {"n": first + n})))
                    for n in range(many)
                ]
                done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                assert done
                await victim.kill(client, signal.SIGKILL)
                later = client.call_tool("record", {"n": first + many}, idempotent=True)
                assert await outcome(later) == first + many
                outcomes = await asyncio.gather(*calls)
                counts = ran(victim)
                for n, one in enumerate(outcomes, first):
                    if isinstance(one, LinkError):
                        assert (one.sent, counts[n] <= 1) == (None, True)
                    else:
                        assert (one, counts[n]) == (n, 1)
                assert events.kinds["lost"] == events.kinds["restored"] == number

    bounded(main)
