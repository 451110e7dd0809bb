"""What was reviewed and what is offered: attacks 8 to 14, and the lock file."""

from __future__ import annotations

import copy
import difflib
import itertools
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.errors import Misconfigured
from dragoman.host.definitions import Definition
from dragoman.host.grants import GrantStore, StoreFailed
from dragoman.host.identity import ServerIdentity
from dragoman.host.kinds import Code, Denied
from dragoman.host.pins import (
    LOCK_NAME,
    MAX_COMPARED_PAIRS,
    Pin,
    PinFile,
    PinnedServer,
    PinReport,
    Pins,
    PinState,
    ReviewedTexts,
    manifest_of,
)
from dragoman.host.policy import PinRules
from dragoman.host.state import StateDir

IDENTITY = ServerIdentity(
    alias="fs", digest="sha256:" + "1" * 64, portable="sha256:" + "a" * 64, lines=()
)
OTHER = ServerIdentity(
    alias="fs", digest="sha256:" + "2" * 64, portable="sha256:" + "b" * 64, lines=()
)


def tool(name: str = "read", **changes: Any) -> Definition:
    raw = {
        "name": name,
        "description": "Reads.",
        "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}}},
    }
    return Definition.of("tool", raw | changes)


def instructions(text: str) -> Definition:
    return Definition.of("instructions", {"text": text})


OFFERED = [
    tool("read"),
    tool("list"),
    Definition.of("prompt", {"name": "ask", "arguments": [{"name": "a"}]}),
    Definition.of("resource_template", {"uriTemplate": "a:{x}", "name": "t"}),
    instructions("Be kind."),
]


class Desk:
    """Everything a host has for its pins, in real files."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        self.state = StateDir(folder / "state")
        self.grants = GrantStore(self.state.grants)
        self.lock = self.project / LOCK_NAME

    def pins(self, *, is_trusted: bool = False, **rules: Any) -> Pins:
        return Pins.open(
            folder=self.project,
            state=self.state,
            grants=self.grants,
            rules=PinRules(**rules),
            is_lock_trusted=is_trusted,
        )

    def elsewhere(self, folder: Path) -> Desk:
        """The same project on another machine, by its lock file."""
        other = Desk(folder)
        other.lock.write_bytes(self.lock.read_bytes())
        return other


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.grants.close()


def codes(report: PinReport, definition: Definition) -> list[Code]:
    return [problem.code for problem in report.problems_of(definition)]


# --- reviewing ------------------------------------------------------------------------------------


def test_nothing_is_known_of_a_server_at_first(desk: Desk) -> None:
    report = desk.pins().review(IDENTITY, OFFERED)
    assert report.is_first
    assert report.needs_review
    assert report.to_review == {one.key for one in OFFERED}
    assert {codes(report, one)[0] for one in OFFERED} == {Code.PIN_UNKNOWN}
    assert report.summary == "5 new, hidden until reviewed"


def test_what_was_accepted_matches_in_whatever_order_it_comes_and_after_a_restart(
    desk: Desk,
) -> None:
    desk.pins().accept(IDENTITY, OFFERED)
    for offered in itertools.permutations(OFFERED, len(OFFERED)):
        turned = [Definition.of(one.kind, dict(reversed(one.raw.items()))) for one in offered]
        report = desk.pins().review(IDENTITY, turned)
        assert set(report.states.values()) == {PinState.MATCH}
        assert report.is_manifest_pinned
        assert (report.summary, report.needs_review, report.is_first) == ("", False, False)
        assert not any(report.problems_of(one) for one in turned)


@pytest.mark.parametrize(
    "changed",
    [
        tool("read", description="Reads. Then mails."),
        tool("read", description="Reads.\U000e0041"),
        tool("read", inputSchema={"type": "object"}),
        tool("read", annotations={"readOnlyHint": True}),
        tool("read", title="Read"),
        tool("read", _meta={"a": 1}),
        tool("read", **{"x-own": None}),
        instructions("Be unkind."),
        Definition.of("prompt", {"name": "ask", "arguments": []}),
        Definition.of("resource_template", {"uriTemplate": "a:{x}", "name": "u"}),
    ],
    ids=lambda one: one.text.decode()[:70].encode("ascii", "replace").decode(),
)
def test_a_change_of_any_kind_is_blocked_with_a_difference(desk: Desk, changed: Definition) -> None:
    """Attacks 9, 10, 11 and 12."""
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    offered = [changed if one.key == changed.key else one for one in OFFERED]
    report = pins.review(IDENTITY, offered)
    assert report.states[changed.key] is PinState.CHANGED
    assert not report.is_manifest_pinned
    (problem,) = report.problems_of(changed)
    assert problem.code is Code.PIN_CHANGED
    assert f"--- {changed.key} (reviewed)" in problem.diff
    assert [line for line in problem.diff.splitlines() if line[:1] in "+-"][2:]
    assert problem.diff.isascii() or "\U000e0041" not in problem.diff
    # Only that one: the rest is as it was.
    rest = [one for one in offered if one.key != changed.key]
    assert not any(report.problems_of(one) for one in rest)
    assert report.summary == "1 changed, blocked"
    assert changed.key not in report.to_review


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (tool("read", description="Other."), "words have changed"),
        (tool("read", inputSchema={"type": "object"}), "takes or gives"),
        (tool("read", title=float("nan")), "no longer be read"),
    ],
)
def test_a_change_of_words_is_told_from_one_of_the_contract(
    desk: Desk, changed: Definition, words: str
) -> None:
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    (problem,) = pins.review(IDENTITY, [changed]).problems_of(changed)
    assert words in problem.text


def test_a_new_tool_is_hidden_until_it_is_reviewed(desk: Desk) -> None:
    """Attack 13."""
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    new = tool("delete_all")
    report = pins.review(IDENTITY, [*OFFERED, new])
    assert codes(report, new) == [Code.PIN_UNKNOWN]
    assert not report.needs_review
    assert report.to_review == {"tool/delete_all"}
    assert desk.pins(new_tools="ask").review(IDENTITY, [*OFFERED, new]).needs_review
    assert not pins.accept(IDENTITY, [new]).problems_of(new)
    assert not pins.review(IDENTITY, [*OFFERED, new]).summary


def test_a_tool_that_comes_back_under_another_name_is_new(desk: Desk) -> None:
    """Attack 14."""
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    renamed = Definition.of("tool", {**tool("read").raw, "name": "reed"})
    report = pins.review(IDENTITY, [renamed, *OFFERED[1:]])
    assert report.states["tool/read"] is PinState.GONE
    assert report.states["tool/reed"] is PinState.NEW
    assert codes(report, renamed) == [Code.PIN_UNKNOWN]
    assert report.summary == "1 new, hidden until reviewed; 1 gone"


def test_a_tool_is_no_prompt_of_the_same_name(desk: Desk) -> None:
    pins = desk.pins()
    pins.accept(IDENTITY, [Definition.of("tool", {"name": "x"})])
    prompt = Definition.of("prompt", {"name": "x"})
    assert codes(pins.review(IDENTITY, [prompt]), prompt) == [Code.PIN_UNKNOWN]


def test_a_server_with_another_identity_starts_from_nothing(desk: Desk) -> None:
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    report = pins.review(OTHER, OFFERED)
    assert report.is_first
    assert {codes(report, one)[0] for one in OFFERED} == {Code.PIN_UNKNOWN}


def test_resources_come_and_go_unpinned(desk: Desk) -> None:
    resource = Definition.of("resource", {"uri": "a:b", "name": "b"})
    pins = desk.pins()
    report = pins.accept(IDENTITY, [resource])
    assert report.states == {}
    assert report.problems_of(resource) == ()


def test_what_is_unfit_is_not_put_up_for_review(desk: Desk) -> None:
    unfit = tool("evil", inputSchema={"$ref": "https://evil.example/"})
    assert desk.pins().review(IDENTITY, [unfit]).to_review == set()


def test_two_definitions_with_one_name_are_neither_reviewed_nor_pinned(desk: Desk) -> None:
    pins = desk.pins()
    one, two = tool("read"), tool("read", description="Another.")
    report = pins.review(IDENTITY, [one, two])
    assert report.to_review == set()
    assert pins.accept(IDENTITY, [one, two]).state_of(one) is PinState.NEW
    pins.accept(IDENTITY, [one])
    for offered in ([one, two], [two, one]):
        report = pins.review(IDENTITY, offered)
        assert report.states["tool/read"] is PinState.CHANGED
        assert codes(report, two) == [Code.PIN_CHANGED]
        assert not report.is_manifest_pinned


def test_a_yes_for_this_session_ends_with_it(desk: Desk) -> None:
    pins = desk.pins()
    report = pins.accept(IDENTITY, OFFERED, session_only=True)
    assert set(report.states.values()) == {PinState.MATCH}
    changed = tool("read", description="Other.")
    assert '-  "description": "Reads.",' in pins.diff(IDENTITY, [changed], "read")
    assert desk.pins().review(IDENTITY, OFFERED).is_first


def test_a_yes_for_this_session_is_replaced_by_one_that_stays(desk: Desk) -> None:
    pins = desk.pins()
    pins.accept(IDENTITY, [tool("read", description="First.")], session_only=True)
    pins.accept(IDENTITY, [tool("read", description="Second.")])
    report = pins.review(IDENTITY, [tool("read", description="First.")])
    assert report.states == {"tool/read": PinState.CHANGED}


def test_accepting_all_forgets_what_is_gone(desk: Desk) -> None:
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    assert pins.accept(IDENTITY, OFFERED[:2]).states["instructions"] is PinState.GONE
    report = pins.accept(IDENTITY, OFFERED[:2], is_all=True)
    assert set(report.states) == {"tool/read", "tool/list"}
    assert pins.review(IDENTITY, OFFERED[:2]).is_manifest_pinned


# --- modes ----------------------------------------------------------------------------------------


def test_a_change_is_only_flagged_where_policy_only_warns(desk: Desk) -> None:
    desk.pins().accept(IDENTITY, OFFERED)
    pins = desk.pins(mode="warn")
    changed, new = tool("read", description="Other."), tool("new")
    report = pins.review(IDENTITY, [changed, new])
    assert report.problems_of(changed) == ()
    assert [risk.code for risk in report.risks_of(changed)] == ["pin_changed"]
    assert codes(report, new) == [Code.PIN_UNKNOWN]
    assert "1 changed, flagged" in report.summary
    strict = desk.pins().review(IDENTITY, [changed])
    assert strict.risks_of(changed) == ()


def test_frozen_pins_take_nothing_new(desk: Desk) -> None:
    desk.pins().accept(IDENTITY, OFFERED)
    pins = desk.pins(mode="frozen", new_tools="ask")
    new = tool("new")
    report = pins.review(IDENTITY, [*OFFERED, new])
    assert codes(report, new) == [Code.PIN_UNKNOWN]
    assert not report.needs_review
    for attempt in (
        lambda: pins.accept(IDENTITY, [new]),
        lambda: pins.accept(IDENTITY, [new], session_only=True),
        lambda: pins.write_lock(IDENTITY, OFFERED),
    ):
        with pytest.raises(Denied) as caught:
            attempt()
        assert caught.value.code is Code.PIN_CHANGED
    assert codes(pins.review(IDENTITY, [new]), new) == [Code.PIN_UNKNOWN]
    assert not pins.review(OTHER, OFFERED).needs_review


# --- differences ----------------------------------------------------------------------------------


def test_a_difference_has_what_was_and_what_is_with_the_unseen_escaped(desk: Desk) -> None:
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    changed = tool("read", description="Reads.\u202e\U000e0041")
    assert pins.diff(IDENTITY, [changed, *OFFERED[1:]]).splitlines() == [
        "--- tool/read (reviewed)",
        "+++ tool/read (now)",
        "@@ -1,5 +1,5 @@",
        " {",
        '-  "description": "Reads.",',
        '+  "description": "Reads.\\u202e\\udb40\\udc41",',
        '   "inputSchema": {',
        '     "properties": {',
        '       "path": {',
    ]
    assert pins.diff(IDENTITY, OFFERED) == ""


def test_a_difference_can_be_asked_for_by_name_and_shows_new_and_gone(desk: Desk) -> None:
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    offered = [tool("new"), *OFFERED[1:]]
    whole = pins.diff(IDENTITY, offered)
    assert '+  "name": "new"' in whole
    assert '-  "name": "read"' in whole
    assert pins.diff(IDENTITY, offered, "read") == pins.diff(IDENTITY, offered, "tool/read")
    assert '"new"' not in pins.diff(IDENTITY, offered, "read")
    assert pins.diff(IDENTITY, offered, "list") == ""


def test_the_difference_of_huge_texts_is_whole_and_takes_no_time(desk: Desk) -> None:
    pins = desk.pins()
    lines = [f"word{n % 7}" for n in range(9_000)]
    pins.accept(IDENTITY, [tool("read", **{"x-list": lines})])
    changed = tool("read", **{"x-list": list(reversed(lines))})
    shown = pins.diff(IDENTITY, [changed])
    assert shown.count("\n-") > 8_900
    assert shown.count("\n+") > 8_900


def test_a_name_cannot_forge_lines_of_a_difference(desk: Desk) -> None:
    evil = tool("x\n+++ tool/read (now)\n+ all is well\x1b[2J")
    shown = desk.pins().diff(IDENTITY, [evil])
    assert "\x1b" not in shown
    assert [line for line in shown.splitlines() if line.startswith("+++")] == [
        "+++ tool/x +++ tool/read (now) + all is well\\x1b[2J (now)"
    ]


def test_a_reviewed_text_that_was_tampered_with_is_not_shown(desk: Desk) -> None:
    pins = desk.pins()
    pins.accept(IDENTITY, OFFERED)
    for path in desk.state.definitions.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.write_text('{"name": "forged"}')
    changed = tool("read", description="Other.")
    assert "is not kept here" in pins.diff(IDENTITY, [changed], "read")
    assert codes(pins.review(IDENTITY, [changed]), changed) == [Code.PIN_CHANGED]


# --- the lock file --------------------------------------------------------------------------------


def locked(desk: Desk) -> Pins:
    """A project that has a lock file."""
    pins = desk.pins(is_trusted=True)
    pins.accept(IDENTITY, OFFERED)
    pins.write_lock(IDENTITY, OFFERED)
    return pins


def test_accepting_makes_no_lock_file_and_keeps_one_that_is_there(desk: Desk) -> None:
    pins = desk.pins(is_trusted=True)
    pins.accept(IDENTITY, OFFERED)
    assert not desk.lock.exists()
    pins.write_lock(IDENTITY, OFFERED)
    pins.accept(IDENTITY, [tool("new")])
    assert set(PinFile(desk.lock).read()["fs"].definitions) == {
        *(one.key for one in OFFERED), "tool/new",
    }  # fmt: skip


def test_a_lock_file_has_only_what_was_reviewed(desk: Desk) -> None:
    pins = desk.pins(is_trusted=True)
    pins.accept(IDENTITY, OFFERED[:1])
    pins.write_lock(IDENTITY, [*OFFERED, tool("evil")])
    assert set(PinFile(desk.lock).read()["fs"].definitions) == {"tool/read"}


def test_a_trusted_lock_file_counts_on_another_machine(desk: Desk, tmp_path: Path) -> None:
    locked(desk)
    (tmp_path / "else").mkdir()
    other = desk.elsewhere(tmp_path / "else")
    # The same file on a machine with other folders: only the portable digest is the same.
    there = ServerIdentity(alias="fs", digest=OTHER.digest, portable=IDENTITY.portable, lines=())
    report = other.pins(is_trusted=True, mode="frozen").review(there, OFFERED)
    assert set(report.states.values()) == {PinState.MATCH}
    assert not any(report.problems_of(one) for one in OFFERED)
    # What it let through was kept, so a later change can be shown.
    changed = tool("read", description="Other.")
    shown = other.pins(is_trusted=True).diff(there, [changed], "read")
    assert '-  "description": "Reads.",' in shown
    other.grants.close()


def test_a_lock_file_of_a_project_that_is_not_trusted_is_nothing(
    desk: Desk, tmp_path: Path
) -> None:
    """Whoever ships a server's settings ships the lock file as well (attack 3)."""
    locked(desk)
    (tmp_path / "else").mkdir()
    other = desk.elsewhere(tmp_path / "else")
    report = other.pins().review(IDENTITY, OFFERED)
    assert report.is_first
    assert set(report.states.values()) == {PinState.NEW}
    other.lock.write_text("broken")
    assert other.pins().review(IDENTITY, OFFERED).is_first
    other.grants.close()


def test_a_trusted_lock_file_wins_over_what_was_accepted_here(desk: Desk) -> None:
    pins = locked(desk)
    desk.grants.accept_pins(IDENTITY.digest, {"tool/new": tool("new").full})
    assert codes(pins.review(IDENTITY, [tool("new")]), tool("new")) == [Code.PIN_UNKNOWN]


def test_a_lock_file_that_somebody_changes_while_we_run_counts_no_more(desk: Desk) -> None:
    """A project is trusted as it was: what `git pull` brings has to be looked at first."""
    pins = locked(desk)
    evil = tool("evil")
    pulled = PinnedServer(IDENTITY.portable, {evil.key: Pin(evil.contract, evil.full)})
    PinFile(desk.lock).write("fs", pulled)
    before = desk.lock.read_bytes()
    for attempt in (
        lambda: pins.review(IDENTITY, [evil]),
        lambda: pins.diff(IDENTITY, [evil]),
        lambda: pins.accept(IDENTITY, [tool("new")]),
        lambda: pins.write_lock(IDENTITY, [evil]),
    ):
        with pytest.raises(Misconfigured, match="was changed by somebody else"):
            attempt()
    assert desk.lock.read_bytes() == before
    assert "tool/new" not in desk.grants.pins_of(IDENTITY.digest)
    desk.lock.unlink()
    with pytest.raises(Misconfigured, match="was changed by somebody else"):
        pins.review(IDENTITY, [evil])


def test_a_lock_file_for_other_settings_stands_against_everything(desk: Desk) -> None:
    pins = locked(desk)
    moved = ServerIdentity(alias="fs", digest=IDENTITY.digest, portable=OTHER.portable, lines=())
    report = pins.review(moved, OFFERED)
    assert {codes(report, one)[0] for one in OFFERED} == {Code.IDENTITY_CHANGED}
    assert not report.needs_review
    # A person who accepts it anew locks it as it is now, and what they accept alone.
    pins.accept(moved, OFFERED[:1])
    report = pins.review(moved, OFFERED)
    assert report.fault is None
    assert codes(report, OFFERED[0]) == []
    assert {codes(report, one)[0] for one in OFFERED[1:]} == {Code.PIN_UNKNOWN}


def test_a_lock_file_is_written_so_that_changes_read_well(desk: Desk) -> None:
    locked(desk)
    text = desk.lock.read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert json.loads(text)["servers"]["fs"]["manifest"] == manifest_of(
        {one.key: one.full for one in OFFERED}
    )
    before = text.splitlines()
    desk.pins(is_trusted=True).accept(IDENTITY, [tool("list", description="Other.")])
    after = desk.lock.read_text().splitlines()
    # One digest of the definition, and the manifest: the contract is the same.
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 2


def test_a_lock_file_keeps_its_mode_its_link_and_the_other_servers(desk: Desk) -> None:
    other = PinnedServer("sha256:" + "c" * 64, {})
    real = desk.project / "real.lock"
    PinFile(real).write("web", other)
    real.chmod(0o640)
    desk.lock.symlink_to(real)
    locked(desk)
    assert desk.lock.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert set(PinFile(real).read()) == {"web", "fs"}
    PinFile(desk.lock).write("fs", None)
    assert set(PinFile(real).read()) == {"web"}
    assert [path.name for path in desk.project.iterdir() if path.name.startswith(".")] == []


A_DIGEST = "sha256:" + "0" * 64
SERVER: dict[str, Any] = {
    "identity": A_DIGEST,
    "manifest": manifest_of({"tool/x": A_DIGEST}),
    "definitions": {"tool/x": {"contract": A_DIGEST, "full": A_DIGEST}},
}


def changed_lock(*way: Any, to: Any) -> str:
    whole: dict[str, Any] = {"version": 1, "servers": {"fs": copy.deepcopy(SERVER)}}
    target: Any = whole
    for step in way[:-1]:
        target = target[step]
    if to is ...:
        del target[way[-1]]
    else:
        target[way[-1]] = to
    return json.dumps(whole, indent=2)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, ""),
        ("[]", 1, "no lock file"),
        ("{}", 1, "no lock file"),
        ('{"version": 1,\n "version": 1, "servers": {}}', 2, "version"),
        (changed_lock("version", to=2), 2, "version 2"),
        (changed_lock("servers", to=[]), 3, "must be an object"),
        (changed_lock("servers", to=...), 1, "'servers' is missing"),
        (changed_lock("server", to={}), None, "is 'servers' meant?"),
        (changed_lock("servers", "fs", to=7), 4, "must be an object"),
        (changed_lock("servers", "fs", "identity", to="x"), 5, "64 hexadecimal"),
        (changed_lock("servers", "fs", "identity", to=...), 4, "'identity' is missing"),
        (changed_lock("servers", "fs", "definitions", to=[]), 7, "must be an object"),
        (changed_lock("servers", "fs", "definitions", "tool/x", to={}), 8, "is missing"),
        (
            changed_lock("servers", "fs", "definitions", "tool/x", "full", to="sha256:" + "1" * 64),
            6,
            "edited or",
        ),
        (changed_lock("servers", "fs", "definitions", "tool/x", to=...), 6, "edited or"),
    ],
    ids=range(15),
)
def test_a_lock_file_that_is_wrong_is_an_error_with_its_line(
    desk: Desk, text: str, line: int | None, words: str
) -> None:
    desk.lock.write_text(text)
    with pytest.raises(Misconfigured) as caught:
        desk.pins(is_trusted=True)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{desk.lock}:{line}: " if line else f"{desk.lock}:")
    # And it is not written over.
    with pytest.raises(Misconfigured):
        PinFile(desk.lock).write("fs", None)
    assert desk.lock.read_text() == text


def test_a_merge_conflict_is_named(desk: Desk) -> None:
    desk.lock.write_text('{\n<<<<<<< ours\n"version": 1\n=======\n>>>>>>> theirs\n}')
    with pytest.raises(Misconfigured, match="merge conflict"):
        desk.pins(is_trusted=True)


# --- faults ---------------------------------------------------------------------------------------


def test_a_lock_file_that_cannot_be_written_refuses_and_accepts_nothing(desk: Desk) -> None:
    locked(desk)
    before = desk.lock.read_bytes()
    lock = PinFile(desk.lock, guard=desk.project / "missing" / "guard")
    pins = Pins(desk.grants, lock=lock, is_lock_trusted=True)
    with pytest.raises(StoreFailed, match="cannot be written"):
        pins.accept(IDENTITY, [tool("new")])
    assert desk.lock.read_bytes() == before
    assert codes(pins.review(IDENTITY, [tool("new")]), tool("new")) == [Code.PIN_UNKNOWN]
    assert "tool/new" not in desk.grants.pins_of(IDENTITY.digest)


def test_texts_that_cannot_be_kept_refuse_and_accept_nothing(desk: Desk) -> None:
    pins = Pins(desk.grants, texts=ReviewedTexts(desk.project / "missing" / "folder"))
    with pytest.raises(StoreFailed, match="cannot be written"):
        pins.accept(IDENTITY, OFFERED)
    assert desk.grants.pins_of(IDENTITY.digest) == {}


def test_a_store_that_fails_leaves_the_lock_file_as_it_was(desk: Desk) -> None:
    pins = locked(desk)
    before = desk.lock.read_bytes()
    desk.grants.close()
    with pytest.raises(StoreFailed):
        pins.accept(IDENTITY, [tool("new")])
    assert desk.lock.read_bytes() == before


_FILLED = """
import resource, sys
from pathlib import Path
from dragoman.host.pins import Pin, PinFile, PinnedServer
from dragoman.host.grants import StoreFailed
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
digest = "sha256:" + "0" * 64
server = PinnedServer(digest, {f"tool/{n}": Pin(digest, digest) for n in range(100)})
try:
    PinFile(Path(sys.argv[1])).write("fs", server)
except StoreFailed as error:
    sys.exit(3)
"""


def test_a_full_disk_leaves_the_lock_file_whole(desk: Desk) -> None:
    PinFile(desk.lock).write("web", PinnedServer(A_DIGEST, {}))
    before = desk.lock.read_bytes()
    done = subprocess.run([sys.executable, "-c", _FILLED, str(desk.lock)], timeout=30)
    assert done.returncode == 3
    assert desk.lock.read_bytes() == before
    assert [path.name for path in desk.project.iterdir()] == [LOCK_NAME]


_WRITER = """
import sys
from pathlib import Path
from dragoman.host.pins import Pin, PinFile, PinnedServer
digest = "sha256:" + "0" * 64
lock = PinFile(Path(sys.argv[1]), guard=Path(sys.argv[2]))
for n in range(8):
    lock.write(f"{sys.argv[3]}{n}", PinnedServer(digest, {"tool/x": Pin(digest, digest)}))
"""


def test_two_processes_that_write_one_lock_file_lose_nothing(desk: Desk) -> None:
    guard = desk.state.path / "pins.guard"
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(desk.lock), str(guard), name])
        for name in "ab"
    ]
    assert [writer.wait(timeout=40) for writer in writers] == [0, 0]
    assert set(PinFile(desk.lock).read()) == {f"{name}{n}" for name in "ab" for n in range(8)}


# --- any order of things --------------------------------------------------------------------------

versions = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2))


class Memory:
    """A store as the contract has it."""

    def __init__(self) -> None:
        self.pins: dict[str, str] = {}

    def pins_of(self, identity: str) -> dict[str, str]:
        return dict(self.pins)

    def accept_pins(self, identity: str, pins: Any, *, gone: Any = ()) -> None:
        for key in gone:
            self.pins.pop(key, None)
        self.pins.update(pins)


@given(st.lists(st.tuples(versions, st.booleans()), max_size=6), versions)
def test_what_matches_is_exactly_what_was_last_accepted(
    accepted: list[tuple[dict[str, int], bool]], offered: dict[str, int]
) -> None:
    def made(those: dict[str, int]) -> list[Definition]:
        return [tool(name, description=f"version {n}") for name, n in those.items()]

    pins = Pins(Memory())
    expected: dict[str, int] = {}
    for those, is_all in accepted:
        pins.accept(IDENTITY, made(those), is_all=is_all)
        expected = dict(those) if is_all else {**expected, **those}
    report = pins.review(IDENTITY, made(offered))
    for name in "abcd":
        was, now = expected.get(name), offered.get(name)
        state = report.states.get(f"tool/{name}")
        if now is None:
            assert state is (None if was is None else PinState.GONE)
        elif was is None:
            assert state is PinState.NEW
        else:
            assert state is (PinState.MATCH if was == now else PinState.CHANGED)
    assert report.is_manifest_pinned == (expected == offered)


def test_a_pin_is_two_digests(desk: Desk) -> None:
    locked(desk)
    (one,) = [one for one in OFFERED if one.key == "tool/read"]
    assert PinFile(desk.lock).read()["fs"].definitions["tool/read"] == Pin(one.contract, one.full)


def test_a_review_compares_no_more_than_people_would_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: list[int] = []
    compare = difflib.unified_diff

    def counting(before: list[str], after: list[str], **options: Any) -> Iterator[str]:
        pairs.append(len(before) * len(after))
        return compare(before, after, **options)

    monkeypatch.setattr("dragoman.host.pins.difflib.unified_diff", counting)

    def offered(turn: int) -> list[Definition]:
        numbers = [turn + 2 * one for one in range(400)]
        return [tool(f"t{one}", title=f"{turn}", numbers=numbers) for one in range(200)]

    pins = desk.pins()
    pins.accept(IDENTITY, offered(0))
    report = pins.review(IDENTITY, offered(1))
    # The head that both have is not compared; here it is one line in a hundred.
    assert 0 < sum(pairs) < 1.1 * MAX_COMPARED_PAIRS
    assert all(codes(report, one) == [Code.PIN_CHANGED] for one in offered(1))
    # What was not laid out then is there for whoever wants it.
    last = report.problems_of(offered(1)[-1])[0].diff
    assert last == "tool/t199: see dragoman host diff fs"
    assert '+  "title": "1"' in pins.diff(IDENTITY, offered(1), "t199")
