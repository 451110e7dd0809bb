"""Nothing is used that was not declared: the checks against capabilities.

Spec: basic/lifecycle#capability-negotiation
"""

from __future__ import annotations

from dragoman.errors import CannotLower, NotNegotiated
from dragoman.model.base import Record
from dragoman.model.capabilities import ClientCapabilities, ServerCapabilities
from dragoman.model.elicitation import ElicitParams
from dragoman.model.methods import CATALOGUE, Method, Side
from dragoman.model.sampling import CreateMessageParams
from dragoman.revisions.dialect import Dialect

__all__ = ["Capabilities", "check_params", "grants", "vocabulary"]

Capabilities = ClientCapabilities | ServerCapabilities


def grants(capabilities: Capabilities, path: str) -> bool:
    """Whether a dotted path like "resources.subscribe" is declared."""
    node: object = capabilities
    for step in path.split("."):
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
