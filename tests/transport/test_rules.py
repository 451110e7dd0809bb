"""What the headers and the head of a body decide, as a table."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.transport.streamable.rules import (
    JSON,
    SSE,
    accepts,
    holds_request,
    is_initialize,
    is_json,
    refusal,
    split_event_id,
)


@pytest.mark.parametrize(
    ("header", "json_too", "stream_too"),
    [
        (None, True, True),
        (b"application/json, text/event-stream", True, True),
        (b"text/event-stream,application/json", True, True),
        (b"*/*", True, True),
        (b"application/*, text/*", True, True),
        (b"application/json", True, False),
        (b"text/event-stream", False, True),
        (b"text/html", False, False),
        (b"", False, False),
        (b"APPLICATION/JSON, Text/Event-Stream;q=0.5", True, True),
        (b"application/json;q=0, text/event-stream", False, True),
        (b"application/json;q=0.0, text/event-stream;q=0.000", False, False),
        (b"application/json; q=0.1", True, False),
        (b"*/*;q=0", False, False),
    ],
)
def test_accept_lists_what_may_be_answered(
    header: bytes | None, json_too: bool, stream_too: bool
) -> None:
    assert accepts(header, JSON) is json_too
    assert accepts(header, SSE) is stream_too


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b" application/json ;x", True),
        (b"text/plain", False),
        (b"application/json-patch+json", False),
        (b"", False),
        (None, False),
    ],
)
def test_a_body_is_json_when_its_type_says_so(header: bytes | None, expected: bool) -> None:
    assert is_json(header) is expected


@pytest.mark.parametrize(
    ("message", "opens", "asks"),
    [
        ({"jsonrpc": "2.0", "id": 1, "method": "initialize"}, True, True),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, False, True),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, False, True),
        ({"jsonrpc": "2.0", "method": "notifications/cancelled"}, False, False),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, False, False),
        ({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": ""}}, False, False),
        ([{"id": 1, "result": {}}, {"method": "x"}], False, False),
        ([{"id": 1, "result": {}}, {"id": 2, "method": "x"}], False, True),
        ([], False, False),
        (7, False, True),
        ({"method": 7}, False, True),
    ],
)
def test_the_head_of_a_body_says_whether_it_opens_a_session_or_asks(
    message: Any, opens: bool, asks: bool
) -> None:
    body = json.dumps(message).encode()
    assert is_initialize(body) is opens
    assert holds_request(body) is asks


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_at_without_an_accident(body: bytes) -> None:
    is_initialize(body)
    holds_request(body)
    accepts(body, JSON)
    is_json(body)
    place = split_event_id(body)
    assert place is None or f"{place[0]}-{place[1]}".encode().lstrip(b"0") is not None


@pytest.mark.parametrize(
    ("header", "place"),
    [
        (b"a1-0", ("a1", 0)),
        (b"9f0c-17", ("9f0c", 17)),
        (b"a1-007", ("a1", 7)),
        (b"a1", None),
        (b"-1", None),
        (b"a1-", None),
        (b"a1--1", None),
        (b"a b-1", None),
        (b"a1-1x", None),
        ("\u00b2-1".encode("latin-1"), None),
        (b"a1-" + b"9" * 64, None),
    ],
)
def test_an_event_id_names_a_stream_and_a_number(
    header: bytes, place: tuple[str, int] | None
) -> None:
    assert split_event_id(header) == place


def test_a_refusal_is_an_error_without_a_request() -> None:
    assert json.loads(refusal(-32600, "no", {"a": 1})) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32600, "message": "no", "data": {"a": 1}},
    }
