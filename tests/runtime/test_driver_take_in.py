"""Requests that are begun in the task of whoever brings them."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from dragoman.errors import InvalidParams, LinkError
from dragoman.jsonrpc import codec
from dragoman.jsonrpc.frame import LOCAL
from dragoman.model.base import Record
from dragoman.model.methods import Side
from dragoman.protocol.calls import Exchange
from dragoman.runtime.driver import Driver
from tests.protocol.aids import RESULTS
from tests.runtime.aids import Handlers, facing_script, give_result, run, turns, wait_for_ever

CALL = b'{"name":"add","arguments":{"a":1}}'


def call(ident: int) -> bytes:
    return codec.request(ident, "tools/call", CALL)


def test_a_handler_that_does_not_wait_has_answered_when_its_request_was_taken_in() -> None:
    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=give_result)) as (driver, peer):
            assert driver.take_in(call(1), LOCAL, driver.clock.now()) is None
            assert driver.engine.exchanges == {}
            reply = await peer.receive()
            assert (reply["id"], "result" in reply) == (1, True)

    run(main())


def test_a_handler_that_waits_goes_on_in_the_task_and_context_it_began_in() -> None:
    variable = contextvars.ContextVar("variable", default="")

    async def main() -> None:
        gate = asyncio.Event()
        seen: list[Any] = []

        async def wait(driver: Driver, exchange: Exchange, params: Record) -> Record:
            variable.set("mine")
            seen.append(asyncio.current_task())
            await gate.wait()
            seen.append(asyncio.current_task())
            assert variable.get() == "mine"
            return RESULTS["tools/call"]

        async with facing_script(Side.SERVER, Handlers(tools_call=wait)) as (driver, peer):
            rest = driver.take_in(call(1), LOCAL, driver.clock.now())
            assert rest is not None
            asyncio.get_running_loop().call_soon(gate.set)
            await rest
            assert seen == [asyncio.current_task()] * 2
            assert "result" in await peer.receive()

    run(main())


@pytest.mark.parametrize(
    ("error", "code"), [(InvalidParams("no such city"), -32602), (KeyError("x"), -32603)]
)
@pytest.mark.parametrize("waits", [False, True])
def test_a_handler_that_fails_is_answered_for(error: Exception, code: int, waits: bool) -> None:
    async def main() -> None:
        async def fail(driver: Driver, exchange: Exchange, params: Record) -> Record:
            if waits:
                await asyncio.sleep(0)
            raise error

        async with facing_script(Side.SERVER, Handlers(tools_call=fail)) as (driver, peer):
            rest = driver.take_in(call(1), LOCAL, driver.clock.now())
            assert (rest is not None) is waits
            if rest is not None:
                await rest
            assert (await peer.receive())["error"]["code"] == code

    run(main())


def test_a_handler_that_ends_its_task_at_once_is_answered_for_and_ends_it() -> None:
    async def main() -> None:
        async def leave(driver: Driver, exchange: Exchange, params: Record) -> Record:
            raise asyncio.CancelledError

        async with facing_script(Side.SERVER, Handlers(tools_call=leave)) as (driver, peer):
            with pytest.raises(asyncio.CancelledError):
                driver.take_in(call(1), LOCAL, driver.clock.now())
            assert (await peer.receive())["error"]["code"] == -32603

    run(main())


def test_a_request_that_the_peer_cancels_leaves_the_task_to_whoever_brought_it() -> None:
    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=wait_for_ever)) as (driver, peer):
            rest = driver.take_in(call(1), LOCAL, driver.clock.now())
            assert rest is not None
            peer.notify("notifications/cancelled", {"requestId": 1})
            await rest
            this = asyncio.current_task()
            assert this is not None
            assert this.cancelling() == 0
            await turns()
            assert peer.waiting == 0
            assert driver.engine.exchanges == {}

    run(main())


def test_a_task_that_is_cancelled_while_its_handler_waits_ends_and_the_peer_hears_of_it() -> None:
    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=wait_for_ever)) as (driver, peer):

            async def bring() -> None:
                rest = driver.take_in(call(1), LOCAL, driver.clock.now())
                assert rest is not None
                await rest

            task = asyncio.ensure_future(bring())
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await peer.receive())["error"]["code"] == -32603

    run(main())


def test_a_handler_that_ends_its_own_connection_is_ended_where_it_first_waits() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def hang_up(driver: Driver, exchange: Exchange, params: Record) -> Record:
            # What the end of a link comes to, before anybody knows the task of this handler.
            driver.link_closed(LinkError("gone"))
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.append("here")
            raise AssertionError

        async with facing_script(Side.SERVER, Handlers(tools_call=hang_up)) as (driver, _):
            rest = driver.take_in(call(1), LOCAL, driver.clock.now())
            assert rest is not None
            await rest
            assert ended == ["here"]

    run(main())


def test_closing_a_driver_ends_a_handler_that_waits_in_a_task_of_its_own() -> None:
    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=wait_for_ever)) as (driver, _):

            async def bring() -> str:
                rest = driver.take_in(call(1), LOCAL, driver.clock.now())
                assert rest is not None
                await rest
                return "went on"

            task = asyncio.ensure_future(bring())
            await turns()
            await driver.aclose()
            assert await task == "went on"

    run(main())
