"""Events and sessions kept in a file, so that they outlive the process: SQLite.

One thread does all the work, in the order it was asked for; writes that wait together become one
transaction. Nothing here blocks the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from dragoman.errors import Misconfigured, WrongState
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.replay import Kept
from dragoman.transport.streamable.sessions import Saved, SessionRecord

__all__ = ["SqliteStore"]

log = logging.getLogger("dragoman.server")

T = TypeVar("T")

# "drag" in ASCII: says whose file it is.
APPLICATION_ID = 0x64726167
# Raised with every change of the tables: a file of another one is refused, not guessed at.
SCHEMA = 2

# 5 s for another process to finish its transaction; ours take milliseconds.
BUSY_S = 5.0

# 1,000 writes make one transaction: what they cost together is then mostly their own bytes.
MAX_BATCH = 1_000

# 64 MiB may wait to be written: some seconds of a slow disk. What comes on top is not kept.
MAX_PENDING_BYTES = 64 * 1024 * 1024
# What an operation costs besides its frame.
OVERHEAD_BYTES = 160

# 10,000 sessions whose events could not all be written are remembered one by one.
MAX_BROKEN = 10_000

# 100,000 sessions that are over are remembered, so that no process brings one back: 4 MB, and ten times
# as many as are open at once.
MAX_ENDED = 100_000

# Once a minute what is too old is deleted.
PURGE_S = 60.0

# What a column holds; no stream gets that long.
MAX_NUMBER = 2**63 - 1

# 16 bytes of a hash stand for a session's id: whoever reads the file cannot use the session.
KEY_BYTES = 16

_TABLES = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    session BLOB NOT NULL,
    stream TEXT NOT NULL,
    number INTEGER NOT NULL,
    -- the number before it in its stream: a gap shows
    before INTEGER NOT NULL,
    frame BLOB NOT NULL
);
CREATE INDEX events_by_stream ON events (session, stream, number);
CREATE TABLE kept (
    session BLOB PRIMARY KEY,
    bytes INTEGER NOT NULL,
    events INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    written_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX kept_by_age ON kept (last_seq);
CREATE TABLE total (bytes INTEGER NOT NULL);
INSERT INTO total VALUES (0);
CREATE TABLE sessions (
    session BLOB PRIMARY KEY,
    used_at REAL NOT NULL,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_age ON sessions (used_at);
CREATE TABLE ended (
    session BLOB PRIMARY KEY,
    ended_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX ended_by_age ON ended (ended_at);
"""


class _Job(NamedTuple):
    """One thing to do: `session` is the key of the one whose events it writes or deletes."""

    work: Callable[..., Any]
    args: tuple[Any, ...]
    session: bytes | None
    is_write: bool
    size: int
    answer: Future[Any] | None


class SqliteStore:
    """An `EventLog` and a `SessionStore` in one file, which only its owner may read.

    Within the bounds of `limits`, as `MemoryEventLog`; sessions unused for `limits.idle_s` are
    forgotten. Several processes may use one file. What was written survives the process, however
    it ends; what still waited to be written when it was killed is not known afterwards. Trouble
    with the file is logged once: events that could not be written make their session's replay
    None, while sessions raise.

    Raises:
        Misconfigured: the file cannot be used, or is something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        limits: HttpLimits | None = None,
        *,
        busy_s: float = BUSY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._limits = limits or HttpLimits()
        self._clock = clock
        self._db = _open(self.path, busy_s)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Guards what several threads may change: the next five.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._pending_bytes = 0
        # Sessions of which an event was not taken; nothing more of them is, until the thread knows.
        self._overflowed: set[bytes] = set()
        self._ending: Future[None] | None = None
        # What follows belongs to the thread. Sessions of which an event could not be written.
        self._broken: set[bytes] = set()
        self._all_broken = False
        self._is_failing = False
        self._purge_at = 0.0

    # --- events -------------------------------------------------------------------------------------

    def append(self, session: str, stream: str, number: int, frame: bytes) -> None:
        """Keep one event; returns at once."""
        key = _key(session)
        size = len(frame) + OVERHEAD_BYTES
        with self._lock:
            if self._is_closed or key in self._overflowed:
                return
            if self._pending_bytes + size <= MAX_PENDING_BYTES:
                args = (key, stream, number, bytes(frame))
                self._put(_Job(self._append, args, key, True, size, None))
                return
            self._overflowed.add(key)
            self._put(_Job(self._catch_up, (key,), key, True, 0, None))
        log.warning("%s is too slow: events are not kept, clients may miss some", self.path)

    async def replay(self, session: str, stream: str, after: int) -> list[Kept] | None:
        """The events of a stream after a number; None when some are gone or nothing is known."""
        # A client may come back with any number.
        if self._is_closed or after >= MAX_NUMBER:
            return None
        key = _key(session)
        try:
            return await self._ask(self._replay, key, stream, after, session=key)
        except (sqlite3.Error, WrongState):
            return None

    def forget(self, session: str, stream: str | None = None) -> None:
        """A session or a stream is over: its events go."""
        key = _key(session)
        with self._lock:
            if not self._is_closed:
                if stream is None:
                    self._put(_Job(self._forget, (key,), key, True, 0, None))
                else:
                    self._put(_Job(self._forget_stream, (key, stream), key, True, 0, None))

    async def flush(self) -> None:
        """Wait until what was appended is written, or has failed to be."""
        if not self._is_closed:
            await self._ask(_nothing)

    # --- sessions -----------------------------------------------------------------------------------

    async def save(self, record: SessionRecord) -> Saved:
        """Keep a session, unless it was deleted or another holds it. Raises sqlite3.Error."""
        saved: Saved = await self._ask(self._save, _key(record.id), record, is_write=True)
        return saved

    async def load(self, ident: str) -> SessionRecord | None:
        """A session by its id; None when there is none, or it is too old. Raises sqlite3.Error."""
        encoded: bytes | None = await self._ask(self._load, _key(ident))
        if encoded is None:
            return None
        record = msgspec.json.decode(encoded, type=SessionRecord)
        return msgspec.structs.replace(record, id=ident)

    async def delete(self, ident: str, holder: str | None = None) -> bool:
        """A session is over, if no other than `holder` holds it. Raises sqlite3.Error."""
        is_over: bool = await self._ask(self._delete, _key(ident), holder, is_write=True)
        return is_over

    async def aclose(self) -> None:
        """Write what waits and close the file; what comes later is not kept."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._ending = Future()
                self._queue.put(None)
                self._run()
            ending = self._ending
        assert ending is not None
        # Not handed to whoever is cancelled: others may wait for the same end.
        await asyncio.shield(asyncio.wrap_future(ending))

    # --- handing over to the thread -----------------------------------------------------------------

    async def _ask(
        self,
        work: Callable[..., T],
        *args: Any,
        session: bytes | None = None,
        is_write: bool = False,
    ) -> T:
        answer: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise WrongState("closed", "a store is used before it is closed")
            self._put(_Job(work, args, session, is_write, 0, answer))
        return await asyncio.wrap_future(answer)

    def _put(self, job: _Job) -> None:
        self._pending_bytes += job.size
        self._queue.put(job)
        self._run()

    def _run(self) -> None:
        if self._thread is None:
            # A daemon: a process that forgot to close must end all the same.
            name = f"dragoman-{self.path.name}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    # --- on the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        writes: list[_Job] = []
        while True:
            job = self._next(is_waiting=not writes)
            if job is not None and job.is_write:
                writes.append(job)
                if len(writes) < MAX_BATCH:
                    continue
            if writes:
                self._write(writes)
                writes = []
            if job is _END:
                break
            if job is not None and not job.is_write:
                self._read(job)
        self._db.close()
        assert self._ending is not None
        self._ending.set_result(None)

    def _next(self, *, is_waiting: bool) -> _Job | None:
        """The next job; None when there is none and nobody wants to wait."""
        try:
            job = self._queue.get(block=is_waiting)
        except queue.Empty:
            return None
        return _END if job is None else job

    def _write(self, jobs: list[_Job]) -> None:
        """Do them all in one transaction, or none of them."""
        jobs = [
            job for job in jobs if job.answer is None or job.answer.set_running_or_notify_cancel()
        ]
        error: Exception | None = None
        results: list[Any] = []
        try:
            results = self._transact(jobs)
        except Exception as failure:  # noqa: BLE001 - the thread goes on, whatever happens
            error = failure
            self._has_failed(failure)
            for job in jobs:
                if job.session is not None:
                    self._break(job.session)
        else:
            self._has_worked()
        with self._lock:
            self._pending_bytes -= sum(job.size for job in jobs)
            if self._overflowed:
                done = {job.session for job in jobs if job.work == self._catch_up}
                self._overflowed -= done
        for n, job in enumerate(jobs):
            if job.answer is not None:
                if error is None:
                    job.answer.set_result(results[n])
                else:
                    job.answer.set_exception(error)

    def _transact(self, jobs: list[_Job]) -> list[Any]:
        db = self._db
        results: list[Any] = []
        db.execute("BEGIN IMMEDIATE")
        try:
            self._mend()
            touched: set[bytes] = set()
            for job in jobs:
                results.append(job.work(*job.args))
                if job.session is not None:
                    touched.add(job.session)
            self._bound(touched)
            self._purge()
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._broken.clear()
        self._all_broken = False
        return results

    def _read(self, job: _Job) -> None:
        answer = job.answer
        if answer is None or not answer.set_running_or_notify_cancel():
            return
        try:
            if self._all_broken or job.session in self._broken:
                self._transact([])
                self._has_worked()
            answer.set_result(job.work(*job.args))
        except Exception as error:  # noqa: BLE001 - the thread goes on, whatever happens
            self._has_failed(error)
            answer.set_exception(error)

    def _break(self, session: bytes) -> None:
        """What is kept of a session has a hole now: it goes, as soon as the file can be written."""
        self._broken.add(session)
        if len(self._broken) > MAX_BROKEN:
            self._broken.clear()
            self._all_broken = True

    def _mend(self) -> None:
        if self._all_broken:
            self._db.execute("DELETE FROM events")
            self._db.execute("DELETE FROM kept")
            self._db.execute("UPDATE total SET bytes = 0")
        for session in self._broken:
            self._forget(session)

    def _has_failed(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            log.error("%s cannot be used, so clients may miss events: %s", self.path, error)

    def _has_worked(self) -> None:
        if self._is_failing:
            self._is_failing = False
            log.warning("%s can be used again", self.path)

    # --- what is done there: events -----------------------------------------------------------------

    def _append(self, session: bytes, stream: str, number: int, frame: bytes) -> None:
        place = (session, stream)
        added = self._db.execute(
            "INSERT INTO events (session, stream, number, before, frame) VALUES (?, ?, ?, coalesce("
            "(SELECT max(number) FROM events WHERE session = ? AND stream = ?), ?), ?)",
            (*place, number, *place, number - 1, frame),
        )
        size = len(frame) + OVERHEAD_BYTES
        self._db.execute(
            "INSERT INTO kept VALUES (?, ?, 1, ?, ?) ON CONFLICT (session) DO UPDATE SET "
            "bytes = bytes + excluded.bytes, events = events + 1, last_seq = excluded.last_seq, "
            "written_at = excluded.written_at",
            (session, size, added.lastrowid, self._clock()),
        )
        self._db.execute("UPDATE total SET bytes = bytes + ?", (size,))

    def _forget(self, session: bytes) -> None:
        row = self._db.execute("SELECT bytes FROM kept WHERE session = ?", (session,)).fetchone()
        if row is not None:
            self._db.execute("DELETE FROM events WHERE session = ?", (session,))
            self._db.execute("DELETE FROM kept WHERE session = ?", (session,))
            self._db.execute("UPDATE total SET bytes = bytes - ?", row)

    def _forget_stream(self, session: bytes, stream: str) -> None:
        place = (session, stream)
        count, length = self._db.execute(
            "SELECT count(*), sum(length(frame)) FROM events WHERE session = ? AND stream = ?",
            place,
        ).fetchone()
        if count:
            self._db.execute("DELETE FROM events WHERE session = ? AND stream = ?", place)
            self._take_off(session, length + count * OVERHEAD_BYTES, count)
            self._db.execute("DELETE FROM kept WHERE session = ? AND events = 0", (session,))

    def _take_off(self, session: bytes, size: int, count: int) -> None:
        self._db.execute(
            "UPDATE kept SET bytes = bytes - ?, events = events - ? WHERE session = ?",
            (size, count, session),
        )
        self._db.execute("UPDATE total SET bytes = bytes - ?", (size,))

    def _catch_up(self, session: bytes) -> None:
        """Some events of a session were never taken: those before are no use any more."""
        self._forget(session)

    def _replay(self, session: bytes, stream: str, after: int) -> list[Kept] | None:
        rows = self._db.execute(
            "SELECT number, before, frame FROM events WHERE session = ? AND stream = ? "
            "AND number >= ? ORDER BY number",
            (session, stream, after),
        ).fetchall()
        if not rows:
            return None
        found = []
        reached = after
        for number, before, frame in rows:
            if number <= after:
                continue
            if before > reached:
                return None
            found.append(Kept(number, frame))
            reached = number
        return found

    def _bound(self, sessions: set[bytes]) -> None:
        """Delete the oldest events of these sessions, and the oldest sessions, as limits say."""
        limits = self._limits
        for session in sessions:
            row = self._db.execute(
                "SELECT bytes, events FROM kept WHERE session = ?", (session,)
            ).fetchone()
            if row is None:
                continue
            size, count = row
            if size > limits.max_kept_bytes or count > limits.max_kept_events:
                self._drop_oldest(session, size, count)
        (total,) = self._db.execute("SELECT bytes FROM total").fetchone()
        if total > limits.max_kept_total_bytes:
            self._drop_sessions(total - limits.max_kept_total_bytes)

    def _drop_sessions(self, excess: int) -> None:
        """Delete those written to longest ago, but not the last."""
        while excess > 0:
            row = self._db.execute(
                "SELECT session, bytes FROM kept WHERE last_seq < (SELECT max(last_seq) FROM kept) "
                "ORDER BY last_seq LIMIT 1"
            ).fetchone()
            if row is None:
                return
            self._forget(row[0])
            excess -= row[1]

    def _drop_oldest(self, session: bytes, size: int, count: int) -> None:
        limits = self._limits
        gone, freed, last = 0, 0, 0
        for seq, length in self._db.execute(
            "SELECT seq, length(frame) FROM events WHERE session = ? ORDER BY seq", (session,)
        ):
            # The newest stays, however large: it may be the one answer somebody comes back for.
            if count - gone <= 1 or (
                size - freed <= limits.max_kept_bytes and count - gone <= limits.max_kept_events
            ):
                break
            gone, freed, last = gone + 1, freed + length + OVERHEAD_BYTES, seq
        self._db.execute("DELETE FROM events WHERE session = ? AND seq <= ?", (session, last))
        self._take_off(session, freed, gone)

    # --- ... and sessions ---------------------------------------------------------------------------

    def _save(self, session: bytes, record: SessionRecord) -> Saved:
        key = (session,)
        if self._db.execute("SELECT 1 FROM ended WHERE session = ?", key).fetchone():
            return Saved.ENDED
        other = self._kept(session)
        if other is not None and other.holder != record.holder and other.held_at > record.held_at:
            return Saved.TAKEN
        # Its id is its secret: the file has only what proves it.
        encoded = msgspec.json.encode(msgspec.structs.replace(record, id=""))
        self._db.execute(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)", (session, record.used_at, encoded)
        )
        (count,) = self._db.execute("SELECT count(*) FROM sessions").fetchone()
        if count > self._limits.max_sessions:
            self._db.execute(
                "DELETE FROM sessions WHERE session IN "
                "(SELECT session FROM sessions ORDER BY used_at LIMIT ?)",
                (count - self._limits.max_sessions,),
            )
        return Saved.KEPT

    def _kept(self, session: bytes) -> SessionRecord | None:
        row = self._db.execute(
            "SELECT record FROM sessions WHERE session = ?", (session,)
        ).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=SessionRecord)

    def _load(self, session: bytes) -> bytes | None:
        row = self._db.execute(
            "SELECT record FROM sessions WHERE session = ? AND used_at >= ?",
            (session, self._clock() - self._limits.idle_s),
        ).fetchone()
        return None if row is None else row[0]

    def _delete(self, session: bytes, holder: str | None) -> bool:
        if holder is not None:
            other = self._kept(session)
            if other is not None and other.holder != holder:
                return False
        self._db.execute("DELETE FROM sessions WHERE session = ?", (session,))
        self._db.execute("INSERT OR REPLACE INTO ended VALUES (?, ?)", (session, self._clock()))
        return True

    def _purge(self) -> None:
        """Delete what is too old for anybody to come back for."""
        now = self._clock()
        if now < self._purge_at:
            return
        self._purge_at = now + PURGE_S
        before = (now - self._limits.idle_s,)
        self._db.execute("DELETE FROM sessions WHERE used_at < ?", before)
        self._db.execute("DELETE FROM ended WHERE ended_at < ?", before)
        (count,) = self._db.execute("SELECT count(*) FROM ended").fetchone()
        if count > MAX_ENDED:
            self._db.execute(
                "DELETE FROM ended WHERE session IN "
                "(SELECT session FROM ended ORDER BY ended_at LIMIT ?)",
                (count - MAX_ENDED,),
            )
        old = self._db.execute("SELECT session FROM kept WHERE written_at < ?", before).fetchall()
        for (session,) in old:
            self._forget(session)


def _key(ident: str) -> bytes:
    return hashlib.sha256(ident.encode()).digest()[:KEY_BYTES]


def _nothing() -> None:
    """What a flush waits for: its turn."""


_END = _Job(_nothing, (), None, False, 0, None)


def _open(path: Path, busy_s: float) -> sqlite3.Connection:
    """The file, made where there is none, ready for use on any one thread."""
    try:
        # Made here, so that nobody else can read it even for a moment; SQLite gives the two files
        # beside it the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            _check(db, path)
            path.chmod(0o600)
            _set_up(db, busy_s)
        except BaseException:
            db.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise Misconfigured(f"{path} cannot keep sessions: {error}") from None
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Raises Misconfigured when the file is something else."""
    # All at one moment: another process may be making the tables.
    db.execute("BEGIN")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    db.execute("COMMIT")
    if not tables:
        return
    if owner != APPLICATION_ID:
        raise Misconfigured(f"{path} is a database of something else")
    if schema != SCHEMA:
        raise Misconfigured(
            f"{path} was written by another version of dragoman; delete it or name another file"
        )


def _set_up(db: sqlite3.Connection, busy_s: float) -> None:
    give_up_at = time.monotonic() + busy_s
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            # SQLite does not wait here as it does elsewhere, when several begin at once.
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(0.01)
    # Written to the system's cache, not through it: safe from a process that dies, and fast.
    db.execute("PRAGMA synchronous = NORMAL")
    # 64 MiB: what the journal may keep of the disk once its content is in the file.
    db.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
    db.execute("BEGIN IMMEDIATE")
    # Another process may have been quicker.
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
        for statement in _TABLES.split(";\n"):
            if statement.strip():
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute("COMMIT")
