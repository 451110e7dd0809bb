"""Nothing is used that was not declared: the checks against capabilities.

Spec: basic/lifecycle#capability-negotiation
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from dragoman.errors import CannotLower, NotNegotiated
from dragoman.model.base import Record
from dragoman.model.capabilities import ClientCapabilities, ServerCapabilities
from dragoman.model.elicitation import ElicitParams
from dragoman.model.methods import CATALOGUE, Method, Side
from dragoman.model.sampling import CreateMessageParams
from dragoman.revisions.dialect import Dialect
from dragoman.revisions.registry import dialect_for

__all__ = [
    "Capabilities",
    "Vocabulary",
    "check_params",
    "grants",
    "shared_vocabulary",
    "vocabulary",
]

Capabilities = ClientCapabilities | ServerCapabilities


def grants(capabilities: Capabilities, path: str) -> bool:
    """Whether a dotted path like "resources.subscribe" is declared."""
    return _grants(capabilities, path.split("."))


def _grants(capabilities: Capabilities, steps: Sequence[str]) -> bool:
    node: object = capabilities
    for step in steps:
        node = getattr(node, step, None)
        if node is None or node is False:
            return False
    return True


def vocabulary(
    dialect: Dialect, sender: Side, client: ClientCapabilities, server: ServerCapabilities
) -> dict[str, Method]:
    """Every method that `sender` may use between two sides with these capabilities."""
    allowed = {}
    for name in CATALOGUE:
        method = dialect.method(name, sender)
        if method is None:
            continue
        path = dialect.needs(method)
        if path is not None:
            declared: Capabilities = client if method.needs_of is Side.CLIENT else server
            if not grants(declared, path):
                continue
        allowed[name] = method
    return allowed


class Vocabulary(NamedTuple):
    """What the two sides of one connection may say: what we ask and tell, what they ask and tell."""

    asks: dict[str, Method]
    tells: dict[str, Method]
    is_asked: dict[str, Method]
    is_told: dict[str, Method]


_shared: dict[tuple[str, Side, tuple[bool, ...]], Vocabulary] = {}

# What was asked for last, by revision and side: most clients of a server are of few kinds.
_Asked = tuple[ClientCapabilities, ServerCapabilities, Vocabulary]
_recent: dict[tuple[str, bool], tuple[_Asked, ...]] = {}

# 4 kinds: one that said nothing yet, and three others.
_MAX_RECENT = 4


def shared_vocabulary(
    dialect: Dialect,
    side: Side,
    client: ClientCapabilities,
    server: ServerCapabilities,
    but: frozenset[str],
) -> Vocabulary:
    """The vocabulary of a side, without the methods in `but`, which it does not say by request.

    There are few different ones, and thousands of connections share them: leave them as they are.
    """
    asked = (dialect.wire, side is Side.CLIENT)
    recent = _recent.get(asked, ())
    for known_client, known_server, words in recent:
        if known_client == client and known_server == server:
            return words
    declared = tuple(
        [
            _grants(client if is_client else server, steps)
            for is_client, steps in _paths(dialect.wire)
        ]
    )
    key = (dialect.wire, side, declared)
    found = _shared.get(key)
    if found is None:
        ours = vocabulary(dialect, side, client, server)
        theirs = vocabulary(dialect, side.other, client, server)
        found = _shared[key] = Vocabulary(
            {n: method for n, method in ours.items() if method.is_request and n not in but},
            {n: method for n, method in ours.items() if not method.is_request and n not in but},
            {n: method for n, method in theirs.items() if method.is_request},
            {n: method for n, method in theirs.items() if not method.is_request},
        )
    if not _holds_more(client, server):
        _recent[asked] = ((client, server, found), *recent[: _MAX_RECENT - 1])
    return found


def _holds_more(client: ClientCapabilities, server: ServerCapabilities) -> bool:
    """Whether a side says more than names: that may be as large as it likes, and is not kept."""
    sampling, elicitation = client.sampling, client.elicitation
    return bool(
        client.experimental
        or client.extensions
        or client.tasks
        or (sampling is not None and (sampling.tools or sampling.context))
        or (elicitation is not None and (elicitation.form or elicitation.url))
        or server.experimental
        or server.extensions
        or server.tasks
    )


@cache
def _paths(wire: str) -> tuple[tuple[bool, tuple[str, ...]], ...]:
    """Every capability that a method needs in a revision: whether the client's, and its path."""
    dialect = dialect_for(wire)
    assert dialect is not None
    found = {
        (method.needs_of is Side.CLIENT, tuple(path.split("."))): None
        for method in CATALOGUE.values()
        if (path := dialect.needs(method)) is not None
    }
    return tuple(found)


def check_params(params: Record, dialect: Dialect, peer: Capabilities) -> None:
    """Refuse parameters that use more than the peer declared.

    Raises:
        NotNegotiated: an elicitation in a mode, or sampling with tools or context, that the client
            lacks.
        CannotLower: the revision has no such thing.
    """
    if not isinstance(peer, ClientCapabilities):
        return
    if isinstance(params, ElicitParams):
        declared = peer.elicitation
        if params.mode == "url":
            if not dialect.facts.has_url_elicitation:
                raise CannotLower("an elicitation in URL mode", dialect.wire)
            if declared is None or declared.url is None:
                raise NotNegotiated("elicitation.url")
        elif declared is None or (declared.url is not None and declared.form is None):
            raise NotNegotiated("elicitation.form")
    elif isinstance(params, CreateMessageParams) and dialect.facts.has_sampling_tools:
        # The two parts of `sampling` came into the protocol together.
        sampling = peer.sampling
        wants_tools = params.tools is not None or params.tool_choice is not None
        if wants_tools and (sampling is None or sampling.tools is None):
            raise NotNegotiated("sampling.tools")
        wants_context = params.include_context not in (None, "none")
        if wants_context and (sampling is None or sampling.context is None):
            raise NotNegotiated("sampling.context")
