"""The gatekeeper by itself, over real sockets: what it carries, refuses, bounds and ends."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.host.sandbox.asked import BadRequestError, Outcome, read_asked
from dragoman.host.sandbox.gatekeeper import Gatekeeper, GateLimits, Resolve, Resolver
from dragoman.host.sandbox.targets import Address, Target
from tests.host.confined import descriptors, origin, reach_of
from tests.support import run

HERE = ipaddress.ip_address("127.0.0.1")


class Gate:
    """A gatekeeper that listens on this machine's loopback."""

    def __init__(self, keeper: Gatekeeper, port: int, told: list[str]) -> None:
        self.keeper = keeper
        self.port = port
        self.told = told

    async def ask(self, sent: bytes) -> bytes:
        """What comes back until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        try:
            return await reader.read()
        except ConnectionError:
            return b"reset"
        finally:
            writer.close()


@asynccontextmanager
async def gate(
    *targets: str,
    resolve: Resolve | None = None,
    limits: GateLimits | None = None,
    target: Target | None = None,
) -> AsyncIterator[Gate]:
    """A gatekeeper of this list; with a `target` every connection is for that."""
    told: list[str] = []
    keeper = Gatekeeper(reach_of(*targets), refused=told.append, limits=limits, resolve=resolve)
    listening = socket.create_server(("127.0.0.1", 0))
    keeper.serve(listening, target)
    try:
        yield Gate(keeper, listening.getsockname()[1], told)
    finally:
        await keeper.aclose()
        assert keeper.carried == 0


def connect(where: str) -> bytes:
    return f"CONNECT {where} HTTP/1.1\r\n\r\n".encode()


def test_a_name_that_is_resolved_anew_is_checked_anew() -> None:
    """A rebinding name: what was checked is what is connected to, each time."""
    answers = [["192.0.2.1"], ["10.0.0.1", "169.254.169.254"], ["127.0.0.1"]]
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[Address]:
        asked.append(host)
        return [ipaddress.ip_address(one) for one in answers[len(asked) - 1]]

    async def main() -> None:
        async with gate("evil.test:80", resolve=resolve) as found:
            for _ in answers:
                assert (await found.ask(connect("evil.test:80"))).startswith(b"HTTP/1.1 403")
            assert len(asked) == len(found.told) == 3
            assert "leads to 10.0.0.1" in found.told[1]

    run(main())


def test_of_several_addresses_only_those_that_may_be_are_tried() -> None:
    async def main() -> None:
        async with origin() as server, origin() as forbidden:
            # The second is listed, the first is not, though something listens there.
            found = [ipaddress.ip_address(one) for one in ("127.0.0.2", "127.0.0.1")]

            async def resolve(host: str, port: int) -> Sequence[Address]:
                return found

            listed = (f"a.test:{server.port}", f"127.0.0.1:{server.port}")
            async with gate(*listed, resolve=resolve) as made:
                sent = f"GET http://a.test:{server.port}/ HTTP/1.1\r\n\r\n".encode()
                assert (await made.ask(sent)).endswith(b"hello")
            assert forbidden.heard == []

    run(main())


def test_what_is_not_listed_is_not_even_resolved() -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        raise AssertionError("a name leaves this machine")

    async def main() -> None:
        async with gate("a.test:443", resolve=resolve) as found:
            for where in ("secret-data.evil.test:443", "a.test:80", "1.1.1.1:443"):
                answer = await found.ask(connect(where))
                assert answer.startswith(b"HTTP/1.1 403")
                assert where.encode() in answer

    run(main())


def test_the_systems_resolver_is_asked_beside_the_loop_and_its_failure_is_told() -> None:
    async def main() -> None:
        async with gate("no-such-host.invalid:443") as found:
            answer = await found.ask(connect("no-such-host.invalid:443"))
            assert answer.startswith(b"HTTP/1.1 502")
            assert found.told == []

    run(main())


def test_a_resolver_that_never_answers_holds_nobody_up_for_long() -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def main() -> None:
        async with gate("a.test:443", resolve=resolve, limits=GateLimits(connect_s=0.1)) as found:
            assert (await found.ask(connect("a.test:443"))).startswith(b"HTTP/1.1 502")

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET https://a.test/ HTTP/1.1\r\n\r\n",
        b"GET ftp://a.test/ HTTP/1.1\r\n\r\n",
        b"GET http:///etc/passwd HTTP/1.1\r\n\r\n",
        b"GET http://a.test:80:81/ HTTP/1.1\r\n\r\n",
        b"GET http://user:pass@a.test/ HTTP/1.1\r\n\r\n",
        b"GET http://a.test/ HTTP/2.0\r\n\r\n",
        b"GET http://a.test/ x HTTP/1.1\r\n\r\n",
        b"CONNECT a.test HTTP/1.1\r\n\r\n",
        b"CONNECT http://a.test:443 HTTP/1.1\r\n\r\n",
        b"CONNECT *.test:443 HTTP/1.1\r\n\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nno header\r\n\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nA: b\r\n folded: c\r\n\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nA: b\nHost: evil\r\n\r\n",
        b"GET http://a.test/\x85 HTTP/1.1\r\nA\x00: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_a_request_that_is_none_is_answered_and_goes_nowhere(sent: bytes) -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        raise AssertionError("a name leaves this machine")

    async def main() -> None:
        async with gate("a.test:80", "a.test:443", resolve=resolve) as found:
            assert (await found.ask(sent)).startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert len(found.told) == 1

    run(main())


def test_a_plain_request_is_handed_on_as_its_server_would_have_got_it() -> None:
    async def main() -> None:
        async with origin() as server:
            where = f"127.0.0.1:{server.port}"
            async with gate(where) as found:
                await found.ask(
                    b"POST http://%s?a=b HTTP/1.1\r\nHost: other.test\r\nProxy-Authorization: x\r\n"
                    b"Connection: keep-alive, X-Mine, Content-Length\r\nX-Mine: 1\r\nX-Else: 2\r\n"
                    b"Content-Length: 2\r\nUpgrade: h2c\r\n\r\nab" % where.encode()
                )
            assert server.heard == [
                b"POST /?a=b HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nX-Else: 2\r\n"
                b"Content-Length: 2\r\n\r\n" % where.encode()
            ]

    run(main())


def test_more_connections_than_are_carried_wait_for_their_turn() -> None:
    async def main() -> None:
        async with origin() as server:
            target = Target("127.0.0.1", server.port)
            limits = GateLimits(connections=2)
            async with gate(str(target), target=target, limits=limits) as found:
                ends = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(5)]
                last_reader, last_writer = ends[-1]
                last_writer.write(b"GET / HTTP/1.1\r\n\r\n")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await last_reader.read(1)
                assert found.keeper.carried == 2
                for _, writer in ends[:-1]:
                    writer.close()
                assert (await last_reader.read()).endswith(b"hello")
                last_writer.close()

    run(main())


def test_a_connection_on_which_nothing_moves_is_ended() -> None:
    async def main() -> None:
        async with origin() as server:
            server.is_raw = True
            target = Target("127.0.0.1", server.port)
            limits = GateLimits(idle_s=0.1)
            async with gate(str(target), target=target, limits=limits) as found:
                reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
                await server.over.wait()
                with suppress(ConnectionError):
                    await reader.read()
                writer.close()

    run(main())


def test_one_that_has_half_ended_is_not_waited_for_as_long_as_one_that_lives() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        await reader.read()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
            limits = GateLimits(half_closed_s=0.1)
            async with gate(str(target), target=target, limits=limits) as found:
                reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
                writer.write_eof()
                await ended.wait()
                assert await reader.read() == b""
                writer.close()

    run(main())


def test_what_is_broken_off_on_one_side_does_not_look_whole_on_the_other() -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        await writer.drain()
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def main() -> None:
        async with await asyncio.start_server(breaks, "127.0.0.1", 0) as server:
            target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
            async with gate(str(target), target=target) as found:
                assert await found.ask(b"GET / HTTP/1.1\r\n\r\n") == b"reset"

    run(main())


def test_a_port_that_nobody_listens_on_looks_like_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        target = Target("127.0.0.1", free.getsockname()[1])

    async def main() -> None:
        async with gate(str(target), target=target) as found:
            assert await found.ask(b"x") in (b"reset", b"")
            assert (await found.ask(b"")) in (b"reset", b"")

    run(main())


def test_a_flood_of_refusals_is_told_of_once_each_and_not_for_ever() -> None:
    async def main() -> None:
        async with gate("a.test:1") as found:
            for number in range(300):
                await found.ask(connect(f"h{number % 150}.test:1"))
            assert len(found.told) == 101
            assert "more connections" in found.told[-1]

    run(main())


def test_the_end_leaves_no_descriptor_whatever_was_under_way() -> None:
    async def main() -> None:
        async with origin() as server:
            server.is_raw = True
            before = descriptors()
            where = f"127.0.0.1:{server.port}"
            ends = []
            async with gate(where) as found:
                for sent in (b"", b"GET ", connect(where), connect(where)):
                    reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
                    writer.write(sent)
                    ends.append((reader, writer))
                for reader, _ in ends[2:]:
                    assert await reader.readuntil(b"\r\n\r\n")
            for reader, writer in ends:
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            while descriptors() > before:
                await asyncio.sleep(0)
            assert found.keeper.carried == 0

    run(main())


@settings(max_examples=60)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_any_bytes_are_a_request_or_an_error_wherever_they_are_cut(sent: bytes, cut: int) -> None:
    async def main() -> None:
        for whole in (sent, b"\x05\x01\x00\x05\x01\x00" + sent, b"CONNECT " + sent + b"\r\n\r\n"):
            reader = asyncio.StreamReader()
            writer = _Told()
            reader.feed_data(whole[:cut])
            reader.feed_data(whole[cut:])
            reader.feed_eof()
            try:
                asked = await read_asked(reader, writer)  # type: ignore[arg-type]
            except (BadRequestError, asyncio.IncompleteReadError):
                continue
            assert asked.answer(Outcome.REFUSED, "no")

    run(main())


class _Told:
    def write(self, data: bytes) -> None:
        """Said to nobody."""


def test_socks_without_a_way_in_that_needs_no_password_is_told_so() -> None:
    async def main() -> None:
        async with gate("a.test:1") as found:
            assert await found.ask(b"\x05\x01\x02") == b"\x05\xff"
            tail = b"\x00\x01" + bytes(6)
            hello = b"\x05\x01\x00"
            # BIND, an address of no kind, and a name that is none.
            assert await found.ask(hello + b"\x05\x02\x00\x01" + bytes(6)) == (
                b"\x05\x00\x05\x07" + tail
            )
            assert await found.ask(hello + b"\x05\x01\x00\x07") == b"\x05\x00\x05\x08" + tail
            assert await found.ask(hello + b"\x05\x01\x00\x03\x02\xff\xfe\x00\x01") == (
                b"\x05\x00\x05\x02" + tail
            )

    run(main())


def test_the_system_is_asked_for_addresses_in_its_own_order() -> None:
    async def main() -> None:
        resolver = Resolver()
        assert set(await resolver.resolve("127.0.0.1", 80)) == {HERE}
        found = await asyncio.gather(*(resolver.resolve("localhost", 80) for _ in range(20)))
        assert all(HERE in one for one in found)
        with pytest.raises(OSError):
            await resolver.resolve("x" * 70, 80)

    run(main())


def test_a_process_without_room_for_another_descriptor_goes_on_when_it_has_some() -> None:
    resource = pytest.importorskip("resource")

    async def main() -> None:
        async with origin() as server:
            target = Target("127.0.0.1", server.port)
            async with gate(str(target), target=target) as found:
                with socket.socket() as client:
                    client.setblocking(False)
                    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
                    taken = []
                    try:
                        highest = max(int(one) for one in os.listdir("/proc/self/fd"))
                        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, limits[1]))
                        with suppress(OSError):
                            while True:
                                taken.append(os.dup(0))
                        loop = asyncio.get_running_loop()
                        await loop.sock_connect(client, ("127.0.0.1", found.port))
                        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\n\r\n")
                        with pytest.raises(TimeoutError):
                            async with asyncio.timeout(0.2):
                                await loop.sock_recv(client, 1)
                    finally:
                        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                        for one in taken:
                            os.close(one)
                    assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200")

    run(main())
