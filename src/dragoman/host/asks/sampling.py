"""A server asks the user's model: two gates, one before the model and one behind it.

The first shows the whole of what the model will be given, the second the whole of what the server
will be given. Nothing else goes either way.

Spec: client/sampling
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from dragoman.client.models import choose_model
from dragoman.host.asks.common import (
    REGENERATE,
    Answered,
    Asker,
    Cleared,
    Mediates,
    clear_when_it_fits,
    facts_about,
    read_record,
    refusal_for,
    texts_in,
    unseen_risks,
)
from dragoman.host.asks.context import ContextSource, Offered
from dragoman.host.budget import Budget, estimated_tokens
from dragoman.host.canonical import read_json
from dragoman.host.kinds import (
    Action,
    Code,
    Denied,
    Effect,
    Intent,
    Problem,
    Risk,
    Scope,
    Step,
    View,
)
from dragoman.model.checks import check_sampling, check_sampling_result
from dragoman.model.content import (
    AudioContent,
    ImageContent,
    TextContent,
    ToolResultContent,
    ToolUseContent,
)
from dragoman.model.sampling import (
    CreateMessageParams,
    CreateMessageResult,
    SamplingMessage,
)

__all__ = ["Kept", "ModelSource", "Sampling"]

# 3 answers to one request: who still dislikes the third should edit or withhold it.
MAX_ANSWERS = 3

# 1,000 tokens for a picture or a sound: what the large providers count for a middling one.
MEDIA_TOKENS = 1_000

# 64 exchanges and 16 MiB of them: enough to look back on, a fraction of a conversation's memory.
MAX_KEPT = 64
MAX_KEPT_BYTES = 16 * 1024 * 1024

SUBJECT = "a sampling request"


class ModelSource(Protocol):
    """The models that may answer; see `dragoman.host.models.sampling.SamplingModels`."""

    def names(self) -> Sequence[str]:
        """The names to choose from, "provider:name", best first."""

    async def answer(self, model: str, params: CreateMessageParams) -> CreateMessageResult:
        """What that model says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """One exchange as it was: what was asked, sent, answered and released; empty if it was not.

    JSON texts; `sent` and `released` are the very bytes a person agreed to.
    """

    server: str
    trace: str
    asked: bytes
    sent: bytes = b""
    answered: bytes = b""
    released: bytes = b""

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.asked) + len(self.sent) + len(self.answered) + len(self.released)


class Sampling:
    """Answers sampling requests, for all servers of a host.

    `budgets` gives each server's budget. `context` is what `includeContext` may stand for; without
    a rule that allows the flow, and without the person's word, it stands for nothing. `kept` has
    the last exchanges, in memory only.
    """

    def __init__(
        self,
        mediator: Mediates,
        models: ModelSource,
        budgets: Callable[[str], Budget],
        *,
        context: ContextSource | None = None,
    ) -> None:
        self._mediator = mediator
        self._models = models
        self._budgets = budgets
        self._context = context
        self._kept: deque[Kept] = deque()

    @property
    def kept(self) -> tuple[Kept, ...]:
        """The last exchanges, oldest first."""
        return tuple(self._kept)

    def is_offered(self, asker: Asker) -> bool:
        """Whether any request of this server could be granted: else it is not told of sampling."""
        for model in self._allowed():
            request = asker.intent(Action.SAMPLING_REQUEST, model, model=model, tokens=1)
            release = asker.intent(Action.SAMPLING_RELEASE, model, model=model)
            if all(
                self._mediator.judge(one).effect is not Effect.DENY for one in (request, release)
            ):
                return True
        return False

    def offers_context(self, asker: Asker) -> bool:
        """Whether its own words at least could be granted to this server."""
        flow = asker.intent(Action.FLOW, f"{asker.server} -> server:{asker.server}")
        is_open = self._mediator.judge(flow).effect is not Effect.DENY
        return self._context is not None and is_open

    async def answer(
        self, asker: Asker, params: CreateMessageParams
    ) -> Answered[CreateMessageResult]:
        """Answer one request.

        Raises:
            Refused: it was refused at either gate; the text is what the server may know.
        """
        exchange = _Exchange(self, self._mediator, self._models, asker, params)
        try:
            return await exchange.run(self._budgets(asker.server))
        except Denied as denied:
            raise refusal_for(denied, SUBJECT) from denied
        finally:
            self._keep(exchange.kept())

    def _keep(self, kept: Kept) -> None:
        self._kept.append(kept)
        while len(self._kept) > MAX_KEPT or sum(one.size for one in self._kept) > MAX_KEPT_BYTES:
            self._kept.popleft()

    # --- what an exchange needs -------------------------------------------------------------------

    def _allowed(self) -> list[str]:
        rules = self._mediator.policy.sampling
        return [name for name in self._models.names() if rules.allows_model(name)]

    def choose(self, params: CreateMessageParams) -> str:
        """The model for a request, of those that rules allow; empty when there is none.

        Spec: client/sampling#model-preferences
        """
        allowed = self._allowed()
        return choose_model(params.model_preferences, allowed) if allowed else ""

    def names(self) -> Sequence[str]:
        """Every model there is."""
        return self._models.names()

    def offered(self, asker: Asker, wanted: str) -> Offered:
        """The words that may come along, as they are now."""
        has_words = self._context is not None and wanted != "none"
        words = dict(self._context(asker.server)) if self._context and has_words else {}
        return Offered(mediator=self._mediator, asker=asker, wanted=wanted, words=words)


class _Exchange:
    """One request on its way."""

    def __init__(
        self,
        sampling: Sampling,
        mediator: Mediates,
        models: ModelSource,
        asker: Asker,
        params: CreateMessageParams,
    ) -> None:
        self._sampling = sampling
        self._mediator = mediator
        self._models = models
        self._asker = asker
        self._params = params
        self._offered = sampling.offered(asker, params.include_context or "none")
        # The servers whose words are in the prompt, and whether the person wanted them there.
        self._sources: list[str] = []
        self._was_filled = False
        self._trace = ""
        self._asked = msgspec.json.encode(params)
        self._sent = b""
        self._answered = b""
        self._released = b""

    def kept(self) -> Kept:
        """What has become of it so far."""
        return Kept(
            server=self._asker.server,
            trace=self._trace,
            asked=self._asked,
            sent=self._sent,
            answered=self._answered,
            released=self._released,
        )

    async def run(self, budget: Budget) -> Answered[CreateMessageResult]:
        policy = self._mediator.policy
        params, asker = self._params, self._asker
        problem = budget.take_turn(
            "sampling",
            asker.calls().keys(),
            per_minute=policy.sampling.max_per_minute,
            per_call=policy.bounds.max_input_rounds,
        )
        if problem is not None and not budget.is_news("sampling"):
            raise Denied(problem.code, SUBJECT, problem.text, server=asker.server)
        model = self._sampling.choose(params)
        if problem is None and not model:
            problem = Problem(code=Code.NOT_OFFERED, text="there is no model that may be used")
        self._sources = self._offered.granted(model)
        context = self._offered.message(self._sources)
        most = min(params.max_tokens, policy.sampling.max_tokens_per_request)
        reserved = budget.reserve(
            _tokens_of(_resolved(params, context, most)),
            most,
            most=policy.sampling.max_tokens_per_session,
        )
        if isinstance(reserved, Problem):
            problem = problem or reserved
        else:
            most = reserved.granted
        spent = 0
        try:
            sent = _resolved(params, context, most)
            clearance = await self._clear_request(model, sent, most, problem)
            self._trace, self._sent = clearance.trace, clearance.payload
            model, sent = _read_request(clearance.payload)
            for number in range(1, MAX_ANSWERS + 1):
                spent += _tokens_of(sent)
                result = await self._ask_model(clearance, model, sent)
                spent += _tokens_in(result.content)
                try:
                    released = await self._clear_release(model, result)
                except BaseException as error:
                    if _is_again(error) and number < MAX_ANSWERS:
                        continue
                    await self._settle(clearance, number, released=False)
                    raise
                break
            await self._settle(clearance, number, released=True)
            self._released = released.payload
            if released.payload != self._answered:
                result = read_record(CreateMessageResult, read_json(released.payload))
            await self._mediator.settle(released, "ok")
            return Answered(result=result, payload=released.payload, decision=released.decision)
        finally:
            if not isinstance(reserved, Problem):
                reserved.settle(spent)

    async def _settle(self, clearance: Cleared, answers: int, *, released: bool) -> None:
        words = {"context": self._sources} if self._sources else {}
        await self._mediator.settle(clearance, "ok", answers=answers, released=released, **words)

    # --- the first gate ---------------------------------------------------------------------------

    async def _clear_request(
        self,
        model: str,
        sent: CreateMessageParams,
        most: int,
        problem: Problem | None,
    ) -> Cleared:
        payload = msgspec.json.encode({"model": model, **msgspec.to_builtins(sent)})
        flows, must_ask, denied = self._flows(model)
        problems = tuple(one for one in (problem, denied) if one is not None)

        def intent_of(given: bytes, more: tuple[Problem, ...]) -> Intent:
            try:
                chosen, params = _read_request(given)
            except ValueError:
                # Its faults say so; no more can be known of it.
                chosen, params = model, sent
            if chosen != model:
                _, _, refused = self._flows(chosen)
                more = more if refused is None else (*more, refused)
            # A rule may have come meanwhile, and it may be another provider.
            stands = [self._offered.problem(source, chosen) for source in self._sources]
            more = (*more, *(one for one in stands if one is not None))
            return self._asker.intent(
                Action.SAMPLING_REQUEST,
                chosen,
                model=chosen,
                tokens=params.max_tokens,
                problems=more,
            )

        def check(given: bytes) -> list[str]:
            return _request_faults(given, self._sampling.names(), most)

        def options() -> Mapping[str, Any]:
            to_ask, why = self._offered.to_ask(self._sources, model)
            reasons = "; ".join(one for one in (must_ask, why) if one)
            if said := self._unruled():
                # The person's word for this prompt: it is not kept, and no kept one stands for it.
                return {"scopes": (Scope.ONCE,), "must_ask": reasons or said}
            return {"must_ask": reasons, "also": [*flows, *to_ask]}

        return await clear_when_it_fits(
            self._mediator,
            payload,
            intent_of=intent_of,
            view_of=lambda given: self._request_view(given, model, most),
            check=check,
            problems=problems,
            risks=_request_risks(self._asker, self._params),
            fill_in=self._fill_in,
            options=options,
        )

    def _unruled(self) -> str:
        """Why a person has to see what goes out: whose words are in it by no rule."""
        names = self._sources if self._was_filled else self._offered.unruled(self._sources)
        return f"words of {', '.join(names)} are in it" if names else ""

    def _fill_in(self, given: bytes) -> tuple[bytes, str] | None:
        """The prompt with the words that the person wants in it; None when they want none."""
        try:
            model, params = _read_request(given)
        except ValueError:
            return None
        wanted = params.include_context or "none"
        found = self._offered.open_to_person(model, wanted)
        new = [source for source in found if source not in self._sources]
        if wanted == "none" or not new:
            return None
        self._sources += new
        self._was_filled = True
        filled = msgspec.structs.replace(
            params,
            messages=[*self._offered.message(new), *params.messages],
            include_context="none",
        )
        payload = msgspec.json.encode({"model": model, **msgspec.to_builtins(filled)})
        names = ", ".join(new)
        return payload, f"The words of {names} are in the prompt now, as you wanted. Read them."

    def _request_view(self, payload: bytes, model: str, most: int) -> View:
        params = self._params
        shown = facts_about(self._asker)
        wishes = _wishes(params)
        if wishes:
            shown.append(("it wishes for", wishes))
        wanted = params.include_context or "none"
        if wanted != "none":
            names = ", ".join(self._sources)
            given = f"the words of {names}" if names else "nothing"
            shown.append(("context", f"it asks for {wanted}, and gets {given}"))
            more = self._offered.open_to_person(model)
            if set(more) - set(self._sources):
                shown.append(
                    (
                        "to give it context",
                        f"put {wanted!r} for includeContext below: the words of {', '.join(more)} "
                        "come in, and you read them before they go out",
                    )
                )
        if params.max_tokens > most:
            shown.append(("tokens", f"it asks for {params.max_tokens}, and gets at most {most}"))
        return View(
            headline=f"The server {self._asker.server!r} asks your model. Send it this prompt?",
            payload=payload,
            facts=(*shown, *self._asker.lines()),
        )

    def _flows(self, model: str) -> tuple[list[Intent], str, Problem | None]:
        """The server's words go to the model's provider: what the answer settles with the prompt,
        why it has to be asked, and what stands against it."""
        flow = self._asker.intent(
            Action.FLOW, f"{self._asker.server} -> model:{model.partition(':')[0]}"
        )
        verdict = self._mediator.judge(flow)
        # Where only the default speaks, the decision about the prompt is the decision.
        if verdict.step in (Step.DEFAULT, Step.RISK) or verdict.effect is Effect.ALLOW:
            return [], "", None
        if verdict.effect is Effect.ASK:
            return [flow], f"{verdict.rule}: its words would go to {model!r}", None
        problem = Problem(code=Code.FLOW_DENIED, text=f"{verdict.rule}: {flow.object}")
        return [], "", problem

    # --- the model --------------------------------------------------------------------------------

    async def _ask_model(
        self, clearance: Cleared, model: str, params: CreateMessageParams
    ) -> CreateMessageResult:
        try:
            result = _as_one(await self._models.answer(model, params))
            check_sampling_result(result)
            self._answered = msgspec.json.encode(result)
        except asyncio.CancelledError:
            await self._mediator.settle(clearance, "cancelled")
            raise
        except Exception as error:
            await self._mediator.settle(clearance, "failed", error=type(error).__name__)
            raise
        return result

    # --- the second gate --------------------------------------------------------------------------

    async def _clear_release(self, model: str, result: CreateMessageResult) -> Cleared:
        payload = self._answered

        def intent_of(given: bytes, more: tuple[Problem, ...]) -> Intent:
            return self._asker.intent(Action.SAMPLING_RELEASE, model, model=model, problems=more)

        def view_of(given: bytes) -> View:
            return View(
                headline=f"Give this answer of your model to the server {self._asker.server!r}?",
                payload=given,
                facts=(
                    *facts_about(self._asker),
                    ("model", model),
                    *([("words in the prompt", ", ".join(self._sources))] if self._sources else ()),
                    *self._asker.lines(),
                ),
            )

        said = self._unruled()
        # A yes to the answers before was for those without such words.
        seen: dict[str, Any] = {"scopes": (Scope.ONCE,), "must_ask": said} if said else {}
        return await clear_when_it_fits(
            self._mediator,
            payload,
            intent_of=intent_of,
            view_of=view_of,
            check=_release_faults,
            risks=unseen_risks(texts_in(msgspec.to_builtins(result))),
            trace=self._trace,
            **seen,
        )


def _as_one(result: CreateMessageResult) -> CreateMessageResult:
    """The answer with several pieces of text as one: not every revision has room for more."""
    blocks = _blocks(result.content)
    texts = [
        block.text
        for block in blocks
        if isinstance(block, TextContent) and block.annotations is None and block.meta is None
    ]
    if len(blocks) == 1:
        return msgspec.structs.replace(result, content=blocks[0])
    if not blocks or len(texts) < len(blocks):
        return result
    return msgspec.structs.replace(result, content=TextContent(text="".join(texts)))


def _is_again(error: BaseException) -> bool:
    """Whether a person wants another answer, and not just none."""
    return isinstance(error, Denied) and error.code is Code.CANCELLED and error.note == REGENERATE


# --- prompts --------------------------------------------------------------------------------------


def _resolved(
    params: CreateMessageParams, context: Sequence[SamplingMessage], max_tokens: int
) -> CreateMessageParams:
    """What the model is to be given: the wishes are settled, and nothing of the envelope is left.

    Context is among the messages, where a person reads it like the rest; in the system prompt the
    model would take it for orders.
    """
    return msgspec.structs.replace(
        params,
        messages=[*context, *params.messages],
        max_tokens=max_tokens,
        include_context="none",
        model_preferences=None,
        meta=None,
    )


def _read_request(payload: bytes) -> tuple[str, CreateMessageParams]:
    """A payload of the first gate. Raises ValueError."""
    value = read_json(payload)
    if not isinstance(value, dict) or not isinstance(value.get("model"), str):
        raise ValueError("the request must name its model")
    model = value.pop("model")
    return model, read_record(CreateMessageParams, value)


def _request_faults(payload: bytes, names: Sequence[str], most: int) -> list[str]:
    try:
        model, params = _read_request(payload)
        check_sampling(params)
    except ValueError as fault:
        return [str(fault)]
    faults = []
    if model not in names:
        faults.append(f"there is no model {model!r}; there is {', '.join(names)}")
    if params.max_tokens > most:
        faults.append(f"maxTokens may be at most {most}")
    if params.include_context != "none":
        faults.append("there are no words to bring in: includeContext has to stay none")
    return faults


def _release_faults(payload: bytes) -> list[str]:
    try:
        result = read_record(CreateMessageResult, read_json(payload))
        check_sampling_result(result)
    except ValueError as fault:
        return [str(fault)]
    if result.role != "assistant":
        return ["the role of an answer is assistant"]
    has_uses = any(isinstance(block, ToolUseContent) for block in _blocks(result.content))
    if result.stop_reason == "toolUse" and not has_uses:
        # The server would wait for what it is to run.
        return ["it stops for a tool use (stopReason) and has none"]
    return []


def _request_risks(asker: Asker, params: CreateMessageParams) -> list[Risk]:
    risks = unseen_risks(texts_in(msgspec.to_builtins(params)))
    if not asker.calls():
        risks.append(Risk(code="unasked", text="No call of yours is under way: it asks by itself."))
    media = _media_in(params)
    if media:
        risks.append(
            Risk(code="media", text=f"It holds {media} pictures or sounds, which are base64 here.")
        )
    if params.tools:
        risks.append(
            Risk(
                code="tools", text=f"It brings {len(params.tools)} tools of its own for the model."
            )
        )
    return risks


def _wishes(params: CreateMessageParams) -> str:
    """Its wishes for a model, as JSON; empty when it has none."""
    wishes = params.model_preferences
    return "" if wishes is None else msgspec.json.encode(wishes).decode()


# --- counting -------------------------------------------------------------------------------------


def _blocks(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _media_in(params: CreateMessageParams) -> int:
    return sum(
        isinstance(block, ImageContent | AudioContent)
        for message in params.messages
        for outer in _blocks(message.content)
        for block in (outer.content if isinstance(outer, ToolResultContent) else [outer])
    )


def _tokens_in(content: Any) -> int:
    return sum(map(_tokens_of_block, _blocks(content)))


def _tokens_of_block(block: Any) -> int:
    if isinstance(block, ImageContent | AudioContent):
        return MEDIA_TOKENS
    if isinstance(block, ToolResultContent):
        # A picture in it is a picture, and no text of its base64.
        data = msgspec.json.encode(block.structured_content) if block.structured_content else b""
        return sum(map(_tokens_of_block, block.content)) + estimated_tokens(data)
    return estimated_tokens(msgspec.json.encode(block))


def _tokens_of(params: CreateMessageParams) -> int:
    """About how many tokens a prompt has, its tools included."""
    count = estimated_tokens(params.system_prompt or "")
    count += sum(_tokens_in(message.content) for message in params.messages)
    return count + (estimated_tokens(msgspec.json.encode(params.tools)) if params.tools else 0)
