"""The one path to a server: identity, pins, policy, consent, audit, and only then the action.

Everything a host does passes `Mediator.clear`: the calls of a program, of a model, of the person at
the terminal, and what servers ask. It returns a `Clearance`, which names the audit record that was
written before it, and holds the exact bytes that may be sent. `settle` writes how it ended.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex
from typing import Any

import msgspec

from dragoman.errors import DragomanError, InvalidArguments
from dragoman.host.audit import Audit, AuditFailed, AuditMark
from dragoman.host.broker import Broker
from dragoman.host.grants import GrantStore, StoreFailed
from dragoman.host.kinds import (
    Action,
    ApprovalRequest,
    Code,
    Decision,
    Denied,
    Effect,
    Grant,
    Intent,
    Limits,
    Risk,
    Scope,
    Step,
    Verdict,
    View,
)
from dragoman.host.policy import Policy, evaluate, explain

__all__ = ["Clearance", "Mediator", "Remake", "frozen"]

Remake = Callable[[bytes], Awaitable[Intent]]
"""How an intent looks now, with this payload: asked again after a person has answered, since the
definitions, the identity and the arguments may have changed while they thought."""


def frozen(payload: bytes) -> bytes:
    """The JSON text of the same value that reading and writing it again does not change.

    What a client writes is this text, byte for byte, so what was approved can be compared with what
    is sent. The order of members stays.

    Raises:
        ValueError: it is no JSON, or holds what JSON cannot.
    """
    for _ in range(3):
        written = msgspec.json.encode(msgspec.json.decode(payload))
        if written == payload:
            return payload
        payload = written
    raise ValueError("the value changes each time it is written")


ALL_SCOPES = (Scope.ONCE, Scope.SESSION, Scope.ALWAYS)


# A Struct rather than a dataclass, which takes several times as long to make: one for every call.
class Clearance(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to do one thing.

    `payload` is the exact JSON text that may be sent or released; `decision` is the number of the
    record that was written before. `was_edited` when a person changed it, `asked` when one was
    asked; `note` is what they said.
    """

    intent: Intent
    payload: bytes
    verdict: Verdict
    mark: AuditMark
    trace: str
    began_at: float
    was_edited: bool = False
    asked: bool = False
    scope: Scope | None = None
    note: str = ""

    @property
    def decision(self) -> int:
        """The number of the audit record."""
        return self.mark.seq


class Mediator:
    """Decides, asks, remembers and records.

    `session` names this run of the host: what was granted for it ends with it. `clock` gives
    seconds since the epoch.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        grants: GrantStore,
        audit: Audit,
        broker: Broker,
        session: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self.grants = grants
        self.audit = audit
        self.broker = broker
        self.session = session
        self._clock = clock
        self._is_closed = False

    def close(self) -> None:
        """Allow nothing any more."""
        self._is_closed = True

    def judge(self, intent: Intent, *, looked: bool = False) -> Verdict:
        """What policy and the remembered answers say of it now; nothing is asked or recorded.

        `looked`: see `GrantStore.look`.
        """
        return evaluate(
            self.policy,
            intent,
            self._grants_for(intent, looked=looked),
            session=self.session,
            now=self._clock(),
            can_ask=self.broker.can_ask,
        )

    def explain(self, intent: Intent) -> Verdict:
        """The same, with a line for each step in its `trail`."""
        return explain(
            self.policy,
            intent,
            self._grants_for(intent),
            session=self.session,
            now=self._clock(),
            can_ask=self.broker.can_ask,
        )

    async def clear(
        self,
        intent: Intent,
        view: View | Callable[[], View],
        *,
        payload: bytes | None = None,
        editable: Sequence[str] = (),
        risks: Sequence[Risk] | Callable[[], Sequence[Risk]] = (),
        scopes: Sequence[Scope] = ALL_SCOPES,
        trace: str = "",
        again: Remake | None = None,
        must_ask: str = "",
        is_own_act: bool = False,
        also: Sequence[Intent] = (),
        looked: bool = False,
    ) -> Clearance:
        """Decide about one thing; returns when it may be done.

        `again` gives the intent as it stands after a person has answered. `view` and `risks` may be
        functions that give them, for when somebody is asked; `payload` is that of the view then.
        `must_ask` is a reason to ask even though a rule allows it. With `is_own_act` the person has
        done it themselves, in so many words, so that only a deny can stop it. `also` are intents
        that the same answer settles, such as the flows that a call brings about. `looked`: see
        `GrantStore.look`.

        The loop may go on between the decision and the return, while the record waits for another
        process: what the caller knew before may have changed.

        Raises:
            Denied: policy, a person, a deadline, or a store or audit that cannot be written.
        """
        if self._is_closed:
            raise Denied(Code.HOST_CLOSED, intent.subject, "the host is closing")
        trace = trace or token_hex(8)
        if payload is None:
            view = view() if callable(view) else view
            payload = view.payload
        try:
            if not looked:
                await self._look(intent)
            verdict = self.judge(intent, looked=True)
            if must_ask and verdict.effect is Effect.ALLOW and not is_own_act:
                verdict = self._ask_instead(verdict, must_ask)
            if is_own_act and (verdict.effect is Effect.ASK or verdict.code is Code.NOBODY_TO_ASK):
                verdict = replace(
                    verdict, effect=Effect.ALLOW, rule="the person's own act", layer="", code=None
                )
            if verdict.effect is Effect.DENY:
                raise await self._denied(intent, verdict, payload, trace)
            if verdict.effect is Effect.ASK:
                view = view() if callable(view) else view
                return await self._ask(
                    intent, verdict, view, editable, risks, scopes, trace, again, also
                )
            return await self._allow(intent, verdict, payload, payload, trace)
        except Denied as denied:
            if denied.code is not Code.STORE_FAILED or denied.decision:
                raise
            # A refusal like any other: it is recorded, whatever had been answered by then.
            verdict = Verdict(
                effect=Effect.DENY, step=Step.INTEGRITY, rule=denied.rule, code=denied.code
            )
            raise await self._denied(intent, verdict, payload, trace) from None

    def _ask_instead(self, verdict: Verdict, why: str) -> Verdict:
        if not self.broker.can_ask:
            return Verdict(effect=Effect.DENY, step=Step.RISK, rule=why, code=Code.NOBODY_TO_ASK)
        return replace(verdict, effect=Effect.ASK, step=Step.RISK, rule=why, grant="")

    # --- asking -----------------------------------------------------------------------------------

    async def _ask(
        self,
        intent: Intent,
        verdict: Verdict,
        view: View,
        editable: Sequence[str],
        risks: Sequence[Risk] | Callable[[], Sequence[Risk]],
        scopes: Sequence[Scope],
        trace: str,
        again: Remake | None,
        also: Sequence[Intent],
    ) -> Clearance:
        digest = view.digest(intent)
        request = ApprovalRequest(
            id=token_hex(8),
            intent=intent,
            view=view,
            view_digest=digest,
            why=verdict.rule,
            risks=tuple(risks() if callable(risks) else risks),
            scopes=tuple(scopes),
            editable=tuple(editable),
            timeout_s=self.policy.approval_timeout_s,
            dedupe_key=digest,
            trace=trace,
        )
        try:
            decision = await self.broker.ask(request)
        except Denied as denied:
            # Nobody answered in time, or nobody could be asked.
            verdict = Verdict(
                effect=Effect.DENY, step=verdict.step, rule=denied.rule, code=denied.code
            )
            request = replace(request, id=denied.approval)
            raise await self._denied(
                intent, verdict, view.payload, trace, request=request
            ) from None
        if decision.approval != request.id:
            # Another caller had asked the same: what was shown and answered is that question.
            request = replace(request, id=decision.approval)
        if decision.view_digest != digest:
            verdict = Verdict(
                effect=Effect.DENY,
                step=Step.INTEGRITY,
                rule="the answer was for another view than the one shown",
                code=Code.VIEW_CHANGED,
            )
            raise await self._denied(
                intent, verdict, view.payload, trace, request=request, decision=decision
            )
        if decision.effect is not Effect.ALLOW:
            raise await self._refused_by_person(
                intent, verdict, view.payload, trace, request, decision
            )
        payload = view.payload if decision.payload is None else frozen(decision.payload)
        try:
            now = intent if again is None else await again(payload)
        except DragomanError as error:
            if not isinstance(error, Denied) or error.code is not Code.STORE_FAILED:
                # Whoever asked gets the error; that somebody had said yes is in the record.
                refused = await self._denied(
                    intent, _not_now(error), view.payload, trace, request=request, decision=decision
                )
                if isinstance(error, Denied):
                    raise refused from None
            raise
        await self._look(now)
        verdict = self._after_yes(intent, now, verdict, decision)
        if verdict.effect is Effect.DENY:
            raise await self._denied(
                now, verdict, view.payload, trace, request=request, decision=decision
            )
        if decision.scope is not Scope.ONCE and decision.scope in scopes:
            for settled in (now, *also):
                await self._remember(settled, decision, request)
        return await self._allow(
            now, verdict, payload, view.payload, trace, request=request, decision=decision
        )

    def _after_yes(
        self, shown: Intent, intent: Intent, before: Verdict, decision: Decision
    ) -> Verdict:
        """What holds after a person said yes: all but the asking is looked at once more.

        The yes is for what was shown; `intent` is how that stands now.
        """
        yes = Grant(
            id="this answer",
            effect=Effect.ALLOW,
            principal=intent.principal,
            server=intent.server,
            identity=intent.identity,
            action=intent.action,
            object=intent.object,
            scope=Scope.ALWAYS,
            fingerprint=intent.fingerprint,
            limits=Limits(taint=intent.taint),
        )
        verdict = evaluate(
            self.policy,
            intent,
            [*self._grants_for(intent, looked=True), yes],
            session=self.session,
            now=self._clock(),
            can_ask=True,
        )
        if verdict.effect is Effect.DENY:
            return verdict
        if (shown.identity, shown.object) != (intent.identity, intent.object) and not (
            intent.action is Action.SAMPLING_REQUEST and decision.payload is not None
        ):
            return Verdict(
                effect=Effect.DENY,
                step=Step.INTEGRITY,
                rule="the server is another one than the one that was shown",
                code=Code.IDENTITY_CHANGED,
            )
        if shown.fingerprint != intent.fingerprint:
            return Verdict(
                effect=Effect.DENY,
                step=Step.INTEGRITY,
                rule="its definition has changed while the person thought about it",
                code=Code.PIN_CHANGED,
            )
        # What the server itself said meanwhile goes nowhere with this.
        heard = sorted(intent.taint - shown.taint - {intent.server})
        if heard and self.judge(intent, looked=True).effect is not Effect.ALLOW:
            return Verdict(
                effect=Effect.DENY,
                step=Step.RISK,
                rule=f"words of {', '.join(map(repr, heard))} came in while the person thought about"
                " it: it has to be asked again",
                code=Code.VIEW_CHANGED,
            )
        return replace(
            before,
            effect=Effect.ALLOW,
            rule=f"{decision.actor or 'the person'} said yes",
            code=None,
            grant="",
        )

    async def _refused_by_person(
        self,
        intent: Intent,
        verdict: Verdict,
        shown: bytes,
        trace: str,
        request: ApprovalRequest,
        decision: Decision,
    ) -> Denied:
        is_cancel = decision.effect is Effect.CANCEL
        if not is_cancel and decision.scope is not Scope.ONCE:
            # It is refused all the same, now; that it will be asked again is the lesser harm.
            with suppress(Denied):
                await self._remember(intent, decision, request)
        said = f": {decision.note}" if decision.note else ""
        verdict = Verdict(
            effect=Effect.DENY,
            step=verdict.step,
            rule=("the person cancelled" if is_cancel else "the person said no") + said,
            layer="grants",
            code=Code.CANCELLED if is_cancel else Code.PERSON_DENIED,
        )
        return await self._denied(intent, verdict, shown, trace, request=request, decision=decision)

    async def _remember(self, intent: Intent, decision: Decision, request: ApprovalRequest) -> None:
        """Keep an answer that holds longer than once. Raises Denied when it cannot be kept.

        Of those that waited for the same answer, the first one keeps it.
        """
        if any(
            (one.approval, one.action, one.object) == (request.id, intent.action, intent.object)
            for one in self._grants_for(intent)
        ):
            return
        grant = Grant(
            id=token_hex(8),
            effect=decision.effect,
            principal=intent.principal,
            server=intent.server,
            identity=intent.identity,
            action=intent.action,
            object=intent.object,
            scope=decision.scope,
            session=self.session if decision.scope is Scope.SESSION else "",
            fingerprint=intent.fingerprint,
            limits=Limits(taint=intent.taint),
            approval=request.id,
            created_at=self._clock(),
            note=decision.note,
        )
        try:
            await self.grants.in_turn(lambda: self.grants.add(grant))
        except StoreFailed as failed:
            raise Denied(
                Code.STORE_FAILED, intent.subject, f"the answer cannot be kept: {failed}"
            ) from None

    async def renew(self, clearance: Clearance, intent: Intent, why: str) -> Clearance:
        """Leave to send the same bytes once more, which a person agreed to beforehand.

        For a request that the server refused to run until something was done. `intent` is how it
        stands now: whatever would stop it still does. A grant that allowed the first sending is
        used by this one, too: of a number of calls each that is sent is one. `why` is for the
        record.

        Raises:
            Denied: a rule, a stored no, a change of the definition or the server, or a grant that
                is used up or was taken back.
        """
        if self._is_closed:
            raise Denied(Code.HOST_CLOSED, intent.subject, "the host is closing")
        agreed = Decision(effect=Effect.ALLOW, view_digest="")
        await self._look(intent)
        verdict = self._after_yes(clearance.intent, intent, clearance.verdict, agreed)
        if verdict.effect is Effect.DENY:
            raise await self._denied(intent, verdict, clearance.payload, clearance.trace)
        renewed = await self._allow(
            intent,
            replace(verdict, rule=why, grant=clearance.verdict.grant),
            clearance.payload,
            clearance.payload,
            clearance.trace,
        )
        return msgspec.structs.replace(renewed, was_edited=clearance.was_edited)

    # --- the two ends -----------------------------------------------------------------------------

    async def _look(self, intent: Intent) -> None:
        try:
            await self.grants.look()
        except StoreFailed as failed:
            raise self._unread(intent, failed) from None

    def _grants_for(self, intent: Intent, *, looked: bool = False) -> Sequence[Grant]:
        try:
            return self.grants.find_about(intent, looked=looked)
        except StoreFailed as failed:
            raise self._unread(intent, failed) from None

    def _unread(self, intent: Intent, failed: StoreFailed) -> Denied:
        # A stored no may be in there: without it nothing is allowed.
        return Denied(Code.STORE_FAILED, intent.subject, f"the grants cannot be read: {failed}")

    async def _spend(self, grant: str) -> bool:
        """Use up a grant that was found just now."""
        if self.grants.is_counted(grant):
            return await self.grants.in_turn(lambda: self.grants.spend(grant))
        return self.grants.spend(grant, looked=True)

    async def _allow(
        self,
        intent: Intent,
        verdict: Verdict,
        payload: bytes,
        shown: bytes,
        trace: str,
        *,
        request: ApprovalRequest | None = None,
        decision: Decision | None = None,
    ) -> Clearance:
        if verdict.grant:
            try:
                is_left = await self._spend(verdict.grant)
            except StoreFailed as failed:
                raise Denied(
                    Code.STORE_FAILED, intent.subject, f"the grant cannot be used: {failed}"
                ) from None
            if not is_left:
                spent = replace(
                    verdict,
                    effect=Effect.DENY,
                    code=Code.GRANT_SPENT,
                    rule=f"the grant {verdict.grant} is used up, or holds no longer",
                )
                raise await self._denied(intent, spent, shown, trace)
        began_at = time.monotonic()
        mark = await self._record(intent, verdict, payload, shown, trace, request, decision)
        return Clearance(
            intent=intent,
            payload=payload,
            verdict=verdict,
            mark=mark,
            trace=trace,
            began_at=began_at,
            was_edited=payload != shown,
            asked=decision is not None,
            scope=None if decision is None else decision.scope,
            note="" if decision is None else decision.note,
        )

    async def _denied(
        self,
        intent: Intent,
        verdict: Verdict,
        shown: bytes,
        trace: str,
        *,
        request: ApprovalRequest | None = None,
        decision: Decision | None = None,
    ) -> Denied:
        """Record a refusal and return it as the error to raise."""
        code = verdict.code or Code.RULE_DENIED
        rule, seq = verdict.rule, 0
        try:
            mark = await self._record(intent, verdict, shown, shown, trace, request, decision)
            seq = mark.seq
        except Denied as failed:
            # It is refused either way; what could not be written is said beside it.
            rule = f"{rule} (and {failed.rule})"
        return Denied(
            code,
            intent.subject,
            rule,
            step=verdict.step,
            server=intent.server,
            diff="\n".join(problem.diff for problem in intent.problems if problem.diff),
            note="" if decision is None else decision.note,
            decision=seq,
            approval="" if request is None else request.id,
            source=verdict.source,
        )

    async def _record(
        self,
        intent: Intent,
        verdict: Verdict,
        payload: bytes,
        shown: bytes,
        trace: str,
        request: ApprovalRequest | None,
        decision: Decision | None,
    ) -> AuditMark:
        # Of an edit both are kept: what was asked for, and what is sent.
        edit = {"original": shown} if payload != shown else {}
        try:
            return await self.audit.decision_in_turn(
                intent,
                verdict,
                payload=payload,
                trace=trace,
                session=self.session,
                view_digest="" if request is None else request.view_digest,
                approval="" if request is None else request.id,
                decision=decision,
                **edit,
            )
        except AuditFailed as failed:
            raise Denied(
                Code.AUDIT_FAILED,
                intent.subject,
                f"what is not recorded is not done: {failed}",
                server=intent.server,
            ) from None

    async def settle(self, clearance: Clearance, status: str, **details: Any) -> None:
        """Record how it ended: "ok", "failed", "refused", "cancelled" or "unknown".

        Raises:
            Denied: it cannot be written. What was done is done, and nobody may go on as if it had
                been recorded.
        """
        took_ms = (time.monotonic() - clearance.began_at) * 1000
        try:
            await self.audit.outcome_in_turn(clearance.mark, status, duration_ms=took_ms, **details)
        except AuditFailed as failed:
            raise Denied(
                Code.AUDIT_FAILED,
                clearance.intent.subject,
                f"it was done, but its outcome cannot be recorded: {failed}",
                server=clearance.intent.server,
            ) from None


def _not_now(error: DragomanError) -> Verdict:
    """What the record says of something that was approved, and cannot be done any more."""
    if isinstance(error, Denied):
        return Verdict(
            effect=Effect.DENY,
            step=error.step or Step.INTEGRITY,
            rule=error.rule,
            code=error.code,
        )
    is_unfit = isinstance(error, InvalidArguments)
    return Verdict(
        effect=Effect.DENY,
        step=Step.INTEGRITY,
        rule=f"it cannot be done any more, or not like that: {type(error).__name__}",
        code=Code.ARGUMENTS_UNFIT if is_unfit else Code.NOT_OFFERED,
    )
