"""The folders a user opens to servers: each to the servers it was opened to, and each by consent.

Spec: client/roots
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from dragoman.client.roots import RootLike, as_roots
from dragoman.errors import Misconfigured
from dragoman.host.asks.common import (
    Answered,
    Asker,
    Cleared,
    Mediates,
    facts_about,
    texts_in,
    unseen_risks,
)
from dragoman.host.budget import Budget
from dragoman.host.canonical import digest
from dragoman.host.kinds import Action, Code, Denied, Effect, Intent, Problem, View
from dragoman.model.roots import ListRootsResult, Root

__all__ = ["NOT_SHOWN", "RootState", "RootsBook"]

# 100 folders for one server: each is a question of its own.
MAX_ROOTS = 100

NOT_SHOWN = "its sandbox was made without it: it takes effect when the server is started again"
"""The fault of a folder that was opened to a confined server after its start."""

# 10 lists a minute: a server asks once, and once more after each change.
LISTS_PER_MINUTE = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class RootState:
    """One folder as it is now: `target` is where it really leads, `fault` why it is left out."""

    root: Root
    target: Path
    fault: str = ""

    @property
    def is_there(self) -> bool:
        """Whether it can be opened."""
        return not self.fault


class RootsBook:
    """Which folders are opened to which server.

    `on_change` hears of a server whose list is another one now, also because a folder has gone or
    come back (`refresh` looks).
    """

    def __init__(
        self,
        mediator: Mediates,
        budgets: Callable[[str], Budget],
        *,
        on_change: Callable[[str], object] | None = None,
    ) -> None:
        self._mediator = mediator
        self._budgets = budgets
        self._on_change = on_change
        self._roots: dict[str, dict[str, Root]] = {}
        # Where each led when it was last looked at, empty for one that was not there.
        self._seen: dict[str, dict[str, str]] = {}
        # What the configuration says, by server.
        self._seeded: dict[str, set[str]] = {}
        # What the sandbox of a confined server shows it, as it was made.
        self._shown: dict[str, tuple[Path, ...]] = {}

    # --- what the user puts there -----------------------------------------------------------------

    def seed(self, server: str, roots: Iterable[RootLike]) -> None:
        """Put in what the configuration says, once; what was removed since stays out."""
        if server in self._seeded:
            return
        mine = self._roots.setdefault(server, {})
        made = as_roots(roots)
        self._seeded[server] = {root.uri for root in made}
        for root in made:
            mine.setdefault(root.uri, root)
        self._seen[server] = {uri: _led_to(root) for uri, root in mine.items()}

    def add(self, server: str, root: RootLike) -> Root:
        """Open a folder to a server; it is asked about when the server wants to know.

        A server in a sandbox is not told of one that its sandbox does not show: see `for_start`.

        Raises:
            Misconfigured: it is no absolute path or file URI, or climbs with `..`; or there are too
                many.
        """
        (made,) = as_roots([root])
        mine = self._roots.setdefault(server, {})
        if made.uri not in mine and len(mine) >= MAX_ROOTS:
            raise Misconfigured(f"at most {MAX_ROOTS} folders can be opened to {server!r}")
        is_new = mine.get(made.uri) != made
        mine[made.uri] = made
        self._seen.setdefault(server, {})[made.uri] = _led_to(made)
        if is_new and self._is_shown(server, _look(made)):
            self._changed(server)
        return made

    def remove(self, server: str, root: RootLike) -> None:
        """Close a folder to a server. Misconfigured when it was not open."""
        (made,) = as_roots([root])
        if self._roots.get(server, {}).pop(made.uri, None) is None:
            raise Misconfigured(f"{made.uri} is not open to the server {server!r}")
        self._seen.get(server, {}).pop(made.uri, None)
        self._changed(server)

    def listed(self, server: str) -> list[str]:
        """The URIs of the folders that are opened to a server, in the order they were added."""
        return list(self._roots.get(server, ()))

    def states(self, server: str) -> list[RootState]:
        """The same with what is the matter with each."""
        return [self._state(server, root) for root in self._roots.get(server, {}).values()]

    def _state(self, server: str, root: Root) -> RootState:
        state = _look(root)
        if state.is_there and not self._is_shown(server, state):
            return replace(state, fault=NOT_SHOWN)
        return state

    def _is_shown(self, server: str, state: RootState) -> bool:
        """Whether the server could open it: it is not confined, or its sandbox shows it."""
        shown = self._shown.get(server)
        # By its name, and by where that leads: a link may lead out of what is shown.
        return shown is None or any(
            state.root.path.is_relative_to(path)
            and state.target.is_relative_to(os.path.realpath(path))
            for path in shown
        )

    # --- for a sandbox ----------------------------------------------------------------------------

    async def for_start(self, asker: Asker) -> list[Path]:
        """The folders that a sandbox is to show besides those of the configuration.

        Each that was opened since is asked about now, as it would be when the server wants to know:
        what a sandbox shows is there from the start on.
        """
        server = asker.server
        states = [_look(root) for root in self._roots.get(server, {}).values()]
        added = [
            state
            for state in states
            if state.is_there and state.root.uri not in self._seeded.get(server, ())
        ]
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._expose(asker, one, states, None)) for one in added]
        return [
            state.root.path
            for state, task in zip(added, asked, strict=True)
            if not isinstance(task.result(), Denied)
        ]

    def confined(self, server: str, shown: Iterable[Path] | None) -> None:
        """Note what the sandbox of a server shows it; None: it has none."""
        self._shown.pop(server, None)
        if shown is not None:
            self._shown[server] = tuple(shown)

    def refresh(self) -> list[str]:
        """Look whether folders have gone or come back; the servers concerned, who are told."""
        changed = []
        for server, mine in self._roots.items():
            if not mine and not self._seen.get(server, True):
                continue
            now = {uri: _led_to(root) for uri, root in mine.items()}
            if now != self._seen.get(server):
                self._seen[server] = now
                changed.append(server)
        for server in changed:
            self._changed(server)
        return changed

    def _changed(self, server: str) -> None:
        if self._on_change is not None:
            self._on_change(server)

    # --- what a server sees -----------------------------------------------------------------------

    def is_offered(self, asker: Asker) -> bool:
        """Whether a server could ever be shown a folder: else it is not told of roots at all."""
        intents = [_intent_of(asker, state) for state in self.states(asker.server)]
        # Where somebody can be asked, folders may be opened to it later.
        if self._mediator.broker.can_ask:
            intents.append(asker.intent(Action.ROOTS_EXPOSE))
        return any(self._mediator.judge(one).effect is not Effect.DENY for one in intents)

    async def answer(self, asker: Asker) -> Answered[ListRootsResult]:
        """The folders that the server may know of: those that are there and were agreed to.

        Each is a question of its own, all asked at once, and what was refused is just not there.
        """
        states = [state for state in self.states(asker.server) if state.is_there]
        budget = self._budgets(asker.server)
        turn = budget.take_turn("roots", (), per_minute=LISTS_PER_MINUTE, per_call=LISTS_PER_MINUTE)
        if turn is not None and not budget.is_news("roots"):
            none = ListRootsResult(roots=[])
            decision = budget.records.get("roots", 0)
            return Answered(result=none, payload=msgspec.json.encode(none), decision=decision)
        outcomes: list[Cleared | Denied] = []
        if states:
            async with asyncio.TaskGroup() as group:
                asked = [
                    group.create_task(self._expose(asker, state, states, turn)) for state in states
                ]
            outcomes = [task.result() for task in asked]
        exposed = [
            state.root
            for state, outcome in zip(states, outcomes, strict=True)
            if not isinstance(outcome, Denied)
        ]
        result = ListRootsResult(roots=exposed)
        # What is told was allowed; where nothing is, the record says why.
        allowed = [one.decision for one in outcomes if not isinstance(one, Denied)]
        decision = max(allowed or [one.decision for one in outcomes], default=0)
        if turn is not None:
            budget.records["roots"] = decision
        return Answered(
            result=result,
            payload=msgspec.json.encode(result),
            decision=decision,
        )

    async def _expose(
        self, asker: Asker, state: RootState, states: list[RootState], turn: Problem | None
    ) -> Cleared | Denied:
        root = state.root
        shown = facts_about(asker)
        if str(state.target) != str(root.path):
            shown.append(("leads to", str(state.target)))
        others = [one.root.uri for one in states if one is not state]
        if others:
            shown.append(("also open to it", "\n".join(others)))
        view = View(
            headline=f"Tell the server {asker.server!r} of this folder, to work in it?",
            payload=msgspec.json.encode(root),
            facts=(*shown, *asker.lines()),
        )

        async def again(given: bytes) -> Intent:
            # It may lead somewhere else by now, or have been closed.
            now = _look(root)
            problems = []
            if root.uri not in self._roots.get(asker.server, {}):
                problems.append(_unfit(f"{root.uri} is not open to the server any more"))
            if now.target != state.target:
                problems.append(_unfit(f"{root.uri} leads to {now.target} now, that was not shown"))
            return _intent_of(asker, now, tuple(problems))

        try:
            cleared = await self._mediator.clear(
                _intent_of(asker, state, () if turn is None else (turn,)),
                view,
                risks=unseen_risks(texts_in([root.uri, root.name or ""])),
                again=again,
            )
            await self._mediator.settle(cleared, "ok")
        except Denied as denied:
            return denied
        return cleared


def _unfit(text: str) -> Problem:
    return Problem(code=Code.ROOT_UNFIT, text=text)


def _intent_of(asker: Asker, state: RootState, problems: tuple[Problem, ...] = ()) -> Intent:
    """To show this folder, as far as it leads where it led: another target is another question."""
    if state.fault:
        problems = (*problems, _unfit(f"{state.root.uri}: {state.fault}"))
    return asker.intent(
        Action.ROOTS_EXPOSE,
        state.root.uri,
        fingerprint=digest(os.fsencode(state.target).decode("utf-8", "backslashreplace")),
        problems=problems,
    )


def _led_to(root: Root) -> str:
    state = _look(root)
    return str(state.target) if state.is_there else ""


def _look(root: Root) -> RootState:
    """What there is at a root's place now."""
    path = root.path
    try:
        (checked,) = as_roots([root])
        target = path.resolve(strict=True)
        is_readable = os.access(target, os.R_OK)
    except Misconfigured as fault:
        return RootState(root=root, target=path, fault=str(fault))
    except (OSError, RuntimeError, ValueError) as fault:
        told = getattr(fault, "strerror", None) or type(fault).__name__
        return RootState(root=checked, target=path, fault=f"it cannot be reached: {told}")
    return RootState(root=checked, target=target, fault="" if is_readable else "it cannot be read")
