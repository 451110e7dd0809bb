"""Ctrl-C for whoever is in charge: the innermost of those that asked for it, and nobody else.

And the signals that end a program, so that it leaves its terminal as it was.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["Ended", "ended_by_signals", "interrupted_by"]

_callbacks: list[Callable[[], object]] = []
# What SIGINT did before the first of them; None while there are none, or none can be called.
_before: list[Any] = []


@contextmanager
def interrupted_by(callback: Callable[[], object]) -> Iterator[None]:
    """While it is open, SIGINT calls back instead of ending the program.

    Of several that are open the last one is called; they may close in any order. Where an event loop
    cannot catch signals, SIGINT does what it always does.
    """
    loop = asyncio.get_running_loop()
    if not _callbacks:
        before = signal.getsignal(signal.SIGINT)
        # Windows, or a thread that is not the main one: it cannot.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGINT, _call)
            _before.append(before)
    # An object of its own: the same callback may be open twice.
    mine = _Open(callback)
    _callbacks.append(mine)
    try:
        yield
    finally:
        _callbacks.remove(mine)
        if not _callbacks and _before:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, _before.pop())


class _Open:
    def __init__(self, callback: Callable[[], object]) -> None:
        self._callback = callback

    def __call__(self) -> object:
        return self._callback()


def _call() -> None:
    if _callbacks:
        _callbacks[-1]()


class Ended:
    """Which signal has ended the program; `code` is how a shell reports that, None before."""

    def __init__(self) -> None:
        self.code: int | None = None


@contextmanager
def ended_by_signals() -> Iterator[Ended]:
    """While it is open, SIGTERM and SIGHUP cancel the current task instead of ending the program.

    Left to themselves they would end it at once: a terminal in which a line is being edited would
    stay without echo. Where an event loop cannot catch signals, they do that. One that is ignored,
    as nohup has it, stays so.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    ended = Ended()

    def end(number: int) -> None:
        ended.code = 128 + number
        task.cancel()

    caught: list[int] = []
    # Windows has no SIGHUP.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with suppress(NotImplementedError, RuntimeError, ValueError):
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, end, number)
                caught.append(number)
    try:
        yield ended
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
