"""What a docstring says about a function and its parameters.

Google, NumPy and Sphinx styles are read; a docstring in none of them is all description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Docstring", "parse_docstring"]

_PARAMETERS = frozenset(
    {
        "arguments",
        "args",
        "keyword args",
        "keyword arguments",
        "other parameters",
        "parameters",
        "params",
    }
)
# Sections that speak to the reader of the code, not to the caller of a tool.
_ASIDE = frozenset({"attributes", "examples", "example", "raises", "references", "see also"})
_RESULTS = frozenset({"returns", "return", "yields", "yield"})
_SECTIONS = _PARAMETERS | _ASIDE | _RESULTS | {"note", "notes", "warning", "warnings", "warns"}

_GOOGLE_HEAD = re.compile(r"^(?P<name>[A-Za-z][A-Za-z ]*):\s*$")
_GOOGLE_ITEM = re.compile(r"^\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)$")
_NUMPY_RULE = re.compile(r"^-{3,}\s*$")
_NUMPY_ITEM = re.compile(r"^(?P<names>\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_SPHINX = re.compile(
    r"^:(?P<field>param|parameter|arg|argument|key|keyword)\s+(?:[^:]*?\s)?\*{0,2}(?P<name>\w+)\s*:"
    r"\s*(?P<text>.*)$"
)
_SPHINX_OTHER = re.compile(r"^:(?:type|returns?|rtype|raises?|except|exception|meta)\b[^:]*:")


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring, taken apart.

    `description` is the summary and the body, without the sections that list parameters, results
    and errors; None when nothing is left. `parameters` maps a name to its text.
    """

    description: str | None = None
    parameters: dict[str, str] = field(default_factory=dict)


def parse_docstring(text: str | None) -> Docstring:
    """Split a docstring into its description and what it says of each parameter.

    The text is without its indentation, as `inspect.getdoc` gives it.
    """
    if not text or not text.strip():
        return Docstring()
    lines = text.splitlines()
    kept: list[str] = []
    parameters: dict[str, str] = {}
    at = 0
    while at < len(lines):
        if (sphinx := _SPHINX.match(lines[at])) is not None:
            at, words = _indented_after(lines, at + 1, [sphinx["text"]])
            parameters[sphinx["name"]] = words
        elif _SPHINX_OTHER.match(lines[at]):
            at, _ = _indented_after(lines, at + 1, [])
        elif (section := _section(lines, at)) is not None:
            name, body_at, underlined = section
            end = _section_end(lines, body_at, underlined=underlined)
            if name in _PARAMETERS:
                items = _numpy_items if underlined else _google_items
                parameters.update(items(lines[body_at:end]))
            elif name not in _ASIDE and name not in _RESULTS:
                kept.extend(lines[at:end])
            at = end
        else:
            kept.append(lines[at])
            at += 1
    description = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    return Docstring(description or None, {k: v for k, v in parameters.items() if v})


def _section(lines: list[str], at: int) -> tuple[str, int, bool] | None:
    """The section that starts at this line: its name, its first line, and whether underlined."""
    line = lines[at]
    if at + 1 < len(lines) and _NUMPY_RULE.match(lines[at + 1]):
        name = line.strip().lower()
        if name in _SECTIONS:
            return name, at + 2, True
    head = _GOOGLE_HEAD.match(line)
    # A Google section is followed by indented lines; without them it is a sentence with a colon.
    if head is not None and head["name"].lower() in _SECTIONS:
        follows = next((later for later in lines[at + 1 :] if later.strip()), "")
        if follows[:1].isspace():
            return head["name"].lower(), at + 1, False
    return None


def _section_end(lines: list[str], at: int, *, underlined: bool) -> int:
    while at < len(lines):
        if _section(lines, at) is not None or _SPHINX.match(lines[at]):
            break
        if not underlined and lines[at].strip() and not lines[at][:1].isspace():
            break
        at += 1
    return at


def _indented_after(lines: list[str], at: int, words: list[str]) -> tuple[int, str]:
    """Join the indented lines from `at` on; returns where they end, and the text."""
    while at < len(lines) and lines[at][:1].isspace() and lines[at].strip():
        words.append(lines[at].strip())
        at += 1
    return at, " ".join(word for word in words if word).strip()


def _google_items(lines: list[str]) -> dict[str, str]:
    items: dict[str, list[str]] = {}
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    base = min(indents, default=0)
    current: list[str] | None = None
    for line in lines:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        item = _GOOGLE_ITEM.match(line.strip()) if indent == base else None
        if item is not None:
            current = items.setdefault(item["name"], [])
            current.append(item["text"])
        elif current is not None:
            current.append(line.strip())
    return {name: " ".join(word for word in words if word) for name, words in items.items()}


def _numpy_items(lines: list[str]) -> dict[str, str]:
    items: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        if not line.strip():
            continue
        item = None if line[:1].isspace() else _NUMPY_ITEM.match(line)
        if item is not None:
            current = []
            for name in item["names"].split(","):
                items[name.strip().lstrip("*")] = current
        else:
            current.append(line.strip())
    return {name: " ".join(words) for name, words in items.items()}
