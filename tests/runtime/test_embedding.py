"""The engine runs over somebody else's input and output: the example does it without a loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.requirements.duties import duty

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "embedded_engine.py"

# Importing what the example imports must not bring a loop along; running it must not either.
WITHOUT_LOOP = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
assert "asyncio" not in sys.modules, "an event loop came along"
"""


@duty("transport.custom.preserved")
def test_the_example_opens_calls_and_leaves_over_plain_sockets() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_LOOP, str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["open: shouter speaks 2025-11-25", "HELLO", "GOODBYE"]
