"""The event stream codec against the specification's text, split anywhere, and within bounds.

Source: WHATWG HTML, 9.2.5 and 9.2.6.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dragoman.transport.event_stream import (
    MAX_FIELD_BYTES,
    EventStreamDecoder,
    ServerEvent,
    encode_comment,
    encode_event,
)
from tests.transport.event_stream_reference import Reading

PLENTY = 1 << 20
# MAX_FIELD_BYTES, 16 for a prefix, and an id and a name of at most that size
OVERHEAD = MAX_FIELD_BYTES + 16


def fed(chunks: Iterable[bytes], limit: int = PLENTY) -> tuple[list[ServerEvent], Reading]:
    """The events of some chunks, and the decoder's other answers in the reference's form."""
    decoder = EventStreamDecoder(max_event_bytes=limit)
    events: list[ServerEvent] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
        assert decoder.held_bytes <= limit + OVERHEAD
    other = Reading(b"", limit)
    other.events = events
    other.refused = [(one.size, one.head, one.tail) for _, one in decoder.refused]
    other.last_event_id = decoder.last_event_id
    other.retry_ms = decoder.retry_ms
    assert all(one.limit == limit for _, one in decoder.refused)
    return events, other


def events_of(stream: bytes, limit: int = PLENTY) -> list[ServerEvent]:
    return fed([stream], limit)[0]


def agree(chunks: list[bytes], limit: int = PLENTY) -> None:
    _, got = fed(chunks, limit)
    assert vars(got) == vars(Reading(b"".join(chunks), limit))


# Pieces from which every rule can be reached, and text that means nothing.
PIECES = st.sampled_from(
    [
        *[b"data", b"data:", b"data: ", b"event: ", b"id:", b"id: ", b"retry: ", b":", b" "],
        *[b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"\0", b"7", b"x", b"\xff", b"0"],
        *[b"data: {}\n\n", b"id: 1\n", b"retry: 20\n", b"data\n", b"dat", b"a:", b"Data: no\n"],
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=4), max_size=40).map(b"".join)


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    chunks, start = [], 0
    for place in sorted({place % (len(stream) + 1) for place in places}):
        chunks.append(stream[start:place])
        start = place
    return [*chunks, stream[start:]]


@given(STREAMS, st.lists(st.integers(0, 1 << 16), max_size=8), st.integers(1, 12) | st.just(PLENTY))
@example(b"\xef\xbb\xbfdata: 1\n\n", [1, 2], PLENTY)
@example(b"data: 123456\ndata: 7\n\ndata: 8\n\n", [5, 6, 7, 8, 9], 4)
def test_a_stream_in_any_chunks_means_what_the_specification_says(
    stream: bytes, places: list[int], limit: int
) -> None:
    agree(cut(stream, places), limit)


@pytest.mark.parametrize("limit", [1, 3, 5, 11, PLENTY])
def test_a_stream_can_be_split_at_every_byte(limit: int) -> None:
    stream = (
        b"\xef\xbb\xbf: hello\r\n\r\nid: a1\revent: ping\rdata: one\r\rretry: 15\ndata:two\n"
        b"data: three\r\n\r\nid\ndata\n\n: gone\ndata: \xc3\xa9\n\nid: \0\nunknown: x\ndata:  4\n\n"
        b"data: cut off"
    )
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1, 7):
            agree([stream[:first], stream[first:second], stream[second:]], limit)
    agree([stream[place : place + 1] for place in range(len(stream))], limit)
    agree([stream], limit)


def test_the_examples_of_the_specification_mean_what_it_says() -> None:
    stocks = b"data: YHOO\ndata: +2\ndata: 10\n\n"
    assert events_of(stocks) == [ServerEvent("message", b"YHOO\n+2\n10", None, None)]
    four = (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event"
    )
    assert events_of(four) == [
        ServerEvent("message", b"first event", "1", None),
        ServerEvent("message", b"second event", None, None),
    ]
    assert events_of(four + b"\n\n")[2].data == b" third event"
    empty = b"data\n\ndata\ndata\n\ndata:"
    assert [one.data for one in events_of(empty)] == [b"", b"\n"]
    same = b"data:test\n\ndata: test\n\n"
    assert [one.data for one in events_of(same)] == [b"test", b"test"]


def test_a_priming_event_is_an_event_without_data() -> None:
    primed = events_of(b"id: s-0\nretry: 500\ndata:\n\n")
    assert primed == [ServerEvent("message", b"", "s-0", 500)]


def test_an_event_without_a_data_field_is_none_but_its_id_counts() -> None:
    events, state = fed([b"id: 9\nevent: x\nretry: 3\n\ndata: a\n\n"])
    assert events == [ServerEvent("message", b"a", "9", None)]
    assert (state.last_event_id, state.retry_ms) == ("9", 3)


def test_an_id_counts_only_when_its_event_is_complete() -> None:
    assert fed([b"id: 1\ndata: a\n\nid: 2\ndata: b\n"])[1].last_event_id == "1"


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"1e3", b" 7", b"\xd9\xa3", b"7s", b"+7"])
def test_a_retry_that_is_not_all_digits_is_passed_over(value: bytes) -> None:
    # one space after the colon belongs to the field, a second one to the value
    assert fed([b"retry: " + value + b"\n\n"])[1].retry_ms is None


def test_a_retry_of_thousands_of_digits_is_a_long_time_and_no_work() -> None:
    assert fed([b"retry: " + b"9" * 8000 + b"\n\n"])[1].retry_ms == 99_999_999_999
    assert fed([b"retry: " + b"0" * 8000 + b"7\n\n"])[1].retry_ms == 7


def test_an_event_is_there_as_soon_as_its_line_end_is() -> None:
    decoder = EventStreamDecoder(max_event_bytes=PLENTY)
    assert decoder.feed(b"data: a\r\n\r") == [ServerEvent("message", b"a", None, None)]
    assert decoder.feed(b"\ndata: b\r\r") == [ServerEvent("message", b"b", None, None)]


def test_a_byte_order_mark_counts_only_at_the_start() -> None:
    mark = b"\xef\xbb\xbf"
    assert [one.data for one in events_of(mark + b"data: a\n\n" + mark + b"data: b\n\n")] == [b"a"]


# --- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [b"data: 12345678\n\n", b"data:1234\ndata: 678\n\n"])
def test_data_of_exactly_the_limit_passes_and_one_byte_more_does_not(stream: bytes) -> None:
    assert [len(one.data) for one in events_of(stream, 8)] == [8]
    events, state = fed([stream], 7)
    assert events == []
    assert [size for size, _, _ in state.refused] == [8]


def test_a_refused_event_is_gone_and_the_stream_goes_on() -> None:
    body = b'{"id":77,' + b"x" * 5000 + b',"z":1}'
    stream = b"id: 1\ndata: " + body + b"\nid: 2\n\ndata: after\n\n"
    for size in (1, 10, 1000, len(stream)):
        chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
        events, state = fed(chunks, 1000)
        assert events == [ServerEvent("message", b"after", "2", None)]
        assert state.refused == [(len(body), body[:1024], body[-1024:])]


def test_the_place_of_a_refused_event_among_the_others_is_told() -> None:
    decoder = EventStreamDecoder(max_event_bytes=4)
    events = decoder.feed(b"data: a\n\ndata: 12345\n\ndata: b\n\n")
    assert [one.data for one in events] == [b"a", b"b"]
    assert [place for place, _ in decoder.refused] == [1]


def test_nothing_over_the_limit_is_held_however_it_comes() -> None:
    limit = 10_000
    for stream in (
        b"data: " + b"x" * 100_000,
        b"data: x\n" * 30_000,
        b"data\n" * 30_000,
        b":" + b"x" * 100_000,
        b"what: " + b"x" * 100_000,
        b"id: " + b"x" * 100_000,
        b"dat" + b"a" * 100_000,
    ):
        for size in (1000, 1):
            fed([stream[start : start + size] for start in range(0, len(stream), size)], limit)


def test_a_comment_without_end_costs_nothing() -> None:
    decoder = EventStreamDecoder(max_event_bytes=10)
    for _ in range(1000):
        assert decoder.feed(b": still here " * 10) == []
        assert decoder.held_bytes == 0
    assert decoder.feed(b"\ndata: 1\n\n")[0].data == b"1"


@pytest.mark.parametrize("size", [1, 100, 65_536, 10_000_100])
def test_an_event_of_ten_megabytes_comes_whole_in_any_chunks(size: int) -> None:
    data = b"0123456789" * (1_000_000 if size > 1 else 100_000)
    stream = b"event: big\ndata: " + data + b"\n\n"
    chunks = (stream[start : start + size] for start in range(0, len(stream), size))
    events, _ = fed(chunks, len(data))
    assert events == [ServerEvent("big", data, None, None)]


def test_the_work_grows_as_the_bytes_do() -> None:
    """Steps of the interpreter, counted: twice the bytes are about twice the steps."""

    def steps(size: int) -> int:
        decoder = EventStreamDecoder(max_event_bytes=PLENTY)
        stream = (b"data: " + b"x" * 50 + b"\n") * size + b"\n"
        count = 0

        def count_line(frame: object, event: str, argument: object) -> object:
            nonlocal count
            count += event == "line"
            return count_line

        before = sys.gettrace()
        sys.settrace(count_line)  # type: ignore[arg-type]
        try:
            for start in range(0, len(stream), 7):
                decoder.feed(stream[start : start + 7])
        finally:
            sys.settrace(before)
        return count

    assert steps(200) < 2.2 * steps(100)


def test_the_limit_is_at_least_one_byte() -> None:
    with pytest.raises(ValueError, match="max_event_bytes"):
        EventStreamDecoder(max_event_bytes=0)


# --- writing ----------------------------------------------------------------------------------

LINE = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=20)


@given(
    st.binary(max_size=60) | st.lists(PIECES, max_size=6).map(b"".join),
    st.none() | LINE.filter(bool),
    st.none() | LINE,
    st.none() | st.integers(0, 10**9),
)
def test_what_is_written_is_read_again(
    data: bytes, name: str | None, ident: str | None, retry_ms: int | None
) -> None:
    written = encode_event(data, event=name, id=ident, retry_ms=retry_ms)
    whole = re.sub(rb"\r\n|\r", b"\n", data)
    assert events_of(encode_comment("x\ny") + written) == [
        ServerEvent(name or "message", whole, ident or None, retry_ms)
    ]


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_a_name_or_an_id_that_would_break_the_stream_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        encode_event(b"", event=text)
    with pytest.raises(ValueError, match="cannot hold"):
        encode_event(b"", id=text)


def test_a_reconnection_time_is_not_negative() -> None:
    with pytest.raises(ValueError, match="-1 ms"):
        encode_event(b"", retry_ms=-1)


@given(st.text(max_size=20))
def test_a_comment_is_no_event_whatever_it_says(text: str) -> None:
    try:
        written = encode_comment(text)
    except UnicodeEncodeError:
        return
    assert events_of(written + b"data: 1\n\n") == [ServerEvent("message", b"1", None, None)]
