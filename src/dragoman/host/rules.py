"""One line of policy: `ACTION(SERVER/OBJECT, ARGUMENT=VALUE)` under allow, ask or deny.

The same text reads narrowly under allow and widely under deny and ask. A path or a URL can be
written in many ways (`/srv/app/../../etc`, `%2e%2e`, `HTTPS://Example.com.`); an allow holds only
when every reading of it fits, a deny or an ask as soon as one does. A rule that could never match
is refused when it is read, since a deny that does nothing looks like protection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import unquote

from dragoman.errors import Misconfigured
from dragoman.host.kinds import Action, Effect, Intent, Trust

__all__ = [
    "LAYERS",
    "Layer",
    "Matcher",
    "Pattern",
    "Rule",
    "action_named",
    "at_pointer",
    "suggestion",
]

Layer = Literal["managed", "user", "project", "command line"]
# In the order in which they are read; no later one can loosen an earlier one.
LAYERS: tuple[Layer, ...] = ("managed", "user", "project", "command line")

# 4,096 characters: a URL of 2,000 with its matchers fits; a rule is for people to read.
MAX_RULE_CHARS = 4096
# Five rounds of percent decoding: nobody's server decodes more often, and each round costs time.
MAX_DECODINGS = 5

# 65,536 characters: no path and no URL is longer. An allow does not look for one in there; a deny
# does, once for all rules, since each megabyte takes some tenths of a second.
MAX_READ_CHARS = 65_536

_SHORT = {
    "tool": Action.TOOL_CALL,
    "resource": Action.RESOURCE_READ,
    "prompt": Action.PROMPT_GET,
    "roots": Action.ROOTS_EXPOSE,
    "sampling": Action.SAMPLING_REQUEST,
}
_ACTIONS: Mapping[str, Action] = {**{one.value: one for one in Action}, **_SHORT}

# Where a server alone would be half a sentence: `tool(delete_x)` was meant as a tool's name.
_NEEDS_OBJECT = {
    Action.TOOL_CALL,
    Action.TOOL_EXPOSE,
    Action.RESOURCE_READ,
    Action.PROMPT_GET,
    Action.ROOTS_EXPOSE,
}
_TAKES_ARGUMENTS = {Action.TOOL_CALL, Action.PROMPT_GET}

_SHAPE = re.compile(r"([^()\s]*)\s*\((.*)\)", re.DOTALL)
_DECODER = json.JSONDecoder()
_ARGUMENT = re.compile(r",\s*([^\s,=()\"]+)\s*=\s*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_SCHEME_BEGUN = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*)?")
_AUTHORITY_END = re.compile(r"[/?#\\]")
_PATH_END = re.compile(r"[?#]")
# What may read differently to a server than to us: only such texts need a second look.
_MANY_READINGS = re.compile(
    r"[%\\\x00]|//|(?:^|/)\.\.?(?:[/?#]|$)|^[A-Za-z][A-Za-z0-9+.\-]*:", re.DOTALL
)
_STAR_TRIPLET = re.compile(r"%(?:25)*2[Aa]")
_PORTS = {"http": ":80", "https": ":443"}


def suggestion(name: str, known: Collection[str]) -> str:
    """The end of an error's sentence: what may have been meant, or what there is."""
    near = get_close_matches(name, list(known), n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not known:
        return "; there are none"
    return f"; there is {', '.join(repr(one) for one in sorted(known)[:20])}"


class Pattern:
    """A text in which `*` stands for any characters, none included; nothing else is special.

    With `is_literal`, not even that. Matching takes time in proportion to the text, whatever both
    hold.
    """

    __slots__ = ("_forms", "is_exact", "text")

    def __init__(self, text: str, *, is_literal: bool = False) -> None:
        self.text = text
        self.is_exact = is_literal or "*" not in text
        # With %2A it stays as it is: decoded, that would become a wildcard.
        is_decoded = is_literal or not _STAR_TRIPLET.search(text)
        forms = _readings(text) if is_decoded else (text,)
        self._forms = tuple(_Glob(one, is_literal=is_literal) for one in forms)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Pattern)
            and self.text == other.text
            and self.is_exact == other.is_exact
        )

    def __hash__(self) -> int:
        return hash((self.text, self.is_exact))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    @property
    def is_any(self) -> bool:
        """Whether it is `*` and nothing else."""
        return self.text == "*" and not self.is_exact

    def covers(self, text: str) -> bool:
        """As it stands: one reading, `*` for anything."""
        return self._forms[0].covers(text)

    def fits_widely(self, text: str) -> bool:
        """Whether any reading of the text fits: for deny and ask."""
        if text == self.text or self._forms[0].covers(text):
            return True
        return any(form.covers(one) for one in _readings(text) for form in self._forms)

    def fits_narrowly(self, text: str) -> bool:
        """Whether every reading of the text fits: for allow.

        The text itself must fit the pattern itself; no `*` reaches out of a URL's host.
        """
        if text == self.text or self.is_any:
            return True
        if not self._forms[0].covers_url(text):
            return False
        if len(text) > MAX_READ_CHARS and _MANY_READINGS.search(text):
            return False
        return all(
            any(form.covers_url(one) for form in self._forms)
            # Bytes that are no UTF-8: some read a dot or a slash where we read nothing.
            and ("\ufffd" not in one or "\ufffd" in text)
            for one in _readings(text)
        )


class _Glob:
    """One form of a pattern, cut at its stars."""

    __slots__ = ("_exact", "_head", "_middle", "_tail", "_url")

    def __init__(self, text: str, *, is_literal: bool = False, is_part: bool = False) -> None:
        self._exact: str | None = None
        self._url: tuple[_Glob, _Glob] | None = None
        if is_literal or "*" not in text:
            self._exact = text
            return
        self._head, *middle, self._tail = text.split("*")
        self._middle = [one for one in middle if one]
        cut = 0 if is_part else _url_cut(text)
        # A host that may be any: its star means what it always means.
        if cut and "*" in text[:cut] and not text[:cut].endswith("://*"):
            self._url = _Glob(text[:cut], is_part=True), _Glob(text[cut:], is_part=True)

    def covers(self, text: str) -> bool:
        if self._exact is not None:
            return text == self._exact
        at, end = len(self._head), len(text) - len(self._tail)
        if at > end or not text.startswith(self._head) or not text.endswith(self._tail):
            return False
        for piece in self._middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    def covers_url(self, text: str) -> bool:
        """The same, but a star in a host stays within the host."""
        if self._url is None:
            return self.covers(text)
        cut = _url_cut(text)
        head, rest = self._url
        return (
            cut > 0
            and "@" not in text[:cut]
            # Browsers turn letters that look like a dot or a slash into one; punycode is ASCII.
            and text[:cut].isascii()
            and head.covers(text[:cut])
            and rest.covers(text[cut:])
        )


def _url_cut(text: str) -> int:
    """Where a URL's host ends; 0 if there is none."""
    begin = text.find("://")
    if begin < 0:
        return 0
    end = _AUTHORITY_END.search(text, begin + 3)
    return end.start() if end else len(text)


def _readings(text: str) -> tuple[str, ...]:
    """The text, and what a server may make of it: decoded, with dots resolved, at its real host.

    Servers differ in four things: whether they decode, whether a NUL ends a text, whether \\ is a
    slash, and what they make of an empty segment or a ? in a path. Each way is a reading.
    """
    if not _MANY_READINGS.search(text):
        return (text,)
    return _long_readings(text) if len(text) > MAX_READ_CHARS else _all_readings(text)


def _all_readings(text: str) -> tuple[str, ...]:
    found = {text: None, _decoded(text): None}
    if "\x00" in text or "%" in text:
        found |= {one.partition("\x00")[0]: None for one in found}
    if "\\" in text or "%" in text:
        found |= {one.replace("\\", "/"): None for one in found}
    for one in tuple(found):
        for is_path_ended in (False, True) if "?" in one or "#" in one else (False,):
            found[_plain(one, is_path_ended, False)] = None
            found[_plain(one, is_path_ended, True)] = None
    return tuple(found)


# Two: a call has hardly more arguments of that length, and each rule looks at them anew.
_long_readings = lru_cache(maxsize=2)(_all_readings)


def _decoded(text: str) -> str:
    for _ in range(MAX_DECODINGS):
        once = unquote(text)
        if once == text:
            break
        text = once
    return text


def _plain(text: str, is_path_ended: bool, keeps_empty: bool) -> str:
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _resolved(text, keeps_empty)
    name, rest = scheme[1].lower(), text[scheme.end() :]
    host = ""
    if name in _PORTS:
        # A browser takes https:host and https:///host for https://host.
        rest = "//" + rest.lstrip("/")
    if rest.startswith("//"):
        cut = _AUTHORITY_END.search(rest, 2)
        end = cut.start() if cut else len(rest)
        host, rest = _plain_host(name, rest[2:end]), rest[end:]
    elif name != "file":
        # No path we know the meaning of, or a drive letter.
        return f"{name}:{_resolved(rest, keeps_empty)}"
    tail = ""
    if is_path_ended and (path_end := _PATH_END.search(rest)):
        rest, tail = rest[: path_end.start()], rest[path_end.start() :]
    return f"{name}://{host}{_resolved(rest, keeps_empty)}{tail}"


def _plain_host(scheme: str, authority: str) -> str:
    host = authority.rpartition("@")[2].lower().removesuffix(_PORTS.get(scheme, ":"))
    host = host.rstrip(".")
    return "" if scheme == "file" and host == "localhost" else host


def _resolved(path: str, keeps_empty: bool) -> str:
    """Without "." and ".." segments, as far as it goes; a last slash stays.

    An empty segment is nothing to a file system, and one that ".." takes away to a URL.
    """
    if "//" not in path and "." not in path:
        return path
    is_rooted = path.startswith("/")
    kept: list[str] = []
    segments = path.removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            if kept and kept[-1] != "..":
                kept.pop()
            elif not is_rooted:
                kept.append(segment)
        elif segment != "." and (segment or keeps_empty):
            kept.append(segment)
    is_folder = segments[-1] in ("", ".", "..") and bool(kept) and kept[-1] != ""
    return ("/" if is_rooted else "") + "/".join(kept) + ("/" if is_folder else "")


@dataclass(frozen=True, slots=True)
class Matcher:
    """What one argument must be: `pointer` is the way to it, `pattern` what stands there."""

    pointer: tuple[str, ...]
    pattern: Pattern

    def fits(self, arguments: Mapping[str, Any] | None, *, widely: bool) -> bool:
        """Whether the argument is there and fits.

        Texts match as they are, numbers, true, false and null as JSON writes them. Of a list, all
        items must fit for an allow, and any for a deny or an ask; of what is deeper, none for an
        allow, and any for the others.
        """
        found, value = at_pointer(arguments, self.pointer)
        if not found:
            return False
        if self.pattern.is_any:
            return True
        if widely:
            return any(
                self.pattern.fits_widely(text) for leaf in _leaves(value) for text in _texts(leaf)
            )
        items = value if isinstance(value, list) else [value]
        return bool(items) and all(
            not isinstance(item, list | dict) and self.pattern.fits_narrowly(_texts(item)[0])
            for item in items
        )


def at_pointer(value: Any, way: Collection[str]) -> tuple[bool, Any]:
    """What stands there (RFC 6901, already split and unescaped), and whether anything does."""
    for step in way:
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif (
            isinstance(value, list)
            and step.isascii()
            and step.isdigit()
            # Nine digits hold any index; a longer one would be costly to read.
            and len(step) < 10
            and str(int(step)) == step
            and int(step) < len(value)
        ):
            value = value[int(step)]
        else:
            return False, None
    return True, value


def _leaves(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)
        else:
            yield one


def _texts(leaf: Any) -> tuple[str, ...]:
    """How a rule may write this value; the first is how JSON does."""
    if isinstance(leaf, str):
        return (leaf,)
    try:
        text = json.dumps(leaf)
    except (TypeError, ValueError):
        # No JSON, or a number of thousands of digits: only `*` fits.
        return ("",)
    if isinstance(leaf, float) and leaf.is_integer():
        return text, f"{leaf:.0f}"
    return (text,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule, ready to match.

    `text` is as it was written, `source` says where ("FILE:LINE"). `server` and `object` are
    patterns; of a flow they are its source and its sink. One that `only_tightens` is a stranger's:
    it can turn a yes into a question, but never a no.
    """

    text: str
    effect: Effect
    action: Action
    server: Pattern
    object: Pattern
    arguments: tuple[Matcher, ...] = ()
    layer: Layer
    source: str = ""
    only_tightens: bool = False
    _is_wide: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_is_wide", self.effect is not Effect.ALLOW)

    def __str__(self) -> str:
        return f"{self.effect} {self.text}"

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        effect: Effect,
        layer: Layer,
        source: str = "",
        servers: Collection[str] | None = None,
    ) -> Rule:
        """Read one rule; `servers` are the aliases it may speak of, None if they are not known.

        Raises:
            Misconfigured: it is no rule, or could never match; begins with `source`, and says what
                may have been meant.
        """
        if effect not in (Effect.ALLOW, Effect.ASK, Effect.DENY):
            raise ValueError(f"a rule cannot say {effect}")
        found = _Parser(text, effect, source, servers)
        action, server, target, arguments = found.read()
        return cls(
            text=text.strip(),
            effect=effect,
            action=action,
            server=server,
            object=target,
            arguments=arguments,
            layer=layer,
            source=source,
        )

    @property
    def is_for_one(self) -> bool:
        """Whether it names its server and its object, with no wildcard in either."""
        return self.server.is_exact and self.object.is_exact

    def is_about(self, intent: Intent) -> bool:
        """Whether action, server and object fit, whatever the arguments are."""
        if intent.action is not self.action:
            return False
        if self.action is Action.FLOW:
            return self._is_about_flow(intent)
        if not self.server.covers(intent.server):
            return False
        if self._is_wide:
            return self.object.fits_widely(intent.object)
        return self.object.fits_narrowly(intent.object)

    def _is_about_flow(self, intent: Intent) -> bool:
        origin, arrow, sink = (part.strip() for part in intent.object.partition("->"))
        if not arrow:
            # No flow as we write it: nothing to allow, but a wide deny still holds.
            origin, sink = intent.server, ""
        if not self.server.covers(origin.removeprefix("server:")):
            return False
        if self.object.text == _UNKNOWN and sink.startswith("server:"):
            return intent.trust not in (Trust.REVIEWED, Trust.TRUSTED) or sink == _UNKNOWN
        return self.object.covers(sink)

    def fits_arguments(self, intent: Intent) -> bool:
        """Whether the arguments fit all of its matchers."""
        return all(one.fits(intent.arguments, widely=self._is_wide) for one in self.arguments)

    def matches(self, intent: Intent) -> bool:
        """Whether it speaks of this."""
        return self.is_about(intent) and self.fits_arguments(intent)


# The class of servers that nobody has looked at.
_UNKNOWN = "server:unknown"

_Read = tuple[Action, Pattern, Pattern, tuple[Matcher, ...]]


class _Parser:
    """Reads one rule, with an error for everything that is none."""

    def __init__(
        self, text: str, effect: Effect, source: str, servers: Collection[str] | None
    ) -> None:
        self._text = text.strip()
        self._effect = effect
        self._source = source
        self._servers = servers

    def read(self) -> _Read:
        text = self._text
        if not text:
            raise self._fault("is empty")
        if len(text) > MAX_RULE_CHARS:
            raise self._fault(f"is longer than {MAX_RULE_CHARS} characters")
        if not text.isprintable():
            raise self._fault("holds characters that cannot be seen")
        if text.startswith("mcp__"):
            return self._read_flat()
        shape = _SHAPE.fullmatch(text)
        if shape is None:
            raise self._fault(f"must look like ACTION(SERVER/OBJECT){self._guess_shape()}")
        name, body = shape[1], shape[2].strip()
        if "*" in name:
            raise self._fault("has a pattern as its action; write a rule for each action")
        if name not in _ACTIONS:
            raise self._fault(f"has the unknown action {name!r}{_guess_action(name)}")
        action = _ACTIONS[name]
        if not body:
            raise self._fault(f"speaks of nothing; for every server, write {name}({_any(action)})")
        if action is Action.FLOW:
            return self._read_flow(body)
        arguments: tuple[Matcher, ...] = ()
        if action in _TAKES_ARGUMENTS:
            body, arguments = self._read_arguments(body)
        server, slash, target = (part.strip() for part in body.partition("/"))
        if not slash:
            if action in _NEEDS_OBJECT:
                raise self._fault(
                    "needs a server and what of it, SERVER/OBJECT; "
                    f"did you mean {self._guess_object(name, server)!r}?"
                )
            target = "*"
        if not target:
            raise self._fault(f"says nothing after the slash; for all of it, write {server}/*")
        self._check_object(action, name, server, target)
        return action, self._server(server), Pattern(target), arguments

    # --- its parts --------------------------------------------------------------------------------

    def _read_flat(self) -> _Read:
        """mcp__SERVER__TOOL, or mcp__SERVER for all its tools, as other hosts write it."""
        flat = self._text.removeprefix("mcp__")
        if not flat or "(" in flat or "/" in flat:
            raise self._fault("must look like mcp__SERVER__TOOL")
        cuts = [
            (flat[:at], flat[at + 2 :])
            for at in range(1, len(flat) - 2)
            if flat.startswith("__", at)
        ]
        ways = [*cuts, *([] if cuts and self._servers is None else [(flat, "*")])]
        if self._servers is not None and len(ways) > 1:
            known = [way for way in ways if any(Pattern(way[0]).covers(s) for s in self._servers)]
            ways = known or cuts[:1]
        if len(ways) > 1:
            spelt = " or ".join(f"tool({server}/{tool})" for server, tool in ways)
            raise self._fault(f"can be read in more than one way; write {spelt}")
        server, tool = ways[0]
        return Action.TOOL_CALL, self._server(server), Pattern(tool), ()

    def _read_flow(self, body: str) -> _Read:
        parts = [part.strip() for part in body.split("->")]
        if len(parts) != 2 or not all(parts):
            raise self._fault(
                "needs a source and a sink: flow(SERVER -> model:PROVIDER) or "
                "flow(SERVER -> server:OTHER)"
            )
        origin, sink = parts
        kind, colon, name = sink.partition(":")
        if sink != "*" and (not colon or kind not in ("model", "server") or not name.strip()):
            known = set(self._servers or ())
            better = "server:" + sink if sink in known else "model:" + (name or sink)
            raise self._fault(
                f"has the sink {sink!r}, which is neither model:PROVIDER nor server:ALIAS; "
                f"did you mean {f'flow({origin} -> {better})'!r}?"
            )
        origin = origin.removeprefix("server:")
        if self._effect is Effect.ALLOW and (
            sink in ("*", _UNKNOWN) or (kind == "server" and "*" in name)
        ):
            raise self._fault(
                "lets words flow to servers it does not name: an allow names the one, as in"
                " 'flow(fs -> server:web)'"
            )
        if kind == "server" and sink != _UNKNOWN:
            self._server(name)
        return Action.FLOW, self._server(origin), Pattern(sink), ()

    def _read_arguments(self, body: str) -> tuple[str, tuple[Matcher, ...]]:
        first = _ARGUMENT.search(body)
        target = body[: first.start()] if first else body
        if "," in target:
            raise self._fault("has a comma that no ARGUMENT=VALUE follows")
        found: dict[tuple[str, ...], Pattern] = {}
        next_one = first
        while next_one is not None:
            way = self._pointer(next_one[1])
            begin = next_one.end()
            if body.startswith('"', begin):
                try:
                    value, end = _DECODER.raw_decode(body, begin)
                except json.JSONDecodeError:
                    raise self._fault(f"has a broken text for {next_one[1]!r}") from None
                pattern = Pattern(value, is_literal=True)
                next_one = _ARGUMENT.match(body, end)
                if next_one is None and body[end:].strip():
                    raise self._fault(f"has {body[end:].strip()!r} after a text in quotes")
            else:
                next_one = _ARGUMENT.search(body, begin)
                value = body[begin : next_one.start() if next_one else len(body)].strip()
                if not value:
                    raise self._fault(
                        'has an argument without a value; for the empty text write ""'
                    )
                if "," in value:
                    raise self._fault(
                        f"has a comma in {value!r}; put a text with a comma in quotes, "
                        "where * is a character like any"
                    )
                pattern = Pattern(value)
            if way in found:
                raise self._fault(f"names the argument {'/'.join(way)!r} twice")
            found[way] = pattern
        return target.strip(), tuple(Matcher(way, pattern) for way, pattern in found.items())

    def _pointer(self, name: str) -> tuple[str, ...]:
        if not name.startswith("/"):
            return (name,)
        return tuple(
            step.replace("~1", "/").replace("~0", "~") for step in name.removeprefix("/").split("/")
        )

    def _server(self, name: str) -> Pattern:
        if not name:
            raise self._fault("names no server; * is any")
        if "/" in name or "(" in name or ")" in name:
            raise self._fault(f"has {name!r} as its server, which cannot be an alias")
        pattern = Pattern(name)
        if self._effect is Effect.ALLOW and not pattern.is_exact:
            raise self._fault(
                "allows something of servers it does not name: an allow names the one, and only"
                " what follows it may have a *"
            )
        if self._servers is not None and not any(pattern.covers(one) for one in self._servers):
            if pattern.is_any:
                return pattern
            raise self._fault(
                f"can never match: no server is called {name!r}{suggestion(name, self._servers)}"
            )
        return pattern

    def _check_object(self, action: Action, name: str, server: str, target: str) -> None:
        """Refuse what no object of that kind can look like, and an allow that is wide open."""
        begin, star, _ = target.partition("*")
        if action is Action.ROOTS_EXPOSE and not _may_begin(begin, bool(star), "file:"):
            better = f"{name}({server}/file:///{target.lstrip('/')})"
            raise self._fault(f"can never match: a root is a file: URI; did you mean {better!r}?")
        if action is Action.ELICIT_URL and not any(
            _may_begin(begin, bool(star), one) for one in ("http://", "https://")
        ):
            better = f"{name}({server}/https://{target.rpartition('://')[2]})"
            raise self._fault(f"can never match: it needs a URL; did you mean {better!r}?")
        if action is Action.RESOURCE_READ and not (
            _SCHEME.match(begin) or (star and _SCHEME_BEGUN.fullmatch(begin))
        ):
            better = f"{name}({server}/file:///{target.lstrip('/')})"
            raise self._fault(
                f"can never match: a resource has a URI with its scheme; did you mean {better!r}?"
            )
        host = target[: _url_cut(target)]
        if (
            self._effect is Effect.ALLOW
            and host.endswith("*")
            and not host.endswith(("://*", ":*"))
            and not host.lower().startswith("file:")
        ):
            raise self._fault(
                f"allows every host that begins like {host!r}; end the host, as in "
                f"{host.rstrip('*').rstrip('.') + '/*'!r}"
            )

    # --- its errors -------------------------------------------------------------------------------

    def _fault(self, what: str) -> Misconfigured:
        lead = f"{self._source}: " if self._source else ""
        shown = self._text if len(self._text) <= 200 else f"{self._text[:200]}..."
        return Misconfigured(f"{lead}the rule {shown!a} {what}")

    def _guess_shape(self) -> str:
        text = self._text
        if text in _ACTIONS:
            return f"; did you mean '{text}({_any(_ACTIONS[text])})'?"
        if "/" in text and "(" not in text and ")" not in text:
            return f"; did you mean 'tool({text})'?"
        return ""

    def _guess_object(self, name: str, server: str) -> str:
        is_known = self._servers is not None and server in self._servers
        return f"{name}({server}/*)" if is_known else f"{name}(*/{server})"


def _any(action: Action) -> str:
    if action is Action.FLOW:
        return "* -> *"
    return "*/*" if action in _NEEDS_OBJECT else "*"


def action_named(word: str) -> Action:
    """The action of that name, or of the short one that rules use. Misconfigured: there is none."""
    if word not in _ACTIONS:
        raise Misconfigured(f"{word!r} is no action{_guess_action(word)}")
    return _ACTIONS[word]


def _guess_action(name: str) -> str:
    within = [one for one in _ACTIONS if name and one.startswith(f"{name}.")]
    if within:
        return f"; did you mean {' or '.join(repr(one) for one in within)}?"
    return suggestion(name, _ACTIONS)


def _may_begin(begin: str, is_open: bool, with_: str) -> bool:
    """Whether a text that begins so, and goes on if it is open, can begin with this."""
    begin = begin.lower()
    return begin.startswith(with_) or (is_open and with_.startswith(begin))
