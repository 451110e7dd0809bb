"""Lines to frames, without any input or output.

A frame is one line of UTF-8: the bytes between two line ends. Nothing here decodes them, so no
locale can change what they mean.

Spec: basic/transports#stdio
"""

from __future__ import annotations

from dragoman.jsonrpc.frame import Noise
from dragoman.transport.stdio.limits import MAX_FRAME_BYTES, SAMPLE_BYTES

__all__ = ["FrameSplitter", "one_line"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_ENDS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")
_LF = 10
_CR = 13


def one_line(frame: bytes) -> bytes:
    """The frame without line ends in it, so that it is one line and stays one.

    Inside a JSON string a bare line end is illegal, so each one found is white space between
    tokens and a space means the same. Carriage returns go too: some readers split on them.
    """
    # `int in bytes` is the cheapest search there is: 15 ns against 100 ns for `bytes in bytes`.
    if _LF in frame or _CR in frame:
        return frame.translate(_LINE_ENDS_TO_SPACES)
    return frame


class FrameSplitter:
    """Cuts a stream of bytes into frames, however the stream is chunked.

    Lines end with LF or CRLF; blank lines are skipped; a byte order mark before the first line is
    dropped. A line of more than `max_frame_bytes` is never held: it is counted, its two ends are
    kept, and it becomes a `Noise` in `refused`. At most `max_frame_bytes` and one chunk are held
    at any time, and the work is linear in the bytes fed.
    """

    __slots__ = (
        "_at_start",
        "_held",
        "_limit",
        "_lost_bytes",
        "_lost_head",
        "_lost_tail",
        "_room",
        "refused",
    )

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        if max_frame_bytes < 1:
            raise ValueError(f"max_frame_bytes must be at least 1, not {max_frame_bytes}")
        self._limit = max_frame_bytes
        # A bytearray and not a list of chunks: a peer that writes byte by byte would make the
        # list forty times the size of the line.
        self._held = bytearray()
        # How long a chunk may be for the short path in `feed`. Below zero every chunk goes the
        # careful way: at the very start, where a mark may come, and while a line is being dropped.
        self._room = -1
        self._at_start = True
        self._lost_bytes = 0
        self._lost_head = b""
        self._lost_tail = b""
        #: Lines that were over the limit, each with the number of frames that the same call of
        #: `feed` returned before it; whoever feeds takes them out.
        self.refused: list[tuple[int, Noise]] = []

    @property
    def held_bytes(self) -> int:
        """How much of an unfinished line is in memory."""
        return len(self._held)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes of the stream; returns the 0..n frames they complete, in order."""
        if len(chunk) > self._room:
            return self._feed_carefully(chunk)
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if not lines:
            self._held += rest
            self._room -= len(rest)
            return []
        has_carriage_return = _CR in chunk
        if self._held:
            self._held += lines[0]
            lines[0] = bytes(self._held)
            self._held = bytearray()
            has_carriage_return = has_carriage_return or lines[0].endswith(b"\r")
        if rest:
            self._held += rest
        self._room = self._limit - len(rest)
        if has_carriage_return:
            lines = [line.removesuffix(b"\r") for line in lines]
        return [line for line in lines if line and not line.isspace()]

    def finish(self) -> list[bytes]:
        """The stream is over; returns its last line if that had no line end, else nothing.

        A text cut off in the middle is no harm: no proper beginning of a JSON object is itself
        JSON, so the reader sees a broken frame.
        """
        line = self._finish_line(0)
        return [] if line is None else [line]

    def _feed_carefully(self, chunk: bytes) -> list[bytes]:
        if self._at_start:
            chunk = bytes(self._held) + chunk
            self._held.clear()
            if len(chunk) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(chunk):
                self._held += chunk
                return []
            self._at_start = False
            chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
        frames: list[bytes] = []
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._take(chunk[start:end])
            start = end + 1
            line = self._finish_line(len(frames))
            if line is not None:
                frames.append(line)
        self._take(chunk[start:])
        self._room = -1 if self._lost_bytes else self._limit - len(self._held)
        return frames

    def _take(self, part: bytes) -> None:
        if self._lost_bytes:
            self._lost_bytes += len(part)
            self._lost_tail = (self._lost_tail + part[-SAMPLE_BYTES:])[-SAMPLE_BYTES:]
            return
        self._held += part
        # One byte more than the limit may be the carriage return of a line that just fits.
        if len(self._held) > self._limit + 1:
            self._lost_bytes = len(self._held)
            self._lost_head = bytes(self._held[:SAMPLE_BYTES])
            self._lost_tail = bytes(self._held[-SAMPLE_BYTES:])
            self._held = bytearray()

    def _finish_line(self, place: int) -> bytes | None:
        if self._lost_bytes:
            self._refuse(place, self._lost_bytes, self._lost_head, self._lost_tail)
            self._lost_bytes = 0
            self._lost_head = self._lost_tail = b""
            return None
        line = bytes(self._held).removesuffix(b"\r")
        self._held = bytearray()
        if len(line) > self._limit:
            self._refuse(place, len(line), line[:SAMPLE_BYTES], line[-SAMPLE_BYTES:])
            return None
        return line if line and not line.isspace() else None

    def _refuse(self, place: int, size: int, head: bytes, tail: bytes) -> None:
        noise = Noise(
            reason=f"a line of {size} bytes is over the limit of {self._limit}",
            size=size,
            limit=self._limit,
            head=head,
            tail=tail,
        )
        self.refused.append((place, noise))
