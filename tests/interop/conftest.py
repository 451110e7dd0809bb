"""What the interop tests need of pytest."""

from __future__ import annotations

import re
from typing import Any

import pytest

from interop import nginx

# The mark that `tests.interop.documents.grouped` leaves in the name of a test.
GROUP = re.compile(r"\(([^()]+)\)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of one visit in one process, so that it is made once.

    pytest-xdist 3.8 has `xdist_group` for that, which pytest 9.2 does not let it see.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path, _, name = nodeid.partition("::")
            group = GROUP.search(name)
            return f"{path}::{group[1]}" if group else nodeid

    return ByGroup(config, log)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was left out, below the dots; skipped tests alone are easily overlooked."""
    if hasattr(terminalreporter.config, "workerinput") or nginx.find() is not None:
        return
    skipped = terminalreporter.stats.get("skipped", ())
    if any("test_nginx" in report.nodeid for report in skipped):
        terminalreporter.write_line("SKIPPED: everything behind a proxy, for there is no nginx")
