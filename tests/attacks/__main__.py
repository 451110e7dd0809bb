"""Every attack on the host: python -m tests.attacks [--json] [--shuffles N] [--seed S]

In shuffled orders, and over connections that break, each in a process of its own. Over those, a
test may not get as far as what it looks for; what must hold after every attack must hold all the
same. Ends with 0 only when every refusal was met and every figure is as it has to be.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

import tests.support as support
from tests.attacks.harness import ATTACKS, FAULTS, TOTALS
from tests.attacks.table import Outcome, as_json, figures, missing, print_table

# 3 s: a test that a broken connection keeps from what it waits for is given up.
PATIENCE_S = 3.0


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


def _run(this: Round) -> dict[str, Any]:
    """One round, in this process: what a process of its own tells the one that began it."""
    plugin = Plugin(this)
    began = time.monotonic()
    said = io.StringIO()
    # Native: pytest parses sources for its own tracebacks, which a deep one of ours can upset.
    words = ["-m", "attack or not attack", "-p", "no:cacheprovider", "--no-header", "--tb=native"]
    with _breaking(this.faults), contextlib.redirect_stdout(said):
        code = pytest.main([*words, str(Path(__file__).parent)], plugins=[plugin])
    this.took_s = round(time.monotonic() - began, 1)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        this.failures.append(f"{this.name}: pytest ended with {code}\n{said.getvalue()}")
    return {
        "round": asdict(this),
        "ran": plugin.ran,
        "failed": plugin.failed,
        "totals": asdict(TOTALS),
    }


def _run_apart(number: int, given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """One round in a process of its own."""
    path = Path(folder, f"{number}.json")
    words = ["--shuffles", str(given.shuffles), "--seed", str(given.seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.attacks", *words, "--round", str(number), str(path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not path.exists():
        raise SystemExit(f"a round ended with {done.returncode}: {done.stderr}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    this = Round(**found["round"])
    more = f", {this.disturbed} disturbed" if this.faults is not None else ""
    said = f"{this.name}: {this.tests} tests in {this.took_s} s{more}"
    print(f"{said}, {len(this.failures)} failures", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of tables")
    parser.add_argument("--shuffles", type=int, default=2, help="how many other orders")
    parser.add_argument("--seed", type=int, default=7, help="of the orders and of the faults")
    parser.add_argument("--round", nargs=2, metavar=("N", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    rounds = [
        # The one that waits most is begun first.
        Round("under faults", seed=given.seed, faults=given.seed),
        *(Round(f"shuffled {given.seed + n}", seed=given.seed + n) for n in range(given.shuffles)),
    ]
    if given.round:
        number, path = given.round
        Path(path).write_text(json.dumps(_run(rounds[int(number)])), encoding="utf-8")
        return 0
    uncovered = missing()
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(min(os.cpu_count() or 1, len(rounds))) as pool,
    ):
        found = list(pool.map(lambda number: _run_apart(number, given, folder), range(len(rounds))))
    rounds = [Round(**one["round"]) for one in found]
    ran: Counter[str] = Counter()
    failed: dict[str, list[str]] = defaultdict(list)
    for one in found:
        ran.update(one["ran"])
        TOTALS.add(**one["totals"])
        for test, texts in one["failed"].items():
            failed[test] += texts
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
