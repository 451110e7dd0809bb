"""The ceilings of a server's HTTP side: value, unit, reason."""

from __future__ import annotations

from dataclasses import dataclass

from dragoman.transport.stdio.limits import MAX_FRAME_BYTES

__all__ = ["HttpLimits"]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one server takes from all of its clients over HTTP."""

    max_body_bytes: int = MAX_FRAME_BYTES
    """One POST; the same as one line on stdio, so that what works there works here. 413 over it."""

    max_hello_bytes: int = 64 * 1024
    """The POST that opens a session: a name, a version and what the client can do. It comes from
    somebody of whom nothing is known, and stays as long as the session. 413 over it."""

    body_s: float = 30.0
    """How long a body may take to arrive. 408 after it."""

    max_header_bytes: int = 32 * 1024
    """All header fields of a request; twice what common servers take for one. 431 over it."""

    max_sessions: int = 10_000
    """Sessions open at once, at some 3 KiB each. A new one over it gets 503, after idle ones were
    looked for."""

    max_streams: int = 64
    """Streams of one session with a connection each. One more gets 429: a client that has 64
    answers streaming has lost count."""

    max_waiting: int = 1_024
    """POSTs of one session that wait for an answer. One more gets 429."""

    idle_s: float = 30 * 60.0
    """How long a session lives that nobody uses: half an hour, the time of a meeting."""

    long_wait_s: float = 2.0
    """After this long an answer becomes a stream, so that proxies see life, a disconnect is
    noticed, and the client can come back for the rest."""

    keep_alive_s: float = 15.0
    """A silent stream gets a comment this often; most proxies close after 30 or 60 s of silence."""

    retry_s: float = 1.0
    """How soon a client should come back to a stream that broke."""

    max_unread_bytes: int = 1024 * 1024
    """What may wait for the reader of one stream. Over it the connection is closed: the client
    comes back for the rest, and until then it costs nothing."""

    max_kept_bytes: int = 4 * 1024 * 1024
    """What is kept of one session's streams for clients that come back."""

    max_kept_total_bytes: int = 256 * 1024 * 1024
    """... and of all sessions; the oldest go first."""

    max_kept_events: int = 4_096
    """... and how many events of one session."""

    drain_s: float = 10.0
    """How long a server that is told to stop lets calls finish."""
