"""What a server tells its clients while it works: log messages and progress."""

from __future__ import annotations

import asyncio
import math
from typing import Any, get_args

import msgspec
import pytest

from dragoman import Context, Limits, RemoteFailure, Server, ToolError
from dragoman.model.base import Implementation
from dragoman.model.capabilities import ServerCapabilities
from dragoman.model.logging import LEVELS, LoggingLevel, LogMessageParams
from dragoman.model.methods import Side
from dragoman.model.progress import ProgressParams
from dragoman.protocol.engine import Engine, Introduction
from tests.requirements.duties import duty
from tests.scripted import ask, scripted_client
from tests.support import HANDSHAKE, joined, run

NAMES: tuple[LoggingLevel, ...] = get_args(LoggingLevel)


def talkative(**options: Any) -> Server:
    server = Server("talker", **options)

    @server.tool
    async def say_all(ctx: Context) -> None:
        for level in NAMES:
            await getattr(ctx, level)(f"at {level}")

    @server.tool
    async def say(level: str, data: Any, ctx: Context, logger: str | None = None) -> None:
        known: Any = level
        await ctx.log(known, data, logger=logger)

    return server


@duty("logging.declared", "logging.levels", "logging.context")
def test_each_level_has_a_method_and_all_are_sent_by_default() -> None:
    async def main() -> None:
        heard: list[LogMessageParams] = []
        async with joined(talkative(), on_log=heard.append) as (client, _):
            assert client.server_capabilities.logging is not None
            await client.call_tool("say_all")
            data = {"deep": [1, None, {"é": True}]}
            await client.call_tool("say", {"level": "notice", "data": data})
        assert [(one.level, one.data) for one in heard[:8]] == [(n, f"at {n}") for n in NAMES]
        assert heard[8].data == data

    run(main())


@duty("logging.set-level", "logging.threshold")
def test_only_the_level_that_was_set_and_those_above_are_sent() -> None:
    async def main() -> None:
        heard: list[str] = []
        async with joined(talkative(), on_log=lambda one: heard.append(one.level)) as (client, _):
            for level in (*NAMES, "debug"):
                await client.set_logging_level(level)
                heard.clear()
                await client.call_tool("say_all")
                assert heard == list(NAMES[LEVELS[level] :])

    run(main())


@duty("logging.invalid-level", "logging.internal-error")
@pytest.mark.parametrize("params", [{"level": "loud"}, {"level": 3}, {"level": None}, {}, None])
def test_an_unknown_level_is_invalid_and_changes_nothing(params: Any) -> None:
    async def main() -> None:
        async with scripted_client(talkative()) as peer:
            await ask(peer, "logging/setLevel", {"level": "critical"})
            assert (await ask(peer, "logging/setLevel", params))["error"]["code"] == -32602
            peer.request(5, "tools/call", {"name": "say_all", "arguments": {}})
            for level in NAMES[LEVELS["critical"] :]:
                assert (await peer.receive())["params"]["level"] == level
            assert (await peer.receive())["id"] == 5

    run(main())


@duty("logging.internal-error")
def test_a_failure_while_the_level_is_set_is_an_internal_error() -> None:
    async def main() -> None:
        server = talkative()

        @server.middleware
        async def _broken(context: Context, params: Any, call_next: Any) -> Any:
            if context.method == "logging/setLevel":
                raise RuntimeError("secret")
            return await call_next(params)

        async with joined(server) as (client, _):
            with pytest.raises(RemoteFailure, match="error id") as failed:
                await client.set_logging_level("info")
        assert failed.value.code == -32603
        assert "secret" not in str(failed.value)

    run(main())


@pytest.mark.parametrize("how", ["answered", "cancelled"])
def test_nothing_is_told_of_a_request_that_is_over(how: str) -> None:
    async def main() -> None:
        server = Server("s")
        kept: list[Context] = []
        begun = asyncio.Event()

        @server.tool
        async def keep(ctx: Context) -> str:
            kept.append(ctx)
            await ctx.info("while it runs")
            begun.set()
            if how == "cancelled":
                try:
                    await asyncio.Event().wait()
                finally:
                    await ctx.error("after the cancellation")
            return "kept"

        async with joined(server) as (client, wire):
            call = asyncio.ensure_future(client.call_tool("keep"))
            await begun.wait()
            if how == "cancelled":
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            else:
                await call
            await client.ping()
            await kept[0].error("after the end")
            with pytest.raises(ValueError, match="is not one of"):
                await kept[0].log("loud", "x")  # type: ignore[arg-type]
            await client.ping()
            told = wire.received("notifications/message")
        assert [one["params"]["data"] for one in told] == ["while it runs"]

    run(main())


@duty("logging.logger-names")
def test_a_server_logs_under_its_own_name_unless_told_otherwise() -> None:
    async def main() -> None:
        heard: list[str | None] = []
        async with joined(talkative(), on_log=lambda one: heard.append(one.logger)) as (client, _):
            for logger in (None, "weather.cache", None):
                await client.call_tool("say", {"level": "info", "data": 1, "logger": logger})
        assert heard == ["talker", "weather.cache", "talker"]

    run(main())


@duty("logging.validated")
@pytest.mark.parametrize("data", [object(), object, math.nan, {"a": [math.inf]}, "\ud800"])
def test_data_that_is_no_json_is_refused_where_it_is_given(data: Any) -> None:
    async def main() -> None:
        server = Server("s")
        refused: list[bool] = []

        @server.tool
        async def say(ctx: Context) -> str:
            try:
                await ctx.info(data)
            except ValueError:
                refused.append(True)
            return "went on"

        async with joined(server) as (client, wire):
            assert (await client.call_tool("say")).text == "went on"
            assert not wire.received("notifications/message")
        assert refused == [True]

    run(main())


@duty("logging.validated")
def test_a_level_that_does_not_exist_is_refused_where_it_is_given() -> None:
    async def main() -> None:
        async with joined(talkative()) as (client, wire):
            with pytest.raises(ToolError, match="error id"):
                await client.call_tool("say", {"level": "loud", "data": 1})
            assert not wire.received("notifications/message")

    run(main())


@duty("logging.access")
def test_log_messages_of_a_request_go_to_its_own_session_only() -> None:
    async def main() -> None:
        server = talkative()
        heard: dict[str, list[Any]] = {"a": [], "b": []}
        async with (
            joined(server, on_log=lambda one: heard["a"].append(one.data)) as (one, _),
            joined(server, on_log=lambda one: heard["b"].append(one.data)) as (other, _),
        ):
            await asyncio.gather(
                one.call_tool("say", {"level": "info", "data": "for a"}),
                other.call_tool("say", {"level": "info", "data": "for b"}),
            )
            await other.set_logging_level("emergency")
            await one.call_tool("say", {"level": "info", "data": "more for a"})
        assert heard == {"a": ["for a", "more for a"], "b": ["for b"]}

    run(main())


@duty("logging.monitored", "trust.privacy")
def test_each_message_can_be_watched_changed_and_dropped_before_it_leaves() -> None:
    async def main() -> None:
        seen: list[Any] = []

        def redact(message: LogMessageParams) -> LogMessageParams | None:
            seen.append(message.data)
            if message.data == "drop me":
                return None
            text = str(message.data).replace("hunter2", "***")
            return msgspec.structs.replace(message, data=text)

        heard: list[Any] = []
        server = talkative(log_filter=redact)
        async with joined(server, on_log=lambda one: heard.append(one.data)) as (client, wire):
            for data in ("drop me", "password hunter2", "plain"):
                await client.call_tool("say", {"level": "info", "data": data})
            assert "hunter2" not in str(wire.received("notifications/message"))
        assert seen == ["drop me", "password hunter2", "plain"]
        assert heard == ["password ***", "plain"]

    run(main())


@duty("logging.no-internals", "logging.no-sensitive", "trust.privacy")
def test_what_we_tell_a_client_of_our_own_holds_no_payload_no_text_and_no_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        monkeypatch.setenv("DRAGOMAN_TEST_SECRET", "environment-secret")
        server = Server("s", limits=Limits(logs_burst=2, logs_per_s=1000.0))

        @server.tool
        async def fail(argument: str, ctx: Context) -> None:
            for _ in range(50):
                await ctx.info("said by the tool")
            raise RuntimeError(f"exception-secret {argument}")

        @server.resource("note:{key}")
        def note(key: str) -> str:
            raise OSError(2, "exception-secret", "/srv/private/key")

        async with joined(server) as (client, wire):
            for _ in range(3):
                await client.call_tool("fail", {"argument": "payload-secret"}, raise_on_error=False)
            with pytest.raises(RemoteFailure):
                await client.read_resource("note:payload-of-uri")
            with pytest.raises(RemoteFailure):
                await client.call_tool("none")
        received = str([frame for direction, frame in wire.frames if direction == "received"])
        for secret in ("payload-secret", "exception-secret", "environment-secret", "/srv/"):
            assert secret not in received
        for internal in ("Traceback", "site-packages", ".py", "/src/"):
            assert internal not in received

    run(main())


@duty("logging.declared")
def test_a_server_that_did_not_declare_logging_sends_no_log_message() -> None:
    silent = Introduction(Implementation(name="s", version="1"), ServerCapabilities())
    engine = Engine(Side.SERVER, silent)
    hello = {
        "protocolVersion": HANDSHAKE[-1],
        "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    }
    frame = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    engine.receive(msgspec.json.encode(frame), now=0.0)
    engine.receive(b'{"jsonrpc":"2.0","method":"notifications/initialized"}', now=0.0)
    engine.take()
    assert not engine.log(LogMessageParams(level="emergency", data="x"), now=0.0)
    assert engine.take() == []


# --- progress ---------------------------------------------------------------------------------------


@duty("progress.message", "progress.floats")
@pytest.mark.parametrize("revision", HANDSHAKE)
def test_progress_arrives_in_order_and_before_the_result(revision: str) -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        async def work(ctx: Context) -> str:
            for step in range(1, 5):
                await ctx.report_progress(step / 4, 1, f"step {step}")
            await ctx.report_progress(0.5)
            return "done"

        order: list[Any] = []

        async def slow(update: ProgressParams) -> None:
            await asyncio.sleep(0)
            order.append((update.progress, update.total, update.message))

        for callback in (slow, lambda update: order.append((update.progress, 1.0, update.message))):
            order.clear()
            async with joined(server, revision=revision) as (client, _):
                order.append((await client.call_tool("work", on_progress=callback)).text)
            has_message = revision != HANDSHAKE[0]
            assert order == [
                *((step / 4, 1.0, f"step {step}" if has_message else None) for step in range(1, 5)),
                "done",
            ]

    run(main())


def test_no_progress_is_sent_to_a_client_that_did_not_ask_for_it() -> None:
    async def main() -> None:
        server = Server("s")

        @server.tool
        async def work(ctx: Context) -> None:
            await ctx.report_progress(1)

        async with joined(server) as (client, wire):
            await client.call_tool("work")
            assert not wire.received("notifications/progress")
        updates: list[float] = []
        heard = lambda update: updates.append(update.progress)  # noqa: E731
        async with joined(server, on_progress=heard) as (client, _):
            await client.call_tool("work")
        assert updates == [1.0]

    run(main())
