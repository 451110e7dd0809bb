"""What servers ask of the user: their model, their answers, their folders.

A request is judged as what it is, whatever message it came in; a person decides, and what a server
is told is what was released for it and nothing else.
"""

from __future__ import annotations

from dragoman.host.asks.common import (
    FACT_FORM,
    FACT_HOST,
    FACT_MESSAGE,
    FACT_URL,
    REGENERATE,
    Answered,
    Asker,
    form_of,
)
from dragoman.host.asks.context import ContextSource
from dragoman.host.asks.elicitation import Elicitation
from dragoman.host.asks.roots import RootsBook, RootState
from dragoman.host.asks.sampling import Kept, ModelSource, Sampling

__all__ = [
    "FACT_FORM",
    "FACT_HOST",
    "FACT_MESSAGE",
    "FACT_URL",
    "REGENERATE",
    "Answered",
    "Asker",
    "ContextSource",
    "Elicitation",
    "Kept",
    "ModelSource",
    "RootState",
    "RootsBook",
    "Sampling",
    "form_of",
]
