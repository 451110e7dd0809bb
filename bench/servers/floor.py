"""The floor: MCP over stdio by hand. asyncio, msgspec, one task a request, and no checks at all.

No library can be faster in this language with the same event loop; it shows how much of a figure is
ours. ``models`` adds pydantic for the arguments and the result, as a server with models must.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

Handler = Callable[[msgspec.Raw], Awaitable[bytes]]


class Incoming(msgspec.Struct):
    """A request, a notification, or an answer (never looked at here)."""

    method: str = ""
    id: msgspec.Raw = msgspec.Raw(b"")
    params: msgspec.Raw = msgspec.Raw(b"{}")


class Call(msgspec.Struct):
    """``tools/call`` with the arguments left as text."""

    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class Add(msgspec.Struct):
    """Arguments of ``add``."""

    a: int
    b: int


class Echo(msgspec.Struct):
    """Arguments of ``echo``."""

    text: str


class Text(msgspec.Struct, tag_field="type", tag="text"):
    """A text block."""

    text: str


class Sum(msgspec.Struct):
    """The structured result of ``add``."""

    result: int


class Plain(msgspec.Struct):
    """A tool result with text alone."""

    content: list[Text]


class Structured(msgspec.Struct):
    """A tool result with its structured value."""

    content: list[Text]
    structured: Any = msgspec.field(name="structuredContent")


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Incoming).decode
decode_call = msgspec.json.Decoder(Call).decode
decode_add = msgspec.json.Decoder(Add).decode
decode_echo = msgspec.json.Decoder(Echo).decode

INTEGERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
SUM = {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


async def add(raw: msgspec.Raw) -> bytes:
    """The sum of two integers."""
    arguments = decode_add(raw)
    total = arguments.a + arguments.b
    return encode(Structured([Text(str(total))], Sum(total)))


async def echo(raw: msgspec.Raw) -> bytes:
    """The text as it came."""
    return encode(Plain([Text(decode_echo(raw).text)]))


def held() -> dict[str, Handler]:
    """``hold``, which waits, and ``release``, which ends every wait."""
    gate = asyncio.Event()

    async def hold(_: msgspec.Raw) -> bytes:
        await gate.wait()
        return encode(Plain([Text("held")]))

    async def release(_: msgspec.Raw) -> bytes:
        nonlocal gate
        gate.set()
        gate = asyncio.Event()
        return encode(Plain([Text("released")]))

    return {"hold": hold, "release": release}


def models() -> tuple[dict[str, Handler], dict[str, Any], dict[str, Any]]:
    """The ``order`` tool on pydantic, and its two schemas."""
    from pydantic import BaseModel, Field, TypeAdapter

    class Item(BaseModel):
        sku: str
        quantity: int = Field(ge=1)
        price: float

    class Order(BaseModel):
        customer: str
        items: list[Item]
        express: bool = False

    class Receipt(BaseModel):
        customer: str
        lines: int
        total: float

    class Arguments(BaseModel):
        order: Order

    arguments = TypeAdapter(Arguments)
    receipts = TypeAdapter(Receipt)

    async def order(raw: msgspec.Raw) -> bytes:
        wanted = arguments.validate_json(bytes(raw)).order
        total = sum(item.quantity * item.price for item in wanted.items)
        receipt = Receipt(customer=wanted.customer, lines=len(wanted.items), total=total)
        body = receipts.dump_json(receipt)
        return encode(Structured([Text(body.decode())], msgspec.Raw(body)))

    return {"order": order}, arguments.json_schema(), receipts.json_schema()


def tools(mode: str) -> tuple[dict[str, Handler], list[dict[str, Any]]]:
    """The handlers of a mode and what ``tools/list`` says about them."""
    if mode == "models":
        handlers, wants, gives = models()
        return handlers, [
            {"name": "order", "description": "Price.", "inputSchema": wants, "outputSchema": gives}
        ]
    if mode == "list":
        many = {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city."},
                "days": {"type": "integer", "description": "How many days.", "default": 3},
                "units": {"type": "string", "description": "metric or imperial.", "default": "m"},
            },
            "required": ["city"],
        }
        about = "A tool with three arguments, one of a hundred."
        return {"add": add}, [
            {"name": f"tool_{n}", "description": about, "inputSchema": many, "outputSchema": SUM}
            for n in range(100)
        ]
    adding = {"name": "add", "description": "Add.", "inputSchema": INTEGERS, "outputSchema": SUM}
    if mode == "quickstart":
        return {"add": add}, [adding]
    return {"add": add, "echo": echo, **held()}, [
        adding,
        {"name": "echo", "description": "Echo.", "inputSchema": TEXT},
        {"name": "hold", "description": "Wait.", "inputSchema": NOTHING},
        {"name": "release", "description": "Go.", "inputSchema": NOTHING},
    ]


class Server(asyncio.Protocol):
    """Lines in, one task each, lines out; answers of one loop turn share a write."""

    def __init__(self, mode: str, done: asyncio.Event) -> None:
        self.handlers, listed = tools(mode)
        self.listed = encode({"tools": listed})
        self.done = done
        self.rest: list[bytes] = []
        self.out: list[bytes] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        self.writer: asyncio.WriteTransport | None = None

    def data_received(self, data: bytes) -> None:
        """Split lines; what is left waits for the next chunk."""
        if b"\n" not in data:
            self.rest.append(data)
            return
        if self.rest:
            self.rest.append(data)
            data = b"".join(self.rest)
        *lines, last = data.split(b"\n")
        self.rest = [last] if last else []
        for line in lines:
            message = decode(line)
            if message.id and message.method:
                task = self.loop.create_task(self.answer(message))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client closed our stdin."""
        self.done.set()

    async def answer(self, message: Incoming) -> None:
        """Run one request and queue its answer."""
        method = message.method
        head = b'{"jsonrpc":"2.0","id":' + bytes(message.id)
        if method == "tools/call":
            call = decode_call(message.params)
            result = await self.handlers[call.name](call.arguments)
        elif method == "tools/list":
            result = self.listed
        elif method == "initialize":
            result = encode(
                {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "floor", "version": "1"},
                }
            )
        elif method == "ping":
            result = b"{}"
        else:
            self.send(head + b',"error":{"code":-32601,"message":"Method not found"}}\n')
            return
        self.send(head + b',"result":' + result + b"}\n")

    def send(self, line: bytes) -> None:
        """Queue a line; the first of a loop turn schedules the write."""
        if not self.out:
            self.loop.call_soon(self.flush)
        self.out.append(line)

    def flush(self) -> None:
        """Write what this turn produced."""
        assert self.writer is not None
        self.writer.write(b"".join(self.out))
        self.out.clear()


async def main(mode: str) -> None:
    """Serve stdin and stdout until stdin closes."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    server = Server(mode, done)
    server.writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
    await loop.connect_read_pipe(lambda: server, sys.stdin)
    await done.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
