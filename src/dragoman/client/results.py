"""What a tool gave back, as a caller wants it."""

from __future__ import annotations

from typing import Any

from dragoman.model.base import Meta
from dragoman.model.content import ContentBlock, EmbeddedResource, TextContent
from dragoman.model.tools import CallToolResult

__all__ = ["ToolResult"]


class ToolResult:
    """The outcome of `Client.call_tool`.

    `content` is the list of blocks; `data` the structured value (None without one; a value that
    had to travel inside an object comes out of it); `structured_content` that object as it came;
    `text` the text of all blocks; `is_error` whether the tool failed; `meta` the result's `_meta`.
    """

    __slots__ = ("_result", "data")

    def __init__(self, result: CallToolResult, *, is_wrapped: bool = False) -> None:
        self._result = result
        self.data: Any = result.structured_content
        if is_wrapped and isinstance(self.data, dict):
            self.data = self.data.get("result")

    @property
    def content(self) -> list[ContentBlock]:
        """The blocks, in order."""
        return self._result.content

    @property
    def structured_content(self) -> Any:
        """The structured value as it came."""
        return self._result.structured_content

    @property
    def is_error(self) -> bool:
        """Whether the tool failed."""
        return self._result.is_error

    @property
    def meta(self) -> Meta:
        """The result's `_meta`; empty when it has none."""
        return self._result.meta or {}

    @property
    def text(self) -> str:
        """The text of all blocks, one line or more each; blocks without text are left out."""
        texts = []
        for block in self._result.content:
            if isinstance(block, TextContent):
                texts.append(block.text)
            elif isinstance(block, EmbeddedResource) and block.resource.text is not None:
                texts.append(block.resource.text)
        return "\n".join(texts)

    def __repr__(self) -> str:
        failed = " failed" if self.is_error else ""
        shown = self.data if self.data is not None else self.text[:80]
        return f"<ToolResult{failed} {shown!r}>"
