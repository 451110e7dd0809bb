"""What a link has when those who bring it something may have to wait."""

from __future__ import annotations

import asyncio

__all__ = ["Pausable"]


class Pausable:
    """A base of links whose frames come with requests that can be held up.

    `is_paused` is looked at for every POST, so it is no property. A link has slots of its own; the
    subclass calls `_begin_unpaused` when it is made.
    """

    __slots__ = ("_resumed", "is_paused")

    def _begin_unpaused(self) -> None:
        self._resumed: asyncio.Future[None] | None = None
        self.is_paused = False

    def pause_reading(self) -> None:
        """Let POSTs wait until `resume_reading`."""
        if self._resumed is None:
            self._resumed = asyncio.get_running_loop().create_future()
            self.is_paused = True

    def resume_reading(self) -> None:
        """Take POSTs again."""
        resumed, self._resumed = self._resumed, None
        self.is_paused = False
        if resumed is not None and not resumed.done():
            resumed.set_result(None)

    async def until_readable(self) -> None:
        """Wait while reading is paused."""
        while self._resumed is not None:
            await asyncio.shield(self._resumed)
