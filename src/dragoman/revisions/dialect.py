"""A dialect: everything that differs from one revision of the protocol to another.

`lift` reads the wire into the model, `lower` writes the model in the words of this revision. A
dialect is data; it is built once, when it is first used, and shared by every connection.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from dragoman.errors import CannotLower, RequestError
from dragoman.jsonrpc.codec import encode_value
from dragoman.jsonrpc.message import ErrorBody
from dragoman.model.base import Record
from dragoman.model.methods import CATALOGUE, Method, Side
from dragoman.revisions.facts import Facts

__all__ = ["Dialect", "Loss", "Substitute"]

R = TypeVar("R", bound=Record)

Report = Callable[["Loss"], None]
Substitute = Callable[[Any, "Dialect", Report], Any]
"""Turns a record that this revision lacks into one it has; raises CannotLower if there is none."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Something a revision cannot hold.

    `record` and `member` name it in the model's words, `instead` says what the peer gets.
    """

    record: str
    member: str
    instead: str

    def __str__(self) -> str:
        return f"{self.record}.{self.member}: {self.instead}"


_DEFAULT_FACTS = Facts()


class _Readers(dict[type, Callable[[Any], Any]]):
    """What reads each kind of record; made when it is first asked for."""

    def __missing__(self, record: type) -> Callable[[Any], Any]:
        read: Callable[[Any], Any] = msgspec.json.Decoder(record).decode
        self[record] = read
        return read


@dataclass(frozen=True, eq=False)
class Dialect:
    """One revision.

    `wire` is its name on the wire; `position` its place in the order of revisions; `members` the
    members of each record; `methods` the vocabulary; `readers` are `lift` by record, for whoever
    reads one with every message.
    """

    wire: str
    position: int
    members: Mapping[str, frozenset[str]]
    methods: frozenset[str]
    facts: Facts = _DEFAULT_FACTS
    substitutes: Mapping[type[Record], Substitute] = field(default_factory=dict)
    fills: Mapping[type[Record], Mapping[str, Any]] = field(default_factory=dict)
    _lowerers: dict[type, Callable[[Any, Report], Any] | None] = field(
        default_factory=dict, repr=False
    )
    readers: _Readers = field(default_factory=_Readers, repr=False)

    def evolve(
        self,
        *,
        wire: str,
        members: Mapping[str, frozenset[str]],
        adds: frozenset[str] | set[str] = frozenset(),
        removes: frozenset[str] | set[str] = frozenset(),
        facts: Mapping[str, Any] | None = None,
        substitutes: Mapping[type[Record], Substitute | None] | None = None,
        fills: Mapping[type[Record], Mapping[str, Any]] | None = None,
    ) -> Dialect:
        """The next revision, given as its difference from this one.

        A substitute of None says that the record itself is at home there now.
        """
        merged = {**self.substitutes, **(substitutes or {})}
        return Dialect(
            wire=wire,
            position=self.position + 1,
            members=members,
            methods=(self.methods | adds) - removes,
            facts=replace(self.facts, **(facts or {})),
            substitutes={record: how for record, how in merged.items() if how is not None},
            fills=fills if fills is not None else self.fills,
        )

    # --- vocabulary ---------------------------------------------------------------------------

    def method(self, name: str, sender: Side) -> Method | None:
        """The method, if it exists here and that side may send it."""
        if name not in self.methods:
            return None
        method = CATALOGUE[name]
        return method if sender in method.senders else None

    def needs(self, method: Method) -> str | None:
        """The capability the method needs here, as a dotted path, or None."""
        if method.needs == "completions" and not self.facts.completion_is_declared:
            return None
        return method.needs

    # --- lift -----------------------------------------------------------------------------------

    def lift(self, record: type[R], raw: bytes | msgspec.Raw) -> R:
        """Read a record from its JSON text. Members it does not know are left aside.

        Raises:
            msgspec.ValidationError: a member is missing or of the wrong type; the text says which.
        """
        return self.readers[record](raw)  # type: ignore[no-any-return]

    # --- lower ----------------------------------------------------------------------------------

    def lower(self, value: R, report: Report) -> R:
        """Write a record in this revision's words: the same object when nothing has to change.

        What this revision lacks is left at its default or replaced as `degrade` says; each such
        thing is passed to `report`.

        Raises:
            CannotLower: there is no substitute.
        """
        kind = type(value)
        lowerer = self._lowerers.get(kind, _UNKNOWN)
        if lowerer is _UNKNOWN:
            lowerer = self._prepare(kind)
        return value if lowerer is None else lowerer(value, report)

    def encode(self, value: Record, report: Report) -> bytes:
        """Lower and write as JSON text. Raises CannotLower, or ValueError for no valid JSON."""
        lowerer = self._lowerers.get(type(value), _UNKNOWN)
        if lowerer is not None:
            value = self.lower(value, report) if lowerer is _UNKNOWN else lowerer(value, report)
        return encode_value(value)

    def error(self, fault: RequestError) -> ErrorBody:
        """The number and text by which a refusal is told in this revision."""
        code = fault.code
        if code == -32002:
            code = self.facts.resource_not_found
        return ErrorBody(code, fault.message, fault.data)

    def _prepare(self, kind: type) -> Callable[[Any, Report], Any] | None:
        """Compile the lowering of one record; None when it is the identity."""
        # A record may hold itself by way of others: until it is known, go through `lower`.
        self._lowerers[kind] = self.lower
        made = _compile(self, kind)
        self._lowerers[kind] = made
        return made


def _unknown(value: Any, report: Report) -> Any:  # pragma: no cover - only an identity
    raise AssertionError


_UNKNOWN = _unknown


def _compile(dialect: Dialect, kind: type) -> Callable[[Any, Report], Any] | None:
    substitute = dialect.substitutes.get(kind)
    shape = _compile_shape(dialect, kind)
    if substitute is None:
        return shape
    how = substitute

    def lower(value: Any, report: Report) -> Any:
        other = how(value, dialect, report)
        if type(other) is kind:
            return other if shape is None else shape(other, report)
        return dialect.lower(other, report) if isinstance(other, Record) else other

    return lower


def _compile_shape(dialect: Dialect, kind: type) -> Callable[[Any, Report], Any] | None:
    here = dialect.members.get(kind.__name__)
    if here is None:
        return None
    if not here and msgspec.structs.fields(kind) and kind.__name__ not in _EMPTY_IS_FINE:
        return _refuse(dialect, kind)
    absent: list[tuple[str, Any]] = []
    nested: list[tuple[str, bool]] = []
    hints = typing.get_type_hints(kind)
    for item in msgspec.structs.fields(kind):
        if item.encode_name not in here:
            default = None if item.default is msgspec.NODEFAULT else item.default
            absent.append((item.name, default))
        else:
            inside = _records_in(hints[item.name])
            if any(
                part in dialect.substitutes or dialect._prepare(part) is not None
                for part in inside
                if part is not kind
            ):
                nested.append((item.name, True))
    fills = tuple(dialect.fills.get(kind, {}).items())
    if not absent and not nested and not fills:
        return None
    name = kind.__name__
    defaults = tuple(absent)
    inner = tuple(attribute for attribute, _ in nested)

    def lower(value: Any, report: Report) -> Any:
        changes: dict[str, Any] | None = None
        for attribute, default in defaults:
            if getattr(value, attribute) is not default:
                report(Loss(name, attribute, "left out"))
                changes = changes or {}
                changes[attribute] = default
        for attribute in inner:
            old = getattr(value, attribute)
            if old is None:
                continue
            new = _lower_any(dialect, old, report)
            if new is not old:
                changes = changes or {}
                changes[attribute] = new
        for attribute, filling in fills:
            if getattr(value, attribute) is None:
                changes = changes or {}
                changes[attribute] = filling
        return value if changes is None else msgspec.structs.replace(value, **changes)

    return lower


# Capabilities that say everything by being there.
_EMPTY_IS_FINE = frozenset(
    {
        "CompletionsCapability",
        "ElicitationCapability",
        "LoggingCapability",
        "RootsCapability",
        "SamplingCapability",
    }
)


def _refuse(dialect: Dialect, kind: type) -> Callable[[Any, Report], Any]:
    def lower(value: Any, report: Report) -> Any:
        raise CannotLower(kind.__name__, dialect.wire)

    return lower


def _lower_any(dialect: Dialect, value: Any, report: Report) -> Any:
    if isinstance(value, Record):
        return dialect.lower(value, report)
    if type(value) is list:
        for index, item in enumerate(value):
            new = dialect.lower(item, report) if isinstance(item, Record) else item
            if new is not item:
                rest = (
                    dialect.lower(other, report) if isinstance(other, Record) else other
                    for other in value[index + 1 :]
                )
                return [*value[:index], new, *rest]
    return value


def _records_in(hint: Any) -> list[type[Record]]:
    if isinstance(hint, type) and issubclass(hint, Record):
        return [hint]
    return [found for part in typing.get_args(hint) for found in _records_in(part)]
