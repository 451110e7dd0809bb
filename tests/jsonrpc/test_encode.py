"""Writing messages."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dragoman.jsonrpc import codes
from dragoman.jsonrpc.codec import (
    decode,
    encode_value,
    failure,
    notification,
    request,
    success,
)
from dragoman.jsonrpc.message import ABSENT, ErrorBody, Failure, Notification, Request, Success


@pytest.mark.parametrize("ident", [0, -5, 2**53, "", 'a"b\\', "é🙂"])
@pytest.mark.parametrize("method", ["tools/call", 'with "quotes" and \\', "é\n"])
def test_a_request_reads_back_as_it_was_written(ident: int | str, method: str) -> None:
    assert decode(request(ident, method, b'{"a":1}')) == Request(
        ident, method, msgspec.Raw(b'{"a":1}')
    )
    assert decode(request(ident, method, b"")) == Request(ident, method, ABSENT)


@pytest.mark.parametrize("method", ["notifications/initialized", '"'])
def test_a_notification_reads_back_as_it_was_written(method: str) -> None:
    assert decode(notification(method, b"{}")) == Notification(method, msgspec.Raw(b"{}"))
    assert decode(notification(method, b"")) == Notification(method, ABSENT)


def test_a_result_reads_back_as_it_was_written() -> None:
    assert decode(success("x", b'{"y":[]}')) == Success("x", msgspec.Raw(b'{"y":[]}'))


@pytest.mark.parametrize("data", [None, 1, "x", {"a": [True, None]}])
def test_an_error_reads_back_as_it_was_written(data: Any) -> None:
    error = ErrorBody(codes.INVALID_PARAMS, "wrong: é", data)
    assert decode(failure(3, error)) == Failure(3, error)


def test_an_error_to_nobody_has_a_null_id_or_none_at_all() -> None:
    error = ErrorBody(codes.PARSE_ERROR, "what?")
    assert json.loads(failure(None, error))["id"] is None
    assert "id" not in json.loads(failure(None, error, null_id=False))
    assert json.loads(failure(4, error, null_id=False))["id"] == 4


@pytest.mark.parametrize("data", [object(), "\ud800", {1, object()}, {"deep": ["\udfff"]}])
def test_an_error_arrives_even_when_its_data_cannot(data: Any) -> None:
    got = decode(failure(1, ErrorBody(-1, "no", data)))
    assert got == Failure(1, ErrorBody(-1, "no"))


def test_an_error_arrives_even_when_its_text_holds_half_a_character() -> None:
    got = decode(failure(1, ErrorBody(-1, "a\ud800b")))
    assert got == Failure(1, ErrorBody(-1, "a?b"))


def test_frames_hold_no_line_end_whatever_they_carry() -> None:
    value = encode_value({"text": "a\nb\r\n\u2028\x85", "k\n": 1})
    for written in (
        value,
        request("a\n", "m\n", value),
        failure(1, ErrorBody(1, "a\nb", "c\r")),
    ):
        assert b"\n" not in written
        assert b"\r" not in written


def test_text_travels_as_utf8_and_not_as_escapes() -> None:
    assert encode_value("é🙂") == '"é🙂"'.encode()


@pytest.mark.parametrize(
    "value", ["\ud800", {"\udc00": 1}, [{"a": "x\udfff"}], object(), {1: object()}]
)
def test_what_json_cannot_hold_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        encode_value(value)


def test_a_value_that_holds_itself_is_a_value_error() -> None:
    knot: list[Any] = []
    knot.append(knot)
    with pytest.raises(ValueError, match="itself"):
        encode_value(knot)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_float_that_is_no_number_becomes_null(value: float) -> None:
    assert encode_value({"x": value}) == b'{"x":null}'


def test_reserved_numbers_are_those_of_the_specification() -> None:
    assert (codes.PARSE_ERROR, codes.INVALID_REQUEST) == (-32700, -32600)
    assert (codes.METHOD_NOT_FOUND, codes.INVALID_PARAMS, codes.INTERNAL_ERROR) == (
        -32601,
        -32602,
        -32603,
    )
    assert -32000 in codes.SERVER_RANGE
    assert -32099 in codes.SERVER_RANGE
    assert codes.INTERNAL_ERROR not in codes.SERVER_RANGE
    assert -31999 not in codes.SERVER_RANGE
