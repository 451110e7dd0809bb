"""The stage of each attack; what must hold after it is looked at when it is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.harness import Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Stage]:
    """A project with nothing in it yet."""
    caplog.set_level("DEBUG")
    made = Stage(monkeypatch, lambda: caplog.text)
    try:
        yield made
        made.check()
    finally:
        made.close()
