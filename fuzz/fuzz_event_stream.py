"""Feed the event stream decoder anything, in any chunks, and compare it with the plain reading.

Run: python fuzz/fuzz_event_stream.py [-max_total_time=60] [corpus directory]; needs atheris.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with atheris.instrument_imports(include=["dragoman.transport", "tests.transport"]):
    from dragoman.transport.event_stream import (
        MAX_FIELD_BYTES,
        EventStreamDecoder,
        ServerEvent,
        encode_event,
    )
    from tests.transport.event_stream_reference import Reading

SEEDS = [
    b"\x40\x07\xef\xbb\xbf: hi\r\n\r\nid: 1\rdata: {}\r\rretry: 10\ndata:a\ndata: b\n\n",
    b"\x03\x01data: 12345\ndata\n\nid: \x00\nevent: x\ndata: 1\n\nid\ndata\n\n",
]


def test_one_input(data: bytes) -> None:
    """The first two bytes choose the limit and the chunks; the rest is the stream."""
    if len(data) < 2:
        return
    limit, seed, stream = data[0] + 1, data[1], data[2:]
    decoder = EventStreamDecoder(max_event_bytes=limit)
    events: list[ServerEvent] = []
    start = 0
    while start < len(stream):
        seed = (seed * 61 + 17) % 251
        end = start + 1 + seed % 40
        events += decoder.feed(stream[start:end])
        assert decoder.held_bytes <= limit + MAX_FIELD_BYTES + 16
        start = end
    wanted = Reading(stream, limit)
    assert events == wanted.events, (stream, limit, events, wanted.events)
    refused = [(one.size, one.head, one.tail) for _, one in decoder.refused]
    assert refused == wanted.refused, (stream, limit)
    assert decoder.last_event_id == wanted.last_event_id, stream
    assert decoder.retry_ms == wanted.retry_ms, stream
    for event in events:
        if "\0" not in event.event and "\r" not in event.event:
            written = encode_event(
                event.data, event=event.event, id=event.id, retry_ms=event.retry_ms
            )
            (again,) = EventStreamDecoder(max_event_bytes=limit).feed(written)
            assert again == event


def main() -> None:
    """Check the seeds, then hand over to the fuzzer."""
    for seed in SEEDS:
        test_one_input(seed)
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
