"""``python -m bench``: measure and print. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.environments import (
    LIBRARIES,
    MCP,
    OURS,
    EnvironmentFault,
    Library,
    prepare,
)
from bench.measure import RUNS, Bench, Effort, as_json, count_steps
from bench.metrics import GROUPS, METRICS, SECTIONS, TARGETS, Results
from bench.report import Steps, machine, show, write_markdown


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything asked for was measured, 1 when an environment or our own row failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute, coarse figures")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(dict.fromkeys([*SECTIONS, *GROUPS])),
        metavar="SECTION",
        help=f"this section (repeatable): {', '.join(SECTIONS)}; "
        f"{' and '.join(GROUPS)} are all that begin so",
    )
    parser.add_argument(
        "--library",
        action="append",
        metavar="NAME",
        help="libraries whose name has this in it (repeatable); mcp 2.3 always runs too",
    )
    parser.add_argument("--json", metavar="FILE", help="write every sample here")
    parser.add_argument(
        "--markdown", metavar="FILE", help="renew the figures in this page (docs/benchmarks.md)"
    )
    parser.add_argument(
        "--here",
        action="store_true",
        help="run dragoman and the floor in this interpreter, not in a fresh installation",
    )
    parser.add_argument("--note", default="", help="a sentence kept in the JSON")
    options = parser.parse_args(argv)
    if sys.platform != "linux":
        print("the benchmark reads /proc: it runs on Linux only", file=sys.stderr)
        return 1

    sections = [name for name in SECTIONS if not options.only or _is_wanted(name, options.only)]
    libraries = _chosen(options.library)
    if all(name.startswith("host") for name in sections):
        # No other library has a host.
        libraries = [one for one in LIBRARIES if one.name == OURS]
    effort = Effort.quick() if options.quick else Effort.full()
    if options.here and "install" in sections:
        sections.remove("install")
    began = time.monotonic()
    # Read before measuring: our own servers would count as load.
    line = machine()
    print(line)
    try:
        places = prepare(
            libraries,
            options.here,
            any(name.startswith("http") for name in sections),
            lambda what: print(f"preparing {what}", file=sys.stderr),
        )
    except EnvironmentFault as fault:
        print(fault, file=sys.stderr)
        return 1
    results = Results()
    bench = Bench(places, libraries, effort, results, lambda what: None)
    with Steps(count_steps(bench, sections)) as steps:
        bench.step = steps
        for name in sections:
            RUNS[name](bench)
    show(results, sections, [one.name for one in libraries])
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if options.markdown:
        names = [one.name for one in libraries]
        write_markdown(Path(options.markdown), line, results, sections, names)
    if options.json:
        _write(Path(options.json), line, results, options.note, effort)
    return int(any(OURS in by_library for by_library in results.failures.values()))


def _chosen(wanted: Sequence[str] | None) -> list[Library]:
    if not wanted:
        return list(LIBRARIES)
    return [
        one
        for one in LIBRARIES
        if one.name == MCP or any(part.lower() in one.name.lower() for part in wanted)
    ]


def _is_wanted(section: str, only: Sequence[str]) -> bool:
    return section in only or any(one in GROUPS and section.startswith(one) for one in only)


def _write(path: Path, line: str, results: Results, note: str, effort: Effort) -> None:
    targets = []
    for target in TARGETS:
        measured = target.measured(results)
        targets.append(
            {
                "what": target.what,
                "wanted": target.wanted,
                "measured": measured,
                "met": None if measured is None else target.met(measured),
            }
        )
    document = {
        "machine": line,
        "note": note,
        "rounds": effort.rounds,
        "units": {one.key: one.unit for one in METRICS},
        "figures": as_json(results),
        "targets": targets,
        "failures": results.failures,
        "notes": results.notes,
    }
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    os.replace(fresh, path)


if __name__ == "__main__":
    sys.exit(main())
