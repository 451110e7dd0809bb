"""What the transport tests share: a loop for each test, a receiver that remembers, counters."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import ParamSpec

from dragoman.errors import LinkError
from dragoman.jsonrpc.frame import Delivery, Noise, Seen

CHILDREN = Path(__file__).parent / "children"

P = ParamSpec("P")


def in_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test in a fresh event loop, and fail it when it leaves a task behind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(40):
                await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"

        asyncio.run(bounded())

    return run


class Recorder:
    """A receiver that keeps what it is given, and lets a test wait for it."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.batches: list[int] = []
        self.refused: list[Noise] = []
        self.ends: list[LinkError | None] = []
        self.on_frames: Callable[[Sequence[bytes]], None] | None = None
        self._changed = asyncio.Event()

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        assert not self.ends, "frames after the end"
        assert seen.principal.name == "local"
        assert frames
        self.frames.extend(frames)
        self.batches.append(len(frames))
        self._changed.set()
        if self.on_frames is not None:
            self.on_frames(frames)

    def is_awaited(self, ident: int | str) -> bool:
        return True

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        raise AssertionError("these links carry no single requests")

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        raise AssertionError("these links have no deliveries")

    def link_troubled(self, error: LinkError | None) -> None:
        raise AssertionError("these links have no troubles of their own")

    def frame_refused(self, noise: Noise) -> None:
        assert not self.ends, "noise after the end"
        self.refused.append(noise)
        self._changed.set()

    def link_closed(self, error: LinkError | None) -> None:
        self.ends.append(error)
        self._changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something received makes `is_so` true."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    async def frame(self, index: int) -> bytes:
        """The frame with this number, when it is here."""
        await self.until(lambda: len(self.frames) > index)
        return self.frames[index]

    async def end(self) -> LinkError | None:
        """What `link_closed` was given, when it was called; it is called once."""
        await self.until(lambda: bool(self.ends))
        assert len(self.ends) == 1
        return self.ends[0]


def open_descriptors() -> int:
    """How many file descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))


def child_processes() -> set[int]:
    """The process ids of our children, zombies included."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        # A thread may end between the two looks.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children = Path(f"/proc/self/task/{thread}/children").read_text()
            found.update(int(pid) for pid in children.split())
    return found


def script(name: str) -> list[str]:
    """The argument vector that starts one of the small programs in `children`."""
    return [sys.executable, str(CHILDREN / f"{name}.py")]


def is_alive(pid: int) -> bool:
    """True while the process runs; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
