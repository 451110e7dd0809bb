"""The catalogue of methods: direction, records, and the capability each one needs.

Which of them exist in a revision is the dialect's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dragoman.model.base import EmptyResult, NoParams, PageParams, Record
from dragoman.model.capabilities import InitializeParams, InitializeResult
from dragoman.model.completion import CompleteParams, CompleteResult
from dragoman.model.elicitation import ElicitationCompleteParams, ElicitParams, ElicitResult
from dragoman.model.logging import LogMessageParams, SetLevelParams
from dragoman.model.progress import CancelledParams, ProgressParams
from dragoman.model.prompts import GetPromptParams, GetPromptResult, ListPromptsResult
from dragoman.model.resources import (
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    ResourceUpdatedParams,
    UriParams,
)
from dragoman.model.roots import ListRootsResult
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult
from dragoman.model.tools import CallToolParams, CallToolResult, ListToolsResult

__all__ = ["CATALOGUE", "Method", "Side"]


class Side(Enum):
    """The two ends of a connection."""

    # Each is one object; an Enum's own hash is a Python function, and tables are read all the time.
    __hash__ = object.__hash__

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> Side:
        """The opposite end."""
        return Side.SERVER if self is Side.CLIENT else Side.CLIENT


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    `senders` may send it. `result` is None for a notification. `needs` is a dotted path into the
    capabilities of `needs_of`: the side that must have declared it.
    """

    name: str
    senders: frozenset[Side]
    params: type[Record]
    result: type[Record] | None = None
    needs: str | None = None
    needs_of: Side | None = None

    @property
    def is_request(self) -> bool:
        """True for a request, False for a notification."""
        return self.result is not None


_CLIENT = frozenset({Side.CLIENT})
_SERVER = frozenset({Side.SERVER})
_BOTH = frozenset({Side.CLIENT, Side.SERVER})


def _from_client(
    name: str, params: type[Record], result: type[Record] | None, needs: str | None
) -> Method:
    return Method(name, _CLIENT, params, result, needs, Side.SERVER if needs else None)


def _from_server(
    name: str, params: type[Record], result: type[Record] | None, needs: str | None, of: Side
) -> Method:
    return Method(name, _SERVER, params, result, needs, of if needs else None)


_METHODS = (
    # either way
    Method("ping", _BOTH, NoParams, EmptyResult),
    Method("notifications/cancelled", _BOTH, CancelledParams),
    Method("notifications/progress", _BOTH, ProgressParams),
    # opening
    _from_client("initialize", InitializeParams, InitializeResult, None),
    _from_client("notifications/initialized", NoParams, None, None),
    # what servers offer
    _from_client("tools/list", PageParams, ListToolsResult, "tools"),
    _from_client("tools/call", CallToolParams, CallToolResult, "tools"),
    _from_client("resources/list", PageParams, ListResourcesResult, "resources"),
    _from_client("resources/templates/list", PageParams, ListResourceTemplatesResult, "resources"),
    _from_client("resources/read", UriParams, ReadResourceResult, "resources"),
    _from_client("resources/subscribe", UriParams, EmptyResult, "resources.subscribe"),
    _from_client("resources/unsubscribe", UriParams, EmptyResult, "resources.subscribe"),
    _from_client("prompts/list", PageParams, ListPromptsResult, "prompts"),
    _from_client("prompts/get", GetPromptParams, GetPromptResult, "prompts"),
    _from_client("completion/complete", CompleteParams, CompleteResult, "completions"),
    _from_client("logging/setLevel", SetLevelParams, EmptyResult, "logging"),
    # what servers tell
    _from_server("notifications/message", LogMessageParams, None, "logging", Side.SERVER),
    _from_server(
        "notifications/tools/list_changed", NoParams, None, "tools.list_changed", Side.SERVER
    ),
    _from_server(
        "notifications/prompts/list_changed", NoParams, None, "prompts.list_changed", Side.SERVER
    ),
    _from_server(
        "notifications/resources/list_changed",
        NoParams,
        None,
        "resources.list_changed",
        Side.SERVER,
    ),
    _from_server(
        "notifications/resources/updated",
        ResourceUpdatedParams,
        None,
        "resources.subscribe",
        Side.SERVER,
    ),
    _from_server(
        "notifications/elicitation/complete",
        ElicitationCompleteParams,
        None,
        "elicitation.url",
        Side.CLIENT,
    ),
    # what clients offer
    _from_server(
        "sampling/createMessage", CreateMessageParams, CreateMessageResult, "sampling", Side.CLIENT
    ),
    _from_server("roots/list", NoParams, ListRootsResult, "roots", Side.CLIENT),
    _from_server("elicitation/create", ElicitParams, ElicitResult, "elicitation", Side.CLIENT),
    # what clients tell
    Method(
        "notifications/roots/list_changed",
        _CLIENT,
        NoParams,
        None,
        "roots.list_changed",
        Side.CLIENT,
    ),
)

CATALOGUE: dict[str, Method] = {method.name: method for method in _METHODS}
"""Every method we know, by name."""
