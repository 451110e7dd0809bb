"""What the specification asks of a host, with real servers, counted where it reaches them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dragoman.host import ApprovalRequest, Denied, Host, Scope
from dragoman.host.events import (
    ApprovalPending,
    ApprovalResolved,
    CallFinished,
    CallProgress,
    CallStarted,
    HostEvent,
)
from dragoman.host.kinds import Code, Decision
from dragoman.host.models.scripted import Call, ScriptedModel, Turn
from tests.host.test_host import Person, Talk
from tests.requirements.duties import duty
from tests.support import run

# A server that does as it is told and notes every byte that reaches it.
TOLD = Path(__file__).parent.parent / "attacks" / "hostile.py"


class Told:
    """One such server: its plan, and what it has seen."""

    def __init__(self, folder: Path, name: str, **plan: Any) -> None:
        self.notes = folder / f"{name}.notes"
        self.plan = folder / f"{name}.json"
        self.plan.write_text(json.dumps({"notes": str(self.notes), **plan}))
        self.entry: dict[str, Any] = {
            "command": sys.executable,
            "args": [str(TOLD), str(self.plan)],
        }

    def seen(self) -> str:
        """All it knows: its arguments, its environment and every message."""
        return self.notes.read_text()

    def messages(self, *methods: str) -> list[dict[str, Any]]:
        """The messages of these methods that have reached it; "" are answers."""
        lines = map(json.loads, self.notes.read_text().splitlines())
        found = [json.loads(line["raw"]) for line in lines if line["what"] == "got"]
        return [one for one in found if one.get("method", "") in methods]


def host_of(folder: Path, servers: dict[str, Told], person: Any = None, **options: Any) -> Host:
    config = folder / "mcp.json"
    config.write_text(
        json.dumps({"mcpServers": {name: one.entry for name, one in servers.items()}})
    )
    return Host.load(config, approver=person, state=folder / "state", environ={}, **options)


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def says(text: str) -> dict[str, Any]:
    return {"answer": {"content": [{"type": "text", "text": text}]}}


def asks(method: str, **params: Any) -> dict[str, Any]:
    return {"ask": {"method": method, "params": params}}


# --- what a server learns -------------------------------------------------------------------------


@duty("isolation.conversation", "trust.data.exposed")
def test_a_server_learns_nothing_of_the_conversation_of_the_host_or_of_another_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret-of-the-host")
    one = Told(
        tmp_path, "one", lists={"tools/list": [tool("look")]}, on={"tools/call": [says("seen-by-one")]}
    )  # fmt: skip
    two = Told(tmp_path, "two", lists={"tools/list": [tool("look")]})
    one.entry["env"] = {"ITS_OWN": "secret-of-one"}
    model = ScriptedModel(
        [
            Turn(text="words of the model", calls=(Call(tool="one__look", arguments={"a": 1}),)),
            Turn(calls=(Call(tool="two__look", arguments={"b": 2}),)),
            Turn(text="Done."),
        ]
    )

    async def main() -> None:
        person = Person()
        async with host_of(tmp_path, {"one": one, "two": two}, person, models=[model]) as host:
            async for _ in host.conversation().send("words of the user"):
                pass

    run(main())
    assert [m["params"]["arguments"] for m in one.messages("tools/call")] == [{"a": 1}]
    assert [m["params"]["arguments"] for m in two.messages("tools/call")] == [{"b": 2}]
    for server in (one, two):
        for word in ("secret-of-the-host", "words of the user", "words of the model"):
            assert word not in server.seen()
    assert "secret-of-one" in one.seen()
    for word in ("secret-of-one", "seen-by-one", "one__look", one.notes.name):
        assert word not in two.seen()


@duty("trust.data.forwarded", "trust.data.exposed", "trust.control")
def test_what_a_resource_says_goes_to_another_server_only_with_consent(tmp_path: Path) -> None:
    one = Told(
        tmp_path,
        "one",
        lists={"resources/list": [{"uri": "note://1", "name": "a"}]},
        on={"resources/read": [{"answer": {"contents": [{"uri": "note://1", "text": "private"}]}}]},
    )
    two = Told(tmp_path, "two", lists={"tools/list": [tool("send")]})
    # Even the user's own rule for the tool is no consent to that.
    rules = ["allow tool(two/send)"]

    async def main(answer: bool, *more: str) -> tuple[Person, Code | None]:
        person = Person(tool_call=answer)
        talk = Talk()
        servers = {"one": one, "two": two}
        async with host_of(tmp_path, servers, person, rules=[*rules, *more]) as host:
            read = await host.read_resource("one", "note://1", conversation=talk)
            try:
                await host.call_tool("two", "send", {"text": read.text}, conversation=talk)
            except Denied as denied:
                return person, denied.code
        return person, None

    person, code = run(main(False))
    (asked,) = person.questions("tool.call")
    assert code is Code.PERSON_DENIED
    assert b"private" in asked.view.payload
    assert "taint" in [risk.code for risk in asked.risks]
    person, code = run(main(True, "deny flow(one -> server:two)"))
    assert (person.questions("tool.call"), code) == ([], Code.FLOW_DENIED)
    assert two.messages("tools/call") == []
    assert run(main(True))[1] is None
    assert len(two.messages("tools/call")) == 1


# --- what a person sees ---------------------------------------------------------------------------


@duty("tools.ui.exposed", "trust.tools.understood", "trust.consent")
def test_what_models_may_see_is_shown_whole_before_and_can_be_looked_at_after(
    tmp_path: Path,
) -> None:
    schema = {"type": "object", "properties": {"path": {"type": "string", "description": "which"}}}
    wipe = tool("wipe", description="Deletes a file.", inputSchema=schema, x_unknown="kept")
    server = Told(tmp_path, "disk", lists={"tools/list": [wipe]})

    async def main(expose: Any) -> tuple[Person, list[tuple[str, bool, str]]]:
        person = Person(tool_expose=expose, tool_call=False)
        async with host_of(tmp_path, {"disk": server}, person) as host:
            listed = await host.list_tools(all=True)
            assert [one.name for one in await host.list_tools()] == (["wipe"] if expose else [])
            with pytest.raises(Denied):
                await host.call_tool("disk", "wipe", {"path": "a"})
            told = [
                (one.name, one.is_usable, "".join(p.text for p in one.problems)) for one in listed
            ]
        return person, told

    person, told = run(main(False))
    (asked,) = person.questions("tool.expose")
    assert json.loads(asked.view.payload) == [{"kind": "tool", "definition": wipe}]
    ((name, is_usable, why),) = told
    assert (name, is_usable) == ("wipe", False)
    assert "review" in why
    assert person.questions("tool.call") == []
    person, told = run(main(Scope.SESSION))
    assert told == [("wipe", True, "")]
    (asked,) = person.questions("tool.call")
    assert ("it says", "Deletes a file.") in asked.view.facts
    assert server.messages("tools/call") == []


@duty("tools.ui.invoked")
def test_it_is_seen_when_a_tool_is_asked_for_called_and_done(tmp_path: Path) -> None:
    progress = {"method": "notifications/progress", "params": {"progress": 1}}
    server = Told(
        tmp_path,
        "slow",
        lists={"tools/list": [tool("walk")]},
        on={"tools/call": [{"notify": progress}]},
    )

    async def main() -> list[HostEvent]:
        events: list[HostEvent] = []
        answers = iter((True, False))
        person = Person(tool_call=lambda request: request.allow() if next(answers) else None)
        async with host_of(tmp_path, {"slow": server}, person) as host:
            await host.ready()
            host.on_event(events.append)
            await host.call_tool("slow", "walk", {"far": 1})
            with pytest.raises(Denied):
                await host.call_tool("slow", "walk", {"far": 2})
        return events

    seen = (ApprovalPending, ApprovalResolved, CallStarted, CallProgress, CallFinished)
    events = [event for event in run(main()) if isinstance(event, seen)]
    kinds = [type(event) for event in events if not isinstance(event, CallProgress)]
    # A call that was refused was never started, and that is seen, too.
    assert kinds == [
        ApprovalPending, ApprovalResolved, CallStarted, CallFinished,
        ApprovalPending, ApprovalResolved, CallFinished,
    ]  # fmt: skip
    started = next(event for event in events if isinstance(event, CallStarted))
    assert (started.server, started.tool, started.arguments) == ("slow", "walk", b'{"far":1}')


# --- what a person decides ------------------------------------------------------------------------


@duty("roots.ui", "roots.consent", "roots.access-control", "trust.data.exposed")
def test_folders_are_seen_opened_and_closed_by_the_person(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    a, b, c = (folder.as_uri() for folder in folders)
    server = Told(
        tmp_path,
        "files",
        lists={"tools/list": [tool("look")]},
        on={"tools/call": [asks("roots/list")]},
    )
    server.entry["roots"] = ["a"]

    async def main() -> Person:
        person = Person(roots_expose=lambda request: request.intent.object != c)
        async with host_of(tmp_path, {"files": server}, person) as host:
            await host.call_tool("files", "look", {})
            assert host.roots("files") == [a]
            host.add_root("files", folders[1])
            host.add_root("files", folders[2])
            assert host.roots("files") == [a, b, c]
            await host.call_tool("files", "look", {})
            host.remove_root("files", folders[0])
            await host.call_tool("files", "look", {})
        return person

    person = run(main())
    (start,) = person.questions("server.start")
    assert ("folder it may use", a) in start.view.facts
    answers = [answer["result"]["roots"] for answer in server.messages("")]
    assert [[root["uri"] for root in roots] for roots in answers] == [[a], [a, b], [b]]
    assert len(server.messages("notifications/roots/list_changed")) == 3
    assert c not in server.seen()


@duty("elicitation.complete.manual", "elicitation.url.consent")
def test_who_went_to_an_address_can_stop_waiting_and_try_again(tmp_path: Path) -> None:
    visit = asks(
        "elicitation/create",
        mode="url",
        url="https://login.example/x",
        message="Log in.",
        elicitationId="e1",
    )
    # The first time the server waits for somebody to come to that page, for ever.
    server = Told(
        tmp_path,
        "web",
        lists={"tools/list": [tool("fetch")]},
        on={"tools/call": {"turns": [[visit, {"never": 1}], [says("there you are")]]}},
    )

    async def main() -> str:
        answered = asyncio.Event()

        def agree(request: ApprovalRequest) -> Decision:
            answered.set()
            return request.allow()

        person = Person(elicit_url=agree)
        async with host_of(tmp_path, {"web": server}, person) as host:
            await host.ready()
            passed = asyncio.Event()
            host.passages = lambda name, passage: passed.set() if passage.is_answer else None
            waiting = asyncio.ensure_future(host.call_tool("web", "fetch", {}))
            await answered.wait()
            await passed.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            return (await host.call_tool("web", "fetch", {})).text

    assert run(main()) == "there you are"
    (answer,) = server.messages("")
    assert answer["result"] == {"action": "accept"}
    assert len(server.messages("notifications/cancelled")) == 1


@duty("trust.control", "trust.flows", "tools.human")
def test_an_answer_that_was_given_for_always_is_seen_and_taken_back(tmp_path: Path) -> None:
    server = Told(tmp_path, "disk", lists={"tools/list": [tool("wipe")]})

    async def main() -> None:
        person = Person(tool_call=Scope.ALWAYS)
        async with host_of(tmp_path, {"disk": server}, person) as host:
            await host.call_tool("disk", "wipe", {})
            await host.call_tool("disk", "wipe", {})
            assert len(person.questions("tool.call")) == 1
            (grant,) = [one for one in host.remembered() if one.action == "tool.call"]
            assert (grant.server, grant.object, grant.effect) == ("disk", "wipe", "allow")
            assert host.revoke(grant.id)
            person.answers["tool.call"] = False
            with pytest.raises(Denied):
                await host.call_tool("disk", "wipe", {})

    run(main())
    assert len(server.messages("tools/call")) == 2


@duty("tools.sensitive-confirmed", "trust.tools.caution", "tools.annotations.untrusted")
def test_what_a_tool_says_against_itself_counts_and_in_its_favour_only_from_who_is_trusted(
    tmp_path: Path,
) -> None:
    wipe = tool("wipe", annotations={"destructiveHint": True})
    peek = tool("peek", annotations={"readOnlyHint": True, "openWorldHint": False})
    server = Told(tmp_path, "disk", lists={"tools/list": [wipe, peek]})

    async def main() -> list[str]:
        asked: list[str] = []
        person = Person(tool_call=lambda request: asked.append(request.intent.object))
        rules = ["allow tool(disk/*)"]
        async with host_of(tmp_path, {"disk": server}, person, rules=rules) as host:
            # The rule allows all; what says that it destroys is asked about nevertheless.
            for name, talk in (("peek", None), ("wipe", None), ("peek", Talk("disk"))):
                try:
                    await host.call_tool("disk", name, {}, conversation=talk)
                except Denied:
                    asked.append("refused")
            # Where a server's words may have led to it, "it only reads" is believed of a server that
            # the person trusts, and of no other.
            host.trust("disk")
            await host.call_tool("disk", "peek", {}, conversation=Talk("disk"))
        return asked

    assert run(main()) == ["wipe", "refused", "peek", "refused"]
    assert [m["params"]["name"] for m in server.messages("tools/call")] == ["peek", "peek"]
