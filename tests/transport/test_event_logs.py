"""What every event log promises: what it replays is exact, or it says that it does not know."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import EventLog, Kept, MemoryEventLog
from dragoman.transport.streamable.sqlite import SqliteStore
from tests.support import run

Make = Callable[[Path, HttpLimits], EventLog]


def _memory(folder: Path, limits: HttpLimits) -> EventLog:
    return MemoryEventLog(limits)


def _sqlite(folder: Path, limits: HttpLimits) -> EventLog:
    return SqliteStore(folder / "events.db", limits)


both = pytest.mark.parametrize("make", [_memory, _sqlite], ids=["memory", "sqlite"])


@asynccontextmanager
async def opened(make: Make, limits: HttpLimits | None = None) -> AsyncIterator[EventLog]:
    with tempfile.TemporaryDirectory() as folder:
        log = make(Path(folder), limits or HttpLimits())
        try:
            yield log
        finally:
            await log.aclose()


class Append(NamedTuple):
    session: str
    stream: str
    size: int


class Replay(NamedTuple):
    session: str
    stream: str
    back: int


class Forget(NamedTuple):
    session: str
    stream: str | None


class Flush(NamedTuple):
    pass


Step = Append | Replay | Forget | Flush

SESSIONS = st.sampled_from(["a", "b", "c"])
STREAMS = st.sampled_from(["x", "y"])
STEPS = st.lists(
    st.one_of(
        st.builds(Append, SESSIONS, STREAMS, st.sampled_from([0, 1, 40, 400])),
        st.builds(Append, SESSIONS, STREAMS, st.sampled_from([0, 1, 40, 400])),
        st.builds(Replay, SESSIONS, STREAMS, st.integers(0, 12)),
        st.builds(Forget, SESSIONS, st.none() | STREAMS),
        st.builds(Flush),
    ),
    max_size=60,
)

# Room for some of what the steps append, by bytes or by events, in a session or in all.
TIGHT = [
    HttpLimits(max_kept_bytes=1_000),
    HttpLimits(max_kept_events=4),
    HttpLimits(max_kept_total_bytes=1_500),
    HttpLimits(max_kept_events=1, max_kept_bytes=1),
]


class Model:
    """Everything that was ever appended and not forgotten. Names of streams are used once."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], list[Kept]] = {}
        self._turns: dict[tuple[str, str], int] = {}

    def name(self, step: Append | Replay) -> str:
        """What the stream is called at present."""
        return f"{step.stream}{self._turns.get((step.session, step.stream), 0)}"

    def append(self, session: str, name: str, size: int) -> Kept:
        stream = self.events.setdefault((session, name), [])
        stream.append(Kept(len(stream), bytes(size)))
        return stream[-1]

    def forget(self, session: str, stream: str | None) -> list[str | None]:
        """Returns the name to forget, None for the whole session."""
        names = [None] if stream is None else [f"{stream}{self._turns.get((session, stream), 0)}"]
        for one in ("x", "y") if stream is None else (stream,):
            self._turns[session, one] = self._turns.get((session, one), 0) + 1
        self.events = {
            place: kept
            for place, kept in self.events.items()
            if place[0] != session or (stream is not None and place[1] not in names)
        }
        return list(names)

    def place(self, session: str, name: str, back: int) -> int:
        """The number of an event that was sent, `back` before the last, or -1 for none."""
        stream = self.events.get((session, name), [])
        return len(stream) - 1 - back if back < len(stream) else -1

    def after(self, session: str, name: str, number: int) -> list[Kept]:
        return [event for event in self.events.get((session, name), []) if event.number > number]


async def _play(log: EventLog, steps: list[Step], *, knows_all: bool) -> None:
    model = Model()
    for step in steps:
        match step:
            case Append(session, _, size):
                name = model.name(step)
                event = model.append(session, name, size)
                log.append(session, name, event.number, event.frame)
                # The newest event of all can always be had.
                assert await log.replay(session, name, event.number - 1) == [event]
            case Replay(session, _, back):
                name = model.name(step)
                after = model.place(session, name, back)
                found = await log.replay(session, name, after)
                is_known = (session, name) in model.events
                if found is None:
                    assert not (knows_all and is_known)
                else:
                    assert is_known
                    assert found == model.after(session, name, after)
            case Forget(session, stream):
                for gone in model.forget(session, stream):
                    log.forget(session, gone)
            case Flush():
                await log.flush()


@both
@given(steps=STEPS)
@settings(max_examples=40, deadline=None)
def test_within_its_bounds_a_log_replays_everything(make: Make, steps: list[Step]) -> None:
    async def play() -> None:
        async with opened(make) as log:
            await _play(log, steps, knows_all=True)

    run(play())


@both
@given(steps=STEPS, limits=st.sampled_from(TIGHT))
@settings(max_examples=80, deadline=None)
def test_what_is_left_after_evictions_is_exact_or_not_known(
    make: Make, steps: list[Step], limits: HttpLimits
) -> None:
    async def play() -> None:
        async with opened(make, limits) as log:
            await _play(log, steps, knows_all=False)

    run(play())


@both
def test_numbers_may_leave_gaps(make: Make) -> None:
    async def play() -> None:
        async with opened(make) as log:
            for number in (3, 7, 8):
                log.append("s", "x", number, b"%d" % number)
            assert await log.replay("s", "x", 2) == [(3, b"3"), (7, b"7"), (8, b"8")]
            assert await log.replay("s", "x", 3) == [(7, b"7"), (8, b"8")]
            assert await log.replay("s", "x", 8) == []
            assert await log.replay("s", "x", 1) is None

    run(play())


@both
def test_the_sessions_written_to_longest_ago_make_room(make: Make) -> None:
    async def play() -> None:
        async with opened(make, HttpLimits(max_kept_total_bytes=10_000)) as log:
            for turn in range(3):
                for session in ("old", "busy"):
                    if turn == 0 or session == "busy":
                        log.append(session, "x", turn, bytes(2_000))
            log.append("new", "x", 0, bytes(4_000))
            assert await log.replay("old", "x", -1) is None
            assert await log.replay("new", "x", -1) == [(0, bytes(4_000))]

    run(play())


@both
def test_a_session_that_is_over_leaves_the_others_alone(make: Make) -> None:
    async def play() -> None:
        async with opened(make) as log:
            for session in ("one", "two"):
                log.append(session, "x", 0, session.encode())
            log.forget("one")
            log.forget("one")
            assert await log.replay("one", "x", -1) is None
            assert await log.replay("two", "x", -1) == [(0, b"two")]
            # Its id is free again.
            log.append("one", "x", 0, b"again")
            assert await log.replay("one", "x", -1) == [(0, b"again")]

    run(play())


@both
def test_a_stream_that_is_over_leaves_room_for_the_others(make: Make) -> None:
    async def play() -> None:
        async with opened(make, HttpLimits(max_kept_events=4)) as log:
            log.append("s", "kept", 0, b"kept")
            for turn in range(10):
                log.append("s", f"x{turn}", 0, b"0")
                log.append("s", f"x{turn}", 1, b"1")
                log.forget("s", f"x{turn}")
            assert await log.replay("s", "kept", -1) == [(0, b"kept")]
            assert await log.replay("s", "x9", -1) is None

    run(play())


@both
def test_whatever_number_a_client_comes_back_with_is_answered(make: Make) -> None:
    async def play() -> None:
        async with opened(make) as log:
            log.append("s", "x", 0, b"0")
            for number in (1, 2**31, 2**63 - 1, 2**63, 10**60):
                assert not await log.replay("s", "x", number)

    run(play())


@both
def test_many_streams_are_written_and_read_at_once(make: Make) -> None:
    async def one(log: EventLog, session: str) -> None:
        for number in range(50):
            log.append(session, "x", number, b"%d" % number)
            if number % 10 == 0:
                found = await log.replay(session, "x", number // 2)
                assert found == [(n, b"%d" % n) for n in range(number // 2 + 1, number + 1)]

    async def play() -> None:
        async with opened(make) as log:
            await asyncio.gather(*(one(log, f"s{number}") for number in range(20)))

    run(play())


@both
def test_after_its_end_a_log_knows_nothing(make: Make) -> None:
    async def play() -> None:
        async with opened(make) as log:
            log.append("s", "x", 0, b"0")
            await log.aclose()
            assert await log.replay("s", "x", -1) is None
            await log.flush()
            await log.aclose()

    run(play())
