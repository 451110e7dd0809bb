"""The public aids for tests do what they say; a test that uses them can fail."""

from __future__ import annotations

import asyncio
import json

import pytest

from dragoman.errors import LinkClosed, LinkError
from dragoman.model.base import NoParams
from dragoman.model.methods import Side
from dragoman.protocol.events import Answered, Failed, Opened
from dragoman.testing import LinkedEngines, ScriptedPeer, UnexpectedMessage
from dragoman.transport.memory import memory_pair
from tests.protocol.aids import client_engine, server_engine
from tests.runtime.aids import run, turns


def test_linked_engines_move_one_frame_at_a_time() -> None:
    pair = LinkedEngines(client_engine(), server_engine(), now=5.0)
    call = pair.client.open(now=pair.now)
    assert pair.deliver(Side.CLIENT) == []
    assert len(pair.inbox[Side.SERVER]) == 1
    assert pair.deliver(Side.SERVER) == []
    assert [len(pair.inbox[side]) for side in (Side.CLIENT, Side.SERVER)] == [1, 0]
    opened, answered = pair.deliver(Side.CLIENT)
    assert isinstance(opened, Opened)
    assert isinstance(answered, Answered)
    assert answered.call is call
    pair.settle()
    assert [type(event) for event in pair.new_events(Side.SERVER)] == [Opened]
    assert pair.new_events(Side.SERVER) == []
    assert [len(pair.sent[side]) for side in (Side.CLIENT, Side.SERVER)] == [2, 1]


def test_linked_engines_share_their_time() -> None:
    pair = LinkedEngines(client_engine(), server_engine())
    pair.open()
    pair.client.request("ping", NoParams(), now=pair.now, timeout_s=3.0)
    pair.collect()
    pair.advance(3.0)
    assert isinstance(pair.new_events(Side.CLIENT)[-1], Failed)
    assert pair.now == 3.0


def test_linked_engines_end_as_their_link_does() -> None:
    pair = LinkedEngines(client_engine(), server_engine())
    pair.open()
    pair.new_events(Side.CLIENT)
    pair.server.request("ping", NoParams(), now=0.0)
    pair.client.request("ping", NoParams(), now=0.0)
    pair.collect()
    pair.close(Side.CLIENT, LinkError("cut"))
    [failed] = pair.new_events(Side.CLIENT)
    assert isinstance(failed, Failed)
    assert not pair.inbox[Side.CLIENT]


def test_a_script_can_play_both_sides() -> None:
    async def main() -> None:
        near, far = memory_pair()
        client, server = ScriptedPeer(near), ScriptedPeer(far)
        welcome = asyncio.ensure_future(server.welcome({"tools": {}}, revision="2025-03-26"))
        answer = await client.hello({"roots": {}}, revision="2024-11-05")
        assert answer["result"]["protocolVersion"] == "2025-03-26"
        assert answer["result"]["capabilities"] == {"tools": {}}
        hello = await welcome
        assert hello["params"]["protocolVersion"] == "2024-11-05"
        assert hello["params"]["capabilities"] == {"roots": {}}
        client.request(1, "tools/call", {"name": "add"})
        server.fail(await server.expect("tools/call"), -32602, "no")
        assert (await client.receive())["error"] == {"code": -32602, "message": "no"}
        client.send([1, 2])
        client.send(b"5")
        assert [await server.receive(), await server.receive()] == [[1, 2], 5]
        await client.aclose()
        await server.closed.wait()
        assert server.error is None
        with pytest.raises(LinkClosed):
            server.notify("notifications/message")

    run(main())


def test_a_script_says_what_came_instead_of_what_it_waits_for() -> None:
    async def main() -> None:
        near, far = memory_pair()
        client, server = ScriptedPeer(near), ScriptedPeer(far)
        for frame in (b"[5]", b'{"jsonrpc":"2.0","id":1,"result":{}}'):
            client.send(frame)
            with pytest.raises(UnexpectedMessage) as raised:
                await server.expect("ping")
            assert raised.value.message == json.loads(frame)
        await client.aclose()
        with pytest.raises(UnexpectedMessage, match="the end of the link"):
            await server.receive()

    run(main())


def test_a_script_does_not_wait_for_ever() -> None:
    async def main() -> None:
        near, far = memory_pair()
        client, server = ScriptedPeer(near), ScriptedPeer(far)
        with pytest.raises(TimeoutError):
            await server.receive(timeout_s=0.0)
        await client.aclose()
        await server.aclose()

    run(main())


def test_a_script_keeps_what_was_too_large() -> None:
    async def main() -> None:
        near, far = memory_pair(max_frame_bytes=10)
        client, server = ScriptedPeer(near), ScriptedPeer(far)
        client.send(b'"0123456789"')
        await turns()
        assert server.waiting == 0
        assert [noise.size for noise in server.noises] == [12]
        await client.aclose()
        await server.aclose()

    run(main())
