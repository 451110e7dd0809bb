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
