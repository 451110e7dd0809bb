"""Revision 2025-03-26: what changed since 2024-11-05.

Spec: https://modelcontextprotocol.io/specification/2025-03-26/changelog
"""

from __future__ import annotations

from dragoman.model.content import AudioContent
from dragoman.model.tools import Tool
from dragoman.revisions.degrade import title_as_annotation
from dragoman.revisions.v2024_11_05 import V2024_11_05, members_at

__all__ = ["V2025_03_26"]

V2025_03_26 = V2024_11_05.evolve(
    wire="2025-03-26",
    members=members_at(1),
    facts={
        # basic/index#batching: arrays of messages are named for the first time
        "takes_batches": True,
        # changelog: "Added completions capability"
        "completion_is_declared": True,
        # changelog: "Added message field to ProgressNotification"
        "progress_has_message": True,
    },
    substitutes={
        # changelog: "Added support for audio data"
        AudioContent: None,
        # changelog: tool annotations, which have a title
        Tool: title_as_annotation,
    },
)
