"""Every attack on the host: python -m tests.attacks [--json] [--shuffles N] [--seed S]

In order, then in shuffled orders, then over connections that break. Under those, a test may not
get as far as what it looks for; what must hold after every attack must hold all the same. Ends
with 0 only when every refusal was met and every figure is as it has to be.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import tests.support as support
from tests.attacks.harness import ATTACKS, FAULTS
from tests.attacks.table import Outcome, as_json, figures, missing, print_table

# 4 s: a test that a broken connection keeps from what it waits for is given up.
PATIENCE_S = 4.0


@dataclass
class Round:
    """One run over all of them; `seed` shuffles, `faults` breaks connections."""

    name: str
    seed: int | None = None
    faults: int | None = None
    took_s: float = 0.0
    tests: int = 0
    disturbed: int = 0
    failures: list[str] = field(default_factory=list)


class Plugin:
    """Shuffles the tests, and keeps what became of each."""

    def __init__(self, this: Round) -> None:
        self.round = this
        self.ran: dict[str, int] = defaultdict(int)
        self.failed: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """In another order."""
        if self.round.seed is not None:
            random.Random(self.round.seed).shuffle(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count it."""
        test = _name_of(report.nodeid)
        if report.when == "call":
            self.round.tests += 1
            self.ran[test] += 1
        if not report.failed:
            return
        if report.when == "call" and self.round.faults is not None:
            self.round.disturbed += 1
            return
        said = str(report.longrepr).strip().splitlines()
        text = f"{self.round.name}: {report.nodeid} ({report.when}): {said[-1] if said else ''}"
        self.failed[test].append(text)
        self.round.failures.append(f"{text}\n{report.longreprtext}")


def _name_of(nodeid: str) -> str:
    path, _, rest = nodeid.partition("::")
    module = path.removesuffix(".py").replace("/", ".")
    return f"{module}::{rest.partition('[')[0].replace('::', '.')}"


@contextlib.contextmanager
def _breaking(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    os.environ[FAULTS] = str(seed)
    before, support.PATIENCE_S = support.PATIENCE_S, PATIENCE_S
    try:
        yield
    finally:
        del os.environ[FAULTS]
        support.PATIENCE_S = before


def _run(this: Round) -> Plugin:
    plugin = Plugin(this)
    began = time.monotonic()
    said = io.StringIO()
    words = ["-m", "attack or not attack", "-p", "no:cacheprovider", "--no-header"]
    with _breaking(this.faults), contextlib.redirect_stdout(said):
        code = pytest.main(
            [*words, "--rootdir", str(ROOT), str(Path(__file__).parent)],
            plugins=[plugin],
        )
    this.took_s = round(time.monotonic() - began, 1)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        this.failures.append(f"{this.name}: pytest ended with {code}\n{said.getvalue()}")
    return plugin


ROOT = Path(__file__).parents[2]


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of tables")
    parser.add_argument("--shuffles", type=int, default=2, help="how many other orders")
    parser.add_argument("--seed", type=int, default=7, help="of the orders and of the faults")
    given = parser.parse_args()
    uncovered = missing()
    rounds = [
        Round("in order"),
        *(Round(f"shuffled {given.seed + n}", seed=given.seed + n) for n in range(given.shuffles)),
        Round("under faults", seed=given.seed, faults=given.seed),
    ]
    ran: dict[str, int] = defaultdict(int)
    failed: dict[str, list[str]] = defaultdict(list)
    for this in rounds:
        plugin = _run(this)
        for test, count in plugin.ran.items():
            ran[test] += count
        for test, texts in plugin.failed.items():
            failed[test] += texts
        more = f", {this.disturbed} disturbed" if this.faults is not None else ""
        said = f"{this.name}: {this.tests} tests in {this.took_s} s{more}"
        print(f"{said}, {len(this.failures)} failures", file=sys.stderr, flush=True)
    outcomes = [
        Outcome(
            one,
            runs=sum(ran[test] for test in one.tests),
            failures=tuple(text for test in one.tests for text in failed[test]),
        )
        for _, one in sorted(ATTACKS.items())
    ]
    for this in rounds:
        for text in this.failures:
            print(text, file=sys.stderr)
    if given.json:
        print(json.dumps(as_json(outcomes, rounds), indent=2))
    else:
        print_table(outcomes)
    for number in uncovered:
        print(f"no test and no reason for attack {number}", file=sys.stderr)
    is_good = (
        not uncovered
        and all(one.is_met for one in outcomes)
        and not any(this.failures for this in rounds)
        and all(is_ok for _, _, is_ok in figures())
    )
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
