"""Servers that speak the APIs of model providers, over real sockets, as well or as badly as told.

Each request gets the next reply of the script; what came is kept in `requests`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer. `split` sends the body in pieces of that many bytes; `is_cut` ends it without
    its end; `hangs` leaves it open until the client goes; `endless` follows the body, again and
    again, until the client goes."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "text/event-stream"
    split: int | None = None
    is_cut: bool = False
    hangs: bool = False
    endless: bytes = b""


@dataclass
class ModelServer:
    """What a test holds of a running server."""

    base_url: str
    replies: list[Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    # How much of endless bodies was sent.
    sent_bytes: int = 0
    # Set when a client left before the answer was whole.
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection; each carries one exchange."""
        try:
            await self._exchange(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        except asyncio.CancelledError:
            # The test is over; asyncio's own server would report it as an error.
            self.left.set()
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.paths.append(first.split()[1])
        self.headers.append(headers)
        self.requests.append(json.loads(body))
        reply = self.replies.pop(0)
        extra = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
        writer.write(
            f"HTTP/1.1 {reply.status} X\r\nContent-Type: {reply.content_type}\r\n{extra}"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
        )
        size = reply.split or max(len(reply.body), 1)
        for start in range(0, len(reply.body), size):
            piece = reply.body[start : start + size]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        while reply.endless:
            writer.write(f"{len(reply.endless):x}\r\n".encode() + reply.endless + b"\r\n")
            await writer.drain()
            self.sent_bytes += len(reply.endless)
            # Both ends are in one loop, and a socket that takes all never makes this one wait.
            await asyncio.sleep(0)
        if reply.hangs:
            # Nothing more is sent by the client: what can be read is its going.
            await reader.read(1)
            self.left.set()
        elif not reply.is_cut:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def model_server(*replies: Reply) -> AsyncIterator[ModelServer]:
    """A server on a port of its own."""
    held = ModelServer("", list(replies))
    server = await asyncio.start_server(held.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    held.base_url = f"http://127.0.0.1:{port}"
    try:
        yield held
    finally:
        server.close()
        await server.wait_closed()


def error(status: int, body: Any, *headers: tuple[str, str]) -> Reply:
    """A refusal with a body in JSON."""
    return Reply(
        status=status,
        body=json.dumps(body).encode(),
        headers=headers,
        content_type="application/json",
    )


# --- chat completions --------------------------------------------------------------------------


def chunks(
    *deltas: dict[str, Any] | str | None,
    finish: str | None = "stop",
    usage: Any = None,
    done: bool = True,
) -> bytes:
    """The stream of a chat completion: deltas (a text is one of content), the end, usage."""
    events = [_chunk({"content": one} if isinstance(one, str) else one) for one in deltas]
    if finish is not None:
        events.append(_chunk({}, finish))
    if usage is not None:
        last = _chunk({})
        last["choices"], last["usage"] = [], usage
        events.append(last)
    return sse(events) + (b"data: [DONE]\n\n" if done else b"")


def _chunk(delta: dict[str, Any] | None, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }


def tool_delta(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    """A piece of a call; what is None is not there at all."""
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    call: dict[str, Any] = {"type": "function", "function": function}
    call |= {k: v for k, v in (("index", index), ("id", id)) if v is not None}
    return {"tool_calls": [call]}


def sse(events: Iterable[Any]) -> bytes:
    """Events as they travel."""
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


# --- messages ----------------------------------------------------------------------------------


def message(
    *blocks: str | tuple[str, str, Sequence[str]],
    stop: str | None = "end_turn",
    usage: tuple[int, int] | None = (7, 5),
) -> bytes:
    """The stream of a message: a block is a text, or the id, name and pieces of a tool's use."""
    start: dict[str, Any] = {"id": "m1", "type": "message", "role": "assistant", "content": []}
    start |= {"model": "m", "stop_reason": None, "stop_sequence": None}
    if usage is not None:
        start["usage"] = {"input_tokens": usage[0], "output_tokens": 1}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        events += _block(index, block)
    if stop is not None:
        end: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": stop}}
        if usage is not None:
            end["usage"] = {"output_tokens": usage[1]}
        events += [end, {"type": "message_stop"}]
    return named_events(events)


def _block(index: int, block: str | tuple[str, str, Sequence[str]]) -> list[dict[str, Any]]:
    if isinstance(block, str):
        opened: dict[str, Any] = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": block}]
    else:
        key, name, pieces = block
        opened = {"type": "tool_use", "id": key, "name": name, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return [
        {"type": "content_block_start", "index": index, "content_block": opened},
        *({"type": "content_block_delta", "index": index, "delta": one} for one in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def named_events(events: Iterable[dict[str, Any]]) -> bytes:
    """Events with their names, as the messages API sends them."""
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events
    )
