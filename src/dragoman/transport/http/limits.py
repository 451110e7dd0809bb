"""Every ceiling of the client's HTTP links: value, unit, reason."""

from __future__ import annotations

__all__ = [
    "ACKNOWLEDGEMENT_BYTES",
    "ANSWER_COST_BYTES",
    "ENDPOINT_WAIT_S",
    "FAREWELL_WAIT_S",
    "FIRST_DELAY_S",
    "GATE_WAIT_S",
    "LINGER_S",
    "MAX_DELAY_S",
    "MAX_FAILURES",
    "MAX_OVERHEARD",
    "MAX_REPEATS",
    "MAX_REQUESTS",
    "MAX_RETRY_MS",
    "MAX_SESSION_CHARS",
    "MIN_DELAY_S",
    "MESSAGE_WAIT_S",
    "SESSION_WAIT_S",
    "REFUSED_DELAY_S",
    "RESERVED",
    "SETTLED_S",
    "SPREAD",
]

# 0.5 s before the first new try and at most 10 s before a later one: a process that is started anew
# takes seconds, and ten more are the most a person should wait once it is there.
FIRST_DELAY_S = 0.5
MAX_DELAY_S = 10.0

# 8 failures in a row, about 45 s, before the stream of an answer is given up for lost.
MAX_FAILURES = 8

# A minute between two tries for a stream that was there before and is refused again and again: what
# refuses it may be a page of a proxy's, or a firewall; nobody should be asked often for what it refuses.
REFUSED_DELAY_S = 60.0

# A tenth more than a server asked to wait: fifty clients that were all asked for 5 s then come within
# half a second, and not in the same moment.
SPREAD = 0.1

# 10 s open: such a stream was in order, and its end is no reason to wait longer for the next.
SETTLED_S = 10.0

# 50 ms at least between two connections for one stream, whatever the server says: one that says 0
# and hangs up at once would have us do nothing else.
MIN_DELAY_S = 0.05

# 8 streams by which a server answered a notification or an answer of ours, and which it never ends:
# the oldest is closed for the next, or they would use up all connections.
MAX_OVERHEARD = 8

# A day: what a server may ask us to wait at most. Longer is a slip of units.
MAX_RETRY_MS = 86_400_000

# A notification or an answer of ours is sent again at most 3 times: two seconds of trouble.
MAX_REPEATS = 3

# 16 connections, of few a quarter, are kept from requests: their own cancellations, the answers that
# they wait for and the pings must find one. With a client of the user's own, or HTTP/2, whose
# connections we do not count, 4,096 requests are under way at once.
RESERVED = 16
MAX_REQUESTS = 4_096

# 30 s for the acknowledgement of a notification or an answer: it asks for no work.
MESSAGE_WAIT_S = 30.0

# 5 s: how long a notification that is not acknowledged may hold up what was sent after it. Order
# matters less than a server that acknowledges late.
GATE_WAIT_S = 5.0

# 5 s for the rest of a stream once its answer is here: a stream that ends in order leaves its
# connection to others.
LINGER_S = 5.0

# 1 s after the first sign that a session is gone: every other request learns by itself, within a
# round trip, whether it was taken.
SESSION_WAIT_S = 1.0

# 2 s to say goodbye when a link closes, as for a pipe.
FAREWELL_WAIT_S = 2.0

# 30 s for the first event of an HTTP+SSE stream, as for an opening.
ENDPOINT_WAIT_S = 30.0

# 64 KiB of an acknowledgement, which should be empty, are read so that its connection can be used
# again.
ACKNOWLEDGEMENT_BYTES = 64 * 1024

# Each answer under way costs a task and a connection, whatever its size: 256 of the smallest reach
# the high-water mark.
ANSWER_COST_BYTES = 1024

# 1 KiB: a signed token of a few claims fits; it is sent with every request.
MAX_SESSION_CHARS = 1024
