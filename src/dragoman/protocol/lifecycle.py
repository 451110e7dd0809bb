"""Opening and closing a connection, as tables.

Everything that decides what may be said when stands here.
Spec: basic/lifecycle
"""

from __future__ import annotations

from enum import Enum

from dragoman.model.methods import CATALOGUE, Side

__all__ = ["MOVES", "RECEIVES", "SENDS", "Move", "State", "next_state"]


class State(Enum):
    """Where a connection is."""

    # Each is one object; an Enum's own hash is a Python function, and tables are read all the time.
    __hash__ = object.__hash__

    IDLE = "not opened yet"
    OPENING = "being opened"
    OPEN = "open"
    CLOSED = "closed"


class Move(Enum):
    """What can happen to a connection."""

    # Each is one object; an Enum's own hash is a Python function, and tables are read all the time.
    __hash__ = object.__hash__

    HELLO = "initialize was sent or received"
    WELCOME = "the client has the answer to initialize"
    READY = "the server has notifications/initialized"
    RESUME = "the server goes on with what another process of it began"
    REJECT = "the two sides have no revision in common"
    CLOSE = "the link is over"


MOVES: dict[tuple[Side, State, Move], State] = {
    (Side.CLIENT, State.IDLE, Move.HELLO): State.OPENING,
    (Side.CLIENT, State.OPENING, Move.WELCOME): State.OPEN,
    (Side.CLIENT, State.OPENING, Move.REJECT): State.CLOSED,
    (Side.SERVER, State.IDLE, Move.HELLO): State.OPENING,
    (Side.SERVER, State.OPENING, Move.READY): State.OPEN,
    (Side.SERVER, State.IDLE, Move.RESUME): State.OPEN,
    **{
        (side, state, Move.CLOSE): State.CLOSED
        for side in Side
        for state in (State.IDLE, State.OPENING, State.OPEN, State.CLOSED)
    },
}
"""Every move that is possible; all others are refused."""


def next_state(side: Side, state: State, move: Move) -> State | None:
    """Where a move leads, or None when it is impossible."""
    return MOVES.get((side, state, move))


_ALL = frozenset(CATALOGUE)
_OPENERS = frozenset({"initialize", "notifications/initialized"})
_ALWAYS = frozenset({"ping", "notifications/cancelled", "notifications/progress"})

SENDS: dict[tuple[Side, State], frozenset[str]] = {
    (Side.CLIENT, State.IDLE): frozenset({"initialize"}),
    # `initialized` is the last thing said here: it goes out together with the move to OPEN
    (Side.CLIENT, State.OPENING): _ALWAYS | {"notifications/initialized"},
    (Side.CLIENT, State.OPEN): _ALL - _OPENERS,
    (Side.CLIENT, State.CLOSED): frozenset(),
    (Side.SERVER, State.IDLE): _ALWAYS,
    # basic/lifecycle#initialization: pings and logging only, before `initialized`
    (Side.SERVER, State.OPENING): _ALWAYS | {"notifications/message"},
    (Side.SERVER, State.OPEN): _ALL - _OPENERS,
    (Side.SERVER, State.CLOSED): frozenset(),
}
"""What each side may send, state by state."""

RECEIVES: dict[tuple[Side, State], frozenset[str]] = {
    (Side.CLIENT, State.IDLE): _ALWAYS,
    (Side.CLIENT, State.OPENING): _ALWAYS | {"notifications/message"},
    (Side.CLIENT, State.OPEN): _ALL - _OPENERS,
    (Side.CLIENT, State.CLOSED): frozenset(),
    (Side.SERVER, State.IDLE): _ALWAYS | {"initialize"},
    (Side.SERVER, State.OPENING): _ALWAYS | {"notifications/initialized"},
    (Side.SERVER, State.OPEN): _ALL - _OPENERS,
    (Side.SERVER, State.CLOSED): frozenset(),
}
"""What each side accepts, state by state."""
