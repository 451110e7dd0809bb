"""Two engines and the frames between them, with no loop, no link and no clock of their own."""

from __future__ import annotations

from collections import deque

from dragoman.errors import LinkError
from dragoman.model.methods import Side
from dragoman.protocol.calls import Call
from dragoman.protocol.engine import Engine
from dragoman.protocol.events import Event

__all__ = ["LinkedEngines"]


class LinkedEngines:
    """A client and a server engine joined by two queues of frames.

    Nothing moves by itself: `deliver` hands over one frame, `settle` all of them. `events` keeps
    what each side saw, oldest first, `sent` every frame that was put on its way; `now` is the
    reading of the clock, in seconds, that both sides are given.
    """

    def __init__(self, client: Engine, server: Engine, *, now: float = 0.0) -> None:
        self.engines = {Side.CLIENT: client, Side.SERVER: server}
        self.now = now
        self.inbox: dict[Side, deque[bytes]] = {side: deque() for side in Side}
        self.sent: dict[Side, list[bytes]] = {side: [] for side in Side}
        self.events: dict[Side, list[Event]] = {side: [] for side in Side}

    @property
    def client(self) -> Engine:
        """The client's end."""
        return self.engines[Side.CLIENT]

    @property
    def server(self) -> Engine:
        """The server's end."""
        return self.engines[Side.SERVER]

    def collect(self) -> None:
        """Put what both sides want to send on its way, and note the events they caused."""
        for side, engine in self.engines.items():
            for frame, _, _ in engine.take():
                self.sent[side].append(frame)
                self.inbox[side.other].append(frame)
            self.events[side].extend(engine.drain_events())

    def deliver(self, to: Side) -> list[Event]:
        """Hand over the oldest frame for one side; nothing happens when there is none.

        Returns the events it caused there.
        """
        self.collect()
        if not self.inbox[to]:
            return []
        events = self.engines[to].receive(self.inbox[to].popleft(), now=self.now)
        self.events[to].extend(events)
        self.collect()
        return events

    def settle(self) -> None:
        """Deliver in both directions until nothing is on its way."""
        self.collect()
        while any(self.inbox.values()):
            for side in Side:
                self.deliver(side)

    def advance(self, seconds: float) -> None:
        """Let time pass, and both sides end what is overdue."""
        self.now += seconds
        for side, engine in self.engines.items():
            self.events[side].extend(engine.expire(self.now))
        self.collect()

    def open(self) -> Call:
        """Say hello and settle; the call is the one of `initialize`."""
        call = self.client.open(now=self.now)
        self.settle()
        return call

    def close(self, side: Side, error: LinkError | None = None) -> None:
        """End the link as one side sees it."""
        self.events[side].extend(self.engines[side].close(error))
        self.inbox[side].clear()

    def new_events(self, side: Side) -> list[Event]:
        """The events one side saw since the last call of this."""
        events, self.events[side] = self.events[side], []
        return events
