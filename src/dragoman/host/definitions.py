"""What a server offers, as it sent it: fingerprints, faults, and what a person should know.

A definition is kept as the JSON it came as, members that nobody knows included: what is not looked
at could be changed unseen. Everything here takes time in proportion to its size, within bounds;
nothing is fetched, compiled or run.

Spec: server/tools#tool, server/tools#x-mcp-header, basic/index#icons, basic/index#json-schema-usage
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from dragoman.errors import Misconfigured
from dragoman.host.canonical import canonical, digest, digest_of_bytes
from dragoman.host.kinds import Code, Problem, Risk
from dragoman.model.faults import resolve
from dragoman.model.names import check_tool_name
from dragoman.model.schema_check import check_shapes
from dragoman.model.unseen import UNSEEN, one_line, unseen_in, without_unseen

__all__ = [
    "KINDS",
    "PINNED",
    "Definition",
    "Hints",
    "check_definition",
    "check_tool",
    "cleaned",
    "hints_of",
    "refused_icons",
    "risks_of",
]

KINDS = ("tool", "prompt", "resource_template", "resource", "instructions")
PINNED = frozenset(KINDS) - {"resource"}
"""The kinds that are reviewed and pinned. Resources come and go with what a server works on."""

# What makes up the contract of each kind: whoever keeps to the old one may break with a new one.
_CONTRACT: Mapping[str, tuple[str, ...]] = {
    "tool": ("inputSchema", "outputSchema"),
    "prompt": ("arguments",),
    "resource_template": ("uriTemplate", "mimeType"),
    "resource": ("uri", "mimeType"),
    "instructions": (),
}
_NAMED_BY = {"resource_template": "uriTemplate", "resource": "uri"}

# 1 MiB: ten times the longest definitions in use, and far beyond what a person reviews.
MAX_BYTES = 1024 * 1024
# 20,000 values in one definition: a tenth of a second for all that is looked for in it.
MAX_VALUES = 20_000
# 64 levels: schemas in use have some ten; whoever walks one recursively must survive it.
MAX_DEPTH = 64
# 1 KiB: the specification advises 128 characters for a tool; URI templates need more.
MAX_NAME_CHARS = 1024
# 64 KiB of instructions are some 16,000 tokens before the first question is asked.
MAX_INSTRUCTIONS_CHARS = 64 * 1024
# 64 KiB: a picture of 48 by 48 has some two.
MAX_ICON_CHARS = 64 * 1024
# 20: a person reads the first few; the rest would hide what comes after them.
MAX_RISKS = 20

# Texts that are sent back or compared: they cannot be cleaned, so they have to be clean.
_EXACT = frozenset(
    {"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "const", "default", "enum",
     "format", "name", "pattern", "required", "uri", "uriTemplate"}
)  # fmt: skip

# In canonical JSON: the escapes of whatever is not seen, and of eight line ends in a row.
_ESCAPED = re.compile(rb"\\[bfru]")
_LINE_ENDS = re.compile(rb"\\n(?:(?: |\\t)*\\n){7}")
_BLANKS = b" " * 32

_PICTURE = re.compile(r"data:image/(?:png|jpeg|jpg|webp|gif);base64,[A-Za-z0-9+/]*={0,2}", re.I)

# A token of RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER = "x-mcp-header"
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

# Keywords that hold data, not schemas; and those that hold schemas by name.
_DATA = frozenset({"const", "default", "enum", "examples"})
_MAPS = frozenset(
    {"$defs", "definitions", "dependentSchemas", "dependencies", "patternProperties", "properties"}
)


@dataclass(frozen=True)
class Definition:
    """One definition, untouched: `raw` is what the server sent, be it what it may.

    `name` is what it is asked for by: a tool's or prompt's name, a template's text, a resource's
    URI; empty for instructions, and where the server gave none.
    """

    kind: str
    name: str
    raw: Any

    @classmethod
    def of(cls, kind: str, raw: Any) -> Definition:
        """A definition from one item of a list result; instructions are `{"text": ...}`.

        What is wrong with it is for `check_definition` to say.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of definition")
        name = raw.get(_NAMED_BY.get(kind, "name"), "") if isinstance(raw, dict) else ""
        return cls(kind, name if isinstance(name, str) and kind != "instructions" else "", raw)

    @property
    def key(self) -> str:
        """Its kind and name in one, as pins have it: "tool/read_file", "instructions"."""
        return f"{self.kind}/{self.name}" if self.kind != "instructions" else self.kind

    @cached_property
    def text(self) -> bytes:
        """Its canonical JSON; empty where it has none, which makes it unfit."""
        try:
            return canonical(self.raw)
        except ValueError:
            return b""

    @cached_property
    def full(self) -> str:
        """The digest of everything in it; empty where it has no canonical JSON."""
        return digest_of_bytes(self.text) if self.text else ""

    @cached_property
    def contract(self) -> str:
        """The digest of its schemas or arguments alone; empty as `full` is."""
        if not self.text:
            return ""
        members = self.raw if isinstance(self.raw, dict) else {}
        return digest({name: members[name] for name in _CONTRACT[self.kind] if name in members})

    @cached_property
    def bound_fault(self) -> str:
        """Too many values, or nested too deeply, in a sentence; "" when it is within bounds."""
        return _bound_fault(self.raw)

    @cached_property
    def is_plain(self) -> bool:
        """Whether all of it can surely be seen; False for whatever needs a closer look."""
        text = self.text
        return (
            bool(text)
            and text.isascii()
            and b"\x7f" not in text
            and _BLANKS not in text
            and not _ESCAPED.search(text)
            and not _LINE_ENDS.search(text)
        )

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Why it cannot be used, whoever trusts it; see `check_definition`."""
        return tuple(Problem(code=Code.DEFINITION_UNFIT, text=text) for text in _faults(self))

    @cached_property
    def risks(self) -> tuple[Risk, ...]:
        """What a person should know of it; see `risks_of`."""
        found: list[Risk] = []
        for risk in _risks(self):
            if len(found) == MAX_RISKS:
                found.append(Risk(code="more", text="there is more of this kind"))
                break
            found.append(risk)
        return tuple(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hints:
    """What a tool's annotations claim, as `Intent` has it; what is not claimed is the worse.

    Spec: server/tools#tool, schema ToolAnnotations
    """

    is_read_only: bool = False
    is_destructive: bool = True
    is_open_world: bool = True


def check_definition(definition: Definition) -> tuple[Problem, ...]:
    """Why a definition cannot be used; none when it can.

    It has no name or no canonical JSON, is too large or too deep, hides characters where they
    cannot be left out, or its schema is not valid, leaves itself by a reference, or asks for
    headers that cannot be.
    """
    return definition.problems


def check_tool(raw: Any) -> tuple[Problem, ...]:
    """The same of a tool as it stands in a list result."""
    return Definition.of("tool", raw).problems


def risks_of(definition: Definition) -> tuple[Risk, ...]:
    """What a person should know of a definition that can be used; at most `MAX_RISKS` and one."""
    return definition.risks


def hints_of(definition: Definition) -> Hints:
    """What a tool claims of itself. A claim that is no boolean is none.

    "Destructive" means nothing of a tool that only reads, unless it says both: then it is.
    """
    raw = definition.raw if isinstance(definition.raw, dict) else {}
    claims = raw.get("annotations")
    if not isinstance(claims, dict):
        return Hints()
    is_read_only = claims.get("readOnlyHint") is True
    destructive = claims.get("destructiveHint")
    return Hints(
        is_read_only=is_read_only,
        is_destructive=destructive is True or (destructive is not False and not is_read_only),
        is_open_world=claims.get("openWorldHint") is not False,
    )


def cleaned(definition: Definition) -> Any:
    """What of it a model may be given: without what nobody sees, and without refused icons.

    Names, patterns and the like are as they were: of one that is fit they hold nothing unseen.
    """
    raw = definition.raw
    if isinstance(raw, dict) and isinstance(raw.get("icons"), list):
        kept = [icon for icon in raw["icons"] if not _icon_fault(icon)]
        raw = {**raw, "icons": kept}
    return raw if definition.is_plain else _cleaned(raw, "", 0)


def refused_icons(definition: Definition) -> tuple[str, ...]:
    """Why each icon that is not shown is not, a sentence each."""
    raw = definition.raw
    if not isinstance(raw, dict) or "icons" not in raw:
        return ()
    icons = raw["icons"]
    if not isinstance(icons, list):
        return ("its icons are no list",)
    return tuple(fault for icon in icons if (fault := _icon_fault(icon)))


def _cleaned(value: Any, key: str, depth: int) -> Any:
    if isinstance(value, str):
        return value if key in _EXACT else without_unseen(value)
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return {name: _cleaned(inside, name, depth + 1) for name, inside in value.items()}
    if isinstance(value, list):
        return [_cleaned(inside, key, depth + 1) for inside in value]
    return value


# --- faults ---------------------------------------------------------------------------------------


def _faults(definition: Definition) -> Iterator[str]:
    raw = definition.raw
    if not isinstance(raw, dict):
        yield f"a {definition.kind.replace('_', ' ')} is an object, not {type(raw).__name__}"
        return
    if not definition.text:
        yield "it cannot be written as JSON: it holds half a character, NaN, or is too deep"
        return
    if len(definition.text) > MAX_BYTES:
        yield f"it has {len(definition.text)} bytes; {MAX_BYTES} are the most"
        return
    if definition.bound_fault:
        yield definition.bound_fault
        return
    if definition.kind == "instructions":
        text = raw.get("text")
        if not isinstance(text, str) or len(text) > MAX_INSTRUCTIONS_CHARS:
            yield f"instructions are a text of at most {MAX_INSTRUCTIONS_CHARS} characters"
        return
    member = _NAMED_BY.get(definition.kind, "name")
    name = raw.get(member)
    if not isinstance(name, str) or not name:
        yield f"it has no {member}"
    elif len(name) > MAX_NAME_CHARS:
        yield f"its {member} has {len(name)} characters; {MAX_NAME_CHARS} are the most"
    if not definition.is_plain:
        yield from _hidden_for_good(raw)
    if definition.kind == "tool":
        yield from _tool_faults(raw, definition.text)
    elif definition.kind == "prompt":
        yield from _prompt_faults(raw)


def _bound_fault(raw: Any) -> str:
    """Too many values, or too deep; level by level, so that depth costs no stack."""
    level: list[Any] = [raw]
    count = depth = 0
    while level:
        depth += 1
        count += len(level)
        if depth > MAX_DEPTH:
            return f"it is nested deeper than {MAX_DEPTH} levels"
        if count > MAX_VALUES:
            return f"it holds more than {MAX_VALUES} values"
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
        level = below
    return ""


def _texts(value: Any, key: str = "", where: str = "") -> Iterator[tuple[str, str, str, bool]]:
    """(text, the member it belongs to, JSON pointer, whether it is a name) of every text."""
    if isinstance(value, str):
        yield value, key, where, False
    elif isinstance(value, dict):
        for name, inside in value.items():
            yield name, key, where, True
            yield from _texts(inside, name, f"{where}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for place, inside in enumerate(value):
            yield from _texts(inside, key, f"{where}/{place}")


def _hidden_for_good(raw: Mapping[str, Any]) -> Iterator[str]:
    """What nobody sees, in names and in texts that are compared: cleaning would change them."""
    for text, key, where, is_name in _texts(raw):
        if is_name and UNSEEN.search(text):
            yield f"the name {_quoted(text)} in {_place(where)} holds characters nobody sees"
        elif key in _EXACT and UNSEEN.search(text):
            yield f"{_place(where)} holds characters nobody sees: {_quoted(text)}"


def _prompt_faults(raw: Mapping[str, Any]) -> Iterator[str]:
    arguments = raw.get("arguments")
    if arguments is None:
        return
    names = [
        one.get("name") if isinstance(one, dict) else None
        for one in (arguments if isinstance(arguments, list) else [None])
    ]
    if not all(isinstance(name, str) and name for name in names):
        yield "its arguments are no list of objects with a name each"
    elif len(set(names)) < len(names):
        yield "two of its arguments have one name"


def _tool_faults(raw: Mapping[str, Any], text: bytes) -> Iterator[str]:
    if "inputSchema" not in raw:
        yield "it has no inputSchema"
    for member in ("inputSchema", "outputSchema"):
        # A server may write null for "there is none", but a tool always takes an object.
        if raw.get(member) is not None or (member in raw and member == "inputSchema"):
            yield from _schema_faults(member, raw[member], has_references=b'ef":' in text)
    if b'"x-mcp-header":' in text and isinstance(raw.get("inputSchema"), dict):
        yield from _header_faults(raw["inputSchema"])


def _schema_faults(member: str, schema: Any, *, has_references: bool) -> Iterator[str]:
    if not isinstance(schema, dict):
        yield f"its {member} is no object"
        return
    if member == "inputSchema" and schema.get("type", "object") != "object":
        yield "its inputSchema does not take an object"
    try:
        check_shapes(schema)
    except Misconfigured as error:
        yield f"its {member} is {_sentence(error)}"
        return
    if not has_references:
        return
    parts = [part for part, _ in _parts(schema)]
    ids = {part["$id"] for part in parts if isinstance(part.get("$id"), str)}
    anchors = {part.get(word) for part in parts for word in ("$anchor", "$dynamicAnchor")}
    told: set[str] = set()
    for part in parts:
        for word in _REFERENCES:
            reference = part.get(word)
            if reference is None or (isinstance(reference, str) and reference in told):
                continue
            if not isinstance(reference, str):
                yield f"its {member} has a {word} that is no text"
                continue
            told.add(reference)
            fault = _reference_fault(schema, reference, ids, anchors)
            if fault:
                yield f"its {member} refers to {_quoted(reference)}, {fault}"


def _reference_fault(
    schema: Mapping[str, Any], reference: str, ids: set[str], anchors: set[Any]
) -> str:
    document, _, fragment = reference.partition("#")
    if document:
        if document in ids or f"{document}#" in ids:
            return ""
        return "which is outside of it; nothing is fetched"
    if not fragment or unquote(fragment) in anchors:
        return ""
    for way in (reference, f"#{unquote(fragment)}"):
        try:
            resolve(schema, way)
        except Misconfigured:
            continue
        return ""
    # Below an $id of its own, a part's references start from that part.
    return "" if len(ids - {schema.get("$id")}) else "where there is nothing"


def _header_faults(schema: Mapping[str, Any]) -> Iterator[str]:
    """Values of `x-mcp-header` that no client may use: the whole tool is left out then.

    Whatever the transport: a tool that is fit on one and unfit on another would be two tools.
    """
    seen: dict[str, str] = {}
    for part, is_reachable in _parts(schema):
        if _HEADER not in part:
            continue
        value = part[_HEADER]
        if part is schema or not is_reachable:
            yield f"{_HEADER} stands where no argument's value can be found"
        elif not isinstance(value, str) or not _TOKEN.fullmatch(value):
            yield f"{_HEADER} is no name for a header: {_quoted(str(value))}"
        elif part.get("type") not in ("string", "integer", "boolean"):
            yield f"{_HEADER} {_quoted(value)} is for a text, a whole number or a boolean only"
        elif value.lower() in seen:
            yield f"{_HEADER} {_quoted(value)} is there twice"
        else:
            seen[value.lower()] = value


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Every schema in it, and whether a chain of `properties` alone leads to it.

    A keyword that nobody knows is taken to hold schemas, too.
    """
    waiting: list[tuple[Any, bool]] = [(schema, True)]
    while waiting:
        part, is_reachable = waiting.pop()
        if isinstance(part, list):
            waiting.extend((inside, False) for inside in part)
            continue
        if not isinstance(part, dict):
            continue
        yield part, is_reachable
        for word, inside in part.items():
            if word in _DATA:
                continue
            if word in _MAPS and isinstance(inside, dict):
                chained = is_reachable and word == "properties"
                waiting.extend((one, chained) for one in inside.values())
            else:
                waiting.append((inside, False))


# --- risks ----------------------------------------------------------------------------------------


def _risks(definition: Definition) -> Iterator[Risk]:
    raw = definition.raw
    if not isinstance(raw, dict) or not definition.text or definition.bound_fault:
        return
    for text, _, where, is_name in () if definition.is_plain else _texts(raw):
        unseen = () if is_name else unseen_in(text)
        if unseen:
            kinds = "; ".join(str(one) for one in unseen)
            yield Risk(code="unseen", text=f"{_place(where)} holds what nobody sees: {kinds}")
    if definition.kind == "tool":
        try:
            check_tool_name(definition.name)
        except ValueError as error:
            yield Risk(code="name", text=_sentence(error))
        schema = raw.get("inputSchema")
        if isinstance(schema, dict) and "type" not in schema:
            yield Risk(code="schema", text="its inputSchema does not say that it takes an object")
        claims = raw.get("annotations")
        if (
            isinstance(claims, dict)
            and claims.get("readOnlyHint") is True
            and claims.get("destructiveHint") is True
        ):
            yield Risk(code="hints", text="it claims to be read-only and destructive at once")
    for fault in refused_icons(definition):
        yield Risk(code="icon", text=fault)


def _icon_fault(icon: Any) -> str:
    """Why an icon is not shown; "" when it may be.

    Only https and pictures inside the definition. No SVG inside of it: it may hold a script.
    """
    source = icon.get("src") if isinstance(icon, dict) else None
    if not isinstance(source, str) or not source:
        return "an icon has no src"
    if len(source) > MAX_ICON_CHARS:
        return f"an icon of {len(source)} characters is refused; {MAX_ICON_CHARS} are the most"
    if UNSEEN.search(source) or any(one.isspace() for one in source):
        return f"an icon's address holds blanks or what nobody sees: {_quoted(source)}"
    if _PICTURE.fullmatch(source):
        return ""
    try:
        parts = urlsplit(source)
        is_fit = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        is_fit = False
    return "" if is_fit else f"an icon is refused: {_quoted(source)}"


def _place(where: str) -> str:
    return one_line(where, 120) or "it"


def _quoted(text: str) -> str:
    return f"'{one_line(text, 80)}'"


def _sentence(fault: Exception) -> str:
    return one_line(str(fault), 300)
