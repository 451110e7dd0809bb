"""Coroutines that are stepped by hand: what ends without waiting needs no task and no timer."""

from __future__ import annotations

import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["go_on", "in_own_context"]

T = TypeVar("T")


@types.coroutine
def go_on(coroutine: Coroutine[Any, Any, T], pending: Any) -> Generator[Any, Any, T]:
    """Await a coroutine that was stepped once already, and waits for `pending`."""
    step: Callable[..., Any] = coroutine.send
    while True:
        try:
            given = yield pending
            step = coroutine.send
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it belongs to the coroutine
            given = error
            step = coroutine.throw
        try:
            pending = step(given)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


@types.coroutine
def in_own_context(coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Run a coroutine in context variables of its own, within the task that awaits this.

    What one sets must not be seen by the next that shares the task.
    """
    run = contextvars.copy_context().run
    step: Callable[..., Any] = coroutine.send
    given: Any = None
    while True:
        try:
            waits_for = run(step, given)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            given = yield waits_for
            step = coroutine.send
        except GeneratorExit:
            run(coroutine.close)
            raise
        except BaseException as error:  # noqa: BLE001 - it belongs to the handler
            given = error
            step = coroutine.throw
