"""Two drivers under any mix of handlers, cancellations and ends: nobody waits for ever."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.errors import DragomanError, RequestError
from dragoman.model.base import Record
from dragoman.model.content import TextContent
from dragoman.model.methods import Side
from dragoman.model.tools import CallToolParams, CallToolResult
from dragoman.protocol.calls import Exchange
from dragoman.runtime.driver import PAUSE_S, Driver
from dragoman.testing import ManualClock
from tests.protocol.aids import PARAMS
from tests.requirements.duties import duty
from tests.runtime.aids import Handlers, connected, give_result, run, tool, turns

BEHAVIOURS = ["return", "wait", "raise", "exit", "ask back", "for ever", "swallow", "progress"]

# What one call does, and what happens to it: (behaviour, turns, what the caller does, after turns)
calls = st.tuples(
    st.sampled_from(BEHAVIOURS),
    st.integers(0, 6),
    st.sampled_from(["wait", "wait", "cancel", "time out"]),
    st.integers(0, 8),
)


async def behave(driver: Driver, exchange: Exchange, params: Record) -> Record:
    """A tool that does what its name says, for as many turns as its argument says."""
    assert isinstance(params, CallToolParams)
    behaviour, count = tool(params), int(params.arguments["turns"])
    if behaviour == "raise":
        raise RequestError("no", code=-32050)
    if behaviour == "exit":
        await turns(count)
        raise SystemExit(count)
    if behaviour == "ask back":
        await driver.request("roots/list", PARAMS["roots/list"])
    elif behaviour == "for ever":
        await asyncio.get_running_loop().create_future()
    elif behaviour == "swallow":
        with suppress(asyncio.CancelledError):
            await turns(count)
    elif behaviour == "progress":
        for step in range(count):
            driver.engine.progress(exchange, step, count, now=driver.clock.now())
            driver.flush()
            await asyncio.sleep(0)
    else:
        await turns(count if behaviour == "wait" else 0)
    return CallToolResult(content=[TextContent(text=f"{behaviour} {count}")])


@duty("jsonrpc.response.every-request", "calls.cancel.frees", "calls.cancel.stops")
@given(
    plan=st.lists(calls, max_size=12),
    end=st.sampled_from([None, None, Side.CLIENT, Side.SERVER]),
    end_after=st.integers(0, 15),
    high_water_bytes=st.sampled_from([1, 300, 1 << 20]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_call_ends_once_and_nothing_is_left_behind(
    plan: list[tuple[str, int, str, int]], end: Any, end_after: int, high_water_bytes: int
) -> None:
    async def main() -> None:
        clock = ManualClock()
        handlers = Handlers(tools_call=behave)
        async with connected(
            handlers,
            Handlers(roots_list=give_result),
            clock=clock,
            high_water_bytes=high_water_bytes,
        ) as (client, server):
            told: list[list[float]] = [[] for _ in plan]
            started = [
                asyncio.ensure_future(
                    client.request(
                        "tools/call",
                        CallToolParams.of(behaviour, {"turns": count}),
                        timeout_s=50.0 if fate == "time out" else 5_000.0,
                        on_progress=lambda params, seen=seen: seen.append(params.progress),  # type: ignore[misc]
                    )
                )
                for (behaviour, count, fate, _), seen in zip(plan, told, strict=True)
            ]
            for turn in range(16):
                for call, (_, _, fate, after) in zip(started, plan, strict=True):
                    if fate == "cancel" and after == turn:
                        call.cancel()
                if end is not None and turn == end_after:
                    await {Side.CLIENT: client, Side.SERVER: server}[end].aclose()
                await asyncio.sleep(0)
            # Enough for every pause, but for no deadline yet.
            for _ in range(30):
                await turns(5)
                clock.advance(PAUSE_S)
            await turns()
            hanging = [
                call
                for call, (behaviour, _, _, _) in zip(started, plan, strict=True)
                if behaviour == "for ever" and not call.cancelled()
            ]
            if end is None:
                assert [call for call in started if not call.done()] == hanging
                assert len(server.engine.exchanges) == len(client.engine.calls) == len(hanging)
                assert len(server._hands) == len(hanging)
            else:
                assert all(call.done() for call in started)
            # Enough for every deadline.
            for _ in range(60):
                await turns(5)
                clock.advance(100.0)
            await turns(40)
            assert all(call.done() for call in started)
            for call, (behaviour, count, _, _), seen in zip(started, plan, told, strict=True):
                assert seen == sorted(set(seen))
                if call.cancelled():
                    continue
                error = call.exception()
                if error is None:
                    result = call.result()
                    assert isinstance(result, CallToolResult)
                    assert result.content == [TextContent(text=f"{behaviour} {count}")]
                else:
                    assert isinstance(error, DragomanError)
            assert (client.engine.calls, client.engine.exchanges) == ({}, {})
            assert (server.engine.calls, server.engine.exchanges) == ({}, {})

    run(main())
