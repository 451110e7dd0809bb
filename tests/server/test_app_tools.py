"""Tools: how they are given, called and answered."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from dragoman import (
    Audio,
    AudioContent,
    CallToolResult,
    Client,
    Context,
    EmbeddedResource,
    File,
    Icon,
    Image,
    ImageContent,
    Limits,
    RemoteFailure,
    RequestError,
    ResourceContents,
    ResourceLink,
    Server,
    TextContent,
    ToolAnnotations,
    ToolError,
)
from dragoman.errors import LimitExceeded, Misconfigured
from dragoman.protocol.limits import Rate
from tests.requirements.duties import duty
from tests.scripted import ask, scripted_client
from tests.support import HANDSHAKE, joined, run

NEWEST = HANDSHAKE[-1]
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Forecast:
    """What a forecast says."""

    city: str
    degrees: float


# --- how they are given -----------------------------------------------------------------------------


def test_a_decorated_function_is_returned_unchanged() -> None:
    server = Server("s")

    def plain(a: int) -> int:
        return a + 1

    async def waits(a: int) -> int:
        return a + 1

    assert server.tool(plain) is plain
    assert server.tool("other", title="T")(plain) is plain
    assert server.tool(waits) is waits
    assert plain(1) == 2
    assert [tool.key for tool in server.tools] == ["plain", "other", "waits"]


def test_a_decorated_function_keeps_its_type() -> None:
    server = Server("s")

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.tool("other", title="T")
    async def waits(a: int) -> str:
        return str(a)

    @server.resource("note:{key}")
    def note(key: str) -> bytes:
        return key.encode()

    @server.prompt
    def ask_for(word: str) -> str:
        return word

    def never_run() -> None:
        # Each of these would be an unused comment if the decorators lost the type.
        add("x", 2)  # type: ignore[arg-type]
        waits()  # type: ignore[call-arg, unused-coroutine]
        note(3)  # type: ignore[arg-type]
        ask_for(3)  # type: ignore[arg-type]

    total: int = add(1, 2)
    assert (total, note("k"), ask_for("w")) == (3, b"k", "w")
    assert callable(never_run)


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, by: int = 1) -> int:
        self.count += by
        return self.count

    async def read(self) -> int:
        return self.count

    @classmethod
    def kind(cls) -> str:
        return cls.__name__

    @staticmethod
    def twice(a: int) -> int:
        return 2 * a


def test_methods_of_every_kind_are_tools() -> None:
    async def main() -> None:
        counter, server = Counter(), Server("s")
        for function in (counter.add, counter.read, Counter.kind, Counter.twice):
            server.tool(function)
        server.tool("by_five")(functools.partial(counter.add, by=5))
        async with joined(server) as (client, _):
            assert (await client.call_tool("add", {"by": 2})).data == 2
            assert (await client.call_tool("by_five")).data == 7
            assert (await client.call_tool("read")).data == 7
            assert (await client.call_tool("kind")).data == "Counter"
            assert (await client.call_tool("twice", {"a": 4})).data == 8

    run(main())


def test_a_definition_comes_from_the_function_and_what_is_given_replaces_it() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def forecast(
            city: Annotated[str, "Where"], days: int = 3, unit: Literal["C", "F"] = "C"
        ) -> Forecast:
            """The weather to come.

            Args:
                days: How many.
            """
            return Forecast(city, 20.5)

        @server.tool(
            "tide",
            title="Tides",
            description="When the sea is high.",
            annotations={"readOnlyHint": True, "destructive_hint": False},
            icons=[Icon(src="https://a.example/i.png")],
            meta={"example.com/x": 1},
        )
        def _tide() -> None: ...

        async with joined(server) as (client, _):
            made, given = await client.list_tools()
        assert (made.name, made.description) == ("forecast", "The weather to come.")
        properties = made.input_schema["properties"]
        assert properties["city"] == {"type": "string", "description": "Where"}
        assert properties["days"] == {"type": "integer", "description": "How many.", "default": 3}
        assert properties["unit"]["enum"] == ["C", "F"]
        assert made.input_schema["required"] == ["city"]
        assert made.output_schema is not None
        assert set(made.output_schema["properties"]) == {"city", "degrees"}
        assert (given.name, given.title) == ("tide", "Tides")
        assert given.description == "When the sea is high."
        assert given.annotations == ToolAnnotations(read_only_hint=True, destructive_hint=False)
        assert given.icons == [Icon(src="https://a.example/i.png")]
        assert given.meta == {"example.com/x": 1}

    run(main())


@duty("tools.input-schema")
@pytest.mark.parametrize("revision", HANDSHAKE)
def test_a_tool_without_parameters_has_an_object_for_a_schema(revision: str) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def now() -> str:
            return "now"

        async with scripted_client(server, revision=revision) as peer:
            listed = (await ask(peer, "tools/list"))["result"]["tools"]
            assert listed[0]["inputSchema"]["type"] == "object"
            for params in ({"name": "now"}, {"name": "now", "arguments": {}}):
                called = await ask(peer, "tools/call", params)
                assert called["result"]["content"] == [{"type": "text", "text": "now"}]

    run(main())


@duty("tools.names.length", "tools.names.characters", "tools.names.no-spaces")
@pytest.mark.parametrize("name", ["", " ", "a b", "a,b", "a/b", "größe", "x" * 129])
def test_a_tool_name_that_clients_may_refuse_is_refused_here(name: str) -> None:
    server = Server("s")
    with pytest.raises(Misconfigured):
        server.add_tool(lambda: None, name=name or " ")
    with pytest.raises(Misconfigured):
        server.add_tool(lambda given: None, name=name or " ", input_schema={"type": "object"})
    assert not list(server.tools)


@duty("tools.names.unique", "tools.names.case")
def test_names_are_unique_and_told_apart_by_case() -> None:
    async def main() -> None:
        server = Server("s")
        server.add_tool(lambda: "lower", name="get")
        server.add_tool(lambda: "upper", name="GET")
        with pytest.raises(Misconfigured, match="'get'"):
            server.add_tool(lambda: "again", name="get")
        async with joined(server) as (client, _):
            assert (await client.call_tool("get")).text == "lower"
            assert (await client.call_tool("GET")).text == "upper"
            server.add_tool(lambda: "again", name="get", replace=True)
            assert (await client.call_tool("get")).text == "again"
            with pytest.raises(RemoteFailure) as unknown:
                await client.call_tool("Get")
            assert unknown.value.code == -32602

    run(main())


@duty("meta.key-names")
def test_a_malformed_key_of_meta_is_refused_where_it_is_given() -> None:
    server = Server("s")
    with pytest.raises(Misconfigured, match="_meta"):
        server.tool("t", meta={"a b": 1})(lambda: None)
    with pytest.raises(Misconfigured, match="_meta"):
        server.prompt("p", meta={"/": 1})(lambda: "")
    with pytest.raises(Misconfigured, match="_meta"):
        server.resource("a:b", name="n", meta={"": 1})(lambda: "")


@pytest.mark.parametrize("annotations", [{"readOnly": True}, {"title": 3}, {"read_only_hint": "x"}])
def test_an_annotation_that_does_not_exist_is_refused(annotations: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="annotation"):
        Server("s").tool("t", annotations=annotations)(lambda: None)


# --- where they run ---------------------------------------------------------------------------------


def test_a_sync_function_runs_in_a_thread_of_the_servers_own_unless_told_otherwise() -> None:
    async def main() -> None:
        server = Server("threads")

        def where() -> str:
            return threading.current_thread().name

        server.tool(where)
        server.tool("here", thread=False)(where)

        @server.tool
        async def loop() -> str:
            return where()

        async with joined(server) as (client, _):
            names = {
                name: (await client.call_tool(name)).text for name in ("where", "here", "loop")
            }
        main_thread = threading.current_thread().name
        assert names["where"].startswith("dragoman-threads")
        assert (names["here"], names["loop"]) == (main_thread, main_thread)

    run(main())


def test_no_more_sync_functions_run_at_once_than_the_pool_has_threads() -> None:
    async def main() -> None:
        server = Server("s", threads=2)
        together = threading.Barrier(2)
        running: list[int] = []
        most = 0
        lock = threading.Lock()

        @server.tool
        def work() -> None:
            nonlocal most
            with lock:
                running.append(1)
                most = max(most, len(running))
            together.wait(timeout=10)
            with lock:
                running.pop()

        async with joined(server) as (client, _):
            await asyncio.gather(*(client.call_tool("work") for _ in range(8)))
        assert most == 2

    run(main())


def test_context_variables_reach_a_sync_function() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def who(ctx: Context) -> str:
            return f"{ctx.method} {ctx.client_info.name}"

        async with joined(server, name="asker") as (client, _):
            assert (await client.call_tool("who")).text == "tools/call asker"

    run(main())


# --- what they return -------------------------------------------------------------------------------


def test_what_a_function_returns_becomes_content() -> None:
    async def main() -> None:
        server = Server("s")
        link = ResourceLink(uri="note:1", name="one")
        returned: dict[str, Any] = {
            "text": "hello",
            "picture": Image(PNG),
            "sound": Audio(b"fLaC1"),
            "file": File(b"a,b\n", name="a b.csv", format="csv"),
            "raw": PNG + b"!",
            "mixed": ["first", Image(PNG), link, ResourceContents(uri="note:2", text="two")],
            "data": {"n": [1, None]},
            "nothing": None,
        }
        for name, value in returned.items():
            server.add_tool(lambda value=value: value, name=name)

        async with joined(server) as (client, _):
            got = {name: await client.call_tool(name) for name in returned}
        assert got["text"].content == [TextContent(text="hello")]
        assert got["picture"].content == [ImageContent.of(PNG, "image/png")]
        assert got["sound"].content == [AudioContent.of(b"fLaC1", "audio/flac")]
        (file,) = got["file"].content
        assert isinstance(file, EmbeddedResource)
        assert file.resource.uri == "resource:///a%20b.csv"
        assert (file.resource.mime_type, file.resource.text) == ("text/csv", "a,b\n")
        assert got["raw"].content == [ImageContent.of(PNG + b"!", "image/png")]
        assert got["mixed"].content == [
            TextContent(text="first"),
            ImageContent.of(PNG, "image/png"),
            link,
            EmbeddedResource(
                resource=ResourceContents(uri="note:2", text="two", mime_type="text/plain")
            ),
        ]
        assert got["data"].data == {"n": [1, None]}
        assert got["data"].text == '{"n":[1,null]}'
        assert (got["nothing"].content, got["nothing"].data) == ([], None)

    run(main())


@duty("tools.structured.text")
@pytest.mark.parametrize("revision", HANDSHAKE)
def test_a_record_is_structured_where_that_exists_and_always_text(revision: str) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def forecast(city: str) -> Forecast:
            return Forecast(city, 20.5)

        async with joined(server, revision=revision) as (client, wire):
            result = await client.call_tool("forecast", {"city": "Oslo"})
        assert result.text == '{"city":"Oslo","degrees":20.5}'
        is_structured = revision in HANDSHAKE[2:]
        assert result.data == ({"city": "Oslo", "degrees": 20.5} if is_structured else None)
        assert ("structuredContent" in wire.answers()[1]["result"]) is is_structured

    run(main())


@duty("meta.request-passed", "meta.kept")
def test_meta_goes_both_ways_and_keeps_its_keys() -> None:
    async def main() -> None:
        server = Server("s")
        seen: list[dict[str, Any]] = []

        @server.tool
        async def note(ctx: Context) -> CallToolResult:
            seen.append(ctx.meta)
            return CallToolResult(content=[], meta={"example.com/took": 3})

        async with joined(server) as (client, _):
            result = await client.call_tool("note", meta={"example.com/trace": "t1"})
            await client.call_tool("note", meta={"k": [1]}, on_progress=lambda update: None)
        assert result.meta == {"example.com/took": 3}
        assert seen[0] == {"example.com/trace": "t1"}
        assert seen[1]["k"] == [1]

    run(main())


@duty("tools.outputs-sanitized", "prompts.image", "prompts.embedded.uri")
@pytest.mark.parametrize(
    "block",
    [
        ImageContent(data="not base64", mime_type="image/png"),
        ImageContent(data="AAAA", mime_type="picture"),
        ResourceLink(uri="nowhere", name="n"),
        EmbeddedResource(resource=ResourceContents(uri="a b", text="t")),
    ],
    ids=lambda block: type(block).__name__,
)
@pytest.mark.parametrize(
    "wrap", [lambda b: b, lambda b: [b], lambda b: CallToolResult(content=[b])]
)
def test_malformed_content_of_a_tool_never_leaves(
    block: Any, wrap: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        server = Server("s")
        server.add_tool(lambda: wrap(block), name="bad")
        async with joined(server) as (client, _):
            result = await client.call_tool("bad", raise_on_error=False)
        assert result.is_error
        assert "error id" in result.text
        assert "base64" not in result.text

    run(main())
    assert "Misconfigured" in caplog.text


@duty("tools.output.conforms")
@pytest.mark.parametrize("raw", [True, False])
def test_a_result_that_misses_the_given_output_schema_is_a_failure(raw: bool) -> None:
    async def main() -> None:
        server = Server("s")
        failed = CallToolResult(content=[TextContent(text="failed")], is_error=True)
        answers: list[Any] = [{"n": 3}, {"n": -1}, {"m": 1}, "text", failed]
        schema = {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 0}},
            "required": ["n"],
        }
        waiting = iter(answers)
        if raw:
            server.add_tool(
                lambda given: next(waiting),
                name="count",
                input_schema={"type": "object"},
                output_schema=schema,
            )
        else:
            server.add_tool(lambda: next(waiting), name="count", output_schema=schema)
        async with joined(server) as (client, _):
            got = [await client.call_tool("count", raise_on_error=False) for _ in answers]
        assert [result.is_error for result in got] == [False, True, True, True, True]
        assert got[0].data == {"n": 3}
        # A tool that says that it failed promised nothing.
        assert got[4].text == "failed"

    run(main())


def test_a_result_the_function_made_itself_has_to_fit_what_it_promised() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def forecast(fits: bool) -> Forecast:
            made: Any = CallToolResult(
                content=[], structured_content={"city": "Oslo", "degrees": 1.0 if fits else "cold"}
            )
            result: Forecast = made
            return result

        async with joined(server) as (client, _):
            assert (await client.call_tool("forecast", {"fits": True})).data["degrees"] == 1.0
            with pytest.raises(ToolError, match="error id"):
                await client.call_tool("forecast", {"fits": False})

    run(main())


# --- how they fail ----------------------------------------------------------------------------------


@duty("tools.errors.in-result", "tools.outputs-sanitized", "logging.no-internals")
def test_the_model_reads_a_tool_error_and_only_an_id_of_anything_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def fail(how: str) -> None:
            if how == "told":
                raise ToolError("the sea is closed")
            if how == "refused":
                raise RequestError("no such sea", code=-32050, data={"sea": how})
            raise RuntimeError("secret path /srv/key")

        async with joined(server) as (client, wire):
            with pytest.raises(ToolError, match="the sea is closed"):
                await client.call_tool("fail", {"how": "told"})
            with pytest.raises(ToolError, match=r"fail failed \(error id (\w{12})\)") as hidden:
                await client.call_tool("fail", {"how": "other"})
            with pytest.raises(RemoteFailure) as refused:
                await client.call_tool("fail", {"how": "refused"})
        assert (refused.value.code, refused.value.data) == (-32050, {"sea": "refused"})
        assert "secret" not in str(wire.frames)
        assert "Traceback" not in str(wire.frames)
        error_id = str(hidden.value).split("error id ")[1].rstrip(")")
        (record,) = [one for one in caplog.records if error_id in one.getMessage()]
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert "secret path" in str(record.exc_info[1])

    with caplog.at_level(logging.ERROR, "dragoman"):
        run(main())


@duty("tools.errors.protocol")
def test_an_unknown_tool_is_refused_with_the_nearest_name() -> None:
    async def main() -> None:
        server = Server("s")
        server.add_tool(lambda: None, name="forecast")
        server.add_tool(lambda: None, name="hidden", enabled=False)
        async with joined(server) as (client, _):
            with pytest.raises(RemoteFailure, match="did you mean 'forecast'") as unknown:
                await client.call_tool("forcast")
            assert unknown.value.code == -32602
            with pytest.raises(RemoteFailure) as hidden:
                await client.call_tool("hidden")
            assert "mean" not in str(hidden.value)
            with pytest.raises(RemoteFailure) as long:
                await client.call_tool("x" * 10_000)
            assert len(str(long.value)) < 300

    run(main())


@duty("tools.errors.protocol")
def test_a_server_without_tools_knows_no_such_method() -> None:
    async def main() -> None:
        async with scripted_client(Server("s")) as peer:
            answer = await ask(peer, "tools/call", {"name": "x"})
            assert answer["error"]["code"] == -32601

    run(main())


BAD_ARGUMENTS = {"ctiy": "Oslo", "days": "many", "unit": "K"}


@duty("tools.errors.arguments-in-result", "tools.errors.arguments")
@pytest.mark.parametrize("revision", HANDSHAKE)
def test_every_fault_of_the_arguments_is_named_at_once(revision: str) -> None:
    async def main() -> None:
        server = Server("s")
        calls: list[str] = []

        @server.tool
        def forecast(city: str, days: int = 3, unit: Literal["C", "F"] = "C") -> str:
            calls.append(city)
            return city

        async with joined(server, revision=revision) as (client, _):
            if revision == NEWEST:
                result = await client.call_tool("forecast", BAD_ARGUMENTS, raise_on_error=False)
                assert result.is_error
                text = result.text
            else:
                with pytest.raises(RemoteFailure) as refused:
                    await client.call_tool("forecast", BAD_ARGUMENTS)
                assert refused.value.code == -32602
                faults = {fault["path"]: fault for fault in refused.value.data["faults"]}
                assert set(faults) == {"city", "ctiy", "days", "unit"}
                text = refused.value.message
        assert "did you mean 'city'" in text
        assert "days: expected" in text
        assert "unit: expected" in text
        assert calls == []

    run(main())


def test_arguments_sent_as_json_text_are_read_where_no_string_fits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        def total(numbers: list[int], label: str) -> str:
            return f"{label}={sum(numbers)}"

        @server.tool(input_schema={"type": "object", "properties": {"n": {"type": "array"}}})
        def count(given: dict[str, Any]) -> int:
            return len(given["n"])

        async with joined(server) as (client, _):
            result = await client.call_tool("total", {"numbers": "[1, 2]", "label": "[3]"})
            assert result.text == "[3]=3"
            assert (await client.call_tool("count", {"n": "[1, 2, 3]"})).text == "3"

    with caplog.at_level(logging.WARNING, "dragoman.server"):
        run(main())
    assert "arguments of total" in caplog.text
    assert "arguments of count" in caplog.text


def test_a_tool_with_a_schema_of_its_own_takes_one_dict_and_the_context() -> None:
    async def main() -> None:
        server = Server("s")
        schema = {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        }

        @server.tool(input_schema=schema, description="Doubles.")
        async def double(given: dict[str, Any], ctx: Context) -> int:
            assert ctx.method == "tools/call"
            return int(given["a"]) * 2

        async with joined(server) as (client, _):
            (tool,) = await client.list_tools()
            assert tool.input_schema == schema
            assert (await client.call_tool("double", {"a": 4})).text == "8"
            with pytest.raises(ToolError) as refused:
                await client.call_tool("double", {"b": "x"})
        assert "a: expected" in str(refused.value)
        assert "b: expected" in str(refused.value)

    run(main())


class Stop(BaseException):
    """Nothing of Python's own, so that no test runner reacts."""


@pytest.mark.parametrize(
    "error", [SystemExit(3), Stop("x"), StopIteration(1), StopAsyncIteration()]
)
@pytest.mark.parametrize("is_async", [True, False])
def test_no_exception_of_a_handler_ends_the_server(error: BaseException, is_async: bool) -> None:
    async def main() -> None:
        server = Server("s")

        async def waits() -> None:
            raise error

        def blocks() -> None:
            raise error

        server.add_tool(waits if is_async else blocks, name="bad")
        server.add_tool(lambda: "fine", name="good")
        async with joined(server) as (client, _):
            with pytest.raises((ToolError, RemoteFailure), match="error id"):
                await client.call_tool("bad")
            assert (await client.call_tool("good")).text == "fine"

    run(main())


# --- how they end -----------------------------------------------------------------------------------


@duty("calls.cancel.stops", "calls.cancel.frees")
def test_cancelling_the_waiting_task_cancels_the_handlers_task() -> None:
    async def main() -> None:
        server = Server("s")
        started, stopped = asyncio.Event(), asyncio.Event()

        @server.tool
        async def hang() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        async with joined(server) as (client, wire):
            call = asyncio.ensure_future(client.call_tool("hang"))
            await started.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await stopped.wait()
            assert wire.sent("notifications/cancelled")
            await client.ping()

    run(main())


def test_a_handler_that_never_returns_meets_the_servers_own_deadline() -> None:
    async def main() -> None:
        server = Server("s", limits=Limits(exchange_timeout_s=0.05))
        stopped = asyncio.Event()

        @server.tool
        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        async with joined(server) as (client, _):
            with pytest.raises(RemoteFailure, match="longer than"):
                await client.call_tool("hang")
            await stopped.wait()

    run(main())


@pytest.mark.long
def test_ten_thousand_calls_under_way_at_once_are_all_answered() -> None:
    async def main() -> None:
        server = Server("s")
        gate = asyncio.Event()
        under_way = 0

        @server.tool
        async def wait(n: int) -> int:
            nonlocal under_way
            under_way += 1
            if under_way == 10_000:
                gate.set()
            await gate.wait()
            return n

        async with Client(server) as client:
            calls = [client.call_tool("wait", {"n": n}) for n in range(10_000)]
            results = await asyncio.gather(*calls)
        assert [result.data for result in results] == list(range(10_000))

    run(main())


# --- how many ---------------------------------------------------------------------------------------


@duty("tools.rate-limited")
def test_tool_calls_are_limited_at_once_and_in_time() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        limits = Limits(rates={"tools/call": Rate(at_once=2, burst=4, per_s=0.001)})
        server = Server("s", limits=limits)

        @server.tool
        async def wait() -> str:
            await gate.wait()
            return "done"

        async with joined(server) as (client, _):
            calls = [asyncio.ensure_future(client.call_tool("wait")) for _ in range(3)]
            with pytest.raises(RemoteFailure, match="2 at once") as at_once:
                await calls[2]
            assert at_once.value.code == -32000
            gate.set()
            assert [(await call).text for call in calls[:2]] == ["done", "done"]
            # Two of the four in a row are left: a call that was one too many took none.
            await client.call_tool("wait")
            await client.call_tool("wait")
            with pytest.raises(RemoteFailure, match="a second"):
                await client.call_tool("wait")
            await client.list_tools()

    run(main())


@duty("tools.rate-limited")
def test_requests_of_every_kind_are_bounded_at_once() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        server = Server("s", limits=Limits(max_exchanges=2))

        @server.tool
        async def wait() -> str:
            await gate.wait()
            return "done"

        async with joined(server, limits=Limits(max_calls=4)) as (client, _):
            calls = [asyncio.ensure_future(client.call_tool("wait")) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(RemoteFailure, match="under way"):
                await client.call_tool("wait")
            more = [asyncio.ensure_future(client.ping()) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(LimitExceeded):
                await client.ping()
            gate.set()
            await asyncio.gather(*calls, *more)

    run(main())
