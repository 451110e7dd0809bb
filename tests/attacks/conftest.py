"""The stage of each attack; what must hold after it is looked at when it is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.harness import Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Stage]:
    """A project with nothing in it yet."""
    caplog.set_level("DEBUG")

    def logged() -> str:
        # What `caplog.text` has, but of the test, which is over.
        records = [*caplog.get_records("setup"), *caplog.get_records("call")]
        return "\n".join(caplog.handler.format(record) for record in records)

    made = Stage(monkeypatch, logged)
    try:
        yield made
        made.check()
    finally:
        made.close()
