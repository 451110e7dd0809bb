"""URI templates (RFC 6570): written out as URIs, and matched against the URI somebody asks for.

`expand` is the whole RFC: every operator, prefixes, explosion, lists and maps. The RFC says nothing
of matching; these are our rules.

**What matches.** A URI that `expand` could have written, and besides it one written by hand: any
character RFC 3986 allows in that place may stand there raw, and so may non-ASCII text. Characters
that no URI holds (space, quotes, ``<>\\^`{|}``, controls), a malformed percent sequence and bytes
that are not UTF-8 match nothing. Case counts, except in the scheme and in percent-encoded digits.

**Who gets what.** `{x}` and `{+x}` hold at least one character and are in every match; the others
(`{/x}` `{.x}` `{;x}` `{?x}` `{&x}` `{#x}`) may be left out, and then their names are missing from
the result (`optional` lists them). Where a URI can be cut in several ways, each value, from left to
right, is the shortest that lets the rest match: `{+path}/{name}` reads `a/b/c` as `a/b` and `c`.
A `{+x}` before a query or fragment expression holds no `?` or `#`. A variable used twice must say
the same twice. Prefix lengths are checked after the cut. Values are percent-decoded once, and a
plus sign stays a plus sign.

Named parameters come in any order, `{?x}{&y}` being `{?x,y}`; an unknown or a repeated one means no
match. Explosion gives a list, without empty members for `{/x*}` and `{.x*}`. A lone exploded
`{?x*}` takes the parameters no other variable claims, and gives a map when their names are not `x`.

**What is refused at registration.** An expression directly followed by `{x}` or `{+x}`: nothing
says where one ends and the other begins.

**What is refused in a match** (`TraversalRefused`), judged on the decoded value:

===============  ==========================================================================
every operator   a `.` or `..` segment, however the separators are written; a control character
x  +x  .x  /x    an encoded separator: `%2F` or `%5C` (`/` parts the values of `+x` raw)
+x               a leading separator or drive letter, so `file:///{+path}`, not `file://{+path}`
===============  ==========================================================================

The values of `{;x}` `{?x}` `{&x}` `{#x}` are data and may hold separators, encoded or raw.

**What it costs.** Time grows with the length of the URI times that of the template. Templates
whose cuts the next characters decide become a regular expression that cannot backtrack; the rest
are cut by a table.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from operator import or_
from typing import TypeAlias, TypeGuard
from urllib.parse import quote, unquote_to_bytes

import msgspec

from dragoman.errors import Misconfigured, Refused

__all__ = [
    "MAX_TEMPLATE_CHARS",
    "MAX_URI_CHARS",
    "MAX_VARIABLES",
    "AmbiguousUriTemplate",
    "TraversalRefused",
    "UriMatch",
    "UriScalar",
    "UriTemplate",
    "UriTemplateError",
    "UriValue",
    "UriValueError",
]

# 2,048: longer than any template a person writes, short enough to print in an error.
MAX_TEMPLATE_CHARS = 2_048
# 32: the table makes one pass over the URI for each, about a millisecond at the greatest length.
MAX_VARIABLES = 32
# 8,192 characters once encoded: what the common HTTP servers allow a whole request line.
MAX_URI_CHARS = 8_192

UriScalar: TypeAlias = str | int | float | bool
UriValue: TypeAlias = UriScalar | Sequence[UriScalar | None] | Mapping[str, UriScalar | None] | None
UriMatch: TypeAlias = dict[str, str | list[str] | dict[str, str]]


class UriTemplateError(Misconfigured):
    """A template that cannot be used.

    `.template` is its text, `.position` the 0-based character where it goes wrong, `.expected`
    what should stand there.
    """

    def __init__(self, template: str, position: int, expected: str) -> None:
        self.template = template
        self.position = position
        self.expected = expected
        shown = template if len(template) <= 80 else template[:77] + "..."
        super().__init__(f"URI template {shown!r}, character {position}: expected {expected}")


class AmbiguousUriTemplate(UriTemplateError):
    """A valid template that expands but cannot be matched: two values touch."""


class UriValueError(Misconfigured):
    """A value that cannot be written into a URI: `.variable` names it, `.expected` what may be."""

    def __init__(self, variable: str, expected: str) -> None:
        self.variable = variable
        self.expected = expected
        super().__init__(f"the URI variable {variable!r} must be {expected}")


class TraversalRefused(Refused):
    """A URI has the template's shape, but one of its values reaches for what it must not.

    `.template` and `.variable` say where, `.rule` which rule. The value itself is not repeated.
    To the peer this is a resource that does not exist.
    """

    def __init__(self, template: str, variable: str, rule: str) -> None:
        self.template = template
        self.variable = variable
        super().__init__(rule, f"the value of {variable!r} in {template!r}")


# --- the characters -----------------------------------------------------------------------------

# Matching looks at encoded text only, so these sets are ASCII, and "%" always begins a triplet.
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
_SEGMENT = _UNRESERVED | frozenset("%!$&'()*+,;=:@")
_QUERY = _SEGMENT | frozenset("/?")
_ANYTHING = _QUERY | frozenset("#[]")
_UPPER_HEX = frozenset("0123456789ABCDEF")

# What is left once RFC 6570 section 2.1 has named what a literal may not hold; the apostrophe may
# stand there since erratum 6937.
_LITERAL = re.compile(r"""(?:[^\x00-\x20"%<>\\^`{|}\x7f-\x9f\ud800-\udfff]|%[0-9A-Fa-f]{2})++""")
# Section 2.3 and 2.4: a name, then a prefix length or a star.
_VARIABLE = re.compile(
    r"((?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})(?:\.?(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2}))*+)"
    r"(?::([1-9][0-9]{0,3}+)|(\*))?+"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*+:")

_NON_ASCII = re.compile(r"[^\x00-\x7f]++")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LOWER_TRIPLET = re.compile(r"%(?:[a-f][0-9A-Fa-f]|[0-9A-F][a-f])")
# One character of a value that may hold triplets already: a whole UTF-8 sequence counts as one.
_WRITTEN_CHARACTER = re.compile(
    r"%[Cc-dD][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]"
    r"|%[Ee][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){2}"
    r"|%[Ff][0-7](?:%[89ABab][0-9A-Fa-f]){3}"
    r"|%[0-9A-Fa-f]{2}|.",
    re.DOTALL,
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Spaces around the dots as well: some file systems drop them.
_DOT_SEGMENT = re.compile(r"(?:^|[/\\])\ *+\.{1,2}+\ *+(?:\Z|[/\\])")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
_DOTS = frozenset((".", ".."))


# --- the template -------------------------------------------------------------------------------


class _Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table in RFC 6570 appendix A, and what its values may hold in a URI."""

    symbol: str
    first: str
    separator: str
    named: bool = False
    if_empty: str = ""
    keeps_reserved: bool = False
    chars: frozenset[str] = _SEGMENT
    is_path: bool = False
    """Whether its values are paths or parts of one: there an encoded separator only misleads."""


_OPERATORS = {
    operator.symbol: operator
    for operator in (
        _Operator(symbol="", first="", separator=",", is_path=True),
        _Operator(
            symbol="+",
            first="",
            separator=",",
            keeps_reserved=True,
            chars=_ANYTHING,
            is_path=True,
        ),
        _Operator(symbol="#", first="#", separator=",", keeps_reserved=True, chars=_ANYTHING),
        _Operator(symbol=".", first=".", separator=".", is_path=True),
        _Operator(symbol="/", first="/", separator="/", is_path=True),
        _Operator(symbol=";", first=";", separator=";", named=True),
        _Operator(symbol="?", first="?", separator="&", named=True, if_empty="=", chars=_QUERY),
        _Operator(symbol="&", first="&", separator="&", named=True, if_empty="=", chars=_QUERY),
    )
}


class _Variable(msgspec.Struct, frozen=True):
    name: str
    prefix: int | None
    explode: bool


class _Expression(msgspec.Struct, frozen=True):
    operator: _Operator
    variables: tuple[_Variable, ...]
    position: int


_Parts: TypeAlias = Sequence[str | _Expression]


class UriTemplate:
    """A parsed template, e.g. ``weather://{city}/now{?days}``. Immutable.

    `text` is the template as written, `variables` its names in order of appearance, `optional`
    those a match may leave out.

    Raises:
        UriTemplateError: `text` is not a template, or passes MAX_TEMPLATE_CHARS or MAX_VARIABLES.

    Spec: RFC 6570
    """

    __slots__ = ("_matcher", "_parts", "optional", "text", "variables")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _parse(text)
        self._matcher: _Matcher | None = None
        expressions = [part for part in self._parts if isinstance(part, _Expression)]
        self.variables = tuple(dict.fromkeys(v.name for e in expressions for v in e.variables))
        always = {v.name for e in expressions if not e.operator.first for v in e.variables}
        self.optional = frozenset(self.variables) - always

    def expand(self, values: Mapping[str, UriValue]) -> str:
        """Write the URI for `values`.

        None, a missing name and an empty list or map leave a variable out. Booleans are written
        `true` and `false`. Names the template does not hold are ignored.

        Raises:
            UriValueError: a value is no text, number, boolean, flat list or flat map; a list or
                map meets a prefix length; or text holds a lone surrogate.

        Spec: RFC 6570 section 3
        """
        return "".join(
            part if isinstance(part, str) else _expand(part, values) for part in self._parts
        )

    def ensure_matchable(self) -> None:
        """Prepare for `match`. Call it at registration, so that a fault shows there.

        Raises:
            AmbiguousUriTemplate: two expressions touch and nothing says where one ends.
        """
        if self._matcher is None:
            self._matcher = _Matcher(self.text, self._parts)

    def match(self, uri: str) -> UriMatch | None:
        """Read the values out of `uri`; None if it is not of this template.

        A variable's value is text; with `*` a list, or a map for named parameters. A URI longer
        than MAX_URI_CHARS is of no template.

        Raises:
            TraversalRefused: the URI fits, but a value must not be let through.
            AmbiguousUriTemplate: the template cannot be matched at all.
        """
        matcher = self._matcher
        if matcher is None:
            matcher = self._matcher = _Matcher(self.text, self._parts)
        return matcher.match(uri)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"UriTemplate({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, UriTemplate) else NotImplemented

    def __hash__(self) -> int:
        return hash((UriTemplate, self.text))


def _parse(text: str) -> tuple[str | _Expression, ...]:
    """Cut a template into literals, encoded as they will be written, and expressions."""
    if len(text) > MAX_TEMPLATE_CHARS:
        raise UriTemplateError(text, MAX_TEMPLATE_CHARS, f"at most {MAX_TEMPLATE_CHARS} characters")
    parts: list[str | _Expression] = []
    position = count = 0
    while position < len(text):
        if text[position] == "{":
            expression, end = _parse_expression(text, position)
            count += len(expression.variables)
            if count > MAX_VARIABLES:
                raise UriTemplateError(text, position, f"at most {MAX_VARIABLES} variables")
            parts.append(expression)
        else:
            literal = _LITERAL.match(text, position)
            if literal is None:
                raise UriTemplateError(
                    text, position, "a URI character, a percent-encoded one or an expression"
                )
            end = literal.end()
            parts.append(_encode_non_ascii(literal[0]))
        position = end
    return tuple(parts)


def _parse_expression(text: str, start: int) -> tuple[_Expression, int]:
    """Read the expression whose brace opens at `start`; also return where it ends."""
    position = start + 1
    operator = _OPERATORS[""]
    if position < len(text) and text[position] in _OPERATORS:
        operator = _OPERATORS[text[position]]
        position += 1
    variables: list[_Variable] = []
    while True:
        found = _VARIABLE.match(text, position)
        if found is None:
            raise UriTemplateError(text, position, "a variable name")
        name, prefix, star = found.groups()
        variables.append(_Variable(name, int(prefix) if prefix else None, star is not None))
        position = found.end()
        closing = text[position : position + 1]
        position += 1
        if closing == "}":
            return _Expression(operator, tuple(variables), start), position
        if closing != ",":
            raise UriTemplateError(text, position - 1, "',' or '}' after a variable")


# --- expansion ----------------------------------------------------------------------------------


def _expand(expression: _Expression, values: Mapping[str, UriValue]) -> str:
    """Write one expression, as RFC 6570 section 3.2.1 and appendix A lay down."""
    operator = expression.operator
    written: list[str] = []
    for variable in expression.variables:
        value = values.get(variable.name)
        if value is None:
            continue
        if isinstance(value, str | int | float):
            text = _scalar_text(variable.name, value)
            if variable.prefix is not None:
                text = _prefix(text, variable.prefix, operator)
            written.append(_pair(operator, variable.name, _encode(variable.name, text, operator)))
            continue
        members = _members(variable.name, value)
        if not members:
            continue
        if variable.prefix is not None:
            raise UriValueError(variable.name, "a single value, because it has a prefix length")
        encoded = [
            (
                None if key is None else _encode(variable.name, key, operator),
                _encode(variable.name, text, operator),
            )
            for key, text in members
        ]
        if not variable.explode:
            flat = ",".join(text for member in encoded for text in member if text is not None)
            # A list that holds one empty text is not itself empty, hence no `_pair`.
            written.append(f"{variable.name}={flat}" if operator.named else flat)
        elif operator.named:
            written.extend(
                _pair(operator, variable.name if key is None else key, text)
                for key, text in encoded
            )
        else:
            written.extend(text if key is None else f"{key}={text}" for key, text in encoded)
    return operator.first + operator.separator.join(written) if written else ""


def _pair(operator: _Operator, name: str, text: str) -> str:
    if not operator.named:
        return text
    return f"{name}={text}" if text else name + operator.if_empty


def _members(name: str, value: object) -> list[tuple[str | None, str]]:
    """Flatten a list or a map to (key or None, text), without what is undefined."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise UriValueError(name, "a map with text keys")
        pairs = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        pairs = [(None, member) for member in value]
    else:
        raise UriValueError(name, "text, a number, a boolean, a list or a map")
    return [(key, _scalar_text(name, member)) for key, member in pairs if member is not None]


def _scalar_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # Python writes no integer of more than some thousand digits
            raise UriValueError(name, "a shorter number") from None
    raise UriValueError(name, "text, a number, a boolean, or a flat list or map of these")


def _prefix(text: str, length: int, operator: _Operator) -> str:
    """The first `length` characters; a triplet that will be kept is never cut (section 2.4.1)."""
    if not operator.keeps_reserved or "%" not in text:
        return text[:length]
    characters = _WRITTEN_CHARACTER.finditer(text)
    return "".join(found[0] for _, found in zip(range(length), characters, strict=False))


def _encode(name: str, text: str, operator: _Operator) -> str:
    try:
        if not operator.keeps_reserved:
            return quote(text, safe="")
        # Section 3.2.3: reserved characters and triplets pass; only a stray "%" is encoded.
        return quote(_STRAY_PERCENT.sub("%25", text), safe="%:/?#[]@!$&'()*+,;=")
    except UnicodeEncodeError:
        raise UriValueError(name, "text without lone surrogates") from None


def _encode_non_ascii(text: str) -> str:
    return text if text.isascii() else _NON_ASCII.sub(lambda found: quote(found[0]), text)


# --- matching: the program ----------------------------------------------------------------------
#
# A template becomes a list of nodes, read from left to right. `_Optional` guards the nodes up to
# its `end`, always a `_Text` and a `_Run` first.


class _Text(msgspec.Struct, frozen=True):
    text: str


class _Run(msgspec.Struct, frozen=True):
    """One or more characters of `chars`: one value, or a whole block of named parameters."""

    chars: frozenset[str]
    operator: _Operator
    variables: tuple[_Variable, ...]
    by_name: Mapping[str, _Variable] = {}
    """For named parameters: who takes which, the names decoded."""


class _Optional(msgspec.Struct, frozen=True):
    end: int


_Node: TypeAlias = _Text | _Run | _Optional


def _join_expressions(template: str, parts: _Parts) -> list[str | _Expression]:
    """Join neighbours that write one list between them: `{/a}{/b}` is `{/a,b}`."""
    joined: list[str | _Expression] = []
    for part in parts:
        before = joined[-1] if joined else None
        if isinstance(part, _Expression) and isinstance(before, _Expression):
            if not part.operator.first:
                raise AmbiguousUriTemplate(
                    template, part.position, "text between an expression and the variable after it"
                )
            if before.operator.separator == part.operator.first:
                joined[-1] = _Expression(
                    before.operator, before.variables + part.variables, before.position
                )
                continue
        joined.append(part)
    return joined


def _compile(template: str, parts: _Parts) -> list[_Node]:
    joined = _join_expressions(template, parts)
    nodes: list[_Node] = []
    for index, part in enumerate(joined):
        if isinstance(part, str):
            nodes.append(_Text(_upper_triplets(part)))
            continue
        operator, variables = part.operator, part.variables
        if operator.named:
            by_name = {unquote_to_bytes(v.name).decode(errors="replace"): v for v in variables}
            nodes += (
                _Optional(len(nodes) + 3),
                _Text(operator.first),
                _Run(operator.chars, operator, variables, by_name),
            )
            continue
        later = {p.operator.symbol for p in joined[index + 1 :] if isinstance(p, _Expression)}
        end = len(nodes) + 3 * len(variables)
        for number, variable in enumerate(variables):
            lead = operator.separator if number else operator.first
            if operator.first:
                nodes.append(_Optional(end))
            if lead:
                nodes.append(_Text(lead))
            chars = operator.chars
            if operator.symbol == "+" and later & {"?", "&", "#"}:
                chars -= {"?", "#"}
            elif operator.symbol == "" and len(variables) > 1 and not variable.explode:
                chars -= {","}
            elif operator.symbol == "/" and variable.explode:
                chars |= {"/"}
            nodes.append(_Run(chars, operator, (variable,)))
    return nodes


# --- matching: cutting by pattern ---------------------------------------------------------------


def _pattern(nodes: Sequence[_Node]) -> re.Pattern[str] | None:
    """The program as a pattern without backtracking, one group a run; None if it needs the table.

    Each run must end where the next characters say so. Whenever the cut it makes is not provably
    the shortest that lets the rest match, there is no pattern.
    """
    pieces: list[str] = []
    ends = [node.end for node in nodes if isinstance(node, _Optional)]
    for index, node in enumerate(nodes):
        pieces.append(")?+" * ends.count(index))
        if isinstance(node, _Text):
            pieces.append(_any_case_scheme(node.text) if index == 0 else re.escape(node.text))
        elif isinstance(node, _Optional):
            if _first_char(nodes, index) in _firsts(nodes, node.end):
                return None
            pieces.append("(?:")
        else:
            body = _run_pattern(nodes, index)
            if body is None:
                return None
            pieces.append(f"({body})")
    pieces.append(")?+" * ends.count(len(nodes)))
    return re.compile("".join(pieces))


def _run_pattern(nodes: Sequence[_Node], index: int) -> str | None:
    run = nodes[index]
    assert isinstance(run, _Run)
    chars, after = run.chars, index + 1
    if not _firsts(nodes, after) & chars:
        return f"{_class(chars)}++"
    # From here on the run could swallow the start of what follows.
    stop = _first_char(nodes, after)
    if stop in _UPPER_HEX:  # it might be inside a triplet
        return None
    node, then = nodes[after], after + 1
    if isinstance(node, _Optional):
        # {name}{.ext}: the first dot with something behind it, as the last run can hold all that
        # this one gives up.
        last = nodes[after + 2]
        if after + 3 != len(nodes) or not _can_hold(last, chars | {stop}):
            return None
        return _stopped(chars, stop, re.escape(stop) + _class(last.chars))
    assert isinstance(node, _Text)
    if then < len(nodes) and isinstance(nodes[then], _Run):
        # {a}-{b}: likewise the first dash.
        if not _can_hold(nodes[then], chars | set(node.text)):
            return None
        return _stopped(chars, stop, re.escape(node.text))
    # {name}.json, {name}.json{?q}: only a suffix that ends the URI, or its path, counts.
    firsts = _firsts(nodes, then)
    if firsts & chars:
        return None
    end = rf"(?:\Z|{_class(firsts)})" if firsts else r"\Z"
    return _stopped(chars, stop, re.escape(node.text) + end)


def _stopped(chars: frozenset[str], stop: str, guard: str) -> str:
    """A run that ends before `guard`, which begins with `stop`, but is never empty."""
    rest = _class(chars - {stop})
    return f"{_class(chars)}{rest}*+(?:(?!{guard}){re.escape(stop)}{rest}*+)*+"


def _can_hold(node: _Node, chars: frozenset[str]) -> TypeGuard[_Run]:
    return isinstance(node, _Run) and chars <= node.chars


def _first_char(nodes: Sequence[_Node], index: int) -> str:
    """The character the text at `index`, or the optional text there, begins with."""
    node = nodes[index + 1] if isinstance(nodes[index], _Optional) else nodes[index]
    assert isinstance(node, _Text)
    return node.text[0]


def _firsts(nodes: Sequence[_Node], index: int) -> frozenset[str]:
    """Every character that may come at `index`. Runs never stand there: they follow text."""
    firsts: set[str] = set()
    while index < len(nodes):
        firsts.add(_first_char(nodes, index))
        node = nodes[index]
        if not isinstance(node, _Optional):
            break
        index = node.end
    return frozenset(firsts)


def _class(chars: frozenset[str]) -> str:
    """A character class, neighbours written as ranges."""
    ranges: list[list[str]] = []
    for char in sorted(chars):
        if ranges and ord(char) == ord(ranges[-1][-1]) + 1:
            ranges[-1][1:] = [char]
        else:
            ranges.append([char])
    return "[" + "".join("-".join(map(re.escape, ends)) for ends in ranges) + "]"


def _any_case_scheme(text: str) -> str:
    """Escape `text`, its scheme in either case. Not `(?i:`, where a Kelvin sign would be a k."""
    scheme = _SCHEME.match(text)
    end = scheme.end() if scheme else 0
    either = (f"[{c.lower()}{c.upper()}]" if c.isalpha() else re.escape(c) for c in text[:end])
    return "".join(either) + re.escape(text[end:])


# --- matching: cutting by table -----------------------------------------------------------------


def _cut(nodes: Sequence[_Node], uri: str, start: int) -> list[str | None] | None:
    """Cut `uri` from `start` on: the text of each run or None, or None if nothing fits.

    First a table, filled from the end: may node i begin at character p? Then one walk forward that
    leaves each run as soon as the rest may begin. Costs one step per node and character.
    """
    size = len(uri)
    end = bytearray(size + 1)
    end[size] = 1
    may_begin = [end] * (len(nodes) + 1)
    for index in range(len(nodes) - 1, -1, -1):
        node, then = nodes[index], may_begin[index + 1]
        row = bytearray(size + 1)
        if isinstance(node, _Text):
            width = len(node.text)
            found = uri.find(node.text, start)
            while found >= 0:
                row[found] = then[found + width]
                found = uri.find(node.text, found + 1)
        elif isinstance(node, _Optional):
            skipped = may_begin[node.end]
            row[:] = map(or_, then, skipped)
        else:
            chars = node.chars
            for at in range(size - 1, start - 1, -1):
                char = uri[at]
                if char in chars:
                    beyond = at + 3 if char == "%" else at + 1
                    row[at] = row[beyond] | then[beyond]
        may_begin[index] = row
    if not may_begin[0][start]:
        return None
    cuts: list[str | None] = []
    at = start
    index = 0
    while index < len(nodes):
        node = nodes[index]
        if isinstance(node, _Text):
            at += len(node.text)
        elif isinstance(node, _Run):
            begin = at
            then = may_begin[index + 1]
            at += 3 if uri[at] == "%" else 1
            while not then[at]:
                at += 3 if uri[at] == "%" else 1
            cuts.append(uri[begin:at])
        elif may_begin[node.end][at]:
            cuts.extend(None for left_out in nodes[index : node.end] if isinstance(left_out, _Run))
            index = node.end
            continue
        index += 1
    return cuts


# --- matching: reading the values ---------------------------------------------------------------


class _Matcher:
    """A template ready to match. Built once, at registration."""

    __slots__ = ("_head", "_nodes", "_pattern", "_plain_names", "_runs", "_template")

    def __init__(self, template: str, parts: _Parts) -> None:
        self._template = template
        nodes = _compile(template, parts)
        self._runs = [node for node in nodes if isinstance(node, _Run)]
        self._pattern = _pattern(nodes)
        head = ""
        if nodes and isinstance(nodes[0], _Text):
            head = _any_case_scheme(nodes[0].text)
            nodes = [
                _Optional(node.end - 1) if isinstance(node, _Optional) else node
                for node in nodes[1:]
            ]
        self._head = re.compile(head)
        self._nodes = nodes
        names = [variable.name for run in self._runs for variable in run.variables]
        # Most templates: {x} here and there. Their values need hardly any reading.
        is_plain = len(set(names)) == len(names) and all(
            run.operator.symbol == ""
            and not run.variables[0].explode
            and run.variables[0].prefix is None
            for run in self._runs
        )
        self._plain_names = names if is_plain else None

    def match(self, uri: str) -> UriMatch | None:
        if len(uri) > MAX_URI_CHARS:
            return None
        is_encoded = "%" in uri or not uri.isascii()
        if is_encoded:
            normal = _normalise(uri)
            if normal is None or len(normal) > MAX_URI_CHARS:
                return None
            uri = normal
        cuts: Sequence[str | None]
        if self._pattern is not None:
            found = self._pattern.fullmatch(uri)
            if found is None:
                return None
            cuts = found.groups()
        else:
            head = self._head.match(uri)
            table = None if head is None else _cut(self._nodes, uri, head.end())
            if table is None:
                return None
            cuts = table
        if self._plain_names is not None and not is_encoded and _DOTS.isdisjoint(cuts):
            return dict(zip(self._plain_names, cuts, strict=True))  # type: ignore[arg-type]
        return self._read(cuts)

    def _read(self, cuts: Sequence[str | None]) -> UriMatch | None:
        values: UriMatch = {}
        prefixes: dict[str, int | None] = {}
        for run, raw in zip(self._runs, cuts, strict=True):
            if raw is None:
                continue
            read = self._read_named(run, raw) if run.operator.named else self._read_one(run, raw)
            if read is None:
                return None
            for variable, value in read:
                if not _agree(values, prefixes, variable, value):
                    return None
        return values

    def _read_one(
        self, run: _Run, raw: str
    ) -> list[tuple[_Variable, str | list[str] | dict[str, str]]] | None:
        variable = run.variables[0]
        if not variable.explode:
            text = self._decode(variable.name, run.operator, raw)
            return None if text is None else [(variable, text)]
        members: list[str] = []
        for piece in raw.split(run.operator.separator):
            # Joined again, empty segments make an absolute path and empty labels make "..".
            if not piece and run.operator.symbol in ("/", "."):
                return None
            text = self._decode(variable.name, run.operator, piece)
            if text is None:
                return None
            members.append(text)
        return [(variable, members)]

    def _read_named(
        self, run: _Run, raw: str
    ) -> list[tuple[_Variable, str | list[str] | dict[str, str]]] | None:
        exploded = [variable for variable in run.by_name.values() if variable.explode]
        collects = exploded[0] if len(exploded) == 1 else None
        values: dict[_Variable, str | list[str] | dict[str, str]] = {}
        for pair in raw.split(run.operator.separator):
            raw_name, _, raw_text = pair.partition("=")
            owner = collects.name if collects is not None else run.variables[0].name
            name = self._decode(owner, run.operator, raw_name)
            if name is None:
                return None
            variable = run.by_name.get(name, collects)
            if variable is None:
                return None
            text = self._decode(variable.name, run.operator, raw_text)
            if text is None:
                return None
            if not variable.explode:
                if variable in values:
                    return None
                values[variable] = text
            elif name in run.by_name:
                members = values.setdefault(variable, [])
                if not isinstance(members, list):
                    return None
                members.append(text)
            else:
                entries = values.setdefault(variable, {})
                if not isinstance(entries, dict) or name in entries:
                    return None
                entries[name] = text
        return list(values.items())

    def _decode(self, variable: str, operator: _Operator, raw: str) -> str | None:
        """Decode a value once; None if it is not UTF-8."""
        text = raw
        if "%" in raw:
            try:
                text = unquote_to_bytes(raw).decode()
            except UnicodeDecodeError:
                return None
            if _CONTROL.search(text):
                raise TraversalRefused(self._template, variable, "no control characters")
            if operator.is_path and ("%2F" in raw or "%5C" in raw):
                raise TraversalRefused(self._template, variable, "no encoded separators")
        if "." in text and _DOT_SEGMENT.search(text):
            raise TraversalRefused(self._template, variable, "no '.' or '..' segments")
        if operator.symbol == "+" and _ABSOLUTE.match(text):
            raise TraversalRefused(self._template, variable, "no absolute paths")
        return text


def _agree(
    values: UriMatch,
    prefixes: dict[str, int | None],
    variable: _Variable,
    value: str | list[str] | dict[str, str],
) -> bool:
    """Enter a value; False if it is too long, or contradicts an earlier one of the same name.

    `prefixes` holds the length each entered value may have been cut to, None for a whole one.
    """
    name, prefix = variable.name, variable.prefix
    if prefix is not None and len(value) > prefix:
        return False
    if name not in values:
        values[name] = value
        prefixes[name] = prefix
        return True
    known, known_prefix = values[name], prefixes[name]
    if not isinstance(known, str) or not isinstance(value, str):
        return known == value
    if prefix is None or (known_prefix is not None and prefix > known_prefix):
        values[name], prefixes[name] = value, prefix
        known, value, prefix = value, known, known_prefix
    return known[:prefix] == value


def _normalise(uri: str) -> str | None:
    """Encode what is not ASCII and write triplets in capitals; None if that cannot be."""
    try:
        uri = _encode_non_ascii(uri)
    except UnicodeEncodeError:
        return None
    return None if _STRAY_PERCENT.search(uri) else _upper_triplets(uri)


def _upper_triplets(text: str) -> str:
    return _LOWER_TRIPLET.sub(lambda found: found[0].upper(), text)
