"""The figures: drift, view fidelity, headless runs and secrets, each over many cases."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import DragomanError
from dragoman.host import ApprovalRequest, Denied, Host
from dragoman.host.kinds import Decision, Scope
from tests.attacks.harness import (
    ALLOW,
    ATTACKS,
    TOTALS,
    Hostile,
    Person,
    Stage,
    attack,
    forever,
    prompt,
    tool,
    until,
)
from tests.attacks.table import NOT_OURS, NUMBERS, as_markdown, import_all, missing
from tests.support import run

# --- the list -------------------------------------------------------------------------------------


@pytest.mark.attack
def test_every_number_has_a_test_or_a_reason() -> None:
    import_all()
    assert missing() == []
    assert set(ATTACKS) <= set(NUMBERS)
    assert all(line.title and line.refusal for line in ATTACKS.values())
    assert not set(NOT_OURS) & set(ATTACKS)


@pytest.mark.attack
def test_the_page_on_attacks_has_the_same_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "attacks.md"
    assert as_markdown() in page.read_text(encoding="utf-8")


# --- drift ----------------------------------------------------------------------------------------

RICH = tool(
    "send",
    title="Send",
    description="Sends a letter to somebody.",
    inputSchema={
        "type": "object",
        "properties": {
            "to": {"type": "string", "maxLength": 80, "description": "To whom."},
            "how": {"enum": ["fast", "slow", "by sea"], "default": "slow"},
            "copies": {"type": "integer", "minimum": 1, "maximum": 5},
            "deep": {"type": "object", "properties": {"a": {"type": ["string", "null"]}}},
        },
        "required": ["to", "how"],
        "additionalProperties": False,
    },
    outputSchema={"type": "object", "properties": {"ok": {"type": "boolean"}}},
    annotations={"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True},
    _meta={"a.b/c": {"x": [1, 2, 3]}, "n": 2**60, "f": 0.5},
)
OTHERS = [tool("read"), prompt("greet", "name")]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inside in items:
            yield from places(inside, (*path, key))


# Where any value of the same kind may stand, so that the list stays a list of tools.
FREE = ("inputSchema", "outputSchema", "annotations", "_meta", "title", "description")


def mutated(definition: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The same with one thing in it changed, added or taken away."""
    for _ in range(1000):
        changed = copy.deepcopy(definition)
        paths = [path for path in places(changed) if path and path[0] in FREE]
        *way, last = chance.choice(paths)
        inside: Any = changed
        for key in way:
            inside = inside[key]
        old = inside[last]
        kind = chance.choice(["change", "add", "remove", "swap"])
        if kind == "remove" and way:
            del inside[last]
        elif kind == "add" and isinstance(old, dict):
            # Annotations that nobody knows are kept, known ones are booleans.
            old["x" + chr(chance.randrange(0x61, 0x7B))] = chance.choice([None, 0, "", [], {}])
        elif kind == "swap" and isinstance(old, list) and len(old) > 1:
            # The order of a list counts; that of members does not.
            old.reverse()
        elif kind == "change":
            inside[last] = _other(old, chance)
        # True is 1 to Python, and 1 is 1.0, but not in JSON.
        if json.dumps(changed) != json.dumps(definition) and _is_tool(changed):
            return changed
    raise AssertionError("no mutation was found")


def _other(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + chance.choice([-1, 1])
    if isinstance(value, float):
        return value * 2
    if isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        more = chance.choice([" ", "\u200b", "\u0430", "x", "\U000e0041", "\u0301", "\n"])
        return value[:at] + more + value[at:]
    return value


def _is_tool(value: dict[str, Any]) -> bool:
    schema = value.get("inputSchema")
    return isinstance(schema, dict) and schema.get("type") == "object"


def reordered(value: Any, chance: random.Random) -> Any:
    """The same JSON value with its members in another order."""
    if isinstance(value, dict):
        items = [(key, reordered(inside, chance)) for key, inside in value.items()]
        chance.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [reordered(inside, chance) for inside in value]
    return value


async def offered(host: Host, evil: Hostile, tools: list[Any]) -> dict[str, bool]:
    """Have the server offer these, and wait until the host has read them: what is usable."""
    mark = tool(f"mark{TOTALS.mutations + TOTALS.reorderings}")
    is_read = until(host, lambda: any(one.name == mark["name"] for _, one in host._offers("tool")))
    waiting = asyncio.ensure_future(is_read)
    await evil.tell(
        {"set": {"lists": {"tools/list": [*tools, mark]}}},
        {"notify": {"method": "notifications/tools/list_changed"}},
    )
    await waiting
    return {one.name: one.is_usable for _, one in host._offers("tool")}


# A server that changes its list more than ten times in ten seconds is read more slowly.
ROUNDS = 5
TOOLS = 60


@attack(9, "", "")
def test_every_mutation_of_a_definition_is_found_and_no_reordering_is_one(stage: Stage) -> None:
    rich = [{**RICH, "name": f"send{number}"} for number in range(TOOLS)]
    evil = stage.server(tools=[*rich, OTHERS[0]])
    chance = random.Random(9)

    async def main() -> None:
        async with stage.host(Person()) as host:
            await host.ready()
            for number in range(ROUNDS):
                changed = [mutated(one, chance) for one in rich]
                usable = await offered(host, evil, [OTHERS[0], *changed])
                missed = [one for one in changed if usable[one["name"]]]
                TOTALS.add(mutations=TOOLS, mutations_missed=len(missed))
                assert missed == []
                assert usable["read"]
                if number % 2:
                    tools = [reordered(one, chance) for one in (*rich, OTHERS[0])]
                    chance.shuffle(tools)
                    usable = await offered(host, evil, tools)
                    alarms = [one["name"] for one in tools if not usable[one["name"]]]
                    TOTALS.add(reorderings=len(tools), false_alarms=len(alarms))
                    assert alarms == []

    run(main())


# --- view fidelity --------------------------------------------------------------------------------

AWKWARD = [
    "",
    "\x00\x01\x1f\x7f\x85",
    "\u2028\u2029\ufeff\u200b\u202e",
    "".join(chr(0xE0000 + ord(one)) for one in "hidden"),
    "e\u0301 \u00e9 \ufb01 \u212b",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\\u0041 \\\\ \" ' / </script> {{x}} %s \r\n\t",
    "\u0130\u0131\u00df\u1e9e",
    "\uffff\ufffe\ufdd0\U0010ffff",
    '{"arguments":{"a":1}}',
    "__proto__",
    " " * 5_000 + "end",
    "\n" * 3_000 + "end",
]
NUMBERS_OF = [0, -0.0, 1.0, 1e15, 1e16, 1e300, 5e-324, 0.1, 2**53, 2**63, -(2**63), 2**64 - 1]


def awkward(chance: random.Random, depth: int = 0) -> Any:
    """A JSON value that is easily got wrong."""
    kind = chance.randrange(9 if depth < 4 else 6)
    if kind < 3:
        drawn = chance.choice(AWKWARD)
        letters = (chr(chance.choice([chance.randrange(1, 0xD800), 0x1F600])) for _ in range(5))
        return drawn + "".join(letters)
    if kind == 3:
        return chance.choice(NUMBERS_OF)
    if kind == 4:
        return chance.choice([None, True, False])
    if kind == 5:
        return chance.randrange(-(10**15), 10**15) / chance.choice([1, 3, 7])
    if kind == 6:
        return [awkward(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {
        awkward_name(chance, number): awkward(chance, depth + 1)
        for number in range(chance.randrange(4))
    }


def awkward_name(chance: random.Random, number: int) -> str:
    """A member's name."""
    return chance.choice([*AWKWARD[:10], "a", "A", "_meta"]) + str(number)


def rewritten(value: Any, chance: random.Random) -> bytes:
    """The JSON text of a value as some other program writes it."""
    text = json.dumps(
        value,
        ensure_ascii=chance.random() < 0.5,
        indent=chance.choice([None, 1, "\t"]),
        separators=chance.choice([None, (",", ":"), (" , ", " : ")]),
    )
    return text.encode("utf-8", "surrogatepass")


@attack(24, "", "")
@pytest.mark.parametrize("http", [False, True])
def test_what_is_shown_is_what_is_approved_is_what_arrives(stage: Stage, http: bool) -> None:
    evil = stage.server(tools=[tool("send")], http=http)
    chance = random.Random(24 + http)
    approved: list[Any] = []

    def answer(request: ApprovalRequest) -> Decision:
        if chance.random() < 0.5:
            approved.append(json.loads(request.view.payload))
            return request.allow()
        edit = {"edited": awkward(chance), "more": awkward(chance)}
        approved.append(edit)
        return request.allow(payload=rewritten(edit, chance))

    async def main() -> None:
        async with stage.host(Person(tool_call=answer)) as host:
            for number in range(30 if http else 100):
                arguments = {"n": number, awkward_name(chance, number): awkward(chance)}
                await host.call_tool("evil", "send", arguments)
            for length in (1_000, 65_536, 1_000_000, 2_000_000):
                await host.call_tool("evil", "send", {"long": "\u20ac" * (length // 3) + "x"})

    run(main())
    # Byte for byte is what `Stage.check` compares; this is that the values are what they were.
    assert evil.calls() == approved


# --- nobody there ---------------------------------------------------------------------------------


async def _call(host: Host) -> None:
    await host.call_tool("evil", "send", {}, timeout_s=1)


async def _list(host: Host) -> None:
    await host.list_tools(wait_s=1)


async def _resource(host: Host) -> None:
    await host.read_resource("evil", "note://a", timeout_s=1)


ASKED = {
    "elicitation": {
        "method": "elicitation/create",
        "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}},
    },
    "sampling": {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}},
    "roots": {"method": "roots/list"},
}
HEADLESS: dict[str, tuple[dict[str, Any], list[str], Any, Callable[[Host], Any]]] = {
    "nothing is allowed": ({}, [], None, _call),
    "nothing is allowed, a list": ({}, [], None, _list),
    "the call is not allowed": ({}, ALLOW, None, _call),
    "the resource is not allowed": ({}, ALLOW, None, _resource),
    "it never says hello": ({"on": {"initialize": [{"never": 1}]}}, ALLOW, None, _list),
    "it never answers": (
        {"on": {"tools/call": [{"never": 1}]}},
        [*ALLOW, "allow tool(evil/send)"],
        None,
        _call,
    ),
    **{
        f"it asks for {what}": (
            {"on": {"tools/call": [{"ask": ask}]}},
            [*ALLOW, "allow tool(evil/send)"],
            None,
            _call,
        )
        for what, ask in ASKED.items()
    },
    "whoever is asked never answers": ({}, ALLOW, Person(tool_call=forever), _call),
    "whoever is asked never answers about the start": (
        {},
        [],
        Person(server_start=forever),
        _call,
    ),
}


@attack(7, "", "")
@pytest.mark.parametrize("situation", HEADLESS)
def test_a_run_without_anybody_ends_by_its_deadline(stage: Stage, situation: str) -> None:
    plan, rules, person, act = HEADLESS[situation]
    evil = stage.server(tools=[tool("send")], **plan)
    policy = stage.policy({"limits": {"approvalTimeout": 1}})

    async def main() -> None:
        TOTALS.add(headless=1)
        try:
            async with (
                asyncio.timeout(10),
                stage.host(
                    person and Person(**_answers(person)), rules=rules, policy=policy
                ) as host,
            ):
                try:
                    await act(host)
                except Denied:
                    pass
                except DragomanError:
                    # A server that does not answer; whoever is asked and does not is a no.
                    if not situation.startswith("it never"):
                        raise
        except TimeoutError:
            TOTALS.add(late=1)
            raise

    run(main())
    if "allowed" in situation or "asked" in situation:
        assert evil.calls() == []
    if situation.startswith("it asks"):
        # Nobody could grant it, so it is not offered, and asking is an error.
        (hello,) = evil.got("initialize")
        assert hello["params"]["capabilities"] == {}
        (answer,) = evil.answers()
        assert "error" in answer


def _answers(person: Person) -> dict[str, Any]:
    return {name.replace(".", "_", 1): value for name, value in person.answers.items()}


# --- secrets --------------------------------------------------------------------------------------


@attack(70, "", "")
def test_a_secret_that_a_server_spills_is_not_written_down(stage: Stage) -> None:
    spilled = [
        {"stderr": stage.secret},
        {"notify": _logged(stage.secret)},
        {"notify": _logged({"deep": [stage.secret]})},
    ]
    vault = stage.server(
        "vault",
        tools=[tool("open"), tool("fail"), tool("break")],
        on={
            "tools/call open": [*spilled, {"answer": _text(stage.secret)}],
            "tools/call fail": [{"answer": {**_text(stage.secret), "isError": True}}],
            "tools/call break": [{"error": {"code": -32000, "message": stage.secret}}],
        },
        entry={"env": {"OWN_TOKEN": "${VAULT_TOKEN}"}},
    )
    evil = stage.server(tools=[tool("send")])

    async def main() -> None:
        async with stage.host(Person(tool_call=Scope.ALWAYS)) as host:
            await host.call_tool("vault", "open", {}, trace="t1")
            for name in ("fail", "break"):
                with pytest.raises(DragomanError):
                    await host.call_tool("vault", name, {})
            # In somebody's own words to another server: it is asked about, and then recorded.
            await host.call_tool("evil", "send", {"note": "nothing of it"})

    run(main())
    assert vault.starts[0]["env"]["OWN_TOKEN"] == stage.secret
    assert len(vault.calls()) == 3
    assert len(evil.calls()) == 1


def _text(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


def _logged(data: Any) -> dict[str, Any]:
    return {"method": "notifications/message", "params": {"level": "error", "data": data}}


@attack(70, "", "")
@pytest.mark.parametrize("detail", ["shape", "digest", "full"])
def test_a_secret_in_arguments_is_cleared_from_the_record(stage: Stage, detail: str) -> None:
    vault = stage.server(
        "vault", tools=[tool("open")], entry={"env": {"OWN_TOKEN": "${VAULT_TOKEN}"}}
    )
    policy = stage.policy({"audit": {"args": detail}})

    async def main() -> None:
        async with stage.host(Person(), policy=policy) as host:
            await host.call_tool("vault", "open", {"with": stage.secret, stage.secret: 1})

    stage.is_shown = True
    run(main())
    assert vault.calls() == [{"with": stage.secret, stage.secret: 1}]


@attack(70, "", "")
def test_a_server_that_dies_with_its_secret_on_its_lips_is_not_quoted(stage: Stage) -> None:
    vault = stage.server(
        "vault",
        on={"initialize": [{"stderr": f"bad token {stage.secret}!"}, {"end": 3}]},
        entry={"env": {"OWN_TOKEN": "${VAULT_TOKEN}"}},
    )

    async def main() -> None:
        async with stage.host(Person()) as host:
            await host.ready()
            assert "3" in host.server("vault").detail

    run(main())
    assert vault.starts
