"""Every exception dragoman raises.

The first split is by whose fault it is, because that decides what the caller does next::

    DragomanError
    ├── LocalError              we were asked to do what the protocol forbids -> fix the caller
    │   ├── NotNegotiated         a feature the other side never declared
    │   ├── WrongState            not now: not open yet, or already closed
    │   ├── Misconfigured         a definition or a setting that cannot work
    │   │   └── MissingExtra        an optional dependency, with the line that installs it
    │   └── CannotLower           a value this revision cannot hold, not even by a substitute
    ├── PeerError               the other side broke the protocol -> report or close
    │   ├── BadMessage            a frame that is no valid JSON-RPC message
    │   ├── BadAnswer             the client's answer to what a handler asked does not fit
    │   └── RequestError          a request we refuse, with the number the peer is told
    │       ├── ParseError  InvalidRequest  MethodNotFound  InvalidParams  InternalError
    │       ├── ResourceNotFound  UrlElicitationRequired
    │       └── InvalidArguments    arguments that miss a tool's schema, every fault at once
    ├── RemoteFailure           the other side answered with an error -> decide
    │   └── AskRefused            the client, or its user, refused what a handler asked of it
    ├── ToolError               a tool failed in a way its caller, the model, may read
    ├── LinkError               the connection failed -> retry only if `.sent` is False
    │   ├── LinkClosed
    │   ├── ClientLost            the client went before it answered what a handler asked
    │   ├── CannotStart           a child that could not be started at all
    │   ├── ChildExited           a child that ended; exit code and the end of its stderr
    │   ├── HttpError             an exchange over HTTP failed; status, Retry-After, body
    │   └── SessionLost           the server no longer knows our session -> a new handshake
    ├── DeadlineExceeded        no answer in time (also a TimeoutError)
    ├── Refused                 policy or a person said no -> tell the model
    │   └── Denied                the same by a host, with a code (dragoman.host)
    ├── LimitExceeded           a stated ceiling was met -> tell whoever met it
    └── ModelError, AuditFailed, StoreFailed    a host's model, log or store (dragoman.host)

Exceptions carry fields; their text is one sentence with the values in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ArgumentFault",
    "AskRefused",
    "BadAnswer",
    "BadMessage",
    "CannotLower",
    "CannotStart",
    "ChildExited",
    "ClientLost",
    "DeadlineExceeded",
    "DragomanError",
    "HttpError",
    "InternalError",
    "InvalidArguments",
    "InvalidParams",
    "InvalidRequest",
    "LimitExceeded",
    "LinkClosed",
    "LinkError",
    "LocalError",
    "MethodNotFound",
    "Misconfigured",
    "MissingExtra",
    "NotNegotiated",
    "ParseError",
    "PeerError",
    "Refused",
    "RemoteFailure",
    "RequestError",
    "ResourceNotFound",
    "SessionLost",
    "ToolError",
    "UrlElicitationRequired",
    "WrongState",
]


class DragomanError(Exception):
    """The root of every exception raised here."""


# --- our own side -----------------------------------------------------------------------------


class LocalError(DragomanError):
    """The caller asked for something the protocol or the configuration forbids."""


class NotNegotiated(LocalError):
    """A feature was used that the other side did not declare. `.feature` names it."""

    def __init__(self, feature: str, message: str | None = None) -> None:
        self.feature = feature
        super().__init__(
            message or f"the other side did not declare {feature!r}, so it cannot be used"
        )


class WrongState(LocalError):
    """The connection is not in a state that allows this. `.state` and `.wanted` name both."""

    def __init__(self, state: str, wanted: str, *, what: str = "the connection") -> None:
        self.state = state
        self.wanted = wanted
        super().__init__(f"{what} is {state}; {wanted}")


class Misconfigured(LocalError):
    """A definition, a setting or a target that cannot work; the text says what would."""


class MissingExtra(Misconfigured):
    """An optional dependency is not installed. `.extra` and `.install` say which and how."""

    def __init__(self, extra: str, needed_for: str) -> None:
        self.extra = extra
        self.install = f"pip install 'dragoman[{extra}]'"
        super().__init__(f"{needed_for} needs an optional part of dragoman: {self.install}")


class CannotLower(LocalError):
    """A value has no form and no substitute in the peer's revision.

    `.what` names the value, `.revision` the revision's wire string.
    """

    def __init__(self, what: str, revision: str) -> None:
        self.what = what
        self.revision = revision
        super().__init__(f"{what} cannot be expressed in revision {revision}")


# --- the other side ---------------------------------------------------------------------------


class PeerError(DragomanError):
    """The other side broke the protocol."""


class BadMessage(PeerError):
    """A frame that is not a valid JSON-RPC message.

    `.kind` is the reserved error it answers to ("parse" or "invalid"), `.id` the request id where
    one could still be read, `.is_answer` whether it was meant as an answer, `.sample` the first
    bytes of the frame.
    """

    def __init__(
        self,
        kind: str,
        reason: str,
        *,
        id: int | str | None = None,
        sample: bytes = b"",
        is_answer: bool = False,
    ) -> None:
        self.kind = kind
        self.is_answer = is_answer
        self.reason = reason
        self.id = id
        self.sample = sample
        super().__init__(reason)


class RequestError(PeerError):
    """A request is refused; raise it in a handler to choose what the peer is told.

    `.code` is the JSON-RPC error number, `.message` one sentence, `.data` any JSON or None.
    Some numbers differ between revisions: those classes are mapped when the answer is written.
    """

    code: int = -32603

    def __init__(self, message: str, *, data: Any = None, code: int | None = None) -> None:
        if code is not None:
            self.code = code
        self.message = message
        self.data = data
        super().__init__(message)


class ParseError(RequestError):
    """The frame was not JSON (-32700)."""

    code = -32700


class InvalidRequest(RequestError):
    """JSON, but not a valid request, or not one that is allowed now (-32600)."""

    code = -32600


class MethodNotFound(RequestError):
    """The method does not exist here, in this revision or with these capabilities (-32601)."""

    code = -32601


class InvalidParams(RequestError):
    """The parameters are wrong (-32602)."""

    code = -32602


class InternalError(RequestError):
    """We failed (-32603); the peer is told an error id and nothing else."""

    code = -32603


class ResourceNotFound(RequestError):
    """No such resource. `.uri` is what was asked for; the number depends on the revision."""

    code = -32002

    def __init__(self, uri: str, message: str | None = None) -> None:
        self.uri = uri
        super().__init__(message or f"resource not found: {uri}", data={"uri": uri})


class UrlElicitationRequired(RequestError):
    """The request needs the user to visit a URL first (-32042).

    `elicitations` is a list of URL-mode elicitation parameters as plain JSON objects.
    Spec: client/elicitation#url-elicitation-required-error
    """

    code = -32042

    def __init__(self, message: str, elicitations: Sequence[dict[str, Any]]) -> None:
        self.elicitations = list(elicitations)
        super().__init__(message, data={"elicitations": self.elicitations})


@dataclass(frozen=True, slots=True)
class ArgumentFault:
    """One thing that is wrong with a tool's arguments.

    `path` is where ("days", "items[2].name"; empty for the whole), `expected` what the schema
    asks for, `got` a short rendering of what came, `hint` a suggestion or None.
    """

    path: str
    expected: str
    got: str
    hint: str | None = None

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}expected {self.expected}, got {self.got}{hint}"


class InvalidArguments(RequestError):
    """Arguments do not fit the schema. `.faults` holds every fault, in document order.

    The text is written for a model to read: one line a fault.
    """

    code = -32602

    def __init__(self, faults: Sequence[ArgumentFault], *, what: str = "arguments") -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"- {fault}" for fault in self.faults)
        super().__init__(
            f"invalid {what}:\n{lines}",
            data={
                "faults": [
                    {"path": f.path, "expected": f.expected, "got": f.got, "hint": f.hint}
                    for f in self.faults
                ]
            },
        )


class BadAnswer(PeerError):
    """The client answered what a handler asked of it, and the answer does not fit.

    `.method` is what was asked, `.faults` what is wrong with a form, `.detail` the same as text.
    Uncaught in a tool it becomes a failed result that says so, without what the user gave.
    """

    def __init__(self, method: str, detail: str, faults: Sequence[ArgumentFault] = ()) -> None:
        self.method = method
        self.detail = detail
        self.faults = tuple(faults)
        super().__init__(f"the client's answer to {method} does not fit: {detail}")


class RemoteFailure(DragomanError):
    """The other side answered our request with an error: `.code`, `.message`, `.data`."""

    def __init__(self, code: int, message: str, data: Any = None, *, method: str = "") -> None:
        self.code = code
        self.message = message
        self.data = data
        self.method = method
        where = f"{method}: " if method and not message.startswith(method) else ""
        super().__init__(f"{where}{message} (error {code})")


class AskRefused(RemoteFailure):
    """The client, or its user, refused what a handler asked of it.

    Uncaught in a tool it becomes a failed result with the client's own words: nobody learns what
    they did not say.
    """


class ToolError(DragomanError):
    """A tool failed and the model may read why.

    In a handler: raise it, its text goes to the model as a result with `isError`.
    In a client: raised for such a result; `.result` is the whole result, `.tool` the tool's name.
    """

    def __init__(self, message: str = "", *, tool: str = "", result: Any = None) -> None:
        self.tool = tool
        self.result = result
        super().__init__(message)


# --- the connection ---------------------------------------------------------------------------


class LinkError(DragomanError):
    """The connection failed.

    `.sent` says whether the request concerned may have reached the peer: True (all of it was
    handed over), False (certainly not), None (unknown). Only False makes a retry safe.
    """

    def __init__(self, message: str, *, sent: bool | None = None, hint: str | None = None) -> None:
        self.sent = sent
        self.hint = hint
        super().__init__(f"{message}. {hint}" if hint else message)

    def again(self, *, sent: bool | None) -> LinkError:
        """The same error once more, for another request that it concerns."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.sent = sent
        return twin


class LinkClosed(LinkError):
    """The connection was closed, by us or by the peer, before the answer came."""


class ClientLost(LinkError):
    """The client went before it answered what a handler asked of it; nobody is to blame here."""


class CannotStart(LinkError):
    """A child process could not be started. `.command` is the argument vector."""

    def __init__(self, message: str, *, command: Sequence[str], hint: str | None = None) -> None:
        self.command = tuple(command)
        super().__init__(message, sent=False, hint=hint)


class ChildExited(LinkError):
    """A child process ended.

    `.exit_code` is its status (negative: the signal that ended it; None: still unknown),
    `.stderr_tail` the last of what it wrote to stderr, `.command` its argument vector.
    """

    def __init__(
        self,
        *,
        command: Sequence[str],
        exit_code: int | None,
        stderr_tail: str,
        sent: bool | None = None,
        detail: str = "",
    ) -> None:
        self.command = tuple(command)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        how = (
            "ended"
            if exit_code is None
            else f"was ended by signal {-exit_code}"
            if exit_code < 0
            else f"exited with status {exit_code}"
        )
        text = f"the server process {' '.join(self.command)!r} {how}"
        if detail:
            text += f" {detail}"
        tail = stderr_tail.strip()
        text += f"; its stderr ends:\n{tail}" if tail else "; it wrote nothing to stderr"
        super().__init__(text, sent=sent)


class HttpError(LinkError):
    """An exchange over HTTP failed.

    `.status` is the status code, or None when no response came; `.retry_after_s` how long the
    other side asked us to wait; `.url` the address, without credentials and without its query;
    `.body` the first 1 KiB of what came, as printable text.
    """

    def __init__(
        self,
        message: str,
        *,
        sent: bool | None,
        url: str,
        status: int | None = None,
        retry_after_s: float | None = None,
        body: str = "",
        hint: str | None = None,
    ) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        self.url = url
        self.body = body
        super().__init__(message, sent=sent, hint=hint)


class SessionLost(LinkError):
    """The server no longer knows the session: it ended it, or was started anew.

    What was asked did not run; a new handshake opens a new session.
    """

    def __init__(self, message: str = "the server no longer knows our session") -> None:
        super().__init__(message, sent=False)


class DeadlineExceeded(DragomanError, TimeoutError):
    """No answer came in time: `.method`, `.timeout_s`. The peer was told to stop.

    `detail` is what else is known, such as the end of a child's stderr.
    """

    def __init__(self, method: str, timeout_s: float, detail: str = "") -> None:
        self.method = method
        self.timeout_s = timeout_s
        self.detail = detail
        text = f"{method} got no answer within {timeout_s:g} s; pass timeout_s= to wait longer"
        super().__init__(f"{text}; {detail}" if detail else text)


class Refused(DragomanError):
    """Policy or a person said no: `.rule` names which, `.subject` what was asked."""

    def __init__(self, rule: str, subject: str) -> None:
        self.rule = rule
        self.subject = subject
        super().__init__(f"{subject} was refused: {rule}")


class LimitExceeded(DragomanError):
    """A stated ceiling was met: `.limit` its name, `.value` its size, `.unit` its unit."""

    def __init__(self, limit: str, value: float, unit: str, message: str | None = None) -> None:
        self.limit = limit
        self.value = value
        self.unit = unit
        super().__init__(message or f"{limit} is limited to {value:g} {unit}")
