"""Ctrl-C for whoever is in charge: the innermost of those that asked for it, and nobody else."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interrupted_by"]

_callbacks: list[Callable[[], object]] = []


@contextmanager
def interrupted_by(callback: Callable[[], object]) -> Iterator[None]:
    """While it is open, SIGINT calls back instead of ending the program.

    They nest: the last one opened is called. Where an event loop cannot catch signals, SIGINT does
    what it always does.
    """
    loop = asyncio.get_running_loop()
    before: Any = None
    is_first = not _callbacks
    _callbacks.append(callback)
    if is_first:
        before = signal.getsignal(signal.SIGINT)
        try:
            loop.add_signal_handler(signal.SIGINT, _call)
        except (NotImplementedError, RuntimeError, ValueError):
            # Windows, or a thread that is not the main one.
            is_first = False
    try:
        yield
    finally:
        _callbacks.remove(callback)
        if is_first:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)


def _call() -> None:
    if _callbacks:
        _callbacks[-1]()
