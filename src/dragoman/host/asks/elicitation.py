"""A server asks the user: a form to fill in, or an address to go to.

Both are answered by a person, never by a rule: a rule can only refuse. Nothing is fetched.

Spec: client/elicitation
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from dragoman.errors import Misconfigured
from dragoman.host.asks.common import (
    FACT_FORM,
    FACT_HOST,
    FACT_MESSAGE,
    FACT_URL,
    Answered,
    Asker,
    Cleared,
    Mediates,
    clear_when_it_fits,
    facts_about,
    read_record,
    texts_in,
    unseen_risks,
)
from dragoman.host.asks.sensitive import secrets_asked
from dragoman.host.budget import Budget
from dragoman.host.canonical import read_json
from dragoman.host.kinds import Action, Code, Denied, Effect, Intent, Problem, Risk, Scope, View
from dragoman.model.checks import check_elicitation
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.faults import find_faults
from dragoman.model.schema_check import SchemaCheck
from dragoman.model.unseen import UNSEEN, warn_of_host

__all__ = ["Elicitation", "url_faults"]

# How its turns are counted.
KIND = "elicitation"

# 50 fields: a form of more is no question.
MAX_FIELDS = 50

# 64 KiB of schema: 50 fields with a page of text and choices each.
MAX_FORM_BYTES = 64 * 1024

# 16 KiB of words to the person: three pages; looking through megabytes of them for what hides there
# would hold up everybody else.
MAX_MESSAGE_CHARS = 16 * 1024

# 8 KiB: what web servers take at most; a person cannot judge even a tenth of it.
MAX_URL_CHARS = 8 * 1024

# Nobody chose: the server is told that the question was put away, not that the user declined.
_NOBODY_CHOSE = frozenset(
    {Code.CANCELLED, Code.DEADLINE, Code.NOBODY_TO_ASK, Code.TOO_MANY_WAITING, Code.VIEW_CHANGED,
     Code.PAYLOAD_CHANGED, Code.HOST_CLOSED, Code.NOT_OFFERED, Code.ARGUMENTS_UNFIT}
)  # fmt: skip


class Elicitation:
    """Answers elicitations, for all servers of a host.

    `budgets` gives each server's budget. With `secrets` "warn" a form that asks for a password is
    shown with a warning; else it is refused unseen.
    """

    def __init__(
        self,
        mediator: Mediates,
        budgets: Callable[[str], Budget],
        *,
        secrets: Literal["block", "warn"] = "block",
    ) -> None:
        self._mediator = mediator
        self._budgets = budgets
        self._secrets = secrets

    def is_offered(self, asker: Asker, action: Action) -> bool:
        """Whether ELICIT_FORM or ELICIT_URL could be granted to this server at all."""
        verdict = self._mediator.judge(asker.intent(action))
        return self._mediator.broker.can_ask and verdict.effect is not Effect.DENY

    async def answer(self, asker: Asker, params: ElicitParams) -> Answered[ElicitResult]:
        """Answer one question: accepted, declined, or cancelled where nobody chose."""
        result: ElicitResult
        try:
            if params.mode == "url":
                decision = (await self.visit(asker, params)).decision
                result = ElicitResult(action="accept")
            else:
                with self._turn(asker) as turn:
                    cleared = await self._fill(asker, params, turn)
                    content = read_json(cleared.payload)
                    result = ElicitResult(action="accept", content=content)
                    await self._mediator.settle(cleared, "ok")
                    decision = cleared.decision
        except Denied as denied:
            action: Literal["cancel", "decline"]
            action = "cancel" if denied.code in _NOBODY_CHOSE else "decline"
            result, decision = ElicitResult(action=action), denied.decision
        return Answered(result=result, payload=msgspec.json.encode(result), decision=decision)

    async def visit(self, asker: Asker, params: ElicitParams, *, then: str = "") -> Cleared:
        """Ask the person to go to an address; nothing is fetched.

        `then` is what their yes brings about besides, for them to read.

        Raises:
            Denied: they did not agree, or were not asked.
        """
        with self._turn(asker) as turn:
            cleared = await self._visit(asker, params, turn, then)
            await self._mediator.settle(cleared, "ok")
        return cleared

    @contextmanager
    def _turn(self, asker: Asker) -> Iterator[Problem | None]:
        """Count a question; gives why it is one too many.

        Raises:
            Denied: it is, and that was recorded before.
        """
        bounds = self._mediator.policy.bounds
        budget = self._budgets(asker.server)
        turn = budget.take_turn(
            KIND,
            asker.calls().keys(),
            per_minute=bounds.max_input_rounds,
            per_call=bounds.max_input_rounds,
        )
        if turn is not None and not budget.is_news(KIND):
            raise Denied(
                turn.code,
                KIND,
                turn.text,
                server=asker.server,
                decision=budget.records.get(KIND, 0),
            )
        try:
            yield turn
        except Denied as denied:
            if turn is not None:
                budget.records[KIND] = denied.decision
            raise

    # --- forms ------------------------------------------------------------------------------------

    async def _fill(self, asker: Asker, params: ElicitParams, turn: Problem | None) -> Cleared:
        schema = params.requested_schema or {}
        problems = [turn, _form_problem(params)]
        risks: list[Risk] = []
        sure: list[str] = []
        maybe: list[str] = []
        if problems == [None, None]:
            # Only now, within the bounds: it takes time.
            risks = unseen_risks(texts_in([params.message, schema]))
            sure, maybe = secrets_asked(schema, params.message)
        if sure and self._secrets == "block":
            problems.append(
                Problem(
                    code=Code.SECRET_ASKED,
                    text=f"{'; '.join(sure)}, and a server reads what is typed into its form",
                )
            )
        risks += [Risk(code="secret", text=f"Never type a secret: {one}.") for one in sure + maybe]
        standing = tuple(one for one in problems if one is not None)
        written = msgspec.json.encode(schema).decode()

        def intent_of(given: bytes, more: tuple[Problem, ...]) -> Intent:
            return asker.intent(Action.ELICIT_FORM, problems=more)

        def view_of(given: bytes) -> View:
            return View(
                headline=f"The server {asker.server!r} asks you to fill in a form.",
                payload=given,
                facts=(
                    *facts_about(asker),
                    (FACT_MESSAGE, params.message),
                    (FACT_FORM, written),
                    *asker.lines(),
                ),
            )

        return await clear_when_it_fits(
            self._mediator,
            msgspec.json.encode({} if standing else _defaults(schema)),
            intent_of=intent_of,
            view_of=view_of,
            check=lambda given: _form_faults(schema, given),
            problems=standing,
            risks=risks,
            scopes=(Scope.ONCE,),
            must_ask="only a person can fill in a form",
        )

    # --- addresses --------------------------------------------------------------------------------

    async def _visit(
        self, asker: Asker, params: ElicitParams, turn: Problem | None, then: str
    ) -> Cleared:
        url = params.url or ""
        faults = url_faults(url)
        problems = [turn] if turn is not None else []
        if faults:
            problems.append(Problem(code=Code.URL_UNFIT, text="; ".join(faults)))
        try:
            _check_message(params)
        except ValueError as fault:
            problems.append(Problem(code=Code.DEFINITION_UNFIT, text=str(fault)))
        warnings = [] if problems else warn_of_host(url)
        risks = [Risk(code="host", text=f"{one[:1].upper()}{one[1:]}.") for one in warnings]
        if not problems:
            risks += unseen_risks([params.message])
        view = View(
            headline=f"The server {asker.server!r} asks you to go to an address.",
            payload=msgspec.json.encode(
                {"mode": "url", "url": url, "message": params.message}
                | ({"elicitationId": params.elicitation_id} if params.elicitation_id else {})
            ),
            facts=(
                *facts_about(asker),
                (FACT_HOST, _host_of(url)),
                (FACT_URL, url),
                (FACT_MESSAGE, params.message),
                *([("if you agree", then)] if then else ()),
                *asker.lines(),
            ),
        )

        async def again(given: bytes) -> Intent:
            return asker.intent(Action.ELICIT_URL, url)

        return await self._mediator.clear(
            asker.intent(Action.ELICIT_URL, url, problems=tuple(problems)),
            view,
            risks=risks,
            scopes=(Scope.ONCE,),
            again=again,
            must_ask="only a person can go to an address",
        )


# --- what makes a form or an address unfit --------------------------------------------------------


def _form_problem(params: ElicitParams) -> Problem | None:
    """Why a form cannot be shown, if it cannot."""
    schema = params.requested_schema or {}
    try:
        _check_message(params)
        check_elicitation(params)
        size = len(msgspec.json.encode(schema))
        if size > MAX_FORM_BYTES:
            raise ValueError(f"a form has at most {MAX_FORM_BYTES:,} bytes, this has {size:,}")
        if len(schema["properties"]) > MAX_FIELDS:
            raise ValueError(f"a form has at most {MAX_FIELDS} fields")
        SchemaCheck(schema, is_ours=False)
    except (ValueError, Misconfigured) as fault:
        return Problem(code=Code.DEFINITION_UNFIT, text=f"the form cannot be used: {fault}")
    return None


def _check_message(params: ElicitParams) -> None:
    if len(params.message) > MAX_MESSAGE_CHARS:
        raise ValueError(
            f"a question has at most {MAX_MESSAGE_CHARS:,} characters, this has "
            f"{len(params.message):,}"
        )


def _defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """The defaults of a form; those that its own fields refuse are left out."""
    return {
        name: field["default"]
        for name, field in schema["properties"].items()
        if "default" in field and not find_faults(field, field["default"], is_ours=False)
    }


def _form_faults(schema: dict[str, Any], payload: bytes) -> list[str]:
    """What does not fit in a filled form, a sentence each."""
    try:
        content = read_json(payload)
        read_record(ElicitResult, {"action": "accept", "content": content})
    except ValueError as fault:
        return [str(fault)]
    if not isinstance(content, dict):
        return ["a filled form is an object"]
    unknown = [
        f"the form has no field {name!r}" for name in content if name not in schema["properties"]
    ]
    found = find_faults(schema, content, formats=_FORMATS, is_ours=False)
    return unknown + [f"{one.path or 'the form'}: expected {one.expected}" for one in found]


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _is_instant(text: str) -> bool:
    try:
        return "T" in text.upper() and datetime.fromisoformat(text.upper()).tzinfo is not None
    except ValueError:
        return False


def _is_email(text: str) -> bool:
    name, at, host = text.rpartition("@")
    return bool(name and at and host) and not any(one.isspace() for one in text)


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and (parts.netloc or parts.path)) and " " not in text


# The formats a form's fields may name.
_FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _is_date,
    "date-time": _is_instant,
    "email": _is_email,
    "uri": _is_uri,
}


def url_faults(url: str) -> list[str]:
    """Why a person is not sent to an address at all, a sentence each; none when they may be asked.

    Whatever else is odd about it is a warning (`dragoman.model.unseen.warn_of_host`).
    """
    if len(url) > MAX_URL_CHARS:
        return [f"an address has at most {MAX_URL_CHARS:,} characters, this has {len(url):,}"]
    if UNSEEN.search(url) or any(one.isspace() for one in url) or "\\" in url:
        return ["the address holds what is not seen, blanks or backslashes"]
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return ["the address has a host or a port that cannot be"]
    if not host:
        return ["the address names no host"]
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)):
        # A name before the host is there to be taken for it.
        return ["the address names a user before its host"] if "@" in parts.netloc else []
    if parts.scheme == "http":
        return ["the address is not encrypted (http), and not on this machine"]
    return [f"the address is no web address, its scheme is {parts.scheme!r}"]


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or "none"
    except ValueError:
        return "none that can be read"
