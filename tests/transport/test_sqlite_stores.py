"""Events and sessions in a file: what survives a process, and what trouble with the file does."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from dragoman.errors import Misconfigured, WrongState
from dragoman.transport.streamable import sqlite
from dragoman.transport.streamable.limits import HttpLimits
from dragoman.transport.streamable.sessions import Saved, SessionRecord
from dragoman.transport.streamable.sqlite import SqliteStore
from tests.support import PATIENCE_S, run

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@asynccontextmanager
async def opened(store: SqliteStore) -> AsyncIterator[SqliteStore]:
    try:
        yield store
    finally:
        await store.aclose()


def record(ident: str, *, used_at: float = 1_000.0, level: int = 0) -> SessionRecord:
    return SessionRecord(
        id=ident,
        owner="ada",
        issuer="tests",
        revision="2025-11-25",
        client_info={"name": "c", "version": "1"},
        client_capabilities={"roots": {}},
        log_level=level,
        subscriptions=("a://b", "c://d"),
        used_at=used_at,
    )


# --- sessions -----------------------------------------------------------------------------------


def test_a_session_is_what_was_saved_last_also_in_another_store(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async def play() -> None:
        async with opened(SqliteStore(path, clock=lambda: 1_000.0)) as store:
            assert await store.load("secret") is None
            await store.save(record("secret"))
            await store.save(record("secret", level=3))
            await store.save(record("other"))
            await store.delete("other")
            await store.delete("other")
        async with opened(SqliteStore(path, clock=lambda: 1_000.0)) as store:
            assert await store.load("secret") == record("secret", level=3)
            assert await store.load("other") is None

    run(play())


def held(holder: str, held_at: float, level: int = 0) -> SessionRecord:
    return msgspec.structs.replace(record("s", level=level), holder=holder, held_at=held_at)


def test_what_is_saved_late_does_not_replace_what_another_process_was_told_later(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        path = tmp_path / "s.db"
        async with (
            opened(SqliteStore(path, clock=lambda: 1_000.0)) as one,
            opened(SqliteStore(path, clock=lambda: 1_000.0)) as other,
        ):
            assert await one.save(held("one", 1.0)) is Saved.KEPT
            assert await other.save(held("other", 3.0, level=3)) is Saved.KEPT
            assert await one.save(held("one", 2.0)) is Saved.TAKEN
            assert await one.load("s") == held("other", 3.0, level=3)
            # A clock that was set back stops nobody from writing what is their own.
            assert await other.save(held("other", 1.0, level=5)) is Saved.KEPT
            assert await one.load("s") == held("other", 1.0, level=5)
            assert await one.save(held("one", 4.0, level=4)) is Saved.KEPT
            assert await other.load("s") == held("one", 4.0, level=4)

    run(play())


def test_a_session_that_was_deleted_cannot_be_saved_any_more(tmp_path: Path) -> None:
    now = [1_000.0]
    limits = HttpLimits(idle_s=100.0)

    async def play() -> None:
        path = tmp_path / "s.db"
        async with opened(SqliteStore(path, limits, clock=lambda: now[0])) as store:
            assert await store.save(record("s")) is Saved.KEPT
            assert await store.delete("s") is True
            assert await store.save(record("s", used_at=2_000.0)) is Saved.ENDED
            assert await store.load("s") is None
        async with opened(SqliteStore(path, limits, clock=lambda: now[0])) as store:
            assert await store.save(record("s")) is Saved.ENDED
            # Nobody can remember one for longer than it may be idle.
            now[0] += 200.0
            await store.save(record("other", used_at=now[0]))
            assert await store.save(record("s", used_at=now[0])) is Saved.KEPT

    run(play())


def test_whoever_does_not_hold_a_session_cannot_delete_it_as_its_holder(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(SqliteStore(tmp_path / "s.db", clock=lambda: 1_000.0)) as store:
            await store.save(held("one", 1.0))
            assert await store.delete("s", "other") is False
            assert await store.load("s") == held("one", 1.0)
            assert await store.delete("s", "one") is True
            assert await store.load("s") is None
            assert await store.delete("never there", "one") is True

    run(play())


def test_the_file_does_not_hold_the_id_that_opens_a_session(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(SqliteStore(tmp_path / "s.db", clock=lambda: 1_000.0)) as store:
            await store.save(record("the-secret-of-a-session"))
            store.append("the-secret-of-a-session", "x", 0, b"frame")
            await store.flush()
            for file in tmp_path.iterdir():
                assert b"the-secret" not in file.read_bytes()
            assert await store.load("the-secret-of-a-session") is not None

    run(play())


def test_a_session_that_nobody_used_for_long_is_gone(tmp_path: Path) -> None:
    now = [1_000.0]
    limits = HttpLimits(idle_s=100.0)

    async def play() -> None:
        async with opened(SqliteStore(tmp_path / "s.db", limits, clock=lambda: now[0])) as store:
            await store.save(record("old"))
            store.append("old", "x", 0, b"frame")
            await store.flush()
            now[0] += 90.0
            await store.save(record("young", used_at=now[0]))
            store.append("young", "x", 0, b"frame")
            assert await store.load("old") is not None
            now[0] += 20.0
            assert await store.load("old") is None
            assert await store.load("young") is not None
            # Once a minute they are deleted for good.
            now[0] += 50.0
            await store.save(record("new", used_at=now[0]))
            assert await store.replay("old", "x", -1) is None
            assert await store.replay("young", "x", -1) is not None
        with sqlite3.connect(tmp_path / "s.db") as db:
            assert db.execute("SELECT count(*) FROM sessions").fetchone() == (2,)
            assert db.execute("SELECT count(*) FROM events").fetchone() == (1,)
        db.close()

    run(play())


def test_there_are_never_more_sessions_than_the_limit(tmp_path: Path) -> None:
    async def play() -> None:
        limits = HttpLimits(max_sessions=3)
        async with opened(SqliteStore(tmp_path / "s.db", limits, clock=lambda: 1_000.0)) as store:
            for number in range(6):
                await store.save(record(f"s{number}", used_at=1_000.0 + number))
            found = [await store.load(f"s{number}") is not None for number in range(6)]
            assert found == [False, False, False, True, True, True]

    run(play())


# --- the file -----------------------------------------------------------------------------------


@posix
def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.touch(0o644)

    async def play() -> None:
        async with opened(SqliteStore(path)) as store:
            store.append("s", "x", 0, b"frame")
            await store.flush()
            for file in tmp_path.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file

    run(play())


def test_a_file_that_is_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("a note that is no database\n" * 100)
    foreign = tmp_path / "foreign.db"
    db = sqlite3.connect(foreign)
    db.execute("CREATE TABLE events (seq)")
    db.commit()
    db.close()
    later = tmp_path / "later.db"
    run(SqliteStore(later).aclose())
    db = sqlite3.connect(later)
    db.execute(f"PRAGMA user_version = {sqlite.SCHEMA + 1}")
    db.close()
    for path in (text, foreign, later):
        before = path.read_bytes()
        with pytest.raises(Misconfigured, match=path.name):
            SqliteStore(path)
        assert path.read_bytes() == before
    for path in (tmp_path, tmp_path / "none" / "s.db"):
        with pytest.raises(Misconfigured):
            SqliteStore(path)


OPEN = """
import sys
from pathlib import Path
from dragoman.transport.streamable.sqlite import SqliteStore
print("ready", flush=True)
sys.stdin.readline()
SqliteStore(Path(sys.argv[1]))
print("opened", flush=True)
"""


def test_several_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(tmp_path / "s.db")]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        assert child.communicate(timeout=30)[0] == "opened\n"
        assert child.returncode == 0


APPENDER = """
import asyncio, sys
from pathlib import Path
from dragoman.transport.streamable.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    session = sys.argv[2]
    for number in range(int(sys.argv[3])):
        store.append(session, "x", number, b"%d" % number)
        if number % 50 == 49:
            await store.flush()
            print(number, flush=True)
    print("done", flush=True)

asyncio.run(main())
"""


def test_what_was_flushed_survives_a_process_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    child = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path), "s", "1000000"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    for _ in range(5):
        flushed = int(child.stdout.readline())
    child.kill()
    child.wait()
    child.stdout.close()

    async def play() -> None:
        async with opened(SqliteStore(path)) as store:
            found = await store.replay("s", "x", -1)
            assert found is not None
            assert len(found) > flushed
            assert [event.number for event in found] == list(range(len(found)))
            assert all(event.frame == b"%d" % event.number for event in found)

    run(play())


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    names = ("one", "two", "three")
    children = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(path), name, "1000"], stdout=-3)
        for name in names
    ]
    assert [child.wait(30) for child in children] == [0, 0, 0]

    async def play() -> None:
        async with opened(SqliteStore(path)) as store:
            for name in names:
                found = await store.replay(name, "x", 949)
                assert found == [(n, b"%d" % n) for n in range(950, 1_000)]
            with sqlite3.connect(path) as db:
                (counted,) = db.execute("SELECT sum(bytes) FROM kept").fetchone()
                assert db.execute("SELECT bytes FROM total").fetchone() == (counted,)
            db.close()

    run(play())


# --- trouble ------------------------------------------------------------------------------------


def test_a_locked_file_is_said_once_and_never_makes_a_replay_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    path = tmp_path / "s.db"

    async def play() -> None:
        async with opened(SqliteStore(path, busy_s=0.02, clock=lambda: 1_000.0)) as store:
            store.append("s", "x", 0, b"0")
            store.append("untouched", "x", 0, b"0")
            await store.save(record("kept"))
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            for number in (1, 2):
                store.append("s", "x", number, b"%d" % number)
                await store.flush()
            # What is known would end before its end, so nothing is.
            assert await store.replay("s", "x", -1) is None
            assert await store.replay("untouched", "x", -1) == [(0, b"0")]
            with pytest.raises(sqlite3.OperationalError):
                await store.save(record("lost"))
            assert await store.load("kept") == record("kept")
            other.execute("ROLLBACK")
            other.close()
            store.append("s", "x", 3, b"3")
            assert await store.replay("s", "x", -1) is None
            assert await store.replay("s", "x", 2) == [(3, b"3")]
            await store.save(record("lost"))
            assert await store.load("lost") == record("lost")

    run(play())
    assert [one.levelname for one in caplog.records] == ["ERROR", "WARNING"]


FULL = """
import asyncio, logging, resource, sys
from pathlib import Path
from dragoman.transport.streamable.sqlite import SqliteStore

logging.basicConfig(format="%(levelname)s", stream=sys.stdout)

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    store.append("small", "x", 0, b"0")
    await store.flush()
    # As a full disk: no file may grow beyond this.
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    for number in range(20):
        store.append("s", "x", number, bytes(100_000))
        await store.flush()
    print(await store.replay("s", "x", -1), await store.replay("small", "x", -1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    store.append("s", "x", 20, b"20")
    print(await store.replay("s", "x", 18), await store.replay("s", "x", 19))
    await store.aclose()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_is_said_once_and_never_makes_a_replay_wrong(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "s.db")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ERROR",
        "None [Kept(number=0, frame=b'0')]",
        "WARNING",
        "None [Kept(number=20, frame=b'20')]",
    ]


def test_what_a_slow_disk_cannot_take_is_not_known_instead_of_filling_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "MAX_PENDING_BYTES", 10_000)
    path = tmp_path / "s.db"

    async def play() -> None:
        async with opened(SqliteStore(path)) as store:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            for number in range(100):
                store.append("s", "x", number, bytes(1_000))
            assert "too slow" in caplog.text
            other.execute("ROLLBACK")
            other.close()
            await store.flush()
            for number in range(99):
                assert await store.replay("s", "x", number - 1) is None
            # From now on it is taken again.
            store.append("s", "x", 100, b"100")
            assert await store.replay("s", "x", 99) == [(100, b"100")]
            assert await store.replay("s", "x", 98) is None

    run(play())
    assert len(caplog.records) == 1


def test_a_file_that_breaks_while_it_is_used_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.db"

    async def play() -> None:
        async with opened(SqliteStore(path)) as store:
            store.append("s", "x", 0, b"0")
            await store.flush()
            with sqlite3.connect(path) as other:
                other.execute("DROP TABLE events")
            other.close()
            store.append("s", "x", 1, b"1")
            assert await store.replay("s", "x", -1) is None
            assert await store.replay("s", "x", 0) is None

    run(play())


# --- tasks and threads --------------------------------------------------------------------------


def test_whoever_stops_waiting_stops_nobody_else(tmp_path: Path) -> None:
    async def play() -> None:
        async with opened(SqliteStore(tmp_path / "s.db", clock=lambda: 1_000.0)) as store:
            for _ in range(20):
                waiting = [asyncio.ensure_future(store.save(record(f"s{n}"))) for n in range(10)]
                await asyncio.sleep(0)
                for one in waiting[::2]:
                    one.cancel()
                done = await asyncio.gather(*waiting, return_exceptions=True)
                assert done[1::2] == [Saved.KEPT] * 5
            assert await store.load("s1") == record("s1")

    run(play())


def test_no_thread_is_left_behind_and_none_is_started_for_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())

    def ours() -> int:
        return len(set(threading.enumerate()) - before)

    async def play() -> None:
        store = SqliteStore(tmp_path / "s.db")
        assert ours() == 0
        store.append("s", "x", 0, b"0")
        assert ours() == 1
        await asyncio.gather(store.aclose(), store.aclose())
        with pytest.raises(WrongState):
            await store.save(record("s"))

    run(play())
    # It has been told to end; how soon it is gone is the machine's affair.
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
    assert ours() == 0


def test_a_store_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", clock=lambda: 1_000.0)
    run(store.save(record("s")))
    assert run(store.load("s")) == record("s")
    run(store.aclose())


def test_an_unfinished_process_does_not_wait_for_its_store(tmp_path: Path) -> None:
    script = "import sys; from dragoman.transport.streamable.sqlite import SqliteStore as S; s = S(sys.argv[1]); s.append('s', 'x', 0, b'')"
    done = subprocess.run(
        [sys.executable, "-c", script, os.fspath(tmp_path / "s.db")],
        timeout=30,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
