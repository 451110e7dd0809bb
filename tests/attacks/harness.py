"""What every attack needs: a project, a hostile server, a person who answers, and what must hold.

    @attack(22, "a call without a grant", "no request reaches the server")
    def test_nothing_is_called_without_a_grant(stage: Stage) -> None:
        evil = stage.server("evil", tools=[tool("wipe")])

        async def main() -> None:
            async with stage.host(Person(tool_call=False)) as host:
                with pytest.raises(Denied):
                    await host.call_tool("evil", "wipe", {})

        run(main())
        assert evil.calls() == []

`stage` is a fixture (conftest.py). When the test is over, `Stage.check` looks at what must hold
after every attack, whatever it was; `TOTALS` adds that up for the table.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import msgspec
import pytest

import dragoman.host.host as host_module
from dragoman.host import ApprovalRequest, Host, Scope
from dragoman.host.audit import read, verify
from dragoman.host.chain import LogPaths
from dragoman.host.gate import Passage, leaves_of
from dragoman.host.kinds import Decision, Effect
from dragoman.host.mediator import frozen
from dragoman.testing.faults import FaultPlan, FaultyConnector

__all__ = [
    "ATTACKS",
    "ALLOW",
    "Attack",
    "Hostile",
    "Person",
    "Stage",
    "TOTALS",
    "Talk",
    "Totals",
    "attack",
    "prompt",
    "tool",
    "until",
]

HOSTILE = Path(__file__).parent / "hostile.py"

# What needs a decision of its own: the action, and which member names the object.
CONSENT = {
    "tools/call": ("tool.call", "name"),
    "resources/read": ("resource.read", "uri"),
    "prompts/get": ("prompt.get", "name"),
    "completion/complete": ("complete", ""),
}

# Seed of the faults, set by `python -m tests.attacks` for its last round.
FAULTS = "DRAGOMAN_ATTACK_FAULTS"

# Where a server may be started and its offers seen without anybody being asked.
ALLOW = ["allow server.start(evil)", "allow server.connect(evil)", "allow tool.expose(evil/*)"]


# --- the numbers ----------------------------------------------------------------------------------


@dataclass
class Attack:
    """One line of the table: its number, what it is, what must come of it, and its tests."""

    number: int
    title: str
    refusal: str
    tests: list[str] = field(default_factory=list)


ATTACKS: dict[int, Attack] = {}

F = TypeVar("F", bound=Callable[..., Any])


def attack(number: int, title: str, refusal: str, *, quick: bool = False) -> Callable[[F], F]:
    """Register a test under an attack's number; the first that says them gives the words of the table.

    `quick` ones also run by default, as a sample.
    """

    def register(test: F) -> F:
        line = ATTACKS.setdefault(number, Attack(number, title, refusal))
        if not line.title:
            line.title, line.refusal = title, refusal
        line.tests.append(f"{test.__module__}::{test.__qualname__}")
        return test if quick else pytest.mark.attack(test)

    return register


@dataclass
class Totals:
    """What the checks after the attacks have counted."""

    attacks: int = 0
    reached: int = 0
    unauthorised: int = 0
    uncovered: int = 0
    viewed: int = 0
    unfaithful: int = 0
    asked_twice: int = 0
    canaries: int = 0
    left_behind: int = 0
    broken_audits: int = 0
    questions: int = 0
    searched: int = 0
    headless: int = 0
    late: int = 0
    mutations: int = 0
    mutations_missed: int = 0
    reorderings: int = 0
    false_alarms: int = 0

    def add(self, **counts: int) -> None:
        """Add to some of them."""
        for name, value in counts.items():
            setattr(self, name, getattr(self, name) + value)


TOTALS = Totals()


# --- the person -----------------------------------------------------------------------------------


class Person:
    """Answers by action, and keeps every request and every answer.

    `Person(tool_call=False, sampling_request=Scope.SESSION)`: the value is True, False, a Scope, an
    Effect, a Decision, or a function of the request that gives one of these, or a coroutine. What
    is not named is allowed; a start and what a server offers, for always.
    """

    def __init__(self, **answers: Any) -> None:
        self.asked: list[ApprovalRequest] = []
        self.decisions: dict[str, Decision] = {}
        self.open: Counter[str] = Counter()
        self.asked_twice = 0
        self.answers: dict[str, Any] = {"tool.expose": Scope.ALWAYS, "server.start": Scope.ALWAYS}
        self.answers |= {name.replace("_", ".", 1): value for name, value in answers.items()}
        self._news = asyncio.Event()

    async def decide(self, request: ApprovalRequest) -> Decision:
        """An answer to one request."""
        if request.id in {one.id for one in self.asked} or self.open[request.dedupe_key]:
            self.asked_twice += 1
        self.asked.append(request)
        self.open[request.dedupe_key] += 1
        self._news.set()
        try:
            said = self.answers.get(request.action, True)
            if callable(said):
                said = said(request)
            if isinstance(said, Awaitable):
                said = await said
        finally:
            self.open[request.dedupe_key] -= 1
        decision = self.as_decision(request, said)
        self.decisions[request.id] = decision
        return decision

    @staticmethod
    def as_decision(request: ApprovalRequest, said: Any) -> Decision:
        """What a short answer stands for."""
        if isinstance(said, Decision):
            return said
        if isinstance(said, Scope):
            return request.allow(said)
        if said is Effect.CANCEL:
            return request.cancel()
        return request.allow() if said in (True, Effect.ALLOW) else request.deny()

    def questions(self, action: str) -> list[ApprovalRequest]:
        """What was asked about an action."""
        return [one for one in self.asked if one.action == action]

    async def question(self, action: str) -> ApprovalRequest:
        """Wait for the first question about an action."""
        while not self.questions(action):
            self._news.clear()
            await self._news.wait()
        return self.questions(action)[0]

    def saw(self, text: str) -> bool:
        """Whether a text was in anything that was shown."""
        return any(
            text in one.view.headline
            or text.encode() in one.view.payload
            or any(text in part for fact in one.view.facts for part in fact)
            or any(text in risk.text for risk in one.risks)
            for one in self.asked
        )


class Talk:
    """A conversation, as far as the host looks at it."""

    def __init__(self, *taint: str, sink: str = "") -> None:
        self.taint = set(taint)
        self.sink = sink


async def forever(request: ApprovalRequest) -> bool:
    """The answer of somebody who is not there."""
    await asyncio.Event().wait()
    raise AssertionError


async def until(host: Host, holds: Callable[[], bool]) -> None:
    """Wait for something to hold; looked at with each event of the host."""
    changed = asyncio.Event()
    end = host.on_event(lambda event: changed.set())
    try:
        while not holds():
            changed.clear()
            await changed.wait()
    finally:
        end()


# --- definitions ----------------------------------------------------------------------------------


def tool(name: str, **members: Any) -> dict[str, Any]:
    """A tool that takes anything, as it stands in a list."""
    return {"name": name, "description": f"Does {name}.", "inputSchema": {"type": "object"}} | {
        key: value for key, value in members.items() if value is not None
    }


def prompt(name: str, *arguments: str, **members: Any) -> dict[str, Any]:
    """A prompt as it stands in a list."""
    return {"name": name, "arguments": [{"name": one} for one in arguments], **members}


# --- the servers ----------------------------------------------------------------------------------


class Hostile:
    """One hostile server, seen from outside: what reached it, and how to tell it what to do."""

    def __init__(self, stage: Stage, alias: str) -> None:
        self.stage = stage
        self.alias = alias
        self.plan_file = stage.folder / f"{alias}.plan.json"
        self.notes_file = stage.folder / f"{alias}.notes.jsonl"
        self.plan: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, plan: Mapping[str, Any]) -> None:
        """Another plan, from its next start on."""
        self.plan = {**plan, "notes": str(self.notes_file)}
        self.plan_file.write_text(json.dumps(self.plan))

    def notes(self, what: str = "") -> list[dict[str, Any]]:
        """What it noted."""
        if not self.notes_file.exists():
            return []
        lines = self.notes_file.read_text().splitlines()
        notes = [json.loads(line) for line in lines]
        return [one for one in notes if not what or one["what"] == what]

    @property
    def starts(self) -> list[dict[str, Any]]:
        """Its starts, with argv, env and pid."""
        return self.notes("start")

    def raw(self) -> list[bytes]:
        """Each message that reached it, byte for byte."""
        return [one["raw"].encode("utf-8", "surrogateescape") for one in self.notes("got")]

    def got(self, method: str | None = None) -> list[Any]:
        """The messages that reached it, of one method ("answer" for answers)."""
        found = []
        for raw in self.raw():
            try:
                message = json.loads(raw)
            except ValueError:
                continue
            is_answer = "method" not in message
            if method is None or (
                (is_answer if method == "answer" else not is_answer)
                and (is_answer or message["method"] == method)
            ):
                found.append(message)
        return found

    def calls(self, name: str | None = None) -> list[Any]:
        """The arguments of the tool calls that reached it."""
        return [
            one["params"].get("arguments")
            for one in self.got("tools/call")
            if name is None or one["params"]["name"] == name
        ]

    def answers(self) -> list[Any]:
        """The answers that reached it, results and errors, in order; what it asked is in
        `notes("asked")`."""
        return self.got("answer")

    async def tell(self, *steps: Mapping[str, Any]) -> None:
        """Have it do something now; returns when it is done."""
        port = self.starts[-1]["control"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(json.dumps(steps).encode() + b"\n")
            assert await reader.readline() == b"done\n"
        finally:
            writer.close()
            await writer.wait_closed()

    def serve(self) -> str:
        """Start it as an HTTP server; returns its URL."""
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(HOSTILE), str(self.plan_file), "--http"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", "")},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        return str(self.starts[-1]["url"])

    def close(self) -> None:
        """End it, where we started it."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


@dataclass
class Passed:
    """A message that left, as the gate saw it, and whether its record was on disk by then."""

    server: str
    passage: Passage
    was_recorded: bool
    is_taken: bool = False


class Stage:
    """A project with hostile servers, a state folder, and what must hold in the end.

    `states` are the folders of grants and audit that hosts used, of which `state` is the first.
    `environ` is the host's environment, with a canary; `secret` another one, which belongs to the
    server "vault" alone where there is one. `is_outside` says that hosts ran in other processes, so
    that nobody heard of passages here; `is_tampered` that the audit was broken on purpose;
    `is_shown` that a person was shown `secret`, since it was to be sent to whose it is.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log_text: Callable[[], str]) -> None:
        # Its own, and short: a path of pytest's is too long for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="attack-"))
        self.project = self.folder / "project"
        self.project.mkdir()
        self.config = self.project / "mcp.json"
        self.state = self.folder / "state"
        self.states = [self.state]
        self.canary = f"canary-{token_hex(16)}"
        self.secret = f"secret-{token_hex(16)}"
        self.environ = {
            "HOME": str(self.folder),
            "PATH": os.environ.get("PATH", ""),
            "HOST_API_KEY": self.canary,
            "VAULT_TOKEN": self.secret,
        }
        self.is_outside = False
        self.is_tampered = False
        self.is_shown = False
        self.servers: dict[str, Hostile] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.people: list[Person] = []
        self.passed: list[Passed] = []
        self.seen: list[str] = []
        self._log_text = log_text
        self._monkeypatch = monkeypatch
        # A child inherits from the process, not from what a host was given.
        monkeypatch.setenv("HOST_API_KEY", self.canary)
        seed = os.environ.get(FAULTS)
        if seed:
            self._break_things(int(seed))

    def _break_things(self, seed: int) -> None:
        """From now on every connection of a host is a bad one."""
        whole = host_module._Hooks.connector
        plan = FaultPlan(seed=seed, cut=0.02, duplicate=0.05, delay=0.2, delay_s=0.01)

        def connector(hooks: Any, connection: Any) -> Any:
            return FaultyConnector(whole(hooks, connection), plan)

        self._monkeypatch.setattr(host_module._Hooks, "connector", connector)

    # --- setting it -------------------------------------------------------------------------------

    def server(
        self,
        alias: str = "evil",
        *,
        tools: list[Any] | None = None,
        prompts: list[Any] | None = None,
        templates: list[Any] | None = None,
        resources: list[Any] | None = None,
        on: Mapping[str, Any] | None = None,
        hello: Mapping[str, Any] | None = None,
        http: bool = False,
        entry: Mapping[str, Any] | None = None,
        **plan: Any,
    ) -> Hostile:
        """Put a hostile server into the project's mcp.json; again with one's name, change it.

        `entry` are members over those of its entry there.
        """
        hostile = self.servers.setdefault(alias, Hostile(self, alias))
        lists = {
            "tools/list": tools,
            "prompts/list": prompts,
            "resources/templates/list": templates,
            "resources/list": resources,
        }
        given = {name: items for name, items in lists.items() if items is not None}
        plan |= {"lists": given, "on": dict(on or {}), "hello": dict(hello or {})}
        hostile.write(plan)
        base: dict[str, Any] = {
            "command": sys.executable,
            "args": ["-I", str(HOSTILE), str(hostile.plan_file)],
        }
        if http:
            base = {"type": "http", "url": hostile.serve()}
        self.entries[alias] = {**base, **(entry or {})}
        self.write_config()
        return hostile

    def write_config(self, **more: Any) -> None:
        """Write mcp.json as `entries` have it."""
        self.config.write_text(json.dumps({"mcpServers": self.entries, **more}))

    def policy(self, settings: Mapping[str, Any]) -> Path:
        """Write a policy file of the user's, for `policy=`."""
        path = self.folder / "policy.json"
        path.write_text(json.dumps({"version": 1, **settings}))
        path.chmod(0o600)
        return path

    @asynccontextmanager
    async def host(self, person: Any = None, **options: Any) -> AsyncIterator[Host]:
        """A host of the project, with a person or several, or nobody."""
        people = person if isinstance(person, list) else [person] if person is not None else []
        self.people += [one for one in people if isinstance(one, Person)]
        options = {"state": self.state, "environ": self.environ, **options}
        if options["state"] not in self.states:
            self.states.append(options["state"])
        host = Host.load(self.config, approver=people, **options)
        host.passages = self._note_passage
        async with host:
            try:
                yield host
            finally:
                self.seen += [repr(one) + "\n".join(one.stderr) for one in host.servers]

    def _note_passage(self, server: str, passage: Passage) -> None:
        # The message leaves after this; what is in the file by now outlives us.
        is_there = any(
            one.get("seq") == passage.decision
            and one.get("kind") == "decision"
            # A refusal may be told; what an answer holds is looked at in the end.
            and (one.get("effect") == "allow" or passage.is_answer)
            and one.get("server") == server
            for one in self._on_disk()
        )
        # An empty list of roots tells nothing, and needs nobody's leave.
        is_free = passage.is_answer and passage.method == "roots/list" and not passage.decision
        self.passed.append(Passed(server, passage, is_there or is_free))

    def _on_disk(self) -> list[dict[str, Any]]:
        found = []
        for state in self.states:
            for path in LogPaths(_audit_of(state)).parts():
                for line in path.read_bytes().splitlines():
                    with suppress(ValueError):
                        found.append({**json.loads(line), "in": state})
        return found

    @property
    def audit_file(self) -> Path:
        """The audit log."""
        return _audit_of(self.state)

    def records(self, **wanted: Any) -> list[dict[str, Any]]:
        """The audit records that have these members."""
        if not self.audit_file.exists():
            return []
        found = list(read(self.audit_file))
        return [one for one in found if all(one.get(k) == v for k, v in wanted.items())]

    # --- what must hold ---------------------------------------------------------------------------

    def check(self) -> None:
        """Everything that must hold after any attack. Raises AssertionError with all that does not.

        (a) nothing that needs consent reached a server without an allowing record; (b) every
        message has a passage with a record that was on disk before it; (c) what was shown is what
        was approved is what arrived; (d) canaries are nowhere; (e) no process is left; (f) the
        audit is intact; (g) nobody was asked twice for one decision.
        """
        TOTALS.add(attacks=1)
        faults = [
            *self._check_messages(),
            *self._check_canaries(),
            *self._check_processes(),
            *self._check_audit(),
            *self._check_questions(),
        ]
        assert not faults, "\n".join(faults)

    def _check_messages(self) -> list[str]:
        faults: list[str] = []
        decisions = [one for one in self._on_disk() if one.get("kind") == "decision"]
        allowed = [one for one in decisions if one.get("effect") == "allow"]
        used: Counter[Any] = Counter()
        for alias, hostile in self.servers.items():
            mine = [one for one in allowed if one.get("server") == alias]
            was_started = hostile.starts and hostile.process is None
            if was_started and not any(one["action"] == "server.start" for one in mine):
                TOTALS.add(unauthorised=1)
                faults.append(f"(a) {alias} was started without a decision")
            for raw in hostile.raw():
                message = _read(raw)
                if message is None or bytes(message.error):
                    # A refusal, or the half of a frame that a fault has left.
                    continue
                TOTALS.add(reached=1)
                if message.method in CONSENT:
                    faults += self._check_asking(alias, message, mine, used)
                elif message.method is None:
                    faults += self._check_answer(alias, message, mine)
                else:
                    faults += self._check_standing(alias, message, mine)
        for passed in self.passed:
            if not passed.was_recorded:
                TOTALS.add(uncovered=1)
                faults.append(f"(b) {passed} left before its record was written")
        return faults

    def _check_asking(
        self,
        alias: str,
        message: _Message,
        allowed: list[dict[str, Any]],
        used: Counter[Any],
    ) -> list[str]:
        """One request that needs consent: an allowing record for these very bytes, used once."""
        assert message.method is not None
        action, member = CONSENT[message.method]
        params = msgspec.json.decode(message.params)
        payload = _payload_of(message)
        name = params.get(member) if member else params["ref"].get("name", params["ref"].get("uri"))
        about = f"{message.method} of {name!r} at {alias}"
        fitting = [
            one
            for one in allowed
            if one["action"] == action
            and one.get("object", "") == name
            # What only reads may be repeated when a connection breaks; a call never is.
            and (message.method != "tools/call" or not used[one["in"], one["seq"]])
        ]
        if not fitting:
            TOTALS.add(unauthorised=1)
            return [f"(a) {about} reached it without a decision"]
        exact = [one for one in fitting if one["args"]["digest"] == _keyed(one["in"], payload)]
        TOTALS.add(viewed=1)
        if not exact:
            TOTALS.add(unfaithful=1)
            return [f"(c) {about} arrived with other bytes than were decided: {payload[:200]!r}"]
        record = exact[0]
        used[record["in"], record["seq"]] += 1
        faults = []
        if "approval" in record and not self.is_outside:
            shown = self._approved(record)
            if shown is None or shown != payload:
                TOTALS.add(unfaithful=1)
                faults.append(f"(c) {about}: approved {shown!r}, sent {payload[:200]!r}")
        return faults + self._take_passage(alias, message.method, record["seq"])

    def _take_passage(self, alias: str, method: str, seq: int) -> list[str]:
        if self.is_outside:
            return []
        for one in self.passed:
            if (
                not one.is_taken
                and one.server == alias
                and one.passage.method == method
                and one.passage.decision == seq
                and not one.passage.is_answer
            ):
                one.is_taken = True
                return []
        TOTALS.add(uncovered=1)
        return [f"(b) {method} (decision {seq}) reached {alias} past the gate"]

    def _check_answer(
        self, alias: str, message: _Message, allowed: list[dict[str, Any]]
    ) -> list[str]:
        """An answer to what the server asked: all that is in it was approved."""
        if self.is_outside:
            return []
        said = leaves_of(msgspec.json.decode(message.result))
        if said <= {"roots"} or said in ({"action", "decline"}, {"action", "cancel"}):
            # A ping's answer, no roots at all, a no: they tell nothing.
            return []
        # It names no method: any answer that passed and was approved with all of this will do.
        seqs = {
            one.passage.decision
            for one in self.passed
            if one.server == alias and one.passage.is_answer and one.passage.decision
        }
        TOTALS.add(viewed=1)
        mine = [one for one in allowed if one["seq"] in seqs]
        if not mine:
            TOTALS.add(unauthorised=1)
            return [f"(a) an answer reached {alias} without a decision: {said}"]
        if any(one["action"] == "roots.expose" for one in mine):
            # Each folder has a record of its own.
            uris = {one["object"] for one in allowed if one["action"] == "roots.expose"}
            if {one for one in said if isinstance(one, str) and "://" in one} <= uris:
                return []
        for one in mine:
            approval = one.get("approval")
            shown = self._approved(one) if approval else None
            if approval is None or (
                shown is not None and said <= leaves_of(msgspec.json.decode(shown)) | _OURS
            ):
                return []
        TOTALS.add(unfaithful=1)
        return [f"(c) an answer to {alias} holds what nobody approved: {said}"]

    def _check_standing(
        self, alias: str, message: _Message, allowed: list[dict[str, Any]]
    ) -> list[str]:
        """What the decision to start or connect covers."""
        if not any(one["action"] in ("server.start", "server.connect") for one in allowed):
            TOTALS.add(unauthorised=1)
            return [f"(a) {message.method} reached {alias} without a decision to connect"]
        if self.is_outside:
            return []
        for one in self.passed:
            if (
                not one.is_taken
                and one.server == alias
                and one.passage.method == message.method
                and not one.passage.is_answer
            ):
                one.is_taken = True
                return []
        TOTALS.add(uncovered=1)
        return [f"(b) {message.method} reached {alias} past the gate"]

    def _approved(self, record: Mapping[str, Any]) -> bytes | None:
        """The bytes that a person approved: the edit, or what was shown."""
        for person in self.people:
            for request in person.asked:
                decision = person.decisions.get(request.id)
                if request.id != record["approval"] or decision is None:
                    continue
                if decision.effect is not Effect.ALLOW:
                    return None
                edited = decision.payload
                return request.view.payload if edited is None else frozen(edited)
        return None

    def _check_canaries(self) -> list[str]:
        places: dict[str, str] = {"the log": self._log_text()}
        for path in (one for state in self.states for one in state.rglob("*")):
            if path.is_file():
                places[f"the file {path.name}"] = path.read_bytes().decode("latin-1")
        for number, text in enumerate(self.seen):
            places[f"status {number}"] = text
        for person in [] if self.is_shown else self.people:
            for request in person.asked:
                places[f"the view of {request.intent.subject}"] = repr(
                    request
                ) + request.view.payload.decode("utf-8", "replace")
        for alias, hostile in self.servers.items():
            for start in hostile.starts:
                env = json.dumps({k: v for k, v in start["env"].items() if k != "OWN_TOKEN"})
                places[f"the environment of {alias}"] = env + json.dumps(start["argv"])
            reached = "\n".join(raw.decode("utf-8", "replace") for raw in hostile.raw())
            if "${VAULT_TOKEN}" in json.dumps(self.entries.get(alias)):
                # Whose secret it is may be told it.
                reached = reached.replace(self.secret, "")
            places[f"what reached {alias}"] = reached
        faults = []
        TOTALS.add(searched=len(places))
        for place, text in places.items():
            for what, token in (("the host's", self.canary), ("another server's", self.secret)):
                if token in text:
                    TOTALS.add(canaries=1)
                    faults.append(f"(d) {what} secret is in {place}")
        return faults

    def _check_processes(self) -> list[str]:
        # By their command line: a confined one counts its process ids from 1.
        ours = {one.process.pid for one in self.servers.values() if one.process is not None}
        left = [pid for pid in _running(str(self.folder)) if pid not in ours]
        left += [
            note["pid"]
            for hostile in self.servers.values()
            for note in hostile.notes("ran")
            if _is_alive(note["pid"])
        ]
        faults = []
        for pid in left:
            TOTALS.add(left_behind=1)
            faults.append(f"(e) the process {pid} is left")
            os.kill(pid, signal.SIGKILL)
        return faults

    def _check_audit(self) -> list[str]:
        faults = []
        for state in [] if self.is_tampered else self.states:
            path = _audit_of(state)
            if path.exists() and not (report := verify(path)).is_intact:
                TOTALS.add(broken_audits=1)
                faults.append(f"(f) the audit is broken: {report}")
        return faults

    def _check_questions(self) -> list[str]:
        twice = sum(person.asked_twice for person in self.people)
        TOTALS.add(asked_twice=twice, questions=sum(len(one.asked) for one in self.people))
        return [f"(g) {twice} questions were asked twice"] if twice else []

    def close(self) -> None:
        """End what is left and remove everything."""
        for hostile in self.servers.values():
            hostile.close()
        shutil.rmtree(self.folder, ignore_errors=True)


# Values that the host puts into an answer by itself: what was answered, and by whom.
_OURS = frozenset({"action", "accept", "decline", "cancel", "content", "model", "role", "type"})


class _Message(msgspec.Struct):
    """A message, its values as text."""

    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"")
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _Params(msgspec.Struct):
    arguments: msgspec.Raw = msgspec.Raw(b"")
    uri: msgspec.Raw = msgspec.Raw(b"")
    ref: msgspec.Raw = msgspec.Raw(b"")
    argument: msgspec.Raw = msgspec.Raw(b"")
    context: msgspec.Raw = msgspec.Raw(b"")


def _read(raw: bytes) -> _Message | None:
    try:
        return msgspec.json.decode(raw, type=_Message)
    except msgspec.MsgspecError:
        return None


def _payload_of(message: _Message) -> bytes:
    """The bytes that a decision was about, as they arrived."""
    params = msgspec.json.decode(message.params, type=_Params)
    if message.method == "resources/read":
        return b'{"uri":' + bytes(params.uri) + b"}"
    if message.method == "completion/complete":
        parts = [bytes(one) for one in (params.ref, params.argument, params.context) if bytes(one)]
        return b"[" + b",".join(parts) + b"]"
    return bytes(params.arguments) or b"{}"


def _audit_of(state: Path) -> Path:
    return state / "audit" / "audit.jsonl"


def _keyed(state: Path, payload: bytes) -> str:
    key = LogPaths(_audit_of(state)).read_key()
    assert key is not None
    return f"hmac-sha256:{hmac.digest(key, payload, 'sha256').hex()}"


def _running(word: str) -> list[int]:
    """The processes, but this one, with a text in their command line; zombies have none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if pid != os.getpid() and word.encode() in line:
            found.append(pid)
    return found


def _is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def copied(person: Person, **answers: Any) -> Person:
    """Another person with the same answers but for some."""
    made = Person()
    made.answers = {**person.answers, **{n.replace("_", ".", 1): v for n, v in answers.items()}}
    return made


def other_view(decision: Decision) -> Decision:
    """The same answer to another view."""
    return replace(decision, view_digest="sha256:" + "0" * 64)
