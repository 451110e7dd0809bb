"""`verify` names what was done to a log, and the line; `read` gives what is in it (attack 67)."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.host.audit import Audit, AuditLimits, read, verify
from dragoman.host.chain import GENESIS, LogPaths, VerifyReport, digest_of, seal
from tests.host.audit_log import INTENT, PAYLOAD, YES, lines, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def write(path: Path, count: int, **limits: Any) -> None:
    """A log with an opening record and `count` more."""
    with Audit(path, limits=AuditLimits(**limits), clock=lambda: 1_000_000.0) as audit:
        for n in range(count):
            audit.event(f"e{n}")


def forged(parts: list[bytes], start: int) -> list[bytes]:
    """The same lines, all hashes from one on computed anew, as whoever rewrites a log would."""
    made = parts[:start]
    before = digest_of(made[-1].rstrip(b"\n")) if made else GENESIS
    for line in parts[start:]:
        record = json.loads(line)
        record.pop("hash")
        record["prev_hash"] = before
        record["seq"] = len(made) + 1
        sealed, before = seal(json.dumps(record, separators=(",", ":")).encode())
        made.append(sealed)
    return made


def fault(path: Path) -> tuple[str, int]:
    report = verify(path)
    assert report.fault is not None, "nothing was found"
    assert not report.is_intact
    return report.fault.kind, report.fault.line


def test_a_log_that_nobody_touched_is_intact(path: Path) -> None:
    write(path, 9)
    report = verify(path)
    assert report.is_intact
    assert (report.records, report.first_seq, report.last_seq) == (10, 1, 10)
    assert report.anchored_seq == 10
    assert report.is_signed
    assert "intact" in str(report)


@pytest.mark.parametrize(
    ("change", "kind", "line"),
    [
        (lambda p: [*p[:4], p[4].replace(b'"e3"', b'"e9"'), *p[5:]], "edited", 5),
        (lambda p: [*p[:4], *p[5:]], "deleted", 5),
        (lambda p: p[1:], "deleted", 1),
        (lambda p: [*p[:4], p[6], p[5], p[4], *p[7:]], "reordered", 5),
        (lambda p: [*p[:4], p[5], p[4], *p[6:]], "reordered", 5),
        (lambda p: [*p[:5], p[4], *p[5:]], "reordered", 6),
        (lambda p: p[:-1], "cut", 10),
        (lambda p: p[:3], "cut", 4),
        (lambda p: [*p[:-1], p[-1][:-1]], "cut", 10),
        (lambda p: [*p[:-1], p[-1][:20]], "cut", 10),
        (lambda p: [], "cut", 1),
        (lambda p: [*p[:4], b"what?\n", *p[5:]], "bad JSON", 5),
        (lambda p: [*p[:4], b"\n", *p[4:]], "bad JSON", 5),
        (lambda p: [*p[:4], b'{"seq":5}\n', *p[5:]], "edited", 5),
        (lambda p: [*p[:4], *forged([p[4].replace(b"e3", b"e9")], 0), *p[5:]], "reordered", 5),
        (lambda p: forged([*p[:4], p[4].replace(b"e3", b"e9")], 4) + p[5:], "edited", 5),
        (
            lambda p: forged([*p[:4], p[4].replace(b"e3", b"e9"), *p[5:]], 4),
            "rewritten",
            8,
        ),
        (lambda p: forged([*p[:4], *p[5:]], 4), "rewritten", 8),
    ],
)
def test_what_was_done_to_a_log_is_named_with_its_line(
    path: Path, change: Callable[[list[bytes]], list[bytes]], kind: str, line: int
) -> None:
    write(path, 9, anchor_every=8)
    put(path, change(lines(path)))
    assert fault(path) == (kind, line)


def test_a_log_that_is_gone_is_missing(path: Path) -> None:
    assert fault(path) == ("missing", 0)


def test_anchors_that_are_gone_are_missed_where_there_must_be_some(path: Path) -> None:
    write(path, 200)
    path.with_suffix(".anchors").unlink()
    report = verify(path)
    assert report.fault is not None
    assert (report.fault.kind, report.fault.file) == ("missing", "audit.anchors")


@pytest.mark.parametrize("what", ["edited", "of another log", "no anchor", "torn"])
def test_an_anchor_that_is_not_ours_is_named(path: Path, what: str) -> None:
    write(path, 20, anchor_every=4)
    anchors = path.with_suffix(".anchors")
    parts = lines(anchors)
    if what == "edited":
        parts[2] = parts[2].replace(b'"seq":8', b'"seq":9')
    elif what == "no anchor":
        parts[2] = b"{}\n"
    elif what == "torn":
        parts.insert(2, parts[2][:50] + b"\n")
    else:
        other = path.parent / "other"
        write(other / path.name, 40)
        parts[2] = lines(other / anchors.name)[1]
    put(anchors, parts)
    if what == "torn":
        assert verify(path).is_intact, "a write that broke off is no forgery"
    else:
        assert fault(path) == ("foreign anchor", 3)


def test_a_copy_without_its_key_is_still_checked(path: Path) -> None:
    write(path, 9)
    path.with_suffix(".key").unlink()
    report = verify(path)
    assert report.is_intact
    assert not report.is_signed
    assert "unsigned" in report.notes[0]
    put(path, lines(path)[:-2])
    assert fault(path) == ("cut", 9)


def test_a_line_that_broke_off_must_be_the_one_that_is_named(path: Path) -> None:
    write(path, 3)
    with path.open("ab") as file:
        file.write(b'{"seq":5,"prev')
    with Audit(path) as audit:
        audit.event("y")
    assert verify(path).is_intact
    parts = lines(path)
    for torn in (b"another text!!\n", b"\n"):
        put(path, [*parts[:4], torn, *parts[5:]])
        assert fault(path) == ("bad JSON", 5)
    put(path, [*parts[:4], *parts[5:]])
    assert verify(path).is_intact, "that something broke off is still said, by the record"


@pytest.mark.parametrize("number", [0, 1])
def test_a_part_that_is_gone_shows(path: Path, number: int) -> None:
    write(path, 60, max_bytes=4_000)
    older = LogPaths(path).older()
    assert len(older) > 2
    older[number].unlink()
    report = verify(path)
    assert report.fault is not None
    assert (report.fault.kind, report.fault.file, report.fault.line) == (
        "deleted",
        older[number + 1].name,
        1,
    )
    assert verify(path, is_partial=True).is_intact is (number == 0)


def test_a_log_can_be_checked_while_it_is_written_to(path: Path) -> None:
    with Audit(path, limits=AuditLimits(anchor_every=1)) as audit:
        for _ in range(10):
            audit.event("x")
            assert verify(path).is_intact


# --- anything at all ------------------------------------------------------------------------------


@contextmanager
def a_log(texts: list[str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        with Audit(path) as audit:
            for text in texts:
                if len(text) % 2:
                    audit.outcome(audit.decision(INTENT, YES, payload=PAYLOAD, trace=text), "ok")
                else:
                    audit.event("x", text=text)
        assert verify(path).is_intact
        yield path


texts = st.lists(st.text(max_size=8), min_size=1, max_size=8)


# Keys, ids and durations differ from log to log, and so does its length: places are drawn without.
somewhere = st.integers(0, 10**9)


@given(texts, somewhere, st.integers(1, 255))
@settings(max_examples=40)
def test_every_changed_byte_is_found_at_its_line(texts: list[str], place: int, flip: int) -> None:
    with a_log(texts) as path:
        raw = bytearray(path.read_bytes())
        at = place % len(raw)
        raw[at] ^= flip
        path.write_bytes(raw)
        assert found(verify(path)) == path_line(bytes(raw), at)


def path_line(raw: bytes, at: int) -> int:
    return raw[:at].count(b"\n") + 1


def found(report: VerifyReport) -> int:
    assert report.fault is not None, "the change was not found"
    return report.fault.line


@given(texts, st.data())
@settings(max_examples=40)
def test_every_line_taken_out_doubled_moved_or_cut_is_found(
    texts: list[str], data: st.DataObject
) -> None:
    with a_log(texts) as path:
        parts = lines(path)
        one = data.draw(st.integers(0, len(parts) - 1))
        match data.draw(st.sampled_from(["delete", "double", "swap", "cut", "truncate"])):
            case "delete":
                del parts[one]
                expected = one + 1
            case "double":
                to = data.draw(st.integers(0, len(parts)))
                parts.insert(to, parts[one])
                # Right before itself it looks as right after itself.
                expected = to + 2 if to == one else to + 1
            case "swap":
                other = data.draw(st.integers(0, len(parts) - 1).filter(lambda n: n != one))
                parts[one], parts[other] = parts[other], parts[one]
                expected = min(one, other) + 1
            case "cut":
                parts = parts[:one]
                expected = one + 1
            case _:
                size = 1 + data.draw(somewhere) % (len(parts[one]) - 1)
                parts = [*parts[:one], parts[one][:size]]
                expected = one + 1
        put(path, parts)
        assert found(verify(path)) == expected


# --- reading --------------------------------------------------------------------------------------


def test_records_are_found_by_field_by_time_and_by_number(path: Path) -> None:
    now = [1000.0]
    with Audit(path, clock=lambda: now[0]) as audit:
        for n in range(4):
            now[0] += 10
            audit.event("x", server="ab"[n % 2], text=str(n))
    assert [r["text"] for r in read(path, where={"server": "a"})] == ["0", "2"]
    assert [r["text"] for r in read(path, since=1020, until=1040)] == ["1", "2"]
    assert [r["text"] for r in read(path, since=datetime.fromtimestamp(1040, UTC))] == ["3"]
    assert [r["text"] for r in read(path, last=2)] == ["2", "3"]
    assert [r["seq"] for r in read(path, accept=lambda r: r["seq"] % 2 == 1)] == [1, 3, 5]
    assert list(read(path.with_name("none.jsonl"))) == []


def test_a_line_that_cannot_be_read_is_shown_and_not_left_out(path: Path) -> None:
    write(path, 2)
    parts = lines(path)
    put(path, [parts[0], b"\xff\n", *parts[1:]])
    found = list(read(path, where={"event": "e0"}))
    assert [r.get("event", r["kind"]) for r in found] == ["unreadable", "e0"]
    assert (found[0]["line"], found[0]["bytes"]) == (2, 1)


def test_the_hash_is_that_of_the_line_up_to_it(path: Path) -> None:
    """What docs/audit.md promises to whoever checks a log with other tools."""
    write(path, 3)
    before = "0" * 64
    for line in lines(path):
        head, _, rest = line.rpartition(b',"hash":"')
        record = json.loads(line)
        assert rest == record["hash"].encode() + b'"}\n'
        assert record["hash"] == hashlib.sha256(head + b"}").hexdigest()
        assert record["prev_hash"] == before
        before = record["hash"]
