"""How much a server may ask for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dragoman.host.budget import WINDOW_S, Budget, Reservation, estimated_tokens
from dragoman.host.kinds import Code, Problem


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_any_minute_has_only_so_many_turns() -> None:
    clock = Clock()
    budget = Budget(clock)

    def turn() -> bool:
        return budget.take_turn("x", (), per_minute=2, per_call=9) is None

    assert [turn(), turn(), turn()] == [True, True, False]
    clock.now = WINDOW_S - 0.1
    assert not turn()
    clock.now = WINDOW_S
    assert [turn(), turn(), turn()] == [True, True, False]


def test_kinds_are_counted_apart() -> None:
    budget = Budget(Clock())
    assert budget.take_turn("x", (), per_minute=1, per_call=1) is None
    assert budget.take_turn("y", (), per_minute=1, per_call=1) is None


def test_a_call_has_only_so_many_rounds_however_slowly_they_come() -> None:
    clock = Clock()
    budget = Budget(clock)

    def turn(*calls: str) -> Problem | None:
        clock.now += WINDOW_S
        return budget.take_turn("x", calls, per_minute=1, per_call=3)

    assert [turn("a") for _ in range(3)] == [None] * 3
    refused = turn("a")
    assert refused is not None
    assert refused.code is Code.RATE_LIMIT
    # Another call has its own share; with both under way it may be this one's.
    assert [turn("a", "b") for _ in range(3)] == [None] * 3
    assert turn("a", "b") is not None


def test_what_is_over_is_forgotten() -> None:
    clock = Clock()
    budget = Budget(clock)
    for call in ("a", "a", "b", "a", "a"):
        clock.now += WINDOW_S
        assert budget.take_turn("x", (call,), per_minute=1, per_call=2) is None


def test_a_refused_turn_is_not_counted() -> None:
    clock = Clock()
    budget = Budget(clock)
    for _ in range(50):
        budget.take_turn("x", ("a",), per_minute=2, per_call=9)
    clock.now = WINDOW_S
    assert budget.take_turn("x", ("a",), per_minute=2, per_call=9) is None


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40), st.integers(0, 60)), max_size=12))
def test_what_is_set_aside_never_exceeds_the_whole(
    wishes: list[tuple[int, int, int]],
) -> None:
    """Each with what the question costs, the answer wanted and the tokens used in the end."""
    budget = Budget(Clock())
    open_ones: list[Reservation] = []
    for used, wanted, in_the_end in wishes:
        reserved = budget.reserve(used, wanted, most=100)
        if isinstance(reserved, Problem):
            assert budget.tokens + used >= 100
            if open_ones:
                one = open_ones.pop()
                one.settle(min(in_the_end, one.used + one.granted))
            continue
        assert 1 <= reserved.granted <= wanted
        assert budget.tokens <= 100
        open_ones.append(reserved)


def test_what_was_not_used_is_free_again_and_settling_twice_counts_once() -> None:
    budget = Budget(Clock())
    reserved = budget.reserve(10, 50, most=100)
    assert isinstance(reserved, Reservation)
    assert budget.tokens == 60
    reserved.settle(20)
    reserved.settle(20)
    assert budget.tokens == 20


@given(st.text())
def test_tokens_are_estimated_from_bytes(text: str) -> None:
    size = len(text.encode())
    assert estimated_tokens(text) == estimated_tokens(text.encode())
    assert size / 4 <= estimated_tokens(text) < size / 4 + 1


def test_of_many_refusals_in_a_row_few_are_news() -> None:
    now = [0.0]
    budget = Budget(lambda: now[0])

    def refused() -> bool:
        return budget.take_turn("x", (), per_minute=1, per_call=9) is not None

    assert not refused()
    assert [number for number in range(1, 100) if refused() and budget.is_news("x")] == [
        1, 2, 4, 8, 16, 32, 64,
    ]  # fmt: skip
    problem = budget.take_turn("x", (), per_minute=1, per_call=9)
    assert problem is not None
    assert "refused 99 times since" in problem.text
    # Another row of them is told anew.
    now[0] = 61.0
    assert not refused()
    assert refused()
    assert budget.is_news("x")
