"""Reading one frame: the four kinds of message, and every way a frame can be refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from dragoman.errors import BadMessage, PeerError
from dragoman.jsonrpc.codec import MAX_CONTAINERS, MAX_DEPTH, decode
from dragoman.jsonrpc.message import ABSENT, ErrorBody, Failure, Notification, Request, Success


def frame(**members: Any) -> bytes:
    """A frame with the member `jsonrpc` and these."""
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def call(params: str) -> bytes:
    """A request whose params are this text."""
    return ('{"jsonrpc":"2.0","id":7,"method":"m","params":' + params + "}").encode()


def refused(data: bytes) -> BadMessage:
    """The refusal of a frame."""
    with pytest.raises(BadMessage) as caught:
        decode(data)
    return caught.value


# --- the four kinds -----------------------------------------------------------------------------


def test_a_request_has_an_id_a_method_and_undecoded_params() -> None:
    got = decode(frame(id=1, method="tools/call", params={"name": "x"}))
    assert got == Request(1, "tools/call", msgspec.Raw(b'{"name": "x"}'))


def test_params_may_be_missing() -> None:
    got = decode(frame(id="a", method="ping"))
    assert isinstance(got, Request)
    assert got.params is ABSENT


def test_a_message_with_a_method_and_no_id_is_a_notification() -> None:
    assert decode(frame(method="n", params={})) == Notification("n", msgspec.Raw(b"{}"))
    assert decode(frame(method="n")) == Notification("n", ABSENT)


def test_a_result_answers_its_id() -> None:
    assert decode(frame(id="x", result={})) == Success("x", msgspec.Raw(b"{}"))


def test_an_error_answers_its_id_and_keeps_its_data() -> None:
    got = decode(frame(id=3, error={"code": -32601, "message": "no", "data": [1, None]}))
    assert got == Failure(3, ErrorBody(-32601, "no", [1, None]))


@pytest.mark.parametrize("members", [{"id": None}, {}])
def test_an_error_may_answer_nobody(members: dict[str, Any]) -> None:
    got = decode(frame(**members, error={"code": -32700, "message": "what?"}))
    assert got == Failure(None, ErrorBody(-32700, "what?"))


def test_unknown_members_of_an_envelope_are_left_aside() -> None:
    assert decode(frame(id=1, method="m", extra={"a": 1})) == Request(1, "m", ABSENT)


def test_an_integer_id_and_its_text_are_two_ids() -> None:
    number, text = decode(frame(id=55, method="m")), decode(frame(id="55", method="m"))
    assert isinstance(number, Request)
    assert isinstance(text, Request)
    assert (number.id, text.id) == (55, "55")


@pytest.mark.parametrize(
    "ident", [0, -1, 2**53, -(2**53), "", "a" * 256, "🙂" * 256, 'é\n"\\', "🙂"]
)
def test_ids_are_strings_and_exact_integers(ident: int | str) -> None:
    got = decode(frame(id=ident, method="m"))
    assert isinstance(got, Request)
    assert got.id == ident
    assert type(got.id) is type(ident)


def test_white_space_around_and_inside_a_frame_is_nothing() -> None:
    assert decode(b' \t\r\n{ "jsonrpc" :\n"2.0",\t"method"\r:"n" } \n') == Notification("n", ABSENT)


# --- not JSON -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"   \n",
        b"hello",
        b"{",
        b'{"jsonrpc":"2.0","method":"n"',
        b'{"jsonrpc":"2.0","method":"n"}}',
        b'{"jsonrpc":"2.0","method":"n"} {}',
        b"{'jsonrpc':'2.0'}",
        b'{"jsonrpc":"2.0","method":"n",}',
        b'{"jsonrpc":"2.0","method":"n" /* no */}',
        b'{"jsonrpc":"2.0","method":"a\x00b"}',
        b'{"jsonrpc":"2.0","method":"a\nb"}',
        b'{"jsonrpc":"2.0","method":"\\x"}',
        b'\xef\xbb\xbf{"jsonrpc":"2.0","method":"n"}',
        '{"jsonrpc":"2.0","method":"n"}'.encode("utf-16"),
        b"\x00",
    ],
)
def test_what_is_not_json_is_a_parse_fault(data: bytes) -> None:
    fault = refused(data)
    assert fault.kind == "parse"
    assert fault.id is None
    assert isinstance(fault, PeerError)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "nan", "1e400", "-1e400"])
def test_numbers_that_are_none_are_refused(number: str) -> None:
    assert refused(call('{"x":' + number + "}")).kind == "parse"


@pytest.mark.parametrize("number", ["01", "+1", ".5", "1.", "0x1", "1_000", "--1", "1e"])
def test_numbers_are_spelled_as_json_spells_them(number: str) -> None:
    assert refused(call('{"x":' + number + "}")).kind == "parse"


def test_an_integer_too_long_to_read_is_refused_in_words() -> None:
    assert refused(call('{"x":' + "9" * 5000 + "}")).kind == "parse"


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 40, str(2**64), "1e308", "5e-324"])
def test_large_numbers_that_python_holds_are_read(number: str) -> None:
    assert isinstance(decode(call('{"x":' + number + "}")), Request)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"\xc3",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
    ],
)
@pytest.mark.parametrize("place", ['{"%s":1}', '{"k":"%s"}', '{"k":{"d":["%s"]}}'])
def test_what_is_not_utf8_is_refused_and_says_where(text: bytes, place: str) -> None:
    before, after = call(place).split(b"%s")
    fault = refused(before + text + after)
    assert fault.kind == "parse"
    assert f"byte {len(before)}" in fault.reason


@pytest.mark.parametrize(
    "half", [r"\ud800", r"\udbff", r"\udc00", r"\udfff", r"\ud83dx", r"\ude00\ud83d"]
)
@pytest.mark.parametrize("place", ['{"k":"%s"}', '{"%s":1}', '{"k":[{"d":"a%sb"}]}'])
def test_half_of_a_surrogate_pair_is_refused(half: str, place: str) -> None:
    fault = refused(call(place % half))
    assert fault.kind == "parse"
    assert "surrogate" in fault.reason


def test_a_whole_surrogate_pair_is_one_character() -> None:
    got = decode(rb'{"jsonrpc":"2.0","method":"\ud83d\ude42"}')
    assert got == Notification("🙂", ABSENT)


def test_a_refusal_carries_the_start_of_the_frame_and_no_more() -> None:
    fault = refused(b"x" * 5000)
    assert fault.sample == b"x" * 256


# --- duplicate keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "ident"),
    [
        (rb'{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}', None),
        (rb'{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"m"}', None),
        (rb'{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"m"}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","method":"m"}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","m\u0065thod":"n"}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","params":{},"params":{}}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1,"a":1}}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":[{"":1,"":2}]}}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":{"b":{"c":0,"c":0}}}}', 1),
        # the second pair's colon is balanced by one that only decoding brings forth
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1,"a":1,"b":"\u003a"}}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1,"a":1,"b":"\u003A"}}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","params":{"\u003a":1,":":2}}', 1),
        (rb'{"jsonrpc":"2.0","id":1,"method":"m","params":{"a:b":1,"a:b":2}}', 1),
        (rb'{"jsonrpc":"2.0","id":"s","result":{"a":":::","a":"\\"}}', "s"),
    ],
)
def test_a_key_that_appears_twice_is_refused_wherever_it_stands(
    data: bytes, ident: int | str | None
) -> None:
    fault = refused(data)
    assert fault.kind == "parse"
    assert "twice" in fault.reason
    assert fault.id == ident


@pytest.mark.parametrize(
    "params",
    [
        '{"a":"x:y::","b":{"a":1}}',
        '{"a:":1,":a":2}',
        r'{"a":"\u003a","b":"\u003A"}',
        r'{"a":"\\u003a"}',
        r'{"a":"\"a\":1","b":"{\"a\":1,\"a\":2}"}',
        '{"a":[{"a":1},{"a":1}]}',
        '{"A":1,"a":2}',
        # two spellings of one sight, but two keys
        '{"é":1,"e\u0301":2}',
    ],
)
def test_colons_and_quotes_inside_strings_are_no_duplicates(params: str) -> None:
    assert isinstance(decode(call(params)), Request)


# --- depth --------------------------------------------------------------------------------------

NESTS = {
    "arrays": ("[", "]", ""),
    "objects": ('{"a":', "}", "0"),
    "both": ('[{"a":', "}]", "0"),
    "closers in strings": ('["]",', "]", "0"),
    "closers in keys": ('{"]}":0,"b":', "}", "0"),
    "an escaped quote": (r'["\"]",', "]", "0"),
    "an escaped backslash": (r'["\\",', "]", "0"),
    "both balanced in strings": ('["]",', ',"["]', "0"),
    "white space": ("[ \n", " ]", "1"),
}


def nested(kind: str, levels: int) -> bytes:
    """A request that is `levels` deep: two of its own, the rest of this kind."""
    opener, closer, core = NESTS[kind]
    step = 2 if kind == "both" else 1
    inner = opener * ((levels - 2) // step) + core + closer * ((levels - 2) // step)
    return call('{"x":' + inner + "}")


@pytest.mark.parametrize("kind", NESTS)
@pytest.mark.parametrize("padding", [0, 300_000], ids=["small", "large"])
def test_nesting_is_allowed_to_the_limit_and_not_a_level_more(kind: str, padding: int) -> None:
    pad = b" " * padding
    assert isinstance(decode(nested(kind, MAX_DEPTH) + pad), Request)
    beyond = MAX_DEPTH + (2 if kind == "both" else 1)
    fault = refused(nested(kind, beyond) + pad)
    assert fault.kind == "parse"
    assert str(MAX_DEPTH) in fault.reason
    assert fault.id == 7


@pytest.mark.parametrize("kind", NESTS)
@pytest.mark.parametrize("levels", [500, 900, 1_000, 100_000])
def test_a_depth_bomb_is_a_refusal_and_never_a_crash(kind: str, levels: int) -> None:
    assert refused(nested(kind, levels)).kind == "parse"


def test_a_frame_as_deep_as_the_interpreter_allows_is_a_refusal() -> None:
    # somewhere in here each of the parsers on the way gives up, one after the other
    for levels in range(850, 1_010):
        assert refused(nested("arrays", levels)).kind == "parse"
        assert refused(nested("objects", levels)).kind == "parse"


@pytest.mark.parametrize("levels", [200, 950, 990, 1_000, 100_000])
def test_a_depth_bomb_that_is_not_json_either_is_a_refusal(levels: int) -> None:
    assert refused(b"[" * levels).kind == "parse"
    assert refused(call('{"x":' + "[" * levels + "1e400" + "]" * levels + "}")).kind == "parse"


def test_many_shallow_brackets_are_not_deep() -> None:
    assert isinstance(decode(call('{"x":[' + "[]," * 5000 + "{}]}")), Request)
    assert isinstance(decode(call('{"x":"' + "[{" * 5000 + '"}')), Request)


def test_a_frame_of_more_containers_than_are_held_is_refused_with_its_id() -> None:
    inside = "[]," * MAX_CONTAINERS
    fault = refused(call('{"x":[' + inside + "0]}"))
    assert (fault.kind, fault.id, fault.is_answer) == ("parse", 7, False)
    assert str(MAX_CONTAINERS) in fault.reason
    fault = refused(('{"jsonrpc":"2.0","id":9,"result":{"x":[' + inside + "0]}}").encode())
    assert (fault.kind, fault.id, fault.is_answer) == ("parse", 9, True)


def test_brackets_in_a_long_text_are_no_containers() -> None:
    text = "[{" * MAX_CONTAINERS
    assert isinstance(decode(call('{"x":"' + text + '"}')), Request)


# --- JSON, but no message -----------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"1", b'"x"', b"null", b"true", b"1.5", b"-0"])
def test_a_frame_that_is_no_object_is_invalid(data: bytes) -> None:
    fault = refused(data)
    assert fault.kind == "invalid"
    assert fault.id is None


@pytest.mark.parametrize("version", ["absent", "1.0", 2.0, 2, None, "2", ["2.0"]])
def test_the_member_jsonrpc_must_be_there_and_right(version: Any) -> None:
    members = {} if version == "absent" else {"jsonrpc": version}
    fault = refused(json.dumps({**members, "id": 4, "method": "m"}).encode())
    assert fault.kind == "invalid"
    assert fault.id == 4


@pytest.mark.parametrize(
    "ident",
    [
        "null",
        "true",
        "false",
        "1.0",
        "1.5",
        "1e0",
        "[]",
        "{}",
        "[1]",
        str(2**53 + 1),
        "-" + "9" * 30,
        '"' + "a" * 257 + '"',
    ],
)
@pytest.mark.parametrize("rest", ['"method":"m"', '"result":{}'])
def test_an_id_that_is_neither_string_nor_exact_integer_is_invalid(ident: str, rest: str) -> None:
    fault = refused(('{"jsonrpc":"2.0","id":' + ident + "," + rest + "}").encode())
    assert fault.kind == "invalid"
    assert fault.id is None


@pytest.mark.parametrize(
    "ident", ["true", "1.5", "[]", "{}", str(2**53 + 1), '"' + "a" * 257 + '"']
)
def test_an_error_answers_null_or_a_proper_id(ident: str) -> None:
    text = '{"jsonrpc":"2.0","id":' + ident + ',"error":{"code":1,"message":"m"}}'
    assert refused(text.encode()).kind == "invalid"


@pytest.mark.parametrize("method", [None, 1, True, ["m"], {"m": 1}])
def test_a_method_is_a_string(method: Any) -> None:
    fault = refused(frame(id=9, method=method))
    assert fault.kind == "invalid"
    assert fault.id == 9


@pytest.mark.parametrize("params", [None, 1, "x", True, [], [1]])
@pytest.mark.parametrize("members", [{"id": 9}, {}])
def test_params_are_an_object(params: Any, members: dict[str, Any]) -> None:
    fault = refused(frame(**members, method="m", params=params))
    assert fault.kind == "invalid"
    assert fault.id == members.get("id")


@pytest.mark.parametrize(
    "members",
    [
        {"result": {}, "error": {"code": 1, "message": "m"}},
        {"method": "m", "result": {}},
        {"method": "m", "error": {"code": 1, "message": "m"}},
        {"method": "m", "params": {}, "result": {}, "error": {}},
        {"result": None, "error": None},
        {},
        {"params": {}},
    ],
)
def test_a_message_is_exactly_one_thing(members: dict[str, Any]) -> None:
    fault = refused(frame(id=5, **members))
    assert fault.kind == "invalid"
    assert fault.id == 5


def test_a_result_needs_an_id() -> None:
    assert refused(frame(result={})).kind == "invalid"


@pytest.mark.parametrize("result", [None, 1, "x", [], True])
def test_a_result_is_an_object(result: Any) -> None:
    fault = refused(frame(id=5, result=result))
    assert fault.kind == "invalid"
    assert fault.id == 5


@pytest.mark.parametrize(
    "error",
    [
        None,
        {},
        "broken",
        [],
        {"code": 1},
        {"message": "m"},
        {"code": "1", "message": "m"},
        {"code": 1.5, "message": "m"},
        {"code": True, "message": "m"},
        {"code": None, "message": "m"},
        {"code": 1, "message": None},
        {"code": 1, "message": 2},
    ],
)
def test_an_error_has_a_whole_number_and_a_text(error: Any) -> None:
    fault = refused(frame(id=5, error=error))
    assert fault.kind == "invalid"
    assert fault.id == 5
