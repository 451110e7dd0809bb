"""A bounded pool of threads for functions that block.

Its threads are daemons: a function that never returns holds one slot and nothing else, least of
all the end of the process. A result comes back to the loop in one hop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from dragoman.errors import LimitExceeded, WrongState

__all__ = ["MAX_THREADS", "ThreadPool"]

T = TypeVar("T")

# 40 threads: what web frameworks settled on for blocking handlers; each costs about 100 kB.
MAX_THREADS = 40

# As many requests as one connection may have under way (protocol.limits.Limits.max_exchanges).
MAX_WAITING = 16_384

_Job = tuple[
    asyncio.AbstractEventLoop, "asyncio.Future[Any]", contextvars.Context, Callable[[], Any]
]


class ThreadPool:
    """Runs functions in at most `size` threads, which start when they are first needed.

    They stay for the next job until `rest` lets them go, or `close`. A pool that is dropped while
    it holds idle threads keeps them: let it rest first.
    """

    def __init__(self, size: int = MAX_THREADS, name: str = "dragoman") -> None:
        self.size = size
        self._name = name
        self._jobs: deque[_Job] = deque()
        self._ready = threading.Condition()
        self._idle = 0
        self._threads = 0
        self._closed = False
        self._is_resting = False

    async def run(self, function: Callable[[], T]) -> T:
        """Call the function in a thread, in a copy of the caller's context variables.

        When the caller is cancelled before a thread took the job, the function is not called;
        after that it runs to its end and its result is dropped.

        Raises:
            LimitExceeded: too many jobs are waiting already, or the system has no thread left.
            WrongState: the pool is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = (loop, future, contextvars.copy_context(), function)
        with self._ready:
            if self._closed:
                raise WrongState("closed", "the pool runs nothing any more")
            if len(self._jobs) >= MAX_WAITING:
                raise LimitExceeded("blocking calls that wait for a thread", MAX_WAITING, "calls")
            # Threads that were let go, but have not woken yet, still count as idle: they find the
            # job and stay.
            self._is_resting = False
            if self._idle <= len(self._jobs) and self._threads < self.size:
                self._add_thread()
            self._jobs.append(job)
            self._ready.notify()
        return await future

    def _add_thread(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"{self._name}-{self._threads + 1}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as fault:
            # The system has none left. With at least one of ours the job only waits longer.
            if not self._threads:
                raise LimitExceeded("threads of this system", 0, "threads", str(fault)) from None
            return
        self._threads += 1

    def rest(self) -> None:
        """Let every thread end once no job waits; the next job starts new ones."""
        with self._ready:
            self._is_resting = True
            self._ready.notify_all()

    def close(self) -> None:
        """Let every thread end once it is idle; jobs that wait end with WrongState."""
        with self._ready:
            self._closed = True
            dropped = list(self._jobs)
            self._jobs.clear()
            self._ready.notify_all()
        for loop, future, _, _ in dropped:
            _hand_over(loop, future, None, WrongState("closed", "the pool runs nothing any more"))

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._jobs:
                    if self._closed or self._is_resting:
                        self._threads -= 1
                        return
                    self._idle += 1
                    self._ready.wait()
                    self._idle -= 1
                job = self._jobs.popleft()
            _do(*job)
            # Nothing of the last job may live on in an idle thread.
            del job


def _do(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    context: contextvars.Context,
    function: Callable[[], Any],
) -> None:
    if future.cancelled():
        return
    try:
        result = context.run(function)
    except BaseException as error:  # noqa: BLE001 - handed to whoever awaits it
        _hand_over(loop, future, None, error)
    else:
        _hand_over(loop, future, result, None)


def _hand_over(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: Any,
    error: BaseException | None,
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):
            # A future cannot carry it.
            future.set_exception(RuntimeError("the function raised StopIteration"))
        else:
            future.set_exception(error)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:
        # The loop is closed: nobody waits any more.
        return
