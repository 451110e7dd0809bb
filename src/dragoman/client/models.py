"""Choosing a model for a sampling request.

Spec: client/sampling#model-preferences
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dragoman.errors import Misconfigured
from dragoman.model.sampling import ModelPreferences

__all__ = ["choose_model"]


def choose_model(
    preferences: ModelPreferences | None,
    models: Sequence[str] | Mapping[str, tuple[float, float, float]],
) -> str:
    """The model to use: the first hint that names one, else the best by the priorities.

    `models` are names, best first, or a mapping from a name to its cost, speed and intelligence,
    each from 0 (poor) to 1 (good; for cost: cheap). A hint fits every model whose name holds it.
    Hints only advise: with none that fits, the priorities decide, and without those the first
    model wins.

    Raises:
        Misconfigured: there is no model at all.
    """
    names = list(models)
    if not names:
        raise Misconfigured("there is no model to choose from")
    if preferences is None:
        return names[0]
    for hint in preferences.hints or ():
        fitting = [name for name in names if hint.name and hint.name.lower() in name.lower()]
        if fitting:
            return _best(preferences, fitting, models)
    return _best(preferences, names, models)


def _best(
    preferences: ModelPreferences,
    names: Sequence[str],
    models: Sequence[str] | Mapping[str, tuple[float, float, float]],
) -> str:
    weights = (
        preferences.cost_priority or 0.0,
        preferences.speed_priority or 0.0,
        preferences.intelligence_priority or 0.0,
    )
    if not isinstance(models, Mapping) or not any(weights):
        return names[0]

    def score(name: str) -> float:
        return sum(weight * trait for weight, trait in zip(weights, models[name], strict=True))

    return max(names, key=score)
