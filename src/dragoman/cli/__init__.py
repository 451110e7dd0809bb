"""The command line; `main` is what the `dragoman` command calls.

It needs click and rich, the extra `cli`. Without them every command but `version` ends with the
line that installs them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

# As `Exit.USAGE`, which needs more than this module may load: something has to be put right first.
USAGE = 2
# As `Exit.OUTPUT`.
OUTPUT = 74
# As `Exit.BROKEN_PIPE`.
BROKEN_PIPE = 141

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's own) and return its exit code."""
    _open_closed_streams()
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        # Whoever read us has left.
        _write_nowhere()
        return BROKEN_PIPE
    except OSError as error:
        if not is_unwritten(error):
            raise
        _write_nowhere()
        sys.stderr.write(f"error: it could not be written: {error.strerror or error}\n")
        return OUTPUT


def is_unwritten(error: BaseException) -> bool:
    """Whether a disk took no more of what was written: stdout's, as a rule."""
    return isinstance(error, OSError) and error.filename is None and error.errno in _FULL


def _write_nowhere() -> None:
    """What is still buffered must not be tried again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _open_closed_streams() -> None:
    """A stream that was closed before we began is nowhere: else the next file or socket that is
    opened took its number, and what is printed went into that."""
    if None not in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        return
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        # A program that is started here has them, too.
        os.set_inheritable(null, True)
    os.close(null)
    # For as long as the process is there.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


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
