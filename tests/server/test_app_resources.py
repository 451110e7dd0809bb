"""Resources: given, listed, read, watched."""

from __future__ import annotations

import asyncio
import enum
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from dragoman import (
    Annotations,
    Context,
    RemoteFailure,
    ResourceContents,
    ResourceNotFound,
    Server,
    ToolError,
)
from dragoman.errors import Misconfigured, NotNegotiated
from dragoman.model.resources import ReadResourceResult, Resource, ResourceTemplate
from dragoman.protocol.limits import Limits
from tests.requirements.duties import duty
from tests.scripted import ask, scripted_client
from tests.support import HANDSHAKE, joined, run


def single_one() -> str:
    return "x"


def item(key: str) -> str:
    return f"item {key}"


@duty("resources.other-scheme", "resources.custom-scheme", "resources.declared")
def test_a_resource_of_any_scheme_is_listed_and_read() -> None:
    async def main() -> None:
        server = Server("s")

        @server.resource("x-my.app+v2://a/b?q=1#f")
        def custom() -> str:
            """One of a kind."""
            return "custom"

        server.add_resource("fixed text", "note:1", name="n", title="T", mime_type="text/markdown")
        server.add_resource(b"\x00\xff", "note:2")
        async with joined(server) as (client, _):
            assert client.server_capabilities.resources is not None
            first, second, third = await client.list_resources()
            assert (first.name, first.description) == ("custom", "One of a kind.")
            assert (second.name, second.title, second.size) == ("n", "T", 10)
            assert third.size == 2
            assert (await client.read_resource(first.uri)).text == "custom"
            assert (await client.read_resource("note:1")).contents == [
                ResourceContents(uri="note:1", text="fixed text", mime_type="text/markdown")
            ]
            (binary,) = (await client.read_resource("note:2")).contents
            assert (binary.data, binary.mime_type) == (b"\x00\xff", "application/octet-stream")

    run(main())


@duty("resources.custom-scheme")
@pytest.mark.parametrize("uri", ["", "notes", "/etc/passwd", "a b:c", "note://a b", "note://é"])
def test_what_is_no_uri_is_refused_where_it_is_given(uri: str) -> None:
    with pytest.raises(Misconfigured, match="URI"):
        Server("s").resource(uri, name="n")(lambda: "x")
    with pytest.raises(Misconfigured, match="URI"):
        Server("s").add_resource("x", uri)


def test_a_resource_needs_its_uri_and_a_function_for_its_variables() -> None:
    server = Server("s")
    with pytest.raises(Misconfigured, match="needs its URI"):
        server.resource(lambda: "x")  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match="has variables"):
        server.add_resource("x", "note://{id}")
    with pytest.raises(Misconfigured, match="id"):
        server.resource("note://{id}", name="n")(lambda other: other)
    server.add_resource("x", "note:1")
    with pytest.raises(Misconfigured, match="already"):
        server.add_resource("x", "note:1")


class Unit(enum.Enum):
    CELSIUS = "C"
    FAHRENHEIT = "F"


def test_the_variables_of_a_template_are_the_functions_parameters() -> None:
    async def main() -> None:
        server = Server("s")

        @server.resource("weather://{city}/{day}{?unit}", mime_type="application/json")
        async def weather(
            city: str, day: int, ctx: Context, unit: Unit = Unit.CELSIUS
        ) -> dict[str, Any]:
            return {"city": city, "day": day, "unit": unit.value, "method": ctx.method}

        async with joined(server) as (client, _):
            (template,) = await client.list_resource_templates()
            assert template.uri_template == "weather://{city}/{day}{?unit}"
            assert await client.list_resources() == []
            result = await client.read_resource("weather://S%C3%A3o/3?unit=F")
            assert result.text == '{"city":"São","day":3,"unit":"F","method":"resources/read"}'
            assert result.contents[0].uri == "weather://S%C3%A3o/3?unit=F"
            assert '"unit":"C"' in (await client.read_resource("weather://x/1")).text

    run(main())


@duty("resources.uri-validated")
@pytest.mark.parametrize(
    "uri",
    ["file:///../secret", "file:///a/../../secret", "file:///%2e%2e/secret", "file:///a%2Fb"],
)
def test_traversal_through_a_template_is_refused_before_its_code_runs(uri: str) -> None:
    async def main() -> None:
        server = Server("s")
        read: list[str] = []

        def note(path: str) -> None:
            read.append(path)

        server.resource("file:///{+path}")(note)
        async with joined(server) as (client, _):
            with pytest.raises(RemoteFailure) as refused:
                await client.read_resource(uri)
        assert refused.value.code == -32002
        assert read == []

    run(main())


@duty("resources.unknown")
@pytest.mark.parametrize("revision", HANDSHAKE)
@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe"])
def test_an_unknown_resource_is_answered_with_its_uri(revision: str, method: str) -> None:
    async def main() -> None:
        server = Server("s")
        server.add_resource("x", "note:1")
        server.add_resource("hidden", "note:2", enabled=False)
        async with scripted_client(server, revision=revision) as peer:
            for uri in ("note:3", "note:2", "no uri at all", ""):
                error = (await ask(peer, method, {"uri": uri}))["error"]
                assert (error["code"], error["data"]) == (-32002, {"uri": uri})

    run(main())


@duty("resources.uri-validated")
@pytest.mark.parametrize("params", [None, {}, {"uri": 3}, {"uri": None}, [1]])
def test_a_read_without_a_uri_is_invalid(params: Any) -> None:
    async def main() -> None:
        server = Server("s")
        server.add_resource("x", "note:1")
        async with scripted_client(server) as peer:
            assert (await ask(peer, "resources/read", params))["error"]["code"] in (-32602, -32600)

    run(main())


@duty("resources.internal-error")
def test_a_resource_that_fails_is_an_internal_error_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        server = Server("s")

        @server.resource("note:{how}")
        def note(how: str) -> str:
            if how == "told":
                raise ToolError("closed on sundays")
            if how == "gone":
                raise ResourceNotFound("note:elsewhere")
            raise RuntimeError("secret")

        async with joined(server) as (client, wire):
            failures = {}
            for how in ("told", "gone", "other"):
                with pytest.raises(RemoteFailure) as failed:
                    await client.read_resource(f"note:{how}")
                failures[how] = failed.value
        assert (failures["told"].code, failures["told"].message) == (-32603, "closed on sundays")
        assert failures["gone"].code == -32002
        assert failures["other"].code == -32603
        assert "error id" in failures["other"].message
        assert "secret" not in str(wire.frames)

    run(main())
    assert "secret" in caplog.text


@duty("resources.text-is-text", "resources.binary")
def test_what_a_function_returns_becomes_contents() -> None:
    async def main() -> None:
        server = Server("s")
        parts = [
            ResourceContents(uri="note:a/1", text="one"),
            ResourceContents.of("note:a/2", b"\x01", "image/png"),
        ]
        returned: dict[str, Any] = {
            "text": "é",
            "data": {"a": [1]},
            "bytes": b"text as bytes",
            "parts": parts,
            "part": parts[1],
            "whole": ReadResourceResult(contents=parts, meta={"k": 1}),
        }
        for name, value in returned.items():
            server.add_resource(lambda value=value: value, f"note:{name}", name=name)
        async with joined(server) as (client, _):
            got = {name: await client.read_resource(f"note:{name}") for name in returned}
        assert got["text"].contents == [
            ResourceContents(uri="note:text", text="é", mime_type="text/plain")
        ]
        assert got["data"].contents == [
            ResourceContents(uri="note:data", text='{"a":[1]}', mime_type="application/json")
        ]
        assert got["bytes"].contents[0].text is None
        assert got["bytes"].contents[0].data == b"text as bytes"
        assert got["parts"].contents == parts
        assert got["part"].contents == [parts[1]]
        assert got["whole"].meta == {"k": 1}

    run(main())


@duty("annotations.last-modified", "icons.carried")
def test_annotations_of_a_resource_reach_the_client_as_they_are_written_on_the_wire() -> None:
    async def main() -> None:
        server = Server("s")
        when = datetime(2025, 1, 12, 15, 0, 58, tzinfo=UTC)
        as_dict = {"audience": ["user"], "priority": 0.5, "last_modified": when}
        server.resource("note:1", annotations=as_dict, meta={"m": 1}, size=3)(single_one)
        server.resource("note:{key}", annotations=Annotations(priority=1))(item)
        async with joined(server) as (client, _):
            (single,) = await client.list_resources()
            (family,) = await client.list_resource_templates()
        assert single == Resource(
            uri="note:1",
            name=single.name,
            size=3,
            annotations=Annotations(
                audience=["user"], priority=0.5, last_modified="2025-01-12T15:00:58Z"
            ),
            meta={"m": 1},
        )
        assert family == ResourceTemplate(
            uri_template="note:{key}", name=family.name, annotations=Annotations(priority=1)
        )

    run(main())


def test_a_handler_reads_the_servers_own_resources() -> None:
    async def main() -> None:
        server = Server("s")
        server.add_resource("hello", "note:1")
        server.resource("note:item/{key}")(item)

        @server.tool
        async def read(uri: str, ctx: Context) -> str:
            try:
                return (await ctx.read_resource(uri)).text
            except ResourceNotFound as missing:
                return f"no {missing.uri}"

        async with joined(server) as (client, _):
            texts = [
                (await client.call_tool("read", {"uri": uri})).text
                for uri in ("note:1", "note:item/7", "note:2")
            ]
        assert texts == ["hello", "item 7", "no note:2"]

    run(main())


# --- subscriptions ----------------------------------------------------------------------------------


@duty("resources.updated-subscribed", "resources.unsubscribe", "capabilities.subscribe-needed")
def test_an_update_goes_to_whoever_subscribed_and_to_nobody_else() -> None:
    async def main() -> None:
        server = Server("s")
        server.add_resource("x", "note:1")
        server.resource("note:item/{key}")(item)
        heard: list[tuple[str, str]] = []

        async with (
            joined(server, on_resource_updated=lambda uri: heard.append(("a", uri))) as (one, _),
            joined(server, on_resource_updated=lambda uri: heard.append(("b", uri))) as (other, _),
        ):
            await one.subscribe_resource("note:1")
            await one.subscribe_resource("note:1")
            await other.subscribe_resource("note:item/7")
            for uri in ("note:1", "note:item/7", "note:item/8"):
                server.notify_resource_updated(uri)
            await asyncio.gather(one.ping(), other.ping())
            assert sorted(heard) == [("a", "note:1"), ("b", "note:item/7")]
            await one.unsubscribe_resource("note:1")
            await one.unsubscribe_resource("note:never")
            server.notify_resource_updated("note:1")
            await one.ping()
            assert len(heard) == 2

    run(main())


def test_an_update_may_be_told_from_another_thread() -> None:
    async def main() -> None:
        server = Server("s")
        server.add_resource("x", "note:1")
        heard = asyncio.Event()

        @server.tool
        def touch() -> None:
            server.notify_resource_updated("note:1")

        async with joined(server, on_resource_updated=lambda uri: heard.set()) as (client, _):
            await client.subscribe_resource("note:1")
            await client.call_tool("touch")
            await heard.wait()

    run(main())


def test_subscriptions_are_bounded_and_end_with_the_session() -> None:
    async def main() -> None:
        server = Server("s", limits=Limits(max_subscriptions=2))
        server.resource("note:{key}")(item)
        heard: list[str] = []
        async with joined(server) as (client, _):
            await client.subscribe_resource("note:1")
            await client.subscribe_resource("note:2")
            with pytest.raises(RemoteFailure, match="2 subscriptions"):
                await client.subscribe_resource("note:3")
        async with joined(server, on_resource_updated=heard.append) as (client, _):
            server.notify_resource_updated("note:1")
            await client.ping()
        assert heard == []

    run(main())


@duty("resources.subscribe-optional", "capabilities.subscribe-needed")
def test_a_server_that_declared_no_resources_takes_no_subscription_and_tells_nothing() -> None:
    async def main() -> None:
        server = Server("s")
        async with scripted_client(server) as peer:
            answer = await ask(peer, "resources/subscribe", {"uri": "note:1"})
            assert answer["error"]["code"] == -32601
            server.add_resource("x", "note:1")
            server.notify_resource_updated("note:1")
            await ask(peer, "ping", ident=2)
            assert peer.waiting == 0
        async with joined(Server("s")) as (client, wire):
            with pytest.raises(NotNegotiated):
                await client.subscribe_resource("note:1")
            assert not wire.sent("resources/subscribe")

    run(main())


# --- completion of templates ------------------------------------------------------------------------


def test_a_variable_that_is_a_choice_is_completed_from_its_values() -> None:
    async def main() -> None:
        server = Server("s")

        @server.resource("weather://{unit}/{city}")
        def weather(unit: Literal["celsius", "fahrenheit"], city: str) -> str:
            return unit + city

        async with joined(server) as (client, _):
            assert client.server_capabilities.completions is not None
            template = "weather://{unit}/{city}"
            assert (await client.complete(template, "unit", "f")).values == ["fahrenheit"]
            assert (await client.complete(template, "city", "f")).values == []

    run(main())
