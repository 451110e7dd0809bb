"""Revision 2025-11-25: what changed since 2025-06-18.

Spec: https://modelcontextprotocol.io/specification/2025-11-25/changelog
"""

from __future__ import annotations

from dragoman.model.capabilities import ClientCapabilities
from dragoman.model.content import ToolResultContent
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult, SamplingMessage
from dragoman.revisions.degrade import object_result_only
from dragoman.revisions.v2024_11_05 import members_at
from dragoman.revisions.v2025_06_18 import V2025_06_18

__all__ = ["V2025_11_25"]

V2025_11_25 = V2025_06_18.evolve(
    wire="2025-11-25",
    members=members_at(3),
    adds={
        # changelog: "Add support for URL mode elicitation"
        "notifications/elicitation/complete",
    },
    facts={
        # schema: JSONRPCErrorResponse.id is optional
        "sends_null_id": False,
        # changelog: "Support for URL mode elicitation requests"
        "has_url_elicitation": True,
        # changelog: "Add tool calling support to sampling"
        "has_sampling_tools": True,
        # changelog: titled, untitled, single-select and multi-select enums
        "has_rich_enums": True,
        # changelog: input validation errors are tool execution errors
        "argument_faults_are_results": True,
        # changelog: "Support polling SSE streams", basic/transports#sending-messages-to-the-server
        "primes_streams": True,
    },
    substitutes={
        # changelog: "Support for URL mode elicitation requests", and a capability for each mode
        ClientCapabilities: None,
        # changelog: "Add tool calling support to sampling", which brought several blocks
        CreateMessageParams: None,
        SamplingMessage: None,
        CreateMessageResult: None,
        # schema: ToolResultContent.structuredContent is an object
        ToolResultContent: object_result_only,
    },
)
