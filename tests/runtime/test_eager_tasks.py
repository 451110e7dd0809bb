"""Loops whose tasks begin at once (Python 3.12 and later) keep the same promises."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dragoman.model.base import Record
from dragoman.model.content import TextContent
from dragoman.model.methods import Side
from dragoman.model.tools import CallToolResult
from dragoman.protocol.calls import Exchange
from dragoman.runtime.driver import Driver
from dragoman.transport.memory import memory_pair
from tests.protocol.aids import engine_of
from tests.runtime.aids import Handlers, facing_script, run

pytestmark = pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="needs Python 3.12"
)


def test_no_task_is_kept_after_its_end_and_one_that_waits_holds_up_nobody() -> None:
    async def main() -> None:
        factory: Any = asyncio.__dict__["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(factory)
        gate = asyncio.Event()

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            if exchange.id == 0:
                await gate.wait()
            return CallToolResult(content=[TextContent(text="x")])

        async with facing_script(Side.SERVER, Handlers(tools_call=call)) as (driver, peer):
            for ident in range(2):
                peer.request(ident, "tools/call", {"name": "add"})
            assert (await peer.receive())["id"] == 1
            gate.set()
            assert (await peer.receive())["id"] == 0
            for ident in range(2, 20):
                peer.request(ident, "tools/call", {"name": "add"})
                assert (await peer.receive())["id"] == ident
            assert not driver._hands

    run(main())


def test_news_that_had_to_wait_once_may_wait_again() -> None:
    async def main() -> None:
        factory: Any = asyncio.__dict__["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(factory)

        class BusyLink:
            """A link that is congested each time it is asked first, and has drained by then."""

            is_congested = True

            async def drain(self) -> None:
                self.is_congested = False

            def __getattr__(self, name: str) -> Any:
                return getattr(near, name)

        near, far = memory_pair()
        link: Any = BusyLink()
        driver = Driver(engine_of(Side.SERVER), link, Handlers())
        driver.start()
        told: list[int] = []
        for number in range(3):
            link.is_congested = True
            driver.soon(number, lambda number=number: told.append(number))  # type: ignore[misc]
        assert told == [0, 1, 2]
        await driver.aclose()
        await far.aclose()

    run(main())
