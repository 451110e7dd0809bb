"""The protocol over your own input and output: two engines, two sockets, no event loop.

A server in a thread answers one tool; a client calls it. Everything that waits is a plain
`select`. See docs/embedding-the-engine.md.
"""

import selectors
import socket
import threading
import time

from dragoman.errors import MethodNotFound
from dragoman.model.base import Implementation
from dragoman.model.capabilities import ClientCapabilities, ServerCapabilities, ToolsCapability
from dragoman.model.content import TextContent
from dragoman.model.methods import Side
from dragoman.model.tools import CallToolParams, CallToolResult, ListToolsResult, Tool
from dragoman.protocol.engine import Engine, Introduction
from dragoman.protocol.events import Answered, Event, Failed, Opened, RequestArrived

SHOUT = Tool(
    name="shout",
    description="Say it louder.",
    input_schema={
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
)


class SocketPump:
    """Moves frames between one engine and one socket: a line each, as over stdio."""

    def __init__(self, engine: Engine, sock: socket.socket) -> None:
        self.engine = engine
        self.socket = sock
        self.selector = selectors.DefaultSelector()
        self.selector.register(sock, selectors.EVENT_READ)
        self.rest = b""
        self.is_open = True

    def flush(self) -> None:
        """Write what the engine wants to send."""
        for frame, *_ in self.engine.take():
            self.socket.sendall(frame + b"\n")

    def wait(self) -> list[Event]:
        """Wait for the peer or for a deadline, whatever comes first; say what happened."""
        self.flush()
        deadline = self.engine.next_deadline
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not self.selector.select(timeout_s):
            return self.engine.expire(time.monotonic())
        chunk = self.socket.recv(65536)
        if not chunk:
            self.is_open = False
            return self.engine.close()
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        return [
            event for line in lines for event in self.engine.receive(line, now=time.monotonic())
        ]


def serve(sock: socket.socket) -> None:
    """A server with one tool, until its client leaves."""
    introduction = Introduction(
        Implementation(name="shouter", version="1"),
        ServerCapabilities(tools=ToolsCapability()),
    )
    pump = SocketPump(Engine(Side.SERVER, introduction), sock)
    while pump.is_open:
        for event in pump.wait():
            if isinstance(event, RequestArrived):
                answer(pump.engine, event)
    sock.close()


def answer(engine: Engine, event: RequestArrived) -> None:
    """Answer one request. Pings and the opening were answered by the engine already."""
    if event.exchange.method.name == "tools/list":
        engine.answer(event.exchange, ListToolsResult(tools=[SHOUT]))
    elif isinstance(event.params, CallToolParams) and event.params.name == "shout":
        text = str(event.params.arguments.get("text", "")).upper()
        engine.answer(event.exchange, CallToolResult(content=[TextContent(text=text)]))
    else:
        engine.fail(event.exchange, MethodNotFound(f"there is no {event.exchange.method.name}"))


def call(sock: socket.socket) -> None:
    """A client that opens, calls the tool twice at once, and leaves."""
    introduction = Introduction(Implementation(name="caller", version="1"), ClientCapabilities())
    engine = Engine(Side.CLIENT, introduction)
    pump = SocketPump(engine, sock)
    engine.open(now=time.monotonic(), timeout_s=10.0)
    under_way = 1
    while under_way:
        for event in pump.wait():
            if isinstance(event, Opened):
                print(f"open: {event.peer.name} speaks {event.dialect.wire}")
                for text in ("hello", "goodbye"):
                    params = CallToolParams.of("shout", {"text": text})
                    engine.request("tools/call", params, now=time.monotonic(), timeout_s=10.0)
                    under_way += 1
            elif isinstance(event, Answered):
                under_way -= 1
                if isinstance(event.result, CallToolResult):
                    print(*(b.text for b in event.result.content if isinstance(b, TextContent)))
            elif isinstance(event, Failed):
                raise event.error
    sock.close()


def main() -> None:
    """Run both ends and wait for both."""
    near, far = socket.socketpair()
    server = threading.Thread(target=serve, args=(far,))
    server.start()
    call(near)
    server.join()


if __name__ == "__main__":
    main()
