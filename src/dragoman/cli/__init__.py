"""The command line; `main` is what the `dragoman` command calls.

It needs click and rich, the extra `cli`. Without them every command but `version` ends with the
line that installs them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dragoman.cli.streams import is_unwritten, open_closed_streams, write_nowhere

__all__ = ["main"]

# As `Exit.USAGE`, which needs more than this module may load: something has to be put right first.
USAGE = 2
# As `Exit.OUTPUT`.
OUTPUT = 74
# As `Exit.BROKEN_PIPE`.
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's own) and return its exit code."""
    open_closed_streams()
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        # Whoever read us has left.
        write_nowhere()
        return BROKEN_PIPE
    except OSError as error:
        if not is_unwritten(error):
            raise
        write_nowhere()
        sys.stderr.write(f"error: it could not be written: {error.strerror or error}\n")
        return OUTPUT


def _run(words: list[str]) -> int:
    if words in (["version"], ["--version"], ["version", "--json"], ["--version", "--json"]):
        from dragoman.cli.version import show_version

        show_version(is_json="--json" in words)
        sys.stdout.flush()
        return 0
    try:
        import click as _click
        import rich as _rich
    except ModuleNotFoundError as missing:
        if missing.name not in ("click", "rich"):
            raise
        return _without_extra(words)
    del _click, _rich
    from dragoman.cli.app import run_cli

    return run_cli(words)


def _without_extra(words: Sequence[str]) -> int:
    from dragoman.errors import MissingExtra

    error = MissingExtra("cli", "the command line")
    if "--json" in words:
        import json

        document = {"kind": "usage", "exit": USAGE, "message": str(error), "install": error.install}
        sys.stdout.write(json.dumps({"error": document}, indent=2) + "\n")
    else:
        sys.stderr.write(f"error: {error}\n")
    return USAGE
