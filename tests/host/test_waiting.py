"""While another process holds the log or the store, whoever needs it waits, and nobody else does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman import Server
from dragoman.errors import DragomanError
from dragoman.host import Host
from dragoman.host.audit import Audit, AuditFailed, AuditLimits, read, verify
from dragoman.host.grants import GrantStore, StoreFailed
from dragoman.host.kinds import Action, Code, Denied, Effect, Grant, Scope, Trust
from dragoman.host.locks import InTurn
from dragoman.host.policy import AuditRules
from dragoman.host.settings import project_digest
from tests.host.audit_log import IDENTITY, INTENT, YES, kinds
from tests.support import joined, run

ROOT = Path(__file__).parents[2]

ADDER = [os.fspath(Path(__file__).parent / "servers" / "plain.py")]

NO = replace(YES, effect=Effect.DENY)

# 0.05 s: what a test waits that waits in vain.
SHORT_S = 0.05


@asynccontextmanager
async def a_host(folder: Path) -> AsyncIterator[Host]:
    """A host of one server that adds, which rules allow all of."""
    config = folder / "mcp.json"
    entry = {
        "command": sys.executable,
        "args": ADDER,
        "env": {"REACHED": os.fspath(folder / "reached.jsonl")},
    }
    config.write_text(json.dumps({"mcpServers": {"a": entry}}))
    rules = ["allow server.start(a)", "allow tool.expose(a/*)", "allow tool(a/*)"]
    (folder / "state").mkdir(mode=0o700)
    async with Host.load(config, rules=rules, state=folder / "state") as host:
        await host.ready()
        yield host


@contextmanager
def held(what: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds it until its input is closed."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.host.children.holder", what, os.fspath(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.stdin.close()
        child.wait(20)
        child.stdout.close()


def let_go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    child.wait(20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state" / "audit.jsonl"


async def others_go_on() -> None:
    """Whatever else is on the loop: here, a server is pinged."""
    async with joined(Server("other")) as (client, _):
        for _ in range(5):
            await client.ping()


# --- the log --------------------------------------------------------------------------------------


def test_a_record_waits_for_another_process_and_the_loop_does_not(path: Path) -> None:
    async def main() -> None:
        with Audit(path) as audit, held("log", path) as child:
            deciding = asyncio.create_task(audit.decision_in_turn(INTENT, YES))
            await others_go_on()
            assert not deciding.done()
            let_go(child)
            assert (await deciding).seq == 2

    run(main())
    assert verify(path).is_intact


def test_records_that_waited_stand_in_the_order_in_which_they_came(path: Path) -> None:
    async def main() -> None:
        with Audit(path) as audit, held("log", path) as child:
            tasks = [
                asyncio.create_task(audit.decision_in_turn(INTENT, YES, trace=str(n)))
                for n in range(20)
            ]
            await others_go_on()
            audit.event_soon("after them")
            await asyncio.sleep(0)
            let_go(child)
            # Whoever comes when the log is free again does not go before them.
            mark = await audit.decision_in_turn(INTENT, YES, trace="20")
            assert [(await task).seq for task in tasks] == list(range(2, 22))
            assert mark.seq == 23
            await audit.aclose()

    run(main())
    found = list(read(path))
    assert [one.get("trace") for one in found[1:]] == [*map(str, range(20)), None, "20"]
    assert verify(path).is_intact


def test_who_waits_too_long_for_the_log_is_told_so(path: Path) -> None:
    async def main() -> None:
        audit = Audit(path, limits=AuditLimits(lock_wait_s=SHORT_S))
        with audit, held("log", path):
            waiting = [audit.decision_in_turn(INTENT, YES) for _ in range(3)]
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert len(found) == 3
            for one in found:
                assert isinstance(one, AuditFailed)
                assert "another process has held" in str(one)

    run(main())
    assert kinds(list(read(path))) == ["opened"]


def test_where_policy_says_to_go_on_what_waited_in_vain_is_counted(path: Path) -> None:
    async def main() -> None:
        rules = AuditRules(on_write_failure="warn")
        with Audit(path, rules, limits=AuditLimits(lock_wait_s=SHORT_S)) as audit:
            with held("log", path):
                assert (await audit.decision_in_turn(INTENT, YES)).seq == 0
            await audit.decision_in_turn(INTENT, YES)

    run(main())
    assert kinds(list(read(path))) == ["opened", "lost", "decision"]


def test_an_outcome_and_a_refusal_are_written_though_their_callers_are_cancelled(
    path: Path,
) -> None:
    async def main() -> None:
        audit = Audit(path)
        mark = audit.decision(INTENT, YES)
        with held("log", path) as child:
            tasks = [
                asyncio.create_task(audit.outcome_in_turn(mark, "cancelled")),
                asyncio.create_task(audit.decision_in_turn(INTENT, NO)),
                # Nobody will do it, so there is nothing to be recorded.
                asyncio.create_task(audit.decision_in_turn(INTENT, YES)),
            ]
            await others_go_on()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            closing = asyncio.create_task(audit.aclose())
            await others_go_on()
            assert not closing.done()
            let_go(child)
            await closing

    run(main())
    found = list(read(path))
    assert kinds(found) == ["opened", "decision", "outcome", "decision"]
    assert found[-1]["effect"] == "deny"


def test_the_end_of_a_log_waits_for_another_process_and_the_loop_does_not(path: Path) -> None:
    async def main() -> None:
        audit = Audit(path)
        audit.event("x")
        with held("log", path) as child:
            closing = asyncio.create_task(audit.aclose())
            await others_go_on()
            assert not closing.done()
            let_go(child)
            await closing

    run(main())
    assert verify(path).anchored_seq == 2


def test_a_log_that_somebody_keeps_is_closed_without_holding_up_the_loop(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        audit = Audit(path, limits=AuditLimits(lock_wait_s=SHORT_S))
        audit.event("x")
        with held("log", path):
            # Whoever waits with this holds up the loop.
            monkeypatch.setattr(time, "sleep", lambda s: pytest.fail("the loop was held up"))
            await audit.aclose()
            monkeypatch.undo()
            with pytest.raises(AuditFailed, match="closed"):
                audit.event("y")

    run(main())
    assert verify(path).is_intact


# --- the store ------------------------------------------------------------------------------------

GRANT = Grant(
    id="g1",
    effect=Effect.ALLOW,
    principal="user",
    server="fs",
    identity=IDENTITY,
    action=Action.TOOL_CALL,
    object="read_file",
    scope=Scope.ALWAYS,
)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    file = tmp_path / "state" / "grants.sqlite"
    GrantStore(file).close()
    return file


def test_an_answer_waits_for_another_process_and_neither_the_loop_nor_readers_do(
    stored: Path,
) -> None:
    async def main() -> None:
        with GrantStore(stored) as store, held("store", stored) as child:
            keeping = asyncio.create_task(store.in_turn(lambda: store.add(GRANT)))
            await others_go_on()
            assert not keeping.done()
            await store.look()
            assert store.find("user", IDENTITY, looked=True) == ()
            let_go(child)
            await keeping
            assert store.find("user", IDENTITY, looked=True) == (GRANT,)

    run(main())


def test_a_look_waits_for_another_thread_and_the_loop_does_not(stored: Path) -> None:
    async def main() -> None:
        with GrantStore(stored) as store, held("store", stored) as child:
            begun = threading.Event()

            def add() -> None:
                begun.set()
                store.add(GRANT)

            adding = asyncio.create_task(asyncio.to_thread(add))
            await asyncio.to_thread(begun.wait)
            # It has the store for as long as the other process has the file.
            while store._lock.acquire(blocking=False):
                store._lock.release()
                await asyncio.sleep(0)
            looking = asyncio.create_task(store.look())
            await others_go_on()
            assert not looking.done()
            let_go(child)
            await looking
            await adding
            assert store.find("user", IDENTITY, looked=True) == (GRANT,)

    run(main())


def test_who_waits_too_long_for_the_store_is_told_so(stored: Path) -> None:
    async def main() -> None:
        store = GrantStore(stored, busy_s=SHORT_S)
        refused = pytest.raises(StoreFailed, match="another process holds it locked")
        with store, held("store", stored), refused:
            await store.in_turn(lambda: store.add(GRANT))

    run(main())


def test_what_another_process_has_changed_is_seen_at_the_next_look(stored: Path) -> None:
    async def main() -> None:
        with GrantStore(stored) as store, GrantStore(stored) as other:
            await store.look()
            other.add(GRANT)
            assert store.find("user", IDENTITY, looked=True) == ()
            await store.look()
            assert store.find("user", IDENTITY, looked=True) == (GRANT,)
            other.revoke("g1")
            # What this process changes itself is seen without a look.
            store.set_trust("fs", IDENTITY, Trust.TRUSTED)
            assert store.trust_of(IDENTITY, looked=True) is Trust.TRUSTED
            assert store.find("user", IDENTITY, looked=True) == ()

    run(main())


# --- the whole ------------------------------------------------------------------------------------


def test_a_call_that_waits_for_its_record_holds_up_neither_its_server_nor_others(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with a_host(tmp_path) as host:
            state = tmp_path / "state"
            with held("log", state / "audit" / "audit.jsonl") as child:
                calling = asyncio.create_task(host.call_tool("a", "add", {"a": 1, "b": 2}))
                client = host._connection("a").client
                assert client is not None
                for _ in range(5):
                    await client.ping()
                assert not calling.done()
                let_go(child)
                assert (await calling).data == 3

    run(main())


def test_a_call_is_not_sent_to_a_server_that_changed_while_its_record_waited(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with a_host(tmp_path) as host:
            connection = host._connection("a")
            with held("log", tmp_path / "state" / "audit" / "audit.jsonl") as child:
                calling = asyncio.create_task(host.call_tool("a", "add", {"a": 1, "b": 2}))
                await others_go_on()
                # As when it says so, or another one comes back in its place.
                connection._changed()
                let_go(child)
                with pytest.raises(Denied, match="has changed since") as denied:
                    await calling
            assert denied.value.code is Code.PIN_CHANGED
            assert not (tmp_path / "reached.jsonl").exists()
            assert (await host.call_tool("a", "add", {"a": 1, "b": 2})).data == 3

    run(main())
    outcomes = [
        one
        for one in read(tmp_path / "state" / "audit" / "audit.jsonl")
        if one["kind"] == "outcome"
    ]
    assert [one["status"] for one in outcomes if one["action"] == "tool.call"] == ["refused", "ok"]


# --- turns ----------------------------------------------------------------------------------------


class Held(Exception):
    pass


def test_an_error_that_is_no_lock_ends_the_wait_at_once() -> None:
    async def main() -> None:
        def fail() -> None:
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            await InTurn(Held).do(fail)

    run(main())


def test_who_is_cancelled_while_waiting_holds_up_nobody() -> None:
    async def main() -> None:
        turns = InTurn(Held)
        is_held = True

        def attempt() -> str:
            if is_held:
                raise Held
            return "done"

        first, second = (asyncio.create_task(turns.do(attempt)) for _ in range(2))
        await others_go_on()
        first.cancel()
        is_held = False
        assert await second == "done"
        assert not turns.is_busy

    run(main())


async def waits_alone(host: Host, work: Coroutine[Any, Any, Any], what: str, path: Path) -> Any:
    """The result of the work, which went on when that was let go, and held up nobody before."""
    with held(what, path) as child:
        working = asyncio.create_task(work)
        client = host._connection("a").client
        assert client is not None
        for _ in range(5):
            await client.ping()
        assert not working.done()
        let_go(child)
        return await working


def test_what_the_person_says_of_a_server_waits_for_the_store_and_the_loop_does_not(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with a_host(tmp_path) as host:
            identity = host.identity("a").digest
            store = host.grants.path
            await waits_alone(host, host.trust_in_turn("a"), "store", store)
            assert host.grants.trust_of(identity) is Trust.TRUSTED
            host.grants.add(replace(GRANT, principal="user", identity=identity))
            assert await waits_alone(host, host.revoke_in_turn("g1"), "store", store)
            assert not host.remembered()
            await waits_alone(host, host.accept_in_turn("a"), "store", store)
            assert set(host.grants.pins_of(identity)) >= {"tool/add"}

    run(main())


def test_a_server_that_is_blocked_is_ended_before_the_store_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_host(tmp_path) as host:
            with held("store", host.grants.path) as child:
                blocking = asyncio.create_task(host.trust_in_turn("a", "blocked"))
                await others_go_on()
                assert not blocking.done()
                with pytest.raises(DragomanError):
                    await host.call_tool("a", "add", {"a": 1, "b": 2})
                let_go(child)
                await blocking
            assert host.grants.trust_of(host.identity("a").digest) is Trust.BLOCKED
            assert not (tmp_path / "reached.jsonl").exists()

    run(main())


def test_the_lock_file_waits_for_who_writes_it_and_the_loop_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_host(tmp_path) as host:
            host.trust_project()
            host.accept("a")
            guard = tmp_path / "state" / "pins.guard"
            await waits_alone(host, host.lock_in_turn("a"), "guard", guard)
            assert "tool/add" in (tmp_path / "dragoman.lock").read_text()
            # It was the user's own hand: the project is trusted as it is now.
            assert host.grants.project_digest(tmp_path) == project_digest(tmp_path)

    run(main())
