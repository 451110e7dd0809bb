"""Who may read from the keyboard, and whom Ctrl-C is for."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import ExitStack

import pytest

from dragoman.cli.interrupts import interrupted_by
from dragoman.cli.keyboard import Keyboard
from tests.instant import run_instantly
from tests.support import run


def test_a_question_takes_the_keyboard_from_an_idle_prompt_which_comes_back() -> None:
    seen: list[str] = []

    async def read() -> str:
        seen.append("prompt")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("withdrawn")
            raise
        return "line"

    async def work() -> str:
        keyboard = Keyboard()
        reading = asyncio.create_task(keyboard.idle(read))
        await asyncio.sleep(1)

        async def ask(name: str) -> None:
            async with keyboard.taken():
                seen.append(name)
                await asyncio.sleep(1)
                seen.append(f"{name} done")

        await asyncio.gather(ask("first"), ask("second"))
        return await reading

    assert run_instantly(work()) == "line"
    assert seen == [
        "prompt",
        "withdrawn",
        "first",
        "first done",
        "second",
        "second done",
        "prompt",
    ]


def test_a_question_asked_as_another_ends_does_not_wait_behind_the_prompt() -> None:
    seen: list[str] = []

    async def work() -> None:
        keyboard = Keyboard()

        async def read() -> str:
            seen.append("prompt")
            await asyncio.Event().wait()
            return "line"

        async def ask_each(*names: str) -> None:
            for name in names:
                async with keyboard.taken():
                    seen.append(name)
                    await asyncio.sleep(1)

        reading = asyncio.create_task(keyboard.idle(read))
        await asyncio.sleep(1)
        await asyncio.wait_for(ask_each("first", "second", "third"), 10)
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.wait([reading])

    run_instantly(work())
    assert seen == ["prompt", "first", "second", "third", "prompt"]


def test_who_waits_for_the_keyboard_can_be_cancelled() -> None:
    async def work() -> bool:
        keyboard = Keyboard()
        async with keyboard.taken():
            waiting = asyncio.create_task(keyboard.idle(lambda: asyncio.sleep(0)))
            await asyncio.sleep(1)
            waiting.cancel()
            await asyncio.wait([waiting])
        await keyboard.idle(lambda: asyncio.sleep(0))
        return waiting.cancelled()

    assert run_instantly(work())


def test_an_idle_prompt_that_is_cancelled_ends() -> None:
    async def work() -> bool:
        keyboard = Keyboard()
        reading = asyncio.create_task(keyboard.idle(lambda: asyncio.sleep(10)))
        await asyncio.sleep(1)
        reading.cancel()
        await asyncio.wait([reading])
        return reading.cancelled()

    assert run_instantly(work())


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals that a loop can catch")
def test_ctrl_c_is_for_the_innermost_that_wants_it() -> None:
    seen: list[str] = []

    async def press() -> None:
        told = asyncio.Event()
        asyncio.get_running_loop().call_later(0.001, told.set)
        os.kill(os.getpid(), signal.SIGINT)
        await told.wait()

    async def work() -> None:
        with interrupted_by(lambda: seen.append("outer")):
            await press()
            with interrupted_by(lambda: seen.append("inner")):
                await press()
            await press()

        # Two tasks need not end in the order in which they began.
        first, second = ExitStack(), ExitStack()
        first.enter_context(interrupted_by(lambda: seen.append("first")))
        second.enter_context(interrupted_by(lambda: seen.append("second")))
        first.close()
        await press()
        second.close()

    before = signal.getsignal(signal.SIGINT)
    run(work())
    assert seen == ["outer", "inner", "outer", "second"]
    assert signal.getsignal(signal.SIGINT) is before
