"""Tools for a model: names and schemas that its provider accepts, mapped back; a budget; a search.

Nothing here calls a tool. A model's call is read against the original schema: the compiled one is
only what the model is told.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dragoman.errors import ArgumentFault, InvalidArguments, Misconfigured, MissingExtra
from dragoman.host.models.base import ProviderRules, estimate_tokens
from dragoman.host.models.schemas import Loss, compile_schema
from dragoman.host.models.words import read_arguments
from dragoman.model.faults import Repair, closest
from dragoman.model.schema_check import SchemaCheck
from dragoman.model.tools import Tool
from dragoman.model.unseen import without_unseen

__all__ = [
    "READ_RESULT",
    "SEARCH_TOOLS",
    "Entry",
    "Shelf",
    "Toolbox",
    "compile_tools",
    "flat_name",
    "read_result_tool",
]

SEARCH_TOOLS = "search_tools"
READ_RESULT = "read_result"
_OWN = frozenset({SEARCH_TOOLS, READ_RESULT})

# 8 hexadecimal digits tell apart what a person would call the same; 24 withstand who tries.
_SHORT_HASH = 8
_LONG_HASH = 24
# 8 tools for one search: a model picks among a few better than among many.
MAX_FOUND = 8
# 4,000 characters of a description: 1,100 tokens; what is longer is no description.
MAX_DESCRIPTION_CHARS = 4_000
# 400 characters of it where the definition is too large for its schema to be told.
SHORT_CHARS = 400

_UNFIT = re.compile(r"[^a-zA-Z0-9_-]")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One tool as a model is given it.

    `server` and `tool` are what it really is, `definition` what the model sees (its name there is
    `name`), `losses` what could not be said, `tokens` about what the definition costs.
    """

    name: str
    server: str
    tool: Tool
    definition: Tool
    losses: tuple[Loss, ...]
    tokens: int

    def read(self, arguments: str) -> tuple[dict[str, Any], tuple[Repair, ...]]:
        """The arguments of a model's call, judged by the original schema.

        JSON text in a string is read where the schema forbids a string; each such repair is told.
        A schema that cannot be judged here is left to the server.

        Raises:
            InvalidArguments: they do not fit; written for the model to read.
        """
        what = f"arguments for {self.name}"
        value = read_arguments(arguments)
        if value is None:
            shown = arguments if len(arguments) <= 80 else arguments[:79] + "…"
            raise InvalidArguments([ArgumentFault("", "a JSON object", shown)], what=what)
        try:
            check = SchemaCheck(self.tool.input_schema, is_ours=False)
        except (Misconfigured, MissingExtra):
            return value, ()
        return check.parse(value, name=self.name)


class Toolbox:
    """Compiled tools, by the name a model knows them under."""

    def __init__(self, entries: Sequence[Entry], rules: ProviderRules) -> None:
        self.entries = tuple(entries)
        self.rules = rules
        self._by_name = {entry.name: entry for entry in entries}
        self._by_tool = {(entry.server, entry.tool.name): entry for entry in entries}
        self._index: _Index | None = None

    @property
    def tokens(self) -> int:
        """About what all definitions cost together."""
        return sum(entry.tokens for entry in self.entries)

    def get(self, name: str) -> Entry | None:
        """The tool that a model calls by this name."""
        return self._by_name.get(name)

    def find(self, server: str, tool: str) -> Entry | None:
        """A server's tool."""
        return self._by_tool.get((server, tool))

    def name_of(self, server: str, tool: str) -> str:
        """The name a model knows a tool under, also for one that is no longer here."""
        entry = self._by_tool.get((server, tool))
        return entry.name if entry is not None else flat_name(server, tool, self.rules)

    def nearest(self, name: str) -> str | None:
        """The known name most like this one."""
        return closest(name, [entry.name for entry in self.entries])

    def search(self, query: str, limit: int = MAX_FOUND) -> list[Entry]:
        """The tools that fit some words best, best first; none when no word occurs."""
        if self._index is None:
            self._index = _Index([_words_of(entry) for entry in self.entries])
        return [self.entries[at] for at in self._index.best(_words(query), limit)]


def compile_tools(
    tools: Sequence[tuple[str, Tool]],
    rules: ProviderRules,
    *,
    count: Callable[[str], int] = estimate_tokens,
    known: Toolbox | None = None,
) -> Toolbox:
    """The tools of all servers, as (alias, tool), for one provider.

    A name does not depend on which other tools there are, so it stays the same from run to run.
    A tool that is listed twice is taken once, the first. `known` is an earlier toolbox, whose
    entries are used again where the tool is the same.
    """
    listed: dict[tuple[str, str], Tool] = {}
    for server, tool in tools:
        listed.setdefault((server, tool.name), tool)
    names = _names_of(list(listed), rules)
    entries = []
    for (server, of), tool in listed.items():
        name = names[server, of]
        old = known.find(server, of) if known is not None and known.rules == rules else None
        if old is not None and old.name == name and old.tool == tool:
            entries.append(old)
        else:
            entries.append(_compiled(name, server, tool, rules, count))
    return Toolbox(entries, rules)


def flat_name(server: str, tool: str, rules: ProviderRules) -> str:
    """ "SERVER__TOOL" in the provider's characters and length.

    It says exactly one server and tool: where characters were changed, it was cut, or the server's
    alias could be read as more than the alias, a hash of both follows.
    """
    plain = f"{server}__{tool}" if server else tool
    fit = _UNFIT.sub("_", plain)
    is_exact = fit == plain and len(fit) <= rules.max_name_chars
    # Read from the left, the first two underscores end the alias: so it may hold none itself.
    is_split = "__" not in server and not server.endswith("_")
    if is_exact and is_split and re.fullmatch(rules.name_pattern, fit) and fit not in _OWN:
        return fit
    return _hashed(fit, server, tool, rules, _SHORT_HASH)


def _hashed(fit: str, server: str, tool: str, rules: ProviderRules, digits: int) -> str:
    both = json.dumps([server, tool]).encode()
    digest = hashlib.sha256(both).hexdigest()[:digits]
    head = fit[: rules.max_name_chars - digits - 1].rstrip("_-") or "tool"
    return f"{head}_{digest}"


def _names_of(keys: Sequence[tuple[str, str]], rules: ProviderRules) -> dict[tuple[str, str], str]:
    names = {key: flat_name(*key, rules) for key in keys}
    counts = Counter(names.values())
    for key, name in names.items():
        if counts[name] > 1:
            # Somebody named a tool like another's hash: neither gets the name.
            names[key] = _hashed("tool", *key, rules, _LONG_HASH)
    return names


def _compiled(
    name: str, server: str, tool: Tool, rules: ProviderRules, count: Callable[[str], int]
) -> Entry:
    compiled = compile_schema(tool.input_schema, rules)
    schema, losses = compiled.schema, list(compiled.losses)
    text = without_unseen(tool.description or tool.display_name or "").strip()
    if len(text) > MAX_DESCRIPTION_CHARS:
        losses.append(Loss("", f"the description after {MAX_DESCRIPTION_CHARS} characters"))
        text = text[: MAX_DESCRIPTION_CHARS - 1] + "…"
    limit = rules.max_description_chars
    if limit is not None and len(text) > limit:
        # What is too long for the one description goes on in the other.
        rest = text[limit - 1 :]
        text = text[: limit - 1] + "…"
        told = schema.get("description")
        schema = {**schema, "description": f"…{rest}" + (f"\n{told}" if told else "")}
    definition = Tool(name=name, input_schema=schema, description=text)
    tokens = count(f"{name} {text} {json.dumps(schema, ensure_ascii=False)}")
    return Entry(name, server, tool, definition, tuple(losses), tokens)


# --- what fits ---------------------------------------------------------------------------------


class Shelf:
    """Which tools a conversation's model is shown, within a budget of tokens.

    While all of them fit it is shown all of them. Otherwise it gets `search_tools`, the pinned ones
    and those it used or found last; what it has found it may call from then on, also when it is no
    longer shown.
    """

    def __init__(self, budget_tokens: int, *, pinned: Collection[tuple[str, str]] = ()) -> None:
        self.budget_tokens = budget_tokens
        self.pinned = frozenset(pinned)
        self.box = Toolbox((), ProviderRules())
        self.is_searched = False
        self._is_stocked = False
        self._shown: tuple[Entry, ...] = ()
        # The keys of what was used or found, the latest last.
        self._recent: dict[tuple[str, str], None] = {}

    @property
    def shown(self) -> tuple[Entry, ...]:
        """What the model is given now, in the box's order."""
        return self._shown

    @property
    def definitions(self) -> list[Tool]:
        """The definitions for the request, the search included where there is one."""
        found = [entry.definition for entry in self._shown]
        return [_search_tool(len(self.box.entries)), *found] if self.is_searched else found

    @property
    def tokens(self) -> int:
        """About what that costs; before the first tools came, what it may cost."""
        if not self._is_stocked:
            return self.budget_tokens
        return sum(entry.tokens for entry in self._shown)

    def fit(self, box: Toolbox) -> None:
        """Take these tools; a tool that is gone is forgotten."""
        self.box = box
        self._is_stocked = True
        self._recent = {key: None for key in self._recent if box.find(*key) is not None}
        most = box.rules.max_tools
        # Two places are kept for our own.
        fits_count = most is None or len(box.entries) <= most - len(_OWN)
        self.is_searched = not (fits_count and box.tokens <= self.budget_tokens)
        if not self.is_searched:
            self._shown = box.entries
            return
        left = self.budget_tokens - estimate_tokens(str(_search_tool(len(box.entries))))
        places = len(box.entries) if most is None else most - len(_OWN)
        first = [entry for entry in box.entries if (entry.server, entry.tool.name) in self.pinned]
        recent = [box.find(*key) for key in reversed(self._recent)]
        chosen: set[str] = set()
        for entry in (*first, *recent):
            if entry is None or entry.name in chosen:
                continue
            if entry.tokens <= left and len(chosen) < places:
                chosen.add(entry.name)
                left -= entry.tokens
        self._shown = tuple(entry for entry in box.entries if entry.name in chosen)

    def callable(self, name: str) -> Entry | None:
        """The tool of that name, if the model may know it: shown, used before, or found."""
        entry = self.box.get(name)
        if entry is None or not self.is_searched:
            return entry
        key = (entry.server, entry.tool.name)
        return entry if key in self._recent or key in self.pinned or entry in self._shown else None

    def use(self, entry: Entry) -> None:
        """Note that it was called or found."""
        key = (entry.server, entry.tool.name)
        self._recent.pop(key, None)
        self._recent[key] = None

    def search(self, query: str) -> str:
        """Answer a search of the model: the definitions that fit, callable from then on."""
        best = self.box.search(query)
        if not best:
            return "No tool fits these words. Try others: what it does, or what it is about."
        # The answer is paid for as well: at most half of what all definitions may cost.
        found: list[Entry] = []
        most = left = self.budget_tokens // 2
        for entry in best:
            cost = entry.tokens if entry.tokens <= most else SHORT_CHARS // 2
            if cost <= left or not found:
                found.append(entry)
                left -= cost
        for entry in reversed(found):
            self.use(entry)
        self.fit(self.box)
        told = [_told(entry, most) for entry in found]
        # Those the budget has no room for are callable all the same, by what stands here.
        return "These tools can be called now:\n" + json.dumps(told, ensure_ascii=False)


def _told(entry: Entry, most: int) -> dict[str, Any]:
    """A definition as the answer to a search; of one that is larger than `most` its name alone."""
    definition = entry.definition
    if entry.tokens > most:
        about = without_unseen((definition.description or "")[:SHORT_CHARS])
        note = "its schema is too large to be shown; errors say what it takes"
        return {"name": entry.name, "description": about, "note": note}
    return {
        "name": entry.name,
        "description": definition.description,
        "input_schema": definition.input_schema,
    }


def _search_tool(total: int) -> Tool:
    return Tool(
        name=SEARCH_TOOLS,
        description=(
            f"There are {total} tools, too many to list. Find those that fit some words; what this "
            "returns can be called afterwards."
        ),
        input_schema={
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What the tool should do, in words."}
            },
            "required": ["query"],
        },
    )


def read_result_tool() -> Tool:
    """The tool by which a model pages through a result that was kept aside."""
    return Tool(
        name=READ_RESULT,
        description=(
            "Read on in a large result that was kept aside: a part from an offset on, or the "
            "places where some text occurs."
        ),
        input_schema={
            "type": "object",
            "properties": {
                "handle": {"type": "string", "description": "Such as r1."},
                "offset": {"type": "integer", "description": "In characters, from 0."},
                "length": {"type": "integer", "description": "In characters."},
                "search": {"type": "string", "description": "Text to look for instead."},
            },
            "required": ["handle"],
        },
    )


# --- search ------------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    """The words of a text, names in camelCase and snake_case taken apart, in a plain form."""
    return [_stem(word.lower()) for word in _WORD.findall(text)]


def _stem(word: str) -> str:
    """Plural and the like cut off; rough, and the same on both sides."""
    for ending in ("ies", "ing", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _words_of(entry: Entry) -> list[str]:
    tool = entry.tool
    # The name says most; three times makes it count more than a passing mention.
    words = _words(tool.name) * 3 + _words(entry.server) * 2
    words += _words(tool.title or "") + _words(entry.definition.description or "")
    members = tool.input_schema.get("properties")
    if isinstance(members, Mapping):
        words += [word for name in members for word in _words(str(name))]
    return words


class _Index:
    """Okapi BM25 over a few hundred short texts."""

    # The customary values: how soon repeating a word stops to count, and how much length matters.
    K = 1.5
    B = 0.75

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._lengths = [len(words) for words in texts]
        self._mean = sum(self._lengths) / len(texts) if texts else 0.0
        self._where: dict[str, dict[int, int]] = {}
        for at, words in enumerate(texts):
            for word, times in Counter(words).items():
                self._where.setdefault(word, {})[at] = times

    def best(self, words: Sequence[str], limit: int) -> list[int]:
        scores: dict[int, float] = {}
        for word in dict.fromkeys(words):
            where = self._where.get(word, {})
            rarity = math.log(1 + (len(self._lengths) - len(where) + 0.5) / (len(where) + 0.5))
            for at, times in where.items():
                size = 1 - self.B + self.B * self._lengths[at] / self._mean
                score = rarity * times * (self.K + 1) / (times + self.K * size)
                scores[at] = scores.get(at, 0.0) + score
        return sorted(scores, key=lambda at: (-scores[at], at))[:limit]
