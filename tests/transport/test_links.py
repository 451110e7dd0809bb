"""One list of scenarios for every link: a pair in memory, pipes, sockets, and a real child."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from dragoman.errors import LinkClosed, WrongState
from dragoman.jsonrpc.frame import Noise, Seen
from dragoman.transport.base import Link
from dragoman.transport.memory import memory_pair
from dragoman.transport.stdio import link as link_module
from dragoman.transport.stdio import pipes
from dragoman.transport.stdio.limits import SAMPLE_BYTES
from dragoman.transport.stdio.link import PipeLink
from tests.requirements.duties import duty

from .aids import Recorder, in_loop, open_descriptors

LIMIT = 20_000_000

Pair = Callable[[], AbstractAsyncContextManager[tuple[Link, Link]]]


@asynccontextmanager
async def in_memory() -> AsyncIterator[tuple[Link, Link]]:
    near, far = memory_pair(max_frame_bytes=LIMIT)
    try:
        yield near, far
    finally:
        await near.aclose()
        await far.aclose()


@asynccontextmanager
async def over_pipes() -> AsyncIterator[tuple[Link, Link]]:
    near_input, far_output = os.pipe()
    far_input, near_output = os.pipe()
    near = PipeLink(near_input, near_output, max_frame_bytes=LIMIT)
    far = PipeLink(far_input, far_output, max_frame_bytes=LIMIT)
    try:
        yield near, far
    finally:
        await near.aclose()
        await far.aclose()


@asynccontextmanager
async def over_sockets() -> AsyncIterator[tuple[Link, Link]]:
    one, other = socket.socketpair()
    near = PipeLink(os.dup(one.fileno()), one.detach(), max_frame_bytes=LIMIT)
    far = PipeLink(os.dup(other.fileno()), other.detach(), max_frame_bytes=LIMIT)
    try:
        yield near, far
    finally:
        await near.aclose()
        await far.aclose()


@asynccontextmanager
async def over_threads() -> AsyncIterator[tuple[Link, Link]]:
    """Pipes as they are on Windows, where no loop can watch them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipes, "loop_can_watch", lambda fd: False)
        async with over_pipes() as links:
            yield links


every_link = pytest.mark.parametrize("pair", [in_memory, over_pipes, over_sockets, over_threads])


@duty("transport.custom.preserved")
@every_link
@in_loop
async def test_frames_arrive_whole_and_in_order_both_ways(pair: Pair) -> None:
    async with pair() as (near, far):
        at_near, at_far = Recorder(), Recorder()
        near.start(at_near)
        far.start(at_far)
        sent = [b'{"id":%d,"text":"\xc3\xa9\xe2\x80\xa8"}' % number for number in range(500)]
        for frame in sent:
            near.send(frame)
            far.send(frame, about=1)
        await at_far.frame(499)
        await at_near.frame(499)
        assert at_far.frames == sent
        assert at_near.frames == sent


@every_link
@in_loop
async def test_frames_of_one_turn_travel_in_few_pieces(pair: Pair) -> None:
    async with pair() as (near, far):
        at_far = Recorder()
        far.start(at_far)
        for number in range(100):
            near.send(b"%d" % number)
        await at_far.frame(99)
        assert sum(at_far.batches) == 100
        # The first, six times sixteen, and the rest; more of them may be read at once.
        assert len(at_far.batches) <= 8


@every_link
@in_loop
async def test_a_frame_of_ten_megabytes_arrives(pair: Pair) -> None:
    async with pair() as (near, far):
        at_far = Recorder()
        far.start(at_far)
        frame = os.urandom(5_000_000).hex().encode()
        near.send(b"{}")
        near.send(frame)
        near.send(b"[]")
        assert await at_far.frame(2) == b"[]"
        assert at_far.frames == [b"{}", frame, b"[]"]


@every_link
@in_loop
async def test_a_frame_over_the_limit_is_refused_and_the_link_goes_on(pair: Pair) -> None:
    async with pair() as (near, far):
        at_far = Recorder()
        far.start(at_far)
        near.send(b"{}")
        near.send(b'{"id":7' + b"x" * LIMIT)
        near.send(b"[]")
        assert await at_far.frame(1) == b"[]"
        [noise] = at_far.refused
        assert noise.size == LIMIT + 7
        assert noise.limit == LIMIT
        assert noise.head.startswith(b'{"id":7x')
        assert noise.tail == b"x" * SAMPLE_BYTES


@every_link
@in_loop
async def test_frames_sent_before_start_are_delivered_after_it(pair: Pair) -> None:
    async with pair() as (near, far):
        near.send(b"{}")
        await turns(5)
        at_far = Recorder()
        far.start(at_far)
        assert await at_far.frame(0) == b"{}"


@every_link
@in_loop
async def test_a_link_is_started_once(pair: Pair) -> None:
    async with pair() as (near, _):
        near.start(Recorder())
        with pytest.raises(WrongState):
            near.start(Recorder())


@every_link
@in_loop
async def test_answers_sent_while_receiving_arrive(pair: Pair) -> None:
    async with pair() as (near, far):
        at_near, at_far = Recorder(), Recorder()
        at_far.on_frames = lambda frames: send_all(far, frames)
        near.start(at_near)
        far.start(at_far)
        for number in range(50):
            near.send(b"%d" % number)
        await at_near.frame(49)
        assert at_near.frames == [b"%d" % number for number in range(50)]


@every_link
@in_loop
async def test_nothing_is_delivered_while_reading_is_paused(pair: Pair) -> None:
    async with pair() as (near, far):
        at_far = Recorder()
        far.start(at_far)
        far.pause_reading()
        near.send(b"{}")
        await turns(10)
        assert at_far.frames == []
        far.resume_reading()
        far.resume_reading()
        assert await at_far.frame(0) == b"{}"


@every_link
@in_loop
async def test_a_receiver_may_pause_while_it_receives(pair: Pair) -> None:
    async with pair() as (near, far):
        at_far = Recorder()
        at_far.on_frames = lambda frames: far.pause_reading()
        far.start(at_far)
        near.send(b"1")
        await at_far.frame(0)
        near.send(b"2")
        await turns(10)
        assert at_far.frames == [b"1"]
        far.resume_reading()
        assert await at_far.frame(1) == b"2"


@every_link
@in_loop
async def test_a_sender_feels_a_receiver_that_does_not_read(pair: Pair) -> None:
    async with pair() as (near, far):
        at_far = Recorder()
        far.start(at_far)
        far.pause_reading()
        near.send(b"{}")
        await near.drain()
        assert not near.is_congested
        # More than what a pipe or a socket holds by itself.
        sent = await fill(near)
        draining = asyncio.create_task(near.drain())
        await turns(10)
        assert not draining.done()
        far.resume_reading()
        await draining
        assert not near.is_congested
        await at_far.frame(sent)
        assert {len(frame) for frame in at_far.frames[1:]} == {100_000}


@every_link
@in_loop
async def test_a_drain_can_be_cancelled(pair: Pair) -> None:
    async with pair() as (near, far):
        for _ in range(20):
            near.send(b"x" * 100_000)
        draining = asyncio.create_task(near.drain())
        await turns(5)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        at_far = Recorder()
        far.start(at_far)
        await at_far.frame(19)


@every_link
@in_loop
async def test_a_drain_ends_when_the_link_does(pair: Pair) -> None:
    async with pair() as (near, far):
        for _ in range(20):
            near.send(b"x" * 100_000)
        draining = asyncio.create_task(near.drain())
        await turns(5)
        await far.aclose()
        await draining


@duty("shutdown.by-transport")
@every_link
@in_loop
async def test_closing_delivers_what_was_sent_before_and_then_the_end(pair: Pair) -> None:
    async with pair() as (near, far):
        at_near, at_far = Recorder(), Recorder()
        near.start(at_near)
        far.start(at_far)
        near.send(b"{}")
        near.send(b"x" * 1_000_000)
        await near.aclose()
        assert await at_near.end() is None
        assert await at_far.end() is None
        assert [len(frame) for frame in at_far.frames] == [2, 1_000_000]
        await turns(5)
        assert at_near.ends == at_far.ends == [None]


@every_link
@in_loop
async def test_the_end_is_not_reported_while_reading_is_paused(pair: Pair) -> None:
    async with pair() as (near, far):
        at_far = Recorder()
        far.start(at_far)
        far.pause_reading()
        near.send(b"{}")
        await near.aclose()
        await turns(10)
        assert (at_far.frames, at_far.ends) == ([], [])
        far.resume_reading()
        assert await at_far.end() is None
        assert at_far.frames == [b"{}"]


@in_loop
async def test_who_sends_into_a_broken_pipe_hears_of_it_after_that() -> None:
    near_input, far_output = os.pipe()
    far_input, near_output = os.pipe()
    near = PipeLink(near_input, near_output, max_frame_bytes=LIMIT)
    at_near = Recorder()
    near.start(at_near)
    os.close(far_input)
    try:
        for number in range(40):
            near.send(b"%d" % number)
            # Whoever sends is in the middle of something: the end must not come inside of it.
            assert not at_near.ends
        await at_near.until(lambda: bool(at_near.ends))
        assert isinstance(at_near.ends[0], LinkClosed)
        with pytest.raises(LinkClosed, match="no longer reads"):
            near.send(b"41")
    finally:
        await near.aclose()
        os.close(far_output)


@every_link
@in_loop
async def test_a_closed_link_takes_nothing_more(pair: Pair) -> None:
    async with pair() as (near, _):
        near.start(Recorder())
        await near.aclose()
        await near.aclose()
        with pytest.raises(LinkClosed) as caught:
            near.send(b"{}")
        assert caught.value.sent is False
        near.resume_reading()
        near.pause_reading()
        await near.drain()


@every_link
@in_loop
async def test_a_link_that_was_never_started_can_be_closed(pair: Pair) -> None:
    before = open_descriptors()
    async with pair() as (near, _):
        near.send(b"{}")
    assert open_descriptors() == before


@every_link
@in_loop
async def test_sending_to_a_side_that_is_gone_fails_soon(pair: Pair) -> None:
    async with pair() as (near, far):
        at_near = Recorder()
        near.start(at_near)
        await far.aclose()
        await at_near.end()

        async def until_refused() -> None:
            while True:
                near.send(b"{}")
                await asyncio.sleep(0)

        with pytest.raises(LinkClosed) as caught:
            await until_refused()
        assert caught.value.sent is False
        assert len(at_near.ends) == 1


@every_link
@in_loop
async def test_a_cancelled_close_leaves_nothing_behind(pair: Pair) -> None:
    before = open_descriptors()
    async with pair() as (near, far):
        near.start(Recorder())
        far.start(Recorder())
        far.pause_reading()
        # More than fits, so that closing would wait for the other side.
        near.send(b"x" * 2_000_000)
        closing = asyncio.create_task(near.aclose())
        await turns(3)
        closing.cancel()
        try:
            await closing
        except asyncio.CancelledError:
            pass
        else:
            # In memory there is nothing to wait for.
            assert pair is in_memory
    # A thread whose write is stuck sees a moment later that the other side is gone.
    while open_descriptors() != before:
        await asyncio.sleep(0)


@in_loop
async def test_answers_can_still_be_sent_after_the_input_ended() -> None:
    near_input, far_output = os.pipe()
    far_input, near_output = os.pipe()
    link = PipeLink(near_input, near_output)
    receiver = Recorder()
    link.start(receiver)
    os.write(far_output, b'{"id":1}\n{"id":2}')
    os.close(far_output)
    assert await receiver.end() is None
    assert receiver.frames == [b'{"id":1}', b'{"id":2}']
    link.send(b'{"result":{}}')
    await link.aclose()
    assert os.read(far_input, 100) == b'{"result":{}}\n'
    assert os.read(far_input, 100) == b""
    os.close(far_input)


@in_loop
async def test_a_reader_that_is_gone_ends_the_link_with_an_error() -> None:
    near_input, far_output = os.pipe()
    far_input, near_output = os.pipe()
    link = PipeLink(near_input, near_output)
    receiver = Recorder()
    link.start(receiver)
    os.close(far_input)
    link.send(b"{}")
    assert isinstance(await receiver.end(), LinkClosed)
    os.write(far_output, b"{}\n")
    await turns(5)
    assert receiver.frames == []
    await link.aclose()
    os.close(far_output)


@in_loop
async def test_the_blocking_mode_is_given_back() -> None:
    near_input, far_output = os.pipe()
    far_input, near_output = os.pipe()
    kept = os.dup(near_input), os.dup(near_output)
    link = PipeLink(near_input, near_output)
    assert [os.get_blocking(fd) for fd in kept] == [False, False]
    await link.aclose()
    assert [os.get_blocking(fd) for fd in kept] == [True, True]
    for fd in (*kept, far_input, far_output):
        os.close(fd)


@duty("stdio.one-line")
@in_loop
async def test_a_frame_with_line_ends_in_it_stays_one_line() -> None:
    async with over_pipes() as (near, far):
        at_far = Recorder()
        far.start(at_far)
        near.send(b'{\n\t"id": 1\r\n}')
        near.send(b"{}")
        assert await at_far.frame(0) == b'{ \t"id": 1  }'
        assert await at_far.frame(1) == b"{}"


def send_all(link: Link, frames: Sequence[bytes]) -> None:
    for frame in frames:
        link.send(frame)


async def fill(link: Link) -> int:
    """Send until the link is congested for good; returns how many frames that took."""
    for sent in range(200):
        if link.is_congested:
            return sent
        link.send(b"x" * 100_000)
        await turns(2)
    raise AssertionError("never congested")


async def turns(count: int) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("pair", [over_pipes, over_sockets])
@in_loop
async def test_closing_does_not_wait_for_ever_for_a_side_that_does_not_read(pair: Pair) -> None:
    before = open_descriptors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_module, "FLUSH_WAIT_S", 0.01)
        async with pair() as (near, far):
            far.start(Recorder())
            far.pause_reading()
            near.send(b"x" * 3_000_000)
            await near.aclose()
    assert open_descriptors() == before


@in_loop
async def test_a_socket_that_is_reset_ends_the_link_with_an_error() -> None:
    async with over_sockets() as (near, far):
        at_near = Recorder()
        near.start(at_near)
        near.send(b"never read")
        await turns(3)
        # Closing with something unread resets the connection.
        await far.aclose()
        assert isinstance(await at_near.end(), LinkClosed)


@every_link
@in_loop
async def test_refused_frames_keep_their_place_in_the_order(pair: Pair) -> None:
    async with pair() as (near, far):
        at_far = Order()
        far.start(at_far)
        big = b"x" * (LIMIT + 1)
        for frame in (b"1", big, b"2", b"3", big):
            near.send(frame)
        near.send(b"4")
        while at_far.order[-1:] != ["4"]:
            await asyncio.sleep(0)
        assert at_far.order == ["1", "refused", "2", "3", "refused", "4"]


@in_loop
async def test_refused_lines_of_one_chunk_keep_their_place() -> None:
    near_input, far_output = os.pipe()
    link = PipeLink(near_input, os.open(os.devnull, os.O_WRONLY), max_frame_bytes=4)
    receiver = Order()
    os.write(far_output, b"longer\n1\nlonger\n2\n3\nlonger")
    os.close(far_output)
    link.start(receiver)
    await receiver.end()
    assert receiver.order == ["refused", "1", "refused", "2", "3", "refused"]
    await link.aclose()


@in_loop
async def test_a_link_that_ends_while_it_delivers_delivers_no_more() -> None:
    near_input, far_output = os.pipe()
    far_input, near_output = os.pipe()
    link = PipeLink(near_input, near_output, max_frame_bytes=4)
    receiver = Order()
    receiver.on_frames = lambda frames: link.send(frames[0])
    link.start(receiver)
    os.close(far_input)
    # The answer to the first frame shows that nobody reads; what follows has no receiver.
    os.write(far_output, b"1\nlonger\n2\n")
    await receiver.end()
    assert receiver.order == ["1"]
    await link.aclose()
    os.close(far_output)


class Order(Recorder):
    """Remembers frames and refusals in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        self.order += [frame.decode() for frame in frames]
        if self.on_frames is not None:
            self.on_frames(frames)

    def frame_refused(self, noise: Noise) -> None:
        self.order.append("refused")
