"""Starting a server, and what it says of itself."""

from __future__ import annotations

import asyncio

import pytest

from dragoman import Client, Misconfigured, Server
from tests.support import joined, run


def test_run_inside_a_running_loop_says_what_to_await() -> None:
    async def scenario() -> None:
        with pytest.raises(Misconfigured, match=r"await server\.run_async"):
            Server("inside").run()

    asyncio.run(scenario())


def test_an_unknown_transport_is_refused() -> None:
    with pytest.raises(Misconfigured, match="'pigeon' is not one of: stdio"):
        Server("s").run("pigeon")  # type: ignore[arg-type]


def test_the_version_is_given_by_name_so_that_no_other_text_can_be_taken_for_it() -> None:
    with pytest.raises(TypeError):
        Server("s", "Use it well.")  # type: ignore[call-arg]
    assert Server("s", version="2").version == "2"


def test_a_server_and_a_client_show_what_they_are() -> None:
    server = Server("shop")
    assert repr(server) == "<Server 'shop': nothing yet>"
    server.add_tool(lambda: 1, name="one")
    assert repr(server) == "<Server 'shop': 1 tools>"

    async def scenario() -> None:
        async with joined(server) as (client, _):
            assert "connected in 2025-11-25" in repr(client)
        assert repr(client).endswith("not connected>")

    run(scenario())
    assert "not connected" in repr(Client(server))


def test_middleware_may_be_given_at_construction() -> None:
    seen: list[str] = []

    async def note(context, params, call_next):  # type: ignore[no-untyped-def]
        seen.append(context.method)
        return await call_next(params)

    async def scenario() -> None:
        async with joined(Server("s", middleware=[note], declares=["tools"])) as (client, _):
            await client.list_tools()

    run(scenario())
    assert seen == ["tools/list"]
