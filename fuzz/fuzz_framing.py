"""Feed the line splitter anything, in any chunks, and compare it with the shortest way there is.

Run: python fuzz/fuzz_framing.py [-max_total_time=60] [corpus directory]; needs atheris.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from dragoman.transport.stdio.framing import FrameSplitter

MARK = b"\xef\xbb\xbf"


def wanted(stream: bytes, limit: int) -> tuple[list[bytes], int]:
    """All frames, and how many lines are over the limit, with no thought for memory."""
    frames, refused = [], 0
    for line in stream.removeprefix(MARK).split(b"\n"):
        frame = line.removesuffix(b"\r")
        if len(frame) > limit:
            refused += 1
        elif frame and not frame.isspace():
            frames.append(frame)
    return frames, refused


def test_one_input(data: bytes) -> None:
    """The first two bytes choose the limit and the chunks; the rest is the stream."""
    if len(data) < 2:
        return
    limit, seed, stream = data[0] + 1, data[1], data[2:]
    splitter = FrameSplitter(limit)
    frames: list[bytes] = []
    start = 0
    while start < len(stream):
        seed = (seed * 61 + 17) % 251
        end = start + 1 + seed % 40
        frames += splitter.feed(stream[start:end])
        assert splitter.held_bytes <= limit + 1
        start = end
    frames += splitter.finish()
    expected, refused = wanted(stream, limit)
    assert frames == expected, (stream, limit, frames, expected)
    assert len(splitter.refused) == refused, (stream, limit)
    for _, noise in splitter.refused:
        assert noise.size > limit
        assert len(noise.head) <= 1024
        assert len(noise.tail) <= 1024


def main() -> None:
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
