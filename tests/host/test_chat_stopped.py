"""A turn that is stopped, dropped or broken: what is told, and that the next one goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.errors import Misconfigured, WrongState
from dragoman.host import Host
from dragoman.host.chat import (
    Bounds,
    Conversation,
    Ending,
    Notice,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    TurnEnded,
)
from dragoman.host.models.base import ModelEvent, ModelRequest, TextDelta
from dragoman.host.models.scripted import Call, ScriptedModel, Turn
from dragoman.model.content import ResourceContents
from dragoman.model.progress import ProgressParams
from dragoman.model.resources import ReadResourceResult
from tests.host.talk import Asked, Desk, answers, assert_valid, one_turn, only, told, turn, uses
from tests.support import run


async def forever(*_: Any) -> str:
    await asyncio.Event().wait()
    return ""


def test_a_call_that_is_cancelled_is_told_as_finished() -> None:
    async def talk() -> tuple[list[Any], Conversation]:
        conversation = Conversation(
            Desk({"a": forever}),
            ScriptedModel([uses("a", "a", "a"), "x"]),
            bounds=Bounds(parallel=2),
        )
        events: list[Any] = []
        async for event in conversation.send("go"):
            events.append(event)
            if len(only(events, ToolStarted)) == 2:
                conversation.cancel()
        return events, conversation

    events, conversation = run(talk())
    ends, begins = only(events, ToolFinished), only(events, ToolStarted)
    assert {one.id for one in ends} == {one.id for one in begins}
    assert events[-1] == TurnEnded(reason=Ending.CANCELLED)
    assert [told(one).partition(":")[0] for one in answers(conversation)] == [
        "Cancelled before it was done; it may have run in part.",
        "Cancelled before it was done; it may have run in part.",
        "Not called",
    ]
    assert_valid(conversation.transcript.messages)


def test_a_reader_that_is_cancelled_twice_leaves_a_conversation_to_go_on_with() -> None:
    async def talk() -> None:
        may_end = asyncio.Event()
        was_cancelled = asyncio.Event()

        async def slow(*_: Any) -> str:
            try:
                return await forever()
            except asyncio.CancelledError:
                was_cancelled.set()
                await may_end.wait()
                raise

        desk = Desk({"a": slow})
        conversation = Conversation(desk, ScriptedModel([uses("a"), "again"]))
        reader = asyncio.create_task(turn(conversation))
        while not desk.asked:
            await asyncio.sleep(0)
        reader.cancel()
        await was_cancelled.wait()
        reader.cancel()
        await asyncio.wait([reader])
        was_busy = conversation.is_busy
        may_end.set()
        while conversation.is_busy:
            await asyncio.sleep(0)
        assert was_busy
        await turn(conversation, "hi")
        assert_valid(conversation.transcript.messages)

    run(talk())


def test_who_leaves_the_loop_can_say_the_next_thing_at_once() -> None:
    async def talk() -> list[Any]:
        desk = Desk({"a": forever})
        conversation = Conversation(desk, ScriptedModel([uses("a"), "again"]))
        async for event in conversation.send("go"):
            if isinstance(event, ToolStarted):
                break
        events = await turn(conversation, "hi")
        assert desk.cancelled == 1
        assert_valid(conversation.transcript.messages)
        return events

    assert run(talk())[-1] == TurnEnded(reason=Ending.END)


def test_who_stops_at_the_end_of_a_turn_can_say_the_next_thing() -> None:
    async def talk() -> None:
        conversation = Conversation(Desk(), ScriptedModel(["one", "two"]))
        first = conversation.send("go")
        async for event in first:
            if isinstance(event, TurnEnded):
                break
        await turn(conversation, "hi")
        await first.aclose()

    run(talk())


def test_a_turn_that_somebody_still_reads_is_not_ended_by_the_next() -> None:
    async def talk() -> None:
        conversation = Conversation(Desk({"a": forever}), ScriptedModel([uses("a")]))
        events = conversation.send("go")
        await anext(events)
        with pytest.raises(WrongState, match="the conversation is in the middle of a turn"):
            await turn(conversation, "hi")
        assert conversation.is_busy
        await events.aclose()
        assert not conversation.is_busy

    run(talk())


def test_what_a_model_said_before_its_adapter_broke_is_kept() -> None:
    class Broken(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
            yield TextDelta("I said this.")
            raise ValueError("a fault of the adapter")

    conversation = Conversation(Desk(), Broken([]))
    with pytest.raises(ValueError, match="adapter"):
        run(turn(conversation))
    assert "I said this." in str(conversation.transcript.messages[-1])


def test_progress_that_comes_late_is_no_news() -> None:
    late: list[Asked] = []

    def first(_: Any, asked: Asked) -> str:
        late.append(asked)
        return "done"

    def second(_: Any, asked: Asked) -> str:
        late[0].on_progress(ProgressParams(progress_token="1", progress=1))
        asked.on_progress(ProgressParams(progress_token="2", progress=1))
        return "done"

    events, _ = one_turn(Desk({"a": first, "b": second}), uses("a"), uses("b"), "ok")
    assert [one.tool for one in only(events, ToolProgress)] == ["b"]


def test_calls_that_come_to_nothing_are_told_to_the_person() -> None:
    wrong = Turn(calls=(Call(tool="s__none"), Call(tool="s__a"), Call(tool="s__a")))
    events, _ = one_turn(Desk({"a": lambda *_: "x"}), wrong, "ok", bounds=Bounds(calls=2))
    texts = [one.text for one in only(events, Notice)]
    assert "the model wants a tool that it does not have: s__none" in texts
    assert "1 calls were not made: a turn has at most 2" in texts


def test_an_id_of_a_model_goes_nowhere_as_it_is() -> None:
    odd = Turn(
        calls=(Call(tool="s__a", id="x\n\x1b" * 1000), Call(tool="s__a", id="x\n\x1b" * 1000))
    )
    desk = Desk({"a": lambda *_: "x"})
    _, conversation = one_turn(desk, odd, "ok")
    assert all(one.trace.isprintable() and len(one.trace) < 100 for one in desk.asked)
    assert len({one.trace for one in desk.asked}) == 2
    assert_valid(conversation.transcript.messages)


@pytest.mark.parametrize("bound", ["rounds", "parallel", "result_tokens"])
def test_bounds_that_let_nothing_happen_are_refused(bound: str) -> None:
    with pytest.raises(Misconfigured, match=bound):
        Bounds(**{bound: 0})
    Bounds(calls=0, tool_tokens=0)


@pytest.mark.parametrize("how", ["cancel", "reader", "close"])
def test_a_turn_can_be_stopped_at_each_of_its_steps(how: str) -> None:
    async def stopped(after: int) -> bool:
        async def slow(_: Any, asked: Asked) -> str:
            asked.on_progress(ProgressParams(progress_token="1", progress=1))
            await asyncio.sleep(0)
            return "word " * 9000

        part = ResourceContents(uri="n://1", text="words")
        desk = Desk({"a": slow}, resources={"n://1": ReadResourceResult(contents=[part])})
        page = Turn(calls=(Call(tool="read_result", arguments={"handle": "r1"}),))
        model = ScriptedModel([uses("a", "a"), page, "done", *["again"] * 3])
        conversation = Conversation(desk, model)
        events = conversation.send("see @s:n://1")

        async def read() -> None:
            async for _ in events:
                pass

        reader = asyncio.create_task(read())
        for _ in range(after):
            await asyncio.sleep(0)
        is_over = reader.done()
        if how == "cancel":
            conversation.cancel()
        else:
            reader.cancel()
        await asyncio.wait([reader])
        if how == "close":
            await events.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert_valid(conversation.transcript.messages)
        model._script = ["again"]
        model.requests.clear()
        assert (await turn(conversation, "more"))[-1] == TurnEnded(reason=Ending.END)
        assert_valid(conversation.transcript.messages)
        return is_over

    async def work() -> int:
        after = 0
        while not await stopped(after):
            after += 1
        return after

    assert run(work()) > 10


def test_a_turn_of_the_host_is_over_when_its_events_are_closed(tmp_path: Path) -> None:
    closed: list[bool] = []

    class Endless(ScriptedModel):
        async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
            try:
                yield TextDelta("It begins")
                await asyncio.Event().wait()
            finally:
                closed.append(True)

    (tmp_path / "mcp.json").write_text('{"mcpServers": {}}')

    async def talk() -> None:
        async with Host.load(
            tmp_path / "mcp.json", state=tmp_path / "state", models=[Endless([])]
        ) as host:
            events = host.chat("/quoted:text", is_typed=False)
            assert await anext(events) == TextDelta("It begins")
            await events.aclose()
            assert closed == [True]

    run(talk())
