"""The audit log as it is written: what a record holds, and what happens when it cannot be."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from dragoman.errors import Misconfigured
from dragoman.host.audit import (
    Audit,
    AuditFailed,
    AuditLimits,
    Redactor,
    read,
    set_aside,
    verify,
)
from dragoman.host.chain import Anchor
from dragoman.host.kinds import Code, Decision, Effect, Step, Verdict
from dragoman.host.locks import FileLock
from dragoman.host.policy import AuditRules
from tests.host.audit_log import INTENT, PAYLOAD, YES, kinds, lines, put

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def last(path: Path) -> dict[str, Any]:
    return list(read(path))[-1]


# --- what is recorded -----------------------------------------------------------------------------


def test_a_decision_is_in_the_file_when_the_call_returns(path: Path) -> None:
    with Audit(path, session="s1") as audit:
        mark = audit.decision(INTENT, YES, payload=PAYLOAD, trace="t1", approval="a1")
        record = json.loads(lines(path)[-1])
    assert record["seq"] == mark.seq == 2
    assert record["id"] == mark.id
    assert {name: record[name] for name in ("kind", "session", "server", "action", "object")} == {
        "kind": "decision",
        "session": "s1",
        "server": "fs",
        "action": "tool.call",
        "object": "read_file",
    }
    assert record["effect"] == "allow"
    assert record["step"] == "grant"
    assert record["source"] == "policy.json:3"
    assert record["taint"] == ["mail", "web"]
    assert record["trace"] == "t1"
    assert record["approval"] == "a1"
    assert "code" not in record, "what says nothing is left out"


def test_who_answered_is_recorded_with_the_answer(path: Path) -> None:
    refused = Verdict(
        effect=Effect.DENY, step=Step.ASK, rule="the person said no", code=Code.PERSON_DENIED
    )
    answer = Decision(
        effect=Effect.DENY, view_digest="sha256:v", note="not now", actor="ada", channel="terminal"
    )
    with Audit(path) as audit:
        audit.decision(INTENT, refused, decision=answer, view_digest="sha256:v")
        record = last(path)
        assert record["view_digest"] == audit.keyed("sha256:v")
    assert (record["actor"], record["channel"], record["note"]) == ("ada", "terminal", "not now")
    assert (record["effect"], record["code"], record["edited"]) == ("deny", "person_denied", False)


def test_an_outcome_names_its_decision(path: Path) -> None:
    now = [10.0]
    with Audit(path, timer=lambda: now[0]) as audit:
        mark = audit.decision(INTENT, YES, trace="t1")
        now[0] = 10.25
        audit.outcome(mark, "failed", error="error -32000", result={"a": ["x"]}, flags=["schema"])
        record = last(path)
    assert record["id"] == mark.id
    assert record["seq"] == mark.seq + 1
    assert record["status"] == "failed"
    assert record["duration_ms"] == 250.0
    assert record["error"] == "error -32000"
    assert record["result"] == {"": "object(1)", "/a": "array(1)", "/a/0": "string(1)"}
    assert record["details"] == {"flags": ["schema"]}
    for name in ("trace", "server", "action", "object"):
        assert record[name] == list(read(path))[-2][name], "both are found by the same fields"


@pytest.mark.parametrize("args", ["shape", "digest", "full"])
def test_arguments_are_kept_as_the_rules_say(
    path: Path, args: Literal["shape", "digest", "full"]
) -> None:
    with Audit(path, AuditRules(args=args)) as audit:
        audit.decision(INTENT, YES, payload=PAYLOAD)
        kept = last(path)["args"]
        assert kept.pop("digest") == audit.keyed(PAYLOAD.decode())
    assert kept.pop("bytes") == len(PAYLOAD)
    if args == "shape":
        assert kept["shape"]["/arguments/path"] == "string(10)"
        assert "/srv/app" not in path.read_text()
    elif args == "digest":
        assert kept == {}
    else:
        assert kept == {"value": json.loads(PAYLOAD)}


def test_contents_in_details_are_kept_as_arguments_are(path: Path) -> None:
    with Audit(path) as audit:
        audit.event(
            "sampled", server="fs", sent=b'{"messages":["my diary"]}', prompt="diary " * 100, n=3
        )
        details = last(path)["details"]
    assert details["n"] == 3
    assert details["sent"]["shape"] == {
        "": "object(1)",
        "/messages": "array(1)",
        "/messages/0": "string(8)",
    }
    assert "diary" not in path.read_text()


def test_the_digest_of_a_short_secret_cannot_be_guessed_without_the_key(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        with Audit(tmp_path / name / "audit.jsonl") as audit:
            audit.decision(INTENT, YES, payload=b'{"pin":"0000"}')
    first, second = (last(tmp_path / name / "audit.jsonl")["args"]["digest"] for name in "ab")
    assert first != second


def test_no_known_secret_is_written_wherever_it_stands(path: Path) -> None:
    """Attack 70."""
    canary = 'canary-"9\\f/é\n7'
    redactor = Redactor([f"Bearer {canary}"])
    intent = replace(
        INTENT, object=f"https://x/?k={canary}", arguments={canary: [canary], "n": canary * 2000}
    )
    said = replace(YES, rule=f"{'x' * 4090}{canary}", source=canary)
    with Audit(path, AuditRules(args="full"), redactor=redactor, session=canary) as audit:
        mark = audit.decision(intent, said, trace=canary)
        payload = json.dumps({"env": {"T": canary}, canary: 1}).encode()
        audit.decision(intent, said, payload=payload)
        audit.outcome(mark, "ok", result={canary: 1}, error=canary, note=canary, body=[canary])
        audit.event("x", text=canary, d={"e": canary})
    raw = path.read_text()
    assert "canary" not in raw, raw[max(0, raw.find("canary") - 60) :][:120]
    assert "[secret]" in raw
    assert verify(path).is_intact


def test_a_secret_that_is_one_of_our_own_words_spoils_no_record(path: Path) -> None:
    with Audit(path, redactor=Redactor(["decision", "tool.call"])) as audit:
        audit.decision(INTENT, YES)
    assert [r["action"] for r in read(path, where={"kind": "decision"})] == ["tool.call"]


@pytest.mark.parametrize(
    "text",
    ['a\n{"seq":3,"kind":"decision"}\n', "a\r\nb", "\u2028\u2029\x85", "\x1b[2J\x9b31m\u202e"],
)
def test_a_text_cannot_make_a_second_record_or_move_the_cursor(path: Path, text: str) -> None:
    """Attack 71."""
    with Audit(path, AuditRules(args="full")) as audit:
        audit.decision(
            replace(INTENT, object=text, server=text, arguments={text: text}), YES, trace=text
        )
        audit.event("log", text=text)
    raw = path.read_bytes()
    assert raw.count(b"\n") == 3
    assert set(raw) <= {0x0A, *range(0x20, 0x7F)}
    assert last(path)["text"] == text


def test_what_is_written_is_bounded(path: Path) -> None:
    huge = {f"k{n}": "x" * 1000 for n in range(5000)}
    with Audit(path, AuditRules(args="full")) as audit:
        audit.decision(replace(INTENT, object="o" * 10**6, arguments=huge), YES)
        audit.event("x", text="t" * 10**6, **{f"d{n}": "y" * 199 for n in range(5000)})
    assert max(map(len, lines(path))) < 256 * 1024
    assert [r["kind"] for r in read(path)] == ["event", "decision", "event"]
    assert verify(path).is_intact


def test_odd_values_are_recorded_and_raise_nothing(path: Path) -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    odd = {
        "deep": deep,
        "nan": float("nan"),
        "big": 2**90,
        "huge": 10**5000,
        "half": "\ud800",
        "obj": object(),
    }
    with Audit(path, AuditRules(args="full")) as audit:
        for name, value in odd.items():
            audit.decision(replace(INTENT, arguments={name: value}), YES, trace=name)
            audit.event(name, value=value)
        for payload in (b"", b"\xff", b"not json", b"[" * 5000):
            audit.decision(INTENT, YES, payload=payload)
    report = verify(path)
    assert report.is_intact, str(report)
    assert report.records == 1 + 2 * len(odd) + 4


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_log_that_was_cut_while_in_use_takes_nothing_more(path: Path) -> None:
    with Audit(path) as audit:
        audit.decision(INTENT, YES)
        audit.decision(INTENT, YES)
        put(path, lines(path)[:-1])
        for _ in range(2):
            with pytest.raises(AuditFailed, match="cut off"):
                audit.decision(INTENT, YES)
    assert len(lines(path)) == 2


@pytest.mark.parametrize("how", ["gone", "other", "emptied"])
def test_a_log_that_was_taken_away_while_in_use_is_not_begun_anew(path: Path, how: str) -> None:
    with Audit(path) as audit:
        audit.decision(INTENT, YES)
        path.unlink()
        if how == "other":
            for file in path.parent.iterdir():
                file.unlink()
            with Audit(path) as other:
                for _ in range(5):
                    other.event("x")
        if how == "emptied":
            path.touch(0o600)
            path.with_suffix(".anchors").unlink()
        for _ in range(3):
            with pytest.raises(AuditFailed):
                audit.decision(INTENT, YES)


def test_a_tail_that_is_missing_when_the_log_is_opened_is_refused_with_the_remedy(
    path: Path,
) -> None:
    with Audit(path) as audit:
        for _ in range(3):
            audit.event("x")
    before = lines(path)
    put(path, before[:-1])
    with pytest.raises(AuditFailed, match="it had 4 records, and has 3") as caught:
        Audit(path)
    assert "dragoman host audit set-aside" in str(caught.value)
    folder = set_aside(path)
    assert lines(folder / path.name) == before[:-1]
    report = verify(folder / path.name)
    assert report.fault is not None
    assert (report.fault.kind, report.fault.line) == ("cut", 4)
    assert report.is_signed
    with Audit(path) as audit:
        audit.event("y")
    assert verify(path).is_intact


@pytest.mark.parametrize("what", ["log", "key", "line", "hash"])
def test_a_log_that_was_tampered_with_is_not_continued(path: Path, what: str) -> None:
    with Audit(path) as audit:
        for _ in range(3):
            audit.event("x")
    parts = lines(path)
    match what:
        case "log":
            path.unlink()
        case "key":
            path.with_suffix(".key").unlink()
        case "line":
            put(path, [*parts[:2], parts[2].replace(b'"x"', b'"y"'), parts[3]])
        case _:
            put(path, [*parts[:-1], parts[-1].replace(b'"}\n', b'0"}\n')])
    before = path.read_bytes() if path.exists() else b""
    with pytest.raises(AuditFailed):
        Audit(path)
    assert (path.read_bytes() if path.exists() else b"") == before, "nothing is lost"


@pytest.mark.parametrize("half", [0.01, 0.5, 0.99])
def test_half_a_line_is_kept_and_marked_and_the_chain_goes_on(path: Path, half: float) -> None:
    with Audit(path) as audit:
        audit.event("x")
        line = lines(path)[-1]
        torn = line[: int(len(line) * half)]
        # As a crash between two pages of one write leaves it.
        with path.open("ab") as file:
            file.write(torn)
        audit.event("y")
    assert verify(path).is_intact, str(verify(path))
    assert kinds(list(read(path))) == ["opened", "x", "unreadable", "torn", "y"]
    assert lines(path)[2] == torn + b"\n"


def test_an_old_record_at_the_end_is_no_write_that_broke_off(path: Path) -> None:
    with Audit(path) as audit:
        audit.event("x")
        with path.open("ab") as file:
            file.write(lines(path)[-1].rstrip(b"\n"))
        with pytest.raises(AuditFailed, match="stands after"):
            audit.event("y")


def test_half_a_line_is_found_when_the_log_is_opened(path: Path) -> None:
    with Audit(path) as audit:
        audit.event("x")
    with path.open("ab") as file:
        file.write(b"\0" * 700)
    with Audit(path) as audit:
        audit.event("y")
    report = verify(path)
    assert report.is_intact, str(report)
    assert kinds(list(read(path))) == ["opened", "x", "unreadable", "torn", "y"]
    assert report.notes == ("audit.jsonl:3: a write broke off here, as the record after it says",)


def test_a_whole_record_without_its_end_is_taken_as_it_is(path: Path) -> None:
    with Audit(path) as audit:
        audit.event("x")
    path.write_bytes(path.read_bytes()[:-1])
    with Audit(path) as audit:
        audit.event("y")
    assert kinds(list(read(path))) == ["opened", "x", "y"]
    assert verify(path).is_intact


FULL_DISK = """
import resource, signal, sys
from dragoman.host.audit import Audit, AuditFailed, AuditLimits
from tests.host.audit_log import INTENT, PAYLOAD, YES
path, limit = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
audit = Audit(path, limits=AuditLimits(anchor_every=10**9, anchor_s=10**9))
written, refused = [], 0
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for _ in range(200):
    try:
        written.append(audit.decision(INTENT, YES, payload=PAYLOAD).seq)
    except AuditFailed:
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
before = len(written)
for _ in range(3):
    written.append(audit.decision(INTENT, YES, payload=PAYLOAD).seq)
audit.close()
print(before, refused, written == list(range(2, 2 + len(written))))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("limit", [5_000, 5_001, 5_377])
def test_on_a_full_disk_it_refuses_and_goes_on_when_there_is_room(path: Path, limit: int) -> None:
    """Attack 69: a size limit makes the last write a short one, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(limit)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    before, refused, is_gapless = done.stdout.split()
    assert int(before) > 2
    assert int(refused) == 200 - int(before)
    assert is_gapless == "True"
    report = verify(path)
    assert report.is_intact, str(report)
    assert report.notes == ()
    assert report.records == 1 + int(before) + 3


def test_a_failure_can_be_let_pass_but_not_forgotten(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Audit(path, AuditRules(on_write_failure="warn")) as audit:
        audit.event("x")
        saved = path.read_bytes()
        path.write_bytes(saved[:-10])
        with caplog.at_level(logging.WARNING, "dragoman.host"):
            marks = [audit.decision(INTENT, YES) for _ in range(3)]
        assert [mark.seq for mark in marks] == [0, 0, 0]
        assert audit.lost == 3
        assert len(caplog.records) == 1
        path.write_bytes(saved)
        audit.outcome(marks[0], "ok")
        assert audit.lost == 0
    records = list(read(path))
    assert kinds(records) == ["opened", "x", "lost", "outcome"]
    assert "3 records" in records[2]["text"]


def test_a_lock_that_is_not_given_back_is_waited_for_only_so_long(path: Path) -> None:
    with Audit(path, limits=AuditLimits(lock_wait_s=0.02)) as audit:
        other = FileLock(path.with_suffix(".lock"))
        with other, pytest.raises(AuditFailed, match="another process"):
            audit.decision(INTENT, YES)
        audit.decision(INTENT, YES)
        other.close()


def test_nothing_is_recorded_after_the_end(path: Path) -> None:
    audit = Audit(path)
    audit.close()
    audit.close()
    with pytest.raises(AuditFailed, match="closed"):
        audit.event("x")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_log_that_others_could_have_written_is_refused(path: Path) -> None:
    Audit(path).close()
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    path.chmod(0o622)
    with pytest.raises(Misconfigured, match="chmod 0600"):
        Audit(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_anchors_that_others_could_have_written_cost_no_record_but_the_next_start(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Audit(path, limits=AuditLimits(anchor_every=1)) as audit:
        path.with_suffix(".anchors").chmod(0o666)
        with caplog.at_level(logging.WARNING, "dragoman.host"):
            audit.event("x")
    assert "chmod 0600" in caplog.text
    assert kinds(list(read(path))) == ["opened", "x"]
    with pytest.raises(Misconfigured, match="chmod 0600"):
        Audit(path)


# --- many writers, many parts ---------------------------------------------------------------------


def test_two_that_write_to_one_log_share_one_chain(path: Path) -> None:
    with Audit(path) as one, Audit(path) as two:
        for n in range(50):
            (one, two)[n % 3 == 0].event(str(n))
    assert [r["event"] for r in read(path)] == ["opened", *map(str, range(50))]
    assert verify(path).is_intact


def test_threads_that_write_at_once_share_one_chain(path: Path) -> None:
    with Audit(path, limits=AuditLimits(max_bytes=20_000)) as one, Audit(path) as two:

        def write(audit: Audit) -> None:
            for _ in range(60):
                audit.outcome(audit.decision(INTENT, YES), "ok")

        threads = [threading.Thread(target=write, args=(audit,)) for audit in (one, two, one)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report = verify(path)
    assert report.is_intact, str(report)
    assert sum(r["kind"] != "event" for r in read(path)) == 360


def test_a_full_file_is_put_aside_and_the_chain_goes_on_in_the_next(path: Path) -> None:
    limits = AuditLimits(max_bytes=4_000)
    with Audit(path, limits=limits) as audit, Audit(path, limits=limits) as other:
        for n in range(40):
            (audit if n % 2 else other).event(f"e{n}", text="x" * 200)
    report = verify(path)
    assert report.is_intact, str(report)
    assert len(report.files) > 3
    assert all(file.stat().st_size <= 4_000 for file in path.parent.glob("*.jsonl"))
    assert [r["event"] for r in read(path) if r["event"] != "opened"] == [
        f"e{n}" for n in range(40)
    ]
    opened = list(read(path, where={"event": "opened"}))
    assert [r["details"].get("previous") for r in opened] == [None, *report.files[:-1]]


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_crash_between_two_parts_is_no_break(path: Path, is_empty: bool) -> None:
    with Audit(path) as audit:
        audit.event("x")
        path.rename(path.with_name("audit.000000000002.jsonl"))
        if is_empty:
            path.touch(0o600)
        audit.event("y")
    with Audit(path) as audit:
        audit.event("z")
    assert kinds(list(read(path))) == ["opened", "x", "opened", "y", "z"]
    assert verify(path).is_intact


def test_each_anchor_is_told_to_who_keeps_them_elsewhere(path: Path) -> None:
    kept: list[Anchor] = []

    def keep(anchor: Anchor) -> None:
        kept.append(anchor)
        raise RuntimeError("their trouble is not ours")

    now = [1000.0]
    with Audit(
        path,
        limits=AuditLimits(anchor_every=8, anchor_s=60),
        on_anchor=keep,
        clock=lambda: now[0],
        sync="disk",
    ) as audit:
        for _ in range(20):
            audit.event("x")
        now[0] += 61
        audit.event("x")
        audit.event("x")
        head = audit.head
    assert [anchor.seq for anchor in kept] == [1, 8, 16, 22, 23]
    assert (kept[-1].seq, kept[-1].hash) == head
    assert verify(path).anchored_seq == 23


FULL_PART = """
import resource, signal, sys
from dragoman.host.audit import Audit, AuditFailed, AuditLimits
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
audit = Audit(sys.argv[1], limits=AuditLimits(max_bytes=3_000))
audit.event("x", text="x" * 1_500)
# Whatever is begun now may not even have a first line.
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for _ in range(3):
    try:
        audit.event("y", text="y" * 1_500)
        print("written")
    except AuditFailed:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
audit.event("z")
Audit(sys.argv[1]).close()
audit.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_part_that_could_not_be_begun_is_begun_by_the_next_record(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_PART, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert kinds(list(read(path))) == ["opened", "x", "opened", "z"]
    assert verify(path).is_intact, str(verify(path))


def test_without_a_key_no_digest_is_written_that_could_be_guessed(path: Path) -> None:
    Audit(path).close()
    key = path.with_suffix(".key")
    hidden = key.rename(path.with_name("hidden"))
    with Audit(path, AuditRules(on_write_failure="warn")) as audit:
        first = audit.decision(INTENT, YES, payload=PAYLOAD)
        hidden.rename(key)
        second = audit.decision(INTENT, YES, payload=PAYLOAD, view_digest="sha256:v")
        assert (first.seq, last(path)["seq"]) == (0, second.seq)
    record = last(path)
    assert record["args"]["digest"] == record["view_digest"] == "unknown"
    assert verify(path).is_intact
