"""The gate: nothing reaches a server that was not decided.

Every connector of a host stands behind one. It starts no process and opens no socket before the
start was decided. A request that needs a decision passes only while a ticket for exactly these
bytes is open; an answer to what the server asked, only if everything in it was released. What the
gate does not know does not pass. It is the second lock: `Mediator` is the first, and the only one
that makes tickets.

    Client -> Driver -> GateLink.send -> (a ticket?) -> the link -> the server
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from dragoman.errors import LinkError, LocalError
from dragoman.host.kinds import Denied
from dragoman.jsonrpc.frame import Delivery, Noise, Seen
from dragoman.transport.around import LinkAround
from dragoman.transport.base import About, Connector, Link, Receiver

__all__ = ["AnswerTicket", "Gate", "Passage", "StartRefused", "Ticket", "leaves_of"]

log = logging.getLogger("dragoman.host")

# What the decision to connect covers: the conversation about the conversation, and the lists.
STANDING = frozenset(
    {
        "initialize",
        "ping",
        "logging/setLevel",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
    }
)

# To stop what was allowed before is allowed, also when nothing else is any more.
CANCELLED = "notifications/cancelled"

# The lists whose text the host reads itself, member by member, unknown ones included.
LISTS = frozenset(
    {"initialize", "tools/list", "prompts/list", "resources/list", "resources/templates/list"}
)

# What a server may ask, and of which the answer needs a ticket; a ping's does not.
ASKS = frozenset({"roots/list", "sampling/createMessage", "elicitation/create"})

# What only looks something up, and is sent again over the next connection when one breaks.
REPEATED = frozenset({"resources/read", "prompts/get", "completion/complete"})

# 20: as often as a client tries to come back.
MAX_PASSAGES = 20

# 16,384 requests of a server that wait for an answer: the engine refuses more.
MAX_ASKED = 16_384

# 64 lists under way at once: five lists and their pages.
MAX_LISTING = 64

# 4,096 requests under way of which it may still turn out that they were not sent.
MAX_OUT = 4_096


class StartRefused(LocalError):
    """A server may not be started or reached (any more); `.denied` says why."""

    def __init__(self, denied: Denied) -> None:
        self.denied = denied
        super().__init__(str(denied))


class _Head(msgspec.Struct):
    """What the gate looks at; the values stay text."""

    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"")
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _Call(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of a request that names something; what else it held would be unseen."""

    name: str = ""
    uri: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"")
    ref: msgspec.Raw = msgspec.Raw(b"")
    argument: msgspec.Raw = msgspec.Raw(b"")
    context: msgspec.Raw = msgspec.Raw(b"")
    meta: dict[str, Any] | None = msgspec.field(name="_meta", default=None)


class _ListParams(msgspec.Struct):
    cursor: str | None = None


_head = msgspec.json.Decoder(_Head)
_heads = msgspec.json.Decoder(list[_Head])
_call = msgspec.json.Decoder(_Call)
_list_params = msgspec.json.Decoder(_ListParams)


# Structs rather than dataclasses, which take several times as long to make: there is one of each
# kind for every call.
class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to send one request: its method, the name or URI it is about, and its exact bytes.

    `body` is the JSON text of `arguments` for tools and prompts (empty when there are none), and of
    `ref`, `argument` and `context` one after the other for a completion. `decision` is the number
    of the audit record that allowed it.
    """

    method: str
    name: str
    body: bytes = b""
    decision: int = 0


class AnswerTicket(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to answer one request of the server, with nothing that is not among `leaves`."""

    method: str
    leaves: frozenset[Any]
    decision: int = 0


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """One message that went to the server: its method, and the record that allowed it."""

    method: str
    decision: int
    is_answer: bool = False


class Gate:
    """One server's gate; it outlives the links.

    `permit` is awaited before each start and returns the number of the decision that allows it; it
    raises Denied. `on_list` gets the method, the cursor and the JSON text of each result of a list
    and of the handshake. `on_violation` hears of what did not pass, `on_passage` of what did.
    `redact` takes secrets out of what is told of a connection: a command line, a child's last words.
    """

    def __init__(
        self,
        server: str,
        *,
        permit: Callable[[], Any],
        on_list: Callable[[str, str | None, bytes], None] | None = None,
        on_violation: Callable[[str], None] | None = None,
        on_passage: Callable[[Passage], None] | None = None,
        redact: Callable[[str], str] = str,
    ) -> None:
        self.server = server
        self.redact = redact
        self.on_list = on_list
        self.on_violation = on_violation
        self.on_passage = on_passage
        self._permit = permit
        self._standing = 0
        self._is_shut = True
        # The number of the present link: behind the next one a tool's name may mean something else.
        self._link_number = 0
        self._tickets: dict[tuple[str, str, bytes], list[_Open]] = {}
        self._answers: dict[str, list[AnswerTicket]] = {}

    def guard(self, connector: Connector) -> Connector:
        """The same connector behind this gate."""
        return _GuardedConnector(self, connector)

    async def permit_start(self) -> int:
        """Ask whether the server may be started or reached now; gives the new link's number.

        Raises:
            StartRefused: it may not.
        """
        self.shut()
        try:
            self._standing = await self._permit()
        except Denied as denied:
            raise StartRefused(denied) from denied
        self._link_number += 1
        self._is_shut = False
        return self._link_number

    def shut(self) -> None:
        """Let nothing through any more, until the next start is allowed."""
        self._is_shut = True

    def admit(self, ticket: Ticket) -> _Admission:
        """Let the request of the ticket through while this is open, in a `with`.

        Once, or, where it only looks something up, as often as connections break. `.passages` of
        what it gives counts how often it went out.
        """
        key = (ticket.method, ticket.name, ticket.body)
        return _Admission(self._tickets, key, _Open(ticket.decision, self._link_number))

    @contextmanager
    def admit_answer(self, ticket: AnswerTicket) -> Iterator[None]:
        """Let one answer through while this is open; the first that fits takes the ticket."""
        waiting = self._answers.setdefault(ticket.method, [])
        waiting.append(ticket)
        try:
            yield
        finally:
            if ticket in waiting:
                waiting.remove(ticket)

    def lend_answer(self, ticket: AnswerTicket) -> None:
        """As `admit_answer`, open until it is used: the answer leaves after the handler's end."""
        waiting = self._answers.setdefault(ticket.method, [])
        waiting.append(ticket)
        # An answer that was never sent, since its request was cancelled, leaves its ticket behind.
        del waiting[:-MAX_ASKED]

    # --- what the links ask -----------------------------------------------------------------------

    def check_request(self, method: str, params: bytes, link: int) -> str | _Open | None:
        """Take note of a request or notification that goes out: the ticket that it takes, if any.

        `link` is the number of the link it goes out on. A text says why it may not go out.
        """
        if self._is_shut and not (self._standing and method == CANCELLED):
            return f"{method} without a decision to connect"
        if method in STANDING:
            self._passed(method, self._standing)
            return None
        try:
            call = _call.decode(params or b"{}")
        except (msgspec.MsgspecError, RecursionError) as fault:
            return f"{method} with parameters that nobody has seen: {fault}"
        if call.meta is not None and call.meta.keys() - {"progressToken"}:
            return f"{method} with a _meta that nobody has seen"
        body = bytes(call.arguments) or b"".join(
            map(bytes, (call.ref, call.argument, call.context))
        )
        most = MAX_PASSAGES if method in REPEATED else 1
        opened: _Open | None = None
        for one in self._tickets.get((method, call.name or call.uri, body), ()):
            # A tool was reviewed as this very session has it. Of several tickets for the same
            # bytes, each is for a request of its own.
            if (method != "tools/call" or one.link == link) and (
                opened is None or one.passages < opened.passages
            ):
                opened = one
        if opened is None or opened.passages >= most:
            name = (call.name or call.uri)[:128]
            return f"{method} of {name!r} without a decision for these bytes"
        opened.passages += 1
        self._passed(method, opened.decision)
        return opened

    def check_answer(self, method: str | None, result: bytes) -> str:
        """Take note of an answer that goes out; empty when it may."""
        if method == "ping":
            self._passed(method, self._standing, is_answer=True)
            return ""
        if method is None:
            return "an answer to what was not asked"
        try:
            said = leaves_of(msgspec.json.decode(result))
        except (msgspec.MsgspecError, RecursionError) as fault:
            return f"an answer to {method} that cannot be read: {fault}"
        waiting = self._answers.get(method, [])
        for ticket in waiting:
            if said <= ticket.leaves:
                waiting.remove(ticket)
                self._passed(method, ticket.decision, is_answer=True)
                return ""
        return f"an answer to {method} that was not released"

    def refused(self, what: str) -> None:
        """Tell of something that did not pass."""
        log.error("the gate of %s held back %s", self.server, what)
        if self.on_violation is not None:
            self.on_violation(what)

    def _passed(self, method: str, decision: int, *, is_answer: bool = False) -> None:
        if self.on_passage is not None:
            self.on_passage(Passage(method=method, decision=decision, is_answer=is_answer))


class _Open:
    """A ticket in use. Without its bytes: a link keeps it after the call."""

    __slots__ = ("decision", "link", "passages")

    def __init__(self, decision: int, link: int) -> None:
        self.decision = decision
        self.link = link
        self.passages = 0


class _Admission:
    """A ticket is good from the beginning of the `with` to its end."""

    __slots__ = ("_key", "_opened", "_tickets")

    def __init__(
        self,
        tickets: dict[tuple[str, str, bytes], list[_Open]],
        key: tuple[str, str, bytes],
        opened: _Open,
    ) -> None:
        self._tickets = tickets
        self._key = key
        self._opened = opened

    def __enter__(self) -> _Open:
        self._tickets.setdefault(self._key, []).append(self._opened)
        return self._opened

    def __exit__(self, *error: object) -> None:
        waiting = self._tickets[self._key]
        waiting.remove(self._opened)
        if not waiting:
            del self._tickets[self._key]


class _GuardedConnector:
    """Opens links only while the gate permits it."""

    __slots__ = ("_connector", "_gate")

    def __init__(self, gate: Gate, connector: Connector) -> None:
        self._gate = gate
        self._connector = connector

    @property
    def description(self) -> str:
        return self._gate.redact(self._connector.description)

    async def connect(self) -> Link:
        """Open a link.

        Raises:
            StartRefused: it was not decided, or what would be started is not what was decided.
            LinkError: the server cannot be reached or started.
        """
        number = await self._gate.permit_start()
        try:
            link = await self._connector.connect()
        except LinkError as error:
            raise _cleaned(error, self._gate.redact) from None
        return _GateLink(self._gate, link, number)


class _GateLink(LinkAround):
    """A link on which only what was decided is sent; see `Link` for what each method promises."""

    __slots__ = ("_asked", "_gate", "_listing", "_number", "_out", "_receiver")

    def __init__(self, gate: Gate, link: Link, number: int) -> None:
        super().__init__(link)
        self._gate = gate
        self._number = number
        self._receiver: Receiver | None = None
        # What the server asked and we have not answered: ids with their methods.
        self._asked: OrderedDict[int | str, str] = OrderedDict()
        # Our lists under way: ids with method and cursor.
        self._listing: OrderedDict[int | str, tuple[str, str | None]] = OrderedDict()
        # The tickets that our requests took, by id.
        self._out: OrderedDict[int | str, _Open] = OrderedDict()

    @property
    def stderr_tail(self) -> str:
        """The end of what a child wrote to stderr."""
        return self._gate.redact(getattr(self.inner, "stderr_tail", ""))

    @property
    def failure(self) -> LinkError | None:
        """Why a child is no server at all, where that is known."""
        failure = getattr(self.inner, "failure", None)
        return failure if failure is None else _cleaned(failure, self._gate.redact)

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver."""
        self._receiver = receiver
        self.inner.start(self)

    # --- outward ----------------------------------------------------------------------------------

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        """Send what was decided; anything else fails here, and the link goes on."""
        if is_answer:
            frame = self._checked_answers(frame)
            if frame:
                self.inner.send(frame, about, is_answer)
            return
        try:
            head = _head.decode(frame)
            method = head.method
        except (msgspec.MsgspecError, RecursionError):
            head, method = _Head(), None
        if method is None:
            self._hold_back("a frame that is no request", head.id)
            return
        taken = self._gate.check_request(method, bytes(head.params), self._number)
        if isinstance(taken, str):
            self._hold_back(taken, head.id)
            return
        if taken is not None and head.id is not None:
            self._out[head.id] = taken
            if len(self._out) > MAX_OUT:
                self._out.popitem(last=False)
        if method in LISTS and head.id is not None:
            self._listing[head.id] = (method, _cursor(bytes(head.params)))
            if len(self._listing) > MAX_LISTING:
                self._listing.popitem(last=False)
        try:
            self.inner.send(frame, about, is_answer)
        except LinkError as error:
            self._not_sent(head.id, error)
            raise

    def _not_sent(self, ident: int | str | None, error: LinkError) -> None:
        """Give a ticket back if what took it was certainly not sent."""
        taken = None if ident is None else self._out.pop(ident, None)
        if taken is not None and error.sent is False:
            taken.passages -= 1

    def _hold_back(self, what: str, ident: int | str | None) -> None:
        self._gate.refused(what)
        receiver = self._receiver
        if ident is None or receiver is None:
            return
        # Not "certainly not sent": that would have it tried again.
        error = LinkError(f"the host's gate held back {what}", sent=None)
        asyncio.get_running_loop().call_soon(receiver.request_lost, ident, error)

    def _checked_answers(self, frame: bytes) -> bytes:
        """The answers of a frame, those that were not released as errors."""
        try:
            is_batch = frame.lstrip().startswith(b"[")
            heads = _heads.decode(frame) if is_batch else [_head.decode(frame)]
        except (msgspec.MsgspecError, RecursionError):
            self._gate.refused("an answer that cannot be read")
            return b""
        is_clean = True
        for head in heads:
            method = None if head.id is None else self._asked.pop(head.id, None)
            if bytes(head.error):
                continue
            what = self._gate.check_answer(method, bytes(head.result) or b"null")
            if what:
                self._gate.refused(what)
                head.result = msgspec.Raw(b"")
                head.error = msgspec.Raw(b'{"code":-32603,"message":"held back by the host"}')
                is_clean = False
        if is_clean:
            return frame
        texts = [_answer_text(head) for head in heads]
        return b"[" + b",".join(texts) + b"]" if is_batch else texts[0]

    # --- inward -----------------------------------------------------------------------------------

    def frames_received(self, frames: Sequence[bytes], seen: Seen) -> None:
        """Note what the server asks and lists, and pass everything on."""
        for frame in frames:
            # An answer has no such member at its top, and most frames are answers.
            if self._listing or b'method"' in frame or b"\\u" in frame:
                self._look_at(frame)
        assert self._receiver is not None
        self._receiver.frames_received(frames, seen)

    def _look_at(self, frame: bytes) -> None:
        try:
            if frame.lstrip().startswith(b"["):
                heads = _heads.decode(frame)
            else:
                heads = [_head.decode(frame)]
        except (msgspec.MsgspecError, RecursionError):
            # The engine says what is wrong with it.
            return
        for head in heads:
            if head.id is None:
                continue
            if head.method is not None:
                self._asked[head.id] = head.method
                if len(self._asked) > MAX_ASKED:
                    self._asked.popitem(last=False)
            elif bytes(head.result) and self._gate.on_list is not None:
                listing = self._listing.pop(head.id, None)
                if listing is not None:
                    self._gate.on_list(*listing, bytes(head.result))
            else:
                self._listing.pop(head.id, None)

    def frame_refused(self, noise: Noise) -> None:
        """Pass it on."""
        assert self._receiver is not None
        self._receiver.frame_refused(noise)

    def link_closed(self, error: LinkError | None) -> None:
        """Pass it on."""
        assert self._receiver is not None
        self._receiver.link_closed(error and _cleaned(error, self._gate.redact))

    def is_awaited(self, ident: int | str) -> bool:
        """Pass it on."""
        assert self._receiver is not None
        return self._receiver.is_awaited(ident)

    def request_lost(self, ident: int | str, error: LinkError) -> None:
        """Pass it on."""
        assert self._receiver is not None
        self._listing.pop(ident, None)
        self._not_sent(ident, error)
        self._receiver.request_lost(ident, _cleaned(error, self._gate.redact))

    def delivery_lost(self, delivery: Delivery, reason: str) -> None:
        """Pass it on."""
        assert self._receiver is not None
        self._receiver.delivery_lost(delivery, reason)

    def link_troubled(self, error: LinkError | None) -> None:
        """Pass it on."""
        assert self._receiver is not None
        self._receiver.link_troubled(error and _cleaned(error, self._gate.redact))


def _cleaned(error: LinkError, redact: Callable[[str], str]) -> LinkError:
    """The error without secrets; itself where there are none in it."""
    kept = {
        name: redact(value)
        if isinstance(value, str)
        else tuple(map(redact, value))
        if name == "command"
        else value
        for name, value in vars(error).items()
    }
    words = tuple(redact(one) if isinstance(one, str) else one for one in error.args)
    if words == error.args and kept == vars(error):
        return error
    twin = error.again(sent=error.sent)
    twin.__dict__.update(kept)
    twin.args = words
    return twin


def leaves_of(value: Any) -> frozenset[Any]:
    """Every text, number and truth value in a JSON value, and the names of its members.

    A number and a truth value that Python thinks equal stay apart.
    """
    found: set[Any] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            found.update(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif item is not None:
            found.add(item if isinstance(item, str) else (type(item).__name__, item))
    return frozenset(found)


def _cursor(params: bytes) -> str | None:
    try:
        return _list_params.decode(params).cursor if params else None
    except msgspec.MsgspecError:
        return None


def _answer_text(head: _Head) -> bytes:
    ident = msgspec.json.encode(head.id)
    member = (
        b'"error":' + bytes(head.error) if bytes(head.error) else b'"result":' + bytes(head.result)
    )
    return b'{"jsonrpc":"2.0","id":' + ident + b"," + member + b"}"
