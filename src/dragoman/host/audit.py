"""The audit log: what was decided, written down before it is done, and how it ended.

One JSON object a line, each with the hash of the one before; `dragoman.host.chain` says what the
files look like, and checks and reads them. A record is in the file before the call that writes it
returns: whatever ends this process afterwards, it stays. Several processes may write to one log.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from dragoman.errors import DragomanError, Misconfigured
from dragoman.host.chain import (
    GENESIS,
    MAX_LINE_BYTES,
    Anchor,
    Break,
    Follower,
    LogPaths,
    VerifyReport,
    as_record,
    digest_of,
    last_anchors,
    read,
    seal,
    seal_anchor,
    verify,
)
from dragoman.host.kinds import Decision, Intent, Verdict
from dragoman.host.locks import FileLock, LockTimeout
from dragoman.host.redaction import REDACTED, Redactor, encoded, shape_of, sorted_json
from dragoman.host.state import open_private, private_folder

__all__ = [
    "REDACTED",
    "Audit",
    "AuditFailed",
    "AuditMark",
    "Redactor",
    "VerifyReport",
    "read",
    "set_aside",
    "verify",
]

log = logging.getLogger("dragoman.host")

FORMAT = "dragoman.audit/1"

# 64 MiB: some 100,000 records; a part that still opens in an editor.
MAX_BYTES = 64 * 1024 * 1024

# Every 64 records or 10 s, whichever comes first: what a cut could take without showing.
ANCHOR_EVERY = 64
ANCHOR_S = 10.0

# 512 KiB: at least two records, whatever their size, and some 700 ordinary ones; what is checked
# of a log when it is opened.
TAIL_BYTES = 2 * MAX_LINE_BYTES

# 400 bytes: what a line has besides its fields; numbers, hashes, the time.
OVERHEAD_BYTES = 400

# 4,096 characters: a long URI, a paragraph. What is longer is cut, and says so.
MAX_TEXT = 4_096
# 200 characters of a detail are a name or a sentence; a longer one is content.
MAX_PLAIN = 200
# 32 KiB of arguments in full.
MAX_VALUE_BYTES = 32 * 1024
# 1 MiB: describing what is longer would hold up the call for milliseconds.
MAX_LOOKED_AT_BYTES = 1024 * 1024
# 12 levels and 256 items: deeper and longer values are named, not written.
MAX_DEPTH = 12
MAX_ITEMS = 256

Args = Literal["shape", "digest", "full"]
OnWriteFailure = Literal["deny", "warn"]
Status = Literal["ok", "failed", "refused", "cancelled", "unknown"]

_UNSET: Any = object()

# Our own words: a secret that happens to be one of them does not make a record unreadable.
_OURS = {"kind", "id", "event", "action", "effect", "step", "status", "code", "scope"}


class AuditRules(Protocol):
    """What policy says of the log: how much of a payload is kept, and what a failure means."""

    @property
    def args(self) -> str:
        """ "shape", "digest" or "full"."""

    @property
    def on_write_failure(self) -> str:
        """ "deny" or "warn"."""


class AuditFailed(DragomanError):
    """A record could not be written, or the log is not as it was left. `.path` names it.

    What was to be recorded is not in the log, not even in part.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"the audit log {path} cannot be written: {reason}")


@dataclass(frozen=True, slots=True)
class AuditMark:
    """A record that was written: its number, and the id by which its outcome names it.

    `seq` is 0 where it could not be written and policy says to go on.
    """

    seq: int
    id: str
    at: float = 0.0
    trace: str = ""


class Audit:
    """Appends to a log, which is made where there is none.

    `rules` say what is kept of payloads ("shape" without them) and whether a failure to write
    raises ("deny") or is logged, counted and recorded later ("warn"). `session` is the host's.
    `redactor` knows the secrets. With `sync="disk"` each record is on the disk, and not only with
    the system, before the call returns: safe from a power cut, at the cost of the disk's own time.
    `on_anchor` is told every anchor, to be kept where this user cannot change it.

    Raises:
        AuditFailed: the log cannot be used, or was cut or changed since it was last written to.
        Misconfigured: its files or their folder are not this user's alone.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rules: AuditRules | None = None,
        *,
        session: str = "",
        redactor: Redactor | None = None,
        sync: Literal["process", "disk"] = "process",
        max_bytes: int = MAX_BYTES,
        anchor_every: int = ANCHOR_EVERY,
        anchor_s: float = ANCHOR_S,
        on_anchor: Callable[[Anchor], None] | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.path = Path(path)
        self.session = session
        self.redactor = redactor or Redactor()
        # How many records could not be written since the last one that was.
        self.lost = 0
        self._args = "shape" if rules is None else rules.args
        self._is_strict = rules is None or rules.on_write_failure != "warn"
        self._clock = clock
        self._timer = timer
        private_folder(self.path.parent)
        self._log = _Log(
            LogPaths(self.path),
            is_synced=sync == "disk",
            max_bytes=max_bytes,
            anchor_every=anchor_every,
            anchor_s=anchor_s,
            on_anchor=on_anchor,
            clock=clock,
        )
        try:
            self._log.open()
        except AuditFailed as error:
            if self._is_strict:
                self._log.close()
                raise
            self._log.forget()
            log.warning("%s", error)

    # --- what is recorded -------------------------------------------------------------------------

    def decision(
        self,
        intent: Intent,
        verdict: Verdict,
        *,
        payload: bytes | None = None,
        trace: str = "",
        session: str = "",
        view_digest: str = "",
        approval: str = "",
        decision: Decision | None = None,
        **details: Any,
    ) -> AuditMark:
        """Record what was decided, before it is done; `verdict` is the final one.

        `payload` is the exact JSON text concerned, else it is the intent's arguments. `approval` is
        the request that a person answered with `decision`. `details`: see `event`.

        Raises:
            AuditFailed: it is not recorded; so it must not be done.
        """
        fields: dict[str, Any] = {
            "kind": "decision",
            "trace": trace,
            "session": session or self.session,
            "principal": intent.principal,
            "server": intent.server,
            "identity": intent.identity,
            "action": str(intent.action),
            "object": intent.object,
            "effect": str(verdict.effect),
            "step": str(verdict.step),
            "rule": verdict.rule,
            "layer": verdict.layer,
            "source": verdict.source,
            "code": str(verdict.code or ""),
            "grant": verdict.grant,
            "approval": approval,
            "view_digest": self.keyed(view_digest) if view_digest else "",
            "fingerprint": intent.fingerprint,
            "taint": sorted(intent.taint),
        }
        if decision is not None:
            fields |= {
                "actor": decision.actor,
                "channel": decision.channel,
                "scope": str(decision.scope),
                "note": decision.note,
                "edited": decision.payload is not None,
            }
        if payload is not None:
            fields["args"] = self._content(payload)
        elif intent.arguments is not None:
            fields["args"] = self._content(dict(intent.arguments))
        if details:
            fields["details"] = self._details(details)
        return self._append(fields, trace)

    def outcome(
        self,
        mark: AuditMark,
        status: Status | str,
        *,
        duration_ms: float | None = None,
        result: Any = _UNSET,
        error: str = "",
        **details: Any,
    ) -> AuditMark:
        """Record how that ended. `result` is what came (any JSON), of which the shape is kept.

        `duration_ms` is counted from the decision where it is not given. `details`: see `event`.

        Raises:
            AuditFailed: it is not recorded.
        """
        took_ms = (self._timer() - mark.at) * 1000 if duration_ms is None else duration_ms
        fields: dict[str, Any] = {
            "kind": "outcome",
            "id": mark.id,
            "trace": mark.trace,
            "session": self.session,
            "status": str(status),
            "duration_ms": round(took_ms, 3),
            "error": str(error),
        }
        if result is not _UNSET:
            fields["result"] = shape_of(result)
        if details:
            fields["details"] = self._details(details)
        return self._append(fields, mark.trace)

    def event(
        self, name: str, *, server: str = "", text: str = "", trace: str = "", **details: Any
    ) -> AuditMark:
        """Record something else that happened, such as that a server was started.

        Of `details`, short texts, numbers and lists of them are written as they are; bytes, objects
        and longer texts are contents, kept as the rules say of arguments. None is left out.

        Raises:
            AuditFailed: it is not recorded.
        """
        fields: dict[str, Any] = {
            "kind": "event",
            "event": name,
            "trace": trace,
            "session": self.session,
            "server": server,
            "text": text,
        }
        if details:
            fields["details"] = self._details(details)
        return self._append(fields, trace)

    def keyed(self, text: str) -> str:
        """How a digest, or any text, stands in the log: only who has the key can compute it."""
        return self._log.keyed(text.encode("utf-8", "surrogatepass"))

    @property
    def head(self) -> tuple[int, str]:
        """The number and the hash of the last record this process knows of."""
        return self._log.seq, self._log.digest

    def close(self) -> None:
        """Write a last anchor and close the files. Nothing can be recorded afterwards."""
        self._log.close()

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- how --------------------------------------------------------------------------------------

    def _append(self, fields: dict[str, Any], trace: str) -> AuditMark:
        at = self._timer()
        body = self._encode(fields)
        own = fields.get("id", "")
        try:
            if self.lost:
                text = f"{self.lost} records before this one could not be written"
                self._log.append(encoded({"kind": "event", "event": "lost", "text": text}))
                self.lost = 0
            seq, ident = self._log.append(body, has_id=bool(own))
        except AuditFailed as error:
            if self._is_strict:
                raise
            if not self.lost:
                log.warning("%s; it goes on unrecorded, as policy says", error)
            self.lost += 1
            return AuditMark(0, own, at, trace)
        return AuditMark(seq, own or ident, at, trace)

    def _encode(self, fields: dict[str, Any]) -> bytes:
        """The fields that say something, as JSON without secrets and within the bounds."""
        kept: dict[str, Any] = {}
        for name, value in fields.items():
            if value is None or value == "" or value == []:
                continue
            if isinstance(value, str) and len(value) > MAX_TEXT:
                # Before it is cut: half a secret is still one.
                value = _cut(self.redactor.redact(value), MAX_TEXT)
            kept[name] = value
        body = encoded(kept)
        if self.redactor.finds(body):
            body = self._cleaned(kept)
        if len(body) > MAX_LINE_BYTES // 2:
            for name in ("args", "details", "result"):
                if name in kept:
                    kept[name] = {"bytes": len(encoded(kept[name])), "note": "too long to be kept"}
            body = self._cleaned(kept)
        return body

    def _cleaned(self, fields: Mapping[str, Any]) -> bytes:
        clean = self.redactor.clean
        return encoded({name: one if name in _OURS else clean(one) for name, one in fields.items()})

    def _content(self, value: Any) -> dict[str, Any]:
        """What is kept of a payload: exact bytes, or a JSON value."""
        raw = value if isinstance(value, bytes) else sorted_json(value)
        kept: dict[str, Any] = {"bytes": len(raw), "digest": self._log.keyed(raw)}
        if self._args == "digest":
            return kept
        if len(raw) > MAX_LOOKED_AT_BYTES:
            return kept | {"note": "too long to be described"}
        if isinstance(value, bytes):
            try:
                value = msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                return kept | {"note": "no JSON"}
        if self._args == "full":
            if len(raw) <= MAX_VALUE_BYTES:
                return kept | {"value": self._bounded(value, MAX_DEPTH)}
            kept["note"] = "too long to be kept"
        return kept | {"shape": shape_of(value)}

    def _details(self, details: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: value if _is_plain(value) else self._content(value)
            for name, value in details.items()
            if value is not None
        }

    def _bounded(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return _cut(self.redactor.redact(value), MAX_TEXT) if len(value) > MAX_TEXT else value
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if not isinstance(value, dict | list | tuple):
            is_json = value is None or isinstance(value, str | int | float)
            return value if is_json else type(value).__name__
        if not depth:
            return f"({len(value)} items)"
        if isinstance(value, dict):
            pairs = list(value.items())[:MAX_ITEMS]
            kept = {
                self._bounded(str(name), 0): self._bounded(one, depth - 1) for name, one in pairs
            }
            return kept | {"...": f"{len(value)} members"} if len(value) > MAX_ITEMS else kept
        items = [self._bounded(one, depth - 1) for one in value[:MAX_ITEMS]]
        return [*items, f"... {len(value)} items"] if len(value) > MAX_ITEMS else items


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= MAX_ITEMS // 8 and all(_is_plain(one) for one in value)
    if isinstance(value, str):
        return len(value) <= MAX_PLAIN
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


class _Log:
    """The files: numbers, hashes, locks, anchors and parts."""

    def __init__(
        self,
        paths: LogPaths,
        *,
        is_synced: bool,
        max_bytes: int,
        anchor_every: int,
        anchor_s: float,
        on_anchor: Callable[[Anchor], None] | None,
        clock: Callable[[], float],
    ) -> None:
        self.paths = paths
        self.seq = 0
        self.digest = GENESIS
        self._is_synced = is_synced
        self._max_bytes = max_bytes
        self._anchor_every = anchor_every
        self._anchor_s = anchor_s
        self._on_anchor = on_anchor
        self._clock = clock
        self._key = b""
        self._chain = ""
        self._fd = -1
        self._file = (0, 0)
        self._size = 0
        # The highest number this process has known: a log that has fewer is not ours any more.
        self._seen = 0
        self._anchored = 0
        self._anchored_at = 0.0
        self._is_closed = False
        # A part that could not be put aside is written to further; said once.
        self._may_rotate = True
        self._lock: FileLock | None = None

    # --- for the audit ----------------------------------------------------------------------------

    def open(self) -> None:
        """Find the end of the log, or begin one."""
        with self._turn():
            pass

    def append(self, fields: bytes, *, has_id: bool = False) -> tuple[int, str]:
        """Write one record of these fields (a JSON object); returns its number and its id.

        It is given an id, made of its number, unless it has one.
        """
        try:
            with self._turn():
                if self._size + len(fields) + OVERHEAD_BYTES > self._max_bytes:
                    self._begin_part()
                ident = self._write(fields, has_id=has_id)
                self._anchor_when_due()
                return self.seq, ident
        except Misconfigured as error:
            # Somebody changed the files' modes meanwhile.
            raise self._failed(str(error)) from None

    def keyed(self, data: bytes) -> str:
        """HMAC-SHA256 with the key of the installation."""
        return f"hmac-sha256:{hmac.digest(self._key, data, 'sha256').hex()}"

    def forget(self) -> None:
        """Begin again with the next record, as if just opened."""
        if self._fd >= 0:
            self._drop()

    def close(self) -> None:
        """Write an anchor, and close the files."""
        if self._is_closed:
            return
        with contextlib.suppress(AuditFailed):
            if self._fd >= 0:
                with self._turn():
                    self._anchor()
        self._is_closed = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._lock is not None:
            self._lock.close()

    # --- its turn ---------------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """With the lock, and knowing the end of the log; trouble becomes AuditFailed."""
        if self._is_closed:
            raise self._failed("it was closed")
        try:
            if self._lock is None:
                self._lock = FileLock(self.paths.lock)
            with self._lock:
                self._catch_up()
                yield
        except LockTimeout as error:
            raise self._failed(str(error)) from None
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from None

    def _failed(self, reason: str) -> AuditFailed:
        return AuditFailed(self.paths.current, reason)

    def _broken(self, reason: str) -> AuditFailed:
        return self._failed(
            f"{reason}. See what is wrong with 'dragoman host audit verify'; to begin a new log,"
            " put this one aside with dragoman.host.audit.set_aside"
        )

    def _catch_up(self) -> None:
        """Read what others have appended since, or everything that matters at first."""
        if self._fd < 0:
            self._open()
            return
        try:
            status = os.stat(self.paths.current)
        except FileNotFoundError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != self._file:
            # Another process has begun a new part; or somebody took the file away.
            self._drop()
            self._open()
        elif status.st_size < self._size:
            raise self._broken("its end was cut off while it was in use")
        elif status.st_size > self._size:
            self._follow(self._size, status.st_size)

    def _open(self) -> None:
        if not self._key:
            self._key = self._read_key()
        anchors = last_anchors(self.paths.anchors, self._key)
        try:
            fd = open_private(self.paths.current, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:
            self._begin(anchors)
            return
        if os.fstat(fd).st_size:
            self._use(fd, anchors)
        else:
            # Whoever made it was stopped before it wrote a line.
            os.close(fd)
            self._begin(anchors)

    def _use(self, fd: int, anchors: list[Anchor]) -> None:
        """Take this file as the one whose last record is the last of all."""
        self._take(fd)
        try:
            chain = self._read_chain()
            if self._chain and chain != self._chain:
                raise self._broken("it was replaced by another one while it was in use")
            self._chain = chain
            known = self._follow(max(0, self._size - TAIL_BYTES), self._size, is_first=True)
            self._compare(anchors, known)
            if self.seq < self._seen:
                raise self._broken(f"it had {self._seen} records, and has {self.seq}")
        except BaseException:
            self._drop()
            raise

    def _take(self, fd: int) -> None:
        status = os.fstat(fd)
        self._fd, self._size = fd, status.st_size
        self._file = (status.st_dev, status.st_ino)

    def _drop(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self.seq, self.digest = 0, GENESIS

    def _read_key(self) -> bytes:
        if (key := self.paths.read_key()) is not None:
            os.close(open_private(self.paths.key, os.O_RDONLY))
            return key
        if self.paths.key.exists() or self.paths.anchors.exists():
            raise self._broken(f"its key {self.paths.key} is gone or cannot be read")
        key = secrets.token_bytes(32)
        # Under another name first: a key that is there is whole.
        beside = self.paths.key.with_suffix(".new-key")
        beside.unlink(missing_ok=True)
        fd = open_private(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.write(fd, key.hex().encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(beside, self.paths.key)
        return key

    def _read_chain(self) -> str:
        """The id of the chain, which the first record of each part names."""
        first = _read_range(self._fd, 0, MAX_LINE_BYTES).partition(b"\n")[0]
        record = as_record(first)
        details = None if record is None else record.get("details")
        if not isinstance(details, dict) or not isinstance(details.get("chain"), str):
            raise self._broken("its first line is not how a log begins")
        return str(details["chain"])

    def _begin(self, anchors: list[Anchor]) -> None:
        """The first record of all, or of a part whose predecessor was put aside just before."""
        older = self.paths.older()
        if older:
            self._use(open_private(older[-1], os.O_RDWR | os.O_APPEND), anchors)
            os.close(self._fd)
            self._fd = -1
        elif anchors or self._seen:
            raise self._broken(
                f"it had {max([self._seen, *(anchor.seq for anchor in anchors)])} records, and is gone"
            )
        else:
            self.seq, self.digest = 0, GENESIS
            self._chain = secrets.token_hex(8)
        self._take(open_private(self.paths.current, os.O_RDWR | os.O_APPEND | os.O_CREAT))
        self._write_opening(older[-1].name if older else "")

    def _write_opening(self, previous: str) -> None:
        details = {"format": FORMAT, "chain": self._chain}
        if previous:
            details["previous"] = previous
        self._write(encoded({"kind": "event", "event": "opened", "details": details}))
        self._anchor()

    def _begin_part(self) -> None:
        """Put the file aside under the number of its last record, and begin the next."""
        if not self._may_rotate:
            return
        self._anchor()
        part = self.paths.part(self.seq)
        try:
            os.rename(self.paths.current, part)
        except OSError as error:
            self._may_rotate = False
            log.warning("%s grows on; it cannot be put aside: %s", self.paths.current, error)
            return
        os.close(self._fd)
        self._fd = -1
        self._take(
            open_private(self.paths.current, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        )
        self._write_opening(part.name)

    # --- reading the end --------------------------------------------------------------------------

    def _follow(self, start: int, end: int, *, is_first: bool = False) -> dict[int, str]:
        """Follow the chain from one byte to another; returns the hash of each record there."""
        data = _read_range(self._fd, start, end)
        if is_first and start:
            # Begun in the middle of a line, most likely.
            data = data.partition(b"\n")[2]
        if is_first:
            follower = Follower(self.paths.current.name, 0, None)
        else:
            follower = Follower(self.paths.current.name, self.seq, self.digest)
        whole, _, rest = data.rpartition(b"\n")
        known: dict[int, str] = {}
        for line in whole.split(b"\n") if whole or data[:1] == b"\n" else ():
            taken = follower.take(line)
            if isinstance(taken, Break):
                raise self._broken(f"near its end, {taken.text}")
            if taken is not None:
                known[follower.seq] = follower.digest or ""
        if rest:
            self._mend(follower, rest, known)
        elif (broken := follower.end()) is not None:
            raise self._broken(f"near its end, {broken.text}")
        if not follower.seq or follower.digest is None:
            raise self._broken("no record can be read at its end")
        if not rest:
            self._size = end
            self._advance(follower.seq, follower.digest)
        return known

    def _advance(self, seq: int, digest: str) -> None:
        self.seq, self.digest = seq, digest
        self._seen = max(self._seen, seq)

    def _mend(self, follower: Follower, torn: bytes, known: dict[int, str]) -> None:
        """A write broke off: what it left stays, and a record says so."""
        if follower.digest is None:
            raise self._broken("no record can be read at its end")
        self.seq, self.digest = follower.seq, follower.digest
        self._size = os.fstat(self._fd).st_size
        if digest_of(torn) is not None and isinstance(follower.take(torn), dict):
            # All of a record but its end.
            self._put(b"\n")
            self._advance(follower.seq, follower.digest)
        else:
            details = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
            fields = {"kind": "event", "event": "torn", "details": details}
            self._write(encoded(fields), before=b"\n")
        known[self.seq] = self.digest

    def _compare(self, anchors: list[Anchor], known: dict[int, str]) -> None:
        for anchor in anchors:
            if anchor.chain != self._chain:
                continue
            if anchor.seq > self.seq:
                raise self._broken(f"it had {anchor.seq} records, and has {self.seq}")
            if known.get(anchor.seq, anchor.hash) != anchor.hash:
                raise self._broken(f"record {anchor.seq} is not the one it was")
            self._anchored = anchor.seq

    # --- writing ----------------------------------------------------------------------------------

    def _write(self, fields: bytes, *, before: bytes = b"", has_id: bool = False) -> str:
        """Append one record; returns the id made of its number. The lock is held."""
        seq = self.seq + 1
        ident = f"{self._chain}-{seq}"
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="microseconds")
        head = f'{{"seq":{seq},"prev_hash":"{self.digest}","ts":"{moment[:-6]}Z",'
        if not has_id:
            head += f'"id":"{ident}",'
        line, digest = seal(head.encode() + fields[1:])
        self._put(before + line)
        self._advance(seq, digest)
        return ident

    def _put(self, data: bytes) -> None:
        """Append these bytes, or none of them."""
        try:
            written = os.write(self._fd, data)
            if written == len(data) and self._is_synced:
                _to_disk(self._fd)
        except OSError:
            self._undo()
            raise
        if written != len(data):
            self._undo()
            raise self._failed("the disk is full, or the file may not become larger")
        self._size += len(data)

    def _undo(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            # The next record finds half a line, and mends it.
            log.warning("%s ends in half a record: %s", self.paths.current, error)

    def _anchor_when_due(self) -> None:
        if (
            self.seq % self._anchor_every == 0
            or self._clock() - self._anchored_at >= self._anchor_s
        ):
            self._anchor()

    def _anchor(self) -> None:
        """Say how far the log has come. Failing costs no record: the next one tries again."""
        if self.seq == self._anchored:
            return
        now = self._clock()
        ts = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        anchor = Anchor(chain=self._chain, seq=self.seq, hash=self.digest, ts=ts).signed(self._key)
        try:
            fd = open_private(self.paths.anchors, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                size = os.fstat(fd).st_size
                # After a line that broke off, on one of its own.
                is_torn = size and _read_range(fd, size - 1, size) != b"\n"
                line = (b"\n" if is_torn else b"") + seal_anchor(anchor)
                if os.write(fd, line) != len(line):
                    os.ftruncate(fd, size)
                    raise OSError("it is full")
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("no anchor for %s: %s", self.paths.current, error)
            return
        self._anchored, self._anchored_at = self.seq, now
        if self._on_anchor is not None:
            try:
                self._on_anchor(anchor)
            except Exception:
                log.exception("on_anchor failed")


def set_aside(path: str | os.PathLike[str]) -> Path:
    """Put a log that is broken, with all its parts, into a new folder beside it; returns that.

    Nothing is lost, and `verify` works there as before. The next `Audit` begins a new log, with the
    same key. No host may be using the log.

    Raises:
        AuditFailed: a file cannot be moved, or a host holds the log.
    """
    paths = LogPaths(Path(path))
    try:
        lock = FileLock(paths.lock)
        with contextlib.closing(lock), lock:
            folder = _new_folder(paths.current)
            for part in [*paths.parts(), paths.anchors]:
                if part.exists():
                    part.rename(folder / part.name)
            if (key := paths.read_key()) is not None:
                fd = open_private(folder / paths.key.name, os.O_WRONLY | os.O_CREAT)
                try:
                    os.write(fd, key.hex().encode() + b"\n")
                finally:
                    os.close(fd)
            else:
                paths.key.unlink(missing_ok=True)
            return folder
    except LockTimeout as error:
        raise AuditFailed(paths.current, str(error)) from None
    except OSError as error:
        raise AuditFailed(paths.current, error.strerror or str(error)) from None


def _new_folder(path: Path) -> Path:
    for number in range(1, 10_000):
        folder = path.with_name(f"{path.stem}-aside-{number}")
        if not folder.exists():
            return private_folder(folder)
    raise OSError("there are 10,000 logs put aside already")


def _read_range(fd: int, start: int, end: int) -> bytes:
    # Not `pread`, which Windows lacks; appending does not care where the file stands.
    os.lseek(fd, start, os.SEEK_SET)
    parts = []
    while start < end and (part := os.read(fd, end - start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


# macOS has no fdatasync.
_to_disk = getattr(os, "fdatasync", os.fsync)
