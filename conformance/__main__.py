"""``python -m conformance``: hold dragoman against the official suite. See conformance/README.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from conformance.judge import complaint_of
from conformance.legs import LEGS, LegOutcome, Targets, run_leg
from conformance.report import as_json, show
from conformance.suite import SuiteError, make


def main(argv: Sequence[str] | None = None) -> int:
    """0 if everything that counts passed, 1 if not, 2 if the suite could not be run."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    names = [leg.name for leg in LEGS]
    parser.add_argument("--leg", action="append", choices=names, help="this leg (repeatable)")
    parser.add_argument("--scenario", help="this scenario alone, in each leg chosen")
    parser.add_argument("--url", help="look at this running server instead of ours")
    parser.add_argument("--client", metavar="COMMAND", help="look at this client instead of ours")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the suite wrote here")
    parser.add_argument("--verbose", action="store_true", help="name every scenario")
    parser.add_argument(
        "--json", action="store_true", help="one JSON document instead of the table"
    )
    options = parser.parse_args(argv)
    chosen = [leg for leg in LEGS if not options.leg or leg.name in options.leg]
    if options.scenario is not None:
        chosen = [leg for leg in chosen if options.scenario in leg.expected and not leg.is_frozen]
        if not chosen:
            parser.error(f"no leg chosen has the scenario {options.scenario}")
    targets = Targets(options.url, options.client)
    start = time.monotonic()
    outcomes: list[LegOutcome] = []
    try:
        suite = make()
        with tempfile.TemporaryDirectory(prefix="dragoman-conformance-") as scratch:
            results: Path = (options.keep or Path(scratch)).resolve()
            for leg in chosen:
                print(f"{leg.name} ...", file=sys.stderr, flush=True)
                place = results / leg.name
                if place.exists() and any(place.iterdir()):
                    parser.error(f"{place} is not empty")
                try:
                    outcomes.append(run_leg(leg, suite, place, targets, options.scenario))
                except SuiteError as fault:
                    # The other legs may still say something.
                    outcomes.append(LegOutcome(leg, complaints=[complaint_of(str(fault))]))
    except (SuiteError, OSError) as fault:
        print(fault, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(as_json(outcomes), indent=2))
    else:
        show(outcomes, sys.stdout, is_verbose=options.verbose)
        print(f"{time.monotonic() - start:.0f} s in all")
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
