"""`decode` against an independent reading, on values and on bytes that hypothesis makes up."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from dragoman.errors import BadMessage
from dragoman.jsonrpc.codec import decode, encode_value, failure, notification, request, success
from dragoman.jsonrpc.message import ErrorBody
from tests.jsonrpc.reference import Unreadable, read
from tests.jsonrpc.views import view_frame

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# names the envelope uses, and characters that matter to the quick checks
words = st.one_of(
    st.sampled_from(["id", "method", "params", "result", "error", "jsonrpc", "2.0", ":", "[", "]"]),
    st.text(st.sampled_from(':[]{}",\\ua0e3'), max_size=6),
    texts,
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    words,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(words, values, max_size=3)
ids = st.integers(-(2**53), 2**53) | texts


def members(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object in which each member may be missing or something else altogether."""
    return st.fixed_dictionaries({}, optional={key: one | values for key, one in fields.items()})


errors = members(code=st.integers(), message=texts, data=values)
# about half of these are messages
messages = st.one_of(
    st.builds(
        lambda version, rest: {**version, **rest},
        st.just({"jsonrpc": "2.0"}) | members(jsonrpc=st.just("2.0")),
        members(id=ids, method=texts, params=objects)
        | members(id=ids, result=objects)
        | members(id=ids, error=errors)
        | members(id=ids, method=texts, params=objects, result=objects, error=errors),
    ),
    values,
)
frames = messages | st.lists(messages, max_size=4)


def agree(frame: bytes) -> None:
    """Both readings give the same message, or both refuse for the same kind of reason."""
    try:
        expected: Any = read(frame)
    except Unreadable as fault:
        expected = fault.kind
    try:
        got: Any = view_frame(decode(frame))
    except BadMessage as fault:
        got = fault.kind
    # compared as text: 1, 1.0 and true are equal to Python but not to a peer
    assert json.dumps(got, sort_keys=True) == json.dumps(expected, sort_keys=True)


@given(value=frames, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_decode_agrees_with_the_reference_on_any_value(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    agree(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode())


@st.composite
def repeated(draw: st.DrawFn) -> bytes:
    """A message whose text repeats pairs, writes characters as escapes, or is cut or changed."""
    text = json.dumps(draw(frames), ensure_ascii=False)
    for _ in range(draw(st.integers(1, 3))):
        if not text:
            break
        at = draw(st.integers(0, len(text) - 1))
        how = draw(st.sampled_from(["escape", "pair", "delete", "insert", "double"]))
        if how == "escape" and ord(text[at]) < 0x10000:
            text = text[:at] + f"\\u{ord(text[at]):04x}" + text[at + 1 :]
        elif how == "pair":
            pair = draw(st.sampled_from(['"a":1,', '"id":1,', '"\\u0069d":2,', '"":0,']))
            brace = text.find("{", at)
            text = text[: brace + 1] + pair + text[brace + 1 :]
        elif how == "delete":
            text = text[:at] + text[at + 1 :]
        elif how == "insert":
            text = text[:at] + draw(st.sampled_from(list('{}[]":,\\ 0-e.tfn'))) + text[at:]
        else:
            length = draw(st.integers(1, 12))
            text = text[: at + length] + text[at:]
    return text.encode("utf-8", "replace")


@given(frame=repeated())
def test_decode_agrees_with_the_reference_on_damaged_text(frame: bytes) -> None:
    agree(frame)


@given(frame=st.binary(max_size=40))
@example(frame=b"-0")
# As many members as a message has, but another one in the place of "jsonrpc".
@example(frame=b'{"json":"2.0","id":1,"method":"m"}')
@example(frame=b'{"json":"2.0","id":1,"method":"m","params":{}}')
@example(frame=b'{"\xd2":"2.0","id":1,"result":{}}')
# A pair that was lost, and a colon that only its escape hides from a count.
@example(frame=b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1,"a":"\\u003a"}}')
@example(frame=b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":{"b":1,"b":2},"c":"\\u003A"}}')
@example(frame=b'{"jsonrpc":"2.0","id":"\\u003a","id":1,"method":"m","params":{"a":[{"b":1}]}}')
@example(frame=b'{"jsonrpc":"2.0","id":-0,"method":"m"}')
@example(frame=b'{"jsonrpc":"2.0","method":"m","params":{"a":-0.0,"b":1E5,"c":1e-400}}')
def test_decode_agrees_with_the_reference_on_any_bytes(frame: bytes) -> None:
    agree(frame)


@given(levels=st.lists(st.sampled_from(["[", '{"]":', '["[",', '{"a":{},"b":']), max_size=140))
def test_decode_agrees_with_the_reference_on_nesting(levels: list[str]) -> None:
    closers = "".join("]" if level[0] == "[" else "}" for level in reversed(levels))
    text = "".join(levels) + "0" + closers
    agree(('{"jsonrpc":"2.0","method":"m","params":{"x":' + text + "}}").encode())


@given(ident=ids, method=texts, params=objects)
def test_what_is_written_reads_back(ident: int | str, method: str, params: dict[str, Any]) -> None:
    raw = encode_value(params)
    assert view_frame(decode(request(ident, method, raw))) == {
        "kind": "request",
        "id": ident,
        "method": method,
        "params": params,
    }
    assert view_frame(decode(notification(method, raw))) == {
        "kind": "notification",
        "method": method,
        "params": params,
    }
    assert view_frame(decode(success(ident, raw))) == {
        "kind": "success",
        "id": ident,
        "result": params,
    }


@given(ident=ids | st.none(), code=st.integers(-(2**31), 2**31), message=texts, data=values)
def test_an_error_that_is_written_reads_back(
    ident: int | str | None, code: int, message: str, data: Any
) -> None:
    assert view_frame(decode(failure(ident, ErrorBody(code, message, data)))) == {
        "kind": "failure",
        "id": ident,
        "code": code,
        "message": message,
        "data": data,
    }
