"""Compare the duty list with the specification's own text, sentence by sentence.

    python -m tests.requirements.count_prose SPEC_DIR [--revision R] [--show]

SPEC_DIR is a checkout of the specification's repository: it holds `docs/specification`
and `schema`. The text is not part of this project, so this is run by hand.

Every section must have as many normative keywords as its rows account for: the sum of
`covers` and `also` of its duties plus the counts of its restated rows and asides. For a revision after the
first only statements count that the revision before did not have, wherever they stood.
Prints each section that does not balance; the exit code is the number of such sections,
at most 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.requirements.duties import REVISIONS, Sheet, load_sheets

# Written small, "must" and "should" still oblige on some pages (architecture, trust);
# "may", "required" and the like are everyday words there, so only capitals count.
KEYWORD = re.compile(
    r"\b(?:(?i:must|should|shall)(?:\s+(?i:not))?|(?:NOT\s+)?(?:REQUIRED|RECOMMENDED)|MAY|OPTIONAL)\b"
)

# Generated from schema.ts, which is read itself; and a summary of the rest.
NOT_PROSE = ("schema.mdx", "changelog.mdx")

_Key = TypeVar("_Key")

FENCE = re.compile(r"^\s*```")
HEADING = re.compile(r"^(#+)\s+(.*)$")
# A list item, a table row or a tag starts a new statement; other lines continue one.
ITEM = re.compile(r"^\s*(?:[-*]\s|\d+\.\s)")
ROW_OR_TAG = re.compile(r"^\s*[|<]")
EXPORT = re.compile(r"^export\s+(?:interface|type|const)\s+(\w+)")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One paragraph, list item, table row or schema sentence, on one line.

    `lead` is the sentence that opens the list this item stands in, when that sentence
    holds the keyword ("Servers MUST:"); each such item then counts as one keyword.
    """

    link: str
    text: str
    lead: str = ""
    opens_list: bool = False

    @property
    def keywords(self) -> int:
        if self.lead:
            return 1
        found = len(KEYWORD.findall(self.text))
        return found - len(KEYWORD.findall(last_sentence(self.text))) if self.opens_list else found

    @property
    def sense(self) -> str:
        """The text without what changes from one revision to the next though the duty does not."""
        without_number = re.sub(r"^\s*\d+\.\s+", "", self.text)
        without_targets = re.sub(r"\]\([^)]*\)", "]", f"{self.lead} {without_number}")
        without_links = re.sub(r"\{@link\s+\w+\s*\|?\s*([^}]*)\}", r"\1", without_targets)
        return re.sub(r"[^a-z0-9]+", " ", without_links.lower()).strip()


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a page before lists are joined to their opening; `item_at` is None outside lists."""

    link: str
    text: str
    item_at: int | None


def slug(heading: str) -> str:
    """The anchor of a heading: lower case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def last_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z*])", text)[-1]


def read_blocks(link: str, lines: list[str]) -> Iterator[Block]:
    """The pieces of one page, front matter left out. Code comes as one piece without text."""
    body = lines[lines.index("---", 1) + 1 :] if lines and lines[0] == "---" else lines
    section, pending, item_at, in_code = link, "", None, False
    for line in [*body, ""]:
        fence = FENCE.match(line)
        heading = None if in_code else HEADING.match(line)
        item = None if in_code else ITEM.match(line)
        if fence or in_code or not line.strip() or heading or item or ROW_OR_TAG.match(line):
            if pending:
                yield Block(link=section, text=pending, item_at=item_at)
            pending, item_at = "", None
        if fence:
            in_code = not in_code
            yield Block(link=section, text="", item_at=None)
        elif heading:
            section = f"{link}#{slug(heading[2])}"
            yield Block(link=section, text="", item_at=None)
        elif not in_code:
            if item:
                item_at = len(line) - len(line.lstrip())
            pending = f"{pending} {line.strip()}".strip()


def read_page(link: str, lines: list[str]) -> Iterator[Statement]:
    """The statements of one page, each list item joined to the sentence that opens its list."""
    blocks = list(read_blocks(link, lines))
    lead, lead_at, items_at = "", -1, None
    for position, block in enumerate(blocks):
        if lead and block.item_at is not None and block.item_at > lead_at:
            items_at = block.item_at if items_at is None else items_at
            if block.item_at == items_at and not KEYWORD.search(block.text):
                yield Statement(link=block.link, text=block.text, lead=lead)
                continue
        else:
            lead, items_at = "", None
        opens = last_sentence(block.text)
        following = blocks[position + 1].item_at if position + 1 < len(blocks) else None
        here = -1 if block.item_at is None else block.item_at
        opens_list = (
            not lead
            and block.text.endswith(":")
            and bool(KEYWORD.search(opens))
            and following is not None
            and following > here
        )
        if opens_list:
            lead, lead_at, items_at = opens, here, None
        if block.text:
            yield Statement(link=block.link, text=block.text, opens_list=opens_list)


def read_schema(link: str, lines: list[str]) -> Iterator[Statement]:
    """The sentences of the schema's comments, each under the declaration it describes."""
    waiting: list[str] = []
    section, comment, in_comment = link, "", False
    for line in lines:
        declaration = EXPORT.match(line)
        if declaration:
            section = f"{link}#{declaration[1]}"
            for text in waiting:
                yield Statement(link=section, text=text)
            waiting = []
        start = line.lstrip().startswith("/*")
        if start or in_comment:
            in_comment = "*/" not in line
            comment += " " + re.sub(r"/\*+|\*+/|^\s*\*", "", line).strip()
            if not in_comment:
                sentences = [part.strip() for part in re.split(r"(?<=[.)])\s+", comment)]
                comment = ""
                if line.startswith((" ", "\t")) and not line.startswith(" *"):
                    yield from (Statement(link=section, text=text) for text in sentences)
                else:
                    waiting = sentences
    yield from (Statement(link=section, text=text) for text in waiting)


def read_revision(spec: Path, revision: str) -> list[Statement]:
    """Every statement of one revision: its pages in path order, then its schema."""
    root = spec / "docs" / "specification" / revision
    statements: list[Statement] = []
    for path in sorted(root.rglob("*.mdx")):
        if path.name in NOT_PROSE:
            continue
        page = path.relative_to(root).with_suffix("").as_posix()
        statements.extend(read_page(f"{revision} {page}", _lines(path)))
    schema = spec / "schema" / revision / "schema.ts"
    statements.extend(read_schema(f"{revision} schema", _lines(schema)))
    return statements


def read_anchors(spec: Path, revision: str) -> set[str]:
    """Every page, section and schema declaration of one revision, as a link names it."""
    root = spec / "docs" / "specification" / revision
    anchors = {f"{revision} schema"}
    for path in root.rglob("*.mdx"):
        page = f"{revision} {path.relative_to(root).with_suffix('').as_posix()}"
        anchors.add(page)
        anchors.update(block.link for block in read_blocks(page, _lines(path)))
    for line in _lines(spec / "schema" / revision / "schema.ts"):
        declaration = EXPORT.match(line)
        if declaration:
            anchors.add(f"{revision} schema#{declaration[1]}")
    return anchors


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def new_statements(spec: Path, revision: str) -> list[Statement]:
    """The statements with a keyword that the revision before did not have.

    A statement counts as known once for each time the revision before made it, first
    in the same section, then in any other, since pages were split and merged.
    """
    mine = [statement for statement in read_revision(spec, revision) if statement.keywords]
    position = REVISIONS.index(revision)
    if position == 0:
        return mine
    before = REVISIONS[position - 1]
    known = Counter((place(one), one.sense) for one in read_revision(spec, before))
    moved = [one for one in mine if not _take(known, (place(one), one.sense))]
    anywhere: Counter[str] = Counter()
    for (_, sense), count in known.items():
        anywhere[sense] += count
    return [one for one in moved if not _take(anywhere, one.sense)]


def place(statement: Statement) -> str:
    """The section without its revision."""
    return statement.link.split(" ", 1)[1]


def _take(stock: Counter[_Key], key: _Key) -> bool:
    """Take one of `key` from the stock; False where there is none left."""
    if stock[key] < 1:
        return False
    stock[key] -= 1
    return True


def accounted(sheet: Sheet) -> Counter[str]:
    """How many keywords the sheet's rows account for, by section."""
    counts: Counter[str] = Counter()
    for row in sheet.duties:
        counts[row.link] += row.covers
        counts.update(row.also)
    for restated in sheet.restated:
        counts[restated.link] += restated.count
    for aside in sheet.asides:
        counts[aside.link] += aside.count
    return counts


def compare(spec: Path, sheet: Sheet, *, show: bool) -> int:
    """Print the sections that do not balance; the number of them."""
    anchors = read_anchors(spec, sheet.revision)
    left_out = {entry.link for entry in sheet.left_out}
    found: defaultdict[str, list[Statement]] = defaultdict(list)
    for statement in new_statements(spec, sheet.revision):
        if statement.link not in left_out and statement.link.split("#")[0] not in left_out:
            found[statement.link].append(statement)
    counts = accounted(sheet)
    faults = 0
    for link in sorted(found.keys() | counts.keys()):
        if not link.startswith(sheet.revision):
            continue
        expected = sum(statement.keywords for statement in found[link])
        if link not in anchors:
            print(f"?? {link}: no such section")
            faults += 1
            continue
        balanced = counts[link] == expected
        if not balanced:
            faults += 1
        if show or not balanced:
            sign = "ok" if balanced else "??"
            print(f"{sign} {link}: {expected} in the text, {counts[link]} in the list")
            for statement in found[link] if not balanced or show else ():
                print(f"      {statement.keywords}  {statement.text}")
    total = sum(statement.keywords for group in found.values() for statement in group)
    print(
        f"{sheet.revision}: {total} keywords in {len(found)} sections, "
        f"{len(sheet.duties)} duties, {faults} sections out of balance"
    )
    return faults


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("spec", type=Path, metavar="SPEC_DIR")
    parser.add_argument("--revision", choices=REVISIONS)
    parser.add_argument("--show", action="store_true", help="print balanced sections as well")
    args = parser.parse_args(argv)
    faults = 0
    for sheet in load_sheets():
        if args.revision in (None, sheet.revision):
            faults += compare(args.spec, sheet, show=args.show)
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
