"""Revision 2025-06-18: what changed since 2025-03-26.

Spec: https://modelcontextprotocol.io/specification/2025-06-18/changelog
"""

from __future__ import annotations

from dragoman.model.capabilities import ClientCapabilities
from dragoman.model.content import ResourceLink
from dragoman.model.tools import CallToolResult, Tool
from dragoman.revisions.degrade import (
    elicitation_by_form,
    object_output_only,
    object_schemas_only,
)
from dragoman.revisions.v2024_11_05 import members_at
from dragoman.revisions.v2025_03_26 import V2025_03_26

__all__ = ["V2025_06_18"]

V2025_06_18 = V2025_03_26.evolve(
    wire="2025-06-18",
    members=members_at(2),
    adds={
        # changelog: "Add support for elicitation"
        "elicitation/create",
    },
    facts={
        # changelog: "Remove support for JSON-RPC batching"
        "takes_batches": False,
        # changelog: "Add support for structured tool output"
        "has_structured_output": True,
        "has_elicitation": True,
        # basic/transports#protocol-version-header
        "has_version_header": True,
    },
    substitutes={
        # changelog: "Add support for resource links in tool call results"
        ResourceLink: None,
        # server/tools#structured-content: an object
        CallToolResult: object_output_only,
        # changelog: "Add title field"
        Tool: object_schemas_only,
        # client/elicitation#capabilities: an empty object, which means forms
        ClientCapabilities: elicitation_by_form,
    },
)
