"""text/event-stream to events and back, without any input or output.

Data stays bytes, since it is a frame; names and ids are text. A byte that is no UTF-8 inside of
data is left as it is, for the reader of the frame to refuse.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dragoman.jsonrpc.frame import Noise

__all__ = ["EventStreamDecoder", "ServerEvent", "encode_comment", "encode_event"]

# 8 KiB for a line that is no data: an id has to fit into a header when it is sent back, and 8 KiB
# is the most that common servers take. A longer one is passed over like a field nobody knows.
MAX_FIELD_BYTES = 8 * 1024

# 1 KiB from each end of a refused event: an `id` is among the first members or the last.
SAMPLE_BYTES = 1024

# Eleven digits are three years; a longer wait is that long too.
_MOST_RETRY_MS = 99_999_999_999

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CR = 13
_LF = 10
_COLON = 58

_LINE_END = re.compile(rb"\r\n|\r|\n")

# What precedes the data on its line, at most: b"data: ".
_DATA_PREFIX_BYTES = 6


class ServerEvent(NamedTuple):
    """One event of a stream.

    `event` is its name, `data` its lines joined by LF, `id` the last id that the stream has set
    (None: none, or taken back), `retry_ms` what this very event asks for.
    """

    event: str
    data: bytes
    id: str | None
    retry_ms: int | None


class EventStreamDecoder:
    """Reads a stream however it is cut into chunks; what is incomplete at its end is no event.

    An event whose data is over `max_event_bytes` is never held: it is counted, its two ends are
    kept, and it becomes a `Noise` in `refused`; the stream goes on. At most `max_event_bytes`, a
    few kilobytes and one chunk are held at any time, and the work is linear in the bytes fed.
    """

    __slots__ = (
        "_data",
        "_has_lost",
        "_id",
        "_is_after_cr",
        "_limit",
        "_lost_bytes",
        "_lost_head",
        "_lost_tail",
        "_name",
        "_partial",
        "_passes_over",
        "_retry_ms",
        "_start",
        "last_event_id",
        "refused",
        "retry_ms",
    )

    def __init__(self, *, max_event_bytes: int) -> None:
        if max_event_bytes < 1:
            raise ValueError(f"max_event_bytes must be at least 1, not {max_event_bytes}")
        self._limit = max_event_bytes
        #: What to send as Last-Event-ID to go on after the last event; "" for none.
        self.last_event_id = ""
        #: The last reconnection time that the stream has asked for, if any.
        self.retry_ms: int | None = None
        #: Events that were over the limit, each with the number of events that the same call of
        #: `feed` returned before it; whoever feeds takes them out.
        self.refused: list[tuple[int, Noise]] = []
        # The first bytes, while they may still be a byte order mark; then None.
        self._start: bytes | None = b""
        self._is_after_cr = False
        # A line without its end yet, or nothing of it: then whether the line is data that counts.
        self._partial = bytearray()
        self._passes_over: bool | None = None
        # The event so far. Data of one line is kept as it is, since most events have one line.
        self._data: bytes | bytearray | None = None
        self._name = ""
        self._id = ""
        self._retry_ms: int | None = None
        # An event over the limit.
        self._has_lost = False
        self._lost_bytes = 0
        self._lost_head = b""
        self._lost_tail = bytearray()

    @property
    def held_bytes(self) -> int:
        """How much of an unfinished event is in memory."""
        return len(self._partial) + len(self._data or b"")

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """Take the next bytes of the stream; returns the 0..n events they complete, in order."""
        if self._start is not None:
            chunk = self._begin(chunk)
        if self._is_after_cr and chunk:
            self._is_after_cr = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if _CR in chunk:
            self._is_after_cr = chunk[-1] == _CR
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        events: list[ServerEvent] = []
        if lines:
            if self._partial:
                self._partial += lines[0]
                lines[0] = bytes(self._partial)
                self._partial = bytearray()
            elif self._passes_over is not None:
                self._pass_over(lines[0])
                self._passes_over = None
                del lines[0]
            for line in lines:
                if line:
                    self._take(line)
                else:
                    self._finish(events)
        if rest:
            self._hold(rest)
        return events

    def _begin(self, chunk: bytes) -> bytes:
        assert self._start is not None
        chunk = self._start + chunk
        if len(chunk) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(chunk):
            self._start = chunk
            return b""
        self._start = None
        return chunk.removeprefix(_BYTE_ORDER_MARK)

    def _hold(self, part: bytes) -> None:
        """Keep the beginning of a line, or pass over it when nobody will want it."""
        if self._passes_over is not None:
            self._pass_over(part)
            return
        self._partial += part
        partial = self._partial
        if partial[0] == _COLON:
            self._passes_over = False
        elif partial.startswith(b"data:"):
            data = self._data
            held = 0 if data is None else len(data) + 1
            if self._has_lost or held + len(partial) > self._limit + _DATA_PREFIX_BYTES:
                # With less than this one cannot say whether a space follows the colon.
                if len(partial) < _DATA_PREFIX_BYTES:
                    return
                self._lose(_value(bytes(partial), 5))
                self._passes_over = True
        elif len(partial) > MAX_FIELD_BYTES:
            self._passes_over = False
        if self._passes_over is not None:
            self._partial = bytearray()

    def _pass_over(self, part: bytes) -> None:
        if self._passes_over:
            self._count(part)

    def _take(self, line: bytes) -> None:
        """One whole line that is not empty."""
        if line.startswith(b"data:"):
            self._add(_value(line, 5))
            return
        if len(line) > MAX_FIELD_BYTES or line[0] == _COLON:
            return
        name, _, rest = line.partition(b":")
        value = rest.removeprefix(b" ")
        if name == b"data":
            self._add(b"")
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            digits = value.lstrip(b"0")
            self._retry_ms = int(digits or b"0") if len(digits) <= 11 else _MOST_RETRY_MS
            self.retry_ms = self._retry_ms

    def _add(self, value: bytes) -> None:
        data = self._data
        if self._has_lost or (
            len(value) > self._limit if data is None else len(data) + 1 + len(value) > self._limit
        ):
            self._lose(value)
        elif data is None:
            self._data = value
        else:
            if isinstance(data, bytes):
                self._data = data = bytearray(data)
            data += b"\n"
            data += value

    def _lose(self, value: bytes) -> None:
        """A line of data that the event has no room for."""
        if not self._has_lost:
            self._has_lost = True
            if self._data is not None:
                self._count(bytes(self._data) + b"\n")
                self._data = None
        else:
            self._count(b"\n")
        self._count(value)

    def _count(self, part: bytes) -> None:
        self._lost_bytes += len(part)
        room = SAMPLE_BYTES - len(self._lost_head)
        if room > 0:
            self._lost_head += part[:room]
        self._lost_tail += part[-SAMPLE_BYTES:]
        # Cut rarely, so that a peer that writes byte by byte costs no kilobyte each.
        if len(self._lost_tail) > 8 * SAMPLE_BYTES:
            del self._lost_tail[:-SAMPLE_BYTES]

    def _finish(self, events: list[ServerEvent]) -> None:
        """A blank line: the event is over."""
        self.last_event_id = self._id
        if self._data is not None:
            name = self._name or "message"
            events.append(ServerEvent(name, bytes(self._data), self._id or None, self._retry_ms))
            self._data = None
        elif self._has_lost:
            self._refuse(len(events))
        self._name = ""
        self._retry_ms = None

    def _refuse(self, place: int) -> None:
        noise = Noise(
            reason=f"an event of {self._lost_bytes} bytes is over the limit of {self._limit}",
            size=self._lost_bytes,
            limit=self._limit,
            head=self._lost_head,
            tail=bytes(self._lost_tail[-SAMPLE_BYTES:]),
        )
        self.refused.append((place, noise))
        self._has_lost = False
        self._lost_bytes = 0
        self._lost_head = b""
        self._lost_tail = bytearray()


def encode_event(
    data: bytes,
    *,
    event: str | None = None,
    id: str | None = None,
    retry_ms: int | None = None,
) -> bytes:
    """One event as bytes; a line end in `data` becomes LF for whoever reads it.

    Raises:
        ValueError: a name or an id that a stream cannot carry, or a negative time.
    """
    head = b""
    if id is not None:
        head = b"id: " + _one_line(id, "an id") + b"\n"
    if event is not None:
        head += b"event: " + _one_line(event, "a name") + b"\n"
    if retry_ms is not None:
        if retry_ms < 0:
            raise ValueError(f"a reconnection time cannot be {retry_ms} ms")
        head += b"retry: %d\n" % retry_ms
    if _LF in data or _CR in data:
        lines = _LINE_END.split(data)
        return head + b"".join([b"data: " + line + b"\n" for line in lines]) + b"\n"
    return head + b"data: " + data + b"\n\n"


def encode_comment(text: str = "") -> bytes:
    """A comment: readers pass over it, and what stands between sees that the stream lives."""
    lines = _LINE_END.split(text.encode())
    return b"".join([b": " + line + b"\n" for line in lines]) + b"\n"


def _value(line: bytes, start: int) -> bytes:
    """What follows the colon, without one space."""
    return line[start + 1 :] if line[start : start + 1] == b" " else line[start:]


def _one_line(text: str, what: str) -> bytes:
    if "\n" in text or "\r" in text or "\0" in text:
        raise ValueError(f"{what} of an event cannot hold a line end or NUL: {text[:40]!r}")
    return text.encode()
