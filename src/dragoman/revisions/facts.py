"""Named answers about a revision, for the few readers outside of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Ask", "Facts", "Opening"]


class Opening(Enum):
    """How a connection begins."""

    HANDSHAKE = "initialize, then notifications/initialized"
    NONE = "each request carries who asks and in which revision"


class Ask(Enum):
    """How a server asks its client for something."""

    DIRECT = "a request of its own"
    ROUNDS = "a result that names the input it needs"


@dataclass(frozen=True, slots=True)
class Facts:
    """Named answers about a revision, for the few readers outside of this folder."""

    opening: Opening = Opening.HANDSHAKE
    ask: Ask = Ask.DIRECT
    takes_batches: bool = True
    """A JSON array of messages is understood."""
    sends_null_id: bool = True
    """An error answer to an unreadable request has `id: null`; else it has no id."""
    resource_not_found: int = -32002
    """The number of the error for a resource that does not exist."""
    completion_is_declared: bool = False
    """completion/complete needs the `completions` capability."""
    log_level_per_request: bool = False
    """The log level comes with each request instead of logging/setLevel."""
    has_structured_output: bool = False
    """Tool results have `structuredContent`."""
    has_elicitation: bool = False
    """Servers can ask the user a form."""
    has_url_elicitation: bool = False
    """Servers can send the user to a URL."""
    has_sampling_tools: bool = False
    """Sampling requests can carry tools, and messages several blocks."""
    has_rich_enums: bool = False
    """Forms know titled and multiple choice."""
    argument_faults_are_results: bool = False
    """Arguments that miss a tool's schema are a result with isError, for the model to read."""
    progress_has_message: bool = False
    """Progress notifications carry a text."""
    has_version_header: bool = False
    """Over HTTP each request after the opening names the revision in a header."""
    primes_streams: bool = False
    """Over HTTP a stream begins with an event that has an id and nothing else, and may be closed
    before its answer has come: the client comes back for the rest."""
