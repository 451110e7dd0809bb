"""Choosing a model by a server's preferences."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman import choose_model
from dragoman.errors import Misconfigured
from dragoman.model.sampling import ModelHint, ModelPreferences
from tests.requirements.duties import duty

MODELS = ["alpha-3-large", "alpha-3-small", "beta-mini"]
TRAITS = {
    "alpha-3-large": (0.1, 0.2, 1.0),
    "alpha-3-small": (0.6, 0.7, 0.6),
    "beta-mini": (1.0, 1.0, 0.1),
}


def wish(*hints: str | None, **priorities: float) -> ModelPreferences:
    return ModelPreferences(hints=[ModelHint(name=name) for name in hints] or None, **priorities)


@duty("sampling.hints.order", "sampling.hints.substring", "sampling.preferences")
@pytest.mark.parametrize(
    ("hints", "chosen"),
    [
        (["beta"], "beta-mini"),
        (["small"], "alpha-3-small"),
        (["ALPHA"], "alpha-3-large"),
        (["gamma", "mini", "alpha"], "beta-mini"),
        (["alpha-3-small", "beta"], "alpha-3-small"),
        ([None, "", "mini"], "beta-mini"),
        (["gamma"], "alpha-3-large"),
        ([], "alpha-3-large"),
    ],
)
def test_the_first_hint_that_is_part_of_a_name_wins(hints: list[Any], chosen: str) -> None:
    assert choose_model(wish(*hints), MODELS) == chosen


@duty("sampling.hints.first")
def test_priorities_decide_among_the_models_one_hint_matches_and_never_against_it() -> None:
    fast = {"speed_priority": 1.0, "cost_priority": 1.0}
    assert choose_model(wish(**fast), TRAITS) == "beta-mini"
    assert choose_model(wish("alpha", **fast), TRAITS) == "alpha-3-small"
    assert choose_model(wish("large", **fast), TRAITS) == "alpha-3-large"
    assert choose_model(wish("gamma", **fast), TRAITS) == "beta-mini"
    assert choose_model(wish(intelligence_priority=1.0), TRAITS) == "alpha-3-large"


def test_without_wishes_the_first_model_is_taken_and_there_must_be_one() -> None:
    assert choose_model(None, MODELS) == MODELS[0]
    assert choose_model(wish(), TRAITS) == MODELS[0]
    with pytest.raises(Misconfigured):
        choose_model(None, [])
