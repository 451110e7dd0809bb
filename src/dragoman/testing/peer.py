"""A peer that says exactly what a test tells it to, over any link."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dragoman.errors import LinkError
from dragoman.jsonrpc.frame import Delivery, Noise, Seen
from dragoman.revisions.registry import HANDSHAKE
from dragoman.transport.base import Link

__all__ = ["ScriptedPeer", "UnexpectedMessage"]

# 5 s: a peer under test that has not spoken by then will not; the test should say so.
WAIT_S = 5.0


class UnexpectedMessage(AssertionError):
    """Something else came than what the script waits for. `.message` is what came."""

    def __init__(self, wanted: str, message: Any) -> None:
        self.message = message
        super().__init__(f"waited for {wanted}, got {message!r}")


class ScriptedPeer:
    """The far end of a link, as a script: it checks nothing and knows no protocol.

    Messages are plain JSON objects. What comes in waits, in order, until `receive` takes it;
    `closed` is set when the link ends, and `error` then says how. `lost` holds the requests that
    the link could not carry, `troubles` what it said about the way to its peer.

        peer = ScriptedPeer(link)
        await peer.welcome({"tools": {}})
        call = await peer.expect("tools/call")
        peer.answer(call, {"content": []})
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.closed = asyncio.Event()
        self.error: LinkError | None = None
        self.noises: list[Noise] = []
        self.lost: dict[int | str, LinkError] = {}
        self.troubles: list[LinkError | None] = []
        self._waiting: deque[Any] = deque()
        self._news = asyncio.Event()
        link.start(self)

    # --- what the link calls ------------------------------------------------------------------------

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        """Keep them for `receive`."""
        self._waiting.extend(msgspec.json.decode(frame) for frame in frames)
        self._news.set()

    def frame_refused(self, noise: Noise) -> None:
        """Keep it in `noises`."""
        self.noises.append(noise)

    def link_closed(self, error: LinkError | None) -> None:
        """Note the end."""
        self.error = error
        self.closed.set()
        self._news.set()

    def is_awaited(self, ident: int | str) -> bool:
        """A script waits for whatever comes."""
        return ident not in self.lost

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        """Keep it in `lost`."""
        self.lost[ident] = error
        self._news.set()

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        """A script answers nobody by itself."""

    def link_troubled(self, error: LinkError | None) -> None:
        """Keep it in `troubles`."""
        self.troubles.append(error)
        self._news.set()

    # --- listening ----------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many messages came that nobody has received yet."""
        return len(self._waiting)

    async def receive(self, *, timeout_s: float = WAIT_S) -> Any:
        """The next message.

        Raises:
            UnexpectedMessage: the link ended instead.
            TimeoutError: nothing came.
        """
        async with asyncio.timeout(timeout_s):
            while not self._waiting:
                if self.closed.is_set():
                    raise UnexpectedMessage("a message", "the end of the link")
                self._news.clear()
                await self._news.wait()
        return self._waiting.popleft()

    async def expect(self, method: str, *, timeout_s: float = WAIT_S) -> Any:
        """The next message, which must have this method. Raises as `receive` does."""
        message = await self.receive(timeout_s=timeout_s)
        if not isinstance(message, dict) or message.get("method") != method:
            raise UnexpectedMessage(method, message)
        return message

    # --- speaking -----------------------------------------------------------------------------------

    def send(self, message: Mapping[str, Any] | Sequence[Any] | bytes) -> None:
        """Send an object, an array, or bytes as they are."""
        self.link.send(message if isinstance(message, bytes) else msgspec.json.encode(message))

    def request(self, ident: Any, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Ask; the id is the script's own to choose, however wrong."""
        self.send(_message({"id": ident, "method": method}, params))

    def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Tell."""
        self.send(_message({"method": method}, params))

    def answer(self, request: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Answer a request that was received."""
        self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})

    def fail(self, request: Mapping[str, Any], code: int, message: str) -> None:
        """Refuse a request that was received."""
        error = {"code": code, "message": message}
        self.send({"jsonrpc": "2.0", "id": request["id"], "error": error})

    # --- opening ------------------------------------------------------------------------------------

    async def welcome(
        self, capabilities: Mapping[str, Any] | None = None, *, revision: str | None = None
    ) -> Any:
        """Play the server: take the hello, answer it, wait for `initialized`.

        The revision is the one that was asked for, unless another is given. Returns the hello.
        """
        hello = await self.expect("initialize")
        asked = hello["params"]["protocolVersion"]
        result = {
            "protocolVersion": revision or asked,
            "capabilities": capabilities or {},
            "serverInfo": {"name": "script", "version": "1"},
        }
        self.answer(hello, result)
        await self.expect("notifications/initialized")
        return hello

    async def hello(
        self, capabilities: Mapping[str, Any] | None = None, *, revision: str | None = None
    ) -> Any:
        """Play the client: say hello, take the answer, say `initialized`. Returns the answer."""
        params = {
            "protocolVersion": revision or HANDSHAKE[-1].wire,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "script", "version": "1"},
        }
        self.request("hello", "initialize", params)
        answer = await self.receive()
        self.notify("notifications/initialized")
        return answer

    async def aclose(self) -> None:
        """End the link."""
        await self.link.aclose()


def _message(members: dict[str, Any], params: Mapping[str, Any] | None) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", **members}
    if params is not None:
        message["params"] = params
    return message
