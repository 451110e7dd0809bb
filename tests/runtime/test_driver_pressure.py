"""Back-pressure: a peer that does not read is not read either, but never for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dragoman.errors import LinkClosed, LinkError
from dragoman.model.base import Record
from dragoman.model.content import TextContent
from dragoman.model.methods import Side
from dragoman.model.resources import ResourceUpdatedParams
from dragoman.model.sampling import CreateMessageResult
from dragoman.model.tools import CallToolParams, CallToolResult
from dragoman.protocol.calls import Exchange
from dragoman.runtime.driver import MAX_UNSENT_BYTES, PAUSE_S, Driver
from dragoman.testing import ManualClock, ScriptedPeer
from dragoman.transport.memory import memory_pair
from tests.protocol.aids import PARAMS, answer, client_engine, server_engine
from tests.requirements.duties import duty
from tests.runtime.aids import Handlers, connected, facing_script, give_result, run, turns

CALL = {"name": "add"}


async def give_much(driver: Driver, exchange: Exchange, params: Record) -> Record:
    return CallToolResult(content=[TextContent(text="x" * 10_000)])


class CountingLink:
    """A link that counts how often it was told to stop and to go on reading, and how many frames
    were sent though it was congested."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self.paused = 0
        self.resumed = 0
        self.sent_over = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    @property
    def is_congested(self) -> bool:
        congested: bool = self._link.is_congested
        return congested

    def send(self, frame: bytes, about: Any = None, is_answer: bool = False) -> None:
        self.sent_over += self.is_congested
        self._link.send(frame, about, is_answer)

    def pause_reading(self) -> None:
        self.paused += 1
        self._link.pause_reading()

    def resume_reading(self) -> None:
        self.resumed += 1
        self._link.resume_reading()


class DeafPeer(ScriptedPeer):
    """A peer that takes nothing more once it was told to stop."""

    def stop(self) -> None:
        self.link.pause_reading()

    def go_on(self) -> None:
        self.link.resume_reading()


async def facing_deaf_peer(
    clock: ManualClock, handlers: Handlers
) -> tuple[Driver, DeafPeer, CountingLink]:
    near, far = memory_pair(high_water_bytes=25_000)
    link = CountingLink(near)
    driver, peer = Driver(server_engine(), link, handlers, clock=clock), DeafPeer(far)
    driver.start()
    await peer.hello()
    await turns()
    return driver, peer, link


@duty("trust.practices")
def test_a_peer_that_does_not_take_its_answers_is_not_read_until_it_does() -> None:
    async def main() -> None:
        ran: list[Any] = []

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            ran.append(exchange.id)
            return await give_much(driver, exchange, params)

        clock = ManualClock()
        driver, peer, link = await facing_deaf_peer(clock, Handlers(tools_call=call))
        peer.stop()
        for ident in range(3):
            peer.request(ident, "tools/call", CALL)
        await turns()
        assert (ran, link.paused, link.resumed) == ([0, 1, 2], 1, 0)
        for ident in range(3, 6):
            peer.request(ident, "tools/call", CALL)
        await turns()
        assert ran == [0, 1, 2], "nothing is read while nothing is taken"
        peer.go_on()
        for ident in range(6):
            assert (await peer.receive())["id"] == ident
        assert ran == [0, 1, 2, 3, 4, 5]
        assert link.paused == link.resumed
        assert clock.next_alarm() != PAUSE_S
        await driver.aclose()
        await peer.aclose()

    run(main())


@duty("trust.practices")
def test_reading_goes_on_after_a_while_even_if_the_peer_still_takes_nothing() -> None:
    async def main() -> None:
        clock = ManualClock()
        driver, peer, link = await facing_deaf_peer(clock, Handlers(tools_call=give_much))
        peer.stop()
        for ident in range(3):
            peer.request(ident, "tools/call", CALL)
        await turns()
        assert (link.paused, link.resumed) == (1, 0)
        clock.advance(PAUSE_S)
        await turns()
        assert (link.paused, link.resumed) == (1, 1)
        # What is answered now stops the reading anew: one read for each such while, no more.
        peer.request(3, "tools/call", CALL)
        await turns()
        assert (link.paused, link.resumed) == (2, 1)
        peer.go_on()
        for ident in range(4):
            assert (await peer.receive())["id"] == ident
        await driver.aclose()
        await peer.aclose()

    run(main())


def test_two_ends_that_both_stop_reading_do_not_wait_for_ever() -> None:
    async def give_much_too(driver: Driver, exchange: Exchange, params: Record) -> Record:
        text = TextContent(text="x" * 10_000)
        return CreateMessageResult(role="assistant", content=text, model="m")

    async def main() -> None:
        clock = ManualClock()
        near, far = memory_pair(high_water_bytes=25_000)
        links = CountingLink(near), CountingLink(far)
        at_client = Handlers(sampling_createMessage=give_much_too)
        at_server = Handlers(tools_call=give_much)
        client = Driver(client_engine(), links[0], at_client, clock=clock)
        server = Driver(server_engine(), links[1], at_server, clock=clock)
        server.start()
        client.start()
        await client.open()
        await turns()
        # Both ask in the same turn, so both answer in the same turn, and both are over the mark.
        names = [(client, "tools/call"), (server, "sampling/createMessage")] * 4
        calls = [
            asyncio.ensure_future(driver.request(method, PARAMS[method]))
            for driver, method in names
        ]
        await turns()
        assert links[0].paused == links[1].paused == 1
        assert not any(call.done() for call in calls)
        clock.advance(PAUSE_S)
        await asyncio.gather(*calls)
        await client.aclose()
        await server.aclose()

    run(main())


def test_who_only_asks_goes_on_reading_however_much_it_has_to_say() -> None:
    async def main() -> None:
        near, far = memory_pair(high_water_bytes=25_000)
        link = CountingLink(near)
        driver, peer = Driver(client_engine(), link, Handlers()), DeafPeer(far)
        driver.start()
        opening = asyncio.ensure_future(driver.open())
        await peer.welcome({"tools": {}})
        await opening
        peer.stop()
        big = CallToolParams.of("add", {"text": "x" * 100_000})
        calls = [asyncio.ensure_future(driver.request("tools/call", big)) for _ in range(3)]
        await turns()
        assert driver.link.is_congested
        for ident in range(2, 5):
            peer.send(answer(ident, {"content": []}))
        await asyncio.gather(*calls)
        assert link.paused == 0
        await driver.aclose()
        await peer.aclose()

    run(main())


@pytest.mark.parametrize("high_water_bytes", [5_000, 100_000])
def test_much_traffic_in_both_directions_arrives_whole(high_water_bytes: int) -> None:
    async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
        await driver.request("roots/list", PARAMS["roots/list"])
        return await give_much(driver, exchange, params)

    async def main() -> None:
        async with connected(
            Handlers(tools_call=call),
            Handlers(roots_list=give_result),
            high_water_bytes=high_water_bytes,
        ) as (client, _):
            big = CallToolParams.of("add", {"text": "x" * 1_000})
            answers = await asyncio.gather(*(client.request("tools/call", big) for _ in range(200)))
            assert len(answers) == 200

    run(main())


def test_closing_while_the_peer_takes_nothing_leaves_no_task() -> None:
    async def main() -> None:
        clock = ManualClock()
        before = asyncio.all_tasks()
        driver, peer, link = await facing_deaf_peer(clock, Handlers(tools_call=give_much))
        peer.stop()
        for ident in range(3):
            peer.request(ident, "tools/call", CALL)
        await turns()
        assert link.paused == 1
        await driver.aclose()
        assert asyncio.all_tasks() - before == set()
        assert clock.next_alarm() is None
        await peer.aclose()

    run(main())


class BadLink(CountingLink):
    """Always over its mark."""

    @property
    def is_congested(self) -> bool:
        return True


@pytest.mark.parametrize("error", [LinkClosed("gone"), LinkError("broken")])
def test_a_link_that_breaks_while_it_drains_is_not_read_again(error: LinkError) -> None:
    class BreakingLink(BadLink):
        async def drain(self) -> None:
            raise error

    async def main() -> None:
        near, far = memory_pair()
        link = BreakingLink(near)
        driver, peer = Driver(server_engine(), link, Handlers()), ScriptedPeer(far)
        driver.start()
        peer.request(1, "ping")
        await peer.receive()
        await turns()
        assert (link.paused, link.resumed) == (1, 0)
        await driver.aclose()
        await peer.aclose()

    run(main())


def test_closing_during_a_pause_ends_the_pause() -> None:
    class StuckLink(BadLink):
        """Never drains, and its end wakes nobody."""

        async def drain(self) -> None:
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        before = asyncio.all_tasks()
        near, far = memory_pair()
        link = StuckLink(near)
        driver, peer = (
            Driver(server_engine(), link, Handlers(), clock=ManualClock()),
            ScriptedPeer(far),
        )
        driver.start()
        peer.request(1, "ping")
        await peer.receive()
        await turns()
        await driver.aclose()
        assert (link.paused, link.resumed) == (1, 0)
        assert asyncio.all_tasks() - before == set()
        await peer.aclose()

    run(main())


def test_without_congestion_reading_is_never_paused() -> None:
    async def main() -> None:
        async with facing_script(Side.SERVER, Handlers(tools_call=give_much)) as (driver, peer):
            counting = CountingLink(driver.link)
            driver.link = counting
            for ident in range(20):
                peer.request(ident, "tools/call", CALL)
            for _ in range(20):
                await peer.receive()
            assert counting.paused == 0

    run(main())


@duty("trust.practices")
def test_requests_are_not_begun_while_large_answers_are_not_taken() -> None:
    async def main() -> None:
        ran: list[Any] = []

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            ran.append(exchange.id)
            return CallToolResult(content=[TextContent(text="x" * 30_000)])

        clock = ManualClock()
        driver, peer, _ = await facing_deaf_peer(clock, Handlers(tools_call=call))
        peer.stop()
        for ident in range(50):
            peer.request(ident, "tools/call", CALL)
        await turns()
        begun = len(ran)
        assert begun * 30_000 <= MAX_UNSENT_BYTES + 2 * 30_000
        for ident in range(50, 60):
            peer.request(ident, "tools/call", CALL)
            clock.advance(PAUSE_S)
            await turns()
        assert len(ran) == begun, "what is read while nothing is taken waits as well"
        peer.go_on()
        for ident in range(60):
            assert (await peer.receive())["id"] == ident
        await driver.aclose()
        await peer.aclose()

    run(main())


def test_a_handler_that_waits_holds_up_nobody_after_large_answers_were_taken() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            if exchange.id == 5:
                await gate.wait()
            return CallToolResult(content=[TextContent(text="x" * 70_000)])

        driver, peer, _ = await facing_deaf_peer(ManualClock(), Handlers(tools_call=call))
        for ident in range(10):
            peer.request(ident, "tools/call", CALL)
        answered = {(await peer.receive())["id"] for _ in range(9)}
        assert answered == set(range(10)) - {5}
        gate.set()
        assert (await peer.receive())["id"] == 5
        await driver.aclose()
        await peer.aclose()

    run(main())


def test_a_driver_that_waits_for_a_deaf_peer_can_be_closed() -> None:
    async def main() -> None:
        async def call(driver: Driver, exchange: Exchange, params: Record) -> Record:
            return CallToolResult(content=[TextContent(text="x" * 70_000)])

        driver, peer, _ = await facing_deaf_peer(ManualClock(), Handlers(tools_call=call))
        peer.stop()
        for ident in range(10):
            peer.request(ident, "tools/call", CALL)
        await turns()
        await driver.aclose()
        await peer.aclose()

    run(main())


# --- news that may wait -----------------------------------------------------------------------------


def news(driver: Driver, number: int) -> None:
    """A notification that can be told from the others."""
    params = ResourceUpdatedParams(uri=f"note://{number}")
    driver.notify("notifications/resources/updated", params)


async def uris_of(peer: ScriptedPeer) -> list[str]:
    """Of which resources the peer has heard since it was last asked."""
    await turns()
    return [(await peer.receive())["params"]["uri"] for _ in range(peer.waiting)]


@duty("trust.practices")
def test_news_waits_while_the_peer_takes_nothing_and_each_kind_waits_once() -> None:
    async def main() -> None:
        driver, peer, link = await facing_deaf_peer(ManualClock(), Handlers())
        driver.soon(1, lambda: news(driver, 1))
        assert await uris_of(peer) == ["note://1"], "at once while nothing is in the way"
        peer.stop()
        count = 0
        while not link.is_congested:
            news(driver, 0)
            count += 1
        told: list[int] = []
        for number in (1, 2, 1, 3, 2, 1):

            def tell(number: int = number) -> None:
                told.append(number)
                news(driver, number)

            driver.soon(number, tell)
        await turns()
        assert told == []
        peer.go_on()
        assert await uris_of(peer) == ["note://0"] * count + ["note://1", "note://2", "note://3"]
        assert told == [1, 2, 3]
        driver.soon(1, lambda: news(driver, 1))
        assert await uris_of(peer) == ["note://1"]
        await driver.aclose()
        await peer.aclose()

    run(main())


def test_more_news_than_the_peer_takes_at_once_arrives_whole_and_in_order() -> None:
    async def main() -> None:
        driver, peer, link = await facing_deaf_peer(ManualClock(), Handlers())
        peer.stop()
        while not link.is_congested:
            news(driver, -1)
        for number in range(2_000):
            driver.soon(number, lambda number=number: news(driver, number))  # type: ignore[misc]
        peer.go_on()
        heard: list[str] = []
        while f"note://{1_999}" not in heard:
            heard.append((await peer.receive())["params"]["uri"])
        assert link.sent_over == 0
        assert [uri for uri in heard if uri != "note://-1"] == [f"note://{n}" for n in range(2_000)]
        await driver.aclose()
        await peer.aclose()

    run(main())


def test_news_that_cannot_be_sent_keeps_no_other_back(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        driver, peer, link = await facing_deaf_peer(ManualClock(), Handlers())
        peer.stop()
        while not link.is_congested:
            news(driver, 0)

        def fail() -> None:
            raise ValueError("no JSON")

        driver.soon("bad", fail)
        driver.soon("good", lambda: news(driver, 1))
        peer.go_on()
        assert (await uris_of(peer))[-1] == "note://1"
        await driver.aclose()
        await peer.aclose()

    run(main())
    assert "a notification could not be sent" in caplog.text


@pytest.mark.parametrize("error", [LinkClosed("gone"), LinkError("broken")])
def test_news_is_forgotten_when_the_link_breaks_or_has_ended(error: LinkError) -> None:
    class BreakingLink(BadLink):
        async def drain(self) -> None:
            raise error

    async def main() -> None:
        near, far = memory_pair()
        driver, peer = Driver(server_engine(), BreakingLink(near), Handlers()), ScriptedPeer(far)
        driver.start()
        told: list[int] = []
        driver.soon(1, lambda: told.append(1))
        await turns()
        await driver.aclose()
        driver.soon(2, lambda: told.append(2))
        await turns()
        await peer.aclose()
        assert told == []

    run(main())
