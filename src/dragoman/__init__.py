"""dragoman: the Model Context Protocol for Python.

Servers, clients and hosts, every revision, from one code base. See `Server` and `Client`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dragoman.client.client import Client
    from dragoman.client.models import choose_model
    from dragoman.client.results import ToolResult
    from dragoman.client.supervisor import Reconnect
    from dragoman.errors import (
        ChildExited,
        DeadlineExceeded,
        DragomanError,
        InvalidParams,
        LimitExceeded,
        LinkError,
        LocalError,
        Misconfigured,
        MissingExtra,
        NotNegotiated,
        PeerError,
        Refused,
        RemoteFailure,
        RequestError,
        ResourceNotFound,
        ToolError,
    )
    from dragoman.model.base import Annotations, Icon
    from dragoman.model.completion import Completion
    from dragoman.model.content import (
        AudioContent,
        EmbeddedResource,
        ImageContent,
        ResourceContents,
        ResourceLink,
        TextContent,
    )
    from dragoman.model.elicitation import ElicitParams, ElicitResult
    from dragoman.model.prompts import Prompt, PromptMessage
    from dragoman.model.resources import Resource, ResourceTemplate
    from dragoman.model.roots import Root
    from dragoman.model.sampling import (
        CreateMessageParams,
        CreateMessageResult,
        SamplingMessage,
    )
    from dragoman.model.tools import CallToolResult, Tool, ToolAnnotations
    from dragoman.protocol.limits import Limits
    from dragoman.server.app import Server
    from dragoman.server.context import Context
    from dragoman.server.results import Audio, File, Image

# Where each public name is defined. They are loaded when they are first used, so that a server
# does not pay for the client, nor a client for the server.
_HOMES = {
    "dragoman.client.client": ("Client",),
    "dragoman.client.models": ("choose_model",),
    "dragoman.client.results": ("ToolResult",),
    "dragoman.client.supervisor": ("Reconnect",),
    "dragoman.errors": (
        "ChildExited",
        "DeadlineExceeded",
        "DragomanError",
        "InvalidParams",
        "LimitExceeded",
        "LinkError",
        "LocalError",
        "Misconfigured",
        "MissingExtra",
        "NotNegotiated",
        "PeerError",
        "Refused",
        "RemoteFailure",
        "RequestError",
        "ResourceNotFound",
        "ToolError",
    ),
    "dragoman.model.base": ("Annotations", "Icon"),
    "dragoman.model.completion": ("Completion",),
    "dragoman.model.content": (
        "AudioContent",
        "EmbeddedResource",
        "ImageContent",
        "ResourceContents",
        "ResourceLink",
        "TextContent",
    ),
    "dragoman.model.elicitation": ("ElicitParams", "ElicitResult"),
    "dragoman.model.prompts": (
        "Prompt",
        "PromptMessage",
    ),
    "dragoman.model.resources": ("Resource", "ResourceTemplate"),
    "dragoman.model.roots": ("Root",),
    "dragoman.model.sampling": (
        "CreateMessageParams",
        "CreateMessageResult",
        "SamplingMessage",
    ),
    "dragoman.model.tools": ("CallToolResult", "Tool", "ToolAnnotations"),
    "dragoman.protocol.limits": ("Limits",),
    "dragoman.server.app": ("Server",),
    "dragoman.server.context": ("Context",),
    "dragoman.server.results": ("Audio", "File", "Image"),
}

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Annotations",
    "Audio",
    "AudioContent",
    "CallToolResult",
    "ChildExited",
    "Client",
    "Reconnect",
    "Completion",
    "Context",
    "CreateMessageParams",
    "CreateMessageResult",
    "DeadlineExceeded",
    "DragomanError",
    "ElicitParams",
    "ElicitResult",
    "EmbeddedResource",
    "File",
    "Icon",
    "Image",
    "ImageContent",
    "InvalidParams",
    "LimitExceeded",
    "Limits",
    "LinkError",
    "LocalError",
    "Misconfigured",
    "MissingExtra",
    "NotNegotiated",
    "PeerError",
    "Prompt",
    "PromptMessage",
    "Refused",
    "RemoteFailure",
    "RequestError",
    "Resource",
    "ResourceContents",
    "ResourceLink",
    "ResourceNotFound",
    "ResourceTemplate",
    "Root",
    "SamplingMessage",
    "Server",
    "TextContent",
    "Tool",
    "ToolAnnotations",
    "ToolError",
    "ToolResult",
    "choose_model",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'dragoman' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
