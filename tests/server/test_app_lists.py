"""What a server declares and lists, and how clients hear of changes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dragoman import Client, RemoteFailure, Server
from dragoman.errors import Misconfigured, NotNegotiated
from dragoman.model.tools import Tool
from tests.requirements.duties import duty
from tests.scripted import ask, scripted_client
from tests.support import HANDSHAKE, joined, run


def nothing() -> list[str]:
    return []


def offering(*features: str, **options: Any) -> Server:
    server = Server("s", **options)
    if "tools" in features:
        server.add_tool(lambda: None, name="t")
    if "prompts" in features:
        server.add_prompt(lambda: "", name="p")
    if "resources" in features:
        server.add_resource("x", "note:1")
    if "completions" in features:
        server.completion("p")(nothing)
    return server


FEATURES = ("tools", "prompts", "resources", "completions")


@duty(
    "capabilities.advertised",
    "tools.declared",
    "prompts.declared",
    "resources.declared",
    "logging.declared",
    "completion.declared",
)
@pytest.mark.parametrize("features", [(), *((one,) for one in FEATURES), FEATURES])
def test_a_server_declares_exactly_what_it_offers(features: tuple[str, ...]) -> None:
    async def main() -> None:
        async with scripted_client(offering(*features)) as peer:
            await ask(peer, "ping")
        declared = offering(*features).capabilities
        for feature in FEATURES:
            assert (getattr(declared, feature) is not None) is (feature in features)
        assert declared.logging is not None
        if declared.tools is not None:
            assert declared.tools.list_changed
        if declared.prompts is not None:
            assert declared.prompts.list_changed
        if declared.resources is not None:
            assert declared.resources.subscribe
            assert declared.resources.list_changed

    run(main())


def test_what_comes_later_can_be_declared_before() -> None:
    async def main() -> None:
        server = Server("s", declares=["tools", "resources", "prompts", "completions"])
        heard = asyncio.Event()
        async with joined(server, on_tools_changed=heard.set) as (client, _):
            assert await client.list_tools() == []
            assert await client.list_prompts() == []
            server.add_tool(lambda: "here", name="late")
            await heard.wait()
            assert (await client.call_tool("late")).text == "here"

    run(main())
    with pytest.raises(Misconfigured, match="magic"):
        Server("s", declares=["magic"])  # type: ignore[list-item]


def test_a_hidden_tool_is_declared_so_that_it_can_be_shown_later() -> None:
    async def main() -> None:
        server = Server("s")
        server.tool("t", enabled=False)(lambda: "x")
        async with joined(server) as (client, _):
            assert await client.list_tools() == []
            server.enable_tool("t")
            assert (await client.call_tool("t")).text == "x"

    run(main())


@duty("tools.list-changed", "prompts.list-changed", "resources.list-changed")
def test_clients_hear_of_every_change_once_a_turn() -> None:
    async def main() -> None:
        server = offering(*FEATURES)
        heard: list[str] = []
        callbacks = {
            f"on_{kind}_changed": (lambda kind=kind: heard.append(kind))
            for kind in ("tools", "prompts", "resources")
        }

        async def told_by(change: Any) -> list[str]:
            heard.clear()
            change()
            await client.ping()
            await client.ping()
            return sorted(heard)

        def many() -> None:
            for n in range(100):
                server.add_tool(lambda: None, name=f"t{n}")
                server.add_prompt(lambda: "", name=f"p{n}")

        async with joined(server, **callbacks) as (client, wire):
            assert await told_by(lambda: server.add_tool(lambda: None, name="more")) == ["tools"]
            assert await told_by(lambda: server.disable_tool("more")) == ["tools"]
            assert await told_by(lambda: server.disable_tool("more")) == []
            assert await told_by(lambda: server.enable_tool("more")) == ["tools"]
            assert await told_by(lambda: server.remove_tool("more")) == ["tools"]
            assert await told_by(lambda: server.disable_prompt("p")) == ["prompts"]
            assert await told_by(lambda: server.enable_prompt("p")) == ["prompts"]
            assert await told_by(lambda: server.remove_prompt("p")) == ["prompts"]
            assert await told_by(lambda: server.disable_resource("note:1")) == ["resources"]
            assert await told_by(lambda: server.enable_resource("note:1")) == ["resources"]
            assert await told_by(lambda: server.remove_resource("note:1")) == ["resources"]
            template = lambda: server.resource("a:{b}", name="n")(lambda b: b)  # noqa: E731
            assert await told_by(template) == ["resources"]
            assert await told_by(lambda: server.remove_resource("a:{b}")) == ["resources"]
            assert await told_by(many) == ["prompts", "tools"]
            assert len(wire.received("notifications/tools/list_changed")) == 5

    run(main())


@duty("tools.list-changed")
def test_a_change_in_another_thread_is_told_too() -> None:
    async def main() -> None:
        server = offering("tools")
        heard = asyncio.Event()
        async with joined(server, on_tools_changed=heard.set) as (client, _):
            thread = threading.Thread(target=lambda: server.add_tool(lambda: "x", name="new"))
            thread.start()
            await heard.wait()
            thread.join()
            assert (await client.call_tool("new")).text == "x"

    run(main())


def test_a_client_is_told_nothing_of_what_was_not_declared_to_it() -> None:
    async def main() -> None:
        server = Server("s")
        async with joined(server) as (client, wire):
            server.add_tool(lambda: None, name="t")
            await client.ping()
            assert not wire.received("notifications/tools/list_changed")
            with pytest.raises(NotNegotiated):
                await client.list_tools()
        async with joined(server) as (client, _):
            assert len(await client.list_tools()) == 1

    run(main())


@duty("pagination.after-cursor", "pagination.bad-cursor", "pagination.stable")
def test_lists_come_in_pages_over_the_wire() -> None:
    async def main() -> None:
        server = Server("s", page_size=4)
        for n in range(10):
            server.add_tool(lambda: None, name=f"t{n}")
            server.add_prompt(lambda: "", name=f"p{n}")
            server.add_resource("x", f"note:{n}")
            server.resource(f"item{n}:{{key}}", name=f"n{n}")(lambda key: key)
        async with joined(server) as (client, _):
            assert [tool.name for tool in await client.list_tools()] == [f"t{n}" for n in range(10)]
            assert len(await client.list_prompts()) == 10
            assert len(await client.list_resources()) == 10
            assert len(await client.list_resource_templates()) == 10
            first = await client.list_tools_page()
            assert (len(first.tools), first.next_cursor is None) == (4, False)
            second = await client.list_tools_page(first.next_cursor)
            assert [tool.name for tool in second.tools] == ["t4", "t5", "t6", "t7"]
            server.remove_tool("t5")
            changed = await client.list_tools_page(first.next_cursor)
            assert [tool.name for tool in changed.tools] == ["t4", "t6", "t7", "t8"]
            for page in (
                client.list_tools_page,
                client.list_prompts_page,
                client.list_resources_page,
                client.list_resource_templates_page,
            ):
                with pytest.raises(RemoteFailure) as refused:
                    await page("made up")
                assert refused.value.code == -32602
            with pytest.raises(RemoteFailure):
                await client.list_prompts_page(first.next_cursor)

    run(main())


def test_a_list_that_is_kept_is_made_anew_after_each_change() -> None:
    async def main() -> None:
        server = offering("tools")
        for revision in HANDSHAKE:
            async with joined(server, revision=revision) as (client, _):
                before = await client.list_tools()
                server.add_tool(lambda: None, name=f"t-{revision}", title="T")
                after = await client.list_tools()
                assert len(after) == len(before) + 1
                has_title = revision in HANDSHAKE[2:]
                shown: list[Tool] = [tool for tool in after if tool.title]
                assert bool(shown) is has_title

    run(main())


@duty("isolation.easy-servers")
def test_five_lines_make_a_server_that_runs(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        "from dragoman import Server\n"
        'server = Server("small")\n'
        "@server.tool\n"
        "def add(a: int, b: int) -> int: return a + b\n"
        "server.run()\n"
    )

    async def main() -> None:
        async with Client(script) as client:
            assert (await client.call_tool("add", {"a": 2, "b": 3})).data == 5
            assert client.server_info.name == "small"

    run(main())
    # A server that is imported and not run does nothing at all.
    source = script.read_text().replace("server.run()\n", "")
    done = subprocess.run([sys.executable, "-c", source], check=True, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@duty("isolation.composable", "isolation.between-servers")
def test_servers_and_clients_in_one_process_share_nothing() -> None:
    async def main() -> None:
        seen: dict[str, list[str]] = {"a": [], "b": []}
        servers = {name: offering("tools", "resources") for name in seen}
        for name, server in servers.items():
            server.add_tool(lambda name=name: name, name=f"only_{name}")
        async with (
            joined(servers["a"], on_tools_changed=lambda: seen["a"].append("tools")) as (a, wire_a),
            joined(servers["b"], on_tools_changed=lambda: seen["b"].append("tools")) as (b, wire_b),
        ):
            assert {tool.name for tool in await a.list_tools()} == {"t", "only_a"}
            assert {tool.name for tool in await b.list_tools()} == {"t", "only_b"}
            await a.set_logging_level("error")
            await b.subscribe_resource("note:1")
            servers["a"].remove_tool("t")
            servers["a"].notify_resource_updated("note:1")
            await asyncio.gather(a.ping(), b.ping())
            assert seen == {"a": ["tools"], "b": []}
            assert (await b.call_tool("t")).content == []
            with pytest.raises(RemoteFailure):
                await a.call_tool("t")
            assert "only_b" not in str(wire_a.frames)
            assert "only_a" not in str(wire_b.frames)

    run(main())


def test_one_server_serves_many_clients_at_once() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        async def twice(n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        async def one(n: int) -> int:
            async with Client(server, revision=HANDSHAKE[n % 4]) as client:
                return int((await client.call_tool("twice", {"n": n})).text)

        assert await asyncio.gather(*(one(n) for n in range(40))) == [2 * n for n in range(40)]

    run(main())


@pytest.mark.parametrize("options", [{"name": ""}, {"page_size": 0}, {"revision": "1999-01-01"}])
def test_a_setting_that_cannot_work_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        Server(**{"name": "s", **options})


def test_a_transport_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Misconfigured, match="stdio"):
        Server("s").run("carrier pigeon")  # type: ignore[arg-type]


def test_whoever_connects_later_is_told_what_is_offered_by_then() -> None:
    server = Server("s")

    async def offers() -> set[str]:
        async with Client(server) as client:
            declared = client.server_capabilities
            names = ("tools", "resources", "prompts", "completions")
            return {name for name in names if getattr(declared, name) is not None}

    async def main() -> None:
        assert await offers() == set()
        server.add_tool(lambda: "x", name="t")
        assert await offers() == {"tools"}
        server.add_resource("text", "note://a")
        assert await offers() == {"tools", "resources"}

        @server.prompt
        def p(topic: str) -> str:
            return topic

        assert await offers() == {"tools", "resources", "prompts"}

        @server.completion("p")
        def complete(value: str) -> list[str]:
            return [value]

        assert await offers() == {"tools", "resources", "prompts", "completions"}
        server.instructions = "now with words"
        async with Client(server) as client:
            assert client.instructions == "now with words"

    asyncio.run(main())
