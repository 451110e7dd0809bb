"""The audit log: what was decided, written down before it is done, and how it ended.

One JSON object a line, each with the hash of the one before; `dragoman.host.chain` says what the
files look like, and checks and reads them. A record is in the file before the call that writes it
returns: whatever ends this process afterwards, it stays. Several processes may write to one log; on
an event loop, the methods that end in `_in_turn` wait for them without holding it up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from dragoman.errors import Misconfigured
from dragoman.host.chain import MAX_LINE_BYTES, Anchor, LogPaths, VerifyReport, read, verify
from dragoman.host.journal import AuditFailed, AuditHeld, AuditLimits, Journal, set_aside
from dragoman.host.kinds import Decision, Effect, Intent, Verdict
from dragoman.host.locks import InTurn
from dragoman.host.otel import to_otel
from dragoman.host.policy import AuditRules
from dragoman.host.redaction import REDACTED, Redactor, encoded, shape_of, sorted_json
from dragoman.host.state import private_folder

__all__ = [
    "REDACTED",
    "Audit",
    "AuditFailed",
    "AuditLimits",
    "AuditMark",
    "Redactor",
    "VerifyReport",
    "read",
    "set_aside",
    "to_otel",
    "verify",
]

log = logging.getLogger("dragoman.host")

# 4,096 characters: a long URI, a paragraph. What is longer is cut, and says so.
MAX_TEXT = 4_096
# 200 characters of a detail are a name or a sentence; a longer one is content.
MAX_PLAIN = 200
MAX_PLAIN_ITEMS = 32
# 1,024 bits: the largest number that a float reaches. Python refuses to write very long ones.
MAX_BITS = 1_024
# 32 KiB of arguments in full.
MAX_VALUE_BYTES = 32 * 1024
# 1 MiB: describing what is longer would hold up the call for milliseconds.
MAX_LOOKED_AT_BYTES = 1024 * 1024
# 12 levels and 256 items: deeper and longer values are named, not written.
MAX_DEPTH = 12
MAX_ITEMS = 256

Status = Literal["ok", "failed", "refused", "cancelled", "unknown"]

_UNSET: Any = object()

# Our own words: a secret that happens to be one of them does not make a record unreadable.
_OURS = {"kind", "id", "event", "action", "effect", "step", "status", "code", "scope"}


# A Struct rather than a dataclass, which takes several times as long to make: two for every call.
class AuditMark(msgspec.Struct, frozen=True):
    """A record that was written: its number, and the id by which its outcome names it.

    `seq` is 0 where it could not be written and policy says to go on.
    """

    seq: int
    id: str
    at: float = 0.0
    # What an outcome repeats of its decision, so that it is found by the same fields.
    about: Mapping[str, Any] = msgspec.field(default_factory=dict)


class _Fields(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a record may say, in the order in which it does; what says nothing is left out."""

    kind: str
    id: str = ""
    event: str = ""
    trace: str = ""
    session: str = ""
    principal: str = ""
    server: str = ""
    identity: str = ""
    action: str = ""
    object: str = ""
    effect: str = ""
    step: str = ""
    rule: str = ""
    layer: str = ""
    source: str = ""
    code: str = ""
    grant: str = ""
    approval: str = ""
    view_digest: str = ""
    fingerprint: str = ""
    taint: list[str] | None = None
    actor: str = ""
    channel: str = ""
    scope: str = ""
    note: str = ""
    edited: bool | None = None
    status: str = ""
    duration_ms: float | None = None
    error: str = ""
    text: str = ""
    args: dict[str, Any] | None = None
    result: dict[str, str] | None = None
    details: dict[str, Any] | None = None


class _Made(msgspec.Struct):
    """A record to be written: the id it has, if any, when it was made, and its text."""

    id: str
    at: float
    about: Mapping[str, Any]
    body: bytes


_NOTHING: Mapping[str, Any] = {}

_DEFAULTS = AuditRules()


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
        rules: AuditRules = _DEFAULTS,
        *,
        session: str = "",
        redactor: Redactor | None = None,
        sync: Literal["process", "disk"] = "process",
        limits: AuditLimits | None = None,
        on_anchor: Callable[[Anchor], None] | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.path = Path(path)
        self.session = session
        self.redactor = redactor or Redactor()
        # How many records could not be written since the last one that was.
        self.lost = 0
        self._args = rules.args
        self._is_strict = rules.on_write_failure != "warn"
        self._clock = clock
        self._timer = timer
        private_folder(self.path.parent)
        limits = limits or AuditLimits()
        self._turns = InTurn(AuditHeld, wait_s=limits.lock_wait_s)
        # Records that are written although nobody waits for them any more.
        self._pending: set[asyncio.Future[AuditMark]] = set()
        self._log = Journal(
            LogPaths(self.path),
            is_synced="disk" in (sync, rules.sync),
            limits=limits,
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
            log.warning("%s; it goes on unrecorded, as policy says", error)
        except Misconfigured:
            self._log.close()
            raise

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
        return self._append(
            self._decision(
                intent, verdict, payload, trace, session, view_digest, approval, decision, details
            )
        )

    def decision_in_turn(
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
    ) -> Coroutine[Any, Any, AuditMark]:
        """As `decision`. Where its caller is cancelled, a refusal is written all the same."""
        fields = self._decision(
            intent, verdict, payload, trace, session, view_digest, approval, decision, details
        )
        return self._append_in_turn(fields, is_owed=verdict.effect is not Effect.ALLOW)

    def _decision(
        self,
        intent: Intent,
        verdict: Verdict,
        payload: bytes | None,
        trace: str,
        session: str,
        view_digest: str,
        approval: str,
        decision: Decision | None,
        details: Mapping[str, Any],
    ) -> _Fields:
        fields = _Fields(
            kind="decision",
            trace=trace,
            session=session or self.session,
            principal=intent.principal,
            server=intent.server,
            identity=intent.identity,
            action=intent.action,
            object=intent.object,
            effect=verdict.effect,
            step=verdict.step,
            rule=verdict.rule,
            layer=verdict.layer,
            source=verdict.source,
            code=verdict.code or "",
            grant=verdict.grant,
            approval=approval,
            view_digest=self.keyed(view_digest) if view_digest else "",
            fingerprint=intent.fingerprint,
            taint=sorted(intent.taint) if intent.taint else None,
        )
        if decision is not None:
            fields.actor = decision.actor
            fields.channel = decision.channel
            fields.scope = decision.scope
            fields.note = decision.note
            fields.edited = decision.payload is not None
        if payload is not None:
            fields.args = self._content(payload)
        elif intent.arguments is not None:
            fields.args = self._content(dict(intent.arguments))
        if details:
            fields.details = self._details(details)
        return fields

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
        return self._append(self._outcome(mark, status, duration_ms, result, error, details))

    def outcome_in_turn(
        self,
        mark: AuditMark,
        status: Status | str,
        *,
        duration_ms: float | None = None,
        result: Any = _UNSET,
        error: str = "",
        **details: Any,
    ) -> Coroutine[Any, Any, AuditMark]:
        """As `outcome`. Where its caller is cancelled, it is written all the same."""
        fields = self._outcome(mark, status, duration_ms, result, error, details)
        return self._append_in_turn(fields, is_owed=True)

    def _outcome(
        self,
        mark: AuditMark,
        status: Status | str,
        duration_ms: float | None,
        result: Any,
        error: str,
        details: Mapping[str, Any],
    ) -> _Fields:
        took_ms = (self._timer() - mark.at) * 1000 if duration_ms is None else duration_ms
        fields = _Fields(
            kind="outcome",
            id=mark.id,
            **mark.about,
            status=status,
            duration_ms=round(took_ms, 3),
            error=error,
        )
        if result is not _UNSET:
            fields.result = shape_of(result, self.redactor.redact)
        if details:
            fields.details = self._details(details)
        return fields

    def event(
        self, name: str, *, server: str = "", text: str = "", trace: str = "", **details: Any
    ) -> AuditMark:
        """Record something else that happened, such as that a server was started.

        Of `details`, short texts, numbers and lists of them are written as they are; bytes, objects
        and longer texts are contents, kept as the rules say of arguments. None is left out.

        Raises:
            AuditFailed: it is not recorded.
        """
        return self._append(self._event(name, server, text, trace, details))

    def event_soon(
        self, name: str, *, server: str = "", text: str = "", trace: str = "", **details: Any
    ) -> None:
        """As `event`, for callbacks on an event loop: waits for nothing, and a failure is logged."""
        made = self._made(self._event(name, server, text, trace, details))
        try:
            if self._write_at_once(made) is None:
                self._owe(self._write_in_turn(made)).add_done_callback(_tell)
        except AuditFailed as error:
            log.warning("%s", error)

    def _event(
        self, name: str, server: str, text: str, trace: str, details: Mapping[str, Any]
    ) -> _Fields:
        fields = _Fields(
            kind="event", event=name, trace=trace, session=self.session, server=server, text=text
        )
        if details:
            fields.details = self._details(details)
        return fields

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

    async def aclose(self) -> None:
        """As `close`, after what is still to be written; waits without holding up the loop."""
        while self._pending:
            await asyncio.wait(self._pending)
        with suppress(AuditFailed, Misconfigured):
            await self._turns.do(self._log.anchor_at_once)
        # Whoever still holds it has been waited for.
        self._log.close(at_once=True)

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- how --------------------------------------------------------------------------------------

    def _append(self, fields: _Fields) -> AuditMark:
        made = self._made(fields)
        try:
            return self._write(made)
        except AuditFailed as error:
            return self._lost(made, error)

    async def _append_in_turn(self, fields: _Fields, *, is_owed: bool = False) -> AuditMark:
        made = self._made(fields)
        # As `_write_at_once` does, written out: this is on the way of every call.
        if not self._turns.is_busy:
            try:
                return self._write(made, at_once=True)
            except AuditHeld:
                pass
            except AuditFailed as error:
                return self._lost(made, error)
        writing = self._write_in_turn(made)
        return await (asyncio.shield(self._owe(writing)) if is_owed else writing)

    def _write_at_once(self, made: _Made) -> AuditMark | None:
        """Write it if nobody else is writing, or waits to."""
        if not self._turns.is_busy:
            try:
                return self._write(made, at_once=True)
            except AuditHeld:
                pass
            except AuditFailed as error:
                return self._lost(made, error)
        return None

    async def _write_in_turn(self, made: _Made) -> AuditMark:
        try:
            return await self._turns.do(lambda: self._write(made, at_once=True))
        except AuditFailed as error:
            return self._lost(made, error)

    def _owe(self, writing: Coroutine[Any, Any, AuditMark]) -> asyncio.Future[AuditMark]:
        """Write it whether or not anybody waits for it."""
        task = asyncio.ensure_future(writing)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        return task

    def _made(self, fields: _Fields) -> _Made:
        about = _NOTHING
        if fields.kind == "decision":
            about = {
                "trace": fields.trace,
                "session": fields.session,
                "server": fields.server,
                "action": fields.action,
                "object": fields.object,
            }
        return _Made(fields.id, self._timer(), about, self._encode(fields))

    def _write(self, made: _Made, *, at_once: bool = False) -> AuditMark:
        if self.lost:
            text = f"{self.lost} records before this one could not be written"
            event = encoded({"kind": "event", "event": "lost", "text": text})
            self._log.append(event, at_once=at_once)
            self.lost = 0
        seq, ident = self._log.append(made.body, has_id=bool(made.id), at_once=at_once)
        return AuditMark(seq, made.id or ident, made.at, made.about)

    def _lost(self, made: _Made, error: AuditFailed) -> AuditMark:
        """Raise the error, or go on without the record, as policy says."""
        if self._is_strict:
            raise error
        if not self.lost:
            log.warning("%s; it goes on unrecorded, as policy says", error)
        self.lost += 1
        return AuditMark(0, made.id, made.at, made.about)

    def _encode(self, fields: _Fields) -> bytes:
        """The fields that say something, as JSON without secrets and within the bounds."""
        try:
            body = msgspec.json.encode(fields)
        except (UnicodeEncodeError, OverflowError):
            body = b""
        # Nearly always it can be written as it is: what is no longer than one text may be.
        if (
            0 < len(body) <= MAX_TEXT
            and body.isascii()
            and b"\x7f" not in body
            and not self.redactor.finds(body)
        ):
            return body
        kept: dict[str, Any] = {}
        for name, value in msgspec.structs.asdict(fields).items():
            if value is None or value == "":
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
        return kept | {"shape": shape_of(value, self.redactor.redact)}

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
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            return f"an integer of {value.bit_length()} bits"
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


def _tell(writing: asyncio.Future[AuditMark]) -> None:
    if not writing.cancelled() and (error := writing.exception()) is not None:
        log.warning("%s", error)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= MAX_PLAIN_ITEMS and all(_is_short(one) for one in value)
    return _is_short(value)


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_PLAIN
    if isinstance(value, int):
        return value.bit_length() <= MAX_BITS
    return isinstance(value, float) and math.isfinite(value)
