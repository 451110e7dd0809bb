"""The pool for functions that block: bounded, with contexts, and with nothing left behind."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from dragoman.errors import LimitExceeded, WrongState
from dragoman.runtime import pool as pool_module
from dragoman.runtime.pool import ThreadPool
from tests.requirements.duties import duty
from tests.runtime.aids import run, turns

# Only a thread that hangs meets it.
LONG_S = 10.0


@contextmanager
def a_pool(size: int = 4) -> Iterator[ThreadPool]:
    """A pool that is closed at the end; its threads are over then."""
    pool = ThreadPool(size, name=f"test-{id(object())}")
    try:
        yield pool
    finally:
        pool.close()
        for thread in threads_of(pool):
            thread.join(LONG_S)
            assert not thread.is_alive()


def threads_of(pool: ThreadPool) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(pool._name + "-")]


def test_a_function_runs_in_another_thread_and_its_result_comes_back() -> None:
    async def main() -> None:
        with a_pool() as pool:
            name = await pool.run(lambda: threading.current_thread().name)
            assert name != threading.current_thread().name
            assert await pool.run(lambda: 5) == 5

    run(main())


def test_threads_are_daemons_and_start_only_when_needed() -> None:
    async def main() -> None:
        with a_pool() as pool:
            assert threads_of(pool) == []
            for _ in range(5):
                await pool.run(lambda: None)
                # The thread is idle again a moment later; a second one may have been needed.
            assert 1 <= len(threads_of(pool)) <= 4
            assert all(thread.daemon for thread in threads_of(pool))

    run(main())


@duty("trust.practices")
def test_no_more_functions_run_at_once_than_the_pool_has_threads() -> None:
    async def main() -> None:
        lock = threading.Lock()
        gate = threading.Event()
        running = most = 0
        full = threading.Event()

        def work() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                if running == 3:
                    full.set()
            gate.wait(LONG_S)
            with lock:
                running -= 1

        with a_pool(3) as pool:
            jobs = [asyncio.ensure_future(pool.run(work)) for _ in range(20)]
            await asyncio.to_thread(full.wait, LONG_S)
            assert len(threads_of(pool)) == 3
            gate.set()
            await asyncio.gather(*jobs)
            assert most == 3

    run(main())


def test_a_function_sees_the_context_of_its_caller_and_changes_only_a_copy() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    def work() -> str:
        seen = variable.get()
        variable.set("changed")
        return seen

    async def main() -> None:
        with a_pool() as pool:
            for value in ("one", "two"):
                variable.set(value)
                assert await pool.run(work) == value
                assert variable.get() == value

    run(main())


class Strange(BaseException):
    """Neither an Exception nor anything asyncio knows."""


@pytest.mark.parametrize("error", [ValueError("x"), Strange("x"), asyncio.CancelledError("x")])
def test_what_a_function_raises_is_raised_where_it_is_awaited(error: BaseException) -> None:
    def work() -> None:
        raise error

    async def main() -> None:
        with a_pool() as pool:
            with pytest.raises(type(error)) as raised:
                await pool.run(work)
            assert raised.value is error
            assert await pool.run(lambda: 5) == 5

    run(main())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_inside_a_function_is_the_awaiters_to_handle(error: BaseException) -> None:
    def work() -> None:
        raise error

    async def main() -> None:
        with a_pool() as pool:
            caught: list[BaseException] = []
            try:
                await pool.run(work)
            except BaseException as seen:
                caught.append(seen)
            assert caught == [error]
            assert await pool.run(lambda: 5) == 5

    run(main())


@pytest.mark.parametrize("error", [StopIteration(1), StopIteration()])
def test_the_end_of_an_iterator_becomes_an_error_that_a_future_can_carry(
    error: BaseException,
) -> None:
    def work() -> None:
        raise error

    async def main() -> None:
        with a_pool() as pool, pytest.raises(RuntimeError, match="StopIteration"):
            await pool.run(work)

    run(main())


@duty("calls.cancel.frees")
def test_a_job_that_is_cancelled_before_it_began_is_not_run() -> None:
    async def main() -> None:
        gate, begun = threading.Event(), threading.Event()
        ran: list[str] = []

        def block() -> None:
            begun.set()
            gate.wait(LONG_S)

        with a_pool(1) as pool:
            first = asyncio.ensure_future(pool.run(block))
            await asyncio.to_thread(begun.wait, LONG_S)
            second = asyncio.ensure_future(pool.run(lambda: ran.append("second")))
            third = asyncio.ensure_future(pool.run(lambda: ran.append("third")))
            await turns()
            second.cancel()
            await turns()
            gate.set()
            await asyncio.gather(first, third)
            assert ran == ["third"]
            with pytest.raises(asyncio.CancelledError):
                await second

    run(main())


@pytest.mark.parametrize("ends", ["returns", "raises"])
def test_a_job_that_is_cancelled_while_it_runs_ends_by_itself_and_is_dropped(ends: str) -> None:
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        gate, begun = threading.Event(), threading.Event()

        def block() -> int:
            begun.set()
            gate.wait(LONG_S)
            if ends == "raises":
                raise ValueError
            return 5

        with a_pool(1) as pool:
            job = asyncio.ensure_future(pool.run(block))
            await asyncio.to_thread(begun.wait, LONG_S)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            gate.set()
            assert await pool.run(lambda: 6) == 6
            await turns()

    run(main())
    assert complaints == []


@pytest.mark.parametrize("how", ["returned", "raised", "cancelled"])
def test_an_idle_thread_keeps_nothing_of_its_last_job(how: str) -> None:
    class Large:
        """Something one would not want to keep."""

    def work(given: Large) -> Large:
        if how == "raised":
            raise ValueError(given)
        return given

    async def main() -> None:
        with a_pool(1) as pool:
            large = Large()
            seen = weakref.ref(large)
            if how == "cancelled":
                gate = threading.Event()
                first = asyncio.ensure_future(pool.run(lambda: gate.wait(LONG_S)))
                job = asyncio.ensure_future(pool.run(functools.partial(work, large)))
                await turns()
                job.cancel()
                await turns()
                gate.set()
                await first
                del job
            else:
                with suppress(ValueError):
                    await pool.run(functools.partial(work, large))
            del large
            while pool._jobs or not pool._idle:
                await asyncio.sleep(0)
            # The loop itself holds the last result for a turn.
            await turns()
            gc.collect()
            assert seen() is None

    run(main())


@duty("trust.practices")
def test_jobs_that_wait_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_WAITING", 2)

    async def main() -> None:
        gate, begun = threading.Event(), threading.Event()

        def block() -> None:
            begun.set()
            gate.wait(LONG_S)

        with a_pool(1) as pool:
            jobs = [asyncio.ensure_future(pool.run(block))]
            await asyncio.to_thread(begun.wait, LONG_S)
            jobs += [asyncio.ensure_future(pool.run(block)) for _ in range(2)]
            await turns()
            with pytest.raises(LimitExceeded) as raised:
                await pool.run(block)
            assert (raised.value.value, raised.value.unit) == (2, "calls")
            gate.set()
            await asyncio.gather(*jobs)

    run(main())


def test_jobs_that_wait_when_the_pool_is_closed_end_with_an_error() -> None:
    async def main() -> None:
        gate, begun = threading.Event(), threading.Event()

        def block() -> str:
            begun.set()
            gate.wait(LONG_S)
            return "done"

        with a_pool(1) as pool:
            first = asyncio.ensure_future(pool.run(block))
            await asyncio.to_thread(begun.wait, LONG_S)
            second = asyncio.ensure_future(pool.run(block))
            await turns()
            pool.close()
            with pytest.raises(WrongState):
                await second
            with pytest.raises(WrongState):
                await pool.run(block)
            gate.set()
            assert await first == "done"

    run(main())


def test_a_result_for_a_loop_that_is_closed_already_goes_nowhere() -> None:
    gate, begun = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        gate.wait(LONG_S)

    with a_pool(1) as pool:

        async def main() -> None:
            job = asyncio.ensure_future(pool.run(block))
            await asyncio.to_thread(begun.wait, LONG_S)
            job.cancel()

        asyncio.run(main())
        gate.set()
        assert asyncio.run(pool.run(lambda: 7)) == 7


@pytest.mark.parametrize("has_one", [False, True])
def test_a_system_without_threads_left_is_told_apart_from_one_that_is_busy(
    has_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        gate, begun = threading.Event(), threading.Event()

        def block() -> str:
            begun.set()
            gate.wait(LONG_S)
            return "done"

        with a_pool(2) as pool:
            jobs = []
            if has_one:
                jobs.append(asyncio.ensure_future(pool.run(block)))
                await asyncio.to_thread(begun.wait, LONG_S)

            def refuse(thread: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                if has_one:
                    # It waits for the thread there is.
                    jobs.append(asyncio.ensure_future(pool.run(block)))
                    await turns()
                else:
                    with pytest.raises(LimitExceeded, match="can't start"):
                        await pool.run(block)
            gate.set()
            assert await asyncio.gather(*jobs) == ["done"] * len(jobs)
            assert await pool.run(block) == "done"

    run(main())


def test_many_jobs_from_many_callers_all_come_back() -> None:
    async def main() -> None:
        with a_pool(8) as pool:
            squares = (functools.partial(pow, n, 2) for n in range(2_000))
            results = await asyncio.gather(*(pool.run(square) for square in squares))
            assert results == [n * n for n in range(2_000)]

    run(main())


def ended(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(LONG_S)
    return not any(thread.is_alive() for thread in threads)


def test_a_pool_that_rests_keeps_no_thread_and_starts_new_ones_for_the_next_job() -> None:
    async def main() -> None:
        with a_pool(3) as pool:
            for _ in range(3):
                barrier = threading.Barrier(3)
                jobs = (pool.run(functools.partial(barrier.wait, LONG_S)) for _ in range(3))
                assert sorted(await asyncio.gather(*jobs)) == [0, 1, 2]
                threads = threads_of(pool)
                assert len(threads) == 3
                pool.rest()
                assert ended(threads)
                assert (pool._threads, pool._idle) == (0, 0)

    run(main())


def test_a_pool_that_rests_ends_what_it_has_begun_and_what_waits() -> None:
    async def main() -> None:
        gate, begun = threading.Event(), threading.Event()

        def block() -> str:
            begun.set()
            gate.wait(LONG_S)
            return "done"

        with a_pool(1) as pool:
            first = asyncio.ensure_future(pool.run(block))
            await asyncio.to_thread(begun.wait, LONG_S)
            second = asyncio.ensure_future(pool.run(lambda: "too"))
            await turns()
            threads = threads_of(pool)
            pool.rest()
            gate.set()
            assert [await first, await second] == ["done", "too"]
            assert ended(threads)

    run(main())


def test_no_job_is_lost_between_the_end_of_a_rest_and_its_begin() -> None:
    async def main() -> None:
        with a_pool(4) as pool:
            for count in range(400):
                jobs = [pool.run(functools.partial(pow, n, 2)) for n in range(count % 7)]
                running = asyncio.gather(*jobs)
                await turns(count % 3)
                # Threads are busy, idle or already told to go, as it happens.
                pool.rest()
                assert await running == [n * n for n in range(count % 7)]
            assert 0 <= pool._idle <= pool._threads <= 4

    run(main())


def test_a_pool_that_rests_may_be_dropped() -> None:
    async def main() -> weakref.ref[ThreadPool]:
        pool = ThreadPool(2, name=f"dropped-{id(object())}")
        await pool.run(lambda: None)
        threads = threads_of(pool)
        pool.rest()
        assert ended(threads)
        return weakref.ref(pool)

    dropped = run(main())
    gc.collect()
    assert dropped() is None
