"""Who is connected to a server, and what all of them are told.

Every method may be called from any thread; each client is told in its own event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from dragoman.model.base import NoParams
from dragoman.model.elicitation import ElicitationCompleteParams
from dragoman.model.resources import ResourceUpdatedParams
from dragoman.model.roots import Root
from dragoman.runtime.driver import Driver

__all__ = ["Audience"]

_UPDATED = "notifications/resources/updated"

# 10,000 users sent to a URL at once; the oldest are forgotten first, and then never told complete.
MAX_ELICITATIONS = 10_000


class Audience:
    """The connections of one server."""

    def __init__(self) -> None:
        self._drivers: dict[Driver, asyncio.AbstractEventLoop] = {}
        self._roots: dict[Driver, list[Root]] = {}
        self._elicitations: dict[str, Driver] = {}
        self._changed: dict[asyncio.AbstractEventLoop, set[str]] = {}

    def join(self, driver: Driver) -> None:
        """A client has connected, in the running loop."""
        self._drivers[driver] = asyncio.get_running_loop()

    def leave(self, driver: Driver) -> None:
        """It has gone; whatever was kept for it is forgotten."""
        self._drivers.pop(driver, None)
        self._roots.pop(driver, None)
        for ident in [one for one, of in self._elicitations.items() if of is driver]:
            del self._elicitations[ident]

    # --- changes ----------------------------------------------------------------------------------

    def list_changed(self, kind: str) -> None:
        """A list of this kind ("tools") has changed: all are told, once a turn of their loop.

        A client that does not read is told once, when it reads again.
        """
        for loop in set(self._drivers.values()):
            _in_loop(loop, partial(self._note_change, kind))

    def _note_change(self, kind: str) -> None:
        """Announce at the end of this turn of the loop, once for any number of changes."""
        loop = asyncio.get_running_loop()
        kinds = self._changed.get(loop)
        if kinds is None:
            kinds = self._changed[loop] = set()
            loop.call_soon(self._announce, loop)
        kinds.add(kind)

    def _announce(self, loop: asyncio.AbstractEventLoop) -> None:
        kinds = self._changed.pop(loop)
        for driver, at_home in list(self._drivers.items()):
            if at_home is not loop:
                continue
            for kind in sorted(kinds):
                method = f"notifications/{kind}/list_changed"
                driver.soon(method, partial(_tell_changed, driver, method))

    def resource_updated(self, uri: str) -> None:
        """Tell every client that subscribed to this URI.

        A client that does not read is told once, when it reads again, however often this is called.

        Spec: server/resources#subscriptions
        """
        for driver, loop in list(self._drivers.items()):
            _in_loop(loop, partial(self._note_update, driver, uri))

    def _note_update(self, driver: Driver, uri: str) -> None:
        # Only what is subscribed may wait, so the client's own limit bounds what does.
        if uri in driver.engine.subscriptions:
            driver.soon((_UPDATED, uri), partial(_tell_updated, driver, uri))

    # --- elicitation ------------------------------------------------------------------------------

    def elicitation_complete(self, elicitation_id: str) -> None:
        """Tell the client that was sent to a URL that what happened there has ended.

        May be called from any thread, long after the request that asked. An id that nobody was
        asked under, or whose client has gone, is ignored.

        Spec: client/elicitation#completion-notifications-for-url-mode-elicitation
        """
        driver = self._elicitations.pop(elicitation_id, None)
        loop = None if driver is None else self._drivers.get(driver)
        if driver is not None and loop is not None:
            _in_loop(loop, partial(self._tell_complete, driver, elicitation_id))

    def _tell_complete(self, driver: Driver, elicitation_id: str) -> None:
        if driver.engine.may_send("notifications/elicitation/complete"):
            driver.notify(
                "notifications/elicitation/complete",
                ElicitationCompleteParams(elicitation_id=elicitation_id),
            )

    def expect_elicitation(self, elicitation_id: str, driver: Driver) -> None:
        """Remember whom an elicitation by URL was put to. ValueError for an id that is in use."""
        if elicitation_id in self._elicitations:
            raise ValueError(f"the elicitation id {elicitation_id[:64]!r} is in use")
        while len(self._elicitations) >= MAX_ELICITATIONS:
            del self._elicitations[next(iter(self._elicitations))]
        self._elicitations[elicitation_id] = driver

    def remember_elicitation(self, elicitation_id: str, driver: Driver) -> None:
        """Remember whom an elicitation was named to in an error; a known id stays as it is."""
        self._elicitations.setdefault(elicitation_id, driver)

    # --- roots ------------------------------------------------------------------------------------

    def roots_of(self, driver: Driver) -> list[Root] | None:
        """The roots as they were last told, while that is known to be current."""
        return self._roots.get(driver)

    def keep_roots(self, driver: Driver, roots: list[Root]) -> None:
        """Remember the roots of a client that tells when they change."""
        declared = getattr(driver.engine.peer_capabilities, "roots", None)
        if declared is not None and declared.list_changed:
            self._roots[driver] = roots

    def forget_roots(self, driver: Driver) -> None:
        """They have changed."""
        self._roots.pop(driver, None)


def _tell_changed(driver: Driver, method: str) -> None:
    if driver.engine.may_send(method):
        driver.notify(method, NoParams())


def _tell_updated(driver: Driver, uri: str) -> None:
    # It may have waited, and the client may have lost interest meanwhile.
    if uri in driver.engine.subscriptions and driver.engine.may_send(_UPDATED):
        driver.notify(_UPDATED, ResourceUpdatedParams(uri=uri))


def _in_loop(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    """Run now when we are in that loop, else as soon as it can."""
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        action()
    else:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(action)
