"""A client with one child; it tells the process ids it knows and waits to be killed."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from dragoman.transport.stdio.child import StdioConnector

HERE = Path(__file__).parent


class Keeper:
    def __init__(self):
        self.frames = asyncio.Queue()
        self.refused = asyncio.Queue()

    def frames_received(self, frames, seen):
        for frame in frames:
            self.frames.put_nowait(frame)

    def frame_refused(self, noise):
        self.refused.put_nowait(noise)

    def link_closed(self, error):
        pass


async def start(name, *words, **options):
    link = await StdioConnector(
        command=sys.executable, args=[str(HERE / name), *words], env=dict(os.environ), **options
    ).connect()
    keeper = Keeper()
    link.start(keeper)
    return link, keeper


def tell(text):
    os.write(1, text + b"\n")


def peak_kb():
    """The most memory this program ever held; `ru_maxrss` would count who started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


async def nested():
    link, keeper = await start("server.py")
    link.send(b"nest")
    tell(await keeper.frames.get())
    await asyncio.Event().wait()


async def guarded():
    link, keeper = await start("peer.py", "stubborn", guard=True, close_wait_s=0.1, term_wait_s=0.1)
    await keeper.frames.get()
    tell(b"%d" % link.pid)
    await asyncio.Event().wait()


async def guarded_and_closed():
    link, keeper = await start("peer.py", "echo", guard=True)
    link.send(b"{}")
    await keeper.frames.get()
    tell(b"%d" % link.pid)
    await link.aclose()
    assert link.exit_code == 0
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    else:
        raise AssertionError("a child was left")


async def one_line():
    link, keeper = await start("peer.py", "one_line", "1000")
    noise = await keeper.refused.get()
    assert await keeper.frames.get() == b'{"id":43}'
    tell(b"%d %d %d" % (noise.size, noise.limit, peak_kb()))
    await link.aclose()


signal.alarm(60)
asyncio.run(globals()[sys.argv[1].replace("-", "_")]())
