"""Whatever goes wrong on the way: every call has one outcome, nothing runs twice, nothing is left."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from typing import Any

import pytest

from dragoman import (
    Client,
    Context,
    DeadlineExceeded,
    DragomanError,
    LinkError,
    PeerError,
    RemoteFailure,
    Server,
)
from dragoman.client.supervisor import ConnectionEvent, Reconnect
from dragoman.client.targets import connector_for
from dragoman.errors import WrongState
from dragoman.testing import CALM, FaultPlan, FaultyConnector
from tests.instant import run_instantly

# A share of the seeds in the default run, all of them with `-m slow`.
SEEDS = 500
MANY_SEEDS = 20_000

CALLS = 12

POLICY = Reconnect(max_tries=6, total_s=60.0, steady_s=5.0)


class Run:
    """One schedule: a server, a client, faults between them, and calls made through all of it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.plan = a_plan(self.random, seed)
        self.ran: Counter[int] = Counter()
        self.outcomes: dict[int, Any] = {}
        self.repeatable: set[int] = set()
        self.cancelled: set[int] = set()
        self.serving = 0
        self.events: list[ConnectionEvent] = []
        self.server = self._server()
        self.connector = FaultyConnector(connector_for(self.server))

    def _server(self) -> Server:
        server = Server("s")

        @server.tool
        async def record(n: int, wait_s: float, ctx: Context) -> int:
            self.ran[n] += 1
            await ctx.report_progress(0.5)
            await asyncio.sleep(wait_s)
            return n

        @server.resource("a://b")
        async def resource() -> str:
            return "text"

        return server

    async def call(self, client: Client, n: int) -> None:
        try:
            await asyncio.sleep(self.random.uniform(0, 3))
            self.outcomes[n] = (
                await client.call_tool(
                    "record",
                    {"n": n, "wait_s": self.random.choice([0.0, 0.0, 0.3, 2.0])},
                    idempotent=n in self.repeatable,
                    timeout_s=self.random.choice([1.0, 5.0, 20.0]),
                    total_s=30.0,
                    on_progress=(lambda update: None) if self.random.random() < 0.5 else None,
                )
            ).structured_content
        except (DragomanError, asyncio.CancelledError) as error:
            assert n not in self.outcomes
            self.outcomes[n] = error

    async def main(self) -> None:
        chance = self.random
        client = Client(
            self.connector,
            reconnect=POLICY,
            connect_timeout_s=2.0,
            keep_alive_s=chance.choice([None, 1.0]),
            on_connection=self.events.append,
        )
        await client.connect()
        await client.set_logging_level("info")
        await client.subscribe_resource("a://b")
        self.connector.plan = self.plan
        self.repeatable = {n for n in range(CALLS) if chance.random() < 0.4}
        calls = [asyncio.ensure_future(self.call(client, n)) for n in range(CALLS)]
        for n, task in enumerate(calls):
            if chance.random() < 0.1:
                self.cancelled.add(n)
                asyncio.get_running_loop().call_later(chance.uniform(0, 4), task.cancel)
        if chance.random() < 0.2:
            # The user leaves in the middle of it.
            await asyncio.sleep(chance.uniform(0, 4))
        else:
            await asyncio.wait(calls)
            self.connector.plan = CALM
            await self.check_recovery(client)
        await client.aclose()
        await asyncio.wait(calls)

    async def check_recovery(self, client: Client) -> None:
        """What was given up can be opened again; all else works as it is."""
        await asyncio.sleep(POLICY.total_s)
        if client.connection_state == "lost":
            assert self.events[-1].kind == "given_up"
            await client.connect()
        try:
            await client.ping()
            await client.call_tool("record", {"n": -1, "wait_s": 0.0})
        except RemoteFailure as error:
            if not self.is_uninitialized(error):
                raise
            await client.aclose()
            await client.connect()
        assert (await client.call_tool("record", {"n": -1, "wait_s": 0.0})).data == -1
        assert client.connection_state == "connected"

    def is_uninitialized(self, error: DragomanError) -> bool:
        """The word that the client is ready was lost, which no real link does in silence."""
        loses = self.plan.drop or self.plan.truncate
        return bool(loses) and isinstance(error, RemoteFailure) and error.code == -32600

    def check(self) -> None:
        assert set(self.outcomes) == set(range(CALLS))
        for n, outcome in self.outcomes.items():
            ran = self.ran[n]
            if isinstance(outcome, asyncio.CancelledError):
                assert n in self.cancelled
            elif isinstance(outcome, LinkError):
                assert ran == 0 or outcome.sent is not False, (n, outcome, ran)
            elif isinstance(outcome, DragomanError):
                # A truncated answer is the peer's fault, as far as can be told; a truncated
                # request is refused without its id, and so runs into its deadline. A call made
                # after the user has left is a mistake of the user.
                allowed = DeadlineExceeded | PeerError | WrongState
                assert isinstance(outcome, allowed) or self.is_uninitialized(outcome), (n, outcome)
            else:
                assert outcome == {"result": n}, (n, outcome)
                assert ran >= 1
            assert n in self.repeatable or ran <= 1, (n, ran)
        assert all(link.is_closed for link in self.connector.links)


def a_plan(chance: random.Random, seed: int) -> FaultPlan:
    """A mix of faults: most runs have a few kinds, some have many."""

    def share(most: float) -> float:
        return chance.uniform(0, most) if chance.random() < 0.4 else 0.0

    return FaultPlan(
        seed=seed,
        delay=share(0.3),
        delay_s=chance.choice([0.05, 2.0]),
        drop=share(0.1),
        truncate=share(0.1),
        cut=share(0.15),
        duplicate=share(0.1),
        lose=share(0.2),
        refuse=share(0.9),
        connect_s=chance.choice([0.0, 0.0, 4.0]),
        bytes_per_s=chance.choice([None, None, 2_000.0]),
        is_ordered=chance.random() < 0.5,
    )


def check(seed: int) -> Counter[str]:
    schedule = Run(seed)
    try:
        run_instantly(schedule.main())
        schedule.check()
    except BaseException as error:
        error.add_note(f"seed {seed}, {schedule.plan}")
        raise
    return schedule.connector.counts + Counter(event.kind for event in schedule.events)


def check_all(seeds: range) -> None:
    seen: Counter[str] = Counter()
    # Thousands of broken connections are told of at length; nobody reads that here.
    logging.disable(logging.CRITICAL)
    try:
        for seed in seeds:
            seen += check(seed)
    finally:
        logging.disable(logging.NOTSET)
    # What never happened was not tested.
    kinds = {"delay", "drop", "truncate", "cut", "duplicate", "lose", "refuse"}
    assert kinds | {"lost", "retrying", "restored", "given_up"} <= set(seen), seen


def test_every_call_has_one_outcome_through_hundreds_of_schedules_of_faults() -> None:
    check_all(range(SEEDS))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_every_call_has_one_outcome_through_many_thousand_schedules_of_faults() -> None:
    check_all(range(SEEDS, MANY_SEEDS))
