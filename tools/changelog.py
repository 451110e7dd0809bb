"""Move the fragments of `changes/` into CHANGELOG.md, under a version.

    python tools/changelog.py VERSION DATE [--show]

`--show` prints the section and changes nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
KINDS = {"added": "Added", "changed": "Changed", "fixed": "Fixed", "removed": "Removed"}
MARK = "## Unreleased\n\nSee `changes/`.\n"


def fragments() -> dict[str, list[Path]]:
    """The fragments by kind; an unknown kind ends the program with its name."""
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for path in sorted((ROOT / "changes").glob("*.md")):
        if path.name == "README.md":
            continue
        kind = path.stem.rpartition(".")[2]
        if kind not in found:
            raise SystemExit(f"{path.name}: the kind must be one of {', '.join(KINDS)}")
        found[kind].append(path)
    return found


def section(version: str, date: str, found: dict[str, list[Path]]) -> str:
    """The text of one release."""
    lines = [f"## {version} ({date})", ""]
    for kind, paths in found.items():
        if paths:
            lines += [f"### {KINDS[kind]}", ""]
            lines += [f"- {path.read_text(encoding='utf-8').strip()}" for path in paths]
            lines.append("")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    words = [one for one in arguments if not one.startswith("--")]
    if len(words) != 2:
        print(__doc__)
        return 2
    found = fragments()
    text = section(words[0], words[1], found)
    if "--show" in arguments:
        print(text)
        return 0
    log = ROOT / "CHANGELOG.md"
    old = log.read_text(encoding="utf-8")
    if MARK not in old:
        raise SystemExit("CHANGELOG.md has no place for unreleased changes")
    log.write_text(old.replace(MARK, f"{MARK}\n{text}"), encoding="utf-8")
    for paths in found.values():
        for path in paths:
            path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
