"""What is done about a connection that broke: when, how often, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dragoman import Client, LinkError, RemoteFailure, Server
from dragoman.client.supervisor import ConnectionEvent, Reconnect, backoff
from dragoman.client.targets import connector_for
from dragoman.errors import (
    CannotStart,
    DeadlineExceeded,
    DragomanError,
    HttpError,
    LinkClosed,
    Misconfigured,
    SessionLost,
    WrongState,
)
from dragoman.model.logging import LEVELS
from dragoman.testing import FaultyConnector, FaultyLink
from dragoman.transport.base import Link
from tests.instant import InstantLoop, run_instantly

EXACT = Reconnect(jitter=0.0)


def now() -> float:
    return asyncio.get_running_loop().time()


class Flaky:
    """A connector whose next attempts fail as told, or wait, and whose links can be cut."""

    description = "a flaky server"

    def __init__(self, server: Server) -> None:
        self.faulty = FaultyConnector(connector_for(server))
        self.next: list[Callable[[], object]] = []
        self.attempts: list[float] = []

    async def connect(self) -> Link:
        self.attempts.append(now())
        if self.next:
            outcome = self.next.pop(0)()
            if isinstance(outcome, BaseException):
                raise outcome
            if asyncio.iscoroutine(outcome):
                await outcome
        return await self.faulty.connect()

    @property
    def link(self) -> FaultyLink:
        return self.faulty.links[-1]

    def fail(self, *errors: BaseException) -> None:
        """Let the next attempts fail."""
        self.next += [lambda error=error: error for error in errors]  # type: ignore[misc]


def small() -> Server:
    server = Server("small")

    @server.tool
    async def add(a: int, b: int) -> int:
        return a + b

    @server.tool
    async def hang() -> None:
        await asyncio.Event().wait()

    @server.resource("a://{name}")
    async def resource(name: str) -> str:
        return name

    return server


class Scene:
    """A client of a flaky server, and what it was told."""

    def __init__(self, server: Server | None = None, **options: Any) -> None:
        self.flaky = Flaky(server or small())
        self.events: list[ConnectionEvent] = []
        self.states: list[str] = []
        options.setdefault("reconnect", EXACT)
        self.client = Client(self.flaky, on_connection=self._hear, **options)

    def _hear(self, event: ConnectionEvent) -> None:
        self.events.append(event)
        self.states.append(self.client.connection_state)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    async def until(self, kind: str) -> ConnectionEvent:
        """Wait for an event of a kind, and return the last of them."""
        while kind not in self.kinds:
            await asyncio.sleep(0.01)
        return next(event for event in reversed(self.events) if event.kind == kind)


def in_scene(main: Callable[[Scene], Any], **options: Any) -> Scene:
    """Run a test with a client that is connected."""
    made: list[Scene] = []

    async def body() -> None:
        scene = Scene(**options)
        made.append(scene)
        async with scene.client:
            await main(scene)
        assert scene.client.connection_state == "closed"
        assert all(link.is_closed for link in scene.flaky.faulty.links)

    run_instantly(body())
    return made[0]


# --- the delays -----------------------------------------------------------------------------------


def test_delays_double_up_to_the_longest() -> None:
    policy = Reconnect(first_delay_s=1, max_delay_s=5, jitter=0)
    assert [backoff(policy, n) for n in range(1, 6)] == [1, 2, 4, 5, 5]
    assert backoff(policy, 100_000) == 5


def test_chance_takes_off_its_share_and_no_more() -> None:
    policy = Reconnect(first_delay_s=8, max_delay_s=8, jitter=0.25)
    delays = {backoff(policy, 1) for _ in range(200)}
    assert len(delays) > 100
    assert 6 <= min(delays) <= max(delays) <= 8


@pytest.mark.parametrize(
    "wrong", [{"max_tries": -1}, {"first_delay_s": -1}, {"total_s": -0.1}, {"jitter": 1.5}]
)
def test_a_policy_that_cannot_be_followed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Reconnect(**wrong)


# --- the attempts ---------------------------------------------------------------------------------


def test_a_broken_connection_is_restored_and_the_user_hears_of_it() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.fail(LinkError("still down", sent=False), LinkError("down", sent=False))
        broke = now()
        scene.flaky.link.cut(LinkError("the cable"))
        event = await scene.until("restored")
        assert event.is_new_session
        assert event.problems == ()
        assert [round(at - broke, 3) for at in scene.flaky.attempts[1:]] == [0.1, 0.3, 0.7]
        assert (await scene.client.call_tool("add", {"a": 1, "b": 2})).data == 3

    scene = in_scene(main)
    assert scene.kinds == ["lost", *["retrying"] * 3, "restored"]
    assert scene.states == [*["reconnecting"] * 4, "connected"]
    lost, first, second, third, _ = scene.events
    assert "the cable" in str(lost.error)
    assert [(one.attempt, one.in_s) for one in (first, second, third)] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.4),
    ]
    assert [str(event) for event in scene.events] == [
        "the connection was lost: the cable",
        "attempt 1 to reconnect in 0.1 s",
        "attempt 2 to reconnect in 0.2 s",
        "attempt 3 to reconnect in 0.4 s",
        "the connection was restored",
    ]


def test_calls_meanwhile_wait_and_are_answered() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.fail(*[LinkError("down", sent=False)] * 3)
        scene.flaky.link.cut()
        calls = [scene.client.call_tool("add", {"a": n, "b": 1}) for n in range(5)]
        results = await asyncio.gather(*calls, scene.client.ping())
        assert [result.data for result in results[:5] if result is not None] == [1, 2, 3, 4, 5]

    in_scene(main)


def test_a_call_waits_no_longer_than_it_may() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.fail(*[LinkError("down", sent=False)] * 20)
        scene.flaky.link.cut()
        for timeout_s, total_s in ((2.0, None), (50.0, 2.0)):
            began = now()
            with pytest.raises(DeadlineExceeded, match="down") as late:
                await scene.client.call_tool(
                    "add", {"a": 1, "b": 1}, timeout_s=timeout_s, total_s=total_s
                )
            assert now() - began == pytest.approx(2.0, abs=0.01)
            assert late.value.timeout_s == 2.0

    in_scene(main)


def test_after_the_last_attempt_every_call_is_told_why_at_once() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.fail(*[LinkError("down for good", sent=False)] * 3)
        scene.flaky.link.cut()
        waiting = asyncio.ensure_future(scene.client.call_tool("add", {"a": 1, "b": 1}))
        event = await scene.until("given_up")
        assert "down for good" in str(event)
        assert scene.client.connection_state == "lost"
        for call in (waiting, asyncio.ensure_future(scene.client.list_tools())):
            with pytest.raises(LinkError, match="down for good") as lost:
                await call
            assert lost.value.sent is False
        # It is still known who that was.
        assert scene.client.server_info.name == "small"
        assert not scene.client.is_connected

    scene = in_scene(main, reconnect=Reconnect(max_tries=3))
    assert scene.kinds == ["lost", *["retrying"] * 3, "given_up"]


def test_what_was_given_up_can_be_opened_again_and_is_restored() -> None:
    async def main(scene: Scene) -> None:
        await scene.client.set_logging_level("error")
        scene.flaky.fail(LinkError("down", sent=False), LinkError("down", sent=False))
        scene.flaky.link.cut()
        await scene.until("given_up")
        with pytest.raises(LinkError, match="down"):
            await scene.client.connect()
        assert scene.client.connection_state == "lost"
        assert scene.client.server_info.name == "small"
        await scene.client.connect()
        assert scene.client.connection_state == "connected"
        assert scene.events[-1].is_new_session
        (driver,) = server._connections
        assert driver.engine.log_level == LEVELS["error"]

    server = small()
    in_scene(main, server=server, reconnect=Reconnect(max_tries=1))


def test_the_time_without_a_connection_is_bounded_as_well() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.fail(*[LinkError("down", sent=False)] * 1_000)
        broke = now()
        scene.flaky.link.cut()
        await scene.until("given_up")
        assert 50 < now() - broke <= 60

    in_scene(main, reconnect=Reconnect(max_tries=1_000, max_delay_s=4, total_s=60))


def test_a_server_that_dies_as_soon_as_it_runs_is_not_started_for_ever() -> None:
    async def main(scene: Scene) -> None:
        while scene.client.connection_state != "lost":
            await asyncio.sleep(1)
            if scene.client.is_connected:
                scene.flaky.link.cut()
        assert len(scene.flaky.attempts) == 1 + 5

    in_scene(main, reconnect=Reconnect(max_tries=5, steady_s=10))


def test_a_server_that_lives_for_a_while_is_always_restored() -> None:
    async def main(scene: Scene) -> None:
        for _ in range(20):
            await asyncio.sleep(11)
            scene.flaky.link.cut()
            event = await scene.until("restored")
            scene.events.clear()
            assert event.is_new_session

    in_scene(main, reconnect=Reconnect(max_tries=2, steady_s=10))


def test_a_server_may_ask_for_more_time() -> None:
    async def main(scene: Scene) -> None:
        busy = HttpError("busy", sent=False, url="u", status=503, retry_after_s=9.0)
        scene.flaky.fail(busy)
        broke = now()
        scene.flaky.link.cut()
        await scene.until("restored")
        assert scene.flaky.attempts[2] - broke == pytest.approx(9.1, abs=0.01)

    in_scene(main)


def test_one_that_asks_for_more_time_than_there_is_is_given_up() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.fail(HttpError("busy", sent=False, url="u", status=429, retry_after_s=3_600.0))
        scene.flaky.link.cut()
        event = await scene.until("given_up")
        assert isinstance(event.error, HttpError)
        assert event.error.retry_after_s == 3_600.0
        assert now() < 1

    in_scene(main)


@pytest.mark.parametrize(
    "error",
    [
        HttpError("who are you?", sent=False, url="u", status=401),
        HttpError("not you", sent=False, url="u", status=403),
        Misconfigured("the token is gone"),
    ],
    ids=str,
)
def test_what_no_further_attempt_would_change_is_given_up_at_once(error: DragomanError) -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.fail(error)
        scene.flaky.link.cut()
        event = await scene.until("given_up")
        assert event.error is error
        with pytest.raises(LinkError) as told:
            await scene.client.ping()
        assert str(error) in str(told.value)
        assert told.value.sent is False

    scene = in_scene(main)
    assert len(scene.flaky.attempts) == 2


@pytest.mark.parametrize(
    "error",
    [
        CannotStart("not installed yet", command=["x"]),
        RemoteFailure(-32603, "starting"),
        OSError("a connector without manners"),
        DeadlineExceeded("initialize", 3.0),
    ],
    ids=str,
)
def test_anything_else_is_tried_again(error: Exception) -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.fail(error)
        scene.flaky.link.cut()
        await scene.until("restored")

    in_scene(main)


def test_a_lost_session_is_opened_anew_without_waiting() -> None:
    async def main(scene: Scene) -> None:
        broke = now()
        scene.flaky.link.cut(SessionLost())
        assert (await scene.client.call_tool("add", {"a": 1, "b": 1})).data == 2
        assert now() - broke < 0.01

    in_scene(main)


def test_without_a_policy_nothing_is_tried_and_nothing_is_repeated() -> None:
    async def main(scene: Scene) -> None:
        listing = asyncio.ensure_future(scene.client.list_tools())
        await asyncio.sleep(0)
        scene.flaky.link.cut()
        with pytest.raises(LinkError, match="on purpose"):
            await listing
        event = await scene.until("given_up")
        assert "on purpose" in str(event.error)
        with pytest.raises(LinkError, match="on purpose"):
            await scene.client.ping()

    scene = in_scene(main, reconnect=False)
    assert scene.kinds == ["lost", "given_up"]
    assert len(scene.flaky.attempts) == 1


def test_a_peer_that_leaves_in_order_is_missed_as_well() -> None:
    async def main(scene: Scene) -> None:
        await scene.flaky.link.inner.aclose()
        await scene.until("restored")
        assert isinstance(scene.events[0].error, LinkClosed)

    in_scene(main)


def test_a_server_that_answers_no_pings_is_replaced() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.link.inner.send = lambda *_: None  # type: ignore[method-assign]
        began = now()
        await scene.until("restored")
        assert now() - began == pytest.approx(5 + 2 + 0.1, abs=0.05)
        # The new connection is watched as well.
        scene.events.clear()
        scene.flaky.link.inner.send = lambda *_: None  # type: ignore[method-assign]
        await scene.until("restored")

    # Slots: the link inside is wrapped once more, so that its `send` can be replaced.
    class Open(Flaky):
        async def connect(self) -> Link:
            link = await super().connect()
            assert isinstance(link, FaultyLink)
            link.inner = FaultyLink(link.inner, link._owner, link._clock, 0)
            return link

    async def body() -> None:
        scene = Scene(keep_alive_s=5.0, keep_alive_timeout_s=2.0)
        scene.flaky = Open(small())
        scene.client._supervisor.connector = scene.flaky
        async with scene.client:
            await main(scene)

    run_instantly(body())


# --- the first connect ----------------------------------------------------------------------------


def test_the_first_connect_is_tried_once() -> None:
    async def main() -> None:
        scene = Scene()
        scene.flaky.fail(LinkError("no such server", sent=False))
        with pytest.raises(LinkError, match="no such server"):
            await scene.client.connect()
        assert scene.events == []
        assert scene.client.connection_state == "closed"
        assert len(scene.flaky.attempts) == 1

    run_instantly(main())


def test_the_first_connect_is_tried_again_where_that_was_asked_for() -> None:
    async def main() -> None:
        scene = Scene(reconnect=Reconnect(jitter=0.0, max_tries=3, first_connect=True))
        scene.flaky.fail(*[LinkError("not there yet", sent=False)] * 2)
        async with scene.client:
            assert scene.kinds == ["retrying", "retrying"]
            await scene.client.ping()
        scene.flaky.fail(*[LinkError("not there at all", sent=False)] * 4)
        with pytest.raises(LinkError, match="at all"):
            await scene.client.connect()
        assert len(scene.flaky.attempts) == 3 + 4

    run_instantly(main())


def test_a_connector_that_takes_for_ever_meets_the_deadline_of_the_opening() -> None:
    async def main() -> None:
        scene = Scene(connect_timeout_s=7.0)
        scene.flaky.next.append(lambda: asyncio.sleep(1_000))
        with pytest.raises(DeadlineExceeded):
            await scene.client.connect()
        assert now() == pytest.approx(7.0, abs=0.01)

    run_instantly(main())


def test_a_cancellation_from_within_is_no_cancellation_of_the_users() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        scene = Scene()
        scene.flaky.next.append(cancelled)
        with pytest.raises(LinkError, match="from within"):
            await scene.client.connect()
        async with scene.client:
            scene.flaky.next.append(cancelled)
            scene.flaky.link.cut()
            await scene.until("restored")

    run_instantly(main())


def test_the_users_own_cancellation_and_deadline_stay_what_they_are() -> None:
    async def main() -> None:
        scene = Scene()
        scene.flaky.next += [lambda: asyncio.sleep(1_000)] * 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await scene.client.connect()
        connecting = asyncio.ensure_future(scene.client.connect())
        await asyncio.sleep(1)
        assert scene.client.connection_state == "connecting"
        with pytest.raises(WrongState):
            await scene.client.ping()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert scene.client.connection_state == "closed"

    run_instantly(main())


def test_connecting_while_it_is_being_restored_is_refused() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.link.cut()
        await scene.until("lost")
        with pytest.raises(WrongState):
            await scene.client.connect()
        assert "reconnecting" in repr(scene.client)
        await scene.until("restored")

    in_scene(main)


# --- what a new session has to know ---------------------------------------------------------------


def test_log_level_and_subscriptions_are_restored_and_lists_are_said_to_have_changed() -> None:
    told: list[str] = []
    server = small()

    @server.prompt
    async def plan() -> str:
        return "plan"

    async def main(scene: Scene) -> None:
        client = scene.client
        await client.set_logging_level("warning")
        await client.subscribe_resource("a://b")
        await client.subscribe_resource("a://c")
        await client.unsubscribe_resource("a://c")
        await client.list_tools()
        scene.flaky.link.cut()
        await scene.until("restored")
        (driver,) = server._connections
        assert driver.engine.log_level == LEVELS["warning"]
        assert set(driver.engine.subscriptions) == {"a://b"}
        assert client._outputs.get("add") is None
        assert told == ["tools", "resources", "prompts"]

    in_scene(
        main,
        server=server,
        on_tools_changed=lambda: told.append("tools"),
        on_resources_changed=lambda: told.append("resources"),
        on_prompts_changed=lambda: told.append("prompts"),
    )


def test_only_lists_that_are_offered_are_said_to_have_changed() -> None:
    told: list[str] = []
    server = Server("only tools")

    @server.tool
    async def nothing() -> None:
        pass

    async def main(scene: Scene) -> None:
        scene.flaky.link.cut()
        await scene.until("restored")
        assert told == ["tools"]

    in_scene(
        main,
        server=server,
        on_tools_changed=lambda: told.append("tools"),
        on_prompts_changed=lambda: told.append("prompts"),
    )


def test_what_cannot_be_restored_is_in_the_event_and_the_connection_is_there() -> None:
    servers = [small(), Server("without anything")]

    async def main(scene: Scene) -> None:
        await scene.client.set_logging_level("warning")
        await scene.client.subscribe_resource("a://b")
        scene.flaky.faulty.inner = connector_for(servers[1])
        scene.flaky.link.cut()
        event = await scene.until("restored")
        assert len(event.problems) >= 1
        assert "not all of it" in str(event)
        assert scene.client.server_info.name == "without anything"
        await scene.client.ping()

    in_scene(main, server=servers[0])


def test_a_connection_that_breaks_while_it_is_restored_is_one_more_attempt() -> None:
    async def main(scene: Scene) -> None:
        await scene.client.set_logging_level("warning")
        cuts = 0

        def watch(direction: str, frame: bytes) -> None:
            nonlocal cuts
            if direction == "sent" and b"logging/setLevel" in frame and cuts < 2:
                cuts += 1
                scene.flaky.link.cut(LinkError("again"))

        scene.client._supervisor._tap = watch
        scene.flaky.link.cut()
        await scene.until("restored")
        assert cuts == 2

    scene = in_scene(main)
    assert scene.kinds == ["lost", *["retrying"] * 3, "restored"]


def test_a_list_that_spans_two_sessions_is_read_anew() -> None:
    server = Server("many", page_size=2)
    for n in range(6):

        async def tool() -> None:
            pass

        server.tool(f"t{n}")(tool)

    async def main(scene: Scene) -> None:
        pages = 0

        def watch(direction: str, frame: bytes) -> None:
            nonlocal pages
            if direction == "received" and b"nextCursor" in frame:
                pages += 1
                if pages == 2:
                    scene.flaky.link.cut()

        assert scene.client._supervisor.driver is not None
        scene.client._supervisor.driver.tap = watch
        tools = await scene.client.list_tools()
        assert [tool.name for tool in tools] == [f"t{n}" for n in range(6)]
        assert pages == 2

    in_scene(main, server=server)


def test_roots_that_change_meanwhile_are_what_the_new_session_is_given() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.link.cut()
        await scene.until("lost")
        scene.client.set_roots(["file:///new"])
        scene.client.notify_roots_changed()
        await scene.until("restored")
        scene.client.notify_roots_changed()

    in_scene(main, roots=["file:///old"])


# --- a link that lives and cannot reach its peer --------------------------------------------------


def test_trouble_of_a_living_link_is_told_and_calls_are_tried_all_the_same() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.link.link_troubled(LinkError("no route"))
        scene.flaky.link.link_troubled(LinkError("no route, still"))
        assert scene.kinds == ["lost"]
        assert scene.client.connection_state == "reconnecting"
        assert not scene.client.is_connected
        # A call that gets through shows that the trouble is over.
        assert (await scene.client.call_tool("add", {"a": 1, "b": 1})).data == 2
        assert scene.client.connection_state == "connected"
        scene.flaky.link.link_troubled(LinkError("no route"))
        scene.flaky.link.link_troubled(None)
        scene.flaky.link.link_troubled(None)

    scene = in_scene(main)
    assert scene.kinds == ["lost", "restored"] * 2
    assert not any(event.is_new_session for event in scene.events)
    assert len(scene.flaky.attempts) == 1


# --- leaving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["delay", "connecting", "restoring"])
def test_leaving_while_it_is_restored_leaves_nothing_behind(stage: str) -> None:
    async def main(scene: Scene) -> None:
        await scene.client.set_logging_level("warning")
        if stage == "connecting":
            scene.flaky.next.append(lambda: asyncio.sleep(1_000))
        if stage == "restoring":
            server = scene.flaky.faulty.inner._server  # type: ignore[attr-defined]

            async def stall(*_: Any) -> Any:
                await asyncio.Event().wait()

            server.middleware(stall)

        scene.flaky.link.cut()
        await scene.until("retrying")
        waiting = asyncio.ensure_future(scene.client.call_tool("add", {"a": 1, "b": 1}))
        await asyncio.sleep(0.05 if stage == "delay" else 0.5)
        assert scene.client.connection_state == "reconnecting"
        await scene.client.aclose()
        with pytest.raises(LinkError, match="closed") as ended:
            await waiting
        assert ended.value.sent is False
        with pytest.raises(WrongState):
            await scene.client.ping()

    in_scene(main)


@pytest.mark.parametrize("then", ["fails", "connects"])
def test_a_connector_that_swallows_its_cancellation_keeps_nothing_alive(then: str) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            if then == "fails":
                raise LinkError("never mind", sent=False) from None

    async def main(scene: Scene) -> None:
        scene.flaky.next.append(stubborn)
        scene.flaky.link.cut()
        await scene.until("retrying")
        await asyncio.sleep(1)
        await scene.client.aclose()
        assert now() < 2

    scene = in_scene(main)
    assert scene.kinds == ["lost", "retrying"]


def test_a_loop_that_ends_while_it_is_restored_ends_the_waiting() -> None:
    scenes: list[Scene] = []

    async def main() -> None:
        scene = Scene()
        scenes.append(scene)
        await scene.client.connect()
        scene.flaky.next.append(lambda: asyncio.sleep(1_000))
        scene.flaky.link.cut()
        await scene.until("retrying")

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        runner.run(main())
    assert scenes[0].kinds == ["lost", "retrying", "given_up"]
    assert scenes[0].client.connection_state == "lost"


def test_an_error_that_makes_no_sense_is_the_end_of_it_and_not_a_hang() -> None:
    class Odd(LinkError):
        retry_after_s = "soon"

    async def main(scene: Scene) -> None:
        scene.flaky.fail(Odd("?", sent=False))
        scene.flaky.link.cut()
        with pytest.raises(LinkError, match="reconnecting failed"):
            await scene.client.ping()

    scene = in_scene(main)
    assert scene.kinds == ["lost", "retrying", "given_up"]


def test_a_listener_that_fails_hurts_nobody() -> None:
    async def main() -> None:
        def fail(event: ConnectionEvent) -> None:
            raise RuntimeError("a careless listener")

        flaky = Flaky(small())
        async with Client(flaky, on_connection=fail) as client:
            flaky.link.cut()
            await client.ping()

    run_instantly(main())


@pytest.mark.parametrize("kind", ["lost", "retrying", "restored", "given_up"])
def test_a_listener_may_close_the_client(kind: str) -> None:
    closed: list[str] = []

    async def main() -> None:
        async def listen(event: ConnectionEvent) -> None:
            if event.kind == kind:
                await client.aclose()
                closed.append(event.kind)

        flaky = Flaky(small())
        client = Client(flaky, on_connection=listen, reconnect=Reconnect(max_tries=2))
        await client.connect()
        if kind == "given_up":
            flaky.fail(*[LinkError("down", sent=False)] * 2)
        flaky.link.cut()
        while not closed:
            await asyncio.sleep(0.01)
        assert client.connection_state == "closed"
        assert all(link.is_closed for link in flaky.faulty.links)

    run_instantly(main())


def test_a_client_that_is_closed_twice_at_once_is_closed() -> None:
    async def main(scene: Scene) -> None:
        scene.flaky.link.cut()
        await scene.until("retrying")
        await asyncio.gather(*(scene.client.aclose() for _ in range(3)))
        await scene.client.connect()
        await asyncio.gather(*(scene.client.aclose() for _ in range(3)))

    in_scene(main)


def test_async_listeners_hear_everything_in_order() -> None:
    heard: list[str] = []

    async def listen(event: ConnectionEvent) -> None:
        await asyncio.sleep(1)
        heard.append(event.kind)

    async def main() -> None:
        flaky = Flaky(small())
        async with Client(flaky, on_connection=listen) as client:
            flaky.link.cut()
            await client.ping()
            await asyncio.sleep(10)

    run_instantly(main())
    assert heard == ["lost", "retrying", "restored"]


def every_turn(scenario: Callable[[Flaky], Any]) -> Sequence[int]:
    """Run a scenario again and again, cancelled one turn of the loop later each time."""
    turns: list[int] = []
    for turn in range(1, 2_000):
        flaky = Flaky(small())
        was_cancelled = True

        async def main(flaky: Flaky = flaky, turn: int = turn) -> bool:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, InstantLoop)
            task = asyncio.ensure_future(scenario(flaky))
            loop.call_in_turn(turn, task.cancel)
            try:
                await task
            except asyncio.CancelledError:
                return True
            return False

        was_cancelled = run_instantly(main())
        assert all(link.is_closed for link in flaky.faulty.links), turn
        if not was_cancelled:
            return turns
        turns.append(turn)
    raise AssertionError("it never ended")


def test_cancelling_at_any_await_leaves_no_task_and_no_link_behind() -> None:
    async def scenario(flaky: Flaky) -> None:
        async with Client(flaky, reconnect=EXACT) as client:
            await client.set_logging_level("info")
            await client.call_tool("add", {"a": 1, "b": 1})
            flaky.fail(LinkError("down", sent=False))
            flaky.link.cut()
            await client.call_tool("add", {"a": 1, "b": 1})
            await client.subscribe_resource("a://b")
            flaky.link.cut()
            await client.list_tools()

    turns = every_turn(scenario)
    assert len(turns) > 50
