"""Holds what a host needs, until its input ends. Arguments: `log`, `store` or `guard`, and the file.

It says "held" when it has it.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from dragoman.host.locks import FileLock

what, path = sys.argv[1:]
if what == "log":
    FileLock(Path(path).with_suffix(".lock")).__enter__()
elif what == "guard":
    FileLock(Path(path)).__enter__()
else:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
