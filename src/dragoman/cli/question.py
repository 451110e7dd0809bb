"""A question to the person as lines: pure, so that what is shown can be compared with what is sent.

There are two kinds of lines. Ours begin with a mark, `▌`, that no other line can hold: in the words
of strangers it is written as its escape. Where one of ours goes on it begins with `▌ ┊`, since what
stands there may be words that it quotes. Theirs stand behind a gutter, `│`, and `┊` where a line
goes on. Nothing is ever left out: a payload is laid out as JSON, token by token, and joining the
lines behind the gutter gives the same JSON again.
"""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rich.cells import cell_len

from dragoman.cli.printable import one_line
from dragoman.errors import Misconfigured
from dragoman.host.asks.common import FACT_HOST
from dragoman.host.kinds import Action, ApprovalRequest, View
from dragoman.model.unseen import UNSEEN, unseen_in

__all__ = [
    "CONTINUED",
    "GUTTER",
    "MARK",
    "MARK_CONTINUED",
    "MIN_COLUMNS",
    "PLAIN_MARKS",
    "Line",
    "Question",
    "Span",
    "Style",
    "cells",
    "compact",
    "payload_lines",
    "payload_of",
    "question_of",
    "text_lines",
    "unmarked",
    "wrap",
]

Style = Literal[
    "plain",
    "ours",
    "title",
    "label",
    "warning",
    "host",
    "name",
    "string",
    "literal",
    "escape",
    "unseen",
]

MARK = "▌ "
# Where a line of ours goes on: it may quote a stranger, whose words must not begin a line of ours.
MARK_CONTINUED = "▌ ┊ "
GUTTER = "  │ "
CONTINUED = "  ┊ "
# The same in three letters, where a terminal cannot show these.
PLAIN_MARKS = {MARK_CONTINUED: "# : ", MARK: "# ", GUTTER: "  | ", CONTINUED: "  : "}

# Blanks in a row from which each is shown: more than code is indented by, and few enough that
# nothing can be pushed off the screen with them.
LONG_BLANK = 17
# Columns that a line has at least, however narrow the terminal says it is.
MIN_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line, and what it is."""

    text: str
    style: Style = "plain"


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `is_ours` says who wrote it; `is_continued` that it goes on from the one before."""

    spans: tuple[Span, ...]
    is_ours: bool = False
    is_continued: bool = False

    @property
    def text(self) -> str:
        """The line without what stands before it."""
        return "".join(span.text for span in self.spans)

    @property
    def prefix(self) -> str:
        """What stands before it."""
        if self.is_ours:
            return MARK_CONTINUED if self.is_continued else MARK
        return CONTINUED if self.is_continued else GUTTER


@dataclass(frozen=True, slots=True)
class Question:
    """What the person sees: `title` stays on the screen, `lines` scroll below it."""

    title: str
    lines: tuple[Line, ...]

    def noting(self, words: str) -> Question:
        """The same with a remark of ours above everything else."""
        return Question(self.title, (_ours(_own(words), "warning"), *self.lines))

    def __str__(self) -> str:
        return "\n".join([MARK + self.title, *(line.prefix + line.text for line in self.lines)])


# --- the whole --------------------------------------------------------------------------------

_PAYLOADS = {
    Action.SAMPLING_REQUEST: "What your model will be given",
    Action.SAMPLING_RELEASE: "What the server will be given",
    Action.ELICIT_FORM: "What the server will be given",
    Action.ELICIT_URL: "What the server asked",
    Action.TOOL_EXPOSE: "What models will see",
    Action.SERVER_START: "What will be started",
    Action.SERVER_CONNECT: "What will be connected to",
    Action.ROOTS_EXPOSE: "What the server will be told",
    Action.RESULT_RELEASE: "What will be passed on",
    Action.FLOW: "What will be passed on",
}


def question_of(
    request: ApprovalRequest, payload: bytes | None = None, *, changes: Sequence[str] = ()
) -> Question:
    """The question as lines. `payload` is what the person has made of it, `changes` how it differs.

    Everything that the view holds is there, whole.
    """
    view = request.view
    title = f"dragoman asks · {request.action.value} · server {request.server}"
    shown = view.payload if payload is None else payload
    lines = [_ours(_own(view.headline), "title")]
    if request.why and request.why != view.headline:
        lines.append(_ours(_own(request.why)))
    notes = _notes(view, shown)
    lines += [_ours(f"! {_own(risk.text)}", "warning") for risk in request.risks]
    lines += [_ours(_own(f"! {note}"), "warning") for note in notes]
    for label, text in view.facts:
        lines.append(_ours(f"{_own(label)}:", "label"))
        if request.action is Action.ELICIT_URL and label == FACT_HOST:
            lines += [Line((Span(line.text, "host"),)) for line in text_lines(text)]
        else:
            lines += _fact_lines(text)
    if changes:
        lines.append(_ours("Your changes:", "label"))
        for change in changes:
            lines += text_lines(change)
    about = _PAYLOADS.get(request.action, "What will be sent")
    edited = ", as you changed it" if payload is not None else ""
    lines.append(_ours(f"{about}{edited}, all of its {len(shown):,} bytes:", "label"))
    lines += payload_lines(shown)
    if request.action is Action.TOOL_CALL and payload is None and len(request.scopes) > 1:
        # A grant is for the tool as its definition is now, not for what is sent this time.
        lines.append(_ours("A yes for longer than this once holds for any arguments.", "warning"))
    # What binds the answer to this view, and what the audit file names.
    lines.append(_ours(f"end of {_own(request.view_digest[:23])}", "label"))
    return Question(_own(title), tuple(lines))


def _fact_lines(text: str) -> list[Line]:
    """A fact's words; JSON laid out, where that is what they are."""
    if text[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(text)
            return payload_lines(text.encode())
    return text_lines(text)


def payload_of(lines: Iterable[Line]) -> str:
    """The JSON that stands behind the gutter; the inverse of `payload_lines`, wrapped or not."""
    return "".join(line.text for line in lines if not line.is_ours).replace("␣", " ")


def _ours(text: str, style: Style = "ours") -> Line:
    return Line((Span(text, style),), is_ours=True)


def _own(text: str) -> str:
    """A sentence of ours, which may quote a stranger: on one line, without anything unseen."""
    return _FORGED.sub(lambda found: _escaped(found.group()), one_line(text))


def unmarked(text: str) -> str:
    """Words of a stranger for where no gutter stands before them: the mark is its escape."""
    return _MARK.sub(lambda found: _escaped(found.group()), text)


def _notes(view: View, payload: bytes) -> list[str]:
    """What the eye may miss in the payload and in the facts."""
    texts = [text for _, text in view.facts]
    try:
        texts += list(_strings(json.loads(payload)))
    except (ValueError, RecursionError):
        texts.append(payload.decode("utf-8", "backslashreplace"))
    hidden: dict[str, int] = {}
    spelled = []
    longest = right_to_left = 0
    has_gaps = False
    for text in texts:
        for found in unseen_in(text):
            if found.kind == "padding":
                has_gaps = True
                continue
            hidden[found.kind] = hidden.get(found.kind, 0) + found.count
            if found.says:
                spelled.append(found.says)
        longest = max([longest, *(len(run.group()) for run in _BLANKS.finditer(text))])
        right_to_left += len(_RIGHT_TO_LEFT.findall(text))
    notes = []
    if hidden:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in hidden.items())
        notes.append(f"hidden characters, shown as escapes: {kinds}")
    notes += [f"they spell: {says}" for says in spelled]
    if longest:
        notes.append(f"padded: {longest:,} blanks in a row, every one of them shown")
    elif has_gaps:
        notes.append("padded: there is more below what looks like its end")
    if right_to_left:
        notes.append("it holds text that runs from right to left, whose order may mislead the eye")
    return notes


def _strings(value: object) -> Iterator[str]:
    """Every text in a JSON value, names included."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


# --- text of strangers ------------------------------------------------------------------------

# The mark and its neighbours, which no eye tells apart; the sign for a blank.
_MARKS = "\u258b-\u258d"
_SIGNS = f"{_MARKS}\u2423"
# Piles of marks that would grow out of their line.
_PILES = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
# Blanks that are not what a space bar types.
_ODD_BLANKS = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_MARK = re.compile(f"[{_MARKS}]")
_FORGED = re.compile(f"[{_SIGNS}{_ODD_BLANKS}]|{_PILES}{{4,}}")
_BLANKS = re.compile(f" {{{LONG_BLANK},}}")
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]+"
)


def text_lines(text: str) -> list[Line]:
    """Plain words of a stranger, line by line; unseen characters as their escapes."""
    return [Line(tuple(_text_spans(part))) for part in text.replace("\r\n", "\n").split("\n")]


def _text_spans(text: str) -> Iterator[Span]:
    at = 0
    for found in _ODD_IN_TEXT.finditer(text):
        if found.start() > at:
            yield Span(text[at : found.start()])
        piece = found.group()
        if piece[0] == " ":
            yield Span("␣" * len(piece), "escape")
        elif piece == "\t":
            # A tab is as wide as it likes; four blanks are not.
            yield Span("    ")
        else:
            yield Span(_escaped(piece), "unseen")
        at = found.end()
    if at < len(text):
        yield Span(text[at:])


_ODD_IN_TEXT = re.compile(f"{_BLANKS.pattern}|\t|{_FORGED.pattern}|{UNSEEN.pattern}")


def _escaped(text: str) -> str:
    """Each character as `\\u202e`, whether or not it could be seen."""
    return "".join(
        f"\\u{ord(one):04x}" if ord(one) <= 0xFFFF else f"\\U{ord(one):08x}" for one in text
    )


# --- JSON -------------------------------------------------------------------------------------

_TOKEN = re.compile(r'\s*("[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+)')
# In a text as JSON writes it: an escape, what cannot be seen, what would forge a line, and padding.
_ODD_IN_JSON = re.compile(
    rf"\\(?:u[0-9a-f]{{4}}|.)|{_BLANKS.pattern}|{_FORGED.pattern}|{UNSEEN.pattern}"
)
INDENT = "  "


def compact(text: str) -> bytes:
    """JSON that a person typed, without blanks between its tokens: the digits are as typed.

    Raises Misconfigured for what is no JSON, names a member twice or holds half a character.
    """

    def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Misconfigured(f"{one_line(twice)!r} is there twice")
        return dict(pairs)

    def constant(name: str) -> object:
        raise Misconfigured(f"{name} is no JSON")

    try:
        json.loads(text, object_pairs_hook=members, parse_constant=constant)
        return "".join(found.group(1) for found in _TOKEN.finditer(text)).encode()
    except json.JSONDecodeError as error:
        # "Invalid control character at", and the place was to follow.
        words = error.msg.removesuffix(" at")
        raise Misconfigured(f"line {error.lineno}, column {error.colno}: {words}") from None
    except UnicodeEncodeError:
        raise Misconfigured("it holds half a character; write it as \\ud83d and the like") from None
    except RecursionError:
        raise Misconfigured("it is nested too deeply") from None


def payload_lines(payload: bytes, *, is_exact: bool = False) -> list[Line]:
    """JSON laid out, every token of it; anything else as the text it is.

    Numbers keep their digits and repeated names stay. A text is broken after the line ends in it,
    and padding is made visible, unless `is_exact`: then it is JSON that can be read again.
    """
    try:
        text = payload.decode()
        json.loads(text)
    except (ValueError, RecursionError):
        return text_lines(payload.decode("utf-8", "backslashreplace"))
    tokens = [found.group(1) for found in _TOKEN.finditer(text)]
    return list(_laid_out(tokens, is_exact=is_exact))


def _laid_out(words: Sequence[str], *, is_exact: bool) -> Iterator[Line]:
    depth = 0
    spans: list[Span] = []
    for at, word in enumerate(words):
        following = words[at + 1] if at + 1 < len(words) else ""
        if word in "{[":
            spans.append(Span(word))
            if following in ("}", "]"):
                continue
            yield Line(tuple(spans))
            depth += 1
            spans = [Span(INDENT * depth)]
        elif word in "}]":
            if words[at - 1] not in ("{", "["):
                yield Line(tuple(spans))
                depth -= 1
                spans = [Span(INDENT * depth)]
            spans.append(Span(word))
        elif word == ",":
            spans.append(Span(word))
            yield Line(tuple(spans))
            spans = [Span(INDENT * depth)]
        elif word == ":":
            spans.append(Span(": "))
        elif word[0] == '"':
            style: Style = "name" if following == ":" else "string"
            pieces = list(_string_spans(word, style))
            for number, piece in enumerate(pieces):
                if is_exact:
                    # Padding is what it is; everything else is JSON as it stands.
                    piece = Span(piece.text.replace("␣", " "), piece.style)
                elif number and pieces[number - 1].text == "\\n" and piece.text not in ("\\n", '"'):
                    yield Line(tuple(spans))
                    # No indent: blanks here would read as part of the text.
                    spans = []
                spans.append(piece)
        else:
            spans.append(Span(word, "literal"))
    yield Line(tuple(spans))


def _string_spans(token: str, style: Style) -> Iterator[Span]:
    """A JSON text token, quotes included, with every odd thing in it visible."""
    # Read and written again: an escape for what can be seen would hide it.
    inner = json.dumps(json.loads(token), ensure_ascii=False)[1:-1]
    yield Span('"', style)
    at = 0
    for found in _ODD_IN_JSON.finditer(inner):
        if found.start() > at:
            yield Span(inner[at : found.start()], style)
        piece = found.group()
        if piece[0] == "\\":
            # JSON's own: a line end, a quote, a backslash; the rest is a control character.
            yield Span(piece, "unseen" if piece[1] in "ubf" else "escape")
        elif piece[0] == " ":
            yield Span("␣" * len(piece), "escape")
        else:
            yield Span("".join(map(_json_escape, piece)), "unseen")
        at = found.end()
    if at < len(inner):
        yield Span(inner[at:], style)
    yield Span('"', style)


def _json_escape(character: str) -> str:
    number = ord(character)
    if number <= 0xFFFF:
        return f"\\u{number:04x}"
    # JSON has escapes of 16 bits only; a larger character is a pair of them.
    return json.dumps(character)[1:-1]


# --- lines as wide as the screen --------------------------------------------------------------

# Letters of flags, each of which is drawn by itself where it has no partner.
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
# It makes the symbol before it as wide as an emoji.
_EMOJI_FORM = "\ufe0f"


def cells(text: str) -> int:
    """How many columns a text takes at most, whatever draws it.

    Terminals and libraries differ about emoji that join, flags, and characters newer than they
    are; what is cut off at the edge would be hidden. So nothing joins here: each character counts
    with the most that anybody gives it.
    """
    return len(text) if text.isascii() else sum(map(_cells, text))


@lru_cache(maxsize=4096)
def _cells(character: str) -> int:
    category = unicodedata.category(character)
    if category in ("Mn", "Me"):
        return max(cell_len(character), int(character == _EMOJI_FORM))
    is_wide = (
        unicodedata.east_asian_width(character) in ("W", "F")
        # Nobody knows what a newer Unicode, or a font of somebody's own, makes of these.
        or category in ("Cn", "Co")
        or ord(character) in _FLAG_LETTERS
    )
    return max(cell_len(character), 2 if is_wide else 1)


def wrap(lines: Iterable[Line], columns: int) -> Iterator[Line]:
    """The same lines, none wider than `columns` with its prefix. Nothing is lost at a break."""
    for line in lines:
        room = _room(line, columns)
        if cells(line.text) <= room:
            yield line
            continue
        row: list[Span] = []
        is_continued = line.is_continued
        for span in line.spans:
            at = 0
            while at < len(span.text):
                taken, width = _head(span.text, at, room)
                if taken:
                    row.append(Span(span.text[at : at + taken], span.style))
                    room -= width
                    at += taken
                if at < len(span.text):
                    yield Line(tuple(row), is_ours=line.is_ours, is_continued=is_continued)
                    row, is_continued = [], True
                    room = _room(Line((), is_ours=line.is_ours, is_continued=True), columns)
        if row:
            yield Line(tuple(row), is_ours=line.is_ours, is_continued=is_continued)


def _room(line: Line, columns: int) -> int:
    return max(columns - len(line.prefix), MIN_COLUMNS)


def _head(text: str, start: int, room: int) -> tuple[int, int]:
    """How many characters from `start` on fit, and how many cells they take."""
    piece = text[start : start + max(room, 0)]
    if piece.isascii():
        return len(piece), len(piece)
    width = 0
    for at in range(start, len(text)):
        wide = _cells(text[at])
        if width + wide > room:
            return at - start, width
        width += wide
    return len(text) - start, width
