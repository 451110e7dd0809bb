"""What the interop tests need of pytest."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Known to pytest-xdist; a run without it would otherwise refuse the marker.
    config.addinivalue_line("markers", "xdist_group(name): run these tests in one process")
