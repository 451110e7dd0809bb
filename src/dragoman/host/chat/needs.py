"""What a conversation needs: a host, and bounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from dragoman.client.results import ToolResult
from dragoman.errors import Misconfigured
from dragoman.host.heard import Heard
from dragoman.model.progress import ProgressParams
from dragoman.model.prompts import GetPromptResult, Prompt
from dragoman.model.resources import ReadResourceResult
from dragoman.model.tools import Tool

__all__ = ["Bounds", "ChatHost", "OfferedTool", "Origin"]


class OfferedTool(Protocol):
    """A tool that a server offers: its text already free of what nobody sees."""

    @property
    def server(self) -> str:
        """The alias of its server."""

    @property
    def tool(self) -> Tool:
        """Its definition."""

    @property
    def is_usable(self) -> bool:
        """Whether a model may see it."""


class Origin:
    """Where a request comes from: the servers whose words led to it, and where the answer goes.

    The host adds to `taint` the server whose words it releases, and to `heard` the words.
    """

    def __init__(self, taint: Collection[str], sink: str, heard: Heard | None = None) -> None:
        self.taint = set(taint)
        self.sink = sink
        self.heard = heard


class ChatHost(Protocol):
    """What a conversation needs of a host."""

    async def list_tools(self) -> Sequence[OfferedTool]:
        """The tools of all servers that are there."""

    async def list_prompts(self) -> Sequence[tuple[str, Prompt]]:
        """The prompts of all servers that are there, each with its server."""

    async def call_tool(
        self,
        server: str,
        name: str,
        arguments: dict[str, Any],
        *,
        conversation: Origin | None = None,
        on_progress: Callable[[ProgressParams], Any] | None = None,
        trace: str = "",
        raise_on_error: bool = True,
    ) -> ToolResult:
        """Call a tool, if it is allowed. Denied when it is not."""

    async def read_resource(
        self,
        server: str,
        uri: str,
        *,
        conversation: Origin | None = None,
        is_own_act: bool = False,
    ) -> ReadResourceResult:
        """Read a resource, if it is allowed."""

    async def get_prompt(
        self,
        server: str,
        name: str,
        arguments: dict[str, str] | None = None,
        *,
        conversation: Origin | None = None,
        is_own_act: bool = False,
    ) -> GetPromptResult:
        """Get a prompt, if it is allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What a turn may cost."""

    # 24 requests to the model: long tasks end well below, loops do not end by themselves.
    rounds: int = 24
    # 64 calls in a turn, 8 at the same time: a person has to be able to follow.
    calls: int = 64
    parallel: int = 8
    # A result of more than 4,000 tokens is kept aside, and its beginning given.
    result_tokens: int = 4_000
    # A fifth of the context for definitions of tools, at most; None: that fifth.
    tool_tokens: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # Nothing at all may be called; but a turn without a request never says anything.
            least = 0 if field.name in ("calls", "tool_tokens") else 1
            if value is not None and value < least:
                raise Misconfigured(f"Bounds({field.name}={value!r}) must be at least {least}")
