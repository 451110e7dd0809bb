"""Every ceiling of the pipe and memory links: value, unit, reason."""

from __future__ import annotations

__all__ = [
    "BATCH_FRAME_BYTES",
    "CLOSE_WAIT_S",
    "END_WAIT_S",
    "FLUSH_WAIT_S",
    "FRAMES_A_WRITE",
    "GROUP_POLL_S",
    "GROUP_WAIT_S",
    "GROWN_PIPE_BYTES",
    "HIGH_WATER_BYTES",
    "LOW_WATER_BYTES",
    "MAX_FRAME_BYTES",
    "PARENT_WAIT_S",
    "READ_BYTES",
    "REPEAT_S",
    "SAMPLE_BYTES",
    "STDERR_LINE_BYTES",
    "STDERR_TAIL_BYTES",
    "TERM_WAIT_S",
]

# 64 MiB: a 45 MiB file in base64 with its envelope. The peers we met stop between 10 MB and no
# limit at all; a larger value belongs in a resource that is read in parts.
MAX_FRAME_BYTES = 64 * 1024 * 1024

# 1 KiB from each end of a refused frame: an `id` is among the first members or the last.
SAMPLE_BYTES = 1024

# 64 KiB a read: what a pipe holds on Linux. Asking for 256 KiB made the allocator map and unmap
# memory on every read: 49 us a round trip against 7 us.
READ_BYTES = 64 * 1024

# 256 KiB queued before `drain` waits, and down to 64 KiB, one pipe full, before it goes on: enough
# for a burst of a thousand small answers, little beside one payload.
HIGH_WATER_BYTES = 256 * 1024
LOW_WATER_BYTES = 64 * 1024

# Frames from 16 KiB on are written where they lie; below, copying them into one write is cheaper.
BATCH_FRAME_BYTES = 16 * 1024

# 16 frames: the other side begins with them while we make more. A client with 32 calls under way does a
# third more calls than with one write for all; a server's CPU a call grows by a twentieth.
FRAMES_A_WRITE = 16

# 256 KiB: a pipe that proves too small grows to this. 10 MB there and back took 15 ms, against
# 24 ms at 64 KiB and 14 ms at 1 MiB. Linux lets one user hold 64 MiB in all pipes before it shrinks
# new ones, so the last millisecond is not worth three quarters of that.
GROWN_PIPE_BYTES = 256 * 1024

# 2 s for a child to exit after its stdin closed, and 2 s after SIGTERM: what the other SDKs grant.
CLOSE_WAIT_S = 2.0
TERM_WAIT_S = 2.0

# 2 s for queued frames to leave when a link closes: a peer that reads takes milliseconds.
FLUSH_WAIT_S = 2.0

# 1 s between the two signs of one end (a pipe's end and the child's exit), in either order.
END_WAIT_S = 1.0

# Processes that a child left in its group get SIGTERM and half a second, looked at every 10 ms,
# before SIGKILL: they are not our children, so nothing tells us when they end.
GROUP_WAIT_S = 0.5
GROUP_POLL_S = 0.01

# 2 s between the death of a server's parent and the end of the link, unless frames still come.
PARENT_WAIT_S = 2.0

# 0.25 s between two signals of a kind before the second counts as one of its own: a launcher often
# passes on the Ctrl-C that the terminal has sent to its child as well, and nobody types so fast.
REPEAT_S = 0.25

# 8 KiB of stderr are kept: a Python traceback of fifty frames fits.
STDERR_TAIL_BYTES = 8 * 1024

# A line of stderr is handed to a callback in pieces of at most 8 KiB.
STDERR_LINE_BYTES = 8 * 1024
