"""What holds for every test."""

from __future__ import annotations

import gc
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: nothing here depends on how long an example took to make or to run.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# Whoever starts the tests in the background may have Ctrl-C ignored, and every child would inherit
# that: tests that press it need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The mark of a whole module.
_MARK = re.compile(r"^pytestmark = (?:\[\s*)?pytest\.mark\.(\w+)", re.MULTILINE)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what collecting the tests makes: it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a module unread when its mark says that none of its tests is wanted."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    mark = _MARK.search(collection_path.read_text(encoding="utf-8"))
    unwanted = re.findall(r"\bnot (\w+)", config.option.markexpr)
    return True if mark is not None and mark[1] in unwanted else None
