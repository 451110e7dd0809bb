"""The floor of a client: futures, msgspec, sockets. Arguments: stdio|http CALLS WINDOW SERVER…|URL"""

from __future__ import annotations

import asyncio
import subprocess
import sys

import msgspec
from common import Call, drive, report


class Block(msgspec.Struct):
    """A text block."""

    type: str
    text: str = ""


class ToolResult(msgspec.Struct):
    """What ``tools/call`` gives."""

    content: list[Block] = []
    structured: dict[str, int] = msgspec.field(name="structuredContent", default_factory=dict)


class Reply(msgspec.Struct):
    """An answer."""

    id: int
    result: ToolResult = msgspec.field(default_factory=ToolResult)


decode = msgspec.json.Decoder(Reply).decode
encode = msgspec.json.Encoder().encode


class Client(asyncio.Protocol):
    """Lines in, futures resolved; requests of one loop turn share a write."""

    def __init__(self) -> None:
        self.rest = b""
        self.out: list[bytes] = []
        self.waiting: dict[int, asyncio.Future[ToolResult]] = {}
        self.next_id = 0
        self.loop = asyncio.get_running_loop()
        self.writer: asyncio.WriteTransport | None = None

    def data_received(self, data: bytes) -> None:
        """Split lines and resolve."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            reply = decode(line)
            self.waiting.pop(reply.id).set_result(reply.result)

    def ask(self, method: str, params: object) -> asyncio.Future[ToolResult]:
        """Send a request."""
        self.next_id += 1
        message = {"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}
        future = self.waiting[self.next_id] = self.loop.create_future()
        if not self.out:
            self.loop.call_soon(self.flush)
        self.out.append(encode(message) + b"\n")
        return future

    def flush(self) -> None:
        """Write what this turn produced."""
        assert self.writer is not None
        self.writer.write(b"".join(self.out))
        self.out.clear()


class Connection(asyncio.Protocol):
    """One request at a time over HTTP/1.1; whatever comes as a stream ends with its last event."""

    def __init__(self) -> None:
        self.data = b""
        self.answer: asyncio.Future[bytes] | None = None
        self.writer: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what writes."""
        assert isinstance(transport, asyncio.Transport)
        self.writer = transport

    def data_received(self, data: bytes) -> None:
        """Resolve when the response is whole."""
        self.data += data
        end = self.data.find(b"\r\n\r\n")
        at = self.data.find(b"content-length: ", 0, end)
        if at >= 0:
            size = int(self.data[at + 16 : self.data.index(b"\r", at)])
            whole = len(self.data) - end - 4 >= size
        else:
            whole = self.data.endswith(b"\r\n0\r\n\r\n")
        if whole and end >= 0:
            whole_response, self.data = self.data, b""
            assert self.answer is not None
            self.answer.set_result(whole_response)


class HttpClient:
    """Connections that are free, and one session."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.free: list[Connection] = []
        self.session = b""
        self.next_id = 0

    async def post(self, body: bytes) -> bytes:
        """The response to one message."""
        loop = asyncio.get_running_loop()
        if self.free:
            connection = self.free.pop()
        else:
            _, connection = await loop.create_connection(Connection, self.host, self.port)
        assert connection.writer is not None
        connection.answer = loop.create_future()
        connection.writer.write(
            b"POST /mcp HTTP/1.1\r\nhost: %b:%d\r\ncontent-type: application/json\r\n%b"
            b"accept: application/json, text/event-stream\r\ncontent-length: %d\r\n\r\n%b"
            % (self.host.encode(), self.port, self.session, len(body), body)
        )
        response = await connection.answer
        self.free.append(connection)
        return response

    async def ask(self, method: str, params: object) -> bytes:
        """The response to a request."""
        self.next_id += 1
        message = {"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}
        return await self.post(encode(message))


def last_message(response: bytes) -> bytes:
    """The JSON of a response, or of the last event of its stream."""
    head, _, body = response.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    data = body[body.rindex(b"data: ") + 6 :]
    return data[: data.index(b"\r")]


async def over_http(url: str, calls: int, window: int) -> None:
    """Open a session by hand and run the calls."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    client = HttpClient(host, int(port))
    response = await client.ask("initialize", HELLO)
    for line in response.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        if line.startswith(b"mcp-session-id: "):
            client.session = line + b"\r\nmcp-protocol-version: 2025-11-25\r\n"
    await client.post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')

    async def call(a: int) -> int:
        params = {"name": "add", "arguments": {"a": a, "b": 1}}
        reply = decode(last_message(await client.ask("tools/call", params)))
        return reply.result.structured["result"]

    as_call: Call = call
    report(await drive(as_call, calls, window))


HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}


async def main() -> None:
    """Connect by hand and run the calls."""
    if sys.argv[1] == "http":
        await over_http(sys.argv[4], int(sys.argv[2]), int(sys.argv[3]))
        return
    calls, window, argv = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    loop = asyncio.get_running_loop()
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    client = Client()
    client.writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, child.stdin)
    await loop.connect_read_pipe(lambda: client, child.stdout)
    await client.ask("initialize", HELLO)

    async def call(a: int) -> int:
        params = {"name": "add", "arguments": {"a": a, "b": 1}}
        return (await client.ask("tools/call", params)).structured["result"]

    as_call: Call = call
    report(await drive(as_call, calls, window))
    client.writer.close()
    await asyncio.to_thread(child.wait)  # closing happens on the loop's next turn


asyncio.run(main())
