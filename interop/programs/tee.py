"""Stand between a client and the server it starts, and write down every line that passes.

    python tee.py FILE COMMAND ARGUMENT...

FILE gets one JSON array a line: who wrote it ("client" or "server") and the text of the frame.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import IO, TextIO


def copy(
    source: IO[bytes], target: IO[bytes], who: str, record: TextIO, lock: threading.Lock
) -> None:
    """Pass lines on until the source ends, then close the target."""
    try:
        for line in iter(source.readline, b""):
            with lock:
                record.write(json.dumps([who, line.decode("utf-8")]) + "\n")
                record.flush()
            target.write(line)
            target.flush()
        target.close()
    except BrokenPipeError:
        return


def main(path: str, command: list[str]) -> int:
    lock = threading.Lock()
    with (
        open(path, "w", encoding="utf-8") as record,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        ends = (sys.stdin.buffer, child.stdin, "client", record, lock)
        # A daemon: our stdin may stay open although the server has gone.
        threading.Thread(target=copy, args=ends, daemon=True).start()
        copy(child.stdout, sys.stdout.buffer, "server", record, lock)
        return child.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
