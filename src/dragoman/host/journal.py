"""Appending to a chain of records: numbers, hashes, the lock, anchors, new parts.

Several processes may append to one log. Each record is one write to the end of the file, made while
holding the lock, after what the others wrote was read.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dragoman.errors import DragomanError, Misconfigured
from dragoman.host.chain import (
    GENESIS,
    MAX_LINE_BYTES,
    Anchor,
    Break,
    Follower,
    LogPaths,
    as_record,
    digest_of,
    last_anchors,
    seal,
    seal_anchor,
)
from dragoman.host.locks import LOCK_WAIT_S, FileLock, LockTimeout
from dragoman.host.redaction import encoded
from dragoman.host.state import open_private, private_folder

__all__ = ["AuditFailed", "AuditHeld", "AuditLimits", "Journal", "set_aside"]

log = logging.getLogger("dragoman.host")

FORMAT = "dragoman.audit/1"

# 512 KiB: at least two records, whatever their size, and some 700 ordinary ones; what is checked
# of a log when it is opened.
TAIL_BYTES = 2 * MAX_LINE_BYTES

# 400 bytes: what a line has besides its fields; numbers, hashes, the time.
OVERHEAD_BYTES = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditLimits:
    """The bounds of a log."""

    # 64 MiB: some 100,000 records; a part that still opens in an editor.
    max_bytes: int = 64 * 1024 * 1024
    # Every 64 records or 10 s, whichever comes first: what a cut could take without showing.
    anchor_every: int = 64
    anchor_s: float = 10.0
    # 2 s for others to finish: what they do under the lock takes well under a millisecond.
    lock_wait_s: float = LOCK_WAIT_S


class AuditFailed(DragomanError):
    """A record could not be written, or the log is not as it was left. `.path` names it.

    What was to be recorded is not in the log, not even in part.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"the audit log {path} cannot be written: {reason}")


class AuditHeld(AuditFailed):
    """Another process is writing to the log just now."""


class Journal:
    """The files of one log, as one process appends to them; `seq` and `digest` are the last record's.

    Nothing is opened before `open` or `append`. What fails is AuditFailed, and leaves the log as it
    was.
    """

    def __init__(
        self,
        paths: LogPaths,
        *,
        is_synced: bool,
        limits: AuditLimits,
        on_anchor: Callable[[Anchor], None] | None,
        clock: Callable[[], float],
    ) -> None:
        self.paths = paths
        self.seq = 0
        self.digest = GENESIS
        self._is_synced = is_synced
        self._limits = limits
        self._on_anchor = on_anchor
        self._clock = clock
        self._key = b""
        # Nothing with the key, to be copied: it costs half of beginning with the key each time.
        self._mac: hmac.HMAC | None = None
        self._chain = ""
        self._fd = -1
        self._file = (0, 0)
        self._size = 0
        self._current = os.fspath(paths.current)
        # The highest number this process has known: a log that has fewer is not ours any more.
        self._seen = 0
        self._anchored = 0
        self._anchored_at = 0.0
        self._is_closed = False
        # The second that was written last, as a number and as a text.
        self._second = (-1, "")
        # A part that could not be put aside is written to further; said once.
        self._may_rotate = True
        self._lock: FileLock | None = None

    # --- for the audit ----------------------------------------------------------------------------

    def open(self) -> None:
        """Find the end of the log, or begin one."""
        with self._turn():
            pass

    def append(
        self, fields: bytes, *, has_id: bool = False, at_once: bool = False
    ) -> tuple[int, str]:
        """Write one record of these fields (a JSON object); returns its number and its id.

        It is given an id, made of its number, unless it has one. With `at_once` it does not wait
        for whoever is writing, and raises AuditHeld.
        """
        # As `_turn` does, written out: this is on the way of every call.
        try:
            lock = self._lock or self._ready()
            if not lock.take():
                self._enter(lock, at_once)
            try:
                self._catch_up()
                if self._size + len(fields) + OVERHEAD_BYTES > self._limits.max_bytes:
                    self._begin_part()
                now = self._clock()
                ident = self._write(fields, now, has_id=has_id)
                if (
                    self.seq % self._limits.anchor_every == 0
                    or now - self._anchored_at >= self._limits.anchor_s
                ):
                    self._anchor()
                return self.seq, ident
            finally:
                lock.leave()
        except Misconfigured as error:
            # Somebody changed the files' modes meanwhile.
            raise self._failed(str(error)) from None
        except LockTimeout as error:
            raise self._failed(str(error)) from None
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from None

    def keyed(self, data: bytes) -> str:
        """HMAC-SHA256 with the key of the installation."""
        if self._mac is None:
            # The log could not be opened, and policy says to go on: without a key it could be
            # guessed what the digest is of.
            return "unknown"
        mac = self._mac.copy()
        mac.update(data)
        return f"hmac-sha256:{mac.hexdigest()}"

    def forget(self) -> None:
        """Begin again with the next record, as if just opened."""
        if self._fd >= 0:
            self._drop()

    def anchor_at_once(self) -> None:
        """Say how far the log has come, unless that is known. Raises AuditHeld rather than wait."""
        if self._is_closed or self._fd < 0 or self.seq == self._anchored:
            return
        with self._turn(at_once=True):
            self._anchor()

    def close(self, *, at_once: bool = False) -> None:
        """Write an anchor, and close the files; `at_once` without one rather than wait."""
        if self._is_closed:
            return
        with contextlib.suppress(AuditFailed, Misconfigured):
            if self._fd >= 0 and self.seq != self._anchored:
                with self._turn(at_once=at_once):
                    self._anchor()
        self._is_closed = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- its turn ---------------------------------------------------------------------------------

    @contextmanager
    def _turn(self, *, at_once: bool = False) -> Iterator[None]:
        """With the lock, and knowing the end of the log; trouble becomes AuditFailed."""
        try:
            lock = self._ready()
            self._enter(lock, at_once)
            try:
                self._catch_up()
                yield
            finally:
                lock.leave()
        except LockTimeout as error:
            raise self._failed(str(error)) from None
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from None

    def _enter(self, lock: FileLock, at_once: bool) -> None:
        if lock.take():
            return
        if at_once:
            # The text is for whoever has tried for as long as that.
            wait_s = self._limits.lock_wait_s
            text = f"another process has held {self.paths.lock} for {wait_s:g} s"
            raise AuditHeld(self.paths.current, text)
        lock.__enter__()

    def _ready(self) -> FileLock:
        """The lock, to be held while anything is read or written."""
        if self._is_closed:
            raise self._failed("it was closed")
        if self._lock is None:
            self._lock = FileLock(self.paths.lock, wait_s=self._limits.lock_wait_s)
        return self._lock

    def _failed(self, reason: str) -> AuditFailed:
        return AuditFailed(self.paths.current, reason)

    def _broken(self, reason: str) -> AuditFailed:
        return self._failed(
            f"{reason}. See what is wrong with 'dragoman host audit verify'; to begin a new log,"
            " put this one aside with 'dragoman host audit set-aside'"
        )

    def _catch_up(self) -> None:
        """Read what others have appended since, or everything that matters at first."""
        if self._fd < 0:
            self._open()
            return
        try:
            status = os.stat(self._current)
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
            self._mac = hmac.new(self._key, digestmod="sha256")
        if self.paths.anchors.exists():
            os.close(open_private(self.paths.anchors, os.O_RDONLY))
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
        try:
            fields = encoded({"kind": "event", "event": "opened", "details": details})
            self._write(fields, self._clock())
        except BaseException:
            # Without its first line the file is not begun: the next record tries again.
            self._drop()
            raise
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
        if digest_of(torn) is not None and as_record(torn) is not None:
            if isinstance(taken := follower.take(torn), Break):
                raise self._broken(f"at its end, {taken.text}")
            # All of a record but its end.
            self._put(b"\n")
            self._advance(follower.seq, follower.digest)
        else:
            details = {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
            fields = {"kind": "event", "event": "torn", "details": details}
            self._write(encoded(fields), self._clock(), before=b"\n")
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

    def _write(
        self, fields: bytes, now: float, *, before: bytes = b"", has_id: bool = False
    ) -> str:
        """Append one record; returns the id made of its number. The lock is held."""
        seq = self.seq + 1
        ident = f"{self._chain}-{seq}"
        # UTC with microseconds; a second is written out once.
        second, micros = divmod(round(now * 1e6), 1_000_000)
        if second != self._second[0]:
            moment = datetime.fromtimestamp(second, UTC)
            self._second = second, moment.strftime("%Y-%m-%dT%H:%M:%S")
        ts = f"{self._second[1]}.{micros:06d}Z"
        head = f'{{"seq":{seq},"prev_hash":"{self.digest}","ts":"{ts}",'
        if not has_id:
            head += f'"id":"{ident}",'
        line, digest = seal(head.encode() + fields[1:])
        self._put(before + line)
        self.seq, self.digest = seq, digest
        if seq > self._seen:
            self._seen = seq
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
        except (OSError, Misconfigured) as error:
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
