"""Claude Desktop: `claude_desktop_config.json`. Local servers only, and no variables in texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from dragoman.host.formats.places import settings_folder
from dragoman.host.formats.portable import Kind
from dragoman.host.formats.shape import Format

__all__ = ["ClaudeDesktop"]


class ClaudeDesktop(Format):
    """Servers under `mcpServers`; those at a URL are added in the program itself."""

    name = "claude-desktop"
    title = "Claude Desktop"
    kinds: ClassVar[Mapping[Kind, str]] = {"stdio": "stdio"}
    holds = frozenset()

    def files(
        self, environ: Mapping[str, str], project: Path, *, platform: str = "linux"
    ) -> list[Path]:
        """The user's own."""
        return [settings_folder(environ, platform) / "Claude" / "claude_desktop_config.json"]
