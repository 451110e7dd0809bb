"""Feed the readers of headers and bodies anything: no accident, and nobody strange is let in.

Run: python fuzz/fuzz_http_rules.py [-max_total_time=60] [corpus directory]; needs atheris.
"""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports():
    from dragoman.transport.http.guard import LOOPBACK, Guard
    from dragoman.transport.streamable import rules


def test_one_input(data: bytes) -> None:
    """The whole input is each header and the body in turn."""
    rules.accepts(data, rules.JSON)
    rules.is_json(data)
    place = rules.split_event_id(data)
    if place is not None:
        assert data.decode().rpartition("-")[0] == place[0], data
        assert place[1] >= 0
    opens, asks = rules.is_initialize(data), rules.holds_request(data)
    if opens:
        assert json.loads(data)["method"] == "initialize", data
    if not asks:
        message = json.loads(data)
        for one in message if isinstance(message, list) else [message]:
            assert "id" not in one or not one.get("method"), data
    guard = Guard()
    if guard.allows_host(data):
        host = data.decode().lower()
        name, _, port = host.rpartition(":")
        assert host in LOOPBACK or (name in LOOPBACK and (not port or port.isdigit())), data
    if guard.allows_origin(data):
        assert data.lower().startswith((b"http://", b"https://")), data


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
