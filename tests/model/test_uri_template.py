"""URI templates: RFC 6570 section 3.2 written out, and our own promises for matching."""

from __future__ import annotations

import contextlib
import re
import string
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any
from urllib.parse import unquote

import pytest
import uritemplate
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from dragoman.errors import LocalError, Refused
from dragoman.model import uri_template
from dragoman.model.uri_template import (
    MAX_TEMPLATE_CHARS,
    MAX_URI_CHARS,
    MAX_VARIABLES,
    AmbiguousUriTemplate,
    TraversalRefused,
    UriMatch,
    UriTemplate,
    UriTemplateError,
    UriValue,
    UriValueError,
)

# Properties are not timed: this suite shares its machine.
UNTIMED = settings(deadline=None)

# RFC 6570 section 3.2: the variables, then every row of its tables.
RFC_VALUES: dict[str, UriValue] = {
    "count": ["one", "two", "three"],
    "dom": ["example", "com"],
    "dub": "me/too",
    "hello": "Hello World!",
    "half": "50%",
    "var": "value",
    "who": "fred",
    "base": "http://example.com/home/",
    "path": "/foo/bar",
    "list": ["red", "green", "blue"],
    "keys": {"semi": ";", "dot": ".", "comma": ","},
    "v": "6",
    "x": "1024",
    "y": "768",
    "empty": "",
    "empty_keys": {},
    "undef": None,
}
RFC_TABLE = """
{count} one,two,three
{count*} one,two,three
{/count} /one,two,three
{/count*} /one/two/three
{;count} ;count=one,two,three
{;count*} ;count=one;count=two;count=three
{?count} ?count=one,two,three
{?count*} ?count=one&count=two&count=three
{&count*} &count=one&count=two&count=three

{var} value
{hello} Hello%20World%21
{half} 50%25
O{empty}X OX
O{undef}X OX
{x,y} 1024,768
{x,hello,y} 1024,Hello%20World%21,768
?{x,empty} ?1024,
?{x,undef} ?1024
?{undef,y} ?768
{var:3} val
{var:30} value
{list} red,green,blue
{list*} red,green,blue
{keys} semi,%3B,dot,.,comma,%2C
{keys*} semi=%3B,dot=.,comma=%2C

{+var} value
{+hello} Hello%20World!
{+half} 50%25
{base}index http%3A%2F%2Fexample.com%2Fhome%2Findex
{+base}index http://example.com/home/index
O{+empty}X OX
O{+undef}X OX
{+path}/here /foo/bar/here
here?ref={+path} here?ref=/foo/bar
up{+path}{var}/here up/foo/barvalue/here
{+x,hello,y} 1024,Hello%20World!,768
{+path,x}/here /foo/bar,1024/here
{+path:6}/here /foo/b/here
{+list} red,green,blue
{+list*} red,green,blue
{+keys} semi,;,dot,.,comma,,
{+keys*} semi=;,dot=.,comma=,

{#var} #value
{#hello} #Hello%20World!
{#half} #50%25
foo{#empty} foo#
foo{#undef} foo
{#x,hello,y} #1024,Hello%20World!,768
{#path,x}/here #/foo/bar,1024/here
{#path:6}/here #/foo/b/here
{#list} #red,green,blue
{#list*} #red,green,blue
{#keys} #semi,;,dot,.,comma,,
{#keys*} #semi=;,dot=.,comma=,

{.who} .fred
{.who,who} .fred.fred
{.half,who} .50%25.fred
www{.dom*} www.example.com
X{.var} X.value
X{.empty} X.
X{.undef} X
X{.var:3} X.val
X{.list} X.red,green,blue
X{.list*} X.red.green.blue
X{.keys} X.semi,%3B,dot,.,comma,%2C
X{.keys*} X.semi=%3B.dot=..comma=%2C
X{.empty_keys} X
X{.empty_keys*} X

{/who} /fred
{/who,who} /fred/fred
{/half,who} /50%25/fred
{/who,dub} /fred/me%2Ftoo
{/var} /value
{/var,empty} /value/
{/var,undef} /value
{/var,x}/here /value/1024/here
{/var:1,var} /v/value
{/list} /red,green,blue
{/list*} /red/green/blue
{/list*,path:4} /red/green/blue/%2Ffoo
{/keys} /semi,%3B,dot,.,comma,%2C
{/keys*} /semi=%3B/dot=./comma=%2C

{;who} ;who=fred
{;half} ;half=50%25
{;empty} ;empty
{;v,empty,who} ;v=6;empty;who=fred
{;v,bar,who} ;v=6;who=fred
{;x,y} ;x=1024;y=768
{;x,y,empty} ;x=1024;y=768;empty
{;x,y,undef} ;x=1024;y=768
{;hello:5} ;hello=Hello
{;list} ;list=red,green,blue
{;list*} ;list=red;list=green;list=blue
{;keys} ;keys=semi,%3B,dot,.,comma,%2C
{;keys*} ;semi=%3B;dot=.;comma=%2C

{?who} ?who=fred
{?half} ?half=50%25
{?x,y} ?x=1024&y=768
{?x,y,empty} ?x=1024&y=768&empty=
{?x,y,undef} ?x=1024&y=768
{?var:3} ?var=val
{?list} ?list=red,green,blue
{?list*} ?list=red&list=green&list=blue
{?keys} ?keys=semi,%3B,dot,.,comma,%2C
{?keys*} ?semi=%3B&dot=.&comma=%2C

{&who} &who=fred
{&half} &half=50%25
?fixed=yes{&x} ?fixed=yes&x=1024
{&x,y,empty} &x=1024&y=768&empty=
{&x,y,undef} &x=1024&y=768
{&var:3} &var=val
{&list} &list=red,green,blue
{&list*} &list=red&list=green&list=blue
{&keys} &keys=semi,%3B,dot,.,comma,%2C
{&keys*} &semi=%3B&dot=.&comma=%2C
"""
RFC_ROWS = [row.split(" ") for row in RFC_TABLE.splitlines() if row]


def match(template: str, uri: str) -> UriMatch | None:
    return UriTemplate(template).match(uri)


# --- parsing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "position"),
    [
        ("{", 1),
        ("{}", 1),
        ("a}b", 1),
        ("x://{a", 6),
        ("{a b}", 2),
        ("{ a}", 1),
        ("{a,}", 3),
        ("{a,,b}", 3),
        ("{a.}", 2),
        ("{.a..b}", 3),
        ("{a-b}", 2),
        ("{a:}", 2),
        ("{a:0}", 2),
        ("{a:10000}", 7),
        ("{a:2*}", 4),
        ("{a**}", 3),
        ("{*a}", 1),
        ("{=a}", 1),
        ("{!a}", 1),
        ("{|a}", 1),
        ("{@a}", 1),
        ("{??a}", 2),
        ("{{a}}", 1),
        ("{%zz}", 1),
        ("a b", 1),
        ('"', 0),
        ("ab\\", 2),
        ("a%2", 1),
        ("a\x00", 1),
        ("\x85", 0),
        ("ab\ud800", 2),
    ],
)
def test_a_malformed_template_says_where_it_goes_wrong(template: str, position: int) -> None:
    with pytest.raises(UriTemplateError) as caught:
        UriTemplate(template)
    assert caught.value.position == position
    assert caught.value.template == template
    assert caught.value.expected
    assert isinstance(caught.value, LocalError)


def test_a_template_has_a_bounded_length() -> None:
    assert UriTemplate("a" * MAX_TEMPLATE_CHARS).match("a" * MAX_TEMPLATE_CHARS) == {}
    with pytest.raises(UriTemplateError) as caught:
        UriTemplate("a" * (MAX_TEMPLATE_CHARS + 1))
    assert caught.value.position == MAX_TEMPLATE_CHARS
    assert len(str(caught.value)) < 200


def test_a_template_has_a_bounded_number_of_variables() -> None:
    names = [f"v{number}" for number in range(MAX_VARIABLES)]
    assert UriTemplate("{?" + ",".join(names) + "}").variables == tuple(names)
    with pytest.raises(UriTemplateError):
        UriTemplate("{" + "}/{".join([*names, "more"]) + "}")


def test_variables_are_named_once_in_order_of_appearance() -> None:
    template = UriTemplate("x://{b}/{+a}{/b:3,c*}{?d.e,%20f}")
    assert template.variables == ("b", "a", "c", "d.e", "%20f")
    assert template.optional == {"c", "d.e", "%20f"}


def test_templates_are_equal_when_their_text_is() -> None:
    one, same, other = UriTemplate("x://{a}"), UriTemplate("x://{a}"), UriTemplate("x://{b}")
    assert one == same
    assert len({one, same, other}) == 2
    assert one != "x://{a}"
    assert str(one) == "x://{a}"
    assert repr(one) == "UriTemplate('x://{a}')"


# --- expansion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("template", "uri"), RFC_ROWS)
def test_expansion_is_what_the_rfc_shows(template: str, uri: str) -> None:
    assert UriTemplate(template).expand(RFC_VALUES) == uri


def test_numbers_and_booleans_are_written_plainly() -> None:
    values: dict[str, UriValue] = {
        "i": 3,
        "f": 1.5,
        "t": True,
        "n": False,
        "l": [1, True, None, "x"],
    }
    assert UriTemplate("{i,f,t,n}{?l*}").expand(values) == "3,1.5,true,false?l=1&l=true&l=x"


def test_undefined_members_are_left_out_and_a_map_of_them_is_undefined() -> None:
    template = UriTemplate("x{?a*,b,c}")
    assert template.expand({"a": {"k": None, "m": 1}, "b": [None], "c": {"d": None}}) == "x?m=1"


def test_an_empty_member_is_written_as_an_empty_value_is() -> None:
    values: dict[str, UriValue] = {"l": ["", "1"], "m": {"k": ""}}
    assert UriTemplate("x{;l*,m*}{?l*,m*}").expand(values) == "x;l;l=1;k?l=&l=1&k="


def test_a_literal_is_encoded_and_its_own_triplets_stay() -> None:
    assert UriTemplate("x://é%c3'{a}").expand({"a": "é"}) == "x://%C3%A9%c3'%C3%A9"


@pytest.mark.parametrize(
    ("template", "value", "uri"),
    [
        ("{x:2}", "éèà", "%C3%A9%C3%A8"),
        ("{+x:2}", "éèà", "%C3%A9%C3%A8"),
        ("{+x:2}", "%20ab", "%20a"),
        ("{+x:2}", "%C3%A9bc", "%C3%A9b"),
        ("{+x:1}", "%E2%82%ACb", "%E2%82%AC"),
        ("{+x:1}", "%F0%9F%98%80b", "%F0%9F%98%80"),
        ("{+x:2}", "%zz", "%25z"),
        ("{x:2}", "%20ab", "%252"),
    ],
)
def test_a_prefix_counts_characters_and_never_cuts_one(template: str, value: str, uri: str) -> None:
    assert UriTemplate(template).expand({"x": value}) == uri


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{x}", b"bytes"),
        ("{x}", {"a", "set"}),
        ("{x}", object()),
        ("{x}", [["nested"]]),
        ("{x}", [b"bytes"]),
        ("{x}", {"k": {"nested": 1}}),
        ("{x}", {1: "number key"}),
        ("{x}", "\ud800"),
        ("{+x}", "\udfff"),
        ("{x*}", {"\ud800": 1}),
        pytest.param("{x}", 10**5000, id="an integer of 5001 digits"),
        ("{x:3}", ["a"]),
        ("{;x:3}", {"a": "b"}),
    ],
)
def test_a_value_that_has_no_place_in_a_uri_is_refused(template: str, value: Any) -> None:
    with pytest.raises(UriValueError) as caught:
        UriTemplate(template).expand({"x": value})
    assert caught.value.variable == "x"
    assert isinstance(caught.value, LocalError)


NAMES = ["a", "b", "c.d", "e_1"]
OPERATORS = ["", "+", "#", ".", "/", ";", "?", "&"]
LITERALS = ["x://", "/", "-", ".json", "a", "?q=1", "%20"]


def templates(modifiers: Sequence[str]) -> st.SearchStrategy[str]:
    specs = st.builds(str.__add__, st.sampled_from(NAMES), st.sampled_from(modifiers))
    expressions = st.builds(
        lambda operator, specs: "{" + operator + ",".join(specs) + "}",
        st.sampled_from(OPERATORS),
        st.lists(specs, min_size=1, max_size=3),
    )
    return st.lists(expressions | st.sampled_from(LITERALS), max_size=5).map("".join)


def values_of(value: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, UriValue]]:
    return st.fixed_dictionaries({}, optional={name: st.none() | value for name in NAMES})


SCALARS = st.text(max_size=6) | st.integers() | st.sampled_from(["", "a/b", "50%", "ü x", "a,b"])
KEYS = st.text("kmü/;", min_size=1, max_size=3)
TEMPLATES = templates(["", "*", ":3"])
VALUES = values_of(
    SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(KEYS, SCALARS, max_size=3)
)

# Where uritemplate and the RFC part, and what is left out of these for it: it encodes the triplets
# that a reserved expansion has to keep ("%"); it lets a prefix meet a list or map; it writes an
# empty list between others as empty text; it puts "=" after the name of an empty member of {;x*};
# it sorts the keys of a map.
AGREED_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="%"), max_size=6)
AGREED_MEMBER = AGREED_TEXT.filter(bool) | st.integers()
AGREED_VALUE = (
    AGREED_TEXT
    | st.integers()
    | st.lists(AGREED_MEMBER, min_size=1, max_size=3)
    | st.dictionaries(KEYS, AGREED_MEMBER, min_size=1, max_size=3).map(
        lambda members: dict(sorted(members.items()))
    )
)


def numbers_as_text(value: Any) -> Any:
    if isinstance(value, list):
        return [numbers_as_text(member) for member in value]
    if isinstance(value, dict):
        return {key: numbers_as_text(member) for key, member in value.items()}
    return str(value) if isinstance(value, int) else value


@UNTIMED
@given(
    st.tuples(templates(["", "*"]), values_of(AGREED_VALUE))
    | st.tuples(templates(["", ":3"]), values_of(AGREED_TEXT))
)
def test_expansion_agrees_with_another_implementation(
    case: tuple[str, dict[str, UriValue]],
) -> None:
    template, values = case
    theirs = uritemplate.expand(template, {n: numbers_as_text(v) for n, v in values.items()})
    assert UriTemplate(template).expand(values) == theirs


# --- matching: what matches ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "uri", "values"),
    [
        ("config://app", "config://app", {}),
        ("", "", {}),
        ("weather://{city}/now", "weather://Paris/now", {"city": "Paris"}),
        ("weather://{city}/now", "WEATHER://Paris/now", {"city": "Paris"}),
        ("weather://{city}/now", "weather://S%c3%a3o%20Paulo/now", {"city": "São Paulo"}),
        ("weather://{city}/now", "weather://Zürich/now", {"city": "Zürich"}),
        ("weather://{city}/now", "weather://Paris,TX;1:2@3/now", {"city": "Paris,TX;1:2@3"}),
        ("weather://{city}/now", "weather://a%252Fb/now", {"city": "a%2Fb"}),
        ("weather://{city}/now", "weather://a+b/now", {"city": "a+b"}),
        ("weather://{city}/now", "weather://...a..b/now", {"city": "...a..b"}),
        ("x://é/{a}", "x://%c3%A9/b", {"a": "b"}),
        ("x://%c3%a9/{a}", "x://é/b", {"a": "b"}),
        ("geo:{lat},{lon}", "geo:1,2", {"lat": "1", "lon": "2"}),
        ("geo:{lat,lon}", "geo:1,2", {"lat": "1", "lon": "2"}),
        ("tags:{t*}", "tags:a,b%2Cc,", {"t": ["a", "b,c", ""]}),
        ("x:{a,b*}", "x:1,2,3", {"a": "1", "b": ["2", "3"]}),
        ("x:{a*,b}", "x:1,2,3", {"a": ["1", "2"], "b": "3"}),
        ("file:///{+path}", "file:///a/b%20c.txt", {"path": "a/b c.txt"}),
        ("file:///{+path}", "file:///a//b/", {"path": "a//b/"}),
        ("file:///{+path}", "file:///ab:c", {"path": "ab:c"}),
        ("proxy:{+url}", "proxy:https://h/p?q=1#f", {"url": "https://h/p?q=1#f"}),
        ("f:{+path}{?v}", "f:a/b?v=1", {"path": "a/b", "v": "1"}),
        ("f:{+path}{?v}", "f:a/b", {"path": "a/b"}),
        ("f:{+path}{?v}{#at}", "f:a/b#L1", {"path": "a/b", "at": "L1"}),
        ("f:{+path}/{name}", "f:a/b/c", {"path": "a/b", "name": "c"}),
        ("f:{+path}.{ext}", "f:a.b/c.tar.gz", {"path": "a.b/c", "ext": "tar.gz"}),
        (
            "f:{+repo}/-/{ref}/{+path}",
            "f:g/s/r/-/v1/a/b",
            {"repo": "g/s/r", "ref": "v1", "path": "a/b"},
        ),
        ("f:{+x,y}", "f:1,2,3", {"x": "1", "y": "2,3"}),
        ("f:{+x*}", "f:a/b,c", {"x": ["a/b", "c"]}),
        ("x:{a}-{b}", "x:1-2-3", {"a": "1", "b": "2-3"}),
        ("x:{a}-{b}", "x:-1-2", {"a": "-1", "b": "2"}),
        ("x:{a}--{b}.json", "x:1-2--3.json.json", {"a": "1-2", "b": "3.json"}),
        ("x:{name}.json{?q}", "x:a.json.json?q=", {"name": "a.json", "q": ""}),
        ("x:{a}A{b}", "x:%3AA1", {"a": ":", "b": "1"}),
        ("x:{name}{.ext}", "x:a.tar.gz", {"name": "a", "ext": "tar.gz"}),
        ("x:{name}{.ext}", "x:a", {"name": "a"}),
        ("x:{name}{.ext*}", "x:a.tar.gz", {"name": "a", "ext": ["tar", "gz"]}),
        ("x{.a,b}", "x.1.2", {"a": "1", "b": "2"}),
        ("x{.a,b}", "x.1", {"a": "1"}),
        ("x:{/segs*}", "x:/a/b%20c", {"segs": ["a", "b c"]}),
        ("x:{/segs*}", "x:", {}),
        ("x:{/a,b}", "x:/1", {"a": "1"}),
        ("x:{/a}{/b}", "x:/1/2", {"a": "1", "b": "2"}),
        ("x:{/a}/c", "x:/c", {}),
        ("x:{/a}/c", "x:/c/c", {"a": "c"}),
        ("x:{/l}", "x:/a,b", {"l": "a,b"}),
        ("x{;a,b*}", "x;a=1;b=2;b=3", {"a": "1", "b": ["2", "3"]}),
        ("x{;a}", "x;a", {"a": ""}),
        ("x{?a,b}", "x?b=2&a=1", {"a": "1", "b": "2"}),
        ("x{?a,b}", "x?b=2", {"b": "2"}),
        ("x{?a,b}", "x", {}),
        ("x{?a}{&b}", "x?b=2&a=1", {"a": "1", "b": "2"}),
        ("x{?a}", "x?a=/b%2Fc%5Cd?e", {"a": "/b/c\\d?e"}),
        ("x{?a}", "x?%61=1", {"a": "1"}),
        ("x{?a%20b}", "x?a%20b=1", {"a%20b": "1"}),
        ("x{?l*}", "x?l=1&l=", {"l": ["1", ""]}),
        ("x{?a,m*}", "x?k=1&a=2&n=3", {"a": "2", "m": {"k": "1", "n": "3"}}),
        ("x?fixed=1{&a}", "x?fixed=1&a=2", {"a": "2"}),
        ("x{#f}", "x#/a/b", {"f": "/a/b"}),
        ("x{#f}", "x", {}),
        ("{a}/{a}", "1/1", {"a": "1"}),
        ("{a:1}/{a}", "v/value", {"a": "value"}),
        ("{a}/{a:1}", "value/v", {"a": "value"}),
        ("{a:1}/{a:3}/{a:2}", "v/val/va", {"a": "val"}),
        ("{a:3}", "%C3%A9%C3%A9%C3%A9", {"a": "ééé"}),
        ("{a*}{?a*}", "1?a=1", {"a": ["1"]}),
    ],
)
def test_a_uri_of_the_template_gives_its_values(template: str, uri: str, values: UriMatch) -> None:
    assert match(template, uri) == values


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("config://app", "config://app/"),
        ("config://app", "config://App"),
        ("config://app", "config:/app"),
        ("config://app", "config://app\n"),
        ("disk:{a}", "dis\u212a:1"),
        ("", "x"),
        ("weather://{city}/now", "weather:///now"),
        ("weather://{city}/now", "weather://a/b/now"),
        ("weather://{city}/now", "weather://Paris/NOW"),
        ("weather://{city}/now", "weather://Paris/now?x=1"),
        ("weather://{city}/now", "weather://Paris/now/"),
        ("weather://{city}/now", "weather://a b/now"),
        ("weather://{city}/now", "weather://a\\b/now"),
        ("weather://{city}/now", "weather://a\x00b/now"),
        ("weather://{city}/now", "weather://a\ud800b/now"),
        ("weather://{city}/now", "weather://a%/now"),
        ("weather://{city}/now", "weather://a%2/now"),
        ("weather://{city}/now", "weather://a%zz/now"),
        ("weather://{city}/now", "weather://%ff/now"),
        ("weather://{city}/now", "weather://%C0%AE%C0%AE/now"),
        ("weather://{city}/now", "weather://%ED%A0%80/now"),
        ("x:{a,b}", "x:1"),
        ("x:{a,b}", "x:1,2,3"),
        ("x:{l*}", "x:a,%ff"),
        ("x:{a}-{b}", "x:1-"),
        ("x:{a}-{b}", "x:1"),
        ("f:{+path}/{name}", "f:a/b/"),
        ("f:{+path}/{name}", "g:a/b"),
        ("f:{+path}{?v}", "f:a?w=1"),
        ("f:{+path}{?v}", "f:?v=1"),
        ("x:{/segs*}", "x:/a//b"),
        ("x:{/segs*}", "x://etc"),
        ("x:{/segs*}", "x:/a/"),
        ("x{.e*}", "x.."),
        ("x{.e*}", "x.a..b"),
        ("x{?a,b}", "x?"),
        ("x{?a,b}", "x?a=1&c=2"),
        ("x{?a,b}", "x?a=1&a=2"),
        ("x{?a,b}", "x?a=1&&b=2"),
        ("x{?a,b}", "x?A=1"),
        ("x{?a}", "x?%ff=1"),
        ("x{?a}", "x?a=%ff"),
        ("x{?l*}", "x?l=1&m=2"),
        ("x{?l*}", "x?m=2&l=1"),
        ("x{?l*}", "x?m=1&m=2"),
        ("x{?l*,m*}", "x?n=1"),
        ("x{;a}", "x;a=1;b=2"),
        ("{a}/{a}", "1/2"),
        ("{a:1}/{a}", "v/xalue"),
        ("{a}/{a:1}", "value/x"),
        ("{a:3}", "value"),
        ("{a*}{?a*}", "1?a=2"),
        ("{a}{?a*}", "1?a=1"),
    ],
)
def test_a_uri_of_another_shape_is_no_match(template: str, uri: str) -> None:
    assert match(template, uri) is None


def test_a_uri_longer_than_the_limit_is_no_match() -> None:
    template = UriTemplate("x:{a}")
    template.ensure_matchable()
    template.ensure_matchable()
    assert template.match("x:" + "a" * (MAX_URI_CHARS - 2)) is not None
    assert template.match("x:" + "a" * (MAX_URI_CHARS - 1)) is None
    assert template.match("x:" + "é" * (MAX_URI_CHARS // 2)) is None


@pytest.mark.parametrize(
    ("template", "position"),
    [("{a}{b}", 3), ("x:{a}{+b}", 5), ("{/a}{b}", 4), ("{?a}{+b,c}", 4), ("{a}{/b}{c}", 7)],
)
def test_a_template_whose_values_touch_is_refused_when_prepared_yet_expands(
    template: str, position: int
) -> None:
    parsed = UriTemplate(template)
    with pytest.raises(AmbiguousUriTemplate) as caught:
        parsed.ensure_matchable()
    assert caught.value.position == position
    with pytest.raises(AmbiguousUriTemplate):
        parsed.match("x")
    assert parsed.expand({"a": 1, "b": 2, "c": 3})


# --- matching: what is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("x://{a}/now", "x://../now"),
        ("x://{a}/now", "x://./now"),
        ("x://{a}/now", "x://%2e%2E/now"),
        ("x://{a}/now", "x://.%2e/now"),
        ("x://{a}/now", "x://%20..%20/now"),
        ("x://{a}/now", "x://a%2fb/now"),
        ("x://{a}/now", "x://a%5Cb/now"),
        ("x://{a}/now", "x://%2F/now"),
        ("x://{a}/now", "x://a%00b/now"),
        ("x://{a}/now", "x://a%0Ab/now"),
        ("x://{a}/now", "x://a%7F/now"),
        ("x://{a}/now", "x://a%C2%85/now"),
        ("x://{a}/now", "x://a\x85/now"),
        ("x://{a,b}", "x://1,.."),
        ("x://{a*}", "x://1,..,2"),
        ("x://{a}/{b}", "x://1/.."),
        ("file:///{+p}", "file:///../etc"),
        ("file:///{+p}", "file:///a/../b"),
        ("file:///{+p}", "file:///a/.."),
        ("file:///{+p}", "file:///a/./b"),
        ("file:///{+p}", "file:///a/%2e%2e/b"),
        ("file:///{+p}", "file:///a%2f..%2fb"),
        ("file:///{+p}", "file:///a%2Fb"),
        ("file:///{+p}", "file:///a%5cb"),
        ("file:///{+p}", "file:///a/..%5cb"),
        ("file:///{+p}", "file:////etc/passwd"),
        ("file:///{+p}", "file:///%2Fetc/passwd"),
        ("file:///{+p}", "file:///C:/Windows"),
        ("file:///{+p}", "file:///c%3a/Windows"),
        ("file:///{+p}", "file:///a%00.txt"),
        ("file:///{+p*}", "file:///a,/b"),
        ("f:{+p}/{name}", "f:a/../b"),
        ("x:{/s*}", "x:/a/.."),
        ("x:{/s*}", "x:/a%2fb"),
        ("x:{/s}", "x:/%5C"),
        ("x{.e}", "x..."),
        ("x{.e}", "x.a%2Fb"),
        ("x{;a}", "x;a=.."),
        ("x{;a}", "x;a=b%2F..%2Fc"),
        ("x{?a}", "x?a=../b"),
        ("x{?a}", "x?a=b%5C.."),
        ("x{?a}", "x?a=%00"),
        ("x{?m*}", "x?..=1"),
        ("x{?m*}", "x?k=.."),
        ("x?k=1{&a}", "x?k=1&a=.."),
        ("x{#f}", "x#a/../b"),
        ("x{#f}", "x#%0D"),
    ],
)
def test_a_value_that_reaches_out_is_refused_and_not_shown(template: str, uri: str) -> None:
    with pytest.raises(TraversalRefused) as caught:
        match(template, uri)
    refusal = caught.value
    assert isinstance(refusal, Refused)
    assert refusal.template == template
    assert refusal.variable in UriTemplate(template).variables
    assert uri not in str(refusal)


def test_a_refusal_is_only_raised_for_a_uri_that_fits_the_template() -> None:
    assert match("weather://{city}/now", "file:///../../etc/passwd") is None
    assert match("weather://{city}/now", "weather://../later") is None


def paths_of(value: str | list[str] | dict[str, str]) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [*value, *value.values()] if isinstance(value, dict) else value


HOSTILE = st.lists(
    st.sampled_from(
        [
            "..",
            ".",
            "/",
            "%2e",
            "%2E",
            "%2f",
            "%5c",
            "\\",
            "%00",
            "%",
            "%C0%AE",
            "%20",
            "C:",
            "a",
            "b",
            "é",
            "?",
            "&",
            "q=",
            "#",
            ";",
            ",",
            "-",
            "%25",
            "2e",
            "\x85",
            "now",
            "x:",
        ]
    )
    | st.sampled_from([" ", "\n"]),
    max_size=12,
).map("".join)
GUARDED = [
    "x:{v}",
    "x:{v}/now",
    "x:{+v}",
    "x:{+v}/{w}",
    "x:{/v*}",
    "x:{.v}",
    "x:{v,w}",
    "x:{v}-{w}",
    "x:{+v}{?q}",
    "x:{?q}",
    "x:{;q}",
    "x:{#q}",
    "x:{?q*}",
    "x:{v*}",
]


@UNTIMED
@given(st.sampled_from(GUARDED), HOSTILE)
def test_no_value_that_comes_through_holds_what_is_refused(template: str, rest: str) -> None:
    try:
        values = match(template, "x:" + rest)
    except TraversalRefused:
        return
    for name, value in (values or {}).items():
        for text in paths_of(value):
            assert not {".", ".."} & {part.strip(" ") for part in re.split(r"[/\\]", text)}
            assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
            if name != "q":
                assert "\\" not in text
                assert text[:1] != "/"
                assert "/" not in text or ("+" + name) in template


# --- matching: the rules, as properties ---------------------------------------------------------

# An independent statement of the cut: a pattern that backtracks freely, each value as short as the
# rest allows. Exponential, so the URIs are short.
PIECE = re.compile(r"\{([+#./;?&]?)([a-z,]+)\}|([^{}]+)")
SEGMENT = r"[\w.~!$&'()*+,;=:@-]"


def naive_pattern(template: str) -> re.Pattern[str]:
    pattern = ""
    for piece in PIECE.finditer(template):
        operator, names, literal = piece.groups()
        if literal is not None:
            pattern += re.escape(literal)
            continue
        variables = names.split(",")
        char = SEGMENT
        if operator in ("+", "#"):
            char = r"[\w.~!$&'()*+,;=:@/?#\[\]-]"
            if operator == "+" and re.search(r"\{[?#&]", template[piece.end() :]):
                char = char.replace("?#", "")
        elif operator == "" and len(variables) > 1:
            char = char.replace(",", "")
        groups = [f"(?P<{name}>(?:%[0-9A-F]{{2}}|{char})+?)" for name in variables]
        if operator in ("", "+"):
            pattern += ",".join(groups)
        else:
            separator = re.escape("," if operator == "#" else operator)
            nested = ""
            for number, group in reversed(list(enumerate(groups))):
                lead = separator if number else re.escape(operator)
                nested = f"(?:{lead}{group}{nested})??"
            pattern += nested
    return re.compile(pattern, re.ASCII)


@st.composite
def positional_templates(draw: st.DrawFn) -> str:
    """Templates of literals and positional expressions, no two variables touching."""
    names = iter(string.ascii_lowercase)
    pieces: list[str] = []
    separator = "start"
    for _ in range(draw(st.integers(1, 5))):
        operators = [o for o in ("", "+", "/", ".", "#") if not separator or (o and o != separator)]
        if separator == "start":
            operators = ["", "+", "/", ".", "#"]
        kinds = ["literal", "expression"] if separator else ["expression"]
        if draw(st.sampled_from(kinds)) == "literal" or not operators:
            pieces.append(draw(st.text("ab-/.A%", min_size=1, max_size=2)).replace("%", "%41"))
            separator = ""
            continue
        if separator not in ("", "start"):
            operators = [o for o in operators if o]
        operator = draw(st.sampled_from(operators))
        count = draw(st.integers(1, 2))
        pieces.append("{" + operator + ",".join(next(names) for _ in range(count)) + "}")
        separator = operator if operator in ("/", ".") else ","
    return "".join(pieces)


@UNTIMED
@given(positional_templates(), st.data())
@example("{a}-{b}", None)
@example("{+a}-{b}", None)
def test_each_value_is_the_shortest_that_lets_the_rest_match(
    template: str, data: st.DataObject | None
) -> None:
    parsed = UriTemplate(template)
    try:
        parsed.ensure_matchable()
    except AmbiguousUriTemplate:
        assume(False)
    if data is None:
        uris = ["x-y-z", "x-y/z", "x/y-z", "x-y-/z-w"]
    else:
        values = {n: data.draw(st.text("ab-./,A?#", max_size=3)) for n in parsed.variables}
        expanded = parsed.expand(values)[:16]
        noise = data.draw(st.text("ab-./,A?#%", max_size=10)).replace("%", "%41")
        uris = [expanded, noise, expanded + noise]
    for uri in uris:
        if re.search(r"%(?![0-9A-F]{2})", uri):
            continue
        if "\N{REPLACEMENT CHARACTER}" in unquote(uri):
            # Cut in the middle of an encoded character: `unquote` mends what we refuse.
            continue
        found = naive_pattern(template).fullmatch(uri)
        expected = found and {k: unquote(v) for k, v in found.groupdict().items() if v is not None}
        try:
            assert parsed.match(uri) == expected, (template, uri)
        except TraversalRefused:
            assert expected is not None


@UNTIMED
@given(TEMPLATES | positional_templates(), st.lists(st.text("ab-./,;?&=A#", max_size=12)))
@example("{a}{.b}", ["a.", "a..", "a.b."])
@example("{a}{.b,c}", ["a.b.", "a.b.c."])
@example("{a}.x{?q}", ["a.x.x", "a.x?", "a.x.x?b.x"])
def test_a_pattern_cuts_as_the_table_does(template: str, uris: list[str]) -> None:
    parsed = UriTemplate(template)
    try:
        parsed.ensure_matchable()
    except AmbiguousUriTemplate:
        assume(False)
    matcher = parsed._matcher
    assert matcher is not None
    assume(matcher._pattern is not None)
    assert matcher._pattern is not None
    full = parsed.expand(dict.fromkeys(parsed.variables, "a"))
    for uri in [*uris, *(full + rest for rest in uris)]:
        head = matcher._head.match(uri)
        table = head and uri_template._cut(matcher._nodes, uri, head.end())
        found = matcher._pattern.fullmatch(uri)
        assert (found and list(found.groups())) == table


WORDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="./\\~%"),
    min_size=1,
    max_size=5,
)
LISTS = st.lists(WORDS, min_size=1, max_size=3)
MAPS = st.dictionaries(WORDS.map(lambda key: "k" + key), WORDS, min_size=1, max_size=3)
# Expressions whose values can be told apart, with what may be put in them.
RECOVERABLE: list[tuple[str, Mapping[str, st.SearchStrategy[Any]]]] = [
    ("{A}", {"A": WORDS}),
    ("{A,B}", {"A": WORDS, "B": WORDS}),
    ("{A*}", {"A": LISTS}),
    ("{A,B*}", {"A": WORDS, "B": LISTS}),
    ("{A:5}", {"A": WORDS}),
    ("{+A}", {"A": st.lists(WORDS, min_size=1, max_size=3).map("/".join)}),
    ("{.A}", {"A": WORDS}),
    ("{.A*}", {"A": LISTS}),
    ("{/A}", {"A": WORDS}),
    ("{/A,B}", {"A": WORDS, "B": WORDS}),
    ("{/A*}", {"A": LISTS}),
    ("{;A,B}", {"A": WORDS, "B": WORDS | st.just("")}),
    ("{;A*}", {"A": LISTS | MAPS}),
    ("{?A,B}", {"A": WORDS, "B": WORDS | st.just("")}),
    ("{?A,B*}", {"A": WORDS, "B": LISTS | MAPS}),
    ("{&A,B*}", {"A": WORDS, "B": LISTS | MAPS}),
    ("{#A}", {"A": WORDS | st.just("a/b?c")}),
]


@UNTIMED
@given(st.lists(st.sampled_from(RECOVERABLE), min_size=1, max_size=4), st.data())
def test_expanding_then_matching_gives_the_values_back(
    pieces: Sequence[tuple[str, Mapping[str, st.SearchStrategy[Any]]]], data: st.DataObject
) -> None:
    # "~/~" stands in no value, so every cut can be recovered.
    template = "x:"
    values: dict[str, Any] = {}
    for number, (text, strategies) in enumerate(pieces):
        for name, strategy in strategies.items():
            text = re.sub(rf"\b{name}\b", f"{name.lower()}{number}", text)
            is_optional = "?" in text or "&" in text or ";" in text
            if not is_optional or data.draw(st.booleans()):
                values[f"{name.lower()}{number}"] = data.draw(strategy)
        template += text + "~/~"
    parsed = UriTemplate(template)
    uri = parsed.expand(values)
    assume(not re.search(r"\+.\d", template) or not re.search(r"~/~.*[?#]", template))
    try:
        assert parsed.match(uri) == values
    except TraversalRefused as refusal:
        value = values[refusal.variable]
        assert re.match("[A-Za-z]:", value), "only a drive letter may be refused here"


TEMPLATE_NOISE = st.text() | st.lists(
    st.sampled_from([*"{}+#./;?&,:*%ab1-", "{a}", "{+b}", "{/c*}", "{?d,e*}", "é", "%41", "x://"]),
    max_size=10,
).map("".join)


@UNTIMED
@given(TEMPLATE_NOISE, st.text() | HOSTILE, VALUES)
def test_no_text_raises_anything_but_our_own_errors(
    template: str, uri: str, values: dict[str, UriValue]
) -> None:
    found: UriMatch | None = None
    try:
        parsed = UriTemplate(template)
        with contextlib.suppress(UriValueError):
            uri = parsed.expand(values) + uri
        found = parsed.match(uri)
    except (UriTemplateError, TraversalRefused) as error:
        fault: UriTemplateError | TraversalRefused = error
    else:
        assert found is None or set(found) <= set(parsed.variables)
        assert found is None or set(found) >= set(parsed.variables) - parsed.optional
        return
    if isinstance(fault, TraversalRefused):
        assert fault.variable in parsed.variables
    elif isinstance(fault, AmbiguousUriTemplate):
        assert template[fault.position] == "{"
    else:
        assert 0 <= fault.position <= len(template)


# --- matching: what it costs --------------------------------------------------------------------


def steps(work: Callable[[], object]) -> int:
    """How many lines of uri_template.py run during `work`."""
    count = 0
    source = uri_template.__file__

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename != source:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


COSTLY = [
    ("f:{+a}-{b}", "-"),
    ("f:{+a}-{b}-{+c}-{d}", "-"),
    ("f:{+a}a{b}a{+c}a{d}a", "a"),
    ("f:{+a}/{b}.{c}", "a/"),
    ("f:{+a}{/b*}{.c*}", "/."),
    ("f:{a}A{b}A{c}", "%AA"),
    ("f:{/a}/b{/c}/d", "/b"),
    ("f:{a}-{b}-{c}.json", "-.json"),
    ("f:{a,b*}{?q*}", "a,"),
    ("f:{?q*}", "k=1&"),
    ("f:{/s*}", "/a"),
]


@pytest.mark.parametrize(("template", "unit"), COSTLY)
@pytest.mark.parametrize("end", ["", "!", "/", "\\"])
def test_the_steps_of_a_match_grow_with_the_uri_and_no_faster(
    template: str, unit: str, end: str
) -> None:
    parsed = UriTemplate(template)
    parsed.ensure_matchable()

    def matching(size: int) -> int:
        def work() -> None:
            with contextlib.suppress(TraversalRefused):
                parsed.match("f:" + unit * (size // len(unit)) + end)

        return steps(work)

    short, long = matching(500), matching(2000)
    assert long <= 4 * short + 50
    assert long <= 40 * 2000


def repeats(tree: Any) -> list[tuple[str, Any]]:
    """Every (operation, maximum) of the repetitions in a parsed pattern, at any depth."""
    found: list[tuple[str, Any]] = []
    for operation, argument in tree:
        if str(operation).endswith("_REPEAT"):
            found.append((str(operation), argument[1]))
            found += repeats(argument[2])
        elif str(operation) in ("SUBPATTERN", "ASSERT", "ASSERT_NOT"):
            found += repeats(argument[-1])
        elif str(operation) == "BRANCH":
            found += [item for branch in argument[1] for item in repeats(branch)]
        else:
            assert str(operation) in ("LITERAL", "IN", "AT", "NOT_LITERAL"), operation
    return found


@UNTIMED
@given(TEMPLATES | positional_templates() | st.sampled_from([row[0] for row in COSTLY]))
@example("x:{a}-{b}.json{?q}")
def test_a_compiled_pattern_holds_no_repetition_that_can_backtrack(template: str) -> None:
    parsed = UriTemplate(template)
    try:
        parsed.ensure_matchable()
    except AmbiguousUriTemplate:
        assume(False)
    matcher = parsed._matcher
    assert matcher is not None
    if matcher._pattern is not None:
        parser = sys.modules["re._parser"]
        found = repeats(parser.parse(matcher._pattern.pattern))
        assert {operation for operation, _ in found} <= {"POSSESSIVE_REPEAT"}


EVERYDAY = [
    "config://app",
    "x://{a}/{b}",
    "x://{a}-{b}.json",
    "file:///{+path}",
    "f:{+path}{?v,w}{#at}",
    "x:{name}{.ext}",
    "x{/segs*}",
    "x{;a,b}",
]


@pytest.mark.parametrize("template", EVERYDAY)
def test_everyday_templates_are_cut_by_a_pattern(template: str) -> None:
    parsed = UriTemplate(template)
    parsed.ensure_matchable()
    assert parsed._matcher is not None
    assert parsed._matcher._pattern is not None
