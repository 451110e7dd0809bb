"""What the Python client programs share: the timed loop and the line they print.

Standard library only: it runs inside every peer's own environment.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

Call = Callable[[int], Awaitable[int]]

# As many calls as will be measured: caches, and in the other language a compiler, settle in them.
ONE_BY_ONE_CALLS = 200


async def drive(call: Call, calls: int, window: int) -> dict[str, float]:
    """Run ``calls`` calls from ``window`` tasks, then some one by one.

    ``call(a)`` must give ``a + 1``. Raises `ValueError` when it gives anything else.
    """
    await _spread(call, calls, window)
    cpu, start = time.process_time(), time.perf_counter()
    await _spread(call, calls, window)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    each: list[float] = []
    for a in range(ONE_BY_ONE_CALLS):
        begun = time.perf_counter()
        await call(a)
        each.append(time.perf_counter() - begun)
    return {
        "calls": calls,
        "wall_s": wall,
        "cpu_s": cpu,
        "p50_s": sorted(each)[len(each) // 2],
    }


async def _spread(call: Call, calls: int, window: int) -> None:
    numbers = iter(range(calls))

    async def work() -> None:
        for a in numbers:
            given = await call(a)
            if given != a + 1:
                raise ValueError(f"add({a}, 1) gave {given!r}")

    await asyncio.gather(*(work() for _ in range(window)))


def report(figures: dict[str, float]) -> None:
    """Print the figures as the one line the benchmark reads."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
