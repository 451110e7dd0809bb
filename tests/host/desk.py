"""A desk for tests of what servers ask: the real mediator, policy, stores and broker, one server."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from dragoman.host.asks import Asker
from dragoman.host.audit import Audit
from dragoman.host.broker import Broker
from dragoman.host.budget import Budget
from dragoman.host.chain import read
from dragoman.host.grants import GrantStore
from dragoman.host.kinds import Action, ApprovalRequest, Effect, Intent
from dragoman.host.mediator import Mediator
from dragoman.host.policy import Policy
from dragoman.host.rules import Rule
from tests.instant import run_instantly

T = TypeVar("T")

Answer = Callable[[ApprovalRequest], Any]


class Person:
    """Answers by a script: one answer for each question, and the last for all that follow."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[ApprovalRequest] = []

    def __call__(self, request: ApprovalRequest) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(request) if callable(answer) else answer

    def of(self, action: Action) -> list[ApprovalRequest]:
        """The questions about one kind of thing."""
        return [request for request in self.asked if request.action is action]


class Desk:
    """One server that asks, and everything that stands before the person."""

    def __init__(self, folder: Path, person: Person | None, policy: Policy) -> None:
        self.audit_file = folder / "audit.jsonl"
        self.audit = Audit(self.audit_file)
        self.grants = GrantStore(folder / "grants.sqlite")
        self.broker = Broker([] if person is None else [person])
        self.mediator = Mediator(
            policy=policy,
            grants=self.grants,
            audit=self.audit,
            broker=self.broker,
            session="s1",
        )
        self.now = 0.0
        self.calls: dict[str, str] = {"t1": "tool.call(maps/route)"}
        self._budgets: dict[str, Budget] = {}

    def budget(self, server: str) -> Budget:
        """What a server may still ask for, by a clock that stands unless `now` is moved."""
        return self._budgets.setdefault(server, Budget(lambda: self.now))

    def asker(self, server: str = "maps") -> Asker:
        """A server that asks."""

        def intent(action: Action, object: str = "", **more: Any) -> Intent:
            return Intent(
                action=action, server=server, identity=f"sha256:{server}", object=object, **more
            )

        return Asker(
            server=server,
            intent=intent,
            lines=lambda: (("command", f"/usr/bin/{server} --all"),),
            calls=lambda: self.calls,
        )

    def records(self, kind: str = "decision") -> list[dict[str, Any]]:
        """The audit records of one kind, in order."""
        return [record for record in read(self.audit_file) if record["kind"] == kind]


@contextmanager
def desk(person: Person | None, *rules: str, **settings: Any) -> Iterator[Desk]:
    """A desk with rules such as "deny sampling(maps)", and more members of the policy."""
    parsed = []
    for rule in rules:
        effect, _, text = rule.partition(" ")
        parsed.append(Rule.parse(text, effect=Effect(effect), layer="user"))
    with TemporaryDirectory() as folder:
        made = Desk(Path(folder) / "state", person, Policy(rules=tuple(parsed), **settings))
        try:
            yield made
        finally:
            made.audit.close()
            made.grants.close()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it where no time passes."""
    return run_instantly(coroutine)


def payload_of(request: ApprovalRequest) -> Any:
    """What the person is shown as that which will be sent."""
    return json.loads(request.view.payload)


def fact(request: ApprovalRequest, label: str) -> str:
    """One of the facts beside it."""
    return dict(request.view.facts)[label]
