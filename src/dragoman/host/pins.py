"""Pins: what of a server's definitions was reviewed, and how what it offers now compares.

Three things are remembered of a definition: its digest in the user's own store; in the project's
`dragoman.lock`, which is there to be committed; and its text in the state folder, so that a
difference can be shown. A lock file counts only when the project is trusted, since whoever ships
the server's settings ships the lock as well; then, for the servers it has, it counts alone.

A definition that is renamed is one that is gone and one that is new: nothing passes on.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from dragoman.errors import Misconfigured
from dragoman.host.canonical import digest, digest_of_bytes
from dragoman.host.definitions import PINNED, Definition
from dragoman.host.grants import StoreFailed, StoreHeld
from dragoman.host.identity import ServerIdentity
from dragoman.host.kinds import Code, Denied, Problem, Risk
from dragoman.host.located import Located, read_located
from dragoman.host.locks import LOCK_WAIT_S, FileLock, LockTimeout
from dragoman.host.state import StateDir, open_private
from dragoman.model.unseen import json_text, one_line

__all__ = [
    "LOCK_NAME",
    "Pin",
    "PinFile",
    "PinReport",
    "PinRulesLike",
    "PinState",
    "PinStore",
    "PinsFailed",
    "PinnedServer",
    "Pins",
    "ReviewedTexts",
    "manifest_of",
]

log = logging.getLogger("dragoman.host")

LOCK_NAME = "dragoman.lock"
VERSION = 1

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

# 1,000 lines on each side: comparing them costs up to their product; longer texts are shown whole.
MAX_COMPARED_LINES = 1_000
# 2,000,000 pairs of lines, two such texts, are a tenth of a second: what one review may take. The
# host stands still meanwhile, and a server could change all of its definitions.
MAX_COMPARED_PAIRS = 2_000_000
# 256 KiB of changed definitions are laid out for people at once; `diff` has them all.
MAX_SHOWN_BYTES = 256 * 1024


class PinsFailed(StoreFailed):
    """A lock file or the text of a definition could not be written: `.path`, `.reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.args = (f"{path} cannot be written: {reason}",)


class _PinsHeld(PinsFailed, StoreHeld):
    """Another process is writing the lock file just now."""


class PinState(StrEnum):
    """How a definition compares with what was reviewed."""

    MATCH = "match"
    NEW = "new"
    CHANGED = "changed"
    GONE = "gone"


class PinStore(Protocol):
    """Where the user's own pins are; see `dragoman.host.grants.GrantStore`."""

    def pins_of(self, identity: str) -> Mapping[str, str]:
        """Key to full digest."""

    def accept_pins(
        self, identity: str, pins: Mapping[str, str], *, gone: Iterable[str] = ()
    ) -> None:
        """Add these, and forget those that are gone."""


class PinRulesLike(Protocol):
    """What policy says of pins; see `dragoman.host.policy.PinRules`."""

    @property
    def mode(self) -> Literal["strict", "warn", "frozen"]:
        """What happens when a definition has changed."""

    @property
    def new_tools(self) -> Literal["hide", "ask"]:
        """What happens when there is a new one."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One reviewed definition, by its two digests."""

    contract: str
    full: str


@dataclass(frozen=True, slots=True)
class PinnedServer:
    """What the lock file has of one server; `identity` is its portable digest."""

    identity: str
    definitions: Mapping[str, Pin]

    @property
    def manifest(self) -> str:
        """One digest over all of them."""
        return manifest_of({key: pin.full for key, pin in self.definitions.items()})


def manifest_of(pins: Mapping[str, str]) -> str:
    """One digest over a server's definitions, given as key to full digest."""
    return digest(dict(pins))


# --- the lock file --------------------------------------------------------------------------------


class PinFile:
    """A project's `dragoman.lock`: sorted and a line for each thing, so that changes read well."""

    def __init__(self, path: Path, *, guard: Path | None = None) -> None:
        self.path = path
        # Where two processes that write it wait for each other; not beside it, in the project.
        self._guard = guard

    def read(self) -> dict[str, PinnedServer]:
        """What it has of each server; nothing when there is no file. Raises as `load`."""
        return self.load()[1]

    def load(self) -> tuple[str, dict[str, PinnedServer]]:
        """The digest of its bytes, and what it has; "" and nothing when there is no file.

        Raises:
            Misconfigured: it is no lock file of ours, or one that was edited; "FILE:LINE: ...".
        """
        if not self.path.exists():
            return "", {}
        try:
            located = read_located(self.path)
        except Misconfigured:
            if self._has_conflict():
                raise Misconfigured(
                    f"{self.path}: it holds a merge conflict; take either side, then review and"
                    " pin what the servers offer now"
                ) from None
            raise
        return located.digest, _read_lock(located)

    def write(
        self,
        alias: str,
        server: PinnedServer | None,
        *,
        expected: str | None = None,
        at_once: bool = False,
    ) -> str:
        """Put one server's pins in place, and leave the others as they are; None takes it out.

        The file is whole at any moment, and keeps its mode. Returns the digest of its bytes now;
        `expected` is the one it must have before. With `at_once`, nobody is waited for.

        Raises:
            Misconfigured: what is there is no lock file, or another one than was expected.
            PinsFailed: it cannot be written; then it is as it was. StoreHeld as well, where another
                process is at it.
        """
        try:
            if self._guard is None:
                return self._write(alias, server, expected)
            guard = FileLock(self._guard, wait_s=0.0 if at_once else LOCK_WAIT_S)
            with closing(guard), guard:
                return self._write(alias, server, expected)
        except LockTimeout:
            raise _PinsHeld(self.path, "another process is writing it") from None
        except OSError as error:
            raise PinsFailed(self.path, error.strerror or str(error)) from None

    def changed(self) -> Misconfigured:
        """The error for a file that is not the one that was trusted."""
        return Misconfigured(
            f"{self.path} was changed by somebody else while the host runs: look at it, trust the"
            " project again, and start anew"
        )

    def _write(self, alias: str, server: PinnedServer | None, expected: str | None) -> str:
        found, servers = self.load()
        if expected not in (None, found):
            raise self.changed()
        servers.pop(alias, None)
        if server is not None:
            servers[alias] = server
        whole = {
            "version": VERSION,
            "servers": {
                name: {
                    "identity": one.identity,
                    "manifest": one.manifest,
                    "definitions": {
                        key: {"contract": pin.contract, "full": pin.full}
                        for key, pin in one.definitions.items()
                    },
                }
                for name, one in servers.items()
            },
        }
        text = json.dumps(whole, indent=2, sort_keys=True) + "\n"
        # Through a link to the file behind it, whose place and name stay.
        path = Path(os.path.realpath(self.path))
        # A new one is to be committed: readable by all, as sources are.
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
        _replace(path, text.encode(), mode)
        return digest_of_bytes(text.encode())

    def _has_conflict(self) -> bool:
        try:
            return bool(re.search(rb"(?m)^(<{7}|>{7}) ", self.path.read_bytes()))
        except OSError:
            return False


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file so that it is the old or the new one, whatever happens. Raises OSError."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if hasattr(os, "fchmod"):
                os.fchmod(fd, mode)
            os.fsync(fd)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read_lock(located: Located) -> dict[str, PinnedServer]:
    whole = located.value
    if not isinstance(whole, dict) or "version" not in whole:
        raise located.fault((), "this is no lock file of dragoman")
    if whole["version"] != VERSION:
        raise located.fault(
            ("version",),
            f"this lock file has version {whole['version']!r}; version {VERSION} is known here",
        )
    _expect(located, (), {"version", "servers"})
    servers = whole["servers"]
    if not isinstance(servers, dict):
        raise located.fault(("servers",), "'servers' must be an object")
    found = {}
    for alias, one in servers.items():
        at = ("servers", alias)
        _expect(located, at, {"identity", "manifest", "definitions"})
        definitions = one["definitions"]
        if not isinstance(definitions, dict):
            raise located.fault((*at, "definitions"), "'definitions' must be an object")
        pins = {}
        for key, pin in definitions.items():
            here = (*at, "definitions", key)
            _expect(located, here, {"contract", "full"})
            pins[key] = Pin(
                _digest_at(located, (*here, "contract"), pin["contract"]),
                _digest_at(located, (*here, "full"), pin["full"]),
            )
        server = PinnedServer(_digest_at(located, (*at, "identity"), one["identity"]), pins)
        if one["manifest"] != server.manifest:
            raise located.fault(
                (*at, "manifest"),
                f"the manifest of {alias!r} does not fit its definitions: the file was edited or"
                " merged; review and pin what the server offers now",
            )
        found[alias] = server
    return found


def _expect(located: Located, at: tuple[str | int, ...], members: set[str]) -> None:
    value = located.value
    for step in at:
        value = value[step]
    if not isinstance(value, dict):
        raise located.fault(at, f"{at[-1]!r} must be an object")
    if missing := sorted(members - value.keys()):
        raise located.fault(at, f"{missing[0]!r} is missing")
    if unknown := sorted(value.keys() - members):
        near = difflib.get_close_matches(unknown[0], sorted(members), n=1)
        hint = f"; is {near[0]!r} meant?" if near else ""
        raise located.fault((*at, unknown[0]), f"{unknown[0]!r} is not known here{hint}")


def _digest_at(located: Located, at: tuple[str | int, ...], value: Any) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise located.fault(at, f"{at[-1]!r} must be 'sha256:' and 64 hexadecimal digits")
    return value


# --- the texts ------------------------------------------------------------------------------------


class ReviewedTexts:
    """The texts of what was reviewed, each in a file named by its digest, mode 0600."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, definition: Definition) -> None:
        """Keep one. PinsFailed when it cannot be written."""
        path = self._path(definition.full)
        try:
            if path.exists() and self.get(definition.full) is not None:
                return
            _replace(path, definition.text, 0o600)
        except OSError as error:
            raise PinsFailed(path, error.strerror or str(error)) from None

    def get(self, full: str) -> Any:
        """The definition with that digest as plain JSON; None when it is not there, or another."""
        try:
            fd = open_private(self._path(full), os.O_RDONLY)
        except (OSError, Misconfigured):
            return None
        with os.fdopen(fd, "rb") as file:
            text = file.read()
        return json.loads(text) if digest_of_bytes(text) == full else None

    def _path(self, full: str) -> Path:
        if not _DIGEST.fullmatch(full):
            raise ValueError(f"{full!r} is no digest")
        return self.folder / f"{full.removeprefix('sha256:')}.json"


# --- the comparison -------------------------------------------------------------------------------


class _Known:
    """What was reviewed of one server, wherever that is remembered."""

    def __init__(
        self,
        pins: Mapping[str, str],
        session: Mapping[str, Definition],
        locked: PinnedServer | None,
    ) -> None:
        self.pins = pins
        self.session = session
        self.locked = locked
        # By key, the digests that count; a yes for this session stands beside what is remembered.
        self.accepted: dict[str, set[str]] = {key: {full} for key, full in pins.items()}
        for key, one in session.items():
            self.accepted.setdefault(key, set()).add(one.full)

    def state_of(self, definition: Definition) -> PinState:
        """How one definition compares; a kind that is not pinned always matches."""
        if definition.kind not in PINNED:
            return PinState.MATCH
        accepted = self.accepted.get(definition.key)
        if accepted is None:
            return PinState.NEW
        return PinState.MATCH if definition.full in accepted else PinState.CHANGED


@dataclass(frozen=True, kw_only=True, slots=True)
class PinReport:
    """How what a server offers compares with what was reviewed of it.

    `is_first` says that nothing of it was reviewed yet. `states` has each definition by its key,
    those that are gone included; where two have one key and differ, it is CHANGED.
    `to_review` are the keys a person may be asked about: new ones that are fit for use.
    `manifest` is the digest over all that it offers, `is_manifest_pinned` whether that is exactly
    what was reviewed. `fault` is what stands against all of it.
    """

    server: str
    mode: Literal["strict", "warn", "frozen"] = "strict"
    new_tools: Literal["hide", "ask"] = "hide"
    is_first: bool = False
    states: Mapping[str, PinState] = field(default_factory=dict)
    to_review: frozenset[str] = frozenset()
    manifest: str = ""
    is_manifest_pinned: bool = False
    fault: Problem | None = None
    _known: _Known = field(repr=False)
    _changes: Mapping[str, str] = field(default_factory=dict, repr=False)
    _diffs: Mapping[str, str] = field(default_factory=dict, repr=False)

    def state_of(self, definition: Definition) -> PinState:
        """How one definition compares; a kind that is not pinned always matches."""
        return self._known.state_of(definition)

    def problems_of(self, definition: Definition) -> tuple[Problem, ...]:
        """Why the pins forbid to use it; none when they do not."""
        found = [] if self.fault is None else [self.fault]
        state = self.state_of(definition)
        what = _named(definition)
        if state is PinState.NEW:
            found.append(
                Problem(
                    code=Code.PIN_UNKNOWN,
                    text=f"{what} of {self.server!r} was not reviewed; look at it, then: "
                    f"dragoman host pin {self.server}",
                )
            )
        elif state is PinState.CHANGED and self.mode != "warn":
            found.append(
                Problem(
                    code=Code.PIN_CHANGED,
                    text=f"{what} of {self.server!r} is not what was reviewed:"
                    f" {self._changes.get(definition.key, 'it has changed')}",
                    diff=self._diffs.get(definition.key, ""),
                )
            )
        return tuple(found)

    def risks_of(self, definition: Definition) -> tuple[Risk, ...]:
        """What a person should know of it: a change, where policy only warns of changes."""
        if self.mode != "warn" or self.state_of(definition) is not PinState.CHANGED:
            return ()
        change = self._changes.get(definition.key, "it has changed")
        return (Risk(code="pin_changed", text=f"it is not what was reviewed: {change}"),)

    @property
    def needs_review(self) -> bool:
        """Whether the person is to be asked about what is new."""
        if self.mode == "frozen" or self.fault is not None or not self.to_review:
            return False
        return self.is_first or self.new_tools == "ask"

    @property
    def summary(self) -> str:
        """What is held back or gone, in a few words; "" when all is as it was reviewed."""
        counts = [list(self.states.values()).count(state) for state in PinState]
        _, new, changed, gone = counts
        parts = [] if self.fault is None else [self.fault.text]
        if new:
            parts.append(f"{new} new, hidden until reviewed")
        if changed:
            parts.append(f"{changed} changed, {'flagged' if self.mode == 'warn' else 'blocked'}")
        if gone:
            parts.append(f"{gone} gone")
        return "; ".join(parts)


class Pins:
    """What was reviewed of every server, wherever it is remembered."""

    def __init__(
        self,
        store: PinStore,
        *,
        texts: ReviewedTexts | None = None,
        lock: PinFile | None = None,
        is_lock_trusted: bool = False,
        mode: Literal["strict", "warn", "frozen"] = "strict",
        new_tools: Literal["hide", "ask"] = "hide",
    ) -> None:
        self.mode = mode
        self.new_tools = new_tools
        self.lock = lock
        self.is_lock_trusted = is_lock_trusted
        self._store = store
        self._texts = texts
        # What was trusted are these bytes: a lock file that changes while we run is another one.
        self._trusted = lock.load()[0] if lock is not None and is_lock_trusted else None
        # What holds until the host ends, by identity and key.
        self._session: dict[str, dict[str, Definition]] = {}

    @classmethod
    def open(
        cls,
        *,
        folder: Path,
        state: StateDir,
        grants: PinStore,
        rules: PinRulesLike,
        is_lock_trusted: bool,
    ) -> Pins:
        """The pins of a project in `folder`.

        Raises:
            Misconfigured: its lock file is trusted, and is none; "FILE:LINE: ...".
        """
        lock = PinFile(folder / LOCK_NAME, guard=state.path / "pins.guard")
        return cls(
            grants,
            texts=ReviewedTexts(state.definitions),
            lock=lock,
            is_lock_trusted=is_lock_trusted,
            mode=rules.mode,
            new_tools=rules.new_tools,
        )

    def review(self, identity: ServerIdentity, definitions: Iterable[Definition]) -> PinReport:
        """Compare everything a server offers with what was reviewed.

        Raises:
            Misconfigured: a trusted lock file was changed meanwhile, and not by us.
            StoreFailed: the store cannot be read.
        """
        offered = [one for one in definitions if one.kind in PINNED]
        known = self._known(identity)
        states: dict[str, PinState] = {}
        changes: dict[str, str] = {}
        diffs: dict[str, str] = {}
        twice: set[str] = set()
        effort = _Effort()
        for one in offered:
            state = known.state_of(one)
            if state is PinState.CHANGED:
                changes[one.key] = self._change(known, one)
                diffs[one.key] = (
                    self._difference(known, one.key, one, effort)
                    if effort.takes(len(one.text))
                    else f"{one_line(one.key, 200)}: see dragoman host diff {identity.alias}"
                )
            if one.key in states:
                twice.add(one.key)
                state = state if states[one.key] is state else PinState.CHANGED
            states[one.key] = state
        states |= dict.fromkeys(known.accepted.keys() - states.keys(), PinState.GONE)
        if known.locked is not None:
            self._keep_texts(one for one in offered if states[one.key] is PinState.MATCH)
        return PinReport(
            server=identity.alias,
            mode=self.mode,
            new_tools=self.new_tools,
            is_first=not known.accepted and known.locked is None,
            states=states,
            to_review=frozenset(
                one.key
                for one in offered
                if states[one.key] is PinState.NEW and not one.problems and one.key not in twice
            ),
            manifest=manifest_of({one.key: one.full for one in offered}),
            is_manifest_pinned=not twice
            and all(state is PinState.MATCH for state in states.values()),
            fault=_identity_fault(identity, known.locked, self.lock),
            _known=known,
            _changes=changes,
            _diffs=diffs,
        )

    def accept(
        self,
        identity: ServerIdentity,
        definitions: Sequence[Definition],
        *,
        session_only: bool = False,
        is_all: bool = False,
        at_once: bool = False,
    ) -> PinReport:
        """Take these definitions as reviewed; returns how they compare now.

        What else was reviewed stays so, unless these are all there are (`is_all`). One that has no
        digest, or a name that two have, is left out. A lock file that is there and trusted gets
        them as well, except with `session_only`. With `at_once`, no other process is waited for,
        but fails as StoreHeld: for `GrantStore.in_turn`.

        Raises:
            Denied: pins are frozen.
            StoreFailed: they cannot be kept; then none of them is accepted.
            Misconfigured: the lock file was changed meanwhile, and not by us.
        """
        if self.mode == "frozen":
            raise Denied(
                Code.PIN_CHANGED,
                f"pinning what {identity.alias} offers",
                "pins are frozen by policy: nothing new is accepted here",
                server=identity.alias,
            )
        chosen = _once(definitions)
        if session_only:
            held = self._session.setdefault(identity.digest, {})
            if is_all:
                held.clear()
            held |= chosen
            return self.review(identity, definitions)
        locked = self._locked(identity)
        if self._texts is not None:
            # First of all: a pin without its text could never show what changed.
            for one in chosen.values():
                self._texts.keep(one)
        is_locking = self.lock is not None and self.is_lock_trusted and self.lock.path.exists()
        if is_locking:
            # What was reviewed of other settings says nothing of these.
            is_same = locked is not None and locked.identity == identity.portable
            kept = dict(locked.definitions) if locked is not None and is_same else {}
            self._lock(identity, {} if is_all else kept, chosen, at_once)
        try:
            before = self._store.pins_of(identity.digest)
            self._store.accept_pins(
                identity.digest,
                {key: one.full for key, one in chosen.items()},
                gone=before.keys() - chosen.keys() if is_all else (),
            )
        except StoreFailed:
            if self.lock is not None and is_locking:
                self._write(identity, locked)
            raise
        held = self._session.get(identity.digest, {})
        for key in chosen:
            held.pop(key, None)
        return self.review(identity, definitions)

    def write_lock(
        self,
        identity: ServerIdentity,
        definitions: Sequence[Definition],
        *,
        at_once: bool = False,
    ) -> None:
        """Put what of these was reviewed into the project's lock file, which is made if need be.

        `at_once` and what it raises: as `accept`.
        """
        if self.lock is None or self.mode == "frozen":
            raise Denied(
                Code.PIN_CHANGED,
                f"locking what {identity.alias} offers",
                "pins are frozen by policy" if self.lock is not None else "there is no lock file",
                server=identity.alias,
            )
        report = self.review(identity, definitions)
        chosen = {
            key: one
            for key, one in _once(definitions).items()
            if report.state_of(one) is PinState.MATCH
        }
        self._lock(identity, {}, chosen, at_once)

    def diff(
        self,
        identity: ServerIdentity,
        definitions: Sequence[Definition],
        name: str | None = None,
    ) -> str:
        """What changed since the review, as unified diffs of indented JSON; "" when nothing did.

        `name` is one definition's name or key, None is all of them. Unseen characters are escaped.
        """
        known = self._known(identity)
        offered = [one for one in definitions if one.kind in PINNED]
        effort = _Effort()
        parts = [
            self._difference(known, one.key, one, effort)
            for one in offered
            if name in (None, one.name, one.key) and known.state_of(one) is not PinState.MATCH
        ]
        gone = sorted(known.accepted.keys() - {one.key for one in offered})
        parts += [
            self._difference(known, key, None, effort)
            for key in gone
            if name in (None, key, key.partition("/")[2])
        ]
        return "\n".join(parts)

    def reviewed(self, identity: ServerIdentity, key: str) -> Definition | None:
        """The definition of that key which was reviewed; None where there is none or no text of it.

        Raises:
            Misconfigured: a trusted lock file was changed meanwhile, and not by us.
            StoreFailed: the store cannot be read.
        """
        return self._old(self._known(identity), key)

    def _locked(self, identity: ServerIdentity) -> PinnedServer | None:
        if self.lock is None or not self.is_lock_trusted:
            return None
        found, servers = self.lock.load()
        if found != self._trusted:
            raise self.lock.changed()
        return servers.get(identity.alias)

    def _known(self, identity: ServerIdentity) -> _Known:
        locked = self._locked(identity)
        if locked is not None:
            pins: Mapping[str, str] = {key: pin.full for key, pin in locked.definitions.items()}
        else:
            pins = self._store.pins_of(identity.digest)
        return _Known(pins, self._session.get(identity.digest, {}), locked)

    def _old(self, known: _Known, key: str) -> Definition | None:
        """The definition that was reviewed, where its text is kept."""
        full = known.pins.get(key)
        if full is None or self._texts is None:
            return known.session.get(key)
        raw = self._texts.get(full)
        return None if raw is None else Definition.of(key.partition("/")[0], raw)

    def _keep_texts(self, definitions: Iterable[Definition]) -> None:
        """Keep what another machine's review let through: its next change is to be shown here."""
        if self._texts is None:
            return
        try:
            for one in definitions:
                self._texts.keep(one)
        except StoreFailed as error:
            log.warning("a later change could not be shown: %s", error)

    def _change(self, known: _Known, now: Definition) -> str:
        """What changed, in a few words of ours."""
        if not now.full:
            return "it can no longer be read"
        pin = None if known.locked is None else known.locked.definitions.get(now.key)
        old = self._old(known, now.key)
        before = pin.contract if pin is not None else old.contract if old is not None else None
        if before is None:
            return "it has changed"
        if before == now.contract:
            return "its words have changed, what it takes and gives has not"
        return "what it takes or gives has changed"

    def _difference(self, known: _Known, key: str, now: Definition | None, effort: _Effort) -> str:
        old = self._old(known, key)
        if old is None and key in known.accepted:
            return f"{one_line(key, 200)}: the text that was reviewed is not kept here"
        if now is not None and not now.full:
            return f"{one_line(key, 200)}: it can no longer be read"
        return _unified(key, old, now, effort)

    def _lock(
        self,
        identity: ServerIdentity,
        kept: dict[str, Pin],
        chosen: Mapping[str, Definition],
        at_once: bool,
    ) -> None:
        kept |= {key: Pin(one.contract, one.full) for key, one in chosen.items()}
        self._write(identity, PinnedServer(identity.portable, kept), at_once)

    def _write(
        self, identity: ServerIdentity, server: PinnedServer | None, at_once: bool = False
    ) -> None:
        assert self.lock is not None
        written = self.lock.write(identity.alias, server, expected=self._trusted, at_once=at_once)
        if self._trusted is not None:
            self._trusted = written


def _once(definitions: Sequence[Definition]) -> dict[str, Definition]:
    """Those that can be pinned: with a digest, and a key that nothing else has."""
    found: dict[str, Definition] = {}
    twice: set[str] = set()
    for one in definitions:
        if one.kind not in PINNED or not one.full:
            continue
        if one.key in found and found[one.key].full != one.full:
            twice.add(one.key)
        found[one.key] = one
    return {key: one for key, one in found.items() if key not in twice}


def _identity_fault(
    identity: ServerIdentity, locked: PinnedServer | None, lock: PinFile | None
) -> Problem | None:
    if locked is None or lock is None or locked.identity == identity.portable:
        return None
    return Problem(
        code=Code.IDENTITY_CHANGED,
        text=f"the server {identity.alias!r} is not the one that {lock.path.name} was made for: its"
        " settings have changed since",
    )


class _Effort:
    """What comparing may cost, all in all."""

    __slots__ = ("_bytes", "_pairs")

    def __init__(self) -> None:
        self._bytes = MAX_SHOWN_BYTES
        self._pairs = MAX_COMPARED_PAIRS

    def takes(self, size: int) -> bool:
        """Whether so many bytes may still be laid out; then they are counted."""
        self._bytes -= size
        return self._bytes >= 0

    def compares(self, before: int, after: int) -> bool:
        """Whether so many lines may still be compared with so many; then they are counted."""
        if max(before, after) > MAX_COMPARED_LINES or before * after > self._pairs:
            return False
        self._pairs -= before * after
        return True


def _unified(key: str, old: Definition | None, now: Definition | None, effort: _Effort) -> str:
    shown = one_line(key, 200)
    before, after = _lines(old), _lines(now)
    head = 0
    while head < min(len(before), len(after)) and before[head] == after[head]:
        head += 1
    if not effort.compares(len(before) - head, len(after) - head):
        lines = [f"@@ -{head + 1} +{head + 1} @@"]
        lines += [f"-{line}" for line in before[head:]] + [f"+{line}" for line in after[head:]]
    else:
        lines = list(difflib.unified_diff(before, after, lineterm=""))[2:]
    return "\n".join([f"--- {shown} (reviewed)", f"+++ {shown} (now)", *lines])


def _lines(definition: Definition | None) -> list[str]:
    if definition is None or not definition.text:
        return []
    # In canonical order, so that the order in which a server writes members shows nowhere.
    return json_text(json.loads(definition.text)).splitlines()


def _named(definition: Definition) -> str:
    if definition.kind == "instructions":
        return "the instructions"
    return f"the {definition.kind.replace('_', ' ')} '{one_line(definition.name, 80)}'"
