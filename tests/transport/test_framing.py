"""Lines to frames: any chunking, any bytes, bounded memory, linear time."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.jsonrpc.frame import Noise
from dragoman.transport.stdio.framing import FrameSplitter, one_line
from dragoman.transport.stdio.limits import SAMPLE_BYTES

LIMIT = 24


def split(chunks: list[bytes], limit: int = LIMIT) -> tuple[list[bytes], list[Noise]]:
    splitter = FrameSplitter(limit)
    frames = [frame for chunk in chunks for frame in splitter.feed(chunk)]
    frames += splitter.finish()
    return frames, [noise for _, noise in splitter.refused]


def expected(stream: bytes, limit: int = LIMIT) -> tuple[list[bytes], list[int]]:
    """The same by the shortest way there is, with no thought for memory."""
    frames, refused = [], []
    for line in stream.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        frame = line.removesuffix(b"\r")
        if len(frame) > limit:
            refused.append(len(line))
        elif frame.strip(b" \t\r\x0b\x0c"):
            frames.append(frame)
    return frames, refused


# Short alphabets, so that line ends, marks and limits meet often.
streams = st.lists(
    st.sampled_from(
        [
            b"\n",
            b"\r\n",
            b"\r",
            b" ",
            b"{}",
            b'{"id":1}',
            b"\xef\xbb\xbf",
            b"\xef",
            b"\xff",
            b"x" * 23,
        ]
    ),
    max_size=30,
).map(b"".join)


@given(stream=streams, cuts=st.lists(st.integers(0, 400), max_size=8))
def test_frames_do_not_depend_on_the_chunking(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(places)]

    frames, refused = split(chunks)

    wanted_frames, wanted_sizes = expected(stream)
    assert frames == wanted_frames
    # A line's size may or may not count its carriage return: whether that one belongs to the line
    # end is known only where the line was short enough to be held.
    assert len(refused) == len(wanted_sizes)
    for noise, size in zip(refused, wanted_sizes, strict=True):
        assert noise.size in (size, size - 1)
        assert noise.limit == LIMIT


@pytest.mark.parametrize(
    "stream",
    [
        b'\xef\xbb\xbf{"a":1}\r\n\r\n \n{"b":"\xc3\xa9\xe2\x80\xa8"}\n{"c":3}',
        b"\n\n\xef\xbb\xbf{}\n",
        b"x" * 25 + b"\n{}\n" + b"y" * 24 + b"\r\n" + b"z" * 30,
        b"\xef\xbb\n{}\n\xef",
        b"\xff\xfe\x00\n",
    ],
)
def test_a_stream_can_be_cut_at_every_byte(stream: bytes) -> None:
    whole = split([stream])
    assert whole[0] == expected(stream)[0]
    assert split([stream[i : i + 1] for i in range(len(stream))])[0] == whole[0]
    for cut in range(len(stream) + 1):
        frames, refused = split([stream[:cut], stream[cut:]])
        assert frames == whole[0]
        assert len(refused) == len(whole[1])


def test_line_ends_of_both_kinds_end_a_frame() -> None:
    assert split([b'{"a":1}\r\n{"b":2}\n'])[0] == [b'{"a":1}', b'{"b":2}']


def test_a_carriage_return_in_the_previous_chunk_belongs_to_the_line_end() -> None:
    assert split([b"{}\n{}\r", b"\n{}\n"])[0] == [b"{}", b"{}", b"{}"]


def test_blank_lines_are_no_frames() -> None:
    assert split([b"\n\r\n  \t \n{}\n\n"])[0] == [b"{}"]


def test_a_byte_order_mark_is_dropped_before_the_first_line_only() -> None:
    mark = b"\xef\xbb\xbf"
    assert split([mark + b"{}\n" + mark + b"{}\n"])[0] == [b"{}", mark + b"{}"]


def test_the_bytes_of_a_frame_are_never_changed() -> None:
    frame = '{"text":"\u2028\u0085é🎈"}'.encode() + b"\xff\x00"
    assert split([frame + b"\n"], limit=100)[0] == [frame]


def test_the_last_line_counts_without_its_line_end() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b'{"a":1}\n{"b"') == [b'{"a":1}']
    assert splitter.held_bytes == 4
    assert splitter.finish() == [b'{"b"']
    assert splitter.finish() == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
def test_a_frame_of_exactly_the_limit_passes_and_one_byte_more_does_not(
    end: bytes, chunk_bytes: int
) -> None:
    for size, passes in ((LIMIT, True), (LIMIT + 1, False)):
        stream = b"x" * size + end
        chunks = [stream[i : i + chunk_bytes] for i in range(0, len(stream), chunk_bytes)]
        frames, refused = split([b"{}\n", *chunks])
        assert (len(frames) == 2, len(refused)) == (passes, 0 if passes else 1)


def test_a_refused_line_keeps_both_its_ends() -> None:
    line = b'{"id":7,' + b"x" * 5000 + b',"method":"m"}'
    for chunk_bytes in (1, 999, 10_000):
        stream = line + b"\n{}\n"
        chunks = [stream[i : i + chunk_bytes] for i in range(0, len(stream), chunk_bytes)]
        frames, [noise] = split(chunks, limit=2000)
        assert frames == [b"{}"]
        assert noise.size == len(line)
        assert noise.limit == 2000
        assert noise.head == line[:SAMPLE_BYTES]
        assert noise.tail == line[-SAMPLE_BYTES:]


def test_a_refused_line_tells_its_place_among_the_frames() -> None:
    splitter = FrameSplitter(4)
    assert splitter.feed(b"1\nlonger\n2\n3\nlonger\nlong") == [b"1", b"2", b"3"]
    assert [place for place, _ in splitter.refused] == [1, 3]
    assert splitter.feed(b"er\n4\n") == [b"4"]
    assert [place for place, _ in splitter.refused] == [1, 3, 0]


def test_a_refused_line_that_never_ends_is_reported_at_the_end() -> None:
    frames, [noise] = split([b"x" * 30, b"y" * 30])
    assert frames == []
    assert noise.size == 60


def test_a_line_over_the_limit_is_never_held() -> None:
    splitter = FrameSplitter(1_000_000)
    chunk = b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(3200):  # 200 MiB
            splitter.feed(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert splitter.held_bytes == 0
    # The limit, the growth of its buffer, and one chunk.
    assert peak < 2_500_000
    assert splitter.feed(b"\n{}\n") == [b"{}"]
    assert [noise.size for _, noise in splitter.refused] == [3200 * 65536]


@pytest.mark.parametrize("chunk_bytes", [65536, 100])
def test_a_large_frame_costs_about_twice_its_size(chunk_bytes: int) -> None:
    size = 10_000_000 if chunk_bytes > 1000 else 1_000_000
    chunk = b"x" * chunk_bytes
    splitter = FrameSplitter()
    tracemalloc.start()
    try:
        for _ in range(size // chunk_bytes):
            assert splitter.feed(chunk) == []
        [frame] = splitter.feed(b"\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(frame) == size // chunk_bytes * chunk_bytes
    assert peak < 2.4 * size


def test_the_work_is_linear_in_the_bytes() -> None:
    # Counted, not timed: how often bytes that are already held are looked at again.
    class Counting(bytes):
        searched = 0

        def split(self, *args: object) -> list[bytes]:
            Counting.searched += len(self)
            return bytes(self).split(b"\n")

    splitter = FrameSplitter()
    splitter.feed(b"\n")
    for _ in range(160):
        splitter.feed(Counting(b"x" * 65536))
    assert Counting.searched == 160 * 65536


def test_a_limit_must_leave_room_for_a_frame() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FrameSplitter(0)


@given(st.binary(max_size=60))
def test_one_line_is_one_line(frame: bytes) -> None:
    line = one_line(frame)
    assert b"\n" not in line
    assert b"\r" not in line
    assert len(line) == len(frame)
    assert line == bytes(0x20 if byte in (10, 13) else byte for byte in frame)
