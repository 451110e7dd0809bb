"""A file of records in which each one holds the hash of the one before: what it looks like, and
what is wrong with it.

A line is `{"seq":N,"prev_hash":"...",...,"hash":"..."}`, where `hash` is SHA-256 over the line's
own bytes up to it, with a closing brace: nothing is parsed or put in order to check it. Beside
NAME.jsonl lie NAME.anchors, which says now and then how far the log had come, so that a tail that
was cut off shows; NAME.key, which signs that; NAME.lock; and the older parts, NAME.N.jsonl, where N
is the number of their last record.

Only reading here; writing is in `dragoman.host.audit`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec

from dragoman.errors import Misconfigured
from dragoman.host.locks import FileLock, LockTimeout

__all__ = [
    "GENESIS",
    "MAX_LINE_BYTES",
    "Anchor",
    "Break",
    "BreakKind",
    "Follower",
    "LogPaths",
    "VerifyReport",
    "as_record",
    "digest_of",
    "last_anchors",
    "open_anchor",
    "read",
    "seal",
    "seal_anchor",
    "verify",
]

# What the first record of all says came before it.
GENESIS = "0" * 64

# 256 KiB: several times what the bounds on texts and arguments let a record become.
MAX_LINE_BYTES = 256 * 1024

# 64 KiB of anchors are more than 200 of them: 13,000 records.
ANCHOR_TAIL_BYTES = 64 * 1024
# With fewer records than two anchors apart, a log that was never closed may have lost its only
# anchor to the same crash.
MIN_ANCHORED = 128

_HASH_AT = b',"hash":"'
_END = b'"}'
_TAIL = len(_HASH_AT) + 64 + len(_END)
_HEX = re.compile(r"[0-9a-f]{64}")

BreakKind = Literal[
    "edited", "deleted", "reordered", "cut", "bad JSON", "rewritten", "foreign anchor", "missing"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Break:
    """The first thing that is wrong with a log.

    `line` is 1-based in `file`; 0 where it is about no line. `seq` is the record concerned, where
    it is known, else 0. "rewritten": from here or from before, as an anchor shows, all hashes were
    computed anew. "missing": a file that should be there is not.
    """

    kind: BreakKind
    file: str
    line: int
    text: str
    seq: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.kind}: {self.text}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What `verify` found. `is_intact` is the answer; `fault` says where it is not.

    `anchored_seq` is the last record that an anchor vouches for: up to there a cut would show.
    `is_signed` says whether the key was there to check the anchors with. `notes` are sentences
    about what is no fault.
    """

    files: tuple[str, ...]
    records: int
    first_seq: int
    last_seq: int
    last_hash: str
    anchors: int
    anchored_seq: int
    is_signed: bool
    fault: Break | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None

    def __str__(self) -> str:
        head = (
            f"{_many(self.records, 'record')} in {_many(len(self.files), 'file')},"
            f" {_many(self.anchors, 'anchor')} up to record {self.anchored_seq}"
        )
        state = "intact" if self.fault is None else f"broken: {self.fault}"
        return "\n".join((f"{head}: {state}", *self.notes))


@dataclass(frozen=True, slots=True)
class LogPaths:
    """The files of one log, by the path of the one that is written to."""

    current: Path

    @property
    def anchors(self) -> Path:
        """How far the log had come, now and then."""
        return self.current.with_suffix(".anchors")

    @property
    def key(self) -> Path:
        """32 random bytes of this installation, in hex."""
        return self.current.with_suffix(".key")

    @property
    def lock(self) -> Path:
        """Held by whoever appends."""
        return self.current.with_suffix(".lock")

    def older(self) -> list[Path]:
        """The parts that are no longer written to, the first one first."""
        stem, suffix = self.current.stem, self.current.suffix
        pattern = re.compile(re.escape(stem) + r"\.(\d{12,})" + re.escape(suffix))
        try:
            names = os.listdir(self.current.parent)
        except FileNotFoundError:
            return []
        found = sorted(
            (int(match[1]), match[0]) for name in names if (match := pattern.fullmatch(name))
        )
        return [self.current.with_name(name) for _, name in found]

    def part(self, last_seq: int) -> Path:
        """The name of the part that ends with this record."""
        return self.current.with_name(f"{self.current.stem}.{last_seq:012d}{self.current.suffix}")

    def parts(self) -> list[Path]:
        """Every part that is there, in order."""
        current = [self.current] if self.current.exists() else []
        return [*self.older(), *current]

    def read_key(self) -> bytes | None:
        """The key, or None where there is none to be read."""
        try:
            key = bytes.fromhex(self.key.read_text("ascii").strip())
        except (OSError, ValueError):
            return None
        return key if len(key) == 32 else None


# --- one line -------------------------------------------------------------------------------------


def seal(body: bytes) -> tuple[bytes, str]:
    """The line for a record's JSON text, and its hash."""
    digest = hashlib.sha256(body).hexdigest()
    return b"%b%b%b%b\n" % (body[:-1], _HASH_AT, digest.encode(), _END), digest


def digest_of(line: bytes) -> str | None:
    """The hash that a line (without its end) states, or None where it states none."""
    if len(line) <= _TAIL or line[-2:] != _END or line[-_TAIL : -_TAIL + len(_HASH_AT)] != _HASH_AT:
        return None
    text = line[-66:-2].decode("ascii", "replace")
    return text if _HEX.fullmatch(text) else None


def _computed(line: bytes) -> str:
    return hashlib.sha256(line[:-_TAIL] + b"}").hexdigest()


def as_record(line: bytes) -> dict[str, Any] | None:
    """A line (without its end) as an object, or None where it is none."""
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return record if isinstance(record, dict) else None


class Follower:
    """Follows a chain line by line; `seq` and `digest` are those of the last good record.

    A line that is no record may only stand where the next record says that a write broke off
    there, with its exact length and hash.
    """

    def __init__(self, file: str, seq: int, digest: str | None, line: int = 0) -> None:
        self.file = file
        self.seq = seq
        # None: begun in the middle, whatever the first record says came before is taken.
        self.digest = digest
        self.line = line
        self._torn: tuple[int, bytes] | None = None

    def take(self, line: bytes) -> dict[str, Any] | Break | None:
        """The next line, without its end: the record, what is wrong, or None for a torn line."""
        self.line += 1
        stated = digest_of(line)
        record = as_record(line)
        if stated is None or record is None:
            if self._torn is not None:
                return self._broken_line()
            self._torn = (self.line, line)
            return None
        if self._torn is not None and not self._is_repair(record):
            return self._broken_line()
        if _computed(line) != stated:
            return self._break("edited", "its hash is not that of its text", record)
        problem = self._misplaced(record)
        if problem is not None:
            return problem
        self._torn = None
        self.seq = record["seq"]
        self.digest = stated
        return record

    def end(self) -> Break | None:
        """What is wrong at the end of the file."""
        return None if self._torn is None else self._broken_line()

    def _misplaced(self, record: dict[str, Any]) -> Break | None:
        seq = record.get("seq")
        if type(seq) is not int:
            return self._break("edited", "it has no number", record)
        if self.digest is None:
            return None
        if seq > self.seq + 1:
            text = f"record {self.seq + 1} should be here, and this is record {seq}"
            return self._break("deleted", text, record)
        if seq <= self.seq:
            text = f"record {seq} stands after record {self.seq}"
            return self._break("reordered", text, record)
        if record.get("prev_hash") != self.digest:
            text = f"record {seq} follows another one than what stands before it"
            # The line itself is as it was written; what it refers to is not.
            return replace(self._break("edited", text, record), line=max(1, self.line - 1))
        return None

    def _is_repair(self, record: dict[str, Any]) -> bool:
        assert self._torn is not None
        details = record.get("details")
        return (
            record.get("event") == "torn"
            and isinstance(details, dict)
            and details.get("bytes") == len(self._torn[1])
            and details.get("sha256") == hashlib.sha256(self._torn[1]).hexdigest()
        )

    def _broken_line(self) -> Break:
        assert self._torn is not None
        number, line = self._torn
        if as_record(line) is None:
            kind: BreakKind = "bad JSON"
            text = "it is no JSON object"
        else:
            kind, text = "edited", "it does not end with its hash"
        return Break(kind=kind, file=self.file, line=number, text=text, seq=self.seq + 1)

    def _break(self, kind: BreakKind, text: str, record: Mapping[str, Any]) -> Break:
        seq = record.get("seq")
        number = seq if type(seq) is int else 0
        return Break(kind=kind, file=self.file, line=self.line, text=text, seq=number)


# --- anchors --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """That the log had this hash at this record. `chain` is the log's own id.

    Kept somewhere else, it also shows a log that was written anew together with its key.
    """

    chain: str
    seq: int
    hash: str
    ts: str
    mac: str = ""

    def signed(self, key: bytes) -> Anchor:
        """The same with the signature of this key."""
        text = f"{self.chain}\n{self.seq}\n{self.hash}\n{self.ts}"
        return replace(self, mac=hmac.new(key, text.encode(), hashlib.sha256).hexdigest())


def seal_anchor(anchor: Anchor) -> bytes:
    """The anchor as a line."""
    fields = ("chain", "seq", "hash", "ts", "mac")
    return msgspec.json.encode({name: getattr(anchor, name) for name in fields}) + b"\n"


def open_anchor(line: bytes) -> Anchor | None:
    """The anchor in a line, or None where there is none."""
    record = as_record(line)
    if record is None:
        return None
    try:
        return msgspec.convert(record, Anchor)
    except msgspec.ValidationError:
        return None


def last_anchors(path: Path, key: bytes) -> list[Anchor]:
    """The last signed anchors of a file, at most some 200; empty where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - ANCHOR_TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    found = [anchor for line in lines if (anchor := open_anchor(line)) is not None]
    return [anchor for anchor in found if hmac.compare_digest(anchor.signed(key).mac, anchor.mac)]


# --- the whole ------------------------------------------------------------------------------------


def _lines(file: BinaryIO, size: int) -> Iterator[tuple[bytes, bool]]:
    """Each line of the first `size` bytes without its end, and whether it had one."""
    left = size
    while left > 0:
        line = file.readline(left)
        if not line:
            return
        left -= len(line)
        yield (line[:-1], True) if line.endswith(b"\n") else (line, False)


def verify(path: str | os.PathLike[str], *, is_partial: bool = False) -> VerifyReport:
    """Check a log from its first record to its last; it may be in use meanwhile.

    With `is_partial` the oldest parts may be missing, as when they were put away. The report names
    the first broken line. What it cannot show: records cut off after the last anchor; and a log
    written anew by somebody who has the key, unless an anchor was kept elsewhere.

    Raises:
        OSError: a file cannot be read.
    """
    paths = LogPaths(Path(path))
    with ExitStack() as stack:
        with _locked(paths):
            parts, sizes = _opened(paths, stack)
            anchors = paths.anchors.read_bytes() if paths.anchors.exists() else b""
        return _Verification(paths, is_partial, anchors).run(parts, sizes)


def _opened(paths: LogPaths, stack: ExitStack) -> tuple[list[BinaryIO], list[int]]:
    """Every part, and how long it is now."""
    parts: list[BinaryIO] = [stack.enter_context(part.open("rb")) for part in paths.parts()]
    return parts, [os.fstat(part.fileno()).st_size for part in parts]


def _locked(paths: LogPaths) -> ExitStack:
    """The log's lock, where there is one and it can be had: a copy of a log has none."""
    stack = ExitStack()
    if paths.lock.exists():
        try:
            lock = FileLock(paths.lock)
            stack.callback(lock.close)
            stack.enter_context(lock)
        except (OSError, LockTimeout, Misconfigured):
            pass
    return stack


class _Verification:
    """One run of `verify`."""

    def __init__(self, paths: LogPaths, is_partial: bool, anchors: bytes) -> None:
        self._paths = paths
        self._is_partial = is_partial
        self._key = paths.read_key()
        self._chain = ""
        self._records = self._first_seq = self._anchored_seq = 0
        self._anchors: dict[int, list[tuple[Anchor, int]]] = {}
        self._anchor_break: Break | None = None
        self._notes: list[str] = []
        self._read_anchors(anchors)
        self._anchor_count = sum(len(found) for found in self._anchors.values())

    def run(self, parts: Sequence[BinaryIO], sizes: Sequence[int]) -> VerifyReport:
        follower = Follower(self._paths.current.name, 0, None if self._is_partial else GENESIS)
        fault: Break | None = None
        for part, size in zip(parts, sizes, strict=True):
            follower.file, follower.line = Path(part.name).name, 0
            fault = self._follow(follower, part, size)
            if fault is not None:
                break
        fault = fault or self._check_ends(follower, bool(parts)) or self._anchor_break
        return VerifyReport(
            files=tuple(Path(part.name).name for part in parts),
            records=self._records,
            first_seq=self._first_seq,
            last_seq=follower.seq,
            last_hash=follower.digest or GENESIS,
            anchors=self._anchor_count,
            anchored_seq=self._anchored_seq,
            is_signed=self._key is not None,
            fault=fault,
            notes=tuple(self._notes),
        )

    def _follow(self, follower: Follower, part: BinaryIO, size: int) -> Break | None:
        lines = _lines(part, size)
        for line, has_end in lines:
            taken = follower.take(line)
            if not has_end and not isinstance(taken, Break):
                text = "the last line has no end: a write broke off, or the file was cut"
                return Break(
                    kind="cut", file=follower.file, line=follower.line, text=text, seq=follower.seq
                )
            if isinstance(taken, Break):
                return self._told_apart(taken, follower, (rest for rest, _ in lines))
            if taken is None:
                continue
            self._records += 1
            self._first_seq = self._first_seq or taken["seq"]
            if taken.get("event") == "torn":
                self._notes.append(
                    f"{follower.file}:{follower.line - 1}: a write broke off here, as the record"
                    " after it says"
                )
            if taken.get("event") == "opened" and not self._chain:
                self._chain = str((taken.get("details") or {}).get("chain", ""))
            fault = self._check_anchors(follower)
            if fault is not None:
                return fault
        return follower.end()

    def _told_apart(self, fault: Break, follower: Follower, rest: Iterable[bytes]) -> Break:
        """A gap is a record that was moved when it comes later, else one that was deleted."""
        if fault.kind != "deleted":
            return fault
        wanted = follower.seq + 1
        for line in rest:
            record = as_record(line)
            if record is not None and record.get("seq") == wanted:
                return replace(fault, kind="reordered", text=f"{fault.text}, which comes later")
        if wanted == 1 and self._paths.older() == [] and follower.line == 1:
            return replace(fault, text=f"{fault.text}; older parts of the log are missing")
        return fault

    def _check_anchors(self, follower: Follower) -> Break | None:
        for anchor, line in self._anchors.pop(follower.seq, ()):
            if self._chain and anchor.chain != self._chain:
                self._note_foreign(line, "it is of another log")
            elif anchor.hash != follower.digest:
                text = f"an anchor ({self._paths.anchors.name}:{line}) says this record was another"
                return Break(
                    kind="rewritten",
                    file=follower.file,
                    line=follower.line,
                    text=text,
                    seq=follower.seq,
                )
            else:
                self._anchored_seq = follower.seq
        return None

    def _check_ends(self, follower: Follower, has_parts: bool) -> Break | None:
        """What anchors say of records that are not there; and whether there are any."""
        for seq, found in sorted(self._anchors.items()):
            for anchor, line in found:
                if self._chain and anchor.chain != self._chain:
                    self._note_foreign(line, "it is of another log")
                elif seq > follower.seq:
                    last = max(self._anchors)
                    text = f"an anchor says that the log had {last} records; it has {follower.seq}"
                    return Break(
                        kind="cut",
                        file=follower.file,
                        line=follower.line + 1,
                        text=text,
                        seq=follower.seq + 1,
                    )
        if not has_parts:
            text = "there is no log"
            return Break(kind="missing", file=self._paths.current.name, line=0, text=text)
        if not self._anchor_count and follower.seq >= MIN_ANCHORED:
            text = "there are no anchors, so that a tail that was cut off would not show"
            return Break(kind="missing", file=self._paths.anchors.name, line=0, text=text)
        if self._key is None:
            self._notes.append(f"{self._paths.key.name} is not there: the anchors are unsigned")
        return None

    def _read_anchors(self, content: bytes) -> None:
        for number, line in enumerate(content.split(b"\n"), 1):
            if not line:
                continue
            anchor = open_anchor(line)
            if anchor is None:
                # A write that broke off leaves a line without its closing brace.
                if line.endswith(b"}"):
                    self._note_foreign(number, "it is no anchor")
            elif self._key is not None and not hmac.compare_digest(
                anchor.signed(self._key).mac, anchor.mac
            ):
                self._note_foreign(number, "it is not signed with the key of this log")
            else:
                self._anchors.setdefault(anchor.seq, []).append((anchor, number))

    def _note_foreign(self, line: int, text: str) -> None:
        if self._anchor_break is None:
            self._anchor_break = Break(
                kind="foreign anchor", file=self._paths.anchors.name, line=line, text=text
            )


# --- reading --------------------------------------------------------------------------------------


def read(
    path: str | os.PathLike[str],
    *,
    where: Mapping[str, str] | None = None,
    since: float | datetime | None = None,
    until: float | datetime | None = None,
    last: int | None = None,
    accept: Callable[[dict[str, Any]], bool] | None = None,
) -> Iterator[dict[str, Any]]:
    """The records of a log, the oldest first, without checking the chain.

    `where` maps fields to the texts they must have, `since` (inclusive) and `until` (exclusive) are
    seconds since the epoch or moments, `last` keeps only that many of the newest. A line that
    cannot be read is given as `{"kind": "unreadable", "file": ..., "line": ..., "bytes": ...}`,
    whatever the filters say: nothing is left out in silence.
    """
    found = _filtered(LogPaths(Path(path)), where or {}, since, until, accept)
    return found if last is None else iter(deque(found, maxlen=max(0, last)))


def _filtered(
    paths: LogPaths,
    where: Mapping[str, str],
    since: float | datetime | None,
    until: float | datetime | None,
    accept: Callable[[dict[str, Any]], bool] | None,
) -> Iterator[dict[str, Any]]:
    begin, end = _seconds(since), _seconds(until)
    with ExitStack() as stack:
        with _locked(paths):
            parts, sizes = _opened(paths, stack)
        for part, size in zip(parts, sizes, strict=True):
            for number, (line, _) in enumerate(_lines(part, size), 1):
                record = as_record(line)
                if record is None:
                    yield {
                        "kind": "unreadable",
                        "file": Path(part.name).name,
                        "line": number,
                        "bytes": len(line),
                    }
                    continue
                if any(str(record.get(name, "")) != text for name, text in where.items()):
                    continue
                if begin is not None or end is not None:
                    at = _moment(record.get("ts"))
                    if (begin is not None and at < begin) or (end is not None and at >= end):
                        continue
                if accept is None or accept(record):
                    yield record


def _seconds(moment: float | datetime | None) -> float | None:
    return moment.timestamp() if isinstance(moment, datetime) else moment


def _moment(ts: object) -> float:
    try:
        return datetime.fromisoformat(str(ts)).timestamp()
    except ValueError:
        return 0.0
