"""`dragoman version`, without anything that takes long to load."""

from __future__ import annotations

import sys

import dragoman

__all__ = ["show_version"]


def show_version(*, is_json: bool) -> None:
    """Print it: a line, or a JSON document that also names the revisions."""
    if not is_json:
        sys.stdout.write(f"dragoman {dragoman.__version__}\n")
        return
    import json
    import platform

    from dragoman.revisions.registry import HANDSHAKE

    document = {
        "dragoman": dragoman.__version__,
        "python": platform.python_version(),
        "revisions": [dialect.wire for dialect in HANDSHAKE],
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
