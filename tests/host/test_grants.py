"""The store of grants: what it remembers, in several processes, and when it cannot."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host import grants as module
from dragoman.host.grants import GrantStore, StoreFailed
from dragoman.host.kinds import Action, Effect, Grant, Intent, Limits, Scope, Trust

ROOT = Path(__file__).parents[2]
LINES = (("command", "/usr/bin/server --all"), ("env", "TOKEN from ${TOKEN}"))

GRANT = Grant(
    id="g1",
    effect=Effect.ALLOW,
    principal="user",
    server="fs",
    identity="sha256:1",
    action=Action.TOOL_CALL,
    object="read_file",
    scope=Scope.ALWAYS,
    fingerprint="sha256:2",
    limits=Limits(
        arguments={"/path": ("glob:/srv/*", '"x"')},
        taint=frozenset({"web"}),
        max_calls=3,
        models=("local/*",),
        max_tokens=100,
        expires_at=5000.0,
    ),
    approval="a1",
    created_at=10.0,
    note="for now",
)
UNLIMITED = replace(GRANT, id="g2", limits=Limits())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "grants.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[GrantStore]:
    with GrantStore(path, clock=lambda: 1000.0) as opened:
        yield opened


def opened(path: Path, **options: Any) -> GrantStore:
    return GrantStore(path, clock=lambda: 1000.0, **options)


# --- what it remembers ----------------------------------------------------------------------------


def test_a_grant_is_found_again_whole_by_another_process(store: GrantStore, path: Path) -> None:
    store.add(GRANT)
    assert store.find("user", "sha256:1") == (GRANT,)
    with opened(path) as other:
        assert other.find("user", "sha256:1") == (GRANT,)
        assert other.get("g1") == GRANT


def test_a_grant_is_of_one_principal_and_one_identity(store: GrantStore) -> None:
    store.add(GRANT)
    assert store.find("client b", "sha256:1") == ()
    assert store.find("user", "sha256:other") == ()


def test_a_refusal_outlives_a_change_of_the_identity_and_a_grant_does_not(
    store: GrantStore,
) -> None:
    store.add(UNLIMITED)
    store.add(replace(UNLIMITED, id="no", effect=Effect.DENY))
    assert [grant.id for grant in store.find("user", "sha256:new", "fs")] == ["no"]
    assert store.find("user", "sha256:new", "web") == ()
    assert store.find("other", "sha256:new", "fs") == ()


def test_of_what_is_found_only_what_is_about_the_same_object_and_action_is_asked_for(
    store: GrantStore,
) -> None:
    wanted = Intent(action=Action.TOOL_CALL, server="fs", identity="sha256:1", object="read_file")
    store.add(UNLIMITED)
    store.add(replace(UNLIMITED, id="other", object="write_file"))
    store.add(replace(UNLIMITED, id="prompt", action=Action.PROMPT_GET))
    no = replace(UNLIMITED, id="no", effect=Effect.DENY, identity="sha256:old")
    store.add(no)
    assert {one.id for one in store.find_about(wanted)} == {"g2", "no"}
    assert store.revoke("g2")
    assert [one.id for one in store.find_about(wanted)] == ["no"]
    # One that holds for this session only is among them as soon as it is there.
    store.add(replace(UNLIMITED, id="now", scope=Scope.SESSION, session="s"))
    assert {one.id for one in store.find_about(wanted)} == {"now", "no"}


def test_a_refusal_is_remembered_too(store: GrantStore, path: Path) -> None:
    store.add(replace(GRANT, effect=Effect.DENY))
    with opened(path) as other:
        assert [grant.effect for grant in other.find("user", "sha256:1")] == [Effect.DENY]


@pytest.mark.parametrize("effect", [Effect.ASK, Effect.CANCEL])
def test_nothing_else_is_remembered(store: GrantStore, effect: Effect) -> None:
    with pytest.raises(ValueError, match="allow or deny"):
        store.add(replace(GRANT, effect=effect))


def test_what_holds_for_a_session_is_in_no_file(store: GrantStore, path: Path) -> None:
    mine = replace(GRANT, id="s", scope=Scope.SESSION, session="s1")
    store.add(mine)
    assert store.find("user", "sha256:1") == (mine,)
    with opened(path) as other:
        assert other.find("user", "sha256:1") == ()


def test_a_grant_for_once_is_one_call(store: GrantStore) -> None:
    store.add(replace(UNLIMITED, scope=Scope.ONCE))
    assert [store.spend("g2") for _ in range(3)] == [True, False, False]
    assert store.find("user", "sha256:1") == ()


def test_a_grant_with_a_number_of_calls_is_used_up(store: GrantStore, path: Path) -> None:
    store.add(GRANT)
    with opened(path) as other:
        assert [one.spend("g1") for one in (store, other, store, other, store)] == [
            True,
            True,
            True,
            False,
            False,
        ]
        assert other.find("user", "sha256:1") == ()
        assert other.list()[0].calls == 3


def test_what_has_expired_or_was_never_there_cannot_be_used(path: Path) -> None:
    now = [1000.0]
    with GrantStore(path, clock=lambda: now[0]) as store:
        store.add(GRANT)
        store.add(replace(GRANT, id="s", scope=Scope.SESSION))
        now[0] = 5000.0
        assert [store.spend(name) for name in ("g1", "s", "nobody's")] == [False, False, False]


@pytest.mark.parametrize("scope", [Scope.ALWAYS, Scope.SESSION])
def test_what_was_revoked_is_gone_at_once_and_everywhere(
    store: GrantStore, path: Path, scope: Scope
) -> None:
    store.add(replace(UNLIMITED, scope=scope))
    with opened(path) as other:
        other.find("user", "sha256:1")
        assert store.revoke("g2")
        assert not store.revoke("g2")
        for one in (store, other):
            assert one.find("user", "sha256:1") == ()
            assert not one.spend("g2")
            assert one.list() == ()
        assert [grant.revoked_at for grant in store.list(with_revoked=True)] == [1000.0]


def test_grants_are_listed_by_whom_they_are_for(store: GrantStore) -> None:
    store.add(replace(GRANT, id="b", created_at=2.0, server="web"))
    store.add(replace(GRANT, id="a", created_at=1.0, principal="other"))
    assert [grant.id for grant in store.list()] == ["a", "b"]
    assert [grant.id for grant in store.list(server="web")] == ["b"]
    assert [grant.id for grant in store.list(principal="other")] == ["a"]
    assert [grant.id for grant in store.list(identity="nobody")] == []


def test_uses_are_counted_for_people(store: GrantStore, path: Path) -> None:
    store.add(UNLIMITED)
    for _ in range(300):
        assert store.spend("g2")
    assert store.list()[0].calls == 300
    store.close()
    with opened(path) as other:
        assert other.list()[0].calls == 300


def test_an_id_is_given_once(store: GrantStore, path: Path) -> None:
    store.add(GRANT)
    with pytest.raises(ValueError, match="already"):
        store.add(replace(GRANT, effect=Effect.DENY))
    with opened(path) as other, pytest.raises(ValueError, match="already"):
        other.add(GRANT)


def test_old_grants_that_hold_no_more_are_forgotten(path: Path) -> None:
    now = [1000.0]
    with GrantStore(path, clock=lambda: now[0]) as store:
        store.add(GRANT)
        store.add(UNLIMITED)
        store.revoke("g2")
        now[0] += 91 * 24 * 3600
        store.add(replace(UNLIMITED, id="g3"))
        assert [grant.id for grant in store.list(with_revoked=True)] == ["g3"]


def test_there_is_a_bound_to_what_is_remembered(
    store: GrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_GRANTS", 2)
    store.add(GRANT)
    store.add(replace(UNLIMITED, scope=Scope.SESSION))
    with pytest.raises(StoreFailed, match="revoke some"):
        store.add(replace(GRANT, id="g3"))


# --- servers, projects, pins ----------------------------------------------------------------------


def test_trust_is_the_identitys_own(store: GrantStore, path: Path) -> None:
    assert store.trust_of("sha256:1") is Trust.UNKNOWN
    store.set_trust("fs", "sha256:1", Trust.TRUSTED, LINES)
    with opened(path) as other:
        assert other.trust_of("sha256:1") is Trust.TRUSTED
        assert other.trust_of("sha256:2") is Trust.UNKNOWN
        other.set_trust("fs", "sha256:1", Trust.BLOCKED)
    assert store.trust_of("sha256:1") is Trust.BLOCKED
    with pytest.raises(ValueError, match="found"):
        store.set_trust("fs", "sha256:1", Trust.CHANGED)


def test_the_last_identity_of_an_alias_is_kept_with_its_description(
    store: GrantStore, path: Path
) -> None:
    assert store.last_identity("fs") is None
    store.set_identity("fs", "sha256:1", LINES)
    with opened(path) as other:
        assert other.last_identity("fs") == ("sha256:1", LINES)
        other.set_identity("fs", "sha256:2")
    assert store.last_identity("fs") == ("sha256:2", ())
    store.forget_identity("fs")
    assert store.last_identity("fs") is None


def test_a_project_is_trusted_as_it_was_in_its_folder(store: GrantStore, path: Path) -> None:
    folder = path.parent / "project"
    folder.mkdir()
    (path.parent / "link").symlink_to(folder)
    store.trust_project(folder, "sha256:p")
    assert store.project_digest(path.parent / "link") == "sha256:p"
    assert store.project_digest(path.parent) is None
    store.forget_project(folder)
    assert store.project_digest(folder) is None


def test_pins_are_accepted_one_by_one_and_forgotten(store: GrantStore, path: Path) -> None:
    store.accept_pins("sha256:1", {"tool/a": "1", "tool/b": "2"})
    store.accept_pins("sha256:1", {"tool/b": "3"}, gone=["tool/a", "tool/never"])
    with opened(path) as other:
        assert other.pins_of("sha256:1") == {"tool/b": "3"}
        assert other.pins_of("sha256:2") == {}
    store.pins_of("sha256:1")["tool/b"] = "mine"
    assert store.pins_of("sha256:1") == {"tool/b": "3"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "spend", "revoke", "reopen"]),
            st.integers(0, 3),
            st.sampled_from([None, 1, 2]),
            st.booleans(),
        ),
        max_size=25,
    )
)
@settings(max_examples=12)
def test_two_processes_see_one_truth_whatever_they_do(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int | None, bool]]
) -> None:
    path = tmp_path_factory.mktemp("g") / "grants.sqlite"
    stores = [opened(path), opened(path)]
    # By id: how many calls are left, None for no limit.
    left: dict[str, int | None] = {}
    known: set[str] = set()
    revoked: set[str] = set()
    for do, number, calls, which in steps:
        store, name = stores[which], f"g{number}"
        if do == "add" and name not in known:
            store.add(replace(GRANT, id=name, limits=Limits(max_calls=calls)))
            left[name] = calls
            known.add(name)
        elif do == "spend":
            held = left.get(name, 0)
            assert store.spend(name) is (held != 0)
            if held:
                left[name] = held - 1
        elif do == "revoke":
            assert store.revoke(name) is (name in known - revoked)
            revoked |= known & {name}
            left.pop(name, None)
        elif do == "reopen":
            store.close()
            stores[which] = opened(path)
        expected = {name for name, held in left.items() if held != 0}
        for one in stores:
            assert {grant.id for grant in one.find("user", "sha256:1")} == expected
    for one in stores:
        one.close()


# --- several at once ------------------------------------------------------------------------------

SPENDER = """
import sys
from dragoman.host.grants import GrantStore
store = GrantStore(sys.argv[1])
print(sum(store.spend("g1") for _ in range(30)))
"""


def test_of_several_processes_one_gets_the_last_call(path: Path) -> None:
    with opened(path) as store:
        store.add(replace(GRANT, limits=Limits(max_calls=40)))
        children = [
            subprocess.Popen(
                [sys.executable, "-c", SPENDER, str(path)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        spent = [int(child.communicate(timeout=50)[0]) for child in children]
        assert sum(spent) == 40
        assert store.list()[0].calls == 40


def test_several_may_make_the_file_at_once(path: Path) -> None:
    failed: list[BaseException] = []

    def make(number: int) -> None:
        try:
            with opened(path) as store:
                store.add(replace(GRANT, id=f"g{number}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with opened(path) as store:
        assert len(store.list()) == 6


# --- when it cannot -------------------------------------------------------------------------------


def test_a_locked_store_is_waited_for_only_so_long_and_loses_nothing(path: Path) -> None:
    with opened(path, busy_s=0.02) as store:
        store.add(GRANT)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreFailed, match="locked"):
            store.add(UNLIMITED)
        with pytest.raises(StoreFailed, match="locked"):
            store.spend("g1")
        with pytest.raises(StoreFailed, match="locked"):
            store.revoke("g1")
        assert [grant.id for grant in store.find("user", "sha256:1")] == ["g1"]
        other.execute("ROLLBACK")
        other.close()
        store.add(UNLIMITED)
        assert [grant.id for grant in store.list()] == ["g1", "g2"]


@pytest.mark.parametrize("damage", ["text", "middle", "cut"])
def test_a_damaged_store_is_refused_and_left_as_it_is(path: Path, damage: str) -> None:
    with opened(path) as store:
        store.accept_pins("sha256:1", {f"tool/{n}": "x" * 60 for n in range(2000)})
    raw = path.read_bytes()
    if damage == "text":
        raw = b"these are not the grants you are looking for" * 100
    elif damage == "middle":
        raw = raw[:4096] + os.urandom(len(raw) - 8192) + raw[-4096:]
    else:
        raw = raw[: len(raw) // 2]
    path.write_bytes(raw)
    with pytest.raises(StoreFailed, match="damaged") as caught:
        opened(path)
    assert "move it away" in str(caught.value)
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE grants SET action = 'tool.imagine'",
        "UPDATE grants SET limits = '{}'",
        "UPDATE grants SET limits = 'x'",
        """UPDATE grants SET limits = '{"arguments": [1], "taint": [], "models": null, "max_tokens": 1}'""",
    ],
)
def test_a_row_that_cannot_be_understood_stops_everything(path: Path, change: str) -> None:
    """Left out, it might have been the refusal that counts."""
    with opened(path) as store:
        store.add(replace(GRANT, effect=Effect.DENY))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute(change)
        other.close()
        with pytest.raises(StoreFailed, match="cannot be understood"):
            store.find("user", "sha256:1")
    with pytest.raises(StoreFailed, match="cannot be understood"):
        opened(path)


def test_a_store_of_a_newer_version_is_refused(path: Path) -> None:
    opened(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Misconfigured, match="newer dragoman"):
        opened(path)


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match="something else"):
        opened(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_its_owner_may_read_any_of_its_files(path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(path) as store:
            store.add(GRANT)
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(
        ("grants.sqlite", "grants.sqlite-wal", "grants.sqlite-shm"), 0o600
    )
    path.chmod(0o660)
    with pytest.raises(Misconfigured, match="chmod 0600"):
        opened(path)


@pytest.mark.parametrize("how", ["gone", "replaced"])
def test_a_store_that_was_taken_away_while_in_use_is_noticed(path: Path, how: str) -> None:
    with opened(path) as store:
        store.add(GRANT)
        path.rename(path.with_name("elsewhere"))
        if how == "replaced":
            opened(path).close()
        for _ in range(2):
            with pytest.raises(StoreFailed):
                store.find("user", "sha256:1")
            with pytest.raises(StoreFailed):
                store.add(UNLIMITED)


def test_text_that_is_no_text_is_refused_and_nothing_is_kept(store: GrantStore) -> None:
    with pytest.raises(StoreFailed, match="surrogate"):
        store.add(replace(GRANT, object="\ud800"))
    assert store.list() == ()
    store.add(GRANT)


def test_after_the_end_nothing_is_answered(path: Path) -> None:
    store = opened(path)
    store.close()
    store.close()
    with pytest.raises(StoreFailed, match="closed"):
        store.find("user", "sha256:1")


FULL_DISK = """
import resource, signal, sys
from dataclasses import replace
from dragoman.host.grants import GrantStore, StoreFailed
from tests.host.test_grants import UNLIMITED
store = GrantStore(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
kept, refused = [], 0
for number in range(200):
    try:
        store.add(replace(UNLIMITED, id=f"g{number:03}", note="x" * 500))
        kept.append(f"g{number:03}")
    except StoreFailed:
        refused += 1
held = [grant.id for grant in store.list()]
assert held == kept, f"in memory is {sorted(set(held) ^ set(kept))} besides what was kept"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.add(replace(UNLIMITED, id="later"))
store.close()
print(refused, *kept, "later")
"""


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_on_a_full_disk_what_was_kept_stays_and_the_rest_is_refused(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    refused, *kept = done.stdout.split()
    assert int(refused) > 0
    assert len(kept) > 2
    with GrantStore(path) as store:
        assert sorted(grant.id for grant in store.list()) == kept


def test_two_projects_may_each_have_a_server_of_one_name(store: GrantStore, tmp_path: Path) -> None:
    store.set_identity("fs", "sha256:1", project=tmp_path / "one")
    store.set_identity("fs", "sha256:2", project=tmp_path / "two")
    assert store.last_identity("fs", tmp_path / "one") == ("sha256:1", ())
    assert store.last_identity("fs", tmp_path / "two") == ("sha256:2", ())
    assert store.last_identity("fs") is None
