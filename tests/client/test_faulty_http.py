"""A client and a server of ours with a bad proxy between them: real sockets, every transport."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from dragoman import Client, Context, DragomanError, LinkError, Server
from dragoman.client.supervisor import Reconnect
from dragoman.errors import HttpError, Misconfigured
from dragoman.testing import FaultyHttp, HttpFaultPlan
from tests.http.aids import serving
from tests.support import run

POLICY = Reconnect(first_delay_s=0.01, max_delay_s=0.05, steady_s=0.0, max_tries=100)

CALM = HttpFaultPlan()


def recording() -> tuple[Server, Counter[int]]:
    server = Server("s")
    ran: Counter[int] = Counter()

    @server.tool
    async def record(n: int, ctx: Context) -> int:
        ran[n] += 1
        if n % 2:
            await ctx.report_progress(0.5)
        return n

    return server, ran


# Over streamable HTTP a broken stream is asked for again after the second that is usual there.
@pytest.mark.parametrize("mode", [pytest.param("streamable", marks=pytest.mark.long), "sse"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_calls_through_a_bad_proxy_have_one_outcome_each(mode: str, seed: int) -> None:
    plan = HttpFaultPlan(
        seed=seed, refuse=0.05, status=0.1, swallow=0.05, cut=0.1, drip=0.1, drip_s=0.0
    )
    outcomes: dict[int, object] = {}

    async def main() -> None:
        server, ran = recording()
        async with serving(server.asgi()) as place, FaultyHttp(place.url) as proxy:
            path = "/mcp" if mode == "streamable" else "/sse"
            async with Client(
                proxy.url + path, reconnect=POLICY, on_progress=lambda update: None, timeout_s=10.0
            ) as client:
                await client.list_tools()
                proxy.plan = plan

                async def call(n: int) -> None:
                    try:
                        result = await client.call_tool("record", {"n": n}, idempotent=n % 3 == 0)
                        outcomes[n] = result.structured_content
                    except DragomanError as error:
                        outcomes[n] = error

                for start in range(0, 60, 6):
                    await asyncio.gather(*(call(start + k) for k in range(6)))
                proxy.plan = CALM
                assert (await client.call_tool("record", {"n": -1})).text == "-1"
            assert proxy.counts.total() > proxy.counts["passed"] > 10
        for n, outcome in outcomes.items():
            if isinstance(outcome, LinkError):
                assert outcome.sent is not False or not ran[n], (n, outcome)
            else:
                assert outcome == {"result": n}, (n, outcome)
                assert ran[n] >= 1
            assert ran[n] <= 1 or n % 3 == 0, (n, outcome)
        assert set(outcomes) == set(range(60))

    run(main())


@pytest.mark.parametrize(
    ("plan", "status"),
    [
        (HttpFaultPlan(status=1.0, statuses=[418], retry_after_s=3), 418),
        (HttpFaultPlan(refuse=1.0), None),
        (HttpFaultPlan(swallow=1.0), None),
        (HttpFaultPlan(cut=1.0, cut_within=1), None),
    ],
)
def test_each_fault_is_what_it_says(plan: HttpFaultPlan, status: int | None) -> None:
    async def main() -> None:
        server, ran = recording()
        async with (
            serving(server.asgi()) as place,
            FaultyHttp(place.url) as proxy,
            Client(f"{proxy.url}/mcp", http_mode="streamable", reconnect=False) as client,
        ):
            # Once this is answered, the word that the client is ready has arrived as well.
            await client.list_tools()
            proxy.plan = plan
            with pytest.raises(LinkError) as failed:
                await client.call_tool("record", {"n": 2})
            if status is not None:
                assert isinstance(failed.value, HttpError)
                assert (failed.value.status, failed.value.retry_after_s) == (status, 3)
            assert ran[2] == (plan.swallow or plan.cut)
            assert ran[2] == 0 or failed.value.sent is not False
            proxy.plan = HttpFaultPlan(drip=1.0, drip_bytes=7, drip_s=0.0)
            assert (await client.call_tool("record", {"n": 4})).text == "4"

    run(main())


def test_a_server_that_goes_silent_is_noticed_by_pings_and_found_again() -> None:
    async def main() -> None:
        server, ran = recording()
        async with serving(server.asgi()) as place, FaultyHttp(place.url) as proxy:
            events: list[str] = []
            async with Client(
                f"{proxy.url}/mcp",
                reconnect=POLICY,
                keep_alive_s=0.05,
                # Half a second: a busy machine answers a ping in time, too.
                keep_alive_timeout_s=0.5,
                connect_timeout_s=10.0,
                on_connection=lambda event: events.append(event.kind),
            ) as client:
                await client.list_tools()
                proxy.plan = HttpFaultPlan(stall=1.0)
                call = asyncio.ensure_future(client.call_tool("record", {"n": 2}))
                with pytest.raises(LinkError, match="no ping") as failed:
                    await call
                assert failed.value.sent is None
                proxy.plan = CALM
                assert (await client.call_tool("record", {"n": 4})).text == "4"
            assert events[0] == "lost"
            assert events[-1] == "restored"
            assert ran[2] == 1

    run(main())


@pytest.mark.long
def test_a_session_whose_opening_was_lost_is_replaced() -> None:
    async def main() -> None:
        server, _ = recording()
        async with serving(server.asgi()) as place, FaultyHttp(place.url) as proxy:
            events: list[str] = []
            async with Client(
                f"{proxy.url}/mcp",
                reconnect=POLICY,
                on_connection=lambda event: events.append(event.kind),
            ) as client:
                # The answer to the hello is here; the word that we are ready is not on its way yet.
                proxy.plan = HttpFaultPlan(status=1.0, statuses=[503])
                calls = [client.call_tool("record", {"n": n}) for n in (2, 4)]
                asking = asyncio.gather(*calls)
                while not events:
                    await asyncio.sleep(0.01)
                proxy.plan = CALM
                assert [result.text for result in await asking] == ["2", "4"]
            assert events[0] == "lost"
            assert events[-1] == "restored"

    run(main())


@pytest.mark.parametrize("origin", ["https://a.example", "a.example:80", "http://a.example/path"])
def test_only_a_plain_origin_can_be_stood_before(origin: str) -> None:
    with pytest.raises(Misconfigured):
        FaultyHttp(origin)
    with pytest.raises(ValueError, match="probabilities"):
        HttpFaultPlan(cut=0.6, drip=0.6)
