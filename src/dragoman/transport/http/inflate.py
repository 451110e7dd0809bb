"""Content-Encoding undone, piece by piece: a small body cannot become a large one in one step."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

__all__ = ["ACCEPTED_ENCODINGS", "Inflater", "encoding_of"]

#: What we say that we take; both are in the standard library.
ACCEPTED_ENCODINGS = "gzip, deflate"

# 64 KiB a piece: what a read of a socket brings, so that a compressed body is no larger step.
PIECE_BYTES = 64 * 1024

_PLAIN = frozenset({"", "identity"})
_KNOWN = frozenset({"gzip", "x-gzip", "deflate"})


def encoding_of(header: str) -> str | None:
    """The encoding that a Content-Encoding header names; None for none.

    Raises:
        ValueError: one that we do not take, or several.
    """
    name = header.strip().lower()
    if name in _PLAIN:
        return None
    if name not in _KNOWN:
        raise ValueError(f"a body is encoded as {name[:40]!r}, which was not asked for")
    return name


class Inflater:
    """Undoes gzip or deflate; `deflate` with a zlib header and without, as servers send both."""

    __slots__ = ("_is_gzip", "_unpacker")

    def __init__(self, encoding: str) -> None:
        self._is_gzip = encoding != "deflate"
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16) if self._is_gzip else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes of the body stand for, in pieces of 1 byte to 64 KiB.

        Raises:
            ValueError: they stand for nothing.
        """
        while data:
            unpacker = self._unpacker
            if unpacker is None:
                # A zlib header begins with method 8 and a window of at most 32 KiB.
                has_header = data[0] & 0x0F == 8 and data[0] >> 4 <= 7
                unpacker = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
                self._unpacker = unpacker
            elif unpacker.eof:
                # More gzip members may follow the first; after zlib's only one nothing counts.
                if not self._is_gzip or data[:1] == b"\0":
                    return
                self._unpacker = unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
            is_full = True
            while data or is_full:
                try:
                    piece = unpacker.decompress(data, PIECE_BYTES)
                except zlib.error as problem:
                    raise ValueError("a compressed body is broken") from problem
                if piece:
                    yield piece
                if unpacker.eof:
                    data = unpacker.unused_data
                    break
                data = unpacker.unconsumed_tail
                # A piece of full size may leave some of its output behind, with no input left.
                is_full = len(piece) == PIECE_BYTES

    def finish(self) -> None:
        """The body is over.

        Raises:
            ValueError: it was cut off.
        """
        if self._unpacker is not None and not self._unpacker.eof:
            raise ValueError("a compressed body was cut off")
