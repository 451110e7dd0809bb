"""Writes decisions to a log and says so, in a fork of itself for each line that it reads.

A line is `LOG COUNT`: that many workers append to the log for ever, and write the number of each
decision to stdout after it was recorded, as `WORKER NUMBER`, as a server would see the request.
"end" follows when all of them are dead.
"""

from __future__ import annotations

import os
import sys

from dragoman.host.audit import Audit, AuditLimits
from tests.host.audit_log import INTENT, PAYLOAD, YES


def work(path: str, name: int) -> None:
    audit = Audit(path, limits=AuditLimits(max_bytes=200_000, anchor_every=16))
    os.write(1, f"pid {os.getpid()}\n".encode())
    while True:
        mark = audit.decision(INTENT, YES, payload=PAYLOAD, trace=str(name))
        os.write(1, f"{name} {mark.seq}\n".encode())
        audit.outcome(mark, "ok", result={"content": []})


for line in sys.stdin:
    path, count = line.split()
    pids = []
    for name in range(int(count)):
        pid = os.fork()
        if pid == 0:
            try:
                work(path, name)
            finally:
                os._exit(1)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    os.write(1, b"end\n")
