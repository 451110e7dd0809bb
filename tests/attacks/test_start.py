"""Attacks 1 to 7: what is started, and what the user's own files can be made to say."""

from __future__ import annotations

import pytest

from dragoman.host import Denied, ServerState
from tests.attacks.harness import Person, Stage, attack, tool
from tests.support import run


@attack(1, "one-click config", "nothing spawns before consent, the full argv is shown", quick=True)
def test_nothing_is_started_before_a_yes(stage: Stage) -> None:
    evil = stage.server(tools=[tool("wipe")])

    async def main() -> None:
        person = Person(server_start=False)
        async with stage.host(person) as host:
            (status,) = await host.ready()
            assert status.state is ServerState.REFUSED
            with pytest.raises(Denied):
                await host.call_tool("evil", "wipe", {})
        (asked,) = person.asked
        assert str(evil.plan_file).encode() in asked.view.payload

    run(main())
    assert evil.starts == []


@attack(1, "", "")
def test_after_a_yes_it_runs(stage: Stage) -> None:
    evil = stage.server(tools=[tool("wipe")])

    async def main() -> None:
        async with stage.host(Person()) as host:
            await host.call_tool("evil", "wipe", {"all": True})

    run(main())
    assert evil.calls("wipe") == [{"all": True}]
