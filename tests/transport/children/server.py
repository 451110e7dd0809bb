"""An echo server on dragoman's own stdio link; the arguments choose what it does besides.

It answers each frame with itself, except for a few words that ask for something.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

if "prints-early" in sys.argv:
    print("printed before the streams were taken")

from dragoman.errors import Misconfigured, WrongState
from dragoman.transport.stdio import pipes, serve
from dragoman.transport.stdio.child import StdioConnector

if "threads" in sys.argv:
    pipes.loop_can_watch = lambda fd: False
if "impatient" in sys.argv:
    serve.PARENT_WAIT_S = 0.3


def peak_kb():
    """The most memory this program ever held; `ru_maxrss` would count who started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


class Echo:
    def __init__(self, link):
        self.link = link
        self.ended = asyncio.Event()
        self.late = []

    def frames_received(self, frames, seen):
        for frame in frames:
            word = frame.decode("utf-8", "replace")
            if word == "print":
                print_everywhere()
            elif word == "eat":
                frame = json.dumps(eat_input()).encode()
            elif word == "peak":
                frame = b"%d" % peak_kb()
            elif word == "nest":
                self.late.append(asyncio.get_running_loop().create_task(self.nest()))
                continue
            elif word == "big":
                frame = b"x" * 3_000_000
            self.link.send(frame)

    def frame_refused(self, noise):
        self.link.send(b"refused %d %d" % (noise.size, noise.limit))

    def link_closed(self, error):
        self.ended.set()
        # Whoever reads our stderr may be gone as well.
        with contextlib.suppress(OSError):
            print("link closed:", error, file=sys.stderr, flush=True)

    async def nest(self):
        """Start a server of our own and tell all process ids."""
        self.inner = await StdioConnector(
            command=sys.executable, args=[__file__, "echo"], env=dict(os.environ)
        ).connect()
        self.inner.start(Silent())
        self.link.send(b"%d %d" % (os.getpid(), self.inner.pid))


class Silent:
    def frames_received(self, frames, seen):
        pass

    def frame_refused(self, noise):
        pass

    def link_closed(self, error):
        pass


def print_everywhere():
    print("from print")
    sys.stdout.buffer.write(b"from the buffer\n")
    sys.stdout.flush()
    os.write(1, b"from the descriptor\n")
    os.system("echo from a shell")
    subprocess.run(["echo", "from a child"])
    libc = ctypes.CDLL(None)
    libc.puts(b"from a C library")
    libc.fflush(None)


def eat_input():
    eaten = {
        "read": sys.stdin.read(),
        "child": subprocess.run("cat", capture_output=True).stdout.decode(),
    }
    try:
        eaten["input"] = input()
    except EOFError:
        eaten["input"] = "EOFError"
    eaten["inherited"] = os.popen("ls /proc/self/fd").read().split()
    return eaten


async def main():
    link = serve.StdioServerLink()
    echo = Echo(link)
    stopped = asyncio.Event()
    signals = []

    def stop(number):
        signals.append(number.name)
        stopped.set()

    undo = serve.on_stop_signal(stop)
    if "twice" in sys.argv:
        try:
            serve.StdioServerLink()
        except WrongState as error:
            link.send(str(error).encode())
    link.start(echo)
    if "signals" in sys.argv:
        link.send(b"ready")
        await stopped.wait()
        link.send(b"stopped by " + signals[0].encode())
    else:
        await echo.ended.wait()
        if "late" in sys.argv:
            await asyncio.sleep(0)
            link.send(b"late answer")
    if echo.late:
        await asyncio.gather(*echo.late)
        await echo.inner.aclose()
    await link.aclose()
    undo()


if "take-first" in sys.argv:
    streams = serve.take_streams()
    assert serve.take_streams() is streams
    print("printed by user code while it is imported")
try:
    asyncio.run(main())
except Misconfigured as error:
    print("Misconfigured:", error, file=sys.stderr)
    sys.exit(4)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
if "prints-late" in sys.argv:
    print("after the link")
    with contextlib.suppress(EOFError):
        print("input:", input())
