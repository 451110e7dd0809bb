"""Print the held duties no test carries yet, by layer: `python -m tests.requirements.missing`."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from tests.requirements.carriers import find_in_folder
from tests.requirements.duties import Duty, load


def main() -> int:
    """The exit code is 1 while something is missing."""
    carried = find_in_folder(Path(__file__).parents[1]).carried
    held = [row for row in load().values() if row.state == "held"]
    by_layer: defaultdict[str, list[Duty]] = defaultdict(list)
    for row in held:
        if row.id not in carried:
            by_layer[row.layer].append(row)
    for layer in sorted(by_layer):
        print(f"\n{layer}")
        for row in by_layer[layer]:
            print(f"  {row.id:36} {row.who:6} {row.sentence}")
    missing = sum(map(len, by_layer.values()))
    print(f"\n{len(held) - missing} of {len(held)} held duties have a test, {missing} have none")
    return min(missing, 1)


if __name__ == "__main__":
    sys.exit(main())
