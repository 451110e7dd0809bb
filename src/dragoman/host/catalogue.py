"""What one server offers, as the host lets it be seen.

It is read from the text the server sent, so that members nobody knows are pinned with the rest, and
the definition that a model is given comes from the very bytes whose digest was compared.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dragoman.client.outputs import Output
from dragoman.errors import LimitExceeded, Misconfigured, PeerError
from dragoman.host.definitions import Definition, cleaned, hints_of
from dragoman.host.kinds import Code, Problem, Risk
from dragoman.host.pins import PinReport, PinState
from dragoman.model.base import Record
from dragoman.model.prompts import Prompt
from dragoman.model.resources import ResourceTemplate
from dragoman.model.tools import Tool

__all__ = ["Catalogue", "Offer", "Pages", "read_all"]

# 200 pages of 100; a list with more is no list that a person has reviewed.
MAX_PAGES = 200

# 4,096 of one kind: ten times the largest servers in use. What nobody can review is not offered.
MAX_DEFINITIONS = 4_096

# 8 MiB for all definitions of a server, 1 MiB for one: the longest in use have some 100 KiB.
MAX_BYTES = 8 * 1024 * 1024
MAX_ONE_BYTES = 1024 * 1024

_MEMBERS = {
    "tools/list": ("tools", "tool"),
    "prompts/list": ("prompts", "prompt"),
    "resources/templates/list": ("resourceTemplates", "resource_template"),
    "resources/list": ("resources", "resource"),
}
_RECORDS: Mapping[str, type[Record]] = {
    "tool": Tool,
    "prompt": Prompt,
    "resource_template": ResourceTemplate,
}

Pages = Mapping[tuple[str, str | None], bytes]
"""The text of the last answer to each list request, by method and cursor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One definition as it stands: what it is, whether it may be used, and if not, why.

    `record` is a Tool, Prompt or ResourceTemplate with everything unseen taken out of its texts;
    None when it cannot be read as one. `state` says how it compares with what was reviewed.
    `problems` are why it may not be used, `flags` what a person should know of it.
    """

    definition: Definition
    record: Record | None
    state: PinState
    problems: tuple[Problem, ...] = ()
    flags: tuple[Risk, ...] = ()
    #: What a tool's annotations claim, as the members of an `Intent`.
    claims: Mapping[str, bool] = field(default_factory=dict)
    #: How a tool describes itself, as lines of a view.
    facts: tuple[tuple[str, str], ...] = ()
    #: Whether a tool has an output schema, and whether its value is wrapped in an object to travel.
    has_output: bool = False
    is_wrapped: bool = False

    @property
    def name(self) -> str:
        """Its name as the server gave it, or its URI template."""
        return self.definition.name

    @property
    def is_usable(self) -> bool:
        """Whether a model may see it and it may be used."""
        return not self.problems and self.record is not None


class Catalogue:
    """The offers of one server, by kind and name.

    `report` is how they compare with the pins; `offers` says which tools the settings leave in.
    """

    def __init__(
        self,
        definitions: Iterable[Definition],
        report: PinReport,
        *,
        offers: Callable[[str], bool] = lambda tool: True,
    ) -> None:
        self.definitions = tuple(definitions)
        self.report = report
        self._offers: dict[tuple[str, str], Offer] = {}
        twice: set[tuple[str, str]] = set()
        for definition in self.definitions:
            key = (definition.kind, definition.name)
            if key in self._offers:
                twice.add(key)
            self._offers[key] = _offer(definition, report, offers)
        for key in twice:
            # Which of them a call would meet is the server's secret.
            offer = self._offers[key]
            fault = Problem(
                code=Code.DEFINITION_UNFIT, text=f"the server lists {key[1]!r} more than once"
            )
            self._offers[key] = Offer(
                definition=offer.definition,
                record=None,
                state=offer.state,
                problems=(*offer.problems, fault),
                claims=offer.claims,
                facts=offer.facts,
            )

    def offers(self, kind: str) -> list[Offer]:
        """All of one kind ("tool", "prompt", "resource_template"), in the server's order."""
        return [offer for (of, _), offer in self._offers.items() if of == kind]

    def get(self, kind: str, name: str) -> Offer | None:
        """One of them."""
        return self._offers.get((kind, name))

    def need(self, kind: str, name: str, server: str) -> Offer:
        """One of them. Misconfigured, with a suggestion, when there is none of that name."""
        offer = self.get(kind, name)
        if offer is not None:
            return offer
        known = [one.name for one in self.offers(kind)]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise Misconfigured(f"the server {server!r} has no {kind.replace('_', ' ')} {name!r}{hint}")

    @property
    def instructions(self) -> Offer | None:
        """How the server wants to be used."""
        return self.get("instructions", "")


def _offer(definition: Definition, report: PinReport, offers: Callable[[str], bool]) -> Offer:
    state = report.state_of(definition)
    problems = [*definition.problems, *report.problems_of(definition)]
    if definition.kind == "tool" and not offers(definition.name):
        problems.append(
            Problem(code=Code.NOT_OFFERED, text=f"the settings leave {definition.name!r} out")
        )
    record: Record | None = None
    kind = _RECORDS.get(definition.kind)
    if kind is not None:
        try:
            record = msgspec.convert(cleaned(definition), kind)
        except (msgspec.ValidationError, ValueError) as fault:
            problems.append(
                Problem(code=Code.DEFINITION_UNFIT, text=f"it is no {definition.kind}: {fault}")
            )
    raw = definition.raw if isinstance(definition.raw, dict) else {}
    schema = raw.get("outputSchema")
    output = Output(schema if isinstance(schema, dict) else None)
    return Offer(
        definition=definition,
        record=record,
        state=state,
        problems=tuple(problems),
        flags=(*definition.risks, *report.risks_of(definition)),
        claims=_claims_of(definition, raw),
        facts=tuple(_facts_of(record)),
        has_output=output.schema is not None,
        is_wrapped=output.is_wrapped,
    )


def _facts_of(record: Record | None) -> Iterator[tuple[str, str]]:
    if isinstance(record, Tool):
        if record.display_name != record.name:
            yield "it calls itself", record.display_name
        if record.description:
            yield "it says", record.description


def _claims_of(definition: Definition, raw: Mapping[str, Any]) -> dict[str, bool]:
    hints = hints_of(definition)
    said = raw.get("annotations")
    return {
        "is_destructive": hints.is_destructive,
        "is_open_world": hints.is_open_world,
        "is_read_only": hints.is_read_only,
        "claims_destructive": isinstance(said, dict) and said.get("destructiveHint") is True,
    }


async def read_all(
    method: str,
    ask: Callable[[str | None], Awaitable[Any]],
    pages: Pages,
    *,
    spent_bytes: int = 0,
) -> tuple[list[Definition], int]:
    """Every definition of one list, from the text of its pages, and how many bytes they had.

    `ask` requests one page and returns its record, for the next cursor. `spent_bytes` counts
    towards the bound.

    Raises:
        PeerError: the list repeats a cursor, or is no list.
        LimitExceeded: it is longer, or larger, than anything a person reviews.
        DragomanError: what `ask` raises.
    """
    member, kind = _MEMBERS[method]
    found: list[Definition] = []
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await ask(cursor)
        raw = pages[method, cursor]
        spent_bytes += len(raw)
        if spent_bytes > MAX_BYTES:
            raise LimitExceeded("a server's definitions", MAX_BYTES, "bytes")
        listed = msgspec.json.decode(raw).get(member)
        if not isinstance(listed, list):
            raise PeerError(f"the server's list of {member} is no list")
        if len(found) + len(listed) > MAX_DEFINITIONS:
            raise LimitExceeded(f"a server's {member}", MAX_DEFINITIONS, "definitions")
        for one in listed:
            size = len(msgspec.json.encode(one))
            if size > MAX_ONE_BYTES:
                raise LimitExceeded(f"one of a server's {member}", MAX_ONE_BYTES, "bytes")
            found.append(Definition.of(kind, one))
        cursor = page.next_cursor
        if cursor is None:
            return found, spent_bytes
        if cursor in seen:
            raise PeerError(f"the server's list of {member} repeats the cursor {cursor[:64]!r}")
        seen.add(cursor)
    raise LimitExceeded(f"a server's list of {member}", MAX_PAGES, "pages")
