"""The text of the WHATWG specification as code, with no thought for chunks, memory or speed."""

from __future__ import annotations

import re

from dragoman.transport.event_stream import MAX_FIELD_BYTES, ServerEvent


class Reading:
    """What a whole stream means."""

    def __init__(self, stream: bytes, limit: int) -> None:
        self.events: list[ServerEvent] = []
        #: size, first KiB and last KiB of each event over the limit
        self.refused: list[tuple[int, bytes, bytes]] = []
        self.last_event_id = ""
        self.retry_ms: int | None = None

        id_buffer = name = ""
        data: bytes | None = None
        retry: int | None = None
        lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
        for line in lines[:-1]:
            if not line:
                self.last_event_id = id_buffer
                if data is not None:
                    whole = data.removesuffix(b"\n")
                    if len(whole) > limit:
                        self.refused.append((len(whole), whole[:1024], whole[-1024:]))
                    else:
                        event = ServerEvent(name or "message", whole, id_buffer or None, retry)
                        self.events.append(event)
                data, name, retry = None, "", None
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data = (data or b"") + value + b"\n"
            elif len(line) > MAX_FIELD_BYTES:
                continue
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"id" and b"\0" not in value:
                id_buffer = value.decode("utf-8", "replace")
            elif field == b"retry" and re.fullmatch(rb"[0-9]+", value):
                self.retry_ms = retry = min(int(value), 99_999_999_999)
