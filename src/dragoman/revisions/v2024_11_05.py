"""Revision 2024-11-05, written out in full.

Spec: https://modelcontextprotocol.io/specification/2024-11-05
"""

from __future__ import annotations

from dragoman.model.content import AudioContent, ResourceLink
from dragoman.model.elicitation import ElicitParams, ElicitResult
from dragoman.model.sampling import CreateMessageParams, CreateMessageResult, SamplingMessage
from dragoman.model.tools import CallToolResult, Tool
from dragoman.revisions.degrade import (
    answers_only,
    audio_as_resource,
    form,
    link_as_text,
    sampling_message,
    sampling_request,
    sampling_result,
    schemas_as_objects,
    structured_as_text,
)
from dragoman.revisions.dialect import Dialect
from dragoman.revisions.facts import Facts
from dragoman.revisions.fields import MEMBERS

__all__ = ["V2024_11_05", "members_at"]


def members_at(position: int) -> dict[str, frozenset[str]]:
    """The members of every record in the revision at `position`."""
    digit = str(position)
    return {
        record: frozenset(name for name, where in members.items() if digit in where)
        for record, members in MEMBERS.items()
    }


V2024_11_05 = Dialect(
    wire="2024-11-05",
    position=0,
    members=members_at(0),
    methods=frozenset(
        {
            "ping",
            "initialize",
            "notifications/initialized",
            "notifications/cancelled",
            "notifications/progress",
            "notifications/message",
            "notifications/tools/list_changed",
            "notifications/prompts/list_changed",
            "notifications/resources/list_changed",
            "notifications/resources/updated",
            "notifications/roots/list_changed",
            "tools/list",
            "tools/call",
            "resources/list",
            "resources/templates/list",
            "resources/read",
            "resources/subscribe",
            "resources/unsubscribe",
            "prompts/list",
            "prompts/get",
            "completion/complete",
            "logging/setLevel",
            "sampling/createMessage",
            "roots/list",
        }
    ),
    facts=Facts(),
    substitutes={
        AudioContent: audio_as_resource,
        ResourceLink: link_as_text,
        CallToolResult: structured_as_text,
        Tool: schemas_as_objects,
        CreateMessageParams: sampling_request,
        SamplingMessage: sampling_message,
        CreateMessageResult: sampling_result,
        ElicitParams: form,
        ElicitResult: answers_only,
    },
)
