"""The host with real child processes: one path for everything, seen from the server's side."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import InvalidArguments, LinkError, Misconfigured, ToolError
from dragoman.host import ApprovalRequest, Code, Denied, Host, Scope, ServerState
from dragoman.host.audit import read, verify
from dragoman.host.config import Input
from dragoman.host.events import ApprovalChanged, HostEvent
from dragoman.host.kinds import Action, Decision, Effect, Trust
from tests.requirements.duties import duty
from tests.support import run

PLAIN = Path(__file__).parent / "servers" / "plain.py"


class Person:
    """Somebody who answers, and remembers what they were asked."""

    def __init__(self, **answers: Any) -> None:
        self.asked: list[ApprovalRequest] = []
        self.answers: dict[str, Any] = {"server.start": True, "tool.expose": Scope.ALWAYS}
        self.answers |= {name.replace("_", "."): value for name, value in answers.items()}

    async def decide(self, request: ApprovalRequest) -> Decision:
        self.asked.append(request)
        said = self.answers.get(request.action, True)
        if callable(said):
            said = said(request)
        if isinstance(said, Decision):
            return said
        if isinstance(said, Scope):
            return request.allow(said)
        return request.allow() if said else request.deny()

    def questions(self, action: str) -> list[ApprovalRequest]:
        return [one for one in self.asked if one.action == action]


class Place:
    """A project with servers, and a state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "mcp.json"
        self.state = folder / "state"
        self.file = folder / "reached.jsonl"
        self.write(plain={})

    def write(self, **servers: dict[str, Any]) -> None:
        entries = {
            name: {
                "command": sys.executable,
                "args": [str(PLAIN)],
                "env": {"REACHED": str(self.file)},
            }
            | more
            for name, more in servers.items()
        }
        self.config.write_text(json.dumps({"mcpServers": entries}))

    def host(self, person: Any = None, **options: Any) -> Host:
        return Host.load(self.config, approver=person, state=self.state, environ={}, **options)

    def reached(self) -> list[Any]:
        if not self.file.exists():
            return []
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def records(self, **wanted: str) -> list[dict[str, Any]]:
        found = list(read(self.state / "audit" / "audit.jsonl"))
        return [one for one in found if all(one.get(k) == v for k, v in wanted.items())]


async def until(host: Host, holds: Callable[[], bool]) -> None:
    """Wait for something to hold; looked at with each event of the host."""
    changed = asyncio.Event()
    end = host.on_event(lambda event: changed.set())
    while not holds():
        changed.clear()
        await changed.wait()
    end()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_twenty_identical_calls_are_one_question_whose_records_name_it(place: Place) -> None:
    async def main() -> None:
        counted: list[int] = []
        person = Person(tool_call=False)
        async with place.host(person) as host:
            await host.ready()
            host.broker.detach(person)

            def count(event: HostEvent) -> None:
                if isinstance(event, ApprovalChanged):
                    counted.append(event.request.askers)

            host.on_event(count)
            with host.broker.watching():
                calls = [
                    asyncio.ensure_future(host.call_tool("plain", "add", {"a": 1, "b": 2}))
                    for _ in range(20)
                ]
                await until(host, lambda: bool(counted) and counted[-1] == 20)
                (asked,) = host.broker.pending()
                host.broker.answer(asked.id, asked.allow("once"), channel="page")
                await asyncio.gather(*calls)
        assert counted == list(range(2, 21))
        records = place.records(kind="decision", action="tool.call")
        assert [(one["effect"], one["approval"]) for one in records] == [("allow", asked.id)] * 20
        assert len(place.reached()) == 20

    run(main())


@duty("tools.ui.confirm", "tools.inputs-shown", "tools.audit", "trust.flows")
def test_a_call_is_asked_about_made_and_recorded(place: Place) -> None:
    async def main() -> None:
        person = Person()
        async with place.host(person) as host:
            assert [tool.name for tool in await host.list_tools()][:2] == ["add", "delete"]
            result = await host.call_tool("plain", "add", {"a": 1, "b": 2})
            assert result.data == 3
            (asked,) = person.questions("tool.call")
            assert asked.view.payload == b'{"a":1,"b":2}'
            assert place.reached() == [["add", [1, 2]]]
        (record,) = place.records(kind="decision", action="tool.call")
        assert record["effect"] == "allow"
        assert verify(place.state / "audit" / "audit.jsonl").is_intact

    run(main())


@duty("tools.human", "trust.tools.consent", "trust.consent")
def test_what_the_person_refuses_reaches_no_server(place: Place) -> None:
    async def main() -> None:
        person = Person(tool_call=False)
        async with place.host(person) as host:
            with pytest.raises(Denied) as denied:
                await host.call_tool("plain", "delete", {"path": "/x"})
            assert denied.value.code is Code.PERSON_DENIED
            assert place.reached() == []
        (record,) = place.records(kind="decision", action="tool.call")
        assert record["effect"] == "deny"

    run(main())


@duty("trust.control")
def test_an_edit_is_what_the_server_receives(place: Place) -> None:
    async def main() -> None:
        person = Person(tool_call=lambda one: one.allow(payload=b'{ "a": 5, "b" : 6 }'))
        async with place.host(person) as host:
            result = await host.call_tool("plain", "add", {"a": 1, "b": 2})
            assert result.data == 11
            assert place.reached() == [["add", [5, 6]]]

    run(main())


def test_an_edit_that_does_not_fit_the_schema_goes_nowhere(place: Place) -> None:
    async def main() -> None:
        person = Person(tool_call=lambda one: one.allow(payload=b'{"a":"five"}'))
        async with place.host(person) as host:
            with pytest.raises(InvalidArguments):
                await host.call_tool("plain", "add", {"a": 1, "b": 2})
            assert place.reached() == []
            (asked,) = person.questions("tool.call")
        # That somebody said yes, and that nothing came of it, is in the record.
        (record,) = place.records(kind="decision", action="tool.call")
        assert (record["effect"], record["code"]) == ("deny", "arguments_unfit")
        assert (record["approval"], record["edited"]) == (asked.id, True)

    run(main())


def test_always_is_remembered_over_a_restart_of_the_host(place: Place) -> None:
    async def main() -> None:
        for asks in (1, 0):
            person = Person(tool_call=Scope.ALWAYS, server_start=Scope.ALWAYS)
            async with place.host(person) as host:
                await host.call_tool("plain", "add", {"a": 1, "b": 2})
                await host.call_tool("plain", "add", {"a": 3, "b": 4})
            assert len(person.questions("tool.call")) == asks
            assert len(person.questions("server.start")) == asks
            assert len(person.questions("tool.expose")) == asks
        assert len(place.reached()) == 4

    run(main())


def test_a_refusal_for_always_is_not_asked_again(place: Place) -> None:
    async def main() -> None:
        person = Person(tool_call=lambda one: one.deny(Scope.ALWAYS))
        async with place.host(person) as host:
            for code in (Code.PERSON_DENIED, Code.DENIED_BEFORE, Code.DENIED_BEFORE):
                with pytest.raises(Denied) as denied:
                    await host.call_tool("plain", "add", {"a": 1, "b": 2})
                assert denied.value.code is code
        assert len(person.questions("tool.call")) == 1
        assert place.reached() == []

    run(main())


@duty("trust.consent", "trust.tools.consent")
def test_without_anybody_to_ask_nothing_is_started(place: Place) -> None:
    async def main() -> None:
        async with place.host() as host:
            (status,) = await host.ready()
            assert status.state is ServerState.REFUSED
            with pytest.raises(Denied) as denied:
                await host.call_tool("plain", "add", {"a": 1, "b": 2})
            assert denied.value.code is Code.NOBODY_TO_ASK

    run(main())


def test_rules_allow_without_asking(place: Place) -> None:
    rules = ["allow server.start(plain)", "allow tool.expose(plain/*)", "allow tool(plain/add)"]

    async def main() -> None:
        async with place.host(rules=rules) as host:
            assert (await host.call_tool("plain", "add", {"a": 1, "b": 2})).data == 3
            with pytest.raises(Denied):
                await host.call_tool("plain", "delete", {"path": "x"})

    run(main())


@duty("trust.control")
def test_a_deny_rule_holds_whatever_the_person_says(place: Place) -> None:
    async def main() -> None:
        person = Person()
        async with place.host(person, rules=["deny tool(plain/delete)"]) as host:
            with pytest.raises(Denied) as denied:
                await host.call_tool("plain", "delete", {"path": "x"})
            assert denied.value.code is Code.RULE_DENIED
            assert person.questions("tool.call") == []

    run(main())


def test_a_tool_that_appears_later_is_hidden_until_it_is_reviewed(place: Place) -> None:
    async def main() -> None:
        person = Person()
        async with place.host(person) as host:
            await host.call_tool("plain", "grow", {})
            await until(host, lambda: "1 new" in host.server("plain").detail)
            with pytest.raises(Denied) as denied:
                await host.call_tool("plain", "grown", {})
            assert denied.value.code is Code.PIN_UNKNOWN
            assert "grown" not in [tool.name for tool in await host.list_tools()]
            assert "+++ tool/grown (now)" in host.diff("plain")
            host.accept("plain", ["tool/grown"])
            await host.call_tool("plain", "grown", {})
            assert place.reached() == [["grown", None]]

    run(main())


@duty("trust.tools.caution")
def test_another_command_under_the_same_name_is_not_started(place: Place, tmp_path: Path) -> None:
    async def main() -> None:
        person = Person(tool_call=Scope.ALWAYS, server_start=Scope.ALWAYS)
        async with place.host(person) as host:
            await host.call_tool("plain", "add", {"a": 1, "b": 2})
        place.write(plain={"env": {"REACHED": str(place.file), "NODE_OPTIONS": "--require evil"}})
        person = Person()
        async with place.host(person) as host:
            (status,) = await host.ready()
            assert status.state is ServerState.CHANGED
            assert "NODE_OPTIONS" in status.diff
            assert person.asked == []
            host.trust("plain", Trust.REVIEWED)
            await host.reconnect("plain")
            await host.ready()
            # What was granted to the other one is not granted to this one.
            await host.call_tool("plain", "add", {"a": 1, "b": 2})
            assert len(person.questions("tool.call")) == 1

    run(main())


def test_a_dead_server_is_seen_and_holds_up_nobody(place: Place) -> None:
    async def main() -> None:
        place.write(plain={}, dead={"command": "/nonexistent/program"})
        person = Person()
        async with place.host(person) as host:
            assert await host.list_tools()
            dead = host.server("dead")
            assert dead.state in (ServerState.CONNECTING, ServerState.FAILED)
            assert "/nonexistent/program" in dead.detail
            with pytest.raises(Misconfigured, match="did you mean 'plain'"):
                await host.call_tool("plian", "add", {})

    run(main())


def test_a_server_whose_variable_is_not_set_has_failed_and_the_others_go_on(place: Place) -> None:
    async def main() -> None:
        place.write(plain={}, lame={"args": [str(PLAIN), "${NOT_SET}"]})
        with pytest.raises(Misconfigured, match="NOT_SET"):
            place.host(Person())
        person = Person()
        async with place.host(person, may_be_unset=True) as host:
            assert await host.list_tools()
            lame = host.server("lame")
            assert (lame.state, lame.identity) == (ServerState.FAILED, "")
            assert f"{place.config}:1: the server 'lame' needs the variable NOT_SET" in lame.detail
            # Nobody is asked about what could not be started, or to trust what nobody knows.
            assert {one.server for one in person.asked} == {"plain"}
            with pytest.raises(LinkError, match="NOT_SET"):
                await host.call_tool("lame", "add", {"a": 1, "b": 2})
            with pytest.raises(Misconfigured, match="NOT_SET"):
                host.trust("lame")

    run(main())


def test_an_input_is_asked_for_when_its_server_is_opened(place: Place) -> None:
    place.write(plain={"args": [str(PLAIN), "${input:word}"]}, other={"args": ["${input:secret}"]})
    whole = json.loads(place.config.read_text())
    inputs = [{"id": "word"}, {"id": "secret", "password": True}]
    place.config.write_text(json.dumps(whole | {"inputs": inputs}))
    asked: list[str] = []

    def ask(wanted: Input) -> str:
        asked.append(wanted.id)
        return "said-by-the-person"

    async def main() -> None:
        host = place.host(Person(), inputs=ask, may_be_unset=True)
        try:
            assert asked == []
            # By the name of the password: who it is does not depend on what is said.
            host.trust("other")
            assert asked == []
            await host.open(["plain"])
            assert asked == ["word"]
            (plain,) = await host.ready()
            assert plain.state is ServerState.CONNECTED
            assert "said-by-the-person" in dict(plain.facts)["command"]
        finally:
            await host.aclose()

    run(main())


def test_a_tool_that_fails_is_the_callers_to_see(place: Place) -> None:
    async def main() -> None:
        async with place.host(Person()) as host:
            with pytest.raises(ToolError, match="no luck"):
                await host.call_tool("plain", "fail", {"reason": "no luck"})
            result = await host.call_tool(
                "plain", "fail", {"reason": "no luck"}, raise_on_error=False
            )
            assert result.is_error

    run(main())


@duty("trust.tools.consent")
def test_the_client_inside_a_host_can_do_nothing_by_itself(place: Place) -> None:
    async def main() -> None:
        async with place.host(Person()) as host:
            await host.ready()
            client = host._connection("plain").client
            assert client is not None
            with pytest.raises(LinkError):
                await client.call_tool("add", {"a": 1, "b": 2})
            assert place.reached() == []
        assert place.records(kind="event", event="held_back")

    run(main())


@duty("trust.consent", "trust.data.exposed")
def test_resources_and_prompts_go_the_same_way(place: Place) -> None:
    async def main() -> None:
        person = Person(resource_read=False)
        async with place.host(person) as host:
            with pytest.raises(Denied):
                await host.read_resource("plain", "note://a")
            await host.get_prompt("plain", "greet", {"name": "Bo"})
            await host.read_resource("plain", "note://b", is_own_act=True)
            assert place.reached() == [["greet", "Bo"], ["note", "b"]]

    run(main())


class Talk:
    """A conversation, as far as the host looks at it."""

    def __init__(self, *taint: str, sink: str = "") -> None:
        self.taint = set(taint)
        self.sink = sink


@duty("trust.data.forwarded")
def test_words_of_one_server_do_not_go_to_another_unasked(place: Place) -> None:
    async def main() -> None:
        place.write(plain={}, other={})
        person = Person()
        rules = ["allow tool(other/delete)", "allow tool(plain/*)"]
        async with place.host(person, rules=rules) as host:
            talk = Talk()
            await host.call_tool("plain", "add", {"a": 1, "b": 2}, conversation=talk)
            assert talk.taint == {"plain"}
            assert person.questions("tool.call") == []
            await host.call_tool("other", "delete", {"path": "x"}, conversation=talk)
            (asked,) = person.questions("tool.call")
            assert "taint" in [risk.code for risk in asked.risks]

    run(main())


def test_twenty_identical_calls_at_once_are_one_question(place: Place) -> None:
    async def main() -> None:
        person = Person()
        async with place.host(person) as host:
            await host.ready()
            await asyncio.gather(
                *(host.call_tool("plain", "add", {"a": 1, "b": 2}) for _ in range(20))
            )
            assert len(person.questions("tool.call")) == 1
            await host.call_tool("plain", "add", {"a": 1, "b": 2})
            assert len(person.questions("tool.call")) == 2

    run(main())


def test_explain_names_the_step_and_asks_nobody(place: Place) -> None:
    person = Person()
    host = place.host(person, rules=["deny tool(plain/del*)"])
    verdict = host.explain(Action.TOOL_CALL, "plain", "delete", {"path": "x"})
    assert verdict.effect is Effect.DENY
    assert verdict.trail
    assert person.asked == []
    host.audit.close()
    host.grants.close()


def test_explain_knows_what_was_remembered_of_a_server_that_does_not_run(place: Place) -> None:
    async def main() -> None:
        person = Person(tool_call=Scope.ALWAYS, tool_expose=Scope.ALWAYS)
        async with place.host(person) as host:
            await host.call_tool("plain", "add", {"a": 1, "b": 2})
        host = place.host(Person())
        verdict = host.explain("tool", "plain", "add", {"a": 5, "b": 6})
        assert (verdict.effect, verdict.step) == (Effect.ALLOW, "grant")
        # It was shown with the others, and nobody has said yes to calls of it.
        assert host.explain("tool.call", "plain", "delete", {"path": "x"}).effect is Effect.ASK
        with pytest.raises(Misconfigured, match=r"did you mean 'tool\.call'"):
            host.explain("tool.cal", "plain", "delete")
        host.audit.close()
        host.grants.close()

    run(main())
