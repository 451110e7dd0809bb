"""The floor of a client: futures, a dictionary of ids, msgspec. Arguments: stdio CALLS WINDOW SERVER…"""

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


async def main() -> None:
    """Connect by hand and run the calls."""
    calls, window, argv = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    loop = asyncio.get_running_loop()
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    client = Client()
    client.writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, child.stdin)
    await loop.connect_read_pipe(lambda: client, child.stdout)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
    await client.ask("initialize", hello)

    async def call(a: int) -> int:
        params = {"name": "add", "arguments": {"a": a, "b": 1}}
        return (await client.ask("tools/call", params)).structured["result"]

    as_call: Call = call
    report(await drive(as_call, calls, window))
    client.writer.close()
    await asyncio.to_thread(child.wait)  # closing happens on the loop's next turn


asyncio.run(main())
