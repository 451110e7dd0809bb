"""What was answered before: grants, trust, identities, projects and pins, in one file.

SQLite, readable by its owner alone, safe under several processes. Reads are served from memory and
look whether another process has changed something; a write is on the disk when it returns. Where
the file cannot be read or written, nothing is guessed: StoreFailed, and the file stays as it is.
On an event loop, `look` and `in_turn` wait for other processes without holding it up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dragoman.errors import DragomanError, Misconfigured
from dragoman.host.kinds import Action, Effect, Grant, Intent, Limits, Scope, Trust
from dragoman.host.locks import InTurn, pauses
from dragoman.host.state import open_private, private_folder

__all__ = ["GrantStore", "StoreFailed", "StoreHeld"]

log = logging.getLogger("dragoman.host")

T = TypeVar("T")

Lines = tuple[tuple[str, str], ...]

# "drgh" in ASCII: says whose file it is.
APPLICATION_ID = 0x64726768
# Raised with every change of the tables: a file of a newer one is refused, not guessed at.
SCHEMA = 1

# 2 s for another process to finish its transaction; ours take milliseconds. The caller waits.
BUSY_S = 2.0

# 10,000 grants that hold: all of them are in memory, and nobody has answered that many questions.
MAX_GRANTS = 10_000

# 1,000 answers of `find` are remembered: several for each server of a large host.
MAX_FOUND = 1_000

# 90 days: what was revoked or has expired is shown that long; the audit log knows it for ever.
KEPT_S = 90 * 24 * 3600.0

# Uses of a grant without a number of calls are counted for people only: written every so often.
COUNT_EVERY = 256

_TABLES = """
CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    effect TEXT NOT NULL CHECK (effect IN ('allow', 'deny')),
    principal TEXT NOT NULL,
    server TEXT NOT NULL,
    identity TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    limits TEXT NOT NULL,
    max_calls INTEGER,
    expires_at REAL,
    approval TEXT NOT NULL,
    created_at REAL NOT NULL,
    calls INTEGER NOT NULL DEFAULT 0,
    revoked_at REAL,
    note TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE trust (
    identity TEXT PRIMARY KEY,
    alias TEXT NOT NULL,
    trust TEXT NOT NULL,
    lines TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE identities (
    alias TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    lines TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE projects (
    folder TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE pins (
    identity TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (identity, key)
) WITHOUT ROWID;
"""

_COLUMNS = (
    "id, effect, principal, server, identity, action, object, fingerprint, limits, max_calls,"
    " expires_at, approval, created_at, calls, revoked_at, note"
)


class StoreFailed(DragomanError):
    """The store could not be read or written, and nothing was changed. `.path`, `.reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"the store of grants {path} cannot be used: {reason}")


class StoreHeld(StoreFailed):
    """Another process, or another thread, is using it just now."""


@dataclass(slots=True)
class _Content:
    """What the file holds."""

    grants: dict[str, Grant] = field(default_factory=dict)
    trust: dict[str, Trust] = field(default_factory=dict)
    identities: dict[str, tuple[str, Lines]] = field(default_factory=dict)
    projects: dict[str, str] = field(default_factory=dict)
    pins: dict[str, dict[str, str]] = field(default_factory=dict)


class _Found:
    """What was found for one server: all of it, and by action and object."""

    __slots__ = ("about", "every")

    def __init__(self, every: tuple[Grant, ...]) -> None:
        self.every = every
        self.about: dict[tuple[Action, str], tuple[Grant, ...]] = {}
        for grant in every:
            key = (grant.action, grant.object)
            self.about[key] = (*self.about.get(key, ()), grant)


class GrantStore:
    """The store in this file, which is made where there is none.

    Grants of the scope SESSION (and ONCE, which is one call) are kept in memory only. Every method
    raises StoreFailed when the file cannot be read or written within `busy_s`.

    Raises:
        StoreFailed: the file is damaged, or cannot be opened.
        Misconfigured: it is not this user's alone, is something else, or is of a newer version.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_s: float = BUSY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._name = os.fspath(self.path)
        self._clock = clock
        # SQLite calls may come from several threads, one at a time.
        self._lock = threading.RLock()
        self._content = _Content()
        self._session: dict[str, Grant] = {}
        # Uses that are not in the file yet.
        self._uses: dict[str, int] = {}
        self._found: dict[tuple[str, str, str], _Found] = {}
        self._version = -1
        self._is_closed = False
        self._busy_s = busy_s
        # Whether what is tried just now shall fail rather than wait.
        self._at_once = False
        # Apart: who only reads need not wait for who wants to write.
        self._readers = InTurn(StoreHeld, wait_s=busy_s)
        self._writers = InTurn(StoreHeld, wait_s=busy_s)
        private_folder(self.path.parent)
        self._db, self._file = self._open(busy_s)
        try:
            self._refresh()
        except BaseException:
            self._db.close()
            raise

    # --- on an event loop -------------------------------------------------------------------------

    async def look(self) -> None:
        """See whether another process has changed something.

        Until the loop goes on, reading with `looked` is as good as looking each time.
        """
        # As `_try` does, written out: this is on the way of every call.
        if not self._readers.is_busy and self._lock.acquire(blocking=False):
            self._at_once = True
            try:
                self._refresh()
                return
            except StoreHeld:
                pass
            finally:
                self._at_once = False
                self._lock.release()
        await self._readers.do(lambda: self._try(self._refresh))

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Do something that writes, such as `lambda: store.add(grant)`.

        It is tried again as long as another process holds the file, so it must end with its only
        write.
        """
        return await self._writers.do(lambda: self._try(work))

    def _try(self, work: Callable[[], T]) -> T:
        """Do it now, or not at all: StoreHeld."""
        if not self._lock.acquire(blocking=False):
            raise StoreHeld(self.path, "another thread is using it")
        self._at_once = True
        try:
            return work()
        finally:
            self._at_once = False
            self._lock.release()

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do it; where another process holds the file, wait, or say so at once as `_try` wants it."""
        try:
            return work()
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            held = error
        if not self._at_once:
            for pause_s in pauses(time.monotonic() + self._busy_s):
                time.sleep(pause_s)
                try:
                    return work()
                except sqlite3.OperationalError as error:
                    if not _is_busy(error):
                        raise
                    held = error
        raise StoreHeld(self.path, _reason(held)) from held

    # --- grants -----------------------------------------------------------------------------------

    def find(
        self, principal: str, identity: str, server: str = "", *, looked: bool = False
    ) -> Sequence[Grant]:
        """The grants, and the stored refusals, of this principal for this server, oldest first.

        With `server`, its alias, also the refusals given to that alias under another identity: a no
        outlives a change of the command line.

        Without those that were revoked or are used up; whether one has expired or belongs to
        another session is for policy to see. `looked`: see `look`.
        """
        with self._lock:
            if not looked or self._version < 0:
                self._refresh()
            return self._find(principal, identity, server).every

    def find_about(self, intent: Intent, *, looked: bool = False) -> Sequence[Grant]:
        """Those of `find` that may speak of this: of the same action and object."""
        # Not `_reading`: this and `trust_of` are on the way of every call.
        with self._lock:
            if not looked or self._version < 0:
                self._refresh()
            key = (intent.principal, intent.identity, intent.server)
            found = self._found.get(key) or self._find(*key)
            return found.about.get((intent.action, intent.object), ())

    def _find(self, principal: str, identity: str, server: str) -> _Found:
        found = self._found.get((principal, identity, server))
        if found is None:
            found = _Found(
                tuple(
                    grant
                    for grant in (*self._content.grants.values(), *self._session.values())
                    if grant.principal == principal
                    and (
                        grant.identity == identity
                        or (grant.effect is Effect.DENY and grant.server == server)
                    )
                    and _is_left(grant)
                )
            )
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[principal, identity, server] = found
        return found

    def get(self, grant_id: str) -> Grant | None:
        """The grant of this id, revoked or not, or None."""
        with self._reading() as content:
            grant = self._session.get(grant_id) or content.grants.get(grant_id)
            return None if grant is None else self._counted(grant)

    def list(
        self,
        *,
        principal: str | None = None,
        server: str | None = None,
        identity: str | None = None,
        with_revoked: bool = False,
    ) -> Sequence[Grant]:
        """The grants that fit, oldest first; `server` is the alias."""
        with self._reading() as content:
            return tuple(
                self._counted(grant)
                for grant in (*content.grants.values(), *self._session.values())
                if principal in (None, grant.principal)
                and server in (None, grant.server)
                and identity in (None, grant.identity)
                and (with_revoked or grant.revoked_at is None)
            )

    def add(self, grant: Grant) -> None:
        """Keep a grant.

        Raises:
            ValueError: its effect is neither ALLOW nor DENY, or its id is there already.
        """
        if grant.effect not in (Effect.ALLOW, Effect.DENY):
            raise ValueError(f"a grant says allow or deny, not {grant.effect}")
        with self._reading() as content:
            if grant.id in content.grants or grant.id in self._session:
                raise ValueError(f"there is a grant {grant.id!r} already")
            held = sum(_is_left(one) for one in (*content.grants.values(), *self._session.values()))
            if held >= MAX_GRANTS:
                raise self._failed(
                    f"it holds {MAX_GRANTS} grants; revoke some with 'dragoman host revoke'"
                )
        if grant.scope is not Scope.ALWAYS:
            with self._lock:
                self._session = {
                    name: held for name, held in self._session.items() if _is_left(held)
                }
                self._session[grant.id] = _once(grant) if grant.scope is Scope.ONCE else grant
                self._found.clear()
            return
        with self._writing() as db:
            old = self._clock() - KEPT_S
            db.execute("DELETE FROM grants WHERE revoked_at < ? OR expires_at < ?", (old, old))
            db.execute(
                f"INSERT INTO grants ({_COLUMNS}) VALUES ({', '.join('?' * 16)})",  # noqa: S608
                _row_of(grant),
            )

    def is_counted(self, grant_id: str) -> bool:
        """Whether to use it once more is a write: it holds for a number of calls, in every process."""
        grant = self._content.grants.get(grant_id)
        return grant is not None and grant.limits.max_calls is not None

    def spend(self, grant_id: str, *, looked: bool = False) -> bool:
        """Use a grant once; False when it is used up, revoked, expired or unknown.

        Of several processes that want the last call, one gets it. `looked`: see `look`.
        """
        now = self._clock()
        with self._lock:
            if not looked or self._version < 0:
                self._refresh()
            content = self._content
            held = self._session.get(grant_id)
            if held is not None:
                if not _is_left(held) or _is_expired(held, now):
                    return False
                self._session[grant_id] = replace(held, calls=held.calls + 1)
                if held.limits.max_calls is not None:
                    self._found.clear()
                return True
            grant = content.grants.get(grant_id)
            if grant is None or not _is_left(grant) or _is_expired(grant, now):
                return False
            if grant.limits.max_calls is None:
                self._uses[grant_id] = uses = self._uses.get(grant_id, 0) + 1
                if uses >= COUNT_EVERY:
                    self._write_uses()
                return True
        with self._writing() as db:
            done = db.execute(
                "UPDATE grants SET calls = calls + 1 WHERE id = ? AND revoked_at IS NULL"
                " AND calls < max_calls AND (expires_at IS NULL OR expires_at > ?)",
                (grant_id, now),
            )
            return done.rowcount == 1

    def revoke(self, grant_id: str) -> bool:
        """End a grant, or a stored refusal, in every process; False when there is none that holds."""
        now = self._clock()
        with self._lock:
            held = self._session.get(grant_id)
            if held is not None and held.revoked_at is None:
                self._session[grant_id] = replace(held, revoked_at=now)
                self._found.clear()
                return True
        with self._writing() as db:
            done = db.execute(
                "UPDATE grants SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
                (now, grant_id),
            )
            return done.rowcount == 1

    # --- servers ----------------------------------------------------------------------------------

    def trust_of(self, identity: str, *, looked: bool = False) -> Trust:
        """What the user thinks of the server of this identity; UNKNOWN when nothing was said.

        `looked`: see `look`.
        """
        with self._lock:
            if not looked or self._version < 0:
                self._refresh()
            return self._content.trust.get(identity, Trust.UNKNOWN)

    def set_trust(self, alias: str, identity: str, trust: Trust, lines: Lines = ()) -> None:
        """Remember it. `lines` describe the identity to people.

        Raises:
            ValueError: CHANGED, which is found and not said.
        """
        if trust is Trust.CHANGED:
            raise ValueError("whether a server has changed is found, it cannot be set")
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO trust (identity, alias, trust, lines, at)"
                " VALUES (?, ?, ?, ?, ?)",
                (identity, alias, str(trust), json.dumps(lines), self._clock()),
            )

    def last_identity(
        self, alias: str, project: str | os.PathLike[str] = ""
    ) -> tuple[str, Lines] | None:
        """The identity last accepted under this alias in a project, and its description; or None.

        Two projects may each have a server of that name.
        """
        with self._reading() as content:
            return content.identities.get(_place(alias, project))

    def set_identity(
        self,
        alias: str,
        identity: str,
        lines: Lines = (),
        *,
        project: str | os.PathLike[str] = "",
    ) -> None:
        """Accept an identity under this alias, in place of the last one."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO identities (alias, identity, lines, at)"
                " VALUES (?, ?, ?, ?)",
                (_place(alias, project), identity, json.dumps(lines), self._clock()),
            )

    def forget_identity(self, alias: str, *, project: str | os.PathLike[str] = "") -> None:
        """Forget what was accepted under this alias; grants and trust are the identity's own."""
        with self._writing() as db:
            db.execute("DELETE FROM identities WHERE alias = ?", (_place(alias, project),))

    def pins_of(self, identity: str) -> dict[str, str]:
        """The definitions that were reviewed: key ("tool/x") to full digest; a copy."""
        with self._reading() as content:
            return dict(content.pins.get(identity, {}))

    def accept_pins(
        self, identity: str, pins: Mapping[str, str], *, gone: Iterable[str] = ()
    ) -> None:
        """Take these definitions as reviewed, and forget those that are gone; others stay."""
        with self._writing() as db:
            db.executemany(
                "DELETE FROM pins WHERE identity = ? AND key = ?",
                [(identity, key) for key in gone],
            )
            db.executemany(
                "INSERT OR REPLACE INTO pins (identity, key, digest) VALUES (?, ?, ?)",
                [(identity, key, digest) for key, digest in pins.items()],
            )

    # --- projects ---------------------------------------------------------------------------------

    def project_digest(self, folder: str | os.PathLike[str]) -> str | None:
        """The digest of the project file that the user trusted in this folder, or None."""
        with self._reading() as content:
            return content.projects.get(_folder(folder))

    def trust_project(self, folder: str | os.PathLike[str], digest: str) -> None:
        """Trust the project in this folder as long as its file has this digest."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO projects (folder, digest, at) VALUES (?, ?, ?)",
                (_folder(folder), digest, self._clock()),
            )

    def forget_project(self, folder: str | os.PathLike[str]) -> None:
        """Trust it no longer."""
        with self._writing() as db:
            db.execute("DELETE FROM projects WHERE folder = ?", (_folder(folder),))

    # --- the file ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; session grants are gone."""
        with self._lock:
            if self._is_closed:
                return
            try:
                self._write_uses()
            except StoreFailed as error:
                log.warning("how often grants were used could not be written: %s", error)
            self._is_closed = True
            self._db.close()

    def __enter__(self) -> GrantStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _failed(self, reason: str) -> StoreFailed:
        return StoreFailed(self.path, reason)

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """SQLite's errors, and the system's, as StoreFailed."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(_reason(error)) from error
        except UnicodeEncodeError:
            raise self._failed("what is to be kept is no valid text (half a surrogate)") from None
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error

    def _open(self, busy_s: float) -> tuple[sqlite3.Connection, tuple[int, int]]:
        with self._trouble():
            # Made here, so that nobody else can read it even for a moment; SQLite gives the files
            # beside it the same mode.
            fd = open_private(self.path, os.O_RDWR | os.O_CREAT)
            status = os.fstat(fd)
            os.close(fd)
            db = sqlite3.connect(
                self.path, timeout=busy_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._check(db)
                self._set_up(db, busy_s)
            except BaseException:
                db.close()
                raise
            # From now on it is ours to wait.
            db.execute("PRAGMA busy_timeout = 0")
        return db, (status.st_dev, status.st_ino)

    def _check(self, db: sqlite3.Connection) -> None:
        # All at one moment: another process may be making the tables.
        db.execute("BEGIN")
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        (health,) = db.execute("PRAGMA quick_check(1)").fetchone()
        db.execute("COMMIT")
        if health != "ok":
            raise self._failed(f"it is damaged ({health}); {_ASIDE}")
        if not tables:
            return
        if owner != APPLICATION_ID:
            raise Misconfigured(f"{self.path} is a database of something else; name another file")
        if schema > SCHEMA:
            raise Misconfigured(
                f"{self.path} was written by a newer dragoman (its form is {schema}, this one knows"
                f" {SCHEMA}); use that one, or name another file"
            )

    def _set_up(self, db: sqlite3.Connection, busy_s: float) -> None:
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
        # A revocation or a used call that a power cut undid would be a grant given back.
        db.execute("PRAGMA synchronous = FULL")
        if db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,):
            return
        db.execute("BEGIN IMMEDIATE")
        # Another process may have been quicker.
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            for statement in _TABLES.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("COMMIT")

    # --- reading ----------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[_Content]:
        with self._lock:
            self._refresh()
            yield self._content

    def _refresh(self) -> None:
        """Read everything again when another process has changed something."""
        if self._is_closed:
            raise self._failed("it was closed")
        try:
            status = os.stat(self._name)
            try:
                (version,) = self._db.execute("PRAGMA data_version").fetchone()
            except sqlite3.OperationalError:
                (version,) = self._patiently(self._read_version)
        except sqlite3.Error as error:
            raise self._failed(_reason(error)) from error
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error
        if (status.st_dev, status.st_ino) != self._file:
            raise self._failed("it was taken away or replaced while in use; start again")
        if version != self._version:
            with self._trouble():
                self._patiently(self._load)
            self._version = version

    def _read_version(self) -> Any:
        return self._db.execute("PRAGMA data_version").fetchone()

    def _load(self) -> None:
        db = self._db
        content = _Content()
        # One moment for all tables.
        db.execute("BEGIN")
        try:
            rows = db.execute(f"SELECT {_COLUMNS} FROM grants ORDER BY created_at, id")  # noqa: S608
            for row in rows:
                grant = self._understood(_grant_of, row, f"the grant {row[0]!r}")
                content.grants[grant.id] = grant
            for identity, text in db.execute("SELECT identity, trust FROM trust"):
                content.trust[identity] = self._understood(Trust, text, "a trust level")
            for alias, identity, text in db.execute(
                "SELECT alias, identity, lines FROM identities"
            ):
                lines = self._understood(_lines_of, text, f"the identity of {alias!r}")
                content.identities[alias] = (identity, lines)
            content.projects = dict(db.execute("SELECT folder, digest FROM projects").fetchall())
            for identity, key, digest in db.execute("SELECT identity, key, digest FROM pins"):
                content.pins.setdefault(identity, {})[key] = digest
        finally:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        self._content = content
        self._found.clear()

    def _understood(self, read: Callable[[Any], Any], value: Any, what: str) -> Any:
        try:
            return read(value)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            # Left out it might have been the refusal that counts.
            raise self._failed(f"{what} in it cannot be understood ({error}); {_ASIDE}") from None

    def _counted(self, grant: Grant) -> Grant:
        uses = self._uses.get(grant.id, 0)
        return replace(grant, calls=grant.calls + uses) if uses else grant

    # --- writing ----------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, after which memory holds what the file holds."""
        with self._lock:
            self._refresh()
            with self._trouble():
                self._patiently(self._begin)
                try:
                    yield self._db
                    self._count(self._db)
                    self._db.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                    raise
                self._uses.clear()
            # It is done; what is in memory is old now, and read again when it is needed.
            self._version = -1

    def _begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def _count(self, db: sqlite3.Connection) -> None:
        db.executemany(
            "UPDATE grants SET calls = calls + ? WHERE id = ?",
            [(uses, grant_id) for grant_id, uses in self._uses.items()],
        )

    def _write_uses(self) -> None:
        if self._uses:
            with self._writing():
                pass


_ASIDE = (
    "it was left as it is: move it away, with the -wal and -shm files beside it, to begin a new"
    " one, which asks everything again"
)


_BUSY = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY"}


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "") in _BUSY


def _reason(error: sqlite3.Error) -> str:
    if _is_busy(error):
        return "another process holds it locked"
    match getattr(error, "sqlite_errorname", ""):
        case "SQLITE_FULL":
            return "the disk is full"
        case "SQLITE_NOTADB" | "SQLITE_CORRUPT":
            return f"it is damaged ({error}); {_ASIDE}"
        case _:
            return str(error)


def _place(alias: str, project: str | os.PathLike[str]) -> str:
    """An alias in a project; no alias holds a blank."""
    return f"{alias} {_folder(project)}" if os.fspath(project) else alias


def _folder(folder: str | os.PathLike[str]) -> str:
    return os.path.realpath(folder)


def _is_left(grant: Grant) -> bool:
    if grant.revoked_at is not None:
        return False
    return grant.limits.max_calls is None or grant.calls < grant.limits.max_calls


def _is_expired(grant: Grant, now: float) -> bool:
    return grant.limits.expires_at is not None and grant.limits.expires_at <= now


def _once(grant: Grant) -> Grant:
    """A grant of the scope ONCE is one call, whatever else it says."""
    return replace(grant, limits=replace(grant.limits, max_calls=1))


class _Limits(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Those limits that have no column of their own; all of them, and no others, are there."""

    arguments: dict[str, tuple[str, ...]] | None
    taint: frozenset[str]
    models: tuple[str, ...] | None
    max_tokens: int | None


def _row_of(grant: Grant) -> tuple[Any, ...]:
    limits = grant.limits
    text = msgspec.json.encode(
        _Limits(
            arguments=None if limits.arguments is None else dict(limits.arguments),
            taint=limits.taint,
            models=limits.models,
            max_tokens=limits.max_tokens,
        )
    ).decode()
    return (
        grant.id,
        str(grant.effect),
        grant.principal,
        grant.server,
        grant.identity,
        str(grant.action),
        grant.object,
        grant.fingerprint,
        text,
        limits.max_calls,
        limits.expires_at,
        grant.approval,
        grant.created_at,
        grant.calls,
        grant.revoked_at,
        grant.note,
    )


def _grant_of(row: tuple[Any, ...]) -> Grant:
    limits = msgspec.json.decode(row[8], type=_Limits)
    return Grant(
        id=row[0],
        effect=Effect(row[1]),
        principal=row[2],
        server=row[3],
        identity=row[4],
        action=Action(row[5]),
        object=row[6],
        scope=Scope.ALWAYS,
        fingerprint=row[7],
        limits=Limits(
            arguments=limits.arguments,
            taint=limits.taint,
            max_calls=row[9],
            models=limits.models,
            max_tokens=limits.max_tokens,
            expires_at=row[10],
        ),
        approval=row[11],
        created_at=row[12],
        calls=row[13],
        revoked_at=row[14],
        note=row[15],
    )


def _lines_of(text: str) -> Lines:
    return tuple((str(label), str(value)) for label, value in json.loads(text))
