"""What is written of texts and values: no secret, and the shape in place of the content."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.host.redaction import REDACTED, Redactor, encoded, shape_of, sorted_json

SECRET = 'ghp_9/x+Z"\\ö1'
# With the escapes in lower case, as some write them.
LOWER = "".join(
    f"%{byte:02x}" if chr(byte) in '/+"\\' or byte > 127 else chr(byte) for byte in SECRET.encode()
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Bearer {SECRET}",
        f"https://x.test/?token={quote(SECRET, safe='')}&a=1",
        f"https://x.test/?token={LOWER}",
        json.dumps({"token": SECRET}),
        *(base64.b64encode(b"u" * n + SECRET.encode() + b"v" * n).decode() for n in range(5)),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_found_however_it_was_put_into_a_text(text: str) -> None:
    clean = Redactor([SECRET]).redact(text)
    assert REDACTED in clean
    assert SECRET not in clean


def test_of_a_header_the_part_after_its_scheme_is_a_secret_too() -> None:
    assert Redactor(["Bearer abcdef123"]).redact("key=abcdef123") == f"key={REDACTED}"


def test_a_value_too_short_to_be_told_from_chance_is_no_secret() -> None:
    assert Redactor(["true", "8080", ""]).redact("true on 8080") == "true on 8080"


def test_a_longer_secret_is_replaced_before_one_that_is_a_part_of_it() -> None:
    assert Redactor(["abcdef", "abcdefghi"]).redact("abcdefghi") == REDACTED


def test_names_numbers_and_nested_texts_are_cleaned() -> None:
    redactor = Redactor(["hunter2!", "4929123412341234"])
    dirty = {"hunter2!": [{"a": "x hunter2! y"}], "card": 4929123412341234, "n": 1, "t": True}
    assert redactor.clean(dirty) == {
        REDACTED: [{"a": f"x {REDACTED} y"}],
        "card": REDACTED,
        "n": 1,
        "t": True,
    }


@given(secret=st.text(min_size=6), before=json_values, after=st.text())
def test_the_quick_look_finds_what_cleaning_would_change(
    secret: str, before: Any, after: str
) -> None:
    redactor = Redactor([secret])
    value = {"a": before, "b": f"{after}{secret}{after}"}
    assert redactor.finds(encoded(value))
    assert redactor.clean(value) != value


@given(json_values)
def test_json_is_one_line_of_ascii_and_loses_nothing(value: Any) -> None:
    body = encoded(value)
    assert body.isascii()
    assert not set(body) & {*range(0x20), 0x7F}
    assert json.loads(body) == value


def test_half_a_surrogate_pair_and_huge_numbers_are_written() -> None:
    value = {"a": "é\ud800", "b": 2**80}
    assert json.loads(encoded(value)) == {"a": "é\\ud800", "b": 2**80}
    assert sorted_json(value) == sorted_json(dict(reversed(value.items())))


@given(st.dictionaries(st.text(), json_values, max_size=5))
@settings(max_examples=40)
def test_equal_values_are_the_same_bytes_whatever_their_order(value: dict[str, Any]) -> None:
    assert sorted_json(value) == sorted_json(dict(reversed(value.items())))


def test_a_shape_tells_types_and_lengths_and_nothing_else() -> None:
    value = {"path": "/srv/secret", "n": [1, 2.5, None, True], "a/b~c": {"x": ""}}
    assert shape_of(value) == {
        "": "object(3)",
        "/path": "string(11)",
        "/n": "array(4)",
        "/n/0": "integer",
        "/n/1": "number",
        "/n/2": "null",
        "/n/3": "boolean",
        "/a~1b~0c": "object(1)",
        "/a~1b~0c/x": "string(0)",
    }


def test_a_shape_is_bounded_in_width_and_depth() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert shape_of(deep)["..."] == "more"
    wide = shape_of({"n" * 10_000: 1} | {str(n): n for n in range(10_000)})
    assert len(wide) == 65
    assert wide["..."] == "more"
    assert max(map(len, wide)) < 100


@given(json_values)
def test_a_shape_holds_no_text_of_the_value(value: Any) -> None:
    assert "canary" not in "".join(shape_of({"a": value, "b": "canary"}).values())
